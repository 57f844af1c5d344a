/* Training items to calibrate on. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "data/images.h"
#include "ptq.h"
#include "shared/output.h"

void sample_close(image_sample *drawn) {
    data_close(drawn->data);
    free(drawn->indices);
    memset(drawn, 0, sizeof *drawn);
}

static int draw(image_sample *out, size_t count, int seed) {
    ptq_dataset labels = data_labels_only(out->data);
    ptq_error err;

    out->indices = malloc(count * sizeof *out->indices);
    if (!out->indices)
        return fail("no memory for %zu images; choose a smaller --samples", count);
    if (ptq_sample(&labels, count, (uint64_t)seed, out->indices, NULL, &err) ||
        ptq_subset_open(&out->subset, data_view(out->data), out->indices, count, &err))
        return fail("%s", err.text);
    return 0;
}

int sample_open(const data_request *from, const ptq_plan *plan, int count, int seed,
                image_sample *out) {
    size_t wanted = (size_t)count, all;

    memset(out, 0, sizeof *out);
    if (data_open(from, PTQ_SPLIT_TRAIN, plan, &out->data))
        return 1;
    all = data_view(out->data)->count;
    if (!wanted)
        wanted = all < DEFAULT_SAMPLES ? all : DEFAULT_SAMPLES;
    if (!draw(out, wanted, seed))
        return 0;
    sample_close(out);
    return 1;
}

int count_training(const data_request *from, size_t *out) {
    data_set *set;

    if (data_open(from, PTQ_SPLIT_TRAIN, NULL, &set))
        return 1;
    *out = data_view(set)->count;
    data_close(set);
    return 0;
}
