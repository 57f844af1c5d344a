/* Keras layers that scale pixels. On the input they become the model's mean and std, elsewhere a
   batch norm. */
#include <math.h>
#include <string.h>

#include "import/keras_import.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

/* y = factor x + offset, numbers for each channel */
typedef struct affine {
    double factor[PTQ_MAX_PIXEL_CHANNELS], offset[PTQ_MAX_PIXEL_CHANNELS];
} affine;

/* x = (pixel - mean) / std before it; so
   y = (pixel - (mean - offset std / factor)) / (std / factor).
   Only where nobody else reads the pixels as they are. */
static int scale_pixels(keras_call *at, const affine *by) {
    ptq_model *model = at->im->model;
    int channels = model->node[0].shape[2];
    float mean[PTQ_MAX_PIXEL_CHANNELS], std[PTQ_MAX_PIXEL_CHANNELS];

    if (at->input[0].node != 0 || !at->input[0].sole)
        return 0;
    for (int c = 0; c < channels; c++) {
        double scale = (double)model->std[c] / by->factor[c];

        mean[c] = (float)((double)model->mean[c] - by->offset[c] * scale);
        std[c] = (float)scale;
        if (!(scale > 0) || !isfinite(mean[c]) || !isnormal(std[c]))
            return 0;
    }
    memcpy(model->mean, mean, (size_t)channels * sizeof *mean);
    memcpy(model->std, std, (size_t)channels * sizeof *std);
    return 1;
}

/* gamma (x - 0) / sqrt(1 + 0) + beta */
static keras_value add_norm(keras_call *at, const affine *by) {
    char name[PTQ_NAME_SIZE];
    keras_value value;
    ptq_node *node;
    int index;

    keras_name(at, "", name);
    index = ptq_add_batch_norm(at->im->model, name, at->input[0].node, 0);
    value = keras_result(at, index, at->input[0].rank);
    for (int i = 0; i < PTQ_PARAM_COUNT && index >= 0; i++)
        keras_fill(at, index, i, i == PTQ_PARAM_VARIANCE);
    if (at->refused)
        return value;
    node = &at->im->model->node[index];
    for (int c = 0; c < node->shape[2]; c++) {
        ((float *)node->param[PTQ_PARAM_WEIGHT].data)[c] = (float)by->factor[c];
        ((float *)node->param[PTQ_PARAM_BIAS].data)[c] = (float)by->offset[c];
    }
    return value;
}

static int channels_of(keras_call *at) {
    int channels;

    if (keras_ready(at))
        keras_add_zeros(at, 0);
    if (!keras_ready(at))
        return 0;
    channels = at->im->model->node[at->input[0].node].shape[2];
    if (at->input[0].rank == 2)
        channels = 1;
    if (at->input[0].rank == 3 && channels > PTQ_MAX_PIXEL_CHANNELS)
        keras_refuse(at, "it scales more than %d channels; a BatchNormalization can",
                     PTQ_MAX_PIXEL_CHANNELS);
    if (at->input[0].rank == 1)
        keras_refuse(at, "it scales rows of numbers; put it where there still is an image");
    return at->refused ? 0 : channels;
}

static keras_value scale(keras_call *at, const affine *by) {
    return scale_pixels(at, by) ? keras_same(at) : add_norm(at, by);
}

/* A number of a setting that is one number, or one for each channel. */
static double number_of(keras_call *at, const char *key, int channel, int channels,
                        double otherwise) {
    const json_t *value = keras_setting(at, key);

    while (json_is_array(value) && json_array_size(value) == 1)
        value = json_array_get(value, 0);
    if (!value)
        return otherwise;
    if (json_is_array(value) && json_array_size(value) == (size_t)channels)
        value = json_array_get(value, (size_t)channel);
    if (!at->refused && !json_is_number(value))
        keras_refuse(at, "its %s must be a number, or one for each channel", key);
    return json_number_value(value);
}

keras_value keras_rescaling(keras_call *at) {
    int channels = channels_of(at);
    affine by;

    for (int c = 0; c < channels; c++) {
        by.factor[c] = number_of(at, "scale", c, channels, 1);
        by.offset[c] = number_of(at, "offset", c, channels, 0);
    }
    return keras_ready(at) ? scale(at, &by) : keras_unknown();
}

/* (x - mean) / max(sqrt(variance), 1e-7), as Keras guards it; or back: x max(...) + mean. What was
   not given to the layer it has learned from images, and keeps as weights. */
static void read_moments(keras_call *at, int channels, double *mean, double *deviation) {
    float learned[2][PTQ_MAX_PIXEL_CHANNELS];
    int given = keras_setting(at, "mean") != NULL;
    const json_t *axis = json_object_get(json_object_get(at->layer->json, "config"), "axis");
    int one = json_is_null(axis) || (json_is_array(axis) && !json_array_size(axis));

    if (!given && one)
        keras_refuse(at, "axis=None: its mean and variance must be given to the layer, which "
                         "otherwise keeps them in another form");
    if (!given && !at->refused) {
        keras_read_vector(at, "mean", 0, channels, learned[0]);
        keras_read_vector(at, "variance", 1, channels, learned[1]);
    }
    for (int c = 0; c < channels && !at->refused; c++) {
        double variance = given ? number_of(at, "variance", c, channels, 1) : (double)learned[1][c];

        mean[c] = given ? number_of(at, "mean", c, channels, 0) : (double)learned[0][c];
        deviation[c] = sqrt(variance) > 1e-7 ? sqrt(variance) : 1e-7;
    }
}

keras_value keras_normalization(keras_call *at) {
    int channels = channels_of(at);
    double mean[PTQ_MAX_PIXEL_CHANNELS], deviation[PTQ_MAX_PIXEL_CHANNELS];
    affine by;

    if (keras_ready(at))
        keras_check_axis(at, at->input[0].rank);
    if (keras_ready(at))
        read_moments(at, channels, mean, deviation);
    for (int c = 0; c < channels && keras_ready(at); c++) {
        int back = json_is_true(keras_setting(at, "invert"));

        by.factor[c] = back ? deviation[c] : 1 / deviation[c];
        by.offset[c] = back ? mean[c] : -mean[c] / deviation[c];
    }
    return keras_ready(at) ? scale(at, &by) : keras_unknown();
}

#endif
