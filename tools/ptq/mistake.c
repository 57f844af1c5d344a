/* ptq mistake: commits a classic mistake on purpose, measures what it costs beside the right way,
   and shows what catches it. The library refuses or warns where it can, so that most mistakes have
   to get around it here. */
#include <stdlib.h>
#include <string.h>

#include "mistakes/mistake.h"

static const char *model_option, *data_option;
static int samples = 100, seed = 42, limit = 500, weight_bits, activation_bits, list;

static const option_spec specs[] = {
    {"list", 0, NULL, "name the mistakes", NULL, NULL, &list, 0},
    {"model", 'm', "MODEL", "float model file (.safetensors)", &model_option, NULL, NULL, 0},
    {"data", 'd', "DIR", "CIFAR-10's directory", &data_option, NULL, NULL, 0},
    {"samples", 'n', "N", "training images to calibrate on (default 100)", NULL, &samples, NULL, 1},
    {"seed", 's', "S", "which ones (default 42)", NULL, &seed, NULL, 0},
    {"limit", 0, "N", "test images to measure on (default 500)", NULL, &limit, NULL, 1},
    {"weight-bits", 0, "B", "2 to 8 (default 8)", NULL, &weight_bits, NULL, 2},
    {"activation-bits", 0, "B", "2 to 8 (default 8)", NULL, &activation_bits, NULL, 2},
    {0}};

static const command_help help = {
    "mistake NAME [--model MODEL] [--data DIR] [OPTIONS]\n"
    "       ptq mistake --list",
    "For learning: commits a classic mistake of quantization on purpose, measures it beside the\n"
    "right way on the same test images, and shows the guard that catches it. Scheme: a weight\n"
    "scale for each channel, u8 activations, MinMax, rounding to nearest. Writes no file.",
    "ptq mistake few-images --model resnet8.safetensors --data data/cifar-10-batches-bin"};

static const mistake mistakes[] = {
    {"random-calibration", "calibrate on random or constant pictures", mistake_random, NULL},
    {"few-images", "calibrate on one picture, or a few", mistake_few, NULL},
    {"other-preprocessing", "prepare pixels in another way than in training", mistake_preprocessing,
     NULL},
    {"no-fusion", "quantize between convolution and batch norm", mistake_unfused, NULL},
    {"training-batch-norm", "normalize by the batch at hand, as in training", mistake_training,
     check_batch_norm},
    {"relu-range", "observe a tensor before its ReLU instead of behind it", mistake_relu, NULL},
    {"saturating-kernel", "sum pairs of products in 16 bits that saturate", mistake_saturation,
     check_layers},
    {"lost-scale", "save scales for less than they are", mistake_scale, NULL},
    {"comparing-runs", "compare accuracies that were measured on different pictures", mistake_runs,
     check_parts},
};

enum { MISTAKES = sizeof mistakes / sizeof *mistakes };

/* ---- Measuring ---- */

void count_answer(tally *sum, const lab *at, size_t index, int prediction) {
    sum->total++;
    sum->right += prediction == at->before.label[index];
    sum->agree += prediction == at->before.prediction[index];
}

/* Adding 0 turns -0 into 0. */
void print_row(const char *how, const lab *at, const tally *sum) {
    size_t before = 0;

    for (size_t i = 0; i < sum->total; i++)
        before += at->before.prediction[i] == at->before.label[i];
    say("%-42s %4zu of %zu  %6.2f %%  %+7.2f  %7.2f %%\n", how, sum->right, sum->total,
        100 * fraction(sum->right, sum->total),
        100 * ((double)sum->right - (double)before) / (double)sum->total + 0.0,
        100 * fraction(sum->agree, sum->total));
}

int make_plan(const ptq_model *model, ptq_plan **out) {
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_error err;

    if (choose_isa(NULL, &options.isa))
        return 1;
    return ptq_plan_create(model, &options, out, &err) ? fail("%s", err.text) : 0;
}

int measure_plan(const char *how, const lab *at, const ptq_plan *plan, const ptq_dataset *images) {
    ptq_evaluation result;
    tally sum = {0};

    if (evaluate_plan(plan, images, how, 0, &result))
        return 1;
    for (size_t i = 0; i < result.total; i++)
        count_answer(&sum, at, i, result.prediction[i]);
    print_row(how, at, &sum);
    ptq_release(&result.memory);
    return 0;
}

int measure_model(const char *how, const lab *at, const ptq_model *model,
                  const ptq_dataset *images) {
    ptq_plan *plan = NULL;
    int status = make_plan(model, &plan) || measure_plan(how, at, plan, images);

    ptq_plan_free(plan);
    return status;
}

