/* The integer run: every tensor of random networks against formulas written a second time, and what
   is promised of padding, dead channels, large biases, batches, memory and results. */
#include "quantized.h"

#include "measure/expect.h"
#include "measure/explain.h"

/* ---------------------------------------------------------------------------------------------
   Random networks */

static ptq_scheme random_scheme(test_random *r) {
    ptq_scheme s;

    memset(&s, 0, sizeof s);
    s.weight_bits = random_int(r, 0, 2) ? 8 : random_int(r, 2, 8);
    s.activation_bits = random_int(r, 0, 2) ? 8 : random_int(r, 2, 8);
    s.weight_per_tensor = random_int(r, 0, 1);
    s.weight_affine = s.weight_per_tensor && random_int(r, 0, 1);
    s.weight_full_range = random_int(r, 0, 1);
    s.weight_method = !s.weight_affine && random_int(r, 0, 1) ? PTQ_METHOD_MSE : PTQ_METHOD_MINMAX;
    s.activation_signed = random_int(r, 0, 1);
    s.activation_symmetric = random_int(r, 0, 3) == 0;
    s.activation_method = (ptq_method)random_int(r, 0, PTQ_METHOD_COUNT - 1);
    s.code_logits = random_int(r, 0, 1);
    s.rounding = random_int(r, 0, 1) ? PTQ_ROUNDING_LEARNED : PTQ_ROUNDING_NEAREST;
    return s;
}

/* Half of the networks have preprocessing, so that pixels go through a table. */
static ptq_model *random_fused(uint64_t seed) {
    ptq_model *m = seed % 3 ? random_graph(seed) : random_branches(seed);
    int c;

    for (c = 0; c < 7 && seed % 2; c++) {
        m->mean[c] = 100.5f + 7 * (float)c;
        m->std[c] = 61.25f - 5 * (float)c;
    }
    return fused_of(m);
}

/* Returns how many elements were compared. */
static size_t compare_network(uint64_t seed) {
    test_random r = {0};
    ptq_model *fused = random_fused(seed), *m;
    pictures p = pictures_for(fused, 8, seed);
    ptq_dataset data = *pictures_dataset(&p);
    ptq_calibration *calibration = calibrated_on(fused, &data);
    ptq_convert_options o;
    uint8_t pixels[13 * 13 * 7];
    size_t compared = 0, i;
    ptq_plan_options planning;
    ptq_session_options keep;
    test_run run = {NULL, NULL};
    int n, label;

    r.state = seed + 500;
    o = with_scheme(random_scheme(&r), &data);
    m = converted(fused, calibration, &o);
    memset(&planning, 0, sizeof planning);
    do /* any instruction set that this processor has */
        planning.isa = (ptq_isa)random_int(&r, 0, PTQ_ISA_COUNT - 1);
    while (ptq_isa_support(planning.isa) != PTQ_SUPPORT_AVAILABLE);
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    assert_ok(ptq_plan_create(m, &planning, &run.plan, &err));
    assert_ok(ptq_session_create(run.plan, &keep, &run.session, &err));
    assert_true(ptq_plan_get_info(run.plan)->pixels <= sizeof pixels);
    for (i = 0; i < 3; i++) { /* the last picture is noise, to reach both rails */
        assert_ok(data.get(data.user, i, pixels, &label, &err));
        if (i == 2)
            random_pixels(&r, pixels, sizeof pixels);
        assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
        for (n = 1; n < m->nodes; n++)
            compared += check_node(m, run.session, n);
    }
    close_run(&run);
    ptq_model_free(m);
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
    return compared;
}

static void random_networks(void **state) {
    int seed, seeds = how_many(TEST_SANITIZED ? 60 : 240, 60);
    size_t compared = 0;

    (void)state;
    for (seed = 1; seed <= seeds; seed++)
        compared += compare_network((uint64_t)seed);
    assert_true(compared > (size_t)seeds * 100);
}

