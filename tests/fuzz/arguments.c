/* Fuzz target: the command line, one argument a line of the input, in a folder of small files. The
   tool itself runs, all of it, in this process; a call of ptq_tool leaves nothing behind for the
   next one. What it asks of the world outside, the harness answers, so that no run takes long and
   all are repeatable: the clock, the number of cores, threads, progress. For that, the linker's
   --wrap=NAME (tests/tests.mk) lets calls of NAME in other files end in __wrap_NAME here, and calls
   NAME itself __real_NAME. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "measure/team.h"
#include "train/trainer.h"
#include "networks.h"

enum { MOST_ARGUMENTS = 40, MOST_COMMAS = 4 };

/* ---- What the tool asks for, in place of its own functions ---- */

/* Begins the function that is called in place of `name`. */
#define WRAP(type, name, parameters)                                                               \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters

static int steps, patience, threads, conversions, loads;

WRAP(int, count_cores, (void)) { return 1; }

/* Training is interrupted the way a user does it, if it listens. */
static void interrupt(void) {
    struct sigaction now;

    if (!sigaction(SIGINT, NULL, &now) && now.sa_handler != SIG_IGN && now.sa_handler != SIG_DFL)
        raise(SIGINT);
}

/* Time flies, ever faster: whoever asks for days gets them. */
WRAP(double, seconds_now, (void)) {
    double now = steps;

    if (steps++ >= patience / 8)
        interrupt();
    return now * now * now;
}

WRAP(int, progress_show, (void *user, size_t done, size_t total)) {
    (void)user, (void)done, (void)total;
    return steps++ >= patience;
}

/* What takes long whatever the arguments are. */
WRAP(ptq_status, ptq_resnet8,
     (int size, int width, int classes, const ptq_allocator *allocator, ptq_model **out,
      ptq_error *e)) {
    (void)width;
    return __real_ptq_resnet8(size, 1, classes, allocator, out, e);
}

WRAP(ptq_status, test_kernels, (ptq_isa isa, ptq_error *e)) {
    (void)e;
    return ptq_isa_support(isa) == PTQ_SUPPORT_AVAILABLE ? PTQ_OK : PTQ_UNSUPPORTED;
}

/* A sweep converts for every line of its table. Nothing begins unless the run may be long. */
WRAP(ptq_status, ptq_convert,
     (const ptq_model *model, const ptq_calibration *calibration,
      const ptq_convert_options *options, ptq_model **out, ptq_convert_report *report,
      ptq_error *e)) {
    if (conversions++ >= patience)
        return ptq_error_set(e, PTQ_CANCELLED, "enough of this");
    return __real_ptq_convert(model, calibration, options, out, report, e);
}

WRAP(ptq_status, ptq_calibrate,
     (const ptq_plan *plan, const ptq_dataset *data, const ptq_calibrate_options *options,
      ptq_calibration **out, ptq_error *e)) {
    if (!patience)
        return ptq_error_set(e, PTQ_CANCELLED, "enough of this");
    return __real_ptq_calibrate(plan, data, options, out, e);
}

WRAP(ptq_status, trainer_create,
     (const ptq_model *model, const ptq_model *source, const trainer_options *options,
      trainer **out, ptq_error *e)) {
    if (!patience)
        return ptq_error_set(e, PTQ_CANCELLED, "enough of this");
    return __real_trainer_create(model, source, options, out, e);
}

WRAP(ptq_status, ptq_evaluate,
     (const ptq_plan *plan, const ptq_dataset *data, const ptq_evaluate_options *options,
      ptq_evaluation *out, ptq_error *e)) {
    if (!patience)
        return ptq_error_set(e, PTQ_CANCELLED, "enough of this");
    return __real_ptq_evaluate(plan, data, options, out, e);
}

/* Some files are merged, not dozens. */
WRAP(ptq_status, ptq_calibration_load,
     (const char *path, const ptq_allocator *allocator, ptq_calibration **out, ptq_error *e)) {
    if (loads++ >= 2 + patience)
        return ptq_error_set(e, PTQ_CANCELLED, "enough of this");
    return __real_ptq_calibration_load(path, allocator, out, e);
}

