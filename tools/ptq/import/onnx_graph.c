/* The table of ONNX operators, the walk over a graph from its input to its results, and import_onnx
   itself. */
#include <stdlib.h>
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

#define OLDEST_OPSET 7
#define NEWEST_OPSET 21

/* ---- The graph ---- */

/* The operators by name; those of the QOperator form with the places of their operands. */
static const operation operations[] = {
    {"Add", import_add, 0, 0},
    {"AveragePool", import_average_pool, 0, 0},
    {"BatchNormalization", import_batch_norm, 0, 0},
    {"Cast", import_cast, 0, 0},
    {"Clip", import_clip, 0, 0},
    {"Concat", import_concat, 0, 0},
    {"Constant", import_constant, 0, 0},
    {"Conv", import_conv, 0, 0},
    {"DequantizeLinear", import_dequantize, 0, 0},
    {"Div", import_div, 0, 0},
    {"Elu", import_function, 0, 0},
    {"Gelu", import_function, 0, 0},
    {"HardSigmoid", import_function, 0, 0},
    {"HardSwish", import_function, 0, 0},
    {"LeakyRelu", import_function, 0, 0},
    {"Max", import_bound, 0, 0},
    {"Min", import_bound, 0, 0},
    {"PRelu", import_function, 0, 0},
    {"Sigmoid", import_function, 0, 0},
    {"Tanh", import_function, 0, 0},
    {CHAIN_SILU, import_function, 0, 0},
    {CHAIN_HARD_SIGMOID, import_function, 0, 0},
    {CHAIN_HARD_SWISH, import_function, 0, 0},
    {CHAIN_GELU, import_function, 0, 0},
    {CHAIN_GELU_TANH, import_function, 0, 0},
    {"Dropout", import_dropout, 0, 0},
    {"Flatten", import_flatten, 0, 0},
    {"Gemm", import_gemm, 0, 0},
    {"GlobalAveragePool", import_global_pool, 0, 0},
    {"GlobalMaxPool", import_global_max_pool, 0, 0},
    {"Identity", import_identity, 0, 0},
    {"LogSoftmax", import_softmax, 0, 0},
    {"MatMul", import_matmul, 0, 0},
    {"MaxPool", import_max_pool, 0, 0},
    {"Mul", import_mul, 0, 0},
    {"Pad", import_pad, 0, 0},
    {"QGemm", import_gemm, 7, 6},
    {"QLinearAdd", import_coded_add, 6, 0},
    {"QLinearAveragePool", import_average_pool, 3, 0},
    {"QLinearConcat", import_coded_concat, 0, 0},
    {"QLinearConv", import_conv, 6, 8},
    {"QLinearGlobalAveragePool", import_coded_global_pool, 3, 0},
    {"QLinearLeakyRelu", import_function, 3, 0},
    {"QLinearMul", import_coded_mul, 6, 0},
    {"QLinearSigmoid", import_function, 3, 0},
    {"QLinearMatMul", import_matmul, 6, 0},
    {"QuantizeLinear", import_quantize, 0, 0},
    {"ReduceMean", import_reduce_mean, 0, 0},
    {"Relu", import_relu, 0, 0},
    {"Reshape", import_reshape, 0, 0},
    {"Shape", import_shape, 0, 0},
    {"Slice", import_slice, 0, 0},
    {"Softmax", import_softmax, 0, 0},
    {"Split", import_split, 0, 0},
    {"Squeeze", import_squeeze, 0, 0},
    {"Sub", import_sub, 0, 0},
    {"Sum", import_sum, 0, 0},
    {"Transpose", import_transpose, 0, 0},
    {"Unsqueeze", import_unsqueeze, 0, 0},
};

static const operation *find_operation(const char *name) {
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (strcmp(name, operations[i].name) == 0)
            return &operations[i];
    return NULL;
}

/* Whether the node at hand reads what a refused one would have made. */
static int reads_refused(const importer *im) {
    for (size_t i = 0; i < im->at->n_input; i++) {
        const value *from = input_of(im, i);

        if (from && from->state == STATE_REFUSED)
            return 1;
    }
    return 0;
}

