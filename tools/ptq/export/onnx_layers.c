/* Convolutions, dense layers and additions: their parameters, and what they compute one after the
   other, in real numbers and on codes. */
#include <string.h>

#include "export/onnx_export.h"

#ifdef PTQ_HAVE_onnx

/* ---- Weights ---- */

int is_integer_weight(const ptq_tensor *weight) {
    return weight->rank && weight->type != PTQ_TYPE_F32 && weight->type != PTQ_TYPE_F16;
}

/* O,I,H,W already; columns of a dense layer come from H,W,C order and go to C,H,W. */
static size_t column_source(const ptq_tensor *weight, const int *shape, size_t i) {
    size_t columns, pixels, o, k;

    if (weight->rank != 2 || shape[0] * shape[1] == 1)
        return i;
    columns = (size_t)weight->dim[1];
    pixels = (size_t)shape[0] * (size_t)shape[1];
    o = i / columns;
    k = i % columns;
    return o * columns + k % pixels * (size_t)shape[2] + k / pixels;
}

static const int *input_shape(const exporter *ex, const ptq_node *node) {
    return ex->model->node[node->input[0]].shape;
}

static const char *add_real_weight(exporter *ex, const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t count = ptq_tensor_elements(weight);
    const char *name = make_text(ex, "%s.weight", node->name);
    int half = weight->type == PTQ_TYPE_F16;
    float *numbers = grab(ex, count * sizeof *numbers);
    uint8_t *bytes;
    Onnx__NodeProto *cast;

    for (size_t i = 0; i < count; i++)
        numbers[i] = ptq_tensor_number(weight, column_source(weight, input_shape(ex, node), i));
    if (!half)
        return add_floats(ex, name, weight->rank, weight->dim, numbers, count);
    bytes = grab(ex, 2 * count);
    for (size_t i = 0; i < count; i++)
        put_le(bytes + 2 * i, ptq_f32_to_f16(numbers[i]), 2);
    add_constant(ex, name, ONNX_FLOAT16, weight->rank, weight->dim, bytes);
    add_node(ex, &cast, "Cast", make_text(ex, "%s.cast", name), make_text(ex, "%s.float", name),
             name, NO_MORE);
    add_int(ex, cast, "to", ONNX_FLOAT);
    return cast->output[0];
}

/* Weight codes of any width in bytes, their scales and zero points. */
static coded add_coded_weight(exporter *ex, const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t count = ptq_tensor_elements(weight);
    int rank = weight->scales > 1, type = onnx_code_type(weight->type);
    uint8_t *bytes = grab(ex, count), *zeros = grab(ex, (size_t)weight->scales);
    coded made;

    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(int)ptq_tensor_number(weight,
                                                   column_source(weight, input_shape(ex, node), i));
    zeros[0] = (uint8_t)weight->zero_point; /* with more than one scale all are 0 */
    made.codes = add_constant(ex, make_text(ex, "%s.weight", node->name), type, weight->rank,
                              weight->dim, bytes);
    made.scale = add_floats(ex, make_text(ex, "%s.weight_scale", node->name), rank, &weight->scales,
                            weight->scale, (size_t)weight->scales);
    made.zero_point = add_constant(ex, make_text(ex, "%s.weight_zero_point", node->name), type,
                                   rank, &weight->scales, zeros);
    return made;
}

static const char *add_bias(exporter *ex, const ptq_node *node) {
    const ptq_tensor *bias = &node->param[PTQ_PARAM_BIAS];
    const char *name = make_text(ex, "%s.bias", node->name);

    if (!bias->rank)
        return "";
    if (bias->type == PTQ_TYPE_S32)
        return add_int32s(ex, name, bias->data, bias->dim[0]);
    return add_floats(ex, name, 1, bias->dim, bias->data, (size_t)bias->dim[0]);
}

/* Real numbers from a parameter's codes. */
static const char *dequantize_param(exporter *ex, const coded *q) {
    Onnx__NodeProto *made;

    add_node(ex, &made, "DequantizeLinear", make_text(ex, "%s_dequantize", q->codes),
             make_text(ex, "%s_real", q->codes), q->codes, q->scale, q->zero_point, NO_MORE);
    add_int(ex, made, "axis", 0);
    return made->output[0];
}

static const char *dequantize_weight(exporter *ex, const ptq_node *node) {
    coded weight = add_coded_weight(ex, node);

    return dequantize_param(ex, &weight);
}

