/* For cli_export.sh: make_networks DIRECTORY writes quantized networks with random weights,
   DIRECTORY/NAME.safetensors, pixels for each, NAME.pixels, and the scalar kernels' logits for
   them, NAME.f32. Their graph has every operator and many shapes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"
#include "schemes.h"

enum { IMAGES = 3, HEIGHT = 11, WIDTH = 9, CHANNELS = 2, CLASSES = 5 };

static ptq_rng rng;
static ptq_error err;

static void stop(void) {
    fprintf(stderr, "make_networks: %s\n", err.text);
    exit(1);
}

static void try(ptq_status status) {
    if (status)
        stop();
}

static ptq_status get_image(void *user, size_t index, void *item, int *label, ptq_error *e) {
    uint8_t *pixels = (uint8_t *)item;
    ptq_rng own;
    (void)user, (void)e;
    ptq_rng_seed(&own, 11, index);
    for (int i = 0; i < HEIGHT * WIDTH * CHANNELS; i++)
        pixels[i] = (uint8_t)ptq_rng_below(&own, 256);
    *label = (int)index % CLASSES;
    return PTQ_OK;
}

static int add_conv(ptq_model *model, const char *name, int input, ptq_conv_options o) {
    return ptq_add_conv2d(model, name, input, &o);
}

static int add_pool(ptq_model *model, const char *name, int input, int is_max, ptq_pool_options o) {
    return ptq_add_pool(model, is_max ? PTQ_OP_MAX_POOL : PTQ_OP_AVG_POOL, name, input, &o);
}

static ptq_conv_options conv_of(int channels, int kernel, int stride, int groups, int no_bias) {
    ptq_conv_options o = {0};
    o.channels = channels;
    o.kernel_h = kernel;
    o.stride_h = stride;
    o.groups = groups;
    o.no_bias = no_bias;
    return o;
}

static ptq_pool_options pool_of(int kernel, int stride, ptq_padding padding, int include_pad) {
    ptq_pool_options o = {0};
    o.kernel_h = kernel;
    o.stride_h = stride;
    o.padding = padding;
    o.include_pad = include_pad;
    return o;
}

/* A chain of concats, of operands with scales of their own, and a pool whose last windows are not
   whole. */
static int add_branches(ptq_model *model, int x, int variant) {
    ptq_conv_options dilated = conv_of(3, 3, 0, 0, 0);
    ptq_pool_options rest = pool_of(3, 2, PTQ_PADDING_VALID, variant % 2);
    int y, z;
    dilated.dilation_h = 2;
    y = add_conv(model, "dilated", x, dilated);
    z = add_conv(model, "other", x, conv_of(2, 1, 0, 0, 0));
    x = ptq_add_concat(model, "joined", ptq_add_concat(model, "link", y, x), z);
    rest.ceil_mode = 1;
    return add_pool(model, "rest", x, 0, rest);
}

static ptq_model *build(int variant) {
    ptq_conv_options wide = conv_of(6, 5, 0, 0, 0);
    ptq_model *model;
    int x, y, z;
    try(ptq_model_create(NULL, &model, &err));
    model->mean[0] = 100;
    model->std[1] = 2;
    x = ptq_add_input(model, "image", HEIGHT, WIDTH, CHANNELS);
    wide.kernel_w = 3;
    wide.padding = PTQ_PADDING_EXPLICIT;
    wide.pad[0] = 2, wide.pad[1] = 1, wide.pad[2] = 1;
    x = ptq_add_op(model, PTQ_OP_RELU, "wide.relu", add_conv(model, "wide", x, wide));
    y = add_conv(model, "grouped", x, conv_of(6, 3, 1, 3, 1));
    x = variant % 2 ? ptq_add_add(model, "sum", x, y) : ptq_add_add(model, "sum", y, x);
    x = ptq_add_op(model, PTQ_OP_RELU, "sum.relu", x);
    x = ptq_add_op(model, PTQ_OP_RELU6, "depthwise.relu6",
                   add_conv(model, "depthwise", x, conv_of(6, 3, 2, 6, 0)));
    y = add_pool(model, "max", x, 1, pool_of(3, 1, PTQ_PADDING_SAME, 0));
    z = add_pool(model, "average", x, 0, pool_of(3, 1, PTQ_PADDING_SAME, variant % 2));
    x = ptq_add_add(model, "pools", y, z); /* nothing to be fused into */
    x = add_pool(model, "two", x, 0, pool_of(2, 1, PTQ_PADDING_VALID, 0));
    x = ptq_add_op(model, PTQ_OP_RELU, "late.relu", x);
    x = add_branches(model, x, variant);
    x = add_conv(model, "last", x, conv_of(7, 1, 0, 0, 0));
    if (variant % 3)
        x = ptq_add_op(model, variant % 2 ? PTQ_OP_GLOBAL_MAX_POOL : PTQ_OP_GLOBAL_AVG_POOL, "pool",
                       x);
    x = ptq_add_op(model, PTQ_OP_SOFTMAX, "softmax", ptq_add_dense(model, "fc", x, CLASSES));
    try(ptq_model_check(model, &err));
    return model;
}

