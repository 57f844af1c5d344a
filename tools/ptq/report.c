/* ptq report: one page about one or several quantized models beside the float model. */
#include <stdlib.h>
#include <string.h>

#include "report/report.h"
#include "report/svg.h"

#ifdef PTQ_HAVE_librsvg
#include <librsvg/rsvg.h>
#endif

#define LAYER_IMAGES 200 /* compared tensor by tensor */
#define PNG_SCALE 2

static const char *model_option[MOST_SUBJECTS], *baseline_option, *data_option, *output_option;
static const char *png_option, *figure_option = "frontier", *tensor_option;
static int samples = 1000, seed = 42, limit, threads, with_advice;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "quantized model; give it again for each further one", model_option,
     NULL, NULL, MOST_SUBJECTS},
    {"baseline", 'b', "MODEL", "the float model that they come from", &baseline_option, NULL, NULL,
     0},
    {"data", 'd', "DIR", "CIFAR-10's directory", &data_option, NULL, NULL, 0},
    {"samples", 'n', "N", "training images for ranges and histograms (default 1000)", NULL,
     &samples, NULL, 1},
    {"seed", 's', "S", "which ones (default 42)", NULL, &seed, NULL, 0},
    {"limit", 0, "N", "report on the first N test images only", NULL, &limit, NULL, 1},
    {"advice", 0, NULL, "add what costs most and what would help, by ptq sensitivity", NULL, NULL,
     &with_advice, 0},
    {"threads", 't', "T", "threads (default: all cores)", NULL, &threads, NULL, 1},
    {"output", 'o', "OUT.html", "where to write the page", &output_option, NULL, NULL, 0},
    {"png", 0, "OUT.png", "write a single figure instead", &png_option, NULL, NULL, 0},
    {"figure", 0, "NAME", "which: listed above (default frontier)", &figure_option, NULL, NULL, 0},
    {"tensor", 0, "NAME", "of which tensor, for a histogram", &tensor_option, NULL, NULL, 0},
    {0}};

static command_help help = {
    "report --model MODEL [--model MODEL ...] --baseline FLOATMODEL [--data DIR] -o OUT.html", NULL,
    "ptq report -m int8.safetensors -m w4a8.safetensors -b resnet8.safetensors -o report.html"};

/* ---- What figures share ---- */

void coded_range(const ptq_qparams *q, double *low, double *high) {
    int32_t least, most;

    ptq_code_range(q->type, q->bits, &least, &most);
    *low = (double)q->scale * (least - q->zero_point);
    *high = (double)q->scale * (most - q->zero_point);
}

ptq_qparams tensor_codes(const ptq_model *model, const char *tensor) {
    const ptq_qparams none = {PTQ_TYPE_F32, 0, 0, 0};
    int i = ptq_model_find(model, tensor);

    if (i < 0)
        return none;
    return strcmp(model->node[i].out, tensor) ? model->node[i].mid : model->node[i].q;
}

const ptq_layer_error *weakest_layer(const subject *s) {
    const ptq_layer_error *found = NULL;

    for (int i = 0; i < s->layers.items; i++)
        if (!found || s->layers.item[i].sqnr_db < found->sqnr_db)
            found = &s->layers.item[i];
    return found;
}

/* ---- Measuring ---- */

/* The file's name without directory and ending: what the model is called in the report. */
static void name_subject(subject *s) {
    const char *slash = strrchr(s->path, '/'), *base = slash ? slash + 1 : s->path;

    snprintf(s->name, sizeof s->name, "%.*s", (int)strcspn(base, "."), base);
}

static int open_subject(const char *option, subject *s) {
    if (find_model(option, s->path) || engine_open(s->path, 1, NULL, &s->ready))
        return 1;
    name_subject(s);
    describe_precision(s->ready.model, s->precision, sizeof s->precision);
    s->bytes = file_size(s->path);
    return 0;
}

