/* Training: every gradient against differences of the loss, optimizers against numbers by hand,
   fake quantization against the integers. */
#include "test.h"

#include "train/optimizer.h"
#include "train/trainer.h"
#include "train/kernels.h"

enum { BATCH = 6 };

static void expect_close(double got, double wanted, double tolerance) {
    if (!(fabs(got - wanted) <= tolerance * (1 + fabs(wanted))))
        fail_msg("%.9g, wanted %.9g", got, wanted);
}

/* Every operator: groups, asymmetric padding, strides over several phases, tails of vectors, a
   result that two read, batch norm and ReLU that can be absorbed and that cannot. */
static const char every_operator[] =
    "ptq-graph 1\n"
    "input input shape=9x7x4\n"
    "a conv2d in=input channels=18 kernel=3x5 stride=2x3 groups=2\n"
    "a.bn batch_norm in=a epsilon=0.001\n"
    "a.relu relu6 in=a.bn\n"
    "m max_pool in=a.relu kernel=3x3 stride=1x1\n"
    "m.bn batch_norm in=m epsilon=0.001\n"
    "b conv2d in=m.bn channels=18 kernel=2x2 groups=18\n"
    "b.relu relu in=b\n"
    "sum add in=m,b.relu\n"
    "p avg_pool in=sum kernel=2x2 stride=2x2\n"
    "c conv2d in=p channels=5 kernel=1x1 stride=2x2 bias=0\n"
    "c.bn batch_norm in=c epsilon=0.001\n"
    "g global_avg_pool in=c.bn\n"
    "fc dense in=g channels=4\n"
    "softmax softmax in=fc\n";

static ptq_model *parse(const char *text) {
    ptq_model *model;

    assert_ok(ptq_graph_parse(text, strlen(text), NULL, &model, &err));
    return model;
}

/* Random images, the same in every step. */
typedef struct source_of {
    size_t floats;
    int classes;
} source_of;

static void fill(void *user, int slot, float *image, int *label) {
    const source_of *from = user;
    ptq_rng rng;

    ptq_rng_seed(&rng, (uint64_t)slot, 3);
    for (size_t i = 0; i < from->floats; i++)
        image[i] = 2 * ptq_rng_float(&rng) - 1;
    *label = (int)ptq_rng_below(&rng, (uint32_t)from->classes);
}

typedef struct setup {
    trainer *engine;
    source_of from;
} setup;

static setup start_with(const ptq_model *model, const ptq_model *origin, const char *isa,
                        int threads, int frozen) {
    trainer_options options = {BATCH, threads, isa, 0.1f, frozen, 0, 0};
    const int *shape = model->node[0].shape;
    setup made;

    assert_ok(trainer_create(model, origin, &options, &made.engine, &err));
    made.from.floats = (size_t)(shape[0] * shape[1] * shape[2]);
    made.from.classes = trainer_classes(made.engine);
    return made;
}

static double step_loss(setup *s) {
    trainer_source source = {fill, &s->from};
    trainer_result result;

    trainer_step(s->engine, source, BATCH, 0.1f, &result);
    assert_in_range(result.correct, 0, BATCH);
    return result.loss;
}

/* Parameters that are neither 0 nor 1. */
static void randomize(setup *s, uint64_t seed) {
    int params;
    const trainer_param *p = trainer_params(s->engine, &params);
    float *state = trainer_state(s->engine);
    ptq_rng rng;

    trainer_init(s->engine, seed);
    ptq_rng_seed(&rng, seed, 77);
    for (int i = 0; i < params; i++)
        for (size_t k = 0; !p[i].decayed && k < p[i].count; k++)
            state[p[i].offset + k] += 0.4f * ptq_rng_float(&rng) - 0.1f;
}

/* ---- Gradients ---- */

typedef struct check {
    setup s;
    float *start, *gradient, *direction;
    size_t size;
} check;

/* (L(w + h d) - L(w - h d)) / 2h for direction d over one parameter. */
static double slope(check *c, const trainer_param *p, double h) {
    double loss[2];

    for (int side = 0; side < 2; side++) {
        float *state = trainer_state(c->s.engine);

        memcpy(state, c->start, c->size * sizeof *state);
        for (size_t i = 0; i < p->count; i++)
            state[p->offset + i] += (float)((side ? -h : h) * (double)c->direction[i]);
        loss[side] = step_loss(&c->s);
    }
    return (loss[0] - loss[1]) / (2 * h);
}

/* Kinks of ReLU and pools make some widths useless, rounding others; one must fit. */
static void expect_slope(check *c, const trainer_param *p, const char *node) {
    double wanted = 0, norm = 0, length = 0, worst = 1e9;

    for (size_t i = 0; i < p->count; i++) {
        double g = (double)c->gradient[p->offset + i];

        wanted += g * (double)c->direction[i];
        norm += g * g;
        length += (double)c->direction[i] * (double)c->direction[i];
    }
    norm = sqrt(norm) * sqrt(length);
    assert_true(norm > 0);
    for (double h = 0.03; h > 1e-4 && worst > 0.01; h /= 3) {
        double off = fabs(slope(c, p, h / sqrt(length)) - wanted) / norm;

        worst = off < worst ? off : worst;
    }
    if (worst > 0.01)
        fail_msg("%s, parameter %d: gradient off by %g", node, p->param, worst);
}

