/* Operators that change the shape or the layout alone: of tensors only the view, of constants the
   elements' order. */
#include <assert.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

int read_axes(importer *im, int rank, int *axes, int *count) {
    const Onnx__AttributeProto *given = find_attribute(im, "axes");
    const onnx_constant *input;

    if (integer_input(im, 1, 0, &input))
        return 1;
    *count = (int)(given ? given->n_ints : input && input->count <= 8 ? input->count : 0);
    if (*count < 1 || *count > rank)
        return refuse(im, "it needs its axes as numbers; fold constants with onnxsim");
    for (int i = 0; i < *count; i++) {
        int64_t axis = given ? given->ints[i] : constant_int(input, (size_t)i);

        axis += axis < 0 ? rank : 0;
        if (axis < 0 || axis >= rank)
            return refuse_damaged(im, "an axis is out of range");
        axes[i] = (int)axis;
    }
    return 0;
}

/* ---- Shapes ---- */

/* What ONNX takes the tensor's dimensions for. */
static void view_dims(const importer *im, const value *from, int64_t dims[4]) {
    const int *shape = shape_of(im, from);

    dims[0] = im->batch;
    dims[1] = from->view == VIEW_NCHW ? shape[2] : shape[0];
    dims[2] = from->view == VIEW_NCHW ? shape[0] : shape[1];
    dims[3] = from->view == VIEW_NCHW ? shape[1] : shape[2];
    if (view_rank(from->view) == 2)
        dims[1] = (int64_t)shape[0] * shape[1] * shape[2];
}

/* The view after a change to the given shape, which has one number too few where `open` is one. */
static int reshape(importer *im, const value *from, int rank, const int64_t *dims) {
    const int *shape = shape_of(im, from);
    int64_t known[4], all = (int64_t)shape[0] * shape[1] * shape[2];
    int same = rank == view_rank(from->view), open = 0;

    for (int i = 0; i < rank && i < 4; i++)
        open += dims[i] == -1;
    if (open > 1)
        return refuse(im, "its shape has more than one -1; export with a fixed number of images");
    view_dims(im, from, known);
    if (dims[0] != known[0] && dims[0] != -1)
        return refuse(im,
                      "it changes the number of images from %lld to %lld; an image cannot be "
                      "split or joined with others, so do that outside the network",
                      (long long)known[0], (long long)dims[0]);
    for (int i = 1; i < rank && same; i++)
        same = dims[i] == known[i] || (dims[i] == -1 && dims[0] != -1);
    if (same)
        return set_alias(im, from, from->view);
    if (rank == 2 && (dims[1] == all || (dims[1] == -1 && dims[0] != -1)))
        return set_alias(im, from, flat_view(from->view));
    if (rank == 4 && is_pixel(im, from) && dims[1] == shape[2] && dims[2] == 1 && dims[3] == 1)
        return set_alias(im, from, VIEW_NCHW);
    if (rank == 4 && is_pixel(im, from) && dims[1] == 1 && dims[2] == 1 && dims[3] == shape[2])
        return set_alias(im, from, VIEW_NHWC);
    return refuse(im, "only flattening, and reshaping that changes nothing, are supported; end the "
                      "network in front of it");
}

/* Constant input 1 as a shape, 0 in it standing for the old dimension. */
static int fold_reshape(importer *im, const onnx_constant *from, const onnx_constant *shape) {
    int64_t dims[ONNX_MOST_RANK], known = 1;
    int open = -1, rank = (int)shape->count;

    for (int i = 0; i < rank; i++) {
        dims[i] = constant_int(shape, (size_t)i);
        if (i < from->rank && dims[i] == 0)
            dims[i] = from->dim[i];
        if (dims[i] == -1 && open < 0)
            open = i;
        else if (dims[i] < 1 || dims[i] > PTQ_MAX_ELEMENTS || known > PTQ_MAX_ELEMENTS)
            return refuse_damaged(im, "the new shape of a constant is out of range");
        else
            known *= dims[i];
    }
    if (open >= 0)
        dims[open] = (int64_t)from->count / known;
    return fold_copy(im, from, from->type, rank, dims);
}

