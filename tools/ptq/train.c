/* ptq train: trains a float model on CIFAR-10, or on any data set in its binary form. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/common.h"
#include "train/optimizer.h"
#include "train/trainer.h"

/* ---- Options ---- */

static const char *data_option, *model_option, *graph_option, *output_option, *checkpoint_option;
static const char *log_option, *optimizer_option, *rate_option, *momentum_option, *decay_option;
static const char *warmup_option, *smoothing_option, *average_option, *isa_option;
static const char *mean_option, *std_option, *qat_option;
static int epochs_option, batch_option, shift_option, mirror_option, cutout_option, seed_option;
static int holdout_option, threads_option, resume_option;

static const option_spec specs[] = {
    {"data", 'd', "DIR", "training images: data_batch_*.bin, or a .bin file", &data_option, NULL,
     NULL, 0},
    {"output", 'o', "MODEL", "where to write the trained model", &output_option, NULL, NULL, 0},
    {"model", 'm', "MODEL", "start from this float model, not from random weights", &model_option,
     NULL, NULL, 0},
    {"qat", 'q', "QUANTIZED", "fine-tune --model for the integers of this quantized model",
     &qat_option, NULL, NULL, 0},
    {"graph", 'g', "FILE", "graph text of the network; default ResNet8", &graph_option, NULL, NULL,
     0},
    {"epochs", 'e', "N", "times through the training images; default 60", NULL, &epochs_option,
     NULL, 1},
    {"batch", 'b', "N", "images in a step; default 128", NULL, &batch_option, NULL, 1},
    {"optimizer", 0, "NAME", "sgd (Nesterov momentum; default) or adamw (default with --qat)",
     &optimizer_option, NULL, NULL, 0},
    {"rate", 'r', "X", "highest learning rate; default 0.1, adamw 0.001, with --qat 0.005",
     &rate_option, NULL, NULL, 0},
    {"momentum", 0, "X", "momentum, or beta1 of adamw; default 0.9", &momentum_option, NULL, NULL,
     0},
    {"decay", 0, "X", "weight decay; default 0.0005; 0 with --qat", &decay_option, NULL, NULL, 0},
    {"warmup", 0, "X", "epochs until the highest rate; default 1", &warmup_option, NULL, NULL, 0},
    {"smoothing", 0, "X", "label smoothing; default 0", &smoothing_option, NULL, NULL, 0},
    {"average", 0, "X", "average of the weights: share kept at each step; default 0.999, 0: none",
     &average_option, NULL, NULL, 0},
    {"shift", 0, "N", "move images by up to N pixels", NULL, &shift_option, NULL, 0},
    {"mirror", 0, NULL, "mirror every other image", NULL, NULL, &mirror_option, 0},
    {"cutout", 0, "N", "blank a square of N x N pixels", NULL, &cutout_option, NULL, 0},
    {"mean", 0, "A,B,C", "per channel, of pixels 0..255; default: the graph's, else the data's",
     &mean_option, NULL, NULL, 0},
    {"std", 0, "A,B,C", "likewise", &std_option, NULL, NULL, 0},
    {"holdout", 0, "N", "keep N training images, balanced over classes, for validation", NULL,
     &holdout_option, NULL, 0},
    {"seed", 's', "N", "of weights, order, augmentation, hold-out; default 1", NULL, &seed_option,
     NULL, 0},
    {"checkpoint", 'c', "FILE", "written after every epoch and when interrupted",
     &checkpoint_option, NULL, NULL, 0},
    {"resume", 0, NULL, "go on from the checkpoint if there is one", NULL, NULL, &resume_option, 0},
    {"log", 'l', "FILE", "a line of CSV for every epoch", &log_option, NULL, NULL, 0},
    {"threads", 't', "N", "default: the number of cores", NULL, &threads_option, NULL, 1},
    {"isa", 0, "NAME", "plain, avx2 or avx512; default: the best of this processor", &isa_option,
     NULL, NULL, 0},
    {0}};

static const command_help help = {
    "train --data DIR -o MODEL [OPTIONS]",
    "Trains a float network by gradient descent; the test images are never read. The same seed "
    "gives\n"
    "the same weights on the same machine, whatever the number of threads and interruptions.\n\n"
    "With --qat, quantization-aware training: QUANTIZED, from ptq quantize, says what is quantized "
    "and\n"
    "how, by any scheme of integers; --model is the float model that it was made from. Weights "
    "and\n"
    "scales are trained under the rounding, and an integer model is written.",
    "ptq train --data data/cifar-10-batches-bin --mirror --shift 4 -o resnet8.safetensors"};

