/* What goes wrong outside: memory that is not to be had at any one call, disks that are full, a
   process killed while it writes. Each time an error comes back, nothing leaks, and what was there
   before is as it was. */
#include "quantized.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { THREADS = 3 };

/* ---------------------------------------------------------------------------------------------
   One allocation fails, those after it do not: so an error that somebody swallows shows as well */

typedef struct faulty {
    long live, calls, fail_at;
    pthread_mutex_t lock; /* the library's threads allocate too */
} faulty;

static void *faulty_allocate(void *user, size_t size)
{
    faulty *heap = (faulty *)user;
    void *pointer = malloc(size ? size : 1);
    int fails;

    assert_non_null(pointer);
    memset(pointer, 0xA5, size);
    pthread_mutex_lock(&heap->lock);
    fails = heap->calls++ == heap->fail_at;
    heap->live += !fails;
    pthread_mutex_unlock(&heap->lock);
    if (!fails)
        return pointer;
    free(pointer);
    return NULL;
}

static void faulty_release(void *user, void *pointer)
{
    faulty *heap = (faulty *)user;

    pthread_mutex_lock(&heap->lock);
    heap->live--;
    pthread_mutex_unlock(&heap->lock);
    free(pointer);
}

static ptq_allocator allocator_of(faulty *heap)
{
    ptq_allocator allocator;

    memset(heap, 0, sizeof *heap);
    heap->fail_at = -1;
    pthread_mutex_init(&heap->lock, NULL);
    allocator.allocate = faulty_allocate;
    allocator.release = faulty_release;
    allocator.user = heap;
    return allocator;
}

/* What is there before, and has to stay as it is: a network in both forms, and a running
   session. */
typedef struct fixture {
    ptq_model *model, *fused, *integer;
    ptq_plan *plan, *integer_plan;
    ptq_session *session;
    ptq_calibration *calibration;
    pictures p;
    uint64_t hash[3];
    float logits[3];
    uint8_t pixels[32];
} fixture;

static const char network[] = "ptq-graph 1\n"
                              "input input shape=4x4x2\n"
                              "a conv2d in=input channels=2 kernel=3x3\n"
                              "n batch_norm in=a epsilon=0.001\n"
                              "r relu in=n\n"
                              "b conv2d in=r channels=2 kernel=1x1\n"
                              "s add in=b,r\n"
                              "p global_avg_pool in=s\n"
                              "d dense in=p channels=3\n"
                              "o softmax in=d\n";

static int open_fixture(void **state)
{
    fixture *f = (fixture *)calloc(1, sizeof *f);
    ptq_convert_options o;
    int i;

    assert_non_null(f);
    f->model = model_of_text(network);
    fill_model(f->model, 3);
    assert_ok(ptq_fuse(f->model, &f->fused, NULL, &err));
    f->p = pictures_for(f->fused, 4, 7);
    f->calibration = calibrated_on(f->fused, pictures_dataset(&f->p));
    o = with_scheme(preset("tflite"), pictures_dataset(&f->p));
    f->integer = converted(f->fused, f->calibration, &o);
    assert_ok(ptq_plan_create(f->fused, NULL, &f->plan, &err));
    assert_ok(ptq_plan_create(f->integer, NULL, &f->integer_plan, &err));
    assert_ok(ptq_session_create(f->integer_plan, NULL, &f->session, &err));
    assert_ok(get_picture(&f->p, 0, f->pixels, &i, &err));
    assert_ok(ptq_run(f->session, f->pixels, 1, f->logits, NULL, &err));
    f->hash[0] = ptq_model_hash(f->model);
    f->hash[1] = ptq_model_hash(f->fused);
    f->hash[2] = ptq_model_hash(f->integer);
    *state = f;
    return make_directory(state) ? -1 : 0;
}

static int close_fixture(void **state)
{
    fixture *f = (fixture *)*state;

    ptq_session_free(f->session);
    ptq_plan_free(f->integer_plan);
    ptq_plan_free(f->plan);
    ptq_model_free(f->integer);
    ptq_calibration_free(f->calibration);
    ptq_model_free(f->fused);
    ptq_model_free(f->model);
    free(f);
    return remove_directory(state);
}

