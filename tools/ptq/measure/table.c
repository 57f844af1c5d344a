/* ptq bench --table: both models under every instruction set that this machine can run.

   Processors and their neighbours change speed from second to second. So all configurations take
   turns, round after round, and what is compared (share of the peak, speed-up by a second thread)
   is the median of ratios within one turn, not a ratio of figures taken at different times. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/find.h"
#include "measure/peak.h"
#include "measure/table.h"
#include "measure/team.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/output.h"
#include "shared/progress.h"

enum { MOST_ROUNDS = 64, LEAST_ROUNDS = 3, PLANNED_ROUNDS = 10, MOST_SAMPLES = 4096 };
enum { LAYER_RUNS = 200, LOADS = 21, PROBE_IMAGES = 32 };

/* One quantity over the rounds. */
typedef struct series {
    double median[MOST_ROUNDS]; /* of each round */
    double min;
    int rounds;
} series;

enum { SINGLE, BATCH, BATCH_PAIR, FIGURES };

/* A model that is measured. */
typedef struct subject {
    ptq_model *model; /* fused */
    char path[PATH_SIZE], precision[32];
    void *bytes; /* the file, where there is no path */
    size_t size;
    int integer;
    uint64_t macs;
} subject;

/* One model under one instruction set. */
typedef struct entry {
    const subject *from;
    ptq_plan *plan;
    ptq_session *watched;
    const peak_unit *unit; /* NULL: none known */
    team one, pair;
    series peak, time[FIGURES]; /* GMAC/s; microseconds per image */
    series *layer;              /* microseconds; 0 is the input's */
    uint64_t sum[FIGURES];
    double load_us;
} entry;

typedef struct table {
    const table_options *options;
    subject subject[2];
    image_store images;
    entry *entry;
    int entries, rounds, random_model, own_quantized;
    char machine[128];
    double load_before, load_after, clock_us, sample[MOST_SAMPLES];
    double stamp[PTQ_MAX_NODES + 1]; /* of one watched run */
} table;

static const char *const figure_names[] = {"single", "batch", "batch_two_threads"};

/* ---- Models ---- */

static int is_weighted(const ptq_node *node) {
    return node->op == PTQ_OP_CONV2D || node->op == PTQ_OP_DENSE;
}

/* MLPerf's ResNet8 with weights from a fixed seed: as fast as a trained one, and good for nothing
   else. */
static int random_resnet8(ptq_model **out) {
    ptq_error err;
    ptq_rng rng;

    if (ptq_resnet8(32, 16, 10, NULL, out, &err))
        return fail("%s", err.text);
    ptq_rng_seed(&rng, 42, 0);
    for (int i = 0; i < (*out)->nodes; i++) {
        ptq_tensor *weight = &(*out)->node[i].param[PTQ_PARAM_WEIGHT];
        size_t n = ptq_tensor_elements(weight);

        if (!is_weighted(&(*out)->node[i]))
            continue;
        for (size_t k = 0; k < n; k++)
            ((float *)weight->data)[k] =
                (ptq_rng_float(&rng) - 0.5f) * 3.4f / sqrtf((float)(n / (size_t)weight->dim[0]));
    }
    return 0;
}

static ptq_status random_image(void *user, size_t index, void *item, int *label, ptq_error *err) {
    uint8_t *pixels = item;
    const int *shape = user;
    ptq_rng rng;

    (void)err;
    ptq_rng_seed(&rng, 42, index);
    for (int i = 0; i < shape[0] * shape[1] * shape[2]; i++)
        pixels[i] = (uint8_t)(ptq_rng_next(&rng) >> 24);
    *label = 0;
    return PTQ_OK;
}

/* An integer model to time: calibrated on noise, so that it needs no data and gives no accuracy. */
static int quantize_for_speed(const ptq_model *model, ptq_model **out) {
    ptq_calibrate_options calibrate = {0};
    ptq_convert_options convert = {0};
    ptq_calibration *calibration = NULL;
    ptq_dataset noise = {0};
    ptq_plan *plan = NULL;
    ptq_error err;
    int status;

    noise.count = PROBE_IMAGES;
    noise.height = model->node[0].shape[0];
    noise.width = model->node[0].shape[1];
    noise.channels = model->node[0].shape[2];
    noise.type = PTQ_TYPE_U8;
    noise.get = random_image;
    noise.user = (void *)(uintptr_t)model->node[0].shape;
    calibrate.accept_any = 1;
    status = ptq_plan_create(model, NULL, &plan, &err) != PTQ_OK;
    noise.classes = status ? 1 : ptq_plan_get_info(plan)->classes;
    status = status || ptq_calibrate(plan, &noise, &calibrate, &calibration, &err) ||
             ptq_preset("tflite", &convert.scheme, &err) ||
             ptq_convert(model, calibration, &convert, out, NULL, &err);
    ptq_calibration_free(calibration);
    ptq_plan_free(plan);
    return status ? fail("%s", err.text) : 0;
}

