/* Layers with parameters: convolution, dense, batch norm, on real numbers, in QDQ form and in
   QOperator form. */
#include <math.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

static int make_tensor(const importer *im, ptq_type type, int rank, const int *dims,
                       ptq_tensor *out) {
    ptq_error err;

    if (ptq_tensor_create(out, type, 32, rank, dims, NULL, &err))
        return refuse_as(im, err.text);
    return 0;
}

int set_vector(importer *im, int index, int param, const onnx_constant *from) {
    ptq_node *node = &im->model->node[index];
    int count = node->shape[2];
    float *to;

    if (from->count != (size_t)count && from->count != 1)
        return refuse_damaged(im, "a parameter has not as many elements as there are channels");
    if (make_tensor(im, PTQ_TYPE_F32, 1, &count, &node->param[param]))
        return 1;
    to = node->param[param].data;
    for (int i = 0; i < count; i++)
        to[i] = constant_float(from, from->count == 1 ? 0 : (size_t)i);
    return 0;
}

/* ---- Weights: real numbers or codes ---- */

/* A weight as O x K numbers with O first. Dense weights may lie the other way round, and their
   columns in another order than the model's. */
typedef struct weights {
    constant_numbers from; /* FLOAT, INT8 or UINT8 */
    int rank, dim[4];
    int swapped;      /* I x O */
    const int *order; /* shape of the input: columns come channel first; NULL: they fit */
} weights;

static size_t weight_source(const weights *from, int o, size_t k) {
    size_t columns = 1;

    for (int i = 1; i < from->rank; i++)
        columns *= (size_t)from->dim[i];
    if (from->order) { /* k counts in H, W, C order */
        size_t channels = (size_t)from->order[2], pixels = columns / channels;

        k = k % channels * pixels + k / channels;
    }
    return from->swapped ? k * (size_t)from->dim[0] + (size_t)o : (size_t)o * columns + k;
}

/* u8 codes with a scale for each channel and the zero point 128 everywhere are s8 codes in another
   guise; other zero points than 0 there are not supported. */
static int weight_offset(const importer *im, const constant_numbers *from, int *offset) {
    *offset = 0;
    if (from->scale->count == 1)
        return 0;
    if (from->numbers->type == ONNX_UINT8)
        *offset = 128;
    for (size_t k = 0; k < from->scale->count; k++)
        if (constant_zero(from->zero_point, k) != *offset)
            return refuse(im,
                          "weights with a scale for each channel must be symmetric: zero points 0 "
                          "(INT8) or 128 (UINT8); quantize them so, or with one scale");
    return 0;
}

static int set_codes(importer *im, const weights *w, ptq_tensor *out) {
    const constant_numbers *from = &w->from;
    size_t count = from->numbers->count / (size_t)w->dim[0];
    int offset = 0;
    ptq_error err;

    if (weight_offset(im, from, &offset))
        return 1;
    if (make_tensor(im, from->numbers->type == ONNX_INT8 || offset ? PTQ_TYPE_S8 : PTQ_TYPE_U8,
                    w->rank, w->dim, out))
        return 1;
    for (int o = 0; o < w->dim[0]; o++)
        for (size_t k = 0; k < count; k++)
            ptq_tensor_set_code(out, (size_t)o * count + k,
                                (int32_t)constant_int(from->numbers, weight_source(w, o, k)) -
                                    offset);
    if (ptq_tensor_set_scale(out, from->scale->data, (int)from->scale->count,
                             from->scale->count == 1 ? constant_zero(from->zero_point, 0) : 0, NULL,
                             &err))
        return refuse_as(im, err.text);
    return 0;
}

static int set_numbers(importer *im, const weights *w, ptq_tensor *out) {
    const onnx_constant *numbers = w->from.numbers;
    size_t count = numbers->count / (size_t)w->dim[0];
    float *to;

    if (make_tensor(im, PTQ_TYPE_F32, w->rank, w->dim, out))
        return 1;
    to = out->data;
    for (int o = 0; o < w->dim[0]; o++)
        for (size_t k = 0; k < count; k++)
            *to++ = constant_float(numbers, weight_source(w, o, k));
    return 0;
}

