/* seeds DIR: writes valid inputs for every fuzz target into DIR/TARGET/. A fuzzer that starts from
   them needs not guess the file formats. They are as small as they can be while they hold every
   kind of node, because a fuzzer is as fast as its inputs are short. */
#include <sys/stat.h>

#include "networks.h"

/* Every operator of float networks once. */
static const char all_text[] = "ptq-graph 1\n"
                               "input input shape=4x4x2\n"
                               "a conv2d in=input channels=2 kernel=3x3\n"
                               "n batch_norm in=a epsilon=0.001\n"
                               "r relu in=n\n"
                               "b conv2d in=r channels=2 kernel=1x2 stride=1x1 groups=2 bias=0\n"
                               "s add in=b,r\n"
                               "t relu6 in=s\n"
                               "m max_pool in=t kernel=2x2 stride=1x1 pad=0,1,1,0\n"
                               "v avg_pool in=m kernel=2x2 stride=2x2 pad=valid include_pad=1\n"
                               "p global_avg_pool in=v\n"
                               "d dense in=p channels=3\n"
                               "o softmax in=d\n";

/* What can be calibrated in no time. */
static const char short_text[] = "ptq-graph 1\n"
                                 "input input shape=2x2x1\n"
                                 "c conv2d in=input channels=1 kernel=1x1\n"
                                 "d dense in=c channels=2\n";

static const char *directory;

static void save(const char *target, const char *name, const void *bytes, size_t size) {
    char path[512];

    snprintf(path, sizeof path, "%s/%s", directory, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", directory, target, name);
    expect(!ptq_file_write(path, bytes, size, &err));
}

static void save_model(const ptq_model *model, const char *name) {
    char text[4096];
    void *bytes = NULL;
    size_t size = 0, length = ptq_graph_write(model, text, sizeof text);

    expect(length < sizeof text);
    expect(!ptq_model_write(model, &bytes, &size, &err));
    save("model", name, bytes, size);
    save("graph", name, text, length);
    ptq_bytes_free(bytes, NULL);
}

/* The names of its tensors tell ResNet8. */
static void save_tensors(const ptq_model *model, const char *name) {
    size_t size = 0;
    void *bytes = model_bytes(model, &size);

    save("model", name, bytes, size);
    ptq_bytes_free(bytes, NULL);
}

static void save_records(void) {
    uint8_t records[2 * PTQ_CIFAR10_RECORD];

    draw_records(records, 2);
    save("cifar10", "one", records, PTQ_CIFAR10_RECORD);
    save("cifar10", "two", records, sizeof records);
}

/* ---- Calibrated and quantized networks ---- */

/* A network in every form that a preset makes of it, with few bits, with a self-test vector. */
static void save_presets(const ptq_model *fused, const ptq_calibration *seen,
                         const ptq_dataset *images) {
    ptq_convert_options options;
    ptq_model *made = NULL;
    int i;

    memset(&options, 0, sizeof options);
    options.images = images;
    for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++) {
        expect(!ptq_preset(ptq_name(PTQ_NAMES_PRESET, (unsigned)i), &options.scheme, &err));
        expect(!ptq_convert(fused, seen, &options, &made, NULL, &err));
        save_model(made, ptq_name(PTQ_NAMES_PRESET, (unsigned)i));
        ptq_model_free(made);
    }
    memset(&options.scheme, 0, sizeof options.scheme);
    options.scheme.weight_bits = 3;
    options.scheme.code_logits = 1;
    expect(!ptq_convert(fused, seen, &options, &made, NULL, &err));
    expect(!ptq_self_test_add(made, &err));
    save_model(made, "tested");
    ptq_model_free(made);
}

static void save_calibration(const ptq_calibration *seen) {
    void *bytes = NULL;
    size_t size = 0;

    expect(!ptq_calibration_write(seen, &bytes, &size, &err));
    save("calibration", "seen", bytes, size);
    ptq_bytes_free(bytes, NULL);
}

/* What TensorFlow Lite has. */
static const char lite_text[] =
    "ptq-graph 1\n"
    "input input shape=8x8x3 std=2,2,2\n"
    "a conv2d in=input channels=4 kernel=3x3 stride=2x2\nr relu6 in=a\n"
    "b conv2d in=r channels=8 groups=4 kernel=3x3 pad=1,0,2,1\n"
    "c conv2d in=b channels=8 groups=2 kernel=1x1\nd add in=c,b\ns relu in=d\n"
    "m max_pool in=s kernel=2x2 pad=valid\nv avg_pool in=m kernel=2x2 stride=1x1\n"
    "g global_avg_pool in=v\nh dense in=g channels=3\np softmax in=h\n";

