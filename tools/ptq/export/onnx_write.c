/* The building blocks of an ONNX graph in memory: texts, nodes with their attributes, constants. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "export/onnx_export.h"

#ifdef PTQ_HAVE_onnx

enum { MOST_INPUTS = 9, MOST_ATTRIBUTES = 8 };

/* ---- Memory ---- */

void *grab(exporter *ex, size_t size) {
    block *made = calloc(1, sizeof *made + size);

    if (!made)
        exit(fail("no memory for the ONNX graph"));
    made->next = ex->blocks;
    ex->blocks = made;
    return made->data;
}

void free_blocks(exporter *ex) {
    while (ex->blocks) {
        block *next = ex->blocks->next;

        free(ex->blocks);
        ex->blocks = next;
    }
}

char *make_text(exporter *ex, const char *format, ...) {
    va_list args;
    int length;
    char *made;

    va_start(args, format);
    length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    made = grab(ex, (size_t)length + 1);
    va_start(args, format);
    vsnprintf(made, (size_t)length + 1, format, args);
    va_end(args);
    return made;
}

char *writable(const char *constant) {
    return (char *)(uintptr_t)constant; /* protobuf-c's structs know no const */
}

/* Makes room for one more pointer. */
static void *grow(exporter *ex, void *array, size_t count, size_t *room) {
    void *larger = array;

    if (count == *room) {
        *room = *room ? 2 * *room : 64;
        larger = grab(ex, *room * sizeof(void *));
        if (count)
            memcpy(larger, array, count * sizeof(void *));
    }
    return larger;
}

/* ---- Nodes ---- */

const char *add_node(exporter *ex, Onnx__NodeProto **out, const char *op, const char *name,
                     const char *made, ...) {
    Onnx__NodeProto *node = grab(ex, sizeof *node);
    const char *input;
    va_list inputs;

    onnx__node_proto__init(node);
    node->op_type = writable(op);
    node->name = writable(name);
    node->output = grab(ex, sizeof(char *));
    node->output[node->n_output++] = writable(made);
    node->input = grab(ex, MOST_INPUTS * sizeof(char *));
    va_start(inputs, made);
    while ((input = va_arg(inputs, const char *)) != NULL)
        node->input[node->n_input++] = writable(input);
    va_end(inputs);
    while (node->n_input && !*node->input[node->n_input - 1])
        node->n_input--;
    node->attribute = grab(ex, MOST_ATTRIBUTES * sizeof(void *));
    ex->graph.node = grow(ex, ex->graph.node, ex->graph.n_node, &ex->nodes);
    ex->graph.node[ex->graph.n_node++] = node;
    if (out)
        *out = node;
    return made;
}

void set_inputs(exporter *ex, Onnx__NodeProto *node, const char **inputs, size_t count) {
    node->input = grab(ex, count * sizeof(char *));
    for (node->n_input = 0; node->n_input < count; node->n_input++)
        node->input[node->n_input] = writable(inputs[node->n_input]);
}

void set_microsoft(exporter *ex, Onnx__NodeProto *node) {
    node->domain = writable(MICROSOFT);
    ex->microsoft = 1;
}

static Onnx__AttributeProto *add_attribute(exporter *ex, Onnx__NodeProto *node, const char *name,
                                           Onnx__AttributeProto__AttributeType type) {
    Onnx__AttributeProto *made = grab(ex, sizeof *made);

    onnx__attribute_proto__init(made);
    made->name = writable(name);
    made->has_type = 1;
    made->type = type;
    node->attribute[node->n_attribute++] = made;
    return made;
}

void add_int(exporter *ex, Onnx__NodeProto *node, const char *name, int64_t number) {
    Onnx__AttributeProto *made =
        add_attribute(ex, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);

    made->has_i = 1;
    made->i = number;
}

void add_float(exporter *ex, Onnx__NodeProto *node, const char *name, float number) {
    Onnx__AttributeProto *made =
        add_attribute(ex, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);

    made->has_f = 1;
    made->f = number;
}

static void add_ints(exporter *ex, Onnx__NodeProto *node, const char *name, const int *numbers,
                     size_t count) {
    Onnx__AttributeProto *made =
        add_attribute(ex, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);

    made->ints = grab(ex, count * sizeof(int64_t));
    made->n_ints = count;
    for (size_t i = 0; i < count; i++)
        made->ints[i] = numbers[i];
}

void add_window(exporter *ex, Onnx__NodeProto *to, const ptq_node *node) {
    add_ints(ex, to, "kernel_shape", node->kernel, 2);
    add_ints(ex, to, "strides", node->stride, 2);
    add_ints(ex, to, "pads", node->pad, 4);
    if (node->dilation[0] != 1 || node->dilation[1] != 1)
        add_ints(ex, to, "dilations", node->dilation, 2);
    if (node->ceil_mode)
        add_int(ex, to, "ceil_mode", 1);
}

/* ---- Constants ---- */

const char *add_constant(exporter *ex, const char *name, int type, int rank, const int *dims,
                         const void *data) {
    Onnx__TensorProto *made = grab(ex, sizeof *made);
    size_t count = 1;

    onnx__tensor_proto__init(made);
    made->name = writable(name);
    made->has_data_type = 1;
    made->data_type = type;
    made->dims = grab(ex, ONNX_MOST_RANK * sizeof(int64_t));
    for (int i = 0; i < rank; i++) {
        made->dims[made->n_dims++] = dims[i];
        count *= (size_t)dims[i];
    }
    made->has_raw_data = 1;
    made->raw_data.data = (uint8_t *)(uintptr_t)data;
    made->raw_data.len = count * onnx_width(type);
    ex->graph.initializer =
        grow(ex, ex->graph.initializer, ex->graph.n_initializer, &ex->constants);
    ex->graph.initializer[ex->graph.n_initializer++] = made;
    return name;
}

void put_le(uint8_t *to, uint64_t bits, int bytes) {
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(bits >> (8 * i));
}

const char *add_floats(exporter *ex, const char *name, int rank, const int *dims, const float *from,
                       size_t count) {
    uint8_t *bytes = grab(ex, 4 * count + 1);
    uint32_t bits;

    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, &from[i], sizeof bits);
        put_le(bytes + 4 * i, bits, 4);
    }
    return add_constant(ex, name, ONNX_FLOAT, rank, dims, bytes);
}

const char *add_int32s(exporter *ex, const char *name, const int32_t *from, int count) {
    uint8_t *bytes = grab(ex, 4 * (size_t)count + 1);

    for (int i = 0; i < count; i++)
        put_le(bytes + 4 * i, (uint32_t)from[i], 4);
    return add_constant(ex, name, ONNX_INT32, 1, &count, bytes);
}

const char *add_code(exporter *ex, const char *name, ptq_type type, int32_t code) {
    uint8_t *byte = grab(ex, 1);

    *byte = (uint8_t)code;
    return add_constant(ex, name, onnx_code_type(type), 0, NULL, byte);
}

#endif
