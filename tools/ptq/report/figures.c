/* The figures of ptq report. Each is one <svg> element, narrow enough for a telephone: a page sets
   several side by side. Colours come from classes, so that a page can follow the reader's choice of
   light or dark. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "measure/accuracy.h"
#include "ptq.h"
#include "report/report.h"
#include "report/svg.h"

#define WIDTH 380

static void coloured(char *text, size_t size, const char *kind, int i, const char *more) {
    snprintf(text, size, "%s-%s %s", kind, svg_colour(i), more);
}

/* ---- Change: accuracy against float, with intervals ---- */

static void draw_change(FILE *out, const report *r, const subject *s, int tensor) {
    int top = 8, row = 30, height = top + row * r->models + 34;
    svg_axis x = {-0.2, 0.2, 12, WIDTH - 12};
    char classes[32], text[96];

    (void)s, (void)tensor;
    for (int i = 0; i < r->models; i++) {
        x.low = fmin(x.low, r->model[i].compared.low_pp);
        x.high = fmax(x.high, r->model[i].compared.high_pp);
    }
    svg_begin(out, WIDTH, height, "Change of accuracy against float with its 95 % interval");
    svg_ticks(out, &x, height - 32, top, "%+.3g");
    svg_line(out, svg_place(&x, 0), height - 32, svg_place(&x, 0), top, "s-ink thin");
    for (int i = 0; i < r->models; i++) {
        const ptq_comparison *c = &r->model[i].compared;
        double y = top + row * i + 22;

        coloured(classes, sizeof classes, "s", i, "thick");
        svg_line(out, svg_place(&x, c->low_pp), y, svg_place(&x, c->high_pp), y, classes);
        coloured(classes, sizeof classes, "f", i, "");
        fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/>\n", classes,
                svg_place(&x, c->delta_pp), y);
        snprintf(text, sizeof text, "%s  %+.2f", r->model[i].name, c->delta_pp + 0.0);
        svg_label(out, svg_place(&x, c->delta_pp), y - 9,
                  svg_place(&x, c->delta_pp) > WIDTH / 2.0 ? "small end" : "small", text);
    }
    svg_label(out, WIDTH / 2.0, height - 4, "small mid f-mut", "percentage points against float");
    svg_end(out);
}

/* ---- Frontier: size against accuracy ---- */

static double percent(const ptq_evaluation *e) { return 100 * fraction(e->correct, e->total); }

/* Whether the label of a point that was drawn before is where this one's would be. */
static int is_crowded(const report *r, const svg_axis *x, const svg_axis *y, const subject *s) {
    for (int i = -1; i < r->models; i++) {
        const subject *other = i < 0 ? &r->baseline : &r->model[i];

        if (other == s)
            break;
        if (fabs(svg_place(x, log10((double)other->bytes)) -
                 svg_place(x, log10((double)s->bytes))) < 90 &&
            fabs(svg_place(y, percent(&other->result)) - svg_place(y, percent(&s->result))) < 13)
            return 1;
    }
    return 0;
}

static void frontier_point(FILE *out, const report *r, const svg_axis *x, const svg_axis *y,
                           const subject *s, int colour) {
    double at = svg_place(x, log10((double)s->bytes)), low, high;
    double height = svg_place(y, percent(&s->result));
    char classes[32];
    int right = at > WIDTH * 0.7;

    ptq_share_interval(s->result.correct, s->result.total, &low, &high);
    coloured(classes, sizeof classes, "s", colour, "thin");
    svg_line(out, at, svg_place(y, 100 * low), at, svg_place(y, 100 * high), classes);
    coloured(classes, sizeof classes, "f", colour, "");
    fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n", classes, at, height);
    svg_label(out, at + (right ? -8 : 8), height + (is_crowded(r, x, y, s) ? 14 : -7),
              right ? "small end" : "small", s->name);
}

/* Axes that hold every point with its interval. */
static void frontier_axes(const report *r, svg_axis *x, svg_axis *y) {
    for (int i = -1; i < r->models; i++) {
        const subject *s = i < 0 ? &r->baseline : &r->model[i];
        double low, high, size = log10((double)s->bytes);

        ptq_share_interval(s->result.correct, s->result.total, &low, &high);
        x->low = fmin(x->low, size - 0.08);
        x->high = fmax(x->high, size + 0.08);
        y->low = fmin(y->low, 100 * low - 0.3);
        y->high = fmax(y->high, 100 * high + 0.3);
    }
}

