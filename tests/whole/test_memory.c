/* What running allocates, which is nothing, and how much of the stack the library takes. Both are
   measured: every malloc of the process is counted, and stacks are painted. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#endif
#include "quantized.h"

#include <pthread.h>
#include <sys/mman.h>

/* ---------------------------------------------------------------------------------------------
   Every call that the process makes for memory or gives it back with, the C library's own included.
   Under AddressSanitizer, which brings another malloc, through its hooks; with glibc, by functions
   that take the place of its own. Elsewhere only the allocator that objects are given is counted */

static volatile int is_counting; /* changed while there is one thread only */
static volatile long heap_calls;

static void count_call(void) {
    if (is_counting)
        heap_calls++;
}

#if TEST_SANITIZED
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));

static void on_malloc(const volatile void *pointer, size_t size) {
    (void)pointer;
    (void)size;
    count_call();
}

static void on_free(const volatile void *pointer) {
    (void)pointer;
    count_call();
}

static int start_counter(void) {
    return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0;
}
#elif defined(__GLIBC__)
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *pointer);

void *malloc(size_t size) {
    count_call();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    count_call();
    return __libc_calloc(count, size);
}

void *realloc(void *pointer, size_t size) {
    count_call();
    return __libc_realloc(pointer, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count_call();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    count_call();
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12; /* ENOMEM */
}

void free(void *pointer) {
    count_call();
    __libc_free(pointer);
}

static int start_counter(void) { return 1; }
#else
static int start_counter(void) { return 0; }
#endif

static int counts_malloc;

static void start_counting(void) {
    heap_calls = 0;
    is_counting = 1;
}

static long stop_counting(void) {
    is_counting = 0;
    return heap_calls;
}

/* The counter itself. Pointers are volatile, or a compiler leaves out what nobody uses. */
static void counter_counts(void **state) {
    void *volatile pointer;
    void *aligned = NULL;
    char *volatile copy;

    (void)state;
    if (!counts_malloc)
        skip();
    /* A sanitizer counts a realloc as two. */
    start_counting();
    pointer = malloc(3);
    pointer = realloc(pointer, 300);
    free(pointer);
    assert_int_equal(stop_counting(), TEST_SANITIZED ? 4 : 3);
    start_counting();
    pointer = calloc(3, 3);
    free(pointer);
    assert_int_equal(stop_counting(), 2);
    start_counting();
    assert_int_equal(posix_memalign(&aligned, 64, 64), 0);
    free(aligned);
    assert_int_equal(stop_counting(), 2);
    start_counting();
    copy = strdup("allocated by the C library");
    free(copy);
    assert_int_equal(stop_counting(), 2);
    start_counting();
    assert_int_equal(stop_counting(), 0);
}

/* ---------------------------------------------------------------------------------------------
   Networks, in every form that they run in */

/* Every operator, and every kind of convolution that has kernels of its own. */
static const char network[] = "ptq-graph 1\n"
                              "input input shape=9x9x3\n"
                              "c0 conv2d in=input channels=8 kernel=3x3\n"
                              "n0 batch_norm in=c0 epsilon=0.001\n"
                              "r0 relu in=n0\n"
                              "c1 conv2d in=r0 channels=8 kernel=3x3 groups=8\n"
                              "r1 relu6 in=c1\n"
                              "c2 conv2d in=r1 channels=8 kernel=1x1\n"
                              "s2 add in=c2,r0\n"
                              "r2 relu in=s2\n"
                              "c3 conv2d in=r2 channels=16 kernel=3x3 stride=2x2 groups=2\n"
                              "m3 max_pool in=c3 kernel=2x2 stride=1x1\n"
                              "a3 avg_pool in=c3 kernel=2x2 stride=1x1\n"
                              "s3 add in=m3,a3\n"
                              "g global_avg_pool in=s3\n"
                              "d dense in=g channels=5\n"
                              "o softmax in=d\n";

enum { IMAGES = 3, CLASSES = 5, PIXELS = 9 * 9 * 3, TRAINED_ON = 8, MOST_FORMS = 16 };

typedef struct network_form {
    const char *name;
    ptq_model *model;
} network_form;

typedef struct fixture {
    ptq_model *fused;
    pictures p;
    ptq_calibration *calibration;
    network_form form[MOST_FORMS];
    int forms;
    uint8_t pixels[IMAGES * PIXELS];
    float real[IMAGES * PIXELS];
} fixture;

static void add_form(fixture *f, const char *name, ptq_model *model) {
    assert_true(f->forms < MOST_FORMS);
    f->form[f->forms].name = name;
    f->form[f->forms++].model = model;
}

static void add_converted(fixture *f, const char *name, ptq_scheme scheme, const char *in_float) {
    ptq_convert_options o = with_scheme(scheme, pictures_dataset(&f->p));
    ptq_override keep;

    memset(&keep, 0, sizeof keep);
    keep.pattern = in_float;
    keep.scheme.mode = PTQ_MODE_FLOAT;
    o.override = &keep;
    o.overrides = in_float != NULL;
    add_form(f, name, converted(f->fused, f->calibration, &o));
}

static int open_fixture(void **state) {
    fixture *f = (fixture *)calloc(1, sizeof *f);
    ptq_model *model = model_of_text(network), *copy = NULL;
    ptq_scheme scheme;
    const char *name;
    int i, label;

    assert_non_null(f);
    counts_malloc = start_counter();
    fill_model(model, 5);
    assert_ok(ptq_fuse(model, &f->fused, NULL, &err));
    f->p = pictures_for(f->fused, TRAINED_ON, 3);
    f->calibration = calibrated_on(f->fused, pictures_dataset(&f->p));
    add_form(f, "float, unfused", model);
    assert_ok(ptq_model_copy(f->fused, NULL, &copy, &err));
    add_form(f, "float, fused", copy);
    for (i = 0; (name = ptq_name(PTQ_NAMES_PRESET, (unsigned)i)) != NULL; i++)
        add_converted(f, name, preset(name), NULL);
    scheme = preset("tflite");
    add_converted(f, "a layer in float", scheme, "c1");
    scheme.code_logits = 1;
    add_converted(f, "coded logits", scheme, NULL);
    for (i = 0; i < IMAGES; i++) {
        assert_ok(get_picture(&f->p, (size_t)i, f->pixels + i * PIXELS, &label, &err));
        ptq_preprocess(f->fused, f->pixels + i * PIXELS, f->real + i * PIXELS);
    }
    *state = f;
    return make_directory(state);
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;
    int i;

    for (i = 0; i < f->forms; i++)
        ptq_model_free(f->form[i].model);
    ptq_calibration_free(f->calibration);
    ptq_model_free(f->fused);
    free(f);
    return remove_directory(state);
}

/* ---------------------------------------------------------------------------------------------
   Running allocates nothing */

static int has_coded_logits(const ptq_model *model) {
    const ptq_node *n = &model->node[ptq_model_logits(model)];

    if (n->op == PTQ_OP_DEQUANTIZE)
        n = &model->node[n->input[0]];
    return n->q.type != PTQ_TYPE_F32;
}

static void watch_nothing(void *user, int node) {
    (void)node;
    ++*(int *)user;
}

/* Everything that a session does once it is there. A failure is a run too: coded results of a model
   that has none, and pixels that are no numbers. */
static void use_session(const fixture *f, const ptq_model *model, ptq_session *session, int keeps) {
    static float logits[IMAGES * CLASSES], share[IMAGES * CLASSES], bad[PIXELS];
    static int32_t codes[IMAGES * CLASSES];
    static int classes[IMAGES];
    ptq_tensor view;
    int i;

    assert_ok(ptq_run(session, f->pixels, 1, logits, NULL, &err));
    assert_ok(ptq_run(session, f->pixels, IMAGES, logits, share, &err));
    assert_ok(ptq_run(session, f->pixels, IMAGES, NULL, share, &err));
    assert_ok(ptq_run(session, f->pixels, 2, NULL, NULL, &err));
    assert_ok(ptq_run_f32(session, f->real, 1, logits, share, &err));
    assert_ok(ptq_run_f32(session, f->real, IMAGES, logits, NULL, &err));
    assert_ok(ptq_classify(session, f->pixels, IMAGES, classes, &err));
    assert_int_equal(run_codes(session, f->pixels, IMAGES, codes),
                     has_coded_logits(model) ? PTQ_OK : PTQ_UNSUPPORTED);
    for (i = 0; i < PIXELS; i++)
        bad[i] = NAN;
    assert_int_equal(ptq_run_f32(session, bad, 1, logits, share, &err), PTQ_BAD_NUMBER);
    ptq_preprocess(f->fused, f->pixels, bad);
    assert_int_equal(ptq_argmax(logits, CLASSES), classes[0]);
    if (keeps) {
        assert_ok(ptq_session_tensor(session, "r2", &view, &err));
    } else {
        assert_int_equal(ptq_session_tensor(session, "r2", &view, &err), PTQ_NOT_READY);
    }
}

static void count_session(const fixture *f, const network_form *form, const ptq_plan *plan,
                          ptq_session_options *o, test_heap *heap) {
    ptq_session *session = NULL;
    long calls, given;
    int watched = 0;

    o->after_node = watch_nothing;
    o->user = &watched;
    o->memory_size = o->memory ? ptq_session_bytes(plan, o) : 0;
    assert_ok(ptq_session_create(plan, o, &session, &err));
    use_session(f, form->model, session, o->keep); /* the linker is done */
    given = heap->calls;
    start_counting();
    use_session(f, form->model, session, o->keep);
    calls = stop_counting();
    assert_true(watched > 0);
    if (calls || heap->calls != given)
        fail_msg("%s, %s%s: running makes %ld calls of malloc or free, %ld of the allocator",
                 form->name, ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(plan)->isa),
                 o->keep ? ", kept" : "", calls, heap->calls - given);
    ptq_session_free(session);
}

