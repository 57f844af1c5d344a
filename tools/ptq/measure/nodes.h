/* Which layer is to blame? The divergence of a model's logits from the float model's does not say.
   So each node is measured alone: quantized under the scheme, with all others on real numbers.
   Nothing is estimated: a conversion and an evaluation for each node. */
#ifndef PTQ_TOOL_NODES_H
#define PTQ_TOOL_NODES_H

#include "search.h"

/* One node alone under the scheme, all others in float. */
typedef struct node_cost {
    char node[PTQ_NAME_SIZE];
    size_t bytes;    /* of its parameters under the scheme */
    divergence cost; /* of the whole model, against float */
} node_cost;

typedef struct node_ranking {
    ptq_memory memory;
    node_cost *item; /* largest divergence first */
    int items;
    divergence whole; /* of the model with every node under the scheme */
    size_t images;
} node_ranking;

/* Measures every node that can run on integers alone, with rounding to nearest, for speed, and the
   whole model, and ranks the nodes. Released by ptq_release. */
ptq_status rank_nodes(const ptq_model *model, const ptq_calibration *calibration,
                      const search_options *options, node_ranking *out, ptq_error *err);

#endif
