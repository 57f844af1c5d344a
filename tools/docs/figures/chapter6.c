/* Chapter 6: channels, bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

int draw_channels(source *s, FILE *out) {
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

/* A share of right answers in percent, with the ends of its interval (Wilson's, 95 %). */
typedef struct share {
    double value, low, high;
} share;

static int accuracy_at(source *s, const bit_line *l, int bits, share *out) {
    ptq_scheme scheme = {0};
    ptq_model *model = NULL;
    ptq_evaluation result = {0};
    int status = l->best && did(s, ptq_preset("best", &scheme, &s->err));

    *(l->of_weights ? &scheme.weight_bits : &scheme.activation_bits) = bits;
    scheme.weight_per_tensor = l->per_tensor;
    status = status || convert(s, &scheme, &model) || evaluate(s, model, &result);
    if (!status) {
        out->value = 100 * (double)result.correct / (double)result.total;
        ptq_share_interval(result.correct, result.total, &out->low, &out->high);
    }
    ptq_release(&result.memory);
    ptq_model_free(model);
    return status;
}

static void draw_bit_line(FILE *out, const bit_line *l, const share *got, const svg_axis *y,
                          int row) {
    double left = l->of_weights ? 56 : WIDTH / 2.0 + 46, bits[BITS], value[BITS];
    svg_axis x = {0, BITS - 1, left + 12, left + 250};
    char classes[32];
    int b;

    for (b = 0; b < BITS; b++) {
        bits[b] = b;
        value[b] = got[b].value;
    }
    snprintf(classes, sizeof classes, "s-%s thick", svg_colour(l->colour));
    curve(out, &x, y, bits, value, BITS, classes);
    /* Beside each other, a little to the left or the right, so that all intervals can be seen. */
    snprintf(classes, sizeof classes, "s-%s thin", svg_colour(l->colour));
    for (b = 0; b < BITS; b++)
        svg_line(out, svg_place(&x, b) + 2 * (row - 1), svg_place(y, 100 * got[b].low),
                 svg_place(&x, b) + 2 * (row - 1), svg_place(y, 100 * got[b].high), classes);
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

int draw_bits(source *s, FILE *out) {
    share got[LINES][BITS];
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
            if (accuracy_at(s, &bit_lines[l], bit_choice[b], &got[l][b]))
                return 1;
            printf("%7.1f", got[l][b].value);
        }
        printf("\n");
    }
    printf("float %.1f, %zu test images\n",
           100 * (double)s->before.correct / (double)s->before.total, s->before.total);
    snprintf(title, sizeof title, "%s: accuracy in percent on %zu test images, 95 %% intervals",
             data_name(s), s->before.total);
    open_figure(out, 290, title);
    draw_bit_axes(out, &y, 100 * (double)s->before.correct / (double)s->before.total);
    for (l = 0; l < LINES; l++)
        draw_bit_line(out, &bit_lines[l], got[l], &y,
                      bit_lines[l].of_weights ? 2 - l : LINES - 1 - l);
    return 0;
}
