/* Headers that do without ptq.h, for ptq export --c-header --standalone: tables of a quantized
   network's weights, copies of the kernels in standalone_kernels.h that it needs, and a function
   that calls them one after the other. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/c_header.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/islands.h"
#include "shared/output.h"

/* Sections of standalone_kernels.h, in its order, and those that each needs besides itself. */
#define SECTIONS(X)                                                                                \
    X(reals, 0)                                                                                    \
    X(nearest, 0)                                                                                  \
    X(clamp, 0)                                                                                    \
    X(factor, 0)                                                                                   \
    X(requantize, USES(nearest) | USES(clamp))                                                     \
    X(logits, USES(reals) | USES(codes))                                                           \
    X(codes, 0)                                                                                    \
    X(pixels, 0)                                                                                   \
    X(weights, 0)                                                                                  \
    X(accumulate, USES(weights))                                                                   \
    X(s8, USES(weights))                                                                           \
    X(u8, USES(weights))                                                                           \
    X(s4, USES(weights))                                                                           \
    X(packed, USES(weights))                                                                       \
    X(fma, 0)                                                                                      \
    X(adder, 0)                                                                                    \
    X(add, USES(adder) | USES(fma) | USES(nearest) | USES(clamp))                                  \
    X(add_layer, USES(add))                                                                        \
    X(conv, USES(adder) | USES(requantize))                                                        \
    X(conv_any, USES(conv) | USES(add) | USES(accumulate))                                         \
    X(dense, USES(accumulate))                                                                     \
    X(dense_codes, USES(dense) | USES(requantize))                                                 \
    X(dense_logits, USES(dense))                                                                   \
    X(code_logits, 0)                                                                              \
    X(window, 0)                                                                                   \
    X(maximum, USES(window))                                                                       \
    X(whole_average, USES(window) | USES(requantize))                                              \
    X(average, USES(window) | USES(fma) | USES(nearest) | USES(clamp))                             \
    X(relu, USES(clamp))                                                                           \
    X(concat, 0)                                                                                   \
    X(lookup, 0)                                                                                   \
    X(product, USES(fma) | USES(nearest) | USES(clamp))                                            \
    X(softmax, 0)

#define USES(section) ((uint64_t)1 << SECTION_##section)

enum {
#define X(name, needs) SECTION_##name,
    SECTIONS(X)
#undef X
        SECTION_COUNT
};

/* What those of other arithmetics need instead. */
static const struct {
    int section;
    arithmetic of;
    uint64_t needs;
} others[] = {
    {SECTION_requantize, FIXED, USES(factor) | USES(clamp)},
    {SECTION_weights, FIXED, USES(factor)},
    {SECTION_adder, FIXED, USES(factor)},
    {SECTION_add, FIXED, USES(adder) | USES(requantize)},
    {SECTION_add, XNNPACK, USES(adder) | USES(clamp)},
    {SECTION_average, FIXED, USES(window) | USES(clamp)},
    {SECTION_average, XNNPACK, USES(window) | USES(clamp)},
    {SECTION_product, FIXED, USES(requantize)},
    {SECTION_product, XNNPACK, USES(requantize)},
};

/* ---- Numbers ---- */

void begin_table(header *h, const char *type, int node, const char *what, size_t count,
                 size_t bytes) {
    fprintf(h->to, "static const %s %s_node%d_%s[%zu] = {\n", type, h->name, node, what, count);
    h->column = 0;
    h->constants += bytes;
}

void end_table(header *h) { fputs("\n};\n", h->to); }
/* ---- Which models ---- */

/* With what would help, which is never to do again what was done. */
static int refuse_node(const ptq_node *node, const char *why, const char *remedy) {
    return fail("node %s (%s) %s, which --standalone cannot write; %s, or leave out --standalone",
                node->name, ptq_name(PTQ_NAMES_OP, node->op), why, remedy);
}

