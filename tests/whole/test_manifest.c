/* What must not change: the bytes of quantized models and the codes of their results, of random
   networks under every preset and of the models that the repository holds, on every instruction set
   that this processor has or emulation gives. tests/manifest/codes.txt holds them as hashes:

       calibration NETWORK CALIBRATION
       PRESET NETWORK MODEL RESULTS       RESULTS: every tensor of two pictures
       NAME PRESET MODEL RESULTS          NAME: a file in examples/models or tests/data

       build/test_manifest --write        writes it anew and says what changed

   A rebuilding of the library must keep every line; an improvement of conversion need not, and then
   the lines that changed tell what it reaches.

   Networks, pictures and random numbers are the tests' own. Calibration and conversion compute on
   real numbers, and their last bits differ from one instruction set to the next: the processor's
   are hidden meanwhile, and scalar kernels do it, the same everywhere. Real weights are compared on
   scalar kernels only, softmax (the C library's expf) not at all. */
#define PTQ__EMULATE
#include "emulation.h"

static int hide_processor;

#if defined(__x86_64__) && !defined(PTQ_NO_SIMD)
#include <cpuid.h>

static int visible_cpuid(unsigned leaf, unsigned part, unsigned *a, unsigned *b, unsigned *c,
                         unsigned *d) {
    return !hide_processor && __get_cpuid_count(leaf, part, a, b, c, d);
}
#define __get_cpuid_count visible_cpuid /* the library asks through this */
#endif

#include "quantized.h"
#include "schemes.h"

enum {
    NETWORKS = 210,
    RESNET8_EVERY = 15, /* one in so many is a ResNet8, whose channels fill whole vectors */
    SEED = 71000,
    CALIBRATED = 8, /* pictures */
    MOST_ENTRIES = 8192,
    MOST_TOLD = 12, /* differences, in full */
    HASH_TEXT = 17
};

static const char *const manifest = "tests/manifest/codes.txt";
static int writing;

/* Which instruction sets there are, and which of them stay when the processor is hidden. */
static int isa_here[PTQ_ISA_COUNT], isa_stays;

/* ---------------------------------------------------------------------------------------------
   The manifest */

typedef struct entry {
    char key[48];   /* "best 017" */
    char value[40]; /* hashes */
    int used;
} entry;

typedef struct entries {
    entry at[MOST_ENTRIES];
    int count;
} entries;

static entries stored, made;

static entry *find_entry(entries *list, const char *key) {
    int i;

    for (i = 0; i < list->count; i++)
        if (!strcmp(list->at[i].key, key))
            return &list->at[i];
    return NULL;
}

static void add_entry(entries *list, const char *key, const char *value) {
    entry *e = &list->at[list->count++];

    assert_true(list->count < MOST_ENTRIES);
    snprintf(e->key, sizeof e->key, "%s", key);
    snprintf(e->value, sizeof e->value, "%s", value);
}

/* Two words are the key, the rest of the line is the value. */
static void read_manifest(void) {
    char line[256], subject[28], item[19], value[40], key[48];
    FILE *file = fopen(manifest, "r");

    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#' || sscanf(line, "%27s %18s %39[^\n]", subject, item, value) != 3)
            continue;
        snprintf(key, sizeof key, "%s %s", subject, item);
        add_entry(&stored, key, value);
    }
    fclose(file);
}

static int write_manifest(void) {
    char path[256];
    FILE *file;
    int i, bad = 0;

    snprintf(path, sizeof path, "%s.part", manifest);
    file = fopen(path, "w");
    if (!file) {
        perror(path);
        return 1;
    }
    fprintf(file, "# Hashes of what must not change; see tests/test_manifest.c. Written by\n"
                  "# \"make manifest\", not by hand.\n");
    for (i = 0; i < made.count; i++)
        bad |= fprintf(file, "%s %s\n", made.at[i].key, made.at[i].value) < 0;
    bad |= fclose(file) != 0;
    if (bad || rename(path, manifest)) {
        perror(manifest);
        remove(path);
        return 1;
    }
    return 0;
}

