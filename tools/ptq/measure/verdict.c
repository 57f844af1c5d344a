/* What a comparison allows to say: the interval of the change against a margin. */
#include <stdio.h>
#include <stdlib.h>

#include "measure/verdict.h"
#include "shared/output.h"

static int is_shown(const ptq_comparison *c, double images, double margin) {
    double scale = images / (double)c->total, low, high;

    ptq_paired_interval((double)c->lost * scale, (double)c->won * scale, images, &low, &high);
    return low > -margin;
}

/* The interval narrows as images grow: doubled until they do, then halved to the least, to within
   one in a hundred. */
static size_t images_needed(const ptq_comparison *c, double margin) {
    double few = (double)c->total, many = few;

    while (!is_shown(c, many, margin) && many < 1e12)
        many *= 2;
    while (many > 1.01 * few + 1) {
        double middle = (few + many) / 2;

        if (is_shown(c, middle, margin))
            many = middle;
        else
            few = middle;
    }
    return (size_t)many + 1;
}

verdict judge(const ptq_comparison *compared, double margin) {
    verdict found = {VERDICT_AS_GOOD, margin, 0};

    if (compared->low_pp > -margin)
        return found;
    found.kind = compared->delta_pp <= -margin ? VERDICT_WORSE : VERDICT_TOO_FEW;
    if (found.kind == VERDICT_TOO_FEW)
        found.needed = images_needed(compared, margin);
    return found;
}

const char *points_word(double number) { return number < 1 || number > 1 ? "points" : "point"; }

void verdict_text(const verdict *given, char *text, size_t size) {
    const char *points = points_word(given->margin);
    char needed[COUNT_SIZE];

    switch (given->kind) {
    case VERDICT_AS_GOOD:
        snprintf(text, size, "not worse than float by %g %s or more", given->margin, points);
        break;
    case VERDICT_TOO_FEW:
        snprintf(text, size,
                 "these images are too few to show that it is not worse than float by %g %s; about "
                 "%s would do, were as many of each hundred lost and won",
                 given->margin, points, count_text(given->needed, needed));
        break;
    default:
        snprintf(text, size,
                 "worse than float by more than the margin of %g %s; more images would not help",
                 given->margin, points);
    }
}

int read_margin(const char *given, double *margin) {
    char *end;

    *margin = DEFAULT_MARGIN;
    if (!given)
        return 0;
    *margin = strtod(given, &end);
    if (end == given || *end || !(*margin > 0 && *margin <= 100))
        return misuse("--margin must be a number of percentage points above 0, not '%s'", given);
    return 0;
}
