/* Comparing two evaluations: values worked out by hand, published intervals, and the error of every
   layer computed a second time. */
#include "quantized.h"

#include "measure/layers.h"

/* An evaluation made by hand from labels and predictions of `n` images. */
static ptq_evaluation made(int *label, int *prediction, size_t n) {
    ptq_evaluation e;

    memset(&e, 0, sizeof e);
    e.total = n;
    e.classes = 3;
    e.label = label;
    e.prediction = prediction;
    return e;
}

/* `lost` images right to wrong, `won` wrong to right, `both` right twice, `neither` wrong twice,
   half of those (rounded down) with the same wrong prediction. */
static ptq_comparison compared(int lost, int won, int both, int neither) {
    static int label[20000], a[20000], b[20000];
    ptq_evaluation before, after;
    ptq_comparison c;
    int i, n = 0;

    for (i = 0; i < lost; i++, n++)
        label[n] = a[n] = 1, b[n] = 2;
    for (i = 0; i < won; i++, n++)
        label[n] = b[n] = 0, a[n] = 2;
    for (i = 0; i < both; i++, n++)
        label[n] = a[n] = b[n] = i % 3;
    for (i = 0; i < neither; i++, n++)
        label[n] = 0, a[n] = 1, b[n] = i % 2 ? 1 : 2;
    before = made(label, a, (size_t)n);
    after = made(label, b, (size_t)n);
    assert_ok(ptq_compare(&before, &after, &c, &err));
    assert_int_equal(c.total, n);
    assert_int_equal(c.lost, lost);
    assert_int_equal(c.won, won);
    assert_int_equal(c.agree, both + neither / 2);
    assert_near(c.delta_pp, 100.0 * (won - lost) / n, 1e-12);
    return c;
}

static void mcnemar_by_hand(void **state) {
    static const struct {
        int lost, won;
        double p;
    } table[] = {
        {0, 0, 1},
        {1, 0, 1},                   /* 2 / 2 */
        {0, 5, 2.0 / 32},            /* 2 * 1 / 2^5 */
        {8, 1, 2.0 * (1 + 9) / 512}, /* 0.0390625 */
        {1, 8, 2.0 * (1 + 9) / 512},
        {2, 8, 2.0 * (1 + 10 + 45) / 1024},
        {5, 5, 1},
        {4, 6, 2.0 * (1 + 10 + 45 + 120 + 210) / 1024},
        {0, 40, 2.0 / 1099511627776.0},
    };
    int i;

    (void)state;
    for (i = 0; i < COUNT(table); i++) {
        ptq_comparison c = compared(table[i].lost, table[i].won, 50, 7);
        if (!is_near(c.p_value, table[i].p, 0, 1e-9))
            fail_msg("%d lost, %d won: p is %.12g, wanted %.12g", table[i].lost, table[i].won,
                     c.p_value, table[i].p);
    }
}

/* Of many: the normal approximation with continuity correction gives 0.0244 for 400 against 465. */
static void mcnemar_of_many(void **state) {
    (void)state;
    assert_near(compared(400, 465, 4000, 200).p_value, erfc((65 - 1) / sqrt(865) / sqrt(2)), 5e-4);
    assert_near(compared(5000, 5000, 0, 0).p_value, 1, 1e-9);
    assert_true(compared(0, 10000, 0, 0).p_value < 1e-100);
}

/* Wilson's limits: closed forms at the ends, 1 - 1 / (1 + z^2 / n), the published 5 of 10. */
static void known_intervals(void **state) {
    static const struct {
        size_t k, n;
        double low, high;
    } table[] = {
        {0, 10, 0, 0.27753280},
        {10, 10, 0.72246720, 1},
        {5, 10, 0.23659309, 0.76340691},
        {0, 0, 0, 1},
        {1, 1, 0.20654931, 1},
        {81, 263, 0.25525340, 0.36616580},
        {15, 148, 0.06237250, 0.16047010}, /* Newcombe 1998, method 3, to four digits */
    };
    int i;

    (void)state;
    for (i = 0; i < COUNT(table); i++) {
        double low = -1, high = -1;
        ptq_share_interval(table[i].k, table[i].n, &low, &high);
        if (!is_near(low, table[i].low, 1e-4, 0) || !is_near(high, table[i].high, 1e-4, 0))
            fail_msg("%d of %d: %.8f to %.8f, wanted %.8f to %.8f", (int)table[i].k,
                     (int)table[i].n, low, high, table[i].low, table[i].high);
    }
}