/* A bias of integers has the scale s_in * s_w. */
static const char *dequantize_bias(exporter *ex, const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    coded bias = {add_bias(ex, node), "", ""};
    float *scale = grab(ex, (size_t)weight->scales * sizeof *scale);

    if (!*bias.codes)
        return bias.codes;
    for (int i = 0; i < weight->scales; i++)
        scale[i] = ex->model->node[node->input[0]].q.scale * weight->scale[i];
    bias.scale = add_floats(ex, make_text(ex, "%s_scale", bias.codes), weight->scales > 1,
                            &weight->scales, scale, (size_t)weight->scales);
    return dequantize_param(ex, &bias);
}

/* ---- Stages: what a node computes one after the other ---- */

/* The name of an activation's node and result; a model need not have given it one of its own. */
static const char *act_name(exporter *ex, const char *wanted, const char *before) {
    return strcmp(wanted, before) == 0 ? make_text(ex, "%s.act", before) : wanted;
}

/* ReLU as such, ReLU6 as a Clip, whose upper bound stands first in the file. */
const char *add_act(exporter *ex, ptq_activation act, const char *name, const char *from) {
    static const float bounds[] = {0, 6};
    const char *most, *least;

    if (act == PTQ_ACTIVATION_RELU)
        return add_node(ex, NULL, "Relu", name, name, from, NO_MORE);
    most = add_floats(ex, make_text(ex, "%s.max", name), 0, NULL, &bounds[1], 1);
    least = add_floats(ex, make_text(ex, "%s.min", name), 0, NULL, &bounds[0], 1);
    return add_node(ex, NULL, "Clip", name, name, from, least, most, NO_MORE);
}

/* The real result `made` behind its activation, if there is one; then it is called `shown`. */
static const char *with_act(exporter *ex, ptq_activation act, const char *shown, const char *made) {
    return act ? add_act(ex, act, act_name(ex, shown, made), made) : made;
}

/* The name of the Clip that ends the codes of `shown`, made by node `before`. */
static const char *clip_name(exporter *ex, ptq_activation act, const char *shown,
                             const char *before) {
    return act ? act_name(ex, shown, before) : make_text(ex, "%s.clip", shown);
}

static void add_layer_attributes(exporter *ex, Onnx__NodeProto *layer, const ptq_node *node) {
    if (node->op == PTQ_OP_CONV2D) {
        add_window(ex, layer, node);
        add_int(ex, layer, "group", node->groups);
    } else {
        add_int(ex, layer, "transB", 1);
    }
}

/* Convolution or dense layer in float, or between DequantizeLinear and QuantizeLinear. Returns the
   name of the real result; `shown` is what it is called behind its activation. */
static const char *add_real_layer(exporter *ex, const ptq_node *node, const char *shown) {
    int conv = node->op == PTQ_OP_CONV2D,
        coded_weight = is_integer_weight(&node->param[PTQ_PARAM_WEIGHT]);
    const char *input = real_of(ex, node->input[0], conv ? 4 : 2), *made;
    const char *weight = coded_weight ? dequantize_weight(ex, node) : add_real_weight(ex, node);
    const char *bias = coded_weight ? dequantize_bias(ex, node) : add_bias(ex, node);
    Onnx__NodeProto *layer;

    made = add_node(ex, &layer, conv ? "Conv" : "Gemm", node->name, node->name, input, weight, bias,
                    NO_MORE);
    add_layer_attributes(ex, layer, node);
    return with_act(ex, node->act, shown, made);
}

/* The same on integers throughout. Only QGemm can return real numbers: *out then has no codes, and
   the name of the result is returned. */
static const char *add_integer_layer(exporter *ex, const ptq_node *node, const ptq_qparams *q,
                                     const char *shown, coded *out) {
    int conv = node->op == PTQ_OP_CONV2D, has_codes = q->type != PTQ_TYPE_F32;
    const char *input = codes_of(ex, node->input[0], conv ? 4 : 2);
    const coded *in = &ex->results[node->input[0]].q;
    coded weight = add_coded_weight(ex, node), to;
    const char *bias = add_bias(ex, node);
    codes_made made = {{node->name, "", ""}, node->name, NULL, PTQ_ACTIVATION_NONE};
    Onnx__NodeProto *layer;

    if (has_codes)
        made = begin_codes(ex, shown, q, node->act);
    to = made.to;
    if (conv) {
        add_node(ex, &layer, "QLinearConv", node->name, made.raw, input, in->scale, in->zero_point,
                 weight.codes, weight.scale, weight.zero_point, to.scale, to.zero_point, bias,
                 NO_MORE);
    } else {
        add_node(ex, &layer, "QGemm", node->name, made.raw, input, in->scale, in->zero_point,
                 weight.codes, weight.scale, weight.zero_point, bias, to.scale, to.zero_point,
                 NO_MORE);
        set_microsoft(ex, layer);
    }
    add_layer_attributes(ex, layer, node);
    out->codes = NULL;
    if (!has_codes)
        return with_act(ex, node->act, shown, made.raw);
    *out = end_codes(ex, &made, clip_name(ex, node->act, shown, node->name));
    return NULL;
}

