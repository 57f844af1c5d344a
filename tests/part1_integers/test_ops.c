/* Operators: values worked out by hand, then random networks against the naive reference. */
#include "reference.h"

static void set_param(ptq_model *m, const char *name, const float *values, size_t n) {
    ptq_tensor *t = ptq_model_param(m, name);

    assert_non_null(t);
    assert_int_equal(ptq_tensor_elements(t), n);
    memcpy(t->data, values, n * sizeof *values);
}

static void fill_param(ptq_model *m, const char *name, float value) {
    ptq_tensor *t = ptq_model_param(m, name);
    size_t i;

    assert_non_null(t);
    for (i = 0; i < ptq_tensor_elements(t); i++)
        ((float *)t->data)[i] = value;
}

/* Runs the model on one image, copies what its last node gives, and frees it. */
static void run_last(ptq_model *m, const float *input, float *out) {
    test_run run = open_run(m, 1);
    ptq_tensor view;

    assert_ok(ptq_run_f32(run.session, input, 1, NULL, NULL, &err));
    assert_ok(ptq_session_tensor(run.session, m->node[m->nodes - 1].out, &view, &err));
    memcpy(out, view.data, view.size);
    close_run(&run);
    ptq_model_free(m);
}

static ptq_model *start(int h, int w, int c) {
    ptq_model *m = NULL;

    assert_ok(ptq_model_create(NULL, &m, &err));
    assert_int_equal(ptq_add_input(m, "input", h, w, c), 0);
    return m;
}

static ptq_conv_options conv(int channels, int kernel_h, int kernel_w) {
    ptq_conv_options o;

    memset(&o, 0, sizeof o);
    o.channels = channels;
    o.kernel_h = kernel_h;
    o.kernel_w = kernel_w;
    return o;
}

static void count_up(float *out, int n) {
    int i;

    for (i = 0; i < n; i++)
        out[i] = (float)(i + 1);
}

/* ---------------------------------------------------------------------------------------------
   Convolution */

static void same_padding_of_ones(void **state) {
    static const float wanted[] = {4, 6, 6, 6, 4, 6, 9, 9, 9, 6, 6, 9, 9, 9, 6, 4, 6, 6, 6, 4};
    ptq_conv_options o = conv(1, 3, 3);
    ptq_model *m = start(4, 5, 1);
    float ones[20], out[20];
    int i;

    (void)state;
    for (i = 0; i < 20; i++)
        ones[i] = 1;
    ptq_add_conv2d(m, "conv", 0, &o);
    fill_param(m, "conv.weight", 1);
    run_last(m, ones, out);
    assert_floats(out, wanted, 20);
}

/* Padded above and on the left as well, the first sum would be 1 + 2 + 5 + 6. */
static void stride_two_pads_bottom_and_right(void **state) {
    static const float wanted[] = {1 + 2 + 3 + 5 + 6 + 7 + 9 + 10 + 11, 3 + 4 + 7 + 8 + 11 + 12,
                                   9 + 10 + 11 + 13 + 14 + 15, 11 + 12 + 15 + 16};
    ptq_conv_options o = conv(1, 3, 3);
    ptq_model *m = start(4, 4, 1);
    float in[16], out[4];

    (void)state;
    count_up(in, 16);
    o.stride_h = 2;
    ptq_add_conv2d(m, "conv", 0, &o);
    fill_param(m, "conv.weight", 1);
    run_last(m, in, out);
    assert_floats(out, wanted, 4);
}

/* At odd size the missing two rows and columns are split: the corner sees 1 + 2 + 4 + 5. */
static void stride_two_at_odd_size(void **state) {
    static const float wanted[] = {1 + 2 + 4 + 5, 2 + 3 + 5 + 6, 4 + 5 + 7 + 8, 5 + 6 + 8 + 9};
    ptq_conv_options o = conv(1, 3, 3);
    ptq_model *m = start(3, 3, 1);
    float in[9], out[4];

    (void)state;
    count_up(in, 9);
    o.stride_h = 2;
    ptq_add_conv2d(m, "conv", 0, &o);
    fill_param(m, "conv.weight", 1);
    run_last(m, in, out);
    assert_floats(out, wanted, 4);
}

