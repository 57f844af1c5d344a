/* Inputs as bytes: ARMv6-M, and processors without instructions for this. See opening.h. */
#ifndef PTQ_STRIPS_BYTES_H
#define PTQ_STRIPS_BYTES_H

#include "export/strips/opening.h"

/* [section bytes] */
/* ---- Inputs as bytes ----

   From 0 to 255; sums begin with what takes their zero point away. Weights lie four channels side
   by side, on ARMv6-M as words, since one instruction loads four of those. */
#ifdef NET_THUMB
typedef int32_t net_laid;
#else
typedef int8_t net_laid;
#endif
typedef uint8_t net_value;
static net_value net_rows[NET_ROWS];
static net_laid net_factors[NET_PLAIN_FACTORS];

#define NET_ZERO(c) ((c)->input.zero_point + (c)->input.flip) /* code 0, as the rows hold it */
#define NET_QUAD(k) (k) /* where channel k of four lies in a row */

static void net_put_row(const net_conv *c, const uint8_t *x, int n, uint8_t *to)
{
    int i;
    if (!c->input.flip)
        memcpy(to, x, (size_t)n);
    else
        for (i = 0; i < n; i++)
            to[i] = x[i] ^ 128;
}

static void net_pad_row(const net_conv *c, int n, uint8_t *to)
{
    memset(to, (int)NET_ZERO(c), (size_t)n);
}

NET_APART void net_put_weights(const net_conv *c, int channel)
{
    static int8_t room[NET_UNPACKED];
    int taps = c->kernel[0] * c->kernel[1] * c->in[2], o, k;
    for (o = 0; o < 4; o++) {
        const int8_t *w = net_bytes(&c->weights, channel + o, taps, room);
        net_laid *to = net_factors + o;
        int32_t sum = 0;
        for (k = 0; k < taps; k++, to += 4)
            sum += *to = w[k];
        net_now.first[o] -= NET_ZERO(c) * sum;
    }
}

/* [section bytes_four] */
/* The codes of four sums, for layers where this is little of the work. */
NET_APART void net_finish_four(const net_strip *s, const int32_t *sum, uint8_t *y, int channel)
{
    int k;
    for (k = 0; k < 4; k++)
        y[k] = (uint8_t)net_code(s, sum[k], k, channel);
}

/* [section end] */
#endif
