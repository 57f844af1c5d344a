/* Constants of an ONNX graph: brought into memory, dequantized, folded; and the operators that make
   one or pass on what they get. */
#include <assert.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* ---- Constants ---- */

int64_t constant_int(const onnx_constant *from, size_t i) {
    switch (from->type) {
    case ONNX_INT64:
        return ((const int64_t *)from->data)[i];
    case ONNX_INT32:
        return ((const int32_t *)from->data)[i];
    case ONNX_INT8:
        return ((const int8_t *)from->data)[i];
    default:
        return ((const uint8_t *)from->data)[i];
    }
}

float constant_float(const onnx_constant *from, size_t i) {
    return from->type == ONNX_FLOAT ? ((const float *)from->data)[i] : (float)constant_int(from, i);
}

int32_t constant_zero(const onnx_constant *zero_point, size_t i) {
    return zero_point ? (int32_t)constant_int(zero_point, i) : 0;
}

ptq_type constant_codes(const onnx_constant *zero_point, ptq_type otherwise) {
    if (!zero_point)
        return otherwise;
    return zero_point->type == ONNX_INT8 ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
}

static int load_dequantized(importer *im, value *from);

int load_constant(importer *im, value *from) {
    if (from->constant.data)
        return 0;
    return from->codes.numbers ? load_dequantized(im, from)
                               : onnx_load(&im->file, from->proto, from->name, &from->constant);
}

int constant_input(importer *im, size_t i, int needed, const onnx_constant **out) {
    value *from = input_of(im, i);

    *out = NULL;
    if (!from && !needed)
        return 0;
    if (!from || from->state != STATE_CONSTANT)
        return refuse(im, "its input %d must be a constant; fold constants with onnxsim",
                      (int)i + 1);
    if (load_constant(im, from))
        return 1;
    *out = &from->constant;
    return 0;
}

int integer_input(importer *im, size_t i, int needed, const onnx_constant **out) {
    if (constant_input(im, i, needed, out))
        return 1;
    if (!*out || (*out)->type != ONNX_FLOAT)
        return 0;
    return refuse(im, "its input %d must hold integers; cast it to INT64", (int)i + 1);
}

size_t inner_elements(const onnx_constant *tensor, int axis) {
    size_t inner = 1;

    for (int i = axis + 1; i < tensor->rank; i++)
        inner *= (size_t)tensor->dim[i];
    return inner;
}

int check_scales(const importer *im, constant_numbers *of) {
    const onnx_constant *tensor = of->numbers, *scale = of->scale, *zero_point = of->zero_point;

    if (of->axis < 0)
        of->axis += tensor->rank;
    if (scale->type != ONNX_FLOAT || scale->count == 0 || scale->rank > 1)
        return refuse_damaged(im, "its scale must be one number or a vector of them");
    if (zero_point && zero_point->count != scale->count)
        return refuse_damaged(im, "it has not as many zero points as scales");
    if (zero_point && (tensor->type == ONNX_FLOAT ? onnx_width(zero_point->type) != 1
                                                  : zero_point->type != tensor->type))
        return refuse_damaged(im, "its zero points are not of the type of its codes");
    if (scale->count > 1 && (of->axis < 0 || of->axis >= tensor->rank ||
                             tensor->dim[of->axis] != (int64_t)scale->count))
        return refuse_damaged(im, "its scales do not fit the axis that they are for");
    return 0;
}

size_t scale_index(const constant_numbers *of, size_t i) {
    if (of->scale->count == 1)
        return 0;
    return i / inner_elements(of->numbers, of->axis) % (size_t)of->numbers->dim[of->axis];
}

static int load_dequantized(importer *im, value *from) {
    const onnx_constant *codes = from->codes.numbers, *zero = from->codes.zero_point;
    const float *scale = from->codes.scale->data;
    float *to;

    if (onnx_create(&im->file, ONNX_FLOAT, codes->rank, codes->dim, from->name, &from->constant))
        return 1;
    to = from->constant.data;
    for (size_t i = 0; i < codes->count; i++) {
        size_t k = scale_index(&from->codes, i);

        to[i] = scale[k] * (float)(constant_int(codes, i) - constant_zero(zero, k));
    }
    return 0;
}

int fold_constant(importer *im, int type, int rank, const int64_t *dims, onnx_constant **out) {
    value *made = output_of(im, 0);

    made->state = STATE_CONSTANT;
    *out = &made->constant;
    return onnx_create(&im->file, type, rank, dims, made->name, &made->constant);
}

int fold_copy(importer *im, const onnx_constant *from, int rank, const int64_t *dims) {
    onnx_constant *to;

    if (fold_constant(im, from->type, rank, dims, &to))
        return 1;
    if (to->count != from->count)
        return refuse_damaged(im, "the new shape has another number of elements");
    memcpy(to->data, from->data, from->count * onnx_width(from->type));
    return 0;
}

/* ---- Operators that change nothing, constants ---- */

int import_identity(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *constant;

    if (!from || from->state != STATE_CONSTANT)
        return (from = padded_input(im, 0)) ? set_alias(im, from, from->view) : 1;
    if (!from->codes.numbers)
        return constant_input(im, 0, 1, &constant) ||
               fold_copy(im, constant, constant->rank, constant->dim);
    set_alias(im, from, from->view);
    output_of(im, 0)->constant.data = NULL; /* dequantized anew where that is needed */
    return 0;
}

int import_dropout(importer *im) {
    const onnx_constant *training;

    if (integer_input(im, 2, 0, &training))
        return 1;
    if (training && training->count && constant_int(training, 0))
        return refuse(im, "training mode is not supported; export the model in evaluation mode");
    return import_identity(im);
}

int import_cast(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t to = int_attribute(im, "to", 0);
    int is_real = to == ONNX_FLOAT || to == ONNX_FLOAT16;

    if (!from)
        return 1;
    if (to == ONNX_FLOAT16 && !im->half)
        im->half = im->at;
    if (from->state == STATE_CODES && from->node == 0 && im->byte_input && is_real) {
        im->byte_input = 0;
        set_alias(im, from, from->view);
        output_of(im, 0)->state = STATE_REAL;
        return 0;
    }
    if (!is_real || from->state == STATE_CODES)
        return refuse(
            im, "conversion to %s is not supported; leave it out, the model computes in FLOAT",
            onnx_type_name((int)to));
    return set_alias(im, from, from->view);
}

int import_constant(importer *im) {
    static const char *const spellings[] = {"value", "value_float", "value_int", "value_ints",
                                            "value_floats"};
    const Onnx__AttributeProto *given = NULL;
    onnx_constant *to;
    int is_int, single;
    int64_t count;

    for (int i = 0; i < 5 && !given; i++)
        given = find_attribute(im, spellings[i]);
    if (!given)
        return refuse(im, "its value is text, sparse or missing; store it as a tensor");
    if (given->t) {
        output_of(im, 0)->state = STATE_CONSTANT;
        output_of(im, 0)->proto = given->t;
        return 0;
    }
    is_int = given->n_ints || given->has_i;
    single = !given->n_ints && !given->n_floats;
    count = (int64_t)(is_int ? given->n_ints : given->n_floats);
    if (fold_constant(im, is_int ? ONNX_INT64 : ONNX_FLOAT, !single, &count, &to))
        return 1;
    if (is_int)
        memcpy(to->data, single ? &given->i : given->ints, to->count * sizeof(int64_t));
    else
        memcpy(to->data, single ? &given->f : given->floats, to->count * sizeof(float));
    return 0;
}

#endif
