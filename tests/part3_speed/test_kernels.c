/* The kernels of every instruction set against the scalar ones: random networks of every kind of
   convolution and dense layer, ResNet8, the self-test. Instruction sets that this processor lacks
   are skipped by name; test_kernels_emulated.c runs all, some through exact substitutes. */
#include "quantized.h"

#include "probes.h"

/* Random networks for each instruction set, integer and float. */
enum { NETWORKS = TEST_SANITIZED ? 100 : 2000, FLOAT_NETWORKS = TEST_SANITIZED ? 50 : 400 };

static ptq_isa isa_of(void **state) {
    ptq_isa isa = (ptq_isa)ptq_find_name(PTQ_NAMES_ISA, (const char *)*state);

    if (ptq_isa_support(isa) != PTQ_SUPPORT_AVAILABLE) {
        print_message("%s: not available here\n", (const char *)*state);
        skip();
    }
    return isa;
}

static void expect_probes(ptq_isa isa, int integer, int count) {
    int seed;

    for (seed = 0; seed < count; seed++) {
        if (probe_once(isa, 1000 + (uint64_t)seed, integer, &err) == PTQ_OK)
            continue;
        fail_msg("%s, network %d: %s", ptq_name(PTQ_NAMES_ISA, isa), 1000 + seed, err.text);
    }
}

static void codes_equal_scalar(void **state) {
    expect_probes(isa_of(state), 1, how_many(NETWORKS, 400));
}

static void reals_are_close_to_scalar(void **state) {
    expect_probes(isa_of(state), 0, how_many(FLOAT_NETWORKS, 100));
}

static void self_test(void **state) { assert_ok(test_kernels(isa_of(state), &err)); }

/* What the comparison rests on: it finds a single code that differs, in any of the tensors. */
static void comparison_finds_a_code(void **state) {
    ptq_session *session[2] = {NULL, NULL};
    ptq_session_options keep;
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_tensor view;
    uint8_t pixels[6 * 40 * 120] = {0};
    int i;

    (void)state;
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    assert_ok(probe_model(5, 1, &model, &err));
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    for (i = 0; i < 2; i++) {
        assert_ok(ptq_session_create(plan, &keep, &session[i], &err));
        assert_ok(ptq_run(session[i], pixels, 1, NULL, NULL, &err));
    }
    assert_ok(compare_kept(session[0], session[1], "sum", 1, &err));
    assert_ok(ptq_session_tensor(session[1], "sum", &view, &err));
    ((uint8_t *)view.data)[ptq_tensor_elements(&view) - 1] ^= 1;
    assert_fails(PTQ_BAD_NUMBER, "sum", compare_kept(session[0], session[1], "sum", 1, &err));
    for (i = 0; i < 2; i++)
        ptq_session_free(session[i]);
    ptq_plan_free(plan);
    ptq_model_free(model);
}

/* How many codes there are in the tensor behind the last pool of a window. */
static int codes_of(const ptq_model *model) {
    static uint8_t pixels[6 * 40 * 120];
    ptq_session_options keep;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    ptq_tensor view;
    int found[256] = {0}, i, count = 0;

    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    for (i = 0; i < COUNT(pixels); i++)
        pixels[i] = (uint8_t)(i * 37 + i / 11);
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    assert_ok(ptq_session_create(plan, &keep, &session, &err));
    assert_ok(ptq_run(session, pixels, 1, NULL, NULL, &err));
    assert_ok(ptq_session_tensor(session, "h", &view, &err));
    for (i = 0; i < (int)ptq_tensor_elements(&view); i++)
        count += !found[((uint8_t *)view.data)[i]]++;
    ptq_session_free(session);
    ptq_plan_free(plan);
    return count;
}

