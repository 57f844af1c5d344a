/* From real numbers to codes and from accumulators to codes: values worked out by hand, the
   rounding against integer arithmetic, single operators against the formulas written a second
   time. */
#include "quantized.h"

static ptq_qparams params(ptq_type type, int bits, float scale, int zero_point) {
    ptq_qparams q;

    memset(&q, 0, sizeof q);
    q.type = type;
    q.bits = bits;
    q.scale = scale;
    q.zero_point = zero_point;
    return q;
}

/* ---------------------------------------------------------------------------------------------
   Scale and zero point */

static void code_ranges(void **state) {
    int32_t low, high;
    int bits;

    (void)state;
    for (bits = 2; bits <= 8; bits++) {
        int32_t codes = (int32_t)ldexp(1, bits);
        ptq_code_range(PTQ_TYPE_U8, bits, &low, &high);
        assert_int_equal(low, 0);
        assert_int_equal(high, codes - 1);
        ptq_code_range(PTQ_TYPE_S8, bits, &low, &high);
        assert_int_equal(low, -codes / 2);
        assert_int_equal(high, codes / 2 - 1);
    }
}

typedef struct choice {
    float low, high;
    ptq_type type;
    int bits, symmetric;
    double scale;
    int zero_point;
} choice;

static void chosen_by_hand(void **state) {
    static const choice table[] = {
        {0, 255, PTQ_TYPE_U8, 8, 0, 1, 0},
        {0, 255, PTQ_TYPE_S8, 8, 0, 1, -128},
        {-0.5f, 254.5f, PTQ_TYPE_U8, 8, 0, 1, 0}, /* ties go to the even one */
        {-1.5f, 253.5f, PTQ_TYPE_U8, 8, 0, 1, 2},
        {-2.5f, 252.5f, PTQ_TYPE_S8, 8, 0, 1, -126},
        {-1, 3, PTQ_TYPE_U8, 8, 0, 4.0 / 255, 64}, /* 63.75 */
        {-1, 3, PTQ_TYPE_S8, 8, 0, 4.0 / 255, -64},
        {2, 6, PTQ_TYPE_U8, 8, 0, 6.0 / 255, 0},     /* widened down to 0 */
        {-6, -2, PTQ_TYPE_U8, 8, 0, 6.0 / 255, 255}, /* and up */
        {-6, -2, PTQ_TYPE_S8, 8, 0, 6.0 / 255, 127},
        {-1, 2, PTQ_TYPE_S8, 8, 1, 2.0 / 127, 0},
        {-3, 2, PTQ_TYPE_S8, 8, 1, 3.0 / 127, 0},
        {0, 2, PTQ_TYPE_U8, 8, 1, 2.0 / 255, 0},
        {-1, 2, PTQ_TYPE_U8, 8, 1, 2.0 / 127, 128},
        {0, 15, PTQ_TYPE_U8, 4, 0, 1, 0},
        {-7, 8, PTQ_TYPE_S8, 4, 0, 1, -1},
        {-7, 7, PTQ_TYPE_S8, 4, 1, 1, 0},
        {-1, 2, PTQ_TYPE_U8, 2, 0, 1, 1},
        {-1, 1, PTQ_TYPE_S8, 2, 1, 1, 0},
        {0, 127, PTQ_TYPE_U8, 7, 0, 1, 0},
        {0, 0, PTQ_TYPE_U8, 8, 0, 1, 0},
        {0, 0, PTQ_TYPE_S8, 8, 0, 1, -128},
        {0, 0, PTQ_TYPE_S8, 8, 1, 1, 0},
        {0, 0, PTQ_TYPE_U8, 8, 1, 1, 0},
        {-3e38f, 3e38f, PTQ_TYPE_U8, 8, 0, 6e38 / 255, 128},
        {0, 1e-35f, PTQ_TYPE_U8, 8, 0, 1e-35 / 255, 0},
    };
    int i;

    (void)state;
    for (i = 0; i < COUNT(table); i++) {
        const choice *t = &table[i];
        ptq_qparams q;
        assert_ok(ptq_choose_qparams(t->low, t->high, t->type, t->bits, t->symmetric, &q, &err));
        if (q.type != t->type || q.bits != t->bits || q.zero_point != t->zero_point ||
            !is_near((double)q.scale, t->scale, 0, 1e-7))
            fail_msg("%d: %g to %g gives scale %.9g, zero point %d", i, (double)t->low,
                     (double)t->high, (double)q.scale, (int)q.zero_point);
    }
}

