/* Operators that work element by element: activations, arithmetic with constants, additions;
   softmax stands with the activations. */
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

static int add_act(importer *im, ptq_activation act) {
    value *from = tensor_input(im, 0);
    int index;

    if (!from)
        return 1;
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

int import_relu(importer *im) { return add_act(im, PTQ_ACTIVATION_RELU); }

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
    if (coded)
        return clip_codes(im, from, low, high);
    if (low < 0 || low > 0)
        return refuse(
            im, "only ReLU (0 and more) and ReLU6 (0 to 6) are supported; train with one of these");
    if (high >= 6 && high <= 6)
        return add_act(im, PTQ_ACTIVATION_RELU6);
    if (high < 1e30f)
        return refuse(
            im, "only ReLU (0 and more) and ReLU6 (0 to 6) are supported; train with one of these");
    return add_act(im, PTQ_ACTIVATION_RELU);
}

int import_softmax(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t axis = int_attribute(im, "axis", im->opset < 13 ? 1 : -1);
    int real, flat;

    if (!from || (real = real_node(im, from)) < 0)
        return 1;
    flat = is_pixel(im, from);
    /* Before opset 13 everything from the axis on was one vector. */
    if (axis != (from->view == VIEW_NHWC ? 3 : 1) && !(from->view == VIEW_NHWC && axis == -1) &&
        !(from->view >= VIEW_FLAT_CHW && axis == -1) && !(flat && axis == 1 && im->opset < 13))
        flat = 0;
    if (!flat)
        return refuse(im,
                      "only softmax over the channels of one pixel is supported; end the network "
                      "in front of it");
    return set_result(im, append_op(im, PTQ_OP_SOFTMAX, real), from->view, STATE_REAL);
}

/* ---- Preprocessing: arithmetic with constants right behind the input ---- */

static int is_raw_input(const importer *im, const value *from) {
    return from && from->state == STATE_REAL && from->node == 0 && im->model->nodes == 1 &&
           from->uses == 1 && !is_padded(from);
}

/* Number i of a constant that is one number, or one for each channel in the tensor's view. */
static int channel_number(const importer *im, const value *from, const onnx_constant *numbers,
                          int channel, float *out) {
    int channels = shape_of(im, from)[2], axis = from->view == VIEW_NCHW ? 1 : 3;

    if (numbers->count == 1) {
        *out = constant_float(numbers, 0);
        return 0;
    }
    axis -= 4 - numbers->rank; /* shapes are aligned at their ends */
    if (numbers->count != (size_t)channels || axis < 0 || axis >= numbers->rank ||
        numbers->dim[axis] != channels)
        return refuse(im, "arithmetic on the input needs one number, or one for each channel; do "
                          "the rest outside the network");
    *out = constant_float(numbers, (size_t)channel);
    return 0;
}

/* A constant of more dimensions than the tensor would give the result these. */
static int check_rank(const importer *im, const value *from, const onnx_constant *numbers) {
    if (numbers->rank <= view_rank(from->view))
        return 0;
    return refuse(im, "its constant has %d dimensions, the tensor %d; give it no more",
                  numbers->rank, view_rank(from->view));
}

/* x = (pixel - mean) / std, and now x + a, x - a, x * a or x / a. */
static int preprocess(importer *im, const value *from, const onnx_constant *numbers, char op) {
    int channels = shape_of(im, from)[2];
    ptq_model *model = im->model;
    float a = 0;

    if (channels > PTQ_MAX_PIXEL_CHANNELS)
        return refuse(im, "arithmetic on the input is supported for up to 16 channels; do it "
                          "outside the network");
    for (int c = 0; c < channels; c++) {
        if (channel_number(im, from, numbers, c, &a))
            return 1;
        if (op == '+' || op == '-')
            model->mean[c] += (op == '-' ? a : -a) * model->std[c];
        else
            model->std[c] = op == '/' ? model->std[c] * a : model->std[c] / a;
        if (!(model->std[c] > 0) || model->std[c] > 1e30f || !(fabsf(model->mean[c]) < 1e30f))
            return refuse(im, "arithmetic on the input must be finite and keep its sign; do it "
                              "outside the network");
    }
    return set_alias(im, from, from->view);
}

