/* What a comparison with the float model means, in words: one plain line at the end of a command,
   and warnings that say what to do. */
#ifndef PTQ_TOOL_MEANING_H
#define PTQ_TOOL_MEANING_H

#include <stddef.h>

#include "ptq.h"

typedef struct evidence {
    const ptq_comparison *compared;
    const char *model;  /* path of the model on integers */
    const char *real;   /* path of the float model */
    const char *scheme; /* what the model's metadata say of it; NULL: nothing */
    size_t classes;
    size_t calibrated; /* images that ranges came from; 0: not known here */
    int seen;          /* measured on calibration images, not on others */
    double margin;     /* points, see verdict.h */
} evidence;

/* One sentence, and a full stop. */
enum { MEANING_SIZE = 512 };
const char *meaning_text(const evidence *e, char text[MEANING_SIZE]);

/* The same as the last line for people, wrapped: "In short: ...". */
void say_meaning(const evidence *e);

/* On standard error: a float model that is no better than guessing; a model under 60 % of float's
   accuracy, with the mistakes that usually do that and the command that tells them apart; a loss of
   more than LOSS_POINTS, with the remedies that are left for its scheme, in the order to try them. */
#define LOSS_POINTS 2.0
#define FAILED_SHARE 0.6
void warn_of_loss(const evidence *e);

/* The remedies alone, as warn_of_loss names them. */
enum { REMEDIES_SIZE = 2048 };
const char *remedies_text(const evidence *e, char text[REMEDIES_SIZE]);

#endif
