/* The graph is compiled into units: an operator that stores its result y, and behind it batch norm
   and ReLU, which are not stored: who reads the unit computes them on the fly, and again in the
   backward pass. That halves the memory traffic, which decides the speed.

   Units run one after the other, each over the whole batch, because batch norm needs the statistics
   of all images; within a unit the shards are shared out among threads. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "train/trainer.h"
#include "train/kernels.h"

#define NONE ((size_t)-1)
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

typedef struct worker {
    pool *from;
    int number;
} worker;

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
    const ptq_qparams *q;     /* how the value is coded; NULL: not at all */
    size_t step, weight_step; /* offsets in the state, or NONE */
    double *step_sum;         /* shards */
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
    trainer_source source;
    int current; /* unit */
    pool workers;
};

/* ---- Thread pool ---- */

static int take_task(pool *p) { return p->task < p->tasks ? p->task++ : -1; }

/* Called with the lock held, which is given up during the work. */
static void work_off(pool *p, int thread) {
    int task;

    while ((task = take_task(p)) >= 0) {
        p->busy++;
        pthread_mutex_unlock(&p->lock);
        p->function(p->owner, task, thread);
        pthread_mutex_lock(&p->lock);
        p->busy--;
    }
    if (!p->busy)
        pthread_cond_broadcast(&p->end);
}

static void *worker_main(void *argument) {
    worker self = *(worker *)argument;
    pool *p = self.from;
    int round = 0;

    free(argument);
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->round == round && !p->quit)
            pthread_cond_wait(&p->begin, &p->lock);
        if (p->quit)
            break;
        round = p->round;
        work_off(p, self.number);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void run_tasks(trainer *t, task_function function, int tasks) {
    pool *p = &t->workers;

    pthread_mutex_lock(&p->lock);
    p->function = function;
    p->task = 0;
    p->tasks = tasks;
    p->round++;
    if (p->started)
        pthread_cond_broadcast(&p->begin);
    work_off(p, 0);
    while (p->busy || p->task < p->tasks)
        pthread_cond_wait(&p->end, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static ptq_status pool_start(trainer *t, int threads, ptq_error *err) {
    pool *p = &t->workers;

    p->owner = t;
    p->threads = threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->begin, NULL);
    pthread_cond_init(&p->end, NULL);
    p->thread = calloc((size_t)threads, sizeof *p->thread);
    if (!p->thread)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for %d threads", threads);
    for (int i = 1; i < threads; i++) {
        worker *self = malloc(sizeof *self);

        if (!self)
            return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for %d threads", threads);
        self->from = p;
        self->number = i;
        if (pthread_create(&p->thread[i], NULL, worker_main, self)) {
            free(self);
            return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "cannot start %d threads", threads);
        }
        p->started++;
    }
    return PTQ_OK;
}

static void pool_stop(pool *p) {
    if (!p->threads)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = 1;
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->started; i++)
        pthread_join(p->thread[i], NULL);
    free(p->thread);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->begin);
    pthread_cond_destroy(&p->end);
}

/* ---- Compiling the graph ---- */

static int round_down(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

static phase phase_of(const window *w, int axis, int number) {
    int in = axis ? w->width : w->height, s = w->stride[axis], shift = number - w->pad[axis];
    phase p;

    p.taps = number < w->kernel[axis] ? (w->kernel[axis] - number + s - 1) / s : 0;
    p.first = -round_down(shift, s);
    p.count = round_down(in - 1 - shift, s) - p.first + 1;
    if (p.count < 0)
        p.count = 0;
    return p;
}

static int larger(int a, int b) { return a > b ? a : b; }

static void measure_padding(unit *u, int axis) {
    const window *w = &u->w;
    int in = axis ? w->width : w->height, out = axis ? w->out_width : w->out_height;

    u->padded[axis] = larger(w->pad[axis] + in, (out - 1) * w->stride[axis] + w->kernel[axis]);
    u->before[axis] = 0;
    u->grown[axis] = out;
    for (int i = 0; i < w->stride[axis]; i++) {
        phase p = phase_of(w, axis, i);

        if (p.count && p.taps) {
            u->before[axis] = larger(u->before[axis], p.taps - 1 - p.first);
            u->grown[axis] = larger(u->grown[axis], p.first + p.count);
        }
    }
    u->grown[axis] += u->before[axis];
}

static void set_window(const ptq_model *model, unit *u) {
    const ptq_node *node = u->node;
    const int *in = model->node[node->input[0]].shape;
    window *w = &u->w;

    w->height = in[0];
    w->width = in[1];
    w->channels = in[2];
    w->out_height = node->shape[0];
    w->out_width = node->shape[1];
    w->outputs = node->shape[2];
    w->groups = 1;
    for (int i = 0; i < 2; i++) {
        w->kernel[i] = node->kernel[i];
        w->stride[i] = node->stride[i];
        w->pad[i] = node->pad[i];
    }
    if (u->op == PTQ_OP_CONV2D)
        w->groups = node->groups;
    if (u->op == PTQ_OP_DENSE) {
        w->channels = in[0] * in[1] * in[2];
        w->height = w->width = w->out_height = w->out_width = 1;
        w->kernel[0] = w->kernel[1] = w->stride[0] = w->stride[1] = 1;
        w->pad[0] = w->pad[1] = 0;
    }
    measure_padding(u, 0);
    measure_padding(u, 1);
}

static int has_weights(const unit *u) { return u->op == PTQ_OP_CONV2D || u->op == PTQ_OP_DENSE; }

static const ptq_node *origin_of(const trainer *t, int node) {
    int found = ptq_model_find(t->origin, t->model->node[node].name);

    return found < 0 ? NULL : &t->origin->node[found];
}

static size_t add_numbers(trainer *t, int node, int param, size_t count, int trained, int decayed) {
    trainer_param *made = &t->param[t->params];

    if (!count)
        return NONE;
    made->node = node;
    made->param = param;
    made->offset = t->size;
    made->count = count;
    made->trained = trained;
    made->decayed = decayed;
    t->params++;
    t->size += count;
    return made->offset;
}

static size_t add_param(trainer *t, int node, int param, int trained, int decayed) {
    return add_numbers(t, node, param, ptq_tensor_elements(&origin_of(t, node)->param[param]),
                       trained, decayed);
}

static int count_readers(const ptq_model *model, int node) {
    int readers = 0;

    for (int i = 0; i < model->nodes; i++)
        readers += (model->node[i].input[0] == node) + (model->node[i].input[1] == node);
    return readers;
}

static unit *new_unit(trainer *t, ptq_op op, int node) {
    unit *u = &t->unit[t->units++];

    u->op = op;
    u->node = &t->model->node[node];
    u->input[0] = u->input[1] = -1;
    u->weight = u->bias = u->gamma = u->beta = u->mean = u->variance = NONE;
    u->step = u->weight_step = NONE;
    memcpy(u->shape, u->node->shape, sizeof u->shape);
    return u;
}

/* The unit that computes the node's input, if the node may become a part of it: it is read by no
   other, and nothing stands behind it that would have to come later. */
static unit *absorber(trainer *t, int node, int norm) {
    int input = t->model->node[node].input[0];
    unit *u = &t->unit[t->unit_of_node[input]];

    if (u->op == PTQ_OP_INPUT || count_readers(t->model, input) != 1 || u->act || (norm && u->norm))
        return NULL;
    return u;
}

static unit *own_unit(trainer *t, int node) {
    unit *u = new_unit(t, PTQ_OP_RELU, node);

    u->input[0] = t->unit_of_node[u->node->input[0]];
    return u;
}

static void take_norm(trainer *t, unit *u, int node) {
    u->norm = &t->model->node[node];
    u->gamma = add_param(t, node, PTQ_PARAM_WEIGHT, 1, 0);
    u->beta = add_param(t, node, PTQ_PARAM_BIAS, 1, 0);
    u->mean = add_param(t, node, PTQ_PARAM_MEAN, 0, 0);
    u->variance = add_param(t, node, PTQ_PARAM_VARIANCE, 0, 0);
    if (u->bias == NONE)
        return;
    u->bias_trained = t->options.frozen_norm;
    for (int i = 0; i < t->params; i++)
        if (t->param[i].offset == u->bias)
            t->param[i].trained = u->bias_trained;
}

/* Pixels keep the codes that they have: they are what they are. */
static void take_codes(trainer *t, unit *u, int node, const ptq_qparams *q, int param) {
    if (q->type == PTQ_TYPE_F32 || u->op == PTQ_OP_INPUT)
        return;
    u->q = q;
    u->step = add_numbers(t, node, param, 1, 1, 0);
}

static unit *compile_weights(trainer *t, int i) {
    const ptq_node *node = &t->model->node[i];
    unit *u = new_unit(t, node->op, i);

    u->input[0] = t->unit_of_node[node->input[0]];
    u->weight = add_param(t, i, PTQ_PARAM_WEIGHT, 1, 1);
    u->bias = add_param(t, i, PTQ_PARAM_BIAS, 1, 0);
    u->bias_trained = u->bias != NONE;
    u->act = node->act;
    set_window(t->model, u);
    if (node->param[PTQ_PARAM_WEIGHT].scales)
        u->weight_step = add_numbers(t, i, TRAINER_WEIGHT_STEP,
                                     (size_t)node->param[PTQ_PARAM_WEIGHT].scales, 1, 0);
    if (node->residual == PTQ_RESIDUAL_NONE) {
        take_codes(t, u, i, &node->q, TRAINER_STEP);
        return u;
    }
    take_codes(t, u, i, &node->mid, TRAINER_MID_STEP);
    u = new_unit(t, PTQ_OP_ADD, i);
    take_codes(t, u, i, &node->q, TRAINER_STEP);
    u->input[0] = t->units - 2;
    u->input[1] = t->unit_of_node[node->input[1]];
    u->act = node->add_act;
    return u;
}

static unit *compile_plain(trainer *t, int i) {
    const ptq_node *node = &t->model->node[i];
    unit *u = new_unit(t, node->op, i);

    for (int k = 0; k < 2; k++)
        if (node->input[k] >= 0)
            u->input[k] = t->unit_of_node[node->input[k]];
    u->act = node->act;
    if (node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_AVG_POOL)
        set_window(t->model, u);
    return u;
}

/* What the engine cannot imitate, or has no real weights for. */
static ptq_status check_node(const trainer *t, const ptq_node *node, ptq_error *err) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT], *real;
    int found = ptq_model_find(t->origin, node->name);

    if (!weight->rank)
        return PTQ_OK;
    if (found < 0 || t->origin->node[found].op != node->op)
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s is not in the float model; give the float"
                             " model that the quantized one was made from",
                             node->name);
    real = &t->origin->node[found].param[PTQ_PARAM_WEIGHT];
    if (real->type != PTQ_TYPE_F32 || node->dynamic || weight->type == PTQ_TYPE_F16)
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "node %s has no float weights, or computes with"
                             " dynamic ranges or half precision; train float models, or integer"
                             " ones beside their float origin",
                             node->name);
    if (real->rank != weight->rank || memcmp(real->dim, weight->dim, sizeof real->dim) != 0)
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s has another shape in the float model;"
                             " give the one that the quantized model was made from",
                             node->name);
    return PTQ_OK;
}