static float input_weight_scale(const importer *im, int index, int channel) {
    const ptq_node *node = &im->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];

    return im->model->node[node->input[0]].q.scale *
           weight->scale[weight->scales > 1 ? channel : 0];
}

/* 1 if the codes of a bias have the scale that integer arithmetic needs. */
static int has_bias_scale(const importer *im, int index, const value *bias) {
    const onnx_constant *scale = bias->codes.scale;

    if (!bias->codes.numbers || bias->codes.numbers->type != ONNX_INT32)
        return 0;
    if (scale->count != 1 && scale->count != (size_t)im->model->node[index].shape[2])
        return 0;
    for (size_t k = 0; k < scale->count; k++)
        if (constant_zero(bias->codes.zero_point, k) != 0)
            return 0;
    for (int c = 0; c < im->model->node[index].shape[2]; c++) {
        float have = ((const float *)scale->data)[scale->count == 1 ? 0 : c];
        float want = input_weight_scale(im, index, c);

        if (!(fabsf(have - want) <= 1e-5f * want))
            return 0;
    }
    return 1;
}

/* Codes of the right scale are taken as they are, real numbers rounded to that scale. */
int set_integer_bias(importer *im, int index, value *bias) {
    ptq_node *node = &im->model->node[index];
    int count = node->shape[2], ready = has_bias_scale(im, index, bias);
    const onnx_constant *from = ready ? bias->codes.numbers : &bias->constant;
    int32_t *to;

    if (!ready && load_constant(im, bias))
        return 1;
    ready = from->type == ONNX_INT32;
    if (from->count != (size_t)count)
        return refuse_damaged(im, "its bias has not as many elements as there are channels");
    if (make_tensor(im, PTQ_TYPE_S32, 1, &count, &node->param[PTQ_PARAM_BIAS]))
        return 1;
    to = node->param[PTQ_PARAM_BIAS].data;
    for (int c = 0; c < count; c++) {
        double code = ready ? (double)constant_int(from, (size_t)c)
                            : nearbyint((double)constant_float(from, (size_t)c) /
                                        (double)input_weight_scale(im, index, c));

        if (!(fabs(code) <= 2147483647.0))
            return refuse(im, "its bias does not fit 32 bits at the scale of its input and "
                              "weights; quantize its weights with a larger scale");
        to[c] = (int32_t)code;
    }
    return 0;
}

/* Fills weight and bias of a convolution or dense node; `bias` NULL: none. */
static int set_weights(importer *im, int index, const weights *w, value *bias) {
    int coded = w->from.scale != NULL;
    ptq_tensor *weight;

    if (index < 0)
        return refuse_as(im, im->model->error.text);
    weight = &im->model->node[index].param[PTQ_PARAM_WEIGHT];
    if (coded ? set_codes(im, w, weight) : set_numbers(im, w, weight))
        return 1;
    if (!bias)
        return 0;
    if (coded)
        return set_integer_bias(im, index, bias);
    return load_constant(im, bias) || set_vector(im, index, PTQ_PARAM_BIAS, &bias->constant);
}

/* ---- Layers with weights ---- */

/* What a convolution or dense layer is made from, whichever operator describes it. */
typedef struct layer {
    value *input, *weight, *bias; /* bias NULL: none */
    weights w;
    int integer; /* computes on codes */
    int from;    /* the model's node that is its input */
} layer;

/* Gemm with factors, which is computed in real numbers. */
static int is_scaled(const importer *im) {
    float alpha = float_attribute(im, "alpha", 1), beta = float_attribute(im, "beta", 1);

    return alpha < 1 || alpha > 1 || beta < 1 || beta > 1;
}

/* QDQ form and float: input, weight, bias. Integer arithmetic where input and weight are both
   dequantized from codes. */
