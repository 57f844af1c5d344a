/* The function of a standalone header that runs the network: a call for each node, in order. */
#include <stdint.h>
#include <stdio.h>

#include "export/c_header.h"
#include "ptq.h"

const char *input_name(const header *h) { return h->start ? "codes" : "pixels"; }

/* "arena + 1024", or "pixels" where those are the input's codes. */
static void put_place(const header *h, int node, int table_step) {
    if (node == h->start && table_step < 0)
        fputs(input_name(h), h->to);
    else
        fprintf(h->to, "arena + %zu", offset_of(h, node));
}

static void put_window_call(const header *h, int index, const char *kernel, int table_step) {
    const ptq_node *node = &h->model->node[index];

    fprintf(h->to, "    %s_%s(&%s_node%d, ", h->name, kernel, h->name, index);
    put_place(h, node->input[0], table_step);
    if (node->op == PTQ_OP_CONV2D) {
        fputs(", ", h->to);
        if (node->residual)
            put_place(h, node->input[1], table_step);
        else
            fputs("NULL", h->to);
    }
    if (has_codes(node))
        fprintf(h->to, ", arena + %zu", offset_of(h, index));
    else
        fputs(", logits", h->to);
    fprintf(h->to, node->param[PTQ_PARAM_WEIGHT].rank ? ", %s_patch);" : ");", h->name);
}

static void put_strips_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];

    put_strip_call(h, index);
    put_place(h, node->input[0], table_step);
    if (node->residual) {
        fputs(", ", h->to);
        put_place(h, node->input[1], table_step);
    }
    fprintf(h->to, ", arena + %zu);", offset_of(h, index));
}

static void put_add_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];

    fprintf(h->to, "    %s_addition(&%s_node%d, kind%d, ", h->name, h->name, index, node->input[0]);
    put_place(h, node->input[0], table_step);
    fprintf(h->to, ", kind%d, ", node->input[1]);
    put_place(h, node->input[1], table_step);
    fprintf(h->to, ", %zu, arena + %zu);", elements(node->shape), offset_of(h, index));
}

/* A call for each operand, on two lines. */
static void put_concat_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];
    size_t at = offset_of(h, index);
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    for (int k = 0; k < 2; k++) {
        int channels = operand_of(h, node, k)->shape[2];

        fprintf(h->to, "%s    %s_concat(", k ? "\n" : "", h->name);
        if (keeps_codes(step.recode, k))
            fputs("NULL, ", h->to);
        else
            fprintf(h->to, "%s_node%d_%s, ", h->name, index, k ? "second" : "first");
        put_place(h, node->input[k], table_step);
        fprintf(h->to, ", %d, %d, %zu, arena + %zu);", channels, node->shape[2],
                elements(node->shape), at);
        at += (size_t)channels;
    }
}

static void put_relu_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    fprintf(h->to, "    %s_relu(kind%d, %d, %d, ", h->name, node->input[0], (int)step.low,
            (int)step.high);
    put_place(h, node->input[0], table_step);
    fprintf(h->to, ", %zu, arena + %zu);", elements(node->shape), offset_of(h, index));
}

static void put_function_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];
    int tables = tables_of(node);

    fprintf(h->to, "    %s_lookup(%s_node%d_table, ", h->name, h->name, index);
    put_place(h, node->input[0], table_step);
    fprintf(h->to, ", %zu, %d, arena + %zu);", elements(node->shape), tables, offset_of(h, index));
}

static void put_product_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    fprintf(h->to, "    %s_product(", h->name);
    put_product_factor(h, index);
    fprintf(h->to, ", %d, %d, %d, ", (int)node->q.zero_point, (int)step.low, (int)step.high);
    for (int k = 0; k < 2; k++) {
        fprintf(h->to, "kind%d, ", node->input[k]);
        put_place(h, node->input[k], table_step);
        fprintf(h->to, ", %zu, ", elements(operand_of(h, node, k)->shape));
    }
    fprintf(h->to, "arena + %zu);", offset_of(h, index));
}