/* What the pixels become: one table with the preprocessing in it. */
static void pixels_through_the_table(void **state) {
    ptq_model *fused = random_fused(1), *m;
    pictures p = pictures_for(fused, 4, 1);
    ptq_calibration *calibration = calibrated_on(fused, pictures_dataset(&p));
    int kind, c, i;

    (void)state;
    for (kind = 0; kind < 2; kind++) {
        ptq_convert_options o = with_scheme(preset(kind ? "tflite" : "best"), pictures_dataset(&p));
        uint8_t pixels[13 * 13 * 7];
        test_run run;
        kept in;
        size_t n;
        m = converted(fused, calibration, &o);
        assert_int_equal(m->node[0].q.type, kind ? PTQ_TYPE_S8 : PTQ_TYPE_U8);
        run = open_run(m, 1);
        n = ptq_plan_get_info(run.plan)->pixels;
        for (i = 0; i < (int)n; i++)
            pixels[i] = (uint8_t)(i * 37);
        assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
        in = kept_tensor(run.session, &m->node[0], "input");
        for (i = 0; i < (int)n; i++) {
            float x;
            c = i % p.c;
            x = ((float)pixels[i] - m->mean[c]) / m->std[c];
            assert_int_equal(code_at(&in, (size_t)i),
                             code_of(x / in.q.scale, limits_of(&in.q, PTQ_ACTIVATION_NONE)));
        }
        close_run(&run);
        ptq_model_free(m);
    }
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
}

/* ---------------------------------------------------------------------------------------------
   Padding, dead channels, biases */

/* Weights of 1, and codes that lie 1 or 3 above the zero point of 7: every tap inside the picture
   adds that, every tap in the padding nothing. */
static void padding_adds_nothing(void **state) {
    static const int ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const int taps[] = {4, 6, 4, 6, 9, 6, 4, 6, 4};
    static const float one = 1;
    ptq_model *m = model_of_text("ptq-graph 1\n"
                                 "input input shape=3x3x1 std=0.5 mean=3.5 q=u8:8:1:7\n"
                                 "conv conv2d in=input channels=1 kernel=3x3 w=s8 q=u8:8:1:5\n");
    uint8_t pixels[9];
    test_run run;
    kept in, out;
    size_t i;
    int k;

    (void)state;
    set_weight(m, "conv.weight", &one, 1, 0, ones);
    for (k = 0; k < 2; k++) {
        run = open_run(m, 1);
        for (i = 0; i < 9; i++) /* (p - 3.5) / 0.5 + 7 = 2 p */
            pixels[i] = (uint8_t)(k ? 5 : 4);
        assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
        in = kept_tensor(run.session, &m->node[0], "input");
        out = kept_tensor(run.session, &m->node[1], "conv");
        for (i = 0; i < 9; i++) {
            assert_int_equal(code_at(&in, i), k ? 10 : 8);
            assert_int_equal(code_at(&out, i), 5 + taps[i] * (k ? 3 : 1));
        }
        close_run(&run);
    }
    ptq_model_free(m);
}

/* conv (channels) -> pool -> dense, on 4x4x2 pictures. */
static ptq_model *small_model(int channels, int no_bias) {
    ptq_conv_options o;
    ptq_model *m = NULL;
    int last;

    memset(&o, 0, sizeof o);
    o.channels = channels;
    o.kernel_h = 3;
    o.no_bias = no_bias;
    assert_ok(ptq_model_create(NULL, &m, &err));
    last = ptq_add_input(m, "input", 4, 4, 2);
    last = ptq_add_conv2d(m, "conv", last, &o);
    last = ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", last);
    ptq_add_dense(m, "fc", last, 3);
    fill_model(m, 21);
    return m;
}

/* Converts the model, runs it, checks every node, and returns it with the kept result of `conv`. */
static void check_small(const ptq_model *fused, const ptq_scheme *scheme, ptq_model **out) {
    pictures p = pictures_for(fused, 5, 3);
    ptq_dataset data = *pictures_dataset(&p);
    ptq_calibration *calibration = calibrated_on(fused, &data);
    ptq_convert_options o = with_scheme(*scheme, &data);
    uint8_t pixels[32];
    float logits[3], wanted[3];
    test_run run, real;
    int n, label;

    *out = converted(fused, calibration, &o);
    run = open_run(*out, 1);
    real = open_run(fused, 0);
    assert_ok(data.get(data.user, 1, pixels, &label, &err));
    assert_ok(ptq_run(run.session, pixels, 1, logits, NULL, &err));
    assert_ok(ptq_run(real.session, pixels, 1, wanted, NULL, &err));
    for (n = 1; n < (*out)->nodes; n++)
        assert_true(check_node(*out, run.session, n) > 0);
    for (n = 0; n < 3; n++)
        if (!is_near((double)logits[n], (double)wanted[n], 0.02 * 255, 0.05))
            fail_msg("logit %d is %g, float %g", n, (double)logits[n], (double)wanted[n]);
    close_run(&real);
    close_run(&run);
    ptq_calibration_free(calibration);
}

