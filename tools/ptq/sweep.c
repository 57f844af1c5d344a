/* ptq sweep: quantizes in every combination of choices and tabulates what each loses. Each model
   measured is a row of a CSV file, written at once; a sweep that was stopped goes on from there. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "data/calibration.h"
#include "data/dataset.h"
#include "data/find.h"
#include "data/images.h"
#include "measure/accuracy.h"
#include "measure/meaning.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/progress.h"

enum { MOST_CHOICES = 32, NAME = 16, ROW = 256 };

typedef struct sweep_options {
    data_options data;
    const char *model, *output, *json, *presets, *weights, *activations, *scales, *ranges, *samples,
        *seeds;
    int limit, threads, on_test;
} sweep_options;

static const command_help help = {
    "sweep [--model MODEL] [--data PATH] -o OUT.csv [OPTIONS]",
    "Calibrates, converts and measures a float model in every combination of the lists given.\n"
    "Choose from what it measures by default, on training images that were not calibrated on;\n"
    "--test is for reporting what was chosen. A sweep that was stopped goes on when started again.",
    "ptq sweep --weight-bits 8,6,5,4,3 --activation-bits 8,4 -o sweep.csv"};

static int parse(int argc, char **argv, sweep_options *o) {
    const option_spec specs[] = {
        OPTION_FLOAT_MODEL(o->model),
        DATA_OPTIONS(&o->data),
        {"output", 'o', "OUT.csv",
         "where to write the rows; rows that are there are not measured again", .text = &o->output,
         .file = WRITTEN_FILE},
        {"presets", 'p', "LIST", "presets, or all (default best)", .text = &o->presets},
        {"weight-bits", 0, "LIST", "of 2 to 8, as in 8,6,4 (default: the preset's)",
         .text = &o->weights},
        {"activation-bits", 0, "LIST", "the same of activations", .text = &o->activations},
        {"scales", 0, "LIST", "of channel, tensor (default: the preset's)", .text = &o->scales},
        {"activation-ranges", 0, "LIST",
         "of minmax, average, histogram, percentile, entropy, mse, histogram-pytorch; or all",
         .text = &o->ranges},
        {"samples", 'n', "LIST", "sizes of the calibration set (default 1000, or half)",
         .text = &o->samples},
        {"seeds", 's', "LIST", "calibration seeds (default 42,43,44)", .text = &o->seeds},
        {"limit", 0, "N", "images to measure on (default 2000)", .number = &o->limit, .least = 1},
        {"test", 0, NULL, "measure on the test images; default: training images not calibrated on",
         .flag = &o->on_test},
        {"threads", 't', "T", "threads (default: all cores)", .number = &o->threads, .least = 1},
        OPTION_JSON(o->json),
        {0}};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

/* ---- Choices ---- */

typedef struct list {
    char item[MOST_CHOICES][NAME];
    int items;
} list;

/* What one row is about; empty texts and zeros: as the preset has it. */
typedef struct combination {
    const char *preset, *scales, *range;
    int weight_bits, activation_bits, samples, seed;
} combination;

typedef struct row {
    char key[ROW]; /* the first columns, up to the measured ones */
    int total, correct, real, agree;
    long bytes;
} row;

typedef struct job {
    const sweep_options *given;
    char model_path[PATH_SIZE];
    data_request from;
    uint64_t hash;
    list presets, weights, activations, scales, ranges, samples, seeds;
    engine ready;
    data_set *test;
    row *rows;
    int count, capacity, skipped, planned, done;
    progress state;
    /* of the current calibration set */
    image_sample drawn;
    ptq_calibration *calibration;
    size_t *rest; /* training images left */
    ptq_subset subset;
    ptq_dataset images; /* to measure on */
    ptq_evaluation real;
} job;

static int add_choice(list *to, const char *text, size_t length, const char *option) {
    if (length == 0 || length >= NAME || to->items == MOST_CHOICES)
        return misuse("--%s: the list has an item that is empty or too long, or more than %d items",
                      option, MOST_CHOICES);
    memcpy(to->item[to->items], text, length);
    to->item[to->items++][length] = 0;
    return 0;
}

