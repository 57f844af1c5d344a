/* TensorFlow Lite files as bytes, from tensors and operators that were collected. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/tflite_export.h"
#include "shared/output.h"

/* As BuiltinOperator numbers them, with the kind of their options in BuiltinOptions and the
   versions from which on they take real numbers and int8. */
typedef struct kind {
    int code, options, version[2];
} kind;

static const kind kinds[KINDS] = {
    [ADD] = {0, 11, {1, 2}},           [AVERAGE_POOL] = {1, 5, {1, 2}},
    [CONV] = {3, 1, {1, 3}},           [DEPTHWISE] = {4, 2, {1, 3}},
    [DEQUANTIZE] = {6, 0, {1, 2}},     [DENSE] = {9, 8, {1, 4}},
    [MAX_POOL] = {17, 5, {1, 2}},      [RELU] = {19, 0, {1, 2}},
    [RELU6] = {21, 0, {1, 2}},         [RESHAPE] = {22, 17, {1, 1}},
    [SOFTMAX] = {25, 9, {1, 2}},       [PAD] = {34, 0, {1, 2}},
    [QUANTIZE] = {114, 0, {1, 1}},     [MEAN] = {40, 27, {1, 2}},
    [CONCATENATION] = {2, 10, {1, 2}}, [ELU] = {111, 0, {1, 1}},
    [GELU] = {150, 115, {1, 2}},       [HARD_SWISH] = {117, 0, {1, 1}},
    [LEAKY_RELU] = {98, 75, {1, 2}},   [LOGISTIC] = {14, 0, {1, 2}},
    [LOG_SOFTMAX] = {50, 36, {1, 2}},  [MUL] = {18, 21, {1, 2}},
    [PRELU] = {54, 0, {1, 1}},         [REDUCE_MAX] = {82, 27, {1, 2}},
    [RELU_N1_TO_1] = {20, 0, {1, 1}},  [TANH] = {28, 0, {1, 2}},
};

static void write_scales(writer *w, size_t at, const float *scale, int count, int64_t zero,
                         int axis) {
    size_t table = flat_new_table(&w->to, "0044004"), scales, zeros;

    flat_link(&w->to, at, table);
    flat_put(&w->to, flat_field(&w->to, table, 6), 4, axis);
    scales = flat_new_vector(&w->to, (size_t)count, 4, 4);
    flat_link(&w->to, flat_field(&w->to, table, 2), scales);
    zeros = flat_new_vector(&w->to, (size_t)count, 8, 8);
    flat_link(&w->to, flat_field(&w->to, table, 3), zeros);
    for (int i = 0; i < count; i++) {
        flat_put_real(&w->to, flat_element(scales, (size_t)i, 4), scale[i]);
        flat_put(&w->to, flat_element(zeros, (size_t)i, 8), 8, zero);
    }
}

/* The scales of a bias are those of its sums. */
static int write_quantization(writer *w, const tensor *t, size_t at) {
    const ptq_tensor *weight = t->from ? &t->from->param[PTQ_PARAM_WEIGHT] : NULL;
    float *scale;

    if (!weight) {
        write_scales(w, at, &t->q.scale, 1, t->q.zero_point, 0);
        return 0;
    }
    scale = malloc((size_t)weight->scales * sizeof *scale);
    if (!scale)
        return fail("no memory for the file");
    for (int i = 0; i < weight->scales; i++) {
        float in = w->model->node[t->from->input[0]].q.scale;

        scale[i] = t->type == INT32 ? in * weight->scale[i] : weight->scale[i];
    }
    write_scales(w, at, scale, weight->scales, 0, t->depthwise ? 3 : 0);
    free(scale);
    return 0;
}

/* Element i of what is written, in the order of the model's weights, O x I x KH x KW. */
static size_t source(const tensor *t, size_t i) {
    size_t height = (size_t)t->dim[1], width = (size_t)t->dim[2], last = (size_t)t->dim[3];
    size_t c, x, y, o;

    if (t->rank != 4)
        return i;
    c = i % last, x = i / last % width, y = i / last / width % height;
    o = i / last / width / height;
    return t->depthwise ? (c * height + y) * width + x : ((o * last + c) * height + y) * width + x;
}

static void write_numbers(writer *w, const tensor *t, size_t at) {
    size_t width = t->type == INT8 ? 1 : 4, count = 1, data;

    for (int i = 0; i < t->rank; i++)
        count *= (size_t)t->dim[i];
    data = flat_new_vector(&w->to, count * width, 1, 16);
    flat_link(&w->to, at, data);
    for (size_t i = 0; i < count; i++) {
        size_t to = flat_element(data, i, width);

        if (t->count)
            flat_put(&w->to, to, 4, t->integers[i]);
        else if (t->numbers && t->type == FLOAT32)
            flat_put_real(&w->to, to, ptq_tensor_number(t->numbers, source(t, i)));
        else if (t->numbers && t->type == INT32)
            flat_put(&w->to, to, 4, ((const int32_t *)t->numbers->data)[i]);
        else if (t->numbers)
            flat_put(&w->to, to, 1, (int64_t)ptq_tensor_number(t->numbers, source(t, i)));
    }
}