int calibrate_any(const ptq_model *model, const ptq_dataset *images, int accept_any,
                  ptq_calibration **out) {
    ptq_plan_options scalar = {PTQ_ISA_SCALAR, {NULL, NULL, NULL}};
    ptq_calibrate_options options = {0};
    ptq_plan *plan = NULL;
    ptq_status status;
    ptq_error err;

    options.work.threads = count_cores();
    options.accept_any = accept_any;
    status = ptq_plan_create(model, &scalar, &plan, &err);
    if (!status)
        status = ptq_calibrate(plan, images, &options, out, &err);
    ptq_plan_free(plan);
    return status ? fail("%s", err.text) : 0;
}

static int convert(const lab *at, const ptq_calibration *calibration, const ptq_scheme *scheme,
                   ptq_model **out) {
    ptq_convert_options options = {0};
    ptq_error err;

    options.scheme = *scheme;
    return ptq_convert(at->real.model, calibration, &options, out, NULL, &err)
               ? fail("%s", err.text)
               : 0;
}

int measure_calibration(const char *how, const lab *at, const ptq_calibration *calibration,
                        const ptq_scheme *scheme) {
    ptq_model *made = NULL;
    int status =
        convert(at, calibration, scheme, &made) || measure_model(how, at, made, &at->images);

    ptq_model_free(made);
    return status;
}

void print_guard(const char *where, const char *words) {
    say("guard     %s: \"%s\"\n", where, words);
}

void print_warning_guards(const ptq_calibration *calibration) {
    char text[1024];

    ptq_calibration_warnings(calibration, text, sizeof text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        print_guard("ptq_calibration_warnings", line);
}

/* ---- The subcommand ---- */

static void print_list(void) {
    for (size_t i = 0; i < MISTAKES; i++)
        say("%-20s %s\n", mistakes[i].name, mistakes[i].about);
}

static const mistake *find_mistake(const char *name) {
    for (size_t i = 0; i < MISTAKES; i++)
        if (strcmp(mistakes[i].name, name) == 0)
            return &mistakes[i];
    return NULL;
}

static int open_models(lab *at) {
    ptq_model *fused = NULL;
    ptq_error err;

    if (ptq_model_load(at->model_path, NULL, &at->original, &err) ||
        ptq_fuse(at->original, &fused, NULL, &err))
        return fail("%s", err.text);
    return engine_adopt(fused, NULL, &at->real);
}

static int open_images(lab *at) {
    ptq_error err;

    if (sample_open(at->data_path, at->samples, at->seed, &at->drawn))
        return 1;
    if (ptq_cifar10_open(at->data_path, PTQ_SPLIT_TEST, NULL, &at->test, &err))
        return fail("%s", err.text);
    at->images = *ptq_cifar10_dataset(at->test);
    if (at->images.count > (size_t)limit)
        at->images.count = (size_t)limit;
    return 0;
}

/* What is right, for comparison. */
static int prepare(lab *at) {
    ptq_error err;

    at->samples = samples;
    at->seed = seed;
    if (ptq_preset("minmax8", &at->scheme, &err))
        return fail("%s", err.text);
    at->scheme.weight_bits = weight_bits ? weight_bits : 8;
    at->scheme.activation_bits = activation_bits;
    if (ptq_scheme_check(&at->scheme, &err))
        return fail("%s", err.text);
    return find_data(data_option, at->data_path) ||
           find_model_for(model_option, at->data_path, at->model_path) || open_models(at) ||
           open_images(at) ||
           calibrate_any(at->real.model, &at->drawn.subset.dataset, 0, &at->calibration) ||
           refuse_overlap(at->calibration, &at->images) ||
           convert(at, at->calibration, &at->scheme, &at->quantized) ||
           evaluate_plan(at->real.plan, &at->images, "float", 0, &at->before);
}

static void clean_up(lab *at) {
    ptq_release(&at->before.memory);
    ptq_model_free(at->quantized);
    ptq_calibration_free(at->calibration);
    ptq_cifar10_free(at->test);
    sample_close(&at->drawn);
    engine_close(&at->real);
    ptq_model_free(at->original);
}

static int commit(const mistake *wanted) {
    static lab at;
    char scheme[256];
    int status = prepare(&at) || (wanted->check && wanted->check(&at));

    if (!status) {
        ptq_scheme_write(&at.scheme, scheme, sizeof scheme);
        say("mistake   %s: %s\nscheme    %s; calibrated on %d images\n\n", wanted->name,
            wanted->about, scheme, at.samples);
        say("%-42s %11s  %8s  %7s  %9s\n", "", "right", "accuracy", "points", "agreement");
        status = wanted->commit(&at);
    }
    clean_up(&at);
    return status;
}

int command_mistake(int argc, char **argv) {
    const mistake *wanted;
    char *name = NULL;
    int parsed = parse_options(argc, argv, specs, &help, &name, 1);

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_BAD;
    if (list) {
        print_list();
        return 0;
    }
    if (!name)
        return fail("which mistake? 'ptq mistake --list' names them");
    wanted = find_mistake(name);
    return wanted ? commit(wanted)
                  : fail("there is no mistake '%s'; 'ptq mistake --list' names them", name);
}
