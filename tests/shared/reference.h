/* reference.h - every operator a second time: naive loops in double precision, written from the
   definitions and not from the library, and random graphs to compare the two on. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "test.h"

/* An image of doubles, H x W x C. */
typedef struct image {
    int h, w, c;
    double *at;
} image;

static inline image new_image(int h, int w, int c) {
    image m = {0, 0, 0, NULL};

    m.h = h;
    m.w = w;
    m.c = c;
    m.at = (double *)calloc((size_t)h * (size_t)w * (size_t)c, sizeof(double));
    assert_non_null(m.at);
    return m;
}

static inline double *pixel(image m, int y, int x, int c) {
    return &m.at[((size_t)y * (size_t)m.w + (size_t)x) * (size_t)m.c + (size_t)c];
}

static inline size_t image_size(image m) { return (size_t)m.h * (size_t)m.w * (size_t)m.c; }

static inline double param(const ptq_node *n, int which, size_t index) {
    return n->param[which].rank ? (double)((const float *)n->param[which].data)[index] : 0;
}

/* Along one axis (0: height, 1: width): how many outputs, and how much padding comes before. */
static inline int window(const ptq_node *n, int axis, int in, int *before) {
    int k = (n->kernel[axis] - 1) * n->dilation[axis] + 1, s = n->stride[axis], out, missing;

    *before = 0;
    if (n->padding == PTQ_PADDING_SAME) {
        out = (in + s - 1) / s;
        missing = (out - 1) * s + k - in;
        *before = missing > 0 ? missing / 2 : 0; /* the odd one goes behind */
        return out;
    }
    if (n->padding == PTQ_PADDING_EXPLICIT)
        *before = n->pad[axis];
    missing = n->padding == PTQ_PADDING_EXPLICIT ? n->pad[axis + 2] : 0; /* zeros behind */
    for (out = 0; out * s + k <= *before + in + missing; out++)
        ;
    /* one more, not whole, where it begins in the image or before it */
    if (n->ceil_mode && out * s < *before + in && (out - 1) * s + k < *before + in + missing)
        out++;
    return out;
}

static inline double conv_at(const ptq_node *n, image in, int y0, int x0, int o, int outputs) {
    int per_group = in.c / n->groups, group = o / (outputs / n->groups);
    double sum = param(n, PTQ_PARAM_BIAS, (size_t)o);
    int i, u, v;

    for (i = 0; i < per_group; i++)
        for (u = 0; u < n->kernel[0]; u++)
            for (v = 0; v < n->kernel[1]; v++) {
                size_t w = (size_t)(((o * per_group + i) * n->kernel[0] + u) * n->kernel[1] + v);
                int y = y0 + u * n->dilation[0], x = x0 + v * n->dilation[1];
                if (y >= 0 && y < in.h && x >= 0 && x < in.w)
                    sum += param(n, PTQ_PARAM_WEIGHT, w) * *pixel(in, y, x, group * per_group + i);
            }
    return sum;
}

static inline double pool_at(const ptq_node *n, image in, int y0, int x0, int c) {
    double sum = 0, most = -HUGE_VAL;
    int taps = 0, padded = 0, u, v;

    for (u = 0; u < n->kernel[0]; u++)
        for (v = 0; v < n->kernel[1]; v++) {
            int y = y0 + u, x = x0 + v;
            padded += y < in.h + n->pad[2] && x < in.w + n->pad[3];
            if (y < 0 || y >= in.h || x < 0 || x >= in.w)
                continue;
            taps++;
            sum += *pixel(in, y, x, c);
            most = fmax(most, *pixel(in, y, x, c));
        }
    if (n->op == PTQ_OP_MAX_POOL)
        return most;
    return sum / (n->include_pad ? padded : taps);
}

