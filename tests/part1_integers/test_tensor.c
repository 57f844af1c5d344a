/* Tensors: memory, shapes, packed codes, half precision, real values. */
#include "test.h"

static const int packed_bits[] = {2, 3, 4, 5, 6, 7};

static void create_gives_zeroed_memory(void **state) {
    const int dims[] = {2, 3, 4};
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_tensor t;
    size_t i;

    (void)state;
    assert_ok(ptq_tensor_create(&t, PTQ_TYPE_F32, 0, 3, dims, &allocator, &err));
    assert_int_equal(t.type, PTQ_TYPE_F32);
    assert_int_equal(t.bits, 32);
    assert_int_equal(t.rank, 3);
    assert_int_equal(t.dim[2], 4);
    assert_int_equal(t.dim[3], 1);
    assert_int_equal(t.size, 96);
    assert_true(t.owned);
    assert_null(t.scale);
    assert_int_equal(ptq_tensor_elements(&t), 24);
    for (i = 0; i < 24; i++)
        assert_true(((float *)t.data)[i] == 0.0f);
    assert_true(heap.live > 0);
    ptq_tensor_free(&t, &allocator);
    assert_int_equal(heap.live, 0);
    assert_int_equal(t.rank, 0);
    assert_int_equal(ptq_tensor_elements(&t), 0);
    ptq_tensor_free(&t, &allocator); /* an empty tensor may be freed again */
}

static void borrowed_memory_stays_the_callers(void **state) {
    float memory[6] = {1, 2, 3, 4, 5, 6};
    const int dims[] = {2, 3};
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_tensor t;

    (void)state;
    assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_F32, 0, 2, dims, memory, sizeof memory, &err));
    assert_false(t.owned);
    assert_ptr_equal(t.data, memory);
    assert_near(ptq_tensor_number(&t, 5), 6, 0);
    ptq_tensor_free(&t, &allocator);
    assert_int_equal(heap.live, 0);
    assert_near(memory[5], 6, 0);
    assert_fails(PTQ_INVALID_ARGUMENT, "24",
                 ptq_tensor_borrow(&t, PTQ_TYPE_F32, 0, 2, dims, memory, sizeof memory - 1, &err));
}

static void bytes_of_every_type(void **state) {
    const int dims[] = {3, 5};
    const int many[] = {2, 3, 4, 5};

    (void)state;
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_F32, 0, 2, dims), 60);
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_F16, 0, 2, dims), 30);
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_U8, 0, 2, dims), 15);
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_S8, 0, 2, dims), 15);
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_S32, 0, 2, dims), 60);
    /* packed: three slices of five codes, each rounded up to a byte */
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_PACKED_S, 2, 2, dims), 3 * 2);
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_PACKED_S, 5, 2, dims), 3 * 4);
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_PACKED_U, 7, 2, dims), 3 * 5);
    /* two slices of 60 codes of 3 bits: 180 bits, 23 bytes each */
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_PACKED_U, 3, 4, many), 2 * 23);
    /* rank 1: a slice is a single code */
    assert_int_equal(ptq__tensor_bytes(PTQ_TYPE_PACKED_U, 3, 1, dims), 3);
}