static void channels_without_weights(void **state) {
    static const char *const name[] = {"best", "ort-s8", "ort-u8", "w4a8"};
    int no_bias, i, k;

    (void)state;
    for (no_bias = 0; no_bias < 2; no_bias++)
        for (i = 0; i < COUNT(name); i++) {
            ptq_model *fused = fused_of(small_model(4, no_bias)), *m;
            float *w = (float *)ptq_model_param(fused, "conv.weight")->data;
            ptq_scheme scheme = preset(name[i]);
            const ptq_node *conv;
            memset(w + 18, 0, 18 * sizeof *w); /* channel 1 */
            if (!no_bias)
                ((float *)ptq_model_param(fused, "conv.bias")->data)[1] = 40;
            check_small(fused, &scheme, &m);
            conv = &m->node[ptq_model_find(m, "conv")];
            for (k = 18; k < 36; k++)
                assert_int_equal(weight_at(conv, (size_t)k), 0);
            if (no_bias && !scheme.weight_per_tensor)
                assert_true(weight_scale(conv, 1) == 1);
            if (!no_bias) { /* what is left of the channel is its bias */
                double unit = (double)m->node[0].q.scale * (double)weight_scale(conv, 1);
                int32_t code = ((const int32_t *)conv->param[PTQ_PARAM_BIAS].data)[1];
                assert_near(code * unit, 40, unit / 2 + 1e-5);
                assert_true(unit < 0.1);
            }
            ptq_model_free(m);
            ptq_model_free(fused);
        }
}

/* Channel 1 of a converted layer is nothing but its bias: in its codes, and in what it gives. */
static void expect_only_bias(const ptq_model *m, const ptq_session *session, const char *name,
                             double bias, const char *what) {
    const ptq_node *conv = &m->node[ptq_model_find(m, name)];
    const ptq_qparams *q = conv->residual ? &conv->mid : &conv->q;
    size_t taps = ptq_tensor_elements(&conv->param[PTQ_PARAM_WEIGHT]) / (size_t)conv->channels, i;
    kept out;
    int32_t want;

    if (ptq_node_mode(m, ptq_model_find(m, name)) != PTQ_MODE_INTEGER || q->type == PTQ_TYPE_F32)
        return;
    for (i = taps; i < 2 * taps; i++)
        if (weight_at(conv, i))
            fail_msg("%s: %s has weights", what, name);
    if (strstr(what, "equalized"))
        return;
    out = kept_tensor(session, conv, conv->residual ? name : conv->out);
    want = ptq_quantize((float)bias, q);
    if (conv->act != PTQ_ACTIVATION_NONE && want < q->zero_point)
        want = q->zero_point;
    for (i = 1; i < ptq_tensor_elements(&out.view); i += (size_t)conv->channels)
        if (abs(code_at(&out, i) - want) > 1)
            fail_msg("%s: %s gives %d, not %d", what, name, (int)code_at(&out, i), (int)want);
}

static void check_dead_channel(const ptq_model *fused, const ptq_calibration *calibration,
                               const ptq_dataset *data, ptq_scheme scheme, float bias, int refitted,
                               int computed) {
    ptq_convert_options o = with_scheme(scheme, data);
    ptq_model *m = NULL;
    uint8_t pixels[192];
    char what[200];
    test_run run;
    int label, i;

    ptq_scheme_write(&scheme, what, sizeof what);
    if (ptq_convert(fused, calibration, &o, &m, NULL, &err))
        fail_msg("%s, bias %g: %s", what, (double)bias, err.text);
    if (computed)
        assert_ok(correct_biases(fused, NULL, calibration, m, &err));
    run = open_run(m, 1);
    assert_ok(data->get(data->user, 1, pixels, &label, &err));
    assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
    for (i = 0; i < fused->nodes; i++)
        if (fused->node[i].op == PTQ_OP_CONV2D && !refitted)
            expect_only_bias(m, run.session, fused->node[i].name, (double)bias, what);
    close_run(&run);
    ptq_model_free(m);
}

/* Every convolution of a ResNet8 has a filter of zeros, or of next to nothing, with biases that are
   large, tiny, denormal or 0; all presets, all bits, all corrections of the bias. Weights of 1e-20
   are weights still, which learning may change. */