/* Everything that decides the result. */
typedef struct settings {
    optimizer_options optimizer;
    double rate, warmup, smoothing;
    int epochs, batch, shift, mirror, cutout, holdout;
    uint64_t seed;
} settings;

static int read_number(const char *name, const char *text, double standard, double low, double high,
                       double *out) {
    char *end;

    *out = standard;
    if (!text)
        return 0;
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= low && *out <= high))
        return fail("--%s must be a number from %g to %g, not '%s'", name, low, high, text);
    return 0;
}

static int read_settings(settings *s) {
    int adam = optimizer_option ? strcmp(optimizer_option, "adamw") == 0 : qat_option != NULL;

    if (optimizer_option && !adam && strcmp(optimizer_option, "sgd") != 0)
        return fail("unknown optimizer '%s'; choose sgd or adamw", optimizer_option);
    s->optimizer.kind = adam ? OPTIMIZER_ADAMW : OPTIMIZER_SGD;
    s->epochs = epochs_option ? epochs_option : 60;
    s->batch = batch_option ? batch_option : 128;
    s->shift = shift_option;
    s->mirror = mirror_option;
    s->cutout = cutout_option;
    s->holdout = holdout_option;
    s->seed = (uint64_t)seed_option;
    return read_number("rate", rate_option, adam ? (qat_option ? 0.005 : 0.001) : 0.1, 0, 1e3,
                       &s->rate) ||
           read_number("momentum", momentum_option, 0.9, 0, 0.9999, &s->optimizer.momentum) ||
           read_number("decay", decay_option, qat_option ? 0 : 0.0005, 0, 1e3,
                       &s->optimizer.decay) ||
           read_number("warmup", warmup_option, 1, 0, 1e6, &s->warmup) ||
           read_number("smoothing", smoothing_option, 0, 0, 0.999, &s->smoothing) ||
           read_number("average", average_option, 0.999, 0, 0.999999, &s->optimizer.average);
}

/* For the checkpoint, which only serves a run with the same text, and for the model. */
static void write_settings(const settings *s, char *text, size_t size) {
    snprintf(text, size,
             "%s rate %.9g momentum %.9g decay %.9g average %.9g warmup %.9g smoothing %.9g epochs "
             "%d batch %d shift %d mirror %d cutout %d holdout %d seed %llu%s",
             s->optimizer.kind == OPTIMIZER_SGD ? "sgd" : "adamw", s->rate, s->optimizer.momentum,
             s->optimizer.decay, s->optimizer.average, s->warmup, s->smoothing, s->epochs, s->batch,
             s->shift, s->mirror, s->cutout, s->holdout, (unsigned long long)s->seed,
             qat_option ? " quantization-aware" : "");
}

/* ---- Data: all images in memory, since every epoch reads them in another order ---- */

typedef struct images {
    ptq_dataset base;
    ptq_cifar10 *file;
    uint8_t *pixels;
    int *label;
    size_t bytes;    /* of one image */
    size_t *trained; /* indices */
    size_t count;
    size_t *held;
    ptq_subset subset;
} images;

static void images_close(images *set) {
    ptq_cifar10_free(set->file);
    free(set->pixels);
    free(set->label);
    free(set->trained);
    free(set->held);
    memset(set, 0, sizeof *set);
}

static int images_load(images *set) {
    size_t n = set->base.count;
    ptq_error err;

    set->bytes = (size_t)(set->base.height * set->base.width * set->base.channels);
    set->pixels = malloc(n * set->bytes);
    set->label = malloc(n * sizeof *set->label);
    set->trained = malloc(n * sizeof *set->trained);
    set->held = malloc(n * sizeof *set->held);
    if (!set->pixels || !set->label || !set->trained || !set->held)
        return fail("no memory for %zu images", n);
    for (size_t i = 0; i < n; i++)
        if (set->base.get(set->base.user, i, set->pixels + i * set->bytes, &set->label[i], &err))
            return fail("%s", err.text);
    return 0;
}

