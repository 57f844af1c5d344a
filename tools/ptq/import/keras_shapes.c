/* Windows of Keras layers, zeros around images, and layers that change shapes. Zeros that a
   ZeroPadding2D adds wait for the layer that reads them: a window may take them into its own
   padding. */
#include <limits.h>
#include <string.h>

#include "import/keras_import.h"
#include "shared/names.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

void keras_read_window(keras_call *at, const char *key, const int *otherwise, keras_window *w) {
    const char *padding = keras_text(at, "padding", "valid");

    memset(w, 0, sizeof *w);
    keras_pair(at, key, otherwise, PTQ_MAX_KERNEL, w->kernel);
    /* a pool without strides has windows beside each other; convolutions always tell theirs */
    keras_pair(at, "strides", w->kernel, PTQ_MAX_KERNEL, w->stride);
    w->padding = strcmp(padding, "same") == 0 ? PTQ_PADDING_SAME : PTQ_PADDING_VALID;
    if (w->padding == PTQ_PADDING_VALID && strcmp(padding, "valid") != 0)
        keras_refuse(at, "its padding '%.40s' is neither 'same' nor 'valid'", padding);
}

/* ---- Zeros ---- */

/* As a depthwise convolution whose kernel is 1 at one place: with t zeros above and b below, a
   kernel of t + b + 1 rows with its 1 in row b, padded by t + b at either end. So no pad is as
   large as its kernel. */
static void set_shift(keras_call *at, int index, const int pad[4]) {
    ptq_node *node = &at->im->model->node[index];
    size_t taps = (size_t)node->kernel[0] * (size_t)node->kernel[1];
    float *to;

    keras_fill(at, index, PTQ_PARAM_WEIGHT, 0);
    if (at->refused)
        return;
    to = node->param[PTQ_PARAM_WEIGHT].data;
    for (int c = 0; c < node->channels; c++)
        to[(size_t)c * taps + (size_t)(pad[2] * node->kernel[1] + pad[3])] = 1;
}

void keras_add_zeros(keras_call *at, int i) {
    keras_value *value = &at->input[i];
    int rows = value->pad[0] + value->pad[2], columns = value->pad[1] + value->pad[3], index;
    ptq_conv_options options = {
        0, rows + 1, columns + 1, 1, 1, PTQ_PADDING_EXPLICIT, {rows, columns, rows, columns},
        0, 1,        1,           1};
    char name[PTQ_NAME_SIZE];

    if (!value->padder || at->refused)
        return;
    options.channels = options.groups = at->im->model->node[value->node].shape[2];
    unique_name(at->im->model, value->padder, "", name);
    index = ptq_add_conv2d(at->im->model, name, value->node, &options);
    if (keras_result(at, index, value->rank).node < 0)
        return;
    set_shift(at, index, value->pad);
    value->node = index;
    value->padder = NULL;
    memset(value->pad, 0, sizeof value->pad);
}

/* What 'same' adds along an axis of `size`, in all. */
static int same_padding(int size, int kernel, int stride) {
    int needed = ((size + stride - 1) / stride - 1) * stride + kernel - size;

    return needed > 0 ? needed : 0;
}

/* The builder takes no pad that is as large as the kernel. */
void keras_take_zeros(keras_call *at, keras_window *w) {
    keras_value *value = &at->input[0];
    int pad[4], fits = 1;

    if (!value->padder || at->refused)
        return;
    for (int axis = 0; axis < 2; axis++) {
        int size =
            at->im->model->node[value->node].shape[axis] + value->pad[axis] + value->pad[axis + 2];
        int own = w->padding == PTQ_PADDING_SAME
                      ? same_padding(size, w->kernel[axis], w->stride[axis])
                      : 0;

        pad[axis] = value->pad[axis] + own / 2;
        pad[axis + 2] = value->pad[axis + 2] + own - own / 2;
        fits = fits && pad[axis] < w->kernel[axis] && pad[axis + 2] < w->kernel[axis];
    }
    if (!fits) {
        keras_add_zeros(at, 0);
        return;
    }
    w->padding = PTQ_PADDING_EXPLICIT;
    memcpy(w->pad, pad, sizeof w->pad);
    value->padder = NULL;
    memset(value->pad, 0, sizeof value->pad);
}