static int describe_subject(subject *made) {
    ptq_error err;

    made->integer = 1;
    for (int i = 0; i < made->model->nodes; i++) {
        made->macs += ptq_node_cost(made->model, i).macs;
        if (is_weighted(&made->model->node[i]))
            made->integer &= ptq_node_mode(made->model, i) == PTQ_MODE_INTEGER;
    }
    describe_precision(made->model, made->precision, sizeof made->precision);
    if (!*made->path && ptq_model_write(made->model, &made->bytes, &made->size, &err))
        return fail("%s", err.text);
    return 0;
}

static int fuse_into(ptq_model *model, subject *out) {
    ptq_error err;
    ptq_status status = ptq_fuse(model, &out->model, NULL, &err);

    ptq_model_free(model);
    return status ? fail("%s", err.text) : describe_subject(out);
}

static int load_subject(const char *path, subject *out) {
    ptq_model *model;
    ptq_error err;

    if (ptq_model_load(path, NULL, &model, &err))
        return fail("%s", err.text);
    return fuse_into(model, out);
}

static int open_subjects(table *made) {
    const table_options *options = made->options;
    subject *first = &made->subject[0], *second = &made->subject[1];
    ptq_model *model;

    made->random_model = look_for_model(options->model, first->path);
    if (made->random_model && (options->model || getenv("PTQ_MODEL")))
        return find_model(options->model, first->path);
    if (made->random_model) {
        *first->path = 0;
        if (random_resnet8(&model) || fuse_into(model, first))
            return 1;
    } else if (load_subject(first->path, first)) {
        return 1;
    }
    made->own_quantized = !options->quantized;
    if (!made->own_quantized)
        return find_model(options->quantized, second->path) || load_subject(second->path, second);
    if (first->integer)
        return fail("%s is quantized already; give the float model with --model and this one with "
                    "--quantized",
                    first->path);
    return quantize_for_speed(first->model, &second->model) || describe_subject(second);
}

/* ---- Configurations ---- */

static void stamp_node(void *user, int node) { ((table *)user)->stamp[node + 1] = seconds_now(); }

static int open_entry(table *made, const subject *from, ptq_isa isa) {
    entry *e = &made->entry[made->entries];
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_session_options watching;
    ptq_error err;

    memset(&watching, 0, sizeof watching);
    watching.after_node = stamp_node;
    watching.user = made;
    made->entries++;
    options.isa = isa;
    e->from = from;
    e->unit = peak_find(isa, from->integer);
    e->layer = calloc((size_t)from->model->nodes, sizeof *e->layer);
    if (!e->layer)
        return fail("no memory for the layers");
    if (ptq_plan_create(from->model, &options, &e->plan, &err) ||
        ptq_session_create(e->plan, &watching, &e->watched, &err))
        return fail("%s", err.text);
    if (!made->images.pixels &&
        images_open(made->options->data, e->plan, (size_t)made->options->batch,
                    (size_t)made->options->batch, 0, &made->images))
        return 1;
    if (ptq_plan_get_info(e->plan)->pixels * (made->images.real ? sizeof(float) : 1) !=
        made->images.image_bytes)
        return fail("the two models take images of different sizes");
    return team_create(e->plan, &made->images, 1, made->options->batch, &e->one) ||
           team_create(e->plan, &made->images, 2, made->options->batch, &e->pair);
}

static int open_entries(table *made) {
    ptq_isa only;

    if (choose_isa(NULL, &only))
        return 1;
    made->entry = calloc(2 * PTQ_ISA_COUNT, sizeof *made->entry);
    if (!made->entry)
        return fail("no memory for the table");
    for (int k = 0; k < 2; k++)
        for (int isa = 0; isa < PTQ_ISA_COUNT; isa++) {
            int wanted = only == PTQ_ISA_AUTO
                             ? ptq_isa_support((ptq_isa)isa) == PTQ_SUPPORT_AVAILABLE
                             : isa == (int)only;

            if (isa != PTQ_ISA_AUTO && wanted && open_entry(made, &made->subject[k], (ptq_isa)isa))
                return 1;
        }
    return 0;
}

