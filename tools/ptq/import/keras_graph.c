/* From the configuration of a Keras model to a graph: which layer reads which, called in an order
   in which they can run; and read_keras itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/keras_import.h"
#include "shared/names.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

enum { MOST_LAYERS = 8192, MOST_DEPTH = 8, MOST_READ = 1 << 16 };

/* A tensor: what a call of a layer returns. layer -1: the input of the model. */
typedef struct tensor {
    int layer, call;
} tensor;

/* A call of a layer: it reads `inputs` tensors, the graph's `read` from `first` on. */
typedef struct planned_call {
    int layer, first, inputs, training, uses, done;
    keras_value result;
} planned_call;

/* A model of the file while it is imported: the file's own, or one that is a layer of another. */
typedef struct graph {
    keras_importer *im;
    const json_t *json, *layers;
    const keras_place *place;
    int depth, sequential;
    keras_layer *layer;
    int *first_call; /* of each layer, and behind the last one */
    json_t *index;   /* name -> number of the layer */
    planned_call *call;
    tensor *read;
    int count, calls, reads;
    tensor output;
    keras_value input;     /* of a model in another, or that no layer stands for */
    int given, input_uses; /* given: it comes from a model around this one; then counts who takes it
                              up */
} graph;

/* ---- The layers of a model ---- */

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* A layer's name stands in its configuration; that of a functional model's layer also beside it. */
static const char *layer_name(const json_t *layer) {
    const char *name = text_of(layer, "name");

    if (!name)
        name = text_of(json_object_get(layer, "config"), "name");
    return name ? name : "(without a name)";
}

/* Layers of a kind are numbered in .keras files. */
static void read_layer(graph *g, int i) {
    keras_layer *layer = &g->layer[i];
    const char *kind;
    int number = 0;

    layer->json = json_array_get(g->layers, (size_t)i);
    kind = text_of(layer->json, "class_name");
    layer->class_name = kind ? kind : "(without a kind)";
    layer->name = layer_name(layer->json);
    for (int k = 0; k < i; k++)
        number += strcmp(g->layer[k].class_name, layer->class_name) == 0;
    keras_find_place(g->im->file, g->place, layer->name, layer->class_name, number, &layer->place);
}

static int read_layers(graph *g) {
    const json_t *config = json_object_get(g->json, "config");

    /* Keras 1 wrote the layers of a Sequential model without an object around them. */
    g->layers = json_is_array(config) ? config : json_object_get(config, "layers");
    if (!json_is_array(g->layers) || !json_array_size(g->layers))
        return fail("%s: its configuration lists no layers; a Sequential or Functional Keras model "
                    "is expected, not a class of your own",
                    g->im->path);
    if (json_array_size(g->layers) > (size_t)(MOST_LAYERS - g->im->layers))
        return fail("%s: more than %d layers", g->im->path, MOST_LAYERS);
    g->count = (int)json_array_size(g->layers);
    g->im->layers += g->count;
    g->layer = calloc((size_t)g->count, sizeof *g->layer);
    g->first_call = calloc((size_t)g->count + 1, sizeof *g->first_call);
    g->index = json_object();
    if (!g->layer || !g->first_call || !g->index)
        return fail("no memory to import %s", g->im->path);
    for (int i = 0; i < g->count; i++) {
        read_layer(g, i);
        if (json_object_get(g->index, g->layer[i].name))
            return fail("%s: two layers are called '%.60s'", g->im->path, g->layer[i].name);
        if (json_object_set_new(g->index, g->layer[i].name, json_integer(i)))
            return fail("%s: the name of layer %d is not text", g->im->path, i);
    }
    g->sequential = !json_is_object(config) || !json_object_get(config, "output_layers");
    return 0;
}

/* ---- Which layer reads which ---- */

static int is_input(const keras_layer *layer) {
    return strcmp(layer->class_name, "InputLayer") == 0;
}

static int is_model(const keras_layer *layer) {
    const keras_kind *kind = keras_find_kind(layer->class_name);

    return kind && kind->import == keras_nested;
}

/* [name, call, result, ...], with which Keras refers to a tensor. Of a model within the model some
   versions count the call that made it, which the file does not show: there may be one other. */
static int find_tensor(const graph *g, const json_t *history, tensor *out) {
    const char *name = json_string_value(json_array_get(history, 0));
    const json_t *number = name ? json_object_get(g->index, name) : NULL;
    json_int_t call = json_integer_value(json_array_get(history, 1));
    int calls;

    if (!number || !json_is_integer(json_array_get(history, 1)) ||
        !json_is_integer(json_array_get(history, 2)))
        return 0;
    out->layer = (int)json_integer_value(number);
    calls = g->first_call[out->layer + 1] - g->first_call[out->layer];
    if (is_model(&g->layer[out->layer]) && calls == 1)
        call = 0;
    out->call = (int)call;
    return call >= 0 && call < calls && json_integer_value(json_array_get(history, 2)) == 0;
}

