/* A network of one's own, written down with the builder: depthwise separable convolutions in the
   manner of MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381). It loads weights
   by their names and is quantized. --graph writes it for "ptq train": see
   examples/models/README.md.
       build/07_your_own_network [WEIGHTS.safetensors CIFAR-10-FOLDER]
       build/07_your_own_network --graph
*/
#include <stdio.h>
#include <string.h>
#define PTQ_IMPLEMENTATION
#include "../ptq.h"

#define WEIGHTS "examples/models/separable-shapes10.safetensors"
#define DATA "build/shapes10-data" /* made by "make" */
enum { SAMPLES = 300, CLASSES = 10 };

/* Convolution, batch norm and, unless it is the last of a block, ReLU6. A depthwise convolution has
   as many groups as channels: each channel is filtered for itself. */
static int layer(ptq_model *m, const char *block, const char *name, int from, int channels,
                 int kernel, int stride, int groups, int activation) {
    ptq_conv_options conv = {
        channels, kernel, kernel, stride, stride, PTQ_PADDING_SAME,
        {0},      groups, 1,      1,      1}; /* no bias, batch norm has one; no dilation */
    char full[PTQ_NAME_SIZE];

    snprintf(full, sizeof full, "%s%s", block, name);
    from = ptq_add_conv2d(m, full, from, &conv);
    snprintf(full, sizeof full, "%s%s.bn", block, name);
    from = ptq_add_batch_norm(m, full, from, 1e-3f);
    snprintf(full, sizeof full, "%s%s.relu6", block, name);
    return activation ? ptq_add_op(m, PTQ_OP_RELU6, full, from) : from;
}

/* Twice as wide, each channel for itself, and back; added to the input where that fits. */
static int block(ptq_model *m, const char *name, int from, int width, int channels, int stride) {
    char sum[PTQ_NAME_SIZE];
    int at = layer(m, name, ".expand", from, 2 * width, 1, 1, 1, 1);

    at = layer(m, name, ".depthwise", at, 2 * width, 3, stride, 2 * width, 1);
    at = layer(m, name, ".project", at, channels, 1, 1, 1, 0);
    snprintf(sum, sizeof sum, "%s.add", name);
    return stride == 1 && width == channels ? ptq_add_add(m, sum, from, at) : at;
}

/* No line is tested: the builder remembers its first failure, and ptq_model_check tells it. */
static ptq_status build(ptq_model **out, ptq_error *err) {
    int at;

    if (ptq_model_create(NULL, out, err))
        return err->status;
    (*out)->mean[0] = (*out)->mean[1] = (*out)->mean[2] = 127.5f; /* pixels to -1..1: that is */
    (*out)->std[0] = (*out)->std[1] = (*out)->std[2] = 127.5f;    /* how they are trained on */
    at = ptq_add_input(*out, "input", 32, 32, 3);
    at = layer(*out, "stem", "", at, 16, 3, 2, 1, 1);
    at = block(*out, "block1", at, 16, 16, 1);
    at = block(*out, "block2", at, 16, 32, 2);
    at = block(*out, "block3", at, 32, 32, 1);
    at = layer(*out, "head", "", at, 64, 1, 1, 1, 1);
    at = ptq_add_op(*out, PTQ_OP_GLOBAL_AVG_POOL, "pool", at);
    ptq_add_dense(*out, "fc", at, CLASSES);
    return ptq_model_check(*out, err);
}

