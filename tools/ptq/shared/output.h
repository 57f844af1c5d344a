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

/* The same for a command line that is wrong: the program's exit status becomes 2. */
int misuse(const char *format, ...) PRINTF_LIKE(1, 2);
int was_misused(void);

/* The same for what does not stop the work: "ptq SUBCOMMAND: warning: message". */
void warn(const char *format, ...) PRINTF_LIKE(1, 2);

/* printf to standard output, or to nowhere when JSON goes there. */
void say(const char *format, ...) PRINTF_LIKE(1, 2);

/* The same for one paragraph, broken into lines of at most 80 columns; `indent` blanks begin all but
   the first. */
void say_wrapped(int indent, const char *format, ...) PRINTF_LIKE(2, 3);

/* The same, but one line where standard output is no terminal: for programs that look for it. */
void say_line(int indent, const char *format, ...) PRINTF_LIKE(2, 3);

/* One paragraph to a stream: the first line begins in column `at`, where the cursor stands, the
   others after `indent` blanks; none is longer than 80 columns, single words aside. */
void put_wrapped(FILE *to, int at, int indent, const char *text);

/* What a command wrote, in one form for all of them: "written   PATH: ...". */
void say_written(const char *path, const char *format, ...) PRINTF_LIKE(2, 3);

/* 1234567 as "1,234,567". */
enum { COUNT_SIZE = 32 };
const char *count_text(uint64_t value, char text[COUNT_SIZE]);

/* The sequence that begins a colour, "" where the stream is no terminal, a terminal without them
   (TERM=dumb), or where NO_COLOR is set and not empty. */
typedef enum ink { INK_PLAIN, INK_GOOD, INK_DOUBTFUL, INK_BAD } ink;
const char *ink_of(FILE *to, ink wanted);

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
