/* FlatBuffers, written front to back: what a table or vector refers to is written behind it, and
   linked to it then. import/flatbuffer.h says what the bytes mean. */
#ifndef PTQ_TOOL_FLAT_WRITER_H
#define PTQ_TOOL_FLAT_WRITER_H

#include <stddef.h>
#include <stdint.h>

typedef struct flat_writer {
    uint8_t *bytes;
    size_t size, capacity;
    int failed; /* no memory: what is written from then on goes nowhere */
} flat_writer;

/* Begins a file of the kind that four letters tell; its root, a table, is linked to FLAT_ROOT. */
enum { FLAT_ROOT = 0 };
void flat_begin(flat_writer *to, const char *identifier);
void flat_free(flat_writer *to);

/* A table whose first fields have so many bytes each, "4410": 0 stands for a field that is left out.
   All are 0. Returns where it is. */
size_t flat_new_table(flat_writer *to, const char *widths);

/* A vector of `count` elements of `width` bytes, of which the first lies at a multiple of `align`
   (4 or more); all 0. Returns where it is. A text is one of bytes. */
size_t flat_new_vector(flat_writer *to, size_t count, size_t width, size_t align);
size_t flat_new_text(flat_writer *to, const char *text);
size_t flat_new_integers(flat_writer *to, const int *numbers, size_t count); /* of 4 bytes */

/* Where a table's field stands, and element i of a vector. */
size_t flat_field(const flat_writer *to, size_t table, int field);
size_t flat_element(size_t vector, size_t i, size_t width);

/* What stands there: an integer of `width` bytes, a real number, what it refers to. */
void flat_put(flat_writer *to, size_t at, size_t width, int64_t value);
void flat_put_real(flat_writer *to, size_t at, float value);
void flat_link(flat_writer *to, size_t at, size_t target);

#endif