/* Held-out images are chosen by ptq_sample; the others are trained on. */
static int images_split(images *set, const settings *s) {
    size_t next = 0, held = (size_t)s->holdout;
    ptq_error err;

    if (held && ptq_sample(&set->base, held, s->seed, set->held, NULL, &err))
        return fail("%s", err.text);
    for (size_t i = 0; i < set->base.count; i++) {
        if (next < held && set->held[next] == i)
            next++;
        else
            set->trained[set->count++] = i;
    }
    if (held && ptq_subset_open(&set->subset, &set->base, set->held, held, &err))
        return fail("%s", err.text);
    return set->count ? 0 : fail("all %d images are held out; hold out fewer", s->holdout);
}

static int images_open(const settings *s, images *set) {
    char path[PATH_SIZE];
    ptq_error err;

    if (find_data(data_option, path))
        return 1;
    if (ptq_cifar10_open(path, PTQ_SPLIT_TRAIN, NULL, &set->file, &err))
        return fail("%s", err.text);
    set->base = *ptq_cifar10_dataset(set->file);
    return images_load(set) || images_split(set, s);
}

/* Mean and standard deviation of each channel, from exact sums. */
static void measure_channels(const images *set, ptq_model *model) {
    size_t channels = (size_t)set->base.channels;

    for (size_t c = 0; c < channels; c++) {
        double n = (double)set->count * (double)(set->bytes / channels), mean, variance;
        uint64_t sum = 0, square = 0;

        for (size_t i = 0; i < set->count; i++) {
            const uint8_t *image = set->pixels + set->trained[i] * set->bytes;

            for (size_t k = c; k < set->bytes; k += channels) {
                sum += image[k];
                square += (uint64_t)image[k] * image[k];
            }
        }
        mean = (double)sum / n;
        variance = (double)square / n - mean * mean;
        model->mean[c] = (float)mean;
        model->std[c] = variance > 0 ? (float)sqrt(variance) : 1;
    }
}

/* "A,B,C", or one number for all channels. */
static int read_channels(const char *name, const char *text, int channels, float least,
                         float *out) {
    for (int c = 0; c < channels; c++) {
        char *end;
        double value = strtod(text, &end);

        if (end == text || !(value >= (double)least && value < 1e6) ||
            (*end != (c + 1 < channels ? ',' : 0) && !(c == 0 && !*end)))
            return fail("--%s must be one number, or one for each of %d channels with commas", name,
                        channels);
        out[c] = (float)value;
        for (int k = 1; c == 0 && !*end && k < channels; k++)
            out[k] = (float)value;
        if (!*end)
            break;
        text = end + 1;
    }
    return 0;
}

/* ---- The model to train ---- */

static int load_graph(const char *path, ptq_model **out) {
    void *text;
    size_t size;
    ptq_error err;
    ptq_status status;

    if (ptq_file_read(path, 1 << 20, NULL, &text, &size, &err))
        return fail("%s", err.text);
    status = ptq_graph_parse(text, size, NULL, out, &err);
    ptq_bytes_free(text, NULL);
    return status ? fail("%s: %s", path, err.text) : 0;
}

/* The quantized model to train, and the fused float model with its real weights, equalized as they
   were for it: its scales fit no others. */
static int load_pair(ptq_model **out, ptq_model **origin) {
    ptq_model *real = NULL, *fused = NULL;
    ptq_error err;
    ptq_status status;

    if (!model_option)
        return fail("--qat needs --model: the float model that %s was made from", qat_option);
    if (mean_option || std_option)
        return fail("--mean and --std belong to the float model; leave them out with --qat");
    if (ptq_model_load(qat_option, NULL, out, &err) ||
        ptq_model_load(model_option, NULL, &real, &err))
        return fail("%s", err.text);
    status = ptq_fuse(real, &fused, NULL, &err);
    ptq_model_free(real);
    if (!status)
        status = ptq_equalize_like(fused, *out, origin, &err);
    ptq_model_free(fused);
    return status ? fail("%s", err.text) : 0;
}

/* Whether a graph's text brings a preprocessing of its own: without one it says 0 and 1. */
static int has_channels(const ptq_model *model) {
    int own = 0;

    for (int c = 0; c < model->node[0].shape[2]; c++)
        own |= model->mean[c] != 0 || model->std[c] != 1;
    return own;
}