/* Tensor i is kept in buffer i + 1; buffer 0 is empty, as the format wants it. */
static int write_tensors(writer *w, size_t graph) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, (size_t)w->tensors, 4, 4);

    flat_link(to, flat_field(to, graph, 0), list);
    for (int i = 0; i < w->tensors; i++) {
        const tensor *t = &w->tensor[i];
        int coded = t->type == INT8 || (t->type == INT32 && t->from);
        size_t table = flat_new_table(to, coded ? "41444" : "4144");

        flat_link(to, flat_element(list, (size_t)i, 4), table);
        flat_put(to, flat_field(to, table, 1), 1, t->type);
        flat_put(to, flat_field(to, table, 2), 4, i + 1);
        flat_link(to, flat_field(to, table, 0), flat_new_integers(to, t->dim, (size_t)t->rank));
        flat_link(to, flat_field(to, table, 3), flat_new_text(to, t->name));
        if (coded && write_quantization(w, t, flat_field(to, table, 4)))
            return 1;
    }
    return 0;
}

/* Fields as the schema numbers them in the options of each kind; those of convolutions end in the
   dilation, which is left out where there is none. */
static const char *options_of(const operation *op, int dilated) {
    switch (op->kind) {
    case CONV:
        return dilated ? "144144" : "1441";
    case DEPTHWISE:
        return dilated ? "1444144" : "14441";
    case SOFTMAX:
    case LEAKY_RELU:
    case CONCATENATION:
        return "4";
    case DENSE:
    case ADD:
    case MUL:
    case MEAN:
    case REDUCE_MAX:
    case GELU:
        return "1";
    case RESHAPE:
    case LOG_SOFTMAX:
        return "";
    default:
        return "144441";
    }
}

static size_t write_options(writer *w, const operation *op) {
    flat_writer *to = &w->to;
    int dilated = op->dilation[0] > 1 || op->dilation[1] > 1;
    const char *fields = options_of(op, dilated);
    size_t table = flat_new_table(to, fields);
    int act =
        (int)strlen(fields) - 1 - (dilated && (op->kind == CONV || op->kind == DEPTHWISE) ? 2 : 0);

    if (op->kind == SOFTMAX || op->kind == LEAKY_RELU)
        flat_put_real(to, flat_field(to, table, 0), op->kind == SOFTMAX ? 1 : op->real);
    if (op->kind == DENSE || op->kind == ADD || op->kind == MUL)
        flat_put(to, flat_field(to, table, 0), 1, op->act);
    if (op->kind == MEAN || op->kind == REDUCE_MAX) /* keeps the dimensions, as 1 x 1 */
        flat_put(to, flat_field(to, table, 0), 1, 1);
    if (op->kind == GELU || op->kind == CONCATENATION)
        flat_put(to, flat_field(to, table, 0), op->kind == GELU ? 1 : 4, op->integer);
    if (fields[0] == 0 || fields[1] == 0)
        return table;
    flat_put(to, flat_field(to, table, 0), 1, op->padding);
    flat_put(to, flat_field(to, table, 1), 4, op->stride[1]);
    flat_put(to, flat_field(to, table, 2), 4, op->stride[0]);
    if (op->kind == DEPTHWISE)
        flat_put(to, flat_field(to, table, 3), 4, op->multiplier);
    if (op->kind == AVERAGE_POOL || op->kind == MAX_POOL) {
        flat_put(to, flat_field(to, table, 3), 4, op->window[1]);
        flat_put(to, flat_field(to, table, 4), 4, op->window[0]);
    }
    flat_put(to, flat_field(to, table, act), 1, op->act);
    for (int k = 0; k < 2 && act + 2 < (int)strlen(fields); k++)
        flat_put(to, flat_field(to, table, act + 1 + k), 4, op->dilation[1 - k]);
    return table;
}

static void write_operations(writer *w, size_t graph) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, (size_t)w->operations, 4, 4);

    flat_link(to, flat_field(to, graph, 3), list);
    for (int i = 0; i < w->operations; i++) {
        const operation *op = &w->operation[i];
        int options = kinds[op->kind].options;
        size_t table = flat_new_table(to, options ? "44414" : "444");

        flat_link(to, flat_element(list, (size_t)i, 4), table);
        flat_put(to, flat_field(to, table, 0), 4, op->kind);
        flat_link(to, flat_field(to, table, 1), flat_new_integers(to, op->in, (size_t)op->inputs));
        flat_link(to, flat_field(to, table, 2), flat_new_integers(to, &op->out, 1));
        if (options) {
            flat_put(to, flat_field(to, table, 3), 1, options);
            flat_link(to, flat_field(to, table, 4), write_options(w, op));
        }
    }
}