static int read_real_layer(importer *im, int dense, layer *out) {
    out->input = padded_input(im, 0);
    out->weight = input_of(im, 1);
    out->bias = input_of(im, 2);
    if (!out->input)
        return 1;
    if (!out->weight || out->weight->state != STATE_CONSTANT)
        return refuse(im, "its weights must be constant; fold constants with onnxsim");
    if (out->bias && out->bias->state != STATE_CONSTANT)
        return refuse(im, "its bias must be constant; fold constants with onnxsim");
    /* A dense layer may give real numbers. */
    out->integer = out->input->state == STATE_DEQUANTIZED && out->weight->codes.numbers &&
                   onnx_width(out->weight->codes.numbers->type) == 1 && !(dense && is_scaled(im)) &&
                   ((dense && !output_of(im, 0)->coded) || computes_codes(im));
    if (out->integer) {
        out->w.from = out->weight->codes;
        out->from = out->input->node;
        return 0;
    }
    out->from = real_node(im, out->input);
    if (out->from < 0 || load_constant(im, out->weight))
        return 1;
    out->w.from.numbers = &out->weight->constant;
    return 0;
}

/* QOperator form: input, its scale and zero point, weight, its scale and zero point. */
static int read_coded_layer(importer *im, layer *out) {
    constant_numbers *w = &out->w.from;

    out->input = coded_input(im, 0);
    if (!out->input || constant_input(im, 3, 1, &w->numbers) ||
        constant_input(im, 4, 1, &w->scale) || constant_input(im, 5, 0, &w->zero_point))
        return 1;
    out->weight = input_of(im, 3);
    out->bias = im->operation->bias ? input_of(im, (size_t)im->operation->bias) : NULL;
    if (out->bias && out->bias->state != STATE_CONSTANT)
        return refuse(im, "its bias must be constant; fold constants with onnxsim");
    if (w->numbers->type != ONNX_INT8 && w->numbers->type != ONNX_UINT8)
        return refuse(im, "its weights are neither INT8 nor UINT8; quantize to 8 bits");
    out->integer = 1;
    out->from = out->input->node;
    return 0;
}

static int read_layer(importer *im, int dense, layer *out) {
    memset(out, 0, sizeof *out);
    return im->operation->result ? read_coded_layer(im, out) : read_real_layer(im, dense, out);
}

/* Scales of weights belong to output channels, which lie along `axis`: the QOperator form does not
   say so, DequantizeLinear does. */
static int check_weight_scales(const importer *im, layer *of, int axis) {
    constant_numbers *w = &of->w.from;

    if (!w->scale)
        return 0;
    if (w->scale->count > 1 && !im->operation->result && w->axis != axis)
        return refuse(im, "the scales of its weights are not for its output channels; quantize "
                          "them along these, or with one scale");
    w->axis = axis;
    return check_scales(im, w);
}

/* What a Conv says of its kernel, its weights show. */
static int check_kernel(const importer *im, const int kernel[2]) {
    const Onnx__AttributeProto *said = find_attribute(im, "kernel_shape");

    if (said && (said->n_ints != 2 || said->ints[0] != kernel[0] || said->ints[1] != kernel[1]))
        return refuse_damaged(im, "its kernel_shape is not that of its weights");
    return 0;
}

static int add_conv(importer *im, layer *of, int *index) {
    const onnx_constant *w = of->w.from.numbers;
    ptq_conv_options options;
    char name[PTQ_NAME_SIZE];
    window win;
    int64_t groups = int_attribute(im, "group", 1);

    if (w->rank != 4)
        return refuse(im, "only convolutions over two dimensions are supported; write one over a "
                          "line with a height of 1");
    for (int i = 0; i < 4; i++) {
        if (w->dim[i] < 1 || (i > 1 && w->dim[i] > PTQ_MAX_KERNEL))
            return refuse(
                im, "its weights are empty, or its kernel is larger than 255; take a smaller one");
        of->w.dim[i] = (int)w->dim[i];
    }
    of->w.rank = 4;
    win.kernel[0] = of->w.dim[2];
    win.kernel[1] = of->w.dim[3];
    if (check_kernel(im, win.kernel))
        return 1;
    if (needs_nchw(im, of->input) || refuse_lowest(im, of->input) ||
        read_window(im, of->input, &win))
        return 1;
    if (groups < 1 || groups > PTQ_MAX_ELEMENTS || groups * w->dim[1] != shape_of(im, of->input)[2])
        return refuse_damaged(im, "its weights do not fit the channels of its input");
    memset(&options, 0, sizeof options);
    options.channels = of->w.dim[0];
    options.kernel_h = win.kernel[0];
    options.kernel_w = win.kernel[1];
    options.stride_h = win.stride[0];
    options.stride_w = win.stride[1];
    options.padding = win.padding;
    memcpy(options.pad, win.pad, sizeof options.pad);
    options.dilation_h = win.dilation[0];
    options.dilation_w = win.dilation[1];
    options.groups = (int)groups;
    options.no_bias = !of->bias;
    layer_name(im, of->weight, name);
    *index = ptq_add_conv2d(im->model, name, of->from, &options);
    return check_weight_scales(im, of, 0) || set_weights(im, *index, &of->w, of->bias);
}