/* Along the gradient itself, and along a random direction. */
static void check_param(check *c, const trainer_param *p, const char *node) {
    test_random random = {(uint64_t)p->offset + 1};

    memcpy(c->direction, c->gradient + p->offset, p->count * sizeof(float));
    expect_slope(c, p, node);
    random_floats(&random, c->direction, p->count, -1, 1);
    expect_slope(c, p, node);
}

static void check_gradients(const ptq_model *model, const char *isa, int frozen) {
    check c;
    int params;
    const trainer_param *p;

    c.s = start_with(model, NULL, isa, 1, frozen);
    randomize(&c.s, 5);
    c.size = trainer_size(c.s.engine);
    c.start = malloc(c.size * sizeof(float));
    c.gradient = malloc(c.size * sizeof(float));
    c.direction = malloc(c.size * sizeof(float));
    assert_true(c.start && c.gradient && c.direction);
    memcpy(c.start, trainer_state(c.s.engine), c.size * sizeof(float));
    step_loss(&c.s);
    memcpy(c.gradient, trainer_gradient(c.s.engine), c.size * sizeof(float));
    p = trainer_params(c.s.engine, &params);
    for (int i = 0; i < params; i++)
        if (p[i].trained)
            check_param(&c, &p[i], model->node[p[i].node].name);
    free(c.start);
    free(c.gradient);
    free(c.direction);
    trainer_free(c.s.engine);
}

static void test_gradients_of_every_operator(void **state) {
    ptq_model *model = parse(every_operator);

    (void)state;
    check_gradients(model, "plain", 0);
    check_gradients(model, NULL, 0);
    check_gradients(model, NULL, 1);
    ptq_model_free(model);
}

static void test_gradients_of_resnet8(void **state) {
    ptq_model *model, *fused;

    (void)state;
    assert_ok(ptq_resnet8(8, TEST_SANITIZED ? 3 : 17, 3, NULL, &model, &err));
    check_gradients(model, NULL, 0);
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    check_gradients(fused, NULL, 0);
    ptq_model_free(fused);
    ptq_model_free(model);
}

/* Wide tiles, one vector and many, and every instruction set against plain C. */
static void test_instruction_sets_agree(void **state) {
    static const char *const name[] = {"avx2", "avx512"};
    ptq_model *model;
    setup plain;
    double wanted;

    (void)state;
    assert_ok(ptq_resnet8(TEST_SANITIZED ? 8 : 20, 16, 10, NULL, &model, &err));
    plain = start_with(model, NULL, "plain", 2, 0);
    randomize(&plain, 1);
    for (int k = 0; k < COUNT(name); k++) {
        setup other;
        size_t size = trainer_size(plain.engine);
        double distance = 0, length = 0;

        if (!kernels_find(name[k]))
            continue;
        other = start_with(model, NULL, name[k], 2, 0);
        memcpy(trainer_state(other.engine), trainer_state(plain.engine), size * sizeof(float));
        wanted = step_loss(&plain);
        expect_close(step_loss(&other), wanted, 1e-5);
        for (size_t i = 0; i < size; i++) {
            double a = (double)trainer_gradient(plain.engine)[i];
            double b = (double)trainer_gradient(other.engine)[i];

            distance += (a - b) * (a - b);
            length += a * a;
        }
        assert_true(distance < 1e-6 * length);
        trainer_free(other.engine);
    }
    trainer_free(plain.engine);
    ptq_model_free(model);
}

/* ---- Batch norm, loss ---- */

/* One channel, 6 images of one pixel: mean and variance by hand. */
static void test_running_statistics(void **state) {
    ptq_model *model = parse("ptq-graph 1\ninput input shape=1x1x1\n"
                             "n batch_norm in=input epsilon=0.001\nfc dense in=n channels=2\n");
    setup s = start_with(model, NULL, NULL, 1, 0);
    double mean = 0, variance = 0;
    const float *now;

    (void)state;
    for (int i = 0; i < BATCH; i++) {
        float x;
        int label;

        fill(&s.from, i, &x, &label);
        mean += (double)x / BATCH;
        variance += (double)x * (double)x / BATCH;
    }
    variance = (variance - mean * mean) * BATCH / (BATCH - 1);
    expect_close(step_loss(&s), log(2), 1e-6); /* weights are 0: both classes equal */
    now = trainer_state(s.engine);             /* gamma, beta, mean, variance */
    expect_close((double)now[2], 0.1 * mean, 1e-6);
    expect_close((double)now[3], 0.9 + 0.1 * variance, 1e-6);
    trainer_free(s.engine);
    ptq_model_free(model);
}

/* ---- Reproducibility ---- */

