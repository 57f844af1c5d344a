/* MLPerf Tiny's ResNet8 on CIFAR-10: the logits and activations that PyTorch gives, the accuracy
   that its authors report. Without the shared data these tests are skipped. */
#include "test.h"

/* An image takes 4 ms, but 30 times that in an instrumented build: there only the first few. */
enum { SMALL_LIMIT = TEST_SANITIZED ? 50 : 0, LARGE_LIMIT = TEST_SANITIZED ? 100 : 0 };

static const char *const weights = "models/resnet8_mlperf.safetensors";

static void skip_without(const char *name) {
    if (shared_path(name))
        return;
    print_message("no %s below PTQ_SHARED: skipped\n", name);
    skip();
}

static ptq_model *load_float(void) {
    ptq_model *model = NULL;

    skip_without(weights);
    assert_ok(ptq_model_load(shared_path(weights), NULL, &model, &err));
    return model;
}

static ptq_model *load_fused(void) {
    ptq_model *model = load_float(), *fused = NULL;

    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    ptq_model_free(model);
    return fused;
}

/* The first `total` images against the golden logits, of which the file holds more. */
static void compare_logits(const ptq_evaluation *e, const char *golden) {
    void *bytes = NULL;
    const float *wanted;
    size_t size = 0, i;
    double worst = 0;

    assert_ok(ptq_file_read(shared_path(golden), 0, NULL, &bytes, &size, &err));
    wanted = (const float *)bytes;
    assert_true(size >= e->total * 10 * sizeof *wanted);
    for (i = 0; i < e->total * 10; i++) {
        double d = fabs((double)e->logits[i] - (double)wanted[i]);
        assert_false(is_nan((double)e->logits[i]));
        worst = d > worst ? d : worst;
    }
    for (i = 0; i < e->total; i++)
        assert_int_equal(ptq_argmax(wanted + 10 * i, 10), e->prediction[i]);
    if (worst > 1e-3)
        fail_msg("%s: worst difference %g", golden, worst);
    ptq_bytes_free(bytes, NULL);
}

/* All of one file, or only the first `limit` images. */
static ptq_evaluation evaluate(const char *images, const char *golden, size_t limit) {
    ptq_model *model;
    ptq_cifar10 *data = NULL;
    ptq_plan *plan = NULL;
    ptq_evaluate_options o;
    ptq_evaluation e;

    skip_without(images);
    skip_without(golden);
    model = load_fused();
    memset(&o, 0, sizeof o);
    o.limit = limit;
    assert_ok(ptq_cifar10_open(shared_path(images), PTQ_SPLIT_TEST, NULL, &data, &err));
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    assert_ok(ptq_evaluate(plan, ptq_cifar10_dataset(data), &o, &e, &err));
    compare_logits(&e, golden);
    ptq_plan_free(plan);
    ptq_cifar10_free(data);
    ptq_model_free(model);
    return e;
}

static void mlperf_performance_set(void **state) {
    ptq_evaluation e =
        evaluate("data/mlperf-tiny-ic200/test_batch.bin", "golden/ic200.logits.f32", SMALL_LIMIT);

    (void)state;
    if (!SMALL_LIMIT) {
        assert_int_equal(e.total, 200);
        assert_int_equal(e.correct, 171);
    }
    ptq_release(&e.memory);
}

static void cifar10_test_images(void **state) {
    static const size_t per_class[] = {438, 477, 430, 372, 439, 366, 473, 454, 458, 464};
    ptq_evaluation e =
        evaluate("data/cifar-10-batches-bin/test_batch.bin", "golden/test.logits.f32", LARGE_LIMIT);
    int c;

    (void)state;
    if (!LARGE_LIMIT) {
        assert_int_equal(e.total, 5000);
        assert_int_equal(e.correct, 4371);
        for (c = 0; c < 10; c++) {
            assert_int_equal(e.class_total[c], 500);
            assert_int_equal(e.class_correct[c], per_class[c]);
            assert_int_equal(e.confusion[11 * c], per_class[c]);
        }
    }
    ptq_release(&e.memory);
}