/* Splits at commas; nothing given is one empty choice. */
static int read_list(const char *text, const char *option, list *out) {
    if (!text) {
        out->items = 1;
        return 0;
    }
    for (;;) {
        size_t length = strcspn(text, ",");

        if (add_choice(out, text, length, option))
            return 1;
        if (!text[length])
            return 0;
        text += length + 1;
    }
}

static int read_numbers(const char *text, const char *option, int least, int most, list *out) {
    if (read_list(text, option, out))
        return 1;
    for (int i = 0; text && i < out->items; i++) {
        char *end;
        long value = strtol(out->item[i], &end, 10);

        if (*end || value < least || value > most)
            return misuse("--%s: '%s' is not a number from %d to %d", option, out->item[i], least,
                          most);
    }
    return 0;
}

static int read_presets(const sweep_options *o, list *out) {
    ptq_scheme scheme;
    ptq_error err;

    if (strcmp(o->presets, "all") == 0) {
        for (unsigned i = 0; ptq_name(PTQ_NAMES_PRESET, i); i++)
            if (add_choice(out, ptq_name(PTQ_NAMES_PRESET, i),
                           strlen(ptq_name(PTQ_NAMES_PRESET, i)), "presets"))
                return 1;
        return 0;
    }
    if (read_list(o->presets, "presets", out))
        return 1;
    for (int i = 0; i < out->items; i++)
        if (ptq_preset(out->item[i], &scheme, &err))
            return misuse("%s", err.text);
    return 0;
}

static int read_ranges(const sweep_options *o, list *out) {
    if (o->ranges && strcmp(o->ranges, "all") == 0) {
        for (int i = 0; i < PTQ_METHOD_COUNT; i++)
            if (add_choice(out, ptq_name(PTQ_NAMES_METHOD, (unsigned)i),
                           strlen(ptq_name(PTQ_NAMES_METHOD, (unsigned)i)), "activation-ranges"))
                return 1;
        return 0;
    }
    if (read_list(o->ranges, "activation-ranges", out))
        return 1;
    for (int i = 0; o->ranges && i < out->items; i++)
        if (ptq_find_name(PTQ_NAMES_METHOD, out->item[i]) < 0)
            return misuse("--activation-ranges: there is no range '%s'", out->item[i]);
    return 0;
}

static int read_scales(const sweep_options *o, list *out) {
    if (read_list(o->scales, "scales", out))
        return 1;
    for (int i = 0; o->scales && i < out->items; i++)
        if (strcmp(out->item[i], "channel") != 0 && strcmp(out->item[i], "tensor") != 0)
            return misuse("--scales: '%s' is neither channel nor tensor", out->item[i]);
    return 0;
}

static int read_choices(job *work) {
    if (read_presets(work->given, &work->presets) || read_ranges(work->given, &work->ranges) ||
        read_scales(work->given, &work->scales) ||
        read_numbers(work->given->weights, "weight-bits", 2, 8, &work->weights) ||
        read_numbers(work->given->activations, "activation-bits", 2, 8, &work->activations) ||
        read_numbers(work->given->samples ? work->given->samples : "1000", "samples", 1, 1000000,
                     &work->samples) ||
        read_numbers(work->given->seeds, "seeds", 0, 1000000000, &work->seeds))
        return 1;
    work->planned = work->presets.items * work->weights.items * work->activations.items *
                    work->scales.items * work->ranges.items * work->samples.items *
                    work->seeds.items;
    return 0;
}

