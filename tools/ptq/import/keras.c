/* Keras .h5 files, for ptq import.

   Such a file says what it is in the attribute model_config, a JSON text, and keeps the
   weights in /model_weights/LAYER/LAYER/kernel:0, or from Keras 3 on kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/keras.h"
#include "ptq.h"
#include "shared/output.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

#include <hdf5.h>

#define MOST_CONFIG_BYTES (64 << 20)
#define MOST_LAYERS 16
#define MOST_SIDE 4096
#define MOST_FILTERS 512

typedef struct keras_layers {
    json_t *item[MOST_LAYERS];
    int count;
} keras_layers;

typedef struct keras {
    const char *path;
    hid_t file;
    json_t *root;
    json_t *input;
    keras_layers main, shortcut, norm, dense, add; /* main: convolutions other than 1x1 */
} keras;

/* What the layers of each kind are called here, in Keras's order. */
static const char *const main_names[] = {"conv1",        "block1.conv1", "block1.conv2",
                                         "block2.conv1", "block2.conv2", "block3.conv1",
                                         "block3.conv2"};
static const char *const shortcut_names[] = {"block2.shortcut", "block3.shortcut"};
static const char *const norm_names[] = {"bn1",        "block1.bn1", "block1.bn2", "block2.bn1",
                                         "block2.bn2", "block3.bn1", "block3.bn2"};

enum { ADDITIONS = 3, DENSE_LAYERS = 1 };

/* Of what is no ResNet8. */
#define OTHERS "of .h5 files ResNet8 alone is read, so convert it with tf2onnx and import the .onnx"

#define COUNT(names) ((int)(sizeof(names) / sizeof *(names)))

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

static const char *layer_class(json_t *layer) {
    const char *name = json_string_value(json_object_get(layer, "class_name"));

    return name ? name : "";
}

static json_t *setting(json_t *layer, const char *key) {
    return json_object_get(json_object_get(layer, "config"), key);
}

static const char *layer_name(json_t *layer) {
    const char *name = json_string_value(setting(layer, "name"));

    return name ? name : "(without a name)";
}

static const char *text_setting(json_t *layer, const char *key, const char *otherwise) {
    const char *text = json_string_value(setting(layer, key));

    return text ? text : otherwise;
}

/* 1 if a setting such as "strides" is missing or [value, value]. */
static int is_pair(json_t *layer, const char *key, int value) {
    json_t *pair = setting(layer, key);

    return !pair || (json_integer_value(json_array_get(pair, 0)) == value &&
                     json_integer_value(json_array_get(pair, 1)) == value);
}

static int append(keras_layers *list, json_t *layer) {
    if (list->count == MOST_LAYERS)
        return fail("layer '%s': more %s layers than ResNet8 has; " OTHERS, layer_name(layer),
                    layer_class(layer));
    list->item[list->count++] = layer;
    return 0;
}

static int is_harmless(const char *class_name) {
    static const char *const known[] = {
        "Activation", "ReLU", "AveragePooling2D", "GlobalAveragePooling2D", "Flatten", "Softmax"};

    for (int i = 0; i < COUNT(known); i++)
        if (strcmp(class_name, known[i]) == 0)
            return 1;
    return 0;
}

static int sort_layer(keras *from, json_t *layer) {
    const char *class_name = layer_class(layer);

    if (strcmp(class_name, "Conv2D") == 0)
        return append(setting(layer, "kernel_size") && is_pair(layer, "kernel_size", 1)
                          ? &from->shortcut
                          : &from->main,
                      layer);
    if (strcmp(class_name, "BatchNormalization") == 0)
        return append(&from->norm, layer);
    if (strcmp(class_name, "Dense") == 0)
        return append(&from->dense, layer);
    if (strcmp(class_name, "Add") == 0)
        return append(&from->add, layer);
    if (strcmp(class_name, "InputLayer") == 0 && !from->input) {
        from->input = layer;
        return 0;
    }
    if (is_harmless(class_name))
        return 0;
    return fail("layer '%s' is of the kind '%s', which ResNet8 does not have; " OTHERS,
                layer_name(layer), class_name);
}

