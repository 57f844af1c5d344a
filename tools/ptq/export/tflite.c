/* ptq models as TensorFlow Lite files, for ptq export: what each node becomes. */
#include "export/tflite.h"

#include <stdlib.h>
#include <string.h>

#include "export/tflite_export.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/output.h"
#include "shared/pixels.h"

/* ---- Tensors and operators ---- */

enum { MOST_EACH = 8 }; /* that one node makes */

static tensor *new_tensor(writer *w, const char *name, const char *suffix) {
    tensor *made = &w->tensor[w->tensors++];

    snprintf(made->name, sizeof made->name, "%s%s", name, suffix);
    return made;
}

static int number_of(const writer *w, const tensor *made) { return (int)(made - w->tensor); }

/* N x H x W x C, or N x C where it is flat. */
int new_result(writer *w, const char *name, const ptq_node *node, const ptq_qparams *q, int flat) {
    tensor *made = new_tensor(w, name, "");
    int dims[4] = {1, node->shape[0], node->shape[1], node->shape[2]};

    made->type = q->type == PTQ_TYPE_F32 ? FLOAT32 : INT8;
    made->rank = flat ? 2 : 4;
    memcpy(made->dim, dims, sizeof dims);
    if (flat)
        made->dim[1] = dims[1] * dims[2] * dims[3];
    made->q = *q;
    return number_of(w, made);
}

static int new_integers(writer *w, const char *name, const char *suffix, const int *from, int count,
                        int rank) {
    tensor *made = new_tensor(w, name, suffix);

    made->type = INT32;
    made->rank = rank;
    made->dim[0] = rank == 2 ? count / 2 : count;
    made->dim[1] = 2;
    made->count = count;
    memcpy(made->integers, from, (size_t)count * sizeof *from);
    return number_of(w, made);
}

/* O x KH x KW x I, or 1 x KH x KW x O of a depthwise convolution; or O x I. */
static int new_weight(writer *w, const ptq_node *node, int depthwise) {
    tensor *made = new_tensor(w, node->name, ".weight");
    const ptq_tensor *from = &node->param[PTQ_PARAM_WEIGHT];
    const int *dim = from->dim;
    int dims[4] = {depthwise ? 1 : dim[0], dim[2], dim[3], depthwise ? dim[0] : dim[1]};

    made->type = from->type == PTQ_TYPE_F32 ? FLOAT32 : INT8;
    made->rank = from->rank;
    memcpy(made->dim, from->rank == 4 ? dims : dim, sizeof dims);
    made->from = node;
    made->numbers = from;
    made->depthwise = depthwise;
    return number_of(w, made);
}

static int new_bias(writer *w, const ptq_node *node) {
    tensor *made = new_tensor(w, node->name, ".bias");

    made->type = node->param[PTQ_PARAM_WEIGHT].type == PTQ_TYPE_F32 ? FLOAT32 : INT32;
    made->rank = 1;
    made->dim[0] = node->channels;
    made->numbers = node->no_bias ? NULL : &node->param[PTQ_PARAM_BIAS];
    made->from = node;
    return number_of(w, made);
}

operation *new_operation(writer *w, int what, int in, int out) {
    operation *made = &w->operation[w->operations++];

    made->kind = what;
    made->in[0] = in;
    made->inputs = 1;
    made->out = out;
    return made;
}

int new_constant(writer *w, const char *name, const char *suffix, const ptq_tensor *numbers) {
    tensor *made = new_tensor(w, name, suffix);

    made->type = FLOAT32;
    made->rank = numbers->rank;
    memcpy(made->dim, numbers->dim, sizeof made->dim);
    made->numbers = numbers;
    return number_of(w, made);
}

