/* Graphs: builder, shapes, the validator, costs, the text form. */
#include "test.h"

#include <locale.h>

/* A convolution of the given kernel and stride behind an input; returns its shape's H, W. */
static void conv_shape(int h, int w, ptq_conv_options o, int *shape, int *pad) {
    ptq_model *m = NULL;
    int input, conv;

    assert_ok(ptq_model_create(NULL, &m, &err));
    input = ptq_add_input(m, "input", h, w, 4);
    conv = ptq_add_conv2d(m, "conv", input, &o);
    assert_ok(ptq_model_check(m, &err));
    assert_int_equal(conv, 1);
    memcpy(shape, m->node[conv].shape, 3 * sizeof *shape);
    memcpy(pad, m->node[conv].pad, 4 * sizeof *pad);
    ptq_model_free(m);
}

static void assert_ints(const int *got, int a, int b, int c, int d) {
    assert_int_equal(got[0], a);
    assert_int_equal(got[1], b);
    assert_int_equal(got[2], c);
    if (d >= 0)
        assert_int_equal(got[3], d);
}

static void shapes_of_convolutions(void **state) {
    ptq_conv_options o;
    int shape[3], pad[4];

    (void)state;
    memset(&o, 0, sizeof o);
    o.channels = 6;
    o.kernel_h = 3;
    conv_shape(32, 32, o, shape, pad);
    assert_ints(shape, 32, 32, 6, -1);
    assert_ints(pad, 1, 1, 1, 1);

    o.stride_h = 2; /* even: bottom and right only; odd: all sides */
    conv_shape(32, 33, o, shape, pad);
    assert_ints(shape, 16, 17, 6, -1);
    assert_ints(pad, 0, 1, 1, 1);

    o.kernel_h = 1; /* nothing is missing, and nothing negative comes out */
    conv_shape(32, 33, o, shape, pad);
    assert_ints(shape, 16, 17, 6, -1);
    assert_ints(pad, 0, 0, 0, 0);

    o.kernel_h = 4; /* an even kernel: the odd one behind */
    o.kernel_w = 5;
    o.stride_h = 1;
    o.stride_w = 3;
    conv_shape(7, 7, o, shape, pad);
    assert_ints(shape, 7, 3, 6, -1);
    assert_ints(pad, 1, 2, 2, 2);

    o.padding = PTQ_PADDING_VALID;
    conv_shape(7, 12, o, shape, pad);
    assert_ints(shape, 4, 3, 6, -1);
    assert_ints(pad, 0, 0, 0, 0);

    o.padding = PTQ_PADDING_EXPLICIT;
    o.pad[0] = 1, o.pad[1] = 2, o.pad[2] = 0, o.pad[3] = 3;
    conv_shape(7, 12, o, shape, pad);
    assert_ints(shape, 5, 5, 6, -1); /* (7 + 1 - 4) / 1 + 1, (12 + 5 - 5) / 3 + 1 */
    assert_ints(pad, 1, 2, 0, 3);
}

static void shapes_of_groups(void **state) {
    ptq_conv_options o;
    ptq_model *m = NULL;
    const ptq_tensor *w;
    int x;

    (void)state;
    memset(&o, 0, sizeof o);
    o.kernel_h = 3;
    o.channels = 12;
    o.groups = 6; /* depthwise, two outputs per channel */
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 5, 5, 6);
    x = ptq_add_conv2d(m, "depthwise", x, &o);
    o.groups = 3;
    o.no_bias = 1;
    o.kernel_w = 1;
    ptq_add_conv2d(m, "grouped", x, &o);
    assert_ok(ptq_model_check(m, &err));
    w = ptq_model_param(m, "depthwise.weight");
    assert_non_null(w);
    assert_int_equal(w->type, PTQ_TYPE_F32);
    assert_int_equal(w->rank, 4);
    assert_ints(w->dim, 12, 1, 3, 3);
    assert_int_equal(ptq_model_param(m, "depthwise.bias")->dim[0], 12);
    assert_ints(ptq_model_param(m, "grouped.weight")->dim, 12, 4, 3, 1);
    assert_null(ptq_model_param(m, "grouped.bias"));
    assert_null(ptq_model_param(m, "depthwise.running_mean"));
    assert_null(ptq_model_param(m, "nobody.weight"));
    assert_null(ptq_model_param(m, "weight"));
    ptq_model_free(m);
}

