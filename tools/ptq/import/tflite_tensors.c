/* The tensors of a TensorFlow Lite file: shapes, constants, scales. */
#include <stdlib.h>
#include <string.h>

#include "import/tflite_import.h"

/* Fields: see the schema. */
enum { MODEL_BUFFERS = 4, SUBGRAPH_TENSORS = 0, BUFFER_DATA = 0 };
enum {
    TENSOR_SHAPE,
    TENSOR_TYPE,
    TENSOR_BUFFER,
    TENSOR_NAME,
    TENSOR_QUANTIZATION,
    TENSOR_SPARSITY = 6
};
enum { QUANTIZATION_SCALE = 2, QUANTIZATION_ZERO_POINT, QUANTIZATION_AXIS = 6 };

size_t tflite_width(tflite_type type) {
    switch (type) {
    case TFLITE_FLOAT32:
    case TFLITE_INT32:
        return 4;
    case TFLITE_FLOAT16:
    case TFLITE_INT16:
        return 2;
    case TFLITE_UINT8:
    case TFLITE_INT8:
        return 1;
    case TFLITE_INT64:
        return 8;
    }
    return 0;
}

/* Dimensions are positive and their product fits an int: see read_shape. */
size_t tflite_elements(const tflite_tensor *tensor) {
    size_t n = 1;

    for (int i = 0; i < tensor->rank; i++)
        n *= (size_t)tensor->dim[i];
    return n;
}

/* Ranks that no operator here takes are left to whoever reads the tensor. */
static int read_shape(tflite_importer *im, flat_table table, int number, tflite_tensor *out) {
    flat_vector shape = flat_list(&im->file, table, TENSOR_SHAPE, 4);
    int64_t elements = 1;

    out->rank = shape.count > TFLITE_MOST_RANK ? -1 : (int)shape.count;
    for (int i = 0; i < out->rank; i++) {
        int64_t size = flat_integer_at(&im->file, shape, (size_t)i, 4);

        if (size < 1 || size > INT32_MAX / elements)
            return fail("%s: dimension %d of tensor %d is %lld; fix all sizes but the batch when "
                        "the file is made, and the batch to 1",
                        im->path, i, number, (long long)size);
        elements *= size;
        out->dim[i] = (int)size;
    }
    return 0;
}

static int read_data(tflite_importer *im, flat_table table, int number, tflite_tensor *out) {
    int64_t buffer = flat_integer(&im->file, table, TENSOR_BUFFER, 4, 0);
    size_t width = tflite_width(out->type);

    if (buffer < 0 || (size_t)buffer >= im->buffers.count)
        return fail("%s: tensor %d is kept in buffer %lld, and there are %zu", im->path, number,
                    (long long)buffer, im->buffers.count);
    out->data =
        flat_list(&im->file, flat_table_at(&im->file, im->buffers, (size_t)buffer), BUFFER_DATA, 1);
    if (out->data.count && out->rank >= 0 && width &&
        out->data.count / width != tflite_elements(out))
        return fail("%s: tensor %d has %zu elements, its buffer %zu bytes", im->path, number,
                    tflite_elements(out), out->data.count);
    return 0;
}

static int read_scales(tflite_importer *im, flat_table table, int number, tflite_tensor *out) {
    flat_table quantization = flat_child(&im->file, table, TENSOR_QUANTIZATION);

    out->scale = flat_list(&im->file, quantization, QUANTIZATION_SCALE, 4);
    out->zero_point = flat_list(&im->file, quantization, QUANTIZATION_ZERO_POINT, 8);
    out->axis = (int)flat_integer(&im->file, quantization, QUANTIZATION_AXIS, 4, 0);
    if (out->scale.count > 1 && (out->axis < 0 || out->axis >= out->rank ||
                                 out->scale.count != (size_t)out->dim[out->axis]))
        return fail("%s: tensor %d has %zu scales for its dimension %d", im->path, number,
                    out->scale.count, out->axis);
    if (out->zero_point.count && out->zero_point.count != out->scale.count &&
        out->zero_point.count != 1)
        return fail("%s: tensor %d has %zu scales and %zu zero points", im->path, number,
                    out->scale.count, out->zero_point.count);
    for (size_t i = 0; i < out->scale.count; i++) {
        float scale = flat_real_at(&im->file, out->scale, i);

        if (!(scale > 0 && scale < 1e30f))
            return fail("%s: scale %zu of tensor %d is %g; a scale is positive and finite",
                        im->path, i, number, (double)scale);
    }
    return 0;
}

