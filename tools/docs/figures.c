/* figures: draws the figures of docs/ from real results.

       figures NAME OUT.svg MODEL DATA [IMAGES]    from a float model and CIFAR-10's form of data
       figures NAME OUT.svg <FILE                  kernel, mistakes: from what a program printed

   What a figure shows is printed as well. Calibration runs on scalar kernels, so that the figures
   are the same on every processor. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/explain.h"
#include "measure/nodes.h"
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

static int fail(const char *text) {
    fprintf(stderr, "figures: %s\n", text);
    return 1;
}

/* Every call into the library goes through this. */
static int did(source *s, ptq_status status) { return status ? fail(s->err.text) : 0; }

static int open_source(source *s) {
    ptq_plan_options scalar = {PTQ_ISA_SCALAR, {NULL, NULL, NULL}};

    if (did(s, ptq_model_load(s->model_path, NULL, &s->original, &s->err)) ||
        did(s, ptq_fuse(s->original, &s->fused, NULL, &s->err)) ||
        did(s, ptq_plan_create(s->fused, &scalar, &s->plan, &s->err)) ||
        did(s, ptq_cifar10_open(s->data_path, PTQ_SPLIT_TRAIN, NULL, &s->train, &s->err)) ||
        did(s, ptq_cifar10_open(s->data_path, PTQ_SPLIT_TEST, NULL, &s->test, &s->err)))
        return 1;
    s->tested = *ptq_cifar10_dataset(s->test);
    if (s->tested.count > s->images)
        s->tested.count = s->images;
    return did(s,
               ptq_sample(ptq_cifar10_dataset(s->train), SAMPLES, 42, s->index, NULL, &s->err)) ||
           did(s, ptq_subset_open(&s->subset, ptq_cifar10_dataset(s->train), s->index, SAMPLES,
                                  &s->err));
}

static int calibrate(source *s) {
    return did(s, ptq_calibrate(s->plan, &s->subset.dataset, NULL, &s->calibration, &s->err));
}

static void close_source(source *s) {
    ptq_release(&s->before.memory);
    ptq_calibration_free(s->calibration);
    ptq_cifar10_free(s->train);
    ptq_cifar10_free(s->test);
    ptq_plan_free(s->plan);
    ptq_model_free(s->fused);
    ptq_model_free(s->original);
}

/* A plan on the best kernels of this processor: integers are the same on all of them. */
static int evaluate(source *s, const ptq_model *model, ptq_evaluation *out) {
    ptq_plan *plan = NULL;
    int status = did(s, ptq_plan_create(model, NULL, &plan, &s->err)) ||
                 did(s, ptq_evaluate(plan, &s->tested, NULL, out, &s->err));

    ptq_plan_free(plan);
    return status;
}

static int convert(source *s, const ptq_scheme *scheme, ptq_model **out) {
    ptq_convert_options options = {0};

    options.scheme = *scheme;
    options.images = &s->subset.dataset;
    return did(s, ptq_convert(s->fused, s->calibration, &options, out, NULL, &s->err));
}

/* ---- Drawing ---- */

/* A figure on a ground of its own, which reads well on light and on dark pages. */
static void open_figure(FILE *out, int height, const char *title) {
    svg_begin(out, WIDTH, height, title);
    fputs("<style>", out);
    write_figure_style(out, 1);
    fputs("</style>\n", out);
    fprintf(out, "<rect width=\"%d\" height=\"%d\" rx=\"6\" fill=\"#fcfcfa\"/>\n", WIDTH, height);
    svg_label(out, 16, 22, "f-ink", title);
}

static void dot(FILE *out, double x, double y, double radius, const char *classes) {
    fprintf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", classes, x, y,
            radius);
}

/* Ticks of a vertical axis, with grid lines to the right end. */
static void vertical_ticks(FILE *out, const svg_axis *y, double left, double right,
                           const char *format) {
    double step = svg_tick_step(y, 5), at;

    for (at = ceil(y->low / step) * step; at <= y->high + step * 1e-6; at += step) {
        svg_line(out, left, svg_place(y, at), right, svg_place(y, at), "s-lin thin");
        svg_number(out, left - 6, svg_place(y, at) + 3, "small end f-mut", format,
                   fabs(at) < step * 1e-6 ? 0.0 : at);
    }
}

static void curve(FILE *out, const svg_axis *x, const svg_axis *y, const double *at,
                  const double *value, int n, const char *classes) {
    int i;

    fprintf(out, "<path class=\"%s\" d=\"", classes);
    for (i = 0; i < n; i++)
        fprintf(out, "%c%.1f %.1f", i ? 'L' : 'M', svg_place(x, at[i]), svg_place(y, value[i]));
    fputs("\"/>\n", out);
}

/* ---- Chapter 0: the network, a convolution ---- */

enum { MAIN = 112, BESIDE = 306, HALF = 92 }; /* the middles of two columns, half a box */

/* Those that only an addition reads stand beside the others, in a column of their own. */
static int is_beside(const ptq_model *model, int index) {
    int i;

    for (i = 1; i < model->nodes; i++)
        if (model->node[i].input[0] == index)
            return 0;
    return index < model->nodes - 1;
}

