/* Pools, and the windows that they and convolutions slide over an image. */
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* TensorFlow's SAME; `lower`: an odd row goes to the top. */
static void pad_same(int size, int kernel, int stride, int lower, int *before, int *after) {
    int out = (size + stride - 1) / stride, total = (out - 1) * stride + kernel - size;

    total = total > 0 ? total : 0;
    *before = lower ? total - total / 2 : total / 2;
    *after = total - *before;
}

/* Rows or columns from the first tap to the last. */
static int covered(const window *w, int axis) {
    return (w->kernel[axis] - 1) * w->dilation[axis] + 1;
}

/* Prefers the names SAME and VALID to the numbers that they stand for. */
static void name_padding(const int *shape, window *w) {
    int same[4];

    pad_same(shape[0], covered(w, 0), w->stride[0], 0, &same[0], &same[2]);
    pad_same(shape[1], covered(w, 1), w->stride[1], 0, &same[1], &same[3]);
    w->padding = PTQ_PADDING_EXPLICIT;
    if (memcmp(same, w->pad, sizeof same) == 0)
        w->padding = PTQ_PADDING_SAME;
    else if (!w->pad[0] && !w->pad[1] && !w->pad[2] && !w->pad[3])
        w->padding = PTQ_PADDING_VALID;
}

static int check_window(const importer *im, const window *w) {
    for (int i = 0; i < 4; i++)
        if (w->pad[i] > PTQ_MAX_KERNEL || covered(w, i % 2) > PTQ_MAX_KERNEL)
            return refuse(im, "its padding, or what its kernel covers, is more than %d; take less",
                          PTQ_MAX_KERNEL);
    return 0;
}

static int read_padding(const importer *im, const value *from, window *w) {
    const int *shape = shape_of(im, from), *pad = from->pad;
    int lower = is_text_attribute(im, "auto_pad", "SAME_LOWER"), own[4];
    int upper = is_text_attribute(im, "auto_pad", "SAME_UPPER");
    int open = !find_attribute(im, "auto_pad") || is_text_attribute(im, "auto_pad", "NOTSET");

    if (ints_attribute(im, "pads", 4, 0, PTQ_MAX_KERNEL, own))
        return 1;
    if (!open && (own[0] || own[1] || own[2] || own[3]))
        return refuse_damaged(im, "it has both pads and auto_pad");
    if (!open && !lower && !upper && !is_text_attribute(im, "auto_pad", "VALID"))
        return refuse_damaged(im, "its auto_pad is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER");
    if (lower || upper) {
        pad_same(shape[0] + pad[0] + pad[2], covered(w, 0), w->stride[0], lower, &own[0], &own[2]);
        pad_same(shape[1] + pad[1] + pad[3], covered(w, 1), w->stride[1], lower, &own[1], &own[3]);
    }
    for (int i = 0; i < 4; i++)
        w->pad[i] = own[i] + pad[i];
    name_padding(shape, w);
    return check_window(im, w);
}

int read_window(const importer *im, const value *from, window *w) {
    if (ints_attribute(im, "strides", 2, 1, PTQ_MAX_KERNEL, w->stride) ||
        ints_attribute(im, "dilations", 2, 1, PTQ_MAX_KERNEL, w->dilation))
        return 1;
    if (!w->stride[0] || !w->stride[1] || !w->kernel[0] || !w->kernel[1] || !w->dilation[0] ||
        !w->dilation[1])
        return refuse_damaged(im, "kernel, strides and dilations must be at least 1");
    return read_padding(im, from, w);
}

/* ---- Pools ---- */

/* What a pool adds to the rules of windows; whether ceil_mode makes a difference. */
static int check_pool(const importer *im, const value *from, const window *w, int *ceil_mode) {
    const int *shape = shape_of(im, from);
    int differs = 0;

    for (int i = 0; i < 4; i++)
        if (w->pad[i] >= w->kernel[i % 2])
            return refuse(im,
                          "it pads by %d where its kernel is %d, so that windows lie in the "
                          "padding alone; take less padding",
                          w->pad[i], w->kernel[i % 2]);
    if (w->dilation[0] != 1 || w->dilation[1] != 1)
        return refuse(im, "dilation is supported in convolutions only; take a pool without");
    for (int i = 0; i < 2; i++)
        differs |= (shape[i] + w->pad[i] + w->pad[i + 2] - w->kernel[i]) % w->stride[i] != 0;
    *ceil_mode = differs && int_attribute(im, "ceil_mode", 0);
    if (*ceil_mode && is_padded(from))
        return refuse(im, "ceil_mode behind a Pad is not supported; pad by the pads of the pool");
    return 0;
}

