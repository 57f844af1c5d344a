/* How pixels become a network's input. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/output.h"
#include "shared/pixels.h"

int read_channels(const char *option, const char *text, int channels, float least, float *out) {
    for (int c = 0; c < channels; c++) {
        char *end;
        double value = strtod(text, &end);

        if (end == text || !(value >= (double)least && value < 1e6) ||
            (*end != (c + 1 < channels ? ',' : 0) && !(c == 0 && !*end)))
            return misuse("--%s must be one %snumber, or one for each of %d channels with commas",
                          option, least > 0 ? "positive " : "", channels);
        out[c] = (float)value;
        for (int k = 1; c == 0 && !*end && k < channels; k++)
            out[k] = (float)value;
        if (!*end)
            break;
        text = end + 1;
    }
    return 0;
}

/* ---- mean and std by themselves ---- */

static int pixel_channels(const ptq_model *model) {
    int channels = model->node[0].shape[2];

    return channels < PTQ_MAX_PIXEL_CHANNELS ? channels : PTQ_MAX_PIXEL_CHANNELS;
}

int scales_pixels(const ptq_model *model) {
    for (int c = 0; c < pixel_channels(model); c++)
        if (model->mean[c] < 0 || model->mean[c] > 0 || model->std[c] < 1 || model->std[c] > 1)
            return 1;
    return 0;
}

/* A std below 2 spreads pixels of 0..255 over hundreds; one of exactly 1 leaves them as they are,
   with a mean that is none of pixels 0..1. */
int scales_unit_pixels(const ptq_model *model) {
    for (int c = 0; c < pixel_channels(model); c++) {
        float mean = model->mean[c], std = model->std[c];

        if ((std < 2 && (std < 1 || std > 1)) || (mean > 0 && mean < 1))
            return 1;
    }
    return 0;
}

void list_channels(const ptq_model *model, const float *number, double factor, char *text,
                   size_t size) {
    size_t used = 0;
    int count = pixel_channels(model), equal = 1;

    for (int c = 1; c < count; c++)
        equal &= number[c] >= number[0] && number[c] <= number[0];
    for (int c = 0; c < (equal ? 1 : count) && used < size; c++)
        used += (size_t)snprintf(text + used, size - used, "%s%.4g", c ? "," : "",
                                 (double)number[c] * factor);
}

/* Of a std that is large enough only the mean is wrong. */
static void warn_of_unit_pixels(const char *path, const ptq_model *model, const char *remedy) {
    char mean[256], std[256], right_mean[256], right_std[256];

    list_channels(model, model->mean, 1, mean, sizeof mean);
    list_channels(model, model->std, 1, std, sizeof std);
    list_channels(model, model->mean, 255, right_mean, sizeof right_mean);
    list_channels(model, model->std, model->std[0] > 2 ? 1 : 255, right_std, sizeof right_std);
    warn(
        "%s: mean %s and std %s are of pixels 0..1, but they are applied to pixels 0..255; %s with "
        "--mean %s --std %s",
        path, mean, std, remedy, right_mean, right_std);
}

/* ---- What the first layers expect ---- */

/* Pixels of photographs: their standard deviation, and the share of their variance that all
   neighbours and colours have in common. */
#define PIXEL_SPREAD 64.0
#define COMMON_SHARE 0.9

static int is_real(const ptq_tensor *tensor) {
    return tensor->rank && (tensor->type == PTQ_TYPE_F32 || tensor->type == PTQ_TYPE_F16);
}

static int reader_of(const ptq_model *model, int index) {
    for (int i = index + 1; i < model->nodes; i++)
        if (model->node[i].input[0] == index)
            return i;
    return -1;
}

/* The standard deviation that photographs give to output channel `channel` of a convolution that
   reads the input. */
static double spread_of(const ptq_model *model, const ptq_node *conv, int channel) {
    const ptq_tensor *weight = &conv->param[PTQ_PARAM_WEIGHT];
    int inputs = weight->dim[1], taps = weight->dim[2] * weight->dim[3];
    int first = channel / (weight->dim[0] / conv->groups) * inputs;
    double sum = 0, squares = 0;

    for (int i = 0; i < inputs; i++)
        for (int t = 0; t < taps; t++) {
            size_t at = ((size_t)channel * (size_t)inputs + (size_t)i) * (size_t)taps + (size_t)t;
            double share = (double)ptq_tensor_number(weight, at);

            if (first + i < PTQ_MAX_PIXEL_CHANNELS)
                share /= (double)model->std[first + i];
            sum += share;
            squares += share * share;
        }
    return PIXEL_SPREAD * sqrt(COMMON_SHARE * sum * sum + (1 - COMMON_SHARE) * squares);
}

/* How many times more a batch norm gets from photographs than it has seen in training: the
   geometric mean over its channels. `conv` NULL: it reads the input. 1 where nothing tells. */
