/* The table of Keras layers, and those with weights, activations, pools and sums. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "import/keras_import.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

#define COUNT(list) (sizeof(list) / sizeof *(list))

enum { NO_OPERATOR = -1, MOST_CHANNELS = 1 << 20 };

static const int ones[2] = {1, 1};

/* ---- Activations ---- */

/* A row of the table of functions with one input: what Keras calls it, and the operator. */
typedef struct function {
    const char *name;
    int op; /* NO_OPERATOR: it does nothing */
} function;

static const function functions[] = {
    {"linear", NO_OPERATOR},
    {"relu", PTQ_OP_RELU},
    {"relu6", PTQ_OP_RELU6},
    {"softmax", PTQ_OP_SOFTMAX},
};

/* max(x, 0), perhaps with an upper bound; as a layer, or as the object that some layers have in
   place of a name. */
static int relu_op(keras_call *at, const json_t *config) {
    static const char *const slopes[] = {"negative_slope", "threshold", "alpha"};
    const json_t *most = json_object_get(config, "max_value");
    double bound = json_number_value(most);

    for (size_t i = 0; i < COUNT(slopes); i++) {
        double slope = json_number_value(json_object_get(config, slopes[i]));

        if (slope < 0 || slope > 0)
            keras_refuse(at,
                         "its %s is %g; there is an operator for 0 alone, so train it with that",
                         slopes[i], slope);
    }
    if (!most || json_is_null(most))
        return PTQ_OP_RELU;
    if (bound < 6 || bound > 6)
        keras_refuse(at,
                     "its max_value is %g; there are operators for 6 and for none, so train it "
                     "with one of these",
                     bound);
    return PTQ_OP_RELU6;
}

/* "relu"; {"class_name": "function", "config": "relu"}; {"class_name": "ReLU", "config": {...}}. */
static int activation_op(keras_call *at) {
    const json_t *value = keras_setting(at, "activation"),
                 *config = json_object_get(value, "config");
    const char *name = json_string_value(value);
    const char *kind = json_string_value(json_object_get(value, "class_name"));

    if (!value)
        return NO_OPERATOR;
    if (kind && strcmp(kind, "ReLU") == 0)
        return relu_op(at, config);
    if (!name)
        name = json_is_string(config) ? json_string_value(config) : kind ? kind : "?";
    for (size_t i = 0; i < COUNT(functions); i++)
        if (strcmp(name, functions[i].name) == 0)
            return functions[i].op;
    keras_refuse(at, "there is no operator for the activation '%.60s'; train it with relu or relu6",
                 name);
    return NO_OPERATOR;
}

/* The node is called as its layer where that is all it does. */
static keras_value add_function(keras_call *at, keras_value value, int op, int alone) {
    char name[PTQ_NAME_SIZE], suffix[24] = "";

    if (op == NO_OPERATOR || at->refused)
        return value;
    if (!alone)
        snprintf(suffix, sizeof suffix, ".%s", ptq_name(PTQ_NAMES_OP, (unsigned)op));
    keras_name(at, suffix, name);
    return keras_result(at, ptq_add_op(at->im->model, (ptq_op)op, name, value.node), value.rank);
}

static keras_value import_alone(keras_call *at, int op) {
    if (op == NO_OPERATOR && !at->refused)
        return keras_same(at);
    if (!keras_ready(at))
        return keras_unknown();
    keras_add_zeros(at, 0);
    return keras_ready(at) ? add_function(at, at->input[0], op, 1) : keras_unknown();
}

static keras_value import_activation(keras_call *at) { return import_alone(at, activation_op(at)); }

static keras_value import_relu(keras_call *at) {
    return import_alone(at, relu_op(at, json_object_get(at->layer->json, "config")));
}

static keras_value import_softmax(keras_call *at) {
    keras_check_axis(at, at->input[0].rank);
    return import_alone(at, PTQ_OP_SOFTMAX);
}

/* What changes nothing at inference. */
static keras_value import_nothing(keras_call *at) {
    if (at->training)
        keras_refuse(at, "it is called with training=True, and so is random at inference too; "
                         "build the model without that");
    return keras_same(at);
}

/* ---- Convolutions ---- */

static int needs_image(keras_call *at) {
    if (keras_ready(at) && at->input[0].rank != 3)
        keras_refuse(at, "it needs an image of H x W x C");
    return keras_ready(at);
}

typedef struct convolution {
    keras_window window;
    const char *suffix; /* of its name */
    const char *weight;
    int channels, groups;
    int bias; /* number of the bias; 0: it has none */
    int number, depthwise;
} convolution;

