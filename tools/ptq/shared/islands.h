/* Nodes that compute on real numbers in a model of integers: why, and what would help. */
#ifndef PTQ_TOOL_ISLANDS_H
#define PTQ_TOOL_ISLANDS_H

#include "ptq.h"

/* Whether a quantized model's node is one. The borders between real numbers and codes are none, nor
   is a softmax behind the logits. */
int is_island(const ptq_model *model, int index);

/* Half sentences, of an operator without integer kernels: why it stays in float, and what to do.
   NULL: it has such kernels, and only its scheme keeps it. */
const char *island_reason(ptq_op op);
const char *island_remedy(ptq_op op);

#endif
