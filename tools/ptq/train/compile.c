/* The graph compiled into units: who computes what, which numbers it trains, and how a convolution
   lies over its input. */
#include <string.h>

#include "train/units.h"

static int round_down(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

phase window_phase(const window *w, int axis, int number) {
    int in = axis ? w->width : w->height, s = w->stride[axis], shift = number - w->pad[axis];
    phase p;

    p.taps = number < w->kernel[axis] ? (w->kernel[axis] - number + s - 1) / s : 0;
    p.first = -round_down(shift, s);
    p.count = round_down(in - 1 - shift, s) - p.first + 1;
    if (p.count < 0)
        p.count = 0;
    return p;
}

static void measure_padding(unit *u, int axis) {
    const window *w = &u->w;
    int in = axis ? w->width : w->height, out = axis ? w->out_width : w->out_height;

    u->padded[axis] = larger(w->pad[axis] + in, (out - 1) * w->stride[axis] + w->kernel[axis]);
    u->before[axis] = 0;
    u->grown[axis] = out;
    for (int i = 0; i < w->stride[axis]; i++) {
        phase p = window_phase(w, axis, i);

        if (p.count && p.taps) {
            u->before[axis] = larger(u->before[axis], p.taps - 1 - p.first);
            u->grown[axis] = larger(u->grown[axis], p.first + p.count);
        }
    }
    u->grown[axis] += u->before[axis];
}

static void set_window(const ptq_model *model, unit *u) {
    const ptq_node *node = u->node;
    const int *in = model->node[node->input[0]].shape;
    window *w = &u->w;

    w->height = in[0];
    w->width = in[1];
    w->channels = in[2];
    w->out_height = node->shape[0];
    w->out_width = node->shape[1];
    w->outputs = node->shape[2];
    w->groups = 1;
    for (int i = 0; i < 2; i++) {
        w->kernel[i] = node->kernel[i];
        w->stride[i] = node->stride[i];
        w->pad[i] = node->pad[i];
    }
    if (u->op == PTQ_OP_CONV2D)
        w->groups = node->groups;
    if (u->op == PTQ_OP_DENSE) {
        w->channels = in[0] * in[1] * in[2];
        w->height = w->width = w->out_height = w->out_width = 1;
        w->kernel[0] = w->kernel[1] = w->stride[0] = w->stride[1] = 1;
        w->pad[0] = w->pad[1] = 0;
    }
    measure_padding(u, 0);
    measure_padding(u, 1);
}

const ptq_node *origin_of(const trainer *t, int node) {
    int found = ptq_model_find(t->origin, t->model->node[node].name);

    return found < 0 ? NULL : &t->origin->node[found];
}

static size_t add_numbers(trainer *t, int node, int param, size_t count, int trained, int decayed) {
    trainer_param *made = &t->param[t->params];

    if (!count)
        return NONE;
    made->node = node;
    made->param = param;
    made->offset = t->size;
    made->count = count;
    made->trained = trained;
    made->decayed = decayed;
    t->params++;
    t->size += count;
    return made->offset;
}

/* Of its own codes' model, what has none stays as it is. */
static size_t add_param(trainer *t, int node, int param, int trained, int decayed) {
    const ptq_tensor *from = &origin_of(t, node)->param[param];

    trained = trained && !(t->options.from_codes && from->type == PTQ_TYPE_F32);
    return add_numbers(t, node, param, ptq_tensor_elements(from), trained, decayed);
}

static int count_readers(const ptq_model *model, int node) {
    int readers = 0;

    for (int i = 0; i < model->nodes; i++)
        readers += (model->node[i].input[0] == node) + (model->node[i].input[1] == node);
    return readers;
}

static unit *new_unit(trainer *t, ptq_op op, int node) {
    unit *u = &t->unit[t->units++];

    u->op = op;
    u->node = &t->model->node[node];
    u->input[0] = u->input[1] = -1;
    u->weight = u->bias = u->gamma = u->beta = u->mean = u->variance = NONE;
    u->step = u->weight_step = u->zero = NONE;
    memcpy(u->shape, u->node->shape, sizeof u->shape);
    return u;
}

/* The unit that computes the node's input, if the node may become a part of it: it is read by no
   other, and nothing stands behind it that would have to come later. */
static unit *absorber(trainer *t, int node, int norm) {
    int input = t->model->node[node].input[0];
    unit *u = &t->unit[t->unit_of_node[input]];

    if (u->op == PTQ_OP_INPUT || count_readers(t->model, input) != 1 || u->act || (norm && u->norm))
        return NULL;
    return u;
}

static unit *own_unit(trainer *t, int node) {
    unit *u = new_unit(t, PTQ_OP_RELU, node);

    u->input[0] = t->unit_of_node[u->node->input[0]];
    return u;
}

static void take_norm(trainer *t, unit *u, int node) {
    u->norm = &t->model->node[node];
    u->gamma = add_param(t, node, PTQ_PARAM_WEIGHT, 1, 0);
    u->beta = add_param(t, node, PTQ_PARAM_BIAS, 1, 0);
    u->mean = add_param(t, node, PTQ_PARAM_MEAN, 0, 0);
    u->variance = add_param(t, node, PTQ_PARAM_VARIANCE, 0, 0);
    if (u->bias == NONE)
        return;
    u->bias_trained = t->options.frozen_norm;
    for (int i = 0; i < t->params; i++)
        if (t->param[i].offset == u->bias)
            t->param[i].trained = u->bias_trained;
}

/* Pixels keep the codes that they have: they are what they are. */
static void take_codes(trainer *t, unit *u, int node, const ptq_qparams *q, int param) {
    if (q->type == PTQ_TYPE_F32 || u->op == PTQ_OP_INPUT)
        return;
    u->q = q;
    u->step = add_numbers(t, node, param, 1, 1, 0);
    if (t->options.from_codes && !t->options.fixed_zeros)
        u->zero =
            add_numbers(t, node, param == TRAINER_STEP ? TRAINER_ZERO : TRAINER_MID_ZERO, 1, 1, 0);
}

static unit *compile_weights(trainer *t, int i) {
    const ptq_node *node = &t->model->node[i];
    unit *u = new_unit(t, node->op, i);

    u->input[0] = t->unit_of_node[node->input[0]];
    u->weight = add_param(t, i, PTQ_PARAM_WEIGHT, 1, 1);
    u->bias = add_param(t, i, PTQ_PARAM_BIAS, 1, 0);
    u->bias_trained = u->bias != NONE;
    u->act = node->act;
    set_window(t->model, u);
    if (node->param[PTQ_PARAM_WEIGHT].scales)
        u->weight_step = add_numbers(t, i, TRAINER_WEIGHT_STEP,
                                     (size_t)node->param[PTQ_PARAM_WEIGHT].scales, 1, 0);
    if (node->residual == PTQ_RESIDUAL_NONE) {
        take_codes(t, u, i, &node->q, TRAINER_STEP);
        return u;
    }
    take_codes(t, u, i, &node->mid, TRAINER_MID_STEP);
    u = new_unit(t, PTQ_OP_ADD, i);
    take_codes(t, u, i, &node->q, TRAINER_STEP);
    u->input[0] = t->units - 2;
    u->input[1] = t->unit_of_node[node->input[1]];
    u->act = node->add_act;
    return u;
}

static unit *compile_plain(trainer *t, int i) {
    const ptq_node *node = &t->model->node[i];
    unit *u = new_unit(t, node->op, i);

    for (int k = 0; k < 2; k++)
        if (node->input[k] >= 0)
            u->input[k] = t->unit_of_node[node->input[k]];
    u->act = node->act;
    if (node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_AVG_POOL)
        set_window(t->model, u);
    return u;
}

/* What the engine cannot imitate, or has no real weights for. */
static ptq_status check_node(const trainer *t, const ptq_node *node, ptq_error *err) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT], *real;
    int found = ptq_model_find(t->origin, node->name);

    if (node->dilation[0] != 1 || node->dilation[1] != 1 || node->ceil_mode)
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "node %s: dilation and ceil_mode cannot be trained", node->name);
    if (!weight->rank)
        return PTQ_OK;
    if (found < 0 || t->origin->node[found].op != node->op)
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s is not in the float model; give the float"
                             " model that the quantized one was made from",
                             node->name);
    real = &t->origin->node[found].param[PTQ_PARAM_WEIGHT];
    if ((real->type != PTQ_TYPE_F32 && !t->options.from_codes) || node->dynamic ||
        weight->type == PTQ_TYPE_F16)
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "node %s has no float weights, or computes with"
                             " dynamic ranges or half precision; train float models, or integer"
                             " ones beside their float origin",
                             node->name);
    if (real->rank != weight->rank || memcmp(real->dim, weight->dim, sizeof real->dim) != 0)
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s has another shape in the float model;"
                             " give the one that the quantized model was made from",
                             node->name);
    return PTQ_OK;
}

