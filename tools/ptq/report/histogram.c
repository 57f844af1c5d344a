/* The figure of a tensor: its values, its codes, and the ranges that observers choose. */
#include <math.h>
#include <stdio.h>

#include "measure/accuracy.h"
#include "ptq.h"
#include "report/report.h"
#include "report/svg.h"

#define COLUMNS 76
#define ROW 15 /* of the list of ranges */

/* Counts of float values and of codes in equal columns from low to high. Exact zeros of the float
   tensor stand apart: after ReLU they would dwarf the rest. */
typedef struct columns {
    double low, high, real[COLUMNS], code[COLUMNS], zeros;
} columns;

static void add_to(const columns *c, double *to, double value, double count) {
    int i = (int)((value - c->low) / (c->high - c->low) * COLUMNS);

    to[i < 0 ? 0 : i >= COLUMNS ? COLUMNS - 1 : i] += count;
}

/* Spreads what lies between two values over the columns, as evenly as one knows. */
static void spread(const columns *c, double *to, double from, double until, double count) {
    double width = (c->high - c->low) / COLUMNS;
    int parts = 1 + (int)((until - from) / width * 2);

    parts = parts > 4 * COLUMNS ? 4 * COLUMNS : parts;
    for (int i = 0; i < parts; i++)
        add_to(c, to, from + (until - from) * (i + 0.5) / parts, count / parts);
}

static void fill_columns(columns *c, const ptq_observer *seen, const code_count *codes) {
    double w = ldexp(1, seen->exponent), scale = codes->q.type != PTQ_TYPE_F32 ? codes->q.scale : 0;

    c->zeros = fraction(seen->zeros, seen->count);
    for (int b = 0; b < PTQ_BINS; b++)
        if (seen->bin[b])
            spread(c, c->real, (b - PTQ_BINS / 2) * w, (b - PTQ_BINS / 2 + 1) * w,
                   fraction(seen->bin[b], seen->count));
    for (int i = 0; i < 256 && codes->total && scale > 0; i++) {
        int code = codes->q.type == PTQ_TYPE_S8 && i > 127 ? i - 256 : i;
        double value = scale * (code - codes->q.zero_point);
        double share = fraction(codes->count[i], codes->total);

        if (code == codes->q.zero_point)
            share = fmax(0, share - c->zeros);
        if (share > 0)
            spread(c, c->code, value - scale / 2, value + scale / 2, share);
    }
}

/* Logarithmic over four decades: tails matter as much as peaks. */
static double bar(double share, double most) {
    return share > 0 && most > 0 ? fmax(0, 1 + log10(share / most) / 4) : 0;
}

static void draw_columns(FILE *out, const columns *c, double left, double wide, double bottom,
                         double tall) {
    double most = 0, step = wide / COLUMNS;

    for (int i = 0; i < COLUMNS; i++)
        most = fmax(most, fmax(c->real[i], c->code[i]));
    for (int i = 0; i < COLUMNS; i++)
        if (bar(c->real[i], most) > 0)
            svg_box(out, left + i * step, bottom - tall * bar(c->real[i], most), step,
                    tall * bar(c->real[i], most), "f-c6", 0.45);
    fputs("<path class=\"s-c1 thick\" d=\"", out);
    for (int i = 0; i < COLUMNS; i++)
        fprintf(out, "%s%.1f %.1fH%.1f", i ? "V" : "M",
                i ? bottom - tall * bar(c->code[i], most) : left,
                bottom - tall * bar(c->code[i], most), left + (i + 1) * step);
    fputs("\"/>\n", out);
}

/* What each rule would choose for codes like the model's, and what the model has. */
static void draw_ranges(FILE *out, const ptq_observer *observer, const ptq_qparams *q,
                        const svg_axis *x, double top) {
    ptq_type type = q->type == PTQ_TYPE_F32 ? PTQ_TYPE_U8 : q->type;
    double low, high;

    for (int rule = 0; rule < PTQ_METHOD_COUNT; rule++) {
        float least, most;
        double y = top + ROW * rule;

        svg_label(out, x->from - 6, y + 4, "small end f-mut",
                  ptq_name(PTQ_NAMES_METHOD, (unsigned)rule));
        if (ptq_observer_range(observer, (ptq_method)rule, 0, type, q->bits ? q->bits : 8, 0,
                               &least, &most, NULL))
            continue;
        svg_line(out, svg_place(x, (double)least), y, svg_place(x, (double)most), y, "s-c2 thick");
    }
    if (q->type == PTQ_TYPE_F32)
        return;
    coded_range(q, &low, &high);
    svg_label(out, x->from - 6, top + ROW * PTQ_METHOD_COUNT + 4, "small end", "this model");
    svg_line(out, svg_place(x, low), top + ROW * PTQ_METHOD_COUNT, svg_place(x, high),
             top + ROW * PTQ_METHOD_COUNT, "s-c1 thick");
}

void draw_histogram(FILE *out, const report *r, const subject *s, int tensor) {
    const ptq_calibrated *t = &r->seen->tensor[tensor];
    const ptq_observer *seen = &t->observer;
    const code_count *codes = &s->codes[tensor];
    int left = 124, bottom = 116, height = bottom + 26 + ROW * (PTQ_METHOD_COUNT + 1) + 6;
    svg_axis x = {0, 0, left, FIGURE_WIDTH - 10};
    columns c = {0};
    char text[160];

    x.low = fmin(0, (double)seen->min);
    x.high = fmax(0, (double)seen->max);
    if (codes->q.type != PTQ_TYPE_F32) {
        double low, high;

        coded_range(&codes->q, &low, &high);
        x.low = fmin(x.low, low);
        x.high = fmax(x.high, high);
    }
    if (!(x.high > x.low))
        x.high = x.low + 1;
    c.low = x.low;
    c.high = x.high;
    fill_columns(&c, seen, codes);
    snprintf(text, sizeof text, "Values of %s: float and codes", t->name);
    svg_begin(out, FIGURE_WIDTH, height, text);
    svg_fitted(out, 4, 12, FIGURE_WIDTH - 8, "", t->name);
    if (codes->q.type != PTQ_TYPE_F32)
        snprintf(text, sizeof text, "%s, %d bits, scale %.4g, zero %d; %.0f %% exact zeros",
                 codes->q.type == PTQ_TYPE_U8 ? "u8" : "s8", codes->q.bits, (double)codes->q.scale,
                 (int)codes->q.zero_point, 100 * c.zeros);
    else
        snprintf(text, sizeof text, "real numbers in this model; %.0f %% exact zeros",
                 100 * c.zeros);
    svg_label(out, 4, 28, "small f-mut", text);
    svg_ticks(out, &x, bottom, 34, "%g");
    draw_columns(out, &c, x.from, x.to - x.from, bottom, bottom - 36);
    draw_ranges(out, &t->observer, &codes->q, &x, bottom + 28);
    svg_end(out);
}
