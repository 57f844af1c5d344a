/* Nodes that compute on real numbers in a model of integers. */
#include <stddef.h>

#include "shared/islands.h"

static int is_softmax(ptq_op op) { return op == PTQ_OP_SOFTMAX || op == PTQ_OP_LOG_SOFTMAX; }

int is_island(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index];

    if (index == 0 || node->op == PTQ_OP_QUANTIZE || node->op == PTQ_OP_DEQUANTIZE ||
        (is_softmax(node->op) && index == model->nodes - 1))
        return 0;
    return ptq_node_mode(model, index) != PTQ_MODE_INTEGER;
}

const char *island_reason(ptq_op op) {
    if (op == PTQ_OP_BATCH_NORM)
        return "no convolution could take it in";
    return is_softmax(op) ? "it has no integer kernel" : NULL;
}

const char *island_remedy(ptq_op op) {
    if (op == PTQ_OP_BATCH_NORM)
        return "before importing, fold it into a layer beside it, or move it directly behind a "
               "convolution that nothing else reads";
    return is_softmax(op) ? "let it be the last node, behind the logits" : NULL;
}
