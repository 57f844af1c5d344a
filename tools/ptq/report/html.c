/* The page of ptq report: words first, then tables, then figures. It needs no script and nothing
   from elsewhere; pictures are inside it. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "measure/accuracy.h"
#include "measure/verdict.h"
#include "ptq.h"
#include "report/report.h"
#include "report/svg.h"

#define MOST_PICTURES 60 /* changed images that are shown of a model */

/* ---- Style ---- */

static const char page_style[] =
    "*{box-sizing:border-box}body{margin:0 auto;max-width:1240px;padding:16px;"
    "font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}"
    "h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.15rem;margin:2em 0 .4em}"
    "p{max-width:46em;margin:.5em 0}.muted{color:var(--mut)}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--lin);white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}"
    "li{margin:.3em 0}td.bar{min-width:90px;text-align:left}"
    ".bar span{display:block;height:.6em;min-width:1px;background:var(--c1)}"
    ".figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));"
    "gap:20px;align-items:start}figure{margin:0}figcaption{font-size:.85rem;color:var(--mut)}"
    "svg{max-width:100%;height:auto;display:block}"
    "details{border-top:1px solid var(--lin);padding:.6em 0}"
    "summary{cursor:pointer;font-weight:600;padding:.3em 0}"
    ".pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:12px}"
    ".pictures figure{font-size:.8rem;line-height:1.3}"
    ".pictures img{max-width:100%;image-rendering:pixelated;display:block;"
    "margin-bottom:4px}.won{color:var(--c2)}.lost{color:var(--c5)}"
    ":root{color-scheme:light dark;--paper:#fff}"
    "@media (prefers-color-scheme:dark){:root{--paper:#1a1a18}}\n";

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

/* The smallest file among the models that are shown to be as good. With fewer images fewer are. */
static const subject *find_bargain(const report *r) {
    const subject *found = NULL;

    for (int i = 0; i < r->models; i++)
        if (judge(&r->model[i].compared, r->margin).kind == VERDICT_AS_GOOD &&
            (!found || r->model[i].bytes < found->bytes))
            found = &r->model[i];
    return found;
}

static void write_words(FILE *out, const report *r) {
    const subject *bargain = find_bargain(r);

    fprintf(
        out,
        "<p>The float model answers %zu of %zu test images right, %.2f %%. Ranges and histograms "
        "come from %zu training images, none of which is among the test images.</p>\n",
        r->baseline.result.correct, r->baseline.result.total, accuracy_of(&r->baseline),
        r->seen->images);
    for (int i = 0; i < r->models; i++)
        write_verdict(out, r, &r->model[i]);
    if (!bargain) {
        fprintf(out,
                "<p>None of these models is shown to be no worse than float by %g %s; none is "
                "recommended.</p>\n",
                r->margin, points_word(r->margin));
        return;
    }
    fputs("<p>Recommended: <strong>", out);
    put_text(out, bargain->name);
    fprintf(out,
            "</strong>, the smallest file that these %zu images show to be no worse than float by "
            "%g %s: %zu bytes, %.1f times smaller than float's.</p>\n",
            r->images.count, r->margin, points_word(r->margin), bargain->bytes,
            (double)r->baseline.bytes / (double)bargain->bytes);
}

/* ---- Tables ---- */

static void write_row(FILE *out, const subject *s, int is_baseline) {
    double low, high;

    ptq_share_interval(s->result.correct, s->result.total, &low, &high);
    fputs("<tr><td>", out);
    put_text(out, s->name);
    fprintf(out, "</td><td>%s</td><td>%zu</td><td>%zu</td><td>%.2f %%</td><td>%.2f to %.2f</td>",
            s->precision, s->bytes, s->result.correct, accuracy_of(s), 100 * low, 100 * high);
    if (is_baseline)
        fputs("<td></td><td></td><td></td><td></td></tr>\n", out);
    else
        fprintf(out,
                "<td>%+.2f</td><td>%+.2f to %+.2f</td><td>%.2f %%</td><td>%zu / %zu</td></tr>\n",
                s->compared.delta_pp + 0.0, s->compared.low_pp + 0.0, s->compared.high_pp + 0.0,
                100 * fraction(s->compared.agree, s->compared.total), s->compared.lost,
                s->compared.won);
}

