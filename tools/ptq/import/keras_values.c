/* What the functions of Keras layers have in common: refusals, names of nodes, results. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/keras_import.h"
#include "shared/names.h"
#include "ptq.h"

#if defined(PTQ_HAVE_hdf5) && defined(PTQ_HAVE_jansson)

enum { MOST_PROBLEMS = 512 };

/* ---- Refusals ---- */

void keras_refuse(keras_call *at, const char *format, ...) {
    keras_importer *im = at->im;
    char text[512];
    va_list args;

    at->refused = 1;
    if (!im->problem)
        im->problem = calloc(MOST_PROBLEMS, sizeof *im->problem);
    if (!im->problem || im->problems == MOST_PROBLEMS)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    im->problem[im->problems].class_name = at->layer->class_name;
    im->problem[im->problems].name = at->layer->name;
    im->problem[im->problems].text = malloc(strlen(text) + 1);
    if (im->problem[im->problems].text)
        strcpy(im->problem[im->problems++].text, text);
}

typedef struct line {
    char text[8192];
    size_t used;
} line;

static void put(line *to, const char *format, ...) PRINTF_LIKE(2, 3);
static void put(line *to, const char *format, ...) {
    size_t left = sizeof to->text - to->used;
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(to->text + to->used, left, format, args);
    va_end(args);
    to->used += length < 0 ? 0 : (size_t)length < left ? (size_t)length : left - 1;
}

static int is_like(const keras_problem *a, const keras_problem *b) {
    return strcmp(a->class_name, b->class_name) == 0 && strcmp(a->text, b->text) == 0;
}

/* All layers of a kind that have one reason, the first three by name. */
static void put_problem(line *to, const keras_importer *im, int first) {
    const keras_problem *of = &im->problem[first];
    int same = 0, named = 0;

    for (int i = 0; i < im->problems; i++) {
        if (i < first && is_like(&im->problem[i], of))
            return; /* it is told already */
        same += is_like(&im->problem[i], of);
    }
    put(to, "%slayer%s ", first ? "; " : "", same > 1 ? "s" : "");
    for (int i = first; i < im->problems && named < 3; i++)
        if (is_like(&im->problem[i], of))
            put(to, "%s'%.60s'", named++ ? ", " : "", im->problem[i].name);
    if (same > 3)
        put(to, " and %d more", same - 3);
    put(to, " (%.60s): %s", of->class_name, of->text);
}

int keras_tell_problems(keras_importer *im) {
    line *told = im->problems ? calloc(1, sizeof *told) : NULL;

    if (!im->problems)
        return 0;
    if (!told)
        return fail("no memory to import %s", im->path);
    for (int i = 0; i < im->problems; i++)
        put_problem(told, im, i);
    fail("%s: %s", im->path, told->text);
    free(told);
    return 1;
}

void keras_forget_problems(keras_importer *im) {
    for (int i = 0; i < im->problems; i++)
        free(im->problem[i].text);
    free(im->problem);
}

/* ---- Names and results, for the functions of layers ---- */

void keras_name(const keras_call *at, const char *suffix, char name[PTQ_NAME_SIZE]) {
    unique_name(at->im->model, at->layer->name, suffix, name);
}

int keras_ready(const keras_call *at) {
    for (int i = 0; i < at->inputs; i++)
        if (at->input[i].node < 0)
            return 0;
    return !at->refused;
}

keras_value keras_unknown(void) {
    keras_value value = {-1, 0, 0, {0, 0, 0, 0}, NULL};

    return value;
}

/* The builder keeps its first failure, and would do nothing from then on; here the other layers are
   to be looked at as well. */
keras_value keras_result(keras_call *at, int index, int rank) {
    ptq_error *error = &at->im->model->error;
    keras_value value = keras_unknown();

    if (index < 0) {
        keras_refuse(at, "%s", error->text);
        memset(error, 0, sizeof *error);
        return value;
    }
    value.node = index;
    value.rank = rank;
    return value;
}

keras_value keras_same(keras_call *at) {
    keras_value value = at->input[0];

    value.sole = value.sole && at->uses == 1;
    return value;
}

#endif
