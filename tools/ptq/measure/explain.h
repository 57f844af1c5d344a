/* How one element of an integer layer's result came about, for those who follow the arithmetic. */
#ifndef PTQ_TOOL_EXPLAIN_H
#define PTQ_TOOL_EXPLAIN_H

#include "ptq.h"

/* The numbers of arithmetic_open, which says what must be there, as a text to be freed: each
   product, the accumulator, the multiplier, the rounding, the clamp, the addition. */
ptq_status explain_element(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, char **text, ptq_error *err);

#endif
