/* ptq quantize: fuses, calibrates and converts in one go, and measures what came out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "data/calibration.h"
#include "data/dataset.h"
#include "data/find.h"
#include "data/images.h"
#include "measure/accuracy.h"
#include "measure/expect.h"
#include "measure/mix.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "quantize/job.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/islands.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/pixels.h"
#include "shared/progress.h"

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
        used += (size_t)snprintf(text + used, size - used, "\n  %-9s %s",
                                 ptq_name(PTQ_NAMES_PRESET, i), ptq_name(PTQ_NAMES_PRESET_TEXT, i));
    if (used < size)
        snprintf(text + used, size - used,
                 "\n  %-9s best, then learns on: to give float's logits, without labels",
                 BEST_HIGH);
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
        {"calibration", 'c', "FILE", "use this one from ptq calibrate, not a new one",
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
        {"percentile", 0, "P", "percent of the values kept at either end", .text = &o->percentile},
        {"activation-type", 0, "TYPE", "u8 or s8", .text = &o->activation_type},
        {"symmetric", 0, NULL, "activations without a zero point", .flag = &o->symmetric},
        {"rounding", 0, "HOW", "of weights: nearest or learned", .text = &o->rounding},
        {"refit", 0, "WHEN", "of weights whose rounding is learned: never or always",
         .text = &o->refit},
        {"equalize", 0, NULL, "even out the ranges of channels first, below 8 activation bits",
         .choice = &o->equalize},
        {"bias-correction", 0, "HOW", "of weights rounded to nearest: none, empirical, analytic",
         .text = &o->bias_correction},
        {"fit-ranges", 0, NULL, "ranges by the logits' error, below 8 activation bits",
         .choice = &o->fit_ranges},
        {"confirm", 0, NULL, "keep only what a held-out part of the images confirms",
         .choice = &o->confirm},
        {"code-logits", 0, NULL, "logits are codes", .flag = &o->code_logits},
        {"float-logits", 0, NULL, "logits are real numbers", .flag = &o->float_logits},
        {"arithmetic", 0, "NAME",
         "of the integers: onnx (default), xnnpack or fixed, as TensorFlow Lite computes on large "
         "processors and on microcontrollers",
         .text = &o->arithmetic},
        {"node", 0, "PATTERN=HOW", "another scheme for some nodes: a preset, float, w4, w8a6",
         .text = o->node, .least = MOST_NODES},
        {"budget", 0, "BYTES",
         "choose the weight bits of each layer for so many bytes of parameters",
         .number = &o->budget, .least = 1},
        {"flash", 0, "BYTES",
         "the same for so many of flash, as 'ptq export --standalone' writes it",
         .number = &o->flash, .least = 1},
        {"average-bits", 0, "B", "the same for so many bits per weight on average",
         .text = &o->average_bits},
        {"accuracy-drop", 0, "P", "the same for so many points lost, on calibration images",
         .text = &o->accuracy_drop},
        {"minutes", 0, "M",
         "of preset best-high: about how long, on two cores (default: 500 steps a rate)",
         .text = &o->minutes},
        {"checkpoint", 0, "FILE", "of preset best-high: written now and then, and when interrupted",
         .text = &o->checkpoint, .file = WRITTEN_FILE},
        {"resume", 0, NULL, "go on from the checkpoint if there is one", .flag = &o->resume},
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

/* Of the standalone header, what is not parameters: from a model of 8 bits. A channel whose weights
   are packed may end within a byte, which the parameters do not count. */
static int choose_flash(job *work) {
    ptq_convert_options options = {.scheme = nearest_scheme(&work->scheme)};
    ptq_convert_report report = {0};
    ptq_model *made = NULL;
    engine trial = {0};
    size_t other, flash = (size_t)work->given->flash;
    ptq_error err;

    options.scheme.weight_bits = 8;
    if (ptq_convert(work->ready.model, work->calibration, &options, &made, &report, &err))
        return fail("%s", err.text);
    if (engine_adopt(made, "scalar", &trial) ||
        measure_flash(trial.model, trial.plan, &work->flash)) {
        engine_close(&trial);
        ptq_release(&report.memory);
        return 1;
    }
    other = work->flash.constants + work->flash.code - report.bytes_after;
    for (int i = 0; i < trial.model->nodes; i++)
        if (flash < work->flash.constants + work->flash.code && has_weights(&trial.model->node[i]))
            other += (size_t)trial.model->node[i].shape[2];
    work->goal.bytes = flash > other ? flash - other : 1;
    work->goal.integers = 1;
    engine_close(&trial);
    ptq_release(&report.memory);
    return 0;
}

/* Said of the model as it is. */
static int check_flash(job *work) {
    header_flash *flash = &work->flash;
    size_t wanted = (size_t)work->given->flash;

    if (measure_flash(work->quantized.model, work->quantized.plan, flash))
        return 1;
    if (flash->constants + flash->code <= wanted)
        return 0;
    return fail("no choice of bits fits --flash %zu: with the fewest, constants take %zu bytes and "
                "code about %zu, or %zu as 'ptq export --small' writes it",
                wanted, flash->constants, flash->code, flash->small);
}

/* A quarter of the images judges the models, the others are learned from. */
static int mix_bits(job *work, const ptq_dataset *images, ptq_model **made) {
    search_options options = {0};
    progress state = progress_start("choose bits");
    ptq_status status;
    ptq_error err;

    options.scheme = work->scheme;
    options.images = images;
    options.measure = (images->count + 3) / 4;
    options.work.threads = work->given->threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = convert_mixed(work->ready.model, work->calibration, &options, &work->goal, made,
                           &work->mix, &err);
    progress_end(&state);
    return status ? fail("%s", err.text) : 0;
}