static void train_some(const ptq_model *model, int threads, uint64_t seed, float *out) {
    optimizer_options options = {OPTIMIZER_SGD, 0.9, 1e-3, 0.99};
    setup s = start_with(model, NULL, NULL, threads, 0);
    size_t size = trainer_size(s.engine);
    int params;
    const trainer_param *p = trainer_params(s.engine, &params);
    optimizer descent;

    trainer_init(s.engine, seed);
    assert_int_equal(optimizer_create(&options, size, trainer_state(s.engine), &descent), 0);
    for (int i = 0; i < 4; i++) {
        step_loss(&s);
        optimizer_step(&descent, p, params, trainer_gradient(s.engine), 0.05,
                       trainer_state(s.engine));
    }
    memcpy(out, trainer_state(s.engine), size * sizeof *out);
    optimizer_free(&descent);
    trainer_free(s.engine);
}

static void test_threads_change_nothing(void **state) {
    ptq_model *model = parse(every_operator);
    float a[4096] = {0}, b[4096] = {0}, c[4096] = {0};

    (void)state;
    train_some(model, 1, 1, a);
    train_some(model, 3, 1, b);
    train_some(model, 1, 2, c);
    assert_memory_equal(a, b, sizeof a);
    assert_true(memcmp(a, c, sizeof a) != 0);
    ptq_model_free(model);
}

static void test_loss_falls(void **state) {
    ptq_model *model = parse(every_operator);
    setup s = start_with(model, NULL, NULL, 2, 0);
    int params;
    const trainer_param *p = trainer_params(s.engine, &params);
    double first, last = 0;

    (void)state;
    trainer_init(s.engine, 1);
    first = step_loss(&s);
    for (int k = 0; k < 40; k++) {
        float *now = trainer_state(s.engine);

        last = step_loss(&s);
        for (int i = 0; i < params; i++)
            for (size_t j = p[i].offset; p[i].trained && j < p[i].offset + p[i].count; j++)
                now[j] -= 0.1f * trainer_gradient(s.engine)[j];
    }
    assert_true(last < 0.7 * first);
    trainer_free(s.engine);
    ptq_model_free(model);
}

/* ---- Optimizers and schedule, by hand ---- */

static void test_optimizers(void **state) {
    const trainer_param p[] = {{0, 0, 0, 1, 1, 1, 1}, {0, 1, 1, 1, 1, 0, 1}, {0, 2, 2, 1, 0, 0, 1}};
    const float gradient[] = {0.5f, 0.5f, 0.5f};
    optimizer_options sgd = {OPTIMIZER_SGD, 0.9, 0.1, 0.5}, adam = {OPTIMIZER_ADAMW, 0.9, 0.1, 0};
    float w[] = {1, 1, 1};
    optimizer o;

    (void)state;
    assert_int_equal(optimizer_create(&sgd, 3, w, &o), 0);
    optimizer_step(&o, p, 3, gradient, 0.1, w);
    expect_close(w[0], 1 - 0.1 * 1.9 * 0.6, 1e-7); /* g = 0.5 + 0.1, v = g, g + 0.9 v */
    expect_close(w[1], 1 - 0.1 * 1.9 * 0.5, 1e-7); /* no decay */
    expect_close(w[2], 1, 0);                      /* not trained */
    expect_close(o.average[1], 2.0 / 11 + w[1] * 9.0 / 11,
                 1e-6); /* early: keeps (1 + n) / (10 + n) */
    optimizer_step(&o, p, 3, gradient, 0.1, w);
    expect_close(w[1], 1 - 0.1 * 0.95 - 0.1 * (0.5 + 0.9 * 0.95), 1e-6); /* v = 0.9 0.5 + 0.5 */
    optimizer_free(&o);

    w[0] = w[1] = 1;
    assert_int_equal(optimizer_create(&adam, 3, w, &o), 0);
    optimizer_step(&o, p, 3, gradient, 0.01, w);
    expect_close(w[0], 1 - 0.01 * 0.1 - 0.01, 1e-6); /* the first step has length rate */
    expect_close(w[1], 1 - 0.01, 1e-6);
    optimizer_step(&o, p, 3, (const float[]){0, 0, 0}, 0.01, w);
    /* m = 0.9 0.05 / 0.19, v = 0.999 0.00025 / 0.001999 */
    expect_close(w[1], 0.99 - 0.01 * (0.045 / 0.19) / sqrt(0.00024975 / 0.001999), 1e-6);
    optimizer_free(&o);
}

static void test_schedule(void **state) {
    (void)state;
    expect_close(schedule_factor(0, 4, 104), 0.25, 1e-12);
    expect_close(schedule_factor(3, 4, 104), 1, 1e-12);
    expect_close(schedule_factor(4, 4, 104), 1, 1e-12);
    expect_close(schedule_factor(54, 4, 104), 0.5, 1e-12);
    expect_close(schedule_factor(103, 4, 104), 0.5 * (1 + cos(3.14159265358979 * 0.99)), 1e-9);
    expect_close(schedule_factor(0, 0, 10), 1, 0);
    expect_close(schedule_factor(9, 10, 10), 1, 0);
}