/* 0 where the combination makes no sense: it is left out. */
static int scheme_of(const combination *c, ptq_scheme *out) {
    if (ptq_preset(c->preset, out, NULL))
        return 0;
    if (out->mode != PTQ_MODE_INTEGER)
        return !c->weight_bits && !c->activation_bits && !*c->scales && !*c->range;
    if (c->weight_bits)
        out->weight_bits = c->weight_bits;
    if (c->activation_bits)
        out->activation_bits = c->activation_bits;
    if (*c->scales) {
        out->weight_per_tensor = strcmp(c->scales, "tensor") == 0;
        out->weight_affine &= out->weight_per_tensor;
    }
    if (*c->range)
        out->activation_method = (ptq_method)ptq_find_name(PTQ_NAMES_METHOD, c->range);
    return ptq_scheme_check(out, NULL) == PTQ_OK;
}

/* ---- Rows ---- */

static const char header[] = "model,measured_on,limit,preset,weight_bits,activation_bits,scales,"
                             "activation_method,samples,seed,total,correct,float_correct,agree,"
                             "bytes\n";

static void write_key(const job *work, const combination *c, char key[ROW]) {
    snprintf(key, ROW, "%016llx,%s,%d,%s,%.0d,%.0d,%s,%s,%d,%d", (unsigned long long)work->hash,
             work->given->on_test ? "test" : "train", work->given->limit, c->preset, c->weight_bits,
             c->activation_bits, c->scales, c->range, c->samples, c->seed);
}

static row *find_row(const job *work, const char *key) {
    for (int i = 0; i < work->count; i++)
        if (strcmp(work->rows[i].key, key) == 0)
            return &work->rows[i];
    return NULL;
}

static int add_row(job *work, const row *made) {
    if (work->count == work->capacity) {
        int larger = work->capacity ? 2 * work->capacity : 64;
        row *rows = realloc(work->rows, (size_t)larger * sizeof *rows);

        if (!rows)
            return fail("no memory for %d rows", larger);
        work->rows = rows;
        work->capacity = larger;
    }
    work->rows[work->count++] = *made;
    return 0;
}

/* One line of the file: ten columns of the key, then five numbers. */
static int parse_row(char *line, row *out) {
    char *at = line, extra;

    for (int i = 0; i < 10 && at; i++)
        at = strchr(at + (i > 0), ',');
    if (!at || at - line >= ROW)
        return 1;
    *at = 0;
    memcpy(out->key, line, (size_t)(at - line) + 1);
    return sscanf(at + 1, "%d,%d,%d,%d,%ld%c", &out->total, &out->correct, &out->real, &out->agree,
                  &out->bytes, &extra) != 5 ||
           out->total < 1 || out->correct < 0 || out->correct > out->total || out->real < 0 ||
           out->real > out->total || out->agree < 0 || out->agree > out->total || out->bytes < 0;
}

static int read_rows(job *work) {
    FILE *file = fopen(work->given->output, "r");
    char line[2 * ROW];
    int number = 1, bad = 0;

    if (!file)
        return 0; /* a new one */
    if (fgets(line, sizeof line, file) && strcmp(line, header) != 0)
        bad = 1;
    while (!bad && fgets(line, sizeof line, file)) {
        row made;

        number++;
        line[strcspn(line, "\n")] = 0;
        bad = parse_row(line, &made) || add_row(work, &made);
    }
    fclose(file);
    return bad ? fail("%s: line %d is not of a sweep; choose another output, or remove the file",
                      work->given->output, number)
               : 0;
}

/* The whole file, under its name only when complete. */
static int write_rows(const job *work) {
    size_t size = sizeof header + (size_t)work->count * 2 * ROW, used;
    char *text = malloc(size);
    ptq_status status;
    ptq_error err;

    if (!text)
        return fail("no memory for the rows");
    used = (size_t)snprintf(text, size, "%s", header);
    for (int i = 0; i < work->count; i++) {
        const row *r = &work->rows[i];

        used += (size_t)snprintf(text + used, size - used, "%s,%d,%d,%d,%d,%ld\n", r->key, r->total,
                                 r->correct, r->real, r->agree, r->bytes);
    }
    status = ptq_file_write(work->given->output, text, used, &err);
    free(text);
    return status ? fail("%s", err.text) : 0;
}

