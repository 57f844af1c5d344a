/* TensorFlow Lite's arithmetics, xnnpack and fixed: known values, and every tensor of random
   networks, on every instruction set, against formulas written a second time. */
#include "quantized.h"

/* ---------------------------------------------------------------------------------------------
   The formulas again */

/* Halves up at 2^31, then halves away from zero at the power of two: the double rounding of
   gemmlowp, which all of TensorFlow Lite's integers go through. */
static int32_t scaled(int64_t x, double factor) {
    int exponent;
    double m = round(frexp(factor, &exponent) * 2147483648.0);
    int64_t product, high;

    x *= exponent > 0 ? (int64_t)1 << exponent : 1;
    product = x * (int64_t)m + ((int64_t)1 << 30);
    high = product >> 31; /* rounds down */
    return (int32_t)llround(ldexp((double)high, exponent < 0 ? exponent : 0));
}

static int32_t limited(int64_t code, code_limits l) {
    return (int32_t)(code < l.low ? l.low : code > l.high ? l.high : code);
}

static int32_t sum_of(const kept *a, const kept *b, const ptq_node *n, size_t i, int fixed) {
    double sa = (double)a->q.scale, sb = (double)b->q.scale, most = 2 * fmax(sa, sb), unit;
    float ra = a->q.scale / n->q.scale, rb = b->q.scale / n->q.scale;
    int64_t x = code_at(a, i) - a->q.zero_point, y = code_at(b, i) - b->q.zero_point;

    if (fixed) {
        x = (int64_t)scaled(x * 1048576, sa / most) + scaled(y * 1048576, sb / most);
        x = scaled(x, most / (1048576 * (double)n->q.scale));
    } else {
        unit = exp2(20 - floor(log2((double)fmaxf(ra, rb))));
        x = (int64_t)floor(
            ((double)x * rint((double)ra * unit) + (double)y * rint((double)rb * unit)) / unit +
            0.5);
    }
    return limited(x + n->q.zero_point, limits_of(&n->q, n->act));
}

static int32_t average_of(const ptq_node *n, const kept *x, int y0, int x0, int c) {
    int taps;
    int64_t sum = pooled(n, x, y0, x0, c, &taps);

    sum += (int64_t)x->q.zero_point * (n->include_pad ? 0 : taps);
    return (int32_t)round((double)sum / taps);
}

static int32_t mean_of(const ptq_node *n, const kept *x, int c, int fixed) {
    int pixels = x->node->shape[0] * x->node->shape[1];
    double share = (double)x->q.scale / (pixels * (double)n->q.scale);
    int64_t sum = 0;

    for (int i = 0; i < pixels; i++)
        sum += code_at(x, (size_t)(i * x->node->shape[2] + c)) - x->q.zero_point;
    return fixed ? limited((int64_t)scaled(sum, share) + n->q.zero_point,
                           limits_of(&n->q, PTQ_ACTIVATION_NONE))
                 : averaged(sum, pixels, &x->q, &n->q);
}

static int32_t layer_of(const ptq_node *n, const kept *x, int y0, int x0, int o, int fixed) {
    int64_t acc = accumulator(n, x, y0, x0, o);
    code_limits l = limits_of(&n->q, n->act);
    double factor = (double)x->q.scale * (double)weight_scale(n, o) / (double)n->q.scale;

    if (!fixed)
        return code_of((float)acc * multiplier(n, &x->q, &n->q, o), l);
    return limited((int64_t)scaled(acc, factor) + l.zero_point, l);
}

/* -1 where the node has nothing of its own in these arithmetics. */
static int32_t expected_code(const ptq_node *n, const kept *a, const kept *b, const int *at, int i,
                             int fixed) {
    int y0 = at[0] * n->stride[0] - n->pad[0], x0 = at[1] * n->stride[1] - n->pad[1];

    if (n->op == PTQ_OP_ADD)
        return sum_of(a, b, n, (size_t)i, fixed);
    if (n->op == PTQ_OP_AVG_POOL)
        return average_of(n, a, y0, x0, at[2]);
    if (n->op == PTQ_OP_GLOBAL_AVG_POOL)
        return mean_of(n, a, at[2], fixed);
    return layer_of(n, a, y0, x0, at[2], fixed);
}