static void write_kinds(writer *w, size_t model) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, KINDS, 4, 4);

    flat_link(to, flat_field(to, model, 1), list);
    for (size_t i = 0; i < KINDS; i++) {
        size_t table = flat_new_table(to, "1044");

        flat_link(to, flat_element(list, i, 4), table);
        flat_put(to, flat_field(to, table, 0), 1, kinds[i].code);
        flat_put(to, flat_field(to, table, 2), 4, kinds[i].version[w->coded]);
        flat_put(to, flat_field(to, table, 3), 4, kinds[i].code);
    }
}

static int write_graph(writer *w, size_t model) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, 1, 4, 4), graph = flat_new_table(to, "44444");
    int results[PTQ_MAX_NODES] = {w->of[w->model->nodes - 1]}, count = 0, at;

    flat_link(to, flat_field(to, model, 2), list);
    flat_link(to, flat_element(list, 0, 4), graph);
    if (write_tensors(w, graph))
        return 1;
    flat_link(to, flat_field(to, graph, 1), flat_new_integers(to, &w->of[0], 1));
    while ((at = ptq_model_output(w->model, count + 1)) >= 0)
        results[count++] = w->of[at];
    flat_link(to, flat_field(to, graph, 2),
              flat_new_integers(to, results, count ? (size_t)count : 1));
    write_operations(w, graph);
    flat_link(to, flat_field(to, graph, 4), flat_new_text(to, "main"));
    return 0;
}

/* What the network alone does not say, for ptq import: each in a buffer behind those of tensors. */
static const char *const kept_metas[] = {"arithmetic", "class_names", "resize"};
enum { KEPT_MEAN, KEPT_STD, NUMBERS, KEPT = NUMBERS + sizeof kept_metas / sizeof *kept_metas };

static void write_metadata(writer *w, size_t model) {
    flat_writer *to = &w->to;
    size_t list = flat_new_vector(to, KEPT, 4, 4);

    flat_link(to, flat_field(to, model, 6), list);
    for (int i = 0; i < (int)KEPT; i++) {
        size_t table = flat_new_table(to, "44");
        char name[64];

        snprintf(name, sizeof name, "ptq.%s",
                 i == KEPT_MEAN  ? "mean"
                 : i == KEPT_STD ? "std"
                                 : kept_metas[i - NUMBERS]);
        flat_link(to, flat_element(list, (size_t)i, 4), table);
        flat_put(to, flat_field(to, table, 1), 4, w->tensors + 1 + i);
        flat_link(to, flat_field(to, table, 0), flat_new_text(to, name));
    }
}

static void write_kept(writer *w, int i, size_t at) {
    const char *text = i < NUMBERS ? NULL : ptq_model_get_meta(w->model, kept_metas[i - NUMBERS]);
    const float *numbers = i == KEPT_MEAN ? w->model->mean : w->model->std;
    size_t data;

    if (i >= NUMBERS) {
        flat_link(&w->to, at, flat_new_text(&w->to, text ? text : ""));
        return;
    }
    data = flat_new_vector(&w->to, 4 * PTQ_MAX_PIXEL_CHANNELS, 1, 16);
    flat_link(&w->to, at, data);
    for (size_t c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        flat_put_real(&w->to, flat_element(data, c, 4), numbers[c]);
}

static void write_buffers(writer *w, size_t model) {
    flat_writer *to = &w->to;
    int count = w->tensors + 1 + (int)KEPT;
    size_t list = flat_new_vector(to, (size_t)count, 4, 4);

    flat_link(to, flat_field(to, model, 4), list);
    for (int i = 0; i < count; i++) {
        const tensor *t = i && i <= w->tensors ? &w->tensor[i - 1] : NULL;
        int kept = i - w->tensors - 1;
        int constant = t && (t->count || t->numbers || (t->from && t->type != INT8));
        size_t table = flat_new_table(to, constant || kept >= 0 ? "4" : "");

        flat_link(to, flat_element(list, (size_t)i, 4), table);
        if (kept >= 0)
            write_kept(w, kept, flat_field(to, table, 0));
        else if (constant)
            write_numbers(w, t, flat_field(to, table, 0));
    }
}

int write_tflite(writer *w, const char *path) {
    flat_writer *to = &w->to;
    size_t model;
    ptq_error err;

    flat_begin(to, "TFL3");
    model = flat_new_table(to, "4444404");
    flat_link(to, FLAT_ROOT, model);
    flat_put(to, flat_field(to, model, 0), 4, 3);
    write_kinds(w, model);
    if (write_graph(w, model))
        return 1;
    flat_link(to, flat_field(to, model, 3), flat_new_text(to, "written by ptq"));
    write_metadata(w, model);
    write_buffers(w, model);
    if (to->failed)
        return fail("no memory for the file");
    return ptq_file_write(path, to->bytes, to->size, &err) ? fail("%s", err.text) : 0;
}
