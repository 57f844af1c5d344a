/* ONNX in both directions: round trips keep every code, and hostile files end in one line of error.
   PTQ_MUTATIONS=10000 in the environment makes so many mutations of each
   of three files, not the ordinary 100.

   The tool's header comes first: cmocka makes `fail` a macro. */
#include "onnx/onnx.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "quantized.h"

enum { SIDE = 8, WIDTH = 2, CLASSES = 3, PICTURES = 24 };

/* ---- Round trips ---- */

static ptq_model *round_trip(const ptq_model *model, const char *form) {
    char from[512], onnx[512];
    ptq_model *back = NULL;

    snprintf(from, sizeof from, "%s", in_directory("model.safetensors"));
    snprintf(onnx, sizeof onnx, "%s", in_directory("model.onnx"));
    assert_ok(ptq_model_save(model, from, &err));
    assert_int_equal(export_onnx(from, onnx, form), 0);
    assert_int_equal(import_onnx(onnx, &back), 0);
    return back;
}

static void expect_same_logits(const ptq_model *a, const ptq_model *b) {
    int n = b->node[ptq_model_logits(b)].shape[2];
    pictures p = pictures_for(a, 4, 77);
    test_run x = open_run(a, 0), y = open_run(b, 0);
    size_t pixels = (size_t)p.h * (size_t)p.w * (size_t)p.c;
    uint8_t *picture = malloc(pixels);
    float *one = malloc((size_t)n * sizeof *one), *two = malloc((size_t)n * sizeof *two);
    int label;

    for (size_t i = 0; i < p.count; i++) {
        assert_ok(get_picture(&p, i, picture, &label, &err));
        assert_ok(ptq_run(x.session, picture, 1, one, NULL, &err));
        assert_ok(ptq_run(y.session, picture, 1, two, NULL, &err));
        assert_memory_equal(one, two, (size_t)n * sizeof *one);
    }
    free(picture);
    free(one);
    free(two);
    close_run(&x);
    close_run(&y);
}

static void expect_same_params(const ptq_node *a, const ptq_node *b) {
    for (int p = 0; p < PTQ_PARAM_COUNT; p++) {
        const ptq_tensor *x = &a->param[p], *y = &b->param[p];

        assert_int_equal(x->rank, y->rank);
        assert_memory_equal(x->dim, y->dim, sizeof x->dim);
        for (size_t i = 0; i < ptq_tensor_elements(x); i++)
            if (ptq_tensor_number(x, i) < ptq_tensor_number(y, i) ||
                ptq_tensor_number(x, i) > ptq_tensor_number(y, i))
                fail_msg("%s: parameter %d differs at %d", a->name, p, (int)i);
        assert_int_equal(x->scales, y->scales);
        assert_int_equal(x->zero_point, y->zero_point);
        if (x->scales)
            assert_memory_equal(x->scale, y->scale, (size_t)x->scales * sizeof(float));
    }
}

/* Node by node; weights of fewer than 8 bits come back in bytes, with the same codes. */
static void expect_same_nodes(const ptq_model *a, const ptq_model *b) {
    assert_int_equal(a->nodes, b->nodes);
    for (int i = 0; i < a->nodes; i++) {
        const ptq_node *x = &a->node[i], *y = &b->node[i];

        assert_string_equal(x->name, y->name);
        assert_int_equal(x->op, y->op);
        assert_memory_equal(x->input, y->input, sizeof x->input);
        assert_memory_equal(x->shape, y->shape, sizeof x->shape);
        assert_memory_equal(x->pad, y->pad, sizeof x->pad);
        assert_int_equal(x->residual, y->residual);
        assert_memory_equal(&x->q, &y->q, sizeof x->q);
        assert_memory_equal(&x->mid, &y->mid, sizeof x->mid);
        expect_same_params(x, y);
    }
}

static void expect_same_graph(const ptq_model *a, const ptq_model *b) {
    static char one[65536], two[65536];

    assert_true(ptq_graph_write(a, one, sizeof one) < sizeof one);
    assert_true(ptq_graph_write(b, two, sizeof two) < sizeof two);
    assert_string_equal(one, two);
}

static void test_float_round_trip(void **state) {
    ptq_model *model = random_resnet8(SIDE, WIDTH, CLASSES, 1, NULL), *back, *fused, *again;

    (void)state;
    model->mean[0] = 1.5f;
    model->std[1] = 63;
    assert_ok(ptq_model_set_meta(model, "source", "a test", &err));
    back = round_trip(model, NULL);
    expect_same_graph(model, back);
    expect_same_nodes(model, back);
    expect_same_logits(model, back);
    assert_string_equal(ptq_model_get_meta(back, "source"), "a test");
    ptq_model_free(back);
    fused = fused_of(model);
    back = round_trip(fused, NULL);
    again = fused_of(back);
    expect_same_graph(fused, again);
    expect_same_nodes(fused, again);
    ptq_model_free(fused);
    ptq_model_free(again);
}

/* A network with what ResNet8 lacks: groups, pools, explicit padding, ReLU6, an addition of its own
   and a dense layer over more than one pixel. */
