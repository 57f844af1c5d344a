/* For targets whose reader takes the path of a file. */
#include <fcntl.h>
#include <unistd.h>

#include "fuzz.h"

/* The importer reads a file: one that has no name any more, and so needs no clearing away. */
static const char *put_into_file(const uint8_t *data, size_t size) {
    static char path[64];
    static int file = -1;

    if (file < 0) {
        const char *folder = getenv("TMPDIR");

        snprintf(path, sizeof path, "%.40s/ptq-fuzz-XXXXXX", folder ? folder : "/tmp");
        file = mkstemp(path);
        expect(file >= 0 && !unlink(path));
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    expect(!ftruncate(file, 0) && pwrite(file, data, size, 0) == (ssize_t)size);
    return path;
}