/* ---- Fake quantization ---- */

/* Steps of 0.5, codes -2..1; one value at each place that matters. */
static void test_step_gradient(void **state) {
    float scale[20], zero[20] = {0}, y[20] = {0}, dv[20] = {0}, out[20];
    transform t = {scale, zero, scale, zero, zero, -2, 1, 0.5f};
    const char *const names[] = {"plain", "avx2", "avx512"};

    (void)state;
    for (int i = 0; i < 20; i++)
        scale[i] = 2;
    y[0] = 0.3f;   /* 0.6 -> 1: 0.4 */
    y[1] = -0.15f; /* -0.3 -> 0: 0.3 */
    y[2] = 5;      /* above: 1 */
    y[18] = -5;    /* below: -2 */
    y[19] = 0.25f; /* a tie, to the even 0: -0.5 */
    dv[0] = 1;
    dv[1] = 10;
    dv[2] = 100;
    dv[18] = 1000;
    dv[19] = 10000;
    for (int k = 0; k < COUNT(names); k++) {
        const kernel_set *set = kernels_find(names[k]);
        double outside[2] = {1, 2};

        if (!set)
            continue;
        expect_close(set->step_gradient(&t, y, dv, 1, 20, outside), 0.4 + 3 + 100 - 2000 - 5000,
                     1e-3);
        expect_close(outside[0], 1 + 1000, 0); /* added */
        expect_close(outside[1], 2 + 100, 0);
        set->value(&t, y, 1, 20, out);
        expect_close(out[0], 0.5, 0);
        expect_close(out[1], 0, 0);
        expect_close(out[2], 0.5, 0);
        expect_close(out[18], -1, 0);
        expect_close(out[19], 0, 0);
    }
}

static ptq_model *quantized(const ptq_model *fused, ptq_scheme scheme, const ptq_dataset *images) {
    ptq_calibrate_options loose = {0};
    ptq_convert_options options = {0};
    ptq_calibration *calibration;
    ptq_plan *plan;
    ptq_model *made;

    loose.accept_any = 1;
    options.scheme = scheme;
    assert_ok(ptq_plan_create(fused, NULL, &plan, &err));
    assert_ok(ptq_calibrate(plan, images, &loose, &calibration, &err));
    assert_ok(ptq_convert(fused, calibration, &options, &made, NULL, &err));
    ptq_calibration_free(calibration);
    ptq_plan_free(plan);
    return made;
}

/* A data set of noise, and the same through the trainer's callback. */
typedef struct noise {
    const ptq_model *model;
    size_t pixels;
    int classes;
} noise;

static ptq_status noise_get(void *user, size_t index, void *item, int *label, ptq_error *e) {
    uint8_t *pixels = (uint8_t *)item;
    const noise *from = user;
    test_random random = {index + 11};

    (void)e;
    random_pixels(&random, pixels, from->pixels);
    *label = (int)(index % (size_t)from->classes);
    return PTQ_OK;
}

static void noise_fill(void *user, int slot, float *image, int *label) {
    const noise *from = user;
    const ptq_qparams *q = &from->model->node[0].q;
    uint8_t pixels[4096];

    noise_get(user, (size_t)slot, pixels, label, NULL);
    ptq_preprocess(from->model, pixels, image);
    for (size_t i = 0; q->type != PTQ_TYPE_F32 && i < from->pixels; i++)
        image[i] = ptq_dequantize(ptq_quantize(image[i], q), q);
}

/* Quantized, its float origin beside it, images in `from`. */
typedef struct pair {
    ptq_model *fused, *q;
    noise from;
} pair;

/* The data set is one: the next call makes it another. */
static const ptq_dataset *images_of(pair *p) {
    static ptq_dataset images = {BATCH, 0, 0, 0, 0, PTQ_TYPE_U8, noise_get, NULL, NULL};
    const int *shape = p->fused->node[0].shape;

    images.height = shape[0];
    images.width = shape[1];
    images.channels = shape[2];
    images.classes = p->from.classes;
    images.user = &p->from;
    return &images;
}

/* Takes the model over. */
static pair make_pair(ptq_model *model, ptq_scheme scheme) {
    const int *shape = model->node[0].shape;
    pair p;

    fill_model(model, 3);
    for (int c = 0; c < shape[2]; c++) {
        model->mean[c] = 120;
        model->std[c] = 60;
    }
    assert_ok(ptq_fuse(model, &p.fused, NULL, &err));
    p.from.model = p.fused;
    p.from.pixels = (size_t)(shape[0] * shape[1] * shape[2]);
    p.from.classes = p.fused->node[ptq_model_logits(p.fused)].shape[2];
    p.q = quantized(p.fused, scheme, images_of(&p));
    p.from.model = p.q; /* pixels as its codes give them */
    ptq_model_free(model);
    return p;
}

