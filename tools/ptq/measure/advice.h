/* What could be changed in a quantized model, and what each change is worth: agreement with float
   after it, less that before it. Everything is measured, nothing estimated: a conversion and an
   evaluation for each remedy, on the whole model and on the nodes that cost most. */
#ifndef PTQ_TOOL_ADVICE_H
#define PTQ_TOOL_ADVICE_H

#include "measure/nodes.h"

typedef struct advice {
    char node[PTQ_NAME_SIZE]; /* what the change is limited to; empty: the whole model */
    char text[200];           /* "block3.conv2 costs 1.90 points of agreement; per-channel weights
                                 would win back 1.60" */
    double gain_pp;           /* percentage points of agreement */
} advice;

enum { MOST_ADVICE = 6 * 4 };

typedef struct advice_list {
    advice item[MOST_ADVICE]; /* largest gain first, only gains */
    int items;
} advice_list;

/* Tries remedies on a float model under options->scheme, whose nodes were ranked with the same
   options: more bits, a scale per channel, ranges of least error, learned and refitted weights,
   float. Those for single nodes are measured with rounding to nearest, for speed. Progress counts
   remedies. */
ptq_status find_advice(const ptq_model *model, const ptq_calibration *calibration,
                       const search_options *options, const node_ranking *ranked, advice_list *out,
                       ptq_error *err);

#endif
