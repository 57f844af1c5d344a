/* Layers with weights: convolution, depthwise convolution, dense. */
#include <string.h>

#include "import/tflite_import.h"

/* Fields: see the schema. Conv2DOptions and DepthwiseConv2DOptions begin alike. */
enum { CONV_PADDING, CONV_STRIDE_W, CONV_STRIDE_H };
enum { CONV_ACTIVATION = 3, CONV_DILATION_W, CONV_DILATION_H };
enum { DEPTHWISE_MULTIPLIER = 3, DEPTHWISE_ACTIVATION, DEPTHWISE_DILATION_W, DEPTHWISE_DILATION_H };
enum { DENSE_ACTIVATION = 0, DENSE_FORMAT, DENSE_KEEP_DIMS };
enum { PADDING_SAME = 0 };

/* A weight as the model has it, O x I x KH x KW or O x I, of numbers in another order. */
typedef struct weights {
    tflite_tensor *from;
    int rank, dim[4];
    int depthwise; /* 1 x KH x KW x O; else O x KH x KW x I, or O x I */
} weights;

/* Where element (o, i, u, v) stands in the file. */
static size_t source(const weights *w, int o, int i, int u, int v) {
    size_t at = (size_t)(u * w->dim[3] + v);

    if (w->depthwise)
        return at * (size_t)w->dim[0] + (size_t)o;
    return ((size_t)o * (size_t)(w->dim[2] * w->dim[3]) + at) * (size_t)w->dim[1] + (size_t)i;
}

static int make_tensor(tflite_importer *im, ptq_type type, int rank, const int *dims,
                       ptq_tensor *out) {
    ptq_error err;

    if (ptq_tensor_create(out, type, 32, rank, dims, NULL, &err) == PTQ_OK)
        return 1;
    tflite_refuse(im, "%s", err.text);
    return 0;
}

/* Codes as they are, with their scales. */
static int set_scales(tflite_importer *im, const weights *w, ptq_tensor *out) {
    const tflite_tensor *from = w->from;
    float scale[4096];
    int count = (int)from->scale.count;
    ptq_error err;

    for (size_t i = 0; i < from->zero_point.count; i++)
        if (flat_integer_at(&im->file, from->zero_point, i, 8) != 0) {
            tflite_refuse(im, "its weights have zero points; make the file with symmetric weights, "
                              "as converters since 2020 do");
            return 0;
        }
    if (count > 4096) {
        tflite_refuse(im, "it has more than 4096 channels with scales");
        return 0;
    }
    for (int i = 0; i < count; i++)
        scale[i] = flat_real_at(&im->file, from->scale, (size_t)i);
    if (ptq_tensor_set_scale(out, scale, count, 0, NULL, &err)) {
        tflite_refuse(im, "%s", err.text);
        return 0;
    }
    return 1;
}

/* Real numbers, or, if `coded`, codes. */
static int set_weight(tflite_importer *im, const weights *w, int coded, ptq_tensor *out) {
    size_t to = 0;

    if (!make_tensor(im, coded ? PTQ_TYPE_S8 : PTQ_TYPE_F32, w->rank, w->dim, out))
        return 0;
    for (int o = 0; o < w->dim[0]; o++)
        for (int i = 0; i < w->dim[1]; i++)
            for (int u = 0; u < w->dim[2]; u++)
                for (int v = 0; v < w->dim[3]; v++, to++) {
                    size_t at = source(w, o, i, u, v);

                    if (coded)
                        ptq_tensor_set_code(out, to, (int32_t)tflite_code(im, w->from, at));
                    else
                        ((float *)out->data)[to] = tflite_number(im, w->from, at);
                }
    return !coded || set_scales(im, w, out);
}

/* Zeros where there is none: integer layers have one. */
static int set_bias(tflite_importer *im, int coded, int channels, ptq_tensor *out) {
    tflite_tensor *from = tflite_operand(im, 2) ? tflite_constant(im, 2, "biases") : NULL;

    if (im->refused)
        return 0;
    if (from && (tflite_elements(from) != (size_t)channels || from->type == TFLITE_INT64 ||
                 (coded && from->type != TFLITE_INT32))) {
        tflite_refuse(im, "its biases are not one number a channel, %s",
                      coded ? "of 32 bits" : "real or of 32 bits");
        return 0;
    }
    if (!make_tensor(im, coded ? PTQ_TYPE_S32 : PTQ_TYPE_F32, 1, &channels, out))
        return 0;
    for (int c = 0; c < channels && from; c++)
        if (coded)
            ((int32_t *)out->data)[c] = (int32_t)tflite_code(im, from, (size_t)c);
        else
            ((float *)out->data)[c] = tflite_number(im, from, (size_t)c);
    return 1;
}

/* On codes a layer computes with integers. On real numbers with codes for weights TensorFlow Lite
   finds codes of the input image by image, which it calls hybrid, and is dynamic quantization here;
   weights that a DEQUANTIZE made real are real. */
