/* Learning on: a quantized model learns, from its codes on and without labels, to give the float
   model's logits. What no layer sees alone, errors that add up behind each other, the logits show.

   Adam on all that the integers are made of: weights, biases, step sizes, zero points. The loss is
   the divergence from the float model's softmax at temperature 2. Images are mirrored and shifted,
   since a thousand are few: float answers for each of the variants. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"
#include "shared/engine.h"
#include "shared/interrupt.h"
#include "shared/output.h"
#include "shared/progress.h"
#include "train/checkpoint.h"
#include "train/learn.h"
#include "train/run.h"

/* The usual number of steps for each rate; every so many-th image judges; steps from one checkpoint
   to the next. */
enum { BATCH = 32, STEPS = 500, HELD_OUT = 5, SAVED = 100 };

/* Learning rates to try, of weights, in codes a step. Those of all else are the same for each
   (state.c): how far weights may go before they know the images by heart depends on their bits, and
   steps and zero points, which are few, want to move in any case. At the lowest hardly a weight gets
   as far as the next code in the usual number of steps: then those alone are learned. */
static const double rate_of[] = {0.004, 0.01, 0.02};
enum { RATES = sizeof rate_of / sizeof *rate_of };

/* Every rate sees the same images, so that float answers once; so many answers are kept at most. */
enum { MOST_ANSWERS = 1 << 24 };

/* Two cores, as a number that turns minutes into steps: a clock would make the result depend on the
   machine. Multiply-accumulates a second. */
static const double usual_speed = 4e10;

static const float temperature = 2;

typedef struct learner {
    const learn_options *given;
    const ptq_model *start; /* quantized */
    learn_report *report;
    settings set;
    train_images images, real; /* the same, prepared for the quantized model and for float */
    ptq_dataset unlabelled;    /* those held out */
    ptq_evaluation truth;      /* float on them */
    trainer *teacher, *student;
    float *answers;       /* logits of the teacher: steps x batch x classes */
    char *answered;       /* of each step that has a place there, whether it has its answers */
    size_t kept;          /* such steps; the others share the place behind them */
    trainer_param *param; /* of the student, each with its learning rate */
    int params;
    optimizer descent;
    float *first;             /* the state that every rate begins with */
    float *best;              /* the state that was best so far */
    size_t rate, step, begun; /* which rate, and its finished steps; steps of earlier runs */
    char text[256];           /* settings, for the checkpoint */
    progress shown;
} learner;

/* ---- Images ---- */

int learn_images_open(learn_images *split, const ptq_dataset *images) {
    size_t n = images->count, held = n / HELD_OUT, learned = 0;
    ptq_error err;

    memset(split, 0, sizeof *split);
    if (n < LEARN_IMAGES)
        return fail("learning on needs at least %d calibration images, of which a fifth judges, "
                    "and there are %zu; give more, or take preset best",
                    LEARN_IMAGES, n);
    split->index = malloc(n * sizeof *split->index);
    if (!split->index)
        return fail("no memory for %zu images", n);
    for (size_t i = 0; i < n; i++)
        if (i % HELD_OUT == HELD_OUT - 1)
            split->index[n - held + i / HELD_OUT] = i;
        else
            split->index[learned++] = i;
    return ptq_subset_open(&split->learned, images, split->index, learned, &err) ||
                   ptq_subset_open(&split->held, images, split->index + learned, held, &err)
               ? fail("%s", err.text)
               : 0;
}

void learn_images_close(learn_images *split) {
    free(split->index);
    memset(split, 0, sizeof *split);
}

/* A label that nobody asks for: an evaluation wants one. */
static ptq_status get_unlabelled(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const ptq_dataset *base = &((const learner *)user)->given->images->held.dataset;
    ptq_status status = base->get(base->user, index, item, label, err);

    *label = 0;
    return status;
}

