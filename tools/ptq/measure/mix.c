#include <math.h>
#include <string.h>

#include "mix.h"

/* Leaves the function if a step failed. */
#define TRY(expression)                                                                            \
    do {                                                                                           \
        ptq_status tried = (expression);                                                           \
        if (tried)                                                                                 \
            return tried;                                                                          \
    } while (0)

static const int width_bits[] = {32, 8, 6, 5, 4, 3, 2};

enum {
    WIDTHS = sizeof width_bits / sizeof width_bits[0],
    SPREAD = 4 /* models along the frontier that are measured in any case */
};

/* A layer with weights, and what it would be at each width, an index of width_bits. */
typedef struct mix_layer {
    double weights;       /* how many */
    size_t bytes[WIDTHS]; /* of its parameters */
    double cost[WIDTHS];  /* divergence, relative to 8 bits everywhere */
    int width;            /* in the model of the frontier at hand */
} mix_layer;

typedef struct mix_maker {
    search on;
    const mix_goal *goal;
    mix_report *report;
    mix_layer *layer;       /* as many as the report has nodes */
    ptq_override *override; /* likewise: their schemes, to convert with */
    ptq_model *best;
} mix_maker;

/* The scheme of a layer at a number of bits. */
static ptq_scheme scheme_at(const ptq_scheme *scheme, int bits) {
    ptq_scheme made = *scheme;
    if (bits > 8)
        return float_scheme();
    made.weight_bits = bits;
    return made;
}

/* The layers, at 32 bits each, or 8 where no real numbers are wanted. Every step lowers the width of one: the frontier has at most 6
   models for each, and one. */
static ptq_status mix_list(mix_maker *mixer, ptq_error *err) {
    const ptq_model *model = mixer->on.model;
    mix_report *report = mixer->report;
    size_t n = 0, most;
    for (int i = 0; i < model->nodes; i++)
        n += (size_t)has_weights(&model->node[i]);
    if (!n)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "the model has no layers with weights");
    most = n * (WIDTHS - 1) + 1;
    TRY(keep_memory(&report->memory, n, sizeof *report->node, &report->node, err));
    TRY(keep_memory(&report->memory, most, sizeof *report->item, &report->item, err));
    TRY(keep_memory(&report->memory, most * n, sizeof *report->bits, &report->bits, err));
    TRY(keep_memory(&mixer->on.memory, n, sizeof *mixer->layer, &mixer->layer, err));
    TRY(keep_memory(&mixer->on.memory, n, sizeof *mixer->override, &mixer->override, err));
    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        mix_layer *layer = &mixer->layer[report->nodes];
        if (!has_weights(node))
            continue;
        memcpy(report->node[report->nodes++], node->name, PTQ_NAME_SIZE);
        layer->weights = (double)ptq_tensor_elements(&node->param[PTQ_PARAM_WEIGHT]);
        layer->width = mixer->goal->integers;
        for (int b = 0; b < WIDTHS; b++) {
            ptq_scheme scheme = scheme_at(&mixer->on.options.scheme, width_bits[b]);
            layer->bytes[b] = layer_bytes(node, &scheme);
        }
    }
    report->images = mixer->on.real.total;
    mixer->on.total = 1 + n * (WIDTHS - 1) + SPREAD + 9; /* 9: of a bisection */
    return PTQ_OK;
}

/* Divergence of each layer at each width, the others at 8 bits, without learning. */
static ptq_status mix_measure_alone(mix_maker *mixer, ptq_error *err) {
    ptq_scheme plain = nearest_scheme(&mixer->on.options.scheme), own;
    divergence at_8, cost;
    plain.weight_bits = 8;
    TRY(search_except(&mixer->on, &plain, NULL, &plain, &at_8, err));
    for (int k = 0; k < mixer->report->nodes; k++)
        for (int b = 0; b < WIDTHS; b++) {
            if (width_bits[b] == 8 || b < mixer->goal->integers)
                continue;
            own = scheme_at(&plain, width_bits[b]);
            TRY(search_except(&mixer->on, &plain, mixer->report->node[k], &own, &cost, err));
            mixer->layer[k].cost[b] = cost.kl - at_8.kl;
        }
    return PTQ_OK;
}

/* To the next model of the frontier: of all layers and lower widths the step that costs least
   divergence for each byte saved, the least (D(to) - D(from)) / (bytes(from) - bytes(to)). Of steps
   that even gain, a quotient would prefer those that save little; so it is the product that is
   least for them. 0 if nothing is left to save. */
static int mix_step(mix_maker *mixer) {
    double least = HUGE_VAL;
    mix_layer *layer = mixer->layer, *end = layer + mixer->report->nodes, *best = NULL;
    int width = 0;
    for (; layer < end; layer++)
        for (int b = layer->width + 1; b < WIDTHS; b++) {
            double saved = (double)layer->bytes[layer->width] - (double)layer->bytes[b];
            double cost = layer->cost[b] - layer->cost[layer->width];
            double rate = cost > 0 ? cost / saved : cost * saved;
            if (saved > 0 && rate < least) {
                least = rate;
                best = layer;
                width = b;
            }
        }
    if (best)
        best->width = width;
    return best != NULL;
}

