/* ptq sensitivity: which layers cost accuracy when they are quantized, and what would help. */
#include <math.h>
#include <string.h>

#include "commands.h"
#include "data/calibration.h"
#include "data/dataset.h"
#include "data/find.h"
#include "data/images.h"
#include "measure/accuracy.h"
#include "measure/advice.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/progress.h"

typedef struct sensitivity_options {
    data_options data;
    const char *model, *json, *preset, *show;
    int samples, seed, measure, threads, weight_bits, activation_bits, per_tensor;
} sensitivity_options;

static const command_help help = {
    "sensitivity [--model MODEL] [--data PATH] [--preset NAME] [OPTIONS]",
    "Quantizes every node of a float model alone and compares the logits with the float model's,\n"
    "on calibration images: signal-to-noise ratio, Kullback-Leibler divergence, same prediction.\n"
    "Then tries what could be changed, and says what each change would win back.",
    "ptq sensitivity --model resnet8.safetensors --weight-bits 4"};

static int parse(int argc, char **argv, sensitivity_options *o) {
    const option_spec specs[] = {
        OPTION_FLOAT_MODEL(o->model),
        DATA_OPTIONS(&o->data),
        DATA_LIMIT_OPTION(&o->data),
        {"samples", 'n', "N", "training images to calibrate on (default 1000, or all)",
         .number = &o->samples, .least = 1},
        {"seed", 's', "S", "which ones (default 42)", .number = &o->seed},
        {"measure", 0, "N", "of them to measure on (default 500)", .number = &o->measure,
         .least = 1},
        {"preset", 'p', "NAME", "scheme to look at (default best)", .text = &o->preset},
        {"weight-bits", 0, "B", "2 to 8", .number = &o->weight_bits, .least = 2},
        {"activation-bits", 0, "B", "2 to 8", .number = &o->activation_bits, .least = 2},
        {"per-tensor", 0, NULL, "one weight scale a tensor", .flag = &o->per_tensor},
        {"threads", 't', "T", "threads (default: all cores)", .number = &o->threads, .least = 1},
        OPTION_SHOW(o->show, "nodes, advice"),
        OPTION_JSON(o->json),
        {0}};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

typedef struct job {
    const sensitivity_options *given;
    char model_path[PATH_SIZE], scheme[256];
    data_request from;
    engine ready;
    image_sample drawn;
    ptq_calibration *calibration;
    search_options options;
    node_ranking report;
    advice_list advice;
} job;

static int choose_scheme(const sensitivity_options *o, ptq_scheme *scheme) {
    ptq_error err;

    if (ptq_preset(o->preset, scheme, &err))
        return misuse("%s", err.text);
    if (scheme->mode != PTQ_MODE_INTEGER)
        return misuse("preset %s does not compute on integers; choose another", o->preset);
    if (o->weight_bits)
        scheme->weight_bits = o->weight_bits;
    if (o->activation_bits)
        scheme->activation_bits = o->activation_bits;
    if (o->per_tensor)
        scheme->weight_per_tensor = 1;
    return ptq_scheme_check(scheme, &err) ? misuse("%s", err.text) : 0;
}

static int look(job *work) {
    progress state = progress_start("measure nodes");
    ptq_status status;
    ptq_error err;

    ptq_scheme_write(&work->options.scheme, work->scheme, sizeof work->scheme);
    work->options.images = &work->drawn.subset.dataset;
    work->options.measure = (size_t)work->given->measure;
    work->options.work.threads = work->given->threads;
    work->options.work.progress = progress_show;
    work->options.work.user = &state;
    status = rank_nodes(work->ready.model, work->calibration, &work->options, &work->report, &err);
    progress_end(&state);
    state = progress_start("try remedies");
    if (!status)
        status = find_advice(work->ready.model, work->calibration, &work->options, &work->report,
                             &work->advice, &err);
    progress_end(&state);
    return status ? fail("%s", err.text) : 0;
}

static void print_cost(const char *name, const divergence *cost, size_t images) {
    char interval[AGREEMENT_SIZE];

    say("%-24s %8.2f %10.5f %9.2f %%  %-13s %+8.2f\n", name, cost->sqnr_db, cost->kl,
        100 * cost->agreement, agreement_text(cost->agreement, images, interval), cost->delta_pp);
}

static void print_nodes(const job *work) {
    const node_ranking *report = &work->report;

    say("model     %s\nscheme    %s\n", work->model_path, work->scheme);
    say_wrapped(10,
                "measured  on %zu of %zu calibration images, ranked by KL; agreement is the "
                "share of them with float's answer, with Wilson's interval",
                report->images, work->calibration->images);
    say("\n%-24s %8s %10s %11s  %-13s %8s\n", "node alone", "SQNR dB", "KL", "agreement",
        "95 % interval", "points");
    for (int i = 0; i < report->items; i++)
        print_cost(report->item[i].node, &report->item[i].cost, report->images);
    print_cost("all of them", &report->whole, report->images);
}

static void print_report(const job *work) {
    const char *part = work->given->show;

    if (shows_part(part, "nodes"))
        print_nodes(work);
    if (!shows_part(part, "advice"))
        return;
    if (!part)
        say("\n");
    say_wrapped(0, "%s",
                work->advice.items
                    ? "What would help, the most first, in agreement on these images:"
                    : "None of the changes tried would help.");
    for (int i = 0; i < work->advice.items; i++)
        say_wrapped(4, "  %s (%s).", work->advice.item[i].text,
                    advice_scope(&work->advice.item[i]));
}

#ifdef PTQ_HAVE_jansson

static int write_json(const job *work) {
    const node_ranking *report = &work->report;
    json_t *nodes = json_array(), *remedies = json_array();

    for (int i = 0; i < report->items; i++) {
        json_t *item = json_divergence(&report->item[i].cost, report->images);

        json_object_set_new(item, "node", json_string(report->item[i].node));
        json_set_count(item, "bytes", report->item[i].bytes);
        json_array_append_new(nodes, item);
    }
    for (int i = 0; i < work->advice.items; i++) {
        const advice *item = &work->advice.item[i];

        json_array_append_new(remedies,
                              json_pack("{s:s,s:s,s:s,s:f}", "node", item->node, "text", item->text,
                                        "scope", advice_scope(item), "gain_pp", item->gain_pp));
    }
    return json_finish(
        json_pack("{s:i,s:s,s:s,s:s,s:I,s:o,s:o,s:o}", "schema_version", SCHEMA_VERSION,
                  "model_path", work->model_path, "data_dir", work->from.path, "scheme",
                  work->scheme, "images", (json_int_t)report->images, "nodes", nodes, "whole",
                  json_divergence(&report->whole, report->images), "advice", remedies));
}

#else

static int write_json(const job *work) {
    (void)work;
    return 1;
}

#endif

static int run(job *work) {
    if (choose_scheme(work->given, &work->options.scheme) ||
        find_model(work->given->model, work->model_path) ||
        data_find(&work->given->data, &work->from) ||
        engine_open(work->model_path, 1, NULL, &work->ready) ||
        sample_open(&work->from, work->ready.plan, work->given->samples, work->given->seed,
                    &work->drawn) ||
        calibrate_on(work->ready.plan, &work->drawn, work->given->threads, &work->calibration))
        return 1;
    print_warnings(work->calibration);
    if (look(work))
        return 1;
    print_report(work);
    return work->given->json ? write_json(work) : 0;
}

int command_sensitivity(int argc, char **argv) {
    static const char *const parts[] = {"nodes", "advice", NULL};
    sensitivity_options o = {.preset = "best", .seed = 42, .measure = 500};
    job work = {0};
    int parsed = parse(argc, argv, &o), status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (o.threads == 0)
        o.threads = count_cores();
    if (check_part(o.show, parts) || json_setup(o.json))
        return 1;
    work.given = &o;
    status = run(&work);
    ptq_release(&work.report.memory);
    ptq_calibration_free(work.calibration);
    sample_close(&work.drawn);
    engine_close(&work.ready);
    return status;
}