static ptq_status compile_node(trainer *t, int i, ptq_error *err) {
    const ptq_node *node = &t->model->node[i];
    unit *u = NULL;
    ptq_status status = check_node(t, node, err);

    if (status)
        return status;
    switch (node->op) {
    case PTQ_OP_CONV2D:
    case PTQ_OP_DENSE:
        u = compile_weights(t, i);
        break;
    case PTQ_OP_BATCH_NORM:
        u = absorber(t, i, 1);
        u = u ? u : own_unit(t, i);
        take_norm(t, u, i);
        break;
    case PTQ_OP_RELU:
    case PTQ_OP_RELU6:
        u = absorber(t, i, 0);
        u = u ? u : own_unit(t, i);
        u->act = node->op == PTQ_OP_RELU ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6;
        break;
    case PTQ_OP_QUANTIZE:
    case PTQ_OP_DEQUANTIZE:
        u = own_unit(t, i);
        take_codes(t, u, i, &node->q, TRAINER_STEP);
        break;
    case PTQ_OP_MAX_POOL: /* of codes: chooses among them */
        u = compile_plain(t, i);
        break;
    case PTQ_OP_INPUT:
    case PTQ_OP_ADD:
    case PTQ_OP_AVG_POOL:
    case PTQ_OP_GLOBAL_AVG_POOL:
        u = compile_plain(t, i);
        take_codes(t, u, i, &node->q, TRAINER_STEP);
        break;
    default:
        return ptq_error_set(err, PTQ_UNSUPPORTED, "node %s: %s cannot be trained", node->name,
                             ptq_name(PTQ_NAMES_OP, node->op));
    }
    t->unit_of_node[i] = (int)(u - t->unit);
    return PTQ_OK;
}

static ptq_status compile(trainer *t, ptq_error *err) {
    int last = ptq_model_logits(t->model);
    const int *shape = t->model->node[last].shape;

    for (int i = 0; i <= last; i++) {
        ptq_status status = compile_node(t, i, err);

        if (status)
            return status;
    }
    t->logits = t->unit_of_node[last];
    if (shape[0] != 1 || shape[1] != 1 || shape[2] < 2)
        return ptq_error_set(
            err, PTQ_UNSUPPORTED,
            "the result is %d x %d x %d; training needs 1 x 1 x at least 2 classes", shape[0],
            shape[1], shape[2]);
    for (int i = 0; i < t->units; i++)
        for (int k = 0; k < 2; k++)
            if (t->unit[i].input[k] >= 0)
                t->unit[t->unit[i].input[k]].readers++;
    return PTQ_OK;
}

/* ---- Memory ---- */

static float *floats(size_t n) {
    return n < (SIZE_MAX / sizeof(float) - SLACK) ? calloc(n + SLACK, sizeof(float)) : NULL;
}

static size_t channels_of(const unit *u) { return (size_t)u->shape[2]; }

static size_t back_size(const window *w) {
    size_t n = 0;

    for (int y = 0; y < w->stride[0]; y++)
        for (int x = 0; x < w->stride[1]; x++)
            n += (size_t)phase_of(w, 0, y).taps * (size_t)phase_of(w, 1, x).taps;
    return n * (size_t)(w->outputs / w->groups) * KERNEL_PADDED((size_t)(w->channels / w->groups));
}

static int allocate_weights(unit *u) {
    const window *w = &u->w;
    size_t inputs = (size_t)(w->channels / w->groups), outputs = (size_t)(w->outputs / w->groups);

    u->packed = (size_t)w->kernel[0] * (size_t)w->kernel[1] * inputs * KERNEL_PADDED(outputs) *
                (size_t)w->groups;
    u->packed_back = back_size(w) * (size_t)w->groups;
    u->weights = inputs * (size_t)(w->kernel[0] * w->kernel[1] * w->outputs);
    if (u->weight_step != NONE)
        u->rounded = floats(u->weights);
    u->forward = floats(u->packed);
    u->backward = floats(u->packed_back);
    u->packed_bias = floats((size_t)w->groups * KERNEL_PADDED(outputs));
    u->partial = floats(TRAINER_SHARDS * u->packed);
    u->partial_bias = calloc((size_t)w->outputs * TRAINER_SHARDS, sizeof(double));
    return (u->rounded || u->weight_step == NONE) && u->forward && u->backward && u->packed_bias &&
           u->partial && u->partial_bias;
}

