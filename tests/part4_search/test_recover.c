/* Winning accuracy back below 8 bits: equalization, refitted weights; and the searches for the
   layer to blame and for the bits that each deserves. Values worked out by hand, and each against
   its own parts put together. */
#include "quantized.h"
#include "faults.h"

#include "measure/advice.h"
#include "measure/expect.h"
#include "measure/layers.h"
#include "measure/mix.h"

enum { SIDE = 8, IMAGES = 24, CLASSES = 5 };

typedef struct fixture {
    ptq_model *fused;
    ptq_plan *plan;
    ptq_calibration *calibration;
    pictures p, back; /* the same pictures, forwards and backwards */
    size_t order[IMAGES];
} fixture;

static const ptq_work no_work = {0, NULL, NULL, {NULL, NULL, NULL}};

static int open_fixture(void **state) {
    fixture *f = (fixture *)calloc(1, sizeof *f);
    int i;

    assert_non_null(f);
    f->fused = fused_of(random_resnet8(SIDE, 3, CLASSES, 5, NULL));
    assert_ok(ptq_plan_create(f->fused, NULL, &f->plan, &err));
    f->p = f->back = pictures_for(f->fused, IMAGES, 9);
    for (i = 0; i < IMAGES; i++)
        f->order[i] = (size_t)(IMAGES - 1 - i);
    f->back.order = f->order;
    f->calibration = calibrated_on(f->fused, pictures_dataset(&f->p));
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;

    ptq_calibration_free(f->calibration);
    ptq_plan_free(f->plan);
    ptq_model_free(f->fused);
    free(f);
    return 0;
}

static ptq_evaluation evaluated(const ptq_model *model, const ptq_dataset *data) {
    ptq_evaluation e;
    ptq_plan *plan = NULL;

    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    assert_ok(ptq_evaluate(plan, data, NULL, &e, &err));
    ptq_plan_free(plan);
    return e;
}

/* How far a model is from the fixture's float model. */
static divergence distance(fixture *f, const ptq_model *model) {
    ptq_evaluation a = evaluated(f->fused, pictures_dataset(&f->p));
    ptq_evaluation b = evaluated(model, pictures_dataset(&f->p));
    ptq_comparison c;
    divergence d;

    assert_ok(ptq_compare(&a, &b, &c, &err));
    memset(&d, 0, sizeof d);
    d.sqnr_db = c.sqnr_db;
    d.kl = c.kl;
    d.agreement = (double)c.agree / (double)c.total;
    d.delta_pp = c.delta_pp;
    ptq_release(&a.memory);
    ptq_release(&b.memory);
    return d;
}

/* A preset at other widths, and with ranges that are found quickly. */
static ptq_scheme bits(const char *name, int weights, int activations) {
    ptq_scheme s = preset(name);

    s.activation_method = PTQ_METHOD_MINMAX;
    s.weight_bits = weights;
    s.activation_bits = activations;
    return s;
}

/* ---------------------------------------------------------------------------------------------
   Equalization */

static float *numbers(ptq_model *m, const char *name) {
    return (float *)ptq_model_param(m, name)->data;
}

static ptq_status full_picture(void *user, size_t index, void *item, int *label, ptq_error *e) {
    uint8_t *pixels = (uint8_t *)item;
    (void)user;
    (void)e;
    pixels[0] = index ? 200 : 40;
    *label = 0;
    return PTQ_OK;
}

static ptq_dataset full_pictures(void) {
    ptq_dataset data;

    memset(&data, 0, sizeof data);
    data.count = 2;
    data.height = data.width = data.channels = 1;
    data.classes = 2;
    data.type = PTQ_TYPE_U8;
    data.get = full_picture;
    return data;
}

/* Two channels that reach 200 and 50: the second is divided by sqrt(50 / 200) = 1/2, its consumer
   multiplied. The third is always 0 and stays. The logits have no factor. */
static void equalized_by_hand(void **state) {
    ptq_conv_options conv;
    ptq_model *m = NULL, *fused, *made = NULL;
    ptq_plan *plan = NULL;
    ptq_dataset data = full_pictures();
    int x;

    (void)state;
    memset(&conv, 0, sizeof conv);
    conv.channels = 3;
    conv.kernel_h = 1;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 1, 1, 1);
    x = ptq_add_op(m, PTQ_OP_RELU, "relu", ptq_add_conv2d(m, "a", x, &conv));
    ptq_add_dense(m, "fc", x, 2);
    numbers(m, "a.weight")[0] = 1;
    numbers(m, "a.weight")[1] = 0.25f;
    numbers(m, "a.weight")[2] = -1;
    numbers(m, "a.bias")[1] = 0;
    for (x = 0; x < 6; x++)
        numbers(m, "fc.weight")[x] = (float)(x + 1);
    fused = fused_of(m);
    assert_ok(ptq_plan_create(fused, NULL, &plan, &err));
    assert_ok(ptq__equalize(plan, &data, &no_work, &made, &err));
    assert_near(numbers(made, "a.weight")[0], 1, 0);
    assert_near(numbers(made, "a.weight")[1], 0.5, 1e-7);
    assert_near(numbers(made, "fc.weight")[0], 1, 0);
    assert_near(numbers(made, "fc.weight")[1], 1, 1e-7);
    assert_near(numbers(made, "fc.weight")[4], 2.5, 1e-7);
    ptq_model_free(made);
    ptq_plan_free(plan);
    ptq_model_free(fused);
}