int tflite_read_tensors(tflite_importer *im, flat_table model, flat_table subgraph) {
    im->buffers = flat_list(&im->file, model, MODEL_BUFFERS, 4);
    im->tensor_tables = flat_list(&im->file, subgraph, SUBGRAPH_TENSORS, 4);
    if (!im->tensor_tables.count || im->tensor_tables.count > TFLITE_MOST_TENSORS)
        return fail("%s: its graph has %zu tensors; 1 to %d can be imported", im->path,
                    im->tensor_tables.count, TFLITE_MOST_TENSORS);
    im->tensors = (int)im->tensor_tables.count;
    im->tensor = calloc((size_t)im->tensors, sizeof *im->tensor);
    if (!im->tensor)
        return fail("no memory to import %s", im->path);
    for (int i = 0; i < im->tensors; i++) {
        flat_table table = flat_table_at(&im->file, im->tensor_tables, (size_t)i);
        tflite_tensor *out = &im->tensor[i];

        out->type = (tflite_type)flat_integer(&im->file, table, TENSOR_TYPE, 1, TFLITE_FLOAT32);
        out->sparse = flat_child(&im->file, table, TENSOR_SPARSITY).at != 0;
        out->node = out->constant = -1;
        if (read_shape(im, table, i, out) || read_data(im, table, i, out) ||
            read_scales(im, table, i, out))
            return 1;
    }
    return 0;
}

int64_t tflite_code(tflite_importer *im, const tflite_tensor *tensor, size_t i) {
    int64_t code = flat_integer_at(&im->file, tensor->data, i, (int)tflite_width(tensor->type));

    return tensor->type == TFLITE_UINT8 ? code & 255 : code;
}

/* Which of the scales is for element i. */
static size_t scale_of(const tflite_tensor *tensor, size_t i) {
    size_t inner = 1;

    if (tensor->scale.count < 2)
        return 0;
    for (int k = tensor->axis + 1; k < tensor->rank; k++)
        inner *= (size_t)tensor->dim[k];
    return i / inner % (size_t)tensor->dim[tensor->axis];
}

float tflite_number(tflite_importer *im, const tflite_tensor *tensor, size_t i) {
    size_t k = scale_of(tensor, i), zeros = tensor->zero_point.count;
    int64_t zero = 0;

    if (tensor->type == TFLITE_FLOAT32)
        return flat_real_at(&im->file, tensor->data, i);
    if (tensor->type == TFLITE_FLOAT16)
        return ptq_f16_to_f32((uint16_t)flat_integer_at(&im->file, tensor->data, i, 2));
    if (!tensor->scale.count)
        return (float)tflite_code(im, tensor, i);
    if (zeros)
        zero = flat_integer_at(&im->file, tensor->zero_point, zeros > 1 ? k : 0, 8);
    return flat_real_at(&im->file, tensor->scale, k) *
           (float)((double)tflite_code(im, tensor, i) - (double)zero);
}

int tflite_qparams(tflite_importer *im, const tflite_tensor *tensor, ptq_qparams *out) {
    int64_t zero = 0;

    memset(out, 0, sizeof *out);
    out->type = PTQ_TYPE_F32;
    if (tensor->type != TFLITE_INT8 || tensor->scale.count != 1)
        return 0;
    if (tensor->zero_point.count)
        zero = flat_integer_at(&im->file, tensor->zero_point, 0, 8);
    if (zero < -128 || zero > 127)
        return 0;
    out->type = PTQ_TYPE_S8;
    out->bits = 8;
    out->scale = flat_real_at(&im->file, tensor->scale, 0);
    out->zero_point = (int32_t)zero;
    return 1;
}

void tflite_tensor_name(tflite_importer *im, int tensor, char *out, size_t size) {
    flat_text(&im->file, flat_table_at(&im->file, im->tensor_tables, (size_t)tensor), TENSOR_NAME,
              out, size);
}
