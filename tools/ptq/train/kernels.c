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

/* Elementwise passes compare, which GCC 12 compiles lane by lane in vectors of 64 bytes. Memory
   bounds them anyway. */
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
INLINE void load(lanes *to, const float *from) { memcpy(to, from, sizeof *to); }

INLINE void store(float *to, const lanes *from, int n) {
    if (n >= LANES)
        memcpy(to, from, sizeof *from);
    else
        memcpy(to, from, (size_t)n * sizeof *to);
}

INLINE void store_result(float *to, lanes *from, int n, int accumulate) {
    lanes before;

    if (accumulate) {
        load(&before, to);
        *from += before;
    }
    store(to, from, n);
}

/* ---- Convolution ---- */

#define LIST_1(X) X(0)
#define LIST_4(X) X(0) X(1) X(2) X(3)
#define LIST_8(X) LIST_4(X) X(4) X(5) X(6) X(7)
#define LIST_16(X) LIST_8(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

#define BEGIN_A(p) lanes a##p = start_a;
#define BEGIN_B(p) lanes b##p = start_b;
#define STEP_A(p) a##p += x[(p)*step] * wa;
#define STEP_AB(p)                                                                                 \
    a##p += x[(p)*step] * wa;                                                                      \
    b##p += x[(p)*step] * wb;
#define END_A(p) store_result(to + (p)*r->dest_step, &a##p, n, r->accumulate);
#define END_B(p) store_result(to + LANES + (p)*r->dest_step, &b##p, n - LANES, r->accumulate);

/* P results next to each other, one vector of outputs, or two. Named accumulators stay in registers
   where arrays may not. `step` is an argument because constants make short addresses. */
#define CONV_TILES(P)                                                                              \
    INLINE void conv_narrow_##P(const conv_row *r, size_t step, int x0, int o) {                   \
        const float *weight = r->weight + o;                                                       \
        size_t across = KERNEL_PADDED((size_t)r->outputs);                                         \
        float *to = r->dest + (size_t)x0 * r->dest_step + o;                                       \
        int n = r->outputs - o;                                                                    \
        lanes wa, start_a;                                                                         \
        load(&start_a, r->bias + o);                                                               \
        LIST_##P(BEGIN_A) for (int u = 0; u < r->rows; u++) {                                      \
            const float *x = r->source + (size_t)u * r->pitch + (size_t)x0 * step;                 \
            for (const float *end = x + r->run; x < end; x++, weight += across) {                  \
                load(&wa, weight);                                                                 \
                LIST_##P(STEP_A)                                                                   \
            }                                                                                      \
        }                                                                                          \
        LIST_##P(END_A)                                                                            \
    }                                                                                              \
    INLINE void conv_wide_##P(const conv_row *r, size_t step, int x0, int o) {                     \
        const float *weight = r->weight + o;                                                       \
        size_t across = KERNEL_PADDED((size_t)r->outputs);                                         \
        float *to = r->dest + (size_t)x0 * r->dest_step + o;                                       \
        int n = r->outputs - o;                                                                    \
        lanes wa, wb, start_a, start_b;                                                            \
        load(&start_a, r->bias + o);                                                               \
        load(&start_b, r->bias + o + LANES);                                                       \
        LIST_##P(BEGIN_A) LIST_##P(BEGIN_B) for (int u = 0; u < r->rows; u++) {                    \
            const float *x = r->source + (size_t)u * r->pitch + (size_t)x0 * step;                 \
            for (const float *end = x + r->run; x < end; x++, weight += across) {                  \
                load(&wa, weight);                                                                 \
                load(&wb, weight + LANES);                                                         \
                LIST_##P(STEP_AB)                                                                  \
            }                                                                                      \
        }                                                                                          \
        LIST_##P(END_A) LIST_##P(END_B)                                                            \
    }

CONV_TILES(1)
CONV_TILES(4)
CONV_TILES(8)
CONV_TILES(16)

/* One vector of outputs for all results of the row. */
INLINE void conv_narrow(const conv_row *r, size_t step, int o, int big) {
    int x = 0;

    if (big)
        for (; x + 16 <= r->count; x += 16)
            conv_narrow_16(r, step, x, o);
    for (; x + 4 <= r->count; x += 4)
        conv_narrow_4(r, step, x, o);
    for (; x < r->count; x++)
        conv_narrow_1(r, step, x, o);
}

INLINE void conv_wide(const conv_row *r, size_t step, int o) {
    int x = 0;

    for (; x + 8 <= r->count; x += 8)
        conv_wide_8(r, step, x, o);
    for (; x < r->count; x++)
        conv_wide_1(r, step, x, o);
}

INLINE void conv_outputs(const conv_row *r, size_t step, int big) {
    int o = 0;

    if (big && LANES > 1)
        for (; o + 2 * LANES <= r->outputs; o += 2 * LANES)
            conv_wide(r, step, o);
    for (; o < r->outputs; o += LANES)
        conv_narrow(r, step, o, big);
}

INLINE void conv(const conv_row *r, int big) {
    switch (r->step) {
    case 16:
        conv_outputs(r, 16, big);
        break;
    case 32:
        conv_outputs(r, 32, big);
        break;
    case 64:
        conv_outputs(r, 64, big);
        break;
    default:
        conv_outputs(r, r->step, big);
    }
}

/* ---- Gradient to the weights ---- */

#define ZERO_A(j) lanes a##j = zero;
#define ZERO_B(j) lanes b##j = zero;
#define GRADIENT_A(j) a##j += x[j] * ga;
#define GRADIENT_AB(j)                                                                             \
    a##j += x[j] * ga;                                                                             \
    b##j += x[j] * gb;
