/* The binary versions of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), and
   whatever has the same form: records of one label, or a coarse and a fine one, and three planes of
   32 x 32 bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/bytes.h"
#include "data/reader.h"
#include "ptq.h"
#include "shared/files.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE, MOST_FILES = 99, CHUNK = 64 };

typedef struct records {
    data_bytes bytes;
    char path[PATH_SIZE];
    size_t count;
} records;

typedef struct cifar {
    records file[MOST_FILES];
    int files, labels; /* labels: bytes of a record before its pixels, the class in the last one */
} cifar;

static ptq_status read_item(const data_set *set, size_t index, void *item, ptq_error *err) {
    const cifar *own = set->own;
    size_t record = (size_t)own->labels + PIXELS;
    uint8_t planes[PIXELS], *pixel = item;
    int f = 0;
    ptq_status status;

    for (; index >= own->file[f].count; f++)
        index -= own->file[f].count;
    status = bytes_read(&own->file[f].bytes, (uint64_t)index * record + (uint64_t)own->labels,
                        sizeof planes, planes, err);
    for (int i = 0; i < PLANE && !status; i++)
        for (int c = 0; c < 3; c++)
            *pixel++ = planes[c * PLANE + i];
    return status;
}

static void close_files(data_set *set) {
    cifar *own = set->own;

    for (int i = 0; own && i < own->files; i++)
        bytes_close(&own->file[i].bytes);
    free(own);
}

/* One more file: its records are counted, and checked below. */
static ptq_status add_file(data_set *set, const char *path, ptq_error *err) {
    cifar *own = set->own;
    records *file = &own->file[own->files];
    size_t record = (size_t)own->labels + PIXELS;
    ptq_status status;

    snprintf(file->path, sizeof file->path, "%s", path);
    status = bytes_open(file->path, &file->bytes, err);
    if (status)
        return status;
    own->files++;
    if (!file->bytes.size || file->bytes.size % record)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: %llu bytes are not one or more records of %zu; empty, truncated, "
                             "or not CIFAR's binary version",
                             path, (unsigned long long)file->bytes.size, record);
    file->count = (size_t)(file->bytes.size / record);
    set->all += file->count;
    return PTQ_OK;
}

/* A file of another kind is found out by its size, or by its first byte that is no label. */
static ptq_status read_labels(data_set *set, ptq_error *err) {
    const cifar *own = set->own;
    size_t record = (size_t)own->labels + PIXELS, n = 0;
    uint8_t *chunk = malloc(CHUNK * record);
    ptq_status status = chunk ? data_set_labels(set, err) : data_no_memory(err);

    for (int f = 0; f < own->files && !status; f++)
        for (size_t i = 0; i < own->file[f].count && !status; i++, n++) {
            size_t left = own->file[f].count - i, at = i % CHUNK;

            if (!at)
                status = bytes_read(&own->file[f].bytes, (uint64_t)i * record,
                                    (left < CHUNK ? left : CHUNK) * record, chunk, err);
            set->label[n] = status ? 0 : chunk[at * record + (size_t)own->labels - 1];
            if (!status && set->label[n] >= set->classes)
                status = ptq_error_set(err, PTQ_BAD_DATA,
                                       "%s: record %zu has label %d, labels are 0 to %d; not "
                                       "CIFAR's binary version?",
                                       own->file[f].path, i, set->label[n], set->classes - 1);
        }
    free(chunk);
    return status;
}

/* Fine labels, where names of them lie beside, or where only such records fit the size. */
static int has_two_labels(const char *folder, const char *path) {
    char names[PATH_SIZE];
    size_t size = file_size(path);

    return has_file(folder, "fine_label_names.txt", names) ||
           (size % (PIXELS + 1) && size && !(size % (PIXELS + 2)));
}

static ptq_status add_files(data_set *set, ptq_split split, ptq_error *err) {
    char name[32], path[PATH_SIZE];
    ptq_status status = PTQ_OK;

    if (has_file(set->path, split == PTQ_SPLIT_TEST ? "test.bin" : "train.bin", path))
        return add_file(set, path, err);
    if (split == PTQ_SPLIT_TEST)
        return has_file(set->path, "test_batch.bin", path) ? add_file(set, path, err) : PTQ_OK;
    for (int i = 1; i <= MOST_FILES && !status; i++) {
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        if (has_file(set->path, name, path))
            status = add_file(set, path, err);
    }
    return status;
}

