/* Observers: what they keep is a function of the multiset of images, and every rule's range is what
   the definition says, on data small enough to work it out. */
#include "test.h"

static ptq_observer new_observer(void) {
    ptq_observer o;

    assert_ok(ptq_observer_create(&o, NULL, &err));
    return o;
}

/* Smallest and largest of the chosen range. */
static void expect_range(const ptq_observer *o, ptq_method range, float percentile, int bits,
                         double low, double high, double tolerance) {
    float l = NAN, h = NAN;

    assert_ok(ptq_observer_range(o, range, percentile, PTQ_TYPE_U8, bits, 0, &l, &h, &err));
    if (!is_near((double)l, low, tolerance, 0) || !is_near((double)h, high, tolerance, 0))
        fail_msg("%s: %.9g to %.9g, wanted %.9g to %.9g", ptq_name(PTQ_NAMES_METHOD, range),
                 (double)l, (double)h, low, high);
}

static void assert_same_observer(const ptq_observer *a, const ptq_observer *b) {
    assert_true(a->count == b->count && a->zeros == b->zeros && a->images == b->images);
    assert_memory_equal(&a->min, &b->min, sizeof a->min);
    assert_memory_equal(&a->max, &b->max, sizeof a->max);
    assert_memory_equal(&a->min_sum, &b->min_sum, sizeof a->min_sum);
    assert_memory_equal(&a->max_sum, &b->max_sum, sizeof a->max_sum);
    assert_int_equal(a->exponent, b->exponent);
    assert_memory_equal(a->bin, b->bin, PTQ_BINS * sizeof *a->bin);
}

/* ---------------------------------------------------------------------------------------------
   What is kept */

static void statistics_by_hand(void **state) {
    static const float first[] = {0.5f, -1, 0, 2, 1.75f}, second[] = {0, 3.5f, -0.25f};
    ptq_observer o = new_observer();
    const ptq_observer *s = &o;
    uint64_t sum = 0;
    int b;

    (void)state;
    assert_ok(ptq_observe(&o, first, 5, &err));
    assert_int_equal(s->exponent, -9); /* bins up to 2^11 w; 2 = 2^11 2^-10 just does not fit */
    assert_ok(ptq_observe(&o, second, 3, &err));
    assert_int_equal(s->count, 8);
    assert_int_equal(s->zeros, 2);
    assert_int_equal(s->images, 2);
    assert_near(s->min, -1, 0);
    assert_near(s->max, 3.5, 0);
    assert_near(ptq__exact_value(&s->min_sum), -1.25, 0);
    assert_near(ptq__exact_value(&s->max_sum), 5.5, 0);
    assert_int_equal(s->exponent, -9); /* 2^11 2^-9 = 4 */
    assert_int_equal(s->bin[2048 + 256], 1);
    assert_int_equal(s->bin[2048 - 512], 1);
    assert_int_equal(s->bin[2048 + 1024], 1);
    assert_int_equal(s->bin[2048 + 896], 1);
    assert_int_equal(s->bin[2048 + 1792], 1);
    assert_int_equal(s->bin[2048 - 128], 1);
    for (b = 0; b < PTQ_BINS; b++)
        sum += s->bin[b];
    assert_int_equal(sum, 6);
    ptq_observer_free(&o);
}

/* Every value lies in the bin that the header names, at the smallest width at which all fit. */
static void bins_are_as_documented(void **state) {
    test_random r = {3};
    int round, i, b;

    (void)state;
    for (round = 0; round < 200; round++) {
        static uint64_t bin[PTQ_BINS];
        ptq_observer o = new_observer();
        const ptq_observer *s = &o;
        float v[64];
        double low = 0, high = 0;
        int e;
        for (i = 0; i < 64; i++) {
            v[i] = random_float(&r, -1, 1) * (float)pow(2, random_int(&r, -20, 20));
            if (round % 4 == 0) /* edges */
                v[i] = (float)ldexp(random_int(&r, -3, 3), random_int(&r, -6, 6));
            low = fmin(low, (double)v[i]);
            high = fmax(high, (double)v[i]);
            assert_ok(ptq_observe(&o, &v[i], 1, &err));
        }
        for (e = -149; low < -2048 * ldexp(1, e) || high >= 2048 * ldexp(1, e); e++)
            ;
        assert_int_equal(s->exponent, e);
        memset(bin, 0, sizeof bin);
        for (i = 0; i < 64; i++)
            if (v[i] < 0 || v[i] > 0)
                bin[(int)floor((double)v[i] / ldexp(1, e)) + 2048]++;
        for (b = 0; b < PTQ_BINS; b++)
            if (bin[b] != s->bin[b])
                fail_msg("round %d, bin %d: %d, wanted %d", round, b, (int)s->bin[b], (int)bin[b]);
        ptq_observer_free(&o);
    }
}

