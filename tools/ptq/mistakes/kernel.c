/* The mistake of a kernel that saturates on the way. No kernel of ptq.h does that, so the integer
   network is run here by a few loops of its own, with an instruction's saturation imitated:
   PMADDUBSW of SSSE3 and its like multiply unsigned codes by signed weights and add pairs of
   products in 16 bits. Without the saturation the loops must give the library's logits to the bit,
   else they prove nothing. */
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/accuracy.h"
#include "mistakes/mistake.h"
#include "ptq.h"
#include "shared/output.h"

typedef struct runner {
    const ptq_model *model;
    const ptq_plan *plan;
    int saturate;
    int32_t *weight[PTQ_MAX_NODES]; /* O,H,W,I */
    int32_t *code[PTQ_MAX_NODES];   /* the result of each node */
    float *logits;
    uint64_t pairs, saturated;
} runner;

static size_t elements(const int shape[3]) {
    return (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2];
}

int check_layers(const lab *at) {
    const ptq_model *model = at->quantized;

    for (int i = 0; i <= ptq_model_logits(model); i++) {
        const ptq_node *node = &model->node[i];
        int layer = (node->op == PTQ_OP_CONV2D && node->groups == 1) || node->op == PTQ_OP_DENSE ||
                    node->op == PTQ_OP_GLOBAL_AVG_POOL || node->op == PTQ_OP_INPUT;

        if (!layer || (i && ptq_node_mode(model, i) != PTQ_MODE_INTEGER))
            return fail("node %s (%s) is not imitated here; take another model", node->name,
                        ptq_name(PTQ_NAMES_OP, node->op));
    }
    return 0;
}

static int32_t *unpack(const ptq_tensor *weight) {
    int out = weight->dim[0], in = weight->dim[1], taps = weight->dim[2] * weight->dim[3];
    int32_t *made = malloc(ptq_tensor_elements(weight) * sizeof *made);

    if (!made)
        return NULL;
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++)
            for (int t = 0; t < taps; t++)
                made[(o * taps + t) * in + i] =
                    (int32_t)ptq_tensor_number(weight, (size_t)((o * in + i) * taps + t));
    return made;
}

static void close_runner(runner *r) {
    for (int i = 0; i < PTQ_MAX_NODES; i++) {
        free(r->weight[i]);
        free(r->code[i]);
    }
    free(r->logits);
    memset(r, 0, sizeof *r);
}

static int open_runner(runner *r, const ptq_plan *plan) {
    int logits, short_of = 0;

    memset(r, 0, sizeof *r);
    r->plan = plan;
    r->model = ptq_plan_get_info(plan)->model;
    logits = ptq_model_logits(r->model);
    assert(logits > 0);
    for (int i = 0; i <= logits; i++) {
        const ptq_node *node = &r->model->node[i];

        r->code[i] = malloc(elements(node->shape) * sizeof *r->code[i]);
        if (node->param[PTQ_PARAM_WEIGHT].rank)
            r->weight[i] = unpack(&node->param[PTQ_PARAM_WEIGHT]);
        short_of |= !r->code[i] || (node->param[PTQ_PARAM_WEIGHT].rank && !r->weight[i]);
    }
    r->logits = malloc(elements(r->model->node[logits].shape) * sizeof *r->logits);
    if (short_of || !r->logits) {
        close_runner(r);
        return fail("no memory for the imitated kernel");
    }
    return 0;
}

/* The dot product of n codes, pair by pair; x NULL: the padding, which holds the zero point. */
static int32_t dot(runner *r, const int32_t *x, int32_t padding, const int32_t *w, int n) {
    int32_t sum = 0;

    for (int i = 0; i < n; i += 2) {
        int32_t pair = (x ? x[i] : padding) * w[i];

        if (i + 1 < n)
            pair += (x ? x[i + 1] : padding) * w[i + 1];
        r->pairs++;
        r->saturated += pair > INT16_MAX || pair < INT16_MIN;
        if (r->saturate)
            pair = pair > INT16_MAX ? INT16_MAX : pair < INT16_MIN ? INT16_MIN : pair;
        sum += pair;
    }
    return sum;
}

