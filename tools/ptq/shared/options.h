/* Options of the command line, and the help that lists them. */
#ifndef PTQ_TOOL_OPTIONS_H
#define PTQ_TOOL_OPTIONS_H

/* Of an option's value: no file, one that is read, one that is written. */
enum { NO_FILE, READ_FILE, WRITTEN_FILE };

/* One option, for the parser and for --help. Exactly one of the four targets is set. */
typedef struct option_spec {
    const char *name;  /* long spelling */
    char letter;       /* short spelling, or 0 */
    const char *value; /* placeholder in the help; NULL for a flag */
    const char *help;
    const char **text;
    int *number; /* at least `least` */
    int *flag;
    int *choice; /* --NAME makes it 1, --no-NAME 0, as do "--NAME yes" and "--NAME no", which older
                    versions had */
    int least;   /* of text: 0, or the size of the array at `text`, for an option that may be given
                  so many times; the values fill it in order */
    int file;    /* whether the value names a file or directory, and what becomes of it */
} option_spec;

/* Options that many commands have; `to` is the member that takes the value. */
#define OPTION_FLOAT_MODEL(to)                                                                     \
    { "model", 'm', "MODEL", "float model file (.safetensors)", .text = &(to), .file = READ_FILE }
#define OPTION_JSON(to)                                                                            \
    { "json", 0, "FILE", "write as JSON (-: standard output)", .text = &(to), .file = WRITTEN_FILE }

typedef struct command_help {
    const char *usage; /* what stands after "ptq " */
    const char *about;
    const char *example;
} command_help;

enum { OPTIONS_OK, OPTIONS_HELP, OPTIONS_BAD };

/* The value of --show, a command's name for a part of what it prints: whether `wanted` (NULL: all)
   is one of the words, which end with NULL. 0, or 1 after an error; and whether a part is shown. */
int check_part(const char *wanted, const char *const *words);
int shows_part(const char *wanted, const char *word);
#define OPTION_SHOW(to, parts)                                                                     \
    { "show", 0, "PART", "print this part alone: " parts, .text = &(to) }

/* Fills the targets of the options given; the others keep what they hold, the default. The list
   ends with a NULL name. The other arguments, of which there may be at most `most`, go to
   `positional`; they name files to read. No file to write may be one that is read (files.h). A
   result other than OPTIONS_OK ends the command; for its exit status, OPTIONS_BAD is 1. */
int parse_options(int argc, char **argv, const option_spec *specs, const command_help *help,
                  char **positional, int most);

#endif
