/* Operators on what no image changes, computed while a graph is read: constants, and the shapes of
   tensors, of which an open number of images is a number like no other. So chains such as
   x.view(x.size(0), -1) and those that F.pad leaves end in one constant. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

#define MOST_STEP ((int64_t)1 << 32) /* larger than any dimension */

int is_batch(const onnx_constant *from, size_t i) {
    return from->open && constant_int(from, i) == ONNX_BATCH;
}

static int is_open(const onnx_constant *from) {
    for (size_t i = 0; i < from->count && from->open; i++)
        if (is_batch(from, i))
            return 1;
    return 0;
}

static int refuse_batch(const importer *im) {
    return refuse(im, "it computes with the number of images, which is open; export with a fixed "
                      "number of images");
}

static void set_int(onnx_constant *to, size_t i, int64_t number) {
    if (to->type == ONNX_INT64)
        ((int64_t *)to->data)[i] = number;
    else if (to->type == ONNX_INT32)
        ((int32_t *)to->data)[i] = (int32_t)number;
    else
        ((uint8_t *)to->data)[i] = (uint8_t)number;
}

/* ---- Elements picked by strides ---- */

/* Where element i of `to` comes from. Strides are 0 along what is repeated, negative backwards. */
static size_t strided(const onnx_constant *to, size_t i, int64_t first, const int64_t *stride) {
    for (int d = to->rank - 1; d >= 0; d--) {
        first += (int64_t)(i % (size_t)to->dim[d]) * stride[d];
        i /= (size_t)to->dim[d];
    }
    return (size_t)first;
}

static void pick(const onnx_constant *from, int64_t first, const int64_t *stride,
                 onnx_constant *to) {
    size_t width = onnx_width(from->type);

    for (size_t i = 0; i < to->count; i++)
        memcpy((char *)to->data + i * width,
               (const char *)from->data + strided(to, i, first, stride) * width, width);
}

/* The shape that two have together, dimensions of 1 being repeated. */
static int broadcast_shape(importer *im, const onnx_constant *a, int rank, const int64_t *dims,
                           int *out_rank, int64_t *out) {
    *out_rank = a->rank > rank ? a->rank : rank;
    for (int d = 1; d <= *out_rank; d++) {
        int64_t x = d <= a->rank ? a->dim[a->rank - d] : 1, y = d <= rank ? dims[rank - d] : 1;

        if (x != y && x != 1 && y != 1)
            return refuse_damaged(im, "the shapes of its operands do not fit each other");
        out[*out_rank - d] = x == 1 ? y : x;
    }
    return 0;
}

/* Strides that repeat a constant to a shape of which its own is the end. */
static void repeat_strides(const onnx_constant *from, int rank, int64_t *stride) {
    for (int d = 0; d < rank; d++) {
        int own = d - (rank - from->rank);

        stride[d] = own < 0 || from->dim[own] == 1 ? 0 : (int64_t)inner_elements(from, own);
    }
}

static int fold_expand(importer *im) {
    const onnx_constant *from, *shape;
    int64_t wanted[ONNX_MOST_RANK], dims[ONNX_MOST_RANK], stride[ONNX_MOST_RANK];
    onnx_constant *to;
    int rank;

    if (constant_input(im, 0, 1, &from) || integer_input(im, 1, 1, &shape))
        return 1;
    if (shape->count > ONNX_MOST_RANK)
        return refuse_damaged(im, "its shape has more than 8 dimensions");
    for (size_t i = 0; i < shape->count; i++)
        wanted[i] = constant_int(shape, i);
    if (broadcast_shape(im, from, (int)shape->count, wanted, &rank, dims) ||
        fold_constant(im, from->type, rank, dims, &to))
        return 1;
    repeat_strides(from, rank, stride);
    pick(from, 0, stride, to);
    return 0;
}

