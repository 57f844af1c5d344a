/* The advice of ptq sensitivity on the page of ptq report: which layers cost most, and what would
   help. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/accuracy.h"
#include "ptq.h"
#include "report/report.h"
#include "report/svg.h"
#include "shared/output.h"
#include "shared/progress.h"

/* ---- The scheme of a model, from its metadata ---- */

static void read_weight_word(const char *word, ptq_scheme *s) {
    s->weight_per_tensor |= !strcmp(word, "per-tensor");
    s->weight_affine |= !strcmp(word, "affine");
    s->weight_full_range |= !strcmp(word, "full");
    if (ptq_find_name(PTQ_NAMES_METHOD, word) >= 0)
        s->weight_method = (ptq_method)ptq_find_name(PTQ_NAMES_METHOD, word);
    if (!strcmp(word, "learned") || !strcmp(word, "refitted"))
        s->rounding = PTQ_ROUNDING_LEARNED;
    if (!strcmp(word, "refitted"))
        s->refit = PTQ_REFIT_ALWAYS;
    if (!strncmp(word, "bias-", 5))
        s->bias = PTQ_BIAS_CORRECTION_EMPIRICAL;
}

static void read_activation_word(const char *word, ptq_scheme *s) {
    s->activation_signed |= !strcmp(word, "s8");
    s->activation_symmetric |= !strcmp(word, "symmetric");
    s->fit_ranges |= !strcmp(word, "fitted");
    s->equalize |= !strcmp(word, "equalized");
    s->code_logits |= !strcmp(word, "coded");
    if (ptq_find_name(PTQ_NAMES_METHOD, word) >= 0)
        s->activation_method = (ptq_method)ptq_find_name(PTQ_NAMES_METHOD, word);
    if (s->activation_method == PTQ_METHOD_PERCENTILE && strtof(word, NULL) > 50)
        s->percentile = strtof(word, NULL);
}

/* What ptq_scheme_write wrote, up to the overrides. 0 if that is not a scheme of integers. */
static int read_scheme(const char *text, ptq_scheme *s) {
    char copy[256], *word;

    memset(s, 0, sizeof *s);
    snprintf(copy, sizeof copy, "%.*s", (int)strcspn(text, ";"), text);
    for (word = strtok(copy, " ,"); word; word = strtok(NULL, " ,")) {
        if (!s->weight_bits && sscanf(word, "w%d", &s->weight_bits) == 1)
            continue;
        if (!s->activation_bits && sscanf(word, "a%d", &s->activation_bits) == 1)
            continue;
        if (s->activation_bits)
            read_activation_word(word, s);
        else
            read_weight_word(word, s);
    }
    return s->weight_bits && s->activation_bits && !ptq_scheme_check(s, NULL);
}

/* ---- Measuring ---- */

/* Images that judge: half of them, at most so many. The others are learned from. */
enum { MOST_MEASURED = 500 };

static int find_advised(report *r, ptq_scheme *scheme) {
    for (int i = 0; i < r->models; i++) {
        const char *text = ptq_model_get_meta(r->model[i].ready.model, "scheme");

        if (text && read_scheme(text, scheme)) {
            r->advised = &r->model[i];
            return 0;
        }
    }
    return fail("--advice needs a model on integers that ptq quantize made; none of these is one");
}

int measure_advice(report *r, int threads) {
    search_options options = {0};
    progress state;
    ptq_status status;
    ptq_error err;

    if (find_advised(r, &options.scheme))
        return 1;
    state = progress_start("measure nodes");
    options.images = &r->drawn.subset.dataset;
    options.measure =
        options.images->count / 2 < MOST_MEASURED ? options.images->count / 2 : MOST_MEASURED;
    options.work.threads = threads;
    options.work.progress = progress_show;
    options.work.user = &state;
    status = rank_nodes(r->baseline.ready.model, r->seen, &options, &r->ranking, &err);
    progress_end(&state);
    state = progress_start("try remedies");
    if (!status)
        status = find_advice(r->baseline.ready.model, r->seen, &options, &r->ranking, &r->remedies,
                             &err);
    progress_end(&state);
    return status ? fail("%s", err.text) : 0;
}

/* ---- Writing ---- */

static void write_cost(FILE *out, const char *name, const divergence *cost, double most,
                       size_t images) {
    char interval[AGREEMENT_SIZE];

    fputs("<tr><td>", out);
    put_text(out, name);
    fprintf(out, "</td><td class=\"bar\"><span style=\"width:%.0f%%\"></span></td><td>%.5f</td>",
            most > 0 ? 100 * fmin(cost->kl / most, 1) : 0, cost->kl);
    if (isfinite(cost->sqnr_db))
        fprintf(out, "<td>%.1f dB</td>", cost->sqnr_db);
    else
        fputs("<td>equal</td>", out);
    fprintf(out, "<td>%.2f %%</td><td>%s</td><td>%+.2f</td></tr>\n", 100 * cost->agreement,
            agreement_text(cost->agreement, images, interval), cost->delta_pp + 0.0);
}

static void write_ranking(FILE *out, const node_ranking *ranking) {
    double most = ranking->items ? ranking->item[0].cost.kl : 0;

    fputs("<div class=\"wide\"><table><thead><tr><th>node alone</th><th></th><th>KL divergence</th>"
          "<th>SQNR</th><th>agreement</th><th>95 % interval</th><th>points</th></tr></thead>"
          "<tbody>\n",
          out);
    for (int i = 0; i < ranking->items; i++)
        write_cost(out, ranking->item[i].node, &ranking->item[i].cost, most, ranking->images);
    write_cost(out, "all of them", &ranking->whole, most, ranking->images);
    fputs("</tbody></table></div>\n", out);
}

void write_advice(FILE *out, const report *r) {
    const advice_list *list = &r->remedies;

    fputs("<h2>What would help</h2>\n", out);
    if (!r->advised) {
        fputs("<p class=\"muted\">Which layer costs most, and what each remedy would win back, "
              "takes some twenty more conversions: <code>ptq report --advice</code> adds it.</p>\n",
              out);
        return;
    }
    fputs("<p>For <strong>", out);
    put_text(out, r->advised->name);
    fprintf(out,
            "</strong>, measured on %zu of the calibration images against float; no test image had "
            "a part in it. Agreement is the share of these images with float's own answer; its "
            "interval is Wilson's.</p>\n",
            r->ranking.images);
    fputs(list->items ? "<ol>\n" : "<p>None of the changes tried would help.</p>\n", out);
    for (int i = 0; i < list->items; i++) {
        fputs("<li>", out);
        put_text(out, list->item[i].text);
        fprintf(out, " (%s).</li>\n", advice_scope(&list->item[i]));
    }
    fputs(list->items ? "</ol>\n" : "", out);
    fputs("<p class=\"muted\">Below, every node alone under the model's scheme, rounded to "
          "nearest, all others in float; the bars show the divergence.</p>\n",
          out);
    write_ranking(out, &r->ranking);
}