static ptq_model *varied_model(void) {
    ptq_model *model =
        model_of_text("ptq-graph 1\n"
                      "image input shape=9x8x3 mean=10,20,30 std=50,60,70\n"
                      "first conv2d in=image channels=4 kernel=3x5 stride=2x1 pad=2,1,0,3\n"
                      "first.act relu6 in=first\n"
                      "depth conv2d in=first.act channels=8 kernel=3x3 groups=4 bias=0\n"
                      "most max_pool in=depth kernel=3x3 stride=2x2\n"
                      "most.act relu in=most\n"
                      "mean avg_pool in=most.act kernel=2x2 stride=1x1 pad=1,0,0,1 include_pad=1\n"
                      "other avg_pool in=most.act kernel=2x2 stride=1x1 pad=1,0,0,1\n"
                      "sum add in=mean,other\n"
                      "wide dense in=sum channels=5\n"
                      "wide.act relu in=wide\n"
                      "last dense in=wide.act channels=3\n"
                      "probability softmax in=last\n");

    fill_model(model, 9);
    return model;
}

/* Chains of concats, of which one has a reader inside; windows that are dilated, padded by more than
   they cover, or not whole. */
static ptq_model *branched_model(void) {
    ptq_model *model =
        model_of_text("ptq-graph 1\n"
                      "image input shape=9x8x3 mean=10,20,30 std=50,60,70\n"
                      "a conv2d in=image channels=4 kernel=3x3 dilation=2x1 pad=2,1,2,1\n"
                      "b conv2d in=image channels=3 kernel=1x1\n"
                      "c conv2d in=image channels=2 kernel=3x2 pad=1,1,1,0\n"
                      "ab.link concat in=a,b\n"
                      "abc concat in=ab.link,c\n"
                      "abca.link concat in=abc,a\n"
                      "abca concat in=abca.link,c\n"
                      "most max_pool in=abc kernel=3x3 stride=2x2 pad=valid ceil_mode=1\n"
                      "mean avg_pool in=abca kernel=3x3 stride=2x2 pad=0,0,0,1 include_pad=1 "
                      "ceil_mode=1\n"
                      "both concat in=most,mean\n"
                      "far conv2d in=both channels=5 kernel=1x1 pad=2,3,1,0\n"
                      "top global_max_pool in=far\n"
                      "last dense in=top channels=3\n"
                      "probability log_softmax in=last\n");

    fill_model(model, 10);
    return model;
}

static void test_branches_float(void **state) {
    ptq_model *model = branched_model(), *back = round_trip(model, NULL);

    (void)state;
    expect_same_logits(model, back);
    ptq_model_free(model);
    ptq_model_free(back);
}

static void test_varied_float(void **state) {
    ptq_model *model = varied_model(), *back = round_trip(model, NULL);

    (void)state;
    expect_same_graph(model, back);
    expect_same_nodes(model, back);
    expect_same_logits(model, back);
    ptq_model_free(model);
    ptq_model_free(back);
}

static ptq_model *quantized_but(ptq_model *model, ptq_scheme scheme, const ptq_override *one) {
    ptq_model *fused = fused_of(model), *made;
    pictures p = pictures_for(fused, PICTURES, 5);
    ptq_dataset data = *pictures_dataset(&p);
    ptq_calibration *calibration = calibrated_on(fused, &data);
    ptq_convert_options options = with_scheme(scheme, &data);

    options.override = one;
    options.overrides = one != NULL;
    made = converted(fused, calibration, &options);
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
    return made;
}

static ptq_model *quantized(ptq_model *model, ptq_scheme scheme) {
    return quantized_but(model, scheme, NULL);
}

/* QDQ form keeps the graph as well. In QOperator form a ReLU whose zero point is the lowest code is
   no more than the saturation, and does not come back. */
static void check_quantized(ptq_model *model, int same_bits) {
    ptq_model *qdq = round_trip(model, "qdq"), *qoperator = round_trip(model, "qoperator");

    if (same_bits)
        expect_same_graph(model, qdq);
    expect_same_nodes(model, qdq);
    expect_same_nodes(model, qoperator);
    expect_same_logits(model, qdq);
    expect_same_logits(model, qoperator);
    ptq_model_free(model);
    ptq_model_free(qdq);
    ptq_model_free(qoperator);
}

static void test_quantized_round_trip(void **state) {
    static const char *const name[] = {"ort-u8", "ort-s8", "fbgemm", "tflite", "w4a8"};

    (void)state;
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        ptq_scheme scheme = preset(name[i]);

        scheme.rounding = PTQ_ROUNDING_NEAREST;
        check_quantized(quantized(random_resnet8(SIDE, WIDTH, CLASSES, 3, NULL), scheme),
                        scheme.weight_bits != 4);
    }
}

/* Symmetric codes: ReLU's zero point lies inside the range, which takes a clamp. */
static void test_symmetric_round_trip(void **state) {
    ptq_scheme scheme = preset("ort-s8");

    (void)state;
    scheme.activation_symmetric = 1;
    scheme.activation_bits = 6;
    check_quantized(quantized(random_resnet8(SIDE, WIDTH, CLASSES, 4, NULL), scheme), 1);
}

static void test_varied_quantized(void **state) {
    ptq_scheme scheme;
    ptq_model *model, *back;

    (void)state;
    memset(&scheme, 0, sizeof scheme);
    for (int form = 0; form < 4; form++) {
        model = quantized(form < 2 ? varied_model() : branched_model(), scheme);
        back = round_trip(model, form % 2 ? "qoperator" : "qdq");
        expect_same_logits(model, back);
        ptq_model_free(back);
        ptq_model_free(model);
    }
}

/* ONNX Runtime has no integer operators for u8 weights with s8 codes, or for both sorts of codes in
   one: the form that would need them is refused, the other one comes back with the same logits. */
