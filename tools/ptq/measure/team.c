/* Images in memory, and the threads that share a call of ptq bench. */
#include <stdlib.h>
#include <string.h>

#include "measure/bench.h"

/* ---- Images ---- */

static void fill_random(image_store *images) {
    ptq_rng rng;

    ptq_rng_seed(&rng, 42, 0);
    for (size_t i = 0; i < images->count * images->image_bytes; i++)
        images->pixels[i] = (uint8_t)(ptq_rng_next(&rng) >> 24);
}

static int fill_from(image_store *images, const ptq_dataset *data) {
    ptq_error err;
    int label;

    for (size_t i = 0; i < images->count; i++)
        if (data->get(data->user, i % data->count, images->pixels + i * images->image_bytes, &label,
                      &err))
            return fail("%s", err.text);
    return 0;
}

static int allocate_images(image_store *images, size_t wanted, size_t least) {
    images->count = wanted < least ? least : wanted;
    images->pixels = malloc(images->count * images->image_bytes);
    return images->pixels ? 0 : fail("no memory for %zu images", images->count);
}

static int fill_from_file(const char *path, size_t least, size_t most, image_store *images) {
    ptq_cifar10 *data = NULL;
    ptq_dataset set;
    ptq_error err;
    int status;

    if (ptq_cifar10_open(path, PTQ_SPLIT_TEST, NULL, &data, &err))
        return fail("%s", err.text);
    set = *ptq_cifar10_dataset(data);
    if ((size_t)set.height * (size_t)set.width * (size_t)set.channels != images->image_bytes)
        status = fail("the model's images are not of CIFAR-10's size; bench it without data");
    else
        status = allocate_images(images, !most || set.count < most ? set.count : most, least) ||
                 fill_from(images, &set);
    ptq_cifar10_free(data);
    return status;
}

int images_open(const char *path, size_t image_bytes, size_t least, size_t most, image_store *out) {
    char found[PATH_SIZE];

    memset(out, 0, sizeof *out);
    out->image_bytes = image_bytes;
    out->random = !path && look_for_data(NULL, found);
    if (out->random) {
        if (allocate_images(out, most, least))
            return 1;
        fill_random(out);
        return 0;
    }
    return find_data(path, found) || fill_from_file(found, least, most, out);
}

void images_close(image_store *images) {
    free(images->pixels);
    images->pixels = NULL;
}

/* ---- Threads ---- */

static void run_share(worker *self) {
    team *crew = self->crew;
    size_t index = (size_t)(self - crew->member), members = (size_t)crew->members;
    size_t from = (size_t)crew->call_images * index / members;
    size_t to = (size_t)crew->call_images * (index + 1) / members;
    const uint8_t *pixels = crew->images->pixels + (crew->first + from) * crew->images->image_bytes;

    if (to > from && !self->status)
        self->status = ptq_run(self->session, pixels, to - from,
                               crew->logits + from * (size_t)crew->classes, NULL, NULL);
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

int team_create(const ptq_plan *plan, const image_store *images, int members, int batch,
                team *out) {
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

void find_machine(char *name, size_t size) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];

    snprintf(name, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) == 0 && colon) {
            snprintf(name, size, "%s", colon + 2);
            name[strcspn(name, "\n")] = 0;
            break;
        }
    }
    if (file)
        fclose(file);
}
