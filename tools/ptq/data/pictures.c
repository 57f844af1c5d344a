/* Data sets of picture files: a folder for each class, in train/ and test/ or divided by a hash of
   the names; a folder of pictures without classes; a single picture. Each is decoded when it is
   asked for. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/bytes.h"
#include "data/picture.h"
#include "data/reader.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/output.h"
#include "shared/progress.h"

enum {
    USUAL_SIDE = 32,  /* where no model says which size it takes */
    TEST_SHARE = 5,   /* every fifth, on average, is for testing */
    MOST_LISTED = 100 /* skipped files that are named */
};

typedef struct picture {
    char *path;
    int label;
    ptq_error *wrong; /* NULL: it can be read */
} picture;

typedef struct pictures {
    picture *item;
    size_t count, room, skipped;
    picture_rule rule;
    int split;  /* 1: the test part */
    int hashed; /* one folder, divided by the names */
} pictures;

/* ---- One picture ---- */

static ptq_status read_item(const data_set *set, size_t index, void *item, ptq_error *err) {
    const pictures *own = set->own;

    return picture_read(own->item[index].path, &own->rule, item, err);
}

static ptq_status fit_size(data_set *set, const int shape[3], int real, const char *resize,
                           ptq_error *err) {
    pictures *own = set->own;

    (void)real;
    if (shape[2] != 1 && shape[2] != 3)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: pictures have 1 or 3 channels, the model takes %dx%dx%d",
                             set->path, shape[0], shape[1], shape[2]);
    own->rule.height = shape[0];
    own->rule.width = shape[1];
    own->rule.channels = shape[2];
    own->rule.stretch = !strcmp(resize, "stretch");
    return data_set_shape(set, (uint64_t)shape[0], (uint64_t)shape[1], (uint64_t)shape[2], err);
}

static void close_pictures(data_set *set) {
    pictures *own = set->own;

    for (size_t i = 0; own && i < own->count; i++) {
        free(own->item[i].path);
        free(own->item[i].wrong);
    }
    if (own)
        free(own->item);
    free(own);
}

/* ---- Listing ---- */

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* By bytes: no locale has a say in the order. */
static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The names in a folder, sorted, without hidden ones. */
typedef struct listing {
    struct dirent **entry;
    int count;
} listing;

static ptq_status list_folder(const char *path, listing *out, ptq_error *err) {
    out->count = scandir(path, &out->entry, is_visible, by_bytes);
    if (out->count >= 0)
        return PTQ_OK;
    out->count = 0;
    out->entry = NULL;
    return ptq_error_set(err, PTQ_IO_ERROR, "cannot list %s: %s", path, strerror(errno));
}

static void free_listing(listing *names) {
    while (names->count > 0)
        free(names->entry[--names->count]);
    free(names->entry);
}

static ptq_status join(char path[PATH_SIZE], const char *folder, const char *name, ptq_error *err) {
    int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);

    return length > 0 && length < PATH_SIZE
               ? PTQ_OK
               : ptq_error_set(err, PTQ_IO_ERROR, "a path of over %d bytes is too long",
                               PATH_SIZE - 1);
}

static void skip(pictures *own, const char *path, const char *why) {
    if (own->skipped++ < MOST_LISTED)
        warn("skipped %s%s%s", why ? path : "", why ? ": " : "", why ? why : path);
}

static ptq_status add_picture(pictures *own, const char *path, int label, ptq_error *err) {
    picture *item;

    if (own->count == own->room) {
        size_t room = own->room ? 2 * own->room : 256;

        item = realloc(own->item, room * sizeof *item);
        if (!item)
            return data_no_memory(err);
        own->item = item;
        own->room = room;
    }
    item = &own->item[own->count];
    memset(item, 0, sizeof *item);
    item->path = malloc(strlen(path) + 1);
    if (!item->path)
        return data_no_memory(err);
    memcpy(item->path, path, strlen(path) + 1);
    item->label = label;
    own->count++;
    return PTQ_OK;
}

/* Stable: what part a picture belongs to depends on "CLASS/FILE" alone (FNV-1a). */
static int is_for_testing(const char *class, const char *name) {
    const char *text[] = {class, "/", name};
    uint64_t hash = 14695981039346656037u;

    for (int i = 0; i < 3; i++)
        for (const char *at = text[i]; *at; at++)
            hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    return (hash >> 32) % TEST_SHARE == 0;
}

