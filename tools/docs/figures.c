/* figures: draws the figures of docs/ from real results.

       figures NAME OUT.svg MODEL DATA [IMAGES]    from a float model and CIFAR-10's form of data
       figures NAME OUT.svg <FILE                  kernel, mistakes: from what a program printed

   What a figure shows is printed as well. Calibration runs on scalar kernels, so that the figures
   are the same on every processor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "figures/figures.h"
#include "ptq.h"
#include "report/svg.h"

typedef struct figure {
    const char *name;
    int needs; /* a model and data */
    int (*draw)(source *s, FILE *out);
} figure;

static const figure figures[] = {
    {"network", 1, draw_network},
    {"window", 0, draw_window},
    {"number-line", 0, draw_number_line},
    {"fold", 1, draw_fold},
    {"observers", 1, draw_observers},
    {"trace", 1, draw_trace},
    {"residual", 1, draw_residual},
    {"channels", 1, draw_channels},
    {"bits", 1, draw_bits},
    {"kernel", 0, draw_kernel},
    {"interval", 1, draw_interval},
    {"sensitivity", 1, draw_sensitivity},
    {"mistakes", 0, draw_mistakes},
};

enum { FIGURES = sizeof figures / sizeof *figures };

static int usage(void) {
    size_t i;

    fputs("usage: figures NAME OUT.svg MODEL DATA [IMAGES]\n"
          "       figures kernel|mistakes OUT.svg <PRINTED\nNAME is one of",
          stderr);
    for (i = 0; i < FIGURES; i++)
        fprintf(stderr, " %s", figures[i].name);
    fputs("\n", stderr);
    return 1;
}

/* First to memory: what fails leaves the old file alone. */
static int draw(const figure *wanted, source *s, const char *path) {
    char temporary[PATH_SIZE];
    FILE *out;
    int status;

    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return fail("the path is too long");
    out = fopen(temporary, "w");
    if (!out)
        return fail("the figure cannot be written there; does the directory exist?");
    status = wanted->draw(s, out);
    svg_end(out);
    if (fclose(out) != 0)
        status = fail("the figure could not be written; is the disk full?");
    if (!status && rename(temporary, path) != 0)
        status = fail("the figure could not be renamed");
    if (status)
        remove(temporary);
    return status;
}

int main(int argc, char **argv) {
    static source s;
    const figure *wanted = NULL;
    size_t i;
    int status;

    for (i = 0; i < FIGURES && argc > 1; i++)
        if (strcmp(figures[i].name, argv[1]) == 0)
            wanted = &figures[i];
    if (!wanted || argc < 3 || (wanted->needs && argc < 5))
        return usage();
    s.images = argc > 5 ? (size_t)strtoul(argv[5], NULL, 10) : 500;
    if (wanted->needs) {
        s.model_path = argv[3];
        s.data_path = argv[4];
    }
    status = (wanted->needs && open_source(&s)) || draw(wanted, &s, argv[2]);
    close_source(&s);
    return status;
}