/* With and without intermediate tensors, in the allocator's memory, in malloc's and in the
   caller's. */
static void count_sessions(const fixture *f, const network_form *form, ptq_isa isa) {
    static char memory[1 << 17];
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap), none;
    ptq_plan_options planning = {isa, allocator};
    ptq_plan *plan = NULL;
    int i;

    memset(&none, 0, sizeof none);
    assert_ok(ptq_plan_create(form->model, &planning, &plan, &err));
    for (i = 0; i < 6; i++) {
        ptq_session_options o;

        memset(&o, 0, sizeof o);
        o.keep = i % 2;
        o.memory = i / 2 == 2 ? memory + 1 : NULL; /* of any alignment */
        o.allocator = i / 2 == 0 ? allocator : none;
        assert_true(ptq_session_bytes(plan, &o) < sizeof memory);
        count_session(f, form, plan, &o, &heap);
    }
    ptq_plan_free(plan);
    assert_int_equal(heap.live, 0);
}

static void running_allocates_nothing(void **state) {
    const fixture *f = (const fixture *)*state;
    int isa, i, sets = 0;

    for (isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++) {
        if (ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
            continue;
        for (i = 0; i < f->forms; i++)
            count_sessions(f, &f->form[i], (ptq_isa)isa);
        print_message("%-11s %d forms of the network, %s\n", ptq_name(PTQ_NAMES_ISA, (ptq_isa)isa),
                      f->forms, counts_malloc ? "nothing allocated" : "malloc itself not counted");
        sets++;
    }
    assert_true(sets > 0);
}

/* ---------------------------------------------------------------------------------------------
   The peak of the stack */

/* A network that the searches of `best` get through quickly, and what was made of it. */
typedef struct stage {
    const fixture *f;
    ptq_model *fused, *integer;
    pictures p;
    ptq_calibration *calibration;
    ptq_plan *plan, *integer_plan;
    ptq_isa isa;
} stage;

static ptq_status call_nothing(const stage *s) {
    (void)s;
    return PTQ_OK;
}

static ptq_status call_load(const stage *s) {
    ptq_model *model = NULL;
    ptq_status status = ptq_model_load(in_directory("model"), NULL, &model, NULL);

    (void)s;
    ptq_model_free(model);
    return status;
}

static ptq_status call_save(const stage *s) {
    return ptq_model_save(s->integer, in_directory("model"), NULL);
}

static ptq_status call_fuse(const stage *s) {
    ptq_model *model = NULL;
    ptq_fuse_report report;
    ptq_status status;

    memset(&report, 0, sizeof report);
    status = ptq_fuse(s->f->form[0].model, &model, &report, NULL);
    ptq_release(&report.memory);
    ptq_model_free(model);
    return status;
}

static ptq_status call_calibrate(const stage *s) {
    pictures p = s->p;
    ptq_calibrate_options o;
    ptq_calibration *calibration = NULL;
    ptq_status status;

    memset(&o, 0, sizeof o);
    o.accept_any = 1;
    status = ptq_calibrate(s->plan, pictures_dataset(&p), &o, &calibration, NULL);
    ptq_calibration_free(calibration);
    return status;
}

static ptq_status call_calibration_files(const stage *s) {
    ptq_calibration *calibration = NULL;
    ptq_status status = ptq_calibration_save(s->calibration, in_directory("seen"), NULL);

    if (!status)
        status = ptq_calibration_load(in_directory("seen"), NULL, &calibration, NULL);
    ptq_calibration_free(calibration);
    return status;
}

static ptq_status convert_with(const stage *s, const char *name, int weight_bits,
                               int activation_bits) {
    pictures p = s->p;
    ptq_convert_options o;
    ptq_model *model = NULL;
    ptq_convert_report report;
    ptq_status status;

    memset(&o, 0, sizeof o);
    memset(&report, 0, sizeof report);
    o.images = pictures_dataset(&p);
    status = ptq_preset(name, &o.scheme, NULL);
    o.scheme.weight_bits = weight_bits;
    o.scheme.activation_bits = activation_bits;
    if (!status)
        status = ptq_convert(s->fused, s->calibration, &o, &model, &report, NULL);
    ptq_release(&report.memory);
    ptq_model_free(model);
    return status;
}

static ptq_status call_convert_plainly(const stage *s) { return convert_with(s, "tflite", 8, 8); }

/* Confirmed, equalized, with fitted ranges, refitted and learned weights. */
static ptq_status call_convert_best(const stage *s) { return convert_with(s, "best", 4, 6); }

static ptq_status plan_and_run(const stage *s, int runs) {
    static float logits[IMAGES * CLASSES];
    ptq_plan_options planning;
    ptq_status status = PTQ_OK;
    int i;

    memset(&planning, 0, sizeof planning);
    planning.isa = s->isa;
    for (i = 0; i < s->f->forms && !status; i++) {
        ptq_plan *plan = NULL;
        ptq_session *session = NULL;

        status = ptq_plan_create(s->f->form[i].model, &planning, &plan, NULL);
        if (!status && runs)
            status = ptq_session_create(plan, NULL, &session, NULL);
        if (!status && runs)
            status = ptq_run(session, s->f->pixels, IMAGES, logits, NULL, NULL);
        ptq_session_free(session);
        ptq_plan_free(plan);
    }
    return status;
}

static ptq_status call_plan(const stage *s) { return plan_and_run(s, 0); }

static ptq_status call_run(const stage *s) { return plan_and_run(s, 1); }

static ptq_status call_evaluate(const stage *s) {
    pictures p = s->p;
    ptq_evaluation before, after;
    ptq_comparison compared;
    ptq_status status;

    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    (void)((status = ptq_evaluate(s->plan, pictures_dataset(&p), NULL, &before, NULL)) ||
           (status = ptq_evaluate(s->integer_plan, pictures_dataset(&p), NULL, &after, NULL)) ||
           (status = ptq_compare(&before, &after, &compared, NULL)));
    ptq_release(&after.memory);
    ptq_release(&before.memory);
    return status;
}

static ptq_status call_self_test(const stage *s) {
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_status status = ptq_model_copy(s->integer, NULL, &model, NULL);

    (void)(status || (status = ptq_self_test_add(model, NULL)) ||
           (status = ptq_plan_create(model, NULL, &plan, NULL)) ||
           (status = ptq_self_test_check(plan, NULL)));
    ptq_plan_free(plan);
    ptq_model_free(model);
    return status;
}

static ptq_status call_cifar10(const stage *s) {
    ptq_cifar10 *data = NULL;
    ptq_status status = ptq_cifar10_open(test_directory, PTQ_SPLIT_TEST, NULL, &data, NULL);

    (void)s;
    ptq_cifar10_free(data);
    return status;
}

/* Most bytes of stack that each may take, what it calls included: measured with gcc and clang at
   -O2 on x86-64, and rounded up by a quarter at least. */
typedef struct measured_call {
    const char *name;
    size_t most;
    ptq_status (*call)(const stage *s);
    int every_isa;
} measured_call;

static const measured_call calls[] = {
    {"ptq_model_load", 6144, call_load, 0},
    {"ptq_fuse", 3072, call_fuse, 0},
    {"ptq_plan_create", 3072, call_plan, 1},
    {"ptq_run", 3072, call_run, 1},
    {"ptq_calibrate", 5120, call_calibrate, 0},
    {"ptq_calibration_save, _load", 3072, call_calibration_files, 0},
    {"ptq_convert, tflite", 6144, call_convert_plainly, 0},
    {"ptq_convert, best w4a6", 14336, call_convert_best, 0},
    {"ptq_evaluate, ptq_compare", 5120, call_evaluate, 0},
    {"ptq_self_test_add, _check", 6144, call_self_test, 0},
    {"ptq_model_save", 3072, call_save, 0},
    {"ptq_cifar10_open", 5120, call_cifar10, 0},
};

/* Sanitizers make larger frames, and so does a compiler that does not optimize. With counters for
   coverage the searches take minutes. */
#if TEST_SANITIZED || defined(TEST_COVERAGE) || !defined(__OPTIMIZE__)
#define HAS_PLAIN_FRAMES 0
#else
#define HAS_PLAIN_FRAMES 1
#endif

enum { STACK_BYTES = 1 << 20, PAINT = 0xC5 };

typedef struct painted {
    uint8_t *stack;
    const stage *s;
    ptq_status (*call)(const stage *s);
    ptq_status status;
} painted;

static void *call_on_paint(void *user) {
    painted *p = (painted *)user;

    p->status = p->call(p->s);
    return NULL;
}

/* Bytes from the top of the stack, where it begins, down to the lowest that lost its paint. */
static size_t depth_of(ptq_status (*call)(const stage *s), const stage *s, uint8_t *stack) {
    painted p = {stack, s, call, PTQ_OK};
    pthread_attr_t attributes;
    pthread_t thread;
    size_t clean = 0;

    memset(stack, PAINT, STACK_BYTES);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK_BYTES), 0);
    assert_int_equal(pthread_create(&thread, &attributes, call_on_paint, &p), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
    assert_int_equal(p.status, PTQ_OK);
    while (clean < STACK_BYTES && stack[clean] == PAINT)
        clean++;
    return STACK_BYTES - clean;
}

