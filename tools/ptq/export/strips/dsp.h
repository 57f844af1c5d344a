/* Arm's DSP instructions: Cortex-M4, M7, M33. See opening.h. */
#ifndef PTQ_STRIPS_DSP_H
#define PTQ_STRIPS_DSP_H

#include "export/strips/opening.h"

/* [section wide] */
/* Inputs of a few rows, less their zero point, widened to 16 bits. */
typedef int16_t net_value;
static net_value net_rows[NET_ROWS];

#define NET_ZERO(c) 0 /* code 0, as the rows hold it */

static void net_pad_row(const net_conv *c, int n, int16_t *to)
{
    (void)c;
    memset(to, 0, (size_t)n * sizeof *to);
}

/* [section dsp_rows] */
/* ---- Arm's DSP instructions ----

   SMLAD adds two products of 16 bits. Inputs, less their zero point, and weights are widened for
   it, the weights times 256, since the high byte of a half-word is as easily filled as the low one.
   Of four inputs a b c d the pairs are (a, c) and (b, d), as SXTB16 makes them. */
#include <arm_acle.h>

/* Any four bytes as a word: these processors load them from any address. */
typedef struct net_word {
    uint32_t bits;
} __attribute__((packed, may_alias)) net_word;

#define NET_WORD(at) (((const net_word *)(const void *)(at))->bits)

static void net_put_row(const net_conv *c, const uint8_t *x, int n, int16_t *to)
{
    const uint32_t flip = c->input.flip ? 0 : 0x80808080u; /* to signed bytes */
    const uint32_t less = (uint32_t)(128 - c->input.flip - c->input.zero_point) & 0xffff;
    const int32_t both = (int32_t)(less * 0x10001u);
    net_word *two = (net_word *)(void *)to;
    int i = 0;
    if (c->in[2] % 4 == 0)
        for (; i < n; i += 4, two += 2) {
            uint32_t four = NET_WORD(x + i) ^ flip;
            two[0].bits = (uint32_t)__sxtab16(both, (int32_t)four);
            two[1].bits = (uint32_t)__sxtab16(both, (int32_t)(four >> 8 | four << 24));
        }
    for (; i < n; i++)
        to[i] = (int16_t)(net_load(x[i], c->input) - c->input.zero_point);
}

/* [section dsp] */
static uint32_t net_factors[NET_DSP_FACTORS];

#define NET_QUAD(k) ((k) % 3 ? 3 - (k) : (k)) /* where channel k of four lies in a row */

/* Pairs of weights, of the four channels in turn. */
NET_APART void net_put_weights(const net_conv *c, int channel)
{
    static int8_t room[NET_UNPACKED];
    int row = c->kernel[1] * c->in[2], taps = c->kernel[0] * row, pairs = (row + 1) / 2, o, u, k;
    for (o = 0; o < 4; o++) {
        const int8_t *w = net_bytes(&c->weights, channel + o, taps, room), *end = w + taps;
        uint32_t *to = net_factors + o;
        if (c->in[2] % 4 == 0)
            for (; w < end; w += 4, to += 8) {
                uint32_t four = NET_WORD(w);
                to[0] = four << 8 & 0xff00ff00u;
                to[4] = four & 0xff00ff00u;
            }
        else
            for (u = 0; u < c->kernel[0]; u++, w += row)
                for (k = 0; k < pairs; k++, to += 4)
                    *to = (uint32_t)(uint8_t)w[2 * k] << 8 |
                          (2 * k + 1 < row ? (uint32_t)(uint8_t)w[2 * k + 1] << 24 : 0);
    }
}

/* [section dsp_code] */
/* Codes from -128 to 127 are computed as 0 to 255, to which USAT limits. */
#define NET_LIFT(s) ((s)->conv->low == -128 && (s)->conv->high == 127 ? 128 : 0)

