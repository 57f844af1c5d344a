/* ptq run: the logits of every image of a file; one image explained, or beside another model. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
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
    const char *model, *images, *logits, *codes, *explain, *beside, *tensors;
    int threads, no_fuse, image;
} run_options;

static const command_help help = {
    "run [--model MODEL] --images FILE.bin --logits OUT.f32 [OPTIONS]\n"
    "       ptq run [--model MODEL] --images FILE.bin --explain NODE,Y,X,C [--image K]\n"
    "       ptq run [--model MODEL] --images FILE.bin --side-by-side FLOATMODEL [--image K]",
    "Runs a model over a file of images and writes the logits: float32, little-endian, one row\n"
    "of classes for each image; or as codes, where the model has logits that are codes. Labels\n"
    "are not looked at.",
    "ptq run --model resnet8.safetensors --images test_batch.bin --logits logits.f32"};

static int parse(int argc, char **argv, run_options *o) {
    const option_spec specs[] = {
        {"model", 'm', "MODEL", "model file (.safetensors)", .text = &o->model, .file = READ_FILE},
        {"images", 'i', "FILE", "images as CIFAR-10 records (.bin)", .text = &o->images,
         .file = READ_FILE},
        {"logits", 'o', "FILE", "where to write N x classes float32", .text = &o->logits,
         .file = WRITTEN_FILE},
        {"codes", 0, "FILE", "where to write N x classes int32, the logits' codes",
         .text = &o->codes, .file = WRITTEN_FILE},
        {"tensors", 0, "FILE", "where to write every intermediate tensor (.safetensors, N,H,W,C)",
         .text = &o->tensors, .file = WRITTEN_FILE},
        {"explain", 0, "NODE,Y,X,C", "show how one element of a node's result comes about",
         .text = &o->explain},
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

/* Words of 32 bits, least significant byte first. */
static int write_words(const char *path, const void *words, size_t count) {
    unsigned char *bytes = malloc(count * 4);
    ptq_status status;
    ptq_error err;

    if (!bytes)
        return fail("no memory for %zu logits", count);
    for (size_t i = 0; i < count; i++) {
        uint32_t word;

        memcpy(&word, (const char *)words + 4 * i, 4);
        for (int k = 0; k < 4; k++)
            bytes[4 * i + (size_t)k] = (unsigned char)(word >> 8 * k);
    }
    status = ptq_file_write(path, bytes, count * 4, &err);
    free(bytes);
    return status ? fail("%s", err.text) : 0;
}

static int run_images(const run_options *o, const engine *ready, const ptq_cifar10 *data) {
    ptq_dataset base = *ptq_cifar10_dataset(data), unlabelled = base;
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
    if (write_words(o->logits, result.logits, result.total * (size_t)result.classes)) {
        ptq_release(&result.memory);
        return 1;
    }
    say("%zu images x %d logits in %s\n", result.total, result.classes, o->logits);
    ptq_release(&result.memory);
    return 0;
}

/* ---- Codes ---- */

static int make_codes(ptq_session *session, const ptq_dataset *data, uint8_t *pixels,
                      int32_t *codes, size_t classes) {
    progress state = progress_start("codes");
    int label, status = 0;
    ptq_error err;

    for (size_t i = 0; i < data->count && !status; i++) {
        if (data->get(data->user, i, pixels, &label, &err) ||
            ptq_run_codes(session, pixels, 1, codes + i * classes, &err))
            status = fail("%s", err.text);
        progress_show(&state, i + 1, data->count);
    }
    progress_end(&state);
    return status;
}

static int run_codes(const run_options *o, const engine *ready, const ptq_cifar10 *opened) {
    ptq_dataset data = *ptq_cifar10_dataset(opened);
    size_t classes = (size_t)ptq_plan_get_info(ready->plan)->classes;
    int32_t *codes = malloc(data.count * classes * sizeof *codes);
    uint8_t *pixels = malloc(ptq_plan_get_info(ready->plan)->pixels);
    ptq_session *session = NULL;
    ptq_error err;
    int status = 0;

    if (!codes || !pixels)
        status = fail("no memory for the codes of %zu images", data.count);
    else if (ptq_session_create(ready->plan, NULL, &session, &err))
        status = fail("%s", err.text);
    if (!status)
        status = make_codes(session, &data, pixels, codes, classes) ||
                 write_words(o->codes, codes, data.count * classes);
    if (!status)
        say("%zu images x %zu codes in %s\n", data.count, classes, o->codes);
    ptq_session_free(session);
    free(pixels);
    free(codes);
    return status;
}

/* ---- One image ---- */