/* From node `from` to node `to`, straight down or by two lines: to the column beside and back, and
   round the nodes that stand between. */
static void draw_edge(FILE *out, const ptq_model *model, int from, int to, const double *y) {
    int beside = is_beside(model, from), side = is_beside(model, to), between = 0, i;

    for (i = from + 1; i < to; i++)
        between += !is_beside(model, i);
    fputs("<path class=\"s-mut thin\" d=\"", out);
    if (beside)
        fprintf(out, "M%d %.0fV%.0fH%d", BESIDE, y[from] + 13, y[to] - 6, MAIN + HALF);
    else if (side)
        fprintf(out, "M%d %.0fH%dV%.0f", MAIN + HALF, y[from] + 6, BESIDE, y[to] - 13);
    else if (between)
        fprintf(out, "M%d %.0fH%dV%.0fH%d", MAIN + HALF, y[from] + 6, BESIDE, y[to] - 6,
                MAIN + HALF);
    else
        fprintf(out, "M%d %.0fV%.0f", MAIN, y[from] + 13, y[to] - 13);
    fputs("\"/>\n", out);
}

static int draw_network(source *s, FILE *out) {
    enum { MOST = 24 };
    const ptq_model *model = s->fused;
    double y[MOST];
    int i;

    if (model->nodes > MOST)
        return fail("the network has too many nodes for this figure");
    open_figure(out, 70 + 38 * model->nodes, "The network, from the pixels to the answer");
    svg_label(out, 486, 44, "small end f-mut", "result");
    svg_label(out, WIDTH - 20, 44, "small end f-mut", "weights");
    for (i = 0; i < model->nodes; i++)
        y[i] = 64 + 38 * i;
    for (i = 1; i < model->nodes; i++) {
        draw_edge(out, model, model->node[i].input[0], i, y);
        if (model->node[i].residual)
            draw_edge(out, model, model->node[i].input[1], i, y);
    }
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        const ptq_tensor *w = &node->param[PTQ_PARAM_WEIGHT];
        double x = is_beside(model, i) ? BESIDE : MAIN;
        char text[128];

        svg_box(out, x - HALF, y[i] - 13, 2 * HALF, 26, w->rank ? "f-c1" : "f-lin",
                w->rank ? 0.25 : 0.6);
        snprintf(text, sizeof text, "%s%s", node->name, node->residual ? ", addition" : "");
        svg_label(out, x, y[i] + 4, "small mid", text);
        snprintf(text, sizeof text, "%d x %d x %d", node->shape[0], node->shape[1], node->shape[2]);
        svg_label(out, 486, y[i] + 4, "small end", text);
        if (w->rank)
            svg_number(out, WIDTH - 20, y[i] + 4, "small end", "%.0f",
                       (double)ptq_tensor_elements(w));
    }
    svg_label(out, 16, 60 + 38 * model->nodes, "small f-mut",
              "Blue: layers with weights. An addition takes two results, one past the block.");
    return 0;
}

/* A square of numbers; `marked`, a square of 3 x 3 in it, by its corner, or one number. */
static void draw_grid(FILE *out, double left, double top, const int *number, int size, int row,
                      int column, int marked) {
    const double step = 34;
    int i;

    for (i = 0; i < size * size; i++) {
        double x = left + step * (i % size), y = top + step * (i / size);
        int in = i / size >= row && i / size < row + marked && i % size >= column &&
                 i % size < column + marked;

        svg_box(out, x, y, step - 2, step - 2, in ? "f-c3" : "f-lin", in ? 0.45 : 0.3);
        svg_number(out, x + step / 2 - 1, y + 20, "small mid", "%.0f", number[i]);
    }
}

/* The third picture of examples/00_no_library.c, its filter for horizontal strokes. */
static int draw_window(source *s, FILE *out) {
    static const char *const picture = "..............####................#.";
    static const float weight[9] = {-.5f, -.6f, -.4f, 1.1f, .9f, 1, -.5f, -.4f, -.6f};
    int pixel[36], code[9], result[16], i, k;

    (void)s;
    for (i = 0; i < 36; i++)
        pixel[i] = picture[i] == '#' ? 240 : 16;
    for (k = 0; k < 9; k++)
        code[k] = (int)lrint((double)weight[k] / (1.1 / 127));
    for (i = 0; i < 16; i++) {
        result[i] = 2944; /* the bias, 0.1, in units of the two scales */
        for (k = 0; k < 9; k++)
            result[i] += pixel[(i / 4 + k / 3) * 6 + i % 4 + k % 3] * code[k];
    }
    open_figure(out, 290, "A convolution: a window of nine pixels, nine weights, one sum");
    svg_label(out, 24, 50, "small", "picture");
    draw_grid(out, 24, 60, pixel, 6, 1, 1, 3);
    svg_label(out, 258, 50, "small", "weights");
    draw_grid(out, 258, 60 + 34, code, 3, 0, 0, 3);
    svg_label(out, 244, 60 + 34 + 54, "mid", "x");
    svg_label(out, 376, 60 + 34 + 54, "mid", "=");
    svg_label(out, 396, 50, "small", "sums, with the bias");
    for (i = 0; i < 16; i++) {
        double x = 396 + 57 * (i % 4), y = 60 + 34 + 34 * (i / 4);

        svg_box(out, x, y, 55, 32, i == 5 ? "f-c3" : "f-lin", i == 5 ? 0.45 : 0.3);
        svg_number(out, x + 27, y + 20, "small mid", "%.0f", result[i]);
    }
    svg_label(out, 24, 282, "small f-mut",
              "The window moves over the picture; each of its 16 places gives one sum.");
    return 0;
}

