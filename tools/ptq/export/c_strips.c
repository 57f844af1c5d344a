/* Convolutions in strips, in standalone headers: which layers may be computed so, how they are cut
   up, and what is written of them. The kernels stand in strips/. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/c_header.h"
#include "ptq.h"

/* The lines of those files, made by the Makefile: a list of strings that ends with NULL. */
static const char *const strip_lines[] = {
#include "strips.inc"
    NULL};

/* Inputs that the buffer of rows should hold at most, 12.5 KB where they are widened; and places
   that should share weights once laid out, so that this costs little beside the products. */
enum { ROW_BUDGET = 6384, PLACES_WANTED = 128, ROW_TAIL = 16 };

/* The same with --small: as many as two places of the widest layer of ResNet8 need. */
enum { SMALL_BUDGET = 768 };

/* The kernels shift sums by 8 bits in 32. */
#define SUM_LIMIT ((double)(1 << 23))
/* At least so many bits of fraction tell near ties from the rest. */
enum { SHIFT_LEAST = 7, SHIFT_MOST = 13 };

/* ---- Which layers ---- */

/* Over all inputs that there may be, the largest sum of a channel, without its bias. */
static double largest_sum(const ptq_node *node, int channel) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t taps = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    double sum = 0;

    for (size_t i = 0; i < taps; i++)
        sum += fabs((double)ptq_tensor_number(weight, (size_t)channel * taps + i));
    return 255 * sum;
}

/* As many bits of fraction as the multipliers and results leave room for; 0: too few. `fixed` has
   its own rounding, and needs none. */