int import_conv(importer *im) {
    layer of;
    int index = -1;

    if (read_layer(im, 0, &of) || add_conv(im, &of, &index))
        return 1;
    return finish_node(im, index, VIEW_NCHW, of.integer ? STATE_PENDING : STATE_REAL);
}

/* Gemm's third operand may also hold a number for each image. */
static int check_dense_bias(importer *im, value *bias) {
    const onnx_constant *numbers;

    if (!bias->codes.numbers && load_constant(im, bias))
        return 1;
    numbers = bias->codes.numbers ? bias->codes.numbers : &bias->constant;
    if (numbers->count == 1 || (numbers->rank && numbers->rank <= 2 &&
                                numbers->dim[numbers->rank - 1] == (int64_t)numbers->count))
        return 0;
    return refuse(
        im, "its bias must have one number for each output; add others by a node of their own");
}

/* Dense from a matrix of 2 dimensions, I x O or (`swapped` 0) O x I. */
static int add_dense(importer *im, layer *of, int swapped, int *index) {
    const onnx_constant *w = of->w.from.numbers;
    char name[PTQ_NAME_SIZE];
    const int *shape = shape_of(im, of->input);
    int inputs, outputs;

    if (w->rank != 2 || w->dim[0] < 1 || w->dim[1] < 1)
        return refuse(im, "its weights must be a matrix; flatten in front of it");
    if (is_padded(of->input))
        return refuse(im, "Pad is supported in front of Conv, MaxPool and AveragePool only; leave "
                          "it out, or pad by the pads of a Conv");
    outputs = (int)w->dim[swapped];
    inputs = (int)w->dim[1 - swapped];
    if (of->input->view != VIEW_FLAT_CHW && of->input->view != VIEW_FLAT_HWC)
        return refuse(
            im, "it needs its input flattened to two dimensions; put a Flatten in front of it");
    if ((int64_t)shape[0] * shape[1] * shape[2] != inputs)
        return refuse_damaged(im, "its weights do not fit the size of its input");
    if (of->bias && check_dense_bias(im, of->bias))
        return 1;
    of->w.rank = 2;
    of->w.dim[0] = outputs;
    of->w.dim[1] = inputs;
    of->w.swapped = swapped;
    of->w.order = of->input->view == VIEW_FLAT_CHW && !is_pixel(im, of->input) ? shape : NULL;
    layer_name(im, of->weight, name);
    if (check_weight_scales(im, of, swapped))
        return 1;
    *index = ptq_add_dense(im->model, name, of->from, outputs);
    if (*index >= 0 && !of->bias) { /* in a bare model, the builder's bias has no memory yet */
        im->model->node[*index].no_bias = 1;
        memset(&im->model->node[*index].param[PTQ_PARAM_BIAS], 0, sizeof(ptq_tensor));
    }
    /* the builder may have moved the nodes */
    of->w.order = of->w.order ? shape_of(im, of->input) : NULL;
    return set_weights(im, *index, &of->w, of->bias);
}

static int check_gemm(const importer *im) {
    if (int_attribute(im, "transA", 0) != 0)
        return refuse(im, "transA is not supported, for it turns images into features; export "
                          "without it");
    if (im->operation->result && is_scaled(im))
        return refuse(im, "alpha other than 1 is not supported on codes; put it into the scale of "
                          "the weights");
    return 0;
}

/* alpha and beta go into weights and bias. */
static void scale_gemm(importer *im, int index) {
    float factor[] = {float_attribute(im, "alpha", 1), float_attribute(im, "beta", 1)};
    static const int param[] = {PTQ_PARAM_WEIGHT, PTQ_PARAM_BIAS};

    for (int i = 0; i < 2; i++) {
        ptq_tensor *tensor = &im->model->node[index].param[param[i]];
        float *number = tensor->data;

        for (size_t k = 0; number && k < ptq_tensor_elements(tensor); k++)
            number[k] *= factor[i];
    }
}

