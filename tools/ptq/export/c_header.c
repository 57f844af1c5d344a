/* Models as C headers, for ptq export --c-header: what both kinds of headers have in common, and
   the kind that works with ptq.h. It holds the model file's bytes and the functions of
   library_runner.h, which run them in static memory. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/c_header.h"
#include "export/library_runner.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/output.h"

/* The lines of that file, made by the Makefile: a list of strings that ends with NULL. */
static const char *const runner_lines[] = {
#include "library_runner.inc"
    NULL};

#define ITEM_SIZE 64 /* of one number, with room to spare */

/* ---- Names ---- */

static void derive_name(const char *path, char name[NAME_LIMIT + 1]) {
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path;
    size_t n = 0;

    if (!isalpha((unsigned char)*from))
        n = (size_t)snprintf(name, NAME_LIMIT + 1, "net_");
    for (; *from && *from != '.' && n < NAME_LIMIT; from++)
        name[n++] = (char)(isalnum((unsigned char)*from) ? *from : '_');
    name[n] = 0;
}

static int is_identifier(const char *name) {
    if (!isalpha((unsigned char)*name))
        return 0;
    while (isalnum((unsigned char)*name) || *name == '_')
        name++;
    return !*name;
}

static int choose_name(header *h, const char *name, const char *path) {
    if (name && (!is_identifier(name) || strlen(name) > NAME_LIMIT))
        return fail("--name must be a letter, then letters, digits and _, at most %d in all, not "
                    "'%.60s'",
                    NAME_LIMIT, name);
    if (name)
        strcpy(h->name, name);
    else
        derive_name(path, h->name);
    for (size_t i = 0; i < sizeof h->name; i++)
        h->upper[i] = (char)toupper((unsigned char)h->name[i]);
    if (strncmp(h->upper, "PTQ", 3) == 0 && (h->upper[3] == 0 || h->upper[3] == '_'))
        return fail("names that begin with '%s' belong to ptq.h; choose another with --name",
                    h->name);
    return 0;
}
/* ---- Text ---- */

/* A line with the network's name where an identifier begins with net_ or NET_, or where `net_.`
   stands. */
static void put_line(const header *h, const char *line) {
    int inside = 0; /* an identifier */

    while (*line) {
        int begins = !inside && (strncmp(line, "net_", 4) == 0 || strncmp(line, "NET_", 4) == 0);

        inside = isalnum((unsigned char)*line) || *line == '_';
        if (begins)
            fputs(*line == 'n' ? h->name : h->upper, h->to);
        else
            fputc(*line, h->to);
        line += !begins ? 1 : line[4] == '.' ? 4 : 3;
    }
}

void put_lines(const header *h, const char *const *lines) {
    for (; *lines; lines++)
        put_line(h, *lines);
}

/* What a program sees, written for pixels, and how it reads where a network takes real numbers. */
static const char *const of_reals[][2] = {{"const uint8_t *pixels", "const float *input"},
                                          {"static uint8_t pixels", "static float input"},
                                          {"ptq_run(", "ptq_run_f32("},
                                          {" bytes to", " numbers to"},
                                          {"pixels", "input"}};

void put_use(const header *h, const char *const *lines) {
    for (; *lines; lines++) {
        char text[2 * 100] = "";
        const char *from = *lines;

        while (*from && strlen(text) < 100) {
            size_t i = 0, n = sizeof of_reals / sizeof of_reals[0];

            while (i < n && strncmp(from, of_reals[i][0], strlen(of_reals[i][0])) != 0)
                i++;
            if (i < n && h->model->node[0].real) {
                strcat(text, of_reals[i][1]);
                from += strlen(of_reals[i][0]);
            } else {
                strncat(text, from++, 1);
            }
        }
        put_line(h, text);
    }
}

