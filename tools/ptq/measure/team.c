/* Images in memory, and the threads that share a call of ptq bench. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "data/find.h"
#include "data/names.h"
#include "measure/team.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/output.h"

/* ---- Images ---- */

static void fill_random(image_store *images) {
    size_t bytes = images->count * images->image_bytes;
    ptq_rng rng;

    ptq_rng_seed(&rng, 42, 0);
    for (size_t i = 0; i < bytes && !images->real; i++)
        images->pixels[i] = (uint8_t)(ptq_rng_next(&rng) >> 24);
    for (size_t i = 0; i < bytes && images->real; i += sizeof(float)) {
        float value = 2 * ptq_rng_float(&rng) - 1;

        memcpy(images->pixels + i, &value, sizeof value);
    }
}

static int fill_from(image_store *images, const ptq_dataset *data, size_t first, size_t count) {
    ptq_error err;
    int label;

    for (size_t i = 0; i < count; i++)
        if (data->get(data->user, (first + i) % data->count,
                      images->pixels + i * images->image_bytes, &label, &err))
            return fail("%s", err.text);
    return 0;
}

int images_load(image_store *images, size_t first, size_t count) {
    return fill_from(images, data_view(images->source), first, count);
}

static int allocate_images(image_store *images, size_t wanted, size_t least) {
    images->count = wanted < least ? least : wanted;
    images->all = images->count;
    images->pixels = malloc(images->count * images->image_bytes);
    return images->pixels ? 0 : fail("no memory for %zu images", images->count);
}

static int fill_from_file(const data_request *from, const ptq_plan *plan, size_t least, size_t most,
                          int stream, image_store *images) {
    const ptq_dataset *view;
    data_set *data;
    int status;

    if (data_open(from, PTQ_SPLIT_TEST, plan, &data))
        return 1;
    view = data_view(data);
    images->real = view->type == PTQ_TYPE_F32;
    images->image_bytes = data_item_bytes(view);
    status = allocate_images(images, view->count < most ? view->count : most, least) ||
             fill_from(images, view, 0, images->count);
    images->all = view->count;
    if (stream)
        images->source = data;
    else
        data_close(data);
    return status;
}

/* Data that nobody named may be of another size than the model's. */
static int fits(const data_options *given, const ptq_plan *plan) {
    const int *shape = ptq_plan_get_info(plan)->model->node[0].shape;
    char found[PATH_SIZE];

    if (given->data || environment("CIFAR10_DIR"))
        return 1;
    return !look_for_data(NULL, found) && !model_takes_real(ptq_plan_get_info(plan)->model) &&
           shape[0] == 32 && shape[1] == 32 && shape[2] == 3;
}

int images_open(const data_options *given, const ptq_plan *plan, size_t least, size_t most,
                int stream, image_store *out) {
    data_request from;

    memset(out, 0, sizeof *out);
    out->image_bytes = ptq_plan_get_info(plan)->pixels;
    out->random = !fits(given, plan);
    if (out->random) {
        out->real = model_takes_real(ptq_plan_get_info(plan)->model);
        out->image_bytes *= out->real ? sizeof(float) : 1;
        if (allocate_images(out, most, least))
            return 1;
        fill_random(out);
        return 0;
    }
    if (data_find(given, &from))
        return 1;
    from.any_labels = 1;
    return fill_from_file(&from, plan, least, most, stream, out);
}

ptq_status images_run(const image_store *images, ptq_session *session, const uint8_t *from,
                      size_t count, float *logits, ptq_error *err) {
    return images->real
               ? ptq_run_f32(session, (const float *)(const void *)from, count, logits, NULL, err)
               : ptq_run(session, from, count, logits, NULL, err);
}

void images_close(image_store *images) {
    data_close(images->source);
    free(images->pixels);
    memset(images, 0, sizeof *images);
}

/* ---- Threads ---- */

static void run_share(worker *self) {
    team *crew = self->crew;
    size_t index = (size_t)(self - crew->member), members = (size_t)crew->members;
    size_t from = (size_t)crew->call_images * index / members;
    size_t to = (size_t)crew->call_images * (index + 1) / members;
    const uint8_t *pixels = crew->images->pixels + (crew->first + from) * crew->images->image_bytes;

    float *logits = crew->logits + from * (size_t)crew->classes;

    if (to == from || self->status)
        return;
    self->status = images_run(crew->images, self->session, pixels, to - from, logits, NULL);
}

