/* Functions of one number and products of two tensors: on real numbers, as tables of codes, in the
   graph text, through conversion, and on every instruction set. */
#include "quantized.h"

/* Numbers of alpha and beta that a function takes, of some use. */
static const struct {
    ptq_function function;
    float alpha, beta;
} functions[] = {
    {PTQ_FUNCTION_LEAKY_RELU, 0.1f, 0},
    {PTQ_FUNCTION_PRELU, 0, 0},
    {PTQ_FUNCTION_CLIP, -1, 2},
    {PTQ_FUNCTION_SIGMOID, 0, 0},
    {PTQ_FUNCTION_TANH, 0, 0},
    {PTQ_FUNCTION_SILU, 0, 0},
    {PTQ_FUNCTION_HARD_SIGMOID, 0.2f, 0.5f},
    {PTQ_FUNCTION_HARD_SWISH, 0, 0},
    {PTQ_FUNCTION_ELU, 1.5f, 0},
    {PTQ_FUNCTION_GELU, 0, 0},
    {PTQ_FUNCTION_GELU_TANH, 0, 0},
};

/* Against double precision, and the C library, from -30 to 30. */
static void real_functions(void **state) {
    enum { N = 1201 };
    float x[N], y[N];
    int i, k;

    (void)state;
    for (i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) / 20;
    for (k = 0; k < COUNT(functions); k++) {
        ptq_model *m = NULL;
        test_run run;

        assert_ok(ptq_model_create(NULL, &m, &err));
        ptq_add_real_input(m, "input", 1, N, 1);
        ptq_add_function(m, functions[k].function, "f", 0, functions[k].alpha, functions[k].beta);
        assert_ok(ptq_model_check(m, &err));
        if (functions[k].function == PTQ_FUNCTION_PRELU)
            ((float *)ptq_model_param(m, "f.weight")->data)[0] = -0.25f;
        run = open_run(m, 0);
        assert_ok(ptq_run_f32(run.session, x, 1, y, NULL, &err));
        for (i = 0; i < N; i++) {
            double wanted = function_of(&m->node[1], (double)x[i], 0);
            if (!is_near((double)y[i], wanted, 1e-6 * fmax(1, fabs((double)x[i])), 1e-6))
                fail_msg("%s(%g) is %.9g, not %.9g",
                         ptq_name(PTQ_NAMES_FUNCTION, (unsigned)functions[k].function),
                         (double)x[i], (double)y[i], wanted);
        }
        close_run(&run);
        ptq_model_free(m);
    }
}

/* A NaN is seen at calibration, so no function may hide it. */
static void nan_passes(void **state) {
    int k;

    (void)state;
    for (k = 0; k < COUNT(functions); k++) {
        const float weight[2] = {3e38f, -3e38f}, ones[2] = {1, 1}; /* infinity less itself */
        float x = 3e38f, y = 0;
        ptq_model *m = NULL;
        test_run run;

        assert_ok(ptq_model_create(NULL, &m, &err));
        ptq_add_real_input(m, "input", 1, 1, 1);
        ptq_add_dense(m, "nan", ptq_add_dense(m, "fc", 0, 2), 1);
        ptq_add_function(m, functions[k].function, "f", 2, functions[k].alpha, functions[k].beta);
        memcpy(ptq_model_param(m, "fc.weight")->data, weight, sizeof weight);
        memcpy(ptq_model_param(m, "nan.weight")->data, ones, sizeof ones);
        run = open_run(m, 0);
        assert_ok(ptq_run_f32(run.session, &x, 1, &y, NULL, &err));
        assert_true(is_nan((double)y));
        close_run(&run);
        ptq_model_free(m);
    }
}

static void expect_codes(const char *text, const uint8_t *pixels, const int *wanted, int n) {
    ptq_model *m = model_of_text(text);
    test_run run = open_run(m, 1);
    ptq_tensor view;
    int i;

    assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
    assert_ok(ptq_session_tensor(run.session, m->node[m->nodes - 1].out, &view, &err));
    for (i = 0; i < n; i++)
        assert_int_equal((int)ptq_tensor_number(&view, (size_t)i), wanted[i]);
    close_run(&run);
    ptq_model_free(m);
}

