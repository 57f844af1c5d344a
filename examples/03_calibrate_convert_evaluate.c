/* Takes a float ResNet8 through the whole flow: calibrate on training images, convert with each
   preset, run on integers, and compare with the float model on the same test images.

       build/03_calibrate_convert_evaluate MODEL.safetensors cifar-10-batches-bin [IMAGES]
*/
#include <stdio.h>
#include <stdlib.h>

#define PTQ_THREADS
#define PTQ_IMPLEMENTATION
#include "../ptq.h"

enum { SAMPLES = 1000, SEED = 42, THREADS = 2 };

/* Everything that the flow makes, in the order in which it is made. */
typedef struct flow {
    ptq_model *model, *fused;
    ptq_plan *plan; /* of the fused float model */
    ptq_cifar10 *train, *test;
    size_t indices[SAMPLES];
    ptq_subset subset;
    ptq_calibration *calibration;
    ptq_evaluate_options evaluate;
    ptq_evaluation baseline;
    ptq_error err;
} flow;

/* The float model: load it, fold batch norm into the convolutions, measure it. */
static ptq_status measure_float(flow *f, const char *model, const char *data) {
    if (ptq_model_load(model, NULL, &f->model, &f->err) ||
        ptq_fuse(f->model, &f->fused, NULL, &f->err) ||
        ptq_plan_create(f->fused, NULL, &f->plan, &f->err) ||
        ptq_cifar10_open(data, PTQ_SPLIT_TEST, NULL, &f->test, &f->err))
        return f->err.status;
    return ptq_evaluate(f->plan, ptq_cifar10_dataset(f->test), &f->evaluate, &f->baseline, &f->err);
}

/* Calibration: 100 training images of each class pass through the float model while every tensor's
   range is observed. Never test images: those are for measuring. */
static ptq_status calibrate(flow *f, const char *data) {
    ptq_calibrate_options options = {0};
    const ptq_dataset *images;

    options.work.threads = THREADS;
    if (ptq_cifar10_open(data, PTQ_SPLIT_TRAIN, NULL, &f->train, &f->err))
        return f->err.status;
    images = ptq_cifar10_dataset(f->train);
    if (ptq_sample(images, SAMPLES, SEED, f->indices, NULL, &f->err) ||
        ptq_subset_open(&f->subset, images, f->indices, SAMPLES, &f->err))
        return f->err.status;
    return ptq_calibrate(f->plan, &f->subset.dataset, &options, &f->calibration, &f->err);
}

static void print_row(const char *name, const ptq_evaluation *e, const ptq_comparison *c,
                      size_t bytes) {
    printf("%-9s %5zu of %zu  %6.2f %%", name, e->correct, e->total,
           100.0 * (double)e->correct / (double)e->total);
    if (c)
        printf("  %+6.2f [%+.2f, %+.2f]   %6.2f %%", c->delta_pp, c->low_pp, c->high_pp,
               100.0 * (double)c->agree / (double)c->total);
    else
        printf("  %-23s %8s", "", "");
    printf("  %7zu\n", bytes);
    fflush(stdout);
}

/* One preset: convert, run every test image on the new model, compare with float. */
static ptq_status measure_preset(flow *f, const char *name) {
    ptq_convert_options options = {0};
    ptq_model *quantized = NULL;
    ptq_plan *plan = NULL;
    ptq_evaluation result = {0};
    ptq_comparison comparison;
    void *file = NULL;
    size_t bytes = 0;

    options.images = &f->subset.dataset; /* for learned rounding */
    options.work.threads = THREADS;
    if (!ptq_preset(name, &options.scheme, &f->err) &&
        !ptq_convert(f->fused, f->calibration, &options, &quantized, NULL, &f->err) &&
        !ptq_plan_create(quantized, NULL, &plan, &f->err) &&
        !ptq_evaluate(plan, ptq_cifar10_dataset(f->test), &f->evaluate, &result, &f->err) &&
        !ptq_compare(&f->baseline, &result, &comparison, &f->err) &&
        !ptq_model_write(quantized, &file, &bytes, &f->err))
        print_row(name, &result, &comparison, bytes);
    ptq_bytes_free(file, NULL);
    ptq_release(&result.memory);
    ptq_plan_free(plan);
    ptq_model_free(quantized);
    return f->err.status;
}

int main(int argc, char **argv) {
    static flow f; /* zeroed, and too large for some stacks */
    void *file = NULL;
    size_t bytes = 0;
    unsigned i;

    if (argc != 3 && argc != 4)
        return fprintf(stderr, "usage: %s MODEL CIFAR-10-FOLDER [IMAGES]\n", argv[0]), 2;
    f.evaluate.work.threads = THREADS;
    f.evaluate.limit = argc == 4 ? (size_t)strtoul(argv[3], NULL, 10) : 0;
    if (!measure_float(&f, argv[1], argv[2]) && !calibrate(&f, argv[2]) &&
        !ptq_model_write(f.fused, &file, &bytes, &f.err)) {
        printf("scheme        right   accuracy  to float, points [95 %%]   agreement    bytes\n");
        print_row("float", &f.baseline, NULL, bytes);
        for (i = 0; ptq_name(PTQ_NAMES_PRESET, i) && !f.err.status; i++)
            measure_preset(&f, ptq_name(PTQ_NAMES_PRESET, i));
    }
    if (f.err.status)
        fprintf(stderr, "%s\n", f.err.text);
    ptq_bytes_free(file, NULL);
    ptq_release(&f.baseline.memory);
    ptq_calibration_free(f.calibration);
    ptq_cifar10_free(f.train);
    ptq_cifar10_free(f.test);
    ptq_plan_free(f.plan);
    ptq_model_free(f.fused);
    ptq_model_free(f.model);
    return f.err.status != PTQ_OK;
}
