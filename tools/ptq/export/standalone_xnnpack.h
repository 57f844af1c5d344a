/* Kernels of headers for models in the arithmetic `xnnpack`: sections that take the place of those
   of the same names in standalone_kernels.h. Those that standalone_fixed.h lacks are for `fixed`
   too. */
#ifndef PTQ_STANDALONE_XNNPACK_H
#define PTQ_STANDALONE_XNNPACK_H

#include "export/standalone_kernels.h"

/* [section adder] */
/* ---- Addition ---- */

/* y = ((a - zero[0]) multiplier[0] + (b - zero[1]) multiplier[1]) / 2^shift + zero_point, rounded
   half up. No sum leaves 31 bits. */
typedef struct net_adder {
    int32_t multiplier[2];
    int shift;
    int32_t zero[2], zero_point, low, high;
} net_adder;

/* [section add] */
static int32_t net_add(const net_adder *s, int32_t a, int32_t b)
{
    int32_t sum = (a - s->zero[0]) * s->multiplier[0] + (b - s->zero[1]) * s->multiplier[1];
    sum = (sum + ((int32_t)1 << (s->shift - 1))) >> s->shift; /* compilers keep the sign */
    return net_clamped(sum + s->zero_point, s->low, s->high);
}

/* [section average] */
/* Of the codes of a window, in their own scale, rounded half away from zero. Padding that counts
   has the code of 0. */
static int32_t net_average(const net_pool *p, const uint8_t *x, const int *rows,
                           const int *columns)
{
    int32_t taps = rows[2] * columns[2], sum = taps * p->input.zero_point;
    int u, v;
    for (u = rows[0]; u < rows[1]; u++)
        for (v = columns[0]; v < columns[1]; v++)
            sum += net_load(x[(u * p->in[1] + v) * p->in[2]], p->input) - p->input.zero_point;
    return net_clamped((sum > 0 ? sum + taps / 2 : sum - taps / 2) / taps, p->low, p->high);
}

/* [section product] */
/* round((a - its zero point) (b - its zero point) multiplier) + zero_point. The n codes of b stand
   for all of a's, again and again. The result may be written over a. */
static void net_product(uint32_t multiplier, int32_t zero_point, int32_t low, int32_t high,
                        net_codes qa, const uint8_t *a, int count, net_codes qb, const uint8_t *b,
                        int n, uint8_t *y)
{
    int i;
    for (i = 0; i < count; i++) {
        int32_t product = (net_load(a[i], qa) - qa.zero_point) *
                          (net_load(b[i % n], qb) - qb.zero_point);
        y[i] = (uint8_t)net_requantize(product, multiplier, zero_point, low, high);
    }
}

/* [section end] */
#endif
