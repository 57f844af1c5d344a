/* images2cifar: a folder of pictures per class becomes a data set in the binary form of CIFAR-10,
   and the other way round. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

#include "cifar_files.h"

enum {
    CLASSES = 10,      /* CIFAR-10's labels are 0 to 9 */
    MOST_SIDE = 16384, /* pixels: a small file may claim to be a huge picture */
    MOST_PIXELS = 64 << 20,
    MOST_BYTES = 256 << 20, /* of a file */
    PNG_BYTES = 16384       /* more than 32x32 pixels can take */
};

static const char *const split_name[] = {"train", "test"};

typedef struct settings {
    const char *from, *to;
    int stretch, keep_order, reverse;
    unsigned long seed;
} settings;

/* ---- Listing ---- */

/* A picture, found but not read yet. */
typedef struct found {
    char *path;       /* FROM/train/cat/tom.png */
    const char *name; /* tom.png, in `path` */
    int label;
} found;

typedef struct found_list {
    found *item;
    size_t count, room;
} found_list;

/* What is to be converted: the classes, and for each split its files. */
typedef struct collection {
    char name[CLASSES][PTQ_CLASS_NAME_SIZE];
    const char *class_name[CLASSES];
    int classes;
    int has[2]; /* whether the split is there */
    found_list files[2];
    size_t used[2][CLASSES], skipped;
} collection;

static int is_directory(const char *path) {
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* No pipe or device: reading one may never end. */
static int is_file(const char *path) {
    struct stat status;

    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

static ptq_status no_memory(ptq_error *err) {
    return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory");
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* By bytes: no locale has a say in the order. */
static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The names in a directory, sorted, without hidden ones; NULL and a count of 0 on failure. */
static ptq_status list_directory(const char *path, struct dirent ***entry, int *count,
                                 ptq_error *err) {
    *count = scandir(path, entry, is_visible, by_bytes);
    if (*count >= 0)
        return PTQ_OK;
    *count = 0;
    *entry = NULL;
    return ptq_error_set(err, PTQ_IO_ERROR, "cannot list %s: %s", path, strerror(errno));
}

static void free_directory(struct dirent **entry, int count) {
    while (count > 0)
        free(entry[--count]);
    free(entry);
}

static ptq_status add_class(collection *c, const char *name, ptq_error *err) {
    size_t i, length = strlen(name);

    if (c->classes == CLASSES)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "more than %d classes; the binary form of CIFAR-10 has no more",
                             (int)CLASSES);
    if (length >= PTQ_CLASS_NAME_SIZE)
        return ptq_error_set(err, PTQ_BAD_DATA, "the class %s: rename it, at most %d bytes fit",
                             name, PTQ_CLASS_NAME_SIZE - 1);
    for (i = 0; i < length; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "class %d has a control character in its name; rename it",
                                 c->classes);
    memcpy(c->name[c->classes], name, length + 1);
    c->class_name[c->classes] = c->name[c->classes];
    c->classes++;
    return PTQ_OK;
}

/* Every directory in `path` is a class. */
static ptq_status find_classes(collection *c, const char *path, ptq_error *err) {
    struct dirent **entry;
    char full[FILE_PATH_BYTES];
    int count, i;
    ptq_status status = list_directory(path, &entry, &count, err);

    for (i = 0; i < count && !status; i++) {
        status = join_path(full, path, entry[i]->d_name, err);
        if (!status && is_directory(full))
            status = add_class(c, entry[i]->d_name, err);
    }
    free_directory(entry, count);
    if (!status && !c->classes)
        status = ptq_error_set(err, PTQ_BAD_DATA,
                               "no classes: %s holds no directories, one for each class", path);
    return status;
}

static ptq_status add_file(found_list *list, const char *path, int label, ptq_error *err) {
    found *item;

    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 256;

        item = realloc(list->item, room * sizeof *item);
        if (!item)
            return no_memory(err);
        list->item = item;
        list->room = room;
    }
    item = &list->item[list->count];
    item->path = malloc(strlen(path) + 1);
    if (!item->path)
        return no_memory(err);
    strcpy(item->path, path);
    item->name = strrchr(item->path, '/') + 1;
    item->label = label;
    list->count++;
    return PTQ_OK;
}

static void skip(collection *c, const char *path, const char *reason) {
    fprintf(stderr, "images2cifar: skipped %s: %s\n", path, reason);
    c->skipped++;
}

static ptq_status find_files_of(collection *c, int split, int label, const char *path,
                                ptq_error *err) {
    struct dirent **entry;
    char full[FILE_PATH_BYTES];
    int count, i;
    ptq_status status = list_directory(path, &entry, &count, err);

    for (i = 0; i < count && !status; i++) {
        status = join_path(full, path, entry[i]->d_name, err);
        if (!status && is_file(full))
            status = add_file(&c->files[split], full, label, err);
        else if (!status)
            skip(c, full, "no ordinary file");
    }
    free_directory(entry, count);
    if (!status && !count)
        status = ptq_error_set(err, PTQ_BAD_DATA, "the class %s is empty", path);
    return status;
}

/* A class that only one of the splits has is a mistake in a name. */
static ptq_status find_files(collection *c, int split, const char *path, ptq_error *err) {
    struct dirent **entry;
    char full[FILE_PATH_BYTES];
    int label, count, i;
    ptq_status status = PTQ_OK;

    for (label = 0; label < c->classes && !status; label++) {
        status = join_path(full, path, c->name[label], err);
        if (!status)
            status = find_files_of(c, split, label, full, err);
    }
    if (status || list_directory(path, &entry, &count, err))
        return err->status;
    for (i = 0; i < count && !status; i++) {
        int known = 0;

        for (label = 0; label < c->classes; label++)
            known |= !strcmp(entry[i]->d_name, c->name[label]);
        status = join_path(full, path, entry[i]->d_name, err);
        if (!status && !known && is_directory(full))
            status = ptq_error_set(err, PTQ_BAD_DATA, "%s is a class that train/ has not", full);
        else if (!status && !known)
            skip(c, full, "in no class");
    }
    free_directory(entry, count);
    return status;
}

static ptq_status collect(collection *c, const char *from, ptq_error *err) {
    char path[2][FILE_PATH_BYTES];
    int split;

    for (split = 0; split < 2; split++) {
        if (join_path(path[split], from, split_name[split], err))
            return err->status;
        c->has[split] = is_directory(path[split]);
    }
    if (!c->has[0] && !c->has[1])
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s has neither train/ nor test/; put the pictures of each class"
                             " into train/CLASS/ and test/CLASS/",
                             from);
    if (find_classes(c, path[!c->has[0]], err))
        return err->status;
    for (split = 0; split < 2; split++)
        if (c->has[split] && find_files(c, split, path[split], err))
            return err->status;
    return PTQ_OK;
}

