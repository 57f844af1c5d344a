/* ptq models as TensorFlow Lite files, for ptq export. import/tflite_import.h says where the format
   is described. A file is a model with lists of operators' kinds, buffers, and one graph with
   tensors and operators; tensors and operators are collected first, and written in the end. */
#include "export/tflite.h"

#include <stdlib.h>
#include <string.h>

#include "export/flat_writer.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/output.h"
#include "shared/pixels.h"

/* Operators, as BuiltinOperator numbers them, with the kind of their options in BuiltinOptions and
   the versions from which on they take real numbers and int8. */
typedef struct kind {
    int code, options, version[2];
} kind;

enum {
    ADD,
    AVERAGE_POOL,
    CONV,
    DEPTHWISE,
    DEQUANTIZE,
    DENSE,
    MAX_POOL,
    RELU,
    RELU6,
    RESHAPE,
    SOFTMAX,
    PAD,
    QUANTIZE,
    MEAN,
    KINDS
};

static const kind kinds[KINDS] = {
    [ADD] = {0, 11, {1, 2}},       [AVERAGE_POOL] = {1, 5, {1, 2}}, [CONV] = {3, 1, {1, 3}},
    [DEPTHWISE] = {4, 2, {1, 3}},  [DEQUANTIZE] = {6, 0, {1, 2}},   [DENSE] = {9, 8, {1, 4}},
    [MAX_POOL] = {17, 5, {1, 2}},  [RELU] = {19, 0, {1, 2}},        [RELU6] = {21, 0, {1, 2}},
    [RESHAPE] = {22, 17, {1, 1}},  [SOFTMAX] = {25, 9, {1, 2}},     [PAD] = {34, 0, {1, 2}},
    [QUANTIZE] = {114, 0, {1, 1}}, [MEAN] = {40, 27, {1, 2}},
};

enum { FLOAT32 = 0, INT32 = 2, INT8 = 9 }; /* TensorType */
enum { SAME = 0, VALID = 1 };

typedef struct tensor {
    char name[2 * PTQ_NAME_SIZE];
    int type, rank, dim[4];
    const ptq_node *from;      /* of a weight: permuted; else NULL */
    const ptq_tensor *numbers; /* constants; NULL: computed, or `integers` */
    int depthwise;
    int integers[8], count; /* a small constant of whole numbers */
    ptq_qparams q;          /* of what is computed */
} tensor;

typedef struct operation {
    int kind, in[3], inputs, out;
    int padding, stride[2], window[2], act, multiplier;
} operation;

typedef struct writer {
    const ptq_model *model;
    flat_writer to;
    tensor *tensor;
    operation *operation;
    int tensors, operations, coded;
    int of[PTQ_MAX_NODES]; /* the tensor of each node's result */
    size_t buffer;         /* vector */
} writer;

/* ---- Tensors and operators ---- */

enum { MOST_EACH = 8 }; /* that one node makes */

static tensor *new_tensor(writer *w, const char *name, const char *suffix) {
    tensor *made = &w->tensor[w->tensors++];

    snprintf(made->name, sizeof made->name, "%s%s", name, suffix);
    return made;
}

static int number_of(const writer *w, const tensor *made) { return (int)(made - w->tensor); }

