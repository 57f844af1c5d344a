/* IDX, the format of MNIST (http://yann.lecun.com/exdb/mnist): two zeros, a type, the number of
   dimensions, each dimension in four bytes, then the elements; all most significant byte first. */
#include <stdio.h>
#include <string.h>

#include "data/array.h"
#include "ptq.h"

static int read_type(int code, char *kind, int *width) {
    static const struct {
        int code, width;
        char kind;
    } types[] = {{0x08, 1, 'u'}, {0x09, 1, 'i'}, {0x0b, 2, 'i'},
                 {0x0c, 4, 'i'}, {0x0d, 4, 'f'}, {0x0e, 8, 'f'}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].code == code) {
            *kind = types[i].kind;
            *width = types[i].width;
            return 1;
        }
    return 0;
}

int looks_like_idx(const data_bytes *bytes) {
    uint8_t begin[4];
    char kind;
    int width;

    return !bytes_read(bytes, 0, 4, begin, NULL) && !begin[0] && !begin[1] &&
           read_type(begin[2], &kind, &width) && begin[3] >= 1 && begin[3] <= ARRAY_RANK;
}

ptq_status idx_open(const data_bytes *bytes, const char *name, data_array *out, ptq_error *err) {
    uint8_t begin[4 + 4 * ARRAY_RANK];
    ptq_status status = PTQ_OK;

    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    out->bytes = *bytes;
    if (!looks_like_idx(bytes))
        return ptq_error_set(err, PTQ_BAD_DATA, "%s is no IDX file", out->name);
    status = bytes_read(bytes, 0, 4, begin, err);
    if (!status)
        status = bytes_read(bytes, 0, 4 + 4 * (size_t)begin[3], begin, err);
    if (status)
        return status;
    read_type(begin[2], &out->kind, &out->width);
    out->big = 1;
    out->rank = begin[3];
    out->start = 4 + 4 * (uint64_t)begin[3];
    for (int i = 0; i < out->rank; i++) {
        const uint8_t *at = begin + 4 + 4 * i;

        out->dim[i] = (uint64_t)at[0] << 24 | (uint64_t)at[1] << 16 | (uint64_t)at[2] << 8 | at[3];
    }
    return array_check(out, err);
}