static int import_arithmetic(importer *im, char op) {
    value *from = input_of(im, 0);
    const onnx_constant *numbers;

    if (op == '*' && from && from->state == STATE_CONSTANT)
        from = input_of(im, 1);
    if (from && from->state != STATE_CONSTANT && input_of(im, 1) && from == input_of(im, 0) &&
        input_of(im, 1)->state != STATE_CONSTANT)
        return refuse(im, "two results can be joined by Add only; train with that");
    if (!is_raw_input(im, from))
        return refuse(
            im, "with a constant it is supported right behind the input only, as preprocessing; "
                "fold it into the weights of the layer before it, or make it a BatchNormalization");
    if (constant_input(im, from == input_of(im, 0), 1, &numbers))
        return 1;
    return check_rank(im, from, numbers) || preprocess(im, from, numbers, op);
}

int import_sub(importer *im) { return import_arithmetic(im, '-'); }

int import_mul(importer *im) { return import_arithmetic(im, '*'); }

int import_div(importer *im) { return import_arithmetic(im, '/'); }

/* ---- Additions ---- */

/* A constant added to a convolution or dense layer that has no bias yet. */
static int add_bias(importer *im, value *from, value *bias) {
    ptq_node *node = &im->model->node[from->node];
    const onnx_constant *numbers;
    float first;

    if (load_constant(im, bias))
        return 1;
    numbers = &bias->constant;
    if (check_rank(im, from, numbers))
        return 1;
    if (is_raw_input(im, from))
        return preprocess(im, from, numbers, '+');
    if ((node->op != PTQ_OP_CONV2D && node->op != PTQ_OP_DENSE) || !node->no_bias || node->act ||
        from->uses != 1 || (from->state != STATE_REAL && from->state != STATE_PENDING))
        return refuse(im, "a constant can be added to a Conv, Gemm or MatMul without a bias only; "
                          "add it to the bias that there is, or make it a BatchNormalization");
    if (node->op == PTQ_OP_CONV2D && channel_number(im, from, numbers, 0, &first))
        return 1;
    if (numbers->count != 1 &&
        (numbers->count != (size_t)node->shape[2] || !numbers->rank ||
         (node->op == PTQ_OP_DENSE && numbers->dim[numbers->rank - 1] != node->shape[2])))
        return refuse(im, "the constant does not have one number for each channel; a bias has");
    node->no_bias = 0;
    if (from->state == STATE_PENDING ? set_integer_bias(im, from->node, bias)
                                     : set_vector(im, from->node, PTQ_PARAM_BIAS, numbers))
        return 1;
    return set_alias(im, from, from->view);
}

static int check_views(const importer *im, const value *a, const value *b) {
    if (memcmp(shape_of(im, a), shape_of(im, b), 3 * sizeof(int)) != 0)
        return refuse(im, "its operands have different shapes; only equal ones can be added, so "
                          "repeat the smaller one beforehand");
    if (a->view != b->view &&
        (view_rank(a->view) == 4 || view_rank(b->view) == 4 || !is_pixel(im, a)))
        return refuse(im, "its operands lie in different layouts; transpose one of them");
    return 0;
}

int import_add(importer *im) {
    value *a = input_of(im, 0), *b = input_of(im, 1);
    char name[PTQ_NAME_SIZE];
    int coded, first, second;

    if (a && b && a->state == STATE_CONSTANT && b->state != STATE_CONSTANT)
        return (b = tensor_input(im, 1)) ? add_bias(im, b, a) : 1;
    if (!(a = tensor_input(im, 0)))
        return 1;
    if (b && b->state == STATE_CONSTANT)
        return add_bias(im, a, b);
    if (!(b = tensor_input(im, 1)) || check_views(im, a, b))
        return 1;
    coded = a->state == STATE_DEQUANTIZED && b->state == STATE_DEQUANTIZED && computes_codes(im);
    first = coded ? a->node : real_node(im, a);
    second = first < 0 ? -1 : coded ? b->node : real_node(im, b);
    if (second < 0)
        return 1;
    node_name(im, name);
    return set_result(im, ptq_add_add(im->model, name, first, second), a->view,
                      coded ? STATE_PENDING : STATE_REAL);
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
