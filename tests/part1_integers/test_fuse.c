/* Fusion: the same function with fewer nodes; what must not fuse stays, and the report says why. */
#include "reference.h"

static ptq_model *start(int h, int w, int c) {
    ptq_model *m = NULL;

    assert_ok(ptq_model_create(NULL, &m, &err));
    assert_int_equal(ptq_add_input(m, "input", h, w, c), 0);
    return m;
}

static int add_conv(ptq_model *m, const char *name, int input, int channels) {
    ptq_conv_options o;

    memset(&o, 0, sizeof o);
    o.channels = channels;
    o.kernel_h = 3;
    return ptq_add_conv2d(m, name, input, &o);
}

/* Fuses a finished graph, compares every tensor that is left with the reference of the unfused one,
   and returns the fused model. */
static ptq_model *fuse_and_compare(ptq_model *m, uint64_t seed, ptq_fuse_report *report) {
    ptq_model *fused = NULL;
    float *input = random_input(m, seed);
    image *wanted = reference_run(m, input);
    test_run run;
    int i;

    if (report)
        memset(report, 0, sizeof *report);
    assert_ok(ptq_fuse(m, &fused, report, &err));
    assert_ok(ptq_model_check(fused, &err));
    run = open_run(fused, 1);
    assert_ok(ptq_run_f32(run.session, input, 1, NULL, NULL, &err));
    for (i = 1; i < fused->nodes; i++) {
        const char *name = fused->node[i].out;
        ptq_tensor view;
        assert_ok(ptq_session_tensor(run.session, name, &view, &err));
        expect_image((const float *)view.data, wanted[ptq_model_find(m, name)], 1e-4, name);
    }
    close_run(&run);
    reference_free(wanted, m->nodes);
    free(input);
    return fused;
}

/* The whole arena is reused in a session that keeps nothing: logits must not change with that. */
static void compare_logits(const ptq_model *a, const ptq_model *b, uint64_t seed) {
    float *input = random_input(a, seed), *x = logits_of(a, input), *y = logits_of(b, input);
    const int *shape = a->node[ptq_model_logits(a)].shape;
    int n = shape[0] * shape[1] * shape[2], i;
    double most = 0;

    for (i = 0; i < n; i++)
        most = fmax(most, fabs((double)x[i]));
    for (i = 0; i < n; i++)
        if (!is_near((double)x[i], (double)y[i], 1e-4 * most + 1e-6, 0))
            fail_msg("seed %d: logit %d: %g, fused %g", (int)seed, i, (double)x[i], (double)y[i]);
    free(input);
    free(x);
    free(y);
}

static const ptq_fusion *find_fusion(const ptq_fuse_report *report, const char *node) {
    int i;

    for (i = 0; i < report->items; i++)
        if (!strcmp(report->item[i].node, node))
            return &report->item[i];
    fail_msg("the report says nothing of %s", node);
    return NULL;
}

static void assert_fused(const ptq_fuse_report *report, const char *node, ptq_fusion_kind kind,
                         const char *into) {
    const ptq_fusion *f = find_fusion(report, node);

    if (f->kind == PTQ_FUSION_NONE)
        fail_msg("%s: %s", node, f->reason);
    assert_int_equal(f->kind, kind);
    assert_string_equal(f->into, into);
    assert_null(f->reason);
}

static void assert_stays(const ptq_fuse_report *report, const ptq_model *fused, const char *node) {
    const ptq_fusion *f = find_fusion(report, node);

    if (f->kind != PTQ_FUSION_NONE)
        fail_msg("%s went into %s", node, f->into);
    assert_non_null(f->reason);
    assert_true(strlen(f->reason) > 10);
    assert_string_equal(fused->node[ptq_model_find(fused, node)].name, node);
}

/* ---------------------------------------------------------------------------------------------
   What fuses */