static void collection_free(collection *c) {
    int split;
    size_t i;

    for (split = 0; split < 2; split++) {
        for (i = 0; i < c->files[split].count; i++)
            free(c->files[split].item[i].path);
        free(c->files[split].item);
    }
}

/* ---- Order ---- */

static int by_name(const void *a, const void *b) {
    const found *one = a, *other = b;
    int order = strcmp(one->name, other->name);

    return order ? order : one->label - other->label;
}

/* Files were found class after class. Any part of a data set should hold all classes, so they are
   shuffled (Fisher-Yates). */
static void shuffle(found_list *list, unsigned long seed, int split) {
    ptq_rng rng;
    size_t i;

    ptq_rng_seed(&rng, seed, (uint64_t)split);
    for (i = list->count; i > 1; i--) {
        size_t k = ptq_rng_below(&rng, (uint32_t)i);
        found swap = list->item[i - 1];

        list->item[i - 1] = list->item[k];
        list->item[k] = swap;
    }
}

static void put_in_order(collection *c, const settings *s) {
    int split;

    for (split = 0; split < 2; split++) {
        found_list *list = &c->files[split];

        if (!s->keep_order)
            shuffle(list, s->seed, split);
        else if (list->count)
            qsort(list->item, list->count, sizeof *list->item, by_name);
    }
}

/* ---- Reading a picture ---- */