static int add_read(graph *g, const json_t *history, const keras_layer *layer) {
    tensor from;

    if (!find_tensor(g, history, &from))
        return fail("%s: layer '%.60s' reads a tensor that no layer makes as its only result",
                    g->im->path, layer->name);
    if (g->reads == MOST_READ)
        return fail("%s: its layers read too many tensors", g->im->path);
    g->read[g->reads++] = from;
    return 0;
}

/* Whether a JSON array refers to a tensor as Keras 2 does. */
static int is_history(const json_t *value) {
    return json_array_size(value) >= 3 && json_is_string(json_array_get(value, 0)) &&
           json_is_integer(json_array_get(value, 1)) && json_is_integer(json_array_get(value, 2));
}

/* The tensors that a call reads, wherever they stand among its arguments, in their order. Keras 3
   wraps each into an object. */
static int collect_reads(graph *g, const json_t *value, const keras_layer *layer, int depth) {
    const char *kind = text_of(value, "class_name");
    const json_t *part;
    const char *key;
    size_t i;

    if (depth > MOST_DEPTH)
        return fail("%s: the inputs of layer '%.60s' are nested too deeply", g->im->path,
                    layer->name);
    if (is_history(value))
        return add_read(g, value, layer) ||
               collect_reads(g, json_array_get(value, 3), layer, depth + 1);
    if (kind && strcmp(kind, "__keras_tensor__") == 0)
        return add_read(g, json_object_get(json_object_get(value, "config"), "keras_history"),
                        layer);
    if (json_is_array(value)) {
        json_array_foreach((json_t *)value, i, part) {
            if (collect_reads(g, part, layer, depth + 1))
                return 1;
        }
    } else if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, part) {
            if (collect_reads(g, part, layer, depth + 1))
                return 1;
        }
    }
    return 0;
}

/* Called with training=True a layer does at inference what it does in training. */
static int is_training(const json_t *call) {
    const json_t *keys = json_is_object(call) ? json_object_get(call, "kwargs")
                                              : json_array_get(json_array_get(call, 0), 3);

    return json_is_true(json_object_get(keys, "training"));
}

static const json_t *inbound(const keras_layer *layer) {
    return json_object_get(layer->json, "inbound_nodes");
}

/* Every layer of a Sequential model reads the one before it; InputLayers read nothing. */
static int count_calls(graph *g) {
    for (int i = 0; i < g->count; i++) {
        size_t calls =
            g->sequential || is_input(&g->layer[i]) ? 1 : json_array_size(inbound(&g->layer[i]));

        if (calls > (size_t)(MOST_LAYERS - g->calls))
            return fail("%s: more than %d calls of layers", g->im->path, MOST_LAYERS);
        g->first_call[i] = g->calls;
        g->calls += (int)calls;
    }
    g->first_call[g->count] = g->calls;
    g->call = calloc((size_t)g->calls + 1, sizeof *g->call);
    g->read = malloc(MOST_READ * sizeof *g->read);
    return g->call && g->read ? 0 : fail("no memory to import %s", g->im->path);
}

static int read_call(graph *g, int layer, int number) {
    planned_call *call = &g->call[g->first_call[layer] + number];
    const json_t *json = json_array_get(inbound(&g->layer[layer]), (size_t)number);

    call->layer = layer;
    call->first = g->reads;
    if (is_input(&g->layer[layer]))
        return 0;
    if (g->sequential) {
        g->read[g->reads].layer = layer - 1;
        g->read[g->reads++].call = 0;
        return 0;
    }
    call->training = is_training(json);
    return collect_reads(g, json, &g->layer[layer], 0);
}

static int *uses_of(graph *g, tensor of) {
    return of.layer < 0 ? &g->input_uses : &g->call[g->first_call[of.layer] + of.call].uses;
}

static int read_calls(graph *g) {
    for (int i = 0; i < g->count; i++)
        for (int k = 0; k < g->first_call[i + 1] - g->first_call[i]; k++) {
            planned_call *call = &g->call[g->first_call[i] + k];

            if (read_call(g, i, k))
                return 1;
            call->inputs = g->reads - call->first;
        }
    for (int i = 0; i < g->reads; i++)
        ++*uses_of(g, g->read[i]);
    return 0;
}