/* 0 is always a code, and no value of the range is further than half a step from one. */
static void random_ranges(void **state) {
    test_random r = {4};
    int i, k;

    (void)state;
    for (i = 0; i < 4000; i++) {
        double size = pow(10, random_int(&r, -30, 30));
        float low = random_float(&r, -size, size), high = random_float(&r, -size, size);
        ptq_type type = random_int(&r, 0, 1) ? PTQ_TYPE_U8 : PTQ_TYPE_S8;
        int bits = random_int(&r, 2, 8), symmetric = random_int(&r, 0, 1);
        ptq_qparams q;
        if (low > high) {
            float swap = low;
            low = high;
            high = swap;
        }
        assert_ok(ptq_choose_qparams(low, high, type, bits, symmetric, &q, &err));
        assert_int_equal(ptq_quantize(0, &q), q.zero_point);
        assert_true(ptq_dequantize(q.zero_point, &q) == 0);
        for (k = 0; k < 8; k++) {
            float x = random_float(&r, (double)low, (double)high);
            float back = ptq_dequantize(ptq_quantize(x, &q), &q);
            /* the zero point itself is rounded, which costs another half step at the ends */
            if (fabs((double)x - (double)back) > (double)q.scale * 1.0001)
                fail_msg("%g of %g..%g comes back as %g", (double)x, (double)low, (double)high,
                         (double)back);
        }
    }
}

