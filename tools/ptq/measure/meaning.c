/* What a comparison with the float model means, in words. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "measure/accuracy.h"
#include "measure/meaning.h"
#include "measure/verdict.h"
#include "shared/output.h"

PRINTF_LIKE(3, 4) static void append(char *text, size_t size, const char *format, ...) {
    size_t used = strlen(text);
    va_list args;

    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

/* ---- One plain line ---- */

const char *meaning_text(const evidence *e, char text[MEANING_SIZE]) {
    const ptq_comparison *c = e->compared;
    verdict found = judge(c, e->margin);
    char count[COUNT_SIZE], needed[COUNT_SIZE];

    if (found.kind == VERDICT_AS_GOOD)
        snprintf(text, MEANING_SIZE,
                 "on these images it is as good as the float model, to within "
                 "%g %s",
                 e->margin, points_word(e->margin));
    else if (found.kind == VERDICT_WORSE)
        snprintf(text, MEANING_SIZE, "it is worse than the float model: %.2f points are lost",
                 -c->delta_pp);
    else
        snprintf(text, MEANING_SIZE,
                 "%s images are too few to say whether it is as good as the float model; about %s "
                 "would do",
                 count_text(c->total, count), count_text(found.needed, needed));
    if (e->seen)
        append(text, MEANING_SIZE, "; these images were calibrated on, others may fare worse");
    append(text, MEANING_SIZE, ".");
    return text;
}

void say_meaning(const evidence *e) {
    static const ink colours[] = {INK_GOOD, INK_DOUBTFUL, INK_BAD};
    verdict found = judge(e->compared, e->margin);
    char text[MEANING_SIZE];

    say("\n%s", ink_of(stdout, colours[found.kind]));
    say_wrapped(0, "In short: %s", meaning_text(e, text));
    say("%s", ink_of(stdout, INK_PLAIN));
}

/* ---- Warnings ---- */

static int has_word(const evidence *e, const char *word) {
    return e->scheme && strstr(e->scheme, word) != NULL;
}

/* Bits of weights or activations, 8 where nothing is known; the fewest of either. */
static int fewest_bits(const evidence *e) {
    int weights = 8, activations = 8;

    if (e->scheme)
        sscanf(e->scheme, "w%d%*[^,], a%d", &weights, &activations);
    return weights < activations ? weights : activations;
}

const char *remedies_text(const evidence *e, char text[REMEDIES_SIZE]) {
    int n = 0;

    *text = 0;
    if (has_word(e, "per-tensor"))
        append(text, REMEDIES_SIZE, "(%d) one scale a channel, --per-channel; ", ++n);
    if (e->scheme && !has_word(e, "learned") && !has_word(e, "refitted"))
        append(text, REMEDIES_SIZE, "(%d) rounding that is learned, --preset best; ", ++n);
    append(text, REMEDIES_SIZE,
           "(%d) more bits or float for the layers that 'ptq sensitivity --model %s' names first, "
           "--node LAYER=w8 or --node LAYER=float; ",
           n + 1, e->real);
    append(text, REMEDIES_SIZE, "(%d) training under the rounding, 'ptq train --model %s --qat %s'",
           n + 2, e->real, e->model);
    return text;
}

/* What does that is rarely the rounding of 8 bits. Fewer bits may: those who ask for 8 learn which
   of the two it is. */
static void warn_of_failure(const evidence *e) {
    char told[1024], images[64] = "";

    if (e->calibrated)
        snprintf(images, sizeof images, " (here %zu)", e->calibrated);
    if (fewest_bits(e) < 8)
        snprintf(told, sizeof told,
                 "'ptq quantize --model %s --preset minmax8' tells them from too few bits: if 8 "
                 "bits lose as much, it is one of these",
                 e->real);
    else
        snprintf(told, sizeof told,
                 "'ptq eval --model %s --baseline %s --layers 100' tells them apart: an SQNR that "
                 "is low from the first tensor on means pixels, one that drops at a later one "
                 "means its range, and so the images",
                 e->model, e->real);
    warn("it is right on %.0f %% of what the float model is right on; the usual causes: "
         "calibration images that were prepared otherwise than in training, that are random, or "
         "too few%s; a wrong mean and std; the wrong --padding at import; %s",
         100 * fraction(e->compared->after, e->compared->before), images, told);
}

static int is_guessing(const evidence *e) {
    double chance = e->classes > 1 ? 1.0 / (double)e->classes : 1, low, high;

    if (e->compared->total < 50 || chance > 0.6)
        return 0;
    ptq_share_interval(e->compared->before, e->compared->total, &low, &high);
    return low <= chance;
}

void warn_of_loss(const evidence *e) {
    const ptq_comparison *c = e->compared;
    char text[REMEDIES_SIZE];

    if (is_guessing(e)) {
        warn("the float model itself is right on %.1f %%, no better than guessing: other pixels "
             "than in training (--mean and --std at import; 'ptq info %s' shows them), the wrong "
             "--padding at import, or labels of other classes",
             100 * fraction(c->before, c->total), e->real);
        return;
    }
    if ((double)c->after < FAILED_SHARE * (double)c->before)
        warn_of_failure(e);
    if (c->delta_pp < -LOSS_POINTS)
        warn("%.2f points are lost%s%s; what helps, in this order: %s", -c->delta_pp,
             e->seen ? " on calibration images" : "",
             c->high_pp >= 0 ? ", if it is not chance on so few images" : "",
             remedies_text(e, text));
}
