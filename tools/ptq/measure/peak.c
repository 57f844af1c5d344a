/* What one core can do at most: the multiply-adds that the kernels rest on, on registers alone.

   Each loop turns twelve independent sums, which is more than latency times instructions per cycle
   on the processors that have them; the operands are zeros, which take as long as anything else.
   Only what ptq_isa_support finds available is run: nothing is asked of the processor here. */
#include <string.h>

#include "measure/bench.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)

#define TWELVE(F)                                                                                  \
    F("0") F("1") F("2") F("3") F("4") F("5") F("6") F("7") F("8") F("9") F("10") F("11")
#define CLOBBERED                                                                                  \
    "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

/* A function that runs its body `turns` times, all registers zero at first. */
#define LOOP(name, body)                                                                           \
    static void name(long turns) {                                                                 \
        __asm__ volatile("vzeroall\n1:\n\t" body "dec %0\n\tjnz 1b\n\tvzeroupper"                  \
                         : "+r"(turns)                                                             \
                         :                                                                         \
                         : CLOBBERED);                                                             \
    }

#define FMA256(r) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" r "\n\t"
#define FMA512(r) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" r "\n\t"
#define MADD256(r)                                                                                 \
    "vpmaddwd %%ymm14, %%ymm15, %%ymm13\n\tvpaddd %%ymm13, %%ymm" r ", %%ymm" r "\n\t"
#define MADD512(r)                                                                                 \
    "vpmaddwd %%zmm14, %%zmm15, %%zmm13\n\tvpaddd %%zmm13, %%zmm" r ", %%zmm" r "\n\t"
#define DOT256(r) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" r "\n\t"
#define DOT512(r) "vpdpbusd %%zmm14, %%zmm15, %%zmm" r "\n\t"

LOOP(fma256, TWELVE(FMA256))
LOOP(fma512, TWELVE(FMA512))
LOOP(madd256, TWELVE(MADD256))
LOOP(madd512, TWELVE(MADD512))
LOOP(dot512, TWELVE(DOT512))

/* The assemblers that came with these compilers know the newer instructions. */
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define HAVE_NEWER
LOOP(dot256, TWELVE(DOT256))

/* Four sums of 16 x 16, from two tiles of 16 x 64 activations and two of weights. */
static void tiles(long turns) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape;

    memset(&shape, 0, sizeof shape);
    shape.palette = 1;
    for (int i = 0; i < 8; i++) {
        shape.row_bytes[i] = 64;
        shape.rows[i] = 16;
    }
    __asm__ volatile("ldtilecfg %1\n\t"
                     "1:\n\t"
                     "tdpbusd %%tmm6, %%tmm4, %%tmm0\n\ttdpbusd %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbusd %%tmm6, %%tmm5, %%tmm2\n\ttdpbusd %%tmm7, %%tmm5, %%tmm3\n\t"
                     "dec %0\n\tjnz 1b\n\ttilerelease"
                     : "+r"(turns)
                     : "m"(shape)
                     : "cc");
}
#endif

static const peak_unit units[] = {
    {"avx2", "FP32 FMA, 256 bits", 0, 12 * 8, fma256},
    {"avxvnni", "FP32 FMA, 256 bits", 0, 12 * 8, fma256},
    {"avx512", "FP32 FMA, 512 bits", 0, 12 * 16, fma512},
    {"avx512vnni", "FP32 FMA, 512 bits", 0, 12 * 16, fma512},
    {"amx", "FP32 FMA, 512 bits", 0, 12 * 16, fma512},
    {"avx2", "vpmaddwd + vpaddd, 256 bits", 1, 12 * 16, madd256},
    {"avx512", "vpmaddwd + vpaddd, 512 bits", 1, 12 * 32, madd512},
    {"avx512vnni", "vpdpbusd, 512 bits", 1, 12 * 64, dot512},
#ifdef HAVE_NEWER
    {"avxvnni", "vpdpbusd, 256 bits", 1, 12 * 32, dot256},
    {"amx", "tdpbusd, 16x16x64", 1, 4 * 16384, tiles},
#endif
};

#elif defined(__aarch64__) && defined(__GNUC__)

#define TWELVE(F)                                                                                  \
    F("0") F("1") F("2") F("3") F("4") F("5") F("6") F("7") F("8") F("9") F("10") F("11")
#define CLOBBERED                                                                                  \
    "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v14", "v15"

#define LOOP(name, body)                                                                           \
    static void name(long turns) {                                                                 \
        __asm__ volatile("movi v14.16b, #0\n\tmovi v15.16b, #0\n1:\n\t" body                       \
                         "subs %0, %0, #1\n\tb.ne 1b"                                              \
                         : "+r"(turns)                                                             \
                         :                                                                         \
                         : CLOBBERED);                                                             \
    }

#define FMLA(r) "fmla v" r ".4s, v14.4s, v15.4s\n\t"
#define SMLAL(r) "smlal v" r ".4s, v14.4h, v15.4h\n\t"
/* sdot vR.4s, v14.16b, v15.16b, which assemblers refuse where the baseline lacks it. */
#define SDOT(r) ".inst 0x4e8f95c0 + " r "\n\t"

LOOP(fmla, TWELVE(FMLA))
LOOP(smlal, TWELVE(SMLAL))
LOOP(sdot, TWELVE(SDOT))

static const peak_unit units[] = {
    {"neon", "FP32 fmla, 128 bits", 0, 12 * 4, fmla},
    {"neondot", "FP32 fmla, 128 bits", 0, 12 * 4, fmla},
    {"neon", "smlal 16 bits, 128 bits", 1, 12 * 4, smlal},
    {"neondot", "sdot, 128 bits", 1, 12 * 16, sdot},
};

#else

/* None known: the table then has no shares. */
static const peak_unit units[] = {{"", "", 0, 0, NULL}};

#endif

const peak_unit *peak_find(ptq_isa isa, int integer) {
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(units[i].isa, ptq_name(PTQ_NAMES_ISA, isa)) == 0 &&
            units[i].integer == integer && ptq_isa_support(isa) == PTQ_SUPPORT_AVAILABLE)
            return &units[i];
    return NULL;
}

/* The median of pieces of a tenth of a millisecond or so: long enough for the clock, short enough
   to fit between interruptions. */
double peak_measure(const peak_unit *unit, double seconds) {
    enum { MOST = 1000, TURNS = 5000 };
    double rate[MOST], begin = seconds_now();
    size_t n = 0;

    do {
        double start = seconds_now();

        unit->loop(TURNS);
        rate[n++] = unit->macs * TURNS / (seconds_now() - start) * 1e-9;
    } while (n < MOST && (n < 5 || seconds_now() - begin < seconds));
    return median_of(rate, n);
}
