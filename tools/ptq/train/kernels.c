/* Convolution as implicit matrix multiplication with tiles of results in registers, and passes over
   tensors that do several elementwise steps at once: at 16 to 64 channels training is bound by
   memory as much as by arithmetic.

   The templates below are always inlined into one function for each instruction set, whose target
   attribute decides how the vectors are compiled: one source, no compiler flags. Without vector
   extensions, vectors are single floats and everything still holds. */
#include <string.h>

#include "train/kernels.h"

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline, unused))
#define LANES KERNEL_LANES
typedef float lanes __attribute__((vector_size(KERNEL_LANES * sizeof(float))));

/* For AVX2; and for elementwise passes, which compare: GCC 12 compiles that lane by lane in vectors
   of 64 bytes. Memory bounds them anyway. */
#define PACK 8
typedef float pack __attribute__((vector_size(PACK * sizeof(float))));
typedef int pack_mask __attribute__((vector_size(PACK * sizeof(int))));
#define CHOOSE(mask, yes, no) ((pack)(((pack_mask)(yes) & (mask)) | ((pack_mask)(no) & ~(mask))))
#define ZERO_UNLESS(mask, yes) ((pack)((pack_mask)(yes) & (mask)))
#else
#define INLINE static inline
#define LANES 1
typedef float lanes;
#define PACK 1
typedef float pack;
#define CHOOSE(mask, yes, no) ((mask) ? (yes) : (no))
#define ZERO_UNLESS(mask, yes) ((mask) ? (yes) : 0.0f)
#endif

/* Vectors go through pointers: by value they would have a calling convention that depends on the
   instruction set. */
#define STORES(V, WIDTH)                                                                           \
    INLINE void store_##V(float *to, const V *from, int n) {                                       \
        if (n >= (WIDTH))                                                                          \
            memcpy(to, from, sizeof *from);                                                        \
        else if (n > 0)                                                                            \
            memcpy(to, from, (size_t)n * sizeof *to);                                              \
    }                                                                                              \
    INLINE void store_result_##V(float *to, V *from, int n, int accumulate) {                      \
        V before;                                                                                  \
        if (accumulate) {                                                                          \
            memcpy(&before, to, sizeof before);                                                    \
            *from += before;                                                                       \
        }                                                                                          \
        store_##V(to, from, n);                                                                    \
    }

STORES(lanes, LANES)
STORES(pack, PACK)

/* How many results an instruction set keeps in registers: 32 vectors of 16 floats, 16 of 8, or few
   at all. Vectors wider than the registers are no way: GCC 12 moves their halves through memory. */
enum { TILES_SMALL, TILES_HALF, TILES_FULL };

/* ---- Convolution ---- */

#define LIST_1(X, V) X(0, V)
#define LIST_4(X, V) X(0, V) X(1, V) X(2, V) X(3, V)
#define LIST_8(X, V) LIST_4(X, V) X(4, V) X(5, V) X(6, V) X(7, V)
#define LIST_16(X, V)                                                                              \
    LIST_8(X, V) X(8, V) X(9, V) X(10, V) X(11, V) X(12, V) X(13, V) X(14, V) X(15, V)

#define BEGIN_A(p, V) V a##p = start_a;
#define BEGIN_B(p, V) V b##p = start_b;
#define STEP_A(p, V) a##p += x[(p)*step] * wa;
#define STEP_AB(p, V)                                                                              \
    a##p += x[(p)*step] * wa;                                                                      \
    b##p += x[(p)*step] * wb;
#define END_A(p, V) store_result_##V(to + (p)*r->dest_step, &a##p, n, r->accumulate);
#define END_B(p, V)                                                                                \
    store_result_##V(to + width + (p)*r->dest_step, &b##p, n - (int)width, r->accumulate);

/* P results next to each other, one vector V of outputs, or two. Named accumulators stay in
   registers where arrays may not. `step` is an argument because constants make short addresses. */
