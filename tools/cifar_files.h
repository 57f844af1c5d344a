/* Writes data sets in the binary form of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html):
   data_batch_1.bin and on, test_batch.bin, batches.meta.txt. Shared by the programs that make such
   data. */
#ifndef PTQ_CIFAR_FILES_H
#define PTQ_CIFAR_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "ptq.h"

enum {
    CIFAR_SIDE = 32,
    CIFAR_PLANE = CIFAR_SIDE * CIFAR_SIDE,
    CIFAR_BATCH = 10000,  /* records in a file */
    CIFAR_MOST = 99 * CIFAR_BATCH /* the reader knows 99 files */
};

typedef struct cifar_writer {
    const char *directory;
    uint8_t *records; /* CIFAR_BATCH of them */
    size_t count;     /* in `records` */
    int files;        /* of the training set, written so far */
    ptq_split split;
} cifar_writer;

/* Makes `directory` where there is none and writes batches.meta.txt. Files that hold data are never
   replaced: a directory that has some is refused. */
ptq_status cifar_writer_open(cifar_writer *writer, const char *directory,
                             const char *const *class_name, int classes, ptq_error *err);

/* Adds a record of PTQ_CIFAR10_RECORD bytes. A record of the other split begins a new file. */
ptq_status cifar_writer_add(cifar_writer *writer, ptq_split split, const uint8_t *record,
                            ptq_error *err);

/* Writes what is left, unless something failed before; releases the writer either way. */
ptq_status cifar_writer_close(cifar_writer *writer, ptq_status before, ptq_error *err);

/* Makes a directory, unless it is there already. */
ptq_status make_directory(const char *path, ptq_error *err);

#endif
