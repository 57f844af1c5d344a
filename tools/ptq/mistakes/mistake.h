/* What the parts of ptq mistake share: measuring (measure.c), mistakes made with images and numbers
   (data.c), with the graph (graph.c), in the kernel (kernel.c). */
#ifndef PTQ_TOOL_MISTAKE_H
#define PTQ_TOOL_MISTAKE_H

#include <stddef.h>

#include "data/images.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"

/* What every mistake starts from, and the right way to which it is compared. Calibration runs on
   scalar kernels, so that the numbers are the same on every processor. */
typedef struct lab {
    char model_path[PATH_SIZE];
    data_request from;
    int samples, seed;
    ptq_scheme scheme;            /* learns nothing */
    ptq_model *original;          /* float, as loaded */
    engine real;                  /* fused, float */
    image_sample drawn;           /* to calibrate on */
    ptq_calibration *calibration; /* the right one */
    ptq_model *quantized;         /* the right one */
    data_set *test;
    ptq_dataset images;    /* to measure on */
    ptq_evaluation before; /* the float model on them */
} lab;

typedef struct mistake {
    const char *name;
    const char *about;
    int (*commit)(lab *at);
    int (*check)(const lab *at); /* fails if it cannot be made with this model or data; or NULL */
} mistake;

int mistake_random(lab *at);
int mistake_few(lab *at);
int mistake_preprocessing(lab *at);
int mistake_scale(lab *at);
int mistake_runs(lab *at);
int mistake_unfused(lab *at);
int mistake_training(lab *at);
int mistake_relu(lab *at);
int mistake_saturation(lab *at);

int check_parts(const lab *at);      /* test images for several parts */
int check_batch_norm(const lab *at); /* a model that is not fused yet */
int check_layers(const lab *at);     /* operators that mistake_saturation knows */

/* Answers counted beside those of the float model on the same images. */
typedef struct tally {
    size_t total, right, agree;
} tally;

/* One answer to image `index` of lab.images. */
void count_answer(tally *sum, const lab *at, size_t index, int prediction);

/* A line of the result: accuracy, change against float, agreement. */
void print_row(const char *how, const lab *at, const tally *sum);

/* A plan for $PTQ_ISA, else for the best instruction set. */
int make_plan(const ptq_model *model, ptq_plan **out);

/* Measures on lab.images, or on others with the same labels. */
int measure_plan(const char *how, const lab *at, const ptq_plan *plan, const ptq_dataset *images);
int measure_model(const char *how, const lab *at, const ptq_model *model,
                  const ptq_dataset *images);

/* Calibrates a float model on images; `accept_any` takes what the library refuses. */
int calibrate_any(const ptq_model *model, const ptq_dataset *images, int accept_any,
                  ptq_calibration **out);

/* Converts the fused model by a calibration; and measures the result. */
int convert_lab(const lab *at, const ptq_calibration *calibration, const ptq_scheme *scheme,
                ptq_model **out);
int measure_calibration(const char *how, const lab *at, const ptq_calibration *calibration,
                        const ptq_scheme *scheme);

/* The guard: what says so, and in which words. */
void print_guard(const char *where, const char *words);

/* Every line of a calibration's warnings as a guard. */
void print_warning_guards(const ptq_calibration *calibration);

#endif
