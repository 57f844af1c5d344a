/* What the readers of tools/ptq/data share. A reader fills a data_set: how many items of which
   shape, labels, names of classes, and how to read one item. */
#ifndef PTQ_TOOL_READER_H
#define PTQ_TOOL_READER_H

#include <stddef.h>
#include <stdint.h>

#include "data/dataset.h"
#include "data/find.h"

enum { DATA_MOST_CLASSES = 65536, DATA_MOST_SIDE = 1 << 20, DATA_MOST_ELEMENTS = 1 << 28 };

struct data_set {
    ptq_dataset view; /* class_name: `name`, or NULL */
    char path[PATH_SIZE];
    size_t all, first;   /* items of the part, the first one wanted */
    int *label;          /* of all; NULL: none */
    int classes;         /* that the data tell; 0: their labels alone tell the least number */
    char **name;         /* of the classes; NULL: none */
    int names, assumed;  /* assumed: the data do not say them themselves */
    const char **number; /* what classes without names are called */
    int whole;           /* there are no parts: it is training or test data, as it is asked for */
    int widen;           /* bytes are wanted as real numbers */

    /* The reader's. `read` serves several threads; `fit` may be NULL: the shape is what it is. */
    ptq_status (*read)(const data_set *set, size_t index, void *item, ptq_error *err);
    ptq_status (*fit)(data_set *set, const int shape[3], int real, const char *resize,
                      ptq_error *err);
    void (*close)(data_set *set);
    void *own;
};

/* Each fills a set of zeros with the split, or says PTQ_NOT_READY where there is none of it. What
   is left after a failure is closed by the caller. */
ptq_status cifar_open(data_set *set, const data_request *wanted, ptq_split split, ptq_error *err);
ptq_status arrays_open(data_set *set, const data_request *wanted, ptq_split split, ptq_error *err);
ptq_status pictures_open(data_set *set, const data_request *wanted, ptq_split split,
                         ptq_error *err);

/* Whether a file or a folder is theirs. */
int arrays_in_file(const char *path);
int arrays_in_folder(const char *folder, int split, char path[PATH_SIZE]);
int pictures_in_file(const char *path);
int pictures_in_folder(const char *folder);
int cifar_in_folder(const char *folder);

typedef enum data_kind { DATA_CIFAR, DATA_ARRAYS, DATA_PICTURES } data_kind;
data_kind find_kind(const char *path);

/* ---- dataset.c ---- */

ptq_status data_no_memory(ptq_error *err);

/* Room for the labels of all items; and for the items themselves, H x W x C. */
ptq_status data_set_labels(data_set *set, ptq_error *err);
ptq_status data_set_shape(data_set *set, uint64_t height, uint64_t width, uint64_t channels,
                          ptq_error *err);

/* Adds the name of the next class: 1 to 31 bytes without control characters, each name once. */
ptq_status data_add_class(data_set *set, const char *name, size_t length, const char *where,
                          ptq_error *err);

/* Names of classes from a file, one a line; nothing where there is no such file. */
ptq_status data_read_names(data_set *set, const char *path, ptq_error *err);

int is_directory(const char *path);
int is_file(const char *path);

/* "folder/name"; 1 if it is a file (and not too long). */
int has_file(const char *folder, const char *name, char path[PATH_SIZE]);

#endif
