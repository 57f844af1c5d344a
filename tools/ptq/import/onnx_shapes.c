/* Operators that change the shape or the layout of a tensor alone, and so only its view; Pad. */
#include <float.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

int read_axes(importer *im, int rank, int added, unsigned *axes) {
    const Onnx__AttributeProto *given = find_attribute(im, "axes");
    const onnx_constant *input;
    size_t count;

    *axes = 0;
    if (integer_input(im, 1, 0, &input))
        return 1;
    count = given ? given->n_ints : input ? input->count : 0;
    rank += added ? (int)(count > ONNX_MOST_RANK ? ONNX_MOST_RANK : count) : 0;
    if (count > ONNX_MOST_RANK || rank > ONNX_MOST_RANK)
        return refuse_damaged(im, "it has more axes than a tensor has");
    for (size_t i = 0; i < count; i++) {
        int64_t axis = given ? given->ints[i] : constant_int(input, i);

        axis += axis < 0 ? rank : 0;
        if (axis < 0 || axis >= rank || (*axes >> axis & 1))
            return refuse_damaged(im, "an axis is out of range, or named twice");
        *axes |= 1u << axis;
    }
    return 0;
}

/* ---- Shapes ---- */

void view_dims(const importer *im, const value *from, view shown, int64_t dims[4]) {
    const int *shape = shape_of(im, from);
    int64_t h = (int64_t)shape[0] + from->pad[0] + from->pad[2];
    int64_t w = (int64_t)shape[1] + from->pad[1] + from->pad[3], c = shape[2];
    int axis = channel_axis(shown), rank = view_rank(shown);

    dims[0] = im->batch;
    if (rank == 2) {
        dims[1] = h * w * c;
        return;
    }
    dims[axis] = c;
    dims[axis == 1 ? 2 : 1] = rank == 3 ? h * w : h;
    if (rank == 4)
        dims[axis == 1 ? 3 : 2] = w;
}

/* Whether these are the dimensions wanted, behind the images; -1 stands for what fits. */
static int has_dims(const importer *im, const value *from, view shown, const int64_t *wanted) {
    int64_t known[4];

    view_dims(im, from, shown, known);
    for (int i = 1; i < view_rank(shown); i++)
        if (wanted[i] != known[i] && !(wanted[i] == -1 && wanted[0] != -1))
            return 0;
    return 1;
}

/* The numbers keep their order, so that the view changes to one of the same order; both orders are
   one where there is one pixel or one channel. */
static int reshape(importer *im, const value *from, int rank, const int64_t *dims) {
    static const view orders[2][3] = {{VIEW_NCHW, VIEW_NCL, VIEW_FLAT_CHW},
                                      {VIEW_NHWC, VIEW_NLC, VIEW_FLAT_HWC}};
    int order = flat_view(from->view) == VIEW_FLAT_HWC, open = 0;
    int both = is_pixel(im, from) || shape_of(im, from)[2] == 1;

    for (int i = 0; i < rank && i < 4; i++)
        open += dims[i] == -1;
    if (open > 1)
        return refuse(im, "its shape has more than one -1; export with a fixed number of images");
    if (dims[0] != im->batch && dims[0] != -1)
        return refuse(im,
                      "it changes the number of images from %lld to %lld; an image cannot be "
                      "split or joined with others, so do that outside the network",
                      (long long)im->batch, (long long)dims[0]);
    for (int i = 0; i <= both && rank > 1 && rank < 5; i++, order = !order)
        if (has_dims(im, from, orders[order][4 - rank], dims))
            return set_alias(im, from, orders[order][4 - rank]);
    return refuse(im, "only making one dimension of an image, or of its height and width, and "
                      "undoing that is supported; end the network in front of it");
}

/* Channels seen as groups and back, as channel shuffles do; -1: it is something else. */
static int regroup(importer *im, const value *from, int rank, const int64_t *dims) {
    const int *shape = shape_of(im, from);
    int64_t groups = rank == 5 ? dims[1] : 1;

    if (from->view != VIEW_NCHW || (rank != 5) != (from->groups != 0) || rank < 4)
        return -1;
    if ((dims[0] != im->batch && dims[0] != -1) || dims[rank - 2] != shape[0] ||
        dims[rank - 1] != shape[1] || groups < 1 || shape[2] % groups ||
        (dims[rank - 3] != shape[2] / groups && dims[rank - 3] != -1))
        return -1;
    if (rank == 4 && from->shuffled)
        return shuffle_channels(im, from, from->groups);
    if (set_alias(im, from, VIEW_NCHW))
        return 1;
    output_of(im, 0)->groups = rank == 5 ? (int)groups : 0;
    return 0;
}

