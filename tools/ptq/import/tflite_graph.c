/* From the operators of a TensorFlow Lite file to a graph; and import_tflite itself. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "import/tflite_import.h"
#include "shared/names.h"

/* Fields: see the schema. */
enum { MODEL_CODES = 1, MODEL_SUBGRAPHS, MODEL_METADATA = 6 };
enum { METADATA_NAME, METADATA_BUFFER, BUFFER_DATA = 0 };
enum { CODE_BYTE = 0, CODE_BUILTIN = 3 }; /* the second since there are more than 127 */
enum { SUBGRAPH_INPUTS = 1, SUBGRAPH_OUTPUTS, SUBGRAPH_OPERATORS };
enum { OPERATOR_CODE, OPERATOR_INPUTS, OPERATOR_OUTPUTS, OPERATOR_OPTIONS = 4 };

enum {
    ACTIVATION_NONE = 0,
    ACTIVATION_RELU = 1,
    ACTIVATION_RELU6 = 3
}; /* ActivationFunctionType */

/* ---- Refusals ---- */

void tflite_refuse(tflite_importer *im, const char *format, ...) {
    char reason[PTQ_ERROR_SIZE], text[PTQ_ERROR_SIZE];
    va_list args;

    im->refused = 1;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    for (int i = 0; i < im->problems; i++)
        if (strstr(im->problem[i].text, reason)) {
            im->problem[i].same++;
            return;
        }
    if (im->problems == TFLITE_MOST_PROBLEMS) {
        im->unlisted++;
        return;
    }
    snprintf(text, sizeof text, "operator '%s' (%s): %.200s", im->name, im->operator->name, reason);
    memcpy(im->problem[im->problems++].text, text, sizeof text);
}

/* All of them: 1; 0 if there are none. */
static int tell_problems(const tflite_importer *im) {
    for (int i = 0; i < im->problems; i++) {
        char more[64] = "";

        if (im->problem[i].same)
            snprintf(more, sizeof more, " (and %d more)", im->problem[i].same);
        fail("%s: %s%s", im->path, im->problem[i].text, more);
    }
    if (im->unlisted)
        fail("%s: and %d more that cannot be imported", im->path, im->unlisted);
    return im->problems > 0;
}

/* ---- Operands and results ---- */

static int tensor_number(tflite_importer *im, flat_vector list, size_t i) {
    int64_t number = i < list.count ? flat_integer_at(&im->file, list, i, 4) : -1;

    return number >= 0 && number < im->tensors ? (int)number : -1;
}

tflite_tensor *tflite_operand(tflite_importer *im, size_t i) {
    int number = tensor_number(im, im->reads, i);

    return number < 0 ? NULL : &im->tensor[number];
}

tflite_tensor *tflite_result(tflite_importer *im) {
    return &im->tensor[tensor_number(im, im->makes, 0)];
}

static int is_padded(const tflite_tensor *tensor) {
    return tensor->pad[0] || tensor->pad[1] || tensor->pad[2] || tensor->pad[3];
}

int tflite_node(tflite_importer *im, size_t i, int *pad) {
    const tflite_tensor *from = tflite_operand(im, i);

    if (!from || from->data.count || from->constant >= 0) {
        tflite_refuse(im, "operand %zu is missing or constant, and must be computed from the input",
                      i);
        return -1;
    }
    if (from->node < 0) {
        im->refused = 1; /* what makes it was refused: its reason is enough */
        return -1;
    }
    if (is_padded(from) && !pad) {
        tflite_refuse(im, "it follows a PAD; only convolutions can take padding in");
        return -1;
    }
    if (pad)
        memcpy(pad, from->pad, sizeof from->pad);
    return from->node;
}

