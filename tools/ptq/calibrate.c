/* ptq calibrate: what values the tensors of a float model take on training images; merging and
   looking at calibrations. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/common.h"

#define COLUMNS 64 /* of the histogram */

static const char *model_option, *data_option, *output_option, *inspect_option, *json_option;
static int samples = 1000, seed = 42, threads, merge;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "float model file (.safetensors)", &model_option, NULL, NULL, 0},
    {"data", 'd', "DIR", "CIFAR-10's directory, or a .bin file", &data_option, NULL, NULL, 0},
    {"samples", 'n', "N", "training images, as many of each class (default 1000)", NULL, &samples,
     NULL, 1},
    {"seed", 's', "S", "which ones (default 42)", NULL, &seed, NULL, 0},
    {"threads", 't', "T", "threads (default: all cores)", NULL, &threads, NULL, 1},
    {"output", 'o', "FILE", "where to write the calibration (JSON)", &output_option, NULL, NULL, 0},
    {"merge", 0, NULL, "merge the calibrations named", NULL, NULL, &merge, 0},
    {"inspect", 0, "FILE", "show what a calibration holds", &inspect_option, NULL, NULL, 0},
    {"json", 0, "FILE", "with --inspect: write it as JSON (-: standard output)", &json_option, NULL,
     NULL, 0},
    {0}};

static const command_help help = {
    "calibrate [--model MODEL] [--data DIR] -o C.json [OPTIONS]\n"
    "       ptq calibrate --merge A.json B.json ... -o C.json\n"
    "       ptq calibrate --inspect C.json [--json FILE]",
    "Fuses a float model, runs it on training images and keeps the range and the histogram of "
    "every\n"
    "tensor. The same images give the same file, in whatever order, parts and threads.",
    "ptq calibrate --model resnet8.safetensors --data data/cifar-10-batches-bin -o cal.json"};

/* ---- Images ---- */

void sample_close(image_sample *drawn) {
    ptq_cifar10_free(drawn->data);
    free(drawn->indices);
    memset(drawn, 0, sizeof *drawn);
}

int sample_open(const char *data_path, int count, int draw, image_sample *out) {
    ptq_error err;

    memset(out, 0, sizeof *out);
    if (ptq_cifar10_open(data_path, PTQ_SPLIT_TRAIN, NULL, &out->data, &err))
        return fail("%s", err.text);
    out->indices = malloc((size_t)count * sizeof *out->indices);
    if (!out->indices) {
        sample_close(out);
        return fail("no memory for %d images; choose a smaller --samples", count);
    }
    if (ptq_sample(ptq_cifar10_dataset(out->data), (size_t)count, (uint64_t)draw, out->indices,
                   NULL, &err) ||
        ptq_subset_open(&out->subset, ptq_cifar10_dataset(out->data), out->indices, (size_t)count,
                        &err)) {
        sample_close(out);
        return fail("%s", err.text);
    }
    return 0;
}

/* Directory of a path, which may be one itself. */
static void beside(const char *path, const char *name, char out[PATH_SIZE]) {
    struct stat status;
    const char *slash = strrchr(path, '/');

    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        snprintf(out, PATH_SIZE, "%.*s/%s", PATH_SIZE - 32, path, name);
    else if (slash)
        snprintf(out, PATH_SIZE, "%.*s/%s", (int)(slash - path), path, name);
    else
        snprintf(out, PATH_SIZE, "%s", name);
}

int open_test_set(const char *data_path, ptq_cifar10 **out) {
    char path[PATH_SIZE];
    ptq_error err;

    *out = NULL;
    beside(data_path, "test_batch.bin", path);
    if (!file_size(path))
        return 0;
    return ptq_cifar10_open(path, PTQ_SPLIT_TEST, NULL, out, &err) ? fail("%s", err.text) : 0;
}