static void close_table(table *made) {
    for (int i = 0; i < made->entries; i++) {
        team_free(&made->entry[i].one);
        team_free(&made->entry[i].pair);
        ptq_session_free(made->entry[i].watched);
        ptq_plan_free(made->entry[i].plan);
        free(made->entry[i].layer);
    }
    free(made->entry);
    images_close(&made->images);
    for (int k = 0; k < 2; k++) {
        ptq_bytes_free(made->subject[k].bytes, NULL);
        ptq_model_free(made->subject[k].model);
    }
    free(made);
}

/* ---- Measuring ---- */

static void record(series *to, double median, double min) {
    if (!to->rounds || min < to->min)
        to->min = min;
    to->median[to->rounds++] = median;
}

static void time_calls(table *made, team *crew, int images, double seconds, series *to) {
    double begin = seconds_now(), now, scale = 1e6 / images, min = 0;
    size_t n = 0;

    crew->call_images = images;
    do {
        double start = seconds_now(), took;

        team_call(crew);
        now = seconds_now();
        took = (now - start) * scale - made->clock_us / images;
        min = n == 0 || took < min ? took : min;
        made->sample[n++] = took;
    } while (n < MOST_SAMPLES && now - begin < seconds);
    record(to, median_of(made->sample, n), min);
}

/* Every node's own time, with the clock's taken off; the input's begins with the call. */
static int time_layers(table *made, entry *e, double seconds) {
    int nodes = ptq_model_logits(e->from->model) + 1, runs = 0;
    double *took = malloc((size_t)nodes * LAYER_RUNS * sizeof *took), begin = seconds_now();
    ptq_error err;

    if (!took)
        return fail("no memory for the layers");
    do {
        made->stamp[0] = seconds_now();
        if (images_run(&made->images, e->watched, made->images.pixels, 1, NULL, &err)) {
            free(took);
            return fail("%s", err.text);
        }
        for (int i = 0; i < nodes; i++)
            took[i * LAYER_RUNS + runs] =
                (made->stamp[i + 1] - made->stamp[i]) * 1e6 - made->clock_us;
        runs++;
    } while (runs < LAYER_RUNS && seconds_now() - begin < seconds);
    for (int i = 0; i < nodes; i++) {
        double median = median_of(took + i * LAYER_RUNS, (size_t)runs);

        record(&e->layer[i], median, took[i * LAYER_RUNS]);
    }
    free(took);
    return 0;
}

/* From the file, or its bytes, to a session that could run. */
static int time_load(table *made, entry *e) {
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_error err;
    double took[LOADS];

    options.isa = ptq_plan_get_info(e->plan)->isa;
    for (int i = 0; i < LOADS; i++) {
        ptq_model *model = NULL, *fused = NULL;
        ptq_plan *plan = NULL;
        ptq_session *session = NULL;
        double start = seconds_now();
        int status;

        if (*e->from->path)
            status = ptq_model_load(e->from->path, NULL, &model, &err) != PTQ_OK;
        else
            status = ptq_model_parse(e->from->bytes, e->from->size, NULL, &model, &err) != PTQ_OK;
        if (!status && !e->from->integer)
            status = ptq_fuse(model, &fused, NULL, &err) != PTQ_OK;
        status = status || ptq_plan_create(fused ? fused : model, &options, &plan, &err) ||
                 ptq_session_create(plan, NULL, &session, &err);
        took[i] = (seconds_now() - start) * 1e6 - made->clock_us;
        ptq_session_free(session);
        ptq_plan_free(plan);
        ptq_model_free(fused);
        ptq_model_free(model);
        if (status)
            return fail("%s", err.text);
    }
    e->load_us = median_of(took, LOADS);
    return 0;
}

static int take_turn(table *made, entry *e, double slot) {
    if (e->unit) {
        double rate = peak_measure(e->unit, slot / 8);

        record(&e->peak, rate, 1 / rate);
    }
    time_calls(made, &e->one, 1, slot, &e->time[SINGLE]);
    time_calls(made, &e->one, made->options->batch, slot, &e->time[BATCH]);
    time_calls(made, &e->pair, made->options->batch, slot, &e->time[BATCH_PAIR]);
    return time_layers(made, e, slot) || team_check(&e->one) || team_check(&e->pair);
}

