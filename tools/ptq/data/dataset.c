/* One interface to data sets of every form: which form it is, what part of it is wanted, and how it
   is made to fit a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/bytes.h"
#include "data/dataset.h"
#include "data/names.h"
#include "data/reader.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/output.h"

/* ---- What the readers share ---- */

ptq_status data_no_memory(ptq_error *err) {
    return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for the data set");
}

int is_directory(const char *path) {
    struct stat found;

    return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

int is_file(const char *path) {
    struct stat found;

    return stat(path, &found) == 0 && S_ISREG(found.st_mode);
}

int has_file(const char *folder, const char *name, char path[PATH_SIZE]) {
    int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);

    return length > 0 && length < PATH_SIZE && is_file(path);
}

ptq_status data_set_labels(data_set *set, ptq_error *err) {
    set->label = malloc(set->all * sizeof *set->label);
    return set->label ? PTQ_OK : data_no_memory(err);
}

ptq_status data_set_shape(data_set *set, uint64_t height, uint64_t width, uint64_t channels,
                          ptq_error *err) {
    if (height > DATA_MOST_SIDE || width > DATA_MOST_SIDE || channels > DATA_MOST_SIDE ||
        height * width > DATA_MOST_ELEMENTS || height * width * channels > DATA_MOST_ELEMENTS)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: its items are too large, %llux%llux%llu",
                             set->path, (unsigned long long)height, (unsigned long long)width,
                             (unsigned long long)channels);
    set->view.height = (int)height;
    set->view.width = (int)width;
    set->view.channels = (int)channels;
    return PTQ_OK;
}

ptq_status data_add_class(data_set *set, const char *name, size_t length, const char *where,
                          ptq_error *err) {
    int legal = length > 0 && length < PTQ_CLASS_NAME_SIZE;
    char **larger, *copy;

    for (size_t i = 0; i < length; i++)
        legal &= (unsigned char)name[i] >= 32 && name[i] != 127;
    if (!legal)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: the name of class %d has over %d bytes or a control character; "
                             "rename it",
                             where, set->names, PTQ_CLASS_NAME_SIZE - 1);
    for (int c = 0; c < set->names; c++)
        if (strlen(set->name[c]) == length && !memcmp(set->name[c], name, length))
            return ptq_error_set(err, PTQ_BAD_DATA, "%s: two classes are named %s", where,
                                 set->name[c]);
    if (set->names == DATA_MOST_CLASSES)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: more than %d classes", where, set->names);
    larger = realloc(set->name, ((size_t)set->names + 1) * sizeof *larger);
    copy = calloc(length + 1, 1);
    if (larger)
        set->name = larger;
    if (!larger || !copy) {
        free(copy);
        return data_no_memory(err);
    }
    memcpy(copy, name, length);
    set->name[set->names++] = copy;
    return PTQ_OK;
}

ptq_status data_read_names(data_set *set, const char *path, ptq_error *err) {
    void *bytes = NULL;
    size_t size = 0, at = 0;
    ptq_status status = ptq_file_read(path, 1 << 20, NULL, &bytes, &size, err);

    while (at < size && !status) {
        const char *line = (const char *)bytes + at;
        const char *end = memchr(line, '\n', size - at);
        size_t length = end ? (size_t)(end - line) : size - at;

        at += length + 1;
        length -= length && line[length - 1] == '\r';
        if (length)
            status = data_add_class(set, line, length, path, err);
    }
    ptq_bytes_free(bytes, NULL);
    if (!status && !set->names)
        status = ptq_error_set(err, PTQ_BAD_DATA, "%s: no names of classes", path);
    return status;
}

/* ---- Fitting a model ---- */

static void free_names(data_set *set) {
    while (set->names > 0)
        free(set->name[--set->names]);
    free(set->name);
    set->name = NULL;
}

/* The model's own names in place of the data's. */
static ptq_status take_names(data_set *set, const ptq_model *model, int classes, ptq_error *err) {
    ptq_status status = PTQ_OK;
    char text[PTQ_CLASS_NAME_SIZE];

    free_names(set);
    for (int c = 0; c < classes && !status; c++) {
        size_t length = ptq_class_name(model, c, text, sizeof text);

        status = data_add_class(set, text, length, set->path, err);
    }
    set->view.class_name = (const char *const *)set->name;
    return status;
}

