/* Training images to calibrate on, and the test set beside them. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/images.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/output.h"

void sample_close(image_sample *drawn) {
    ptq_cifar10_free(drawn->data);
    free(drawn->indices);
    memset(drawn, 0, sizeof *drawn);
}

int sample_open(const char *data_path, int count, int draw, image_sample *out) {
    ptq_error err;

    memset(out, 0, sizeof *out);
    if (ptq_cifar10_open(data_path, PTQ_SPLIT_TRAIN, NULL, &out->data, &err))
        return fail("%s", err.text);
    if (!count)
        count = ptq_cifar10_dataset(out->data)->count < DEFAULT_SAMPLES
                    ? (int)ptq_cifar10_dataset(out->data)->count
                    : DEFAULT_SAMPLES;
    out->indices = malloc((size_t)count * sizeof *out->indices);
    if (!out->indices) {
        sample_close(out);
        return fail("no memory for %d images; choose a smaller --samples", count);
    }
    if (ptq_sample(ptq_cifar10_dataset(out->data), (size_t)count, (uint64_t)draw, out->indices,
                   NULL, &err) ||
        ptq_subset_open(&out->subset, ptq_cifar10_dataset(out->data), out->indices, (size_t)count,
                        &err)) {
        sample_close(out);
        return fail("%s", err.text);
    }
    return 0;
}

/* Directory of a path, which may be one itself. */
static void beside(const char *path, const char *name, char out[PATH_SIZE]) {
    struct stat status;
    const char *slash = strrchr(path, '/');

    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        snprintf(out, PATH_SIZE, "%.*s/%s", PATH_SIZE - 32, path, name);
    else if (slash)
        snprintf(out, PATH_SIZE, "%.*s/%s", (int)(slash - path), path, name);
    else
        snprintf(out, PATH_SIZE, "%s", name);
}

int open_test_set(const char *data_path, ptq_cifar10 **out) {
    char path[PATH_SIZE];
    ptq_error err;

    *out = NULL;
    beside(data_path, "test_batch.bin", path);
    if (!file_size(path))
        return 0;
    return ptq_cifar10_open(path, PTQ_SPLIT_TEST, NULL, out, &err) ? fail("%s", err.text) : 0;
}
