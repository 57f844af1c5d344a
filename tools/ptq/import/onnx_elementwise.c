/* Operators that work element by element: activations, arithmetic with constants, additions;
   softmax stands with the activations. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* ---- Activations ---- */

/* 1 if an activation can become part of the node before it. */
static int takes_act(const importer *im, const value *from) {
    const ptq_node *node = &im->model->node[from->node];

    return from->uses == 1 && node->act == PTQ_ACTIVATION_NONE &&
           strcmp(node->out, node->name) == 0 &&
           (node->op == PTQ_OP_CONV2D || node->op == PTQ_OP_DENSE || node->op == PTQ_OP_ADD);
}

/* The node at hand becomes the activation of the node before it, whose result it names. */
static void fuse_act(importer *im, const value *from, ptq_activation act) {
    ptq_node *node = &im->model->node[from->node];
    char name[PTQ_NAME_SIZE];

    node_name(im, name);
    node->act = act;
    memcpy(node->out, name, sizeof name);
}

static int add_act(importer *im, value *from, ptq_activation act) {
    int index;

    if (from->state == STATE_PENDING) {
        if (!takes_act(im, from))
            return refuse(im, "an activation between integer arithmetic and QuantizeLinear must be "
                              "the only reader of a Conv, Gemm or Add; put a QuantizeLinear and a "
                              "DequantizeLinear in front of it");
        fuse_act(im, from, act);
        return set_alias(im, from, from->view);
    }
    index = from->state == STATE_REAL ? real_node(im, from) : from->node;
    if (index < 0)
        return 1;
    if (from->state == STATE_CODES)
        return refuse(
            im, "it gets codes where it needs real numbers; put a DequantizeLinear in front of it");
    index = append_op(im, act == PTQ_ACTIVATION_RELU ? PTQ_OP_RELU : PTQ_OP_RELU6, index);
    if (index >= 0)
        im->model->node[index].q = im->model->node[from->node].q;
    return set_result(im, index, from->view, from->state);
}

int import_relu(importer *im) {
    value *from = tensor_input(im, 0);

    return from ? add_act(im, from, PTQ_ACTIVATION_RELU) : 1;
}

/* One of Clip's bounds: an attribute before opset 11, an input since. */
static int read_bound(importer *im, const char *name, size_t input, float otherwise, float *out) {
    const onnx_constant *bound;

    *out = float_attribute(im, name, otherwise);
    if (constant_input(im, input, 0, &bound))
        return 1;
    if (bound && bound->count != 1)
        return refuse_damaged(im, "its bounds must be single numbers");
    if (bound)
        *out = constant_float(bound, 0);
    return 0;
}

/* The width of which `high` is the highest code; 0 if there is none. */
static int bits_below(ptq_type type, float high) {
    for (int bits = 2; bits <= 8; bits++) {
        int32_t low, top;

        ptq_code_range(type, bits, &low, &top);
        if ((float)top >= high && (float)top <= high)
            return bits;
    }
    return 0;
}

/* Clip on codes: fewer bits, an activation, or both. Fewer bits bound both ends, so that a Clip of
   the upper end alone is none of these; behind another one the narrower counts. */
static int clip_codes(importer *im, const value *from, float low, float high) {
    ptq_node *node = &im->model->node[from->node];
    int bits = bits_below(node->q.type, high);
    int32_t zero = node->q.zero_point, six = ptq_quantize(6, &node->q), lowest, bottom, top;

    ptq_code_range(node->q.type, 8, &lowest, &top);
    ptq_code_range(node->q.type, bits ? bits : 8, &bottom, &top);
    if (!(low >= -128 && low <= high && high <= 255))
        return refuse_damaged(im, "its bounds are no codes");
    if (from->uses != 1 || node->op == PTQ_OP_INPUT)
        return refuse(im, "codes can only be clipped where a layer has made them; leave it out, "
                          "and choose the scale for the bounds");
    low = low < (float)lowest ? (float)lowest : low;
    if (low > (float)bottom || !bits) {
        if ((int32_t)low != zero || (!bits && (int32_t)high != six) || !takes_act(im, from))
            return refuse(im, "on codes it can stand for ReLU, ReLU6 and fewer bits only; leave it "
                              "out, and choose the scale for the bounds");
        fuse_act(im, from, bits ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6);
    } else if (low < (float)bottom) {
        return refuse(im, "on codes it can stand for ReLU, ReLU6 and fewer bits only; leave it "
                          "out, and choose the scale for the bounds");
    }
    if (bits && bits < node->q.bits)
        node->q.bits = bits;
    return set_alias(im, from, from->view);
}

int import_clip(importer *im) {
    value *from = tensor_input(im, 0);
    int coded = from && from->state == STATE_CODES;
    float low, high, most = coded ? 255 : HUGE_VALF;

    if (!from)
        return 1;
    if (coded && im->model->node[from->node].q.type == PTQ_TYPE_S8)
        most = 127;
    if (read_bound(im, "min", 1, coded ? -128 : -HUGE_VALF, &low) ||
        read_bound(im, "max", 2, most, &high))
        return 1;
    return coded ? clip_codes(im, from, low, high) : clip_between(im, from, low, high);
}

