/* What ptq report measures: every model on the same images, and how often each code occurs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/calibration.h"
#include "data/find.h"
#include "data/images.h"
#include "measure/accuracy.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "report/report.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/output.h"

#define LAYER_IMAGES 200 /* compared tensor by tensor */

/* ---- What figures ask ---- */

void coded_range(const ptq_qparams *q, double *low, double *high) {
    int32_t least, most;

    ptq_code_range(q->type, q->bits, &least, &most);
    *low = (double)q->scale * (least - q->zero_point);
    *high = (double)q->scale * (most - q->zero_point);
}

ptq_qparams tensor_codes(const ptq_model *model, const char *tensor) {
    const ptq_qparams none = {PTQ_TYPE_F32, 0, 0, 0};
    int i = ptq_model_find(model, tensor);

    if (i < 0)
        return none;
    return strcmp(model->node[i].out, tensor) ? model->node[i].mid : model->node[i].q;
}

const layer_error *weakest_layer(const subject *s) {
    const layer_error *found = NULL;

    for (int i = 0; i < s->layers.items; i++)
        if (!found || s->layers.item[i].sqnr_db < found->sqnr_db)
            found = &s->layers.item[i];
    return found;
}

/* ---- Measuring ---- */

/* The file's name without directory and ending: what the model is called in the report. */
static void name_subject(subject *s) {
    const char *slash = strrchr(s->path, '/'), *base = slash ? slash + 1 : s->path;

    snprintf(s->name, sizeof s->name, "%.*s", (int)strcspn(base, "."), base);
}

static int open_subject(const char *option, subject *s) {
    if (find_model(option, s->path) || engine_open(s->path, 1, NULL, &s->ready))
        return 1;
    name_subject(s);
    describe_precision(s->ready.model, s->precision, sizeof s->precision);
    s->bytes = file_size(s->path);
    return 0;
}

static void close_subject(subject *s) {
    free(s->codes);
    layer_report_free(&s->layers);
    ptq_release(&s->result.memory);
    engine_close(&s->ready);
}

/* Adds the codes of one tensor of the image that ran last. A view has no scale where the values are
   real. */
static void count_view(const ptq_tensor *view, code_count *into) {
    size_t n = ptq_tensor_elements(view);

    for (size_t i = 0; i < n; i++)
        into->count[(int)ptq_tensor_number(view, i) & 255]++;
    into->total += n;
}

static int count_image(const report *r, subject *s, ptq_session *session, const void *item) {
    ptq_tensor view;
    ptq_error err;

    if (data_run(session, &r->drawn.subset.dataset, item, NULL, &err))
        return fail("%s", err.text);
    for (int t = 0; t < r->seen->tensors; t++)
        if (s->codes[t].q.type != PTQ_TYPE_F32) {
            if (ptq_session_tensor(session, r->seen->tensor[t].name, &view, &err))
                return fail("%s", err.text);
            count_view(&view, &s->codes[t]);
        }
    return 0;
}

static int count_codes(const report *r, subject *s) {
    ptq_session_options keep = {0};
    ptq_session *session = NULL;
    ptq_error err;
    const ptq_dataset *seen = &r->drawn.subset.dataset;
    void *item = malloc(data_item_bytes(seen));
    int status = 0, label;

    s->codes = calloc((size_t)r->seen->tensors, sizeof *s->codes);
    keep.keep = 1;
    if (!item || !s->codes)
        status = fail("no memory for the histograms");
    else if (ptq_session_create(s->ready.plan, &keep, &session, &err))
        status = fail("%s", err.text);
    for (int t = 0; t < r->seen->tensors && !status; t++)
        s->codes[t].q = tensor_codes(s->ready.model, r->seen->tensor[t].name);
    for (size_t i = 0; i < seen->count && !status; i++) {
        if (seen->get(seen->user, i, item, &label, &err))
            status = fail("%s", err.text);
        else
            status = count_image(r, s, session, item);
    }
    ptq_session_free(session);
    free(item);
    return status;
}

static int measure_subject(report *r, subject *s, int threads) {
    ptq_error err;

    if (evaluate_plan(s->ready.plan, &r->images, s->name, threads, &s->result))
        return 1;
    if (ptq_compare(&r->baseline.result, &s->result, &s->compared, &err) ||
        compare_layers(r->baseline.ready.plan, s->ready.plan, &r->images, r->layer_images,
                       &s->layers, &err))
        return fail("%s: %s", s->name, err.text);
    return count_codes(r, s);
}

static int open_images(report *r, const report_request *wanted) {
    size_t limit = (size_t)wanted->data.limit;

    if (data_find(&wanted->data, &r->from))
        return 1;
    r->from.limit = 0;
    if (data_open_test(&r->from, r->baseline.ready.plan, &r->test))
        return 1;
    if (!r->test)
        return fail("%s has no labelled test images beside the training images; a report needs "
                    "both",
                    r->from.path);
    r->images = *data_view(r->test);
    if (limit && limit < r->images.count)
        r->images.count = limit;
    r->layer_images = r->images.count < LAYER_IMAGES ? r->images.count : LAYER_IMAGES;
    r->class_name = r->images.class_name;
    return 0;
}

/* Before long work, so that a wrong file is known at once. */
static int open_subjects(const report_request *wanted, report *r) {
    for (r->models = 0; r->models < MOST_SUBJECTS && wanted->model[r->models]; r->models++)
        if (open_subject(wanted->model[r->models], &r->model[r->models]))
            return 1;
    return 0;
}

int measure_report(const report_request *wanted, report *r) {
    int threads = wanted->threads;

    r->command = wanted->command;
    r->seed = wanted->seed;
    r->threads = threads;
    if (read_margin(wanted->margin, &r->margin) || open_subject(wanted->baseline, &r->baseline) ||
        open_images(r, wanted) || open_subjects(wanted, r) ||
        sample_open(&r->from, r->baseline.ready.plan, wanted->samples, wanted->seed, &r->drawn) ||
        calibrate_on(r->baseline.ready.plan, &r->drawn, threads, &r->seen) ||
        refuse_overlap(r->seen, &r->images) ||
        evaluate_plan(r->baseline.ready.plan, &r->images, "float", threads, &r->baseline.result))
        return 1;
    for (int i = 0; i < r->models; i++)
        if (measure_subject(r, &r->model[i], threads))
            return 1;
    return wanted->advice ? measure_advice(r, threads) : 0;
}

void close_report(report *r) {
    for (int i = 0; i < MOST_SUBJECTS; i++)
        close_subject(&r->model[i]);
    close_subject(&r->baseline);
    ptq_release(&r->ranking.memory);
    ptq_calibration_free(r->seen);
    sample_close(&r->drawn);
    data_close(r->test);
}