/* [["dense", 0, 0]], or in Keras 3 also ["dense", 0, 0]; a Sequential model's last layer. */
static int find_output(graph *g) {
    const json_t *outputs = json_object_get(json_object_get(g->json, "config"), "output_layers");

    g->output.layer = g->count - 1;
    g->output.call = 0;
    if (g->sequential)
        return 0;
    if (json_is_object(outputs) || (!is_history(outputs) && json_array_size(outputs) > 1))
        return fail("%s: the model has several outputs; save one with a single output, as in "
                    "keras.Model(model.inputs, model.outputs[0])",
                    g->im->path);
    if (!find_tensor(g, is_history(outputs) ? outputs : json_array_get(outputs, 0), &g->output))
        return fail("%s: no layer makes the output of the model", g->im->path);
    ++*uses_of(g, g->output);
    return 0;
}

/* ---- The input ---- */

/* [null, 32, 32, 3]; images of one channel may come without it, and images in one row. */
static int add_input(graph *g, const char *name, const json_t *shape, int uses, keras_value *out) {
    int rank = (int)json_array_size(shape) - 1, dim[3] = {1, 1, 1};
    char legal[PTQ_NAME_SIZE];

    if (g->im->model->nodes)
        return fail("%s: the model has several inputs; one image is supported", g->im->path);
    if (rank < 1 || rank > 3)
        return fail("%s: input '%.60s' has no shape of an image; give the first layer an "
                    "input_shape and save the model again",
                    g->im->path, name);
    for (int i = 0; i < rank; i++) {
        json_int_t size = json_integer_value(json_array_get(shape, (size_t)i + 1));

        if (size < 1 || size > PTQ_MAX_ELEMENTS)
            return fail("%s: input '%.60s': its dimension %d is not a fixed size; build the model "
                        "with one, load the weights into it and save that",
                        g->im->path, name, i + 1);
        dim[rank == 1 ? 2 : i] = (int)size;
    }
    unique_name(g->im->model, name, "", legal);
    *out = keras_unknown();
    out->node = ptq_add_input(g->im->model, legal, dim[0], dim[1], dim[2]);
    out->rank = rank;
    out->sole = uses == 1;
    return out->node < 0 ? fail("%s: %s", g->im->path, g->im->model->error.text) : 0;
}

static const json_t *shape_in(const json_t *config) {
    static const char *const keys[] = {"batch_shape", "batch_input_shape", "build_input_shape",
                                       "input_shape"};
    const json_t *shape = NULL;

    for (int i = 0; i < 4 && !json_is_array(shape); i++)
        shape = json_object_get(config, keys[i]);
    return shape;
}

/* Where a Sequential model has no InputLayer, its first layer or the model itself tells. */
static int find_input(graph *g) {
    const json_t *first = g->layer[0].json, *shape = shape_in(json_object_get(first, "config"));

    if (g->given || !g->sequential || is_input(&g->layer[0]))
        return 0;
    if (!shape)
        shape = shape_in(json_object_get(g->json, "config"));
    if (!shape)
        shape = shape_in(json_object_get(first, "build_config"));
    return add_input(g, "input", shape, g->input_uses, &g->input);
}

/* ---- The walk ---- */

static keras_value *result_of(graph *g, tensor from) {
    return from.layer < 0 ? &g->input : &g->call[g->first_call[from.layer] + from.call].result;
}

static int is_runnable(const graph *g, const planned_call *call) {
    for (int i = 0; i < call->inputs; i++) {
        tensor from = g->read[call->first + i];

        if (from.layer >= 0 && !g->call[g->first_call[from.layer] + from.call].done)
            return 0;
    }
    return 1;
}

static keras_value import_layer(keras_call *at) {
    const keras_kind *kind = keras_find_kind(at->layer->class_name);

    if (!kind || !kind->import) {
        keras_refuse(at, "%s", kind ? kind->reason : "there is no operator for it");
    } else if (kind->inputs ? at->inputs != kind->inputs : at->inputs < 1) {
        keras_refuse(at, "it reads %d tensors; %d %s", at->inputs, kind->inputs ? kind->inputs : 1,
                     kind->inputs ? "is right" : "or more are right");
    } else {
        return kind->import(at); /* where weights are missing, shapes behind it can be looked at */
    }
    return keras_unknown();
}