tflite_tensor *tflite_constant(tflite_importer *im, size_t i, const char *what) {
    tflite_tensor *from = tflite_operand(im, i);

    if (from && from->constant >= 0)
        from = &im->tensor[from->constant];
    if (!from || !from->data.count || from->rank < 0 || from->sparse || !tflite_width(from->type)) {
        tflite_refuse(im, "its %s must be dense constants of the file, of at most %d dimensions",
                      what, TFLITE_MOST_RANK);
        return NULL;
    }
    return from;
}

void tflite_same(tflite_importer *im, const tflite_tensor *from) {
    tflite_tensor *to = tflite_result(im);

    to->node = from->node;
    to->constant = from->constant;
    memcpy(to->pad, from->pad, sizeof to->pad);
}

/* The builder keeps its first failure, and would do nothing from then on; here the other operators
   are to be looked at as well. */
static int is_built(tflite_importer *im, int index) {
    if (index >= 0)
        return 1;
    tflite_refuse(im, "%s", im->model->error.text);
    memset(&im->model->error, 0, sizeof im->model->error);
    return 0;
}

/* Where integers are clamped anyway; else the activation is a node of its own. */
static int takes_activation(const ptq_node *node) {
    return node->dynamic ||
           (node->q.type != PTQ_TYPE_F32 &&
            (node->op == PTQ_OP_CONV2D || node->op == PTQ_OP_DENSE || node->op == PTQ_OP_ADD));
}

void tflite_finish(tflite_importer *im, int index, int64_t activation) {
    tflite_tensor *to = tflite_result(im);
    int relu6 = activation == ACTIVATION_RELU6;
    char name[PTQ_NAME_SIZE];
    ptq_qparams q;

    if (!is_built(im, index))
        return;
    if (activation != ACTIVATION_NONE && activation != ACTIVATION_RELU && !relu6) {
        tflite_refuse(im, "its fused activation is neither RELU nor RELU6; make it an operator of "
                          "its own");
        return;
    }
    if (tflite_qparams(im, to, &q)) {
        im->coded = 1;
        im->model->node[index].q = q;
    }
    if (activation && takes_activation(&im->model->node[index])) {
        im->model->node[index].act = relu6 ? PTQ_ACTIVATION_RELU6 : PTQ_ACTIVATION_RELU;
    } else if (q.type == PTQ_TYPE_F32 && to->type != TFLITE_FLOAT32) {
        tflite_refuse(im, "its result is neither float nor int8 with one scale; convert the model "
                          "to int8 with activations of 8 bits");
        return;
    } else if (activation) {
        unique_name(im->model, im->model->node[index].name, ".relu", name);
        index = ptq_add_op(im->model, relu6 ? PTQ_OP_RELU6 : PTQ_OP_RELU, name, index);
        if (!is_built(im, index))
            return;
        im->model->node[index].q = q;
    }
    to->node = index;
}

/* ---- Names ---- */

/* Tensors are called after all layers that were fused into what makes them, separated by
   semicolons, each as a path: "model/activation/Relu;model/conv2d_3/BiasAdd". The part with the
   operator's word names the layer: conv2d_3. Without it the word itself does. */
static int find_part(const char *name, const char *word, const char **begin, size_t *length) {
    while (*name) {
        size_t n = strcspn(name, "/;");

        for (size_t i = 0; i + strlen(word) <= n; i++)
            if (name[n] == '/' && strncasecmp(name + i, word, strlen(word)) == 0) {
                *begin = name;
                *length = n;
                return 1;
            }
        name += n + (name[n] != 0);
    }
    return 0;
}

/* A name without a path is the layer's own, unless it is the one that the converter gives to
   results. */