static void absurd_shapes_are_refused(void **state) {
    static const struct {
        ptq_type type;
        int bits, rank, dims[4];
    } bad[] = {
        {PTQ_TYPE_F32, 0, 0, {1, 1, 1, 1}},
        {PTQ_TYPE_F32, 0, 5, {1, 1, 1, 1}},
        {PTQ_TYPE_F32, 0, -1, {1, 1, 1, 1}},
        {PTQ_TYPE_F32, 0, 1, {0, 1, 1, 1}},
        {PTQ_TYPE_F32, 0, 2, {3, -1, 1, 1}},
        {PTQ_TYPE_F32, 0, 2, {-3, -1, 1, 1}},
        {PTQ_TYPE_U8, 0, 1, {PTQ_MAX_ELEMENTS + 1, 1, 1, 1}},
        {PTQ_TYPE_U8, 0, 2, {65536, 65536, 1, 1}}, /* 0 in 32 bits */
        {PTQ_TYPE_U8, 0, 3, {65536, 65536, 16, 1}},
        {PTQ_TYPE_F32, 0, 4, {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}},
        {PTQ_TYPE_F32, 0, 4, {65536, 65536, 65536, 65536}}, /* 0 in 64 bits */
        {PTQ_TYPE_PACKED_U, 1, 1, {4, 1, 1, 1}},
        {PTQ_TYPE_PACKED_S, 8, 1, {4, 1, 1, 1}},
        {PTQ_TYPE_PACKED_S, -3, 1, {4, 1, 1, 1}},
        {(ptq_type)99, 0, 1, {4, 1, 1, 1}},
    };
    const int largest[] = {1 << 14, 1 << 14};
    char byte;
    ptq_tensor t;
    int i;

    (void)state;
    for (i = 0; i < COUNT(bad); i++) {
        assert_int_equal(ptq__tensor_bytes(bad[i].type, bad[i].bits, bad[i].rank, bad[i].dims), 0);
        assert_fails(
            PTQ_INVALID_ARGUMENT, "",
            ptq_tensor_create(&t, bad[i].type, bad[i].bits, bad[i].rank, bad[i].dims, NULL, &err));
        assert_fails(PTQ_INVALID_ARGUMENT, "",
                     ptq_tensor_borrow(&t, bad[i].type, bad[i].bits, bad[i].rank, bad[i].dims,
                                       &byte, SIZE_MAX, &err));
    }
    assert_true(ptq__tensor_bytes(PTQ_TYPE_F32, 0, 2, largest) == (size_t)1 << 30);
}

static void no_memory_is_an_error(void **state) {
    const int dims[] = {4};
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_tensor t;

    (void)state;
    heap.fail_at = 0;
    assert_fails(PTQ_OUT_OF_MEMORY, "",
                 ptq_tensor_create(&t, PTQ_TYPE_F32, 0, 1, dims, &allocator, &err));
}

/* The code of `bits` bits that starts at bit `at`, read bit by bit. */
static int32_t read_bits(const uint8_t *bytes, size_t at, int bits, int is_signed) {
    int32_t code = 0;
    int i;

    for (i = 0; i < bits; i++, at++)
        code |= (int32_t)((bytes[at / 8] >> (at % 8)) & 1) << i;
    return is_signed && code >> (bits - 1) ? code - (1 << bits) : code;
}

static void packed_codes_of_every_width(void **state) {
    const int dims[] = {3, 7, 3};
    test_random random = {7};
    int i, is_signed;

    (void)state;
    for (i = 0; i < COUNT(packed_bits); i++) {
        for (is_signed = 0; is_signed < 2; is_signed++) {
            int bits = packed_bits[i], lo = is_signed ? -(1 << (bits - 1)) : 0;
            int32_t codes[63];
            size_t j, row = (21 * (size_t)bits + 7) / 8;
            ptq_tensor t;

            assert_ok(ptq_tensor_create(&t, is_signed ? PTQ_TYPE_PACKED_S : PTQ_TYPE_PACKED_U, bits,
                                        3, dims, NULL, &err));
            assert_int_equal(t.size, 3 * row);
            memset(t.data, 0xFF, t.size); /* old bits must not shine through */
            for (j = 0; j < 63; j++)
                codes[j] = random_int(&random, lo, lo + (1 << bits) - 1);
            codes[0] = lo; /* both rails */
            codes[1] = lo + (1 << bits) - 1;
            for (j = 63; j-- > 0;) /* backwards: writing one leaves its neighbours alone */
                ptq_tensor_set_code(&t, j, codes[j]);
            for (j = 0; j < 63; j++) {
                const uint8_t *slice = (const uint8_t *)t.data + j / 21 * row;
                assert_int_equal(read_bits(slice, j % 21 * (size_t)bits, bits, is_signed),
                                 codes[j]);
                assert_near(ptq_tensor_number(&t, j), codes[j], 0);
            }
            ptq_tensor_free(&t, NULL);
        }
    }
}

