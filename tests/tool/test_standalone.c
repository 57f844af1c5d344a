/* The arithmetic of exported headers, which is done in integers, against the library's and against
   the C library's fmaf. Whole networks are compared in cli_export.sh. */
#include "test.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include "export/standalone_kernels.h"

/* What takes the place of a few of these where the arithmetic is `fixed`. */
#define net_requantize fixed_requantize
#define net_weights fixed_weights
#define net_adder fixed_adder
#define net_add fixed_add
#define net_whole_average fixed_whole_average
#define net_product fixed_product
#include "export/standalone_fixed.h"
#undef net_requantize
#undef net_weights
#undef net_adder
#undef net_add
#undef net_whole_average
#undef net_product

static ptq_rng rng;

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A positive number from 2^low to 2^(high + 1), with few bits set every other time: those make
   ties. */
static float draw(int low, int high) {
    int exponent = low + (int)ptq_rng_below(&rng, (uint32_t)(high - low + 1));
    uint32_t fraction = ptq_rng_next(&rng) & 0x7fffff;
    if (ptq_rng_next(&rng) & 1)
        fraction &= 0x700000;
    return float_of((uint32_t)(exponent + 127) << 23 | fraction);
}

static int32_t draw_int(int32_t low, int32_t high) {
    return low + (int32_t)ptq_rng_below(&rng, (uint32_t)((int64_t)high - low + 1));
}

/* An accumulator of any magnitude up to 2^31 - 1. */
static int32_t draw_acc(void) {
    int32_t acc = (int32_t)(ptq_rng_next(&rng) >> (1 + ptq_rng_below(&rng, 31)));
    return ptq_rng_next(&rng) & 1 ? -acc : acc;
}

static void check_requantize(int32_t acc, float m, int32_t zero, int32_t low, int32_t high) {
    int32_t want = ptq_requantize(acc, m, zero, low, high);
    int32_t got = net_requantize(acc, bits_of(m), zero, low, high);
    if (got != want)
        fail_msg("requantize(%d, %a, %d): %d, not %d", (int)acc, (double)m, (int)zero, (int)got,
                 (int)want);
}

static void test_requantize(void **state) {
    static const float multipliers[] = {1.0f, 0.5f, 0.25f, 1.5f, 1e-38f, 3e38f, 0x1p-24f, 0x1p-25f};
    int i, k;
    (void)state;
    for (i = 0; i < COUNT(multipliers); i++)
        for (k = -3; k <= 3; k++) {
            check_requantize(k, multipliers[i], 0, -128, 127);
            check_requantize(INT32_MAX - 3 + k, multipliers[i], 7, 0, 255);
            check_requantize(-INT32_MAX + 3 + k, multipliers[i], 7, 0, 255);
            check_requantize((1 << 24) + k, multipliers[i], 0, -128, 127);
        }
    for (i = 0; i < 400000; i++) {
        int32_t zero = draw_int(0, 255);
        check_requantize(draw_acc(), draw(-36, 4), zero, 0, 255);
        check_requantize(draw_acc(), draw(-126, 127), zero - 128, -128, 127);
        check_requantize(draw_int(-600, 600), 0.5f, zero, 3, 250);
    }
}

/* x m / 2^31 rounded half up, then by 2^down half away from zero: in real numbers, exact here. */
static int32_t fixed_by_reals(int32_t x, net_factor by) {
    int up = by.shift > 0 ? by.shift : 0;
    double high = floor(ldexp((double)x * by.multiplier, up - 31) + 0.5);
    double low = ldexp(fabs(high), by.shift - up) + 0.5;
    return (int32_t)(high < 0 ? -floor(low) : floor(low));
}

static void test_fixed(void **state) {
    int i;
    (void)state;
    for (i = 0; i < 400000; i++) {
        net_factor by = {draw_int(1 << 30, INT32_MAX), draw_int(-31, 4)};
        int32_t x = draw_int(-(1 << 21), 1 << 21);
        if (i % 3 == 0) /* ties of both roundings */
            by.multiplier = 1 << 30, x = draw_int(-4096, 4096);
        assert_int_equal(net_multiply(x, by), fixed_by_reals(x, by));
    }
}

