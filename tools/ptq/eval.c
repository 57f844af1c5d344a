/* ptq eval: accuracy on a data set, alone or against a float model. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "data/calibration.h"
#include "data/dataset.h"
#include "data/find.h"
#include "measure/accuracy.h"
#include "measure/layers.h"
#include "measure/meaning.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/pixels.h"

typedef struct eval_options {
    data_options data;
    const char *model, *baseline, *calibration, *json, *show;
    int threads, no_fuse, show_confusion, show_flips, layers;
    const char *margin_text;
    double margin; /* points that a model may be worse by */
} eval_options;

static const command_help help = {
    "eval [--model MODEL] [--baseline FLOATMODEL] [--data PATH] [OPTIONS]",
    "Classifies the test images and counts what is right; with a baseline, both models on the "
    "same\n"
    "images. A float model is fused first; a self-test vector in the file is checked.",
    "ptq eval --model int8.safetensors --baseline resnet8.safetensors --flips"};

static int parse(int argc, char **argv, eval_options *o) {
    const option_spec specs[] = {
        {"model", 'm', "MODEL", "model file (.safetensors)", .text = &o->model, .file = READ_FILE},
        {"baseline", 'b', "MODEL", "float model to compare with", .text = &o->baseline,
         .file = READ_FILE},
        DATA_OPTIONS(&o->data),
        {"limit", 'n', "N", "only the first N images", .number = &o->data.limit, .least = 1},
        {"threads", 't', "T", "threads (default: all cores)", .number = &o->threads, .least = 1},
        {"no-fuse", 0, NULL, "run a float graph as it is", .flag = &o->no_fuse},
        {"confusion", 0, NULL, "show the confusion matrix", .flag = &o->show_confusion},
        {"flips", 0, NULL, "list the images that became right or wrong", .flag = &o->show_flips},
        {"layers", 0, "N", "compare every layer on the first N images", .number = &o->layers,
         .least = 1},
        {"calibration", 'c', "FILE", "refuse images that this was calibrated on",
         .text = &o->calibration, .file = READ_FILE},
        OPTION_SHOW(o->show, "accuracy, comparison, classes, layers"),
        {"margin", 0, "P", MARGIN_HELP, .text = &o->margin_text},
        OPTION_JSON(o->json),
        {0}};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

/* One model's part of the report. */
typedef struct outcome {
    char path[PATH_SIZE], backend[64];
    engine ready;
    ptq_evaluation result;
} outcome;

/* What the two say together. */
typedef struct pair {
    const eval_options *given;
    outcome model, baseline;
    ptq_comparison compared;
    layer_report layers;
    size_t layer_images;
    data_request from;
    const char *const *class_name;
} pair;

static int open_outcome(const eval_options *o, const char *option, const char *data, outcome *out) {
    char precision[32];

    if (find_model_for(option, data, out->path) ||
        engine_open(out->path, !o->no_fuse, NULL, &out->ready) || engine_self_test(&out->ready))
        return 1;
    describe_precision(out->ready.model, precision, sizeof precision);
    snprintf(out->backend, sizeof out->backend, "ptq %s %s",
             ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(out->ready.plan)->isa), precision);
    return 0;
}

static void close_outcome(outcome *from) {
    ptq_release(&from->result.memory);
    engine_close(&from->ready);
}

/* ---- Text ---- */

static void print_classes(const ptq_evaluation *result, const ptq_evaluation *baseline,
                          const char *const *name) {
    say("\n%-12s %7s %7s %9s%s\n", "class", "right", "of", "accuracy",
        baseline ? "   baseline                change" : "");
    for (int c = 0; c < result->classes; c++) {
        double share = 100 * fraction(result->class_correct[c], result->class_total[c]);

        say("%-12s %7zu %7zu %7.2f %%", name[c], result->class_correct[c], result->class_total[c],
            share);
        if (baseline) {
            double before = 100 * fraction(baseline->class_correct[c], baseline->class_total[c]);

            say("  %9zu  %7.2f %%  %+10.2f", baseline->class_correct[c], before, share - before);
        }
        say("\n");
    }
}

static void print_confusion(const char *what, const ptq_evaluation *result,
                            const char *const *name) {
    int classes = result->classes;

    int wide = classes <= 10 ? 5 : 4;

    say("\n%s; rows: what it is, columns: what the model says\n%-12s", what, "");
    for (int c = 0; c < classes; c++)
        say(" %*.*s", wide, wide, name[c]);
    say("\n");
    for (int label = 0; label < classes; label++) {
        say("%-12s", name[label]);
        for (int c = 0; c < classes; c++)
            say(" %*zu", wide, result->confusion[label * classes + c]);
        say("\n");
    }
}

/* 1 if the image became right or wrong. */
static int is_flip(const pair *both, size_t i) {
    const ptq_evaluation *a = &both->model.result, *b = &both->baseline.result;

    return (a->prediction[i] == a->label[i]) != (b->prediction[i] == b->label[i]);
}

