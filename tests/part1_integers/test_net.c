/* The first screen of the interface: a net does what the full interface does, byte for byte, and
   says what is wrong. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>

/* One allocation fails, those after it do not. */
static long calls, live, fail_at = -1;

static void *net_allocate(size_t size) {
    if (calls++ == fail_at)
        return NULL;
    live++;
    return malloc(size);
}

static void net_release(void *pointer) {
    live--;
    free(pointer);
}

#define PTQ_MALLOC(size) net_allocate(size)
#define PTQ_FREE(pointer) net_release(pointer)
#include "test.h"

enum { SIDE = 32, PIXELS = SIDE * SIDE * 3, CLASSES = 10, RECORD = 1 + PIXELS };

/* Smooth pictures, in the form of CIFAR-10: each class has a slope and colours of its own. */
static void write_pictures(const char *name, int count, uint64_t seed) {
    uint8_t *bytes = (uint8_t *)malloc((size_t)count * RECORD), *to = bytes;
    test_random r = {seed};
    int i, c, y, x;

    assert_non_null(bytes);
    for (i = 0; i < count; i++) {
        int label = i % CLASSES;
        *to++ = (uint8_t)label;
        for (c = 0; c < 3; c++)
            for (y = 0; y < SIDE; y++)
                for (x = 0; x < SIDE; x++)
                    *to++ = (uint8_t)(label * 9 + c * 20 + y * (label % 4) + x * (1 + label % 3) +
                                      random_int(&r, 0, 20));
    }
    write_file(in_directory(name), bytes, (size_t)count * RECORD);
    free(bytes);
}

static int make_files(void **state) {
    ptq_model *model;

    make_directory(state);
    write_pictures("data_batch_1.bin", 60, 1);
    write_pictures("test_batch.bin", 50, 2);
    model = random_resnet8(SIDE, 2, CLASSES, 3, NULL);
    assert_ok(ptq_model_save(model, in_directory("float.safetensors"), &err));
    ptq_model_free(model);
    return 0;
}

/* Paths stay valid over several calls of in_directory. */
static const char *path_of(const char *name) {
    static char path[64][4096];
    static int next;
    char *to = path[next++ % 64];

    snprintf(to, sizeof path[0], "%s", in_directory(name));
    return to;
}

static void assert_same_bytes(const char *name, const void *bytes, size_t size) {
    void *found = NULL;
    size_t n = 0;

    assert_ok(ptq_file_read(path_of(name), 0, NULL, &found, &n, &err));
    assert_int_equal(n, size);
    assert_memory_equal(found, bytes, size);
    ptq_bytes_free(found, NULL);
}

/* From file and from memory, against plan and session made by hand. */
static void a_net_runs(void **state) {
    static uint8_t pixels[2][PIXELS];
    float logits[CLASSES], wanted[CLASSES];
    ptq_model *model = NULL, *fused = NULL;
    ptq_net *net = NULL;
    void *bytes = NULL;
    size_t size = 0;
    test_random r = {4};
    int from_memory, i, best = -1;

    (void)state;
    random_pixels(&r, pixels[0], sizeof pixels);
    assert_ok(ptq_model_load(path_of("float.safetensors"), NULL, &model, &err));
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    assert_ok(ptq_file_read(path_of("float.safetensors"), 0, NULL, &bytes, &size, &err));
    for (from_memory = 0; from_memory < 2; from_memory++) {
        test_run run = open_run(fused, 0);
        if (from_memory)
            assert_ok(ptq_net_open_memory(bytes, size, &net, &err));
        else
            assert_ok(ptq_net_open(path_of("float.safetensors"), &net, &err));
        assert_int_equal(net->model->nodes, fused->nodes);
        assert_int_equal(ptq_plan_get_info(net->plan)->classes, CLASSES);
        for (i = 0; i < 2; i++) {
            assert_ok(ptq_run(run.session, pixels[i], 1, wanted, NULL, &err));
            assert_ok(ptq_net_run(net, pixels[i], logits, &err));
            assert_memory_equal(logits, wanted, sizeof wanted);
            assert_ok(ptq_net_classify(net, pixels[i], &best, &err));
            assert_int_equal(best, ptq_argmax(wanted, CLASSES));
        }
        assert_fails(PTQ_INVALID_ARGUMENT, "pixels", ptq_net_run(net, NULL, logits, &err));
        assert_fails(PTQ_INVALID_ARGUMENT, "pixels", ptq_net_classify(net, NULL, &best, &err));
        ptq_net_free(net);
        close_run(&run);
    }
    ptq_net_free(NULL);
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(fused);
    ptq_model_free(model);
}

