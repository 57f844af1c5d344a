/* Calibration: the same file from the same images, however they come; what is refused and what is
   warned of; the file format against hostile text. */
#include "quantized.h"

#include "measure/expect.h"

enum { SIDE = 8, IMAGES = 105, CLASSES = 5 };

typedef struct fixture {
    ptq_model *fused;
    ptq_plan *plan;
    pictures p;
} fixture;

static int open_fixture(void **state) {
    fixture *f = (fixture *)calloc(1, sizeof *f);

    assert_non_null(f);
    f->fused = fused_of(random_resnet8(SIDE, 2, CLASSES, 5, NULL));
    assert_ok(ptq_plan_create(f->fused, NULL, &f->plan, &err));
    f->p = pictures_for(f->fused, IMAGES, 9);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;

    ptq_plan_free(f->plan);
    ptq_model_free(f->fused);
    free(f);
    return 0;
}

/* The pictures that `order` names, by the options given. */
static ptq_calibration *calibrate(const fixture *f, const size_t *order, size_t count,
                                  int threads) {
    pictures p = f->p;
    ptq_calibrate_options o;
    ptq_calibration *c = NULL;

    memset(&o, 0, sizeof o);
    o.work.threads = threads;
    o.accept_any = count < 10;
    p.order = order;
    p.count = count;
    assert_ok(ptq_calibrate(f->plan, pictures_dataset(&p), &o, &c, &err));
    assert_int_equal(c->images, count);
    return c;
}

/* Frees the calibration. */
static char *json_of(ptq_calibration *c, size_t *size) {
    void *bytes = NULL;
    char *text;

    assert_ok(ptq_calibration_write(c, &bytes, size, &err));
    text = (char *)malloc(*size + 1);
    assert_non_null(text);
    memcpy(text, bytes, *size);
    text[*size] = 0;
    ptq_bytes_free(bytes, NULL);
    ptq_calibration_free(c);
    return text;
}

static void expect_json(ptq_calibration *c, const char *wanted, size_t size) {
    size_t n = 0;
    char *text = json_of(c, &n);

    assert_int_equal(n, size);
    assert_memory_equal(text, wanted, size);
    free(text);
}

/* ---------------------------------------------------------------------------------------------
   The same bytes */

