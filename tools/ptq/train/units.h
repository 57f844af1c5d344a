/* What the files of the trainer share: the graph as units, and what each file does with them.

   The graph is compiled into units: an operator that stores its result y, and behind it batch norm
   and ReLU, which are not stored: who reads the unit computes them on the fly, and again in the
   backward pass. That halves the memory traffic, which decides the speed.

   Units run one after the other, each over the whole batch, because batch norm needs the statistics
   of all images; within a unit the shards are shared out among threads. */
#ifndef PTQ_TRAINER_UNITS_H
#define PTQ_TRAINER_UNITS_H

#include <pthread.h>

#include "train/trainer.h"
#include "train/kernels.h"

#define NONE ((size_t)-1) /* an offset in the state: of nothing */
#define SLACK (4 * KERNEL_LANES)

/* ---- Threads ---- */

typedef void (*task_function)(trainer *t, int task, int thread);

typedef struct pool {
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    pthread_t *thread;
    int threads; /* the caller's included */
    int started;
    int task, tasks, busy, round, quit;
    task_function function;
    trainer *owner;
} pool;

/* ---- Units ---- */

/* Sizes of a convolution, or of a dense layer as a convolution of 1 x 1. */
typedef struct window {
    int height, width, channels; /* of the input */
    int out_height, out_width, outputs;
    int kernel[2], stride[2], pad[2], groups;
} window;

/* Along one axis: the input positions i = m stride + phase - pad read results m - k through taps
   phase + k stride. */
typedef struct phase {
    int taps;
    int first, count; /* the m's for which i lies inside */
} phase;

typedef struct unit {
    const ptq_qparams *q;           /* how the value is coded; NULL: not at all */
    size_t step, weight_step, zero; /* offsets in the state, or NONE */
    double *step_sum;               /* shards */
    double *outside_sum;            /* shards x 2: see kernel_set.step_gradient */
    ptq_op op; /* PTQ_OP_RELU: a copy, for what has no operator of its own before it */
    const ptq_node *node, *norm;
    ptq_activation act;
    int input[2], readers, written;
    int accumulate[2], last[2]; /* in the backward pass: add to the input's dy; nobody adds later */
    int shape[3];
    size_t size;
    float *y, *dy; /* batch x size: stored result; gradient of the value */
    transform t;
    float *pivot;         /* where sums are taken around: the mean, as far as it is known */
    double *inverse;      /* 1 / sqrt(variance + epsilon) */
    double *sum, *square; /* shards x channels */
    size_t weight, bias, gamma, beta, mean, variance; /* offsets in the state, or NONE */
    int bias_trained;
    window w;
    size_t weights;            /* how many */
    float *rounded;            /* as fake quantization makes them; NULL without */
    float *forward, *backward; /* packed weights */
    float *packed_bias;
    float *partial;             /* shards x packed weights */
    double *partial_bias;       /* shards x outputs */
    size_t packed, packed_back; /* floats for all groups */
    int padded[2];              /* rows, columns of the padded input ... */
    int before[2], grown[2];    /* ... of the gradient: zeros before it, rows and columns in all */
} unit;

struct trainer {
    const ptq_model *model, *origin; /* origin: of the real weights; the same, or the float model */
    trainer_options options;
    const kernel_set *kernel;
    unit *unit;
    int units, logits;
    int *unit_of_node;
    trainer_param *param;
    int params;
    float *state, *gradient, *zeros;
    size_t size;
    float **scratch; /* threads x 3 */
    size_t scratch_size;
    int *label;
    double *loss; /* shards */
    int *correct;
    int images; /* of the current step */
    float smoothing;
    const float *teacher; /* its logits; NULL: labels count */
    float temperature;
    double *log_softmax; /* shards x 2 x classes */
    trainer_source source;
    int current; /* unit */
    pool workers;
};

/* ---- Small things ---- */

static inline int larger(int a, int b) { return a > b ? a : b; }

static inline int has_weights(const unit *u) {
    return u->op == PTQ_OP_CONV2D || u->op == PTQ_OP_DENSE;
}

static inline size_t channels_of(const unit *u) { return (size_t)u->shape[2]; }

static inline float *image_of(const unit *u, float *batch, int image) {
    return batch + (size_t)image * u->size;
}