int with_shape(writer *w, const char *name, const ptq_node *before, int from, int flat) {
    int row[2] = {1, before->shape[0] * before->shape[1] * before->shape[2]};
    int image[4] = {1, before->shape[0], before->shape[1], before->shape[2]}, numbers, made;
    operation *op;

    if (w->tensor[from].rank == (flat ? 2 : 4))
        return from;
    numbers = new_integers(w, name, ".shape", flat ? row : image, flat ? 2 : 4, 1);
    made = new_result(w, name, before, &w->tensor[from].q, flat);
    strcat(w->tensor[made].name, flat ? ".row" : ".image");
    op = new_operation(w, RESHAPE, from, made);
    op->in[op->inputs++] = numbers;
    return made;
}

/* ---- Nodes ---- */

static int activation(ptq_activation act) {
    return act == PTQ_ACTIVATION_RELU6 ? 3 : act == PTQ_ACTIVATION_RELU;
}

/* Padding that is neither SAME nor none is done by an operator of its own in front. Codes are padded
   with the zero point, as convolutions want it. */
static int pad_in_front(writer *w, const ptq_node *node, int from) {
    const int *pad = node->pad, numbers[8] = {0, 0, pad[0], pad[2], pad[1], pad[3], 0, 0};
    const tensor *input = &w->tensor[from];
    tensor *made;
    operation *op;
    int paddings = new_integers(w, node->name, ".paddings", numbers, 8, 2);

    made = new_tensor(w, node->name, ".padded");
    made->type = input->type;
    made->rank = 4;
    made->q = input->q;
    memcpy(made->dim, input->dim, sizeof made->dim);
    made->dim[1] += pad[0] + pad[2];
    made->dim[2] += pad[1] + pad[3];
    op = new_operation(w, PAD, from, number_of(w, made));
    op->in[op->inputs++] = paddings;
    return op->out;
}

static int is_padded(const ptq_node *node) {
    return node->padding == PTQ_PADDING_EXPLICIT &&
           (node->pad[0] || node->pad[1] || node->pad[2] || node->pad[3]);
}

static void set_window(operation *op, const ptq_node *node) {
    op->padding = node->padding == PTQ_PADDING_SAME ? SAME : VALID;
    memcpy(op->stride, node->stride, sizeof op->stride);
    memcpy(op->window, node->kernel, sizeof op->window);
    memcpy(op->dilation, node->dilation, sizeof op->dilation);
}

static int write_pool(writer *w, const ptq_node *node, int from, int out) {
    operation *op;

    if (node->ceil_mode)
        return fail("node %s: TensorFlow Lite's pools round sizes down", node->name);
    if (is_padded(node) && !(node->op == PTQ_OP_AVG_POOL && node->include_pad))
        return fail("node %s: TensorFlow Lite's pools pad as SAME does, or not at all; give it one "
                    "of these paddings",
                    node->name);
    if (is_padded(node))
        from = pad_in_front(w, node, from);
    op = new_operation(w, node->op == PTQ_OP_MAX_POOL ? MAX_POOL : AVERAGE_POOL, from, out);
    set_window(op, node);
    return 0;
}

static int write_global_pool(writer *w, const ptq_node *node, int from, int out) {
    const int axes[2] = {1, 2};
    operation *op;
    int numbers = new_integers(w, node->name, ".axes", axes, 2, 1);

    op = new_operation(w, node->op == PTQ_OP_GLOBAL_MAX_POOL ? REDUCE_MAX : MEAN, from, out);
    op->in[op->inputs++] = numbers;
    return 0;
}

static int check_weights(const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];

    if (weight->type == PTQ_TYPE_F16)
        return fail("node %s: half precision is written by no export; export the float model",
                    node->name);
    if (node->dynamic)
        return fail("node %s: dynamic quantization is not exported; quantize with --preset tflite",
                    node->name);
    if (weight->type == PTQ_TYPE_U8 || weight->type == PTQ_TYPE_PACKED_U || weight->zero_point)
        return fail("node %s: its weights have a zero point, for which TensorFlow Lite has no "
                    "operators; quantize with --weight-symmetric",
                    node->name);
    return 0;
}