static void free_pair(pair *p) {
    ptq_model_free(p->q);
    ptq_model_free(p->fused);
}

static double pair_loss(trainer *t, pair *p) {
    trainer_source source = {noise_fill, &p->from};
    trainer_result result;

    trainer_step(t, source, BATCH, 0, &result);
    return result.loss;
}

/* A few steps, then the integers that are exported answer as the fake quantization did. */
static void check_integers(pair *made, int from_codes) {
    trainer_options options = {BATCH, 2, NULL, 0.1f, 0, from_codes, 0};
    trainer_source source = {noise_fill, &made->from};
    optimizer_options adam = {OPTIMIZER_ADAMW, 0.9, 0, 0};
    int params, classes[BATCH], labels[BATCH];
    const trainer_param *p;
    ptq_evaluation integers;
    ptq_plan *plan;
    optimizer descent;
    trainer *t;

    assert_ok(trainer_create(made->q, from_codes ? NULL : made->fused, &options, &t, &err));
    p = trainer_params(t, &params);
    assert_int_equal(optimizer_create(&adam, trainer_size(t), trainer_state(t), &descent), 0);
    for (int i = 0; i < 5; i++) {
        assert_ok(trainer_check(t, pair_loss(t, made), &err));
        optimizer_step(&descent, p, params, trainer_gradient(t), 0.02, trainer_state(t));
    }
    trainer_classify(t, source, BATCH, classes, labels);
    assert_ok(trainer_export(t, trainer_state(t), made->q, &err));
    assert_ok(ptq_plan_create(made->q, NULL, &plan, &err));
    assert_ok(ptq_evaluate(plan, images_of(made), NULL, &integers, &err));
    for (int i = 0; i < BATCH; i++) {
        /* Few codes make exact ties between classes, which the rounding of floats then decides. */
        const float *logit = integers.logits + i * integers.classes;

        expect_close((double)logit[classes[i]], (double)logit[integers.prediction[i]], 1e-6);
        assert_int_equal(integers.label[i], labels[i]);
    }
    ptq_release(&integers.memory);
    ptq_plan_free(plan);
    optimizer_free(&descent);
    trainer_free(t);
}

static void test_integers_do_what_was_trained(void **state) {
    static const ptq_scheme schemes[] = {
        {.weight_bits = 8, .activation_bits = 8},
        {.weight_bits = 4, .activation_bits = 4, .weight_method = PTQ_METHOD_MSE},
        {.weight_bits = 2, .activation_bits = 3, .code_logits = 1},
        {.weight_bits = 5, .weight_per_tensor = 1, .weight_affine = 1, .activation_signed = 1},
        {.weight_bits = 3, .weight_per_tensor = 1, .activation_bits = 2},
    };

    (void)state;
    for (int k = 0; k < COUNT(schemes); k++) {
        pair made[] = {make_pair(parse(every_operator), schemes[k]),
                       make_pair(random_resnet8(8, 6, 10, 4, NULL), schemes[k])};

        for (int m = 0; m < COUNT(made); m++) {
            check_integers(&made[m], 0);
            check_integers(&made[m], 1);
            free_pair(&made[m]);
        }
    }
}

/* With the zero point at the highest code no code lies above it, with the lowest none below: either
   may be what calibration finds, and neither may divide by the number of codes on that side. */
static void test_zero_point_at_either_end(void **state) {
    ptq_scheme scheme = {
        .weight_bits = 3, .weight_per_tensor = 1, .weight_affine = 1, .activation_bits = 3};
    trainer_options options = {BATCH, 1, NULL, 0.1f, 0, 0, 0};
    pair p = make_pair(random_resnet8(8, 3, 3, 4, NULL), scheme);

    (void)state;
    for (int high = 0; high < 2; high++) {
        trainer *t;

        for (int i = 1; i < p.q->nodes; i++) {
            ptq_node *node = &p.q->node[i];

            node->q.zero_point = node->mid.zero_point = high ? 7 : 0;
            if (node->param[PTQ_PARAM_WEIGHT].scales)
                node->param[PTQ_PARAM_WEIGHT].zero_point = high ? 7 : 0;
        }
        assert_ok(trainer_create(p.q, p.fused, &options, &t, &err));
        assert_true(isfinite(pair_loss(t, &p)));
        for (size_t i = 0; i < trainer_size(t); i++)
            assert_true(isfinite(trainer_gradient(t)[i]));
        trainer_free(t);
    }
    free_pair(&p);
}

/* The factor of LSQ that a step size's gradient carries: 1 / sqrt(values * largest code). */
static double lsq_factor(const ptq_model *q, const trainer_param *p) {
    const ptq_node *node = &q->node[p->node];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const ptq_qparams *codes = p->param == TRAINER_STEP ? &node->q : &node->mid;
    double values = (double)node->shape[0] * node->shape[1] * node->shape[2];
    int32_t low, high, zero = codes->zero_point;

    if (p->param == TRAINER_WEIGHT_STEP) {
        ptq_code_range(weight->type, weight->bits, &low, &high);
        values = (double)ptq_tensor_elements(weight) / weight->scales;
        zero = weight->zero_point;
    } else {
        ptq_code_range(codes->type, codes->bits, &low, &high);
    }
    return 1 / sqrt(values * fmax(zero - low, high - zero));
}

