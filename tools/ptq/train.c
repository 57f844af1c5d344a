/* ptq train: trains a float model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/interrupt.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/progress.h"
#include "train/run.h"

/* ---- Options ---- */

static const command_help help = {
    "train --data PATH -o MODEL [OPTIONS]",
    "Trains a float network by gradient descent; the test images are never read. The same seed "
    "gives\n"
    "the same weights on the same machine, whatever the number of threads and interruptions.\n\n"
    "With --qat, quantization-aware training: QUANTIZED, from ptq quantize, says what is quantized "
    "and\n"
    "how, by any scheme of integers; --model is the float model that it was made from. Weights "
    "and\n"
    "scales are trained under the rounding, and an integer model is written.",
    "ptq train --data pictures --mirror --shift 4 -o resnet8.safetensors"};

static int parse_train_options(int argc, char **argv, train_options *o) {
    const option_spec specs[] = {
        DATA_OPTIONS(&o->data),
        DATA_LIMIT_OPTION(&o->data),
        {"output", 'o', "MODEL", "where to write the trained model", .text = &o->output,
         .file = WRITTEN_FILE},
        {"model", 'm', "MODEL", "start from this float model, not from random weights",
         .text = &o->model, .file = READ_FILE},
        {"qat", 'q', "QUANTIZED", "fine-tune --model for the integers of this quantized model",
         .text = &o->qat, .file = READ_FILE},
        {"new-head", 0, NULL, "a new last layer for --model, even if it has as many classes",
         .flag = &o->new_head},
        {"freeze", 0, NULL, "train the last layer of --model alone", .flag = &o->freeze},
        {"graph", 'g', "FILE", "graph text of the network; default ResNet8", .text = &o->graph,
         .file = READ_FILE},
        {"epochs", 'e', "N", "times through the training images; default 60", .number = &o->epochs,
         .least = 1},
        {"batch", 'b', "N", "images in a step; default 128", .number = &o->batch, .least = 1},
        {"optimizer", 0, "NAME", "sgd (Nesterov momentum; default) or adamw (default with --qat)",
         .text = &o->optimizer},
        {"rate", 'r', "X", "highest learning rate; default 0.1, adamw 0.001, with --qat 0.005",
         .text = &o->rate},
        {"momentum", 0, "X", "momentum, or beta1 of adamw; default 0.9", .text = &o->momentum},
        {"decay", 0, "X", "weight decay; default 0.0005; 0 with --qat", .text = &o->decay},
        {"warmup", 0, "X", "epochs until the highest rate; default 1", .text = &o->warmup},
        {"smoothing", 0, "X", "label smoothing; default 0", .text = &o->smoothing},
        {"average", 0, "X",
         "average of the weights: share kept at each step; default 0.999, 0: none",
         .text = &o->average},
        {"shift", 0, "N", "move images by up to N pixels", .number = &o->shift},
        {"mirror", 0, NULL, "mirror every other image", .flag = &o->mirror},
        {"cutout", 0, "N", "blank a square of N x N pixels", .number = &o->cutout},
        {"resize", 0, "HOW", "pictures to the network's size: crop (default) or stretch",
         .text = &o->resize},
        {"mean", 0, "A,B,C", "per channel, of pixels 0..255; default: the graph's, else the data's",
         .text = &o->mean},
        {"std", 0, "A,B,C", "likewise", .text = &o->std},
        {"holdout", 0, "N", "keep N training images, balanced over classes, for validation",
         .number = &o->holdout},
        {"seed", 's', "N", "of weights, order, augmentation, hold-out; default 1",
         .number = &o->seed},
        {"checkpoint", 'c', "FILE", "written after every epoch and when interrupted",
         .text = &o->checkpoint, .file = WRITTEN_FILE},
        {"resume", 0, NULL, "go on from the checkpoint if there is one", .flag = &o->resume},
        {"log", 'l', "FILE", "a line of CSV for every epoch", .text = &o->log,
         .file = WRITTEN_FILE},
        {"threads", 't', "N", "default: the number of cores", .number = &o->threads, .least = 1},
        {"isa", 0, "NAME", "plain, avx2 or avx512; default: the best of this processor",
         .text = &o->isa},
        {0}};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

static int read_number(const char *name, const char *text, double standard, double low, double high,
                       double *out) {
    char *end;

    *out = standard;
    if (!text)
        return 0;
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= low && *out <= high))
        return misuse("--%s must be a number from %g to %g, not '%s'", name, low, high, text);
    return 0;
}

