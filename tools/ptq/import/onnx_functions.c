/* Functions of one number, element by element, and products of two tensors. */
#include <float.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* Operators by name, with what ONNX takes for attributes that are missing. */
typedef struct function_row {
    const char *op;
    ptq_function function;
    float alpha, beta;
} function_row;

static const function_row rows[] = {
    {"LeakyRelu", PTQ_FUNCTION_LEAKY_RELU, 0.01f, 0},
    {"QLinearLeakyRelu", PTQ_FUNCTION_LEAKY_RELU, 0.01f, 0},
    {"PRelu", PTQ_FUNCTION_PRELU, 0, 0},
    {"Sigmoid", PTQ_FUNCTION_SIGMOID, 0, 0},
    {"QLinearSigmoid", PTQ_FUNCTION_SIGMOID, 0, 0},
    {"Tanh", PTQ_FUNCTION_TANH, 0, 0},
    {"HardSigmoid", PTQ_FUNCTION_HARD_SIGMOID, 0.2f, 0.5f},
    {"HardSwish", PTQ_FUNCTION_HARD_SWISH, 0, 0},
    {"Elu", PTQ_FUNCTION_ELU, 1, 0},
    {"Gelu", PTQ_FUNCTION_GELU, 0, 0},
    /* of chains: onnx_chains.c */
    {CHAIN_SILU, PTQ_FUNCTION_SILU, 0, 0},
    {CHAIN_HARD_SIGMOID, PTQ_FUNCTION_HARD_SIGMOID, 1 / 6.0f, 0.5f},
    {CHAIN_HARD_SWISH, PTQ_FUNCTION_HARD_SWISH, 0, 0},
    {CHAIN_GELU, PTQ_FUNCTION_GELU, 0, 0},
    {CHAIN_GELU_TANH, PTQ_FUNCTION_GELU_TANH, 0, 0},
};

static const function_row *find_row(const char *op) {
    const function_row *row = rows;

    while (strcmp(row->op, op) != 0)
        row++;
    return row;
}

/* The node of the model that the function reads: codes where it computes on them. */
static int function_operand(importer *im, const value *from, state *made) {
    *made = STATE_REAL;
    if (im->operation->result) {
        *made = STATE_CODES;
        return from->node;
    }
    if (from->state == STATE_DEQUANTIZED && computes_codes(im)) {
        *made = STATE_PENDING;
        return from->node;
    }
    return real_node(im, from);
}

static int add_slopes(importer *im, const value *from, int index) {
    const onnx_constant *slopes;
    ptq_tensor *weight;
    int channels = shape_of(im, from)[2];
    ptq_error err;

    if (constant_input(im, 1, 1, &slopes))
        return 1;
    weight = &im->model->node[index].param[PTQ_PARAM_WEIGHT];
    if (ptq_tensor_create(weight, PTQ_TYPE_F32, 32, 1, &channels, NULL, &err))
        return refuse_as(im, err.text);
    for (int c = 0; c < channels; c++)
        if (channel_number(im, from, slopes, c, (float *)weight->data + c))
            return 1;
    return 0;
}

int append_function(importer *im, const value *from, ptq_function function, float alpha,
                    float beta) {
    char name[PTQ_NAME_SIZE];
    state made;
    int node = function_operand(im, from, &made), index;

    if (node < 0)
        return 1;
    node_name(im, name);
    index = ptq_add_function(im->model, function, name, node, alpha, beta);
    if (index >= 0 && function == PTQ_FUNCTION_PRELU && add_slopes(im, from, index))
        return 1;
    return finish_node(im, index, from->view, made);
}

int import_function(importer *im) {
    const function_row *row = find_row(im->at->op_type);
    value *from = im->operation->result ? coded_input(im, 0) : tensor_input(im, 0);
    ptq_function function = row->function;
    float alpha = row->alpha, beta = row->beta;

    if (!from)
        return 1;
    if (alpha != 0)
        alpha = float_attribute(im, "alpha", alpha);
    if (beta != 0)
        beta = float_attribute(im, "beta", beta);
    if (is_text_attribute(im, "approximate", "tanh"))
        function = PTQ_FUNCTION_GELU_TANH;
    return append_function(im, from, function, alpha, beta);
}

/* ---- The larger of x and a number, and the smaller ---- */

int import_bound(importer *im) {
    int first = input_of(im, 0) && input_of(im, 0)->state == STATE_CONSTANT;
    int upper = strcmp(im->at->op_type, "Min") == 0;
    const onnx_constant *bound;
    value *from;

    if (im->at->n_input != 2 ||
        (!first && (!input_of(im, 1) || input_of(im, 1)->state != STATE_CONSTANT)))
        return refuse(im, "of a tensor and one number only; join two results by Add or Mul");
    if (!(from = tensor_input(im, (size_t)first)) || constant_input(im, (size_t)!first, 1, &bound))
        return 1;
    if (bound->count != 1 || bound->rank > view_rank(from->view))
        return refuse(im, "its constant must be one number; do the rest outside the network");
    return clip_between(im, from, upper ? -FLT_MAX : constant_float(bound, 0),
                        upper ? constant_float(bound, 0) : FLT_MAX);
}

/* ---- Products ---- */

/* Equal shapes, or 1 x 1 x C behind H x W x C: puts the larger operand first. */
static int order_factors(importer *im, value **a, value **b) {
    const int *larger = shape_of(im, *a);
    value *first = *a;
    int same;

    if (is_pixel(im, *a) && !is_pixel(im, *b)) {
        *a = *b;
        *b = first;
        larger = shape_of(im, *a);
    }
    same = memcmp(larger, shape_of(im, *b), 3 * sizeof(int)) == 0;
    if (!same && (!is_pixel(im, *b) || larger[2] != shape_of(im, *b)[2]))
        return refuse(im, "its operands must have one shape, or one of them one number for each "
                          "channel; repeat the smaller one beforehand");
    if ((*a)->view != (*b)->view &&
        (!same || view_rank((*a)->view) != 2 || view_rank((*b)->view) != 2 || !is_pixel(im, *a)))
        return refuse(im, "its operands lie in different layouts; transpose one of them");
    return 0;
}

int import_product(importer *im) {
    value *a = tensor_input(im, 0), *b = a ? tensor_input(im, 1) : NULL;
    char name[PTQ_NAME_SIZE];
    int first, second;
    state made;

    if (!b || order_factors(im, &a, &b))
        return 1;
    if ((first = nodes_of_pair(im, a, b, &second, &made)) < 0)
        return 1;
    node_name(im, name);
    return set_result(im, ptq_add_mul(im->model, name, first, second), a->view, made);
}

int import_coded_mul(importer *im) {
    value *a = coded_input(im, 0), *b = a ? coded_input(im, 3) : NULL;
    char name[PTQ_NAME_SIZE];

    if (!b || order_factors(im, &a, &b))
        return 1;
    node_name(im, name);
    return finish_node(im, ptq_add_mul(im->model, name, a->node, b->node), a->view, STATE_CODES);
}

#endif