/* The networks are what they should be: all kinds of codes, and results all over their range. */
static void probes_reach_everything(void **state) {
    int seed, u8 = 0, s8 = 0, affine = 0, packed = 0, groups = 0, residual = 0, real = 0, odd = 0;
    int largest = 0, average = 0, few = 0;

    (void)state;
    for (seed = 0; seed < 200; seed++) {
        ptq_model *model = NULL;
        int i;

        assert_ok(probe_model(1000 + (uint64_t)seed, 1, &model, &err));
        assert_ok(ptq_model_check(model, &err));
        for (i = 1; i < model->nodes; i++) {
            const ptq_node *n = &model->node[i];
            u8 += n->q.type == PTQ_TYPE_U8;
            s8 += n->q.type == PTQ_TYPE_S8;
            affine += n->param[PTQ_PARAM_WEIGHT].zero_point != 0;
            packed += n->param[PTQ_PARAM_WEIGHT].bits < 8;
            groups += n->groups > 1;
            residual += n->residual == PTQ_RESIDUAL_FIRST;
            real += n->q.type == PTQ_TYPE_F32;
            odd += n->shape[2] % 8 != 0;
            largest += n->op == PTQ_OP_MAX_POOL && n->kernel[1] > 1 && n->stride[1] > 1;
            average += n->op == PTQ_OP_AVG_POOL && n->kernel[0] > 1 && !n->include_pad;
        }
        few += codes_of(model) < 3;
        ptq_model_free(model);
    }
    assert_true(u8 > 100 && s8 > 100 && affine > 50 && packed > 50 && groups > 20);
    assert_true(residual > 50 && real > 50 && odd > 100);
    assert_true(largest > 10 && average > 30 && few < 80);
}

/* ResNet8, whose layers fill whole tiles. */
static void resnet8(void **state) {
    ptq_isa isa = isa_of(state);
    ptq_model *model = random_resnet8(32, 16, 10, 3, NULL), *fused = NULL;
    uint8_t pixels[32 * 32 * 3];
    test_random r = {8};
    float logits[2][10];
    int i, k;

    random_pixels(&r, pixels, sizeof pixels);
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    for (k = 0; k < 2; k++) {
        ptq_plan_options o;
        ptq_plan *plan = NULL;
        ptq_session *session = NULL;

        memset(&o, 0, sizeof o);
        o.isa = k ? isa : PTQ_ISA_SCALAR;
        assert_ok(ptq_plan_create(fused, &o, &plan, &err));
        assert_int_equal(ptq_plan_get_info(plan)->isa, o.isa);
        assert_ok(ptq_session_create(plan, NULL, &session, &err));
        assert_ok(ptq_run(session, pixels, 1, logits[k], NULL, &err));
        ptq_session_free(session);
        ptq_plan_free(plan);
    }
    for (i = 0; i < 10; i++)
        assert_true(is_near((double)logits[0][i], (double)logits[1][i], 1e-4, 1e-4));
    ptq_model_free(fused);
    ptq_model_free(model);
}

/* ---------------------------------------------------------------------------------------------
   Ties. Random scales hardly ever bring a sum so near to the middle of two codes that the order of
   rounding decides; these scales do it hundreds of times. */

static void expect_equal_runs(ptq_isa isa, const ptq_model *model, const uint8_t *pixels,
                              const char *tensor) {
    ptq_session *session[2] = {NULL, NULL};
    ptq_plan *plan[2] = {NULL, NULL};
    ptq_session_options keep;
    ptq_plan_options o;
    int i;

    memset(&keep, 0, sizeof keep);
    memset(&o, 0, sizeof o);
    keep.keep = 1;
    for (i = 0; i < 2; i++) {
        o.isa = i ? isa : PTQ_ISA_SCALAR;
        assert_ok(ptq_plan_create(model, &o, &plan[i], &err));
        assert_ok(ptq_session_create(plan[i], &keep, &session[i], &err));
        assert_ok(ptq_run(session[i], pixels, 1, NULL, NULL, &err));
    }
    assert_ok(compare_kept(session[0], session[1], tensor, 1, &err));
    for (i = 0; i < 2; i++) {
        ptq_session_free(session[i]);
        ptq_plan_free(plan[i]);
    }
}

/* All pairs of 256 codes, added with two ratios of scales.
   CHANNELS: whole vectors and a rest. */
enum { HEIGHT = 256, CHANNELS = 17 };

/* Without the fused operations the sums would differ: else this test would show nothing. */
static void expect_fusion_to_matter(const ptq__adder *adder) {
    int a, b, outer = 0, inner = 0;

    for (a = 0; a < 256; a++)
        for (b = 0; b < HEIGHT; b++) {
            volatile float y = (float)b * adder->ratio_b, x = (float)a * adder->ratio_a, sum;
            int32_t code = ptq__add_codes(adder, a, b);
            y = y + adder->offset;
            sum = fmaf((float)a, adder->ratio_a, y);
            inner += ptq__to_code(sum, 0, adder->clamp.low, adder->clamp.high) != code;
            y = fmaf((float)b, adder->ratio_b, adder->offset);
            sum = x + y;
            outer += ptq__to_code(sum, 0, adder->clamp.low, adder->clamp.high) != code;
        }
    assert_true(outer > 50 && inner > 20);
}

