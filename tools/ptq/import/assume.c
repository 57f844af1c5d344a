/* What a file of ResNet8's weights leaves open, for ptq import. */
#include <stdlib.h>
#include <string.h>

#include "import/assume.h"
#include "shared/output.h"

#define AS_SAID "as said"

int assume_padding(assumed *a, const char *otherwise, const char *from, ptq_model *model) {
    const char *word = a->padding ? a->padding : otherwise;

    a->padding_from = a->padding ? AS_SAID : from;
    if (strcmp(word, "tensorflow") == 0)
        return 0; /* as the network is built */
    if (strcmp(word, "pytorch") != 0)
        return misuse("--padding is tensorflow or pytorch, not '%.40s'", word);
    for (int i = 0; i < model->nodes; i++) {
        ptq_node *node = &model->node[i];

        if (node->op != PTQ_OP_CONV2D || node->stride[0] == 1 || node->kernel[0] == 1)
            continue;
        node->padding = PTQ_PADDING_EXPLICIT;
        for (int side = 0; side < 4; side++)
            node->pad[side] = node->kernel[side % 2] / 2;
    }
    return 0;
}

int assume_epsilon(assumed *a, const char *own, float otherwise, const char *from,
                   ptq_model *model) {
    const char *text = a->epsilon ? a->epsilon : own;
    char *end = NULL;
    double value = text ? strtod(text, &end) : (double)otherwise;

    a->epsilon_from = a->epsilon ? AS_SAID : own ? "by the file" : from;
    if (text && (end == text || *end || !(value > 0) || !(value < 1)))
        return fail("the epsilon of batch norm must be a number between 0 and 1, not '%.40s'",
                    text);
    for (int i = 0; i < model->nodes; i++)
        if (model->node[i].op == PTQ_OP_BATCH_NORM)
            model->node[i].epsilon = (float)value;
    return 0;
}
