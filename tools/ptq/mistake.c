/* ptq mistake: commits a classic mistake on purpose, measures what it costs beside the right way,
   and shows what catches it. The library refuses or warns where it can, so that most mistakes have
   to get around it here. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "data/calibration.h"
#include "data/dataset.h"
#include "data/find.h"
#include "data/images.h"
#include "measure/accuracy.h"
#include "mistakes/mistake.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/options.h"
#include "shared/output.h"

typedef struct mistake_options {
    data_options data;
    const char *model;
    int samples, seed, limit, weight_bits, activation_bits, list;
} mistake_options;

static const command_help help = {
    "mistake NAME [--model MODEL] [--data PATH] [OPTIONS]\n"
    "       ptq mistake --list",
    "For learning: commits a classic mistake of quantization on purpose, measures it beside the\n"
    "right way on the same test images, and shows the guard that catches it. Scheme: a weight\n"
    "scale for each channel, u8 activations, MinMax, rounding to nearest. Writes no file.",
    "ptq mistake few-images --model resnet8.safetensors --data pictures"};

static int parse(int argc, char **argv, mistake_options *o, char **name) {
    const option_spec specs[] = {
        {"list", 0, NULL, "name the mistakes", .flag = &o->list},
        OPTION_FLOAT_MODEL(o->model),
        DATA_OPTIONS(&o->data),
        {"samples", 'n', "N", "training images to calibrate on (default 100)",
         .number = &o->samples, .least = 1},
        {"seed", 's', "S", "which ones (default 42)", .number = &o->seed},
        {"limit", 0, "N", "test images to measure on (default 500)", .number = &o->limit,
         .least = 1},
        {"weight-bits", 0, "B", "2 to 8 (default 8)", .number = &o->weight_bits, .least = 2},
        {"activation-bits", 0, "B", "2 to 8 (default 8)", .number = &o->activation_bits,
         .least = 2},
        {0}};

    return parse_options(argc, argv, specs, &help, name, 1);
}

static const mistake mistakes[] = {
    {"random-calibration", "calibrate on random or constant pictures", mistake_random, NULL},
    {"few-images", "calibrate on one picture, or a few", mistake_few, NULL},
    {"other-preprocessing", "prepare pixels in another way than in training", mistake_preprocessing,
     NULL},
    {"no-fusion", "quantize between convolution and batch norm", mistake_unfused, NULL},
    {"training-batch-norm", "normalize by the batch at hand, as in training", mistake_training,
     check_batch_norm},
    {"relu-range", "observe a tensor before its ReLU instead of after it", mistake_relu, NULL},
    {"saturating-kernel", "sum pairs of products in 16 bits that saturate", mistake_saturation,
     check_layers},
    {"lost-scale", "save scales for less than they are", mistake_scale, NULL},
    {"comparing-runs", "compare accuracies that were measured on different pictures", mistake_runs,
     check_parts},
};

enum { MISTAKES = sizeof mistakes / sizeof *mistakes };

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

static int open_images(const mistake_options *o, lab *at) {
    if (sample_open(&at->from, at->real.plan, at->samples, at->seed, &at->drawn) ||
        data_open(&at->from, PTQ_SPLIT_TEST, at->real.plan, &at->test))
        return 1;
    if (!data_is_labelled(at->test))
        return fail("%s has no labels, by which mistakes are measured", at->from.path);
    at->images = *data_view(at->test);
    if (at->images.type != PTQ_TYPE_U8)
        return fail("the mistakes are made with pixels, and %s holds real numbers", at->from.path);
    if (at->images.count > (size_t)o->limit)
        at->images.count = (size_t)o->limit;
    return 0;
}

/* What is right, for comparison. */
static int prepare(const mistake_options *o, lab *at) {
    ptq_error err;

    at->samples = o->samples;
    at->seed = o->seed;
    if (ptq_preset("minmax8", &at->scheme, &err))
        return fail("%s", err.text);
    at->scheme.weight_bits = o->weight_bits ? o->weight_bits : 8;
    at->scheme.activation_bits = o->activation_bits;
    if (ptq_scheme_check(&at->scheme, &err))
        return fail("%s", err.text);
    return data_find(&o->data, &at->from) ||
           find_model_for(o->model, at->from.path, at->model_path) || open_models(at) ||
           open_images(o, at) ||
           calibrate_any(at->real.model, &at->drawn.subset.dataset, 0, &at->calibration) ||
           refuse_overlap(at->calibration, &at->images) ||
           convert_lab(at, at->calibration, &at->scheme, &at->quantized) ||
           evaluate_plan(at->real.plan, &at->images, "float", 0, &at->before);
}

static void clean_up(lab *at) {
    ptq_release(&at->before.memory);
    ptq_model_free(at->quantized);
    ptq_calibration_free(at->calibration);
    data_close(at->test);
    sample_close(&at->drawn);
    engine_close(&at->real);
    ptq_model_free(at->original);
}

static int commit(const mistake_options *o, const mistake *wanted) {
    lab at = {0};
    char scheme[256];
    int status = prepare(o, &at) || (wanted->check && wanted->check(&at));

    if (!status) {
        ptq_scheme_write(&at.scheme, scheme, sizeof scheme);
        say("mistake   %s: %s\nscheme    %s; calibrated on %d images\n\n", wanted->name,
            wanted->about, scheme, at.samples);
        say("%-42s %11s %8s %6s %8s\n", "", "right", "accuracy", "points", "agree");
        status = wanted->commit(&at);
    }
    clean_up(&at);
    return status;
}

int command_mistake(int argc, char **argv) {
    mistake_options o = {.samples = 100, .seed = 42, .limit = 500};
    const mistake *wanted;
    char *name = NULL;
    int parsed = parse(argc, argv, &o, &name);

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_BAD;
    if (o.list) {
        print_list();
        return 0;
    }
    if (!name)
        return misuse("which mistake? 'ptq mistake --list' names them");
    wanted = find_mistake(name);
    return wanted ? commit(&o, wanted)
                  : misuse("there is no mistake '%s'; 'ptq mistake --list' names them", name);
}
