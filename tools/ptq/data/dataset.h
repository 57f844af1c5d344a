/* Data sets of every form, behind one interface: whatever lies at --data, items are read from its
   files when they are asked for, and never held in memory all together. */
#ifndef PTQ_TOOL_DATASET_H
#define PTQ_TOOL_DATASET_H

#include <stddef.h>

#include "data/find.h"
#include "ptq.h"
#include "shared/files.h"

/* What the command line says of data; NULL and 0 where it says nothing. */
typedef struct data_options {
    const char *data, *labels;
    int skip, limit;
} data_options;

/* For a command's list of option_spec: what every command with --data has, and --limit where it has
   no other meaning. */
#define DATA_HELP "CIFAR, IDX, .npy, .npz, or a folder of pictures by class"
#define DATA_OPTIONS(o)                                                                            \
    {"data", 'd', "PATH", DATA_HELP, .text = &(o)->data, .file = READ_FILE},                       \
        {"labels",                                                                                 \
         0,                                                                                        \
         "FILE",                                                                                   \
         "classes of the items, where --data is one .npy or IDX file",                             \
         .text = &(o)->labels,                                                                     \
         .file = READ_FILE},                                                                       \
    {                                                                                              \
        "skip", 0, "N", "leave out the first N items", .number = &(o)->skip                        \
    }
#define DATA_LIMIT_OPTION(o)                                                                       \
    { "limit", 0, "N", "take only N items", .number = &(o)->limit, .least = 1 }

/* Data that were found, and which part of them is meant. */
typedef struct data_request {
    char path[PATH_SIZE];
    const char *labels;
    size_t skip, limit; /* items; limit 0: all */
    int any_labels;     /* labels that the model does not know are left out, not refused */
    int usual;          /* nobody named them: they lie where data usually do */
} data_request;

typedef struct data_set data_set;

/* Looks for the data (find_data). 0, or 1 after an error. */
int data_find(const data_options *given, data_request *out);

/* Opens a part: of a set that has two, training or test items; of one file, all that it holds. With
   a plan, the items are made to fit its model, see data_fit. */
int data_open(const data_request *wanted, ptq_split split, const ptq_plan *plan, data_set **out);

/* The test part beside training items; *out stays NULL where there is none, or none with labels,
   and where data that nobody named do not fit the plan. */
int data_open_test(const data_request *wanted, const ptq_plan *plan, data_set **out);

void data_close(data_set *set);

/* What the library takes; lives as long as the set does. Every class has a name, or its number for
   one. */
const ptq_dataset *data_view(const data_set *set);

/* Bytes of one item; and one item run, as bytes or as real numbers. */
size_t data_item_bytes(const ptq_dataset *view);
ptq_status data_run(ptq_session *session, const ptq_dataset *view, const void *item, float *logits,
                    ptq_error *err);

/* The same labels on items of one byte that mean nothing: for ptq_sample, which asks for labels
   alone, and should not read every item for them. */
ptq_dataset data_labels_only(const data_set *set);

/* Whether the data tell how many classes there are, by their names or their form. Else labels alone
   tell the least number. */
int data_knows_classes(const data_set *set);

/* Whether items have labels. */
int data_is_labelled(const data_set *set);

/* Brings the items to what the model takes: pictures to its size, numbers to its shape and type,
   labels to its classes by their names; a class that the model does not know is refused. classes
   0: the model's number of them does not matter. */
int data_fit(data_set *set, const ptq_model *model, int classes);

/* The names of the classes as a model keeps them (a JSON array), into its metadata; nothing where
   the data do not tell them. */
int data_keep_names(const data_set *set, ptq_model *model);

#endif