static void close_subject(subject *s) {
    free(s->codes);
    ptq_release(&s->layers.memory);
    ptq_release(&s->result.memory);
    engine_close(&s->ready);
}

/* Adds the codes of one tensor of the image that ran last. A view has no scale where the values are
   real. */
static void count_view(const ptq_tensor *view, code_count *into) {
    size_t n = ptq_tensor_elements(view);

    for (size_t i = 0; i < n; i++)
        into->count[(int)ptq_tensor_number(view, i) & 255]++;
    into->total += n;
}

static int count_image(const report *r, subject *s, ptq_session *session, const uint8_t *pixels) {
    ptq_tensor view;
    ptq_error err;

    if (ptq_run(session, pixels, 1, NULL, NULL, &err))
        return fail("%s", err.text);
    for (int t = 0; t < r->seen->tensors; t++)
        if (s->codes[t].q.type != PTQ_TYPE_F32) {
            if (ptq_session_tensor(session, r->seen->tensor[t].name, &view, &err))
                return fail("%s", err.text);
            count_view(&view, &s->codes[t]);
        }
    return 0;
}

static int count_codes(const report *r, subject *s) {
    ptq_session_options keep = {0};
    ptq_session *session = NULL;
    ptq_error err;
    uint8_t *pixels = malloc(ptq_plan_get_info(s->ready.plan)->pixels);
    int status = 0, label;

    s->codes = calloc((size_t)r->seen->tensors, sizeof *s->codes);
    keep.keep = 1;
    if (!pixels || !s->codes)
        status = fail("no memory for the histograms");
    else if (ptq_session_create(s->ready.plan, &keep, &session, &err))
        status = fail("%s", err.text);
    for (int t = 0; t < r->seen->tensors && !status; t++)
        s->codes[t].q = tensor_codes(s->ready.model, r->seen->tensor[t].name);
    for (size_t i = 0; i < r->drawn.subset.dataset.count && !status; i++) {
        if (r->drawn.subset.dataset.get(r->drawn.subset.dataset.user, i, pixels, &label, &err))
            status = fail("%s", err.text);
        else
            status = count_image(r, s, session, pixels);
    }
    ptq_session_free(session);
    free(pixels);
    return status;
}

static int measure_subject(report *r, subject *s) {
    ptq_error err;

    if (evaluate_plan(s->ready.plan, &r->images, s->name, threads, &s->result))
        return 1;
    if (ptq_compare(&r->baseline.result, &s->result, &s->compared, &err) ||
        ptq_compare_layers(r->baseline.ready.plan, s->ready.plan, &r->images, r->layer_images,
                           &s->layers, &err))
        return fail("%s: %s", s->name, err.text);
    return count_codes(r, s);
}

static int open_images(report *r) {
    if (find_data(data_option, r->data_path) || open_test_set(r->data_path, &r->test))
        return 1;
    if (!r->test)
        return fail("%s has no test_batch.bin beside the training images; a report needs both",
                    r->data_path);
    r->images = *ptq_cifar10_dataset(r->test);
    if (limit && (size_t)limit < r->images.count)
        r->images.count = (size_t)limit;
    r->layer_images = r->images.count < LAYER_IMAGES ? r->images.count : LAYER_IMAGES;
    r->class_name = r->images.class_name;
    return 0;
}

static int measure(report *r) {
    if (open_images(r) || open_subject(baseline_option, &r->baseline) ||
        sample_open(r->data_path, samples, seed, &r->drawn) ||
        calibrate_on(r->baseline.ready.plan, &r->drawn, threads, &r->seen) ||
        refuse_overlap(r->seen, &r->images) ||
        evaluate_plan(r->baseline.ready.plan, &r->images, "float", threads, &r->baseline.result))
        return 1;
    for (r->models = 0; r->models < MOST_SUBJECTS && model_option[r->models]; r->models++)
        if (open_subject(model_option[r->models], &r->model[r->models]))
            return 1;
    for (int i = 0; i < r->models; i++)
        if (measure_subject(r, &r->model[i]))
            return 1;
    return with_advice ? measure_advice(r, threads) : 0;
}

