/* FlatBuffers, written front to back. */
#include "export/flat_writer.h"

#include <stdlib.h>
#include <string.h>

/* Makes the file longer, by zeros. Returns where they begin. */
static size_t extend(flat_writer *to, size_t n) {
    size_t at = to->size;

    if (!to->failed && n > to->capacity - to->size) {
        size_t capacity = 2 * to->capacity + n + 4096;
        uint8_t *larger = realloc(to->bytes, capacity);

        to->failed = !larger;
        if (larger) {
            to->bytes = larger;
            to->capacity = capacity;
        }
    }
    if (to->failed)
        return 0;
    memset(to->bytes + at, 0, n);
    to->size += n;
    return at;
}

/* So that what follows `before` more bytes begins at a multiple of `align`. */
static void align_to(flat_writer *to, size_t before, size_t align) {
    extend(to, (align - (to->size + before) % align) % align);
}

static uint64_t read_at(const flat_writer *to, size_t at, int width) {
    uint64_t value = 0;

    for (int i = width - 1; i >= 0 && !to->failed; i--)
        value = value << 8 | to->bytes[at + (size_t)i];
    return value;
}

void flat_put(flat_writer *to, size_t at, size_t width, int64_t value) {
    for (size_t i = 0; i < width && !to->failed; i++)
        to->bytes[at + i] = (uint8_t)((uint64_t)value >> (8 * i));
}

void flat_put_real(flat_writer *to, size_t at, float value) {
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    flat_put(to, at, 4, bits);
}

void flat_link(flat_writer *to, size_t at, size_t target) {
    flat_put(to, at, 4, (int64_t)(target - at));
}

void flat_begin(flat_writer *to, const char *identifier) {
    memset(to, 0, sizeof *to);
    extend(to, 8);
    if (!to->failed)
        memcpy(to->bytes + 4, identifier, 4);
}

void flat_free(flat_writer *to) { free(to->bytes); }

/* The vtable stands in front of its table: its size, that of the table, and where in it each field
   lies, at a multiple of its width. */
size_t flat_new_table(flat_writer *to, const char *widths) {
    size_t count = strlen(widths), own = 4 + 2 * count, length = 4, vtable, table;

    align_to(to, own, 4);
    vtable = extend(to, own);
    for (size_t i = 0; i < count; i++) {
        size_t width = (size_t)(widths[i] - '0');

        if (!width)
            continue;
        length = (length + width - 1) / width * width;
        flat_put(to, vtable + 4 + 2 * i, 2, (int64_t)length);
        length += width;
    }
    flat_put(to, vtable, 2, (int64_t)own);
    flat_put(to, vtable + 2, 2, (int64_t)length);
    table = extend(to, length);
    flat_put(to, table, 4, (int64_t)(table - vtable));
    return table;
}

size_t flat_new_vector(flat_writer *to, size_t count, size_t width, size_t align) {
    size_t at;

    align_to(to, 4, align);
    at = extend(to, 4 + count * width);
    flat_put(to, at, 4, (int64_t)count);
    return at;
}

size_t flat_new_text(flat_writer *to, const char *text) {
    size_t n = strlen(text), at = flat_new_vector(to, n, 1, 4);

    extend(to, 1); /* the 0 behind a text does not count */
    if (!to->failed)
        memcpy(to->bytes + at + 4, text, n);
    return at;
}

size_t flat_new_integers(flat_writer *to, const int *numbers, size_t count) {
    size_t at = flat_new_vector(to, count, 4, 4);

    for (size_t i = 0; i < count; i++)
        flat_put(to, flat_element(at, i, 4), 4, numbers[i]);
    return at;
}

size_t flat_field(const flat_writer *to, size_t table, int field) {
    size_t vtable = table - (size_t)read_at(to, table, 4);

    return table + (size_t)read_at(to, vtable + 4 + 2 * (size_t)field, 2);
}

size_t flat_element(size_t vector, size_t i, size_t width) { return vector + 4 + i * width; }
