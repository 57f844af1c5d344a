/* What all forms have, and what calls them. See opening.h. */
#ifndef PTQ_STRIPS_CLOSING_H
#define PTQ_STRIPS_CLOSING_H

#include "export/strips/opening.h"

/* [section strip_rows] */
/* The rows of the image for `height` rows of results from row oy and place ox on. */
static void net_put_rows(const net_strip *s, const uint8_t *x, int oy, int ox, int height)
{
    const net_conv *c = s->conv;
    int rows = (height - 1) * c->stride[0] + c->kernel[0], whole = c->in[1] * c->in[2];
    int first = (ox * c->stride[1] - c->pad[1]) * c->in[2], left = first < 0 ? -first : 0;
    int n = s->row < whole - first ? s->row - left : whole - first - left, r;
    for (r = 0; r < rows; r++) {
        int row = oy * c->stride[0] - c->pad[0] + r;
        if (row < 0 || row >= c->in[0]) {
            net_pad_row(c, s->row, net_rows + r * s->row);
        } else {
            net_pad_row(c, left, net_rows + r * s->row);
            net_put_row(c, x + row * whole + first + left, n, net_rows + r * s->row + left);
            net_pad_row(c, s->row - left - n, net_rows + r * s->row + left + n);
        }
    }
}

/* [section channels] */
#ifndef NET_LIFT
#define NET_LIFT(s) 0
#endif

/* Makes `count` channels, four at most, those of net_now. */
static void net_put_channels(const net_strip *s, int channel, int count)
{
    const net_weights *w = &s->conv->weights;
    int k;
    for (k = 0; k < count; k++) {
        const uint32_t multiplier = w->multiplier[channel + k];
        net_now.first[k] = 0;
        net_now.multiplier[k] = net_fixed(multiplier, s->shift);
        net_now.begin[k] = NET_ROUND(s) + NET_LIFT(s) * ((int32_t)1 << s->shift);
        if (w->bias)
            net_now.begin[k] += net_share(w->bias[channel + k], multiplier, s->shift);
    }
}

/* [section channels_fixed] */
static void net_put_channels(const net_strip *s, int channel, int count)
{
    (void)s, (void)channel, (void)count;
    memset(&net_now, 0, sizeof net_now);
}

/* [section depth] */
/* ---- Each channel by itself ----

   A depthwise convolution has few products for a result: four channels at one place, whose weights
   lie side by side. */
static int32_t net_depth_factors[NET_DEPTH];

NET_APART void net_put_depth(const net_conv *c, int channel)
{
    static int8_t room[NET_UNPACKED];
    int taps = c->kernel[0] * c->kernel[1], o, k;
    for (o = 0; o < 4; o++) {
        const int8_t *w = net_bytes(&c->weights, channel + o, taps, room);
        int32_t sum = 0;
        for (k = 0; k < taps; k++)
            sum += net_depth_factors[4 * k + o] = w[k];
        net_now.first[o] -= NET_ZERO(c) * sum;
    }
}

/* [section depth_rows] */
/* Four channels at one place. */
NET_INLINE void net_depth_sums(const net_strip *s, const net_value *x, int32_t *sum)
{
    const net_conv *c = s->conv;
    const int32_t *w = net_depth_factors;
    int32_t a0 = net_now.first[0], a1 = net_now.first[1], a2 = net_now.first[2];
    int32_t a3 = net_now.first[3];
    int u, v;
    for (u = 0; u < c->kernel[0]; u++, x += s->row - c->kernel[1] * c->in[2])
        for (v = 0; v < c->kernel[1]; v++, x += c->in[2], w += 4) {
            a0 += x[NET_QUAD(0)] * w[0];
            a1 += x[NET_QUAD(1)] * w[1];
            a2 += x[NET_QUAD(2)] * w[2];
            a3 += x[NET_QUAD(3)] * w[3];
        }
    sum[0] = a0, sum[1] = a1, sum[2] = a2, sum[3] = a3;
}

NET_INLINE void net_depth_group(const net_strip *s, int height, uint8_t *y, int channel)
{
    const net_conv *c = s->conv;
    const net_value *row = net_rows + channel, *x;
    int32_t sum[4];
    int ox;
    for (; height > 0; height--, row += c->stride[0] * s->row)
        for (x = row, ox = 0; ox < c->out[1]; ox++, x += c->stride[1] * c->in[2], y += s->step) {
            net_depth_sums(s, x, sum);
            net_finish_four(s, sum, y, channel);
        }
}

/* [section grouped] */
typedef void net_grouped(int height, uint8_t *y, int channel);

/* [section strip_alone] */
/* Without a residual. The last four channels may overlap those before. */
static void net_strips(const net_strip *s, net_grouped *group, const uint8_t *x, uint8_t *y)
{
    const net_conv *c = s->conv;
    int oy, o, channel, height;
    for (oy = 0; oy < c->out[0]; oy += s->height, y += s->height * c->out[1] * c->out[2]) {
        height = c->out[0] - oy < s->height ? c->out[0] - oy : s->height;
        net_put_rows(s, x, oy, 0, height);
        for (o = 0; o < c->out[2]; o += 4) {
            channel = o < c->out[2] - 4 ? o : c->out[2] - 4;
            net_put_channels(s, channel, 4);
            s->put_weights(c, channel);
            group(height, y + channel, channel);
        }
    }
}

/* [section sum] */
/* Of an addition, in units of 2^-20; bytes count from 0 to 255 in both operands. The error of what
   is computed with it is below 1024, as many as it begins with: a result that lies less than 2048
   above an integer is computed as it is defined. */