/* Depthwise weights are H x W x C x M, the M results of a channel beside each other; all others
   H x W x I x O. As rows of numbers both are the same. */
static keras_value add_convolution(keras_call *at, const convolution *conv) {
    const keras_window *w = &conv->window;
    int input = at->im->model->node[at->input[0].node].shape[2], deep = input / conv->groups;
    ptq_conv_options options = {conv->channels,
                                w->kernel[0],
                                w->kernel[1],
                                w->stride[0],
                                w->stride[1],
                                w->padding,
                                {0, 0, 0, 0},
                                conv->groups,
                                0,
                                1,
                                1};
    keras_weight weight = {
        conv->weight, conv->number, 4, {w->kernel[0], w->kernel[1], deep, conv->channels}};
    char name[PTQ_NAME_SIZE];
    keras_value value;
    int index;

    if (conv->depthwise) {
        weight.shape[2] = input;
        weight.shape[3] = conv->channels / input;
    }
    memcpy(options.pad, w->pad, sizeof options.pad);
    options.no_bias = !conv->bias || keras_is_false(at, "use_bias");
    keras_name(at, conv->suffix, name);
    index = ptq_add_conv2d(at->im->model, name, at->input[0].node, &options);
    value = keras_result(at, index, 3);
    if (index < 0)
        return value;
    keras_load_kernel(at, index, &weight);
    if (!options.no_bias)
        keras_load_bias(at, index, conv->bias);
    return value;
}

static void read_convolution(keras_call *at, convolution *conv) {
    int dilation[2];

    keras_read_window(at, "kernel_size", ones, &conv->window);
    keras_check_format(at);
    keras_pair(at, "dilation_rate", ones, PTQ_MAX_KERNEL, dilation);
    if (dilation[0] > 1 || dilation[1] > 1)
        keras_refuse(at, "its dilation_rate is %dx%d; there is no operator for other than 1x1",
                     dilation[0], dilation[1]);
}

static keras_value import_conv(keras_call *at) {
    convolution conv = {.suffix = "", .weight = "kernel", .bias = 1};
    int op = activation_op(at);

    read_convolution(at, &conv);
    conv.channels = keras_number(at, "filters", 0, MOST_CHANNELS);
    conv.groups = keras_number(at, "groups", 1, MOST_CHANNELS);
    if (!needs_image(at))
        return keras_unknown();
    keras_take_zeros(at, &conv.window);
    return keras_ready(at) ? add_function(at, add_convolution(at, &conv), op, 0) : keras_unknown();
}

/* Every channel by itself, M results of each. */
static void set_depthwise(keras_call *at, convolution *conv) {
    int multiplier = keras_number(at, "depth_multiplier", 1, 1 << 10);

    conv->depthwise = 1;
    if (needs_image(at)) {
        conv->groups = at->im->model->node[at->input[0].node].shape[2];
        if (conv->groups > MOST_CHANNELS)
            keras_refuse(at, "it has more than %d channels", MOST_CHANNELS);
        conv->channels = conv->groups * multiplier;
    }
}

static keras_value import_depthwise(keras_call *at) {
    convolution conv = {.suffix = "", .weight = "depthwise_kernel", .bias = 1};
    int op = activation_op(at);

    read_convolution(at, &conv);
    set_depthwise(at, &conv);
    if (!keras_ready(at))
        return keras_unknown();
    keras_take_zeros(at, &conv.window);
    return keras_ready(at) ? add_function(at, add_convolution(at, &conv), op, 0) : keras_unknown();
}

/* A depthwise convolution without a bias, and one of 1 x 1 behind it. */
static keras_value import_separable(keras_call *at) {
    convolution deep = {.suffix = ".depthwise", .weight = "depthwise_kernel"};
    convolution point = {.suffix = ".pointwise",
                         .weight = "pointwise_kernel",
                         .number = 1,
                         .bias = 2,
                         .groups = 1,
                         .window = {{1, 1}, {1, 1}, {0, 0, 0, 0}, PTQ_PADDING_SAME}};
    int op = activation_op(at);
    keras_value between;

    read_convolution(at, &deep);
    set_depthwise(at, &deep);
    point.channels = keras_number(at, "filters", 0, MOST_CHANNELS);
    if (!keras_ready(at))
        return keras_unknown();
    keras_take_zeros(at, &deep.window);
    if (!keras_ready(at))
        return keras_unknown();
    between = add_convolution(at, &deep);
    if (at->refused)
        return keras_unknown();
    at->input[0] = between;
    return add_function(at, add_convolution(at, &point), op, 0);
}

/* ---- Dense layers ---- */