/* Names of classes; without any, CIFAR-10's own, or a hundred classes without names. */
static ptq_status find_classes(data_set *set, const char *folder, int two, ptq_error *err) {
    const ptq_dataset *ten = ptq_cifar10_dataset(NULL);
    char path[PATH_SIZE];
    ptq_status status = PTQ_OK;

    if (has_file(folder, two ? "fine_label_names.txt" : "batches.meta.txt", path))
        status = data_read_names(set, path, err);
    set->assumed = !set->names;
    for (int c = 0; !two && !status && set->assumed && c < ten->classes; c++)
        status = data_add_class(set, ten->class_name[c], strlen(ten->class_name[c]), folder, err);
    set->classes = set->names ? set->names : 100;
    if (!status && set->classes > 256)
        status = ptq_error_set(err, PTQ_BAD_DATA, "%s: more than 256 classes fit no label", path);
    return status;
}

/* Names of the binary version, and of what people have instead of it. */
static const char *const own_names[] = {"test_batch.bin", "data_batch_1.bin", "train.bin",
                                        "test.bin"};
static const char *const other_names[] = {"test_batch",
                                          "data_batch_1",
                                          "test_batch.mat",
                                          "data_batch_1.mat",
                                          "cifar-10-binary.tar.gz",
                                          "cifar-10-python.tar.gz",
                                          "cifar-10-matlab.tar.gz",
                                          "cifar-10-batches-bin/test_batch.bin",
                                          "cifar-10-batches-bin/data_batch_1.bin"};

static int has_any(const char *folder, const char *const *name, size_t names) {
    char path[PATH_SIZE];

    for (size_t i = 0; i < names; i++)
        if (has_file(folder, name[i], path))
            return 1;
    return 0;
}

int cifar_in_folder(const char *folder) {
    char name[32], path[PATH_SIZE];

    for (int i = 2; i <= MOST_FILES; i++) {
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        if (has_file(folder, name, path))
            return 1;
    }
    return has_any(folder, own_names, sizeof own_names / sizeof *own_names) ||
           has_any(folder, other_names, sizeof other_names / sizeof *other_names);
}

/* What is said where the files of a split are missing; the library knows what else of CIFAR-10 may
   lie there. */
static ptq_status refuse(const data_set *set, ptq_split split, ptq_error *err) {
    const char *first = split == PTQ_SPLIT_TEST ? "test_batch.bin" : "data_batch_1.bin";
    ptq_cifar10 *none = NULL;

    if (cifar_in_folder(set->path)) {
        ptq_cifar10_open(set->path, split, NULL, &none, err);
        ptq_cifar10_free(none);
        return PTQ_NOT_READY;
    }
    ptq_error_set(err, PTQ_NOT_READY,
                  "%s: no %s there, and no other data that are known: x_train.npy, a .npz, IDX, "
                  "train/CLASS/ with pictures",
                  set->path, first);
    return PTQ_NOT_READY;
}

ptq_status cifar_open(data_set *set, const data_request *wanted, ptq_split split, ptq_error *err) {
    char folder[PATH_SIZE], any[PATH_SIZE];
    int single = !is_directory(set->path), two;
    cifar *own = calloc(1, sizeof *own);
    ptq_status status;

    (void)wanted;
    if (!own)
        return data_no_memory(err);
    set->own = own;
    set->read = read_item;
    set->close = close_files;
    set->view.type = PTQ_TYPE_U8;
    snprintf(folder, sizeof folder, "%s", set->path);
    if (single)
        directory_of(set->path, folder);
    two = single ? has_two_labels(folder, set->path)
                 : has_file(folder, "train.bin", any) || has_file(folder, "test.bin", any);
    own->labels = two ? 2 : 1;
    status = find_classes(set, folder, two, err);
    if (!status)
        status = single ? add_file(set, set->path, err) : add_files(set, split, err);
    if (!status && !set->all)
        status = refuse(set, split, err);
    if (!status)
        status = read_labels(set, err);
    return status ? status : data_set_shape(set, SIDE, SIDE, 3, err);
}
