/* Convolution in strips, for the headers that "ptq export --c-header --standalone" writes: far
   fewer instructions than net_conv2d of standalone_kernels.h, and the same bytes. The tool copies
   sections of these files, with the network's name in place of `net`: opening.h; the forms for
   Helium (mve.h) and for Arm's DSP instructions (dsp.h), which share pairs.h, for ARMv6-M (thumb.h)
   and for all others (plain.h), which share bytes.h, of which the compiler takes one; closing.h.
   With --small that of small.h instead. C89 with <stdint.h>, and C++. */
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
#elif (defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)) && defined(__OPTIMIZE__)
#define NET_THUMB /* by assembly, for which registers are too few where nothing is optimized */
#endif

/* A few rows of the image with their padding, and the weights of four output channels, are laid out
   in buffers as the processor multiplies them best. Then all results of these rows and channels are
   computed, several at a time, so that an input or a weight once loaded serves several products. */

#if defined(__GNUC__)
#define NET_INLINE static __inline__ __attribute__((always_inline))
#define NET_APART static __attribute__((noinline, unused))
/* Loads and sums stay where they are: brought forward together, as compilers like it, they would
   need more registers than there are. */
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

/* A result as it is defined, from the sum without its bias. */
NET_APART int32_t net_exact(const net_conv *c, int channel, int32_t acc)
{
    return net_requantize(acc + (c->weights.bias ? c->weights.bias[channel] : 0),
                          c->weights.multiplier[channel], c->zero_point, c->low, c->high);
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

/* [section rounding] */
/* Of the channels at hand. */
typedef struct net_four {
    int32_t first[4];      /* what sums begin with: products have not the zero point taken away */
    int32_t multiplier[4]; /* times 2^(24 + shift) */
    int32_t begin[4];      /* what results begin with, times 2^shift */
} net_four;

static net_four net_now;

/* multiplier * 2^(24 + shift) */
static int32_t net_fixed(uint32_t multiplier, int shift)
{
    int32_t m = (int32_t)((multiplier & 0x7fffff) | 0x800000);
    int up = (int)(multiplier >> 23) - 126 + shift;
    return up >= 0 ? m * ((int32_t)1 << up) : up > -24 ? m >> -up : 0;
}

/* bias * multiplier * 2^shift, rounded down. It has no part in the sums: channels whose weights are
   all but 0 have biases that would leave those few bits. */
static int32_t net_share(int32_t bias, uint32_t multiplier, int shift)
{
    int64_t product = (int64_t)bias * (int32_t)((multiplier & 0x7fffff) | 0x800000);
    int down = 150 - (int)(multiplier >> 23) - shift;
    if (down < 0)
        return (int32_t)(product * ((int64_t)1 << -down));
    return (int32_t)(product >> (down < 62 ? down : 62));
}

/* What is added to all results: one half, the zero point, and 6 units for the errors of what is to
   come. In units of 2^-shift the share of the bias is too low by less than 1, the product of a sum
   by less than 2, on ARMv6-M by less than 5, or too high by less than 1, there by less than 2: so a
   result is wrong only where these units have brought it to within 8 above an integer. */
#define NET_ROUND(s) \
    (((int32_t)1 << ((s)->shift - 1)) + 6 + (s)->conv->zero_point * ((int32_t)1 << (s)->shift))
/* All bits of the fraction but the lowest three: where they are 0, net_exact decides. */
#define NET_TIE(s) (((int32_t)1 << (s)->shift) - 8)

/* [section rounding_fixed] */
/* Of the channels at hand: what sums begin with, where products have not the zero point taken
   away. */
typedef struct net_four {
    int32_t first[4];
} net_four;

static net_four net_now;

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
/* The code of a sum. */
static uint8_t net_code(const net_strip *s, int32_t acc, int k, int channel)
{
    int32_t t = (int32_t)((int64_t)(acc * 256) * net_now.multiplier[k] >> 32) + net_now.begin[k];
    if (!(t & NET_TIE(s)))
        return (uint8_t)net_exact(s->conv, channel + k, acc);
    return (uint8_t)net_clamped(t >> s->shift, s->conv->low, s->conv->high);
}

/* [section code_fixed] */
/* The code of a sum. */
NET_INLINE uint8_t net_code(const net_strip *s, int32_t acc, int k, int channel)
{
    return (uint8_t)net_exact(s->conv, channel + k, acc);
}

/* [section end] */
#endif