static int allocate_unit(const trainer *t, unit *u) {
    size_t c = channels_of(u);
    float **constant[] = {&u->t.scale, &u->t.shift, &u->t.a, &u->t.b, &u->t.d, &u->pivot};

    u->size = (size_t)u->shape[0] * (size_t)u->shape[1] * c;
    if (u->size > SIZE_MAX / sizeof(float) / (size_t)(t->options.batch + 1))
        return 0;
    u->y = floats(u->size * (size_t)t->options.batch);
    u->dy = u->op == PTQ_OP_INPUT ? NULL : floats(u->size * (size_t)t->options.batch);
    for (size_t i = 0; i < sizeof constant / sizeof *constant; i++) {
        *constant[i] = floats(c);
        if (!*constant[i])
            return 0;
    }
    u->sum = calloc(c * TRAINER_SHARDS, sizeof(double));
    u->square = calloc(c * TRAINER_SHARDS, sizeof(double));
    u->inverse = calloc(c, sizeof(double));
    u->step_sum = calloc(TRAINER_SHARDS, sizeof(double));
    for (size_t i = 0; i < c; i++)
        u->t.scale[i] = u->t.a[i] = 1;
    u->t.low = u->act ? 0 : -INFINITY;
    u->t.high = u->act == PTQ_ACTIVATION_RELU6 ? 6 : INFINITY;
    if (!u->y || (!u->dy && u->op != PTQ_OP_INPUT) || !u->sum || !u->square || !u->inverse ||
        !u->step_sum)
        return 0;
    return !has_weights(u) || allocate_weights(u);
}

static size_t scratch_needed(const unit *u) {
    size_t n = u->size, m;

    if (!has_weights(u))
        return n;
    m = (size_t)u->padded[0] * (size_t)u->padded[1] * (size_t)u->w.channels;
    n = m > n ? m : n;
    m = (size_t)u->grown[0] * (size_t)u->grown[1] * (size_t)u->w.outputs;
    return m > n ? m : n;
}

enum { SOURCE, GRADIENT, IMAGE, SCRATCHES };

static float *scratch(const trainer *t, int thread, int which) {
    return t->scratch[thread * SCRATCHES + which];
}

static ptq_status allocate(trainer *t, ptq_error *err) {
    int ok, widest = 1;

    t->state = floats(t->size);
    t->gradient = floats(t->size);
    t->label = calloc((size_t)t->options.batch, sizeof *t->label);
    t->loss = calloc(TRAINER_SHARDS, sizeof *t->loss);
    t->correct = calloc(TRAINER_SHARDS, sizeof *t->correct);
    t->scratch = calloc((size_t)t->options.threads * SCRATCHES, sizeof *t->scratch);
    ok = t->state && t->gradient && t->label && t->loss && t->correct && t->scratch;
    for (int i = 0; ok && i < t->units; i++) {
        unit *u = &t->unit[i];

        ok = allocate_unit(t, u);
        widest = larger(widest, larger(u->shape[2], larger(u->w.channels, u->w.outputs)));
        if (scratch_needed(u) > t->scratch_size)
            t->scratch_size = scratch_needed(u);
    }
    t->zeros = floats((size_t)widest);
    for (int i = 0; ok && i < t->options.threads * SCRATCHES; i++)
        ok = (t->scratch[i] = floats(t->scratch_size)) != NULL;
    if (!ok || !t->zeros)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY,
                             "no memory to train with batches of %d; choose smaller ones",
                             t->options.batch);
    return PTQ_OK;
}

static void free_unit(unit *u) {
    float *own[] = {u->y,   u->dy,    u->t.scale, u->t.shift,  u->t.a,         u->t.b,
                    u->t.d, u->pivot, u->forward, u->backward, u->packed_bias, u->partial};

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        free(own[i]);
    free(u->sum);
    free(u->square);
    free(u->inverse);
    free(u->step_sum);
    free(u->partial_bias);
    free(u->rounded);
}

void trainer_free(trainer *t) {
    if (!t)
        return;
    pool_stop(&t->workers);
    for (int i = 0; t->unit && i < t->units; i++)
        free_unit(&t->unit[i]);
    for (int i = 0; t->scratch && i < t->options.threads * SCRATCHES; i++)
        free(t->scratch[i]);
    free(t->scratch);
    free(t->unit);
    free(t->unit_of_node);
    free(t->param);
    free(t->state);
    free(t->gradient);
    free(t->zeros);
    free(t->label);
    free(t->loss);
    free(t->correct);
    free(t);
}

/* With folded batch norm, weights of different layers differ in size by orders of magnitude; one
   learning rate suits all if it counts relative to the tensor's root mean square (Shazeer and Stern
   2018, https://arxiv.org/abs/1804.04235, 8). Logarithms are relative already. */
static void set_rate(trainer *t, trainer_param *p) {
    double sum = 0;

    p->rate = p->param < PTQ_PARAM_COUNT ? 1 : 0.1f;
    if (t->origin == t->model || p->param >= PTQ_PARAM_COUNT)
        return;
    for (size_t i = p->offset; i < p->offset + p->count; i++)
        sum += (double)t->state[i] * (double)t->state[i];
    p->rate = sum > 0 ? (float)sqrt(sum / (double)p->count) : 1e-3f;
}

static void import_steps(trainer *t, const trainer_param *p) {
    const ptq_node *node = &t->model->node[p->node];
    float *to = t->state + p->offset;

    if (p->param == TRAINER_WEIGHT_STEP)
        for (size_t k = 0; k < p->count; k++)
            to[k] = (float)log((double)node->param[PTQ_PARAM_WEIGHT].scale[k]);
    else
        *to = (float)log((double)(p->param == TRAINER_STEP ? node->q.scale : node->mid.scale));
}

static void import_state(trainer *t) {
    for (int i = 0; i < t->params; i++) {
        trainer_param *p = &t->param[i];
        const ptq_tensor *from;

        if (p->param >= PTQ_PARAM_COUNT) {
            import_steps(t, p);
        } else {
            from = &origin_of(t, p->node)->param[p->param];
            for (size_t k = 0; k < p->count; k++)
                t->state[p->offset + k] = ptq_tensor_number(from, k);
        }
        set_rate(t, p);
    }
}

static ptq_status prepare(trainer *t, ptq_error *err) {
    size_t nodes = (size_t)t->model->nodes;
    ptq_status status;

    t->kernel = kernels_find(t->options.isa);
    if (!t->kernel)
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "no kernels '%s' for training on this processor;"
                             " there are plain, avx2, avx512",
                             t->options.isa);
    t->unit = calloc(2 * nodes, sizeof *t->unit);
    t->unit_of_node = calloc(nodes, sizeof *t->unit_of_node);
    t->param = calloc(TRAINER_PARAM_COUNT * nodes, sizeof *t->param);
    if (!t->unit || !t->unit_of_node || !t->param)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for a graph of %zu nodes", nodes);
    status = compile(t, err);
    if (!status)
        status = allocate(t, err);
    if (!status)
        status = pool_start(t, t->options.threads, err);
    if (!status)
        import_state(t);
    return status;
}

ptq_status trainer_create(const ptq_model *model, const ptq_model *source,
                          const trainer_options *options, trainer **out, ptq_error *err) {
    trainer *t;
    ptq_status status = ptq_model_check(model, err);

    if (status)
        return status;
    if (options->batch < 1 || options->threads < 1 || options->threads > 1024)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "batch %d and threads %d must be at least 1, threads at most 1024",
                             options->batch, options->threads);
    t = calloc(1, sizeof *t);
    if (!t)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for the trainer");
    t->model = model;
    t->origin = source ? source : model;
    t->options = *options;
    status = prepare(t, err);
    if (status)
        trainer_free(t);
    else
        *out = t;
    return status;
}

size_t trainer_size(const trainer *t) { return t->size; }

float *trainer_state(trainer *t) { return t->state; }

const float *trainer_gradient(const trainer *t) { return t->gradient; }

const trainer_param *trainer_params(const trainer *t, int *count) {
    *count = t->params;
    return t->param;
}

int trainer_classes(const trainer *t) { return t->unit[t->logits].shape[2]; }

/* ---- Fake quantization ---- */

/* Codes less the zero point. */
typedef struct code_span {
    float low, high;
} code_span;

static code_span span_of(ptq_type type, int bits, int32_t zero_point) {
    int32_t low, high;
    code_span span;

    ptq_code_range(type, bits, &low, &high);
    span.low = (float)(low - zero_point);
    span.high = (float)(high - zero_point);
    return span;
}

/* LSQ scales the gradient to a step down by the root of how many values share it and of its largest
   code (Esser et al. 2020, 2.2). Which end that is depends on the zero point: the other may be
   0. */
static double share_of_step(size_t values, code_span span) {
    double most = (double)(-span.low > span.high ? -span.low : span.high);

    return 1 / sqrt((double)values * most);
}

static float step_of(float logarithm) { return (float)exp((double)logarithm); }

