/* Numbers at the edge: NaN, infinities, denormals, the smallest and largest scales, zero points at
   the rails, the largest accumulators. Either an error comes back, or every instruction set gives
   the same; under the sanitizers nothing is undefined on the way. */
#include "quantized.h"

#include <float.h>

enum { CLASSES = 3, PIXELS = 32 };

static const char network[] = "ptq-graph 1\n"
                              "input input shape=4x4x2\n"
                              "a conv2d in=input channels=2 kernel=3x3\n"
                              "n batch_norm in=a epsilon=0.001\n"
                              "r relu in=n\n"
                              "b conv2d in=r channels=2 kernel=1x1\n"
                              "s add in=b,r\n"
                              "p global_avg_pool in=s\n"
                              "d dense in=p channels=3\n";

/* The same input on every instruction set that is here: status and, where these are exact, logits
   must be equal. `input` holds floats, or is NULL for bytes at both rails. */
static ptq_status run_everywhere(const ptq_model *model, const float *input, int exact) {
    uint8_t pixels[PIXELS];
    float logits[2][CLASSES];
    ptq_status status[2];
    int isa, i, turn = 0;

    for (i = 0; i < PIXELS; i++)
        pixels[i] = i % 3 ? 255 : 0;
    memset(logits, 0, sizeof logits);
    for (isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++) {
        ptq_plan_options planning;
        ptq_plan *plan = NULL;
        ptq_session *session = NULL;

        if (ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
            continue;
        memset(&planning, 0, sizeof planning);
        planning.isa = (ptq_isa)isa;
        assert_ok(ptq_plan_create(model, &planning, &plan, &err));
        assert_ok(ptq_session_create(plan, NULL, &session, &err));
        status[turn] = input ? ptq_run_f32(session, input, 1, logits[turn], NULL, &err)
                             : ptq_run(session, pixels, 1, logits[turn], NULL, &err);
        assert_true(status[turn] == PTQ_OK || status[turn] == PTQ_BAD_NUMBER);
        assert_int_equal(status[turn], status[0]);
        if (exact && !status[0])
            assert_memory_equal(logits[turn], logits[0], sizeof logits[0]);
        turn = 1;
        ptq_session_free(session);
        ptq_plan_free(plan);
    }
    return status[0];
}

static const float edges[] = {0,      -0.0f,   1e-45f,   -1e-40f,  FLT_MIN,   1e-20f, 1e20f,
                              -1e38f, FLT_MAX, -FLT_MAX, INFINITY, -INFINITY, NAN};

/* ---------------------------------------------------------------------------------------------
   In the parameters of a float model */

static void quantize_and_run(const ptq_model *fused, const char *name) {
    pictures p = pictures_for(fused, 2, 3);
    ptq_dataset data = *pictures_dataset(&p);
    ptq_convert_options o = with_scheme(preset(name), &data);
    ptq_calibrate_options any;
    ptq_calibration *seen = NULL;
    ptq_model *made = NULL;
    ptq_plan *plan = NULL;
    ptq_status s;

    memset(&any, 0, sizeof any);
    any.accept_any = 1;
    assert_ok(ptq_plan_create(fused, NULL, &plan, &err));
    err.text[0] = 0;
    s = ptq_calibrate(plan, &data, &any, &seen, &err);
    s = s ? s : ptq_convert(fused, seen, &o, &made, NULL, &err);
    if (s) {
        assert_int_equal(s, PTQ_BAD_NUMBER);
        assert_true(err.text[0]);
    } else {
        run_everywhere(made, NULL, o.scheme.mode == PTQ_MODE_INTEGER);
    }
    ptq_model_free(made);
    ptq_calibration_free(seen);
    ptq_plan_free(plan);
}

/* One parameter, or all of a tensor. */
static int set_edge(ptq_model *model, const char *name, float value, int all) {
    ptq_tensor *t = ptq_model_param(model, name);
    size_t i, n;

    assert_non_null(t);
    n = all ? ptq_tensor_elements(t) : 1;
    for (i = 0; i < n; i++)
        ((float *)t->data)[i] = value;
    return value - value == 0; /* finite */
}

static void parameters_at_the_edge(void **state) {
    static const char *const name[] = {"a.weight", "a.bias",         "n.weight",      "n.bias",
                                       "b.weight", "n.running_mean", "n.running_var", "d.weight"};
    static const char *const scheme[] = {"tflite", "ort-u8", "dynamic", "fp16"};
    size_t i, k, turn = 0;
    int all;

    (void)state;
    for (i = 0; i < sizeof name / sizeof *name; i++)
        for (k = 0; k < sizeof edges / sizeof *edges; k++)
            for (all = 0; all < 2; all++) {
                ptq_model *model = model_of_text(network), *fused = NULL;
                int finite;
                ptq_status s;

                fill_model(model, 5);
                finite = set_edge(model, name[i], edges[k], all);
                s = ptq_model_check(model, &err);
                assert_true(finite || s == PTQ_BAD_NUMBER);
                s = s ? s : ptq_fuse(model, &fused, NULL, &err);
                assert_true(!s || s == PTQ_BAD_NUMBER);
                if (!s) {
                    run_everywhere(fused, NULL, 0);
                    quantize_and_run(fused, scheme[turn++ % 4]);
                }
                ptq_model_free(fused);
                ptq_model_free(model);
            }
    assert_true(turn > 80); /* most of them are numbers like others */
}

/* ---------------------------------------------------------------------------------------------
   In images */

static void images_at_the_edge(void **state) {
    static const char *const scheme[] = {"tflite", "ort-u8", "dynamic", "fp16"};
    ptq_model *fused = model_of_text(network), *made;
    ptq_calibration *seen;
    pictures p;
    size_t i, k, at;

    (void)state;
    fill_model(fused, 5);
    fused = fused_of(fused);
    p = pictures_for(fused, 4, 3);
    seen = calibrated_on(fused, pictures_dataset(&p));
    for (i = 0; i < sizeof scheme / sizeof *scheme; i++) {
        ptq_convert_options o = with_scheme(preset(scheme[i]), pictures_dataset(&p));

        made = converted(fused, seen, &o);
        for (k = 0; k < sizeof edges / sizeof *edges; k++)
            for (at = 0; at < PIXELS; at += 13) {
                float input[PIXELS];
                size_t j;
                ptq_status s;

                for (j = 0; j < PIXELS; j++)
                    input[j] = (float)(j * 8);
                input[at] = edges[k];
                s = run_everywhere(made, input, o.scheme.mode == PTQ_MODE_INTEGER);
                /* NaN has no code, and must not become one unseen */
                assert_true(!is_nan((double)edges[k]) || s || o.scheme.mode == PTQ_MODE_HALF);
            }
        ptq_model_free(made);
    }
    ptq_calibration_free(seen);
    ptq_model_free(fused);
}

/* Weights of 1e30 after each other overflow on bright pixels only: the layer that would have to
   code the infinity is named, and dark pixels run. */
static void overflow_before_codes(void **state) {
    static const struct {
        const char *graph, *node;
    } cases[] = {
        {"a conv2d in=input channels=1 kernel=1x1 bias=0\n"
         "b conv2d in=a channels=1 kernel=1x1 w=s8 dynamic=1 bias=0\n",
         "node b"},
        {"a conv2d in=input channels=1 kernel=1x1 bias=0\n"
         "c quantize in=a q=u8:8:1:0\n"
         "b conv2d in=c channels=1 kernel=1x1 w=s8 q=u8:8:1:0 bias=0\n",
         "node c"},
    };
    static const float dark[2] = {1, 2}, bright[2] = {1, 1e9f}, one = 1;
    static const int code[] = {3};
    int i;

    (void)state;
    for (i = 0; i < 2; i++) {
        char text[400];
        float logits[2] = {0, 0};
        ptq_model *m;
        test_run run;
        snprintf(text, sizeof text, "ptq-graph 1\ninput input shape=1x2x1\n%s", cases[i].graph);
        m = model_of_text(text);
        *(float *)ptq_model_param(m, "a.weight")->data = 1e30f;
        set_weight(m, "b.weight", &one, 1, 0, code);
        run = open_run(m, 0);
        assert_ok(ptq_run_f32(run.session, dark, 1, logits, NULL, &err));
        if (i == 0) /* codes 128 (127.5, to even) and 255 of steps 2e30 / 255 */
            assert_near(logits[1] / 6e30f, 1, 1e-5);
        assert_fails(PTQ_BAD_NUMBER, cases[i].node,
                     ptq_run_f32(run.session, bright, 1, logits, NULL, &err));
        assert_ok(ptq_run_f32(run.session, dark, 1, logits, NULL, &err));
        close_run(&run);
        ptq_model_free(m);
    }
}

/* ---------------------------------------------------------------------------------------------
   Scales and zero points of a quantized model */

static const char integer_network[] = "ptq-graph 1\n"
                                      "input input shape=4x4x2 q=%s:8:%s:%d\n"
                                      "a conv2d in=input channels=3 kernel=3x3 w=s8 q=%s:8:%s:%d\n"
                                      "b conv2d in=a channels=3 kernel=1x1 w=s8 q=%s:8:%s:%d\n"
                                      "s add in=b,a q=%s:8:%s:%d\n"
                                      "p global_avg_pool in=s q=%s:8:%s:%d\n"
                                      "d dense in=p channels=3 w=s8\n";

/* Every tensor with the same coding. NULL if it is refused. */
static ptq_model *coded_network(const char *type, const char *scale, int zero_point, float weight) {
    char text[1024];
    ptq_model *model = NULL;
    ptq_status s;
    int i, node;

    snprintf(text, sizeof text, integer_network, type, scale, zero_point, type, scale, zero_point,
             type, scale, zero_point, type, scale, zero_point, type, scale, zero_point);
    err.text[0] = 0;
    s = ptq_graph_parse(text, strlen(text), NULL, &model, &err);
    if (s) {
        assert_true(err.text[0] && s != PTQ_OUT_OF_MEMORY);
        return NULL;
    }
    for (node = 1; node < model->nodes; node++) {
        ptq_tensor *w = &model->node[node].param[PTQ_PARAM_WEIGHT];

        if (!w->rank)
            continue;
        for (i = 0; i < (int)ptq_tensor_elements(w); i++)
            ptq_tensor_set_code(w, (size_t)i, i % 2 ? 127 : -128);
        assert_ok(ptq_tensor_set_scale(w, &weight, 1, 0, NULL, &err));
    }
    if (!ptq_model_check(model, &err))
        return model;
    assert_true(err.text[0]);
    ptq_model_free(model);
    return NULL;
}

static void scales_at_the_edge(void **state) {
    static const char *const refused[] = {"0", "-0", "-1", "1e-45", "1e-38", "nan", "inf", "1e39"};
    static const char *const extreme[] = {"1.18e-38", "1e-30", "1", "1e30", "1e38", "3.4e38"};
    static const float weights[] = {FLT_MIN, 1e-20f, 0.01f, 1, 1e20f, 1e38f};
    size_t i, k;
    int good = 0;

    (void)state;
    for (i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_null(coded_network("u8", refused[i], 0, 0.01f));
    for (i = 0; i < sizeof extreme / sizeof *extreme; i++)
        for (k = 0; k < sizeof weights / sizeof *weights; k++) {
            ptq_model *model = coded_network("u8", extreme[i], 100, weights[k]);

            if (!model)
                continue;
            good++;
            run_everywhere(model, NULL, 1);
            ptq_model_free(model);
        }
    assert_true(good >
                6); /* the same scale before and after needs only a weight's that is normal */
}

static void zero_points_at_the_rails(void **state) {
    static const int points[2][2] = {{0, 255}, {-128, 127}};
    int kind, rail;

    (void)state;
    for (kind = 0; kind < 2; kind++)
        for (rail = 0; rail < 2; rail++) {
            const char *type = kind ? "s8" : "u8";
            ptq_model *model = coded_network(type, "0.5", points[kind][rail], 0.01f);

            assert_non_null(model);
            assert_ok(run_everywhere(model, NULL, 1));
            ptq_model_free(model);
            assert_null(coded_network(type, "0.5", points[kind][rail] + (rail ? 1 : -1), 0.01f));
        }
}

/* ---------------------------------------------------------------------------------------------
   The largest accumulators: 64 x 64 x 16 codes of 255 with weights of -128 make -2139095040, which
   leaves a bias of 8388607 to -2147483647 and not one more. */

enum { TAPS = 64 * 64 * 16, BIAS = INT32_MAX - TAPS * 255 * 128 };

static ptq_model *widest_dense(int32_t bias) {
    ptq_model *model = model_of_text("ptq-graph 1\n"
                                     "input input shape=64x64x16 q=u8:8:1:0\n"
                                     "d dense in=input channels=2 w=s8\n");
    ptq_tensor *w = ptq_model_param(model, "d.weight"), *b = ptq_model_param(model, "d.bias");
    float one = 1;

    memset(w->data, 0x80, TAPS);               /* -128 */
    memset((char *)w->data + TAPS, 127, TAPS); /* and the other way */
    assert_ok(ptq_tensor_set_scale(w, &one, 1, 0, NULL, &err));
    ((int32_t *)b->data)[0] = -bias;
    ((int32_t *)b->data)[1] = bias;
    return model;
}

static void largest_accumulators(void **state) {
    static uint8_t pixels[TAPS];
    ptq_model *model = widest_dense(BIAS);
    float logits[2];
    int isa;

    (void)state;
    memset(pixels, 255, sizeof pixels);
    for (isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++) {
        ptq_plan_options planning;
        ptq_plan *plan = NULL;
        ptq_session *session = NULL;

        if (ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
            continue;
        memset(&planning, 0, sizeof planning);
        planning.isa = (ptq_isa)isa;
        assert_ok(ptq_plan_create(model, &planning, &plan, &err));
        assert_ok(ptq_session_create(plan, NULL, &session, &err));
        assert_ok(ptq_run(session, pixels, 1, logits, NULL, &err));
        assert_true(logits[0] <= -2147483647.0f && logits[0] >= -2147483648.0f);
        assert_near(logits[1], (double)TAPS * 255 * 127 + BIAS, 128);
        ptq_session_free(session);
        ptq_plan_free(plan);
    }
    ptq_model_free(model);
    model = widest_dense(BIAS + 1);
    assert_fails(PTQ_BAD_NUMBER, "overflow", ptq_model_check(model, &err));
    ptq_model_free(model);
}

/* 2901 x 2902 codes of 255 are the most that an average can sum up. */
static void largest_average(void **state) {
    static const char form[] = "ptq-graph 1\n"
                               "input input shape=%dx2902x1 q=u8:8:1:0\n"
                               "p global_avg_pool in=input q=u8:8:1:0\n";
    char text[256];
    ptq_model *model = NULL;

    (void)state;
    snprintf(text, sizeof text, form, 2901);
    assert_ok(ptq_graph_parse(text, strlen(text), NULL, &model, &err));
    ptq_model_free(model);
    snprintf(text, sizeof text, form, 2902);
    assert_fails(PTQ_BAD_NUMBER, "overflow",
                 ptq_graph_parse(text, strlen(text), NULL, &model, &err));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_at_the_edge), cmocka_unit_test(images_at_the_edge),
        cmocka_unit_test(scales_at_the_edge),     cmocka_unit_test(zero_points_at_the_rails),
        cmocka_unit_test(overflow_before_codes),
        cmocka_unit_test(largest_accumulators),   cmocka_unit_test(largest_average),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
