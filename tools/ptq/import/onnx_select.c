/* Slices, splits and shuffles of channels, steps, and channels of zeros: what picks numbers of a tensor is a convolution whose kernel
   is one pixel and whose weights are 0 and 1, such as the shortcut of ResNet's option A. */
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* Which channel each of the result's is: o - before of the input's, or zeros; or, of a shuffle, one
   of each group in turn. */
typedef struct selection {
    int stride[2], before, channels, groups;
} selection;

static int channel_of(const selection *of, int o) {
    return of->groups ? o % of->groups * (of->channels / of->groups) + o / of->groups
                      : o - of->before;
}

/* Whether the channels stay as they are. */
static int keeps_channels(const selection *of, int channels) {
    return of->channels == channels && !of->before && !of->groups;
}

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
        int c = channel_of(of, o);

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
    options.groups = keeps_channels(of, channels) ? channels : 1;
    options.no_bias = 1;
    node_name(im, name);
    index = ptq_add_conv2d(im->model, name, input, &options);
    if (index < 0)
        return refuse_as(im, im->model->error.text);
    if (set_selection(im, &im->model->node[index], of, channels))
        return 1;
    set_result(im, index, from->view, STATE_REAL);
    output_of(im, 0)->selected = keeps_channels(of, channels);
    return 0;
}

int shuffle_channels(importer *im, const value *from, int groups) {
    selection of = {{1, 1}, 0, shape_of(im, from)[2], groups};

    return add_selection(im, from, &of);
}

/* Channels from `first` on; what nothing reads is not made. */
static int add_part(importer *im, const value *from, size_t output, int first, int channels) {
    selection of = {{1, 1}, -first, channels, 0};
    value *made = output_of(im, output), *at = output_of(im, 0);

    if (!made->uses)
        return 0;
    if (add_selection(im, from, &of))
        return 1;
    made->state = at->state;
    made->node = at->node;
    made->view = at->view;
    return 0;
}

/* Along the channels, into parts of given sizes or, without, equal ones. From the last to the first,
   whose result is that of the node. */
int import_split(importer *im) {
    value *from = tensor_input(im, 0);
    const Onnx__AttributeProto *given = find_attribute(im, "split");
    int64_t axis = int_attribute(im, "axis", 0), left, size;
    size_t parts = im->at->n_output;
    const onnx_constant *sizes;

    if (!from || integer_input(im, 1, 0, &sizes))
        return 1;
    axis += axis < 0 ? view_rank(from->view) : 0;
    if (axis != channel_axis(from->view) || (view_rank(from->view) == 2 && !is_pixel(im, from)))
        return refuse(im, "a tensor can be split along its channels only; transpose in front of "
                          "it, or end the network there");
    left = shape_of(im, from)[2];
    if ((given && given->n_ints != parts) || (sizes && sizes->count != parts) ||
        (!given && !sizes && left % (int64_t)parts))
        return refuse_damaged(im, "its parts are not as many as its results, or not equal");
    for (size_t i = parts, total = (size_t)left; i-- > 0; left -= size) {
        size = given ? given->ints[i] : sizes ? constant_int(sizes, i) : (int64_t)(total / parts);
        if (size < 1 || size > left || (i == 0 && size != left))
            return refuse_damaged(im, "the sizes of its parts are not those of the whole");
        if (add_part(im, from, i, (int)(left - size), (int)size))
            return 1;
    }
    return 0;
}

/* A depthwise convolution whose kernel has a single 1 for each result; `each` results for a channel,
   one for each place of the kernel. */
static int add_ones(importer *im, value *from, ptq_conv_options *options, int each) {
    int channels = shape_of(im, from)[2], input = real_node(im, from), index;
    int dims[] = {channels * each, 1, options->kernel_h, options->kernel_w};
    char name[PTQ_NAME_SIZE];
    ptq_tensor *weight;
    ptq_error err;

    if (input < 0)
        return 1;
    if ((size_t)dims[0] * (size_t)each > im->file.allowance / sizeof(float))
        return refuse(im, "its weights, as a convolution, would take many times the size of the "
                          "file; do it outside the network");
    options->channels = dims[0];
    options->groups = channels;
    options->padding = PTQ_PADDING_EXPLICIT;
    options->no_bias = 1;
    make_name(im, from->name, name);
    index = ptq_add_conv2d(im->model, name, input, options);
    if (index < 0)
        return refuse_as(im, im->model->error.text);
    weight = &im->model->node[index].param[PTQ_PARAM_WEIGHT];
    if (ptq_tensor_create(weight, PTQ_TYPE_F32, 32, 4, dims, NULL, &err))
        return refuse_as(im, err.text);
    for (int o = 0; o < dims[0]; o++)
        ((float *)weight->data)[(size_t)o * (size_t)each + (size_t)(o % each)] = 1;
    from->node = index;
    from->state = STATE_REAL;
    from->selected = 0;
    return 0;
}

int pad_pixels(importer *im, value *from) {
    ptq_conv_options options = {0};

    options.kernel_h = options.kernel_w = 1;
    memcpy(options.pad, from->pad, sizeof options.pad);
    if (add_ones(im, from, &options, 1))
        return 1;
    memset(from->pad, 0, sizeof from->pad);
    return 0;
}

int flatten_pixels(importer *im, value *from) {
    const int *shape = shape_of(im, from);
    ptq_conv_options options = {0};

    options.kernel_h = shape[0];
    options.kernel_w = shape[1];
    return add_ones(im, from, &options, shape[0] * shape[1]);
}

/* Every so many rows and columns from the first on; or channels that lie beside each other. */
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
    of.before = of.groups = 0;
    of.channels = shape_of(im, from)[2];
    of.stride[0] = of.stride[1] = 1;
    for (int d = 0; d < rank; d++) {
        int part_of = d == channel_axis(from->view) && (rank == 4 || is_pixel(im, from));

        if (part_of && part.step[d] == 1 && part.count[d] > 0) {
            of.before = (int)-part.first[d];
            of.channels = (int)part.count[d];
            continue;
        }
        int spatial = rank == 4 && (d == space || d == space + 1);
        int64_t all = spatial && part.step[d] > 0 ? (size[d] - 1) / part.step[d] + 1 : size[d];

        if (part.step[d] < 1 || part.first[d] != 0 || part.count[d] != all ||
            (spatial && part.step[d] > PTQ_MAX_KERNEL))
            return refuse(im, "only every so many rows and columns, up to 255, from the first on, "
                              "can be taken from a tensor; end the network in front of it");
        if (spatial)
            of.stride[d - space] = (int)part.step[d];
    }
    if (keeps_channels(&of, shape_of(im, from)[2]) && of.stride[0] == 1 && of.stride[1] == 1)
        return set_alias(im, from, from->view);
    return add_selection(im, from, &of);
}

int pad_channels(importer *im, const value *from, int64_t before, int64_t after) {
    selection of = {{1, 1}, 0, 0, 0};
    int64_t channels = shape_of(im, from)[2] + before + after;

    if (channels > PTQ_MAX_ELEMENTS)
        return refuse(im, "it makes more than 268435456 channels; do it outside the network");
    of.before = (int)before;
    of.channels = (int)channels;
    return add_selection(im, from, &of);
}

#endif
