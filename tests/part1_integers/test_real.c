/* Inputs that are no pixels: real numbers run, calibrate, convert, explain and are tested as images
   are; what does not fit them is refused. */
#include "test.h"

#include "measure/expect.h"
#include "measure/explain.h"
#include "measure/layers.h"

/* Four items of two numbers; the first ones are the smallest and the largest. */
static const float items[4][2] = {{-1, 3}, {0.5f, 1}, {0, 0}, {2, -0.5f}};

typedef struct source {
    int bad; /* the item of which the second number is `value`; -1: none */
    float value;
} source;

static ptq_status get_item(void *user, size_t index, void *item, int *label, ptq_error *e) {
    const source *from = (const source *)user;

    (void)e;
    memcpy(item, items[index], sizeof items[index]);
    if ((int)index == from->bad)
        ((float *)item)[1] = from->value;
    *label = items[index][1] > items[index][0];
    return PTQ_OK;
}

static const source sound = {-1, 0};

static ptq_dataset items_of(const source *from) {
    ptq_dataset data;

    memset(&data, 0, sizeof data);
    data.count = 4;
    data.height = data.channels = 1;
    data.width = data.classes = 2;
    data.type = PTQ_TYPE_F32;
    data.get = get_item;
    data.user = (void *)(uintptr_t)from;
    return data;
}

/* y[0] = x[0] + w x[1], y[1] = x[1]. */
static ptq_model *pair_model(float w) {
    const float weight[] = {1, w, 0, 1};
    ptq_model *model = NULL;

    assert_ok(ptq_model_create(NULL, &model, &err));
    assert_int_equal(ptq_add_real_input(model, "input", 1, 2, 1), 0);
    ptq_add_dense(model, "fc", 0, 2);
    memcpy(ptq_model_param(model, "fc.weight")->data, weight, sizeof weight);
    assert_ok(ptq_model_check(model, &err));
    return model;
}

static ptq_calibration *calibrated(const ptq_model *model, const ptq_dataset *data) {
    ptq_calibration *calibration = NULL;
    ptq_plan *plan = NULL;

    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    assert_ok(ptq_calibrate(plan, data, NULL, &calibration, &err));
    ptq_plan_free(plan);
    return calibration;
}

/* Its biases may be corrected by computation. */
static ptq_model *converted(const ptq_model *model, const char *preset, int bits, int corrected) {
    ptq_dataset data = items_of(&sound);
    ptq_calibration *calibration = calibrated(model, &data);
    ptq_convert_options o;
    ptq_model *out = NULL;

    memset(&o, 0, sizeof o);
    assert_ok(ptq_preset(preset, &o.scheme, &err));
    if (bits)
        o.scheme.weight_bits = o.scheme.activation_bits = bits;
    o.images = &data;
    assert_ok(ptq_convert(model, calibration, &o, &out, NULL, &err));
    if (corrected)
        assert_ok(correct_biases(model, model, calibration, out, &err));
    ptq_calibration_free(calibration);
    return out;
}

static void running(void **state) {
    const float input[] = {0.5f, -3}, nan_behind[] = {1, 2, 3, (float)NAN};
    const uint8_t pixels[2] = {0, 0};
    ptq_model *model = pair_model(0);
    ptq_results results = {NULL, NULL, NULL, NULL};
    float logits[4];
    int32_t codes[2];
    int best = 9, k;
    ptq_net *net;
    void *bytes;
    size_t size;

    (void)state;
    for (k = 0; k < 2; k++) { /* without and with preprocessing, (x - 1) / 2 */
        model->mean[0] = (float)k;
        model->std[0] = (float)(k + 1);
        assert_ok(ptq_model_write(model, &bytes, &size, &err));
        assert_ok(ptq_net_open_memory(bytes, size, &net, &err));
        ptq_bytes_free(bytes, NULL);
        assert_int_equal(ptq_plan_get_info(net->plan)->type, PTQ_TYPE_F32);
        assert_ok(ptq_run_f32(net->session, input, 1, logits, NULL, &err));
        assert_true(logits[0] == (k ? -0.25f : 0.5f) && logits[1] == (k ? -2.0f : -3.0f));
        results.logits = logits;
        results.classes = &best;
        assert_ok(ptq_run_items(net->session, PTQ_TYPE_F32, input, 1, &results, &err));
        assert_int_equal(best, 0);
        results.classes = NULL;
        assert_true(logits[0] == (k ? -0.25f : 0.5f));
        assert_fails(PTQ_INVALID_ARGUMENT, "takes F32 items, these are U8",
                     ptq_net_run(net, pixels, logits, &err));
        assert_fails(PTQ_INVALID_ARGUMENT, "F32", ptq_net_classify(net, pixels, &best, &err));
        assert_fails(PTQ_INVALID_ARGUMENT, "S32",
                     ptq_run_items(net->session, PTQ_TYPE_S32, pixels, 0, &results, &err));
        assert_fails(PTQ_BAD_NUMBER, "input 1 of item 1 is nan",
                     ptq_run_f32(net->session, nan_behind, 2, logits, NULL, &err));
        results.codes = codes;
        assert_fails(PTQ_UNSUPPORTED, "code_logits",
                     ptq_run_items(net->session, PTQ_TYPE_F32, input, 1, &results, &err));
        results.codes = NULL;
        ptq_net_free(net);
    }
    ptq_model_free(model);
}