static int is_ours(const ptq_model *m, int index) {
    const ptq_node *n = &m->node[index];

    return ptq_node_mode(m, index) == PTQ_MODE_INTEGER && n->q.type != PTQ_TYPE_F32 &&
           (n->op == PTQ_OP_ADD || n->op == PTQ_OP_CONV2D || n->op == PTQ_OP_DENSE ||
            ((n->op == PTQ_OP_AVG_POOL && !n->include_pad) || n->op == PTQ_OP_GLOBAL_AVG_POOL));
}

static size_t compare_node(const ptq_model *m, const ptq_session *session, int index, int fixed) {
    const ptq_node *n = &m->node[index];
    kept a, b, out;
    int at[3], i = 0;

    if (!is_ours(m, index))
        return 0;
    assert_int_equal(n->residual, PTQ_RESIDUAL_NONE);
    a = kept_tensor(session, &m->node[n->input[0]], m->node[n->input[0]].out);
    b = n->input[1] < 0 ? a : kept_tensor(session, &m->node[n->input[1]], m->node[n->input[1]].out);
    out = kept_tensor(session, n, n->out);
    for (at[0] = 0; at[0] < n->shape[0]; at[0]++)
        for (at[1] = 0; at[1] < n->shape[1]; at[1]++)
            for (at[2] = 0; at[2] < n->shape[2]; at[2]++, i++) {
                int32_t want = expected_code(n, &a, &b, at, i, fixed);

                if (code_at(&out, (size_t)i) != want)
                    fail_msg("%s[%d]: code %d is not %d", n->name, i, (int)code_at(&out, (size_t)i),
                             (int)want);
            }
    return (size_t)i;
}

/* ---------------------------------------------------------------------------------------------
   Random networks */

static size_t compare_on(const ptq_model *m, ptq_isa isa, uint64_t seed, int fixed) {
    pictures p = pictures_for(m, 1, seed);
    uint8_t pixels[13 * 13 * 7];
    ptq_plan_options planning;
    ptq_session_options keep;
    test_run run = {NULL, NULL};
    size_t compared = 0;
    int label;

    memset(&planning, 0, sizeof planning);
    planning.isa = isa;
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    assert_ok(ptq_plan_create(m, &planning, &run.plan, &err));
    assert_ok(ptq_session_create(run.plan, &keep, &run.session, &err));
    assert_ok(pictures_dataset(&p)->get(&p, 0, pixels, &label, &err));
    assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
    for (int n = 1; n < m->nodes; n++)
        compared += compare_node(m, run.session, n, fixed);
    ptq_session_free(run.session);
    ptq_plan_free(run.plan);
    return compared;
}

static size_t compare_network(uint64_t seed) {
    test_random r = {0};
    int fixed = (int)(seed % 2);
    ptq_model *fused = random_graph(seed), *m;
    ptq_calibration *calibration;
    ptq_convert_options o;
    size_t compared = 0;
    ptq_scheme s;
    pictures p;
    ptq_dataset data;

    r.state = seed + 900;
    assert_ok(ptq_model_set_meta(fused, "arithmetic", fixed ? "fixed" : "xnnpack", &err));
    fused = fused_of(fused);
    p = pictures_for(fused, 6, seed);
    data = *pictures_dataset(&p);
    calibration = calibrated_on(fused, &data);
    memset(&s, 0, sizeof s);
    s.weight_bits = random_int(&r, 0, 2) ? 8 : random_int(&r, 2, 8);
    s.activation_bits = random_int(&r, 0, 2) ? 8 : random_int(&r, 2, 8);
    s.weight_per_tensor = random_int(&r, 0, 1);
    s.activation_signed = random_int(&r, 0, 1);
    s.code_logits = random_int(&r, 0, 1);
    s.weight_method = s.activation_method = PTQ_METHOD_MINMAX;
    s.rounding = PTQ_ROUNDING_NEAREST;
    o = with_scheme(s, &data);
    m = converted(fused, calibration, &o);
    for (int isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++)
        if (ptq_isa_support((ptq_isa)isa) == PTQ_SUPPORT_AVAILABLE)
            compared += compare_on(m, (ptq_isa)isa, seed, fixed);
    ptq_model_free(m);
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
    return compared;
}