/* What two looks at the clock cost. */
static double time_clock(table *made) {
    for (int i = 0; i < MOST_SAMPLES; i++) {
        double start = seconds_now();

        made->sample[i] = (seconds_now() - start) * 1e6;
    }
    return median_of(made->sample, MOST_SAMPLES);
}

static double load_average(void) {
    FILE *file = fopen("/proc/loadavg", "r");
    double load = -1;

    if (file && fscanf(file, "%lf", &load) != 1)
        load = -1;
    if (file)
        fclose(file);
    return load;
}

static int measure_all(table *made) {
    int batch = made->options->batch;
    double start, slot = (double)made->options->seconds / (PLANNED_ROUNDS * 4 * made->entries);
    progress state = progress_start("bench");

    made->load_before = load_average();
    made->clock_us = time_clock(made);
    for (int i = 0; i < made->entries; i++) { /* warms up, too */
        entry *e = &made->entry[i];

        e->sum[SINGLE] = team_checksum(&e->one, (size_t)batch, 1);
        e->sum[BATCH] = team_checksum(&e->one, (size_t)batch, batch);
        e->sum[BATCH_PAIR] = team_checksum(&e->pair, (size_t)batch, batch);
        if (time_load(made, e))
            return 1;
    }
    start = seconds_now();
    for (; made->rounds < MOST_ROUNDS &&
           (made->rounds < LEAST_ROUNDS || seconds_now() - start < made->options->seconds);
         made->rounds++)
        for (int i = 0; i < made->entries; i++) {
            if (take_turn(made, &made->entry[i], slot))
                return 1;
            progress_show(&state, (size_t)(made->rounds * made->entries + i + 1),
                          (size_t)(PLANNED_ROUNDS * made->entries));
        }
    progress_end(&state);
    made->load_after = load_average();
    return 0;
}

/* ---- What the figures say ---- */

static double overall(const series *from) {
    double copy[MOST_ROUNDS];

    memcpy(copy, from->median, sizeof copy);
    return median_of(copy, (size_t)from->rounds);
}

static double lowest(const series *from) {
    double found = from->median[0];

    for (int i = 1; i < from->rounds; i++)
        found = from->median[i] < found ? from->median[i] : found;
    return found;
}

/* Median over the rounds of a / b. */
static double ratio(const series *a, const series *b) {
    double value[MOST_ROUNDS];

    for (int i = 0; i < a->rounds; i++)
        value[i] = a->median[i] / b->median[i];
    return median_of(value, (size_t)a->rounds);
}

/* Share of the peak that `macs` per image are in the time of each round; 0 without a peak. */
static double share(const entry *e, uint64_t macs, const series *time) {
    double value[MOST_ROUNDS];

    if (!e->unit)
        return 0;
    for (int i = 0; i < time->rounds; i++)
        value[i] = (double)macs * 1e-3 / time->median[i] / e->peak.median[i];
    return median_of(value, (size_t)time->rounds);
}

static double gmacs(uint64_t macs, double us) { return us > 0 ? (double)macs * 1e-3 / us : 0; }

/* Every figure of a configuration has the same logits behind it, and every instruction set's
   integers are the same. */
static int sums_agree(const table *made, int k) {
    const entry *first = NULL;

    for (int i = 0; i < made->entries; i++) {
        const entry *e = &made->entry[i];

        if (e->from != &made->subject[k])
            continue;
        if (!first || !e->from->integer)
            first = e;
        for (int f = 0; f < FIGURES; f++)
            if (e->sum[f] != first->sum[SINGLE])
                return 0;
    }
    return 1;
}

static int check_sums(const table *made) {
    for (int k = 0; k < 2; k++)
        if (!sums_agree(made, k))
            return fail("the checksums of the %s model differ; see the table",
                        made->subject[k].precision);
    return 0;
}

/* ---- Text ---- */

static void print_head(const table *made) {
    say("machine    %s, %d core%s; load average %.2f before, %.2f after\n", made->machine,
        count_cores(), count_cores() > 1 ? "s" : "", made->load_before, made->load_after);
    for (int k = 0; k < 2; k++) {
        const subject *from = &made->subject[k];

        say_wrapped(11, "model      %s: %s, %.2f million multiply-adds", from->precision,
                    *from->path          ? from->path
                    : made->random_model ? "ResNet8 with random weights, for its speed alone"
                                         : "made here, calibrated on noise, for its speed alone",
                    (double)from->macs * 1e-6);
    }
    say("images     %zu%s; %d rounds, all configurations in turn; microseconds per image\n",
        made->images.count,
        !made->images.random ? ""
        : made->images.real  ? " of random numbers"
                             : " of random pixels",
        made->rounds);
}

