/* For cli_import.sh: make_tensors DIRECTORY writes three float networks with random weights,
   DIRECTORY/resnet8.safetensors, biased.safetensors and flat.safetensors, and what other programs
   would keep of them: DIRECTORY/NAME.torch.safetensors, with other names, other types and, of
   PyTorch's, counters. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"

static ptq_rng rng;
static ptq_error err;

static void try(ptq_status status) {
    if (status) {
        fprintf(stderr, "make_tensors: %s\n", err.text);
        exit(1);
    }
}

/* Multiples of 1/16 with at most 7 bits, which every type holds exactly. */
static void randomize(ptq_model *model) {
    for (int i = 0; i < model->nodes; i++)
        for (int k = 0; k < PTQ_PARAM_COUNT; k++) {
            ptq_tensor *t = &model->node[i].param[k];
            for (size_t j = 0; j < ptq_tensor_elements(t); j++)
                ((float *)t->data)[j] = (float)(1 + (int)ptq_rng_below(&rng, 127) -
                                                (k == PTQ_PARAM_VARIANCE ? 0 : 64)) /
                                        16;
        }
}

/* ---- A safetensors file, written without the library ---- */

typedef struct writer {
    char header[16384];
    unsigned char data[131072];
    size_t length, size;
} writer;

static void put_bytes(writer *w, uint64_t value, int count) {
    for (int i = 0; i < count; i++)
        w->data[w->size++] = (unsigned char)(value >> 8 * i);
}

static void put_value(writer *w, const char *dtype, float value) {
    double wide = value;
    uint32_t single;
    uint64_t bits;
    memcpy(&single, &value, sizeof single);
    memcpy(&bits, &wide, sizeof bits);
    if (strcmp(dtype, "F64") == 0)
        put_bytes(w, bits, 8);
    else if (strcmp(dtype, "BF16") == 0)
        put_bytes(w, single >> 16, 2);
    else if (strcmp(dtype, "F16") == 0)
        put_bytes(w, ptq_f32_to_f16(value), 2);
    else
        put_bytes(w, single, 4);
}

static void put_text(writer *w, const char *format, ...) {
    va_list args;
    va_start(args, format);
    w->length +=
        (size_t)vsnprintf(w->header + w->length, sizeof w->header - w->length, format, args);
    va_end(args);
}

/* `from` tells which element of the tensor comes next; NULL: in order. */
static void put_tensor(writer *w, const char *name, const char *dtype, const ptq_tensor *t,
                       const size_t *from) {
    size_t begin = w->size;
    put_text(w, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", w->length ? "," : "{", name, dtype);
    for (int i = 0; i < t->rank; i++)
        put_text(w, i ? ",%d" : "%d", t->dim[i]);
    for (size_t i = 0; i < ptq_tensor_elements(t); i++)
        put_value(w, dtype, ptq_tensor_number(t, from ? from[i] : i));
    put_text(w, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)begin, (unsigned long)w->size);
}

static void put_counter(writer *w, const char *name) {
    put_text(w,
             ",\"%s.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],"
             "\"data_offsets\":[%lu,%lu]}",
             name, (unsigned long)w->size, (unsigned long)w->size + 8);
    put_bytes(w, 1234, 8);
}

static void write_file(writer *w, const char *directory, const char *name) {
    unsigned char *file;
    char path[4096];
    put_text(w, "}");
    file = malloc(8 + w->length + w->size);
    if (!file)
        exit(1);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)w->length >> 8 * i);
    memcpy(file + 8, w->header, w->length);
    memcpy(file + 8 + w->length, w->data, w->size);
    snprintf(path, sizeof path, "%s/%s.torch.safetensors", directory, name);
    try(ptq_file_write(path, file, 8 + w->length + w->size, &err));
    free(file);
}

/* ---- The two networks ---- */

static const char *const params[] = {"weight", "bias", "running_mean", "running_var"};

static void save(const ptq_model *model, const char *directory, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.safetensors", directory, name);
    try(ptq_model_check(model, &err));
    try(ptq_model_save(model, path, &err));
}

/* block1.conv2.weight is called module.blocks.1.conv2.weight, the others module.stem.NAME. As in
   PyTorch: no convolution has a bias, the epsilon is 1e-5, and strided ones pad all sides alike. */