/* ---- Chapter 1: codes on the number line ---- */

static const float values[] = {-1.20f, -0.75f, -0.01f, 0.0f, 0.004f, 0.33f, 1.00f, 2.50f};
enum { VALUES = sizeof values / sizeof *values };

static void draw_codes(FILE *out, const svg_axis *x, double y, const char *name,
                       const ptq_qparams *q) {
    int32_t code, low, high;
    char text[96];
    int i;

    snprintf(text, sizeof text, "%s: scale %.4f, zero point %d", name, (double)q->scale,
             (int)q->zero_point);
    svg_label(out, 16, y - 26, "small", text);
    svg_line(out, x->from, y, x->to, y, "s-mut thin");
    ptq_code_range(q->type, q->bits, &low, &high);
    for (code = low; code <= high; code++) {
        double at = svg_place(x, (double)ptq_dequantize(code, q));

        if (at < x->from - 1 || at > x->to + 1)
            continue;
        svg_line(out, at, y - 6, at, y + 6, code == q->zero_point ? "s-c4 thick" : "s-c1 thin");
        snprintf(text, sizeof text, "%d", (int)code);
        svg_label(out, at, y + 18, "small mid f-mut", text);
    }
    for (i = 0; i < VALUES; i++) {
        float back = ptq_dequantize(ptq_quantize(values[i], q), q);

        svg_line(out, svg_place(x, (double)values[i]), y - 16, svg_place(x, (double)back), y,
                 "s-c3 thin");
        dot(out, svg_place(x, (double)values[i]), y - 16, 3, "f-c3");
    }
}

static int draw_number_line(source *s, FILE *out) {
    svg_axis x = {-2.6, 2.6, 30, WIDTH - 30};
    ptq_qparams affine, symmetric, clipped;

    if (did(s, ptq_choose_qparams(-1.2f, 2.5f, PTQ_TYPE_U8, 4, 0, &affine, &s->err)) ||
        did(s, ptq_choose_qparams(-1.2f, 2.5f, PTQ_TYPE_S8, 4, 1, &symmetric, &s->err)) ||
        did(s, ptq_choose_qparams(-1.2f, 1.2f, PTQ_TYPE_U8, 4, 0, &clipped, &s->err)))
        return 1;
    open_figure(out, 344, "Eight values and the 4-bit codes that they are rounded to");
    svg_ticks(out, &x, 290, 40, "%g");
    svg_label(out, x.to, 318, "small end f-mut", "real value");
    draw_codes(out, &x, 84, "affine, range -1.2 to 2.5", &affine);
    draw_codes(out, &x, 164, "symmetric, range -2.5 to 2.5", &symmetric);
    draw_codes(out, &x, 244, "affine, range -1.2 to 1.2: what is outside is clipped", &clipped);
    svg_label(out, 16, 334, "small f-mut",
              "Dots: values. Thin lines lead to the code each becomes. Violet: the code of 0.");
    return 0;
}

/* ---- Chapter 2: weights before and after folding ---- */

static double largest_of(const ptq_tensor *weight, int channel) {
    size_t n = ptq_tensor_elements(weight) / (size_t)weight->dim[0], i;
    double most = 0;

    for (i = 0; i < n; i++)
        most = fmax(most, fabs((double)ptq_tensor_real(weight, (size_t)channel * n + i)));
    return most;
}

static int draw_fold(source *s, FILE *out) {
    const ptq_tensor *weight[2];
    svg_axis y = {0, 0, 220, 46};
    int channels, c, k;
    double step;

    weight[0] = ptq_model_param(s->original, "conv1.weight");
    weight[1] = ptq_model_param(s->fused, "conv1.weight");
    if (!weight[0] || !weight[1])
        return fail("the model has no conv1; this figure is for ResNet8");
    channels = weight[0]->dim[0];
    for (c = 0; c < channels; c++)
        for (k = 0; k < 2; k++)
            y.high = fmax(y.high, log10(largest_of(weight[k], c)));
    y.low = y.high;
    for (c = 0; c < channels; c++)
        for (k = 0; k < 2; k++)
            y.low = fmin(y.low, log10(fmax(largest_of(weight[k], c), 1e-6)));
    y.low -= 0.2;
    open_figure(out, 262, "Largest weight of each channel of conv1, before and after folding");
    for (step = ceil(y.low); step <= y.high; step++) {
        svg_line(out, 60, svg_place(&y, step), WIDTH - 20, svg_place(&y, step), "s-lin thin");
        svg_number(out, 54, svg_place(&y, step) + 3, "small end f-mut", "%g", pow(10, step));
    }
    printf("channel   largest weight before   after\n");
    step = (WIDTH - 80.0) / channels;
    for (c = 0; c < channels; c++) {
        printf("%7d %23.4f %7.4f\n", c, largest_of(weight[0], c), largest_of(weight[1], c));
        for (k = 0; k < 2; k++) {
            double top = svg_place(&y, log10(fmax(largest_of(weight[k], c), 1e-6)));

            svg_box(out, 62 + c * step + k * step * 0.42, top, step * 0.4, y.from - top,
                    k ? "f-c1" : "f-c3", 1);
        }
        svg_number(out, 62 + (c + 0.4) * step, y.from + 14, "small mid f-mut", "%.0f", c);
    }
    svg_box(out, 62, 244, 9, 9, "f-c3", 1);
    svg_label(out, 76, 252, "small", "before");
    svg_box(out, 130, 244, 9, 9, "f-c1", 1);
    svg_label(out, 144, 252, "small", "after folding, on a scale of powers of ten");
    return 0;
}

