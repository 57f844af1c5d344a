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

static float round_code(float v, code_span span) { return rintf(clamped(v, span)); }

/* A weight of the state, in codes. */
static float latent_code(const trainer *t, const unit *u, const float *state, size_t k,
                         float step) {
    return t->options.from_codes ? state[u->weight + k] : state[u->weight + k] / step;
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
            u->rounded[k] = step * round_code(latent_code(t, u, t->state, k, step), span);
    }
}

/* Of weights that count in codes the step is a factor of the whole channel. An outermost code is
   reached from half a code beyond it too, or a weight that begins there would stay for ever. */
static double code_gradient(float v, float step, code_span span, float *g) {
    double towards_step = (double)*g * (double)round_code(v, span);

    *g = v > span.low - 0.5f && v < span.high + 0.5f ? *g * step : 0;
    return towards_step;
}

static double weight_gradient(float v, code_span span, float *g) {
    int inside = v > span.low && v < span.high;
    double towards_step = (double)*g * (double)(round_code(v, span) - (inside ? v : 0));

    *g = inside ? *g : 0;
    return towards_step;
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
            float v = latent_code(t, u, t->state, k, step), *g = &t->gradient[u->weight + k];

            sum += t->options.from_codes ? code_gradient(v, step, span, g)
                                         : weight_gradient(v, span, g);
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

double fake_bias_step(const trainer *t, const unit *u, const float *state, int o) {
    return input_step(t, u, state) * (double)weight_step(u, state, o);
}

/* The bias in these units, which are coarse at few bits, so that training has to know. */
static double round_bias(const trainer *t, const unit *u, const float *state, int o, double *step) {
    *step = fake_bias_step(t, u, state, o);
    return rint((double)state[u->bias + (size_t)o] / *step);
}

float fake_bias(const trainer *t, const unit *u, int o) {
    double step, rounded;

    if (!u->rounded)
        return t->state[u->bias + (size_t)o];
    rounded = round_bias(t, u, t->state, o, &step);
    return (float)(rounded * step);
}

int32_t fake_zero(const ptq_qparams *q, float number) {
    int32_t low, high;
    float zero = rintf(number);

    ptq_code_range(q->type, q->bits, &low, &high);
    return zero < (float)low ? low : zero > (float)high ? high : (int32_t)zero;
}

static code_span result_span(const trainer *t, const unit *u) {
    return span_of(u->q->type, u->q->bits,
                   u->zero == NONE ? u->q->zero_point : fake_zero(u->q, t->state[u->zero]));
}

void fake_codes(const trainer *t, unit *u) {
    code_span span = result_span(t, u);
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

/* With the zero point both ends of what can be represented move down. Where a ReLU holds the lower
   one, the zero point is best at the lowest code, and stays. */
static void zero_gradient(trainer *t, const unit *u) {
    double sum = over_shards(u->outside_sum, 0, 2) + over_shards(u->outside_sum, 1, 2);

    if (u->zero != NONE)
        t->gradient[u->zero] = u->act ? 0 : (float)(-sum * (double)u->t.step);
}

void fake_step_gradient(trainer *t, const unit *u) {
    code_span span = result_span(t, u);
    double sum = over_shards(u->step_sum, 0, 1), step = (double)u->t.step;

    t->gradient[u->step] = (float)(sum * step * share_of_step(u->size, span));
    zero_gradient(t, u);
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
                                    (int32_t)round_code(latent_code(t, u, state, k, step), span));
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
