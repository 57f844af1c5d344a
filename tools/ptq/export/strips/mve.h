/* Arm's vectors for microcontrollers, Helium: Cortex-M55, M85. See opening.h. */
#ifndef PTQ_STRIPS_MVE_H
#define PTQ_STRIPS_MVE_H

#include "export/strips/opening.h"

/* [section mve] */
/* ---- Helium ----

   VMLADAVA adds sixteen products of signed bytes to a register. Inputs become signed; sums begin
   with what takes their zero point away. A row under the kernel is filled up to whole vectors by
   weights of 0. */
#include <arm_mve.h>

typedef int8_t net_value;
static net_value net_rows[NET_ROWS];
static int8_t net_factors[NET_MVE_FACTORS];

#define NET_ZERO(c) ((c)->input.zero_point + (c)->input.flip - 128) /* code 0 in the rows */
#define NET_QUAD(k) (k) /* where channel k of four lies in a row */

static void net_put_row(const net_conv *c, const uint8_t *x, int n, int8_t *to)
{
    const uint8x16_t flip = vdupq_n_u8((uint8_t)(c->input.flip ^ 128));
    for (; n > 0; n -= 16, x += 16, to += 16) {
        mve_pred16_t some = vctp8q((uint32_t)n);
        vst1q_p_u8((uint8_t *)to, veorq_u8(vld1q_z_u8(x, some), flip), some);
    }
}

static void net_pad_row(const net_conv *c, int n, int8_t *to)
{
    memset(to, (int)NET_ZERO(c) & 255, (size_t)n);
}

/* Vectors of weights, of the four channels in turn. */
NET_APART void net_put_weights(const net_conv *c, int channel)
{
    static int8_t room[NET_UNPACKED];
    int row = c->kernel[1] * c->in[2], taps = c->kernel[0] * row, o, u, k;
    for (o = 0; o < 4; o++) {
        const int8_t *w = net_bytes(&c->weights, channel + o, taps, room);
        int8_t *to = net_factors + 16 * o;
        int32_t sum = 0;
        for (u = 0; u < c->kernel[0]; u++, w += row)
            for (k = 0; k < row; k += 16, to += 64) {
                int8x16_t some = vld1q_z_s8(w + k, vctp8q((uint32_t)(row - k)));
                sum = vaddvaq_s8(sum, some);
                vst1q_s8(to, some);
            }
        net_now.first[o] -= NET_ZERO(c) * sum;
    }
}

/* [section mve_code] */
/* The codes of four sums. */
NET_INLINE void net_codes4(const net_strip *s, int32x4_t acc, uint8_t *y, int channel)
{
    const int32x4_t t = vaddq_s32(vmulhq_s32(vshlq_n_s32(acc, 8), vld1q_s32(net_now.multiplier)),
                                  vld1q_s32(net_now.begin));
    const int32x4_t code = vminq_s32(vmaxq_s32(vshlq_r_s32(t, -s->shift),
                                               vdupq_n_s32(s->conv->low)),
                                     vdupq_n_s32(s->conv->high));
    const int32x4_t near_tie = vandq_s32(t, vdupq_n_s32(NET_TIE(s)));
    vstrbq_s32((int8_t *)y, code);
    if (!vminvq_u32(0xffffffffu, vreinterpretq_u32_s32(near_tie))) {
        int32_t sum[4], near[4], k;
        vst1q_s32(sum, acc);
        vst1q_s32(near, near_tie);
        for (k = 0; k < 4; k++)
            if (!near[k])
                y[k] = (uint8_t)net_exact(s->conv, channel + k, sum[k]);
    }
}

/* [section mve_code_fixed] */
/* The codes of four sums. */
NET_INLINE void net_codes4(const net_strip *s, int32x4_t acc, uint8_t *y, int channel)
{
    int32_t sum[4], k;
    vst1q_s32(sum, acc);
    for (k = 0; k < 4; k++)
        y[k] = (uint8_t)net_exact(s->conv, channel + k, sum[k]);
}

/* [section mve_places] */
/* Sixteen inputs each at two places, with the weights of four channels. */
#define NET_VECTOR(i) \
    if ((i) < unrolled) { \
        p = vld1q_s8(x + 16 * (i)), q = vld1q_s8(x + x1 + 16 * (i)); \
        v = vld1q_s8(w + 64 * (i)); \
        a0 = vmladavaq_s8(a0, p, v), b0 = vmladavaq_s8(b0, q, v); \
        v = vld1q_s8(w + 64 * (i) + 16); \
        a1 = vmladavaq_s8(a1, p, v), b1 = vmladavaq_s8(b1, q, v); \
        v = vld1q_s8(w + 64 * (i) + 32); \
        a2 = vmladavaq_s8(a2, p, v), b2 = vmladavaq_s8(b2, q, v); \
        v = vld1q_s8(w + 64 * (i) + 48); \
        a3 = vmladavaq_s8(a3, p, v), b3 = vmladavaq_s8(b3, q, v); \
        NET_IN_ORDER; \
    }

NET_INLINE void net_places(const net_strip *s, const int8_t *x, uint8_t *y, int channel)
{
    const net_conv *c = s->conv;
    const int vectors = (c->kernel[1] * c->in[2] + 15) / 16, unrolled = NET_UNROLLED(vectors);
    const int x1 = c->stride[1] * c->in[2];
    const int8_t *w = net_factors, *end = w + 64 * vectors * c->kernel[0], *stop;
    int32_t a0 = net_now.first[0], a1 = net_now.first[1], a2 = net_now.first[2];
    int32_t a3 = net_now.first[3];
    int32_t b0 = a0, b1 = a1, b2 = a2, b3 = a3;
    int8x16_t p, q, v;
    for (; w < end; x += s->row - 16 * vectors)
        for (stop = w + 64 * vectors; w < stop; x += 16 * unrolled, w += 64 * unrolled) {
            NET_VECTOR(0) NET_VECTOR(1) NET_VECTOR(2) NET_VECTOR(3)
            NET_VECTOR(4) NET_VECTOR(5) NET_VECTOR(6) NET_VECTOR(7)
        }
    {
        const int32x4_t a = {a0, a1, a2, a3}, b = {b0, b1, b2, b3};
        net_codes4(s, a, y, channel);
        net_codes4(s, b, y + s->step, channel);
    }
}

/* [section mve_four] */
/* The codes of four sums. */
NET_INLINE void net_finish_four(const net_strip *s, const int32_t *sum, uint8_t *y, int channel)
{
    net_codes4(s, vld1q_s32(sum), y, channel);
}

/* [section end] */
#endif