/* The direction that scales the result of node `first`, and all results behind it: its real weights
   with their step sizes, and the step sizes of these results, grow by the same share, so that every
   code stays what it is. Weights that count in codes stay, too. What the engine's gradients make of it, without LSQ's factor. */
static double scaling_slope(trainer *t, const ptq_model *q, int first, int from_codes,
                            float *direction) {
    int params;
    const trainer_param *p = trainer_params(t, &params);
    const float *gradient = trainer_gradient(t), *now = trainer_state(t);
    double sum = 0;

    for (int i = 0; i < params; i++) {
        int weights = !from_codes && p[i].node == first && p[i].param == PTQ_PARAM_WEIGHT;
        int step =
            (p[i].node == first && p[i].param == TRAINER_WEIGHT_STEP) ||
            (p[i].node >= first && (p[i].param == TRAINER_STEP || p[i].param == TRAINER_MID_STEP));

        for (size_t k = p[i].offset; k < p[i].offset + p[i].count; k++) {
            direction[k] = weights ? now[k] : (float)step; /* steps are logarithms */
            sum += (double)(gradient[k] * direction[k]) / (step ? lsq_factor(q, &p[i]) : 1);
        }
    }
    return sum;
}

static double loss_along(trainer *t, pair *p, const float *start, const float *direction,
                         double h) {
    float *state = trainer_state(t);

    for (size_t i = 0; i < trainer_size(t); i++)
        state[i] = (float)((double)start[i] + h * (double)direction[i]);
    return pair_loss(t, p);
}

/* The gradient that passes straight through a rounding is that of no function, so it cannot be
   compared with differences parameter by parameter. But where all codes stay, the network's own
   loss is smooth, and its slope must be the sum of the gradients of all that moved: rounding errors
   that the steps were charged with, and values that passed straight through, then cancel. That
   holds from every node on that all paths run through. Biases are 0, since their rounding depends
   on steps. */
static void check_scaling(ptq_model *model, ptq_scheme scheme, int from_codes,
                          const char *const *from, int count) {
    trainer_options options = {BATCH, 1, NULL, 0.1f, 0, from_codes, 0};
    pair p = make_pair(model, scheme);
    const trainer_param *param;
    float *start, *direction;
    trainer *t;
    int params;

    assert_ok(trainer_create(p.q, from_codes ? NULL : p.fused, &options, &t, &err));
    param = trainer_params(t, &params);
    for (int i = 0; i < params; i++)
        for (size_t k = 0; param[i].param == PTQ_PARAM_BIAS && k < param[i].count; k++)
            trainer_state(t)[param[i].offset + k] = 0;
    start = malloc(trainer_size(t) * sizeof *start);
    direction = malloc(trainer_size(t) * sizeof *direction);
    assert_true(start && direction);
    memcpy(start, trainer_state(t), trainer_size(t) * sizeof *start);
    for (int i = 0; i < count; i++) {
        const double h = 0.01;
        double slope, wanted;

        memcpy(trainer_state(t), start, trainer_size(t) * sizeof *start);
        pair_loss(t, &p);
        slope = scaling_slope(t, p.q, ptq_model_find(p.q, from[i]), from_codes, direction);
        wanted =
            (loss_along(t, &p, start, direction, h) - loss_along(t, &p, start, direction, -h)) /
            (2 * h);
        assert_true(fabs(wanted) > 1e-3);
        expect_close(slope / wanted, 1, 0.005);
    }
    free(start);
    free(direction);
    trainer_free(t);
    free_pair(&p);
}

static const char chain[] = "ptq-graph 1\n"
                            "input input shape=9x9x3\n"
                            "a conv2d in=input channels=9 kernel=3x3\n"
                            "a.relu relu in=a\n"
                            "b conv2d in=a.relu channels=18 kernel=3x3 stride=2x2\n"
                            "p avg_pool in=b kernel=2x2\n"
                            "c conv2d in=p channels=7 kernel=1x1\n"
                            "c.relu relu in=c\n"
                            "fc dense in=c.relu channels=4\n";

static void test_step_gradients_through_the_engine(void **state) {
    static const char *const nodes[] = {"a", "b", "c", "fc"}, *const ends[] = {"conv1", "fc"};
    ptq_scheme three = {.weight_bits = 3, .activation_bits = 3};
    ptq_scheme affine = {
        .weight_bits = 4, .weight_per_tensor = 1, .weight_affine = 1, .activation_bits = 2};

    (void)state;
    for (int from_codes = 0; from_codes < 2; from_codes++) {
        check_scaling(parse(chain), three, from_codes, nodes, COUNT(nodes));
        check_scaling(parse(chain), affine, from_codes, nodes, COUNT(nodes));
        check_scaling(random_resnet8(8, 5, 4, 4, NULL), three, from_codes, ends, COUNT(ends));
    }
}