/* Without a scale for its result QGemm returns real numbers. */
int import_gemm(importer *im) {
    layer of;
    int index = -1;

    if (check_gemm(im) || read_layer(im, 1, &of) ||
        add_dense(im, &of, int_attribute(im, "transB", 0) == 0, &index))
        return 1;
    if (is_scaled(im))
        scale_gemm(im, index);
    if (im->operation->result && !has_input(im->at, (size_t)im->operation->result))
        return set_result(im, index, VIEW_FLAT_HWC, STATE_PENDING);
    return finish_node(im, index, VIEW_FLAT_HWC, of.integer ? STATE_PENDING : STATE_REAL);
}

int import_matmul(importer *im) {
    layer of;
    int index = -1;

    if (read_layer(im, 1, &of) || add_dense(im, &of, 1, &index))
        return 1;
    return finish_node(im, index, VIEW_FLAT_HWC, of.integer ? STATE_PENDING : STATE_REAL);
}

/* Behind a dense layer a batch norm goes into its weights; behind a convolution `ptq quantize` does
   that, for a float model keeps it. -1: it is not so; numbers: gamma, beta, mean, variance. */
static int fold_norm(importer *im, const value *from, const onnx_constant *const numbers[4]) {
    int channels = shape_of(im, from)[2], folded;
    double epsilon = (double)float_attribute(im, "epsilon", 1e-5f);
    float *scale, *shift;

    if (im->model->node[from->node].op != PTQ_OP_DENSE)
        return -1;
    for (int i = 0; i < 4; i++)
        if (numbers[i]->count != (size_t)channels && numbers[i]->count != 1)
            return -1;
    scale = calloc(2 * (size_t)channels, sizeof *scale);
    if (!scale)
        return fail("no memory for %d channels", channels);
    shift = scale + channels;
    for (int c = 0; c < channels; c++) {
        double is[4], factor;

        for (int i = 0; i < 4; i++)
            is[i] = (double)constant_float(numbers[i], numbers[i]->count == 1 ? 0 : (size_t)c);
        factor = is[0] / sqrt(is[3] + epsilon);
        scale[c] = (float)factor;
        shift[c] = (float)(is[1] - is[2] * factor);
    }
    folded = fold_into_layer(im, from, scale, shift);
    free(scale);
    return folded ? set_alias(im, from, from->view) : -1;
}

int import_batch_norm(importer *im) {
    static const int param[] = {PTQ_PARAM_WEIGHT, PTQ_PARAM_BIAS, PTQ_PARAM_MEAN,
                                PTQ_PARAM_VARIANCE};
    const onnx_constant *from[4];
    value *input = tensor_input(im, 0);
    char name[PTQ_NAME_SIZE];
    int real, index, training = int_attribute(im, "training_mode", 0) != 0, folded;

    if (!input || (input->view != VIEW_NCL &&
                   (view_rank(input->view) != 2 || !is_pixel(im, input)) && needs_nchw(im, input)))
        return 1;
    for (size_t i = 1; i < im->at->n_output; i++) /* so older opsets say it */
        training |= *text_or(im->at->output[i], "") != 0;
    if (training || int_attribute(im, "spatial", 1) != 1)
        return refuse(im, "training mode, and statistics for each pixel, are not supported; export "
                          "the model in evaluation mode");
    for (size_t i = 0; i < 4; i++)
        if (constant_input(im, i + 1, 1, &from[i]))
            return 1;
    if ((folded = fold_norm(im, input, from)) >= 0)
        return folded;
    if ((real = real_node(im, input)) < 0)
        return 1;
    layer_name(im, input_of(im, 1), name);
    index = ptq_add_batch_norm(im->model, name, real, float_attribute(im, "epsilon", 1e-5f));
    for (int i = 0; i < 4 && index >= 0; i++)
        if (set_vector(im, index, param[i], from[i]))
            return 1;
    return set_result(im, index, input->view, STATE_REAL);
}

#endif
