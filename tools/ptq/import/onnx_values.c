/* The values of an ONNX graph by their names: what a node reads and makes, and what it and its
   results are called. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

#define MOST_NODES 65536

/* ---- Errors ---- */

const char *text_or(const char *text, const char *otherwise) {
    return text && *text ? text : otherwise;
}

const char *node_label(const onnx_node *node) {
    return text_or(node->name, node->n_output ? text_or(node->output[0], "?") : "?");
}

int refuse(const importer *im, const char *format, ...) {
    refusals *all = im->refused;
    char reason[REASON_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    all->total++;
    for (int i = 0; i < all->count; i++)
        if (strcmp(all->list[i].reason, reason) == 0 &&
            strcmp(text_or(all->list[i].at->op_type, "?"), text_or(im->at->op_type, "?")) == 0)
            return all->list[i].nodes++, 1;
    if (all->count == MOST_REFUSALS)
        return all->unlisted++, 1;
    all->list[all->count].at = im->at;
    all->list[all->count].nodes = 1;
    memcpy(all->list[all->count++].reason, reason, sizeof reason);
    return 1;
}

int refuse_as(const importer *im, const char *text) {
    return im->at ? refuse(im, "%s", text) : fail("%s: %s", im->file.path, text);
}

int refuse_damaged(const importer *im, const char *reason) {
    return refuse(im, "%s; the file contradicts itself, so export it anew", reason);
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

value *find_value(const importer *im, const char *name) {
    value *found = find_slot(im, name);

    return found->name ? found : NULL;
}

value *add_value(importer *im, const char *name) {
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

int make_values(importer *im) {
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

int has_input(const onnx_node *node, size_t i) {
    return i < node->n_input && node->input[i] && *node->input[i];
}

value *input_of(const importer *im, size_t i) {
    return has_input(im->at, i) ? find_value(im, im->at->input[i]) : NULL;
}

value *output_of(importer *im, size_t i) { return add_value(im, im->at->output[i]); }

const Onnx__AttributeProto *find_attribute(const importer *im, const char *name) {
    for (size_t i = 0; i < im->at->n_attribute; i++)
        if (strcmp(text_or(im->at->attribute[i]->name, ""), name) == 0)
            return im->at->attribute[i];
    return NULL;
}

int64_t int_attribute(const importer *im, const char *name, int64_t otherwise) {
    const Onnx__AttributeProto *found = find_attribute(im, name);

    return found && found->has_i ? found->i : otherwise;
}

float float_attribute(const importer *im, const char *name, float otherwise) {
    const Onnx__AttributeProto *found = find_attribute(im, name);

    return found && found->has_f ? found->f : otherwise;
}

int is_text_attribute(const importer *im, const char *name, const char *text) {
    const Onnx__AttributeProto *found = find_attribute(im, name);

    return found && found->has_s && found->s.len == strlen(text) &&
           memcmp(found->s.data, text, found->s.len) == 0;
}

int ints_attribute(const importer *im, const char *name, size_t count, int64_t otherwise, int most,
                   int *out) {
    const Onnx__AttributeProto *found = find_attribute(im, name);

    if (found && found->n_ints != count)
        return refuse(im,
                      "%s has %zu numbers, expected are %zu, for two dimensions of space are "
                      "supported; write a line with a height of 1",
                      name, found->n_ints, count);
    for (size_t i = 0; i < count; i++) {
        int64_t number = found ? found->ints[i] : otherwise;

        if (number < 0 || number > most)
            return refuse(im, "%s must be 0 to %d; change the network", name, most);
        out[i] = (int)number;
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

void make_name(const importer *im, const char *from, char name[PTQ_NAME_SIZE]) {
    size_t length;

    clean_name(from, name);
    length = strlen(name);
    for (int number = 2; ptq_model_find(im->model, name) >= 0; number++)
        snprintf(name + length, PTQ_NAME_SIZE - length, "_%d", number);
}

void node_name(const importer *im, char name[PTQ_NAME_SIZE]) {
    make_name(im, node_label(im->at), name);
}

void layer_name(const importer *im, const value *weight, char name[PTQ_NAME_SIZE]) {
    static const char suffix[] = ".weight";
    size_t length = weight ? strlen(weight->name) : 0, tail = sizeof suffix - 1;
    char stem[PTQ_NAME_SIZE];

    if (length > tail && length - tail < sizeof stem &&
        strcmp(weight->name + length - tail, suffix) == 0) {
        memcpy(stem, weight->name, length - tail);
        stem[length - tail] = 0;
        make_name(im, stem, name);
    } else {
        node_name(im, name);
    }
}

int append_op(importer *im, ptq_op op, int input) {
    char name[PTQ_NAME_SIZE];

    node_name(im, name);
    return ptq_add_op(im->model, op, name, input);
}

/* ---- Results ---- */

int set_result(importer *im, int index, view shown, state how) {
    value *made;

    if (index < 0)
        return refuse_as(im, im->model->error.text);
    made = output_of(im, 0);
    made->state = how;
    made->node = index;
    made->view = shown;
    made->selected = made->groups = 0;
    return 0;
}

int set_alias(importer *im, const value *from, view shown) {
    value *made = output_of(im, 0);
    const char *name = made->name;
    int uses = made->uses;

    *made = *from;
    made->name = name;
    made->uses = uses > from->uses ? uses : from->uses; /* more than one reader of either */
    made->view = shown;
    return 0;
}

const int *shape_of(const importer *im, const value *from) {
    return im->model->node[from->node].shape;
}

int is_pixel(const importer *im, const value *from) {
    return shape_of(im, from)[0] == 1 && shape_of(im, from)[1] == 1;
}

int is_padded(const value *from) {
    return from->pad[0] || from->pad[1] || from->pad[2] || from->pad[3];
}

value *padded_input(importer *im, size_t i) {
    value *from = input_of(im, i);

    if (!from)
        refuse_damaged(im, "an input is missing");
    else if (from->state == STATE_CONSTANT)
        refuse(im,
               "an input is a constant where a tensor is expected; fold constants with onnxsim");
    else if (from->state == STATE_UNKNOWN)
        refuse(im, "it reads a tensor that no earlier node makes; the graph is cyclic, not sorted "
                   "or incomplete: export it anew");
    else if (from->groups && im->operation->import != import_reshape &&
             im->operation->import != import_transpose)
        refuse(im, "a tensor of five dimensions is supported between the two Reshapes of a channel "
                   "shuffle only; end the network in front of it");
    else
        return from;
    return NULL;
}

value *tensor_input(importer *im, size_t i) {
    value *from = padded_input(im, i);

    if (!from || !is_padded(from))
        return from;
    return refuse_lowest(im, from) || pad_pixels(im, from) ? NULL : from;
}

int needs_nchw(const importer *im, const value *from) {
    return from->view == VIEW_NCHW
               ? 0
               : refuse(im,
                        "it needs its input as N x C x H x W; transpose behind it, not in front");
}

/* The name for a dequantize node, "NAME.dequantize" where the file had none. */
static int add_dequantize(importer *im, const value *from) {
    char wanted[2 * PTQ_NAME_SIZE], name[PTQ_NAME_SIZE];

    snprintf(wanted, sizeof wanted, "%s.dequantize", im->model->node[from->node].out);
    make_name(im, from->dequantize ? from->dequantize : wanted, name);
    return ptq_add_op(im->model, PTQ_OP_DEQUANTIZE, name, from->node);
}

int ends_coded(const value *made) {
    return made->coded > 0 && made->coded + made->dropped == made->uses;
}

int computes_codes(importer *im) {
    int coded = im->operation->result || ends_coded(output_of(im, 0));

    if (!coded && !im->real_layer)
        im->real_layer = im->at;
    return coded;
}

int real_node(importer *im, const value *from) {
    const ptq_node *node = &im->model->node[from->node];

    if (node->op == PTQ_OP_SOFTMAX)
        return refuse(im, "it reads a Softmax, which can only be the last; leave the Softmax out"),
               -1;
    switch (from->state) {
    case STATE_REAL:
        if (node->q.type == PTQ_TYPE_F32)
            return from->node;
        return refuse(im, "a tensor is read both before and after it is quantized; put "
                          "QuantizeLinear and DequantizeLinear in front of all readers"),
               -1;
    case STATE_PENDING:
        if (node->op == PTQ_OP_DENSE && node->q.type == PTQ_TYPE_F32)
            return from->node;
        return refuse(im, "its input is the result of integer arithmetic, but was not quantized; "
                          "put QuantizeLinear and DequantizeLinear in front of it, or import the "
                          "float model and use 'ptq quantize'"),
               -1;
    case STATE_DEQUANTIZED:
        if (!im->real[from->node]) {
            int index = add_dequantize(im, from);

            if (index < 0)
                return refuse_as(im, im->model->error.text), -1;
            im->real[from->node] = index;
        }
        return im->real[from->node];
    default:
        return refuse(im, "it gets codes where it needs real numbers; put a DequantizeLinear in "
                          "front of it"),
               -1;
    }
}

int view_rank(view shown) {
    return shown == VIEW_NCHW || shown == VIEW_NHWC ? 4
           : shown == VIEW_NCL || shown == VIEW_NLC ? 3
                                                    : 2;
}

int channel_axis(view shown) { return shown == VIEW_NHWC ? 3 : shown == VIEW_NLC ? 2 : 1; }

/* Views in which a channel's pixels lie behind each other. */
static int is_channel_first(view shown) {
    return shown == VIEW_NCHW || shown == VIEW_NCL || shown == VIEW_FLAT_CHW;
}

view flat_view(view shown) { return is_channel_first(shown) ? VIEW_FLAT_CHW : VIEW_FLAT_HWC; }

view line_view(view shown) { return is_channel_first(shown) ? VIEW_NCL : VIEW_NLC; }

int is_permuted(const importer *im, const value *from) {
    return is_channel_first(from->view) && !is_pixel(im, from) && shape_of(im, from)[2] > 1;
}

#endif
