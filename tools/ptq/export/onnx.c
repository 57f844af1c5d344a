/* ptq models as ONNX graphs, for ptq export.

   Tensors and nodes keep the model's names. A tensor T that is coded is "T.codes" beside "T.scale"
   and "T.zero_point"; "T" itself is what it was before it was quantized. Layout is NCHW. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/onnx.h"

#ifdef PTQ_HAVE_onnx

#define OPSET 13
#define IR_VERSION 7
#define MICROSOFT "com.microsoft"

enum { MOST_INPUTS = 9, MOST_ATTRIBUTES = 8 };

/* Memory that lives as long as the export. */
typedef struct block {
    struct block *next;
    uint64_t data[]; /* aligned for all that is kept here */
} block;

/* A coded tensor: the names of its codes, scale and zero point. */
typedef struct coded {
    const char *codes, *scale, *zero_point;
} coded;

/* What stands for a node's result. */
typedef struct result {
    const char *real; /* NULL: codes only */
    coded q;          /* codes NULL: real numbers only */
    int rank;         /* 4, or 2 behind a dense layer */
} result;

typedef struct exporter {
    const ptq_model *model;
    int integer; /* QOperator form */
    int microsoft;
    block *blocks;
    result *results;
    Onnx__GraphProto graph;
    size_t nodes, constants; /* room in the graph's arrays */
} exporter;

/* ---- Memory ---- */

/* Zeroed memory. There is nothing sensible to do without. */
static void *grab(exporter *ex, size_t size) {
    block *made = calloc(1, sizeof *made + size);

    if (!made)
        exit(fail("no memory for the ONNX graph"));
    made->next = ex->blocks;
    ex->blocks = made;
    return made->data;
}

static char *text(exporter *ex, const char *format, ...) PRINTF_LIKE(2, 3);