int import_reshape(importer *im) {
    value *from = tensor_input(im, 0);
    const onnx_constant *shape;
    int64_t dims[5] = {0}, known[4];
    int status;

    if (!from || constant_input(im, 1, 1, &shape))
        return 1;
    if (shape->type != ONNX_INT64 || shape->count > ONNX_MOST_RANK || shape->count < 1)
        return refuse_damaged(im, "its shape must be a vector of INT64");
    view_dims(im, from, from->view, known);
    for (size_t i = 0; i < shape->count && i < 5; i++) {
        dims[i] = constant_int(shape, i);
        if (is_batch(shape, i) && i)
            return refuse(im,
                          "its shape has the number of images as dimension %d; that can only "
                          "be the first, so end the network in front of it",
                          (int)i + 1);
        if (is_batch(shape, i))
            dims[i] = im->batch;
        if (dims[i] == 0 && (int)i < view_rank(from->view) && !int_attribute(im, "allowzero", 0))
            dims[i] = known[i];
    }
    status = regroup(im, from, (int)shape->count, dims);
    if (status < 0 && from->groups)
        return refuse(im,
                      "a tensor of five dimensions can only become N x C x H x W again; end the "
                      "network in front of it");
    return status < 0 ? reshape(im, from, (int)shape->count, dims) : status;
}

int import_flatten(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t axis = int_attribute(im, "axis", 1);

    if (!from)
        return 1;
    if (axis != 1 && axis != 1 - view_rank(from->view))
        return refuse(im, "only flattening to one vector for each image is supported; take axis 1");
    return set_alias(im, from, flat_view(from->view));
}

/* Without axes it takes every dimension of 1. */
int import_squeeze(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t known[4], dims[4];
    unsigned axes;
    int rank = 0;

    if (!from || read_axes(im, view_rank(from->view), 0, &axes))
        return 1;
    view_dims(im, from, from->view, known);
    for (int i = 0; i < view_rank(from->view); i++)
        if (axes ? axes >> i & 1 : known[i] == 1 && !(i == 0 && im->open)) {
            if (i == 0)
                return refuse(im, "it takes the dimension of the images away; name the axes of "
                                  "height and width instead");
            if (known[i] != 1)
                return refuse_damaged(im, "a dimension that it takes away is not 1");
        } else {
            dims[rank++] = known[i];
        }
    return reshape(im, from, rank, dims);
}

int import_unsqueeze(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t known[4], dims[ONNX_MOST_RANK];
    unsigned axes;
    int rank = 0;

    if (!from || read_axes(im, view_rank(from->view), 1, &axes))
        return 1;
    if (axes & 1)
        return refuse(im, "it puts a dimension in front of the images; leave it out");
    view_dims(im, from, from->view, known);
    for (int i = 0; rank < ONNX_MOST_RANK && (i < view_rank(from->view) || axes >> rank); rank++)
        dims[rank] = axes >> rank & 1 ? 1 : known[i++];
    return reshape(im, from, rank, dims);
}

int read_perm(importer *im, int rank, int *perm) {
    const Onnx__AttributeProto *given = find_attribute(im, "perm");
    unsigned seen = 0;

    if (given && given->n_ints != (size_t)rank)
        return refuse_damaged(im, "perm has another length than the shape");
    for (int i = 0; i < rank; i++) {
        int64_t axis = given ? given->ints[i] : rank - 1 - i;

        if (axis < 0 || axis >= rank || (seen >> axis & 1))
            return refuse_damaged(im, "perm is no permutation");
        seen |= 1u << axis;
        perm[i] = (int)axis;
    }
    return 0;
}

static int is_perm(const int *perm, int a, int b, int c) {
    return perm[0] == 0 && perm[1] == a && perm[2] == b && perm[3] == c;
}

int import_transpose(importer *im) {
    value *from = padded_input(im, 0);
    int perm[ONNX_MOST_RANK], rank, same = 1;

    if (!from || read_perm(im, rank = from->groups ? 5 : view_rank(from->view), perm))
        return 1;
    for (int i = 0; i < rank; i++)
        same &= perm[i] == i;
    if (same)
        return set_alias(im, from, from->view);
    if (rank == 5 && is_perm(perm, 2, 1, 3)) {
        set_alias(im, from, from->view);
        output_of(im, 0)->shuffled = !from->shuffled;
        return 0;
    }
    if (rank == 3 && perm[0] == 0)
        return set_alias(im, from, from->view == VIEW_NCL ? VIEW_NLC : VIEW_NCL);
    if (from->view == VIEW_NCHW && is_perm(perm, 2, 3, 1))
        return set_alias(im, from, VIEW_NHWC);
    if (from->view == VIEW_NHWC && is_perm(perm, 3, 1, 2))
        return set_alias(im, from, VIEW_NCHW);
    return refuse(im, "only transposing between N x C x H x W and N x H x W x C is supported; "
                      "leave it out, or do it outside the network");
}