/* ---- Measuring ---- */

/* Training images that were not drawn, evenly spread. */
static int hold_out(job *work) {
    const ptq_subset *sample = &work->drawn.subset;
    size_t all = sample->base->count, drawn = sample->dataset.count, k = 0, n = 0;
    size_t left = all - drawn,
           take = left < (size_t)work->given->limit ? left : (size_t)work->given->limit;
    ptq_error err;

    if (take == 0)
        return fail("all %zu training images are calibrated on, none is left to measure on; take "
                    "fewer --samples, or --test",
                    all);
    work->rest = malloc(left * sizeof *work->rest);
    if (!work->rest)
        return fail("no memory for %zu images", left);
    for (size_t i = 0; i < all; i++) {
        if (k < drawn && work->drawn.indices[k] == i)
            k++;
        else
            work->rest[n++] = i;
    }
    for (size_t i = 0; i < take; i++)
        work->rest[i] = work->rest[i * left / take]; /* NOLINT: `left` of them were set */
    if (ptq_subset_open(&work->subset, sample->base, work->rest, take, &err))
        return fail("%s", err.text);
    work->images = work->subset.dataset;
    return 0;
}

static int evaluate(const sweep_options *o, const ptq_plan *plan, const ptq_dataset *images,
                    ptq_evaluation *out) {
    ptq_evaluate_options options = {0};
    ptq_error err;

    options.limit = (size_t)o->limit;
    options.work.threads = o->threads;
    return ptq_evaluate(plan, images, &options, out, &err) ? fail("%s", err.text) : 0;
}

static int calibrate(job *work) {
    ptq_calibrate_options options = {0};
    ptq_error err;

    options.work.threads = work->given->threads;
    if (ptq_calibrate(work->ready.plan, &work->drawn.subset.dataset, &options, &work->calibration,
                      &err))
        return fail("%s", err.text);
    if (!work->given->on_test)
        return hold_out(work);
    work->images = *data_view(work->test);
    return refuse_overlap(work->calibration, &work->images);
}

static void end_set(job *work) {
    ptq_release(&work->real.memory);
    memset(&work->real, 0, sizeof work->real);
    ptq_calibration_free(work->calibration);
    work->calibration = NULL;
    sample_close(&work->drawn);
    free(work->rest);
    work->rest = NULL;
}

/* Calibration set, and the float model on what is left; once for all rows that share it. */
static int begin_set(job *work, const combination *c) {
    if (work->calibration)
        return 0;
    return sample_open(&work->from, work->ready.plan, c->samples, c->seed, &work->drawn) ||
           calibrate(work) || evaluate(work->given, work->ready.plan, &work->images, &work->real);
}

static int measure(job *work, const ptq_scheme *scheme, row *out) {
    ptq_convert_options options = {0};
    ptq_convert_report report;
    ptq_evaluation result;
    ptq_comparison compared;
    ptq_model *made = NULL;
    engine quantized;
    ptq_error err;
    int status;

    options.scheme = *scheme;
    options.images = &work->drawn.subset.dataset;
    options.work.threads = work->given->threads;
    if (ptq_convert(work->ready.model, work->calibration, &options, &made, &report, &err))
        return fail("%s", err.text);
    out->bytes = (long)report.bytes_after;
    ptq_release(&report.memory);
    if (engine_adopt(made, NULL, &quantized))
        return 1;
    status = evaluate(work->given, quantized.plan, &work->images, &result);
    if (!status && ptq_compare(&work->real, &result, &compared, &err))
        status = fail("%s", err.text);
    if (!status) {
        out->total = (int)result.total;
        out->correct = (int)result.correct;
        out->real = (int)work->real.correct;
        out->agree = (int)compared.agree;
    }
    if (result.total)
        ptq_release(&result.memory);
    engine_close(&quantized);
    return status;
}