int refuse_overlap(const ptq_calibration *calibration, const ptq_dataset *data) {
    size_t found = 0;
    ptq_error err;

    if (ptq_calibration_overlap(calibration, data, &found, &err))
        return fail("%s", err.text);
    if (!found)
        return 0;
    return fail("%zu of the %zu test images were calibrated on, so that their accuracy would say "
                "nothing; calibrate on training images alone",
                found, data->count);
}

/* ---- Calibrating ---- */

/* The warnings, to be freed; NULL without memory. */
static char *get_warnings(const ptq_calibration *calibration) {
    size_t length = ptq_calibration_warnings(calibration, NULL, 0);
    char *text = malloc(length + 1);

    if (text)
        ptq_calibration_warnings(calibration, text, length + 1);
    return text;
}

void print_warnings(const ptq_calibration *calibration) {
    char *text = get_warnings(calibration);

    for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n"))
        warn("%s", line);
    free(text);
}

int calibrate_on(const ptq_plan *plan, const image_sample *drawn, int team, ptq_calibration **out) {
    ptq_calibrate_options options = {0};
    progress state = progress_start("calibrate");
    ptq_status status;
    ptq_error err;

    options.work.threads = team;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = ptq_calibrate(plan, &drawn->subset.dataset, &options, out, &err);
    progress_end(&state);
    return status ? fail("%s", err.text) : 0;
}

static int refuse_test_images(const ptq_calibration *calibration, const char *data_path) {
    ptq_cifar10 *test;
    int status = open_test_set(data_path, &test);

    if (!status && test)
        status = refuse_overlap(calibration, ptq_cifar10_dataset(test));
    ptq_cifar10_free(test);
    return status;
}

static int save(const ptq_calibration *calibration) {
    ptq_error err;

    print_warnings(calibration);
    if (ptq_calibration_save(calibration, output_option, &err))
        return fail("%s", err.text);
    say("%zu images, %d tensors in %s\n", calibration->images, calibration->tensors, output_option);
    return 0;
}

static int calibrate(void) {
    char model_path[PATH_SIZE], data_path[PATH_SIZE];
    ptq_calibration *calibration = NULL;
    engine ready = {0};
    image_sample drawn = {0};
    int status;

    if (find_data(data_option, data_path) || find_model_for(model_option, data_path, model_path) ||
        check_output(output_option, model_path))
        return 1;
    status = engine_open(model_path, 1, NULL, &ready) ||
             sample_open(data_path, samples, seed, &drawn) ||
             calibrate_on(ready.plan, &drawn, threads ? threads : count_cores(), &calibration) ||
             refuse_test_images(calibration, data_path) || save(calibration);
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

static int merge_files(char **paths) {
    ptq_calibration *calibration = NULL;
    ptq_error err;
    int status = 0;

    if (!paths[0] || !paths[1])
        return fail("--merge needs at least two calibrations; see 'ptq calibrate --help'");
    if (check_output(output_option, NULL))
        return 1;
    if (ptq_calibration_load(paths[0], NULL, &calibration, &err))
        return fail("%s", err.text);
    for (int i = 1; paths[i] && !status; i++)
        status = merge_into(calibration, paths[i]);
    if (!status)
        status = save(calibration);
    ptq_calibration_free(calibration);
    return status;
}

/* ---- Inspecting ---- */

/* The bins from the smallest to the largest value, gathered into columns. */
static void gather_columns(const ptq_statistics *seen, uint64_t column[COLUMNS]) {
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
    static const char ink[] = " .:-=+*#%@";
    uint64_t most = 1;

    for (int i = 0; i < COLUMNS; i++)
        most = column[i] > most ? column[i] : most;
    for (int i = 0; i < COLUMNS; i++) {
        double height = log1p((double)column[i]) / log1p((double)most);

        line[i] = ink[column[i] ? 1 + (int)(height * 8) : 0];
    }
    line[COLUMNS] = 0;
}

typedef struct rule_range {
    float low, high;
    double clipped;
} rule_range;

static int find_range(const ptq_calibrated *tensor, ptq_method rule, rule_range *out) {
    ptq_error err;

    if (ptq_observer_range(&tensor->observer, 0, rule, 0, PTQ_TYPE_U8, 8, 0, &out->low, &out->high,
                           &err))
        return fail("tensor %s: %s", tensor->name, err.text);
    out->clipped = ptq_observer_clipped(&tensor->observer, 0, out->low, out->high);
    return 0;
}

static int print_tensor(const ptq_calibrated *tensor) {
    const ptq_statistics *seen = &tensor->observer.channel[0];
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
        say("  %-10s %12.6g .. %-12.6g clips %.4f %%\n", ptq_name(PTQ_NAMES_METHOD, (unsigned)rule),
            (double)range.low, (double)range.high, 100 * range.clipped);
    }
    return 0;
}