/* sum (x - zx) w + bias, with zx sum w taken off at the end, as fast kernels do. */
static int32_t accumulate(runner *r, int index, int y, int x, int o) {
    const ptq_node *node = &r->model->node[index], *from = &r->model->node[node->input[0]];
    int dense = node->op == PTQ_OP_DENSE, height = dense ? 1 : node->kernel[0];
    int width = dense ? 1 : node->kernel[1], in = from->shape[2];
    const int32_t *w = r->weight[index] + (size_t)o * (size_t)(height * width * in);
    int32_t zero = from->q.zero_point;
    int32_t sum = (int32_t)ptq_tensor_number(&node->param[PTQ_PARAM_BIAS], (size_t)o), total = 0;

    for (int v = 0; v < height; v++)
        for (int u = 0; u < width; u++, w += in) {
            int row = dense ? 0 : y * node->stride[0] + v * node->dilation[0] - node->pad[0];
            int column = dense ? 0 : x * node->stride[1] + u * node->dilation[1] - node->pad[1];
            int inside = row >= 0 && row < from->shape[0] && column >= 0 && column < from->shape[1];
            const int32_t *at =
                r->code[node->input[0]] + (inside ? (row * from->shape[1] + column) * in : 0);

            sum += dot(r, inside ? at : NULL, zero, w, in);
            for (int i = 0; i < in; i++)
                total += w[i];
        }
    return sum - zero * total;
}

/* The addition of ONNX Runtime, operands in the order of the graph. */
static int32_t add_residual(const ptq_node *node, const ptq_step_info *step, int32_t code,
                            int32_t residual) {
    float a = (float)(node->residual == PTQ_RESIDUAL_FIRST ? residual : code);
    float b = (float)(node->residual == PTQ_RESIDUAL_FIRST ? code : residual);
    float sum = fmaf(a, step->ratio[0], fmaf(b, step->ratio[1], step->shift));

    sum = fmaxf(fminf(sum, (float)step->sum_high), (float)step->sum_low);
    return (int32_t)rintf(sum);
}

static void run_layer(runner *r, int index) {
    const ptq_node *node = &r->model->node[index];
    const ptq_qparams *q = node->residual ? &node->mid : &node->q;
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    int at = 0, coded = node->q.type != PTQ_TYPE_F32;
    float in_scale = r->model->node[node->input[0]].q.scale;
    ptq_step_info step;

    ptq_plan_step(r->plan, index, &step);
    for (int y = 0; y < node->shape[0]; y++)
        for (int x = 0; x < node->shape[1]; x++)
            for (int c = 0; c < node->shape[2]; c++, at++) {
                int32_t sum = accumulate(r, index, y, x, c), code;

                if (!coded) {
                    r->logits[c] =
                        (float)sum * (in_scale * weight->scale[weight->scales > 1 ? c : 0]);
                    continue;
                }
                code = ptq_requantize(sum, step.multiplier[c], q->zero_point, step.low, step.high);
                if (node->residual)
                    code = add_residual(node, &step, code, r->code[node->input[1]][at]);
                r->code[index][at] = code;
            }
}

static void run_pool(runner *r, int index) {
    const ptq_node *node = &r->model->node[index], *from = &r->model->node[node->input[0]];
    int taps = from->shape[0] * from->shape[1], channels = node->shape[2];
    ptq_step_info step;

    ptq_plan_step(r->plan, index, &step);
    for (int c = 0; c < channels; c++) {
        int32_t sum = -taps * from->q.zero_point;

        for (int i = 0; i < taps; i++)
            sum += r->code[node->input[0]][i * channels + c];
        r->code[index][c] =
            ptq_requantize(sum, step.average, node->q.zero_point, step.low, step.high);
    }
}

/* The logits of one image. */
static void run_image(runner *r, const uint8_t *pixels) {
    const ptq_node *input = &r->model->node[0];
    float real[PTQ_MAX_PIXEL_CHANNELS];

    for (size_t i = 0; i < elements(input->shape); i++) {
        size_t c = i % (size_t)input->shape[2];

        real[c] = ((float)pixels[i] - r->model->mean[c]) / r->model->std[c];
        r->code[0][i] = ptq_quantize(real[c], &input->q);
    }
    for (int i = 1; i <= ptq_model_logits(r->model); i++) {
        if (r->model->node[i].op == PTQ_OP_GLOBAL_AVG_POOL)
            run_pool(r, i);
        else
            run_layer(r, i);
    }
}

