/* The images to train on, all in memory, since every epoch reads them in another order; and how
   they are drawn for a batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/find.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/output.h"
#include "train/run.h"

void train_images_close(train_images *set) {
    ptq_cifar10_free(set->file);
    free(set->pixels);
    free(set->label);
    free(set->trained);
    free(set->held);
    free(set->order);
    free(set->table);
    memset(set, 0, sizeof *set);
}

static int load(train_images *set) {
    size_t n = set->base.count;
    ptq_error err;

    set->bytes = (size_t)(set->base.height * set->base.width * set->base.channels);
    set->pixels = malloc(n * set->bytes);
    set->label = malloc(n * sizeof *set->label);
    set->trained = malloc(n * sizeof *set->trained);
    set->held = malloc(n * sizeof *set->held);
    set->order = malloc(n * sizeof *set->order);
    if (!set->pixels || !set->label || !set->trained || !set->held || !set->order)
        return fail("no memory for %zu images", n);
    for (size_t i = 0; i < n; i++)
        if (set->base.get(set->base.user, i, set->pixels + i * set->bytes, &set->label[i], &err))
            return fail("%s", err.text);
    return 0;
}

/* Held-out images are chosen by ptq_sample; the others are trained on. */
static int split(train_images *set, const settings *s) {
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

int train_images_open(const char *given, const settings *s, train_images *set) {
    char path[PATH_SIZE];
    ptq_error err;

    if (find_data(given, path))
        return 1;
    if (ptq_cifar10_open(path, PTQ_SPLIT_TRAIN, NULL, &set->file, &err))
        return fail("%s", err.text);
    set->base = *ptq_cifar10_dataset(set->file);
    return load(set) || split(set, s);
}

/* Mean and standard deviation of each channel, from exact sums. */
void train_images_measure(const train_images *set, ptq_model *model) {
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

int train_images_prepare(train_images *set, const ptq_model *model) {
    int n = set->base.channels;
    const ptq_qparams *q = &model->node[0].q;

    set->table = malloc((size_t)n * 256 * sizeof *set->table);
    if (!set->table)
        return fail("no memory");
    for (int c = 0; c < n; c++) {
        for (int i = 0; i < 256; i++) {
            float x = ((float)i - model->mean[c]) / model->std[c];

            set->table[c * 256 + i] =
                q->type == PTQ_TYPE_F32 ? x : ptq_dequantize(ptq_quantize(x, q), q);
        }
    }
    return 0;
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
static void write_pixel(const train_images *set, const view *v, const uint8_t *image, int y, int x,
                        float *out) {
    int height = set->base.height, width = set->base.width, n = set->base.channels;
    int cut = y >= v->cut[0] && y < v->cut[2] && x >= v->cut[1] && x < v->cut[3];

    y += v->down;
    x = (v->mirrored ? width - 1 - x : x) + v->right;
    if (cut || y < 0 || y >= height || x < 0 || x >= width) {
        memset(out, 0, (size_t)n * sizeof *out);
        return;
    }
    image += (y * width + x) * n;
    for (int c = 0; c < n; c++)
        out[c] = set->table[c * 256 + image[c]];
}

void fill_augmented(void *user, int slot, float *out, int *label) {
    const image_batch *b = user;
    const train_images *set = b->from;
    size_t index = set->order[b->first + (size_t)slot];
    const uint8_t *image = set->pixels + index * set->bytes;
    view v = draw_view(b, index);

    *label = set->label[index];
    for (int y = 0; y < set->base.height; y++)
        for (int x = 0; x < set->base.width; x++, out += set->base.channels)
            write_pixel(set, &v, image, y, x, out);
}

void fill_held_out(void *user, int slot, float *out, int *label) {
    const image_batch *b = user;
    const train_images *set = b->from;
    size_t n = (size_t)set->base.channels, index;
    const uint8_t *image;

    index = set->held[b->first + (size_t)slot];
    image = set->pixels + index * set->bytes;
    *label = set->label[index];
    for (size_t i = 0; i < set->bytes; i++)
        out[i] = set->table[i % n * 256 + image[i]];
}