static int find_class(const ptq_model *model, int classes, const char *name) {
    char text[PTQ_CLASS_NAME_SIZE];

    for (int c = 0; c < classes; c++)
        if (ptq_class_name(model, c, text, sizeof text) < sizeof text && !strcmp(text, name))
            return c;
    return -1;
}

/* A folder may hold some of the classes only, or number them in another order: their names say
   which they are. */
static ptq_status map_names(data_set *set, const ptq_model *model, int classes, ptq_error *err) {
    int *to = malloc((size_t)set->names * sizeof *to);
    char first[PTQ_CLASS_NAME_SIZE], last[PTQ_CLASS_NAME_SIZE];
    ptq_status status = to ? PTQ_OK : data_no_memory(err);

    for (int c = 0; c < set->names && !status; c++) {
        to[c] = find_class(model, classes, set->name[c]);
        if (to[c] >= 0)
            continue;
        ptq_class_name(model, 0, first, sizeof first);
        ptq_class_name(model, classes - 1, last, sizeof last);
        status =
            ptq_error_set(err, PTQ_BAD_DATA, "%s: the class %s is none of the model's %d, %s to %s",
                          set->path, set->name[c], classes, first, last);
    }
    for (size_t i = 0; i < set->all && !status && set->label; i++)
        if (set->label[i] >= 0)
            set->label[i] = to[set->label[i]];
    free(to);
    return status;
}

static ptq_status check_labels(const data_set *set, int classes, ptq_error *err) {
    for (size_t i = 0; set->label && i < set->all; i++)
        if (set->label[i] >= classes)
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "%s: item %zu has label %d; the model has %d classes, 0 to %d",
                                 set->path, i, set->label[i], classes, classes - 1);
    return PTQ_OK;
}

static ptq_status fit_classes(data_set *set, const ptq_model *model, int classes, ptq_error *err) {
    char text[PTQ_CLASS_NAME_SIZE];
    int named = ptq_class_name(model, classes - 1, text, sizeof text) > 0;
    ptq_status status = PTQ_OK;

    if (named && set->name && !set->assumed)
        status = map_names(set, model, classes, err);
    else if (set->classes && set->classes != classes)
        status = ptq_error_set(err, PTQ_BAD_DATA, "%s: the data have %d classes, the model has %d",
                               set->path, set->classes, classes);
    if (!status)
        status = check_labels(set, classes, err);
    if (!status && named)
        status = take_names(set, model, classes, err);
    if (!status)
        set->view.classes = classes;
    return status;
}

static void drop_labels(data_set *set, int classes) {
    free(set->label);
    set->label = NULL;
    free_names(set);
    set->view.classes = classes;
    set->view.class_name = NULL;
}

/* Classes without names are called by their numbers: every class can be called something. */
static ptq_status number_classes(data_set *set, ptq_error *err) {
    enum { DIGITS = 24 };
    size_t n = (size_t)set->view.classes;
    char *text;

    if (set->view.class_name)
        return PTQ_OK;
    free(set->number);
    set->number = malloc(n * (sizeof *set->number + DIGITS));
    if (!set->number)
        return data_no_memory(err);
    text = (char *)(set->number + n);
    for (size_t c = 0; c < n; c++, text += DIGITS) {
        snprintf(text, DIGITS, "%zu", c);
        set->number[c] = text;
    }
    set->view.class_name = set->number;
    return PTQ_OK;
}

static ptq_status fit(data_set *set, const ptq_model *model, int classes, int any, ptq_error *err) {
    int real = model_takes_real(model);
    const int *shape = model->node[0].shape;
    ptq_status status = set->fit ? set->fit(set, shape, real, model_resize(model), err) : PTQ_OK;
    const ptq_dataset *view = &set->view;

    if (status)
        return status;
    if (view->height != shape[0] || view->width != shape[1] || view->channels != shape[2])
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: the items are %dx%dx%d, the model takes "
                             "%dx%dx%d",
                             set->path, view->height, view->width, view->channels, shape[0],
                             shape[1], shape[2]);
    set->widen = real && view->type == PTQ_TYPE_U8;
    if (set->widen)
        set->view.type = PTQ_TYPE_F32;
    if (!classes)
        return PTQ_OK;
    status = fit_classes(set, model, classes, err);
    if (status && any) {
        drop_labels(set, classes);
        status = PTQ_OK;
    }
    if (set->view.class_name == set->number)
        set->view.class_name = NULL;
    return status ? status : number_classes(set, err);
}