/* A session that keeps everything and has run the image. */
static int run_one(const run_options *o, const engine *ready, const ptq_cifar10 *opened,
                   ptq_session **out, float *logits, int *label) {
    ptq_dataset data = *ptq_cifar10_dataset(opened);
    ptq_session_options keep = {0};
    uint8_t *pixels = malloc(ptq_plan_get_info(ready->plan)->pixels);
    ptq_error err;
    int status = 0;

    keep.keep = 1;
    if (!pixels)
        status = fail("no memory for an image");
    else if (ptq_session_create(ready->plan, &keep, out, &err) ||
             data.get(data.user, (size_t)o->image, pixels, label, &err) ||
             ptq_run(*out, pixels, 1, logits, NULL, &err))
        status = fail("%s", err.text);
    free(pixels);
    return status;
}

/* "block1.conv2,3,4,5" */
static int read_element(const run_options *o, char name[PTQ_NAME_SIZE], int at[3]) {
    const char *comma = strchr(o->explain, ',');
    size_t length = comma ? (size_t)(comma - o->explain) : 0;
    char end;

    if (!comma || length == 0 || length >= PTQ_NAME_SIZE ||
        sscanf(comma, ",%9d,%9d,%9d%c", &at[0], &at[1], &at[2], &end) != 3)
        return fail("--explain must be NODE,Y,X,C, as in conv1,0,0,0, not '%s'", o->explain);
    memcpy(name, o->explain, length);
    name[length] = 0;
    return 0;
}

static int print_explanation(const run_options *o, const engine *ready, const ptq_session *session,
                             const char *name, const int at[3]) {
    char *text = NULL;
    ptq_error err;

    if (explain_element(ready->plan, session, name, at[0], at[1], at[2], &text, &err))
        return fail("%s; 'ptq info' lists the nodes", err.text);
    say("image %d of %s\n%s", o->image, o->images, text);
    free(text);
    return 0;
}

static int explain(const run_options *o, const engine *ready, const ptq_cifar10 *data) {
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
    say("image %d of %s\n%-12s %14s %14s %14s\n", o->image, o->images, "class", "model", "other",
        "difference");
    for (int c = 0; c < classes; c++)
        say("%-12s %14.7g %14.7g %14.7g%s%s%s\n", classes == set->classes ? set->class_name[c] : "",
            (double)one[c], (double)other[c], (double)one[c] - (double)other[c],
            c == ptq_argmax(one, classes) ? "  <- model" : "",
            c == ptq_argmax(other, classes) ? "  <- other" : "", c == label ? "  <- label" : "");
}

static int fill_sides(const run_options *o, const engine *ready, const engine *other,
                      const ptq_cifar10 *data, float *logits) {
    int classes = ptq_plan_get_info(ready->plan)->classes, label, status;
    ptq_session *one = NULL, *two = NULL;
    ptq_dataset set = *ptq_cifar10_dataset(data);

    status = run_one(o, ready, data, &one, logits, &label) ||
             run_one(o, other, data, &two, logits + classes, &label);
    if (!status)
        print_side(o, logits, logits + classes, classes, label, &set);
    ptq_session_free(one);
    ptq_session_free(two);
    return status;
}

static int show_beside(const run_options *o, const engine *ready, const ptq_cifar10 *data) {
    char path[PATH_SIZE];
    engine other;
    float *logits;
    int status;

    if (find_model_for(o->beside, o->images, path) || engine_open(path, !o->no_fuse, NULL, &other))
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

static int run_all(const run_options *o, const engine *ready, const ptq_cifar10 *data) {
    ptq_dataset set = *ptq_cifar10_dataset(data);

    if ((size_t)set.height * (size_t)set.width * (size_t)set.channels !=
        ptq_plan_get_info(ready->plan)->pixels)
        return fail("%s: its images have another size than the model's", o->images);
    if ((size_t)o->image >= set.count)
        return fail("%s has %zu images, counted from 0: there is no image %d", o->images, set.count,
                    o->image);
    return (o->logits && run_images(o, ready, data)) || (o->codes && run_codes(o, ready, data)) ||
           (o->tensors && write_tensors(ready, data, o->tensors)) ||
           (o->explain && explain(o, ready, data)) || (o->beside && show_beside(o, ready, data));
}

int command_run(int argc, char **argv) {
    run_options o = {0};
    int parsed = parse(argc, argv, &o);
    char model_path[PATH_SIZE];
    ptq_cifar10 *data = NULL;
    ptq_error err;
    engine ready;
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!o.images || (!o.logits && !o.codes && !o.tensors && !o.explain && !o.beside))
        return fail("--images, and what to do with them, such as --logits, are needed; see 'ptq "
                    "run --help'");
    if (o.threads == 0)
        o.threads = count_cores();
    if (find_model_for(o.model, o.images, model_path) ||
        engine_open(model_path, !o.no_fuse, NULL, &ready))
        return 1;
    if (engine_self_test(&ready))
        status = 1;
    else if (ptq_cifar10_open(o.images, PTQ_SPLIT_TEST, NULL, &data, &err))
        status = fail("%s", err.text);
    else
        status = run_all(&o, &ready, data);
    ptq_cifar10_free(data);
    engine_close(&ready);
    return status;
}