/* Largest value of each channel of a tensor on the fixture's pictures. */
static void reaches(const fixture *f, const ptq_model *m, const char *name, int channels,
                    float *reach) {
    test_run run = open_run(m, 1);
    uint8_t pixels[SIDE * SIDE * 3];
    size_t i, k;
    int label;

    memset(reach, 0, (size_t)channels * sizeof *reach);
    for (i = 0; i < IMAGES; i++) {
        ptq_tensor view;
        assert_ok(get_picture((void *)(uintptr_t)&f->p, i, pixels, &label, &err));
        assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
        assert_ok(ptq_session_tensor(run.session, name, &view, &err));
        for (k = 0; k < ptq_tensor_elements(&view); k++) {
            float a = fabsf(((const float *)view.data)[k]);
            float *to = &reach[k % (size_t)channels];
            *to = a > *to ? a : *to;
        }
    }
    close_run(&run);
}

/* Float logits stay; both tensors of a residual addition get the same factors; ranges draw
   level. */
static void equalized_network(void **state) {
    static const char *const tied[] = {"conv1", "block1.conv2", "block1.add.relu"};
    fixture *f = (fixture *)*state;
    ptq_model *made = NULL, *again = NULL;
    ptq_calibrate_options o;
    float before[3][64], after[3][64];
    double most[2] = {0, 0}, least[2] = {HUGE_VAL, HUGE_VAL};
    int i, c, channels = f->fused->node[ptq_model_find(f->fused, "conv1")].shape[2];

    memset(&o, 0, sizeof o);
    o.work.threads = 2;
    assert_ok(ptq__equalize(f->plan, pictures_dataset(&f->p), &no_work, &made, &err));
    assert_ok(ptq__equalize(f->plan, pictures_dataset(&f->back), &o.work, &again, &err));
    assert_same_model(made, again);
    assert_true(distance(f, made).sqnr_db > 100);
    assert_true(ptq_model_hash(made) != ptq_model_hash(f->fused));
    for (i = 0; i < 3; i++) {
        reaches(f, f->fused, tied[i], channels, before[i]);
        reaches(f, made, tied[i], channels, after[i]);
    }
    for (c = 0; c < channels; c++) {
        double all[2] = {0, 0};
        for (i = 0; i < 3; i++) {
            if (before[i][c] > 0 && before[0][c] > 0)
                assert_near(after[i][c] / before[i][c], after[0][c] / before[0][c],
                            1e-4 * (double)after[0][c] / (double)before[0][c]);
            all[0] = fmax(all[0], (double)before[i][c]);
            all[1] = fmax(all[1], (double)after[i][c]);
        }
        for (i = 0; i < 2; i++) {
            most[i] = fmax(most[i], all[i]);
            least[i] = fmin(least[i], all[i]);
        }
    }
    if (!(most[1] / least[1] < most[0] / least[0]))
        fail_msg("ranges %g to %g became %g to %g", least[0], most[0], least[1], most[1]);
    ptq_model_free(again);
    assert_ok(ptq_equalize_like(f->fused, made, &again, &err));
    assert_same_model(made, again);
    ptq_model_free(again);
    assert_ok(ptq_equalize_like(f->fused, f->fused, &again, &err));
    assert_same_model(f->fused, again);
    ptq_model_free(again);
    assert_ok(ptq_model_set_meta(made, "equalization", "conv1.relu 1 half", &err));
    assert_fails(PTQ_BAD_FILE, "channel 1 of conv1.relu",
                 ptq_equalize_like(f->fused, made, &again, &err));
    ptq_model_free(made);
}

/* Layers of an equalized model are compared in its own units: the error is that of few bits. */
static void equalized_layers(void **state) {
    fixture *f = (fixture *)*state;
    ptq_model *made = NULL;
    ptq_plan *plan = NULL;
    layer_report report;
    int i;

    assert_ok(ptq__equalize(f->plan, pictures_dataset(&f->p), &no_work, &made, &err));
    assert_non_null(strstr(ptq_model_get_meta(made, "equalization"), "relu "));
    assert_ok(ptq_plan_create(made, NULL, &plan, &err));
    assert_ok(compare_layers(f->plan, plan, pictures_dataset(&f->p), 3, &report, &err));
    assert_true(report.items > 8);
    for (i = 0; i < report.items; i++)
        if (report.item[i].sqnr_db < 100)
            fail_msg("%s: %g dB", report.item[i].name, report.item[i].sqnr_db);
    layer_report_free(&report);
    ptq_plan_free(plan);
    ptq_model_free(made);
}