/* At its own limits, what was seen lies z deviations away. */
static void intervals_have_their_level(void **state) {
    const double z = 1.959963984540054;
    int n, k;

    (void)state;
    for (n = 1; n <= 60; n += 7)
        for (k = 0; k <= n; k++) {
            double low, high;
            ptq_share_interval((size_t)k, (size_t)n, &low, &high);
            if (k < n)
                assert_near(n * high - k, z * sqrt(n * high * (1 - high)), 1e-9);
            if (k > 0)
                assert_near(k - n * low, z * sqrt(n * low * (1 - low)), 1e-9);
        }
}

/* The log-likelihood of a difference d of the shares, if q of the images are lost. */
static double likelihood(int lost, int won, int n, double q, double d) {
    return (lost ? lost * log(q) : 0) + (won ? won * log(q + d) : 0) +
           (n - lost - won ? (n - lost - won) * log(1 - 2 * q - d) : 0);
}

/* The score of a supposed difference, the likeliest q found by trying, not by a formula. */
static double score_of(int lost, int won, int n, double d) {
    double low = d < 0 ? -d : 0, high = (1 - d) / 2, q;
    int i;

    for (i = 0; i < 200; i++) { /* what is likeliest lies between: thirds */
        double a = low + (high - low) / 3, b = high - (high - low) / 3;
        if (likelihood(lost, won, n, a, d) < likelihood(lost, won, n, b, d))
            low = a;
        else
            high = b;
    }
    q = (low + high) / 2;
    return (won - lost - n * d) / sqrt(n * (2 * q + d * (1 - d)));
}

/* Nothing changed: z^2 / (n + z^2) either way, 7.13 points with 50 images. Else the ends are where
   the score is z, by another way to compute it. */
static void interval_of_the_difference(void **state) {
    static const int table[][3] = {{8, 1, 90},  {1, 8, 90},   {20, 9, 500}, {0, 5, 300},
                                   {3, 0, 200}, {9, 9, 1000}, {30, 0, 30},  {2, 3, 10}};
    const double z = 1.959963984540054;
    ptq_comparison c = compared(0, 0, 50, 0);
    int i;

    (void)state;
    assert_near(c.low_pp, -100 * z * z / (50 + z * z), 1e-9);
    assert_near(c.high_pp, 100 * z * z / (50 + z * z), 1e-9);
    assert_near(c.high_pp, 7.1347, 1e-4);
    assert_near(c.delta_pp, 0, 0);
    for (i = 0; i < COUNT(table); i++) {
        int lost = table[i][0], won = table[i][1], n = table[i][2];
        double low, high;
        ptq_paired_interval(lost, won, n, &low, &high);
        assert_true(low <= 100.0 * (won - lost) / n && 100.0 * (won - lost) / n <= high);
        if (lost < n)
            assert_near(score_of(lost, won, n, low / 100), z, 1e-5);
        assert_near(score_of(lost, won, n, high / 100), -z, 1e-5);
    }
    c = compared(8, 1, 90, 1);
    {
        double low, high;
        ptq_paired_interval(8, 1, (double)c.total, &low, &high);
        assert_near(c.low_pp, low, 0);
        assert_near(c.high_pp, high, 0);
    }
}

/* How often the interval holds the true difference, all outcomes enumerated: of n images each is
   lost with one probability, won with another. */
enum { MOST_FLIPS = 130 };