static void put_logits_call(const header *h, int from, int table_step) {
    const ptq_node *node = &h->model->node[from];
    size_t n = elements(node->shape);

    if (h->arithmetic == FIXED) {
        fputs("    memcpy(result, ", h->to);
        put_place(h, from, table_step);
        fprintf(h->to, ", %zu);", n);
        return;
    }
    fprintf(h->to, "    %s_code_logits(", h->name);
    put_place(h, from, table_step);
    fprintf(h->to, ", kind%d, 0x%08lxu, %zu, logits);", from, real_word(node->q.scale), n);
}

static void put_softmax_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];

    fprintf(h->to, "    %s_softmax(%s_node%d_power, kind%d, ", h->name, h->name, index,
            node->input[0]);
    put_place(h, node->input[0], table_step);
    fprintf(h->to, ", %zu, arena + %zu);", elements(node->shape), offset_of(h, index));
}

static void put_call(const header *h, int index, int table_step) {
    const ptq_node *node = &h->model->node[index];

    strip s;

    if (strip_plan(h, index, &s))
        put_strips_call(h, index, table_step);
    else if (node->op == PTQ_OP_CONV2D)
        put_window_call(h, index, "conv2d", table_step);
    else if (node->op == PTQ_OP_DENSE)
        put_window_call(h, index, has_codes(node) ? "dense_codes" : "dense_logits", table_step);
    else if (node->op == PTQ_OP_ADD)
        put_add_call(h, index, table_step);
    else if (node->op == PTQ_OP_CONCAT)
        put_concat_call(h, index, table_step);
    else if (node->op == PTQ_OP_RELU || node->op == PTQ_OP_RELU6)
        put_relu_call(h, index, table_step);
    else if (node->op == PTQ_OP_FUNCTION)
        put_function_call(h, index, table_step);
    else if (node->op == PTQ_OP_MUL)
        put_product_call(h, index, table_step);
    else if (node->op == PTQ_OP_SOFTMAX)
        put_softmax_call(h, index, table_step);
    else if (node->op == PTQ_OP_DEQUANTIZE)
        put_logits_call(h, node->input[0], table_step);
    else
        put_window_call(h, index, "pool2d", table_step);
    fprintf(h->to, " %s_DONE(%d); /* %s */\n", h->upper, index, node->out);
}

/* Whether the calls name the codes of a node's result. */
static int needs_kind(const header *h, int index) {
    for (int i = index + 1; i <= h->logits; i++) {
        const ptq_node *node = &h->model->node[i];

        if (node->op != PTQ_OP_ADD && node->op != PTQ_OP_RELU && node->op != PTQ_OP_RELU6 &&
            node->op != PTQ_OP_MUL && node->op != PTQ_OP_DEQUANTIZE && node->op != PTQ_OP_SOFTMAX)
            continue;
        if (node->input[0] == index || node->input[1] == index)
            return 1;
    }
    return index == h->logits && has_codes(&h->model->node[index]) && h->arithmetic != FIXED;
}

void put_run(const header *h, int table_step) {
    const ptq_node *input = &h->model->node[0];

    fprintf(h->to, "void %s_run(const uint8_t *%s, %s *%s)\n{\n", h->name, input_name(h),
            result_type(h), result_name(h));
    for (int i = h->start; i <= h->logits; i++) {
        if (!needs_kind(h, i))
            continue;
        fprintf(h->to, "    const %s_codes kind%d = ", h->name, i);
        put_code_kind(h, &h->model->node[i].q);
        fputs(";\n", h->to);
    }
    fprintf(h->to, "    uint8_t *const arena = %s_arena;\n", h->name);
    if (table_step >= 0)
        fprintf(h->to,
                "    %s_pixels(%s_node0_pixels, %d, pixels, %s_PIXELS, %d, arena + %zu); "
                "%s_DONE(0);\n",
                h->name, h->name, table_step, h->upper, input->shape[2], offset_of(h, 0), h->upper);
    for (int i = h->start + 1; i <= h->logits; i++)
        put_call(h, i, table_step);
    if (has_codes(&h->model->node[h->logits])) {
        put_logits_call(h, h->logits, table_step);
        fputc('\n', h->to);
    }
    fputs("}\n", h->to);
}