static void write_table(FILE *out, const report *r) {
    fputs("<div class=\"wide\"><table><thead><tr><th>model</th><th>arithmetic</th><th>bytes</th>"
          "<th>right</th><th>accuracy</th><th>95 % interval</th><th>points to float</th>"
          "<th>95 % interval</th><th>agreement</th><th>lost / won</th></tr></thead><tbody>\n",
          out);
    write_row(out, &r->baseline, 1);
    for (int i = 0; i < r->models; i++)
        write_row(out, &r->model[i], 0);
    fprintf(out,
            "</tbody></table></div>\n<p class=\"muted\">All on the same %zu images in one run. The "
            "interval of an accuracy is Wilson's, that of a change Tango's for pairs. Lost / won: "
            "right with float and wrong after, and the reverse.</p>\n",
            r->images.count);
}

/* ---- Figures ---- */

static void write_figure(FILE *out, const report *r, const figure *f, const subject *s,
                         int tensor) {
    fputs("<figure>", out);
    f->draw(out, r, s, tensor);
    fprintf(out, "<figcaption>%s", f->scope == OF_TENSOR ? "" : f->about);
    if (f->scope == OF_MODEL) {
        fputs(": ", out);
        put_text(out, s->name);
    }
    fputs("</figcaption></figure>\n", out);
}

static void write_figures(FILE *out, const report *r, figure_scope scope, const subject *s) {
    fputs("<div class=\"figures\">\n", out);
    for (const figure *f = report_figures; f->name; f++)
        for (int t = 0; f->scope == scope && t < (scope == OF_TENSOR ? r->seen->tensors : 1); t++)
            write_figure(out, r, f, s, t);
    fputs("</div>\n", out);
}

/* ---- Pictures ---- */

static void put_base64(FILE *out, const uint8_t *bytes, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        unsigned word = (unsigned)bytes[i] << 16 | (left > 1 ? (unsigned)bytes[i + 1] << 8 : 0) |
                        (left > 2 ? bytes[i + 2] : 0);

        fputc(digits[word >> 18], out);
        fputc(digits[word >> 12 & 63], out);
        fputc(left > 1 ? digits[word >> 6 & 63] : '=', out);
        fputc(left > 2 ? digits[word & 63] : '=', out);
    }
}

