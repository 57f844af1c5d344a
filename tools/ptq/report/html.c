/* The page of ptq report: words first, then tables, then figures. It needs no script and nothing
   from elsewhere; pictures are inside it. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/dataset.h"
#include "measure/accuracy.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "report/report.h"
#include "report/svg.h"
#include "shared/machine.h"
#include "shared/output.h"

/* ---- Style ---- */

static const char page_style[] =
    "*{box-sizing:border-box}body{margin:0 auto;max-width:1280px;padding:16px;"
    "font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}"
    "h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.15rem;margin:2em 0 .4em}"
    "p{max-width:46em;margin:.5em 0}.muted{color:var(--mut)}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--lin);white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}"
    "li{margin:.3em 0}td.bar{min-width:90px;text-align:left}"
    ".bar span{display:block;height:.6em;min-width:1px;background:var(--c1)}"
    ".figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(400px,100%),1fr));"
    "gap:20px;align-items:start}figure{margin:0;overflow-x:auto}"
    "figcaption{font-size:.9rem;max-width:400px}figcaption::first-letter{text-transform:uppercase}"
    "svg{display:block}"
    "section{border-top:1px solid var(--lin);margin-top:2em}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em;margin:.5em 0}"
    "dt{color:var(--mut)}dd{margin:0;overflow-wrap:anywhere}"
    ".short{border-left:4px solid var(--c1);padding-left:.8em}"
    ".pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:12px}"
    ".pictures figure{font-size:.8rem;line-height:1.3}"
    ".pictures img{max-width:100%;image-rendering:pixelated;display:block;"
    "margin-bottom:4px}.won{color:var(--c2)}.lost{color:var(--c5)}"
    ":root{color-scheme:light dark;--paper:#fff}"
    "@media (prefers-color-scheme:dark){:root{--paper:#1a1a18}}"
    "@page{margin:15mm}@media print{body{max-width:none;padding:0;font-size:10pt}"
    "*{print-color-adjust:exact}.wide{overflow:visible}th,td{padding:2px 5px;white-space:normal}"
    ".figures{grid-template-columns:repeat(auto-fill,minmax(320px,1fr))}svg{max-width:100%;"
    "height:auto}figure,tr,dl{break-inside:avoid}h2,h3{break-after:avoid}"
    "section{break-before:page}nav{display:none}}\n";

/* ---- Words ---- */

static double accuracy_of(const subject *s) {
    return 100 * fraction(s->result.correct, s->result.total);
}

/* What the interval of the change allows to say about chance; the verdict weighs it against the
   margin. */
static const char *judgement(const ptq_comparison *c) {
    if (c->low_pp > 0)
        return "better than float, by more than chance explains";
    if (c->high_pp < 0)
        return "worse than float, by more than chance explains";
    return "no more than chance explains";
}

static void write_verdict(FILE *out, const report *r, const subject *s) {
    const layer_error *weak = weakest_layer(s);
    const ptq_comparison *c = &s->compared;
    verdict found = judge(c, r->margin);
    char text[200];

    fputs("<p><strong>", out);
    put_text(out, s->name);
    fprintf(out,
            "</strong> answers %zu of %zu images right, %.2f %%: %+.2f percentage points against "
            "float (95 %% interval %+.2f to %+.2f), %s. It gives float's own answer on %.2f %% of "
            "the images.",
            s->result.correct, s->result.total, accuracy_of(s), c->delta_pp + 0.0, c->low_pp + 0.0,
            c->high_pp + 0.0, judgement(c), 100 * fraction(c->agree, c->total));
    verdict_text(&found, text, sizeof text);
    fprintf(out, " Verdict: %s.", text);
    if (weak && isfinite(weak->sqnr_db)) {
        fputs(" The weakest tensor is <code>", out);
        put_text(out, weak->name);
        fprintf(out, "</code> with %.1f dB.", weak->sqnr_db);
    }
    fputs("</p>\n", out);
}

/* The smallest file: with fewer images fewer models are shown to be as good. */
const subject *find_bargain(const report *r) {
    const subject *found = NULL;

    for (int i = 0; i < r->models; i++)
        if (judge(&r->model[i].compared, r->margin).kind == VERDICT_AS_GOOD &&
            (!found || r->model[i].bytes < found->bytes))
            found = &r->model[i];
    return found;
}

