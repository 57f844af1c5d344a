/* quantized.h - what the tests of the quantized half share: pictures to calibrate on, short ways
   from a float model to a quantized one, and every integer operator a second time, written from the
   formulas of IEEE single precision and not from the library. */
#ifndef QUANTIZED_H
#define QUANTIZED_H

#include "reference.h"

/* ---------------------------------------------------------------------------------------------
   Pictures: smooth colours with a little noise, the same for the same index. The data set within
   is filled, and its `user` is the struct, whenever pictures_dataset gives it out. */

typedef struct pictures {
    int h, w, c, classes;
    size_t count;
    uint64_t seed;
    const size_t *order; /* which pictures, in which order; NULL: 0, 1, 2 ... */
    ptq_dataset data;
} pictures;

static inline ptq_status get_picture(void *user, size_t index, void *item, int *label,
                                     ptq_error *e) {
    uint8_t *pixels = (uint8_t *)item;
    const pictures *p = (const pictures *)user;
    size_t number = p->order ? p->order[index] : index;
    test_random r = {0};
    int y, x, c;

    (void)e;
    r.state = p->seed * 1000003 + number;
    *label = (int)(number % (size_t)p->classes);
    for (c = 0; c < p->c; c++) {
        double base = random_int(&r, 0, 255), dy = random_int(&r, -90, 90);
        double dx = random_int(&r, -90, 90), v;
        for (y = 0; y < p->h; y++)
            for (x = 0; x < p->w; x++) {
                v = base + dy * y / p->h + dx * x / p->w + random_int(&r, -3, 3);
                pixels[(y * p->w + x) * p->c + c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
    }
    return PTQ_OK;
}

static inline const ptq_dataset *pictures_dataset(pictures *p) {
    ptq_dataset *data = &p->data;

    memset(data, 0, sizeof *data);
    data->count = p->count;
    data->height = p->h;
    data->width = p->w;
    data->channels = p->c;
    data->classes = p->classes;
    data->type = PTQ_TYPE_U8;
    data->get = get_picture;
    data->user = p;
    return data;
}

/* Pictures that a model takes. */
static inline pictures pictures_for(const ptq_model *model, size_t count, uint64_t seed) {
    const ptq_node *in = &model->node[0], *out = &model->node[ptq_model_logits(model)];
    pictures p;

    memset(&p, 0, sizeof p);
    p.h = in->shape[0];
    p.w = in->shape[1];
    p.c = in->shape[2];
    p.classes = out->shape[0] * out->shape[1] * out->shape[2];
    p.count = count;
    p.seed = seed;
    return p;
}

/* ---------------------------------------------------------------------------------------------
   From float to integers */

/* Fuses the model, and frees it. */
static inline ptq_model *fused_of(ptq_model *model) {
    ptq_model *fused = NULL;

    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    ptq_model_free(model);
    return fused;
}

static inline ptq_calibration *calibrated_on(const ptq_model *fused, const ptq_dataset *data) {
    ptq_calibrate_options o;
    ptq_calibration *calibration = NULL;
    ptq_plan *plan = NULL;

    memset(&o, 0, sizeof o);
    o.accept_any = 1; /* tiny pictures need not look like photographs */
    assert_ok(ptq_plan_create(fused, NULL, &plan, &err));
    assert_ok(ptq_calibrate(plan, data, &o, &calibration, &err));
    ptq_plan_free(plan);
    return calibration;
}

static inline ptq_scheme preset(const char *name) {
    ptq_scheme scheme;

    assert_ok(ptq_preset(name, &scheme, &err));
    return scheme;
}

/* Options; `images` are for schemes that learn from them. */
static inline ptq_convert_options with_scheme(ptq_scheme scheme, const ptq_dataset *images) {
    ptq_convert_options o;

    memset(&o, 0, sizeof o);
    o.scheme = scheme;
    o.images = images;
    return o;
}

static inline ptq_model *converted(const ptq_model *fused, const ptq_calibration *calibration,
                                   const ptq_convert_options *options) {
    ptq_model *model = NULL;

    assert_ok(ptq_convert(fused, calibration, options, &model, NULL, &err));
    return model;
}

/* A model from graph text; its parameters are zeros with scales of 1. */
static inline ptq_model *model_of_text(const char *text) {
    ptq_model *model = NULL;

    assert_ok(ptq_graph_parse(text, strlen(text), NULL, &model, &err));
    return model;
}

/* Gives an integer weight scales, a zero point and codes. */
static inline void set_weight(ptq_model *model, const char *name, const float *scale, int scales,
                              int zero_point, const int *code) {
    ptq_tensor *w = ptq_model_param(model, name);
    size_t i;

    assert_non_null(w);
    assert_ok(ptq_tensor_set_scale(w, scale, scales, zero_point, NULL, &err));
    for (i = 0; i < ptq_tensor_elements(w); i++)
        ptq_tensor_set_code(w, i, code[i]);
}

/* ---------------------------------------------------------------------------------------------
   Integer operators again */

/* Rounding half to even, of a value that an int32 holds. */
static inline int32_t nearest(float f) { return (int32_t)rintf(f); }

typedef struct code_limits {
    int32_t zero_point, low, high;
} code_limits;

static inline code_limits limits_of(const ptq_qparams *q, ptq_activation act) {
    code_limits l;

    l.zero_point = q->zero_point;
    l.low = q->type == PTQ_TYPE_S8 ? -(1 << (q->bits - 1)) : 0;
    l.high = l.low + (1 << q->bits) - 1;
    if (act == PTQ_ACTIVATION_RELU6) {
        float six = rintf(6.0f / q->scale);
        if (six < (float)(l.high - l.zero_point))
            l.high = l.zero_point + (int32_t)six;
    }
    if (act != PTQ_ACTIVATION_NONE)
        l.low = l.zero_point;
    return l;
}

static inline int32_t code_of(float f, code_limits l) {
    f = fminf(fmaxf(f, (float)(l.low - l.zero_point)), (float)(l.high - l.zero_point));
    return nearest(f) + l.zero_point;
}

/* A tensor of codes, or of real numbers, as a session keeps it. */
typedef struct kept {
    const ptq_node *node;
    ptq_qparams q;
    ptq_tensor view;
} kept;

static inline kept kept_tensor(const ptq_session *session, const ptq_node *node, const char *name) {
    kept k;

    memset(&k, 0, sizeof k);
    k.node = node;
    k.q = node->residual && strcmp(name, node->out) ? node->mid : node->q;
    assert_ok(ptq_session_tensor(session, name, &k.view, &err));
    assert_int_equal(k.view.type, k.q.type);
    return k;
}

static inline int32_t code_at(const kept *k, size_t i) {
    return k->view.type == PTQ_TYPE_S8 ? ((const int8_t *)k->view.data)[i]
                                       : ((const uint8_t *)k->view.data)[i];
}

static inline float real_at(const kept *k, size_t i) { return ((const float *)k->view.data)[i]; }

static inline int32_t weight_at(const ptq_node *n, size_t i) {
    return (int32_t)ptq_tensor_number(&n->param[PTQ_PARAM_WEIGHT], i) -
           n->param[PTQ_PARAM_WEIGHT].zero_point;
}

static inline float weight_scale(const ptq_node *n, int channel) {
    const ptq_tensor *w = &n->param[PTQ_PARAM_WEIGHT];

    return w->scale[w->scales == 1 ? 0 : channel];
}

/* The exact accumulator of one element of a convolution or dense layer. */
static inline int64_t accumulator(const ptq_node *n, const kept *x, int y0, int x0, int o) {
    const int *in = x->node->shape;
    int64_t sum =
        n->param[PTQ_PARAM_BIAS].rank ? ((const int32_t *)n->param[PTQ_PARAM_BIAS].data)[o] : 0;
    int per_group, first, i, u, v;

    if (n->op == PTQ_OP_DENSE) {
        int inputs = in[0] * in[1] * in[2];
        for (i = 0; i < inputs; i++)
            sum += (int64_t)(code_at(x, (size_t)i) - x->q.zero_point) *
                   weight_at(n, (size_t)(o * inputs + i));
        return sum;
    }
    per_group = in[2] / n->groups;
    first = o / (n->shape[2] / n->groups) * per_group;
    for (i = 0; i < per_group; i++)
        for (u = 0; u < n->kernel[0]; u++)
            for (v = 0; v < n->kernel[1]; v++) {
                int row = y0 + u * n->dilation[0], column = x0 + v * n->dilation[1];
                size_t w = (size_t)(((o * per_group + i) * n->kernel[0] + u) * n->kernel[1] + v);
                if (row < 0 || row >= in[0] || column < 0 || column >= in[1])
                    continue;
                sum += (int64_t)(code_at(x, (size_t)((row * in[1] + column) * in[2] + first + i)) -
                                 x->q.zero_point) *
                       weight_at(n, w);
            }
    return sum;
}

/* (s_in * s_w) / s_out, in this order; s_out NULL for real results. */
static inline float multiplier(const ptq_node *n, const ptq_qparams *in, const ptq_qparams *out,
                               int channel) {
    float product = in->scale * weight_scale(n, channel);

    return out->type == PTQ_TYPE_F32 ? product : product / out->scale;
}

/* QLinearAdd: the order of operands and operations is part of the result. */
static inline int32_t added(int32_t a, const ptq_qparams *qa, int32_t b, const ptq_qparams *qb,
                            const ptq_qparams *qc, ptq_activation act) {
    float ac = qa->scale / qc->scale, bc = qb->scale / qc->scale;
    float product = bc * (float)qb->zero_point;
    float fp = (float)qc->zero_point - fmaf(ac, (float)qa->zero_point, product);
    code_limits l = limits_of(qc, act);

    l.zero_point = 0; /* it is in fp already */
    return code_of(fmaf((float)a, ac, fmaf((float)b, bc, fp)), l);
}

static inline int32_t averaged(int64_t sum, int n, const ptq_qparams *x, const ptq_qparams *y) {
    float m = x->scale / (y->scale * (float)n);

    return code_of((float)sum * m, limits_of(y, PTQ_ACTIVATION_NONE));
}

static inline float activated(float x, ptq_activation act) {
    return act == PTQ_ACTIVATION_NONE || x > 0 ? (act == PTQ_ACTIVATION_RELU6 && x > 6 ? 6 : x) : 0;
}

/* Sum of codes less the zero point, or the largest code, and the divisor of the average. */
static inline int64_t pooled(const ptq_node *n, const kept *x, int y0, int x0, int c, int *taps) {
    const int *in = x->node->shape;
    int64_t sum = 0, most = INT64_MIN;
    int u, v, padded = 0;

    *taps = 0;
    for (u = y0; u < y0 + n->kernel[0]; u++)
        for (v = x0; v < x0 + n->kernel[1]; v++) {
            int32_t code;
            padded += u < in[0] + n->pad[2] && v < in[1] + n->pad[3];
            if (u < 0 || u >= in[0] || v < 0 || v >= in[1])
                continue;
            code = code_at(x, (size_t)((u * in[1] + v) * in[2] + c));
            sum += code - x->q.zero_point;
            most = code > most ? code : most;
            ++*taps;
        }
    if (n->include_pad)
        *taps = padded;
    return n->op == PTQ_OP_MAX_POOL || n->op == PTQ_OP_GLOBAL_MAX_POOL ? most : sum;
}

/* What a reference says of one element: its code (or, where results are real, its value), and the
   result in double precision, from the same integer inputs, before any rounding. `size` is the
   magnitude of the largest term, to which rounding errors are proportional. */
typedef struct expected {
    int32_t code;
    float real;
    double exact, size;
} expected;

static inline expected expect_weighted(const ptq_node *n, const kept *x, const ptq_qparams *out,
                                       int y0, int x0, int o) {
    int64_t acc = accumulator(n, x, y0, x0, o);
    float f = (float)acc * multiplier(n, &x->q, out, o);
    expected e = {0, 0, 0, 0};

    e.exact = (double)acc * (double)x->q.scale * (double)weight_scale(n, o);
    e.size = fabs(e.exact);
    if (out->type == PTQ_TYPE_F32)
        e.real = activated(f, n->act);
    else
        e.code = code_of(f, limits_of(out, n->act));
    return e;
}

static inline double exact_real(const kept *k, size_t i) {
    return (double)k->q.scale * (double)(code_at(k, i) - k->q.zero_point);
}

static inline expected expect_sum(const ptq_node *n, const kept *a, const kept *b, size_t i) {
    expected e = {0, 0, 0, 0};
    double x = exact_real(a, i), y = exact_real(b, i);

    e.code = added(code_at(a, i), &a->q, code_at(b, i), &b->q, &n->q,
                   n->op == PTQ_OP_ADD ? n->act : n->add_act);
    e.exact = x + y;
    e.size = 255 * ((double)a->q.scale + (double)b->q.scale) + (double)n->q.scale * 255;
    return e;
}

/* QLinearConcat: channel c at one position, of a or of b, between real numbers. */
static inline expected expect_joined(const ptq_node *n, const kept *a, const kept *b,
                                     size_t position, int c) {
    const kept *from = c < a->node->shape[2] ? a : b;
    int channel = from == a ? c : c - a->node->shape[2];
    size_t i = position * (size_t)from->node->shape[2] + (size_t)channel;
    volatile float real = from->q.scale * (float)(code_at(from, i) - from->q.zero_point);
    expected e = {0, 0, 0, 0};

    e.code = code_of(real / n->q.scale, limits_of(&n->q, PTQ_ACTIVATION_NONE));
    e.exact = exact_real(from, i);
    e.size = fabs(e.exact);
    return e;
}

/* ONNX Runtime's average of a window: real numbers, summed up row by row, and the zero point added
   before rounding. `size`: that of the largest term or sum. */
static inline int32_t window_average(const ptq_node *n, const kept *x, int y0, int x0, int c,
                                     int taps, double *size) {
    const int *in = x->node->shape;
    volatile float sum = 0, term, code; /* each one rounded */
    code_limits l = limits_of(&n->q, PTQ_ACTIVATION_NONE);
    int u, v;

    for (u = y0 < 0 ? 0 : y0; u < y0 + n->kernel[0] && u < in[0]; u++)
        for (v = x0 < 0 ? 0 : x0; v < x0 + n->kernel[1] && v < in[1]; v++) {
            term = x->q.scale *
                   (float)(code_at(x, (size_t)((u * in[1] + v) * in[2] + c)) - x->q.zero_point);
            sum += term;
            *size += fabs((double)term);
        }
    code = sum / (float)taps;
    code = code / n->q.scale;
    code += (float)n->q.zero_point;
    *size += 256 * (double)n->q.scale;
    l.zero_point = 0;
    return code_of(code, l);
}

/* Windows, or the whole image. */
static inline expected expect_pooled(const ptq_node *n, const kept *x, int y0, int x0, int c) {
    expected e = {0, 0, 0, 0};
    int taps;
    int64_t v = pooled(n, x, y0, x0, c, &taps);

    if (n->op == PTQ_OP_MAX_POOL || n->op == PTQ_OP_GLOBAL_MAX_POOL) {
        e.code = (int32_t)v;
        e.exact = (double)x->q.scale * (double)(v - x->q.zero_point);
    } else if (n->op == PTQ_OP_AVG_POOL) {
        e.code = window_average(n, x, y0, x0, c, taps, &e.size);
        e.exact = (double)x->q.scale * (double)v / taps;
    } else {
        e.code = averaged(v, taps, &x->q, &n->q);
        e.exact = (double)x->q.scale * (double)v / taps;
    }
    e.size += fabs(e.exact);
    return e;
}

/* The result in double precision, after an activation, as a number of steps from the zero point. */
static inline double clamped_steps(double exact, ptq_activation act, const ptq_qparams *q) {
    code_limits l = limits_of(q, PTQ_ACTIVATION_NONE);
    double steps;

    if (act != PTQ_ACTIVATION_NONE && exact < 0)
        exact = 0;
    if (act == PTQ_ACTIVATION_RELU6 && exact > 6)
        exact = 6;
    steps = exact / (double)q->scale;
    return fmin(fmax(steps, (double)(l.low - l.zero_point)), (double)(l.high - l.zero_point));
}

/* Byte-equal to the formulas, and within half a step of double precision. Beside the half step, the
   formulas round at most six times in single precision: 6 * 2^-24 of the largest term. */
static inline void compare_element(const char *what, size_t i, expected e, const kept *got,
                                   ptq_activation act) {
    double steps, tolerance;

    if (got->q.type == PTQ_TYPE_F32) {
        if (memcmp(&e.real, (const float *)got->view.data + i, sizeof e.real))
            fail_msg("%s[%d]: %.9g is not %.9g", what, (int)i, (double)real_at(got, i),
                     (double)e.real);
        return;
    }
    if (code_at(got, i) != e.code)
        fail_msg("%s[%d]: code %d is not %d", what, (int)i, (int)code_at(got, i), (int)e.code);
    steps = clamped_steps(e.exact, act, &got->q);
    tolerance = 0.5 + 4e-7 * e.size / (double)got->q.scale;
    if (fabs((double)(code_at(got, i) - got->q.zero_point) - steps) > tolerance)
        fail_msg("%s[%d]: code %d, %g in steps", what, (int)i, (int)code_at(got, i), steps);
}

/* Every element of one node against the reference; returns how many were compared. Nodes on real
   numbers are left alone. */
static inline size_t check_node(const ptq_model *model, const ptq_session *session, int index) {
    const ptq_node *n = &model->node[index];
    int weighted = n->op == PTQ_OP_CONV2D || n->op == PTQ_OP_DENSE, y, x, c;
    kept a, b, middle, out;
    size_t i = 0;

    if (ptq_node_mode(model, index) != PTQ_MODE_INTEGER)
        return 0;
    a = kept_tensor(session, &model->node[n->input[0]], model->node[n->input[0]].out);
    b = n->input[1] < 0
            ? a
            : kept_tensor(session, &model->node[n->input[1]], model->node[n->input[1]].out);
    out = kept_tensor(session, n, n->out);
    middle = n->residual ? kept_tensor(session, n, n->name) : out;
    for (y = 0; y < n->shape[0]; y++)
        for (x = 0; x < n->shape[1]; x++)
            for (c = 0; c < n->shape[2]; c++, i++) {
                int y0 = y * n->stride[0] - n->pad[0], x0 = x * n->stride[1] - n->pad[1];
                expected e = {0, 0, 0, 0};
                ptq_activation act = n->act;
                if (weighted) {
                    e = expect_weighted(n, &a, &middle.q, y0, x0, c);
                    compare_element(n->name, i, e, &middle, act);
                    if (!n->residual)
                        continue;
                    act = n->add_act;
                    e = n->residual == PTQ_RESIDUAL_FIRST ? expect_sum(n, &b, &middle, i)
                                                          : expect_sum(n, &middle, &b, i);
                } else if (n->op == PTQ_OP_ADD) {
                    e = expect_sum(n, &a, &b, i);
                } else if (n->op == PTQ_OP_MAX_POOL || n->op == PTQ_OP_AVG_POOL) {
                    e = expect_pooled(n, &a, y0, x0, c);
                } else if (n->op == PTQ_OP_CONCAT) {
                    e = expect_joined(n, &a, &b, i / (size_t)n->shape[2], c);
                } else if (n->op == PTQ_OP_GLOBAL_AVG_POOL || n->op == PTQ_OP_GLOBAL_MAX_POOL) {
                    ptq_node whole = *n;
                    whole.kernel[0] = a.node->shape[0];
                    whole.kernel[1] = a.node->shape[1];
                    e = expect_pooled(&whole, &a, 0, 0, c);
                } else if (n->op == PTQ_OP_RELU || n->op == PTQ_OP_RELU6) {
                    code_limits l;
                    act = n->op == PTQ_OP_RELU ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6;
                    l = limits_of(&n->q, act);
                    e.code = code_at(&a, i) < l.low    ? l.low
                             : code_at(&a, i) > l.high ? l.high
                                                       : code_at(&a, i);
                    e.exact = exact_real(&a, i);
                } else if (n->op == PTQ_OP_QUANTIZE) {
                    e.code =
                        code_of(real_at(&a, i) / n->q.scale, limits_of(&n->q, PTQ_ACTIVATION_NONE));
                    e.exact = (double)real_at(&a, i);
                    e.size = fabs(e.exact);
                } else {
                    fail_msg("%s: no reference", n->name);
                }
                compare_element(n->out, i, e, &out, act);
            }
    return i;
}

#endif