/* A row above, a column on the right:  0 0 0 / 1 2 0 / 3 4 0 */
static void explicit_padding(void **state) {
    static const float in[] = {1, 2, 3, 4}, weight[] = {1, 10, 100, 1000};
    static const float wanted[] = {2100, 200, 4321, 402};
    ptq_conv_options o = conv(1, 2, 2);
    ptq_model *m = start(2, 2, 1);
    float out[4];

    (void)state;
    o.padding = PTQ_PADDING_EXPLICIT;
    o.pad[0] = o.pad[3] = 1;
    ptq_add_conv2d(m, "conv", 0, &o);
    set_param(m, "conv.weight", weight, 4);
    run_last(m, in, out);
    assert_floats(out, wanted, 4);
}

/* Weights are O,I,H,W while pixels are H,W,C. */
static void layouts_of_weights_and_pixels(void **state) {
    static const float in[] = {1, 2, 3, 4}; /* left pixel 1, 2; right pixel 3, 4 */
    static const float weight[] = {1, 10, 100, 1000, 2, 0, 0, 3}, bias[] = {0, 100};
    static const float wanted[] = {1 * 1 + 10 * 3 + 100 * 2 + 1000 * 4, 2 * 1 + 3 * 4 + 100};
    ptq_conv_options o = conv(2, 1, 2);
    ptq_model *m = start(1, 2, 2);
    float out[2];

    (void)state;
    o.padding = PTQ_PADDING_VALID;
    ptq_add_conv2d(m, "conv", 0, &o);
    set_param(m, "conv.weight", weight, 8);
    set_param(m, "conv.bias", bias, 2);
    run_last(m, in, out);
    assert_floats(out, wanted, 2);
}

static void rectangular_kernel_and_stride(void **state) {
    static const float weight[] = {1, 10, 100};
    static const float wanted[] = {1 + 20 + 300, 3 + 40 + 500, 6 + 70 + 800, 8 + 90 + 1000};
    ptq_conv_options o = conv(1, 1, 3);
    ptq_model *m = start(2, 5, 1);
    float in[10], out[4];

    (void)state;
    count_up(in, 10); /* 1 2 3 4 5 / 6 7 8 9 10 */
    o.padding = PTQ_PADDING_VALID;
    o.stride_h = 1;
    o.stride_w = 2;
    ptq_add_conv2d(m, "conv", 0, &o);
    set_param(m, "conv.weight", weight, 3);
    run_last(m, in, out);
    assert_floats(out, wanted, 4);
}

static void two_groups(void **state) {
    static const float in[] = {1, 2, 3, 4}, weight[] = {1, 10, 2, 20, 3, 30, 4, 40};
    static const float bias[] = {0.5f, 0, 0, -1};
    static const float wanted[] = {21.5f, 42, 3 * 3 + 30 * 4, 4 * 3 + 40 * 4 - 1};
    ptq_conv_options o = conv(4, 1, 1);
    ptq_model *m = start(1, 1, 4);
    float out[4];

    (void)state;
    o.groups = 2;
    ptq_add_conv2d(m, "conv", 0, &o);
    set_param(m, "conv.weight", weight, 8);
    set_param(m, "conv.bias", bias, 4);
    run_last(m, in, out);
    assert_floats(out, wanted, 4);
}

/* Two channels, three rows; each channel has its own column of weights. */
static void depthwise(void **state) {
    static const float in[] = {1, 10, 2, 20, 3, 30}, weight[] = {1, 10, 100, 3, 2, 1};
    static const float wanted[] = {210, 20 + 20, 321, 30 + 40 + 30, 32, 60 + 60};
    ptq_conv_options o = conv(2, 3, 1);
    ptq_model *m = start(3, 1, 2);
    float out[6];

    (void)state;
    o.groups = 2;
    o.no_bias = 1;
    ptq_add_conv2d(m, "conv", 0, &o);
    set_param(m, "conv.weight", weight, 6);
    run_last(m, in, out);
    assert_floats(out, wanted, 6);
}

