/* Conversion: what it refuses, what it reports, mixed models, and the files that quantized models
   are kept in, sound and damaged. */
#include "quantized.h"
#include "faults.h"

enum { SIDE = 8, IMAGES = 20, CLASSES = 5 };

typedef struct fixture {
    ptq_model *fused;
    ptq_calibration *calibration;
    pictures p;
    ptq_dataset data;
} fixture;

static int open_fixture(void **state) {
    fixture *f = (fixture *)calloc(1, sizeof *f);

    assert_non_null(f);
    f->fused = fused_of(random_resnet8(SIDE, 3, CLASSES, 5, NULL));
    f->p = pictures_for(f->fused, IMAGES, 9);
    f->data = *pictures_dataset(&f->p);
    f->calibration = calibrated_on(f->fused, &f->data);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;

    ptq_calibration_free(f->calibration);
    ptq_model_free(f->fused);
    free(f);
    return 0;
}

static ptq_model *convert_preset(const fixture *f, const char *name) {
    ptq_convert_options o = with_scheme(preset(name), &f->data);

    return converted(f->fused, f->calibration, &o);
}

/* Logits of the first eight pictures. */
static void run_pictures(const fixture *f, const ptq_model *m, float *logits) {
    test_run run = open_run(m, 0);
    uint8_t pixels[SIDE * SIDE * 3];
    size_t i;
    int label;

    for (i = 0; i < 8; i++) {
        assert_ok(f->data.get(f->data.user, i, pixels, &label, &err));
        assert_ok(ptq_run(run.session, pixels, 1, logits + i * CLASSES, NULL, &err));
    }
    close_run(&run);
}

/* Signal to noise ratio of the logits against float, in dB. */
static double quality(const fixture *f, const ptq_model *m) {
    float wanted[8 * CLASSES], got[8 * CLASSES];
    double signal = 0, noise = 1e-30;
    int i;

    run_pictures(f, f->fused, wanted);
    run_pictures(f, m, got);
    for (i = 0; i < 8 * CLASSES; i++) {
        signal += pow((double)wanted[i], 2);
        noise += pow((double)wanted[i] - (double)got[i], 2);
    }
    return 10 * log10(signal / noise);
}

/* ---------------------------------------------------------------------------------------------
   The whole */

static void float_model_is_untouched(void **state) {
    const fixture *f = (const fixture *)*state;
    uint64_t hash = ptq_model_hash(f->fused);
    ptq_model *copy = NULL;
    int i;

    assert_ok(ptq_model_copy(f->fused, NULL, &copy, &err));
    for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++)
        ptq_model_free(convert_preset(f, ptq_name(PTQ_NAMES_PRESET, (unsigned)i)));
    assert_true(ptq_model_hash(f->fused) == hash);
    assert_same_model(f->fused, copy);
    ptq_model_free(copy);
}

static size_t param_bytes(const ptq_model *m) {
    size_t sum = 0;
    int i, p;

    for (i = 0; i < m->nodes; i++)
        for (p = 0; p < PTQ_PARAM_COUNT; p++)
            sum += m->node[i].param[p].size + 4 * (size_t)m->node[i].param[p].scales;
    return sum;
}

static void report_and_dry_run(void **state) {
    const fixture *f = (const fixture *)*state;
    int i, k;

    for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++) {
        ptq_convert_options o =
            with_scheme(preset(ptq_name(PTQ_NAMES_PRESET, (unsigned)i)), &f->data);
        ptq_convert_report dry, report;
        ptq_model *m = NULL;
        size_t before = 0, after = 0;
        assert_ok(ptq_convert(f->fused, f->calibration, &o, NULL, &dry, &err));
        assert_ok(ptq_convert(f->fused, f->calibration, &o, &m, &report, &err));
        assert_int_equal(report.items, dry.items);
        for (k = 0; k < report.items; k++) {
            assert_string_equal(report.item[k].node, dry.item[k].node);
            assert_string_equal(report.item[k].what, dry.item[k].what);
            assert_int_equal(report.item[k].bytes_after, dry.item[k].bytes_after);
            assert_true(ptq_model_find(m, report.item[k].node) >= 0);
            before += report.item[k].bytes_before;
            after += report.item[k].bytes_after;
        }
        assert_int_equal(report.items, m->nodes - 1); /* all but the input */
        assert_int_equal(before, report.bytes_before);
        assert_int_equal(after, report.bytes_after);
        assert_int_equal(before, param_bytes(f->fused));
        assert_int_equal(after, param_bytes(m));
        assert_true(after < before);
        ptq_release(&report.memory);
        ptq_release(&dry.memory);
        ptq_model_free(m);
    }
}