static void ties_of_residual(void **state) {
    static const float scale[][3] = {{0.5f, 1, 3}, {1, 3, 10}, {0.3f, 0.3f, 1}};
    ptq_isa isa = isa_of(state);
    uint8_t *pixels = (uint8_t *)malloc(256 * HEIGHT * 2);
    int left[CHANNELS * 2], right[CHANNELS * 2], i, k;

    assert_non_null(pixels);
    for (i = 0; i < 256 * HEIGHT; i++) {
        pixels[2 * i] = (uint8_t)(i % 256);
        pixels[2 * i + 1] = (uint8_t)(i / 256);
    }
    for (i = 0; i < CHANNELS * 2; i++) {
        left[i] = i % 2 == 0;
        right[i] = i % 2;
    }
    for (k = 0; k < COUNT(scale) * 2; k++) {
        float a = scale[k / 2][k % 2], b = scale[k / 2][!(k % 2)], y = scale[k / 2][2];
        char text[512];
        ptq_model *m;
        ptq__adder adder;
        ptq_qparams q[3];

        snprintf(text, sizeof text,
                 "ptq-graph 1\ninput input shape=%dx256x2 q=u8:8:1:0\n"
                 "a conv2d in=input channels=%d kernel=1x1 w=s8 q=u8:8:%.9g:0\n"
                 "b conv2d in=input,a channels=%d kernel=1x1 w=s8 mid=u8:8:%.9g:0 q=u8:8:%.9g:7"
                 " out=sum add=%s\n",
                 HEIGHT, CHANNELS, (double)a, CHANNELS, (double)b, (double)y,
                 k % 2 ? "first" : "second");
        m = model_of_text(text);
        set_weight(m, "a.weight", &a, 1, 0, left);
        set_weight(m, "b.weight", &b, 1, 0, right);
        q[0] = m->node[1].q;
        q[1] = m->node[2].mid;
        q[2] = m->node[2].q;
        adder = k % 2 ? ptq__adder_of(&q[0], &q[1], &q[2], PTQ_ACTIVATION_NONE, PTQ__ONNX)
                      : ptq__adder_of(&q[1], &q[0], &q[2], PTQ_ACTIVATION_NONE, PTQ__ONNX);
        expect_fusion_to_matter(&adder);
        expect_equal_runs(isa, m, pixels, "sum");
        ptq_model_free(m);
    }
    free(pixels);
}

/* Requantization: halves, sixths (whose nearest float lies beside them), sums of more than 24 bits;
   an odd zero point, to which a half must be added after rounding. */
static void ties_of_requantization(void **state) {
    static const float kind[] = {0.5f, 1 / 6.0f, 1.5f, 0.25f, 1 / 131072.0f, 1 / 786432.0f};
    static const int32_t offset[] = {0, -1, 100, 3, (1 << 24) + 1, -(1 << 24) - 65537};
    ptq_isa isa = isa_of(state);
    ptq_model *m = model_of_text("ptq-graph 1\ninput input shape=1x256x1 q=u8:8:1:128\n"
                                 "a conv2d in=input channels=36 kernel=1x1 w=s8 q=u8:8:1:101\n");
    ptq_tensor *bias = ptq_model_param(m, "a.bias");
    uint8_t pixels[256];
    float scale[36];
    int weight[36], i;

    for (i = 0; i < 256; i++)
        pixels[i] = (uint8_t)i;
    for (i = 0; i < 36; i++) {
        scale[i] = kind[i % 6];
        weight[i] = i < 18 ? 1 : -127;
        ((int32_t *)bias->data)[i] = offset[i / 6];
    }
    set_weight(m, "a.weight", scale, 36, 0, weight);
    expect_equal_runs(isa, m, pixels, "a");
    ptq_model_free(m);
}

/* Pixels of scale 1, coded with a sign: no table, p - 128, also where there are not eight left. */
static void signed_pixels(void **state) {
    ptq_model *m = model_of_text("ptq-graph 1\ninput input shape=3x3x3 q=s8:8:1:-128\n"
                                 "a max_pool in=input kernel=1x1 q=s8:8:1:-128\n");
    ptq_session_options keep;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    ptq_tensor view;
    uint8_t pixels[27];
    int i;

    (void)state;
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    for (i = 0; i < 27; i++)
        pixels[i] = (uint8_t)(i * 255 / 26);
    assert_ok(ptq_plan_create(m, NULL, &plan, &err));
    assert_null(plan->table);
    assert_ok(ptq_session_create(plan, &keep, &session, &err));
    assert_ok(ptq_run(session, pixels, 1, NULL, NULL, &err));
    assert_ok(ptq_session_tensor(session, "a", &view, &err));
    for (i = 0; i < 27; i++)
        assert_int_equal(((int8_t *)view.data)[i], pixels[i] - 128);
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_model_free(m);
}

