/* Plans and sessions: memory, batches, intermediate tensors, preprocessing, lack of memory. */
#include <stddef.h>

/* All of the library's default allocations come through here, so that none can hide. */
static void *counted_malloc(size_t size);
static void counted_free(void *pointer);
#define PTQ_MALLOC(size) counted_malloc(size)
#define PTQ_FREE(pointer) counted_free(pointer)
#include "test.h"

static long mallocs, frees;
static long malloc_fails_at = -1; /* the one of this number, and no other; -1: none */

static void *counted_malloc(size_t size) {
    return mallocs++ == malloc_fails_at ? NULL : malloc(size);
}

static void counted_free(void *pointer) {
    frees++;
    free(pointer);
}

enum { SIDE = 8, PIXELS = SIDE * SIDE * 3, CLASSES = 5, IMAGES = 37 };

typedef struct fixture {
    ptq_model *model;
    ptq_plan *plan;
    uint8_t pixels[IMAGES * PIXELS];
} fixture;

static int open_fixture(void **state) {
    test_random random = {3};
    ptq_model *model = random_resnet8(SIDE, 4, CLASSES, 11, NULL);
    fixture *f = (fixture *)calloc(1, sizeof *f);

    assert_non_null(f);
    assert_ok(ptq_fuse(model, &f->model, NULL, &err));
    assert_ok(ptq_plan_create(f->model, NULL, &f->plan, &err));
    random_pixels(&random, f->pixels, sizeof f->pixels);
    ptq_model_free(model);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;

    ptq_plan_free(f->plan);
    ptq_model_free(f->model);
    free(f);
    return 0;
}

static ptq_session *open_session(const fixture *f, int keep) {
    ptq_session_options o;
    ptq_session *session = NULL;

    memset(&o, 0, sizeof o);
    o.keep = keep;
    assert_ok(ptq_session_create(f->plan, &o, &session, &err));
    return session;
}

static void what_a_plan_tells(void **state) {
    const fixture *f = (const fixture *)*state;

    assert_ptr_equal(ptq_plan_get_info(f->plan)->model, f->model);
    assert_int_equal(ptq_plan_get_info(f->plan)->classes, CLASSES);
    assert_int_equal(ptq_plan_get_info(f->plan)->pixels, PIXELS);
    assert_int_not_equal(ptq_plan_get_info(f->plan)->isa, PTQ_ISA_AUTO);
    assert_int_equal(ptq_isa_support(ptq_plan_get_info(f->plan)->isa), PTQ_SUPPORT_AVAILABLE);
}

/* The sum of the first block, which what follows would be written over and its ReLU join, is the
   second result of a model; the first is the logits. */
static void several_results(void **state) {
    const fixture *f = (const fixture *)*state;
    float logits[3 * CLASSES], first[3 * CLASSES], *second, *out[2];
    ptq_model *model = random_resnet8(SIDE, 4, CLASSES, 11, NULL), *fused, *back;
    int at = ptq_model_find(model, "block1.add.relu"), n;
    ptq_session *kept = open_session(f, 1), *session;
    ptq_tensor view;
    ptq_plan *plan;
    size_t size;
    void *bytes;

    model->node[at].output = 3;
    assert_int_equal(ptq_model_check(model, &err), PTQ_BAD_GRAPH);
    model->node[at].output = 2;
    assert_int_equal(ptq_model_check(model, &err), PTQ_BAD_GRAPH);
    model->node[ptq_model_find(model, "fc")].output = 1;
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    assert_ok(ptq_model_write(fused, &bytes, &size, &err));
    assert_ok(ptq_model_parse(bytes, size, NULL, &back, &err));
    at = ptq_model_output(back, 2);
    assert_string_equal(back->node[at].out, "block1.add.relu");
    assert_int_equal(ptq_model_output(back, 1), ptq_model_logits(back));
    assert_int_equal(ptq_model_output(back, 3), -1);
    n = back->node[at].shape[0] * back->node[at].shape[1] * back->node[at].shape[2];
    second = (float *)malloc(3 * (size_t)n * sizeof *second);
    assert_non_null(second);
    out[0] = first, out[1] = second;
    assert_ok(ptq_plan_create(back, NULL, &plan, &err));
    assert_ok(ptq_session_create(plan, NULL, &session, &err));
    assert_ok(ptq_run_outputs(session, PTQ_TYPE_U8, f->pixels, 3, out, &err));
    assert_ok(ptq_run(kept, f->pixels, 3, logits, NULL, &err));
    assert_memory_equal(logits, first, sizeof logits);
    assert_ok(ptq_session_tensor(kept, "block1.add.relu", &view, &err));
    assert_memory_equal(view.data, second + 2 * n, (size_t)n * sizeof *second);
    out[1] = NULL;
    assert_ok(ptq_run_outputs(session, PTQ_TYPE_U8, f->pixels, 1, out, &err));
    assert_int_equal(ptq_run_outputs(session, PTQ_TYPE_U8, NULL, 1, out, &err),
                     PTQ_INVALID_ARGUMENT);
    free(second);
    ptq_session_free(kept);
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(back);
    ptq_model_free(fused);
    ptq_model_free(model);
}