static void print_peaks(const table *made) {
    say("\n%-32s %15s %9s\n", "what one core can do, GMAC/s", "median", "best");
    for (int i = 0; i < made->entries; i++) {
        const entry *e = &made->entry[i];
        int shown = !e->unit;

        for (int k = 0; k < i && !shown; k++)
            shown = made->entry[k].unit && strcmp(made->entry[k].unit->name, e->unit->name) == 0;
        if (!shown)
            say("%-32s %15.1f %9.1f\n", e->unit->name, overall(&e->peak), 1 / e->peak.min);
    }
}

static void print_share(double value) {
    if (value > 0)
        say(" %5.0f %%", 100 * value);
    else
        say(" %7s", "-");
}

static void print_figure(const table *made, const entry *e, int f) {
    const series *time = &e->time[f];

    char rate[COUNT_SIZE];

    say("%-8s %-10s %5d %3d %8.1f %8.1f %8.1f %9s", e->from->precision,
        ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(e->plan)->isa),
        f == SINGLE ? 1 : made->options->batch, f == BATCH_PAIR ? 2 : 1, overall(time),
        lowest(time), time->min, count_text((uint64_t)(1e6 / overall(time)), rate));
    if (f == BATCH_PAIR)
        say(" %7.2fx", ratio(&e->time[BATCH], time));
    else
        print_share(share(e, e->from->macs, time));
    say("\n");
}

/* Of the logits, at batch 1 on one thread; and of the other figures where theirs differ. */
static void print_sums(const table *made) {
    say("\n%-8s %-10s %10s  %s\n", "model", "kernels", "load us", "checksum of the logits");
    for (int i = 0; i < made->entries; i++) {
        const entry *e = &made->entry[i];

        for (int f = 0; f < FIGURES; f++)
            if (f == SINGLE || e->sum[f] != e->sum[SINGLE])
                say("%-8s %-10s %10.0f  %016llx\n", e->from->precision,
                    ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(e->plan)->isa), e->load_us,
                    (unsigned long long)e->sum[f]);
    }
}

static void print_figures(const table *made) {
    say("\n%-8s %-10s %5s %3s %8s %8s %8s %9s %8s\n", "model", "kernels", "batch", "thr", "median",
        "lowest", "min", "images/s", "of peak");
    for (int i = 0; i < made->entries; i++)
        for (int f = 0; f < FIGURES; f++)
            print_figure(made, &made->entry[i], f);
    say("\n");
    say_wrapped(0, "lowest: of the rounds' medians; two threads: speed-up over one instead of the "
                   "peak's share; of peak: as if each product were computed, which not all kernels "
                   "do for 3x3 convolutions; load us: from the file to a session that can run, "
                   "fusing included");
    print_sums(made);
}

static void print_layers(const entry *e) {
    const ptq_model *model = e->from->model;
    double sum = 0;

    say("\n%s, %s%s%s\n%-24s %8s %9s %9s %9s %8s\n", e->from->precision,
        ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(e->plan)->isa), e->unit ? ": share of " : "",
        e->unit ? e->unit->name : "", "node", "MMAC", "median us", "min us", "GMAC/s", "of peak");
    for (int i = 0; i <= ptq_model_logits(model); i++) {
        uint64_t macs = ptq_node_cost(model, i).macs;
        const series *time = &e->layer[i];
        double us = overall(time);

        sum += us;
        say("%-24s %8.3f %9.2f %9.2f", model->node[i].name, (double)macs * 1e-6, us, time->min);
        if (macs)
            say(" %9.1f", gmacs(macs, us)), print_share(share(e, macs, time));
        say("\n");
    }
    say("%-24s %8.3f %9.2f\n", "together", (double)e->from->macs * 1e-6, sum);
}

static void print_table(const table *made) {
    print_head(made);
    print_peaks(made);
    print_figures(made);
    for (int k = 0; k < 2; k++)
        if (sums_agree(made, k))
            say("%s: %s have the same checksum\n", made->subject[k].precision,
                made->subject[k].integer ? "all instruction sets, batches and threads"
                                         : "all batches and threads of an instruction set");
    for (int i = 0; i < made->entries; i++)
        print_layers(&made->entry[i]);
}

