/* What the parts of figures share: the source (source.c), what is drawn with (drawing.c), and a
   figure a function, a chapter a file. */
#ifndef PTQ_FIGURES_H
#define PTQ_FIGURES_H

#include <stddef.h>
#include <stdio.h>

#include "ptq.h"
#include "report/svg.h"

enum { WIDTH = 640, SAMPLES = 100, PATH_SIZE = 4096 };

/* What the figures are drawn from; made when it is first asked for. */
typedef struct source {
    const char *model_path, *data_path;
    size_t images;
    ptq_model *original, *fused;
    ptq_plan *plan; /* scalar */
    ptq_cifar10 *train, *test;
    size_t index[SAMPLES];
    ptq_subset subset;
    ptq_dataset tested;
    ptq_calibration *calibration;
    ptq_evaluation before;
    ptq_error err;
} source;

/* ---- source.c: 0, or 1 after an error, which was printed ---- */

int fail(const char *text);
int did(source *s, ptq_status status); /* every call into the library goes through this */
int open_source(source *s);
int calibrate(source *s);
int evaluate(source *s, const ptq_model *model, ptq_evaluation *out);
int convert(source *s, const ptq_scheme *scheme, ptq_model **out);
void close_source(source *s);
double largest_of(const ptq_tensor *weight, int channel); /* of the absolute values */

/* ---- drawing.c ---- */

void open_figure(FILE *out, int height, const char *title);
void dot(FILE *out, double x, double y, double radius, const char *classes);
void vertical_ticks(FILE *out, const svg_axis *y, double left, double right, const char *format);
void curve(FILE *out, const svg_axis *x, const svg_axis *y, const double *at, const double *value,
           int n, const char *classes);

enum { MOST_BARS = 64 };

/* `low` and `high` are the ends of the value's interval; both 0 if it has none. */
typedef struct bar {
    char name[96];
    double value, low, high;
} bar;

/* Horizontal bars with their values, and their intervals as lines across the ends. */
void draw_bars(FILE *out, const char *title, const bar *bars, int n, const char *format,
               const char *note);

/* ---- The figures: each draws, and prints what it shows ---- */

int draw_network(source *s, FILE *out);
int draw_window(source *s, FILE *out);
int draw_number_line(source *s, FILE *out);
int draw_fold(source *s, FILE *out);
int draw_observers(source *s, FILE *out);
int draw_trace(source *s, FILE *out);
int draw_residual(source *s, FILE *out);
int draw_channels(source *s, FILE *out);
int draw_bits(source *s, FILE *out);
int draw_kernel(source *s, FILE *out);
int draw_mistakes(source *s, FILE *out);
int draw_interval(source *s, FILE *out);
int draw_sensitivity(source *s, FILE *out);

#endif