static void *follow(void *argument) {
    worker *self = argument;
    int complete;

    pthread_mutex_lock(&self->crew->gate);
    complete = self->crew->has_barriers; /* not stop, which may be set before this thread runs */
    pthread_mutex_unlock(&self->crew->gate);
    while (complete) {
        pthread_barrier_wait(&self->crew->start);
        if (self->crew->stop)
            return NULL;
        run_share(self);
        pthread_barrier_wait(&self->crew->end);
    }
    return NULL;
}

void team_call(team *crew) {
    if (crew->first + (size_t)crew->call_images > crew->images->count)
        crew->first = 0;
    if (crew->members > 1)
        pthread_barrier_wait(&crew->start);
    run_share(&crew->member[0]);
    if (crew->members > 1)
        pthread_barrier_wait(&crew->end);
    crew->first += (size_t)crew->call_images;
}

/* Threads begin once all of them are there: without the last one, the others would wait at the
   barrier for good. */
static int start_threads(team *crew, int members) {
    int started = 1;

    pthread_mutex_init(&crew->gate, NULL);
    pthread_mutex_lock(&crew->gate);
    while (started < members &&
           !pthread_create(&crew->member[started].thread, NULL, follow, &crew->member[started]))
        started++;
    crew->has_barriers = started == members;
    if (crew->has_barriers) {
        pthread_barrier_init(&crew->start, NULL, (unsigned)members);
        pthread_barrier_init(&crew->end, NULL, (unsigned)members);
    }
    pthread_mutex_unlock(&crew->gate);
    if (crew->has_barriers)
        return 0;
    for (int i = 1; i < started; i++)
        pthread_join(crew->member[i].thread, NULL);
    return fail("cannot start %d threads", members);
}

int team_create(const ptq_plan *plan, image_store *images, int members, int batch, team *out) {
    ptq_error err;

    memset(out, 0, sizeof *out);
    out->images = images;
    out->classes = ptq_plan_get_info(plan)->classes;
    out->call_images = batch;
    out->logits = malloc((size_t)batch * (size_t)out->classes * sizeof(float));
    out->member = calloc((size_t)members, sizeof *out->member);
    if (!out->logits || !out->member)
        return fail("no memory for %d images on %d threads", batch, members);
    for (int i = 0; i < members; i++) {
        out->member[i].crew = out;
        if (ptq_session_create(plan, NULL, &out->member[i].session, &err))
            return fail("%s", err.text);
        out->members = i + 1;
    }
    return start_threads(out, members);
}

void team_free(team *crew) {
    if (crew->has_barriers && crew->members > 1) {
        crew->stop = 1;
        pthread_barrier_wait(&crew->start);
        for (int i = 1; i < crew->members; i++)
            pthread_join(crew->member[i].thread, NULL);
    }
    for (int i = 0; i < crew->members; i++)
        ptq_session_free(crew->member[i].session);
    if (crew->has_barriers) {
        pthread_barrier_destroy(&crew->start);
        pthread_barrier_destroy(&crew->end);
    }
    free(crew->member);
    free(crew->logits);
    memset(crew, 0, sizeof *crew);
}

uint64_t team_checksum(team *crew, size_t images, int call_images) {
    uint64_t hash = 14695981039346656037u;

    crew->call_images = call_images;
    crew->first = 0;
    for (size_t i = 0; i < images; i += (size_t)call_images) {
        team_call(crew);
        for (int c = 0; c < crew->classes * call_images; c++) {
            uint32_t word;

            memcpy(&word, &crew->logits[c], 4);
            for (int k = 0; k < 32; k += 8)
                hash = (hash ^ (word >> k & 255)) * 1099511628211u;
        }
    }
    return hash;
}

int team_check(const team *crew) {
    for (int i = 0; i < crew->members; i++)
        if (crew->member[i].status)
            return fail("running failed: %s",
                        ptq_name(PTQ_NAMES_STATUS_TEXT, crew->member[i].status));
    return 0;
}

/* ---- Numbers ---- */

int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double median_of(double *values, size_t count) {
    qsort(values, count, sizeof *values, compare_doubles);
    return values[count / 2];
}