/* The input is observed, -1 to 3: s = 4 / 255, z = round(63.75) = 64. So -1 becomes the code
   round(-63.75) + 64 = 0, and 3 round(191.25) + 64 = 255; weights are 127 / 127. */
static void converting(void **state) {
    const double s = 4.0 / 255;
    ptq_model *model = pair_model(0), *made = converted(model, "minmax8", 0, 0);
    test_run run = open_run(made, 1);
    ptq_dataset data = items_of(&sound);
    ptq_calibration *calibration = calibrated(model, &data);
    const ptq_observer *seen = &calibration->tensor[0].observer;
    ptq_tensor codes;
    float logits[2];
    char *text = NULL;

    (void)state;
    assert_string_equal(calibration->tensor[0].name, "input");
    assert_true(seen->min == -1 && seen->max == 3 && seen->count == 8 && seen->zeros == 2);
    assert_int_equal(calibration->pixel[0], 0);
    assert_string_equal(made->node[1].name, "input.quantize");
    assert_int_equal(made->node[0].q.type, PTQ_TYPE_F32);
    assert_int_equal(made->node[1].q.type, PTQ_TYPE_U8);
    assert_int_equal(made->node[1].q.zero_point, 64);
    assert_true(made->node[1].q.scale == (float)s);
    assert_ok(ptq_run_f32(run.session, items[0], 1, logits, NULL, &err));
    assert_near(logits[0], -64 * s, 1e-6);
    assert_near(logits[1], 191 * s, 1e-6);
    assert_ok(ptq_session_tensor(run.session, "input.quantize", &codes, &err));
    assert_true(ptq_tensor_number(&codes, 0) == 0 && ptq_tensor_number(&codes, 1) == 255);
    assert_ok(explain_element(run.plan, run.session, "fc", 0, 0, 0, &text, &err));
    assert_non_null(strstr(text, "(x - zx) -64 * (w - zw) 127 = -8128, sum -8128"));
    assert_non_null(strstr(text, "accumulator -8128"));
    free(text);
    close_run(&run);
    ptq_calibration_free(calibration);
    ptq_model_free(made);

    /* (x - 1) / 2 of numbers from -1 to 3: -1 to 1. */
    model->mean[0] = 1;
    model->std[0] = 2;
    made = converted(model, "ort-s8", 0, 0);
    assert_int_equal(made->node[1].q.type, PTQ_TYPE_S8);
    assert_near(made->node[1].q.scale, 2.0 / 255, 1e-8);
    ptq_model_free(made);
    made = converted(model, "minmax8", 4, 0); /* fewer bits are for what lies behind */
    assert_int_equal(made->node[1].q.bits, 8);
    ptq_model_free(made);
    ptq_model_free(model);
}

/* Weights 1 and 0.3 of 2 bits become 1 and 0. What that takes off on average, 0.3 E x with
   E x = 5 / 8, goes to the bias, in steps of 4 / 255; the other class has lost nothing. */
