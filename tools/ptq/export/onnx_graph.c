/* ptq models as ONNX files, for ptq export: inputs, outputs, metadata, and export_onnx itself. */
#include <stdlib.h>
#include <string.h>

#include "export/onnx_export.h"
#include "shared/engine.h"

#ifdef PTQ_HAVE_onnx

#define OPSET 13
#define IR_VERSION 7

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

/* ---- Outputs ---- */

/* Name number i of a list that the file left from which the model came; "" if there is none, or if
   it was cut. */
static void had_name(const exporter *ex, const char *list, int i, char name[PTQ_NAME_SIZE]) {
    const char *from = ptq_model_get_meta(ex->model, list), *end = NULL;

    *name = 0;
    for (from = from ? strchr(from, '\'') : NULL; from; from = strchr(end + 1, '\'')) {
        end = strchr(++from, '\'');
        if (!end)
            return;
        if (i-- == 0 && end - from < PTQ_NAME_SIZE - 4) {
            memcpy(name, from, (size_t)(end - from));
            name[end - from] = 0;
            return;
        }
    }
}

static int count_had(const exporter *ex, const char *list) {
    const char *from = ptq_model_get_meta(ex->model, list);
    int quotes = 0;

    for (; from && *from; from++)
        quotes += *from == '\'';
    return quotes / 2;
}

static int was_row(const exporter *ex, const char *name) {
    char row[PTQ_NAME_SIZE];

    for (int i = 0; i < count_had(ex, ONNX_ROWS_META); i++) {
        had_name(ex, ONNX_ROWS_META, i, row);
        if (*row && strcmp(row, name) == 0)
            return 1;
    }
    return 0;
}

/* A tensor gets another name wherever it stands; not one that another tensor has. */
static const char *rename_tensor(exporter *ex, const char *old, const char *name) {
    char *made = make_text(ex, "%s", name);

    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < ex->graph.n_node; i++) {
            Onnx__NodeProto *node = ex->graph.node[i];

            for (size_t k = 0; k < node->n_output + node->n_input; k++) {
                char **at =
                    k < node->n_output ? &node->output[k] : &node->input[k - node->n_output];

                if (pass == 0 && strcmp(*at, name) == 0)
                    return old;
                if (pass == 1 && strcmp(*at, old) == 0)
                    *at = made;
            }
        }
    return made;
}

static void put_output(exporter *ex, int index, const char *wanted) {
    result *from = &ex->results[index];
    int rank = was_row(ex, wanted) ? 2 : from->rank;
    const char *name = real_of(ex, index, rank);

    if (*wanted)
        name = rename_tensor(ex, name, wanted);
    ex->graph.output[ex->graph.n_output++] = describe(ex, name, &ex->model->node[index], rank);
}

/* The numbered results, in the order of the file that they came from. */
static void add_numbered(exporter *ex) {
    char done[PTQ_MAX_NODES] = {0}, name[PTQ_NAME_SIZE];
    int index;

    for (int i = 0; i < count_had(ex, ONNX_OUTPUTS_META); i++) {
        had_name(ex, ONNX_OUTPUTS_META, i, name);
        index = *name ? ptq_model_find(ex->model, name) : -1;
        if (index >= 0 && ex->model->node[index].output && !done[index]++)
            put_output(ex, index, name);
    }
    for (int i = 1; (index = ptq_model_output(ex->model, i)) >= 0; i++)
        if (!done[index])
            put_output(ex, index, "");
}

/* Otherwise the logits, and behind them the probabilities where the model has them; or the one result
   of the file that it came from. */
static void add_outputs(exporter *ex) {
    int logits = ptq_model_logits(ex->model), last = ex->model->nodes - 1;
    char name[PTQ_NAME_SIZE] = "";

    ex->graph.output = grab(ex, ((size_t)ex->model->nodes + 2) * sizeof(void *));
    if (ptq_model_output(ex->model, 1) >= 0) {
        add_numbered(ex);
        return;
    }
    if (count_had(ex, ONNX_OUTPUTS_META) == 1)
        had_name(ex, ONNX_OUTPUTS_META, 0, name);
    if (logits != last && !*name)
        put_output(ex, logits, "");
    put_output(ex, last, name);
}

/* ---- The file ---- */

static void add_metadata(exporter *ex, Onnx__ModelProto *onnx) {
    const ptq_model *model = ex->model;

    onnx->metadata_props = grab(ex, ((size_t)model->metas + 1) * sizeof(void *));
    for (int i = 0; i < model->metas; i++) {
        Onnx__StringStringEntryProto *entry = grab(ex, sizeof *entry);

        if (strcmp(model->meta[i].key, "self_test") == 0 ||
            strcmp(model->meta[i].key, ONNX_INPUT_META) == 0 ||
            strcmp(model->meta[i].key, ONNX_OUTPUTS_META) == 0 ||
            strcmp(model->meta[i].key, ONNX_ROWS_META) == 0)
            continue;
        onnx__string_string_entry_proto__init(entry);
        entry->key = make_text(ex, "ptq.%s", model->meta[i].key);
        entry->value = model->meta[i].value;
        onnx->metadata_props[onnx->n_metadata_props++] = entry;
    }
}

/* One line for each of input and outputs where a model that came from an ONNX file had another. */
static void tell_interface(const exporter *ex, const char *path) {
    const char *input = ptq_model_get_meta(ex->model, ONNX_INPUT_META);
    const char *outputs = ptq_model_get_meta(ex->model, ONNX_OUTPUTS_META);
    const ptq_node *node = &ex->model->node[0];
    const int dim[] = {node->shape[2], node->shape[0], node->shape[1]};
    char words[ONNX_WORDS_SIZE];

    onnx_input_words(words, node->name, ONNX_FLOAT, 0, dim);
    if (input && strcmp(input, words) != 0)
        say("%s: the input is %s; the file that the model was imported from had %s\n", path, words,
            input);
    words[0] = 0;
    for (size_t i = 0; i < ex->graph.n_output; i++)
        onnx_add_words(words, ex->graph.output[i]->name);
    if (outputs && strcmp(outputs, words) != 0)
        say("%s: outputs are %s; the file that the model was imported from had %s\n", path, words,
            outputs);
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

    if (!has_onnx_arithmetic(ex->model))
        return fail("the model has TensorFlow Lite's arithmetic, and ONNX Runtime would give other "
                    "codes; write it with --tflite, or quantize without --arithmetic");
    onnx__graph_proto__init(&ex->graph);
    ex->graph.name = writable("ptq");
    ex->graph.input = grab(ex, sizeof(void *));
    ex->graph.input[ex->graph.n_input++] = describe(ex, input->name, input, 4);
    ex->results = grab(ex, (size_t)ex->model->nodes * sizeof *ex->results);
    for (int i = 0; i < ex->model->nodes; i++)
        if (export_node(ex, i))
            return 1;
    add_outputs(ex);
    if (write_file(ex, path))
        return 1;
    tell_interface(ex, path);
    return 0;
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

#endif
