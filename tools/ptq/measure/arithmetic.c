#include <stdlib.h>
#include <string.h>

#include "measure/arithmetic.h"

static int code_at(const ptq_tensor *tensor, int at) {
    return (int)ptq_tensor_number(tensor, (size_t)at);
}

/* Where the window lies, and how many products it has. */
static void place_window(arithmetic *a, const ptq_tensor *in) {
    const ptq_node *n = a->node;
    const ptq_tensor *weight = &n->param[PTQ_PARAM_WEIGHT];

    a->window[1] = a->window[2] = 1;
    if (n->op == PTQ_OP_DENSE) {
        a->window[0] = weight->dim[1];
    } else if (n->op == PTQ_OP_CONV2D) {
        memcpy(a->window, weight->dim + 1, sizeof a->window);
        a->top = a->y * n->stride[0] - n->pad[0];
        a->left = a->x * n->stride[1] - n->pad[1];
        a->channel = a->c / (weight->dim[0] / n->groups) * weight->dim[1];
    } else {
        a->window[0] = 1;
        a->window[1] = in->dim[0];
        a->window[2] = in->dim[1];
        a->channel = a->c;
    }
    a->taps = a->window[0] * a->window[1] * a->window[2];
}

/* The input under tap k, less its zero point. */
static int input_under(const arithmetic *a, const ptq_tensor *in, int k) {
    int row = a->top + k / a->window[2] % a->window[1] * a->node->dilation[0];
    int column = a->left + k % a->window[2] * a->node->dilation[1];
    int channel = a->channel + k / (a->window[1] * a->window[2]);

    if (a->node->op == PTQ_OP_DENSE)
        return code_at(in, k) - in->zero_point;
    if (row < 0 || row >= in->dim[0] || column < 0 || column >= in->dim[1])
        return 0;
    return code_at(in, (row * in->dim[1] + column) * in->dim[2] + channel) - in->zero_point;
}

static ptq_status add_products(arithmetic *a, const ptq_tensor *in, ptq_error *err) {
    const ptq_tensor *weight = &a->node->param[PTQ_PARAM_WEIGHT];
    const int32_t *bias = a->node->param[PTQ_PARAM_BIAS].data;

    a->input = malloc((size_t)a->taps * sizeof *a->input);
    if (weight->rank)
        a->weight = malloc((size_t)a->taps * sizeof *a->weight);
    if (!a->input || (weight->rank && !a->weight))
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for the explanation");
    a->bias = a->sum = bias ? (int)bias[a->c] : 0;
    for (int k = 0; k < a->taps; k++) {
        a->input[k] = input_under(a, in, k);
        if (a->weight)
            a->weight[k] = code_at(weight, a->c * a->taps + k) - weight->zero_point;
        a->sum += a->input[k] * (a->weight ? a->weight[k] : 1);
    }
    return PTQ_OK;
}

/* The code or real number that becomes of the sum. */
static void finish_sum(arithmetic *a, const ptq_tensor *in, const ptq_step_info *step) {
    const ptq_tensor *weight = &a->node->param[PTQ_PARAM_WEIGHT];
    const ptq_qparams *q = a->node->residual ? &a->node->mid : &a->node->q;

    a->input_zero_point = (int)in->zero_point;
    a->input_scale = in->scale[0];
    a->weight_scale = a->weight ? weight->scale[weight->scales > 1 ? a->c : 0] : 1;
    a->multiplier = a->weight ? step->multiplier[a->c] : step->average;
    a->scaled = (float)((double)(float)a->sum * (double)a->multiplier); /* rounded once */
    a->coded = q->type != PTQ_TYPE_F32;
    if (!a->coded)
        return;
    a->scale = q->scale;
    a->zero_point = (int)q->zero_point;
    a->low = (int)step->low;
    a->high = (int)step->high;
    a->code = (int)ptq_requantize(a->sum, a->multiplier, q->zero_point, step->low, step->high);
    a->value = ptq_dequantize(a->code, q);
}

static ptq_status finish_addition(arithmetic *a, const ptq_plan *plan, const ptq_session *session,
                                  const ptq_step_info *step, ptq_error *err) {
    const ptq_node *n = a->node;
    const ptq_model *model = ptq_plan_get_info(plan)->model;
    int at = (a->y * n->shape[1] + a->x) * n->shape[2] + a->c;
    ptq_tensor sum, other;
    ptq_status status = ptq_session_tensor(session, n->out, &sum, err);

    if (!status)
        status = ptq_session_tensor(session, model->node[n->input[1]].out, &other, err);
    if (status)
        return status;
    a->adds = 1;
    a->own_first = n->residual == PTQ_RESIDUAL_SECOND;
    a->residual = code_at(&other, at);
    a->residual_value = ptq_tensor_real(&other, (size_t)at);
    memcpy(a->ratio, step->ratio, sizeof a->ratio);
    a->shift = step->shift;
    a->added_low = (int)step->sum_low;
    a->added_high = (int)step->sum_high;
    a->added_code = code_at(&sum, at);
    a->added_value = ptq_tensor_real(&sum, (size_t)at);
    return PTQ_OK;
}

/* 1 if the node is of a kind that is a sum of products of codes, and has the element. */
static int has_element(const ptq_model *model, int node, int y, int x, int c) {
    const ptq_node *n = &model->node[node < 0 ? 0 : node];
    int sums = n->op == PTQ_OP_CONV2D || n->op == PTQ_OP_DENSE ||
               (n->op == PTQ_OP_GLOBAL_AVG_POOL && n->q.type != PTQ_TYPE_F32);

    return sums && ptq_node_mode(model, node) == PTQ_MODE_INTEGER && y >= 0 && y < n->shape[0] &&
           x >= 0 && x < n->shape[1] && c >= 0 && c < n->shape[2];
}

void arithmetic_close(arithmetic *a) {
    free(a->input);
    free(a->weight);
    memset(a, 0, sizeof *a);
}

ptq_status arithmetic_open(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, arithmetic *out, ptq_error *err) {
    const ptq_model *model = ptq_plan_get_info(plan)->model;
    const char *own = ptq_model_get_meta(model, "arithmetic");
    int index = ptq_model_find(model, node);
    arithmetic made = {0};
    ptq_step_info step;
    ptq_tensor in;
    ptq_status status;

    if (!has_element(model, index, y, x, c))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "explain: '%s' is no integer convolution, dense layer or average over"
                             " the image with an element (%d, %d, %d)",
                             node, y, x, c);
    if (own && strcmp(own, "onnx") != 0)
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "explain: '%s' is computed by TensorFlow Lite's arithmetic; only that of"
                             " models without an arithmetic of their own is explained",
                             node);
    made.node = &model->node[index];
    made.y = y;
    made.x = x;
    made.c = c;
    status = ptq_session_tensor(session, model->node[made.node->input[0]].out, &in, err);
    if (status)
        return status;
    ptq_plan_step(plan, index, &step);
    place_window(&made, &in);
    status = add_products(&made, &in, err);
    if (!status) {
        finish_sum(&made, &in, &step);
        status = made.node->residual ? finish_addition(&made, plan, session, &step, err) : PTQ_OK;
    }
    if (status)
        arithmetic_close(&made);
    else
        *out = made;
    return status;
}
