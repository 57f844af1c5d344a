/* ONNX graphs to ptq models, for ptq import.

   Every ONNX tensor is either a constant, or the result of one of the model's nodes in a certain
   view. Views let layouts fold away: the model is NHWC throughout, and Transpose, Flatten, Reshape
   and Squeeze change only how the same numbers are to be read. A tensor's state says what it has to
   do with codes: QuantizeLinear and DequantizeLinear become attributes of the nodes between them
   wherever the model has integer arithmetic for these. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/onnx.h"

#ifdef PTQ_HAVE_onnx

#define MOST_NODES 65536
#define OLDEST_OPSET 7
#define NEWEST_OPSET 21

typedef Onnx__NodeProto onnx_node;

typedef enum view {
    VIEW_NCHW,
    VIEW_NHWC,
    VIEW_FLAT_CHW, /* N x K, flattened from NCHW */
    VIEW_FLAT_HWC  /* N x K, flattened from NHWC */
} view;

typedef enum state {
    STATE_UNKNOWN, /* no node has made it yet */
    STATE_CONSTANT,
    STATE_REAL,
    STATE_CODES,       /* the codes of its node */
    STATE_DEQUANTIZED, /* real numbers that stand for the codes of its node */
    STATE_PENDING      /* real result of integer arithmetic, on its way to QuantizeLinear */
} state;

typedef struct value {
    const char *name;
    state state;
    int uses;
    /* constants: */
    const Onnx__TensorProto *proto; /* where it still lies in the file */
    onnx_constant constant;         /* data NULL: not loaded yet */
    struct value *codes;            /* dequantized from this constant ... */
    struct value *scale;            /* ... with these */
    struct value *zero_point;       /* NULL: 0 */
    int axis;
    /* tensors: */
    int node;
    view view;
    int pad[4];             /* by Pad nodes: top, left, bottom, right */
    const char *dequantize; /* name of the DequantizeLinear node */
} value;

typedef struct importer {
    onnx_file file;
    const Onnx__GraphProto *graph;
    int opset;
    value *values;
    size_t count, capacity; /* capacity: power of two, more than twice the count */
    ptq_model *model;
    int real[PTQ_MAX_NODES]; /* dequantize node behind each coded node; 0: none yet */
    int byte_input;          /* the input is UINT8 and gets its scale from who reads it */
    const onnx_node *at;
} importer;

/* ---- Errors ---- */

static const char *text_or(const char *text, const char *otherwise) {
    return text && *text ? text : otherwise;
}

static const char *node_label(const onnx_node *node) {
    return text_or(node->name, node->n_output ? text_or(node->output[0], "?") : "?");
}

/* Every refusal names the file, the node, the operator and the reason. */
static int refuse(const importer *im, const char *reason) {
    return fail("%s: node '%.200s' (%.60s): %s", im->file.path, node_label(im->at),
                text_or(im->at->op_type, "?"), reason);
}

static int library_error(const importer *im, const char *text) {
    return im->at ? refuse(im, text) : fail("%s: %s", im->file.path, text);
}

/* ---- Values by name ---- */

static uint64_t hash_name(const char *name) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 1099511628211u;
    return hash;
}

static value *find_slot(const importer *im, const char *name) {
    size_t i = hash_name(name) & (im->capacity - 1);

    while (im->values[i].name && strcmp(im->values[i].name, name) != 0)
        i = (i + 1) & (im->capacity - 1);
    return &im->values[i];
}

static value *find_value(const importer *im, const char *name) {
    value *found = find_slot(im, name);

    return found->name ? found : NULL;
}

/* The value of that name, new or known. The table was made large enough for all names. */
static value *add_value(importer *im, const char *name) {
    value *slot = find_slot(im, name);

    if (!slot->name) {
        slot->name = name;
        slot->node = -1;
        im->count++;
    }
    return slot;
}

static size_t count_names(const Onnx__GraphProto *graph) {
    size_t names = graph->n_input + graph->n_output + graph->n_initializer;

    for (size_t i = 0; i < graph->n_node; i++)
        names += graph->node[i]->n_input + graph->node[i]->n_output;
    return names;
}

static int make_table(importer *im) {
    size_t names = count_names(im->graph);

    if (im->graph->n_node > MOST_NODES || names > 16 * MOST_NODES)
        return fail("%s: %zu nodes; at most %d are supported", im->file.path, im->graph->n_node,
                    MOST_NODES);
    for (im->capacity = 16; im->capacity < 2 * names + 2; im->capacity *= 2) {
    }
    im->values = calloc(im->capacity, sizeof *im->values);
    return im->values ? 0 : fail("no memory for %zu tensors", names);
}

/* ---- Node inputs, outputs, attributes ---- */

static int has_input(const onnx_node *node, size_t i) {
    return i < node->n_input && node->input[i] && *node->input[i];
}

/* Input i of the node at hand; NULL where there is none. */
static value *input_of(const importer *im, size_t i) {
    return has_input(im->at, i) ? find_value(im, im->at->input[i]) : NULL;
}

static value *output_of(importer *im, size_t i) { return add_value(im, im->at->output[i]); }

static const Onnx__AttributeProto *attribute(const importer *im, const char *name) {
    for (size_t i = 0; i < im->at->n_attribute; i++)
        if (strcmp(text_or(im->at->attribute[i]->name, ""), name) == 0)
            return im->at->attribute[i];
    return NULL;
}

static int64_t int_attribute(const importer *im, const char *name, int64_t otherwise) {
    const Onnx__AttributeProto *found = attribute(im, name);

    return found && found->has_i ? found->i : otherwise;
}

static float float_attribute(const importer *im, const char *name, float otherwise) {
    const Onnx__AttributeProto *found = attribute(im, name);

    return found && found->has_f ? found->f : otherwise;
}

static int is_text_attribute(const importer *im, const char *name, const char *text) {
    const Onnx__AttributeProto *found = attribute(im, name);

    return found && found->has_s && found->s.len == strlen(text) &&
           memcmp(found->s.data, text, found->s.len) == 0;
}

/* `count` integers, all `otherwise` where the attribute is missing. */
static int ints_attribute(const importer *im, const char *name, size_t count, int64_t otherwise,
                          int most, int *out) {
    const Onnx__AttributeProto *found = attribute(im, name);

    if (found && found->n_ints != count)
        return fail("%s: node '%.200s' (%.60s): %s has %zu numbers, expected are %zu; only two "
                    "dimensions of space are supported",
                    im->file.path, node_label(im->at), im->at->op_type, name, found->n_ints, count);
    for (size_t i = 0; i < count; i++) {
        int64_t number = found ? found->ints[i] : otherwise;

        if (number < 0 || number > most)
            return fail("%s: node '%.200s' (%.60s): %s must be 0 to %d", im->file.path,
                        node_label(im->at), im->at->op_type, name, most);
        out[i] = (int)number;
    }
    return 0;
}

/* ---- Constants ---- */

static float constant_float(const onnx_constant *from, size_t i) {
    switch (from->type) {
    case ONNX_FLOAT:
        return ((const float *)from->data)[i];
    case ONNX_INT64:
        return (float)((const int64_t *)from->data)[i];
    case ONNX_INT32:
        return (float)((const int32_t *)from->data)[i];
    case ONNX_INT8:
        return ((const int8_t *)from->data)[i];
    default:
        return ((const uint8_t *)from->data)[i];
    }
}