static int print_calibration(const ptq_calibration *calibration) {
    char *text = get_warnings(calibration);

    say("%s\n%zu images of %d classes, %d tensors, model %016llx\n%s", inspect_option,
        calibration->images, calibration->classes, calibration->tensors,
        (unsigned long long)calibration->model, text ? text : "");
    free(text);
    say("Ranges are those of 8 bits; 'average' is the mean of each image's smallest and largest\n"
        "value. Histograms go from the smallest to the largest value, exact zeros aside; darker\n"
        "means more values, on a logarithmic scale.\n");
    for (int i = 0; i < calibration->tensors; i++)
        if (print_tensor(&calibration->tensor[i]))
            return 1;
    return 0;
}

#ifdef PTQ_HAVE_jansson

json_t *json_warnings(const ptq_calibration *calibration) {
    json_t *list = json_array();
    char *text = get_warnings(calibration);

    for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n"))
        json_array_append_new(list, json_string(line));
    free(text);
    return list;
}

static json_t *histogram_json(const ptq_statistics *seen) {
    uint64_t column[COLUMNS];
    json_t *list = json_array();

    gather_columns(seen, column);
    for (int i = 0; i < COLUMNS; i++)
        json_array_append_new(list, json_integer((json_int_t)column[i]));
    return list;
}

static json_t *tensor_json(const ptq_calibrated *tensor) {
    const ptq_statistics *seen = &tensor->observer.channel[0];
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

static int write_json(const ptq_calibration *calibration) {
    json_t *root = json_object(), *classes = json_array(), *tensors = json_array();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "calibration_path", json_string(inspect_option));
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

static int write_json(const ptq_calibration *calibration) {
    (void)calibration;
    return 1;
}

#endif

static int inspect(void) {
    ptq_calibration *calibration = NULL;
    ptq_error err;
    int status;

    if (ptq_calibration_load(inspect_option, NULL, &calibration, &err))
        return fail("%s", err.text);
    status = print_calibration(calibration);
    if (!status && json_option)
        status = write_json(calibration);
    ptq_calibration_free(calibration);
    return status;
}

static int choose(char **paths) {
    if (inspect_option && (merge || output_option))
        return fail("--inspect only shows a calibration; leave out --merge and -o");
    if (json_option && !inspect_option)
        return fail("--json goes with --inspect; the calibration itself is JSON");
    if (!merge && paths[0])
        return fail("unexpected argument '%s'; see 'ptq calibrate --help'", paths[0]);
    if (inspect_option)
        return json_setup(json_option) || inspect();
    if (!output_option)
        return fail("-o FILE is needed; see 'ptq calibrate --help'");
    return merge ? merge_files(paths) : calibrate();
}

int command_calibrate(int argc, char **argv) {
    char **paths = calloc((size_t)argc + 1, sizeof *paths);
    int parsed, status;

    if (!paths)
        return fail("no memory");
    parsed = parse_options(argc, argv, specs, &help, paths, argc);
    status = parsed ? parsed == OPTIONS_BAD : choose(paths);
    free(paths);
    return status;
}