static int is_plain(const char *name) {
    static const char legal[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";

    return *name && !name[strspn(name, legal)] && strncmp(name, "Identity", 8) != 0;
}

/* By its result, or by the constant that it reads. */
static void name_operator(tflite_importer *im) {
    int by[2] = {tensor_number(im, im->reads, 1), tensor_number(im, im->makes, 0)};
    char names[TFLITE_NAME_SIZE], part[PTQ_NAME_SIZE];
    const char *begin = im->operator->word;
    size_t length = strlen(begin);

    tflite_tensor_name(im, by[1], names, sizeof names);
    if (is_plain(names)) {
        unique_name(im->model, names, "", im->name);
        return;
    }
    for (int k = 0; k < 2; k++) {
        tflite_tensor_name(im, by[k] < 0 ? 0 : by[k], names, sizeof names);
        if (by[k] >= 0 && find_part(names, im->operator->word, &begin, &length))
            break;
    }
    snprintf(part, sizeof part, "%.*s", (int)(length < sizeof part ? length : sizeof part - 1),
             begin);
    unique_name(im->model, part, "", im->name);
}

/* ---- The graph ---- */

static const tflite_operator unknown = {-1, "not known here", "operator", NULL,
                                        "ptq has no such operator"};

static int begin_operator(tflite_importer *im, flat_table table, flat_vector codes) {
    int64_t number = flat_integer(&im->file, table, OPERATOR_CODE, 4, 0), code = -1;

    if (number >= 0 && (size_t)number < codes.count) {
        flat_table entry = flat_table_at(&im->file, codes, (size_t)number);
        int64_t old = flat_integer(&im->file, entry, CODE_BYTE, 1, 0);

        code = flat_integer(&im->file, entry, CODE_BUILTIN, 4, 0);
        code = old > code ? old : code;
    }
    im->operator= tflite_find_operator((int)code);
    if (!im->operator)
        im->operator= & unknown;
    im->options = flat_child(&im->file, table, OPERATOR_OPTIONS);
    im->reads = flat_list(&im->file, table, OPERATOR_INPUTS, 4);
    im->makes = flat_list(&im->file, table, OPERATOR_OUTPUTS, 4);
    im->refused = 0;
    if (tensor_number(im, im->makes, 0) < 0)
        return fail("%s: operator %s makes no tensor of the graph", im->path, im->operator->name);
    name_operator(im);
    return 0;
}

static int import_operators(tflite_importer *im, flat_table model, flat_table subgraph) {
    flat_vector codes = flat_list(&im->file, model, MODEL_CODES, 4);
    flat_vector operators = flat_list(&im->file, subgraph, SUBGRAPH_OPERATORS, 4);

    if (operators.count > PTQ_MAX_NODES)
        return fail("%s: %zu operators; at most %d can be imported", im->path, operators.count,
                    PTQ_MAX_NODES);
    for (size_t i = 0; i < operators.count; i++) {
        if (begin_operator(im, flat_table_at(&im->file, operators, i), codes))
            return 1;
        for (size_t k = 0; k < im->reads.count && k < TFLITE_MOST_TENSORS; k++)
            if (tflite_operand(im, k))
                tflite_operand(im, k)->uses++;
        if (im->operator->import)
            im->operator->import(im);
        else
            tflite_refuse(im, "%s", im->operator->why);
    }
    return 0;
}

/* ---- Input and output ---- */

/* Pictures have three channels, or one and the same height and width; other inputs are real numbers,
   until --input says otherwise. */
static int is_picture(const int *shape) {
    return shape[2] == 3 || (shape[2] == 1 && shape[0] == shape[1]);
}

/* TensorFlow Lite's converter, and MLPerf Tiny, feed int8 models with pixel - 128: preprocessing
   is chosen so that each pixel is its own code, (pixel - mean) / std = scale (pixel - 128 - zp).
   Real numbers come in as they are, and a node behind the input makes codes of them. */
int tflite_code_input(tflite_importer *im, const ptq_qparams *q) {
    ptq_model *model = im->model;
    char name[PTQ_NAME_SIZE];
    int index = 0;

    if (model->node[0].real) {
        unique_name(model, "quantize", "", name);
        index = ptq_add_op(model, PTQ_OP_QUANTIZE, name, 0);
    }
    im->coded = 1;
    model->node[index].q = *q;
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS && !index; c++) {
        model->mean[c] = (float)(q->zero_point + 128);
        model->std[c] = 1 / q->scale;
    }
    return index;
}

