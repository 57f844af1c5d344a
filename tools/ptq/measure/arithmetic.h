/* The arithmetic behind one element of an integer network, in numbers, for those who show it: the
   tool as text (explain.h), the page in colour, Python as arrays. */
#ifndef PTQ_TOOL_ARITHMETIC_H
#define PTQ_TOOL_ARITHMETIC_H

#include "ptq.h"

/* Element (y, x, c) of the result of a convolution, a dense layer or an average over the whole
   image, as [OPERATORS] of ptq.h computes it:

       sum = bias + sum over k of input[k] * weight[k]       padding counts as 0
       scaled = sum * multiplier                             in single precision
       code = clamp(rne(scaled) + zero_point) to low..high   where the result is coded

   An average has neither weights nor bias. */
typedef struct arithmetic {
    const ptq_node *node; /* the model's */
    int y, x, c;
    int window[3]; /* input channels, height, width: products go in this order, the last fastest. A
                      dense layer's, in the order of its input in memory, are channels */
    int taps;      /* product of `window` */
    int top, left, channel; /* of the window in the input: row and column (of padding they are
                               outside it), and its first channel */
    int *input;             /* taps: code less zero point; 0 in padding */
    int *weight;            /* taps: likewise. NULL: an average, every weight is 1 */
    int input_zero_point;
    float input_scale, weight_scale; /* weight_scale: that of channel c; an average: 1 */
    int bias, sum;
    float multiplier, scaled;
    int coded; /* 0: the result is the real number `scaled`, and the next six are 0 */
    float scale;
    int zero_point, low, high, code;
    float value; /* that the code stands for */

    /* A fused addition, 0 where there is none. `first` and `second` are the raw codes of its
       operands:
           added_code = clamp(rne(fma(first, ratio[0], fma(second, ratio[1], shift)))) */
    int adds, own_first; /* own_first: `code` is the first operand */
    int residual;        /* code of the other operand */
    float residual_value, ratio[2], shift;
    int added_low, added_high, added_code;
    float added_value;
} arithmetic;

/* `session` belongs to the plan, keeps its tensors, and has run. PTQ_INVALID_ARGUMENT names a node
   of another kind, or one without such an element. */
ptq_status arithmetic_open(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, arithmetic *out, ptq_error *err);

/* Zeros are fine. */
void arithmetic_close(arithmetic *a);

#endif
