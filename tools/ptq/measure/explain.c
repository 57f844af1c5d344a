/* One element's arithmetic as text. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "measure/arithmetic.h"
#include "measure/explain.h"

typedef struct growing {
    char *data; /* NULL: no memory any more */
    size_t length, capacity;
} growing;

static void put(growing *text, const char *format, ...) {
    va_list args;
    int n;

    if (text->data && text->capacity - text->length < 512) {
        char *larger = realloc(text->data, text->capacity *= 2);
        if (!larger)
            free(text->data);
        text->data = larger;
    }
    if (!text->data)
        return;
    va_start(args, format);
    n = vsnprintf(text->data + text->length, text->capacity - text->length, format, args);
    va_end(args);
    text->length += n > 0 ? (size_t)n : 0;
}

/* A float with as many digits as it needs, as the library writes it. */
static ptq_error number(float value) {
    ptq_error text = {PTQ_OK, ""};

    ptq_error_set(&text, PTQ_OK, "%g", (double)value);
    return text;
}

static void put_products(growing *text, const arithmetic *a) {
    int sum = 0;

    for (int k = 0; k < a->taps; k++) {
        sum += a->input[k] * (a->weight ? a->weight[k] : 1);
        if (a->weight)
            put(text, "  (x - zx) %d * (w - zw) %d = %d, sum %d\n", a->input[k], a->weight[k],
                a->input[k] * a->weight[k], sum);
        else
            put(text, "  (x - zx) %d, sum %d\n", a->input[k], sum);
    }
}

/* The accumulator, and the code or real number that becomes of it. */
static void put_result(growing *text, const arithmetic *a) {
    if (a->weight)
        put(text,
            "bias %d: accumulator %d\n"
            "multiplier %s = input scale %s * weight scale %s",
            a->bias, a->sum, number(a->multiplier).text, number(a->input_scale).text,
            number(a->weight_scale).text);
    else
        put(text,
            "accumulator %d\n"
            "multiplier %s = input scale %s / %d positions",
            a->sum, number(a->multiplier).text, number(a->input_scale).text, a->taps);
    if (!a->coded) {
        put(text, "\nresult %d * %s = %s, a real number\n", a->sum, number(a->multiplier).text,
            number(a->scaled).text);
        return;
    }
    put(text,
        "\n    / output scale %s\n"
        "%d * %s = %s\n    clamped to %d..%d, rounded half to even, plus zero point %d: code %d\n"
        "code stands for %s\n",
        number(a->scale).text, a->sum, number(a->multiplier).text, number(a->scaled).text,
        a->low - a->zero_point, a->high - a->zero_point, a->zero_point, a->code,
        number(a->value).text);
}

/* The addition fused behind it. */
static void put_residual(growing *text, const arithmetic *a) {
    put(text, "residual code %d stands for %s\n", a->residual, number(a->residual_value).text);
    put(text,
        "sum %d * %s + (%d * %s + %s)\n    clamped to %d..%d, rounded half to even: code %d, "
        "stands for %s\n",
        a->own_first ? a->code : a->residual, number(a->ratio[0]).text,
        a->own_first ? a->residual : a->code, number(a->ratio[1]).text, number(a->shift).text,
        a->added_low, a->added_high, a->added_code, number(a->added_value).text);
}

ptq_status explain_element(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, char **out, ptq_error *err) {
    growing text = {malloc(4096), 0, 4096};
    arithmetic a;
    ptq_status status = arithmetic_open(plan, session, node, y, x, c, &a, err);

    if (status) {
        free(text.data);
        return status;
    }
    put(&text, "%s at row %d, column %d, channel %d\n", a.node->name, y, x, c);
    put_products(&text, &a);
    put_result(&text, &a);
    if (a.adds)
        put_residual(&text, &a);
    arithmetic_close(&a);
    *out = text.data;
    return text.data ? PTQ_OK
                     : ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for the explanation");
}
