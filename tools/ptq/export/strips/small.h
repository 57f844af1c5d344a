/* Convolution in strips of a few places, for --small: little memory, little code. See opening.h. */
#ifndef PTQ_STRIPS_SMALL_H
#define PTQ_STRIPS_SMALL_H

#include "export/strips/closing.h"

/* [section small_rows] */
static void net_put_row(const net_conv *c, const uint8_t *x, int n, int16_t *to)
{
    int i;
    for (i = 0; i < n; i++)
        to[i] = (int16_t)(net_load(x[i], c->input) - c->input.zero_point);
}

/* [section small_mve] */
/* ---- Squares ----

   Weights are read where they lie, two channels at a time, w and v, each for the inputs of two
   places, x and z: whatever is loaded serves two products. Sums of x with w and v, then of z. */
#include <arm_mve.h>

#define NET_VECTORS(load, widen) \
    p = load(x + k), q = load(z + k), f = widen(w + k), g = widen(v + k); \
    a0 = vmladavaq_s16(a0, p, f), a1 = vmladavaq_s16(a1, p, g); \
    b0 = vmladavaq_s16(b0, q, f), b1 = vmladavaq_s16(b1, q, g);
#define NET_SOME(at) vld1q_z_s16(at, some)
#define NET_SOME_WIDENED(at) vldrbq_z_s16(at, some)

NET_APART void net_sum_square(const net_strip *s, const int16_t *x, const int16_t *z,
                              const int8_t *w, const int8_t *v, int32_t *sum)
{
    const int n = s->conv->kernel[1] * s->conv->in[2];
    int32_t a0 = 0, a1 = 0, b0 = 0, b1 = 0;
    int16x8_t p, q, f, g;
    int u, k;
    for (u = 0; u < s->conv->kernel[0]; u++, x += s->row, z += s->row, w += n, v += n) {
        const mve_pred16_t some = vctp16q((uint32_t)n % 8);
        for (k = 0; k + 8 <= n; k += 8) {
            NET_VECTORS(vld1q_s16, vldrbq_s16)
        }
        if (k < n) {
            NET_VECTORS(NET_SOME, NET_SOME_WIDENED)
        }
    }
    sum[0] = a0, sum[1] = a1, sum[2] = b0, sum[3] = b1;
}

/* [section small_squares] */
/* ---- Squares ----

   Weights are read where they lie, two channels at a time, w and v, each for the inputs of two
   places, x and z: whatever is loaded serves two products. Sums of x with w and v, then of z. */
NET_APART void net_sum_square(const net_strip *s, const int16_t *x, const int16_t *z,
                              const int8_t *w, const int8_t *v, int32_t *sum)
{
    const int n = s->conv->kernel[1] * s->conv->in[2];
    const int8_t *end = w;
    int32_t a0 = 0, a1 = 0, b0 = 0, b1 = 0;
    int u;
    for (u = 0; u < s->conv->kernel[0]; u++, x += s->row - n, z += s->row - n)
        for (end += n; w < end; x++, z++, w++, v++) {
            a0 += *x * *w, a1 += *x * *v;
            b0 += *z * *w, b1 += *z * *v;
        }
    sum[0] = a0, sum[1] = a1, sum[2] = b0, sum[3] = b1;
}

/* [section small_dsp] */
/* Four inputs each at two places, with the weights of two channels: the even bytes of a word, and
   the odd ones, are its halves times 256. */
#define NET_EVEN(four) (int32_t)((four) << 8 & halves)
#define NET_ODD(four) (int32_t)((four) & halves)
#define NET_FOURS(i) \
    f = NET_WORD(w + 4 * (i)), g = NET_WORD(v + 4 * (i)); \
    p = (int32_t)NET_WORD(x + 4 * (i)), q = (int32_t)NET_WORD(z + 4 * (i)); \
    a0 = __smlad(p, NET_EVEN(f), a0), b0 = __smlad(q, NET_EVEN(f), b0); \
    a1 = __smlad(p, NET_EVEN(g), a1), b1 = __smlad(q, NET_EVEN(g), b1); \
    NET_IN_ORDER; \
    p = (int32_t)NET_WORD(x + 4 * (i) + 2), q = (int32_t)NET_WORD(z + 4 * (i) + 2); \
    a0 = __smlad(p, NET_ODD(f), a0), b0 = __smlad(q, NET_ODD(f), b0); \
    a1 = __smlad(p, NET_ODD(g), a1), b1 = __smlad(q, NET_ODD(g), b1); \
    NET_IN_ORDER;

/* The same where channels come in fours. */
NET_APART void net_sum_fours(const net_strip *s, const int16_t *x, const int16_t *z,
                             const int8_t *w, const int8_t *v, int32_t *sum)
{
    const int n = s->conv->kernel[1] * s->conv->in[2];
    const int8_t *end = w, *last = w + s->conv->kernel[0] * n;
    int32_t a0 = 0, a1 = 0, b0 = 0, b1 = 0, p, q;
    uint32_t halves = 0xff00ff00u, f, g;
    NET_HIDE(halves);
    for (; w < last; x += s->row - n, z += s->row - n) {
        for (end += n; end - w >= 8; x += 8, z += 8, w += 8, v += 8) {
            NET_FOURS(0)
            NET_FOURS(1)
        }
        if (w < end) {
            NET_FOURS(0)
            x += 4, z += 4, w += 4, v += 4;
        }
    }
    sum[0] = a0 >> 8, sum[1] = a1 >> 8, sum[2] = b0 >> 8, sum[3] = b1 >> 8;
}

