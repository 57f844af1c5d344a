/* The graph's own input and outputs: which of them the model has, in which order, and what is said
   of the others. */
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* ---- Which output is kept ---- */

/* Nodes stand in the order in which they run, so that the last output made is what the network is
   for; others on the way to it are features, and those of other branches would take a model with
   several results. */
int find_kept(importer *im) {
    const Onnx__GraphProto *graph = im->graph;

    for (size_t i = 0; i < graph->n_output; i++) {
        value *out = find_value(im, text_or(graph->output[i]->name, "?"));

        if (!out)
            return fail("%s: the graph's output '%.200s' is made by no node", im->file.path,
                        text_or(graph->output[i]->name, "?"));
        out->output = 1;
    }
    for (size_t i = 0; i < graph->n_node; i++)
        for (size_t k = 0; k < graph->node[i]->n_output; k++) {
            value *made = find_value(im, text_or(graph->node[i]->output[k], "?"));

            if (made->output)
                im->kept = made;
        }
    return im->kept ? 0 : fail("%s: the graph has no output that a node makes", im->file.path);
}

/* ---- Order and codes ---- */

/* Whether a value is what its node gives in the end: real numbers that integer arithmetic has
   quantized since are not. */
static int is_whole(const importer *im, const value *out) {
    const ptq_node *node = &im->model->node[out->node];

    return out->state != STATE_PENDING ||
           (node->op == PTQ_OP_DENSE && node->q.type == PTQ_TYPE_F32);
}

/* The model's node that has an output in real numbers, or in codes as the last. */
static int shown_node(const importer *im, const value *out) {
    return out->state == STATE_DEQUANTIZED && im->real[out->node] ? im->real[out->node] : out->node;
}

/* Real numbers, or codes with a scale, in an order that the model has. */
int check_outputs(importer *im) {
    value *out = im->kept;
    int real = out->state == STATE_REAL;
    const char *path = im->file.path;

    if (out->state == STATE_CONSTANT || out->state == STATE_UNKNOWN)
        return fail("%s: the graph's output '%.200s' is %s", path, out->name,
                    out->state == STATE_CONSTANT ? "a constant" : "a second result of its node");
    if (shown_node(im, out) == 0)
        return fail(
            "%s: the graph's output '%.200s' is its input, scaled, coded or in another layout; "
            "a model needs an operator",
            path, out->name);
    if (!is_whole(im, out))
        return fail("%s: the graph's output '%.200s' is the result of integer arithmetic, but was "
                    "not quantized",
                    path, out->name);
    if (is_padded(out) && (!real || out->lowest))
        return fail("%s: the graph's output '%.200s' is padded, with the lowest number or behind "
                    "codes, which is not supported; leave the last Pad out",
                    path, out->name);
    if (is_padded(out) && pad_pixels(im, out))
        return 1;
    if (view_rank(out->view) != 4 && is_permuted(im, out) && real &&
        shape_of(im, out)[0] <= PTQ_MAX_KERNEL && shape_of(im, out)[1] <= PTQ_MAX_KERNEL)
        return flatten_pixels(im, out);
    if (view_rank(out->view) != 4 && is_permuted(im, out))
        return fail("%s: the graph's output '%.200s' is flattened in the order C, H, W, but a "
                    "model's results lie in the order H, W, C; leave the last Flatten or Reshape "
                    "out, or put a Transpose to NHWC in front of it",
                    path, out->name);
    return 0;
}

/* ---- What is said and recorded ---- */

/* Whether a model can give an output: numbers of a node, in an order that the model has. */
static int is_result(const importer *im, const value *out) {
    return out->state > STATE_CONSTANT && is_whole(im, out) && shown_node(im, out) > 0 &&
           !is_padded(out) && !(view_rank(out->view) != 4 && is_permuted(im, out));
}

/* A result is called as the file has it, as far as names may go; what the model knows as an image
   and the file as a row is remembered. */
static void name_output(importer *im, const value *out, ptq_node *node, int number) {
    char name[PTQ_NAME_SIZE], words[ONNX_WORDS_SIZE] = "";
    const char *known = ptq_model_get_meta(im->model, ONNX_ROWS_META);

    node->output = number;
    make_name(im, out->name, name);
    if (strcmp(node->name, node->out) == 0 && ptq_model_find(im->model, out->name) < 0)
        memcpy(node->out, name, sizeof name);
    if (view_rank(out->view) != 2 || node->op == PTQ_OP_DENSE)
        return;
    if (known)
        strcpy(words, known);
    onnx_add_words(words, out->name);
    ptq_model_set_meta(im->model, ONNX_ROWS_META, words, NULL);
}

/* Where the graph has several results, and the model too, they are numbered: the classes', which is
   the one made last, first, then the others in the file's order. Logits in front of a softmax are no
   second result: the model has both anyway. */
