/* Everything the tool says: errors in one line, text for people, JSON for programs. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptq.h"
#include "shared/output.h"

#define LINE_SIZE 16384 /* several names of files */
#define WIDTH 80        /* columns of a terminal */

/* All that the tool remembers outside of functions: what output_begin sets. */
static const char *subcommand = "";
static const char *json_path; /* "-": standard output */
static int quiet;

void output_begin(const char *name) {
    subcommand = name;
    json_path = NULL;
    quiet = 0;
}

const char *output_subcommand(void) { return subcommand; }

/* ---- For people ---- */

/* One line on standard error. Names that come from files may hold anything: a control character in
   them neither breaks the line nor reaches a terminal. */
static void print_line(const char *kind, const char *format, va_list args) {
    char line[LINE_SIZE];

    vsnprintf(line, sizeof line, format, args);
    for (char *at = line; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    fprintf(stderr, "ptq%s%s: %s%s\n", *subcommand ? " " : "", subcommand, kind, line);
}

int fail(const char *format, ...) {
    va_list args;

    va_start(args, format);
    print_line("", format, args);
    va_end(args);
    return 1;
}

void warn(const char *format, ...) {
    va_list args;

    va_start(args, format);
    print_line("warning: ", format, args);
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

void say_wrapped(int indent, const char *format, ...) {
    char text[LINE_SIZE], *rest = text;
    size_t width = WIDTH;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    while (strlen(rest) > width) {
        char *blank = rest + width;

        while (blank > rest && *blank != ' ')
            blank--;
        if (blank == rest) /* a word that is longer than a line */
            blank += strcspn(rest, " ");
        if (!*blank)
            break;
        say("%.*s\n%*s", (int)(blank - rest), rest, indent, "");
        rest = blank + 1;
        width = WIDTH - (size_t)indent;
    }
    say("%s\n", rest);
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