static void packed_layout_by_hand(void **state) {
    /* Two slices of three 3-bit codes. -4, 3, -1 is 100, 011, 111; from the least significant bit:
       11 011 100 in the first byte, 1 in the second. */
    static const int32_t codes[] = {-4, 3, -1, 1, 0, 2};
    static const uint8_t wanted[] = {0xDC, 0x01, 0x81, 0x00};
    const int dims[] = {2, 3};
    ptq_tensor t;
    size_t i;

    (void)state;
    assert_ok(ptq_tensor_create(&t, PTQ_TYPE_PACKED_S, 3, 2, dims, NULL, &err));
    for (i = 0; i < 6; i++)
        ptq_tensor_set_code(&t, i, codes[i]);
    assert_int_equal(t.size, sizeof wanted);
    assert_memory_equal(t.data, wanted, sizeof wanted);
    ptq_tensor_free(&t, NULL);
}

static void numbers_of_plain_types(void **state) {
    uint8_t u8[] = {0, 200, 255};
    int8_t s8[] = {-128, 127, 0};
    int32_t s32[] = {-2000000, 1, 16777216};
    uint16_t f16[] = {0x3C00, 0xC000, 0x0001}; /* 1, -2, the smallest subnormal */
    const int dims[] = {3};
    ptq_tensor t;

    (void)state;
    assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_U8, 0, 1, dims, u8, sizeof u8, &err));
    assert_near(ptq_tensor_number(&t, 2), 255, 0);
    ptq_tensor_set_code(&t, 0, 131);
    assert_int_equal(u8[0], 131);
    assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_S8, 0, 1, dims, s8, sizeof s8, &err));
    assert_near(ptq_tensor_number(&t, 0), -128, 0);
    ptq_tensor_set_code(&t, 1, -7);
    assert_int_equal(s8[1], -7);
    assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_S32, 0, 1, dims, s32, sizeof s32, &err));
    assert_near(ptq_tensor_number(&t, 0), -2000000, 0);
    ptq_tensor_set_code(&t, 2, INT32_MIN);
    assert_true(s32[2] == INT32_MIN);
    assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_F16, 0, 1, dims, f16, sizeof f16, &err));
    assert_near(ptq_tensor_number(&t, 1), -2, 0);
    assert_true(ptq_tensor_number(&t, 2) == ldexpf(1, -24));
}

static void real_values(void **state) {
    const float one[] = {0.5f}, per_channel[] = {0.5f, 0.25f};
    uint8_t codes[] = {10, 20, 30, 40};
    const int dims[] = {2, 2};
    test_heap heap;
    ptq_allocator allocator = test_heap_start(&heap);
    ptq_tensor t;

    (void)state;
    assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_U8, 0, 2, dims, codes, sizeof codes, &err));
    assert_near(ptq_tensor_real(&t, 3), 40, 0); /* without scales: the number itself */
    assert_ok(ptq_tensor_set_scale(&t, one, 1, 12, &allocator, &err));
    assert_near(ptq_tensor_real(&t, 0), 0.5 * (10 - 12), 0);
    assert_near(ptq_tensor_real(&t, 3), 0.5 * (40 - 12), 0);
    assert_ok(ptq_tensor_set_scale(&t, per_channel, 2, 0, &allocator, &err));
    assert_int_equal(t.scales, 2);
    assert_near(ptq_tensor_real(&t, 1), 0.5 * 20, 0);
    assert_near(ptq_tensor_real(&t, 2), 0.25 * 30, 0);
    assert_fails(PTQ_INVALID_ARGUMENT, "",
                 ptq_tensor_set_scale(&t, per_channel, 3, 0, &allocator, &err));
    assert_int_equal(t.scales, 2); /* a failure changes nothing */
    ptq_tensor_free(&t, &allocator);
    assert_int_equal(heap.live, 0); /* scales are owned even where data is borrowed */
}

static double half_value(int h) {
    int e = (h >> 10) & 31, m = h & 1023;
    double v = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);

    return h & 0x8000 ? -v : v;
}

static void halves_round_trip(void **state) {
    int h;

    (void)state;
    for (h = 0; h < 65536; h++) {
        float f = ptq_f16_to_f32((uint16_t)h);
        if ((h & 0x7C00) != 0x7C00) {
            assert_true((double)f == half_value(h));
            assert_int_equal(signbit(f) != 0, h >> 15);
            assert_int_equal(ptq_f32_to_f16(f), h);
        } else if (h & 1023) {
            assert_true(is_nan((double)f));
            assert_true(is_nan((double)ptq_f16_to_f32(ptq_f32_to_f16(f))));
        } else {
            assert_true(isinf(f) && (f > 0) == !(h >> 15));
            assert_int_equal(ptq_f32_to_f16(f), h);
        }
    }
}

