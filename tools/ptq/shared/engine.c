/* A model made ready to run. */
#include <stdio.h>
#include <string.h>

#include "ptq.h"
#include "shared/engine.h"
#include "shared/machine.h"
#include "shared/output.h"

int choose_isa(const char *name, ptq_isa *out) {
    char known[256] = "";
    size_t used = 0;
    int found;

    if (!name)
        name = environment("PTQ_ISA");
    found = name ? ptq_find_name(PTQ_NAMES_ISA, name) : PTQ_ISA_AUTO;
    if (found >= 0) {
        *out = (ptq_isa)found;
        return 0;
    }
    for (int i = 0; i < PTQ_ISA_COUNT && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 ptq_name(PTQ_NAMES_ISA, (unsigned)i));
    return fail("unknown instruction set '%s'; choose one of %s", name, known);
}

int engine_adopt(ptq_model *model, const char *isa, engine *out) {
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_error err;

    out->model = model;
    out->plan = NULL;
    if (choose_isa(isa, &options.isa)) {
        engine_close(out);
        return 1;
    }
    if (ptq_plan_create(out->model, &options, &out->plan, &err)) {
        engine_close(out);
        return fail("%s", err.text);
    }
    return 0;
}

int has_onnx_arithmetic(const ptq_model *model) {
    const char *name = ptq_model_get_meta(model, "arithmetic");

    return !name || strcmp(name, "onnx") == 0;
}

int engine_open(const char *path, int fuse, const char *isa, engine *out) {
    ptq_model *model = NULL;
    ptq_error err;

    if (fuse)
        return engine_open_fused(path, NULL, isa, out);
    memset(out, 0, sizeof *out);
    if (ptq_model_load(path, NULL, &model, &err))
        return fail("%s", err.text);
    return engine_adopt(model, isa, out);
}

int engine_open_fused(const char *path, const char *arithmetic, const char *isa, engine *out) {
    ptq_model *model = NULL, *fused = NULL;
    ptq_error err;

    memset(out, 0, sizeof *out);
    if (ptq_model_load(path, NULL, &model, &err))
        return fail("%s", err.text);
    if ((arithmetic && ptq_model_set_meta(model, "arithmetic", arithmetic, &err)) ||
        ptq_fuse(model, &fused, NULL, &err)) {
        ptq_model_free(model);
        return fail("%s", err.text);
    }
    ptq_model_free(model);
    return engine_adopt(fused, isa, out);
}

void engine_close(engine *ready) {
    ptq_plan_free(ready->plan);
    ptq_model_free(ready->model);
    memset(ready, 0, sizeof *ready);
}

int engine_self_test(const engine *ready) {
    ptq_error err;

    if (!ptq_model_get_meta(ready->model, "self_test") || !ptq_self_test_check(ready->plan, &err))
        return 0;
    return fail("%s", err.text);
}

/* Bits of a node's weights, or of its result; -1 where they are none, or real numbers. */
static int own_bits(const ptq_node *node, int weights) {
    if (!node->param[PTQ_PARAM_WEIGHT].rank || (!weights && node->q.type == PTQ_TYPE_F32))
        return -1;
    return weights ? node->param[PTQ_PARAM_WEIGHT].bits : node->q.bits;
}

/* Those of all nodes with weights; 0 where they differ. */
static int common_bits(const ptq_model *model, int weights) {
    int bits = -1;

    for (int i = 1; i < model->nodes; i++) {
        int own = own_bits(&model->node[i], weights);

        if (own >= 0)
            bits = bits < 0 || bits == own ? own : 0;
    }
    return bits;
}

void describe_precision(const ptq_model *model, char *text, size_t size) {
    static const char *const name[] = {"int8", "dynamic int8", "float16", "float32"};
    int mode = -1, mixed = 0, weights = common_bits(model, 1), results = common_bits(model, 0);

    for (int i = 1; i < model->nodes; i++) {
        if (!model->node[i].param[PTQ_PARAM_WEIGHT].rank)
            continue;
        mixed |= mode >= 0 && mode != (int)ptq_node_mode(model, i);
        mode = (int)ptq_node_mode(model, i);
    }
    if (mode < 0)
        mode = PTQ_MODE_FLOAT;
    if (mixed || weights == 0 || results == 0)
        snprintf(text, size, "mixed");
    else if (mode == PTQ_MODE_DYNAMIC && weights != 8)
        snprintf(text, size, "dynamic w%d", weights);
    else if (mode == PTQ_MODE_INTEGER && (weights != 8 || (results > 0 && results != 8)))
        snprintf(text, size, "w%da%d", weights, results > 0 ? results : 8);
    else
        snprintf(text, size, "%s", name[mode]);
}