/* Static presets run on integers but for the softmax; the others nowhere. */
static void mode_of_every_node(void **state) {
    static const struct {
        const char *name;
        ptq_mode weights, others;
    } table[] = {{"best", PTQ_MODE_INTEGER, PTQ_MODE_INTEGER},
                 {"ort-u8", PTQ_MODE_INTEGER, PTQ_MODE_INTEGER},
                 {"tflite", PTQ_MODE_INTEGER, PTQ_MODE_INTEGER},
                 {"w4a8", PTQ_MODE_INTEGER, PTQ_MODE_INTEGER},
                 {"dynamic", PTQ_MODE_DYNAMIC, PTQ_MODE_FLOAT},
                 {"fp16", PTQ_MODE_HALF, PTQ_MODE_FLOAT}};
    const fixture *f = (const fixture *)*state;
    int i, k;

    for (i = 0; i < COUNT(table); i++) {
        ptq_model *m = convert_preset(f, table[i].name);
        for (k = 0; k < m->nodes; k++) {
            ptq_op op = m->node[k].op;
            ptq_mode wanted = op == PTQ_OP_SOFTMAX || op == PTQ_OP_DEQUANTIZE ? PTQ_MODE_FLOAT
                              : op == PTQ_OP_CONV2D || op == PTQ_OP_DENSE     ? table[i].weights
                                                                              : table[i].others;
            if (ptq_node_mode(m, k) != wanted)
                fail_msg("%s: %s is %s", table[i].name, m->node[k].name,
                         ptq_name(PTQ_NAMES_MODE, ptq_node_mode(m, k)));
        }
        ptq_model_free(m);
    }
    assert_string_equal(ptq_name(PTQ_NAMES_MODE, PTQ_MODE_INTEGER), "integer");
    assert_string_equal(ptq_name(PTQ_NAMES_MODE, PTQ_MODE_HALF), "half");
}

