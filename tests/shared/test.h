/* test.h - what the test programs share: the library, cmocka, and helpers that keep tests short.

   Every test_xxx.c is one program, which includes this file first and thereby compiles its own copy
   of the library. A test may define PTQ_THREADS or PTQ_MALLOC before that. */
#ifndef TEST_H
#define TEST_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* mkdtemp, setenv */
#endif

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PTQ_IMPLEMENTATION
#include "ptq.h"

/* 1 in builds that are several times slower, so that long tests can do less. */
#if defined(__SANITIZE_ADDRESS__)
#define TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_SANITIZED 1
#endif
#endif
#ifndef TEST_SANITIZED
#define TEST_SANITIZED 0
#endif

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* The error that all calls of a test fill in. */
static ptq_error err;

/* With TEST_LIST in the environment a program tells the names of its tests and runs none. */
static inline int run_group(const char *group, const struct CMUnitTest *tests, size_t count,
                            CMFixtureFunction setup, CMFixtureFunction teardown) {
    size_t i;

    if (!getenv("TEST_LIST"))
        return _cmocka_run_group_tests(group, tests, count, setup, teardown);
    for (i = 0; i < count; i++)
        puts(tests[i].name);
    return 0;
}

#undef cmocka_run_group_tests
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    run_group(#tests, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)

/* ---------------------------------------------------------------------------------------------
   Calls that must succeed, calls that must fail */

static inline void expect_ok(ptq_status status, const char *call, const char *file, int line) {
    if (status == PTQ_OK)
        return;
    print_error("%s\n  gives %s: %s\n", call, ptq_name(PTQ_NAMES_STATUS, status), err.text);
    _fail(file, line);
}

/* A failure must come with one terminated sentence without a newline that contains `says`. */
static inline void expect_failure(ptq_status status, ptq_status wanted, const char *says,
                                  const char *call, const char *file, int line) {
    const char *wrong = NULL;

    if (status != wanted)
        wrong = "the wrong status";
    else if (err.status != wanted)
        wrong = "another status in the error";
    else if (!memchr(err.text, 0, sizeof err.text) || err.text[0] == 0)
        wrong = "no terminated text";
    else if (strchr(err.text, '\n'))
        wrong = "a newline in the text";
    else if (!strstr(err.text, says))
        wrong = "a text without the word";
    if (!wrong)
        return;
    err.text[sizeof err.text - 1] = 0;
    print_error("%s\n  gives %s: %s: \"%s\"; wanted %s with \"%s\"\n", call, wrong,
                ptq_name(PTQ_NAMES_STATUS, status), status ? err.text : "",
                ptq_name(PTQ_NAMES_STATUS, wanted), says);
    _fail(file, line);
}

#define assert_ok(call) expect_ok((call), #call, __FILE__, __LINE__)
#define assert_fails(wanted, says, call)                                                           \
    (memset(&err, 'x', sizeof err),                                                                \
     expect_failure((call), (wanted), (says), #call, __FILE__, __LINE__))

static inline int is_nan(double x) { return x != x; }

/* Equal within `absolute`, or within `relative` of the larger. NaN never is. */
static inline int is_near(double a, double b, double absolute, double relative) {
    double larger = fabs(a) > fabs(b) ? fabs(a) : fabs(b);
    return fabs(a - b) <= absolute + relative * larger;
}

static inline void expect_near(double a, double b, double tolerance, const char *text,
                               const char *file, int line) {
    if (is_near(a, b, tolerance, 0))
        return;
    print_error("%s: %.9g is not %.9g\n", text, a, b);
    _fail(file, line);
}

#define assert_near(a, b, tolerance)                                                               \
    expect_near((double)(a), (double)(b), (tolerance), #a, __FILE__, __LINE__)

/* `n` floats against what was computed by hand. */
static inline void expect_floats(const float *got, const float *wanted, int n, double tolerance,
                                 const char *file, int line) {
    int i;

    for (i = 0; i < n; i++) {
        if (is_near((double)got[i], (double)wanted[i], tolerance, 0))
            continue;
        print_error("element %d of %d: %.9g is not %.9g\n", i, n, (double)got[i],
                    (double)wanted[i]);
        _fail(file, line);
    }
}

#define assert_floats(got, wanted, n) expect_floats((got), (wanted), (n), 1e-5, __FILE__, __LINE__)

/* ---------------------------------------------------------------------------------------------
   An allocator that counts, and fails on demand */

typedef struct test_heap {
    long live;    /* blocks not yet released */
    long calls;   /* allocations so far */
    long fail_at; /* the allocation of this number (from 0) fails, and all after it; -1: none */
} test_heap;

static inline void *test_heap_allocate(void *user, size_t size) {
    test_heap *heap = (test_heap *)user;
    void *pointer;

    if (heap->fail_at >= 0 && heap->calls >= heap->fail_at)
        return NULL;
    heap->calls++;
    pointer = malloc(size ? size : 1);
    if (!pointer)
        return NULL;
    heap->live++;
    memset(pointer, 0xA5, size); /* nobody may rely on zeros */
    return pointer;
}

static inline void test_heap_release(void *user, void *pointer) {
    test_heap *heap = (test_heap *)user;

    assert_non_null(pointer); /* the library promises never to release NULL */
    heap->live--;
    free(pointer);
}

static inline ptq_allocator test_heap_start(test_heap *heap) {
    ptq_allocator allocator;

    heap->live = heap->calls = 0;
    heap->fail_at = -1;
    allocator.allocate = test_heap_allocate;
    allocator.release = test_heap_release;
    allocator.user = heap;
    return allocator;
}

/* ---------------------------------------------------------------------------------------------
   Random numbers: splitmix64, so that tests do not lean on the library's own generator */

typedef struct test_random {
    uint64_t state;
} test_random;

static inline uint64_t random_bits(test_random *r) {
    uint64_t z = (r->state += UINT64_C(0x9E3779B97F4A7C15));

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* lo..hi, both included */
static inline int random_int(test_random *r, int lo, int hi) {
    return lo + (int)(random_bits(r) % (uint64_t)(hi - lo + 1));
}

static inline float random_float(test_random *r, double lo, double hi) {
    return (float)(lo + (hi - lo) * ((double)(random_bits(r) >> 11) / 9007199254740992.0));
}

static inline void random_floats(test_random *r, float *out, size_t n, double lo, double hi) {
    size_t i;

    for (i = 0; i < n; i++)
        out[i] = random_float(r, lo, hi);
}

static inline void random_pixels(test_random *r, uint8_t *out, size_t n) {
    size_t i;

    for (i = 0; i < n; i++)
        out[i] = (uint8_t)random_bits(r);
}

/* ---------------------------------------------------------------------------------------------
   Models */

static inline void fill_tensor(ptq_tensor *t, test_random *r, double lo, double hi) {
    if (t->rank)
        random_floats(r, (float *)t->data, ptq_tensor_elements(t), lo, hi);
}

/* Random parameters that keep activations near 1, however deep the network. */
static inline void fill_model(ptq_model *model, uint64_t seed) {
    test_random r = {0};
    int i;

    r.state = seed;
    for (i = 0; i < model->nodes; i++) {
        ptq_node *n = &model->node[i];
        ptq_tensor *w = &n->param[PTQ_PARAM_WEIGHT];

        if (n->op == PTQ_OP_BATCH_NORM) {
            fill_tensor(w, &r, 0.5, 1.5);
            fill_tensor(&n->param[PTQ_PARAM_VARIANCE], &r, 0.2, 2);
        } else if (w->rank) {
            double fan_in = (double)ptq_tensor_elements(w) / w->dim[0];
            fill_tensor(w, &r, -sqrt(3 / fan_in), sqrt(3 / fan_in));
        }
        fill_tensor(&n->param[PTQ_PARAM_BIAS], &r, -0.3, 0.3);
        fill_tensor(&n->param[PTQ_PARAM_MEAN], &r, -0.3, 0.3);
    }
}

/* ResNet8 with random weights, and preprocessing that brings pixels to the range -1..1. */
static inline ptq_model *random_resnet8(int size, int width, int classes, uint64_t seed,
                                        const ptq_allocator *allocator) {
    ptq_model *model = NULL;
    int c;

    assert_ok(ptq_resnet8(size, width, classes, allocator, &model, &err));
    fill_model(model, seed);
    for (c = 0; c < 3; c++) {
        model->mean[c] = 127.5f;
        model->std[c] = 127.5f;
    }
    return model;
}

/* Equal in everything that a file holds: graph text, preprocessing, parameters bit for bit. */
static inline void assert_same_model(const ptq_model *a, const ptq_model *b) {
    void *x = NULL, *y = NULL;
    size_t m = 0, n = 0;

    assert_ok(ptq_model_write(a, &x, &m, &err));
    assert_ok(ptq_model_write(b, &y, &n, &err));
    assert_int_equal(m, n);
    assert_memory_equal(x, y, n);
    ptq_bytes_free(x, &a->allocator);
    ptq_bytes_free(y, &b->allocator);
}

/* Plan and session in one, for tests that only want results. */
typedef struct test_run {
    ptq_plan *plan;
    ptq_session *session;
} test_run;

static inline test_run open_run(const ptq_model *model, int keep) {
    test_run run = {NULL, NULL};
    ptq_session_options options;

    memset(&options, 0, sizeof options);
    options.keep = keep;
    assert_ok(ptq_plan_create(model, NULL, &run.plan, &err));
    assert_ok(ptq_session_create(run.plan, &options, &run.session, &err));
    return run;
}

static inline void close_run(test_run *run) {
    ptq_session_free(run->session);
    ptq_plan_free(run->plan);
}

static inline ptq_status run_codes(ptq_session *session, const uint8_t *pixels, size_t count,
                                   int32_t *codes) {
    ptq_results out = {NULL, NULL, codes, NULL};

    return ptq_run_items(session, PTQ_TYPE_U8, pixels, count, &out, &err);
}

/* Logits of one float image; `logits` is to be freed. */
static inline float *logits_of(const ptq_model *model, const float *input) {
    test_run run = open_run(model, 0);
    float *logits = (float *)malloc(sizeof(float) * (size_t)ptq_plan_get_info(run.plan)->classes);

    assert_non_null(logits);
    assert_ok(ptq_run_f32(run.session, input, 1, logits, NULL, &err));
    close_run(&run);
    return logits;
}

/* ---------------------------------------------------------------------------------------------
   Files */

/* A path below the directory of shared data, in a static buffer; NULL if there is no such file. */
static inline const char *shared_path(const char *name) {
    static char path[2][1024];
    static int turn;
    const char *directory = getenv("PTQ_SHARED");
    FILE *file;

    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", directory ? directory : "../shared", name);
    file = fopen(path[turn], "rb");
    if (!file)
        return NULL;
    fclose(file);
    return path[turn];
}

/* `all`, or in `make test`, which people wait for, the given part of it: `make test-ci` and
   `make test ONLY=...` take all. */
static inline int how_many(int all, int part) {
    const char *quick = getenv("PTQ_TEST_QUICK");
    return quick && *quick ? part : all;
}

static char test_directory[256];

/* A fresh directory for the files of one test. */
static inline int make_directory(void **state) {
    const char *base = getenv("TMPDIR");

    (void)state;
    snprintf(test_directory, sizeof test_directory, "%s/ptq-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(test_directory) ? 0 : -1;
}

static inline const char *in_directory(const char *name) {
    static char path[512];

    snprintf(path, sizeof path, "%s/%s", test_directory, name);
    return path;
}

static inline int count_files(void) {
    DIR *directory = opendir(test_directory);
    int n = 0;

    assert_non_null(directory);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n - 2; /* . and .. */
}

static inline int remove_directory(void **state) {
    DIR *directory = opendir(test_directory);
    struct dirent *entry;

    (void)state;
    if (!directory)
        return 0;
    while ((entry = readdir(directory)) != NULL)
        if (entry->d_name[0] != '.')
            remove(in_directory(entry->d_name));
    closedir(directory);
    return rmdir(test_directory);
}

static inline void write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

#endif
