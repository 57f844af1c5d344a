#include <stdio.h>
#include <string.h>

#include "measure/advice.h"

/* Remedies: functions from one scheme to another. A scale for each channel suits channels of unlike
   ranges; such scales go with symmetric weights alone. */
static void use_channels(ptq_scheme *s) { s->weight_per_tensor = s->weight_affine = 0; }

/* Clipping what is rare leaves finer steps for all else. Affine weights take MinMax alone. */
static void use_mse(ptq_scheme *s) {
    s->activation_method = PTQ_METHOD_MSE;
    s->weight_method = s->weight_affine ? PTQ_METHOD_MINMAX : PTQ_METHOD_MSE;
}

static void use_8_bit_weights(ptq_scheme *s) { s->weight_bits = 8; }

static void use_8_bits(ptq_scheme *s) { s->activation_bits = 8; }

static void use_float(ptq_scheme *s) { *s = float_scheme(); }

/* All that learns. The bits stay as they are: more of them are remedies of their own. */
static void use_best(ptq_scheme *s) {
    int weight_bits = s->weight_bits, activation_bits = s->activation_bits;

    if (s->rounding == PTQ_ROUNDING_LEARNED && s->refit != PTQ_REFIT_NEVER && s->equalize)
        return;
    ptq_preset("best", s, NULL);
    s->weight_bits = weight_bits;
    s->activation_bits = activation_bits;
}

typedef struct remedy {
    const char *text;
    void (*apply)(ptq_scheme *scheme);
    int whole, single; /* it is tried on the whole model, on single nodes */
} remedy;

/* `best` equalizes, which only a whole model can be; of a whole model in float there is nothing to
   learn. */
static const remedy remedies[] = {
    {"per-channel weights", use_channels, 1, 1},
    {"ranges of least squared error", use_mse, 1, 1},
    {"8-bit weights", use_8_bit_weights, 1, 1},
    {"8-bit activations", use_8_bits, 1, 1},
    {"preset best at the same bits", use_best, 1, 0},
    {"float", use_float, 0, 1},
};

enum {
    REMEDIES = sizeof remedies / sizeof remedies[0],
    COSTLIEST = MOST_ADVICE / REMEDIES - 1 /* nodes that remedies are tried on */
};

/* What all trials need. */
typedef struct trial {
    search on;
    const node_ranking *ranked;
    ptq_scheme nearest; /* the scheme without what learns */
    advice_list *list;
} trial;

/* Kept if it gains; of equals the one that was tried first comes first. */
static void add_advice(advice_list *list, const char *node, double cost_pp, const char *text,
                       double gain_pp) {
    advice item;
    int k;

    if (!(gain_pp > 0))
        return;
    memset(&item, 0, sizeof item);
    snprintf(item.node, sizeof item.node, "%s", node);
    snprintf(item.text, sizeof item.text,
             "%s costs %.2f points of agreement; %s would win back %.2f",
             *node ? node : "the whole model", cost_pp > 0 ? cost_pp : 0, text, gain_pp);
    item.gain_pp = gain_pp;
    for (k = list->items++; k > 0 && list->item[k - 1].gain_pp < gain_pp; k--)
        list->item[k] = list->item[k - 1];
    list->item[k] = item;
}

/* One remedy on one node, or on all of them (NULL). `before`: the agreement of the whole model
   without it, and where single nodes are looked at, without what learns. One that would not show in
   the scheme's text changes nothing, and is not tried. */
static ptq_status try_remedy(trial *t, const remedy *tried, const node_cost *item, double before,
                             ptq_error *err) {
    const ptq_scheme *scheme = item ? &t->nearest : &t->on.options.scheme;
    const char *node = item ? item->node : NULL;
    ptq_scheme changed = *scheme;
    divergence after;
    char was[160], is[160];
    ptq_status status;

    tried->apply(&changed);
    ptq_scheme_write(scheme, was, sizeof was);
    ptq_scheme_write(&changed, is, sizeof is);
    if (!strcmp(was, is))
        return PTQ_OK;
    status = search_except(&t->on, item ? scheme : &changed, node, &changed, &after, err);
    if (!status)
        add_advice(t->list, item ? node : "", 100 * (1 - (item ? item->cost.agreement : before)),
                   tried->text, 100 * (after.agreement - before));
    return status;
}

static ptq_status try_all(trial *t, ptq_error *err) {
    divergence before;
    ptq_status status = search_except(&t->on, &t->nearest, NULL, &t->nearest, &before, err);

    for (const remedy *tried = remedies; tried < remedies + REMEDIES; tried++) {
        if (tried->whole && !status)
            status = try_remedy(t, tried, NULL, t->ranked->whole.agreement, err);
        for (int i = 0; i < COSTLIEST && i < t->ranked->items && tried->single && !status; i++)
            status = try_remedy(t, tried, &t->ranked->item[i], before.agreement, err);
    }
    return status;
}

ptq_status find_advice(const ptq_model *model, const ptq_calibration *calibration,
                       const search_options *options, const node_ranking *ranked, advice_list *out,
                       ptq_error *err) {
    trial t;
    ptq_status status = search_open(&t.on, model, calibration, options, err);

    memset(out, 0, sizeof *out);
    t.on.total = 1 + MOST_ADVICE;
    t.nearest = nearest_scheme(&t.on.options.scheme);
    t.ranked = ranked;
    t.list = out;
    if (!status)
        status = try_all(&t, err);
    search_close(&t.on);
    return status;
}
