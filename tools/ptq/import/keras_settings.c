/* The settings of a Keras layer: the members of its "config", which is JSON. */
#include <string.h>

#include "import/keras_import.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

const json_t *keras_setting(const keras_call *at, const char *key) {
    const json_t *value = json_object_get(json_object_get(at->layer->json, "config"), key);

    return json_is_null(value) ? NULL : value;
}

const char *keras_text(const keras_call *at, const char *key, const char *otherwise) {
    const char *text = json_string_value(keras_setting(at, key));

    return text ? text : otherwise;
}

int keras_is_false(const keras_call *at, const char *key) {
    return json_is_false(keras_setting(at, key));
}

static int is_count(const json_t *value, int most) {
    return json_is_integer(value) && json_integer_value(value) >= 1 &&
           json_integer_value(value) <= most;
}

int keras_number(keras_call *at, const char *key, int otherwise, int most) {
    const json_t *value = keras_setting(at, key);

    if (!value && otherwise)
        return otherwise;
    if (is_count(value, most))
        return (int)json_integer_value(value);
    keras_refuse(at, "%s must be a number of 1 to %d", key, most);
    return 1;
}

void keras_pair(keras_call *at, const char *key, const int *otherwise, int most, int *out) {
    const json_t *value = keras_setting(at, key);
    int both = json_is_array(value) && json_array_size(value) == 2;

    out[0] = out[1] = 1;
    if (!value && otherwise) {
        memcpy(out, otherwise, 2 * sizeof *out);
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *one = both ? json_array_get(value, i) : value;

        if (is_count(one, most)) {
            out[i] = (int)json_integer_value(one);
        } else {
            keras_refuse(at, "%s must be one or two numbers of 1 to %d", key, most);
            return;
        }
    }
}

double keras_real(keras_call *at, const char *key, double otherwise) {
    const json_t *value = keras_setting(at, key);

    if (!value)
        return otherwise;
    if (!json_is_number(value))
        keras_refuse(at, "%s must be a number", key);
    return json_number_value(value);
}

void keras_check_format(keras_call *at) {
    const char *format = keras_text(at, "data_format", "channels_last");

    if (strcmp(format, "channels_last") != 0)
        keras_refuse(at,
                     "data_format is '%.40s'; build the model with channels_last and load the "
                     "weights into it",
                     format);
}

void keras_check_axis(keras_call *at, int rank) {
    const json_t *axis = keras_setting(at, "axis");

    if (json_is_array(axis) && json_array_size(axis) == 1)
        axis = json_array_get(axis, 0);
    if (axis && (!json_is_integer(axis) ||
                 (json_integer_value(axis) != -1 && json_integer_value(axis) != rank)))
        keras_refuse(at, "axis is not the last; the channels must be");
}

#endif
