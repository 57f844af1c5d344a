/* Codes of tensors, their clamps, and what a node reads: an operand in codes or in real numbers. */
#include <string.h>

#include "export/onnx_export.h"

#ifdef PTQ_HAVE_onnx

/* ---- Codes ---- */

coded add_codes(exporter *ex, const char *name, const ptq_qparams *q) {
    coded made;

    made.codes = make_text(ex, "%s.codes", name);
    made.scale = add_floats(ex, make_text(ex, "%s.scale", name), 0, NULL, &q->scale, 1);
    made.zero_point = add_code(ex, make_text(ex, "%s.zero_point", name), q->type, q->zero_point);
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

/* ONNX operators saturate at the ends of 8 bits; whatever lies further inside takes a Clip. */
codes_made begin_codes(exporter *ex, const char *name, const ptq_qparams *q, ptq_activation act) {
    codes_made made;
    int32_t low, high, bottom, top;

    made.to = add_codes(ex, name, q);
    made.q = q;
    made.act = act;
    clamp_range(q, act, &low, &high);
    ptq_code_range(q->type, 8, &bottom, &top);
    made.raw =
        low == bottom && high == top ? made.to.codes : make_text(ex, "%s.unclamped", made.to.codes);
    return made;
}

coded end_codes(exporter *ex, const codes_made *made, const char *clip) {
    const coded *to = &made->to;
    int32_t low, high;
    const char *least, *most;

    if (made->raw == to->codes)
        return *to;
    clamp_range(made->q, made->act, &low, &high);
    least = add_code(ex, make_text(ex, "%s.least", to->codes), made->q->type, low);
    most = add_code(ex, make_text(ex, "%s.most", to->codes), made->q->type, high);
    add_node(ex, NULL, "Clip", clip, to->codes, made->raw, least, most, NO_MORE);
    return *to;
}

coded quantize_tensor(exporter *ex, const char *real, const char *name, const ptq_node *node,
                      const ptq_qparams *q) {
    codes_made made = begin_codes(ex, name, q, PTQ_ACTIVATION_NONE);
    const char *step =
        node->op == PTQ_OP_QUANTIZE ? node->name : make_text(ex, "%s.quantize", name);

    add_node(ex, NULL, "QuantizeLinear", step, made.raw, real, made.to.scale, made.to.zero_point,
             NO_MORE);
    return end_codes(ex, &made, make_text(ex, "%s.clip", name));
}

/* The node that computes a tensor of that name exists already. */
static int exists(const exporter *ex, const char *name) {
    for (size_t i = 0; i < ex->graph.n_node; i++)
        if (strcmp(ex->graph.node[i]->output[0], name) == 0)
            return 1;
    return 0;
}

const char *dequantize_tensor(exporter *ex, const char *codes, const coded *q) {
    const char *made = make_text(ex, "%s.dequantized", codes);

    if (!exists(ex, made))
        add_node(ex, NULL, "DequantizeLinear", make_text(ex, "%s.dequantize", codes), made, codes,
                 q->scale, q->zero_point, NO_MORE);
    return made;
}

/* ---- Operands ---- */

/* The tensor with the rank that its reader needs: 2 for dense layers, 4 for everything over
   space. */
static const char *with_rank(exporter *ex, const char *name, const ptq_node *node, int has,
                             int rank) {
    const char *made = make_text(ex, rank == 2 ? "%s.flat" : "%s.spatial", name);
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
        put_le(bytes + 8 * i, (uint64_t)dims[i], 8);
    return add_node(ex, NULL, "Reshape", made, made, name,
                    add_constant(ex, make_text(ex, "%s.shape", made), ONNX_INT64, 1, &four, bytes),
                    NO_MORE);
}

const char *codes_of(exporter *ex, int node, int rank) {
    const result *from = &ex->results[node];

    return with_rank(ex, from->q.codes, &ex->model->node[node], from->rank, rank);
}

const char *real_of(exporter *ex, int node, int rank) {
    const result *from = &ex->results[node];

    if (from->q.codes)
        return dequantize_tensor(ex, codes_of(ex, node, rank), &from->q);
    return with_rank(ex, from->real, &ex->model->node[node], from->rank, rank);
}

int is_coded(const ptq_node *node) { return node->q.type != PTQ_TYPE_F32; }

#endif
