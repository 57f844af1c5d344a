#include <string.h>

#include "nodes.h"

/* Nodes whose results are rounded anew: those with weights, sums, averages. What only chooses among
   codes (ReLU, maxima) adds no error of its own: its codes are those of its input. `coded`: the
   quantized model. */
static int is_rounded(const ptq_model *coded, const ptq_node *node) {
    int i = ptq_model_find(coded, node->name);
    const ptq_node *made = i > 0 ? &coded->node[i] : NULL;

    if (!made || has_weights(node))
        return has_weights(node);
    return made->q.type != PTQ_TYPE_F32 &&
           memcmp(&made->q, &coded->node[made->input[0]].q, sizeof made->q) != 0;
}

/* Largest divergence first, as items come in; of equals the earlier node of the model. */
static void add_item(node_ranking *ranking, const node_cost *item) {
    int k = ranking->items++;

    for (; k > 0 && ranking->item[k - 1].cost.kl < item->cost.kl; k--)
        ranking->item[k] = ranking->item[k - 1];
    ranking->item[k] = *item;
}

/* Nodes are measured without learning: it would take long, and hide what there is to find. */
static ptq_status measure_nodes(search *s, const ptq_model *coded, const ptq_scheme *plain,
                                node_ranking *ranking, ptq_error *err) {
    ptq_scheme others = float_scheme();
    ptq_status status = PTQ_OK;

    s->total = 1;
    for (int i = 0; i < s->model->nodes; i++)
        s->total += (size_t)is_rounded(coded, &s->model->node[i]);
    for (int i = 0; i < s->model->nodes && !status; i++) {
        const ptq_node *node = &s->model->node[i];
        node_cost item;
        if (!is_rounded(coded, node))
            continue;
        memset(&item, 0, sizeof item);
        memcpy(item.node, node->name, sizeof item.node);
        item.bytes = layer_bytes(node, plain);
        status = search_except(s, &others, item.node, plain, &item.cost, err);
        if (!status)
            add_item(ranking, &item);
    }
    return status;
}

static ptq_status run(search *s, node_ranking *ranking, ptq_error *err) {
    ptq_scheme plain = nearest_scheme(&s->options.scheme);
    ptq_convert_options options;
    ptq_model *coded = NULL;
    ptq_status status = keep_memory(&ranking->memory, (size_t)s->model->nodes,
                                    sizeof *ranking->item, &ranking->item, err);

    memset(&options, 0, sizeof options);
    options.scheme = plain;
    options.work.allocator = s->options.work.allocator;
    ranking->images = s->real.total;
    if (!status)
        status = ptq_convert(s->model, s->calibration, &options, &coded, NULL, err);
    if (!status)
        status = measure_nodes(s, coded, &plain, ranking, err);
    ptq_model_free(coded);
    return status ? status
                  : search_except(s, &s->options.scheme, NULL, &plain, &ranking->whole, err);
}

ptq_status rank_nodes(const ptq_model *model, const ptq_calibration *calibration,
                      const search_options *options, node_ranking *out, ptq_error *err) {
    node_ranking ranking;
    search s;
    ptq_status status = search_open(&s, model, calibration, options, err);

    memset(&ranking, 0, sizeof ranking);
    ranking.memory.allocator = options->work.allocator;
    if (!status)
        status = run(&s, &ranking, err);
    search_close(&s);
    if (status)
        ptq_release(&ranking.memory);
    else
        *out = ranking;
    return status;
}