/* Hand values: 2.5 and 3.5 round to the even neighbour, negative ones alike. */
static void test_ties(void **state) {
    (void)state;
    assert_int_equal(net_requantize(5, bits_of(0.5f), 0, -128, 127), 2);
    assert_int_equal(net_requantize(7, bits_of(0.5f), 0, -128, 127), 4);
    assert_int_equal(net_requantize(-5, bits_of(0.5f), 0, -128, 127), -2);
    assert_int_equal(net_requantize(-5, bits_of(0.5f), 10, 0, 255), 8);
    assert_int_equal(net_requantize(0, bits_of(1e30f), 10, 0, 255), 10);
    assert_int_equal(net_requantize(1, bits_of(1e30f), 10, 0, 255), 255);
    assert_int_equal(net_requantize(-1, bits_of(1e30f), 10, 0, 255), 0);
    /* A little over a half; but single precision makes 2^24 of 2^24 + 1, and then it is a tie. */
    assert_int_equal(net_requantize((1 << 24) + 1, bits_of(0x1p-25f), 0, -128, 127), 0);
    assert_int_equal(net_requantize((1 << 24) + 2, bits_of(0x1p-25f), 0, -128, 127), 1);
}

static void test_logits(void **state) {
    int i;
    (void)state;
    for (i = 0; i < 400000; i++) {
        int32_t acc = draw_acc();
        float m = draw(-60, 60), want = (float)acc * m;
        float got = net_float(net_scaled(acc, bits_of(m)));
        if (memcmp(&want, &got, sizeof got) && acc)
            fail_msg("%d * %a: %a, not %a", (int)acc, (double)m, (double)got, (double)want);
    }
    assert_int_equal(bits_of(net_float(net_scaled(0, bits_of(3.0f)))), 0);
    assert_int_equal(bits_of(net_float(net_scaled(-3, bits_of(3e38f)))), 0xff800000u);
}

/* The order of operations is that of ONNX Runtime's QLinearAdd. */
static int32_t sum_by_fma(const float ratio[2], float shift, int32_t a, int32_t b, int32_t low,
                          int32_t high) {
    float sum = fmaf((float)a, ratio[0], fmaf((float)b, ratio[1], shift));
    float clamped = sum > (float)low ? sum : (float)low;
    clamped = clamped < (float)high ? clamped : (float)high;
    return (int32_t)rintf(clamped);
}

static void check_sum(const float ratio[2], float shift, int32_t a, int32_t b) {
    net_adder adder;
    adder.ratio[0] = bits_of(ratio[0]);
    adder.ratio[1] = bits_of(ratio[1]);
    adder.shift = bits_of(shift);
    adder.low = -128;
    adder.high = 255;
    if (net_add(&adder, a, b) != sum_by_fma(ratio, shift, a, b, -128, 255))
        fail_msg("%d * %a + (%d * %a + %a): %d, not %d", (int)a, (double)ratio[0], (int)b,
                 (double)ratio[1], (double)shift, (int)net_add(&adder, a, b),
                 (int)sum_by_fma(ratio, shift, a, b, -128, 255));
}

static void test_addition(void **state) {
    float ratio[2], shift;
    int i, k;
    (void)state;
    for (i = 0; i < 40000; i++) {
        ratio[0] = draw(-4, 1);
        ratio[1] = draw(-4, 1);
        if (i % 4 == 0)
            ratio[i / 4 % 2] = draw(-39, 19); /* as far as models may go */
        if (i % 4 == 1)
            ratio[1] = ratio[0];
        shift = (float)draw_int(-255, 255) - fmaf(ratio[0], (float)draw_int(-128, 255), ratio[1]);
        for (k = 0; k < 10; k++)
            check_sum(ratio, shift, draw_int(-128, 255), draw_int(-128, 255));
        check_sum(ratio, -ratio[1], 1, 1);
        check_sum(ratio, 0, 0, draw_int(-128, 255));
    }
}

