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
    CIFAR_BATCH = 10000,           /* records in a file */
    CIFAR_MOST = 99 * CIFAR_BATCH, /* the reader knows 99 files */
    FILE_PATH_BYTES = 4096
};

typedef struct cifar_writer {
    const char *directory;
    uint8_t *records; /* CIFAR_BATCH of them */
    size_t count;     /* in `records` */
    ptq_split split;
    int files, tested; /* what was written: data_batch_1.bin to this one, test_batch.bin */
    int ours;          /* the directory held no data before */
} cifar_writer;

/* Makes `directory` where there is none and writes batches.meta.txt. Files that hold data are never
   replaced: a directory that has some is refused. */
ptq_status cifar_writer_open(cifar_writer *writer, const char *directory,
                             const char *const *class_name, int classes, ptq_error *err);

/* Adds a record of PTQ_CIFAR10_RECORD bytes. A record of the other split begins a new file. */
ptq_status cifar_writer_add(cifar_writer *writer, ptq_split split, const uint8_t *record,
                            ptq_error *err);

/* Writes what is left, unless something failed before; after a failure it removes what was written.
   Releases the writer either way. */
ptq_status cifar_writer_close(cifar_writer *writer, ptq_status before, ptq_error *err);

/* Whether a directory holds files of the training or the test set. */
int cifar_has_split(const char *directory, ptq_split split);

/* Makes a directory, unless it is there already. */
ptq_status make_directory(const char *path, ptq_error *err);

/* "directory/name" */
ptq_status join_path(char path[FILE_PATH_BYTES], const char *directory, const char *name,
                     ptq_error *err);

/* For command lines. The first is 0 for a whole number of at most `most`; the second prints one
   line on standard error and returns 1, an exit status. */
int read_whole_number(const char *text, unsigned long most, unsigned long *out);
int complain(const char *program, const char *text);

#endif
