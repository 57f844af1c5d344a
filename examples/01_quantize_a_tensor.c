/* Quantizes one small tensor by hand: what scale, zero point and bits do. Needs no data.

       build/01_quantize_a_tensor [NUMBER]    all four ways, or one of them
*/
#include <stdio.h>
#include <stdlib.h>

#define PTQ_IMPLEMENTATION
#include "../ptq.h"

enum { COUNT = 8 };

static const float values[COUNT] = {-1.20f, -0.75f, -0.01f, 0.0f, 0.004f, 0.33f, 1.00f, 2.50f};

/* One row for each value: code, what the code stands for, the error. Returns the largest error. */
static float show(const char *title, const ptq_qparams *q) {
    float worst = 0;
    int i;

    printf("%s: scale %.6f, zero point %d\n", title, (double)q->scale, (int)q->zero_point);
    for (i = 0; i < COUNT; i++) {
        int32_t code = ptq_quantize(values[i], q);
        float back = ptq_dequantize(code, q), error = back - values[i];

        printf("    %7.3f -> code %4d -> %7.4f   error %+.4f\n", (double)values[i], (int)code,
               (double)back, (double)error);
        error = error < 0 ? -error : error;
        worst = error > worst ? error : worst;
    }
    printf("    largest error %.4f, half a step is %.4f\n\n", (double)worst, (double)q->scale / 2);
    return worst;
}

/* The range of the values, -1.2 to 2.5, is spread over all 256 codes; 0 gets a code of its own, so
   that padding and ReLU cost nothing. Symmetric codes keep zero at 0: simpler sums, but those under
   -1.2 are never used. Each bit less doubles the step. A narrower range has a finer step and clips
   what lies outside. */
static const struct way {
    const char *title;
    float low, high;
    ptq_type type;
    int bits, symmetric;
} ways[] = {
    {"affine, u8, 8 bits", -1.20f, 2.50f, PTQ_TYPE_U8, 8, 0},
    {"symmetric, s8, 8 bits", -1.20f, 2.50f, PTQ_TYPE_S8, 8, 1},
    {"affine, u8, 4 bits", -1.20f, 2.50f, PTQ_TYPE_U8, 4, 0},
    {"affine, u8, 4 bits, clipped at 1.2", -1.20f, 1.20f, PTQ_TYPE_U8, 4, 0},
};

enum { WAYS = sizeof ways / sizeof *ways };

int main(int argc, char **argv) {
    int only = argc > 1 ? atoi(argv[1]) : 0, i;
    ptq_error err;

    if (only < 0 || only > WAYS)
        return fprintf(stderr, "there are ways 1 to %d\n", WAYS), 1;
    printf("real = scale * (code - zero_point)\n\n");
    for (i = only ? only - 1 : 0; i < (only ? only : WAYS); i++) {
        const struct way *w = &ways[i];
        ptq_qparams q;
        float worst;

        if (ptq_choose_qparams(w->low, w->high, w->type, w->bits, w->symmetric, &q, &err))
            return fprintf(stderr, "%s\n", err.text), 1;
        worst = show(w->title, &q);
        /* Rounding is to the nearest code: within the range no error is over half a step. */
        if (w->high > 2 && worst > q.scale / 2 * 1.001f)
            return 1;
    }
    return 0;
}