/* Of codes, axes, shapes: real numbers are refused before, as not all of them fit. */
static int64_t constant_int(const onnx_constant *from, size_t i) {
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

static int load_dequantized(importer *im, value *from);

/* Brings a constant into memory: from the file, or by dequantizing another one. */
static int load_constant(importer *im, value *from) {
    if (from->constant.data)
        return 0;
    return from->codes ? load_dequantized(im, from)
                       : onnx_load(&im->file, from->proto, from->name, &from->constant);
}

/* Constant input i: NULL in *out where it is missing and may be. */
static int constant_input(importer *im, size_t i, int needed, const onnx_constant **out) {
    value *from = input_of(im, i);
    char reason[160];

    *out = NULL;
    if (!from && !needed)
        return 0;
    if (!from || from->state != STATE_CONSTANT) {
        snprintf(reason, sizeof reason, "its input %d must be a constant", (int)i + 1);
        return refuse(im, reason);
    }
    if (load_constant(im, from))
        return 1;
    *out = &from->constant;
    return 0;
}

/* Constant input i of whole numbers. */
static int integer_input(importer *im, size_t i, int needed, const onnx_constant **out) {
    char reason[160];

    if (constant_input(im, i, needed, out))
        return 1;
    if (!*out || (*out)->type != ONNX_FLOAT)
        return 0;
    snprintf(reason, sizeof reason, "its input %d must hold integers", (int)i + 1);
    return refuse(im, reason);
}

/* How many elements lie between two steps along an axis. */
static size_t inner_elements(const onnx_constant *tensor, int axis) {
    size_t inner = 1;

    for (int i = axis + 1; i < tensor->rank; i++)
        inner *= (size_t)tensor->dim[i];
    return inner;
}

/* The scale's index for element i: 0, or the position along the axis. 1 if they do not fit. */
static int check_axis(const importer *im, const onnx_constant *tensor, const onnx_constant *scale,
                      const onnx_constant *zero_point, int *axis) {
    if (*axis < 0)
        *axis += tensor->rank;
    if (scale->type != ONNX_FLOAT || scale->count == 0 || scale->rank > 1)
        return refuse(im, "its scale must be one number or a vector of them");
    if (zero_point && zero_point->count != scale->count)
        return refuse(im, "it has not as many zero points as scales");
    if (zero_point && (tensor->type == ONNX_FLOAT ? onnx_width(zero_point->type) != 1
                                                  : zero_point->type != tensor->type))
        return refuse(im, "its zero points are not of the type of its codes");
    if (scale->count > 1 &&
        (*axis < 0 || *axis >= tensor->rank || tensor->dim[*axis] != (int64_t)scale->count))
        return refuse(im, "its scales do not fit the axis that they are for");
    return 0;
}

static size_t scale_index(const onnx_constant *tensor, const onnx_constant *scale, int axis,
                          size_t i) {
    return scale->count == 1 ? 0 : i / inner_elements(tensor, axis) % (size_t)tensor->dim[axis];
}

static int load_dequantized(importer *im, value *from) {
    const onnx_constant *codes = &from->codes->constant, *scale = &from->scale->constant;
    const onnx_constant *zero = from->zero_point ? &from->zero_point->constant : NULL;
    float *to;

    if (onnx_create(&im->file, ONNX_FLOAT, codes->rank, codes->dim, from->name, &from->constant))
        return 1;
    to = from->constant.data;
    for (size_t i = 0; i < codes->count; i++) {
        size_t k = scale_index(codes, scale, from->axis, i);
        int64_t code = constant_int(codes, i) - (zero ? constant_int(zero, k) : 0);

        to[i] = ((const float *)scale->data)[k] * (float)code;
    }
    return 0;
}

/* The constant result of the node at hand, to be filled. */
static int fold(importer *im, int type, int rank, const int64_t *dims, onnx_constant **out) {
    value *made = output_of(im, 0);

    made->state = STATE_CONSTANT;
    *out = &made->constant;
    return onnx_create(&im->file, type, rank, dims, made->name, &made->constant);
}

/* A constant with another shape or type, but the same elements. */
static int fold_copy(importer *im, const onnx_constant *from, int type, int rank,
                     const int64_t *dims) {
    onnx_constant *to;

    if (fold(im, type, rank, dims, &to))
        return 1;
    if (to->count != from->count)
        return refuse(im, "the new shape has another number of elements");
    if (type == from->type)
        memcpy(to->data, from->data, from->count * onnx_width(type));
    else if (type == ONNX_FLOAT)
        for (size_t i = 0; i < from->count; i++)
            ((float *)to->data)[i] = constant_float(from, i);
    else
        return refuse(im, "this conversion of a constant is not supported");
    return 0;
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
    if (fold(im, from->type, from->rank, dims, &to))
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

/* ---- Names ---- */

/* Legal characters only, at most what leaves room for a number behind it. */
static void clean_name(const char *from, char *to) {
    size_t used = 0;

    while (*from == '/' || *from == '.')
        from++;
    for (; *from && used < PTQ_NAME_SIZE - 8; from++) {
        int legal = (*from >= 'a' && *from <= 'z') || (*from >= 'A' && *from <= 'Z') ||
                    (*from >= '0' && *from <= '9') || *from == '.' || *from == '_';

        to[used++] = legal ? *from : *from == '/' ? '.' : '_';
    }
    to[used] = 0;
    if (!used)
        strcpy(to, "node");
}

/* A legal name that the model does not have yet, from one that ONNX allows. */
static void make_name(const importer *im, const char *from, char name[PTQ_NAME_SIZE]) {
    size_t length;

    clean_name(from, name);
    length = strlen(name);
    for (int number = 2; ptq_model_find(im->model, name) >= 0; number++)
        snprintf(name + length, PTQ_NAME_SIZE - length, "_%d", number);
}

/* What a layer is called: by its weight if that is called "NAME.weight" as in PyTorch, which
   generates the names of nodes; else by the node; else by the result. */
static void layer_name(const importer *im, const value *weight, char name[PTQ_NAME_SIZE]) {
    static const char suffix[] = ".weight";
    size_t length = weight ? strlen(weight->name) : 0, tail = sizeof suffix - 1;
    char stem[PTQ_NAME_SIZE];

    if (length > tail && length - tail < sizeof stem &&
        strcmp(weight->name + length - tail, suffix) == 0) {
        memcpy(stem, weight->name, length - tail);
        stem[length - tail] = 0;
        make_name(im, stem, name);
    } else {
        make_name(im, node_label(im->at), name);
    }
}

/* ---- Results ---- */

/* The result of the node at hand: node `index` of the model, or an error of the builder. */
static int finish(importer *im, int index, view shown, state how) {
    value *made;

    if (index < 0)
        return library_error(im, im->model->error.text);
    made = output_of(im, 0);
    made->state = how;
    made->node = index;
    made->view = shown;
    return 0;
}

/* The same tensor under another name. */
static int alias(importer *im, const value *from, view shown) {
    value *made = output_of(im, 0);
    const char *name = made->name;
    int uses = made->uses;

    *made = *from;
    made->name = name;
    made->uses = uses > from->uses ? uses : from->uses; /* more than one reader of either */
    made->view = shown;
    return 0;
}

static const int *shape_of(const importer *im, const value *from) {
    return im->model->node[from->node].shape;
}

static int is_pixel(const importer *im, const value *from) {
    return shape_of(im, from)[0] == 1 && shape_of(im, from)[1] == 1;
}

static int is_padded(const value *from) {
    return from->pad[0] || from->pad[1] || from->pad[2] || from->pad[3];
}

/* Tensor input i, not a constant; padded is fine. */
static value *padded_input(importer *im, size_t i) {
    value *from = input_of(im, i);

    if (!from)
        refuse(im, "an input is missing");
    else if (from->state == STATE_CONSTANT)
        refuse(im, "an input is a constant where a tensor is expected");
    else if (from->state == STATE_UNKNOWN)
        refuse(im, "it reads a tensor that no earlier node makes: the graph is cyclic, not sorted "
                   "or incomplete");
    else
        return from;
    return NULL;
}

/* The same where no padding may be left to do. */
static value *tensor_input(importer *im, size_t i) {
    value *from = padded_input(im, i);

    if (!from || !is_padded(from))
        return from;
    refuse(im, "Pad is supported in front of Conv and AveragePool only");
    return NULL;
}

static int needs_nchw(const importer *im, const value *from) {
    if (from->view == VIEW_NCHW || is_pixel(im, from))
        return 0;
    return refuse(im, "it needs its input as N x C x H x W");
}

/* The name for a dequantize node, "NAME.dequantize" where the file had none. */
static int add_dequantize(importer *im, const value *from) {
    char wanted[2 * PTQ_NAME_SIZE], name[PTQ_NAME_SIZE];

    snprintf(wanted, sizeof wanted, "%s.dequantize", im->model->node[from->node].out);
    make_name(im, from->dequantize ? from->dequantize : wanted, name);
    return ptq_add_op(im->model, PTQ_OP_DEQUANTIZE, name, from->node);
}

/* The model's node that has the tensor in real numbers; -1 after an error. */
static int real_node(importer *im, const value *from) {
    const ptq_node *node = &im->model->node[from->node];

    switch (from->state) {
    case STATE_REAL:
        if (node->q.type == PTQ_TYPE_F32)
            return from->node;
        return refuse(im, "a tensor is read both before and after it is quantized"), -1;
    case STATE_PENDING:
        if (node->op == PTQ_OP_DENSE && node->q.type == PTQ_TYPE_F32)
            return from->node;
        return refuse(im, "its input is the result of integer arithmetic, but was not quantized"),
               -1;
    case STATE_DEQUANTIZED:
        if (!im->real[from->node]) {
            int index = add_dequantize(im, from);

            if (index < 0)
                return library_error(im, im->model->error.text), -1;
            im->real[from->node] = index;
        }
        return im->real[from->node];
    default:
        return refuse(im, "it gets codes where it needs real numbers"), -1;
    }
}

static int make_tensor(const importer *im, ptq_type type, int rank, const int *dims,
                       ptq_tensor *out) {
    ptq_error err;

    if (ptq_tensor_create(out, type, 32, rank, dims, NULL, &err))
        return library_error(im, err.text);
    return 0;
}

/* Copies a constant of `count` numbers into a vector parameter. */
static int set_vector(importer *im, int index, int param, const onnx_constant *from) {
    ptq_node *node = &im->model->node[index];
    int count = node->shape[2];
    float *to;

    if (from->count != (size_t)count && from->count != 1)
        return refuse(im, "a parameter has not as many elements as there are channels");
    if (make_tensor(im, PTQ_TYPE_F32, 1, &count, &node->param[param]))
        return 1;
    to = node->param[param].data;
    for (int i = 0; i < count; i++)
        to[i] = constant_float(from, from->count == 1 ? 0 : (size_t)i);
    return 0;
}

/* ---- Weights: real numbers or codes ---- */

/* A weight as O x K numbers with O first. Dense weights may lie the other way round, and their
   columns in another order than the model's. */
typedef struct weights {
    const onnx_constant *numbers;            /* FLOAT, INT8 or UINT8 */
    const onnx_constant *scale, *zero_point; /* of codes; NULL: 0 */
    int rank, dim[4];
    int swapped;      /* I x O */
    const int *order; /* shape of the input: columns come channel first; NULL: they fit */
} weights;

static size_t weight_source(const weights *from, int o, size_t k) {
    size_t columns = 1;

    for (int i = 1; i < from->rank; i++)
        columns *= (size_t)from->dim[i];
    if (from->order) { /* k counts in H, W, C order */
        size_t channels = (size_t)from->order[2], pixels = columns / channels;

        k = k % channels * pixels + k / channels;
    }
    return from->swapped ? k * (size_t)from->dim[0] + (size_t)o : (size_t)o * columns + k;
}

static int32_t weight_zero(const weights *from, size_t k) {
    return from->zero_point ? (int32_t)constant_int(from->zero_point, k) : 0;
}

/* u8 codes with a scale for each channel and the zero point 128 everywhere are s8 codes in another
   guise; other zero points than 0 there are not supported. */
static int weight_offset(const importer *im, const weights *from, int *offset) {
    *offset = 0;
    if (from->scale->count == 1)
        return 0;
    if (from->numbers->type == ONNX_UINT8)
        *offset = 128;
    for (size_t k = 0; k < from->scale->count; k++)
        if (weight_zero(from, k) != *offset)
            return refuse(im,
                          "weights with a scale for each channel must be symmetric: zero points "
                          "0 (INT8) or 128 (UINT8)");
    return 0;
}

static int set_codes(importer *im, const weights *from, ptq_tensor *out) {
    size_t count = from->numbers->count / (size_t)from->dim[0];
    int offset = 0;
    ptq_error err;

    if (weight_offset(im, from, &offset))
        return 1;
    if (make_tensor(im, from->numbers->type == ONNX_INT8 || offset ? PTQ_TYPE_S8 : PTQ_TYPE_U8,
                    from->rank, from->dim, out))
        return 1;
    for (int o = 0; o < from->dim[0]; o++)
        for (size_t k = 0; k < count; k++)
            ptq_tensor_set_code(out, (size_t)o * count + k,
                                (int32_t)constant_int(from->numbers, weight_source(from, o, k)) -
                                    offset);
    if (ptq_tensor_set_scale(out, from->scale->data, (int)from->scale->count,
                             from->scale->count == 1 ? weight_zero(from, 0) : 0, NULL, &err))
        return library_error(im, err.text);
    return 0;
}

static int set_numbers(importer *im, const weights *from, ptq_tensor *out) {
    size_t count = from->numbers->count / (size_t)from->dim[0];
    float *to;

    if (make_tensor(im, PTQ_TYPE_F32, from->rank, from->dim, out))
        return 1;
    to = out->data;
    for (int o = 0; o < from->dim[0]; o++)
        for (size_t k = 0; k < count; k++)
            *to++ = constant_float(from->numbers, weight_source(from, o, k));
    return 0;
}

static float input_weight_scale(const importer *im, int index, int channel) {
    const ptq_node *node = &im->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];

    return im->model->node[node->input[0]].q.scale *
           weight->scale[weight->scales > 1 ? channel : 0];
}

/* 1 if the codes of a bias have the scale that integer arithmetic needs. */
static int has_bias_scale(const importer *im, int index, const value *bias) {
    const onnx_constant *scale;

    if (!bias->codes || bias->codes->constant.type != ONNX_INT32)
        return 0;
    scale = &bias->scale->constant;
    if (scale->count != 1 && scale->count != (size_t)im->model->node[index].shape[2])
        return 0;
    for (size_t k = 0; k < scale->count && bias->zero_point; k++)
        if (constant_int(&bias->zero_point->constant, k) != 0)
            return 0;
    for (int c = 0; c < im->model->node[index].shape[2]; c++) {
        float have = ((const float *)scale->data)[scale->count == 1 ? 0 : c];
        float want = input_weight_scale(im, index, c);

        if (!(fabsf(have - want) <= 1e-5f * want))
            return 0;
    }
    return 1;
}

/* The bias of a node with integer weights. Codes of the right scale are taken as they are, real
   numbers rounded to that scale. */
static int set_integer_bias(importer *im, int index, value *bias) {
    ptq_node *node = &im->model->node[index];
    int count = node->shape[2], ready = has_bias_scale(im, index, bias);
    const onnx_constant *from = ready ? &bias->codes->constant : &bias->constant;
    int32_t *to;

    if (!ready && load_constant(im, bias))
        return 1;
    ready = from->type == ONNX_INT32;
    if (from->count != (size_t)count)
        return refuse(im, "its bias has not as many elements as there are channels");
    if (make_tensor(im, PTQ_TYPE_S32, 1, &count, &node->param[PTQ_PARAM_BIAS]))
        return 1;
    to = node->param[PTQ_PARAM_BIAS].data;
    for (int c = 0; c < count; c++) {
        double code = ready ? (double)constant_int(from, (size_t)c)
                            : nearbyint((double)constant_float(from, (size_t)c) /
                                        (double)input_weight_scale(im, index, c));

        if (!(fabs(code) <= 2147483647.0))
            return refuse(im,
                          "its bias does not fit 32 bits at the scale of its input and weights");
        to[c] = (int32_t)code;
    }
    return 0;
}

/* Fills weight and bias of a convolution or dense node; `bias` NULL: none. */
static int set_weights(importer *im, int index, const weights *from, value *bias) {
    ptq_tensor *weight;

    if (index < 0)
        return library_error(im, im->model->error.text);
    weight = &im->model->node[index].param[PTQ_PARAM_WEIGHT];
    if (from->scale ? set_codes(im, from, weight) : set_numbers(im, from, weight))
        return 1;
    if (!bias)
        return 0;
    if (from->scale)
        return set_integer_bias(im, index, bias);
    return load_constant(im, bias) || set_vector(im, index, PTQ_PARAM_BIAS, &bias->constant);
}

/* ---- Layers with weights ---- */

/* What a convolution or dense layer is made from, whichever operator describes it. */
typedef struct layer {
    value *input, *weight, *bias; /* bias NULL: none */
    weights w;
    int integer; /* computes on codes */
    int from;    /* the model's node that is its input */
} layer;

/* QDQ form and float: input, weight, bias. Integer arithmetic where input and weight are both
   dequantized from codes. */
static int read_layer(importer *im, layer *out) {
    memset(out, 0, sizeof *out);
    out->input = padded_input(im, 0);
    out->weight = input_of(im, 1);
    out->bias = input_of(im, 2);
    if (!out->input)
        return 1;
    if (!out->weight || out->weight->state != STATE_CONSTANT)
        return refuse(im, "its weights must be constant");
    if (out->bias && out->bias->state != STATE_CONSTANT)
        return refuse(im, "its bias must be constant");
    out->integer = out->input->state == STATE_DEQUANTIZED && out->weight->codes &&
                   onnx_width(out->weight->codes->constant.type) == 1;
    if (out->integer) {
        out->w.numbers = &out->weight->codes->constant;
        out->w.scale = &out->weight->scale->constant;
        out->w.zero_point = out->weight->zero_point ? &out->weight->zero_point->constant : NULL;
        out->from = out->input->node;
        return 0;
    }
    out->from = real_node(im, out->input);
    if (out->from < 0 || load_constant(im, out->weight))
        return 1;
    out->w.numbers = &out->weight->constant;
    return 0;
}

/* Codes with the scale and zero point that inputs `first` + 1 and + 2 give. */
static int read_qparams(importer *im, size_t first, ptq_type type, ptq_qparams *out) {
    const onnx_constant *scale, *zero;

    if (constant_input(im, first, 1, &scale) || constant_input(im, first + 1, 0, &zero))
        return 1;
    if (scale->count != 1 || scale->type != ONNX_FLOAT || (zero && zero->count != 1))
        return refuse(im, "activations must have one scale and one zero point");
    if (zero && zero->type != ONNX_UINT8 && zero->type != ONNX_INT8)
        return refuse(im, "its zero point is neither UINT8 nor INT8; codes must have 8 bits");
    out->type = !zero ? type : zero->type == ONNX_INT8 ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    out->bits = 8;
    out->scale = ((const float *)scale->data)[0];
    out->zero_point = zero ? (int32_t)constant_int(zero, 0) : 0;
    return 0;
}

static int same_codes(const ptq_qparams *a, const ptq_qparams *b) {
    return a->type == b->type && a->zero_point == b->zero_point && !(a->scale < b->scale) &&
           !(a->scale > b->scale);
}

/* A UINT8 input learns from its first reader what its codes stand for. The model's input is pixels;
   preprocessing is chosen so that their codes are the pixels themselves. */
static void adopt_input(importer *im, const ptq_qparams *q) {
    ptq_model *model = im->model;

    model->node[0].q = *q;
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++) {
        model->mean[c] = (float)q->zero_point;
        model->std[c] = 1 / q->scale;
    }
    im->byte_input = 0;
}