/* Any safetensors file with tensors of these names will do: PyTorch's state_dict has them. */
static ptq_status load_weights(ptq_model *model, const char *path, ptq_error *err) {
    static const char *const part[] = {"weight", "bias", "running_mean", "running_var"};
    char name[2 * PTQ_NAME_SIZE];
    ptq_archive *file = NULL;
    void *bytes = NULL;
    size_t size = 0;

    if (!ptq_file_read(path, 0, NULL, &bytes, &size, err))
        ptq_archive_parse(bytes, size, NULL, &file, err);
    for (int i = 0; i < 4 * model->nodes && !err->status; i++) {
        ptq_tensor *to = &model->node[i / 4].param[i % 4];
        snprintf(name, sizeof name, "%s.%s", model->node[i / 4].name, part[i % 4]);
        const ptq_tensor *from = ptq_archive_find(file, name);
        if (to->rank && (!from || from->type != to->type || from->size != to->size))
            ptq_error_set(err, PTQ_BAD_FILE, "%s: no tensor %s of the right shape", path, name);
        else if (to->rank)
            memcpy(to->data, from->data, to->size);
    }
    ptq_archive_free(file);
    ptq_bytes_free(bytes, NULL);
    return err->status;
}

/* One model on the test images; with a preset it is quantized first. */
static void measure(const ptq_model *fused, const char *preset, const ptq_calibration *seen,
                    const ptq_dataset *images, const ptq_dataset *test, ptq_error *err) {
    ptq_model *integers = NULL;
    ptq_plan *plan = NULL;
    ptq_convert_options options = {0};
    ptq_evaluation result = {0};
    void *file = NULL;
    size_t bytes = 0;

    options.images = images;
    if ((!preset || (!ptq_preset(preset, &options.scheme, err) &&
                     !ptq_convert(fused, seen, &options, &integers, NULL, err))) &&
        !ptq_plan_create(integers ? integers : fused, NULL, &plan, err) &&
        !ptq_evaluate(plan, test, NULL, &result, err) &&
        !ptq_model_write(ptq_plan_get_info(plan)->model, &file, &bytes, err))
        printf("%-7s %zu of %zu right, %6zu bytes\n", preset ? preset : "float", result.correct,
               result.total, bytes);
    ptq_bytes_free(file, NULL);
    ptq_release(&result.memory);
    ptq_plan_free(plan);
    ptq_model_free(integers);
}

int main(int argc, char **argv) {
    static const char *const preset[] = {NULL, "best", "ort-u8", "w4a8"};
    static char text[1 << 14];
    ptq_model *model = NULL, *fused = NULL;
    ptq_plan *plan = NULL;
    ptq_cifar10 *train = NULL, *test = NULL;
    ptq_calibration *seen = NULL;
    ptq_dataset images;
    ptq_error err = {PTQ_OK, ""};

    if (!build(&model, &err) && argc == 2) {
        ptq_graph_write(model, text, sizeof text);
        fputs(text, stdout);
    } else if (!err.status && !load_weights(model, argc > 2 ? argv[1] : WEIGHTS, &err) &&
               !ptq_fuse(model, &fused, NULL, &err) && !ptq_plan_create(fused, NULL, &plan, &err) &&
               !ptq_cifar10_open(argc > 2 ? argv[2] : DATA, PTQ_SPLIT_TRAIN, NULL, &train, &err) &&
               !ptq_cifar10_open(argc > 2 ? argv[2] : DATA, PTQ_SPLIT_TEST, NULL, &test, &err)) {
        images = *ptq_cifar10_dataset(train);
        images.count = images.count < SAMPLES ? images.count : SAMPLES;
        ptq_calibrate(plan, &images, NULL, &seen, &err);
        for (int i = 0; i < fused->nodes; i++) /* what each layer costs; 'ptq info' tells more */
            printf("%-21s %7llu parameters %8llu MACs\n", fused->node[i].name,
                   (unsigned long long)ptq_node_cost(fused, i).parameters,
                   (unsigned long long)ptq_node_cost(fused, i).macs);
        for (int i = 0; i < 4 && !err.status; i++)
            measure(fused, preset[i], seen, &images, ptq_cifar10_dataset(test), &err);
    }
    if (err.status)
        fprintf(stderr, "%s\n", err.text);
    ptq_calibration_free(seen);
    ptq_cifar10_free(test);
    ptq_cifar10_free(train);
    ptq_plan_free(plan);
    ptq_model_free(fused);
    ptq_model_free(model);
    return err.status != PTQ_OK;
}