static void draw_frontier(FILE *out, const report *r, const subject *s, int tensor) {
    static const double sizes[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};
    int bottom = 238;
    svg_axis x = {1e9, -1e9, 46, WIDTH - 12}, y = {1e9, -1e9, bottom, 10};
    double step, at;

    (void)s, (void)tensor;
    frontier_axes(r, &x, &y);
    svg_begin(out, WIDTH, bottom + 34, "File size against accuracy");
    step = svg_tick_step(&y, 5);
    for (at = ceil(y.low / step) * step; at <= y.high; at += step) {
        svg_line(out, x.from, svg_place(&y, at), x.to, svg_place(&y, at), "s-lin thin");
        svg_number(out, x.from - 6, svg_place(&y, at) + 3, "small end f-mut", "%.4g %%", at);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        double size = log10(sizes[i] * 1000);

        if (size < x.low || size > x.high)
            continue;
        svg_line(out, svg_place(&x, size), y.from, svg_place(&x, size), y.to, "s-lin thin");
        svg_number(out, svg_place(&x, size), bottom + 14, "small mid f-mut", "%g kB", sizes[i]);
    }
    frontier_point(out, r, &x, &y, &r->baseline, 5);
    for (int i = 0; i < r->models; i++)
        frontier_point(out, r, &x, &y, &r->model[i], i % 5);
    svg_label(out, WIDTH / 2.0, bottom + 30, "small mid f-mut", "file size; bars: 95 % intervals");
    svg_end(out);
}

/* ---- Confusion ---- */

#define NAMED_CLASSES 24 /* of more, neither names nor counts can be read in a matrix */

/* One matrix; `minus`, where given, is taken off. */
static void draw_matrix(FILE *out, const report *r, const ptq_evaluation *e,
                        const ptq_evaluation *minus, const char *title) {
    int n = e->classes, few = n <= NAMED_CLASSES, left = few ? 62 : 8, top = few ? 58 : 8;
    double cell = (WIDTH - left - 6.0) / n, gap = few ? 1 : 0;

    svg_begin(out, WIDTH, top + (int)(cell * n) + 20, title);
    for (int i = 0; i < n && few; i++) {
        double at = top + cell * (i + 0.5) + 3, column = left + cell * (i + 0.5) + 3;

        fprintf(out, "<text class=\"small end\" x=\"%d\" y=\"%.1f\">", left - 5, at);
        put_text(out, r->class_name[i]);
        fprintf(out, "</text><text class=\"small\" transform=\"translate(%.1f %d) rotate(-60)\">",
                column, top - 5);
        put_text(out, r->class_name[i]);
        fputs("</text>\n", out);
    }
    for (int i = 0; i < n * n; i++) {
        long count = (long)e->confusion[i] - (minus ? (long)minus->confusion[i] : 0);
        size_t row = e->class_total[i / n];
        double share = fabs((double)count) / (row ? (double)row : 1);
        int good = (i / n == i % n) == (count > 0);

        if (!count && !few)
            continue;
        svg_box(out, left + cell * (i % n), top + cell * (i / n), cell - gap, cell - gap,
                !count ? "f-c6"
                : good ? "f-c1"
                       : "f-c5",
                0.05 + 0.65 * fmin(1, minus ? 12 * share : sqrt(share)));
        if (count && few)
            svg_number(out, left + cell * (i % n + 0.5) - 0.5, top + cell * (i / n + 0.5) + 3,
                       "small mid", minus ? "%+.0f" : "%.0f", (double)count);
    }
    svg_label(out, left, top + cell * n + 14, "small f-mut",
              few ? "rows: what it is; columns: the answer"
                  : "rows: what it is; columns: the answer; classes in their order");
    svg_end(out);
}

static void draw_confusion(FILE *out, const report *r, const subject *s, int tensor) {
    (void)tensor;
    draw_matrix(out, r, &s->result, NULL, "Answers of the quantized model");
}

static void draw_confusion_float(FILE *out, const report *r, const subject *s, int tensor) {
    (void)s, (void)tensor;
    draw_matrix(out, r, &r->baseline.result, NULL, "Answers of the float model");
}

static void draw_confusion_change(FILE *out, const report *r, const subject *s, int tensor) {
    (void)tensor;
    draw_matrix(out, r, &s->result, &r->baseline.result, "Quantized less float");
}

/* ---- SQNR and clipping of every tensor ---- */

