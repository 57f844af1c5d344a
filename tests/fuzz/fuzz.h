/* What the fuzz targets share: the library with the sanitizers in it, and a check that stops the
   fuzzer. Each target is one file that defines LLVMFuzzerTestOneInput; libFuzzer or AFL++ drives it,
   and replay.c, which runs files, in the ordinary tests. */
#include <stdio.h>
#include <stdlib.h>

#define PTQ_IMPLEMENTATION
#include "ptq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ptq_error err;

#define expect(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, err.text); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