/* The bits that were chosen, as overrides: for the report. */
static int adopt_mix(job *work) {
    const mix_report *mix = &work->mix;

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

/* What was learned, for who reads the file. */
static int note_learning(const job *work, ptq_model *model) {
    const learn_report *r = &work->learned;
    char text[160];
    ptq_error err;

    if (r->rate == 0)
        return 0;
    snprintf(text, sizeof text,
             "learned on: %zu steps, rate %g, %zu images; KL of %zu others %.5f, before %.5f",
             r->steps, r->rate, r->learned, r->held, r->after, r->before);
    return ptq_model_set_meta(model, "training", text, &err) ? fail("%s", err.text) : 0;
}

/* Preset best-high: learns on from a model; *better stays NULL if nothing was. */
static int learn_further(job *work, const ptq_model *made, ptq_model **better) {
    learn_options options = {.real = work->ready.model,
                             .plan = work->ready.plan,
                             .images = &work->split,
                             .threads = work->given->threads,
                             .seed = work->given->seed,
                             .minutes = work->minutes,
                             .checkpoint = work->given->checkpoint,
                             .resume = work->given->resume};

    options.fixed_zeros = work->scheme.activation_symmetric;
    for (int i = 0; i < work->overrides; i++)
        options.fixed_zeros |= work->override[i].scheme.activation_symmetric;
    if (learn_on(&options, made, &work->learned, better))
        return 1;
    return *better ? note_learning(work, *better) : 0;
}

/* What would fail after minutes is said before. */
static int prepare_learning(job *work) {
    if (!work->learns_on || work->given->dry_run)
        return 0;
    return (work->given->checkpoint && check_output(work->given->checkpoint)) ||
           learn_check(work->ready.model) ||
           learn_images_open(&work->split, &work->drawn.subset.dataset);
}

/* Each learns from the images in a pass of its own. */
static size_t count_layers(const ptq_model *model) {
    size_t layers = 0;

    for (int i = 1; i < model->nodes; i++)
        layers += model->node[i].param[PTQ_PARAM_WEIGHT].rank >= 2;
    return layers;
}

static int convert_on(job *work, const ptq_dataset *images, ptq_model **made) {
    ptq_convert_options options = {0};
    progress state =
        progress_start_steps("learn rounding", "layer", count_layers(work->ready.model));
    int mixes = has_goal(work);
    ptq_status status;
    ptq_error err;

    if ((work->given->flash && choose_flash(work)) ||
        (mixes && (mix_bits(work, images, made) || adopt_mix(work))))
        return 1;
    options.scheme = work->scheme;
    options.override = work->override;
    options.overrides = work->overrides;
    options.images = images;
    options.work.threads = work->given->threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = ptq_convert(work->ready.model, work->calibration, &options,
                         work->given->dry_run || mixes ? NULL : made, &work->plan, &err);
    progress_end(&state);
    if (status == PTQ_BAD_DATA && work->given->calibration)
        return fail("%s: the --samples and --seed that made %s", err.text,
                    work->given->calibration);
    return status ? fail("%s", err.text) : 0;
}

/* The images that judge must be new to the model that is learned on from: what `best` has rounded
   its weights for looks better than it is. If nothing is learned, it is made anew from all. */
static int convert_and_learn(job *work, ptq_model **better) {
    ptq_model *made = NULL;
    int status;

    *better = NULL;
    status =
        convert_on(work, &work->split.learned.dataset, &made) || learn_further(work, made, better);
    ptq_model_free(made);
    if (status || *better)
        return status;
    ptq_release(&work->plan.memory);
    ptq_release(&work->mix.memory);
    return convert_on(work, &work->drawn.subset.dataset, better);
}

static int convert(job *work) {
    ptq_model *made = NULL;
    ptq_error err;
    int status;

    status = work->learns_on && !work->given->dry_run
                 ? convert_and_learn(work, &made)
                 : convert_on(work, &work->drawn.subset.dataset, &made);
    if (status || work->given->dry_run) {
        ptq_model_free(made);
        return status;
    }
    if (is_analytic(work->given) &&
        correct_biases_of(work->model_path, work->ready.model, work->calibration, made, &err)) {
        ptq_model_free(made);
        return fail("%s", err.text);
    }
    return engine_adopt(made, NULL, &work->quantized) || (work->given->flash && check_flash(work));
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

/* ---- All of it ---- */

/* Fusing has said why a node stays; that of the model at hand, which is fused, says so again. */
static int ask_fusion(job *work) {
    ptq_model *again = NULL;
    ptq_error err;

    if (ptq_fuse(work->ready.model, &again, &work->fused, &err))
        return fail("%s", err.text);
    ptq_model_free(again);
    return 0;
}

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
        engine_open_fused(work->model_path, work->given->arithmetic, NULL, &work->ready) ||
        choose_overrides(work) || open_data(work) ||
        warn_of_pixels_in(work->model_path, "import it again") || get_calibration(work) ||
        prepare_learning(work) || convert(work) || ask_fusion(work))
        return 1;
    if (!work->given->dry_run && finish_model(work))
        return 1;
    print_outcome(work);
    return work->given->json ? write_json(work) : 0;
}

static void close_job(job *work) {
    ptq_release(&work->before.memory);
    ptq_release(&work->after.memory);
    ptq_release(&work->plan.memory);
    ptq_release(&work->fused.memory);
    ptq_release(&work->mix.memory);
    ptq_calibration_free(work->calibration);
    data_close(work->test);
    learn_images_close(&work->split);
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
