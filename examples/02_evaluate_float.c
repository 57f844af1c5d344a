/* Evaluates a float ResNet8 on the test images of CIFAR-10, or of other data in the same form: how
   many does it get right?

       build/02_evaluate_float MODEL.safetensors cifar-10-batches-bin
*/
#include <stdio.h>

#define PTQ_IMPLEMENTATION
#include "../ptq.h"

static int show_progress(void *user, size_t done, size_t total) {
    (void)user;
    if (done % 1024 == 0)
        fprintf(stderr, "%zu of %zu images\n", done, total);
    return 0; /* anything else would stop the work */
}

int main(int argc, char **argv) {
    ptq_error err = {PTQ_OK, ""};
    ptq_model *model = NULL, *fused = NULL;
    ptq_plan *plan = NULL;
    ptq_cifar10 *data = NULL;
    ptq_evaluation result = {0};
    ptq_evaluate_options options = {0};
    int c;

    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.safetensors CIFAR-10-FOLDER\n", argv[0]);
        return 2;
    }
    options.work.progress = show_progress;
    if (ptq_model_load(argv[1], NULL, &model, &err) ||
        ptq_fuse(model, &fused, NULL, &err) || /* batch norm, ReLU, addition: into convolutions */
        ptq_plan_create(fused, NULL, &plan, &err) ||
        ptq_cifar10_open(argv[2], PTQ_SPLIT_TEST, NULL, &data, &err) ||
        ptq_evaluate(plan, ptq_cifar10_dataset(data), &options, &result, &err)) {
        fprintf(stderr, "%s\n", err.text);
    } else {
        for (c = 0; c < result.classes; c++)
            printf("%-11s %4zu of %4zu\n", ptq_cifar10_dataset(data)->class_name[c],
                   result.class_correct[c], result.class_total[c]);
        printf("%-11s %4zu of %4zu right, %.2f %%\n", "all", result.correct, result.total,
               100.0 * (double)result.correct / (double)result.total);
    }
    ptq_release(&result.memory);
    ptq_cifar10_free(data);
    ptq_plan_free(plan);
    ptq_model_free(fused);
    ptq_model_free(model);
    return err.status != PTQ_OK;
}