static void analytic_bias(void **state) {
    ptq_model *model = pair_model(0.3f);
    ptq_model *made = converted(model, "minmax8", 2, 1);
    test_run run = open_run(made, 0);
    float logits[2];

    (void)state;
    assert_ok(ptq_run_f32(run.session, items[2], 1, logits, NULL, &err));
    assert_near(logits[0], 0.3 * 0.625, 0.009);
    assert_near(logits[1], 0, 1e-9);
    close_run(&run);
    ptq_model_free(made);
    ptq_model_free(model);
}

static void what_does_not_fit(void **state) {
    const source bad[] = {{3, (float)NAN}, {2, (float)INFINITY}};
    const char *const says[] = {"input 1 of item 3 is nan", "input 1 of item 2 is inf"};
    ptq_model *model = pair_model(0);
    ptq_dataset data = items_of(&sound);
    ptq_calibration *calibration = NULL;
    ptq_evaluation e;
    ptq_plan *plan;
    size_t sample[2];
    int k;

    (void)state;
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    assert_ok(ptq_evaluate(plan, &data, NULL, &e, &err));
    assert_int_equal(e.correct, 4);
    ptq_release(&e.memory);
    data.type = PTQ_TYPE_U8;
    assert_fails(PTQ_BAD_DATA, "the data are bytes",
                 ptq_calibrate(plan, &data, NULL, &calibration, &err));
    assert_fails(PTQ_BAD_DATA, "type=f32", ptq_evaluate(plan, &data, NULL, &e, &err));
    for (k = 0; k < 2; k++) {
        data = items_of(&bad[k]);
        assert_fails(PTQ_BAD_NUMBER, says[k], ptq_calibrate(plan, &data, NULL, &calibration, &err));
        assert_fails(PTQ_BAD_NUMBER, says[k], ptq_evaluate(plan, &data, NULL, &e, &err));
        assert_fails(PTQ_BAD_NUMBER, says[k], ptq_sample(&data, 2, 1, sample, NULL, &err));
    }
    ptq_plan_free(plan);
    model->node[0].q.type = PTQ_TYPE_U8; /* codes of an input of real numbers are a node's */
    model->node[0].q.bits = 8;
    model->node[0].q.scale = 1;
    assert_fails(PTQ_BAD_GRAPH, "quantize node behind", ptq_model_check(model, &err));
    ptq_model_free(model);
}

/* A network like those for sound. */
enum { HIGH = 9, WIDE = 5, DEEP = 2, NUMBERS = HIGH * WIDE * DEEP, CLASSES = 5, COUNT = 24 };

static ptq_status get_sound(void *user, size_t index, void *item, int *label, ptq_error *e) {
    test_random r = {(uint64_t)index + 1};

    (void)user;
    (void)e;
    random_floats(&r, (float *)item, NUMBERS, -120, 26);
    *label = (int)(index % CLASSES);
    return PTQ_OK;
}

static ptq_model *sound_model(void) {
    const ptq_conv_options first = {8, 3, 3, 1, 1, PTQ_PADDING_SAME, {0, 0, 0, 0}, 1, 0, 0, 0};
    const ptq_conv_options second = {12, 3, 3, 2, 2, PTQ_PADDING_SAME, {0, 0, 0, 0}, 1, 0, 0, 0};
    ptq_model *model = NULL, *fused = NULL;
    int x, c;

    assert_ok(ptq_model_create(NULL, &model, &err));
    for (c = 0; c < DEEP; c++) {
        model->mean[c] = -40;
        model->std[c] = 35;
    }
    x = ptq_add_real_input(model, "input", HIGH, WIDE, DEEP);
    x = ptq_add_conv2d(model, "a", x, &first);
    x = ptq_add_op(model, PTQ_OP_RELU, "a.relu", x);
    x = ptq_add_conv2d(model, "b", x, &second);
    x = ptq_add_op(model, PTQ_OP_GLOBAL_AVG_POOL, "pool", x);
    x = ptq_add_dense(model, "fc", x, CLASSES);
    ptq_add_op(model, PTQ_OP_SOFTMAX, "softmax", x);
    assert_ok(ptq_model_check(model, &err));
    fill_model(model, 5);
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    ptq_model_free(model);
    return fused;
}