static int open_model(const images *set, ptq_model **out, ptq_model **origin) {
    int channels = set->base.channels, status = 0;
    const int *shape;
    ptq_error err;

    if (model_option && graph_option)
        return fail("--model brings its own graph; leave out --graph");
    if (qat_option)
        status = load_pair(out, origin);
    else if (graph_option)
        status = load_graph(graph_option, out);
    else if (model_option ? ptq_model_load(model_option, NULL, out, &err)
                          : ptq_resnet8(set->base.height, 16, set->base.classes, NULL, out, &err))
        status = fail("%s", err.text);
    if (status)
        return status;
    shape = (*out)->node[0].shape;
    if (shape[0] != set->base.height || shape[1] != set->base.width || shape[2] != channels)
        return fail("the network takes images of %dx%dx%d, the data has %dx%dx%d", shape[0],
                    shape[1], shape[2], set->base.height, set->base.width, channels);
    if (!model_option && !has_channels(*out))
        measure_channels(set, *out);
    return (mean_option && read_channels("mean", mean_option, channels, -1e6f, (*out)->mean)) ||
           (std_option && read_channels("std", std_option, channels, 1e-6f, (*out)->std));
}

/* ---- A run ---- */

typedef struct run {
    settings set;
    char text[512]; /* of the settings */
    images data;
    ptq_model *model;  /* what the trainer was made from ... */
    ptq_model *origin; /* ... and the float model beside a quantized one */
    ptq_model *result; /* a copy, for export */
    trainer *engine;
    optimizer descent;
    size_t *order;               /* of the current epoch */
    float *table;                /* channels x 256: preprocessed pixels */
    uint64_t epoch, step, steps; /* finished epochs; steps of this one; steps of an epoch */
    double loss;                 /* sums over the current epoch */
    uint64_t correct;
    char *history; /* CSV so far */
    double pace;   /* seconds a step, without pauses */
    int timed;     /* steps that it is the mean of, so far */
} run;

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

/* Random numbers depend on seed, epoch and image alone, not on what came before: so threads and
   interruptions change nothing. Stream 0 of an epoch is its order. */
static ptq_rng stream(const run *r, uint64_t number) {
    ptq_rng rng;

    ptq_rng_seed(&rng, r->set.seed * 0x9e3779b97f4a7c15u + r->epoch, number);
    return rng;
}

static void shuffle(run *r) {
    ptq_rng rng = stream(r, 0);

    memcpy(r->order, r->data.trained, r->data.count * sizeof *r->order);
    for (size_t i = r->data.count; i > 1; i--) {
        size_t k = ptq_rng_below(&rng, (uint32_t)i), kept = r->order[i - 1];

        r->order[i - 1] = r->order[k];
        r->order[k] = kept;
    }
}

/* Where the pixels of an augmented image come from. */
typedef struct view {
    int down, right, mirrored;
    int cut[4]; /* top, left, bottom, right of what is blank */
} view;

static int between(ptq_rng *rng, int low, int high) {
    return low + (int)ptq_rng_below(rng, (uint32_t)(high - low + 1));
}

static view draw_view(const run *r, size_t index) {
    const settings *s = &r->set;
    ptq_rng rng = stream(r, 1 + index);
    view v = {0, 0, 0, {0, 0, 0, 0}};

    if (s->shift) {
        v.down = between(&rng, -s->shift, s->shift);
        v.right = between(&rng, -s->shift, s->shift);
    }
    if (s->mirror)
        v.mirrored = between(&rng, 0, 1);
    if (s->cutout) {
        v.cut[0] = between(&rng, 0, r->data.base.height - 1) - s->cutout / 2;
        v.cut[1] = between(&rng, 0, r->data.base.width - 1) - s->cutout / 2;
        v.cut[2] = v.cut[0] + s->cutout;
        v.cut[3] = v.cut[1] + s->cutout;
    }
    return v;
}

/* Pixels from outside and those cut out become 0, the mean. */
static void write_pixel(const run *r, const view *v, const uint8_t *image, int y, int x,
                        float *out) {
    int height = r->data.base.height, width = r->data.base.width, n = r->data.base.channels;
    int cut = y >= v->cut[0] && y < v->cut[2] && x >= v->cut[1] && x < v->cut[3];

    y += v->down;
    x = (v->mirrored ? width - 1 - x : x) + v->right;
    if (cut || y < 0 || y >= height || x < 0 || x >= width) {
        memset(out, 0, (size_t)n * sizeof *out);
        return;
    }
    image += (y * width + x) * n;
    for (int c = 0; c < n; c++)
        out[c] = r->table[c * 256 + image[c]];
}