static void test_random_networks(void **state) {
    size_t compared = 0;

    (void)state;
    for (uint64_t seed = 0; seed < (uint64_t)how_many(2000, 100); seed++)
        compared += compare_network(seed);
    assert_true(compared > 10000);
}

/* ---------------------------------------------------------------------------------------------
   Known values */

/* A model of a graph's lines; its one layer `a` has these weights of scale 1. */
static ptq_model *small_model(const char *arithmetic, const char *lines, const int *weights) {
    char text[1024];
    const float one = 1;
    ptq_model *m;

    snprintf(text, sizeof text, "ptq-graph 1\n%s", lines);
    m = model_of_text(text);
    set_weight(m, "a.weight", &one, 1, 0, weights);
    assert_ok(ptq_model_set_meta(m, "arithmetic", arithmetic, &err));
    return m;
}

static void codes_of(const ptq_model *m, const float *in, const char *name, int8_t *out, size_t n) {
    test_run run = {NULL, NULL};
    ptq_session_options keep;
    ptq_tensor view;

    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    assert_ok(ptq_plan_create(m, NULL, &run.plan, &err));
    assert_ok(ptq_session_create(run.plan, &keep, &run.session, &err));
    assert_ok(ptq_run_f32(run.session, in, 1, NULL, NULL, &err));
    assert_ok(ptq_session_tensor(run.session, name, &view, &err));
    memcpy(out, view.data, n);
    ptq_session_free(run.session);
    ptq_plan_free(run.plan);
}

/* By hand. A factor of 1/2 is 2^30 2^-31: fixed rounds halves up, as its first step does. A factor
   of 1/4 is 2^30 2^-32: the first step is exact, the second rounds halves away from zero. In xnnpack
   halves go to even. */
static void test_halves(void **state) {
    static const float in[6] = {1, -1, 3, -3, 6, -6};
    static const struct {
        const char *arithmetic, *q;
        int8_t want[6];
    } cases[] = {{"xnnpack", "s8:8:2:0", {0, 0, 2, -2, 3, -3}},
                 {"fixed", "s8:8:2:0", {1, 0, 2, -1, 3, -3}},
                 {"xnnpack", "s8:8:4:0", {0, 0, 1, -1, 2, -2}},
                 {"fixed", "s8:8:4:0", {1, 0, 1, -1, 2, -2}}};

    (void)state;
    for (int i = 0; i < 4; i++) {
        const int weight = 1;
        char lines[256];
        int8_t codes[6];
        ptq_model *m;

        snprintf(lines, sizeof lines,
                 "input input shape=1x6x1 q=s8:8:1:0\n"
                 "a conv2d in=input channels=1 kernel=1x1 bias=0 w=s8 q=%s\n",
                 cases[i].q);
        m = small_model(cases[i].arithmetic, lines, &weight);
        codes_of(m, in, "a", codes, 6);
        for (int k = 0; k < 6; k++)
            if (codes[k] != cases[i].want[k])
                fail_msg("%s, %s: %g gives %d", cases[i].arithmetic, cases[i].q, (double)in[k],
                         codes[k]);
        ptq_model_free(m);
    }
}