/* Codes that an operator reads as input `first`, with their scale and zero point behind it. */
static value *coded_input(importer *im, size_t first) {
    value *from = tensor_input(im, first);
    ptq_qparams q;

    if (!from)
        return NULL;
    if (from->state != STATE_CODES)
        return refuse(im, "it needs codes but gets real numbers"), NULL;
    if (read_qparams(im, first + 1, PTQ_TYPE_U8, &q))
        return NULL;
    if (from->node == 0 && im->byte_input && q.type == PTQ_TYPE_U8 && q.scale > 0)
        adopt_input(im, &q);
    if (!same_codes(&q, &im->model->node[from->node].q))
        return refuse(im, "it reads codes with another scale, zero point or type than they were "
                          "made with"),
               NULL;
    return from;
}

/* QOperator form: input, its scale and zero point, weight, its scale and zero point. */
static int read_coded_layer(importer *im, int bias, layer *out) {
    memset(out, 0, sizeof *out);
    out->input = coded_input(im, 0);
    if (!out->input || constant_input(im, 3, 1, &out->w.numbers) ||
        constant_input(im, 4, 1, &out->w.scale) || constant_input(im, 5, 0, &out->w.zero_point))
        return 1;
    out->weight = input_of(im, 3);
    out->bias = bias < 0 ? NULL : input_of(im, (size_t)bias);
    if (out->bias && out->bias->state != STATE_CONSTANT)
        return refuse(im, "its bias must be constant");
    if (out->w.numbers->type != ONNX_INT8 && out->w.numbers->type != ONNX_UINT8)
        return refuse(im, "its weights are neither INT8 nor UINT8");
    out->integer = 1;
    out->from = out->input->node;
    return 0;
}

static int check_weight_scales(const importer *im, const layer *of, int axis) {
    if (of->w.scale && of->w.scale->count > 1 && of->weight->codes && of->weight->axis != axis)
        return refuse(im, "the scales of its weights are not for its output channels");
    return of->w.scale && check_axis(im, of->w.numbers, of->w.scale, of->w.zero_point, &axis);
}

/* The window of a convolution or pool: kernel, stride, padding. */
typedef struct window {
    int kernel[2], stride[2], pad[4];
    ptq_padding padding;
} window;

/* TensorFlow's SAME; `lower`: an odd row goes to the top. */
static void pad_same(int size, int kernel, int stride, int lower, int *before, int *after) {
    int out = (size + stride - 1) / stride, total = (out - 1) * stride + kernel - size;

    total = total > 0 ? total : 0;
    *before = lower ? total - total / 2 : total / 2;
    *after = total - *before;
}

/* Prefers the names SAME and VALID to the numbers that they stand for. */
static void name_padding(const int *shape, window *w) {
    int same[4];

    pad_same(shape[0], w->kernel[0], w->stride[0], 0, &same[0], &same[2]);
    pad_same(shape[1], w->kernel[1], w->stride[1], 0, &same[1], &same[3]);
    w->padding = PTQ_PADDING_EXPLICIT;
    if (memcmp(same, w->pad, sizeof same) == 0)
        w->padding = PTQ_PADDING_SAME;
    else if (!w->pad[0] && !w->pad[1] && !w->pad[2] && !w->pad[3])
        w->padding = PTQ_PADDING_VALID;
}

static int read_padding(const importer *im, const value *from, window *w) {
    const int *shape = shape_of(im, from);
    int lower = is_text_attribute(im, "auto_pad", "SAME_LOWER"), own[4];

    if (lower || is_text_attribute(im, "auto_pad", "SAME_UPPER")) {
        if (is_padded(from))
            return refuse(im, "Pad in front of auto_pad is not supported");
        pad_same(shape[0], w->kernel[0], w->stride[0], lower, &w->pad[0], &w->pad[2]);
        pad_same(shape[1], w->kernel[1], w->stride[1], lower, &w->pad[1], &w->pad[3]);
    } else {
        if (ints_attribute(im, "pads", 4, 0, PTQ_MAX_KERNEL, own))
            return 1;
        for (int i = 0; i < 4; i++)
            w->pad[i] = own[i] + from->pad[i];
    }
    name_padding(shape, w);
    return 0;
}