static void print_flips(const pair *both, const char *const *name) {
    const ptq_evaluation *a = &both->model.result, *b = &both->baseline.result;

    if (both->compared.lost + both->compared.won == 0) {
        say("\nno image became right or wrong\n");
        return;
    }
    say("\n%7s  %-12s %-12s %-12s %s\n", "image", "is", "baseline", "model", "flip");
    for (size_t i = 0; i < a->total; i++)
        if (is_flip(both, i))
            say("%7zu  %-12s %-12s %-12s %s\n", i, name[a->label[i]], name[b->prediction[i]],
                name[a->prediction[i]],
                a->prediction[i] == a->label[i] ? "wrong to right" : "right to wrong");
}

static void print_layers(const layer_report *report, size_t images) {
    say("\n%zu image%s: each tensor beside the baseline's\n%-24s %9s %14s %10s\n", images,
        images > 1 ? "s" : "", "tensor", "SQNR dB", "largest error", "clipped");
    for (int i = 0; i < report->items; i++) {
        const layer_error *item = &report->item[i];

        say("%-24s %9.1f %14.3g %8.4f %%\n", item->name, item->sqnr_db, (double)item->largest,
            100 * item->clipped);
    }
}

static evidence evidence_of(const pair *both) {
    evidence e = {&both->compared, both->model.path, both->baseline.path, NULL, 0, 0, 0, 0};

    e.scheme = ptq_model_get_meta(both->model.ready.model, "scheme");
    e.classes = (size_t)both->model.result.classes;
    e.margin = both->given->margin;
    return e;
}

/* The last line: what it comes to. Alone, a model can only be said to be right so often. */
static void print_meaning(const pair *both) {
    const ptq_evaluation *a = &both->model.result;
    evidence e = evidence_of(both);
    double low, high;

    if (both->given->baseline) {
        say_meaning(&e);
        fflush(stdout);
        warn_of_loss(&e);
        return;
    }
    ptq_share_interval(a->correct, a->total, &low, &high);
    say("\n");
    say_wrapped(
        0,
        "In short: it is right on %.1f %% of these images (95 %% interval %.1f to %.1f %%); "
        "--baseline shows what quantization cost.",
        100 * fraction(a->correct, a->total), 100 * low, 100 * high);
}

static void print_head(const pair *both) {
    char bytes[COUNT_SIZE];

    say_wrapped(10, "model     %s (%s, %s bytes)", both->model.path, both->model.backend,
                count_text(file_size(both->model.path), bytes));
    if (both->given->baseline)
        say_wrapped(10, "baseline  %s (%s, %s bytes)", both->baseline.path, both->baseline.backend,
                    count_text(file_size(both->baseline.path), bytes));
    say("data      %s\n", both->from.path);
}

static void print_details(const pair *both) {
    const char *const *name = both->class_name;
    const ptq_evaluation *b = both->given->baseline ? &both->baseline.result : NULL;

    if (both->given->show_confusion)
        print_confusion("model", &both->model.result, name);
    if (both->given->show_confusion && b)
        print_confusion("baseline", b, name);
    if (both->given->show_flips)
        print_flips(both, name);
}

static void print_report(const pair *both) {
    const char *part = both->given->show;
    const ptq_evaluation *a = &both->model.result;
    const ptq_evaluation *b = both->given->baseline ? &both->baseline.result : NULL;
    int compares = shows_part(part, "comparison");

    if (!part)
        print_head(both);
    if (shows_part(part, "accuracy") || compares)
        print_accuracy("accuracy", a);
    if (b && compares) {
        print_accuracy("baseline", b);
        print_comparison(&both->compared, both->given->margin);
    }
    if (shows_part(part, "classes"))
        print_classes(a, b, both->class_name);
    if (!part)
        print_details(both);
    if (both->given->layers && shows_part(part, "layers"))
        print_layers(&both->layers, both->layer_images);
    if (!part)
        print_meaning(both);
}

/* ---- JSON ---- */

#ifdef PTQ_HAVE_jansson