/* Any width of codes, signed or not, against a sum over codes that lie one a byte. */
static void test_packed(void **state) {
    int bits, is_signed, i, n = 37;
    (void)state;
    for (bits = 2; bits <= 7; bits++)
        for (is_signed = 0; is_signed < 2; is_signed++) {
            uint8_t bytes[40] = {0};
            int16_t x[37];
            net_weights w = {net_dot_packed, NULL, 0, 0, 0, 0, NULL, NULL};
            int32_t want = 0, flip = is_signed ? 1 << (bits - 1) : 0;
            w.code = bytes;
            w.bits = bits;
            w.flip = flip;
            w.zero_point = is_signed ? 0 : 2;
            for (i = 0; i < n; i++) {
                int32_t code = draw_int(-flip, (1 << bits) - 1 - flip);
                int at = i * bits;
                uint32_t field = ((uint32_t)code & ((1u << bits) - 1)) << at % 8;
                bytes[at / 8] = (uint8_t)(bytes[at / 8] | (field & 255));
                bytes[at / 8 + 1] = (uint8_t)(bytes[at / 8 + 1] | field >> 8);
                x[i] = (int16_t)draw_int(-255, 255);
                want += x[i] * (code - w.zero_point);
            }
            assert_int_equal(net_accumulate(&w, 0, x, n), want);
            w.dot = net_dot_s4;
            if (bits == 4 && is_signed)
                assert_int_equal(net_accumulate(&w, 0, x, n), want);
        }
}

/* Against the compiler's own division, and averages against ONNX Runtime's order of operations. */
static void test_averages(void **state) {
    uint8_t code[36];
    int i, k, counted, whole[3] = {0, 6, 6}, columns[3] = {0, 6, 6};
    (void)state;
    for (i = 0; i < 400000; i++) {
        float a = draw(-50, 50), b = draw(-50, 50), want = a / b;
        net_real sum = net_fma(1, net_decode(bits_of(a)), net_decode(bits_of(-a * 0.99f)));
        float small = a + -a * 0.99f, less = small / b;
        float got = net_float(net_quotient(net_decode(bits_of(a)), net_decode(bits_of(b))));
        if (memcmp(&want, &got, sizeof got))
            fail_msg("%a / %a: %a, not %a", (double)a, (double)b, (double)got, (double)want);
        got = net_float(net_quotient(sum, net_decode(bits_of(b))));
        if (memcmp(&less, &got, sizeof got))
            fail_msg("%a / %a: %a, not %a", (double)small, (double)b, (double)got, (double)less);
    }
    for (i = 0; i < 40000; i++) {
        net_pool p = {net_average, {0, 0}, 0,      0,      255,    {6, 6, 1},
                      {1, 1, 1},   {6, 6}, {1, 1}, {0, 0}, {0, 0}, {0, 0}};
        volatile float scale = draw(-8, 3), to = i % 2 ? scale : draw(-8, 3), sum = 0, term;
        int32_t want;
        p.input.flip = i % 3 ? 0 : 128;
        p.input.zero_point = draw_int(0, 255) - p.input.flip;
        p.zero_point = draw_int(0, 255);
        counted = columns[2] = i % 5 ? 6 : draw_int(6, 9);
        p.scale[0] = bits_of(scale);
        p.scale[1] = bits_of(to);
        for (k = 0; k < 36; k++) {
            code[k] = (uint8_t)draw_int(0, i % 7 ? 255 : 3);
            term = scale * (float)(net_load(code[k], p.input) - p.input.zero_point);
            sum += term;
        }
        sum /= (float)(6 * counted);
        sum /= to;
        sum += (float)p.zero_point;
        want = (int32_t)rintf(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        assert_int_equal(net_average(&p, code, whole, columns), want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requantize), cmocka_unit_test(test_ties),
        cmocka_unit_test(test_logits),     cmocka_unit_test(test_addition),
        cmocka_unit_test(test_packed),     cmocka_unit_test(test_averages),
        cmocka_unit_test(test_fixed),
    };
    ptq_rng_seed(&rng, 6, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