static void close_report(report *r) {
    for (int i = 0; i < MOST_SUBJECTS; i++)
        close_subject(&r->model[i]);
    close_subject(&r->baseline);
    ptq_release(&r->advice.memory);
    ptq_calibration_free(r->seen);
    sample_close(&r->drawn);
    ptq_cifar10_free(r->test);
}

/* ---- Writing ---- */

static int save_page(const report *r) {
    char *text = NULL;
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
    status = ptq_file_write(output_option, text, size, &err);
    free(text);
    if (status)
        return fail("%s", err.text);
    say("%d model%s, %zu test images: %s (%zu bytes)\n", r->models, r->models > 1 ? "s" : "",
        r->images.count, output_option, size);
    return 0;
}

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
    write_figure_style(out, 1);
    fprintf(out, "</style>%s", inside);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

static int save_png(const report *r) {
    const figure *f = find_figure(figure_option);
    int tensor = tensor_option ? ptq_calibration_find(r->seen, tensor_option) : 0, status = 1;
    char *svg, *styled, *png = NULL;
    size_t size = 0;
    FILE *out;
    ptq_error err;

    if (!f)
        return 1; /* check_png said so before the work began */
    if (tensor < 0)
        return fail("there is no tensor '%s'; ptq info lists them", tensor_option);
    svg = draw_figure(f, r, tensor, &size);
    styled = svg ? with_style(svg, &size) : NULL;
    out = styled ? open_memstream(&png, &size) : NULL;
    if (!out)
        fail("no memory for the figure");
    else if (!render_png(styled, strlen(styled), out) && !fflush(out))
        status = ptq_file_write(png_option, png, size, &err) ? fail("%s", err.text) : 0;
    if (out)
        fclose(out);
    free(png);
    free(styled);
    free(svg);
    if (!status)
        say("%s: %s\n", png_option, f->about);
    return status;
}

static int check_png(void) {
    if (!find_figure(figure_option))
        return fail("there is no figure '%s'; ptq report --help lists them", figure_option);
    return 0;
}

#else

static int save_png(const report *r) {
    (void)r;
    return 1;
}

static int check_png(void) {
    return fail("--png needs librsvg, which this build is without; install librsvg2-dev and build "
                "again, or take -o OUT.html");
}

#endif

/* "--help" lists the figures. */
static const char *describe(char *text, size_t size) {
    size_t at = (size_t)snprintf(
        text, size,
        "Evaluates the models on the test images and writes one self-contained HTML page: "
        "verdict,\n"
        "accuracy, size, confusion, per-layer error, histograms with the ranges that observers\n"
        "choose, changed images, the graph. Figures for --png:");

    for (const figure *f = report_figures; f->name && at < size; f++)
        at += (size_t)snprintf(text + at, size - at, "\n  %-12s %s", f->name, f->about);
    return text;
}

static int check_options(void) {
    if (!model_option[0] || !baseline_option)
        return fail("name the quantized model with --model and the float model it comes from with "
                    "--baseline");
    if (!output_option == !png_option)
        return fail("say where to write the page with -o OUT.html, or one figure with --png");
    if (png_option && check_png())
        return 1;
    return check_output(output_option ? output_option : png_option, baseline_option);
}

int command_report(int argc, char **argv) {
    static char about[1024]; /* the help keeps it */
    report *r;
    int parsed, status;

    help.about = describe(about, sizeof about);
    parsed = parse_options(argc, argv, specs, &help, NULL, 0);
    if (parsed)
        return parsed == OPTIONS_BAD;
    if (threads == 0)
        threads = count_cores();
    if (check_options())
        return 1;
    r = calloc(1, sizeof *r);
    if (!r)
        return fail("no memory");
    status = measure(r);
    if (!status)
        status = png_option ? save_png(r) : save_page(r);
    close_report(r);
    free(r);
    return status;
}
