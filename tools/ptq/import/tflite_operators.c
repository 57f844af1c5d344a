/* Operators without weights, and the table of all. */
#include <stdlib.h>
#include <string.h>

#include "import/tflite_import.h"

/* Fields: see the schema. */
enum { POOL_PADDING, POOL_STRIDE_W, POOL_STRIDE_H, POOL_WIDTH, POOL_HEIGHT, POOL_ACTIVATION };
enum { ADD_ACTIVATION = 0, SOFTMAX_BETA = 0 };
enum { PADDING_SAME = 0 };

/* ---- Sums, activations ---- */

static void import_add(tflite_importer *im) {
    int a = tflite_node(im, 0, NULL), b = tflite_node(im, 1, NULL);

    if (a >= 0 && b >= 0)
        tflite_finish(im, ptq_add_add(im->model, im->name, a, b),
                      flat_integer(&im->file, im->options, ADD_ACTIVATION, 1, 0));
}

/* Where codes keep their scale an activation only clamps them; where they change it, it computes. */
static void import_activation(tflite_importer *im, ptq_op op) {
    int from = tflite_node(im, 0, NULL);
    ptq_qparams own, to;

    if (from < 0)
        return;
    if (tflite_qparams(im, tflite_operand(im, 0), &own) &&
        tflite_qparams(im, tflite_result(im), &to) && memcmp(&own, &to, sizeof to) != 0) {
        tflite_refuse(im, "it changes the scale of its codes; fuse it into the layer before it, as "
                          "the converter does");
        return;
    }
    tflite_finish(im, ptq_add_op(im->model, op, im->name, from), 0);
}

static void import_relu(tflite_importer *im) { import_activation(im, PTQ_OP_RELU); }
static void import_relu6(tflite_importer *im) { import_activation(im, PTQ_OP_RELU6); }

static void import_softmax(tflite_importer *im) {
    int from = tflite_node(im, 0, NULL);

    if (from < 0)
        return;
    if (flat_real(&im->file, im->options, SOFTMAX_BETA, 1) != 1)
        tflite_refuse(im, "its beta is not 1; scale the weights of the layer before it");
    else
        tflite_finish(im, ptq_add_op(im->model, PTQ_OP_SOFTMAX, im->name, from), 0);
}

static void import_log_softmax(tflite_importer *im) {
    int from = tflite_node(im, 0, NULL);

    if (from >= 0)
        tflite_finish(im, ptq_add_op(im->model, PTQ_OP_LOG_SOFTMAX, im->name, from), 0);
}

/* ---- Pools ---- */

static int same_scale(tflite_importer *im) {
    ptq_qparams from, to;
    int coded = tflite_qparams(im, tflite_operand(im, 0), &from);

    return coded == tflite_qparams(im, tflite_result(im), &to) &&
           (!coded || memcmp(&from, &to, sizeof to) == 0);
}

static int pool_field(tflite_importer *im, int field) {
    int64_t value = flat_integer(&im->file, im->options, field, 4, 0);

    if (value >= 1 && value <= 65535)
        return (int)value;
    tflite_refuse(im, "its window or stride is %lld", (long long)value);
    return 0;
}

/* On real numbers an average over a window that covers the image is a global one; on codes that is
   MEAN, which rounds otherwise. */
static void import_pool(tflite_importer *im, ptq_op op) {
    int from = tflite_node(im, 0, NULL), whole, index;
    int64_t padding = flat_integer(&im->file, im->options, POOL_PADDING, 1, PADDING_SAME);
    ptq_pool_options o = {0};
    const int *shape = from < 0 ? NULL : im->model->node[from].shape;

    o.kernel_h = pool_field(im, POOL_HEIGHT);
    o.kernel_w = pool_field(im, POOL_WIDTH);
    o.stride_h = pool_field(im, POOL_STRIDE_H);
    o.stride_w = pool_field(im, POOL_STRIDE_W);
    o.padding = padding == PADDING_SAME ? PTQ_PADDING_SAME : PTQ_PADDING_VALID;
    if (from < 0 || im->refused)
        return;
    if (!same_scale(im)) {
        tflite_refuse(im, "its result has another scale than its input, which TensorFlow Lite "
                          "itself does not take");
        return;
    }
    whole = op == PTQ_OP_AVG_POOL && o.kernel_h == shape[0] && o.kernel_w == shape[1] &&
            (padding != PADDING_SAME || (o.stride_h >= shape[0] && o.stride_w >= shape[1])) &&
            im->model->node[from].q.type == PTQ_TYPE_F32;
    index = whole ? ptq_add_op(im->model, PTQ_OP_GLOBAL_AVG_POOL, im->name, from)
                  : ptq_add_pool(im->model, op, im->name, from, &o);
    tflite_finish(im, index, flat_integer(&im->file, im->options, POOL_ACTIVATION, 1, 0));
}