/* Convolution and pools: whatever looks through a window. */
static inline image run_windows(const ptq_node *n, image in) {
    int top, left, y, x, c;
    int h = window(n, 0, in.h, &top), w = window(n, 1, in.w, &left);
    int channels = n->op == PTQ_OP_CONV2D ? n->param[PTQ_PARAM_WEIGHT].dim[0] : in.c;
    image out = new_image(h, w, channels);

    for (y = 0; y < h; y++)
        for (x = 0; x < w; x++)
            for (c = 0; c < channels; c++) {
                int y0 = y * n->stride[0] - top, x0 = x * n->stride[1] - left;
                *pixel(out, y, x, c) = n->op == PTQ_OP_CONV2D ? conv_at(n, in, y0, x0, c, channels)
                                                              : pool_at(n, in, y0, x0, c);
            }
    return out;
}

static inline double elementwise(const ptq_node *n, double a, double b, size_t c) {
    switch (n->op) {
    case PTQ_OP_BATCH_NORM:
        return param(n, PTQ_PARAM_WEIGHT, c) * (a - param(n, PTQ_PARAM_MEAN, c)) /
                   sqrt(param(n, PTQ_PARAM_VARIANCE, c) + (double)n->epsilon) +
               param(n, PTQ_PARAM_BIAS, c);
    case PTQ_OP_RELU:
        return a > 0 ? a : 0;
    case PTQ_OP_RELU6:
        return a > 6 ? 6 : a > 0 ? a : 0;
    default:
        return a + b;
    }
}

static inline image run_elements(const ptq_node *n, image a, image b) {
    image out = new_image(a.h, a.w, a.c);
    size_t i;

    for (i = 0; i < image_size(a); i++)
        out.at[i] = elementwise(n, a.at[i], b.at ? b.at[i] : 0, i % (size_t)a.c);
    return out;
}

static inline image run_global_pool(const ptq_node *n, image in) {
    image out = new_image(1, 1, in.c);
    size_t i, c = (size_t)in.c;

    for (i = 0; i < image_size(in); i++)
        if (n->op == PTQ_OP_GLOBAL_MAX_POOL)
            out.at[i % c] = i < c ? in.at[i] : fmax(out.at[i % c], in.at[i]);
        else
            out.at[i % c] += in.at[i] / (in.h * in.w);
    return out;
}

static inline image run_concat(image a, image b) {
    image out = new_image(a.h, a.w, a.c + b.c);
    int y, x, c;

    for (y = 0; y < out.h; y++)
        for (x = 0; x < out.w; x++)
            for (c = 0; c < out.c; c++)
                *pixel(out, y, x, c) = c < a.c ? *pixel(a, y, x, c) : *pixel(b, y, x, c - a.c);
    return out;
}

static inline image run_dense(const ptq_node *n, image in) {
    int inputs = (int)image_size(in), o, i;
    image out = new_image(1, 1, n->param[PTQ_PARAM_WEIGHT].dim[0]);

    for (o = 0; o < out.c; o++) {
        out.at[o] = param(n, PTQ_PARAM_BIAS, (size_t)o);
        for (i = 0; i < inputs; i++)
            out.at[o] += param(n, PTQ_PARAM_WEIGHT, (size_t)(o * inputs + i)) * in.at[i];
    }
    return out;
}

static inline image run_softmax(const ptq_node *n, image in) {
    image out = new_image(1, 1, in.c);
    double most = in.at[0], sum = 0;
    int i;

    for (i = 0; i < in.c; i++)
        most = fmax(most, in.at[i]);
    for (i = 0; i < in.c; i++)
        sum += exp(in.at[i] - most);
    for (i = 0; i < in.c; i++)
        out.at[i] =
            n->op == PTQ_OP_SOFTMAX ? exp(in.at[i] - most) / sum : in.at[i] - most - log(sum);
    return out;
}