/* Only the logits, straight from a dense layer or through their own border, may be real numbers. */
static int check_node(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];

    if (has_codes(node))
        return index == 0 || has_codes(operand_of(h, node, 0))
                   ? 0
                   : refuse_node(node, "makes codes of real numbers", "let pixels be its input");
    if (h->arithmetic == FIXED)
        return refuse_node(node, "has a result of real numbers", "quantize with --code-logits");
    if (index != h->logits || (node->op != PTQ_OP_DENSE && node->op != PTQ_OP_DEQUANTIZE))
        return refuse_node(node, "has a result of real numbers", "let it be the last node");
    if (node->op == PTQ_OP_DENSE && node->act != PTQ_ACTIVATION_NONE)
        return refuse_node(node, "has logits with an activation", "quantize with --code-logits");
    return 0;
}

/* Real numbers, of which the first node makes codes: the program that calls has to bring these. */
static int find_start(const ptq_model *model) {
    return model->node[0].real && model->nodes > 1 && model->node[1].op == PTQ_OP_QUANTIZE;
}

static int check_model(header *h) {
    h->logits = result_of(h);
    h->start = find_start(h->model);
    /* The node that is to blame, not the borders around it; the input last. */
    for (int i = h->start + 1; i <= h->logits; i++) {
        const ptq_node *node = &h->model->node[i];
        const char *remedy = island_remedy(node->op);

        if (is_island(h->model, i))
            return refuse_node(node, "computes on real numbers",
                               remedy ? remedy
                                      : "quantize it to integers, without a --node that asks for "
                                        "real numbers");
    }
    for (int i = h->start + 1; i <= h->logits + !h->start; i++)
        if (check_node(h, i <= h->logits ? i : 0))
            return 1;
    return h->logits > h->start ? 0 : fail("the model has no operator before its softmax");
}

/* ---- What it needs ---- */

/* The kernel that reads such weights, and its section. */
static const char *dot_of(const ptq_tensor *weight, uint64_t *section) {
    if (weight->type == PTQ_TYPE_S8)
        return *section = USES(s8), "s8";
    if (weight->type == PTQ_TYPE_U8)
        return *section = USES(u8), "u8";
    if (weight->type == PTQ_TYPE_PACKED_S && weight->bits == 4)
        return *section = USES(s4), "s4";
    return *section = USES(packed), "packed";
}

static uint64_t sections_of(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    uint64_t dot = 0;
    strip s;

    if (strip_plan(h, index, &s))
        return USES(conv) | USES(weights) | (node->residual ? USES(add) : 0);
    if (node->param[PTQ_PARAM_WEIGHT].rank)
        dot_of(&node->param[PTQ_PARAM_WEIGHT], &dot);
    switch (node->op) {
    case PTQ_OP_CONV2D:
        return USES(conv_any) | dot;
    case PTQ_OP_DENSE:
        return (has_codes(node) ? USES(dense_codes) : USES(dense_logits)) | dot;
    case PTQ_OP_ADD:
        return USES(add_layer);
    case PTQ_OP_RELU:
    case PTQ_OP_RELU6:
        return USES(relu);
    case PTQ_OP_MAX_POOL:
    case PTQ_OP_GLOBAL_MAX_POOL:
        return USES(maximum);
    case PTQ_OP_CONCAT:
        return USES(concat);
    case PTQ_OP_AVG_POOL:
        return USES(average);
    case PTQ_OP_GLOBAL_AVG_POOL:
        return USES(whole_average);
    case PTQ_OP_FUNCTION:
        return USES(lookup);
    case PTQ_OP_MUL:
        return USES(product);
    case PTQ_OP_SOFTMAX:
        return USES(softmax);
    default:
        return 0;
    }
}

static uint64_t needs_of(const header *h, int section) {
    static const uint64_t needs[] = {
#define X(name, needs) needs,
        SECTIONS(X)
#undef X
    };

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i].section == section && others[i].of == h->arithmetic)
            return others[i].needs;
    return needs[section];
}

static uint64_t with_needs(const header *h, uint64_t sections) {
    uint64_t before = 0;

    while (sections != before) {
        before = sections;
        for (int i = 0; i < SECTION_COUNT; i++)
            if (before >> i & 1)
                sections |= needs_of(h, i);
    }
    return sections;
}

/* Weights of one output channel: the inputs that one result is computed from. */
static size_t taps_of(const ptq_node *node) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];

    return ptq_tensor_elements(weight) / (size_t)weight->dim[0];
}

