/* Elements of arrays as bytes, real numbers or labels, whatever type they have in the file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "ptq.h"

enum { MOST_LABEL = 65535, CHUNK = 4096 };

void array_close(data_array *array) { bytes_close(&array->bytes); }

size_t array_items(const data_array *array) { return array->rank ? (size_t)array->dim[0] : 0; }

size_t array_item_elements(const data_array *array) {
    size_t n = 1;

    for (int i = 1; i < array->rank; i++)
        n *= (size_t)array->dim[i];
    return n;
}

ptq_status array_check(const data_array *array, ptq_error *err) {
    uint64_t elements = 1, most = (uint64_t)1 << 48;

    if (!array->rank)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s holds a single number, not an array of items",
                             array->name);
    for (int i = 0; i < array->rank; i++) {
        if (!array->dim[i])
            return ptq_error_set(err, PTQ_BAD_DATA, "%s holds no items: dimension %d is 0",
                                 array->name, i);
        if (array->dim[i] > most / elements)
            return ptq_error_set(err, PTQ_BAD_DATA, "%s: its dimensions are too large",
                                 array->name);
        elements *= array->dim[i];
    }
    if (array->start > array->bytes.size ||
        elements * (uint64_t)array->width > array->bytes.size - array->start)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s is cut off: %llu bytes of elements, not %llu",
                             array->name,
                             (unsigned long long)(array->bytes.size < array->start
                                                      ? 0
                                                      : array->bytes.size - array->start),
                             (unsigned long long)(elements * (uint64_t)array->width));
    return PTQ_OK;
}

/* ---- One element ---- */

static uint64_t word(const data_array *array, const uint8_t *at) {
    uint64_t value = 0;
    int n = array->width;

    for (int i = 0; i < n; i++)
        value |= (uint64_t)at[i] << 8 * (array->big ? n - 1 - i : i);
    return value;
}

/* IEEE half precision: 1 sign, 5 exponent, 10 fraction bits. */
static double half(unsigned bits) {
    int exponent = (int)(bits >> 10 & 31), sign = bits >> 15 & 1;
    double fraction = bits & 1023, value;

    if (exponent == 31)
        value = fraction > 0 ? NAN : INFINITY;
    else
        value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return sign ? -value : value;
}

static double element(const data_array *array, const uint8_t *at) {
    uint64_t bits = word(array, at);
    double real = 0;

    if (array->kind == 'f' && array->width == 8) {
        memcpy(&real, &bits, 8);
        return real;
    }
    if (array->kind == 'f' && array->width == 4) {
        uint32_t low = (uint32_t)bits;
        float single;

        memcpy(&single, &low, 4);
        return (double)single;
    }
    if (array->kind == 'f')
        return half((unsigned)bits);
    if (array->kind == 'i' && array->width < 8 && bits >> (8 * array->width - 1))
        return -(double)(((uint64_t)1 << 8 * array->width) - bits);
    if (array->kind == 'i' && bits >> 63)
        return -(double)(0 - bits);
    return (double)bits;
}

/* ---- Items ---- */

/* Elements from..from + n as they are in the file. */
static ptq_status read_raw(const data_array *array, uint64_t from, size_t n, void *to,
                           ptq_error *err) {
    return bytes_read(&array->bytes, array->start + from * (uint64_t)array->width,
                      n * (size_t)array->width, to, err);
}

ptq_status array_bytes(const data_array *array, size_t index, uint8_t *out, ptq_error *err) {
    size_t n = array_item_elements(array);
    uint64_t from = (uint64_t)index * n;
    uint8_t raw[CHUNK];
    ptq_status status = PTQ_OK;

    if (array->width == 1 && array->kind == 'u')
        return read_raw(array, from, n, out, err);
    for (size_t done = 0, part; done < n && !status; done += part) {
        part = CHUNK / (size_t)array->width;
        part = n - done < part ? n - done : part;
        status = read_raw(array, from + done, part, raw, err);
        for (size_t i = 0; i < part && !status; i++) {
            double value = element(array, raw + i * (size_t)array->width);

            if (!(value >= 0 && value <= 255))
                status = ptq_error_set(err, PTQ_BAD_NUMBER,
                                       "%s: item %zu has the pixel %g; pixels are 0 to 255",
                                       array->name, index, value);
            else
                out[done + i] = (uint8_t)value;
        }
    }
    return status;
}

ptq_status array_reals(const data_array *array, size_t index, float *out, ptq_error *err) {
    size_t n = array_item_elements(array);
    uint64_t from = (uint64_t)index * n;
    uint8_t raw[CHUNK];
    ptq_status status = PTQ_OK;

    for (size_t done = 0, part; done < n && !status; done += part) {
        part = CHUNK / (size_t)array->width;
        part = n - done < part ? n - done : part;
        status = read_raw(array, from + done, part, raw, err);
        for (size_t i = 0; i < part && !status; i++) {
            double value = element(array, raw + i * (size_t)array->width);

            out[done + i] = (float)value;
            if (!isfinite(value) || fabs(value) > 3.4028234e38)
                status = ptq_error_set(err, PTQ_BAD_NUMBER,
                                       "%s: item %zu has %s at its element %zu; leave the item out "
                                       "or mend it",
                                       array->name, index,
                                       isnan(value) ? "NaN (not a number)"
                                                    : "a number that no float32 can hold",
                                       done + i);
        }
    }
    return status;
}

ptq_status array_labels(const data_array *array, int *out, ptq_error *err) {
    size_t n = array_items(array), done, part;
    uint8_t raw[CHUNK];
    ptq_status status = PTQ_OK;

    if (array_item_elements(array) != 1)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s holds %zu numbers for each item, not one label; save the number "
                             "of the class (numpy.argmax of one-hot rows)",
                             array->name, array_item_elements(array));
    for (done = 0; done < n && !status; done += part) {
        part = CHUNK / (size_t)array->width;
        part = n - done < part ? n - done : part;
        status = read_raw(array, done, part, raw, err);
        for (size_t i = 0; i < part && !status; i++) {
            double value = element(array, raw + i * (size_t)array->width);

            if (!(value >= -1 && value <= MOST_LABEL) || value != floor(value))
                status = ptq_error_set(err, PTQ_BAD_DATA,
                                       "%s: item %zu has the label %g; labels are whole numbers "
                                       "from 0 (-1: none)",
                                       array->name, done + i, value);
            else
                out[done + i] = (int)value;
        }
    }
    return status;
}