static int read_pool(importer *im, const value *from, ptq_pool_options *options) {
    int ceil_mode;
    window win;

    if (needs_nchw(im, from) ||
        ints_attribute(im, "kernel_shape", 2, 0, PTQ_MAX_KERNEL, win.kernel))
        return 1;
    if (read_window(im, from, &win))
        return 1;
    if (check_pool(im, from, &win, &ceil_mode))
        return 1;
    if (im->at->n_output > 1 && *text_or(im->at->output[1], ""))
        return refuse(im, "its second result is not supported; leave out what reads it");
    memset(options, 0, sizeof *options);
    options->kernel_h = win.kernel[0];
    options->kernel_w = win.kernel[1];
    options->stride_h = win.stride[0];
    options->stride_w = win.stride[1];
    options->padding =
        ceil_mode && win.padding == PTQ_PADDING_SAME ? PTQ_PADDING_EXPLICIT : win.padding;
    options->ceil_mode = ceil_mode;
    memcpy(options->pad, win.pad, sizeof options->pad);
    return 0;
}

/* Whether nothing that a node gives is below 0. */
static int is_positive(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index];

    while (node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_AVG_POOL)
        node = &model->node[node->input[0]];
    return node->op == PTQ_OP_RELU || node->op == PTQ_OP_RELU6 || node->act != PTQ_ACTIVATION_NONE;
}

/* MaxPool passes over its own padding. Zeros that a Pad adds are the same in front of it where
   nothing is smaller, for no window lies in the padding alone. */
static int check_max_pad(const importer *im, const value *from) {
    if (!is_padded(from) || from->lowest || is_positive(im->model, from->node))
        return 0;
    return refuse(im,
                  "zeros that a Pad adds count in MaxPool where numbers below 0 are; pad by the "
                  "pads of the MaxPool, or behind a Relu");
}

/* Under a window, or `options` NULL: of the whole image. Codes stay codes. */
static int add_maximum(importer *im, const value *from, const ptq_pool_options *options) {
    int coded = from->state == STATE_CODES || from->state == STATE_DEQUANTIZED, input, index;
    char name[PTQ_NAME_SIZE];

    if (coded && im->byte_input)
        return refuse(im, "it reads the input before anything says what its codes stand for; put a "
                          "DequantizeLinear behind the input");
    input = coded ? from->node : real_node(im, from);
    if (input < 0)
        return 1;
    node_name(im, name);
    index = options ? ptq_add_pool(im->model, PTQ_OP_MAX_POOL, name, input, options)
                    : ptq_add_op(im->model, PTQ_OP_GLOBAL_MAX_POOL, name, input);
    if (index >= 0 && coded)
        im->model->node[index].q = im->model->node[input].q;
    return set_result(im, index, from->view,
                      from->state == STATE_PENDING ? STATE_REAL : from->state);
}

int import_max_pool(importer *im) {
    value *from = padded_input(im, 0);
    ptq_pool_options options;

    if (!from || check_max_pad(im, from) || read_pool(im, from, &options))
        return 1;
    return add_maximum(im, from, &options);
}

int import_global_max_pool(importer *im) {
    value *from = tensor_input(im, 0);

    if (!from || (from->view != VIEW_NCL && needs_nchw(im, from)))
        return 1;
    return add_maximum(im, from, NULL);
}

/* Reals or codes, as the operand of an average: its node, -1 after an error. */
static int average_operand(importer *im, const value *from, state *how) {
    int coded = im->operation->result || (from->state == STATE_DEQUANTIZED && computes_codes(im));

    *how = coded ? STATE_PENDING : STATE_REAL;
    return coded ? from->node : real_node(im, from);
}

/* A window over the whole image alone: the integer form rounds as the global pool does. */
static int is_whole_image(const int *shape, const ptq_pool_options *options) {
    return options->kernel_h == shape[0] && options->kernel_w == shape[1] && !options->pad[0] &&
           !options->pad[1] && !options->pad[2] && !options->pad[3];
}

static int add_average(importer *im, int input, const value *from,
                       const ptq_pool_options *options) {
    const int *shape = shape_of(im, from);
    char name[PTQ_NAME_SIZE];

    if (!options || is_whole_image(shape, options))
        return append_op(im, PTQ_OP_GLOBAL_AVG_POOL, input);
    node_name(im, name);
    return ptq_add_pool(im->model, PTQ_OP_AVG_POOL, name, input, options);
}

int refuse_lowest(const importer *im, const value *from) {
    return from->lowest ? refuse(im, "it reads what a Pad has padded with the lowest number, which "
                                     "is supported in front of MaxPool only; pad with zeros")
                        : 0;
}

