/* Chapter 1: codes on the number line. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

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

int draw_number_line(source *s, FILE *out) {
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
