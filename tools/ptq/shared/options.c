/* Options of the command line, and the help that lists them. */
#include <assert.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/files.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/suggest.h"

#define MOST_OPTIONS 48

/* What an option found is: its index, and whether it was spelled --no-NAME. */
enum { FIRST_LONG = 256, FIRST_NO = 512 };

enum { HELP_COLUMN = 31 };

static void print_option(char letter, const char *before, const char *name, const char *value,
                         const char *help) {
    char named[64];
    int used;

    snprintf(named, sizeof named, "--%s%s%s%s ", before, name, value ? " " : "",
             value ? value : "");
    if (letter)
        used = printf("  -%c, %-*s", letter, HELP_COLUMN - 6, named);
    else
        used = printf("      %-*s", HELP_COLUMN - 6, named);
    put_wrapped(stdout, used, HELP_COLUMN, help);
}

static int second_column(const char *line) {
    size_t at = strspn(line, " ");

    at += strcspn(line + at, " ");
    return (int)(at + strspn(line + at, " "));
}

/* Paragraphs, between empty lines, are wrapped; lines that begin with blanks stay lines, of which
   the second column is wrapped. */
static void print_text(const char *text) {
    while (*text) {
        char line[2048];
        size_t used = 0, n;

        do {
            n = strcspn(text, "\n");
            used += (size_t)snprintf(line + used, sizeof line - used, "%s%.*s", used ? " " : "",
                                     (int)n, text);
            text += n + (text[n] == '\n');
        } while (n && *text && *text != '\n' && *text != ' ' && *line != ' ' &&
                 used < sizeof line - 1);
        put_wrapped(stdout, 0, *line == ' ' ? second_column(line) : 0, line);
    }
}

static void print_help(const option_spec *specs, const command_help *help) {
    printf("usage: ptq %s\n\n", help->usage);
    print_text(help->about);
    putchar('\n');
    for (; specs->name; specs++) {
        print_option(specs->letter, "", specs->name, specs->value, specs->help);
        if (specs->choice)
            print_option(0, "no-", specs->name, NULL, "leave it out, whatever the preset says");
    }
    print_option('h', "", "help", NULL, "show this");
    printf("\nExample:\n  %s\n", help->example);
}

static int append_option(const option_spec *spec, const char *value) {
    for (int i = 0; i < spec->least; i++) {
        if (!spec->text[i]) {
            spec->text[i] = value;
            return OPTIONS_OK;
        }
    }
    misuse("--%s may be given at most %d times", spec->name, spec->least);
    return OPTIONS_BAD;
}

static int store_option(const option_spec *spec, const char *value) {
    char *end;
    long number;

    if (spec->flag) {
        *spec->flag = 1;
        return OPTIONS_OK;
    }
    if (spec->text && spec->least)
        return append_option(spec, value);
    if (spec->text) {
        *spec->text = value;
        return OPTIONS_OK;
    }
    number = strtol(value, &end, 10);
    if (end == value || *end || number < spec->least || number > INT_MAX) {
        misuse("--%s must be a whole number of at least %d, not '%s'", spec->name, spec->least,
               value);
        return OPTIONS_BAD;
    }
    *spec->number = (int)number;
    return OPTIONS_OK;
}

/* "yes" or "no" behind a choice, as older versions had it, is taken as well. */
static void store_choice(const option_spec *spec, int chosen, int argc, char **argv) {
    const char *next = optind < argc ? argv[optind] : "";

    *spec->choice = chosen;
    if (chosen && (strcmp(next, "yes") == 0 || strcmp(next, "no") == 0)) {
        *spec->choice = *next == 'y';
        optind++;
    }
}

static void set_long(struct option *to, const char *name, int takes_value, int code) {
    to->name = name;
    to->has_arg = takes_value ? required_argument : no_argument;
    to->flag = NULL;
    to->val = code;
}

/* getopt_long's tables. */
typedef struct tables {
    struct option longs[2 * MOST_OPTIONS + 2];
    char letters[2 * MOST_OPTIONS + 3], no[MOST_OPTIONS][32];
    int count; /* of specs; what comes behind them is --help */
} tables;

static void make_tables(const option_spec *specs, tables *made) {
    struct option *at = made->longs;
    char *letter = made->letters;
    int n = 0;

    *letter++ = ':';
    *letter++ = 'h';
    for (; specs[n].name; n++) {
        assert(n < MOST_OPTIONS);
        set_long(at++, specs[n].name, specs[n].value != NULL, FIRST_LONG + n);
        if (specs[n].choice) {
            snprintf(made->no[n], sizeof made->no[n], "no-%s", specs[n].name);
            set_long(at++, made->no[n], 0, FIRST_NO + n);
        }
        if (specs[n].letter) {
            *letter++ = specs[n].letter;
            if (specs[n].value)
                *letter++ = ':';
        }
    }
    *letter = 0;
    set_long(at++, "help", 0, FIRST_LONG + n);
    memset(at, 0, sizeof *at);
    made->count = n;
}

