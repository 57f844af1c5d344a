/* ptq calibrate: what values the tensors of a float model take on training images; merging and
   looking at calibrations. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "data/calibration.h"
#include "data/dataset.h"
#include "data/find.h"
#include "data/images.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/suggest.h"

#define COLUMNS 64 /* of the histogram */

typedef struct calibrate_options {
    data_options data;
    const char *model, *output, *inspected, *json, *tensor;
    int samples, seed, threads, merge;
} calibrate_options;

static const command_help help = {
    "calibrate [--model MODEL] [--data PATH] -o C.json [OPTIONS]\n"
    "       ptq calibrate --merge A.json B.json ... -o C.json\n"
    "       ptq calibrate --inspect C.json [--json FILE]",
    "Fuses a float model, runs it on training images and keeps the range and the histogram of "
    "every\n"
    "tensor. The same images give the same file, in whatever order, parts and threads.",
    "ptq calibrate --model resnet8.safetensors --data pictures -o cal.json"};

static int parse(int argc, char **argv, calibrate_options *o, char **paths) {
    const option_spec specs[] = {
        OPTION_FLOAT_MODEL(o->model),
        DATA_OPTIONS(&o->data),
        DATA_LIMIT_OPTION(&o->data),
        {"samples", 'n', "N", "training images, equally many of each class (default 1000, or all)",
         .number = &o->samples, .least = 1},
        {"seed", 's', "S", "which ones (default 42)", .number = &o->seed},
        {"threads", 't', "T", "threads (default: all cores)", .number = &o->threads, .least = 1},
        {"output", 'o', "FILE", "where to write the calibration (JSON)", .text = &o->output,
         .file = WRITTEN_FILE},
        {"merge", 0, NULL, "merge the calibrations named", .flag = &o->merge},
        {"inspect", 0, "FILE", "show what a calibration holds", .text = &o->inspected,
         .file = READ_FILE},
        {"tensor", 0, "NAME", "with --inspect: only this tensor", .text = &o->tensor},
        {"json", 0, "FILE", "with --inspect: write it as JSON (-: standard output)",
         .text = &o->json, .file = WRITTEN_FILE},
        {0}};

    return parse_options(argc, argv, specs, &help, paths, argc);
}

/* ---- Calibrating ---- */

static int refuse_test_images(const ptq_calibration *calibration, const ptq_plan *plan,
                              const data_request *from) {
    data_set *test;
    int status = data_open_test(from, plan, &test);

    if (!status && test)
        status = refuse_overlap(calibration, data_view(test));
    data_close(test);
    return status;
}

static int save(const calibrate_options *o, const ptq_calibration *calibration) {
    ptq_error err;

    print_warnings(calibration);
    if (ptq_calibration_save(calibration, o->output, &err))
        return fail("%s", err.text);
    say_written(o->output, "%zu images, %d tensors", calibration->images, calibration->tensors);
    return 0;
}

static int calibrate(const calibrate_options *o) {
    char model_path[PATH_SIZE];
    data_request from;
    ptq_calibration *calibration = NULL;
    engine ready = {0};
    image_sample drawn = {0};
    int status;

    if (data_find(&o->data, &from) || find_model_for(o->model, from.path, model_path) ||
        check_output(o->output))
        return 1;
    status =
        engine_open(model_path, 1, NULL, &ready) ||
        sample_open(&from, ready.plan, o->samples, o->seed, &drawn) ||
        calibrate_on(ready.plan, &drawn, o->threads ? o->threads : count_cores(), &calibration) ||
        refuse_test_images(calibration, ready.plan, &from) || save(o, calibration);
    ptq_calibration_free(calibration);
    sample_close(&drawn);
    engine_close(&ready);
    return status;
}

/* ---- Merging ---- */

static int merge_into(ptq_calibration *calibration, const char *path) {
    ptq_calibration *other = NULL;
    ptq_error err;
    ptq_status status = ptq_calibration_load(path, NULL, &other, &err);

    if (status)
        return fail("%s", err.text);
    status = ptq_calibration_merge(calibration, other, &err);
    ptq_calibration_free(other);
    return status ? fail("%s: %s", path, err.text) : 0;
}