static void fill_image(void *user, int slot, float *out, int *label) {
    const run *r = user;
    size_t index = r->order[r->step * (uint64_t)r->set.batch + (uint64_t)slot];
    const uint8_t *image = r->data.pixels + index * r->data.bytes;
    view v = draw_view(r, index);

    *label = r->data.label[index];
    for (int y = 0; y < r->data.base.height; y++)
        for (int x = 0; x < r->data.base.width; x++, out += r->data.base.channels)
            write_pixel(r, &v, image, y, x, out);
}

static int make_table(run *r) {
    int n = r->data.base.channels;
    const ptq_qparams *q = &r->model->node[0].q;

    r->table = malloc((size_t)n * 256 * sizeof *r->table);
    if (!r->table)
        return fail("no memory");
    for (int c = 0; c < n; c++) {
        for (int i = 0; i < 256; i++) {
            float x = ((float)i - r->model->mean[c]) / r->model->std[c];

            r->table[c * 256 + i] =
                q->type == PTQ_TYPE_F32 ? x : ptq_dequantize(ptq_quantize(x, q), q);
        }
    }
    return 0;
}

/* ---- Checkpoint: everything that the rest of the run depends on ---- */

static int add_vector(ptq_archive *to, const char *name, float *values, size_t n, ptq_error *err) {
    int dim = (int)n;
    ptq_tensor vector;

    return ptq_tensor_borrow(&vector, PTQ_TYPE_F32, 32, 1, &dim, values, n * sizeof *values, err) ||
           ptq_archive_add(to, name, &vector, err);
}

static int fill_checkpoint(run *r, ptq_archive *to, ptq_error *err) {
    char position[256];
    size_t n = r->descent.size;

    /* %a: all bits of the sum */
    snprintf(position, sizeof position, "%llu %llu %llu %llu %a", (unsigned long long)r->epoch,
             (unsigned long long)r->step, (unsigned long long)r->descent.steps,
             (unsigned long long)r->correct, r->loss);
    return add_vector(to, "state", trainer_state(r->engine), n, err) ||
           add_vector(to, "first", r->descent.first, n, err) ||
           add_vector(to, "second", r->descent.second, n, err) ||
           add_vector(to, "average", r->descent.average, n, err) ||
           ptq_archive_set_meta(to, "settings", r->text, err) ||
           ptq_archive_set_meta(to, "position", position, err) ||
           ptq_archive_set_meta(to, "history", r->history, err);
}

static int save_checkpoint(run *r) {
    ptq_archive *archive = NULL;
    ptq_error err;
    int failed;

    if (!checkpoint_option)
        return 0;
    failed = ptq_archive_create(NULL, &archive, &err) || fill_checkpoint(r, archive, &err)
                 ? fail("%s", err.text)
                 : save_archive(archive, checkpoint_option);
    ptq_archive_free(archive);
    return failed;
}

static const char *checkpoint_meta(const ptq_archive *archive, const char *key) {
    for (int i = 0; i < archive->metas; i++)
        if (strcmp(archive->meta[i].key, key) == 0)
            return archive->meta[i].value;
    return "";
}

static int restore_vector(const ptq_archive *archive, const char *name, float *to, size_t n) {
    const ptq_tensor *from = ptq_archive_find(archive, name);

    if (!from || from->type != PTQ_TYPE_F32 || ptq_tensor_elements(from) != n)
        return fail("%s: no vector '%s' of %zu numbers; it is not a checkpoint of this network",
                    checkpoint_option, name, n);
    memcpy(to, from->data, n * sizeof *to);
    return 0;
}

static int restore_position(run *r, const char *text) {
    unsigned long long epoch, step, steps, correct;
    double loss;

    if (sscanf(text, "%llu %llu %llu %llu %la", &epoch, &step, &steps, &correct, &loss) != 5 ||
        epoch > (unsigned long long)r->set.epochs || step >= r->steps ||
        steps != epoch * r->steps + step || correct > r->data.count)
        return fail("%s: damaged position '%.80s'; begin anew without --resume", checkpoint_option,
                    text);
    r->epoch = epoch;
    r->step = step;
    r->descent.steps = steps;
    r->correct = correct;
    r->loss = loss;
    return 0;
}