static int expect_count(const keras_layers *list, int expected, const char *what) {
    if (list->count == expected)
        return 0;
    if (list->count > expected)
        return fail("layer '%s' is one %s too many for ResNet8, which has %d; " OTHERS,
                    layer_name(list->item[expected]), what, expected);
    return fail("%d of ResNet8's %d layers of the kind '%s' are there, the last is '%s'; " OTHERS,
                list->count, expected, what,
                list->count ? layer_name(list->item[list->count - 1]) : "none");
}

static int read_config(keras *from) {
    char *text = read_string_attribute(from->file, "model_config");
    json_t *layers, *layer;
    json_error_t error;
    size_t i;

    if (!text)
        return fail("%s has no attribute model_config; save the whole Keras model, not its weights "
                    "alone",
                    from->path);
    from->root = json_loads(text, 0, &error);
    free(text);
    if (!from->root)
        return fail("%s: model_config is not JSON: %s", from->path, error.text);
    layers = json_object_get(json_object_get(from->root, "config"), "layers");
    if (!json_is_array(layers))
        return fail("%s: model_config lists no layers; a functional Keras model is expected",
                    from->path);
    json_array_foreach(layers, i, layer) {
        if (sort_layer(from, layer))
            return 1;
    }
    if (!from->input)
        return fail("%s: no InputLayer, which would tell the size of the images", from->path);
    return expect_count(&from->main, COUNT(main_names), "3x3 convolution") ||
           expect_count(&from->shortcut, COUNT(shortcut_names), "1x1 convolution") ||
           expect_count(&from->norm, COUNT(norm_names), "BatchNormalization") ||
           expect_count(&from->add, ADDITIONS, "Add") ||
           expect_count(&from->dense, DENSE_LAYERS, "Dense");
}

/* ---- The weights ---- */

static hid_t open_weight(const keras *from, const char *layer, const char *weight) {
    char path[512];
    int length = snprintf(path, sizeof path, "/model_weights/%s/%s/%s:0", layer, layer, weight);
    hid_t set;

    if (length >= (int)sizeof path)
        return -1;
    set = H5Dopen2(from->file, path, H5P_DEFAULT);
    path[length - 2] = 0;
    return set < 0 ? H5Dopen2(from->file, path, H5P_DEFAULT) : set;
}

/* "3x3x16x32" */
static void print_shape(char *text, size_t size, int rank, const hsize_t *dims) {
    size_t used = 0;

    snprintf(text, size, "%s", rank > 0 ? "" : "a scalar");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%llu", i ? "x" : "",
                                 (unsigned long long)dims[i]);
}

static int check_weight(hid_t set, const char *layer, const char *weight, int rank,
                        const hsize_t *expected) {
    hid_t space = H5Dget_space(set), type = H5Dget_type(set);
    hsize_t dims[H5S_MAX_RANK] = {0};
    int found = H5Sget_simple_extent_dims(space, dims, NULL), status = 0;
    char want[128], have[128];

    if (found != rank || memcmp(dims, expected, (size_t)rank * sizeof *dims) != 0) {
        print_shape(want, sizeof want, rank, expected);
        print_shape(have, sizeof have, found, dims);
        status = fail("layer '%s': the shape of %s is %s, but %s was expected", layer, weight, have,
                      want);
    } else if (H5Tget_class(type) != H5T_FLOAT) {
        status = fail("layer '%s': %s does not hold floats", layer, weight);
    }
    H5Tclose(type);
    H5Sclose(space);
    return status;
}