static ptq_status compile_node(trainer *t, int i, ptq_error *err) {
    const ptq_node *node = &t->model->node[i];
    unit *u = NULL;
    ptq_status status = check_node(t, node, err);

    if (status)
        return status;
    switch (node->op) {
    case PTQ_OP_CONV2D:
    case PTQ_OP_DENSE:
        u = compile_weights(t, i);
        break;
    case PTQ_OP_BATCH_NORM:
        u = absorber(t, i, 1);
        u = u ? u : own_unit(t, i);
        take_norm(t, u, i);
        break;
    case PTQ_OP_RELU:
    case PTQ_OP_RELU6:
        u = absorber(t, i, 0);
        u = u ? u : own_unit(t, i);
        u->act = node->op == PTQ_OP_RELU ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6;
        break;
    case PTQ_OP_QUANTIZE:
    case PTQ_OP_DEQUANTIZE:
        u = own_unit(t, i);
        take_codes(t, u, i, &node->q, TRAINER_STEP);
        break;
    case PTQ_OP_MAX_POOL: /* of codes: chooses among them */
        u = compile_plain(t, i);
        break;
    case PTQ_OP_INPUT:
    case PTQ_OP_ADD:
    case PTQ_OP_AVG_POOL:
    case PTQ_OP_GLOBAL_AVG_POOL:
        u = compile_plain(t, i);
        take_codes(t, u, i, &node->q, TRAINER_STEP);
        break;
    default:
        return ptq_error_set(err, PTQ_UNSUPPORTED, "node %s: %s cannot be trained", node->name,
                             ptq_name(PTQ_NAMES_OP, node->op));
    }
    t->unit_of_node[i] = (int)(u - t->unit);
    return PTQ_OK;
}

ptq_status units_compile(trainer *t, ptq_error *err) {
    int last = ptq_model_logits(t->model);
    const int *shape = t->model->node[last].shape;

    for (int i = 0; i <= last; i++) {
        ptq_status status = compile_node(t, i, err);

        if (status)
            return status;
    }
    t->logits = t->unit_of_node[last];
    if (shape[0] != 1 || shape[1] != 1 || shape[2] < 2)
        return ptq_error_set(
            err, PTQ_UNSUPPORTED,
            "the result is %d x %d x %d; training needs 1 x 1 x at least 2 classes", shape[0],
            shape[1], shape[2]);
    for (int i = 0; i < t->units; i++)
        for (int k = 0; k < 2; k++)
            if (t->unit[i].input[k] >= 0)
                t->unit[t->unit[i].input[k]].readers++;
    return PTQ_OK;
}
