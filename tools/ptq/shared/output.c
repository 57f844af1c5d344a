/* Everything the tool says: errors in one line, text for people, JSON for programs. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ptq.h"
#include "shared/machine.h"
#include "shared/output.h"

#define LINE_SIZE 16384 /* several names of files */
#define WIDTH 80        /* columns of a terminal */

/* All that the tool remembers outside of functions: what output_begin sets. */
static const char *subcommand = "";
static const char *json_path; /* "-": standard output */
static int quiet, misused;

void output_begin(const char *name) {
    subcommand = name;
    json_path = NULL;
    quiet = misused = 0;
}

const char *output_subcommand(void) { return subcommand; }

/* ---- For people ---- */

/* One line on standard error. Names that come from files may hold anything: a control character in
   them neither breaks the line nor reaches a terminal. */
static void print_line(ink colour, const char *kind, const char *format, va_list args) {
    char line[LINE_SIZE];

    vsnprintf(line, sizeof line, format, args);
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    fprintf(stderr, "%sptq%s%s: %s%s%s\n", ink_of(stderr, colour), *subcommand ? " " : "",
            subcommand, kind, ink_of(stderr, INK_PLAIN), line);
}

int fail(const char *format, ...) {
    va_list args;

    va_start(args, format);
    print_line(INK_BAD, "", format, args);
    va_end(args);
    return 1;
}

int misuse(const char *format, ...) {
    va_list args;

    va_start(args, format);
    print_line(INK_BAD, "", format, args);
    va_end(args);
    misused = 1;
    return 1;
}

int was_misused(void) { return misused; }

void warn(const char *format, ...) {
    va_list args;

    va_start(args, format);
    print_line(INK_DOUBTFUL, "warning: ", format, args);
    va_end(args);
}

void say(const char *format, ...) {
    va_list args;

    if (quiet)
        return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

void put_wrapped(FILE *to, int at, int indent, const char *text) {
    size_t width = (size_t)(WIDTH - at);

    while (strlen(text) > width) {
        const char *blank = text + width;

        while (blank > text && *blank != ' ')
            blank--;
        if (blank == text) /* a word that is longer than a line */
            blank += strcspn(text, " ");
        if (!*blank)
            break;
        fprintf(to, "%.*s\n%*s", (int)(blank - text), text, indent, "");
        text = blank + 1;
        width = (size_t)(WIDTH - indent);
    }
    fprintf(to, "%s\n", text);
}

void say_wrapped(int indent, const char *format, ...) {
    char text[LINE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!quiet)
        put_wrapped(stdout, 0, indent, text);
}

void say_line(int indent, const char *format, ...) {
    char text[LINE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (isatty(STDOUT_FILENO))
        say_wrapped(indent, "%s", text);
    else
        say("%s\n", text);
}

void say_written(const char *path, const char *format, ...) {
    char text[LINE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say("written   %s: %s\n", path, text);
}

const char *count_text(uint64_t value, char text[COUNT_SIZE]) {
    char *at = text + COUNT_SIZE - 1;
    int digits = 0;

    *at = 0;
    do {
        if (digits && digits % 3 == 0)
            *--at = ',';
        *--at = (char)('0' + value % 10);
        value /= 10;
        digits++;
    } while (value);
    return at;
}

const char *ink_of(FILE *to, ink wanted) {
    static const char *const sequence[] = {"\033[0m", "\033[32m", "\033[33m", "\033[31m"};
    const char *off = environment("NO_COLOR"), *terminal = environment("TERM");
    int plain = (off && *off) || !terminal || !strcmp(terminal, "dumb") || !isatty(fileno(to));

    return plain ? "" : sequence[wanted];
}

/* ---- For programs ---- */

#ifdef PTQ_HAVE_jansson

int json_setup(const char *path) {
    json_path = path;
    quiet = path && strcmp(path, "-") == 0;
    return 0;
}

void json_set_count(json_t *object, const char *key, uint64_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

int json_finish(json_t *root) {
    ptq_error err;
    ptq_status status = PTQ_OK;
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    size_t length;

    json_decref(root);
    if (!text)
        return fail("no memory for the JSON");
    length = strlen(text);
    text[length] = '\n';
    if (quiet)
        fwrite(text, 1, length + 1, stdout);
    else
        status = ptq_file_write(json_path, text, length + 1, &err);
    free(text);
    return status ? fail("%s", err.text) : 0;
}

#else

int json_setup(const char *path) {
    return path ? fail("--json needs the jansson library; install it and build again") : 0;
}

#endif
