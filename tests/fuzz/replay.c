/* Runs a fuzz target on files: the seeds, and whatever once crashed it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path) {
    FILE *file = fopen(path, "rb");
    uint8_t *data;
    long size;
    int status = 1;

    if (!file)
        return fprintf(stderr, "%s: cannot be read\n", path), 1;
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    data = size < 0 ? NULL : (uint8_t *)malloc((size_t)size + 1);
    if (data && fread(data, 1, (size_t)size, file) == (size_t)size) {
        LLVMFuzzerTestOneInput(data, (size_t)size);
        status = 0;
    }
    free(data);
    fclose(file);
    return status;
}

int main(int argc, char **argv) {
    int i, failed = 0;

    for (i = 1; i < argc; i++)
        failed |= replay(argv[i]);
    printf("%d files\n", argc - 1);
    return failed;
}
