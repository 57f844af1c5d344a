/* Everything the tool says: errors in one line, text for people, JSON for programs. */
#ifndef PTQ_TOOL_OUTPUT_H
#define PTQ_TOOL_OUTPUT_H

#include <stdint.h>
#include <stdio.h>

#ifdef PTQ_HAVE_jansson
#include <jansson.h>
#endif

#define SCHEMA_VERSION 1

#if defined(__GNUC__) || defined(__clang__)
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#else
#define PRINTF_LIKE(text, first)
#endif

/* Begins a subcommand ("" before it is known) and forgets what an earlier one has set. */
void output_begin(const char *subcommand);
const char *output_subcommand(void);

/* ---- For people ---- */

/* Prints "ptq SUBCOMMAND: message" on standard error and returns 1, an exit status. */
int fail(const char *format, ...) PRINTF_LIKE(1, 2);

/* The same for what does not stop the work: "ptq SUBCOMMAND: warning: message". */
void warn(const char *format, ...) PRINTF_LIKE(1, 2);

/* printf to standard output, or to nowhere when JSON goes there. */
void say(const char *format, ...) PRINTF_LIKE(1, 2);

/* The same for one paragraph, broken into lines of at most 80 columns; `indent` blanks begin all but
   the first. */
void say_wrapped(int indent, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- For programs ---- */

/* To be called once with the value of --json (NULL: none). 1 if this build cannot write it. */
int json_setup(const char *path);

#ifdef PTQ_HAVE_jansson
/* Writes to the path given to json_setup and drops the reference. */
int json_finish(json_t *root);

/* Integers that may be unsigned and larger than int. */
void json_set_count(json_t *object, const char *key, uint64_t value);
#endif

#endif
