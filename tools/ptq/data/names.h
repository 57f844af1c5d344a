/* What a model says of the data that it takes. */
#ifndef PTQ_TOOL_NAMES_H
#define PTQ_TOOL_NAMES_H

#include "ptq.h"

/* Whether its input is real numbers, and not pixels. */
int model_takes_real(const ptq_model *model);

/* "crop" or "stretch": how pictures are brought to its size. */
const char *model_resize(const ptq_model *model);

#endif