/* Image `n` of a golden tensor N,C,H,W against ours, H,W,C. */
static double worst_difference(const ptq_tensor *golden, int n, const ptq_tensor *ours) {
    int c = ours->dim[2], hw = ours->dim[0] * ours->dim[1], i, j;
    const float *wanted = (const float *)golden->data + (size_t)n * (size_t)(c * hw);
    const float *got = (const float *)ours->data;
    double worst = 0;

    assert_int_equal(ptq_tensor_elements(golden), 2 * ptq_tensor_elements(ours));
    assert_int_equal(golden->dim[1], c);
    for (i = 0; i < hw; i++)
        for (j = 0; j < c; j++) {
            double d = fabs((double)got[i * c + j] - (double)wanted[j * hw + i]);
            assert_false(is_nan(d));
            worst = d > worst ? d : worst;
        }
    return worst;
}

/* The golden "block1.conv2" includes its batch norm: before fusion that is another tensor. */
static const char *name_in(const ptq_model *model, const char *golden) {
    static const char *const pair[][2] = {{"block1.conv2", "block1.bn2"},
                                          {"block2.conv2", "block2.bn2"},
                                          {"block3.conv2", "block3.bn2"}};
    int i;

    for (i = 0; i < COUNT(pair); i++)
        if (!strcmp(golden, pair[i][0]) && ptq_model_find(model, pair[i][1]) >= 0)
            return pair[i][1];
    return golden;
}

static void compare_activations(const ptq_model *model) {
    static const char *const images = "data/mlperf-tiny-ic200/test_batch.bin";
    static const char *const golden = "golden/activations2.safetensors";
    ptq_archive *archive = NULL;
    void *bytes = NULL;
    size_t size = 0;
    ptq_cifar10 *data = NULL;
    ptq_dataset view;
    test_run run = open_run(model, 1);
    int n, i;

    assert_ok(ptq_file_read(shared_path(golden), 0, NULL, &bytes, &size, &err));
    assert_ok(ptq_archive_parse(bytes, size, NULL, &archive, &err));
    ptq_bytes_free(bytes, NULL);
    assert_ok(ptq_cifar10_open(shared_path(images), PTQ_SPLIT_TEST, NULL, &data, &err));
    assert_int_equal(archive->entries, 15);
    view = *ptq_cifar10_dataset(data);
    for (n = 0; n < 2; n++) {
        uint8_t pixels[3072];
        int label;
        assert_ok(view.get(view.user, (size_t)n, pixels, &label, &err));
        assert_ok(ptq_run(run.session, pixels, 1, NULL, NULL, &err));
        for (i = 0; i < archive->entries; i++) {
            const char *name = name_in(model, archive->entry[i].name);
            ptq_tensor ours;
            double worst;
            assert_ok(ptq_session_tensor(run.session, name, &ours, &err));
            worst = worst_difference(&archive->entry[i].tensor, n, &ours);
            if (worst > 1e-3)
                fail_msg("image %d, %s: worst difference %g", n, name, worst);
        }
    }
    ptq_cifar10_free(data);
    ptq_archive_free(archive);
    close_run(&run);
}

static void activations(void **state) {
    ptq_model *model;

    (void)state;
    skip_without("data/mlperf-tiny-ic200/test_batch.bin");
    skip_without("golden/activations2.safetensors");
    model = load_float();
    compare_activations(model);
    ptq_model_free(model);
    model = load_fused();
    compare_activations(model);
    ptq_model_free(model);
}

static void reference_file_is_resnet8(void **state) {
    ptq_model *model = load_float(), *built = NULL;
    int i;

    (void)state;
    assert_ok(ptq_resnet8(32, 16, 10, NULL, &built, &err));
    assert_int_equal(model->nodes, built->nodes);
    for (i = 0; i < model->nodes; i++) {
        assert_string_equal(model->node[i].name, built->node[i].name);
        assert_memory_equal(model->node[i].shape, built->node[i].shape,
                            sizeof built->node[i].shape);
        if (model->node[i].op == PTQ_OP_BATCH_NORM)
            assert_true(model->node[i].epsilon == 1e-3f);
    }
    for (i = 0; i < 3; i++) { /* raw pixels */
        assert_near(model->mean[i], 0, 0);
        assert_near(model->std[i], 1, 0);
    }
    ptq_model_free(built);
    ptq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_file_is_resnet8),
        cmocka_unit_test(activations),
        cmocka_unit_test(mlperf_performance_set),
        cmocka_unit_test(cifar10_test_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