static void assert_untouched(const fixture *f)
{
    float logits[3];

    assert_ok(ptq_run(f->session, f->pixels, 1, logits, NULL, &err));
    assert_memory_equal(logits, f->logits, sizeof logits);
    assert_int_equal(ptq_model_hash(f->model), f->hash[0]);
    assert_int_equal(ptq_model_hash(f->fused), f->hash[1]);
    assert_int_equal(ptq_model_hash(f->integer), f->hash[2]);
}

/* Runs a chain of calls, which frees all that it made, with each allocation failing in turn. */
typedef ptq_status (*chain)(const fixture *f, ptq_allocator allocator);

static void fail_each(const fixture *f, chain run, long least)
{
    faulty heap;
    ptq_allocator allocator = allocator_of(&heap);
    long n, total;
    ptq_status s;

    assert_ok(run(f, allocator));
    assert_int_equal(heap.live, 0);
    total = heap.calls;
    assert_true(total >= least);
    for (n = 0; n < total; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        err.text[0] = 0;
        s = run(f, allocator);
        if (s != PTQ_OUT_OF_MEMORY || !err.text[0] || heap.live)
            fail_msg("allocation %ld of %ld fails: %s, \"%s\", %ld blocks leak", n, total,
                     ptq_status_name(s), err.text, heap.live);
        assert_untouched(f);
    }
    print_message("%ld allocations, each failed once\n", total);
}

static ptq_status load_and_run(const fixture *f, ptq_allocator allocator)
{
    ptq_load_options load = {allocator, 0};
    ptq_plan_options planning = {PTQ_ISA_AUTO, allocator};
    ptq_session_options running;
    ptq_model *model = NULL, *copy = NULL, *fused = NULL;
    ptq_fuse_report report;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    float logits[3];
    ptq_status s;

    memset(&report, 0, sizeof report);
    report.allocator = allocator;
    memset(&running, 0, sizeof running);
    running.keep = 1;
    running.allocator = allocator;
    (void)((s = ptq_model_load(in_directory("model"), &load, &model, &err)) ||
           (s = ptq_model_copy(model, &allocator, &copy, &err)) ||
           (s = ptq_fuse(copy, &fused, &report, &err)) ||
           (s = ptq_plan_create(fused, &planning, &plan, &err)) ||
           (s = ptq_session_create(plan, &running, &session, &err)) ||
           (s = ptq_run(session, f->pixels, 1, logits, NULL, &err)) ||
           (s = ptq_model_save(fused, in_directory("saved"), &err)));
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_fuse_report_free(&report);
    ptq_model_free(fused);
    ptq_model_free(copy);
    ptq_model_free(model);
    return s;
}

static void loading_running_saving(void **state)
{
    const fixture *f = (const fixture *)*state;

    assert_ok(ptq_model_save(f->model, in_directory("model"), &err));
    fail_each(f, load_and_run, 50);
}

static ptq_status calibrate_and_convert(const fixture *f, ptq_allocator allocator)
{
    ptq_dataset data = *pictures_dataset((pictures *)&f->p);
    ptq_calibrate_options calibrating;
    ptq_convert_options o = with_scheme(preset("tflite"), &data);
    ptq_calibration *seen = NULL, *again = NULL;
    ptq_model *model = NULL;
    ptq_convert_report report;
    size_t overlap;
    ptq_status s;

    memset(&calibrating, 0, sizeof calibrating);
    memset(&report, 0, sizeof report);
    calibrating.accept_any = 1;
    calibrating.work.threads = o.work.threads = THREADS;
    o.scheme.activation_bits = 6;
    o.scheme.equalize = 1;
    o.scheme.rounding = PTQ_ROUNDING_LEARNED;
    o.scheme.refit = PTQ_REFIT_ALWAYS;
    o.work.allocator = calibrating.work.allocator = report.allocator = allocator;
    (void)((s = ptq_calibrate(f->plan, &data, &calibrating, &seen, &err)) ||
           (s = ptq_calibration_save(seen, in_directory("seen"), &err)) ||
           (s = ptq_calibration_load(in_directory("seen"), &allocator, &again, &err)) ||
           (s = ptq_calibration_overlap(again, &data, &overlap, &err)) ||
           (s = ptq_convert(f->fused, again, &o, &model, &report, &err)) ||
           (s = ptq_model_save(model, in_directory("integer"), &err)));
    ptq_convert_report_free(&report);
    ptq_model_free(model);
    ptq_calibration_free(again);
    ptq_calibration_free(seen);
    return s;
}