/* One image per node of an unfused model; free with reference_free. */
static inline image *reference_run(const ptq_model *model, const float *input) {
    image *value = (image *)calloc((size_t)model->nodes, sizeof *value), none = {0, 0, 0, NULL};
    int i;
    size_t j;

    assert_non_null(value);
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *n = &model->node[i];
        image a = n->input[0] >= 0 ? value[n->input[0]] : none;
        image b = n->input[1] >= 0 ? value[n->input[1]] : none;

        switch (n->op) {
        case PTQ_OP_INPUT:
            value[i] = new_image(n->shape[0], n->shape[1], n->shape[2]);
            for (j = 0; j < image_size(value[i]); j++)
                value[i].at[j] = (double)input[j];
            break;
        case PTQ_OP_CONV2D:
        case PTQ_OP_MAX_POOL:
        case PTQ_OP_AVG_POOL:
            value[i] = run_windows(n, a);
            break;
        case PTQ_OP_GLOBAL_AVG_POOL:
        case PTQ_OP_GLOBAL_MAX_POOL:
            value[i] = run_global_pool(n, a);
            break;
        case PTQ_OP_CONCAT:
            value[i] = run_concat(a, b);
            break;
        case PTQ_OP_DENSE:
            value[i] = run_dense(n, a);
            break;
        case PTQ_OP_SOFTMAX:
        case PTQ_OP_LOG_SOFTMAX:
            value[i] = run_softmax(n, a);
            break;
        default:
            value[i] = run_elements(n, a, b);
            break;
        }
    }
    return value;
}

static inline void reference_free(image *value, int nodes) {
    int i;

    for (i = 0; i < nodes; i++)
        free(value[i].at);
    free(value);
}

/* `n` floats against the reference, within `tolerance` of the largest value. */
static inline void expect_image(const float *got, image wanted, double tolerance,
                                const char *what) {
    double most = 0;
    size_t i;

    for (i = 0; i < image_size(wanted); i++)
        most = fmax(most, fabs(wanted.at[i]));
    for (i = 0; i < image_size(wanted); i++)
        if (!is_near((double)got[i], wanted.at[i], 1e-6 + tolerance * most, 0))
            fail_msg("%s[%d]: %.9g is not %.9g", what, (int)i, (double)got[i], wanted.at[i]);
}

/* ---------------------------------------------------------------------------------------------
   Random graphs */

typedef struct graph_maker {
    ptq_model *model;
    test_random *random;
    int last; /* the node at the end of the chain */
    int names;
} graph_maker;

static inline int chance(graph_maker *g, int percent) {
    return random_int(g->random, 1, 100) <= percent;
}

static inline const char *next_name(graph_maker *g, const char *stem) {
    static char name[PTQ_NAME_SIZE];

    snprintf(name, sizeof name, "%s%d", stem, ++g->names);
    return name;
}

/* Windows that never lie in the padding alone. */
static inline void random_window(graph_maker *g, const int *shape, int *kernel, int *stride,
                                 ptq_padding *padding, int *pad) {
    int axis;

    *padding = (ptq_padding)random_int(g->random, 0, 2);
    for (axis = 0; axis < 2; axis++) {
        int most = *padding == PTQ_PADDING_SAME || shape[axis] > 4 ? 4 : shape[axis];
        kernel[axis] = random_int(g->random, 1, most);
        stride[axis] = random_int(g->random, 1, 3);
        pad[axis] = random_int(g->random, 0, kernel[axis] - 1);
        pad[axis + 2] = random_int(g->random, 0, kernel[axis] - 1);
    }
    if (*padding != PTQ_PADDING_EXPLICIT)
        memset(pad, 0, 4 * sizeof *pad);
}

static inline int add_random_conv(graph_maker *g, int input) {
    const int *shape = g->model->node[input].shape;
    ptq_conv_options o;
    int kernel[2], stride[2];

    memset(&o, 0, sizeof o);
    random_window(g, shape, kernel, stride, &o.padding, o.pad);
    o.kernel_h = kernel[0];
    o.kernel_w = kernel[1];
    o.stride_h = stride[0];
    o.stride_w = stride[1];
    o.no_bias = chance(g, 30);
    o.groups = random_int(g->random, 1, shape[2]);
    while (shape[2] % o.groups)
        o.groups--;
    o.channels = o.groups * random_int(g->random, 1, o.groups > 2 ? 2 : 5);
    return ptq_add_conv2d(g->model, next_name(g, "conv"), input, &o);
}

static inline int add_random_pool(graph_maker *g, int input) {
    ptq_pool_options o;
    int kernel[2], stride[2];

    memset(&o, 0, sizeof o);
    random_window(g, g->model->node[input].shape, kernel, stride, &o.padding, o.pad);
    o.kernel_h = kernel[0];
    o.kernel_w = kernel[1];
    o.stride_h = stride[0];
    o.stride_w = stride[1];
    if (chance(g, 50))
        return ptq_add_pool(g->model, PTQ_OP_MAX_POOL, next_name(g, "max"), input, &o);
    o.include_pad = chance(g, 50);
    return ptq_add_pool(g->model, PTQ_OP_AVG_POOL, next_name(g, "avg"), input, &o);
}

