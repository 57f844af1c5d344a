/* The mean error of a layer, (w - s q) E x, goes into its bias, and E x comes from the model itself
   instead of from images (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2). A batch
   norm says what mean and deviation it gives each channel; from there they are followed through the
   network, as if every channel were normally distributed and independent of the others. One pass
   over the nodes; nothing is run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/expect.h"
#include "measure/search.h"

/* x[i], 2 x C: of the result of node i the means of its channels, then their deviations. */
typedef struct expectation {
    const ptq_model *model, *original; /* fused, equalized if the quantized one is; before fusing */
    const ptq_calibration *calibration;
    float **x;
    float *all; /* what x points into */
} expectation;

static ptq_activation activation_of(const ptq_node *node) {
    return node->op == PTQ_OP_RELU    ? PTQ_ACTIVATION_RELU
           : node->op == PTQ_OP_RELU6 ? PTQ_ACTIVATION_RELU6
                                      : node->act;
}

/* Mean m and deviation s of a normal x become those of min(high, max(0, x)), high 6 or infinite
   (appendix C there). With phi and Phi density and distribution of the standard normal, a = -m / s,
   b = (high - m) / s and p = Phi(b) - Phi(a), the share that is not clipped,
       E x'   = m p + s (phi(a) - phi(b)) + high (1 - Phi(b))
       E x'^2 = (m^2 + s^2) p + 2 m s (phi(a) - phi(b)) + s^2 (a phi(a) - b phi(b))
                + high^2 (1 - Phi(b)). */
static void clip_normal(ptq_activation act, float *mean, float *deviation) {
    const double root = sqrt(2.0), peak = 1 / sqrt(8 * atan(1.0));
    double m = (double)*mean, s = (double)*deviation, a, b = 0, at_a, at_b = 0, above = 0, inside;
    double first, second;

    if (act == PTQ_ACTIVATION_NONE)
        return;
    s = s > 1e-30 ? s : 1e-30;
    a = -m / s;
    at_a = peak * exp(-a * a / 2);
    if (act == PTQ_ACTIVATION_RELU6) {
        b = (6 - m) / s;
        at_b = peak * exp(-b * b / 2);
        above = erfc(b / root) / 2;
    }
    inside = 1 - erfc(-a / root) / 2 - above;
    first = m * inside + s * (at_a - at_b) + 6 * above;
    second = (m * m + s * s) * inside + 2 * m * s * (at_a - at_b) + s * s * (a * at_a - b * at_b) +
             36 * above;
    *mean = (float)first;
    *deviation = second > first * first ? (float)sqrt(second - first * first) : 0;
}

/* What preprocessing makes of a pixel. */
static double preprocessed(const ptq_model *model, int channel, int pixel) {
    if (channel >= PTQ_MAX_PIXEL_CHANNELS)
        return pixel;
    return (double)(((float)pixel - model->mean[channel]) / model->std[channel]);
}

/* Of the input: mean and deviation of the values that were counted in calibration, with n(v) how
   often value v was seen and x(v) what preprocessing makes of it,

       E x = sum over v of n(v) x(v) / sum of n(v),    Var x = E x^2 - (E x)^2.

   All channels are counted together; what differs is how each is preprocessed. Of real inputs,
   which are observed as the network gets them, a bin's values count as its middle, zeros as 0. */
static ptq_status expect_input(expectation *e, ptq_error *err) {
    int t = ptq_calibration_find(e->calibration, e->model->node[0].out);
    const ptq_observer *s = t < 0 ? NULL : &e->calibration->tensor[t].observer;
    int channels = e->model->node[0].shape[2];

    for (int c = 0; c < channels; c++) {
        double n = s ? (double)s->zeros : 0, sum = 0, square = 0;
        for (int v = 0; v < (s ? PTQ_BINS : 256); v++) {
            double count = (double)(s ? s->bin[v] : e->calibration->pixel[v]);
            double value =
                s ? ldexp(v - PTQ_BINS / 2 + 0.5, s->exponent) : preprocessed(e->model, c, v);
            n += count;
            sum += count * value;
            square += count * value * value;
        }
        if (!(n > 0))
            return ptq_error_set(err, PTQ_NOT_READY,
                                 "analytic bias correction needs a calibration on pixels; this one"
                                 " saw real numbers");
        square = square / n - sum / n * (sum / n);
        e->x[0][c] = (float)(sum / n);
        e->x[0][channels + c] = square > 0 ? (float)sqrt(square) : 0;
    }
    return PTQ_OK;
}