static void dead_filters_under_every_scheme(void **state) {
    static const float biases[] = {0, 40, -7, 1e-31f, -3e-40f, 1e-20f, 40};
    static const float sizes[] = {0, 1e-38f, 0, 0, 1e-38f, 1e-38f, 1e-20f};
    int b, i;

    (void)state;
    for (b = 0; b < COUNT(biases); b += how_many(1, 3)) {
        ptq_model *fused = fused_of(random_resnet8(8, 3, 5, 5, NULL));
        float bias = biases[b];
        ptq_calibration *calibration;
        ptq_dataset data;
        pictures p;
        for (i = 0; i < fused->nodes; i++) {
            const ptq_node *conv = &fused->node[i];
            size_t taps, k;
            if (conv->op != PTQ_OP_CONV2D)
                continue;
            taps = ptq_tensor_elements(&conv->param[PTQ_PARAM_WEIGHT]) / (size_t)conv->channels;
            for (k = taps; k < 2 * taps; k++)
                ((float *)conv->param[PTQ_PARAM_WEIGHT].data)[k] *= sizes[b];
            ((float *)conv->param[PTQ_PARAM_BIAS].data)[1] = bias;
        }
        p = pictures_for(fused, 6, 3);
        data = *pictures_dataset(&p);
        calibration = calibrated_on(fused, &data);
        for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++)
            check_dead_channel(fused, calibration, &data,
                               preset(ptq_name(PTQ_NAMES_PRESET, (unsigned)i)), bias, b == 6, 0);
        for (i = 2; i <= 8; i++) {
            ptq_scheme scheme = preset("best");
            scheme.weight_bits = i;
            check_dead_channel(fused, calibration, &data, scheme, bias, b == 6, 0);
            scheme.activation_bits = i;
            scheme.refit = PTQ_REFIT_ALWAYS;
            scheme.equalize = b == 2; /* which scales a channel, bias and all */
            check_dead_channel(fused, calibration, &data, scheme, bias, b == 6, 0);
            scheme = preset("minmax8");
            scheme.weight_bits = i;
            scheme.weight_per_tensor = b % 2;
            scheme.bias = i % 2 ? PTQ_BIAS_CORRECTION_NONE : PTQ_BIAS_CORRECTION_EMPIRICAL;
            check_dead_channel(fused, calibration, &data, scheme, bias, b == 6, i % 2);
        }
        ptq_calibration_free(calibration);
        ptq_model_free(fused);
    }
}

/* A bias of 1000 beside weights of 1e-8 would need 36 bits at their own scale. */
static void large_bias_enlarges_the_scale(void **state) {
    static const char *const name[] = {"best", "tflite", "ort-s8", "ort-u8"};
    int i, k;

    (void)state;
    for (i = 0; i < COUNT(name); i++) {
        ptq_model *fused = fused_of(small_model(3, 0)), *m;
        float *w = (float *)ptq_model_param(fused, "conv.weight")->data;
        ptq_scheme scheme = preset(name[i]);
        const ptq_node *conv;
        for (k = 0; k < 54; k++)
            w[k] *= 1e-8f;
        for (k = 0; k < 3; k++)
            ((float *)ptq_model_param(fused, "conv.bias")->data)[k] = k == 1 ? -1000 : 1;
        check_small(fused, &scheme, &m);
        conv = &m->node[ptq_model_find(m, "conv")];
        for (k = 0; k < 3; k++) {
            double unit = (double)m->node[0].q.scale * (double)weight_scale(conv, k);
            assert_near(((const int32_t *)conv->param[PTQ_PARAM_BIAS].data)[k] * unit,
                        k == 1 ? -1000 : 1, unit / 2 + 1e-4);
        }
        ptq_model_free(m);
        ptq_model_free(fused);
    }
}

/* ---------------------------------------------------------------------------------------------
   ResNet8 */

enum { SIDE = 12, WIDTH = 3, CLASSES = 5, IMAGES = 100 };

typedef struct fixture {
    ptq_model *fused;
    ptq_calibration *calibration;
    pictures p;
    ptq_dataset data;
    uint8_t pixels[IMAGES * SIDE * SIDE * 3];
} fixture;

static int open_fixture(void **state) {
    fixture *f = (fixture *)calloc(1, sizeof *f);
    float logits[IMAGES * CLASSES];
    test_run run;
    size_t i;
    int label;

    assert_non_null(f);
    f->fused = fused_of(random_resnet8(SIDE, WIDTH, CLASSES, 5, NULL));
    f->p = pictures_for(f->fused, IMAGES, 9);
    f->data = *pictures_dataset(&f->p);
    for (i = 0; i < IMAGES; i++)
        assert_ok(f->data.get(f->data.user, i, f->pixels + i * SIDE * SIDE * 3, &label, &err));
    run = open_run(f->fused, 0); /* logits around 0, so that every class wins somewhere */
    assert_ok(ptq_run(run.session, f->pixels, IMAGES, logits, NULL, &err));
    close_run(&run);
    for (i = 0; i < IMAGES * CLASSES; i++)
        ((float *)ptq_model_param(f->fused, "fc.bias")->data)[i % CLASSES] -= logits[i] / IMAGES;
    f->calibration = calibrated_on(f->fused, &f->data);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;

    ptq_calibration_free(f->calibration);
    ptq_model_free(f->fused);
    free(f);
    return 0;
}

