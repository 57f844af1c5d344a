/* ptq bench: time per image, at batch 1 and at a larger batch, on one thread or several.

   A call runs one batch, its images shared out among the threads. What is timed is the call on
   images already in memory; loading, planning and warm-up are outside. The checksum of the logits
   tells two builds that compute the same from two that do not. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "data/find.h"
#include "measure/table.h"
#include "measure/team.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/progress.h"

#define WARM_UP_SECONDS 0.3
#define FEW_IMAGES 200
#define CHECKSUM_IMAGES 16
#define MOST_CALLS 1000000
#define TABLE_BATCH 100
#define TABLE_SECONDS 40

typedef struct bench_options {
    data_options data;
    const char *model, *quantized, *isa, *json, *show;
    int batch, threads, seconds, all_images, lines, table;
} bench_options;

static const command_help help = {
    "bench [--model MODEL] [OPTIONS]",
    "Measures microseconds per image and images per second. A float model is fused first. Without\n"
    "CIFAR-10 the images are random numbers, which take just as long.",
    "ptq bench --model resnet8.safetensors --batch 16 --threads 2"};

static int parse(int argc, char **argv, bench_options *o) {
    const option_spec specs[] = {
        {"model", 'm', "MODEL", "model file (.safetensors)", .text = &o->model, .file = READ_FILE},
        DATA_OPTIONS(&o->data),
        {"batch", 'b', "N", "images in a call (default 1; with --table 100)", .number = &o->batch,
         .least = 1},
        {"threads", 't', "T", "threads that share a call (default 1)", .number = &o->threads,
         .least = 1},
        {"isa", 0, "NAME", "instruction set (default: $PTQ_ISA, else the best)", .text = &o->isa},
        {"all", 0, NULL, "one pass over all test images, however long it takes",
         .flag = &o->all_images},
        {"seconds", 's', "S", "how long to measure (default 2; with --table 40)",
         .number = &o->seconds, .least = 1},
        OPTION_JSON(o->json),
        {"table", 0, NULL, "everything that this machine can run, layer by layer as well",
         .flag = &o->table},
        {"quantized", 'q', "MODEL",
         "--table: the integer model (default: made for its speed alone)", .text = &o->quantized,
         .file = READ_FILE},
        OPTION_SHOW(o->show, "checksum, for which nothing is timed"),
        {"lines", 0, NULL, "print RESULT lines, to compare with other programs", .flag = &o->lines},
        {0}};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

typedef struct timing {
    size_t calls;
    int images;                        /* per call */
    double median_us, min_us, seconds; /* microseconds per image; all calls together */
} timing;

/* ---- Timing ---- */

static void warm_up(team *crew) {
    double start = seconds_now();

    do
        team_call(crew);
    while (seconds_now() - start < WARM_UP_SECONDS);
}

/* Once through all images, which are read between the calls: they may be more than memory holds.
   The result is the number of calls; 0 after an error. */
static size_t record_pass(team *crew, double *sample) {
    size_t batch = (size_t)crew->call_images, pass = crew->images->all / batch, calls = 0;
    progress state = progress_start("bench");
    int bad = 0;

    pass = pass < 1 ? 1 : pass < MOST_CALLS ? pass : MOST_CALLS;
    while (calls < pass && !bad) {
        double start;

        crew->first = 0;
        bad = crew->images->source && images_load(crew->images, calls * batch, batch);
        start = seconds_now();
        team_call(crew);
        sample[calls++] = seconds_now() - start;
        progress_show(&state, calls, pass);
    }
    progress_end(&state);
    return bad || (crew->images->source && images_load(crew->images, 0, crew->images->count))
               ? 0
               : calls;
}

/* Calls until the time is over and 15 were made. */
static size_t record_calls(const bench_options *o, team *crew, double *sample) {
    size_t calls = 0;
    double begin = seconds_now(), now = begin;

    crew->first = 0;
    while (calls < MOST_CALLS && (calls < 15 || now - begin < o->seconds)) {
        double start = seconds_now();

        team_call(crew);
        now = seconds_now();
        sample[calls++] = now - start;
    }
    return calls;
}

static int measure(const bench_options *o, team *crew, int images, timing *out) {
    double *sample = malloc(MOST_CALLS * sizeof *sample);
    double scale = 1e6 / images;

    if (!sample)
        return fail("no memory for the samples");
    crew->call_images = images;
    warm_up(crew);
    out->images = images;
    out->calls = o->all_images ? record_pass(crew, sample) : record_calls(o, crew, sample);
    if (!out->calls) {
        free(sample);
        return 1;
    }
    out->seconds = 0;
    for (size_t i = 0; i < out->calls; i++)
        out->seconds += sample[i];
    out->median_us = median_of(sample, out->calls) * scale;
    out->min_us = sample[0] * scale;
    free(sample);
    return team_check(crew);
}

/* ---- Report ---- */

typedef struct report {
    const bench_options *given;
    char model_path[PATH_SIZE], machine[128], precision[32];
    const char *isa;
    timing single, batched;
    uint64_t sum;
    size_t sum_images;
} report;

static double images_per_second(const timing *took) {
    return (double)took->calls * took->images / took->seconds;
}

static void print_timing(const timing *took) {
    char rate[COUNT_SIZE], all[COUNT_SIZE];

    say("batch %-4d  median %.1f us, min %.1f us an image; %s images/s (%s run)\n", took->images,
        took->median_us, took->min_us, count_text((uint64_t)images_per_second(took), rate),
        count_text(took->calls * (uint64_t)took->images, all));
}

