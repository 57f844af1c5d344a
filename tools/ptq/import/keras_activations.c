/* Activations of Keras: by name, as the object that some layers have in place of a name, and as
   layers of their own. */
#include <float.h>
#include <string.h>

#include "import/keras_import.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { NO_OPERATOR = -1 };

/* Not hard_sigmoid, by which Keras 2 and Keras 3 mean different functions. */
static const keras_activation activations[] = {
    {"linear", NO_OPERATOR, PTQ_FUNCTION_CLIP, 0, 0},
    {"relu", PTQ_OP_RELU, PTQ_FUNCTION_CLIP, 0, 0},
    {"relu6", PTQ_OP_RELU6, PTQ_FUNCTION_CLIP, 0, 0},
    {"softmax", PTQ_OP_SOFTMAX, PTQ_FUNCTION_CLIP, 0, 0},
    {"sigmoid", PTQ_OP_FUNCTION, PTQ_FUNCTION_SIGMOID, 0, 0},
    {"tanh", PTQ_OP_FUNCTION, PTQ_FUNCTION_TANH, 0, 0},
    {"silu", PTQ_OP_FUNCTION, PTQ_FUNCTION_SILU, 0, 0},
    {"swish", PTQ_OP_FUNCTION, PTQ_FUNCTION_SILU, 0, 0},
    {"hard_silu", PTQ_OP_FUNCTION, PTQ_FUNCTION_HARD_SWISH, 0, 0},
    {"hard_swish", PTQ_OP_FUNCTION, PTQ_FUNCTION_HARD_SWISH, 0, 0},
    {"elu", PTQ_OP_FUNCTION, PTQ_FUNCTION_ELU, 1, 0},
    {"gelu", PTQ_OP_FUNCTION, PTQ_FUNCTION_GELU, 0, 0},
    {"leaky_relu", PTQ_OP_FUNCTION, PTQ_FUNCTION_LEAKY_RELU, 0.2f, 0},
};

static const keras_activation *find_activation(const char *name) {
    for (size_t i = 0; i < COUNT(activations); i++)
        if (strcmp(name, activations[i].name) == 0)
            return &activations[i];
    return NULL;
}

static float number_of(const json_t *config, const char *key, float otherwise) {
    const json_t *value = json_object_get(config, key);

    return json_is_number(value) ? (float)json_number_value(value) : otherwise;
}

/* max(x, 0) with an upper bound, or with a slope below 0. */
static keras_activation relu_of(keras_call *at, const json_t *config) {
    keras_activation made = activations[1];
    float most = number_of(config, "max_value", FLT_MAX);
    float slope = number_of(config, "negative_slope", number_of(config, "alpha", 0));
    float threshold = number_of(config, "threshold", 0);

    if (threshold < 0 || threshold > 0 || (most < FLT_MAX && (slope < 0 || slope > 0)))
        keras_refuse(at, "it has a threshold, or both a slope and a max_value; train it without");
    made.op = most < FLT_MAX || slope < 0 || slope > 0 ? PTQ_OP_FUNCTION : PTQ_OP_RELU;
    if (most >= 6 && most <= 6)
        made.op = PTQ_OP_RELU6;
    made.function = most < FLT_MAX ? PTQ_FUNCTION_CLIP : PTQ_FUNCTION_LEAKY_RELU;
    made.alpha = most < FLT_MAX ? 0 : slope;
    made.beta = most < FLT_MAX ? most : 0;
    return made;
}

/* Of a layer, or of an object that stands for one; NULL in *of: it is none of these. */
static keras_activation activation_of_class(keras_call *at, const char *kind, const json_t *config,
                                            const keras_activation **of) {
    keras_activation made = activations[0];

    *of = NULL;
    if (strcmp(kind, "ReLU") == 0) {
        *of = &activations[1];
        return relu_of(at, config);
    }
    if (strcmp(kind, "LeakyReLU") == 0) {
        *of = find_activation("leaky_relu");
        made = **of;
        made.alpha = number_of(config, "negative_slope", number_of(config, "alpha", 0.3f));
    } else if (strcmp(kind, "ELU") == 0) {
        *of = find_activation("elu");
        made = **of;
        made.alpha = number_of(config, "alpha", 1);
    }
    return made;
}

