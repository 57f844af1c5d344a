/* Readers of data: headers, types and sizes by hand, and what an enemy may put into them. */
#include "test.h"

#include <math.h>

#include "data/array.h"
#include "shared/bytes.h"
#include "data/picture.h"
#include "shared/zip.h"

static data_bytes over(const void *memory, size_t size) {
    data_bytes bytes = {0};

    bytes.where = "memory";
    bytes.memory = memory;
    bytes.size = size;
    return bytes;
}

/* A version 1 file of that header, and elements behind it. */
static data_bytes npy(uint8_t *to, const char *header, const void *elements, size_t size) {
    size_t length = strlen(header);

    memcpy(to, "\x93NUMPY\1\0", 8);
    to[8] = (uint8_t)length;
    to[9] = (uint8_t)(length >> 8);
    memcpy(to + 10, header, length);
    if (size)
        memcpy(to + 10 + length, elements, size);
    return over(to, 10 + length + size);
}

#define HEADER(type, order, shape)                                                                 \
    "{'descr': '" type "', 'fortran_order': " order ", 'shape': " shape ", }\n"

static float first_of(const char *header, const void *elements, size_t size) {
    uint8_t file[512];
    data_bytes bytes = npy(file, header, elements, size);
    data_array array;
    float value = NAN;

    assert_ok(npy_open(&bytes, "x.npy", &array, &err));
    assert_ok(array_reals(&array, 0, &value, &err));
    return value;
}

static void element_types(void **state) {
    (void)state;
    assert_true(first_of(HEADER("<f4", "False", "(1,)"), "\0\0\x20\xc0", 4) == -2.5f);
    assert_true(first_of(HEADER(">f4", "False", "(1,)"), "\xc0\x20\0\0", 4) == -2.5f);
    assert_true(first_of(HEADER("<f8", "False", "(1,)"), "\0\0\0\0\0\0\x04\xc0", 8) == -2.5f);
    assert_true(first_of(HEADER("<f2", "False", "(1,)"), "\0\xc1", 2) == -2.5f);
    assert_true(first_of(HEADER("<f2", "False", "(1,)"), "\1\0", 2) == 0x1p-24f);
    assert_true(first_of(HEADER("|i1", "False", "(1,)"), "\xad", 1) == -83);
    assert_true(first_of(HEADER("<i2", "False", "(1,)"), "\xfe\xff", 2) == -2);
    assert_true(first_of(HEADER(">i2", "False", "(1,)"), "\xff\xfe", 2) == -2);
    assert_true(first_of(HEADER("<i8", "False", "(1,)"), "\xff\xff\xff\xff\xff\xff\xff\xff", 8) ==
                -1);
    assert_true(first_of(HEADER("<u4", "False", "(1,)"), "\1\0\0\x80", 4) == 2147483648.0f);
    assert_true(first_of(HEADER("|b1", "False", "(1,)"), "\1", 1) == 1);
}

static void expect_refusal(ptq_status status, const char *words, const char *header,
                           size_t elements) {
    static const uint8_t zeros[256];
    uint8_t file[1024];
    data_bytes bytes = npy(file, header, zeros, elements);
    data_array array;

    assert_fails(status, words, npy_open(&bytes, "x.npy", &array, &err));
}