/* Batch norm and activations, each perhaps. */
static inline int add_random_tail(graph_maker *g, int input) {
    if (chance(g, 50))
        input = ptq_add_batch_norm(g->model, next_name(g, "bn"), input,
                                   random_float(g->random, 1e-5, 0.1));
    if (chance(g, 50))
        input = ptq_add_op(g->model, PTQ_OP_RELU, next_name(g, "relu"), input);
    else if (chance(g, 30))
        input = ptq_add_op(g->model, PTQ_OP_RELU6, next_name(g, "relu6x"), input);
    return input;
}

/* A 1x1 or 3x3 convolution that keeps height and width. */
static inline int add_plain_conv(graph_maker *g, int input, int channels) {
    ptq_conv_options o;

    memset(&o, 0, sizeof o);
    o.channels = channels;
    o.kernel_h = chance(g, 70) ? 3 : 1;
    return ptq_add_conv2d(g->model, next_name(g, "conv"), input, &o);
}

/* x + f(x), f(x) + x or f(x) + g(x), with activations here and there. */
static inline int add_random_residual(graph_maker *g, int input) {
    int both = chance(g, 30), inner, left, right;
    int channels = both ? random_int(g->random, 1, 6) : g->model->node[input].shape[2];

    inner = chance(g, 50) ? add_random_tail(g, add_plain_conv(g, input, 5)) : input;
    left = add_random_tail(g, add_plain_conv(g, inner, channels));
    right = both ? add_random_tail(g, add_plain_conv(g, input, channels)) : input;
    if (chance(g, 50))
        left = ptq_add_add(g->model, next_name(g, "add"), left, right);
    else
        left = ptq_add_add(g->model, next_name(g, "add"), right, left);
    return add_random_tail(g, left);
}

/* A random network, which always ends in a few logits. */
static inline ptq_model *random_graph(uint64_t seed) {
    test_random random = {0};
    graph_maker g = {NULL, NULL, 0, 0};
    int steps, h, w, c;

    random.state = seed;
    g.random = &random;
    assert_ok(ptq_model_create(NULL, &g.model, &err));
    c = random_int(&random, 1, 7); /* one after the other: compilers differ in order of arguments */
    w = random_int(&random, 3, 13);
    h = random_int(&random, 3, 13);
    g.last = ptq_add_input(g.model, "input", h, w, c);
    for (steps = random_int(&random, 1, 6); steps > 0; steps--) {
        int kind = random_int(&random, 0, 9);
        if (kind < 4)
            g.last = add_random_tail(&g, add_random_conv(&g, g.last));
        else if (kind < 6)
            g.last = add_random_pool(&g, g.last);
        else if (kind < 7)
            g.last = add_random_tail(&g, g.last);
        else
            g.last = add_random_residual(&g, g.last);
    }
    g.last = ptq_add_op(g.model, PTQ_OP_GLOBAL_AVG_POOL, "pool", g.last);
    if (chance(&g, 70))
        g.last = ptq_add_dense(g.model, "fc", g.last, random_int(&random, 2, 11));
    if (chance(&g, 50))
        ptq_add_op(g.model, PTQ_OP_SOFTMAX, "softmax", g.last);
    fill_model(g.model, seed);
    assert_ok(ptq_model_check(g.model, &err));
    return g.model;
}