static void calibrating_converting(void **state)
{
    fail_each((const fixture *)*state, calibrate_and_convert, 100);
}

static ptq_status evaluate(const fixture *f, ptq_allocator allocator)
{
    ptq_dataset data = *pictures_dataset((pictures *)&f->p);
    ptq_evaluate_options o;
    ptq_evaluation a, b;
    ptq_layer_report layers;
    ptq_divergence apart;
    ptq_comparison compared;
    size_t index[2];
    ptq_status s;

    memset(&o, 0, sizeof o);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    memset(&layers, 0, sizeof layers);
    o.work.allocator = layers.allocator = allocator;
    o.work.threads = THREADS;
    (void)((s = ptq_sample(&data, 2, 5, index, &allocator, &err)) ||
           (s = ptq_evaluate(f->plan, &data, &o, &a, &err)) ||
           (s = ptq_evaluate(f->integer_plan, &data, &o, &b, &err)) ||
           (s = ptq_compare(&a, &b, &compared, &err)) ||
           (s = ptq_compare_logits(&a, &b, &apart, &err)) ||
           (s = ptq_compare_layers(f->plan, f->integer_plan, &data, 2, &layers, &err)));
    ptq_layer_report_free(&layers);
    ptq_evaluation_free(&b);
    ptq_evaluation_free(&a);
    return s;
}

static void evaluating(void **state)
{
    fail_each((const fixture *)*state, evaluate, 10);
}

static ptq_status search(const fixture *f, ptq_allocator allocator)
{
    ptq_dataset data = *pictures_dataset((pictures *)&f->p);
    ptq_search_options o;
    ptq_goal goal = {0, 5, 0};
    ptq_model *mixed = NULL;
    ptq_mix_report mix;
    ptq_status s;

    memset(&o, 0, sizeof o);
    memset(&mix, 0, sizeof mix);
    o.scheme = preset("tflite");
    data.count = 1;
    o.images = &data;
    o.work.allocator = allocator;
    s = ptq_convert_mixed(f->fused, f->calibration, &o, &goal, &mixed, &mix, &err);
    ptq_mix_report_free(&mix);
    ptq_model_free(mixed);
    return s;
}

/* Thousands of allocations that repeat themselves: a few are failed here, every one of a smaller
   network in test_recover.c. */
static void searching(void **state)
{
    const fixture *f = (const fixture *)*state;
    faulty heap;
    ptq_allocator allocator = allocator_of(&heap);
    long n, total;

    assert_ok(search(f, allocator));
    assert_int_equal(heap.live, 0);
    total = heap.calls;
    for (n = 0; n < total; n += total / (TEST_SANITIZED ? 9 : 60)) {
        heap.calls = 0;
        heap.fail_at = n;
        assert_int_equal(search(f, allocator), PTQ_OUT_OF_MEMORY);
        assert_int_equal(heap.live, 0);
        assert_untouched(f);
    }
}

/* ---------------------------------------------------------------------------------------------
   What changes an object does so as a whole or not at all */

/* The bytes that stand for an object, from the ordinary heap. */
typedef struct snapshot {
    void *bytes;
    size_t size;
} snapshot;

static snapshot snapshot_of(const ptq_model *model)
{
    snapshot made = {NULL, 0};

    assert_ok(ptq_model_write(model, &made.bytes, &made.size, &err));
    return made;
}

static void assert_same_snapshot(snapshot a, snapshot b, const ptq_allocator *allocator)
{
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.bytes, b.bytes, a.size);
    ptq_bytes_free(b.bytes, allocator);
}

static void merging_calibrations(void **state)
{
    const fixture *f = (const fixture *)*state;
    faulty heap;
    ptq_allocator allocator = allocator_of(&heap);
    ptq_calibration *seen = NULL;
    snapshot before = {NULL, 0}, after = {NULL, 0};
    ptq_status s = PTQ_OUT_OF_MEMORY;
    long n;

    assert_ok(ptq_calibration_save(f->calibration, in_directory("seen"), &err));
    assert_ok(ptq_calibration_load(in_directory("seen"), &allocator, &seen, &err));
    assert_ok(ptq_calibration_write(seen, &before.bytes, &before.size, &err));
    for (n = 0; s; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        s = ptq_calibration_merge(seen, f->calibration, &err);
        heap.fail_at = -1;
        if (!s)
            break;
        assert_int_equal(s, PTQ_OUT_OF_MEMORY);
        assert_ok(ptq_calibration_write(seen, &after.bytes, &after.size, &err));
        assert_same_snapshot(before, after, &allocator);
    }
    assert_true(n > 0);
    ptq_bytes_free(before.bytes, &allocator);
    ptq_calibration_free(seen);
    assert_int_equal(heap.live, 0);
}

