/* emulation.h - instruction sets that this processor lacks, for tests that define PTQ__EMULATE and
   include this before the library. AVX-512's instructions are made of those of AVX2, by halves of
   vectors or lane by lane; the one of VNNI of others that compute exactly the same; and those of
   AMX are five functions after Intel's manual (volume 2: LDTILECFG, TILELOADD, TILESTORED, TDPBUSD,
   TILERELEASE), which are as strict as the processor: what would fault there ends the test here.
   AVX2 is still needed. */
#ifndef EMULATION_H
#define EMULATION_H

#define _POSIX_C_SOURCE 200809L /* as test.h */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    int configured;
    int rows[8], bytes[8];
    union {
        uint8_t u8[16][64];
        int8_t s8[16][64];
        int32_t s32[16][16];
    } tile[8];
} amx_unit;

static void fault(const char *why) {
    fprintf(stderr, "AMX: %s\n", why);
    abort();
}

#if defined(__x86_64__) && !defined(PTQ_NO_SIMD) /* else there is no kernel to call them */
#include <immintrin.h>

/* Vectors of 512 bits are passed from inlined function to inlined function only. */
#if defined(__clang__) || defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#define EMULATED __attribute__((target("avx2,fma"), always_inline)) static inline

typedef union vector512 {
    __m512i integers;
    __m512 reals;
    __m256i integer[2];
    __m256 real[2];
    int8_t s8[64];
    uint8_t u8[64];
    int32_t s32[16];
    float f32[16];
} vector512;

/* What works on each half, or each 128 bits, by itself: of one operand, two or three. */
#define BY_HALVES(NAME, OUT, OUTS, PARAMETERS, ...)                                                \
    EMULATED OUT emulated_##NAME PARAMETERS {                                                      \
        vector512 y;                                                                               \
        for (int i = 0; i < 2; i++)                                                                \
            y.OUTS[i] = _mm256_##NAME(__VA_ARGS__);                                                \
        return y.OUTS##s;                                                                          \
    }
#define INTEGER(v) ((const vector512 *)&(v))->integer[i]
#define REAL(v) ((const vector512 *)&(v))->real[i]
#define OF_INTEGERS(NAME)                                                                          \
    BY_HALVES(NAME, __m512i, integer, (__m512i a, __m512i b), INTEGER(a), INTEGER(b))
#define OF_REALS(NAME) BY_HALVES(NAME, __m512, real, (__m512 a, __m512 b), REAL(a), REAL(b))
OF_INTEGERS(adds_epi16)
OF_INTEGERS(packs_epi32)
OF_INTEGERS(packus_epi16)
OF_INTEGERS(max_epu8)
OF_INTEGERS(min_epu8)
OF_INTEGERS(madd_epi16)
OF_INTEGERS(maddubs_epi16)
OF_REALS(max_ps)
OF_REALS(min_ps)
BY_HALVES(fmadd_ps, __m512, real, (__m512 a, __m512 b, __m512 c), REAL(a), REAL(b), REAL(c))
BY_HALVES(cvtepi32_ps, __m512, real, (__m512i a), INTEGER(a))
BY_HALVES(cvtps_epi32, __m512i, integer, (__m512 a), REAL(a))
BY_HALVES(set1_epi16, __m512i, integer, (short a), a)
BY_HALVES(set1_epi8, __m512i, integer, (char a), a)
#define _mm512_adds_epi16 emulated_adds_epi16
#define _mm512_packs_epi32 emulated_packs_epi32
#define _mm512_packus_epi16 emulated_packus_epi16
#define _mm512_max_epu8 emulated_max_epu8
#define _mm512_min_epu8 emulated_min_epu8
#define _mm512_madd_epi16 emulated_madd_epi16
#define _mm512_maddubs_epi16 emulated_maddubs_epi16
#define _mm512_max_ps emulated_max_ps
#define _mm512_min_ps emulated_min_ps
#define _mm512_fmadd_ps emulated_fmadd_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_set1_epi16 emulated_set1_epi16
#define _mm512_set1_epi8 emulated_set1_epi8
#define PTQ__ADD_WORDS(sum, products) ((sum) += (products))

/* Lane by lane. */
#define BY_LANES(NAME, OUT, OUTS, PARAMETERS, LANE)                                                \
    EMULATED OUT emulated_##NAME PARAMETERS {                                                      \
        vector512 y;                                                                               \
        for (int i = 0; i < 16; i++)                                                               \
            LANE;                                                                                  \
        return y.OUTS;                                                                             \
    }
#define OF(v) ((const vector512 *)&(v))
BY_LANES(permutexvar_epi32, __m512i, integers, (__m512i order, __m512i a),
         y.s32[i] = OF(a)->s32[OF(order)->s32[i] & 15])
BY_LANES(cvtepi8_epi32, __m512i, integers, (__m128i a), y.s32[i] = ((const int8_t *)&a)[i])
BY_LANES(cvtepu8_epi32, __m512i, integers, (__m128i a), y.s32[i] = ((const uint8_t *)&a)[i])
BY_LANES(maskz_loadu_ps, __m512, reals, (unsigned mask, const float *from),
         y.f32[i] = mask >> i & 1 ? from[i] : 0)
#define _mm512_permutexvar_epi32 emulated_permutexvar_epi32
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#undef _mm512_setr_epi32
#define _mm512_setr_epi32(...) ((vector512){.s32 = {__VA_ARGS__}}).integers