static int import_known(importer *im) {
    const char *domain = text_or(im->at->domain, "ai.onnx"), *op = text_or(im->at->op_type, "?");
    int folded;

    if (strcmp(domain, "ai.onnx") != 0 && strcmp(domain, "com.microsoft") != 0)
        return refuse(im, "operators of '%.60s' are not supported; export with those of ONNX alone",
                      domain);
    im->operation = find_operation(op);
    if (reads_refused(im))
        return im->operation || is_folded(op) ? im->refused->unchecked++, 1 : refuse_operator(im);
    folded = fold_node(im);
    if (folded >= 0)
        return folded;
    return im->operation ? im->operation->import(im) : refuse_operator(im);
}

/* What cannot come in ends nothing yet: the nodes behind are looked at as far as they can be. It
   ends with errors that are no property of a node, and have been told. */
static int import_node(importer *im, const onnx_node *node) {
    const refusals *all = im->refused;
    int before = all->total, unchecked = all->unchecked;
    value *made;

    im->at = node;
    if (!node->n_output || !*text_or(node->output[0], ""))
        return refuse_damaged(im, "it has no result"), 0;
    made = find_value(im, node->output[0]);
    if (made->state == STATE_CONSTANT && made->maker &&
        node == im->graph->node[made->maker - 1]) /* a chain has asked for it: onnx_chains.c */
        return 0;
    if (made->state != STATE_UNKNOWN)
        return refuse_damaged(im,
                              "another node, input or constant has made the tensor of its result"),
               0;
    if (!import_known(im))
        return 0;
    if (all->total == before && all->unchecked == unchecked)
        return 1;
    made->state = STATE_REFUSED;
    for (size_t k = 1; k < node->n_output; k++) {
        value *other = find_value(im, text_or(node->output[k], "?"));

        other->state = other->state == STATE_UNKNOWN ? STATE_REFUSED : other->state;
    }
    pass_refused(im);
    return 0;
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
        for (size_t k = 0; k < graph->node[i]->n_output; k++) {
            value *made = add_value(im, text_or(graph->node[i]->output[k], "?"));

            made->maker = made->maker ? made->maker : i + 1;
        }
    return 0;
}

static int is_shape(const onnx_node *node) {
    return strcmp(text_or(node->op_type, "?"), "Shape") == 0;
}

/* Marks what no image changes: in a sorted graph one pass finds it. */
static void mark_fixed(importer *im) {
    for (size_t i = 0; i < im->graph->n_node; i++) {
        const onnx_node *node = im->graph->node[i];
        int fixed = 1;

        for (size_t k = 0; k < node->n_input && fixed && !is_shape(node); k++) {
            const value *read = has_input(node, k) ? find_value(im, node->input[k]) : NULL;

            fixed = !has_input(node, k) || (read && (read->fixed || read->state == STATE_CONSTANT));
        }
        for (size_t k = 0; k < node->n_output; k++)
            find_value(im, text_or(node->output[k], "?"))->fixed = fixed;
    }
}

/* Whether a node between a layer and the QuantizeLinear of its result leaves the layer its integer
   arithmetic: what reads one tensor and becomes part of the layer, or of how its result is read. */
static int keeps_codes(const importer *im, const onnx_node *node) {
    static const char *const passing[] = {"Add",      "Clip",      "Dropout",  "Flatten",
                                          "Identity", "Pad",       "Relu",     "Reshape",
                                          "Squeeze",  "Transpose", "Unsqueeze"};
    const char *op = text_or(node->op_type, "?");
    int tensors = 0;

    for (size_t k = 0; k < node->n_input; k++) {
        const value *read = has_input(node, k) ? find_value(im, node->input[k]) : NULL;

        tensors += read && !read->fixed && read->state != STATE_CONSTANT;
    }
    for (size_t k = 0; k < sizeof passing / sizeof *passing && tensors == 1; k++)
        if (strcmp(op, passing[k]) == 0)
            return 1;
    return 0;
}

/* What node i reads; `coded`: its result becomes codes, and that of what it reads. */
static void mark_inputs(importer *im, const onnx_node *node) {
    const value *made = find_value(im, text_or(node->output[0], "?"));
    int quantizes = strcmp(text_or(node->op_type, "?"), "QuantizeLinear") == 0;
    int coded = quantizes || (ends_coded(made) && keeps_codes(im, node));

    for (size_t k = 0; k < node->n_input; k++)
        if (has_input(node, k)) {
            value *read = add_value(im, node->input[k]);

            read->uses += !is_shape(node); /* which reads no number */
            read->coded += coded;
            read->needed = 1;
        }
}

