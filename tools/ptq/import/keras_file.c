/* Keras's files. A .h5 file says what it is in the attribute model_config, a JSON text, and keeps a
   layer's weights in /model_weights/LAYER/.../kernel:0 (Keras 3: kernel). A .keras file is a zip
   archive of config.json and model.weights.h5, which numbers layers of a kind and their weights:
   /layers/conv2d_1/vars/0. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/keras_import.h"
#include "ptq.h"
#include "shared/bytes.h"
#include "shared/output.h"
#include "shared/zip.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

#include <hdf5.h>

#define MOST_CONFIG_BYTES (16 << 20)
#define MOST_LINKS (1 << 16)
#define MOST_PACKING 2000 /* bytes that one stored byte may stand for */
#define H5_WEIGHTS "model_weights/"

struct keras_file {
    const char *path;
    json_t *config;
    hid_t weights;
    char **link; /* the paths of all groups and data sets, sorted */
    size_t links, capacity;
    int archive;        /* .keras ... */
    const char *folder; /* ... with its layers in groups called folder, separator, kind */
    char separator;
};

/* ---- The configuration ---- */

static char *read_variable_string(hid_t attribute, hid_t type, hid_t space) {
    char *lent = NULL, *text = NULL;

    if (H5Aread(attribute, type, &lent) < 0 || !lent)
        return NULL;
    text = malloc(strlen(lent) + 1);
    if (text)
        strcpy(text, lent);
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, &lent);
    return text;
}

static char *read_fixed_string(hid_t attribute, hid_t type) {
    size_t size = H5Tget_size(type);
    char *text = size <= MOST_CONFIG_BYTES ? calloc(size + 1, 1) : NULL;

    if (text && H5Aread(attribute, type, text) < 0) {
        free(text);
        text = NULL;
    }
    return text;
}

/* Older files have strings of fixed length, newer ones of variable length. */
static char *read_string_attribute(hid_t file, const char *name) {
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    char *text = NULL;

    if (attribute >= 0 && H5Tget_class(type) == H5T_STRING &&
        H5Sget_simple_extent_npoints(space) == 1)
        text = H5Tis_variable_str(type) > 0 ? read_variable_string(attribute, type, space)
                                            : read_fixed_string(attribute, type);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return text;
}

static int parse_config(keras_file *file, const char *text, size_t size, const char *where) {
    json_error_t error;

    file->config = json_loadb(text, size, 0, &error);
    if (!file->config)
        return fail("%s: %s is not JSON: %s", file->path, where, error.text);
    if (!json_is_object(file->config))
        return fail("%s: %s describes no model", file->path, where);
    return 0;
}

/* ---- Paths in HDF5 ---- */

static herr_t add_link(hid_t group, const char *name, const H5L_info_t *info, void *data) {
    keras_file *file = data;

    (void)group;
    if (info->type != H5L_TYPE_HARD) /* what leads out of the file is not followed */
        return 0;
    if (file->links == file->capacity) {
        size_t more = file->capacity ? file->capacity * 2 : 64;
        char **grown = more <= MOST_LINKS ? realloc(file->link, more * sizeof *grown) : NULL;

        if (!grown)
            return -1;
        file->link = grown;
        file->capacity = more;
    }
    file->link[file->links] = malloc(strlen(name) + 1);
    if (!file->link[file->links])
        return -1;
    strcpy(file->link[file->links++], name);
    return 0;
}