static void measure(header *h) {
    strip s;

    strips_measure(h);
    h->sections = h->arithmetic == FIXED ? USES(codes) : USES(logits);
    for (int i = 2 * h->start; i <= h->logits; i++) { /* codes that are brought lie elsewhere */
        const ptq_node *node = &h->model->node[i];
        ptq_step_info step;

        ptq_plan_step(h->plan, i, &step);
        if (has_codes(node) && step.offset + elements(node->shape) > h->arena)
            h->arena = step.offset + elements(node->shape);
        if (node->param[PTQ_PARAM_WEIGHT].rank && taps_of(node) > h->patch && !strip_plan(h, i, &s))
            h->patch = taps_of(node);
        h->sections |= sections_of(h, i);
    }
    if (h->arithmetic == FIXED)
        h->sections |= h->model->node[h->logits].op == PTQ_OP_SOFTMAX ? USES(softmax) : 0;
    else if (has_codes(&h->model->node[h->logits]) ||
             h->model->node[h->logits].op == PTQ_OP_DEQUANTIZE)
        h->sections |= USES(code_logits);
    h->sections = with_needs(h, h->sections);
}
/* ---- Tables ---- */

/* The element of an O,I,H,W tensor that is number `at` of its output channel in the order H,W,I, in
   which the inputs lie. */
static size_t exchange_index(const ptq_tensor *weight, size_t channel, size_t at) {
    size_t inputs = (size_t)weight->dim[1], area = (size_t)weight->dim[2] * (size_t)weight->dim[3];

    return (channel * inputs + at % inputs) * area + at / inputs;
}

/* `weight` rows of codes, packed ones least significant bits first. */
static void put_codes(header *h, const ptq_tensor *weight, size_t taps) {
    for (size_t channel = 0; channel < (size_t)weight->dim[0]; channel++) {
        uint32_t window = 0;
        int held = 0;

        for (size_t at = 0; at < taps; at++) {
            int code = (int)ptq_tensor_number(weight, exchange_index(weight, channel, at));

            if (weight->bits == 8) {
                put_number(h, code);
                continue;
            }
            window |= ((uint32_t)code & ((1u << weight->bits) - 1)) << held;
            held += weight->bits;
            for (; held >= 8; held -= 8, window >>= 8)
                put_number(h, (long)(window & 255));
        }
        if (held > 0)
            put_number(h, (long)(window & 255));
    }
}

static size_t channel_bytes(const ptq_node *node) {
    return (taps_of(node) * (size_t)node->param[PTQ_PARAM_WEIGHT].bits + 7) / 8;
}

static void put_weight_table(header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t bytes = (size_t)weight->dim[0] * channel_bytes(node);

    begin_table(h, weight->type == PTQ_TYPE_S8 ? "int8_t" : "uint8_t", index, "weight", bytes,
                bytes);
    put_codes(h, weight, taps_of(node));
    end_table(h);
}

static void put_weighted_tables(header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    const ptq_tensor *bias = &node->param[PTQ_PARAM_BIAS];
    size_t channels = (size_t)node->shape[2];

    put_weight_table(h, index);
    if (bias->rank) {
        begin_table(h, "int32_t", index, "bias", channels, 4 * channels);
        for (size_t i = 0; i < channels; i++)
            put_number(h, ((const int32_t *)bias->data)[i]);
        end_table(h);
    }
    put_multipliers(h, index);
}

/* {dot, code, channel_bytes, bits, flip, zero_point, bias, multiplier} */
static void put_weights(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    uint64_t section;
    const char *dot = dot_of(weight, &section);
    strip s;
    int flip = weight->type == PTQ_TYPE_PACKED_S ? 1 << (weight->bits - 1) : 0;

    if (strip_plan(h, index, &s)) /* these kernels know what they do */
        fputs("    {NULL", h->to);
    else
        fprintf(h->to, "    {%s_dot_%s", h->name, dot);
    fprintf(h->to, ", %s_node%d_weight, %zu, %d, %d, %d,\n     ", h->name, index,
            channel_bytes(node), weight->bits, flip, (int)weight->zero_point);
    if (node->param[PTQ_PARAM_BIAS].rank)
        fprintf(h->to, "%s_node%d_bias", h->name, index);
    else
        fputs("NULL", h->to);
    fprintf(h->to, ", %s_node%d_multiplier},\n", h->name, index);
}