/* A sum that plain addition gets wrong: what is large cancels and leaves what is small. */
static void sums_are_exact(void **state) {
    static const double small[] = {3, 1e-38, 7e-45, -1.5};
    test_random r = {9};
    int k, i, n = 0;

    (void)state;
    for (k = 0; k < COUNT(small); k++) {
        ptq_observer o = new_observer();
        float v[201];
        for (n = 0; n < 200; n += 2) {
            v[n] = random_float(&r, -3, 3) * (float)pow(10, random_int(&r, -37, 37));
            v[n + 1] = -v[n];
        }
        v[n++] = (float)small[k];
        for (i = n - 1; i > 0; i--) {
            int j = random_int(&r, 0, i);
            float swap = v[i];
            v[i] = v[j];
            v[j] = swap;
        }
        for (i = 0; i < n; i++) /* images of one value: smallest and largest at once */
            assert_ok(ptq_observe(&o, &v[i], 1, &err));
        assert_true(ptq__exact_value(&o.min_sum) == (double)(float)small[k]);
        assert_true(ptq__exact_value(&o.max_sum) == (double)(float)small[k]);
        ptq_observer_free(&o);
    }
}

/* Sums of multiples of 2^-10 against 64-bit integers, negative totals too. */
static void sums_against_integers(void **state) {
    test_random r = {10};
    int round, i;

    (void)state;
    for (round = 0; round < 50; round++) {
        ptq_observer o = new_observer();
        int64_t low = 0, high = 0;
        for (i = 0; i < 300; i++) {
            int a = random_int(&r, -8000000, 8000000), b = random_int(&r, -8000000, 8000000);
            float v[2];
            v[0] = (float)a / 1024;
            v[1] = (float)b / 1024;
            low += a < b ? a : b;
            high += a < b ? b : a;
            assert_ok(ptq_observe(&o, v, 2, &err));
        }
        assert_true(ptq__exact_value(&o.min_sum) * 1024 == (double)low);
        assert_true(ptq__exact_value(&o.max_sum) * 1024 == (double)high);
        expect_range(&o, PTQ_METHOD_MOVING_AVERAGE, 0, 8, (double)low / 1024 / 300,
                     (double)high / 1024 / 300, 1e-2);
        ptq_observer_free(&o);
    }
}

static void extreme_values(void **state) {
    static const float large[] = {3.4028235e38f, -3.4028235e38f, 1e38f};
    static const float tiny[] = {1e-45f, -1e-38f, 1e-38f, 0};
    ptq_observer o = new_observer();

    (void)state;
    assert_ok(ptq_observe(&o, tiny, 4, &err));
    assert_int_equal(o.exponent, -137); /* 1e-38 < 2^-126 = 2^11 2^-137 */
    assert_ok(ptq_observe(&o, large, 3, &err));
    assert_int_equal(o.exponent, 117); /* 2^128 */
    assert_int_equal(o.count, 7);
    assert_int_equal(o.zeros, 1);
    assert_int_equal(o.bin[2048], 2); /* what is tiny lies beside 0, on its side */
    assert_int_equal(o.bin[2047], 1);
    assert_int_equal(o.bin[4095], 1);
    assert_int_equal(o.bin[0], 1);
    expect_range(&o, PTQ_METHOD_MINMAX, 0, 8, -3.4028234663852886e38, 3.4028234663852886e38, 0);
    ptq_observer_free(&o);
}