#define CONV_TILES(V, P)                                                                           \
    INLINE void conv_narrow_##V##_##P(const conv_row *r, size_t step, int x0, int o) {             \
        const float *weight = r->weight + o;                                                       \
        size_t across = KERNEL_PADDED((size_t)r->outputs);                                         \
        float *to = r->dest + (size_t)x0 * r->dest_step + o;                                       \
        int n = r->outputs - o;                                                                    \
        V wa, start_a;                                                                             \
        memcpy(&start_a, r->bias + o, sizeof start_a);                                             \
        LIST_##P(BEGIN_A, V) for (int u = 0; u < r->rows; u++) {                                   \
            const float *x = r->source + (size_t)u * r->pitch + (size_t)x0 * step;                 \
            for (const float *end = x + r->run; x < end; x++, weight += across) {                  \
                memcpy(&wa, weight, sizeof wa);                                                    \
                LIST_##P(STEP_A, V)                                                                \
            }                                                                                      \
        }                                                                                          \
        LIST_##P(END_A, V)                                                                         \
    }                                                                                              \
    INLINE void conv_wide_##V##_##P(const conv_row *r, size_t step, int x0, int o) {               \
        const float *weight = r->weight + o;                                                       \
        size_t across = KERNEL_PADDED((size_t)r->outputs);                                         \
        float *to = r->dest + (size_t)x0 * r->dest_step + o;                                       \
        int n = r->outputs - o;                                                                    \
        V wa, wb, start_a, start_b;                                                                \
        const size_t width = sizeof wa / sizeof(float);                                            \
        memcpy(&start_a, r->bias + o, sizeof start_a);                                             \
        memcpy(&start_b, r->bias + o + width, sizeof start_b);                                     \
        LIST_##P(BEGIN_A, V) LIST_##P(BEGIN_B, V) for (int u = 0; u < r->rows; u++) {              \
            const float *x = r->source + (size_t)u * r->pitch + (size_t)x0 * step;                 \
            for (const float *end = x + r->run; x < end; x++, weight += across) {                  \
                memcpy(&wa, weight, sizeof wa);                                                    \
                memcpy(&wb, weight + width, sizeof wb);                                            \
                LIST_##P(STEP_AB, V)                                                               \
            }                                                                                      \
        }                                                                                          \
        LIST_##P(END_A, V) LIST_##P(END_B, V)                                                      \
    }

CONV_TILES(lanes, 1)
CONV_TILES(lanes, 4)
CONV_TILES(lanes, 8)
CONV_TILES(lanes, 16)
CONV_TILES(pack, 1)
CONV_TILES(pack, 4)

/* One vector of outputs for all results of the row. */
INLINE void conv_narrow(const conv_row *r, size_t step, int o, int tiles) {
    int x = 0;

    if (tiles == TILES_FULL)
        for (; x + 16 <= r->count; x += 16)
            conv_narrow_lanes_16(r, step, x, o);
    for (; x + 4 <= r->count; x += 4)
        conv_narrow_lanes_4(r, step, x, o);
    for (; x < r->count; x++)
        conv_narrow_lanes_1(r, step, x, o);
}

/* Two. */
INLINE void conv_wide(const conv_row *r, size_t step, int o) {
    int x = 0;

    for (; x + 8 <= r->count; x += 8)
        conv_wide_lanes_8(r, step, x, o);
    for (; x < r->count; x++)
        conv_wide_lanes_1(r, step, x, o);
}

INLINE void conv_half(const conv_row *r, size_t step, int o) {
    int x = 0;

    for (; x + 4 <= r->count; x += 4)
        conv_wide_pack_4(r, step, x, o);
    for (; x < r->count; x++)
        conv_wide_pack_1(r, step, x, o);
}

INLINE void conv_outputs(const conv_row *r, size_t step, int tiles) {
    int o = 0;

    if (tiles == TILES_FULL && LANES > 1)
        for (; o + 2 * LANES <= r->outputs; o += 2 * LANES)
            conv_wide(r, step, o);
    if (tiles == TILES_HALF)
        for (; o < r->outputs; o += 2 * PACK)
            conv_half(r, step, o);
    for (; o < r->outputs; o += LANES)
        conv_narrow(r, step, o, tiles);
}