/* Marks what the outputs depend on, from the end, and counts who reads it; being an output of the
   graph counts as well. A graph may carry nodes that nothing needs; in a sorted
   graph one pass finds them. */
static void mark_needed(importer *im, char *needed) {
    mark_fixed(im);
    for (size_t i = 0; i < im->graph->n_output; i++) {
        value *out = find_value(im, text_or(im->graph->output[i]->name, "?"));

        out->uses++;
        out->dropped += out != im->kept;
        out->needed = 1;
    }
    for (size_t i = im->graph->n_node; i-- > 0;) {
        const onnx_node *node = im->graph->node[i];

        for (size_t k = 0; k < node->n_output; k++)
            needed[i] |= find_value(im, text_or(node->output[k], "?"))->needed != 0;
        if (needed[i])
            mark_inputs(im, node);
    }
}

static int reads(const onnx_node *node, const char *name) {
    for (size_t k = 0; k < node->n_input; k++)
        if (has_input(node, k) && strcmp(node->input[k], name) == 0)
            return 1;
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

        if (!node->n_output || !reads(node, name))
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

/* 0 where it is open. */
static int64_t fixed_batch(const Onnx__TensorShapeProto__Dimension *dim) {
    int fixed = dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;

    return fixed && dim->dim_value > 0 ? dim->dim_value : 0;
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
        return refuse_as(im, im->model->error.text);
    made->view = nhwc ? VIEW_NHWC : VIEW_NCHW;
    im->byte_input = type->elem_type == ONNX_UINT8;
    im->batch = fixed_batch(type->shape->dim[0]);
    im->open = im->batch == 0;
    im->batch += im->open;
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
    im->input = found;
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
            return refuse_as(im, err.text);
    }
    return 0;
}

static int import_nodes(importer *im) {
    char *needed = calloc(im->graph->n_node + 1, 1);
    int status = needed ? find_kept(im) : fail("no memory for the graph");

    if (!status)
        mark_needed(im, needed);
    /* the builder takes nothing more after an error of its own */
    for (size_t i = 0; i < im->graph->n_node && !status && !im->model->error.status; i++)
        if (needed[i])
            status = import_node(im, im->graph->node[i]);
    free(needed);
    im->at = NULL;
    tell_refusals(im);
    return status || im->refused->total;
}

/* Codes of additions fuse here, for there is no later step that would; a float model keeps its
   nodes, as it does from other formats. */
static int finish_model(importer *im, ptq_model **out) {
    int coded = 0;
    ptq_error err;

    im->model->bare = 0;
    number_outputs(im);
    if (ptq_model_check(im->model, &err))
        return refuse_as(im, err.text);
    if (describe_interface(im))
        return 1;
    for (int i = 1; i < im->model->nodes; i++)
        coded |= im->model->node[i].q.type != PTQ_TYPE_F32;
    if (coded)
        return ptq_fuse(im->model, out, NULL, &err) ? refuse_as(im, err.text) : 0;
    *out = im->model;
    im->model = NULL;
    return 0;
}

static int import_graph(importer *im, ptq_model **out) {
    ptq_error err;

    im->graph = im->file.model->graph;
    if (ptq_model_create(NULL, &im->model, &err))
        return refuse_as(im, err.text);
    im->model->bare = 1;
    return check_opset(im) || make_values(im) || collect_names(im) || find_input(im) ||
           find_chains(im) || import_nodes(im) || check_outputs(im) || copy_metadata(im) ||
           finish_model(im, out);
}

static void close_importer(importer *im) {
    for (size_t i = 0; i < im->capacity && im->values; i++)
        free(im->values[i].constant.data);
    free(im->values);
    restore_chains(im);
    ptq_model_free(im->model);
    onnx_close(&im->file);
}

int import_onnx(const char *path, ptq_model **out) {
    importer *im = calloc(1, sizeof *im);
    int status;

    if (!im)
        return fail("no memory to import %s", path);
    im->refused = calloc(1, sizeof *im->refused);
    status = !im->refused ? fail("no memory to import %s", path)
                          : onnx_open(path, &im->file) || import_graph(im, out);
    close_importer(im);
    free(im->refused);
    free(im);
    return status;
}

#endif