/* As real numbers, and in its arithmetic, whose additions stand apart. */
static void save_lite(const char *text) {
    ptq_model *model = make_network(text), *fused = NULL, *made = NULL;
    ptq_convert_options options;
    ptq_calibration *seen;
    ptq_dataset data;

    memset(&options, 0, sizeof options);
    expect(!ptq_preset("tflite", &options.scheme, &err));
    options.scheme.code_logits = 1;
    expect(!ptq_model_set_meta(model, "arithmetic", "xnnpack", &err));
    expect(!ptq_fuse(model, &fused, NULL, &err));
    seen = calibrate(fused, images_for(fused, &data));
    expect(!ptq_convert(fused, seen, &options, &made, NULL, &err));
    save_model(model, "float");
    save_model(made, "lite");
    ptq_model_free(made);
    ptq_calibration_free(seen);
    ptq_model_free(fused);
    ptq_model_free(model);
}

static void save_network(const char *text, const char *name, int presets) {
    ptq_model *model = make_network(text), *fused = NULL;
    ptq_calibration *seen;
    ptq_dataset data;

    save_model(model, name);
    expect(!ptq_fuse(model, &fused, NULL, &err));
    seen = calibrate(fused, images_for(fused, &data));
    if (presets) {
        save_model(fused, "fused");
        save_presets(fused, seen, &data);
    } else {
        save_calibration(seen);
    }
    ptq_calibration_free(seen);
    ptq_model_free(fused);
    ptq_model_free(model);
}

/* ---- Arrays ---- */

static size_t put_npy(uint8_t *to, const char *type, const char *shape, size_t bytes) {
    int length = snprintf((char *)to + 10, 246,
                          "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", type, shape);

    memcpy(to, "\x93NUMPY\1", 8);
    to[8] = (uint8_t)length;
    to[9] = 0;
    for (size_t i = 0; i < bytes; i++)
        to[10 + (size_t)length + i] = (uint8_t)(i % 3);
    return 10 + (size_t)length + bytes;
}

/* Little-endian numbers, 1 to 4 bytes each, as "4:67324752 2:20"; "s" stands for a name. */
static size_t put_fields(uint8_t *to, const char *fields) {
    size_t at = 0;
    char *end;

    while (*fields) {
        int width = *fields - '0';
        unsigned long value;

        if (*fields == 's') {
            to[at++] = 'a';
            fields += 1 + (fields[1] == ' ');
            continue;
        }
        value = strtoul(fields + 2, &end, 10);
        while (width--) {
            to[at++] = (uint8_t)value;
            value >>= 8;
        }
        fields = end + (*end == ' ');
    }
    return at;
}

/* A member "a", stored, or deflated in a block that is stored. */
static void save_zip(const char *name, int method) {
    static const char *const local[] = {"4:67324752 2:20 2:0 2:0 4:0 4:907060870 4:5 4:5 2:1 2:0 s",
                                        "4:67324752 2:20 2:0 2:8 4:0 4:907060870 4:10 4:5 2:1 2:0 "
                                        "s"};
    static const char *const listed[] = {
        "4:33639248 2:20 2:20 2:0 2:0 4:0 4:907060870 4:5 4:5 2:1 2:0 2:0 2:0 2:0 4:0 4:0 s",
        "4:33639248 2:20 2:20 2:0 2:8 4:0 4:907060870 4:10 4:5 2:1 2:0 2:0 2:0 2:0 4:0 4:0 s"};
    static const char *const end[] = {"4:101010256 2:0 2:0 2:1 2:1 4:47 4:36 2:0",
                                      "4:101010256 2:0 2:0 2:1 2:1 4:47 4:41 2:0"};
    uint8_t file[256];
    size_t at = put_fields(file, local[method]);

    if (method) {
        memcpy(file + at, "\x01\x05\x00\xfa\xff", 5);
        at += 5;
    }
    memcpy(file + at, "hello", 5);
    at += 5;
    at += put_fields(file + at, listed[method]);
    at += put_fields(file + at, end[method]);
    save("zip", name, file, at);
}

static void save_arrays(void) {
    static const uint8_t images[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 9, 8, 7, 6};
    static const uint8_t labels[] = {0, 0, 11, 1, 0, 0, 0, 2, 0, 1, 0, 2};
    uint8_t file[512];

    save("npy", "bytes", file, put_npy(file, "|u1", "(2, 2, 2, 3)", 24));
    save("npy", "reals", file, put_npy(file, ">f4", "(3, 2)", 24));
    save("npy", "halves", file, put_npy(file, "<f2", "(3,)", 6));
    save("npy", "labels", file, put_npy(file, "<i8", "(2, 1)", 16));
    save("idx", "images", images, sizeof images);
    save("idx", "labels", labels, sizeof labels);
    save_zip("stored", 0);
    save_zip("deflated", 1);
}

int main(int argc, char **argv) {
    ptq_model *model = NULL;

    expect(argc == 2);
    directory = argv[1];
    mkdir(directory, 0777);
    save_records();
    save_arrays();
    save("kernels", "zero", "0", 1);
    save_network(all_text, "all", 1);
    save_network(short_text, "short", 0);
    save_lite(lite_text);
    expect(!ptq_resnet8(32, 1, 2, NULL, &model, &err));
    fill(model);
    save_tensors(model, "resnet8");
    ptq_model_free(model);
    return 0;
}
