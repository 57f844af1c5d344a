/* What goes wrong outside: memory that is not to be had at any one call, disks that are full, a
   process killed while it writes. Each time an error comes back, nothing leaks, and what was there
   before is as it was. */
#include "quantized.h"
#include "faults.h"

#include "measure/mix.h"
#include "measure/nodes.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

enum { THREADS = 3 };

/* ---------------------------------------------------------------------------------------------
   One allocation fails, those after it do not: so an error that somebody swallows shows as well.
   Here chains that are short, with threads and files; long ones further down. */

typedef struct faulty {
    long live, calls, fail_at;
    pthread_mutex_t lock; /* the library's threads allocate too */
} faulty;

static void *faulty_allocate(void *user, size_t size) {
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

static void faulty_release(void *user, void *pointer) {
    faulty *heap = (faulty *)user;

    pthread_mutex_lock(&heap->lock);
    heap->live--;
    pthread_mutex_unlock(&heap->lock);
    free(pointer);
}

static ptq_allocator allocator_of(faulty *heap) {
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

static int open_fixture(void **state) {
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

static int close_fixture(void **state) {
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

static int is_untouched(const fixture *f) {
    float logits[3];

    return !ptq_run(f->session, f->pixels, 1, logits, NULL, NULL) &&
           !memcmp(logits, f->logits, sizeof logits) && ptq_model_hash(f->model) == f->hash[0] &&
           ptq_model_hash(f->fused) == f->hash[1] && ptq_model_hash(f->integer) == f->hash[2];
}

/* Runs a chain of calls, which frees all that it made, with each allocation failing in turn. */
typedef ptq_status (*chain)(const fixture *f, ptq_allocator allocator);

static void fail_each(const fixture *f, chain run, long least) {
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
                     ptq_name(PTQ_NAMES_STATUS, s), err.text, heap.live);
        assert_true(is_untouched(f));
    }
    print_message("%ld allocations, each failed once\n", total);
}

static ptq_status load_and_run(const fixture *f, ptq_allocator allocator) {
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
    report.memory.allocator = allocator;
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
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(copy);
    ptq_model_free(model);
    return s;
}

static void loading_running_saving(void **state) {
    const fixture *f = (const fixture *)*state;

    assert_ok(ptq_model_save(f->model, in_directory("model"), &err));
    fail_each(f, load_and_run, 50);
}

static ptq_status calibrate_and_convert(const fixture *f, ptq_allocator allocator) {
    const ptq_dataset *data = pictures_dataset((pictures *)(uintptr_t)&f->p);
    ptq_calibrate_options calibrating;
    ptq_convert_options o = with_scheme(preset("tflite"), data);
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
    o.work.allocator = calibrating.work.allocator = report.memory.allocator = allocator;
    (void)((s = ptq_calibrate(f->plan, data, &calibrating, &seen, &err)) ||
           (s = ptq_calibration_save(seen, in_directory("seen"), &err)) ||
           (s = ptq_calibration_load(in_directory("seen"), &allocator, &again, &err)) ||
           (s = ptq_calibration_overlap(again, data, &overlap, &err)) ||
           (s = ptq_convert(f->fused, again, &o, &model, &report, &err)) ||
           (s = ptq_model_save(model, in_directory("integer"), &err)));
    ptq_release(&report.memory);
    ptq_model_free(model);
    ptq_calibration_free(again);
    ptq_calibration_free(seen);
    return s;
}

static void calibrating_converting(void **state) {
    fail_each((const fixture *)*state, calibrate_and_convert, 100);
}

static ptq_status evaluate(const fixture *f, ptq_allocator allocator) {
    const ptq_dataset *data = pictures_dataset((pictures *)(uintptr_t)&f->p);
    ptq_evaluate_options o;
    ptq_evaluation a, b;
    ptq_comparison compared;
    size_t index[2];
    ptq_status s;

    memset(&o, 0, sizeof o);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    o.work.allocator = allocator;
    o.work.threads = THREADS;
    (void)((s = ptq_sample(data, 2, 5, index, &allocator, &err)) ||
           (s = ptq_evaluate(f->plan, data, &o, &a, &err)) ||
           (s = ptq_evaluate(f->integer_plan, data, &o, &b, &err)) ||
           (s = ptq_compare(&a, &b, &compared, &err)));
    ptq_release(&b.memory);
    ptq_release(&a.memory);
    return s;
}

static void evaluating(void **state) { fail_each((const fixture *)*state, evaluate, 10); }

/* ---------------------------------------------------------------------------------------------
   Long chains, each allocation in a process of its own */

typedef struct long_chain {
    const fixture *f;
    const ptq_calibration *calibration;
    ptq_convert_options options;
    int is_judged; /* the result is also evaluated and compared */
} long_chain;

static int chain_is_untouched(void *user) { return is_untouched(((const long_chain *)user)->f); }

static long fail_each_of(const char *what, forked_chain run, long_chain *c, long least) {
    long n = fail_each_forked(run, chain_is_untouched, c, 0);

    print_message("%-11s %4ld allocations, each failed once\n", what, n);
    assert_true(n >= least);
    return n;
}

/* With the fixture's calibration and its pictures. */
static long_chain chain_with(const fixture *f, const char *name) {
    long_chain c;

    memset(&c, 0, sizeof c);
    c.f = f;
    c.calibration = f->calibration;
    c.options = with_scheme(preset(name), pictures_dataset((pictures *)(uintptr_t)&f->p));
    return c;
}

typedef struct products {
    ptq_model *model, *back, *fused;
    ptq_plan *plan, *tested;
    ptq_session *session;
    ptq_convert_report report;
    ptq_fuse_report fusions;
    ptq_evaluation before, after;
    void *bytes;
} products;

static void free_products(products *m, const ptq_allocator *allocator) {
    ptq_release(&m->after.memory);
    ptq_release(&m->before.memory);
    ptq_session_free(m->session);
    ptq_plan_free(m->tested);
    ptq_plan_free(m->plan);
    ptq_release(&m->fusions.memory);
    ptq_model_free(m->fused);
    ptq_model_free(m->back);
    ptq_bytes_free(m->bytes, allocator);
    ptq_release(&m->report.memory);
    ptq_model_free(m->model);
}

/* What each preset does in ways of its own: its tensors, their codes in a file, their kernels. */
static ptq_status convert_and_run(const long_chain *c, ptq_allocator allocator, products *m) {
    ptq_load_options load = {allocator, 0};
    ptq_plan_options planning = {PTQ_ISA_AUTO, allocator};
    ptq_session_options running = {1, NULL, 0, NULL, NULL, allocator};
    ptq_convert_options o = c->options;
    size_t n = 0;
    float logits[3];
    ptq_status s;

    o.work.allocator = allocator;
    (void)((s = ptq_convert(c->f->fused, c->calibration, &o, &m->model, &m->report, &err)) ||
           (s = ptq_model_write(m->model, &m->bytes, &n, &err)) ||
           (s = ptq_model_parse(m->bytes, n, &load, &m->back, &err)) ||
           (s = ptq_plan_create(m->back, &planning, &m->plan, &err)) ||
           (s = ptq_session_create(m->plan, &running, &m->session, &err)) ||
           (s = ptq_run(m->session, c->f->pixels, 1, logits, NULL, &err)));
    return s;
}

/* And what is alike for all of them. */
static ptq_status judge(const long_chain *c, ptq_allocator allocator, products *m) {
    ptq_plan_options planning = {PTQ_ISA_AUTO, allocator};
    ptq_evaluate_options evaluating = {{0, NULL, NULL, allocator}, 0, 0};
    const ptq_dataset *data = c->options.images;
    ptq_comparison compared;
    ptq_status s;

    m->fusions.memory.allocator = allocator;
    (void)((s = ptq_fuse(m->back, &m->fused, &m->fusions, &err)) ||
           (s = ptq_self_test_add(m->fused, &err)) ||
           (s = ptq_plan_create(m->fused, &planning, &m->tested, &err)) ||
           (s = ptq_self_test_check(m->tested, &err)) ||
           (s = ptq_evaluate(c->f->plan, data, &evaluating, &m->before, &err)) ||
           (s = ptq_evaluate(m->plan, data, &evaluating, &m->after, &err)) ||
           (s = ptq_compare(&m->before, &m->after, &compared, &err)));
    return s;
}

static ptq_status with_preset(void *user, ptq_allocator allocator) {
    const long_chain *c = (const long_chain *)user;
    products m;
    ptq_status s;

    memset(&m, 0, sizeof m);
    s = convert_and_run(c, allocator, &m);
    if (!s && c->is_judged)
        s = judge(c, allocator, &m);
    free_products(&m, &allocator);
    return s;
}

static void every_preset(void **state) {
    const fixture *f = (const fixture *)*state;
    const char *name;
    int i;

    for (i = 0; (name = ptq_name(PTQ_NAMES_PRESET, (unsigned)i)) != NULL; i++) {
        long_chain c = chain_with(f, name);
        c.is_judged = i == 0;
        fail_each_of(name, with_preset, &c, 50);
    }
    assert_true(i > 0);
}

static ptq_status only_convert(void *user, ptq_allocator allocator) {
    const long_chain *c = (const long_chain *)user;
    ptq_convert_options o = c->options;
    ptq_model *model = NULL;
    ptq_status s;

    o.work.allocator = allocator;
    s = ptq_convert(c->f->fused, c->calibration, &o, &model, NULL, &err);
    ptq_model_free(model);
    return s;
}

/* Below 8 bits and with the images that confirming needs, all of the searches of `best` run. */
static void best_with_its_searches(void **state) {
    const fixture *f = (const fixture *)*state;
    pictures p = pictures_for(f->fused, 200, 7);
    ptq_calibration *calibration = calibrated_on(f->fused, pictures_dataset(&p));
    long_chain c = chain_with(f, "best");
    ptq_override dense = {"d", preset("w4a8")};
    const char *confirmed;
    ptq_model *model;

    c.calibration = calibration;
    c.options.images = pictures_dataset(&p);
    c.options.scheme.weight_bits = 4;
    c.options.scheme.activation_bits = 6;
    c.options.override = &dense;
    c.options.overrides = 1;
    model = converted(f->fused, calibration, &c.options);
    confirmed = ptq_model_get_meta(model, "confirmed");
    assert_non_null(confirmed);
    assert_non_null(strstr(confirmed, "fitted ranges"));
    assert_non_null(strstr(confirmed, "equalization"));
    assert_non_null(strstr(confirmed, "refitted weights"));
    assert_non_null(strstr(confirmed, "learned rounding"));
    ptq_model_free(model);
    fail_each_of("best, w4a6", only_convert, &c, 1000);
    ptq_calibration_free(calibration);
}

/* Both ways to correct biases without learning, a range rule for weights, codes as logits. */
static void bias_corrections(void **state) {
    const fixture *f = (const fixture *)*state;
    long_chain c = chain_with(f, "tflite");

    c.options.scheme.weight_method = PTQ_METHOD_MSE;
    c.options.scheme.code_logits = 1;
    c.options.scheme.bias = PTQ_BIAS_CORRECTION_EMPIRICAL;
    fail_each_of("empirical", only_convert, &c, 20);
}

/* Every range rule, from observers that were merged. */
static ptq_status observe(void *user, ptq_allocator allocator) {
    const long_chain *c = (const long_chain *)user;
    ptq_observer a, b;
    float low, high;
    ptq_status s;
    int rule;

    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    (void)((s = ptq_observer_create(&a, &allocator, &err)) ||
           (s = ptq_observer_create(&b, &allocator, &err)) ||
           (s = ptq_observe(&a, c->f->logits, 3, &err)) ||
           (s = ptq_observe(&b, c->f->logits, 3, &err)));
    for (rule = 0; rule < PTQ_METHOD_COUNT && !s; rule++)
        s = ptq_observer_range(&a, (ptq_method)rule, 0, PTQ_TYPE_U8, 4, 0, &low, &high, &err);
    ptq_observer_free(&b);
    ptq_observer_free(&a);
    return s;
}

/* Calibration of every kind, and all that is asked of one, without files. */
static ptq_status calibrate(void *user, ptq_allocator allocator) {
    const long_chain *c = (const long_chain *)user;
    const ptq_dataset *data = c->options.images;
    ptq_plan_options planning = {PTQ_ISA_AUTO, allocator};
    ptq_calibrate_options o = {{0, NULL, NULL, allocator}, 1};
    ptq_calibration *seen = NULL, *again = NULL;
    ptq_model *alike = NULL;
    ptq_plan *plan = NULL;
    void *json = NULL;
    size_t n = 0, overlap;
    ptq_status s;

    (void)((s = ptq_plan_create(c->f->fused, &planning, &plan, &err)) ||
           (s = ptq_calibrate(plan, data, &o, &seen, &err)) ||
           (s = ptq_calibration_write(seen, &json, &n, &err)) ||
           (s = ptq_calibration_parse(json, n, &allocator, &again, &err)) ||
           (s = ptq_calibration_merge(again, seen, &err)) ||
           (s = ptq_calibration_overlap(again, data, &overlap, &err)) ||
           (s = ptq_equalize_like(c->f->fused, c->f->fused, &alike, &err)));
    ptq_model_free(alike);
    ptq_calibration_free(again);
    ptq_bytes_free(json, &allocator);
    ptq_calibration_free(seen);
    ptq_plan_free(plan);
    return s;
}

static void observing_equalizing(void **state) {
    long_chain c = chain_with((const fixture *)*state, "best");

    fail_each_of("observers", observe, &c, 2);
    fail_each_of("calibrate", calibrate, &c, 30);
}

static search_options searching_with(const long_chain *c, ptq_allocator allocator) {
    search_options o;

    memset(&o, 0, sizeof o);
    o.scheme = c->options.scheme;
    o.images = c->options.images;
    o.measure = 1;
    o.work.allocator = allocator;
    return o;
}

static ptq_status sensitivity(void *user, ptq_allocator allocator) {
    const long_chain *c = (const long_chain *)user;
    search_options o = searching_with(c, allocator);
    node_ranking report;
    ptq_status s;

    memset(&report, 0, sizeof report);
    s = rank_nodes(c->f->fused, c->calibration, &o, &report, &err);
    ptq_release(&report.memory);
    return s;
}

static ptq_status mixed_bits(void *user, ptq_allocator allocator) {
    const long_chain *c = (const long_chain *)user;
    search_options o = searching_with(c, allocator);
    mix_goal goal = {0, 5, 0, 0};
    ptq_model *mixed = NULL;
    mix_report mix;
    ptq_status s;

    memset(&mix, 0, sizeof mix);
    s = convert_mixed(c->f->fused, c->calibration, &o, &goal, &mixed, &mix, &err);
    ptq_release(&mix.memory);
    ptq_model_free(mixed);
    return s;
}

static void searching(void **state) {
    long_chain c = chain_with((const fixture *)*state, "tflite");

    fail_each_of("sensitivity", sensitivity, &c, 100);
    fail_each_of("mixed bits", mixed_bits, &c, 300);
}

/* ---------------------------------------------------------------------------------------------
   What changes an object does so as a whole or not at all */

/* The bytes that stand for an object, from the ordinary heap. */
typedef struct snapshot {
    void *bytes;
    size_t size;
} snapshot;

static snapshot snapshot_of(const ptq_model *model) {
    snapshot made = {NULL, 0};

    assert_ok(ptq_model_write(model, &made.bytes, &made.size, &err));
    return made;
}

static void assert_same_snapshot(snapshot a, snapshot b, const ptq_allocator *allocator) {
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.bytes, b.bytes, a.size);
    ptq_bytes_free(b.bytes, allocator);
}

static void merging_calibrations(void **state) {
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

static ptq_status change_meta(ptq_model *model) {
    ptq_status s = ptq_model_set_meta(model, "old", "new value", &err);

    return s ? s : ptq_model_set_meta(model, "new", "value", &err);
}

static void changing_a_model(void **state) {
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

static void growing_an_archive(void **state) {
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

static void assert_old_file(const char *name) {
    void *bytes = NULL;
    size_t size = 0;

    assert_ok(ptq_file_read(in_directory(name), 0, NULL, &bytes, &size, &err));
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "old", 3);
    ptq_bytes_free(bytes, NULL);
}

static void limit_files(rlim_t most) {
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Everything that the library saves, on a disk that fills up in the middle. */
static void full_disk(void **state) {
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
static void killed_while_writing(void **state) {
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

static int is_device(const char *path) {
    struct stat now;

    return !stat(path, &now) && S_ISCHR(now.st_mode);
}

/* No file takes their places. */
static void devices(void **state) {
    const fixture *f = (const fixture *)*state;

    if (!is_device("/dev/full") || !is_device("/dev/null"))
        skip();
    assert_fails(PTQ_IO_ERROR, "/dev/full", ptq_model_save(f->integer, "/dev/full", &err));
    assert_ok(ptq_model_save(f->integer, "/dev/null", &err));
    assert_true(is_device("/dev/full"));
    assert_true(is_device("/dev/null"));
}

/* What comes through a pipe comes in small pieces, and perhaps not to its end. */
static void pipes(void **state) {
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loading_running_saving),
        cmocka_unit_test(calibrating_converting),
        cmocka_unit_test(evaluating),
        cmocka_unit_test(every_preset),
        cmocka_unit_test(best_with_its_searches),
        cmocka_unit_test(bias_corrections),
        cmocka_unit_test(observing_equalizing),
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