/* Scales of results follow from what was observed; weights are at most half a step off. */
static void scales_by_hand(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_model *m = convert_preset(f, "tflite");
    int i;
    size_t k;

    for (i = 1; i < m->nodes; i++) {
        const ptq_node *n = &m->node[i];
        const ptq_tensor *w = &n->param[PTQ_PARAM_WEIGHT];
        int t = ptq_calibration_find(f->calibration, n->out);
        const ptq_observer *s;
        const float *real;
        size_t each;
        if (n->q.type == PTQ_TYPE_F32 || t < 0)
            continue;
        s = &f->calibration->tensor[t].observer;
        assert_near(n->q.scale, (fmax(0, (double)s->max) - fmin(0, (double)s->min)) / 255,
                    1e-6 * (double)n->q.scale);
        assert_near(n->q.zero_point, -128 - fmin(0, (double)s->min) / (double)n->q.scale, 0.501);
        if (!w->rank)
            continue;
        each = ptq_tensor_elements(w) / (size_t)w->dim[0];
        real = (const float *)f->fused->node[ptq_model_find(f->fused, n->name)]
                   .param[PTQ_PARAM_WEIGHT]
                   .data;
        for (k = 0; k < ptq_tensor_elements(w); k++) {
            double scale = (double)w->scale[k / each];
            assert_near(ptq_tensor_real(w, k), real[k], scale * 0.5001);
            assert_true(ptq_tensor_number(w, k) >= -127);
        }
        for (k = 0; k < (size_t)w->dim[0]; k++) { /* the largest weight has code 127 */
            float most = 0;
            size_t j;
            for (j = 0; j < each; j++)
                most = fmaxf(most, fabsf(real[k * each + j]));
            assert_near(w->scale[k], (double)most / 127, 1e-6 * (double)most);
        }
    }
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   Refusals */

static void refusals(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_convert_options o = with_scheme(preset("tflite"), &f->data);
    ptq_model *raw = random_resnet8(SIDE, 3, CLASSES, 5, NULL), *m = NULL;
    ptq_model *other = fused_of(random_resnet8(SIDE, 3, CLASSES, 6, NULL)), *quantized;
    ptq_convert_report report;
    ptq_override override;
    char saved[PTQ_NAME_SIZE];
    ptq_calibrated *t;

    assert_fails(PTQ_NOT_READY, "calibrate", ptq_convert(f->fused, NULL, &o, &m, NULL, &err));
    assert_fails(PTQ_NOT_READY, "ptq_fuse", ptq_convert(raw, f->calibration, &o, &m, NULL, &err));
    assert_fails(PTQ_NOT_READY, "another model",
                 ptq_convert(other, f->calibration, &o, &m, &report, &err));
    t = &f->calibration->tensor[ptq_calibration_find(f->calibration, "block2.conv1.relu")];
    memcpy(saved, t->name, sizeof saved);
    strcpy(t->name, "elsewhere");
    assert_fails(PTQ_NOT_READY, "block2.conv1.relu",
                 ptq_convert(f->fused, f->calibration, &o, &m, &report, &err));
    memcpy(t->name, saved, sizeof saved);
    quantized = convert_preset(f, "tflite");
    assert_fails(PTQ_INVALID_ARGUMENT, "quantized already",
                 ptq_convert(quantized, f->calibration, &o, &m, &report, &err));
    ptq_model_free(quantized);
    o.scheme.weight_bits = 9;
    assert_fails(PTQ_INVALID_ARGUMENT, "9 weight bits",
                 ptq_convert(f->fused, f->calibration, &o, &m, NULL, &err));
    o.scheme.weight_bits = 1;
    assert_fails(PTQ_INVALID_ARGUMENT, "2 to 8",
                 ptq_convert(f->fused, f->calibration, &o, NULL, NULL, &err));
    o.scheme = preset("tflite");
    o.scheme.activation_bits = -3;
    assert_fails(PTQ_INVALID_ARGUMENT, "-3 activation bits",
                 ptq_convert(f->fused, f->calibration, &o, &m, NULL, &err));
    o.scheme = preset("tflite");
    o.scheme.weight_affine = 1;
    assert_fails(PTQ_INVALID_ARGUMENT, "affine",
                 ptq_convert(f->fused, f->calibration, &o, &m, NULL, &err));
    override.pattern = "conv1";
    override.scheme = o.scheme;
    o.scheme = preset("tflite");
    o.override = &override;
    o.overrides = 1;
    assert_fails(PTQ_INVALID_ARGUMENT, "affine",
                 ptq_convert(f->fused, f->calibration, &o, &m, NULL, &err));
    assert_null(m);
    ptq_model_free(other);
    ptq_model_free(raw);
}

static void schemes_and_presets(void **state) {
    ptq_scheme s;
    char text[200];
    size_t n;
    int i;

    (void)state;
    assert_fails(PTQ_INVALID_ARGUMENT, "ort-u8", ptq_preset("bets", &s, &err));
    assert_null(ptq_name(PTQ_NAMES_PRESET, (unsigned)-1));
    assert_null(ptq_name(PTQ_NAMES_PRESET_TEXT, 100));
    for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++) {
        s = preset(ptq_name(PTQ_NAMES_PRESET, (unsigned)i));
        assert_ok(ptq_scheme_check(&s, &err));
        assert_non_null(ptq_name(PTQ_NAMES_PRESET_TEXT, (unsigned)i));
        n = ptq_scheme_write(&s, text, sizeof text);
        assert_int_equal(strlen(text), n);
        assert_int_equal(ptq_scheme_write(&s, NULL, 0), n);
    }
    assert_int_equal(i, 9);
    memset(&s, 0, sizeof s);
    ptq_scheme_write(&s, text, sizeof text);
    assert_string_equal(text, "w8 per-channel mse learned, a8 u8 mse"); /* best */
    s = preset("minmax8");
    ptq_scheme_write(&s, text, sizeof text);
    assert_string_equal(text, "w8 per-channel minmax, a8 u8 minmax");
    s.weight_method = PTQ_METHOD_ENTROPY;
    assert_fails(PTQ_INVALID_ARGUMENT, "entropy", ptq_scheme_check(&s, &err));
    s.weight_method = PTQ_METHOD_MINMAX;
    s.percentile = 40;
    assert_fails(PTQ_INVALID_ARGUMENT, "percentile", ptq_scheme_check(&s, &err));
}

/* No scheme means best, for NULL and for zeros; it is refused by name without images. */
static void best_by_default(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_convert_options o = with_scheme(preset("best"), &f->data), zeros;
    ptq_model *a = converted(f->fused, f->calibration, &o), *b = NULL, *none = NULL;

    memset(&zeros, 0, sizeof zeros);
    zeros.images = &f->data;
    b = converted(f->fused, f->calibration, &zeros);
    assert_int_equal(ptq_model_hash(a), ptq_model_hash(b));
    zeros.images = NULL;
    assert_fails(PTQ_NOT_READY, "minmax8",
                 ptq_convert(f->fused, f->calibration, &zeros, &none, NULL, &err));
    assert_fails(PTQ_NOT_READY, "'best'",
                 ptq_convert(f->fused, f->calibration, NULL, &none, NULL, &err));
    assert_null(none);
    ptq_model_free(a);
    ptq_model_free(b);
}