INLINE void conv(const conv_row *r, int tiles) {
    switch (r->step) {
    case 16:
        conv_outputs(r, 16, tiles);
        break;
    case 32:
        conv_outputs(r, 32, tiles);
        break;
    case 64:
        conv_outputs(r, 64, tiles);
        break;
    default:
        conv_outputs(r, r->step, tiles);
    }
}

/* ---- Gradient to the weights ---- */

#define ZERO_A(j, V) V a##j = zero;
#define ZERO_B(j, V) V b##j = zero;
#define GRADIENT_A(j, V) a##j += x[j] * ga;
#define GRADIENT_AB(j, V)                                                                          \
    a##j += x[j] * ga;                                                                             \
    b##j += x[j] * gb;
#define ADD_A(j, V) store_result_##V(to + (j)*across, &a##j, KERNEL_LANES, 1);
#define ADD_B(j, V) store_result_##V(to + (j)*across + width, &b##j, KERNEL_LANES, 1);

/* J neighbouring floats of the source against one vector V of outputs, or two. Lanes beyond the
   outputs collect what belongs to others; nobody reads them. */
#define GRADIENT_TILES(V, J)                                                                       \
    INLINE void weights_narrow_##V##_##J(const conv_gradient *g, int u, int j, int o) {            \
        size_t across = KERNEL_PADDED((size_t)g->outputs);                                         \
        float *to = g->weight + (size_t)(u * g->run + j) * across + o;                             \
        V ga, zero;                                                                                \
        memset(&zero, 0, sizeof zero);                                                             \
        LIST_##J(ZERO_A, V) for (int y = 0; y < g->height; y++) {                                  \
            const float *x = g->source + (size_t)y * g->source_down + (size_t)u * g->pitch + j;    \
            const float *d = g->gradient + (size_t)y * g->gradient_down + o;                       \
            for (int i = 0; i < g->width; i++, x += g->step, d += g->gradient_step) {              \
                memcpy(&ga, d, sizeof ga);                                                         \
                LIST_##J(GRADIENT_A, V)                                                            \
            }                                                                                      \
        }                                                                                          \
        LIST_##J(ADD_A, V)                                                                         \
    }                                                                                              \
    INLINE void weights_wide_##V##_##J(const conv_gradient *g, int u, int j, int o) {              \
        size_t across = KERNEL_PADDED((size_t)g->outputs);                                         \
        float *to = g->weight + (size_t)(u * g->run + j) * across + o;                             \
        V ga, gb, zero;                                                                            \
        const size_t width = sizeof ga / sizeof(float);                                            \
        memset(&zero, 0, sizeof zero);                                                             \
        LIST_##J(ZERO_A, V) LIST_##J(ZERO_B, V) for (int y = 0; y < g->height; y++) {              \
            const float *x = g->source + (size_t)y * g->source_down + (size_t)u * g->pitch + j;    \
            const float *d = g->gradient + (size_t)y * g->gradient_down + o;                       \
            for (int i = 0; i < g->width; i++, x += g->step, d += g->gradient_step) {              \
                memcpy(&ga, d, sizeof ga);                                                         \
                memcpy(&gb, d + width, sizeof gb);                                                 \
                LIST_##J(GRADIENT_AB, V)                                                           \
            }                                                                                      \
        }                                                                                          \
        LIST_##J(ADD_A, V) LIST_##J(ADD_B, V)                                                      \
    }

GRADIENT_TILES(lanes, 1)
GRADIENT_TILES(lanes, 4)
GRADIENT_TILES(lanes, 8)
GRADIENT_TILES(lanes, 16)
GRADIENT_TILES(pack, 1)
GRADIENT_TILES(pack, 4)

INLINE void weights_wide(const conv_gradient *g, int u, int o) {
    int j = 0;

    for (; j + 8 <= g->run; j += 8)
        weights_wide_lanes_8(g, u, j, o);
    for (; j < g->run; j++)
        weights_wide_lanes_1(g, u, j, o);
}

INLINE void weights_half(const conv_gradient *g, int u, int o) {
    int j = 0;

    for (; j + 4 <= g->run; j += 4)
        weights_wide_pack_4(g, u, j, o);
    for (; j < g->run; j++)
        weights_wide_pack_1(g, u, j, o);
}

