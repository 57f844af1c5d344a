/* Convolutions in strips, in standalone headers: which layers may be computed so, how they are cut
   up, and what is written of them. The kernels stand in strips/. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "export/c_header.h"
#include "ptq.h"

/* The lines of those files, made by the Makefile: a list of strings that ends with NULL. */
static const char *const strip_lines[] = {
#include "strips.inc"
    NULL};

/* Their sections, in order; `end` of every file is one too. */
enum { OPENING, MVE = 2, DSP = 5, THUMB = 8, PLAIN = 11 };
enum { DEPTH = 14, ROWS, ALONE, SUM, SUM_MVE, SUM_OTHERS, STRIP_SUM };
enum { FOUR = 1 }; /* behind that of a form: for convolutions of each channel by itself */

/* Inputs that the buffer of rows should hold at most, 12.5 KB where they are widened; and places
   that should share weights once laid out, so that this costs little beside the products. */
enum { ROW_BUDGET = 6384, PLACES_WANTED = 128, ROW_TAIL = 16 };

/* The kernels shift sums by 8 bits in 32. */
#define SUM_LIMIT ((double)(1 << 23))
/* At least so many bits of fraction tell near ties from the rest. */
enum { SHIFT_LEAST = 7, SHIFT_MOST = 13 };

/* ---- Which layers ---- */

/* Over all inputs that there may be, the largest sum of a channel. */
static double largest_sum(const ptq_node *node, int channel) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT], *bias = &node->param[PTQ_PARAM_BIAS];
    size_t taps = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    double sum = 0;

    for (size_t i = 0; i < taps; i++)
        sum += fabs((double)ptq_tensor_number(weight, (size_t)channel * taps + i));
    return 255 * sum + (bias->rank ? fabs((double)((const int32_t *)bias->data)[channel]) : 0);
}

/* As many bits of fraction as the multipliers and results leave room for; 0: too few. */
static int choose_shift(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    double multiplier = 0, result = 0;
    int shift = SHIFT_MOST;
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    for (int o = 0; o < node->shape[2]; o++) {
        double m = (double)step.multiplier[o], sum = largest_sum(node, o);

        if (sum >= SUM_LIMIT || m <= 0)
            return 0;
        multiplier = m > multiplier ? m : multiplier;
        result = sum * m > result ? sum * m : result;
    }
    while (shift >= SHIFT_LEAST && (ldexp(multiplier, 24 + shift) >= 2147483647.0 ||
                                    ldexp(result + 256, shift) >= 2147483647.0))
        shift--;
    return shift >= SHIFT_LEAST ? shift : 0;
}

/* The sum with the residual is computed in units of 2^-20. */
static int sum_fits(const header *h, int index) {
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    return ldexp(384 * ((double)step.ratio[0] + (double)step.ratio[1]) + fabs((double)step.shift) +
                     1,
                 20) < 2147483647.0;
}

/* Dilated, or padded by as much as its kernel covers: a strip's rows lie close together. */
static int is_spread(const ptq_node *node) {
    int spread = node->dilation[0] != 1 || node->dilation[1] != 1;

    for (int i = 0; i < 4; i++)
        spread |= node->pad[i] >= node->kernel[i % 2];
    return spread;
}

/* A kernel of one place makes a row of an image that is narrower than the kernels are wide. */
static void flatten(const ptq_node *node, strip *s) {
    if (s->out[1] >= 4 || node->kernel[0] != 1 || node->kernel[1] != 1 || node->stride[0] != 1 ||
        node->stride[1] != 1 || node->pad[0] || node->pad[1])
        return;
    s->in[1] *= s->in[0];
    s->out[1] *= s->out[0];
    s->in[0] = s->out[0] = 1;
}

static int is_symmetric(const ptq_tensor *weight) {
    return weight->type == PTQ_TYPE_S8 ||
           (weight->type == PTQ_TYPE_PACKED_S && weight->zero_point == 0);
}

/* Each channel by itself, four side by side. */
static int is_depthwise(const ptq_node *node, const int *in) {
    return node->groups == in[2] && node->shape[2] == in[2] && in[2] % 4 == 0 && in[2] > 1;
}

static size_t rows_of(const ptq_node *node, const strip *s, int height) {
    return (size_t)((height - 1) * node->stride[0] + node->kernel[0]) * (size_t)s->row;
}

/* 1 if the layer can be computed in strips, with how it is cut up in *s; else 0. */
int strip_plan(const header *h, int index, strip *s) {
    const ptq_node *node = &h->model->node[index];
    const int *in = h->model->node[node->input[0]].shape, *out = node->shape;

    if (h->small || h->arithmetic == FIXED || node->op != PTQ_OP_CONV2D || is_spread(node) ||
        out[2] < 4 || (node->groups != 1 && !is_depthwise(node, in)) ||
        !is_symmetric(&node->param[PTQ_PARAM_WEIGHT]))
        return 0;
    *s = (strip){{in[0], in[1], in[2]}, {out[0], out[1], out[2]}, 1, 0, out[2], 0};
    flatten(node, s);
    s->shift = choose_shift(h, index);
    if ((s->out[1] < 4 && node->groups == 1) || !s->shift ||
        (node->residual && (out[2] % 4 || !sum_fits(h, index))))
        return 0;
    s->row = ((s->out[1] - 1) * node->stride[1] + node->kernel[1]) * in[2];
    while (s->height < s->out[0] && s->height * s->out[1] < PLACES_WANTED &&
           rows_of(node, s, s->height + 1) <= ROW_BUDGET)
        s->height++;
    if (node->residual)
        s->step = 4;
    return 1;
}

