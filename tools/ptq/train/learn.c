/* Learning on: a quantized model learns, from its codes on and without labels, to give the float
   model's logits. What no layer sees alone, errors that add up behind each other, is seen by the
   logits.

   Steps of Adam on all that the integers are made of: weights, biases, step sizes and zero points.
   The loss is the divergence from the float model's softmax at temperature 2. Images are mirrored
   and shifted, since a thousand are few: the float model answers for each of the variants. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"
#include "shared/engine.h"
#include "shared/output.h"
#include "shared/progress.h"
#include "train/learn.h"
#include "train/run.h"

enum { BATCH = 32, HELD_OUT = 5 /* every so many-th image judges */ };

static const float temperature = 2;

typedef struct learner {
    const learn_options *given;
    const ptq_model *start; /* quantized */
    settings set;
    train_images images, real; /* the same, prepared for the quantized model and for float */
    trainer *teacher;
    float *logits;         /* of the teacher: batch x classes */
    ptq_evaluation float_; /* on the images held out */
    ptq_dataset unlabelled;
    size_t steps, done, total; /* of one factor; of all */
    progress shown;
} learner;

/* ---- Images ---- */

/* A label that nobody asks for: an evaluation wants one. */
static ptq_status get_unlabelled(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const ptq_dataset *base = &((const learner *)user)->images.subset.dataset;
    ptq_status status = base->get(base->user, index, item, label, err);

    *label = 0;
    return status;
}

static int open_images(learner *l) {
    const learn_options *o = l->given;
    ptq_error err;

    if (o->images->count < LEARN_IMAGES)
        return fail("learning on needs at least %d calibration images, of which a fifth judges; "
                    "there are %zu: give more, or take preset best",
                    LEARN_IMAGES, o->images->count);
    if (train_images_split(&l->images, o->images, HELD_OUT))
        return 1;
    if (ptq_subset_open(&l->images.subset, &l->images.base, l->images.held,
                        o->images->count - l->images.count, &err))
        return fail("%s", err.text);
    l->unlabelled = l->images.subset.dataset;
    l->unlabelled.get = get_unlabelled;
    l->unlabelled.user = l;
    l->unlabelled.classes = trainer_classes(l->teacher);
    if (train_images_prepare(&l->images, l->start))
        return 1;
    l->real = l->images;
    l->real.table = NULL;
    return train_images_prepare(&l->real, o->real);
}

static void close_images(learner *l) {
    free(l->real.table);
    train_images_close(&l->images);
}

/* ---- Judging ---- */

static int evaluate(const learner *l, const ptq_plan *plan, ptq_evaluation *out) {
    ptq_evaluate_options options = {0};
    ptq_error err;

    options.work.threads = l->given->threads;
    return ptq_evaluate(plan, &l->unlabelled, &options, out, &err) ? fail("%s", err.text) : 0;
}

/* The integers' divergence from float on the images held out. */
static int judge(const learner *l, const ptq_model *model, double *kl) {
    ptq_evaluation integers = {0};
    ptq_comparison compared = {0};
    ptq_model *copy;
    engine ready;
    ptq_error err;
    int status;

    if (ptq_model_copy(model, NULL, &copy, &err))
        return fail("%s", err.text);
    if (engine_adopt(copy, NULL, &ready))
        return 1;
    status = evaluate(l, ready.plan, &integers);
    engine_close(&ready);
    if (!status && ptq_compare(&l->float_, &integers, &compared, &err))
        status = fail("%s", err.text);
    ptq_release(&integers.memory);
    *kl = compared.kl;
    return status;
}

/* ---- Learning ---- */

static int take_step(learner *l, trainer *student, optimizer *descent, uint64_t epoch, size_t first,
                     double rate) {
    image_batch batch, same;
    trainer_source source = {fill_augmented, &batch}, for_teacher = {fill_augmented, &same};
    trainer_result result;
    ptq_error err;
    int params;
    const trainer_param *param = trainer_params(student, &params);

    batch_begin(&batch, &l->images, &l->set);
    batch_begin(&same, &l->real, &l->set);
    batch.epoch = same.epoch = epoch;
    batch.first = same.first = first;
    trainer_logits(l->teacher, for_teacher, l->set.batch, l->logits);
    trainer_step_towards(student, source, l->set.batch, l->logits, temperature, &result);
    if (batch_end(&batch) | batch_end(&same))
        return 1;
    if (isfinite(result.loss))
        optimizer_step(descent, param, params, trainer_gradient(student), rate,
                       trainer_state(student));
    return trainer_check(student, result.loss, &err) ? fail("learning on: %s", err.text) : 0;
}