static void resnet8(void **state) {
    ptq_model *m = random_resnet8(12, 6, 10, 5, NULL), *copy = NULL, *fused, *again = NULL;
    ptq_fuse_report report;
    int i;

    (void)state;
    assert_ok(ptq_model_copy(m, NULL, &copy, &err));
    fused = fuse_and_compare(m, 5, &report);
    compare_logits(m, fused, 6);
    assert_same_model(m, copy); /* the input model is untouched */

    assert_int_equal(fused->nodes, 13); /* input, 9 convolutions, pool, dense, softmax */
    assert_int_equal(report.items, 7 + 7 + 3);
    assert_fused(&report, "bn1", PTQ_FUSION_BATCH_NORM, "conv1");
    assert_fused(&report, "conv1.relu", PTQ_FUSION_ACTIVATION, "conv1");
    assert_fused(&report, "block1.bn2", PTQ_FUSION_BATCH_NORM, "block1.conv2");
    assert_fused(&report, "block1.add", PTQ_FUSION_RESIDUAL, "block1.conv2");
    assert_fused(&report, "block1.add.relu", PTQ_FUSION_ACTIVATION, "block1.conv2");
    assert_int_equal(ptq_model_find(fused, "block1.add.relu"),
                     ptq_model_find(fused, "block1.conv2"));
    assert_string_equal(fused->node[ptq_model_find(fused, "block1.conv2")].out, "block1.add.relu");
    for (i = 0; i < fused->nodes; i++)
        assert_int_not_equal(fused->node[i].op, PTQ_OP_ADD);
    assert_near(fused->mean[1], 127.5, 0); /* preprocessing comes along */

    assert_ok(ptq_fuse(fused, &again, NULL, &err)); /* nothing is left to do */
    assert_same_model(fused, again);
    ptq_release(&report.memory);
    assert_null(report.memory.block[0]);
    ptq_model_free(again);
    ptq_model_free(fused);
    ptq_model_free(copy);
    ptq_model_free(m);
}

static void random_networks(void **state) {
    int seed, seeds = TEST_SANITIZED ? 150 : 600;

    (void)state;
    for (seed = 1; seed <= seeds; seed++) {
        ptq_model *m = random_graph((uint64_t)seed * 7919);
        ptq_model *fused = fuse_and_compare(m, (uint64_t)seed, NULL), *again = NULL;

        compare_logits(m, fused, (uint64_t)seed);
        assert_ok(ptq_fuse(fused, &again, NULL, &err));
        assert_same_model(fused, again);
        ptq_model_free(again);
        ptq_model_free(fused);
        ptq_model_free(m);
    }
}

/* w' = w g, b' = (b - mean) g + beta, g = gamma / sqrt(variance + epsilon), of each node's own. */
static void folding_by_hand(void **state) {
    static const float epsilon[] = {0.001f, 0.75f};
    ptq_model *m = start(4, 4, 2), *fused = NULL;
    int x = 0, i;
    size_t j;

    (void)state;
    for (i = 0; i < 2; i++) {
        x = add_conv(m, i ? "b" : "a", x, 2);
        x = ptq_add_batch_norm(m, i ? "bn_b" : "bn_a", x, epsilon[i]);
    }
    fill_model(m, 9);
    assert_ok(ptq_fuse(m, &fused, NULL, &err));
    assert_int_equal(fused->nodes, 3);
    for (i = 0; i < 2; i++) {
        const ptq_node *conv = &m->node[1 + 2 * i], *bn = conv + 1, *f = &fused->node[1 + i];
        for (j = 0; j < 2 * 18; j++) {
            size_t o = j / 18;
            double g = param(bn, PTQ_PARAM_WEIGHT, o) /
                       sqrt(param(bn, PTQ_PARAM_VARIANCE, o) + (double)epsilon[i]);
            double b = (param(conv, PTQ_PARAM_BIAS, o) - param(bn, PTQ_PARAM_MEAN, o)) * g;
            /* computed in double and rounded once: the nearest single exactly */
            assert_true(param(f, PTQ_PARAM_WEIGHT, j) ==
                        (double)(float)(param(conv, PTQ_PARAM_WEIGHT, j) * g));
            assert_true(param(f, PTQ_PARAM_BIAS, o) ==
                        (double)(float)(b + param(bn, PTQ_PARAM_BIAS, o)));
        }
    }
    ptq_model_free(fused);
    ptq_model_free(m);
}

static void convolution_without_bias_gets_one(void **state) {
    ptq_model *m = start(5, 5, 3), *fused;
    ptq_conv_options o;

    (void)state;
    memset(&o, 0, sizeof o);
    o.channels = o.groups = 3; /* and depthwise, for good measure */
    o.kernel_h = 3;
    o.no_bias = 1;
    ptq_add_op(m, PTQ_OP_RELU6, "relu6",
               ptq_add_batch_norm(m, "bn", ptq_add_conv2d(m, "dw", 0, &o), 1e-3f));
    fill_model(m, 2);
    fused = fuse_and_compare(m, 2, NULL);
    assert_int_equal(fused->nodes, 2);
    assert_int_equal(fused->node[1].act, PTQ_ACTIVATION_RELU6);
    assert_non_null(ptq_model_param(fused, "dw.bias"));
    ptq_model_free(fused);
    ptq_model_free(m);
}