/* {flip, zero_point} */
void put_code_kind(const header *h, const ptq_qparams *q) {
    fprintf(h->to, "{%d, %d}", q->type == PTQ_TYPE_S8 ? 128 : 0, (int)q->zero_point);
}

static void put_shapes(const header *h, const int *in, const int *out) {
    fprintf(h->to, "    {%d, %d, %d}, {%d, %d, %d}, /* height, width, channels: in, out */\n",
            in[0], in[1], in[2], out[0], out[1], out[2]);
}

static void put_conv(header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    const ptq_qparams *own = node->residual ? &node->mid : &node->q;
    const ptq_qparams none = {PTQ_TYPE_F32, 0, 0, 0};
    ptq_step_info step;
    strip s;
    int in_strips = strip_plan(h, index, &s);

    put_weighted_tables(h, index);
    ptq_plan_step(h->plan, index, &step);
    fprintf(h->to, "static const %s_conv %s_node%d = {\n", h->name, h->name, index);
    put_weights(h, index);
    fputs("    ", h->to);
    put_code_kind(h, &operand_of(h, node, 0)->q);
    fprintf(h->to, ", %d, %d, %d, /* codes: in, zero point and clamp of the result */\n    ",
            (int)own->zero_point, (int)step.low, (int)step.high);
    put_code_kind(h, node->residual ? &operand_of(h, node, 1)->q : &none);
    fprintf(h->to, ", %d, ", node->residual == PTQ_RESIDUAL_FIRST);
    put_adder(h, index);
    fputs(", /* residual */\n", h->to);
    if (in_strips)
        put_shapes(h, s.in, s.out);
    else
        put_shapes(h, operand_of(h, node, 0)->shape, node->shape);
    fprintf(h->to,
            "    {%d, %d}, {%d, %d}, {%d, %d}, {%d, %d}, %d, /* kernel, stride, padding, dilation, "
            "groups */\n};\n\n",
            node->kernel[0], node->kernel[1], node->stride[0], node->stride[1], node->pad[0],
            node->pad[1], node->dilation[0], node->dilation[1], node->groups);
    if (in_strips)
        put_strip(h, index, &s);
}

static void put_dense(header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    ptq_step_info step;

    put_weighted_tables(h, index);
    ptq_plan_step(h->plan, index, &step);
    fprintf(h->to, "static const %s_dense %s_node%d = {\n", h->name, h->name, index);
    put_weights(h, index);
    fputs("    ", h->to);
    put_code_kind(h, &operand_of(h, node, 0)->q);
    fprintf(h->to, ", %d, %d, %d,\n    %zu, %d, /* inputs, outputs */\n};\n\n",
            (int)node->q.zero_point, (int)step.low, (int)step.high, taps_of(node), node->shape[2]);
}

static void put_addition(header *h, int index) {
    fprintf(h->to, "static const %s_adder %s_node%d = ", h->name, h->name, index);
    put_adder(h, index);
    fputs(";\n\n", h->to);
}

static void put_pool(header *h, int index) {
    const ptq_node *node = &h->model->node[index], *from = operand_of(h, node, 0);
    int global = node->op == PTQ_OP_GLOBAL_AVG_POOL || node->op == PTQ_OP_GLOBAL_MAX_POOL;
    int maximum = node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_GLOBAL_MAX_POOL;
    const int *kernel = global ? from->shape : node->kernel;
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    fprintf(h->to, "static const %s_pool %s_node%d = {\n    %s_%s, ", h->name, h->name, index,
            h->name,
            maximum  ? "maximum"
            : global ? "whole_average"
                     : "average");
    put_code_kind(h, &from->q);
    fprintf(h->to, ", %d, %d, %d,\n", (int)node->q.zero_point, (int)step.low, (int)step.high);
    put_shapes(h, from->shape, node->shape);
    fprintf(h->to, "    {%d, %d}, {%d, %d}, {%d, %d}, /* kernel, stride, padding */\n", kernel[0],
            kernel[1], global ? 1 : node->stride[0], global ? 1 : node->stride[1],
            global ? 0 : node->pad[0], global ? 0 : node->pad[1]);
    fprintf(h->to, "    {%d, %d}, ", node->include_pad ? from->shape[0] + node->pad[2] : 0,
            node->include_pad ? from->shape[1] + node->pad[3] : 0);
    put_pool_scales(h, index);
    fputs(",\n};\n\n", h->to);
}