/* The logits of one item on every instruction set that this processor has. */
static void assert_alike(const ptq_model *model, int exact) {
    float input[NUMBERS], first[CLASSES], logits[CLASSES];
    ptq_plan_options o;
    int isa, c, label;

    memset(&o, 0, sizeof o);
    assert_ok(get_sound(NULL, 3, input, &label, &err));
    for (isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++) {
        ptq_session *session = NULL;
        ptq_plan *plan = NULL;

        o.isa = (ptq_isa)isa;
        if (ptq_isa_support(o.isa) != PTQ_SUPPORT_AVAILABLE)
            continue;
        assert_ok(ptq_plan_create(model, &o, &plan, &err));
        assert_ok(ptq_session_create(plan, NULL, &session, &err));
        assert_ok(
            ptq_run_f32(session, input, 1, isa == PTQ_ISA_SCALAR ? first : logits, NULL, &err));
        for (c = 0; c < CLASSES && isa != PTQ_ISA_SCALAR; c++)
            assert_near(logits[c], first[c], exact ? 0 : 1e-4);
        assert_ok(ptq_self_test_check(plan, &err));
        ptq_session_free(session);
        ptq_plan_free(plan);
    }
}

/* Converted, saved, loaded: the same codes; and a vector that notices a changed weight. */
static void assert_saved(ptq_model *made, int exact) {
    ptq_model *again = NULL;
    ptq_plan *plan = NULL;
    ptq_tensor *weight;
    void *bytes;
    size_t size;

    assert_ok(ptq_self_test_add(made, &err));
    assert_ok(ptq_model_write(made, &bytes, &size, &err));
    assert_ok(ptq_model_parse(bytes, size, NULL, &again, &err));
    ptq_bytes_free(bytes, NULL);
    assert_int_equal(again->node[0].real, 1);
    assert_true(again->mean[0] == -40 && again->std[1] == 35);
    assert_alike(again, exact);
    weight = ptq_model_param(again, "fc.weight");
    memset(weight->data, 0, weight->size);
    assert_ok(ptq_plan_create(again, NULL, &plan, &err));
    assert_fails(PTQ_BAD_NUMBER, "logit", ptq_self_test_check(plan, &err));
    ptq_plan_free(plan);
    ptq_model_free(again);
}

static void every_preset(void **state) {
    ptq_model *model = sound_model(), *copy = NULL;
    ptq_dataset data = items_of(&sound);
    ptq_calibration *calibration;
    ptq_plan *plan[2] = {NULL, NULL};
    unsigned p;

    (void)state;
    data.count = COUNT;
    data.height = HIGH;
    data.width = WIDE;
    data.channels = DEEP;
    data.classes = CLASSES;
    data.get = get_sound;
    calibration = calibrated(model, &data);
    assert_ok(ptq_model_copy(model, NULL, &copy, &err));
    assert_saved(copy, 0); /* float */
    assert_ok(ptq_plan_create(model, NULL, &plan[0], &err));
    for (p = 0; ptq_name(PTQ_NAMES_PRESET, p); p++) {
        layer_report layers;
        ptq_convert_options o;
        ptq_model *made = NULL;
        int integer;

        memset(&o, 0, sizeof o);
        assert_ok(ptq_preset(ptq_name(PTQ_NAMES_PRESET, p), &o.scheme, &err));
        o.images = &data;
        integer = o.scheme.mode == PTQ_MODE_INTEGER;
        assert_ok(ptq_convert(model, calibration, &o, &made, NULL, &err));
        assert_int_equal(made->node[1].op == PTQ_OP_QUANTIZE, integer);
        if (integer)
            assert_int_equal(made->node[1].q.bits, 8);
        assert_saved(made, integer);
        assert_ok(ptq_plan_create(made, NULL, &plan[1], &err));
        assert_ok(compare_layers(plan[0], plan[1], &data, 4, &layers, &err));
        assert_true(layers.items > 3 && layers.item[layers.items - 1].sqnr_db > 10);
        layer_report_free(&layers);
        ptq_plan_free(plan[1]);
        ptq_model_free(made);
    }
    ptq_plan_free(plan[0]);
    ptq_calibration_free(calibration);
    ptq_model_free(copy);
    ptq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running),       cmocka_unit_test(converting),
        cmocka_unit_test(analytic_bias), cmocka_unit_test(what_does_not_fit),
        cmocka_unit_test(every_preset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
