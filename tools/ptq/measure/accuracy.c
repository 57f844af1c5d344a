/* How often models are right, and how far they agree. */
#include <math.h>
#include <stdio.h>

#include "measure/accuracy.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "shared/output.h"
#include "shared/progress.h"

double fraction(size_t part, size_t whole) { return whole ? (double)part / (double)whole : 0; }

int evaluate_plan(const ptq_plan *plan, const ptq_dataset *data, const char *what, int threads,
                  ptq_evaluation *out) {
    ptq_evaluate_options options = {0};
    progress state = progress_start(what);
    ptq_status status;
    ptq_error err;

    options.work.threads = threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = ptq_evaluate(plan, data, &options, out, &err);
    progress_end(&state);
    return status ? fail("%s", err.text) : 0;
}

/* Equal logits count in the order of classes, as ptq_argmax has it. */
size_t top5_correct(const ptq_evaluation *result) {
    size_t n = (size_t)result->classes, correct = 0;

    for (size_t i = 0; i < result->total && result->logits; i++) {
        const float *logits = result->logits + i * n;
        size_t label = (size_t)result->label[i], before = 0;

        if (result->label[i] < 0)
            continue;
        for (size_t c = 0; c < n; c++)
            before += logits[c] > logits[label] || (logits[c] == logits[label] && c < label);
        correct += before < 5;
    }
    return correct;
}

void print_accuracy(const char *what, const ptq_evaluation *result) {
    double low, high;

    ptq_share_interval(result->correct, result->total, &low, &high);
    say("%-9s %zu of %zu right, %.2f %%   (95 %% interval %.2f .. %.2f)\n", what, result->correct,
        result->total, 100 * fraction(result->correct, result->total), 100 * low, 100 * high);
    if (result->classes >= TOP5_CLASSES)
        say("%-9s %zu of %zu have the right one among the first five, %.2f %%\n", "",
            top5_correct(result), result->total,
            100 * fraction(top5_correct(result), result->total));
}

void agreement_interval(double agreement, size_t images, double *low, double *high) {
    ptq_share_interval((size_t)(agreement * (double)images + 0.5), images, low, high);
}

const char *agreement_text(double agreement, size_t images, char text[AGREEMENT_SIZE]) {
    double low, high;

    agreement_interval(agreement, images, &low, &high);
    snprintf(text, AGREEMENT_SIZE, "%.2f..%.2f", 100 * low, 100 * high);
    return text;
}

const char *advice_scope(const advice *given) {
    return *given->node ? "cost of the layer alone, gain of the network" : "both of the network";
}

/* Adding 0 turns -0 into 0. */
void print_comparison(const ptq_comparison *compared, double margin) {
    verdict found = judge(compared, margin);
    char text[200], p[32] = "p < 1e-300"; /* below, double has no numbers that mean anything */

    say("change    %+.2f percentage points   (95 %% interval %+.2f .. %+.2f)\n",
        compared->delta_pp + 0.0, compared->low_pp + 0.0, compared->high_pp + 0.0);
    say("agreement %.2f %%   (%zu of %zu answers)\n",
        100 * fraction(compared->agree, compared->total), compared->agree, compared->total);
    if (compared->p_value >= 1e-300)
        snprintf(p, sizeof p, "p = %.2g", compared->p_value);
    say("flips     %zu right to wrong, %zu wrong to right   (McNemar: %s)\n", compared->lost,
        compared->won, p);
    verdict_text(&found, text, sizeof text);
    say_wrapped(10, "verdict   %s", text);
}

#ifdef PTQ_HAVE_jansson

json_t *json_accuracy(size_t correct, size_t total) {
    return json_pack("{s:I,s:I,s:f}", "correct", (json_int_t)correct, "total", (json_int_t)total,
                     "accuracy", fraction(correct, total));
}

json_t *json_overall(const ptq_evaluation *result) {
    json_t *made = json_accuracy(result->correct, result->total);

    if (result->classes >= TOP5_CLASSES) {
        size_t five = top5_correct(result);

        json_set_count(made, "top5_correct", five);
        json_object_set_new(made, "top5_accuracy", json_real(fraction(five, result->total)));
    }
    return made;
}

void json_set_comparison(json_t *object, const ptq_comparison *compared, double margin) {
    static const char *const kinds[] = {"as_good", "too_few_images", "worse"};
    verdict found = judge(compared, margin);

    json_object_set_new(object, "agreement", json_real(fraction(compared->agree, compared->total)));
    json_object_set_new(object, "delta_pp", json_real(compared->delta_pp + 0.0));
    json_object_set_new(object, "interval",
                        json_pack("[f,f]", compared->low_pp + 0.0, compared->high_pp + 0.0));
    json_object_set_new(object, "flips",
                        json_pack("{s:I,s:I}", "right_to_wrong", (json_int_t)compared->lost,
                                  "wrong_to_right", (json_int_t)compared->won));
    json_object_set_new(object, "mcnemar_p", json_real(compared->p_value));
    json_object_set_new(object, "verdict",
                        json_pack("{s:s,s:f}", "kind", kinds[found.kind], "margin_pp", margin));
    if (found.kind == VERDICT_TOO_FEW)
        json_set_count(json_object_get(object, "verdict"), "images_needed", found.needed);
}

json_t *json_divergence(const divergence *cost, size_t images) {
    double low, high;

    agreement_interval(cost->agreement, images, &low, &high);
    return json_pack("{s:o,s:f,s:f,s:[f,f],s:f}", "sqnr_db",
                     isfinite(cost->sqnr_db) ? json_real(cost->sqnr_db) : json_null(), "kl",
                     cost->kl, "agreement", cost->agreement, "agreement_interval", low, high,
                     "delta_pp", cost->delta_pp + 0.0);
}

#endif