/* A kernel larger than the image: every output sees all of it. */
static void kernel_larger_than_image(void **state) {
    static const float in[] = {1, 2, 3, 4}, wanted[] = {10, 10, 10, 10};
    ptq_conv_options o = conv(1, 5, 5);
    ptq_model *m = start(2, 2, 1);
    float out[4];

    (void)state;
    ptq_add_conv2d(m, "conv", 0, &o);
    fill_param(m, "conv.weight", 1);
    run_last(m, in, out);
    assert_floats(out, wanted, 4);
}

/* ---------------------------------------------------------------------------------------------
   The others */

static void batch_norm_with_epsilon(void **state) {
    static const float in[] = {3, 3, -1, 1}, gamma[] = {2, -1}, beta[] = {0.5f, 0};
    static const float mean[] = {1, 0}, variance[] = {3, 1.25f};
    static const float wanted[] = {2.5f, -2, -1.5f, -2.0f / 3}; /* sqrt(3 + 1), sqrt(1.25 + 1) */
    ptq_model *m = start(1, 2, 2);
    float out[4];

    (void)state;
    ptq_add_batch_norm(m, "bn", 0, 1);
    set_param(m, "bn.weight", gamma, 2);
    set_param(m, "bn.bias", beta, 2);
    set_param(m, "bn.running_mean", mean, 2);
    set_param(m, "bn.running_var", variance, 2);
    run_last(m, in, out);
    assert_floats(out, wanted, 4);
}

static void clamps(void **state) {
    static const float in[] = {-1, 0, 0.5f, 6, 7, -1e30f};
    static const float relu[] = {0, 0, 0.5f, 6, 7, 0}, relu6[] = {0, 0, 0.5f, 6, 6, 0};
    ptq_model *m = start(1, 1, 6);
    float out[6];

    (void)state;
    ptq_add_op(m, PTQ_OP_RELU, "relu", 0);
    run_last(m, in, out);
    assert_floats(out, relu, 6);
    m = start(2, 1, 3);
    ptq_add_op(m, PTQ_OP_RELU6, "relu6", 0);
    run_last(m, in, out);
    assert_floats(out, relu6, 6);
}

static void additions(void **state) {
    static const float in[] = {-1, 2, 7}, sum[] = {-1, 4, 14}, twice[] = {-2, 4, 14};
    ptq_model *m = start(1, 1, 3);
    float out[3];

    (void)state;
    ptq_add_add(m, "add", 0, ptq_add_op(m, PTQ_OP_RELU, "relu", 0));
    run_last(m, in, out);
    assert_floats(out, sum, 3);
    m = start(1, 1, 3);
    ptq_add_add(m, "add", 0, 0);
    run_last(m, in, out);
    assert_floats(out, twice, 3);
}

static ptq_pool_options pool(int kernel, int stride, ptq_padding padding) {
    ptq_pool_options o;

    memset(&o, 0, sizeof o);
    o.kernel_h = kernel;
    o.stride_h = stride;
    o.padding = padding;
    return o;
}

static void max_pool_ignores_padding(void **state) {
    static const float in[] = {-9, -8, -7, -6, -5, -4, -3, -2, -1};
    static const float wanted[] = {-5, -4, -4, -2, -1, -1, -2, -1, -1};
    ptq_pool_options o = pool(3, 1, PTQ_PADDING_SAME);
    ptq_model *m = start(3, 3, 1);
    float out[9];

    (void)state;
    ptq_add_pool(m, PTQ_OP_MAX_POOL, "max", 0, &o);
    run_last(m, in, out);
    assert_floats(out, wanted, 9);
}

