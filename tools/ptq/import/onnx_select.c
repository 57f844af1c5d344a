/* Slices in steps, and channels of zeros: what picks numbers of a tensor is a convolution whose kernel
   is one pixel and whose weights are 0 and 1, such as the shortcut of ResNet's option A. */
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* Which channel each of the result's is: o - before of the input's, or zeros. */
typedef struct selection {
    int stride[2], before, channels;
} selection;

/* Two selections behind each other are one, where nothing else reads the first: its node goes. */
static int join_selections(importer *im, const value *from, int input, selection *of) {
    ptq_node *node = &im->model->node[input];

    if (!from->selected || from->uses != 1 || input != im->model->nodes - 1)
        return input;
    for (int i = 0; i < 2; i++)
        of->stride[i] *= node->stride[i];
    input = node->input[0];
    ptq_tensor_free(&node->param[PTQ_PARAM_WEIGHT], NULL);
    im->model->nodes--;
    return input;
}

/* A weight of 1 for each channel, alone where the channels stay as they are. */
static int set_selection(importer *im, ptq_node *node, const selection *of, int channels) {
    int dims[] = {of->channels, node->groups > 1 ? 1 : channels, 1, 1};
    ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    ptq_error err;

    if ((size_t)dims[0] * (size_t)dims[1] > im->file.allowance / sizeof(float))
        return refuse(im, "its weights, as a convolution, would take many times the size of the "
                          "file; do it outside the network");
    im->file.allowance -= (size_t)dims[0] * (size_t)dims[1] * sizeof(float);
    if (ptq_tensor_create(weight, PTQ_TYPE_F32, 32, 4, dims, NULL, &err))
        return refuse_as(im, err.text);
    for (int o = 0; o < dims[0]; o++) {
        int c = o - of->before;

        if (dims[1] == 1 || (c >= 0 && c < dims[1]))
            ((float *)weight->data)[(size_t)o * (size_t)dims[1] + (size_t)(dims[1] == 1 ? 0 : c)] =
                c >= 0 && c < channels ? 1 : 0;
    }
    return 0;
}

static int add_selection(importer *im, const value *from, selection *of) {
    int channels = shape_of(im, from)[2], input = real_node(im, from), index;
    ptq_conv_options options;
    char name[PTQ_NAME_SIZE];

    if (input < 0)
        return 1;
    input = join_selections(im, from, input, of);
    if (of->stride[0] > PTQ_MAX_KERNEL || of->stride[1] > PTQ_MAX_KERNEL)
        return refuse(im, "steps larger than 255 are not supported; do it outside the network");
    memset(&options, 0, sizeof options);
    options.channels = of->channels;
    options.kernel_h = options.kernel_w = 1;
    options.stride_h = of->stride[0];
    options.stride_w = of->stride[1];
    options.padding = PTQ_PADDING_VALID;
    options.groups = of->channels == channels && !of->before ? channels : 1;
    options.no_bias = 1;
    node_name(im, name);
    index = ptq_add_conv2d(im->model, name, input, &options);
    if (index < 0)
        return refuse_as(im, im->model->error.text);
    if (set_selection(im, &im->model->node[index], of, channels))
        return 1;
    set_result(im, index, from->view, STATE_REAL);
    output_of(im, 0)->selected = of->channels == channels && !of->before;
    return 0;
}

/* Every so many rows and columns from the first on. */
int import_slice(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t size[4];
    selection of;
    slice part;
    int rank, space;

    if (!from)
        return 1;
    view_dims(im, from, from->view, size);
    size[0] = im->open ? (int64_t)1 << 31 : size[0];
    rank = view_rank(from->view);
    if (read_slice(im, rank, size, &part))
        return 1;
    space = channel_axis(from->view) == 1 ? 2 : 1;
    for (int d = 0; d < rank; d++) {
        int spatial = rank == 4 && (d == space || d == space + 1);
        int64_t all = spatial && part.step[d] > 0 ? (size[d] - 1) / part.step[d] + 1 : size[d];

        if (part.step[d] < 1 || part.first[d] != 0 || part.count[d] != all ||
            (spatial && part.step[d] > PTQ_MAX_KERNEL))
            return refuse(im, "only every so many rows and columns, up to 255, from the first on, "
                              "can be taken from a tensor; end the network in front of it");
        if (spatial)
            of.stride[d - space] = (int)part.step[d];
    }
    if (rank != 4 || (of.stride[0] == 1 && of.stride[1] == 1))
        return set_alias(im, from, from->view);
    of.before = 0;
    of.channels = shape_of(im, from)[2];
    return add_selection(im, from, &of);
}

int pad_channels(importer *im, const value *from, int64_t before, int64_t after) {
    selection of = {{1, 1}, 0, 0};
    int64_t channels = shape_of(im, from)[2] + before + after;

    if (channels > PTQ_MAX_ELEMENTS)
        return refuse(im, "it makes more than 268435456 channels; do it outside the network");
    of.before = (int)before;
    of.channels = (int)channels;
    return add_selection(im, from, &of);
}

#endif