int data_fit(data_set *set, const ptq_model *model, int classes) {
    ptq_error err;

    return fit(set, model, classes, 0, &err) ? fail("%s", err.text) : 0;
}

/* ---- Opening ---- */

int data_find(const data_options *given, data_request *out) {
    memset(out, 0, sizeof *out);
    out->labels = given->labels;
    out->skip = (size_t)given->skip;
    out->limit = (size_t)given->limit;
    out->usual = !given->data && !environment("CIFAR10_DIR");
    if (given->labels && !given->data)
        return fail("--labels says what the items of --data are; give that too");
    return find_data(given->data, out->path);
}

static ptq_status get_item(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const data_set *set = user;
    size_t n;
    ptq_status status;

    if (index >= set->all - set->first)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "item %zu of %zu", index,
                             set->all - set->first);
    index += set->first;
    *label = set->label ? set->label[index] : -1;
    if (!set->widen)
        return set->read(set, index, item, err);
    /* Bytes at the end of the room for real numbers: none is overwritten before it is read. */
    n = (size_t)set->view.height * (size_t)set->view.width * (size_t)set->view.channels;
    status = set->read(set, index, (uint8_t *)item + 3 * n, err);
    for (size_t i = 0; i < n && !status; i++)
        ((float *)item)[i] = ((const uint8_t *)item)[3 * n + i];
    return status;
}

/* What is nothing that is known is CIFAR, whose reader says what was looked for. */
data_kind find_kind(const char *path) {
    char found[PATH_SIZE];
    size_t length = strlen(path);

    if (is_directory(path)) {
        if (cifar_in_folder(path))
            return DATA_CIFAR;
        if (arrays_in_folder(path, 0, found) || arrays_in_folder(path, 1, found))
            return DATA_ARRAYS;
        return pictures_in_folder(path) ? DATA_PICTURES : DATA_CIFAR;
    }
    if (length > 4 && !strcmp(path + length - 4, ".bin"))
        return DATA_CIFAR;
    if (arrays_in_file(path))
        return DATA_ARRAYS;
    return pictures_in_file(path) ? DATA_PICTURES : DATA_CIFAR;
}

static ptq_status open_any(data_set *set, const data_request *wanted, ptq_split split,
                           ptq_error *err) {
    data_kind kind = find_kind(set->path);

    if (wanted->labels && kind != DATA_ARRAYS)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "--labels goes with --data that names one .npy or IDX file, not with "
                             "%s",
                             set->path);
    switch (kind) {
    case DATA_ARRAYS:
        return arrays_open(set, wanted, split, err);
    case DATA_PICTURES:
        return pictures_open(set, wanted, split, err);
    case DATA_CIFAR:
        break;
    }
    return cifar_open(set, wanted, split, err);
}

/* The least number of classes that the labels allow, where nothing else tells it. */
static int count_classes(const data_set *set) {
    int most = 0;

    for (size_t i = 0; set->label && i < set->all; i++)
        most = set->label[i] > most ? set->label[i] : most;
    return most + 1;
}

static ptq_status open_part(data_set *set, const data_request *wanted, ptq_split split,
                            ptq_error *err) {
    ptq_status status = open_any(set, wanted, split, err);

    if (status)
        return status;
    if (wanted->skip >= set->all)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s has %zu items: --skip %zu leaves none",
                             set->path, set->all, wanted->skip);
    set->first = wanted->skip;
    set->view.count = set->all - set->first;
    if (wanted->limit && wanted->limit < set->view.count)
        set->view.count = wanted->limit;
    set->view.get = get_item;
    set->view.user = set;
    set->view.classes = set->classes ? set->classes : count_classes(set);
    set->view.class_name = (const char *const *)set->name;
    return number_classes(set, err);
}