static double excess_of(const ptq_model *model, const ptq_node *conv, const ptq_node *norm) {
    const ptq_tensor *variance = norm ? &norm->param[PTQ_PARAM_VARIANCE] : NULL;
    int channels = conv ? conv->shape[2] : pixel_channels(model), counted = 0;
    double sum = 0;

    for (int c = 0; c < channels; c++) {
        double gets = conv ? spread_of(model, conv, c) : PIXEL_SPREAD / (double)model->std[c];
        double seen = variance ? sqrt((double)ptq_tensor_number(variance, (size_t)c)) : 1;

        /* A channel without weights, or one that never changed, tells nothing. */
        if (gets > 1e-6 && seen > 1e-6) {
            sum += log(gets / seen);
            counted++;
        }
    }
    return counted ? exp(sum / counted) : 1;
}

/* How far an excess may be from 1. Right networks were seen between 0.4 and 0.9, those that get
   pixels 0..255 for 0..1 or for torchvision's scale at 20 and more. Without statistics only the
   first layer's weights tell: its results are of the size of 1 where a batch norm is folded in,
   and of 17 in a network whose weights have kept the size that they began with. */
#define MOST_EXCESS 6.0
#define MOST_EXCESS_ALONE 10.0

static void warn_of_layer(const char *path, const ptq_model *model, const char *remedy) {
    int first = reader_of(model, 0), second = first < 0 ? -1 : reader_of(model, first);
    const ptq_node *node = first < 0 ? NULL : &model->node[first], *norm = NULL;
    double excess;

    if (!node || (node->op != PTQ_OP_BATCH_NORM && node->op != PTQ_OP_CONV2D) ||
        !is_real(&node->param[PTQ_PARAM_WEIGHT]))
        return;
    if (node->op == PTQ_OP_BATCH_NORM)
        norm = node;
    else if (second >= 0 && model->node[second].op == PTQ_OP_BATCH_NORM)
        norm = &model->node[second];
    excess = excess_of(model, norm == node ? NULL : node, norm);
    if (norm && excess > MOST_EXCESS)
        warn("%s: batch norm %s has seen numbers about %.0f times smaller than pixels 0..255 give "
             "with this mean and std; %s with --mean and --std of the training, of pixels 0..255 "
             "(--std 255 for pixels 0..1, torchvision's numbers times 255)",
             path, norm->name, excess, remedy);
    else if (norm && excess < 1 / MOST_EXCESS)
        warn("%s: batch norm %s has seen numbers about %.0f times larger than pixels 0..255 give "
             "with this mean and std; if it was trained on pixels 0..255, %s without --mean and "
             "--std",
             path, norm->name, 1 / excess, remedy);
    else if (!norm && excess > MOST_EXCESS_ALONE)
        warn("%s: layer %s has weights of a size for pixels of 0..1, but it gets 0..255; if it was "
             "trained so, %s with --mean and --std, of pixels 0..255 (--std 255 for pixels 0..1, "
             "torchvision's numbers times 255)",
             path, node->name, remedy);
}

/* Codes of an input stand for the numbers that it had when they were chosen, which pixels fill more
   or less: a range many times narrower or wider is that of others. */
#define MOST_RANGE 4.0

static const ptq_qparams *input_codes(const ptq_model *model) {
    int first = reader_of(model, 0);

    if (model->node[0].q.type != PTQ_TYPE_F32)
        return &model->node[0].q;
    return first >= 0 && model->node[first].op == PTQ_OP_QUANTIZE ? &model->node[first].q : NULL;
}

static void warn_of_codes(const char *path, const ptq_model *model, const ptq_qparams *q,
                          const char *remedy) {
    double low = 0, high = 0, scale = (double)q->scale, width;
    int32_t bottom, top;

    for (int c = 0; c < pixel_channels(model); c++) {
        low = fmin(low, (0 - (double)model->mean[c]) / (double)model->std[c]); /* no -0 */
        high = fmax(high, (255 - (double)model->mean[c]) / (double)model->std[c]);
    }
    ptq_code_range(q->type, q->bits, &bottom, &top);
    width = scale * (double)(top - bottom);
    if (high - low > MOST_RANGE * width || high - low < width / MOST_RANGE)
        warn("%s: the codes of its input stand for %.4g to %.4g, but pixels 0..255 are %.4g to "
             "%.4g with this mean and std; %s with --mean and --std of the training, of pixels "
             "0..255 (--std 255 for pixels 0..1, torchvision's numbers times 255)",
             path, scale * (double)(bottom - q->zero_point), scale * (double)(top - q->zero_point),
             low, high, remedy);
}

void warn_of_pixels(const char *path, const ptq_model *model, const char *remedy) {
    const ptq_qparams *codes = input_codes(model);

    if (model->node[0].real)
        return;
    if (scales_unit_pixels(model))
        warn_of_unit_pixels(path, model, remedy);
    else if (codes)
        warn_of_codes(path, model, codes, remedy);
    else
        warn_of_layer(path, model, remedy);
}

int warn_of_pixels_in(const char *path, const char *remedy) {
    ptq_model *model = NULL;
    ptq_error err;

    if (ptq_model_load(path, NULL, &model, &err))
        return fail("%s", err.text);
    warn_of_pixels(path, model, remedy);
    ptq_model_free(model);
    return 0;
}