static void put_word(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

/* Smallest and largest of the numbers of an item. */
static void find_range(const ptq_dataset *data, const float *item, float range[2]) {
    size_t n = data_item_bytes(data) / sizeof *item;

    range[0] = range[1] = item[0];
    for (size_t i = 1; i < n; i++) {
        range[0] = item[i] < range[0] ? item[i] : range[0];
        range[1] = item[i] > range[1] ? item[i] : range[1];
    }
}

/* A heat map: from blue, the smallest, over white in the middle to red, the largest. */
static uint8_t heat(float value, const float range[2], size_t colour) {
    float at = range[1] > range[0] ? (value - range[0]) / (range[1] - range[0]) : 0.5f;
    float side = at < 0.5f ? 2 * at : 2 - 2 * at; /* 0 at either end */
    int full = colour == 0 ? at < 0.5f : colour == 2 ? at > 0.5f : 0;

    return (uint8_t)(full ? 255 : 255 * side);
}

/* Blue, green or red of one element of an item. */
static uint8_t colour_of(const ptq_dataset *data, const void *item, const float range[2], size_t at,
                         size_t colour) {
    size_t channels = (size_t)data->channels;

    if (data->type == PTQ_TYPE_F32)
        return heat(((const float *)item)[at * channels], range, colour);
    return ((const uint8_t *)item)[at * channels + (channels >= 3 ? 2 - colour : 0)];
}

/* A bitmap file (BITMAPINFOHEADER, 24 bits a pixel, rows from the top): every browser reads it, and
   it needs no compressor. `file` has room for 54 bytes and the rows; the result is the size. Of
   real numbers the first channel is shown. */
static size_t make_bitmap(const ptq_dataset *data, const void *item, uint8_t *file) {
    size_t width = (size_t)data->width, height = (size_t)data->height;
    size_t row = (3 * width + 3) / 4 * 4, size = 54 + row * height, x, y, c;
    float range[2] = {0, 0};

    if (data->type == PTQ_TYPE_F32)
        find_range(data, item, range);
    memset(file, 0, size);
    file[0] = 'B';
    file[1] = 'M';
    put_word(file + 2, (uint32_t)size);
    put_word(file + 10, 54);
    put_word(file + 14, 40);
    put_word(file + 18, (uint32_t)width);
    put_word(file + 22, (uint32_t)0 - (uint32_t)height); /* negative: from the top */
    file[26] = 1;
    file[28] = 24;
    for (y = 0; y < height; y++)
        for (x = 0; x < width; x++)
            for (c = 0; c < 3; c++)
                file[54 + y * row + 3 * x + c] = colour_of(data, item, range, y * width + x, c);
    return size;
}

static void write_picture(FILE *out, const report *r, const subject *s, size_t index) {
    const ptq_dataset *view = &r->images;
    size_t bytes = 54 + (3 * (size_t)view->width + 3) / 4 * 4 * (size_t)view->height;
    void *item = malloc(data_item_bytes(view));
    uint8_t *file = malloc(bytes);
    const ptq_evaluation *e = &s->result;
    int truth = e->label[index], was = r->baseline.result.prediction[index], label, scale;
    int is = e->prediction[index];

    if (!item || !file || view->get(view->user, index, item, &label, NULL)) {
        free(file);
        free(item);
        return;
    }
    scale = view->width < 96 && view->height < 96
                ? 96 / (view->width > view->height ? view->width : view->height)
                : 1;
    fprintf(out, "<figure><img width=\"%d\" height=\"%d\" alt=\"", scale * view->width,
            scale * view->height);
    put_text(out, r->class_name[truth]);
    fputs("\" src=\"data:image/bmp;base64,", out);
    put_base64(out, file, make_bitmap(view, item, file));
    free(file);
    free(item);
    fprintf(out, "\">image %zu: <b>", index);
    put_text(out, r->class_name[truth]);
    fputs("</b><br>float: ", out);
    put_text(out, r->class_name[was]);
    fprintf(out, "<br><span class=\"%s\">now: ", is == truth ? "won" : was == truth ? "lost" : "");
    put_text(out, r->class_name[is]);
    fputs(is == truth ? " (won)" : was == truth ? " (lost)" : "", out);
    fputs("</span></figure>\n", out);
}

static void write_pictures(FILE *out, const report *r, const subject *s) {
    size_t changed = s->compared.total - s->compared.agree, shown = 0;

    fprintf(out, "<h3>Images with another answer: %zu</h3>\n", changed);
    if (changed > MOST_PICTURES)
        fprintf(out, "<p class=\"muted\">The first %d of them.</p>\n", MOST_PICTURES);
    fputs("<div class=\"pictures\">\n", out);
    for (size_t i = 0; i < s->result.total && shown < MOST_PICTURES; i++)
        if (s->result.prediction[i] != r->baseline.result.prediction[i]) {
            write_picture(out, r, s, i);
            shown++;
        }
    fputs("</div>\n", out);
}

/* ---- The page ---- */

static void write_model(FILE *out, const report *r, const subject *s, int open) {
    fprintf(out, "<details%s><summary>", open ? " open" : "");
    put_text(out, s->name);
    fprintf(out, "</summary>\n<p class=\"muted\">");
    put_text(out, s->path);
    fprintf(out, "; SQNR over %zu test images</p>\n", r->layer_images);
    write_figures(out, r, OF_MODEL, s);
    fputs(
        "<h3>Values and codes</h3>\n<p class=\"muted\">Grey: the float model's values; blue: the "
        "codes; both logarithmic, exact zeros left out. Below, the range that each observer would "
        "choose, and the model's own.</p>\n",
        out);
    write_figures(out, r, OF_TENSOR, s);
    write_pictures(out, r, s);
    fputs("</details>\n", out);
}

void write_page(FILE *out, const report *r) {
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<title>Quantization report</title>\n<style>",
          out);
    write_figure_style(out, 0);
    fputs(page_style, out);
    fputs("</style></head><body><main>\n<h1>What quantization did</h1>\n", out);
    write_words(out, r);
    fputs("<h2>Accuracy and size</h2>\n", out);
    write_table(out, r);
    write_figures(out, r, OF_ALL, NULL);
    write_advice(out, r);
    fputs("<h2>Model by model</h2>\n", out);
    for (int i = 0; i < r->models; i++)
        write_model(out, r, &r->model[i], i == 0);
    fprintf(out, "<p class=\"muted\">ptq %s</p>\n</main></body></html>\n", ptq_version());
}
