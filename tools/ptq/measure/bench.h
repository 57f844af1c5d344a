/* What the measurements of ptq bench share: images, a team of threads, the core's own peak. */
#ifndef PTQ_TOOL_BENCH_H
#define PTQ_TOOL_BENCH_H

#include <pthread.h>

#include "shared/common.h"

#define MOST_THREADS 256

/* ---- Images in memory (team.c) ---- */

typedef struct image_store {
    uint8_t *pixels; /* count images */
    size_t count, image_bytes;
    int random; /* pixels from a fixed seed, as there is no CIFAR-10 */
} image_store;

/* At least `least` images, `most` of the data set unless that is less; 0: all. They repeat where
   there are fewer. CIFAR-10 is looked for in `path` (NULL: the usual places); random pixels take
   its place where it is missing and none was asked for. */
int images_open(const char *path, size_t image_bytes, size_t least, size_t most, image_store *out);
void images_close(image_store *images);

/* ---- Threads that share a call (team.c) ---- */

typedef struct team team;

typedef struct worker {
    team *crew;
    ptq_session *session;
    pthread_t thread;
    ptq_status status;
} worker;

struct team {
    const image_store *images;
    float *logits; /* of one call */
    size_t first;  /* image of the next call */
    int classes, call_images, members, stop, has_barriers;
    worker *member;
    pthread_mutex_t gate;
    pthread_barrier_t start, end;
};

/* A team of `members`, the caller among them, whose calls have at most `batch` images. */
int team_create(const ptq_plan *plan, const image_store *images, int members, int batch, team *out);
void team_free(team *crew);

/* Runs the next call_images images, the first ones again after the last. */
void team_call(team *crew);

/* FNV-1a over the bits of the logits of the first `images` images, in calls of `call_images`. */
uint64_t team_checksum(team *crew, size_t images, int call_images);

/* Fails if a run failed. */
int team_check(const team *crew);

/* ---- Numbers ---- */

int compare_doubles(const void *a, const void *b);
double median_of(double *values, size_t count); /* sorts them; the upper one of an even number */

void find_machine(char *name, size_t size);

/* ---- What a core can do (peak.c) ---- */

/* The multiply-add that the kernels of an instruction set rest on. */
typedef struct peak_unit {
    const char *isa, *name;
    int integer;
    double macs; /* of one turn of the loop */
    void (*loop)(long turns);
} peak_unit;

/* NULL where none is known, or it is not available here. */
const peak_unit *peak_find(ptq_isa isa, int integer);

/* Multiply-adds per nanosecond (GMAC/s) in about `seconds`. */
double peak_measure(const peak_unit *unit, double seconds);

/* ---- The table (bench_table.c) ---- */

typedef struct table_options {
    const char *model, *quantized, *data;
    int batch, seconds;
    int json;
} table_options;

int bench_table(const table_options *options);

#endif
