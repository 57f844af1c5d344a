/* The format of quantized files, pinned: a small one that lies in tests/data must load, give these
   very codes, and be written again byte for byte, whatever becomes of the rest of the library.

   All of it runs on integers, so that no instruction set may round differently: weights of 8 bits
   per channel, of 4 and 3 bits packed, affine per tensor, activations of 6 bits, preprocessing,
   coded logits, a self-test vector. It was written by

       build/test_pinned tests/data/tiny-int8.safetensors

   once. Conversion may improve, so that this makes another file some day; the old one stays. */
#include "quantized.h"

enum { SIDE = 8, PIXELS = 3 * SIDE * SIDE, CLASSES = 4, PICTURES = 3 };

static const char *const pinned = "tests/data/tiny-int8.safetensors";

static const int32_t expected_code[PICTURES][CLASSES] = {
    {124, 6, 85, 248}, {118, 3, 86, 252}, {122, 6, 84, 252}};

static void draw(int picture, uint8_t *pixels) {
    int i;

    for (i = 0; i < PIXELS; i++)
        pixels[i] = (uint8_t)((i * i * (picture + 3) + 37 * i + 53 * picture) & 255);
}

/* The library of the day makes the model. */
static int write_model(const char *path) {
    ptq_model *fused = fused_of(random_resnet8(SIDE, 2, CLASSES, 77, NULL)), *model;
    pictures shown = pictures_for(fused, 40, 5);
    ptq_calibration *calibration = calibrated_on(fused, pictures_dataset(&shown));
    ptq_convert_options options;
    ptq_override override[3];

    memset(&options, 0, sizeof options);
    memset(override, 0, sizeof override);
    options.scheme.code_logits = 1;
    override[0].pattern = "block1.conv?";
    override[0].scheme.weight_per_tensor = override[0].scheme.weight_affine = 1;
    override[1].pattern = "block2.*";
    override[1].scheme.weight_bits = 4;
    override[2].pattern = "block3.conv1";
    override[2].scheme.weight_bits = 3;
    override[2].scheme.activation_bits = 6;
    options.override = override;
    options.overrides = COUNT(override);
    model = converted(fused, calibration, &options);
    assert_ok(ptq_self_test_add(model, &err));
    assert_ok(ptq_model_save(model, path, &err));
    ptq_model_free(model);
    ptq_calibration_free(calibration);
    ptq_model_free(fused);
    return 0;
}

static void expect_codes(const ptq_model *model, ptq_isa isa) {
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    test_run run = {NULL, NULL};
    uint8_t pixels[PIXELS];
    int32_t code[CLASSES];
    int i, c;

    options.isa = isa;
    assert_ok(ptq_plan_create(model, &options, &run.plan, &err));
    assert_ok(ptq_session_create(run.plan, NULL, &run.session, &err));
    assert_ok(ptq_self_test_check(run.plan, &err));
    for (i = 0; i < PICTURES; i++) {
        draw(i, pixels);
        assert_ok(run_codes(run.session, pixels, 1, code));
        for (c = 0; c < CLASSES; c++)
            if (code[c] != expected_code[i][c])
                fail_msg("picture %d, class %d: code %d, not %d", i, c, (int)code[c],
                         (int)expected_code[i][c]);
    }
    close_run(&run);
}

static void same_codes(void **state) {
    ptq_model *model = NULL;

    (void)state;
    assert_ok(ptq_model_load(pinned, NULL, &model, &err));
    expect_codes(model, PTQ_ISA_AUTO);
    expect_codes(model, PTQ_ISA_SCALAR);
    ptq_model_free(model);
}

/* The codes above are not just what the library said once: each operator's formula gives them. */
static void codes_follow_from_the_formulas(void **state) {
    ptq_model *model = NULL;
    uint8_t pixels[PIXELS];
    test_run run;
    int32_t code[CLASSES];
    int i, checked = 0;

    (void)state;
    assert_ok(ptq_model_load(pinned, NULL, &model, &err));
    run = open_run(model, 1);
    draw(0, pixels);
    assert_ok(run_codes(run.session, pixels, 1, code));
    for (i = 1; i <= ptq_model_logits(model); i++)
        checked += check_node(model, run.session, i) > 0;
    assert_int_equal(checked, 11); /* 9 convolutions, the pool, the dense layer */
    close_run(&run);
    ptq_model_free(model);
}

static void same_bytes(void **state) {
    ptq_model *model = NULL;
    void *stored = NULL, *again = NULL;
    size_t m = 0, n = 0;

    (void)state;
    assert_ok(ptq_file_read(pinned, 0, NULL, &stored, &m, &err));
    assert_ok(ptq_model_parse(stored, m, NULL, &model, &err));
    assert_ok(ptq_model_write(model, &again, &n, &err));
    assert_int_equal(m, n);
    assert_memory_equal(stored, again, n);
    ptq_bytes_free(again, NULL);
    ptq_bytes_free(stored, NULL);
    ptq_model_free(model);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_codes),
        cmocka_unit_test(codes_follow_from_the_formulas),
        cmocka_unit_test(same_bytes),
    };

    if (argc == 2)
        return write_model(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