static void instruction_sets(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_plan_options o;
    ptq_plan *plan = NULL;
    int i;

    for (i = 0; i < PTQ_ISA_COUNT; i++)
        assert_int_equal(ptq_find_name(PTQ_NAMES_ISA, ptq_name(PTQ_NAMES_ISA, (unsigned)i)), i);
    assert_int_equal(ptq_find_name(PTQ_NAMES_ISA, "abacus"), -1);
    assert_int_equal(ptq_find_name(PTQ_NAMES_ISA, "SCALAR"), -1);
    assert_int_equal(ptq_isa_support(PTQ_ISA_SCALAR), PTQ_SUPPORT_AVAILABLE);
    assert_int_equal(ptq_isa_support(PTQ_ISA_COUNT), PTQ_SUPPORT_NONE);
    memset(&o, 0, sizeof o);
    for (i = 0; i < PTQ_ISA_COUNT; i++) {
        int available = ptq_isa_support((ptq_isa)i) == PTQ_SUPPORT_AVAILABLE;

        o.isa = (ptq_isa)i;
        assert_int_equal(ptq_plan_create(f->model, &o, &plan, &err),
                         available ? PTQ_OK : PTQ_UNSUPPORTED);
        if (available)
            ptq_plan_free(plan);
    }
    o.isa = PTQ_ISA_SCALAR;
    assert_ok(ptq_plan_create(f->model, &o, &plan, &err));
    assert_int_equal(ptq_plan_get_info(plan)->isa, PTQ_ISA_SCALAR);
    ptq_plan_free(plan);
    o.isa = PTQ_ISA_COUNT;
    assert_fails(PTQ_UNSUPPORTED, "", ptq_plan_create(f->model, &o, &plan, &err));
}

/* 32 x 32 x 16 floats are 64 KiB. Two of them live at most, the input and a little. */
static void arena_of_resnet8(void **state) {
    ptq_model *model = random_resnet8(32, 16, 10, 1, NULL), *fused = NULL;
    ptq_plan_options o;
    ptq_plan *plan = NULL;

    (void)state;
    memset(&o, 0, sizeof o);
    o.isa = PTQ_ISA_SCALAR;
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    assert_ok(ptq_plan_create(fused, &o, &plan, &err));
    assert_true(ptq_plan_get_info(plan)->arena_bytes >= 2 * 65536);
    if (ptq_plan_get_info(plan)->arena_bytes > 140 * 1024)
        fail_msg("%lu bytes", (unsigned long)ptq_plan_get_info(plan)->arena_bytes);
    ptq_plan_free(plan);
    ptq_model_free(fused);
    ptq_model_free(model);
}