/* On H x W x C that is not flattened, each pixel is a row: a convolution of 1 x 1. */
static keras_value add_pixelwise(keras_call *at, int units) {
    ptq_conv_options options = {units, 1, 1, 1, 1, PTQ_PADDING_SAME, {0, 0, 0, 0}, 1, 0, 1, 1};
    keras_weight weight = {
        "kernel", 0, 2, {at->im->model->node[at->input[0].node].shape[2], units}};
    char name[PTQ_NAME_SIZE];
    keras_value value;
    int index;

    keras_name(at, "", name);
    index = ptq_add_conv2d(at->im->model, name, at->input[0].node, &options);
    value = keras_result(at, index, 3);
    if (index >= 0) {
        keras_load_kernel(at, index, &weight);
        keras_load_bias(at, index, 1);
    }
    return value;
}

static keras_value add_dense(keras_call *at, int units) {
    const int *shape = at->im->model->node[at->input[0].node].shape;
    keras_weight weight = {"kernel", 0, 2, {shape[0] * shape[1] * shape[2], units}};
    char name[PTQ_NAME_SIZE];
    keras_value value;
    int index;

    keras_name(at, "", name);
    index = ptq_add_dense(at->im->model, name, at->input[0].node, units);
    value = keras_result(at, index, at->input[0].rank);
    if (index >= 0) {
        keras_load_kernel(at, index, &weight);
        keras_load_bias(at, index, 1);
    }
    return value;
}

static keras_value import_dense(keras_call *at) {
    int units = keras_number(at, "units", 0, MOST_CHANNELS), op = activation_op(at);
    const int *shape;
    keras_value value;

    if (keras_ready(at))
        keras_add_zeros(at, 0);
    if (keras_ready(at) && at->input[0].rank == 2)
        keras_refuse(at, "its input has rows of pixels; put a Flatten before it");
    if (!keras_ready(at))
        return keras_unknown();
    shape = at->im->model->node[at->input[0].node].shape;
    value = at->input[0].rank == 3 && shape[0] * shape[1] > 1 ? add_pixelwise(at, units)
                                                              : add_dense(at, units);
    return add_function(at, value, op, 0);
}

/* ---- Batch normalization ---- */

/* Without scale there is no gamma, without center no beta; .keras files number what is left. */
static void load_norm(keras_call *at, int index) {
    static const char *const names[] = {"gamma", "beta", "moving_mean", "moving_variance"};
    static const char *const keys[] = {"scale", "center"};
    keras_weight weight = {NULL, 0, 1, {at->im->model->node[index].shape[2]}};

    for (int i = 0; i < 4; i++) {
        if (i < 2 && keras_is_false(at, keys[i])) {
            keras_fill(at, index, i, i == 0);
            continue;
        }
        weight.name = names[i];
        keras_load(at, index, i, &weight);
        weight.number++;
    }
}

static keras_value import_norm(keras_call *at) {
    double epsilon = keras_real(at, "epsilon", 0);
    char name[PTQ_NAME_SIZE];
    const int *shape;
    keras_value value;
    int index;

    if (!(epsilon > 0))
        keras_refuse(at, "its epsilon must be a number above 0");
    if (at->training)
        keras_refuse(at, "it is called with training=True, and would take the statistics of the "
                         "images at hand; build the model without that");
    if (keras_ready(at))
        keras_check_axis(at, at->input[0].rank);
    if (keras_ready(at))
        keras_add_zeros(at, 0);
    if (!keras_ready(at))
        return keras_unknown();
    shape = at->im->model->node[at->input[0].node].shape;
    if (at->input[0].rank == 2 || (at->input[0].rank == 1 && shape[0] * shape[1] > 1)) {
        keras_refuse(at, "it has numbers for each pixel; put it before the Flatten");
        return keras_unknown();
    }
    keras_name(at, "", name);
    index = ptq_add_batch_norm(at->im->model, name, at->input[0].node, (float)epsilon);
    value = keras_result(at, index, at->input[0].rank);
    if (index >= 0)
        load_norm(at, index);
    return value;
}

/* ---- Pools ---- */

/* Zeros that a layer before it adds do not change a maximum of numbers that are not negative. */
static int is_positive(const keras_call *at) {
    ptq_op op = at->im->model->node[at->input[0].node].op;

    return op == PTQ_OP_RELU || op == PTQ_OP_RELU6;
}

