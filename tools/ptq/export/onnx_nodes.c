/* A model's nodes other than layers and additions; the table of all of them. */
#include <string.h>

#include "export/onnx_export.h"

#ifdef PTQ_HAVE_onnx

/* ---- Nodes of the model ---- */

/* What all forms of a pool say of it. */
static void add_pool_attributes(exporter *ex, Onnx__NodeProto *pool, const ptq_node *node) {
    if (node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_AVG_POOL)
        add_window(ex, pool, node);
    if (node->op == PTQ_OP_AVG_POOL)
        add_int(ex, pool, "count_include_pad", node->include_pad);
}

/* The window of a global pool of codes, for which there is no operator: the whole image. */
static ptq_node over_all(const exporter *ex, const ptq_node *node) {
    ptq_node whole = *node;

    memcpy(whole.kernel, ex->model->node[node->input[0]].shape, sizeof whole.kernel);
    return whole;
}

/* Averages on codes have operators of their own; ONNX's MaxPool works on codes as they are. */
static void export_integer_pool(exporter *ex, const ptq_node *node, result *to) {
    const coded *in = &ex->results[node->input[0]].q;
    const char *input = codes_of(ex, node->input[0], 4);
    codes_made made;
    Onnx__NodeProto *pool;

    if (node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_GLOBAL_MAX_POOL) {
        ptq_node window = node->op == PTQ_OP_MAX_POOL ? *node : over_all(ex, node);

        to->q = add_codes(ex, node->out, &node->q);
        add_node(ex, &pool, "MaxPool", node->name, to->q.codes, input, NO_MORE);
        add_window(ex, pool, &window);
        return;
    }
    made = begin_codes(ex, node->out, &node->q, PTQ_ACTIVATION_NONE);
    add_node(ex, &pool,
             node->op == PTQ_OP_AVG_POOL ? "QLinearAveragePool" : "QLinearGlobalAveragePool",
             node->name, made.raw, input, in->scale, in->zero_point, made.to.scale,
             made.to.zero_point, NO_MORE);
    set_microsoft(ex, pool);
    add_pool_attributes(ex, pool, node);
    to->q = end_codes(ex, &made, make_text(ex, "%s.clip", node->name));
}

static void export_pool(exporter *ex, const ptq_node *node, result *to) {
    const char *name = node->op == PTQ_OP_MAX_POOL          ? "MaxPool"
                       : node->op == PTQ_OP_AVG_POOL        ? "AveragePool"
                       : node->op == PTQ_OP_GLOBAL_MAX_POOL ? "GlobalMaxPool"
                                                            : "GlobalAveragePool";
    Onnx__NodeProto *pool;

    to->rank = 4;
    if (ex->integer && is_coded(node)) {
        export_integer_pool(ex, node, to);
        return;
    }
    to->real =
        add_node(ex, &pool, name, node->name, node->name, real_of(ex, node->input[0], 4), NO_MORE);
    add_pool_attributes(ex, pool, node);
}

static void export_batch_norm(exporter *ex, const ptq_node *node, result *to) {
    static const char *const name[] = {"weight", "bias", "running_mean", "running_var"};
    const char *param[PTQ_PARAM_COUNT];
    Onnx__NodeProto *norm;

    for (int i = 0; i < PTQ_PARAM_COUNT; i++)
        param[i] =
            add_floats(ex, make_text(ex, "%s.%s", node->name, name[i]), 1, node->param[i].dim,
                       node->param[i].data, (size_t)node->param[i].dim[0]);
    to->real =
        add_node(ex, &norm, "BatchNormalization", node->name, node->name,
                 real_of(ex, node->input[0], to->rank), param[PTQ_PARAM_WEIGHT],
                 param[PTQ_PARAM_BIAS], param[PTQ_PARAM_MEAN], param[PTQ_PARAM_VARIANCE], NO_MORE);
    add_float(ex, norm, "epsilon", node->epsilon);
}

static void export_act(exporter *ex, const ptq_node *node, result *to) {
    to->real = add_act(ex, node->op == PTQ_OP_RELU ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6,
                       node->name, real_of(ex, node->input[0], to->rank));
}

static void export_softmax(exporter *ex, const ptq_node *node, result *to) {
    Onnx__NodeProto *softmax;

    to->real = add_node(ex, &softmax, node->op == PTQ_OP_SOFTMAX ? "Softmax" : "LogSoftmax",
                        node->name, node->name, real_of(ex, node->input[0], to->rank), NO_MORE);
    add_int(ex, softmax, "axis", 1);
}

static void export_quantize(exporter *ex, const ptq_node *node, result *to) {
    to->real = add_node(ex, NULL, "Identity", make_text(ex, "%s.input", node->name), node->name,
                        real_of(ex, node->input[0], to->rank), NO_MORE);
}

