/* Keras models to ptq models, for ptq import: what the files keras*.c of this folder share.

   keras_file.c opens .h5 and .keras files: a configuration, which is a JSON text, and weights in
   HDF5. keras_graph.c goes by the configuration from the input to the result and calls, by the
   table in keras_layers.c, the function of each layer, which appends nodes to the model. Both
   compute H x W x C with the channels innermost, so that a flattened image is the same numbers in
   the same order. What cannot be imported is collected, and told at once. */
#ifndef PTQ_TOOL_KERAS_IMPORT_H
#define PTQ_TOOL_KERAS_IMPORT_H

#include "import/keras.h"
#include "shared/output.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

/* ---- The file (keras_file.c) ---- */

typedef struct keras_file keras_file;

/* 0, or 1 after an error; *out is to be closed in either case. */
int keras_open(const char *path, keras_file **out);
void keras_close(keras_file *file);
const json_t *keras_config(const keras_file *file); /* an object with class_name and config */

/* Where a layer keeps its weights. .h5 files call them by the layer's name, and those of a model
   within the model by the names of both; .keras files by the layer's kind and its number among the
   layers of that kind: conv2d, conv2d_1. `outer`: the place of the model that the layer is part of;
   all zeros for the file's. */
#define KERAS_GROUP_SIZE 1024
typedef struct keras_place {
    char group[KERAS_GROUP_SIZE]; /* with its separator at the end; "" if there is none */
    const char *layer;            /* NULL: the only one in the group */
} keras_place;
void keras_find_place(const keras_file *file, const keras_place *outer, const char *layer,
                      const char *class_name, int number, keras_place *out);

/* A weight by its name, and by its number among those of the layer, for .keras files keep no names.
   `shape` is what it must be. Without `out` it is checked and not read. 0, or 1 and in `why` the
   reason in words. */
typedef struct keras_weight {
    const char *name;
    int number, rank;
    int shape[PTQ_MAX_RANK];
} keras_weight;
int keras_read(const keras_file *file, const keras_place *place, const keras_weight *weight,
               float *out, char *why, size_t size);

/* ---- The graph (keras_graph.c), refusals and results (keras_values.c) ---- */

/* The result of a layer: a node of the model, and how Keras sees it. */
typedef struct keras_value {
    int node;           /* -1: unknown, as a layer before it was refused */
    int rank;           /* without the batch: 3: H x W x C; 2: H x W, one channel; 1: one row */
    int sole;           /* nothing else reads what lies between the input and this */
    int pad[4];         /* zeros that are to be added yet: top, left, bottom, right ... */
    const char *padder; /* ... as the layer of this name says; NULL: none */
} keras_value;

/* All texts are those of the configuration, or static. */
typedef struct keras_problem {
    const char *class_name, *name;
    char *text;
} keras_problem;

typedef struct keras_importer {
    const char *path;
    keras_file *file;
    ptq_model *model;
    keras_problem *problem; /* NULL: none yet */
    int problems;
    int layers; /* of all models in the file, so far */
    int failed; /* an error has been told that leaves nothing to look at */
} keras_importer;

typedef struct keras_layer {
    const json_t *json;
    const char *class_name, *name;
    keras_place place;
} keras_layer;

/* A call of a layer, while its function is at work. */
typedef struct keras_call {
    keras_importer *im;
    const keras_layer *layer;
    keras_value *input;
    int inputs;
    int uses; /* how many read the result */
    int training, depth;
    int refused;
} keras_call;

/* Records why the layer cannot be imported; from then on its result is unknown. */
void keras_refuse(keras_call *at, const char *format, ...) PRINTF_LIKE(2, 3);

/* All of them in one line: 1; 0 if there are none. And what they take. */
int keras_tell_problems(keras_importer *im);
void keras_forget_problems(keras_importer *im);

/* Ready to append nodes: nothing was refused, and the inputs are known. */
int keras_ready(const keras_call *at);

/* Node `index` as the builder gave it back, seen with a rank; -1: refused, in the builder's words.
   And the result of a layer that does nothing. */
keras_value keras_result(keras_call *at, int index, int rank);
keras_value keras_same(keras_call *at);
keras_value keras_unknown(void);

/* A legal name that the model does not have yet: the layer's and a suffix such as ".relu". */
void keras_name(const keras_call *at, const char *suffix, char name[PTQ_NAME_SIZE]);

/* The row of the table for a model within the model. */
keras_value keras_nested(keras_call *at);

/* ---- Settings of the layer at hand (keras_settings.c) ---- */

const json_t *keras_setting(const keras_call *at, const char *key); /* NULL: missing, or null */
const char *keras_text(const keras_call *at, const char *key, const char *otherwise);
int keras_is_false(const keras_call *at, const char *key);

/* Numbers, whole ones of 1 to `most`, one or two of them. Others are refused, as are missing ones
   where `otherwise` is 0 or NULL. */
int keras_number(keras_call *at, const char *key, int otherwise, int most);
void keras_pair(keras_call *at, const char *key, const int *otherwise, int most, int *out);
double keras_real(keras_call *at, const char *key, double otherwise);

/* Refuses channels that come first; and an axis, or a list of one, that is not the last. */
void keras_check_format(keras_call *at);
void keras_check_axis(keras_call *at, int rank);

/* ---- Weights of the layer at hand (keras_weights.c) ---- */

/* Gives a parameter memory and fills it from the file, or with one number. */
void keras_load(keras_call *at, int index, int param, const keras_weight *weight);
void keras_fill(keras_call *at, int index, int param, float value);

/* The weight of a convolution or dense layer, and its bias where there is one. Keras has
   H,W,I,O; `shape` is how the file sees it. */
void keras_load_kernel(keras_call *at, int index, const keras_weight *weight);
void keras_load_bias(keras_call *at, int index, int number);

/* A vector of one number a channel that no node has. Refuses what cannot be read. */
void keras_read_vector(keras_call *at, const char *name, int number, int count, float *out);

/* ---- Layers (keras_layers.c, keras_shapes.c, keras_pixels.c) ---- */

/* A row of the table of layers: what imports it, or why it cannot be imported and what to do. */
typedef struct keras_kind {
    const char *class_name;
    keras_value (*import)(keras_call *at);
    int inputs; /* 0: one or more */
    const char *reason;
} keras_kind;

/* NULL if there is no such row. */
const keras_kind *keras_find_kind(const char *class_name);

/* Input 0 with all of its zeros, which take a node where they are left to add; or with those that a
   window of a convolution takes in. */
void keras_add_zeros(keras_call *at, int i);
typedef struct keras_window {
    int kernel[2], stride[2], pad[4];
    ptq_padding padding;
} keras_window;
void keras_read_window(keras_call *at, const char *key, const int *strides, keras_window *w);
void keras_take_zeros(keras_call *at, keras_window *w);

keras_value keras_flatten(keras_call *at);
keras_value keras_reshape(keras_call *at);
keras_value keras_zero_padding(keras_call *at);

keras_value keras_rescaling(keras_call *at);
keras_value keras_normalization(keras_call *at);

/* ---- ResNet8 (keras_resnet8.c) ---- */

/* In place of a model that is ResNet8 in all but its names: the same with the names that it has
   here, and 1. */
int keras_name_resnet8(ptq_model **model);

#endif
#endif
