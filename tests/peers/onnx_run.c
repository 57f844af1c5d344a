/* What ptq makes of ONNX files, for the differential test: reads lines "MODEL.onnx IMAGES RESULT N"
   from standard input, imports each model, runs it on N images of H x W x C bytes, and writes its
   logits and then its probabilities (or the logits again), as 32-bit floats, to RESULT, and of further
   results each to RESULT.2 and so on, whose names it prints as "also 2 NAME". Prints "ran" or
   "refused" behind what the import had to say; exit status 1 only where a file cannot be read or
   written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "onnx/onnx.h"

/* One by one, for the last node's result is that of the last image. */
static int run_images(ptq_session *session, const ptq_model *model, size_t classes,
                      const uint8_t *images, size_t count, const char *path) {
    size_t numbers = classes * count, item = 1;
    const ptq_node *last = &model->node[model->nodes - 1];
    float *out = malloc(2 * numbers * sizeof *out);
    FILE *file = fopen(path, "wb");
    int good = out && file;
    ptq_error err;

    for (int i = 0; i < 3; i++)
        item *= (size_t)model->node[0].shape[i];
    for (size_t i = 0; i < count && good; i++) {
        float *logits = out + i * classes;
        ptq_tensor view;

        good = !ptq_run(session, images + i * item, 1, logits, NULL, &err) &&
               !ptq_session_tensor(session, last->out, &view, &err);
        if (good)
            memcpy(logits + numbers, last->op == PTQ_OP_SOFTMAX ? view.data : logits,
                   classes * sizeof *out);
    }
    good = good && fwrite(out, sizeof *out, 2 * numbers, file) == 2 * numbers;
    free(out);
    return (file && fclose(file)) || !good;
}

/* Results from the second on, each in a file of its own. */
static int run_others(ptq_session *session, const ptq_model *model, const uint8_t *images,
                      size_t count, const char *path) {
    int good = 1, at;

    for (int k = 2; (at = ptq_model_output(model, k)) >= 0 && good; k++) {
        const int *shape = model->node[at].shape;
        size_t n = count * (size_t)(shape[0] * shape[1] * shape[2]);
        float *numbers = malloc(n * sizeof *numbers), *out[PTQ_MAX_NODES] = {NULL};
        char name[600];
        ptq_error err;
        FILE *file;

        snprintf(name, sizeof name, "%s.%d", path, k);
        out[k - 1] = numbers;
        file = fopen(name, "wb");
        good = numbers && file &&
               !ptq_run_outputs(session, PTQ_TYPE_U8, images, count, out, &err) &&
               fwrite(numbers, sizeof *numbers, n, file) == n;
        if (file && fclose(file))
            good = 0;
        free(numbers);
        printf("also %d %s\n", k, model->node[at].out);
    }
    return !good;
}

/* 0, 1 where the model is refused, 2 where something else goes wrong. */
static int run_model(const char *onnx, const char *images, const char *result, size_t count) {
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    void *bytes = NULL;
    size_t size = 0;
    ptq_session_options options = {.keep = 1};
    ptq_error err;
    int status = 2;

    if (import_onnx(onnx, &model))
        return 1;
    if (!ptq_plan_create(model, NULL, &plan, &err) &&
        !ptq_session_create(plan, &options, &session, &err) &&
        !ptq_file_read(images, 0, NULL, &bytes, &size, &err))
        status = run_images(session, model, (size_t)ptq_plan_get_info(plan)->classes, bytes, count,
                            result) ||
                         run_others(session, model, bytes, count, result)
                     ? 2
                     : 0;
    ptq_bytes_free(bytes, NULL);
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_model_free(model);
    return status;
}

int main(void) {
    char onnx[512], images[512], result[512];
    int count, status;

    dup2(STDOUT_FILENO, STDERR_FILENO); /* in one order */
    setvbuf(stdout, NULL, _IONBF, 0);
    while (scanf("%511s %511s %511s %d", onnx, images, result, &count) == 4) {
        status = run_model(onnx, images, result, (size_t)count);
        if (status == 2)
            return printf("%s: cannot be run\n", onnx), 1;
        printf("%s %s\n", status ? "refused" : "ran", onnx);
    }
    return 0;
}