INLINE void weights_narrow(const conv_gradient *g, int u, int o, int tiles) {
    int j = 0;

    if (tiles == TILES_FULL)
        for (; j + 16 <= g->run; j += 16)
            weights_narrow_lanes_16(g, u, j, o);
    for (; j + 4 <= g->run; j += 4)
        weights_narrow_lanes_4(g, u, j, o);
    for (; j < g->run; j++)
        weights_narrow_lanes_1(g, u, j, o);
}

INLINE void weights_of_row(const conv_gradient *g, int u, int tiles) {
    int o = 0;

    if (tiles == TILES_FULL && LANES > 1)
        for (; o + 2 * LANES <= g->outputs; o += 2 * LANES)
            weights_wide(g, u, o);
    if (tiles == TILES_HALF)
        for (; o < g->outputs; o += 2 * PACK)
            weights_half(g, u, o);
    for (; o < g->outputs; o += LANES)
        weights_narrow(g, u, o, tiles);
}

INLINE void conv_weights(const conv_gradient *g, int tiles) {
    for (int u = 0; u < g->rows; u++)
        weights_of_row(g, u, tiles);
}

/* ---- Elementwise passes: whole vectors of channels first, then single ones ---- */

INLINE void read_pack(pack *to, const float *from) { memcpy(to, from, sizeof *to); }

INLINE void write_pack(float *to, const pack *from) { memcpy(to, from, sizeof *from); }

INLINE void constant(pack *to, float value) {
    pack zero;

    memset(&zero, 0, sizeof zero);
    *to = zero + value;
}

/* Half to even, by the rounding of the addition itself; for |v| < 2^22. */
#define ROUNDER 12582912.0f

INLINE void value_block(const transform *t, const float *y, int pixels, int channels, int c,
                        float *out, int add) {
    pack scale, shift, low, high, v, before;

    read_pack(&scale, t->scale + c);
    read_pack(&shift, t->shift + c);
    constant(&low, t->low);
    constant(&high, t->high);
    for (size_t i = (size_t)c, n = (size_t)pixels * (size_t)channels; i < n;
         i += (size_t)channels) {
        read_pack(&v, y + i);
        v = v * scale + shift;
        v = CHOOSE(v > low, v, low);
        v = CHOOSE(v < high, v, high);
        if (t->step > 0)
            v = ((v + ROUNDER) - ROUNDER) * t->step;
        if (add) {
            read_pack(&before, out + i);
            v += before;
        }
        write_pack(out + i, &v);
    }
}