static int read_settings(const train_options *o, settings *s) {
    int adam = o->optimizer ? strcmp(o->optimizer, "adamw") == 0 : o->qat != NULL;

    if (o->optimizer && !adam && strcmp(o->optimizer, "sgd") != 0)
        return misuse("unknown optimizer '%s'; choose sgd or adamw", o->optimizer);
    s->optimizer.kind = adam ? OPTIMIZER_ADAMW : OPTIMIZER_SGD;
    s->quantized = o->qat != NULL;
    s->epochs = o->epochs ? o->epochs : 60;
    s->batch = o->batch ? o->batch : 128;
    s->shift = o->shift;
    s->mirror = o->mirror;
    s->cutout = o->cutout;
    s->holdout = o->holdout;
    s->freeze = o->freeze;
    s->seed = (uint64_t)o->seed;
    return read_number("rate", o->rate, adam ? (o->qat ? 0.005 : 0.001) : 0.1, 0, 1e3, &s->rate) ||
           read_number("momentum", o->momentum, 0.9, 0, 0.9999, &s->optimizer.momentum) ||
           read_number("decay", o->decay, o->qat ? 0 : 0.0005, 0, 1e3, &s->optimizer.decay) ||
           read_number("warmup", o->warmup, 1, 0, 1e6, &s->warmup) ||
           read_number("smoothing", o->smoothing, 0, 0, 0.999, &s->smoothing) ||
           read_number("average", o->average, 0.999, 0, 0.999999, &s->optimizer.average);
}

/* For the checkpoint, which only serves a run with the same text, and for the model. */
static void write_settings(const settings *s, char *text, size_t size) {
    snprintf(text, size,
             "%s rate %.9g momentum %.9g decay %.9g average %.9g warmup %.9g smoothing %.9g epochs "
             "%d batch %d shift %d mirror %d cutout %d holdout %d seed %llu%s%s",
             s->optimizer.kind == OPTIMIZER_SGD ? "sgd" : "adamw", s->rate, s->optimizer.momentum,
             s->optimizer.decay, s->optimizer.average, s->warmup, s->smoothing, s->epochs, s->batch,
             s->shift, s->mirror, s->cutout, s->holdout, (unsigned long long)s->seed,
             s->quantized ? " quantization-aware" : "", s->freeze ? " last layer alone" : "");
}

/* ---- The log ---- */

static int append_history(run *r, const char *line) {
    size_t length = strlen(r->history), more = strlen(line);
    char *longer = realloc(r->history, length + more + 1);

    if (!longer)
        return fail("no memory for the log");
    memcpy(longer + length, line, more + 1);
    r->history = longer;
    return 0;
}

static int write_log(const run *r) {
    ptq_error err;

    if (r->options.log && ptq_file_write(r->options.log, r->history, strlen(r->history), &err))
        return fail("%s", err.text);
    return 0;
}

/* ---- Epochs ---- */

static double rate_now(const run *r) {
    uint64_t warmup = (uint64_t)(r->set.warmup * (double)r->steps);

    return r->set.rate *
           schedule_factor(r->descent.steps, warmup, r->steps * (uint64_t)r->set.epochs);
}

/* The mean over the first 50 steps, then one that follows slowly. A step that takes many times as
   long as others was stopped, or the machine slept. */
static void measure_pace(run *r, double seconds) {
    if (r->timed && seconds >= 20 * r->pace)
        return;
    r->timed += r->timed < 50;
    r->pace += (seconds - r->pace) / r->timed;
}

static int end_epoch(run *r) {
    double images_seen = (double)(r->steps * (uint64_t)r->set.batch), held;
    double loss = r->loss / (double)r->steps, accuracy = 100 * (double)r->correct / images_seen;
    double left = (double)((uint64_t)r->set.epochs - r->epoch - 1) * (double)r->steps * r->pace;
    char line[256], validated[64] = "";

    if (heldout_validate(r, &held))
        return 1;
    snprintf(line, sizeof line, "%d,%.6g,%.6f,%.4f,", (int)r->epoch + 1, rate_now(r), loss,
             accuracy);
    if (append_history(r, line))
        return 1;
    if (held >= 0)
        snprintf(validated, sizeof validated, ", held-out %.2f %%", held);
    snprintf(line, sizeof line, held >= 0 ? "%.4f\n" : "\n", held);
    if (append_history(r, line))
        return 1;
    say("epoch %d of %d: loss %.4f, accuracy %.2f %%%s, %.0f images/s, %.0f s left\n",
        (int)r->epoch + 1, r->set.epochs, loss, accuracy, validated, (double)r->set.batch / r->pace,
        left);
    fflush(stdout);
    r->epoch++;
    r->step = 0;
    r->loss = 0;
    r->correct = 0;
    return write_log(r) || checkpoint_save(r);
}

static int take_step(run *r) {
    image_batch batch;
    trainer_source source = {fill_augmented, &batch};
    trainer_result result;
    ptq_error err;
    int params;
    const trainer_param *param = trainer_params(r->engine, &params);
    double start = seconds_now();

    batch_begin(&batch, &r->data, &r->set);
    batch.epoch = r->epoch;
    batch.first = (size_t)r->step * (size_t)r->set.batch;
    trainer_step(r->engine, source, r->set.batch, (float)r->set.smoothing, &result);
    if (batch_end(&batch))
        return 1;
    while (r->set.freeze && params > 0 && param->node != ptq_model_logits(r->model))
        param++, params--;
    if (isfinite(result.loss))
        optimizer_step(&r->descent, param, params, trainer_gradient(r->engine), rate_now(r),
                       trainer_state(r->engine));
    if (trainer_check(r->engine, result.loss, &err))
        return fail("epoch %d, step %d: %s; use a smaller --rate", (int)r->epoch + 1,
                    (int)r->step + 1, err.text);
    r->loss += result.loss;
    r->correct += (uint64_t)result.correct;
    r->step++;
    measure_pace(r, seconds_now() - start);
    return 0;
}

