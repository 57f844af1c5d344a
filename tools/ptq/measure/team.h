/* What ptq bench times: images in memory, and a team of threads that share a call. */
#ifndef PTQ_TOOL_TEAM_H
#define PTQ_TOOL_TEAM_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "ptq.h"

#define MOST_THREADS 256

/* ---- Images in memory ---- */

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

/* ---- Threads that share a call ---- */

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

double median_of(double *values, size_t count); /* sorts them; the upper one of an even number */

#endif
