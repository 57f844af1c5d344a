/* Files: whether they are there, how large, whether they can be written; safetensors files. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
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

int check_output(const char *path, const char *source) {
    char directory[PATH_SIZE];
    struct stat here, there;

    if (!*path)
        return fail("the name of the output is empty; name a file to write");
    if (is_too_long(path))
        return fail("%.60s...: the name is too long; choose a shorter one", path);
    if (stat(path, &here) == 0 && S_ISDIR(here.st_mode))
        return fail("%s is a directory; name a file to write", path);
    if (source && stat(path, &here) == 0 && stat(source, &there) == 0 &&
        here.st_dev == there.st_dev && here.st_ino == there.st_ino)
        return fail("%s is read and would be overwritten; choose another output", path);
    directory_of(path, directory);
    if (access(directory, W_OK | X_OK) != 0)
        return fail("cannot write to %s: %s; choose another output", directory, strerror(errno));
    return 0;
}