/* The input channel that weight k of output channel o belongs to. */
static int tap_channel(const ptq_model *model, const ptq_node *node, int o, int k) {
    int channels = model->node[node->input[0]].shape[2];
    int first = o / (node->shape[2] / node->groups) * (channels / node->groups);

    return (first + k / (node->kernel[0] * node->kernel[1])) % channels;
}

static int taps_of(const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];

    return (int)(ptq_tensor_elements(weight) / (size_t)weight->dim[0]);
}

/* Of w x + b, w: O x taps: means add up, and so do the variances of what is independent,

       E y[o] = b[o] + sum over k of w[o][k] E x,    Var y[o] = sum over k of w[o][k]^2 Var x. */
static void expect_weighted(const expectation *e, const ptq_node *node, float *y) {
    const float *w = (const float *)node->param[PTQ_PARAM_WEIGHT].data;
    const float *b = (const float *)node->param[PTQ_PARAM_BIAS].data;
    const float *x = e->x[node->input[0]];
    int taps = taps_of(node), channels = e->model->node[node->input[0]].shape[2];

    for (int o = 0; o < node->shape[2]; o++, w += taps) {
        double sum = b ? (double)b[o] : 0, variance = 0;
        for (int k = 0; k < taps; k++) {
            int from = tap_channel(e->model, node, o, k);
            double deviation = (double)w[k] * (double)x[channels + from];
            sum += (double)w[k] * (double)x[from];
            variance += deviation * deviation;
        }
        y[o] = (float)sum;
        y[node->shape[2] + o] = (float)sqrt(variance);
    }
}

/* The batch norm whose result a node computes: itself, or one that fusing folded into it and that
   only the model before fusing shows. NULL: none. */
static const ptq_node *norm_of(const ptq_model *original, const ptq_node *node) {
    int conv = original ? ptq_model_find(original, node->name) : -1;

    if (node->op == PTQ_OP_BATCH_NORM)
        return node;
    for (int i = conv + 1; conv >= 0 && i < original->nodes; i++)
        if (original->node[i].op == PTQ_OP_BATCH_NORM && original->node[i].input[0] == conv &&
            original->node[i].shape[2] == node->shape[2])
            return &original->node[i];
    return NULL;
}

/* A concat has the channels of both operands. */
static void expect_concat(const expectation *e, const ptq_node *node, float *y) {
    const float *a = e->x[node->input[0]], *b = e->x[node->input[1]];
    int n = node->shape[2], own = e->model->node[node->input[0]].shape[2];

    for (int half = 0; half < 2; half++) { /* means, deviations */
        memcpy(y + half * n, a + half * own, (size_t)own * sizeof *y);
        memcpy(y + half * n + own, b + half * (n - own), (size_t)(n - own) * sizeof *y);
    }
}

/* What a node's batch norm or its weights make of its inputs. Pools pass on a mean, and at most the
   deviation. */
static void expect_result(const expectation *e, const ptq_node *node, float *y) {
    const ptq_node *norm = norm_of(e->original, node);
    int n = node->shape[2];

    if (norm) {
        const float *beta = (const float *)norm->param[PTQ_PARAM_BIAS].data;
        const float *gamma = (const float *)norm->param[PTQ_PARAM_WEIGHT].data;
        for (int c = 0; c < n; c++) {
            y[c] = beta[c];
            y[n + c] = fabsf(gamma[c]);
        }
    } else if (has_weights(node)) {
        expect_weighted(e, node, y);
    } else if (node->op == PTQ_OP_CONCAT) {
        expect_concat(e, node, y);
    } else {
        memcpy(y, e->x[node->input[0]], 2 * (size_t)n * sizeof *y);
    }
}

/* Then what is fused behind it: an activation, the addition, whose variances add up as those of a
   layer do, another activation. An addition by itself has only the latter. */