/* "block1.add" of "block1.add.relu": what an addition was called before its activation fused. */
static const char *addition_name(exporter *ex, const ptq_node *node) {
    size_t length = strlen(node->out);
    const char *suffix = node->add_act == PTQ_ACTIVATION_RELU6 ? ".relu6" : ".relu";
    size_t tail = strlen(suffix);

    if (!node->add_act)
        return node->out;
    if (length > tail && strcmp(node->out + length - tail, suffix) == 0)
        return make_text(ex, "%.*s", (int)(length - tail), node->out);
    return make_text(ex, "%s.add", node->name);
}

/* a + b with an activation behind it, in real numbers. */
static const char *add_real_sum(exporter *ex, const char *name, const char *shown,
                                ptq_activation act, const char *a, const char *b) {
    return with_act(ex, act, shown, add_node(ex, NULL, "Add", name, name, a, b, NO_MORE));
}

/* The same on codes. */
static coded add_integer_sum(exporter *ex, const char *name, const char *shown, ptq_activation act,
                             const ptq_qparams *q, const coded *a, const coded *b) {
    codes_made made = begin_codes(ex, shown, q, act);
    Onnx__NodeProto *sum;

    add_node(ex, &sum, "QLinearAdd", name, made.raw, a->codes, a->scale, a->zero_point, b->codes,
             b->scale, b->zero_point, made.to.scale, made.to.zero_point, NO_MORE);
    set_microsoft(ex, sum);
    return end_codes(ex, &made, clip_name(ex, act, shown, name));
}

/* A convolution with its residual in QDQ form or in float. */
static void export_real_layer(exporter *ex, const ptq_node *node, result *to) {
    const char *shown = !node->residual ? node->out
                        : node->act     ? make_text(ex, "%s.relu", node->name)
                                        : node->name;
    const char *real = add_real_layer(ex, node, shown), *other;
    coded mid;

    if (!node->residual) {
        to->real = real;
        return;
    }
    if (node->mid.type != PTQ_TYPE_F32) {
        mid = quantize_tensor(ex, real, node->name, node, &node->mid);
        real = dequantize_tensor(ex, mid.codes, &mid);
    }
    other = real_of(ex, node->input[1], 4);
    to->real = add_real_sum(ex, addition_name(ex, node), node->out, node->add_act,
                            node->residual == PTQ_RESIDUAL_FIRST ? other : real,
                            node->residual == PTQ_RESIDUAL_FIRST ? real : other);
}

static void export_integer_layer(exporter *ex, const ptq_node *node, result *to) {
    const char *shown = node->residual ? node->name : node->out;
    coded mid, other;

    if (!node->residual) {
        to->real = add_integer_layer(ex, node, &node->q, shown, &to->q);
        return;
    }
    add_integer_layer(ex, node, &node->mid, shown, &mid);
    other = ex->results[node->input[1]].q;
    other.codes = codes_of(ex, node->input[1], 4);
    to->q = add_integer_sum(ex, addition_name(ex, node), node->out, node->add_act, &node->q,
                            node->residual == PTQ_RESIDUAL_FIRST ? &other : &mid,
                            node->residual == PTQ_RESIDUAL_FIRST ? &mid : &other);
}

void export_layer(exporter *ex, const ptq_node *node, result *to) {
    int integer = is_integer_weight(&node->param[PTQ_PARAM_WEIGHT]);

    to->rank = node->op == PTQ_OP_DENSE ? 2 : 4;
    if (ex->integer && integer)
        export_integer_layer(ex, node, to);
    else
        export_real_layer(ex, node, to);
}

/* The second operand's dequantization stands first in the file. */
void export_add(exporter *ex, const ptq_node *node, result *to) {
    int a = node->input[0], b = node->input[1];
    const char *name = node->act ? make_text(ex, "%s", node->name) : node->out;
    coded first = ex->results[a].q, second = ex->results[b].q;

    if (!ex->integer || !is_coded(node)) {
        const char *real_b = real_of(ex, b, to->rank), *real_a = real_of(ex, a, to->rank);

        to->real = add_real_sum(ex, name, node->out, node->act, real_a, real_b);
        return;
    }
    second.codes = codes_of(ex, b, to->rank);
    to->q = add_integer_sum(ex, name, node->out, node->act, &node->q, &first, &second);
}

#endif