/* A Pad node in front adds zeros that count; its numbers are taken only where they alone pad. */
static int check_average_pad(const importer *im, const value *from, ptq_pool_options *options) {
    options->include_pad = int_attribute(im, "count_include_pad", 0) != 0;
    if (refuse_lowest(im, from))
        return 1;
    if (!is_padded(from) || options->include_pad)
        return 0;
    if (memcmp(options->pad, from->pad, sizeof from->pad) != 0)
        return refuse(im, "Pad in front of a pool with padding of its own is not supported; leave "
                          "one of them out");
    options->include_pad = 1;
    return 0;
}

int import_average_pool(importer *im) {
    int coded = im->operation->result;
    value *from = coded ? coded_input(im, 0) : padded_input(im, 0);
    ptq_pool_options options;
    state how;
    int input;

    if (!from)
        return 1;
    if (coded && int_attribute(im, "channels_last", 0) != 0)
        return refuse(im, "channels_last is not supported; export it for N x C x H x W");
    if (read_pool(im, from, &options) || check_average_pad(im, from, &options) ||
        (input = average_operand(im, from, &how)) < 0)
        return 1;
    return finish_node(im, add_average(im, input, from, &options), VIEW_NCHW, how);
}

int import_global_pool(importer *im) {
    value *from = tensor_input(im, 0);
    state how;
    int input;

    if (!from || (from->view != VIEW_NCL && needs_nchw(im, from)) ||
        (input = average_operand(im, from, &how)) < 0)
        return 1;
    return set_result(im, add_average(im, input, from, NULL), from->view, how);
}

int import_coded_global_pool(importer *im) {
    value *from = coded_input(im, 0);

    if (!from)
        return 1;
    if (from->view != (int_attribute(im, "channels_last", 0) ? VIEW_NHWC : VIEW_NCHW))
        return refuse(
            im, "channels_last does not fit the layout of its input; transpose in front of it");
    return finish_node(im, add_average(im, from->node, from, NULL), from->view, STATE_CODES);
}

/* The mean over the rest of what is a mean over rows or columns already, with no other reader, is
   the mean over both: the node that was made for the first goes. */
static int join_means(importer *im, const value *from, int input) {
    const ptq_node *node = &im->model->node[input];
    const int *shape;
    int i;

    if (from->uses != 1 || input != im->model->nodes - 1 || node->op != PTQ_OP_AVG_POOL ||
        node->q.type != PTQ_TYPE_F32)
        return input;
    shape = im->model->node[node->input[0]].shape;
    i = node->kernel[0] == 1;
    if (node->kernel[i] != shape[i] || node->kernel[!i] != 1 || node->shape[!i] != shape[!i] ||
        node->shape[i] != 1 || node->pad[0] || node->pad[1] || node->pad[2] || node->pad[3])
        return input;
    input = node->input[0];
    im->model->nodes--;
    return input;
}

/* The mean over height (side 0) or width alone. */
static int add_line_mean(importer *im, const value *from, int side, int input) {
    ptq_pool_options options;
    char name[PTQ_NAME_SIZE];
    const int *shape = shape_of(im, from);

    if (shape[side] > PTQ_MAX_KERNEL)
        return refuse(im, "the mean over height or width alone is supported for up to 255 rows or "
                          "columns; take both"),
               -1;
    memset(&options, 0, sizeof options);
    options.kernel_h = side ? 1 : shape[0];
    options.kernel_w = side ? shape[1] : 1;
    options.stride_h = options.stride_w = 1;
    options.padding = PTQ_PADDING_VALID;
    node_name(im, name);
    return ptq_add_pool(im->model, PTQ_OP_AVG_POOL, name, input, &options);
}

int import_reduce_mean(importer *im) {
    value *from = tensor_input(im, 0);
    unsigned axes, space;
    int input, rank, first, all;
    view shown;
    state how;

    if (!from || read_axes(im, rank = view_rank(from->view), 0, &axes))
        return 1;
    first = channel_axis(from->view) == 1 ? 2 : 1;
    space = rank == 4 ? 3u << first : rank == 3 ? 1u << first : 0;
    if (!axes || (axes & ~space))
        return refuse(im, "only the mean over height and width is supported; end the network in "
                          "front of it");
    all = axes == space || shape_of(im, from)[axes == 1u << first] == 1;
    shown = int_attribute(im, "keepdims", 1) ? from->view
            : axes == space                  ? flat_view(from->view)
                                             : line_view(from->view);
    if (!all && shape_of(im, from)[axes == 2u << first] == 1)
        return set_alias(im, from, shown);
    if ((input = average_operand(im, from, &how)) < 0)
        return 1;
    if (all)
        input =
            add_average(im, how == STATE_REAL ? join_means(im, from, input) : input, from, NULL);
    else if ((input = add_line_mean(im, from, axes == 2u << first, input)) < 0)
        return im->model->error.status ? refuse_as(im, im->model->error.text) : 1;
    return set_result(im, input, shown, how);
}

#endif