/* By hand. x = (q - 10) / 2: -5, -4.5, -0.5, 0, 0.5, 122.5. */
static void codes_of_functions(void **state) {
    static const uint8_t pixels[] = {0, 1, 9, 10, 11, 255};
    /* x / 2 below 0, in halves: -5, -4.5, -0.5 round half to even to -4 (of -4.5) and 0 (of -0.5) */
    static const int leaky[] = {15, 16, 20, 20, 21, 255};
    /* 1 / (1 + exp(5)) = 0.00669, 0.01099, 0.37754, 1/2, 0.62246, 1; in 256ths */
    static const int sigmoid[] = {2, 3, 97, 128, 159, 255};
    /* -1..2 in quarters, less 128 */
    static const int clip[] = {-4, -4, -2, 0, 2, 8};

    (void)state;
    expect_codes("ptq-graph 1\ninput input shape=1x2x3 mean=10,10,10 std=2,2,2 q=u8:8:0.5:10\n"
                 "f function in=input f=leaky_relu:0.5 q=u8:8:0.5:20\n",
                 pixels, leaky, 6);
    expect_codes("ptq-graph 1\ninput input shape=1x2x3 mean=10,10,10 std=2,2,2 q=u8:8:0.5:10\n"
                 "f function in=input f=sigmoid q=u8:8:0.00390625:0\n",
                 pixels, sigmoid, 6);
    expect_codes("ptq-graph 1\ninput input shape=1x2x3 mean=10,10,10 std=2,2,2 q=u8:8:0.5:10\n"
                 "f function in=input f=clip:-1:2 q=s8:8:0.25:0\n",
                 pixels, clip, 6);
}

/* By hand: 2 x 3 pixels of one channel by one number, the average of all: 2, whose code is 4. The
   products 0, 1/2, 1, 3/2 ... have halves: with the odd zero point 3 added first, 3.5 rounds to 4,
   4.5 to 4, 5.5 to 6. */
static void codes_of_products(void **state) {
    static const uint8_t pixels[] = {0, 1, 3, 5, 2, 1};
    static const int wanted[] = {3, 4, 4, 6, 4, 4};

    (void)state;
    expect_codes("ptq-graph 1\ninput input shape=2x3x1 q=u8:8:1:0\n"
                 "g global_avg_pool in=input q=u8:8:0.5:0\n"
                 "y mul in=input,g q=u8:8:4:3\n",
                 pixels, wanted, 6);
}

static void text_and_version(void **state) {
    static const char text[] = "ptq-graph 1\ninput input shape=4x4x2\n"
                               "a function in=input f=leaky_relu:0.1\n"
                               "b function in=a f=clip:-1:6.5\nc function in=b f=prelu\n"
                               "d function in=c f=gelu_tanh\ng global_avg_pool in=d\n"
                               "e mul in=d,g\n";
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"a function in=input f=swish", "cannot use 'swish' as f"},
        {"a function in=input f=leaky_relu", "cannot use"},
        {"a function in=input f=silu:1", "cannot use"},
        {"a function in=input f=clip:2:1", "clip cannot have the numbers 2 and 1"},
        {"a relu in=input f=silu", "does not take 'f'"},
        {"a max_pool in=input kernel=2x2 stride=2x2\nb mul in=input,a",
         "multiplies 4x4x2 by 2x2x2"},
        {"a global_avg_pool in=input\nb mul in=a,input", "multiplies 1x1x2 by 4x4x2"},
    };
    ptq_model *m = model_of_text(text), *back = NULL;
    char again[1000];
    void *bytes = NULL;
    size_t size;
    int i;

    (void)state;
    assert_int_equal(ptq_graph_write(m, again, sizeof again), strlen(text));
    assert_string_equal(again, text);
    assert_ok(ptq_model_write(m, &bytes, &size, &err));
    assert_non_null(strstr((const char *)bytes + 8, "\"format_version\":\"2\""));
    assert_ok(ptq_model_parse(bytes, size, NULL, &back, &err));
    assert_same_model(m, back);
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(back);
    ptq_model_free(m);
    for (i = 0; i < COUNT(bad); i++) {
        snprintf(again, sizeof again, "ptq-graph 1\ninput input shape=4x4x2\n%s\n", bad[i].line);
        assert_fails(PTQ_BAD_GRAPH, bad[i].says,
                     ptq_graph_parse(again, strlen(again), NULL, &back, &err));
    }
    m = NULL;
    assert_ok(ptq_model_create(NULL, &m, &err));
    ptq_add_function(m, PTQ_FUNCTION_ELU, "f", ptq_add_input(m, "input", 1, 1, 1), 1, 2);
    assert_fails(PTQ_BAD_GRAPH, "elu cannot have the numbers 1 and 2", ptq_model_check(m, &err));
    ptq_model_free(m);
}