static float clamped(float v, code_span span) {
    return v < span.low ? span.low : v > span.high ? span.high : v;
}

/* Step size of output channel o. */
static float weight_step(const unit *u, const float *state, int o) {
    return step_of(
        state[u->weight_step + (u->node->param[PTQ_PARAM_WEIGHT].scales > 1 ? (size_t)o : 0)]);
}

static float round_weight(float w, float step, code_span span) {
    return rintf(clamped(w / step, span));
}

static code_span weight_span(const unit *u) {
    const ptq_tensor *weight = &u->node->param[PTQ_PARAM_WEIGHT];

    return span_of(weight->type, weight->bits, weight->zero_point);
}

/* The weights as the integers will be, in u->rounded. */
static void round_weights(trainer *t, unit *u) {
    size_t each = (size_t)u->node->param[PTQ_PARAM_WEIGHT].dim[0];

    each = u->weights / each;
    for (int o = 0; o < u->w.outputs; o++) {
        float step = weight_step(u, t->state, o);

        for (size_t k = (size_t)o * each; k < ((size_t)o + 1) * each; k++)
            u->rounded[k] = step * round_weight(t->state[u->weight + k], step, weight_span(u));
    }
}

/* From the gradient to the rounded weights, in place, to those of real weights and steps. */
static void unround_gradient(trainer *t, const unit *u) {
    size_t each = u->weights / (size_t)u->w.outputs;
    code_span span = weight_span(u);
    int scales = u->node->param[PTQ_PARAM_WEIGHT].scales;
    double share = share_of_step(u->weights / (size_t)scales, span);

    memset(t->gradient + u->weight_step, 0, (size_t)scales * sizeof(float));
    for (int o = 0; o < u->w.outputs; o++) {
        float step = weight_step(u, t->state, o);
        double sum = 0;

        for (size_t k = (size_t)o * each; k < ((size_t)o + 1) * each; k++) {
            float v = t->state[u->weight + k] / step, *g = &t->gradient[u->weight + k];
            int inside = v > span.low && v < span.high;

            sum += (double)*g * (double)(rintf(clamped(v, span)) - (inside ? v : 0));
            *g = inside ? *g : 0;
        }
        t->gradient[u->weight_step + (scales > 1 ? (size_t)o : 0)] +=
            (float)(sum * (double)step * share);
    }
}

/* Step size of what the unit reads: its input's own, or that of the codes that it passes on. */
static double input_step(const trainer *t, const unit *u, const float *state) {
    const unit *in = &t->unit[u->input[0]];

    while (!in->q && in->op != PTQ_OP_INPUT)
        in = &t->unit[in->input[0]];
    return in->q ? (double)step_of(state[in->step]) : (double)in->node->q.scale;
}

/* The bias in units of input step times weight step, as it is added to integer products. Those are
   coarse at few bits, so that training has to know. */
static double round_bias(const trainer *t, const unit *u, const float *state, int o, double *step) {
    *step = input_step(t, u, state) * (double)weight_step(u, state, o);
    return rint((double)state[u->bias + (size_t)o] / *step);
}

static float bias_of(const trainer *t, const unit *u, int o) {
    double step, rounded;

    if (!u->rounded)
        return t->state[u->bias + (size_t)o];
    rounded = round_bias(t, u, t->state, o, &step);
    return (float)(rounded * step);
}

/* Clamp and rounding of the value, with an activation that comes before. */
static void set_codes(const trainer *t, unit *u) {
    code_span span = span_of(u->q->type, u->q->bits, u->q->zero_point);
    float step = step_of(t->state[u->step]);

    u->t.step = step;
    u->t.low = u->act && span.low < 0 ? 0 : span.low;
    u->t.high = span.high;
    if (u->act == PTQ_ACTIVATION_RELU6 && rintf(6 / step) < span.high)
        u->t.high = rintf(6 / step);
    for (int c = 0; c < u->shape[2]; c++) {
        u->t.scale[c] = 1 / step;
        u->t.a[c] = 1;
    }
}

static void collect_step(trainer *t, const unit *u) {
    code_span span = span_of(u->q->type, u->q->bits, u->q->zero_point);
    double sum = 0, step = (double)u->t.step;

    for (int s = 0; s < TRAINER_SHARDS; s++)
        sum += u->step_sum[s];
    t->gradient[u->step] = (float)(sum * step * share_of_step(u->size, span));
}

/* ---- Weights between the model's order and the kernels' ---- */

/* Position of weight [o][i][y][x], O,I/g,H,W. */
static size_t weight_at(const window *w, int o, int i, int y, int x) {
    return (((size_t)o * (size_t)(w->channels / w->groups) + (size_t)i) * (size_t)w->kernel[0] +
            (size_t)y) *
               (size_t)w->kernel[1] +
           (size_t)x;
}

/* Calls for every weight of a group the same position in packed order: [y][x][i][o]. */
static void pack_forward(const window *w, const float *from, int group, float *to) {
    int inputs = w->channels / w->groups, outputs = w->outputs / w->groups;

    for (int y = 0; y < w->kernel[0]; y++)
        for (int x = 0; x < w->kernel[1]; x++)
            for (int i = 0; i < inputs; i++, to += KERNEL_PADDED(outputs))
                for (int o = 0; o < outputs; o++)
                    to[o] = from[weight_at(w, group * outputs + o, i, y, x)];
}

static float *pack_phase(const window *w, const float *from, int group, int py, int px, float *to) {
    int inputs = w->channels / w->groups, outputs = w->outputs / w->groups;
    int rows = phase_of(w, 0, py).taps, columns = phase_of(w, 1, px).taps;

    for (int a = rows - 1; a >= 0; a--)
        for (int b = columns - 1; b >= 0; b--)
            for (int o = 0; o < outputs; o++, to += KERNEL_PADDED(inputs))
                for (int i = 0; i < inputs; i++)
                    to[i] = from[weight_at(w, group * outputs + o, i, py + a * w->stride[0],
                                           px + b * w->stride[1])];
    return to;
}

static void pack_backward(const window *w, const float *from, int group, float *to) {
    for (int y = 0; y < w->stride[0]; y++)
        for (int x = 0; x < w->stride[1]; x++)
            to = pack_phase(w, from, group, y, x, to);
}

static void pack_unit(trainer *t, int task, int thread) {
    unit *u = &t->unit[task];
    const window *w = &u->w;
    const float *weight;
    int groups = w->groups, outputs;

    (void)thread;
    if (u->q)
        set_codes(t, u);
    if (!has_weights(u))
        return;
    outputs = w->outputs / groups;
    weight = u->rounded ? u->rounded : t->state + u->weight;
    if (u->rounded)
        round_weights(t, u);
    for (int g = 0; g < groups; g++) {
        pack_forward(w, weight, g, u->forward + u->packed / (size_t)groups * (size_t)g);
        pack_backward(w, weight, g, u->backward + u->packed_back / (size_t)groups * (size_t)g);
        for (int o = 0; u->bias != NONE && o < outputs; o++)
            u->packed_bias[g * KERNEL_PADDED(outputs) + o] = bias_of(t, u, g * outputs + o);
    }
}

static float sum_shards(const unit *u, size_t at) {
    double sum = 0;

    for (size_t s = 0; s < TRAINER_SHARDS; s++)
        sum += (double)u->partial[s * u->packed + at];
    return (float)sum;
}

static void unpack_weights(const unit *u, float *to) {
    const window *w = &u->w;
    int inputs = w->channels / w->groups, outputs = w->outputs / w->groups;
    size_t at = 0;

    for (int g = 0; g < w->groups; g++)
        for (int y = 0; y < w->kernel[0]; y++)
            for (int x = 0; x < w->kernel[1]; x++)
                for (int i = 0; i < inputs; i++, at += (size_t)KERNEL_PADDED(outputs))
                    for (int o = 0; o < outputs; o++)
                        to[weight_at(w, g * outputs + o, i, y, x)] = sum_shards(u, at + (size_t)o);
}