/* The code of a sum times 256. */
NET_INLINE uint32_t net_code(const net_strip *s, int32_t acc, int k, int channel)
{
    int32_t t = (int32_t)((int64_t)acc * net_now.multiplier[k] >> 32) + net_now.begin[k];
    if (!(t & NET_TIE(s)))
        return (uint8_t)(net_exact(s->conv, channel + k, acc >> 8) + NET_LIFT(s));
    t >>= s->shift;
    if (s->conv->high - s->conv->low == 255)
        return (uint32_t)__usat(t, 8);
    return (uint8_t)net_clamped(t, s->conv->low, s->conv->high);
}

/* [section dsp_code_fixed] */
#define NET_LIFT(s) 0

/* The code of a sum times 256. */
NET_INLINE uint32_t net_code(const net_strip *s, int32_t acc, int k, int channel)
{
    return (uint8_t)net_exact(s->conv, channel + k, acc >> 8);
}

/* [section dsp_places] */
/* Four codes, one behind the other. */
NET_INLINE void net_put_codes(const net_strip *s, int32_t a0, int32_t a1, int32_t a2, int32_t a3,
                              uint8_t *y, int channel)
{
    uint32_t four = net_code(s, a0, 0, channel) | net_code(s, a1, 1, channel) << 8 |
                    net_code(s, a2, 2, channel) << 16 | net_code(s, a3, 3, channel) << 24;
    ((net_word *)(void *)y)->bits = NET_LIFT(s) ? four ^ 0x80808080u : four;
}

/* f = from[i], g = from[i + 1]: one instruction, which the compiler takes only where registers are
   plenty. */
#if defined(__GNUC__) && defined(__thumb2__)
#define NET_LOAD_TWO(f, g, from, i) \
    __asm__("ldrd %0, %1, [%2, %3]" \
            : "=r"(f), "=r"(g) \
            : "r"(from), "i"(4 * (i)), "m"((from)[i]), "m"((from)[(i) + 1]))
#else
#define NET_LOAD_TWO(f, g, from, i) f = (int32_t)(from)[i], g = (int32_t)(from)[(i) + 1]
#endif

/* Two inputs each at two places, with the weights of four channels. */
#define NET_PAIR(i) \
    if ((i) < unrolled) { \
        p = (int32_t)NET_WORD(x + 2 * (i)), q = (int32_t)NET_WORD(x + x1 + 2 * (i)); \
        NET_LOAD_TWO(f, g, w, 4 * (i)); \
        a0 = __smlad(p, f, a0), b0 = __smlad(q, f, b0); \
        a1 = __smlad(p, g, a1), b1 = __smlad(q, g, b1); \
        NET_LOAD_TWO(f, g, w, 4 * (i) + 2); \
        a2 = __smlad(p, f, a2), b2 = __smlad(q, f, b2); \
        a3 = __smlad(p, g, a3), b3 = __smlad(q, g, b3); \
        NET_IN_ORDER; \
    }

/* Two places of four channels: eight sums, two inputs and a weight fill the registers. */
NET_INLINE void net_places(const net_strip *s, const int16_t *x, uint8_t *y, int channel)
{
    const net_conv *c = s->conv;
    const int pairs = (c->kernel[1] * c->in[2] + 1) / 2, unrolled = NET_UNROLLED(pairs);
    const int x1 = c->stride[1] * c->in[2];
    const uint32_t *w = net_factors, *end = w + 4 * pairs * c->kernel[0], *stop;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
    int32_t p, q, f, g;
    for (; w < end; x += s->row - 2 * pairs)
        for (stop = w + 4 * pairs; w < stop; x += 2 * unrolled, w += 4 * unrolled) {
            NET_PAIR(0) NET_PAIR(1) NET_PAIR(2) NET_PAIR(3)
            NET_PAIR(4) NET_PAIR(5) NET_PAIR(6) NET_PAIR(7)
        }
    net_put_codes(s, a0, a1, a2, a3, y, channel);
    net_put_codes(s, b0, b1, b2, b3, y + s->step, channel);
}

/* [section dsp_four] */
/* The codes of four sums. */
NET_INLINE void net_finish_four(const net_strip *s, const int32_t *sum, uint8_t *y, int channel)
{
    net_put_codes(s, sum[0] * 256, sum[1] * 256, sum[2] * 256, sum[3] * 256, y, channel);
}

/* [section end] */
#endif
