/* Fake quantization: weights, biases and results rounded as the integers will be, the gradients
   that reach weights and step sizes through it, and those integers themselves. */
#include <math.h>
#include <string.h>

#include "train/units.h"

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

float fake_step(float logarithm) { return (float)exp((double)logarithm); }

static float clamped(float v, code_span span) {
    return v < span.low ? span.low : v > span.high ? span.high : v;
}

/* Step size of output channel o. */
static float weight_step(const unit *u, const float *state, int o) {
    return fake_step(
        state[u->weight_step + (u->node->param[PTQ_PARAM_WEIGHT].scales > 1 ? (size_t)o : 0)]);
}

static float round_weight(float w, float step, code_span span) {
    return rintf(clamped(w / step, span));
}

static code_span weight_span(const unit *u) {
    const ptq_tensor *weight = &u->node->param[PTQ_PARAM_WEIGHT];

    return span_of(weight->type, weight->bits, weight->zero_point);
}

void fake_weights(trainer *t, unit *u) {
    size_t each = u->weights / (size_t)u->w.outputs;
    code_span span = weight_span(u);

    for (int o = 0; o < u->w.outputs; o++) {
        float step = weight_step(u, t->state, o);

        for (size_t k = (size_t)o * each; k < ((size_t)o + 1) * each; k++)
            u->rounded[k] = step * round_weight(t->state[u->weight + k], step, span);
    }
}

void fake_weight_gradient(trainer *t, const unit *u) {
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
    return in->q ? (double)fake_step(state[in->step]) : (double)in->node->q.scale;
}

/* The bias in units of input step times weight step, as it is added to integer products. Those are
   coarse at few bits, so that training has to know. */
static double round_bias(const trainer *t, const unit *u, const float *state, int o, double *step) {
    *step = input_step(t, u, state) * (double)weight_step(u, state, o);
    return rint((double)state[u->bias + (size_t)o] / *step);
}

float fake_bias(const trainer *t, const unit *u, int o) {
    double step, rounded;

    if (!u->rounded)
        return t->state[u->bias + (size_t)o];
    rounded = round_bias(t, u, t->state, o, &step);
    return (float)(rounded * step);
}

void fake_codes(const trainer *t, unit *u) {
    code_span span = span_of(u->q->type, u->q->bits, u->q->zero_point);
    float step = fake_step(t->state[u->step]);

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

void fake_step_gradient(trainer *t, const unit *u) {
    code_span span = span_of(u->q->type, u->q->bits, u->q->zero_point);
    double sum = over_shards(u->step_sum, 0, 1), step = (double)u->t.step;

    t->gradient[u->step] = (float)(sum * step * share_of_step(u->size, span));
}

ptq_status fake_export(const trainer *t, const unit *u, const float *state, ptq_model *model,
                       ptq_error *err) {
    ptq_node *node = &model->node[u->node - t->model->node];
    ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT], *bias = &node->param[PTQ_PARAM_BIAS];
    size_t each = u->weights / (size_t)u->w.outputs;
    code_span span = weight_span(u);

    for (int o = 0; o < u->w.outputs; o++) {
        float step = weight_step(u, state, o);
        double unit_step, b = u->bias == NONE ? 0 : round_bias(t, u, state, o, &unit_step);

        weight->scale[weight->scales > 1 ? o : 0] = step;
        for (size_t k = (size_t)o * each; k < ((size_t)o + 1) * each; k++)
            ptq_tensor_set_code(weight, k,
                                weight->zero_point +
                                    (int32_t)round_weight(state[u->weight + k], step, span));
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
