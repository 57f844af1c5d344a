/* What the parts of ptq report share: the measurements (measure.c), the figures made of them
   (figures.c), the advice (advice.c), the page (html.c, pictures.c) and the single figure (png.c). */
#ifndef PTQ_TOOL_REPORT_H
#define PTQ_TOOL_REPORT_H

#include <stdint.h>
#include <stdio.h>

#include "data/dataset.h"
#include "data/images.h"
#include "measure/advice.h"
#include "measure/layers.h"
#include "measure/meaning.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"

#define MOST_SUBJECTS 12

/* How often each code occurred in a tensor. */
typedef struct code_count {
    ptq_qparams q; /* type PTQ_TYPE_F32: the tensor is not coded */
    uint64_t count[256];
    uint64_t total;
} code_count;

/* One model on the images that are reported. */
typedef struct subject {
    char path[PATH_SIZE], name[64], precision[32];
    size_t bytes;
    engine ready;
    ptq_evaluation result;
    ptq_comparison compared; /* with the float model */
    layer_report layers;
    code_count *codes; /* for each tensor of the calibration */
} subject;

typedef struct report {
    data_request from;
    data_set *test;
    ptq_dataset images; /* reported on */
    const char *const *class_name;
    subject baseline, model[MOST_SUBJECTS];
    int models;
    image_sample drawn; /* training images: ranges and histograms come from these */
    ptq_calibration *seen;
    size_t layer_images;
    const char *command; /* as it was typed */
    int seed, threads;
    double margin;          /* points that a model may be worse by and be recommended */
    const subject *advised; /* which model the advice is for; NULL: none was asked for */
    node_ranking ranking;
    advice_list remedies;
} report;

/* What is to be measured. */
typedef struct report_request {
    const char *model[MOST_SUBJECTS]; /* quantized ones, then NULL */
    const char *baseline;
    data_options data; /* its limit is that of test images */
    int samples, seed; /* training images for ranges and histograms */
    int threads;
    int advice;
    const char *margin; /* NULL: the default */
    const char *command;
} report_request;

/* Fills a report that is all zeros. 0, or 1 after an error; close it in either case. */
int measure_report(const report_request *wanted, report *r);
void close_report(report *r);

/* What a figure can show: of all models together, of one model, or of one tensor in one model. */
typedef enum figure_scope { OF_ALL, OF_MODEL, OF_TENSOR } figure_scope;

typedef struct figure {
    const char *name;
    figure_scope scope;
    const char *about;
    void (*draw)(FILE *out, const report *r, const subject *s, int tensor); /* one <svg> element */
} figure;

enum { FIGURE_WIDTH = 400 }; /* pixels */
void draw_histogram(FILE *out, const report *r, const subject *s, int tensor);

/* Ends with a NULL name. */
extern const figure report_figures[];

/* The model's range for the tensor: coded values reach from low to high. */
void coded_range(const ptq_qparams *q, double *low, double *high);

/* The parameters of the tensor's codes in a model; type PTQ_TYPE_F32 where there are none. */
ptq_qparams tensor_codes(const ptq_model *model, const char *tensor);

/* The tensor with the least SQNR; NULL if there is none. */
const layer_error *weakest_layer(const subject *s);

/* Fills `advised`, `ranking` and `remedies`; 0, or 1 after an error. And their section. */
int measure_advice(report *r, int threads);
void write_advice(FILE *out, const report *r);

/* pictures.c: those that got another answer than from the float model. */
void write_pictures(FILE *out, const report *r, const subject *s);

/* The smallest file among the models that are shown to be as good as float; NULL: none is. What a
   model comes to, and one sentence about all of them. */
const subject *find_bargain(const report *r);
evidence evidence_of(const report *r, const subject *s);
const char *report_meaning(const report *r, char text[MEANING_SIZE]);

void write_page(FILE *out, const report *r);

/* One figure alone, of the first model. */
typedef struct png_request {
    const char *path, *figure, *tensor; /* tensor NULL: the first */
} png_request;

/* Whether this build can draw it: to be asked before long work. */
int check_png(const png_request *wanted);
int save_png(const report *r, const png_request *wanted);

#endif
