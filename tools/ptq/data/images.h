/* Training images to calibrate on, and the test set beside them. */
#ifndef PTQ_TOOL_IMAGES_H
#define PTQ_TOOL_IMAGES_H

#include <stddef.h>

#include "ptq.h"

/* Training images chosen by ptq_sample. */
enum { DEFAULT_SAMPLES = 1000 };

typedef struct image_sample {
    ptq_cifar10 *data;
    size_t *indices;
    ptq_subset subset;
} image_sample;

/* count 0: what there is, up to DEFAULT_SAMPLES. */
int sample_open(const char *data_path, int count, int seed, image_sample *out);
void sample_close(image_sample *drawn);

/* The test set that lies at `data_path`, or beside it if that is a file; *out stays NULL where
   there is none. */
int open_test_set(const char *data_path, ptq_cifar10 **out);

#endif
