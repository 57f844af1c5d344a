/* Where models and data are: as given, as the environment says, or in the usual places. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/find.h"
#include "shared/files.h"
#include "shared/kind.h"
#include "shared/machine.h"
#include "shared/output.h"

static int exists(const char *path) {
    struct stat status;

    return stat(path, &status) == 0;
}

static const char *shared_directory(void) {
    const char *shared = environment("PTQ_SHARED");

    return shared ? shared : "../shared";
}

static int take(char path[PATH_SIZE], const char *directory, const char *rest) {
    int length = snprintf(path, PATH_SIZE, "%s%s", directory, rest);

    return length > 0 && length < PATH_SIZE && exists(path);
}

static int take_cifar10_model(char path[PATH_SIZE]) {
    return take(path, shared_directory(), "/models/resnet8_mlperf.safetensors") ||
           take(path, "examples/models", "/resnet8-cifar10.safetensors");
}

static int take_shapes10_model(char path[PATH_SIZE]) {
    return take(path, "examples/models", "/resnet8-shapes10.safetensors");
}

/* A model that the user names: 0 or 1 as find_model, -1 if there is no name. */
static int named_model(const char *given, char path[PATH_SIZE]) {
    if (!given)
        given = environment("PTQ_MODEL");
    if (!given)
        return -1;
    if (!take(path, given, ""))
        return fail("no such model file: %s", given);
    return refuse_foreign(path) || check_input(path);
}

int look_for_model(const char *given, char path[PATH_SIZE]) {
    if (!given)
        given = environment("PTQ_MODEL");
    if (given)
        return !take(path, given, "");
    return !take_cifar10_model(path) && !take_shapes10_model(path);
}

int find_model(const char *given, char path[PATH_SIZE]) {
    int status = named_model(given, path);

    if (status >= 0)
        return status;
    return look_for_model(NULL, path) ? fail("no model; give one with --model or in PTQ_MODEL")
                                      : check_input(path);
}

/* The first class of a data set, from batches.meta.txt beside its files; CIFAR-10's without one. */
static void read_first_class(const char *data, char *name, size_t size) {
    char directory[PATH_SIZE], path[PATH_SIZE];
    struct stat status;
    FILE *file = NULL;

    if (stat(data, &status) == 0 && S_ISDIR(status.st_mode))
        snprintf(directory, sizeof directory, "%s", data);
    else
        directory_of(data, directory);
    if (take(path, directory, "/batches.meta.txt"))
        file = fopen(path, "r");
    if (!file || !fgets(name, (int)size, file))
        snprintf(name, size, "airplane");
    name[strcspn(name, "\r\n")] = 0;
    if (file)
        fclose(file);
}

int find_model_for(const char *given, const char *data, char path[PATH_SIZE]) {
    int status = named_model(given, path);
    char first[64];

    if (status >= 0)
        return status;
    read_first_class(data, first, sizeof first);
    if ((strcmp(first, "airplane") == 0 && take_cifar10_model(path)) ||
        (strcmp(first, "arrow") == 0 && take_shapes10_model(path)))
        return check_input(path);
    return fail("no model here knows the classes of %s; give one with --model or in PTQ_MODEL",
                data);
}

int look_for_data(const char *given, char path[PATH_SIZE]) {
    const char *fixed = given ? given : environment("CIFAR10_DIR");

    if (fixed)
        return !take(path, fixed, "");
    return !take(path, "data", "/cifar-10-batches-bin") &&
           !take(path, shared_directory(), "/data/cifar-10-batches-bin");
}

int find_data(const char *given, char path[PATH_SIZE]) {
    const char *fixed = given ? given : environment("CIFAR10_DIR");

    if (!look_for_data(given, path))
        return check_input(path);
    if (fixed)
        return fail("no such directory or file: %s; 'make data' downloads CIFAR-10", fixed);
    return fail("no CIFAR-10; 'make data' downloads it, or give its directory with --data or in "
                "CIFAR10_DIR");
}