/* N x H x W x C, or N x C where it is flat. */
static int new_result(writer *w, const char *name, const ptq_node *node, const ptq_qparams *q,
                      int flat) {
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

static operation *new_operation(writer *w, int what, int in, int out) {
    operation *made = &w->operation[w->operations++];

    made->kind = what;
    made->in[0] = in;
    made->inputs = 1;
    made->out = out;
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

    op = new_operation(w, MEAN, from, out);
    op->in[op->inputs++] = numbers;
    return 0;
}

/* Options of convolutions end in the dilation, which is left out where there is none: 1. */
static int check_dilation(const ptq_node *node) {
    return node->dilation[0] == 1 && node->dilation[1] == 1
               ? 0
               : fail("node %s: dilated convolutions are not exported to TensorFlow Lite",
                      node->name);
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

    if (check_weights(node) || check_dilation(node))
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
    if (w->tensor[from].rank == 4) {
        int shape[2] = {1, before->shape[0] * before->shape[1] * before->shape[2]};
        int numbers = new_integers(w, node->name, ".shape", shape, 2, 1), row;

        row = new_result(w, node->name, before, &w->tensor[from].q, 1);
        strcat(w->tensor[row].name, ".row");
        op = new_operation(w, RESHAPE, from, row);
        op->in[op->inputs++] = numbers;
        from = row;
    }
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
        return write_global_pool(w, node, from, out);
    case PTQ_OP_RELU:
    case PTQ_OP_RELU6:
        return !new_operation(w, node->op == PTQ_OP_RELU ? RELU : RELU6, from, out);
    case PTQ_OP_SOFTMAX:
        return !new_operation(w, SOFTMAX, from, out);
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
    int dense = node->op == PTQ_OP_DENSE;

    return dense || (node->op != PTQ_OP_INPUT && w->tensor[w->of[node->input[0]]].rank == 2);
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

/* ---- Writing ---- */

static void write_scales(writer *w, size_t at, const float *scale, int count, int64_t zero,
                         int axis) {
    size_t table = flat_new_table(&w->to, "0044004"), scales, zeros;

    flat_link(&w->to, at, table);
    flat_put(&w->to, flat_field(&w->to, table, 6), 4, axis);
    scales = flat_new_vector(&w->to, (size_t)count, 4, 4);
    flat_link(&w->to, flat_field(&w->to, table, 2), scales);
    zeros = flat_new_vector(&w->to, (size_t)count, 8, 8);
    flat_link(&w->to, flat_field(&w->to, table, 3), zeros);
    for (int i = 0; i < count; i++) {
        flat_put_real(&w->to, flat_element(scales, (size_t)i, 4), scale[i]);
        flat_put(&w->to, flat_element(zeros, (size_t)i, 8), 8, zero);
    }
}

/* The scales of a bias are those of its sums. */
static int write_quantization(writer *w, const tensor *t, size_t at) {
    const ptq_tensor *weight = t->from ? &t->from->param[PTQ_PARAM_WEIGHT] : NULL;
    float *scale;

    if (!weight) {
        write_scales(w, at, &t->q.scale, 1, t->q.zero_point, 0);
        return 0;
    }
    scale = malloc((size_t)weight->scales * sizeof *scale);
    if (!scale)
        return fail("no memory for the file");
    for (int i = 0; i < weight->scales; i++) {
        float in = w->model->node[t->from->input[0]].q.scale;

        scale[i] = t->type == INT32 ? in * weight->scale[i] : weight->scale[i];
    }
    write_scales(w, at, scale, weight->scales, 0, t->depthwise ? 3 : 0);
    free(scale);
    return 0;
}

/* Element i of what is written, in the order of the model's weights, O x I x KH x KW. */
static size_t source(const tensor *t, size_t i) {
    size_t height = (size_t)t->dim[1], width = (size_t)t->dim[2], last = (size_t)t->dim[3];
    size_t c, x, y, o;

    if (t->rank != 4)
        return i;
    c = i % last, x = i / last % width, y = i / last / width % height;
    o = i / last / width / height;
    return t->depthwise ? (c * height + y) * width + x : ((o * last + c) * height + y) * width + x;
}

static void write_numbers(writer *w, const tensor *t, size_t at) {
    size_t width = t->type == INT8 ? 1 : 4, count = 1, data;

    for (int i = 0; i < t->rank; i++)
        count *= (size_t)t->dim[i];
    data = flat_new_vector(&w->to, count * width, 1, 16);
    flat_link(&w->to, at, data);
    for (size_t i = 0; i < count; i++) {
        size_t to = flat_element(data, i, width);

        if (t->count)
            flat_put(&w->to, to, 4, t->integers[i]);
        else if (t->numbers && t->type == FLOAT32)
            flat_put_real(&w->to, to, ptq_tensor_number(t->numbers, source(t, i)));
        else if (t->numbers && t->type == INT32)
            flat_put(&w->to, to, 4, ((const int32_t *)t->numbers->data)[i]);
        else if (t->numbers)
            flat_put(&w->to, to, 1, (int64_t)ptq_tensor_number(t->numbers, source(t, i)));
    }
}

/* Tensor i is kept in buffer i + 1; buffer 0 is empty, as the format wants it. */
static int write_tensors(writer *w, size_t graph) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, (size_t)w->tensors, 4, 4);

    flat_link(to, flat_field(to, graph, 0), list);
    for (int i = 0; i < w->tensors; i++) {
        const tensor *t = &w->tensor[i];
        int coded = t->type == INT8 || (t->type == INT32 && t->from);
        size_t table = flat_new_table(to, coded ? "41444" : "4144");

        flat_link(to, flat_element(list, (size_t)i, 4), table);
        flat_put(to, flat_field(to, table, 1), 1, t->type);
        flat_put(to, flat_field(to, table, 2), 4, i + 1);
        flat_link(to, flat_field(to, table, 0), flat_new_integers(to, t->dim, (size_t)t->rank));
        flat_link(to, flat_field(to, table, 3), flat_new_text(to, t->name));
        if (coded && write_quantization(w, t, flat_field(to, table, 4)))
            return 1;
    }
    return 0;
}