typedef struct net_adding {
    const net_conv *conv;
    int32_t begin, ratio, other;
    int32_t flip, flipped; /* of the residual and of the convolution's own result */
} net_adding;

/* value * 2^20 */
static int32_t net_fixed20(uint32_t bits)
{
    net_real r = net_decode(bits);
    int up = r.e + 20;
    return up >= 0 ? r.m * ((int32_t)1 << up) : up > -31 ? (r.m + (1 << (-up - 1))) >> -up : 0;
}

static void net_begin_adding(net_adding *s, const net_conv *c)
{
    s->conv = c;
    s->ratio = net_fixed20(c->adder.ratio[!c->residual_first]);
    s->other = net_fixed20(c->adder.ratio[c->residual_first]);
    s->flip = c->residual.flip;
    s->flipped = c->low < 0 ? 128 : 0;
    s->begin = net_fixed20(c->adder.shift) + (1 << 19) + 1024 - s->flip * s->ratio -
               s->flipped * s->other;
}

NET_APART uint8_t net_sum_tie(const net_adding *s, uint8_t residual, uint8_t own)
{
    int32_t a = (residual ^ s->flip) - s->flip, b = (own ^ s->flipped) - s->flipped;
    return (uint8_t)(s->conv->residual_first ? net_add(&s->conv->adder, a, b)
                                             : net_add(&s->conv->adder, b, a));
}

/* [section sum_code] */
NET_INLINE uint8_t net_sum_code(const net_adding *s, uint8_t residual, uint8_t own, int32_t low,
                                int32_t high)
{
    int32_t t = s->begin + (residual ^ s->flip) * s->ratio + (own ^ s->flipped) * s->other;
    if (!(t & 0xff800))
        return net_sum_tie(s, residual, own);
    t >>= 20;
    return (uint8_t)(t < low ? low : t > high ? high : t);
}

/* [section sum_room] */
static uint8_t net_sums[NET_SUMS]; /* results that wait for the residual */

/* [section sum_mve] */
/* Four channels at each of n places. */
static void net_add_four(const net_adding *s, const uint8_t *residual, uint8_t *y, int n)
{
    const int32x4_t low = vdupq_n_s32(s->conv->adder.low), high = vdupq_n_s32(s->conv->adder.high);
    const int32x4_t flip = vdupq_n_s32(s->flip), flipped = vdupq_n_s32(s->flipped);
    const int32x4_t fraction = vdupq_n_s32(0xff800);
    const int step = s->conv->out[2];
    const uint8_t *own = net_sums;
    int k;
    for (; n > 0; n--, own += 4, residual += step, y += step) {
        uint8_t left[4];
        int32x4_t a = vreinterpretq_s32_u32(vldrbq_u32(residual));
        int32x4_t b = vreinterpretq_s32_u32(vldrbq_u32(own));
        int32x4_t t = vmlaq_n_s32(vdupq_n_s32(s->begin), veorq_s32(a, flip), s->ratio);
        uint32x4_t near_tie;
        t = vmlaq_n_s32(t, veorq_s32(b, flipped), s->other);
        near_tie = vreinterpretq_u32_s32(vandq_s32(t, fraction));
        if (!vminvq_u32(0xffffffffu, near_tie))
            memcpy(left, residual, 4);
        vstrbq_s32((int8_t *)y, vminq_s32(vmaxq_s32(vshrq_n_s32(t, 20), low), high));
        if (!vminvq_u32(0xffffffffu, near_tie)) {
            uint32_t near[4];
            vst1q_u32(near, near_tie);
            for (k = 0; k < 4; k++)
                if (!near[k])
                    y[k] = net_sum_tie(s, left[k], own[k]);
        }
    }
}

/* [section sum_others] */
/* Four channels at each of n places. */
static void net_add_four(const net_adding *s, const uint8_t *residual, uint8_t *y, int n)
{
    const net_adding now = *s; /* in registers, as far as there are any */
    const int32_t low = s->conv->adder.low, high = s->conv->adder.high;
    const int step = s->conv->out[2];
    const uint8_t *own = net_sums;
    for (; n > 0; n--, own += 4, residual += step, y += step) {
        y[0] = net_sum_code(&now, residual[0], own[0], low, high);
        y[1] = net_sum_code(&now, residual[1], own[1], low, high);
        y[2] = net_sum_code(&now, residual[2], own[2], low, high);
        y[3] = net_sum_code(&now, residual[3], own[3], low, high);
    }
}

/* [section strip_sum] */
/* `residual` may be y. */
static void net_strips_sum(const net_strip *s, net_grouped *group, const uint8_t *x,
                           const uint8_t *residual, uint8_t *y)
{
    const net_conv *c = s->conv;
    int oy, channel, height, at;
    net_adding adding;
    net_begin_adding(&adding, c);
    for (oy = 0; oy < c->out[0]; oy += s->height) {
        height = c->out[0] - oy < s->height ? c->out[0] - oy : s->height;
        net_put_rows(s, x, oy, 0, height);
        for (channel = 0; channel < c->out[2]; channel += 4) {
            at = oy * c->out[1] * c->out[2] + channel;
            net_put_channels(s, channel, 4);
            s->put_weights(c, channel);
            group(height, net_sums, channel);
            net_add_four(&adding, residual + at, y + at, height * c->out[1]);
        }
    }
}

/* [section end] */
#endif