static int read_window(const importer *im, const value *from, window *w) {
    int dilation[2];

    if (ints_attribute(im, "strides", 2, 1, PTQ_MAX_KERNEL, w->stride) ||
        ints_attribute(im, "dilations", 2, 1, PTQ_MAX_KERNEL, dilation))
        return 1;
    if (dilation[0] != 1 || dilation[1] != 1)
        return refuse(im, "dilation is not supported");
    if (!w->stride[0] || !w->stride[1] || !w->kernel[0] || !w->kernel[1])
        return refuse(im, "kernel and strides must be at least 1");
    return read_padding(im, from, w);
}

static int add_conv(importer *im, layer *of, int *index) {
    const onnx_constant *w = of->w.numbers;
    ptq_conv_options options;
    char name[PTQ_NAME_SIZE];
    window win;
    int64_t groups = int_attribute(im, "group", 1);

    if (w->rank != 4)
        return refuse(im, "only convolutions over two dimensions are supported");
    for (int i = 0; i < 4; i++) {
        if (w->dim[i] < 1 || (i > 1 && w->dim[i] > PTQ_MAX_KERNEL))
            return refuse(im, "its weights are empty, or its kernel is larger than 255");
        of->w.dim[i] = (int)w->dim[i];
    }
    of->w.rank = 4;
    win.kernel[0] = of->w.dim[2];
    win.kernel[1] = of->w.dim[3];
    if (needs_nchw(im, of->input) || read_window(im, of->input, &win))
        return 1;
    if (groups < 1 || groups > PTQ_MAX_ELEMENTS || groups * w->dim[1] != shape_of(im, of->input)[2])
        return refuse(im, "its weights do not fit the channels of its input");
    memset(&options, 0, sizeof options);
    options.channels = of->w.dim[0];
    options.kernel_h = win.kernel[0];
    options.kernel_w = win.kernel[1];
    options.stride_h = win.stride[0];
    options.stride_w = win.stride[1];
    options.padding = win.padding;
    memcpy(options.pad, win.pad, sizeof options.pad);
    options.groups = (int)groups;
    options.no_bias = !of->bias;
    layer_name(im, of->weight, name);
    *index = ptq_add_conv2d(im->model, name, of->from, &options);
    return check_weight_scales(im, of, 0) || set_weights(im, *index, &of->w, of->bias);
}

static int import_conv(importer *im) {
    layer of;
    int index = -1;

    if (read_layer(im, &of) || add_conv(im, &of, &index))
        return 1;
    return finish(im, index, VIEW_NCHW, of.integer ? STATE_PENDING : STATE_REAL);
}

/* Dense from a matrix of 2 dimensions, I x O or (`swapped` 0) O x I. */
static int add_dense(importer *im, layer *of, int swapped, int *index) {
    const onnx_constant *w = of->w.numbers;
    char name[PTQ_NAME_SIZE];
    const int *shape = shape_of(im, of->input);
    int inputs, outputs;

    if (w->rank != 2 || w->dim[0] < 1 || w->dim[1] < 1)
        return refuse(im, "its weights must be a matrix");
    if (is_padded(of->input))
        return refuse(im, "Pad is supported in front of Conv and AveragePool only");
    outputs = (int)w->dim[swapped];
    inputs = (int)w->dim[1 - swapped];
    if (of->input->view != VIEW_FLAT_CHW && of->input->view != VIEW_FLAT_HWC)
        return refuse(im, "it needs its input flattened to two dimensions");
    if ((int64_t)shape[0] * shape[1] * shape[2] != inputs)
        return refuse(im, "its weights do not fit the size of its input");
    of->w.rank = 2;
    of->w.dim[0] = outputs;
    of->w.dim[1] = inputs;
    of->w.swapped = swapped;
    of->w.order = of->input->view == VIEW_FLAT_CHW && !is_pixel(im, of->input) ? shape : NULL;
    layer_name(im, of->weight, name);
    if (check_weight_scales(im, of, swapped))
        return 1;
    *index = ptq_add_dense(im->model, name, of->from, outputs);
    if (*index >= 0 && !of->bias) { /* in a bare model, the builder's bias has no memory yet */
        im->model->node[*index].no_bias = 1;
        memset(&im->model->node[*index].param[PTQ_PARAM_BIAS], 0, sizeof(ptq_tensor));
    }
    /* the builder may have moved the nodes */
    of->w.order = of->w.order ? shape_of(im, of->input) : NULL;
    return set_weights(im, *index, &of->w, of->bias);
}

static int check_gemm(const importer *im) {
    if (int_attribute(im, "transA", 0) != 0)
        return refuse(im, "transA is not supported");
    if (float_attribute(im, "alpha", 1) != 1 || float_attribute(im, "beta", 1) != 1)
        return refuse(im, "alpha and beta other than 1 are not supported");
    return 0;
}

static int import_gemm(importer *im) {
    layer of;
    int index = -1;

    if (check_gemm(im) || read_layer(im, &of) ||
        add_dense(im, &of, int_attribute(im, "transB", 0) == 0, &index))
        return 1;
    return finish(im, index, VIEW_FLAT_HWC, of.integer ? STATE_PENDING : STATE_REAL);
}

static int import_matmul(importer *im) {
    layer of;
    int index = -1;

    if (read_layer(im, &of) || add_dense(im, &of, 1, &index))
        return 1;
    return finish(im, index, VIEW_FLAT_HWC, of.integer ? STATE_PENDING : STATE_REAL);
}

/* The result of an operator of the QOperator form: codes as inputs `first`, + 1 say. */
static int finish_codes(importer *im, int index, view shown, size_t first) {
    ptq_qparams q;

    if (read_qparams(im, first, PTQ_TYPE_U8, &q))
        return 1;
    if (index >= 0)
        im->model->node[index].q = q;
    return finish(im, index, shown, STATE_CODES);
}

static int import_qlinear_conv(importer *im) {
    layer of;
    int index = -1;

    return read_coded_layer(im, 8, &of) || add_conv(im, &of, &index) ||
           finish_codes(im, index, VIEW_NCHW, 6);
}

static int import_qlinear_matmul(importer *im) {
    layer of;
    int index = -1;

    return read_coded_layer(im, -1, &of) || add_dense(im, &of, 1, &index) ||
           finish_codes(im, index, VIEW_FLAT_HWC, 6);
}

/* Without a scale for the result this one returns real numbers. */
static int import_qgemm(importer *im) {
    layer of;
    int index = -1;

    if (check_gemm(im) || read_coded_layer(im, 6, &of) ||
        add_dense(im, &of, int_attribute(im, "transB", 0) == 0, &index))
        return 1;
    return has_input(im->at, 7) ? finish_codes(im, index, VIEW_FLAT_HWC, 7)
                                : finish(im, index, VIEW_FLAT_HWC, STATE_PENDING);
}

static int import_batch_norm(importer *im) {
    static const int param[] = {PTQ_PARAM_WEIGHT, PTQ_PARAM_BIAS, PTQ_PARAM_MEAN,
                                PTQ_PARAM_VARIANCE};
    const onnx_constant *from[4];
    value *input = tensor_input(im, 0);
    char name[PTQ_NAME_SIZE];
    int real, index;

    if (!input || needs_nchw(im, input) || (real = real_node(im, input)) < 0)
        return 1;
    if (int_attribute(im, "training_mode", 0) != 0 || int_attribute(im, "spatial", 1) != 1)
        return refuse(im, "training mode, and statistics for each pixel, are not supported");
    for (size_t i = 0; i < 4; i++)
        if (constant_input(im, i + 1, 1, &from[i]))
            return 1;
    layer_name(im, input_of(im, 1), name);
    index = ptq_add_batch_norm(im->model, name, real, float_attribute(im, "epsilon", 1e-5f));
    for (int i = 0; i < 4 && index >= 0; i++)
        if (set_vector(im, index, param[i], from[i]))
            return 1;
    return finish(im, index, input->view, STATE_REAL);
}

/* ---- Activations ---- */

/* 1 if an activation can become part of the node before it. */
static int takes_act(const importer *im, const value *from) {
    const ptq_node *node = &im->model->node[from->node];

    return from->uses == 1 && node->act == PTQ_ACTIVATION_NONE &&
           strcmp(node->out, node->name) == 0 &&
           (node->op == PTQ_OP_CONV2D || node->op == PTQ_OP_DENSE || node->op == PTQ_OP_ADD);
}

static int add_act(importer *im, ptq_activation act) {
    value *from = tensor_input(im, 0);
    char name[PTQ_NAME_SIZE];
    int index;

    if (!from)
        return 1;
    make_name(im, node_label(im->at), name);
    if (from->state == STATE_PENDING) {
        if (!takes_act(im, from))
            return refuse(im, "an activation between integer arithmetic and QuantizeLinear must be "
                              "the only reader of a Conv, Gemm or Add");
        im->model->node[from->node].act = act;
        memcpy(im->model->node[from->node].out, name, sizeof name);
        return alias(im, from, from->view);
    }
    index = from->state == STATE_REAL ? real_node(im, from) : from->node;
    if (index < 0)
        return 1;
    if (from->state == STATE_CODES)
        return refuse(im, "it gets codes where it needs real numbers");
    index =
        ptq_add_op(im->model, act == PTQ_ACTIVATION_RELU ? PTQ_OP_RELU : PTQ_OP_RELU6, name, index);
    if (index >= 0)
        im->model->node[index].q = im->model->node[from->node].q;
    return finish(im, index, from->view, from->state);
}

static int import_relu(importer *im) { return add_act(im, PTQ_ACTIVATION_RELU); }

/* One of Clip's bounds: an attribute before opset 11, an input since. */
static int read_bound(importer *im, const char *name, size_t input, float otherwise, float *out) {
    const onnx_constant *bound;

    *out = float_attribute(im, name, otherwise);
    if (constant_input(im, input, 0, &bound))
        return 1;
    if (bound && bound->count != 1)
        return refuse(im, "its bounds must be single numbers");
    if (bound)
        *out = constant_float(bound, 0);
    return 0;
}

/* The width of which `high` is the highest code; 0 if there is none. */
static int bits_below(ptq_type type, float high) {
    for (int bits = 2; bits <= 8; bits++) {
        int32_t low, top;

        ptq_code_range(type, bits, &low, &top);
        if ((float)top >= high && (float)top <= high)
            return bits;
    }
    return 0;
}

