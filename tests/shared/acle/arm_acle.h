/* The instructions of Arm's DSP extension that standalone headers use, in plain C: "ACLE", Arm C
   Language Extensions, https://github.com/ARM-software/acle. For tests on other processors. */
#ifndef TEST_ARM_ACLE_H
#define TEST_ARM_ACLE_H

#include <stdint.h>

static inline int32_t low_half(int32_t x) { return (int16_t)(x & 0xffff); }

static inline int32_t __smlad(int32_t a, int32_t b, int32_t sum) {
    uint32_t low = (uint32_t)(low_half(a) * low_half(b));
    uint32_t high = (uint32_t)(low_half(a >> 16) * low_half(b >> 16));

    return (int32_t)((uint32_t)sum + low + high);
}

static inline int32_t __sxtab16(int32_t a, int32_t b) {
    uint32_t low = (uint32_t)(a + (int8_t)(b & 255));
    uint32_t high = (uint32_t)((a >> 16) + (int8_t)(b >> 16 & 255));

    return (int32_t)(high << 16 | (low & 0xffff));
}

static inline int32_t limited(int32_t x, int32_t low, int32_t high) {
    return x < low ? low : x > high ? high : x;
}

#define __usat(x, bits) (uint32_t) limited(x, 0, (1 << (bits)) - 1)

#endif