/* Learning needs the images again, and no others; their order and threads do not matter. */
static void learned_rounding(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_convert_options o = with_scheme(preset("w4a8"), &f->data);
    size_t order[IMAGES], i;
    pictures p = f->p;
    ptq_model *a = converted(f->fused, f->calibration, &o), *b = NULL;
    double learned = quality(f, a);

    for (i = 0; i < IMAGES; i++)
        order[i] = IMAGES - 1 - i;
    p.order = order;
    o.images = pictures_dataset(&p);
    o.work.threads = 2;
    b = converted(f->fused, f->calibration, &o);
    assert_same_model(a, b);
    ptq_model_free(b);
    ptq_model_free(a);
    order[4] = 1000;
    b = NULL;
    assert_fails(PTQ_BAD_DATA, "image 4",
                 ptq_convert(f->fused, f->calibration, &o, &b, NULL, &err));
    o.images = NULL;
    assert_fails(PTQ_NOT_READY, "images",
                 ptq_convert(f->fused, f->calibration, &o, &b, NULL, &err));
    assert_null(b);
    o.scheme.rounding = PTQ_ROUNDING_NEAREST;
    a = converted(f->fused, f->calibration, &o);
    if (learned < quality(f, a))
        fail_msg("learned %.1f dB, nearest %.1f dB", learned, quality(f, a));
    ptq_model_free(a);
}

/* ---------------------------------------------------------------------------------------------
   Mixed models */

static ptq_override override_of(const char *pattern, const char *name) {
    ptq_override o;

    o.pattern = pattern;
    o.scheme = preset(name);
    return o;
}

static int count_ops(const ptq_model *m, ptq_op op) {
    int i, n = 0;

    for (i = 0; i < m->nodes; i++)
        n += m->node[i].op == op;
    return n;
}

/* A float node between integer ones: codes become real before it, and codes again behind it. */
static void float_node_in_the_middle(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_convert_options o = with_scheme(preset("tflite"), &f->data);
    ptq_override override[2];
    ptq_convert_report report;
    ptq_model *m = NULL, *plain = convert_preset(f, "tflite");
    int i, inserted = 0, index;

    override[0] = override_of("block?.conv1", "tflite");
    override[0].scheme.mode = PTQ_MODE_FLOAT;
    override[1] = override_of("block[13]*", "tflite"); /* no such pattern: matches nothing */
    o.override = override;
    o.overrides = 2;
    assert_ok(ptq_convert(f->fused, f->calibration, &o, &m, &report, &err));
    for (i = 1; i <= 3; i++) {
        char name[40];
        snprintf(name, sizeof name, "block%d.conv1", i);
        index = ptq_model_find(m, name);
        assert_int_equal(ptq_node_mode(m, index), PTQ_MODE_FLOAT);
        assert_int_equal(m->node[m->node[index].input[0]].op, PTQ_OP_DEQUANTIZE);
        snprintf(name, sizeof name, "block%d.conv2", i);
        index = ptq_model_find(m, name);
        assert_int_equal(ptq_node_mode(m, index), PTQ_MODE_INTEGER);
        assert_int_equal(m->node[m->node[index].input[0]].op, PTQ_OP_QUANTIZE);
    }
    for (i = 0; i < report.items; i++)
        inserted += !strcmp(report.item[i].what, "inserted");
    assert_int_equal(inserted, m->nodes - f->fused->nodes);
    assert_int_equal(count_ops(m, PTQ_OP_QUANTIZE), 3);
    assert_int_equal(count_ops(m, PTQ_OP_DEQUANTIZE), count_ops(plain, PTQ_OP_DEQUANTIZE) + 3);
    if (quality(f, m) < quality(f, plain) - 3)
        fail_msg("mixed %.1f dB, integer %.1f dB", quality(f, m), quality(f, plain));
    ptq_release(&report.memory);
    ptq_model_free(plain);
    ptq_model_free(m);
}