/* Whether a parameter is the logarithm of a step size. */
static inline int is_step(int param) {
    return param >= TRAINER_WEIGHT_STEP && param <= TRAINER_STEP;
}

/* Buffers of a thread, each for the largest image, padded or not. */
enum { SOURCE, GRADIENT, IMAGE, SCRATCHES };

static inline float *scratch(const trainer *t, int thread, int which) {
    return t->scratch[thread * SCRATCHES + which];
}

/* The value of an image, batch norm and activation included. */
static inline void read_value(const trainer *t, const unit *u, int image, float *out) {
    t->kernel->value(&u->t, image_of(u, u->y, image), u->shape[0] * u->shape[1], u->shape[2], out);
}

/* The gradient that reaches the stored result. */
static inline void read_gradient(const trainer *t, const unit *u, int image, float *out) {
    t->kernel->gradient(&u->t, image_of(u, u->y, image), image_of(u, u->dy, image),
                        u->shape[0] * u->shape[1], u->shape[2], out);
}

static inline int needs_gradient(const trainer *t, const unit *u, int slot) {
    return t->unit[u->input[slot]].op != PTQ_OP_INPUT;
}

/* Of one channel, in the order of the shards. */
static inline double over_shards(const double *sum, int c, int channels) {
    double total = 0;

    for (int s = 0; s < TRAINER_SHARDS; s++)
        total += sum[s * channels + c];
    return total;
}

/* ---- threads.c ---- */

ptq_status pool_start(trainer *t, int threads, ptq_error *err);
void pool_stop(pool *p);

/* Calls the function for tasks 0..tasks-1, each on one of the threads, and waits for all. */
void pool_run(trainer *t, task_function function, int tasks);

/* ---- compile.c ---- */

ptq_status units_compile(trainer *t, ptq_error *err);
phase window_phase(const window *w, int axis, int number);

/* The node of the real weights; NULL if there is none. */
const ptq_node *origin_of(const trainer *t, int node);

/* ---- memory.c ---- */

ptq_status units_allocate(trainer *t, ptq_error *err);
void units_free(trainer *t);

/* ---- state.c ---- */

void state_import(trainer *t);

/* ---- weights.c ---- */

/* Tasks, one a unit: packs its weights before the forward pass; sums the shards' gradients after
   the backward pass. */
void weights_pack(trainer *t, int task, int thread);
void weights_collect(trainer *t, int task, int thread);

/* ---- fake.c ---- */

/* A step size from its logarithm in the state. */
float fake_step(float logarithm);

/* The weights as the integers will be, in u->rounded. */
void fake_weights(trainer *t, unit *u);

/* From the gradient to the rounded weights, in place, to those of real weights and steps. */
void fake_weight_gradient(trainer *t, const unit *u);

/* What a bias counts in, as it is added to integer products: input step times weight step. */
double fake_bias_step(const trainer *t, const unit *u, const float *state, int o);

/* A zero point from its number in the state. */
int32_t fake_zero(const ptq_qparams *q, float number);

/* The bias of output channel o, rounded if the weights are. */
float fake_bias(const trainer *t, const unit *u, int o);

/* Clamp and rounding of the value, with an activation that comes before. */
void fake_codes(const trainer *t, unit *u);
void fake_step_gradient(trainer *t, const unit *u);

/* Codes and scales of a node's weights, and its bias in units of their product with the scale of
   the input. */
ptq_status fake_export(const trainer *t, const unit *u, const float *state, ptq_model *model,
                       ptq_error *err);

/* ---- operators.c, convolution.c: one image ---- */

void operator_forward(const trainer *t, const unit *u, int image, int thread);
void operator_backward(const trainer *t, const unit *u, int image, int shard, int thread);
void convolution_forward(const trainer *t, const unit *u, int image, int thread);
void convolution_backward(const trainer *t, const unit *u, int image, int shard, int thread);

/* ---- norm.c ---- */

/* After all images of the pass: the transform of the values; that of the gradient. */
void norm_finish(trainer *t, unit *u);
void norm_finish_gradient(trainer *t, unit *u);

/* What batch norm and step sizes need of an image's complete gradient, while it is in the cache. */
void sum_gradient(const trainer *t, const unit *u, int image, int shard);

#endif