static ptq_model *convert_fixture(const fixture *f, const char *name, int code_logits) {
    ptq_convert_options o = with_scheme(preset(name), &f->data);

    o.scheme.code_logits = code_logits;
    return converted(f->fused, f->calibration, &o);
}

static void batches_of_any_size(void **state) {
    static const size_t sizes[] = {1, 7, IMAGES};
    const fixture *f = (const fixture *)*state;
    float logits[2][IMAGES * CLASSES];
    int number, i;

    for (number = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)number); number++) {
        ptq_convert_options o =
            with_scheme(preset(ptq_name(PTQ_NAMES_PRESET, (unsigned)number)), &f->data);
        ptq_model *m = converted(f->fused, f->calibration, &o);
        test_run run = open_run(m, 0);
        for (i = 0; i < COUNT(sizes); i++) {
            size_t at, n;
            for (at = 0; at < IMAGES; at += n) {
                n = sizes[i] < IMAGES - at ? sizes[i] : IMAGES - at;
                assert_ok(ptq_run(run.session, f->pixels + at * SIDE * SIDE * 3, n,
                                  logits[i > 0] + at * CLASSES, NULL, &err));
            }
            if (i)
                assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
        }
        assert_memory_not_equal(logits[0], logits[0] + CLASSES, CLASSES * sizeof(float));
        close_run(&run);
        ptq_model_free(m);
    }
}

/* The layout that reuses memory gives what the one that keeps everything gives. */
static void keeping_changes_no_result(void **state) {
    const fixture *f = (const fixture *)*state;
    float logits[2][20 * CLASSES];
    int number;

    for (number = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)number); number++) {
        ptq_convert_options o =
            with_scheme(preset(ptq_name(PTQ_NAMES_PRESET, (unsigned)number)), &f->data);
        ptq_model *m = converted(f->fused, f->calibration, &o);
        test_run kept_run = open_run(m, 1), run = open_run(m, 0);
        assert_ok(ptq_run(run.session, f->pixels, 20, logits[0], NULL, &err));
        assert_ok(ptq_run(kept_run.session, f->pixels, 20, logits[1], NULL, &err));
        assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
        close_run(&run);
        close_run(&kept_run);
        ptq_model_free(m);
    }
}

/* Presets keep close to float, the finer the closer: SQNR of the logits over all images. */
static void presets_stay_close_to_float(void **state) {
    static const struct {
        const char *name;
        double db;
    } least[] = {{"fp16", 55},   {"dynamic", 28}, {"best", 25},   {"ort-u8", 20},
                 {"ort-s8", 20}, {"fbgemm", 18},  {"tflite", 25}, {"w4a8", 8}};
    const fixture *f = (const fixture *)*state;
    float wanted[IMAGES * CLASSES], logits[IMAGES * CLASSES];
    test_run run = open_run(f->fused, 0);
    int i, k;

    assert_ok(ptq_run(run.session, f->pixels, IMAGES, wanted, NULL, &err));
    close_run(&run);
    for (i = 0; i < COUNT(least); i++) {
        ptq_convert_options o = with_scheme(preset(least[i].name), &f->data);
        ptq_model *m = converted(f->fused, f->calibration, &o);
        double signal = 0, noise = 0, db;
        run = open_run(m, 0);
        assert_ok(ptq_run(run.session, f->pixels, IMAGES, logits, NULL, &err));
        for (k = 0; k < IMAGES * CLASSES; k++) {
            signal += pow((double)wanted[k], 2);
            noise += pow((double)wanted[k] - (double)logits[k], 2);
        }
        db = 10 * log10(signal / noise);
        if (!(db >= least[i].db) || noise <= 0)
            fail_msg("%s: %.1f dB, wanted %.1f", least[i].name, db, least[i].db);
        close_run(&run);
        ptq_model_free(m);
    }
}

