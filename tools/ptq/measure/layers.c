#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/layers.h"

/* Sums over images, one for each tensor of the report. */
typedef struct layer_sum {
    double signal, noise;
    size_t clipped, elements;
} layer_sum;

/* Both models on the image at hand. */
typedef struct both_runs {
    const ptq_model *real_model, *coded_model;
    ptq_session *real, *coded;
    layer_report report;
    layer_sum *sum;
    void *item;
} both_runs;

/* A model may have been equalized: channels of its tensors are then smaller or larger than the
   float model's by factors in the metadata, "name factor factor ...;name ...". Those of a tensor, as
   text; NULL: none. */
static const char *find_factors(const ptq_model *model, const char *name) {
    const char *entry = ptq_model_get_meta(model, "equalization");
    size_t length = strlen(name);

    while (entry && !(strncmp(entry, name, length) == 0 && entry[length] == ' ')) {
        entry = strchr(entry, ';');
        entry += entry != NULL;
    }
    return entry ? entry + length : NULL;
}

/* A float tensor, H x W x C, in the units of an equalized model. It lies in the session, which
   writes it anew with every run. */
static void to_units_of(const ptq_model *model, const ptq_node *node, ptq_tensor *real) {
    const char *factors = find_factors(model, node->out);
    size_t n = ptq_tensor_elements(real), channels = (size_t)node->shape[2];
    float *x = (float *)real->data;

    for (size_t c = 0; factors && real->type == PTQ_TYPE_F32 && c < channels; c++) {
        char *end;
        float factor = strtof(factors, &end);
        if (end == factors || !(factor > 0))
            return; /* damaged: for people to see */
        factors = end;
        for (size_t k = c; k < n; k += channels)
            x[k] /= factor;
    }
}

/* An element is clipped if its code is the lowest or the highest while the real value lies more than
   half a step beyond: rounding errs by no more. */
static void add_tensor(layer_sum *sum, layer_error *item, const ptq_tensor *real,
                       const ptq_tensor *coded, const ptq_qparams *q) {
    size_t n = ptq_tensor_elements(real);
    int32_t low = 0, high = 0, code;

    if (q->type != PTQ_TYPE_F32)
        ptq_code_range(q->type, q->bits, &low, &high);
    for (size_t i = 0; i < n; i++) {
        float x = ptq_tensor_real(real, i), y = ptq_tensor_real(coded, i), d = x - y;
        sum->signal += (double)x * (double)x;
        sum->noise += (double)d * (double)d;
        item->largest = fabsf(d) > item->largest ? fabsf(d) : item->largest;
        if (q->type == PTQ_TYPE_F32)
            continue;
        code = (int32_t)ptq_tensor_number(coded, i);
        sum->clipped +=
            (code == low && x < y - q->scale / 2) || (code == high && x > y + q->scale / 2);
    }
    sum->elements += n;
}

/* The same tensor in the float model: the node that makes it, or -1. What stands before a fused
   addition has the convolution's name; where the float model's addition is not fused, that name may
   mean the sums before batch norm or activation, which no quantized model has. */
static int same_tensor(const ptq_model *real, const char *name, int before_addition) {
    int i = ptq_model_find(real, name);
    return i >= 0 && before_addition && !real->node[i].residual ? -1 : i;
}

/* Tensor `at` of the report. */
static ptq_status compare_tensor(both_runs *both, const ptq_node *node, const char *name,
                                 const ptq_qparams *q, int at, ptq_error *err) {
    layer_error *item = &both->report.item[at];
    ptq_tensor real, coded;
    ptq_status status = ptq_session_tensor(both->real, name, &real, err);

    if (!status)
        status = ptq_session_tensor(both->coded, name, &coded, err);
    if (status)
        return status;
    if (ptq_tensor_elements(&real) != ptq_tensor_elements(&coded))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "tensor %s has %zu elements in one model, %zu in the other; compare"
                             " models of one network",
                             name, ptq_tensor_elements(&real), ptq_tensor_elements(&coded));
    memcpy(item->name, name, strlen(name) + 1);
    to_units_of(both->coded_model, node, &real);
    add_tensor(&both->sum[at], item, &real, &coded, q);
    return PTQ_OK;
}

/* Every tensor of the quantized model that the float model has too; of a node with a fused addition
   first what is before it, then its result: in the same order for every image. */
