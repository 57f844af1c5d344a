/* What the subcommands of ptq share: options, lookup of data and models, progress, output. */
#ifndef PTQ_TOOL_COMMON_H
#define PTQ_TOOL_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ptq.h"

#ifdef PTQ_HAVE_jansson
#include <jansson.h>
#endif

#define PATH_SIZE 4096
#define SCHEMA_VERSION 1

#if defined(__GNUC__) || defined(__clang__)
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#else
#define PRINTF_LIKE(text, first)
#endif

/* Subcommands: the argument vector begins with the subcommand's name; the result is the exit
   status. */
int command_bench(int argc, char **argv);
int command_calibrate(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_export(int argc, char **argv);
int command_import(int argc, char **argv);
int command_info(int argc, char **argv);
int show_cpu(int json); /* info --cpu (info_cpu.c) */
int command_mistake(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_report(int argc, char **argv);
int command_run(int argc, char **argv);
int command_sensitivity(int argc, char **argv);
int command_sweep(int argc, char **argv);
int command_train(int argc, char **argv);

/* ResNet8 from a Keras .h5 file; 0, or 1 after an error on standard error. */
int read_keras(const char *path, ptq_model **out);

/* ---- Errors and human-readable output ---- */

/* Prints "ptq SUBCOMMAND: message" on standard error and returns 1, an exit status. */
int fail(const char *format, ...) PRINTF_LIKE(1, 2);

/* The same for what does not stop the work: "ptq SUBCOMMAND: warning: message". */
void warn(const char *format, ...) PRINTF_LIKE(1, 2);
void set_subcommand(const char *name);

/* printf to standard output, or to nowhere when JSON goes there. */
void say(const char *format, ...) PRINTF_LIKE(1, 2);

/* ---- Options ---- */

/* One option, for the parser and for --help. Exactly one of the three targets is set. */
typedef struct option_spec {
    const char *name;  /* long spelling */
    char letter;       /* short spelling, or 0 */
    const char *value; /* placeholder in the help; NULL for a flag */
    const char *help;
    const char **text;
    int *number; /* at least `least` */
    int *flag;
    int least; /* of text: 0, or the size of the array at `text`, for an option that may be given
                  so many times; the values fill it in order */
} option_spec;

typedef struct command_help {
    const char *usage; /* what stands behind "ptq " */
    const char *about;
    const char *example;
} command_help;

enum { OPTIONS_OK, OPTIONS_HELP, OPTIONS_BAD };

/* Parses the options; afterwards *positional is at the first other argument, of which there may be
   at most `most`. The list ends with a NULL name. */
int parse_options(int argc, char **argv, const option_spec *specs, const command_help *help,
                  char **positional, int most);

/* ---- Models and data ---- */

/* Where to look: `given`, else the environment, the project's own directories, PTQ_SHARED. 0, or 1
   after an error on standard error. find_data returns a directory or a file. find_model_for takes
   none of the project's models but one that knows the classes of `data`. */
int find_model(const char *given, char path[PATH_SIZE]);
int find_model_for(const char *given, const char *data, char path[PATH_SIZE]);
int find_data(const char *given, char path[PATH_SIZE]);

/* The same, but silent: 1 if there is none. */
int look_for_model(const char *given, char path[PATH_SIZE]);
int look_for_data(const char *given, char path[PATH_SIZE]);

/* The instruction set of that name (NULL: $PTQ_ISA, else PTQ_ISA_AUTO). 0, or 1 after an error. */
int choose_isa(const char *name, ptq_isa *out);

/* A model file, fused on request, and its plan for `isa` (NULL: $PTQ_ISA, else the best). */
typedef struct engine {
    ptq_model *model;
    ptq_plan *plan;
} engine;
int engine_open(const char *path, int fuse, const char *isa, engine *out);
void engine_close(engine *ready);

/* A model that is in memory already, which then belongs to the engine. */
int engine_adopt(ptq_model *model, const char *isa, engine *out);

/* Checks the self-test vector, where the model has one. */
int engine_self_test(const engine *ready);

/* "float32", "float16", "dynamic int8", "int8", or "w4a8" where not all codes have 8 bits; "mixed"
   where some nodes compute otherwise than others. */
void describe_precision(const ptq_model *model, char *text, size_t size);

/* A safetensors file as it is. 0, or 1 after an error. */
int read_archive(const char *path, ptq_archive **out);
int save_archive(const ptq_archive *archive, const char *path);

/* Before long work: whether a file can be written there. It must not be `source`, unless NULL. */
int check_output(const char *path, const char *source);

size_t file_size(const char *path);
double fraction(size_t part, size_t whole);

/* ---- Calibration, shared by calibrate and quantize (calibrate.c) ---- */

/* Training images chosen by ptq_sample. */
typedef struct image_sample {
    ptq_cifar10 *data;
    size_t *indices;
    ptq_subset subset;
} image_sample;
int sample_open(const char *data_path, int count, int seed, image_sample *out);
void sample_close(image_sample *drawn);

int calibrate_on(const ptq_plan *plan, const image_sample *drawn, int threads,
                 ptq_calibration **out);
void print_warnings(const ptq_calibration *calibration);

/* The test set that lies at `data_path`, or beside it if that is a file; *out stays NULL where
   there is none. */
int open_test_set(const char *data_path, ptq_cifar10 **out);

/* Fails if images of `data` were calibrated on. */
int refuse_overlap(const ptq_calibration *calibration, const ptq_dataset *data);

/* ---- Evaluation, shared by eval and quantize (eval.c) ---- */

int evaluate_plan(const ptq_plan *plan, const ptq_dataset *data, const char *what, int threads,
                  ptq_evaluation *out);
void print_accuracy(const char *what, const ptq_evaluation *result);
void print_comparison(const ptq_comparison *compared);

/* Every intermediate tensor of all images as a .safetensors file (tensors.c). */
int write_tensors(const engine *ready, const ptq_cifar10 *data, const char *path);

int count_cores(void);
double seconds_now(void);

/* ---- Progress on standard error, only when it is a terminal ---- */

typedef struct progress {
    const char *what;
    double start, shown;
    int visible;
} progress;
progress progress_start(const char *what);
int progress_show(void *user, size_t done, size_t total); /* a ptq_progress */
void progress_end(progress *state);

/* ---- JSON ---- */

/* To be called once with the value of --json (NULL: none). 1 if this build cannot write it. */
int json_setup(const char *path);

#ifdef PTQ_HAVE_jansson
/* Writes to the path given to json_setup and drops the reference. */
int json_finish(json_t *root);

/* Integers that may be unsigned and larger than int. */
void json_set_count(json_t *object, const char *key, uint64_t value);

/* {correct, total, accuracy}; and what a comparison adds to an object: agreement, delta_pp,
   interval, flips, mcnemar_p (eval.c). */
json_t *json_accuracy(size_t correct, size_t total);
void json_set_comparison(json_t *object, const ptq_comparison *compared);

/* {sqnr_db, kl, agreement, delta_pp}; sqnr_db null where infinite (sensitivity.c). */
json_t *json_divergence(const ptq_divergence *cost);

/* The warnings as a list of sentences (calibrate.c). */
json_t *json_warnings(const ptq_calibration *calibration);
#endif

#endif
