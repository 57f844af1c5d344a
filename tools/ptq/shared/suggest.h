/* "Did you mean ...?" for words of the command line. */
#ifndef PTQ_TOOL_SUGGEST_H
#define PTQ_TOOL_SUGGEST_H

#include <stddef.h>

/* The nearest of the candidates shown so far to a word that is none of them. */
typedef struct suggestion {
    const char *word, *nearest; /* nearest NULL: none is near */
    int distance;
} suggestion;

/* Considers one more. It is near if at most a third of the word would have to be typed otherwise:
   letters put in, left out, exchanged for others, or swapped with their neighbour. */
void suggest(suggestion *found, const char *candidate);

/* "; did you mean NEAREST", or "" */
enum { SUGGESTION_SIZE = 96 };
const char *suggestion_text(const suggestion *found, const char *before,
                            char text[SUGGESTION_SIZE]);

#endif
