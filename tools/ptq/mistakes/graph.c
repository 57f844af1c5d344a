/* Mistakes made with the graph: what is fused, when a tensor is observed, which statistics batch
   norm takes. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/accuracy.h"
#include "mistakes/mistake.h"
#include "ptq.h"
#include "shared/output.h"

/* ---- No fusion ---- */

/* A float graph that is coded and decoded behind every node: what a converter makes of a network
   that was not fused. Quantized here by hand, since ptq_convert refuses to. */
typedef struct coded_graph {
    const lab *at;
    const ptq_calibration *seen; /* of the original graph */
    ptq_model *model;
    int to[PTQ_MAX_NODES]; /* original node: the one in `model` that stands for it */
} coded_graph;

static int add_copy(coded_graph *g, const ptq_node *node) {
    int a = node->input[0] < 0 ? -1 : g->to[node->input[0]];
    ptq_conv_options conv = {0};

    switch (node->op) {
    case PTQ_OP_INPUT:
        return ptq_add_input(g->model, node->name, node->shape[0], node->shape[1], node->shape[2]);
    case PTQ_OP_CONV2D:
        conv.channels = node->shape[2];
        conv.kernel_h = node->kernel[0];
        conv.kernel_w = node->kernel[1];
        conv.stride_h = node->stride[0];
        conv.stride_w = node->stride[1];
        conv.dilation_h = node->dilation[0];
        conv.dilation_w = node->dilation[1];
        conv.padding = node->padding;
        memcpy(conv.pad, node->pad, sizeof conv.pad);
        conv.groups = node->groups;
        conv.no_bias = node->no_bias;
        return ptq_add_conv2d(g->model, node->name, a, &conv);
    case PTQ_OP_BATCH_NORM:
        return ptq_add_batch_norm(g->model, node->name, a, node->epsilon);
    case PTQ_OP_RELU:
    case PTQ_OP_RELU6:
    case PTQ_OP_GLOBAL_AVG_POOL:
    case PTQ_OP_SOFTMAX:
        return ptq_add_op(g->model, node->op, node->name, a);
    case PTQ_OP_ADD:
        return ptq_add_add(g->model, node->name, a, g->to[node->input[1]]);
    case PTQ_OP_DENSE:
        return ptq_add_dense(g->model, node->name, a, node->shape[2]);
    default:
        return -1;
    }
}

/* What the codes of weights stand for. A layer's weights, coded by themselves, are those of a dense
   layer with as many inputs as a channel has weights, whose inputs stay real numbers. */
static int round_weights(const ptq_scheme *scheme, const ptq_tensor *weight, float *rounded) {
    int channels = weight->dim[0];
    size_t n = ptq_tensor_elements(weight);
    ptq_convert_options options = {0};
    ptq_model *layer = NULL, *coded = NULL;
    ptq_error err;
    ptq_status status = ptq_model_create(NULL, &layer, &err);

    options.scheme.mode = PTQ_MODE_DYNAMIC;
    options.scheme.weight_bits = scheme->weight_bits;
    options.scheme.weight_per_tensor = scheme->weight_per_tensor;
    options.scheme.weight_affine = scheme->weight_affine;
    options.scheme.weight_full_range = scheme->weight_full_range;
    options.scheme.weight_method = scheme->weight_method;
    if (status == PTQ_OK) {
        ptq_add_real_input(layer, "input", 1, 1, (int)(n / (size_t)channels));
        if (ptq_add_dense(layer, "layer", 0, channels) > 0)
            memcpy(layer->node[1].param[PTQ_PARAM_WEIGHT].data, weight->data, weight->size);
        status = ptq_convert(layer, NULL, &options, &coded, NULL, &err);
    }
    for (size_t i = 0; i < n && status == PTQ_OK; i++)
        rounded[i] = ptq_tensor_real(&coded->node[1].param[PTQ_PARAM_WEIGHT], i);
    ptq_model_free(coded);
    ptq_model_free(layer);
    return status ? fail("%s", err.text) : 0;
}