static void max_pool_per_channel(void **state) {
    static const float in[] = {1, -1, 5, -5, 2, -2, 3, -3}, wanted[] = {5, -1};
    ptq_pool_options o = pool(2, 0, PTQ_PADDING_VALID);
    ptq_model *m = start(2, 2, 2);
    float out[2];

    (void)state;
    ptq_add_pool(m, PTQ_OP_MAX_POOL, "max", 0, &o);
    run_last(m, in, out);
    assert_floats(out, wanted, 2);
}

static void avg_pool_with_and_without_padding(void **state) {
    static const float in[] = {1, 2, 3, 6};
    static const float inside[] = {3, 3, 3, 3};
    static const float whole[] = {4 / 3.0f, 4 / 3.0f, 4 / 3.0f, 4 / 3.0f}; /* 12 / 9 */
    static const float corner[] = {1, 1.5f, 2, 3}; /* a row above, a column on the left */
    static const float corner_whole[] = {0.25f, 0.75f, 1, 3};
    ptq_pool_options o = pool(3, 1, PTQ_PADDING_SAME);
    ptq_model *m;
    float out[4];
    int include;

    (void)state;
    for (include = 0; include < 2; include++) {
        m = start(2, 2, 1);
        o = pool(3, 1, PTQ_PADDING_SAME);
        o.include_pad = include;
        ptq_add_pool(m, PTQ_OP_AVG_POOL, "avg", 0, &o);
        run_last(m, in, out);
        assert_floats(out, include ? whole : inside, 4);
        m = start(2, 2, 1);
        o = pool(2, 1, PTQ_PADDING_EXPLICIT);
        o.pad[0] = o.pad[1] = 1;
        o.include_pad = include;
        ptq_add_pool(m, PTQ_OP_AVG_POOL, "avg", 0, &o);
        run_last(m, in, out);
        assert_floats(out, include ? corner_whole : corner, 4);
    }
}

static void global_avg_pool(void **state) {
    static const float in[] = {1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 9, 90}, wanted[] = {4, 40};
    ptq_model *m = start(3, 2, 2);
    float out[2];

    (void)state;
    ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", 0);
    run_last(m, in, out);
    assert_floats(out, wanted, 2);
}

static void dense(void **state) {
    static const float in[] = {1, -2, 3}, weight[] = {1, 10, 100, -1, 0, 1}, bias[] = {5, 0.5f};
    static const float wanted[] = {1 - 20 + 300 + 5, -1 + 3 + 0.5f};
    ptq_model *m = start(1, 1, 3);
    float out[2];

    (void)state;
    ptq_add_dense(m, "fc", 0, 2);
    set_param(m, "fc.weight", weight, 6);
    set_param(m, "fc.bias", bias, 2);
    run_last(m, in, out);
    assert_floats(out, wanted, 2);
}

/* e^1000 would overflow; only differences may count. */
static void softmax_of_large_values(void **state) {
    static const float in[] = {1000, 1001, 998, -1000};
    const double sum = exp(-1) + 1 + exp(-3);
    ptq_model *m = start(1, 1, 4);
    test_run run;
    float out[4], logits[4], probabilities[4];
    int i;

    (void)state;
    ptq_add_op(m, PTQ_OP_SOFTMAX, "softmax", 0);
    run = open_run(m, 0);
    assert_ok(ptq_run_f32(run.session, in, 1, logits, probabilities, &err));
    assert_memory_equal(logits, in, sizeof in); /* logits come before a final softmax */
    close_run(&run);
    run_last(m, in, out);
    for (i = 0; i < 4; i++) {
        assert_near(out[i], i == 3 ? 0 : exp((double)in[i] - 1001) / sum, 1e-6);
        assert_near(probabilities[i], out[i], 0);
    }
}

