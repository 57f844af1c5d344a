/* The images to train on, and how they are drawn for a batch. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "data/names.h"
#include "ptq.h"
#include "shared/output.h"
#include "train/run.h"

void train_images_close(train_images *set) {
    data_close(set->file);
    free(set->trained);
    free(set->held);
    free(set->order);
    free(set->table);
    memset(set, 0, sizeof *set);
}

static int make_room(train_images *set) {
    size_t n = set->base.count;

    set->trained = malloc(n * sizeof *set->trained);
    set->held = malloc(n * sizeof *set->held);
    set->order = malloc(n * sizeof *set->order);
    return set->trained && set->held && set->order ? 0 : fail("no memory for %zu images", n);
}

/* Held-out images are chosen by ptq_sample; the others are trained on. */
static int split(train_images *set, const settings *s) {
    size_t next = 0, held = (size_t)s->holdout;
    ptq_dataset labels = data_labels_only(set->file);
    ptq_error err;

    if (held && ptq_sample(&labels, held, s->seed, set->held, NULL, &err))
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

int train_images_adopt(train_images *set, const ptq_dataset *images) {
    set->base = *images;
    if (make_room(set))
        return 1;
    for (size_t i = 0; i < images->count; i++)
        set->trained[set->count++] = i;
    return 0;
}

int train_images_open(const data_options *given, const settings *s, train_images *set) {
    data_request from;

    if (data_find(given, &from) || data_open(&from, PTQ_SPLIT_TRAIN, NULL, &set->file))
        return 1;
    if (!data_is_labelled(set->file))
        return fail("%s has no labels to learn; name them with --labels", from.path);
    set->base = *data_view(set->file);
    return make_room(set) || split(set, s);
}

int train_images_fit(train_images *set, const ptq_model *model, int classes) {
    if (data_fit(set->file, model, classes))
        return 1;
    set->base = *data_view(set->file);
    if (set->subset.base) {
        size_t held = set->subset.dataset.count;
        ptq_error err;

        if (ptq_subset_open(&set->subset, &set->base, set->held, held, &err))
            return fail("%s", err.text);
    }
    return 0;
}

/* ---- Preprocessing ---- */

/* Element i of an item, bytes or real numbers. */
static double element(const train_images *set, const void *item, size_t i) {
    return set->base.type == PTQ_TYPE_F32 ? (double)((const float *)item)[i]
                                          : ((const uint8_t *)item)[i];
}

/* Mean and standard deviation of each channel; of bytes the sums are exact. */
int train_images_measure(const train_images *set, ptq_model *model) {
    size_t channels = (size_t)set->base.channels;
    size_t n = (size_t)set->base.height * (size_t)set->base.width * channels;
    double sum[PTQ_MAX_PIXEL_CHANNELS] = {0}, square[PTQ_MAX_PIXEL_CHANNELS] = {0};
    void *item = malloc(data_item_bytes(&set->base));
    ptq_error err;
    int label, status = item ? 0 : fail("no memory for an image");

    for (size_t i = 0; i < set->count && !status; i++) {
        if (set->base.get(set->base.user, set->trained[i], item, &label, &err))
            status = fail("%s", err.text);
        for (size_t k = 0; k < n && !status; k++) {
            double value = element(set, item, k);

            sum[k % channels] += value;
            square[k % channels] += value * value;
        }
    }
    free(item);
    for (size_t c = 0; c < channels && !status; c++) {
        double count = (double)set->count * (double)(n / channels), mean = sum[c] / count;
        double variance = square[c] / count - mean * mean;

        model->mean[c] = (float)mean;
        model->std[c] = variance > 0 ? (float)sqrt(variance) : 1;
    }
    return status;
}

/* As the model has it: its mean and standard deviation, and its codes where those are trained. Real
   numbers for a model of pixels are preprocessed already. */
static float prepare(const ptq_model *model, int real, size_t channel, float x) {
    const ptq_qparams *q = &model->node[0].q;

    if ((!real || model_takes_real(model)) && channel < PTQ_MAX_PIXEL_CHANNELS)
        x = (x - model->mean[channel]) / model->std[channel];
    return q->type == PTQ_TYPE_F32 ? x : ptq_dequantize(ptq_quantize(x, q), q);
}

int train_images_prepare(train_images *set, const ptq_model *model) {
    size_t n = (size_t)set->base.channels;

    set->model = model;
    if (set->base.type == PTQ_TYPE_F32)
        return 0;
    set->table = malloc(n * 256 * sizeof *set->table);
    if (!set->table)
        return fail("no memory");
    for (size_t c = 0; c < n; c++)
        for (int i = 0; i < 256; i++)
            set->table[c * 256 + (size_t)i] = prepare(model, 0, c, (float)i);
    return 0;
}

static float prepared(const train_images *set, const void *item, size_t i, size_t channel) {
    return set->table ? set->table[channel * 256 + ((const uint8_t *)item)[i]]
                      : prepare(set->model, 1, channel, ((const float *)item)[i]);
}

/* ---- A batch ---- */

void batch_begin(image_batch *batch, const train_images *from, const settings *set) {
    memset(batch, 0, sizeof *batch);
    batch->from = from;
    batch->set = set;
    pthread_mutex_init(&batch->gate, NULL);
}

int batch_end(image_batch *batch) {
    pthread_mutex_destroy(&batch->gate);
    return batch->wrong.status ? fail("%s", batch->wrong.text) : 0;
}

/* An image, to be freed; of one that cannot be read the batch keeps the reason. */
static void *fetch(image_batch *batch, size_t index, int *label) {
    const ptq_dataset *base = &batch->from->base;
    void *item = calloc(1, data_item_bytes(base));
    ptq_error err;

    *label = 0;
    if (!item)
        ptq_error_set(&err, PTQ_OUT_OF_MEMORY, "no memory for an image");
    if (item && !base->get(base->user, index, item, label, &err))
        return item;
    pthread_mutex_lock(&batch->gate);
    if (!batch->wrong.status)
        batch->wrong = err;
    pthread_mutex_unlock(&batch->gate);
    free(item);
    return NULL;
}

/* ---- Order and augmentation ---- */

/* Random numbers depend on seed, epoch and image alone, not on what came before: so threads and
   interruptions change nothing. Stream 0 of an epoch is its order. */
static ptq_rng stream(const settings *s, uint64_t epoch, uint64_t number) {
    ptq_rng rng;

    ptq_rng_seed(&rng, s->seed * 0x9e3779b97f4a7c15u + epoch, number);
    return rng;
}

void train_images_shuffle(train_images *set, const settings *s, uint64_t epoch) {
    ptq_rng rng = stream(s, epoch, 0);

    memcpy(set->order, set->trained, set->count * sizeof *set->order);
    for (size_t i = set->count; i > 1; i--) {
        size_t k = ptq_rng_below(&rng, (uint32_t)i), kept = set->order[i - 1];

        set->order[i - 1] = set->order[k];
        set->order[k] = kept;
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

static view draw_view(const image_batch *b, size_t index) {
    const settings *s = b->set;
    ptq_rng rng = stream(s, b->epoch, 1 + index);
    view v = {0, 0, 0, {0, 0, 0, 0}};

    if (s->shift) {
        v.down = between(&rng, -s->shift, s->shift);
        v.right = between(&rng, -s->shift, s->shift);
    }
    if (s->mirror)
        v.mirrored = between(&rng, 0, 1);
    if (s->cutout) {
        v.cut[0] = between(&rng, 0, b->from->base.height - 1) - s->cutout / 2;
        v.cut[1] = between(&rng, 0, b->from->base.width - 1) - s->cutout / 2;
        v.cut[2] = v.cut[0] + s->cutout;
        v.cut[3] = v.cut[1] + s->cutout;
    }
    return v;
}

/* Pixels from outside and those cut out become 0, the mean. */
static void write_pixel(const train_images *set, const view *v, const void *item, int y, int x,
                        float *out) {
    int height = set->base.height, width = set->base.width, n = set->base.channels;
    int cut = y >= v->cut[0] && y < v->cut[2] && x >= v->cut[1] && x < v->cut[3];

    y += v->down;
    x = (v->mirrored ? width - 1 - x : x) + v->right;
    if (cut || y < 0 || y >= height || x < 0 || x >= width) {
        memset(out, 0, (size_t)n * sizeof *out);
        return;
    }
    for (int c = 0; c < n; c++)
        out[c] = prepared(
            set, item, ((size_t)y * (size_t)width + (size_t)x) * (size_t)n + (size_t)c, (size_t)c);
}

void fill_augmented(void *user, int slot, float *out, int *label) {
    image_batch *b = user;
    const train_images *set = b->from;
    size_t index = set->order[b->first + (size_t)slot];
    void *item = fetch(b, index, label);
    view v = draw_view(b, index);

    for (int y = 0; y < set->base.height && item; y++)
        for (int x = 0; x < set->base.width; x++, out += set->base.channels)
            write_pixel(set, &v, item, y, x, out);
    free(item);
}

void fill_held_out(void *user, int slot, float *out, int *label) {
    image_batch *b = user;
    const train_images *set = b->from;
    size_t n = (size_t)set->base.channels;
    size_t all = (size_t)set->base.height * (size_t)set->base.width * n;
    void *item = fetch(b, set->held[b->first + (size_t)slot], label);

    for (size_t i = 0; i < all && item; i++)
        out[i] = prepared(set, item, i, i % n);
    free(item);
}