static keras_value add_pool(keras_call *at, ptq_op op, const keras_window *w, int include) {
    ptq_pool_options options = {w->kernel[0], w->kernel[1], w->stride[0], w->stride[1],
                                w->padding,   {0, 0, 0, 0}, include,      0};
    const int *shape = at->im->model->node[at->input[0].node].shape;
    int whole = op == PTQ_OP_AVG_POOL && w->padding == PTQ_PADDING_VALID &&
                w->kernel[0] == shape[0] && w->kernel[1] == shape[1];
    char name[PTQ_NAME_SIZE];

    memcpy(options.pad, w->pad, sizeof options.pad);
    keras_name(at, "", name);
    return keras_result(
        at,
        whole ? ptq_add_op(at->im->model, PTQ_OP_GLOBAL_AVG_POOL, name, at->input[0].node)
              : ptq_add_pool(at->im->model, op, name, at->input[0].node, &options),
        3);
}

static keras_value import_pool(keras_call *at, ptq_op op) {
    static const int two[2] = {2, 2};
    keras_window w;
    int padded, counted;

    keras_read_window(at, "pool_size", two, &w);
    keras_check_format(at);
    if (!needs_image(at))
        return keras_unknown();
    padded = at->input[0].padder != NULL;
    counted = padded && op == PTQ_OP_AVG_POOL && w.padding == PTQ_PADDING_VALID;
    if (padded && !counted && (op == PTQ_OP_AVG_POOL || !is_positive(at)))
        keras_add_zeros(at, 0);
    else
        keras_take_zeros(at, &w);
    return keras_ready(at) ? add_pool(at, op, &w, counted && w.padding == PTQ_PADDING_EXPLICIT)
                           : keras_unknown();
}

static keras_value import_max_pool(keras_call *at) { return import_pool(at, PTQ_OP_MAX_POOL); }

static keras_value import_avg_pool(keras_call *at) { return import_pool(at, PTQ_OP_AVG_POOL); }

/* H x W x C -> C, or 1 x 1 x C. */
static keras_value import_global(keras_call *at, ptq_op op) {
    keras_window w = {{1, 1}, {1, 1}, {0, 0, 0, 0}, PTQ_PADDING_VALID};
    keras_value value;

    keras_check_format(at);
    if (needs_image(at))
        keras_add_zeros(at, 0);
    if (!keras_ready(at))
        return keras_unknown();
    memcpy(w.kernel, at->im->model->node[at->input[0].node].shape, sizeof w.kernel);
    value = add_pool(at, op, &w, 0);
    value.rank = json_is_true(keras_setting(at, "keepdims")) ? 3 : 1;
    return value;
}

static keras_value import_global_max(keras_call *at) { return import_global(at, PTQ_OP_MAX_POOL); }

static keras_value import_global_avg(keras_call *at) { return import_global(at, PTQ_OP_AVG_POOL); }

/* ---- Sums ---- */

/* Along the channels, which are the last axis; of what is flattened, only where the image was one
   pixel. */
static keras_value import_concatenate(keras_call *at) {
    keras_value joined;

    for (int i = 0; i < at->inputs && keras_ready(at); i++)
        keras_add_zeros(at, i);
    if (!keras_ready(at))
        return keras_unknown();
    joined = at->input[0];
    keras_check_axis(at, joined.rank);
    for (int i = 0; i < at->inputs; i++) {
        const int *shape = at->im->model->node[at->input[i].node].shape;

        if (at->input[i].rank != joined.rank ||
            (joined.rank == 1 && (shape[0] != 1 || shape[1] != 1)))
            keras_refuse(at, "tensors can be joined along their channels only");
    }
    for (int i = 1; i < at->inputs && !at->refused; i++) {
        char name[PTQ_NAME_SIZE];

        keras_name(at, i < at->inputs - 1 ? ".link" : "", name);
        joined = keras_result(
            at, ptq_add_concat(at->im->model, name, joined.node, at->input[i].node), joined.rank);
    }
    return joined;
}

static keras_value import_add(keras_call *at) {
    keras_value sum;

    if (at->inputs < 2)
        keras_refuse(at, "it adds a constant, or fewer than two tensors; there is no operator for "
                         "that");
    for (int i = 0; i < at->inputs && keras_ready(at); i++)
        keras_add_zeros(at, i);
    if (!keras_ready(at))
        return keras_unknown();
    sum = at->input[0];
    for (int i = 1; i < at->inputs && !at->refused; i++) {
        char name[PTQ_NAME_SIZE];

        if (at->input[i].rank != sum.rank)
            keras_refuse(at, "its inputs have different shapes");
        keras_name(at, "", name);
        sum = keras_result(at, ptq_add_add(at->im->model, name, sum.node, at->input[i].node),
                           sum.rank);
    }
    return sum;
}

/* ---- Functions that stand in the graph without a layer ---- */