/* Of several patterns that match, the last counts. */
static void last_override_counts(void **state) {
    const fixture *f = (const fixture *)*state;
    ptq_convert_options o = with_scheme(preset("tflite"), &f->data);
    ptq_override override[4];
    ptq_model *m;
    int i;

    override[0] = override_of("*", "fp16");
    override[1] = override_of("block*", "tflite");
    override[1].scheme.weight_bits = 4;
    override[2] = override_of("block2.conv?", "tflite");
    override[2].scheme.weight_bits = 6;
    override[3] = override_of("conv1.relu", "tflite"); /* the name of a result */
    o.override = override;
    o.overrides = 4;
    m = converted(f->fused, f->calibration, &o);
    for (i = 0; i < m->nodes; i++) {
        const ptq_node *n = &m->node[i];
        int bits = !strcmp(n->name, "fc")                 ? 16
                   : !strcmp(n->name, "conv1")            ? 8
                   : !strncmp(n->name, "block2.conv", 11) ? 6
                                                          : 4;
        if (n->param[PTQ_PARAM_WEIGHT].rank && n->param[PTQ_PARAM_WEIGHT].bits != bits)
            fail_msg("%s has %d bits, wanted %d", n->name, n->param[PTQ_PARAM_WEIGHT].bits, bits);
    }
    assert_int_equal(ptq_node_mode(m, ptq_model_find(m, "fc")), PTQ_MODE_HALF);
    assert_true(strstr(ptq_model_get_meta(m, "scheme"), "block2.conv?") != NULL);
    assert_true(quality(f, m) > 8);
    ptq_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
   Files */

static void files_of_every_preset(void **state) {
    const fixture *f = (const fixture *)*state;
    float before[8 * CLASSES], after[8 * CLASSES];
    int i;

    for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++) {
        ptq_model *m = convert_preset(f, ptq_name(PTQ_NAMES_PRESET, (unsigned)i)), *back = NULL;
        void *bytes = NULL, *again = NULL;
        size_t n = 0, k = 0;
        assert_ok(ptq_self_test_add(m, &err));
        assert_ok(ptq_model_write(m, &bytes, &n, &err));
        assert_ok(ptq_model_parse(bytes, n, NULL, &back, &err));
        assert_ok(ptq_model_write(back, &again, &k, &err));
        assert_int_equal(n, k);
        assert_memory_equal(bytes, again, n);
        assert_true(ptq_model_hash(m) == ptq_model_hash(back));
        run_pictures(f, m, before);
        run_pictures(f, back, after);
        assert_memory_equal(before, after, sizeof before);
        assert_non_null(ptq_model_get_meta(back, "scheme"));
        assert_non_null(strstr(ptq_model_get_meta(back, "calibration"), "20 images"));
        ptq_bytes_free(again, NULL);
        ptq_bytes_free(bytes, NULL);
        ptq_model_free(back);
        ptq_model_free(m);
    }
}

/* Codes of 2 to 7 bits in the file: from the lowest bit up, each output channel from a new byte. */
static void packed_codes_in_the_file(void **state) {
    const fixture *f = (const fixture *)*state;
    int bits, affine;

    for (bits = 2; bits <= 7; bits++)
        for (affine = 0; affine < 2; affine++) {
            ptq_convert_options o = with_scheme(preset(affine ? "ort-u8" : "tflite"), &f->data);
            ptq_model *m;
            ptq_archive *archive = NULL;
            const ptq_tensor *w, *stored;
            void *bytes = NULL;
            size_t n = 0, each, row, k;
            o.scheme.weight_bits = bits;
            m = converted(f->fused, f->calibration, &o);
            assert_ok(ptq_model_write(m, &bytes, &n, &err));
            assert_ok(ptq_archive_parse(bytes, n, NULL, &archive, &err));
            w = ptq_model_param(m, "block2.conv1.weight"); /* 6 x 3 x 3 x 3: rows of 27 codes */
            stored = ptq_archive_find(archive, "block2.conv1.weight");
            assert_non_null(stored);
            each = 27;
            row = (each * (size_t)bits + 7) / 8;
            assert_int_equal(stored->type, PTQ_TYPE_U8);
            assert_int_equal(stored->rank, 2);
            assert_int_equal(stored->dim[0], 6);
            assert_int_equal(stored->dim[1], row);
            for (k = 0; k < 6 * each; k++) {
                const uint8_t *from = (const uint8_t *)stored->data + k / each * row;
                int code = 0, b;
                for (b = 0; b < bits; b++) {
                    size_t at = k % each * (size_t)bits + (size_t)b;
                    code |= (from[at / 8] >> (at % 8) & 1) << b;
                }
                if (!affine && code >> (bits - 1))
                    code -= 1 << bits;
                assert_int_equal(code, (int)ptq_tensor_number(w, k));
            }
            ptq_archive_free(archive);
            ptq_bytes_free(bytes, NULL);
            ptq_model_free(m);
        }
}

