/* FlatBuffers, read without trust. */
#include "import/flatbuffer.h"

#include <string.h>

void flat_open(const void *bytes, size_t size, flat_file *out) {
    out->bytes = bytes;
    out->size = size;
    out->damage = SIZE_MAX;
}

static void note_damage(flat_file *file, size_t at) {
    if (file->damage == SIZE_MAX)
        file->damage = at;
}

/* The `width` bytes there as a number without a sign; 0 and damage where the file has none. */
static uint64_t read_bytes(flat_file *file, size_t at, int width) {
    uint64_t value = 0;

    if (at > file->size || file->size - at < (size_t)width) {
        note_damage(file, at);
        return 0;
    }
    for (int i = width - 1; i >= 0; i--)
        value = value << 8 | file->bytes[at + (size_t)i];
    return value;
}

static int64_t read_integer(flat_file *file, size_t at, int width) {
    uint64_t value = read_bytes(file, at, width), sign = (uint64_t)1 << (8 * width - 1);

    return (int64_t)((value ^ sign) - sign);
}

static float read_real(flat_file *file, size_t at) {
    uint32_t bits = (uint32_t)read_bytes(file, at, 4);
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* What the distance that stands at `at` leads to; 0: nothing. */
static size_t follow(flat_file *file, size_t at) {
    size_t distance = (size_t)read_bytes(file, at, 4);

    if (!distance || distance >= file->size - at) {
        note_damage(file, at);
        return 0;
    }
    return at + distance;
}

static flat_table table_from(flat_file *file, size_t at) {
    flat_table table = {0, 0, 0};
    int64_t vtable = at ? (int64_t)at - read_integer(file, at, 4) : 0;
    size_t size;

    if (!at)
        return table;
    if (vtable < 0 || (uint64_t)vtable > file->size) {
        note_damage(file, at);
        return table;
    }
    size = (size_t)read_bytes(file, (size_t)vtable, 2);
    if (size < 4 || size > file->size - (size_t)vtable) {
        note_damage(file, (size_t)vtable);
        return table;
    }
    table.at = at;
    table.fields = (size_t)vtable + 4;
    table.count = (int)(size - 4) / 2;
    return table;
}

flat_table flat_root(flat_file *file) { return table_from(file, follow(file, 0)); }

/* Where a field lies; 0: it has its default. */
static size_t field_at(flat_file *file, flat_table table, int field) {
    size_t offset = 0;

    if (table.at && field < table.count)
        offset = (size_t)read_bytes(file, table.fields + 2 * (size_t)field, 2);
    return offset ? table.at + offset : 0;
}

int64_t flat_integer(flat_file *file, flat_table table, int field, int width, int64_t otherwise) {
    size_t at = field_at(file, table, field);

    return at ? read_integer(file, at, width) : otherwise;
}

float flat_real(flat_file *file, flat_table table, int field, float otherwise) {
    size_t at = field_at(file, table, field);

    return at ? read_real(file, at) : otherwise;
}

flat_table flat_child(flat_file *file, flat_table table, int field) {
    size_t at = field_at(file, table, field);

    return table_from(file, at ? follow(file, at) : 0);
}

flat_vector flat_list(flat_file *file, flat_table table, int field, int width) {
    size_t at = field_at(file, table, field);
    flat_vector vector = {0, 0};

    if (!at || !(at = follow(file, at)))
        return vector;
    vector.at = at + 4;
    vector.count = (size_t)read_bytes(file, at, 4);
    if (vector.at > file->size || vector.count > (file->size - vector.at) / (size_t)width) {
        note_damage(file, at);
        vector.count = 0;
    }
    return vector;
}

int64_t flat_integer_at(flat_file *file, flat_vector vector, size_t i, int width) {
    return read_integer(file, vector.at + i * (size_t)width, width);
}

float flat_real_at(flat_file *file, flat_vector vector, size_t i) {
    return read_real(file, vector.at + i * 4);
}

flat_table flat_table_at(flat_file *file, flat_vector vector, size_t i) {
    return table_from(file, follow(file, vector.at + i * 4));
}

void flat_text(flat_file *file, flat_table table, int field, char *out, size_t size) {
    flat_vector text = flat_list(file, table, field, 1);
    size_t length = text.count < size ? text.count : size - 1;

    if (length)
        memcpy(out, file->bytes + text.at, length);
    out[length] = 0;
}
