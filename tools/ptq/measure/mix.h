/* Mixed precision: how many bits the weights of each layer deserve. There are 7^layers answers, too
   many to try. So each layer is measured alone at each width, and divergences are taken to add up.
   A greedy path then leads from the largest model to the smallest, each step giving up bits where
   that costs least for the bytes it saves (HAWQ-V2: Dong et al. 2020,
   https://arxiv.org/abs/1911.03852, where the trace of a Hessian stands for what is measured here).
   The models on it are the frontier. Divergences do not really add up, and learning makes up for a
   part of them; so the models among which an accuracy is looked for are converted in full and
   measured, and so is the one returned. */
#ifndef PTQ_TOOL_MIX_H
#define PTQ_TOOL_MIX_H

#include "search.h"

/* What a mixed model must keep to; of the fields that are not zero, all. */
typedef struct mix_goal {
    size_t bytes;        /* most bytes of parameters, as ptq_convert_report counts them */
    double average_bits; /* most bits of a weight, averaged over all weights of such layers */
    double drop_pp;      /* most points of accuracy lost against float, on the images */
    int integers;        /* no layer stays on real numbers; no goal by itself */
} mix_goal;

/* One model of the frontier. */
typedef struct mix_item {
    size_t bytes;
    double average_bits;
    double predicted; /* sum of the nodes' single divergences */
    int measured;     /* 1: converted under the full scheme, and `cost` measured */
    divergence cost;
} mix_item;

typedef struct mix_report {
    ptq_memory memory;
    char (*node)[PTQ_NAME_SIZE]; /* layers with weights that can run on integers */
    int nodes;
    mix_item *item; /* the frontier, largest model first */
    uint8_t *bits;  /* items x nodes: 32 (float), 8, 6, 5, 4, 3 or 2 */
    int items;
    int chosen; /* the model returned */
    int met;    /* 1: it keeps to the goal */
    size_t images;
} mix_report;

/* Chooses the bits of each layer's weights. Four models spread along the frontier and those that a
   search for the goal visits are converted under the full scheme and measured. Returned in `out`
   (which may be NULL) is the best that meets the goal: the smallest under `drop_pp`, otherwise the
   largest under the sizes; where none does, the closest, with `met` 0. `report` may be NULL, and is
   released by ptq_release. */
ptq_status convert_mixed(const ptq_model *model, const ptq_calibration *calibration,
                         const search_options *options, const mix_goal *goal, ptq_model **out,
                         mix_report *report, ptq_error *err);

#endif