int import_reshape(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *shape, *constant;
    int64_t dims[4] = {0}, known[4];

    if (constant_input(im, 1, 1, &shape))
        return 1;
    if (shape->type != ONNX_INT64 || shape->count > ONNX_MOST_RANK || shape->count < 1)
        return refuse_damaged(im, "its shape must be a vector of INT64");
    if (from && from->state == STATE_CONSTANT)
        return constant_input(im, 0, 1, &constant) || fold_reshape(im, constant, shape);
    if (!(from = tensor_input(im, 0)))
        return 1;
    view_dims(im, from, known);
    for (size_t i = 0; i < shape->count && i < 4; i++) {
        dims[i] = constant_int(shape, i);
        if (dims[i] == 0 && (int)i < view_rank(from->view) && !int_attribute(im, "allowzero", 0))
            dims[i] = known[i];
    }
    return reshape(im, from, (int)shape->count, dims);
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

/* Whether two axes are those given, in either order. */
static int are_axes(const int *axes, int count, int first, int second) {
    return count == 2 &&
           ((axes[0] == first && axes[1] == second) || (axes[0] == second && axes[1] == first));
}

/* Squeeze, and Unsqueeze the other way: between N x C and N x C x 1 x 1 or N x 1 x 1 x C. */
int import_squeeze(importer *im) {
    value *from = tensor_input(im, 0);
    int axes[ONNX_MOST_RANK], count;

    if (!from || read_axes(im, view_rank(from->view), axes, &count))
        return 1;
    if (view_rank(from->view) != 4 || !is_pixel(im, from) ||
        !(from->view == VIEW_NCHW ? are_axes(axes, count, 2, 3) : are_axes(axes, count, 1, 2)))
        return refuse(im, "only squeezing height and width of 1, both at once, is supported; write "
                          "it as a Flatten");
    return set_alias(im, from, flat_view(from->view));
}

int import_unsqueeze(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *constant;
    int axes[ONNX_MOST_RANK], count, nchw;

    if (from && from->state == STATE_CONSTANT)
        return constant_input(im, 0, 1, &constant) ||
               refuse(im, "it is not supported on constants; fold them with onnxsim");
    if (!(from = tensor_input(im, 0)) || read_axes(im, 4, axes, &count))
        return 1;
    nchw = are_axes(axes, count, 2, 3);
    if (view_rank(from->view) != 2 || !is_pixel(im, from) ||
        (!nchw && !are_axes(axes, count, 1, 2)))
        return refuse(im, "only a height and width of 1, both at once, can be added; write it as a "
                          "Reshape to N x C x 1 x 1");
    return set_alias(im, from, nchw ? VIEW_NCHW : VIEW_NHWC);
}

static int fold_transpose(importer *im, const onnx_constant *from, const int *perm) {
    int64_t dims[ONNX_MOST_RANK], index[ONNX_MOST_RANK] = {0};
    size_t stride[ONNX_MOST_RANK], width = onnx_width(from->type);
    onnx_constant *to;

    assert(0 <= from->rank && from->rank <= ONNX_MOST_RANK);
    for (int i = 0; i < from->rank; i++) {
        dims[i] = from->dim[perm[i]];
        stride[i] = inner_elements(from, perm[i]);
    }
    if (fold_constant(im, from->type, from->rank, dims, &to))
        return 1;
    for (size_t i = 0; i < to->count; i++) {
        size_t source = 0;

        for (int d = 0; d < from->rank; d++)
            source += (size_t)index[d] * stride[d];
        memcpy((char *)to->data + i * width, (const char *)from->data + source * width, width);
        for (int d = from->rank - 1; d >= 0 && ++index[d] == dims[d]; d--)
            index[d] = 0;
    }
    return 0;
}

/* perm, or the reverse order that it stands for when missing. */
static int read_perm(importer *im, int rank, int *perm) {
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
    value *from = input_of(im, 0);
    const onnx_constant *constant;
    int perm[ONNX_MOST_RANK];

    if (from && from->state == STATE_CONSTANT)
        return constant_input(im, 0, 1, &constant) || read_perm(im, constant->rank, perm) ||
               fold_transpose(im, constant, perm);
    if (!(from = tensor_input(im, 0)))
        return 1;
    if (view_rank(from->view) != 4 || read_perm(im, 4, perm))
        return refuse(im, "only transposing between N x C x H x W and N x H x W x C is supported; "
                          "leave it out, or do it outside the network");
    if (is_perm(perm, 1, 2, 3))
        return set_alias(im, from, from->view);
    if (from->view == VIEW_NCHW && is_perm(perm, 2, 3, 1))
        return set_alias(im, from, VIEW_NHWC);
    if (from->view == VIEW_NHWC && is_perm(perm, 3, 1, 2))
        return set_alias(im, from, VIEW_NCHW);
    return refuse(im, "only transposing between N x C x H x W and N x H x W x C is supported; "
                      "leave it out, or do it outside the network");
}

/* What a Pad adds must stand for 0: of codes that is their zero point, and a Pad that names no
   number adds the code 0. */
static int check_padding(importer *im, const value *from) {
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
    if ((number && number->count != 1) || added < (float)zero || added > (float)zero)
        return refuse(im, coded ? "only padding with the zero point of its codes is supported; pad "
                                  "in front of QuantizeLinear"
                                : "only padding with zeros is supported; train with these");
    return 0;
}

/* Zeros around height and width, kept with the tensor until a convolution takes them in. */
int import_pad(importer *im) {
    value *from = padded_input(im, 0);
    const Onnx__AttributeProto *given = find_attribute(im, "pads");
    const onnx_constant *pads = NULL;
    int64_t all[8];

    if (!from || integer_input(im, 1, 0, &pads))
        return 1;
    if (has_input(im->at, 3) ||
        (find_attribute(im, "mode") && !is_text_attribute(im, "mode", "constant")))
        return refuse(im,
                      "only padding with a constant, without axes, is supported; train with zeros");
    if (check_padding(im, from))
        return 1;
    if (from->view != VIEW_NCHW || (pads ? pads->count : given ? given->n_ints : 0) != 8)
        return refuse(im, "it needs its input as N x C x H x W, and two numbers for each "
                          "dimension; transpose behind it, not in front");
    for (size_t i = 0; i < 8; i++)
        all[i] = pads ? constant_int(pads, i) : given->ints[i];
    set_alias(im, from, from->view);
    for (int i = 0; i < 8; i++) {
        int outer = i % 4 < 2;

        if (all[i] < 0 || all[i] > (outer ? 0 : PTQ_MAX_KERNEL))
            return refuse(im, "only height and width can be padded, by 0 to 255; do the rest "
                              "outside the network");
        if (!outer)
            output_of(im, 0)->pad[i % 4 - 2 + (i < 4 ? 0 : 2)] += (int)all[i];
    }
    return 0;
}

#endif
