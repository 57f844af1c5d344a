/* A trainer from making to freeing, and its steps: forward and backward over one batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/units.h"

/* ---- Making and asking ---- */

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
    status = units_compile(t, err);
    if (!status)
        status = units_allocate(t, err);
    if (!status)
        status = pool_start(t, t->options.threads, err);
    if (!status)
        state_import(t);
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

void trainer_free(trainer *t) {
    if (!t)
        return;
    pool_stop(&t->workers);
    units_free(t);
    free(t->unit);
    free(t->unit_of_node);
    free(t->param);
    free(t);
}

size_t trainer_size(const trainer *t) { return t->size; }

float *trainer_state(trainer *t) { return t->state; }

const float *trainer_gradient(const trainer *t) { return t->gradient; }

const trainer_param *trainer_params(const trainer *t, int *count) {
    *count = t->params;
    return t->param;
}

int trainer_classes(const trainer *t) { return t->unit[t->logits].shape[2]; }

/* ---- One step ---- */

static int shard_begin(const trainer *t, int shard) {
    return (int)((int64_t)t->images * shard / TRAINER_SHARDS);
}

/* After the last contribution to an input's gradient. */
static void finish_gradient(const trainer *t, const unit *u, int slot, int image, int shard) {
    if (u->last[slot])
        sum_gradient(t, &t->unit[u->input[slot]], image, shard);
}

static void fill_shard(trainer *t, int shard, int thread) {
    unit *u = &t->unit[0];

    (void)thread;
    for (int i = shard_begin(t, shard); i < shard_begin(t, shard + 1); i++)
        t->source.fill(t->source.user, i, image_of(u, u->y, i), &t->label[i]);
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
        operator_forward(t, u, i, thread);
        if (u->norm && !t->options.frozen_norm)
            t->kernel->moments(image_of(u, u->y, i), u->pivot, u->shape[0] * u->shape[1],
                               u->shape[2], sum, square);
    }
}

static void forward(trainer *t, trainer_source source, int images) {
    t->images = images;
    t->source = source;
    pool_run(t, weights_pack, t->units);
    pool_run(t, fill_shard, TRAINER_SHARDS);
    for (int i = 1; i < t->units; i++) {
        unit *u = &t->unit[i];

        t->current = i;
        if (u->norm)
            memcpy(u->pivot, t->state + u->mean, channels_of(u) * sizeof *u->pivot);
        pool_run(t, forward_shard, TRAINER_SHARDS);
        if (u->norm)
            norm_finish(t, u);
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

/* log(softmax(logits / temperature)). */
static void log_softmax(const float *logits, int classes, double temperature, double *out) {
    double sum = 0, top = (double)logits[ptq_argmax(logits, classes)];

    for (int c = 0; c < classes; c++) {
        out[c] = ((double)logits[c] - top) / temperature;
        sum += exp(out[c]);
    }
    for (int c = 0; c < classes; c++)
        out[c] -= log(sum);
}

/* T^2 sum p (log p - log q) of the teacher's p and this model's q, and its gradient T (q - p), over
   images. */
static double image_divergence(const trainer *t, const float *logits, const float *teacher,
                               int classes, double *work, float *gradient) {
    double *log_q = work, *log_p = work + classes, loss = 0, heat = (double)t->temperature;

    log_softmax(logits, classes, heat, log_q);
    log_softmax(teacher, classes, heat, log_p);
    for (int c = 0; c < classes; c++) {
        double p = exp(log_p[c]);

        loss += heat * heat * p * (log_p[c] - log_q[c]);
        gradient[c] = (float)(heat * (exp(log_q[c]) - p) / t->images);
    }
    return loss;
}

static double loss_of(trainer *t, int image, int shard, const float *logits, int classes,
                      float *gradient) {
    if (!t->teacher)
        return image_loss(logits, classes, t->label[image], t->smoothing, t->images, gradient);
    return image_divergence(t, logits, t->teacher + (size_t)image * (size_t)classes, classes,
                            t->log_softmax + (size_t)shard * 2 * (size_t)classes, gradient);
}

static void loss_shard(trainer *t, int shard, int thread) {
    const unit *u = &t->unit[t->logits];
    int classes = u->shape[2];
    float *logits = scratch(t, thread, SOURCE);

    t->loss[shard] = 0;
    t->correct[shard] = 0;
    for (int i = shard_begin(t, shard); i < shard_begin(t, shard + 1); i++) {
        read_value(t, u, i, logits);
        t->loss[shard] += loss_of(t, i, shard, logits, classes, image_of(u, u->dy, i));
        t->correct[shard] += ptq_argmax(logits, classes) == t->label[i];
        sum_gradient(t, u, i, shard);
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
        operator_backward(t, u, i, shard, thread);
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
        memset(u->outside_sum, 0, 2 * TRAINER_SHARDS * sizeof *u->outside_sum);
    }
    pool_run(t, loss_shard, TRAINER_SHARDS);
    for (int i = t->units - 1; i > 0; i--) {
        unit *u = &t->unit[i];

        t->current = i;
        if (u->norm)
            norm_finish_gradient(t, u);
        plan_backward(t, u);
        pool_run(t, backward_shard, TRAINER_SHARDS);
    }
}

static void take_step(trainer *t, trainer_source source, int images, trainer_result *out) {
    forward(t, source, images);
    backward(t);
    pool_run(t, weights_collect, t->units);
    out->loss = 0;
    out->correct = 0;
    for (int s = 0; s < TRAINER_SHARDS; s++) {
        out->loss += t->loss[s] / images;
        out->correct += t->correct[s];
    }
}

void trainer_step(trainer *t, trainer_source source, int images, float smoothing,
                  trainer_result *out) {
    t->smoothing = smoothing;
    t->teacher = NULL;
    take_step(t, source, images, out);
}

void trainer_step_towards(trainer *t, trainer_source source, int images, const float *logits,
                          float temperature, trainer_result *out) {
    t->teacher = logits;
    t->temperature = temperature;
    take_step(t, source, images, out);
    t->teacher = NULL;
}

static void forward_only(trainer *t, trainer_source source, int images) {
    int frozen = t->options.frozen_norm;

    t->options.frozen_norm = 1;
    forward(t, source, images);
    t->options.frozen_norm = frozen;
}

void trainer_logits(trainer *t, trainer_source source, int images, float *out) {
    const unit *u = &t->unit[t->logits];

    forward_only(t, source, images);
    for (int i = 0; i < images; i++)
        read_value(t, u, i, out + (size_t)i * channels_of(u));
}

void trainer_classify(trainer *t, trainer_source source, int images, int *classes, int *labels) {
    const unit *u = &t->unit[t->logits];
    float *logits = scratch(t, 0, SOURCE);

    forward_only(t, source, images);
    for (int i = 0; i < images; i++) {
        read_value(t, u, i, logits);
        classes[i] = ptq_argmax(logits, u->shape[2]);
        labels[i] = t->label[i];
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
                                                           "the step size of the result",
                                                           "the zero point before the addition",
                                                           "the zero point of the result"};

    return title[param];
}

/* What the state says: step sizes must be normal numbers, as in the model file. */
static int is_sound(const trainer_param *p, float value) {
    return is_step(p->param) ? isnormal(fake_step(value)) : isfinite(value);
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