static void shapes_of_other_nodes(void **state) {
    ptq_pool_options pool;
    ptq_model *m = NULL;
    int x;

    (void)state;
    memset(&pool, 0, sizeof pool);
    pool.kernel_h = 3;
    pool.kernel_w = 2; /* the stride is that of the kernel */
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 8, 9, 5);
    x = ptq_add_pool(m, PTQ_OP_MAX_POOL, "max", x, &pool);
    assert_ints(m->node[x].shape, 3, 5, 5, -1);
    pool.padding = PTQ_PADDING_VALID;
    pool.stride_h = 1;
    x = ptq_add_pool(m, PTQ_OP_AVG_POOL, "avg", x, &pool);
    assert_ints(m->node[x].shape, 1, 4, 5, -1);
    x = ptq_add_batch_norm(m, "bn", x, 0.5f);
    assert_ints(m->node[x].shape, 1, 4, 5, -1);
    assert_near(((float *)ptq_model_param(m, "bn.weight")->data)[4], 1, 0);
    assert_near(((float *)ptq_model_param(m, "bn.running_var")->data)[4], 1, 0);
    assert_near(((float *)ptq_model_param(m, "bn.bias")->data)[4], 0, 0);
    x = ptq_add_add(m, "add", x, ptq_add_op(m, PTQ_OP_RELU6, "relu6", x));
    assert_ints(m->node[x].shape, 1, 4, 5, -1);
    x = ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "gap", x);
    assert_ints(m->node[x].shape, 1, 1, 5, -1);
    x = ptq_add_dense(m, "fc", x, 7);
    assert_ints(m->node[x].shape, 1, 1, 7, -1);
    assert_int_equal(ptq_model_param(m, "fc.weight")->rank, 2);
    assert_int_equal(ptq_model_param(m, "fc.weight")->dim[0], 7);
    assert_int_equal(ptq_model_param(m, "fc.weight")->dim[1], 5);
    assert_int_equal(ptq_model_logits(m), x);
    x = ptq_add_op(m, PTQ_OP_SOFTMAX, "softmax", x);
    assert_int_equal(ptq_model_logits(m), x - 1);
    assert_int_equal(ptq_model_find(m, "fc"), x - 1);
    assert_int_equal(ptq_model_find(m, "f"), -1);
    assert_ok(ptq_model_check(m, &err));
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   What the builder refuses */

typedef struct builder {
    ptq_model *m;
    int x; /* an 8 x 8 x 4 input */
    ptq_conv_options conv;
    ptq_pool_options pool;
} builder;