/* Parameters as they are; weights of convolutions and dense layers as their codes stand for. */
static int copy_params(coded_graph *g, const ptq_node *from, ptq_node *to) {
    int coded = from->op == PTQ_OP_CONV2D || from->op == PTQ_OP_DENSE;

    for (int p = 0; p < PTQ_PARAM_COUNT; p++)
        if (from->param[p].rank)
            memcpy(to->param[p].data, from->param[p].data, from->param[p].size);
    return coded ? round_weights(&g->at->scheme, &from->param[PTQ_PARAM_WEIGHT],
                                 (float *)to->param[PTQ_PARAM_WEIGHT].data)
                 : 0;
}

/* The result of node `made` through codes of the MinMax range that was seen. */
static int add_border(coded_graph *g, const ptq_node *node, int made) {
    int bits = g->at->scheme.activation_bits && node->op != PTQ_OP_INPUT
                   ? g->at->scheme.activation_bits
                   : 8;
    int tensor = ptq_calibration_find(g->seen, node->out);
    char name[2][PTQ_NAME_SIZE + 8];
    float low, high;
    ptq_qparams q;
    ptq_error err;

    if (tensor < 0 || node->op == PTQ_OP_DENSE || node->op == PTQ_OP_SOFTMAX)
        return made;
    if (ptq_observer_range(&g->seen->tensor[tensor].observer, PTQ_METHOD_MINMAX, 0, PTQ_TYPE_U8,
                           bits, 0, &low, &high, &err) ||
        ptq_choose_qparams(low, high, PTQ_TYPE_U8, bits, 0, &q, &err)) {
        fail("%s: %s", node->name, err.text);
        return -1;
    }
    snprintf(name[0], sizeof name[0], "%s.codes", node->name);
    snprintf(name[1], sizeof name[1], "%s.real", node->name);
    made = ptq_add_op(g->model, PTQ_OP_QUANTIZE, name[0], made);
    if (made >= 0)
        g->model->node[made].q = q;
    return ptq_add_op(g->model, PTQ_OP_DEQUANTIZE, name[1], made);
}

static int build_coded(coded_graph *g) {
    const ptq_model *from = g->at->original;
    ptq_error err;

    if (ptq_model_create(NULL, &g->model, &err))
        return fail("%s", err.text);
    memcpy(g->model->mean, from->mean, sizeof from->mean);
    memcpy(g->model->std, from->std, sizeof from->std);
    for (int i = 0; i < from->nodes; i++) {
        const ptq_node *node = &from->node[i];
        int made = add_copy(g, node);

        if (made < 0)
            return fail("node %s (%s) cannot be copied here; take another model", node->name,
                        ptq_name(PTQ_NAMES_OP, node->op));
        if (copy_params(g, node, &g->model->node[made]))
            return 1;
        g->to[i] = add_border(g, node, made);
        if (g->to[i] < 0)
            return 1;
    }
    return ptq_model_check(g->model, &err) ? fail("%s", err.text) : 0;
}

static int show_unfused(const lab *at, const ptq_calibration *seen) {
    ptq_convert_options options = {0};
    ptq_model *made = NULL;
    ptq_error err;

    options.scheme = at->scheme;
    if (!ptq_convert(at->original, seen, &options, &made, NULL, &err)) {
        ptq_model_free(made);
        return fail("ptq_convert took a model that was not fused");
    }
    say("\ntensors that are stored: %d without fusion, %d with it\n", at->original->nodes,
        at->real.model->nodes);
    print_guard("ptq_convert", err.text);
    return 0;
}

int mistake_unfused(lab *at) {
    static coded_graph g;
    ptq_calibration *seen = NULL;
    int status = calibrate_any(at->original, &at->drawn.subset.dataset, 0, &seen);

    g.at = at;
    g.seen = seen;
    if (!status)
        status = build_coded(&g) || measure_model("right", at, at->quantized, &at->images) ||
                 measure_model("quantized without fusion", at, g.model, &at->images) ||
                 show_unfused(at, seen);
    ptq_model_free(g.model);
    ptq_calibration_free(seen);
    return status;
}