static int do_row(job *work, const combination *c) {
    ptq_scheme scheme;
    row made;

    write_key(work, c, made.key);
    progress_show(&work->state, (size_t)work->done++, (size_t)work->planned);
    if (!scheme_of(c, &scheme)) {
        work->skipped++;
        return 0;
    }
    if (find_row(work, made.key))
        return 0;
    return begin_set(work, c) || measure(work, &scheme, &made) || add_row(work, &made) ||
           write_rows(work);
}

/* Combination `number` of one calibration set. */
static combination pick(const job *work, int number) {
    const list *lists[] = {&work->presets, &work->weights, &work->activations, &work->scales,
                           &work->ranges};
    const char *chosen[5];
    combination c = {0};

    for (int i = 4; i >= 0; i--) {
        chosen[i] = lists[i]->item[number % lists[i]->items];
        number /= lists[i]->items;
    }
    c.preset = chosen[0];
    c.weight_bits = atoi(chosen[1]);
    c.activation_bits = atoi(chosen[2]);
    c.scales = chosen[3];
    c.range = chosen[4];
    return c;
}

static int do_set(job *work, int samples, int seed) {
    int n = work->planned / work->samples.items / work->seeds.items, status = 0;

    for (int i = 0; i < n && !status; i++) {
        combination c = pick(work, i);

        c.samples = samples;
        c.seed = seed;
        status = do_row(work, &c);
    }
    end_set(work);
    return status;
}

static int do_all(job *work) {
    int status = 0;

    work->state = progress_start("sweep");
    for (int i = 0; i < work->samples.items && !status; i++)
        for (int k = 0; k < work->seeds.items && !status; k++)
            status = do_set(work, atoi(work->samples.item[i]), atoi(work->seeds.item[k]));
    progress_end(&work->state);
    return status;
}

/* ---- The table: mean and spread over seeds ---- */

typedef struct summary {
    combination c;
    int seeds;
    double drop, spread, agreement; /* points, standard deviation of them, percent */
    size_t images;                  /* that each seed was measured on */
    long bytes;
} summary;

/* 0 if no seed was measured. */
static int summarize(const job *work, combination c, summary *out) {
    double sum = 0, squares = 0, agree = 0;

    memset(out, 0, sizeof *out);
    out->c = c;
    for (int k = 0; k < work->seeds.items; k++) {
        char key[ROW];
        const row *r;
        double delta;

        c.seed = atoi(work->seeds.item[k]);
        write_key(work, &c, key);
        r = find_row(work, key);
        if (!r)
            continue;
        delta = 100.0 * (r->correct - r->real) / r->total;
        sum += delta;
        squares += delta * delta;
        agree += 100.0 * r->agree / r->total;
        out->bytes = r->bytes;
        out->images = (size_t)r->total;
        out->seeds++;
    }
    if (!out->seeds)
        return 0;
    out->drop = sum / out->seeds;
    out->agreement = agree / out->seeds;
    if (out->seeds > 1)
        out->spread = sqrt(fmax(0, (squares - sum * out->drop) / (out->seeds - 1)));
    return 1;
}

static void for_each_summary(const job *work, void (*act)(void *to, const summary *s), void *to) {
    int n = work->planned / work->samples.items / work->seeds.items;

    for (int i = 0; i < n; i++)
        for (int k = 0; k < work->samples.items; k++) {
            combination c = pick(work, i);
            ptq_scheme scheme;
            summary s;

            c.samples = atoi(work->samples.item[k]);
            if (scheme_of(&c, &scheme) && summarize(work, c, &s))
                act(to, &s);
        }
}

