/* MLPerf Tiny's ResNet8, calibrated on 1000 training images and quantized: agreement with float on
   real test images, size of the files, memory. Without the shared data these tests are skipped. */
#include "test.h"

enum { LIMIT = TEST_SANITIZED ? 200 : 5000, SAMPLES = TEST_SANITIZED ? 200 : 1000, THREADS = 2 };

static const char *const weights = "models/resnet8_mlperf.safetensors";
static const char *const training = "data/cifar-10-batches-bin/data_batch_1.bin";
static const char *const testing = "data/cifar-10-batches-bin/test_batch.bin";
static const char *const golden = "golden/test.logits.f32";

typedef struct fixture {
    ptq_model *fused;
    ptq_plan *plan;
    ptq_cifar10 *train, *test;
    ptq_subset subset; /* the sample that is calibrated on */
    ptq_calibration *calibration;
    ptq_evaluation real;
    size_t index[SAMPLES];
} fixture;

static ptq_evaluation evaluate(const fixture *f, const ptq_plan *plan) {
    ptq_evaluate_options o;
    ptq_evaluation e;

    memset(&o, 0, sizeof o);
    o.limit = LIMIT;
    o.work.threads = THREADS;
    assert_ok(ptq_evaluate(plan, ptq_cifar10_dataset(f->test), &o, &e, &err));
    return e;
}

/* What the float network says, from PyTorch's logits: test_golden.c compares ours with them, and
   running 5,000 images again takes long. */
static ptq_evaluation float_evaluation(const fixture *f) {
    ptq_dataset data = *ptq_cifar10_dataset(f->test);
    ptq_evaluation e;
    uint8_t pixels[3072];
    void *bytes = NULL;
    size_t size = 0, i;

    memset(&e, 0, sizeof e);
    assert_ok(ptq_file_read(shared_path(golden), 0, NULL, &bytes, &size, &err));
    assert_true(size >= LIMIT * 10 * sizeof(float));
    e.total = LIMIT;
    e.classes = 10;
    e.label = (int *)calloc(2 * LIMIT, sizeof(int));
    assert_non_null(e.label);
    e.memory.block[0] = e.label;
    e.prediction = e.label + LIMIT;
    for (i = 0; i < LIMIT; i++) {
        assert_ok(data.get(data.user, i, pixels, &e.label[i], &err));
        e.prediction[i] = ptq_argmax((const float *)bytes + 10 * i, 10);
        e.correct += e.prediction[i] == e.label[i];
    }
    ptq_bytes_free(bytes, NULL);
    return e;
}

static int open_fixture(void **state) {
    fixture *f;
    ptq_model *model = NULL;
    ptq_calibrate_options o;

    *state = NULL;
    if (!shared_path(weights) || !shared_path(training) || !shared_path(testing) ||
        !shared_path(golden))
        return 0;
    f = (fixture *)calloc(1, sizeof *f);
    assert_non_null(f);
    assert_ok(ptq_model_load(shared_path(weights), NULL, &model, &err));
    assert_ok(ptq_fuse(model, &f->fused, NULL, &err));
    ptq_model_free(model);
    assert_ok(ptq_plan_create(f->fused, NULL, &f->plan, &err));
    assert_ok(ptq_cifar10_open(shared_path(training), PTQ_SPLIT_TRAIN, NULL, &f->train, &err));
    assert_ok(ptq_cifar10_open(shared_path(testing), PTQ_SPLIT_TEST, NULL, &f->test, &err));
    assert_ok(ptq_sample(ptq_cifar10_dataset(f->train), SAMPLES, 42, f->index, NULL, &err));
    assert_ok(ptq_subset_open(&f->subset, ptq_cifar10_dataset(f->train), f->index, SAMPLES, &err));
    memset(&o, 0, sizeof o);
    o.work.threads = THREADS;
    assert_ok(ptq_calibrate(f->plan, &f->subset.dataset, &o, &f->calibration, &err));
    f->real = float_evaluation(f);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;

    if (!f)
        return 0;
    free(f->real.label);
    ptq_calibration_free(f->calibration);
    ptq_cifar10_free(f->test);
    ptq_cifar10_free(f->train);
    ptq_plan_free(f->plan);
    ptq_model_free(f->fused);
    free(f);
    return 0;
}

static const fixture *need(void **state) {
    if (!*state) {
        print_message("no CIFAR-10 and no ResNet8 below PTQ_SHARED: skipped\n");
        skip();
    }
    return (const fixture *)*state;
}

