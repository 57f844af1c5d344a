/* What a comparison with the float model allows to say: whether a model may be recommended. */
#ifndef PTQ_TOOL_VERDICT_H
#define PTQ_TOOL_VERDICT_H

#include <stddef.h>

#include "ptq.h"

/* "Not worse" means that the lower end of the interval of the change lies above minus a margin, in
   percentage points. With no margin at all nothing could ever be shown to be as good. */
#define DEFAULT_MARGIN 1.0

typedef enum verdict_kind {
    VERDICT_AS_GOOD, /* shown not to be worse by the margin or more */
    VERDICT_TOO_FEW, /* the images are too few to show it */
    VERDICT_WORSE    /* the loss seen exceeds the margin: no number of images would do */
} verdict_kind;

typedef struct verdict {
    verdict_kind kind;
    double margin;
    size_t needed; /* VERDICT_TOO_FEW: images that would do at the rates of flips seen */
} verdict;

/* margin > 0. */
verdict judge(const ptq_comparison *compared, double margin);

/* One sentence without a full stop, "not worse than float by 1 point or more". */
void verdict_text(const verdict *given, char *text, size_t size);

/* "point" of 1, else "points". */
const char *points_word(double number);

/* The value of --margin (NULL: the default); 0, or 1 after an error. For `option_spec`: */
int read_margin(const char *given, double *margin);
#define MARGIN_HELP "points that a model may be worse and still count as good (default 1)"

#endif