evidence evidence_of(const report *r, const subject *s) {
    evidence e = {&s->compared, s->path, r->baseline.path, NULL, 0, 0, 0, 0};

    e.scheme = ptq_model_get_meta(s->ready.model, "scheme");
    e.classes = (size_t)s->result.classes;
    e.margin = r->margin;
    return e;
}

const char *report_meaning(const report *r, char text[MEANING_SIZE]) {
    const subject *bargain = find_bargain(r);
    char bytes[COUNT_SIZE], images[COUNT_SIZE];

    if (!bargain)
        snprintf(text, MEANING_SIZE,
                 "None of these models is shown to be no worse than float by %g %s; none is "
                 "recommended.",
                 r->margin, points_word(r->margin));
    else
        snprintf(text, MEANING_SIZE,
                 "%s is recommended: the smallest file that these %s images show to be no worse "
                 "than float by %g %s, with %s bytes, %.1f times smaller than float's.",
                 bargain->name, count_text(r->images.count, images), r->margin,
                 points_word(r->margin), count_text(bargain->bytes, bytes),
                 (double)r->baseline.bytes / (double)bargain->bytes);
    return text;
}

/* What the warnings of the commands say, for those who only see the page. */
static void write_remedies(FILE *out, const report *r, const subject *s) {
    evidence e = evidence_of(r, s);
    char text[REMEDIES_SIZE];

    if (s->compared.delta_pp >= -LOSS_POINTS)
        return;
    fputs("<p>What helps, in this order: ", out);
    put_text(out, remedies_text(&e, text));
    fputs(".</p>\n", out);
}

static void write_words(FILE *out, const report *r) {
    char text[MEANING_SIZE], images[COUNT_SIZE];

    fputs("<p class=\"short\">", out);
    put_text(out, report_meaning(r, text));
    fputs("</p>\n", out);
    fprintf(
        out,
        "<p>The float model answers %zu of %s test images right, %.2f %%. Ranges and histograms "
        "come from %zu training images, none of which is among the test images.</p>\n",
        r->baseline.result.correct, count_text(r->baseline.result.total, images),
        accuracy_of(&r->baseline), r->seen->images);
    for (int i = 0; i < r->models; i++) {
        write_verdict(out, r, &r->model[i]);
        write_remedies(out, r, &r->model[i]);
    }
}

/* ---- How it was made ---- */

/* The day, in UTC; that of SOURCE_DATE_EPOCH where a build is to be repeated byte for byte. */
static void write_date(FILE *out) {
    const char *fixed = environment("SOURCE_DATE_EPOCH");
    time_t now = fixed ? (time_t)strtoll(fixed, NULL, 10) : time(NULL);
    struct tm day;
    char text[32] = "unknown";

    if (gmtime_r(&now, &day))
        strftime(text, sizeof text, "%Y-%m-%d", &day);
    fputs(text, out);
}

static void write_origin(FILE *out, const report *r, const subject *s) {
    const char *scheme = ptq_model_get_meta(s->ready.model, "scheme");

    fputs("<dt>", out);
    put_text(out, s->name);
    fputs("</dt><dd>", out);
    put_text(out, s == &r->baseline ? "float" : scheme ? scheme : "quantized elsewhere");
    fprintf(out, "; hash %016llx; ", (unsigned long long)ptq_model_hash(s->ready.model));
    put_text(out, s->path);
    fputs("</dd>\n", out);
}

/* All that is needed to make the page again, and to tell whether files are still the same. */
static void write_origins(FILE *out, const report *r) {
    fputs("<h2>How this page was made</h2>\n<dl><dt>command</dt><dd><code>", out);
    put_text(out, r->command);
    fputs("</code></dd>\n<dt>date</dt><dd>", out);
    write_date(out);
    fprintf(out, "</dd>\n<dt>program</dt><dd>ptq %s</dd>\n<dt>data</dt><dd>", ptq_version());
    put_text(out, r->from.path);
    fprintf(out,
            ": %zu test images; %zu training images drawn with seed %d for ranges and "
            "histograms</dd>\n",
            r->images.count, r->seen->images, r->seed);
    write_origin(out, r, &r->baseline);
    for (int i = 0; i < r->models; i++)
        write_origin(out, r, &r->model[i]);
    fputs("</dl>\n<p class=\"muted\">A hash is of the graph and all numbers of a model, fused, as "
          "calibration files have it.</p>\n",
          out);
}