static void equalization_refuses(void **state) {
    fixture *f = (fixture *)*state;
    ptq_convert_options o = with_scheme(bits("best", 4, 4), pictures_dataset(&f->p));
    ptq_model *coded = converted(f->fused, f->calibration, &o), *made = NULL;
    ptq_plan *plan = NULL;
    pictures others = f->p;
    ptq_dataset none = *o.images;

    assert_ok(ptq_plan_create(coded, NULL, &plan, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "quantized already",
                 ptq__equalize(plan, o.images, &no_work, &made, &err));
    ptq_plan_free(plan);
    ptq_model_free(coded);
    none.count = 0;
    assert_fails(PTQ_BAD_DATA, "no images", ptq__equalize(f->plan, &none, &no_work, &made, &err));
    o.images = &none;
    assert_fails(PTQ_NOT_READY, "equalization needs",
                 ptq_convert(f->fused, f->calibration, &o, &made, NULL, &err));
    others.seed++;
    o.images = pictures_dataset(&others);
    assert_fails(PTQ_BAD_DATA, "24 of 24 images",
                 ptq_convert(f->fused, f->calibration, &o, &made, NULL, &err));
    o.scheme.equalize = o.scheme.fit_ranges = 0;
    assert_fails(PTQ_BAD_DATA, "24 of 24 images",
                 ptq_convert(f->fused, f->calibration, &o, &made, NULL, &err));
    assert_null(made);
}

/* ---------------------------------------------------------------------------------------------
   Refitted weights */

/* Each helps at few bits: refitting over rounding alone, that over the nearest codes. */
static void refitting_helps(void **state) {
    static const int at[][2] = {{3, 8}, {4, 8}, {4, 4}, {3, 3}};
    fixture *f = (fixture *)*state;
    int i, k;

    for (i = 0; i < COUNT(at); i++) {
        double db[3];
        for (k = 0; k < 3; k++) {
            ptq_convert_options o =
                with_scheme(bits("best", at[i][0], at[i][1]), pictures_dataset(&f->p));
            ptq_model *m;
            o.scheme.equalize = 0;
            o.scheme.rounding = k ? PTQ_ROUNDING_LEARNED : PTQ_ROUNDING_NEAREST;
            o.scheme.refit = k == 2 ? PTQ_REFIT_BELOW_8 : PTQ_REFIT_NEVER;
            m = converted(f->fused, f->calibration, &o);
            db[k] = distance(f, m).sqnr_db;
            ptq_model_free(m);
        }
        if (!(db[2] > db[1] && db[1] > db[0]))
            fail_msg("%dx%d: nearest %.1f, learned %.1f, refitted %.1f dB", at[i][0], at[i][1],
                     db[0], db[1], db[2]);
    }
}

/* A channel without weights is its bias, however small that is, under every scheme that learns: its
   own scale has to hold what learning makes of the bias, which may be far more. */
static void channels_without_weights(void **state) {
    static const float biases[] = {0, 1e-31f, -3e-40f, 1e-10f, 0.5f};
    static const int widths[][2] = {{8, 8}, {4, 8}, {4, 4}, {2, 3}};
    static const char *const names[] = {"block1.conv2", "block2.conv1", "block3.conv2"};
    fixture *f = (fixture *)*state;
    int k, i, n;

    for (k = 0; k < COUNT(names); k++)
        for (i = 0; i < COUNT(biases); i++) {
            ptq_model *real = NULL;
            ptq_calibration *calibration;
            ptq_tensor *weight;
            char name[PTQ_NAME_SIZE];
            size_t taps;

            assert_ok(ptq_model_copy(f->fused, NULL, &real, &err));
            snprintf(name, sizeof name, "%s.weight", names[k]);
            weight = ptq_model_param(real, name);
            taps = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
            memset((float *)weight->data + taps, 0, taps * sizeof(float)); /* channel 1 */
            snprintf(name, sizeof name, "%s.bias", names[k]);
            numbers(real, name)[1] = biases[i];
            calibration = calibrated_on(real, pictures_dataset(&f->p));
            for (n = 0; n < COUNT(widths); n++) {
                ptq_convert_options o =
                    with_scheme(bits("best", widths[n][0], widths[n][1]), pictures_dataset(&f->p));
                ptq_model *m = NULL;
                const ptq_node *node;
                double bias;

                if (ptq_convert(real, calibration, &o, &m, NULL, &err))
                    fail_msg("%s, bias %g, w%da%d: %s", names[k], (double)biases[i], widths[n][0],
                             widths[n][1], err.text);
                node = &m->node[ptq_model_find(m, names[k])];
                if (widths[n][0] == 8) { /* nothing is refitted: the very bias, to a step */
                    bias = ((int32_t *)node->param[PTQ_PARAM_BIAS].data)[1] *
                           (double)node->param[PTQ_PARAM_WEIGHT].scale[1] *
                           (double)m->node[node->input[0]].q.scale;
                    assert_near(bias, biases[i], 1e-6 * fabs((double)biases[i]) + 1e-20);
                }
                ptq_model_free(m);
            }
            ptq_calibration_free(calibration);
            ptq_model_free(real);
        }
}

/* The bias ends the mean error: the mean logits of the images are float's, to half a step of the
   bias, s_in * s_w / 2, whatever the layers before did. */
static void assert_no_mean_error(fixture *f, ptq_scheme scheme) {
    ptq_convert_options o = with_scheme(scheme, pictures_dataset(&f->p));
    ptq_model *m = converted(f->fused, f->calibration, &o);
    ptq_evaluation a = evaluated(f->fused, o.images), b = evaluated(m, o.images);
    const ptq_node *fc = &m->node[ptq_model_logits(m)];
    size_t i;
    int c;

    for (c = 0; c < CLASSES; c++) {
        double step =
            (double)m->node[fc->input[0]].q.scale * (double)fc->param[PTQ_PARAM_WEIGHT].scale[c];
        double error = 0;
        for (i = 0; i < IMAGES; i++)
            error += (double)a.logits[i * CLASSES + (size_t)c] -
                     (double)b.logits[i * CLASSES + (size_t)c];
        assert_near(error / IMAGES, 0, step * 0.501 + 1e-4);
    }
    ptq_release(&a.memory);
    ptq_release(&b.memory);
    ptq_model_free(m);
}

static void mean_error_ends(void **state) {
    assert_no_mean_error((fixture *)*state, bits("best", 3, 3));
}

/* At 8 bits the switch does nothing unless it is always on. */
static void refits_below_8_only(void **state) {
    fixture *f = (fixture *)*state;
    ptq_convert_options o = with_scheme(bits("best", 8, 8), pictures_dataset(&f->p));
    ptq_model *a = converted(f->fused, f->calibration, &o), *b;
    char text[200];

    o.scheme.refit = PTQ_REFIT_NEVER;
    b = converted(f->fused, f->calibration, &o);
    assert_same_model(a, b);
    ptq_model_free(b);
    o.scheme.refit = PTQ_REFIT_ALWAYS;
    b = converted(f->fused, f->calibration, &o);
    assert_string_equal(ptq_model_get_meta(b, "scheme"),
                        "w8 per-channel mse refitted, a8 u8 minmax");
    ptq_model_free(b);
    ptq_model_free(a);
    o.scheme = bits("best", 4, 4);
    ptq_scheme_write(&o.scheme, text, sizeof text);
    assert_string_equal(text, "w4 per-channel mse refitted, a4 u8 minmax fitted, equalized");
    o.scheme.refit = (ptq_refit)7;
    assert_fails(PTQ_INVALID_ARGUMENT, "refit", ptq_scheme_check(&o.scheme, &err));
}

static void order_and_threads_do_not_matter(void **state) {
    fixture *f = (fixture *)*state;
    ptq_convert_options o = with_scheme(bits("best", 3, 4), pictures_dataset(&f->p));
    ptq_model *a = converted(f->fused, f->calibration, &o), *b;

    o.images = pictures_dataset(&f->back);
    o.work.threads = 3;
    b = converted(f->fused, f->calibration, &o);
    assert_same_model(a, b);
    ptq_model_free(b);
    ptq_model_free(a);
}

/* Per-tensor and affine weights, and grouped and depthwise layers, are learned too. */
static void every_kind_of_weights(void **state) {
    fixture *f = (fixture *)*state;
    ptq_convert_options o = with_scheme(bits("best", 4, 6), pictures_dataset(&f->p));
    ptq_conv_options conv;
    ptq_model *m = NULL, *fused;
    ptq_calibration *calibration;
    pictures p;
    int x;

    o.scheme.weight_per_tensor = 1;
    ptq_model_free(converted(f->fused, f->calibration, &o));
    o.scheme.weight_affine = 1;
    o.scheme.weight_method = PTQ_METHOD_MINMAX;
    ptq_model_free(converted(f->fused, f->calibration, &o));
    memset(&conv, 0, sizeof conv);
    conv.channels = 4;
    conv.kernel_h = 3;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 6, 6, 2);
    conv.groups = 2;
    x = ptq_add_op(m, PTQ_OP_RELU, "r1", ptq_add_conv2d(m, "grouped", x, &conv));
    conv.groups = 4;
    conv.no_bias = 1;
    x = ptq_add_op(m, PTQ_OP_RELU6, "r2", ptq_add_conv2d(m, "depthwise", x, &conv));
    ptq_add_dense(m, "fc", ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", x), 3);
    fill_model(m, 3);
    fused = fused_of(m);
    p = pictures_for(fused, 8, 4);
    calibration = calibrated_on(fused, pictures_dataset(&p));
    o = with_scheme(bits("best", 4, 4), pictures_dataset(&p));
    ptq_model_free(converted(fused, calibration, &o));
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
}

/* ---------------------------------------------------------------------------------------------
   Bias correction */

/* Pixels 40 and 200, mean 120 and deviation 80, through a convolution by 1 and a batch norm to mean
   1 and deviation 2. */
static ptq_model *normed_model(void) {
    ptq_conv_options conv;
    ptq_model *m = NULL;
    int x;

    memset(&conv, 0, sizeof conv);
    conv.channels = 1;
    conv.kernel_h = 1;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_conv2d(m, "a", ptq_add_input(m, "input", 1, 1, 1), &conv);
    x = ptq_add_op(m, PTQ_OP_RELU, "relu", ptq_add_batch_norm(m, "norm", x, 0));
    ptq_add_dense(m, "fc", x, 2);
    numbers(m, "a.weight")[0] = 1;
    numbers(m, "norm.weight")[0] = 2;
    numbers(m, "norm.bias")[0] = 1;
    numbers(m, "norm.running_mean")[0] = 120;
    numbers(m, "norm.running_var")[0] = 6400;
    numbers(m, "fc.weight")[0] = 1;
    numbers(m, "fc.weight")[1] = 0.4f;
    return m;
}

/* With 2 bits for the tensor the weight 0.4 becomes 0, which takes 0.4 E x from the second logit.
   The two pictures have x = 0 and 3, mean 1.5; the normal distribution N(1, 4) clipped at 0 has the
   mean Phi(1/2) + 2 phi(1/2) = 0.6914625 + 2 * 0.3520653, whether batch norm tells mean and
   deviation or the pixels do. Another batch norm is believed. */
static void biases_by_hand(void **state) {
    static const struct {
        int measured, computed;
        float beta; /* of the batch norm shown; 0: none is */
        double expected;
    } table[] = {{0, 0, 0, 0},
                 {1, 0, 0, 0.4 * 1.5},
                 {0, 1, 0, 0.4 * 1.3955931},
                 {0, 1, 1, 0.4 * 1.3955931},
                 {0, 1, -1, 0.4 * 0.3955931}};
    ptq_model *m = normed_model(), *fused = NULL;
    ptq_dataset data = full_pictures();
    ptq_calibration *calibration;
    size_t i;

    (void)state;
    assert_ok(ptq_fuse(m, &fused, NULL, &err));
    calibration = calibrated_on(fused, &data);
    for (i = 0; i < COUNT(table); i++) {
        ptq_convert_options o = with_scheme(bits("ort-s8", 2, 8), &data);
        const ptq_node *fc;
        ptq_model *made;
        double step;

        if (table[i].measured)
            o.scheme.bias = PTQ_BIAS_CORRECTION_EMPIRICAL;
        numbers(m, "norm.bias")[0] = table[i].beta;
        made = converted(fused, calibration, &o);
        if (table[i].computed)
            assert_ok(correct_biases(fused, table[i].beta < 0 || table[i].beta > 0 ? m : NULL,
                                     calibration, made, &err));
        fc = &made->node[ptq_model_logits(made)];
        step =
            (double)made->node[fc->input[0]].q.scale * (double)fc->param[PTQ_PARAM_WEIGHT].scale[0];
        assert_near(((const int32_t *)fc->param[PTQ_PARAM_BIAS].data)[0] * step, 0, step * 0.501);
        assert_near(((const int32_t *)fc->param[PTQ_PARAM_BIAS].data)[1] * step, table[i].expected,
                    step * 0.51);
        ptq_model_free(made);
    }
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
    ptq_model_free(m);
}

/* Measured correction brings a network closer to float and ends the mean error. */
static void corrected_network(void **state) {
    fixture *f = (fixture *)*state;
    ptq_convert_options o = with_scheme(bits("tflite", 4, 8), pictures_dataset(&f->p));
    ptq_model *made = NULL;
    double db[2];
    char text[200];
    int i;

    o.scheme.code_logits = 0;
    for (i = 0; i < 2; i++) {
        ptq_model *m;
        o.scheme.bias = (ptq_bias_correction)i;
        o.images = i ? pictures_dataset(&f->p) : NULL;
        m = converted(f->fused, f->calibration, &o);
        db[i] = distance(f, m).sqnr_db;
        ptq_model_free(m);
    }
    if (!(db[1] > db[0]))
        fail_msg("none %g, empirical %g dB", db[0], db[1]);
    o.scheme.bias = PTQ_BIAS_CORRECTION_EMPIRICAL;
    assert_no_mean_error(f, o.scheme);
    ptq_scheme_write(&o.scheme, text, sizeof text);
    assert_string_equal(text, "w4 per-channel minmax bias-empirical, a8 s8 minmax");
    o.images = NULL;
    assert_fails(PTQ_NOT_READY, "empirical bias correction need",
                 ptq_convert(f->fused, f->calibration, &o, &made, NULL, &err));
    assert_null(made);
    o.scheme.bias = (ptq_bias_correction)2;
    assert_fails(PTQ_INVALID_ARGUMENT, "bias correction", ptq_scheme_check(&o.scheme, &err));
}

/* ---------------------------------------------------------------------------------------------
   Ranges by the error of the logits, and what a slice of the images confirms */

/* Plain weights of 8 bits are what ranges are fitted with: there the gain is the one seen then. */
static void fitted_ranges(void **state) {
    fixture *f = (fixture *)*state;
    ptq_convert_options o = with_scheme(bits("tflite", 8, 3), pictures_dataset(&f->p));
    ptq_model *plain = converted(f->fused, f->calibration, &o), *fitted, *again;

    o.scheme.fit_ranges = 1;
    fitted = converted(f->fused, f->calibration, &o);
    o.images = pictures_dataset(&f->back);
    o.work.threads = 2;
    again = converted(f->fused, f->calibration, &o);
    assert_same_model(fitted, again);
    if (!(distance(f, fitted).sqnr_db > distance(f, plain).sqnr_db))
        fail_msg("fitted %g dB, before %g dB", distance(f, fitted).sqnr_db,
                 distance(f, plain).sqnr_db);
    ptq_model_free(again);
    ptq_model_free(fitted);
    o.scheme.activation_bits = 8; /* nothing to fit */
    fitted = converted(f->fused, f->calibration, &o);
    assert_string_equal(ptq_model_get_meta(fitted, "scheme"), "w8 per-channel minmax, a8 s8 minmax"
                                                              ", logits coded");
    ptq_model_free(fitted);
    ptq_model_free(plain);
}

/* A scheme that does what the text of the decisions says, without deciding. */
static ptq_scheme as_decided(ptq_scheme s, const char *text) {
    s.confirm = 0;
    if (strstr(text, "no fitted ranges"))
        s.fit_ranges = 0;
    if (strstr(text, "no equalization"))
        s.equalize = 0;
    if (strstr(text, "no refitted weights"))
        s.refit = PTQ_REFIT_NEVER;
    if (strstr(text, "no learned rounding"))
        s.rounding = PTQ_ROUNDING_NEAREST;
    return s;
}

/* Each choice is decided, by the figures that are told; the model is the one that they lead to. */
static void confirmed_choices(void **state) {
    enum { MANY = 200 };
    static size_t order[MANY];
    fixture *f = (fixture *)*state;
    pictures p = pictures_for(f->fused, MANY, 21), back = p;
    ptq_calibration *calibration = calibrated_on(f->fused, pictures_dataset(&p));
    ptq_convert_options o = with_scheme(bits("best", 3, 4), pictures_dataset(&p));
    ptq_model *m = converted(f->fused, calibration, &o), *again;
    const char *text = ptq_model_get_meta(m, "confirmed"), *at;
    double with, without;
    int i, decisions = 0;

    assert_non_null(text);
    for (at = text; at; at = strchr(at, ';'), at = at ? at + 2 : NULL, decisions++) {
        assert_int_equal(sscanf(strstr(at, "KL "), "KL %lf, without %lf", &with, &without), 2);
        if ((strncmp(at, "no ", 3) == 0) == (without > with + 1e-5))
            fail_msg("decided wrongly: %s", at);
    }
    assert_true(decisions >= 3 && decisions <= 4);
    o.scheme = as_decided(o.scheme, text);
    again = converted(f->fused, calibration, &o);
    assert_null(ptq_model_get_meta(again, "confirmed"));
    assert_ok(ptq_model_set_meta(again, "confirmed", text, &err));
    assert_same_model(m, again);
    ptq_model_free(again);
    for (i = 0; i < MANY; i++)
        order[i] = (size_t)(MANY - 1 - i);
    back.order = order;
    o = with_scheme(bits("best", 3, 4), pictures_dataset(&back));
    o.work.threads = 2;
    if (!TEST_SANITIZED) { /* takes long */
        again = converted(f->fused, calibration, &o);
        assert_same_model(m, again);
        ptq_model_free(again);
    }
    ptq_model_free(m);
    back.count = MANY - 1; /* too few to confirm anything */
    o.images = pictures_dataset(&back);
    m = converted(f->fused, calibration, &o);
    assert_null(ptq_model_get_meta(m, "confirmed"));
    ptq_model_free(m);
    ptq_calibration_free(calibration);
}

/* What only the scheme of one layer asks for is decided as well, and holds for that scheme. */
static void confirmed_for_overrides(void **state) {
    fixture *f = (fixture *)*state;
    pictures p = pictures_for(f->fused, 200, 21);
    ptq_calibration *calibration = calibrated_on(f->fused, pictures_dataset(&p));
    ptq_convert_options o = with_scheme(bits("best", 4, 4), pictures_dataset(&p));
    ptq_override one = {"block2.conv?", o.scheme};
    ptq_model *m, *again;
    const char *text;

    o.scheme.rounding = PTQ_ROUNDING_NEAREST;
    one.scheme.weight_bits = 3;
    o.override = &one;
    o.overrides = 1;
    m = converted(f->fused, calibration, &o);
    text = ptq_model_get_meta(m, "confirmed");
    assert_non_null(text);
    assert_non_null(strstr(text, "learned rounding: KL "));
    o.scheme = as_decided(o.scheme, text);
    one.scheme = as_decided(one.scheme, text);
    again = converted(f->fused, calibration, &o);
    assert_ok(ptq_model_set_meta(again, "confirmed", text, &err));
    assert_same_model(m, again);
    ptq_model_free(again);
    ptq_model_free(m);
    ptq_calibration_free(calibration);
}

/* ---------------------------------------------------------------------------------------------
   Divergence, sensitivity, mixed precision */

/* softmax (1/2, 1/2) against (3/4, 1/4): KL = ln(2/3) / 2 + ln(2) / 2. Logits (1, -1) against (1,
   0): signal 2, noise 1. */
static void divergence_by_hand(void **state) {
    float x[4] = {0, 0, 1, -1}, y[4] = {1.0986123f, 0, 1, 0};
    int label[2] = {1, 0}, first[2] = {0, 0}, second[2] = {0, 0};
    ptq_evaluation a, b;
    ptq_comparison d;
    double p = 1 / (1 + exp(-2)), q = 1 / (1 + exp(-1));

    (void)state;
    memset(&a, 0, sizeof a);
    a.total = 1;
    a.classes = 2;
    a.label = label;
    a.prediction = first;
    a.logits = x;
    b = a;
    b.prediction = second;
    b.logits = y;
    assert_ok(ptq_compare(&a, &b, &d, &err));
    assert_near(d.kl, 0.5 * log(2.0 / 3) + 0.5 * log(2.0), 1e-6);
    assert_int_equal(d.agree, 1);
    a.logits += 2;
    b.logits += 2;
    assert_ok(ptq_compare(&a, &b, &d, &err));
    assert_near(d.sqnr_db, 10 * log10(2), 1e-9);
    assert_near(d.kl, p * log(p / q) + (1 - p) * log((1 - p) / (1 - q)), 1e-7);
    assert_ok(ptq_compare(&a, &a, &d, &err));
    assert_true(d.sqnr_db > 1e300 && d.kl <= 0);
    b.classes = 3;
    assert_fails(PTQ_INVALID_ARGUMENT, "2 and 3 classes", ptq_compare(&a, &b, &d, &err));
}

static search_options search_for(ptq_scheme scheme, const ptq_dataset *images) {
    search_options o;

    memset(&o, 0, sizeof o);
    o.scheme = scheme;
    o.images = images;
    return o;
}

static void assert_same_divergence(const divergence *a, const divergence *b) {
    assert_memory_equal(a, b, sizeof *a);
}

/* Each figure is that of converting and comparing by hand; the order is falling. */
static void sensitivity_of_nodes(void **state) {
    fixture *f = (fixture *)*state;
    search_options o = search_for(bits("tflite", 3, 4), pictures_dataset(&f->p));
    node_ranking r, again;
    advice_list list;
    ptq_convert_options c = with_scheme(o.scheme, o.images);
    ptq_override only;
    divergence d;
    ptq_model *m;
    int i;

    c.scheme = o.scheme;
    assert_ok(rank_nodes(f->fused, f->calibration, &o, &r, &err));
    assert_int_equal(r.items, 11);
    assert_int_equal(r.images, IMAGES);
    for (i = 1; i < r.items; i++)
        assert_true(r.item[i - 1].cost.kl >= r.item[i].cost.kl);
    m = converted(f->fused, f->calibration, &c);
    d = distance(f, m);
    assert_same_divergence(&d, &r.whole);
    ptq_model_free(m);
    only.pattern = r.item[0].node;
    only.scheme = o.scheme;
    memset(&c.scheme, 0, sizeof c.scheme);
    c.scheme.mode = PTQ_MODE_FLOAT;
    c.override = &only;
    c.overrides = 1;
    m = converted(f->fused, f->calibration, &c);
    d = distance(f, m);
    assert_same_divergence(&d, &r.item[0].cost);
    ptq_model_free(m);
    assert_ok(find_advice(f->fused, f->calibration, &o, &r, &list, &err));
    for (i = 0; i < list.items; i++) {
        assert_true(list.item[i].gain_pp > 0);
        assert_true(i == 0 || list.item[i - 1].gain_pp >= list.item[i].gain_pp);
        assert_non_null(strstr(list.item[i].text, "would win back"));
    }
    o.images = pictures_dataset(&f->back);
    o.work.threads = 2;
    assert_ok(rank_nodes(f->fused, f->calibration, &o, &again, &err));
    for (i = 0; i < r.items; i++) {
        assert_string_equal(r.item[i].node, again.item[i].node);
        assert_same_divergence(&r.item[i].cost, &again.item[i].cost);
    }
    ptq_release(&again.memory);
    ptq_release(&r.memory);
    o.scheme = preset("fp16");
    assert_fails(PTQ_INVALID_ARGUMENT, "must be one of integers",
                 rank_nodes(f->fused, f->calibration, &o, &again, &err));
}

static int stop_at_three(void *user, size_t done, size_t total) {
    (void)user;
    (void)total;
    return done == 3;
}

static void searches_can_be_cancelled(void **state) {
    fixture *f = (fixture *)*state;
    search_options o = search_for(preset("tflite"), pictures_dataset(&f->p));
    node_ranking r;
    mix_goal goal = {20000, 0, 0, 0, 0};
    ptq_model *m = NULL;

    o.work.progress = stop_at_three;
    assert_fails(PTQ_CANCELLED, "3 of", rank_nodes(f->fused, f->calibration, &o, &r, &err));
    assert_fails(PTQ_CANCELLED, "3 of",
                 convert_mixed(f->fused, f->calibration, &o, &goal, &m, NULL, &err));
    assert_null(m);
}

/* The model returned has the bits and the size that the report says; the frontier falls. */
static void mixed_precision(void **state) {
    fixture *f = (fixture *)*state;
    search_options o = search_for(bits("tflite", 0, 0), pictures_dataset(&f->p));
    mix_goal goal = {0, 4, 0, 0, 0};
    mix_report r;
    ptq_model *m = NULL;
    const uint8_t *chosen;
    size_t all, bytes = 0;
    int i, p;

    assert_ok(convert_mixed(f->fused, f->calibration, &o, &goal, &m, &r, &err));
    assert_int_equal(r.met, 1);
    assert_int_equal(r.nodes, 10);
    assert_true(r.item[r.chosen].average_bits <= 4 && r.item[r.chosen - 1].average_bits > 4);
    assert_near(r.item[0].average_bits, 32, 0);
    assert_near(r.item[r.items - 1].average_bits, 2, 0);
    for (i = 1; i < r.items; i++)
        assert_true(r.item[i].bytes < r.item[i - 1].bytes);
    chosen = r.bits + r.chosen * r.nodes;
    for (i = 0; i < r.nodes; i++)
        assert_int_equal(m->node[ptq_model_find(m, r.node[i])].param[PTQ_PARAM_WEIGHT].bits,
                         chosen[i]);
    for (i = 0; i < m->nodes; i++)
        for (p = 0; p < PTQ_PARAM_COUNT; p++)
            bytes += m->node[i].param[p].size + 4 * (size_t)m->node[i].param[p].scales;
    assert_int_equal(bytes, r.item[r.chosen].bytes);
    all = r.item[r.items - 1].bytes;
    ptq_release(&r.memory);
    ptq_model_free(m);
    m = NULL;
    goal.average_bits = 0;
    goal.bytes = all - 1; /* cannot be */
    assert_ok(convert_mixed(f->fused, f->calibration, &o, &goal, &m, &r, &err));
    assert_int_equal(r.met, 0);
    assert_int_equal(r.chosen, r.items - 1);
    assert_non_null(m);
    ptq_release(&r.memory);
    ptq_model_free(m);
    goal.bytes = 0;
    goal.drop_pp = 100; /* anything will do: the smallest */
    assert_ok(convert_mixed(f->fused, f->calibration, &o, &goal, NULL, &r, &err));
    assert_int_equal(r.met, 1);
    assert_int_equal(r.chosen, r.items - 1);
    ptq_release(&r.memory);
}

/* Whatever the goal: it is kept to, or the closest model comes with the whole frontier; and always
   the same, whatever the order of the images and the threads. */
static void goals_are_kept(void **state) {
    fixture *f = (fixture *)*state;
    search_options o = search_for(bits("tflite", 0, 0), pictures_dataset(&f->p));
    mix_goal met = {0, 3.5, 0, 0, 0}, missed = {0, 1.5, 0, 0, 0}; /* fewer than 2 bits there are not */
    mix_report r, again;
    ptq_model *a = NULL, *b = NULL;
    int k;

    assert_ok(convert_mixed(f->fused, f->calibration, &o, &met, &a, &r, &err));
    assert_int_equal(r.met, 1);
    assert_true(r.item[r.chosen].average_bits <= 3.5);
    o.images = pictures_dataset(&f->back);
    o.work.threads = 2;
    assert_ok(convert_mixed(f->fused, f->calibration, &o, &missed, &b, &again, &err));
    assert_int_equal(again.met, 0);
    assert_int_equal(again.chosen, again.items - 1);
    assert_true(again.item[again.chosen].measured && again.items > again.nodes);
    assert_int_equal(r.items, again.items); /* the goal chooses from it, and does not change it */
    assert_memory_equal(r.bits, again.bits, (size_t)(r.items * r.nodes));
    for (k = 0; k < r.items; k++)
        assert_near(r.item[k].predicted, again.item[k].predicted, 0);
    ptq_model_free(a);
    ptq_model_free(b);
    ptq_release(&r.memory);
    ptq_release(&again.memory);
}

/* ---------------------------------------------------------------------------------------------
   Every allocation fails once, and all after it */

typedef struct searched {
    const ptq_model *fused;
    const ptq_calibration *calibration;
    pictures p;
} searched;

static ptq_status run_all(void *user, ptq_allocator allocator) {
    searched *on = (searched *)user;
    const ptq_dataset *data = pictures_dataset(&on->p);
    search_options options = search_for(bits("tflite", 4, 0), data);
    ptq_convert_options o = with_scheme(bits("best", 4, 4), data);
    mix_goal goal = {0, 4, 0, 0, 0};
    ptq_model *m = NULL, *mixed = NULL;
    node_ranking sensitivity;
    mix_report mix;
    ptq_status s;

    memset(&sensitivity, 0, sizeof sensitivity);
    memset(&mix, 0, sizeof mix);
    o.work.allocator = options.work.allocator = allocator;
    (void)((s = ptq_convert(on->fused, on->calibration, &o, &m, NULL, &err)) ||
           (s = rank_nodes(on->fused, on->calibration, &options, &sensitivity, &err)) ||
           (s = convert_mixed(on->fused, on->calibration, &options, &goal, &mixed, &mix, &err)));
    ptq_release(&mix.memory);
    ptq_model_free(mixed);
    ptq_release(&sensitivity.memory);
    ptq_model_free(m);
    return s;
}

static void every_allocation_may_fail(void **state) {
    ptq_model *m = NULL, *fused;
    ptq_calibration *calibration;
    searched on;
    int x;

    (void)state;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 2, 2, 2);
    ptq_add_dense(m, "fc", ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", x), 3);
    fill_model(m, 5);
    fused = fused_of(m);
    on.p = pictures_for(fused, 2, 3);
    calibration = calibrated_on(fused, pictures_dataset(&on.p));
    on.fused = fused;
    on.calibration = calibration;
    assert_true(fail_each_forked(run_all, NULL, &on, 1) > 300);
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equalized_by_hand),
        cmocka_unit_test(equalized_network),
        cmocka_unit_test(equalized_layers),
        cmocka_unit_test(equalization_refuses),
        cmocka_unit_test(channels_without_weights),
        cmocka_unit_test(refitting_helps),
        cmocka_unit_test(mean_error_ends),
        cmocka_unit_test(refits_below_8_only),
        cmocka_unit_test(order_and_threads_do_not_matter),
        cmocka_unit_test(every_kind_of_weights),
        cmocka_unit_test(divergence_by_hand),
        cmocka_unit_test(sensitivity_of_nodes),
        cmocka_unit_test(searches_can_be_cancelled),
        cmocka_unit_test(biases_by_hand),
        cmocka_unit_test(corrected_network),
        cmocka_unit_test(fitted_ranges),
        cmocka_unit_test(confirmed_choices),
        cmocka_unit_test(mixed_precision),
        cmocka_unit_test(confirmed_for_overrides),
        cmocka_unit_test(goals_are_kept),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
