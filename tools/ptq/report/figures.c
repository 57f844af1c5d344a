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

#define WIDTH FIGURE_WIDTH

static void coloured(char *text, size_t size, const char *kind, int i, const char *more) {
    snprintf(text, size, "%s-%s %s", kind, svg_colour(i), more);
}

/* A name beside a point: to its right, or to its left, wherever it fits in; else it is shortened. */
static void put_name(FILE *out, double x, double y, const char *text) {
    double right = WIDTH - x - 4, left = x - 4, wide = svg_width(text);

    if (wide <= right || right >= left)
        svg_fitted(out, x, y, right, "small", text);
    else
        svg_fitted(out, x, y, left, "small end", text);
}

/* ---- Change: accuracy against float, with intervals ---- */

static void draw_change(FILE *out, const report *r, const subject *s, int tensor) {
    int top = 8, row = 36, height = top + row * r->models + 34;
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
        put_name(out, svg_place(&x, c->delta_pp), y - 9, text);
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
    int right = svg_width(s->name) > WIDTH - at - 12 && at > WIDTH / 2.0;

    ptq_share_interval(s->result.correct, s->result.total, &low, &high);
    coloured(classes, sizeof classes, "s", colour, "thin");
    svg_line(out, at, svg_place(y, 100 * low), at, svg_place(y, 100 * high), classes);
    coloured(classes, sizeof classes, "f", colour, "");
    fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n", classes, at, height);
    put_name(out, at + (right ? -8 : 8), height + (is_crowded(r, x, y, s) ? 16 : -7), s->name);
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
    svg_axis x = {1e9, -1e9, 56, WIDTH - 12}, y = {1e9, -1e9, bottom, 10};
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

/* One matrix, with the name of the model whose answers these are. */
static void draw_matrix(FILE *out, const report *r, const ptq_evaluation *e, const char *name) {
    int n = e->classes, few = n <= NAMED_CLASSES, left = few ? 78 : 8, top = few ? 74 : 8;
    double cell = (WIDTH - left - 26.0) / n, gap = few ? 1 : 0;
    char title[160];

    snprintf(title, sizeof title, "Answers of %s", name);
    svg_begin(out, WIDTH, top + (int)(cell * n) + 40, title);
    for (int i = 0; i < n && few; i++) {
        double at = top + cell * (i + 0.5) + 3, column = left + cell * (i + 0.5) + 3;

        svg_fitted(out, left - 5, at, left - 8, "small end", r->class_name[i]);
        fprintf(out, "<g transform=\"translate(%.1f %d) rotate(-60)\">", column, top - 5);
        svg_fitted(out, 0, 0, top - 6, "small", r->class_name[i]);
        fputs("</g>\n", out);
    }
    for (int i = 0; i < n * n; i++) {
        size_t count = e->confusion[i], row = e->class_total[i / n];
        double share = fraction(count, row);

        if (!count && !few)
            continue;
        svg_box(out, left + cell * (i % n), top + cell * (i / n), cell - gap, cell - gap,
                !count           ? "f-c6"
                : i / n == i % n ? "f-c1"
                                 : "f-c5",
                0.05 + 0.65 * sqrt(share));
        if (count && few)
            svg_number(out, left + cell * (i % n + 0.5) - 0.5, top + cell * (i / n + 0.5) + 3,
                       "small mid", "%.0f", (double)count);
    }
    svg_fitted(out, left, top + cell * n + 16, WIDTH - left, "small", title);
    svg_label(out, left, top + cell * n + 32, "small f-mut",
              few ? "rows: what it is; columns: the answer"
                  : "rows: what it is; columns: the answer; classes in their order");
    svg_end(out);
}

static void draw_confusion(FILE *out, const report *r, const subject *s, int tensor) {
    (void)tensor;
    draw_matrix(out, r, &s->result, s->name);
}

static void draw_confusion_float(FILE *out, const report *r, const subject *s, int tensor) {
    (void)s, (void)tensor;
    draw_matrix(out, r, &r->baseline.result, r->baseline.name);
}

/* ---- SQNR and clipping of every tensor ---- */

static void draw_sqnr(FILE *out, const report *r, const subject *s, int tensor) {
    int top = 6, row = 20, height = top + row * s->layers.items + 36, i;
    svg_axis x = {0, 40, 132, WIDTH - 112};
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

        svg_fitted(out, x.from - 6, y + 14, x.from - 8, "small end", item->name);
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
    svg_fitted(out, 8, top + 10, WIDTH - 120, "small", real->name);
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
        snprintf(text, sizeof text, "%s%s  %dx%dx%d", ptq_name(PTQ_NAMES_OP, node->op),
                 node->residual ? " + add" : "", node->shape[0], node->shape[1], node->shape[2]);
        svg_fitted(out, 12, y + 16, 292 - 20 - svg_width(text), "", node->name);
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
    {"sqnr", OF_MODEL, "signal to quantization noise and clipping of every tensor", draw_sqnr},
    {"weights", OF_MODEL, "range of every output channel's weights", draw_weights},
    {"graph", OF_MODEL, "the graph with scales and zero points", draw_graph},
    {"histogram", OF_TENSOR, "a tensor's values, its codes, and what observers choose",
     draw_histogram},
    {NULL, OF_ALL, NULL, NULL}};
