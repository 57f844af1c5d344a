/* Functions of one number, products, and tensors joined along their channels. */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "import/tflite_import.h"
#include "shared/names.h"

/* Fields: see the schema. */
enum {
    LEAKY_ALPHA = 0,
    GELU_APPROXIMATE = 0,
    CONCAT_AXIS = 0,
    CONCAT_ACTIVATION,
    MUL_ACTIVATION = 0
};

/* ---- Functions ---- */

static int add_function(tflite_importer *im, ptq_function function, float alpha, float beta) {
    int from = tflite_node(im, 0, NULL), index;

    if (from < 0)
        return -1;
    index = ptq_add_function(im->model, function, im->name, from, alpha, beta);
    tflite_finish(im, index, 0);
    return im->refused ? -1 : index;
}

void tflite_sigmoid(tflite_importer *im) { add_function(im, PTQ_FUNCTION_SIGMOID, 0, 0); }
void tflite_tanh(tflite_importer *im) { add_function(im, PTQ_FUNCTION_TANH, 0, 0); }
void tflite_elu(tflite_importer *im) { add_function(im, PTQ_FUNCTION_ELU, 1, 0); }
void tflite_clip_one(tflite_importer *im) { add_function(im, PTQ_FUNCTION_CLIP, -1, 1); }

void tflite_hard_swish(tflite_importer *im) {
    int index = add_function(im, PTQ_FUNCTION_HARD_SWISH, 0, 0);

    if (index >= 0 && im->model->node[index].q.type != PTQ_TYPE_F32)
        warn("%s: operator '%s' (HARD_SWISH): TensorFlow Lite rounds it in 16 bits; one code in "
             "hundreds differs by 1",
             im->path, im->name);
}

void tflite_leaky_relu(tflite_importer *im) {
    float alpha = flat_real(&im->file, im->options, LEAKY_ALPHA, 0);

    add_function(im, PTQ_FUNCTION_LEAKY_RELU, alpha, 0);
}

void tflite_gelu(tflite_importer *im) {
    int approximate = (int)flat_integer(&im->file, im->options, GELU_APPROXIMATE, 1, 0);

    add_function(im, approximate ? PTQ_FUNCTION_GELU_TANH : PTQ_FUNCTION_GELU, 0, 0);
}

/* Slopes for each channel, or one for all. */
void tflite_prelu(tflite_importer *im) {
    tflite_tensor *slopes = tflite_constant(im, 1, "slopes");
    int index = slopes ? add_function(im, PTQ_FUNCTION_PRELU, 0, 0) : -1, channels;
    ptq_tensor *weight;
    size_t count;
    ptq_error err;

    if (index < 0)
        return;
    if (im->model->node[index].q.type != PTQ_TYPE_F32) {
        tflite_refuse(im, "its slopes are codes, whose products TensorFlow Lite rounds in a way of "
                          "its own; import the float model, or use LEAKY_RELU");
        return;
    }
    channels = im->model->node[index].shape[2];
    count = tflite_elements(slopes);
    if (count != 1 && (count != (size_t)channels || slopes->dim[slopes->rank - 1] != channels)) {
        tflite_refuse(im, "it has other slopes than one for each channel; train it with "
                          "shared_axes=[1, 2]");
        return;
    }
    weight = &im->model->node[index].param[PTQ_PARAM_WEIGHT];
    if (ptq_tensor_create(weight, PTQ_TYPE_F32, 32, 1, &channels, NULL, &err)) {
        tflite_refuse(im, "%s", err.text);
        return;
    }
    for (int c = 0; c < channels; c++)
        ((float *)weight->data)[c] = tflite_number(im, slopes, count > 1 ? (size_t)c : 0);
}

/* ---- Products ---- */

/* Of equal shapes, or of an image and one number for each channel, which comes second here. */
void tflite_mul(tflite_importer *im) {
    int a = tflite_node(im, 0, NULL), b = tflite_node(im, 1, NULL);
    const int *shape = b < 0 ? NULL : im->model->node[b].shape;
    int first = a;

    if (a < 0 || b < 0)
        return;
    if (shape[0] * shape[1] > 1) {
        shape = im->model->node[a].shape;
        if (shape[0] * shape[1] == 1) {
            a = b;
            b = first;
        }
    }
    tflite_finish(im, ptq_add_mul(im->model, im->name, a, b),
                  flat_integer(&im->file, im->options, MUL_ACTIVATION, 1, 0));
}

/* ---- Concatenation ---- */

/* Codes are copied: TensorFlow Lite itself wants one scale for all. */
static int check_scales(tflite_importer *im, const ptq_qparams *to, int coded) {
    ptq_qparams q;

    for (size_t i = 0; i < im->reads.count; i++)
        if (tflite_qparams(im, tflite_operand(im, i), &q) != coded ||
            (coded && memcmp(&q, to, sizeof q) != 0)) {
            tflite_refuse(im, "its operands have other scales than its result, which TensorFlow "
                              "Lite itself does not take");
            return 1;
        }
    return 0;
}

/* Node `index` with the channels of operand i behind it; -1 after a refusal. */
static int join(tflite_importer *im, int index, size_t i, const ptq_qparams *q) {
    int last = i + 1 == im->reads.count, next = tflite_node(im, i, NULL);
    char name[PTQ_NAME_SIZE], link[PTQ_NAME_SIZE + 8];

    if (next < 0)
        return -1;
    memcpy(name, im->name, sizeof name);
    if (!last) {
        snprintf(link, sizeof link, "%.50s.link", im->name);
        unique_name(im->model, link, "", name);
    }
    index = ptq_add_concat(im->model, name, index, next);
    if (index >= 0 && !last)
        im->model->node[index].q = *q;
    if (index < 0) {
        tflite_refuse(im, "%s", im->model->error.text);
        memset(&im->model->error, 0, sizeof im->model->error);
    }
    return index;
}

void tflite_concat(tflite_importer *im) {
    const tflite_tensor *to = tflite_result(im);
    int64_t axis = flat_integer(&im->file, im->options, CONCAT_AXIS, 4, 0);
    int index = tflite_node(im, 0, NULL), coded;
    ptq_qparams q;

    if (index < 0)
        return;
    if (to->rank < 2 || (axis != -1 && axis != to->rank - 1)) {
        tflite_refuse(im, "it joins tensors along another dimension than their channels");
        return;
    }
    coded = tflite_qparams(im, to, &q);
    for (size_t i = 0; i < im->reads.count; i++)
        if (!tflite_operand(im, i) || tflite_operand(im, i)->rank != to->rank) {
            tflite_refuse(im, "its operands have other dimensions than its result");
            return;
        }
    if (check_scales(im, &q, coded))
        return;
    if (im->reads.count == 1) {
        tflite_same(im, tflite_operand(im, 0));
        return;
    }
    for (size_t i = 1; i < im->reads.count && index >= 0; i++)
        index = join(im, index, i, &q);
    if (index >= 0)
        tflite_finish(im, index, flat_integer(&im->file, im->options, CONCAT_ACTIVATION, 1, 0));
}