static void ranges_refused(void **state) {
    static const float bad[][2] = {{NAN, 1},    {0, NAN},     {-INFINITY, 1},   {0, INFINITY},
                                   {0, 1e-40f}, {-1e-38f, 0}, {-1e-45f, 1e-45f}};
    ptq_qparams q, before;
    int i;

    (void)state;
    memset(&q, 0x5a, sizeof q);
    memcpy(&before, &q, sizeof q);
    for (i = 0; i < COUNT(bad); i++) {
        assert_fails(PTQ_BAD_NUMBER, "range",
                     ptq_choose_qparams(bad[i][0], bad[i][1], PTQ_TYPE_U8, 8, 0, &q, &err));
        assert_memory_equal(&q, &before, sizeof q); /* written on success only */
    }
    assert_fails(PTQ_INVALID_ARGUMENT, "2 to 8",
                 ptq_choose_qparams(0, 1, PTQ_TYPE_U8, 1, 0, &q, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "2 to 8",
                 ptq_choose_qparams(0, 1, PTQ_TYPE_S8, 9, 0, &q, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "F32",
                 ptq_choose_qparams(0, 1, PTQ_TYPE_F32, 8, 0, &q, &err));
    assert_memory_equal(&q, &before, sizeof q);
}

/* ---------------------------------------------------------------------------------------------
   Quantize and dequantize */

static void quantized_by_hand(void **state) {
    const ptq_qparams u = params(PTQ_TYPE_U8, 8, 0.5f, 10), s = params(PTQ_TYPE_S8, 8, 0.5f, -3);
    const ptq_qparams four = params(PTQ_TYPE_S8, 4, 2, 1);

    (void)state;
    assert_int_equal(ptq_quantize(0, &u), 10);
    assert_int_equal(ptq_quantize(1, &u), 12);
    assert_int_equal(ptq_quantize(0.25f, &u), 10);  /* 0.5: to 0 */
    assert_int_equal(ptq_quantize(0.75f, &u), 12);  /* 1.5: to 2 */
    assert_int_equal(ptq_quantize(1.25f, &u), 12);  /* 2.5: to 2 */
    assert_int_equal(ptq_quantize(-0.25f, &u), 10); /* -0.5: to 0 */
    assert_int_equal(ptq_quantize(-0.75f, &u), 8);  /* -1.5: to -2 */
    assert_int_equal(ptq_quantize(0.26f, &u), 11);
    assert_int_equal(ptq_quantize(-0.26f, &u), 9);
    assert_int_equal(ptq_quantize(-5, &u), 0);
    assert_int_equal(ptq_quantize(-5.3f, &u), 0);
    assert_int_equal(ptq_quantize(122.5f, &u), 255);
    assert_int_equal(ptq_quantize(123, &u), 255);
    assert_int_equal(ptq_quantize(3.4e38f, &u), 255);
    assert_int_equal(ptq_quantize(-3.4e38f, &u), 0);
    assert_int_equal(ptq_quantize(INFINITY, &u), 255);
    assert_int_equal(ptq_quantize(-INFINITY, &u), 0);
    assert_int_equal(ptq_quantize(1e-45f, &u), 10);
    assert_int_equal(ptq_quantize(-1, &s), -5);
    assert_int_equal(ptq_quantize(-100, &s), -128);
    assert_int_equal(ptq_quantize(100, &s), 127);
    assert_int_equal(ptq_quantize(3, &four), 3); /* 1.5: to 2 */
    assert_int_equal(ptq_quantize(100, &four), 7);
    assert_int_equal(ptq_quantize(-100, &four), -8);
    assert_true(ptq_dequantize(12, &u) == 1);
    assert_true(ptq_dequantize(0, &u) == -5);
    assert_true(ptq_dequantize(-5, &s) == -1);
    assert_true(ptq_dequantize(-8, &four) == -18);
}

/* NaN has no code, but what comes back must be one: it may become an index. */
static void quantized_nan_is_some_code(void **state) {
    const ptq_qparams u = params(PTQ_TYPE_U8, 8, 0.5f, 10), s = params(PTQ_TYPE_S8, 4, 0.5f, 0);

    (void)state;
    assert_in_range(ptq_quantize(NAN, &u), 0, 255);
    assert_in_range(ptq_quantize(NAN, &s) + 8, 0, 15);
}

/* A code's own value comes back as that code, and x / s is a division: x * (1 / s) would differ. */
static void round_trip_of_codes(void **state) {
    test_random r = {8};
    int i, differ = 0;

    (void)state;
    for (i = 0; i < 20000; i++) {
        ptq_qparams q = params(random_int(&r, 0, 1) ? PTQ_TYPE_U8 : PTQ_TYPE_S8,
                               random_int(&r, 2, 8), random_float(&r, 1e-3, 2), 0);
        code_limits l = limits_of(&q, PTQ_ACTIVATION_NONE);
        int32_t code = random_int(&r, l.low, l.high);
        float x;
        q.zero_point = random_int(&r, l.low, l.high);
        l.zero_point = q.zero_point;
        assert_int_equal(ptq_quantize(ptq_dequantize(code, &q), &q), code);
        x = q.scale * ((float)random_int(&r, -200, 200) + 0.5f); /* near a tie */
        assert_int_equal(ptq_quantize(x, &q), code_of(x / q.scale, l));
        differ += code_of(x * (1 / q.scale), l) != code_of(x / q.scale, l);
    }
    assert_true(differ > 0); /* else these values could not tell the two apart */
}

/* ---------------------------------------------------------------------------------------------
   Requantization against integer arithmetic */

/* value / 2^shift, rounded half to even */
static uint64_t shifted(uint64_t value, int shift) {
    uint64_t low, half;

    if (shift <= 0)
        return value;
    if (shift > 62)
        return 0;
    low = value & ((UINT64_C(1) << shift) - 1);
    half = UINT64_C(1) << (shift - 1);
    value >>= shift;
    return value + (low > half || (low == half && (value & 1)));
}

static int width(uint64_t value) {
    int n = 0;

    for (; value; value >>= 1)
        n++;
    return n;
}

/* clamp(rne((float)acc * m) + zero_point) without floating point: both roundings to 24 bits and the
   last one to an integer are done on integers. Clamping last gives the same. */
static int32_t exactly_requantized(int32_t acc, float m, int32_t zero_point, int32_t low,
                                   int32_t high) {
    int em, ea, ep;
    uint64_t mantissa = (uint64_t)ldexp(frexp((double)m, &em), 24), a, p;
    int64_t q;

    a = acc < 0 ? (uint64_t) - (int64_t)acc : (uint64_t)acc;
    ea = width(a) > 24 ? width(a) - 24 : 0;
    p = shifted(a, ea) * mantissa;
    ep = ea + em - 24;
    if (width(p) > 24) {
        int drop = width(p) - 24;
        p = shifted(p, drop);
        ep += drop;
    }
    q = ep > 30 && p ? INT64_C(1) << 40 : ep >= 0 ? (int64_t)(p << ep) : (int64_t)shifted(p, -ep);
    q = (acc < 0 ? -q : q) + zero_point;
    return (int32_t)(q < low ? low : q > high ? high : q);
}

static void compare_requantized(int32_t acc, float m, int32_t zero_point, int32_t low,
                                int32_t high) {
    int32_t got = ptq_requantize(acc, m, zero_point, low, high);
    int32_t wanted = exactly_requantized(acc, m, zero_point, low, high);

    if (got != wanted)
        fail_msg("%d * %.9g + %d in %d..%d: %d is not %d", (int)acc, (double)m, (int)zero_point,
                 (int)low, (int)high, (int)got, (int)wanted);
}

static void requantized_by_hand(void **state) {
    (void)state;
    assert_int_equal(ptq_requantize(1, 0.5f, 0, -128, 127), 0);
    assert_int_equal(ptq_requantize(3, 0.5f, 0, -128, 127), 2);
    assert_int_equal(ptq_requantize(5, 0.5f, 0, -128, 127), 2);
    assert_int_equal(ptq_requantize(7, 0.5f, 0, -128, 127), 4);
    assert_int_equal(ptq_requantize(-1, 0.5f, 0, -128, 127), 0);
    assert_int_equal(ptq_requantize(-3, 0.5f, 0, -128, 127), -2);
    assert_int_equal(ptq_requantize(-5, 0.5f, 0, -128, 127), -2);
    /* the zero point is added behind the rounding: 0.5 + 1 would round to 2 */
    assert_int_equal(ptq_requantize(1, 0.5f, 1, 0, 255), 1);
    assert_int_equal(ptq_requantize(3, 0.5f, 1, 0, 255), 3);
    assert_int_equal(ptq_requantize(255, 1, 0, 0, 255), 255);
    assert_int_equal(ptq_requantize(256, 1, 0, 0, 255), 255);
    assert_int_equal(ptq_requantize(-1, 1, 0, 0, 255), 0);
    assert_int_equal(ptq_requantize(INT32_MAX, 1, 7, 0, 255), 255);
    assert_int_equal(ptq_requantize(INT32_MIN, 1, 7, 0, 255), 0);
    assert_int_equal(ptq_requantize(INT32_MAX, 3e38f, 0, -128, 127), 127); /* infinity on the way */
    assert_int_equal(ptq_requantize(INT32_MIN, 3e38f, 0, -128, 127), -128);
    assert_int_equal(ptq_requantize(0, 3e38f, -5, -128, 127), -5);
    assert_int_equal(ptq_requantize(INT32_MAX, 1.2e-38f, 3, 0, 255), 3);
    /* (float)acc is rounded, to even: 2^24 + 1 becomes 2^24, and the tie falls the other way */
    assert_int_equal(ptq_requantize(16777217, 2.98023224e-8f, 0, -128, 127), 0);
    assert_int_equal(ptq_requantize(16777218, 2.98023224e-8f, 0, -128, 127), 1);
    /* a fused ReLU: the lowest code is the zero point */
    assert_int_equal(ptq_requantize(-50, 1, 20, 20, 255), 20);
    assert_int_equal(ptq_requantize(50, 1, 20, 20, 255), 70);
}

static void requantized_at_random(void **state) {
    static const int32_t extreme[] = {
        0, 1, -1, INT32_MAX, INT32_MIN, INT32_MIN + 1, 16777216, 16777217, -16777219, 33554435};
    test_random r = {6};
    int i;

    (void)state;
    for (i = 0; i < 100000; i++) {
        int32_t low = i & 1 ? -128 : 0, high = low + 255, acc;
        int32_t zero_point = random_int(&r, low, high);
        float m = random_float(&r, 0.5, 1) * (float)ldexp(1, random_int(&r, -31, 3));
        acc = (int32_t)((int64_t)(random_bits(&r) >> 32) - 2147483647 - 1);
        acc /= 1 << random_int(&r, 0, 24);
        if (i % 5 == 0)
            acc = extreme[random_int(&r, 0, COUNT(extreme) - 1)];
        if (i % 3 == 0) /* near the codes, where rounding shows */
            m = (float)((random_int(&r, -300, 300) + 0.5) / (acc ? (double)acc : 1));
        m = m < 0 ? -m : m;
        if (!(m >= 1.2e-38f))
            m = 0.75f;
        compare_requantized(acc, m, zero_point, low, high);
    }
}

/* Products that lie exactly between two codes: k + 1/2 goes to the even neighbour. And the same
   with a third of the multiplier, where only the rounding to single precision decides. */
static void requantized_ties(void **state) {
    int32_t k;
    int shift;

    (void)state;
    for (shift = 1; shift <= 12; shift++)
        for (k = -600; k <= 600; k++) {
            int32_t acc = (2 * k + 1) * (1 << (shift - 1)), even = k & 1 ? k + 1 : k;
            float m = (float)ldexp(1, -shift);
            assert_int_equal(ptq_requantize(acc, m, 0, -700, 700), even);
            assert_int_equal(ptq_requantize(acc, m, 3, -700, 700), even + 3);
            compare_requantized(acc, m / 3, 5, -128, 127);
        }
}

/* ---------------------------------------------------------------------------------------------
   Single operators on codes */

/* Two convolutions split the channels of a picture of all pairs of pixels, with multiplier 1 and
   the pixel as code: so an addition sees all pairs of codes. `fused`: the second takes the addition
   in. */
static ptq_model *adder(const ptq_qparams *a, const ptq_qparams *b, const ptq_qparams *c,
                        const char *act, int fused, int swapped) {
    static const int left[] = {1, 0}, right[] = {0, 1};
    const char *s = a->type == PTQ_TYPE_S8 ? "s8" : "u8";
    int shift = a->type == PTQ_TYPE_S8 ? 128 : 0;
    char text[1000], addition[200];
    ptq_model *m;

    if (fused)
        snprintf(addition, sizeof addition, "add=%s%s%s mid=%s:8:%.9g:%d q=%s:8:%.9g:%d out=sum\n",
                 swapped ? "second" : "first", act[0] ? " add_act=" : "", act, s, (double)b->scale,
                 (int)b->zero_point, s, (double)c->scale, (int)c->zero_point);
    else
        snprintf(addition, sizeof addition, "q=%s:8:%.9g:%d\nsum add in=%s%s%s q=%s:8:%.9g:%d\n", s,
                 (double)b->scale, (int)b->zero_point, swapped ? "b,a" : "a,b",
                 act[0] ? " act=" : "", act, s, (double)c->scale, (int)c->zero_point);
    snprintf(text, sizeof text,
             "ptq-graph 1\n"
             "input input shape=256x256x2 q=u8:8:1:0\n"
             "a conv2d in=input channels=1 kernel=1x1 w=s8 q=%s:8:%.9g:%d\n"
             "b conv2d in=input%s channels=1 kernel=1x1 w=s8 %s",
             s, (double)a->scale, (int)a->zero_point, fused ? ",a" : "", addition);
    m = model_of_text(text);
    set_weight(m, "a.weight", &a->scale, 1, 0, left);
    set_weight(m, "b.weight", &b->scale, 1, 0, right);
    /* code = rne(1 * acc) + zero point, and acc = pixel + bias */
    ((int32_t *)ptq_model_param(m, "a.bias")->data)[0] = -a->zero_point - shift;
    ((int32_t *)ptq_model_param(m, "b.bias")->data)[0] = -b->zero_point - shift;
    return m;
}

static void run_pairs(const ptq_model *m, uint8_t *sums) {
    uint8_t *pixels = (uint8_t *)malloc(2 * 65536);
    test_run run = open_run(m, 1);
    ptq_tensor view;
    int i;

    assert_non_null(pixels);
    for (i = 0; i < 65536; i++) {
        pixels[2 * i] = (uint8_t)(i / 256);
        pixels[2 * i + 1] = (uint8_t)(i % 256);
    }
    assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
    assert_ok(ptq_session_tensor(run.session, "sum", &view, &err));
    assert_int_equal(view.size, 65536);
    memcpy(sums, view.data, 65536);
    close_run(&run);
    free(pixels);
}

static int compare_pairs(const ptq_qparams *a, const ptq_qparams *b, const ptq_qparams *c, int relu,
                         int swapped) {
    static uint8_t plain[65536], fused[65536];
    ptq_activation act = relu ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_NONE;
    ptq_model *m = adder(a, b, c, relu ? "relu" : "", 0, swapped);
    int shift = a->type == PTQ_TYPE_S8 ? 128 : 0, i, unlike = 0;

    run_pairs(m, plain);
    ptq_model_free(m);
    m = adder(a, b, c, relu ? "relu" : "", 1, swapped);
    run_pairs(m, fused);
    ptq_model_free(m);
    assert_memory_equal(plain, fused, sizeof plain);
    for (i = 0; i < 65536; i++) {
        int32_t x = i / 256 - shift, y = i % 256 - shift;
        int32_t forward = added(x, a, y, b, c, act), backward = added(y, b, x, a, c, act);
        int32_t wanted = swapped ? backward : forward;
        int32_t got = shift ? (int32_t)(int8_t)plain[i] : (int32_t)plain[i];
        if (got != wanted)
            fail_msg("%d + %d: %d is not %d (scales %.9g %.9g %.9g)", (int)x, (int)y, (int)got,
                     (int)wanted, (double)a->scale, (double)b->scale, (double)c->scale);
        unlike += forward != backward;
    }
    return unlike;
}

/* Ties: scales in the ratio of 1 : 2 and the like, and thirds that are ties but for the
   rounding. */
static void all_pairs_added(void **state) {
    static const float scale[][3] = {
        {1, 1, 2},       {0.5f, 0.25f, 1},   {0.75f, 0.5f, 1.5f}, {0.1f, 0.1f, 0.2f},
        {0.3f, 0.7f, 1}, {0.1f, 0.2f, 0.6f}, {1e-3f, 0.9f, 0.9f}, {0.017f, 0.023f, 0.0271f}};
    test_random r = {2};
    int i, k, order = 0;

    (void)state;
    for (i = 0; i < COUNT(scale); i++)
        for (k = 0; k < (TEST_SANITIZED ? 1 : 4); k++) {
            ptq_type type = k & 1 ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
            int low = type == PTQ_TYPE_S8 ? -128 : 0;
            ptq_qparams a = params(type, 8, scale[i][0], random_int(&r, low, low + 255));
            ptq_qparams b = params(type, 8, scale[i][1], random_int(&r, low, low + 255));
            ptq_qparams c = params(type, 8, scale[i][2], random_int(&r, low, low + 255));
            order += compare_pairs(&a, &b, &c, k >> 1, (i + k) & 1);
        }
    assert_true(order > 0); /* some pairs do depend on the order of operands */
}

/* One input channel, weight 1, scales 1, 0.5 and 1: the code is rne(0.5 * (x + bias)). */
static void convolution_ties_and_rails(void **state) {
    static const int one[] = {1, 1, 1};
    static const float half = 0.5f;
    static const uint8_t pixels[] = {0, 1, 2, 3, 5, 7, 9, 254, 255};
    static const int wanted[][3] = {{0, 0, 255}, {0, 0, 255},   {1, 0, 255},
                                    {2, 0, 255}, {2, 0, 255},   {4, 0, 255},
                                    {4, 0, 255}, {127, 0, 255}, {128, 0, 255}};
    ptq_model *m = model_of_text("ptq-graph 1\n"
                                 "input input shape=1x9x1 q=u8:8:1:0\n"
                                 "conv conv2d in=input channels=3 kernel=1x1 w=s8 q=u8:8:1:0\n");
    test_run run;
    ptq_tensor view;
    int i, c;

    (void)state;
    set_weight(m, "conv.weight", &half, 1, 0, one);
    ((int32_t *)ptq_model_param(m, "conv.bias")->data)[1] = -1000000;
    ((int32_t *)ptq_model_param(m, "conv.bias")->data)[2] = 1000000;
    run = open_run(m, 1);
    assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
    assert_ok(ptq_session_tensor(run.session, "conv", &view, &err));
    for (i = 0; i < 9; i++)
        for (c = 0; c < 3; c++)
            assert_int_equal(((const uint8_t *)view.data)[3 * i + c], wanted[i][c]);
    close_run(&run);
    ptq_model_free(m);
}

/* Averages of windows of two: the zero point is added before rounding, so that ties go to even
   codes and not to even steps; the global pool's stay with its own formula. By hand. */
static void average_ties_and_rails(void **state) {
    static const struct {
        const char *node;
        int want[4];
    } cases[] = {
        /* (0 + 1) / 2 + 3, (1 + 2) / 2 + 3, (2 + 255) / 2 + 3, (255 + 255) / 2 + 3 */
        {"avg_pool in=input kernel=1x2 stride=1x2 q=u8:8:1:3", {4, 4, 132, 255}},
        {"avg_pool in=input kernel=1x2 stride=1x2 q=u8:8:1:4", {4, 6, 132, 255}},
        {"avg_pool in=input kernel=1x2 stride=1x2 q=s8:8:1:-128", {-128, -126, 0, 127}},
        /* ((0 + 0 + 1) / 4, (1 + 2 + 2 + 255) / 4 ... with zeros of padding that count */
        {"avg_pool in=input kernel=1x4 stride=1x4 pad=0,2,0,2 include_pad=1 q=u8:8:0.25:1",
         {2, 255, 255, 0}},
        /* 771 / 8 / 64.25 = 1.5: rne(1.5) + 3 */
        {"global_avg_pool in=input q=u8:8:64.25:3", {5, 0, 0, 0}},
    };
    static const uint8_t pixels[8] = {0, 1, 1, 2, 2, 255, 255, 255};
    int i, k;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        char text[200];
        ptq_model *m;
        test_run run;
        ptq_tensor view;
        snprintf(text, sizeof text, "ptq-graph 1\ninput input shape=1x8x1 q=u8:8:1:0\npool %s\n",
                 cases[i].node);
        m = model_of_text(text);
        run = open_run(m, 1);
        assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
        assert_ok(ptq_session_tensor(run.session, "pool", &view, &err));
        for (k = 0; k < (int)ptq_tensor_elements(&view); k++)
            assert_int_equal((int)ptq_tensor_number(&view, (size_t)k), cases[i].want[k]);
        close_run(&run);
        ptq_model_free(m);
    }
}

/* Sums that single precision could not hold, or not fully, give the codes that scales of 1 do. */
static void averages_of_any_scale(void **state) {
    static const int exponent[] = {0, 60, 125, -60, -122};
    uint8_t pixels[30 * 30], first[4];
    test_random r = {8};
    int i;

    (void)state;
    for (i = 0; i < COUNT(pixels); i++)
        pixels[i] = (uint8_t)random_int(&r, 0, 7);
    for (i = 0; i < COUNT(exponent); i++) {
        char text[300];
        double scale = ldexp(1, exponent[i]);
        ptq_model *m;
        test_run run;
        ptq_tensor view;
        snprintf(text, sizeof text,
                 "ptq-graph 1\ninput input shape=30x30x1 q=u8:8:%.9g:0\n"
                 "pool avg_pool in=input kernel=29x29 pad=0,0,0,0 q=u8:8:%.9g:117\n",
                 scale, scale / 16);
        m = model_of_text(text);
        m->std[0] = (float)(1 / scale);
        run = open_run(m, 1);
        assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
        assert_ok(ptq_session_tensor(run.session, "pool", &view, &err));
        if (i == 0) {
            memcpy(first, view.data, sizeof first);
            assert_int_equal(check_node(m, run.session, 1), sizeof first);
        }
        assert_memory_equal(first, view.data, sizeof first);
        close_run(&run);
        ptq_model_free(m);
    }
}

/* Single operators, on random pixels, with scales and zero points that are no round numbers. */
static void single_operators(void **state) {
    static const char *const graph[] = {
        "pool global_avg_pool in=input q=u8:8:0.61:17\n",
        "pool global_avg_pool in=input q=s8:8:0.29:-128\n",
        "pool global_avg_pool in=input q=u8:5:4:3\n",
        "pool avg_pool in=input kernel=3x2 stride=1x1 q=u8:8:0.5:128\n",
        "pool avg_pool in=input kernel=3x3 stride=2x1 include_pad=1 q=s8:8:0.4:-100\n",
        "pool max_pool in=input kernel=3x3 stride=2x2 q=s8:8:0.37:-40\n",
        "act relu in=input q=s8:8:0.37:-40\n",
        "act relu6 in=input q=s8:8:0.37:-40\n",
        "conv conv2d in=input channels=5 kernel=3x3 w=s8 act=relu q=u8:8:3.7:9\n",
        "conv conv2d in=input channels=5 kernel=2x3 stride=2x2 w=u8 act=relu6 q=u8:8:0.03:9\n",
        "conv conv2d in=input channels=6 groups=3 kernel=3x3 w=s4 q=s8:8:2.3:-20\n",
        "fc dense in=input channels=4 w=s8 q=s8:8:9.1:31\n",
        "fc dense in=input channels=4 w=s8\n",
    };
    test_random r = {77};
    int i, k;
    size_t e;

    (void)state;
    for (i = 0; i < COUNT(graph); i++) {
        char text[600];
        uint8_t pixels[7 * 5 * 3];
        ptq_model *m;
        test_run run;
        snprintf(text, sizeof text, "ptq-graph 1\ninput input shape=7x5x3 q=s8:8:0.37:-40\n%s",
                 graph[i]);
        m = model_of_text(text);
        if (m->node[1].param[PTQ_PARAM_WEIGHT].rank) {
            ptq_tensor *w = &m->node[1].param[PTQ_PARAM_WEIGHT],
                       *b = &m->node[1].param[PTQ_PARAM_BIAS];
            float scale[8];
            random_floats(&r, scale, 8, 0.01, 0.05);
            assert_ok(ptq_tensor_set_scale(w, scale, w->type == PTQ_TYPE_U8 ? 1 : w->dim[0],
                                           w->type == PTQ_TYPE_U8 ? 131 : 0, NULL, &err));
            for (e = 0; e < ptq_tensor_elements(w); e++)
                ptq_tensor_set_code(w, e,
                                    w->type == PTQ_TYPE_U8 ? random_int(&r, 0, 255)
                                    : w->bits == 8         ? random_int(&r, -128, 127)
                                                           : random_int(&r, -8, 7));
            for (e = 0; e < ptq_tensor_elements(b); e++)
                ((int32_t *)b->data)[e] = random_int(&r, -9000, 9000);
        }
        run = open_run(m, 1);
        for (k = 0; k < 20; k++) {
            random_pixels(&r, pixels, sizeof pixels);
            assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
            assert_true(check_node(m, run.session, 1) > 0);
        }
        close_run(&run);
        ptq_model_free(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_ranges),           cmocka_unit_test(chosen_by_hand),
        cmocka_unit_test(random_ranges),         cmocka_unit_test(ranges_refused),
        cmocka_unit_test(quantized_by_hand),     cmocka_unit_test(quantized_nan_is_some_code),
        cmocka_unit_test(round_trip_of_codes),   cmocka_unit_test(requantized_by_hand),
        cmocka_unit_test(requantized_at_random), cmocka_unit_test(requantized_ties),
        cmocka_unit_test(all_pairs_added),       cmocka_unit_test(convolution_ties_and_rails),
        cmocka_unit_test(average_ties_and_rails), cmocka_unit_test(averages_of_any_scale),
        cmocka_unit_test(single_operators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
