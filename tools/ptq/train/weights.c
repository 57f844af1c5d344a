/* Weights in the order that the kernels take, from the state, and gradients back from it. */
#include "train/units.h"

/* Position of weight [o][i][y][x], O,I/g,H,W. */
static size_t weight_at(const window *w, int o, int i, int y, int x) {
    return (((size_t)o * (size_t)(w->channels / w->groups) + (size_t)i) * (size_t)w->kernel[0] +
            (size_t)y) *
               (size_t)w->kernel[1] +
           (size_t)x;
}

/* A group in packed order for the forward pass: [y][x][i][o]. */
static void pack_forward(const window *w, const float *from, int group, float *to) {
    int inputs = w->channels / w->groups, outputs = w->outputs / w->groups;

    for (int y = 0; y < w->kernel[0]; y++)
        for (int x = 0; x < w->kernel[1]; x++)
            for (int i = 0; i < inputs; i++, to += KERNEL_PADDED(outputs))
                for (int o = 0; o < outputs; o++)
                    to[o] = from[weight_at(w, group * outputs + o, i, y, x)];
}

/* For the backward pass, phase after phase: the taps of one, turned around, and of each [o][i]. */
static float *pack_phase(const window *w, const float *from, int group, int py, int px, float *to) {
    int inputs = w->channels / w->groups, outputs = w->outputs / w->groups;
    int rows = window_phase(w, 0, py).taps, columns = window_phase(w, 1, px).taps;

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

void weights_pack(trainer *t, int task, int thread) {
    unit *u = &t->unit[task];
    const window *w = &u->w;
    const float *weight;
    int groups = w->groups, outputs;

    (void)thread;
    if (u->q)
        fake_codes(t, u);
    if (!has_weights(u))
        return;
    outputs = w->outputs / groups;
    weight = u->rounded ? u->rounded : t->state + u->weight;
    if (u->rounded)
        fake_weights(t, u);
    for (int g = 0; g < groups; g++) {
        pack_forward(w, weight, g, u->forward + u->packed / (size_t)groups * (size_t)g);
        pack_backward(w, weight, g, u->backward + u->packed_back / (size_t)groups * (size_t)g);
        for (int o = 0; u->bias != NONE && o < outputs; o++)
            u->packed_bias[g * KERNEL_PADDED(outputs) + o] = fake_bias(t, u, g * outputs + o);
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

void weights_collect(trainer *t, int task, int thread) {
    const unit *u = &t->unit[task];

    (void)thread;
    if (u->q)
        fake_step_gradient(t, u);
    if (!has_weights(u))
        return;
    unpack_weights(u, t->gradient + u->weight);
    if (u->rounded)
        fake_weight_gradient(t, u);
    for (int o = 0; u->bias_trained && o < u->w.outputs; o++)
        t->gradient[u->bias + (size_t)o] = (float)over_shards(u->partial_bias, o, u->w.outputs);
}