static void same_bytes_however_it_is_done(void **state) {
    const fixture *f = (const fixture *)*state;
    size_t order[IMAGES], size = 0, i, at;
    test_random r = {3};
    char *wanted = json_of(calibrate(f, NULL, IMAGES, 0), &size);
    ptq_calibration *sum = NULL, *part;
    int k;

    expect_json(calibrate(f, NULL, IMAGES, 1), wanted, size);
    expect_json(calibrate(f, NULL, IMAGES, 2), wanted, size);
    for (i = 0; i < IMAGES; i++)
        order[i] = i;
    for (i = IMAGES - 1; i > 0; i--) {
        size_t j = (size_t)random_int(&r, 0, (int)i), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    expect_json(calibrate(f, order, IMAGES, 0), wanted, size);
    expect_json(calibrate(f, order, IMAGES, 3), wanted, size);
    for (k = 0, at = 0; k < 7; k++, at += i) { /* seven parts of unequal size */
        i = k < 6 ? (size_t)(5 + 4 * k) : IMAGES - at;
        part = calibrate(f, order + at, i, 1 + k % 2);
        if (sum) {
            assert_ok(ptq_calibration_merge(sum, part, &err));
            ptq_calibration_free(part);
        } else {
            sum = part;
        }
    }
    assert_int_equal(sum->images, IMAGES);
    expect_json(sum, wanted, size);
    free(wanted);
}

static void one_image_less_is_another_file(void **state) {
    const fixture *f = (const fixture *)*state;
    size_t m = 0, n = 0;
    char *a = json_of(calibrate(f, NULL, 40, 0), &m), *b = json_of(calibrate(f, NULL, 39, 0), &n);

    assert_true(m != n || memcmp(a, b, n));
    free(a);
    free(b);
}

/* What is kept agrees with the images and with the session's tensors. */
static void what_is_kept(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_calibration *c = calibrate(f, NULL, 20, 0);
    ptq_dataset data = *pictures_dataset((pictures *)(uintptr_t)&f->p);
    ptq_session_options o;
    ptq_session *session = NULL;
    uint64_t pixel[256] = {0};
    uint8_t pixels[SIDE * SIDE * 3];
    float low[64] = {0}, high[64] = {0};
    int i, k, label, t;
    size_t e;

    assert_true(c->model == ptq_model_hash(f->fused));
    assert_true(c->tensors > 10 && c->tensors <= 64);
    memset(&o, 0, sizeof o);
    o.keep = 1;
    assert_ok(ptq_session_create(f->plan, &o, &session, &err));
    for (i = 0; i < 20; i++) {
        int found = 0;
        assert_ok(data.get(data.user, (size_t)i, pixels, &label, &err));
        for (k = 0; k < (int)sizeof pixels; k++)
            pixel[pixels[k]]++;
        for (e = 0; e < c->images; e++)
            found += c->hash[e] == ptq__fnv(ptq__fnv_start, pixels, sizeof pixels);
        assert_int_equal(found, 1);
        assert_ok(ptq_run(session, pixels, 1, NULL, NULL, &err));
        for (t = 0; t < c->tensors; t++) {
            ptq_tensor view;
            assert_ok(ptq_session_tensor(session, c->tensor[t].name, &view, &err));
            for (e = 0; e < ptq_tensor_elements(&view); e++) {
                float x = ((const float *)view.data)[e];
                low[t] = (!i && !e) || x < low[t] ? x : low[t];
                high[t] = (!i && !e) || x > high[t] ? x : high[t];
            }
        }
    }
    for (t = 0; t < c->tensors; t++) {
        const ptq_observer *s = &c->tensor[t].observer;
        assert_true(s->min == low[t] && s->max == high[t]);
        assert_int_equal(s->images, 20);
        assert_int_equal(ptq_calibration_find(c, c->tensor[t].name), t);
    }
    assert_int_equal(ptq_calibration_find(c, "nobody"), -1);
    assert_true(ptq_calibration_find(c, "block1.conv2") >= 0);    /* before the addition */
    assert_true(ptq_calibration_find(c, "block1.add.relu") >= 0); /* and after it */
    assert_memory_equal(c->pixel, pixel, sizeof pixel);
    for (k = 0; k < CLASSES; k++)
        assert_int_equal(c->class_count[k], 4);
    for (e = 1; e < c->images; e++)
        assert_true(c->hash[e - 1] < c->hash[e]);
    ptq_session_free(session);
    ptq_calibration_free(c);
}

/* FNV-1a of the published test vectors. */
static void image_hash(void **state) {
    (void)state;
    assert_true(ptq__fnv(ptq__fnv_start, (const uint8_t *)"", 0) == UINT64_C(0xcbf29ce484222325));
    assert_true(ptq__fnv(ptq__fnv_start, (const uint8_t *)"a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
    assert_true(ptq__fnv(ptq__fnv_start, (const uint8_t *)"foobar", 6) ==
                UINT64_C(0x85944171f73967e8));
}

/* Everything that changes the function changes the hash. */
static void model_hash(void **state) {
    const fixture *f = (const fixture *)*state;
    uint64_t hash = ptq_model_hash(f->fused);
    ptq_model *m = NULL;

    assert_ok(ptq_model_copy(f->fused, NULL, &m, &err));
    assert_true(ptq_model_hash(m) == hash);
    assert_ok(ptq_model_set_meta(m, "note", "of no matter", &err));
    assert_true(ptq_model_hash(m) == hash);
    m->mean[1] += 1;
    assert_true(ptq_model_hash(m) != hash);
    m->mean[1] = f->fused->mean[1];
    ((float *)ptq_model_param(m, "fc.bias")->data)[2] += 1e-3f;
    assert_true(ptq_model_hash(m) != hash);
    ((float *)ptq_model_param(m, "fc.bias")->data)[2] =
        ((float *)ptq_model_param(f->fused, "fc.bias")->data)[2];
    m->node[2].act = PTQ_ACTIVATION_RELU6;
    assert_true(ptq_model_hash(m) != hash);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   Refusals and warnings */

/* Pictures of other kinds: `user` says which. */
enum { NOISE, CONSTANT, DIM };

static ptq_status odd_picture(void *user, size_t index, void *item, int *label, ptq_error *e) {
    uint8_t *pixels = (uint8_t *)item;
    test_random r = {0};
    int i, kind = *(const int *)user;

    (void)e;
    r.state = index;
    *label = (int)index % CLASSES;
    for (i = 0; i < SIDE * SIDE * 3; i++)
        pixels[i] = (uint8_t)(kind == NOISE      ? (int)(random_bits(&r) & 255)
                              : kind == CONSTANT ? 77
                                                 : i / 3 % SIDE > (int)index % SIDE);
    return PTQ_OK;
}

/* The data set is one: the next call gives it another kind. */
static const ptq_dataset *odd_pictures(int *kind) {
    static ptq_dataset data = {100, SIDE, SIDE, 3, CLASSES, PTQ_TYPE_U8, odd_picture, NULL, NULL};

    data.user = kind;
    return &data;
}

static void unsuitable_images(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_calibration *c = NULL;
    ptq_calibrate_options any;
    pictures p = f->p;
    ptq_dataset data;
    int kind;

    memset(&any, 0, sizeof any);
    any.accept_any = 1;
    kind = NOISE;
    assert_fails(PTQ_BAD_DATA, "random",
                 ptq_calibrate(f->plan, odd_pictures(&kind), NULL, &c, &err));
    assert_ok(ptq_calibrate(f->plan, odd_pictures(&kind), &any, &c, &err));
    ptq_calibration_free(c);
    c = NULL;
    kind = CONSTANT;
    assert_fails(PTQ_BAD_DATA, "constant",
                 ptq_calibrate(f->plan, odd_pictures(&kind), NULL, &c, &err));
    data = *pictures_dataset(&p);
    data.count = 0;
    assert_fails(PTQ_BAD_DATA, "", ptq_calibrate(f->plan, &data, &any, &c, &err));
    p.w = SIDE + 1;
    assert_fails(PTQ_BAD_DATA, "8x9x3",
                 ptq_calibrate(f->plan, pictures_dataset(&p), &any, &c, &err));
    p = f->p;
    p.classes++;
    assert_fails(PTQ_BAD_DATA, "6 classes",
                 ptq_calibrate(f->plan, pictures_dataset(&p), &any, &c, &err));
    assert_null(c);
}

/* Pictures as the model's preprocessing makes them real. */
typedef struct real_pictures {
    pictures p;
    const ptq_model *model;
} real_pictures;

static ptq_status real_picture(void *user, size_t index, void *item, int *label, ptq_error *e) {
    real_pictures *r = (real_pictures *)user;
    uint8_t pixels[SIDE * SIDE * 3];
    int i;

    for (i = 0; i < SIDE * SIDE * 3; i++)
        ((float *)item)[i] = 0;
    if (get_picture(&r->p, index, pixels, label, e))
        return PTQ_BAD_DATA;
    for (i = 0; i < SIDE * SIDE * 3; i++)
        ((float *)item)[i] = ((float)pixels[i] - r->model->mean[i % 3]) / r->model->std[i % 3];
    *label = index % 3 ? -1 : *label;
    return PTQ_OK;
}

/* Real numbers give what the bytes that they are made of give, but no statistics of pixels; images
   without labels count for no class. */
static void real_numbers_without_labels(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_calibration *bytes = calibrate(f, NULL, IMAGES, 0), *reals = NULL, *read = NULL;
    real_pictures real = {f->p, f->fused};
    ptq_dataset data = *pictures_dataset(&real.p);
    ptq_calibrate_options o;
    ptq_convert_options convert = with_scheme(preset("best"), &data);
    uint64_t labelled = 0;
    ptq_model *made = NULL;
    size_t size, found = 99;
    char text[400], *json;
    int i;

    memset(&o, 0, sizeof o);
    o.work.threads = 2;
    data.type = PTQ_TYPE_F32;
    data.get = real_picture;
    data.user = &real;
    assert_ok(ptq_calibrate(f->plan, &data, &o, &reals, &err));
    assert_int_equal(reals->images, IMAGES);
    for (i = 0; i < 256; i++)
        assert_int_equal(reals->pixel[i], 0);
    for (i = 0; i < CLASSES; i++)
        labelled += reals->class_count[i];
    assert_int_equal(labelled, IMAGES / 3);
    for (i = 0; i < bytes->tensors; i++) {
        const ptq_observer *a = &bytes->tensor[i].observer;
        const ptq_observer *b = &reals->tensor[i].observer;
        assert_true(a->min == b->min && a->max == b->max && a->count == b->count);
        assert_memory_equal(a->bin, b->bin, sizeof a->bin);
    }
    assert_int_equal(ptq_calibration_warnings(reals, text, sizeof text), 0);
    assert_ok(ptq_calibration_overlap(reals, &data, &found, &err));
    assert_int_equal(found, IMAGES);
    assert_ok(ptq_calibration_overlap(reals, pictures_dataset(&real.p), &found, &err));
    assert_int_equal(found, 0);
    convert.scheme.weight_bits = convert.scheme.activation_bits = 4; /* so that it searches */
    if (!TEST_SANITIZED) {                                           /* takes long */
        assert_ok(ptq_convert(f->fused, reals, &convert, &made, NULL, &err));
        ptq_model_free(made);
        made = NULL;
    }
    convert.scheme = preset("tflite");
    assert_ok(ptq_convert(f->fused, reals, &convert, &made, NULL, &err));
    assert_fails(PTQ_NOT_READY, "calibration on pixels",
                 correct_biases(f->fused, NULL, reals, made, &err));
    ptq_model_free(made);
    json = json_of(reals, &size);
    assert_ok(ptq_calibration_parse(json, size, NULL, &read, &err));
    assert_int_equal(read->images, IMAGES);
    ptq_calibration_free(read);
    free(json);
    ptq_calibration_free(bytes);
}

static ptq_status failing_picture(void *user, size_t index, void *pixels, int *label,
                                  ptq_error *e) {
    if (index == 33)
        return ptq_error_set(e, PTQ_IO_ERROR, "the disk is on fire at image %zu", index);
    return get_picture(user, index, pixels, label, e);
}

static ptq_status wrong_label(void *user, size_t index, void *pixels, int *label, ptq_error *e) {
    ptq_status s = get_picture(user, index, pixels, label, e);

    if (index == 21)
        *label = CLASSES;
    return s;
}

static int cancel(void *user, size_t done, size_t total) {
    assert_int_equal(total, IMAGES);
    *(size_t *)user = done;
    return done >= 30;
}

static void stopped_half_way(void **state) {
    const fixture *f = (const fixture *)*state;
    pictures p = f->p;
    ptq_dataset data = *pictures_dataset(&p);
    ptq_calibrate_options o;
    ptq_calibration *c = NULL;
    size_t done = 0;

    memset(&o, 0, sizeof o);
    for (o.work.threads = 1; o.work.threads <= 2; o.work.threads++) {
        data.get = failing_picture;
        assert_fails(PTQ_IO_ERROR, "on fire at image 33",
                     ptq_calibrate(f->plan, &data, &o, &c, &err));
        data.get = wrong_label;
        assert_fails(PTQ_BAD_DATA, "image 21", ptq_calibrate(f->plan, &data, &o, &c, &err));
    }
    o.work.threads = 1;
    o.work.progress = cancel;
    o.work.user = &done;
    data.get = get_picture;
    assert_fails(PTQ_CANCELLED, "cancelled", ptq_calibrate(f->plan, &data, &o, &c, &err));
    assert_true(done >= 30 && done < IMAGES);
    assert_null(c);
}

/* Calibrates a copy of the network in which the weights of a node are two other numbers. What is
   not finite no plan would take: it comes in afterwards, which only the scalar plan sees, since it
   uses weights where they lie. */
static void expect_bad_number(const fixture *f, const char *name, float first, float second) {
    ptq_plan_options planning = {PTQ_ISA_SCALAR, {NULL, NULL, NULL}};
    int late = isnan(first);
    pictures p = f->p;
    ptq_model *m = NULL;
    ptq_plan *plan = NULL;
    ptq_calibration *c = NULL;
    char param_name[100];
    ptq_tensor *w;
    size_t i;

    assert_ok(ptq_model_copy(f->fused, NULL, &m, &err));
    if (late)
        assert_ok(ptq_plan_create(m, &planning, &plan, &err));
    snprintf(param_name, sizeof param_name, "%s.weight", name);
    w = ptq_model_param(m, param_name);
    for (i = 0; i < ptq_tensor_elements(w); i++)
        ((float *)w->data)[i] = i % 2 ? second : first;
    if (!late)
        assert_ok(ptq_plan_create(m, NULL, &plan, &err));
    assert_fails(PTQ_BAD_NUMBER, name, ptq_calibrate(plan, pictures_dataset(&p), NULL, &c, &err));
    assert_null(c);
    ptq_plan_free(plan);
    ptq_model_free(m);
}

static void numbers_that_cannot_be_observed(void **state) {
    const fixture *f = (const fixture *)*state;

    expect_bad_number(f, "fc", NAN, 1);
    expect_bad_number(f, "fc", 3e38f, 3e38f);
    expect_bad_number(f, "block2.conv1", 3e38f, 3e38f); /* infinite, and positive */
}

/* An activation may not turn NaN into 0 and so hide it. */
static void nan_behind_an_activation(void **state) {
    const fixture *f = (const fixture *)*state;

    expect_bad_number(f, "block2.conv1", NAN, 1);
    expect_bad_number(f, "block2.conv1", 3e38f, -3e38f); /* infinity less infinity, on any kernel */
}

static void quantized_models_are_not_calibrated(void **state) {
    const fixture *f = (const fixture *)*state;
    pictures p = f->p;
    ptq_convert_options o = with_scheme(preset("fp16"), pictures_dataset(&p));
    ptq_model *m = converted(f->fused, NULL, &o);
    ptq_plan *plan = NULL;
    ptq_calibration *c = NULL;

    assert_ok(ptq_plan_create(m, NULL, &plan, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "quantized already",
                 ptq_calibrate(plan, pictures_dataset(&p), NULL, &c, &err));
    ptq_plan_free(plan);
    ptq_model_free(m);
}

static void expect_warning(ptq_calibration *c, const char *says) {
    char text[1000];
    size_t n = ptq_calibration_warnings(c, text, sizeof text);

    assert_int_equal(n, strlen(text));
    assert_int_equal(ptq_calibration_warnings(c, NULL, 0), n);
    if (says ? !strstr(text, says) || text[n - 1] != '\n' : n != 0)
        fail_msg("wanted \"%s\", got: %s", says ? says : "nothing", text);
    ptq_calibration_free(c);
}

static void warnings(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_calibrate_options any;
    ptq_calibration *c = NULL;
    size_t order[IMAGES], i;
    int kind = DIM;

    memset(&any, 0, sizeof any);
    any.accept_any = 1;
    expect_warning(calibrate(f, NULL, IMAGES, 0), NULL);
    expect_warning(calibrate(f, NULL, 100, 0), NULL);
    expect_warning(calibrate(f, NULL, 95, 0), "95 images");
    for (i = 0; i < IMAGES; i++) /* no image of class 4 */
        order[i] = i / 4 * 5 + i % 4;
    expect_warning(calibrate(f, order, IMAGES, 0), "1 of 5 classes");
    for (i = 0; i < IMAGES; i++) /* few of it */
        order[i] = i < 100 ? i / 4 * 5 + i % 4 : 5 * i + 4;
    expect_warning(calibrate(f, order, IMAGES, 0), "from 5 to 25");
    for (i = 0; i < IMAGES; i++)
        order[i] = i < 100 ? i : 0;
    expect_warning(calibrate(f, order, IMAGES, 0), "more than once");
    assert_ok(ptq_calibrate(f->plan, odd_pictures(&kind), &any, &c, &err));
    expect_warning(c, "0 to 255");
}

static void overlap_by_hash(void **state) {
    const fixture *f = (const fixture *)*state;
    static const size_t order[] = {200, 3, 17, 300, 29, 30, 0};
    ptq_calibration *c = calibrate(f, NULL, 30, 0);
    pictures p = f->p;
    size_t overlap = 99;

    p.order = order;
    p.count = COUNT(order);
    assert_ok(ptq_calibration_overlap(c, pictures_dataset(&p), &overlap, &err));
    assert_int_equal(overlap, 4); /* 3, 17, 29, 0 */
    p.count = 1;
    assert_ok(ptq_calibration_overlap(c, pictures_dataset(&p), &overlap, &err));
    assert_int_equal(overlap, 0);
    ptq_calibration_free(c);
}

static void merging_what_does_not_belong_together(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_model *other = fused_of(random_resnet8(SIDE, 2, CLASSES, 6, NULL));
    pictures p = f->p;
    ptq_calibration *a = calibrate(f, NULL, 20, 0), *b;
    size_t m = 0;
    char *before;

    p.count = 20;
    b = calibrated_on(other, pictures_dataset(&p));
    assert_fails(PTQ_INVALID_ARGUMENT, "different models", ptq_calibration_merge(a, b, &err));
    before = json_of(calibrate(f, NULL, 20, 0), &m);
    expect_json(a, before, m); /* nothing changed */
    free(before);
    ptq_calibration_free(b);
    ptq_model_free(other);
}

/* ---------------------------------------------------------------------------------------------
   The file */

/* A calibration of a network so small that its file is a few thousand bytes. */
static char *small_json(size_t *size) {
    ptq_model *m = NULL;
    pictures p;
    ptq_calibration *c;
    int last;

    assert_ok(ptq_model_create(NULL, &m, &err));
    last = ptq_add_input(m, "input", 4, 4, 2);
    last = ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", last);
    ptq_add_dense(m, "fc", last, 3);
    fill_model(m, 4);
    m = fused_of(m);
    p = pictures_for(m, 3, 8);
    c = calibrated_on(m, pictures_dataset(&p));
    ptq_model_free(m);
    return json_of(c, size);
}

/* Everything that a calibration is used for must work on whatever the reader lets through. */
static void use(ptq_calibration *c) {
    char text[2000];
    void *bytes = NULL;
    size_t size;
    int t, rule;

    ptq_calibration_warnings(c, text, sizeof text);
    for (t = 0; t < c->tensors; t++) {
        const ptq_observer *o = &c->tensor[t].observer;
        for (rule = 0; rule < PTQ_METHOD_COUNT; rule++) {
            float low = NAN, high = NAN;
            if (ptq_observer_range(o, (ptq_method)rule, 0, PTQ_TYPE_U8, 8, 0, &low, &high, &err))
                continue;
            assert_true(low <= 0 && high >= 0 && low >= -3.4e38f && high <= 3.4e38f);
            assert_true(ptq_observer_clipped(o, low, high) <= 1);
        }
    }
    assert_ok(ptq_calibration_write(c, &bytes, &size, &err));
    ptq_bytes_free(bytes, NULL);
    assert_ok(ptq_calibration_merge(c, c, &err));
}

/* 1 if the reader takes it. */
static int try_json(const char *text, size_t size) {
    ptq_calibration *c = NULL;
    char *copy = (char *)malloc(size ? size : 1); /* so that reading on is seen */
    ptq_status s;

    assert_non_null(copy);
    memcpy(copy, text, size);
    memset(&err, 'x', sizeof err);
    s = ptq_calibration_parse(copy, size, NULL, &c, &err);
    if (s) {
        assert_null(c);
        assert_int_equal(s, err.status);
        assert_non_null(memchr(err.text, 0, sizeof err.text));
        assert_null(strchr(err.text, '\n'));
    } else {
        use(c);
        ptq_calibration_free(c);
    }
    free(copy);
    return s == PTQ_OK;
}

/* The text with one piece replaced, to be freed; the piece must be there. */
static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    char *out = (char *)malloc(strlen(text) + strlen(to) + 1);

    assert_non_null(out);
    if (!at)
        fail_msg("no %s in the file", from);
    memcpy(out, text, (size_t)(at - text));
    strcpy(out + (at - text), to);
    strcat(out, at + strlen(from));
    return out;
}

static void json_round_trip(void **state) {
    const fixture *f = (const fixture *)*state;
    size_t size = 0;
    char *text = json_of(calibrate(f, NULL, 50, 0), &size);
    ptq_calibration *c = NULL, *direct = calibrate(f, NULL, 50, 0);
    int i;

    assert_ok(ptq_calibration_parse(text, size, NULL, &c, &err));
    assert_true(c->model == direct->model);
    assert_int_equal(c->images, 50);
    assert_int_equal(c->classes, CLASSES);
    for (i = 0; i < direct->tensors; i++)
        assert_string_equal(c->tensor[i].name, direct->tensor[i].name);
    expect_json(c, text, size);
    assert_non_null(strstr(text, "\"ptq-calibration\""));
    ptq_calibration_free(direct);
    free(text);
}

static void calibration_files(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_calibration *c = calibrate(f, NULL, 20, 0), *again = NULL;
    size_t size = 0;
    char *text, path[512];

    make_directory(NULL);
    snprintf(path, sizeof path, "%s", in_directory("c.json"));
    assert_ok(ptq_calibration_save(c, path, &err));
    assert_int_equal(count_files(), 1);
    assert_ok(ptq_calibration_load(path, NULL, &again, &err));
    text = json_of(c, &size);
    expect_json(again, text, size);
    write_file(path, text, size / 2);
    assert_fails(PTQ_BAD_FILE, "c.json", ptq_calibration_load(path, NULL, &again, &err));
    assert_fails(PTQ_IO_ERROR, "none.json",
                 ptq_calibration_load(in_directory("none.json"), NULL, &again, &err));
    free(text);
    remove_directory(NULL);
}

static void truncated_files(void **state) {
    size_t size = 0, n;
    char *text = small_json(&size);

    (void)state;
    assert_true(try_json(text, size));
    for (n = 0; n < size - 2; n += TEST_SANITIZED ? 9 : 1) /* less its closing brace and newline */
        if (try_json(text, n))
            fail_msg("%d of %d bytes are taken for a calibration", (int)n, (int)size);
    assert_false(try_json("{}", 2));
    assert_false(try_json("", 0));
    free(text);
}

/* What stands in a file made by hand, wrong in one place. */
static void wrong_values(void **state) {
    static const char *const change[][2] = {
        {"\"ptq-calibration\"", "\"another\""},
        {"\"ptq-calibration\"", "1"},
        {"\"format_version\": 1", "\"format_version\": 2"},
        {"\"format_version\": 1", "\"format_version\": \"1\""},
        {"\"model\": \"", "\"model\": \"0"},
        {"\"model\": \"", "\"model\": \"\\u0000"},
        {"\"pixel\": [", "\"pixel\": [0,"},
        {"\"pixel\": [", "\"pixel\": [["},
        {"\"pixel\": [", "\"pixel\": [-1"},
        {"\"pixel\": [", "\"pixel\": [0."},
        {"\"pixel\": [", "\"pixel\": [1e"},
        {"\"pixel\": [", "\"pixel\": [null"},
        {"\"pixel\": [", "\"pixel\": [99999999999999999999"},
        {"\"pool\"", "\"fc\""},
        {"\"pool\"", "\"a b\""},
        {"\"pool\"", "\"\""},
        {"\"count\": ", "\"count\": 1"},
        {"\"zeros\": ", "\"zeros\": 1"},
        {"\"bins\": [", "\"bins\": [1,"},
        {"\"bins\": [", "\"bins\": [[[[[[[[[["},
        {"\"exponent\": ", "\"exponent\": 9"},
        {"\"exponent\": ", "\"exponent\": -9"},
        {"\"first\": ", "\"first\": 9"},
        {"\"first\": ", "\"first\": -"},
        {"\"min_sum\": [", "\"min_sum\": [0,"},
        {"\"min_sum\": [", "\"min_sum\": [1e99,"},
        {"\"min\": ", "\"min\": 1e999"},
        {"\"min\": ", "\"min\": NaN"},
        {"\"min\": ", "\"min\": \""},
        {"\"neighbours\": ", "\"neighbours\": -"},
        {"\"neighbours\"", "\"strangers\""},
        {"\"tensors\": {", "\"tensors\": {}, \"tensors\": ["},
    };
    size_t size = 0;
    char *text = small_json(&size);
    int i;

    (void)state;
    for (i = 0; i < COUNT(change); i++) {
        char *wrong = replaced(text, change[i][0], change[i][1]);
        if (try_json(wrong, strlen(wrong)))
            fail_msg("%s instead of %s is taken", change[i][1], change[i][0]);
        free(wrong);
    }
    free(text);
}

/* Numbers that are fine each for itself, but do not agree: three images in the list are three in
   every tensor and in the classes. */
static void numbers_that_disagree(void **state) {
    size_t size = 0;
    char *text = small_json(&size), *images, *classes;
    int taken;

    (void)state;
    images = replaced(text, "\"images\": 3", "\"images\": 4");
    classes = replaced(text, "\"class_count\": [1,1,1]", "\"class_count\": [1,1,7]");
    taken = try_json(images, size) + 2 * try_json(classes, size);
    assert_int_equal(taken, 0);
    free(classes);
    free(images);
    free(text);
}

/* A largest value far beyond the bins: searches for a range begin at its bin. */
static void extremes_beyond_the_bins(void **state) {
    size_t size = 0;
    char *text = small_json(&size), *at, *end, wrong[65536];
    static const char *const value[] = {"1e30", "-1e30", "3e38", "1e-40", "-3e38", "1e5"};
    static const char *const key[] = {"\"min\": ", "\"max\": "};
    int k, i, taken = 0;

    (void)state;
    assert_true(size < 60000);
    for (k = 0; k < 2; k++)
        for (i = 0; i < COUNT(value); i++) {
            at = strstr(text, key[k]) + strlen(key[k]);
            end = at + strcspn(at, ",");
            memcpy(wrong, text, (size_t)(at - text));
            strcpy(wrong + (at - text), value[i]);
            strcat(wrong, end);
            taken += try_json(wrong, strlen(wrong));
        }
    assert_int_equal(taken, 0);
    free(text);
}

static void deep_nesting(void **state) {
    enum { DEPTH = 200000 };
    char *text = (char *)malloc(DEPTH + 40);

    (void)state;
    assert_non_null(text);
    memset(text, '[', DEPTH);
    assert_false(try_json(text, DEPTH));
    memset(text, '{', DEPTH);
    assert_false(try_json(text, DEPTH));
    strcpy(text, "{\"format\": ");
    memset(text + 11, '[', DEPTH);
    assert_false(try_json(text, DEPTH));
    free(text);
}

static void random_mutations(void **state) {
    static const char *const piece[] = {
        "-1", "0",     "99999999999999999999", "1e38", "-1e-45",        "{", "}", "]", ",", "\"",
        "[",  "\\u00", "9007199254740992",     "null", "\"max\": 1e38,"};
    test_random r = {31};
    size_t size = 0;
    char *text = small_json(&size), *wrong = (char *)malloc(2 * size + 1000);
    int i, k, taken = 0, rounds = TEST_SANITIZED ? 1200 : 5000;

    (void)state;
    assert_non_null(wrong);
    for (i = 0; i < rounds; i++) {
        size_t n = size;
        memcpy(wrong, text, size);
        for (k = random_int(&r, 1, 3); k > 0; k--) {
            size_t at = (size_t)random_int(&r, 0, (int)n - 1), cut, m;
            const char *add;
            if (i % 2) /* the head and the numbers, rather than long lists of bins */
                at =
                    (size_t)(strstr(text, "\"zeros\"") - text) + (size_t)random_int(&r, 0, 300) % n;
            if (at >= n)
                continue;
            switch (random_int(&r, 0, 3)) {
            case 0:
                wrong[at] = (char)random_bits(&r);
                break;
            case 1: /* a piece cut out */
                cut = (size_t)random_int(&r, 1, 20);
                cut = cut < n - at ? cut : n - at;
                memmove(wrong + at, wrong + at + cut, n - at - cut);
                n -= cut;
                break;
            case 2:
                wrong[at] = (char)('0' + random_int(&r, 0, 9));
                break;
            default: /* a piece put in */
                add = piece[random_int(&r, 0, COUNT(piece) - 1)];
                m = strlen(add);
                memmove(wrong + at + m, wrong + at, n - at);
                memcpy(wrong + at, add, m);
                n += m;
                break;
            }
            if (n < 2)
                break;
        }
        taken += try_json(wrong, n);
    }
    assert_true(taken > 0 && taken < rounds); /* a digit of a hash may change, most others not */
    free(wrong);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_however_it_is_done),
        cmocka_unit_test(one_image_less_is_another_file),
        cmocka_unit_test(what_is_kept),
        cmocka_unit_test(image_hash),
        cmocka_unit_test(model_hash),
        cmocka_unit_test(unsuitable_images),
        cmocka_unit_test(real_numbers_without_labels),
        cmocka_unit_test(stopped_half_way),
        cmocka_unit_test(numbers_that_cannot_be_observed),
        cmocka_unit_test(nan_behind_an_activation),
        cmocka_unit_test(quantized_models_are_not_calibrated),
        cmocka_unit_test(warnings),
        cmocka_unit_test(overlap_by_hash),
        cmocka_unit_test(merging_what_does_not_belong_together),
        cmocka_unit_test(json_round_trip),
        cmocka_unit_test(calibration_files),
        cmocka_unit_test(truncated_files),
        cmocka_unit_test(wrong_values),
        cmocka_unit_test(numbers_that_disagree),
        cmocka_unit_test(extremes_beyond_the_bins),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(random_mutations),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