static void check_mixed(ptq_model *model) {
    char from[512], onnx[512];
    ptq_model *back;

    snprintf(from, sizeof from, "%s", in_directory("mixed.safetensors"));
    snprintf(onnx, sizeof onnx, "%s", in_directory("mixed.onnx"));
    assert_ok(ptq_model_save(model, from, &err));
    assert_int_equal(export_onnx(from, onnx, "qoperator"), 1);
    assert_int_equal(access(onnx, F_OK), -1);
    back = round_trip(model, "qdq");
    expect_same_logits(model, back);
    ptq_model_free(back);
    ptq_model_free(model);
}

static void test_mixed_codes(void **state) {
    ptq_scheme scheme = preset("tflite");
    ptq_override one = {"block2.conv1", preset("ort-u8")};

    (void)state;
    check_mixed(quantized_but(random_resnet8(SIDE, WIDTH, CLASSES, 3, NULL), scheme, &one));
    scheme.weight_per_tensor = scheme.weight_affine = 1;
    check_mixed(quantized(random_resnet8(SIDE, WIDTH, CLASSES, 3, NULL), scheme));
}

/* ---- Hostile files ---- */

/* Runs an import with standard error caught, and returns what it printed. */
static const char *catch_import(const char *path, int *status) {
    static char text[65536];
    int saved = dup(STDERR_FILENO);
    FILE *caught = tmpfile();
    ptq_model *model = NULL;
    size_t length;

    assert_non_null(caught);
    fflush(stderr);
    dup2(fileno(caught), STDERR_FILENO);
    *status = import_onnx(path, &model);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(caught);
    length = fread(text, 1, sizeof text - 1, caught);
    text[length] = 0;
    fclose(caught);
    ptq_model_free(model);
    return text;
}

/* What stands behind the warnings. */
static const char *skip_warnings(const char *text) {
    while (strncmp(text, "ptq", 3) == 0 && strstr(text, ": warning: ") &&
           strstr(text, ": warning: ") < strchr(text, '\n'))
        text = strchr(text, '\n') + 1;
    return text;
}

/* Any file is either a model or lines of error; warnings aside, of outputs that are dropped. */
static int import_bytes(const uint8_t *bytes, size_t size) {
    const char *path = in_directory("hostile.onnx"), *text, *line;
    int status, good = 1;

    write_file(path, bytes, size);
    text = skip_warnings(catch_import(path, &status));
    for (line = text; *line && good; line = strchr(line, '\n') + 1)
        good = strncmp(line, "ptq", 3) == 0 && strchr(line, '\n');
    if (!good || status != (*text != 0))
        fail_msg("status %d with '%s'", status, text);
    return status;
}

/* Files to damage: kind 0 in QDQ form, 1 in QOperator form, 2 float and varied, 3 in QOperator form
   with all zero points 0. */
static uint8_t *good_file_of(int kind, size_t *size) {
    ptq_scheme scheme = preset("tflite");
    ptq_model *model;
    char path[512];
    void *bytes = NULL;

    scheme.activation_symmetric = kind == 3;
    model = kind == 2 ? varied_model()
                      : quantized(random_resnet8(SIDE, WIDTH, CLASSES, 6, NULL), scheme);
    ptq_model_free(round_trip(model, kind & 1 ? "qoperator" : "qdq"));
    ptq_model_free(model);
    snprintf(path, sizeof path, "%s", in_directory("model.onnx"));
    assert_ok(ptq_file_read(path, 0, NULL, &bytes, size, &err));
    return bytes;
}

static uint8_t *good_file(size_t *size) { return good_file_of(0, size); }

static void test_truncated(void **state) {
    size_t size;
    uint8_t *bytes = good_file(&size);

    (void)state;
    assert_int_equal(import_bytes(bytes, size), 0);
    for (size_t n = 0; n < size; n += 1 + size / 97)
        assert_int_equal(import_bytes(bytes, n), 1);
    ptq_bytes_free(bytes, NULL);
}

/* A change to an unpacked file, which then must be refused, or taken, with the given words. */
typedef void (*change)(Onnx__ModelProto *model);

static void import_changed(int kind, change apply, int wanted, const char *says) {
    const char *path = in_directory("changed.onnx"), *text;
    size_t size, changed;
    uint8_t *bytes = good_file_of(kind, &size), *packed;
    Onnx__ModelProto *model = onnx__model_proto__unpack(NULL, size, bytes);
    int status;

    assert_non_null(model);
    apply(model);
    packed = malloc(onnx__model_proto__get_packed_size(model));
    changed = onnx__model_proto__pack(model, packed);
    write_file(path, packed, changed);
    text = catch_import(path, &status);
    if (status != wanted || !strstr(text, says))
        fail_msg("expected '%s', got %d '%s'", says, status, text);
    free(packed);
    ptq_bytes_free(bytes, NULL);
    onnx__model_proto__free_unpacked(model, NULL);
}

static void refuse_changed(change apply, const char *says) { import_changed(0, apply, 1, says); }

static Onnx__NodeProto *find_node(Onnx__ModelProto *model, const char *op) {
    for (size_t i = 0; i < model->graph->n_node; i++)
        if (strcmp(model->graph->node[i]->op_type, op) == 0)
            return model->graph->node[i];
    return NULL;
}

static void rename_text(char **at, const char *text) {
    free(*at);
    *at = strcpy(malloc(strlen(text) + 1), text);
}

static void make_cyclic(Onnx__ModelProto *model) {
    rename_text(&find_node(model, "QuantizeLinear")->input[0], "softmax");
}