static int run_epoch(run *r) {
    progress shown = progress_start("training");

    train_images_shuffle(&r->data, &r->set, r->epoch);
    while (r->step < r->steps && !interrupts_came()) {
        if (take_step(r)) {
            progress_end(&shown);
            return 1;
        }
        progress_show(&shown, r->step * (size_t)r->set.batch, r->steps * (size_t)r->set.batch);
    }
    progress_end(&shown);
    if (r->step == r->steps)
        return end_epoch(r);
    if (checkpoint_save(r))
        return 1;
    return fail("interrupted in epoch %d; %s", (int)r->epoch + 1,
                r->options.checkpoint ? "--resume goes on"
                                      : "without --checkpoint nothing was kept");
}

/* What the quantized model's metadata said about its old weights holds no longer. */
static int renew_metadata(run *r) {
    ptq_error err;

    if (ptq_model_set_meta(r->result, "training", r->text, &err) ||
        (r->set.quantized && (ptq_model_set_meta(r->result, "accuracy", NULL, &err) ||
                              ptq_self_test_add(r->result, &err))))
        return fail("%s", err.text);
    return 0;
}

static int write_result(run *r) {
    ptq_error err;

    if (trainer_export(r->engine, best_state(r), r->result, &err))
        return fail("%s", err.text);
    if (renew_metadata(r) || heldout_compare(r))
        return 1;
    if (ptq_model_save(r->result, r->options.output, &err))
        return fail("%s", err.text);
    say_written(r->options.output, "%zu parameters", trainer_size(r->engine));
    return 0;
}

static int prepare(run *r) {
    trainer_options options = {.batch = r->set.batch,
                               .threads = r->options.threads,
                               .isa = r->options.isa,
                               .momentum = 0.1f,
                               .frozen_norm = r->set.freeze};
    ptq_error err;

    if (train_images_open(&r->options.data, &r->set, &r->data) ||
        network_open(&r->options, &r->data, &r->model, &r->origin) ||
        train_images_prepare(&r->data, r->model))
        return 1;
    if ((size_t)r->set.batch > r->data.count)
        options.batch = r->set.batch = (int)r->data.count;
    write_settings(&r->set, r->text, sizeof r->text);
    r->steps = r->data.count / (size_t)r->set.batch;
    r->history = strdup("epoch,rate,loss,accuracy,heldout_accuracy\n");
    if (!r->history)
        return fail("no memory");
    if (ptq_model_copy(r->model, NULL, &r->result, &err) ||
        trainer_create(r->model, r->origin, &options, &r->engine, &err))
        return fail("%s", err.text);
    if (trainer_classes(r->engine) != r->data.base.classes)
        return fail("the network has %d classes, the data %d", trainer_classes(r->engine),
                    r->data.base.classes);
    if (!r->options.model)
        trainer_init(r->engine, r->set.seed);
    if (optimizer_create(&r->set.optimizer, trainer_size(r->engine), trainer_state(r->engine),
                         &r->descent))
        return fail("no memory");
    return checkpoint_load(r);
}

static void run_close(run *r) {
    trainer_free(r->engine);
    optimizer_free(&r->descent);
    ptq_model_free(r->model);
    ptq_model_free(r->origin);
    ptq_model_free(r->result);
    train_images_close(&r->data);
    free(r->history);
}

static int train(run *r) {
    if (prepare(r))
        return 1;
    say("training on %zu images, %zu held out; %zu parameters, %d threads\n", r->data.count,
        (size_t)r->set.holdout, trainer_size(r->engine), r->options.threads);
    say_wrapped(2, "%s", r->text);
    interrupts_watch();
    while (r->epoch < (uint64_t)r->set.epochs)
        if (run_epoch(r))
            return 1;
    return write_result(r);
}

int command_train(int argc, char **argv) {
    int parsed, status;
    run r;
    const train_options *o = &r.options;

    memset(&r, 0, sizeof r);
    r.options.seed = 1;
    r.options.threads = count_cores();
    parsed = parse_train_options(argc, argv, &r.options);
    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!o->output)
        return misuse("-o MODEL is needed; see 'ptq train --help'");
    if (read_settings(o, &r.set) || check_output(o->output) ||
        (o->checkpoint && check_output(o->checkpoint)) || (o->log && check_output(o->log)))
        return 1;
    status = train(&r);
    run_close(&r);
    return status;
}