/* What ptq_quantize_files has to write, step by step. */
static void *quantized_by_hand(const char *scheme, size_t count, size_t *size) {
    static size_t index[1000];
    ptq_convert_options options;
    ptq_model *model = NULL, *fused = NULL, *made = NULL;
    ptq_calibration *calibration = NULL;
    ptq_cifar10 *data = NULL;
    ptq_subset subset;
    void *bytes = NULL;
    size_t i;

    memset(&options, 0, sizeof options);
    assert_ok(ptq_preset(scheme, &options.scheme, &err));
    assert_ok(ptq_model_load(path_of("float.safetensors"), NULL, &model, &err));
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    assert_ok(ptq_cifar10_open(path_of("."), PTQ_SPLIT_TRAIN, NULL, &data, &err));
    for (i = 0; i < count; i++)
        index[i] = i;
    if (ptq_cifar10_dataset(data)->count > count)
        assert_ok(ptq_sample(ptq_cifar10_dataset(data), count, 42, index, NULL, &err));
    assert_ok(ptq_subset_open(&subset, ptq_cifar10_dataset(data), index, count, &err));
    {
        test_run run = open_run(fused, 0);
        assert_ok(ptq_calibrate(run.plan, &subset.dataset, NULL, &calibration, &err));
        close_run(&run);
    }
    options.images = &subset.dataset;
    assert_ok(ptq_convert(fused, calibration, &options, &made, NULL, &err));
    assert_ok(ptq_self_test_add(made, &err));
    assert_ok(ptq_model_write(made, &bytes, size, &err));
    ptq_calibration_free(calibration);
    ptq_cifar10_free(data);
    ptq_model_free(made);
    ptq_model_free(fused);
    ptq_model_free(model);
    return bytes;
}

static void files_are_quantized(void **state) {
    static const char *const scheme[] = {NULL, "best", "ort-u8", "dynamic"};
    size_t size = 0;
    int i;

    (void)state;
    for (i = 0; i < COUNT(scheme); i++) {
        void *wanted = quantized_by_hand(scheme[i] ? scheme[i] : "best", 60, &size);
        assert_ok(ptq_quantize_files(path_of("float.safetensors"), path_of("."), path_of("q"),
                                     scheme[i], &err));
        assert_same_bytes("q", wanted, size);
        ptq_bytes_free(wanted, NULL);
    }
}

/* Of more than 1,000 images a sample is taken, as many of each class. */
static void many_are_sampled(void **state) {
    size_t size = 0;
    void *wanted;

    (void)state;
    write_pictures("data_batch_1.bin", 1020, 5);
    wanted = quantized_by_hand("ort-s8", 1000, &size);
    assert_ok(ptq_quantize_files(path_of("float.safetensors"), path_of("."), path_of("q"), "ort-s8",
                                 &err));
    assert_same_bytes("q", wanted, size);
    ptq_bytes_free(wanted, NULL);
    write_pictures("data_batch_1.bin", 60, 1);
}

static void files_are_measured(void **state) {
    ptq_comparison got, wanted;
    ptq_evaluation before, after;
    ptq_cifar10 *data = NULL;
    ptq_net *a = NULL, *b = NULL;

    (void)state;
    assert_ok(ptq_quantize_files(path_of("float.safetensors"), path_of("."), path_of("q"), "ort-s8",
                                 &err));
    assert_ok(
        ptq_measure_files(path_of("q"), path_of("float.safetensors"), path_of("."), &got, &err));
    assert_ok(ptq_net_open(path_of("float.safetensors"), &a, &err));
    assert_ok(ptq_net_open(path_of("q"), &b, &err));
    assert_ok(ptq_cifar10_open(path_of("."), PTQ_SPLIT_TEST, NULL, &data, &err));
    assert_ok(ptq_evaluate(a->plan, ptq_cifar10_dataset(data), NULL, &before, &err));
    assert_ok(ptq_evaluate(b->plan, ptq_cifar10_dataset(data), NULL, &after, &err));
    assert_ok(ptq_compare(&before, &after, &wanted, &err));
    assert_int_equal(got.total, 50);
    assert_int_equal(got.agree, wanted.agree);
    assert_int_equal(got.before, before.correct);
    assert_int_equal(got.after, after.correct);
    assert_int_equal(got.after + got.lost, got.before + got.won);
    assert_true(got.delta_pp == wanted.delta_pp);
    ptq_release(&before.memory);
    ptq_release(&after.memory);
    ptq_cifar10_free(data);
    ptq_net_free(a);
    ptq_net_free(b);
}