static void draw_sqnr(FILE *out, const report *r, const subject *s, int tensor) {
    int top = 6, row = 20, height = top + row * s->layers.items + 36, i;
    svg_axis x = {0, 40, 112, WIDTH - 106};
    char text[32];

    (void)r, (void)tensor;
    for (i = 0; i < s->layers.items; i++)
        if (isfinite(s->layers.item[i].sqnr_db))
            x.high = fmax(x.high, s->layers.item[i].sqnr_db);
    svg_begin(out, WIDTH, height, "Signal to quantization noise of every tensor");
    svg_ticks(out, &x, height - 34, top, "%g");
    for (i = 0; i < s->layers.items; i++) {
        const layer_error *item = &s->layers.item[i];
        double y = top + row * i, db = isfinite(item->sqnr_db) ? item->sqnr_db : x.high;

        svg_label(out, x.from - 6, y + 14, "small end", item->name);
        svg_box(out, x.from, y + 4, svg_place(&x, fmax(db, 0)) - x.from, row - 7,
                item == weakest_layer(s) ? "f-c5" : "f-c1", 1);
        svg_number(out, WIDTH - 66, y + 14, "small end", isfinite(item->sqnr_db) ? "%.1f" : "exact",
                   db);
        snprintf(text, sizeof text,
                 item->clipped > 0 && item->clipped < 5e-5 ? "< 0.01 %%" : "%.2f %%",
                 100 * item->clipped);
        svg_label(out, WIDTH - 4, y + 14, "small end f-mut", text);
    }
    svg_label(out, WIDTH - 4, height - 6, "small end f-mut", "SQNR in dB; share of values clipped");
    svg_end(out);
}

/* ---- Histograms ---- */

#define COLUMNS 76

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
        double y = top + 13 * rule;

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
    svg_label(out, x->from - 6, top + 13 * PTQ_METHOD_COUNT + 4, "small end", "this model");
    svg_line(out, svg_place(x, low), top + 13 * PTQ_METHOD_COUNT, svg_place(x, high),
             top + 13 * PTQ_METHOD_COUNT, "s-c1 thick");
}

static void draw_histogram(FILE *out, const report *r, const subject *s, int tensor) {
    const ptq_calibrated *t = &r->seen->tensor[tensor];
    const ptq_observer *seen = &t->observer;
    const code_count *codes = &s->codes[tensor];
    int left = 98, bottom = 116, height = bottom + 22 + 13 * (PTQ_METHOD_COUNT + 1) + 6;
    svg_axis x = {0, 0, left, WIDTH - 10};
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
    svg_begin(out, WIDTH, height, text);
    svg_label(out, 4, 12, "", t->name);
    if (codes->q.type != PTQ_TYPE_F32)
        snprintf(text, sizeof text, "%s, %d bits, scale %.4g, zero point %d; %.0f %% exact zeros",
                 codes->q.type == PTQ_TYPE_U8 ? "u8" : "s8", codes->q.bits, (double)codes->q.scale,
                 (int)codes->q.zero_point, 100 * c.zeros);
    else
        snprintf(text, sizeof text, "real numbers in this model; %.0f %% exact zeros",
                 100 * c.zeros);
    svg_label(out, 4, 26, "small f-mut", text);
    svg_ticks(out, &x, bottom, 34, "%g");
    draw_columns(out, &c, x.from, x.to - x.from, bottom, bottom - 36);
    draw_ranges(out, &t->observer, &codes->q, &x, bottom + 24);
    svg_end(out);
}

/* ---- Weights per channel ---- */

/* Smallest and largest weight of each output channel of each layer, with the reach of the codes. */
static double draw_layer_weights(FILE *out, const ptq_node *real, const ptq_node *coded,
                                 double top) {
    const ptq_tensor *w = &real->param[PTQ_PARAM_WEIGHT], *q = &coded->param[PTQ_PARAM_WEIGHT];
    int channels = w->dim[0];
    size_t each = ptq_tensor_elements(w) / (size_t)channels, i;
    double most = 0, step = (WIDTH - 16.0) / channels, middle = top + 52;

    for (i = 0; i < each * (size_t)channels; i++)
        most = fmax(most, fabs((double)ptq_tensor_real(w, i)));
    svg_label(out, 8, top + 10, "small", real->name);
    svg_number(out, WIDTH - 8, top + 10, "small end f-mut", "largest %.3g", most);
    svg_line(out, 8, middle, WIDTH - 8, middle, "s-lin thin");
    for (int c = 0; c < channels && most > 0; c++) {
        double low = 0, high = 0, x = 8 + step * c, unit = 36 / most;

        for (i = 0; i < each; i++) {
            double v = (double)ptq_tensor_real(w, (size_t)c * each + i);

            low = fmin(low, v);
            high = fmax(high, v);
        }
        svg_box(out, x, middle - unit * high, fmax(step - 1, 0.8), unit * (high - low), "f-c6",
                0.55);
        if (q->scales) {
            double reach =
                (double)q->scale[q->scales > 1 ? c : 0] * ((1 << (q->bits - 1)) - 1) * unit;

            reach = fmin(reach, 38);
            svg_line(out, x, middle - reach, x + step - 1, middle - reach, "s-c1 thick");
            svg_line(out, x, middle + reach, x + step - 1, middle + reach, "s-c1 thick");
        }
    }
    return top + 100;
}

