/* seeds DIR: writes valid inputs for every fuzz target into DIR/TARGET/. A fuzzer that starts from
   them needs not guess the file formats. */
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static const char *directory;

static void save(const char *target, int number, const void *bytes, size_t size)
{
    char path[512];

    snprintf(path, sizeof path, "%s/%s", directory, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%d", directory, target, number);
    expect(!ptq_file_write(path, bytes, size, &err));
}

static void save_model(const ptq_model *model, int number)
{
    char text[16384];
    void *bytes = NULL;
    size_t size = 0, length = ptq_graph_write(model, text, sizeof text);

    expect(!ptq_model_write(model, &bytes, &size, &err));
    save("model", number, bytes, size);
    save("graph", number, text, length);
    ptq_bytes_free(bytes, NULL);
}

/* Two pictures in CIFAR-10's form. */
static void draw_records(uint8_t *records, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++)
        records[i] = i % PTQ_CIFAR10_RECORD ? (uint8_t)(i * i >> 7) : (uint8_t)(i > 0);
    save("cifar10", 0, records, size);
}

/* The narrowest ResNet8 in every form that a preset makes of it. */
static void save_presets(const ptq_model *fused, const ptq_calibration *seen, ptq_dataset images)
{
    ptq_convert_options options = {0};
    ptq_model *made = NULL;
    int i;

    options.images = images;
    for (i = 0; ptq_preset_name(i); i++) {
        expect(!ptq_preset(ptq_preset_name(i), &options.scheme, &err));
        expect(!ptq_convert(fused, seen, &options, &made, NULL, &err));
        save_model(made, i + 2);
        ptq_model_free(made);
    }
}

static void fill(ptq_model *model)
{
    ptq_rng rng;
    size_t k;
    int i;

    ptq_rng_seed(&rng, 1, 0);
    for (i = 0; i < model->nodes; i++)
        for (k = 0; k < ptq_tensor_elements(&model->node[i].param[PTQ_WEIGHT]); k++)
            ((float *)model->node[i].param[PTQ_WEIGHT].data)[k] = ptq_rng_float(&rng) - 0.4f;
}

int main(int argc, char **argv)
{
    uint8_t records[2 * PTQ_CIFAR10_RECORD];
    ptq_calibrate_options any = {0};
    ptq_calibration *seen = NULL;
    ptq_model *model = NULL, *fused = NULL;
    ptq_cifar10 *set = NULL;
    ptq_plan *plan = NULL;
    void *bytes = NULL;
    size_t size = 0;

    expect(argc == 2);
    directory = argv[1];
    mkdir(directory, 0777);
    draw_records(records, sizeof records);
    any.accept_any = 1;
    expect(!ptq_cifar10_parse(records, sizeof records, NULL, &set, &err));
    expect(!ptq_resnet8(32, 1, 10, NULL, &model, &err));
    fill(model);
    save_model(model, 0);
    expect(!ptq_fuse(model, &fused, NULL, &err));
    save_model(fused, 1);
    expect(!ptq_plan_create(fused, NULL, &plan, &err));
    expect(!ptq_calibrate(plan, ptq_cifar10_dataset(set), &any, &seen, &err));
    expect(!ptq_calibration_write(seen, &bytes, &size, &err));
    save("calibration", 0, bytes, size);
    save("kernels", 0, "0", 1);
    save_presets(fused, seen, ptq_cifar10_dataset(set));
    ptq_bytes_free(bytes, NULL);
    ptq_calibration_free(seen);
    ptq_plan_free(plan);
    ptq_model_free(fused);
    ptq_model_free(model);
    ptq_cifar10_free(set);
    return 0;
}
