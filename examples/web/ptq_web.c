/* ptq.h for a web page: the functions that JavaScript calls, thin over the public API. An instance
   of the WebAssembly module is one workbench: a float network, its calibration, and the integer
   network made from both. It imports nothing and cannot print; functions that can fail return a
   ptq_status, and problem() has the sentence. engine.mjs is the other side. */
#include <stdlib.h>
#include <string.h>

#define PTQ_NO_STDIO
#define PTQ_ASSERT(cond) ((cond) ? (void)0 : __builtin_trap())
#define PTQ_IMPLEMENTATION
#include "../../ptq.h"

#include "../../tools/ptq/measure/arithmetic.h"

#define EXPORT(name) __attribute__((export_name(#name)))

/* PROBE: an integer network to try something with, never shown. */
enum { FLOAT, INTEGER, PROBE, KINDS };

/* A network made ready: a session to be timed, and one that keeps every tensor to be looked at. */
typedef struct network {
    ptq_model *model;
    ptq_plan *plan;
    ptq_session *fast, *keeping;
} network;

static network networks[KINDS];
static ptq_calibration *calibration;
static ptq_error error;

EXPORT(problem) const char *problem(void) { return error.text; }

/* Memory for what JavaScript passes and gets. */
EXPORT(reserve) void *reserve(size_t size) { return malloc(size); }

EXPORT(release) void release(void *memory) { free(memory); }

/* ---- Networks ---- */

static void network_close(network *n) {
    ptq_session_free(n->fast);
    ptq_session_free(n->keeping);
    ptq_plan_free(n->plan);
    ptq_model_free(n->model);
    memset(n, 0, sizeof *n);
}

/* Takes the model over, whatever happens. */
static ptq_status network_open(network *n, ptq_model *model) {
    ptq_session_options keep = {0};

    network_close(n);
    n->model = model;
    keep.keep = 1;
    if (ptq_plan_create(model, NULL, &n->plan, &error) ||
        ptq_session_create(n->plan, NULL, &n->fast, &error) ||
        ptq_session_create(n->plan, &keep, &n->keeping, &error)) {
        network_close(n);
        return error.status;
    }
    return PTQ_OK;
}

/* 1 if there is such a network; the other functions that take a kind ask for one that there is. */
EXPORT(ready) int ready(int kind) { return networks[kind].plan != NULL; }

EXPORT(classes) int classes(void) { return ptq_plan_get_info(networks[FLOAT].plan)->classes; }

EXPORT(pixels) size_t pixels(void) { return ptq_plan_get_info(networks[FLOAT].plan)->pixels; }

static ptq_status check_alike(network *n) {
    if (ptq_plan_get_info(n->plan)->pixels == pixels() &&
        ptq_plan_get_info(n->plan)->classes == classes())
        return PTQ_OK;
    network_close(n);
    return ptq_error_set(&error, PTQ_INVALID_ARGUMENT,
                         "the integer network has other images or classes than the float one");
}

/* A network from the bytes of a model file. A float one comes first: with it goes all that was made
   from the one before. */
EXPORT(load) ptq_status load(int kind, const void *bytes, size_t size) {
    ptq_model *model = NULL, *fused = NULL;
    ptq_status status;

    if (kind == FLOAT) {
        ptq_calibration_free(calibration);
        calibration = NULL;
        network_close(&networks[INTEGER]);
        network_close(&networks[PROBE]);
    }
    status = ptq_model_parse(bytes, size, NULL, &model, &error);
    if (!status)
        status = ptq_fuse(model, &fused, NULL, &error);
    ptq_model_free(model);
    if (!status)
        status = network_open(&networks[kind], fused);
    return status ? status : check_alike(&networks[kind]);
}

EXPORT(isa) const char *isa(void) {
    return ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(networks[FLOAT].plan)->isa);
}

