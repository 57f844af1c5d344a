/* The pictures on the page of ptq report: those that got another answer than from the float model. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "ptq.h"
#include "report/report.h"
#include "report/svg.h"

#define MOST_PICTURES 60 /* that are shown of a model */

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

void write_pictures(FILE *out, const report *r, const subject *s) {
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
