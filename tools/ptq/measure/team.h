/* What ptq bench times: images in memory, and a team of threads that share a call. */
#ifndef PTQ_TOOL_TEAM_H
#define PTQ_TOOL_TEAM_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "data/dataset.h"
#include "ptq.h"

#define MOST_THREADS 256

/* ---- Images in memory ---- */

typedef struct image_store {
    uint8_t *pixels; /* count images, or of real numbers where `real` says so */
    size_t count, image_bytes;
    data_set *source; /* NULL: `count` are all; else these are read as they are needed */
    size_t all;       /* images that there are */
    int random, real; /* random: from a fixed seed, as there are no data */
} image_store;

/* At least `least` images, `most` of the data set unless that is less. They repeat where there are
   fewer. `stream`: all of the data set is to be run, and images_load brings the next ones. Where no
   data are named, CIFAR-10 is looked for in the usual places; random numbers take its place where it
   is missing, or not of the plan's size. */
int images_open(const data_options *given, const ptq_plan *plan, size_t least, size_t most,
                int stream, image_store *out);
void images_close(image_store *images);

/* Puts images first, first + 1, ... in place of the `count` at the beginning of those in memory;
   the first of all again after the last. 0, or 1 after an error. */
int images_load(image_store *images, size_t first, size_t count);

/* Runs `count` of them, as bytes or as real numbers. */
ptq_status images_run(const image_store *images, ptq_session *session, const uint8_t *from,
                      size_t count, float *logits, ptq_error *err);

/* ---- Threads that share a call ---- */

typedef struct team team;

typedef struct worker {
    team *crew;
    ptq_session *session;
    pthread_t thread;
    ptq_status status;
} worker;

struct team {
    image_store *images;
    float *logits; /* of one call */
    size_t first;  /* image of the next call */
    int classes, call_images, members, stop, has_barriers;
    worker *member;
    pthread_mutex_t gate;
    pthread_barrier_t start, end;
};

/* A team of `members`, the caller among them, whose calls have at most `batch` images. */
int team_create(const ptq_plan *plan, image_store *images, int members, int batch, team *out);
void team_free(team *crew);

/* Runs the next call_images images, the first ones again after the last. */
void team_call(team *crew);

/* FNV-1a over the bits of the logits of the first `images` images, in calls of `call_images`. */
uint64_t team_checksum(team *crew, size_t images, int call_images);

/* Fails if a run failed. */
int team_check(const team *crew);

/* ---- Numbers ---- */

double median_of(double *values, size_t count); /* sorts them; the upper one of an even number */

#endif