/* What is timed: no more images than one call takes, black ones. */
WRAP(int, images_open,
     (const data_options *given, const ptq_plan *plan, size_t least, size_t most, int stream,
      image_store *out)) {
    (void)given, (void)most, (void)stream;
    memset(out, 0, sizeof *out);
    out->image_bytes = ptq_plan_get_info(plan)->pixels;
    out->count = least;
    out->pixels = patience ? calloc(least, out->image_bytes) : NULL;
    return !out->pixels;
}

WRAP(ptq_status, ptq_observer_range,
     (const ptq_observer *observer, ptq_method range, float percentile, ptq_type type, int bits,
      int symmetric, float *low, float *high, ptq_error *e)) {
    (void)range;
    return __real_ptq_observer_range(observer, PTQ_METHOD_MINMAX, percentile, type, bits, symmetric,
                                     low, high, e);
}

/* One more thread may start, the next one not. */
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *),
      void *argument)) {
    return threads++ % 2 ? EAGAIN : __real_pthread_create(thread, attributes, start, argument);
}

/* getopt forgets the argument that it was in the middle of. */
static void forget_arguments(void) {
    char *empty[] = {NULL, NULL};

    optind = 0;
    getopt(1, empty, "");
}

/* ---- The folder: what is in it before each run ---- */

static const char network_text[] = "ptq-graph 1\n"
                                   "input input shape=32x32x3\n"
                                   "a conv2d in=input channels=2 kernel=1x1 stride=16x16\n"
                                   "r relu in=a\n"
                                   "b conv2d in=r channels=2 kernel=1x1\n"
                                   "s add in=b,r\n"
                                   "p global_avg_pool in=s\n"
                                   "d dense in=p channels=10\n";

typedef struct fixed_file {
    const char *name;
    void *bytes;
    size_t size;
    struct stat state;
} fixed_file;

static fixed_file files[16];
static int file_count, folder, home;

static void add_file(const char *name, const void *bytes, size_t size) {
    fixed_file *file = &files[file_count++];

    file->name = name;
    file->size = size;
    file->bytes = malloc(size + 1);
    expect(file->bytes);
    memcpy(file->bytes, bytes, size);
}

static void add_model(const char *name, const ptq_model *model) {
    void *bytes = NULL;
    size_t size = 0;

    expect(!ptq_model_write(model, &bytes, &size, &err));
    add_file(name, bytes, size);
    ptq_bytes_free(bytes, NULL);
}

/* Two items and their labels. */
static void add_array(const char *name, const char *shape, const uint8_t *bytes, size_t size) {
    static uint8_t file[128 + 2 * 3072];
    int length = snprintf((char *)file + 10, 118,
                          "{'descr': '|u1', 'fortran_order': False, 'shape': %s, }\n", shape);

    memcpy(file, "\x93NUMPY\1", 8);
    file[8] = (uint8_t)length;
    file[9] = 0;
    memcpy(file + 10 + length, bytes, size);
    add_file(name, file, 10 + (size_t)length + size);
}

static void add_arrays(const uint8_t *pixels) {
    static const uint8_t labels[] = {0, 1};

    add_array("x.npy", "(2, 32, 32, 3)", pixels, 2 * 3072);
    add_array("y.npy", "(2,)", labels, sizeof labels);
}

static void make_files(void) {
    static uint8_t records[22 * PTQ_CIFAR10_RECORD];
    ptq_model *model = make_network(network_text), *fused = NULL, *quantized = NULL;
    ptq_calibration *seen;
    ptq_convert_options options;
    ptq_dataset data;
    void *bytes = NULL;
    size_t size = 0;

    patience = 1; /* what refuses long work is in our own way, too */
    memset(&options, 0, sizeof options);
    expect(!ptq_preset("minmax8", &options.scheme, &err));
    expect(!ptq_fuse(model, &fused, NULL, &err));
    seen = calibrate(fused, images_for(fused, &data));
    expect(!ptq_convert(fused, seen, &options, &quantized, NULL, &err));
    expect(!ptq_calibration_write(seen, &bytes, &size, &err));
    draw_records(records, 22);
    add_model("m.safetensors", model);
    add_model("q.safetensors", quantized);
    add_file("c.json", bytes, size);
    add_file("g.txt", network_text, sizeof network_text - 1);
    add_file("n.txt", "* = *\n", 6);
    add_file("data_batch_1.bin", records, 20 * PTQ_CIFAR10_RECORD);
    add_file("test_batch.bin", records + 20 * PTQ_CIFAR10_RECORD, 2 * PTQ_CIFAR10_RECORD);
    add_arrays(records);
    ptq_bytes_free(bytes, NULL);
    bytes = model_bytes(model, &size);
    add_file("t.safetensors", bytes, size);
    ptq_bytes_free(bytes, NULL);
    ptq_calibration_free(seen);
    ptq_model_free(quantized);
    ptq_model_free(fused);
    ptq_model_free(model);
}