/* ---- A range from before the ReLU ---- */

/* The observers of the tensors that enter a ReLU take the places of those behind it. */
static void observe_before(const lab *at, ptq_calibration *before, ptq_calibration *fused) {
    for (int i = 0; i < at->original->nodes; i++) {
        const ptq_node *relu = &at->original->node[i];
        int from, to = ptq_calibration_find(fused, relu->out);

        if (relu->op != PTQ_OP_RELU || to < 0)
            continue;
        from = ptq_calibration_find(before, at->original->node[relu->input[0]].out);
        if (from >= 0) {
            ptq_observer kept = fused->tensor[to].observer;

            fused->tensor[to].observer = before->tensor[from].observer;
            before->tensor[from].observer = kept;
        }
    }
}

static int measure_at(const lab *at, const ptq_calibration *seen, const char *how, int bits) {
    ptq_scheme scheme = at->scheme;
    char text[64];

    scheme.activation_bits = bits;
    snprintf(text, sizeof text, "activations of %d bits, %s", bits, how);
    return measure_calibration(text, at, seen, &scheme);
}

int mistake_relu(lab *at) {
    static const int bits[] = {8, 6, 5, 4};
    ptq_calibration *before = NULL, *wrong = NULL;
    int status = calibrate_any(at->original, &at->drawn.subset.dataset, 0, &before) ||
                 calibrate_any(at->real.model, &at->drawn.subset.dataset, 0, &wrong);

    if (!status)
        observe_before(at, before, wrong);
    for (size_t i = 0; i < sizeof bits / sizeof *bits && !status; i++)
        status = measure_at(at, at->calibration, "right", bits[i]) ||
                 measure_at(at, wrong, "range before ReLU", bits[i]);
    if (!status)
        say("\nguard     ptq_calibrate observes the fused model, in which the tensor before a ReLU "
            "does\n          not exist; ptq_convert takes the calibration of that model alone\n");
    ptq_calibration_free(before);
    ptq_calibration_free(wrong);
    return status;
}

/* ---- Batch norm in training mode ---- */

enum { MOST_CHANNELS = 1024 };

typedef struct moments {
    double sum[MOST_CHANNELS], squares[MOST_CHANNELS];
    size_t count;
} moments;

static void add_moments(moments *m, const ptq_tensor *view, int channels) {
    size_t n = ptq_tensor_elements(view);

    for (size_t i = 0; i < n; i++) {
        double x = (double)((const float *)view->data)[i];

        m->sum[i % (size_t)channels] += x;
        m->squares[i % (size_t)channels] += x * x;
    }
    m->count += n / (size_t)channels;
}

/* Mean and variance of the batch for one batch norm. */
static void store_moments(const moments *m, ptq_node *norm) {
    for (int c = 0; c < norm->shape[2]; c++) {
        double mean = m->sum[c] / (double)m->count;

        ((float *)norm->param[PTQ_PARAM_MEAN].data)[c] = (float)mean;
        ((float *)norm->param[PTQ_PARAM_VARIANCE].data)[c] =
            (float)fmax(m->squares[c] / (double)m->count - mean * mean, 0);
    }
}

static int run_batch(ptq_session *session, const ptq_dataset *batch, const ptq_node *norm,
                     const char *tensor, uint8_t *pixels, moments *m) {
    ptq_tensor view;
    ptq_error err;
    int label;

    for (size_t i = 0; i < batch->count; i++) {
        if (batch->get(batch->user, i, pixels, &label, &err) ||
            ptq_run(session, pixels, 1, NULL, NULL, &err) ||
            ptq_session_tensor(session, tensor, &view, &err))
            return fail("%s", err.text);
        add_moments(m, &view, norm->shape[2]);
    }
    return 0;
}