static ptq_status compare_image(both_runs *both, ptq_error *err) {
    const ptq_model *model = both->coded_model;
    ptq_status status = PTQ_OK;
    int at = 0;

    for (int i = 1; i < model->nodes && !status; i++) {
        const ptq_node *node = &model->node[i];
        for (int middle = node->residual != PTQ_RESIDUAL_NONE; middle >= 0 && !status; middle--) {
            const char *name = middle ? node->name : node->out;
            if (same_tensor(both->real_model, name, middle) >= 0)
                status =
                    compare_tensor(both, node, name, middle ? &node->mid : &node->q, at++, err);
        }
    }
    both->report.items = at;
    return status;
}

static ptq_status run_images(both_runs *both, const ptq_dataset *data, size_t count,
                             ptq_error *err) {
    ptq_results none = {NULL, NULL, NULL, NULL};
    ptq_status status = PTQ_OK;
    int label;

    for (size_t i = 0; i < count && !status; i++) {
        status = data->get(data->user, i, both->item, &label, err);
        if (!status)
            status = ptq_run_items(both->real, data->type, both->item, 1, &none, err);
        if (!status)
            status = ptq_run_items(both->coded, data->type, both->item, 1, &none, err);
        if (!status)
            status = compare_image(both, err);
    }
    for (int k = 0; k < both->report.items && !status; k++) {
        const layer_sum *sum = &both->sum[k];
        layer_error *item = &both->report.item[k];
        item->sqnr_db = sum->noise > 0 ? 10 * log10(sum->signal / sum->noise) : HUGE_VAL;
        item->clipped = sum->elements ? (double)sum->clipped / (double)sum->elements : 0;
    }
    return status;
}

/* The images must be what both models take. */
static ptq_status check_size(const ptq_model *model, const ptq_dataset *data, ptq_error *err) {
    const int *shape = model->node[0].shape;

    if (data->height == shape[0] && data->width == shape[1] && data->channels == shape[2])
        return PTQ_OK;
    return ptq_error_set(err, PTQ_BAD_DATA, "the images are %dx%dx%d, the model takes %dx%dx%d",
                         data->height, data->width, data->channels, shape[0], shape[1], shape[2]);
}

/* A node makes two tensors at most: what is before its fused addition, and its result. */
static ptq_status open_both(both_runs *both, const ptq_plan *baseline, const ptq_plan *quantized,
                            const ptq_dataset *data, ptq_error *err) {
    size_t pixels = ptq_plan_get_info(quantized)->pixels, most;
    ptq_session_options keep;
    ptq_status status;

    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    both->real_model = ptq_plan_get_info(baseline)->model;
    both->coded_model = ptq_plan_get_info(quantized)->model;
    most = 2 * (size_t)both->coded_model->nodes;
    both->report.item = (layer_error *)calloc(most, sizeof *both->report.item);
    both->sum = (layer_sum *)calloc(most, sizeof *both->sum);
    both->item = malloc(pixels * (data->type == PTQ_TYPE_F32 ? sizeof(float) : 1));
    if (!both->report.item || !both->sum || !both->item)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory to compare layers");
    status = check_size(both->real_model, data, err);
    if (!status)
        status = check_size(both->coded_model, data, err);
    if (!status)
        status = ptq_session_create(baseline, &keep, &both->real, err);
    return status ? status : ptq_session_create(quantized, &keep, &both->coded, err);
}

/* Images one after the other: this is for looking at, and a few tell enough. */
ptq_status compare_layers(const ptq_plan *baseline, const ptq_plan *quantized,
                          const ptq_dataset *data, size_t count, layer_report *out,
                          ptq_error *err) {
    both_runs both;
    ptq_status status;

    memset(&both, 0, sizeof both);
    status = open_both(&both, baseline, quantized, data, err);
    if (!status)
        status = run_images(&both, data, count && count < data->count ? count : data->count, err);
    ptq_session_free(both.coded);
    ptq_session_free(both.real);
    free(both.sum);
    free(both.item);
    if (status)
        layer_report_free(&both.report);
    else
        *out = both.report;
    return status;
}

void layer_report_free(layer_report *report) {
    free(report->item);
    memset(report, 0, sizeof *report);
}
