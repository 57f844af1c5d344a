/* Data sets of arrays: one of items, N x H x W x C or fewer dimensions, and one of labels; in .npy
   files, in a .npz archive, in IDX files (also as .gz), or a folder of these. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "shared/bytes.h"
#include "data/reader.h"
#include "shared/zip.h"
#include "ptq.h"
#include "shared/files.h"

typedef struct arrays {
    data_bytes archive;      /* of a .npz */
    char path[2][PATH_SIZE]; /* of items and labels */
    data_array array[2];
} arrays;

enum { ITEMS, LABELS };

/* ---- Reading ---- */

static ptq_status read_item(const data_set *set, size_t index, void *item, ptq_error *err) {
    const data_array *items = &((const arrays *)set->own)->array[ITEMS];

    return set->view.type == PTQ_TYPE_U8 ? array_bytes(items, index, item, err)
                                         : array_reals(items, index, item, err);
}

static void close_arrays(data_set *set) {
    arrays *own = set->own;

    if (!own)
        return;
    array_close(&own->array[ITEMS]);
    array_close(&own->array[LABELS]);
    bytes_close(&own->archive);
    free(own);
}

/* ---- Fitting ---- */

static int is_shape(const uint64_t *dim, int rank, const int shape[3]) {
    int k = 0;

    for (int i = 0; i < rank; i++) {
        if (dim[i] == 1)
            continue;
        while (k < 3 && shape[k] == 1)
            k++;
        if (k == 3 || dim[i] != (uint64_t)shape[k++])
            return 0;
    }
    while (k < 3 && shape[k] == 1)
        k++;
    return k == 3;
}

/* The model's dimensions, but for those of 1, which numpy drops or adds at will. */
static ptq_status fit_shape(data_set *set, const int shape[3], int real, const char *resize,
                            ptq_error *err) {
    const data_array *items = &((const arrays *)set->own)->array[ITEMS];
    int planes[3] = {shape[2], shape[0], shape[1]};

    (void)resize;
    if (items->kind != 'f' && real)
        set->view.type = PTQ_TYPE_F32;
    if (is_shape(items->dim + 1, items->rank - 1, shape))
        return data_set_shape(set, (uint64_t)shape[0], (uint64_t)shape[1], (uint64_t)shape[2], err);
    if (is_shape(items->dim + 1, items->rank - 1, planes))
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: its items are C x H x W, %dx%dx%d; save them as H x W x C, with "
                             "numpy.transpose(x, (0, 2, 3, 1))",
                             items->name, planes[0], planes[1], planes[2]);
    return PTQ_OK; /* refused by its sizes */
}

/* ---- Opening files ---- */

static ptq_status open_bytes(data_bytes *bytes, const char *name, data_array *out, ptq_error *err) {
    ptq_status status =
        looks_like_npy(bytes) ? npy_open(bytes, name, out, err) : idx_open(bytes, name, out, err);

    if (status) {
        bytes_close(bytes);
        memset(out, 0, sizeof *out);
    }
    return status;
}

static int is_gzip(const data_bytes *bytes) {
    uint8_t begin[2];

    return !bytes_read(bytes, 0, 2, begin, NULL) && begin[0] == 0x1f && begin[1] == 0x8b;
}

/* The end of a long path tells more than its beginning. */
static const char *short_name(const char *path) {
    size_t length = strlen(path);

    return length < 150 ? path : path + length - 150;
}

static ptq_status open_file(arrays *own, int which, const char *path, ptq_error *err) {
    data_bytes bytes, packed;
    inflate_request wanted = {0, 0, 0};
    ptq_status status;

    snprintf(own->path[which], PATH_SIZE, "%s", path);
    status = bytes_open(own->path[which], &bytes, err);
    if (status)
        return status;
    if (is_gzip(&bytes)) {
        packed = bytes;
        wanted.most = bytes_unpacked_limit(packed.size);
        status = bytes_inflate(&packed, &wanted, &bytes, err);
        bytes_close(&packed);
        if (status)
            return status;
    }
    return open_bytes(&bytes, short_name(path), &own->array[which], err);
}

/* ---- Which files ---- */

/* Names of items and labels, by split: Keras and most others, MedMNIST; last, one part alone. */
static const char *const member_names[][2][2] = {
    {{"x_train", "y_train"}, {"x_test", "y_test"}},
    {{"X_train", "Y_train"}, {"X_test", "Y_test"}},
    {{"X_train", "y_train"}, {"X_test", "y_test"}},
    {{"train_images", "train_labels"}, {"test_images", "test_labels"}},
    {{"x", "y"}, {"x", "y"}},
    {{"X", "Y"}, {"X", "Y"}},
    {{"X", "y"}, {"X", "y"}},
    {{"images", "labels"}, {"images", "labels"}},
    {{"arr_0", "arr_1"}, {"arr_0", "arr_1"}},
};