static char *text(exporter *ex, const char *format, ...) {
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

static char *writable(const char *constant) {
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

/* Ends the inputs of a node; NULL by itself need not be a pointer. */
#define NO_MORE ((const char *)NULL)

/* Appends a node with one result and returns the result's name. Inputs end with NO_MORE; an empty
   one is left out. */
static const char *add_node(exporter *ex, Onnx__NodeProto **out, const char *op, const char *name,
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

/* The operators that ONNX Runtime adds to the standard. */
static void set_microsoft(exporter *ex, Onnx__NodeProto *node) {
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

static void add_int(exporter *ex, Onnx__NodeProto *node, const char *name, int64_t number) {
    Onnx__AttributeProto *made =
        add_attribute(ex, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);

    made->has_i = 1;
    made->i = number;
}

static void add_float(exporter *ex, Onnx__NodeProto *node, const char *name, float number) {
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

static void add_window(exporter *ex, Onnx__NodeProto *to, const ptq_node *node) {
    add_ints(ex, to, "kernel_shape", node->kernel, 2);
    add_ints(ex, to, "strides", node->stride, 2);
    add_ints(ex, to, "pads", node->pad, 4);
}

/* ---- Constants ---- */

/* A constant whose bytes stay where they are, little-endian. Returns its name. */
static const char *add_constant(exporter *ex, const char *name, int type, int rank, const int *dims,
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

/* Numbers are stored little-endian, whatever this machine is. */
static void put_le(uint8_t *to, uint32_t bits) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(bits >> (8 * i));
}

static const char *add_floats(exporter *ex, const char *name, int rank, const int *dims,
                              const float *from, size_t count) {
    uint8_t *bytes = grab(ex, 4 * count + 1);
    uint32_t bits;

    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, &from[i], sizeof bits);
        put_le(bytes + 4 * i, bits);
    }
    return add_constant(ex, name, ONNX_FLOAT, rank, dims, bytes);
}

static const char *add_int32s(exporter *ex, const char *name, const int32_t *from, int count) {
    uint8_t *bytes = grab(ex, 4 * (size_t)count + 1);

    for (int i = 0; i < count; i++)
        put_le(bytes + 4 * i, (uint32_t)from[i]);
    return add_constant(ex, name, ONNX_INT32, 1, &count, bytes);
}

static int code_type(ptq_type type) {
    return type == PTQ_TYPE_S8 || type == PTQ_TYPE_PACKED_S ? ONNX_INT8 : ONNX_UINT8;
}

static const char *add_code(exporter *ex, const char *name, ptq_type type, int32_t code) {
    uint8_t *byte = grab(ex, 1);

    *byte = (uint8_t)code;
    return add_constant(ex, name, code_type(type), 0, NULL, byte);
}

/* ---- Codes ---- */

static coded add_codes(exporter *ex, const char *name, const ptq_qparams *q) {
    coded made;

    made.codes = text(ex, "%s.codes", name);
    made.scale = add_floats(ex, text(ex, "%s.scale", name), 0, NULL, &q->scale, 1);
    made.zero_point = add_code(ex, text(ex, "%s.zero_point", name), q->type, q->zero_point);
    return made;
}

/* Lowest and highest code that a node stores: its width, and the clamp of its activation. */
static void clamp_range(const ptq_qparams *q, ptq_activation act, int32_t *low, int32_t *high) {
    ptq_code_range(q->type, q->bits, low, high);
    if (act != PTQ_ACTIVATION_NONE)
        *low = q->zero_point;
    if (act == PTQ_ACTIVATION_RELU6 && ptq_quantize(6, q) < *high)
        *high = ptq_quantize(6, q);
}

/* The name for codes that may still have to be clamped, to be given to clamp_codes. ONNX operators
   saturate at the ends of 8 bits; whatever lies further inside takes a Clip. */
static const char *raw_codes(exporter *ex, const coded *to, const ptq_qparams *q,
                             ptq_activation act) {
    int32_t low, high, bottom, top;

    clamp_range(q, act, &low, &high);
    ptq_code_range(q->type, 8, &bottom, &top);
    return low == bottom && high == top ? to->codes : text(ex, "%s.unclamped", to->codes);
}

static void clamp_codes(exporter *ex, const char *raw, const char *name, const coded *to,
                        const ptq_qparams *q, ptq_activation act) {
    int32_t low, high;
    const char *least, *most;

    if (raw == to->codes)
        return;
    clamp_range(q, act, &low, &high);
    least = add_code(ex, text(ex, "%s.least", to->codes), q->type, low);
    most = add_code(ex, text(ex, "%s.most", to->codes), q->type, high);
    add_node(ex, NULL, "Clip", name, to->codes, raw, least, most, NO_MORE);
}

/* Real numbers to the codes of tensor `name`, with a clamp where the width asks for one. */
static coded quantize(exporter *ex, const char *real, const char *name, const ptq_node *node,
                      const ptq_qparams *q) {
    coded made = add_codes(ex, name, q);
    const char *raw = raw_codes(ex, &made, q, PTQ_ACTIVATION_NONE);

    add_node(ex, NULL, "QuantizeLinear",
             node->op == PTQ_OP_QUANTIZE ? node->name : text(ex, "%s.quantize", name), raw, real,
             made.scale, made.zero_point, NO_MORE);
    clamp_codes(ex, raw, text(ex, "%s.clip", name), &made, q, PTQ_ACTIVATION_NONE);
    return made;
}

/* The node that computes a tensor of that name exists already. */
static int exists(const exporter *ex, const char *name) {
    for (size_t i = 0; i < ex->graph.n_node; i++)
        if (strcmp(ex->graph.node[i]->output[0], name) == 0)
            return 1;
    return 0;
}

static const char *dequantize(exporter *ex, const char *codes, const coded *q) {
    const char *made = text(ex, "%s.dequantized", codes);

    if (!exists(ex, made))
        add_node(ex, NULL, "DequantizeLinear", text(ex, "%s.dequantize", codes), made, codes,
                 q->scale, q->zero_point, NO_MORE);
    return made;
}

/* ---- Operands ---- */

/* The tensor with the rank that its reader needs: 2 for dense layers, 4 for everything over
   space. */
static const char *with_rank(exporter *ex, const char *name, const ptq_node *node, int has,
                             int rank) {
    const char *made = text(ex, rank == 2 ? "%s.flat" : "%s.spatial", name);
    uint8_t *bytes;
    const int four = 4;
    const int64_t dims[] = {0, node->shape[2], node->shape[0], node->shape[1]};

    if (has == rank || exists(ex, made))
        return has == rank ? name : made;
    if (rank == 2) {
        Onnx__NodeProto *flatten;

        add_node(ex, &flatten, "Flatten", made, made, name, NO_MORE);
        add_int(ex, flatten, "axis", 1);
        return made;
    }
    bytes = grab(ex, sizeof dims);
    for (int i = 0; i < 4; i++)
        put_le(bytes + 8 * i, (uint32_t)dims[i]);
    return add_node(ex, NULL, "Reshape", made, made, name,
                    add_constant(ex, text(ex, "%s.shape", made), ONNX_INT64, 1, &four, bytes),
                    NO_MORE);
}

/* Operand `node` of the model in codes, or in real numbers. */
static const char *codes_of(exporter *ex, int node, int rank) {
    const result *from = &ex->results[node];

    return with_rank(ex, from->q.codes, &ex->model->node[node], from->rank, rank);
}

static const char *real_of(exporter *ex, int node, int rank) {
    const result *from = &ex->results[node];

    if (from->q.codes)
        return dequantize(ex, codes_of(ex, node, rank), &from->q);
    return with_rank(ex, from->real, &ex->model->node[node], from->rank, rank);
}

static int is_coded(const ptq_node *node) { return node->q.type != PTQ_TYPE_F32; }

static int is_integer_weight(const ptq_tensor *weight) {
    return weight->rank && weight->type != PTQ_TYPE_F32 && weight->type != PTQ_TYPE_F16;
}

/* ---- Weights ---- */

/* O,I,H,W already; columns of a dense layer come from H,W,C order and go to C,H,W. */
static size_t column_source(const ptq_tensor *weight, const int *shape, size_t i) {
    size_t columns, pixels, o, k;

    if (weight->rank != 2 || shape[0] * shape[1] == 1)
        return i;
    columns = (size_t)weight->dim[1];
    pixels = (size_t)shape[0] * (size_t)shape[1];
    o = i / columns;
    k = i % columns;
    return o * columns + k % pixels * (size_t)shape[2] + k / pixels;
}

static const int *input_shape(const exporter *ex, const ptq_node *node) {
    return ex->model->node[node->input[0]].shape;
}

static const char *add_real_weight(exporter *ex, const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t count = ptq_tensor_elements(weight);
    const char *name = text(ex, "%s.weight", node->name);
    int half = weight->type == PTQ_TYPE_F16;
    float *numbers = grab(ex, count * sizeof *numbers);
    uint8_t *bytes;
    Onnx__NodeProto *cast;

    for (size_t i = 0; i < count; i++)
        numbers[i] = ptq_tensor_number(weight, column_source(weight, input_shape(ex, node), i));
    if (!half)
        return add_floats(ex, name, weight->rank, weight->dim, numbers, count);
    bytes = grab(ex, 2 * count);
    for (size_t i = 0; i < count; i++) {
        uint16_t bits = ptq_f32_to_f16(numbers[i]);

        bytes[2 * i] = (uint8_t)bits;
        bytes[2 * i + 1] = (uint8_t)(bits >> 8);
    }
    add_constant(ex, name, ONNX_FLOAT16, weight->rank, weight->dim, bytes);
    add_node(ex, &cast, "Cast", text(ex, "%s.cast", name), text(ex, "%s.float", name), name,
             NO_MORE);
    add_int(ex, cast, "to", ONNX_FLOAT);
    return cast->output[0];
}

/* Weight codes of any width in bytes, their scales and zero points. */
static coded add_coded_weight(exporter *ex, const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t count = ptq_tensor_elements(weight);
    int rank = weight->scales > 1, type = code_type(weight->type);
    uint8_t *bytes = grab(ex, count), *zeros = grab(ex, (size_t)weight->scales);
    coded made;

    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(int)ptq_tensor_number(weight,
                                                   column_source(weight, input_shape(ex, node), i));
    zeros[0] = (uint8_t)weight->zero_point; /* with more than one scale all are 0 */
    made.codes =
        add_constant(ex, text(ex, "%s.weight", node->name), type, weight->rank, weight->dim, bytes);
    made.scale = add_floats(ex, text(ex, "%s.weight_scale", node->name), rank, &weight->scales,
                            weight->scale, (size_t)weight->scales);
    made.zero_point = add_constant(ex, text(ex, "%s.weight_zero_point", node->name), type, rank,
                                   &weight->scales, zeros);
    return made;
}

static const char *add_bias(exporter *ex, const ptq_node *node) {
    const ptq_tensor *bias = &node->param[PTQ_PARAM_BIAS];
    const char *name = text(ex, "%s.bias", node->name);

    if (!bias->rank)
        return "";
    if (bias->type == PTQ_TYPE_S32)
        return add_int32s(ex, name, bias->data, bias->dim[0]);
    return add_floats(ex, name, 1, bias->dim, bias->data, (size_t)bias->dim[0]);
}

static const char *dequantize_weight(exporter *ex, const ptq_node *node) {
    coded weight = add_coded_weight(ex, node);
    Onnx__NodeProto *made;

    add_node(ex, &made, "DequantizeLinear", text(ex, "%s.weight_dequantize", node->name),
             text(ex, "%s.weight_real", node->name), weight.codes, weight.scale, weight.zero_point,
             NO_MORE);
    add_int(ex, made, "axis", 0);
    return made->output[0];
}

/* A bias of integers has the scale s_in * s_w. */
static const char *dequantize_bias(exporter *ex, const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const char *bias = add_bias(ex, node);
    float *scale = grab(ex, (size_t)weight->scales * sizeof *scale);
    Onnx__NodeProto *made;

    if (!*bias)
        return bias;
    for (int i = 0; i < weight->scales; i++)
        scale[i] = ex->model->node[node->input[0]].q.scale * weight->scale[i];
    add_node(ex, &made, "DequantizeLinear", text(ex, "%s_dequantize", bias),
             text(ex, "%s_real", bias), bias,
             add_floats(ex, text(ex, "%s_scale", bias), weight->scales > 1, &weight->scales, scale,
                        (size_t)weight->scales),
             NO_MORE);
    add_int(ex, made, "axis", 0);
    return made->output[0];
}

/* ---- Stages: what a node computes one after the other ---- */

/* The name of an activation's node and result; a model need not have given it one of its own. */
static const char *act_name(exporter *ex, const char *wanted, const char *before) {
    return strcmp(wanted, before) == 0 ? text(ex, "%s.act", before) : wanted;
}

/* ReLU as such, ReLU6 as a Clip. */
static const char *add_act(exporter *ex, ptq_activation act, const char *name, const char *from) {
    static const float bounds[] = {0, 6};

    if (act == PTQ_ACTIVATION_RELU)
        return add_node(ex, NULL, "Relu", name, name, from, NO_MORE);
    return add_node(ex, NULL, "Clip", name, name, from,
                    add_floats(ex, text(ex, "%s.min", name), 0, NULL, &bounds[0], 1),
                    add_floats(ex, text(ex, "%s.max", name), 0, NULL, &bounds[1], 1), NO_MORE);
}

/* Convolution or dense layer in float, or between DequantizeLinear and QuantizeLinear. Returns the
   name of the real result; `shown` is what it is called behind its activation. */
static const char *add_real_layer(exporter *ex, const ptq_node *node, const char *shown) {
    int conv = node->op == PTQ_OP_CONV2D,
        coded_weight = is_integer_weight(&node->param[PTQ_PARAM_WEIGHT]);
    const char *input = real_of(ex, node->input[0], conv ? 4 : 2), *made;
    const char *weight = coded_weight ? dequantize_weight(ex, node) : add_real_weight(ex, node);
    const char *bias = coded_weight ? dequantize_bias(ex, node) : add_bias(ex, node);
    Onnx__NodeProto *layer;

    made = add_node(ex, &layer, conv ? "Conv" : "Gemm", node->name, node->name, input, weight, bias,
                    NO_MORE);
    if (conv) {
        add_window(ex, layer, node);
        add_int(ex, layer, "group", node->groups);
    } else {
        add_int(ex, layer, "transB", 1);
    }
    return node->act ? add_act(ex, node->act, act_name(ex, shown, node->name), made) : made;
}

/* The same on integers throughout. Only QGemm can return real numbers: *out then has no codes, and
   the name of the result is returned. */
static const char *add_integer_layer(exporter *ex, const ptq_node *node, const ptq_qparams *q,
                                     const char *shown, coded *out) {
    int conv = node->op == PTQ_OP_CONV2D, has_codes = q->type != PTQ_TYPE_F32;
    const char *input = codes_of(ex, node->input[0], conv ? 4 : 2);
    const coded *in = &ex->results[node->input[0]].q;
    coded weight = add_coded_weight(ex, node), to = {node->name, "", ""};
    const char *bias = add_bias(ex, node), *raw;
    Onnx__NodeProto *layer;

    if (has_codes)
        to = add_codes(ex, shown, q);
    raw = has_codes ? raw_codes(ex, &to, q, node->act) : to.codes;
    if (conv) {
        add_node(ex, &layer, "QLinearConv", node->name, raw, input, in->scale, in->zero_point,
                 weight.codes, weight.scale, weight.zero_point, to.scale, to.zero_point, bias,
                 NO_MORE);
        add_window(ex, layer, node);
        add_int(ex, layer, "group", node->groups);
    } else {
        add_node(ex, &layer, "QGemm", node->name, raw, input, in->scale, in->zero_point,
                 weight.codes, weight.scale, weight.zero_point, bias, to.scale, to.zero_point,
                 NO_MORE);
        set_microsoft(ex, layer);
        add_int(ex, layer, "transB", 1);
    }
    out->codes = NULL;
    if (has_codes) {
        clamp_codes(ex, raw,
                    node->act ? act_name(ex, shown, node->name) : text(ex, "%s.clip", shown), &to,
                    q, node->act);
        *out = to;
        return NULL;
    }
    return node->act ? add_act(ex, node->act, act_name(ex, shown, node->name), raw) : raw;
}

/* "block1.add" of "block1.add.relu": what an addition was called before its activation fused. */
static const char *addition_name(exporter *ex, const ptq_node *node) {
    size_t length = strlen(node->out);
    const char *suffix = node->add_act == PTQ_ACTIVATION_RELU6 ? ".relu6" : ".relu";
    size_t tail = strlen(suffix);

    if (!node->add_act)
        return node->out;
    if (length > tail && strcmp(node->out + length - tail, suffix) == 0)
        return text(ex, "%.*s", (int)(length - tail), node->out);
    return text(ex, "%s.add", node->name);
}

/* a + b with an activation behind it, in real numbers. */
static const char *add_real_sum(exporter *ex, const char *name, const char *shown,
                                ptq_activation act, const char *a, const char *b) {
    const char *made = add_node(ex, NULL, "Add", name, name, a, b, NO_MORE);

    return act ? add_act(ex, act, act_name(ex, shown, name), made) : made;
}

/* The same on codes. */
static coded add_integer_sum(exporter *ex, const char *name, const char *shown, ptq_activation act,
                             const ptq_qparams *q, const coded *a, const coded *b) {
    coded made = add_codes(ex, shown, q);
    const char *raw = raw_codes(ex, &made, q, act);
    Onnx__NodeProto *sum;

    add_node(ex, &sum, "QLinearAdd", name, raw, a->codes, a->scale, a->zero_point, b->codes,
             b->scale, b->zero_point, made.scale, made.zero_point, NO_MORE);
    set_microsoft(ex, sum);
    clamp_codes(ex, raw, act ? act_name(ex, shown, name) : text(ex, "%s.clip", shown), &made, q,
                act);
    return made;
}

/* A convolution with its residual in QDQ form or in float. */
static void export_real_layer(exporter *ex, const ptq_node *node, result *to) {
    const char *shown = !node->residual ? node->out
                        : node->act     ? text(ex, "%s.relu", node->name)
                                        : node->name;
    const char *real = add_real_layer(ex, node, shown), *other;
    coded mid;

    if (!node->residual) {
        to->real = real;
        return;
    }
    if (node->mid.type != PTQ_TYPE_F32) {
        mid = quantize(ex, real, node->name, node, &node->mid);
        real = dequantize(ex, mid.codes, &mid);
    }
    other = real_of(ex, node->input[1], 4);
    to->real = add_real_sum(ex, addition_name(ex, node), node->out, node->add_act,
                            node->residual == PTQ_RESIDUAL_FIRST ? other : real,
                            node->residual == PTQ_RESIDUAL_FIRST ? real : other);
}

static void export_integer_layer(exporter *ex, const ptq_node *node, result *to) {
    const char *shown = node->residual ? node->name : node->out;
    coded mid, other;

    if (!node->residual) {
        to->real = add_integer_layer(ex, node, &node->q, shown, &to->q);
        return;
    }
    add_integer_layer(ex, node, &node->mid, shown, &mid);
    other = ex->results[node->input[1]].q;
    other.codes = codes_of(ex, node->input[1], 4);
    to->q = add_integer_sum(ex, addition_name(ex, node), node->out, node->add_act, &node->q,
                            node->residual == PTQ_RESIDUAL_FIRST ? &other : &mid,
                            node->residual == PTQ_RESIDUAL_FIRST ? &mid : &other);
}

/* ---- Nodes of the model ---- */

static void export_layer(exporter *ex, const ptq_node *node, result *to) {
    int integer = is_integer_weight(&node->param[PTQ_PARAM_WEIGHT]);

    to->rank = node->op == PTQ_OP_DENSE ? 2 : 4;
    if (ex->integer && integer)
        export_integer_layer(ex, node, to);
    else
        export_real_layer(ex, node, to);
}

static void export_add(exporter *ex, const ptq_node *node, result *to) {
    int a = node->input[0], b = node->input[1];
    const char *name = node->act ? text(ex, "%s", node->name) : node->out;
    coded first = ex->results[a].q, second = ex->results[b].q;

    to->rank = ex->results[a].rank;
    if (!ex->integer || !is_coded(node)) {
        to->real = add_real_sum(ex, name, node->out, node->act, real_of(ex, a, to->rank),
                                real_of(ex, b, to->rank));
        return;
    }
    second.codes = codes_of(ex, b, to->rank);
    to->q = add_integer_sum(ex, name, node->out, node->act, &node->q, &first, &second);
}

/* Averages on codes have operators of their own; ONNX's MaxPool works on codes as they are. */
static void export_integer_pool(exporter *ex, const ptq_node *node, result *to) {
    static const char *const name[] = {"MaxPool", "QLinearAveragePool", "QLinearGlobalAveragePool"};
    int kind = (int)node->op - PTQ_OP_MAX_POOL;
    const coded *in = &ex->results[node->input[0]].q;
    const char *input = codes_of(ex, node->input[0], 4), *raw;
    Onnx__NodeProto *pool;

    to->q = add_codes(ex, node->out, &node->q);
    if (kind == 0) {
        add_node(ex, &pool, name[kind], node->name, to->q.codes, input, NO_MORE);
        add_window(ex, pool, node);
        return;
    }
    raw = raw_codes(ex, &to->q, &node->q, PTQ_ACTIVATION_NONE);
    add_node(ex, &pool, name[kind], node->name, raw, input, in->scale, in->zero_point, to->q.scale,
             to->q.zero_point, NO_MORE);
    set_microsoft(ex, pool);
    if (kind == 1) {
        add_window(ex, pool, node);
        add_int(ex, pool, "count_include_pad", node->include_pad);
    }
    clamp_codes(ex, raw, text(ex, "%s.clip", node->name), &to->q, &node->q, PTQ_ACTIVATION_NONE);
}

static void export_pool(exporter *ex, const ptq_node *node, result *to) {
    static const char *const name[] = {"MaxPool", "AveragePool", "GlobalAveragePool"};
    Onnx__NodeProto *pool;

    to->rank = 4;
    if (ex->integer && is_coded(node)) {
        export_integer_pool(ex, node, to);
        return;
    }
    to->real = add_node(ex, &pool, name[node->op - PTQ_OP_MAX_POOL], node->name, node->name,
                        real_of(ex, node->input[0], 4), NO_MORE);
    if (node->op != PTQ_OP_GLOBAL_AVG_POOL)
        add_window(ex, pool, node);
    if (node->op == PTQ_OP_AVG_POOL)
        add_int(ex, pool, "count_include_pad", node->include_pad);
}

static void export_batch_norm(exporter *ex, const ptq_node *node, result *to) {
    static const char *const name[] = {"weight", "bias", "running_mean", "running_var"};
    const char *param[PTQ_PARAM_COUNT];
    Onnx__NodeProto *norm;

    to->rank = ex->results[node->input[0]].rank;
    for (int i = 0; i < PTQ_PARAM_COUNT; i++)
        param[i] = add_floats(ex, text(ex, "%s.%s", node->name, name[i]), 1, node->param[i].dim,
                              node->param[i].data, (size_t)node->param[i].dim[0]);
    to->real =
        add_node(ex, &norm, "BatchNormalization", node->name, node->name,
                 real_of(ex, node->input[0], to->rank), param[PTQ_PARAM_WEIGHT],
                 param[PTQ_PARAM_BIAS], param[PTQ_PARAM_MEAN], param[PTQ_PARAM_VARIANCE], NO_MORE);
    add_float(ex, norm, "epsilon", node->epsilon);
}

static void export_act(exporter *ex, const ptq_node *node, result *to) {
    to->rank = ex->results[node->input[0]].rank;
    to->real = add_act(ex, node->op == PTQ_OP_RELU ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6,
                       node->name, real_of(ex, node->input[0], to->rank));
}

static void export_softmax(exporter *ex, const ptq_node *node, result *to) {
    Onnx__NodeProto *softmax;

    to->rank = ex->results[node->input[0]].rank;
    to->real = add_node(ex, &softmax, "Softmax", node->name, node->name,
                        real_of(ex, node->input[0], to->rank), NO_MORE);
    add_int(ex, softmax, "axis", 1);
}

static void export_quantize(exporter *ex, const ptq_node *node, result *to) {
    int from = node->input[0];

    to->rank = ex->results[from].rank;
    to->real = add_node(ex, NULL, "Identity", text(ex, "%s.input", node->name), node->name,
                        real_of(ex, from, to->rank), NO_MORE);
}

static void export_dequantize(exporter *ex, const ptq_node *node, result *to) {
    const result *from = &ex->results[node->input[0]];

    to->rank = from->rank;
    to->real = add_node(ex, NULL, "DequantizeLinear", node->name, node->name, from->q.codes,
                        from->q.scale, from->q.zero_point, NO_MORE);
}

/* One step of preprocessing, x - mean or x / std, unless it changes nothing. */
static const char *preprocess(exporter *ex, const char *op, const char *what, const char *from,
                              const float *numbers, float neutral) {
    const ptq_node *input = &ex->model->node[0];
    const int dims[] = {1, input->shape[2], 1, 1};
    int changes = 0;

    for (int c = 0; c < input->shape[2] && c < PTQ_MAX_PIXEL_CHANNELS; c++)
        changes |= numbers[c] < neutral || numbers[c] > neutral;
    if (!changes)
        return from;
    return add_node(ex, NULL, op, text(ex, "%s.%s", input->name, what),
                    text(ex, "%s.minus_%s", from, what), from,
                    add_floats(ex, text(ex, "%s.%s", input->name, what), 4, dims, numbers,
                               (size_t)input->shape[2]),
                    NO_MORE);
}

static void export_input(exporter *ex, const ptq_node *node, result *to) {
    to->rank = 4;
    to->real = preprocess(ex, "Sub", "mean", node->name, ex->model->mean, 0);
    to->real = preprocess(ex, "Div", "std", to->real, ex->model->std, 1);
}

static int export_node(exporter *ex, int index) {
    const ptq_node *node = &ex->model->node[index];
    result *to = &ex->results[index];

    if (node->dynamic)
        return fail("node %s: its ranges are found at run time, which this export does not "
                    "write; quantize with fixed ranges (a preset other than dynamic)",
                    node->name);
    switch (node->op) {
    case PTQ_OP_INPUT:
        export_input(ex, node, to);
        break;
    case PTQ_OP_CONV2D:
    case PTQ_OP_DENSE:
        export_layer(ex, node, to);
        break;
    case PTQ_OP_BATCH_NORM:
        export_batch_norm(ex, node, to);
        break;
    case PTQ_OP_RELU:
    case PTQ_OP_RELU6:
        export_act(ex, node, to);
        break;
    case PTQ_OP_ADD:
        export_add(ex, node, to);
        break;
    case PTQ_OP_MAX_POOL:
    case PTQ_OP_AVG_POOL:
    case PTQ_OP_GLOBAL_AVG_POOL:
        export_pool(ex, node, to);
        break;
    case PTQ_OP_SOFTMAX:
        export_softmax(ex, node, to);
        break;
    case PTQ_OP_QUANTIZE:
        export_quantize(ex, node, to);
        break;
    case PTQ_OP_DEQUANTIZE:
        export_dequantize(ex, node, to);
        break;
    default:
        return fail("node %s: a %s has no counterpart in ONNX", node->name,
                    ptq_name(PTQ_NAMES_OP, node->op));
    }
    if (is_coded(node) && !to->q.codes)
        to->q = quantize(ex, to->real, node->out, node, &node->q);
    return 0;
}

/* ---- The file ---- */

/* N x C x H x W, or N x C. */
static Onnx__ValueInfoProto *describe(exporter *ex, const char *name, const ptq_node *node,
                                      int rank) {
    const int size[] = {0, node->shape[2], node->shape[0], node->shape[1]};
    Onnx__ValueInfoProto *made = grab(ex, sizeof *made);
    Onnx__TypeProto *type = grab(ex, sizeof *type);
    Onnx__TypeProto__Tensor *tensor = grab(ex, sizeof *tensor);
    Onnx__TensorShapeProto *shape = grab(ex, sizeof *shape);

    onnx__value_info_proto__init(made);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(shape);
    shape->dim = grab(ex, 4 * sizeof(void *));
    for (int i = 0; i < rank; i++) {
        Onnx__TensorShapeProto__Dimension *dim = grab(ex, sizeof *dim);

        onnx__tensor_shape_proto__dimension__init(dim);
        dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        dim->dim_value = size[i];
        if (i == 0) {
            dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            dim->dim_param = writable("N");
        }
        shape->dim[shape->n_dim++] = dim;
    }
    tensor->has_elem_type = 1;
    tensor->elem_type = ONNX_FLOAT;
    tensor->shape = shape;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    made->name = writable(name);
    made->type = type;
    return made;
}

/* The logits, and behind them the probabilities where the model has them. */
static void add_outputs(exporter *ex) {
    int logits = ptq_model_logits(ex->model), last = ex->model->nodes - 1;

    ex->graph.output = grab(ex, 2 * sizeof(void *));
    for (int i = logits;; i = last) {
        result *from = &ex->results[i];
        const char *name = from->q.codes ? real_of(ex, i, from->rank) : from->real;

        ex->graph.output[ex->graph.n_output++] =
            describe(ex, name, &ex->model->node[i], from->rank);
        if (i == last)
            break;
    }
}

static void add_metadata(exporter *ex, Onnx__ModelProto *onnx) {
    const ptq_model *model = ex->model;

    onnx->metadata_props = grab(ex, ((size_t)model->metas + 1) * sizeof(void *));
    for (int i = 0; i < model->metas; i++) {
        Onnx__StringStringEntryProto *entry = grab(ex, sizeof *entry);

        if (strcmp(model->meta[i].key, "self_test") == 0)
            continue;
        onnx__string_string_entry_proto__init(entry);
        entry->key = text(ex, "ptq.%s", model->meta[i].key);
        entry->value = model->meta[i].value;
        onnx->metadata_props[onnx->n_metadata_props++] = entry;
    }
}

static void add_opset(exporter *ex, Onnx__ModelProto *onnx, const char *domain, int64_t version) {
    Onnx__OperatorSetIdProto *made = grab(ex, sizeof *made);

    onnx__operator_set_id_proto__init(made);
    made->domain = writable(domain);
    made->has_version = 1;
    made->version = version;
    onnx->opset_import[onnx->n_opset_import++] = made;
}

static int write_file(exporter *ex, const char *path) {
    Onnx__ModelProto onnx = ONNX__MODEL_PROTO__INIT;
    uint8_t *bytes;
    ptq_error err;

    onnx.has_ir_version = 1;
    onnx.ir_version = IR_VERSION;
    onnx.producer_name = writable("ptq");
    onnx.producer_version = writable(ptq_version());
    onnx.opset_import = grab(ex, 2 * sizeof(void *));
    add_opset(ex, &onnx, "", OPSET);
    if (ex->microsoft)
        add_opset(ex, &onnx, MICROSOFT, 1);
    add_metadata(ex, &onnx);
    onnx.graph = &ex->graph;
    bytes = grab(ex, onnx__model_proto__get_packed_size(&onnx));
    if (ptq_file_write(path, bytes, onnx__model_proto__pack(&onnx, bytes), &err))
        return fail("%s", err.text);
    return 0;
}

static int export_graph(exporter *ex, const char *path) {
    const ptq_node *input = &ex->model->node[0];

    onnx__graph_proto__init(&ex->graph);
    ex->graph.name = writable("ptq");
    ex->graph.input = grab(ex, sizeof(void *));
    ex->graph.input[ex->graph.n_input++] = describe(ex, input->name, input, 4);
    ex->results = grab(ex, (size_t)ex->model->nodes * sizeof *ex->results);
    for (int i = 0; i < ex->model->nodes; i++)
        if (export_node(ex, i))
            return 1;
    add_outputs(ex);
    return write_file(ex, path);
}

static void free_blocks(exporter *ex) {
    while (ex->blocks) {
        block *next = ex->blocks->next;

        free(ex->blocks);
        ex->blocks = next;
    }
}

int export_onnx(const char *model_path, const char *out_path, const char *form) {
    exporter ex;
    ptq_model *model = NULL;
    ptq_error err;
    int status;

    memset(&ex, 0, sizeof ex);
    if (form && strcmp(form, "qdq") != 0 && strcmp(form, "qoperator") != 0)
        return fail("unknown form '%s'; choose qdq or qoperator", form);
    ex.integer = form && strcmp(form, "qoperator") == 0;
    if (ptq_model_load(model_path, NULL, &model, &err))
        return fail("%s", err.text);
    ex.model = model;
    status = export_graph(&ex, out_path);
    free_blocks(&ex);
    ptq_model_free(model);
    return status;
}

#else

int export_onnx(const char *model_path, const char *out_path, const char *form) {
    (void)model_path, (void)out_path, (void)form;
    return fail(ONNX_MISSING);
}

#endif
