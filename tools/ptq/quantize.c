/* ptq quantize: fuses, calibrates and converts in one go, and measures what came out. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "data/calibration.h"
#include "data/dataset.h"
#include "data/find.h"
#include "data/images.h"
#include "measure/accuracy.h"
#include "measure/meaning.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/islands.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/pixels.h"
#include "shared/progress.h"

#define MOST_NODES 64
#define ACCURACY_SIZE 61 /* a short text: it travels with the model */

typedef struct quantize_options {
    data_options data;
    const char *model, *output, *calibration, *json, *preset, *weight_method, *activation_method,
        *percentile, *activation_type, *rounding, *refit, *bias_correction, *node[MOST_NODES],
        *average_bits, *accuracy_drop;
    int samples, seed, threads, weight_bits, activation_bits, per_tensor, per_channel,
        weight_affine, weight_symmetric, symmetric, code_logits, float_logits, dry_run, no_measure,
        budget, equalize, fit_ranges, confirm; /* the last three: -1 as the preset has it */
    const char *margin_text;
    double margin; /* points that a model may be worse by */
} quantize_options;

/* The list of presets stands in the help. */
static const char *describe(char *text, size_t size) {
    size_t used = (size_t)snprintf(
        text, size,
        "Fuses a float model, calibrates it on training images, converts it, measures it on the\n"
        "test images beside the float model, and writes it with a self-test vector. Single "
        "choices\n"
        "override the preset. --node may be given several times; of several patterns that match a\n"
        "node the last counts; * and ? are wildcards. Presets:\n");

    for (unsigned i = 0; ptq_name(PTQ_NAMES_PRESET, i) && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "\n  %-8s %s",
                                 ptq_name(PTQ_NAMES_PRESET, i), ptq_name(PTQ_NAMES_PRESET_TEXT, i));
    return text;
}

