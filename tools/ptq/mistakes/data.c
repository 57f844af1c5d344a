/* Mistakes made with images, and with the numbers that go into a file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/images.h"
#include "measure/accuracy.h"
#include "mistakes/mistake.h"
#include "ptq.h"
#include "shared/output.h"

static int measure_right(const lab *at) {
    return measure_model("right", at, at->quantized, &at->images);
}

/* ---- Calibration ---- */

/* Pictures of random bytes, and grey ones, of the shape of a data set. */
static ptq_status get_noise(void *user, size_t index, void *item, int *label, ptq_error *err) {
    uint8_t *pixels = item;
    const ptq_dataset *like = user;
    size_t n = (size_t)like->height * (size_t)like->width * (size_t)like->channels;
    ptq_rng rng;

    (void)err;
    ptq_rng_seed(&rng, 1, index);
    for (size_t i = 0; i < n; i++)
        pixels[i] = (uint8_t)ptq_rng_below(&rng, 256);
    *label = (int)(index % (size_t)like->classes);
    return PTQ_OK;
}

static ptq_status get_grey(void *user, size_t index, void *pixels, int *label, ptq_error *err) {
    const ptq_dataset *like = user;

    (void)err;
    memset(pixels, 128, (size_t)like->height * (size_t)like->width * (size_t)like->channels);
    *label = (int)(index % (size_t)like->classes);
    return PTQ_OK;
}

static int measure_images(const char *how, const lab *at, const ptq_dataset *images) {
    ptq_calibration *seen = NULL;
    int status = calibrate_any(at->real.model, images, 1, &seen) ||
                 measure_calibration(how, at, seen, &at->scheme);

    ptq_calibration_free(seen);
    return status;
}

/* What the library says to such images; it must refuse them. */
static int show_refusal(const lab *at, const ptq_dataset *images) {
    ptq_calibration *seen = NULL;
    ptq_error err;

    if (!ptq_calibrate(at->real.plan, images, NULL, &seen, &err)) {
        ptq_calibration_free(seen);
        return fail("ptq_calibrate took images that it should refuse");
    }
    print_guard("ptq_calibrate", err.text);
    return 0;
}

int mistake_random(lab *at) {
    ptq_dataset noise = at->drawn.subset.dataset, grey;

    noise.user = &at->drawn.subset.dataset;
    noise.get = get_noise;
    grey = noise;
    grey.get = get_grey;
    if (measure_right(at) || measure_images("calibrated on random pixels", at, &noise) ||
        measure_images("calibrated on grey pictures", at, &grey))
        return 1;
    say("\n");
    return show_refusal(at, &noise) || show_refusal(at, &grey);
}

/* The first images of a sample that is drawn for this number. */
static int measure_few(const lab *at, int count, int warn_too) {
    image_sample drawn;
    ptq_calibration *seen = NULL;
    char how[64];
    int status;

    if (sample_open(&at->from, at->real.plan, count, at->seed, &drawn))
        return 1;
    snprintf(how, sizeof how, "calibrated on %d image%s", count, count == 1 ? "" : "s");
    status = calibrate_any(at->real.model, &drawn.subset.dataset, 1, &seen);
    if (!status && !warn_too)
        status = measure_calibration(how, at, seen, &at->scheme);
    else if (!status)
        print_warning_guards(seen);
    ptq_calibration_free(seen);
    sample_close(&drawn);
    return status;
}

int mistake_few(lab *at) {
    static const int counts[] = {1, 2, 5, 10, 30};

    if (measure_right(at))
        return 1;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (measure_few(at, counts[i], 0))
            return 1;
    say("\n");
    return measure_few(at, 5, 1);
}

/* ---- Preprocessing ---- */

/* Blue, green, red: what some picture readers deliver. */
static ptq_status get_reversed(void *user, size_t index, void *item, int *label, ptq_error *err) {
    uint8_t *pixels = item;
    const ptq_dataset *base = user;
    ptq_status status = base->get(base->user, index, pixels, label, err);
    size_t n = (size_t)base->height * (size_t)base->width;

    for (size_t i = 0; i < n && !status && base->channels == 3; i++) {
        uint8_t red = pixels[3 * i];

        pixels[3 * i] = pixels[3 * i + 2];
        pixels[3 * i + 2] = red;
    }
    return status;
}

static ptq_dataset reversed(const ptq_dataset *base) {
    ptq_dataset made = *base;

    made.user = (void *)base;
    made.get = get_reversed;
    return made;
}

