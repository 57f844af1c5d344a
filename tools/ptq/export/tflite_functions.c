/* Functions of one number, products and concatenations as TensorFlow Lite's operators. */
#include <string.h>

#include "export/tflite_export.h"
#include "shared/output.h"

static int is_coded(const ptq_node *node) { return node->q.type != PTQ_TYPE_F32; }

/* ---- Functions ---- */

/* Of real numbers, x sigmoid(x) is two operators. */
static int write_silu(writer *w, const ptq_node *node, int from, int out) {
    ptq_qparams real = {PTQ_TYPE_F32, 0, 0, 0};
    int middle = new_result(w, node->name, node, &real, w->tensor[out].rank == 2);
    operation *op;

    strcat(w->tensor[middle].name, ".sigmoid");
    new_operation(w, LOGISTIC, from, middle);
    op = new_operation(w, MUL, from, out);
    op->in[op->inputs++] = middle;
    return 0;
}

static int write_prelu(writer *w, const ptq_node *node, int from, int out) {
    operation *op;
    int slopes = new_constant(w, node->name, ".slopes", &node->param[PTQ_PARAM_WEIGHT]);

    op = new_operation(w, PRELU, from, out);
    op->in[op->inputs++] = slopes;
    return 0;
}

static int is_clip_one(const ptq_node *node) {
    return node->alpha >= -1 && node->alpha <= -1 && node->beta >= 1 && node->beta <= 1;
}

static int is_unit(const ptq_qparams *q, float steps, int zero) {
    return q->zero_point == zero && q->scale * steps >= 1 && q->scale * steps <= 1;
}

static int write_named(writer *w, const ptq_node *node, int from, int out) {
    operation *op;
    int tangent;

    switch (node->function) {
    case PTQ_FUNCTION_LEAKY_RELU:
        if (is_coded(node) && node->alpha >= 1 && node->alpha <= 1) /* another scale */
            return !new_operation(w, QUANTIZE, from, out);
        op = new_operation(w, LEAKY_RELU, from, out);
        op->real = node->alpha;
        return 0;
    case PTQ_FUNCTION_GELU:
    case PTQ_FUNCTION_GELU_TANH:
        if (is_coded(node))
            return -1;
        op = new_operation(w, GELU, from, out);
        op->integer = node->function == PTQ_FUNCTION_GELU_TANH;
        return 0;
    case PTQ_FUNCTION_SIGMOID:
    case PTQ_FUNCTION_TANH:
        tangent = node->function == PTQ_FUNCTION_TANH;
        if (is_coded(node) && !is_unit(&node->q, tangent ? 128 : 256, tangent ? 0 : -128))
            return fail("node %s: TensorFlow Lite has its result as codes of 1/%d from %d on; "
                        "quantize with --preset tflite",
                        node->name, tangent ? 128 : 256, tangent ? -1 : 0);
        return !new_operation(w, tangent ? TANH : LOGISTIC, from, out);
    case PTQ_FUNCTION_HARD_SWISH:
        if (is_coded(node))
            warn("node %s: TensorFlow Lite rounds hard swish in 16 bits; one code in hundreds "
                 "differs by 1",
                 node->name);
        return !new_operation(w, HARD_SWISH, from, out);
    default:
        return -1;
    }
}

int write_function(writer *w, const ptq_node *node, int from, int out) {
    int status = write_named(w, node, from, out);

    if (status >= 0)
        return status;
    if (node->function == PTQ_FUNCTION_PRELU && !is_coded(node))
        return write_prelu(w, node, from, out);
    if (node->function == PTQ_FUNCTION_SILU && !is_coded(node))
        return write_silu(w, node, from, out);
    if (node->function == PTQ_FUNCTION_CLIP && is_clip_one(node) && !is_coded(node))
        return !new_operation(w, RELU_N1_TO_1, from, out);
    if (node->function == PTQ_FUNCTION_ELU && node->alpha >= 1 && node->alpha <= 1 &&
        !is_coded(node))
        return !new_operation(w, ELU, from, out);
    return fail(
        "node %s: TensorFlow Lite has no operator for %s with these numbers%s; export to ONNX",
        node->name, ptq_name(PTQ_NAMES_FUNCTION, node->function),
        is_coded(node) ? " on codes" : "");
}

/* ---- Two operands ---- */

int write_product(writer *w, const ptq_node *node, int from, int out) {
    operation *op = new_operation(w, MUL, from, out);

    op->in[op->inputs++] = w->of[node->input[1]];
    return 0;
}

static int same_codes(const ptq_qparams *a, const ptq_qparams *b) {
    return a->type == b->type && a->zero_point == b->zero_point && !(a->scale < b->scale) &&
           !(a->scale > b->scale);
}

/* TensorFlow Lite copies codes: those of another scale are coded anew in front. */
static int operand(writer *w, const ptq_node *node, int k, int flat) {
    const ptq_node *before = &w->model->node[node->input[k]];
    int from = with_shape(w, node->name, before, w->of[node->input[k]], flat), coded;

    if (same_codes(&before->q, &node->q))
        return from;
    coded = new_result(w, node->name, before, &node->q, flat);
    strcat(w->tensor[coded].name, k ? ".second" : ".first");
    new_operation(w, QUANTIZE, from, coded);
    return coded;
}

int write_concat(writer *w, const ptq_node *node, int from, int out) {
    int flat = w->tensor[out].rank == 2, first = operand(w, node, 0, flat);
    int second = operand(w, node, 1, flat);
    operation *op = new_operation(w, CONCATENATION, first, out);

    (void)from;
    op->in[op->inputs++] = second;
    op->integer = flat ? 1 : 3;
    return 0;
}
