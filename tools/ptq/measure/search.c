#include <stdlib.h>
#include <string.h>

#include "search.h"

ptq_status keep_memory(ptq_memory *memory, size_t count, size_t size, void *out, ptq_error *err) {
    const ptq_allocator *allocator = &memory->allocator;
    void **block = memory->block;
    size_t bytes = count * size + 1;

    while (*block)
        block++;
    *block = allocator->allocate ? allocator->allocate(allocator->user, bytes) : malloc(bytes);
    if (!*block)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "a search has no memory for %zu bytes", bytes);
    memset(*block, 0, bytes);
    memcpy(out, block, sizeof *block);
    return PTQ_OK;
}

ptq_scheme float_scheme(void) {
    ptq_scheme scheme;

    memset(&scheme, 0, sizeof scheme);
    scheme.mode = PTQ_MODE_FLOAT;
    return scheme;
}

ptq_scheme nearest_scheme(const ptq_scheme *scheme) {
    ptq_scheme plain = *scheme;

    plain.rounding = PTQ_ROUNDING_NEAREST;
    plain.refit = PTQ_REFIT_NEVER;
    plain.equalize = plain.fit_ranges = plain.confirm = 0;
    plain.bias = PTQ_BIAS_CORRECTION_NONE;
    plain.weight_bits = scheme->weight_bits ? scheme->weight_bits : 8;
    return plain;
}

int has_weights(const ptq_node *node) {
    return node->op == PTQ_OP_CONV2D || node->op == PTQ_OP_DENSE;
}

/* Each output channel starts on a byte. */
size_t layer_bytes(const ptq_node *node, const ptq_scheme *scheme) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t bits = scheme->weight_bits ? (size_t)scheme->weight_bits : 8, rows, row;

    if (!has_weights(node))
        return 0;
    rows = (size_t)weight->dim[0];
    row = ptq_tensor_elements(weight) / rows;
    return node->param[PTQ_PARAM_BIAS].size +
           (scheme->mode == PTQ_MODE_FLOAT
                ? weight->size
                : rows * ((row * bits + 7) / 8) +
                      (scheme->weight_per_tensor ? 1 : rows) * sizeof(float));
}

/* Of which nobody is told. */
static ptq_work quiet(const ptq_work *work) {
    ptq_work made = *work;

    made.progress = NULL;
    return made;
}

/* Logits alone: images need no labels. */
static ptq_status evaluate(const search *s, const ptq_model *model, ptq_evaluation *out,
                           ptq_error *err) {
    ptq_evaluate_options options;
    ptq_plan_options planning;
    ptq_plan *plan = NULL;
    ptq_status status;

    memset(&options, 0, sizeof options);
    memset(&planning, 0, sizeof planning);
    planning.allocator = s->options.work.allocator;
    options.work = quiet(&s->options.work);
    options.limit = s->options.measure;
    options.unlabelled = 1;
    status = ptq_plan_create(model, &planning, &plan, err);
    if (!status)
        status = ptq_evaluate(plan, s->options.images, &options, out, err);
    ptq_plan_free(plan);
    return status;
}

static ptq_status measure(const search *s, const ptq_model *model, divergence *cost,
                          ptq_error *err) {
    ptq_evaluation measured;
    ptq_comparison compared;
    ptq_status status = evaluate(s, model, &measured, err);

    if (status)
        return status;
    status = ptq_compare(&s->real, &measured, &compared, err);
    ptq_release(&measured.memory);
    if (status)
        return status;
    cost->sqnr_db = compared.sqnr_db;
    cost->kl = compared.kl;
    cost->agreement = (double)compared.agree / (double)compared.total;
    cost->delta_pp = compared.delta_pp;
    return PTQ_OK;
}

/* `user` is the options. */
static ptq_status get_learned(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const search_options *options = (const search_options *)user;
    const ptq_dataset *images = options->images;

    return images->get(images->user, index + options->measure, item, label, err);
}

ptq_status search_try(search *s, const ptq_convert_options *wanted, divergence *cost,
                      ptq_model **made, ptq_error *err) {
    const ptq_work *work = &s->options.work;
    ptq_convert_options options = *wanted;
    ptq_model *model = NULL;
    ptq_status status;

    if (work->progress && work->progress(work->user, s->done, s->total))
        return ptq_error_set(err, PTQ_CANCELLED, "cancelled after %zu of %zu models", s->done,
                             s->total);
    s->done++;
    options.scheme.confirm = wanted->scheme.confirm && made;
    options.images = &s->learned;
    options.work = quiet(work);
    status = ptq_convert(s->model, s->calibration, &options, &model, NULL, err);
    if (!status)
        status = measure(s, model, cost, err);
    if (status || !made)
        ptq_model_free(model);
    else
        *made = model;
    return status;
}

/* An override can name one node exactly, since names hold neither * nor ?. */
ptq_status search_except(search *s, const ptq_scheme *scheme, const char *node,
                         const ptq_scheme *own, divergence *cost, ptq_error *err) {
    ptq_convert_options options;
    ptq_override one;

    memset(&options, 0, sizeof options);
    one.pattern = node;
    one.scheme = *own;
    options.scheme = *scheme;
    options.override = &one;
    options.overrides = node != NULL;
    return search_try(s, &options, cost, NULL, err);
}

/* What cannot be converted is refused at once, by a dry run, before anything takes time. Zeros are
   the plain scheme here, so its bits are said, lest it be taken for "best". */
ptq_status search_open(search *s, const ptq_model *model, const ptq_calibration *calibration,
                       const search_options *options, ptq_error *err) {
    ptq_convert_options plain;
    ptq_status status;

    memset(s, 0, sizeof *s);
    memset(&plain, 0, sizeof plain);
    s->model = model;
    s->calibration = calibration;
    s->options = *options;
    s->options.scheme.weight_bits = options->scheme.weight_bits ? options->scheme.weight_bits : 8;
    s->memory.allocator = options->work.allocator;
    if (options->scheme.mode != PTQ_MODE_INTEGER)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "the scheme must be one of integers, not %s",
                             ptq_name(PTQ_NAMES_MODE, options->scheme.mode));
    plain.scheme = s->options.scheme;
    plain.work = quiet(&options->work);
    status = ptq_convert(model, calibration, &plain, NULL, NULL, err);
    if (status)
        return status;
    s->learned = *options->images;
    if (options->measure && options->measure < s->learned.count) {
        s->learned.count -= options->measure;
        s->learned.get = get_learned;
        s->learned.user = &s->options;
    }
    return evaluate(s, model, &s->real, err);
}

void search_close(search *s) {
    ptq_release(&s->real.memory);
    ptq_release(&s->memory);
}
