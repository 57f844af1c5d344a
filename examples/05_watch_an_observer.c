/* Shows one tensor's values to an observer, picture by picture, and asks every rule for its range:
   which of them hold out when one picture is an outlier?

       build/05_watch_an_observer
*/
#include <math.h>
#include <stdio.h>

#define PTQ_IMPLEMENTATION
#include "../ptq.h"

enum { VALUES = 4096, PICTURES = 20 };

/* What a layer's results often look like: a bell with long tails, cut off at 0 by ReLU. */
static void make_values(ptq_rng *rng, float spread, float *values) {
    int i, k;

    for (i = 0; i < VALUES; i++) {
        float sum = -6;

        for (k = 0; k < 12; k++)
            sum += ptq_rng_float(rng); /* twelve uniform numbers: nearly a normal one */
        values[i] = sum > 0 ? spread * sum * (1 + sum * sum / 8) : 0;
    }
}

/* The mean squared error of coding the values with that range. */
static double error_of(const float *values, float low, float high) {
    ptq_qparams q;
    double sum = 0;
    int i;

    if (ptq_choose_qparams(low, high, PTQ_TYPE_U8, 8, 0, &q, NULL))
        return NAN;
    for (i = 0; i < VALUES; i++) {
        double e = (double)(ptq_dequantize(ptq_quantize(values[i], &q), &q) - values[i]);

        sum += e * e;
    }
    return sum / VALUES;
}

static int show(const ptq_observer *observer, const char *title, const float *fresh) {
    unsigned rule;

    printf("%s\n    rule                range            clipped   squared error, new picture\n",
           title);
    for (rule = 0; rule < PTQ_METHOD_COUNT; rule++) {
        float low, high;
        ptq_error err;

        if (ptq_observer_range(observer, (ptq_method)rule, 0, PTQ_TYPE_U8, 8, 0, &low, &high, &err))
            return fprintf(stderr, "%s\n", err.text), 1;
        printf("    %-17s %5.2f .. %6.2f   %7.4f %%   %.2e\n", ptq_name(PTQ_NAMES_METHOD, rule),
               (double)low, (double)high, 100 * ptq_observer_clipped(observer, low, high),
               error_of(fresh, low, high));
    }
    printf("\n");
    return 0;
}

int main(void) {
    static float values[VALUES], fresh[VALUES];
    ptq_observer observer;
    ptq_error err;
    ptq_rng rng;
    float low[2], high[2];
    int i, failed;

    ptq_rng_seed(&rng, 3, 0);
    make_values(&rng, 1, fresh);
    if (ptq_observer_create(&observer, NULL, &err))
        return fprintf(stderr, "%s\n", err.text), 1;
    for (i = 0; i < PICTURES; i++) {
        make_values(&rng, 1, values);
        if (ptq_observe(&observer, values, VALUES, &err))
            return fprintf(stderr, "%s\n", err.text), 1;
    }
    failed = show(&observer, "20 ordinary pictures", fresh);
    ptq_observer_range(&observer, PTQ_METHOD_MINMAX, 0, PTQ_TYPE_U8, 8, 0, &low[0], &high[0], &err);

    make_values(&rng, 4, values); /* one that is four times as bright */
    if (ptq_observe(&observer, values, VALUES, &err))
        return fprintf(stderr, "%s\n", err.text), 1;
    failed |= show(&observer, "and one outlier", fresh);
    ptq_observer_range(&observer, PTQ_METHOD_MINMAX, 0, PTQ_TYPE_U8, 8, 0, &low[1], &high[1], &err);
    printf("One picture in %d stretched MinMax from %.1f to %.1f: every step of all the others is "
           "now %.1f times as coarse.\n",
           PICTURES + 1, (double)high[0], (double)high[1], (double)(high[1] / high[0]));

    /* A NaN is never swallowed: it would poison every range. */
    values[7] = NAN;
    if (!ptq_observe(&observer, values, VALUES, &err))
        failed = 1;
    printf("A NaN among the values: %s\n", err.text);
    ptq_observer_free(&observer);
    return failed;
}