static int import_input(tflite_importer *im, flat_table subgraph) {
    flat_vector inputs = flat_list(&im->file, subgraph, SUBGRAPH_INPUTS, 4);
    int number = tensor_number(im, inputs, 0), shape[3] = {1, 1, 1}, index;
    char name[PTQ_NAME_SIZE];
    tflite_tensor *input;
    ptq_qparams q;

    if (inputs.count != 1 || number < 0)
        return fail("%s: the graph has %zu inputs; a network with one can be imported", im->path,
                    inputs.count);
    input = &im->tensor[number];
    if (input->rank < 2 || input->dim[0] != 1 || input->data.count)
        return fail(
            "%s: its input must be 1 x H x W x C, or 1 x K; make the file with a batch of 1",
            im->path);
    if (input->rank == 2) /* features stand in a row */
        shape[1] = input->dim[1];
    else
        memcpy(shape + (4 - input->rank), input->dim + 1, (size_t)(input->rank - 1) * sizeof(int));
    unique_name(im->model, "input", "", name);
    index = is_picture(shape) ? ptq_add_input(im->model, name, shape[0], shape[1], shape[2])
                              : ptq_add_real_input(im->model, name, shape[0], shape[1], shape[2]);
    if (index < 0)
        return fail("%s: %s", im->path, im->model->error.text);
    input->node = 0;
    if (tflite_qparams(im, input, &q))
        input->node = tflite_code_input(im, &q);
    else if (input->type != TFLITE_FLOAT32 && input->type != TFLITE_UINT8)
        return fail("%s: its input is neither float nor int8 or uint8 with one scale; convert the "
                    "model with one of these as its input's type",
                    im->path);
    im->input = number;
    return 0;
}

/* The first result is the classes'. Several are numbered as they stand. */
static int number_outputs(tflite_importer *im, flat_vector outputs) {
    for (size_t i = 0; i < outputs.count && outputs.count > 1; i++) {
        int number = tensor_number(im, outputs, i);
        const tflite_tensor *output = number < 0 ? NULL : &im->tensor[number];

        if (!output || output->node < 1 || is_padded(output) ||
            im->model->node[output->node].output)
            return fail("%s: output %zu is not computed by the operators, ends in a PAD, or stands "
                        "for another one too",
                        im->path, i);
        im->model->node[output->node].output = (int)i + 1;
    }
    return 0;
}

static int import_output(tflite_importer *im, flat_table subgraph) {
    flat_vector outputs = flat_list(&im->file, subgraph, SUBGRAPH_OUTPUTS, 4);
    const tflite_tensor *output;

    im->output = tensor_number(im, outputs, 0);
    if (im->output < 0)
        return fail("%s: the graph has no output", im->path);
    output = &im->tensor[im->output];
    if (output->node < 1 || is_padded(output))
        return fail("%s: its output is not computed by the operators, or ends in a PAD", im->path);
    if (outputs.count > 1)
        return number_outputs(im, outputs);
    if (output->node != im->model->nodes - 1)
        return fail("%s: operators behind its output compute what nobody reads; write the file "
                    "anew without them",
                    im->path);
    return 0;
}

/* ---- The file ---- */

/* Integers follow TensorFlow Lite's arithmetic, which the model says. */
static int set_arithmetic(tflite_importer *im) {
    const char *arithmetic = im->given->arithmetic;
    ptq_error err;

    if (!im->coded)
        return arithmetic ? fail("%s computes with real numbers; leave out --arithmetic", im->path)
                          : 0;
    if (!arithmetic && !(arithmetic = ptq_model_get_meta(im->model, "arithmetic")))
        arithmetic = "xnnpack";
    if (ptq_model_set_meta(im->model, "arithmetic", arithmetic, &err))
        return fail("%s: %s", im->path, err.text);
    return 0;
}