/* The plan picks the best that there is, and refuses what there is not. */
static void choice(void **state) {
    ptq_model *model = random_resnet8(8, 4, 4, 1, NULL);
    ptq_plan_options o;
    ptq_plan *plan = NULL;
    int isa;

    (void)state;
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    for (isa = (int)ptq_plan_get_info(plan)->isa + 1; isa < PTQ_ISA_COUNT; isa++)
        assert_int_not_equal(ptq_isa_support((ptq_isa)isa), PTQ_SUPPORT_AVAILABLE);
    ptq_plan_free(plan);
    memset(&o, 0, sizeof o);
    for (isa = 1; isa < PTQ_ISA_COUNT; isa++) {
        o.isa = (ptq_isa)isa;
        if (ptq_isa_support(o.isa) != PTQ_SUPPORT_AVAILABLE)
            assert_fails(PTQ_UNSUPPORTED, ptq_name(PTQ_NAMES_ISA, o.isa),
                         ptq_plan_create(model, &o, &plan, &err));
    }
    ptq_model_free(model);
}

/* ---------------------------------------------------------------------------------------------
   The fused multiply-add */

static uint32_t bits_of(float x) {
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static int compare_fma(float a, float b, float c) {
    float got = ptq__fma(a, b, c), wanted = fmaf(a, b, c),
          twice = (float)((double)a * (double)b + (double)c);

    if (bits_of(got) != bits_of(wanted))
        fail_msg("fma(%a, %a, %a): %a is not %a", (double)a, (double)b, (double)c, (double)got,
                 (double)wanted);
    return bits_of(twice) != bits_of(wanted);
}

static void fused_multiply_add(void **state) {
    test_random r = {12};
    int i, twice = 0;

    (void)state;
    compare_fma(0, 1, 0);
    compare_fma(-3, 5, 15);
    compare_fma(16777215, 16777215, 1);
    for (i = 0; i < 100000; i++) {
        float a = random_float(&r, -2, 2), b = random_float(&r, -2, 2);
        float c = random_float(&r, -2, 2) * (float)ldexp(1, random_int(&r, -40, 40));
        compare_fma(a, b, c);
        compare_fma(a * 1e-20f, b * 1e-19f, c * 1e-38f); /* into the denormals */
        /* The sum of a and b c is a tie of single precision but for a bit that double precision
           loses: rounding twice fails on these. */
        a = (float)(1 + ldexp(random_int(&r, 0, 4095), -12));
        b = (float)(1 + ldexp(random_int(&r, 0, 2047) * 2 + 1, -12));
        c = (float)ldexp(random_int(&r, 0, 1) ? 1 : -1, random_int(&r, -90, -25));
        twice += compare_fma(a, b, c);
        twice += compare_fma(-a, b, c);
        a = (float)ldexp(random_int(&r, 1, 1 << 23) * 2 + 1, -60);
        c = (float)ldexp(random_int(&r, 1 << 23, (1 << 24) - 1), 0);
        compare_fma(a, 1.5f, c);
        compare_fma(0.5f, 1 + (float)ldexp(random_int(&r, 0, 1), -23), c);
        twice += compare_fma(0.5f + (float)ldexp(1, -24), 1 + (float)ldexp(1, -23) * 0, c);
    }
    assert_true(twice > 100); /* the constructed cases are what they should be */
}

/* ---------------------------------------------------------------------------------------------
   All of them */

#define EACH(test, isa)                                                                            \
    { #test " " isa, test, NULL, NULL, (void *)(uintptr_t)isa }
#define ALL(isa)                                                                                   \
    EACH(self_test, isa), EACH(codes_equal_scalar, isa), EACH(reals_are_close_to_scalar, isa),     \
        EACH(resnet8, isa), EACH(ties_of_residual, isa), EACH(ties_of_requantization, isa)

#ifndef GROUP_TEARDOWN
#define GROUP_TEARDOWN NULL
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparison_finds_a_code),
        cmocka_unit_test(probes_reach_everything),
        cmocka_unit_test(fused_multiply_add),
        cmocka_unit_test(signed_pixels),
        cmocka_unit_test(choice),
        ALL("sse2"),
        ALL("avx2"),
        ALL("avxvnni"),
        ALL("avx512"),
        ALL("avx512vnni"),
        ALL("amx"),
    };

    return cmocka_run_group_tests(tests, NULL, GROUP_TEARDOWN);
}