static json_t *confusion_json(const ptq_evaluation *result) {
    json_t *rows = json_array();

    for (int label = 0; label < result->classes; label++) {
        json_t *row = json_array();

        for (int c = 0; c < result->classes; c++)
            json_array_append_new(
                row, json_integer((json_int_t)result->confusion[label * result->classes + c]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *outcome_json(const outcome *from, const pair *both) {
    const char *const *name = both->class_name;
    const ptq_evaluation *result = &from->result;
    json_t *made = json_object(), *classes = json_array();

    json_object_set_new(made, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(made, "backend", json_string(from->backend));
    json_object_set_new(made, "model_path", json_string(from->path));
    json_object_set_new(made, "data_dir", json_string(both->from.path));
    json_set_count(made, "file_bytes", file_size(from->path));
    json_object_set_new(made, "overall", json_overall(result));
    for (int c = 0; c < result->classes; c++) {
        json_t *item = json_accuracy(result->class_correct[c], result->class_total[c]);

        json_object_set_new(item, "class_name", json_string(name[c]));
        json_array_append_new(classes, item);
    }
    json_object_set_new(made, "per_class", classes);
    if (both->given->show_confusion)
        json_object_set_new(made, "confusion", confusion_json(result));
    return made;
}

static json_t *flips_json(const pair *both) {
    const ptq_evaluation *a = &both->model.result, *b = &both->baseline.result;
    json_t *list = json_array();

    for (size_t i = 0; i < a->total; i++)
        if (is_flip(both, i))
            json_array_append_new(list, json_pack("{s:I,s:i,s:i,s:i}", "index", (json_int_t)i,
                                                  "label", a->label[i], "baseline",
                                                  b->prediction[i], "model", a->prediction[i]));
    return list;
}

static json_t *layers_json(const layer_report *report) {
    json_t *list = json_array();

    for (int i = 0; i < report->items; i++) {
        const layer_error *item = &report->item[i];
        json_t *made = json_pack("{s:s,s:f,s:f}", "name", item->name, "largest",
                                 (double)item->largest, "clipped", item->clipped);

        /* JSON has no infinity; a tensor without any error has null. */
        json_object_set_new(made, "sqnr_db",
                            isfinite(item->sqnr_db) ? json_real(item->sqnr_db) : json_null());
        json_array_append_new(list, made);
    }
    return list;
}

static int write_json(const pair *both) {
    json_t *root = outcome_json(&both->model, both);
    char text[MEANING_SIZE];
    evidence e;

    if (both->given->baseline) {
        json_object_set_new(root, "baseline", outcome_json(&both->baseline, both));
        json_set_comparison(root, &both->compared, both->given->margin);
        e = evidence_of(both);
        json_object_set_new(root, "in_short", json_string(meaning_text(&e, text)));
        json_object_set_new(json_object_get(root, "flips"), "images", flips_json(both));
    }
    if (both->given->layers)
        json_object_set_new(root, "layers", layers_json(&both->layers));
    return json_finish(root);
}

#else

static int write_json(const pair *both) {
    (void)both;
    return 1;
}

#endif

/* ---- Evaluating ---- */

static int check_calibration(const eval_options *o, const ptq_dataset *data) {
    ptq_calibration *calibration = NULL;
    ptq_error err;
    int status;

    if (!o->calibration)
        return 0;
    if (ptq_calibration_load(o->calibration, NULL, &calibration, &err))
        return fail("%s", err.text);
    status = refuse_overlap(calibration, data);
    ptq_calibration_free(calibration);
    return status;
}

static int compare(pair *both, const ptq_dataset *data) {
    ptq_error err;

    if (ptq_compare(&both->baseline.result, &both->model.result, &both->compared, &err))
        return fail("%s", err.text);
    if (both->given->layers && compare_layers(both->baseline.ready.plan, both->model.ready.plan,
                                              data, both->layer_images, &both->layers, &err))
        return fail("%s", err.text);
    return 0;
}

static int evaluate_both(pair *both, const ptq_dataset *data) {
    if (check_calibration(both->given, data) ||
        evaluate_plan(both->model.ready.plan, data, "eval", both->given->threads,
                      &both->model.result))
        return 1;
    if (!both->given->baseline)
        return 0;
    return evaluate_plan(both->baseline.ready.plan, data, "baseline", both->given->threads,
                         &both->baseline.result) ||
           compare(both, data);
}

static int evaluate(pair *both) {
    const char *baseline = both->given->baseline;
    data_set *opened;
    const ptq_dataset *data;
    int status;

    if (open_outcome(both->given, both->given->model, both->from.path, &both->model) ||
        (baseline && open_outcome(both->given, baseline, both->from.path, &both->baseline)) ||
        warn_of_pixels_in(baseline ? both->baseline.path : both->model.path, "import it again") ||
        data_open(&both->from, PTQ_SPLIT_TEST, both->model.ready.plan, &opened))
        return 1;
    data = data_view(opened);
    both->class_name = data->class_name;
    both->layer_images = (size_t)both->given->layers;
    if (both->layer_images > data->count)
        both->layer_images = data->count;
    if (data_is_labelled(opened))
        status = evaluate_both(both, data);
    else
        status = fail("%s has no labels to compare with; name them with --labels, or take 'ptq "
                      "run'",
                      both->from.path);
    if (!status)
        print_report(both);
    if (!status && both->given->json)
        status = write_json(both);
    data_close(opened);
    return status;
}

int command_eval(int argc, char **argv) {
    static const char *const parts[] = {"accuracy", "comparison", "classes", "layers", NULL};
    eval_options o = {0};
    int parsed = parse(argc, argv, &o);
    pair both = {.given = &o};
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if ((o.show_flips || o.layers) && !o.baseline)
        return misuse("--flips and --layers compare with a float model; give it with --baseline");
    if (o.show && strcmp(o.show, "layers") == 0 && !o.layers)
        return misuse("--show layers goes with --layers N, the number of images");
    if (o.threads == 0)
        o.threads = count_cores();
    if (check_part(o.show, parts) || read_margin(o.margin_text, &o.margin) || json_setup(o.json) ||
        data_find(&o.data, &both.from))
        return 1;
    status = evaluate(&both);
    layer_report_free(&both.layers);
    close_outcome(&both.model);
    close_outcome(&both.baseline);
    return status;
}
