/* What ptq quantize is asked for: a preset, single choices over it, other schemes for some nodes, or
   a goal. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"
#include "quantize/job.h"
#include "shared/output.h"
#include "train/checkpoint.h"

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
    const char *word = o->bias_correction ? o->bias_correction : "none";

    if (strcmp(word, "empirical") == 0)
        scheme->bias = PTQ_BIAS_CORRECTION_EMPIRICAL;
    else if (strcmp(word, "none") != 0 && !is_analytic(o))
        return misuse("--bias-correction is none, empirical or analytic, not '%s'", word);
    return 0;
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
    if (scheme->mode != PTQ_MODE_INTEGER)
        return;
    work->rounds |= scheme->rounding == PTQ_ROUNDING_LEARNED;
    work->learns |= work->rounds || scheme->bias || scheme->equalize || scheme->fit_ranges;
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

/* How long to learn, and what from. */
static int choose_learning(job *work) {
    const quantize_options *o = work->given;

    if (!work->learns_on && (o->minutes || o->checkpoint || o->resume))
        return misuse("--minutes, --checkpoint and --resume belong to --preset " BEST_HIGH);
    return read_positive("minutes", o->minutes, &work->minutes) ||
           checkpoint_refuse_resume(o->resume, o->checkpoint);
}

int choose_scheme(job *work) {
    ptq_error err;

    work->learns_on = strcmp(work->given->preset, BEST_HIGH) == 0;
    if (work->learns_on && work->given->arithmetic && strcmp(work->given->arithmetic, "onnx") != 0)
        return fail(BEST_HIGH " learns in the arithmetic onnx; take --preset best, or leave out "
                              "--arithmetic");
    if (ptq_preset(work->learns_on ? "best" : work->given->preset, &work->scheme, &err))
        return misuse("%s, " BEST_HIGH, err.text);
    if (choose_learning(work))
        return 1;
    if (refuse_for_mode(work->given, &work->scheme) || apply_choices(work->given, &work->scheme) ||
        scheme_error(NULL, &work->scheme))
        return 1;
    note_needs(work, &work->scheme);
    work->learns |= work->learns_on;
    return 0;
}

int choose_overrides(job *work) {
    for (int i = 0; i < MOST_NODES && work->given->node[i]; i++) {
        if (add_override(work, work->given->node[i]))
            return 1;
        note_needs(work, &work->override[i].scheme);
    }
    return work->rounds && is_analytic(work->given)
               ? fail("--bias-correction analytic goes with rounding to nearest; learned rounding "
                      "corrects biases on images")
               : 0;
}

/* ---- A goal ---- */

int choose_goal(job *work) {
    work->goal.bytes = (size_t)work->given->budget;
    if (read_positive("average-bits", work->given->average_bits, &work->goal.average_bits) ||
        read_positive("accuracy-drop", work->given->accuracy_drop, &work->goal.drop_pp))
        return 1;
    if (!has_goal(work))
        return 0;
    if (work->given->flash && work->given->budget)
        return misuse("--flash sets the budget; leave out --budget");
    if (work->given->node[0] || work->given->weight_bits)
        return misuse("a goal chooses the bits of every layer; leave out --weight-bits and --node");
    if (work->given->dry_run)
        return misuse("what a goal leads to is found by converting; leave out --dry-run");
    if (work->scheme.mode != PTQ_MODE_INTEGER)
        return misuse("preset %s has no bits to choose; name another", work->given->preset);
    work->learns = 1; /* or is measured on images, at least */
    return 0;
}