static void collect_unit(trainer *t, int task, int thread) {
    const unit *u = &t->unit[task];

    (void)thread;
    if (u->q)
        collect_step(t, u);
    if (!has_weights(u))
        return;
    unpack_weights(u, t->gradient + u->weight);
    if (u->rounded)
        unround_gradient(t, u);
    for (int o = 0; u->bias_trained && o < u->w.outputs; o++) {
        double sum = 0;

        for (int s = 0; s < TRAINER_SHARDS; s++)
            sum += u->partial_bias[s * u->w.outputs + o];
        t->gradient[u->bias + (size_t)o] = (float)sum;
    }
}

/* ---- What all operators share ---- */

static int shard_begin(const trainer *t, int shard) {
    return (int)((int64_t)t->images * shard / TRAINER_SHARDS);
}

static float *image_of(const unit *u, float *batch, int image) {
    return batch + (size_t)image * u->size;
}

/* The value of an image, batch norm and activation included. */
static void read_value(const trainer *t, const unit *u, int image, float *out) {
    t->kernel->value(&u->t, image_of(u, u->y, image), u->shape[0] * u->shape[1], u->shape[2], out);
}

/* The gradient that reaches the stored result. */
static void read_gradient(const trainer *t, const unit *u, int image, float *out) {
    t->kernel->gradient(&u->t, image_of(u, u->y, image), image_of(u, u->dy, image),
                        u->shape[0] * u->shape[1], u->shape[2], out);
}

static int needs_gradient(const trainer *t, const unit *u, int slot) {
    return t->unit[u->input[slot]].op != PTQ_OP_INPUT;
}

/* What batch norm and step sizes need of an image's complete gradient, while it is in the cache. */
static void sum_gradient(const trainer *t, const unit *u, int image, int shard) {
    const float *y = image_of(u, u->y, image), *dy = image_of(u, u->dy, image);
    size_t at = (size_t)shard * channels_of(u);
    int pixels = u->shape[0] * u->shape[1];

    if (u->norm)
        t->kernel->gradient_moments(&u->t, y, dy, u->pivot, pixels, u->shape[2], u->sum + at,
                                    u->square + at);
    if (u->q)
        u->step_sum[shard] += t->kernel->step_gradient(&u->t, y, dy, pixels, u->shape[2]);
}

/* After the last contribution to an input's gradient. */
static void finish_gradient(const trainer *t, const unit *u, int slot, int image, int shard) {
    if (u->last[slot])
        sum_gradient(t, &t->unit[u->input[slot]], image, shard);
}

/* ---- Convolution and dense ---- */

/* Copies a block of rows x columns x channels between buffers; a negative channel count is
   impossible here, a smaller one takes a group out. */
static void copy_group(const float *from, size_t from_step, float *to, size_t to_step, int pixels,
                       int channels) {
    for (int p = 0; p < pixels; p++)
        memcpy(to + (size_t)p * to_step, from + (size_t)p * from_step,
               (size_t)channels * sizeof *to);
}

/* The padded value of the input: [group][row][column][channel of the group]. The border stays zero
   from the beginning of the task. */
static void read_padded(const trainer *t, const unit *u, int image, int thread, float *to) {
    const unit *in = &t->unit[u->input[0]];
    const window *w = &u->w;
    int channels = w->channels / w->groups;
    size_t row = (size_t)w->width * (size_t)w->channels, pitch, plane;
    const float *y = image_of(in, in->y, image);
    float *plain = scratch(t, thread, IMAGE);

    if (u->op == PTQ_OP_DENSE) {
        read_value(t, in, image, to);
        return;
    }
    pitch = (size_t)u->padded[1] * (size_t)channels;
    plane = pitch * (size_t)u->padded[0];
    to += (size_t)w->pad[0] * pitch + (size_t)w->pad[1] * (size_t)channels;
    if (w->groups == 1) {
        for (int i = 0; i < w->height; i++)
            t->kernel->value(&in->t, y + (size_t)i * row, w->width, channels,
                             to + (size_t)i * pitch);
        return;
    }
    read_value(t, in, image, plain);
    for (int g = 0; g < w->groups; g++)
        for (int i = 0; i < w->height; i++)
            copy_group(plain + (size_t)i * row + (size_t)(g * channels), (size_t)w->channels,
                       to + (size_t)g * plane + (size_t)i * pitch, (size_t)channels, w->width,
                       channels);
}

/* The padded gradient of the result, in the same layout. */
static void read_padded_gradient(const trainer *t, const unit *u, int image, int thread,
                                 float *to) {
    const window *w = &u->w;
    int outputs = w->outputs / w->groups;
    size_t row = (size_t)w->out_width * (size_t)w->outputs;
    size_t pitch = (size_t)u->grown[1] * (size_t)outputs, plane = pitch * (size_t)u->grown[0];
    const float *y = image_of(u, u->y, image), *dy = image_of(u, u->dy, image);
    float *plain = scratch(t, thread, IMAGE);

    to += (size_t)u->before[0] * pitch + (size_t)(u->before[1] * outputs);
    if (w->groups == 1) {
        for (int i = 0; i < w->out_height; i++)
            t->kernel->gradient(&u->t, y + (size_t)i * row, dy + (size_t)i * row, w->out_width,
                                outputs, to + (size_t)i * pitch);
        return;
    }
    read_gradient(t, u, image, plain);
    for (int g = 0; g < w->groups; g++)
        for (int i = 0; i < w->out_height; i++)
            copy_group(plain + (size_t)i * row + (size_t)(g * outputs), (size_t)w->outputs,
                       to + (size_t)g * plane + (size_t)i * pitch, (size_t)outputs, w->out_width,
                       outputs);
}

static void forward_group(const trainer *t, const unit *u, int group, const float *source,
                          float *y) {
    const window *w = &u->w;
    int channels = w->channels / w->groups, outputs = w->outputs / w->groups;
    conv_row r;

    r.pitch = (size_t)u->padded[1] * (size_t)channels;
    r.step = (size_t)(w->stride[1] * channels);
    r.rows = w->kernel[0];
    r.run = w->kernel[1] * channels;
    r.weight = u->forward + u->packed / (size_t)w->groups * (size_t)group;
    r.bias = u->packed_bias + group * KERNEL_PADDED(outputs);
    r.dest_step = (size_t)w->outputs;
    r.count = w->out_width;
    r.outputs = outputs;
    r.accumulate = 0;
    source += r.pitch * (size_t)u->padded[0] * (size_t)group;
    for (int i = 0; i < w->out_height; i++) {
        r.source = source + (size_t)(i * w->stride[0]) * r.pitch;
        r.dest = y + (size_t)(i * w->out_width) * r.dest_step + group * outputs;
        t->kernel->conv(&r);
    }
}

static void forward_weights(const trainer *t, const unit *u, int image, int thread) {
    float *source = scratch(t, thread, SOURCE);

    read_padded(t, u, image, thread, source);
    for (int g = 0; g < u->w.groups; g++)
        forward_group(t, u, g, source, image_of(u, u->y, image));
}

/* dx for one phase of one group, all its rows. */
static void backward_phase(const trainer *t, const unit *u, int group, int py, int px,
                           const float *weight, const float *gradient, float *dx) {
    const window *w = &u->w;
    int channels = w->channels / w->groups, outputs = w->outputs / w->groups;
    phase down = phase_of(w, 0, py), across = phase_of(w, 1, px);
    int x = across.first * w->stride[1] + px - w->pad[1];
    conv_row r;

    r.pitch = (size_t)u->grown[1] * (size_t)outputs;
    r.step = (size_t)outputs;
    r.rows = across.taps ? down.taps : 0;
    r.run = across.taps * outputs;
    r.weight = weight;
    r.bias = t->zeros;
    r.dest_step = (size_t)(w->stride[1] * w->channels);
    r.count = across.count;
    r.outputs = channels;
    r.accumulate = u->accumulate[0];
    gradient += r.pitch * (size_t)u->grown[0] * (size_t)group;
    if (r.rows && r.count)
        gradient += (u->before[1] + across.first - (across.taps - 1)) * outputs;
    for (int m = down.first; m < down.first + down.count; m++) {
        int y = m * w->stride[0] + py - w->pad[0];

        r.source = gradient;
        if (r.rows)
            r.source += (size_t)(u->before[0] + m - (down.taps - 1)) * r.pitch;
        r.dest = dx + ((size_t)y * (size_t)w->width + (size_t)x) * (size_t)w->channels +
                 group * channels;
        t->kernel->conv(&r);
    }
}