void number_outputs(importer *im) {
    int kept = shown_node(im, im->kept), logits = ptq_model_logits(im->model), number = 1;

    for (size_t i = 0; i < im->graph->n_output; i++) {
        const value *out = find_value(im, im->graph->output[i]->name);
        int index = out == im->kept || !is_result(im, out) ? kept : shown_node(im, out);

        if (index != kept && index != logits && !im->model->node[index].output)
            name_output(im, out, &im->model->node[index], ++number);
    }
    if (number == 1)
        return;
    name_output(im, im->kept, &im->model->node[kept], 1);
    for (size_t i = 0; i < im->graph->n_output; i++) {
        const value *out = find_value(im, im->graph->output[i]->name);

        if (is_result(im, out) && shown_node(im, out) == logits && logits != kept)
            name_output(im, out, &im->model->node[logits], ++number);
    }
}

/* The kept output, under this or another name, or the logits in front of a softmax. */
static int is_had(const importer *im, const value *out) {
    int logits = ptq_model_logits(im->model), last = im->model->nodes - 1;

    if (out == im->kept)
        return 1;
    return is_result(im, out) && (im->model->node[shown_node(im, out)].output ||
                                  shown_node(im, out) == last || shown_node(im, out) == logits);
}

/* Whether the graph gives the numbers in front of the last node, too. */
static int has_logits(const importer *im) {
    for (size_t i = 0; i < im->graph->n_output; i++) {
        const value *out = find_value(im, im->graph->output[i]->name);

        if (is_had(im, out) && shown_node(im, out) == ptq_model_logits(im->model))
            return 1;
    }
    return 0;
}

static void tell_output(const importer *im, const char *name) {
    const value *out = find_value(im, name);
    const char *path = im->file.path;
    const ptq_node *node;

    if (!is_had(im, out)) {
        warn("%s: output '%.100s' is dropped: it is padded, or in an order that a model does not "
             "have; there is '%.100s'",
             path, name, im->kept->name);
        return;
    }
    node = &im->model->node[shown_node(im, out)];
    if (strcmp(node->out, name) != 0)
        say("%s: output '%.100s' is called '%s'\n", path, name, node->out);
    if (node->op == PTQ_OP_SOFTMAX && !has_logits(im))
        say("%s: output '%.100s' is probabilities; 'ptq run' writes the logits in front of its "
            "Softmax\n",
            path, name);
    if (is_permuted(im, out))
        say("%s: output '%.100s' is N x C x H x W in the file; the model's results lie in the "
            "order "
            "H, W, C\n",
            path, name);
    if (out->state == STATE_CODES)
        say("%s: output '%.100s' is codes in the file; the model's results are the real numbers "
            "that they stand for\n",
            path, name);
}

/* Numbers stay in single precision where the file rounds them to half. */
static void tell_precision(const importer *im) {
    int input = im->input->type->tensor_type->elem_type == ONNX_FLOAT16;

    if (input || im->half)
        warn("%s: from %s '%.100s' on the file computes in FLOAT16, the model in single precision; "
             "the results differ by the rounding",
             im->file.path, input ? "input" : "node",
             input ? text_or(im->input->name, "?") : node_label(im->half));
}

/* The input as the file has it, and in the one form that an export gives it. */
static int tell_input(importer *im) {
    int nhwc = find_value(im, im->input->name)->view == VIEW_NHWC;
    char words[ONNX_WORDS_SIZE];
    ptq_error err;
    const Onnx__TypeProto__Tensor *type = im->input->type->tensor_type;
    int dim[3];

    for (int i = 0; i < 3; i++)
        dim[i] = (int)type->shape->dim[i + 1]->dim_value;
    onnx_input_words(words, im->input->name, type->elem_type, nhwc, dim);
    if (type->elem_type != ONNX_FLOAT || nhwc)
        say("%s: input %s; the model takes pixels H x W x C, and an export has FLOAT, "
            "NCHW\n",
            im->file.path, words);
    return ptq_model_set_meta(im->model, ONNX_INPUT_META, words, &err) ? refuse_as(im, err.text)
                                                                       : 0;
}

int describe_interface(importer *im) {
    char words[ONNX_WORDS_SIZE] = "";
    ptq_error err;

    for (size_t i = 0; i < im->graph->n_output; i++) {
        tell_output(im, im->graph->output[i]->name);
        onnx_add_words(words, im->graph->output[i]->name);
    }
    tell_precision(im);
    if (im->real_layer)
        say("%s: from node '%.100s' on, what reads codes and is not quantized behind computes in "
            "float\n",
            im->file.path, node_label(im->real_layer));
    if (ptq_model_set_meta(im->model, ONNX_OUTPUTS_META, words, &err))
        return refuse_as(im, err.text);
    return tell_input(im);
}

#endif