EMULATED void emulated_store_ps(float *to, unsigned mask, __m512 a) {
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            to[i] = OF(a)->f32[i];
}

EMULATED __m128i emulated_load_epi8(unsigned mask, const void *from) {
    union {
        __m128i all;
        uint8_t u8[16];
    } y;
    for (int i = 0; i < 16; i++)
        y.u8[i] = mask >> i & 1 ? ((const uint8_t *)from)[i] : 0;
    return y.all;
}

EMULATED void emulated_store_epi8(void *to, unsigned mask, __m128i a) {
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            ((uint8_t *)to)[i] = ((const uint8_t *)&a)[i];
}

EMULATED __m128i emulated_cvtepi32_epi8(__m512i a) {
    union {
        __m128i all;
        uint8_t u8[16];
    } y;
    for (int i = 0; i < 16; i++)
        y.u8[i] = (uint8_t)OF(a)->s32[i];
    return y.all;
}
#define _mm512_mask_storeu_ps emulated_store_ps
#define _mm_maskz_loadu_epi8 emulated_load_epi8
#define _mm_mask_storeu_epi8 emulated_store_epi8
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8

/* VNNI: four products of unsigned and signed codes, even ones and odd ones, summed in 32 bits. */
EMULATED __m256i emulated_dpbusd_256(__m256i sum, __m256i x, __m256i w) {
    __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), low = _mm256_set1_epi16(255);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_and_si256(x, low), even));
    return _mm256_add_epi32(sum,
                            _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8)));
}
EMULATED __m512i emulated_dpbusd(__m512i sum, __m512i x, __m512i w) {
    vector512 y;
    for (int i = 0; i < 2; i++)
        y.integer[i] = emulated_dpbusd_256(INTEGER(sum), INTEGER(x), INTEGER(w));
    return y.integers;
}
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd_256
#define _mm512_dpbusd_epi32 emulated_dpbusd

static void ptq__tile_config(const void *memory) {
    const uint8_t *config = (const uint8_t *)memory;
    int i;

    if ((uintptr_t)memory % 64)
        fault("the configuration is not aligned");
    if (config[0] != 1)
        fault("not palette 1");
    for (i = 1; i < 64; i++)
        if ((i < 16 || (i >= 32 && i < 48) || i >= 56) && config[i])
            fault("something reserved is set");
    memset(&amx_unit, 0, sizeof amx_unit);
    amx_unit.configured = 1;
    for (i = 0; i < 8; i++) {
        amx_unit.rows[i] = config[48 + i];
        amx_unit.bytes[i] = config[16 + 2 * i] | config[17 + 2 * i] << 8;
        if (amx_unit.rows[i] > 16 || amx_unit.bytes[i] > 64 ||
            !amx_unit.rows[i] != !amx_unit.bytes[i])
            fault("no such size of a tile");
    }
}

static void ptq__tile_release(void) { memset(&amx_unit, 0, sizeof amx_unit); }

static void ptq__tile_fence(const void *memory) { (void)memory; }

static void usable(int tile) {
    if (!amx_unit.configured || !amx_unit.rows[tile])
        fault("a tile is used that is not configured");
}

/* Rows and bytes that the configuration leaves out become 0. */
static void ptq__tile_load(int tile, const char *from, ptrdiff_t step) {
    int i;

    usable(tile);
    memset(&amx_unit.tile[tile], 0, sizeof amx_unit.tile[tile]);
    for (i = 0; i < amx_unit.rows[tile]; i++)
        memcpy(amx_unit.tile[tile].u8[i], from + i * step, (size_t)amx_unit.bytes[tile]);
}

static void ptq__tile_store(int tile, char *to, ptrdiff_t step) {
    int i;

    usable(tile);
    for (i = 0; i < amx_unit.rows[tile]; i++)
        memcpy(to + i * step, amx_unit.tile[tile].u8[i], (size_t)amx_unit.bytes[tile]);
}

/* sum (M x N) += a (M x 4 K, unsigned) b (K x 4 N, signed) */
static void ptq__tile_dot(int sum, int a, int b) {
    int m, n, k, i;

    usable(sum), usable(a), usable(b);
    if (amx_unit.rows[sum] != amx_unit.rows[a] || amx_unit.bytes[sum] != amx_unit.bytes[b] ||
        amx_unit.bytes[a] != amx_unit.rows[b] * 4 || amx_unit.bytes[sum] % 4)
        fault("sizes of tiles do not fit together");
    if (sum == a || sum == b || a == b)
        fault("a tile is used twice");
    for (m = 0; m < amx_unit.rows[a]; m++)
        for (k = 0; k < amx_unit.rows[b]; k++)
            for (n = 0; n < amx_unit.bytes[sum] / 4; n++)
                for (i = 0; i < 4; i++)
                    amx_unit.tile[sum].s32[m][n] +=
                        amx_unit.tile[a].u8[m][4 * k + i] * amx_unit.tile[b].s8[k][4 * n + i];
    memset(amx_unit.tile[sum].u8[amx_unit.rows[sum]], 0, (size_t)(16 - amx_unit.rows[sum]) * 64);
}
#endif

/* At the end every layer has released what it configured. */
static int tiles_are_released(void **state) {
    (void)state;
    if (amx_unit.configured)
        fault("tiles are still in use");
    return 0;
}

#endif