/* Between each half and the next: the middle goes to the even one, its neighbours to the nearer.
   Above the largest half the same rule leads to infinity, at 65520. */
static void halves_round_to_nearest_even(void **state) {
    int h;

    (void)state;
    for (h = 0; h < 0x7C00; h++) {
        double above = h == 0x7BFF ? 65536 : half_value(h + 1);
        float middle = (float)((half_value(h) + above) / 2); /* exact */
        int even = h & 1 ? h + 1 : h;

        assert_int_equal(ptq_f32_to_f16(middle), even);
        assert_int_equal(ptq_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(ptq_f32_to_f16(nextafterf(middle, 1e9f)), h + 1);
        assert_int_equal(ptq_f32_to_f16(-middle), even | 0x8000);
    }
    assert_int_equal(ptq_f32_to_f16(3e38f), 0x7C00);
    assert_int_equal(ptq_f32_to_f16(-3e38f), 0xFC00);
    assert_int_equal(ptq_f32_to_f16(1e-40f), 0); /* a subnormal single */
}

static void names_and_texts(void **state) {
    (void)state;
    assert_string_equal(ptq_name(PTQ_NAMES_TYPE, PTQ_TYPE_F32), "F32");
    assert_string_equal(ptq_name(PTQ_NAMES_TYPE, PTQ_TYPE_PACKED_S), "PACKED_S");
    assert_null(ptq_name(PTQ_NAMES_TYPE, 7));
    assert_int_equal(ptq_find_name(PTQ_NAMES_TYPE, "S8"), PTQ_TYPE_S8);
    assert_int_equal(ptq_find_name(PTQ_NAMES_TYPE, "input"), -1); /* of the next list */
    assert_string_equal(ptq_name(PTQ_NAMES_STATUS, PTQ_BAD_FILE), "PTQ_BAD_FILE");
    assert_non_null(strstr(ptq_name(PTQ_NAMES_STATUS_TEXT, PTQ_BAD_FILE), "file"));
    assert_null(ptq_name(PTQ_NAMES_STATUS, 99));
    assert_null(ptq_name(PTQ_NAMES_STATUS_TEXT, (unsigned)-1));
    assert_null(ptq_name((ptq_names)99, 0));
    assert_string_equal(ptq_name(PTQ_NAMES_OP, PTQ_OP_DEQUANTIZE), "dequantize");
    assert_string_equal(ptq_name(PTQ_NAMES_PRESET, 0), "best");
    assert_string_equal(ptq_version(), PTQ_VERSION);
}

/* The small formatter that callbacks use as well. */
static void error_texts_are_bounded(void **state) {
    char longer[2 * PTQ_ERROR_SIZE];
    ptq_error e;

    (void)state;
    assert_int_equal(ptq_error_set(&e, PTQ_BAD_DATA, "%s %d %u %zu %llu %g %%", "x", -3,
                                   4000000000u, (size_t)5, 18446744073709551615ull, 0.5),
                     PTQ_BAD_DATA);
    assert_int_equal(e.status, PTQ_BAD_DATA);
    assert_string_equal(e.text, "x -3 4000000000 5 18446744073709551615 0.5 %");
    memset(longer, 'y', sizeof longer);
    longer[sizeof longer - 1] = 0;
    ptq_error_set(&e, PTQ_IO_ERROR, "%s%d", longer, INT32_MIN);
    assert_int_equal(strlen(e.text), PTQ_ERROR_SIZE - 1);
    assert_int_equal(ptq_error_set(NULL, PTQ_IO_ERROR, "%s", "nobody listens"), PTQ_IO_ERROR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_gives_zeroed_memory),
        cmocka_unit_test(borrowed_memory_stays_the_callers),
        cmocka_unit_test(bytes_of_every_type),
        cmocka_unit_test(absurd_shapes_are_refused),
        cmocka_unit_test(no_memory_is_an_error),
        cmocka_unit_test(packed_codes_of_every_width),
        cmocka_unit_test(packed_layout_by_hand),
        cmocka_unit_test(numbers_of_plain_types),
        cmocka_unit_test(real_values),
        cmocka_unit_test(halves_round_trip),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(names_and_texts),
        cmocka_unit_test(error_texts_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