static double coverage(int n, double lost_rate, double won_rate,
                       double (*interval)[MOST_FLIPS][2]) {
    double covered = 0, truth = 100 * (won_rate - lost_rate);
    int lost, won;

    for (lost = 0; lost < (lost_rate > 0 ? MOST_FLIPS : 1); lost++)
        for (won = 0; won < (won_rate > 0 ? MOST_FLIPS : 1) && lost + won <= n; won++) {
            double p = exp(lgamma(n + 1.0) - lgamma(lost + 1.0) - lgamma(won + 1.0) -
                           lgamma(n - lost - won + 1.0) + (lost ? lost * log(lost_rate) : 0) +
                           (won ? won * log(won_rate) : 0) +
                           (n - lost - won) * log1p(-lost_rate - won_rate));
            const double *ends = interval[lost][won];
            if (ends[0] <= truth + 1e-9 && truth <= ends[1] + 1e-9)
                covered += p;
        }
    return covered;
}

static void intervals_cover_what_they_say(void **state) {
    static double interval[MOST_FLIPS][MOST_FLIPS][2];
    static const int counts[] = {200, 500, 1000, 2000, 5000, 10000};
    static const double rates[] = {0,     0.0001, 0.0002, 0.0005, 0.001, 0.002,
                                   0.004, 0.008,  0.012,  0.016,  0.03};
    int n, lost, won, k, cells;

    (void)state;
    for (k = 0; k < COUNT(counts); k++) {
        double sum = 0;
        n = counts[k];
        cells = 0;
        for (lost = 0; lost < MOST_FLIPS; lost++)
            for (won = 0; won < MOST_FLIPS && lost + won <= n; won++)
                ptq_paired_interval(lost, won, n, &interval[lost][won][0], &interval[lost][won][1]);
        for (lost = 0; lost < COUNT(rates); lost++)
            for (won = 0; won < COUNT(rates); won++) {
                double flips = n * (rates[lost] + rates[won]), c;
                if (n * rates[lost] > 80 || n * rates[won] > 80) /* beyond what is enumerated */
                    continue;
                c = coverage(n, rates[lost], rates[won], interval);
                if (c < 0.925)
                    fail_msg("%d images, %g lost, %g won: covers %.4f", n, rates[lost], rates[won],
                             c);
                sum += flips >= 5 ? c : 0;
                cells += flips >= 5;
            }
        if (sum / cells < 0.94 || sum / cells > 0.965)
            fail_msg("%d images: covers %.4f on average", n, sum / cells);
    }
}