static int open_images(learner *l) {
    const learn_images *split = l->given->images;

    l->report->learned = split->learned.dataset.count;
    l->report->held = split->held.dataset.count;
    l->unlabelled = split->held.dataset;
    l->unlabelled.get = get_unlabelled;
    l->unlabelled.user = l;
    l->unlabelled.classes = trainer_classes(l->teacher);
    if (train_images_adopt(&l->images, &split->learned.dataset) ||
        train_images_prepare(&l->images, l->start))
        return 1;
    l->real = l->images;
    l->real.table = NULL;
    return train_images_prepare(&l->real, l->given->real);
}

/* Features have no left and right. */
static void choose_augmentation(learner *l) {
    const ptq_dataset *base = &l->given->images->learned.dataset;
    int smaller = base->height < base->width ? base->height : base->width;

    l->set.batch = BATCH;
    l->set.seed = (uint64_t)l->given->seed;
    if (base->type != PTQ_TYPE_U8)
        return;
    l->set.mirror = 1;
    l->set.shift = smaller / 8;
}

/* ---- Judging ---- */

static int evaluate(const learner *l, const ptq_plan *plan, ptq_evaluation *out) {
    ptq_evaluate_options options = {0};
    ptq_error err;

    options.work.threads = l->given->threads;
    return ptq_evaluate(plan, &l->unlabelled, &options, out, &err) ? fail("%s", err.text) : 0;
}

/* The integers' divergence from float on the images held out; the model belongs to this call. */
static int judge(const learner *l, ptq_model *model, double *kl) {
    ptq_evaluation integers = {0};
    ptq_comparison compared = {0};
    engine ready;
    ptq_error err;
    int status;

    if (engine_adopt(model, NULL, &ready))
        return 1;
    status = evaluate(l, ready.plan, &integers);
    engine_close(&ready);
    if (!status && ptq_compare(&l->truth, &integers, &compared, &err))
        status = fail("%s", err.text);
    ptq_release(&integers.memory);
    *kl = compared.kl;
    return status;
}

/* The integers that a state stands for. */
static int make_model(const learner *l, const float *state, ptq_model **out) {
    ptq_error err;

    *out = NULL;
    if (!ptq_model_copy(l->start, NULL, out, &err) &&
        (!state || !trainer_export(l->student, state, *out, &err)))
        return 0;
    ptq_model_free(*out);
    *out = NULL;
    return fail("%s", err.text);
}

static int judge_state(const learner *l, const float *state, double *kl) {
    ptq_model *model;

    return make_model(l, state, &model) || judge(l, model, kl);
}

/* ---- Interruptions ---- */

enum { VECTORS = 4 };

static void checkpoint_vectors(learner *l, checkpoint_vector vector[VECTORS]) {
    size_t n = l->descent.size;

    vector[0] = (checkpoint_vector){"state", trainer_state(l->student), n};
    vector[1] = (checkpoint_vector){"first", l->descent.first, n};
    vector[2] = (checkpoint_vector){"second", l->descent.second, n};
    vector[3] = (checkpoint_vector){"best", l->best, n};
}

static int save(learner *l) {
    checkpoint_vector vector[VECTORS];
    char position[128];
    const checkpoint_texts texts = {l->text, position, NULL};

    if (!l->given->checkpoint)
        return 0;
    checkpoint_vectors(l, vector);
    snprintf(position, sizeof position, "%zu %zu %a %a", l->rate, l->step, l->report->rate,
             l->report->after);
    return checkpoint_write(l->given->checkpoint, vector, VECTORS, &texts);
}

static int restore_position(learner *l, const char *text) {
    learn_report *r = l->report;

    if (sscanf(text, "%zu %zu %la %la", &l->rate, &l->step, &r->rate, &r->after) != 4 ||
        l->rate >= RATES || l->step > r->steps || !(r->after >= 0 && r->after <= r->before))
        return fail("%s: damaged position '%.80s'; begin anew without --resume",
                    l->given->checkpoint, text);
    l->descent.steps = l->step;
    l->begun = l->rate * r->steps + l->step;
    return 0;
}