#define ADD_A(j)                                                                                   \
    load(&before, to + (j)*across);                                                                \
    a##j += before;                                                                                \
    store(to + (j)*across, &a##j, LANES);
#define ADD_B(j)                                                                                   \
    load(&before, to + (j)*across + LANES);                                                        \
    b##j += before;                                                                                \
    store(to + (j)*across + LANES, &b##j, LANES);

/* J neighbouring floats of the source against one vector of outputs, or two. Lanes beyond the
   outputs collect what belongs to others; nobody reads them. */
#define GRADIENT_TILES(J)                                                                          \
    INLINE void weights_narrow_##J(const conv_gradient *g, int u, int j, int o) {                  \
        size_t across = KERNEL_PADDED((size_t)g->outputs);                                         \
        float *to = g->weight + (size_t)(u * g->run + j) * across + o;                             \
        lanes ga, before, zero;                                                                    \
        memset(&zero, 0, sizeof zero);                                                             \
        LIST_##J(ZERO_A) for (int y = 0; y < g->height; y++) {                                     \
            const float *x = g->source + (size_t)y * g->source_down + (size_t)u * g->pitch + j;    \
            const float *d = g->gradient + (size_t)y * g->gradient_down + o;                       \
            for (int i = 0; i < g->width; i++, x += g->step, d += g->gradient_step) {              \
                load(&ga, d);                                                                      \
                LIST_##J(GRADIENT_A)                                                               \
            }                                                                                      \
        }                                                                                          \
        LIST_##J(ADD_A)                                                                            \
    }                                                                                              \
    INLINE void weights_wide_##J(const conv_gradient *g, int u, int j, int o) {                    \
        size_t across = KERNEL_PADDED((size_t)g->outputs);                                         \
        float *to = g->weight + (size_t)(u * g->run + j) * across + o;                             \
        lanes ga, gb, before, zero;                                                                \
        memset(&zero, 0, sizeof zero);                                                             \
        LIST_##J(ZERO_A) LIST_##J(ZERO_B) for (int y = 0; y < g->height; y++) {                    \
            const float *x = g->source + (size_t)y * g->source_down + (size_t)u * g->pitch + j;    \
            const float *d = g->gradient + (size_t)y * g->gradient_down + o;                       \
            for (int i = 0; i < g->width; i++, x += g->step, d += g->gradient_step) {              \
                load(&ga, d);                                                                      \
                load(&gb, d + LANES);                                                              \
                LIST_##J(GRADIENT_AB)                                                              \
            }                                                                                      \
        }                                                                                          \
        LIST_##J(ADD_A) LIST_##J(ADD_B)                                                            \
    }

GRADIENT_TILES(1)
GRADIENT_TILES(4)
GRADIENT_TILES(8)
GRADIENT_TILES(16)

INLINE void weights_of_row(const conv_gradient *g, int u, int big) {
    int o = 0, j;

    if (big && LANES > 1) {
        for (; o + 2 * LANES <= g->outputs; o += 2 * LANES) {
            for (j = 0; j + 8 <= g->run; j += 8)
                weights_wide_8(g, u, j, o);
            for (; j < g->run; j++)
                weights_wide_1(g, u, j, o);
        }
    }
    for (; o < g->outputs; o += LANES) {
        j = 0;
        if (big)
            for (; j + 16 <= g->run; j += 16)
                weights_narrow_16(g, u, j, o);
        for (; j + 4 <= g->run; j += 4)
            weights_narrow_4(g, u, j, o);
        for (; j < g->run; j++)
            weights_narrow_1(g, u, j, o);
    }
}

INLINE void conv_weights(const conv_gradient *g, int big) {
    for (int u = 0; u < g->rows; u++)
        weights_of_row(g, u, big);
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

INLINE double step_gradient_all(const transform *t, const float *y, const float *dv, int pixels,
                                int channels) {
    size_t n = (size_t)pixels * (size_t)channels, i = 0;
    pack x, g, v, inside, low, high, sum;
    double total[PACK] = {0};

    memset(&sum, 0, sizeof sum);
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
    }
    add_pack(total, &sum);
    for (int k = 1; k < PACK; k++)
        total[0] += total[k];
    for (; i < n; i++) {
        float one = y[i] * t->scale[0], w = clamp(one, t->low, t->high);

        total[0] += (double)dv[i] *
                    (double)(((w + ROUNDER) - ROUNDER) - (one > t->low && one < t->high ? one : 0));
    }
    return total[0];
}

/* ---- One set of functions for each instruction set ---- */

/* Attributes stand in no parentheses. NOLINTBEGIN(bugprone-macro-parentheses) */
#define KERNEL_SET(SET, TARGET, PASSES, BIG)                                                       \
    TARGET static void conv_##SET(const conv_row *r) { conv(r, BIG); }                             \
    TARGET static void conv_weights_##SET(const conv_gradient *g) { conv_weights(g, BIG); }        \
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
                                             int pixels, int channels) {                           \
        return step_gradient_all(t, y, dv, pixels, channels);                                      \
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
KERNEL_SET(plain, NO_TARGET, NO_TARGET, 0)

static int is_wanted(const kernel_set *set, const char *name) {
    return !name || strcmp(set->name, name) == 0;
}

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__) && !defined(PTQ_NO_SIMD)

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
KERNEL_SET(avx2, AVX2, AVX2, 0)
KERNEL_SET(avx512, AVX512, AVX2, 1)

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