INLINE float clamp(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

INLINE void value_all(const transform *t, const float *y, int pixels, int channels, float *out,
                      int add) {
    int c = 0;

    for (; c + PACK <= channels; c += PACK)
        value_block(t, y, pixels, channels, c, out, add);
    for (; c < channels; c++) {
        for (int p = 0; p < pixels; p++) {
            size_t i = (size_t)p * (size_t)channels + (size_t)c;
            float v = clamp(y[i] * t->scale[c] + t->shift[c], t->low, t->high);

            v = t->step > 0 ? ((v + ROUNDER) - ROUNDER) * t->step : v;
            out[i] = add ? out[i] + v : v;
        }
    }
}

INLINE void gradient_block(const transform *t, const float *y, const float *dv, int pixels,
                           int channels, int c, float *out) {
    pack scale, shift, a, b, d, low, high, x, v, g;

    read_pack(&scale, t->scale + c);
    read_pack(&shift, t->shift + c);
    read_pack(&a, t->a + c);
    read_pack(&b, t->b + c);
    read_pack(&d, t->d + c);
    constant(&low, t->low);
    constant(&high, t->high);
    for (size_t i = (size_t)c, n = (size_t)pixels * (size_t)channels; i < n;
         i += (size_t)channels) {
        read_pack(&x, y + i);
        read_pack(&g, dv + i);
        v = x * scale + shift;
        g = ZERO_UNLESS((v > low) & (v < high), g);
        g = a * g + (b * x + d);
        write_pack(out + i, &g);
    }
}

INLINE int is_inside(const transform *t, float y, int c) {
    float v = y * t->scale[c] + t->shift[c];

    return v > t->low && v < t->high;
}

INLINE void gradient_all(const transform *t, const float *y, const float *dv, int pixels,
                         int channels, float *out) {
    int c = 0;

    for (; c + PACK <= channels; c += PACK)
        gradient_block(t, y, dv, pixels, channels, c, out);
    for (; c < channels; c++) {
        for (int p = 0; p < pixels; p++) {
            size_t i = (size_t)p * (size_t)channels + (size_t)c;

            out[i] = t->a[c] * (is_inside(t, y[i], c) ? dv[i] : 0) + (t->b[c] * y[i] + t->d[c]);
        }
    }
}

/* Sums of one image fit in single precision; sums over images go to doubles. */
INLINE void add_pack(double *to, const pack *sum) {
    float one[PACK];

    memcpy(one, sum, sizeof one);
    for (int i = 0; i < PACK; i++)
        to[i] += (double)one[i];
}

INLINE void moments_all(const float *y, const float *pivot, int pixels, int channels, double *sum,
                        double *square) {
    size_t n = (size_t)pixels * (size_t)channels, across = (size_t)channels;
    int c = 0;

    for (; c + PACK <= channels; c += PACK) {
        pack s, q, x, middle;

        memset(&s, 0, sizeof s);
        memset(&q, 0, sizeof q);
        read_pack(&middle, pivot + c);
        for (size_t i = (size_t)c; i < n; i += across) {
            read_pack(&x, y + i);
            x -= middle;
            s += x;
            q += x * x;
        }
        add_pack(sum + c, &s);
        add_pack(square + c, &q);
    }
    for (; c < channels; c++) {
        for (size_t i = (size_t)c; i < n; i += across) {
            double x = (double)(y[i] - pivot[c]);

            sum[c] += x;
            square[c] += x * x;
        }
    }
}

INLINE void gradient_moments_all(const transform *t, const float *y, const float *dv,
                                 const float *pivot, int pixels, int channels, double *sum,
                                 double *product) {
    size_t n = (size_t)pixels * (size_t)channels, across = (size_t)channels;
    int c = 0;

    for (; c + PACK <= channels; c += PACK) {
        pack s, q, x, g, v, middle, scale, shift, low, high;

        memset(&s, 0, sizeof s);
        memset(&q, 0, sizeof q);
        read_pack(&middle, pivot + c);
        read_pack(&scale, t->scale + c);
        read_pack(&shift, t->shift + c);
        constant(&low, t->low);
        constant(&high, t->high);
        for (size_t i = (size_t)c; i < n; i += across) {
            read_pack(&x, y + i);
            read_pack(&g, dv + i);
            v = x * scale + shift;
            g = ZERO_UNLESS((v > low) & (v < high), g);
            s += g;
            q += g * (x - middle);
        }
        add_pack(sum + c, &s);
        add_pack(product + c, &q);
    }
    for (; c < channels; c++) {
        for (size_t i = (size_t)c; i < n; i += across) {
            if (is_inside(t, y[i], c)) {
                sum[c] += (double)dv[i];
                product[c] += (double)dv[i] * (double)(y[i] - pivot[c]);
            }
        }
    }
}

/* Sum of a pack's elements. */
INLINE double sum_pack(const pack *sum) {
    double total[PACK] = {0};

    add_pack(total, sum);
    for (int k = 1; k < PACK; k++)
        total[0] += total[k];
    return total[0];
}

INLINE double step_gradient_all(const transform *t, const float *y, const float *dv, int pixels,
                                int channels, double *outside) {
    size_t n = (size_t)pixels * (size_t)channels, i = 0;
    pack x, g, v, inside, low, high, sum, below, above;
    double total;

    memset(&sum, 0, sizeof sum);
    memset(&below, 0, sizeof below);
    memset(&above, 0, sizeof above);
    constant(&low, t->low);
    constant(&high, t->high);
    for (; i + PACK <= n; i += PACK) {
        read_pack(&x, y + i);
        read_pack(&g, dv + i);
        x *= t->scale[0];
        inside = ZERO_UNLESS((x > low) & (x < high), x);
        v = CHOOSE(x > low, x, low);
        v = CHOOSE(v < high, v, high);
        sum += g * (((v + ROUNDER) - ROUNDER) - inside);
        below += ZERO_UNLESS(x <= low, g);
        above += ZERO_UNLESS(x >= high, g);
    }
    total = sum_pack(&sum);
    outside[0] += sum_pack(&below);
    outside[1] += sum_pack(&above);
    for (; i < n; i++) {
        float one = y[i] * t->scale[0], w = clamp(one, t->low, t->high);
        int in = one > t->low && one < t->high;

        total += (double)dv[i] * (double)(((w + ROUNDER) - ROUNDER) - (in ? one : 0));
        if (!in)
            outside[one >= t->high] += (double)dv[i];
    }
    return total;
}

/* ---- One set of functions for each instruction set ---- */

/* Attributes stand in no parentheses. NOLINTBEGIN(bugprone-macro-parentheses) */
#define KERNEL_SET(SET, TARGET, PASSES, TILES)                                                     \
    TARGET static void conv_##SET(const conv_row *r) { conv(r, TILES); }                           \
    TARGET static void conv_weights_##SET(const conv_gradient *g) { conv_weights(g, TILES); }      \
    PASSES static void value_##SET(const transform *t, const float *y, int pixels, int channels,   \
                                   float *out) {                                                   \
        value_all(t, y, pixels, channels, out, 0);                                                 \
    }                                                                                              \
    PASSES static void add_value_##SET(const transform *t, const float *y, int pixels,             \
                                       int channels, float *out) {                                 \
        value_all(t, y, pixels, channels, out, 1);                                                 \
    }                                                                                              \
    PASSES static void gradient_##SET(const transform *t, const float *y, const float *dv,         \
                                      int pixels, int channels, float *out) {                      \
        gradient_all(t, y, dv, pixels, channels, out);                                             \
    }                                                                                              \
    PASSES static void moments_##SET(const float *y, const float *pivot, int pixels, int channels, \
                                     double *sum, double *square) {                                \
        moments_all(y, pivot, pixels, channels, sum, square);                                      \
    }                                                                                              \
    PASSES static void gradient_moments_##SET(const transform *t, const float *y, const float *dv, \
                                              const float *pivot, int pixels, int channels,        \
                                              double *sum, double *product) {                      \
        gradient_moments_all(t, y, dv, pivot, pixels, channels, sum, product);                     \
    }                                                                                              \
    PASSES static double step_gradient_##SET(const transform *t, const float *y, const float *dv,  \
                                             int pixels, int channels, double *outside) {          \
        return step_gradient_all(t, y, dv, pixels, channels, outside);                             \
    }                                                                                              \
    static const kernel_set set_##SET = {#SET,                                                     \
                                         conv_##SET,                                               \
                                         conv_weights_##SET,                                       \
                                         value_##SET,                                              \
                                         add_value_##SET,                                          \
                                         gradient_##SET,                                           \
                                         moments_##SET,                                            \
                                         gradient_moments_##SET,                                   \
                                         step_gradient_##SET};
/* NOLINTEND(bugprone-macro-parentheses) */

#define NO_TARGET
KERNEL_SET(plain, NO_TARGET, NO_TARGET, TILES_SMALL)

static int is_wanted(const kernel_set *set, const char *name) {
    return !name || strcmp(set->name, name) == 0;
}

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__) && !defined(PTQ_NO_SIMD)

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
KERNEL_SET(avx2, AVX2, AVX2, TILES_HALF)
KERNEL_SET(avx512, AVX512, AVX2, TILES_FULL)

const kernel_set *kernels_find(const char *name) {
    __builtin_cpu_init();
    if (is_wanted(&set_avx512, name) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return &set_avx512;
    if (is_wanted(&set_avx2, name) && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return &set_avx2;
    return is_wanted(&set_plain, name) ? &set_plain : NULL;
}

#else

const kernel_set *kernels_find(const char *name) {
    return is_wanted(&set_plain, name) ? &set_plain : NULL;
}

#endif