/* Clip on codes: fewer bits, an activation, or both. */
static int clip_codes(importer *im, const value *from, float low, float high) {
    ptq_node *node = &im->model->node[from->node];
    char name[PTQ_NAME_SIZE];
    int bits = bits_below(node->q.type, high);
    int32_t zero = node->q.zero_point, six = ptq_quantize(6, &node->q), bottom, top;

    make_name(im, node_label(im->at), name);
    ptq_code_range(node->q.type, bits ? bits : 8, &bottom, &top);
    if (!(low >= -128 && low <= high && high <= 255))
        return refuse(im, "its bounds are no codes");
    if (from->uses != 1 || node->op == PTQ_OP_INPUT)
        return refuse(im, "codes can only be clipped where a layer has made them");
    if (low > (float)bottom || !bits) {
        if ((int32_t)low != zero || (!bits && (int32_t)high != six) || !takes_act(im, from))
            return refuse(im, "on codes it can stand for ReLU, ReLU6 and fewer bits only");
        node->act = bits ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6;
        memcpy(node->out, name, sizeof name);
    }
    node->q.bits = bits ? bits : 8;
    return alias(im, from, from->view);
}

static int import_clip(importer *im) {
    value *from = tensor_input(im, 0);
    int coded = from && from->state == STATE_CODES;
    float low, high, most = coded ? 255 : HUGE_VALF;

    if (!from)
        return 1;
    if (coded && im->model->node[from->node].q.type == PTQ_TYPE_S8)
        most = 127;
    if (read_bound(im, "min", 1, coded ? -128 : -HUGE_VALF, &low) ||
        read_bound(im, "max", 2, most, &high))
        return 1;
    if (coded)
        return clip_codes(im, from, low, high);
    if (low < 0 || low > 0)
        return refuse(im, "only ReLU (0 and more) and ReLU6 (0 to 6) are supported");
    if (high >= 6 && high <= 6)
        return add_act(im, PTQ_ACTIVATION_RELU6);
    if (high < 1e30f)
        return refuse(im, "only ReLU (0 and more) and ReLU6 (0 to 6) are supported");
    return add_act(im, PTQ_ACTIVATION_RELU);
}

static int import_softmax(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t axis = int_attribute(im, "axis", im->opset < 13 ? 1 : -1);
    char name[PTQ_NAME_SIZE];
    int real, flat;

    if (!from || (real = real_node(im, from)) < 0)
        return 1;
    flat = is_pixel(im, from);
    /* Before opset 13 everything from the axis on was one vector. */
    if (axis != (from->view == VIEW_NHWC ? 3 : 1) && !(from->view == VIEW_NHWC && axis == -1) &&
        !(from->view >= VIEW_FLAT_CHW && axis == -1) && !(flat && axis == 1 && im->opset < 13))
        return refuse(im, "only softmax over the channels is supported");
    if (!flat && (im->opset < 13 || from->view >= VIEW_FLAT_CHW))
        return refuse(im, "only softmax over the channels is supported");
    make_name(im, node_label(im->at), name);
    return finish(im, ptq_add_op(im->model, PTQ_OP_SOFTMAX, name, real), from->view, STATE_REAL);
}

/* ---- Preprocessing: arithmetic with constants right behind the input ---- */

static int is_raw_input(const importer *im, const value *from) {
    return from && from->state == STATE_REAL && from->node == 0 && im->model->nodes == 1 &&
           from->uses == 1 && !is_padded(from);
}

/* Number i of a constant that is one number, or one for each channel in the tensor's view. */
static int channel_number(const importer *im, const value *from, const onnx_constant *numbers,
                          int channel, float *out) {
    int channels = shape_of(im, from)[2], axis = from->view == VIEW_NCHW ? 1 : 3;

    if (numbers->count == 1) {
        *out = constant_float(numbers, 0);
        return 0;
    }
    axis -= 4 - numbers->rank; /* shapes are aligned at their ends */
    if (numbers->count != (size_t)channels || axis < 0 || axis >= numbers->rank ||
        numbers->dim[axis] != channels)
        return refuse(im, "arithmetic on the input needs one number, or one for each channel");
    *out = constant_float(numbers, (size_t)channel);
    return 0;
}

/* x = (pixel - mean) / std, and now x + a, x - a, x * a or x / a. */
static int preprocess(importer *im, const value *from, const onnx_constant *numbers, char op) {
    int channels = shape_of(im, from)[2];
    ptq_model *model = im->model;
    float a = 0;

    if (channels > PTQ_MAX_PIXEL_CHANNELS)
        return refuse(im, "arithmetic on the input is supported for up to 16 channels");
    for (int c = 0; c < channels; c++) {
        if (channel_number(im, from, numbers, c, &a))
            return 1;
        if (op == '+' || op == '-')
            model->mean[c] += (op == '-' ? a : -a) * model->std[c];
        else
            model->std[c] = op == '/' ? model->std[c] * a : model->std[c] / a;
        if (!(model->std[c] > 0) || model->std[c] > 1e30f || !(fabsf(model->mean[c]) < 1e30f))
            return refuse(im, "arithmetic on the input must be finite and keep its sign");
    }
    return alias(im, from, from->view);
}

static int import_arithmetic(importer *im, char op) {
    value *from = input_of(im, 0);
    const onnx_constant *numbers;

    if (op == '*' && from && from->state == STATE_CONSTANT)
        from = input_of(im, 1);
    if (!is_raw_input(im, from))
        return refuse(im, "it is supported right behind the input only, as preprocessing");
    if (constant_input(im, from == input_of(im, 0), 1, &numbers))
        return 1;
    return preprocess(im, from, numbers, op);
}

static int import_sub(importer *im) { return import_arithmetic(im, '-'); }

static int import_mul(importer *im) { return import_arithmetic(im, '*'); }

static int import_div(importer *im) { return import_arithmetic(im, '/'); }

/* ---- Additions ---- */

/* A constant added to a convolution or dense layer that has no bias yet. */
static int add_bias(importer *im, value *from, value *bias) {
    ptq_node *node = &im->model->node[from->node];
    const onnx_constant *numbers;
    float first;

    if (load_constant(im, bias))
        return 1;
    numbers = &bias->constant;
    if (is_raw_input(im, from))
        return preprocess(im, from, numbers, '+');
    if ((node->op != PTQ_OP_CONV2D && node->op != PTQ_OP_DENSE) || !node->no_bias || node->act ||
        from->uses != 1 || (from->state != STATE_REAL && from->state != STATE_PENDING))
        return refuse(im, "a constant can be added to a Conv, Gemm or MatMul without a bias only");
    if (node->op == PTQ_OP_CONV2D && channel_number(im, from, numbers, 0, &first))
        return 1;
    if (numbers->count != 1 &&
        (numbers->count != (size_t)node->shape[2] || !numbers->rank ||
         (node->op == PTQ_OP_DENSE && numbers->dim[numbers->rank - 1] != node->shape[2])))
        return refuse(im, "the constant does not have one number for each channel");
    node->no_bias = 0;
    if (from->state == STATE_PENDING ? set_integer_bias(im, from->node, bias)
                                     : set_vector(im, from->node, PTQ_PARAM_BIAS, numbers))
        return 1;
    return alias(im, from, from->view);
}

static int check_views(const importer *im, const value *a, const value *b) {
    if (memcmp(shape_of(im, a), shape_of(im, b), 3 * sizeof(int)) != 0)
        return refuse(im, "its operands have different shapes; only equal ones can be added");
    if (a->view != b->view && !is_pixel(im, a))
        return refuse(im, "its operands lie in different layouts");
    return 0;
}

static int import_add(importer *im) {
    value *a = input_of(im, 0), *b = input_of(im, 1);
    char name[PTQ_NAME_SIZE];
    int coded, first, second;

    if (a && b && a->state == STATE_CONSTANT && b->state != STATE_CONSTANT)
        return (b = tensor_input(im, 1)) ? add_bias(im, b, a) : 1;
    if (!(a = tensor_input(im, 0)))
        return 1;
    if (b && b->state == STATE_CONSTANT)
        return add_bias(im, a, b);
    if (!(b = tensor_input(im, 1)) || check_views(im, a, b))
        return 1;
    coded = a->state == STATE_DEQUANTIZED && b->state == STATE_DEQUANTIZED;
    first = coded ? a->node : real_node(im, a);
    second = first < 0 ? -1 : coded ? b->node : real_node(im, b);
    if (second < 0)
        return 1;
    make_name(im, node_label(im->at), name);
    return finish(im, ptq_add_add(im->model, name, first, second), a->view,
                  coded ? STATE_PENDING : STATE_REAL);
}

static int import_qlinear_add(importer *im) {
    value *a = coded_input(im, 0), *b = a ? coded_input(im, 3) : NULL;
    char name[PTQ_NAME_SIZE];

    if (!b || check_views(im, a, b))
        return 1;
    make_name(im, node_label(im->at), name);
    return finish_codes(im, ptq_add_add(im->model, name, a->node, b->node), a->view, 6);
}

/* ---- Pools ---- */

static int read_pool(importer *im, const value *from, ptq_pool_options *options) {
    const int *shape = shape_of(im, from);
    window win;

    if (needs_nchw(im, from) ||
        ints_attribute(im, "kernel_shape", 2, 0, PTQ_MAX_KERNEL, win.kernel))
        return 1;
    if (read_window(im, from, &win))
        return 1;
    for (int i = 0; i < 2; i++)
        if (int_attribute(im, "ceil_mode", 0) &&
            (shape[i] + win.pad[i] + win.pad[i + 2] - win.kernel[i]) % win.stride[i] != 0)
            return refuse(im, "ceil_mode is not supported where it makes a difference");
    if (im->at->n_output > 1 && *text_or(im->at->output[1], ""))
        return refuse(im, "its second result is not supported");
    memset(options, 0, sizeof *options);
    options->kernel_h = win.kernel[0];
    options->kernel_w = win.kernel[1];
    options->stride_h = win.stride[0];
    options->stride_w = win.stride[1];
    options->padding = win.padding;
    memcpy(options->pad, win.pad, sizeof options->pad);
    return 0;
}

static int import_max_pool(importer *im) {
    value *from = tensor_input(im, 0);
    ptq_pool_options options;
    char name[PTQ_NAME_SIZE];
    int input, index, coded;

    if (!from || read_pool(im, from, &options))
        return 1;
    coded = from->state == STATE_CODES || from->state == STATE_DEQUANTIZED;
    if (coded && im->byte_input)
        return refuse(im, "it reads the input before anything says what its codes stand for");
    input = coded ? from->node : real_node(im, from);
    if (input < 0)
        return 1;
    make_name(im, node_label(im->at), name);
    index = ptq_add_pool(im->model, PTQ_OP_MAX_POOL, name, input, &options);
    if (index >= 0 && coded)
        im->model->node[index].q = im->model->node[input].q;
    return finish(im, index, VIEW_NCHW, from->state == STATE_PENDING ? STATE_REAL : from->state);
}