static void bad_channels(builder *b) {
    b->conv.channels = 0;
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void bad_kernel(builder *b) {
    b->conv.kernel_h = 0;
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void large_kernel(builder *b) {
    b->conv.kernel_w = PTQ_MAX_KERNEL + 1;
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void bad_stride(builder *b) {
    b->conv.stride_w = -1;
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void bad_groups(builder *b) {
    b->conv.groups = 3; /* does not divide 4 */
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void bad_group_outputs(builder *b) {
    b->conv.groups = 4; /* does not divide 6 */
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void negative_pad(builder *b) {
    b->conv.padding = PTQ_PADDING_EXPLICIT;
    b->conv.pad[2] = -1;
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void bad_padding(builder *b) {
    b->conv.padding = (ptq_padding)17;
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void kernel_over_image(builder *b) {
    b->conv.kernel_h = 9;
    b->conv.padding = PTQ_PADDING_VALID;
    ptq_add_conv2d(b->m, "culprit", b->x, &b->conv);
}
static void pool_over_image(builder *b) {
    b->pool.kernel_w = 9;
    b->pool.padding = PTQ_PADDING_VALID;
    ptq_add_pool(b->m, PTQ_OP_MAX_POOL, "culprit", b->x, &b->pool);
}
static void window_in_padding(builder *b) {
    b->pool.padding = PTQ_PADDING_EXPLICIT; /* a window without a single pixel has no maximum */
    b->pool.pad[0] = b->pool.kernel_h;
    ptq_add_pool(b->m, PTQ_OP_MAX_POOL, "culprit", b->x, &b->pool);
}
static void unlike_operands(builder *b) {
    int y = ptq_add_conv2d(b->m, "six", b->x, &b->conv);
    ptq_add_add(b->m, "culprit", b->x, y);
}
static void missing_operand(builder *b) { ptq_add_add(b->m, "culprit", b->x, 77); }
static void input_ahead(builder *b) { ptq_add_op(b->m, PTQ_OP_RELU, "culprit", 1); /* itself */ }
static void input_negative(builder *b) { ptq_add_op(b->m, PTQ_OP_RELU, "culprit", -2); }
static void second_input(builder *b) { ptq_add_input(b->m, "culprit", 8, 8, 4); }
static void no_classes(builder *b) { ptq_add_dense(b->m, "culprit", b->x, 0); }
static void huge_dense(builder *b) {
    ptq_add_dense(b->m, "culprit", ptq_add_op(b->m, PTQ_OP_GLOBAL_AVG_POOL, "gap", b->x),
                  INT32_MAX);
}
static void same_name(builder *b) {
    ptq_add_op(b->m, PTQ_OP_RELU, "culprit", b->x);
    ptq_add_op(b->m, PTQ_OP_RELU, "culprit", 1);
}
static void odd_name(builder *b) { ptq_add_op(b->m, PTQ_OP_RELU, "culprit name", b->x); }
static void name_with_a_newline(builder *b) { ptq_add_op(b->m, PTQ_OP_RELU, "cul\nprit", b->x); }
static void below_softmax(builder *b) {
    int x = ptq_add_op(b->m, PTQ_OP_GLOBAL_AVG_POOL, "gap", b->x);
    x = ptq_add_op(b->m, PTQ_OP_SOFTMAX, "softmax", x);
    ptq_add_op(b->m, PTQ_OP_RELU, "culprit", x);
}
static void op_with_parameters(builder *b) { ptq_add_op(b->m, PTQ_OP_CONV2D, "culprit", b->x); }
static void op_of_no_kind(builder *b) { ptq_add_op(b->m, (ptq_op)99, "culprit", b->x); }
static void pool_that_is_none(builder *b) {
    ptq_add_pool(b->m, PTQ_OP_RELU, "culprit", b->x, &b->pool);
}
static void softmax_of_an_image(builder *b) { ptq_add_op(b->m, PTQ_OP_SOFTMAX, "culprit", b->x); }
static void empty_name(builder *b) { ptq_add_op(b->m, PTQ_OP_RELU, "", b->x); }
static void long_name(builder *b) {
    char name[PTQ_NAME_SIZE + 1];

    memset(name, 'a', sizeof name);
    name[PTQ_NAME_SIZE] = 0; /* one too many */
    ptq_add_op(b->m, PTQ_OP_RELU, name, b->x);
}

static void builder_remembers_the_first_failure(void **state) {
    static const struct {
        void (*build)(builder *b);
        const char *says;
    } bad[] = {
        {bad_channels, "culprit"},      {bad_kernel, "culprit"},
        {large_kernel, "culprit"},      {bad_stride, "culprit"},
        {bad_groups, "culprit"},        {bad_group_outputs, "culprit"},
        {negative_pad, "culprit"},      {bad_padding, "culprit"},
        {kernel_over_image, "culprit"}, {pool_over_image, "culprit"},
        {unlike_operands, "culprit"},   {missing_operand, "culprit"},
        {input_ahead, "culprit"},       {input_negative, "culprit"},
        {second_input, "culprit"},      {no_classes, "culprit"},
        {huge_dense, "culprit"},        {same_name, "culprit"},
        {odd_name, "culprit name"},     {window_in_padding, "culprit"},
        {empty_name, "name"},           {long_name, "aaaaaaaa"},
        {below_softmax, "culprit"},     {softmax_of_an_image, "culprit"},
        {name_with_a_newline, "name"},  {op_with_parameters, "culprit"},
        {op_of_no_kind, "culprit"},     {pool_that_is_none, "culprit"},
    };
    int i, wrong = 0;

    (void)state;
    for (i = 0; i < COUNT(bad); i++) {
        builder b;
        test_heap heap;
        ptq_allocator allocator = test_heap_start(&heap);
        int nodes;

        memset(&b, 0, sizeof b);
        b.conv.channels = 6;
        b.conv.kernel_h = b.pool.kernel_h = 3;
        assert_ok(ptq_model_create(&allocator, &b.m, &err));
        b.x = ptq_add_input(b.m, "input", 8, 8, 4);
        bad[i].build(&b);
        nodes = b.m->nodes;
        err.text[0] = 0;
        if (b.m->error.status == PTQ_OK || ptq_model_check(b.m, &err) == PTQ_OK ||
            !strstr(err.text, bad[i].says) || strchr(err.text, '\n')) {
            print_error("case %d (%s) says: \"%s\"\n", i, bad[i].says, err.text);
            wrong++;
        } else { /* later calls do nothing */
            assert_int_equal(ptq_add_op(b.m, PTQ_OP_RELU, "later", b.x), -1);
            assert_int_equal(ptq_add_dense(b.m, "later", -1, 0), -1);
            assert_int_equal(b.m->nodes, nodes);
        }
        ptq_model_free(b.m);
        assert_int_equal(heap.live, 0);
    }
    assert_int_equal(wrong, 0);
}

static void unfinished_models_are_refused(void **state) {
    ptq_model *m = NULL;

    (void)state;
    assert_ok(ptq_model_create(NULL, &m, &err));
    assert_fails(PTQ_BAD_GRAPH, "", ptq_model_check(m, &err)); /* no nodes at all */
    assert_int_equal(ptq_add_op(m, PTQ_OP_RELU, "early", 0), -1);
    assert_fails(PTQ_BAD_GRAPH, "early", ptq_model_check(m, &err));
    ptq_model_free(m);
    assert_fails(PTQ_INVALID_ARGUMENT, "", ptq_resnet8(3, 16, 10, NULL, &m, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "", ptq_resnet8(32, 0, 10, NULL, &m, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "", ptq_resnet8(32, 16, 1, NULL, &m, &err));
    assert_int_not_equal(ptq_resnet8(INT32_MAX, INT32_MAX, INT32_MAX, NULL, &m, &err), PTQ_OK);
}

/* Damage done behind the builder's back, as a bug in a pass would do it. */
static void weight_of_another_shape(ptq_node *n) { n->param[PTQ_PARAM_WEIGHT].dim[1]++; }
static void weight_of_another_type(ptq_node *n) { n->param[PTQ_PARAM_WEIGHT].type = PTQ_TYPE_S32; }
static void weight_that_is_nan(ptq_node *n) { ((float *)n->param[PTQ_PARAM_WEIGHT].data)[5] = NAN; }
static void variance_that_is_infinite(ptq_node *n) {
    ((float *)n->param[PTQ_PARAM_VARIANCE].data)[1] = HUGE_VALF;
}
static void mean_that_is_missing(ptq_node *n) { ptq_tensor_free(&n->param[PTQ_PARAM_MEAN], NULL); }
static void operand_from_later_on(ptq_node *n) { n->input[1] = PTQ_MAX_NODES; }
static void shape_that_does_not_follow(ptq_node *n) { n->shape[2] = 5; }
static void name_of_another_node(ptq_node *n) { strcpy(n->name, "fc"); }
static void operator_that_is_none(ptq_node *n) { n->op = (ptq_op)99; }

static void check_names_the_node(void **state) {
    static const struct {
        const char *node, *says;
        void (*damage)(ptq_node *n);
        ptq_status status;
    } bad[] = {
        {"block2.conv1", "block2.conv1", weight_of_another_shape, PTQ_BAD_GRAPH},
        {"block1.conv1", "block1.conv1", weight_of_another_type, PTQ_BAD_GRAPH},
        {"fc", "fc", weight_that_is_nan, PTQ_BAD_NUMBER},
        {"block3.bn2", "block3.bn2", variance_that_is_infinite, PTQ_BAD_NUMBER},
        {"bn1", "bn1", mean_that_is_missing, PTQ_BAD_GRAPH},
        {"block1.add", "block1.add", operand_from_later_on, PTQ_BAD_GRAPH},
        {"pool", "pool", shape_that_does_not_follow, PTQ_BAD_GRAPH},
        {"softmax", "fc", name_of_another_node, PTQ_BAD_GRAPH},
        {"conv1.relu", "conv1.relu", operator_that_is_none, PTQ_BAD_GRAPH},
    };
    int i;

    (void)state;
    for (i = 0; i < COUNT(bad); i++) {
        ptq_model *m = random_resnet8(8, 4, 3, 1, NULL);

        bad[i].damage(&m->node[ptq_model_find(m, bad[i].node)]);
        assert_fails(bad[i].status, bad[i].says, ptq_model_check(m, &err));
        ptq_model_free(m);
    }
}

/* Numbers under a square root: the sum of variance and epsilon must be positive. */
static void batch_norm_needs_a_positive_variance(void **state) {
    static const struct {
        float epsilon, variance;
    } bad[] = {{-0.001f, 1}, {NAN, 1}, {HUGE_VALF, 1}, {0.001f, -0.001f}, {0, 0}, {0.5f, -2}};
    int i;

    (void)state;
    for (i = 0; i < COUNT(bad); i++) {
        ptq_model *m = NULL;
        assert_ok(ptq_model_create(NULL, &m, &err));
        ptq_add_batch_norm(m, "norm", ptq_add_input(m, "input", 2, 2, 1), bad[i].epsilon);
        if (!m->error.status)
            ((float *)ptq_model_param(m, "norm.running_var")->data)[0] = bad[i].variance;
        err.text[0] = 0;
        assert_int_not_equal(ptq_model_check(m, &err), PTQ_OK);
        assert_non_null(strstr(err.text, "norm"));
        ptq_model_free(m);
    }
}

static void check_finds_unused_nodes(void **state) {
    ptq_model *m = NULL;
    int x;

    (void)state;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 4, 4, 1);
    ptq_add_op(m, PTQ_OP_RELU, "lonely", x);
    ptq_add_op(m, PTQ_OP_RELU6, "result", x);
    assert_fails(PTQ_BAD_GRAPH, "lonely", ptq_model_check(m, &err));
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   ResNet8 and what it costs */

static ptq_cost total_cost(const ptq_model *m) {
    ptq_cost sum = {0, 0, 0, 0};
    int i;

    for (i = 0; i < m->nodes; i++) {
        ptq_cost c = ptq_node_cost(m, i);
        sum.parameters += c.parameters;
        sum.param_bytes += c.param_bytes;
        sum.macs += c.macs;
        sum.output_bytes += c.output_bytes;
    }
    return sum;
}

static void resnet8_costs(void **state) {
    /* output positions x output channels x taps */
    const uint64_t macs = 1024 * 16 * 27 +                                  /* conv1 */
                          2 * 1024 * 16 * 144 +                             /* block 1 */
                          256 * 32 * 144 + 256 * 32 * 288 + 256 * 32 * 16 + /* block 2 */
                          64 * 64 * 288 + 64 * 64 * 576 + 64 * 64 * 32 +    /* block 3 */
                          640;                                              /* dense */
    /* weights, a bias for each convolution, four numbers per channel for each batch norm */
    const uint64_t parameters = 16 * 27 + 2 * 16 * 144 + 32 * (144 + 288 + 16) +
                                64 * (288 + 576 + 32) + 640 +   /* weights */
                                3 * 16 + 3 * 32 + 3 * 64 + 10 + /* biases */
                                4 * (3 * 16 + 2 * 32 + 2 * 64); /* batch norms */
    ptq_model *m = random_resnet8(32, 16, 10, 1, NULL);
    ptq_cost conv1 = ptq_node_cost(m, ptq_model_find(m, "conv1")), all = total_cost(m);

    (void)state;
    assert_true(macs == 12501632);
    assert_true(parameters == 78666); /* 314,664 bytes in the reference file */
    assert_true(all.macs == macs);
    assert_true(all.parameters == parameters);
    assert_true(all.param_bytes == 4 * parameters);
    assert_true(conv1.parameters == 16 * 27 + 16);
    assert_true(conv1.macs == 1024 * 16 * 27);
    assert_true(conv1.output_bytes == 32 * 32 * 16 * 4);
    assert_true(ptq_node_cost(m, ptq_model_find(m, "block1.add")).parameters == 0);
    ptq_model_free(m);
}

static void resnet8_of_other_sizes(void **state) {
    ptq_model *m = random_resnet8(16, 8, 3, 1, NULL);

    (void)state;
    assert_ok(ptq_model_check(m, &err));
    assert_ints(m->node[0].shape, 16, 16, 3, -1);
    assert_ints(m->node[ptq_model_find(m, "block1.add.relu")].shape, 16, 16, 8, -1);
    assert_ints(m->node[ptq_model_find(m, "block2.add.relu")].shape, 8, 8, 16, -1);
    assert_ints(m->node[ptq_model_find(m, "block3.add.relu")].shape, 4, 4, 32, -1);
    assert_ints(m->node[ptq_model_find(m, "pool")].shape, 1, 1, 32, -1);
    assert_ints(m->node[ptq_model_find(m, "softmax")].shape, 1, 1, 3, -1);
    assert_ints(ptq_model_param(m, "block3.conv1.weight")->dim, 32, 16, 3, 3);
    assert_ints(ptq_model_param(m, "block2.shortcut.weight")->dim, 16, 8, 1, 1);
    assert_null(ptq_model_param(m, "block1.shortcut.weight"));
    ptq_model_free(m);
    m = random_resnet8(5, 1, 2, 1, NULL); /* odd: 5, 3, 2 */
    assert_ok(ptq_model_check(m, &err));
    assert_ints(m->node[ptq_model_find(m, "block3.add.relu")].shape, 2, 2, 4, -1);
    ptq_model_free(m);
}

static void copies_are_deep(void **state) {
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_model *m = random_resnet8(8, 4, 3, 1, NULL), *copy = NULL;
    int i, p;

    (void)state;
    assert_ok(ptq_model_set_meta(m, "author", "someone", &err));
    assert_ok(ptq_model_copy(m, &allocator, &copy, &err));
    assert_same_model(m, copy);
    for (i = 0; i < m->nodes; i++)
        for (p = 0; p < PTQ_PARAM_COUNT; p++)
            if (m->node[i].param[p].rank)
                assert_ptr_not_equal(m->node[i].param[p].data, copy->node[i].param[p].data);
    assert_near(copy->std[2], 127.5, 0);
    ptq_model_free(m);
    assert_string_equal(ptq_model_get_meta(copy, "author"), "someone");
    assert_ok(ptq_model_check(copy, &err));
    assert_true(heap.live > 0);
    ptq_model_free(copy);
    assert_int_equal(heap.live, 0);
}

static void metadata(void **state) {
    ptq_model *m = NULL;

    (void)state;
    assert_ok(ptq_model_create(NULL, &m, &err));
    assert_null(ptq_model_get_meta(m, "a"));
    assert_ok(ptq_model_set_meta(m, "a", "1", &err));
    assert_ok(ptq_model_set_meta(m, "b", "2", &err));
    assert_ok(ptq_model_set_meta(m, "a", "", &err)); /* replaced; empty is not missing */
    assert_string_equal(ptq_model_get_meta(m, "a"), "");
    assert_ok(ptq_model_set_meta(m, "a", NULL, &err));
    assert_null(ptq_model_get_meta(m, "a"));
    assert_string_equal(ptq_model_get_meta(m, "b"), "2");
    assert_int_equal(m->metas, 1);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   The text form */

static char *graph_text(const ptq_model *m) {
    size_t n = ptq_graph_write(m, NULL, 0);
    char *text = (char *)malloc(n + 1);

    assert_non_null(text);
    assert_int_equal(ptq_graph_write(m, text, n + 1), n);
    assert_int_equal(strlen(text), n);
    return text;
}

/* One node of every kind, with every attribute away from its default somewhere. */
static ptq_model *motley(void) {
    ptq_model *m = NULL;
    ptq_conv_options c;
    ptq_pool_options p;
    int x, y;

    memset(&c, 0, sizeof c);
    memset(&p, 0, sizeof p);
    assert_ok(ptq_model_create(NULL, &m, &err));
    m->mean[0] = 0.1f;
    m->std[1] = 58.395f;
    x = ptq_add_input(m, "in", 17, 12, 4);
    c.channels = 6, c.kernel_h = 3, c.kernel_w = 5, c.stride_h = 2, c.stride_w = 1, c.groups = 2;
    c.no_bias = 1;
    x = ptq_add_conv2d(m, "a.b_C.9", x, &c);
    c.padding = PTQ_PADDING_EXPLICIT, c.groups = 0, c.no_bias = 0, c.pad[0] = 1, c.pad[3] = 4;
    x = ptq_add_op(m, PTQ_OP_RELU, "relu", ptq_add_conv2d(m, "explicit", x, &c));
    c.padding = PTQ_PADDING_VALID, c.kernel_h = c.kernel_w = c.stride_h = 1;
    x = ptq_add_op(m, PTQ_OP_RELU6, "relu6", ptq_add_conv2d(m, "valid", x, &c));
    p.kernel_h = 2, p.stride_h = 1;
    y = ptq_add_pool(m, PTQ_OP_MAX_POOL, "max", x, &p);
    p.include_pad = 1;
    x = ptq_add_add(m, "add", y, ptq_add_pool(m, PTQ_OP_AVG_POOL, "avg", x, &p));
    x = ptq_add_batch_norm(m, "bn", x, 1.1e-5f);
    x = ptq_add_dense(m, "fc", ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "gap", x), 5);
    ptq_add_op(m, PTQ_OP_SOFTMAX, "softmax", x);
    fill_model(m, 1);
    assert_ok(ptq_model_check(m, &err));
    return m;
}

static void text_of_a_small_graph(void **state) {
    static const char *const wanted = "ptq-graph 1\n"
                                      "input input shape=32x32x3\n"
                                      "conv1 conv2d in=input channels=16 kernel=3x3\n"
                                      "relu relu in=conv1\n";
    ptq_model *m = NULL;
    ptq_conv_options c;
    char *text, shorter[12];

    (void)state;
    memset(&c, 0, sizeof c);
    c.channels = 16;
    c.kernel_h = 3;
    assert_ok(ptq_model_create(NULL, &m, &err));
    ptq_add_op(m, PTQ_OP_RELU, "relu",
               ptq_add_conv2d(m, "conv1", ptq_add_input(m, "input", 32, 32, 3), &c));
    text = graph_text(m);
    assert_string_equal(text, wanted);
    assert_int_equal(ptq_graph_write(m, shorter, sizeof shorter), strlen(wanted));
    assert_string_equal(shorter, "ptq-graph 1");
    free(text);
    ptq_model_free(m);
}

static void assert_text_round_trip(const ptq_model *m) {
    char *text = graph_text(m), *again;
    size_t n = strlen(text);
    char *exact = (char *)malloc(n); /* without a terminating 0 */
    ptq_model *b = NULL;
    int i;

    assert_non_null(exact);
    memcpy(exact, text, n);
    assert_ok(ptq_graph_parse(exact, n, NULL, &b, &err));
    free(exact);
    again = graph_text(b);
    assert_string_equal(text, again);
    assert_int_equal(m->nodes, b->nodes);
    for (i = 0; i < m->nodes; i++) {
        const ptq_node *x = &m->node[i], *y = &b->node[i];
        assert_string_equal(x->out, y->out);
        assert_memory_equal(x->input, y->input, sizeof x->input);
        assert_memory_equal(x->shape, y->shape, sizeof x->shape);
        assert_memory_equal(x->pad, y->pad, sizeof x->pad);
        assert_memory_equal(x->stride, y->stride, sizeof x->stride);
        assert_int_equal(x->padding, y->padding);
        assert_true(x->epsilon == y->epsilon);
        assert_int_equal(x->residual, y->residual);
        assert_int_equal(x->param[PTQ_PARAM_BIAS].rank, y->param[PTQ_PARAM_BIAS].rank);
    }
    assert_memory_equal(m->mean, b->mean, sizeof m->mean);
    assert_memory_equal(m->std, b->std, sizeof m->std);
    free(text);
    free(again);
    ptq_model_free(b);
}

static void text_round_trips(void **state) {
    ptq_model *m = motley(), *fused = NULL;

    (void)state;
    assert_text_round_trip(m);
    ptq_model_free(m);
    m = random_resnet8(32, 16, 10, 1, NULL);
    assert_text_round_trip(m);
    assert_ok(ptq_fuse(m, &fused, NULL, &err));
    assert_text_round_trip(fused);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* Any positive float: mean and std are written in decimal and must come back to the last bit. */
static void numbers_survive_the_text(void **state) {
    test_random random = {17};
    int round, i;

    (void)state;
    for (round = 0; round < 500; round++) {
        ptq_model *m = NULL;
        assert_ok(ptq_model_create(NULL, &m, &err));
        ptq_add_op(m, PTQ_OP_RELU, "relu", ptq_add_input(m, "input", 1, 1, PTQ_MAX_PIXEL_CHANNELS));
        for (i = 0; i < PTQ_MAX_PIXEL_CHANNELS; i++) {
            uint32_t bits = (uint32_t)random_bits(&random) % 0x7F800000u;
            memcpy(&m->std[i], &bits, sizeof bits);
            bits = (uint32_t)random_bits(&random) % 0x7F800000u;
            memcpy(&m->mean[i], &bits, sizeof bits);
            m->std[i] = m->std[i] > 0 ? m->std[i] : 1;
            m->mean[i] = i % 2 ? -m->mean[i] : m->mean[i];
        }
        m->std[0] = 1e-45f; /* the smallest, and the largest */
        m->mean[0] = 3.40282347e38f;
        assert_text_round_trip(m);
        ptq_model_free(m);
    }
}

#define HEAD "ptq-graph 1\ninput input shape=8x8x4\n"

static void hostile_text(void **state) {
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "ptq-graph 1"},
        {"\n", "ptq-graph 1"},
        {"input input shape=8x8x4\nr relu in=input\n", "ptq-graph 1"},
        {"ptq-graph 2\ninput input shape=8x8x4\nr relu in=input\n", "ptq-graph 2"},
        {"ptq-graph 1 \ninput input shape=8x8x4\nr relu in=input\n", "ptq-graph 1"},
        {"ptq-graph 1", ""},
        {HEAD, ""},
        {"ptq-graph 1\nr relu in=input\ninput input shape=8x8x4\n", "line 2"},
        {HEAD "r", "line 3"},
        {HEAD "r magic in=input\n", "magic"},
        {HEAD "r RELU in=input\n", "line 3"},
        {HEAD "r relu in=input\ns relu in=t\n", "line 4"},
        {HEAD "r relu in=s\ns relu in=input\n", "line 3"}, /* a forward reference */
        {HEAD "r relu in=r\n", "line 3"},
        {HEAD "r relu\n", "line 3"},
        {HEAD "r relu in=\n", "line 3"},
        {HEAD "r relu in=input,input\n", "line 3"},
        {HEAD "a add in=input\n", "line 3"},
        {HEAD "a add in=input,input,input\n", "line 3"},
        {HEAD "r relu in=input in=input\n", "line 3"},
        {HEAD "r relu in=input color=red\n", "color"},
        {HEAD "r relu in=input kernel=3x3\n", "kernel"},
        {HEAD "r relu in=input =3\n", "line 3"},
        {HEAD "r relu in\n", "line 3"},
        {HEAD "r  relu in=input\n", "line 3"},
        {HEAD "r\trelu\tin=input\n", "line 3"},
        {HEAD "r relu in=input\r\n", "line 3"},
        {HEAD "r! relu in=input\n", "line 3"},
        {HEAD "input relu in=input\n", "line 3"}, /* the name is taken */
        {HEAD "j input shape=8x8x4\n", "line 3"},
        {HEAD "a1234567890123456789012345678901234567890123456789012345678901234 relu in=input\n",
         "line 3"},
        {"ptq-graph 1\ninput input\nr relu in=input\n", "line 2"},
        {"ptq-graph 1\ninput input shape=8x8\nr relu in=input\n", "line 2"},
        {"ptq-graph 1\ninput input shape=8x8x4x2\nr relu in=input\n", "line 2"},
        {"ptq-graph 1\ninput input shape=8x0x4\nr relu in=input\n", "line 2"},
        {"ptq-graph 1\ninput input shape=8x-8x4\nr relu in=input\n", "line 2"},
        {"ptq-graph 1\ninput input shape=65536x65536x1\nr relu in=input\n", "line 2"},
        {"ptq-graph 1\ninput input shape=99999999999999999999x1x1\nr relu in=input\n", "line 2"},
        {"ptq-graph 1\ninput input shape=8x8x3 mean=1,2 std=1,1,1\nr relu in=input\n", "mean"},
        {"ptq-graph 1\ninput input shape=8x8x3 mean=1,2,3,4\nr relu in=input\n", "mean"},
        {"ptq-graph 1\ninput input shape=8x8x3 mean=1,nan,3\nr relu in=input\n", "mean"},
        {"ptq-graph 1\ninput input shape=8x8x3 std=1,0,1\nr relu in=input\n", "std"},
        {"ptq-graph 1\ninput input shape=8x8x3 std=1,1e39,1\nr relu in=input\n", "std"},
        {HEAD "c conv2d in=input kernel=3x3\n", "line 3"}, /* channels, kernel left out */
        {HEAD "c conv2d in=input channels=0 kernel=3x3\n", "channels"},
        {HEAD "c conv2d in=input channels=4 kernel=3\n", "kernel"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3x3\n", "kernel"},
        {HEAD "c conv2d in=input channels=4 kernel=0x3\n", "kernel"},
        {HEAD "c conv2d in=input channels=4 kernel=256x3\n", "kernel"},
        {HEAD "c conv2d in=input channels=4 kernel=3x\n", "kernel"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 stride=0x1\n", "stride"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 groups=3\n", "groups"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 pad=1,1,1\n", "pad"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 pad=1,1,1,256\n", "line 3"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 pad=-1,1,1,1\n", "pad"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 pad=often\n", "pad"},
        {HEAD "c conv2d in=input channels=4 kernel=9x9 pad=valid\n", "line 3"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 bias=2\n", "bias"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 act=tanh\n", "act"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 add=first\n", "line 3"},
        {HEAD "c conv2d in=input,input channels=4 kernel=3x3\n", "line 3"},
        {HEAD "c conv2d in=input,input channels=5 kernel=3x3 add=first\n", "line 3"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 add_act=relu\n", "c"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 out=input\n", "line 3"},
        {HEAD "c conv2d in=input channels=268435457 kernel=3x3\n", "channels"},
        {HEAD "c conv2d in=input channels=268435456 kernel=3x3\n", "line 3"},
        {HEAD "f dense in=input channels=8000000\n", "line 3"}, /* 2 G weights */
        {HEAD "b batch_norm in=input epsilon=\n", "epsilon"},
        {HEAD "b batch_norm in=input epsilon=0,001\n", "epsilon"},
        {HEAD "b batch_norm in=input epsilon=1e\n", "epsilon"},
        {HEAD "b batch_norm in=input epsilon=0x1p-3\n", "epsilon"},
        {HEAD "b batch_norm in=input epsilon=-0.1\n", "epsilon"},
        {HEAD "p avg_pool in=input kernel=2x2 include_pad=yes\n", "include_pad"},
        {HEAD "p max_pool in=input kernel=2x2 include_pad=1\n", "include_pad"},
        {HEAD "a add in=input,input act=relu7\n", "act"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 dilation=0x1\n", "dilation"},
        {HEAD "c conv2d in=input channels=4 kernel=3x3 dilation=128x1\n", "dilation"},
        {HEAD "p max_pool in=input kernel=2x2 dilation=2x2\n", "dilation"},
        {HEAD "p max_pool in=input kernel=2x2 pad=0,0,0,2\n", "less than the kernel"},
        {HEAD "p max_pool in=input kernel=2x2 ceil_mode=1\n", "ceil_mode"},
        {HEAD "p relu in=input\ns max_pool in=p kernel=2x2 stride=2x2\nc concat in=p,s\n", "joins"},
        {HEAD "c concat in=input\n", "needs 2 inputs"},
        {HEAD "s softmax in=input\n", "line 3"},
        {HEAD "lonely relu in=input\nr relu in=input\n", "lonely"},
    };
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    int i, wrong = 0;

    (void)state;
    for (i = 0; i < COUNT(bad); i++) {
        size_t n = strlen(bad[i].text);
        char *exact = (char *)malloc(n ? n : 1); /* of the text's own size, for the sanitizers */
        ptq_model *m = NULL;
        ptq_status status;

        assert_non_null(exact);
        memcpy(exact, bad[i].text, n);
        err.text[0] = 0;
        status = ptq_graph_parse(exact, n, &allocator, &m, &err);
        if (status == PTQ_OK || !strstr(err.text, bad[i].says) || strchr(err.text, '\n')) {
            print_error("%s\ngives %s: \"%s\"; wanted \"%s\"\n", bad[i].text,
                        ptq_name(PTQ_NAMES_STATUS, status), err.text, bad[i].says);
            wrong++;
        }
        ptq_model_free(m);
        assert_int_equal(heap.live, 0);
        free(exact);
    }
    assert_int_equal(wrong, 0);
}

static void text_with_zero_bytes(void **state) {
    char text[] = HEAD "r relu in=input\n";
    size_t i, n = sizeof text - 1;
    ptq_model *m = NULL;

    (void)state;
    for (i = 0; i < n - 1; i++) { /* the last byte is a newline that may be missing */
        char c = text[i];
        text[i] = 0;
        assert_int_not_equal(ptq_graph_parse(text, n, NULL, &m, &err), PTQ_OK);
        text[i] = c;
    }
    assert_ok(ptq_graph_parse(text, n - 1, NULL, &m, &err));
    ptq_model_free(m);
}

/* The limit of nodes holds, and is reached in good time. */
static void very_many_nodes(void **state) {
    ptq_model *m = NULL;
    int i, x;

    (void)state;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 1, 1, 1);
    for (i = 1; i < PTQ_MAX_NODES; i++) {
        char name[PTQ_NAME_SIZE];
        snprintf(name, sizeof name, "%d", i);
        x = ptq_add_op(m, PTQ_OP_RELU, name, x);
    }
    assert_ok(ptq_model_check(m, &err));
    assert_int_equal(ptq_add_op(m, PTQ_OP_RELU, "one.more", x), -1);
    assert_fails(PTQ_BAD_GRAPH, "one.more", ptq_model_check(m, &err));
    ptq_model_free(m);
}

/* A locale with a decimal comma, if the system has one. */
static const char *comma_locale(void) {
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "de_DE",
                                        "fr_FR.UTF-8", "fr_FR.utf8", "fr_FR"};
    int i;

    for (i = 0; i < COUNT(names); i++)
        if (setlocale(LC_ALL, names[i]) && localeconv()->decimal_point[0] == ',')
            return names[i];
    setlocale(LC_ALL, "C");
    return NULL;
}

static void text_is_independent_of_the_locale(void **state) {
    ptq_model *m;
    char *text, *again;

    (void)state;
    m = motley();
    text = graph_text(m);
    if (!comma_locale()) {
        free(text);
        ptq_model_free(m);
        print_message("no locale with a decimal comma: skipped\n");
        skip();
    }
    again = graph_text(m);
    assert_string_equal(text, again);
    assert_text_round_trip(m);
    setlocale(LC_ALL, "C");
    free(again);
    free(text);
    ptq_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_of_convolutions),
        cmocka_unit_test(shapes_of_groups),
        cmocka_unit_test(shapes_of_other_nodes),
        cmocka_unit_test(builder_remembers_the_first_failure),
        cmocka_unit_test(unfinished_models_are_refused),
        cmocka_unit_test(check_names_the_node),
        cmocka_unit_test(batch_norm_needs_a_positive_variance),
        cmocka_unit_test(check_finds_unused_nodes),
        cmocka_unit_test(resnet8_costs),
        cmocka_unit_test(resnet8_of_other_sizes),
        cmocka_unit_test(copies_are_deep),
        cmocka_unit_test(metadata),
        cmocka_unit_test(text_of_a_small_graph),
        cmocka_unit_test(text_round_trips),
        cmocka_unit_test(numbers_survive_the_text),
        cmocka_unit_test(hostile_text),
        cmocka_unit_test(text_with_zero_bytes),
        cmocka_unit_test(very_many_nodes),
        cmocka_unit_test(text_is_independent_of_the_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