static void make_unknown(Onnx__ModelProto *model) {
    rename_text(&find_node(model, "Softmax")->op_type, "Loop");
}

static void make_foreign(Onnx__ModelProto *model) {
    find_node(model, "Softmax")->domain = strcpy(malloc(16), "com.example");
}

static void make_huge_input(Onnx__ModelProto *model) {
    Onnx__TensorShapeProto *shape = model->graph->input[0]->type->tensor_type->shape;

    shape->dim[2]->dim_value = shape->dim[3]->dim_value = (int64_t)1 << 40;
}

static void make_large_input(Onnx__ModelProto *model) {
    model->graph->input[0]->type->tensor_type->shape->dim[2]->dim_value = 1 << 27;
}

static void make_dynamic_input(Onnx__ModelProto *model) {
    Onnx__TensorShapeProto__Dimension *dim =
        model->graph->input[0]->type->tensor_type->shape->dim[2];

    dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
    dim->dim_param = strcpy(malloc(8), "height");
}

/* The first constant of four dimensions: a kernel. */
static Onnx__TensorProto *find_kernel(Onnx__ModelProto *model) {
    for (size_t i = 0; i < model->graph->n_initializer; i++)
        if (model->graph->initializer[i]->n_dims == 4)
            return model->graph->initializer[i];
    return NULL;
}

static void make_huge_constant(Onnx__ModelProto *model) {
    for (int i = 0; i < 4; i++)
        find_kernel(model)->dims[i] = (int64_t)1 << 16;
}

static void make_negative_constant(Onnx__ModelProto *model) { find_kernel(model)->dims[0] *= -1; }

static void make_short_constant(Onnx__ModelProto *model) { find_kernel(model)->raw_data.len--; }

static void make_text_constant(Onnx__ModelProto *model) {
    find_kernel(model)->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__STRING;
}

static void make_old(Onnx__ModelProto *model) { model->opset_import[0]->version = 6; }

static void make_new(Onnx__ModelProto *model) { model->opset_import[0]->version = 22; }

static Onnx__TensorProto *find_constant(Onnx__ModelProto *model, const char *name) {
    for (size_t i = 0; i < model->graph->n_initializer; i++)
        if (strcmp(model->graph->initializer[i]->name, name) == 0)
            return model->graph->initializer[i];
    return NULL;
}

/* The zero points of constant codes become numbers that fit no integer. */
static void make_real_zero_points(Onnx__ModelProto *model) {
    for (size_t i = 0; i < model->graph->n_node; i++) {
        Onnx__NodeProto *node = model->graph->node[i];
        Onnx__TensorProto *zero;
        float *to;

        if (strcmp(node->op_type, "DequantizeLinear") || !find_constant(model, node->input[0]))
            continue;
        zero = find_constant(model, node->input[2]);
        assert_int_equal(zero->data_type, ONNX__TENSOR_PROTO__DATA_TYPE__INT8);
        to = calloc(zero->raw_data.len, sizeof *to);
        for (size_t k = 0; k < zero->raw_data.len; k++)
            to[k] = -3.7e34f;
        free(zero->raw_data.data);
        zero->raw_data.data = (uint8_t *)to;
        zero->raw_data.len *= sizeof *to;
        zero->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
        return;
    }
    fail();
}

/* A constant in a file beside it, outside the folder. */
static void make_escaping(Onnx__ModelProto *model) {
    Onnx__TensorProto *kernel = find_kernel(model);
    Onnx__StringStringEntryProto *entry = malloc(sizeof *entry);

    onnx__string_string_entry_proto__init(entry);
    entry->key = strcpy(malloc(16), "location");
    entry->value = strcpy(malloc(32), "../../etc/passwd");
    kernel->external_data = malloc(sizeof(void *));
    kernel->external_data[kernel->n_external_data++] = entry;
    kernel->has_data_location = 1;
    kernel->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}

static void make_dilated(Onnx__ModelProto *model) {
    Onnx__NodeProto *conv = find_node(model, "Conv");

    for (size_t i = 0; i < conv->n_attribute; i++)
        if (strcmp(conv->attribute[i]->name, "strides") == 0) {
            rename_text(&conv->attribute[i]->name, "dilations");
            conv->attribute[i]->ints[0] = 200;
        }
}

static void make_without_output(Onnx__ModelProto *model) {
    rename_text(&model->graph->output[1]->name, "nowhere");
}

static void test_refusals(void **state) {
    (void)state;
    refuse_changed(make_cyclic, "cyclic");
    refuse_changed(make_unknown, "node 'softmax' (Loop): this operator is not supported");
    refuse_changed(make_foreign, "operators of 'com.example' are not supported");
    refuse_changed(make_huge_input, "not a fixed size");
    refuse_changed(make_large_input, "elements");
    refuse_changed(make_dynamic_input, "not a fixed size");
    refuse_changed(make_huge_constant, "elements");
    refuse_changed(make_negative_constant, "elements");
    refuse_changed(make_real_zero_points, "zero points are not of the type of its codes");
    refuse_changed(make_short_constant, "does not hold as many elements");
    refuse_changed(make_text_constant, "is of type STRING");
    refuse_changed(make_old, "opset 6; 7 to 21");
    refuse_changed(make_new, "opset 22; 7 to 21");
    refuse_changed(make_escaping, "outside the model's folder");
    refuse_changed(make_dilated, "what its kernel covers, is more than 255");
    refuse_changed(make_without_output, "'nowhere' is made by no node");
}