/* 1 and 2 average to 2, -1 and -2 to -2: halves away from zero, whatever the zero point. */
static void test_average(void **state) {
    static const float in[4] = {1, -1, 2, -2};
    const int weights[4] = {1, 0, 0, 1};
    int8_t codes[2];
    ptq_model *m;

    (void)state;
    m = small_model("xnnpack",
                    "input input shape=1x2x2 q=s8:8:1:0\n"
                    "a conv2d in=input channels=2 kernel=1x1 bias=0 w=s8 q=s8:8:1:0\n"
                    "b avg_pool in=a kernel=1x2 pad=valid q=s8:8:1:0\n"
                    "c global_avg_pool in=a q=s8:8:0.5:-3\n"
                    "d dense in=b channels=1 bias=0 w=s8 q=s8:8:1:0\n"
                    "e dense in=c channels=1 bias=0 w=s8 q=s8:8:1:0\nf add in=d,e q=s8:8:1:0\n",
                    weights);
    codes_of(m, in, "b", codes, 2);
    assert_int_equal(codes[0], 2);
    assert_int_equal(codes[1], -2);
    codes_of(m, in, "c", codes, 2); /* 3 and -3 in a scale of half the size, less 3 */
    assert_int_equal(codes[0], 0);
    assert_int_equal(codes[1], -6);
    ptq_model_free(m);
}

/* 256 e / (1 + e) = 187.15, 256 / (1 + e) = 68.85; less 128. A share of 1 has no code. */
static void test_softmax(void **state) {
    static const float in[3][2] = {{0, 0}, {1, 0}, {0, 100}};
    static const int8_t want[3][2] = {{0, 0}, {59, -59}, {-128, 127}};
    const int weights[4] = {1, 0, 0, 1};
    int8_t codes[2];
    ptq_model *m;

    (void)state;
    m = small_model("xnnpack",
                    "input input shape=1x1x2 q=s8:8:1:0\n"
                    "a dense in=input channels=2 bias=0 w=s8 q=s8:8:1:0\n"
                    "p softmax in=a q=s8:8:0.00390625:-128\n",
                    weights);
    for (int i = 0; i < 3; i++) {
        codes_of(m, in[i], "p", codes, 2);
        assert_memory_equal(codes, want[i], 2);
    }
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   Files */

static void test_file_tells_it(void **state) {
    const int weights[4] = {1, 0, 0, 1};
    static const char lines[] = "input input shape=1x2x2 q=s8:8:1:0\n"
                                "a conv2d in=input channels=2 kernel=1x1 bias=0 w=s8 q=s8:8:1:0\n"
                                "b avg_pool in=a kernel=1x2 pad=valid q=s8:8:2:0\n";
    static const char *const version[] = {"\"format_version\":\"1\"", "\"format_version\":\"2\""};
    ptq_model *m, *back = NULL;
    void *bytes = NULL;
    size_t size = 0;

    (void)state;
    for (int other = 0; other < 2; other++) {
        m = small_model(other ? "fixed" : "onnx", lines, weights);
        m->node[2].q.scale = other ? 1 : 2;
        assert_ok(ptq_model_write(m, &bytes, &size, &err));
        ((char *)bytes)[size - 1] = 0; /* a code: the header in front of it is text */
        assert_non_null(strstr((char *)bytes + 8, version[other]));
        ptq_bytes_free(bytes, NULL);
        assert_ok(ptq_model_write(m, &bytes, &size, &err));
        assert_ok(ptq_model_parse(bytes, size, NULL, &back, &err));
        assert_string_equal(ptq_model_get_meta(back, "arithmetic"), other ? "fixed" : "onnx");
        ptq_model_free(back);
        ptq_bytes_free(bytes, NULL);
        ptq_model_free(m);
    }
    m = small_model("fixed", lines, weights); /* an average that changes its scale */
    assert_int_equal(ptq_model_check(m, &err), PTQ_BAD_GRAPH);
    assert_ok(ptq_model_set_meta(m, "arithmetic", "gemmlowp", &err));
    assert_int_equal(ptq_model_check(m, &err), PTQ_BAD_FILE);
    assert_non_null(strstr(err.text, "onnx, xnnpack or fixed"));
    ptq_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves),        cmocka_unit_test(test_average),
        cmocka_unit_test(test_softmax),       cmocka_unit_test(test_random_networks),
        cmocka_unit_test(test_file_tells_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