/* Bytes of weights, biases and scales. */
EXPORT(parameter_bytes) size_t parameter_bytes(int kind) {
    const ptq_model *model = networks[kind].model;
    size_t sum = 0;

    for (int i = 0; i < model->nodes; i++)
        sum += (size_t)ptq_node_cost(model, i).param_bytes;
    return sum;
}

/* The integer network as a model file, released by the caller; its length goes to `size`. NULL on
   failure. */
EXPORT(save) void *save(size_t *size) {
    void *bytes = NULL;

    return ptq_model_write(networks[INTEGER].model, &bytes, size, &error) ? NULL : bytes;
}

/* ---- Quantization ---- */

static ptq_status get_picture(void *user, size_t index, void *out, int *label, ptq_error *err) {
    size_t size = pixels();

    (void)err;
    memcpy(out, (const uint8_t *)user + index * size, size);
    *label = 0;
    return PTQ_OK;
}

/* Pictures of H x W x C bytes, one behind the other. */
static ptq_dataset as_dataset(const uint8_t *pictures, size_t count) {
    const int *shape = networks[FLOAT].model->node[0].shape;
    ptq_dataset data = {0};

    data.count = count;
    data.height = shape[0];
    data.width = shape[1];
    data.channels = shape[2];
    data.classes = classes();
    data.type = PTQ_TYPE_U8;
    data.get = get_picture;
    data.user = (void *)(uintptr_t)pictures;
    return data;
}

/* Observes the float network on more pictures. Few at a time keep the page alive. */
EXPORT(calibrate) ptq_status calibrate(const uint8_t *pictures, size_t count) {
    const ptq_dataset data = as_dataset(pictures, count);
    ptq_calibration *part = NULL;
    ptq_status status;

    status = ptq_calibrate(networks[FLOAT].plan, &data, NULL, &part, &error);
    if (status || !calibration) {
        calibration = status ? calibration : part;
        return status;
    }
    status = ptq_calibration_merge(calibration, part, &error);
    ptq_calibration_free(part);
    return status;
}

/* The same from a calibration file made before. */
EXPORT(read_calibration) ptq_status read_calibration(const void *bytes, size_t size) {
    ptq_calibration_free(calibration);
    calibration = NULL;
    return ptq_calibration_parse(bytes, size, NULL, &calibration, &error);
}

EXPORT(calibration_images) size_t calibration_images(void) {
    return calibration ? calibration->images : 0;
}

/* Scales of least squared error, one for each output channel of the weights. */
static ptq_scheme scheme_of(int weight_bits, int activation_bits) {
    ptq_scheme scheme = {0};

    scheme.weight_bits = weight_bits;
    scheme.activation_bits = activation_bits;
    scheme.weight_method = PTQ_METHOD_MSE;
    scheme.activation_method = PTQ_METHOD_MSE;
    return scheme;
}

/* Makes the integer network. Codes are rounded to nearest if `pictures` is NULL, which takes a
   moment. Else they are learned, as by the preset "best", from `count` pictures that were
   calibrated on: seconds. */
EXPORT(convert)
ptq_status convert(int weight_bits, int activation_bits, const uint8_t *pictures, size_t count) {
    const ptq_dataset data = as_dataset(pictures, count);
    ptq_convert_options options = {0};
    ptq_model *model = NULL;
    ptq_status status;

    options.scheme = scheme_of(weight_bits, activation_bits);
    if (pictures) {
        options.scheme.rounding = PTQ_ROUNDING_LEARNED;
        options.scheme.refit = PTQ_REFIT_BELOW_8;
        options.images = &data;
    }
    status = ptq_convert(networks[FLOAT].model, calibration, &options, &model, NULL, &error);
    return status ? status : network_open(&networks[INTEGER], model);
}