/* The thread's own part does not count; nor does the dynamic linker's, who comes in at first. */
static size_t peak_of(const measured_call *measured, stage *s, uint8_t *stack) {
    size_t peak = 0;
    int isa;

    for (isa = PTQ_ISA_SCALAR; isa < (measured->every_isa ? PTQ_ISA_COUNT : PTQ_ISA_SCALAR + 1);
         isa++) {
        size_t own, depth;

        s->isa = (ptq_isa)isa;
        if (ptq_isa_support(s->isa) != PTQ_SUPPORT_AVAILABLE)
            continue;
        depth_of(measured->call, s, stack);
        own = depth_of(call_nothing, s, stack);
        depth = depth_of(measured->call, s, stack) - own;
        peak = depth > peak ? depth : peak;
    }
    return peak;
}

static const char shallow[] = "ptq-graph 1\n"
                              "input input shape=4x4x2\n"
                              "a conv2d in=input channels=2 kernel=3x3\n"
                              "r relu in=a\n"
                              "b conv2d in=r channels=2 kernel=1x1\n"
                              "s add in=b,r\n"
                              "p global_avg_pool in=s\n"
                              "d dense in=p channels=3\n";

static void open_stage(stage *s, const fixture *f) {
    static uint8_t record[PTQ_CIFAR10_RECORD];
    ptq_model *model = model_of_text(shallow);
    ptq_convert_options o;

    memset(s, 0, sizeof *s);
    s->f = f;
    fill_model(model, 3);
    s->fused = fused_of(model);
    s->p = pictures_for(s->fused, 200, 7); /* as many as confirming takes */
    s->calibration = calibrated_on(s->fused, pictures_dataset(&s->p));
    o = with_scheme(preset("tflite"), pictures_dataset(&s->p));
    s->integer = converted(s->fused, s->calibration, &o);
    assert_ok(ptq_plan_create(s->fused, NULL, &s->plan, &err));
    assert_ok(ptq_plan_create(s->integer, NULL, &s->integer_plan, &err));
    assert_ok(ptq_model_save(s->integer, in_directory("model"), &err));
    write_file(in_directory("test_batch.bin"), record, sizeof record);
}

static void close_stage(stage *s) {
    ptq_plan_free(s->integer_plan);
    ptq_plan_free(s->plan);
    ptq_model_free(s->integer);
    ptq_calibration_free(s->calibration);
    ptq_model_free(s->fused);
}

static void peak_of_the_stack(void **state) {
    uint8_t *stack;
    stage s;
    int i, deeper = 0;

    if (!HAS_PLAIN_FRAMES)
        skip();
    stack = (uint8_t *)mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                            -1, 0);
    assert_true(stack != MAP_FAILED);
    open_stage(&s, (const fixture *)*state);
    for (i = 0; i < COUNT(calls); i++) {
        size_t peak = peak_of(&calls[i], &s, stack);

        print_message("%-28s %6zu bytes of stack, at most %6zu%s\n", calls[i].name, peak,
                      calls[i].most, peak > calls[i].most ? ": TOO MANY" : "");
        deeper += peak > calls[i].most;
    }
    close_stage(&s);
    munmap(stack, STACK_BYTES);
    assert_int_equal(deeper, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counter_counts),
        cmocka_unit_test(running_allocates_nothing),
        cmocka_unit_test(peak_of_the_stack),
    };

    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