enum { MEMBER_NAMES = sizeof member_names / sizeof *member_names };

static ptq_status open_member(arrays *own, int which, const zip_archive *archive,
                              const zip_member *member, ptq_error *err) {
    char name[PATH_SIZE];
    data_bytes bytes;
    ptq_status status = zip_member_open(archive, member, &bytes, err);

    if (status)
        return status;
    snprintf(name, sizeof name, "%s in %s", member->name, short_name(archive->bytes.where));
    return open_bytes(&bytes, name, &own->array[which], err);
}

static const zip_member *find_member(const zip_archive *archive, int row, int split, int which) {
    char name[64];

    snprintf(name, sizeof name, "%s.npy", member_names[row][split][which]);
    return zip_find(archive, name);
}

/* The row of names of which the archive holds items of the split; else a negative number, -2 if it
   holds those of the other split. */
static int find_row(const zip_archive *archive, int split) {
    int other = -1;

    for (int row = 0; row < MEMBER_NAMES; row++) {
        if (find_member(archive, row, split, ITEMS))
            return row;
        if (find_member(archive, row, !split, ITEMS))
            other = -2;
    }
    return other;
}

/* Whether a row of names knows no parts. */
static int is_whole(int row) { return !strcmp(member_names[row][0][0], member_names[row][1][0]); }

static ptq_status open_npz(data_set *set, const char *path, int split, ptq_error *err) {
    arrays *own = set->own;
    zip_archive archive = {0};
    const zip_member *labels;
    int row;
    ptq_status status;

    snprintf(own->path[ITEMS], PATH_SIZE, "%s", path);
    status = bytes_open(own->path[ITEMS], &own->archive, err);
    if (!status)
        status = zip_open(&own->archive, &archive, err);
    if (status)
        return status;
    row = find_row(&archive, split);
    if (row < 0) {
        status = ptq_error_set(err, row == -2 ? PTQ_NOT_READY : PTQ_BAD_DATA, "%s holds no %s%s",
                               path, split ? "x_test" : "x_train",
                               row == -2 ? ""
                                         : ", and no x; name its arrays x_train, y_train, "
                                           "x_test, y_test");
    } else {
        set->whole = is_whole(row);
        labels = find_member(&archive, row, split, LABELS);
        status = open_member(own, ITEMS, &archive, find_member(&archive, row, split, ITEMS), err);
        if (!status && labels)
            status = open_member(own, LABELS, &archive, labels, err);
    }
    zip_close(&archive);
    return status;
}

/* "train-images-idx3-ubyte" leads to "train-labels-idx1-ubyte", in the same folder. */
static int find_partner(const char *path, char partner[PATH_SIZE]) {
    const char *slash = strrchr(path, '/');
    size_t base = slash ? (size_t)(slash + 1 - path) : 0;
    char *at;

    snprintf(partner, PATH_SIZE, "%s", path);
    at = strstr(partner + base, "images");
    if (!at)
        return 0;
    memcpy(at, "labels", 6);
    at = strstr(at, "idx3");
    if (at)
        at[3] = '1';
    return is_file(partner);
}

static ptq_status open_idx_file(arrays *own, const char *path, const char *labels, ptq_error *err) {
    char partner[PATH_SIZE];
    ptq_status status = open_file(own, ITEMS, path, err);

    if (!status && (labels || find_partner(path, partner)))
        status = open_file(own, LABELS, labels ? labels : partner, err);
    return status;
}

/* Names of MNIST's files. */
static int find_idx(const char *folder, int split, char path[PATH_SIZE]) {
    static const char *const names[][2] = {{"train", "t10k"}, {"train", "test"}};
    static const char *const form[] = {"-images-idx3-ubyte", "-images.idx3-ubyte"};
    char name[64];

    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "%s%s%s", names[i / 4][split], form[i / 2 % 2],
                 i % 2 ? ".gz" : "");
        if (has_file(folder, name, path))
            return 1;
    }
    return 0;
}

static int find_npy(const char *folder, int split, int which, int row, char path[PATH_SIZE]) {
    char name[64];

    snprintf(name, sizeof name, "%s.npy", member_names[row][split][which]);
    return has_file(folder, name, path);
}