/* The file with one tensor changed or added, or (t NULL) left out: parsing it must fail, and say
   what is wrong. */
static void expect_damage(const void *bytes, size_t n, const char *name, const ptq_tensor *t,
                          const char *says) {
    ptq_archive *archive = NULL, *changed = NULL;
    ptq_model *m = NULL;
    void *wrong = NULL;
    size_t k = 0;
    int i, found = 0;
    ptq_status s;

    assert_ok(ptq_archive_parse(bytes, n, NULL, &archive, &err));
    assert_ok(ptq_archive_create(NULL, &changed, &err));
    for (i = 0; i < archive->entries; i++) {
        int same = !strcmp(archive->entry[i].name, name);
        found += same;
        if (!same || t)
            assert_ok(ptq_archive_add(changed, archive->entry[i].name,
                                      same ? t : &archive->entry[i].tensor, &err));
    }
    if (!found) /* one more than there were */
        assert_ok(ptq_archive_add(changed, name, t, &err));
    for (i = 0; i < archive->metas; i++)
        assert_ok(
            ptq_archive_set_meta(changed, archive->meta[i].key, archive->meta[i].value, &err));
    assert_ok(ptq_archive_write(changed, &wrong, &k, &err));
    memset(&err, 'x', sizeof err);
    s = ptq_model_parse(wrong, k, NULL, &m, &err);
    if (s == PTQ_OK)
        fail_msg("%s: taken", name);
    err.text[sizeof err.text - 1] = 0;
    if (!strstr(err.text, says))
        fail_msg("%s: \"%s\" does not say %s", name, err.text, says);
    assert_null(m);
    ptq_bytes_free(wrong, NULL);
    ptq_archive_free(changed);
    ptq_archive_free(archive);
}

static ptq_tensor borrowed(ptq_type type, int rank, int d0, int d1, void *data, size_t size) {
    ptq_tensor t;
    int dims[2];

    dims[0] = d0;
    dims[1] = d1;
    assert_ok(ptq_tensor_borrow(&t, type, 0, rank, dims, data, size, &err));
    return t;
}

static void damaged_files(void **state) {
    static const float bad_scale[] = {0, -1, NAN, INFINITY, 1e-40f};
    const fixture *f = (const fixture *)*state;
    ptq_model *m = convert_preset(f, "tflite"), *affine = convert_preset(f, "ort-u8");
    void *bytes = NULL, *other = NULL;
    size_t n = 0, k = 0;
    float scale[64], *real = (float *)calloc(4096, sizeof *real);
    int32_t zero[] = {256, -1, 100000};
    ptq_tensor t;
    int i;

    assert_non_null(real);
    assert_ok(ptq_model_write(m, &bytes, &n, &err));
    assert_ok(ptq_model_write(affine, &other, &k, &err));
    expect_damage(bytes, n, "conv1.weight_scale", NULL, "conv1.weight_scale");
    expect_damage(bytes, n, "block1.conv1.bias", NULL, "block1.conv1.bias");
    expect_damage(bytes, n, "fc.weight", NULL, "fc.weight");
    for (i = 0; i < COUNT(bad_scale); i++) {
        scale[0] = scale[2] = 0.1f;
        scale[1] = bad_scale[i];
        t = borrowed(PTQ_TYPE_F32, 1, 3, 1, scale, 12);
        expect_damage(bytes, n, "conv1.weight_scale", &t, "conv1");
    }
    scale[1] = 0.1f;
    t = borrowed(PTQ_TYPE_F32, 1, 2, 1, scale, 8);
    expect_damage(bytes, n, "conv1.weight_scale", &t, "conv1.weight_scale");
    t = borrowed(PTQ_TYPE_F32, 2, 3, 1, scale, 12);
    expect_damage(bytes, n, "conv1.weight_scale", &t, "conv1.weight_scale");
    t = borrowed(PTQ_TYPE_S32, 1, 3, 1, scale, 12);
    expect_damage(bytes, n, "conv1.weight_scale", &t, "conv1.weight_scale");
    t = borrowed(PTQ_TYPE_F32, 1, 3, 1, real, 12);
    expect_damage(bytes, n, "conv1.bias", &t, "conv1.bias");
    t = borrowed(PTQ_TYPE_F32, 2, CLASSES, 12, real, CLASSES * 12 * 4);
    expect_damage(bytes, n, "fc.weight", &t, "fc.weight");
    t = borrowed(PTQ_TYPE_U8, 2, CLASSES, 12, real, CLASSES * 12);
    expect_damage(bytes, n, "fc.weight", &t, "fc.weight");
    t = borrowed(PTQ_TYPE_F32, 1, 1, 1, scale, 4);
    expect_damage(bytes, n, "pool.weight_scale", &t, "pool.weight_scale");
    for (i = 0; i < COUNT(zero); i++) {
        t = borrowed(PTQ_TYPE_S32, 1, 1, 1, &zero[i], 4);
        expect_damage(other, k, "conv1.weight_zero_point", &t, "conv1");
    }
    zero[0] = 3; /* a zero point where every channel has its own scale */
    t = borrowed(PTQ_TYPE_S32, 1, 1, 1, &zero[0], 4);
    expect_damage(bytes, n, "conv1.weight_zero_point", &t, "conv1");
    free(real);
    ptq_bytes_free(other, NULL);
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(affine);
    ptq_model_free(m);
}

