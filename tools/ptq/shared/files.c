/* Files: whether they are there, how large, whether they can be written; safetensors files. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ptq.h"
#include "shared/files.h"
#include "shared/output.h"

void directory_of(const char *path, char directory[PATH_SIZE]) {
    const char *slash = strrchr(path, '/');

    if (!slash)
        snprintf(directory, PATH_SIZE, ".");
    else
        snprintf(directory, PATH_SIZE, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

size_t file_size(const char *path) {
    struct stat status;

    return stat(path, &status) == 0 ? (size_t)status.st_size : 0;
}

/* Files are written under a longer name first, which must be possible as well. */
static int is_too_long(const char *path) {
    char longer[PATH_SIZE];
    struct stat status;
    int length = snprintf(longer, sizeof longer, "%s.ptq-tmp", path);

    return length >= PATH_SIZE || (stat(longer, &status) != 0 && errno == ENAMETOOLONG);
}

int read_archive(const char *path, ptq_archive **out) {
    void *bytes;
    size_t size;
    ptq_error err;
    int failed;

    if (ptq_file_read(path, 0, NULL, &bytes, &size, &err))
        return fail("%s", err.text);
    failed = ptq_archive_parse(bytes, size, NULL, out, &err) ? fail("%s: %s", path, err.text) : 0;
    ptq_bytes_free(bytes, NULL);
    return failed;
}

int save_archive(const ptq_archive *archive, const char *path) {
    void *bytes = NULL;
    size_t size;
    ptq_error err;
    int failed =
        ptq_archive_write(archive, &bytes, &size, &err) || ptq_file_write(path, bytes, size, &err);

    ptq_bytes_free(bytes, NULL);
    return failed ? fail("%s", err.text) : 0;
}

/* A file is replaced, which its directory must allow; a device is written as it is. */
int check_output(const char *path) {
    char place[PATH_SIZE];
    struct stat here;
    int there = stat(path, &here) == 0, device = there && !S_ISREG(here.st_mode);

    if (!*path)
        return fail("the name of the output is empty; name a file to write");
    if (is_too_long(path))
        return fail("%.60s...: the name is too long; choose a shorter one", path);
    if (there && S_ISDIR(here.st_mode))
        return fail("%s is a directory; name a file to write", path);
    directory_of(path, place);
    if (device)
        snprintf(place, sizeof place, "%s", path);
    if (access(place, device ? W_OK : W_OK | X_OK) != 0)
        return fail("cannot write to %s: %s; choose another output", place, strerror(errno));
    return 0;
}

/* ---- What is read is not overwritten ---- */

#define MOST_OUTPUTS 8

static const char *output[MOST_OUTPUTS];
static int outputs;

/* By device and number, so that links and other spellings do not matter. A device such as
   /dev/null holds nothing that could be lost. */
static int is_same_file(const char *a, const char *b) {
    struct stat here, there;

    return stat(a, &here) == 0 && stat(b, &there) == 0 && S_ISREG(here.st_mode) &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/* Files that are not there yet are the same where name and directory are. */
static int is_same_output(const char *a, const char *b) {
    char of_a[PATH_SIZE], of_b[PATH_SIZE];
    const char *name_a = strrchr(a, '/'), *name_b = strrchr(b, '/');
    struct stat here, there;

    if (stat(a, &here) == 0 || stat(b, &there) == 0)
        return is_same_file(a, b);
    directory_of(a, of_a);
    directory_of(b, of_b);
    return strcmp(name_a ? name_a + 1 : a, name_b ? name_b + 1 : b) == 0 &&
           stat(of_a, &here) == 0 && stat(of_b, &there) == 0 && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

void forget_outputs(void) { outputs = 0; }

int add_output(const char *path) {
    for (int i = 0; i < outputs; i++)
        if (is_same_output(output[i], path))
            return fail("%s is named for two outputs; give each a file of its own", path);
    if (outputs == MOST_OUTPUTS)
        return fail("%s: more than %d outputs", path, MOST_OUTPUTS);
    output[outputs++] = path;
    return 0;
}

static int ends_in(const char *name, const char *const *ending, size_t endings) {
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < endings; i++)
        if (!strcasecmp(dot + 1, ending[i]))
            return 1;
    return 0;
}

/* Pictures lie up to two folders below the directory. */
static int holds_picture(const char *path, const char *written) {
    static const char *const pictures[] = {"png", "jpg", "jpeg", "bmp", "gif", "ppm", "pgm"};
    char above[PATH_SIZE];
    struct stat set, here;
    int found = 0;

    if (!ends_in(written, pictures, sizeof pictures / sizeof *pictures) ||
        stat(written, &here) != 0 || stat(path, &set) != 0 || !S_ISDIR(set.st_mode))
        return 0;
    directory_of(written, above);
    for (int i = 0; i < 3 && !found && strlen(above) + 4 < sizeof above; i++) {
        found = stat(above, &here) == 0 && here.st_dev == set.st_dev && here.st_ino == set.st_ino;
        strcat(above, "/..");
    }
    return found;
}

/* Of a directory the data set is read: files of records and arrays, names of classes, pictures. */
static int holds_output(const char *path, const char *written) {
    static const char *const data[] = {"bin", "txt",        "npy",       "npz",
                                       "gz",  "idx3-ubyte", "idx1-ubyte"};
    DIR *directory = opendir(path);
    const struct dirent *entry;
    int found = holds_picture(path, written);

    while (directory && !found && (entry = readdir(directory))) {
        char file[PATH_SIZE];
        int length = snprintf(file, sizeof file, "%s/%s", path, entry->d_name);

        found = (ends_in(entry->d_name, data, sizeof data / sizeof *data) ||
                 strstr(entry->d_name, "-ubyte")) &&
                length > 0 && length < PATH_SIZE && is_same_file(file, written);
    }
    if (directory)
        closedir(directory);
    return found;
}

int check_input(const char *path) {
    for (int i = 0; i < outputs; i++)
        if (is_same_file(path, output[i]) || holds_output(path, output[i]))
            return fail("%s is read and would be overwritten; choose another output", output[i]);
    return 0;
}