/* ---- Their buffers ---- */

static void raise(size_t *most, size_t size) {
    if (size > *most)
        *most = size;
}

static void measure_one(header *h, int index, const strip *s) {
    const ptq_node *node = &h->model->node[index];
    size_t high = (size_t)node->kernel[0], wide = (size_t)(node->kernel[1] * s->in[2]);
    strip_buffers *b = &h->strips;

    b->count++;
    raise(&b->rows, rows_of(node, s, s->height) + ROW_TAIL);
    raise(&b->mve, 1);
    raise(&b->dsp, 1);
    raise(&b->plain, 1);
    if (node->groups > 1) {
        wide = (size_t)node->kernel[1];
        raise(&b->depth, high * wide * 4);
    } else {
        raise(&b->mve, high * ((wide + 15) / 16 * 64));
        raise(&b->dsp, high * ((wide + 1) / 2 * 4));
        raise(&b->plain, high * wide * 4);
    }
    raise(&b->unpacked, node->param[PTQ_PARAM_WEIGHT].bits < 8 ? high * wide : 1);
    if (node->residual) {
        b->sums_used = 1;
        raise(&b->sums, (size_t)(4 * s->height * s->out[1]));
    } else {
        b->no_sums_used = 1;
        raise(&b->sums, 1);
    }
}

void strips_measure(header *h) {
    strip s;

    for (int i = h->start + 1; i <= h->logits; i++)
        if (strip_plan(h, i, &s))
            measure_one(h, i, &s);
}

/* Bytes in the form whose buffers are largest: Arm's DSP instructions, where inputs and weights are
   widened to 16 bits, or ARMv6-M, weights to 32. */
size_t strips_bytes(const header *h) {
    const strip_buffers *b = &h->strips;
    size_t dsp = 2 * b->rows + 4 * b->dsp, thumb = b->rows + 4 * b->plain;

    return b->count ? (dsp > thumb ? dsp : thumb) + 4 * b->depth + b->sums + b->unpacked + 32 : 0;
}

/* ---- What is written ---- */

static const struct {
    const char *condition;
    int section;
} forms[] = {
    {"#if defined(__ARM_FEATURE_MVE) && !defined(__ARM_BIG_ENDIAN)\n", MVE},
    {"#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32) && "
     "!defined(__ARM_BIG_ENDIAN)\n",
     DSP},
    {"#elif (defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)) && defined(__GNUC__)\n",
     THUMB},
    {"#else\n", PLAIN},
};

void put_strip_kernels(const header *h) {
    const strip_buffers *b = &h->strips;

    if (!b->count)
        return;
    fprintf(h->to,
            "/* Elements of buffers for the largest layer; the form that the processor takes has "
            "its own. */\n"
            "#define %s_ROWS %zu\n#define %s_MVE_FACTORS %zu\n#define %s_DSP_FACTORS %zu\n"
            "#define %s_PLAIN_FACTORS %zu\n#define %s_UNPACKED %zu\n#define %s_SUMS %zu\n\n",
            h->upper, b->rows, h->upper, b->mve, h->upper, b->dsp, h->upper, b->plain, h->upper,
            b->unpacked, h->upper, b->sums);
    put_sections(h, strip_lines, 1u << OPENING);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        fputs(forms[i].condition, h->to);
        put_sections(h, strip_lines, 1u << forms[i].section);
        if (b->depth)
            put_sections(h, strip_lines, 1u << (forms[i].section + FOUR));
    }
    fputs("#endif\n\n", h->to);
    if (b->depth) {
        fprintf(h->to, "#define %s_DEPTH %zu\n\n", h->upper, b->depth);
        put_sections(h, strip_lines, 1u << DEPTH);
    }
    put_sections(h, strip_lines,
                 1u << ROWS | (b->no_sums_used ? 1u << ALONE : 0) | (b->sums_used ? 1u << SUM : 0));
    if (!b->sums_used)
        return;
    fputs(forms[0].condition, h->to);
    put_sections(h, strip_lines, 1u << SUM_MVE);
    fputs("#else\n", h->to);
    put_sections(h, strip_lines, 1u << SUM_OTHERS);
    fputs("#endif\n\n", h->to);
    put_sections(h, strip_lines, 1u << STRIP_SUM);
}

void put_strip(const header *h, int index, const strip *s) {
    int deep = h->model->node[index].groups > 1;

    fprintf(h->to, "static const %s_strip %s_strip%d = {&%s_node%d, %s_put_%s, %d, %d, %d, %d};\n",
            h->name, h->name, index, h->name, index, h->name, deep ? "depth" : "weights", s->height,
            s->row, s->step, s->shift);
    fprintf(h->to,
            "%s_APART void %s_group%d(int height, uint8_t *y, int channel)\n{\n"
            "    %s_%sgroup(&%s_strip%d, height, y, channel);\n}\n\n",
            h->upper, h->name, index, h->name, deep ? "depth_" : "", h->name, index);
}