/* Plainly rounded where `plain`. */
static ptq_model *convert(const fixture *f, const char *name, int plain) {
    ptq_convert_options o;
    ptq_model *m = NULL;

    memset(&o, 0, sizeof o);
    o.images = &f->subset.dataset;
    o.work.threads = THREADS;
    assert_ok(ptq_preset(name, &o.scheme, &err));
    if (plain)
        o.scheme.rounding = PTQ_ROUNDING_NEAREST;
    assert_ok(ptq_convert(f->fused, f->calibration, &o, &m, NULL, &err));
    return m;
}

/* Agreement with float in percent. With 200 images one image is half a point: three are allowed. */
static void expect_agreement(const fixture *f, const char *name, double least) {
    ptq_model *m = convert(f, name, 0);
    ptq_plan *plan = NULL;
    ptq_evaluation e;
    ptq_comparison c;
    double percent;

    assert_ok(ptq_plan_create(m, NULL, &plan, &err));
    e = evaluate(f, plan);
    assert_ok(ptq_compare(&f->real, &e, &c, &err));
    percent = 100 * (double)c.agree / (double)c.total;
    print_message("%s: %.2f %% agree, %+.2f points\n", name, percent, c.delta_pp);
    if (percent < least - (LIMIT < 5000 ? 1.5 : 0))
        fail_msg("%s: %.2f %%, wanted %.2f %%", name, percent, least);
    ptq_release(&e.memory);
    ptq_plan_free(plan);
    ptq_model_free(m);
}

static void agreement_of_ort_u8(void **state) { expect_agreement(need(state), "ort-u8", 97.8); }

static void agreement_of_ort_s8(void **state) { expect_agreement(need(state), "ort-s8", 97.2); }

static void agreement_of_fbgemm(void **state) { expect_agreement(need(state), "fbgemm", 97.0); }

static void agreement_of_tflite(void **state) { expect_agreement(need(state), "tflite", 98.2); }

static void float_accuracy(void **state) {
    const fixture *f = need(state);

    if (LIMIT == 5000)
        assert_int_equal(f->real.correct, 4371);
    assert_int_equal(f->real.total, LIMIT);
}

static void calibration_is_clean(void **state) {
    const fixture *f = need(state);
    char text[1000] = "";
    size_t overlap = 1;

    assert_int_equal(ptq_calibration_warnings(f->calibration, text, sizeof text), 0);
    assert_string_equal(text, "");
    assert_ok(
        ptq_calibration_overlap(f->calibration, ptq_cifar10_dataset(f->test), &overlap, &err));
    assert_int_equal(overlap, 0);
}

/* Bytes of the file, and of the activations, at most. Learned rounding takes long and changes
   neither. */
static void sizes(void **state) {
    static const struct {
        const char *name;
        size_t file, arena;
    } most[] = {{"best", 84400, 36864}, {"w4a8", 50000, 36864}};
    const fixture *f = need(state);
    int i, k;

    for (i = 0; i < COUNT(most); i++) {
        ptq_model *m = convert(f, most[i].name, 1);
        ptq_plan_options o;
        ptq_plan *plan = NULL;
        void *bytes = NULL;
        size_t n = 0;
        memset(&o, 0, sizeof o);
        o.isa = PTQ_ISA_SCALAR;
        assert_ok(ptq_model_write(m, &bytes, &n, &err));
        assert_ok(ptq_plan_create(m, &o, &plan, &err));
        print_message("%s: %lu bytes, arena %lu bytes\n", most[i].name, (unsigned long)n,
                      (unsigned long)ptq_plan_get_info(plan)->arena_bytes);
        assert_in_range(n, 30000, most[i].file);
        assert_in_range(ptq_plan_get_info(plan)->arena_bytes, 32768, most[i].arena);
        for (k = 0; k < m->nodes; k++) /* really on integers, all of it */
            if (m->node[k].op == PTQ_OP_CONV2D || m->node[k].op == PTQ_OP_DENSE)
                assert_int_equal(ptq_node_mode(m, k), PTQ_MODE_INTEGER);
        ptq_bytes_free(bytes, NULL);
        ptq_plan_free(plan);
        ptq_model_free(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_accuracy),
        cmocka_unit_test(calibration_is_clean),
        cmocka_unit_test(agreement_of_ort_u8),
        cmocka_unit_test(agreement_of_ort_s8),
        cmocka_unit_test(agreement_of_fbgemm),
        cmocka_unit_test(agreement_of_tflite),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