static void different_sets(void **state) {
    int label[4] = {0, 1, 2, 0}, other[4] = {0, 1, 2, 1}, prediction[4] = {0, 0, 0, 0};
    ptq_evaluation a = made(label, prediction, 4), b = made(label, prediction, 3);
    ptq_evaluation c = made(other, prediction, 4), none = made(label, prediction, 0);
    ptq_comparison out, before;

    (void)state;
    memset(&out, 0x5a, sizeof out);
    memcpy(&before, &out, sizeof out);
    assert_fails(PTQ_INVALID_ARGUMENT, "different images", ptq_compare(&a, &b, &out, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "different images", ptq_compare(&a, &c, &out, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "", ptq_compare(&none, &none, &out, &err));
    assert_memory_equal(&out, &before, sizeof out);
    assert_ok(ptq_compare(&a, &a, &out, &err));
}

/* ---------------------------------------------------------------------------------------------
   Layers */

typedef struct fixture {
    ptq_model *fused, *coded;
    ptq_plan *a, *b;
    pictures p;
} fixture;

static int open_fixture(void **state) {
    fixture *f = (fixture *)calloc(1, sizeof *f);
    ptq_calibration *calibration;
    ptq_convert_options o;

    assert_non_null(f);
    f->fused = fused_of(random_resnet8(8, 3, 5, 5, NULL));
    f->p = pictures_for(f->fused, 12, 9);
    calibration = calibrated_on(f->fused, pictures_dataset(&f->p));
    o = with_scheme(preset("best"), pictures_dataset(&f->p));
    f->coded = converted(f->fused, calibration, &o);
    assert_ok(ptq_plan_create(f->fused, NULL, &f->a, &err));
    assert_ok(ptq_plan_create(f->coded, NULL, &f->b, &err));
    ptq_calibration_free(calibration);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = (fixture *)*state;

    ptq_plan_free(f->a);
    ptq_plan_free(f->b);
    ptq_model_free(f->coded);
    ptq_model_free(f->fused);
    free(f);
    return 0;
}

static void error_of_every_layer(void **state) {
    fixture *f = (fixture *)*state;
    ptq_dataset data = *pictures_dataset(&f->p);
    layer_report report;
    ptq_session_options keep;
    ptq_session *a = NULL, *b = NULL;
    int i, n;

    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    assert_ok(ptq_session_create(f->a, &keep, &a, &err));
    assert_ok(ptq_session_create(f->b, &keep, &b, &err));
    assert_ok(compare_layers(f->a, f->b, &data, 7, &report, &err));
    assert_true(report.items >= 12); /* results, and those before an addition */
    for (i = 0; i < report.items; i++) {
        double signal = 0, noise = 0, largest = 0;
        for (n = 0; n < 7; n++) {
            uint8_t pixels[8 * 8 * 3];
            ptq_tensor x, y;
            size_t k;
            int label;
            assert_ok(data.get(data.user, (size_t)n, pixels, &label, &err));
            assert_ok(ptq_run(a, pixels, 1, NULL, NULL, &err));
            assert_ok(ptq_run(b, pixels, 1, NULL, NULL, &err));
            assert_ok(ptq_session_tensor(a, report.item[i].name, &x, &err));
            assert_ok(ptq_session_tensor(b, report.item[i].name, &y, &err));
            for (k = 0; k < ptq_tensor_elements(&x); k++) {
                double real = (double)((const float *)x.data)[k];
                double d = real - (double)ptq_tensor_real(&y, k);
                signal += real * real;
                noise += d * d;
                largest = fmax(largest, fabs(d));
            }
        }
        if (!is_near(report.item[i].sqnr_db, 10 * log10(signal / noise), 1e-3, 0))
            fail_msg("%s: %.6f dB, wanted %.6f", report.item[i].name, report.item[i].sqnr_db,
                     10 * log10(signal / noise));
        assert_near(report.item[i].largest, largest, 1e-5 * largest);
        assert_true(report.item[i].clipped >= 0 && report.item[i].clipped < 0.2);
        assert_true(report.item[i].sqnr_db > 15);
    }
    layer_report_free(&report);
    ptq_session_free(a);
    ptq_session_free(b);
}

static void a_model_beside_itself(void **state) {
    fixture *f = (fixture *)*state;
    ptq_dataset data = *pictures_dataset(&f->p);
    layer_report report;
    int i;

    assert_ok(compare_layers(f->a, f->a, &data, 0, &report, &err));
    for (i = 0; i < report.items; i++) {
        assert_true(report.item[i].sqnr_db > 1e300);
        assert_near(report.item[i].largest, 0, 0);
        assert_near(report.item[i].clipped, 0, 0);
    }
    layer_report_free(&report);
    data.width++;
    assert_fails(PTQ_BAD_DATA, "8x9x3", compare_layers(f->a, f->b, &data, 0, &report, &err));
}

/* A float model that was not fused has more tensors, and some whose names mean something else in a
   fused one: c1 is the sum before batch norm here, and c3 that before its own norm. What is
   compared is what the fused float model says of the same names. */
static void baseline_that_is_not_fused(void **state) {
    static const char graph[] = "ptq-graph 1\ninput input shape=8x8x3\n"
                                "c1 conv2d in=input channels=4 kernel=3x3\nb1 batch_norm in=c1\n"
                                "r1 relu in=b1\nc2 conv2d in=r1 channels=4 kernel=3x3\n"
                                "b2 batch_norm in=c2\nc3 conv2d in=r1 channels=4 kernel=1x1\n"
                                "b3 batch_norm in=c3\nad add in=b2,b3\nre relu in=ad\n"
                                "fc dense in=re channels=5\n";
    static const char *const wanted[] = {"r1", "b2", "re", "fc"};
    ptq_model *raw = model_of_text(graph), *fused = NULL, *coded, *other;
    ptq_convert_options o;
    ptq_calibration *calibration;
    ptq_plan *plan[3], *strange = NULL;
    layer_report report[2];
    ptq_dataset data;
    pictures p;
    int i, k;

    (void)state;
    fill_model(raw, 3);
    assert_ok(ptq_fuse(raw, &fused, NULL, &err));
    p = pictures_for(fused, 20, 3);
    data = *pictures_dataset(&p);
    calibration = calibrated_on(fused, &data);
    o = with_scheme(preset("minmax8"), &data);
    coded = converted(fused, calibration, &o);
    assert_ok(ptq_plan_create(raw, NULL, &plan[0], &err));
    assert_ok(ptq_plan_create(fused, NULL, &plan[1], &err));
    assert_ok(ptq_plan_create(coded, NULL, &plan[2], &err));
    for (i = 0; i < 2; i++)
        assert_ok(compare_layers(plan[i], plan[2], &data, 5, &report[i], &err));
    assert_int_equal(report[0].items, COUNT(wanted));
    for (i = 0, k = 0; i < report[0].items; i++, k++) {
        assert_string_equal(report[0].item[i].name, wanted[i]);
        while (strcmp(report[1].item[k].name, wanted[i]))
            k++;
        assert_near(report[0].item[i].sqnr_db, report[1].item[k].sqnr_db, 0.1);
        assert_true(report[0].item[i].sqnr_db > 30);
    }
    layer_report_free(&report[0]);
    other = model_of_text("ptq-graph 1\ninput input shape=8x8x3\n"
                          "r1 conv2d in=input channels=6 kernel=3x3\n"
                          "fc dense in=r1 channels=5\n");
    fill_model(other, 3);
    assert_ok(ptq_plan_create(other, NULL, &strange, &err));
    assert_fails(PTQ_INVALID_ARGUMENT, "tensor r1 has 384 elements in one model, 256 in the other",
                 compare_layers(strange, plan[2], &data, 5, &report[0], &err));
    ptq_plan_free(strange);
    ptq_model_free(other);
    for (i = 0; i < 3; i++)
        ptq_plan_free(plan[i]);
    layer_report_free(&report[1]);
    ptq_calibration_free(calibration);
    ptq_model_free(coded);
    ptq_model_free(fused);
    ptq_model_free(raw);
}

/* Half of the values are cut off where the scale is halved. */
static void clipped_share(void **state) {
    fixture *f = (fixture *)*state;
    ptq_dataset data = *pictures_dataset(&f->p);
    layer_report report;
    ptq_model *m = NULL;
    ptq_plan *plan = NULL;
    int i, seen = 0;

    assert_ok(ptq_model_copy(f->coded, NULL, &m, &err));
    m->node[1].q.scale /= 64; /* 64 times the scale is the old range */
    assert_ok(ptq_plan_create(m, NULL, &plan, &err));
    assert_ok(compare_layers(f->a, plan, &data, 0, &report, &err));
    for (i = 0; i < report.items; i++)
        if (!strcmp(report.item[i].name, m->node[1].out)) {
            assert_true(report.item[i].clipped > 0.2);
            assert_true(report.item[i].sqnr_db < 3);
            seen++;
        }
    assert_int_equal(seen, 1);
    layer_report_free(&report);
    ptq_plan_free(plan);
    ptq_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(baseline_that_is_not_fused),
        cmocka_unit_test(mcnemar_by_hand),
        cmocka_unit_test(mcnemar_of_many),
        cmocka_unit_test(known_intervals),
        cmocka_unit_test(intervals_have_their_level),
        cmocka_unit_test(interval_of_the_difference),
        cmocka_unit_test(intervals_cover_what_they_say),
        cmocka_unit_test(different_sets),
        cmocka_unit_test(error_of_every_layer),
        cmocka_unit_test(a_model_beside_itself),
        cmocka_unit_test(clipped_share),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