static void memory_from_the_caller(void **state) {
    const fixture *f = (const fixture *)*state;
    float wanted[CLASSES], got[CLASSES];
    ptq_session_options o;
    ptq_session *session = open_session(f, 0);
    size_t needed, offset, i;
    unsigned char *memory;

    assert_ok(ptq_run(session, f->pixels, 1, wanted, NULL, &err));
    ptq_session_free(session);
    memset(&o, 0, sizeof o);
    needed = ptq_session_bytes(f->plan, &o);
    assert_true(needed >= ptq_plan_get_info(f->plan)->arena_bytes);
    memory = (unsigned char *)malloc(needed + 80);
    assert_non_null(memory);
    for (offset = 0; offset < 66; offset += 5) { /* any alignment, exactly the size asked for */
        long before = mallocs;
        memset(memory, 0xA5, needed + 80);
        o.memory = memory + offset;
        o.memory_size = needed;
        assert_ok(ptq_session_create(f->plan, &o, &session, &err));
        assert_ok(ptq_run(session, f->pixels, 1, got, NULL, &err));
        assert_memory_equal(got, wanted, sizeof got);
        ptq_session_free(session);
        assert_int_equal(mallocs, before);
        for (i = 0; i < needed + 80; i++) /* nothing beside it is touched */
            if ((i < offset || i >= offset + needed) && memory[i] != 0xA5)
                fail_msg("byte %d at offset %d", (int)i, (int)offset);
    }
    free(memory);
}

static void too_little_memory_names_the_need(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_session_options o;
    ptq_session *session = NULL;
    char text[32], memory[16];

    memset(&o, 0, sizeof o);
    snprintf(text, sizeof text, "%lu", (unsigned long)ptq_session_bytes(f->plan, &o));
    o.memory = memory;
    o.memory_size = ptq_session_bytes(f->plan, &o) - 1;
    assert_fails(PTQ_OUT_OF_MEMORY, text, ptq_session_create(f->plan, &o, &session, &err));
    o.memory_size = 0;
    assert_fails(PTQ_OUT_OF_MEMORY, text, ptq_session_create(f->plan, &o, &session, &err));
    assert_null(session);
}

/* An image's result does not depend on its neighbours, nor on how images are parcelled out. */
static void batches_of_any_size(void **state) {
    static const size_t sizes[] = {IMAGES, 1, 7, 16};
    const fixture *f = (const fixture *)*state;
    float all[IMAGES * CLASSES], parts[IMAGES * CLASSES], p[IMAGES * CLASSES];
    ptq_session *session = open_session(f, 0);
    int i;

    assert_ok(ptq_run(session, f->pixels, IMAGES, all, NULL, &err));
    assert_memory_not_equal(all, all + CLASSES, CLASSES * sizeof *all);
    for (i = 0; i < COUNT(sizes); i++) {
        size_t at, n;
        memset(parts, 0, sizeof parts);
        for (at = 0; at < IMAGES; at += n) {
            n = sizes[i] < IMAGES - at ? sizes[i] : IMAGES - at;
            assert_ok(ptq_run(session, f->pixels + at * PIXELS, n, parts + at * CLASSES,
                              p + at * CLASSES, &err));
        }
        assert_memory_equal(parts, all, sizeof all);
    }
    assert_ok(ptq_run(session, f->pixels, 0, parts, NULL, &err)); /* nothing to do is no error */
    for (i = 0; i < IMAGES; i++) {
        double sum = 0;
        int c;
        for (c = 0; c < CLASSES; c++)
            sum += (double)p[i * CLASSES + c];
        assert_near(sum, 1, 1e-5);
        assert_int_equal(ptq_argmax(p + i * CLASSES, CLASSES),
                         ptq_argmax(all + i * CLASSES, CLASSES));
    }
    ptq_session_free(session);
}

static void preprocessing_is_the_same_function(void **state) {
    fixture *f = (fixture *)*state;
    float input[PIXELS], a[CLASSES], b[CLASSES];
    ptq_model *model = NULL;
    test_run run;
    int i;

    assert_ok(ptq_model_copy(f->model, NULL, &model, &err));
    for (i = 0; i < 3; i++) {
        model->mean[i] = 120.7f + (float)i;
        model->std[i] = 61.3f - (float)i;
    }
    ptq_preprocess(model, f->pixels, input);
    for (i = 0; i < PIXELS; i++)
        assert_true(input[i] == ((float)f->pixels[i] - model->mean[i % 3]) / model->std[i % 3]);
    run = open_run(model, 0);
    assert_ok(ptq_run(run.session, f->pixels, 1, a, NULL, &err));
    assert_ok(ptq_run_f32(run.session, input, 1, b, NULL, &err));
    assert_memory_equal(a, b, sizeof a);
    close_run(&run);
    ptq_model_free(model);
}

