/* Every operator in both directions: pools, addition and copy here, those with weights in
   convolution.c. */
#include <string.h>

#include "train/units.h"

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

/* ---- The operator of a unit ---- */

void operator_forward(const trainer *t, const unit *u, int image, int thread) {
    switch (u->op) {
    case PTQ_OP_CONV2D:
    case PTQ_OP_DENSE:
        convolution_forward(t, u, image, thread);
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

void operator_backward(const trainer *t, const unit *u, int image, int shard, int thread) {
    switch (u->op) {
    case PTQ_OP_CONV2D:
    case PTQ_OP_DENSE:
        convolution_backward(t, u, image, shard, thread);
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