static void backward_inputs(const trainer *t, const unit *u, int group, const float *gradient,
                            float *dx) {
    const window *w = &u->w;
    const float *weight = u->backward + u->packed_back / (size_t)w->groups * (size_t)group;
    size_t across = (size_t)KERNEL_PADDED(w->channels / w->groups);

    for (int y = 0; y < w->stride[0]; y++) {
        for (int x = 0; x < w->stride[1]; x++) {
            backward_phase(t, u, group, y, x, weight, gradient, dx);
            weight += (size_t)(phase_of(w, 0, y).taps * phase_of(w, 1, x).taps) *
                      (size_t)(w->outputs / w->groups) * across;
        }
    }
}

static void backward_group(const trainer *t, const unit *u, int group, const float *source,
                           const float *gradient, int shard) {
    const window *w = &u->w;
    int channels = w->channels / w->groups, outputs = w->outputs / w->groups;
    conv_gradient g;

    g.pitch = (size_t)u->padded[1] * (size_t)channels;
    g.step = (size_t)(w->stride[1] * channels);
    g.source_down = g.pitch * (size_t)w->stride[0];
    g.source = source + g.pitch * (size_t)u->padded[0] * (size_t)group;
    g.rows = w->kernel[0];
    g.run = w->kernel[1] * channels;
    g.gradient_step = (size_t)outputs;
    g.gradient_down = (size_t)u->grown[1] * (size_t)outputs;
    g.gradient = gradient + g.gradient_down * (size_t)(u->grown[0] * group + u->before[0]) +
                 u->before[1] * outputs;
    g.width = w->out_width;
    g.height = w->out_height;
    g.outputs = outputs;
    g.weight =
        u->partial + (size_t)shard * u->packed + u->packed / (size_t)w->groups * (size_t)group;
    t->kernel->conv_weights(&g);
}

static void add_bias_gradient(const unit *u, const float *gradient, int shard) {
    const window *w = &u->w;
    int outputs = w->outputs / w->groups;
    size_t pitch = (size_t)(u->grown[1] * outputs);
    double *sum = u->partial_bias + shard * w->outputs;

    for (int g = 0; g < w->groups; g++)
        for (int y = 0; y < w->out_height; y++)
            for (int x = 0; x < w->out_width; x++)
                for (int o = 0; o < outputs; o++)
                    sum[g * outputs + o] +=
                        (double)gradient[(size_t)(u->grown[0] * g + u->before[0] + y) * pitch +
                                         (size_t)((u->before[1] + x) * outputs + o)];
}

static void backward_weights(const trainer *t, const unit *u, int image, int shard, int thread) {
    const unit *in = &t->unit[u->input[0]];
    float *source = scratch(t, thread, SOURCE), *gradient = scratch(t, thread, GRADIENT);

    read_padded(t, u, image, thread, source);
    read_padded_gradient(t, u, image, thread, gradient);
    for (int g = 0; g < u->w.groups; g++)
        backward_group(t, u, g, source, gradient, shard);
    if (u->bias_trained)
        add_bias_gradient(u, gradient, shard);
    for (int g = 0; needs_gradient(t, u, 0) && g < u->w.groups; g++)
        backward_inputs(t, u, g, gradient, image_of(in, in->dy, image));
}

/* ---- Pools ---- */

typedef struct taps {
    int y0, y1, x0, x1; /* of the input, inside it */
} taps;

static taps taps_of(const window *w, int y, int x) {
    taps at;

    at.y0 = y * w->stride[0] - w->pad[0];
    at.x0 = x * w->stride[1] - w->pad[1];
    at.y1 = at.y0 + w->kernel[0] < w->height ? at.y0 + w->kernel[0] : w->height;
    at.x1 = at.x0 + w->kernel[1] < w->width ? at.x0 + w->kernel[1] : w->width;
    at.y0 = larger(at.y0, 0);
    at.x0 = larger(at.x0, 0);
    return at;
}

static size_t pixel_at(const window *w, int y, int x, int c) {
    return ((size_t)y * (size_t)w->width + (size_t)x) * (size_t)w->channels + (size_t)c;
}

static size_t largest_tap(const window *w, taps at, int c, const float *value) {
    size_t best = pixel_at(w, at.y0, at.x0, c);

    for (int y = at.y0; y < at.y1; y++)
        for (int x = at.x0; x < at.x1; x++)
            if (value[pixel_at(w, y, x, c)] > value[best])
                best = pixel_at(w, y, x, c);
    return best;
}

static float average_share(const unit *u, taps at) {
    int area =
        u->node->include_pad ? u->w.kernel[0] * u->w.kernel[1] : (at.y1 - at.y0) * (at.x1 - at.x0);

    return 1 / (float)area;
}

static float pool_value(const unit *u, taps at, int c, const float *value) {
    float sum = 0;

    if (u->op == PTQ_OP_MAX_POOL)
        return value[largest_tap(&u->w, at, c, value)];
    for (int y = at.y0; y < at.y1; y++)
        for (int x = at.x0; x < at.x1; x++)
            sum += value[pixel_at(&u->w, y, x, c)];
    return sum * average_share(u, at);
}

static void pool_gradient(const unit *u, taps at, int c, const float *value, float g, float *dx) {
    float share;

    if (u->op == PTQ_OP_MAX_POOL) {
        dx[largest_tap(&u->w, at, c, value)] += g;
        return;
    }
    share = g * average_share(u, at);
    for (int y = at.y0; y < at.y1; y++)
        for (int x = at.x0; x < at.x1; x++)
            dx[pixel_at(&u->w, y, x, c)] += share;
}

static void forward_pool(const trainer *t, const unit *u, int image, int thread) {
    float *value = scratch(t, thread, SOURCE), *y = image_of(u, u->y, image);

    read_value(t, &t->unit[u->input[0]], image, value);
    for (int i = 0; i < u->shape[0]; i++)
        for (int k = 0; k < u->shape[1]; k++)
            for (int c = 0; c < u->shape[2]; c++)
                *y++ = pool_value(u, taps_of(&u->w, i, k), c, value);
}

static void backward_pool(const trainer *t, const unit *u, int image, int thread) {
    const unit *in = &t->unit[u->input[0]];
    float *value = scratch(t, thread, SOURCE), *gradient = scratch(t, thread, GRADIENT);
    float *dx = image_of(in, in->dy, image);

    read_value(t, in, image, value);
    read_gradient(t, u, image, gradient);
    if (!u->accumulate[0])
        memset(dx, 0, in->size * sizeof *dx);
    for (int i = 0; i < u->shape[0]; i++)
        for (int k = 0; k < u->shape[1]; k++)
            for (int c = 0; c < u->shape[2]; c++)
                pool_gradient(u, taps_of(&u->w, i, k), c, value, *gradient++, dx);
}

static void forward_global(const trainer *t, const unit *u, int image, int thread) {
    const unit *in = &t->unit[u->input[0]];
    float *value = scratch(t, thread, SOURCE), *y = image_of(u, u->y, image);
    int pixels = in->shape[0] * in->shape[1], channels = u->shape[2];

    read_value(t, in, image, value);
    memset(y, 0, u->size * sizeof *y);
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            y[c] += value[p * channels + c];
    for (int c = 0; c < channels; c++)
        y[c] /= (float)pixels;
}

static void backward_global(const trainer *t, const unit *u, int image, int thread) {
    const unit *in = &t->unit[u->input[0]];
    float *gradient = scratch(t, thread, GRADIENT), *dx = image_of(in, in->dy, image);
    int pixels = in->shape[0] * in->shape[1], channels = u->shape[2];

    read_gradient(t, u, image, gradient);
    for (int p = 0; p < pixels; p++) {
        for (int c = 0; c < channels; c++, dx++) {
            float g = gradient[c] / (float)pixels;

            *dx = u->accumulate[0] ? *dx + g : g;
        }
    }
}

/* ---- Addition and copy ---- */

static void forward_sum(const trainer *t, const unit *u, int image) {
    float *y = image_of(u, u->y, image);

    read_value(t, &t->unit[u->input[0]], image, y);
    if (u->input[1] >= 0) {
        const unit *in = &t->unit[u->input[1]];

        t->kernel->add_value(&in->t, image_of(in, in->y, image), in->shape[0] * in->shape[1],
                             in->shape[2], y);
    }
}