int clip_between(importer *im, value *from, float low, float high) {
    int zero = low >= 0 && low <= 0, open = high > 1e30f;

    if (zero && (open || (high >= 6 && high <= 6)))
        return add_act(im, from, open ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6);
    if (open && low < -1e30f)
        return set_alias(im, from, from->view);
    if (!(low <= high))
        return refuse_damaged(im, "its lower bound lies above the upper one");
    return append_function(im, from, PTQ_FUNCTION_CLIP, low < -FLT_MAX ? -FLT_MAX : low,
                           open ? FLT_MAX : high);
}

int import_softmax(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t axis = int_attribute(im, "axis", im->opset < 13 ? 1 : -1);
    int real, channels;

    if (!from || (real = real_node(im, from)) < 0)
        return 1;
    /* Before opset 13 everything from the axis on was one vector. */
    channels = channel_axis(from->view);
    axis += axis < 0 ? view_rank(from->view) : 0;
    if (!is_pixel(im, from) || axis < 1 || axis > channels || (im->opset >= 13 && axis != channels))
        return refuse(im,
                      "only softmax over the channels of one pixel is supported; end the network "
                      "in front of it");
    return set_result(
        im,
        append_op(im, strcmp(im->operation->name, "Softmax") ? PTQ_OP_LOG_SOFTMAX : PTQ_OP_SOFTMAX,
                  real),
        from->view, STATE_REAL);
}

/* ---- Arithmetic, additions ---- */

static int reads_constant(const importer *im) {
    return (input_of(im, 0) && input_of(im, 0)->state == STATE_CONSTANT) ||
           (input_of(im, 1) && input_of(im, 1)->state == STATE_CONSTANT);
}

static int import_arithmetic(importer *im, char op) {
    if (reads_constant(im))
        return import_affine(im, op);
    if (!tensor_input(im, 0) || !tensor_input(im, 1))
        return 1;
    return refuse(im, "two results can be joined by Add and Mul only; train with these");
}

int import_sub(importer *im) { return import_arithmetic(im, '-'); }

int import_mul(importer *im) {
    return reads_constant(im) ? import_affine(im, '*') : import_product(im);
}

int import_div(importer *im) { return import_arithmetic(im, '/'); }

static int check_views(const importer *im, const value *a, const value *b) {
    if (memcmp(shape_of(im, a), shape_of(im, b), 3 * sizeof(int)) != 0)
        return refuse(im, "its operands have different shapes; only equal ones can be added, so "
                          "repeat the smaller one beforehand");
    if (a->view != b->view &&
        (view_rank(a->view) != 2 || view_rank(b->view) != 2 || !is_pixel(im, a)))
        return refuse(im, "its operands lie in different layouts; transpose one of them");
    return 0;
}

int nodes_of_pair(importer *im, const value *a, const value *b, int *second, state *made) {
    int coded = a->state == STATE_DEQUANTIZED && b->state == STATE_DEQUANTIZED && computes_codes(im);
    int first = coded ? a->node : real_node(im, a);

    *second = first < 0 ? -1 : coded ? b->node : real_node(im, b);
    *made = coded ? STATE_PENDING : STATE_REAL;
    return *second < 0 ? -1 : first;
}

int import_add(importer *im) {
    value *a, *b;
    char name[PTQ_NAME_SIZE];
    int first, second;
    state made;

    if (reads_constant(im))
        return import_affine(im, '+');
    a = tensor_input(im, 0);
    b = a ? tensor_input(im, 1) : NULL;
    if (!b || check_views(im, a, b))
        return 1;
    if ((first = nodes_of_pair(im, a, b, &second, &made)) < 0)
        return 1;
    node_name(im, name);
    return set_result(im, ptq_add_add(im->model, name, first, second), a->view, made);
}

/* Two are an Add; more are added one by one, in real numbers. */
int import_sum(importer *im) {
    value *first, *next;
    char name[PTQ_NAME_SIZE];
    int sum, other;

    if (im->at->n_input < 3)
        return im->at->n_input == 2 ? import_add(im) : import_identity(im);
    if (!(first = tensor_input(im, 0)))
        return 1;
    sum = real_node(im, first);
    for (size_t i = 1; i < im->at->n_input && sum >= 0; i++) {
        if (!(next = tensor_input(im, i)) || check_views(im, first, next) ||
            (other = real_node(im, next)) < 0)
            return 1;
        node_name(im, name);
        sum = ptq_add_add(im->model, name, sum, other);
        if (sum < 0)
            return refuse_as(im, im->model->error.text);
    }
    return sum < 0 ? 1 : set_result(im, sum, first->view, STATE_REAL);
}

int import_coded_add(importer *im) {
    value *a = coded_input(im, 0), *b = a ? coded_input(im, 3) : NULL;
    char name[PTQ_NAME_SIZE];

    if (!b || check_views(im, a, b))
        return 1;
    node_name(im, name);
    return finish_node(im, ptq_add_add(im->model, name, a->node, b->node), a->view, STATE_CODES);
}

#endif