static ptq_status add_class_folder(data_set *set, const char *path, int label, ptq_error *err) {
    pictures *own = set->own;
    const char *class = label < 0 ? "" : set->name[label];
    listing names;
    char full[PATH_SIZE];
    ptq_status status = list_folder(path, &names, err);

    for (int i = 0; i < names.count && !status; i++) {
        const char *name = names.entry[i]->d_name;

        status = join(full, path, name, err);
        if (status || (own->hashed && is_for_testing(class, name) != own->split))
            continue;
        if (is_file(full))
            status = add_picture(own, full, label, err);
        else
            skip(own, full, "no file");
    }
    free_listing(&names);
    return status;
}

/* Every folder in `path` is a class. */
static ptq_status find_classes(data_set *set, const char *path, ptq_error *err) {
    listing names;
    char full[PATH_SIZE];
    ptq_status status = list_folder(path, &names, err);

    for (int i = 0; i < names.count && !status; i++) {
        const char *name = names.entry[i]->d_name;

        status = join(full, path, name, err);
        if (!status && is_directory(full))
            status = data_add_class(set, name, strlen(name), path, err);
        else if (!status)
            skip(set->own, full, "in no class");
    }
    free_listing(&names);
    if (!status && !set->names)
        status = ptq_error_set(err, PTQ_BAD_DATA,
                               "no classes: %s holds no folders, one for each class", path);
    return status;
}

/* The classes of `path` must be those of the set. */
static ptq_status compare_classes(const data_set *set, const char *path, const char *other,
                                  ptq_error *err) {
    listing names;
    char full[PATH_SIZE];
    int seen = 0;
    ptq_status status = list_folder(other, &names, err);

    for (int i = 0; i < names.count && !status; i++) {
        const char *name = names.entry[i]->d_name;
        int known = 0;

        status = join(full, other, name, err);
        if (status || !is_directory(full))
            continue;
        for (int c = 0; c < set->names && !known; c++)
            known = !strcmp(name, set->name[c]);
        seen += known;
        if (!known)
            status = ptq_error_set(err, PTQ_BAD_DATA, "%s is a class that %s has not", full, path);
    }
    free_listing(&names);
    for (int c = 0; c < set->names && !status && seen < set->names; c++) {
        status = join(full, other, set->name[c], err);
        if (!status && !is_directory(full))
            status = ptq_error_set(err, PTQ_BAD_DATA, "%s/%s is a class that %s has not", path,
                                   set->name[c], other);
    }
    return status;
}

/* ---- Checking ---- */

/* What several threads take from: the next picture to decode. */
typedef struct checking {
    pthread_mutex_t gate;
    pictures *own;
    size_t next;
    progress shown;
} checking;

static void *check_pictures(void *argument) {
    checking *work = argument;

    for (;;) {
        picture *item;
        ptq_error err;

        pthread_mutex_lock(&work->gate);
        item = work->next < work->own->count ? &work->own->item[work->next++] : NULL;
        progress_show(&work->shown, work->next, work->own->count);
        pthread_mutex_unlock(&work->gate);
        if (!item)
            return NULL;
        if (picture_read(item->path, &work->own->rule, NULL, &err)) {
            item->wrong = malloc(sizeof err);
            if (item->wrong)
                *item->wrong = err;
        }
    }
}

/* Decodes every picture once, so that one that cannot be read is known before long work. */
static void check_all(pictures *own) {
    enum { MOST = 64 };
    checking work = {.own = own};
    pthread_t thread[MOST];
    int cores = count_cores(), started = 0;

    work.shown = progress_start("look at pictures");
    pthread_mutex_init(&work.gate, NULL);
    while (started + 1 < cores && started < MOST &&
           !pthread_create(&thread[started], NULL, check_pictures, &work))
        started++;
    check_pictures(&work);
    while (started > 0)
        pthread_join(thread[--started], NULL);
    pthread_mutex_destroy(&work.gate);
    progress_end(&work.shown);
}

/* Names what cannot be read, and leaves it out. Without the library that reads pictures all of them
   cannot be, and that is said once. */
static ptq_status leave_out(pictures *own, ptq_error *err) {
    size_t kept = 0;

    for (size_t i = 0; i < own->count; i++) {
        picture *item = &own->item[i];

        if (item->wrong && item->wrong->status == PTQ_UNSUPPORTED) {
            *err = *item->wrong;
            return err->status;
        }
        if (!item->wrong) {
            picture good = *item;

            memset(item, 0, sizeof *item);
            own->item[kept++] = good;
            continue;
        }
        skip(own, item->wrong->text, NULL);
        free(item->wrong);
        free(item->path);
        memset(item, 0, sizeof *item);
    }
    own->count = kept;
    if (own->skipped)
        warn("%zu file%s skipped, %zu pictures read", own->skipped, own->skipped > 1 ? "s" : "",
             kept);
    return PTQ_OK;
}