static int merge_files(const calibrate_options *o, char **paths) {
    ptq_calibration *calibration = NULL;
    ptq_error err;
    int status = 0;

    if (!paths[0] || !paths[1])
        return misuse("--merge needs at least two calibrations; see 'ptq calibrate --help'");
    if (check_output(o->output))
        return 1;
    if (ptq_calibration_load(paths[0], NULL, &calibration, &err))
        return fail("%s", err.text);
    for (int i = 1; paths[i] && !status; i++)
        status = merge_into(calibration, paths[i]);
    if (!status)
        status = save(o, calibration);
    ptq_calibration_free(calibration);
    return status;
}

/* ---- Inspecting ---- */

/* The bins from the smallest to the largest value, gathered into columns. */
static void gather_columns(const ptq_observer *seen, uint64_t column[COLUMNS]) {
    double width = ldexp(1, seen->exponent), low = (double)seen->min, high = (double)seen->max;

    memset(column, 0, COLUMNS * sizeof *column);
    for (int b = 0; b < PTQ_BINS; b++) {
        double middle = (b - PTQ_BINS / 2 + 0.5) * width;
        double at = high > low ? (middle - low) / (high - low) * COLUMNS : 0;

        column[at < 0 ? 0 : at > COLUMNS - 1 ? COLUMNS - 1 : (int)at] += seen->bin[b];
    }
}

/* A column's height is the logarithm of its count. */
static void draw_columns(const uint64_t column[COLUMNS], char line[COLUMNS + 1]) {
    static const char shades[] = " .:-=+*#%@";
    uint64_t most = 1;

    for (int i = 0; i < COLUMNS; i++)
        most = column[i] > most ? column[i] : most;
    for (int i = 0; i < COLUMNS; i++) {
        double height = log1p((double)column[i]) / log1p((double)most);

        line[i] = shades[column[i] ? 1 + (int)(height * 8) : 0];
    }
    line[COLUMNS] = 0;
}

typedef struct rule_range {
    float low, high;
    double clipped;
} rule_range;

static int find_range(const ptq_calibrated *tensor, ptq_method rule, rule_range *out) {
    ptq_error err;

    if (ptq_observer_range(&tensor->observer, rule, 0, PTQ_TYPE_U8, 8, 0, &out->low, &out->high,
                           &err))
        return fail("tensor %s: %s", tensor->name, err.text);
    out->clipped = ptq_observer_clipped(&tensor->observer, out->low, out->high);
    return 0;
}

static int print_tensor(const ptq_calibrated *tensor) {
    const ptq_observer *seen = &tensor->observer;
    uint64_t column[COLUMNS];
    char line[COLUMNS + 1];
    rule_range range;

    gather_columns(seen, column);
    draw_columns(column, line);
    say("\n%s: %llu values, %.2f %% zeros, range %.6g .. %.6g\n", tensor->name,
        (unsigned long long)seen->count,
        100 * (seen->count ? (double)seen->zeros / (double)seen->count : 0), (double)seen->min,
        (double)seen->max);
    say("  [%s]\n", line);
    for (int rule = 0; rule < PTQ_METHOD_COUNT; rule++) {
        if (find_range(tensor, (ptq_method)rule, &range))
            return 1;
        say("  %-17s %12.6g .. %-12.6g clips %.4f %%\n", ptq_name(PTQ_NAMES_METHOD, (unsigned)rule),
            (double)range.low, (double)range.high, 100 * range.clipped);
    }
    return 0;
}

static int print_one(const calibrate_options *o, const ptq_calibration *calibration) {
    suggestion near = {o->tensor, NULL, 0};
    char text[SUGGESTION_SIZE];

    for (int i = 0; i < calibration->tensors; i++) {
        if (strcmp(calibration->tensor[i].name, o->tensor) == 0)
            return print_tensor(&calibration->tensor[i]);
        suggest(&near, calibration->tensor[i].name);
    }
    return fail("%s has no tensor '%s'%s", o->inspected, o->tensor,
                suggestion_text(&near, "", text));
}

static int print_calibration(const calibrate_options *o, const ptq_calibration *calibration) {
    char *text = calibration_warnings(calibration);

    say("%s\n%zu images of %d classes, %d tensors, model %016llx\n%s", o->inspected,
        calibration->images, calibration->classes, calibration->tensors,
        (unsigned long long)calibration->model, text ? text : "");
    free(text);
    say_wrapped(0, "Ranges are those of 8 bits; 'average' is the mean of each image's smallest and "
                   "largest value. Histograms go from the smallest to the largest value, exact "
                   "zeros aside; darker means more values, on a logarithmic scale.");
    for (int i = 0; i < calibration->tensors; i++)
        if (!o->tensor && print_tensor(&calibration->tensor[i]))
            return 1;
    return o->tensor ? print_one(o, calibration) : 0;
}