/* ---- Chapter 3: what observers choose ---- */

static void draw_histogram(FILE *out, const ptq_observer *seen, const svg_axis *x) {
    enum { COLUMNS = 150 };
    double column[COLUMNS] = {0}, most = 1, width = ldexp(1, seen->exponent);
    int b;

    for (b = 0; b < PTQ_BINS; b++) {
        double at = ((b - PTQ_BINS / 2 + 0.5) * width - x->low) / (x->high - x->low) * COLUMNS;

        if (at >= 0 && at < COLUMNS)
            column[(int)at] += (double)seen->bin[b];
    }
    for (b = 0; b < COLUMNS; b++)
        most = fmax(most, log1p(column[b]));
    for (b = 0; b < COLUMNS; b++)
        if (column[b] > 0) {
            double tall = 110 * log1p(column[b]) / most, wide = (x->to - x->from) / COLUMNS;

            svg_box(out, x->from + b * wide, 150 - tall, wide - 0.5, tall, "f-c6", 0.6);
        }
}

static int draw_observers(source *s, FILE *out) {
    const char *tensor = "conv1.relu";
    const ptq_observer *observer;
    svg_axis x = {0, 0, 110, WIDTH - 24};
    int at, rule;

    if (calibrate(s))
        return 1;
    at = ptq_calibration_find(s->calibration, tensor);
    if (at < 0)
        return fail("the model has no tensor conv1.relu; this figure is for ResNet8");
    observer = &s->calibration->tensor[at].observer;
    x.high = (double)observer->max * 1.02;
    open_figure(out, 328, "Values of conv1.relu on calibration images, and the range of each rule");
    draw_histogram(out, observer, &x);
    svg_ticks(out, &x, 150, 150, "%g");
    svg_label(out, 104, 100, "small end f-mut", "how often");
    svg_label(out, 104, 112, "small end f-mut", "(logarithm)");
    printf("rule                 up to   clipped     codes of 4 bits: up to   clipped\n");
    for (rule = 0; rule < PTQ_METHOD_COUNT; rule++) {
        double y = 190 + 18 * rule;
        float low[2], high[2];
        int k;

        printf("%-17s", ptq_name(PTQ_NAMES_METHOD, (unsigned)rule));
        svg_label(out, 104, y + 4, "small end", ptq_name(PTQ_NAMES_METHOD, (unsigned)rule));
        for (k = 0; k < 2; k++) {
            if (did(s, ptq_observer_range(observer, (ptq_method)rule, 0, PTQ_TYPE_U8, k ? 4 : 8, 0,
                                          &low[k], &high[k], &s->err)))
                return 1;
            printf(k ? " %24.3f %7.3f %%" : " %8.3f %7.3f %%", (double)high[k],
                   100 * ptq_observer_clipped(observer, low[k], high[k]));
        }
        printf("\n");
        svg_line(out, svg_place(&x, (double)low[0]), y, svg_place(&x, (double)high[0]), y,
                 "s-c1 thick");
        dot(out, svg_place(&x, (double)high[0]), y, 3.5, "f-c1");
        dot(out, svg_place(&x, (double)high[1]), y, 3.5, "f-c5");
    }
    svg_label(out, 110, 320, "small f-mut", "Upper end: blue for 8 bits, red for 4 bits.");
    return 0;
}

/* ---- Chapter 4: the accumulator ---- */

static int explain(source *s, const ptq_model *model, const char *node, char **text) {
    ptq_session_options keep = {0};
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    uint8_t pixels[32 * 32 * 3];
    int label, status;

    keep.keep = 1;
    if (s->tested.height * s->tested.width * s->tested.channels != sizeof pixels)
        return fail("pictures must be of 32 x 32 pixels");
    status = did(s, ptq_plan_create(model, NULL, &plan, &s->err)) ||
             did(s, ptq_session_create(plan, &keep, &session, &s->err)) ||
             did(s, s->tested.get(s->tested.user, 0, pixels, &label, &s->err)) ||
             did(s, ptq_run(session, pixels, 1, NULL, NULL, &s->err)) ||
             did(s, explain_element(plan, session, node, 3, 3, 0, text, &s->err));
    ptq_session_free(session);
    ptq_plan_free(plan);
    return status;
}