static int restore(run *r, const ptq_archive *archive) {
    size_t n = r->descent.size;
    const char *text = checkpoint_meta(archive, "settings");
    char *history;

    if (strcmp(text, r->text) != 0)
        return fail("%s is of a run with other settings: %.400s", checkpoint_option, text);
    history = strdup(checkpoint_meta(archive, "history"));
    if (!history)
        return fail("no memory");
    free(r->history);
    r->history = history;
    return restore_vector(archive, "state", trainer_state(r->engine), n) ||
           restore_vector(archive, "first", r->descent.first, n) ||
           restore_vector(archive, "second", r->descent.second, n) ||
           restore_vector(archive, "average", r->descent.average, n) ||
           restore_position(r, checkpoint_meta(archive, "position"));
}

static int load_checkpoint(run *r) {
    ptq_archive *archive;
    int status;

    if (!resume_option)
        return 0;
    if (!checkpoint_option)
        return fail("--resume needs --checkpoint FILE");
    if (access(checkpoint_option, F_OK) != 0)
        return 0;
    if (read_archive(checkpoint_option, &archive))
        return 1;
    status = restore(r, archive);
    ptq_archive_free(archive);
    return status;
}

/* ---- Epochs ---- */

/* What is written and evaluated: the average, if there is one. */
static const float *best_state(const run *r) {
    return r->set.optimizer.average > 0 ? r->descent.average : trainer_state(r->engine);
}

/* Accuracy on the held-out images in percent; negative without any. */
static int validate(run *r, double *percent) {
    ptq_model *fused = NULL;
    engine ready;
    ptq_evaluation result;
    ptq_error err;
    int status;

    *percent = -1;
    if (!r->set.holdout)
        return 0;
    if (trainer_export(r->engine, best_state(r), r->result, &err) ||
        ptq_fuse(r->result, &fused, NULL, &err))
        return fail("%s", err.text);
    if (engine_adopt(fused, NULL, &ready))
        return 1;
    status =
        evaluate_plan(ready.plan, &r->data.subset.dataset, "held-out", threads_option, &result);
    engine_close(&ready);
    if (status)
        return status;
    *percent = 100 * fraction(result.correct, result.total);
    ptq_release(&result.memory);
    return 0;
}

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

    if (log_option && ptq_file_write(log_option, r->history, strlen(r->history), &err))
        return fail("%s", err.text);
    return 0;
}

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

    if (validate(r, &held))
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
    return write_log(r) || save_checkpoint(r);
}

static int take_step(run *r) {
    trainer_source source = {fill_image, r};
    trainer_result result;
    ptq_error err;
    int params;
    const trainer_param *param = trainer_params(r->engine, &params);
    double start = seconds_now();

    trainer_step(r->engine, source, r->set.batch, (float)r->set.smoothing, &result);
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

    shuffle(r);
    while (r->step < r->steps && !interrupted) {
        if (take_step(r)) {
            progress_end(&shown);
            return 1;
        }
        progress_show(&shown, r->step * (size_t)r->set.batch, r->steps * (size_t)r->set.batch);
    }
    progress_end(&shown);
    if (r->step == r->steps)
        return end_epoch(r);
    if (save_checkpoint(r))
        return 1;
    return fail("interrupted in epoch %d; %s", (int)r->epoch + 1,
                checkpoint_option ? "--resume goes on" : "without --checkpoint nothing was kept");
}

/* ---- The integers against the fake quantization that was trained ---- */

static void fill_plain(void *user, int slot, float *out, int *label) {
    const run *r = user;
    size_t n = (size_t)r->data.base.channels, index;
    const uint8_t *image;

    index = r->data.held[r->step * (uint64_t)r->set.batch + (uint64_t)slot];
    image = r->data.pixels + index * r->data.bytes;
    *label = r->data.label[index];
    for (size_t i = 0; i < r->data.bytes; i++)
        out[i] = r->table[i % n * 256 + image[i]];
}

static int compare_classes(run *r, const ptq_evaluation *integers) {
    trainer_source source = {fill_plain, r};
    size_t same = 0, right = 0, batch = (size_t)r->set.batch;
    int *class = calloc(2 * batch, sizeof *class), *label = class ? class + batch : NULL;

    if (!class)
        return fail("no memory");
    for (size_t done = 0; done < integers->total; done += batch, r->step++) {
        size_t n = integers->total - done < batch ? integers->total - done : batch;

        trainer_classify(r->engine, source, (int)n, class, label);
        for (size_t i = 0; i < n; i++) {
            same += class[i] == integers->prediction[done + i];
            right += class[i] == label[i];
        }
    }
    free(class);
    say("fake quantization %.2f %%, integers %.2f %%; %zu of %zu held-out answers are the same\n",
        100 * fraction(right, integers->total), 100 * fraction(integers->correct, integers->total),
        same, integers->total);
    return 0;
}