static void draw_weights(FILE *out, const report *r, const subject *s, int tensor) {
    const ptq_model *real = r->baseline.ready.model, *coded = s->ready.model;
    int layers = 0, i, k;
    double top = 4;

    (void)tensor;
    for (i = 0; i < real->nodes; i++)
        layers += real->node[i].param[PTQ_PARAM_WEIGHT].rank >= 2;
    svg_begin(out, WIDTH, 100 * layers + 24, "Weights of every output channel");
    for (i = 0; i < real->nodes; i++) {
        k = ptq_model_find(coded, real->node[i].name);
        if (real->node[i].param[PTQ_PARAM_WEIGHT].rank >= 2 && k >= 0)
            top = draw_layer_weights(out, &real->node[i], &coded->node[k], top);
    }
    svg_label(out, 8, top + 10, "small f-mut",
              "bars: smallest to largest weight; lines: the reach of the codes");
    svg_end(out);
}

/* ---- The graph ---- */

/* "s = 0.0421, z = 0, u8", or what else the result is. */
static void describe_coding(const ptq_node *node, char *text, size_t size) {
    if (node->q.type == PTQ_TYPE_F32)
        snprintf(text, size, node->dynamic ? "range found per image" : "real numbers");
    else
        snprintf(text, size, "%s%d  scale %.4g  zero point %d",
                 node->q.type == PTQ_TYPE_U8 ? "u" : "s", node->q.bits, (double)node->q.scale,
                 (int)node->q.zero_point);
}

/* A node that is not just below its input gets a line at the side. */
static void draw_edge(FILE *out, int from, int to, int row) {
    double y1 = 4 + row * from + (row - 14) / 2.0, y2 = 4 + row * to + (row - 14) / 2.0;

    if (from == to - 1) {
        svg_line(out, 150, 4 + row * from + row - 14, 150, 4 + row * to, "s-mut thin");
        return;
    }
    fprintf(out, "<path class=\"s-c3 thick\" d=\"M300 %.1fC%d %.1f %d %.1f 300 %.1f\"/>\n", y1,
            320 + 14 * (to - from > 3 ? 3 : to - from), y1,
            320 + 14 * (to - from > 3 ? 3 : to - from), y2, y2);
}

static void draw_graph(FILE *out, const report *r, const subject *s, int tensor) {
    const ptq_model *model = s->ready.model;
    int row = 70, i, k;
    char text[160];

    (void)r, (void)tensor;
    svg_begin(out, WIDTH, 4 + row * model->nodes, "The graph with scales and zero points");
    for (i = 0; i < model->nodes; i++)
        for (k = 0; k < 2; k++)
            if (model->node[i].input[k] >= 0)
                draw_edge(out, model->node[i].input[k], i, row);
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        const ptq_tensor *w = &node->param[PTQ_PARAM_WEIGHT];
        double y = 4 + row * i;

        fprintf(out,
                "<rect class=\"f-%s\" fill-opacity=\"0.16\" x=\"4\" y=\"%.1f\" width=\"296\" "
                "height=\"%d\" rx=\"5\"/>\n",
                node->q.type == PTQ_TYPE_F32 && !node->dynamic ? "c6" : "c1", y, row - 14);
        svg_label(out, 12, y + 16, "", node->name);
        snprintf(text, sizeof text, "%s%s  %dx%dx%d", ptq_name(PTQ_NAMES_OP, node->op),
                 node->residual ? " + add" : "", node->shape[0], node->shape[1], node->shape[2]);
        svg_label(out, 292, y + 16, "small end f-mut", text);
        describe_coding(node, text, sizeof text);
        svg_label(out, 12, y + 33, "small", text);
        if (w->rank) {
            snprintf(text, sizeof text, "weights %s %d bit%s", ptq_name(PTQ_NAMES_TYPE, w->type),
                     w->bits, w->scales > 1 ? ", per channel" : "");
            svg_label(out, 12, y + 48, "small f-mut", text);
        }
    }
    svg_end(out);
}

const figure report_figures[] = {
    {"frontier", OF_ALL, "file size against accuracy, all models", draw_frontier},
    {"change", OF_ALL, "change of accuracy with its interval, all models", draw_change},
    {"float", OF_ALL, "confusion matrix of the float model", draw_confusion_float},
    {"confusion", OF_MODEL, "confusion matrix", draw_confusion},
    {"difference", OF_MODEL, "what quantization changed in the confusion matrix",
     draw_confusion_change},
    {"sqnr", OF_MODEL, "signal to quantization noise and clipping of every tensor", draw_sqnr},
    {"weights", OF_MODEL, "range of every output channel's weights", draw_weights},
    {"graph", OF_MODEL, "the graph with scales and zero points", draw_graph},
    {"histogram", OF_TENSOR, "a tensor's values, its codes, and what observers choose",
     draw_histogram},
    {NULL, OF_ALL, NULL, NULL}};
