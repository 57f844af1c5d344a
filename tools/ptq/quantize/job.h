/* What the files of ptq quantize share: its options, and the state of its work. */
#ifndef PTQ_TOOL_QUANTIZE_JOB_H
#define PTQ_TOOL_QUANTIZE_JOB_H

#include <string.h>

#include "data/dataset.h"
#include "data/find.h"
#include "data/images.h"
#include "export/c_header.h"
#include "measure/mix.h"
#include "ptq.h"
#include "shared/engine.h"
#include "train/learn.h"

#define MOST_NODES 64
#define BEST_HIGH "best-high" /* the preset of the tool alone */
#define ACCURACY_SIZE 61      /* a short text: it travels with the model */

typedef struct quantize_options {
    data_options data;
    const char *model, *output, *calibration, *json, *preset, *weight_method, *activation_method,
        *percentile, *activation_type, *rounding, *refit, *bias_correction, *node[MOST_NODES],
        *average_bits, *accuracy_drop, *minutes, *checkpoint, *arithmetic;
    int samples, seed, threads, weight_bits, activation_bits, per_tensor, per_channel,
        weight_affine, weight_symmetric, symmetric, code_logits, float_logits, dry_run, no_measure,
        budget, flash, resume, equalize, fit_ranges,
        confirm; /* the last three: -1 as the preset has it */
    const char *margin_text;
    double margin; /* points that a model may be worse by */
} quantize_options;
/* What the work needs and makes. */
typedef struct job {
    const quantize_options *given;
    char model_path[PATH_SIZE];
    data_request from; /* its path empty: there are no data */
    ptq_scheme scheme;
    ptq_override override[MOST_NODES];
    char pattern[MOST_NODES][128];
    int overrides;
    int calibrates, learns, rounds; /* some node needs it, learns its rounding */
    int learns_on;                  /* preset best-high */
    double minutes;                 /* for that; 0: as usual */
    learn_report learned;
    engine ready; /* the fused float model, then the quantized one */
    engine quantized;
    image_sample drawn;
    learn_images split; /* the same, to learn on from */
    data_set *test;
    ptq_calibration *calibration;
    ptq_convert_report plan;
    ptq_fuse_report fused;
    mix_goal goal;
    header_flash flash; /* with --flash: what the standalone header of the model takes */
    mix_report mix;
    ptq_evaluation before, after;
    ptq_comparison compared;
    int seen; /* measured on calibration images, as there are no others */
    char accuracy[ACCURACY_SIZE];
} job;

static inline int has_goal(const job *work) {
    return work->given->flash || work->goal.bytes || work->goal.average_bits > 0 ||
           work->goal.drop_pp > 0;
}

/* What is computed without images is no part of a scheme: it comes after the conversion. */
static inline int is_analytic(const quantize_options *o) {
    return o->bias_correction && strcmp(o->bias_correction, "analytic") == 0;
}

/* ---- scheme.c: from the options. 0, or 1 after an error ---- */

int choose_scheme(job *work);
int choose_goal(job *work);
int choose_overrides(job *work); /* when the float model is there */

/* ---- outcome.c ---- */

/* What was done and what came of it, as text. */
void print_outcome(const job *work);

/* The same for machines; 0, or 1 after an error. */
int write_json(const job *work);

#endif