/* The probe: one layer with these bits, all others with 8, rounded to nearest. */
EXPORT(convert_one)
ptq_status convert_one(const char *layer, int weight_bits, int activation_bits) {
    ptq_override override = {layer, scheme_of(weight_bits, activation_bits)};
    ptq_convert_options options = {0};
    ptq_model *model = NULL;
    ptq_status status;

    options.scheme = scheme_of(8, 8);
    options.override = &override;
    options.overrides = 1;
    status = ptq_convert(networks[FLOAT].model, calibration, &options, &model, NULL, &error);
    return status ? status : network_open(&networks[PROBE], model);
}

/* ---- Running ---- */

/* `count` pictures, one behind the other, `repeat` times over (for timing); of the logits and the
   probabilities, count x classes each, either may be NULL. */
EXPORT(run)
ptq_status run(int kind, const uint8_t *pictures, size_t count, int repeat, float *logits,
               float *probabilities) {
    ptq_status status = PTQ_OK;

    for (int i = 0; i < repeat && !status; i++)
        status = ptq_run(networks[kind].fast, pictures, count, logits, probabilities, &error);
    return status;
}

/* One picture through both networks, for the functions below. */
EXPORT(look) ptq_status look(const uint8_t *picture) {
    ptq_status status = ptq_run(networks[FLOAT].keeping, picture, 1, NULL, NULL, &error);

    return status ? status : ptq_run(networks[INTEGER].keeping, picture, 1, NULL, NULL, &error);
}

/* Tensors are numbered as the calibration lists them, in the order in which they are computed. */
EXPORT(tensors) int tensors(void) { return calibration->tensors; }

EXPORT(tensor_name) const char *tensor_name(int tensor) { return calibration->tensor[tensor].name; }

/* The real values of a tensor of the last picture looked at, H x W x C, and its shape. */
EXPORT(tensor_values) ptq_status tensor_values(int kind, int tensor, float *values, int *shape) {
    ptq_tensor view;
    ptq_status status;

    status = ptq_session_tensor(networks[kind].keeping, tensor_name(tensor), &view, &error);
    if (status)
        return status;
    memcpy(shape, view.dim, 3 * sizeof *shape);
    for (size_t i = 0; i < ptq_tensor_elements(&view); i++)
        values[i] = ptq_tensor_real(&view, i);
    return PTQ_OK;
}

/* How the integer network codes a tensor: PTQ_TYPE_F32 where it does not. */
static ptq_qparams coding(int tensor) {
    const ptq_model *model = networks[INTEGER].model;
    const ptq_qparams real = {PTQ_TYPE_F32, 0, 0, 0};
    const char *name = tensor_name(tensor);
    int i = ptq_model_find(model, name);

    if (i < 0)
        return real;
    /* A convolution that takes in an addition has two results. */
    if (model->node[i].residual && strcmp(model->node[i].out, name) != 0)
        return model->node[i].mid;
    return model->node[i].q;
}

typedef struct tensor_range {
    double low, high;      /* what the codes reach; 0, 0 where there are none */
    double scale, bits;    /* 0 where there are none */
    double min, max;       /* of the calibration pictures */
    double clipped, zeros; /* shares of the values there: out of reach, exactly 0 */
} tensor_range;

EXPORT(describe_range) void describe_range(int tensor, tensor_range *out) {
    const ptq_observer *seen = &calibration->tensor[tensor].observer;
    ptq_qparams q = coding(tensor);
    int32_t low, high;

    memset(out, 0, sizeof *out);
    out->min = (double)seen->min;
    out->max = (double)seen->max;
    out->zeros = seen->count ? (double)seen->zeros / (double)seen->count : 0;
    if (q.type == PTQ_TYPE_F32)
        return;
    ptq_code_range(q.type, q.bits, &low, &high);
    out->low = (double)ptq_dequantize(low, &q);
    out->high = (double)ptq_dequantize(high, &q);
    out->scale = (double)q.scale;
    out->bits = q.bits;
    out->clipped = ptq_observer_clipped(seen, (float)out->low, (float)out->high);
}

/* How many of a tensor's calibration values, exact zeros aside, fell into each of `columns` equal
   parts of from..to. A bin of the observer counts where its middle lies. */