/* What a person wants to know of a manifest written anew. */
static void tell_changes(void) {
    int i, changed = 0, added = 0, gone = 0;

    for (i = 0; i < made.count; i++) {
        const entry *old = find_entry(&stored, made.at[i].key);
        if (old && !strcmp(old->value, made.at[i].value))
            continue;
        printf("%s: %s\n", old ? "changed" : "new", made.at[i].key);
        *(old ? &changed : &added) += 1;
    }
    for (i = 0; i < stored.count; i++)
        if (!find_entry(&made, stored.at[i].key)) {
            printf("gone: %s\n", stored.at[i].key);
            gone++;
        }
    printf("%s: %d entries; %d changed, %d new, %d gone\n", manifest, made.count, changed, added,
           gone);
}

/* ---------------------------------------------------------------------------------------------
   Hashes: FNV-1a of 64 bits, numbers with the least significant byte first */

static const uint64_t no_hash = UINT64_C(14695981039346656037);

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    size_t i;

    for (i = 0; i < size; i++)
        hash = (hash ^ p[i]) * UINT64_C(1099511628211);
    return hash;
}

static uint64_t hash_floats(uint64_t hash, const float *f, size_t n) {
    uint32_t bits;
    size_t i;
    int byte;

    for (i = 0; i < n; i++) {
        memcpy(&bits, &f[i], sizeof bits);
        for (byte = 0; byte < 4; byte++)
            hash = (hash ^ (bits >> 8 * byte & 255)) * UINT64_C(1099511628211);
    }
    return hash;
}

static uint64_t hash_tensor(uint64_t hash, const ptq_session *session, const char *name) {
    ptq_tensor view;
    size_t n;

    assert_ok(ptq_session_tensor(session, name, &view, &err));
    n = ptq_tensor_elements(&view);
    if (view.type == PTQ_TYPE_F32)
        return hash_floats(hash, (const float *)view.data, n);
    return hash_bytes(hash, view.data, n);
}

/* Every tensor up to the logits, that before a fused addition included. */
static uint64_t hash_tensors(uint64_t hash, const ptq_model *model, const ptq_session *session) {
    int i;

    for (i = 1; i <= ptq_model_logits(model); i++) {
        const ptq_node *n = &model->node[i];
        if (n->residual)
            hash = hash_tensor(hash, session, n->name);
        hash = hash_tensor(hash, session, n->out);
    }
    return hash;
}

static uint64_t hash_model(const ptq_model *model) {
    void *bytes = NULL;
    size_t size = 0;
    uint64_t hash;

    assert_ok(ptq_model_write(model, &bytes, &size, &err));
    hash = hash_bytes(no_hash, bytes, size);
    ptq_bytes_free(bytes, NULL);
    return hash;
}

static uint64_t hash_calibration(const ptq_calibration *calibration) {
    void *bytes = NULL;
    size_t size = 0;
    uint64_t hash;

    assert_ok(ptq_calibration_write(calibration, &bytes, &size, &err));
    hash = hash_bytes(no_hash, bytes, size);
    ptq_bytes_free(bytes, NULL);
    return hash;
}

/* The first picture looks like one, the second brings codes to both rails. */
static uint64_t hash_results(const ptq_model *model, ptq_isa isa) {
    pictures shown = pictures_for(model, 1, SEED);
    size_t size = (size_t)shown.h * (size_t)shown.w * (size_t)shown.c;
    uint8_t *pixels = (uint8_t *)malloc(size);
    test_random r = {SEED};
    ptq_session_options keep;
    ptq_plan_options options;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    uint64_t hash = no_hash;
    int picture, label;

    assert_non_null(pixels);
    memset(&options, 0, sizeof options);
    memset(&keep, 0, sizeof keep);
    options.isa = isa;
    keep.keep = 1;
    assert_ok(ptq_plan_create(model, &options, &plan, &err));
    assert_ok(ptq_session_create(plan, &keep, &session, &err));
    for (picture = 0; picture < 2; picture++) {
        if (picture == 0)
            assert_ok(get_picture(&shown, 0, pixels, &label, &err));
        else
            random_pixels(&r, pixels, size);
        assert_ok(ptq_run(session, pixels, 1, NULL, NULL, &err));
        hash = hash_tensors(hash, model, session);
    }
    ptq_session_free(session);
    ptq_plan_free(plan);
    free(pixels);
    return hash;
}