/* Biases so large that a sum could leave int32, and text of the graph with wrong scales. */
static void damaged_numbers(void **state) {
    static const char *const wrong[] = {
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:0:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:-1:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:1e-40:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:nan:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:1:256\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:1:-1\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=s8:8:1:128\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:4:1:16\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:9:1:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s9 q=u8:8:1:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:1e-39:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:3e38:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8\n",
        "conv conv2d in=input channels=1 kernel=1x1 q=u8:8:1:0\n",
        "conv conv2d in=input channels=1 kernel=1x1 w=s8 dynamic=1 q=u8:8:1:0\n",
        "conv relu in=input q=u8:8:2:0\n",
        "conv softmax in=input q=u8:8:2:0\n",
        "conv max_pool in=input kernel=2x2\n",
        "conv global_avg_pool in=input q=u8:8:1e30:0\n",
        "conv global_avg_pool in=input q=u8:8:1e-30:0\n",
    };
    ptq_model *m = NULL;
    int i, k;

    (void)state;
    for (i = 0; i < COUNT(wrong); i++) {
        char text[300];
        ptq_status s;
        snprintf(text, sizeof text, "ptq-graph 1\ninput input shape=4x4x1 q=u8:8:1e-1:0\n%s",
                 wrong[i]);
        m = NULL;
        s = ptq_graph_parse(text, strlen(text), NULL, &m, &err);
        if (!s)
            s = ptq_model_check(m, &err);
        if (!s || !strstr(err.text, "conv"))
            fail_msg("%s gives %s: %s", wrong[i], ptq_name(PTQ_NAMES_STATUS, s), s ? err.text : "");
        ptq_model_free(m);
    }
    m = model_of_text("ptq-graph 1\ninput input shape=4x4x1 q=u8:8:1:0\n"
                      "conv conv2d in=input channels=1 kernel=1x1 w=s8 q=u8:8:1:0\n");
    assert_ok(ptq_model_check(m, &err));
    ptq_tensor_set_code(ptq_model_param(m, "conv.weight"), 0, 127);
    for (k = 0; k < 2; k++) { /* 127 * 255 + bias is 2^31 - 1, or one more */
        ((int32_t *)ptq_model_param(m, "conv.bias")->data)[0] = INT32_MAX - 127 * 255 + k;
        if (k)
            assert_fails(PTQ_BAD_NUMBER, "conv", ptq_model_check(m, &err));
        else
            assert_ok(ptq_model_check(m, &err));
        ((int32_t *)ptq_model_param(m, "conv.bias")->data)[0] = -(INT32_MAX - 127 * 255 + k);
        if (k)
            assert_fails(PTQ_BAD_NUMBER, "conv", ptq_model_check(m, &err));
    }
    ptq_model_free(m);
}

/* The self-test on the model as it is now. */
static ptq_status self_tested(const ptq_model *m) {
    ptq_plan *plan = NULL;
    ptq_status s;

    assert_ok(ptq_plan_create(m, NULL, &plan, &err));
    s = ptq_self_test_check(plan, &err);
    ptq_plan_free(plan);
    return s;
}

