/* What the files of ptq train share: its options, the images, and the state of a run. */
#ifndef PTQ_TOOL_TRAIN_RUN_H
#define PTQ_TOOL_TRAIN_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "ptq.h"
#include "train/optimizer.h"
#include "train/trainer.h"

/* The command line; NULL and 0 where nothing was given. */
typedef struct train_options {
    const char *data, *model, *graph, *output, *checkpoint, *log, *optimizer, *rate, *momentum;
    const char *decay, *warmup, *smoothing, *average, *isa, *mean, *std, *qat;
    int epochs, batch, shift, mirror, cutout, seed, holdout, threads, resume;
} train_options;

/* Everything that decides the result. */
typedef struct settings {
    optimizer_options optimizer;
    double rate, warmup, smoothing;
    int epochs, batch, shift, mirror, cutout, holdout;
    int quantized; /* fake quantization */
    uint64_t seed;
} settings;

/* ---- images.c ---- */

typedef struct train_images {
    ptq_dataset base;
    ptq_cifar10 *file;
    uint8_t *pixels;
    int *label;
    size_t bytes;    /* of one image */
    size_t *trained; /* indices */
    size_t count;
    size_t *held;
    size_t *order; /* of the current epoch */
    float *table;  /* channels x 256: preprocessed pixels */
    ptq_subset subset;
} train_images;

/* Images from a file or directory, or where CIFAR-10 is found if that is NULL; some are held out.
   */
int train_images_open(const char *given, const settings *s, train_images *set);
void train_images_close(train_images *set);

/* Mean and standard deviation of each channel, into the model. */
void train_images_measure(const train_images *set, ptq_model *model);

/* The table of what the model makes of pixels. */
int train_images_prepare(train_images *set, const ptq_model *model);

/* The order of an epoch. */
void train_images_shuffle(train_images *set, const settings *s, uint64_t epoch);

/* A batch, for trainer_source: of the order, augmented; or of the held-out images as they are. */
typedef struct image_batch {
    const train_images *from;
    const settings *set;
    uint64_t epoch;
    size_t first; /* place of the first image */
} image_batch;

void fill_augmented(void *user, int slot, float *out, int *label);
void fill_held_out(void *user, int slot, float *out, int *label);

/* ---- network.c ---- */

/* The model to train for these images; with --qat also the float model of its real weights. */
int network_open(const train_options *o, const train_images *set, ptq_model **out,
                 ptq_model **origin);

/* ---- A run ---- */

typedef struct run {
    train_options options;
    settings set;
    char text[512]; /* of the settings */
    train_images data;
    ptq_model *model;  /* what the trainer was made from ... */
    ptq_model *origin; /* ... and the float model beside a quantized one */
    ptq_model *result; /* a copy, for export */
    trainer *engine;
    optimizer descent;
    uint64_t epoch, step, steps; /* finished epochs; steps of this one; steps of an epoch */
    double loss;                 /* sums over the current epoch */
    uint64_t correct;
    char *history; /* CSV so far */
    double pace;   /* seconds a step, without pauses */
    int timed;     /* steps that it is the mean of, so far */
} run;

/* ---- checkpoint.c: neither does anything that the options do not ask for ---- */

int checkpoint_save(run *r);
int checkpoint_load(run *r);

/* ---- heldout.c ---- */

/* What is written and evaluated: the average, if there is one. */
const float *best_state(const run *r);

/* Accuracy on the held-out images in percent; negative without any. */
int heldout_validate(run *r, double *percent);

/* With --qat, how far the integers of the result agree with what was trained. */
int heldout_compare(run *r);

#endif