/* Copies the sections whose bit is set, without the lines that mark them. */
void put_sections(const header *h, const char *const *lines, unsigned wanted) {
    static const char marker[] = "/* [section ";
    int section = -1;

    for (; *lines; lines++) {
        if (strncmp(*lines, marker, sizeof marker - 1) == 0)
            section++;
        else if (section >= 0 && wanted >> section & 1)
            put_line(h, *lines);
    }
}

int put_section(const header *h, const char *const *lines, const char *name) {
    static const char marker[] = "/* [section ";
    size_t n = strlen(name);
    int found = 0, inside = 0;

    for (; *lines; lines++) {
        if (strncmp(*lines, marker, sizeof marker - 1) == 0) {
            const char *called = *lines + sizeof marker - 1;

            found |= inside = strncmp(called, name, n) == 0 && called[n] == ']';
        } else if (inside) {
            put_line(h, *lines);
        }
    }
    return found;
}

/* Metadata may hold anything, even the end of a comment. */
static void put_harmless(const header *h, const char *text) {
    for (int n = 0; *text && n < 200; text++, n++)
        fputc(isalnum((unsigned char)*text) || strchr(" .,%:;+-()=_", *text) ? *text : '?', h->to);
}

static void put_meta(const header *h, const char *label, const char *key) {
    const char *value = ptq_model_get_meta(h->model, key);

    if (!value)
        return;
    fprintf(h->to, "     %s: ", label);
    put_harmless(h, value);
    fputc('\n', h->to);
}

/* The items of a table, as many as fit into a line. */
void put_item(header *h, const char *item) {
    int length = (int)strlen(item) + 1;

    if (h->column == 0 || h->column + length + 1 > 100)
        h->column = fprintf(h->to, h->column ? "\n    %s," : "    %s,", item) - (h->column ? 1 : 0);
    else
        h->column += fprintf(h->to, " %s,", item);
}

void put_number(header *h, long number) {
    char item[ITEM_SIZE];

    snprintf(item, sizeof item, "%ld", number);
    put_item(h, item);
}

/* ---- What both kinds have ---- */

size_t elements(const int *shape) { return (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2]; }

void put_sizes(const header *h, size_t arena) {
    const int *shape = h->model->node[0].shape;

    fprintf(h->to,
            "#define %s_HEIGHT %d\n#define %s_WIDTH %d\n#define %s_CHANNELS %d\n"
            "#define %s_PIXELS %zu /* %s: rows, columns, channels */\n"
            "#define %s_CLASSES %d\n",
            h->upper, shape[0], h->upper, shape[1], h->upper, shape[2], h->upper, elements(shape),
            h->start                 ? "codes of an input"
            : h->model->node[0].real ? "floats of an input"
                                     : "bytes of an image",
            h->upper, ptq_plan_get_info(h->plan)->classes);
    if (arena)
        fprintf(h->to, "#define %s_ARENA_BYTES %zu\n", h->upper, arena);
}

void put_head(const header *h, const char *title) {
    char precision[64];

    describe_precision(h->model, precision, sizeof precision);
    fprintf(h->to, "/* %s.h - %s\n\n     network: %s, %d operators, %dx%dx%d %s to %d logits\n",
            h->name, title, precision, h->logits, h->model->node[0].shape[0],
            h->model->node[0].shape[1], h->model->node[0].shape[2],
            h->model->node[0].real ? "real numbers" : "pixels",
            ptq_plan_get_info(h->plan)->classes);
    put_meta(h, "scheme", "scheme");
    put_meta(h, "calibrated on", "calibration");
    put_meta(h, "accuracy, as measured when it was quantized", "accuracy");
}

void put_guard(const header *h, const char *include) {
    fprintf(h->to, "#ifndef %s_H\n#define %s_H\n\n%s\n", h->upper, h->upper, include);
}

void put_middle(const header *h) {
    fprintf(h->to,
            "\n#endif /* %s_H */\n\n#ifdef %s_IMPLEMENTATION\n#ifndef %s_IMPLEMENTED\n"
            "#define %s_IMPLEMENTED\n\n",
            h->upper, h->upper, h->upper, h->upper);
}

