/* ptq run: the logits of every image of a file. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char *model_option, *images_option, *logits_option;
static int threads, no_fuse;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "model file (.safetensors)", &model_option, NULL, NULL, 0},
    {"images", 'i', "FILE", "images as CIFAR-10 records (.bin)", &images_option, NULL, NULL, 0},
    {"logits", 'o', "FILE", "where to write N x classes float32", &logits_option, NULL, NULL, 0},
    {"threads", 't', "T", "threads (default: all cores)", NULL, &threads, NULL, 1},
    {"no-fuse", 0, NULL, "run the float graph as it is", NULL, NULL, &no_fuse, 0},
    {0}};

static const command_help help = {
    "run [--model MODEL] --images FILE.bin --logits OUT.f32 [OPTIONS]",
    "Runs a model over a file of images and writes the logits: float32, little-endian, one row\n"
    "of classes for each image. Labels are not looked at.",
    "ptq run --model resnet8.safetensors --images test_batch.bin --logits logits.f32"};

/* The labels are nobody's business here, so that models with other classes run as well. */
static ptq_status get_unlabelled(void *user, size_t index, uint8_t *pixels, int *label,
                                 ptq_error *err)
{
    const ptq_dataset *base = user;
    ptq_status status = base->get(base->user, index, pixels, label, err);

    *label = 0;
    return status;
}

static int write_logits(const float *logits, size_t count)
{
    unsigned char *bytes = malloc(count * 4);
    ptq_status status;
    ptq_error err;

    if (!bytes)
        return fail("no memory for %zu logits", count);
    for (size_t i = 0; i < count; i++) {
        uint32_t word;

        memcpy(&word, &logits[i], 4);
        for (int k = 0; k < 4; k++)
            bytes[4 * i + (size_t)k] = (unsigned char)(word >> 8 * k);
    }
    status = ptq_file_write(logits_option, bytes, count * 4, &err);
    free(bytes);
    return status ? fail("%s", err.text) : 0;
}

static int run_images(const engine *ready, const ptq_cifar10 *data)
{
    ptq_dataset base = ptq_cifar10_dataset(data), unlabelled = base;
    ptq_evaluate_options options = {0};
    ptq_evaluation result = {0};
    progress state = progress_start("run");
    ptq_status status;
    ptq_error err;

    unlabelled.get = get_unlabelled;
    unlabelled.user = &base;
    unlabelled.classes = ptq_plan_classes(ready->plan);
    options.threads = threads;
    options.progress = progress_show;
    options.user = &state;
    status = ptq_evaluate(ready->plan, unlabelled, &options, &result, &err);
    progress_end(&state);
    if (status)
        return fail("%s", err.text);
    if (write_logits(result.logits, result.total * (size_t)result.classes)) {
        ptq_evaluation_free(&result);
        return 1;
    }
    say("%zu images x %d logits in %s\n", result.total, result.classes, logits_option);
    ptq_evaluation_free(&result);
    return 0;
}

int command_run(int argc, char **argv)
{
    int parsed = parse_options(argc, argv, specs, &help, NULL, 0);
    char model_path[PATH_SIZE];
    ptq_cifar10 *data = NULL;
    ptq_error err;
    engine ready;
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!images_option || !logits_option)
        return fail("--images and --logits are needed; see 'ptq run --help'");
    if (threads == 0)
        threads = count_cores();
    if (find_model(model_option, model_path) || engine_open(model_path, !no_fuse, NULL, &ready))
        return 1;
    if (ptq_cifar10_open(images_option, PTQ_TEST_SET, NULL, &data, &err))
        status = fail("%s", err.text);
    else
        status = run_images(&ready, data);
    ptq_cifar10_free(data);
    engine_close(&ready);
    return status;
}