/* Reads a weight of exactly the expected shape, still in Keras's order. */
static int read_weight(const keras *from, const char *layer, const char *weight, int rank,
                       const hsize_t *expected, float *out) {
    hid_t set = open_weight(from, layer, weight);
    int status;

    if (set < 0)
        return fail("layer '%s': the file holds no %s; write it anew, with model.save", layer,
                    weight);
    status = check_weight(set, layer, weight, rank, expected);
    if (!status && H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        status = fail("layer '%s': %s cannot be read; the file is damaged", layer, weight);
    H5Dclose(set);
    return status;
}

static ptq_tensor *find_param(ptq_model *model, const char *node, const char *suffix) {
    char name[PTQ_NAME_SIZE + 32];

    snprintf(name, sizeof name, "%s.%s", node, suffix);
    return ptq_model_param(model, name);
}

/* HWIO -> OIHW; a dense layer is the case of height and width 1: IO -> OI. */
static void transpose(const float *in, ptq_tensor *out) {
    int taps = out->rank == 4 ? out->dim[2] * out->dim[3] : 1;
    float *to = out->data;

    for (int o = 0; o < out->dim[0]; o++)
        for (int i = 0; i < out->dim[1]; i++)
            for (int t = 0; t < taps; t++)
                *to++ = in[(t * out->dim[1] + i) * out->dim[0] + o];
}

static int import_kernel(const keras *from, const char *layer, ptq_tensor *out) {
    hsize_t dims[PTQ_MAX_RANK];
    int rank = 0, status;
    float *buffer = malloc(out->size);

    if (!buffer)
        return fail("no memory for layer '%s'", layer);
    if (out->rank == 4) {
        dims[rank++] = (hsize_t)out->dim[2];
        dims[rank++] = (hsize_t)out->dim[3];
    }
    dims[rank++] = (hsize_t)out->dim[1];
    dims[rank++] = (hsize_t)out->dim[0];
    status = read_weight(from, layer, "kernel", rank, dims, buffer);
    if (!status)
        transpose(buffer, out);
    free(buffer);
    return status;
}

static int import_vector(const keras *from, const char *layer, const char *weight,
                         ptq_tensor *out) {
    hsize_t length = (hsize_t)out->dim[0];

    return read_weight(from, layer, weight, 1, &length, out->data);
}

/* A setting that is not listed stands at the value that ResNet8 needs. */
static int check_conv(json_t *layer, const ptq_node *node) {
    const char *name = layer_name(layer);

    if (!is_pair(layer, "kernel_size", node->kernel[0]))
        return fail("layer '%s': a %dx%d kernel was expected for %s", name, node->kernel[0],
                    node->kernel[1], node->name);
    if (!is_pair(layer, "strides", node->stride[0]))
        return fail("layer '%s': stride %d was expected for %s", name, node->stride[0], node->name);
    if (strcmp(text_setting(layer, "padding", "same"), "same") != 0)
        return fail("layer '%s': padding 'same' was expected", name);
    if (strcmp(text_setting(layer, "data_format", "channels_last"), "channels_last") != 0)
        return fail("layer '%s': data format 'channels_last' was expected", name);
    if (strcmp(text_setting(layer, "activation", "linear"), "linear") != 0)
        return fail("layer '%s': the activation was expected in a layer of its own", name);
    if (!is_pair(layer, "dilation_rate", 1) ||
        (setting(layer, "groups") && json_integer_value(setting(layer, "groups")) != 1))
        return fail("layer '%s': neither dilation nor groups were expected", name);
    return 0;
}

static int import_weighted(const keras *from, json_t *layer, ptq_model *model, const char *node) {
    const char *name = layer_name(layer);

    if (import_kernel(from, name, find_param(model, node, "weight")))
        return 1;
    if (json_is_false(setting(layer, "use_bias")))
        return 0; /* the model's bias stays zero */
    return import_vector(from, name, "bias", find_param(model, node, "bias"));
}

static int import_convs(const keras *from, const keras_layers *list, const char *const *names,
                        int count, ptq_model *model) {
    for (int i = 0; i < count; i++)
        if (check_conv(list->item[i], &model->node[ptq_model_find(model, names[i])]) ||
            import_weighted(from, list->item[i], model, names[i]))
            return 1;
    return 0;
}

static int import_norm(const keras *from, json_t *layer, ptq_model *model, const char *node) {
    static const char *const keras_names[] = {"gamma", "beta", "moving_mean", "moving_variance"};
    static const char *const names[] = {"weight", "bias", "running_mean", "running_var"};
    json_t *epsilon = setting(layer, "epsilon");

    if (!json_is_number(epsilon) || !(json_number_value(epsilon) > 0))
        return fail("layer '%s': the configuration gives no epsilon", layer_name(layer));
    model->node[ptq_model_find(model, node)].epsilon = (float)json_number_value(epsilon);
    for (int i = 0; i < COUNT(names); i++) {
        /* center=False and scale=False leave out beta and gamma, which are then 0 and 1. */
        if ((i == 0 && json_is_false(setting(layer, "scale"))) ||
            (i == 1 && json_is_false(setting(layer, "center"))))
            continue;
        if (import_vector(from, layer_name(layer), keras_names[i],
                          find_param(model, node, names[i])))
            return 1;
    }
    return 0;
}

static int import_weights(const keras *from, ptq_model *model) {
    if (import_convs(from, &from->main, main_names, COUNT(main_names), model) ||
        import_convs(from, &from->shortcut, shortcut_names, COUNT(shortcut_names), model))
        return 1;
    for (int i = 0; i < COUNT(norm_names); i++)
        if (import_norm(from, from->norm.item[i], model, norm_names[i]))
            return 1;
    return import_weighted(from, from->dense.item[0], model, "fc");
}

/* ---- The model ---- */

static int read_dimension(json_t *value, const char *layer, const char *what, int least, int most,
                          int *out) {
    json_int_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < least || number > most)
        return fail("layer '%s': %s of %d..%d was expected", layer, what, least, most);
    *out = (int)number;
    return 0;
}