static void coded_logits(void **state) {
    static const char *const name[] = {"tflite", "ort-u8"};
    const fixture *f = (const fixture *)*state;
    float logits[IMAGES * CLASSES];
    int32_t codes[IMAGES * CLASSES];
    int best[IMAGES], i, k, c;

    for (k = 0; k < COUNT(name); k++) {
        ptq_model *m = convert_fixture(f, name[k], 1);
        const ptq_qparams *q = &m->node[ptq_model_find(m, "fc")].q;
        test_run run = open_run(m, 0);
        assert_ok(ptq_run(run.session, f->pixels, IMAGES, logits, NULL, &err));
        assert_ok(run_codes(run.session, f->pixels, IMAGES, codes));
        assert_ok(ptq_classify(run.session, f->pixels, IMAGES, best, &err));
        for (i = 0; i < IMAGES; i++) {
            for (c = 0; c < CLASSES; c++)
                assert_true(logits[i * CLASSES + c] ==
                            q->scale * (float)(codes[i * CLASSES + c] - q->zero_point));
            assert_int_equal(best[i], ptq_argmax(logits + i * CLASSES, CLASSES));
        }
        close_run(&run);
        ptq_model_free(m);
    }
}

/* A model whose only codes are the input's own, which are the pixels where they lie. */
/* Codes of the input that went through nothing which computes: as they are, through a table,
   pooled. */
static void codes_without_a_layer(void **state) {
    static const struct {
        const char *graph;
        int codes[4];
    } cases[] = {
        {"std=2,2,2,2 q=u8:8:1:0\nd dequantize in=input\n", {0, 50, 64, 128}},
        {"q=u8:8:1:0\nr relu in=input q=u8:8:1:0\nd dequantize in=r\ns softmax in=d\n",
         {1, 100, 128, 255}},
        {"q=s8:8:1:-128\np max_pool in=input kernel=1x1 q=s8:8:1:-128\n", {-127, -28, 0, 127}},
        {"q=u8:8:1:0\np avg_pool in=input kernel=1x1 q=u8:8:1:0\nd dequantize in=p\n",
         {1, 100, 128, 255}},
    };
    static const uint8_t pixels[4] = {1, 100, 128, 255};
    int i, keep, k;

    (void)state;
    for (i = 0; i < COUNT(cases); i++)
        for (keep = 0; keep < 2; keep++) {
            char text[300];
            int32_t codes[4];
            ptq_model *m;
            test_run run;
            snprintf(text, sizeof text, "ptq-graph 1\ninput input shape=1x1x4 %s", cases[i].graph);
            m = model_of_text(text);
            run = open_run(m, keep);
            assert_ok(run_codes(run.session, pixels, 1, codes));
            for (k = 0; k < 4; k++)
                assert_int_equal(codes[k], cases[i].codes[k]);
            close_run(&run);
            ptq_model_free(m);
        }
}

static void codes_of_the_input(void **state) {
    static const uint8_t pixels[2][4] = {{0, 1, 128, 255}, {9, 8, 7, 6}};
    const ptq_qparams q = {PTQ_TYPE_U8, 8, 1, 0};
    ptq_model *m = NULL;
    int32_t codes[2 * 4];
    float logits[2 * 4];
    int keep, i, best[2];

    (void)state;
    assert_ok(ptq_model_create(NULL, &m, &err));
    ptq_add_input(m, "input", 1, 1, 4);
    m->node[0].q = q;
    ptq_add_op(m, PTQ_OP_DEQUANTIZE, "real", 0);
    for (keep = 0; keep < 2; keep++) {
        test_run run = open_run(m, keep);
        assert_ok(run_codes(run.session, pixels[0], 2, codes));
        assert_ok(ptq_run(run.session, pixels[0], 2, logits, NULL, &err));
        assert_ok(ptq_classify(run.session, pixels[0], 2, best, &err));
        for (i = 0; i < 8; i++) {
            assert_int_equal(codes[i], pixels[i / 4][i % 4]);
            assert_true(logits[i] == (float)pixels[i / 4][i % 4]);
        }
        assert_int_equal(best[0], 3);
        assert_int_equal(best[1], 0);
        close_run(&run);
    }
    ptq_model_free(m);
}

static void real_logits(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_model *m = convert_fixture(f, "best", 0);
    float logits[IMAGES * CLASSES];
    int32_t codes[CLASSES];
    int best[IMAGES], i, classes = 0;
    test_run run = open_run(m, 0);

    assert_ok(ptq_run(run.session, f->pixels, IMAGES, logits, NULL, &err));
    assert_ok(ptq_classify(run.session, f->pixels, IMAGES, best, &err));
    for (i = 0; i < IMAGES; i++) {
        assert_int_equal(best[i], ptq_argmax(logits + i * CLASSES, CLASSES));
        classes |= 1 << best[i];
    }
    assert_true(classes & (classes - 1)); /* not all pictures are one class */
    assert_fails(PTQ_UNSUPPORTED, "code_logits", run_codes(run.session, f->pixels, 1, codes));
    assert_fails(PTQ_INVALID_ARGUMENT, "pixels", ptq_classify(run.session, NULL, 1, best, &err));
    close_run(&run);
    ptq_model_free(m);
}