static void import_average_pool(tflite_importer *im) { import_pool(im, PTQ_OP_AVG_POOL); }
static void import_max_pool(tflite_importer *im) { import_pool(im, PTQ_OP_MAX_POOL); }

/* Over height and width, in any order: a global pool. */
static void import_whole(tflite_importer *im, ptq_op op) {
    int from = tflite_node(im, 0, NULL), seen = 0;
    tflite_tensor *axes = tflite_constant(im, 1, "axes");

    if (from < 0 || !axes)
        return;
    for (size_t i = 0; i < tflite_elements(axes); i++) {
        int64_t axis = tflite_code(im, axes, i);

        axis += axis < 0 ? 4 : 0;
        seen |= axis >= 0 && axis < 4 ? 1 << axis : 1; /* that of the images is refused */
    }
    if (seen != (1 << 1 | 1 << 2) || tflite_operand(im, 0)->rank != 4) {
        tflite_refuse(im, "it is taken over other dimensions than height and width");
        return;
    }
    if (op == PTQ_OP_GLOBAL_MAX_POOL && !same_scale(im)) {
        tflite_refuse(im, "its result has another scale than its input, which TensorFlow Lite "
                          "itself does not take");
        return;
    }
    tflite_finish(im, ptq_add_op(im->model, op, im->name, from), 0);
}

static void import_mean(tflite_importer *im) { import_whole(im, PTQ_OP_GLOBAL_AVG_POOL); }
static void import_reduce_max(tflite_importer *im) { import_whole(im, PTQ_OP_GLOBAL_MAX_POOL); }

/* ---- Shapes ---- */

/* What lies behind one another stays so: H x W x C, with the channels innermost, is a row of the
   same numbers. Other shapes than a row and the one that there is would move the window of what
   follows; only the input may get its shape here. */
static void import_reshape(tflite_importer *im) {
    int from = tflite_node(im, 0, NULL);
    const tflite_tensor *to = tflite_result(im);
    int *shape = from < 0 ? NULL : im->model->node[from].shape, now[3] = {1, 1, 1};
    size_t elements;

    if (from < 0)
        return;
    elements = (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2];
    if (to->rank < 1 || (to->rank > 1 && to->dim[0] != 1) || tflite_elements(to) != elements) {
        tflite_refuse(im, "it mixes images, or its result has another number of elements");
        return;
    }
    for (int i = 1; i < to->rank; i++)
        now[3 - to->rank + i] = to->dim[i];
    if (from == 0 && im->model->nodes == 1 && to->rank == 4)
        memcpy(shape, now, sizeof now);
    else if (to->rank > 2 && memcmp(shape, now, sizeof now) != 0 && (now[0] != 1 || now[1] != 1)) {
        tflite_refuse(im, "it gives an image another shape; only rows can be made of one");
        return;
    }
    tflite_same(im, tflite_operand(im, 0));
}