void put_end(const header *h) {
    fprintf(h->to, "\n#endif /* %s_IMPLEMENTED */\n#endif /* %s_IMPLEMENTATION */\n", h->upper,
            h->upper);
}
/* ---- With ptq.h ---- */

static const char *const library_use[] = {
    "\n",
    "   Goes together with ptq.h, and needs no heap. In exactly one file write\n",
    "\n",
    "       #define PTQ_IMPLEMENTATION\n",
    "       #include \"ptq.h\"\n",
    "       #define NET_IMPLEMENTATION\n",
    "       #include \"net_.h\"\n",
    "\n",
    "   and everywhere else only the #includes. Then\n",
    "\n",
    "       static uint8_t pixels[NET_PIXELS]; // rows, columns, channels\n",
    "       float logits[NET_CLASSES];\n",
    "       ptq_error err;\n",
    "       if (net_run(pixels, logits, &err)) puts(err.text);\n",
    "\n",
    "   The first call makes the model ready; from then on nothing can fail. The memory is\n",
    "   static: one call at a time. Where ptq.h is to do without files, define PTQ_NO_STDIO\n",
    "   before both.\n",
    "   Written by \"ptq export --c-header\" (" PTQ_VERSION "). */\n",
    NULL};

static const char *const library_api[] = {
    "\n",
    "/* Instruction set: PTQ_ISA_AUTO is faster on large processors, and needs more memory. */\n",
    "#ifndef NET_ISA\n",
    "#define NET_ISA PTQ_ISA_SCALAR\n",
    "#endif\n",
    "\n",
    "#ifdef __cplusplus\n",
    "extern \"C\"\n",
    "#endif\n",
    "/* From NET_PIXELS bytes to NET_CLASSES logits. PTQ_OUT_OF_MEMORY: NET_MEMORY_BYTES is too\n",
    "   small for NET_ISA. */\n",
    "ptq_status net_run(const uint8_t *pixels, float *logits, ptq_error *err);\n",
    NULL};

static const char *const library_run[] = {
    "ptq_status net_run(const uint8_t *pixels, float *logits, ptq_error *err)\n",
    "{\n",
    "    static union {\n",
    "        net_block block; /* for its alignment */\n",
    "        unsigned char bytes[NET_MEMORY_BYTES];\n",
    "    } memory;\n",
    "    static ptq_session *session;\n",
    "    net_heap heap;\n",
    "    ptq_status status = PTQ_OK;\n",
    "    heap.memory = memory.bytes + (16 - (uintptr_t)memory.bytes % 16) % 16;\n",
    "    heap.size = sizeof memory.bytes - 16;\n",
    "    heap.used = 0;\n",
    "    if (!session)\n",
    "        status = net_open(&heap, NET_ISA, net_file.bytes, sizeof net_file.bytes, &session,\n",
    "                          err);\n",
    "    return status ? status : ptq_run(session, pixels, 1, logits, NULL, err);\n",
    "}\n",
    NULL};

/* What the header's own code takes on this machine; pointers are nowhere larger. */
static int measure_memory(const void *file, size_t size, size_t *bytes) {
    net_heap heap = {NULL, 0, 0};
    ptq_session *session;
    ptq_status status;
    ptq_error err;

    heap.size = ((size_t)256 << 20) + 64 * size;
    heap.memory = malloc(heap.size);
    if (!heap.memory)
        return fail("no memory to try the model in");
    status = net_open(&heap, PTQ_ISA_SCALAR, file, size, &session, &err);
    *bytes = heap.used + 32; /* to align it */
    free(heap.memory);
    return status ? fail("%s", err.text) : 0;
}