/* Pixels of R G B A, to be released with stbi_image_free; NULL with a reason. */
static uint8_t *decode(const uint8_t *bytes, size_t size, int *width, int *height,
                       const char **reason) {
    uint8_t *pixels = NULL;
    int channels;

    if (!stbi_info_from_memory(bytes, (int)size, width, height, &channels)) {
        *reason = stbi_failure_reason();
    } else if (*width < 1 || *height < 1 || *width > MOST_SIDE || *height > MOST_SIDE ||
               (int64_t)*width * *height > MOST_PIXELS) {
        *reason = "too many pixels";
    } else {
        pixels = stbi_load_from_memory(bytes, (int)size, width, height, &channels, 4);
        *reason = stbi_failure_reason();
    }
    return pixels;
}

/* A part of a picture of R G B A pixels. */
typedef struct region {
    const uint8_t *pixels;
    int row; /* pixels from one line to the next */
    int width, height;
} region;

/* The mean of what one of the 32x32 pixels covers, each source pixel weighed by the area of it that
   lies inside. In units of 1/32 pixel all borders are whole numbers, so the result is exact. What
   is transparent shows white. */
static void shrink_pixel(const region *from, int at_x, int at_y, uint8_t *record) {
    uint64_t sum[3] = {0, 0, 0}, area = (uint64_t)from->width * (uint64_t)from->height * 255;
    int left = at_x * from->width, right = left + from->width;
    int top = at_y * from->height, bottom = top + from->height;
    int x, y, c;

    for (y = top / CIFAR_SIDE; y * CIFAR_SIDE < bottom; y++) {
        int low = y * CIFAR_SIDE > top ? y * CIFAR_SIDE : top;
        int high = (y + 1) * CIFAR_SIDE < bottom ? (y + 1) * CIFAR_SIDE : bottom;

        for (x = left / CIFAR_SIDE; x * CIFAR_SIDE < right; x++) {
            int first = x * CIFAR_SIDE > left ? x * CIFAR_SIDE : left;
            int last = (x + 1) * CIFAR_SIDE < right ? (x + 1) * CIFAR_SIDE : right;
            const uint8_t *p = from->pixels + 4 * ((size_t)y * (size_t)from->row + (size_t)x);
            uint64_t weight = (uint64_t)(high - low) * (uint64_t)(last - first);

            for (c = 0; c < 3; c++)
                sum[c] += weight * ((uint64_t)p[c] * p[3] + 255u * (255u - p[3]));
        }
    }
    for (c = 0; c < 3; c++)
        record[1 + c * CIFAR_PLANE + at_y * CIFAR_SIDE + at_x] =
            (uint8_t)((sum[c] + area / 2) / area);
}

static void shrink(const uint8_t *pixels, int width, int height, int stretch, uint8_t *record) {
    int side = width < height ? width : height, i;
    region from = {pixels, width, width, height};

    if (!stretch) { /* the square in the middle */
        from.pixels +=
            4 * ((size_t)((height - side) / 2) * (size_t)width + (size_t)((width - side) / 2));
        from.width = from.height = side;
    }
    for (i = 0; i < CIFAR_PLANE; i++)
        shrink_pixel(&from, i % CIFAR_SIDE, i / CIFAR_SIDE, record);
}

/* 0 after filling the record, else after listing the file as skipped. */
static int read_picture(collection *c, const found *file, int stretch, uint8_t *record) {
    const char *reason;
    uint8_t *pixels;
    void *bytes = NULL;
    size_t size = 0;
    int width, height;
    ptq_error err;

    if (ptq_file_read(file->path, MOST_BYTES, NULL, &bytes, &size, &err)) {
        fprintf(stderr, "images2cifar: skipped %s\n", err.text);
        c->skipped++;
        return 1;
    }
    pixels = decode(bytes, size, &width, &height, &reason);
    ptq_bytes_free(bytes, NULL);
    if (!pixels) {
        skip(c, file->path, reason ? reason : "damaged");
        return 1;
    }
    record[0] = (uint8_t)file->label;
    shrink(pixels, width, height, stretch, record);
    stbi_image_free(pixels);
    return 0;
}