static void backward_sum(const trainer *t, const unit *u, int slot, int image, int thread) {
    const unit *in = &t->unit[u->input[slot]];
    float *dx = image_of(in, in->dy, image), *gradient = scratch(t, thread, GRADIENT);

    if (!u->accumulate[slot]) {
        read_gradient(t, u, image, dx);
        return;
    }
    read_gradient(t, u, image, gradient);
    for (size_t i = 0; i < in->size; i++)
        dx[i] += gradient[i];
}

/* ---- Batch norm ---- */

static double over_shards(const double *sum, int c, int channels) {
    double total = 0;

    for (int s = 0; s < TRAINER_SHARDS; s++)
        total += sum[s * channels + c];
    return total;
}

static void set_norm(const trainer *t, unit *u, int c, double mean, double variance) {
    double scale;

    u->inverse[c] = 1 / sqrt(variance + (double)u->norm->epsilon);
    scale = (double)t->state[u->gamma + (size_t)c] * u->inverse[c];
    u->t.scale[c] = u->t.a[c] = (float)scale;
    u->t.shift[c] = (float)((double)t->state[u->beta + (size_t)c] - mean * scale);
}

static double norm_count(const trainer *t, const unit *u) {
    return (double)t->images * u->shape[0] * u->shape[1];
}

/* Sums are taken around the running mean: a variance as a difference of two large numbers would
   lose its digits. */
static void finish_norm(trainer *t, unit *u) {
    double n = norm_count(t, u), share = (double)t->options.momentum;

    for (int c = 0; c < u->shape[2]; c++) {
        float *mean = &t->state[u->mean + (size_t)c],
              *variance = &t->state[u->variance + (size_t)c];
        double off = over_shards(u->sum, c, u->shape[2]) / n;
        double spread = over_shards(u->square, c, u->shape[2]) / n - off * off;

        if (t->options.frozen_norm) {
            set_norm(t, u, c, (double)*mean, (double)*variance);
            continue;
        }
        spread = spread > 0 ? spread : 0;
        set_norm(t, u, c, (double)u->pivot[c] + off, spread);
        *mean = (float)((double)*mean + share * off);
        if (n > 1)
            *variance = (float)((1 - share) * (double)*variance + share * spread * n / (n - 1));
        u->pivot[c] += (float)off;
    }
}

/* The gradient through the batch's own mean and variance (Ioffe and Szegedy 2015,
   https://arxiv.org/abs/1502.03167, 3) as a function of dv and y. `pivot` now holds the mean, up to
   a rounding that the scale's own computation shares. */
static void finish_norm_gradient(trainer *t, unit *u) {
    double n = norm_count(t, u);

    for (int c = 0; c < u->shape[2]; c++) {
        double a = (double)u->t.scale[c], inverse = u->inverse[c], mean = (double)u->pivot[c];
        double s = over_shards(u->sum, c, u->shape[2]);
        double product = over_shards(u->square, c, u->shape[2]);

        t->gradient[u->gamma + (size_t)c] = (float)(product * inverse);
        t->gradient[u->beta + (size_t)c] = (float)s;
        if (t->options.frozen_norm)
            continue;
        u->t.b[c] = (float)(-a * inverse * inverse * product / n);
        u->t.d[c] = (float)(-a * s / n + a * inverse * inverse * mean * product / n);
    }
}

/* ---- One step ---- */

static void fill_shard(trainer *t, int shard, int thread) {
    unit *u = &t->unit[0];

    (void)thread;
    for (int i = shard_begin(t, shard); i < shard_begin(t, shard + 1); i++)
        t->source.fill(t->source.user, i, image_of(u, u->y, i), &t->label[i]);
}

static void forward_image(const trainer *t, const unit *u, int image, int thread) {
    switch (u->op) {
    case PTQ_OP_CONV2D:
    case PTQ_OP_DENSE:
        forward_weights(t, u, image, thread);
        break;
    case PTQ_OP_MAX_POOL:
    case PTQ_OP_AVG_POOL:
        forward_pool(t, u, image, thread);
        break;
    case PTQ_OP_GLOBAL_AVG_POOL:
        forward_global(t, u, image, thread);
        break;
    default:
        forward_sum(t, u, image);
    }
}

/* Borders that convolution relies on. */
static void clear_scratch(const trainer *t, const unit *u, int thread, int backward) {
    const window *w = &u->w;
    size_t n = (size_t)u->padded[0] * (size_t)u->padded[1] * (size_t)w->channels;

    if (!has_weights(u))
        return;
    memset(scratch(t, thread, SOURCE), 0, n * sizeof(float));
    n = (size_t)u->grown[0] * (size_t)u->grown[1] * (size_t)w->outputs;
    if (backward)
        memset(scratch(t, thread, GRADIENT), 0, n * sizeof(float));
}

static void forward_shard(trainer *t, int shard, int thread) {
    unit *u = &t->unit[t->current];
    size_t c = channels_of(u);
    double *sum = u->sum + (size_t)shard * c, *square = u->square + (size_t)shard * c;

    clear_scratch(t, u, thread, 0);
    memset(sum, 0, c * sizeof *sum);
    memset(square, 0, c * sizeof *square);
    for (int i = shard_begin(t, shard); i < shard_begin(t, shard + 1); i++) {
        forward_image(t, u, i, thread);
        if (u->norm && !t->options.frozen_norm)
            t->kernel->moments(image_of(u, u->y, i), u->pivot, u->shape[0] * u->shape[1],
                               u->shape[2], sum, square);
    }
}

static void forward(trainer *t, trainer_source source, int images) {
    t->images = images;
    t->source = source;
    run_tasks(t, pack_unit, t->units);
    run_tasks(t, fill_shard, TRAINER_SHARDS);
    for (int i = 1; i < t->units; i++) {
        unit *u = &t->unit[i];

        t->current = i;
        if (u->norm)
            memcpy(u->pivot, t->state + u->mean, channels_of(u) * sizeof *u->pivot);
        run_tasks(t, forward_shard, TRAINER_SHARDS);
        if (u->norm)
            finish_norm(t, u);
    }
}

/* -sum over classes of target log(softmax), and its gradient softmax - target, over images. */
static double image_loss(const float *logits, int classes, int label, float smoothing, int images,
                         float *gradient) {
    double sum = 0, loss = 0, top = (double)logits[ptq_argmax(logits, classes)];

    for (int c = 0; c < classes; c++)
        sum += exp((double)logits[c] - top);
    for (int c = 0; c < classes; c++) {
        double log_p = (double)logits[c] - top - log(sum);
        double target = (double)smoothing / classes + (c == label ? 1 - (double)smoothing : 0);

        loss -= target * log_p;
        gradient[c] = (float)((exp(log_p) - target) / images);
    }
    return loss;
}

static void loss_shard(trainer *t, int shard, int thread) {
    const unit *u = &t->unit[t->logits];
    int classes = u->shape[2];
    float *logits = scratch(t, thread, SOURCE);

    t->loss[shard] = 0;
    t->correct[shard] = 0;
    for (int i = shard_begin(t, shard); i < shard_begin(t, shard + 1); i++) {
        read_value(t, u, i, logits);
        t->loss[shard] += image_loss(logits, classes, t->label[i], t->smoothing, t->images,
                                     image_of(u, u->dy, i));
        t->correct[shard] += ptq_argmax(logits, classes) == t->label[i];
        sum_gradient(t, u, i, shard);
    }
}

static void backward_image(const trainer *t, const unit *u, int image, int shard, int thread) {
    switch (u->op) {
    case PTQ_OP_CONV2D:
    case PTQ_OP_DENSE:
        backward_weights(t, u, image, shard, thread);
        break;
    case PTQ_OP_MAX_POOL:
    case PTQ_OP_AVG_POOL:
        backward_pool(t, u, image, thread);
        break;
    case PTQ_OP_GLOBAL_AVG_POOL:
        backward_global(t, u, image, thread);
        break;
    default:
        for (int k = 0; k < 2; k++)
            if (u->input[k] >= 0 && needs_gradient(t, u, k))
                backward_sum(t, u, k, image, thread);
    }
}

