/* Safetensors and model files: round trips, and every way of being wrong. */
#define _XOPEN_SOURCE 700 /* setrlimit */
#include "test.h"

#include <signal.h>
#include <sys/resource.h>

/* A file from a header and `data_size` bytes, in memory of exactly its size, so that the sanitizers
   see a read of one byte too many. To be freed. */
static unsigned char *make_file(const char *header, size_t header_size, size_t data_size,
                                size_t *size) {
    unsigned char *bytes = (unsigned char *)malloc(8 + header_size + data_size);
    size_t i;

    assert_non_null(bytes);
    for (i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)header_size >> (8 * i));
    memcpy(bytes + 8, header, header_size);
    memset(bytes + 8 + header_size, 0x3F, data_size); /* 0.747 as a float */
    *size = 8 + header_size + data_size;
    return bytes;
}

/* Parses such a file; nothing may leak, whatever comes out. */
static ptq_status parse_text(const char *header, size_t data_size, ptq_archive **out) {
    size_t size;
    unsigned char *bytes = make_file(header, strlen(header), data_size, &size);
    ptq_status status = ptq_archive_parse(bytes, size, NULL, out, &err);

    free(bytes);
    return status;
}

/* 1 if it is refused with a text that contains `says`; else tells what happened. */
static int is_refused(const char *header, size_t data_size, const char *says) {
    test_heap heap;
    ptq_load_options options = {{NULL, NULL, NULL}, 0};
    ptq_archive *archive = NULL;
    size_t size;
    unsigned char *bytes = make_file(header, strlen(header), data_size, &size);
    ptq_status status;

    options.allocator = test_heap_start(&heap);
    err.text[0] = 0;
    status = ptq_archive_parse(bytes, size, &options, &archive, &err);
    free(bytes);
    ptq_archive_free(archive);
    assert_int_equal(heap.live, 0);
    if (status == PTQ_BAD_FILE && strstr(err.text, says) && !archive)
        return 1;
    print_error("%.200s\n  gives %s: \"%s\"; wanted \"%s\"\n", header,
                ptq_name(PTQ_NAMES_STATUS, status), err.text, says);
    return 0;
}

/* ---------------------------------------------------------------------------------------------
   Archives that are well */

static void archive_of_every_type(void **state) {
    float f32[] = {1.5f, -0.0f, 1e-45f, 3e38f};
    uint16_t f16[] = {0x3C00, 0x8000, 0x0001, 0x7BFF};
    uint8_t u8[] = {0, 1, 254, 255};
    int8_t s8[] = {-128, -1, 0, 127};
    int32_t s32[] = {INT32_MIN, -1, 0, INT32_MAX};
    static const char *const name[] = {"f32", "f16", "u8", "s8", "s32"};
    static const ptq_type type[] = {PTQ_TYPE_F32, PTQ_TYPE_F16, PTQ_TYPE_U8, PTQ_TYPE_S8,
                                    PTQ_TYPE_S32};
    void *data[] = {f32, f16, u8, s8, s32};
    const int dims[] = {2, 1, 2};
    ptq_archive *a = NULL, *b = NULL;
    void *bytes = NULL, *again = NULL;
    size_t size = 0, size_again = 0;
    ptq_tensor t[5];
    int i;

    (void)state;
    assert_ok(ptq_archive_create(NULL, &a, &err));
    for (i = 4; i >= 0; i--) { /* bytes before floats: offsets are odd */
        assert_ok(ptq_tensor_borrow(&t[i], type[i], 0, 3, dims, data[i],
                                    ptq__tensor_bytes(type[i], 0, 3, dims), &err));
        if (i == 2) {
            const int odd[] = {1, 1, 3};
            assert_ok(ptq_tensor_borrow(&t[i], type[i], 0, 3, odd, data[i], 3, &err));
        }
        assert_ok(ptq_archive_add(a, name[i], &t[i], &err));
    }
    assert_ok(ptq_archive_write(a, &bytes, &size, &err));
    assert_ok(ptq_archive_parse(bytes, size, NULL, &b, &err));
    assert_int_equal(b->entries, 5);
    assert_string_equal(b->entry[0].name, "s32"); /* in the order of adding */
    for (i = 0; i < 5; i++) {
        const ptq_tensor *x = ptq_archive_find(b, name[i]);
        assert_non_null(x);
        assert_int_equal(x->type, type[i]);
        assert_int_equal(x->rank, 3);
        assert_int_equal(x->dim[2], i == 2 ? 3 : 2);
        assert_int_equal(x->size, t[i].size);
        assert_memory_equal(x->data, data[i], x->size);
    }
    assert_null(ptq_archive_find(b, "f"));
    assert_ok(ptq_archive_write(b, &again, &size_again, &err));
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, again, size);
    assert_fails(PTQ_INVALID_ARGUMENT, "u8", ptq_archive_add(a, "u8", &t[2], &err)); /* twice */
    ptq_bytes_free(bytes, NULL);
    ptq_bytes_free(again, NULL);
    ptq_archive_free(a);
    ptq_archive_free(b);
}

