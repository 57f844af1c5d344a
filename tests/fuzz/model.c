/* Fuzz target: any bytes as a model file. What loads is written again, planned and run. */
#include "fuzz.h"

static const ptq_load_options within_limits = {{allocate_little, release_little, NULL}, 0};

/* Small enough to run in no time; a hostile file may well describe a network of hours. */
static int is_small(const ptq_model *model) {
    uint64_t macs = 0, outputs = 0;
    int i;

    for (i = 0; i < model->nodes; i++) {
        ptq_cost cost = ptq_node_cost(model, i);

        macs += cost.macs;
        outputs += cost.output_bytes;
    }
    return macs < 20000 && outputs < 20000;
}

static void run(const ptq_model *model) {
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    uint8_t *pixels;
    float *logits;

    if (ptq_plan_create(model, NULL, &plan, &err))
        return;
    pixels = (uint8_t *)calloc(ptq_plan_get_info(plan)->pixels, 1);
    logits = (float *)malloc((size_t)ptq_plan_get_info(plan)->classes * sizeof *logits);
    if (pixels && logits && !ptq_session_create(plan, NULL, &session, &err))
        ptq_run(session, pixels, 1, logits, NULL, &err);
    ptq_self_test_check(plan, &err);
    ptq_session_free(session);
    ptq_plan_free(plan);
    free(pixels);
    free(logits);
}

/* What was loaded and written loads again, and is the same. */
static void write_again(const ptq_model *model) {
    ptq_model *again = NULL;
    void *bytes = NULL;
    size_t size = 0;

    expect(!ptq_model_write(model, &bytes, &size, &err));
    expect(!ptq_model_parse(bytes, size, &within_limits, &again, &err));
    expect(ptq_model_hash(model) == ptq_model_hash(again));
    ptq_model_free(again);
    ptq_bytes_free(bytes, &little);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ptq_model *model = NULL, *fused = NULL;

    if (ptq_model_parse(data, size, &within_limits, &model, &err)) {
        expect(err.text[0]);
        return 0;
    }
    if (is_small(model)) {
        write_again(model);
        run(model);
        if (!ptq_fuse(model, &fused, NULL, &err))
            run(fused);
        ptq_model_free(fused);
    }
    ptq_model_free(model);
    return 0;
}
