/* Convolution and dense layers, forward and backward. */
#include <string.h>

#include "train/units.h"

/* Copies so many channels of each pixel, to where pixels have another distance. */
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

void convolution_forward(const trainer *t, const unit *u, int image, int thread) {
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
    phase down = window_phase(w, 0, py), across = window_phase(w, 1, px);
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
            weight += (size_t)(window_phase(w, 0, y).taps * window_phase(w, 1, x).taps) *
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

void convolution_backward(const trainer *t, const unit *u, int image, int shard, int thread) {
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