/* From the most bits everywhere down to 2 bits everywhere: size and prediction of every model on the
   way. */
static void mix_frontier(mix_maker *mixer) {
    mix_report *report = mixer->report;
    uint8_t *bits = report->bits;
    do {
        mix_item *item = &report->item[report->items++];
        double weights = 0, sum = 0;
        for (int k = 0; k < report->nodes; k++, bits++) {
            const mix_layer *layer = &mixer->layer[k];
            *bits = (uint8_t)width_bits[layer->width];
            item->bytes += layer->bytes[layer->width];
            item->predicted += layer->cost[layer->width];
            weights += layer->weights;
            sum += layer->weights * *bits;
        }
        item->average_bits = sum / weights;
    } while (mix_step(mixer));
}

/* Converts item `at` under the full scheme and measures it. Only a model that is kept need be made
   a second time, as the search confirms its choices for that one alone. */
static ptq_status mix_measure(mix_maker *mixer, int at, int keep, ptq_error *err) {
    const mix_report *report = mixer->report;
    mix_item *item = &report->item[at];
    ptq_convert_options options;
    if (item->measured && !keep)
        return PTQ_OK;
    memset(&options, 0, sizeof options);
    options.scheme = mixer->on.options.scheme;
    options.override = mixer->override;
    options.overrides = report->nodes;
    for (int k = 0; k < report->nodes; k++) {
        mixer->override[k].pattern = report->node[k];
        mixer->override[k].scheme =
            scheme_at(&options.scheme, report->bits[at * report->nodes + k]);
    }
    item->measured = 1;
    return search_try(&mixer->on, &options, &item->cost, keep ? &mixer->best : NULL, err);
}

static int mix_small_enough(const mix_maker *mixer, int at) {
    const mix_item *item = &mixer->report->item[at];
    const mix_goal *goal = mixer->goal;
    return (!goal->bytes || item->bytes <= goal->bytes) &&
           (!(goal->average_bits > 0) || item->average_bits <= goal->average_bits);
}

static int mix_good_enough(const mix_maker *mixer, int at) {
    return !(mixer->goal->drop_pp > 0) ||
           -mixer->report->item[at].cost.delta_pp <= mixer->goal->drop_pp;
}

/* Sizes fall along the frontier, so the first model that is small enough is the best under a size.
   Under a limit on the accuracy lost the smallest is wanted, that is the last that is good enough.
   Bisection finds it between `low`, which is (or which is returned for want of a better one), and
   `high`, which is not, as if accuracy fell along the frontier as well. */
static ptq_status mix_choose(mix_maker *mixer, ptq_error *err) {
    mix_report *report = mixer->report;
    int low = 0, high = report->items;
    while (low < report->items - 1 && !mix_small_enough(mixer, low))
        low++;
    if (mixer->goal->drop_pp > 0) {
        TRY(mix_measure(mixer, low, 0, err));
        if (!mix_good_enough(mixer, low))
            high = low + 1; /* none that is smaller will do */
        while (high - low > 1) {
            int middle = low + (high - low) / 2;
            TRY(mix_measure(mixer, middle, 0, err));
            *(mix_good_enough(mixer, middle) ? &low : &high) = middle;
        }
    }
    report->chosen = low;
    report->met = mix_small_enough(mixer, low) && mix_good_enough(mixer, low);
    return PTQ_OK;
}

static ptq_status mix_run(mix_maker *mixer, int makes, ptq_error *err) {
    mix_report *report = mixer->report;
    TRY(mix_list(mixer, err));
    TRY(mix_measure_alone(mixer, err));
    mix_frontier(mixer);
    for (int i = 0; i < SPREAD; i++)
        TRY(mix_measure(mixer, (report->items - 1) * i / (SPREAD - 1), 0, err));
    TRY(mix_choose(mixer, err));
    return mix_measure(mixer, report->chosen, makes, err);
}

ptq_status convert_mixed(const ptq_model *model, const ptq_calibration *calibration,
                         const search_options *options, const mix_goal *goal, ptq_model **out,
                         mix_report *report, ptq_error *err) {
    mix_report made;
    mix_maker mixer;
    memset(&mixer, 0, sizeof mixer);
    memset(&made, 0, sizeof made);
    made.memory.allocator = options->work.allocator;
    mixer.goal = goal;
    mixer.report = &made;
    ptq_status status = search_open(&mixer.on, model, calibration, options, err);
    if (!status)
        status = mix_run(&mixer, out != NULL, err);
    search_close(&mixer.on);
    if (!status && out)
        *out = mixer.best;
    if (!status && report)
        *report = made;
    else
        ptq_release(&made.memory);
    return status;
}