/* [section small_others] */
#define net_sum_fours net_sum_square

/* [section small] */
/* Two channels at the places of a strip; an odd last one is computed twice, to be kept once. */
NET_APART void net_put_two(const net_strip *s, int places, int channel, uint8_t *y)
{
    static int8_t room[2][NET_UNPACKED];
    const net_conv *c = s->conv;
    const int taps = c->kernel[0] * c->kernel[1] * c->in[2], x1 = c->stride[1] * c->in[2];
    const int8_t *w = net_bytes(&c->weights, channel, taps, room[0]);
    const int8_t *v = net_bytes(&c->weights, channel + 1, taps, room[1]);
    const int16_t *x = net_rows, *z;
    int32_t sum[4];
    int k;
    for (; places > 0; places -= 2, x += 2 * x1) {
        z = places > 1 ? x + x1 : x;
        if (c->in[2] % 4 == 0)
            net_sum_fours(s, x, z, w, v, sum);
        else
            net_sum_square(s, x, z, w, v, sum);
        for (k = 0; k < (places > 1 ? 4 : 2); k += 2, y += s->step) {
            y[0] = net_code(s, sum[k], 0, channel);
            y[1] = net_code(s, sum[k + 1], 1, channel);
        }
    }
}

/* [section small_alone] */
/* Without a residual. The last two channels may overlap those before. */
static void net_strips(const net_strip *s, const uint8_t *x, uint8_t *y)
{
    const net_conv *c = s->conv;
    int oy, ox, o, channel, places;
    for (oy = 0; oy < c->out[0]; oy++)
        for (ox = 0; ox < c->out[1]; ox += s->width, y += places * c->out[2]) {
            places = c->out[1] - ox < s->width ? c->out[1] - ox : s->width;
            net_put_rows(s, x, oy, ox, 1);
            for (o = 0; o < c->out[2]; o += 2) {
                channel = o < c->out[2] - 2 ? o : c->out[2] - 2;
                net_put_channels(s, channel, 2);
                net_put_two(s, places, channel, y + channel);
            }
        }
}

/* [section small_sum] */
/* `residual` may be y. */
static void net_strips_sum(const net_strip *s, const uint8_t *x, const uint8_t *residual,
                           uint8_t *y)
{
    const net_conv *c = s->conv;
    int oy, ox, channel, places, k, at = 0;
    net_adding adding;
    net_begin_adding(&adding, c);
    for (oy = 0; oy < c->out[0]; oy++)
        for (ox = 0; ox < c->out[1]; ox += s->width, at += places * c->out[2]) {
            places = c->out[1] - ox < s->width ? c->out[1] - ox : s->width;
            net_put_rows(s, x, oy, ox, 1);
            for (channel = 0; channel < c->out[2]; channel += 2) {
                net_put_channels(s, channel, 2);
                net_put_two(s, places, channel, net_sums);
                for (k = 0; k < 2 * places; k++) {
                    int to = at + k / 2 * c->out[2] + channel + k % 2;
                    y[to] = net_sum_code(&adding, residual[to], net_sums[k], c->adder.low,
                                         c->adder.high);
                }
            }
        }
}

/* [section small_depth] */
/* Of a kernel whose first row or column lies at `first`, those that lie inside the image. */
static void net_inside(const net_conv *c, int axis, int first, int *from, int *to)
{
    int beyond = first + c->kernel[axis] - c->in[axis];
    *from = first < 0 ? -first : 0;
    *to = c->kernel[axis] - (beyond > 0 ? beyond : 0);
}

/* Four channels at one place; x is the first input of the first of them. */
static void net_depth_sums(const net_conv *c, const uint8_t *x, int oy, int ox, int32_t *sum)
{
    const int32_t flip = c->input.flip, less = flip + c->input.zero_point;
    const int row = oy * c->stride[0] - c->pad[0], column = ox * c->stride[1] - c->pad[1];
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    int top, bottom, left, right, u, v;
    net_inside(c, 0, row, &top, &bottom);
    net_inside(c, 1, column, &left, &right);
    for (u = top; u < bottom; u++) {
        const int32_t *w = net_depth_factors + 4 * (u * c->kernel[1] + left);
        const uint8_t *from = x + ((row + u) * c->in[1] + column + left) * c->in[2];
        for (v = left; v < right; v++, w += 4, from += c->in[2]) {
            a0 += ((from[0] ^ flip) - less) * w[0];
            a1 += ((from[1] ^ flip) - less) * w[1];
            a2 += ((from[2] ^ flip) - less) * w[2];
            a3 += ((from[3] ^ flip) - less) * w[3];
        }
    }
    sum[0] = a0, sum[1] = a1, sum[2] = a2, sum[3] = a3;
}

/* Inputs are read where they lie. */
static void net_depthwise(const net_strip *s, const uint8_t *x, uint8_t *y)
{
    const net_conv *c = s->conv;
    int oy, ox, channel, k;
    int32_t sum[4];
    for (channel = 0; channel < c->out[2]; channel += 4) {
        uint8_t *to = y + channel;
        net_put_channels(s, channel, 4);
        net_put_depth(c, channel);
        for (oy = 0; oy < c->out[0]; oy++)
            for (ox = 0; ox < c->out[1]; ox++, to += c->out[2]) {
                net_depth_sums(c, x + channel, oy, ox, sum);
                for (k = 0; k < 4; k++)
                    to[k] = net_code(s, sum[k], k, channel);
            }
    }
}

/* [section end] */
#endif