/* ---- Learning on from codes, towards a teacher ---- */

static const trainer_param *find_param(const trainer *t, int param) {
    int params;
    const trainer_param *p = trainer_params(t, &params);

    for (int i = 0; i < params; i++)
        if (p[i].param == param)
            return &p[i];
    fail_msg("no parameter %d", param);
    return NULL;
}

/* Two classes, weights and biases 0, so that this model's softmax is 1/2, 1/2. The teacher's at
   temperature 2 is softmax(1, 0) = 0.731059, 0.268941; its entropy 0.582203. So the divergence is
   4 (log 2 - 0.582203) = 0.443777, its slope along the first bias 2 (0.5 - 0.731059). */
static void test_divergence_from_a_teacher(void **state) {
    ptq_model *model = parse("ptq-graph 1\ninput input shape=1x1x3\n"
                             "fc dense in=input channels=2\n");
    setup s = start_with(model, NULL, NULL, 1, 0);
    trainer_source source = {fill, &s.from};
    float teacher[2 * BATCH], own[2 * BATCH];
    const trainer_param *bias;
    trainer_result result;

    (void)state;
    for (int i = 0; i < BATCH; i++) {
        teacher[2 * i] = 2;
        teacher[2 * i + 1] = 0;
    }
    trainer_step_towards(s.engine, source, BATCH, teacher, 2, &result);
    expect_close(result.loss, 0.443777, 1e-5);
    bias = find_param(s.engine, PTQ_PARAM_BIAS);
    expect_close((double)trainer_gradient(s.engine)[bias->offset], -0.462117, 1e-5);
    expect_close((double)trainer_gradient(s.engine)[bias->offset + 1], 0.462117, 1e-5);
    trainer_state(s.engine)[bias->offset] = 5;
    trainer_logits(s.engine, source, BATCH, own);
    for (int i = 0; i < 2 * BATCH; i++)
        expect_close((double)own[i], i % 2 ? 0 : 5, 0);
    trainer_step_towards(s.engine, source, BATCH, own, 2, &result);
    expect_close(result.loss, 0, 1e-9);
    trainer_free(s.engine);
    ptq_model_free(model);
}

/* What has not learned yet is what it was: every code, and scales up to the rounding of their
   logarithms. The state counts in codes. */
static void test_learns_on_from_its_codes(void **state) {
    ptq_scheme scheme = {.weight_bits = 3, .activation_bits = 4};
    trainer_options options = {BATCH, 1, NULL, 0.1f, 0, 1, 0};
    pair p = make_pair(parse(chain), scheme);
    const trainer_param *weights;
    ptq_model *out;
    trainer *t;

    (void)state;
    assert_ok(trainer_create(p.q, NULL, &options, &t, &err));
    assert_ok(ptq_model_copy(p.q, NULL, &out, &err));
    weights = find_param(t, PTQ_PARAM_WEIGHT);
    expect_close((double)trainer_state(t)[weights->offset],
                 (double)ptq_tensor_number(&p.q->node[weights->node].param[0], 0), 0);
    assert_ok(trainer_export(t, trainer_state(t), out, &err));
    for (int i = 1; i < out->nodes; i++) {
        const ptq_node *was = &p.q->node[i], *is = &out->node[i];

        for (int k = 0; k < 2; k++) {
            assert_int_equal(was->param[k].size, is->param[k].size);
            if (was->param[k].size)
                assert_memory_equal(was->param[k].data, is->param[k].data, was->param[k].size);
        }
        assert_int_equal(was->q.zero_point, is->q.zero_point);
        expect_close((double)is->q.scale, (double)was->q.scale, 1e-6);
    }
    ptq_model_free(out);
    trainer_free(t);
    free_pair(&p);
}

/* Steps so small that all results of `a` are clamped: the next zero point then moves each of them
   by one step, and the loss by the gradient. Rounded logits would hide that; they are floats. */
static void test_zero_point_gradient(void **state) {
    ptq_scheme scheme = {.weight_bits = 4, .activation_bits = 2};
    trainer_options options = {BATCH, 1, NULL, 0.1f, 0, 1, 0};
    pair p = make_pair(parse("ptq-graph 1\ninput input shape=5x5x3\n"
                             "a conv2d in=input channels=9 kernel=3x3\n"
                             "fc dense in=a channels=4\n"),
                       scheme);
    const trainer_param *zero, *step;
    double gradient, above, below;
    float *now;
    trainer *t;

    (void)state;
    assert_ok(trainer_create(p.q, NULL, &options, &t, &err));
    zero = find_param(t, TRAINER_ZERO);
    step = find_param(t, TRAINER_STEP);
    now = trainer_state(t);
    now[step->offset] = logf(1e-3f);
    now[zero->offset] = 1;
    pair_loss(t, &p);
    gradient = (double)trainer_gradient(t)[zero->offset];
    now[zero->offset] = 2;
    above = pair_loss(t, &p);
    now[zero->offset] = 0.4f; /* rounded */
    below = pair_loss(t, &p);
    assert_true(fabs(gradient) > 1e-6);
    expect_close((above - below) / 2 / gradient, 1, 0.02);
    now[zero->offset] = 7; /* there are the codes 0 to 3 */
    assert_ok(trainer_export(t, now, p.q, &err));
    assert_int_equal(p.q->node[zero->node].q.zero_point, 3);
    trainer_free(t);
    free_pair(&p);
}