static int draw_trace(source *s, FILE *out) {
    enum { MOST = 1024 };
    double tap[MOST], sum[MOST];
    svg_axis x = {0, 0, 80, WIDTH - 24}, y = {0, 0, 216, 44};
    const ptq_scheme best = {0};
    ptq_model *model = NULL;
    char *text = NULL;
    const char *at;
    int n = 0, i, status;

    status = calibrate(s) || convert(s, &best, &model) || explain(s, model, "block1.conv2", &text);
    ptq_model_free(model);
    if (status)
        return 1;
    for (at = text; n < MOST && (at = strstr(at, ", sum ")) != NULL; n++) {
        at += 6;
        tap[n] = n + 1;
        sum[n] = atof(at);
    }
    free(text);
    if (!n)
        return fail("the explanation of block1.conv2 has no sums");
    x.high = n;
    for (i = 0; i < n; i++) {
        y.low = fmin(y.low, sum[i]);
        y.high = fmax(y.high, sum[i]);
    }
    open_figure(out, 262, "One accumulator: block1.conv2 at row 3, column 3, channel 0");
    vertical_ticks(out, &y, x.from, x.to, "%.0f");
    svg_ticks(out, &x, 216, 216, "%g");
    curve(out, &x, &y, tap, sum, n, "s-c1 thick");
    dot(out, svg_place(&x, tap[n - 1]), svg_place(&y, sum[n - 1]), 4, "f-c5");
    svg_label(out, x.from, 252, "small f-mut",
              "Across: products added so far. Upwards: the sum, an integer of 32 bits.");
    printf("%d products, sum from %.0f to %.0f, at the end %.0f\n", n, y.low, y.high, sum[n - 1]);
    return 0;
}

/* ---- Chapter 5: the ranges that meet at an addition ---- */

static void range_of(const ptq_qparams *q, double *low, double *high) {
    int32_t least, most;

    ptq_code_range(q->type, q->bits, &least, &most);
    *low = (double)ptq_dequantize(least, q);
    *high = (double)ptq_dequantize(most, q);
}

static int draw_residual(source *s, FILE *out) {
    static const char *const what[] = {"residual", "convolution", "sum, ReLU"};
    svg_axis x = {0, 0, 200, WIDTH - 24};
    const ptq_scheme best = {0};
    ptq_model *model = NULL;
    int i, k, rows = 0;

    if (calibrate(s) || convert(s, &best, &model))
        return 1;
    for (i = 0; i < model->nodes; i++)
        if (model->node[i].residual) {
            double low, high;

            range_of(&model->node[i].mid, &low, &high);
            x.low = fmin(x.low, low);
            x.high = fmax(x.high, high);
            range_of(&model->node[i].q, &low, &high);
            x.high = fmax(x.high, high);
        }
    open_figure(out, 300, "Three ranges meet at each addition, each with a scale of its own");
    svg_ticks(out, &x, 262, 40, "%g");
    printf("%-14s %-12s %9s %6s\n", "node", "", "scale", "zero");
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];

        for (k = 0; k < 3 && node->residual; k++, rows++) {
            const ptq_qparams *q = k == 0   ? &model->node[node->input[1]].q
                                   : k == 1 ? &node->mid
                                            : &node->q;
            double y = 56 + 22 * rows + 10 * (rows / 3), low, high;
            char text[128];

            range_of(q, &low, &high);
            snprintf(text, sizeof text, "%s%s%s", k ? "" : node->name, k ? "" : "  ", what[k]);
            svg_label(out, 190, y + 4, "small end", text);
            svg_box(out, svg_place(&x, low), y - 5, svg_place(&x, high) - svg_place(&x, low), 10,
                    k == 0   ? "f-c3"
                    : k == 1 ? "f-c1"
                             : "f-c2",
                    1);
            printf("%-14s %-12s %9.6f %6d\n", k ? "" : node->name, what[k], (double)q->scale,
                   (int)q->zero_point);
        }
    }
    svg_line(out, svg_place(&x, 0), 262, svg_place(&x, 0), 40, "s-ink thin");
    svg_label(out, 200, 292, "small f-mut", "Real values that the 256 codes of each tensor reach");
    ptq_model_free(model);
    return 0;
}

/* ---- Chapter 6: channels, bits ---- */

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

static int draw_channels(source *s, FILE *out) {
    const ptq_tensor *weight = ptq_model_param(s->fused, "conv1.weight");
    double most[256], step, few = 0;
    svg_axis y = {0, 127, 216, 46};
    int channels, c;

    if (!weight || weight->dim[0] > 256)
        return fail("the model has no conv1; this figure is for ResNet8");
    channels = weight->dim[0];
    for (c = 0; c < channels; c++)
        most[c] = largest_of(weight, c);
    qsort(most, (size_t)channels, sizeof *most, descending);
    open_figure(out, 262, "Largest code of each channel of conv1 under one scale");
    vertical_ticks(out, &y, 60, WIDTH - 20, "%.0f");
    step = (WIDTH - 84.0) / channels;
    for (c = 0; c < channels; c++) {
        double code = 127 * most[c] / most[0], top = svg_place(&y, code);

        few += code < 64;
        svg_box(out, 62 + c * step, top, step * 0.8, y.from - top, "f-c1", 1);
    }
    svg_label(out, 62, 236, "small f-mut",
              "Channels, the largest first. With a scale of its own "
              "each channel reaches 127.");
    printf("channels that use no code beyond 63 of 127: %.0f of %d\n", few, channels);
    printf("largest code of the smallest channel: %.1f\n", 127 * most[channels - 1] / most[0]);
    return 0;
}