EXPORT(histogram) void histogram(int tensor, double from, double to, int columns, double *counts) {
    const ptq_observer *seen = &calibration->tensor[tensor].observer;
    double width = ldexp(1, seen->exponent);

    memset(counts, 0, (size_t)columns * sizeof *counts);
    for (int b = 0; b < PTQ_BINS; b++) {
        double at = ((b - PTQ_BINS / 2 + 0.5) * width - from) / (to - from) * columns;

        if (seen->bin[b] && at >= 0 && at < columns)
            counts[(int)at] += (double)seen->bin[b];
    }
}

/* ---- The network and its weights ---- */

/* The integer network as text, a line for each node, released by the caller; or NULL. */
EXPORT(graph) char *graph(void) {
    size_t size = ptq_graph_write(networks[INTEGER].model, NULL, 0) + 1;
    char *text = malloc(size);

    if (text)
        ptq_graph_write(networks[INTEGER].model, text, size);
    return text;
}

/* Weights of a node, output channel by output channel: the real ones in steps of their codes, and
   the codes. Returns how many there are, at most `most`; 0 where the node has none in codes. */
EXPORT(weights) size_t weights(const char *node, float *steps, int *codes, size_t most) {
    const ptq_model *coded = networks[INTEGER].model, *real = networks[FLOAT].model;
    int i = ptq_model_find(coded, node), k = ptq_model_find(real, node);
    const ptq_tensor *from, *to;
    size_t n;

    if (i < 0 || k < 0)
        return 0;
    from = &real->node[k].param[PTQ_PARAM_WEIGHT];
    to = &coded->node[i].param[PTQ_PARAM_WEIGHT];
    n = ptq_tensor_elements(to);
    if (!to->scales || n > most || n != ptq_tensor_elements(from))
        return 0;
    for (size_t j = 0; j < n; j++) {
        size_t channel = to->scales > 1 ? j / (n / (size_t)to->dim[0]) : 0;

        steps[j] = ptq_tensor_real(from, j) / to->scale[channel];
        codes[j] = (int)ptq_tensor_number(to, j);
    }
    return n;
}

/* Lowest and highest of the shares that `k` of `n` may come from, with 95 %: to `out`, two. */
EXPORT(interval) void interval(size_t k, size_t n, double *out) {
    ptq_share_interval(k, n, out, out + 1);
}

/* ---- One element ---- */

static arithmetic explained;

/* The arithmetic of an element of the last picture looked at, for the three functions below; they
   are there until the next call. */
EXPORT(explain) ptq_status explain(const char *node, int y, int x, int c) {
    arithmetic_close(&explained);
    return arithmetic_open(networks[INTEGER].plan, networks[INTEGER].keeping, node, y, x, c,
                           &explained, &error);
}

EXPORT(explained_inputs) const int *explained_inputs(void) { return explained.input; }

EXPORT(explained_weights) const int *explained_weights(void) { return explained.weight; }

/* The other members, in the order of engine.mjs. */
EXPORT(explained_numbers) const double *explained_numbers(void) {
    static double all[31];
    const arithmetic *a = &explained;
    const double now[] = {a->window[0],
                          a->window[1],
                          a->window[2],
                          a->top,
                          a->left,
                          a->channel,
                          a->input_zero_point,
                          (double)a->input_scale,
                          (double)a->weight_scale,
                          a->bias,
                          a->sum,
                          (double)a->multiplier,
                          (double)a->scaled,
                          a->coded,
                          (double)a->scale,
                          a->zero_point,
                          a->low,
                          a->high,
                          a->code,
                          (double)a->value,
                          a->adds,
                          a->own_first,
                          a->residual,
                          (double)a->residual_value,
                          (double)a->ratio[0],
                          (double)a->ratio[1],
                          (double)a->shift,
                          a->added_low,
                          a->added_high,
                          a->added_code,
                          (double)a->added_value};

    memcpy(all, now, sizeof all);
    return all;
}