/* ---- Pictures to records ---- */

static ptq_status write_split(collection *c, int split, int stretch, cifar_writer *writer,
                              ptq_error *err) {
    uint8_t record[PTQ_CIFAR10_RECORD];
    const found_list *list = &c->files[split];
    size_t i;
    int label;

    for (i = 0; i < list->count; i++) {
        if (read_picture(c, &list->item[i], stretch, record))
            continue;
        c->used[split][record[0]]++;
        if (cifar_writer_add(writer, split ? PTQ_SPLIT_TEST : PTQ_SPLIT_TRAIN, record, err))
            return err->status;
    }
    for (label = 0; label < c->classes && c->has[split]; label++)
        if (!c->used[split][label])
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "the class %s/%s has no picture that can be"
                                 " read",
                                 split_name[split], c->name[label]);
    return PTQ_OK;
}

static void print_counts(const collection *c) {
    size_t sum[2] = {0, 0};
    int label;

    printf("%-31s %7s %7s\n", "class", "train", "test");
    for (label = 0; label < c->classes; label++) {
        printf("%-31s %7zu %7zu\n", c->name[label], c->used[0][label], c->used[1][label]);
        sum[0] += c->used[0][label];
        sum[1] += c->used[1][label];
    }
    printf("%-31s %7zu %7zu\n%zu skipped\n", "all", sum[0], sum[1], c->skipped);
}

static ptq_status convert(const settings *s, ptq_error *err) {
    static collection c;
    cifar_writer writer;
    ptq_status status = collect(&c, s->from, err);

    if (!status) {
        put_in_order(&c, s);
        status = cifar_writer_open(&writer, s->to, c.class_name, c.classes, err);
        if (!status)
            status = write_split(&c, 0, s->stretch, &writer, err);
        if (!status)
            status = write_split(&c, 1, s->stretch, &writer, err);
        status = cifar_writer_close(&writer, status, err);
    }
    if (!status)
        print_counts(&c);
    collection_free(&c);
    return status;
}

/* ---- Records to pictures ---- */

typedef struct png {
    uint8_t bytes[PNG_BYTES];
    size_t size;
} png;

static void take_png(void *user, void *bytes, int size) {
    png *made = user;

    if (size > 0 && (size_t)size <= sizeof made->bytes) {
        memcpy(made->bytes, bytes, (size_t)size);
        made->size = (size_t)size;
    }
}

static ptq_status write_png(const char *path, const uint8_t *pixels, ptq_error *err) {
    png made;

    made.size = 0;
    if (!stbi_write_png_to_func(take_png, &made, CIFAR_SIDE, CIFAR_SIDE, 3, pixels,
                                3 * CIFAR_SIDE) ||
        !made.size)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "%s: cannot be made", path);
    return ptq_file_write(path, made.bytes, made.size, err);
}

/* Class names become names of directories: none may lead elsewhere. */
static ptq_status make_class_directories(const char *path, const ptq_dataset *set, ptq_error *err) {
    char full[FILE_PATH_BYTES];
    int c;

    for (c = 0; c < set->classes; c++) {
        if (strchr(set->class_name[c], '/') || set->class_name[c][0] == '.')
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "the class '%s' cannot name a directory; rename it in"
                                 " batches.meta.txt",
                                 set->class_name[c]);
        if (join_path(full, path, set->class_name[c], err) || make_directory(full, err))
            return err->status;
    }
    return PTQ_OK;
}

/* The number in the name is the record's: sorted by name, the pictures have the records' order. */
static ptq_status write_pictures(const char *path, const ptq_dataset *set, ptq_error *err) {
    char folder[FILE_PATH_BYTES], full[FILE_PATH_BYTES], name[32];
    uint8_t pixels[3 * CIFAR_PLANE];
    size_t i;
    int label;

    for (i = 0; i < set->count; i++) {
        snprintf(name, sizeof name, "%06zu.png", i);
        if (set->get(set->user, i, pixels, &label, err) ||
            join_path(folder, path, set->class_name[label], err) ||
            join_path(full, folder, name, err) || write_png(full, pixels, err))
            return err->status;
    }
    return PTQ_OK;
}