/* "relu"; {"class_name": "function", "config": "relu"}; {"class_name": "ReLU", "config": {...}}. */
keras_activation keras_activation_of(keras_call *at) {
    const json_t *value = keras_setting(at, "activation"),
                 *config = json_object_get(value, "config");
    const char *name = json_string_value(value);
    const char *kind = json_string_value(json_object_get(value, "class_name"));
    const keras_activation *found;
    keras_activation made;

    if (!value)
        return activations[0];
    made = activation_of_class(at, kind ? kind : "", config, &found);
    if (found)
        return made;
    if (!name)
        name = json_is_string(config) ? json_string_value(config) : kind ? kind : "?";
    found = find_activation(name);
    if (!found)
        keras_refuse(at,
                     "there is no operator for the activation '%.60s'; docs/keras.md lists "
                     "those that are",
                     name);
    return found ? *found : activations[0];
}

/* The node is called as its layer where that is all it does. */
static keras_value add_activation(keras_call *at, keras_value value, const keras_activation *act,
                                  int alone) {
    char name[PTQ_NAME_SIZE], suffix[24] = "";
    ptq_model *model = at->im->model;

    if (act->op == NO_OPERATOR || at->refused)
        return value;
    if (!alone)
        snprintf(suffix, sizeof suffix, ".%s",
                 act->op == PTQ_OP_FUNCTION ? ptq_name(PTQ_NAMES_FUNCTION, act->function)
                                            : ptq_name(PTQ_NAMES_OP, (unsigned)act->op));
    keras_name(at, suffix, name);
    return keras_result(
        at,
        act->op == PTQ_OP_FUNCTION
            ? ptq_add_function(model, act->function, name, value.node, act->alpha, act->beta)
            : ptq_add_op(model, (ptq_op)act->op, name, value.node),
        value.rank);
}

keras_value keras_add_activation(keras_call *at, keras_value value, const keras_activation *act) {
    return add_activation(at, value, act, 0);
}

static keras_value import_alone(keras_call *at, const keras_activation *act) {
    if (act->op == NO_OPERATOR && !at->refused)
        return keras_same(at);
    if (!keras_ready(at))
        return keras_unknown();
    keras_add_zeros(at, 0);
    return keras_ready(at) ? add_activation(at, at->input[0], act, 1) : keras_unknown();
}

/* Only those of which a call could not say more than the name: leaky_relu has a slope, gelu two
   forms. */
int keras_is_activation(const char *suffix) {
    const keras_activation *found = suffix ? find_activation(suffix + 1) : NULL;

    return found && found->op != PTQ_OP_SOFTMAX && found->function != PTQ_FUNCTION_GELU &&
           found->function != PTQ_FUNCTION_LEAKY_RELU;
}

keras_value keras_apply_activation(keras_call *at, const char *name) {
    return import_alone(at, find_activation(name));
}

keras_value keras_activation_layer(keras_call *at) {
    const keras_activation *found;
    keras_activation made = activation_of_class(at, at->layer->class_name,
                                                json_object_get(at->layer->json, "config"), &found);

    if (!found)
        made = keras_activation_of(at);
    return import_alone(at, &made);
}

keras_value keras_softmax(keras_call *at) {
    keras_check_axis(at, at->input[0].rank);
    return keras_apply_activation(at, "softmax");
}

/* With one slope for each channel: of an image the weight is 1 x 1 x C, its axes being shared. */
keras_value keras_prelu(keras_call *at) {
    static const keras_activation prelu = {"prelu", PTQ_OP_FUNCTION, PTQ_FUNCTION_PRELU, 0, 0};
    keras_value value = import_alone(at, &prelu);
    keras_weight slopes = {"alpha", 0, 1, {0}};

    if (at->refused || value.node < 0)
        return value;
    slopes.rank = value.rank;
    for (int i = 0; i < value.rank; i++)
        slopes.shape[i] = 1;
    slopes.shape[value.rank - 1] = at->im->model->node[value.node].shape[2];
    keras_load(at, value.node, PTQ_PARAM_WEIGHT, &slopes);
    return value;
}

#endif
