/* ptq report: one page about one or several quantized models beside the float model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "report/report.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"

typedef struct report_options {
    report_request wanted;
    const char *output;
    png_request png;
} report_options;

/* "--help" lists the figures. */
static const char *describe(char *text, size_t size) {
    size_t at = (size_t)snprintf(
        text, size,
        "Evaluates the models on the test images and writes one self-contained HTML page: "
        "verdict,\n"
        "accuracy, size, confusion, per-layer error, histograms with the ranges that observers\n"
        "choose, changed images, the graph. Figures for --png; those about a single model show\n"
        "the first --model:");

    for (const figure *f = report_figures; f->name && at < size; f++)
        at += (size_t)snprintf(text + at, size - at, "\n  %-12s %s", f->name, f->about);
    return text;
}

static int parse(int argc, char **argv, report_options *o) {
    const option_spec specs[] = {
        {"model", 'm', "MODEL", "quantized model; give it again for each further one",
         .text = o->wanted.model, .least = MOST_SUBJECTS, .file = READ_FILE},
        {"baseline", 'b', "MODEL", "the float model that they come from",
         .text = &o->wanted.baseline, .file = READ_FILE},
        DATA_OPTIONS(&o->wanted.data),
        {"samples", 'n', "N", "training images for ranges and histograms (default 1000, or all)",
         .number = &o->wanted.samples, .least = 1},
        {"seed", 's', "S", "which ones (default 42)", .number = &o->wanted.seed},
        {"limit", 0, "N", "report on the first N test images only", .number = &o->wanted.data.limit,
         .least = 1},
        {"advice", 0, NULL, "add what costs most and what would help, by ptq sensitivity",
         .flag = &o->wanted.advice},
        {"margin", 0, "P", MARGIN_HELP, .text = &o->wanted.margin},
        {"threads", 't', "T", "threads (default: all cores)", .number = &o->wanted.threads,
         .least = 1},
        {"output", 'o', "OUT.html", "where to write the page", .text = &o->output,
         .file = WRITTEN_FILE},
        {"png", 0, "OUT.png", "write a single figure instead", .text = &o->png.path,
         .file = WRITTEN_FILE},
        {"figure", 0, "NAME", "which: listed above (default frontier)", .text = &o->png.figure},
        {"tensor", 0, "NAME", "of which tensor, for a histogram", .text = &o->png.tensor},
        {0}};
    char about[1024];
    const command_help help = {
        "report --model MODEL ... --baseline FLOATMODEL -o OUT.html [OPTIONS]",
        describe(about, sizeof about),
        "ptq report -m int8.safetensors -b resnet8.safetensors -o report.html"};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

static int check_options(const report_options *o) {
    if (!o->wanted.model[0] || !o->wanted.baseline)
        return misuse(
            "name the quantized model with --model and the float model it comes from with "
            "--baseline");
    if (!o->output == !o->png.path)
        return misuse("say where to write the page with -o OUT.html, or one figure with --png");
    if (o->png.path && check_png(&o->png))
        return 1;
    return check_output(o->output ? o->output : o->png.path);
}

static void print_meaning(const report *r) {
    char text[MEANING_SIZE];

    say("\n");
    say_wrapped(0, "In short: %s", report_meaning(r, text));
    fflush(stdout);
    for (int i = 0; i < r->models; i++) {
        evidence e = evidence_of(r, &r->model[i]);

        warn_of_loss(&e);
    }
}

/* The command as it was typed; words with anything but letters and the like in quotes. */
static void join_command(int argc, char **argv, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "ptq");

    for (int i = 0; i < argc && used < size; i++) {
        int plain = !argv[i][strcspn(argv[i], " \t\n\"'\\*?[]{}()<>|&;$`~#")];

        used += (size_t)snprintf(text + used, size - used, plain ? " %s" : " '%s'", argv[i]);
    }
}

static int save_page(const report *r, const char *path) {
    char *text = NULL, bytes[COUNT_SIZE];
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ptq_status status;
    ptq_error err;

    if (!out)
        return fail("no memory for the page");
    write_page(out, r);
    if (fclose(out)) {
        free(text);
        return fail("no memory for the page");
    }
    status = ptq_file_write(path, text, size, &err);
    free(text);
    if (status)
        return fail("%s", err.text);
    say_written(path, "%d model%s, %zu test images, %s bytes", r->models, r->models > 1 ? "s" : "",
                r->images.count, count_text(size, bytes));
    print_meaning(r);
    return 0;
}

int command_report(int argc, char **argv) {
    report_options o = {0};
    char command[4096];
    report *r;
    int parsed, status;

    o.wanted.seed = 42;
    o.png.figure = "frontier";
    join_command(argc, argv, command, sizeof command);
    o.wanted.command = command;
    parsed = parse(argc, argv, &o);
    if (parsed)
        return parsed == OPTIONS_BAD;
    if (o.wanted.threads == 0)
        o.wanted.threads = count_cores();
    if (check_options(&o))
        return 1;
    r = calloc(1, sizeof *r);
    if (!r)
        return fail("no memory");
    status = measure_report(&o.wanted, r);
    if (!status)
        status = o.png.path ? save_png(r, &o.png) : save_page(r, o.output);
    close_report(r);
    free(r);
    return status;
}