/* Whether operand k of a concat has the result's codes already. */
int keeps_codes(const uint8_t *recode, int k) {
    for (int i = 0; i < 256; i++)
        if (recode[256 * k + i] != i)
            return 0;
    return 1;
}

/* A table for each operand whose codes change. */
static void put_concat(header *h, int index) {
    static const char *const name[] = {"first", "second"};
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    for (int k = 0; k < 2; k++) {
        if (keeps_codes(step.recode, k))
            continue;
        begin_table(h, "uint8_t", index, name[k], 256, 256);
        for (int i = 0; i < 256; i++)
            put_number(h, step.recode[256 * k + i]);
        end_table(h);
    }
}

/* The codes of all pixel values for each channel of the input; 1 if a pixel is its own code. */
static int make_pixel_table(const header *h, uint8_t *table) {
    const ptq_node *input = &h->model->node[0];
    size_t n = elements(input->shape), channels = (size_t)input->shape[2];
    uint8_t *pixels = malloc(n);
    float *reals = malloc(n * sizeof *reals);
    int same = pixels && reals ? input->q.type == PTQ_TYPE_U8 : -1;

    for (int value = 0; value < 256 && same >= 0; value++) {
        memset(pixels, value, n);
        ptq_preprocess(h->model, pixels, reals);
        for (size_t c = 0; c < channels; c++) {
            int32_t code = ptq_quantize(reals[c], &input->q);

            table[256 * c + (size_t)value] = (uint8_t)code;
            same = same && code == value;
        }
    }
    free(pixels);
    free(reals);
    return same;
}

/* Sets *step to 256, or to 0 where one table serves all channels, or to -1 where none is needed. */
static int put_pixel_table(header *h, int *step) {
    size_t channels = (size_t)h->model->node[0].shape[2], count = 256 * channels;
    uint8_t *table = malloc(count);
    int same = table ? make_pixel_table(h, table) : -1;

    *step = 0;
    for (size_t c = 1; c < channels && same >= 0; c++)
        if (memcmp(table, table + 256 * c, 256) != 0)
            *step = 256;
    if (same == 1)
        *step = -1;
    if (same == 0) {
        count = *step ? count : 256;
        begin_table(h, "uint8_t", 0, "pixels", count, count);
        for (size_t i = 0; i < count; i++)
            put_number(h, table[i]);
        end_table(h);
        fputc('\n', h->to);
        h->sections |= USES(pixels);
    }
    free(table);
    return same < 0 ? fail("no memory for a table of pixels") : 0;
}

/* How many tables a function has: prelu one for each channel. */
int tables_of(const ptq_node *node) {
    return node->param[PTQ_PARAM_WEIGHT].rank ? node->shape[2] : 1;
}

static void put_function(header *h, int index) {
    size_t count = 256 * (size_t)tables_of(&h->model->node[index]);
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    begin_table(h, "uint8_t", index, "table", count, count);
    for (size_t i = 0; i < count; i++)
        put_number(h, step.table[i]);
    end_table(h);
    fputc('\n', h->to);
}

static void put_node_constants(header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    uint64_t sections = with_needs(h, sections_of(h, index));

    if (sections & (USES(conv) | USES(dense_codes) | USES(dense_logits) | USES(window) |
                    USES(add_layer) | USES(concat) | USES(lookup) | USES(softmax)))
        fprintf(h->to, "/* %s */\n", node->name);
    if (node->op == PTQ_OP_CONV2D)
        put_conv(h, index);
    else if (node->op == PTQ_OP_DENSE)
        put_dense(h, index);
    else if (node->op == PTQ_OP_ADD)
        put_addition(h, index);
    else if (node->op == PTQ_OP_CONCAT)
        put_concat(h, index);
    else if (node->op == PTQ_OP_FUNCTION)
        put_function(h, index);
    else if (node->op == PTQ_OP_SOFTMAX)
        put_powers(h, index);
    else if (sections & USES(window))
        put_pool(h, index);
}
/* ---- Standalone ---- */

