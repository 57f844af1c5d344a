/* emulation.h - instruction sets that this processor lacks, for tests that define
   PTQ__EMULATE_VNNI and PTQ__EMULATE_AMX and include this before the library. The one instruction
   of VNNI is replaced by others that compute exactly the same, and those of AMX by five functions
   after Intel's manual (volume 2: LDTILECFG, TILELOADD, TILESTORED, TDPBUSD, TILERELEASE), which
   are as strict as the processor: what would fault there ends the test here. AVX2 and AVX-512 are
   still needed. */
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