/* ---- Numbers that are none ---- */

static void test_check_names_the_node(void **state) {
    trainer_options options = {BATCH, 1, NULL, 0.1f, 0, 0, 0};
    pair p = make_pair(parse(chain), (ptq_scheme){.weight_bits = 3, .activation_bits = 3});
    const trainer_param *param;
    trainer *t;
    int params;

    (void)state;
    assert_ok(trainer_create(p.q, p.fused, &options, &t, &err));
    assert_ok(trainer_check(t, pair_loss(t, &p), &err));
    param = trainer_params(t, &params);
    for (int i = 0; i < params; i++) {
        float *at = &trainer_state(t)[param[i].offset + param[i].count - 1], kept = *at;

        *at = param[i].param < PTQ_PARAM_COUNT ? NAN : 1000; /* e^1000 */
        assert_fails(PTQ_BAD_NUMBER, p.q->node[param[i].node].name, trainer_check(t, 1, &err));
        *at = kept;
    }
    assert_ok(trainer_check(t, 1, &err));
    for (int i = 0; i < params; i++) { /* finite parameters, infinite sums */
        float *at = &trainer_state(t)[param[i].offset];
        int step = param[i].param == TRAINER_WEIGHT_STEP;

        if (strcmp(p.q->node[param[i].node].name, "fc") == 0 && (step || !param[i].param))
            for (size_t k = 0; k < param[i].count; k++)
                at[k] = step ? 87 : 3e38f; /* e^87 is 6e37 */
    }
    assert_fails(PTQ_BAD_NUMBER, "node fc: results", trainer_check(t, pair_loss(t, &p), &err));
    trainer_free(t);
    free_pair(&p);
}

/* ---- Refusals ---- */

static void test_refusals(void **state) {
    ptq_model *model = parse(every_operator), *fused, *q, *image;
    trainer_options options = {BATCH, 1, NULL, 0.1f, 0, 0, 0},
                    no_batch = {0, 1, NULL, 0.1f, 0, 0, 0};
    trainer_options no_thread = {1, 0, NULL, 0.1f, 0, 0, 0}, no_isa = {1, 1, "mmx", 0.1f, 0, 0, 0};
    noise from = {model, 9 * 7 * 4, 4};
    ptq_dataset images = {BATCH, 9, 7, 4, 4, PTQ_TYPE_U8, noise_get, &from, NULL};
    ptq_scheme dynamic = {.mode = PTQ_MODE_DYNAMIC}, integer = {.weight_bits = 8};
    trainer *t;

    (void)state;
    fill_model(model, 1);
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "batch", trainer_create(model, NULL, &no_batch, &t, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "threads",
                 trainer_create(model, NULL, &no_thread, &t, &err));
    assert_fails(PTQ_UNSUPPORTED, "mmx", trainer_create(model, NULL, &no_isa, &t, &err));
    q = quantized(fused, integer, &images);
    assert_fails(PTQ_UNSUPPORTED, "float origin", trainer_create(q, NULL, &options, &t, &err));
    ptq_model_free(q);
    q = quantized(fused, dynamic, &images);
    assert_fails(PTQ_UNSUPPORTED, "dynamic", trainer_create(q, fused, &options, &t, &err));
    ptq_model_free(q);
    image =
        parse("ptq-graph 1\ninput input shape=4x4x1\nz conv2d in=input channels=2 kernel=3x3\n");
    assert_fails(PTQ_UNSUPPORTED, "4 x 4 x 2", trainer_create(image, NULL, &options, &t, &err));
    assert_fails(PTQ_BAD_GRAPH, "not in the float",
                 trainer_create(image, fused, &options, &t, &err));
    ptq_model_free(image);
    ptq_model_free(fused);
    ptq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_of_every_operator),
        cmocka_unit_test(test_gradients_of_resnet8),
        cmocka_unit_test(test_instruction_sets_agree),
        cmocka_unit_test(test_running_statistics),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_loss_falls),
        cmocka_unit_test(test_optimizers),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_step_gradient),
        cmocka_unit_test(test_integers_do_what_was_trained),
        cmocka_unit_test(test_zero_point_at_either_end),
        cmocka_unit_test(test_step_gradients_through_the_engine),
        cmocka_unit_test(test_divergence_from_a_teacher),
        cmocka_unit_test(test_learns_on_from_its_codes),
        cmocka_unit_test(test_zero_point_gradient),
        cmocka_unit_test(test_check_names_the_node),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
