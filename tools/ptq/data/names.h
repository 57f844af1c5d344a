/* What a model says of the data that it takes. */
#ifndef PTQ_TOOL_NAMES_H
#define PTQ_TOOL_NAMES_H

#include <stddef.h>

#include "ptq.h"

/* Whether its input is real numbers, and not pixels. */
int model_takes_real(const ptq_model *model);

/* The name of a class, in the manner of snprintf; 0 where the model has none. */
size_t model_class_name(const ptq_model *model, int index, char *text, size_t size);

/* "crop" or "stretch": how pictures are brought to its size. */
const char *model_resize(const ptq_model *model);

#endif
