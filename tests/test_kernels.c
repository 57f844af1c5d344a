/* The kernels of every instruction set against the scalar ones: random networks of every kind of
   convolution and dense layer, ResNet8, the self-test. Instruction sets that this processor lacks are
   skipped by name; test_kernels_vnni.c and test_kernels_amx.c run some through exact substitutes. */
#include "test.h"

/* Random networks for each instruction set, integer and float. */
enum { NETWORKS = TEST_SANITIZED ? 100 : 2000, FLOAT_NETWORKS = TEST_SANITIZED ? 50 : 400 };

static ptq_isa isa_of(void **state)
{
    ptq_isa isa = ptq_isa_find((const char *)*state);

    if (!ptq_isa_available(isa)) {
        print_message("%s: not available here\n", (const char *)*state);
        skip();
    }
    return isa;
}

static void expect_probes(ptq_isa isa, int integer, int count)
{
    int seed;

    for (seed = 0; seed < count; seed++) {
        if (ptq__probe_once(isa, 1000 + (uint64_t)seed, integer, &err) == PTQ_OK)
            continue;
        fail_msg("%s, network %d: %s", ptq_isa_name(isa), 1000 + seed, err.text);
    }
}

static void codes_equal_scalar(void **state)
{
    expect_probes(isa_of(state), 1, NETWORKS);
}

static void reals_are_close_to_scalar(void **state)
{
    expect_probes(isa_of(state), 0, FLOAT_NETWORKS);
}

static void self_test(void **state)
{
    assert_ok(ptq_kernel_self_test(isa_of(state), &err));
}

/* What the comparison rests on: it finds a single code that differs, in any of the tensors. */
static void comparison_finds_a_code(void **state)
{
    ptq_session *session[2] = {NULL, NULL};
    ptq_session_options keep;
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_tensor view;
    uint8_t pixels[6 * 40 * 120] = {0};
    int i;

    (void)state;
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    assert_ok(ptq__probe_model(5, 1, &model, &err));
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    for (i = 0; i < 2; i++) {
        assert_ok(ptq_session_create(plan, &keep, &session[i], &err));
        assert_ok(ptq_run(session[i], pixels, 1, NULL, NULL, &err));
    }
    assert_ok(ptq__probe_compare(session[0], session[1], "sum", &err));
    assert_ok(ptq_session_tensor(session[1], "sum", &view, &err));
    ((uint8_t *)view.data)[ptq_tensor_elements(&view) - 1] ^= 1;
    assert_fails(PTQ_BAD_NUMBER, "sum", ptq__probe_compare(session[0], session[1], "sum", &err));
    for (i = 0; i < 2; i++)
        ptq_session_free(session[i]);
    ptq_plan_free(plan);
    ptq_model_free(model);
}

/* The networks are what they should be: all kinds of codes, and results all over their range. */
static void probes_reach_everything(void **state)
{
    int seed, u8 = 0, s8 = 0, affine = 0, packed = 0, groups = 0, residual = 0, real = 0, odd = 0;

    (void)state;
    for (seed = 0; seed < 200; seed++) {
        ptq_model *model = NULL;
        int i;

        assert_ok(ptq__probe_model(1000 + (uint64_t)seed, 1, &model, &err));
        assert_ok(ptq_model_check(model, &err));
        for (i = 1; i < model->nodes; i++) {
            const ptq_node *n = &model->node[i];
            u8 += n->q.type == PTQ_U8;
            s8 += n->q.type == PTQ_S8;
            affine += n->param[PTQ_WEIGHT].zero_point != 0;
            packed += n->param[PTQ_WEIGHT].bits < 8;
            groups += n->groups > 1;
            residual += n->residual == PTQ_RES_FIRST;
            real += n->q.type == PTQ_F32;
            odd += n->shape[2] % 8 != 0;
        }
        ptq_model_free(model);
    }
    assert_true(u8 > 100 && s8 > 100 && affine > 50 && packed > 50 && groups > 20);
    assert_true(residual > 50 && real > 50 && odd > 100);
}

/* ResNet8, whose layers fill whole tiles. */
static void resnet8(void **state)
{
    ptq_isa isa = isa_of(state);
    ptq_model *model = random_resnet8(32, 16, 10, 3, NULL), *fused = NULL;
    uint8_t pixels[32 * 32 * 3];
    test_random r = {8};
    float logits[2][10];
    int i, k;

    random_pixels(&r, pixels, sizeof pixels);
    assert_ok(ptq_fuse(model, &fused, NULL, &err));
    for (k = 0; k < 2; k++) {
        ptq_plan_options o;
        ptq_plan *plan = NULL;
        ptq_session *session = NULL;

        memset(&o, 0, sizeof o);
        o.isa = k ? isa : PTQ_ISA_SCALAR;
        assert_ok(ptq_plan_create(fused, &o, &plan, &err));
        assert_int_equal(ptq_plan_isa(plan), o.isa);
        assert_ok(ptq_session_create(plan, NULL, &session, &err));
        assert_ok(ptq_run(session, pixels, 1, logits[k], NULL, &err));
        ptq_session_free(session);
        ptq_plan_free(plan);
    }
    for (i = 0; i < 10; i++)
        assert_true(is_near((double)logits[0][i], (double)logits[1][i], 1e-4, 1e-4));
    ptq_model_free(fused);
    ptq_model_free(model);
}

/* The plan picks the best that there is, and refuses what there is not. */
static void choice(void **state)
{
    ptq_model *model = random_resnet8(8, 4, 4, 1, NULL);
    ptq_plan_options o;
    ptq_plan *plan = NULL;
    int isa;

    (void)state;
    assert_ok(ptq_plan_create(model, NULL, &plan, &err));
    for (isa = (int)ptq_plan_isa(plan) + 1; isa < PTQ_ISA_COUNT; isa++)
        assert_false(ptq_isa_available((ptq_isa)isa));
    ptq_plan_free(plan);
    memset(&o, 0, sizeof o);
    for (isa = 1; isa < PTQ_ISA_COUNT; isa++) {
        o.isa = (ptq_isa)isa;
        if (!ptq_isa_available(o.isa))
            assert_fails(PTQ_UNSUPPORTED, ptq_isa_name(o.isa),
                         ptq_plan_create(model, &o, &plan, &err));
    }
    ptq_model_free(model);
}

#define EACH(test, isa) {#test " " isa, test, NULL, NULL, (void *)(uintptr_t)isa}
#define ALL(isa)                                                                                   \
    EACH(self_test, isa), EACH(codes_equal_scalar, isa), EACH(reals_are_close_to_scalar, isa),     \
        EACH(resnet8, isa)

int main(void)
{
#ifdef PTQ__EMULATE_VNNI
    const struct CMUnitTest tests[] = {ALL("avxvnni"), ALL("avx512vnni")};
#elif defined(PTQ__EMULATE_AMX)
    const struct CMUnitTest tests[] = {ALL("amx"), cmocka_unit_test(tiles_are_released)};
#else
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparison_finds_a_code),
        cmocka_unit_test(probes_reach_everything),
        cmocka_unit_test(choice),
        ALL("avx2"),
        ALL("avxvnni"),
        ALL("avx512"),
        ALL("avx512vnni"),
        ALL("amx"),
    };
#endif
    (void)comparison_finds_a_code, (void)probes_reach_everything, (void)choice;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