static ptq_status change_meta(ptq_model *model)
{
    ptq_status s = ptq_model_set_meta(model, "old", "new value", &err);

    return s ? s : ptq_model_set_meta(model, "new", "value", &err);
}

static void changing_a_model(void **state)
{
    static ptq_status (*const change[])(ptq_model *) = {change_meta, NULL};
    const fixture *f = (const fixture *)*state;
    size_t kind;

    for (kind = 0; kind < 2; kind++) {
        faulty heap;
        ptq_allocator allocator = allocator_of(&heap);
        ptq_model *model = NULL;
        snapshot before, after;
        ptq_status s = PTQ_OUT_OF_MEMORY;
        long n;

        assert_ok(ptq_model_copy(f->integer, &allocator, &model, &err));
        assert_ok(ptq_model_set_meta(model, "old", "old value", &err));
        before = snapshot_of(model);
        for (n = 0; s; n++) {
            heap.calls = 0;
            heap.fail_at = n;
            s = change[kind] ? change[kind](model) : ptq_self_test_add(model, &err);
            heap.fail_at = -1;
            if (s) {
                assert_int_equal(s, PTQ_OUT_OF_MEMORY);
                if (!strcmp(ptq_model_get_meta(model, "old"), "new value")) /* the first of two */
                    assert_ok(ptq_model_set_meta(model, "old", "old value", &err));
                after = snapshot_of(model);
                assert_same_snapshot(before, after, &allocator);
            }
        }
        assert_true(n > 2);
        ptq_bytes_free(before.bytes, &allocator);
        ptq_model_free(model);
        assert_int_equal(heap.live, 0);
    }
}

static void growing_an_archive(void **state)
{
    const fixture *f = (const fixture *)*state;
    const ptq_tensor *weight = &f->fused->node[1].param[PTQ_PARAM_WEIGHT];
    faulty heap;
    ptq_allocator allocator = allocator_of(&heap);
    ptq_archive *archive = NULL;
    snapshot before = {NULL, 0}, after = {NULL, 0};
    ptq_status s = PTQ_OUT_OF_MEMORY;
    char name[2] = "a";
    long n;

    assert_ok(ptq_archive_create(&allocator, &archive, &err));
    do /* until the next one needs a larger array */
        assert_ok(ptq_archive_add(archive, name, weight, &err));
    while (name[0]++, archive->entries < archive->capacity);
    assert_ok(ptq_archive_write(archive, &before.bytes, &before.size, &err));
    for (n = 0; s; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        s = ptq_archive_add(archive, "one more", weight, &err);
        heap.fail_at = -1;
        if (s) {
            assert_int_equal(s, PTQ_OUT_OF_MEMORY);
            assert_ok(ptq_archive_write(archive, &after.bytes, &after.size, &err));
            assert_same_snapshot(before, after, &allocator);
        }
    }
    assert_true(n > 2);
    assert_int_equal(archive->entries, name[0] - 'a' + 1);
    ptq_bytes_free(before.bytes, &allocator);
    ptq_archive_free(archive);
    assert_int_equal(heap.live, 0);
}

/* ---------------------------------------------------------------------------------------------
   Files */

static void assert_old_file(const char *name)
{
    void *bytes = NULL;
    size_t size = 0;

    assert_ok(ptq_file_read(in_directory(name), 0, NULL, &bytes, &size, &err));
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "old", 3);
    ptq_bytes_free(bytes, NULL);
}

