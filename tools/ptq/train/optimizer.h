/* Steps of gradient descent on a state vector, learning-rate schedule, average over steps. */
#ifndef PTQ_OPTIMIZER_H
#define PTQ_OPTIMIZER_H

#include "train/trainer.h"

typedef enum optimizer_kind { OPTIMIZER_SGD, OPTIMIZER_ADAMW } optimizer_kind;

typedef struct optimizer_options {
    optimizer_kind kind;
    double momentum; /* SGD: Nesterov's (Sutskever et al. 2013); AdamW: beta1; beta2 is 0.999 */
    double decay;    /* SGD: added to the gradient; AdamW: decoupled, times the learning rate
                        (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) */
    double average;  /* share of the old average that stays; 0: no average */
} optimizer_options;

typedef struct optimizer {
    optimizer_options options;
    size_t size;
    float *first, *second, *average; /* momentum; squared gradients; average of the state */
    uint64_t steps;
} optimizer;

/* 0, or 1 if there is no memory. `state` begins the average. */
int optimizer_create(const optimizer_options *options, size_t size, const float *state,
                     optimizer *out);
void optimizer_free(optimizer *o);

/* One step. What is not trained has no gradient, but is averaged: running statistics. */
void optimizer_step(optimizer *o, const trainer_param *param, int params, const float *gradient,
                    double rate, float *state);

/* Up linearly over the warm-up, then down along half a cosine to 0 (Loshchilov and Hutter 2017,
   https://arxiv.org/abs/1608.03983): the factor for step 0..total-1. */
double schedule_factor(uint64_t step, uint64_t warmup, uint64_t total);

#endif
