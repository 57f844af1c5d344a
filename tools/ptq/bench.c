/* ptq bench: time per image, at batch 1 and at a larger batch, on one thread or several.

   A call runs one batch, its images shared out among the threads. What is timed is the call on
   images already in memory; loading, planning and warm-up are outside. The checksum of the logits
   tells two builds that compute the same from two that do not. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

#define WARM_UP_SECONDS 0.3
#define FEW_IMAGES 200
#define CHECKSUM_IMAGES 16
#define MOST_CALLS 1000000
#define MOST_THREADS 256

static const char *model_option, *data_option, *isa_option, *json_option;
static int batch = 1, threads = 1, seconds = 2, all_images, lines;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "model file (.safetensors)", &model_option, NULL, NULL, 0},
    {"data", 'd', "DIR", "CIFAR-10's directory, or a .bin file", &data_option, NULL, NULL, 0},
    {"batch", 'b', "N", "images in a call (default 1)", NULL, &batch, NULL, 1},
    {"threads", 't', "T", "threads that share a call (default 1)", NULL, &threads, NULL, 1},
    {"isa", 0, "NAME", "instruction set (default: $PTQ_ISA, else the best)", &isa_option, NULL,
     NULL, 0},
    {"all", 0, NULL, "one pass over all test images, however long it takes", NULL, NULL,
     &all_images, 0},
    {"seconds", 's', "S", "how long to measure (default 2)", NULL, &seconds, NULL, 1},
    {"json", 0, "FILE", "write the result as JSON (-: standard output)", &json_option, NULL, NULL,
     0},
    {"lines", 0, NULL, "print RESULT lines, to compare with other programs", NULL, NULL, &lines, 0},
    {0}};

static const command_help help = {
    "bench [--model MODEL] [OPTIONS]",
    "Measures microseconds per image and images per second. A float model is fused first. Without\n"
    "CIFAR-10 the images are random numbers, which take just as long.",
    "ptq bench --model resnet8.safetensors --batch 16 --threads 2"};

typedef struct team team;

typedef struct worker {
    team *crew;
    ptq_session *session;
    pthread_t thread;
    ptq_status status;
} worker;

/* The images, and the threads that run them. */
struct team {
    uint8_t *pixels; /* count images */
    float *logits;   /* of one call */
    size_t count, image_bytes, first;
    int classes, call_images, members, stop, random;
    worker member[MOST_THREADS];
    pthread_barrier_t start, end;
};

typedef struct timing {
    size_t calls;
    int images;                        /* per call */
    double median_us, min_us, seconds; /* microseconds per image; all calls together */
} timing;

/* ---- Images ---- */

static void fill_random(team *crew)
{
    ptq_rng rng;

    ptq_rng_seed(&rng, 42, 0);
    for (size_t i = 0; i < crew->count * crew->image_bytes; i++)
        crew->pixels[i] = (uint8_t)(ptq_rng_next(&rng) >> 24);
}

static int fill_from(team *crew, const ptq_dataset *data)
{
    ptq_error err;
    int label;

    for (size_t i = 0; i < crew->count; i++)
        if (data->get(data->user, i % data->count, crew->pixels + i * crew->image_bytes, &label,
                      &err))
            return fail("%s", err.text);
    return 0;
}

/* At least a batch; images repeat where there are fewer. */
static int allocate_images(team *crew, size_t available)
{
    size_t wanted = all_images || available < FEW_IMAGES ? available : FEW_IMAGES;

    crew->count = wanted < (size_t)batch ? (size_t)batch : wanted;
    crew->pixels = malloc(crew->count * crew->image_bytes);
    return crew->pixels ? 0 : fail("no memory for %zu images", crew->count);
}

static int load_images(team *crew)
{
    char path[PATH_SIZE];
    ptq_cifar10 *data = NULL;
    ptq_dataset set;
    ptq_error err;
    int status;

    crew->random = !data_option && look_for_data(NULL, path);
    if (crew->random) {
        if (allocate_images(crew, FEW_IMAGES))
            return 1;
        fill_random(crew);
        return 0;
    }
    if (find_data(data_option, path))
        return 1;
    if (ptq_cifar10_open(path, PTQ_TEST_SET, NULL, &data, &err))
        return fail("%s", err.text);
    set = ptq_cifar10_dataset(data);
    if ((size_t)set.height * (size_t)set.width * (size_t)set.channels != crew->image_bytes)
        status = fail("the model's images are not of CIFAR-10's size; bench it without data");
    else
        status = allocate_images(crew, set.count) || fill_from(crew, &set);
    ptq_cifar10_free(data);
    return status;
}

/* ---- Running ---- */