static int restore(learner *l) {
    checkpoint_vector vector[VECTORS];
    checkpoint_texts texts;
    ptq_archive *archive;
    int status;

    if (!l->given->resume)
        return 0;
    checkpoint_vectors(l, vector);
    status = checkpoint_read(l->given->checkpoint, l->text, vector, VECTORS, &texts, &archive) ||
             (archive && restore_position(l, texts.position));
    ptq_archive_free(archive);
    return status;
}

static int stop(learner *l) {
    if (save(l))
        return 1;
    return fail("interrupted after %zu of %zu steps; %s", l->rate * l->report->steps + l->step,
                RATES * l->report->steps,
                l->given->checkpoint ? "--resume goes on"
                                     : "without --checkpoint nothing was kept");
}

/* ---- Learning ---- */

/* The images of this step, as one of the two models takes them. */
static void begin_batch(const learner *l, const train_images *from, image_batch *batch) {
    size_t epoch = l->images.count / (size_t)l->set.batch;

    batch_begin(batch, from, &l->set);
    batch->epoch = l->step / epoch;
    batch->first = l->step % epoch * (size_t)l->set.batch;
}

static int ask_teacher(learner *l, const float **answers) {
    size_t place = l->step < l->kept ? l->step : l->kept;
    float *to = l->answers + place * BATCH * (size_t)trainer_classes(l->teacher);
    image_batch batch;
    trainer_source source = {fill_augmented, &batch};

    *answers = to;
    if (l->answered[place])
        return 0;
    begin_batch(l, &l->real, &batch);
    trainer_logits(l->teacher, source, l->set.batch, to);
    l->answered[place] = place < l->kept;
    return batch_end(&batch);
}

static int take_step(learner *l) {
    image_batch batch;
    trainer_source source = {fill_augmented, &batch};
    size_t steps = l->report->steps;
    const float *answers;
    trainer_result result;
    ptq_error err;

    if (ask_teacher(l, &answers))
        return 1;
    begin_batch(l, &l->images, &batch);
    trainer_step_towards(l->student, source, l->set.batch, answers, temperature, &result);
    if (batch_end(&batch))
        return 1;
    if (isfinite(result.loss))
        optimizer_step(&l->descent, l->param, l->params, trainer_gradient(l->student),
                       schedule_factor(l->step, steps / 50, steps), trainer_state(l->student));
    if (trainer_check(l->student, result.loss, &err))
        return fail("learning on: %s", err.text);
    l->step++;
    return 0;
}

static int take_steps(learner *l) {
    size_t epoch = l->images.count / (size_t)l->set.batch, begun = l->step;

    while (l->step < l->report->steps) {
        if (l->step == begun || l->step % epoch == 0)
            train_images_shuffle(&l->images, &l->set, l->step / epoch);
        if (interrupts_came())
            return stop(l);
        if (take_step(l) || (l->step % SAVED == 0 && save(l)))
            return 1;
        progress_show(&l->shown, l->rate * l->report->steps + l->step - l->begun,
                      RATES * l->report->steps - l->begun);
    }
    return 0;
}

/* Every rate from the same start. */
static void begin_rate(learner *l) {
    size_t bytes = l->descent.size * sizeof(float);

    memcpy(trainer_state(l->student), l->first, bytes);
    memset(l->descent.first, 0, bytes);
    memset(l->descent.second, 0, bytes);
    l->descent.steps = 0;
    l->step = 0;
}

static void set_weight_rate(learner *l) {
    for (int i = 0; i < l->params; i++)
        if (l->param[i].param == PTQ_PARAM_WEIGHT)
            l->param[i].rate = (float)rate_of[l->rate];
}

static int try_rates(learner *l) {
    const float *state = trainer_state(l->student);
    double kl;

    for (; l->rate < RATES; l->rate++, begin_rate(l)) {
        set_weight_rate(l);
        if (take_steps(l) || judge_state(l, state, &kl))
            return 1;
        if (kl >= l->report->after)
            continue;
        l->report->after = kl;
        l->report->rate = rate_of[l->rate];
        memcpy(l->best, state, l->descent.size * sizeof *state);
    }
    return 0;
}

/* ---- All of it ---- */