static const int bit_choice[] = {8, 6, 5, 4, 3, 2};
enum { BITS = sizeof bit_choice / sizeof *bit_choice, LINES = 5 };

typedef struct bit_line {
    const char *name;
    int of_weights, per_tensor, best, colour;
} bit_line;

static const bit_line bit_lines[LINES] = {
    {"one scale a tensor", 1, 1, 0, 4},
    {"one scale a channel", 1, 0, 0, 0},
    {"best", 1, 0, 1, 1},
    {"MinMax", 0, 0, 0, 0},
    {"best", 0, 0, 1, 1},
};

static int accuracy_at(source *s, const bit_line *l, int bits, double *out) {
    ptq_scheme scheme = {0};
    ptq_model *model = NULL;
    ptq_evaluation result = {0};
    int status = l->best && did(s, ptq_preset("best", &scheme, &s->err));

    *(l->of_weights ? &scheme.weight_bits : &scheme.activation_bits) = bits;
    scheme.weight_per_tensor = l->per_tensor;
    status = status || convert(s, &scheme, &model) || evaluate(s, model, &result);
    if (!status)
        *out = 100 * (double)result.correct / (double)result.total;
    ptq_release(&result.memory);
    ptq_model_free(model);
    return status;
}

static void draw_bit_line(FILE *out, const bit_line *l, const double *value, const svg_axis *y,
                          int row) {
    double left = l->of_weights ? 56 : WIDTH / 2.0 + 46, bits[BITS];
    svg_axis x = {0, BITS - 1, left + 12, left + 250};
    char classes[32];
    int b;

    for (b = 0; b < BITS; b++)
        bits[b] = b;
    snprintf(classes, sizeof classes, "s-%s thick", svg_colour(l->colour));
    curve(out, &x, y, bits, value, BITS, classes);
    snprintf(classes, sizeof classes, "f-%s", svg_colour(l->colour));
    for (b = 0; b < BITS; b++)
        dot(out, svg_place(&x, b), svg_place(y, value[b]), 3, classes);
    svg_box(out, left + 14, y->from - 16 - 15.0 * row, 9, 9, classes, 1);
    svg_label(out, left + 28, y->from - 8 - 15.0 * row, "small", l->name);
}

static void draw_bit_axes(FILE *out, const svg_axis *y, double real) {
    int k, b;

    for (k = 0; k < 2; k++) {
        double left = k ? WIDTH / 2.0 + 46 : 56;

        vertical_ticks(out, y, left, left + 262, "%.0f");
        svg_line(out, left, svg_place(y, real), left + 262, svg_place(y, real), "s-mut thin");
        svg_label(out, left + 258, svg_place(y, real) - 4, "small end f-mut", "float");
        for (b = 0; b < BITS; b++)
            svg_number(out, left + 12 + b * 238.0 / (BITS - 1), y->from + 15, "small mid f-mut",
                       "%.0f", bit_choice[b]);
        svg_label(out, left + 131, y->from + 32, "small mid f-mut",
                  k ? "bits of activations (weights: 8)" : "bits of weights (activations: 8)");
    }
}

static const char *data_name(const source *s) {
    const char *first = s->tested.class_name[0];

    return strcmp(first, "airplane") == 0 ? "CIFAR-10"
           : strcmp(first, "arrow") == 0  ? "Shapes-10"
                                          : s->data_path;
}

static int draw_bits(source *s, FILE *out) {
    double value[LINES][BITS];
    svg_axis y = {0, 100, 246, 44};
    char title[PATH_SIZE];
    int l, b;

    if (calibrate(s) || evaluate(s, s->fused, &s->before))
        return 1;
    printf("%-34s", "accuracy in %, at bits");
    for (b = 0; b < BITS; b++)
        printf("%7d", bit_choice[b]);
    printf("\n");
    for (l = 0; l < LINES; l++) {
        printf("%-11s %-22s", bit_lines[l].of_weights ? "weights" : "activations",
               bit_lines[l].name);
        for (b = 0; b < BITS; b++) {
            if (accuracy_at(s, &bit_lines[l], bit_choice[b], &value[l][b]))
                return 1;
            printf("%7.1f", value[l][b]);
        }
        printf("\n");
    }
    printf("float %.1f, %zu test images\n",
           100 * (double)s->before.correct / (double)s->before.total, s->before.total);
    snprintf(title, sizeof title, "%s: accuracy in percent on %zu test images, without training",
             data_name(s), s->before.total);
    open_figure(out, 290, title);
    draw_bit_axes(out, &y, 100 * (double)s->before.correct / (double)s->before.total);
    for (l = 0; l < LINES; l++)
        draw_bit_line(out, &bit_lines[l], value[l], &y,
                      bit_lines[l].of_weights ? 2 - l : LINES - 1 - l);
    return 0;
}