static void run_share(worker *self)
{
    team *crew = self->crew;
    int index = (int)(self - crew->member);
    size_t from = (size_t)crew->call_images * (size_t)index / (size_t)crew->members;
    size_t to = (size_t)crew->call_images * (size_t)(index + 1) / (size_t)crew->members;
    const uint8_t *pixels = crew->pixels + (crew->first + from) * crew->image_bytes;

    if (to > from && !self->status)
        self->status = ptq_run(self->session, pixels, to - from,
                               crew->logits + from * (size_t)crew->classes, NULL, NULL);
}

static void *follow(void *argument)
{
    worker *self = argument;

    for (;;) {
        pthread_barrier_wait(&self->crew->start);
        if (self->crew->stop)
            return NULL;
        run_share(self);
        pthread_barrier_wait(&self->crew->end);
    }
}

/* Runs the next images, the first ones again after the last. */
static void call(team *crew)
{
    if (crew->first + (size_t)crew->call_images > crew->count)
        crew->first = 0;
    if (crew->members > 1)
        pthread_barrier_wait(&crew->start);
    run_share(&crew->member[0]);
    if (crew->members > 1)
        pthread_barrier_wait(&crew->end);
    crew->first += (size_t)crew->call_images;
}

static int assemble(team *crew, const ptq_plan *plan, int members)
{
    ptq_error err;

    for (int i = 0; i < members; i++) {
        crew->member[i].crew = crew;
        if (ptq_session_create(plan, NULL, &crew->member[i].session, &err))
            return fail("%s", err.text);
    }
    pthread_barrier_init(&crew->start, NULL, (unsigned)members);
    pthread_barrier_init(&crew->end, NULL, (unsigned)members);
    for (int i = 1; i < members; i++)
        if (pthread_create(&crew->member[i].thread, NULL, follow, &crew->member[i])) {
            fail("cannot start %d threads", members);
            exit(1); /* those already started wait at the barrier for good */
        }
    crew->members = members;
    return 0;
}

static void dismiss(team *crew)
{
    if (crew->members > 1) {
        crew->stop = 1;
        pthread_barrier_wait(&crew->start);
        for (int i = 1; i < crew->members; i++)
            pthread_join(crew->member[i].thread, NULL);
    }
    for (int i = 0; i < MOST_THREADS; i++)
        ptq_session_free(crew->member[i].session);
    if (crew->members > 0) {
        pthread_barrier_destroy(&crew->start);
        pthread_barrier_destroy(&crew->end);
    }
    free(crew->pixels);
    free(crew->logits);
}

/* ---- Timing ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void warm_up(team *crew)
{
    double start = seconds_now();

    do
        call(crew);
    while (seconds_now() - start < WARM_UP_SECONDS);
}

/* Calls until the time is over and 15 were made, or once through all images. */
static size_t record_calls(team *crew, double *sample)
{
    size_t pass = crew->count / (size_t)crew->call_images, calls = 0;
    double begin = seconds_now(), now = begin;
    progress state = progress_start("bench");

    crew->first = 0;
    while (calls < MOST_CALLS &&
           (all_images ? calls < pass : calls < 15 || now - begin < seconds)) {
        double start = seconds_now();

        call(crew);
        now = seconds_now();
        sample[calls++] = now - start;
        if (all_images)
            progress_show(&state, calls, pass);
    }
    progress_end(&state);
    return calls;
}

static int measure(team *crew, int images, timing *out)
{
    double *sample = malloc(MOST_CALLS * sizeof *sample);
    double scale = 1e6 / images;

    if (!sample)
        return fail("no memory for the samples");
    crew->call_images = images;
    warm_up(crew);
    out->images = images;
    out->calls = record_calls(crew, sample);
    out->seconds = 0;
    for (size_t i = 0; i < out->calls; i++)
        out->seconds += sample[i];
    qsort(sample, out->calls, sizeof *sample, compare_doubles);
    out->median_us = sample[out->calls / 2] * scale;
    out->min_us = sample[0] * scale;
    free(sample);
    for (int i = 0; i < crew->members; i++)
        if (crew->member[i].status)
            return fail("running failed: %s", ptq_status_text(crew->member[i].status));
    return 0;
}

/* FNV-1a over the logits' bits, of the first images, one at a time. */
static uint64_t checksum(team *crew, size_t images)
{
    uint64_t hash = 14695981039346656037u;

    crew->call_images = 1;
    crew->first = 0;
    for (size_t i = 0; i < images; i++) {
        call(crew);
        for (int c = 0; c < crew->classes; c++) {
            uint32_t word;

            memcpy(&word, &crew->logits[c], 4);
            for (int k = 0; k < 32; k += 8)
                hash = (hash ^ (word >> k & 255)) * 1099511628211u;
        }
    }
    return hash;
}

/* ---- Report ---- */

typedef struct report {
    char model_path[PATH_SIZE], machine[128], precision[16];
    const char *isa;
    timing single, batched;
    uint64_t sum;
    size_t sum_images;
} report;