/* TensorFlow Lite keeps an addition apart: the convolution ends in the codes before it. */
static void write_residual(writer *w, const ptq_node *node, int own, int out) {
    int first = node->residual == PTQ_RESIDUAL_FIRST, other = w->of[node->input[1]];
    operation *op = new_operation(w, ADD, first ? other : own, out);

    op->in[op->inputs++] = first ? own : other;
    op->act = activation(node->add_act);
}

static int write_conv(writer *w, const ptq_node *node, int from, int out) {
    int in = w->model->node[node->input[0]].shape[2];
    int depthwise = node->groups > 1 && node->groups == in;
    int own = out;
    operation *op;

    if (check_weights(node))
        return 1;
    if (node->residual)
        own = new_result(w, node->name, node, &node->mid, 0);
    if (is_padded(node))
        from = pad_in_front(w, node, from);
    op = new_operation(w, depthwise ? DEPTHWISE : CONV, from, own);
    set_window(op, node);
    op->multiplier = node->channels / in;
    op->act = activation(node->act);
    op->in[op->inputs++] = new_weight(w, node, depthwise);
    op->in[op->inputs++] = new_bias(w, node);
    if (node->residual)
        write_residual(w, node, own, out);
    return 0;
}

/* A row is made of an image first. */
static int write_dense(writer *w, const ptq_node *node, int from, int out) {
    const ptq_node *before = &w->model->node[node->input[0]];
    operation *op;

    if (check_weights(node))
        return 1;
    from = with_shape(w, node->name, before, from, 1);
    op = new_operation(w, DENSE, from, out);
    op->act = activation(node->act);
    op->in[op->inputs++] = new_weight(w, node, 0);
    op->in[op->inputs++] = new_bias(w, node);
    return 0;
}

static int write_add(writer *w, const ptq_node *node, int from, int out) {
    operation *op = new_operation(w, ADD, from, out);

    op->in[op->inputs++] = w->of[node->input[1]];
    op->act = activation(node->act);
    return 0;
}

static int write_operator(writer *w, const ptq_node *node, int from, int out) {
    switch (node->op) {
    case PTQ_OP_CONV2D:
        return write_conv(w, node, from, out);
    case PTQ_OP_DENSE:
        return write_dense(w, node, from, out);
    case PTQ_OP_ADD:
        return write_add(w, node, from, out);
    case PTQ_OP_MAX_POOL:
    case PTQ_OP_AVG_POOL:
        return write_pool(w, node, from, out);
    case PTQ_OP_GLOBAL_AVG_POOL:
    case PTQ_OP_GLOBAL_MAX_POOL:
        return write_global_pool(w, node, from, out);
    case PTQ_OP_RELU:
    case PTQ_OP_RELU6:
        return !new_operation(w, node->op == PTQ_OP_RELU ? RELU : RELU6, from, out);
    case PTQ_OP_SOFTMAX:
    case PTQ_OP_LOG_SOFTMAX:
        return !new_operation(w, node->op == PTQ_OP_SOFTMAX ? SOFTMAX : LOG_SOFTMAX, from, out);
    case PTQ_OP_FUNCTION:
        return write_function(w, node, from, out);
    case PTQ_OP_MUL:
        return write_product(w, node, from, out);
    case PTQ_OP_CONCAT:
        return write_concat(w, node, from, out);
    case PTQ_OP_QUANTIZE:
        return !new_operation(w, QUANTIZE, from, out);
    case PTQ_OP_DEQUANTIZE:
        return !new_operation(w, DEQUANTIZE, from, out);
    default:
        return fail("node %s: %s is not exported to TensorFlow Lite", node->name,
                    ptq_name(PTQ_NAMES_OP, node->op));
    }
}

