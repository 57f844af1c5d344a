/* NumPy's .npy (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html): a magic
   word, a version, a Python dictionary as text, then the elements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "ptq.h"

enum { MOST_HEADER = 65536 };

static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

int looks_like_npy(const data_bytes *bytes) {
    uint8_t begin[sizeof magic];

    return !bytes_read(bytes, 0, sizeof begin, begin, NULL) && !memcmp(begin, magic, sizeof begin);
}

/* Where the value of a key begins; NULL without it. */
static const char *value_of(const char *text, const char *key) {
    for (const char *at = text; (at = strpbrk(at, "'\"")); at++) {
        size_t n = strlen(key);

        if (!strncmp(at + 1, key, n) && at[n + 1] == *at) {
            at += n + 2;
            at += strspn(at, " \t");
            if (*at == ':')
                return at + 1 + strspn(at + 1, " \t");
            at--;
        }
    }
    return NULL;
}

/* "'<f4'" */
static ptq_status read_type(const char *at, data_array *out, ptq_error *err) {
    char text[16] = "";
    size_t n;

    if (!at || (*at != '\'' && *at != '"'))
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "%s: its elements are records; save an array of plain numbers",
                             out->name);
    n = strcspn(at + 1, "'\"");
    snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1), at + 1);
    out->big = text[0] == '>';
    out->kind = text[0] ? text[1] : 0;
    out->width = text[0] && text[1] >= 'a' && text[2] >= '1' && text[2] <= '8' && !text[3]
                     ? text[2] - '0'
                     : 0;
    if (!strchr("<>|=", text[0] ? text[0] : 'x') ||
        !((out->kind == 'b' && out->width == 1) ||
          ((out->kind == 'u' || out->kind == 'i') &&
           (out->width == 1 || out->width == 2 || out->width == 4 || out->width == 8)) ||
          (out->kind == 'f' && (out->width == 2 || out->width == 4 || out->width == 8))))
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "%s: its elements have the type '%s'; save them as uint8 or float32",
                             out->name, text);
    return PTQ_OK;
}

/* "(500, 49, 10, 1)", "(3,)", "()" */
static ptq_status read_shape(const char *at, data_array *out, ptq_error *err) {
    int legal = at && *at == '(';

    at = legal ? at + 1 : "";
    while (legal && *(at += strspn(at, " ,")) != ')') {
        char *end;

        legal = *at >= '0' && *at <= '9' && out->rank < ARRAY_RANK;
        if (legal) {
            out->dim[out->rank++] = strtoull(at, &end, 10);
            at = end + (*end == 'L');
        }
    }
    return legal ? PTQ_OK
                 : ptq_error_set(err, PTQ_BAD_DATA, "%s: its header tells no shape that is known",
                                 out->name);
}

/* The elements of one column lie together: an item is scattered over the file. */
static ptq_status refuse_columns(const char *at, const data_array *array, ptq_error *err) {
    int wide = 0;

    for (int i = 0; i < array->rank; i++)
        wide += array->dim[i] > 1;
    if (at && !strncmp(at, "False", 5))
        return PTQ_OK;
    if (!at || strncmp(at, "True", 4))
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: its header tells no order of elements",
                             array->name);
    return wide < 2 ? PTQ_OK
                    : ptq_error_set(err, PTQ_UNSUPPORTED,
                                    "%s is in Fortran order; save it in C order, with "
                                    "numpy.ascontiguousarray",
                                    array->name);
}

static ptq_status read_header(char *text, size_t size, data_array *out, ptq_error *err) {
    ptq_status status;

    text[size] = 0;
    status = read_type(value_of(text, "descr"), out, err);
    if (!status)
        status = read_shape(value_of(text, "shape"), out, err);
    if (!status)
        status = refuse_columns(value_of(text, "fortran_order"), out, err);
    return status ? status : array_check(out, err);
}

ptq_status npy_open(const data_bytes *bytes, const char *name, data_array *out, ptq_error *err) {
    uint8_t begin[12] = {0};
    size_t size, length;
    char *text;
    ptq_status status;

    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    out->bytes = *bytes;
    if (!looks_like_npy(bytes))
        return ptq_error_set(err, PTQ_BAD_DATA, "%s is no .npy file", out->name);
    status = bytes_read(bytes, 0, 10, begin, err);
    length = begin[6] == 1 ? 10 : 12;
    if (!status && (begin[6] < 1 || begin[6] > 3))
        return ptq_error_set(err, PTQ_UNSUPPORTED, "%s: version %d of .npy is not known", out->name,
                             (int)begin[6]);
    if (!status)
        status = bytes_read(bytes, 0, length, begin, err);
    if (status)
        return status;
    size = (size_t)begin[8] | (size_t)begin[9] << 8 | (size_t)begin[10] << 16 |
           (size_t)begin[11] << 24;
    if (size > MOST_HEADER)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: its header is too long", out->name);
    text = malloc(size + 1);
    if (!text)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory");
    out->start = length + size;
    status = bytes_read(bytes, length, size, text, err);
    if (!status)
        status = read_header(text, size, out, err);
    free(text);
    return status;
}

/* The header ends with a line feed on a multiple of 64 bytes. */
size_t npy_header(char kind, size_t rows, size_t columns, char *text) {
    int used;

    memset(text, ' ', NPY_HEADER);
    memcpy(text, magic, sizeof magic);
    text[6] = 1;
    text[7] = 0;
    text[8] = NPY_HEADER - 10;
    text[9] = 0;
    used = snprintf(text + 10, NPY_HEADER - 10,
                    "{'descr': '<%c4', 'fortran_order': False, 'shape': (%zu, %zu), }", kind, rows,
                    columns);
    text[10 + used] = ' ';
    text[NPY_HEADER - 1] = '\n';
    return NPY_HEADER;
}
