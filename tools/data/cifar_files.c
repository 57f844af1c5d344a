#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cifar_files.h"

enum { MOST_FILES = CIFAR_MOST / CIFAR_BATCH, NAME_BYTES = 32 };

/* ---- Paths and command lines ---- */

ptq_status make_directory(const char *path, ptq_error *err) {
    struct stat found;

    if (mkdir(path, 0777) == 0 || (stat(path, &found) == 0 && S_ISDIR(found.st_mode)))
        return PTQ_OK;
    return ptq_error_set(err, PTQ_IO_ERROR, "cannot make the directory %s: %s", path,
                         strerror(errno));
}

ptq_status join_path(char path[FILE_PATH_BYTES], const char *directory, const char *name,
                     ptq_error *err) {
    int length = snprintf(path, FILE_PATH_BYTES, "%s/%s", directory, name);

    return length > 0 && length < FILE_PATH_BYTES
               ? PTQ_OK
               : ptq_error_set(err, PTQ_INVALID_ARGUMENT, "a path of over %d bytes is too long",
                               (int)FILE_PATH_BYTES - 1);
}

int read_whole_number(const char *text, unsigned long most, unsigned long *out) {
    char *end;

    if (!text || *text < '0' || *text > '9')
        return 1;
    errno = 0;
    *out = strtoul(text, &end, 10);
    return *end || errno || *out > most;
}

int complain(const char *program, const char *text) {
    fprintf(stderr, "%s: %s; see '%s --help'\n", program, text, program);
    return 1;
}

/* ---- The files of a data set ---- */

/* File 0 is that of the test set. */
static ptq_status file_path(char path[FILE_PATH_BYTES], const char *directory, int file,
                            ptq_error *err) {
    char name[NAME_BYTES] = "test_batch.bin";

    if (file)
        snprintf(name, sizeof name, "data_batch_%d.bin", file);
    return join_path(path, directory, name, err);
}

static int has_file(const char *directory, int file) {
    char path[FILE_PATH_BYTES];
    struct stat found;

    return !file_path(path, directory, file, NULL) && stat(path, &found) == 0;
}

int cifar_has_split(const char *directory, ptq_split split) {
    int i;

    if (split == PTQ_SPLIT_TEST)
        return has_file(directory, 0);
    for (i = 1; i <= MOST_FILES; i++)
        if (has_file(directory, i))
            return 1;
    return 0;
}

static ptq_status write_names(const char *directory, const char *const *class_name, int classes,
                              ptq_error *err) {
    char path[FILE_PATH_BYTES], text[1024];
    size_t used = 0;
    int i;

    for (i = 0; i < classes; i++) {
        int length = snprintf(text + used, sizeof text - used, "%s\n", class_name[i]);

        if (length < 0 || (size_t)length >= sizeof text - used)
            return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                                 "the names of the classes are too long");
        used += (size_t)length;
    }
    if (join_path(path, directory, "batches.meta.txt", err))
        return err->status;
    return ptq_file_write(path, text, used, err);
}

/* A leftover data_batch_7.bin would be read as part of the new data. */
ptq_status cifar_writer_open(cifar_writer *writer, const char *directory,
                             const char *const *class_name, int classes, ptq_error *err) {
    memset(writer, 0, sizeof *writer);
    writer->directory = directory;
    if (make_directory(directory, err))
        return err->status;
    if (cifar_has_split(directory, PTQ_SPLIT_TRAIN) || cifar_has_split(directory, PTQ_SPLIT_TEST))
        return ptq_error_set(err, PTQ_IO_ERROR, "%s holds data already; name a new directory",
                             directory);
    writer->ours = 1;
    writer->records = malloc((size_t)CIFAR_BATCH * PTQ_CIFAR10_RECORD);
    if (!writer->records)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for %d images", (int)CIFAR_BATCH);
    return write_names(directory, class_name, classes, err);
}

static ptq_status flush(cifar_writer *writer, ptq_error *err) {
    int file = writer->split == PTQ_SPLIT_TRAIN ? writer->files + 1 : 0;
    char path[FILE_PATH_BYTES];

    if (!writer->count)
        return PTQ_OK;
    if (file_path(path, writer->directory, file, err) ||
        ptq_file_write(path, writer->records, writer->count * PTQ_CIFAR10_RECORD, err))
        return err->status;
    if (file)
        writer->files = file;
    else
        writer->tested = 1;
    writer->count = 0;
    return PTQ_OK;
}

ptq_status cifar_writer_add(cifar_writer *writer, ptq_split split, const uint8_t *record,
                            ptq_error *err) {
    int full = writer->count == CIFAR_BATCH;

    if (full && split == PTQ_SPLIT_TEST && writer->split == split)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "more than %d test images",
                             (int)CIFAR_BATCH);
    if ((full || split != writer->split) && flush(writer, err))
        return err->status;
    if (split == PTQ_SPLIT_TRAIN && writer->files == MOST_FILES)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "more than %d training images",
                             (int)CIFAR_MOST);
    writer->split = split;
    memcpy(writer->records + writer->count++ * PTQ_CIFAR10_RECORD, record, PTQ_CIFAR10_RECORD);
    return PTQ_OK;
}

static void remove_written(const cifar_writer *writer) {
    char path[FILE_PATH_BYTES];
    int i;

    for (i = writer->tested ? 0 : 1; i <= writer->files; i++)
        if (!file_path(path, writer->directory, i, NULL))
            remove(path);
    if (!join_path(path, writer->directory, "batches.meta.txt", NULL))
        remove(path);
}

ptq_status cifar_writer_close(cifar_writer *writer, ptq_status before, ptq_error *err) {
    ptq_status status = before ? before : flush(writer, err);

    if (status && writer->ours)
        remove_written(writer);
    free(writer->records);
    memset(writer, 0, sizeof *writer);
    return status;
}