/* input -> convolution -> f -> batch norm -> f, times a number for each channel or itself -> ... */
static ptq_model *random_network(uint64_t seed) {
    test_random r = {0};
    ptq_model *m = NULL;
    int x, gate, k;

    r.state = seed;
    assert_ok(ptq_model_create(NULL, &m, &err));
    k = random_int(&r, 1, 9);
    x = ptq_add_input(m, "input", random_int(&r, 1, 9), k, 3);
    for (k = 0; k < 3; k++) {
        int f = random_int(&r, 0, COUNT(functions) - 1), g = random_int(&r, 0, 10);
        char name[8] = {(char)('a' + k), 0, 0};
        ptq_conv_options o;

        memset(&o, 0, sizeof o);
        o.channels = random_int(&r, 1, 19);
        o.kernel_h = random_int(&r, 1, 3);
        name[1] = 'c';
        x = ptq_add_conv2d(m, name, x, &o);
        name[1] = 'f';
        x = ptq_add_function(m, functions[f].function, name, x, functions[f].alpha,
                             functions[f].beta);
        name[1] = 'n';
        if (random_int(&r, 0, 1))
            x = ptq_add_batch_norm(m, name, x, 1e-3f);
        name[1] = 'p';
        gate = random_int(&r, 0, 1) ? x : ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, name, x);
        name[1] = 'g';
        gate = ptq_add_function(m, functions[g].function, name, gate, functions[g].alpha,
                                functions[g].beta);
        name[1] = 'm';
        x = ptq_add_mul(m, name, x, gate);
    }
    ptq_add_dense(m, "fc", x, 4);
    fill_model(m, seed);
    assert_ok(ptq_model_check(m, &err));
    return m;
}

/* Fused against unfused in double precision; codes against formulas; all instruction sets alike. */
static void random_networks(void **state) {
    static const char *const schemes[] = {"minmax8", "ort-u8", "ort-s8", "w4a8"};
    uint64_t seed;

    (void)state;
    for (seed = 1; seed <= (TEST_SANITIZED ? 10 : 40); seed++) {
        ptq_model *float_model = random_network(seed), *fused = NULL, *q;
        pictures p = pictures_for(float_model, 4, seed);
        const ptq_dataset *data = pictures_dataset(&p);
        ptq_scheme scheme = preset(schemes[seed % 4]);
        ptq_convert_options o = with_scheme(scheme, data);
        ptq_calibration *calibration;
        uint8_t pixels[9 * 9 * 3];
        float logits[4], same[4];
        int label, i, isa;

        if (seed % 3 == 0)
            o.scheme.activation_bits = 5;
        assert_ok(ptq_fuse(float_model, &fused, NULL, &err));
        calibration = calibrated_on(fused, data);
        q = converted(fused, calibration, &o);
        assert_ok(data->get(data->user, 1, pixels, &label, &err));
        for (isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++) {
            ptq_session_options keep;
            ptq_plan_options plan_options;
            ptq_plan *plan = NULL;
            ptq_session *session = NULL;

            if (ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
                continue;
            memset(&keep, 0, sizeof keep);
            memset(&plan_options, 0, sizeof plan_options);
            keep.keep = 1;
            plan_options.isa = (ptq_isa)isa;
            assert_ok(ptq_plan_create(q, &plan_options, &plan, &err));
            assert_ok(ptq_session_create(plan, &keep, &session, &err));
            assert_ok(
                ptq_run(session, pixels, 1, isa == PTQ_ISA_SCALAR ? logits : same, NULL, &err));
            for (i = 1; i < q->nodes; i++) {
                assert_int_equal(ptq_node_mode(q, i), PTQ_MODE_INTEGER);
                check_node(q, session, i);
            }
            if (isa != PTQ_ISA_SCALAR)
                assert_memory_equal(logits, same, sizeof logits);
            ptq_session_free(session);
            ptq_plan_free(plan);
        }
        ptq_calibration_free(calibration);
        ptq_model_free(q);
        ptq_model_free(fused);
        ptq_model_free(float_model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_functions),     cmocka_unit_test(nan_passes),
        cmocka_unit_test(codes_of_functions), cmocka_unit_test(codes_of_products),
        cmocka_unit_test(text_and_version),   cmocka_unit_test(random_networks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