/* ---- Tables ---- */

static void write_row(FILE *out, const subject *s, int is_baseline) {
    char bytes[COUNT_SIZE];
    double low, high;

    ptq_share_interval(s->result.correct, s->result.total, &low, &high);
    fputs("<tr><td>", out);
    put_text(out, s->name);
    fprintf(out,
            "</td><td>%s</td><td>%s</td><td>%zu</td><td>%.2f %%<br><small>%.2f to %.2f</small>"
            "</td>",
            s->precision, count_text(s->bytes, bytes), s->result.correct, accuracy_of(s), 100 * low,
            100 * high);
    if (is_baseline)
        fputs("<td></td><td></td><td></td></tr>\n", out);
    else
        fprintf(out,
                "<td>%+.2f<br><small>%+.2f to %+.2f</small></td><td>%.2f %%</td>"
                "<td>%zu / %zu</td></tr>\n",
                s->compared.delta_pp + 0.0, s->compared.low_pp + 0.0, s->compared.high_pp + 0.0,
                100 * fraction(s->compared.agree, s->compared.total), s->compared.lost,
                s->compared.won);
}

static void write_table(FILE *out, const report *r) {
    fputs("<div class=\"wide\"><table><thead><tr><th>model</th><th>arithmetic</th><th>bytes</th>"
          "<th>right</th><th>accuracy</th><th>points to float</th><th>agreement</th>"
          "<th>lost / won</th></tr></thead><tbody>\n",
          out);
    write_row(out, &r->baseline, 1);
    for (int i = 0; i < r->models; i++)
        write_row(out, &r->model[i], 0);
    fprintf(out,
            "</tbody></table></div>\n<p class=\"muted\">All on the same %zu images in one run. "
            "Small: the 95 %% interval, of an accuracy Wilson's, of a change Tango's for pairs. "
            "Lost / won: right with float and wrong after, and the reverse.</p>\n",
            r->images.count);
}

/* ---- Figures ---- */

/* The two classes that are mixed up more often than by the float model, by most. */
static void conclude_confusion(FILE *out, const report *r, const subject *s) {
    const ptq_evaluation *a = &s->result, *b = &r->baseline.result;
    int n = a->classes, found = -1;
    long most = 0;

    for (int i = 0; i < n * n; i++) {
        long more = (long)a->confusion[i] - (long)b->confusion[i];

        if (i / n != i % n && more > most) {
            most = more;
            found = i;
        }
    }
    if (found < 0) {
        fputs(" No two classes are mixed up more often than by the float model.", out);
        return;
    }
    fputs(" What grew most against float: ", out);
    put_text(out, r->class_name[found / n]);
    fputs(" taken for ", out);
    put_text(out, r->class_name[found % n]);
    fprintf(out, ", %ld more.", most);
}

static void conclude_sqnr(FILE *out, const subject *s) {
    const layer_error *weak = weakest_layer(s);

    if (!weak || !isfinite(weak->sqnr_db))
        return;
    fputs(" Least, in red: ", out);
    put_text(out, weak->name);
    fprintf(out, ". %s",
            weak->sqnr_db >= 20 ? "Over 20 dB, an error of a tenth, answers seldom change."
            : weak->sqnr_db >= 10
                ? "Under 20 dB, an error of over a tenth, answers begin to change."
                : "Under 10 dB the error is a third of the signal and more: give this layer more "
                  "bits.");
}

/* Channels whose largest weight uses less than half of its codes. */
static void conclude_weights(FILE *out, const report *r, const subject *s) {
    const ptq_model *real = r->baseline.ready.model, *coded = s->ready.model;
    int few = 0, all = 0;

    for (int i = 0; i < real->nodes; i++) {
        const ptq_tensor *w = &real->node[i].param[PTQ_PARAM_WEIGHT];
        int k = ptq_model_find(coded, real->node[i].name);
        const ptq_tensor *q = k < 0 ? NULL : &coded->node[k].param[PTQ_PARAM_WEIGHT];

        if (w->rank < 2 || !q || !q->scales)
            continue;
        for (int c = 0; c < w->dim[0]; c++) {
            size_t each = ptq_tensor_elements(w) / (size_t)w->dim[0];
            double most = 0,
                   reach = (double)q->scale[q->scales > 1 ? c : 0] * ((1 << (q->bits - 1)) - 1);

            for (size_t j = 0; j < each; j++)
                most = fmax(most, fabs((double)ptq_tensor_real(w, (size_t)c * each + j)));
            few += 2 * most < reach;
            all++;
        }
    }
    if (all)
        fprintf(out, " %d of %d channels use less than half of their codes%s.", few, all,
                4 * few > all ? ": one scale a channel would give them more" : "");
}

