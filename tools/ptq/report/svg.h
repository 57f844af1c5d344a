/* Drawing SVG: what the figures of ptq report and those of docs/ share. Units are pixels; `classes`
   are those of write_figure_style: f-NAME fills, s-NAME strokes, with the names ink, mut (muted),
   lin (lines) and c1 to c6; thin and thick are widths; of text, small, mid and end. */
#ifndef PTQ_TOOL_SVG_H
#define PTQ_TOOL_SVG_H

#include <stdio.h>

/* The rules for colours and lines that all figures use: for the page, where they follow the
   reader's preference, or inside a single figure, with fixed colours; and for text, whose size in
   pixels is `small`, and 1.5 more where it is not small. */
void write_figure_style(FILE *out, int fixed, double small);
#define REPORT_TEXT 12.0 /* for those who read on paper, or at arm's length */

/* `text` with what HTML and SVG need escaped. */
void put_text(FILE *out, const char *text);

/* The element itself, with a title for those who do not see it. */
void svg_begin(FILE *out, int width, int height, const char *title);
void svg_end(FILE *out);

void svg_line(FILE *out, double x1, double y1, double x2, double y2, const char *classes);
void svg_box(FILE *out, double x, double y, double w, double h, const char *classes, double alpha);
void svg_label(FILE *out, double x, double y, const char *classes, const char *text);
/* The same in at most `wide` pixels: what is too long loses its middle, for its ends tell names of
   layers and files apart. */
void svg_fitted(FILE *out, double x, double y, double wide, const char *classes, const char *text);
double svg_width(const char *text); /* of small text, about */
void svg_number(FILE *out, double x, double y, const char *classes, const char *format,
                double value);

/* A linear scale from values to pixels. */
typedef struct svg_axis {
    double low, high, from, to;
} svg_axis;
double svg_place(const svg_axis *a, double value);

/* A round step of which about `wanted` fit into the axis: 1, 2 or 5 times a power of ten. */
double svg_tick_step(const svg_axis *a, int wanted);

/* Ticks of a horizontal axis at height y, with grid lines up to `top`. */
void svg_ticks(FILE *out, const svg_axis *a, double y, double top, const char *format);

/* "c1" for 0, and so on, six in turn. */
const char *svg_colour(int i);

#endif
