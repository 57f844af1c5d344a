/* Kernels of headers for models in the arithmetic `fixed`: sections that take the place of those of
   the same names in standalone_kernels.h, and a few more. No real number is left: a factor is an
   integer and a shift. */
#ifndef PTQ_STANDALONE_FIXED_H
#define PTQ_STANDALONE_FIXED_H

#include "export/standalone_kernels.h"

/* [section factor] */
#if INT_MAX < 2147483647
#error "products of codes are computed in int, which must have 32 bits"
#endif

/* ---- Factors ---- */

/* multiplier * 2^(shift - 31) */
typedef struct net_factor {
    int32_t multiplier;
    int shift;
} net_factor;

/* x times a factor, rounded twice: x multiplier / 2^31 half up, and what is left of the shift half
   away from zero. Negative numbers are shifted with their sign, as every compiler does it. */
static int32_t net_multiply(int32_t x, net_factor by)
{
    int up = by.shift > 0 ? by.shift : 0, down = up - by.shift;
    int64_t product = (int64_t)(int32_t)((uint32_t)x << up) * by.multiplier;
    int32_t high = (int32_t)((product + ((int64_t)1 << 30)) >> 31);
    uint32_t mask = ((uint32_t)1 << down) - 1, rest = (uint32_t)high & mask;
    return (high >> down) + (rest > (mask >> 1) + (high < 0 ? 1 : 0) ? 1 : 0);
}

/* [section requantize] */
/* From an accumulator to a code: clamp(acc * factor + zero_point). */
static int32_t net_requantize(int32_t acc, net_factor factor, int32_t zero_point, int32_t low,
                              int32_t high)
{
    return net_clamped(net_multiply(acc, factor), low - zero_point, high - zero_point) + zero_point;
}

/* [section weights] */
/* ---- Weights ---- */

/* Weights lie as output channel, row, column, input channel. `dot` is the sum of x w over the n
   weights of one output channel. */
typedef struct net_weights {
    int32_t (*dot)(const struct net_weights *w, int channel, const int16_t *x, int n);
    const void *code;
    int channel_bytes;
    int bits;       /* of one code where they are packed */
    int flip;       /* packed: the sign bit, or 0 where codes are unsigned */
    int zero_point;
    const int32_t *bias;          /* NULL: none */
    const net_factor *multiplier; /* scale_in * scale_weight / scale_out */
} net_weights;

/* [section adder] */
/* ---- Addition ---- */

/* y = ((a - zero[0]) 2^20 factor[0] + (b - zero[1]) 2^20 factor[1]) factor[2] + zero_point */
typedef struct net_adder {
    net_factor factor[3];
    int32_t zero[2], zero_point, low, high;
} net_adder;

/* [section add] */
static int32_t net_add(const net_adder *s, int32_t a, int32_t b)
{
    int32_t x = net_multiply((a - s->zero[0]) * (1 << 20), s->factor[0]);
    int32_t y = net_multiply((b - s->zero[1]) * (1 << 20), s->factor[1]);
    return net_requantize(x + y, s->factor[2], s->zero_point, s->low, s->high);
}

/* [section whole_average] */
/* p->scale: multiplier and shift + 31 of the sum's factor. */
static int32_t net_whole_average(const net_pool *p, const uint8_t *x, const int *rows,
                                 const int *columns)
{
    int32_t sum = 0;
    int i, pixels = rows[1] * columns[1];
    net_factor share;
    share.multiplier = (int32_t)p->scale[0];
    share.shift = (int)p->scale[1] - 31;
    for (i = 0; i < pixels; i++)
        sum += net_load(x[i * p->in[2]], p->input) - p->input.zero_point;
    return net_requantize(sum, share, p->zero_point, p->low, p->high);
}

/* [section product] */
/* (a - its zero point) (b - its zero point) factor + zero_point. The n codes of b stand for all of
   a's, again and again. The result may be written over a. */
static void net_product(int32_t multiplier, int shift, int32_t zero_point, int32_t low,
                        int32_t high, net_codes qa, const uint8_t *a, int count, net_codes qb,
                        const uint8_t *b, int n, uint8_t *y)
{
    net_factor factor;
    int i;
    factor.multiplier = multiplier;
    factor.shift = shift;
    for (i = 0; i < count; i++) {
        int32_t product = (net_load(a[i], qa) - qa.zero_point) *
                          (net_load(b[i % n], qb) - qb.zero_point);
        y[i] = (uint8_t)net_requantize(product, factor, zero_point, low, high);
    }
}

/* [section softmax] */
/* ---- Softmax ---- */

/* round(256 exp(scale (x - max)) / sum) - 128, half to even; power[d] is 2^31 exp(-scale d). */
static void net_softmax(const uint32_t *power, net_codes q, const uint8_t *x, int n, uint8_t *y)
{
    int32_t max = net_load(x[0], q);
    uint64_t sum = 0;
    int i;
    for (i = 1; i < n; i++)
        max = net_load(x[i], q) > max ? net_load(x[i], q) : max;
    for (i = 0; i < n; i++)
        sum += power[max - net_load(x[i], q)];
    for (i = 0; i < n; i++) {
        uint64_t part = (uint64_t)power[max - net_load(x[i], q)] << 9;
        uint64_t code = (part / sum + 1) / 2;
        code -= part % (2 * sum) == sum ? code % 2 : 0;
        y[i] = (uint8_t)(code > 255 ? 127 : (int)code - 128);
    }
}

/* [section end] */
#endif
