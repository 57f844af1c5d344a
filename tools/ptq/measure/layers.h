/* Layer by layer: every tensor of a quantized model beside the same tensor of the float model. Where
   the ratio of signal to noise falls at once, from one tensor to the next, the layer between them is
   to blame. */
#ifndef PTQ_TOOL_LAYERS_H
#define PTQ_TOOL_LAYERS_H

#include "ptq.h"

typedef struct layer_error {
    char name[PTQ_NAME_SIZE]; /* tensor */
    double sqnr_db;           /* 10 log10(sum x^2 / sum (x - x')^2); infinite if equal */
    float largest;            /* largest |x - x'| */
    double clipped;           /* share of elements at an outermost code, the value lying beyond */
} layer_error;

typedef struct layer_report {
    layer_error *item; /* from malloc */
    int items;
} layer_report;

/* Runs both plans on the first `count` images (0: all) and compares every tensor that both have, in
   the order of the quantized model; tensors of a model that was equalized, in its own units. The
   baseline should be fused: what its additions read is compared only then. `out` is written on
   success only. */
ptq_status compare_layers(const ptq_plan *baseline, const ptq_plan *quantized,
                          const ptq_dataset *data, size_t count, layer_report *out, ptq_error *err);
void layer_report_free(layer_report *report);

#endif
