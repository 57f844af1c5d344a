/* The instructions of Helium that standalone headers use, lane by lane in plain C: Arm C Language
   Extensions, https://developer.arm.com/architectures/instruction-sets/intrinsics. For tests on other
   processors. */
#ifndef TEST_ARM_MVE_H
#define TEST_ARM_MVE_H

#include <stdint.h>
#include <string.h>

typedef int8_t int8x16_t __attribute__((vector_size(16)));
typedef uint8_t uint8x16_t __attribute__((vector_size(16)));
typedef int16_t int16x8_t __attribute__((vector_size(16)));
typedef int32_t int32x4_t __attribute__((vector_size(16)));
typedef uint32_t uint32x4_t __attribute__((vector_size(16)));
typedef uint32_t mve_pred16_t; /* here: how many of the first lanes */

static inline mve_pred16_t vctp8q(uint32_t n) { return n < 16 ? n : 16; }
static inline mve_pred16_t vctp16q(uint32_t n) { return n < 8 ? n : 8; }

static inline uint8x16_t vld1q_z_u8(const uint8_t *at, mve_pred16_t n) {
    uint8x16_t v = {0};
    memcpy(&v, at, n);
    return v;
}

static inline int8x16_t vld1q_z_s8(const int8_t *at, mve_pred16_t n) {
    int8x16_t v = {0};
    memcpy(&v, at, n);
    return v;
}

static inline int16x8_t vld1q_z_s16(const int16_t *at, mve_pred16_t n) {
    int16x8_t v = {0};
    memcpy(&v, at, 2 * n);
    return v;
}

static inline int16x8_t vldrbq_z_s16(const int8_t *at, mve_pred16_t n) {
    int16x8_t v = {0};
    for (mve_pred16_t i = 0; i < n; i++)
        v[i] = at[i];
    return v;
}

static inline int16x8_t vld1q_s16(const int16_t *at) { return vld1q_z_s16(at, 8); }
static inline int16x8_t vldrbq_s16(const int8_t *at) { return vldrbq_z_s16(at, 8); }
static inline void vst1q_p_u8(uint8_t *at, uint8x16_t v, mve_pred16_t n) { memcpy(at, &v, n); }
static inline void vst1q_s8(int8_t *at, int8x16_t v) { memcpy(at, &v, 16); }
static inline void vst1q_s32(int32_t *at, int32x4_t v) { memcpy(at, &v, 16); }
static inline void vst1q_u32(uint32_t *at, uint32x4_t v) { memcpy(at, &v, 16); }
static inline int8x16_t vld1q_s8(const int8_t *at) { return vld1q_z_s8(at, 16); }

static inline int32x4_t vld1q_s32(const int32_t *at) {
    int32x4_t v;
    memcpy(&v, at, 16);
    return v;
}

static inline uint32x4_t vldrbq_u32(const uint8_t *at) {
    uint32x4_t v = {at[0], at[1], at[2], at[3]};
    return v;
}

static inline void vstrbq_s32(int8_t *at, int32x4_t v) {
    for (int i = 0; i < 4; i++)
        at[i] = (int8_t)(v[i] & 255);
}

static inline int32x4_t vdupq_n_s32(int32_t x) {
    int32x4_t v = {x, x, x, x};
    return v;
}

static inline uint8x16_t vdupq_n_u8(uint8_t x) {
    uint8x16_t v;
    memset(&v, x, 16);
    return v;
}

static inline uint32x4_t vreinterpretq_u32_s32(int32x4_t v) { return (uint32x4_t)v; }
static inline int32x4_t vreinterpretq_s32_u32(uint32x4_t v) { return (int32x4_t)v; }
static inline uint8x16_t veorq_u8(uint8x16_t a, uint8x16_t b) { return a ^ b; }
static inline int32x4_t veorq_s32(int32x4_t a, int32x4_t b) { return a ^ b; }
static inline int32x4_t vandq_s32(int32x4_t a, int32x4_t b) { return a & b; }

static inline int32x4_t vaddq_s32(int32x4_t a, int32x4_t b) { return a + b; }

static inline int32x4_t vmlaq_n_s32(int32x4_t sum, int32x4_t a, int32_t b) {
    return sum + a * vdupq_n_s32(b);
}

static inline int32x4_t vshlq_n_s32(int32x4_t a, int by) {
    return (int32x4_t)((uint32x4_t)a << (uint32_t)by);
}

static inline int32x4_t vshrq_n_s32(int32x4_t a, int by) { return a >> by; }
static inline int32x4_t vshlq_r_s32(int32x4_t a, int32_t by) { return a >> -by; }

static inline int32x4_t vmulhq_s32(int32x4_t a, int32x4_t b) {
    for (int i = 0; i < 4; i++)
        a[i] = (int32_t)((int64_t)a[i] * b[i] >> 32);
    return a;
}

static inline int32x4_t vminq_s32(int32x4_t a, int32x4_t b) {
    for (int i = 0; i < 4; i++)
        a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}

static inline int32x4_t vmaxq_s32(int32x4_t a, int32x4_t b) {
    for (int i = 0; i < 4; i++)
        a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}

static inline uint32_t vminvq_u32(uint32_t least, uint32x4_t v) {
    for (int i = 0; i < 4; i++)
        least = v[i] < least ? v[i] : least;
    return least;
}

static inline int32_t vaddvaq_s8(int32_t sum, int8x16_t v) {
    for (int i = 0; i < 16; i++)
        sum += v[i];
    return sum;
}

static inline int32_t vmladavaq_s8(int32_t sum, int8x16_t a, int8x16_t b) {
    for (int i = 0; i < 16; i++)
        sum += a[i] * b[i];
    return sum;
}

static inline int32_t vmladavaq_s16(int32_t sum, int16x8_t a, int16x8_t b) {
    for (int i = 0; i < 8; i++)
        sum += a[i] * b[i];
    return sum;
}

#endif