static void activations_of_dense_and_addition(void **state) {
    ptq_model *m = start(3, 3, 2), *fused;
    ptq_fuse_report report;
    int x = ptq_add_add(m, "add", ptq_add_op(m, PTQ_OP_RELU6, "six", 0), 0);

    (void)state;
    x = ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", ptq_add_op(m, PTQ_OP_RELU, "add.relu", x));
    ptq_add_op(m, PTQ_OP_RELU6, "fc.relu6", ptq_add_dense(m, "fc", x, 4));
    fill_model(m, 3);
    fused = fuse_and_compare(m, 3, &report);
    assert_fused(&report, "add.relu", PTQ_FUSION_ACTIVATION, "add");
    assert_fused(&report, "fc.relu6", PTQ_FUSION_ACTIVATION, "fc");
    assert_stays(&report, fused, "add");
    assert_stays(&report, fused, "six"); /* behind the input itself */
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

static void residual_keeps_its_place(void **state) {
    int residual_first;

    (void)state;
    for (residual_first = 0; residual_first < 2; residual_first++) {
        ptq_model *m = start(5, 4, 2), *fused;
        int a = add_conv(m, "a", 0, 3), b = add_conv(m, "b", a, 3);
        const ptq_node *n;

        ptq_add_add(m, "add", residual_first ? a : b, residual_first ? b : a);
        fill_model(m, 4);
        fused = fuse_and_compare(m, 4, NULL);
        assert_int_equal(fused->nodes, 3);
        n = &fused->node[2];
        assert_int_equal(n->residual, residual_first ? PTQ_RESIDUAL_FIRST : PTQ_RESIDUAL_SECOND);
        assert_int_equal(n->input[0], 1);
        assert_int_equal(n->input[1], 1);
        assert_string_equal(n->out, "add");
        ptq_model_free(fused);
        ptq_model_free(m);
    }
}

/* relu(relu(conv) + x): one activation before the addition, one behind it. */
static void activations_on_both_sides_of_an_addition(void **state) {
    ptq_model *m = start(5, 4, 2), *fused;
    int x = add_conv(m, "a", 0, 3);
    int y = ptq_add_op(m, PTQ_OP_RELU, "b.relu", add_conv(m, "b", x, 3));
    const ptq_node *n;

    (void)state;
    ptq_add_op(m, PTQ_OP_RELU6, "add.relu6", ptq_add_add(m, "add", y, x));
    fill_model(m, 4);
    fused = fuse_and_compare(m, 4, NULL);
    n = &fused->node[fused->nodes - 1];
    assert_string_equal(n->name, "b");
    assert_int_equal(n->act, PTQ_ACTIVATION_RELU);
    assert_int_equal(n->add_act, PTQ_ACTIVATION_RELU6);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* A graph in which the addition has its activation already, as a file may hold it. */
static void addition_brings_its_activation(void **state) {
    static const char text[] = "ptq-graph 1\n"
                               "input input shape=5x5x2\n"
                               "a conv2d in=input channels=3 kernel=3x3\n"
                               "b conv2d in=a channels=3 kernel=3x3\n"
                               "add add in=a,b act=relu\n";
    ptq_model *m = NULL, *fused = NULL;

    (void)state;
    assert_ok(ptq_graph_parse(text, sizeof text - 1, NULL, &m, &err));
    fill_model(m, 8);
    assert_ok(ptq_fuse(m, &fused, NULL, &err));
    assert_int_equal(fused->nodes, 3);
    assert_int_equal(fused->node[2].add_act, PTQ_ACTIVATION_RELU);
    compare_logits(m, fused, 8);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* Of two convolutions the later takes the addition in, whichever operand it is. */
static void the_later_convolution_takes_the_addition(void **state) {
    int swapped;

    (void)state;
    for (swapped = 0; swapped < 2; swapped++) {
        ptq_model *m = start(5, 4, 2), *fused;
        ptq_fuse_report report;
        int a = add_conv(m, "early", 0, 3), b = add_conv(m, "late", 0, 3);

        ptq_add_add(m, "add", swapped ? b : a, swapped ? a : b);
        fill_model(m, 4);
        fused = fuse_and_compare(m, 4, &report);
        assert_fused(&report, "add", PTQ_FUSION_RESIDUAL, "late");
        ptq_release(&report.memory);
        ptq_model_free(fused);
        ptq_model_free(m);
    }
}

/* ---------------------------------------------------------------------------------------------
   What must not be written over */

/* The residual is what the convolution itself reads; its neighbourhood is still needed. */
static void residual_is_the_convolution_input(void **state) {
    ptq_model *m = start(6, 6, 3), *fused;
    int x = ptq_add_op(m, PTQ_OP_RELU, "relu", add_conv(m, "first", 0, 4));

    (void)state;
    x = ptq_add_add(m, "add", add_conv(m, "second", x, 4), x);
    ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", x);
    fill_model(m, 6);
    fused = fuse_and_compare(m, 6, NULL);
    compare_logits(m, fused, 7);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* The residual is read once more later on. */
static void residual_is_needed_again(void **state) {
    ptq_model *m = start(6, 6, 3), *fused;
    int x = add_conv(m, "first", 0, 4), y, z;

    (void)state;
    y = ptq_add_add(m, "add1", add_conv(m, "second", add_conv(m, "inner", x, 5), 4), x);
    z = ptq_add_add(m, "add2", add_conv(m, "third", add_conv(m, "inner2", y, 5), 4), x);
    ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", z);
    fill_model(m, 6);
    fused = fuse_and_compare(m, 6, NULL);
    compare_logits(m, fused, 7);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   A batch norm that no convolution before it can take in */

static void batch_norm_after_relu_becomes_a_convolution(void **state) {
    ptq_model *m = start(4, 4, 2), *fused;
    ptq_fuse_report report;
    int x = ptq_add_op(m, PTQ_OP_RELU, "relu", add_conv(m, "conv", 0, 3));

    (void)state;
    ptq_add_op(m, PTQ_OP_RELU, "last", ptq_add_batch_norm(m, "bn", x, 1e-3f));
    fill_model(m, 1);
    fused = fuse_and_compare(m, 1, &report);
    assert_fused(&report, "relu", PTQ_FUSION_ACTIVATION, "conv");
    assert_fused(&report, "bn", PTQ_FUSION_CONVOLUTION, "bn");
    assert_fused(&report, "last", PTQ_FUSION_ACTIVATION, "bn");
    assert_int_equal(fused->nodes, 3);
    assert_int_equal(fused->node[2].op, PTQ_OP_CONV2D);
    assert_int_equal(fused->node[2].groups, 3);
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* Behind a dense layer; forward into one, whose inputs are 2 x 2 pixels of 4 channels, and into a
   convolution of two groups; but not where padding would count. */
static void batch_norm_folds_into_layers(void **state) {
    ptq_model *m = start(6, 6, 4), *fused;
    ptq_conv_options o;
    ptq_fuse_report report;
    int x = ptq_add_op(m, PTQ_OP_RELU, "r0", 0);

    (void)state;
    memset(&o, 0, sizeof o);
    o.channels = 4;
    o.kernel_h = 3;
    o.groups = 2;
    x = ptq_add_conv2d(m, "padded", ptq_add_batch_norm(m, "bn0", x, 1e-3f), &o);
    o.padding = PTQ_PADDING_VALID;
    o.stride_h = 2;
    o.no_bias = 1;
    x = ptq_add_batch_norm(m, "bn1", ptq_add_op(m, PTQ_OP_RELU, "r1", x), 1e-3f);
    x = ptq_add_op(m, PTQ_OP_RELU, "r2", ptq_add_conv2d(m, "valid", x, &o));
    x = ptq_add_dense(m, "fc", ptq_add_batch_norm(m, "bn2", x, 1e-3f), 5);
    ptq_add_batch_norm(m, "bn3", x, 1e-3f);
    fill_model(m, 1);
    fused = fuse_and_compare(m, 1, &report);
    assert_fused(&report, "bn0", PTQ_FUSION_CONVOLUTION, "bn0");
    assert_fused(&report, "bn1", PTQ_FUSION_BATCH_NORM, "valid");
    assert_fused(&report, "bn2", PTQ_FUSION_BATCH_NORM, "fc");
    assert_fused(&report, "bn3", PTQ_FUSION_BATCH_NORM, "fc");
    assert_int_equal(fused->nodes, 6); /* input, r0, bn0 and three layers */
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* The addition's host is then the batch norm's convolution. */
static void convolution_read_twice(void **state) {
    ptq_model *m = start(4, 4, 2), *fused;
    ptq_fuse_report report;
    int x = add_conv(m, "conv", 0, 3);

    (void)state;
    ptq_add_add(m, "add", ptq_add_batch_norm(m, "bn", x, 1e-3f), x);
    fill_model(m, 1);
    fused = fuse_and_compare(m, 1, &report);
    assert_fused(&report, "bn", PTQ_FUSION_CONVOLUTION, "bn");
    assert_fused(&report, "add", PTQ_FUSION_RESIDUAL, "bn");
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   What stays */

static void convolution_read_by_two_additions_stays(void **state) {
    ptq_model *m = start(4, 4, 2), *fused;
    ptq_fuse_report report;
    int a = add_conv(m, "a", 0, 3), b = add_conv(m, "b", a, 3);

    (void)state;
    ptq_add_add(m, "add2", ptq_add_add(m, "add1", a, b), b);
    fill_model(m, 1);
    fused = fuse_and_compare(m, 1, &report);
    assert_stays(&report, fused, "add1");
    assert_stays(&report, fused, "add2");
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

static void relu_of_a_tensor_read_twice_stays(void **state) {
    ptq_model *m = start(4, 4, 2), *fused;
    ptq_fuse_report report;
    int x = add_conv(m, "conv", 0, 3);

    (void)state;
    ptq_add_add(m, "add", x, ptq_add_op(m, PTQ_OP_RELU, "relu", x));
    fill_model(m, 1);
    fused = fuse_and_compare(m, 1, &report);
    assert_stays(&report, fused, "relu");
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

static void addition_of_pools_stays(void **state) {
    ptq_model *m = start(4, 4, 2), *fused;
    ptq_pool_options o;
    ptq_fuse_report report;

    (void)state;
    memset(&o, 0, sizeof o);
    o.kernel_h = 2;
    ptq_add_add(m, "add", ptq_add_pool(m, PTQ_OP_MAX_POOL, "max", 0, &o),
                ptq_add_pool(m, PTQ_OP_AVG_POOL, "avg", 0, &o));
    fused = fuse_and_compare(m, 1, &report);
    assert_stays(&report, fused, "add");
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* conv + conv: the very tensor would be its own residual. */
static void addition_to_itself_stays(void **state) {
    ptq_model *m = start(4, 4, 2), *fused;
    ptq_fuse_report report;
    int x = add_conv(m, "conv", 0, 3);

    (void)state;
    ptq_add_add(m, "add", x, x);
    fill_model(m, 1);
    fused = fuse_and_compare(m, 1, &report);
    assert_stays(&report, fused, "add");
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* A second activation behind a fused one is not lost. */
static void second_activation_stays(void **state) {
    ptq_model *m = start(4, 4, 2), *fused;
    ptq_fuse_report report;
    int x = ptq_add_op(m, PTQ_OP_RELU, "relu", add_conv(m, "conv", 0, 3));

    (void)state;
    ptq_add_op(m, PTQ_OP_RELU6, "relu6", x);
    fill_model(m, 1);
    ((float *)ptq_model_param(m, "conv.bias")->data)[0] = 20; /* something to clamp */
    fused = fuse_and_compare(m, 1, &report);
    assert_fused(&report, "relu", PTQ_FUSION_ACTIVATION, "conv");
    assert_stays(&report, fused, "relu6");
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* Folding that leaves the range of a float is refused, not silently infinite. */
static void folding_that_overflows_is_an_error(void **state) {
    ptq_model *m = start(4, 4, 2), *fused = NULL;

    (void)state;
    ptq_add_batch_norm(m, "bn", add_conv(m, "conv", 0, 3), 1e-3f);
    fill_model(m, 1);
    ((float *)ptq_model_param(m, "bn.weight")->data)[0] = 3e38f;
    ((float *)ptq_model_param(m, "conv.weight")->data)[0] = 3e38f;
    assert_fails(PTQ_BAD_NUMBER, "conv", ptq_fuse(m, &fused, NULL, &err));
    assert_null(fused);
    ptq_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resnet8),
        cmocka_unit_test(random_networks),
        cmocka_unit_test(folding_by_hand),
        cmocka_unit_test(convolution_without_bias_gets_one),
        cmocka_unit_test(activations_of_dense_and_addition),
        cmocka_unit_test(residual_keeps_its_place),
        cmocka_unit_test(activations_on_both_sides_of_an_addition),
        cmocka_unit_test(addition_brings_its_activation),
        cmocka_unit_test(the_later_convolution_takes_the_addition),
        cmocka_unit_test(residual_is_the_convolution_input),
        cmocka_unit_test(residual_is_needed_again),
        cmocka_unit_test(batch_norm_after_relu_becomes_a_convolution),
        cmocka_unit_test(batch_norm_folds_into_layers),
        cmocka_unit_test(convolution_read_twice),
        cmocka_unit_test(convolution_read_by_two_additions_stays),
        cmocka_unit_test(relu_of_a_tensor_read_twice_stays),
        cmocka_unit_test(addition_of_pools_stays),
        cmocka_unit_test(addition_to_itself_stays),
        cmocka_unit_test(second_activation_stays),
        cmocka_unit_test(folding_that_overflows_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
