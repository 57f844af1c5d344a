/* A Keras model that is ResNet8 gets the names and the order of nodes that ResNet8 has here, so
   that it goes with everything else that is called so. */
#include <stdlib.h>
#include <string.h>

#include "import/keras_import.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

enum { NODES = 64 }; /* more than ResNet8 has */

typedef struct matching {
    ptq_model *ours, *theirs;
    int pair[NODES]; /* of each of our nodes: theirs; -1: none yet */
} matching;

static int is_like(const ptq_node *a, const ptq_node *b) {
    return a->op == b->op && memcmp(a->shape, b->shape, sizeof a->shape) == 0 &&
           memcmp(a->kernel, b->kernel, sizeof a->kernel) == 0 &&
           memcmp(a->stride, b->stride, sizeof a->stride) == 0 &&
           memcmp(a->pad, b->pad, sizeof a->pad) == 0 && a->groups == b->groups;
}

/* Whether what leads to the two nodes is alike. A sum may have its operands the other way round. */
static int match(matching *m, int ours, int theirs) {
    const ptq_node *a = &m->ours->node[ours], *b = &m->theirs->node[theirs];
    int before[NODES];

    if (m->pair[ours] >= 0)
        return m->pair[ours] == theirs;
    if (!is_like(a, b))
        return 0;
    memcpy(before, m->pair, sizeof before);
    for (int swap = 0; swap < (a->op == PTQ_OP_ADD ? 2 : 1); swap++) {
        int same = 1;

        for (int k = 0; k < 2 && same && a->input[k] >= 0; k++)
            same = match(m, a->input[k], b->input[k ^ swap]);
        if (same) {
            m->pair[ours] = theirs;
            return 1;
        }
        memcpy(m->pair, before, sizeof before);
    }
    return 0;
}

/* ResNet8 with as many pixels, channels and classes; NULL if there is none. */
static ptq_model *make_alike(const ptq_model *theirs) {
    const ptq_node *node = theirs->node;
    ptq_model *made = NULL;

    if (theirs->nodes < 2 || theirs->nodes > NODES || node[0].shape[0] != node[0].shape[1] ||
        node[0].shape[2] != 3 || node[1].op != PTQ_OP_CONV2D)
        return NULL;
    if (ptq_resnet8(node[0].shape[0], node[1].channels, node[theirs->nodes - 1].shape[2], NULL,
                    &made, NULL))
        return NULL;
    if (made->nodes == theirs->nodes)
        return made;
    ptq_model_free(made);
    return NULL;
}

/* A bias that they do not have stays zero. */
static void move_params(matching *m) {
    for (int i = 0; i < m->ours->nodes; i++) {
        ptq_node *to = &m->ours->node[i], *from = &m->theirs->node[m->pair[i]];

        to->epsilon = from->epsilon;
        for (int p = 0; p < PTQ_PARAM_COUNT; p++)
            if (from->param[p].rank) {
                ptq_tensor mine = to->param[p];

                to->param[p] = from->param[p];
                from->param[p] = mine;
            }
    }
    memcpy(m->ours->mean, m->theirs->mean, sizeof m->ours->mean);
    memcpy(m->ours->std, m->theirs->std, sizeof m->ours->std);
}

int keras_name_resnet8(ptq_model **model) {
    matching m;
    int same;

    m.theirs = *model;
    m.ours = make_alike(*model);
    if (!m.ours)
        return 0;
    memset(m.pair, -1, sizeof m.pair);
    same = match(&m, m.ours->nodes - 1, m.theirs->nodes - 1);
    if (same) {
        move_params(&m);
        *model = m.ours;
    }
    ptq_model_free(same ? m.theirs : m.ours);
    return same;
}

#endif