static void backward_shard(trainer *t, int shard, int thread) {
    const unit *u = &t->unit[t->current];

    clear_scratch(t, u, thread, 1);
    if (has_weights(u)) {
        memset(u->partial + (size_t)shard * u->packed, 0, u->packed * sizeof(float));
        memset(u->partial_bias + shard * u->w.outputs, 0, (size_t)u->w.outputs * sizeof(double));
    }
    for (int i = shard_begin(t, shard); i < shard_begin(t, shard + 1); i++) {
        backward_image(t, u, i, shard, thread);
        for (int k = 0; k < 2; k++)
            if (u->input[k] >= 0 && needs_gradient(t, u, k))
                finish_gradient(t, u, k, i, shard);
    }
}

/* Where this unit's gradients go: into an empty dy or on top of what others wrote. */
static void plan_backward(trainer *t, unit *u) {
    for (int k = 0; k < 2; k++) {
        unit *in;

        if (u->input[k] < 0)
            continue;
        in = &t->unit[u->input[k]];
        u->accumulate[k] = in->written > 0;
        in->written++;
        u->last[k] = in->written == in->readers;
    }
}

static void backward(trainer *t) {
    for (int i = 0; i < t->units; i++) {
        unit *u = &t->unit[i];

        u->written = 0;
        memset(u->sum, 0, channels_of(u) * TRAINER_SHARDS * sizeof *u->sum);
        memset(u->square, 0, channels_of(u) * TRAINER_SHARDS * sizeof *u->square);
        memset(u->step_sum, 0, TRAINER_SHARDS * sizeof *u->step_sum);
    }
    run_tasks(t, loss_shard, TRAINER_SHARDS);
    for (int i = t->units - 1; i > 0; i--) {
        unit *u = &t->unit[i];

        t->current = i;
        if (u->norm)
            finish_norm_gradient(t, u);
        plan_backward(t, u);
        run_tasks(t, backward_shard, TRAINER_SHARDS);
    }
}

void trainer_step(trainer *t, trainer_source source, int images, float smoothing,
                  trainer_result *out) {
    t->smoothing = smoothing;
    forward(t, source, images);
    backward(t);
    run_tasks(t, collect_unit, t->units);
    out->loss = 0;
    out->correct = 0;
    for (int s = 0; s < TRAINER_SHARDS; s++) {
        out->loss += t->loss[s] / images;
        out->correct += t->correct[s];
    }
}

/* ---- Numbers that are none ---- */

static const char *param_title(int param) {
    static const char *const title[TRAINER_PARAM_COUNT] = {"a weight",
                                                           "a bias",
                                                           "a mean",
                                                           "a variance",
                                                           "the step size of weights",
                                                           "the step size before the addition",
                                                           "the step size of the result"};

    return title[param];
}

/* What the state says: step sizes must be normal numbers, as in the model file. */
static int is_sound(const trainer_param *p, float value) {
    return p->param < PTQ_PARAM_COUNT ? isfinite(value) : isnormal(step_of(value));
}

/* Of the last batch, in the order of computation: the first is the origin of all others. */
static const unit *first_overflow(const trainer *t) {
    for (int i = 0; i < t->units; i++)
        for (size_t k = 0; k < t->unit[i].size * (size_t)t->images; k++)
            if (!isfinite(t->unit[i].y[k]))
                return &t->unit[i];
    return &t->unit[t->logits];
}

ptq_status trainer_check(const trainer *t, double loss, ptq_error *err) {
    for (int i = 0; i < t->params; i++) {
        const trainer_param *p = &t->param[i];

        for (size_t k = 0; k < p->count; k++)
            if (!is_sound(p, t->state[p->offset + k]))
                return ptq_error_set(err, PTQ_BAD_NUMBER, "node %s: %s is not a number any more",
                                     t->model->node[p->node].name, param_title(p->param));
    }
    if (!isfinite(loss))
        return ptq_error_set(err, PTQ_BAD_NUMBER, "node %s: results are not finite",
                             first_overflow(t)->node->name);
    return PTQ_OK;
}

/* ---- Initialization and export ---- */

static double normal(ptq_rng *rng) {
    double u = ((double)ptq_rng_next(rng) + 1) / 4294967297.0;
    double v = (double)ptq_rng_next(rng) / 4294967296.0;

    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

void trainer_init(trainer *t, uint64_t seed) {
    for (int i = 0; i < t->params; i++) {
        const trainer_param *p = &t->param[i];
        const ptq_tensor *weight = &t->model->node[p->node].param[PTQ_PARAM_WEIGHT];
        double deviation = sqrt(2 * (double)weight->dim[0] / (double)p->count);
        ptq_rng rng;

        if (!p->decayed)
            continue;
        ptq_rng_seed(&rng, seed, (uint64_t)i);
        for (size_t k = 0; k < p->count; k++)
            t->state[p->offset + k] = (float)(deviation * normal(&rng));
    }
}

/* Codes and scales of a node's weights, and its bias in units of their product with the scale of
   the input. */
static ptq_status export_integers(const trainer *t, const unit *u, const float *state,
                                  ptq_model *model, ptq_error *err) {
    ptq_node *node = &model->node[u->node - t->model->node];
    ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT], *bias = &node->param[PTQ_PARAM_BIAS];
    size_t each = u->weights / (size_t)u->w.outputs;

    for (int o = 0; o < u->w.outputs; o++) {
        float step = weight_step(u, state, o);
        double unit_step, b = u->bias == NONE ? 0 : round_bias(t, u, state, o, &unit_step);

        weight->scale[weight->scales > 1 ? o : 0] = step;
        for (size_t k = (size_t)o * each; k < ((size_t)o + 1) * each; k++)
            ptq_tensor_set_code(weight, k,
                                weight->zero_point + (int32_t)round_weight(state[u->weight + k],
                                                                           step, weight_span(u)));
        if (!(fabs(b) < 2147483647.0))
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "node %s: the bias of channel %d does not"
                                 " fit; train with a smaller rate",
                                 node->name, o);
        if (bias->rank)
            ((int32_t *)bias->data)[o] = (int32_t)b;
    }
    return PTQ_OK;
}

/* Step sizes of results, before the nodes that read them need them. */
static void export_steps(const trainer *t, const float *state, ptq_model *model) {
    for (int i = 0; i < t->params; i++) {
        const trainer_param *p = &t->param[i];
        ptq_node *node = &model->node[p->node];

        if (p->param == TRAINER_STEP)
            node->q.scale = step_of(state[p->offset]);
        if (p->param == TRAINER_MID_STEP)
            node->mid.scale = step_of(state[p->offset]);
    }
    for (int i = 1; i < model->nodes; i++) {
        ptq_node *node = &model->node[i];

        if (node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_RELU || node->op == PTQ_OP_RELU6)
            node->q = model->node[node->input[0]].q;
    }
}

ptq_status trainer_export(const trainer *t, const float *state, ptq_model *model, ptq_error *err) {
    export_steps(t, state, model);
    for (int i = 0; i < t->params; i++) {
        const trainer_param *p = &t->param[i];
        ptq_tensor *to = p->param < PTQ_PARAM_COUNT ? &model->node[p->node].param[p->param] : NULL;

        if (to && to->type == PTQ_TYPE_F32)
            memcpy(to->data, state + p->offset, p->count * sizeof *state);
    }
    for (int i = 0; i < t->units; i++) {
        ptq_status status = PTQ_OK;

        if (t->unit[i].weight_step != NONE)
            status = export_integers(t, &t->unit[i], state, model, err);
        if (status)
            return status;
    }
    return ptq_model_check(model, err);
}

void trainer_classify(trainer *t, trainer_source source, int images, int *classes, int *labels) {
    const unit *u = &t->unit[t->logits];
    int frozen = t->options.frozen_norm;
    float *logits = scratch(t, 0, SOURCE);

    t->options.frozen_norm = 1;
    forward(t, source, images);
    t->options.frozen_norm = frozen;
    for (int i = 0; i < images; i++) {
        read_value(t, u, i, logits);
        classes[i] = ptq_argmax(logits, u->shape[2]);
        labels[i] = t->label[i];
    }
}
