/* How often models are right, and how far they agree. */
#ifndef PTQ_TOOL_ACCURACY_H
#define PTQ_TOOL_ACCURACY_H

#include <stddef.h>

#include "measure/advice.h"
#include "ptq.h"
#include "shared/output.h"

double fraction(size_t part, size_t whole); /* 0 of nothing */

/* `what`: the word that progress is shown with. */
int evaluate_plan(const ptq_plan *plan, const ptq_dataset *data, const char *what, int threads,
                  ptq_evaluation *out);
/* With so many classes it is also of interest whether the right one is among the five largest. */
enum { TOP5_CLASSES = 20 };
size_t top5_correct(const ptq_evaluation *result);

void print_accuracy(const char *what, const ptq_evaluation *result);

/* Wilson's 95 % interval of an agreement seen on so many images, as "97.10..99.80" percent. */
enum { AGREEMENT_SIZE = 32 };
void agreement_interval(double agreement, size_t images, double *low, double *high);
const char *agreement_text(double agreement, size_t images, char text[AGREEMENT_SIZE]);

/* What the two numbers of an advice are of: a layer alone, or the whole network. */
const char *advice_scope(const advice *given);

/* margin: see verdict.h. */
void print_comparison(const ptq_comparison *compared, double margin);

#ifdef PTQ_HAVE_jansson
/* {correct, total, accuracy}; and what a comparison adds to an object: agreement, delta_pp,
   interval, flips, mcnemar_p, verdict. */
json_t *json_accuracy(size_t correct, size_t total);

/* The same of an evaluation; top5_correct and top5_accuracy from TOP5_CLASSES classes on. */
json_t *json_overall(const ptq_evaluation *result);
void json_set_comparison(json_t *object, const ptq_comparison *compared, double margin);

/* {sqnr_db, kl, agreement, agreement_interval, delta_pp}, measured on so many images; sqnr_db null
   where infinite. */
json_t *json_divergence(const divergence *cost, size_t images);
#endif

#endif
