/* Concat: a chain of the model's nodes becomes one of ONNX's. */
#include <string.h>

#include "export/onnx_export.h"

#ifdef PTQ_HAVE_onnx

/* One that reads a tensor, if there is but one. */
static const ptq_node *only_reader(const ptq_model *model, int index) {
    const ptq_node *reader = NULL;

    for (int i = index + 1; i < model->nodes; i++)
        for (int k = 0; k < 2; k++)
            if (model->node[i].input[k] == index) {
                if (reader)
                    return NULL;
                reader = &model->node[i];
            }
    return reader;
}

static int same_codes(const ptq_qparams *a, const ptq_qparams *b) {
    return a->type == b->type && a->bits == b->bits && a->zero_point == b->zero_point &&
           !(a->scale < b->scale) && !(a->scale > b->scale);
}

int is_link(const exporter *ex, int index) {
    const ptq_node *node = &ex->model->node[index], *reader;

    if (node->op != PTQ_OP_CONCAT)
        return 0;
    reader = only_reader(ex->model, index);
    return reader && reader->op == PTQ_OP_CONCAT && same_codes(&node->q, &reader->q);
}

/* Calls itself for links; `inputs` gets one or, of codes, three names an operand from place n on.
   NULL: they are only counted. */
static size_t add_operands(exporter *ex, const ptq_node *node, int rank, const char **inputs,
                           size_t n) {
    int integer = ex->integer && is_coded(node);

    for (int k = 0; k < 2; k++) {
        int from = node->input[k];

        if (is_link(ex, from)) {
            n = add_operands(ex, &ex->model->node[from], rank, inputs, n);
            continue;
        }
        if (inputs)
            inputs[n] = integer ? codes_of(ex, from, rank) : real_of(ex, from, rank);
        if (inputs && integer) {
            inputs[n + 1] = ex->results[from].q.scale;
            inputs[n + 2] = ex->results[from].q.zero_point;
        }
        n += integer ? 3 : 1;
    }
    return n;
}

/* The rank of the first operand of all. */
static int chain_rank(const exporter *ex, const ptq_node *node) {
    int from = node->input[0];

    return is_link(ex, from) ? chain_rank(ex, &ex->model->node[from]) : ex->results[from].rank;
}

void export_concat(exporter *ex, const ptq_node *node, result *to) {
    int integer = ex->integer && is_coded(node), rank = to->rank = chain_rank(ex, node);
    size_t count = add_operands(ex, node, rank, NULL, 0) + (integer ? 2 : 0);
    const char **inputs = grab(ex, count * sizeof *inputs);
    codes_made made = {{NULL, NULL, NULL}, node->name, NULL, PTQ_ACTIVATION_NONE};
    Onnx__NodeProto *concat;

    if (integer) {
        made = begin_codes(ex, node->out, &node->q, PTQ_ACTIVATION_NONE);
        inputs[0] = made.to.scale;
        inputs[1] = made.to.zero_point;
    }
    add_operands(ex, node, rank, inputs, integer ? 2 : 0);
    to->real =
        add_node(ex, &concat, integer ? "QLinearConcat" : "Concat", node->name, made.raw, NO_MORE);
    set_inputs(ex, concat, inputs, count);
    add_int(ex, concat, "axis", 1);
    if (!integer)
        return;
    set_microsoft(ex, concat);
    to->real = NULL;
    to->q = end_codes(ex, &made, make_text(ex, "%s.clip", node->name));
}

#endif
