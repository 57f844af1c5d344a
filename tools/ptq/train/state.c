/* The state vector: taken from a model, drawn at random, and put into a model again. */
#include <math.h>
#include <string.h>

#include "train/units.h"

/* From codes, for each step of Adam: a weight in codes, for the caller to say how far; steps as
   logarithms; zero points in codes, which are rounded and would else never get anywhere. A bias
   counts in what the biases of its layer are like, since they differ by orders of magnitude, after
   equalization above all. */
static float rate_from_codes(const trainer *t, const trainer_param *p) {
    double sum = 0;

    if (p->param == PTQ_PARAM_WEIGHT)
        return 1;
    if (p->param != PTQ_PARAM_BIAS)
        return p->param == TRAINER_WEIGHT_STEP ? 0.003f : is_step(p->param) ? 0.006f : 0.15f;
    for (size_t i = p->offset; i < p->offset + p->count; i++)
        sum += (double)t->state[i] * (double)t->state[i];
    return (float)(0.002 * sqrt(sum / (double)p->count));
}

/* With folded batch norm, weights of different layers differ in size by orders of magnitude; one
   learning rate suits all if it counts relative to the tensor's root mean square (Shazeer and Stern
   2018, https://arxiv.org/abs/1804.04235, 8). Logarithms are relative already. */
static void set_rate(trainer *t, trainer_param *p) {
    double sum = 0;

    p->rate = p->param < PTQ_PARAM_COUNT ? 1 : 0.1f;
    if (t->options.from_codes) {
        p->rate = rate_from_codes(t, p);
        return;
    }
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
    else if (is_step(p->param))
        *to = (float)log((double)(p->param == TRAINER_STEP ? node->q.scale : node->mid.scale));
    else
        *to = (float)(p->param == TRAINER_ZERO ? node->q.zero_point : node->mid.zero_point);
}

/* Weights and biases from the model's own integers; the steps are known already. */
static void import_codes(trainer *t, const unit *u) {
    const ptq_tensor *weight = &u->node->param[PTQ_PARAM_WEIGHT];
    const ptq_tensor *bias = &u->node->param[PTQ_PARAM_BIAS];

    for (size_t k = 0; k < u->weights; k++)
        t->state[u->weight + k] = ptq_tensor_number(weight, k) - (float)weight->zero_point;
    for (int o = 0; u->bias != NONE && o < u->w.outputs; o++)
        t->state[u->bias + (size_t)o] =
            (float)((double)ptq_tensor_number(bias, (size_t)o) * fake_bias_step(t, u, t->state, o));
}

void state_import(trainer *t) {
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
    }
    for (int i = 0; t->options.from_codes && i < t->units; i++)
        if (t->unit[i].rounded)
            import_codes(t, &t->unit[i]);
    for (int i = 0; i < t->params; i++)
        set_rate(t, &t->param[i]);
}

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

/* Step sizes of results, before the nodes that read them need them. */
static void export_steps(const trainer *t, const float *state, ptq_model *model) {
    for (int i = 0; i < t->params; i++) {
        const trainer_param *p = &t->param[i];
        ptq_node *node = &model->node[p->node];

        if (p->param == TRAINER_STEP)
            node->q.scale = fake_step(state[p->offset]);
        if (p->param == TRAINER_MID_STEP)
            node->mid.scale = fake_step(state[p->offset]);
        if (p->param == TRAINER_ZERO)
            node->q.zero_point = fake_zero(&node->q, state[p->offset]);
        if (p->param == TRAINER_MID_ZERO)
            node->mid.zero_point = fake_zero(&node->mid, state[p->offset]);
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
            status = fake_export(t, &t->unit[i], state, model, err);
        if (status)
            return status;
    }
    return ptq_model_check(model, err);
}