/* ---------------------------------------------------------------------------------------------
   Comparing */

static int differences;

static void tell(const char *format, ...) {
    va_list args;
    char text[512];

    if (++differences > MOST_TOLD)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_error("%s\n", text);
}

static void expect_no_differences(void) {
    int n = differences;

    differences = 0;
    if (n > 0)
        fail_msg("%d differences from %s; \"make manifest\" writes it anew, if they are meant", n,
                 manifest);
}

/* Whether every instruction set gives the same bytes: all weights are integers. What else there is
   on real numbers, ranges found per image or what could not be fused, is done value by value. */
static int is_integer(const ptq_model *model) {
    int i;

    for (i = 1; i <= ptq_model_logits(model); i++) {
        const ptq_node *n = &model->node[i];
        ptq_mode mode = ptq_node_mode(model, i);
        if ((n->op == PTQ_OP_CONV2D || n->op == PTQ_OP_DENSE) &&
            (mode == PTQ_MODE_HALF || mode == PTQ_MODE_FLOAT))
            return 0;
    }
    return 1;
}

static void hash_text(uint64_t hash, char text[HASH_TEXT]) {
    snprintf(text, HASH_TEXT, "%08lx%08lx", (unsigned long)(hash >> 32),
             (unsigned long)(hash & 0xffffffffu));
}

/* The names of those instruction sets whose results are not as wanted; `scalar` are those of scalar
   kernels. */
static void run_everywhere(const ptq_model *model, const char *scalar, const char *wanted,
                           char *wrong, size_t size) {
    char got[HASH_TEXT];
    int isa;

    snprintf(wrong, size, "%s", strcmp(scalar, wanted) ? " scalar" : "");
    if (!is_integer(model))
        return;
    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT; isa++) {
        if (!isa_here[isa])
            continue;
        hash_text(hash_results(model, (ptq_isa)isa), got);
        if (strcmp(got, wanted))
            snprintf(wrong + strlen(wrong), size - strlen(wrong), " %s",
                     ptq_name(PTQ_NAMES_ISA, (ptq_isa)isa));
    }
}

/* One line of the manifest: compares, or adds it to the one to be written. */
static void check_model(const char *subject, const char *item, const ptq_model *model) {
    char key[48], value[40], hash[HASH_TEXT], results[HASH_TEXT], wrong[256];
    entry *old;

    hash_text(hash_model(model), hash);
    hash_text(hash_results(model, PTQ_ISA_SCALAR), results);
    snprintf(key, sizeof key, "%s %s", subject, item);
    snprintf(value, sizeof value, "%s %s", hash, results);
    old = find_entry(&stored, key);
    add_entry(&made, key, value);
    if (writing || !old) {
        run_everywhere(model, results, results, wrong, sizeof wrong);
        if (wrong[0])
            tell("%s: not the results of scalar kernels:%s", key, wrong);
        if (!writing)
            tell("%s: not in the manifest", key);
        return;
    }
    old->used = 1;
    if (strncmp(old->value, hash, HASH_TEXT - 1))
        tell("%s: the bytes of the model changed", key);
    run_everywhere(model, results, old->value + HASH_TEXT, wrong, sizeof wrong);
    if (wrong[0])
        tell("%s: the results changed with%s", key, wrong);
}

/* ---------------------------------------------------------------------------------------------
   Networks and schemes */

typedef struct network {
    ptq_model *fused;
    pictures shown;
    ptq_calibration *calibration;
} network;

static network random_network[NETWORKS];

static const struct {
    const char *name;
    int presets_only;
} pinned_model[] = {{"resnet8-shapes10", 0}, {"separable-shapes10", 0}, {"resnet8-cifar10", 1}};

static network pinned_network[COUNT(pinned_model)];

typedef struct variant {
    char name[24];
    int is_preset;
    int step; /* of random networks one in so many; 1 for all presets */
    ptq_scheme scheme;
} variant;