static int compare_links(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The first link that is not before `name`. */
static size_t find_link(const keras_file *file, const char *name) {
    size_t low = 0, high = file->links;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(file->link[middle], name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int begins_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

static int has_link(const keras_file *file, const char *name) {
    size_t i = find_link(file, name);

    return i < file->links && strcmp(file->link[i], name) == 0;
}

/* Keras before 2.14 had another word, and on Windows wrote the other separator into names. */
static void find_folder(keras_file *file) {
    static const char *const words[] = {"layers", "_layer_checkpoint_dependencies"};

    file->folder = words[0];
    file->separator = '/';
    for (int i = 0; i < 4; i++) {
        char start[64];
        size_t at;

        snprintf(start, sizeof start, "%s%c", words[i / 2], "/\\"[i % 2]);
        at = find_link(file, start);
        if (at < file->links && begins_with(file->link[at], start)) {
            file->folder = words[i / 2];
            file->separator = "/\\"[i % 2];
            return;
        }
    }
}

static int list_links(keras_file *file) {
    if (H5Lvisit(file->weights, H5_INDEX_NAME, H5_ITER_NATIVE, add_link, file) < 0)
        return fail("%s: its weights cannot be listed; the file is damaged", file->path);
    if (file->links)
        qsort(file->link, file->links, sizeof *file->link, compare_links);
    if (file->archive)
        find_folder(file);
    return 0;
}

/* "BatchNormalization" -> "batch_normalization", as Keras makes its names: an underscore before a
   capital with small letters behind it, and between a small letter and a capital. */
static void to_snake(const char *from, char *to, size_t size) {
    size_t used = 0;

    for (const char *at = from; *at && used + 2 < size; at++) {
        int capital = *at >= 'A' && *at <= 'Z';
        int small_before = at > from && at[-1] >= 'a' && at[-1] <= 'z';
        int small_behind = at[1] >= 'a' && at[1] <= 'z';

        if (capital && at > from && (small_before || small_behind) && to[used - 1] != '_')
            to[used++] = '_';
        to[used++] = capital ? (char)(*at - 'A' + 'a') : *at;
    }
    to[used] = 0;
}

static void join(const keras_file *file, const char *outer, const char *kind, int number,
                 char group[KERAS_GROUP_SIZE]) {
    char suffix[16] = "";
    int length;

    if (number)
        snprintf(suffix, sizeof suffix, "_%d", number);
    length = snprintf(group, KERAS_GROUP_SIZE, "%s%s%c%s%s", outer, file->folder, file->separator,
                      kind, suffix);
    if (length < 0 || length >= KERAS_GROUP_SIZE - 1)
        group[0] = 0;
}

/* The old word goes with numbers that leave some out, as layers were counted twice. */
static void find_archived(const keras_file *file, const keras_place *outer, const char *class_name,
                          int number, keras_place *out) {
    char kind[256];
    int seen = 0;

    to_snake(class_name, kind, sizeof kind);
    if (file->folder[0] != '_') {
        join(file, outer->group, kind, number, out->group);
        return;
    }
    for (int i = 0; i <= 2 * number + 1; i++) {
        join(file, outer->group, kind, i, out->group);
        if (out->group[0] && has_link(file, out->group) && seen++ == number)
            return;
    }
    out->group[0] = 0;
}

void keras_find_place(const keras_file *file, const keras_place *outer, const char *layer,
                      const char *class_name, int number, keras_place *out) {
    size_t length;

    memset(out, 0, sizeof *out);
    if (file->archive) {
        find_archived(file, outer, class_name, number, out);
    } else if (outer->group[0]) {
        *out = *outer;
        out->layer = layer;
        return;
    } else if (snprintf(out->group, sizeof out->group, H5_WEIGHTS "%s", layer) >=
               KERAS_GROUP_SIZE - 1) {
        out->group[0] = 0;
    }
    length = strlen(out->group);
    if (length) {
        out->group[length] = file->archive ? file->separator : '/';
        out->group[length + 1] = 0;
    }
}

/* ---- Weights ---- */

/* ".../LAYER/kernel:0" or ".../LAYER/kernel" */
static int is_weight(const char *path, const char *layer, const char *name) {
    const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
    size_t n = strlen(name), before = slash ? (size_t)(slash - path) : 0, k;

    if (strncmp(last, name, n) != 0 || (last[n] && last[n] != ':'))
        return 0;
    if (!layer)
        return 1;
    k = strlen(layer);
    return before >= k && strncmp(path + before - k, layer, k) == 0 &&
           (before == k || path[before - k - 1] == '/');
}

static const char *find_weight(const keras_file *file, const keras_place *place,
                               const keras_weight *weight) {
    char path[KERAS_GROUP_SIZE + 32];
    size_t i;

    if (!place->group[0])
        return NULL;
    if (file->archive) {
        snprintf(path, sizeof path, "%.*s/vars/%d", (int)strlen(place->group) - 1, place->group,
                 weight->number);
        i = find_link(file, path);
        return i < file->links && strcmp(file->link[i], path) == 0 ? file->link[i] : NULL;
    }
    for (i = find_link(file, place->group);
         i < file->links && begins_with(file->link[i], place->group); i++)
        if (is_weight(file->link[i], place->layer, weight->name))
            return file->link[i];
    return NULL;
}

/* "3x3x16x32" */
static void print_shape(char *text, size_t size, int rank, const hsize_t *dims) {
    size_t used = 0;

    snprintf(text, size, "%s", rank > 0 ? "" : "a scalar");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%llu", i ? "x" : "",
                                 (unsigned long long)dims[i]);
}

static int check_shape(hid_t set, const keras_weight *weight, char *why, size_t size) {
    hid_t space = H5Dget_space(set);
    hsize_t dims[H5S_MAX_RANK] = {0}, expected[PTQ_MAX_RANK];
    int rank = H5Sget_simple_extent_dims(space, dims, NULL), same = rank == weight->rank;
    char want[128], have[128];

    H5Sclose(space);
    for (int i = 0; i < weight->rank; i++) {
        expected[i] = (hsize_t)weight->shape[i];
        same = same && dims[i] == expected[i];
    }
    if (same)
        return 0;
    print_shape(want, sizeof want, weight->rank, expected);
    print_shape(have, sizeof have, rank, dims);
    snprintf(why, size, "the shape of %s is %s, but %s was expected", weight->name, have, want);
    return 1;
}

/* The numbers are in this file, and as many of them as its shape tells: a few bytes may claim
   gigabytes, and a data set may name other files. */
static int is_stored_here(hid_t set, const keras_weight *weight, size_t width) {
    hid_t list = H5Dget_create_plist(set);
    H5D_layout_t layout = H5Pget_layout(list);
    hsize_t stored = H5Dget_storage_size(set), needed = width;
    int outside = layout == H5D_VIRTUAL || layout < 0 || H5Pget_external_count(list) != 0;

    if (H5Pget_nfilters(list) > 0)
        stored = stored < (hsize_t)1 << 40 ? stored * MOST_PACKING : stored;
    H5Pclose(list);
    for (int i = 0; i < weight->rank; i++)
        needed *= (hsize_t)weight->shape[i];
    return !outside && stored >= needed;
}

static int check_weight(hid_t set, const keras_weight *weight, char *why, size_t size) {
    hid_t type = H5Dget_type(set);
    int real = H5Tget_class(type) == H5T_FLOAT;
    size_t width = H5Tget_size(type);

    H5Tclose(type);
    if (check_shape(set, weight, why, size))
        return 1;
    if (!real) {
        snprintf(why, size, "%s does not hold floats; save the model before it is quantized",
                 weight->name);
        return 1;
    }
    if (!is_stored_here(set, weight, width)) {
        snprintf(why, size, "%s is not in the file; the file is damaged", weight->name);
        return 1;
    }
    return 0;
}

int keras_read(const keras_file *file, const keras_place *place, const keras_weight *weight,
               float *out, char *why, size_t size) {
    const char *path = find_weight(file, place, weight);
    hid_t set = path ? H5Dopen2(file->weights, path, H5P_DEFAULT) : -1;
    int status;

    if (set < 0) {
        snprintf(why, size, "the file holds no %s", weight->name);
        return 1;
    }
    status = check_weight(set, weight, why, size);
    if (!status && out && H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0) {
        snprintf(why, size, "%s cannot be read; the file is damaged", weight->name);
        status = 1;
    }
    H5Dclose(set);
    return status;
}

/* ---- Opening ---- */

static int open_h5(keras_file *file) {
    char *text;
    int status;

    file->weights = H5Fopen(file->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file->weights < 0)
        return fail("%s cannot be opened as HDF5: it is missing, truncated or something else",
                    file->path);
    text = read_string_attribute(file->weights, "model_config");
    if (!text)
        return fail("%s has no attribute model_config; save the whole Keras model, not its weights "
                    "alone",
                    file->path);
    status = parse_config(file, text, strlen(text), "model_config");
    free(text);
    return status;
}

/* A member's bytes in memory: at most `most` of them. */
static int read_member(const keras_file *file, const zip_archive *archive, const char *name,
                       size_t most, char **out, size_t *size) {
    const zip_member *member = zip_find(archive, name);
    data_bytes bytes;
    ptq_error err;
    int status;

    if (!member)
        return fail("%s: there is no %s in it; save the whole model in one .keras file", file->path,
                    name);
    if (zip_member_open(archive, member, &bytes, &err))
        return fail("%s", err.text);
    *size = (size_t)bytes.size;
    *out = bytes.size <= most ? malloc(*size + 1) : NULL;
    if (!*out)
        status = fail("%s: %s is too large", file->path, name);
    else
        status = bytes_read(&bytes, 0, *size, *out, &err) ? fail("%s", err.text) : 0;
    bytes_close(&bytes);
    return status;
}

/* HDF5 reads its file from memory. */
static int open_image(keras_file *file, char *image, size_t size) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    if (H5Pset_fapl_core(access, 1 << 16, 0) >= 0 && H5Pset_file_image(access, image, size) >= 0)
        file->weights = H5Fopen("model.weights.h5", H5F_ACC_RDONLY, access);
    H5Pclose(access);
    return file->weights < 0 ? fail("%s: model.weights.h5 in it is damaged", file->path) : 0;
}

static int open_archive(keras_file *file, const data_bytes *bytes) {
    zip_archive archive;
    char *config = NULL, *image = NULL;
    size_t config_size = 0, image_size = 0;
    ptq_error err;
    int status;

    file->archive = 1;
    if (zip_open(bytes, &archive, &err))
        return fail("%s", err.text);
    status =
        read_member(file, &archive, "config.json", MOST_CONFIG_BYTES, &config, &config_size) ||
        parse_config(file, config, config_size, "config.json") ||
        read_member(file, &archive, "model.weights.h5", (size_t)1 << 31, &image, &image_size) ||
        open_image(file, image, image_size);
    free(config);
    free(image);
    zip_close(&archive);
    return status;
}

int keras_open(const char *path, keras_file **out) {
    keras_file *file = calloc(1, sizeof *file);
    data_bytes bytes;
    ptq_error err;
    char start[4] = "";
    int status;

    *out = file;
    if (!file)
        return fail("no memory to import %s", path);
    file->path = path;
    file->weights = -1;
    /* Its stack traces would bury our one line. */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (bytes_open(path, &bytes, &err))
        return fail("%s", err.text);
    if (bytes.size >= sizeof start && !bytes_read(&bytes, 0, sizeof start, start, &err) &&
        memcmp(start, "PK\3\4", sizeof start) == 0)
        status = open_archive(file, &bytes);
    else
        status = open_h5(file);
    bytes_close(&bytes);
    return status || list_links(file);
}

void keras_close(keras_file *file) {
    if (!file)
        return;
    json_decref(file->config);
    if (file->weights >= 0)
        H5Fclose(file->weights);
    for (size_t i = 0; i < file->links; i++)
        free(file->link[i]);
    free(file->link);
    free(file);
}

const json_t *keras_config(const keras_file *file) { return file->config; }

#endif
