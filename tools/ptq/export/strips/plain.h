/* Processors without instructions for this: RV32, Cortex-M3. See opening.h. */
#ifndef PTQ_STRIPS_PLAIN_H
#define PTQ_STRIPS_PLAIN_H

#include "export/strips/opening.h"

/* [section plain] */
/* ---- Plain C ----

   Sums of two or four places of four channels. */
#if defined(__riscv) || defined(__aarch64__)
enum { NET_PLACES = 4 }; /* sixteen sums: these have 31 registers */
#else
enum { NET_PLACES = 2 };
#endif

/* An input at one place with the weights of four channels. */
#define NET_AT(p, k) \
    if ((p) < NET_PLACES) { \
        v = x[(p) * x1 + (k)]; \
        a[p][0] += v * w0, a[p][1] += v * w1, a[p][2] += v * w2, a[p][3] += v * w3; \
        NET_SETTLE(a[p][0], a[p][1], a[p][2], a[p][3]); \
    }
#define NET_TAP(k) \
    if ((k) < unrolled) { \
        w0 = w[4 * (k)], w1 = w[4 * (k) + 1], w2 = w[4 * (k) + 2], w3 = w[4 * (k) + 3]; \
        NET_AT(0, k) NET_AT(1, k) NET_AT(2, k) NET_AT(3, k) \
        NET_IN_ORDER; \
    }
#define NET_KEEP(p) \
    if ((p) < NET_PLACES) { \
        to[4 * (p)] = a[p][0], to[4 * (p) + 1] = a[p][1], to[4 * (p) + 2] = a[p][2]; \
        to[4 * (p) + 3] = a[p][3]; \
    }
#define NET_BEGIN(p) \
    a[p][0] = net_now.first[0], a[p][1] = net_now.first[1], a[p][2] = net_now.first[2], \
    a[p][3] = net_now.first[3];

NET_INLINE void net_places(const net_strip *s, const uint8_t *x, int32_t *to)
{
    const net_conv *c = s->conv;
    const int taps = c->kernel[1] * c->in[2], unrolled = NET_UNROLLED(taps);
    const int x1 = c->stride[1] * c->in[2];
    const int8_t *w = net_factors, *end = w + 4 * taps * c->kernel[0], *stop;
    int32_t a[4][4], v, w0, w1, w2, w3;
    NET_BEGIN(0) NET_BEGIN(1) NET_BEGIN(2) NET_BEGIN(3)
    for (; w < end; x += s->row - taps)
        for (stop = w + 4 * taps; w < stop; x += unrolled, w += 4 * unrolled) {
            NET_TAP(0) NET_TAP(1) NET_TAP(2) NET_TAP(3)
            NET_TAP(4) NET_TAP(5) NET_TAP(6) NET_TAP(7)
        }
    NET_KEEP(0) NET_KEEP(1) NET_KEEP(2) NET_KEEP(3)
}

/* For all layers: written out at every place, this would be most of the code. */
NET_APART void net_put_codes(const net_strip *s, const int32_t *sum, uint8_t *y, int channel)
{
    int p, k;
    for (p = 0; p < NET_PLACES; p++, y += s->step - 4)
        for (k = 0; k < 4; k++)
            *y++ = net_code(s, *sum++, k, channel);
}

/* Four channels of `height` rows. The last places of a row may be computed twice. */
NET_INLINE void net_group(const net_strip *s, int height, uint8_t *y, int channel)
{
    const net_conv *c = s->conv;
    const int x1 = c->stride[1] * c->in[2], rest = c->out[1] % NET_PLACES;
    const uint8_t *row = net_rows, *x;
    int32_t sum[4 * NET_PLACES];
    int ox;
    for (; height > 0; height--, row += c->stride[0] * s->row) {
        x = row;
        for (ox = NET_PLACES; ox <= c->out[1]; ox += NET_PLACES) {
            net_places(s, x, sum);
            net_put_codes(s, sum, y, channel);
            x += NET_PLACES * x1, y += NET_PLACES * s->step;
        }
        if (rest) {
            net_places(s, x - (NET_PLACES - rest) * x1, sum);
            net_put_codes(s, sum, y - (NET_PLACES - rest) * s->step, channel);
            y += rest * s->step;
        }
    }
}

/* [section end] */
#endif
