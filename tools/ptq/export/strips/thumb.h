/* ARMv6-M: Cortex-M0, M0+. See opening.h. */
#ifndef PTQ_STRIPS_THUMB_H
#define PTQ_STRIPS_THUMB_H

#include "export/strips/opening.h"

/* [section thumb_code] */
/* The upper half of a product of 64 bits, from products of 32; too low by up to 3. */
NET_INLINE int32_t net_upper(int32_t a, int32_t b)
{
    int32_t al = a & 0xffff, ah = a >> 16, bl = b & 0xffff, bh = b >> 16;
    return ah * bh + (int32_t)(((uint32_t)al * (uint32_t)bh) >> 16) + ((ah * (bl >> 1)) >> 15);
}

/* The code of a sum. */
NET_INLINE uint8_t net_code(const net_strip *s, int32_t acc, int k, int channel)
{
    int32_t t = net_upper(acc * 256, net_now.multiplier[k]) + net_now.begin[k];
    if (!(t & NET_TIE(s)))
        return (uint8_t)net_exact(s->conv, channel + k, acc);
    return (uint8_t)net_clamped(t >> s->shift, s->conv->low, s->conv->high);
}

/* [section thumb] */
/* ---- ARMv6-M ----

   Eight registers compute, the others can be added to: they hold four sums, one place of four
   channels.

   An input with four weights: in C, v = x[i], a0 += v * w[0], a1 += v * w[1], ..., w += 4. The
   compiler takes eleven instructions for a product where this takes two and a half. */
#define NET_TAP(i) \
    "ldrb r5, [%[x], #" #i "]\n\tldmia %[w]!, {r1, r2, r3, r4}\n\t" \
    "muls r1, r5, r1\n\tadd %[a0], r1\n\tmuls r2, r5, r2\n\tadd %[a1], r2\n\t" \
    "muls r3, r5, r3\n\tadd %[a2], r3\n\tmuls r4, r5, r4\n\tadd %[a3], r4\n\t"
#define NET_LOOP(taps, n) \
    __asm__(".syntax unified\n1:\n\t" taps "adds %[x], #" #n "\n\tcmp %[x], %[end]\n\tbne 1b" \
            : [x] "+l"(x), [w] "+l"(w), [a0] "+h"(a0), [a1] "+h"(a1), [a2] "+h"(a2), [a3] "+h"(a3) \
            : [end] "h"(x + row) \
            : "r1", "r2", "r3", "r4", "r5", "cc", "memory")

NET_INLINE void net_place(const net_strip *s, const uint8_t *x, uint8_t *y, int channel)
{
    const net_conv *c = s->conv;
    const int row = c->kernel[1] * c->in[2];
    const int32_t *w = net_factors;
    int32_t a0 = net_now.first[0], a1 = net_now.first[1], a2 = net_now.first[2];
    int32_t a3 = net_now.first[3];
    int u;
    for (u = 0; u < c->kernel[0]; u++, x += s->row - row)
        if (row % 8 == 0)
            NET_LOOP(NET_TAP(0) NET_TAP(1) NET_TAP(2) NET_TAP(3) NET_TAP(4) NET_TAP(5) NET_TAP(6)
                     NET_TAP(7), 8);
        else if (row % 4 == 0)
            NET_LOOP(NET_TAP(0) NET_TAP(1) NET_TAP(2) NET_TAP(3), 4);
        else if (row % 3 == 0)
            NET_LOOP(NET_TAP(0) NET_TAP(1) NET_TAP(2), 3);
        else
            NET_LOOP(NET_TAP(0), 1);
    y[0] = net_code(s, a0, 0, channel);
    y[1] = net_code(s, a1, 1, channel);
    y[2] = net_code(s, a2, 2, channel);
    y[3] = net_code(s, a3, 3, channel);
}

/* Four channels of `height` rows. */
NET_INLINE void net_group(const net_strip *s, int height, uint8_t *y, int channel)
{
    const net_conv *c = s->conv;
    const int x1 = c->stride[1] * c->in[2];
    const uint8_t *row = net_rows, *x;
    for (; height > 0; height--, row += c->stride[0] * s->row)
        for (x = row; x < row + c->out[1] * x1; x += x1, y += s->step)
            net_place(s, x, y, channel);
}

/* [section end] */
#endif