/* Each error names the thing; nothing is written, and a file that was there stays as it was. */
static void errors_name_the_thing(void **state) {
    const char *model = path_of("float.safetensors"), *here = path_of(".");
    ptq_comparison compared;
    ptq_net *net = NULL;
    int files;

    (void)state;
    write_file(in_directory("junk"), "not a model", 11);
    write_file(in_directory("out"), "as it was", 9);
    files = count_files();
    assert_fails(PTQ_IO_ERROR, "nowhere", ptq_net_open(path_of("nowhere"), &net, &err));
    assert_fails(PTQ_BAD_FILE, "junk", ptq_net_open(path_of("junk"), &net, &err));
    assert_fails(PTQ_BAD_FILE, "", ptq_net_open_memory("x", 1, &net, &err));
    assert_null(net);
    assert_fails(PTQ_INVALID_ARGUMENT, "minimal",
                 ptq_quantize_files(model, here, path_of("out"), "minimal", &err));
    assert_fails(PTQ_IO_ERROR, "nowhere",
                 ptq_quantize_files(path_of("nowhere"), here, path_of("out"), NULL, &err));
    assert_fails(PTQ_BAD_FILE, "junk",
                 ptq_quantize_files(path_of("junk"), here, path_of("out"), NULL, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "another name",
                 ptq_quantize_files(model, here, model, NULL, &err));
    assert_fails(PTQ_IO_ERROR, "nowhere",
                 ptq_quantize_files(model, path_of("nowhere"), path_of("out"), NULL, &err));
    assert_fails(PTQ_BAD_DATA, "junk",
                 ptq_quantize_files(model, path_of("junk"), path_of("out"), NULL, &err));
    assert_fails(PTQ_IO_ERROR, "no/such",
                 ptq_quantize_files(model, here, path_of("no/such"), "dynamic", &err));
    assert_ok(ptq_quantize_files(model, here, path_of("q"), "dynamic", &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "quantized already",
                 ptq_quantize_files(path_of("q"), here, path_of("out"), NULL, &err));
    assert_fails(PTQ_IO_ERROR, "nowhere",
                 ptq_measure_files(model, path_of("nowhere"), here, &compared, &err));
    assert_fails(PTQ_IO_ERROR, "nowhere",
                 ptq_measure_files(model, model, path_of("nowhere"), &compared, &err));
    assert_same_bytes("out", "as it was", 9);
    assert_int_equal(count_files(), files);
}

/* Memory that is not to be had at any one call: an error, nothing lost, nothing half-written. */
static void memory_fails(void **state) {
    const char *model = path_of("float.safetensors"), *q = path_of("q"), *here = path_of(".");
    ptq_comparison compared;
    int what, files;
    long step = TEST_SANITIZED ? 7 : 1;

    (void)state;
    write_pictures("data_batch_1.bin", 10, 6);
    write_pictures("test_batch.bin", 10, 7);
    assert_ok(ptq_quantize_files(model, here, q, "dynamic", &err));
    files = count_files();
    for (what = 0; what < 3; what++) {
        ptq_status status = PTQ_OUT_OF_MEMORY;
        long k, before = live;
        for (k = 0; status; k += step) {
            ptq_net *net = NULL;
            calls = 0;
            fail_at = k;
            status = what == 0   ? ptq_net_open(q, &net, &err)
                     : what == 1 ? ptq_quantize_files(model, here, q, "ort-s8", &err)
                                 : ptq_measure_files(q, model, here, &compared, &err);
            fail_at = -1;
            assert_true(status == PTQ_OK || status == PTQ_OUT_OF_MEMORY);
            assert_true((net != NULL) == (what == 0 && status == PTQ_OK));
            ptq_net_free(net);
            assert_int_equal(live, before);
            assert_int_equal(count_files(), files);
        }
        assert_true(k > 20);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_net_runs),
        cmocka_unit_test(files_are_quantized),
        cmocka_unit_test(many_are_sampled),
        cmocka_unit_test(files_are_measured),
        cmocka_unit_test(errors_name_the_thing),
        cmocka_unit_test(memory_fails),
    };
    return cmocka_run_group_tests(tests, make_files, remove_directory);
}