/* The bits that a combination really has. */
static void print_summary(void *to, const summary *s) {
    ptq_scheme scheme;
    char bits[NAME] = "-", range[NAME] = "-";
    char interval[AGREEMENT_SIZE], bytes[COUNT_SIZE];
    const char *scales = "-";

    (void)to;
    if (scheme_of(&s->c, &scheme) && scheme.mode == PTQ_MODE_INTEGER) {
        snprintf(bits, sizeof bits, "%dx%d", scheme.weight_bits ? scheme.weight_bits : 8,
                 scheme.activation_bits ? scheme.activation_bits : 8);
        snprintf(range, sizeof range, "%s", ptq_name(PTQ_NAMES_METHOD, scheme.activation_method));
        scales = scheme.weight_per_tensor ? "tensor" : "channel";
    }
    say("%-8s %-3s %-7s %-9s %4d %2d %+6.2f %4.2f %5.1f %13s %8s\n", s->c.preset, bits, scales,
        range, s->c.samples, s->seeds, s->drop, s->spread, s->agreement,
        agreement_text(s->agreement / 100, s->images, interval),
        count_text((uint64_t)s->bytes, bytes));
}

/* What the table comes to: the least loss, and the fewest bytes that lose less than the margin. */
typedef struct best {
    summary least, smallest;
    int rows, good;
} best;

static void weigh(void *to, const summary *s) {
    best *found = to;

    if (!found->rows || s->drop > found->least.drop)
        found->least = *s;
    if (s->drop > -DEFAULT_MARGIN && (!found->good || s->bytes < found->smallest.bytes)) {
        found->smallest = *s;
        found->good = 1;
    }
    found->rows++;
}

/* "w4a8 4x8" */
static void name_summary(const summary *s, char *text, size_t size) {
    ptq_scheme scheme;

    snprintf(text, size, "%s", s->c.preset);
    if (scheme_of(&s->c, &scheme) && scheme.mode == PTQ_MODE_INTEGER)
        snprintf(text, size, "%s %dx%d%s%s", s->c.preset,
                 scheme.weight_bits ? scheme.weight_bits : 8,
                 scheme.activation_bits ? scheme.activation_bits : 8, *s->c.scales ? " by " : "",
                 s->c.scales);
}

static const char *meaning_of(const best *found, char text[MEANING_SIZE]) {
    char least[64], smallest[64], bytes[COUNT_SIZE];

    if (found->rows)
        name_summary(&found->least, least, sizeof least);
    if (found->good)
        name_summary(&found->smallest, smallest, sizeof smallest);
    if (!found->rows)
        snprintf(text, MEANING_SIZE, "nothing was measured.");
    else if (!found->good)
        snprintf(text, MEANING_SIZE, "all of them lose a point or more; %s loses least, %.2f.",
                 least, -found->least.drop);
    else
        snprintf(text, MEANING_SIZE,
                 "%s does best, %+.2f points against float; the smallest that loses less than a "
                 "point is %s, with %s bytes.",
                 least, found->least.drop + 0.0, smallest,
                 count_text((uint64_t)found->smallest.bytes, bytes));
    return text;
}

static void print_meaning(const job *work) {
    best found = {0};
    char text[MEANING_SIZE];

    for_each_summary(work, weigh, &found);
    say("\n");
    say_wrapped(0, "In short: %s", meaning_of(&found, text));
    fflush(stdout);
    if (found.rows && found.least.drop < -LOSS_POINTS)
        warn("every combination loses more than %g points; add --presets best, --scales channel or "
             "more bits; 'ptq sensitivity --model %s' names the layers to spare, 'ptq train --qat' "
             "trains what is left",
             LOSS_POINTS, work->model_path);
}

static void print_table(const job *work) {
    say("model     %s\n", work->model_path);
    say_wrapped(10,
                "measured  the whole network, on %s; agreement with float in %%, and Wilson's "
                "interval of it for as many images as a seed has; of: images calibrated on; n: "
                "seeds; +-: standard deviation over them",
                work->given->on_test ? "test images" : "training images not calibrated on");
    say("\n");
    say("%-8s %-3s %-7s %-9s %4s %2s %6s %4s %5s %13s %8s\n", "preset", "wxa", "scales", "range",
        "of", "n", "points", "+-", "agree", "95 % interval", "bytes");
    for_each_summary(work, print_summary, NULL);
    if (work->skipped)
        say("\n%d combinations exclude themselves and were left out.\n", work->skipped);
    say("\n");
    say_written(work->given->output, "%d rows", work->count);
    print_meaning(work);
}