static int make_model(const keras *from, ptq_model **out) {
    json_t *shape = setting(from->input, "batch_input_shape"), *conv = from->main.item[0];
    json_t *dense = from->dense.item[0];
    const char *input = layer_name(from->input);
    int height = 0, width = 0, channels = 0, filters = 0, classes = 0;
    ptq_error err;

    if (!shape)
        shape = setting(from->input, "batch_shape");
    if (read_dimension(json_array_get(shape, 1), input, "a height", 4, MOST_SIDE, &height) ||
        read_dimension(json_array_get(shape, 2), input, "a width", height, height, &width) ||
        read_dimension(json_array_get(shape, 3), input, "a channel count", 3, 3, &channels) ||
        read_dimension(setting(conv, "filters"), layer_name(conv), "a filter count", 1,
                       MOST_FILTERS, &filters) ||
        read_dimension(setting(dense, "units"), layer_name(dense), "a class count", 2, MOST_FILTERS,
                       &classes))
        return 1;
    if (ptq_resnet8(height, filters, classes, NULL, out, &err))
        return fail("%s", err.text);
    return 0;
}

/* The configuration has the epsilon of each batch norm, which --epsilon overrules. */
static int import_open_file(keras *from, assumed *open, ptq_model **out) {
    static const char says[] = "by the file";
    ptq_error err;

    if (read_config(from) || make_model(from, out) || import_weights(from, *out) ||
        assume_padding(open, "tensorflow", says, *out))
        return 1;
    open->epsilon_from = says;
    if (open->epsilon && assume_epsilon(open, NULL, 0, says, *out))
        return 1;
    return ptq_model_check(*out, &err) ? fail("%s", err.text) : 0;
}

int read_keras(const char *path, assumed *open, ptq_model **out) {
    keras from;
    int status;

    memset(&from, 0, sizeof from);
    from.path = path;
    /* Its stack traces would bury our one line. */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    from.file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (from.file < 0)
        return fail("%s cannot be opened as HDF5: it is missing, truncated or something else",
                    path);
    status = import_open_file(&from, open, out);
    json_decref(from.root);
    H5Fclose(from.file);
    H5close();
    return status;
}

#else

int read_keras(const char *path, assumed *open, ptq_model **out) {
    (void)path, (void)open, (void)out;
    return fail(".h5 files need the libraries hdf5 and jansson; install both and build again");
}

#endif
