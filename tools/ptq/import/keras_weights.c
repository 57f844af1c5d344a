/* Parameters of nodes from the weights of a Keras file. */
#include <stdlib.h>
#include <string.h>

#include "import/keras_import.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

enum { WHY_SIZE = 400 };

/* The builder of a bare model gives parameters their shape and no memory. It comes when the file
   has shown that it holds as much. */
static float *make_param(keras_call *at, int index, int param) {
    ptq_tensor *tensor = &at->im->model->node[index].param[param];
    ptq_tensor bare = *tensor;
    ptq_error err;

    if (ptq_tensor_create(tensor, PTQ_TYPE_F32, 32, bare.rank, bare.dim, NULL, &err)) {
        *tensor = bare;
        keras_refuse(at, "%s", err.text);
        return NULL;
    }
    return tensor->data;
}

static int read_weight(keras_call *at, const keras_weight *weight, float *out) {
    char why[WHY_SIZE];

    if (!keras_read(at->im->file, &at->layer->place, weight, out, why, sizeof why))
        return 0;
    keras_refuse(at, "%s", why);
    return 1;
}

void keras_load(keras_call *at, int index, int param, const keras_weight *weight) {
    float *to;

    if (at->refused || read_weight(at, weight, NULL))
        return;
    to = make_param(at, index, param);
    if (to)
        read_weight(at, weight, to);
}

void keras_fill(keras_call *at, int index, int param, float value) {
    float *to = at->refused ? NULL : make_param(at, index, param);

    size_t count = to ? ptq_tensor_elements(&at->im->model->node[index].param[param]) : 0;

    for (size_t i = 0; i < count; i++)
        to[i] = value;
}

/* H,W,I,O -> O,I,H,W; a dense layer is the case of height and width 1. */
static void transpose(const float *in, ptq_tensor *out) {
    int taps = out->rank == 4 ? out->dim[2] * out->dim[3] : 1;
    size_t inputs = (size_t)out->dim[1], outputs = (size_t)out->dim[0];
    float *to = out->data;

    for (size_t o = 0; o < outputs; o++)
        for (size_t i = 0; i < inputs; i++)
            for (int t = 0; t < taps; t++)
                *to++ = in[((size_t)t * inputs + i) * outputs + o];
}

void keras_load_kernel(keras_call *at, int index, const keras_weight *weight) {
    float *numbers;

    if (at->refused || read_weight(at, weight, NULL) || !make_param(at, index, PTQ_PARAM_WEIGHT))
        return;
    numbers = malloc(at->im->model->node[index].param[PTQ_PARAM_WEIGHT].size);
    if (!numbers)
        keras_refuse(at, "no memory for its weights");
    else if (!read_weight(at, weight, numbers))
        transpose(numbers, &at->im->model->node[index].param[PTQ_PARAM_WEIGHT]);
    free(numbers);
}

void keras_load_bias(keras_call *at, int index, int number) {
    ptq_node *node = &at->im->model->node[index];
    keras_weight bias = {"bias", number, 1, {node->channels}};

    if (keras_is_false(at, "use_bias")) {
        node->no_bias = 1;
        memset(&node->param[PTQ_PARAM_BIAS], 0, sizeof node->param[PTQ_PARAM_BIAS]);
    } else {
        keras_load(at, index, PTQ_PARAM_BIAS, &bias);
    }
}

void keras_read_vector(keras_call *at, const char *name, int number, int count, float *out) {
    keras_weight weight = {name, number, 1, {count}};

    read_weight(at, &weight, out);
}

#endif
