/* Searches ask the same question of model after model: how far are its logits from those of the
   float model, on images that it did not learn from? Float is run once; a model is converted, run on
   the images, and compared. Needs ptq.h and nothing else. */
#ifndef PTQ_TOOL_SEARCH_H
#define PTQ_TOOL_SEARCH_H

#include "ptq.h"

typedef struct search_options {
    ptq_scheme scheme; /* what is looked at or searched for, integer. Zeros: "minmax8" here, as a
                          search tries much, and learns only where it is told to */
    const ptq_dataset *images; /* of calibration: to learn from and to measure on. Never those that
                                  are reported on */
    size_t measure; /* the first so many of them are measured on, and the others learned from, so
                       that learning is judged by images that it did not see; 0, or as many as there
                       are: all serve for both */
    ptq_work work;  /* progress: counts conversions */
} search_options;

/* How far a model's logits are from the float model's. */
typedef struct divergence {
    double sqnr_db;   /* of the logits: 10 log10(sum x^2 / sum (x - x')^2); infinite if equal */
    double kl;        /* mean Kullback-Leibler divergence of the softmax from float's, in nats */
    double agreement; /* share of images with the same prediction, 0 to 1 */
    double delta_pp;  /* accuracy difference in percentage points; 0 without labels */
} divergence;

/* Stays where it is made: data sets point into it. */
typedef struct search {
    const ptq_model *model; /* the float model, fused */
    const ptq_calibration *calibration;
    search_options options;
    ptq_dataset learned; /* the images behind those that are measured on; all, if none are */
    ptq_evaluation real; /* of the float model */
    size_t done, total;  /* conversions */
    ptq_memory memory;   /* what a search needs for itself */
} search;

/* Begins by measuring the float model. To be closed after a failure too. */
ptq_status search_open(search *s, const ptq_model *model, const ptq_calibration *calibration,
                       const search_options *options, ptq_error *err);
void search_close(search *s);

/* Converts as `wanted` says, its images and work aside, and measures. `made` may be NULL; only a
   model that is kept is worth confirming. */
ptq_status search_try(search *s, const ptq_convert_options *wanted, divergence *cost,
                      ptq_model **made, ptq_error *err);

/* Measures the model under `scheme`, all but `node`, which is under `own`; all, if that is NULL. */
ptq_status search_except(search *s, const ptq_scheme *scheme, const char *node,
                         const ptq_scheme *own, divergence *cost, ptq_error *err);

/* The scheme without what learns: fast to convert with. Never all zeros, which would be "best". And
   the one that leaves a node on real numbers. */
ptq_scheme nearest_scheme(const ptq_scheme *scheme);
ptq_scheme float_scheme(void);

/* Convolutions and dense layers. */
int has_weights(const ptq_node *node);

/* Bytes of a node's parameters under a scheme: codes, scales, and biases, which stay 4 bytes. */
size_t layer_bytes(const ptq_node *node, const ptq_scheme *scheme);

/* Zeroed memory that goes with others in one ptq_release; `out` is the address of a pointer. */
ptq_status keep_memory(ptq_memory *memory, size_t count, size_t size, void *out, ptq_error *err);

#endif
