/* Fuzz target: Keras files. Behind the first byte stands a configuration that comes with weights of
   ours, in a .keras file ('0') or a .h5 file ('1'), or ('2') a whole file of any kind. What can be
   imported is a model that a file can hold. HDF5 itself, which reads what lies below, is another
   project's. */
#include <hdf5.h>
#include <string.h>

#include "imported.h"
#include "import/keras.h" /* the tool's */

enum { MOST_CONFIG = 8192, MOST_FILE = 1 << 17 };

/* A file as bytes; where a configuration goes, there is room for it. */
typedef struct image {
    uint8_t bytes[MOST_FILE];
    size_t size, config;
} image;

static image weights, model; /* model.weights.h5, and a .h5 file */

/* ---- Files with weights ---- */

typedef struct layer_weights {
    const char *layer, *name;
    int rank;
    hsize_t dim[4];
} layer_weights;

/* The seeds are networks of these. */
static const layer_weights all_weights[] = {
    {"conv2d", "kernel:0", 4, {3, 3, 3, 4}},
    {"conv2d", "bias:0", 1, {4}},
    {"conv2d_1", "kernel", 4, {1, 1, 4, 4}},
    {"conv2d_1", "bias", 1, {4}},
    {"depthwise_conv2d", "depthwise_kernel:0", 4, {3, 3, 4, 2}},
    {"depthwise_conv2d", "bias:0", 1, {8}},
    {"separable_conv2d", "depthwise_kernel:0", 4, {3, 3, 4, 1}},
    {"separable_conv2d", "pointwise_kernel:0", 4, {1, 1, 4, 5}},
    {"separable_conv2d", "bias:0", 1, {5}},
    {"batch_normalization", "gamma:0", 1, {4}},
    {"batch_normalization", "beta:0", 1, {4}},
    {"batch_normalization", "moving_mean:0", 1, {4}},
    {"batch_normalization", "moving_variance:0", 1, {4}},
    {"normalization", "mean:0", 1, {3}},
    {"normalization", "variance:0", 1, {3}},
    {"dense", "kernel:0", 2, {4, 6}},
    {"dense", "bias:0", 1, {6}},
    {"dense_1", "kernel:0", 2, {64, 2}},
    {"dense_1", "bias:0", 1, {2}},
};

static void write_weight(hid_t file, const char *path, const layer_weights *of) {
    static float numbers[256];
    hid_t space = H5Screate_simple(of->rank, of->dim, NULL), set;
    hid_t links = H5Pcreate(H5P_LINK_CREATE);

    for (int i = 0; i < 256; i++)
        numbers[i] = (float)(i % 7) * 0.25f + 0.125f;
    H5Pset_create_intermediate_group(links, 1);
    set = H5Dcreate2(file, path, H5T_IEEE_F32LE, space, links, H5P_DEFAULT, H5P_DEFAULT);
    expect(set >= 0 &&
           H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    H5Dclose(set);
    H5Pclose(links);
    H5Sclose(space);
}

static void write_weights(hid_t file, int numbered) {
    int number = 0;

    for (size_t i = 0; i < sizeof all_weights / sizeof *all_weights; i++) {
        const layer_weights *of = &all_weights[i];
        char path[128];

        number = i && strcmp(of->layer, all_weights[i - 1].layer) == 0 ? number + 1 : 0;
        if (numbered)
            snprintf(path, sizeof path, "/layers/%s/vars/%d", of->layer, number);
        else
            snprintf(path, sizeof path, "/model_weights/%s/%s/%s", of->layer, of->layer, of->name);
        write_weight(file, path, of);
    }
}

/* An attribute of fixed length, to be found in the bytes by what it holds. */
static void write_config(hid_t file) {
    static char config[MOST_CONFIG];
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attribute;

    memset(config, '#', sizeof config);
    H5Tset_size(type, sizeof config);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    attribute = H5Acreate2(file, "model_config", type, space, H5P_DEFAULT, H5P_DEFAULT);
    expect(attribute >= 0 && H5Awrite(attribute, type, config) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void make_image(image *out, int numbered) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file;
    ssize_t size;

    H5Pset_fapl_core(access, 1 << 16, 0);
    file = H5Fcreate("ptq-fuzz", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    expect(file >= 0);
    write_weights(file, numbered);
    if (!numbered)
        write_config(file);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    size = H5Fget_file_image(file, out->bytes, sizeof out->bytes);
    expect(size > 0);
    out->size = (size_t)size;
    H5Fclose(file);
    H5Pclose(access);
    while (!numbered && out->bytes[out->config] != '#')
        out->config++;
}

/* ---- Archives ---- */

static size_t put_number(uint8_t *to, uint32_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
    return (size_t)bytes;
}

/* The fields that a member has in both places; none is checked that is left at zero. */
static size_t put_fields(uint8_t *to, const char *name, size_t size) {
    memset(to, 0, 26);
    put_number(to + 14, (uint32_t)size, 4);
    put_number(to + 18, (uint32_t)size, 4);
    put_number(to + 22, (uint32_t)strlen(name), 2);
    return 26;
}

static size_t put_member(uint8_t *to, const char *name, const uint8_t *data, size_t size) {
    size_t used = put_number(to, 0x04034b50, 4);

    used += put_fields(to + used, name, size);
    memcpy(to + used, name, strlen(name));
    used += strlen(name);
    memcpy(to + used, data, size);
    return used + size;
}

static size_t put_entry(uint8_t *to, const char *name, size_t size, size_t offset) {
    memset(to, 0, 46);
    put_number(to, 0x02014b50, 4);
    put_fields(to + 6, name, size);
    put_number(to + 42, (uint32_t)offset, 4);
    memcpy(to + 46, name, strlen(name));
    return 46 + strlen(name);
}

static size_t make_archive(uint8_t *to, const uint8_t *config, size_t size) {
    size_t second = put_member(to, "config.json", config, size);
    size_t list = second + put_member(to + second, "model.weights.h5", weights.bytes, weights.size);
    size_t end = list + put_entry(to + list, "config.json", size, 0);

    end += put_entry(to + end, "model.weights.h5", weights.size, second);
    memset(to + end, 0, 22);
    put_number(to + end, 0x06054b50, 4);
    put_number(to + end + 10, 2, 2);
    put_number(to + end + 12, (uint32_t)(end - list), 4);
    put_number(to + end + 16, (uint32_t)list, 4);
    return end + 22;
}

/* ---- The target ---- */

static const char *make_file(const uint8_t *data, size_t size) {
    static uint8_t archive[2 * MOST_FILE];

    if (*data == '2' || size - 1 > MOST_CONFIG)
        return put_into_file(data + 1, size - 1);
    if (*data != '1')
        return put_into_file(archive, make_archive(archive, data + 1, size - 1));
    memset(model.bytes + model.config, 0, MOST_CONFIG);
    memcpy(model.bytes + model.config, data + 1, size - 1);
    return put_into_file(model.bytes, model.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ptq_model *made = NULL;
    assumed open = {0};
    int status;

    if (!weights.size) {
        make_image(&weights, 1);
        make_image(&model, 0);
    }
    status = size ? read_keras(make_file(data, size), &open, &made) : 1;
    return check_imported(status, made);
}