static const char *const standalone_opening[] = {
    "\n",
    "   It needs a C compiler that has <stdint.h>, or a C++ one: no library, no heap, no "
    "floating-point unit.\n",
    "   In exactly one file write\n",
    "\n",
    "       #define NET_IMPLEMENTATION\n",
    "       #include \"net_.h\"\n",
    "\n",
    "   and everywhere else only the #include. Then\n",
    "\n",
    NULL};

static const char *const standalone_logits[] = {
    "   The memory is static: one call at a time. Logits are the same bytes on every processor.\n",
    NULL};
static const char *const standalone_codes[] = {
    "   A code stands for NET_RESULT_SCALE * (code - NET_RESULT_ZERO_POINT). The memory is static: "
    "one\n",
    "   call at a time. Nothing is computed in real numbers; codes are the same on every "
    "processor.\n",
    NULL};
static const char *const standalone_closing[] = {
    "   Written by \"ptq export --c-header --standalone\" (" PTQ_VERSION "). */\n", NULL};

/* A network that takes real numbers computes on none, so it takes their codes. */
static const char *const standalone_coding[] = {
    "   The code of a real number x of channel c, both steps in single precision, is\n",
    "       y = (x - mean[c]) / std[c]\n",
    "       y / NET_INPUT_SCALE rounded to nearest, half to even, + NET_INPUT_ZERO_POINT,\n",
    "   at least NET_INPUT_LOW and at most NET_INPUT_HIGH; a negative one as its two's "
    "complement.\n",
    NULL};

static void put_program(const header *h) {
    int fixed = h->arithmetic == FIXED;

    fprintf(h->to,
            "       static uint8_t %s[%s_PIXELS]; // rows, columns, channels\n"
            "       %s %s[%s_CLASSES];\n"
            "       %s_run(%s, %s);           // the largest %s is the answer\n\n",
            input_name(h), h->upper, result_type(h), result_name(h), h->upper, h->name,
            input_name(h), result_name(h), fixed ? "code" : "logit");
    if (h->start) {
        put_lines(h, standalone_coding);
        fprintf(h->to, "   With %smean[] = %s_INPUT_MEAN, std[] = %s_INPUT_STD.\n",
                fixed ? "" : "float ", h->upper, h->upper);
    }
    put_lines(h, fixed ? standalone_codes : standalone_logits);
}

static void put_api(const header *h) {
    fprintf(h->to,
            "\n#ifdef __cplusplus\nextern \"C\"\n#endif\n"
            "/* From %s_PIXELS %s to %s_CLASSES %s. */\n"
            "void %s_run(const uint8_t *%s, %s *%s);\n",
            h->upper, h->start ? "codes" : "bytes", h->upper,
            h->arithmetic == FIXED ? "codes" : "logits", h->name, input_name(h), result_type(h),
            result_name(h));
}

/* What a firmware that measures puts between the nodes. */
static const char *const standalone_done[] = {
    "/* Called after each node; a program may define it to read a counter of cycles. */\n",
    "#ifndef NET_DONE\n",
    "#define NET_DONE(node)\n",
    "#endif\n",
    "\n",
    NULL};

/* As C has it: "1f" is no number. */
static void put_float(const header *h, float value) {
    char text[32];

    snprintf(text, sizeof text, "%.9g", (double)value);
    fprintf(h->to, "%s%sf", text, strpbrk(text, ".e") ? "" : ".0");
}

static void put_channels(const header *h, const char *what, const float *values) {
    const ptq_node *input = &h->model->node[0];

    fprintf(h->to, "#define %s_INPUT_%s {", h->upper, what);
    for (int c = 0; c < input->shape[2]; c++) {
        fputs(c ? ", " : "", h->to);
        put_float(h, c < PTQ_MAX_PIXEL_CHANNELS ? values[c] : *what == 'S' ? 1.0f : 0.0f);
    }
    fputs("}\n", h->to);
}