static void intermediate_tensors_by_name(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_session *session = open_session(f, 1), *plain = open_session(f, 0);
    float logits[2 * CLASSES];
    ptq_tensor before, after, view;
    size_t i;

    assert_ok(ptq_run(session, f->pixels, 2, logits, NULL, &err));
    assert_ok(ptq_session_tensor(session, "fc", &view, &err)); /* of the last image */
    assert_memory_equal(view.data, logits + CLASSES, CLASSES * sizeof *logits);
    assert_int_equal(view.type, PTQ_TYPE_F32);
    assert_int_equal(view.rank, 3);
    assert_int_equal(view.dim[2], CLASSES);
    assert_false(view.owned);
    assert_ok(ptq_session_tensor(session, "conv1", &view, &err));
    assert_int_equal(view.dim[0], SIDE);
    assert_int_equal(view.dim[2], 4);
    /* a fused residual can be read before the addition and after it */
    assert_ok(ptq_session_tensor(session, "conv1.relu", &view, &err));
    assert_ok(ptq_session_tensor(session, "block1.conv2", &before, &err));
    assert_ok(ptq_session_tensor(session, "block1.add.relu", &after, &err));
    for (i = 0; i < ptq_tensor_elements(&view); i++) {
        float sum = ptq_tensor_number(&before, i) + ptq_tensor_number(&view, i);
        assert_near(ptq_tensor_number(&after, i), sum > 0 ? sum : 0, 1e-6);
    }
    assert_fails(PTQ_INVALID_ARGUMENT, "nobody",
                 ptq_session_tensor(session, "nobody", &view, &err));
    assert_ok(ptq_run(plain, f->pixels, 1, logits, NULL, &err));
    assert_fails(PTQ_NOT_READY, "keep", ptq_session_tensor(plain, "fc", &view, &err));
    ptq_session_free(plain);
    ptq_session_free(session);
}

static void keeping_changes_no_result(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_session *kept = open_session(f, 1), *plain = open_session(f, 0);
    ptq_session_options keep = {1, NULL, 0, NULL, NULL, {NULL, NULL, NULL}};
    float a[CLASSES], b[CLASSES];
    ptq_tensor view;

    assert_true(ptq_session_bytes(f->plan, &keep) > ptq_session_bytes(f->plan, NULL));
    assert_fails(PTQ_NOT_READY, "", ptq_session_tensor(kept, "fc", &view, &err)); /* nothing ran */
    assert_ok(ptq_run(kept, f->pixels, 1, a, NULL, &err));
    assert_ok(ptq_run(plain, f->pixels, 1, b, NULL, &err));
    assert_memory_equal(a, b, sizeof a);
    ptq_session_free(kept);
    ptq_session_free(plain);
}

typedef struct watch_log {
    int count, node[64];
} watch_log;

static void log_node(void *user, int node) {
    watch_log *seen = (watch_log *)user;

    assert_true(seen->count < 64);
    seen->node[seen->count++] = node;
}

/* Every node up to the logits, the input first, for each image. */
static void watching_sees_every_node(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_session *session = open_session(f, 0), *watching = NULL;
    int i, nodes = ptq_model_logits(f->model) + 1;
    float plain[2 * CLASSES], watched[2 * CLASSES];
    ptq_session_options o;
    watch_log seen;

    memset(&seen, 0, sizeof seen);
    memset(&o, 0, sizeof o);
    o.after_node = log_node;
    o.user = &seen;
    assert_ok(ptq_session_create(f->plan, &o, &watching, &err));
    assert_ok(ptq_run(session, f->pixels, 2, plain, NULL, &err));
    assert_int_equal(seen.count, 0);
    assert_ok(ptq_run(watching, f->pixels, 2, watched, NULL, &err));
    assert_memory_equal(plain, watched, sizeof plain);
    assert_int_equal(seen.count, 2 * nodes);
    for (i = 0; i < seen.count; i++)
        assert_int_equal(seen.node[i], i % nodes);
    ptq_session_free(watching);
    ptq_session_free(session);
}

static void running_allocates_nothing(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_session *session = open_session(f, 0);
    float logits[3 * CLASSES], p[3 * CLASSES], input[PIXELS];
    long before = mallocs, released = frees;

    ptq_preprocess(f->model, f->pixels, input);
    assert_ok(ptq_run(session, f->pixels, 3, logits, p, &err));
    assert_ok(ptq_run_f32(session, input, 1, logits, p, &err));
    assert_true(before > 0);
    assert_int_equal(mallocs, before);
    assert_int_equal(frees, released);
    ptq_session_free(session);
}