static fixed_file *find_file(const char *name) {
    for (int i = 0; i < file_count; i++)
        if (!strcmp(files[i].name, name))
            return &files[i];
    return NULL;
}

static int is_untouched(const fixed_file *file) {
    struct stat now;

    return !fstatat(folder, file->name, &now, AT_SYMLINK_NOFOLLOW) &&
           now.st_ino == file->state.st_ino && now.st_size == file->state.st_size &&
           now.st_mtim.tv_sec == file->state.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == file->state.st_mtim.tv_nsec;
}

/* Takes away what the last run wrote; all files, at the end. */
static void remove_files(int all) {
    DIR *listing = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY));
    struct dirent *entry;

    expect(listing);
    while ((entry = readdir(listing)) != NULL)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
            (all || !find_file(entry->d_name)))
            unlinkat(folder, entry->d_name, 0);
    closedir(listing);
}

/* What the last run wrote over. */
static void restore_files(void) {
    for (int i = 0; i < file_count; i++) {
        fixed_file *file = &files[i];
        int to;

        if (is_untouched(file))
            continue;
        to = openat(folder, file->name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        expect(to >= 0 && write(to, file->bytes, file->size) == (ssize_t)file->size && !close(to));
        expect(!fstatat(folder, file->name, &file->state, AT_SYMLINK_NOFOLLOW));
    }
}

static char folder_path[512];

static void remove_folder(void) {
    remove_files(1);
    rmdir(folder_path);
}

static void make_folder(void) {
    static const char *const unwanted[] = {"PTQ_MODEL", "CIFAR10_DIR", "PTQ_ISA", "PTQ_SHARED"};
    const char *base = getenv("TMPDIR");

    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++)
        unsetenv(unwanted[i]);
    snprintf(folder_path, sizeof folder_path, "%s/ptq-fuzz-XXXXXX", base ? base : "/tmp");
    expect(mkdtemp(folder_path));
    home = open(".", O_RDONLY | O_DIRECTORY);
    folder = open(folder_path, O_RDONLY | O_DIRECTORY);
    expect(home >= 0 && folder >= 0);
    make_files();
    atexit(remove_folder);
}

/* ---- The arguments ---- */

/* One a line. Without a slash no file outside the folder has a name; and lists, of which the tool
   tries every combination, stay short. Returns how many, 0 for what is not tried. */
static int split(char *text, size_t size, char **argv) {
    static char name[] = "ptq";
    char *line = text;
    int argc = 1, commas = 0;

    argv[0] = name;
    for (size_t i = 0; i < size && argc < MOST_ARGUMENTS; i++) {
        commas += text[i] == ',';
        if (text[i] == '/')
            text[i] = '_';
        if (text[i] != '\n')
            continue;
        text[i] = 0;
        argv[argc++] = line;
        line = text + i + 1;
    }
    argv[argc] = NULL;
    return commas > MOST_COMMAS ? 0 : argc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *argv[MOST_ARGUMENTS + 2], *text = (char *)malloc(size + 1);
    int argc, status;

    if (!folder_path[0])
        make_folder();
    expect(text);
    memcpy(text, data, size);
    argc = split(text, size, argv);
    if (argc) {
        forget_arguments();
        remove_files(0);
        restore_files();
        steps = threads = conversions = loads = 0;
        /* Most runs end where long work begins. */
        patience = seed_of(data, size) % 2048 ? 0 : 24;
        signal(SIGINT, SIG_IGN);
        expect(!fchdir(folder));
        status = ptq_tool(argc, argv);
        expect(!fchdir(home));
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        expect(status >= 0 && status <= 2);
    }
    free(text);
    return 0;
}