/* Preprocessed floats give what the pixels give. */
static void floats_in_give_the_same(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_model *m = convert_fixture(f, "ort-s8", 1);
    float input[SIDE * SIDE * 3], a[CLASSES], b[CLASSES];
    test_run run = open_run(m, 0);

    ptq_preprocess(m, f->pixels, input);
    assert_ok(ptq_run(run.session, f->pixels, 1, a, NULL, &err));
    assert_ok(ptq_run_f32(run.session, input, 1, b, NULL, &err));
    assert_memory_equal(a, b, sizeof a);
    input[5] = NAN;
    assert_fails(PTQ_BAD_NUMBER, "input", ptq_run_f32(run.session, input, 1, b, NULL, &err));
    close_run(&run);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   Explaining */

/* `says`, formatted with two numbers, must stand in the text. */
static void expect_text(const char *text, const char *format, long a, long b) {
    char says[200];

    snprintf(says, sizeof says, format, a, b);
    if (!strstr(text, says))
        fail_msg("no \"%s\" in: %s", says, text);
}

static void explained(void **state) {
    static const char *const name[] = {"conv1", "block1.conv2", "block2.shortcut", "fc"};
    const fixture *f = (const fixture *)*state;
    ptq_model *m = convert_fixture(f, "best", 0);
    test_run run = open_run(m, 1);
    int i;

    assert_ok(ptq_run(run.session, f->pixels, 1, NULL, NULL, &err));
    for (i = 0; i < COUNT(name); i++) {
        int index = ptq_model_find(m, name[i]), y, x, c;
        const ptq_node *n = &m->node[index], *from = &m->node[n->input[0]];
        kept in = kept_tensor(run.session, from, from->out);
        char *text = NULL;
        int64_t acc;
        y = n->shape[0] - 1;
        x = n->shape[1] / 2;
        c = n->shape[2] - 1;
        assert_ok(explain_element(run.plan, run.session, name[i], y, x, c, &text, &err));
        acc = accumulator(n, &in, y * n->stride[0] - n->pad[0], x * n->stride[1] - n->pad[1], c);
        expect_text(text, "accumulator %ld", (long)acc, 0);
        expect_text(text, "bias %ld", (long)((const int32_t *)n->param[PTQ_PARAM_BIAS].data)[c], 0);
        if (n->op == PTQ_OP_CONV2D) {
            kept out = kept_tensor(run.session, n, n->name);
            size_t at = (size_t)((y * n->shape[1] + x) * n->shape[2] + c);
            expect_text(text, "code %ld", (long)code_at(&out, at), 0);
            if (n->residual) {
                out = kept_tensor(run.session, n, n->out);
                expect_text(text, "half to even: code %ld, stands", (long)code_at(&out, at), 0);
            }
        }
        free(text);
    }
    close_run(&run);
    ptq_model_free(m);
}

/* The average over the image: codes less their zero point, added up here again. */
static void explained_average(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_model *m = convert_fixture(f, "best", 0);
    test_run run = open_run(m, 1);
    int index = ptq_model_find(m, "pool");
    const ptq_node *n = &m->node[index], *from = &m->node[n->input[0]];
    int area = from->shape[0] * from->shape[1], c = n->shape[2] - 1;
    long sum = 0;
    char *text = NULL;
    kept in, out;

    assert_ok(ptq_run(run.session, f->pixels, 1, NULL, NULL, &err));
    in = kept_tensor(run.session, from, from->out);
    out = kept_tensor(run.session, n, n->name);
    for (int k = 0; k < area; k++)
        sum += (long)code_at(&in, (size_t)(k * from->shape[2] + c)) - (long)from->q.zero_point;
    assert_ok(explain_element(run.plan, run.session, "pool", 0, 0, c, &text, &err));
    expect_text(text, "\naccumulator %ld\n", sum, 0);
    expect_text(text, " / %ld positions\n    / output scale ", area, 0);
    expect_text(text, ": code %ld\n", (long)code_at(&out, (size_t)c), 0);
    free(text);
    close_run(&run);
    ptq_model_free(m);
}

static void not_explained(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_model *m = convert_fixture(f, "best", 0);
    test_run run = open_run(m, 1), plain = open_run(m, 0);
    char *text = NULL;

    assert_fails(PTQ_NOT_READY, "keep",
                 explain_element(run.plan, run.session, "fc", 0, 0, 0, &text, &err));
    assert_ok(ptq_run(run.session, f->pixels, 1, NULL, NULL, &err));
    assert_ok(ptq_run(plain.session, f->pixels, 1, NULL, NULL, &err));
    assert_fails(PTQ_NOT_READY, "keep",
                 explain_element(plain.plan, plain.session, "fc", 0, 0, 0, &text, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "nobody",
                 explain_element(run.plan, run.session, "nobody", 0, 0, 0, &text, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "input",
                 explain_element(run.plan, run.session, "input", 0, 0, 0, &text, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "conv1",
                 explain_element(run.plan, run.session, "conv1", SIDE, 0, 0, &text, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "fc",
                 explain_element(run.plan, run.session, "fc", 0, 0, CLASSES, &text, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "fc",
                 explain_element(run.plan, run.session, "fc", 0, 0, -1, &text, &err));
    close_run(&plain);
    close_run(&run);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   Memory */

/* Two activations of 32 x 32 x 16 codes, and little else. With pixels that are their own codes not
   even the input needs room. */
static void arena_of_resnet8(void **state) {
    int identity;
    size_t bytes[2];

    (void)state;
    for (identity = 0; identity < 2; identity++) {
        ptq_model *fused = random_resnet8(32, 16, 10, 1, NULL), *m;
        ptq_plan_options po;
        ptq_plan *plan = NULL;
        pictures p;
        ptq_calibration *calibration;
        ptq_convert_options o;
        int c;
        for (c = 0; c < 3 && identity; c++) {
            fused->mean[c] = 0;
            fused->std[c] = 1;
        }
        fused = fused_of(fused);
        p = pictures_for(fused, 2, 1);
        calibration = calibrated_on(fused, pictures_dataset(&p));
        o = with_scheme(preset("best"), pictures_dataset(&p));
        o.scheme.rounding = PTQ_ROUNDING_NEAREST; /* of no concern here, and slow */
        m = converted(fused, calibration, &o);
        if (identity) {
            assert_true(m->node[0].q.scale == 1);
            assert_int_equal(m->node[0].q.zero_point, 0);
        }
        memset(&po, 0, sizeof po);
        po.isa = PTQ_ISA_SCALAR;
        assert_ok(ptq_plan_create(m, &po, &plan, &err));
        bytes[identity] = ptq_plan_get_info(plan)->arena_bytes;
        assert_true(bytes[identity] >= 2 * 16384);
        if (bytes[identity] > 36864)
            fail_msg("%lu bytes", (unsigned long)bytes[identity]);
        ptq_plan_free(plan);
        ptq_model_free(m);
        ptq_calibration_free(calibration);
        ptq_model_free(fused);
    }
}

/* The caller's pixels are the input tensor: read, never written, and the last byte read is
   theirs. */
static void pixels_are_only_read(void **state) {
    ptq_model *fused = fused_of(small_model(3, 0)), *m;
    pictures p = pictures_for(fused, 5, 3);
    ptq_calibration *calibration = calibrated_on(fused, pictures_dataset(&p));
    ptq_convert_options o = with_scheme(preset("best"), pictures_dataset(&p));
    uint8_t *pixels = (uint8_t *)malloc(32), copy[32];
    test_random r = {1};
    test_run run;

    (void)state;
    assert_non_null(pixels);
    m = converted(fused, calibration, &o);
    random_pixels(&r, pixels, 32);
    memcpy(copy, pixels, 32);
    run = open_run(m, 0);
    assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
    assert_memory_equal(pixels, copy, 32);
    close_run(&run);
    free(pixels);
    ptq_model_free(m);
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_networks),
        cmocka_unit_test(pixels_through_the_table),
        cmocka_unit_test(padding_adds_nothing),
        cmocka_unit_test(channels_without_weights),
        cmocka_unit_test(dead_filters_under_every_scheme),
        cmocka_unit_test(large_bias_enlarges_the_scale),
        cmocka_unit_test(batches_of_any_size),
        cmocka_unit_test(keeping_changes_no_result),
        cmocka_unit_test(presets_stay_close_to_float),
        cmocka_unit_test(coded_logits),
        cmocka_unit_test(codes_of_the_input),
        cmocka_unit_test(codes_without_a_layer),
        cmocka_unit_test(real_logits),
        cmocka_unit_test(floats_in_give_the_same),
        cmocka_unit_test(explained),
        cmocka_unit_test(explained_average),
        cmocka_unit_test(not_explained),
        cmocka_unit_test(arena_of_resnet8),
        cmocka_unit_test(pixels_are_only_read),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
