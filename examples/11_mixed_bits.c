/* Another number of bits for each layer: chosen by hand, and by measuring what each layer bears.
   Weights are rounded to the nearest code here, which is quick; the preset "best" would learn how
   to round them.

       build/11_mixed_bits [MODEL.safetensors CIFAR-10-FOLDER]
*/
#include <stdio.h>

#define PTQ_IMPLEMENTATION
#include "../ptq.h"
#include "../tools/ptq/measure/mix.c"
#include "../tools/ptq/measure/search.c"

enum { SAMPLES = 100, MEASURED = 1000 };

typedef struct work {
    ptq_model *model, *fused;
    ptq_plan *plan;
    ptq_cifar10 *train, *test;
    ptq_dataset images;
    ptq_calibration *seen;
    ptq_evaluation baseline;
    ptq_error err;
} work;

static ptq_status prepare(work *w, const char *model, const char *data) {
    ptq_evaluate_options limit = {0};

    limit.limit = MEASURED;
    if (ptq_model_load(model, NULL, &w->model, &w->err) ||
        ptq_fuse(w->model, &w->fused, NULL, &w->err) ||
        ptq_plan_create(w->fused, NULL, &w->plan, &w->err) ||
        ptq_cifar10_open(data, PTQ_SPLIT_TRAIN, NULL, &w->train, &w->err) ||
        ptq_cifar10_open(data, PTQ_SPLIT_TEST, NULL, &w->test, &w->err) ||
        ptq_evaluate(w->plan, ptq_cifar10_dataset(w->test), &limit, &w->baseline, &w->err))
        return w->err.status;
    w->images = *ptq_cifar10_dataset(w->train);
    w->images.count = w->images.count < SAMPLES ? w->images.count : SAMPLES;
    return ptq_calibrate(w->plan, &w->images, NULL, &w->seen, &w->err);
}

/* Prints the bits of every layer's weights, then how the model does on the test images. */
static void show(work *w, const char *name, const ptq_model *model) {
    ptq_evaluate_options limit = {0};
    ptq_evaluation result = {0};
    ptq_comparison compared;
    ptq_plan *plan = NULL;
    size_t bytes = 0;
    int i;

    printf("%-12s", name);
    for (i = 1; i < model->nodes; i++) {
        bytes += (size_t)ptq_node_cost(model, i).param_bytes;
        if (model->node[i].param[PTQ_PARAM_WEIGHT].rank)
            printf(" %2d", model->node[i].param[PTQ_PARAM_WEIGHT].bits);
    }
    limit.limit = MEASURED;
    if (!ptq_plan_create(model, NULL, &plan, &w->err) &&
        !ptq_evaluate(plan, ptq_cifar10_dataset(w->test), &limit, &result, &w->err) &&
        !ptq_compare(&w->baseline, &result, &compared, &w->err))
        printf("  %7zu bytes, %zu of %zu right, agrees with float on %.1f %%\n", bytes,
               result.correct, result.total, 100.0 * (double)compared.agree / (double)result.total);
    fflush(stdout);
    ptq_release(&result.memory);
    ptq_plan_free(plan);
}

/* The preset "best", but for the rounding. */
static ptq_scheme scheme(int bits, ptq_error *err) {
    ptq_scheme made = {0};

    ptq_preset("best", &made, err);
    made.rounding = PTQ_ROUNDING_NEAREST;
    made.weight_bits = bits;
    return made;
}

/* Overrides are a list of patterns; of those that match a node's name the last counts. */
static void by_hand(work *w, const char *name, int bits, const ptq_override *override,
                    int overrides) {
    ptq_convert_options options = {0};
    ptq_model *model = NULL;

    options.scheme = scheme(bits, &w->err);
    options.images = &w->images;
    options.override = override;
    options.overrides = overrides;
    if (!w->err.status && !ptq_convert(w->fused, w->seen, &options, &model, NULL, &w->err))
        show(w, name, model);
    ptq_model_free(model);
}

/* The search of ptq quantize, two files beside the header: so many bits for a weight on average,
   where they hurt least. */
static void by_search(work *w, const char *name, double average_bits) {
    search_options options = {0};
    mix_goal goal = {0};
    ptq_model *model = NULL;

    options.scheme = scheme(8, &w->err);
    options.images = &w->images;
    goal.average_bits = average_bits;
    if (!w->err.status && !convert_mixed(w->fused, w->seen, &options, &goal, &model, NULL, &w->err))
        show(w, name, model);
    ptq_model_free(model);
}

int main(int argc, char **argv) {
    static work w;
    ptq_override override[3] = {{"block3.*", {0}}, {"block?.shortcut", {0}}, {"fc", {0}}};
    int i;

    if (!prepare(&w, argc == 3 ? argv[1] : "examples/models/resnet8-shapes10.safetensors",
                 argc == 3 ? argv[2] : "build/shapes10-data")) {
        for (i = 1; i < w.fused->nodes; i++)
            if (w.fused->node[i].param[PTQ_PARAM_WEIGHT].rank)
                printf("%s%s", i > 1 ? ", " : "bits of the weights of ", w.fused->node[i].name);
        printf(":\n\n");
        show(&w, "float", w.fused);
        by_hand(&w, "all 8", 8, NULL, 0);
        by_hand(&w, "all 3", 3, NULL, 0);
        for (i = 0; i < 3; i++) /* few bits for the large layers, many for the small ones */
            override[i].scheme = scheme(i ? 8 : 3, &w.err);
        by_hand(&w, "by hand", 5, override, 3);
        by_search(&w, "by search", 3.5);
    }
    if (w.err.status)
        fprintf(stderr, "%s\n", w.err.text);
    ptq_release(&w.baseline.memory);
    ptq_calibration_free(w.seen);
    ptq_cifar10_free(w.test);
    ptq_cifar10_free(w.train);
    ptq_plan_free(w.plan);
    ptq_model_free(w.fused);
    ptq_model_free(w.model);
    return w.err.status != PTQ_OK;
}