/* What a Pad adds must stand for 0: of codes that is their zero point, and a Pad that names no
   number adds the code 0. The lowest number is what MaxPool passes over. */
static int check_padding(importer *im, const value *from, int *lowest) {
    const ptq_node *node = &im->model->node[from->node];
    int coded = from->state == STATE_CODES, zero = coded ? node->q.zero_point : 0;
    const onnx_constant *number;
    float added = float_attribute(im, "value", 0);

    if (constant_input(im, 2, 0, &number))
        return 1;
    if (coded && from->node == 0 && im->byte_input)
        return refuse(im, "it reads the input before anything says what its codes stand for; put a "
                          "DequantizeLinear behind the input");
    if (number && number->count == 1)
        added = constant_float(number, 0);
    *lowest = !coded && added <= -FLT_MAX;
    if ((number && number->count != 1) ||
        (!*lowest && (added < (float)zero || added > (float)zero)))
        return refuse(im, coded ? "only padding with the zero point of its codes is supported; pad "
                                  "in front of QuantizeLinear"
                                : "only padding with zeros is supported, and in front of MaxPool "
                                  "with the lowest number; train with these");
    if (is_padded(from) && *lowest != from->lowest)
        return refuse(im, "it pads what is padded with another number; leave one of them out");
    return 0;
}

/* The numbers of a Pad: for every dimension, or since opset 18 for the axes given, in front and then
   behind. */
static int read_pads(importer *im, const value *from, int64_t all[8]) {
    const Onnx__AttributeProto *given = find_attribute(im, "pads");
    const onnx_constant *pads = NULL, *axes = NULL;
    size_t count, named;

    memset(all, 0, 8 * sizeof *all);
    if (integer_input(im, 1, 0, &pads) || integer_input(im, 3, 0, &axes))
        return 1;
    named = axes ? axes->count : 4;
    count = pads ? pads->count : given ? given->n_ints : 0;
    if (view_rank(from->view) != 4 || named > 4 || count != 2 * named)
        return refuse(im, "it needs its input as N x C x H x W, and two numbers for each "
                          "dimension; pad in front of what changes that");
    for (size_t i = 0; i < named; i++) {
        int64_t axis = axes ? constant_int(axes, i) : (int64_t)i;

        axis += axis < 0 ? 4 : 0;
        if (axis < 0 || axis > 3)
            return refuse_damaged(im, "an axis is out of range");
        all[axis] = pads ? constant_int(pads, i) : given->ints[i];
        all[axis + 4] = pads ? constant_int(pads, i + named) : given->ints[i + named];
    }
    return 0;
}

/* Kept with the tensor until a convolution or a pool takes it in. */
int import_pad(importer *im) {
    value *from = padded_input(im, 0), *made;
    int64_t all[8];
    int lowest = 0, first, axis;

    if (!from || read_pads(im, from, all))
        return 1;
    if (find_attribute(im, "mode") && !is_text_attribute(im, "mode", "constant"))
        return refuse(im, "only padding with a constant is supported; train with zeros");
    if (check_padding(im, from, &lowest))
        return 1;
    axis = channel_axis(from->view);
    first = axis == 1 ? 2 : 1;
    if ((all[axis] || all[axis + 4]) && all[axis] >= 0 && all[axis] <= PTQ_MAX_ELEMENTS &&
        all[axis + 4] >= 0 && all[axis + 4] <= PTQ_MAX_ELEMENTS && !lowest && !is_padded(from)) {
        if (pad_channels(im, from, all[axis], all[axis + 4]))
            return 1;
        all[axis] = all[axis + 4] = 0;
        from = output_of(im, 0);
    }
    set_alias(im, from, from->view);
    made = output_of(im, 0);
    for (int i = 0; i < 8; i++) {
        int side = i % 4 - first, outer = side != 0 && side != 1;

        if (all[i] < 0 || all[i] > (outer ? 0 : PTQ_MAX_KERNEL))
            return refuse(im, "only height and width can be padded, by 0 to 255; do the rest "
                              "outside the network");
        if (!outer)
            made->pad[side + (i < 4 ? 0 : 2)] += (int)all[i];
    }
    made->lowest = lowest && is_padded(made);
    return 0;
}

#endif