/* Fields as the schema numbers them in the options of each kind. */
static size_t write_options(writer *w, const operation *op) {
    flat_writer *to = &w->to;
    const char *fields = op->kind == CONV        ? "1441"
                         : op->kind == DEPTHWISE ? "14441"
                         : op->kind == DENSE     ? "1"
                         : op->kind == SOFTMAX   ? "4"
                         : op->kind == ADD       ? "1"
                         : op->kind == MEAN      ? "1"
                         : op->kind == RESHAPE   ? ""
                                                 : "144441";
    size_t table = flat_new_table(to, fields);

    if (op->kind == SOFTMAX)
        flat_put_real(to, flat_field(to, table, 0), 1);
    if (op->kind == DENSE || op->kind == ADD)
        flat_put(to, flat_field(to, table, 0), 1, op->act);
    if (op->kind == MEAN) /* keeps the dimensions, as 1 x 1 */
        flat_put(to, flat_field(to, table, 0), 1, 1);
    if (fields[0] == 0 || fields[1] == 0)
        return table;
    flat_put(to, flat_field(to, table, 0), 1, op->padding);
    flat_put(to, flat_field(to, table, 1), 4, op->stride[1]);
    flat_put(to, flat_field(to, table, 2), 4, op->stride[0]);
    if (op->kind == DEPTHWISE)
        flat_put(to, flat_field(to, table, 3), 4, op->multiplier);
    if (op->kind == AVERAGE_POOL || op->kind == MAX_POOL) {
        flat_put(to, flat_field(to, table, 3), 4, op->window[1]);
        flat_put(to, flat_field(to, table, 4), 4, op->window[0]);
    }
    flat_put(to, flat_field(to, table, (int)strlen(fields) - 1), 1, op->act);
    return table;
}

static void write_operations(writer *w, size_t graph) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, (size_t)w->operations, 4, 4);

    flat_link(to, flat_field(to, graph, 3), list);
    for (int i = 0; i < w->operations; i++) {
        const operation *op = &w->operation[i];
        int options = kinds[op->kind].options;
        size_t table = flat_new_table(to, options ? "44414" : "444");

        flat_link(to, flat_element(list, (size_t)i, 4), table);
        flat_put(to, flat_field(to, table, 0), 4, op->kind);
        flat_link(to, flat_field(to, table, 1), flat_new_integers(to, op->in, (size_t)op->inputs));
        flat_link(to, flat_field(to, table, 2), flat_new_integers(to, &op->out, 1));
        if (options) {
            flat_put(to, flat_field(to, table, 3), 1, options);
            flat_link(to, flat_field(to, table, 4), write_options(w, op));
        }
    }
}

static void write_kinds(writer *w, size_t model) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, KINDS, 4, 4);

    flat_link(to, flat_field(to, model, 1), list);
    for (size_t i = 0; i < KINDS; i++) {
        size_t table = flat_new_table(to, "1044");

        flat_link(to, flat_element(list, i, 4), table);
        flat_put(to, flat_field(to, table, 0), 1, kinds[i].code);
        flat_put(to, flat_field(to, table, 2), 4, kinds[i].version[w->coded]);
        flat_put(to, flat_field(to, table, 3), 4, kinds[i].code);
    }
}