static void finish_layer(tflite_importer *im, int index, const weights *w, int64_t activation) {
    ptq_node *node = index < 0 ? NULL : &im->model->node[index];
    int coded = node && im->model->node[node->input[0]].q.type != PTQ_TYPE_F32;
    int packed = w->from->type == TFLITE_INT8 && tflite_operand(im, 1)->constant < 0 &&
                 (coded || !im->given->real_weights);

    if (coded && !packed) {
        tflite_refuse(im, "its input is int8 and its weights are not");
        return;
    }
    if (node && (!set_weight(im, w, packed, &node->param[PTQ_PARAM_WEIGHT]) ||
                 !set_bias(im, coded, w->dim[0], &node->param[PTQ_PARAM_BIAS])))
        return;
    if (node && packed && !coded) /* with a scale for each channel the input's codes are affine */
        node->dynamic = w->from->scale.count > 1 ? 1 : PTQ_DYNAMIC_SYMMETRIC;
    tflite_finish(im, index, activation);
}

/* A stride or a dilation. */
static int read_step(tflite_importer *im, int field) {
    int64_t step = flat_integer(&im->file, im->options, field, 4, 1);

    if (step >= 1 && step <= 65535)
        return (int)step;
    tflite_refuse(im, "its stride or dilation is %lld", (long long)step);
    return 1;
}

/* What both kinds of convolution share: groups 0 stands for one a channel of the input. */
static void convolve(tflite_importer *im, int depthwise, int64_t activation) {
    ptq_conv_options o = {0};
    int from = tflite_node(im, 0, o.pad);
    tflite_tensor *weight = tflite_constant(im, 1, "weights");
    weights w = {weight, 4, {0, 0, 0, 0}, depthwise};
    int in = from < 0 ? 0 : im->model->node[from].shape[2], taps;

    if (from < 0 || !weight)
        return;
    if (weight->rank != 4 || (depthwise && weight->dim[0] != 1)) {
        tflite_refuse(im, "its weights have %d dimensions, or the wrong ones", weight->rank);
        return;
    }
    taps = depthwise ? weight->dim[3] : weight->dim[0];
    o.channels = taps;
    o.groups = depthwise ? in : weight->dim[3] > 0 ? in / weight->dim[3] : 0;
    o.kernel_h = weight->dim[1];
    o.kernel_w = weight->dim[2];
    o.dilation_w = read_step(im, depthwise ? DEPTHWISE_DILATION_W : CONV_DILATION_W);
    o.dilation_h = read_step(im, depthwise ? DEPTHWISE_DILATION_H : CONV_DILATION_H);
    o.stride_w = read_step(im, CONV_STRIDE_W);
    o.stride_h = read_step(im, CONV_STRIDE_H);
    if (o.groups < 1 || (!depthwise && in % weight->dim[3]) || (depthwise && taps % in)) {
        tflite_refuse(im, "its weights are for another number of channels than its input has");
        return;
    }
    if (flat_integer(&im->file, im->options, CONV_PADDING, 1, PADDING_SAME) != PADDING_SAME)
        o.padding = PTQ_PADDING_VALID;
    if (o.pad[0] || o.pad[1] || o.pad[2] || o.pad[3]) {
        if (o.padding == PTQ_PADDING_SAME) {
            tflite_refuse(im, "it pads by itself behind a PAD; padding can be done once");
            return;
        }
        o.padding = PTQ_PADDING_EXPLICIT;
    }
    w.dim[0] = o.channels;
    w.dim[1] = depthwise ? 1 : weight->dim[3];
    w.dim[2] = o.kernel_h;
    w.dim[3] = o.kernel_w;
    im->model->bare = 1;
    finish_layer(im, ptq_add_conv2d(im->model, im->name, from, &o), &w, activation);
}

void tflite_conv(tflite_importer *im) {
    convolve(im, 0, flat_integer(&im->file, im->options, CONV_ACTIVATION, 1, 0));
}

/* The number of results for each channel, depth_multiplier, is told by the weights as well, which
   TensorFlow Lite itself goes by. */
void tflite_depthwise(tflite_importer *im) {
    convolve(im, 1, flat_integer(&im->file, im->options, DEPTHWISE_ACTIVATION, 1, 0));
}

void tflite_dense(tflite_importer *im) {
    int from = tflite_node(im, 0, NULL);
    tflite_tensor *weight = tflite_constant(im, 1, "weights");
    weights w = {weight, 2, {1, 1, 1, 1}, 0};
    const int *shape = from < 0 ? NULL : im->model->node[from].shape;

    if (from < 0 || !weight)
        return;
    if (weight->rank != 2 || flat_integer(&im->file, im->options, DENSE_FORMAT, 1, 0) != 0 ||
        (size_t)weight->dim[1] != (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2]) {
        tflite_refuse(im, "its weights are not one number for each of its inputs and results; a "
                          "dense layer for each place of an image is a 1 x 1 convolution");
        return;
    }
    w.dim[0] = weight->dim[0];
    w.dim[1] = weight->dim[1];
    im->model->bare = 1;
    finish_layer(im, ptq_add_dense(im->model, im->name, from, w.dim[0]), &w,
                 flat_integer(&im->file, im->options, DENSE_ACTIVATION, 1, 0));
}