/* ---- Chapter 7, mistakes: what another program printed ---- */

enum { MOST_BARS = 64 };

typedef struct bar {
    char name[96];
    double value;
} bar;

/* Horizontal bars with their values. */
static void draw_bars(FILE *out, const char *title, const bar *bars, int n, const char *format,
                      const char *note) {
    svg_axis x = {0, 0, 270, WIDTH - 70};
    char text[32];
    int i;

    for (i = 0; i < n; i++) {
        x.low = fmin(x.low, bars[i].value);
        x.high = fmax(x.high, bars[i].value);
    }
    open_figure(out, 66 + 20 * n, title);
    for (i = 0; i < n; i++) {
        double y = 44 + 20 * i, zero = svg_place(&x, 0), at = svg_place(&x, bars[i].value);

        svg_label(out, 262, y + 4, "small end", bars[i].name);
        svg_box(out, fmin(zero, at), y - 6, fabs(at - zero), 12,
                bars[i].value < 0 ? "f-c5" : "f-c1", 1);
        snprintf(text, sizeof text, format, bars[i].value);
        svg_label(out, fmax(zero, at) + 5, y + 4, "small", text);
    }
    svg_line(out, svg_place(&x, 0), 34, svg_place(&x, 0), 40 + 20 * n, "s-mut thin");
    svg_label(out, 16, 56 + 20 * n, "small f-mut", note);
}

/* Lines "NAME: MICROSECONDS us ...". */
static int draw_kernel(source *s, FILE *out) {
    bar bars[MOST_BARS] = {{"", 0}};
    char line[256];
    int n = 0;

    (void)s;
    while (n < MOST_BARS && fgets(line, sizeof line, stdin)) {
        char *colon = strchr(line, ':');

        if (!colon || !strstr(colon, " us"))
            continue;
        *colon = 0;
        snprintf(bars[n].name, sizeof bars[n].name, "%.90s", line);
        bars[n++].value = atof(colon + 1);
    }
    if (!n)
        return fail("no line 'NAME: N us' on standard input; see docs/7-fast-kernel.md");
    draw_bars(out, "One 3x3 convolution, 16 to 16 channels, 32x32: microseconds", bars, n, "%.0f",
              "Lowest of many runs on one core; another processor gives other numbers.");
    return 0;
}

/* The rows of ptq mistake: 42 columns of text, then numbers; the change is behind the percent sign.
   Of each mistake the first row, which is right, is left out. */
static int draw_mistakes(source *s, FILE *out) {
    bar bars[MOST_BARS] = {{"", 0}};
    char line[256], name[64] = "";
    int n = 0, row = 0;

    (void)s;
    while (n < MOST_BARS && fgets(line, sizeof line, stdin)) {
        char *percent = strchr(line, '%');
        size_t end = 42;

        if (strncmp(line, "mistake ", 8) == 0) {
            snprintf(name, sizeof name, "%.50s", line + 10);
            row = 0;
        }
        if (!percent || strlen(line) < 60 || strncmp(line + 47, " of ", 4) != 0 || !row++ ||
            strstr(line, "right") || strstr(line, "exact sums") || strstr(line, "7-bit"))
            continue;
        while (end && line[end - 1] == ' ')
            end--;
        snprintf(bars[n].name, sizeof bars[n].name, "%.*s", (int)end, line);
        bars[n++].value = atof(percent + 1);
    }
    if (!n)
        return fail("no rows of 'ptq mistake' on standard input");
    draw_bars(out, "Points of accuracy against float, for each mistake", bars, n, "%+.1f",
              "500 test images (batch norm by batches: 100; saturation: 50).");
    return 0;
}

/* ---- Chapter 8: intervals, sensitivity ---- */

/* The first n images of both evaluations. */
static int compare_first(source *s, ptq_evaluation before, ptq_evaluation after, size_t n,
                         ptq_comparison *out) {
    before.total = after.total = n;
    return did(s, ptq_compare(&before, &after, out, &s->err));
}