/* The name must be one word. */
static void print_line(const report *made, const timing *took) {
    char precision[sizeof made->precision];

    snprintf(precision, sizeof precision, "%s", made->precision);
    for (char *c = precision; *c; c++)
        *c = (char)(*c == ' ' ? '_' : *c);
    say("RESULT ptq_%s_%s thr=%d batch=%d n=%zu median_us=%.2f min_us=%.2f\n", precision, made->isa,
        made->given->threads, took->images, took->calls, took->median_us, took->min_us);
}

static void print_report(const report *made, const team *crew) {
    if (made->given->lines) {
        print_line(made, &made->batched);
        return;
    }
    say("machine     %s\nmodel       %s (%s, %s), %d thread%s\nimages      %zu%s\n", made->machine,
        made->model_path, made->precision, made->isa, made->given->threads,
        made->given->threads > 1 ? "s" : "",
        made->given->all_images ? crew->images->all : crew->images->count,
        !crew->images->random ? ""
        : crew->images->real  ? " of random numbers"
                              : " of random pixels");
    print_timing(&made->single);
    if (made->given->batch > 1)
        print_timing(&made->batched);
    say("checksum    %016llx (logits of %zu images)\n", (unsigned long long)made->sum,
        made->sum_images);
}

#ifdef PTQ_HAVE_jansson

static json_t *timing_json(const timing *took) {
    return json_pack("{s:i,s:I,s:f,s:f,s:f}", "batch", took->images, "calls",
                     (json_int_t)took->calls, "median_us", took->median_us, "min_us", took->min_us,
                     "images_per_second", images_per_second(took));
}

static int write_json(const report *made) {
    json_t *root = json_object();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "machine", json_string(made->machine));
    json_object_set_new(root, "model_path", json_string(made->model_path));
    json_object_set_new(root, "precision", json_string(made->precision));
    json_object_set_new(root, "isa", json_string(made->isa));
    json_object_set_new(root, "threads", json_integer(made->given->threads));
    json_object_set_new(root, "single", timing_json(&made->single));
    json_object_set_new(root, "batched", timing_json(&made->batched));
    json_object_set_new(root, "checksum", json_sprintf("%016llx", (unsigned long long)made->sum));
    json_object_set_new(root, "checksum_images", json_integer((json_int_t)made->sum_images));
    return json_finish(root);
}

#else

static int write_json(const report *made) {
    (void)made;
    return 1;
}

#endif

static int bench(const engine *ready, team *crew, report *made) {
    made->sum_images =
        crew->images->count < CHECKSUM_IMAGES ? crew->images->count : CHECKSUM_IMAGES;
    made->isa = ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(ready->plan)->isa);
    if (made->given->show) {
        say("checksum %016llx of the logits of %zu images\n",
            (unsigned long long)team_checksum(crew, made->sum_images, 1), made->sum_images);
        return team_check(crew);
    }
    if (measure(made->given, crew, made->given->batch, &made->batched))
        return 1;
    made->single = made->batched;
    if (made->given->batch > 1 && !made->given->lines &&
        measure(made->given, crew, 1, &made->single))
        return 1;
    made->sum = team_checksum(crew, made->sum_images, 1);
    find_machine(made->machine, sizeof made->machine);
    describe_precision(ready->model, made->precision, sizeof made->precision);
    print_report(made, crew);
    return made->given->json ? write_json(made) : 0;
}

static int bench_one(report *made) {
    image_store images = {0};
    team crew = {0};
    engine ready;
    int status;

    if (find_model(made->given->model, made->model_path) ||
        engine_open(made->model_path, 1, made->given->isa, &ready))
        return 1;
    status = images_open(&made->given->data, ready.plan, (size_t)made->given->batch, FEW_IMAGES,
                         made->given->all_images, &images) ||
             team_create(ready.plan, &images, made->given->threads, made->given->batch, &crew) ||
             bench(&ready, &crew, made);
    team_free(&crew);
    images_close(&images);
    engine_close(&ready);
    return status;
}

static int bench_all(const bench_options *o) {
    table_options options = {0};

    if (o->threads != 1 || o->isa || o->all_images || o->lines)
        return misuse("--table measures every instruction set on one and two threads; leave out "
                      "--threads, --isa, --all and --lines");
    options.model = o->model;
    options.quantized = o->quantized;
    options.data = &o->data;
    options.batch = o->batch ? o->batch : TABLE_BATCH;
    options.seconds = o->seconds ? o->seconds : TABLE_SECONDS;
    options.json = o->json != NULL;
    return bench_table(&options);
}

int command_bench(int argc, char **argv) {
    static const char *const parts[] = {"checksum", NULL};
    bench_options o = {.threads = 1};
    int parsed = parse(argc, argv, &o);
    report made = {.given = &o};

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (check_part(o.show, parts) || json_setup(o.json))
        return 1;
    if (o.table)
        return bench_all(&o);
    if (o.quantized)
        return misuse("--quantized names the second model of --table; give one model with --model");
    o.batch = o.batch ? o.batch : 1;
    o.seconds = o.seconds ? o.seconds : 2;
    if (o.threads > MOST_THREADS || o.threads > o.batch)
        return misuse(
            "%d threads share a call: --batch must be at least that, and --threads at most "
            "%d",
            o.threads, MOST_THREADS);
    return bench_one(&made);
}