static void randomize(ptq_model *model) {
    for (int i = 0; i < model->nodes; i++)
        for (int k = 0; k < PTQ_PARAM_COUNT; k++) {
            ptq_tensor *t = &model->node[i].param[k];
            for (size_t j = 0; j < ptq_tensor_elements(t); j++)
                ((float *)t->data)[j] = ptq_rng_float(&rng) - 0.45f;
        }
}

static void write_results(const ptq_model *q, const char *directory, const char *name) {
    static uint8_t pixels[IMAGES * HEIGHT * WIDTH * CHANNELS];
    float logits[IMAGES * CLASSES];
    ptq_plan_options options = {PTQ_ISA_SCALAR, {NULL, NULL, NULL}};
    ptq_plan *plan;
    ptq_session *session;
    char path[4096];
    int label;
    for (size_t i = 0; i < IMAGES; i++)
        get_image(NULL, 100 + i, pixels + i * HEIGHT * WIDTH * CHANNELS, &label, &err);
    try(ptq_plan_create(q, &options, &plan, &err));
    try(ptq_session_create(plan, NULL, &session, &err));
    try(ptq_run(session, pixels, IMAGES, logits, NULL, &err));
    snprintf(path, sizeof path, "%s/%s.safetensors", directory, name);
    try(ptq_model_save(q, path, &err));
    snprintf(path, sizeof path, "%s/%s.pixels", directory, name);
    try(ptq_file_write(path, pixels, sizeof pixels, &err));
    snprintf(path, sizeof path, "%s/%s.f32", directory, name);
    try(ptq_file_write(path, logits, sizeof logits, &err));
    ptq_session_free(session);
    ptq_plan_free(plan);
}

static void make(const char *directory, const char *name, int variant, const ptq_scheme *scheme) {
    ptq_dataset data = {20, HEIGHT, WIDTH, CHANNELS, CLASSES, PTQ_TYPE_U8, get_image, NULL, NULL};
    ptq_calibrate_options calibrate = {0};
    ptq_convert_options convert;
    ptq_model *model = build(variant), *fused, *q;
    ptq_plan *plan;
    ptq_calibration *calibration;
    memset(&convert, 0, sizeof convert);
    convert.scheme = *scheme;
    convert.images = &data;
    calibrate.accept_any = 1;
    randomize(model);
    try(ptq_fuse(model, &fused, NULL, &err));
    try(ptq_plan_create(fused, NULL, &plan, &err));
    try(ptq_calibrate(plan, &data, &calibrate, &calibration, &err));
    try(ptq_convert(fused, calibration, &convert, &q, NULL, &err));
    try(ptq_model_set_meta(q, "accuracy", "*/ #error \\", &err)); /* an enemy's */
    write_results(q, directory, name);
    ptq_calibration_free(calibration);
    ptq_plan_free(plan);
    ptq_model_free(q);
    ptq_model_free(fused);
    ptq_model_free(model);
}

int main(int argc, char **argv) {
    static const char *const presets[] = {"best",   "ort-u8", "ort-s8",  "fbgemm",
                                          "tflite", "w4a8",   "dynamic", "fp16"};
    ptq_scheme scheme;
    char name[32];
    if (argc != 2)
        return fprintf(stderr, "usage: make_networks DIRECTORY\n"), 1;
    ptq_rng_seed(&rng, 6, 1);
    for (int i = 0; i < (int)(sizeof presets / sizeof *presets); i++) {
        try(ptq_preset(presets[i], &scheme, &err));
        make(argv[1], presets[i], i, &scheme);
    }
    for (int bits = 2; bits <= 7; bits++) {
        scheme = few_bits(bits);
        snprintf(name, sizeof name, "w%d", bits);
        make(argv[1], name, bits, &scheme);
    }
    return 0;
}