static void npy_refusals(void **state) {
    (void)state;
    expect_refusal(PTQ_UNSUPPORTED, "Fortran", HEADER("<f4", "True", "(2, 3)"), 24);
    expect_refusal(PTQ_UNSUPPORTED, "|O", HEADER("|O", "False", "(2,)"), 16);
    expect_refusal(PTQ_UNSUPPORTED, "<c8", HEADER("<c8", "False", "(2,)"), 16);
    expect_refusal(PTQ_UNSUPPORTED, "records",
                   "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", 8);
    expect_refusal(PTQ_BAD_DATA, "cut off: 23 bytes of elements, not 24",
                   HEADER("<f4", "False", "(2, 3)"), 23);
    expect_refusal(PTQ_BAD_DATA, "no items", HEADER("<f4", "False", "(0, 3)"), 0);
    expect_refusal(PTQ_BAD_DATA, "single number", HEADER("<f4", "False", "()"), 4);
    expect_refusal(PTQ_BAD_DATA, "too large",
                   HEADER("<f4", "False", "(4294967296, 4294967296, 4294967296)"), 4);
    expect_refusal(PTQ_BAD_DATA, "shape", HEADER("<f4", "False", "(-1,)"), 4);
    expect_refusal(PTQ_BAD_DATA, "shape", HEADER("<f4", "False", "(1,1,1,1,1,1,1,1,1)"), 4);
    expect_refusal(PTQ_BAD_DATA, "order", "{'descr': '<f4', 'shape': (1,), }", 4);
    expect_refusal(PTQ_BAD_DATA, "shape", "{'descr': '<f4', 'fortran_order': False}", 4);
    /* One column is the same in either order. */
    assert_true(first_of(HEADER("<f4", "True", "(1, 1)"), "\0\0\x20\xc0", 4) == -2.5f);
}

static void item_numbers(void **state) {
    static const float values[] = {1, 2, 3, NAN};
    static const int16_t codes[] = {0, 255, 256, -1};
    uint8_t file[512], pixels[2];
    data_bytes bytes = npy(file, HEADER("<f4", "False", "(2, 2)"), values, sizeof values);
    data_array array;
    float reals[2];
    int labels[4];

    (void)state;
    assert_ok(npy_open(&bytes, "x.npy", &array, &err));
    assert_int_equal(array_items(&array), 2);
    assert_int_equal(array_item_elements(&array), 2);
    assert_ok(array_reals(&array, 0, reals, &err));
    assert_true(reals[0] == 1 && reals[1] == 2);
    assert_fails(PTQ_BAD_NUMBER, "x.npy: item 1 has NaN", array_reals(&array, 1, reals, &err));
    assert_fails(PTQ_BAD_DATA, "2 numbers for each item", array_labels(&array, labels, &err));

    bytes = npy(file, HEADER("<i2", "False", "(2, 2)"), codes, sizeof codes);
    assert_ok(npy_open(&bytes, "x.npy", &array, &err));
    assert_ok(array_bytes(&array, 0, pixels, &err));
    assert_true(pixels[0] == 0 && pixels[1] == 255);
    assert_fails(PTQ_BAD_NUMBER, "item 1 has the pixel 256", array_bytes(&array, 1, pixels, &err));

    bytes = npy(file, HEADER("<i2", "False", "(4, 1)"), codes, sizeof codes);
    assert_ok(npy_open(&bytes, "y.npy", &array, &err));
    assert_ok(array_labels(&array, labels, &err));
    assert_true(labels[1] == 255 && labels[2] == 256 && labels[3] == -1);
    bytes = npy(file, HEADER("<f4", "False", "(4,)"), values, sizeof values);
    assert_ok(npy_open(&bytes, "y.npy", &array, &err));
    assert_fails(PTQ_BAD_DATA, "y.npy: item 3 has the label", array_labels(&array, labels, &err));
}

static void idx_headers(void **state) {
    static const uint8_t images[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 9, 8, 7, 6};
    static const uint8_t shorts[] = {0, 0, 11, 1, 0, 0, 0, 2, 1, 0, 255, 254};
    data_bytes bytes = over(images, sizeof images);
    data_array array;
    uint8_t pixels[2];
    int labels[2];

    (void)state;
    assert_ok(idx_open(&bytes, "images", &array, &err));
    assert_int_equal(array_items(&array), 2);
    assert_ok(array_bytes(&array, 1, pixels, &err));
    assert_true(pixels[0] == 7 && pixels[1] == 6);
    bytes = over(images, sizeof images - 1);
    assert_fails(PTQ_BAD_DATA, "cut off", idx_open(&bytes, "images", &array, &err));
    bytes = over(images, 9);
    assert_fails(PTQ_BAD_DATA, "", idx_open(&bytes, "images", &array, &err));
    bytes = over(shorts, sizeof shorts);
    assert_ok(idx_open(&bytes, "labels", &array, &err));
    assert_fails(PTQ_BAD_DATA, "item 1 has the label -2", array_labels(&array, labels, &err));
    bytes = over("\0\0\7\1\0\0\0\1\0", 9);
    assert_fails(PTQ_BAD_DATA, "no IDX", idx_open(&bytes, "x", &array, &err));
}