static ptq_status check_empty(const data_set *set, const char *path, ptq_error *err) {
    const pictures *own = set->own;
    size_t at = 0;

    for (int c = 0; c < set->names; c++) {
        size_t from = at;

        while (at < own->count && own->item[at].label == c)
            at++;
        if (at == from && own->hashed)
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "%s/%s: no picture that can be read is for %s; a fifth, by their "
                                 "names, is for testing: add pictures, or divide them into train/ "
                                 "and test/ yourself",
                                 path, set->name[c], own->split ? "testing" : "training");
        if (at == from)
            return ptq_error_set(err, PTQ_BAD_DATA, "%s/%s: no picture that can be read", path,
                                 set->name[c]);
    }
    return own->count ? PTQ_OK
                      : ptq_error_set(err, PTQ_BAD_DATA, "%s: no picture that can be read", path);
}

/* ---- Opening ---- */

static int has_folders(const char *path) {
    DIR *opened = opendir(path);
    const struct dirent *entry;
    char full[PATH_SIZE];
    int found = 0;

    while (opened && !found && (entry = readdir(opened)))
        found = is_visible(entry) && !join(full, path, entry->d_name, NULL) && is_directory(full);
    if (opened)
        closedir(opened);
    return found;
}

int pictures_in_file(const char *path) {
    uint8_t begin[4];
    data_bytes bytes;
    int is = 0;

    if (!bytes_open(path, &bytes, NULL)) {
        is = !bytes_read(&bytes, 0, sizeof begin, begin, NULL) &&
             looks_like_picture(begin, sizeof begin);
        bytes_close(&bytes);
    }
    return is;
}

int pictures_in_folder(const char *folder) {
    DIR *opened;
    const struct dirent *entry;
    char full[PATH_SIZE];
    int found = has_folders(folder);

    opened = found ? NULL : opendir(folder);
    while (opened && !found && (entry = readdir(opened)))
        found =
            is_visible(entry) && !join(full, folder, entry->d_name, NULL) && pictures_in_file(full);
    if (opened)
        closedir(opened);
    return found;
}

/* Classes, and the pictures of each in turn, from `path`; `other`: where the other part is, or
   NULL. */
static ptq_status collect(data_set *set, const char *path, const char *other, ptq_error *err) {
    char full[PATH_SIZE];
    ptq_status status = find_classes(set, path, err);

    if (!status && other)
        status = compare_classes(set, path, other, err);
    for (int c = 0; c < set->names && !status; c++) {
        status = join(full, path, set->name[c], err);
        if (!status)
            status = add_class_folder(set, full, c, err);
    }
    set->classes = set->names;
    return status;
}

static ptq_status find_pictures(data_set *set, char path[PATH_SIZE], ptq_error *err) {
    pictures *own = set->own;
    char part[2][PATH_SIZE];
    int has[2];

    snprintf(path, PATH_SIZE, "%s", set->path);
    set->whole = !is_directory(path);
    if (set->whole)
        return add_picture(own, path, -1, err);
    if (join(part[0], path, "train", err) || join(part[1], path, "test", err))
        return err->status;
    has[0] = is_directory(part[0]);
    has[1] = is_directory(part[1]);
    if (has[0] || has[1]) {
        if (!has[own->split])
            return ptq_error_set(err, PTQ_NOT_READY, "%s holds no %s/", path,
                                 own->split ? "test" : "train");
        snprintf(path, PATH_SIZE, "%s", part[own->split]);
        return collect(set, path, has[!own->split] ? part[!own->split] : NULL, err);
    }
    set->whole = !has_folders(path);
    if (set->whole)
        return add_class_folder(set, path, -1, err);
    own->hashed = 1;
    return collect(set, path, NULL, err);
}

ptq_status pictures_open(data_set *set, const data_request *wanted, ptq_split split,
                         ptq_error *err) {
    pictures *own = calloc(1, sizeof *own);
    char path[PATH_SIZE];
    ptq_status status;

    (void)wanted;
    if (!own)
        return data_no_memory(err);
    set->own = own;
    set->read = read_item;
    set->fit = fit_size;
    set->close = close_pictures;
    set->view.type = PTQ_TYPE_U8;
    own->split = split == PTQ_SPLIT_TEST;
    own->rule = (picture_rule){USUAL_SIDE, USUAL_SIDE, 3, 0};
    status = find_pictures(set, path, err);
    if (status)
        return status;
    check_all(own);
    status = leave_out(own, err);
    if (!status)
        status = check_empty(set, path, err);
    if (status)
        return status;
    set->all = own->count;
    if (set->names)
        status = data_set_labels(set, err);
    for (size_t i = 0; i < own->count && set->names && !status; i++)
        set->label[i] = own->item[i].label;
    return status ? status : data_set_shape(set, USUAL_SIDE, USUAL_SIDE, 3, err);
}
