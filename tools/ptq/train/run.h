/* What the files of ptq train share: its options, the images, and the state of a run. */
#ifndef PTQ_TOOL_TRAIN_RUN_H
#define PTQ_TOOL_TRAIN_RUN_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "data/dataset.h"
#include "ptq.h"
#include "train/optimizer.h"
#include "train/trainer.h"

/* The command line; NULL and 0 where nothing was given. */
typedef struct train_options {
    data_options data;
    const char *model, *graph, *output, *checkpoint, *log, *optimizer, *rate, *momentum;
    const char *decay, *warmup, *smoothing, *average, *isa, *mean, *std, *qat;
    const char *resize;
    int epochs, batch, shift, mirror, cutout, seed, holdout, threads, resume, new_head, freeze;
} train_options;

/* Everything that decides the result. */
typedef struct settings {
    optimizer_options optimizer;
    double rate, warmup, smoothing;
    int epochs, batch, shift, mirror, cutout, holdout;
    int quantized; /* fake quantization */
    int freeze;    /* only the last layer is trained */
    uint64_t seed;
} settings;

/* ---- images.c ---- */

typedef struct train_images {
    ptq_dataset base; /* read from its files whenever an image is asked for */
    data_set *file;
    const ptq_model *model; /* for which the images are prepared */
    size_t *trained;        /* indices */
    size_t count;
    size_t *held;
    size_t *order; /* of the current epoch */
    float *table;  /* channels x 256: preprocessed pixels; NULL: the items are real numbers */
    ptq_subset subset;
} train_images;

/* Training images, of which some are held out. */
int train_images_open(const data_options *given, const settings *s, train_images *set);
void train_images_close(train_images *set);

/* Images that are open already, and stay the caller's: all are trained on. */
int train_images_adopt(train_images *set, const ptq_dataset *images);

/* Brings the images to what a model takes; classes 0: whatever their number is. */
int train_images_fit(train_images *set, const ptq_model *model, int classes);

/* Mean and standard deviation of each channel, into the model. */
int train_images_measure(const train_images *set, ptq_model *model);

/* What the model makes of its input. */
int train_images_prepare(train_images *set, const ptq_model *model);

/* The order of an epoch. */
void train_images_shuffle(train_images *set, const settings *s, uint64_t epoch);

/* A batch, for trainer_source: of the order, augmented; or of the held-out images as they are. */
typedef struct image_batch {
    const train_images *from;
    const settings *set;
    uint64_t epoch;
    size_t first; /* place of the first image */
    pthread_mutex_t gate;
    ptq_error wrong; /* the first image that could not be read; status PTQ_OK: none */
} image_batch;

void batch_begin(image_batch *batch, const train_images *from, const settings *set);
int batch_end(image_batch *batch); /* fails if an image could not be read */

void fill_augmented(void *user, int slot, float *out, int *label);
void fill_held_out(void *user, int slot, float *out, int *label);

/* ---- network.c ---- */

/* The model to train for these images, which are then made to fit it; with --qat also the float
   model of its real weights. A model with another number of classes gets a new last layer. */
int network_open(const train_options *o, train_images *set, ptq_model **out, ptq_model **origin);

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