/* "x + y" and tf.nn.relu(x) among the layers of Keras 2. */
static keras_value import_lambda(keras_call *at) {
    const char *called = keras_text(at, "function", "?");

    if (strcmp(called, "__operators__.add") == 0 || strcmp(called, "math.add") == 0)
        return import_add(at);
    if (strcmp(called, "nn.relu") == 0 && at->inputs == 1)
        return import_alone(at, PTQ_OP_RELU);
    if (strcmp(called, "nn.relu6") == 0 && at->inputs == 1)
        return import_alone(at, PTQ_OP_RELU6);
    keras_refuse(at,
                 "there is no operator for TensorFlow's function '%.60s'; build the model with "
                 "a layer of Keras for it",
                 called);
    return keras_unknown();
}

static keras_value import_relu_function(keras_call *at) { return import_alone(at, PTQ_OP_RELU); }

static keras_value import_relu6_function(keras_call *at) { return import_alone(at, PTQ_OP_RELU6); }

/* ---- The table ---- */

/* Where an operator comes to ptq.h, the row of its layer gets a function in place of a reason. Rows
   with a reason are layers that networks for images have; others are refused in general words. */
static const keras_kind kinds[] = {
    {"Activation", import_activation, 1, NULL},
    {"ActivityRegularization", import_nothing, 1, NULL},
    {"Add", import_add, 0, NULL},
    {"AlphaDropout", import_nothing, 1, NULL},
    {"AveragePooling2D", import_avg_pool, 1, NULL},
    {"BatchNormalization", import_norm, 1, NULL},
    {"Concatenate", import_concatenate, 0, NULL},
    {"Conv1D", NULL, 1, "convolutions are over images; build it as a Conv2D of height 1"},
    {"Conv2D", import_conv, 1, NULL},
    {"Conv2DTranspose", NULL, 1, "there is no operator that enlarges an image"},
    {"Dense", import_dense, 1, NULL},
    {"DepthwiseConv2D", import_depthwise, 1, NULL},
    {"Dropout", import_nothing, 1, NULL},
    {"ELU", NULL, 1, "there is no operator for it; train it with ReLU"},
    {"Flatten", keras_flatten, 1, NULL},
    {"Functional", keras_nested, 1, NULL},
    {"GaussianDropout", import_nothing, 1, NULL},
    {"GaussianNoise", import_nothing, 1, NULL},
    {"GlobalAveragePooling2D", import_global_avg, 1, NULL},
    {"GlobalMaxPooling2D", import_global_max, 1, NULL},
    {"Lambda", NULL, 1, "its function is Python code; build the model with a layer for it"},
    {"LayerNormalization", NULL, 1,
     "there is no operator for it; train it with "
     "BatchNormalization"},
    {"LeakyReLU", NULL, 1, "there is no operator for it; train it with ReLU"},
    {"MaxPooling2D", import_max_pool, 1, NULL},
    {"Model", keras_nested, 1, NULL},
    {"Multiply", NULL, 0, "there is no operator that multiplies tensors"},
    {"Normalization", keras_normalization, 1, NULL},
    {"PReLU", NULL, 1, "there is no operator for it; train it with ReLU"},
    {"RandomBrightness", import_nothing, 1, NULL},
    {"RandomContrast", import_nothing, 1, NULL},
    {"RandomFlip", import_nothing, 1, NULL},
    {"RandomRotation", import_nothing, 1, NULL},
    {"RandomTranslation", import_nothing, 1, NULL},
    {"RandomZoom", import_nothing, 1, NULL},
    {"ReLU", import_relu, 1, NULL},
    {"Relu", import_relu_function, 1, NULL},   /* keras.ops.relu of Keras 3 */
    {"Relu6", import_relu6_function, 1, NULL}, /* keras.ops.relu6 */
    {"Rescaling", keras_rescaling, 1, NULL},
    {"Reshape", keras_reshape, 1, NULL},
    {"Resizing", NULL, 1, "images come in the size of the model; build it without this layer"},
    {"SeparableConv2D", import_separable, 1, NULL},
    {"Sequential", keras_nested, 1, NULL},
    {"Softmax", import_softmax, 1, NULL},
    {"SpatialDropout2D", import_nothing, 1, NULL},
    {"TFOpLambda", import_lambda, 0, NULL},
    {"UpSampling2D", NULL, 1, "there is no operator that enlarges an image"},
    {"ZeroPadding2D", keras_zero_padding, 1, NULL},
};

const keras_kind *keras_find_kind(const char *class_name) {
    for (size_t i = 0; i < COUNT(kinds); i++)
        if (strcmp(class_name, kinds[i].class_name) == 0)
            return &kinds[i];
    return NULL;
}

#endif