static int parse(int argc, char **argv, quantize_options *o) {
    const option_spec specs[] = {
        OPTION_FLOAT_MODEL(o->model),
        DATA_OPTIONS(&o->data),
        DATA_LIMIT_OPTION(&o->data),
        {"samples", 'n', "N", "training images to calibrate on (default 1000, or all)",
         .number = &o->samples, .least = 1},
        {"seed", 's', "S", "which ones (default 42)", .number = &o->seed},
        {"calibration", 'c', "FILE", "calibration from ptq calibrate, not a new one",
         .text = &o->calibration, .file = READ_FILE},
        {"preset", 'p', "NAME", "scheme to start from (default best); listed above",
         .text = &o->preset},
        {"weight-bits", 0, "B", "2 to 8", .number = &o->weight_bits, .least = 2},
        {"activation-bits", 0, "B", "2 to 8", .number = &o->activation_bits, .least = 2},
        {"weight-range", 0, "RULE", "minmax or mse", .text = &o->weight_method},
        {"per-tensor", 0, NULL, "one weight scale a tensor", .flag = &o->per_tensor},
        {"per-channel", 0, NULL, "one weight scale an output channel", .flag = &o->per_channel},
        {"weight-affine", 0, NULL, "weights with a zero point", .flag = &o->weight_affine},
        {"weight-symmetric", 0, NULL, "weights without one", .flag = &o->weight_symmetric},
        {"activation-range", 0, "RULE", "minmax, average, histogram, percentile, entropy, mse",
         .text = &o->activation_method},
        {"percentile", 0, "P", "share in percent kept at either end", .text = &o->percentile},
        {"activation-type", 0, "TYPE", "u8 or s8", .text = &o->activation_type},
        {"symmetric", 0, NULL, "activations without a zero point", .flag = &o->symmetric},
        {"rounding", 0, "HOW", "of weights: nearest or learned", .text = &o->rounding},
        {"refit", 0, "WHEN", "of weights whose rounding is learned: never or always",
         .text = &o->refit},
        {"equalize", 0, NULL, "channels to like ranges first, below 8 activation bits",
         .choice = &o->equalize},
        {"bias-correction", 0, "HOW", "of weights rounded to nearest: none, empirical, analytic",
         .text = &o->bias_correction},
        {"fit-ranges", 0, NULL, "ranges by the logits' error, below 8 activation bits",
         .choice = &o->fit_ranges},
        {"confirm", 0, NULL, "keep of all that only what a part of the images confirms",
         .choice = &o->confirm},
        {"code-logits", 0, NULL, "logits are codes", .flag = &o->code_logits},
        {"float-logits", 0, NULL, "logits are real numbers", .flag = &o->float_logits},
        {"node", 0, "PATTERN=HOW", "another scheme for some nodes: a preset, float, w4, w8a6",
         .text = o->node, .least = MOST_NODES},
        {"budget", 0, "BYTES", "choose the weight bits of each layer: so many bytes of parameters",
         .number = &o->budget, .least = 1},
        {"average-bits", 0, "B", "the same: so many bits a weight on average",
         .text = &o->average_bits},
        {"accuracy-drop", 0, "P", "the same: so many points lost, on calibration images",
         .text = &o->accuracy_drop},
        {"dry-run", 0, NULL, "only show what would become of every node", .flag = &o->dry_run},
        {"no-measure", 0, NULL, "leave out the accuracy", .flag = &o->no_measure},
        {"margin", 0, "P", MARGIN_HELP, .text = &o->margin_text},
        {"threads", 't', "T", "threads (default: all cores)", .number = &o->threads, .least = 1},
        {"output", 'o', "OUT", "where to write the quantized model", .text = &o->output,
         .file = WRITTEN_FILE},
        OPTION_JSON(o->json),
        {0}};

    char about[2048];
    const command_help help = {
        "quantize [--model MODEL] [--data PATH] -o OUT [OPTIONS]", describe(about, sizeof about),
        "ptq quantize -m resnet8.safetensors --node 'block3.*=w4' -o small.safetensors"};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

/* What the work needs and makes. */
typedef struct job {
    const quantize_options *given;
    char model_path[PATH_SIZE];
    data_request from; /* its path empty: there are no data */
    ptq_scheme scheme;
    ptq_override override[MOST_NODES];
    char pattern[MOST_NODES][128];
    int overrides;
    int calibrates, learns; /* some node needs it */
    int expects;            /* some node needs `unfused` */
    ptq_model *unfused;
    engine ready; /* the fused float model, then the quantized one */
    engine quantized;
    image_sample drawn;
    data_set *test;
    ptq_calibration *calibration;
    ptq_convert_report plan;
    ptq_fuse_report fused;
    ptq_goal goal;
    ptq_mix_report mix;
    ptq_evaluation before, after;
    ptq_comparison compared;
    int seen; /* measured on calibration images, as there are no others */
    char accuracy[ACCURACY_SIZE];
} job;

/* ---- The scheme ---- */

static int scheme_error(const char *where, const ptq_scheme *scheme) {
    ptq_error err;

    if (!ptq_scheme_check(scheme, &err))
        return 0;
    return where ? misuse("--node %s: %s", where, err.text) : misuse("%s", err.text);
}

static int exclude(int a, int b, const char *names) {
    return a && b ? misuse("%s exclude each other; give one of them", names) : 0;
}

static int refuse_for_mode(const quantize_options *o, const ptq_scheme *scheme) {
    int weights = o->weight_bits || o->weight_method || o->per_tensor || o->per_channel ||
                  o->weight_affine || o->weight_symmetric;
    int activations = o->activation_bits || o->activation_method || o->percentile ||
                      o->activation_type || o->symmetric || o->rounding || o->code_logits ||
                      o->float_logits || o->bias_correction;

    if (scheme->mode == PTQ_MODE_HALF && (weights || activations))
        return misuse(
            "preset %s has no integers whose bits or ranges could be chosen; take another "
            "preset, or leave the choice out",
            o->preset);
    if (scheme->mode == PTQ_MODE_DYNAMIC && activations)
        return misuse("preset %s finds the range of activations per image and rounds to nearest; "
                      "only weights can be chosen",
                      o->preset);
    return exclude(o->per_tensor, o->per_channel, "--per-tensor and --per-channel") ||
           exclude(o->weight_affine, o->weight_symmetric,
                   "--weight-affine and --weight-symmetric") ||
           exclude(o->code_logits, o->float_logits, "--code-logits and --float-logits");
}

/* A word of a list of two; -1 after an error. */
static int either(const char *option, const char *word, const char *first, const char *second) {
    if (strcmp(word, first) == 0)
        return 0;
    if (strcmp(word, second) == 0)
        return 1;
    misuse("--%s is %s or %s, not '%s'", option, first, second, word);
    return -1;
}

static int set_range(const char *option, const char *name, ptq_method *out) {
    char known[128] = "";
    size_t used = 0;

    if (ptq_find_name(PTQ_NAMES_METHOD, name) >= 0) {
        *out = (ptq_method)ptq_find_name(PTQ_NAMES_METHOD, name);
        return 0;
    }
    for (int i = 0; i < PTQ_METHOD_COUNT; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 ptq_name(PTQ_NAMES_METHOD, (unsigned)i));
    return misuse("--%s: there is no rule '%s'; there are %s", option, name, known);
}

static int set_percentile(const quantize_options *o, ptq_scheme *scheme) {
    char *end;

    if (!o->activation_method)
        scheme->activation_method = PTQ_METHOD_PERCENTILE;
    if (scheme->activation_method != PTQ_METHOD_PERCENTILE)
        return misuse("--percentile goes with --activation-range percentile");
    scheme->percentile = strtof(o->percentile, &end);
    if (end == o->percentile || *end || !(scheme->percentile > 50 && scheme->percentile <= 100))
        return misuse("--percentile must be over 50 and at most 100, not '%s'", o->percentile);
    return 0;
}

static int set_bias_correction(const quantize_options *o, ptq_scheme *scheme) {
    static const char *const names[] = {"none", "empirical", "analytic"};

    for (int i = 0; o->bias_correction && i < 3; i++)
        if (strcmp(o->bias_correction, names[i]) == 0) {
            scheme->bias = (ptq_bias_correction)i;
            return 0;
        }
    return o->bias_correction ? misuse("--bias-correction is none, empirical or analytic, not '%s'",
                                       o->bias_correction)
                              : 0;
}

/* The single choices, over the preset. */
static int apply_choices(const quantize_options *o, ptq_scheme *scheme) {
    int chosen;

    if (o->weight_bits)
        scheme->weight_bits = o->weight_bits;
    if (o->activation_bits)
        scheme->activation_bits = o->activation_bits;
    if (o->weight_method && set_range("weight-range", o->weight_method, &scheme->weight_method))
        return 1;
    if (o->activation_method &&
        set_range("activation-range", o->activation_method, &scheme->activation_method))
        return 1;
    if (o->percentile && set_percentile(o, scheme))
        return 1;
    scheme->weight_per_tensor = o->per_tensor || (scheme->weight_per_tensor && !o->per_channel);
    scheme->weight_affine = o->weight_affine || (scheme->weight_affine && !o->weight_symmetric);
    scheme->activation_symmetric = o->symmetric || scheme->activation_symmetric;
    scheme->code_logits = o->code_logits || (scheme->code_logits && !o->float_logits);
    if (o->activation_type) {
        if ((chosen = either("activation-type", o->activation_type, "u8", "s8")) < 0)
            return 1;
        scheme->activation_signed = chosen;
    }
    if (o->rounding) {
        if ((chosen = either("rounding", o->rounding, "nearest", "learned")) < 0)
            return 1;
        scheme->rounding = chosen ? PTQ_ROUNDING_LEARNED : PTQ_ROUNDING_NEAREST;
    }
    if (o->refit) {
        if ((chosen = either("refit", o->refit, "never", "always")) < 0)
            return 1;
        scheme->refit = chosen ? PTQ_REFIT_ALWAYS : PTQ_REFIT_NEVER;
    }
    scheme->equalize = o->equalize < 0 ? scheme->equalize : o->equalize;
    scheme->fit_ranges = o->fit_ranges < 0 ? scheme->fit_ranges : o->fit_ranges;
    scheme->confirm = o->confirm < 0 ? scheme->confirm : o->confirm;
    return set_bias_correction(o, scheme);
}

/* "w4", "a6", "w8a6": bits over the main scheme. 0 if it is something else. */
static int read_shorthand(const char *text, ptq_scheme *scheme) {
    int given = 0;

    for (; *text; text += 2, given++) {
        if ((*text != 'w' && *text != 'a') || text[1] < '2' || text[1] > '8' ||
            (given && *text != 'a'))
            return 0;
        *(*text == 'w' ? &scheme->weight_bits : &scheme->activation_bits) = text[1] - '0';
    }
    return given > 0 && given < 3;
}

static int read_how(const quantize_options *o, const char *option, const char *how,
                    const ptq_scheme *base, ptq_scheme *out) {
    *out = *base;
    if (strcmp(how, "float") == 0) {
        memset(out, 0, sizeof *out);
        out->mode = PTQ_MODE_FLOAT;
        return 0;
    }
    if (!ptq_preset(how, out, NULL))
        return 0;
    *out = *base;
    if (!read_shorthand(how, out))
        return misuse(
            "--node %s: '%s' is no preset, not float, and not bits from 2 to 8 like w4, a6 "
            "or w8a6; see 'ptq quantize --help'",
            option, how);
    if (base->mode == PTQ_MODE_HALF)
        return misuse("--node %s: preset %s has no bits to change; name a preset", option,
                      o->preset);
    return 0;
}

/* The library's patterns know `*` and `?` alone. */
static int matches_a_node(const char *pattern, const ptq_model *model) {
    for (int i = 1; i < model->nodes && !strchr(pattern, '['); i++)
        if (fnmatch(pattern, model->node[i].name, FNM_NOESCAPE) == 0 ||
            fnmatch(pattern, model->node[i].out, FNM_NOESCAPE) == 0)
            return 1;
    return 0;
}

static int add_override(job *work, const char *option) {
    const char *equals = strchr(option, '=');
    char *pattern = work->pattern[work->overrides];
    ptq_override *made = &work->override[work->overrides];

    if (!equals || equals == option || !equals[1])
        return misuse("--node must be PATTERN=HOW, as in 'block3.*=w4', not '%s'", option);
    if ((size_t)(equals - option) >= sizeof work->pattern[0])
        return misuse("--node: the pattern is too long; use * for a part of it");
    memcpy(pattern, option, (size_t)(equals - option));
    pattern[equals - option] = 0;
    made->pattern = pattern;
    if (!matches_a_node(pattern, work->ready.model))
        return fail("--node %s: no node has such a name; 'ptq info --fuse' lists them", option);
    work->overrides++;
    return read_how(work->given, option, equals + 1, &work->scheme, &made->scheme) ||
           scheme_error(option, &made->scheme);
}

static void note_needs(job *work, const ptq_scheme *scheme) {
    work->calibrates |= scheme->mode == PTQ_MODE_INTEGER;
    work->learns |=
        scheme->mode == PTQ_MODE_INTEGER &&
        (scheme->rounding == PTQ_ROUNDING_LEARNED ||
         scheme->bias == PTQ_BIAS_CORRECTION_EMPIRICAL || scheme->equalize || scheme->fit_ranges);
    work->expects |=
        scheme->mode == PTQ_MODE_INTEGER && scheme->bias == PTQ_BIAS_CORRECTION_ANALYTIC;
}

static int choose_scheme(job *work) {
    ptq_error err;

    if (ptq_preset(work->given->preset, &work->scheme, &err))
        return misuse("%s", err.text);
    if (refuse_for_mode(work->given, &work->scheme) || apply_choices(work->given, &work->scheme) ||
        scheme_error(NULL, &work->scheme))
        return 1;
    note_needs(work, &work->scheme);
    return 0;
}

static int choose_overrides(job *work) {
    for (int i = 0; i < MOST_NODES && work->given->node[i]; i++) {
        if (add_override(work, work->given->node[i]))
            return 1;
        note_needs(work, &work->override[i].scheme);
    }
    return 0;
}

/* ---- Calibrating and converting ---- */

static int get_calibration(job *work) {
    ptq_error err;
    int status = 0;

    if (!work->calibrates && !work->given->calibration)
        return 0;
    if (work->calibrates &&
        (!work->given->calibration || (work->learns && !work->given->dry_run)) &&
        sample_open(&work->from, work->ready.plan, work->given->samples, work->given->seed,
                    &work->drawn))
        return 1;
    if (!work->given->calibration)
        status =
            calibrate_on(work->ready.plan, &work->drawn, work->given->threads, &work->calibration);
    else if (ptq_calibration_load(work->given->calibration, NULL, &work->calibration, &err))
        status = fail("%s", err.text);
    if (status)
        return 1;
    print_warnings(work->calibration);
    return work->test ? refuse_overlap(work->calibration, data_view(work->test)) : 0;
}

/* A quarter of the images judges the models, the others are learned from. */
static int convert_mixed(job *work, ptq_model **made) {
    ptq_search_options options = {0};
    progress state = progress_start("choose bits");
    ptq_status status;
    ptq_error err;

    options.scheme = work->scheme;
    options.images = &work->drawn.subset.dataset;
    options.measure = (work->drawn.subset.dataset.count + 3) / 4;
    options.work.threads = work->given->threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = ptq_convert_mixed(work->ready.model, work->calibration, &options, &work->goal, made,
                               &work->mix, &err);
    progress_end(&state);
    return status ? fail("%s", err.text) : 0;
}

/* The bits that were chosen, as overrides: for the report. */
static int adopt_mix(job *work) {
    const ptq_mix_report *mix = &work->mix;

    if (mix->nodes > MOST_NODES)
        return fail("the model has %d layers with weights; at most %d can be mixed", mix->nodes,
                    MOST_NODES);
    for (int i = 0; i < mix->nodes; i++) {
        int bits = mix->bits[mix->chosen * mix->nodes + i];
        ptq_override *made = &work->override[i];

        made->pattern = mix->node[i];
        made->scheme = work->scheme;
        made->scheme.weight_bits = bits;
        if (bits > 8) {
            memset(&made->scheme, 0, sizeof made->scheme);
            made->scheme.mode = PTQ_MODE_FLOAT;
        }
    }
    work->overrides = mix->nodes;
    return 0;
}

static int has_goal(const job *work) {
    return work->goal.bytes || work->goal.average_bits > 0 || work->goal.drop_pp > 0;
}

/* A positive number. */
static int read_positive(const char *option, const char *text, double *out) {
    char *end;

    if (!text)
        return 0;
    *out = strtod(text, &end);
    return *end || end == text || !(*out > 0) || *out > 100
               ? misuse("--%s: '%s' is not a number over 0, at most 100", option, text)
               : 0;
}

static int choose_goal(job *work) {
    work->goal.bytes = (size_t)work->given->budget;
    if (read_positive("average-bits", work->given->average_bits, &work->goal.average_bits) ||
        read_positive("accuracy-drop", work->given->accuracy_drop, &work->goal.drop_pp))
        return 1;
    if (!has_goal(work))
        return 0;
    if (work->given->node[0] || work->given->weight_bits)
        return misuse("a goal chooses the bits of every layer; leave out --weight-bits and --node");
    if (work->given->dry_run)
        return misuse("what a goal leads to is found by converting; leave out --dry-run");
    if (work->scheme.mode != PTQ_MODE_INTEGER)
        return misuse("preset %s has no bits to choose; name another", work->given->preset);
    work->learns = 1; /* or is measured on images, at least */
    return 0;
}

/* Each learns from the images in a pass of its own. */
static size_t count_layers(const ptq_model *model) {
    size_t layers = 0;

    for (int i = 1; i < model->nodes; i++)
        layers += model->node[i].param[PTQ_PARAM_WEIGHT].rank >= 2;
    return layers;
}

static int convert(job *work) {
    ptq_convert_options options = {0};
    progress state =
        progress_start_steps("learn rounding", "layer", count_layers(work->ready.model));
    int mixes = has_goal(work);
    ptq_model *made = NULL;
    ptq_status status;
    ptq_error err;

    if (work->expects && ptq_model_load(work->model_path, NULL, &work->unfused, &err))
        return fail("%s", err.text);
    if (mixes && (convert_mixed(work, &made) || adopt_mix(work)))
        return 1;
    options.scheme = work->scheme;
    options.override = work->override;
    options.overrides = work->overrides;
    options.images = &work->drawn.subset.dataset;
    options.unfused = work->unfused;
    options.work.threads = work->given->threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = ptq_convert(work->ready.model, work->calibration, &options,
                         work->given->dry_run || mixes ? NULL : &made, &work->plan, &err);
    progress_end(&state);
    if (status == PTQ_BAD_DATA && work->given->calibration)
        return fail("%s: the --samples and --seed that made %s", err.text,
                    work->given->calibration);
    if (status)
        return fail("%s", err.text);
    return work->given->dry_run ? 0 : engine_adopt(made, NULL, &work->quantized);
}

/* ---- Measuring ---- */

/* Both models on the same images. */
static int measure_on(job *work, const ptq_dataset *data) {
    ptq_error err;

    if (evaluate_plan(work->quantized.plan, data, "measure", work->given->threads, &work->after) ||
        evaluate_plan(work->ready.plan, data, "measure float", work->given->threads, &work->before))
        return 1;
    return ptq_compare(&work->before, &work->after, &work->compared, &err) ? fail("%s", err.text)
                                                                           : 0;
}

/* Without test images those that were calibrated on have to do. They cannot show how good a model
   is, but a bad one they give away. */
enum { MOST_SEEN = 500 };

static int measure_seen(job *work) {
    ptq_dataset some = work->drawn.subset.dataset;

    some.count = some.count < MOST_SEEN ? some.count : MOST_SEEN;
    work->seen = 1;
    return measure_on(work, &some);
}

/* On the test images; the outcome goes into the metadata. */
static int measure(job *work) {
    ptq_error err;

    if (!work->test)
        return work->drawn.data && data_is_labelled(work->drawn.data) ? measure_seen(work) : 0;
    if (measure_on(work, data_view(work->test)))
        return 1;
    snprintf(work->accuracy, sizeof work->accuracy, "%zu of %zu, float %zu, agree %zu",
             work->after.correct, work->after.total, work->before.correct, work->compared.agree);
    if (ptq_model_set_meta(work->quantized.model, "accuracy", work->accuracy, &err))
        return fail("%s", err.text);
    return 0;
}

static int finish_model(job *work) {
    ptq_error err;

    if (!work->given->no_measure && measure(work))
        return 1;
    if (ptq_self_test_add(work->quantized.model, &err) ||
        ptq_model_save(work->quantized.model, work->given->output, &err))
        return fail("%s", err.text);
    return 0;
}

/* ---- Text ---- */

/* What was converted by: less than what was asked for where images did not confirm it. */
static const char *scheme_used(const job *work, char *text, size_t size) {
    const char *used = work->overrides || !work->quantized.model
                           ? NULL
                           : ptq_model_get_meta(work->quantized.model, "scheme");

    if (!used)
        ptq_scheme_write(&work->scheme, text, size);
    return used ? used : text;
}

/* A line for each decision. */
static void print_decisions(const char *text) {
    for (size_t n; text && *text; text += n + strspn(text + n, "; ")) {
        n = strcspn(text, ";");
        say("confirmed %.*s\n", (int)n, text);
    }
}

static void print_source(const ptq_calibration *seen) {
    uint64_t labelled = 0;

    for (int c = 0; c < seen->classes; c++)
        labelled += seen->class_count[c];
    if (labelled)
        say("from      %zu images of %d classes\n", seen->images, seen->classes);
    else
        say("from      %zu images without labels\n", seen->images);
}

static void print_scheme(const job *work) {
    char text[256];

    say("model     %s\nscheme    %s\n", work->model_path, scheme_used(work, text, sizeof text));
    if (work->quantized.model)
        print_decisions(ptq_model_get_meta(work->quantized.model, "confirmed"));
    for (int i = 0; i < work->overrides; i++) {
        ptq_scheme_write(&work->override[i].scheme, text, sizeof text);
        say("          %s: %s\n", work->override[i].pattern, text);
    }
    if (work->calibration)
        print_source(work->calibration);
}

/* ---- What stays in float ---- */

/* Item `index` of the plan as a node of the float model that stays in float; NULL: it does not, or
   is a softmax behind the logits. */
static const ptq_node *float_node(const job *work, int index) {
    static const char *const kept[] = {"float", "half-precision weights", "dynamic"};
    const ptq_conversion *item = &work->plan.item[index];
    int at = ptq_model_find(work->ready.model, item->node);
    size_t length = strlen(item->what);

    for (int i = 0; i < 3; i++) {
        size_t n = strlen(kept[i]);

        if (length >= n && strcmp(item->what + length - n, kept[i]) == 0 && at > 0 &&
            is_island(work->ready.model, at))
            return &work->ready.model->node[at];
    }
    return NULL;
}

/* Why: as fusion says, for what it could have removed. */
static const char *float_reason(const job *work, const ptq_node *node) {
    const char *reason = island_reason(node->op);

    for (int i = 0; i < work->fused.items && reason; i++)
        if (strcmp(work->fused.item[i].node, node->name) == 0 && work->fused.item[i].reason)
            return work->fused.item[i].reason;
    return reason ? reason : has_goal(work) ? "the search chose so" : "its scheme says so";
}

static const char *float_remedy(const job *work, const ptq_node *node) {
    const char *remedy = island_remedy(node->op);

    if (remedy)
        return remedy;
    return has_goal(work) ? "a goal of fewer bytes or bits makes it integers"
                          : "leave out the --node that asks for it";
}

/* A paragraph for each; of a preset that is not one of integers, one for all. */
static void print_floats(const job *work) {
    if (work->scheme.mode != PTQ_MODE_INTEGER) {
        say("float     the results between layers, as preset %s asks\n", work->given->preset);
        return;
    }
    for (int i = 0; i < work->plan.items; i++) {
        const ptq_node *node = float_node(work, i);

        if (node)
            say_wrapped(10, "float     %s (%s) stays: %s; %s", node->name,
                        ptq_name(PTQ_NAMES_OP, node->op), float_reason(work, node),
                        float_remedy(work, node));
    }
}

/* Fusing has said why a node stays; that of the model at hand, which is fused, says so again. */
static int ask_fusion(job *work) {
    ptq_model *again = NULL;
    ptq_error err;

    if (ptq_fuse(work->ready.model, &again, &work->fused, &err))
        return fail("%s", err.text);
    ptq_model_free(again);
    return 0;
}

static void print_plan_row(const char *node, const char *what, size_t from, size_t to) {
    char before[COUNT_SIZE], after[COUNT_SIZE];

    say("%-18s %-41s %9s %9s\n", node, what, count_text(from, before), count_text(to, after));
}

static void print_plan(const ptq_convert_report *plan) {
    say("\n%-18s %-41s %9s %9s\n", "node", "becomes", "bytes", "after");
    for (int i = 0; i < plan->items; i++)
        print_plan_row(plan->item[i].node, plan->item[i].what, plan->item[i].bytes_before,
                       plan->item[i].bytes_after);
    print_plan_row("parameters", "", plan->bytes_before, plan->bytes_after);
    say("\nThis was a dry run: nothing was written.\n");
}

/* One line for each model of the frontier that was measured. */
static void print_mix(const ptq_mix_report *mix) {
    char interval[AGREEMENT_SIZE];

    if (!mix->items)
        return;
    say("\n");
    say_wrapped(10,
                "frontier  of the whole network; agreement with float and Wilson's interval of "
                "it, on %zu calibration images that were not learned from",
                mix->images);
    say("%8s %5s %9s  %-13s %6s  bits of each layer\n", "bytes", "bits", "agreement",
        "95 % interval", "points");
    for (int i = 0; i < mix->items; i++) {
        if (!mix->item[i].measured)
            continue;
        say("%8zu %5.2f %7.2f %%  %-13s %+6.2f %s", mix->item[i].bytes, mix->item[i].average_bits,
            100 * mix->item[i].cost.agreement,
            agreement_text(mix->item[i].cost.agreement, mix->images, interval),
            mix->item[i].cost.delta_pp, i == mix->chosen ? "*" : " ");
        for (int k = 0; k < mix->nodes; k++)
            say(" %d", mix->bits[i * mix->nodes + k]);
        say("\n");
    }
    say("%s\n\n", mix->met ? "* meets the goal" : "* comes closest: no model meets the goal");
}

static evidence evidence_of(const job *work) {
    evidence e = {&work->compared, work->given->output, work->model_path, NULL, 0, 0, 0, 0};

    e.scheme = ptq_model_get_meta(work->quantized.model, "scheme");
    e.classes = (size_t)work->after.classes;
    e.calibrated = work->calibration ? work->calibration->images : 0;
    e.seen = work->seen;
    e.margin = work->given->margin;
    return e;
}

static void print_meaning(const job *work) {
    evidence e = evidence_of(work);

    say_meaning(&e);
    fflush(stdout);
    warn_of_loss(&e);
}

static void print_result(const job *work) {
    char before[COUNT_SIZE], after[COUNT_SIZE];

    print_mix(&work->mix);
    if (work->seen)
        say("measured  on %zu of the calibration images: no test images with labels are there\n",
            work->after.total);
    if (work->after.total) {
        print_accuracy("accuracy", &work->after);
        print_accuracy("float", &work->before);
        print_comparison(&work->compared, work->given->margin);
    } else {
        say("accuracy  not measured%s\n",
            work->given->no_measure ? "" : ": there are no test images with labels");
    }
    say("bytes     %s of parameters, before %s\n", count_text(work->plan.bytes_after, after),
        count_text(work->plan.bytes_before, before));
    say_written(work->given->output, "%s bytes",
                count_text(file_size(work->given->output), before));
    if (work->after.total)
        print_meaning(work);
}

/* ---- JSON ---- */

#ifdef PTQ_HAVE_jansson

static json_t *scheme_json(const ptq_scheme *scheme) {
    char text[256];

    ptq_scheme_write(scheme, text, sizeof text);
    return json_string(text);
}

static json_t *plan_json(const ptq_convert_report *plan) {
    json_t *list = json_array();

    for (int i = 0; i < plan->items; i++) {
        const ptq_conversion *item = &plan->item[i];

        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:I,s:I}", "node", item->node, "becomes",
                                        item->what, "bytes_before", (json_int_t)item->bytes_before,
                                        "bytes_after", (json_int_t)item->bytes_after));
    }
    return list;
}