/* ---- ZIP ---- */

static size_t put(uint8_t *to, size_t at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        to[at++] = (uint8_t)(i < 8 ? value >> 8 * i : 0);
    return at;
}

/* One member "a" of `stored` bytes, with what its entry says. */
typedef struct entry {
    unsigned flags, method;
    uint64_t packed, size, header;
    uint32_t crc;
} entry;

static size_t make_zip(uint8_t *to, const entry *e, const char *stored, size_t size) {
    size_t at = put(to, 0, 0x04034b50, 4), list;

    at = put(to, at, 20, 2);
    at = put(to, at, e->flags, 2);
    at = put(to, at, e->method, 2);
    at = put(to, at, 0, 8);
    at = put(to, at, e->packed, 4);
    at = put(to, at, e->size, 4);
    at = put(to, at, 1, 4);
    to[at++] = 'a';
    memcpy(to + at, stored, size);
    list = at += size;
    at = put(to, at, 0x02014b50, 4);
    at = put(to, at, 20, 4);
    at = put(to, at, e->flags, 2);
    at = put(to, at, e->method, 2);
    at = put(to, at, 0, 4);
    at = put(to, at, e->crc, 4);
    at = put(to, at, e->packed, 4);
    at = put(to, at, e->size, 4);
    at = put(to, at, 1, 4);
    at = put(to, at, 0, 10);
    at = put(to, at, e->header, 4);
    to[at++] = 'a';
    at = put(to, at, 0x06054b50, 4);
    at = put(to, at, 0, 4);
    at = put(to, at, 1, 2);
    at = put(to, at, 1, 2);
    at = put(to, at, at - 12 - list, 4);
    at = put(to, at, list, 4);
    return put(to, at, 0, 2);
}

static ptq_status open_member(const entry *e, const char *stored, size_t size, data_bytes *out) {
    static uint8_t file[512];
    data_bytes bytes = over(file, make_zip(file, e, stored, size));
    zip_archive archive;
    ptq_status status = zip_open(&bytes, &archive, &err);

    if (status)
        return status;
    assert_null(zip_find(&archive, "b"));
    assert_non_null(zip_find(&archive, "a"));
    status = zip_member_open(&archive, zip_find(&archive, "a"), out, &err);
    zip_close(&archive);
    return status;
}

static void zip_members(void **state) {
    /* "hello" deflated as one stored block, and its CRC-32, 0x3610a686. */
    static const char packed[] = "\x01\x05\x00\xfa\xffhello";
    entry stored = {0, 0, 5, 5, 0, 0x3610a686}, deflated = {0, 8, 10, 5, 0, 0x3610a686}, bad;
    data_bytes bytes;
    char text[6] = "";

    (void)state;
    assert_ok(open_member(&stored, "hello", 5, &bytes));
    assert_ok(bytes_read(&bytes, 0, 5, text, &err));
    assert_string_equal(text, "hello");
    assert_fails(PTQ_BAD_DATA, "cut off", bytes_read(&bytes, 1, 5, text, &err));
#ifdef PTQ_HAVE_zlib
    memset(text, 0, sizeof text);
    assert_ok(open_member(&deflated, packed, 10, &bytes));
    assert_int_equal(bytes.size, 5);
    assert_ok(bytes_read(&bytes, 0, 5, text, &err));
    assert_string_equal(text, "hello");
    bytes_close(&bytes);
    bad = deflated;
    bad.crc++;
    assert_fails(PTQ_BAD_DATA, "damaged", open_member(&bad, packed, 10, &bytes));
    bad = deflated;
    bad.size = 4; /* more comes out than the list says */
    assert_fails(PTQ_BAD_DATA, "bomb", open_member(&bad, packed, 10, &bytes));
    bad = deflated;
    bad.packed = 7;
    assert_fails(PTQ_BAD_DATA, "damaged", open_member(&bad, packed, 10, &bytes));
#endif
    bad = deflated;
    bad.size = 0xfffffffe; /* from ten bytes */
    assert_fails(PTQ_BAD_DATA, "bomb", open_member(&bad, packed, 10, &bytes));
    bad = stored;
    bad.flags = 1;
    assert_fails(PTQ_UNSUPPORTED, "encrypted", open_member(&bad, "hello", 5, &bytes));
    bad = stored;
    bad.method = 12;
    assert_fails(PTQ_UNSUPPORTED, "compressed", open_member(&bad, "hello", 5, &bytes));
    bad = stored;
    bad.packed = bad.size = 400;
    assert_fails(PTQ_BAD_DATA, "not where", open_member(&bad, "hello", 5, &bytes));
    bad = stored;
    bad.header = 3;
    assert_fails(PTQ_BAD_DATA, "not where", open_member(&bad, "hello", 5, &bytes));
    bad.header = 0xfffffff0;
    assert_fails(PTQ_BAD_DATA, "", open_member(&bad, "hello", 5, &bytes));
}

