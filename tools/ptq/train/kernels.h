/* The inner loops of training, on the best instruction set of this processor. */
#ifndef PTQ_TRAINER_KERNELS_H
#define PTQ_TRAINER_KERNELS_H

#include <stddef.h>

/* Vectors of so many floats; also the slack, in floats, that every buffer needs behind its end,
   since vectors at the last pixel reach past it. */
#define KERNEL_LANES 16

/* Outputs are padded to whole vectors in packed weights. */
#define KERNEL_PADDED(n) (((n) + KERNEL_LANES - 1) / KERNEL_LANES * KERNEL_LANES)

/* One row of results of a convolution over a padded NHWC source: result x, output o is
       bias[o] + sum over u < rows, j < run of source[u pitch + x step + j] weight[u run + j][o]
   A row of taps is a run of neighbouring floats, since channels are innermost. */
typedef struct conv_row {
    const float *source;
    size_t pitch, step; /* floats from one row of taps to the next, from one result to the next */
    int rows, run;
    const float *weight; /* rows * run x padded outputs */
    const float *bias;   /* padded outputs */
    float *dest;
    size_t dest_step;
    int count, outputs;
    int accumulate; /* add to dest, not store */
} conv_row;

/* The gradient to the weights, for `height` rows of results at a time:
       weight[u run + j][o] += sum over y, x of source[.] gradient[y][x][o] */
typedef struct conv_gradient {
    const float *source;
    size_t pitch, step, source_down; /* source_down: from one row of results to the next */
    int rows, run;
    const float *gradient;
    size_t gradient_step, gradient_down;
    int width, height, outputs;
    float *weight;
} conv_gradient;

/* How a stored tensor becomes the value that others read: clamp(y * scale[c] + shift[c]) to
   low..high; and how its gradient becomes that of the stored tensor:
       dy = a[c] dv [low < v < high] + b[c] y + d[c]
   With a step size, what is clamped is y / step, and the value step * round(v): fake quantization,
   whose gradient passes straight through the rounding. */
typedef struct transform {
    float *scale, *shift, *a, *b, *d; /* one for each channel */
    float low, high;
    float step; /* 0: no rounding */
} transform;

typedef struct kernel_set {
    const char *name;
    void (*conv)(const conv_row *row);
    void (*conv_weights)(const conv_gradient *g);
    void (*value)(const transform *t, const float *y, int pixels, int channels, float *out);
    /* out += value */
    void (*add_value)(const transform *t, const float *y, int pixels, int channels, float *out);
    void (*gradient)(const transform *t, const float *y, const float *dv, int pixels, int channels,
                     float *out);
    /* sum += y - pivot, square += (y - pivot)^2, for each channel */
    void (*moments)(const float *y, const float *pivot, int pixels, int channels, double *sum,
                    double *square);
    /* sum += dv [inside], product += dv [inside] (y - pivot) */
    void (*gradient_moments)(const transform *t, const float *y, const float *dv,
                             const float *pivot, int pixels, int channels, double *sum,
                             double *product);
    /* The gradient to the step size (Esser et al. 2020, https://arxiv.org/abs/1902.08153, 2.1): the
       sum of dv (round(v) - y / step [inside]). To outside[0] and [1] are added the sums of dv
       where v lies at the low end and at the high one: what moves with the zero point. */
    double (*step_gradient)(const transform *t, const float *y, const float *dv, int pixels,
                            int channels, double outside[2]);
} kernel_set;

/* The best set of this processor, or the one of that name ("plain", "avx2", "avx512"); NULL if this
   processor cannot run it. */
const kernel_set *kernels_find(const char *name);

#endif