/* ---- JSON ---- */

#ifdef PTQ_HAVE_jansson

static json_t *series_json(const series *from) {
    return json_pack("{s:f,s:f,s:f}", "median_us", overall(from), "lowest_median_us", lowest(from),
                     "min_us", from->min);
}

static void set_share(json_t *object, double value) {
    json_object_set_new(object, "share_of_peak", value > 0 ? json_real(value) : json_null());
}

static json_t *figure_json(const entry *e, int f, int batch) {
    json_t *made = series_json(&e->time[f]);

    json_object_set_new(made, "batch", json_integer(f == SINGLE ? 1 : batch));
    json_object_set_new(made, "threads", json_integer(f == BATCH_PAIR ? 2 : 1));
    json_object_set_new(made, "checksum", json_sprintf("%016llx", (unsigned long long)e->sum[f]));
    if (f == BATCH_PAIR)
        json_object_set_new(made, "speed_up", json_real(ratio(&e->time[BATCH], &e->time[f])));
    else
        set_share(made, share(e, e->from->macs, &e->time[f]));
    return made;
}

static json_t *layers_json(const entry *e) {
    const ptq_model *model = e->from->model;
    json_t *list = json_array();

    for (int i = 0; i <= ptq_model_logits(model); i++) {
        uint64_t macs = ptq_node_cost(model, i).macs;
        json_t *made = series_json(&e->layer[i]);

        json_object_set_new(made, "node", json_string(model->node[i].name));
        json_set_count(made, "macs", macs);
        json_object_set_new(made, "gmac_per_second", json_real(gmacs(macs, overall(&e->layer[i]))));
        set_share(made, macs ? share(e, macs, &e->layer[i]) : 0);
        json_array_append_new(list, made);
    }
    return list;
}

static json_t *entry_json(const entry *e, int batch) {
    json_t *made = json_object();

    json_object_set_new(made, "precision", json_string(e->from->precision));
    json_object_set_new(made, "isa",
                        json_string(ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(e->plan)->isa)));
    if (e->unit)
        json_object_set_new(made, "peak",
                            json_pack("{s:s,s:f,s:f}", "unit", e->unit->name,
                                      "median_gmac_per_second", overall(&e->peak),
                                      "best_gmac_per_second", 1 / e->peak.min));
    json_object_set_new(made, "load_plan_session_us", json_real(e->load_us));
    for (int f = 0; f < FIGURES; f++)
        json_object_set_new(made, figure_names[f], figure_json(e, f, batch));
    json_object_set_new(made, "layers", layers_json(e));
    return made;
}

static int write_json(const table *made) {
    json_t *root = json_object(), *list = json_array(), *models = json_array();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "machine", json_string(made->machine));
    json_object_set_new(root, "cores", json_integer(count_cores()));
    json_object_set_new(root, "load_average",
                        json_pack("[f,f]", made->load_before, made->load_after));
    json_object_set_new(root, "rounds", json_integer(made->rounds));
    json_object_set_new(root, "random_pixels", json_boolean(made->images.random));
    json_object_set_new(root, "random_weights", json_boolean(made->random_model));
    json_object_set_new(root, "calibrated_on_noise", json_boolean(made->own_quantized));
    for (int k = 0; k < 2; k++)
        json_array_append_new(models,
                              json_pack("{s:s,s:s,s:b}", "precision", made->subject[k].precision,
                                        "model_path", made->subject[k].path, "checksums_agree",
                                        sums_agree(made, k)));
    json_object_set_new(root, "models", models);
    for (int i = 0; i < made->entries; i++)
        json_array_append_new(list, entry_json(&made->entry[i], made->options->batch));
    json_object_set_new(root, "results", list);
    return json_finish(root);
}

#else

static int write_json(const table *made) {
    (void)made, (void)figure_names;
    return 1;
}

#endif

int bench_table(const table_options *options) {
    table *made = calloc(1, sizeof *made);
    int status;

    if (!made)
        return fail("no memory for the table");
    made->options = options;
    find_machine(made->machine, sizeof made->machine);
    status = open_subjects(made) || open_entries(made) || measure_all(made);
    if (!status) {
        print_table(made);
        status = options->json ? write_json(made) : 0;
        status |= check_sums(made);
    }
    close_table(made);
    return status;
}