static void put_file(header *h, const unsigned char *bytes, size_t size) {
    fprintf(h->to,
            "/* The model file. */\nstatic const struct {\n    uint64_t align;\n"
            "    uint8_t bytes[%zu];\n} %s_file = {0, {\n",
            size, h->name);
    h->column = 0;
    for (size_t i = 0; i < size; i++)
        put_number(h, bytes[i]);
    fputs("\n}};\n\n", h->to);
}

static void put_library(header *h, const unsigned char *bytes, size_t size, size_t memory) {
    put_head(h, "a network for ptq.h");
    fprintf(h->to, "     constants (flash): %zu bytes, and the library's code\n", size);
    fprintf(h->to, "     memory (RAM): %zu bytes, of which activations %zu\n", memory,
            ptq_plan_get_info(h->plan)->arena_bytes);
    put_use(h, library_use);
    put_guard(h, "#include <stdint.h>\n\n#include \"ptq.h\"\n");
    put_sizes(h, 0);
    fprintf(h->to, "#ifndef %s_MEMORY_BYTES\n#define %s_MEMORY_BYTES %zu\n#endif\n", h->upper,
            h->upper, memory);
    put_use(h, library_api);
    put_middle(h);
    put_sections(h, runner_lines, 1);
    put_file(h, bytes, size);
    put_use(h, library_run);
    put_end(h);
}

/* The model as it would be saved: what other programs put into the file stays behind. */
static int write_library(header *h, FILE *to) {
    void *bytes = NULL;
    size_t size, memory = 0;
    ptq_error err;
    int status;

    if (ptq_model_write(h->model, &bytes, &size, &err))
        return fail("%s", err.text);
    h->to = to;
    status = measure_memory(bytes, size, &memory);
    if (!status)
        put_library(h, bytes, size, memory);
    ptq_bytes_free(bytes, NULL);
    return status;
}
/* ---- Both ---- */

int has_codes(const ptq_node *node) { return node->q.type != PTQ_TYPE_F32; }

const ptq_node *operand_of(const header *h, const ptq_node *node, int k) {
    return &h->model->node[node->input[k]];
}

size_t offset_of(const header *h, int index) {
    ptq_step_info step;

    ptq_plan_step(h->plan, index, &step);
    return step.offset;
}

static int write_header(header *h, const char *out_path, const header_form *form) {
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    ptq_error err;
    int status;

    if (!to)
        return fail("no memory for the header");
    status = form->standalone ? write_standalone(h, form, to) : write_library(h, to);
    if (fclose(to) && !status)
        status = fail("no memory for the header");
    if (!status && ptq_file_write(out_path, text, size, &err))
        status = fail("%s", err.text);
    free(text);
    return status;
}

int export_c_header(const char *model_path, const char *out_path, const char *name,
                    const header_form *form) {
    header h;
    engine ready;
    int status;

    memset(&h, 0, sizeof h);
    if (choose_name(&h, name, out_path) || engine_open(model_path, 1, "scalar", &ready))
        return 1;
    h.model = ready.model;
    h.plan = ready.plan;
    h.small = form->small;
    h.test = form->test;
    h.logits = ptq_model_logits(h.model);
    status = engine_self_test(&ready) || write_header(&h, out_path, form);
    if (!status)
        say("%s: %s_run(), %s\n", out_path, h.name,
            form->standalone ? "on its own" : "together with ptq.h");
    if (!status && form->standalone)
        budget_tell(&h);
    free(h.flash);
    engine_close(&ready);
    return status;
}

/* The header is written and thrown away. */
int measure_flash(const ptq_model *model, const ptq_plan *plan, header_flash *flash) {
    const header_form form = {.standalone = 1};
    header h = {.model = model, .plan = plan, .name = "net", .upper = "NET"};
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    int status;

    if (!to)
        return fail("no memory for the header");
    status = write_standalone(&h, &form, to);
    if (fclose(to) && !status)
        status = fail("no memory for the header");
    *flash = (header_flash){h.constants, budget_code(&h, 0), budget_code(&h, 1)};
    free(h.flash);
    free(text);
    return status;
}