/* The nodes that stay in float. */
static json_t *floats_json(const job *work) {
    json_t *list = json_array();

    for (int i = 0; i < work->plan.items; i++) {
        const ptq_node *node = float_node(work, i);

        if (node)
            json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "node", node->name, "reason",
                                                  float_reason(work, node), "remedy",
                                                  float_remedy(work, node)));
    }
    return list;
}

static void set_measured(json_t *root, const job *work) {
    json_t *baseline = json_object();
    char text[MEANING_SIZE];
    evidence e;

    json_object_set_new(root, "overall", json_overall(&work->after));
    json_object_set_new(baseline, "overall", json_overall(&work->before));
    json_object_set_new(root, "baseline", baseline);
    json_set_comparison(root, &work->compared, work->given->margin);
    e = evidence_of(work);
    json_object_set_new(root, "in_short", json_string(meaning_text(&e, text)));
    json_object_set_new(root, "measured_on_calibration_images", json_boolean(work->seen));
}

/* The whole frontier; what was not measured has only its size and what was predicted. */
static json_t *mix_json(const ptq_mix_report *mix) {
    json_t *nodes = json_array(), *points = json_array();

    for (int k = 0; k < mix->nodes; k++)
        json_array_append_new(nodes, json_string(mix->node[k]));
    for (int i = 0; i < mix->items; i++) {
        json_t *bits = json_array();
        json_t *point = mix->item[i].measured ? json_divergence(&mix->item[i].cost, mix->images)
                                              : json_object();

        for (int k = 0; k < mix->nodes; k++)
            json_array_append_new(bits, json_integer(mix->bits[i * mix->nodes + k]));
        json_object_set_new(point, "bits", bits);
        json_set_count(point, "bytes", mix->item[i].bytes);
        json_object_set_new(point, "average_bits", json_real(mix->item[i].average_bits));
        json_object_set_new(point, "predicted_kl", json_real(mix->item[i].predicted));
        json_array_append_new(points, point);
    }
    return json_pack("{s:o,s:o,s:i,s:b,s:I}", "nodes", nodes, "frontier", points, "chosen",
                     mix->chosen, "met", mix->met, "images", (json_int_t)mix->images);
}

