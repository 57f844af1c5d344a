#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared/common.h"

#define MOST_OPTIONS 48

static const char *subcommand = "";
static int quiet;

/* ---- Errors and human-readable output ---- */

void set_subcommand(const char *name) { subcommand = name; }

/* One line on standard error. Names that come from files may hold anything: a control character in
   them neither breaks the line nor reaches a terminal. */
static void print_line(const char *kind, const char *format, va_list args) {
    char line[4 * PATH_SIZE];

    vsnprintf(line, sizeof line, format, args);
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    fprintf(stderr, "ptq%s%s: %s%s\n", *subcommand ? " " : "", subcommand, kind, line);
}

int fail(const char *format, ...) {
    va_list args;

    va_start(args, format);
    print_line("", format, args);
    va_end(args);
    return 1;
}

void warn(const char *format, ...) {
    va_list args;

    va_start(args, format);
    print_line("warning: ", format, args);
    va_end(args);
}

void say(const char *format, ...) {
    va_list args;

    if (quiet)
        return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

/* ---- Options ---- */

static void print_help(const option_spec *specs, const command_help *help) {
    printf("usage: ptq %s\n\n%s\n\n", help->usage, help->about);
    for (; specs->name; specs++) {
        char left[64];

        snprintf(left, sizeof left, "%c%c%s --%s %s", specs->letter ? '-' : ' ',
                 specs->letter ? specs->letter : ' ', specs->letter ? "," : " ", specs->name,
                 specs->value ? specs->value : "");
        printf("  %-28s %s\n", left, specs->help);
    }
    printf("  %-28s %s\n\nExample:\n  %s\n", "    --help", "show this", help->example);
}

static int append_option(const option_spec *spec, const char *value) {
    for (int i = 0; i < spec->least; i++) {
        if (!spec->text[i]) {
            spec->text[i] = value;
            return OPTIONS_OK;
        }
    }
    fail("--%s may be given at most %d times", spec->name, spec->least);
    return OPTIONS_BAD;
}

static int store_option(const option_spec *spec, const char *value) {
    char *end;
    long number;

    if (spec->flag) {
        *spec->flag = 1;
        return OPTIONS_OK;
    }
    if (spec->text && spec->least)
        return append_option(spec, value);
    if (spec->text) {
        *spec->text = value;
        return OPTIONS_OK;
    }
    number = strtol(value, &end, 10);
    if (end == value || *end || number < spec->least || number > INT_MAX) {
        fail("--%s must be a whole number of at least %d, not '%s'", spec->name, spec->least,
             value);
        return OPTIONS_BAD;
    }
    *spec->number = (int)number;
    return OPTIONS_OK;
}

/* Fills getopt_long's tables; values are indices into specs, --help comes behind them. */
static int make_tables(const option_spec *specs, struct option *longs, char *letters) {
    int n = 0;

    *letters++ = ':';
    for (; specs[n].name; n++) {
        assert(n < MOST_OPTIONS);
        longs[n].name = specs[n].name;
        longs[n].has_arg = specs[n].value ? required_argument : no_argument;
        longs[n].flag = NULL;
        longs[n].val = 256 + n;
        if (specs[n].letter) {
            *letters++ = specs[n].letter;
            if (specs[n].value)
                *letters++ = ':';
        }
    }
    *letters = 0;
    longs[n].name = "help";
    longs[n].has_arg = no_argument;
    longs[n].flag = NULL;
    longs[n].val = 256 + n;
    memset(&longs[n + 1], 0, sizeof longs[n + 1]);
    return n;
}

static int find_option(const option_spec *specs, int code, int count) {
    if (code >= 256)
        return code - 256;
    for (int i = 0; i < count; i++)
        if (specs[i].letter == code)
            return i;
    return -1;
}

int parse_options(int argc, char **argv, const option_spec *specs, const command_help *help,
                  char **positional, int most) {
    struct option longs[MOST_OPTIONS + 2];
    char letters[2 * MOST_OPTIONS + 2];
    int count = make_tables(specs, longs, letters);
    int code;

    opterr = 0;
    optind = 1;
    while ((code = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        int index = find_option(specs, code, count);

        if (index == count) {
            print_help(specs, help);
            return OPTIONS_HELP;
        }
        if (index < 0) {
            fail(code == ':' ? "%s needs a value; see 'ptq %s --help'"
                             : "unknown option %s; see 'ptq %s --help'",
                 argv[optind - 1], subcommand);
            return OPTIONS_BAD;
        }
        if (store_option(&specs[index], optarg))
            return OPTIONS_BAD;
    }
    if (argc - optind > most) {
        fail("unexpected argument '%s'; see 'ptq %s --help'", argv[optind + most], subcommand);
        return OPTIONS_BAD;
    }
    for (int i = 0; i < argc - optind; i++)
        positional[i] = argv[optind + i];
    return OPTIONS_OK;
}

/* ---- Models and data ---- */

static int exists(const char *path) {
    struct stat status;

    return stat(path, &status) == 0;
}

static const char *shared_directory(void) {
    const char *shared = getenv("PTQ_SHARED");

    return shared && *shared ? shared : "../shared";
}

static const char *environment(const char *name) {
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static int take(char path[PATH_SIZE], const char *directory, const char *rest) {
    int length = snprintf(path, PATH_SIZE, "%s%s", directory, rest);

    return length > 0 && length < PATH_SIZE && exists(path);
}

/* The directory part of a path: "." where there is none. */
static void directory_of(const char *path, char directory[PATH_SIZE]) {
    const char *slash = strrchr(path, '/');

    if (!slash)
        snprintf(directory, PATH_SIZE, ".");
    else
        snprintf(directory, PATH_SIZE, "%.*s", slash == path ? 1 : (int)(slash - path), path);
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
    return take(path, given, "") ? 0 : fail("no such model file: %s", given);
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
    return look_for_model(NULL, path) ? fail("no model; give one with --model or in PTQ_MODEL") : 0;
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
        return 0;
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
        return 0;
    if (fixed)
        return fail("no such directory or file: %s; 'make data' downloads CIFAR-10", fixed);
    return fail("no CIFAR-10; 'make data' downloads it, or give its directory with --data or in "
                "CIFAR10_DIR");
}

int choose_isa(const char *name, ptq_isa *out) {
    char known[256] = "";
    size_t used = 0;
    int found;

    if (!name)
        name = environment("PTQ_ISA");
    found = name ? ptq_find_name(PTQ_NAMES_ISA, name) : PTQ_ISA_AUTO;
    if (found >= 0) {
        *out = (ptq_isa)found;
        return 0;
    }
    for (int i = 0; i < PTQ_ISA_COUNT && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 ptq_name(PTQ_NAMES_ISA, (unsigned)i));
    return fail("unknown instruction set '%s'; choose one of %s", name, known);
}

int engine_adopt(ptq_model *model, const char *isa, engine *out) {
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_error err;

    out->model = model;
    out->plan = NULL;
    if (choose_isa(isa, &options.isa)) {
        engine_close(out);
        return 1;
    }
    if (ptq_plan_create(out->model, &options, &out->plan, &err)) {
        engine_close(out);
        return fail("%s", err.text);
    }
    return 0;
}

int engine_open(const char *path, int fuse, const char *isa, engine *out) {
    ptq_model *model = NULL, *fused = NULL;
    ptq_error err;

    memset(out, 0, sizeof *out);
    if (ptq_model_load(path, NULL, &model, &err))
        return fail("%s", err.text);
    if (!fuse)
        return engine_adopt(model, isa, out);
    if (ptq_fuse(model, &fused, NULL, &err)) {
        ptq_model_free(model);
        return fail("%s", err.text);
    }
    ptq_model_free(model);
    return engine_adopt(fused, isa, out);
}

void engine_close(engine *ready) {
    ptq_plan_free(ready->plan);
    ptq_model_free(ready->model);
    memset(ready, 0, sizeof *ready);
}

int engine_self_test(const engine *ready) {
    ptq_error err;

    if (!ptq_model_get_meta(ready->model, "self_test") || !ptq_self_test_check(ready->plan, &err))
        return 0;
    return fail("%s", err.text);
}

/* Bits of a node's weights, or of its result; -1 where they are none, or real numbers. */
static int own_bits(const ptq_node *node, int weights) {
    if (!node->param[PTQ_PARAM_WEIGHT].rank || (!weights && node->q.type == PTQ_TYPE_F32))
        return -1;
    return weights ? node->param[PTQ_PARAM_WEIGHT].bits : node->q.bits;
}

/* Those of all nodes with weights; 0 where they differ. */
static int common_bits(const ptq_model *model, int weights) {
    int bits = -1;

    for (int i = 1; i < model->nodes; i++) {
        int own = own_bits(&model->node[i], weights);

        if (own >= 0)
            bits = bits < 0 || bits == own ? own : 0;
    }
    return bits;
}

void describe_precision(const ptq_model *model, char *text, size_t size) {
    static const char *const name[] = {"int8", "dynamic int8", "float16", "float32"};
    int mode = -1, mixed = 0, weights = common_bits(model, 1), results = common_bits(model, 0);

    for (int i = 1; i < model->nodes; i++) {
        if (!model->node[i].param[PTQ_PARAM_WEIGHT].rank)
            continue;
        mixed |= mode >= 0 && mode != (int)ptq_node_mode(model, i);
        mode = (int)ptq_node_mode(model, i);
    }
    if (mode < 0)
        mode = PTQ_MODE_FLOAT;
    if (mixed || weights == 0 || results == 0)
        snprintf(text, size, "mixed");
    else if (mode == PTQ_MODE_DYNAMIC && weights != 8)
        snprintf(text, size, "dynamic w%d", weights);
    else if (mode == PTQ_MODE_INTEGER && (weights != 8 || (results > 0 && results != 8)))
        snprintf(text, size, "w%da%d", weights, results > 0 ? results : 8);
    else
        snprintf(text, size, "%s", name[mode]);
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

size_t file_size(const char *path) {
    struct stat status;

    return stat(path, &status) == 0 ? (size_t)status.st_size : 0;
}

double fraction(size_t part, size_t whole) { return whole ? (double)part / (double)whole : 0; }

int count_cores(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    return cores > 0 && cores < 1024 ? (int)cores : 1;
}

double seconds_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- Progress ---- */

/* Whether lines can be overwritten: not where standard error goes to a file, nor on a terminal that
   says that it cannot. */
static int can_overwrite(void) {
    const char *terminal = environment("TERM");

    return isatty(STDERR_FILENO) && !(terminal && strcmp(terminal, "dumb") == 0);
}

progress progress_start(const char *what) {
    progress made;

    made.what = what;
    made.start = seconds_now();
    made.shown = 0;
    made.visible = can_overwrite();
    return made;
}

int progress_show(void *user, size_t done, size_t total) {
    progress *state = user;
    double now = seconds_now();
    double rate = (double)done / (now - state->start + 1e-9);

    if (!state->visible || done == 0 || (now - state->shown < 0.2 && done < total))
        return 0;
    state->shown = now;
    fprintf(stderr, "\r%s: %zu of %zu, %.0f/s, %.0f s left \033[K", state->what, done, total, rate,
            (double)(total - done) / rate);
    return 0;
}

void progress_end(progress *state) {
    if (state->visible && state->shown > 0)
        fputs("\r\033[K", stderr);
}

/* ---- JSON ---- */

#ifdef PTQ_HAVE_jansson

static const char *json_path;

int json_setup(const char *path) {
    json_path = path;
    quiet = path && strcmp(path, "-") == 0;
    return 0;
}

void json_set_count(json_t *object, const char *key, uint64_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

int json_finish(json_t *root) {
    ptq_error err;
    ptq_status status = PTQ_OK;
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    size_t length;

    json_decref(root);
    if (!text)
        return fail("no memory for the JSON");
    length = strlen(text);
    text[length] = '\n';
    if (quiet)
        fwrite(text, 1, length + 1, stdout);
    else
        status = ptq_file_write(json_path, text, length + 1, &err);
    free(text);
    return status ? fail("%s", err.text) : 0;
}

#else

int json_setup(const char *path) {
    return path ? fail("--json needs the jansson library; install it and build again") : 0;
}

#endif
