/* What all forms have, and what calls them. See opening.h. */
#ifndef PTQ_STRIPS_CLOSING_H
#define PTQ_STRIPS_CLOSING_H

#include "export/strips/opening.h"

/* [section strip_rows] */
typedef void net_grouped(int height, uint8_t *y, int channel);

/* The rows of the image for `height` rows of results from row oy on. */
static void net_put_rows(const net_strip *s, const uint8_t *x, int oy, int height)
{
    const net_conv *c = s->conv;
    int rows = (height - 1) * c->stride[0] + c->kernel[0], left = c->pad[1] * c->in[2];
    int n = s->row - left < c->in[1] * c->in[2] ? s->row - left : c->in[1] * c->in[2], r;
    for (r = 0; r < rows; r++) {
        int row = oy * c->stride[0] - c->pad[0] + r;
        if (row < 0 || row >= c->in[0]) {
            net_pad_row(c, s->row, net_rows + r * s->row);
        } else {
            net_pad_row(c, left, net_rows + r * s->row);
            net_put_row(c, x + row * c->in[1] * c->in[2], n, net_rows + r * s->row + left);
            net_pad_row(c, s->row - left - n, net_rows + r * s->row + left + n);
        }
    }
}

static void net_put_four(const net_strip *s, int channel)
{
    const net_weights *w = &s->conv->weights;
    int k;
    for (k = 0; k < 4; k++) {
        net_now.bias[k] = w->bias ? w->bias[channel + k] : 0;
        net_now.multiplier[k] = net_fixed(w->multiplier[channel + k], s->shift);
    }
    net_put_weights(s->conv, channel);
}

/* [section strip_alone] */
/* Without a residual. The last four channels may overlap those before. */
static void net_strips(const net_strip *s, net_grouped *group, const uint8_t *x, uint8_t *y)
{
    const net_conv *c = s->conv;
    int oy, o, channel, height;
    for (oy = 0; oy < c->out[0]; oy += s->height, y += s->height * c->out[1] * c->out[2]) {
        height = c->out[0] - oy < s->height ? c->out[0] - oy : s->height;
        net_put_rows(s, x, oy, height);
        for (o = 0; o < c->out[2]; o += 4) {
            channel = o < c->out[2] - 4 ? o : c->out[2] - 4;
            net_put_four(s, channel);
            group(height, y + channel, channel);
        }
    }
}

/* [section strip_sum] */
static uint8_t net_sums[NET_SUMS]; /* results that wait for the residual */

/* value * 2^20 */
static int32_t net_fixed20(uint32_t bits)
{
    net_real r = net_decode(bits);
    int up = r.e + 20;
    return up >= 0 ? r.m * ((int32_t)1 << up) : up > -31 ? (r.m + (1 << (-up - 1))) >> -up : 0;
}

/* Adds the residuals to net_sums, at `n` places of four channels each. In units of 2^-20 the sum's
   error is below 1024, as many as it begins with; so a result that lies less than 2048 above an
   integer is computed as it is defined. */
static void net_add_four(const net_conv *c, const uint8_t *residual, uint8_t *y, int n)
{
    int32_t ratio = net_fixed20(c->adder.ratio[!c->residual_first]);
    int32_t other = net_fixed20(c->adder.ratio[c->residual_first]);
    int flip = c->residual.flip, flipped = c->low < 0 ? 128 : 0, i, k;
    int32_t begin = net_fixed20(c->adder.shift) + (1 << 19) + 1024 - flip * ratio - flipped * other;
    const uint8_t *sum = net_sums;
    for (i = 0; i < n; i++, sum += 4, residual += c->out[2], y += c->out[2])
        for (k = 0; k < 4; k++) {
            int32_t a = residual[k] ^ flip, b = sum[k] ^ flipped, t = begin + a * ratio + b * other;
            if (t & 0xff800)
                t = net_clamped(t >> 20, c->adder.low, c->adder.high);
            else if (c->residual_first)
                t = net_add(&c->adder, a - flip, b - flipped);
            else
                t = net_add(&c->adder, b - flipped, a - flip);
            y[k] = (uint8_t)t;
        }
}

/* `residual` may be y. */
static void net_strips_sum(const net_strip *s, net_grouped *group, const uint8_t *x,
                           const uint8_t *residual, uint8_t *y)
{
    const net_conv *c = s->conv;
    int oy, channel, height, at;
    for (oy = 0; oy < c->out[0]; oy += s->height) {
        height = c->out[0] - oy < s->height ? c->out[0] - oy : s->height;
        net_put_rows(s, x, oy, height);
        for (channel = 0; channel < c->out[2]; channel += 4) {
            at = oy * c->out[1] * c->out[2] + channel;
            net_put_four(s, channel);
            group(height, net_sums, channel);
            net_add_four(c, residual + at, y + at, height * c->out[1]);
        }
    }
}

/* [section end] */
#endif