static int write_json(const job *work) {
    json_t *root = json_object(), *overrides = json_array();
    char text[256];

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "model_path", json_string(work->model_path));
    json_object_set_new(root, "data_dir", json_string(work->from.path));
    json_object_set_new(root, "output",
                        work->given->dry_run ? json_null() : json_string(work->given->output));
    json_object_set_new(root, "preset", json_string(work->given->preset));
    json_object_set_new(root, "scheme", json_string(scheme_used(work, text, sizeof text)));
    if (work->quantized.model && ptq_model_get_meta(work->quantized.model, "confirmed"))
        json_object_set_new(root, "confirmed",
                            json_string(ptq_model_get_meta(work->quantized.model, "confirmed")));
    for (int i = 0; i < work->overrides; i++) {
        json_t *made = scheme_json(&work->override[i].scheme);

        json_array_append_new(overrides, json_pack("{s:s,s:o}", "pattern",
                                                   work->override[i].pattern, "scheme", made));
    }
    json_object_set_new(root, "overrides", overrides);
    if (work->calibration) {
        json_set_count(root, "calibration_images", work->calibration->images);
        json_object_set_new(root, "warnings", json_warnings(work->calibration));
    }
    if (work->mix.items)
        json_object_set_new(root, "mixed", mix_json(&work->mix));
    json_object_set_new(root, "plan", plan_json(&work->plan));
    json_object_set_new(root, "float_nodes", floats_json(work));
    json_set_count(root, "bytes_before", work->plan.bytes_before);
    json_set_count(root, "bytes_after", work->plan.bytes_after);
    if (!work->given->dry_run)
        json_set_count(root, "file_bytes", file_size(work->given->output));
    if (work->after.total)
        set_measured(root, work);
    return json_finish(root);
}