static int fold_transpose(importer *im) {
    int64_t dims[ONNX_MOST_RANK], stride[ONNX_MOST_RANK];
    int perm[ONNX_MOST_RANK];
    const onnx_constant *from;
    onnx_constant *to;

    if (constant_input(im, 0, 1, &from) || read_perm(im, from->rank, perm))
        return 1;
    for (int d = 0; d < from->rank; d++) {
        dims[d] = from->dim[perm[d]];
        stride[d] = (int64_t)inner_elements(from, perm[d]);
    }
    if (fold_constant(im, from->type, from->rank, dims, &to))
        return 1;
    pick(from, 0, stride, to);
    return 0;
}

/* ---- Slice, Gather, Concat ---- */

/* One of Slice's lists: an attribute before opset 10, an input since; *count 0: none. */
static int read_list(importer *im, const char *name, size_t input, int64_t *out, int *count) {
    const Onnx__AttributeProto *given = find_attribute(im, name);
    const onnx_constant *list;

    if (integer_input(im, input, 0, &list))
        return 1;
    if ((given ? given->n_ints : list ? list->count : 0) > ONNX_MOST_RANK)
        return refuse_damaged(im, "it has more numbers than a shape has dimensions");
    *count = (int)(given ? given->n_ints : list ? list->count : 0);
    for (int i = 0; i < *count; i++)
        out[i] = given ? given->ints[i] : constant_int(list, (size_t)i);
    return 0;
}

static int64_t within(int64_t x, int64_t low, int64_t high) {
    return x < low ? low : x > high ? high : x;
}

/* From `start` on, in steps, as far as `end`: makes start the first element; returns how many. */
static int64_t slice_size(int64_t size, int64_t *start, int64_t end, int64_t step) {
    int64_t last = step > 0 ? size : size - 1, first = step > 0 ? 0 : -1, span;

    *start = within(*start < 0 ? *start + size : *start, 0, last < 0 ? 0 : last);
    end = within(end < 0 ? end + size : end, first, last);
    span = step > 0 ? end - *start : *start - end;
    step = step > 0 ? step : -step;
    return size == 0 || span <= 0 ? 0 : (span + step - 1) / step;
}

int read_slice(importer *im, int rank, const int64_t *size, slice *out) {
    int64_t end[ONNX_MOST_RANK], axis[ONNX_MOST_RANK], by[ONNX_MOST_RANK], start[ONNX_MOST_RANK];
    int starts, ends, axes, steps;
    unsigned seen = 0;

    if (read_list(im, "starts", 1, start, &starts) || read_list(im, "ends", 2, end, &ends) ||
        read_list(im, "axes", 3, axis, &axes) || read_list(im, "steps", 4, by, &steps))
        return 1;
    if (ends != starts || (axes && axes != starts) || (steps && steps != starts) || starts > rank)
        return refuse_damaged(im, "its starts, ends, axes and steps do not fit each other");
    for (int d = 0; d < rank; d++) {
        out->first[d] = 0;
        out->step[d] = 1;
        out->count[d] = size[d];
    }
    for (int i = 0; i < starts; i++) {
        int64_t d = axes ? axis[i] : i, step = steps ? within(by[i], -MOST_STEP, MOST_STEP) : 1;

        d += d < 0 ? rank : 0;
        if (d < 0 || d >= rank || step == 0 || (seen >> d & 1))
            return refuse_damaged(im, "an axis or a step is out of range");
        seen |= 1u << d;
        out->first[d] = start[i];
        out->step[d] = step;
        out->count[d] = slice_size(size[d], &out->first[d], end[i], step);
    }
    return 0;
}

static int fold_slice(importer *im) {
    const onnx_constant *from;
    onnx_constant *to;
    int64_t first = 0;
    slice part;

    if (constant_input(im, 0, 1, &from) || read_slice(im, from->rank, from->dim, &part) ||
        fold_constant(im, from->type, from->rank, part.count, &to))
        return 1;
    for (int d = 0; d < from->rank; d++) {
        int64_t stride = (int64_t)inner_elements(from, d);

        first += part.first[d] * stride;
        part.step[d] *= stride;
    }
    pick(from, first, part.step, to);
    return 0;
}

