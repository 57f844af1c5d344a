/* How one element of an integer layer's result came about, for those who follow the arithmetic. */
#ifndef PTQ_TOOL_EXPLAIN_H
#define PTQ_TOOL_EXPLAIN_H

#include "ptq.h"

/* Element (y, x, c) of a convolution's or dense layer's result in the last run: each product, the
   accumulator, the multiplier, the rounding, the clamp. The session belongs to the plan, keeps its
   tensors, and has run. A text to be freed. */
ptq_status explain_element(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, char **text, ptq_error *err);

#endif