static void find_machine(char *name, size_t size)
{
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

static void find_precision(const ptq_model *model, char *text, size_t size)
{
    const ptq_node *node = &model->node[ptq_model_logits(model)];

    snprintf(text, size, "%s",
             node->param[PTQ_WEIGHT].rank ? ptq_type_name(node->param[PTQ_WEIGHT].type) : "F32");
    for (; *text; text++)
        *text = (char)(*text >= 'A' && *text <= 'Z' ? *text - 'A' + 'a' : *text);
}

static double images_per_second(const timing *took)
{
    return (double)took->calls * took->images / took->seconds;
}

static void print_timing(const timing *took)
{
    say("batch %-4d  median %.1f us, min %.1f us per image; %.0f images/s over %zu images\n",
        took->images, took->median_us, took->min_us, images_per_second(took),
        took->calls * (size_t)took->images);
}

static void print_line(const report *made, const timing *took)
{
    say("RESULT ptq_%s_%s thr=%d batch=%d n=%zu median_us=%.2f min_us=%.2f\n", made->precision,
        made->isa, threads, took->images, took->calls, took->median_us, took->min_us);
}

static void print_report(const report *made, const team *crew)
{
    if (lines) {
        print_line(made, &made->batched);
        return;
    }
    say("machine     %s\nmodel       %s (%s, %s), %d thread%s\nimages      %zu%s\n", made->machine,
        made->model_path, made->precision, made->isa, threads, threads > 1 ? "s" : "", crew->count,
        crew->random ? " of random pixels" : "");
    print_timing(&made->single);
    if (batch > 1)
        print_timing(&made->batched);
    say("checksum    %016llx (logits of %zu images)\n", (unsigned long long)made->sum,
        made->sum_images);
}

#ifdef PTQ_HAVE_jansson

static json_t *timing_json(const timing *took)
{
    return json_pack("{s:i,s:I,s:f,s:f,s:f}", "batch", took->images, "calls",
                     (json_int_t)took->calls, "median_us", took->median_us, "min_us", took->min_us,
                     "images_per_second", images_per_second(took));
}

static int write_json(const report *made)
{
    json_t *root = json_object();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "machine", json_string(made->machine));
    json_object_set_new(root, "model_path", json_string(made->model_path));
    json_object_set_new(root, "precision", json_string(made->precision));
    json_object_set_new(root, "isa", json_string(made->isa));
    json_object_set_new(root, "threads", json_integer(threads));
    json_object_set_new(root, "single", timing_json(&made->single));
    json_object_set_new(root, "batched", timing_json(&made->batched));
    json_object_set_new(root, "checksum", json_sprintf("%016llx", (unsigned long long)made->sum));
    json_object_set_new(root, "checksum_images", json_integer((json_int_t)made->sum_images));
    return json_finish(root);
}

#else

static int write_json(const report *made)
{
    (void)made;
    return 1;
}

#endif

static int bench(const engine *ready, team *crew, report *made)
{
    crew->image_bytes = ptq_plan_pixels(ready->plan);
    crew->classes = ptq_plan_classes(ready->plan);
    crew->logits = malloc((size_t)batch * (size_t)crew->classes * sizeof(float));
    if (!crew->logits)
        return fail("no memory for %d images", batch);
    if (load_images(crew) || assemble(crew, ready->plan, threads))
        return 1;
    if (measure(crew, batch, &made->batched))
        return 1;
    made->single = made->batched;
    if (batch > 1 && !lines && measure(crew, 1, &made->single))
        return 1;
    made->sum_images = crew->count < CHECKSUM_IMAGES ? crew->count : CHECKSUM_IMAGES;
    made->sum = checksum(crew, made->sum_images);
    made->isa = ptq_isa_name(ptq_plan_isa(ready->plan));
    find_machine(made->machine, sizeof made->machine);
    find_precision(ready->model, made->precision, sizeof made->precision);
    print_report(made, crew);
    return json_option ? write_json(made) : 0;
}

int command_bench(int argc, char **argv)
{
    int parsed = parse_options(argc, argv, specs, &help, NULL, 0);
    report made = {0};
    engine ready;
    team *crew;
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (threads > MOST_THREADS || threads > batch)
        return fail("%d threads share a call: --batch must be at least that, and --threads at most "
                    "%d",
                    threads, MOST_THREADS);
    if (json_setup(json_option) || find_model(model_option, made.model_path) ||
        engine_open(made.model_path, 1, isa_option, &ready))
        return 1;
    crew = calloc(1, sizeof *crew);
    status = crew ? bench(&ready, crew, &made) : fail("no memory");
    if (crew)
        dismiss(crew);
    free(crew);
    engine_close(&ready);
    return status;
}