/* The same of varied_model: what changes the order, the size or the number of a network's results
   must be done or refused, wherever it stands. */

static Onnx__NodeProto *node_named(Onnx__ModelProto *model, const char *name) {
    for (size_t i = 0; i < model->graph->n_node; i++)
        if (strcmp(model->graph->node[i]->name, name) == 0)
            return model->graph->node[i];
    fail_msg("no node '%s'", name);
    return NULL;
}

static void drop_attributes(Onnx__NodeProto *node) {
    while (node->n_attribute)
        onnx__attribute_proto__free_unpacked(node->attribute[--node->n_attribute], NULL);
}

static void give_ints(Onnx__NodeProto *node, const char *name, const int64_t *numbers,
                      size_t count) {
    Onnx__AttributeProto *made = malloc(sizeof *made);

    onnx__attribute_proto__init(made);
    made->name = strcpy(malloc(16), name);
    made->ints = memcpy(malloc(count * sizeof *numbers), numbers, count * sizeof *numbers);
    made->n_ints = count;
    node->attribute = realloc(node->attribute, (node->n_attribute + 1) * sizeof(void *));
    node->attribute[node->n_attribute++] = made;
}

/* The graph ends in the tensor `name`. */
static void end_in(Onnx__ModelProto *model, const char *name) {
    for (size_t i = 0; i < model->graph->n_output; i++)
        rename_text(&model->graph->output[i]->name, name);
}

static void end_flattened(Onnx__ModelProto *model) { end_in(model, "sum.flat"); }

/* most.act becomes a Pad at the end. */
static void end_padded(Onnx__ModelProto *model) {
    static const int64_t pads[] = {0, 0, 1, 1, 0, 0, 1, 1};
    Onnx__NodeProto *node = node_named(model, "most.act");

    model->opset_import[0]->version = 10; /* pads as an attribute */
    rename_text(&node->op_type, "Pad");
    give_ints(node, "pads", pads, 8);
    end_in(model, "most.act");
}

/* The flatten in front of the dense layer becomes a Reshape to `images` x as many as it takes. */
static void reshape_to(Onnx__ModelProto *model, int64_t images) {
    Onnx__NodeProto *node = node_named(model, "sum.flat"), *clip = node_named(model, "first.act");
    Onnx__TensorProto *shape = model->graph->initializer[0];

    for (size_t i = 0; i < model->graph->n_initializer; i++)
        if (strstr(model->graph->initializer[i]->name, "first.act.max"))
            shape = model->graph->initializer[i];
    clip->n_input = 2; /* its upper bound becomes the shape */
    free(clip->input[2]);
    shape->data_type = ONNX_INT64;
    free(shape->raw_data.data);
    shape->raw_data.data = malloc(16);
    shape->raw_data.len = 16;
    for (int i = 0; i < 8; i++) {
        shape->raw_data.data[i] = (uint8_t)(images >> (8 * i));
        shape->raw_data.data[8 + i] = 0xff;
    }
    shape->dims = realloc(shape->dims, sizeof *shape->dims);
    shape->n_dims = 1;
    shape->dims[0] = 2;
    rename_text(&node->op_type, "Reshape");
    drop_attributes(node);
    node->input = realloc(node->input, 2 * sizeof *node->input);
    node->input[1] = strcpy(malloc(64), shape->name);
    node->n_input = 2;
}

static void keep_images(Onnx__ModelProto *model) { reshape_to(model, 1); }

static void split_images(Onnx__ModelProto *model) { reshape_to(model, 2); }

static void leave_open(Onnx__ModelProto *model) { reshape_to(model, -1); }

/* "sum" adds one operand as N x C x H x W, the other flattened. */
static void add_across(Onnx__ModelProto *model) {
    Onnx__NodeProto *flatten = node_named(model, "other");

    rename_text(&flatten->op_type, "Flatten");
    drop_attributes(flatten);
    rename_text(&node_named(model, "mean")->op_type, "Relu");
}

static void ask_for_features(Onnx__ModelProto *model) {
    rename_text(&model->graph->output[0]->name, "most.act");
}

static void test_orders(void **state) {
    (void)state;
    import_changed(2, end_flattened, 0, "");
    import_changed(2, end_padded, 0, "");
    import_changed(2, keep_images, 0, "");
    import_changed(2, split_images, 1, "number of images from 1 to 2");
    import_changed(2, leave_open, 1, "more than one -1");
    import_changed(2, ask_for_features, 0, "");
    import_changed(2, add_across, 1, "its operands lie in different layouts");
}

/* ---- Operators on codes ---- */

static void add_numbers(Onnx__ModelProto *model, const char *name, int type, const void *from,
                        size_t count, size_t width) {
    Onnx__GraphProto *graph = model->graph;
    Onnx__TensorProto *made = malloc(sizeof *made);

    onnx__tensor_proto__init(made);
    made->name = strcpy(malloc(32), name);
    made->has_data_type = 1;
    made->data_type = type;
    made->n_dims = 1;
    made->dims = malloc(sizeof *made->dims);
    made->dims[0] = (int64_t)count;
    made->has_raw_data = 1;
    made->raw_data.len = count * width;
    made->raw_data.data = memcpy(malloc(count * width), from, count * width);
    graph->initializer = realloc(graph->initializer, (graph->n_initializer + 1) * sizeof(void *));
    graph->initializer[graph->n_initializer++] = made;
}