/* How codes are made of real numbers. */
static void put_coding(const header *h) {
    const ptq_qparams *q = &h->model->node[h->start].q;
    int32_t low, high;

    ptq_code_range(q->type, q->bits, &low, &high);
    fprintf(h->to, "#define %s_INPUT_SCALE ", h->upper);
    put_float(h, q->scale);
    fprintf(h->to, "\n#define %s_INPUT_ZERO_POINT (%d)\n", h->upper, (int)q->zero_point);
    fprintf(h->to, "#define %s_INPUT_LOW (%d)\n#define %s_INPUT_HIGH %d\n", h->upper, (int)low,
            h->upper, (int)high);
    put_channels(h, "MEAN", h->model->mean);
    put_channels(h, "STD", h->model->std);
}

static void put_kernels(const header *h) {
    static const char *const name[] = {
#define X(name, needs) #name,
        SECTIONS(X)
#undef X
    };

    for (int i = 0; i < SECTION_COUNT; i++)
        if (h->sections >> i & 1)
            put_kernel(h, name[i]);
}

/* The tables into memory first: the comment at the top tells their size, and which sections are
   needed is known only then. */
static int make_tables(header *h, char **text, int *table_step) {
    size_t size;
    int status;

    *text = NULL;
    h->to = open_memstream(text, &size);
    if (!h->to)
        return fail("no memory for the tables");
    status = h->start ? 0 : put_pixel_table(h, table_step);
    h->flash[0] = h->constants;
    h->pixels_in_place = *table_step < 0;
    for (int i = h->start + 1; i <= h->logits && !status; i++) {
        h->flash[i] = h->constants;
        put_node_constants(h, i);
        h->flash[i] = h->constants - h->flash[i];
    }
    return fclose(h->to) || status ? fail("no memory for the tables") : 0;
}

/* What its results stand for. */
static void put_result_coding(const header *h) {
    const ptq_qparams *q = &h->model->node[h->logits].q;

    fprintf(h->to, "#define %s_RESULT_SCALE ", h->upper);
    put_float(h, q->scale);
    fprintf(h->to, "\n#define %s_RESULT_ZERO_POINT (%d)\n", h->upper, (int)q->zero_point);
}

static int put_standalone(header *h, FILE *to, const char *tables, int table_step) {
    size_t patch = 2 * h->patch, strips = strips_bytes(h);

    h->to = to;
    put_head(h, "a quantized network in plain C");
    fprintf(to, "     constants (flash): %zu bytes, and the code\n", h->constants);
    fprintf(to, "     memory (RAM): %zu bytes: arena %zu, inputs of one result %zu",
            h->arena + patch + strips, h->arena, patch);
    if (strips)
        fprintf(to, ",\n       strips %zu, on the processors that need the most for them", strips);
    fputc('\n', to);
    put_lines(h, standalone_opening);
    put_program(h);
    put_lines(h, standalone_closing);
    put_guard(h, "#include <stdint.h>\n");
    put_sizes(h, h->arena + patch + strips);
    if (h->start)
        put_coding(h);
    if (h->arithmetic == FIXED)
        put_result_coding(h);
    put_api(h);
    put_test_api(h);
    put_middle(h);
    fputs("#include <limits.h>\n#include <stddef.h>\n#include <string.h>\n\n", to);
    put_kernels(h);
    put_strip_kernels(h);
    fprintf(to, "/* ---- The network ---- */\n\n%s", tables);
    fprintf(to, "static uint8_t %s_arena[%zu];\n", h->name, h->arena);
    if (h->patch)
        fprintf(to, "static int16_t %s_patch[%zu];\n", h->name, h->patch);
    fputc('\n', to);
    put_lines(h, standalone_done);
    put_run(h, table_step);
    if (h->test && put_test(h))
        return 1;
    put_end(h);
    return 0;
}

int write_standalone(header *h, const header_form *form, FILE *to) {
    int table_step = -1, status;
    char *tables;

    h->arithmetic = arithmetic_of(h->model);
    if (check_model(h))
        return 1;
    h->flash = calloc((size_t)h->model->nodes, sizeof *h->flash);
    if (!h->flash)
        return fail("no memory for the sizes of the nodes");
    measure(h);
    status = make_tables(h, &tables, &table_step) || budget_check(h, form) ||
             put_standalone(h, to, tables, table_step);
    free(tables);
    return status;
}