/* Reals or codes, as the operand of an average: its node, -1 after an error. */
static int average_operand(importer *im, const value *from, state *how) {
    *how = from->state == STATE_DEQUANTIZED ? STATE_PENDING : STATE_REAL;
    return *how == STATE_PENDING ? from->node : real_node(im, from);
}

static int add_average(importer *im, int input, const value *from,
                       const ptq_pool_options *options) {
    const int *shape = shape_of(im, from);
    char name[PTQ_NAME_SIZE];

    make_name(im, node_label(im->at), name);
    if (!options || (options->kernel_h == shape[0] && options->kernel_w == shape[1] &&
                     options->padding == PTQ_PADDING_VALID))
        return ptq_add_op(im->model, PTQ_OP_GLOBAL_AVG_POOL, name, input);
    return ptq_add_pool(im->model, PTQ_OP_AVG_POOL, name, input, options);
}

/* A Pad node in front adds zeros that count; its numbers are taken only where they alone pad. */
static int check_average_pad(const importer *im, const value *from, ptq_pool_options *options) {
    int own[4];

    options->include_pad = int_attribute(im, "count_include_pad", 0) != 0;
    if (!is_padded(from) || options->include_pad)
        return 0;
    if (ints_attribute(im, "pads", 4, 0, PTQ_MAX_KERNEL, own))
        return 1;
    if (own[0] || own[1] || own[2] || own[3])
        return refuse(im, "Pad in front of a pool with padding of its own is not supported");
    options->include_pad = 1;
    return 0;
}

static int import_average_pool(importer *im) {
    value *from = padded_input(im, 0);
    ptq_pool_options options;
    state how;
    int input;

    if (!from || read_pool(im, from, &options) || check_average_pad(im, from, &options) ||
        (input = average_operand(im, from, &how)) < 0)
        return 1;
    return finish(im, add_average(im, input, from, &options), VIEW_NCHW, how);
}

static int import_global_pool(importer *im) {
    value *from = tensor_input(im, 0);
    state how;
    int input;

    if (!from || needs_nchw(im, from) || (input = average_operand(im, from, &how)) < 0)
        return 1;
    return finish(im, add_average(im, input, from, NULL), VIEW_NCHW, how);
}

static int import_qlinear_global_pool(importer *im) {
    value *from = coded_input(im, 0);

    if (!from)
        return 1;
    if ((from->view == VIEW_NHWC) != (int_attribute(im, "channels_last", 0) != 0) &&
        !is_pixel(im, from))
        return refuse(im, "channels_last does not fit the layout of its input");
    return finish_codes(im, add_average(im, from->node, from, NULL), from->view, 3);
}

static int import_qlinear_average_pool(importer *im) {
    value *from = coded_input(im, 0);
    ptq_pool_options options;

    if (!from || int_attribute(im, "channels_last", 0) != 0)
        return from ? refuse(im, "channels_last is not supported") : 1;
    if (read_pool(im, from, &options) || check_average_pad(im, from, &options))
        return 1;
    return finish_codes(im, add_average(im, from->node, from, &options), VIEW_NCHW, 3);
}

/* Axes as an attribute, or, since the opset that says so, as input 2. */
static int read_axes(importer *im, int rank, int *axes, int *count) {
    const Onnx__AttributeProto *given = attribute(im, "axes");
    const onnx_constant *input;

    if (integer_input(im, 1, 0, &input))
        return 1;
    *count = (int)(given ? given->n_ints : input && input->count <= 8 ? input->count : 0);
    if (*count < 1 || *count > rank)
        return refuse(im, "it needs its axes as numbers");
    for (int i = 0; i < *count; i++) {
        int64_t axis = given ? given->ints[i] : constant_int(input, (size_t)i);

        axis += axis < 0 ? rank : 0;
        if (axis < 0 || axis >= rank)
            return refuse(im, "an axis is out of range");
        axes[i] = (int)axis;
    }
    return 0;
}

static int view_rank(view shown) { return shown == VIEW_NCHW || shown == VIEW_NHWC ? 4 : 2; }

static view flat_view(view shown) {
    return shown == VIEW_NCHW || shown == VIEW_FLAT_CHW ? VIEW_FLAT_CHW : VIEW_FLAT_HWC;
}

static int import_reduce_mean(importer *im) {
    value *from = tensor_input(im, 0);
    int axes[ONNX_MOST_RANK], count, input, first;
    state how;

    if (!from || read_axes(im, view_rank(from->view), axes, &count))
        return 1;
    first = from->view == VIEW_NCHW ? 2 : 1;
    if (view_rank(from->view) != 4 || count != 2 || axes[0] + axes[1] != 2 * first + 1 ||
        (axes[0] != first && axes[1] != first))
        return refuse(im, "only the mean over height and width is supported");
    if ((input = average_operand(im, from, &how)) < 0)
        return 1;
    return finish(im, add_average(im, input, from, NULL),
                  int_attribute(im, "keepdims", 1) ? from->view : flat_view(from->view), how);
}

/* ---- Shapes ---- */

/* What ONNX takes the tensor's dimensions for, the batch aside. */
static void view_dims(const importer *im, const value *from, int64_t dims[4]) {
    const int *shape = shape_of(im, from);

    dims[0] = 0;
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
    int same = rank == view_rank(from->view);

    view_dims(im, from, known);
    for (int i = 1; i < rank && same; i++)
        same = dims[i] == known[i] || (dims[i] == -1 && dims[0] != -1);
    if (same)
        return alias(im, from, from->view);
    if (rank == 2 && (dims[1] == all || (dims[1] == -1 && dims[0] != -1)))
        return alias(im, from, flat_view(from->view));
    if (rank == 4 && is_pixel(im, from) && dims[1] == shape[2] && dims[2] == 1 && dims[3] == 1)
        return alias(im, from, VIEW_NCHW);
    if (rank == 4 && is_pixel(im, from) && dims[1] == 1 && dims[2] == 1 && dims[3] == shape[2])
        return alias(im, from, VIEW_NHWC);
    return refuse(im, "only flattening, and reshaping that changes nothing, are supported");
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
            return refuse(im, "the new shape of a constant is out of range");
        else
            known *= dims[i];
    }
    if (open >= 0)
        dims[open] = (int64_t)from->count / known;
    return fold_copy(im, from, from->type, rank, dims);
}