/* Zeros above, below and beside the image, which the convolution behind takes in. */
static void import_pad(tflite_importer *im) {
    tflite_tensor *from = tflite_operand(im, 0), *to, *numbers = tflite_constant(im, 1, "paddings");
    int pad[4];

    if (tflite_node(im, 0, pad) < 0 || !numbers)
        return;
    to = tflite_result(im);
    if (from->rank != 4 || tflite_elements(numbers) != 8 || !same_scale(im)) {
        tflite_refuse(im, "it does not pad an image, or changes its scale");
        return;
    }
    for (size_t i = 0; i < 8; i++) {
        int64_t n = tflite_code(im, numbers, i);

        if (n < 0 || n > 255 || (n && (i < 2 || i > 5))) {
            tflite_refuse(im, "it pads images or channels, or by %lld", (long long)n);
            return;
        }
        if (i >= 2 && i <= 5) /* top, bottom, left, right there; top, left, bottom, right here */
            pad[(i - 2) / 2 + i % 2 * 2] += (int)n;
    }
    tflite_same(im, from);
    memcpy(to->pad, pad, sizeof pad);
}

/* ---- Real numbers and codes ---- */

/* The same codes in another guise: UINT8 with a zero point that is 128 larger. */
static int is_same_coding(tflite_importer *im, const tflite_tensor *a, const tflite_tensor *b) {
    int64_t zero[2];
    const tflite_tensor *both[2] = {a, b};

    for (int i = 0; i < 2; i++) {
        if (both[i]->scale.count != 1 || tflite_width(both[i]->type) != 1)
            return 0;
        zero[i] =
            both[i]->zero_point.count ? flat_integer_at(&im->file, both[i]->zero_point, 0, 8) : 0;
        zero[i] -= both[i]->type == TFLITE_UINT8 ? 128 : 0;
    }
    return zero[0] == zero[1] &&
           flat_real_at(&im->file, a->scale, 0) == flat_real_at(&im->file, b->scale, 0);
}

/* The input takes on the codes that are made of it; elsewhere a node makes them. */
static void import_quantize(tflite_importer *im) {
    int from = tflite_node(im, 0, NULL);
    tflite_tensor *of = tflite_operand(im, 0), *to = tflite_result(im);
    ptq_qparams q;

    if (from < 0)
        return;
    if (of->type == TFLITE_INT8 && tflite_qparams(im, to, &q) && !is_same_coding(im, of, to)) {
        tflite_finish(im, /* x again, as other codes */
                      ptq_add_function(im->model, PTQ_FUNCTION_LEAKY_RELU, im->name, from, 1, 0),
                      0);
        return;
    }
    if (of->type != TFLITE_FLOAT32 && !is_same_coding(im, of, to)) {
        tflite_refuse(im, "it changes the scale of its codes between int8 and other types; convert "
                          "the model with one scale for them");
        return;
    }
    if (of->type == TFLITE_INT8 || (of->type == TFLITE_UINT8 && from > 0)) {
        tflite_same(im, of); /* int8 to uint8 at the end: codes stay signed here */
        return;
    }
    if (!tflite_qparams(im, to, &q)) {
        tflite_refuse(im, "its result is not int8 with one scale; convert the model to int8");
        return;
    }
    if (of->type == TFLITE_UINT8) {
        to->node = tflite_code_input(im, &q);
    } else if (from == 0 && !im->model->node[0].real && im->model->nodes == 1) {
        im->coded = 1; /* of pixels --mean and --std say what the network's numbers are */
        im->model->node[0].q = q;
        to->node = 0;
    } else {
        tflite_finish(im, ptq_add_op(im->model, PTQ_OP_QUANTIZE, im->name, from), 0);
    }
}

/* Constants of half precision, or of codes, become real numbers, as do the results of integers. At
   the end nothing is to be done: codes of the result are given as what they stand for. */
static void import_dequantize(tflite_importer *im) {
    tflite_tensor *of = tflite_operand(im, 0), *to = tflite_result(im);
    int from;

    if (of && of->data.count) {
        to->constant = (int)(of - im->tensor);
        return;
    }
    from = tflite_node(im, 0, NULL);
    if (from >= 0)
        tflite_finish(im, ptq_add_op(im->model, PTQ_OP_DEQUANTIZE, im->name, from), 0);
}

/* ---- The table ---- */

#define NO_RECURRENCE "ptq runs networks of convolutions, not of steps in time"
#define NO_OPERATOR "ptq has no such operator"