#ifdef PTQ_HAVE_jansson

static json_t *histogram_json(const ptq_observer *seen) {
    uint64_t column[COLUMNS];
    json_t *list = json_array();

    gather_columns(seen, column);
    for (int i = 0; i < COLUMNS; i++)
        json_array_append_new(list, json_integer((json_int_t)column[i]));
    return list;
}

static json_t *tensor_json(const ptq_calibrated *tensor) {
    const ptq_observer *seen = &tensor->observer;
    json_t *made = json_object(), *rules = json_object();
    rule_range range = {0};

    json_object_set_new(made, "name", json_string(tensor->name));
    json_set_count(made, "count", seen->count);
    json_set_count(made, "zeros", seen->zeros);
    json_object_set_new(made, "min", json_real((double)seen->min));
    json_object_set_new(made, "max", json_real((double)seen->max));
    for (int rule = 0; rule < PTQ_METHOD_COUNT; rule++)
        if (!find_range(tensor, (ptq_method)rule, &range))
            json_object_set_new(rules, ptq_name(PTQ_NAMES_METHOD, (unsigned)rule),
                                json_pack("{s:f,s:f,s:f}", "low", (double)range.low, "high",
                                          (double)range.high, "clipped", range.clipped));
    json_object_set_new(made, "ranges", rules);
    json_object_set_new(made, "histogram", histogram_json(seen));
    return made;
}

static int write_json(const calibrate_options *o, const ptq_calibration *calibration) {
    json_t *root = json_object(), *classes = json_array(), *tensors = json_array();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "calibration_path", json_string(o->inspected));
    json_object_set_new(root, "model",
                        json_sprintf("%016llx", (unsigned long long)calibration->model));
    json_set_count(root, "images", calibration->images);
    for (int c = 0; c < calibration->classes; c++)
        json_array_append_new(classes, json_integer((json_int_t)calibration->class_count[c]));
    json_object_set_new(root, "class_count", classes);
    json_object_set_new(root, "warnings", json_warnings(calibration));
    for (int i = 0; i < calibration->tensors; i++)
        json_array_append_new(tensors, tensor_json(&calibration->tensor[i]));
    json_object_set_new(root, "tensors", tensors);
    return json_finish(root);
}

#else

static int write_json(const calibrate_options *o, const ptq_calibration *calibration) {
    (void)calibration;
    return 1;
}

#endif

static int inspect(const calibrate_options *o) {
    ptq_calibration *calibration = NULL;
    ptq_error err;
    int status;

    if (ptq_calibration_load(o->inspected, NULL, &calibration, &err))
        return fail("%s", err.text);
    status = print_calibration(o, calibration);
    if (!status && o->json)
        status = write_json(o, calibration);
    ptq_calibration_free(calibration);
    return status;
}

static int choose(const calibrate_options *o, char **paths) {
    if (o->inspected && (o->merge || o->output))
        return misuse("--inspect only shows a calibration; leave out --merge and -o");
    if (o->tensor && !o->inspected)
        return misuse("--tensor goes with --inspect");
    if (o->json && !o->inspected)
        return misuse("--json goes with --inspect; the calibration itself is JSON");
    if (!o->merge && paths[0])
        return misuse("unexpected argument '%s'; see 'ptq calibrate --help'", paths[0]);
    if (o->inspected)
        return json_setup(o->json) || inspect(o);
    if (!o->output)
        return misuse("-o FILE is needed; see 'ptq calibrate --help'");
    return o->merge ? merge_files(o, paths) : calibrate(o);
}

int command_calibrate(int argc, char **argv) {
    calibrate_options o = {.seed = 42};
    char **paths = calloc((size_t)argc + 1, sizeof *paths);
    int parsed, status;

    if (!paths)
        return fail("no memory");
    parsed = parse(argc, argv, &o, paths);
    status = parsed ? parsed == OPTIONS_BAD : choose(&o, paths);
    free(paths);
    return status;
}