static int write_graph(writer *w, size_t model) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, 1, 4, 4), graph = flat_new_table(to, "44444");
    int last = w->of[w->model->nodes - 1];

    flat_link(to, flat_field(to, model, 2), list);
    flat_link(to, flat_element(list, 0, 4), graph);
    if (write_tensors(w, graph))
        return 1;
    flat_link(to, flat_field(to, graph, 1), flat_new_integers(to, &w->of[0], 1));
    flat_link(to, flat_field(to, graph, 2), flat_new_integers(to, &last, 1));
    write_operations(w, graph);
    flat_link(to, flat_field(to, graph, 4), flat_new_text(to, "main"));
    return 0;
}

/* What the network alone does not say, for ptq import: each in a buffer behind those of tensors. */
static const char *const kept_metas[] = {"arithmetic", "class_names", "resize"};
enum { KEPT_MEAN, KEPT_STD, NUMBERS, KEPT = NUMBERS + sizeof kept_metas / sizeof *kept_metas };

static void write_metadata(writer *w, size_t model) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, KEPT, 4, 4);

    flat_link(to, flat_field(to, model, 6), list);
    for (int i = 0; i < (int)KEPT; i++) {
        size_t table = flat_new_table(to, "44");
        char name[64];

        snprintf(name, sizeof name, "ptq.%s",
                 i == KEPT_MEAN  ? "mean"
                 : i == KEPT_STD ? "std"
                                 : kept_metas[i - NUMBERS]);
        flat_link(to, flat_element(list, (size_t)i, 4), table);
        flat_put(to, flat_field(to, table, 1), 4, w->tensors + 1 + i);
        flat_link(to, flat_field(to, table, 0), flat_new_text(to, name));
    }
}

static void write_kept(writer *w, int i, size_t at) {
    const char *text = i < NUMBERS ? NULL : ptq_model_get_meta(w->model, kept_metas[i - NUMBERS]);
    const float *numbers = i == KEPT_MEAN ? w->model->mean : w->model->std;
    size_t data;

    if (i >= NUMBERS) {
        flat_link(&w->to, at, flat_new_text(&w->to, text ? text : ""));
        return;
    }
    data = flat_new_vector(&w->to, 4 * PTQ_MAX_PIXEL_CHANNELS, 1, 16);
    flat_link(&w->to, at, data);
    for (size_t c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        flat_put_real(&w->to, flat_element(data, c, 4), numbers[c]);
}

static void write_buffers(writer *w, size_t model) {
    flat_writer *to = &w->to;
    int count = w->tensors + 1 + (int)KEPT;
    size_t list = flat_new_vector(to, (size_t)count, 4, 4);

    flat_link(to, flat_field(to, model, 4), list);
    for (int i = 0; i < count; i++) {
        const tensor *t = i && i <= w->tensors ? &w->tensor[i - 1] : NULL;
        int kept = i - w->tensors - 1;
        int constant = t && (t->count || t->numbers || (t->from && t->type != INT8));
        size_t table = flat_new_table(to, constant || kept >= 0 ? "4" : "");

        flat_link(to, flat_element(list, (size_t)i, 4), table);
        if (kept >= 0)
            write_kept(w, kept, flat_field(to, table, 0));
        else if (constant)
            write_numbers(w, t, flat_field(to, table, 0));
    }
}

static int write_file(writer *w, const char *path) {
    flat_writer *to = &w->to;
    size_t model;
    ptq_error err;

    flat_begin(to, "TFL3");
    model = flat_new_table(to, "4444404");
    flat_link(to, FLAT_ROOT, model);
    flat_put(to, flat_field(to, model, 0), 4, 3);
    write_kinds(w, model);
    if (write_graph(w, model))
        return 1;
    flat_link(to, flat_field(to, model, 3), flat_new_text(to, "written by ptq"));
    write_metadata(w, model);
    write_buffers(w, model);
    if (to->failed)
        return fail("no memory for the file");
    return ptq_file_write(path, to->bytes, to->size, &err) ? fail("%s", err.text) : 0;
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
                                         : collect(w) || write_file(w, out_path);
    if (!status)
        tell_input(w);
    flat_free(&w->to);
    free(w->tensor);
    free(w->operation);
    free(w);
    ptq_model_free(model);
    return status;
}
