/* One figure of a report as PNG, drawn by librsvg. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"
#include "report/report.h"
#include "report/svg.h"
#include "shared/output.h"

#ifdef PTQ_HAVE_librsvg
#include <librsvg/rsvg.h>
#endif

#define PNG_SCALE 2

#ifdef PTQ_HAVE_librsvg

static const figure *find_figure(const char *name) {
    const figure *f = report_figures;

    while (f->name && strcmp(f->name, name))
        f++;
    return f->name ? f : NULL;
}

static cairo_status_t collect_png(void *closure, const unsigned char *bytes, unsigned length) {
    return fwrite(bytes, 1, length, closure) == length ? CAIRO_STATUS_SUCCESS
                                                       : CAIRO_STATUS_WRITE_ERROR;
}

/* One figure as PNG, drawn by librsvg at twice its nominal size, on white. */
static int render_png(const char *svg, size_t length, FILE *out) {
    RsvgHandle *handle = rsvg_handle_new_from_data((const guint8 *)svg, length, NULL);
    double width = 0, height = 0;
    RsvgRectangle area = {0, 0, 0, 0};
    cairo_surface_t *surface;
    cairo_t *cairo;
    int status = 1;

    if (!handle)
        return fail("the figure is not valid SVG");
    rsvg_handle_get_intrinsic_size_in_pixels(handle, &width, &height);
    area.width = width * PNG_SCALE;
    area.height = height * PNG_SCALE;
    surface = cairo_image_surface_create(CAIRO_FORMAT_ARGB32, (int)area.width, (int)area.height);
    cairo = cairo_create(surface);
    cairo_set_source_rgb(cairo, 1, 1, 1);
    cairo_paint(cairo);
    if (rsvg_handle_render_document(handle, cairo, &area, NULL) &&
        cairo_surface_write_to_png_stream(surface, collect_png, out) == CAIRO_STATUS_SUCCESS)
        status = 0;
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    g_object_unref(handle);
    return status ? fail("the figure could not be drawn") : 0;
}

static char *draw_figure(const figure *f, const report *r, int tensor, size_t *size) {
    char *text = NULL;
    FILE *out = open_memstream(&text, size);

    if (!out)
        return NULL;
    f->draw(out, r, &r->model[0], tensor);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

/* A figure that stands alone needs its style inside. */
static char *with_style(const char *svg, size_t *size) {
    const char *inside = strchr(svg, '>') + 1;
    char *text = NULL;
    FILE *out = open_memstream(&text, size);

    if (!out)
        return NULL;
    fprintf(out, "%.*s<style>", (int)(inside - svg), svg);
    write_figure_style(out, 1, REPORT_TEXT);
    fprintf(out, "</style>%s", inside);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

int save_png(const report *r, const png_request *wanted) {
    const figure *f = find_figure(wanted->figure);
    int tensor = wanted->tensor ? ptq_calibration_find(r->seen, wanted->tensor) : 0, status = 1;
    char *svg, *styled, *png = NULL;
    size_t size = 0;
    FILE *out;
    ptq_error err;

    if (!f)
        return 1; /* check_png said so before the work began */
    if (tensor < 0)
        return fail("there is no tensor '%s'; ptq info lists them", wanted->tensor);
    svg = draw_figure(f, r, tensor, &size);
    styled = svg ? with_style(svg, &size) : NULL;
    out = styled ? open_memstream(&png, &size) : NULL;
    if (!out)
        fail("no memory for the figure");
    else if (!render_png(styled, strlen(styled), out) && !fflush(out))
        status = ptq_file_write(wanted->path, png, size, &err) ? fail("%s", err.text) : 0;
    if (out)
        fclose(out);
    free(png);
    free(styled);
    free(svg);
    if (!status)
        say("%s: %s%s%s\n", wanted->path, f->about, f->scope == OF_ALL ? "" : ": ",
            f->scope == OF_ALL ? "" : r->model[0].name);
    return status;
}

int check_png(const png_request *wanted) {
    if (!find_figure(wanted->figure))
        return misuse("there is no figure '%s'; ptq report --help lists them", wanted->figure);
    return 0;
}

#else

int save_png(const report *r, const png_request *wanted) {
    (void)r, (void)wanted;
    return 1;
}

int check_png(const png_request *wanted) {
    (void)wanted;
    return fail("--png needs librsvg, which this build is without; install librsvg2-dev and build "
                "again, or take -o OUT.html");
}

#endif
