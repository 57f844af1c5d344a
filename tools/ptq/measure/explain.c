/* One element of an integer convolution or dense layer, in numbers, as [OPERATORS] of ptq.h
   computes it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

/* What is explained, and what it is made from. */
typedef struct element {
    const ptq_model *model;
    const ptq_node *node;
    int y, x, c, at;                  /* at: in the result, (y W + x) C + c */
    ptq_tensor in, first, sum, other; /* input; result before and after the fused addition; what
                                         was added */
    ptq_step_info step;
} element;

static int code_at(const ptq_tensor *tensor, int at) {
    return (int)ptq_tensor_number(tensor, (size_t)at);
}

/* The input under tap (u, v) of the window in channel i, less its zero point; padding is 0. */
static int input_code(const element *e, int i, int u, int v) {
    const ptq_node *n = e->node;
    const int *in = e->in.dim;
    int row = e->y * n->stride[0] - n->pad[0] + u, column = e->x * n->stride[1] - n->pad[1] + v;

    if (row < 0 || row >= in[0] || column < 0 || column >= in[1])
        return 0;
    return code_at(&e->in, (row * in[1] + column) * in[2] + i) - e->in.zero_point;
}

/* Products in the order of the weights, O x I x KH x KW. A dense layer's are in the order of its
   input in memory: one pixel of H * W * C channels. */
static int put_products(growing *text, const element *e) {
    const ptq_tensor *weight = &e->node->param[PTQ_PARAM_WEIGHT];
    int taps = (int)(ptq_tensor_elements(weight) / (size_t)weight->dim[0]), sum = 0;
    int first = e->c / (weight->dim[0] / e->node->groups) * weight->dim[1];

    for (int k = 0; k < taps; k++) {
        int w = code_at(weight, e->c * taps + k) - weight->zero_point, x;

        if (weight->rank == 2)
            x = code_at(&e->in, k) - e->in.zero_point;
        else
            x = input_code(e, first + k / (weight->dim[2] * weight->dim[3]),
                           k / weight->dim[3] % weight->dim[2], k % weight->dim[3]);
        sum += x * w;
        put(text, "  (x - zx) %d * (w - zw) %d = %d, sum %d\n", x, w, x * w, sum);
    }
    return sum;
}

/* The accumulator, and the code or real number that becomes of it. */
static void put_result(growing *text, const element *e, int sum) {
    const ptq_tensor *weight = &e->node->param[PTQ_PARAM_WEIGHT];
    const int32_t *bias = e->node->param[PTQ_PARAM_BIAS].data;
    const ptq_qparams *q = e->node->residual ? &e->node->mid : &e->node->q;
    float m = e->step.multiplier[e->c], result;
    int low = e->step.low, high = e->step.high, code;

    sum += bias ? bias[e->c] : 0;
    result = (float)((double)(float)sum * (double)m); /* rounded once */
    put(text, "bias %d: accumulator %d\n", bias ? (int)bias[e->c] : 0, sum);
    put(text, "multiplier %s = input scale %s * weight scale %s", number(m).text,
        number(e->in.scale[0]).text, number(weight->scale[weight->scales > 1 ? e->c : 0]).text);
    if (q->type == PTQ_TYPE_F32) {
        put(text, "\nresult %d * %s = %s, a real number\n", sum, number(m).text,
            number(result).text);
        return;
    }
    code = ptq_requantize(sum, m, q->zero_point, low, high);
    put(text,
        "\n    / output scale %s\n"
        "%d * %s = %s\n    clamped to %d..%d, rounded half to even, plus zero point %d: code %d\n"
        "code stands for %s\n",
        number(q->scale).text, sum, number(m).text, number(result).text, low - (int)q->zero_point,
        high - (int)q->zero_point, (int)q->zero_point, code, number(ptq_dequantize(code, q)).text);
}

/* The addition fused behind it. */
static void put_residual(growing *text, const element *e) {
    int own = code_at(&e->first, e->at), other = code_at(&e->other, e->at);
    int first = e->node->residual == PTQ_RESIDUAL_FIRST;

    put(text, "residual code %d stands for %s\n", other,
        number(ptq_tensor_real(&e->other, (size_t)e->at)).text);
    put(text,
        "sum %d * %s + (%d * %s + %s)\n    clamped to %d..%d, rounded half to even: code %d, "
        "stands for %s\n",
        first ? other : own, number(e->step.ratio[0]).text, first ? own : other,
        number(e->step.ratio[1]).text, number(e->step.shift).text, (int)e->step.sum_low,
        (int)e->step.sum_high, code_at(&e->sum, e->at),
        number(ptq_tensor_real(&e->sum, (size_t)e->at)).text);
}

/* The tensors of the last run that have to do with the element. */
static ptq_status find_tensors(element *e, const ptq_session *session, ptq_error *err) {
    const ptq_node *n = e->node;
    ptq_status status;

    if ((status = ptq_session_tensor(session, e->model->node[n->input[0]].out, &e->in, err)) ||
        !n->residual)
        return status;
    if ((status = ptq_session_tensor(session, n->name, &e->first, err)) ||
        (status = ptq_session_tensor(session, n->out, &e->sum, err)))
        return status;
    return ptq_session_tensor(session, e->model->node[n->input[1]].out, &e->other, err);
}

ptq_status explain_element(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, char **out, ptq_error *err) {
    const ptq_model *model = ptq_plan_get_info(plan)->model;
    int index = ptq_model_find(model, node);
    const ptq_node *n = &model->node[index < 0 ? 0 : index];
    element e = {.model = model, .node = n, .y = y, .x = x, .c = c};
    growing text = {NULL, 0, 4096};
    ptq_status status;

    if ((n->op != PTQ_OP_CONV2D && n->op != PTQ_OP_DENSE) ||
        ptq_node_mode(model, index) != PTQ_MODE_INTEGER || y < 0 || y >= n->shape[0] || x < 0 ||
        x >= n->shape[1] || c < 0 || c >= n->shape[2])
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "explain: '%s' is no integer convolution or dense layer with an"
                             " element (%d, %d, %d)",
                             node, y, x, c);
    status = find_tensors(&e, session, err);
    if (status)
        return status;
    e.at = (y * n->shape[1] + x) * n->shape[2] + c;
    ptq_plan_step(plan, index, &e.step);
    text.data = malloc(text.capacity);
    put(&text, "%s at row %d, column %d, channel %d\n", n->name, y, x, c);
    put_result(&text, &e, put_products(&text, &e));
    if (n->residual)
        put_residual(&text, &e);
    *out = text.data;
    return text.data ? PTQ_OK
                     : ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for the explanation");
}