static int choose_shift(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    const ptq_tensor *bias = &node->param[PTQ_PARAM_BIAS];
    double multiplier = 0, result = 0;
    int shift = SHIFT_MOST;
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    for (int o = 0; o < node->shape[2]; o++) {
        double m = h->arithmetic == FIXED ? 0 : (double)step.multiplier[o];
        double sum = largest_sum(node, o);

        if (sum >= SUM_LIMIT || (m <= 0 && h->arithmetic != FIXED))
            return 0;
        sum += bias->rank ? fabs((double)((const int32_t *)bias->data)[o]) : 0;
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

/* As many rows as the buffer holds, but no more than share the weights well. */
static void cut_rows(const ptq_node *node, strip *s) {
    s->width = s->out[1];
    s->row = ((s->width - 1) * node->stride[1] + node->kernel[1]) * s->in[2];
    while (s->height < s->out[0] && s->height * s->width < PLACES_WANTED &&
           rows_of(node, s, s->height + 1) <= ROW_BUDGET)
        s->height++;
    s->step = node->residual ? 4 : s->out[2];
}

/* With --small: as many places of one row as the buffer holds, in twos. */
static void cut_places(const ptq_node *node, strip *s) {
    int place = node->stride[1] * s->in[2], first = node->kernel[1] * s->in[2];

    s->width = s->out[1] < 2 ? 1 : 2;
    while (s->width < s->out[1] &&
           node->kernel[0] * (first + (s->width + 1) * place) <= SMALL_BUDGET)
        s->width += 2;
    if (s->width > s->out[1])
        s->width = s->out[1];
    s->row = first + (s->width - 1) * place;
    s->step = node->residual ? 2 : s->out[2];
}

/* 1 if the layer can be computed in strips, with how it is cut up in *s; else 0. */
int strip_plan(const header *h, int index, strip *s) {
    const ptq_node *node = &h->model->node[index];
    const int *in = h->model->node[node->input[0]].shape, *out = node->shape;
    int deep = node->groups != 1;

    if (node->op != PTQ_OP_CONV2D || is_spread(node) || out[2] < 4 ||
        (deep && !is_depthwise(node, in)) || !is_symmetric(&node->param[PTQ_PARAM_WEIGHT]))
        return 0;
    *s = (strip){{in[0], in[1], in[2]}, {out[0], out[1], out[2]}, 1, 0, 0, 0, 0};
    flatten(node, s);
    s->shift = choose_shift(h, index);
    if (!s->shift || (s->out[1] < 4 && !deep && !h->small) ||
        (node->residual && (out[2] % 4 || !sum_fits(h, index) || (deep && h->small))))
        return 0;
    if (h->small)
        cut_places(node, s);
    else
        cut_rows(node, s);
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
    if (node->groups == 1 || !h->small) /* with --small those read inputs where they lie */
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
        raise(&b->sums, (size_t)(s->step * s->height * s->width));
    } else {
        b->no_sums_used |= node->groups == 1 || !h->small;
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
    size_t most = dsp > thumb ? dsp : thumb, rooms = h->small ? 2 : 1;
    size_t four = h->arithmetic == FIXED ? 16 : 48; /* net_four */

    if (!b->count)
        return 0;
    if (h->small)
        most = 2 * b->rows;
    return most + 4 * b->depth + b->sums + rooms * b->unpacked + four;
}

/* ---- What is written ---- */

/* Sections, and lines between them, to the next NULL. */
static const char *const large[] = {"rounding",
                                    "unrolled",
                                    "#if defined(NET_MVE)\n",
                                    "mve",
                                    "mve_code",
                                    "mve_places",
                                    "#elif defined(NET_DSP)\n",
                                    "wide",
                                    "dsp_rows",
                                    "dsp",
                                    "dsp_code",
                                    "dsp_places",
                                    "#else\n",
                                    "bytes",
                                    "#endif\n\n",
                                    "#if defined(NET_MVE) || defined(NET_DSP)\n",
                                    "pairs",
                                    "#elif defined(NET_THUMB)\n",
                                    "thumb_code",
                                    "thumb",
                                    "#else\n",
                                    "code",
                                    "plain",
                                    "#endif\n\n",
                                    "strip_rows",
                                    "channels",
                                    NULL};
static const char *const large_depth[] = {"#if defined(NET_MVE)\n",
                                          "mve_four",
                                          "#elif defined(NET_DSP)\n",
                                          "dsp_four",
                                          "#else\n",
                                          "bytes_four",
                                          "#endif\n\n",
                                          "depth",
                                          "depth_rows",
                                          NULL};
static const char *const large_alone[] = {"strip_alone", NULL};
static const char *const large_sum[] = {"sum",        "sum_room",   "#if defined(NET_MVE)\n",
                                        "sum_mve",    "#else\n",    "sum_code",
                                        "sum_others", "#endif\n\n", "strip_sum",
                                        NULL};

static const char *const small[] = {"rounding",   "code",     "wide",       "#ifdef NET_DSP\n",
                                    "dsp_rows",   "#else\n",  "small_rows", "#endif\n\n",
                                    "strip_rows", "channels", NULL};
static const char *const small_depth[] = {"depth", "small_depth", NULL};
static const char *const small_squares[] = {"#if defined(NET_MVE)\n",
                                            "small_mve",
                                            "#else\n",
                                            "small_squares",
                                            "#endif\n",
                                            "#if defined(NET_DSP)\n",
                                            "small_dsp",
                                            "#else\n",
                                            "small_others",
                                            "#endif\n\n",
                                            "small",
                                            NULL};
static const char *const small_alone[] = {"small_alone", NULL};
static const char *const small_sum[] = {"sum", "sum_room", "sum_code", "small_sum", NULL};

/* In the arithmetic `fixed` that of the name with "_fixed" behind, where there is one; what ARMv6-M
   does on its own to round is not needed there. */
static void put_part(const header *h, const char *name) {
    char own[64];

    snprintf(own, sizeof own, "%s_fixed", strcmp(name, "thumb_code") ? name : "code");
    if (h->arithmetic != FIXED || !put_section(h, strip_lines, own))
        put_section(h, strip_lines, name);
}

static void put_parts(const header *h, const char *const *part) {
    for (; *part; part++) {
        const char *const line[] = {*part, NULL};

        if (**part == '#')
            put_lines(h, line);
        else
            put_part(h, *part);
    }
}

static void put_large(const header *h) {
    const strip_buffers *b = &h->strips;

    fprintf(h->to,
            "#define %s_MVE_FACTORS %zu\n#define %s_DSP_FACTORS %zu\n"
            "#define %s_PLAIN_FACTORS %zu\n\n",
            h->upper, b->mve, h->upper, b->dsp, h->upper, b->plain);
    put_section(h, strip_lines, "opening");
    put_parts(h, large);
    if (b->depth)
        put_parts(h, large_depth);
    put_section(h, strip_lines, "grouped");
    if (b->no_sums_used)
        put_parts(h, large_alone);
    if (b->sums_used)
        put_parts(h, large_sum);
}

static void put_small(const header *h) {
    const strip_buffers *b = &h->strips;

    fputc('\n', h->to);
    put_section(h, strip_lines, "opening");
    put_parts(h, small);
    if (b->no_sums_used || b->sums_used)
        put_parts(h, small_squares);
    if (b->no_sums_used)
        put_parts(h, small_alone);
    if (b->sums_used)
        put_parts(h, small_sum);
    if (b->depth)
        put_parts(h, small_depth);
}

void put_strip_kernels(const header *h) {
    const strip_buffers *b = &h->strips;

    if (!b->count)
        return;
    fprintf(h->to,
            "/* Elements of buffers for the largest layer%s. */\n"
            "#define %s_ROWS %zu\n#define %s_UNPACKED %zu\n#define %s_SUMS %zu\n",
            h->small ? "" : "; the form that the processor takes has its own", h->upper, b->rows,
            h->upper, b->unpacked, h->upper, b->sums);
    if (b->depth)
        fprintf(h->to, "#define %s_DEPTH %zu\n", h->upper, b->depth);
    if (h->small)
        put_small(h);
    else
        put_large(h);
}

void put_strip(const header *h, int index, const strip *s) {
    int deep = h->model->node[index].groups > 1;

    fprintf(h->to, "static const %s_strip %s_strip%d = {&%s_node%d, ", h->name, h->name, index,
            h->name, index);
    if (h->small)
        fputs("NULL", h->to);
    else
        fprintf(h->to, "%s_put_%s", h->name, deep ? "depth" : "weights");
    fprintf(h->to, ", %d, %d, %d, %d, %d};\n", s->height, s->width, s->row, s->step, s->shift);
    if (!h->small)
        fprintf(h->to,
                "%s_APART void %s_group%d(int height, uint8_t *y, int channel)\n{\n"
                "    %s_%sgroup(&%s_strip%d, height, y, channel);\n}\n",
                h->upper, h->name, index, h->name, deep ? "depth_" : "", h->name, index);
    fputc('\n', h->to);
}

/* What calls the node up to its operands. */
void put_strip_call(const header *h, int index) {
    const ptq_node *node = &h->model->node[index];
    const char *kernel = node->residual                 ? "strips_sum"
                         : h->small && node->groups > 1 ? "depthwise"
                                                        : "strips";

    fprintf(h->to, "    %s_%s(&%s_strip%d, ", h->name, kernel, h->name, index);
    if (!h->small)
        fprintf(h->to, "%s_group%d, ", h->name, index);
}