/* Puts an operator behind the first one called `behind`, whose readers then read its result. */
static void insert_node(Onnx__ModelProto *model, const char *behind, const char *op,
                        const char *second, const char *third) {
    Onnx__GraphProto *graph = model->graph;
    Onnx__NodeProto *before = find_node(model, behind), *made = malloc(sizeof *made);
    const char *inputs[] = {"before", second, third};
    size_t at = 0;

    onnx__node_proto__init(made);
    made->op_type = strcpy(malloc(16), op);
    made->n_input = 3;
    made->input = malloc(3 * sizeof(char *));
    for (int i = 0; i < 3; i++)
        made->input[i] = strcpy(malloc(32), inputs[i]);
    made->n_output = 1;
    made->output = malloc(sizeof(char *));
    made->output[0] = before->output[0];
    before->output[0] = strcpy(malloc(16), "before");
    graph->node = realloc(graph->node, (graph->n_node + 1) * sizeof(void *));
    while (graph->node[at] != before)
        at++;
    memmove(&graph->node[at + 2], &graph->node[at + 1], (graph->n_node - at - 1) * sizeof(void *));
    graph->node[at + 1] = made;
    graph->n_node++;
}

static void clip_to(Onnx__ModelProto *model, int8_t low, int8_t high) {
    add_numbers(model, "low", ONNX_INT8, &low, 1, 1);
    add_numbers(model, "high", ONNX_INT8, &high, 1, 1);
    insert_node(model, "QLinearConv", "Clip", "low", "high");
}

static void clip_both(Onnx__ModelProto *model) { clip_to(model, -8, 7); }

static void clip_above(Onnx__ModelProto *model) { clip_to(model, -128, 7); }

static void pad_with(Onnx__ModelProto *model, const char *number) {
    static const int64_t pads[] = {0, 0, 1, 1, 0, 0, 1, 1}; /* little-endian machines run this */

    add_numbers(model, "pads", ONNX_INT64, pads, 8, 8);
    insert_node(model, "QuantizeLinear", "Pad", "pads", number);
}

static void pad_with_code_0(Onnx__ModelProto *model) { pad_with(model, ""); }

static void pad_with_zero_point(Onnx__ModelProto *model) {
    pad_with(model, find_node(model, "QuantizeLinear")->input[2]);
}

/* The input of the file in QDQ form has s8 codes, of which 0 stands for a grey pixel. */
static void test_operators_on_codes(void **state) {
    (void)state;
    import_changed(3, clip_both, 0, ""); /* s8 of 4 bits */
    import_changed(3, clip_above, 1,
                   "(Clip): on codes it can stand for ReLU, ReLU6 and fewer bits");
    import_changed(0, pad_with_code_0, 1, "(Pad): only padding with the zero point of its codes");
    /* taken: the image is larger now, for which ResNet8's residuals were not made */
    import_changed(0, pad_with_zero_point, 1, "(Add): its operands have different shapes");
}

/* ---- Graphs of their own ---- */

/* A graph without nodes, from 'image' of N x 1 x 2 x 2 to 'y', with the constants of the tests. */
static void clear_graph(Onnx__ModelProto *model) {
    static const int64_t numbers[] = {0, 1, -1, 2, 3, 9, (int64_t)1 << 62}, size[] = {1, 2, 2};
    static const int64_t wide[] = {1 << 20, 1 << 20, 1}, longer[] = {1 << 27};
    static const char *const name[] = {"0", "1", "-1", "2", "3", "9", "most"};
    static const float half = 0.5f;
    Onnx__GraphProto *graph = model->graph;
    Onnx__TensorShapeProto *shape = graph->input[0]->type->tensor_type->shape;

    while (graph->n_node)
        onnx__node_proto__free_unpacked(graph->node[--graph->n_node], NULL);
    while (graph->n_initializer)
        onnx__tensor_proto__free_unpacked(graph->initializer[--graph->n_initializer], NULL);
    for (int i = 0; i < 3; i++)
        shape->dim[i + 1]->dim_value = size[i];
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        add_numbers(model, name[i], ONNX_INT64, &numbers[i], 1, 8);
    add_numbers(model, "wide", ONNX_INT64, wide, 3, 8);
    add_numbers(model, "long", ONNX_INT64, longer, 1, 8);
    add_numbers(model, "half", ONNX_FLOAT, &half, 1, 4);
    model->opset_import[0]->version = 13;
    end_in(model, "y");
}

/* Appends a node; names of its inputs stand in one text, with a space between. */
static Onnx__NodeProto *put_node(Onnx__ModelProto *model, const char *op, const char *inputs,
                                 const char *output) {
    Onnx__GraphProto *graph = model->graph;
    Onnx__NodeProto *made = malloc(sizeof *made);

    onnx__node_proto__init(made);
    made->op_type = strcpy(malloc(32), op);
    made->input = malloc(8 * sizeof(char *));
    for (size_t length; *inputs; inputs += length + (inputs[length] == ' ')) {
        length = strcspn(inputs, " ");
        made->input[made->n_input] = calloc(1, length + 1);
        memcpy(made->input[made->n_input++], inputs, length);
    }
    made->output = malloc(sizeof(char *));
    made->output[made->n_output++] = strcpy(malloc(32), output);
    graph->node = realloc(graph->node, (graph->n_node + 1) * sizeof(void *));
    return graph->node[graph->n_node++] = made;
}

