/* Training items to calibrate on. */
#ifndef PTQ_TOOL_IMAGES_H
#define PTQ_TOOL_IMAGES_H

#include <stddef.h>

#include "data/dataset.h"
#include "ptq.h"

/* Training items chosen by ptq_sample. */
enum { DEFAULT_SAMPLES = 1000 };

typedef struct image_sample {
    data_set *data;
    size_t *indices;
    ptq_subset subset;
} image_sample;

/* Of the training part, made to fit the plan's model. count 0: what there is, up to
   DEFAULT_SAMPLES. */
int sample_open(const data_request *from, const ptq_plan *plan, int count, int seed,
                image_sample *out);
void sample_close(image_sample *drawn);

/* How many items the training part has. */
int count_training(const data_request *from, size_t *out);

#endif