static ptq_status unpack_split(const settings *s, int split, const ptq_cifar10 *data,
                               ptq_error *err) {
    ptq_dataset set = *ptq_cifar10_dataset(data);
    char path[FILE_PATH_BYTES];
    struct stat status;

    if (join_path(path, s->to, split_name[split], err))
        return err->status;
    if (stat(path, &status) == 0)
        return ptq_error_set(err, PTQ_IO_ERROR, "%s is there already; name a new directory", path);
    if (make_directory(s->to, err) || make_directory(path, err) ||
        make_class_directories(path, &set, err) || write_pictures(path, &set, err))
        return err->status;
    printf("%zu %s pictures\n", set.count, split_name[split]);
    return PTQ_OK;
}

/* Data may have only one of the splits; with neither, the reader says what it found. */
static ptq_status unpack(const settings *s, ptq_error *err) {
    ptq_status status = PTQ_OK;
    int split, there[2];

    for (split = 0; split < 2; split++)
        there[split] = cifar_has_split(s->from, split ? PTQ_SPLIT_TEST : PTQ_SPLIT_TRAIN);
    for (split = 0; split < 2 && !status; split++) {
        ptq_cifar10 *data = NULL;

        if (!there[split] && (there[0] || there[1]))
            continue;
        status =
            ptq_cifar10_open(s->from, split ? PTQ_SPLIT_TEST : PTQ_SPLIT_TRAIN, NULL, &data, err);
        if (!status)
            status = unpack_split(s, split, data, err);
        ptq_cifar10_free(data);
    }
    return status;
}

/* ---- The program ---- */

static void print_usage(void) {
    printf(
        "usage: images2cifar [OPTIONS] PICTURES DATA\n"
        "       images2cifar --reverse DATA PICTURES\n\n"
        "Turns PICTURES/train/CLASS/* and PICTURES/test/CLASS/* (JPEG, PNG, BMP, GIF, PGM, PPM), "
        "up\n"
        "to %d classes, into a data set in the binary form of CIFAR-10: DATA/data_batch_1.bin and\n"
        "on, test_batch.bin, batches.meta.txt. Classes are numbered in the order of their names.\n"
        "Pictures of any size become 32x32 by averaging areas; transparent parts become white. "
        "What\n"
        "cannot be read is listed on standard error and skipped. Either of train/ and test/ may "
        "be\n"
        "missing. The same folder gives the same bytes on every machine.\n\n"
        "  --stretch      squeeze the whole picture into the square, instead of cutting the\n"
        "                 square from its middle\n"
        "  --seed S       of the order, which is a shuffled one; default 1\n"
        "  --keep-order   by file name instead, over all classes\n"
        "  --reverse      write each record as PICTURES/train/CLASS/000000.png and so on; "
        "converted\n"
        "                 again with --keep-order, they give the same records\n\n"
        "Example:\n  images2cifar my-photos my-data\n",
        (int)CLASSES);
}

static int read_arguments(int argc, char **argv, settings *s) {
    int i;

    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--stretch"))
            s->stretch = 1;
        else if (!strcmp(argv[i], "--keep-order"))
            s->keep_order = 1;
        else if (!strcmp(argv[i], "--reverse"))
            s->reverse = 1;
        else if (!strcmp(argv[i], "--seed")) {
            if (read_whole_number(argv[++i], 4294967295u, &s->seed))
                return complain("images2cifar", "--seed needs a whole number");
        } else if (argv[i][0] == '-' || s->to)
            return complain("images2cifar", "unknown argument");
        else if (s->from)
            s->to = argv[i];
        else
            s->from = argv[i];
    }
    return s->to ? 0 : complain("images2cifar", "two directories are needed");
}

int main(int argc, char **argv) {
    settings s = {NULL, NULL, 0, 0, 0, 1};
    ptq_error err;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        print_usage();
        return 0;
    }
    if (read_arguments(argc, argv, &s))
        return 1;
    if (s.reverse ? unpack(&s, &err) : convert(&s, &err)) {
        fprintf(stderr, "images2cifar: %s\n", err.text);
        return 1;
    }
    return 0;
}