/* The residual lies in the user's own memory here, and may not be written over. */
static void input_is_not_written(void **state) {
    float input[4 * 4 * 2], copy[4 * 4 * 2];
    test_random random = {5};
    ptq_conv_options o;
    ptq_model *m = NULL, *fused = NULL;
    float *logits;
    int x, y;

    (void)state;
    memset(&o, 0, sizeof o);
    o.channels = 2;
    o.kernel_h = 3;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 4, 4, 2);
    y = ptq_add_add(m, "add", ptq_add_conv2d(m, "conv", x, &o), x);
    y = ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", y);
    fill_model(m, 3);
    assert_ok(ptq_fuse(m, &fused, NULL, &err));
    random_floats(&random, input, 32, -1, 1);
    memcpy(copy, input, sizeof copy);
    logits = logits_of(fused, input);
    assert_memory_equal(input, copy, sizeof copy);
    assert_int_equal(y, 3);
    free(logits);
    ptq_model_free(fused);
    ptq_model_free(m);
}

static void argmax(void **state) {
    static const float v[] = {-3, -1, -2, -1};

    (void)state;
    assert_int_equal(ptq_argmax(v, 4), 1); /* the first of equals */
    assert_int_equal(ptq_argmax(v, 1), 0);
}

static void plans_need_a_sound_model(void **state) {
    ptq_model *model = random_resnet8(SIDE, 4, CLASSES, 1, NULL);
    ptq_plan *plan = NULL;

    (void)state;
    ((float *)ptq_model_param(model, "fc.bias")->data)[0] = NAN;
    assert_fails(PTQ_BAD_NUMBER, "fc", ptq_plan_create(model, NULL, &plan, &err));
    assert_fails(PTQ_BAD_NUMBER, "fc", ptq_fuse(model, &model, NULL, &err));
    assert_null(plan);
    ptq_model_free(model);
}

/* ---------------------------------------------------------------------------------------------
   Every allocation fails once */

static ptq_status one_image(void *user, size_t index, void *pixels, int *label, ptq_error *e) {
    (void)e;
    memcpy(pixels, (const uint8_t *)user + index * PIXELS, PIXELS);
    *label = (int)index;
    return PTQ_OK;
}

typedef struct chain {
    const void *bytes;
    size_t size;
    const uint8_t *pixels;
} chain;

/* Everything that allocates, in a row: load, fuse with report, copy, plan, session, evaluate. */
static ptq_status run_chain(const chain *c, ptq_allocator allocator) {
    ptq_load_options load = {allocator, 0};
    ptq_plan_options planning = {PTQ_ISA_SCALAR, allocator};
    ptq_session_options sitting = {1, NULL, 0, NULL, NULL, allocator};
    ptq_evaluate_options evaluating = {{0, NULL, NULL, allocator}, 0, 0};
    ptq_dataset data = {2, SIDE, SIDE, 3, CLASSES, PTQ_TYPE_U8, one_image, NULL, NULL};
    ptq_model *model = NULL, *fused = NULL, *copy = NULL;
    ptq_fuse_report report;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    ptq_evaluation result;
    void *bytes = NULL;
    size_t size;
    ptq_status s;

    memset(&report, 0, sizeof report);
    report.memory.allocator = allocator;
    memset(&result, 0, sizeof result);
    data.user = (void *)(uintptr_t)c->pixels;
    (void)((s = ptq_model_parse(c->bytes, c->size, &load, &model, &err)) ||
           (s = ptq_model_set_meta(model, "note", "short of memory", &err)) ||
           (s = ptq_fuse(model, &fused, &report, &err)) ||
           (s = ptq_model_copy(fused, &allocator, &copy, &err)) ||
           (s = ptq_model_write(copy, &bytes, &size, &err)) ||
           (s = ptq_plan_create(copy, &planning, &plan, &err)) ||
           (s = ptq_session_create(plan, &sitting, &session, &err)) ||
           (s = ptq_evaluate(plan, &data, &evaluating, &result, &err)));
    ptq_release(&result.memory);
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_bytes_free(bytes, &allocator);
    ptq_model_free(copy);
    ptq_release(&report.memory);
    ptq_model_free(fused);
    ptq_model_free(model);
    return s;
}

