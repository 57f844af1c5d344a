/* Chapter 4: the accumulator. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"
#include "measure/explain.h"

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

int draw_trace(source *s, FILE *out) {
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