#else

static int write_json(const job *work) {
    (void)work;
    return 1;
}

#endif

/* ---- All of it ---- */

/* Images to calibrate on, or to learn from, must be there; without them a model is made, but cannot
   be measured. */
static int open_data(job *work) {
    int needs =
        work->calibrates && (!work->given->calibration || (work->learns && !work->given->dry_run));

    if (!needs && !work->given->data.data && look_for_data(NULL, work->from.path)) {
        work->from.path[0] = 0;
        return 0;
    }
    return data_find(&work->given->data, &work->from) ||
           data_open_test(&work->from, work->ready.plan, &work->test);
}

/* The model says which data are needed, so whatever data there are can only help to find it. */
static int find_float_model(job *work) {
    char data[PATH_SIZE];

    return look_for_data(work->given->data.data, data)
               ? find_model(work->given->model, work->model_path)
               : find_model_for(work->given->model, data, work->model_path);
}

static int quantize(job *work) {
    if (choose_scheme(work) || choose_goal(work) || find_float_model(work) ||
        (!work->given->dry_run && check_output(work->given->output)) ||
        engine_open(work->model_path, 1, NULL, &work->ready) || choose_overrides(work) ||
        open_data(work) || warn_of_pixels_in(work->model_path, "import it again") ||
        get_calibration(work) || convert(work) || ask_fusion(work))
        return 1;
    if (!work->given->dry_run && finish_model(work))
        return 1;
    print_scheme(work);
    print_floats(work);
    if (work->given->dry_run)
        print_plan(&work->plan);
    else
        print_result(work);
    return work->given->json ? write_json(work) : 0;
}

static void close_job(job *work) {
    ptq_release(&work->before.memory);
    ptq_release(&work->after.memory);
    ptq_release(&work->plan.memory);
    ptq_release(&work->fused.memory);
    ptq_release(&work->mix.memory);
    ptq_model_free(work->unfused);
    ptq_calibration_free(work->calibration);
    data_close(work->test);
    sample_close(&work->drawn);
    engine_close(&work->quantized);
    engine_close(&work->ready);
}

int command_quantize(int argc, char **argv) {
    quantize_options o = {
        .preset = "best", .seed = 42, .equalize = -1, .fit_ranges = -1, .confirm = -1};
    int parsed = parse(argc, argv, &o), status;
    job *work;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!o.output && !o.dry_run)
        return misuse("-o OUT is needed; see 'ptq quantize --help'");
    if (o.threads == 0)
        o.threads = count_cores();
    if (read_margin(o.margin_text, &o.margin) || json_setup(o.json))
        return 1;
    work = calloc(1, sizeof *work);
    if (!work)
        return fail("no memory");
    work->given = &o;
    status = quantize(work);
    close_job(work);
    free(work);
    return status;
}
