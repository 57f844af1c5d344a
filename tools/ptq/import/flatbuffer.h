/* FlatBuffers, the encoding of TensorFlow Lite's files (https://flatbuffers.dev/internals/), read
   where they lie and without trust: a file may say anything.

   All numbers are little-endian. A table begins with the distance back to its vtable, which lists
   for each field where in the table it lies; 0: it has its default. Vectors, texts and tables in
   tables are distances forward, so that nothing can contain itself. What would lie outside the
   file is taken for missing, and noted: flat_damage tells, in the end, the first place at which
   the file was found to be wrong. */
#ifndef PTQ_TOOL_FLATBUFFER_H
#define PTQ_TOOL_FLATBUFFER_H

#include <stddef.h>
#include <stdint.h>

typedef struct flat_file {
    const uint8_t *bytes;
    size_t size;
    size_t damage; /* offset of the first that is wrong; SIZE_MAX: none was seen */
} flat_file;

/* at 0: there is none. Fields of such a table have their defaults. */
typedef struct flat_table {
    size_t at, fields; /* fields: where the vtable lists the first of them ... */
    int count;         /* ... and how many there are */
} flat_table;

typedef struct flat_vector {
    size_t at; /* of the first element */
    size_t count;
} flat_vector;

void flat_open(const void *bytes, size_t size, flat_file *out);
flat_table flat_root(flat_file *file);

/* Field `field` of a table: integers of 1, 2, 4 or 8 bytes, with a sign, or real numbers of 4. */
int64_t flat_integer(flat_file *file, flat_table table, int field, int width, int64_t otherwise);
float flat_real(flat_file *file, flat_table table, int field, float otherwise);
flat_table flat_child(flat_file *file, flat_table table, int field);

/* Elements of `width` bytes, all of them within the file; count 0 where there is none. */
flat_vector flat_list(flat_file *file, flat_table table, int field, int width);

/* Element i < count of a vector: of integers, of real numbers, of tables (width 4). */
int64_t flat_integer_at(flat_file *file, flat_vector vector, size_t i, int width);
float flat_real_at(flat_file *file, flat_vector vector, size_t i);
flat_table flat_table_at(flat_file *file, flat_vector vector, size_t i);

/* A text, cut to fit; "" where there is none. */
void flat_text(flat_file *file, flat_table table, int field, char *out, size_t size);

#endif