static ptq_status open_fitting(const data_request *wanted, ptq_split split, const ptq_plan *plan,
                               data_set **out, ptq_error *err) {
    data_set *set = calloc(1, sizeof *set);
    ptq_status status;

    *out = NULL;
    if (!set)
        return data_no_memory(err);
    snprintf(set->path, sizeof set->path, "%s", wanted->path);
    status = open_part(set, wanted, split, err);
    if (!status && plan)
        status = fit(set, ptq_plan_get_info(plan)->model, ptq_plan_get_info(plan)->classes,
                     wanted->any_labels, err);
    if (status)
        data_close(set);
    else
        *out = set;
    return status;
}

int data_open(const data_request *wanted, ptq_split split, const ptq_plan *plan, data_set **out) {
    ptq_error err;

    return open_fitting(wanted, split, plan, out, &err) ? fail("%s", err.text) : 0;
}

/* CIFAR's test images lie beside a file of training images. Data without parts have none beside. */
int data_open_test(const data_request *wanted, const ptq_plan *plan, data_set **out) {
    data_request test = *wanted;
    char folder[PATH_SIZE];
    ptq_status status;
    ptq_error err;

    *out = NULL;
    test.skip = test.limit = 0;
    test.labels = NULL;
    if (wanted->labels)
        return 0;
    if (!is_directory(wanted->path) && find_kind(wanted->path) == DATA_CIFAR) {
        directory_of(wanted->path, folder);
        if (!has_file(folder, "test_batch.bin", test.path) &&
            !has_file(folder, "test.bin", test.path))
            return 0;
    }
    status = open_fitting(&test, PTQ_SPLIT_TEST, plan, out, &err);
    if (status == PTQ_NOT_READY || (status == PTQ_BAD_DATA && wanted->usual))
        return 0;
    if (status)
        return fail("%s", err.text);
    if (!(*out)->label || (*out)->whole) {
        data_close(*out);
        *out = NULL;
    }
    return 0;
}

void data_close(data_set *set) {
    if (!set)
        return;
    if (set->close)
        set->close(set);
    free_names(set);
    free(set->number);
    free(set->label);
    free(set);
}

/* ---- Asking ---- */

const ptq_dataset *data_view(const data_set *set) { return &set->view; }

size_t data_item_bytes(const ptq_dataset *view) {
    return (size_t)view->height * (size_t)view->width * (size_t)view->channels *
           (view->type == PTQ_TYPE_F32 ? sizeof(float) : 1);
}

ptq_status data_run(ptq_session *session, const ptq_dataset *view, const void *item, float *logits,
                    ptq_error *err) {
    ptq_results wanted = {logits, NULL, NULL, NULL};

    return ptq_run_items(session, view->type, item, 1, &wanted, err);
}

int data_knows_classes(const data_set *set) { return set->classes > 0; }

int data_is_labelled(const data_set *set) { return set->label != NULL; }

static ptq_status get_label(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const data_set *set = user;

    (void)err;
    *(uint8_t *)item = 0;
    *label = set->label ? set->label[set->first + index] : -1;
    return PTQ_OK;
}

ptq_dataset data_labels_only(const data_set *set) {
    ptq_dataset view = set->view;

    view.height = view.width = view.channels = 1;
    view.type = PTQ_TYPE_U8;
    view.get = get_label;
    return view;
}

int data_keep_names(const data_set *set, ptq_model *model) {
    size_t size = 3, used = 1;
    ptq_status status;
    char *text;
    ptq_error err;

    for (int c = 0; c < set->names; c++)
        size += 2 * strlen(set->name[c]) + 3;
    if (!set->names || set->assumed)
        return 0;
    text = malloc(size);
    if (!text)
        return fail("no memory for the names of the classes");
    text[0] = '[';
    for (int c = 0; c < set->names; c++) {
        text[used++] = '"';
        for (const char *at = set->name[c]; *at; at++) {
            if (*at == '"' || *at == '\\')
                text[used++] = '\\';
            text[used++] = *at;
        }
        text[used++] = '"';
        text[used++] = c + 1 < set->names ? ',' : ']';
    }
    text[used] = 0;
    status = ptq_model_set_meta(model, "class_names", text, &err);
    free(text);
    return status ? fail("the names of the classes: %s", err.text) : 0;
}