static void self_test(void **state) {
    const fixture *f = (const fixture *)*state;
    int i;

    for (i = 0; ptq_name(PTQ_NAMES_PRESET, (unsigned)i); i++) {
        ptq_model *m = convert_preset(f, ptq_name(PTQ_NAMES_PRESET, (unsigned)i));
        ptq_tensor *w = ptq_model_param(m, "fc.weight");
        int k, seen = 0, size = (int)w->size;
        assert_fails(PTQ_NOT_READY, "self-test", self_tested(m));
        assert_ok(ptq_self_test_add(m, &err));
        assert_ok(self_tested(m));
        for (k = 0; k < size; k++) { /* inputs that are 0 for this picture hide their weights */
            ((uint8_t *)w->data)[k] ^= 0x24;
            seen += self_tested(m) == PTQ_BAD_NUMBER && strstr(err.text, "self-test");
            ((uint8_t *)w->data)[k] ^= 0x24;
        }
        if (seen <= size / 4)
            fail_msg("%s: %d of %d bytes seen", ptq_name(PTQ_NAMES_PRESET, (unsigned)i), seen,
                     size);
        assert_ok(ptq_model_set_meta(m, "self_test", "12 nonsense", &err));
        assert_fails(PTQ_BAD_NUMBER, "self-test", self_tested(m));
        ptq_model_free(m);
    }
}

/* ---------------------------------------------------------------------------------------------
   Every allocation fails once, and all after it */

static ptq_status run_chain(void *user, ptq_allocator allocator) {
    const ptq_model *fused = (const ptq_model *)user;
    pictures p = pictures_for(fused, 4, 5);
    const ptq_dataset *data = pictures_dataset(&p);
    ptq_plan_options planning = {PTQ_ISA_SCALAR, allocator};
    ptq_load_options load = {allocator, 0};
    ptq_calibrate_options calibrating;
    ptq_convert_options o = with_scheme(preset("w4a8"), data);
    ptq_plan *plan = NULL, *integer = NULL;
    ptq_calibration *c = NULL, *again = NULL;
    ptq_model *m = NULL, *back = NULL;
    ptq_convert_report report;
    void *json = NULL, *bytes = NULL;
    size_t n = 0, k = 0;
    ptq_status s;

    memset(&calibrating, 0, sizeof calibrating);
    calibrating.accept_any = 1;
    calibrating.work.allocator = allocator;
    memset(&report, 0, sizeof report);
    o.work.allocator = allocator;
    (void)((s = ptq_plan_create(fused, &planning, &plan, &err)) ||
           (s = ptq_calibrate(plan, data, &calibrating, &c, &err)) ||
           (s = ptq_calibration_write(c, &json, &n, &err)) ||
           (s = ptq_calibration_parse(json, n, &allocator, &again, &err)) ||
           (s = ptq_calibration_merge(again, c, &err)) ||
           (s = ptq_convert(fused, c, &o, &m, &report, &err)) || (s = ptq_self_test_add(m, &err)) ||
           (s = ptq_model_write(m, &bytes, &k, &err)) ||
           (s = ptq_model_parse(bytes, k, &load, &back, &err)) ||
           (s = ptq_plan_create(back, &planning, &integer, &err)) ||
           (s = ptq_self_test_check(integer, &err)));
    ptq_plan_free(integer);
    ptq_model_free(back);
    ptq_bytes_free(bytes, &allocator);
    ptq_release(&report.memory);
    ptq_model_free(m);
    ptq_calibration_free(again);
    ptq_bytes_free(json, &allocator);
    ptq_calibration_free(c);
    ptq_plan_free(plan);
    return s;
}

static void every_allocation_may_fail(void **state) {
    ptq_conv_options conv;
    ptq_model *m = NULL, *fused;
    int x, y;

    (void)state;
    memset(&conv, 0, sizeof conv);
    conv.channels = 2;
    conv.kernel_h = 3;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_input(m, "input", 4, 4, 2);
    x = ptq_add_conv2d(m, "a", x, &conv);
    y = ptq_add_add(m, "add", ptq_add_conv2d(m, "b", x, &conv), x);
    y = ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", y);
    ptq_add_dense(m, "fc", y, 3);
    fill_model(m, 5);
    fused = fused_of(m);
    assert_true(fail_each_forked(run_chain, NULL, fused, 1) > 100);
    ptq_model_free(fused);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_model_is_untouched),
        cmocka_unit_test(report_and_dry_run),
        cmocka_unit_test(mode_of_every_node),
        cmocka_unit_test(scales_by_hand),
        cmocka_unit_test(refusals),
        cmocka_unit_test(schemes_and_presets),
        cmocka_unit_test(best_by_default),
        cmocka_unit_test(learned_rounding),
        cmocka_unit_test(float_node_in_the_middle),
        cmocka_unit_test(last_override_counts),
        cmocka_unit_test(files_of_every_preset),
        cmocka_unit_test(packed_codes_in_the_file),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(damaged_numbers),
        cmocka_unit_test(self_test),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