static void refused_with_nothing_changed(void **state) {
    static const float good[] = {1, -2, 3, 0}, bad[] = {NAN, INFINITY, -INFINITY};
    ptq_observer o = new_observer(), same = new_observer();
    float v[4], low, high;
    int i, at;

    (void)state;
    assert_fails(
        PTQ_NOT_READY, "observed",
        ptq_observer_range(&o, PTQ_METHOD_MINMAX, 0, PTQ_TYPE_U8, 8, 0, &low, &high, &err));
    assert_ok(ptq_observe(&o, good, 4, &err));
    assert_ok(ptq_observe(&same, good, 4, &err));
    for (i = 0; i < COUNT(bad); i++)
        for (at = 0; at < 4; at++) {
            memcpy(v, good, sizeof v);
            v[at] = bad[i];
            v[(at + 1) % 4] = 100; /* would widen the range */
            assert_fails(PTQ_BAD_NUMBER, "", ptq_observe(&o, v, 4, &err));
            assert_same_observer(&o, &same);
        }
    assert_fails(PTQ_INVALID_ARGUMENT, "0", ptq_observe(&o, good, 0, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "method",
                 ptq_observer_range(&o, PTQ_METHOD_COUNT, 0, PTQ_TYPE_U8, 8, 0, &low, &high, &err));
    assert_fails(
        PTQ_INVALID_ARGUMENT, "percentile",
        ptq_observer_range(&o, PTQ_METHOD_PERCENTILE, 50, PTQ_TYPE_U8, 8, 0, &low, &high, &err));
    assert_fails(
        PTQ_INVALID_ARGUMENT, "percentile",
        ptq_observer_range(&o, PTQ_METHOD_PERCENTILE, 101, PTQ_TYPE_U8, 8, 0, &low, &high, &err));
    assert_same_observer(&o, &same);
    ptq_observer_free(&same);
    ptq_observer_free(&o);
}

/* ---------------------------------------------------------------------------------------------
   Merging */

/* One stream, in parts and orders of all kinds: always the same statistics. */
static void order_and_parts_do_not_matter(void **state) {
    enum { IMAGES = 40, VALUES = 30 };
    static const int sizes[] = {1, 2, 7};
    test_random r = {5};
    static float v[IMAGES][VALUES];
    int round, i, k;

    (void)state;
    for (round = 0; round < 20; round++) {
        ptq_observer whole = new_observer();
        for (i = 0; i < IMAGES; i++) {
            double size = pow(10, random_int(&r, round % 2 ? -38 : -3, round % 2 ? 37 : 3));
            random_floats(&r, v[i], VALUES, -size, size);
            v[i][random_int(&r, 0, VALUES - 1)] = 0;
            assert_ok(ptq_observe(&whole, v[i], VALUES, &err));
        }
        for (k = 0; k < COUNT(sizes); k++) {
            ptq_observer part[7], sum = new_observer();
            int order[IMAGES];
            for (i = 0; i < sizes[k]; i++)
                part[i] = new_observer();
            for (i = 0; i < IMAGES; i++)
                order[i] = i;
            for (i = IMAGES - 1; i > 0; i--) {
                int j = random_int(&r, 0, i), swap = order[i];
                order[i] = order[j];
                order[j] = swap;
            }
            for (i = 0; i < IMAGES; i++) /* parts of unequal size; some may stay empty */
                assert_ok(
                    ptq_observe(&part[random_int(&r, 0, sizes[k] - 1)], v[order[i]], VALUES, &err));
            for (i = sizes[k] - 1; i >= 0; i--) {
                ptq__observer_merge(&sum, &part[i]);
                ptq_observer_free(&part[i]);
            }
            assert_same_observer(&sum, &whole);
            ptq_observer_free(&sum);
        }
        ptq_observer_free(&whole);
    }
}

/* ---------------------------------------------------------------------------------------------
   Ranges */

static void minmax_and_average(void **state) {
    static const float image[3][4] = {{-1, 2, 0.5f, 0}, {-3, 1, 1, 1}, {0.5f, 6, 1, 1}};
    static const float positive[] = {2, 3, 5};
    ptq_observer o = new_observer(), p = new_observer();
    int i;

    (void)state;
    for (i = 0; i < 3; i++)
        assert_ok(ptq_observe(&o, image[i], 4, &err));
    expect_range(&o, PTQ_METHOD_MINMAX, 0, 8, -3, 6, 0);
    expect_range(&o, PTQ_METHOD_MOVING_AVERAGE, 0, 8, -3.5 / 3, 9.0 / 3, 1e-6);
    assert_ok(ptq_observe(&p, positive, 3, &err));
    expect_range(&p, PTQ_METHOD_MINMAX, 0, 8, 0, 5, 0); /* widened to 0 */
    expect_range(&p, PTQ_METHOD_MOVING_AVERAGE, 0, 8, 0, 5, 0);
    ptq_observer_free(&p);
    ptq_observer_free(&o);
}

static void one_value_or_none(void **state) {
    static const float zero[] = {0, 0, 0}, seven[] = {7, 7, 7};
    ptq_observer none = new_observer(), one = new_observer();
    int i;

    (void)state;
    assert_ok(ptq_observe(&none, zero, 3, &err));
    assert_ok(ptq_observe(&one, seven, 3, &err));
    assert_int_equal(none.zeros, 3);
    for (i = 0; i < PTQ_METHOD_COUNT; i++) {
        /* all zeros: an empty range; one value: from 0 to it, to one bin */
        expect_range(&none, (ptq_method)i, 0, 8, 0, 0, 0);
        expect_range(&one, (ptq_method)i, 0, 8, 0, 7, 8.0 / 2048);
    }
    ptq_observer_free(&one);
    ptq_observer_free(&none);
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* Against sorting: to one bin. */
static void percentile(void **state) {
    static const float share[] = {99.99f, 99.9f, 99, 90, 60, 100};
    enum { N = 20000 };
    static float v[N];
    test_random r = {14};
    ptq_observer o = new_observer();
    double bin;
    int i;

    (void)state;
    for (i = 0; i < N; i++)
        v[i] = (float)pow((double)random_float(&r, -2, 3), 3);
    assert_ok(ptq_observe(&o, v, N, &err));
    qsort(v, N, sizeof *v, ascending);
    bin = ldexp(1, o.exponent);
    for (i = 0; i < COUNT(share); i++) {
        int rank = (int)ceil((double)share[i] / 100 * N - 1e-3) - 1;
        double low = fmin(0, (double)v[N - 1 - rank]), high = fmax(0, (double)v[rank]);
        /* one bin, and what lies between neighbouring values */
        expect_range(&o, PTQ_METHOD_PERCENTILE, share[i], 8, low, high, 2 * bin);
    }
    expect_range(&o, PTQ_METHOD_PERCENTILE, 0, 8, (double)v[2], (double)v[N - 3], 2 * bin);
    ptq_observer_free(&o);
}

/* What coding the values themselves costs under a range: no bins here. */
static double squared_error(const float *v, int n, double low, double high, int bits) {
    double levels = ldexp(1, bits) - 1, scale = (high - low) / levels, sum = 0;
    double zero = nearbyint(-low / scale);
    int i;

    for (i = 0; i < n; i++) {
        double q = fmin(fmax(nearbyint((double)v[i] / scale) + zero, 0), levels);
        sum += pow((double)v[i] - (q - zero) * scale, 2);
    }
    return sum;
}

/* The error of the chosen range is within 5 % of the best that a grid of all ranges finds. */
static void least_squared_error(void **state) {
    enum { N = 600 };
    test_random r = {15};
    int round, i, j;

    (void)state;
    for (round = 0; round < 6; round++) {
        ptq_observer o = new_observer();
        float v[N], low, high;
        int bits = 2 + round;
        double most = 0, least = 0, best = HUGE_VAL, got;
        for (i = 0; i < N; i++) {
            double sum = 0;
            for (j = 0; j < 6; j++)
                sum += (double)random_float(&r, -1, 1);
            v[i] = (float)(round % 2 ? fabs(sum) : sum);
        }
        v[0] = 9; /* an outlier */
        assert_ok(ptq_observe(&o, v, N, &err));
        for (i = 0; i < N; i++) {
            most = fmax(most, (double)v[i]);
            least = fmin(least, (double)v[i]);
        }
        for (i = 1; i <= 60; i++)
            for (j = 0; j <= (least < 0 ? 60 : 0); j++)
                best = fmin(best, squared_error(v, N, least * j / 60, most * i / 60, bits));
        assert_ok(
            ptq_observer_range(&o, PTQ_METHOD_MSE, 0, PTQ_TYPE_U8, bits, 0, &low, &high, &err));
        got = squared_error(v, N, (double)low, (double)high, bits);
        if (got > best * 1.05 || (double)low < least || (double)high > most)
            fail_msg("%d bits: %g to %g has error %g, the best %g", bits, (double)low, (double)high,
                     got, best);
        ptq_observer_free(&o);
    }
}

/* Roughly normal, variance 1. */
static float normal(test_random *r) {
    double sum = 0;
    int j;

    for (j = 0; j < 12; j++)
        sum += (double)random_float(r, -0.5, 0.5);
    return (float)sum;
}

/* What a histogram says of the error under a range: 32 values in each bin, evenly, and no zeros. */
static double sampled_error(const ptq_observer *s, const ptq_qparams *q) {
    double sum = 0;
    int b, k;

    for (b = 0; b < PTQ_BINS; b++)
        for (k = 0; k < 32 && s->bin[b]; k++) {
            double x = ldexp(b - PTQ_BINS / 2.0 + (k + 0.5) / 32, s->exponent), e;
            e = x - (double)ptq_dequantize(ptq_quantize((float)x, q), q);
            sum += e * e * (double)s->bin[b] / 32;
        }
    return sum;
}

/* `histogram` is never worse than the whole range, in what it goes by: the expected squared error.
   Normal values, one-sided ones, few and many outliers, zeros; all kinds of codes. */
static void histogram_against_whole_range(void **state) {
    enum { N = 3000 };
    static float v[N];
    test_random r = {17};
    int round, i, better = 0;

    (void)state;
    for (round = 0; round < 120; round++) {
        int n = round % 3 ? N : 1 + random_int(&r, 0, 40), bits = 2 + round % 7;
        int symmetric = round / 2 % 2, outliers = random_int(&r, 0, 5);
        ptq_type type = round / 4 % 2 ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
        ptq_observer o = new_observer();
        float low[2], high[2];
        double error[2];
        ptq_qparams q;
        for (i = 0; i < n; i++)
            v[i] = normal(&r) * (round % 5 == 1 ? normal(&r) : 1);
        for (i = 0; i < n && round % 4 == 3; i++)
            v[i] = v[i] > 0 ? v[i] : 0;
        for (i = 0; i < outliers; i++)
            v[random_int(&r, 0, n - 1)] = random_float(&r, round % 4 == 3 ? 0 : -30, 30);
        assert_ok(ptq_observe(&o, v, (size_t)n, &err));
        for (i = 0; i < 2; i++) {
            assert_ok(ptq_observer_range(&o, i ? PTQ_METHOD_MINMAX : PTQ_METHOD_HISTOGRAM, 0, type,
                                         bits, symmetric, &low[i], &high[i], &err));
            assert_ok(ptq_choose_qparams(low[i], high[i], type, bits, symmetric, &q, &err));
            error[i] = sampled_error(&o, &q);
        }
        if (!(error[0] <= error[1] * 1.005) || low[0] < low[1] || high[0] > high[1])
            fail_msg("round %d: %g .. %g has %g, the whole range %g .. %g %g", round,
                     (double)low[0], (double)high[0], error[0], (double)low[1], (double)high[1],
                     error[1]);
        better += error[0] < error[1] * 0.9;
        ptq_observer_free(&o);
    }
    assert_true(better > 20);
}

/* 999 normal values and a 12. With 255 steps from about -3 to 12 each value errs by step^2 / 12,
   and a normal one has the power 1: 36 dB. Without the 12, which then is off by 8.5 or more, the
   error is 72 and more of 1144: 12 dB. */
static void histogram_and_an_outlier(void **state) {
    static const struct {
        ptq_method method;
        double least, most;
    } rules[] = {{PTQ_METHOD_MINMAX, 35, 37},
                 {PTQ_METHOD_HISTOGRAM, 35, 37},
                 {PTQ_METHOD_HISTOGRAM_PYTORCH, 11, 13}};
    float v[1000];
    test_random r = {19};
    ptq_observer o = new_observer();
    int i, k;

    (void)state;
    for (i = 0; i < 999; i++)
        v[i] = normal(&r);
    v[999] = 12;
    assert_ok(ptq_observe(&o, v, 1000, &err));
    for (i = 0; i < COUNT(rules); i++) {
        float low, high;
        double power = 0, db;
        assert_ok(ptq_observer_range(&o, rules[i].method, 0, PTQ_TYPE_U8, 8, 0, &low, &high, &err));
        for (k = 0; k < 1000; k++)
            power += (double)v[k] * (double)v[k];
        db = 10 * log10(power / squared_error(v, 1000, (double)low, (double)high, 8));
        if (!(db > rules[i].least && db < rules[i].most))
            fail_msg("%s: %g dB", ptq_name(PTQ_NAMES_METHOD, rules[i].method), db);
    }
    ptq_observer_free(&o);
}

/* A Gaussian and one outlier: rules cut the outlier off, and keep the bulk. Not those of least
   squared error: the square of what is cut off here, 20^2 and more, outweighs the rounding of all
   the others. */
static void outlier_is_cut_off(void **state) {
    static const ptq_method rules[] = {PTQ_METHOD_HISTOGRAM_PYTORCH, PTQ_METHOD_ENTROPY,
                                       PTQ_METHOD_PERCENTILE};
    enum { N = 50000 };
    static float v[N];
    test_random r = {16};
    ptq_observer o = new_observer();
    int i;

    (void)state;
    for (i = 0; i < N; i++)
        v[i] = normal(&r);
    v[77] = 40;
    assert_ok(ptq_observe(&o, v, N, &err));
    expect_range(&o, PTQ_METHOD_MINMAX, 0, 8, (double)o.min, 40, 0);
    for (i = 0; i < COUNT(rules); i++) {
        float low, high;
        assert_ok(ptq_observer_range(&o, rules[i], 0, PTQ_TYPE_U8, 8, 0, &low, &high, &err));
        if (!(high < 20 && high > 2.5f && low < -1 && low >= o.min))
            fail_msg("%s: %g to %g", ptq_name(PTQ_NAMES_METHOD, rules[i]), (double)low,
                     (double)high);
    }
    ptq_observer_free(&o);
}

static void share_that_is_clipped(void **state) {
    float v[1000];
    ptq_observer o = new_observer();
    int i;

    (void)state;
    for (i = 0; i < 1000; i++)
        v[i] = (float)(i - 300);
    assert_ok(ptq_observe(&o, v, 1000, &err));
    assert_near(ptq_observer_clipped(&o, -300, 699), 0, 0.0011); /* to one bin */
    assert_near(ptq_observer_clipped(&o, -300, 599.5f), 0.1, 0.0011);
    assert_near(ptq_observer_clipped(&o, -200.5f, 599.5f), 0.2, 0.0011);
    assert_near(ptq_observer_clipped(&o, 0, 0), 0.999, 0.0011);
    ptq_observer_free(&o);
}

static void names_of_rules(void **state) {
    int i;

    (void)state;
    for (i = 0; i < PTQ_METHOD_COUNT; i++)
        assert_int_equal(ptq_find_name(PTQ_NAMES_METHOD, ptq_name(PTQ_NAMES_METHOD, (unsigned)i)),
                         i);
    assert_int_equal(ptq_find_name(PTQ_NAMES_METHOD, "widest"), -1);
}

static void out_of_memory(void **state) {
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_status s = PTQ_OUT_OF_MEMORY;
    ptq_observer o;
    long n;

    (void)state;
    for (n = 0; s != PTQ_OK; n++) {
        heap.calls = 0;
        heap.fail_at = n;
        s = ptq_observer_create(&o, &allocator, &err);
        if (s == PTQ_OK)
            ptq_observer_free(&o);
        assert_true(s == PTQ_OK || s == PTQ_OUT_OF_MEMORY);
        assert_int_equal(heap.live, 0);
    }
    assert_true(n > 1);
    ptq_observer_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_by_hand),
        cmocka_unit_test(bins_are_as_documented),
        cmocka_unit_test(sums_are_exact),
        cmocka_unit_test(sums_against_integers),
        cmocka_unit_test(extreme_values),
        cmocka_unit_test(refused_with_nothing_changed),
        cmocka_unit_test(order_and_parts_do_not_matter),
        cmocka_unit_test(minmax_and_average),
        cmocka_unit_test(one_value_or_none),
        cmocka_unit_test(percentile),
        cmocka_unit_test(least_squared_error),
        cmocka_unit_test(histogram_against_whole_range),
        cmocka_unit_test(histogram_and_an_outlier),
        cmocka_unit_test(outlier_is_cut_off),
        cmocka_unit_test(share_that_is_clipped),
        cmocka_unit_test(names_of_rules),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