#ifdef PTQ_HAVE_jansson

static void append_summary(void *to, const summary *s) {
    double low, high;
    json_t *item =
        json_pack("{s:s,s:i,s:i,s:f,s:f,s:f,s:I}", "preset", s->c.preset, "samples", s->c.samples,
                  "seeds", s->seeds, "delta_pp", s->drop + 0.0, "spread_pp", s->spread, "agreement",
                  s->agreement / 100, "bytes", (json_int_t)s->bytes);

    agreement_interval(s->agreement / 100, s->images, &low, &high);
    json_object_set_new(item, "agreement_interval", json_pack("[f,f]", low, high));
    if (s->c.weight_bits)
        json_object_set_new(item, "weight_bits", json_integer(s->c.weight_bits));
    if (s->c.activation_bits)
        json_object_set_new(item, "activation_bits", json_integer(s->c.activation_bits));
    if (*s->c.scales)
        json_object_set_new(item, "scales", json_string(s->c.scales));
    if (*s->c.range)
        json_object_set_new(item, "activation_method", json_string(s->c.range));
    json_array_append_new((json_t *)to, item);
}

static int write_json(const job *work) {
    json_t *rows = json_array();
    best found = {0};
    char text[MEANING_SIZE];

    for_each_summary(work, append_summary, rows);
    for_each_summary(work, weigh, &found);
    return json_finish(json_pack("{s:i,s:s,s:s,s:s,s:s,s:o}", "schema_version", SCHEMA_VERSION,
                                 "model_path", work->model_path, "data_dir", work->from.path,
                                 "measured_on", work->given->on_test ? "test" : "train", "in_short",
                                 meaning_of(&found, text), "rows", rows));
}

#else

static int write_json(const job *work) {
    (void)work;
    return 1;
}

#endif

/* ---- All of it ---- */

/* Nobody asked for 1000 images: as many as there are, of which half stay to measure on unless that
   is done on the test set. */
static int fit_samples(job *work) {
    char text[16];
    size_t most;

    if (work->given->samples)
        return 0;
    if (count_training(&work->from, &most))
        return 1;
    most = work->given->on_test || most < 2 ? most : most / 2;
    snprintf(text, sizeof text, "%d", most < DEFAULT_SAMPLES ? (int)most : DEFAULT_SAMPLES);
    work->samples.items = 0;
    return add_choice(&work->samples, text, strlen(text), "samples");
}

static int sweep(job *work) {
    if (read_choices(work) || find_model(work->given->model, work->model_path) ||
        data_find(&work->given->data, &work->from) || fit_samples(work) ||
        check_output(work->given->output) || engine_open(work->model_path, 1, NULL, &work->ready))
        return 1;
    work->hash = ptq_model_hash(work->ready.model);
    if (work->given->on_test && data_open_test(&work->from, work->ready.plan, &work->test))
        return 1;
    if (work->given->on_test && !work->test)
        return fail("there are no test images with labels in %s", work->from.path);
    if (read_rows(work) || do_all(work))
        return 1;
    print_table(work);
    return work->given->json ? write_json(work) : 0;
}

int command_sweep(int argc, char **argv) {
    sweep_options o = {.presets = "best", .seeds = "42,43,44", .limit = 2000};
    int parsed = parse(argc, argv, &o), status;
    job *work;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!o.output)
        return misuse("-o OUT.csv is needed; see 'ptq sweep --help'");
    if (o.threads == 0)
        o.threads = count_cores();
    if (json_setup(o.json))
        return 1;
    work = calloc(1, sizeof *work);
    if (!work)
        return fail("no memory");
    work->given = &o;
    status = sweep(work);
    free(work->rows);
    data_close(work->test);
    engine_close(&work->ready);
    free(work);
    return status;
}