static int import_reshape(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *shape, *constant;
    int64_t dims[4] = {0}, known[4];

    if (constant_input(im, 1, 1, &shape))
        return 1;
    if (shape->type != ONNX_INT64 || shape->count > ONNX_MOST_RANK || shape->count < 1)
        return refuse(im, "its shape must be a vector of INT64");
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

static int import_flatten(importer *im) {
    value *from = tensor_input(im, 0);
    int64_t axis = int_attribute(im, "axis", 1);

    if (!from)
        return 1;
    if (axis != 1 && axis != 1 - view_rank(from->view))
        return refuse(im, "only flattening to one vector for each image is supported");
    return alias(im, from, flat_view(from->view));
}

/* Squeeze, and Unsqueeze the other way: between N x C and N x C x 1 x 1 or N x 1 x 1 x C. */
static int import_squeeze(importer *im) {
    value *from = tensor_input(im, 0);
    int axes[ONNX_MOST_RANK], count;

    if (!from || read_axes(im, view_rank(from->view), axes, &count))
        return 1;
    if (view_rank(from->view) != 4 || !is_pixel(im, from) || count != 2 ||
        axes[0] + axes[1] != (from->view == VIEW_NCHW ? 5 : 3))
        return refuse(im, "only squeezing height and width of 1 is supported");
    return alias(im, from, flat_view(from->view));
}

static int import_unsqueeze(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *constant;
    int axes[ONNX_MOST_RANK], count;

    if (from && from->state == STATE_CONSTANT)
        return constant_input(im, 0, 1, &constant) ||
               refuse(im, "it is not supported on constants");
    if (!(from = tensor_input(im, 0)) || read_axes(im, 4, axes, &count))
        return 1;
    if (view_rank(from->view) != 2 || !is_pixel(im, from) || count != 2 ||
        (axes[0] + axes[1] != 5 && axes[0] + axes[1] != 3))
        return refuse(im, "only a height and width of 1 can be added");
    return alias(im, from, axes[0] + axes[1] == 5 ? VIEW_NCHW : VIEW_NHWC);
}

/* perm, or the reverse order that it stands for when missing. */
static int read_perm(importer *im, int rank, int *perm) {
    const Onnx__AttributeProto *given = attribute(im, "perm");
    unsigned seen = 0;

    if (given && given->n_ints != (size_t)rank)
        return refuse(im, "perm has another length than the shape");
    for (int i = 0; i < rank; i++) {
        int64_t axis = given ? given->ints[i] : rank - 1 - i;

        if (axis < 0 || axis >= rank || (seen >> axis & 1))
            return refuse(im, "perm is no permutation");
        seen |= 1u << axis;
        perm[i] = (int)axis;
    }
    return 0;
}

static int is_perm(const int *perm, int a, int b, int c) {
    return perm[0] == 0 && perm[1] == a && perm[2] == b && perm[3] == c;
}

static int import_transpose(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *constant;
    int perm[ONNX_MOST_RANK];

    if (from && from->state == STATE_CONSTANT)
        return constant_input(im, 0, 1, &constant) || read_perm(im, constant->rank, perm) ||
               fold_transpose(im, constant, perm);
    if (!(from = tensor_input(im, 0)))
        return 1;
    if (view_rank(from->view) != 4 || read_perm(im, 4, perm))
        return refuse(im, "only the layouts NCHW and NHWC are supported");
    if (is_perm(perm, 1, 2, 3))
        return alias(im, from, from->view);
    if (from->view == VIEW_NCHW && is_perm(perm, 2, 3, 1))
        return alias(im, from, VIEW_NHWC);
    if (from->view == VIEW_NHWC && is_perm(perm, 3, 1, 2))
        return alias(im, from, VIEW_NCHW);
    return refuse(im, "only the layouts NCHW and NHWC are supported");
}

/* Zeros around height and width, kept with the tensor until a convolution takes them in. */
static int import_pad(importer *im) {
    value *from = padded_input(im, 0);
    const Onnx__AttributeProto *given = attribute(im, "pads");
    const onnx_constant *pads = NULL, *number = NULL;
    int64_t all[8];
    int zero = from && from->state == STATE_CODES ? im->model->node[from->node].q.zero_point : 0;

    if (!from || integer_input(im, 1, 0, &pads) || constant_input(im, 2, 0, &number))
        return 1;
    if (has_input(im->at, 3) ||
        (attribute(im, "mode") && !is_text_attribute(im, "mode", "constant")))
        return refuse(im, "only padding with a constant, without axes, is supported");
    if (number ? number->count != 1 || constant_float(number, 0) < (float)zero ||
                     constant_float(number, 0) > (float)zero
               : float_attribute(im, "value", 0) < 0 || float_attribute(im, "value", 0) > 0)
        return refuse(im, "only padding with zeros is supported");
    if (from->view != VIEW_NCHW || (pads ? pads->count : given ? given->n_ints : 0) != 8)
        return refuse(im,
                      "it needs its input as N x C x H x W, and two numbers for each dimension");
    for (size_t i = 0; i < 8; i++)
        all[i] = pads ? constant_int(pads, i) : given->ints[i];
    alias(im, from, from->view);
    for (int i = 0; i < 8; i++) {
        int outer = i % 4 < 2;

        if (all[i] < 0 || all[i] > (outer ? 0 : PTQ_MAX_KERNEL))
            return refuse(im, "only height and width can be padded, by 0 to 255");
        if (!outer)
            output_of(im, 0)->pad[i % 4 - 2 + (i < 4 ? 0 : 2)] += (int)all[i];
    }
    return 0;
}

/* ---- Operators that change nothing, constants ---- */

static int import_identity(importer *im) {
    value *from = input_of(im, 0);

    const onnx_constant *constant;

    if (!from || from->state != STATE_CONSTANT)
        return (from = padded_input(im, 0)) ? alias(im, from, from->view) : 1;
    if (!from->codes)
        return constant_input(im, 0, 1, &constant) ||
               fold_copy(im, constant, constant->type, constant->rank, constant->dim);
    alias(im, from, from->view);
    output_of(im, 0)->constant.data = NULL; /* dequantized anew where that is needed */
    return 0;
}

static int import_dropout(importer *im) {
    const onnx_constant *training;

    if (integer_input(im, 2, 0, &training))
        return 1;
    if (training && training->count && constant_int(training, 0))
        return refuse(im, "training mode is not supported");
    return import_identity(im);
}

static int import_cast(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *constant;
    int64_t to = int_attribute(im, "to", 0);
    int is_real = to == ONNX_FLOAT || to == ONNX_FLOAT16;

    if (from && from->state == STATE_CONSTANT) {
        if (constant_input(im, 0, 1, &constant))
            return 1;
        return fold_copy(im, constant, is_real ? ONNX_FLOAT : (int)to, constant->rank,
                         constant->dim);
    }
    if (!(from = tensor_input(im, 0)))
        return 1;
    if (from->state == STATE_CODES && from->node == 0 && im->byte_input && is_real) {
        im->byte_input = 0;
        alias(im, from, from->view);
        output_of(im, 0)->state = STATE_REAL;
        return 0;
    }
    if (!is_real || from->state == STATE_CODES)
        return refuse(im, "only conversions to FLOAT are supported");
    return alias(im, from, from->view);
}

static int import_constant(importer *im) {
    static const char *const spellings[] = {"value", "value_float", "value_int", "value_ints",
                                            "value_floats"};
    const Onnx__AttributeProto *given = NULL;
    onnx_constant *to;
    int is_int, single;
    int64_t count;

    for (int i = 0; i < 5 && !given; i++)
        given = attribute(im, spellings[i]);
    if (!given)
        return refuse(im, "it has no value of a supported kind");
    if (given->t) {
        output_of(im, 0)->state = STATE_CONSTANT;
        output_of(im, 0)->proto = given->t;
        return 0;
    }
    is_int = given->n_ints || given->has_i;
    single = !given->n_ints && !given->n_floats;
    count = (int64_t)(is_int ? given->n_ints : given->n_floats);
    if (fold(im, is_int ? ONNX_INT64 : ONNX_FLOAT, !single, &count, &to))
        return 1;
    if (is_int)
        memcpy(to->data, single ? &given->i : given->ints, to->count * sizeof(int64_t));
    else
        memcpy(to->data, single ? &given->f : given->floats, to->count * sizeof(float));
    return 0;
}

/* ---- QuantizeLinear and DequantizeLinear ---- */

/* Real numbers to codes, each with its own scale: for weights that a file holds as real numbers. */
static int fold_quantize(importer *im, const onnx_constant *from) {
    const onnx_constant *scale, *zero;
    int axis = (int)int_attribute(im, "axis", 1);
    ptq_qparams q = {PTQ_TYPE_U8, 8, 1, 0};
    onnx_constant *to;

    if (constant_input(im, 1, 1, &scale) || constant_input(im, 2, 0, &zero) ||
        check_axis(im, from, scale, zero, &axis))
        return 1;
    if (from->type != ONNX_FLOAT)
        return refuse(im, "only real numbers can be quantized");
    q.type = zero && zero->type == ONNX_INT8 ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    if (fold(im, q.type == PTQ_TYPE_S8 ? ONNX_INT8 : ONNX_UINT8, from->rank, from->dim, &to))
        return 1;
    for (size_t i = 0; i < from->count; i++) {
        size_t k = scale_index(from, scale, axis, i);

        q.scale = ((const float *)scale->data)[k];
        q.zero_point = zero ? (int32_t)constant_int(zero, k) : 0;
        if (!(q.scale > 0) || constant_float(from, i) != constant_float(from, i))
            return refuse(im, "a scale is not positive, or a number is none");
        ((uint8_t *)to->data)[i] = (uint8_t)ptq_quantize(constant_float(from, i), &q);
    }
    return 0;
}

/* Codes of a pending result: they become an attribute of its node. */
static int quantize_pending(importer *im, const value *from, const ptq_qparams *q) {
    ptq_node *node = &im->model->node[from->node];

    if (node->q.type != PTQ_TYPE_F32 && !same_codes(&node->q, q))
        return refuse(im, "a tensor is quantized in two ways");
    node->q = *q;
    alias(im, from, from->view);
    output_of(im, 0)->state = STATE_CODES;
    return 0;
}

static int quantize_real(importer *im, value *from, const ptq_qparams *q) {
    char name[PTQ_NAME_SIZE];
    int real, index;

    if (from->state == STATE_REAL && from->node == 0 && im->model->nodes == 1)
        return quantize_pending(im, from, q);
    if ((real = real_node(im, from)) < 0)
        return 1;
    make_name(im, node_label(im->at), name);
    index = ptq_add_op(im->model, PTQ_OP_QUANTIZE, name, real);
    if (index >= 0)
        im->model->node[index].q = *q;
    return finish(im, index, from->view, STATE_CODES);
}

static int import_quantize(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *constant;
    ptq_qparams q;

    if (from && from->state == STATE_CONSTANT)
        return constant_input(im, 0, 1, &constant) || fold_quantize(im, constant);
    if (!(from = padded_input(im, 0)) || read_qparams(im, 1, PTQ_TYPE_U8, &q))
        return 1;
    if (from->state == STATE_PENDING)
        return quantize_pending(im, from, &q);
    if (from->state == STATE_DEQUANTIZED && same_codes(&q, &im->model->node[from->node].q)) {
        alias(im, from, from->view);
        output_of(im, 0)->state = STATE_CODES;
        return 0;
    }
    return is_padded(from) ? tensor_input(im, 0) == NULL : quantize_real(im, from, &q);
}

/* A constant keeps its codes: a layer may want them. */
static int dequantize_constant(importer *im, value *from) {
    const onnx_constant *codes, *scale, *zero;
    value *made = output_of(im, 0);

    if (constant_input(im, 0, 1, &codes) || constant_input(im, 1, 1, &scale) ||
        constant_input(im, 2, 0, &zero))
        return 1;
    made->axis = (int)int_attribute(im, "axis", 1);
    if ((onnx_width(codes->type) != 1 && codes->type != ONNX_INT32) ||
        int_attribute(im, "block_size", 0) != 0)
        return refuse(im, "it needs codes of INT8, UINT8 or INT32, and scales for whole channels "
                          "or tensors");
    if (check_axis(im, codes, scale, zero, &made->axis))
        return 1;
    made->state = STATE_CONSTANT;
    made->codes = from;
    made->scale = input_of(im, 1);
    made->zero_point = input_of(im, 2);
    return 0;
}

static int import_dequantize(importer *im) {
    value *from = input_of(im, 0);
    ptq_qparams q;

    if (from && from->state == STATE_CONSTANT)
        return dequantize_constant(im, from);
    if (!(from = padded_input(im, 0)))
        return 1;
    if (from->state != STATE_CODES)
        return refuse(im, "it needs codes but gets real numbers");
    if (read_qparams(im, 1, im->model->node[from->node].q.type, &q))
        return 1;
    if (from->node == 0 && im->byte_input && q.type == PTQ_TYPE_U8 && q.scale > 0)
        adopt_input(im, &q);
    if (!same_codes(&q, &im->model->node[from->node].q))
        return refuse(im, "it reads codes with another scale, zero point or type than they were "
                          "made with");
    alias(im, from, from->view);
    output_of(im, 0)->state = STATE_DEQUANTIZED;
    output_of(im, 0)->dequantize = im->at->name && *im->at->name ? im->at->name : NULL;
    return 0;
}

/* ---- The graph ---- */

typedef struct operation {
    const char *name;
    int (*import)(importer *im);
} operation;

static const operation operations[] = {
    {"Add", import_add},
    {"AveragePool", import_average_pool},
    {"BatchNormalization", import_batch_norm},
    {"Cast", import_cast},
    {"Clip", import_clip},
    {"Constant", import_constant},
    {"Conv", import_conv},
    {"DequantizeLinear", import_dequantize},
    {"Div", import_div},
    {"Dropout", import_dropout},
    {"Flatten", import_flatten},
    {"Gemm", import_gemm},
    {"GlobalAveragePool", import_global_pool},
    {"Identity", import_identity},
    {"MatMul", import_matmul},
    {"MaxPool", import_max_pool},
    {"Mul", import_mul},
    {"Pad", import_pad},
    {"QGemm", import_qgemm},
    {"QLinearAdd", import_qlinear_add},
    {"QLinearAveragePool", import_qlinear_average_pool},
    {"QLinearConv", import_qlinear_conv},
    {"QLinearGlobalAveragePool", import_qlinear_global_pool},
    {"QLinearMatMul", import_qlinear_matmul},
    {"QuantizeLinear", import_quantize},
    {"ReduceMean", import_reduce_mean},
    {"Relu", import_relu},
    {"Reshape", import_reshape},
    {"Softmax", import_softmax},
    {"Squeeze", import_squeeze},
    {"Sub", import_sub},
    {"Transpose", import_transpose},
    {"Unsqueeze", import_unsqueeze},
};

static int import_node(importer *im, const onnx_node *node) {
    const char *domain = text_or(node->domain, "ai.onnx"), *op = text_or(node->op_type, "?");
    value *made;

    im->at = node;
    if (!node->n_output || !*text_or(node->output[0], ""))
        return refuse(im, "it has no result");
    made = find_value(im, node->output[0]);
    if (made->state != STATE_UNKNOWN)
        return refuse(im, "another node, input or constant has made the tensor of its result");
    if (strcmp(domain, "ai.onnx") != 0 && strcmp(domain, "com.microsoft") != 0)
        return fail("%s: node '%.200s' (%.60s): operators of '%.60s' are not supported",
                    im->file.path, node_label(node), op, domain);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (strcmp(op, operations[i].name) == 0)
            return operations[i].import(im);
    return refuse(im, "this operator is not supported");
}

static int collect_names(importer *im) {
    const Onnx__GraphProto *graph = im->graph;

    for (size_t i = 0; i < graph->n_initializer; i++) {
        value *made = add_value(im, text_or(graph->initializer[i]->name, "?"));

        if (made->state == STATE_CONSTANT)
            return fail("%s: two constants are named '%.200s'", im->file.path, made->name);
        made->state = STATE_CONSTANT;
        made->proto = graph->initializer[i];
    }
    if (graph->n_sparse_initializer)
        return fail("%s: sparse constants are not supported", im->file.path);
    for (size_t i = 0; i < graph->n_node; i++)
        for (size_t k = 0; k < graph->node[i]->n_output; k++)
            add_value(im, text_or(graph->node[i]->output[k], "?"));
    return 0;
}

/* Marks what the outputs depend on, from the end, and counts who reads it. A graph may carry nodes
   that nothing needs; in a sorted graph one pass finds them. */
static int mark_needed(importer *im, char *needed) {
    for (size_t i = 0; i < im->graph->n_output; i++)
        add_value(im, text_or(im->graph->output[i]->name, "?"))->uses++;
    for (size_t i = im->graph->n_node; i-- > 0;) {
        const onnx_node *node = im->graph->node[i];

        for (size_t k = 0; k < node->n_output; k++)
            needed[i] |= find_value(im, text_or(node->output[k], "?"))->uses > 0;
        for (size_t k = 0; k < node->n_input && needed[i]; k++)
            if (has_input(node, k))
                add_value(im, node->input[k])->uses++;
    }
    return 0;
}

/* Whether the input is NHWC: it is where the first thing done to it, arithmetic and codes aside, is
   a transposition to NCHW. */
static int is_nhwc_input(const importer *im, const char *name) {
    static const char *const passing[] = {
        "QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Sub", "Div", "Mul", "Add",
        "Dropout"};

    for (size_t i = 0; i < im->graph->n_node; i++) {
        const onnx_node *node = im->graph->node[i];
        const char *op = text_or(node->op_type, "?");

        if (!has_input(node, 0) || strcmp(node->input[0], name) != 0 || !node->n_output)
            continue;
        for (size_t k = 0; k < sizeof passing / sizeof *passing; k++)
            if (strcmp(op, passing[k]) == 0)
                name = node->output[0];
        if (strcmp(op, "Transpose") == 0)
            for (size_t k = 0; k < node->n_attribute; k++)
                if (node->attribute[k]->n_ints == 4 && node->attribute[k]->ints[1] == 3)
                    return 1;
    }
    return 0;
}

static int input_dimension(const importer *im, const Onnx__ValueInfoProto *input, size_t i,
                           int *out) {
    const Onnx__TensorShapeProto__Dimension *dim = input->type->tensor_type->shape->dim[i];

    if (dim->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ||
        dim->dim_value < 1 || dim->dim_value > PTQ_MAX_ELEMENTS)
        return fail("%s: input '%.200s': its dimension %d is not a fixed size; export the model "
                    "with one",
                    im->file.path, text_or(input->name, "?"), (int)i + 1);
    *out = (int)dim->dim_value;
    return 0;
}

static int add_input(importer *im, const Onnx__ValueInfoProto *input) {
    const Onnx__TypeProto__Tensor *type = input->type ? input->type->tensor_type : NULL;
    value *made = add_value(im, text_or(input->name, "?"));
    char name[PTQ_NAME_SIZE];
    int dim[3], nhwc = is_nhwc_input(im, made->name);

    if (!type || !type->shape || type->shape->n_dim != 4)
        return fail("%s: input '%.200s' is not four-dimensional; images are expected",
                    im->file.path, made->name);
    if (type->elem_type != ONNX_FLOAT && type->elem_type != ONNX_FLOAT16 &&
        type->elem_type != ONNX_UINT8)
        return fail("%s: input '%.200s' is of type %s; FLOAT, FLOAT16 and UINT8 are supported",
                    im->file.path, made->name, onnx_type_name(type->elem_type));
    for (size_t i = 0; i < 3; i++)
        if (input_dimension(im, input, i + 1, &dim[i]))
            return 1;
    make_name(im, made->name, name);
    made->node = nhwc ? ptq_add_input(im->model, name, dim[0], dim[1], dim[2])
                      : ptq_add_input(im->model, name, dim[1], dim[2], dim[0]);
    if (made->node < 0)
        return library_error(im, im->model->error.text);
    made->view = nhwc ? VIEW_NHWC : VIEW_NCHW;
    im->byte_input = type->elem_type == ONNX_UINT8;
    made->state = im->byte_input ? STATE_CODES : STATE_REAL;
    return 0;
}

/* Before version 4 of the format, constants were listed among the inputs. */
static int find_input(importer *im) {
    const Onnx__ValueInfoProto *found = NULL;

    for (size_t i = 0; i < im->graph->n_input; i++) {
        const Onnx__ValueInfoProto *input = im->graph->input[i];
        const value *known = find_value(im, text_or(input->name, "?"));

        if (known && known->state == STATE_CONSTANT)
            continue;
        if (found)
            return fail("%s: two inputs, '%.100s' and '%.100s'; one is supported", im->file.path,
                        text_or(found->name, "?"), text_or(input->name, "?"));
        found = input;
    }
    return found ? add_input(im, found) : fail("%s: the graph has no input", im->file.path);
}

static int check_opset(importer *im) {
    const Onnx__ModelProto *model = im->file.model;

    for (size_t i = 0; i < model->n_opset_import; i++) {
        const char *domain = text_or(model->opset_import[i]->domain, "ai.onnx");
        int64_t version = model->opset_import[i]->version;

        if (strcmp(domain, "ai.onnx") != 0)
            continue;
        if (version < OLDEST_OPSET || version > NEWEST_OPSET)
            return fail("%s uses opset %lld; %d to %d are supported, so convert or export it anew",
                        im->file.path, (long long)version, OLDEST_OPSET, NEWEST_OPSET);
        im->opset = (int)version;
    }
    return 0;
}

/* The result must be real numbers, or codes with a scale. */
static int check_outputs(const importer *im) {
    for (size_t i = 0; i < im->graph->n_output; i++) {
        const value *out = find_value(im, text_or(im->graph->output[i]->name, "?"));

        if (!out || out->node < 0)
            return fail("%s: the graph's output '%.200s' is made by no node", im->file.path,
                        text_or(im->graph->output[i]->name, "?"));
        if (out->state == STATE_PENDING && im->model->node[out->node].q.type == PTQ_TYPE_F32 &&
            im->model->node[out->node].op != PTQ_OP_DENSE)
            return fail("%s: the graph's output '%.200s' is the result of integer arithmetic, but "
                        "was not quantized",
                        im->file.path, out->name);
    }
    return im->graph->n_output ? 0 : fail("%s: the graph has no output", im->file.path);
}

/* Ours alone travel along: other tools put their own bookkeeping there. The self-test vector is not
   among them, for a tool in between may have changed the model. */
static int copy_metadata(importer *im) {
    const Onnx__ModelProto *model = im->file.model;
    ptq_error err;

    for (size_t i = 0; i < model->n_metadata_props; i++) {
        const char *key = text_or(model->metadata_props[i]->key, "");
        const char *text = text_or(model->metadata_props[i]->value, "");

        if (strncmp(key, "ptq.", 4) == 0 && key[4] &&
            ptq_model_set_meta(im->model, key + 4, text, &err))
            return library_error(im, err.text);
    }
    return 0;
}

static int import_nodes(importer *im) {
    char *needed = calloc(im->graph->n_node + 1, 1);
    int status = needed ? mark_needed(im, needed) : fail("no memory for the graph");

    for (size_t i = 0; i < im->graph->n_node && !status; i++)
        if (needed[i])
            status = import_node(im, im->graph->node[i]);
    free(needed);
    im->at = NULL;
    return status;
}

/* Codes of additions fuse here, for there is no later step that would; a float model keeps its
   nodes, as it does from other formats. */
static int finish_model(importer *im, ptq_model **out) {
    int coded = 0;
    ptq_error err;

    im->model->bare = 0;
    if (ptq_model_check(im->model, &err))
        return library_error(im, err.text);
    for (int i = 1; i < im->model->nodes; i++)
        coded |= im->model->node[i].q.type != PTQ_TYPE_F32;
    if (coded)
        return ptq_fuse(im->model, out, NULL, &err) ? library_error(im, err.text) : 0;
    *out = im->model;
    im->model = NULL;
    return 0;
}

static int import_graph(importer *im, ptq_model **out) {
    ptq_error err;

    im->graph = im->file.model->graph;
    if (ptq_model_create(NULL, &im->model, &err))
        return library_error(im, err.text);
    im->model->bare = 1;
    return check_opset(im) || make_table(im) || collect_names(im) || find_input(im) ||
           import_nodes(im) || check_outputs(im) || copy_metadata(im) || finish_model(im, out);
}

static void close_importer(importer *im) {
    for (size_t i = 0; i < im->capacity && im->values; i++)
        free(im->values[i].constant.data);
    free(im->values);
    ptq_model_free(im->model);
    onnx_close(&im->file);
}

int import_onnx(const char *path, ptq_model **out) {
    importer *im = calloc(1, sizeof *im);
    int status;

    if (!im)
        return fail("no memory to import %s", path);
    status = onnx_open(path, &im->file) || import_graph(im, out);
    close_importer(im);
    free(im);
    return status;
}

#else

int import_onnx(const char *path, ptq_model **out) {
    (void)path, (void)out;
    return fail(ONNX_MISSING);
}

#endif
