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

#define MOST_OPTIONS 48

static void print_help(const option_spec *specs, const command_help *help) {
    printf("usage: ptq %s\n\n%s\n\n", help->usage, help->about);
    for (; specs->name; specs++) {
        char left[64];

        snprintf(left, sizeof left, "%c%c%s --%s %s", specs->letter ? '-' : ' ',
                 specs->letter ? specs->letter : ' ', specs->letter ? "," : " ", specs->name,
                 specs->value ? specs->value : "");
        printf("  %-28s %s\n", left, specs->help);
    }
    printf("  %-28s %s\n\nExample:\n  %s\n", "    --help", "show this", help->example);
}

static int append_option(const option_spec *spec, const char *value) {
    for (int i = 0; i < spec->least; i++) {
        if (!spec->text[i]) {
            spec->text[i] = value;
            return OPTIONS_OK;
        }
    }
    fail("--%s may be given at most %d times", spec->name, spec->least);
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
        fail("--%s must be a whole number of at least %d, not '%s'", spec->name, spec->least,
             value);
        return OPTIONS_BAD;
    }
    *spec->number = (int)number;
    return OPTIONS_OK;
}

/* Fills getopt_long's tables; values are indices into specs, --help comes behind them. */
static int make_tables(const option_spec *specs, struct option *longs, char *letters) {
    int n = 0;

    *letters++ = ':';
    for (; specs[n].name; n++) {
        assert(n < MOST_OPTIONS);
        longs[n].name = specs[n].name;
        longs[n].has_arg = specs[n].value ? required_argument : no_argument;
        longs[n].flag = NULL;
        longs[n].val = 256 + n;
        if (specs[n].letter) {
            *letters++ = specs[n].letter;
            if (specs[n].value)
                *letters++ = ':';
        }
    }
    *letters = 0;
    longs[n].name = "help";
    longs[n].has_arg = no_argument;
    longs[n].flag = NULL;
    longs[n].val = 256 + n;
    memset(&longs[n + 1], 0, sizeof longs[n + 1]);
    return n;
}

static int find_option(const option_spec *specs, int code, int count) {
    if (code >= 256)
        return code - 256;
    for (int i = 0; i < count; i++)
        if (specs[i].letter == code)
            return i;
    return -1;
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
    struct option longs[MOST_OPTIONS + 2];
    char letters[2 * MOST_OPTIONS + 2];
    int count = make_tables(specs, longs, letters);
    int code;

    forget_outputs();
    opterr = 0;
    optind = 1;
    while ((code = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        int index = find_option(specs, code, count);

        if (index == count) {
            print_help(specs, help);
            return OPTIONS_HELP;
        }
        if (index < 0) {
            fail(code == ':' ? "%s needs a value; see 'ptq %s --help'"
                             : "unknown option %s; see 'ptq %s --help'",
                 argv[optind - 1], output_subcommand());
            return OPTIONS_BAD;
        }
        if (store_option(&specs[index], optarg))
            return OPTIONS_BAD;
    }
    if (argc - optind > most) {
        fail("unexpected argument '%s'; see 'ptq %s --help'", argv[optind + most],
             output_subcommand());
        return OPTIONS_BAD;
    }
    for (int i = 0; i < argc - optind; i++)
        positional[i] = argv[optind + i];
    return check_files(specs, argv + optind, argc - optind);
}
