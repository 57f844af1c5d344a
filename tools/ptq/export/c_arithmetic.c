/* What the arithmetic of a model changes in its standalone header: the kernels, the constants that
   they work from, and, for `fixed`, the results, which are codes. */
#include <string.h>

#include "export/c_header.h"
#include "ptq.h"

/* The lines of these files, made by the Makefile: lists of strings that end with NULL. */
static const char *const kernel_lines[] = {
#include "standalone_kernels.inc"
    NULL};
static const char *const xnnpack_lines[] = {
#include "standalone_xnnpack.inc"
    NULL};
static const char *const fixed_lines[] = {
#include "standalone_fixed.inc"
    NULL};

unsigned long real_word(float value) {
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return (unsigned long)bits;
}

void put_real(header *h, float value) {
    char item[16];

    snprintf(item, sizeof item, "0x%08lxu", real_word(value));
    put_item(h, item);
}

arithmetic arithmetic_of(const ptq_model *model) {
    const char *name = ptq_model_get_meta(model, "arithmetic");

    return name && strcmp(name, "xnnpack") == 0 ? XNNPACK
           : name && strcmp(name, "fixed") == 0 ? FIXED
                                                : ONNX;
}

/* The model's own, or else what TensorFlow Lite's arithmetics share, or what all do. */
void put_kernel(const header *h, const char *section) {
    if ((h->arithmetic == FIXED && put_section(h, fixed_lines, section)) ||
        (h->arithmetic != ONNX && put_section(h, xnnpack_lines, section)))
        return;
    put_section(h, kernel_lines, section);
}

/* ---- Constants ---- */

void put_multipliers(header *h, int index) {
    size_t channels = (size_t)h->model->node[index].shape[2];
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    if (h->arithmetic != FIXED) {
        begin_table(h, "uint32_t", index, "multiplier", channels, 4 * channels);
        for (size_t i = 0; i < channels; i++)
            put_real(h, step.multiplier[i]);
        end_table(h);
        return;
    }
    fprintf(h->to, "static const %s_factor %s_node%d_multiplier[%zu] = {\n", h->name, h->name,
            index, channels);
    h->column = 0;
    h->constants += 8 * channels;
    for (size_t i = 0; i < channels; i++) {
        char item[32];

        snprintf(item, sizeof item, "{%ld, %d}", (long)step.factor[i].multiplier,
                 step.factor[i].shift);
        put_item(h, item);
    }
    end_table(h);
}

/* {factor, zero, zero_point, low, high} */
static void put_factors(const header *h, const ptq_step_info *step, const ptq_node *node) {
    for (int k = 0; k < 3; k++)
        fprintf(h->to, "%s{%ld, %d}", k ? ", " : "{{", (long)step->factor[k].multiplier,
                step->factor[k].shift);
    fprintf(h->to, "}, {%d, %d}, %d, %d, %d}", (int)h->model->node[node->input[0]].q.zero_point,
            (int)h->model->node[node->input[1]].q.zero_point, (int)node->q.zero_point,
            (int)step->sum_low, (int)step->sum_high);
}

/* {multiplier, shift, zero, zero_point, low, high}. By a shift of 31 and more nothing is left. */
static void put_multiples(const header *h, const ptq_step_info *step, const ptq_node *node) {
    const ptq_factor *factor = step->factor;
    int lost = factor->shift > 30;

    fprintf(h->to, "{{%ld, %ld}, %d, {%d, %d}, %d, %d, %d}", lost ? 0L : (long)factor[0].multiplier,
            lost ? 0L : (long)factor[1].multiplier, lost ? 1 : factor->shift,
            (int)h->model->node[node->input[0]].q.zero_point,
            (int)h->model->node[node->input[1]].q.zero_point, (int)node->q.zero_point,
            (int)step->sum_low, (int)step->sum_high);
}

/* Of an addition, and of a convolution, which has one only where it is fused: never in TensorFlow
   Lite's arithmetics. */
void put_adder(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    if (h->arithmetic == ONNX)
        fprintf(h->to, "{{0x%08lxu, 0x%08lxu}, 0x%08lxu, %d, %d}", real_word(step.ratio[0]),
                real_word(step.ratio[1]), real_word(step.shift), (int)step.sum_low,
                (int)step.sum_high);
    else if (node->op != PTQ_OP_ADD)
        fputs(h->arithmetic == FIXED ? "{{{0, 0}, {0, 0}, {0, 0}}, {0, 0}, 0, 0, 0}"
                                     : "{{0, 0}, 0, {0, 0}, 0, 0, 0}",
              h->to);
    else if (h->arithmetic == FIXED)
        put_factors(h, &step, node);
    else
        put_multiples(h, &step, node);
}

/* {scale of the input, of the result}; of the whole image {multiplier, 0}. */
void put_pool_scales(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    int whole = node->op == PTQ_OP_GLOBAL_AVG_POOL;
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    if (whole && h->arithmetic == FIXED)
        fprintf(h->to, "{0x%08lxu, %d}", (unsigned long)step.factor->multiplier,
                step.factor->shift + 31);
    else if (whole)
        fprintf(h->to, "{0x%08lxu, 0x%08lxu}", real_word(step.average), 0UL);
    else if (node->op == PTQ_OP_AVG_POOL && h->arithmetic == ONNX)
        fprintf(h->to, "{0x%08lxu, 0x%08lxu}", real_word(h->model->node[node->input[0]].q.scale),
                real_word(node->q.scale));
    else
        fprintf(h->to, "{0x%08lxu, 0x%08lxu}", 0UL, 0UL);
}

void put_product_factor(const header *h, int index) {
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    if (h->arithmetic == FIXED)
        fprintf(h->to, "%ld, %d", (long)step.factor->multiplier, step.factor->shift);
    else
        fprintf(h->to, "0x%08lxu", real_word(step.average));
}

void put_powers(header *h, int index) {
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    begin_table(h, "uint32_t", index, "power", 256, 1024);
    for (int i = 0; i < 256; i++) {
        char item[16];

        snprintf(item, sizeof item, "%luu", (unsigned long)step.power[i]);
        put_item(h, item);
    }
    end_table(h);
    fputc('\n', h->to);
}

/* ---- Results ---- */

/* The node whose result the header gives: logits; in `fixed`, where these have to be codes, what
   they become last. */
int result_of(const header *h) {
    const ptq_model *model = h->model;
    int last = model->nodes - 1;

    if (h->arithmetic != FIXED)
        return ptq_model_logits(model);
    if (model->node[last].q.type == PTQ_TYPE_F32)
        last = ptq_model_logits(model);
    return model->node[last].op == PTQ_OP_DEQUANTIZE ? model->node[last].input[0] : last;
}

const char *result_type(const header *h) {
    return h->arithmetic != FIXED                            ? "float"
           : h->model->node[h->logits].q.type == PTQ_TYPE_S8 ? "int8_t"
                                                             : "uint8_t";
}

const char *result_name(const header *h) { return h->arithmetic == FIXED ? "result" : "logits"; }
