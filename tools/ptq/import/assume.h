/* What a file of ResNet8's weights leaves open, for ptq import: padding and epsilon. */
#ifndef PTQ_TOOL_ASSUME_H
#define PTQ_TOOL_ASSUME_H

#include "ptq.h"

typedef struct assumed {
    const char *padding, *epsilon;           /* --padding, --epsilon; NULL: by the file's origin */
    const char *padding_from, *epsilon_from; /* in words, where what was taken comes from */
} assumed;

/* "tensorflow" or "pytorch", what ResNet8's strided 3x3 convolutions do with an even size: TensorFlow
   pads at the bottom and the right, PyTorch at all sides. `otherwise` where nothing was said. */
int assume_padding(assumed *a, const char *otherwise, const char *from, ptq_model *model);

/* Of all batch norms: as said, else the text `own`, of the file, else `otherwise`. */
int assume_epsilon(assumed *a, const char *own, float otherwise, const char *from,
                   ptq_model *model);

#endif