/* An axis of Gather or Concat; -1 after an error. */
static int read_axis(importer *im, int rank, int64_t otherwise) {
    int64_t axis = int_attribute(im, "axis", otherwise);

    axis += axis < 0 ? rank : 0;
    if (axis < 0 || axis >= rank)
        return refuse_damaged(im, "its axis is out of range"), -1;
    return (int)axis;
}

static int fold_gather(importer *im) {
    const onnx_constant *from, *index;
    int64_t dims[ONNX_MOST_RANK] = {0};
    size_t inner, width;
    onnx_constant *to;
    int axis, rank;

    if (constant_input(im, 0, 1, &from) || integer_input(im, 1, 1, &index) ||
        (axis = read_axis(im, from->rank, 0)) < 0)
        return 1;
    rank = from->rank - 1 + index->rank;
    for (int d = 0; d < rank && d < ONNX_MOST_RANK; d++)
        dims[d] = d < axis                 ? from->dim[d]
                  : d < axis + index->rank ? index->dim[d - axis]
                                           : from->dim[d - index->rank + 1];
    if (fold_constant(im, from->type, rank, dims, &to))
        return 1;
    inner = inner_elements(from, axis);
    width = inner * onnx_width(from->type);
    for (size_t i = 0; to->count && i < to->count / inner; i++) {
        int64_t at = constant_int(index, i % index->count), size = from->dim[axis];

        at += at < 0 ? size : 0;
        if (at < 0 || at >= size)
            return refuse_damaged(im, "an index is out of range");
        memcpy((char *)to->data + i * width,
               (const char *)from->data + (i / index->count * (size_t)size + (size_t)at) * width,
               width);
    }
    return 0;
}

static int fold_concat(importer *im) {
    int64_t dims[ONNX_MOST_RANK];
    const onnx_constant *first, *part;
    onnx_constant *to;
    size_t width, row, at = 0;
    int axis;

    if (constant_input(im, 0, 1, &first) || (axis = read_axis(im, first->rank, 1)) < 0)
        return 1;
    memcpy(dims, first->dim, sizeof dims);
    for (size_t k = 1; k < im->at->n_input; k++) {
        if (constant_input(im, k, 1, &part))
            return 1;
        if (part->type != first->type || part->rank != first->rank)
            return refuse_damaged(im, "its operands differ in type or rank");
        for (int d = 0; d < first->rank; d++)
            if (d != axis && part->dim[d] != first->dim[d])
                return refuse_damaged(im, "the shapes of its operands do not fit each other");
        dims[axis] += part->dim[axis];
    }
    if (fold_constant(im, first->type, first->rank, dims, &to))
        return 1;
    width = inner_elements(to, axis) * onnx_width(to->type);
    row = width * (size_t)dims[axis];
    for (size_t k = 0; k < im->at->n_input && to->count; k++) {
        if (constant_input(im, k, 1, &part))
            return 1;
        for (size_t i = 0; i < to->count * onnx_width(to->type) / row; i++)
            memcpy((char *)to->data + i * row + at,
                   (const char *)part->data + i * width * (size_t)part->dim[axis],
                   width * (size_t)part->dim[axis]);
        at += width * (size_t)part->dim[axis];
    }
    return 0;
}

/* ---- Shapes ---- */