/* What int8 of TensorFlow Lite can stand for. */
static int check_codes(const ptq_model *model, const ptq_node *node) {
    const ptq_qparams *q = &node->q;

    if (ptq_node_mode(model, (int)(node - model->node)) == PTQ_MODE_INTEGER &&
        q->type == PTQ_TYPE_F32)
        return fail(
            "node %s: the logits are real numbers, which TensorFlow Lite's integer layers do "
            "not give; quantize with --code-logits",
            node->name);
    if (q->type == PTQ_TYPE_F32)
        return 0;
    if (q->type != PTQ_TYPE_S8 || q->bits != 8)
        return fail(
            "node %s: its result is coded as %s of %d bits, and TensorFlow Lite has s8 of 8; "
            "quantize with --activation-type s8 --activation-bits 8",
            node->name, ptq_name(PTQ_NAMES_TYPE, q->type), q->bits);
    return 0;
}

static int is_flat(const writer *w, const ptq_node *node) {
    int flat = node->op != PTQ_OP_INPUT;

    for (int k = 0; k < 2 && node->input[k] >= 0; k++)
        flat &= w->tensor[w->of[node->input[k]]].rank == 2;
    return flat || node->op == PTQ_OP_DENSE;
}

static int collect(writer *w) {
    const ptq_model *model = w->model;
    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];

        if (check_codes(model, node))
            return 1;
        w->coded |= node->q.type != PTQ_TYPE_F32;
        w->of[i] = new_result(w, node->residual ? node->out : node->name, node, &node->q,
                              is_flat(w, node));
        if (i && write_operator(w, node, w->of[node->input[0]], w->of[i]))
            return 1;
    }

    if (w->coded && has_onnx_arithmetic(model))
        return fail("the model has ONNX Runtime's arithmetic, and TensorFlow Lite would give other "
                    "codes; quantize with --arithmetic xnnpack");
    return 0;
}

/* What a program has to feed, which the file itself does not say: real numbers are preprocessed
   outside, and so are codes, for which a pixel less 128 is enough where each pixel has its own. */
static void tell_input(const writer *w) {
    const ptq_model *model = w->model;
    const ptq_node *input = &model->node[0];
    char mean[256], std[256];
    int plain = input->q.type == PTQ_TYPE_S8;

    for (int p = 0; p < 256 && plain; p++)
        for (int c = 0; c < input->shape[2] && c < PTQ_MAX_PIXEL_CHANNELS; c++)
            plain &=
                ptq_quantize(((float)p - model->mean[c]) / model->std[c], &input->q) == p - 128;
    list_channels(model, model->mean, 1, mean, sizeof mean);
    list_channels(model, model->std, 1, std, sizeof std);
    if (plain)
        say("input: int8, pixel - 128\n");
    else if (input->q.type == PTQ_TYPE_S8)
        say("input: int8, ((pixel - %s) / %s) / %g %+d, rounded\n", mean, std,
            (double)input->q.scale, (int)input->q.zero_point);
    else if (scales_pixels(model))
        say("input: float, (x - %s) / %s\n", mean, std);
}

/* Float models without batch norms: these fold into the layers before them. */
static int load_folded(const char *path, ptq_model **out) {
    ptq_model *loaded = NULL;
    ptq_error err;
    int status;

    if (ptq_model_load(path, NULL, &loaded, &err))
        return fail("%s", err.text);
    status = ptq_fuse(loaded, out, NULL, &err) ? fail("%s", err.text) : 0;
    ptq_model_free(loaded);
    return status;
}

int export_tflite(const char *model_path, const char *out_path) {
    writer *w = calloc(1, sizeof *w);
    ptq_model *model = NULL;
    int status;

    if (!w)
        return fail("no memory for the file");
    if (load_folded(model_path, &model)) {
        free(w);
        return 1;
    }
    w->model = model;
    w->tensor = calloc((size_t)model->nodes * MOST_EACH, sizeof *w->tensor);
    w->operation = calloc((size_t)model->nodes * MOST_EACH, sizeof *w->operation);
    status = !w->tensor || !w->operation ? fail("no memory for the file")
                                         : collect(w) || write_tflite(w, out_path);
    if (!status)
        tell_input(w);
    flat_free(&w->to);
    free(w->tensor);
    free(w->operation);
    free(w);
    ptq_model_free(model);
    return status;
}