/* Probabilities are there even where the network has no softmax of its own. */
static void probabilities_without_softmax(void **state) {
    static const float in[] = {0, 1};
    ptq_model *m = start(1, 1, 2);
    float logits[2], probabilities[2];
    test_run run;

    (void)state;
    ptq_add_op(m, PTQ_OP_RELU, "relu", 0);
    run = open_run(m, 0);
    assert_ok(ptq_run_f32(run.session, in, 1, NULL, probabilities, &err));
    assert_near(probabilities[1], 1 / (1 + exp(-1)), 1e-6);
    assert_near(probabilities[0] + probabilities[1], 1, 1e-6);
    assert_ok(ptq_run_f32(run.session, in, 1, logits, NULL, &err));
    assert_near(logits[1], 1, 0);
    close_run(&run);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   Random networks: every tensor against the reference */

static void compare_with_reference(uint64_t seed, ptq_model *make(uint64_t)) {
    ptq_model *m = make(seed);
    float *input = random_input(m, seed);
    image *wanted = reference_run(m, input);
    test_run run = open_run(m, 1);
    int i;

    assert_ok(ptq_run_f32(run.session, input, 1, NULL, NULL, &err));
    for (i = 1; i < m->nodes; i++) {
        ptq_tensor view;
        char what[PTQ_NAME_SIZE + 40];

        snprintf(what, sizeof what, "seed %d, %s", (int)seed, m->node[i].name);
        if (m->node[i].shape[0] != wanted[i].h || m->node[i].shape[1] != wanted[i].w ||
            m->node[i].shape[2] != wanted[i].c)
            fail_msg("%s: shape %dx%dx%d", what, m->node[i].shape[0], m->node[i].shape[1],
                     m->node[i].shape[2]);
        assert_ok(ptq_session_tensor(run.session, m->node[i].name, &view, &err));
        assert_int_equal(ptq_tensor_elements(&view), image_size(wanted[i]));
        expect_image((const float *)view.data, wanted[i], 2e-5, what);
    }
    close_run(&run);
    reference_free(wanted, m->nodes);
    free(input);
    ptq_model_free(m);
}

static void random_networks(void **state) {
    int seed, seeds = TEST_SANITIZED ? 150 : 600;

    (void)state;
    for (seed = 1; seed <= seeds; seed++)
        compare_with_reference((uint64_t)seed, seed % 4 ? random_graph : random_branches);
}

/* Nodes find their operator's row by number: a row out of its place would run another operator's
   kernel. Every row has a form that can run, and can be asked for its name. */
static void rows_stand_in_the_order_of_ptq_op(void **state) {
    int op;
    (void)state;
    for (op = 0; op < PTQ_OP_COUNT; op++) {
        const ptq__operator *row = &ptq__operators[op];
        assert_int_equal(row->op, op);
        assert_int_equal(ptq_find_name(PTQ_NAMES_OP, ptq_name(PTQ_NAMES_OP, (unsigned)op)), op);
        assert_true(row->operands == 0 || row->real || row->integer);
        assert_true(!row->dynamic || (row->keys & PTQ__KEY_W));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_padding_of_ones),
        cmocka_unit_test(stride_two_pads_bottom_and_right),
        cmocka_unit_test(stride_two_at_odd_size),
        cmocka_unit_test(explicit_padding),
        cmocka_unit_test(layouts_of_weights_and_pixels),
        cmocka_unit_test(rectangular_kernel_and_stride),
        cmocka_unit_test(two_groups),
        cmocka_unit_test(depthwise),
        cmocka_unit_test(kernel_larger_than_image),
        cmocka_unit_test(batch_norm_with_epsilon),
        cmocka_unit_test(clamps),
        cmocka_unit_test(additions),
        cmocka_unit_test(max_pool_ignores_padding),
        cmocka_unit_test(max_pool_per_channel),
        cmocka_unit_test(avg_pool_with_and_without_padding),
        cmocka_unit_test(global_avg_pool),
        cmocka_unit_test(dense),
        cmocka_unit_test(softmax_of_large_values),
        cmocka_unit_test(probabilities_without_softmax),
        cmocka_unit_test(random_networks),
        cmocka_unit_test(rows_stand_in_the_order_of_ptq_op),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
