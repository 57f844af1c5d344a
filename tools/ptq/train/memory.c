/* The memory of the units and of the threads. */
#include <math.h>
#include <stdlib.h>

#include "train/units.h"

static float *floats(size_t n) {
    return n < (SIZE_MAX / sizeof(float) - SLACK) ? calloc(n + SLACK, sizeof(float)) : NULL;
}

static size_t back_size(const window *w) {
    size_t n = 0;

    for (int y = 0; y < w->stride[0]; y++)
        for (int x = 0; x < w->stride[1]; x++)
            n += (size_t)window_phase(w, 0, y).taps * (size_t)window_phase(w, 1, x).taps;
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
    u->outside_sum = calloc(2 * TRAINER_SHARDS, sizeof(double));
    for (size_t i = 0; i < c; i++)
        u->t.scale[i] = u->t.a[i] = 1;
    u->t.low = u->act ? 0 : -INFINITY;
    u->t.high = u->act == PTQ_ACTIVATION_RELU6 ? 6 : INFINITY;
    if (!u->y || (!u->dy && u->op != PTQ_OP_INPUT) || !u->sum || !u->square || !u->inverse ||
        !u->step_sum || !u->outside_sum)
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

ptq_status units_allocate(trainer *t, ptq_error *err) {
    int ok, widest = 1;

    t->state = floats(t->size);
    t->gradient = floats(t->size);
    t->label = calloc((size_t)t->options.batch, sizeof *t->label);
    t->loss = calloc(TRAINER_SHARDS, sizeof *t->loss);
    t->correct = calloc(TRAINER_SHARDS, sizeof *t->correct);
    t->log_softmax =
        calloc(2 * TRAINER_SHARDS * channels_of(&t->unit[t->logits]), sizeof *t->log_softmax);
    t->scratch = calloc((size_t)t->options.threads * SCRATCHES, sizeof *t->scratch);
    ok = t->state && t->gradient && t->label && t->loss && t->correct && t->scratch &&
         t->log_softmax;
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
    free(u->outside_sum);
    free(u->partial_bias);
    free(u->rounded);
}

void units_free(trainer *t) {
    for (int i = 0; i < t->units; i++)
        free_unit(&t->unit[i]);
    for (int i = 0; t->scratch && i < t->options.threads * SCRATCHES; i++)
        free(t->scratch[i]);
    free(t->scratch);
    free(t->state);
    free(t->gradient);
    free(t->zeros);
    free(t->label);
    free(t->loss);
    free(t->correct);
    free(t->log_softmax);
}
