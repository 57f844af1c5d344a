/* Functions of one number, and products of two results. ONNX Runtime has integer operators for few
   of them; the others are computed between DequantizeLinear and QuantizeLinear in every form. */
#include <string.h>

#include "export/onnx_export.h"

#ifdef PTQ_HAVE_onnx

/* A step of a function: an operator behind `from`, called NAME.PART. */
static const char *add_step(exporter *ex, const ptq_node *node, const char *op, const char *part,
                            const char *from, const char *other) {
    const char *name = *part ? make_text(ex, "%s.%s", node->name, part) : node->name;

    return add_node(ex, NULL, op, name, name, from, other, NO_MORE);
}

static const char *add_number(exporter *ex, const ptq_node *node, const char *part, float number) {
    return add_floats(ex, make_text(ex, "%s.%s", node->name, part), 0, NULL, &number, 1);
}

/* One operator, with the attributes that it has. */
static const char *add_operator(exporter *ex, const ptq_node *node, const char *op,
                                const char *from, float alpha, float beta) {
    int gate = node->function == PTQ_FUNCTION_HARD_SWISH;
    const char *name = gate ? make_text(ex, "%s.gate", node->name) : node->name;
    Onnx__NodeProto *made;

    add_node(ex, &made, op, name, name, from, NO_MORE);
    if (alpha != 0)
        add_float(ex, made, "alpha", alpha);
    if (beta != 0)
        add_float(ex, made, "beta", beta);
    return made->output[0];
}

/* x (1 + erf(x / sqrt(2))) / 2, in the order of most exporters; with tanh likewise. */
static const char *add_gelu(exporter *ex, const ptq_node *node, const char *x) {
    const char *half = add_number(ex, node, "half", 0.5f), *one = add_number(ex, node, "one", 1);
    const char *y;

    if (node->function == PTQ_FUNCTION_GELU) {
        y = add_step(ex, node, "Div", "scaled", x, add_number(ex, node, "root", 1.41421354f));
        y = add_step(ex, node, "Erf", "erf", y, "");
    } else {
        y = add_step(ex, node, "Mul", "square", x, x);
        y = add_step(ex, node, "Mul", "cube", y, x);
        y = add_step(ex, node, "Mul", "part", y, add_number(ex, node, "share", 0.044715f));
        y = add_step(ex, node, "Add", "sum", y, x);
        y = add_step(ex, node, "Mul", "scaled", y, add_number(ex, node, "root", 0.79788456f));
        y = add_step(ex, node, "Tanh", "tanh", y, "");
    }
    y = add_step(ex, node, "Add", "above", y, one);
    y = add_step(ex, node, "Mul", "double", x, y);
    return add_step(ex, node, "Mul", "", y, half);
}

/* Slopes C x 1 x 1, or C where the tensor is N x C. */
static const char *add_slopes(exporter *ex, const ptq_node *node, int rank) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const int dims[] = {weight->dim[0], 1, 1};

    return add_floats(ex, make_text(ex, "%s.weight", node->name), rank - 1, dims, weight->data,
                      (size_t)weight->dim[0]);
}

static const char *add_real_function(exporter *ex, const ptq_node *node, const char *x, int rank) {
    const char *low, *high;

    switch (node->function) {
    case PTQ_FUNCTION_LEAKY_RELU:
        return add_operator(ex, node, "LeakyRelu", x, node->alpha, 0);
    case PTQ_FUNCTION_PRELU:
        return add_step(ex, node, "PRelu", "", x, add_slopes(ex, node, rank));
    case PTQ_FUNCTION_CLIP:
        low = add_number(ex, node, "min", node->alpha);
        high = add_number(ex, node, "max", node->beta);
        return add_node(ex, NULL, "Clip", node->name, node->name, x, low, high, NO_MORE);
    case PTQ_FUNCTION_SIGMOID:
        return add_operator(ex, node, "Sigmoid", x, 0, 0);
    case PTQ_FUNCTION_TANH:
        return add_operator(ex, node, "Tanh", x, 0, 0);
    case PTQ_FUNCTION_SILU:
        return add_step(ex, node, "Mul", "", x, add_step(ex, node, "Sigmoid", "gate", x, ""));
    case PTQ_FUNCTION_HARD_SIGMOID:
        return add_operator(ex, node, "HardSigmoid", x, node->alpha, node->beta);
    case PTQ_FUNCTION_HARD_SWISH:
        return add_step(ex, node, "Mul", "", x,
                        add_operator(ex, node, "HardSigmoid", x, 1 / 6.0f, 0.5f));
    case PTQ_FUNCTION_ELU:
        return add_operator(ex, node, "Elu", x, node->alpha, 0);
    default:
        return add_gelu(ex, node, x);
    }
}

/* QLinearSigmoid and QLinearLeakyRelu, which are tables as ours are; NULL for all others. */
static const char *integer_operator(const ptq_node *node) {
    return node->function == PTQ_FUNCTION_SIGMOID      ? "QLinearSigmoid"
           : node->function == PTQ_FUNCTION_LEAKY_RELU ? "QLinearLeakyRelu"
                                                       : NULL;
}

void export_function(exporter *ex, const ptq_node *node, result *to) {
    const coded *in = &ex->results[node->input[0]].q;
    const char *op = integer_operator(node), *input;
    codes_made made;
    Onnx__NodeProto *function;

    if (!ex->integer || !is_coded(node) || !op) {
        to->real = add_real_function(ex, node, real_of(ex, node->input[0], to->rank), to->rank);
        return;
    }
    input = codes_of(ex, node->input[0], to->rank);
    made = begin_codes(ex, node->out, &node->q, PTQ_ACTIVATION_NONE);
    add_node(ex, &function, op, node->name, made.raw, input, in->scale, in->zero_point,
             made.to.scale, made.to.zero_point, NO_MORE);
    set_microsoft(ex, function);
    if (node->alpha != 0 || node->function == PTQ_FUNCTION_LEAKY_RELU)
        add_float(ex, function, "alpha", node->alpha);
    to->q = end_codes(ex, &made, make_text(ex, "%s.clip", node->name));
}

/* Both operands with the first one's rank. */
void export_product(exporter *ex, const ptq_node *node, result *to) {
    int a = node->input[0], b = node->input[1];
    const coded *first = &ex->results[a].q, *second = &ex->results[b].q;
    const char *x, *y;
    codes_made made;
    Onnx__NodeProto *product;

    if (!ex->integer || !is_coded(node)) {
        x = real_of(ex, a, to->rank);
        y = real_of(ex, b, to->rank);
        to->real = add_node(ex, NULL, "Mul", node->name, node->name, x, y, NO_MORE);
        return;
    }
    x = codes_of(ex, a, to->rank);
    y = codes_of(ex, b, to->rank);
    made = begin_codes(ex, node->out, &node->q, PTQ_ACTIVATION_NONE);
    add_node(ex, &product, "QLinearMul", node->name, made.raw, x, first->scale, first->zero_point,
             y, second->scale, second->zero_point, made.to.scale, made.to.zero_point, NO_MORE);
    set_microsoft(ex, product);
    to->q = end_codes(ex, &made, make_text(ex, "%s.clip", node->name));
}

#endif