static void conclude_frontier(FILE *out, const report *r) {
    const subject *bargain = find_bargain(r);

    fputs(" Better is up and to the left.", out);
    if (!bargain)
        return;
    put_text(out, " Farthest left of those as good as float: ");
    put_text(out, bargain->name);
    fputs(".", out);
}

/* What a figure says: its subject, then what to conclude. */
static void write_conclusion(FILE *out, const report *r, const figure *f, const subject *s) {
    if (!strcmp(f->name, "frontier"))
        conclude_frontier(out, r);
    else if (!strcmp(f->name, "change"))
        fputs(" A line that crosses 0 may be chance; one that lies left of it is a loss.", out);
    else if (!strcmp(f->name, "confusion"))
        conclude_confusion(out, r, s);
    else if (!strcmp(f->name, "sqnr"))
        conclude_sqnr(out, s);
    else if (!strcmp(f->name, "weights"))
        conclude_weights(out, r, s);
}

static void write_figure(FILE *out, const report *r, const figure *f, const subject *s,
                         int tensor) {
    fputs("<figure>", out);
    f->draw(out, r, s, tensor);
    fprintf(out, "<figcaption>%s", f->scope == OF_TENSOR ? "" : f->about);
    if (f->scope == OF_MODEL) {
        fputs(": ", out);
        put_text(out, s->name);
    }
    if (f->scope != OF_TENSOR)
        fputs(".", out);
    write_conclusion(out, r, f, s);
    fputs("</figcaption></figure>\n", out);
}

static void write_figures(FILE *out, const report *r, figure_scope scope, const subject *s) {
    fputs("<div class=\"figures\">\n", out);
    for (const figure *f = report_figures; f->name; f++)
        for (int t = 0; f->scope == scope && t < (scope == OF_TENSOR ? r->seen->tensors : 1); t++)
            write_figure(out, r, f, s, t);
    fputs("</div>\n", out);
}

/* ---- The page ---- */

static void write_model(FILE *out, const report *r, const subject *s) {
    evidence e = evidence_of(r, s);
    char text[MEANING_SIZE];

    fprintf(out, "<section id=\"model%d\"><h2>", (int)(s - r->model));
    put_text(out, s->name);
    fputs("</h2>\n<p class=\"short\">In short: ", out);
    put_text(out, meaning_text(&e, text));
    fprintf(out, "</p>\n<p class=\"muted\">SQNR over %zu test images.</p>\n", r->layer_images);
    write_figures(out, r, OF_MODEL, s);
    fputs(
        "<h3>Values and codes</h3>\n<p class=\"muted\">Grey: the float model's values; blue: the "
        "codes; both logarithmic, exact zeros left out. Below, the range that each observer would "
        "choose, and the model's own. Where grey reaches beyond blue, values are clipped; where "
        "blue ends far beyond grey, codes are wasted.</p>\n",
        out);
    write_figures(out, r, OF_TENSOR, s);
    write_pictures(out, r, s);
    fputs("</section>\n", out);
}

static void write_contents(FILE *out, const report *r) {
    fputs("<nav><p>", out);
    for (int i = 0; i < r->models; i++) {
        fprintf(out, "%s<a href=\"#model%d\">", i ? ", " : "Model by model: ", i);
        put_text(out, r->model[i].name);
        fputs("</a>", out);
    }
    fputs("</p></nav>\n", out);
}

void write_page(FILE *out, const report *r) {
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<title>Quantization report</title>\n<style>",
          out);
    write_figure_style(out, 0, REPORT_TEXT);
    fputs(page_style, out);
    fputs("</style></head><body><main>\n<h1>What quantization did</h1>\n", out);
    write_words(out, r);
    fputs("<h2>Accuracy and size</h2>\n", out);
    write_table(out, r);
    write_figures(out, r, OF_ALL, NULL);
    write_advice(out, r);
    write_origins(out, r);
    write_contents(out, r);
    for (int i = 0; i < r->models; i++)
        write_model(out, r, &r->model[i]);
    fputs("</main></body></html>\n", out);
}
