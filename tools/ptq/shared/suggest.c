/* "Did you mean ...?" for words of the command line. */
#include <stdio.h>
#include <string.h>

#include "shared/suggest.h"

enum { LONGEST = 31 }; /* longer words are typing errors of another kind */

static int least(int a, int b) { return a < b ? a : b; }

/* Optimal string alignment, the distance of Damerau and Levenshtein without changes inside of what
   was swapped: d[i][k] is that of the first i letters of a from the first k of b. */
static int distance_of(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b), d[LONGEST + 1][LONGEST + 1];

    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (int i = 0; i <= n; i++)
        for (int k = 0; k <= m; k++) {
            if (i == 0 || k == 0) {
                d[i][k] = i + k;
                continue;
            }
            d[i][k] = least(d[i - 1][k - 1] + (a[i - 1] != b[k - 1]),
                            1 + least(d[i - 1][k], d[i][k - 1]));
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
                d[i][k] = least(d[i][k], d[i - 2][k - 2] + 1);
        }
    return d[n][m];
}

void suggest(suggestion *found, const char *candidate) {
    int distance = distance_of(found->word, candidate);
    int most = ((int)strlen(found->word) + 2) / 3;

    if (distance > most || (found->nearest && distance >= found->distance))
        return;
    found->nearest = candidate;
    found->distance = distance;
}

const char *suggestion_text(const suggestion *found, const char *before,
                            char text[SUGGESTION_SIZE]) {
    if (found->nearest)
        snprintf(text, SUGGESTION_SIZE, "; did you mean %s%s", before, found->nearest);
    else
        *text = 0;
    return text;
}