/* The only file of a folder that ends in .npz. */
static int find_npz(const char *folder, char path[PATH_SIZE]) {
    DIR *opened = opendir(folder);
    const struct dirent *entry;
    char found[PATH_SIZE];
    int count = 0;

    while (opened && (entry = readdir(opened))) {
        const char *ending = strrchr(entry->d_name, '.');

        if (ending && !strcmp(ending, ".npz") && has_file(folder, entry->d_name, found)) {
            memcpy(path, found, sizeof found);
            count++;
        }
    }
    if (opened)
        closedir(opened);
    return count == 1;
}

int arrays_in_folder(const char *folder, int split, char path[PATH_SIZE]) {
    for (int row = 0; row < MEMBER_NAMES; row++)
        if (find_npy(folder, split, ITEMS, row, path))
            return 1;
    return find_idx(folder, split, path) || find_npz(folder, path);
}

static ptq_status open_folder(data_set *set, const char *folder, int split, ptq_error *err) {
    arrays *own = set->own;
    char path[PATH_SIZE], labels[PATH_SIZE];
    ptq_status status;

    for (int row = 0; row < MEMBER_NAMES; row++)
        if (find_npy(folder, split, ITEMS, row, path)) {
            set->whole = is_whole(row);
            status = open_file(own, ITEMS, path, err);
            if (!status && find_npy(folder, split, LABELS, row, labels))
                status = open_file(own, LABELS, labels, err);
            return status;
        }
    if (find_idx(folder, split, path))
        return open_idx_file(own, path, NULL, err);
    if (find_npz(folder, path))
        return open_npz(set, path, split, err);
    return ptq_error_set(err, PTQ_NOT_READY, "%s holds no %s", folder,
                         split ? "x_test.npy, and no t10k-images-idx3-ubyte"
                               : "x_train.npy, and no train-images-idx3-ubyte");
}

static int is_zip(const char *path) {
    uint8_t begin[4];
    data_bytes bytes;
    int is = !bytes_open(path, &bytes, NULL) && !bytes_read(&bytes, 0, 4, begin, NULL) &&
             !memcmp(begin, "PK\3\4", 4);

    bytes_close(&bytes);
    return is;
}

int arrays_in_file(const char *path) {
    data_bytes bytes;
    int is = is_zip(path);

    if (!is && !bytes_open(path, &bytes, NULL)) {
        is = looks_like_npy(&bytes) || looks_like_idx(&bytes) || is_gzip(&bytes);
        bytes_close(&bytes);
    }
    return is;
}

/* ---- A set ---- */

static ptq_status read_labels(data_set *set, ptq_error *err) {
    const arrays *own = set->own;
    const data_array *labels = &own->array[LABELS];
    ptq_status status;

    if (!labels->rank)
        return PTQ_OK;
    if (array_items(labels) != set->all)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s holds %zu labels for %zu items of %s",
                             labels->name, array_items(labels), set->all, own->array[ITEMS].name);
    status = data_set_labels(set, err);
    return status ? status : array_labels(labels, set->label, err);
}

static ptq_status open_arrays(data_set *set, const data_request *wanted, int split,
                              ptq_error *err) {
    int folder = is_directory(set->path);

    if (folder && wanted->labels)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "--labels goes with --data that names one .npy or IDX file, not with "
                             "the folder %s",
                             set->path);
    if (folder)
        return open_folder(set, set->path, split, err);
    set->whole = !is_zip(set->path);
    if (set->whole)
        return open_idx_file(set->own, set->path, wanted->labels, err);
    if (wanted->labels)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "--labels goes with a .npy or IDX file; %s holds its labels itself",
                             set->path);
    return open_npz(set, set->path, split, err);
}

ptq_status arrays_open(data_set *set, const data_request *wanted, ptq_split split, ptq_error *err) {
    arrays *own = calloc(1, sizeof *own);
    const data_array *items;
    const uint64_t *d;
    ptq_status status;

    if (!own)
        return data_no_memory(err);
    set->own = own;
    set->read = read_item;
    set->fit = fit_shape;
    set->close = close_arrays;
    status = open_arrays(set, wanted, split == PTQ_SPLIT_TEST, err);
    if (status)
        return status;
    items = &own->array[ITEMS];
    d = items->dim;
    if (items->rank > 4)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s has %d dimensions; items are N x H x W x C at most", items->name,
                             items->rank);
    set->all = array_items(items);
    set->view.type = items->kind == 'f' ? PTQ_TYPE_F32 : PTQ_TYPE_U8;
    status = data_set_shape(set, items->rank > 2 ? d[1] : 1, items->rank > 2 ? d[2] : 1,
                            items->rank > 3    ? d[3]
                            : items->rank == 2 ? d[1]
                                               : 1,
                            err);
    return status ? status : read_labels(set, err);
}
