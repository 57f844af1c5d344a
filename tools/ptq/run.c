/* ptq run: the logits of every image of a file; one image explained, or beside another model. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "data/array.h"
#include "data/dataset.h"
#include "data/find.h"
#include "measure/explain.h"
#include "measure/tensors.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/progress.h"

typedef struct run_options {
    data_options data; /* its `data` is --images */
    const char *model, *logits, *codes, *explain, *beside, *tensors, *output;
    int threads, no_fuse, image, top, brief;
} run_options;

static const command_help help = {
    "run [--model MODEL] --images FILE --logits OUT.f32|OUT.npy [OPTIONS]\n"
    "       ptq run [--model MODEL] --images FILE --top N\n"
    "       ptq run [--model MODEL] --images FILE --explain NODE,Y,X,C [--image K]\n"
    "       ptq run [--model MODEL] --images FILE --side-by-side MODEL [--image K]",
    "Runs a model over images, or other items, and writes the logits: float32, little-endian, one\n"
    "row of classes for each image; or as codes, where the model has logits that are codes. "
    "Labels\n"
    "are not needed. FILE is whatever other commands take as --data; of a folder, its test images.",
    "ptq run --model resnet8.safetensors --images test_batch.bin --top 3"};

static int parse(int argc, char **argv, run_options *o) {
    const option_spec specs[] = {
        {"model", 'm', "MODEL", "model file (.safetensors)", .text = &o->model, .file = READ_FILE},
        {"images", 'i', "FILE", DATA_HELP, .text = &o->data.data, .file = READ_FILE},
        {"labels", 0, "FILE", "their classes, for --side-by-side", .text = &o->data.labels,
         .file = READ_FILE},
        {"skip", 0, "N", "leave out the first N items", .number = &o->data.skip},
        DATA_LIMIT_OPTION(&o->data),
        {"logits", 'o', "FILE", "where to write N x classes float32, as they are or as .npy",
         .text = &o->logits, .file = WRITTEN_FILE},
        {"output", 0, "NAME", "with --logits: write this one of several results",
         .text = &o->output},
        {"top", 0, "N", "show the N likeliest classes of each item", .number = &o->top, .least = 1},
        {"codes", 0, "FILE", "where to write N x classes int32, the logits' codes",
         .text = &o->codes, .file = WRITTEN_FILE},
        {"tensors", 0, "FILE", "where to write every intermediate tensor (.safetensors, N,H,W,C)",
         .text = &o->tensors, .file = WRITTEN_FILE},
        {"explain", 0, "NODE,Y,X,C", "show how one element of a node's result is computed",
         .text = &o->explain},
        {"brief", 0, NULL, "with --explain: without the products", .flag = &o->brief},
        {"side-by-side", 0, "MODEL", "show the logits beside those of another model",
         .text = &o->beside, .file = READ_FILE},
        {"image", 0, "K", "which image is explained or shown (default 0)", .number = &o->image},
        {"threads", 't', "T", "threads (default: all cores)", .number = &o->threads, .least = 1},
        {"no-fuse", 0, NULL, "run a float graph as it is", .flag = &o->no_fuse},
        {0}};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

/* The labels are nobody's business here, so that models with other classes run as well. */
static ptq_status get_unlabelled(void *user, size_t index, void *pixels, int *label,
                                 ptq_error *err) {
    const ptq_dataset *base = user;
    ptq_status status = base->get(base->user, index, pixels, label, err);

    *label = 0;
    return status;
}

static int ends_with(const char *path, const char *ending) {
    size_t length = strlen(path), n = strlen(ending);

    return length > n && !strcmp(path + length - n, ending);
}

/* Words of 32 bits, least significant byte first; behind a header where the name asks for one.
   kind: 'f' or 'i', as .npy has it. */
static int write_words(const char *path, const void *words, size_t rows, size_t columns,
                       char kind) {
    size_t count = rows * columns, used = 0;
    unsigned char *bytes = malloc(NPY_HEADER + count * 4);
    ptq_status status;
    ptq_error err;

    if (!bytes)
        return fail("no memory for %zu logits", count);
    if (ends_with(path, ".npy"))
        used = npy_header(kind, rows, columns, (char *)bytes);
    for (size_t i = 0; i < count; i++, used += 4) {
        uint32_t word;

        memcpy(&word, (const char *)words + 4 * i, 4);
        for (int k = 0; k < 4; k++)
            bytes[used + (size_t)k] = (unsigned char)(word >> 8 * k);
    }
    status = ptq_file_write(path, bytes, used, &err);
    free(bytes);
    return status ? fail("%s", err.text) : 0;
}

/* The likeliest classes of one item, with what softmax makes of its logits. */
static void print_top(const ptq_dataset *data, size_t item, float *logits, int top) {
    double sum = 0, most = (double)logits[ptq_argmax(logits, data->classes)];

    for (int c = 0; c < data->classes; c++)
        sum += exp((double)logits[c] - most);
    say("%zu", item);
    for (int i = 0; i < top && i < data->classes; i++) {
        int best = ptq_argmax(logits, data->classes);

        say("  %s %.2f %%", data->class_name[best], 100 * exp((double)logits[best] - most) / sum);
        logits[best] = -INFINITY;
    }
    say("\n");
}

static int run_images(const run_options *o, const engine *ready, const ptq_dataset *data) {
    ptq_dataset base = *data, unlabelled = base;
    ptq_evaluate_options options = {0};
    ptq_evaluation result = {0};
    progress state = progress_start("run");
    ptq_status status;
    ptq_error err;

    unlabelled.get = get_unlabelled;
    unlabelled.user = &base;
    unlabelled.classes = ptq_plan_get_info(ready->plan)->classes;
    options.work.threads = o->threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = ptq_evaluate(ready->plan, &unlabelled, &options, &result, &err);
    progress_end(&state);
    if (status)
        return fail("%s", err.text);
    if (o->logits &&
        write_words(o->logits, result.logits, result.total, (size_t)result.classes, 'f')) {
        ptq_release(&result.memory);
        return 1;
    }
    if (o->logits)
        say_written(o->logits, "%zu images x %d logits", result.total, result.classes);
    for (size_t i = 0; i < result.total && o->top; i++)
        print_top(data, i, result.logits + i * (size_t)result.classes, o->top);
    ptq_release(&result.memory);
    return 0;
}

/* ---- Codes ---- */

static int make_codes(ptq_session *session, const ptq_dataset *data, void *item, int32_t *codes,
                      size_t classes) {
    progress state = progress_start("codes");
    int label, status = 0;
    ptq_error err;

    for (size_t i = 0; i < data->count && !status; i++) {
        ptq_results wanted = {NULL, NULL, codes + i * classes, NULL};

        if (data->get(data->user, i, item, &label, &err) ||
            ptq_run_items(session, data->type, item, 1, &wanted, &err))
            status = fail("%s", err.text);
        progress_show(&state, i + 1, data->count);
    }
    progress_end(&state);
    return status;
}

static int run_codes(const run_options *o, const engine *ready, const ptq_dataset *data) {
    size_t classes = (size_t)ptq_plan_get_info(ready->plan)->classes;
    int32_t *codes = malloc(data->count * classes * sizeof *codes);
    void *item = malloc(data_item_bytes(data));
    ptq_session *session = NULL;
    ptq_error err;
    int status = 0;

    if (!codes || !item)
        status = fail("no memory for the codes of %zu images", data->count);
    else if (ptq_session_create(ready->plan, NULL, &session, &err))
        status = fail("%s", err.text);
    if (!status)
        status = make_codes(session, data, item, codes, classes) ||
                 write_words(o->codes, codes, data->count, classes, 'i');
    if (!status)
        say_written(o->codes, "%zu images x %zu codes", data->count, classes);
    ptq_session_free(session);
    free(item);
    free(codes);
    return status;
}

/* ---- One of several results ---- */

static int make_output(ptq_session *session, const ptq_dataset *data, void *item, float **rows,
                       int number, size_t n) {
    progress state = progress_start("run");
    int label, status = 0;
    ptq_error err;

    for (size_t i = 0; i < data->count && !status; i++, rows[number - 1] += n) {
        if (data->get(data->user, i, item, &label, &err) ||
            ptq_run_outputs(session, data->type, item, 1, rows, &err))
            status = fail("%s", err.text);
        progress_show(&state, i + 1, data->count);
    }
    progress_end(&state);
    return status;
}

static int refuse_output(const run_options *o, const ptq_model *model) {
    char names[400] = "";

    for (int k = 1, at; (at = ptq_model_output(model, k)) >= 0; k++)
        if (strlen(names) + PTQ_NAME_SIZE + 3 < sizeof names)
            sprintf(names + strlen(names), "%s%s", k > 1 ? ", " : "", model->node[at].out);
    return *names ? fail("the model has no result '%s', but %s", o->output, names)
                  : fail("the model has one result only; leave out --output");
}

static int run_output(const run_options *o, const engine *ready, const ptq_dataset *data) {
    const ptq_model *model = ready->model;
    int index = ptq_model_find(model, o->output),
        number = index < 0 ? 0 : model->node[index].output;
    const int *shape = number ? model->node[index].shape : NULL;
    size_t n = number ? (size_t)(shape[0] * shape[1] * shape[2]) : 0;
    float *numbers = malloc(data->count * n * sizeof *numbers + 1), *rows[PTQ_MAX_NODES] = {NULL};
    void *item = malloc(data_item_bytes(data));
    ptq_session *session = NULL;
    ptq_error err;
    int status = 0;

    if (!number)
        status = refuse_output(o, model);
    else if (!numbers || !item)
        status = fail("no memory for the results of %zu images", data->count);
    else if (ptq_session_create(ready->plan, NULL, &session, &err))
        status = fail("%s", err.text);
    if (!status) {
        rows[number - 1] = numbers;
        status = make_output(session, data, item, rows, number, n) ||
                 write_words(o->logits, numbers, data->count, n, 'f');
    }
    if (!status)
        say_written(o->logits, "%zu images x %zu numbers of '%s'", data->count, n, o->output);
    ptq_session_free(session);
    free(item);
    free(numbers);
    return status;
}

/* ---- One image ---- */

/* A session that keeps everything and has run the image. */
static int run_one(const run_options *o, const engine *ready, const ptq_dataset *data,
                   ptq_session **out, float *logits, int *label) {
    ptq_session_options keep = {0};
    void *item = malloc(data_item_bytes(data));
    ptq_error err;
    int status = 0;

    keep.keep = 1;
    if (!item)
        status = fail("no memory for an image");
    else if (ptq_session_create(ready->plan, &keep, out, &err) ||
             data->get(data->user, (size_t)o->image, item, label, &err) ||
             data_run(*out, data, item, logits, &err))
        status = fail("%s", err.text);
    free(item);
    return status;
}

/* "block1.conv2,3,4,5" */
static int read_element(const run_options *o, char name[PTQ_NAME_SIZE], int at[3]) {
    const char *comma = strchr(o->explain, ',');
    size_t length = comma ? (size_t)(comma - o->explain) : 0;
    char end;

    if (!comma || length == 0 || length >= PTQ_NAME_SIZE ||
        sscanf(comma, ",%9d,%9d,%9d%c", &at[0], &at[1], &at[2], &end) != 3)
        return misuse("--explain must be NODE,Y,X,C, as in conv1,0,0,0, not '%s'", o->explain);
    memcpy(name, o->explain, length);
    name[length] = 0;
    return 0;
}

/* What becomes of the sum begins with a line of its own, that of the bias. */
static const char *after_products(const char *text) {
    const char *found = strstr(text, "\nbias ");

    return found ? found + 1 : text;
}

static int print_explanation(const run_options *o, const engine *ready, const ptq_session *session,
                             const char *name, const int at[3]) {
    char *text = NULL;
    const char *shown;
    ptq_error err;

    if (explain_element(ready->plan, session, name, at[0], at[1], at[2], &text, &err))
        return fail("%s; 'ptq info' lists the nodes", err.text);
    shown = o->brief ? after_products(text) : text;
    say("image %d of %s\n%s", o->image, o->data.data, shown);
    free(text);
    return 0;
}

static int explain(const run_options *o, const engine *ready, const ptq_dataset *data) {
    char name[PTQ_NAME_SIZE];
    ptq_session *session = NULL;
    int at[3], label, status;

    status = read_element(o, name, at) || run_one(o, ready, data, &session, NULL, &label) ||
             print_explanation(o, ready, session, name, at);
    ptq_session_free(session);
    return status;
}

static void print_side(const run_options *o, const float *one, const float *other, int classes,
                       int label, const ptq_dataset *set) {
    say("image %d of %s\n%-12s %12s %12s %12s\n", o->image, o->data.data, "class", "model", "other",
        "difference");
    for (int c = 0; c < classes; c++)
        say("%-12s %12.7g %12.7g %12.7g%s%s%s\n", set->class_name[c], (double)one[c],
            (double)other[c], (double)one[c] - (double)other[c],
            c == ptq_argmax(one, classes) ? "  <- model" : "",
            c == ptq_argmax(other, classes) ? "  <- other" : "", c == label ? "  <- label" : "");
}

static int fill_sides(const run_options *o, const engine *ready, const engine *other,
                      const ptq_dataset *data, float *logits) {
    int classes = ptq_plan_get_info(ready->plan)->classes, label, status;
    ptq_session *one = NULL, *two = NULL;

    status = run_one(o, ready, data, &one, logits, &label) ||
             run_one(o, other, data, &two, logits + classes, &label);
    if (!status)
        print_side(o, logits, logits + classes, classes, label, data);
    ptq_session_free(one);
    ptq_session_free(two);
    return status;
}

static int show_beside(const run_options *o, const engine *ready, const ptq_dataset *data) {
    char path[PATH_SIZE];
    engine other;
    float *logits;
    int status;

    if (find_model_for(o->beside, o->data.data, path) ||
        engine_open(path, !o->no_fuse, NULL, &other))
        return 1;
    logits = malloc(2 * (size_t)ptq_plan_get_info(ready->plan)->classes * sizeof *logits);
    if (!logits)
        status = fail("no memory for the logits");
    else if (ptq_plan_get_info(other.plan)->classes != ptq_plan_get_info(ready->plan)->classes ||
             ptq_plan_get_info(other.plan)->pixels != ptq_plan_get_info(ready->plan)->pixels)
        status = fail("%s has other images or classes than the model; give its float origin", path);
    else
        status = fill_sides(o, ready, &other, data, logits);
    free(logits);
    engine_close(&other);
    return status;
}

/* ---- All of it ---- */

static int run_all(const run_options *o, const engine *ready, const ptq_dataset *data) {
    if ((size_t)o->image >= data->count)
        return fail("%s has %zu images, counted from 0: there is no image %d", o->data.data,
                    data->count, o->image);
    return (o->output && run_output(o, ready, data)) ||
           ((o->logits || o->top) && !o->output && run_images(o, ready, data)) ||
           (o->codes && run_codes(o, ready, data)) ||
           (o->tensors && write_tensors(ready, data, o->tensors)) ||
           (o->explain && explain(o, ready, data)) || (o->beside && show_beside(o, ready, data));
}

int command_run(int argc, char **argv) {
    run_options o = {0};
    int parsed = parse(argc, argv, &o);
    char model_path[PATH_SIZE];
    data_request from;
    data_set *data = NULL;
    engine ready;
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!o.data.data || (!o.logits && !o.top && !o.codes && !o.tensors && !o.explain && !o.beside))
        return misuse("--images, and what to do with them, such as --logits, are needed; see 'ptq "
                      "run --help'");
    if (o.output && !o.logits)
        return misuse("--output goes with --logits, the file to write");
    if (o.threads == 0)
        o.threads = count_cores();
    if (data_find(&o.data, &from) || find_model_for(o.model, from.path, model_path) ||
        engine_open(model_path, !o.no_fuse, NULL, &ready))
        return 1;
    from.any_labels = 1;
    status = engine_self_test(&ready) || data_open(&from, PTQ_SPLIT_TEST, ready.plan, &data) ||
             run_all(&o, &ready, data_view(data));
    data_close(data);
    engine_close(&ready);
    return status;
}