/* Input 1 as a shape, 0 in it standing for the old dimension. */
static int fold_reshape(importer *im) {
    const onnx_constant *from, *shape;
    int64_t dims[ONNX_MOST_RANK], known = 1;
    int open = -1, rank, copies = !int_attribute(im, "allowzero", 0);

    if (constant_input(im, 0, 1, &from) || integer_input(im, 1, 1, &shape))
        return 1;
    if (shape->count > ONNX_MOST_RANK)
        return refuse_damaged(im, "its shape has more than 8 dimensions");
    rank = (int)shape->count;
    for (int i = 0; i < rank; i++) {
        dims[i] = constant_int(shape, (size_t)i);
        if (i < from->rank && dims[i] == 0 && copies)
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
    return fold_copy(im, from, rank, dims);
}

static int fold_squeeze(importer *im) {
    const onnx_constant *from;
    int64_t dims[ONNX_MOST_RANK];
    unsigned axes;
    int rank = 0;

    if (constant_input(im, 0, 1, &from) || read_axes(im, from->rank, 0, &axes))
        return 1;
    for (int d = 0; d < from->rank; d++)
        if (axes ? !(axes >> d & 1) : from->dim[d] != 1)
            dims[rank++] = from->dim[d];
    return fold_copy(im, from, rank, dims);
}

static int fold_unsqueeze(importer *im) {
    const onnx_constant *from;
    int64_t dims[ONNX_MOST_RANK];
    unsigned axes;
    int rank = 0;

    if (constant_input(im, 0, 1, &from) || read_axes(im, from->rank, 1, &axes))
        return 1;
    for (int d = 0; rank < ONNX_MOST_RANK && (d < from->rank || axes >> rank); rank++)
        dims[rank] = axes >> rank & 1 ? 1 : from->dim[d++];
    return fold_copy(im, from, rank, dims);
}

/* Shape of a tensor: since opset 15 from `start` to `end`. */
int import_shape(importer *im) {
    value *from = input_of(im, 0);
    int64_t known[ONNX_MOST_RANK], start, count;
    const onnx_constant *constant = NULL;
    onnx_constant *to;
    int rank;

    if (from && from->state == STATE_CONSTANT) {
        if (constant_input(im, 0, 1, &constant))
            return 1;
        rank = constant->rank;
        memcpy(known, constant->dim, sizeof known);
    } else {
        if (!(from = padded_input(im, 0)))
            return 1;
        rank = view_rank(from->view);
        view_dims(im, from, from->view, known);
    }
    start = int_attribute(im, "start", 0);
    count = slice_size(rank, &start, int_attribute(im, "end", rank), 1);
    if (fold_constant(im, ONNX_INT64, 1, &count, &to))
        return 1;
    for (size_t i = 0; i < to->count; i++)
        set_int(to, i, known[start + (int64_t)i]);
    if (!constant && im->open && start == 0 && to->count) {
        to->open = 1;
        set_int(to, 0, ONNX_BATCH);
    }
    return 0;
}

static int fold_constant_of_shape(importer *im) {
    const Onnx__AttributeProto *given = find_attribute(im, "value");
    static const float nothing = 0;
    onnx_constant number = {ONNX_FLOAT, 0, {0}, 0, 1, (void *)&nothing}, *to;
    int64_t dims[ONNX_MOST_RANK], stride[ONNX_MOST_RANK] = {0};
    const onnx_constant *shape;
    int status;

    if (integer_input(im, 0, 1, &shape))
        return 1;
    if (shape->count > ONNX_MOST_RANK)
        return refuse_damaged(im, "its shape has more than 8 dimensions");
    for (size_t i = 0; i < shape->count; i++)
        dims[i] = constant_int(shape, i);
    if (given && given->t && onnx_load(&im->file, given->t, im->at->output[0], &number))
        return 1;
    status = number.count != 1 ? refuse_damaged(im, "its value is not one number")
                               : fold_constant(im, number.type, (int)shape->count, dims, &to);
    if (!status)
        pick(&number, 0, stride, to);
    if (number.data != (const void *)&nothing)
        free(number.data);
    return status;
}

/* ---- Arithmetic ---- */

static int fold_range(importer *im) {
    const onnx_constant *given[3];
    onnx_constant *to;
    double count;
    int64_t size;

    for (size_t i = 0; i < 3; i++) {
        if (constant_input(im, i, 1, &given[i]))
            return 1;
        if (given[i]->count != 1 || given[i]->type != given[0]->type)
            return refuse_damaged(im, "its operands must be single numbers of one type");
    }
    if (given[0]->type == ONNX_FLOAT)
        count = ceil(((double)constant_float(given[1], 0) - (double)constant_float(given[0], 0)) /
                     (double)constant_float(given[2], 0));
    else
        count = ceil(((double)constant_int(given[1], 0) - (double)constant_int(given[0], 0)) /
                     (double)constant_int(given[2], 0));
    if (!(count <= PTQ_MAX_ELEMENTS))
        return refuse_damaged(im, "it has no end, or more than 268435456 numbers");
    size = count > 0 ? (int64_t)count : 0;
    if (fold_constant(im, given[0]->type, 1, &size, &to))
        return 1;
    for (int64_t i = 0; i < size; i++)
        if (to->type == ONNX_FLOAT)
            ((float *)to->data)[i] =
                constant_float(given[0], 0) + (float)i * constant_float(given[2], 0);
        else
            set_int(to, (size_t)i,
                    (int64_t)((uint64_t)constant_int(given[0], 0) +
                              (uint64_t)i * (uint64_t)constant_int(given[2], 0)));
    return 0;
}

/* The number of images passes where 0 is added to it, or it is multiplied or divided by 1. */
static int batch_result(importer *im, const onnx_constant *a, size_t i, const onnx_constant *b,
                        size_t k, char op, int64_t *out) {
    int same = op == '+' || op == '-' ? 0 : 1;

    *out = ONNX_BATCH;
    if (is_batch(a, i) ? !is_batch(b, k) && constant_int(b, k) == same
                       : (op == '+' || op == '*') && constant_int(a, i) == same)
        return 0;
    return refuse_batch(im);
}

static int fold_integers(importer *im, int64_t x, int64_t y, char op, int64_t *out) {
    if (op == '/' && (y == 0 || (y == -1 && x == INT64_MIN)))
        return refuse_damaged(im, "it divides by 0, or out of range");
    *out = op == '+'   ? (int64_t)((uint64_t)x + (uint64_t)y)
           : op == '-' ? (int64_t)((uint64_t)x - (uint64_t)y)
           : op == '*' ? (int64_t)((uint64_t)x * (uint64_t)y)
                       : x / y;
    return 0;
}

static int fold_arithmetic(importer *im, char op) {
    int64_t dims[ONNX_MOST_RANK], left[ONNX_MOST_RANK], right[ONNX_MOST_RANK], number = 0;
    const onnx_constant *a, *b;
    onnx_constant *to;
    int rank;

    if (constant_input(im, 0, 1, &a) || constant_input(im, 1, 1, &b))
        return 1;
    if (a->type != b->type || onnx_width(a->type) < 4)
        return refuse(im,
                      "constants of %s are not computed with; cast both operands to FLOAT or "
                      "INT64",
                      onnx_type_name(a->type != b->type ? b->type : a->type));
    if (broadcast_shape(im, a, b->rank, b->dim, &rank, dims) ||
        fold_constant(im, a->type, rank, dims, &to))
        return 1;
    repeat_strides(a, rank, left);
    repeat_strides(b, rank, right);
    for (size_t i = 0; i < to->count; i++) {
        size_t k = strided(to, i, 0, left), l = strided(to, i, 0, right);

        if (a->type == ONNX_FLOAT) {
            float x = constant_float(a, k), y = constant_float(b, l);

            ((float *)to->data)[i] = op == '+'   ? x + y
                                     : op == '-' ? x - y
                                     : op == '*' ? x * y
                                                 : x / y;
            continue;
        }
        if (is_batch(a, k) || is_batch(b, l)
                ? batch_result(im, a, k, b, l, op, &number)
                : fold_integers(im, constant_int(a, k), constant_int(b, l), op, &number))
            return 1;
        set_int(to, i, number);
    }
    return 0;
}

static int fold_add(importer *im) { return fold_arithmetic(im, '+'); }

static int fold_sub(importer *im) { return fold_arithmetic(im, '-'); }

static int fold_mul(importer *im) { return fold_arithmetic(im, '*'); }

static int fold_div(importer *im) { return fold_arithmetic(im, '/'); }

/* A real number as the integer that it is cut off to. */
static int cut_off(importer *im, float number, int to, int64_t *out) {
    double most = to == ONNX_INT64 ? 9.2e18 : to == ONNX_INT32 ? 2147483647.0 : 255;

    if (to == ONNX_BOOL)
        *out = number < 0 || number > 0;
    else if (fabs((double)number) <= most)
        *out = (int64_t)number;
    else
        return refuse_damaged(im, "a constant does not fit the type that it is cast to");
    return 0;
}

/* Half and double precision are single here, truth values INT64. */
static int fold_cast(importer *im) {
    int64_t to = int_attribute(im, "to", 0), number;
    int real = to == ONNX_FLOAT || to == ONNX_FLOAT16 || to == ONNX_DOUBLE;
    const onnx_constant *from;
    onnx_constant *made;

    if (constant_input(im, 0, 1, &from))
        return 1;
    if (!real && to != ONNX_INT64 && to != ONNX_INT32 && to != ONNX_UINT8 && to != ONNX_INT8 &&
        to != ONNX_BOOL)
        return refuse(im, "conversion of a constant to %s is not supported; fold it with onnxsim",
                      onnx_type_name((int)to));
    if (is_open(from) && to != ONNX_INT64 && to != ONNX_INT32)
        return refuse_batch(im);
    if (fold_constant(im,
                      real              ? ONNX_FLOAT
                      : to == ONNX_BOOL ? ONNX_INT64
                                        : (int)to,
                      from->rank, from->dim, &made))
        return 1;
    for (size_t i = 0; i < from->count; i++) {
        float exact = from->type == ONNX_FLOAT || real ? constant_float(from, i) : 0;

        number = from->type == ONNX_FLOAT ? 0 : constant_int(from, i);
        if (real)
            ((float *)made->data)[i] =
                to == ONNX_FLOAT16 ? ptq_f16_to_f32(ptq_f32_to_f16(exact)) : exact;
        else if (from->type == ONNX_FLOAT && cut_off(im, exact, (int)to, &number))
            return 1;
        else
            set_int(made, i, to == ONNX_BOOL ? number != 0 : number);
    }
    return 0;
}

/* ---- The operators ---- */

/* `open`: how many of the inputs may hold the number of images, which they pass on. */
static const struct folded {
    const char *name;
    int (*fold)(importer *im);
    size_t open;
} operators[] = {
    {"Add", fold_add, 2},
    {"Cast", fold_cast, 1},
    {"Concat", fold_concat, SIZE_MAX},
    {"ConstantOfShape", fold_constant_of_shape, 0},
    {"Div", fold_div, 2},
    {"Expand", fold_expand, 1},
    {"Gather", fold_gather, 1},
    {"Mul", fold_mul, 2},
    {"Range", fold_range, 0},
    {"Reshape", fold_reshape, 1},
    {"Slice", fold_slice, 1},
    {"Squeeze", fold_squeeze, 1},
    {"Sub", fold_sub, 2},
    {"Transpose", fold_transpose, 1},
    {"Unsqueeze", fold_unsqueeze, 1},
};

static const struct folded *find_folded(const char *op) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (strcmp(op, operators[i].name) == 0)
            return &operators[i];
    return NULL;
}

int is_folded(const char *op) { return find_folded(op) != NULL; }

int fold_node(importer *im) {
    const struct folded *found = find_folded(text_or(im->at->op_type, "?"));
    int open = 0;

    if (!found || !im->at->n_input)
        return -1;
    for (size_t i = 0; i < im->at->n_input; i++) {
        const value *from = input_of(im, i);

        if (has_input(im->at, i) && (!from || from->state != STATE_CONSTANT))
            return -1;
        open |= from && from->constant.open;
        if (from && i >= found->open && is_open(&from->constant))
            return refuse_batch(im);
    }
    if (found->fold(im))
        return 1;
    output_of(im, 0)->constant.open = open;
    output_of(im, 0)->constant.open = is_open(&output_of(im, 0)->constant);
    return 0;
}

#endif
