#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cifar_files.h"

enum { PATH_BYTES = 4096 };

ptq_status make_directory(const char *path, ptq_error *err)
{
    struct stat found;

    if (mkdir(path, 0777) == 0 || (stat(path, &found) == 0 && S_ISDIR(found.st_mode)))
        return PTQ_OK;
    return ptq_error_set(err, PTQ_IO_ERROR, "cannot make the directory %s: %s", path,
                         strerror(errno));
}

static ptq_status join(char path[PATH_BYTES], const char *directory, const char *name,
                       ptq_error *err)
{
    int length = snprintf(path, PATH_BYTES, "%s/%s", directory, name);

    return length > 0 && length < PATH_BYTES
               ? PTQ_OK
               : ptq_error_set(err, PTQ_INVALID_ARGUMENT, "the name of the directory is too long");
}

/* A leftover data_batch_7.bin would be read as part of the new data, so any is too many. */
static ptq_status refuse_data(const char *directory, ptq_error *err)
{
    char path[PATH_BYTES], name[32];
    struct stat found;
    int i;

    for (i = 0; i <= CIFAR_MOST / CIFAR_BATCH; i++) {
        if (i)
            snprintf(name, sizeof name, "data_batch_%d.bin", i);
        else
            snprintf(name, sizeof name, "test_batch.bin");
        if (join(path, directory, name, err))
            return err->status;
        if (stat(path, &found) == 0)
            return ptq_error_set(err, PTQ_IO_ERROR,
                                 "%s holds data already (%s); name a new directory", directory,
                                 name);
    }
    return PTQ_OK;
}

static ptq_status write_names(const char *directory, const char *const *class_name, int classes,
                              ptq_error *err)
{
    char path[PATH_BYTES], text[1024];
    size_t used = 0;
    int i;

    for (i = 0; i < classes; i++) {
        int length = snprintf(text + used, sizeof text - used, "%s\n", class_name[i]);

        if (length < 0 || (size_t)length >= sizeof text - used)
            return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "the names of the classes are too long");
        used += (size_t)length;
    }
    if (join(path, directory, "batches.meta.txt", err))
        return err->status;
    return ptq_file_write(path, text, used, err);
}

ptq_status cifar_writer_open(cifar_writer *writer, const char *directory,
                             const char *const *class_name, int classes, ptq_error *err)
{
    memset(writer, 0, sizeof *writer);
    writer->directory = directory;
    if (make_directory(directory, err) || refuse_data(directory, err) ||
        write_names(directory, class_name, classes, err))
        return err->status;
    writer->records = malloc((size_t)CIFAR_BATCH * PTQ_CIFAR10_RECORD);
    return writer->records ? PTQ_OK
                           : ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for %d images",
                                           (int)CIFAR_BATCH);
}

static ptq_status flush(cifar_writer *writer, ptq_error *err)
{
    char path[PATH_BYTES], name[32] = "test_batch.bin";

    if (!writer->count)
        return PTQ_OK;
    if (writer->split == PTQ_TRAIN_SET)
        snprintf(name, sizeof name, "data_batch_%d.bin", ++writer->files);
    if (join(path, writer->directory, name, err) ||
        ptq_file_write(path, writer->records, writer->count * PTQ_CIFAR10_RECORD, err))
        return err->status;
    writer->count = 0;
    return PTQ_OK;
}

ptq_status cifar_writer_add(cifar_writer *writer, ptq_split split, const uint8_t *record,
                            ptq_error *err)
{
    /* A test set is one file, whatever its size: here as large as the buffer. */
    if (split == PTQ_TEST_SET && split == writer->split && writer->count == CIFAR_BATCH)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "more than %d test images",
                             (int)CIFAR_BATCH);
    if ((split != writer->split || writer->count == CIFAR_BATCH) && flush(writer, err))
        return err->status;
    if (split == PTQ_TRAIN_SET && writer->files == CIFAR_MOST / CIFAR_BATCH)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "more than %d training images",
                             (int)CIFAR_MOST);
    writer->split = split;
    memcpy(writer->records + writer->count++ * PTQ_CIFAR10_RECORD, record, PTQ_CIFAR10_RECORD);
    return PTQ_OK;
}

ptq_status cifar_writer_close(cifar_writer *writer, ptq_status before, ptq_error *err)
{
    ptq_status status = before ? before : flush(writer, err);

    free(writer->records);
    memset(writer, 0, sizeof *writer);
    return status;
}
