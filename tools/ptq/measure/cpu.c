/* ptq info --cpu: which kernels this build has, which of them this machine can run, and whether
   they compute what the scalar ones do. */
#include <string.h>

#include "measure/cpu.h"
#include "measure/kernel_test.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/machine.h"
#include "shared/output.h"

/* One instruction set. */
typedef struct isa_info {
    ptq_isa isa;
    int compiled, available, chosen;
    ptq_status tested; /* if available */
    double test_ms;
    ptq_error error;
} isa_info;

static const char *why_not(const isa_info *info) {
    if (info->available)
        return "";
    return info->compiled ? "the processor lacks it, or the system does not allow it"
                          : "not compiled in: for other processors, or newer compilers";
}

static void examine(ptq_isa isa, ptq_isa chosen, isa_info *out) {
    double start;

    memset(out, 0, sizeof *out);
    out->isa = isa;
    out->compiled = ptq_isa_support(isa) != PTQ_SUPPORT_NONE;
    out->available = ptq_isa_support(isa) == PTQ_SUPPORT_AVAILABLE;
    out->chosen = isa == chosen;
    if (!out->available)
        return;
    start = seconds_now();
    out->tested = test_kernels(isa, &out->error);
    out->test_ms = (seconds_now() - start) * 1e3;
}

/* What a plan takes where none is asked for. */
static int find_best(ptq_isa *out) {
    ptq_model *model;
    engine ready;
    ptq_error err;

    if (ptq_resnet8(4, 1, 2, NULL, &model, &err))
        return fail("%s", err.text);
    if (engine_adopt(model, ptq_name(PTQ_NAMES_ISA, PTQ_ISA_AUTO), &ready))
        return 1;
    *out = ptq_plan_get_info(ready.plan)->isa;
    engine_close(&ready);
    return 0;
}

static void print_isa(const isa_info *info) {
    say("%-12s %-3s %s", ptq_name(PTQ_NAMES_ISA, info->isa), info->available ? "yes" : "no",
        info->chosen ? "chosen; " : "");
    if (info->available)
        say("self-test %s (%.0f ms)\n", info->tested ? info->error.text : "passed", info->test_ms);
    else
        say("%s\n", why_not(info));
}

#ifdef PTQ_HAVE_jansson

static json_t *isa_json(const isa_info *info) {
    json_t *made = json_object();

    json_object_set_new(made, "name", json_string(ptq_name(PTQ_NAMES_ISA, info->isa)));
    json_object_set_new(made, "compiled", json_boolean(info->compiled));
    json_object_set_new(made, "available", json_boolean(info->available));
    json_object_set_new(made, "chosen", json_boolean(info->chosen));
    if (!info->available) {
        json_object_set_new(made, "why_not", json_string(why_not(info)));
        return made;
    }
    json_object_set_new(made, "self_test", json_string(info->tested ? info->error.text : "passed"));
    json_object_set_new(made, "self_test_ms", json_real(info->test_ms));
    return made;
}

static int write_json(const isa_info *info, int count, ptq_isa best, int forced) {
    json_t *root = json_object(), *list = json_array();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "best", json_string(ptq_name(PTQ_NAMES_ISA, best)));
    json_object_set_new(root, "forced", json_boolean(forced));
    for (int i = 0; i < count; i++)
        json_array_append_new(list, isa_json(&info[i]));
    json_object_set_new(root, "instruction_sets", list);
    return json_finish(root);
}

#else

static int write_json(const isa_info *info, int count, ptq_isa best, int forced) {
    (void)info, (void)count, (void)best, (void)forced;
    return 1;
}

#endif

int show_cpu(int json) {
    isa_info info[PTQ_ISA_COUNT];
    ptq_isa best = PTQ_ISA_SCALAR, chosen;
    int count = 0, forced, failed = 0;

    if (choose_isa(NULL, &chosen) || find_best(&best))
        return 1;
    forced = chosen != PTQ_ISA_AUTO;
    if (!forced)
        chosen = best;
    for (int isa = 0; isa < PTQ_ISA_COUNT; isa++)
        if (isa != PTQ_ISA_AUTO) {
            examine((ptq_isa)isa, chosen, &info[count]);
            print_isa(&info[count]);
            failed |= info[count++].tested != PTQ_OK;
        }
    say("without PTQ_ISA the choice is %s%s%s\n", ptq_name(PTQ_NAMES_ISA, best),
        forced ? "; PTQ_ISA forces " : "", forced ? ptq_name(PTQ_NAMES_ISA, chosen) : "");
    if (json && write_json(info, count, best, forced))
        return 1;
    if (ptq_isa_support(chosen) != PTQ_SUPPORT_AVAILABLE)
        return fail("PTQ_ISA asks for %s, which is not available here",
                    ptq_name(PTQ_NAMES_ISA, chosen));
    return failed ? fail("kernels failed their self-test") : 0;
}