/* 1; [1, 2]: rows at both ends, columns at both ends; [[1, 2], [3, 4]]: top, bottom, left,
   right. */
static int read_zeros(const json_t *value, int axis, int end) {
    if (json_is_array(value))
        value = json_array_get(value, (size_t)axis);
    if (json_is_array(value))
        value = json_array_get(value, (size_t)end);
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
                   json_integer_value(value) < PTQ_MAX_KERNEL
               ? (int)json_integer_value(value)
               : -1;
}

keras_value keras_zero_padding(keras_call *at) {
    const json_t *padding = keras_setting(at, "padding");
    keras_value value = keras_same(at);
    int some = 0;

    keras_check_format(at);
    if (keras_ready(at) && value.rank != 3)
        keras_refuse(at, "it needs an image of H x W x C");
    for (int axis = 0; axis < 2; axis++)
        for (int end = 0; end < 2; end++) {
            int zeros = padding ? read_zeros(padding, axis, end) : 1;

            value.pad[axis + 2 * end] += zeros;
            if (!at->refused && (zeros < 0 || value.pad[axis + 2 * end] >= PTQ_MAX_KERNEL / 2))
                keras_refuse(at, "its padding must be numbers of 0 to %d", PTQ_MAX_KERNEL / 2 - 1);
            some |= zeros;
        }
    if (some)
        value.padder = at->layer->name;
    return value;
}

/* ---- Shapes ---- */

keras_value keras_flatten(keras_call *at) {
    keras_value value;

    keras_check_format(at);
    if (keras_ready(at))
        keras_add_zeros(at, 0);
    value = keras_same(at);
    value.rank = 1;
    return value;
}

/* The target's sizes, of which one may be -1: what is left. */
static int read_target(keras_call *at, int elements, int dim[3]) {
    const json_t *target = keras_setting(at, "target_shape");
    int rank = (int)json_array_size(target), open = -1;
    long long known = 1;

    if (rank < 1 || rank > 3)
        return 0;
    for (int i = 0; i < rank; i++) {
        json_int_t size = json_integer_value(json_array_get(target, (size_t)i));

        if (size == -1 && open < 0)
            open = i;
        else if (size < 1 || size > elements)
            return 0;
        dim[i] = (int)size;
        known *= size == -1 ? 1 : size;
        if (known > elements)
            return 0;
    }
    if (open >= 0)
        dim[open] = (int)(elements / known);
    return open < 0 ? (known == elements ? rank : 0) : elements % known ? 0 : rank;
}

/* Numbers keep their order; so a shape may change where none of the model's own has to: when all
   goes into one row, when it comes back from there, and on the input, which has no shape yet. */
keras_value keras_reshape(keras_call *at) {
    keras_value value;
    int *shape, dim[3] = {1, 1, 1}, rank, same;

    if (keras_ready(at))
        keras_add_zeros(at, 0);
    if (!keras_ready(at))
        return keras_unknown();
    value = keras_same(at);
    shape = at->im->model->node[value.node].shape;
    rank = read_target(at, shape[0] * shape[1] * shape[2], dim);
    same = dim[0] == shape[0] && dim[1] == shape[1] && dim[2] == shape[2];
    if (!rank)
        keras_refuse(at, "its target_shape does not fit its input");
    else if (rank > 1 && !same && value.node == 0 && at->input[0].sole)
        memcpy(shape, dim, sizeof dim);
    else if (rank > 1 && !same)
        keras_refuse(at, "there is no operator that makes other rows or channels of the same "
                         "numbers; a Reshape may flatten, and undo that");
    value.rank = rank;
    return value;
}

#endif