static int take_steps(learner *l, trainer *student, optimizer *descent, double rate) {
    size_t epoch = l->images.count / (size_t)l->set.batch;

    for (size_t i = 0; i < l->steps; i++) {
        double now = rate * schedule_factor(i, l->steps / 50, l->steps);

        if (i % epoch == 0) {
            train_images_shuffle(&l->images, &l->set, i / epoch);
            l->real.order = l->images.order;
        }
        if (take_step(l, student, descent, i / epoch, i % epoch * (size_t)l->set.batch, now))
            return 1;
        progress_show(&l->shown, ++l->done, l->total);
    }
    return 0;
}

static int learn_with(learner *l, double factor, ptq_model **out) {
    const optimizer_options adam = {OPTIMIZER_ADAMW, 0.9, 0, 0};
    trainer_options options = {.batch = l->set.batch,
                               .threads = l->given->threads,
                               .momentum = 0.1f,
                               .from_codes = 1,
                               .fixed_zeros = l->given->fixed_zeros};
    trainer *student = NULL;
    optimizer descent = {0};
    ptq_error err;
    int status = 0;

    if (trainer_create(l->start, NULL, &options, &student, &err))
        return fail("%s", err.text);
    if (optimizer_create(&adam, trainer_size(student), trainer_state(student), &descent))
        status = fail("no memory");
    if (!status)
        status = take_steps(l, student, &descent, factor);
    if (!status && (ptq_model_copy(l->start, NULL, out, &err) ||
                    trainer_export(student, trainer_state(student), *out, &err)))
        status = fail("%s", err.text);
    optimizer_free(&descent);
    trainer_free(student);
    return status;
}

static int prepare(learner *l) {
    trainer_options options = {
        .batch = BATCH, .threads = l->given->threads, .momentum = 0.1f, .frozen_norm = 1};
    ptq_error err;

    l->set.batch = BATCH;
    l->set.mirror = 1;
    l->set.shift = 4;
    l->set.seed = (uint64_t)l->given->seed;
    if (trainer_create(l->given->real, NULL, &options, &l->teacher, &err))
        return fail("%s; take preset best", err.text);
    l->logits = calloc(BATCH * (size_t)trainer_classes(l->teacher), sizeof *l->logits);
    if (!l->logits)
        return fail("no memory");
    return open_images(l) || evaluate(l, l->given->plan, &l->float_);
}

int learn_on(const learn_options *options, const ptq_model *quantized, learn_report *report,
             ptq_model **out) {
    learner l;
    double factors[8] = {.003, .01}, kl;
    int n = 2, status;
    const char *e = getenv("LEARN_RATES");

    memset(&l, 0, sizeof l);
    memset(report, 0, sizeof *report);
    l.given = options;
    l.start = quantized;
    *out = NULL;
    status = prepare(&l) || judge(&l, quantized, &report->before);
    if (e) {
        char *p = (char *)e;
        for (n = 0; n < 8 && *p; n++, p += *p == ',')
            factors[n] = strtod(p, &p);
    }
    report->after = report->before;
    report->steps = l.steps = getenv("LEARN_STEPS") ? (size_t)atoi(getenv("LEARN_STEPS")) : 500;
    l.total = (size_t)n * l.steps;
    l.shown = progress_start("learn on");
    fprintf(stderr, "held-out KL before %.6f\n", report->before);
    for (int i = 0; i < n && !status; i++) {
        ptq_model *made = NULL;

        status = learn_with(&l, factors[i], &made) || judge(&l, made, &kl);
        fprintf(stderr, "rate %g: held-out KL %.6f\n", factors[i], kl);
        if (!status && kl < report->after) {
            report->after = kl;
            report->factor = factors[i];
            ptq_model_free(*out);
            *out = made;
            made = NULL;
        }
        ptq_model_free(made);
    }
    progress_end(&l.shown);
    ptq_release(&l.float_.memory);
    close_images(&l);
    trainer_free(l.teacher);
    free(l.logits);
    return status;
}
