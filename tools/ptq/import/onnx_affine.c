/* Arithmetic with constants, one number or one for each channel: right behind the input it is
   preprocessing, behind a layer it goes into weights and bias, elsewhere it is a batch norm. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

static int is_raw_input(const importer *im, const value *from) {
    return from->state == STATE_REAL && from->node == 0 && im->model->nodes == 1 &&
           from->uses == 1 && !is_padded(from);
}

int channel_number(const importer *im, const value *from, const onnx_constant *numbers, int channel,
                   float *out) {
    int channels = shape_of(im, from)[2], rank = view_rank(from->view);
    int axis = channel_axis(from->view) - (rank - numbers->rank); /* aligned at their ends */

    if (numbers->rank > rank)
        return refuse(im, "its constant has %d dimensions, the tensor %d; give it no more",
                      numbers->rank, rank);
    if (numbers->count == 1) {
        *out = constant_float(numbers, 0);
        return 0;
    }
    if (numbers->count != (size_t)channels || axis < 0 || numbers->dim[axis] != channels ||
        (rank == 2 && !is_pixel(im, from)))
        return refuse(im, "its constant must be one number, or one for each channel; do the rest "
                          "outside the network");
    *out = constant_float(numbers, (size_t)channel);
    return 0;
}

/* scale * x + shift, both of a number for each channel, and what they were made from. */
typedef struct affine {
    const onnx_constant *numbers;
    char op;
    int first, channels;
    float *scale, *shift;
} affine;

static int read_affine(importer *im, const value *from, affine *of) {
    int good = 1;

    for (int c = 0; c < of->channels; c++) {
        float number;

        if (channel_number(im, from, of->numbers, c, &number))
            return 1;
        of->scale[c] = of->op == '*' ? number : of->op == '/' ? 1 / number : of->first ? -1 : 1;
        of->shift[c] = of->op == '+' ? number : of->op == '-' ? of->first ? number : -number : 0;
        if (of->op == '+')
            of->scale[c] = 1;
        good &= isfinite(of->scale[c]) && isfinite(of->shift[c]);
    }
    return good ? 0 : refuse_damaged(im, "a number of its constant, or 1 / that, is not finite");
}

/* x = (pixel - mean) / std, and now x + a, x - a, x * a or x / a; 0: that is no preprocessing. */
static int preprocess(importer *im, const value *from, const affine *of) {
    float mean[PTQ_MAX_PIXEL_CHANNELS], std[PTQ_MAX_PIXEL_CHANNELS], a = 0;
    ptq_model *model = im->model;

    if (!is_raw_input(im, from) || of->channels > PTQ_MAX_PIXEL_CHANNELS ||
        (of->first && of->op == '-'))
        return 0;
    for (int c = 0; c < of->channels; c++) {
        channel_number(im, from, of->numbers, c, &a);
        mean[c] = model->mean[c];
        std[c] = model->std[c];
        if (of->op == '+' || of->op == '-')
            mean[c] += (of->op == '-' ? a : -a) * std[c];
        else
            std[c] = of->op == '/' ? std[c] * a : std[c] / a;
        if (!(std[c] > 0) || std[c] > 1e30f || !(fabsf(mean[c]) < 1e30f))
            return 0;
    }
    memcpy(model->mean, mean, (size_t)of->channels * sizeof *mean);
    memcpy(model->std, std, (size_t)of->channels * sizeof *std);
    return 1;
}

/* A vector of a number for each channel, which may take the place of none. */
static float *channel_param(importer *im, ptq_node *node, int param) {
    ptq_error err;

    if (!node->param[param].data &&
        ptq_tensor_create(&node->param[param], PTQ_TYPE_F32, 32, 1, &node->shape[2], NULL, &err))
        return refuse_as(im, err.text), NULL;
    return node->param[param].data;
}

int fold_into_layer(importer *im, const value *from, const float *scale, const float *shift) {
    ptq_node *node = &im->model->node[from->node];
    ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    int layer = node->op == PTQ_OP_CONV2D || node->op == PTQ_OP_DENSE;
    int outputs = node->shape[2];
    float *bias;

    if (from->state != STATE_REAL || from->uses != 1 || is_padded(from) || node->act ||
        (!layer && node->op != PTQ_OP_BATCH_NORM) || weight->type != PTQ_TYPE_F32 || !weight->data)
        return 0;
    bias = channel_param(im, node, PTQ_PARAM_BIAS);
    if (!bias)
        return 0;
    node->no_bias = 0;
    for (int o = 0; o < outputs; o++) {
        size_t count = ptq_tensor_elements(weight) / (size_t)outputs;
        float *row = (float *)weight->data + (size_t)o * count;

        for (size_t k = 0; k < count; k++)
            row[k] *= scale[o];
        bias[o] = bias[o] * scale[o] + shift[o];
    }
    return 1;
}

/* As a batch norm of mean 0 and variance 1. */
static int add_norm(importer *im, const value *from, const affine *of) {
    char name[PTQ_NAME_SIZE];
    int real = real_node(im, from), index;
    float *param[PTQ_PARAM_COUNT];

    if (real < 0)
        return 1;
    node_name(im, name);
    index = ptq_add_batch_norm(im->model, name, real, 0);
    if (index < 0)
        return refuse_as(im, im->model->error.text);
    for (int p = PTQ_PARAM_WEIGHT; p <= PTQ_PARAM_VARIANCE; p++)
        if (!(param[p] = channel_param(im, &im->model->node[index], p)))
            return 1;
    for (int c = 0; c < of->channels; c++) {
        param[PTQ_PARAM_WEIGHT][c] = of->scale[c];
        param[PTQ_PARAM_BIAS][c] = of->shift[c];
        param[PTQ_PARAM_MEAN][c] = 0;
        param[PTQ_PARAM_VARIANCE][c] = 1;
    }
    return set_result(im, index, from->view, STATE_REAL);
}

/* A constant added to a layer on codes without a bias becomes codes, too; -1: it is no such. */
static int add_integer_bias(importer *im, const value *from, value *bias, const affine *of) {
    ptq_node *node = &im->model->node[from->node];

    if (of->op != '+' || from->state != STATE_PENDING || from->uses != 1 || node->act ||
        (node->op != PTQ_OP_CONV2D && node->op != PTQ_OP_DENSE) || !node->no_bias)
        return -1;
    node->no_bias = 0;
    return set_integer_bias(im, from->node, bias) || set_alias(im, from, from->view);
}

int import_affine(importer *im, char op) {
    int first = input_of(im, 0) && input_of(im, 0)->state == STATE_CONSTANT, status;
    value *from = tensor_input(im, (size_t)first);
    affine of = {NULL, op, first, 0, NULL, NULL};

    if (!from || constant_input(im, (size_t)!first, 1, &of.numbers))
        return 1;
    if (first && op == '/')
        return refuse(im, "a constant can be divided by a tensor in no operator here; end the "
                          "network in front of it");
    of.channels = shape_of(im, from)[2];
    of.scale = calloc(2 * (size_t)of.channels, sizeof *of.scale);
    if (!of.scale)
        return fail("no memory for %d channels", of.channels);
    of.shift = of.scale + of.channels;
    status = read_affine(im, from, &of) ? 1
             : preprocess(im, from, &of) || fold_into_layer(im, from, of.scale, of.shift)
                 ? set_alias(im, from, from->view)
                 : add_integer_bias(im, from, input_of(im, (size_t)!first), &of);
    if (status < 0)
        status = add_norm(im, from, &of);
    free(of.scale);
    return status;
}

#endif
