/* Convolution in strips, for the headers that "ptq export --c-header --standalone" writes: far fewer
   instructions than net_conv2d of standalone_kernels.h, and the same bytes. The tool copies sections
   of these files, with the network's name in place of `net`: opening.h; the forms for Helium (mve.h),
   for Arm's DSP instructions (dsp.h), which share pairs.h, for ARMv6-M (thumb.h) and for all others
   (plain.h), which share bytes.h, of which the compiler takes one; closing.h. With --small that of
   small.h instead. C89 with <stdint.h>, and C++. */
#ifndef PTQ_STRIPS_OPENING_H
#define PTQ_STRIPS_OPENING_H

#include "export/standalone_kernels.h"

/* [section opening] */
/* ---- Convolution in strips ----

   Once for each processor: what its compiler says it has decides how it multiplies. */
#if defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)
#define NET_MVE
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_BIG_ENDIAN)
#define NET_DSP
#elif (defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)) && defined(__GNUC__)
#define NET_THUMB
#endif

/* A few rows of the image with their padding, and the weights of four output channels, are laid out
   in buffers as the processor multiplies them best. Then all results of these rows and channels are
   computed, several at a time, so that an input or a weight once loaded serves several products. */

#if defined(__GNUC__)
#define NET_INLINE static __inline__ __attribute__((always_inline))
#define NET_APART static __attribute__((noinline, unused))
/* Loads and sums stay where they are: brought forward together, as compilers like it, they would need
   more registers than there are. */
#define NET_IN_ORDER __asm__ volatile("" ::: "memory")
#define NET_HIDE(a) __asm__("" : "+r"(a)) /* its value from the compiler: it stays in a register */
#else
#define NET_INLINE static
#define NET_APART static
#define NET_IN_ORDER
#define NET_HIDE(a)
#endif

typedef struct net_strip {
    const net_conv *conv;
    void (*put_weights)(const net_conv *c, int channel); /* of four channels, into their buffer */
    int height; /* rows of results that are computed together */
    int width;  /* places of each */
    int row;    /* inputs of a row with its padding */
    int step;   /* bytes from a place to the next, where results are written */
    int shift;  /* bits of a result's fraction before it is rounded */
} net_strip;

/* Of the four channels. The bias brings the inputs' zero point into account, where the products do
   not. */
typedef struct net_four {
    int32_t bias[4], multiplier[4];
} net_four;

static net_four net_now;

/* multiplier * 2^(24 + shift) */
static int32_t net_fixed(uint32_t multiplier, int shift)
{
    int32_t m = (int32_t)((multiplier & 0x7fffff) | 0x800000);
    int up = (int)(multiplier >> 23) - 126 + shift;
    return up >= 0 ? m * ((int32_t)1 << up) : up > -24 ? m >> -up : 0;
}

/* What the rounding of results begins with: one half, the zero point, and 5 units for the errors of
   what is to come (see net_code). */
#define NET_ROUND(s) \
    (((int32_t)1 << ((s)->shift - 1)) + 5 + (s)->conv->zero_point * ((int32_t)1 << (s)->shift))
/* All bits of the fraction but the lowest three. */
#define NET_TIE(s) (((int32_t)1 << (s)->shift) - 8)

/* A result whose fraction is so near to a half that it must be computed as it is defined. */
NET_APART int32_t net_tie(const net_conv *c, int channel, int32_t acc)
{
    return net_requantize(acc, c->weights.multiplier[channel], c->zero_point, c->low, c->high);
}

/* The weights of a channel as bytes; those of fewer bits are unpacked into `room`. */
static const int8_t *net_bytes(const net_weights *w, int channel, int n, int8_t *room)
{
    const uint8_t *byte = (const uint8_t *)w->code + channel * w->channel_bytes;
    uint32_t window = 0;
    int i, held = 0;
    if (w->bits == 8)
        return (const int8_t *)w->code + channel * w->channel_bytes;
    for (i = 0; i < n; i++) {
        if (held < w->bits) {
            window |= (uint32_t)*byte++ << held;
            held += 8;
        }
        room[i] = (int8_t)((int32_t)((window & (2u * (uint32_t)w->flip - 1)) ^ (uint32_t)w->flip) -
                           w->flip);
        window >>= w->bits;
        held -= w->bits;
    }
    return room;
}

/* [section unrolled] */
#if defined(__GNUC__)
#define NET_SETTLE(a, b, c, d) __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d))
#else
#define NET_SETTLE(a, b, c, d)
#endif

/* The largest of a few numbers that divides n: so many products are written out in a loop. */
#define NET_UNROLLED(n) \
    ((n) % 8 == 0 ? 8 : (n) % 6 == 0 ? 6 : (n) % 5 == 0 ? 5 : (n) % 4 == 0 ? 4 : \
     (n) % 3 == 0 ? 3 : (n) % 2 == 0 ? 2 : 1)

/* [section code] */
/* The code of a sum. In units of 2^-shift its error is above -2 and below 1, so that a result is
   wrong only where these 5 units more have brought it to within 8 above an integer. */
static uint8_t net_code(const net_strip *s, int32_t acc, int k, int channel)
{
    int32_t t = (int32_t)((int64_t)(acc * 256) * net_now.multiplier[k] >> 32) + NET_ROUND(s);
    if (!(t & NET_TIE(s)))
        return (uint8_t)net_tie(s->conv, channel + k, acc);
    return (uint8_t)net_clamped(t >> s->shift, s->conv->low, s->conv->high);
}

/* [section end] */
#endif