static variant variants[64];
static int variant_count;

static ptq_scheme best_with(int weight_bits, int activation_bits) {
    ptq_scheme scheme = preset("best");

    scheme.weight_bits = weight_bits;
    scheme.activation_bits = activation_bits;
    return scheme;
}

static void add_variant(const char *name, int step, ptq_scheme scheme) {
    variant *v = &variants[variant_count++];
    ptq_scheme known;

    assert_true(variant_count <= COUNT(variants));
    snprintf(v->name, sizeof v->name, "%s", name);
    v->step = step;
    v->is_preset = !ptq_preset(name, &known, NULL);
    v->scheme = scheme;
}

static void list_variants(void) {
    ptq_scheme real;
    char name[8];
    int i;

    for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++)
        add_variant(ptq_name(PTQ_NAMES_PRESET, (unsigned)i), 1,
                    preset(ptq_name(PTQ_NAMES_PRESET, (unsigned)i)));
    for (i = 2; i <= 7; i++) {
        snprintf(name, sizeof name, "w%d", i);
        add_variant(name, 1, few_bits(i));
    }
    add_variant("best-w3a4", 7, best_with(3, 4)); /* all that is learned, and slow */
    add_variant("best-w8a6", 7, best_with(8, 6));
    memset(&real, 0, sizeof real);
    real.mode = PTQ_MODE_FLOAT;
    add_variant("float", 1, real);
}

static network made_ready(ptq_model *model) {
    network n;

    n.fused = fused_of(model);
    n.shown = pictures_for(n.fused, CALIBRATED, SEED + 1);
    n.calibration = calibrated_on(n.fused, pictures_dataset(&n.shown));
    return n;
}

static ptq_model *draw_network(int number) {
    int turn = number / RESNET8_EVERY, c;
    ptq_model *model;

    if (number % RESNET8_EVERY == RESNET8_EVERY - 1)
        return random_resnet8(5 + turn, 2 + turn / 2, 2 + turn, SEED + (uint64_t)number, NULL);
    model = random_graph(SEED + (uint64_t)number);
    for (c = 0; c < model->node[0].shape[2] && number % 3; c++) {
        model->mean[c] = 100 + 10 * (float)c;
        model->std[c] = 64;
    }
    return model;
}

static void find_isas(void) {
    int isa;

    for (isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++) {
        isa_here[isa] = ptq_isa_support((ptq_isa)isa) == PTQ_SUPPORT_AVAILABLE;
        hide_processor = 1;
        if (isa != PTQ_ISA_SCALAR && ptq_isa_support((ptq_isa)isa) == PTQ_SUPPORT_AVAILABLE)
            isa_stays = isa;
        hide_processor = 0;
    }
}

static void need_hidden_processor(void) {
    if (!isa_stays)
        return;
    print_message("left out: %s cannot be hidden, and conversion would compute by it\n",
                  ptq_name(PTQ_NAMES_ISA, (ptq_isa)isa_stays));
    skip();
}

static int open_networks(void **state) {
    char path[128];
    ptq_model *model;
    int i;

    (void)state;
    find_isas();
    hide_processor = 1;
    for (i = 0; i < NETWORKS; i++)
        random_network[i] = made_ready(draw_network(i));
    for (i = 0; i < COUNT(pinned_model); i++) {
        model = NULL;
        snprintf(path, sizeof path, "examples/models/%s.safetensors", pinned_model[i].name);
        assert_ok(ptq_model_load(path, NULL, &model, &err));
        pinned_network[i] = made_ready(model);
    }
    hide_processor = 0;
    return 0;
}

static void close_network(network *n) {
    ptq_calibration_free(n->calibration);
    ptq_model_free(n->fused);
}

static int close_networks(void **state) {
    int i;

    for (i = 0; i < NETWORKS; i++)
        close_network(&random_network[i]);
    for (i = 0; i < COUNT(pinned_model); i++)
        close_network(&pinned_network[i]);
    return tiles_are_released(state);
}

