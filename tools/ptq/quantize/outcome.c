/* What ptq quantize says at its end, as text and as JSON. */
#include <stdio.h>
#include <string.h>

#include "data/calibration.h"
#include "measure/accuracy.h"
#include "measure/meaning.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "quantize/job.h"
#include "shared/files.h"
#include "shared/islands.h"
#include "shared/output.h"

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
static void print_mix(const mix_report *mix) {
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
    if (work->given->flash)
        say("flash     %s of %d bytes: constants, and about %s of code\n",
            count_text(work->flash.constants + work->flash.code, before), work->given->flash,
            count_text(work->flash.code, after));
    say_written(work->given->output, "%s bytes",
                count_text(file_size(work->given->output), before));
    if (work->after.total)
        print_meaning(work);
}

static void print_learning(const learn_report *r) {
    if (r->rate > 0)
        say("learned   %zu steps at rate %g: KL %.5f, before %.5f, on %zu images held out\n",
            r->steps, r->rate, r->after, r->before, r->held);
    else
        say("learned   nothing that %zu images held out confirm (KL %.5f): this is best's model\n",
            r->held, r->before);
}

void print_outcome(const job *work) {
    print_scheme(work);
    print_floats(work);
    if (work->given->dry_run) {
        print_plan(&work->plan);
        return;
    }
    if (work->learns_on)
        print_learning(&work->learned);
    print_result(work);
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
static json_t *mix_json(const mix_report *mix) {
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

static json_t *learned_json(const learn_report *r) {
    return json_pack("{s:b,s:f,s:I,s:I,s:I,s:f,s:f}", "kept", r->rate > 0, "rate", r->rate, "steps",
                     (json_int_t)r->steps, "images", (json_int_t)r->learned, "held_out",
                     (json_int_t)r->held, "kl_before", r->before, "kl_after", r->after);
}

int write_json(const job *work) {
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
    if (work->learned.held)
        json_object_set_new(root, "learned", learned_json(&work->learned));
    if (work->mix.items)
        json_object_set_new(root, "mixed", mix_json(&work->mix));
    if (work->given->flash)
        json_set_count(root, "flash_bytes", work->flash.constants + work->flash.code);
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

int write_json(const job *work) {
    (void)work;
    return 1;
}

#endif