static void expect_node(const expectation *e, int index) {
    const ptq_node *node = &e->model->node[index];
    int adds = node->input[1] >= 0 && node->op != PTQ_OP_CONCAT;
    const float *other = adds ? e->x[node->input[1]] : NULL;
    ptq_activation before = node->residual ? node->act : PTQ_ACTIVATION_NONE;
    ptq_activation behind = node->residual ? node->add_act : activation_of(node);
    int n = node->shape[2];
    float *m = e->x[index], *s = m + n;

    expect_result(e, node, m);
    for (int c = 0; c < n; c++) {
        clip_normal(before, &m[c], &s[c]);
        if (other) {
            m[c] += other[c];
            s[c] = sqrtf(s[c] * s[c] + other[n + c] * other[n + c]);
        }
        clip_normal(behind, &m[c], &s[c]);
    }
}

static ptq_status expect_all(expectation *e, ptq_error *err) {
    size_t channels = 0;
    float *at;
    ptq_status status;

    for (int i = 0; i < e->model->nodes; i++)
        channels += (size_t)e->model->node[i].shape[2];
    e->x = (float **)calloc((size_t)e->model->nodes, sizeof *e->x);
    at = e->all = (float *)calloc(2 * channels, sizeof *e->all);
    if (!e->x || !e->all)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory to correct biases");
    for (int i = 0; i < e->model->nodes; i++) {
        e->x[i] = at;
        at += 2 * e->model->node[i].shape[2];
    }
    status = expect_input(e, err);
    for (int i = 1; i < e->model->nodes && !status; i++)
        expect_node(e, i);
    return status;
}

/* The bias of each channel becomes b + (w - s q) E x; b where that would not fit 31 bits. */
static void correct_layer(const expectation *e, const ptq_model *quantized, ptq_node *node) {
    const ptq_node *from = &e->model->node[ptq_model_find(e->model, node->name)];
    const ptq_tensor *codes = &node->param[PTQ_PARAM_WEIGHT];
    const float *w = (const float *)from->param[PTQ_PARAM_WEIGHT].data, *x = e->x[from->input[0]];
    const float *b = (const float *)from->param[PTQ_PARAM_BIAS].data;
    int taps = taps_of(node);
    double in_scale = (double)quantized->node[node->input[0]].q.scale;
    size_t at = 0;

    for (int o = 0; o < node->shape[2] && b; o++) {
        double unit = in_scale * (double)codes->scale[codes->scales > 1 ? o : 0];
        double bias = (double)b[o];
        for (int k = 0; k < taps; k++, at++)
            bias += ((double)w[at] - (double)ptq_tensor_real(codes, at)) *
                    (double)x[tap_channel(e->model, from, o, k)];
        bias = fabs(bias) <= ldexp(unit, 30) ? bias : (double)b[o];
        ptq_tensor_set_code(&node->param[PTQ_PARAM_BIAS], (size_t)o,
                            (int32_t)floor(bias / unit + 0.5));
    }
}

/* Batch norms speak of the units before equalization: where that was done, weights alone tell. */
ptq_status correct_biases(const ptq_model *fused, const ptq_model *original,
                          const ptq_calibration *calibration, ptq_model *quantized,
                          ptq_error *err) {
    int equalized = ptq_model_get_meta(quantized, "equalization") != NULL;
    expectation e = {fused, equalized ? NULL : original, calibration, NULL, NULL};
    ptq_model *like = NULL;
    ptq_status status = equalized ? ptq_equalize_like(fused, quantized, &like, err) : PTQ_OK;

    if (like)
        e.model = like;
    if (!status)
        status = expect_all(&e, err);
    for (int i = 1; i < quantized->nodes && !status; i++)
        if (has_weights(&quantized->node[i]) && ptq_node_mode(quantized, i) == PTQ_MODE_INTEGER)
            correct_layer(&e, quantized, &quantized->node[i]);
    free(e.x);
    free(e.all);
    ptq_model_free(like);
    return status ? status : ptq_model_check(quantized, err);
}

ptq_status correct_biases_of(const char *original, const ptq_model *fused,
                             const ptq_calibration *calibration, ptq_model *quantized,
                             ptq_error *err) {
    const char *scheme = ptq_model_get_meta(quantized, "scheme");
    ptq_model *model = NULL;
    char text[1100];
    ptq_status status = ptq_model_load(original, NULL, &model, err);

    snprintf(text, sizeof text, "%s; biases: analytic", scheme ? scheme : "");
    if (!status)
        status = correct_biases(fused, model, calibration, quantized, err);
    if (!status)
        status = ptq_model_set_meta(quantized, "scheme", text, err);
    ptq_model_free(model);
    return status;
}