static ptq_model *quantized(network *n, const variant *v) {
    ptq_convert_options options = with_scheme(v->scheme, pictures_dataset(&n->shown));
    ptq_model *q;

    need_hidden_processor();
    hide_processor = 1;
    q = converted(n->fused, n->calibration, &options);
    hide_processor = 0;
    return q;
}

/* ---------------------------------------------------------------------------------------------
   Tests */

static void check_calibrations(void **state) {
    char key[48], value[HASH_TEXT];
    int i;

    (void)state;
    need_hidden_processor();
    for (i = 0; i < NETWORKS; i++) {
        entry *old;
        snprintf(key, sizeof key, "calibration %03d", i);
        hash_text(hash_calibration(random_network[i].calibration), value);
        add_entry(&made, key, value);
        old = find_entry(&stored, key);
        if (old)
            old->used = 1;
        if (!writing && !old)
            tell("%s: not in the manifest", key);
        else if (!writing && strcmp(old->value, value))
            tell("%s: the bytes of the file changed", key);
    }
    expect_no_differences();
}

static void check_networks(void **state) {
    const variant *v = (const variant *)*state;
    char item[16];
    int i;

    for (i = 0; i < NETWORKS; i += v->step * how_many(1, 4)) {
        ptq_model *q = quantized(&random_network[i], v);
        snprintf(item, sizeof item, "%03d", i);
        check_model(v->name, item, q);
        ptq_model_free(q);
    }
    expect_no_differences();
}

/* A model of examples/models under every scheme. */
static void check_example(void **state) {
    int which = (int)(intptr_t)*state, i;

    for (i = 0; i < variant_count; i += how_many(1, 2)) {
        ptq_model *q;
        if (variants[i].step > 1 || (pinned_model[which].presets_only && !variants[i].is_preset))
            continue;
        q = quantized(&pinned_network[which], &variants[i]);
        check_model(pinned_model[which].name, variants[i].name, q);
        ptq_model_free(q);
    }
    expect_no_differences();
}

static void check_tiny(void **state) {
    ptq_model *model = NULL;

    (void)state;
    assert_ok(ptq_model_load("tests/data/tiny-int8.safetensors", NULL, &model, &err));
    check_model("tiny-int8", "file", model);
    ptq_model_free(model);
    expect_no_differences();
}

/* A preset or a model that is no longer there, unless its test was skipped. */
static void nothing_is_gone(void **state) {
    int i;

    (void)state;
    need_hidden_processor();
    if (how_many(0, 1))
        skip();
    for (i = 0; i < stored.count && !writing; i++)
        if (!stored.at[i].used)
            tell("%s: in the manifest only", stored.at[i].key);
    expect_no_differences();
}

static struct CMUnitTest tests[COUNT(variants) + COUNT(pinned_model) + 3];
static char test_name[COUNT(variants)][48];

static size_t list_tests(void) {
    size_t n = 0;
    int i;

    tests[n].name = "calibrations";
    tests[n++].test_func = check_calibrations;
    for (i = 0; i < variant_count; i++) {
        snprintf(test_name[i], sizeof test_name[i], "networks %.23s", variants[i].name);
        tests[n].name = test_name[i];
        tests[n].test_func = check_networks;
        tests[n++].initial_state = &variants[i];
    }
    for (i = 0; i < COUNT(pinned_model); i++) {
        tests[n].name = pinned_model[i].name;
        tests[n].test_func = check_example;
        tests[n++].initial_state = (void *)(intptr_t)i;
    }
    tests[n].name = "tiny-int8";
    tests[n++].test_func = check_tiny;
    tests[n].name = "nothing_is_gone";
    tests[n++].test_func = nothing_is_gone;
    return n;
}

int main(int argc, char **argv) {
    int failed;

    writing = argc == 2 && !strcmp(argv[1], "--write");
    read_manifest();
    list_variants();
    failed = run_group("manifest", tests, list_tests(), open_networks, close_networks);
    if (!writing || failed)
        return failed;
    if (isa_stays)
        return fprintf(stderr, "%s: not written, for %s cannot be hidden from conversion\n",
                       manifest, ptq_name(PTQ_NAMES_ISA, (ptq_isa)isa_stays)),
               1;
    tell_changes();
    return write_manifest();
}