static int find_option(const option_spec *specs, int code, int count) {
    if (code == 'h')
        return count;
    if (code >= FIRST_NO)
        return code - FIRST_NO;
    if (code >= FIRST_LONG)
        return code - FIRST_LONG;
    for (int i = 0; i < count; i++)
        if (specs[i].letter == code)
            return i;
    return -1;
}

/* All that begins like the word, or else what is spelled much like it. */
static void complain(const tables *known, const char *word) {
    char begins[256] = "", text[SUGGESTION_SIZE];
    size_t length = strcspn(word, "="), used = 0;
    char typed[64];
    suggestion near = {typed, NULL, 0};

    snprintf(typed, sizeof typed, "%.*s", length > 2 ? (int)length - 2 : 0, word + 2);
    for (const struct option *o = known->longs; o->name; o++) {
        if (*typed && strncmp(o->name, typed, strlen(typed)) == 0 && used < sizeof begins)
            used += (size_t)snprintf(begins + used, sizeof begins - used, "%s--%s",
                                     used ? ", " : "", o->name);
        suggest(&near, o->name);
    }
    if (used)
        misuse("%s may be any of %s; see 'ptq %s --help'", word, begins, output_subcommand());
    else if (near.nearest)
        misuse("unknown option %s%s? 'ptq %s --help' lists them all", word,
               suggestion_text(&near, "--", text), output_subcommand());
    else
        misuse("unknown option %s; see 'ptq %s --help'", word, output_subcommand());
}

/* What getopt_long refused. Of several letters behind one dash it names the one. */
static int refuse_option(const tables *known, int code, char **argv) {
    const char *word = argv[optind - 1];
    char letter[3] = {'-', (char)optopt, 0};

    if (code == ':')
        misuse("%s needs a value; see 'ptq %s --help'", word, output_subcommand());
    else if (optopt > 0 && optopt < FIRST_LONG)
        misuse("unknown option %s; see 'ptq %s --help'", letter, output_subcommand());
    else if (optopt >= FIRST_LONG)
        misuse("%s takes no value; see 'ptq %s --help'", word, output_subcommand());
    else
        complain(known, word);
    return OPTIONS_BAD;
}

/* All outputs first, which must be writable before any work is done, then every input against
   them. */
static int check_files(const option_spec *specs, char **inputs, int count) {
    int bad = 0;

    for (const option_spec *s = specs; s->name && !bad; s++)
        if (s->file == WRITTEN_FILE && *s->text && strcmp(*s->text, "-") != 0)
            bad = check_output(*s->text) || add_output(*s->text);
    for (const option_spec *s = specs; s->name && !bad; s++)
        for (int i = 0; s->file == READ_FILE && i < (s->least ? s->least : 1) && !bad; i++)
            bad = s->text[i] && check_input(s->text[i]);
    for (int i = 0; i < count && !bad; i++)
        bad = check_input(inputs[i]);
    return bad ? OPTIONS_BAD : OPTIONS_OK;
}

int parse_options(int argc, char **argv, const option_spec *specs, const command_help *help,
                  char **positional, int most) {
    tables known;
    int code;

    make_tables(specs, &known);
    forget_outputs();
    opterr = 0;
    optind = 1;
    while ((code = getopt_long(argc, argv, known.letters, known.longs, NULL)) != -1) {
        int index = find_option(specs, code, known.count);

        if (index == known.count) {
            print_help(specs, help);
            return OPTIONS_HELP;
        }
        if (index < 0)
            return refuse_option(&known, code, argv);
        if (specs[index].choice)
            store_choice(&specs[index], code < FIRST_NO, argc, argv);
        else if (store_option(&specs[index], optarg))
            return OPTIONS_BAD;
    }
    if (argc - optind > most) {
        misuse("unexpected argument '%s'; see 'ptq %s --help'", argv[optind + most],
               output_subcommand());
        return OPTIONS_BAD;
    }
    for (int i = 0; i < argc - optind; i++)
        positional[i] = argv[optind + i];
    return check_files(specs, argv + optind, argc - optind);
}

int check_part(const char *wanted, const char *const *words) {
    char known[256] = "";
    size_t used = 0;

    for (int i = 0; words[i] && wanted; i++) {
        if (strcmp(wanted, words[i]) == 0)
            return 0;
        used +=
            (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", words[i]);
    }
    return wanted ? misuse("--show: there is no part '%s'; there are %s", wanted, known) : 0;
}

int shows_part(const char *wanted, const char *word) { return !wanted || !strcmp(wanted, word); }