/* 64 bits wherever 32 might do: what numpy writes for arrays of 4 GiB. */
static void zip_large(void **state) {
    uint8_t file[512];
    size_t at = put(file, 0, 0x04034b50, 4), list, end;
    data_bytes bytes, member;
    zip_archive archive;
    char text[6] = "";

    (void)state;
    at = put(file, at, 0, 22);
    at = put(file, at, 1, 2);
    at = put(file, at, 0, 2);
    file[at++] = 'a';
    memcpy(file + at, "hello", 5);
    list = at += 5;
    at = put(file, at, 0x02014b50, 4);
    at = put(file, at, 45, 4);
    at = put(file, at, 0, 12);
    at = put(file, at, 0xffffffff, 4);
    at = put(file, at, 0xffffffff, 4);
    at = put(file, at, 1, 2);
    at = put(file, at, 28, 2);
    at = put(file, at, 0, 10);
    at = put(file, at, 0xffffffff, 4);
    file[at++] = 'a';
    at = put(file, at, 1, 2);
    at = put(file, at, 24, 2);
    at = put(file, at, 5, 8);
    at = put(file, at, 5, 8);
    at = put(file, at, 0, 8);
    end = at;
    at = put(file, at, 0x06064b50, 4);
    at = put(file, at, 44, 8);
    at = put(file, at, 0, 12);
    at = put(file, at, 1, 8);
    at = put(file, at, 1, 8);
    at = put(file, at, end - list, 8);
    at = put(file, at, list, 8);
    at = put(file, at, 0x07064b50, 4);
    at = put(file, at, 0, 4);
    at = put(file, at, end, 8);
    at = put(file, at, 1, 4);
    at = put(file, at, 0x06054b50, 4);
    at = put(file, at, 0, 4);
    at = put(file, at, 0xffffffff, 4);
    at = put(file, at, 0xffffffff, 4);
    at = put(file, at, 0xffffffff, 4);
    at = put(file, at, 0, 2);
    bytes = over(file, at);
    assert_ok(zip_open(&bytes, &archive, &err));
    assert_int_equal(archive.members, 1);
    assert_ok(zip_member_open(&archive, zip_find(&archive, "a"), &member, &err));
    assert_ok(bytes_read(&member, 0, 5, text, &err));
    assert_string_equal(text, "hello");
    zip_close(&archive);
}

static void zip_damaged(void **state) {
    entry stored = {0, 0, 5, 5, 0, 0x3610a686};
    uint8_t file[512], copy[512];
    size_t size = make_zip(file, &stored, "hello", 5);
    zip_archive archive;
    data_bytes bytes;

    (void)state;
    for (size_t n = 0; n < size; n++) {
        bytes = over(file, n);
        assert_int_not_equal(zip_open(&bytes, &archive, &err), PTQ_OK);
    }
    for (size_t i = 0; i < size; i++) { /* no crash, whatever comes of it */
        memcpy(copy, file, size);
        copy[i] ^= 0xff;
        bytes = over(copy, size);
        if (!zip_open(&bytes, &archive, &err)) {
            data_bytes member;

            if (archive.members && !zip_member_open(&archive, archive.member, &member, &err))
                bytes_close(&member);
            zip_close(&archive);
        }
    }
}