static void give_number(Onnx__NodeProto *node, const char *name, float number) {
    Onnx__AttributeProto *made = malloc(sizeof *made);

    onnx__attribute_proto__init(made);
    made->name = strcpy(malloc(16), name);
    made->has_f = 1;
    made->f = number;
    node->attribute = realloc(node->attribute, (node->n_attribute + 1) * sizeof(void *));
    node->attribute[node->n_attribute++] = made;
}

static void give_axis_0(Onnx__NodeProto *node) {
    give_number(node, "axis", 0);
    node->attribute[0]->has_i = 1;
}

/* A constant of more dimensions, all 1 but perhaps the last. */
static void add_shaped(Onnx__ModelProto *model, const char *name, const float *numbers,
                       size_t count, size_t rank) {
    Onnx__TensorProto *made;

    add_numbers(model, name, ONNX_FLOAT, numbers, count, 4);
    made = model->graph->initializer[model->graph->n_initializer - 1];
    made->dims = realloc(made->dims, rank * sizeof *made->dims);
    made->n_dims = rank;
    for (size_t i = 0; i < rank; i++)
        made->dims[i] = i + 1 < rank ? 1 : (int64_t)count;
}

/* (5 - 3 (2 x + 1)), its mean over the columns and then the rows, a view with the number of images
   that the input has, 2 y w + b / 2, a batch norm. */
static void spell_in_steps(Onnx__ModelProto *model) {
    static const float two = 2, one = 1, three = 3, five = 5, w[] = {1, -1}, b[] = {1, 10};
    static const float gamma[] = {2, 1}, beta[] = {0, 1}, mean[] = {0.5f, 0}, variance[] = {4, 1};
    static const int64_t columns = 3, rows = 2;
    Onnx__NodeProto *gemm;

    clear_graph(model);
    add_shaped(model, "two", &two, 1, 4);
    add_shaped(model, "one", &one, 1, 1);
    add_shaped(model, "three", &three, 1, 4);
    add_shaped(model, "five", &five, 1, 1);
    add_shaped(model, "w", w, 2, 2);
    add_shaped(model, "b", b, 2, 1);
    add_shaped(model, "gamma", gamma, 2, 1);
    add_shaped(model, "beta", beta, 2, 1);
    add_shaped(model, "mean", mean, 2, 1);
    add_shaped(model, "variance", variance, 2, 1);
    put_node(model, "Conv", "image two one", "conv");
    put_node(model, "Mul", "three conv", "mul");
    put_node(model, "Sub", "five mul", "sub");
    give_ints(put_node(model, "ReduceMean", "sub", "line"), "axes", &columns, 1);
    give_ints(put_node(model, "ReduceMean", "line", "pixel"), "axes", &rows, 1);
    put_node(model, "Shape", "image", "shape");
    put_node(model, "Gather", "shape 0", "images");
    give_axis_0(put_node(model, "Concat", "images -1", "view"));
    put_node(model, "Reshape", "pixel view", "flat");
    gemm = put_node(model, "Gemm", "flat w b", "gemm");
    give_number(gemm, "alpha", 2);
    give_number(gemm, "beta", 0.5f);
    put_node(model, "BatchNormalization", "gemm gamma beta mean variance", "y");
}

/* Pixels 1, 2, 3, 6: the mean is 3, then 5 - 21 = -16, then -31.5 and 37, then -32 and 38. */
static void test_spellings(void **state) {
    static const uint8_t picture[] = {1, 2, 3, 6};
    char path[512];
    size_t size, changed;
    uint8_t *bytes = good_file_of(2, &size), *packed;
    Onnx__ModelProto *model = onnx__model_proto__unpack(NULL, size, bytes);
    ptq_model *made = NULL;
    float logits[2];
    test_run run;

    (void)state;
    spell_in_steps(model);
    packed = malloc(onnx__model_proto__get_packed_size(model));
    changed = onnx__model_proto__pack(model, packed);
    snprintf(path, sizeof path, "%s", in_directory("steps.onnx"));
    write_file(path, packed, changed);
    assert_int_equal(import_onnx(path, &made), 0);
    assert_int_equal(made->nodes, 4); /* input, convolution, one mean, dense layer */
    run = open_run(made, 0);
    assert_ok(ptq_run(run.session, picture, 1, logits, NULL, &err));
    assert_float_equal(logits[0], -32, 1e-3);
    assert_float_equal(logits[1], 38, 1e-3);
    close_run(&run);
    ptq_model_free(made);
    free(packed);
    ptq_bytes_free(bytes, NULL);
    onnx__model_proto__free_unpacked(model, NULL);
}

/* What a graph computes of constants must stay within its file and its memory. */
static const struct hostile {
    const char *op, *inputs, *says;
} hostile[] = {
    {"Range", "0 most 1", "(Range): it has no end"},
    {"Range", "0 1 0", "(Range): it has no end"},
    {"Range", "0 wide 1", "(Range): its operands must be single numbers"},
    {"ConstantOfShape", "wide", "more than 268435456 elements"},
    {"ConstantOfShape", "-1", "a negative dimension"},
    {"Expand", "0 long", "would take many times the size of the file"},
    {"Expand", "wide 9", "(Expand): the shapes of its operands do not fit"},
    {"Gather", "0 1", "(Gather): an index is out of range"},
    {"Gather", "0 half", "(Gather): its input 2 must hold integers"},
    {"Slice", "wide 0 1 0 0", "(Slice): an axis or a step is out of range"},
    {"Slice", "wide 0 1 9", "(Slice): an axis or a step is out of range"},
    {"Slice", "wide wide 1", "(Slice): its starts, ends, axes and steps do not fit"},
    {"Div", "1 0", "(Div): it divides by 0"},
    {"Add", "1 half", "(Add): constants of FLOAT are not computed with"},
    {"Concat", "1 half", "(Concat): its operands differ in type or rank"},
    {"Reshape", "wide 2", "(Reshape): the new shape has another number of elements"},
    {"Squeeze", "wide 1", "(Squeeze): an axis is out of range"},
    {"Unsqueeze", "wide 9", "(Unsqueeze): an axis is out of range"},
};