static void make_pytorch(ptq_node *node) {
    if (node->op == PTQ_OP_CONV2D) {
        ptq_tensor_free(&node->param[PTQ_PARAM_BIAS], NULL);
        node->no_bias = 1;
    }
    if (node->op == PTQ_OP_CONV2D && node->stride[0] == 2 && node->kernel[0] == 3) {
        node->padding = PTQ_PADDING_EXPLICIT; /* torch.nn.Conv2d(..., padding=1) */
        node->pad[0] = node->pad[1] = node->pad[2] = node->pad[3] = 1;
    }
    node->epsilon = node->op == PTQ_OP_BATCH_NORM ? 1e-5f : node->epsilon;
}

/* `pytorch` 0: as Keras has it, in a file that does not say so. */
static void make_resnet8(const char *directory, const char *name, int pytorch) {
    static const char *const dtypes[] = {"F32", "F16", "BF16", "F64"};
    writer *w = calloc(1, sizeof *w);
    ptq_model *model;
    int turn = 0;
    try(ptq_resnet8(32, 3, 4, NULL, &model, &err));
    if (!w)
        exit(1);
    randomize(model);
    if (!pytorch) {
        put_text(w, "{\"__metadata__\":{\"writer\":\"nobody\"}");
        try(ptq_model_set_meta(model, "writer", "nobody", &err));
    }
    for (int i = 0; i < model->nodes; i++) {
        ptq_node *node = &model->node[i];
        char base[128], path[160];
        int block = strncmp(node->name, "block", 5) == 0;
        if (pytorch)
            make_pytorch(node);
        snprintf(base, sizeof base, "module.%s%s", block ? "blocks." : "stem.",
                 block ? node->name + 5 : node->name);
        for (int k = 0; k < PTQ_PARAM_COUNT; k++) {
            snprintf(path, sizeof path, "%s.%s", base, params[k]);
            if (node->param[k].rank)
                put_tensor(w, path, dtypes[turn++ % 4], &node->param[k], NULL);
        }
        if (pytorch && node->op == PTQ_OP_BATCH_NORM)
            put_counter(w, base);
    }
    save(model, directory, name);
    write_file(w, directory, name);
    ptq_model_free(model);
    free(w);
}

/* A dense layer over a map of 3 x 2 places and 4 channels, which PyTorch flattens by channels. */
static void make_flat(const char *directory) {
    enum { OUT = 5, ROWS = 3, COLUMNS = 2, CHANNELS = 4 };
    static writer w;
    size_t from[OUT * ROWS * COLUMNS * CHANNELS], n = 0;
    ptq_conv_options o = {0};
    ptq_model *model;
    int x;
    try(ptq_model_create(NULL, &model, &err));
    o.channels = CHANNELS;
    o.kernel_h = 1;
    x = ptq_add_conv2d(model, "0", ptq_add_input(model, "image", ROWS, COLUMNS, 3), &o);
    ptq_add_dense(model, "2", x, OUT);
    randomize(model);
    for (size_t i = 0; i < OUT; i++)
        for (size_t c = 0; c < CHANNELS; c++)
            for (size_t p = 0; p < ROWS * COLUMNS; p++)
                from[n++] = (i * ROWS * COLUMNS + p) * CHANNELS + c;
    put_tensor(&w, "0.weight", "F32", &model->node[1].param[PTQ_PARAM_WEIGHT], NULL);
    put_tensor(&w, "0.bias", "F32", &model->node[1].param[PTQ_PARAM_BIAS], NULL);
    put_tensor(&w, "2.weight", "F32", &model->node[2].param[PTQ_PARAM_WEIGHT], from);
    put_tensor(&w, "2.bias", "F32", &model->node[2].param[PTQ_PARAM_BIAS], NULL);
    save(model, directory, "flat");
    write_file(&w, directory, "flat");
    ptq_model_free(model);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return fprintf(stderr, "usage: make_tensors DIRECTORY\n"), 1;
    ptq_rng_seed(&rng, 6, 2);
    make_resnet8(argv[1], "resnet8", 1);
    make_resnet8(argv[1], "biased", 0);
    make_flat(argv[1]);
    return 0;
}
