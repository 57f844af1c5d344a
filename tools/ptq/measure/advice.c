#include <stdio.h>
#include <stdlib.h>
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

static void use_float(ptq_scheme *s) {
    memset(s, 0, sizeof *s);
    s->mode = PTQ_MODE_FLOAT;
}

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

/* What all trials need. The first `measure` images judge, the others are learned from, unless these
   are none. */
typedef struct trial {
    const ptq_model *model;
    const ptq_calibration *calibration;
    const ptq_search_options *options;
    const ptq_sensitivity_report *ranked;
    ptq_scheme scheme;  /* that is looked at, and ... */
    ptq_scheme nearest; /* ... the same without what learns */
    ptq_subset learned;
    size_t *index;       /* of those */
    ptq_evaluation real; /* of the float model */
    size_t done;
    advice_list *list;
} trial;

/* The logits of a model, of which no label is asked. */
static ptq_status run_logits(const trial *t, const ptq_model *model, ptq_evaluation *out,
                             ptq_error *err) {
    ptq_evaluate_options options;
    ptq_plan *plan = NULL;
    ptq_status status = ptq_plan_create(model, NULL, &plan, err);

    memset(&options, 0, sizeof options);
    options.limit = t->options->measure;
    options.unlabelled = 1;
    options.work.threads = t->options->work.threads;
    if (!status)
        status = ptq_evaluate(plan, t->options->images, &options, out, err);
    ptq_plan_free(plan);
    return status;
}

/* Agreement with float of the model under `scheme`, all but `node`, which is under `own`; all, if
   that is NULL. An override can name one node exactly, since names hold neither * nor ?. */
static ptq_status try_scheme(trial *t, const ptq_scheme *scheme, const char *node,
                             const ptq_scheme *own, double *agreement, ptq_error *err) {
    const ptq_work *work = &t->options->work;
    ptq_convert_options options;
    ptq_override one = {node, *own};
    ptq_evaluation seen;
    ptq_comparison compared;
    ptq_model *made = NULL;
    ptq_status status;

    if (work->progress && work->progress(work->user, t->done, 1 + MOST_ADVICE))
        return ptq_error_set(err, PTQ_CANCELLED, "cancelled after %zu remedies", t->done);
    t->done++;
    memset(&options, 0, sizeof options);
    memset(&seen, 0, sizeof seen);
    options.scheme = *scheme;
    options.scheme.confirm = 0; /* only a model that is kept is worth it */
    options.override = &one;
    options.overrides = node != NULL;
    options.images = &t->learned.dataset;
    options.work.threads = work->threads;
    status = ptq_convert(t->model, t->calibration, &options, &made, NULL, err);
    if (!status)
        status = run_logits(t, made, &seen, err);
    if (!status)
        status = ptq_compare(&t->real, &seen, &compared, err);
    if (!status)
        *agreement = (double)compared.agree / (double)compared.total;
    ptq_release(&seen.memory);
    ptq_model_free(made);
    return status;
}

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
static ptq_status try_remedy(trial *t, const remedy *tried, const ptq_sensitivity *item,
                             double before, ptq_error *err) {
    const ptq_scheme *scheme = item ? &t->nearest : &t->scheme;
    const char *node = item ? item->node : NULL;
    ptq_scheme changed = *scheme;
    double after;
    char was[160], is[160];
    ptq_status status;

    tried->apply(&changed);
    ptq_scheme_write(scheme, was, sizeof was);
    ptq_scheme_write(&changed, is, sizeof is);
    if (!strcmp(was, is))
        return PTQ_OK;
    status = try_scheme(t, item ? scheme : &changed, node, &changed, &after, err);
    if (!status)
        add_advice(t->list, item ? node : "", 100 * (1 - (item ? item->cost.agreement : before)),
                   tried->text, 100 * (after - before));
    return status;
}

static ptq_status try_all(trial *t, ptq_error *err) {
    double whole = t->ranked->whole.agreement, before;
    ptq_status status = try_scheme(t, &t->nearest, NULL, &t->nearest, &before, err);

    for (const remedy *tried = remedies; tried < remedies + REMEDIES; tried++) {
        if (tried->whole && !status)
            status = try_remedy(t, tried, NULL, whole, err);
        for (int i = 0; i < COSTLIEST && i < t->ranked->items && tried->single && !status; i++)
            status = try_remedy(t, tried, &t->ranked->item[i], before, err);
    }
    return status;
}

/* The images behind those that are measured on. */
static ptq_status choose_images(trial *t, ptq_error *err) {
    size_t count = t->options->images->count, first = t->options->measure;

    first = first < count ? first : 0;
    t->index = (size_t *)malloc((count - first) * sizeof *t->index);
    if (!t->index)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for a sample");
    for (size_t i = first; i < count; i++)
        t->index[i - first] = i;
    return ptq_subset_open(&t->learned, t->options->images, t->index, count - first, err);
}

/* Bits are said, lest a plain scheme be all zeros, which is "best". */
ptq_status find_advice(const ptq_model *model, const ptq_calibration *calibration,
                       const ptq_search_options *options, const ptq_sensitivity_report *ranked,
                       advice_list *out, ptq_error *err) {
    trial t;
    ptq_status status;

    memset(&t, 0, sizeof t);
    memset(out, 0, sizeof *out);
    t.model = model;
    t.calibration = calibration;
    t.options = options;
    t.ranked = ranked;
    t.list = out;
    t.scheme = options->scheme;
    t.scheme.weight_bits = t.scheme.weight_bits ? t.scheme.weight_bits : 8;
    t.nearest = t.scheme;
    t.nearest.rounding = PTQ_ROUNDING_NEAREST;
    t.nearest.refit = PTQ_REFIT_NEVER;
    t.nearest.equalize = t.nearest.fit_ranges = 0;
    t.nearest.bias = PTQ_BIAS_CORRECTION_NONE;
    status = choose_images(&t, err);
    if (!status)
        status = run_logits(&t, model, &t.real, err);
    if (!status)
        status = try_all(&t, err);
    ptq_release(&t.real.memory);
    free(t.index);
    return status;
}