/* The statistics that batch norm `index` of the model meets on a batch, all those before it being
   set already. */
static int set_moments(ptq_model *model, int index, const ptq_dataset *batch) {
    static moments m;
    ptq_node *norm = &model->node[index];
    const char *tensor = model->node[norm->input[0]].out;
    ptq_session_options keep = {0};
    ptq_session *session = NULL;
    ptq_plan *plan = NULL;
    uint8_t *pixels;
    ptq_error err;
    int status = make_plan(model, &plan);

    memset(&m, 0, sizeof m);
    keep.keep = 1;
    if (status)
        return 1;
    pixels = malloc(ptq_plan_get_info(plan)->pixels);
    if (!pixels)
        status = fail("no memory for an image");
    else if (ptq_session_create(plan, &keep, &session, &err))
        status = fail("%s", err.text);
    if (!status)
        status = run_batch(session, batch, norm, tensor, pixels, &m);
    free(pixels);
    ptq_session_free(session);
    ptq_plan_free(plan);
    if (!status)
        store_moments(&m, norm);
    return status;
}

/* One batch, normalized by itself. */
static int count_batch(const lab *at, ptq_model *model, const size_t *indices, size_t count,
                       tally *sum) {
    ptq_subset part;
    ptq_evaluation result;
    ptq_plan *plan = NULL;
    ptq_error err;
    int status = 0;

    if (ptq_subset_open(&part, &at->images, indices, count, &err))
        return fail("%s", err.text);
    for (int i = 0; i < model->nodes && !status; i++)
        if (model->node[i].op == PTQ_OP_BATCH_NORM)
            status = set_moments(model, i, &part.dataset);
    if (status || make_plan(model, &plan))
        return 1;
    status = evaluate_plan(plan, &part.dataset, "batch", 0, &result);
    ptq_plan_free(plan);
    if (status)
        return 1;
    for (size_t i = 0; i < count; i++)
        count_answer(sum, at, indices[i], result.prediction[i]);
    ptq_release(&result.memory);
    return 0;
}

static int measure_batches(const lab *at, size_t size, size_t total) {
    ptq_model *model = NULL;
    size_t indices[64];
    tally sum = {0};
    char how[64];
    ptq_error err;
    int status = 0;

    if (ptq_model_copy(at->original, NULL, &model, &err))
        return fail("%s", err.text);
    for (size_t from = 0; from < total && !status; from += size) {
        size_t count = total - from < size ? total - from : size;

        for (size_t i = 0; i < count; i++)
            indices[i] = from + i;
        status = count_batch(at, model, indices, count, &sum);
    }
    snprintf(how, sizeof how, "float, normalized by batches of %zu", size);
    if (!status)
        print_row(how, at, &sum);
    ptq_model_free(model);
    return status;
}

int check_batch_norm(const lab *at) {
    int found = 0;

    for (int i = 0; i < at->original->nodes; i++) {
        const ptq_node *node = &at->original->node[i];

        found |= node->op == PTQ_OP_BATCH_NORM;
        if (node->op == PTQ_OP_BATCH_NORM && node->shape[2] > MOST_CHANNELS)
            return fail("node %s has more than %d channels; take another model", node->name,
                        MOST_CHANNELS);
    }
    return found ? 0 : fail("the model has no batch norm; take one that is not fused yet");
}

int mistake_training(lab *at) {
    static const size_t sizes[] = {50, 10, 2};
    size_t total = at->images.count < 100 ? at->images.count : 100;
    ptq_dataset few = at->images;

    few.count = total;
    if (measure_plan("right: float, statistics of training", at, at->real.plan, &few))
        return 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (measure_batches(at, sizes[i], total))
            return 1;
    say("\nguard     mean and variance are numbers of the model file, and ptq_fuse makes them part "
        "of\n          the weights: there is no training mode to forget; ptq import refuses ONNX "
        "files\n          in it (\"training mode ... not supported\")\n");
    return 0;
}
