/* What the fuzz targets share: the library with the sanitizers in it, and a check that stops the
   fuzzer. Each target is one file that defines LLVMFuzzerTestOneInput; libFuzzer or AFL++ drives
   it, and replay.c, which runs files, in the ordinary tests. */
#include <stdio.h>
#include <stdlib.h>

#define PTQ_IMPLEMENTATION
#include "ptq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ptq_error err;

/* Memory without end would not be had on a small machine either: a few bytes may name a gigabyte,
   which only makes the fuzzer slow. */
static inline void *allocate_little(void *user, size_t size) {
    (void)user;
    return size > 1 << 20 ? NULL : malloc(size ? size : 1);
}

static inline void release_little(void *user, void *pointer) {
    (void)user;
    free(pointer);
}

static const ptq_allocator little = {allocate_little, release_little, NULL};

/* A number from all bytes of an input: FNV-1a. */
static inline uint64_t seed_of(const uint8_t *data, size_t size) {
    uint64_t hash = 14695981039346656037u;
    size_t i;

    for (i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 1099511628211u;
    return hash;
}

#define expect(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, err.text); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