/* What ptq export writes beside the network: preprocessing, and metadata of the model file. */
static int read_metadata(tflite_importer *im, flat_table model) {
    flat_vector entries = flat_list(&im->file, model, MODEL_METADATA, 4);
    char name[64], text[4096];
    ptq_error err;

    for (size_t i = 0; i < entries.count && i < TFLITE_MOST_TENSORS; i++) {
        flat_table entry = flat_table_at(&im->file, entries, i);
        int64_t buffer = flat_integer(&im->file, entry, METADATA_BUFFER, 4, 0);
        flat_table holder = {0, 0, 0};
        flat_vector data;

        flat_text(&im->file, entry, METADATA_NAME, name, sizeof name);
        if (buffer < 0 || (size_t)buffer >= im->buffers.count || strncmp(name, "ptq.", 4) != 0)
            continue;
        holder = flat_table_at(&im->file, im->buffers, (size_t)buffer);
        data = flat_list(&im->file, holder, BUFFER_DATA, 1);
        if (strcmp(name, "ptq.mean") == 0 || strcmp(name, "ptq.std") == 0) {
            float *to = strcmp(name, "ptq.mean") == 0 ? im->model->mean : im->model->std;
            size_t most = (size_t)im->model->node[0].shape[2]; /* other channels have none */

            most = most < PTQ_MAX_PIXEL_CHANNELS ? most : PTQ_MAX_PIXEL_CHANNELS;
            for (size_t c = 0; c < data.count / 4 && c < most; c++)
                to[c] = flat_real_at(&im->file, data, c);
            continue;
        }
        flat_text(&im->file, holder, BUFFER_DATA, text, sizeof text);
        if (*text && ptq_model_set_meta(im->model, name + 4, text, &err))
            return fail("%s: %s", im->path, err.text);
    }
    return 0;
}

static int tell_damage(const tflite_importer *im) {
    return im->file.damage == SIZE_MAX
               ? 0
               : fail("%s: what stands at byte %zu points out of the file, which is cut off or "
                      "damaged; write it anew",
                      im->path, im->file.damage);
}

static int import_graph(tflite_importer *im) {
    flat_table model = flat_root(&im->file), subgraph;
    flat_vector subgraphs = flat_list(&im->file, model, MODEL_SUBGRAPHS, 4);
    ptq_error err;

    if (tell_damage(im))
        return 1;
    if (!subgraphs.count)
        return fail("%s: there is no graph in it; the file is damaged", im->path);
    subgraph = flat_table_at(&im->file, subgraphs, 0);
    if (ptq_model_create(NULL, &im->model, &err))
        return fail("%s: %s", im->path, err.text);
    if (tflite_read_tensors(im, model, subgraph) || import_input(im, subgraph) ||
        import_operators(im, model, subgraph) || read_metadata(im, model) || tell_damage(im) ||
        tell_problems(im) || import_output(im, subgraph) || set_arithmetic(im))
        return 1;
    return ptq_model_check(im->model, &err) ? fail("%s: %s", im->path, err.text) : 0;
}

int import_tflite(const char *path, const tflite_options *options, ptq_model **out) {
    tflite_importer *im = calloc(1, sizeof *im);
    void *bytes = NULL;
    size_t size = 0;
    ptq_error err;
    int status;

    if (!im)
        return fail("no memory to import %s", path);
    im->path = path;
    im->given = options;
    if (ptq_file_read(path, 0, NULL, &bytes, &size, &err)) {
        free(im);
        return fail("%s", err.text);
    }
    flat_open(bytes, size, &im->file);
    status = import_graph(im);
    ptq_bytes_free(bytes, NULL);
    free(im->tensor);
    if (status)
        ptq_model_free(im->model);
    else
        *out = im->model;
    free(im);
    return status;
}