static void limit_files(rlim_t most)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Everything that the library saves, on a disk that fills up in the middle. */
static void full_disk(void **state)
{
    const fixture *f = (const fixture *)*state;
    ptq_archive *archive = NULL;
    ptq_status status[3];
    void *bytes = NULL;
    size_t size = 0;
    int i, before;

    assert_ok(ptq_archive_create(NULL, &archive, &err));
    assert_ok(ptq_archive_add(archive, "w", &f->fused->node[1].param[PTQ_PARAM_WEIGHT], &err));
    assert_ok(ptq_archive_write(archive, &bytes, &size, &err));
    write_file(in_directory("full"), "old", 3);
    before = count_files();
    signal(SIGXFSZ, SIG_IGN);
    limit_files(100);
    status[0] = ptq_model_save(f->integer, in_directory("full"), &err);
    status[1] = ptq_calibration_save(f->calibration, in_directory("full"), &err);
    status[2] = ptq_file_write(in_directory("full"), bytes, size, &err);
    limit_files(RLIM_INFINITY);
    signal(SIGXFSZ, SIG_DFL);
    for (i = 0; i < 3; i++)
        assert_int_equal(status[i], PTQ_IO_ERROR);
    assert_non_null(strstr(err.text, "full"));
    assert_old_file("full");
    assert_int_equal(count_files(), before);
    ptq_bytes_free(bytes, NULL);
    ptq_archive_free(archive);
}

/* The signal at the limit ends the process in the middle of its write. */
static void killed_while_writing(void **state)
{
    const fixture *f = (const fixture *)*state;
    ptq_model *back = NULL;
    int status = 0, before;
    pid_t child;

    write_file(in_directory("killed"), "old", 3);
    before = count_files();
    child = fork();
    assert_true(child >= 0);
    if (!child) {
        signal(SIGXFSZ, SIG_DFL);
        limit_files(100);
        ptq_model_save(f->integer, in_directory("killed"), NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
    assert_old_file("killed");
    assert_ok(ptq_model_save(f->integer, in_directory("killed"), &err));
    assert_int_equal(count_files(), before); /* what the dead left was taken up */
    assert_ok(ptq_model_load(in_directory("killed"), NULL, &back, &err));
    assert_same_model(f->integer, back);
    ptq_model_free(back);
}

static int is_device(const char *path)
{
    struct stat now;

    return !stat(path, &now) && S_ISCHR(now.st_mode);
}

/* No file takes their places. */
static void devices(void **state)
{
    const fixture *f = (const fixture *)*state;

    if (!is_device("/dev/full") || !is_device("/dev/null"))
        skip();
    assert_fails(PTQ_IO_ERROR, "/dev/full", ptq_model_save(f->integer, "/dev/full", &err));
    assert_ok(ptq_model_save(f->integer, "/dev/null", &err));
    assert_true(is_device("/dev/full"));
    assert_true(is_device("/dev/null"));
}

/* What comes through a pipe comes in small pieces, and perhaps not to its end. */
static void pipes(void **state)
{
    const fixture *f = (const fixture *)*state;
    const char *path = in_directory("pipe");
    void *bytes = NULL;
    size_t size = 0;
    int whole;

    assert_ok(ptq_model_write(f->integer, &bytes, &size, &err));
    assert_int_equal(mkfifo(path, 0600), 0);
    for (whole = 0; whole < 2; whole++) {
        size_t end = whole ? size : size / 2;
        ptq_model *back = NULL;
        pid_t child = fork();

        assert_true(child >= 0);
        if (!child) {
            FILE *to = fopen(path, "wb");
            size_t at, n;

            for (at = 0; to && at < end; at += n) {
                n = end - at < 7 ? end - at : 7;
                fwrite((const char *)bytes + at, 1, n, to);
                fflush(to);
            }
            _exit(!to || fclose(to));
        }
        if (whole) {
            assert_ok(ptq_model_load(path, NULL, &back, &err));
            assert_same_model(f->integer, back);
        } else {
            assert_fails(PTQ_BAD_FILE, "pipe", ptq_model_load(path, NULL, &back, &err));
        }
        ptq_model_free(back);
        waitpid(child, NULL, 0);
    }
    ptq_bytes_free(bytes, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loading_running_saving),
        cmocka_unit_test(calibrating_converting),
        cmocka_unit_test(evaluating),
        cmocka_unit_test(searching),
        cmocka_unit_test(merging_calibrations),
        cmocka_unit_test(changing_a_model),
        cmocka_unit_test(growing_an_archive),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(killed_while_writing),
        cmocka_unit_test(devices),
        cmocka_unit_test(pipes),
    };

    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