/* The float model with pixels of 0 to 1 where it learned from 0 to 255. */
static int scale_pixels(const lab *at, ptq_model **out) {
    ptq_error err;

    if (ptq_model_copy(at->real.model, NULL, out, &err))
        return fail("%s", err.text);
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++) {
        (*out)->mean[c] *= 255;
        (*out)->std[c] *= 255;
    }
    return 0;
}

/* Ranges that a differently prepared model reached, given out for those of the right one. */
static int measure_forged(const lab *at, const ptq_model *scaled, ptq_error *refusal) {
    ptq_calibration *seen = NULL;
    ptq_convert_options options = {0};
    ptq_model *made = NULL;
    int status = calibrate_any(scaled, &at->drawn.subset.dataset, 0, &seen);

    options.scheme = at->scheme;
    if (!status && !ptq_convert(at->real.model, seen, &options, &made, NULL, refusal)) {
        ptq_model_free(made);
        status = fail("ptq_convert took the calibration of another model");
    }
    if (!status) {
        seen->model = ptq_model_hash(at->real.model);
        status =
            measure_calibration("calibrated on pixels / 255, run on 0..255", at, seen, &at->scheme);
    }
    ptq_calibration_free(seen);
    return status;
}

int mistake_preprocessing(lab *at) {
    ptq_dataset swapped = reversed(&at->images), learned = reversed(&at->drawn.subset.dataset);
    ptq_model *scaled = NULL;
    ptq_error refusal;
    int status = measure_right(at) || scale_pixels(at, &scaled) ||
                 measure_model("float, run on pixels / 255", at, scaled, &at->images) ||
                 measure_forged(at, scaled, &refusal) ||
                 measure_model("run on blue, green, red", at, at->quantized, &swapped) ||
                 measure_images("calibrated on blue, green, red", at, &learned);

    if (!status) {
        say("\n");
        print_guard("ptq_convert", refusal.text);
        say("guard     against a wrong order of colours: none but the accuracy\n");
    }
    ptq_model_free(scaled);
    return status;
}

/* ---- Scales ---- */

static int copy_right(const lab *at, ptq_model **out) {
    ptq_error err;

    if (ptq_model_copy(at->quantized, NULL, out, &err) || ptq_self_test_add(*out, &err))
        return fail("%s", err.text);
    return 0;
}

/* As a format would that has room for one scale a tensor. */
static void keep_first_scales(ptq_model *model) {
    for (int i = 0; i < model->nodes; i++) {
        ptq_tensor *weight = &model->node[i].param[PTQ_PARAM_WEIGHT];

        for (int c = 1; c < weight->scales; c++)
            weight->scale[c] = weight->scale[0];
    }
}

/* As printf("%.2f") would. */
static void keep_two_decimals(ptq_model *model) {
    for (int i = 0; i < model->nodes; i++) {
        ptq_qparams *q[2];

        q[0] = &model->node[i].q;
        q[1] = &model->node[i].mid;
        for (int k = 0; k < 2; k++) {
            float rounded = (float)(int)(q[k]->scale * 100 + 0.5f) / 100;

            if (q[k]->type != PTQ_TYPE_F32)
                q[k]->scale = rounded > 0 ? rounded : 0.01f;
        }
    }
}

static void keep_half_precision(ptq_model *model) {
    for (int i = 0; i < model->nodes; i++)
        if (model->node[i].q.type != PTQ_TYPE_F32)
            model->node[i].q.scale = ptq_f16_to_f32(ptq_f32_to_f16(model->node[i].q.scale));
}

static int measure_loss(const char *how, const lab *at, void (*lose)(ptq_model *), int guard) {
    ptq_model *made = NULL;
    ptq_plan *plan = NULL;
    ptq_error err;
    int status = copy_right(at, &made);

    if (!status) {
        lose(made);
        status = make_plan(made, &plan);
    }
    if (!status && !guard)
        status = measure_plan(how, at, plan, &at->images);
    else if (!status && ptq_self_test_check(plan, &err))
        print_guard("ptq_self_test_check", err.text);
    ptq_plan_free(plan);
    ptq_model_free(made);
    return status;
}

/* A file without one of its scales. */
static int without_a_scale(const ptq_archive *whole, ptq_error *err) {
    ptq_archive *part = NULL;
    ptq_model *model = NULL;
    void *bytes = NULL;
    size_t size;
    ptq_status status = ptq_archive_create(NULL, &part, err);

    for (int i = 0; i < whole->metas && !status; i++)
        status = ptq_archive_set_meta(part, whole->meta[i].key, whole->meta[i].value, err);
    for (int i = 0; i < whole->entries && !status; i++)
        if (strcmp(whole->entry[i].name, "fc.weight_scale") != 0)
            status = ptq_archive_add(part, whole->entry[i].name, &whole->entry[i].tensor, err);
    if (!status)
        status = ptq_archive_write(part, &bytes, &size, err);
    ptq_archive_free(part);
    if (status)
        return fail("%s", err->text);
    status = ptq_model_parse(bytes, size, NULL, &model, err);
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(model);
    return status ? 0 : fail("a file without fc.weight_scale was loaded");
}

