/* Training images to calibrate on, and the test set beside them. */
#ifndef PTQ_TOOL_IMAGES_H
#define PTQ_TOOL_IMAGES_H

#include <stddef.h>

#include "ptq.h"

/* Training images chosen by ptq_sample. */
typedef struct image_sample {
    ptq_cifar10 *data;
    size_t *indices;
    ptq_subset subset;
} image_sample;

int sample_open(const char *data_path, int count, int seed, image_sample *out);
void sample_close(image_sample *drawn);

/* The test set that lies at `data_path`, or beside it if that is a file; *out stays NULL where
   there is none. */
int open_test_set(const char *data_path, ptq_cifar10 **out);

#endif