static const struct hostile *chosen;

static void compute_shape(Onnx__ModelProto *model) {
    clear_graph(model);
    give_axis_0(put_node(model, chosen->op, chosen->inputs, "made"));
    put_node(model, "Reshape", "image made", "y");
}

static void test_hostile_constants(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        chosen = &hostile[i];
        import_changed(2, compute_shape, 1, chosen->says);
    }
}

/* Graphs in attributes of nodes in graphs ...: each layer takes two bytes of tag and a length. */
static void test_nested(void **state) {
    enum { DEPTH = 20000, MOST = DEPTH * 20 };
    static const uint8_t tag[] = {0x0a, 0x2a, 0x32}; /* graph.node, node.attribute, attribute.g */
    uint8_t *bytes = malloc(MOST), *end = bytes + MOST, *at = end;

    (void)state;
    for (int i = 3 * DEPTH - 1; i >= 0; i--) {
        size_t length = (size_t)(end - at);
        uint8_t varint[5];
        int n = 0;

        do {
            varint[n++] = (uint8_t)((length & 127) | (length > 127 ? 128 : 0));
            length >>= 7;
        } while (length);
        if (at - bytes < 8)
            break;
        memcpy(at -= n, varint, (size_t)n);
        *--at = i == 0 ? 0x3a : tag[i % 3]; /* model.graph outermost */
    }
    assert_int_equal(import_bytes(at, (size_t)(end - at)), 1);
    free(bytes);
}

/* Empty nodes by the hundred thousand: two bytes in the file, hundreds in memory. */
static void test_amplification(void **state) {
    enum { COUNT = 400000 };
    uint8_t *bytes = malloc(2 * COUNT + 8), *at = bytes;
    size_t length = 2 * COUNT;

    (void)state;
    *at++ = 0x3a;
    for (; length > 127; length >>= 7)
        *at++ = (uint8_t)((length & 127) | 128);
    *at++ = (uint8_t)length;
    for (int i = 0; i < COUNT; i++, at += 2)
        at[0] = 0x0a, at[1] = 0;
    assert_int_equal(import_bytes(bytes, (size_t)(at - bytes)), 1);
    free(bytes);
}

/* Bytes flipped, replaced, removed, doubled, moved; several at a time. Returns the new size. */
static size_t mutate(test_random *r, uint8_t *bytes, size_t size, size_t room) {
    for (int n = random_int(r, 1, 4); n > 0; n--) {
        size_t at = (size_t)random_int(r, 0, (int)size - 1);
        size_t length = (size_t)random_int(r, 1, 16);

        length = length > size - at ? size - at : length;
        switch (random_int(r, 0, 4)) {
        case 0:
            bytes[at] ^= (uint8_t)(1 << random_int(r, 0, 7));
            break;
        case 1:
            bytes[at] = (uint8_t)random_int(r, 0, 255);
            break;
        case 2: /* remove */
            memmove(bytes + at, bytes + at + length, size - at - length);
            size -= size > length + 64 ? length : 0;
            break;
        case 3: /* double */
            if (size + length <= room) {
                memmove(bytes + at + length, bytes + at, size - at);
                size += length;
            }
            break;
        default:
            memset(bytes + at, random_int(r, 0, 1) ? 255 : 0, length);
        }
    }
    return size;
}

static double processor_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

static void mutate_kind(int kind, int count) {
    int refused = 0;
    size_t size, room;
    uint8_t *bytes = good_file_of(kind, &size), *copy;
    test_random r = {0};
    struct rusage usage;
    double slowest = 0;

    room = size + 256;
    copy = malloc(room);
    for (int i = 0; i < count; i++) {
        double start = processor_seconds();

        r.state = 1000 + (uint64_t)i;
        memcpy(copy, bytes, size);
        refused += import_bytes(copy, mutate(&r, copy, size, room));
        slowest = fmax(slowest, processor_seconds() - start);
    }
    getrusage(RUSAGE_SELF, &usage);
    if (getenv("PTQ_MUTATIONS"))
        print_message("%d mutations of %d bytes: %d refused, slowest %.4f s, peak %ld KB\n", count,
                      (int)size, refused, slowest, usage.ru_maxrss);
    assert_true(refused > count / 10);
    free(copy);
    ptq_bytes_free(bytes, NULL);
}

static void test_mutations(void **state) {
    const char *wanted = getenv("PTQ_MUTATIONS");

    (void)state;
    for (int kind = 0; kind < 3; kind++)
        mutate_kind(kind, wanted ? atoi(wanted) : 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_round_trip),
        cmocka_unit_test(test_varied_float),
        cmocka_unit_test(test_branches_float),
        cmocka_unit_test(test_quantized_round_trip),
        cmocka_unit_test(test_symmetric_round_trip),
        cmocka_unit_test(test_varied_quantized),
        cmocka_unit_test(test_mixed_codes),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_operators_on_codes),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_hostile_constants),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_amplification),
        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
