/* Drawing SVG: style, shapes, axes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/svg.h"

/* Ink, muted text, lines, then six colours that stay apart for colour-blind readers: for light and
   for dark backgrounds. */
static const char *const colour_names[] = {"ink", "mut", "lin", "c1", "c2", "c3", "c4", "c5", "c6"};
static const char *const light[] = {"#1c1c1a", "#5f5e5a", "#d8d6cf", "#2a78d6", "#128a5f",
                                    "#b97a00", "#7a3fb0", "#d03b3b", "#5b6b7a"};
static const char *const dark[] = {"#f2f1ec", "#b0aea6", "#45443f", "#5aa0ee", "#35b98a",
                                   "#e0a53a", "#b28ae6", "#f07a76", "#93a4b4"};
enum { COLOURS = sizeof light / sizeof *light };

static void put_variables(FILE *out, const char *const *value) {
    for (int i = 0; i < COLOURS; i++)
        fprintf(out, "--%s:%s;", colour_names[i], value[i]);
}

static void put_rules(FILE *out, const char *name, const char *open, const char *value,
                      const char *close) {
    fprintf(out, ".f-%s{fill:%s%s%s}.s-%s{stroke:%s%s%s;fill:none}", name, open, value, close, name,
            open, value, close);
}

void write_figure_style(FILE *out, int fixed, double small) {
    fprintf(out, "svg text{font:%gpx system-ui,'DejaVu Sans',sans-serif;fill:", small + 1.5);
    fputs(fixed ? light[0] : "var(--ink)", out);
    fprintf(out,
            "}svg text.small{font-size:%gpx}svg text.end{text-anchor:end}"
            "svg text.mid{text-anchor:middle}svg .thin{stroke-width:1}svg .thick{stroke-width:2}\n",
            small);
    for (int i = 0; i < COLOURS; i++) {
        if (fixed)
            put_rules(out, colour_names[i], "", light[i], "");
        else
            put_rules(out, colour_names[i], "var(--", colour_names[i], ")");
    }
    fprintf(out, "svg text.f-mut{fill:%s}\n", fixed ? light[1] : "var(--mut)");
    if (fixed)
        return;
    fputs(":root{", out);
    put_variables(out, light);
    fputs("}\n@media (prefers-color-scheme:dark){:root{", out);
    put_variables(out, dark);
    fputs("}}\n", out);
}

void put_text(FILE *out, const char *text) {
    for (; *text; text++)
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            fputc(*text, out);
        }
}

/* ---- Drawing ---- */

void svg_begin(FILE *out, int width, int height, const char *title) {
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\"><title>",
            width, height, width, height);
    put_text(out, title);
    fputs("</title>\n", out);
}

void svg_end(FILE *out) { fputs("</svg>\n", out); }

void svg_line(FILE *out, double x1, double y1, double x2, double y2, const char *classes) {
    fprintf(out, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", classes, x1, y1, x2, y2);
}

void svg_box(FILE *out, double x, double y, double w, double h, const char *classes, double alpha) {
    fprintf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"", classes,
            x, y, w > 0 ? w : 0, h > 0 ? h : 0);
    if (alpha < 1)
        fprintf(out, " fill-opacity=\"%.3f\"", alpha);
    fputs("/>\n", out);
}

void svg_label(FILE *out, double x, double y, const char *classes, const char *text) {
    fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", classes, x, y);
    put_text(out, text);
    fputs("</text>\n", out);
}

/* Letters of REPORT_TEXT, in most fonts. */
#define LETTER 6.7

double svg_width(const char *text) { return LETTER * (double)strlen(text); }

void svg_fitted(FILE *out, double x, double y, double wide, const char *classes, const char *text) {
    size_t most = (size_t)(wide / LETTER), length = strlen(text),
           head = most > 4 ? most / 2 - 1 : 1;
    char fitted[128];

    if (length <= most) {
        svg_label(out, x, y, classes, text);
        return;
    }
    snprintf(fitted, sizeof fitted, "%.*s...%s", (int)(head < 60 ? head : 60), text,
             text + length - (most > 4 + head ? most - head - 3 : 1));
    svg_label(out, x, y, classes, fitted);
}

void svg_number(FILE *out, double x, double y, const char *classes, const char *format,
                double value) {
    char text[64];

    snprintf(text, sizeof text, format, value);
    svg_label(out, x, y, classes, text);
}

double svg_place(const svg_axis *a, double value) {
    return a->high > a->low ? a->from + (value - a->low) / (a->high - a->low) * (a->to - a->from)
                            : a->from;
}

double svg_tick_step(const svg_axis *a, int wanted) {
    double rough = (a->high - a->low) / wanted, power = pow(10, floor(log10(rough)));

    return rough / power < 1.5 ? power : rough / power < 3.5 ? 2 * power : 5 * power;
}

void svg_ticks(FILE *out, const svg_axis *a, double y, double top, const char *format) {
    double step, at;

    if (!(a->high > a->low))
        return;
    step = svg_tick_step(a, 5);
    for (at = ceil(a->low / step) * step; at <= a->high + step * 1e-6; at += step) {
        svg_line(out, svg_place(a, at), y, svg_place(a, at), top, "s-lin thin");
        svg_number(out, svg_place(a, at), y + 14, "small mid f-mut", format,
                   fabs(at) < step * 1e-6 ? 0.0 : at);
    }
}

const char *svg_colour(int i) {
    static const char *const names[] = {"c1", "c2", "c3", "c4", "c5", "c6"};

    return names[i % 6];
}
