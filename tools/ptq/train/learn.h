/* Learning on: a quantized model learns, from its codes on and without labels, to give the float
   model's logits. */
#ifndef PTQ_TOOL_TRAIN_LEARN_H
#define PTQ_TOOL_TRAIN_LEARN_H

#include <stddef.h>

#include "ptq.h"

/* Calibration images in two parts: four fifths to learn from, and every fifth, which judges. A model
   that is to be compared must not have seen the second part either. */
enum { LEARN_IMAGES = 100 /* so many at least */ };

typedef struct learn_images {
    size_t *index;
    ptq_subset learned, held;
} learn_images;

/* The images stay the caller's; labels do not matter. 0, or 1 after an error. */
int learn_images_open(learn_images *split, const ptq_dataset *images);
void learn_images_close(learn_images *split);

typedef struct learn_options {
    const ptq_model *real; /* the fused float model ... */
    const ptq_plan *plan;  /* ... and its plan */
    const learn_images *images;
    int fixed_zeros; /* zero points are not learned */
    int threads;
    int seed;               /* of order and augmentation */
    double minutes;         /* about, on two cores; 0: the usual number of steps */
    const char *checkpoint; /* a file that is written now and then, or NULL */
    int resume;             /* go on from it, if it is there */
} learn_options;

typedef struct learn_report {
    double before, after; /* KL divergence from float on the images held out, in nats */
    double rate;          /* the learning rate that was kept; 0: no model was better */
    size_t steps;         /* for each rate */
    size_t learned, held; /* images */
} learn_report;

/* Whether every node can be learned: before long work. */
int learn_check(const ptq_model *real);

/* Learns on from `quantized` with several learning rates; the best of them on the images held out
   becomes *out, if its integers diverge less from float there than those of `quantized`; else *out
   is NULL. The same for any number of threads, and with any interruption. 0, or 1 after an
   error. */
int learn_on(const learn_options *options, const ptq_model *quantized, learn_report *report,
             ptq_model **out);

#endif
