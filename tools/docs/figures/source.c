/* What the figures are drawn from: a model, its pictures, its calibration. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

int fail(const char *text) {
    fprintf(stderr, "figures: %s\n", text);
    return 1;
}

/* Every call into the library goes through this. */
int did(source *s, ptq_status status) { return status ? fail(s->err.text) : 0; }

int open_source(source *s) {
    ptq_plan_options scalar = {PTQ_ISA_SCALAR, {NULL, NULL, NULL}};

    if (did(s, ptq_model_load(s->model_path, NULL, &s->original, &s->err)) ||
        did(s, ptq_fuse(s->original, &s->fused, NULL, &s->err)) ||
        did(s, ptq_plan_create(s->fused, &scalar, &s->plan, &s->err)) ||
        did(s, ptq_cifar10_open(s->data_path, PTQ_SPLIT_TRAIN, NULL, &s->train, &s->err)) ||
        did(s, ptq_cifar10_open(s->data_path, PTQ_SPLIT_TEST, NULL, &s->test, &s->err)))
        return 1;
    s->tested = *ptq_cifar10_dataset(s->test);
    if (s->tested.count > s->images)
        s->tested.count = s->images;
    return did(s,
               ptq_sample(ptq_cifar10_dataset(s->train), SAMPLES, 42, s->index, NULL, &s->err)) ||
           did(s, ptq_subset_open(&s->subset, ptq_cifar10_dataset(s->train), s->index, SAMPLES,
                                  &s->err));
}

int calibrate(source *s) {
    return did(s, ptq_calibrate(s->plan, &s->subset.dataset, NULL, &s->calibration, &s->err));
}

void close_source(source *s) {
    ptq_release(&s->before.memory);
    ptq_calibration_free(s->calibration);
    ptq_cifar10_free(s->train);
    ptq_cifar10_free(s->test);
    ptq_plan_free(s->plan);
    ptq_model_free(s->fused);
    ptq_model_free(s->original);
}

/* A plan on the best kernels of this processor: integers are the same on all of them. */
int evaluate(source *s, const ptq_model *model, ptq_evaluation *out) {
    ptq_plan *plan = NULL;
    int status = did(s, ptq_plan_create(model, NULL, &plan, &s->err)) ||
                 did(s, ptq_evaluate(plan, &s->tested, NULL, out, &s->err));

    ptq_plan_free(plan);
    return status;
}

int convert(source *s, const ptq_scheme *scheme, ptq_model **out) {
    ptq_convert_options options = {0};

    options.scheme = *scheme;
    options.images = &s->subset.dataset;
    return did(s, ptq_convert(s->fused, s->calibration, &options, out, NULL, &s->err));
}

double largest_of(const ptq_tensor *weight, int channel) {
    size_t n = ptq_tensor_elements(weight) / (size_t)weight->dim[0], i;
    double most = 0;

    for (i = 0; i < n; i++)
        most = fmax(most, fabs((double)ptq_tensor_real(weight, (size_t)channel * n + i)));
    return most;
}