static int check_integers(run *r) {
    engine ready;
    ptq_model *copy = NULL;
    ptq_evaluation result;
    ptq_error err;
    int status;

    if (!qat_option || !r->set.holdout)
        return 0;
    memcpy(trainer_state(r->engine), best_state(r), trainer_size(r->engine) * sizeof(float));
    r->step = 0;
    if (ptq_model_copy(r->result, NULL, &copy, &err))
        return fail("%s", err.text);
    if (engine_adopt(copy, NULL, &ready))
        return 1;
    status =
        evaluate_plan(ready.plan, &r->data.subset.dataset, "held-out", threads_option, &result);
    engine_close(&ready);
    if (status)
        return status;
    status = compare_classes(r, &result);
    ptq_release(&result.memory);
    return status;
}

/* What the quantized model's metadata said about its old weights holds no longer. */
static int renew_metadata(run *r) {
    ptq_error err;

    if (ptq_model_set_meta(r->result, "training", r->text, &err) ||
        (qat_option && (ptq_model_set_meta(r->result, "accuracy", NULL, &err) ||
                        ptq_self_test_add(r->result, &err))))
        return fail("%s", err.text);
    return 0;
}

static int write_result(run *r) {
    ptq_error err;

    if (trainer_export(r->engine, best_state(r), r->result, &err))
        return fail("%s", err.text);
    if (renew_metadata(r) || check_integers(r))
        return 1;
    if (ptq_model_save(r->result, output_option, &err))
        return fail("%s", err.text);
    say("written to %s\n", output_option);
    return 0;
}

static int prepare(run *r) {
    trainer_options options = {r->set.batch, threads_option, isa_option, 0.1f, 0};
    ptq_error err;

    if (images_open(&r->set, &r->data) || open_model(&r->data, &r->model, &r->origin) ||
        make_table(r))
        return 1;
    if ((size_t)r->set.batch > r->data.count)
        options.batch = r->set.batch = (int)r->data.count;
    write_settings(&r->set, r->text, sizeof r->text);
    r->steps = r->data.count / (size_t)r->set.batch;
    r->order = malloc(r->data.count * sizeof *r->order);
    r->history = strdup("epoch,rate,loss,accuracy,heldout_accuracy\n");
    if (!r->order || !r->history)
        return fail("no memory");
    if (ptq_model_copy(r->model, NULL, &r->result, &err) ||
        trainer_create(r->model, r->origin, &options, &r->engine, &err))
        return fail("%s", err.text);
    if (trainer_classes(r->engine) != r->data.base.classes)
        return fail("the network has %d classes, the data %d", trainer_classes(r->engine),
                    r->data.base.classes);
    if (!model_option)
        trainer_init(r->engine, r->set.seed);
    if (optimizer_create(&r->set.optimizer, trainer_size(r->engine), trainer_state(r->engine),
                         &r->descent))
        return fail("no memory");
    return load_checkpoint(r);
}

static void run_close(run *r) {
    trainer_free(r->engine);
    optimizer_free(&r->descent);
    ptq_model_free(r->model);
    ptq_model_free(r->origin);
    ptq_model_free(r->result);
    images_close(&r->data);
    free(r->order);
    free(r->table);
    free(r->history);
}

static int train(run *r) {
    if (prepare(r))
        return 1;
    say("training on %zu images, %zu held out; %zu parameters, %d threads\n%s\n", r->data.count,
        (size_t)r->set.holdout, trainer_size(r->engine), threads_option, r->text);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    while (r->epoch < (uint64_t)r->set.epochs)
        if (run_epoch(r))
            return 1;
    return write_result(r);
}

int command_train(int argc, char **argv) {
    int parsed, status;
    run r;

    seed_option = 1;
    threads_option = count_cores();
    parsed = parse_options(argc, argv, specs, &help, NULL, 0);
    if (parsed)
        return parsed == OPTIONS_BAD;
    memset(&r, 0, sizeof r);
    if (!output_option)
        return fail("-o MODEL is needed; see 'ptq train --help'");
    if (read_settings(&r.set) || check_output(output_option, model_option) ||
        (checkpoint_option && check_output(checkpoint_option, model_option)) ||
        (log_option && check_output(log_option, model_option)))
        return 1;
    status = train(&r);
    run_close(&r);
    return status;
}