/* A convolution that may be dilated, and pad by more than its kernel. */
static inline int add_wide_conv(graph_maker *g, int input) {
    const int *shape = g->model->node[input].shape;
    ptq_conv_options o;
    int axis, kernel[2], dilation[2];

    memset(&o, 0, sizeof o);
    o.padding = PTQ_PADDING_EXPLICIT;
    for (axis = 0; axis < 2; axis++) {
        kernel[axis] = random_int(g->random, 1, 3);
        dilation[axis] = random_int(g->random, 1, 3);
        o.pad[axis] = random_int(g->random, 0, 5);
        o.pad[axis + 2] = random_int(g->random, 0, 5);
        while (shape[axis] + o.pad[axis] + o.pad[axis + 2] <= (kernel[axis] - 1) * dilation[axis])
            o.pad[axis + 2]++;
    }
    o.kernel_h = kernel[0];
    o.kernel_w = kernel[1];
    o.dilation_h = dilation[0];
    o.dilation_w = dilation[1];
    o.stride_h = random_int(g->random, 1, 3);
    o.groups = chance(g, 30) ? shape[2] : 1;
    o.channels = o.groups > 1 ? shape[2] : random_int(g->random, 1, 9);
    return ptq_add_conv2d(g->model, next_name(g, "conv"), input, &o);
}

/* A pool whose last windows may reach beyond image and padding. */
static inline int add_ceil_pool(graph_maker *g, int input) {
    ptq_pool_options o;
    int axis, kernel = random_int(g->random, 1, 4);

    memset(&o, 0, sizeof o);
    o.kernel_h = kernel;
    o.stride_h = random_int(g->random, 1, 4);
    o.padding = PTQ_PADDING_EXPLICIT;
    o.ceil_mode = 1;
    for (axis = 0; axis < 2; axis++)
        for (o.pad[axis] = random_int(g->random, 0, kernel - 1);
             o.pad[axis] + g->model->node[input].shape[axis] < kernel;)
            o.pad[axis]++;
    o.include_pad = chance(g, 50);
    return ptq_add_pool(g->model, chance(g, 50) ? PTQ_OP_MAX_POOL : PTQ_OP_AVG_POOL,
                        next_name(g, "pool"), input, &o);
}

/* Two to five branches side by side, some of which are the input itself. */
static inline int add_branches(graph_maker *g, int input) {
    int count = random_int(g->random, 2, 5), joined = -1, i;

    for (i = 0; i < count; i++) {
        int branch =
            chance(g, 20) ? input : add_random_tail(g, add_plain_conv(g, input, 1 + i % 3 * 4));
        joined = i ? ptq_add_concat(g->model, next_name(g, "cat"), joined, branch) : branch;
    }
    return joined;
}

/* A random network of what joins and what looks through unusual windows. */
static inline ptq_model *random_branches(uint64_t seed) {
    test_random random = {0};
    graph_maker g = {NULL, NULL, 0, 0};
    int steps, h, w, c;

    random.state = seed;
    g.random = &random;
    assert_ok(ptq_model_create(NULL, &g.model, &err));
    c = random_int(&random, 1, 5);
    w = random_int(&random, 3, 13);
    h = random_int(&random, 3, 13);
    g.last = ptq_add_input(g.model, "input", h, w, c);
    for (steps = random_int(&random, 2, 5); steps > 0; steps--) {
        int kind = random_int(&random, 0, 2);
        g.last = kind == 0   ? add_random_tail(&g, add_wide_conv(&g, g.last))
                 : kind == 1 ? add_ceil_pool(&g, g.last)
                             : add_branches(&g, g.last);
    }
    g.last = ptq_add_op(g.model, chance(&g, 50) ? PTQ_OP_GLOBAL_MAX_POOL : PTQ_OP_GLOBAL_AVG_POOL,
                        "whole", g.last);
    g.last = ptq_add_dense(g.model, "fc", g.last, random_int(&random, 2, 11));
    ptq_add_op(g.model, chance(&g, 50) ? PTQ_OP_SOFTMAX : PTQ_OP_LOG_SOFTMAX, "last", g.last);
    fill_model(g.model, seed);
    assert_ok(ptq_model_check(g.model, &err));
    return g.model;
}

/* An input for it, to be freed. */
static inline float *random_input(const ptq_model *model, uint64_t seed) {
    const int *s = model->node[0].shape;
    size_t n = (size_t)s[0] * (size_t)s[1] * (size_t)s[2];
    float *input = (float *)malloc(n * sizeof *input);
    test_random random = {0};

    assert_non_null(input);
    random.state = seed + 1;
    random_floats(&random, input, n, -4, 4);
    return input;
}

#endif