static void header_is_padded_to_eight(void **state) {
    float x = 1;
    const int dims[] = {1};
    ptq_archive *a = NULL;
    unsigned char *bytes = NULL;
    void *memory = NULL;
    size_t size = 0;
    ptq_tensor t;
    char name[12] = "";
    int i;

    (void)state;
    for (i = 0; i < 9; i++) {
        strcat(name, "n");
        assert_ok(ptq_archive_create(NULL, &a, &err));
        assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_F32, 0, 1, dims, &x, sizeof x, &err));
        assert_ok(ptq_archive_add(a, name, &t, &err));
        assert_ok(ptq_archive_write(a, &memory, &size, &err));
        bytes = (unsigned char *)memory;
        assert_int_equal(bytes[0] % 8, 0);
        assert_int_equal(bytes[8], '{');
        assert_int_equal(size, 8 + bytes[0] + 256 * bytes[1] + 4);
        ptq_bytes_free(memory, NULL);
        ptq_archive_free(a);
    }
}

static void unusual_but_legal_headers(void **state) {
    static const struct {
        const char *header;
        size_t data_size;
        int entries;
    } good[] = {
        {"{}", 0, 0},
        {"{}      ", 0, 0},
        {"{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1},
        /* any order of keys and of tensors, white space where JSON has it */
        {"{ \"b\" : {\"data_offsets\":[3, 7],\t\"shape\":[1],\n\"dtype\":\"F32\"},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[3,1],\"data_offsets\":[0,3]}}",
         7, 2},
        {"{\"\\u0061\\ud83d\\ude00\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         1},
    };
    ptq_archive *archive = NULL;
    int i;

    (void)state;
    for (i = 0; i < COUNT(good); i++) {
        assert_ok(parse_text(good[i].header, good[i].data_size, &archive));
        assert_int_equal(archive->entries, good[i].entries);
        ptq_archive_free(archive);
    }
    assert_ok(parse_text(good[2].header, 4, &archive));
    assert_int_equal(archive->entry[0].tensor.rank, 1); /* a scalar */
    assert_int_equal(ptq_tensor_elements(&archive->entry[0].tensor), 1);
    ptq_archive_free(archive);
    assert_ok(parse_text(good[4].header, 1, &archive));
    assert_non_null(ptq_archive_find(archive, "a\xF0\x9F\x98\x80"));
    ptq_archive_free(archive);
}

/* Legal in the format, but nothing that a tensor here can hold: listed, and empty. */
static void tensors_of_other_kinds(void **state) {
    static const struct {
        const char *header;
        size_t data_size;
    } other[] = {
        {"{\"t\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8},
        {"{\"t\":{\"dtype\":\"U16\",\"shape\":[3],\"data_offsets\":[0,6]}}", 6},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[0,0]}}", 0},
    };
    int i;

    (void)state;
    for (i = 0; i < COUNT(other); i++) {
        ptq_archive *archive = NULL;
        assert_ok(parse_text(other[i].header, other[i].data_size, &archive));
        assert_int_equal(archive->entries, 1);
        assert_int_equal(archive->entry[0].tensor.rank, 0);
        assert_null(archive->entry[0].tensor.data);
        ptq_archive_free(archive);
    }
}

/* Wider and narrower reals become single precision: BF16 exactly, F64 rounded half to even. */
static void reals_of_other_widths(void **state) {
    static const char header[] = "{\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]},"
                                 "\"d\":{\"dtype\":\"F64\",\"shape\":[4],\"data_offsets\":[8,40]}}";
    static const unsigned char data[] = {
        0x80, 0x3f, 0x20, 0xc0, 0x01, 0x00, 0x80, 0xff,  /* 1, -2.5, denormal, -infinity */
        0,    0,    0,    0,    0,    0,    0xf8, 0x3f,  /* 1.5 */
        0,    0,    0,    0x10, 0,    0,    0xf0, 0x3f,  /* 1 + 2^-24: a tie */
        0,    0,    0,    0x30, 0,    0,    0xf0, 0xbf,  /* -(1 + 3 * 2^-24): a tie */
        0x9c, 0x75, 0,    0x88, 0x3c, 0xe4, 0x37, 0x7e}; /* about 1e300 */
    static const float want[] = {1,    -2.5f, 0x1p-133f,       -INFINITY,
                                 1.5f, 1,     -(1 + 0x1p-22f), INFINITY};
    unsigned char file[8 + sizeof header - 1 + sizeof data] = {sizeof header - 1};
    ptq_load_options borrow = {{NULL, NULL, NULL}, 1};
    ptq_archive *archive = NULL;
    int i, k;

    (void)state;
    memcpy(file + 8, header, sizeof header - 1);
    memcpy(file + 8 + sizeof header - 1, data, sizeof data);
    for (k = 0; k < 2; k++) {
        assert_ok(ptq_archive_parse(file, sizeof file, k ? &borrow : NULL, &archive, &err));
        for (i = 0; i < COUNT(want); i++) {
            const ptq_tensor *t = ptq_archive_find(archive, i < 4 ? "b" : "d");
            assert_int_equal(t->type, PTQ_TYPE_F32);
            assert_memory_equal((const float *)t->data + i % 4, &want[i], sizeof(float));
        }
        ptq_archive_free(archive);
    }
}

static void metadata_with_escapes(void **state) {
    static const char *const value[] = {
        "",
        "plain",
        "\"quoted\" \\ / \b\f\n\r\t",
        "\x01\x1F\x7F",
        "h\xC3\xA9 \xE2\x82\xAC",
        "\xF0\x9F\x98\x80",
    };
    ptq_archive *a = NULL, *b = NULL;
    void *bytes = NULL;
    size_t size = 0;
    int i;

    (void)state;
    assert_ok(ptq_archive_create(NULL, &a, &err));
    for (i = 0; i < COUNT(value); i++) {
        char key[16];
        snprintf(key, sizeof key, "k\"%d", i);
        assert_ok(ptq_archive_set_meta(a, key, value[i], &err));
    }
    assert_ok(ptq_archive_set_meta(a, "gone", "x", &err));
    assert_ok(ptq_archive_set_meta(a, "gone", NULL, &err));
    assert_ok(ptq_archive_write(a, &bytes, &size, &err));
    assert_ok(ptq_archive_parse(bytes, size, NULL, &b, &err));
    assert_int_equal(b->metas, COUNT(value));
    for (i = 0; i < COUNT(value); i++)
        assert_string_equal(b->meta[i].value, value[i]);
    assert_string_equal(b->meta[1].key, "k\"1");
    ptq_bytes_free(bytes, NULL);
    ptq_archive_free(a);
    ptq_archive_free(b);
}

/* ---------------------------------------------------------------------------------------------
   Archives that are not */

#define TENSOR(name, dtype, shape, offsets)                                                        \
    "\"" name "\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void one_wrong_field_each(void **state) {
    static const struct {
        const char *header;
        size_t data_size;
        const char *says;
    } bad[] = {
        {"{" TENSOR("bad", "\"F99\"", "[1]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"\"", "[1]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "32", "[1]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "null", "[1]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[-1]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[-1,-1]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[0]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1.5]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1e0]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"U8\"", "[1,]", "[0,1]") "}", 1, "bad"},
        {"{" TENSOR("bad", "\"U8\"", "[1 1]", "[0,1]") "}", 1, "bad"},
        {"{" TENSOR("bad", "\"U8\"", "[+1]", "[0,1]") "}", 1, "bad"},
        {"{" TENSOR("bad", "\"U8\"", "[01]", "[0,1]") "}", 1, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[4294967297]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[18446744073709551617]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[65536,65536]", "[0,0]") "}", 0, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[65536,65536,65536,65536]", "[0,0]") "}", 0, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1,1,1,1,2]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "\"1\"", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[\"1\"]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "1", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[2]", "[0,4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[0,8]") "}", 8, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[4,0]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[0,-4]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[-4,0]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[2]", "[0,8]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[4,8]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[18446744073709551612,18446744073709551616]") "}", 4,
         "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[18446744073709551615,3]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[0]") "}", 4, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "[0,4,8]") "}", 8, "bad"},
        {"{" TENSOR("bad", "\"F32\"", "[1]", "{}") "}", 4, "bad"},
        {"{\"bad\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "bad"},
        {"{\"bad\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "bad"},
        {"{\"bad\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "bad"},
        {"{\"bad\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "bad"},
        {"{\"bad\":[0,4]}", 4, "bad"},
        {"{\"bad\":4}", 4, "bad"},
        {"{\"bad\":{}}", 0, "bad"},
        /* overlap, hole before, hole between, bytes left over, the same name twice */
        {"{" TENSOR("a", "\"U8\"", "[4]", "[0,4]") "," TENSOR("bad", "\"U8\"", "[4]", "[3,7]") "}",
         7, "bad"},
        {"{" TENSOR("bad", "\"U8\"", "[4]", "[0,4]") "," TENSOR("a", "\"U8\"", "[4]", "[0,4]") "}",
         4, ""},
        {"{" TENSOR("bad", "\"U8\"", "[4]", "[1,5]") "}", 5, "bad"},
        {"{" TENSOR("a", "\"U8\"", "[4]", "[0,4]") "," TENSOR("bad", "\"U8\"", "[4]", "[5,9]") "}",
         9, "bad"},
        {"{" TENSOR("a", "\"U8\"", "[4]", "[0,4]") "}", 5, ""},
        {"{}", 1, ""},
        {"{" TENSOR("bad", "\"U8\"", "[4]", "[0,4]") "," TENSOR("bad", "\"U8\"", "[4]",
                                                                "[4,8]") "}",
         8, "bad"},
        /* the same name again, but written with an escape */
        {"{" TENSOR("bad", "\"U8\"", "[1]", "[0,1]") "," TENSOR("b\\u0061d", "\"U8\"", "[1]",
                                                                "[1,2]") "}",
         2, "bad"},
        {"{\"__metadata__\":{\"bad\":1}}", 0, "a string"},
        {"{\"__metadata__\":{\"bad\":[\"x\"]}}", 0, "a string"},
        {"{\"__metadata__\":{\"bad\":\"1\",\"bad\":\"2\"}}", 0, "metadata"},
        {"{\"__metadata__\":[]}", 0, "metadata"},
        {"{\"__metadata__\":\"x\"}", 0, "metadata"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "metadata"},
    };
    int i, wrong = 0;

    (void)state;
    for (i = 0; i < COUNT(bad); i++)
        wrong += !is_refused(bad[i].header, bad[i].data_size, bad[i].says);
    assert_int_equal(wrong, 0);
}

static void headers_that_are_not_json(void **state) {
    static const char *const bad[] = {
        "[]",
        "null",
        "7",
        "\"x\"",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":}",
        "{a:{}}",
        "{'a':{}}",
        "{,}",
        "{}x",
        "{}{}",
        " {}",
        "\xEF\xBB\xBF{}",
        "{\"__metadata__\":{\"a\":\"b\",}}",
        "{\"__metadata__\":{\"a\":\"b\"},}",
        "{\"__metadata__\":{\"a\" \"b\"}}",
        "{\"__metadata__\":{\"a\":\"b\" \"c\":\"d\"}}",
        "{\"__metadata__\":{\"a\":\"b}}",
        "{\"__metadata__\":{\"a\":\"b\\\"}}",
        "{\"__metadata__\":{\"a\":\"\\q\"}}",
        "{\"__metadata__\":{\"a\":\"\\u12\"}}",
        "{\"__metadata__\":{\"a\":\"\\u12g4\"}}",
        "{\"__metadata__\":{\"a\":\"\\ud800\"}}",        /* half a pair */
        "{\"__metadata__\":{\"a\":\"\\ud800\\u0041\"}}", /* the wrong half */
        "{\"__metadata__\":{\"a\":\"\\udc00\"}}",
        "{\"__metadata__\":{\"a\":\"\\u0000\"}}", /* would cut the string short */
        "{\"__metadata__\":{\"a\":\"\n\"}}",      /* a bare control character */
        "{\"__metadata__\":{\"a\":\"\x80\"}}",    /* not UTF-8: a lone continuation ... */
        "{\"__metadata__\":{\"a\":\"\xC3\"}}",    /* ... none, an overlong form, ... */
        "{\"__metadata__\":{\"a\":\"\xC0\x80\"}}",
        "{\"__metadata__\":{\"a\":\"\xED\xA0\x80\"}}",     /* ... a surrogate, ... */
        "{\"__metadata__\":{\"a\":\"\xF4\x90\x80\x80\"}}", /* ... beyond U+10FFFF */
    };
    int i, wrong = 0;

    (void)state;
    for (i = 0; i < COUNT(bad); i++)
        wrong += !is_refused(bad[i], 0, "");
    assert_int_equal(wrong, 0);
}

/* A stack that grows with the nesting would fall over long before the end. */
static void deep_nesting(void **state) {
    static char header[200000];
    size_t i;

    (void)state;
    memset(header, '[', sizeof header - 1);
    memcpy(header, "{\"a\":", 5);
    assert_true(is_refused(header, 0, ""));
    for (i = 0; i + 5 < sizeof header - 1; i += 5)
        memcpy(header + i, "{\"a\":", 5);
    assert_true(is_refused(header, 0, ""));
}

static void header_lengths(void **state) {
    static const uint64_t lengths[] = {
        0,         1, 3, 100, 101, 1 << 20, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX - 7,
        UINT64_MAX};
    ptq_archive *archive = NULL;
    unsigned char bytes[8 + 100];
    int i, j;

    (void)state;
    for (i = 0; i < COUNT(lengths); i++) {
        memset(bytes, ' ', sizeof bytes);
        bytes[8] = '{';
        bytes[107] = '}';
        for (j = 0; j < 8; j++)
            bytes[j] = (unsigned char)(lengths[i] >> (8 * j));
        if (lengths[i] == 100)
            assert_ok(ptq_archive_parse(bytes, sizeof bytes, NULL, &archive, &err));
        else
            assert_fails(PTQ_BAD_FILE, "",
                         ptq_archive_parse(bytes, sizeof bytes, NULL, &archive, &err));
    }
    ptq_archive_free(archive);
    assert_fails(PTQ_BAD_FILE, "", ptq_archive_parse(bytes, 0, NULL, &archive, &err));
    assert_fails(PTQ_BAD_FILE, "", ptq_archive_parse(NULL, 0, NULL, &archive, &err));
}

/* ---------------------------------------------------------------------------------------------
   Models */

static ptq_model *small_model(void) {
    ptq_model *m = NULL;
    ptq_conv_options o;
    int x;

    memset(&o, 0, sizeof o);
    o.channels = 2;
    o.kernel_h = 1;
    assert_ok(ptq_model_create(NULL, &m, &err));
    x = ptq_add_conv2d(m, "conv", ptq_add_input(m, "input", 3, 3, 1), &o);
    x = ptq_add_op(m, PTQ_OP_RELU, "relu", ptq_add_batch_norm(m, "bn", x, 0.25f));
    ptq_add_dense(m, "fc", ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", x), 3);
    fill_model(m, 1);
    assert_ok(ptq_model_set_meta(m, "license", "MIT", &err));
    return m;
}

/* A file could be written with them, and not be read again. */
static void texts_that_are_not_utf8(void **state) {
    static const char *const bad[] = {"\xFF", "ends \xC3", "\xC0\x80", "\xED\xA0\x80",
                                      "\xF5\x80\x80\x80"};
    ptq_model *m = small_model();
    ptq_archive *a = NULL;
    int i;

    (void)state;
    assert_ok(ptq_archive_create(NULL, &a, &err));
    for (i = 0; i < COUNT(bad); i++) {
        assert_fails(PTQ_INVALID_ARGUMENT, "UTF-8", ptq_model_set_meta(m, "key", bad[i], &err));
        assert_fails(PTQ_INVALID_ARGUMENT, "UTF-8", ptq_model_set_meta(m, bad[i], "value", &err));
        assert_fails(PTQ_INVALID_ARGUMENT, "UTF-8", ptq_archive_set_meta(a, bad[i], "value", &err));
        assert_fails(PTQ_INVALID_ARGUMENT, "UTF-8",
                     ptq_archive_add(a, bad[i], ptq_model_param(m, "conv.weight"), &err));
    }
    assert_null(ptq_model_get_meta(m, "key"));
    assert_int_equal(a->metas + a->entries, 0);
    ptq_archive_free(a);
    ptq_model_free(m);
}

static void model_round_trip(void **state) {
    ptq_model *m[2], *b = NULL;
    void *bytes = NULL;
    size_t size = 0;
    int i;

    (void)state;
    m[0] = small_model();
    m[1] = random_resnet8(9, 3, 4, 2, NULL);
    for (i = 0; i < 2; i++) {
        m[i]->mean[0] = 0.1f; /* must survive to the last bit */
        m[i]->std[0] = 1.0f / 3;
        assert_ok(ptq_model_write(m[i], &bytes, &size, &err));
        assert_ok(ptq_model_parse(bytes, size, NULL, &b, &err));
        assert_same_model(m[i], b);
        assert_true(m[i]->mean[0] == b->mean[0] && m[i]->std[0] == b->std[0]);
        if (i == 0) {
            assert_string_equal(ptq_model_get_meta(b, "license"), "MIT");
            assert_true(b->node[ptq_model_find(b, "bn")].epsilon == 0.25f);
        }
        ptq_bytes_free(bytes, NULL);
        ptq_model_free(b);
        ptq_model_free(m[i]);
    }
}

static void fused_model_round_trip(void **state) {
    ptq_model *m = random_resnet8(9, 3, 4, 2, NULL), *fused = NULL, *b = NULL;
    void *bytes = NULL;
    size_t size = 0;
    float *x, *y, input[9 * 9 * 3];
    test_random random = {4};

    (void)state;
    assert_ok(ptq_fuse(m, &fused, NULL, &err));
    assert_ok(ptq_model_write(fused, &bytes, &size, &err));
    assert_ok(ptq_model_parse(bytes, size, NULL, &b, &err));
    assert_same_model(fused, b);
    assert_string_equal(b->node[ptq_model_find(b, "block1.conv2")].out, "block1.add.relu");
    random_floats(&random, input, 9 * 9 * 3, -1, 1);
    x = logits_of(fused, input);
    y = logits_of(b, input);
    assert_memory_equal(x, y, 4 * sizeof *x);
    free(x);
    free(y);
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(b);
    ptq_model_free(fused);
    ptq_model_free(m);
}

static void borrowed_parameters_point_into_the_bytes(void **state) {
    ptq_model *m = random_resnet8(8, 2, 3, 2, NULL), *b = NULL;
    ptq_load_options options = {{NULL, NULL, NULL}, 1};
    void *memory = NULL;
    size_t size = 0;
    const unsigned char *bytes;
    unsigned char *shifted;
    const ptq_tensor *w;

    (void)state;
    assert_ok(ptq_model_write(m, &memory, &size, &err));
    bytes = (const unsigned char *)memory;
    assert_ok(ptq_model_parse(bytes, size, &options, &b, &err));
    w = ptq_model_param(b, "fc.weight");
    assert_true((const unsigned char *)w->data > bytes);
    assert_true((const unsigned char *)w->data + w->size <= bytes + size);
    assert_same_model(m, b);
    ptq_model_free(b);
    shifted = (unsigned char *)malloc(size + 1); /* floats at odd addresses must be copied */
    assert_non_null(shifted);
    memcpy(shifted + 1, bytes, size);
    assert_ok(ptq_model_parse(shifted + 1, size, &options, &b, &err));
    assert_same_model(m, b);
    ptq_model_free(b);
    free(shifted);
    ptq_bytes_free(memory, NULL);
    ptq_model_free(m);
}

/* What PyTorch would write: the tensors alone, with the metadata of its own. */
static void resnet8_without_a_graph(void **state) {
    ptq_model *m = random_resnet8(32, 6, 7, 2, NULL), *b = NULL;
    ptq_archive *a = NULL, *whole = NULL;
    void *bytes = NULL;
    size_t size = 0;
    int i;

    (void)state;
    assert_ok(ptq_model_write(m, &bytes, &size, &err));
    assert_ok(ptq_archive_parse(bytes, size, NULL, &whole, &err));
    ptq_bytes_free(bytes, NULL);
    assert_ok(ptq_archive_create(NULL, &a, &err));
    for (i = whole->entries; i-- > 0;)
        assert_ok(ptq_archive_add(a, whole->entry[i].name, &whole->entry[i].tensor, &err));
    assert_ok(ptq_archive_set_meta(a, "format", "pt", &err));
    assert_ok(ptq_archive_write(a, &bytes, &size, &err));
    assert_ok(ptq_model_parse(bytes, size, NULL, &b, &err));
    assert_int_equal(b->nodes, m->nodes);
    for (i = 0; i < 3; i++) { /* preprocessing is not in such a file */
        b->mean[i] = m->mean[i];
        b->std[i] = m->std[i];
    }
    for (i = 0; i < whole->entries; i++) {
        const ptq_tensor *x = &whole->entry[i].tensor;
        const ptq_tensor *y = ptq_model_param(b, whole->entry[i].name);
        assert_non_null(y);
        assert_int_equal(x->size, y->size);
        assert_memory_equal(x->data, y->data, x->size);
    }
    assert_true(b->node[ptq_model_find(b, "bn1")].epsilon == 1e-3f);
    ptq_model_free(b);
    ptq_bytes_free(bytes, NULL);
    assert_ok(ptq_archive_set_meta(a, "epsilon", "1e-05", &err));
    assert_ok(ptq_archive_write(a, &bytes, &size, &err));
    assert_ok(ptq_model_parse(bytes, size, NULL, &b, &err));
    assert_true(b->node[ptq_model_find(b, "block3.bn2")].epsilon == 1e-5f);
    ptq_model_free(b);
    ptq_bytes_free(bytes, NULL);
    ptq_archive_free(a);
    ptq_archive_free(whole);
    ptq_model_free(m);
}

/* Takes a good model apart, damages one thing, and puts it together again. */
static void assert_damage(const char *tensor, int kind, const char *says) {
    ptq_model *m = small_model(), *b = NULL;
    ptq_archive *whole = NULL, *a = NULL;
    void *bytes = NULL;
    size_t size = 0;
    ptq_status status;
    int i, dims[] = {1, 2};

    assert_ok(ptq_model_write(m, &bytes, &size, &err));
    assert_ok(ptq_archive_parse(bytes, size, NULL, &whole, &err));
    ptq_bytes_free(bytes, NULL);
    assert_ok(ptq_archive_create(NULL, &a, &err));
    for (i = 0; i < whole->metas; i++)
        assert_ok(ptq_archive_set_meta(a, whole->meta[i].key, whole->meta[i].value, &err));
    for (i = 0; i < whole->entries; i++) {
        ptq_tensor t = whole->entry[i].tensor;
        if (!strcmp(whole->entry[i].name, tensor)) {
            if (kind == 0) /* missing */
                continue;
            if (kind == 1) /* another shape of the same size */
                assert_ok(ptq_tensor_borrow(&t, PTQ_TYPE_F32, 0, 2, dims, t.data, t.size, &err));
            if (kind == 2) /* another type */
                t.type = PTQ_TYPE_S32;
            if (kind == 7) { /* transposed */
                t.dim[0] = whole->entry[i].tensor.dim[1];
                t.dim[1] = whole->entry[i].tensor.dim[0];
            }
            if (kind == 3)
                ((float *)t.data)[1] = NAN;
        }
        assert_ok(ptq_archive_add(a, whole->entry[i].name, &t, &err));
        if (kind == 4 && i == 0) /* a tensor that no node knows */
            assert_ok(ptq_archive_add(a, tensor, &t, &err));
    }
    if (kind == 5)
        assert_ok(ptq_archive_set_meta(a, "graph", tensor, &err));
    if (kind == 6)
        assert_ok(ptq_archive_set_meta(a, "format_version", tensor, &err));
    assert_ok(ptq_archive_write(a, &bytes, &size, &err));
    err.text[0] = 0;
    status = ptq_model_parse(bytes, size, NULL, &b, &err);
    if (status == PTQ_OK || !strstr(err.text, says))
        fail_msg("%s, damage %d: %s: \"%s\"", tensor, kind, ptq_name(PTQ_NAMES_STATUS, status),
                 err.text);
    ptq_bytes_free(bytes, NULL);
    ptq_archive_free(a);
    ptq_archive_free(whole);
    ptq_model_free(m);
}

static void models_that_do_not_fit_their_graph(void **state) {
    (void)state;
    assert_damage("fc.weight", 0, "fc.weight");
    assert_damage("bn.running_var", 0, "bn.running_var");
    assert_damage("bn.bias", 1, "bn.bias");
    assert_damage("fc.weight", 7, "fc.weight");
    assert_damage("conv.bias", 2, "conv.bias");
    assert_damage("bn.running_mean", 3, "bn");
    assert_damage("conv.surplus", 4, "conv.surplus");
    assert_damage("ptq-graph 1\ninput input shape=3x3x1\nconv magic in=input\n", 5, "magic");
    assert_damage("ptq-graph 1", 5, "");
    assert_damage("", 5, "");
    assert_damage("3", 6, "format_version");
    assert_damage("", 6, "format_version");
}

/* Neither a graph nor ResNet8: the message says what would help. */
static void tensors_of_another_network(void **state) {
    static const char *const header = "{" TENSOR("layer.weight", "\"F32\"", "[2,2]", "[0,16]") "}";
    size_t size;
    unsigned char *bytes = make_file(header, strlen(header), 16, &size);
    ptq_model *m = NULL;

    (void)state;
    assert_fails(PTQ_BAD_FILE, "ResNet8", ptq_model_parse(bytes, size, NULL, &m, &err));
    free(bytes);
}

/* ---------------------------------------------------------------------------------------------
   Damage at random */

static void *small_file(size_t *size) {
    ptq_model *m = small_model();
    void *bytes = NULL;

    assert_ok(ptq_model_write(m, &bytes, size, &err));
    ptq_model_free(m);
    return bytes;
}

static void every_truncation_is_an_error(void **state) {
    size_t size = 0, n;
    void *whole = small_file(&size);

    (void)state;
    for (n = 0; n < size; n++) {
        unsigned char *part = (unsigned char *)malloc(n ? n : 1);
        ptq_model *m = NULL;
        ptq_archive *a = NULL;

        assert_non_null(part);
        memcpy(part, whole, n);
        assert_fails(PTQ_BAD_FILE, "", ptq_archive_parse(part, n, NULL, &a, &err));
        assert_fails(PTQ_BAD_FILE, "", ptq_model_parse(part, n, NULL, &m, &err));
        free(part);
    }
    ptq_bytes_free(whole, NULL);
}

static void mutate(test_random *random, unsigned char *bytes, size_t size) {
    static const char likely[] = "{}[]\",:0123456789-.eu\\ =x\n\0\xFF";
    size_t header = 8 + bytes[0] + 256u * bytes[1];
    int changes = random_int(random, 1, 4);

    while (changes-- > 0) {
        size_t range = random_int(random, 0, 9) ? header : size; /* most of it in the header */
        size_t at = (size_t)(random_bits(random) % range);
        if (random_int(random, 0, 1))
            bytes[at] = (unsigned char)likely[random_int(random, 0, (int)sizeof likely - 1)];
        else
            bytes[at] = (unsigned char)random_bits(random);
    }
}

/* Whatever loads after that must be a model that runs. */
static void random_damage(void **state) {
    size_t size = 0;
    void *whole = small_file(&size);
    unsigned char *bytes = (unsigned char *)malloc(size);
    test_random random = {99};
    test_heap heap;
    ptq_load_options options = {{NULL, NULL, NULL}, 0};
    int i, loaded = 0;

    (void)state;
    assert_non_null(bytes);
    options.allocator = test_heap_start(&heap);
    for (i = 0; i < 20000; i++) {
        ptq_model *m = NULL;
        ptq_status status;

        memcpy(bytes, whole, size);
        mutate(&random, bytes, size);
        err.text[0] = 0;
        status = ptq_model_parse(bytes, size, &options, &m, &err);
        if (status == PTQ_OK) {
            ptq_plan *plan = NULL;
            loaded++;
            assert_ok(ptq_model_check(m, &err));
            assert_ok(ptq_plan_create(m, NULL, &plan, &err));
            ptq_plan_free(plan);
            ptq_model_free(m);
        } else {
            assert_null(m);
            assert_true(err.text[0] && memchr(err.text, 0, sizeof err.text));
            assert_null(strchr(err.text, '\n'));
        }
        assert_int_equal(heap.live, 0);
    }
    assert_true(loaded > 100 && loaded < 19000); /* the damage is neither hopeless nor harmless */
    free(bytes);
    ptq_bytes_free(whole, NULL);
}

/* ---------------------------------------------------------------------------------------------
   Files on disk */

static void save_and_load(void **state) {
    ptq_model *m = small_model(), *b = NULL;
    ptq_archive *a = NULL;
    void *bytes = NULL;
    size_t size = 0;

    (void)state;
    assert_ok(ptq_model_save(m, in_directory("m.safetensors"), &err));
    assert_ok(ptq_model_save(m, in_directory("m.safetensors"), &err)); /* over an existing one */
    assert_int_equal(count_files(), 1);
    assert_ok(ptq_model_load(in_directory("m.safetensors"), NULL, &b, &err));
    assert_same_model(m, b);
    assert_ok(ptq_file_read(in_directory("m.safetensors"), 0, NULL, &bytes, &size, &err));
    assert_ok(ptq_archive_parse(bytes, size, NULL, &a, &err));
    ptq_bytes_free(bytes, NULL);
    assert_non_null(ptq_archive_find(a, "conv.weight"));
    assert_ok(ptq_archive_write(a, &bytes, &size, &err));
    assert_ok(ptq_file_write(in_directory("a.safetensors"), bytes, size, &err));
    ptq_bytes_free(bytes, NULL);
    assert_ok(ptq_file_read(in_directory("a.safetensors"), 0, NULL, &bytes, &size, &err));
    assert_int_equal(size % 4, 0);
    assert_fails(PTQ_BAD_FILE, "a.safetensors",
                 ptq_file_read(in_directory("a.safetensors"), size - 1, NULL, &bytes, &size, &err));
    ptq_bytes_free(bytes, NULL);
    ptq_archive_free(a);
    ptq_model_free(b);
    ptq_model_free(m);
}

static void files_that_cannot_be_read(void **state) {
    ptq_model *m = NULL;

    (void)state;
    assert_fails(PTQ_IO_ERROR, "missing.safetensors",
                 ptq_model_load(in_directory("missing.safetensors"), NULL, &m, &err));
    assert_int_not_equal(ptq_model_load(test_directory, NULL, &m, &err), PTQ_OK);
    assert_non_null(strstr(err.text, test_directory));
    write_file(in_directory("empty"), "", 0);
    assert_fails(PTQ_BAD_FILE, "empty", ptq_model_load(in_directory("empty"), NULL, &m, &err));
    write_file(in_directory("other"), "\x89HDF\r\n\x1A\n and so on", 18);
    assert_fails(PTQ_BAD_FILE, "other", ptq_model_load(in_directory("other"), NULL, &m, &err));
}

static void assert_survives(const char *path) {
    void *bytes = NULL;
    size_t size = 0;

    assert_ok(ptq_file_read(path, 0, NULL, &bytes, &size, &err));
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "old", 3);
    ptq_bytes_free(bytes, NULL);
}

/* A disk that fills up in the middle: the limit on file sizes fails the same way, for root too. */
static void failing_save_leaves_the_old_file(void **state) {
    ptq_model *m = random_resnet8(32, 16, 10, 1, NULL);
    const char *path = in_directory("m.safetensors");
    struct rlimit old, low;
    ptq_status status;

    (void)state;
    write_file(path, "old", 3);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    status = ptq_model_save(m, path, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, PTQ_IO_ERROR);
    assert_non_null(strstr(err.text, "m.safetensors"));
    assert_survives(path);
    assert_int_equal(count_files(), 1); /* no half of a file is left either */
    ptq_model_free(m);
}

static void saving_where_nothing_may_be_written(void **state) {
    ptq_model *m = small_model();

    (void)state;
    assert_fails(PTQ_IO_ERROR, "nowhere",
                 ptq_model_save(m, in_directory("nowhere/m.safetensors"), &err));
    if (geteuid() != 0) { /* root may write anywhere */
        write_file(in_directory("m.safetensors"), "old", 3);
        assert_int_equal(chmod(test_directory, 0555), 0);
        assert_fails(PTQ_IO_ERROR, "m.safetensors",
                     ptq_model_save(m, in_directory("m.safetensors"), &err));
        assert_int_equal(chmod(test_directory, 0755), 0);
        assert_survives(in_directory("m.safetensors"));
    }
    ptq_model_free(m);
}

#define IN_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(archive_of_every_type),
        cmocka_unit_test(header_is_padded_to_eight),
        cmocka_unit_test(unusual_but_legal_headers),
        cmocka_unit_test(tensors_of_other_kinds),
        cmocka_unit_test(reals_of_other_widths),
        cmocka_unit_test(metadata_with_escapes),
        cmocka_unit_test(one_wrong_field_each),
        cmocka_unit_test(headers_that_are_not_json),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(header_lengths),
        cmocka_unit_test(texts_that_are_not_utf8),
        cmocka_unit_test(model_round_trip),
        cmocka_unit_test(fused_model_round_trip),
        cmocka_unit_test(borrowed_parameters_point_into_the_bytes),
        cmocka_unit_test(resnet8_without_a_graph),
        cmocka_unit_test(models_that_do_not_fit_their_graph),
        cmocka_unit_test(tensors_of_another_network),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(random_damage),
        IN_DIRECTORY(save_and_load),
        IN_DIRECTORY(files_that_cannot_be_read),
        IN_DIRECTORY(failing_save_leaves_the_old_file),
        IN_DIRECTORY(saving_where_nothing_may_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