/* ---- Pictures ---- */

static void areas(void **state) {
    /* 3 x 2: a row of 0, 60, 255 and one of 90, 30, 255, all opaque. */
    static const int grey[] = {0, 60, 255, 90, 30, 255};
    uint8_t pixels[6 * 4], out[12];
    picture_rule whole = {1, 1, 3, 1}, middle = {1, 1, 3, 0}, wide = {1, 2, 3, 1},
                 larger = {2, 6, 1, 1};

    (void)state;
    for (int i = 0; i < 6; i++)
        for (int c = 0; c < 4; c++)
            pixels[4 * i + c] = (uint8_t)(c == 3 ? 255 : grey[i]);
    picture_shrink(pixels, 3, 2, &whole, out);
    assert_int_equal(out[0], 115); /* 690 / 6 */
    /* The square of the shorter side, from (3 - 2) / 2 = 0 on: (0 + 60 + 90 + 30) / 4. */
    picture_shrink(pixels, 3, 2, &middle, out);
    assert_int_equal(out[1], 45);
    /* Each half takes one column and half of the middle one: (0 + 90 + 30 + 15) / 3, and
       (255 + 255 + 30 + 15) / 3. */
    picture_shrink(pixels, 3, 2, &wide, out);
    assert_int_equal(out[2], 45);
    assert_int_equal(out[5], 185);
    picture_shrink(pixels, 3, 2, &larger, out);
    assert_int_equal(out[0], 0);
    assert_int_equal(out[1], 0);
    assert_int_equal(out[2], 60);
    assert_int_equal(out[11], 255);
}

static void grey_and_transparent(void **state) {
    static const uint8_t colours[] = {255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 9, 9, 9, 0};
    picture_rule same = {1, 4, 1, 1}, rgb = {1, 4, 3, 1};
    uint8_t out[12];

    (void)state;
    picture_shrink(colours, 4, 1, &same, out); /* 77, 150, 29 parts of 256, rounded */
    assert_int_equal(out[0], 77);
    assert_int_equal(out[1], 149);
    assert_int_equal(out[2], 29);
    assert_int_equal(out[3], 255);
    picture_shrink(colours, 4, 1, &rgb, out);
    assert_int_equal(out[0], 255);
    assert_int_equal(out[3], 0);
    assert_int_equal(out[9], 255);
}

static void orientations(void **state) {
    /* JPEG, APP0, then APP1 with one entry in a TIFF block of either byte order. */
    static const uint8_t big[] = {0xff, 0xd8, 0xff, 0xe0, 0, 4,    1,   2,   0xff, 0xe1, 0, 34,
                                  'E',  'x',  'i',  'f',  0, 0,    'M', 'M', 0,    42,   0, 0,
                                  0,    8,    0,    1,    1, 0x12, 0,   3,   0,    0,    0, 1,
                                  0,    6,    0,    0,    0, 0,    0,   0,   0xff, 0xda};
    uint8_t little[sizeof big];

    (void)state;
    assert_int_equal(jpeg_orientation(big, sizeof big), 6);
    for (size_t n = 0; n < 38; n++)
        assert_int_equal(jpeg_orientation(big, n), 1);
    memcpy(little, big, sizeof big);
    memcpy(little + 18, "II\x2a\0\x8\0\0\0\1\0\x12\1\3\0\1\0\0\0\x8\0\0\0", 22);
    assert_int_equal(jpeg_orientation(little, sizeof little), 8);
    little[36] = 9;
    assert_int_equal(jpeg_orientation(little, sizeof little), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(element_types),
        cmocka_unit_test(npy_refusals),
        cmocka_unit_test(item_numbers),
        cmocka_unit_test(idx_headers),
        cmocka_unit_test(zip_members),
        cmocka_unit_test(zip_damaged),
        cmocka_unit_test(zip_large),
        cmocka_unit_test(areas),
        cmocka_unit_test(grey_and_transparent),
        cmocka_unit_test(orientations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