static void export_dequantize(exporter *ex, const ptq_node *node, result *to) {
    const result *from = &ex->results[node->input[0]];

    to->real = add_node(ex, NULL, "DequantizeLinear", node->name, node->name, from->q.codes,
                        from->q.scale, from->q.zero_point, NO_MORE);
}

/* One step of preprocessing, x - mean or x / std, unless it changes nothing. */
static const char *preprocess(exporter *ex, const char *op, const char *what, const char *from,
                              const float *numbers, float neutral) {
    const ptq_node *input = &ex->model->node[0];
    const int dims[] = {1, input->shape[2], 1, 1};
    int changes = 0;

    for (int c = 0; c < input->shape[2] && c < PTQ_MAX_PIXEL_CHANNELS; c++)
        changes |= numbers[c] < neutral || numbers[c] > neutral;
    if (!changes)
        return from;
    return add_node(ex, NULL, op, make_text(ex, "%s.%s", input->name, what),
                    make_text(ex, "%s.minus_%s", from, what), from,
                    add_floats(ex, make_text(ex, "%s.%s", input->name, what), 4, dims, numbers,
                               (size_t)input->shape[2]),
                    NO_MORE);
}

static void export_input(exporter *ex, const ptq_node *node, result *to) {
    to->real = preprocess(ex, "Sub", "mean", node->name, ex->model->mean, 0);
    to->real = preprocess(ex, "Div", "std", to->real, ex->model->std, 1);
}

/* ---- The table ---- */

typedef void node_function(exporter *ex, const ptq_node *node, result *to);

static node_function *const functions[PTQ_OP_COUNT] = {
    [PTQ_OP_INPUT] = export_input,
    [PTQ_OP_CONV2D] = export_layer,
    [PTQ_OP_BATCH_NORM] = export_batch_norm,
    [PTQ_OP_RELU] = export_act,
    [PTQ_OP_RELU6] = export_act,
    [PTQ_OP_ADD] = export_add,
    [PTQ_OP_MAX_POOL] = export_pool,
    [PTQ_OP_AVG_POOL] = export_pool,
    [PTQ_OP_GLOBAL_AVG_POOL] = export_pool,
    [PTQ_OP_DENSE] = export_layer,
    [PTQ_OP_SOFTMAX] = export_softmax,
    [PTQ_OP_QUANTIZE] = export_quantize,
    [PTQ_OP_DEQUANTIZE] = export_dequantize,
    [PTQ_OP_CONCAT] = export_concat,
    [PTQ_OP_GLOBAL_MAX_POOL] = export_pool,
    [PTQ_OP_LOG_SOFTMAX] = export_softmax,
};

/* Whether ONNX Runtime has the integer operators that a coded node becomes: all codes that it reads
   and makes are of one type, and u8 weights go with u8 codes. */
static int check_codes(const exporter *ex, const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    ptq_type made = is_coded(node) ? node->q.type : PTQ_TYPE_F32;

    if (!ex->integer || node->op == PTQ_OP_QUANTIZE || node->op == PTQ_OP_DEQUANTIZE)
        return 0;
    if (made == PTQ_TYPE_F32 && !is_integer_weight(weight))
        return 0;
    for (int i = 0; i < 2 && node->input[i] >= 0; i++) {
        ptq_type read = ex->model->node[node->input[i]].q.type;

        if (i == 0 && read == PTQ_TYPE_S8 && is_integer_weight(weight) &&
            onnx_code_type(weight->type) == ONNX_UINT8)
            return fail("node %s: it multiplies s8 codes by u8 weights, for which ONNX Runtime has "
                        "no integer operator; choose --form qdq",
                        node->name);
        if ((made != PTQ_TYPE_F32 && read != PTQ_TYPE_F32 && read != made) ||
            (node->mid.type != PTQ_TYPE_F32 && node->mid.type != made))
            return fail("node %s: it mixes u8 and s8 codes, for which ONNX Runtime has no integer "
                        "operator; choose --form qdq",
                        node->name);
    }
    return 0;
}

int export_node(exporter *ex, int index) {
    const ptq_node *node = &ex->model->node[index];
    result *to = &ex->results[index];

    if (node->dynamic)
        return fail("node %s: its ranges are found at run time, which this export does not "
                    "write; quantize it by a scheme of fixed ranges, not as dynamic",
                    node->name);
    if (!functions[node->op])
        return fail("node %s: a %s has no counterpart in ONNX", node->name,
                    ptq_name(PTQ_NAMES_OP, node->op));
    if (check_codes(ex, node))
        return 1;
    to->rank = node->op == PTQ_OP_INPUT ? 4 : ex->results[node->input[0]].rank;
    if (is_link(ex, index))
        return 0;
    functions[node->op](ex, node, to);
    if (is_coded(node) && !to->q.codes)
        to->q = quantize_tensor(ex, to->real, node->out, node, &node->q);
    return 0;
}

#endif