static int draw_interval(source *s, FILE *out) {
    static const size_t counts[] = {50, 100, 200, 500, 1000, 2000};
    enum { COUNTS = sizeof counts / sizeof *counts };
    ptq_comparison c[COUNTS];
    ptq_evaluation after = {0};
    ptq_scheme scheme = {0};
    ptq_model *model = NULL;
    svg_axis x = {-1, 1, 150, WIDTH - 24};
    int i, n = 0, status;

    scheme.weight_bits = 5;
    s->tested.count = ptq_cifar10_dataset(s->test)->count;
    status = calibrate(s) || convert(s, &scheme, &model) || evaluate(s, model, &after) ||
             evaluate(s, s->fused, &s->before);
    for (; !status && n < COUNTS && counts[n] <= s->tested.count; n++) {
        status = compare_first(s, s->before, after, counts[n], &c[n]);
        x.low = fmin(x.low, c[n].low_pp);
        x.high = fmax(x.high, c[n].high_pp);
    }
    ptq_release(&after.memory);
    ptq_model_free(model);
    if (status)
        return 1;
    open_figure(out, 84 + 26 * n, "5-bit weights against float, by number of test images");
    svg_ticks(out, &x, 44 + 26 * n, 36, "%+g");
    printf("images  lost  won   change   95 %% interval\n");
    for (i = 0; i < n; i++) {
        double y = 50 + 26 * i;

        printf("%6zu %5zu %4zu %+8.2f   %+.2f to %+.2f\n", counts[i], c[i].lost, c[i].won,
               c[i].delta_pp + 0.0, c[i].low_pp + 0.0, c[i].high_pp + 0.0);
        svg_number(out, 140, y + 4, "small end", "%.0f images", (double)counts[i]);
        svg_line(out, svg_place(&x, c[i].low_pp), y, svg_place(&x, c[i].high_pp), y, "s-c1 thick");
        dot(out, svg_place(&x, c[i].delta_pp), y, 4, "f-c1");
    }
    svg_line(out, svg_place(&x, 0), 44 + 26 * n, svg_place(&x, 0), 36, "s-ink thin");
    svg_label(out, 150, 76 + 26 * n, "small f-mut",
              "Change in points: the dot; its 95 % interval: the line.");
    return 0;
}

static int draw_sensitivity(source *s, FILE *out) {
    search_options options = {0};
    node_ranking report;
    bar bars[MOST_BARS] = {{"", 0}};
    int n = 0, i;

    options.scheme.weight_bits = 4;
    options.images = &s->subset.dataset;
    options.measure = SAMPLES / 2;
    if (calibrate(s) ||
        did(s, rank_nodes(s->fused, s->calibration, &options, &report, &s->err)))
        return 1;
    for (i = 0; i < report.items && n < MOST_BARS; i++) {
        int node = ptq_model_find(s->fused, report.item[i].node);

        if (node < 0 || !s->fused->node[node].param[PTQ_PARAM_WEIGHT].rank)
            continue;
        snprintf(bars[n].name, sizeof bars[n].name, "%s", report.item[i].node);
        bars[n++].value = 1000 * report.item[i].cost.kl;
    }
    draw_bars(out, "4-bit weights in one layer alone: divergence from float, in thousandths", bars,
              n, "%.2f", "Kullback-Leibler divergence of the answers' probabilities, nats / 1000.");
    ptq_release(&report.memory);
    return 0;
}

/* ---- The program ---- */

typedef struct figure {
    const char *name;
    int needs; /* a model and data */
    int (*draw)(source *s, FILE *out);
} figure;

static const figure figures[] = {
    {"network", 1, draw_network},
    {"window", 0, draw_window},
    {"number-line", 0, draw_number_line},
    {"fold", 1, draw_fold},
    {"observers", 1, draw_observers},
    {"trace", 1, draw_trace},
    {"residual", 1, draw_residual},
    {"channels", 1, draw_channels},
    {"bits", 1, draw_bits},
    {"kernel", 0, draw_kernel},
    {"interval", 1, draw_interval},
    {"sensitivity", 1, draw_sensitivity},
    {"mistakes", 0, draw_mistakes},
};

enum { FIGURES = sizeof figures / sizeof *figures };

static int usage(void) {
    size_t i;

    fputs("usage: figures NAME OUT.svg MODEL DATA [IMAGES]\n"
          "       figures kernel|mistakes OUT.svg <PRINTED\nNAME is one of",
          stderr);
    for (i = 0; i < FIGURES; i++)
        fprintf(stderr, " %s", figures[i].name);
    fputs("\n", stderr);
    return 1;
}

/* First to memory: what fails leaves the old file alone. */
static int draw(const figure *wanted, source *s, const char *path) {
    char temporary[PATH_SIZE];
    FILE *out;
    int status;

    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return fail("the path is too long");
    out = fopen(temporary, "w");
    if (!out)
        return fail("the figure cannot be written there; does the directory exist?");
    status = wanted->draw(s, out);
    svg_end(out);
    if (fclose(out) != 0)
        status = fail("the figure could not be written; is the disk full?");
    if (!status && rename(temporary, path) != 0)
        status = fail("the figure could not be renamed");
    if (status)
        remove(temporary);
    return status;
}

int main(int argc, char **argv) {
    static source s;
    const figure *wanted = NULL;
    size_t i;
    int status;

    for (i = 0; i < FIGURES && argc > 1; i++)
        if (strcmp(figures[i].name, argv[1]) == 0)
            wanted = &figures[i];
    if (!wanted || argc < 3 || (wanted->needs && argc < 5))
        return usage();
    s.images = argc > 5 ? (size_t)strtoul(argv[5], NULL, 10) : 500;
    if (wanted->needs) {
        s.model_path = argv[3];
        s.data_path = argv[4];
    }
    status = (wanted->needs && open_source(&s)) || draw(wanted, &s, argv[2]);
    close_source(&s);
    return status;
}