static int run_call(graph *g, planned_call *call) {
    const keras_layer *layer = &g->layer[call->layer];
    keras_call at = {g->im, layer, NULL, call->inputs, call->uses, call->training, g->depth, 0};

    if (is_input(layer) && !g->given)
        return add_input(g, layer->name, shape_in(json_object_get(layer->json, "config")),
                         call->uses, &call->result);
    at.input = malloc(((size_t)call->inputs + 1) * sizeof *at.input);
    if (!at.input)
        return fail("no memory to import %s", g->im->path);
    for (int i = 0; i < call->inputs; i++)
        at.input[i] = *result_of(g, g->read[call->first + i]);
    if (is_input(layer)) {
        at.input[0] = g->input;
        call->result = keras_same(&at);
        if (g->given++ > 1)
            keras_refuse(&at, "the model within the model has several inputs; one is supported");
    } else {
        call->result = import_layer(&at);
    }
    free(at.input);
    return g->im->failed;
}

/* Layers usually stand in an order in which they can run. One that is called at several places may
   not: passes go on as long as they find something to run. */
static int run_calls(graph *g) {
    int left = g->calls, before = left + 1;

    while (left && left < before) {
        before = left;
        for (int i = 0; i < g->calls; i++) {
            planned_call *call = &g->call[i];

            if (call->done || !is_runnable(g, call))
                continue;
            if (run_call(g, call))
                return 1;
            call->done = 1;
            left--;
        }
    }
    return left ? fail("%s: its layers read each other in a circle", g->im->path) : 0;
}

static void close_graph(graph *g) {
    free(g->layer);
    free(g->first_call);
    json_decref(g->index);
    free(g->call);
    free(g->read);
}

static int import_graph(graph *g, keras_value *out) {
    int status = read_layers(g) || count_calls(g) || read_calls(g) || find_output(g) ||
                 find_input(g) || run_calls(g);

    if (!status)
        *out = *result_of(g, g->output);
    if (!status && !g->depth && out->node >= 0) { /* nobody behind takes them in */
        keras_call at = {g->im, &g->layer[g->output.layer], out, 1, 1, 0, 0, 0};

        keras_add_zeros(&at, 0);
    }
    close_graph(g);
    return status;
}

keras_value keras_nested(keras_call *at) {
    graph g;
    keras_value value = keras_unknown();

    memset(&g, 0, sizeof g);
    g.im = at->im;
    g.json = at->layer->json;
    g.place = &at->layer->place;
    g.depth = at->depth + 1;
    g.input = at->input[0];
    g.given = 1;
    if (g.depth > MOST_DEPTH)
        keras_refuse(at, "models are nested too deeply");
    else
        at->im->failed = import_graph(&g, &value);
    value.sole = value.sole && at->uses == 1;
    return value;
}

/* A configuration leaves nothing open; but ResNet8 may have been trained on elsewhere. */
static int settle(keras_importer *im, assumed *open) {
    static const char says[] = "by the file";

    if (!keras_name_resnet8(&im->model))
        return open->padding || open->epsilon
                   ? fail(
                         "%s says itself how it pads and which epsilon it has; leave out --padding "
                         "and --epsilon",
                         im->path)
                   : 0;
    open->epsilon_from = says;
    return assume_padding(open, "tensorflow", says, im->model) ||
           (open->epsilon && assume_epsilon(open, NULL, 0, says, im->model));
}

static int import_model(keras_importer *im, assumed *open) {
    keras_value output = keras_unknown();
    graph g;
    keras_place whole;
    ptq_error err;

    memset(&g, 0, sizeof g);
    memset(&whole, 0, sizeof whole);
    g.im = im;
    g.json = keras_config(im->file);
    g.place = &whole;
    im->model->bare = 1;
    if (import_graph(&g, &output) || keras_tell_problems(im))
        return 1;
    im->model->bare = 0;
    if (ptq_model_check(im->model, &err))
        return fail("%s: %s", im->path, err.text);
    return settle(im, open);
}

int read_keras(const char *path, assumed *open, ptq_model **out) {
    keras_importer *im = calloc(1, sizeof *im);
    ptq_error err;
    int status;

    if (!im)
        return fail("no memory to import %s", path);
    im->path = path;
    if (ptq_model_create(NULL, &im->model, &err))
        status = fail("%s", err.text);
    else
        status = keras_open(path, &im->file) || import_model(im, open);
    if (!status) {
        *out = im->model;
        im->model = NULL;
    }
    keras_forget_problems(im);
    ptq_model_free(im->model);
    keras_close(im->file);
    free(im);
    return status;
}

#else

int read_keras(const char *path, assumed *open, ptq_model **out) {
    (void)path, (void)open, (void)out;
    return fail("Keras files need the libraries hdf5 and jansson; install both and build again");
}

#endif