/* By number. */
static const tflite_operator operators[] = {
    {0, "ADD", "add", import_add, NULL},
    {1, "AVERAGE_POOL_2D", "pool", import_average_pool, NULL},
    {2, "CONCATENATION", "concat", tflite_concat, NULL},
    {3, "CONV_2D", "conv", tflite_conv, NULL},
    {4, "DEPTHWISE_CONV_2D", "depthwise", tflite_depthwise, NULL},
    {6, "DEQUANTIZE", "dequantize", import_dequantize, NULL},
    {7, "EMBEDDING_LOOKUP", "embedding", NULL, NO_RECURRENCE},
    {9, "FULLY_CONNECTED", "dense", tflite_dense, NULL},
    {14, "LOGISTIC", "sigmoid", tflite_sigmoid, NULL},
    {16, "LSTM", "lstm", NULL, NO_RECURRENCE},
    {17, "MAX_POOL_2D", "pool", import_max_pool, NULL},
    {18, "MUL", "mul", tflite_mul, NULL},
    {19, "RELU", "relu", import_relu, NULL},
    {20, "RELU_N1_TO_1", "relu", tflite_clip_one, NULL},
    {21, "RELU6", "relu", import_relu6, NULL},
    {22, "RESHAPE", "reshape", import_reshape, NULL},
    {23, "RESIZE_BILINEAR", "resize", NULL, NO_OPERATOR},
    {24, "RNN", "rnn", NULL, NO_RECURRENCE},
    {25, "SOFTMAX", "softmax", import_softmax, NULL},
    {28, "TANH", "tanh", tflite_tanh, NULL},
    {32, "CUSTOM", "custom", NULL, "it is an operator of somebody's own; make the file without it"},
    {34, "PAD", "pad", import_pad, NULL},
    {36, "GATHER", "gather", NULL, NO_OPERATOR},
    {39, "TRANSPOSE", "transpose", NULL,
     "convert the model in the layout N x H x W x C, in which no transpose is needed"},
    {40, "MEAN", "mean", import_mean, NULL},
    {41, "SUB", "sub", NULL, NO_OPERATOR},
    {42, "DIV", "div", NULL, NO_OPERATOR},
    {43, "SQUEEZE", "squeeze", import_reshape, NULL},
    {44, "UNIDIRECTIONAL_SEQUENCE_LSTM", "lstm", NULL, NO_RECURRENCE},
    {45, "STRIDED_SLICE", "slice", NULL, NO_OPERATOR},
    {49, "SPLIT", "split", NULL, NO_OPERATOR},
    {50, "LOG_SOFTMAX", "softmax", import_log_softmax, NULL},
    {53, "CAST", "cast", NULL, NO_OPERATOR},
    {54, "PRELU", "prelu", tflite_prelu, NULL},
    {60, "PADV2", "pad", NULL, "pad with zeros, by PAD"},
    {65, "SLICE", "slice", NULL, NO_OPERATOR},
    {67, "TRANSPOSE_CONV", "conv", NULL, NO_OPERATOR},
    {70, "EXPAND_DIMS", "expand", import_reshape, NULL},
    {74, "SUM", "sum", NULL, NO_OPERATOR},
    {77, "SHAPE", "shape", NULL, "make the file with a batch of 1, so that shapes are constants"},
    {82, "REDUCE_MAX", "max", import_reduce_max, NULL},
    {83, "PACK", "pack", NULL, NO_OPERATOR},
    {97, "RESIZE_NEAREST_NEIGHBOR", "resize", NULL, NO_OPERATOR},
    {98, "LEAKY_RELU", "relu", tflite_leaky_relu, NULL},
    {99, "SQUARED_DIFFERENCE", "difference", NULL, NO_OPERATOR},
    {111, "ELU", "elu", tflite_elu, NULL},
    {114, "QUANTIZE", "quantize", import_quantize, NULL},
    {117, "HARD_SWISH", "swish", tflite_hard_swish, NULL},
    {150, "GELU", "gelu", tflite_gelu, NULL},
};

const tflite_operator *tflite_find_operator(int code) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (operators[i].code == code)
            return &operators[i];
    return NULL;
}