static int show_missing(const lab *at) {
    ptq_archive *whole = NULL;
    void *bytes = NULL;
    size_t size;
    ptq_error err;
    int status;

    if (ptq_model_find(at->quantized, "fc") < 0)
        return 0;
    if (ptq_model_write(at->quantized, &bytes, &size, &err))
        return fail("%s", err.text);
    status = ptq_archive_parse(bytes, size, NULL, &whole, &err) ? fail("%s", err.text)
                                                                : without_a_scale(whole, &err);
    if (!status)
        print_guard("ptq_model_load, a scale left out", err.text);
    ptq_archive_free(whole);
    ptq_bytes_free(bytes, NULL);
    return status;
}

int mistake_scale(lab *at) {
    if (measure_right(at) ||
        measure_loss("one weight scale a tensor saved, the first", at, keep_first_scales, 0) ||
        measure_loss("activation scales saved with 2 decimals", at, keep_two_decimals, 0) ||
        measure_loss("activation scales saved as float16", at, keep_half_precision, 0))
        return 1;
    say("\n");
    return measure_loss("", at, keep_first_scales, 1) ||
           measure_loss("", at, keep_two_decimals, 1) ||
           measure_loss("", at, keep_half_precision, 1) || show_missing(at);
}

/* ---- Comparing ---- */

#define MOST_PARTS 64

int check_parts(const lab *at) {
    size_t all = data_view(at->test)->count;

    return all / at->images.count < 2
               ? fail("the test set has %zu images; take a --limit of at most half of them", all)
               : 0;
}

/* Accuracy in percent on images that follow each other. */
static double share_right(const ptq_evaluation *all, size_t from, size_t count) {
    size_t right = 0;

    for (size_t i = from; i < from + count; i++)
        right += all->prediction[i] == all->label[i];
    return 100 * fraction(right, count);
}

static void show_parts(const lab *at, const ptq_evaluation *real, const ptq_evaluation *coded) {
    size_t part = at->images.count, parts = real->total / part;
    double least = 100, most = -100, same_least = 100, same_most = -100;

    if (parts > MOST_PARTS)
        parts = MOST_PARTS;
    for (size_t a = 0; a < parts; a++)
        for (size_t b = 0; b < parts; b++) {
            double change = share_right(coded, b * part, part) - share_right(real, a * part, part);

            if (a == b) {
                same_least = change < same_least ? change : same_least;
                same_most = change > same_most ? change : same_most;
            } else {
                least = change < least ? change : least;
                most = change > most ? change : most;
            }
        }
    say("\n%zu parts of %zu test images; change from float to integers, points\n", parts, part);
    say("  both on the same part:    %+.2f to %+.2f\n", same_least + 0.0, same_most + 0.0);
    say("  on two different parts:   %+.2f to %+.2f\n", least + 0.0, most + 0.0);
}

static int show_pair(const ptq_evaluation *real, const ptq_evaluation *coded) {
    ptq_evaluation fewer = *coded;
    ptq_comparison compared;
    ptq_error err;

    if (ptq_compare(real, coded, &compared, &err))
        return fail("%s", err.text);
    say("  all %zu, image by image: %+.2f, 95 %% interval %+.2f to %+.2f\n\n", compared.total,
        compared.delta_pp + 0.0, compared.low_pp + 0.0, compared.high_pp + 0.0);
    fewer.total--;
    if (!ptq_compare(real, &fewer, &compared, &err))
        return fail("ptq_compare took evaluations of different images");
    print_guard("ptq_compare", err.text);
    return 0;
}

int mistake_runs(lab *at) {
    ptq_dataset all = *data_view(at->test);
    ptq_evaluation real = {0}, coded = {0};
    ptq_plan *plan = NULL;
    int status = measure_right(at) || make_plan(at->quantized, &plan);

    if (!status)
        status = evaluate_plan(at->real.plan, &all, "float", 0, &real) ||
                 evaluate_plan(plan, &all, "integers", 0, &coded);
    if (!status) {
        show_parts(at, &real, &coded);
        status = show_pair(&real, &coded);
    }
    ptq_release(&real.memory);
    ptq_release(&coded.memory);
    ptq_plan_free(plan);
    return status;
}
