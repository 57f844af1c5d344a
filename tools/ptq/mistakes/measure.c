/* What a mistake costs: measured beside the float model, on the same images. */
#include <string.h>

#include "measure/accuracy.h"
#include "mistakes/mistake.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/machine.h"
#include "shared/output.h"

void count_answer(tally *sum, const lab *at, size_t index, int prediction) {
    sum->total++;
    sum->right += prediction == at->before.label[index];
    sum->agree += prediction == at->before.prediction[index];
}

/* Adding 0 turns -0 into 0. */
void print_row(const char *how, const lab *at, const tally *sum) {
    size_t before = 0;

    for (size_t i = 0; i < sum->total; i++)
        before += at->before.prediction[i] == at->before.label[i];
    say("%-42s %4zu of %zu %6.2f %% %+6.2f %6.2f %%\n", how, sum->right, sum->total,
        100 * fraction(sum->right, sum->total),
        100 * ((double)sum->right - (double)before) / (double)sum->total + 0.0,
        100 * fraction(sum->agree, sum->total));
}

int make_plan(const ptq_model *model, ptq_plan **out) {
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_error err;

    if (choose_isa(NULL, &options.isa))
        return 1;
    return ptq_plan_create(model, &options, out, &err) ? fail("%s", err.text) : 0;
}

int measure_plan(const char *how, const lab *at, const ptq_plan *plan, const ptq_dataset *images) {
    ptq_evaluation result;
    tally sum = {0};

    if (evaluate_plan(plan, images, how, 0, &result))
        return 1;
    for (size_t i = 0; i < result.total; i++)
        count_answer(&sum, at, i, result.prediction[i]);
    print_row(how, at, &sum);
    ptq_release(&result.memory);
    return 0;
}

int measure_model(const char *how, const lab *at, const ptq_model *model,
                  const ptq_dataset *images) {
    ptq_plan *plan = NULL;
    int status = make_plan(model, &plan) || measure_plan(how, at, plan, images);

    ptq_plan_free(plan);
    return status;
}

int calibrate_any(const ptq_model *model, const ptq_dataset *images, int accept_any,
                  ptq_calibration **out) {
    ptq_plan_options scalar = {PTQ_ISA_SCALAR, {NULL, NULL, NULL}};
    ptq_calibrate_options options = {0};
    ptq_plan *plan = NULL;
    ptq_status status;
    ptq_error err;

    options.work.threads = count_cores();
    options.accept_any = accept_any;
    status = ptq_plan_create(model, &scalar, &plan, &err);
    if (!status)
        status = ptq_calibrate(plan, images, &options, out, &err);
    ptq_plan_free(plan);
    return status ? fail("%s", err.text) : 0;
}

int convert_lab(const lab *at, const ptq_calibration *calibration, const ptq_scheme *scheme,
                ptq_model **out) {
    ptq_convert_options options = {0};
    ptq_error err;

    options.scheme = *scheme;
    return ptq_convert(at->real.model, calibration, &options, out, NULL, &err)
               ? fail("%s", err.text)
               : 0;
}

int measure_calibration(const char *how, const lab *at, const ptq_calibration *calibration,
                        const ptq_scheme *scheme) {
    ptq_model *made = NULL;
    int status =
        convert_lab(at, calibration, scheme, &made) || measure_model(how, at, made, &at->images);

    ptq_model_free(made);
    return status;
}

void print_guard(const char *where, const char *words) {
    say_wrapped(10, "guard     %s: \"%s\"", where, words);
}

void print_warning_guards(const ptq_calibration *calibration) {
    char text[1024];

    ptq_calibration_warnings(calibration, text, sizeof text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        print_guard("ptq_calibration_warnings", line);
}
