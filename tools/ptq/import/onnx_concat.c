/* Concat along the channels, on real numbers and on codes: of two tensors a node of the model, of more
   a chain, whose links have the codes of its end. */
#include <stdio.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* Whether a tensor can stand beside another one: the channels of both lie along the axis. */
static int check_operand(const importer *im, const value *first, const value *next) {
    const int *a = shape_of(im, first), *b = shape_of(im, next);
    int64_t axis = int_attribute(im, "axis", 1);
    int flat = view_rank(next->view) == 2;

    axis += axis < 0 ? view_rank(next->view) : 0;
    if (axis != channel_axis(next->view) ||
        (flat && !is_pixel(im, next) && next->view != VIEW_FLAT_CHW))
        return refuse(im, "tensors can be joined along their channels only; transpose in front of "
                          "it, or end the network there");
    if (next->view != first->view && !(flat && is_pixel(im, first) && is_pixel(im, next)))
        return refuse(im, "its operands lie in different layouts; transpose one of them");
    if (a[0] != b[0] || a[1] != b[1])
        return refuse(im,
                      "its operands are %dx%d and %dx%d; only equal heights and widths can be "
                      "joined",
                      a[0], a[1], b[0], b[1]);
    return 0;
}

/* One more link; `last`: it is the node at hand itself. */
static int add_link(importer *im, int joined, int next, int last) {
    char name[PTQ_NAME_SIZE], link[PTQ_NAME_SIZE + 8];

    node_name(im, name);
    if (!last) {
        snprintf(link, sizeof link, "%.50s.link", name);
        make_name(im, link, name);
    }
    joined = ptq_add_concat(im->model, name, joined, next);
    return joined < 0 ? refuse_as(im, im->model->error.text), -1 : joined;
}

void set_chain_codes(importer *im, int index, const ptq_qparams *q) {
    ptq_node *node = &im->model->node[index];
    int first = node->input[0];

    node->q = *q;
    if (node->op == PTQ_OP_CONCAT && im->model->node[first].op == PTQ_OP_CONCAT &&
        im->model->node[first].q.type == PTQ_TYPE_F32)
        set_chain_codes(im, first, q);
}

int import_concat(importer *im) {
    int count = (int)im->at->n_input, coded = 1, joined = -1;
    value *first = tensor_input(im, 0);

    if (!first)
        return 1;
    if (count == 1)
        return set_alias(im, first, first->view);
    for (int i = 0; i < count; i++) {
        value *next = tensor_input(im, (size_t)i);

        if (!next || check_operand(im, first, next))
            return 1;
        coded &= next->state == STATE_DEQUANTIZED;
    }
    coded = coded && computes_codes(im);
    for (int i = 0; i < count; i++) {
        const value *next = input_of(im, (size_t)i);
        int node = coded ? next->node : real_node(im, next);

        if (node < 0 || (i && (node = add_link(im, joined, node, i == count - 1)) < 0))
            return 1;
        joined = node;
    }
    return set_result(im, joined, first->view, coded ? STATE_PENDING : STATE_REAL);
}

/* Scale and zero point of the result stand first, then three inputs for each operand. */
int import_coded_concat(importer *im) {
    int count = ((int)im->at->n_input - 2) / 3, joined = -1;
    value *first = coded_input(im, 2);
    ptq_qparams q;

    if (!first || read_qparams(im, 0, PTQ_TYPE_U8, &q))
        return 1;
    for (int i = 0; i < count; i++) {
        value *next = coded_input(im, 2 + 3 * (size_t)i);
        int node;

        if (!next || check_operand(im, first, next))
            return 1;
        node = next->node;
        if (i && (node = add_link(im, joined, node, i == count - 1)) < 0)
            return 1;
        joined = node;
    }
    if (count < 2)
        return refuse(im, "it joins one tensor alone; leave it out");
    set_chain_codes(im, joined, &q);
    return set_result(im, joined, first->view, STATE_CODES);
}

#endif