/* One image without saturation, beside the library. */
static int check_loops(runner *r, const ptq_dataset *images, uint8_t *pixels) {
    int classes = ptq_plan_get_info(r->plan)->classes, label, status = 0;
    float *expected = malloc((size_t)classes * sizeof *expected);
    ptq_session *session = NULL;
    ptq_error err;

    if (!expected || ptq_session_create(r->plan, NULL, &session, &err) ||
        images->get(images->user, 0, pixels, &label, &err) ||
        ptq_run(session, pixels, 1, expected, NULL, &err))
        status = fail("%s", expected ? err.text : "no memory for the logits");
    if (!status) {
        run_image(r, pixels);
        if (memcmp(expected, r->logits, (size_t)classes * sizeof *expected) != 0)
            status = fail("the imitated kernel differs from the library without saturation, so "
                          "that it would prove nothing");
    }
    ptq_session_free(session);
    free(expected);
    return status;
}

/* Answers on saturating sums, and how many logits are not those of `exact`. */
static int run_images(runner *r, const lab *at, const char *how, const ptq_evaluation *exact,
                      uint8_t *pixels) {
    int classes = exact->classes, label;
    size_t changed = 0;
    tally sum = {0};
    ptq_error err;

    r->pairs = r->saturated = 0;
    for (size_t i = 0; i < exact->total; i++) {
        if (at->images.get(at->images.user, i, pixels, &label, &err))
            return fail("%s", err.text);
        run_image(r, pixels);
        count_answer(&sum, at, i, ptq_argmax(r->logits, classes));
        for (int c = 0; c < classes; c++)
            changed += r->logits[c] != exact->logits[i * (size_t)classes + (size_t)c];
    }
    print_row(how, at, &sum);
    say("  sums of pairs out of 16 bits: %llu of %llu; logits that changed: %zu of %zu\n",
        (unsigned long long)r->saturated, (unsigned long long)r->pairs, changed,
        exact->total * (size_t)classes);
    return 0;
}

static int measure_both(runner *r, const lab *at, const char *name, const ptq_dataset *images) {
    uint8_t *pixels = malloc(ptq_plan_get_info(r->plan)->pixels);
    ptq_evaluation exact = {0};
    tally sum = {0};
    char how[64];
    int status = pixels ? 0 : fail("no memory for an image");

    if (!status)
        status = evaluate_plan(r->plan, images, name, 0, &exact);
    for (size_t i = 0; i < exact.total; i++)
        count_answer(&sum, at, i, exact.prediction[i]);
    snprintf(how, sizeof how, "%s, exact sums", name);
    if (!status) {
        print_row(how, at, &sum);
        status = check_loops(r, &at->images, pixels);
    }
    r->saturate = 1;
    snprintf(how, sizeof how, "%s, saturating at 16 bits", name);
    if (!status)
        status = run_images(r, at, how, &exact, pixels);
    ptq_release(&exact.memory);
    free(pixels);
    return status;
}

/* A model on exact and on saturating sums. */
static int measure_sums(const lab *at, const char *name, const ptq_model *model) {
    static runner r;
    ptq_dataset few = at->images;
    ptq_plan *plan = NULL;
    int status;

    few.count = few.count < 50 ? few.count : 50;
    status = make_plan(model, &plan) || open_runner(&r, plan) || measure_both(&r, at, name, &few);
    close_runner(&r);
    ptq_plan_free(plan);
    return status;
}

/* Weights of 7 bits: then no pair of products can leave 16 bits, whatever the image. */
static int convert_7_bits(const lab *at, ptq_model **out) {
    ptq_convert_options options = {0};
    ptq_error err;

    options.scheme = at->scheme;
    options.scheme.weight_bits = 7;
    return ptq_convert(at->real.model, at->calibration, &options, out, NULL, &err)
               ? fail("%s", err.text)
               : 0;
}

int mistake_saturation(lab *at) {
    ptq_model *narrow = NULL;
    int status = measure_sums(at, "8-bit weights", at->quantized) || convert_7_bits(at, &narrow) ||
                 measure_sums(at, "7-bit weights", narrow);

    if (!status)
        say("\nguard     ptq.h takes an instruction that saturates only where the weights prove "
            "that no\n          pair can leave 16 bits; 'ptq info --cpu' compares every kernel "
            "with "
            "scalar C\n");
    ptq_model_free(narrow);
    return status;
}