static size_t count_steps(const ptq_model *real, double minutes) {
    double macs = 0, steps;

    for (int i = 0; i < real->nodes; i++)
        macs += (double)ptq_node_cost(real, i).macs;
    /* forward and twice backward for each rate, and the teacher forward */
    steps = 60 * minutes * usual_speed / ((3 * RATES + 1) * macs * BATCH);
    return minutes > 0 ? (size_t)(steps < 1 ? 1 : steps > 1e6 ? 1e6 : steps) : STEPS;
}

static int make_room(learner *l) {
    size_t size = trainer_size(l->student), steps = l->report->steps;
    size_t batch = BATCH * (size_t)trainer_classes(l->teacher);
    const optimizer_options adam = {OPTIMIZER_ADAMW, 0.9, 0, 0};
    const trainer_param *param = trainer_params(l->student, &l->params);

    l->kept = steps < MOST_ANSWERS / batch ? steps : MOST_ANSWERS / batch;
    l->answers = calloc(l->kept + 1, batch * sizeof *l->answers);
    l->answered = calloc(l->kept + 1, 1);
    l->param = malloc((size_t)l->params * sizeof *l->param);
    l->first = malloc(size * sizeof *l->first);
    l->best = calloc(size, sizeof *l->best);
    if (!l->answers || !l->answered || !l->param || !l->first || !l->best ||
        optimizer_create(&adam, size, trainer_state(l->student), &l->descent))
        return fail("no memory to learn on");
    memcpy(l->param, param, (size_t)l->params * sizeof *l->param);
    memcpy(l->first, trainer_state(l->student), size * sizeof *l->first);
    return 0;
}

static int start_engines(learner *l) {
    trainer_options options = {.batch = BATCH, .threads = l->given->threads, .momentum = 0.1f};
    ptq_error err;

    if (trainer_create(l->given->real, NULL, &options, &l->teacher, &err))
        return fail("%s", err.text);
    options.from_codes = 1;
    options.fixed_zeros = l->given->fixed_zeros;
    if (trainer_create(l->start, NULL, &options, &l->student, &err))
        return fail("%s", err.text);
    return make_room(l);
}

static int prepare(learner *l) {
    learn_report *r = l->report;

    choose_augmentation(l);
    r->steps = count_steps(l->given->real, l->given->minutes);
    if (start_engines(l) || open_images(l) || evaluate(l, l->given->plan, &l->truth) ||
        judge_state(l, NULL, &r->before))
        return 1;
    r->after = r->before;
    snprintf(l->text, sizeof l->text,
             "learning on: %d rates, %zu steps, %zu images, seed %d, from %a", RATES, r->steps,
             r->learned, l->given->seed, r->before);
    return restore(l);
}

static void close_learner(learner *l) {
    ptq_release(&l->truth.memory);
    free(l->real.table);
    train_images_close(&l->images);
    trainer_free(l->teacher);
    trainer_free(l->student);
    optimizer_free(&l->descent);
    free(l->answers);
    free(l->answered);
    free(l->param);
    free(l->first);
    free(l->best);
}

int learn_check(const ptq_model *real) {
    trainer_options options = {.batch = 1, .threads = 1, .momentum = 0.1f};
    trainer *trial;
    ptq_error err;

    if (trainer_create(real, NULL, &options, &trial, &err))
        return fail("learning on: %s; take preset best", err.text);
    trainer_free(trial);
    return 0;
}

int learn_on(const learn_options *options, const ptq_model *quantized, learn_report *report,
             ptq_model **out) {
    learner l;
    int status;

    memset(&l, 0, sizeof l);
    memset(report, 0, sizeof *report);
    l.given = options;
    l.start = quantized;
    l.report = report;
    *out = NULL;
    l.shown = progress_start("learn on");
    interrupts_watch();
    status = prepare(&l) || try_rates(&l);
    interrupts_unwatch();
    progress_end(&l.shown);
    if (!status && report->rate > 0)
        status = make_model(&l, l.best, out);
    close_learner(&l);
    return status;
}