static void every_allocation_may_fail(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_model *model = random_resnet8(SIDE, 4, CLASSES, 11, NULL);
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    chain c = {NULL, 0, f->pixels};
    void *bytes = NULL;
    ptq_status s = PTQ_OUT_OF_MEMORY;
    long n, hidden;

    assert_ok(ptq_model_write(model, &bytes, &c.size, &err));
    c.bytes = bytes;
    hidden = mallocs;
    for (n = 0; s != PTQ_OK; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        err.text[0] = 0;
        s = run_chain(&c, allocator);
        assert_int_equal(heap.live, 0);
        if (s != PTQ_OK && s != PTQ_OUT_OF_MEMORY)
            fail_msg("failing allocation %ld gives %s: %s", n, ptq_name(PTQ_NAMES_STATUS, s),
                     err.text);
        assert_true(s == PTQ_OK || err.text[0]);
    }
    assert_true(n > 20);
    assert_int_equal(mallocs, hidden); /* every byte came from the allocator given */
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(model);
}

static void builders_run_out_of_memory(void **state) {
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_model *model = NULL;
    ptq_status s = PTQ_OUT_OF_MEMORY;
    long n;

    (void)state;
    for (n = 0; s != PTQ_OK; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        s = ptq_resnet8(SIDE, 4, CLASSES, &allocator, &model, &err);
        if (s == PTQ_OK)
            ptq_model_free(model);
        assert_true(s == PTQ_OK || s == PTQ_OUT_OF_MEMORY);
        assert_int_equal(heap.live, 0);
    }
    assert_true(n > 40);
}

static ptq_status open_net(const fixture *f) {
    ptq_net *net = NULL;
    ptq_status status = ptq_net_open(in_directory("model"), &net, &err);

    (void)f;
    ptq_net_free(net);
    return status;
}

static ptq_status save_model(const fixture *f) {
    return ptq_model_save(f->model, in_directory("model"), &err);
}

/* What takes no allocator uses the default one, which may fail as well. */
static void malloc_may_fail(void **state) {
    static ptq_status (*const tried[])(const fixture *f) = {save_model, open_net};
    const fixture *f = (const fixture *)*state;
    int i;

    assert_int_equal(make_directory(state), 0);
    for (i = 0; i < COUNT(tried); i++) {
        long n, before = mallocs, live = mallocs - frees, total;

        assert_ok(tried[i](f));
        total = mallocs - before;
        assert_true(total > 10);
        assert_int_equal(mallocs - frees, live);
        for (n = 0; n < total; n++) {
            malloc_fails_at = mallocs + n;
            err.text[0] = 0;
            assert_int_equal(tried[i](f), PTQ_OUT_OF_MEMORY);
            assert_true(err.text[0]);
            assert_int_equal(mallocs - frees, ++live); /* the failed one is never freed */
        }
        malloc_fails_at = -1;
    }
    assert_int_equal(remove_directory(state), 0);
}

static void freeing_nothing(void **state) {
    (void)state;
    ptq_session_free(NULL);
    ptq_plan_free(NULL);
    ptq_model_free(NULL);
    ptq_archive_free(NULL);
    ptq_cifar10_free(NULL);
    ptq_bytes_free(NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_plan_tells),
        cmocka_unit_test(several_results),
        cmocka_unit_test(instruction_sets),
        cmocka_unit_test(arena_of_resnet8),
        cmocka_unit_test(memory_from_the_caller),
        cmocka_unit_test(too_little_memory_names_the_need),
        cmocka_unit_test(batches_of_any_size),
        cmocka_unit_test(preprocessing_is_the_same_function),
        cmocka_unit_test(intermediate_tensors_by_name),
        cmocka_unit_test(keeping_changes_no_result),
        cmocka_unit_test(watching_sees_every_node),
        cmocka_unit_test(running_allocates_nothing),
        cmocka_unit_test(input_is_not_written),
        cmocka_unit_test(argmax),
        cmocka_unit_test(plans_need_a_sound_model),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(builders_run_out_of_memory),
        cmocka_unit_test(malloc_may_fail),
        cmocka_unit_test(freeing_nothing),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
