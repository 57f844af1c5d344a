/* ONNX files as messages and constants, for ptq import; types of elements, for export too.

   protobuf-c checks that a message is well formed, but it recurses as deep as the file nests and
   allocates whatever the file announces. So the bytes are walked once beforehand. */
#include <stdlib.h>
#include <string.h>

#include "onnx/onnx.h"

#ifdef PTQ_HAVE_onnx

#define MOST_FILE_BYTES ((size_t)1 << 31) /* protobuf's own limit */
#define MOST_NESTING 32
#define SPARE_BYTES ((size_t)64 << 20)

/* ---- The walk over the bytes ---- */

typedef struct wire {
    const uint8_t *at, *end;
} wire;

/* What unpacking will allocate, at most. */
typedef struct wire_cost {
    size_t bytes, limit;
    int depth;
} wire_cost;

enum { WIRE_VARINT, WIRE_64_BITS, WIRE_BYTES, WIRE_32_BITS = 5 };
enum { ALLOCATION_BYTES = 32 }; /* of the smallest block that malloc hands out */

static int read_varint(wire *in, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 70 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;

        if (shift < 64)
            *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return 1;
    }
    return 0;
}

/* The bytes of one field, or none for a number; 0 if they run over the end. */
static int read_field(wire *in, int kind, wire *field) {
    uint64_t length = 0;

    if (kind == WIRE_VARINT && !read_varint(in, &length))
        return 0;
    if (kind == WIRE_VARINT)
        length = 0;
    else if (kind == WIRE_64_BITS || kind == WIRE_32_BITS)
        length = kind == WIRE_64_BITS ? 8 : 4;
    else if (kind != WIRE_BYTES || !read_varint(in, &length))
        return 0;
    if (length > (uint64_t)(in->end - in->at))
        return 0;
    field->at = in->at;
    field->end = in->at += length;
    return 1;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *message,
                                                  uint64_t number) {
    for (unsigned i = 0; i < message->n_fields; i++)
        if (message->fields[i].id == number)
            return &message->fields[i];
    return NULL;
}

static const char *walk_message(const ProtobufCMessageDescriptor *message, wire in,
                                wire_cost *cost);

/* A field of bytes: a message, a text, or numbers packed, of which one byte becomes at most 8. */
static const char *walk_bytes(const ProtobufCFieldDescriptor *known, wire field, wire_cost *cost) {
    size_t length = (size_t)(field.end - field.at);
    const char *wrong = NULL;

    if (known && known->type == PROTOBUF_C_TYPE_MESSAGE) {
        cost->depth++;
        wrong = walk_message(known->descriptor, field, cost);
        cost->depth--;
        return wrong;
    }
    cost->bytes += known && known->label == PROTOBUF_C_LABEL_REPEATED &&
                           known->type != PROTOBUF_C_TYPE_STRING &&
                           known->type != PROTOBUF_C_TYPE_BYTES &&
                           known->type != PROTOBUF_C_TYPE_FLOAT
                       ? 8 * length
                       : length;
    return NULL;
}

/* NULL, or what is wrong with the message. */
static const char *walk_message(const ProtobufCMessageDescriptor *message, wire in,
                                wire_cost *cost) {
    cost->bytes += message->sizeof_message + ALLOCATION_BYTES;
    if (cost->depth > MOST_NESTING)
        return "its messages are nested too deeply";
    while (in.at < in.end) {
        uint64_t tag;
        wire field;
        const char *wrong;

        if (!read_varint(&in, &tag) || !read_field(&in, (int)(tag & 7), &field))
            return "a length or a number runs over the end of the message it stands in";
        /* a pointer in an array, and the block of its own that a text or an unknown field gets */
        cost->bytes += 4 * sizeof(void *) + ALLOCATION_BYTES;
        if ((tag & 7) == WIRE_BYTES &&
            (wrong = walk_bytes(find_field(message, tag >> 3), field, cost)) != NULL)
            return wrong;
        if (cost->bytes > cost->limit)
            return "unpacking it would take many times its own size in memory";
    }
    return NULL;
}

/* ---- Opening ---- */

static const char *check_model(const Onnx__ModelProto *model) {
    if (!model)
        return "it is damaged or no ONNX file";
    if (!model->graph)
        return "it holds no graph";
    for (size_t i = 0; i < model->n_opset_import; i++)
        if (!model->opset_import[i]->domain || !*model->opset_import[i]->domain)
            return NULL;
    return "it does not say which opset it uses; it is damaged or no ONNX file";
}

int onnx_open(const char *path, onnx_file *out) {
    wire_cost cost = {0, 0, 0};
    wire in;
    const char *wrong;
    void *bytes = NULL;
    size_t size = 0;
    ptq_error err;

    memset(out, 0, sizeof *out);
    out->path = path;
    if (ptq_file_read(path, MOST_FILE_BYTES, NULL, &bytes, &size, &err))
        return fail("%s", err.text);
    in.at = bytes;
    in.end = in.at + size;
    cost.limit = 8 * size + SPARE_BYTES;
    out->allowance = 4 * size + SPARE_BYTES;
    wrong = walk_message(&onnx__model_proto__descriptor, in, &cost);
    if (!wrong) {
        out->model = onnx__model_proto__unpack(NULL, size, bytes);
        wrong = check_model(out->model);
    }
    ptq_bytes_free(bytes, NULL);
    if (!wrong)
        return 0;
    onnx_close(out);
    return fail("%s cannot be read as ONNX: %s", path, wrong);
}

void onnx_close(onnx_file *file) {
    if (file->model)
        onnx__model_proto__free_unpacked(file->model, NULL);
    file->model = NULL;
}

/* ---- Constants ---- */

size_t onnx_width(int type) {
    switch (type) {
    case ONNX_UINT8:
    case ONNX_INT8:
    case ONNX_BOOL:
        return 1;
    case ONNX_FLOAT16:
        return 2;
    case ONNX_FLOAT:
    case ONNX_INT32:
        return 4;
    case ONNX_INT64:
    case ONNX_DOUBLE:
        return 8;
    default:
        return 0;
    }
}

const char *onnx_type_name(int type) {
    static char text[32];
    const ProtobufCEnumValue *known =
        protobuf_c_enum_descriptor_get_value(&onnx__tensor_proto__data_type__descriptor, type);

    if (known)
        return known->name;
    snprintf(text, sizeof text, "type %d", type);
    return text;
}

/* Adds 'NAME' to a text, for people: at most 60 bytes of it. */
static void add_quoted(char words[ONNX_WORDS_SIZE], const char *name) {
    size_t used = strlen(words), most = used + 61;

    words[used++] = '\'';
    for (; *name && used < most; name++)
        words[used++] = *name >= ' ' && *name <= '~' ? *name : '?';
    words[used++] = '\'';
    words[used] = 0;
}

void onnx_input_words(char words[ONNX_WORDS_SIZE], const char *name, int type, int nhwc,
                      const int dim[3]) {
    size_t used;

    words[0] = 0;
    add_quoted(words, name);
    used = strlen(words);
    snprintf(words + used, ONNX_WORDS_SIZE - used, ", %s, %s, N x %d x %d x %d",
             onnx_type_name(type), nhwc ? "NHWC" : "NCHW", dim[0], dim[1], dim[2]);
}

void onnx_add_words(char words[ONNX_WORDS_SIZE], const char *name) {
    size_t used = strlen(words);

    if (used + 128 > ONNX_WORDS_SIZE) {
        strcpy(words + used - (used > 3 && strcmp(words + used - 3, "...") == 0 ? 3 : 0), "...");
        return;
    }
    if (used)
        strcpy(words + used, ", ");
    add_quoted(words, name);
}

int onnx_code_type(ptq_type type) {
    return type == PTQ_TYPE_S8 || type == PTQ_TYPE_PACKED_S ? ONNX_INT8 : ONNX_UINT8;
}

/* SIZE_MAX where there are too many, or a dimension is negative. */
static size_t count_elements(size_t rank, const int64_t *dims) {
    size_t count = 1;

    for (size_t i = 0; i < rank; i++) {
        if (dims[i] < 0 || dims[i] > PTQ_MAX_ELEMENTS)
            return SIZE_MAX;
        count *= (size_t)dims[i];
        if (count > PTQ_MAX_ELEMENTS)
            return SIZE_MAX;
    }
    return count;
}

int onnx_create(onnx_file *file, int type, int rank, const int64_t *dims, const char *what,
                onnx_constant *out) {
    size_t count, width = onnx_width(type);

    memset(out, 0, sizeof *out);
    if (rank > ONNX_MOST_RANK)
        return fail("%s: tensor '%s' has %d dimensions; at most %d are supported", file->path, what,
                    rank, ONNX_MOST_RANK);
    count = count_elements((size_t)rank, dims);
    if (count == SIZE_MAX)
        return fail("%s: tensor '%s' has more than %d elements, or a negative dimension",
                    file->path, what, PTQ_MAX_ELEMENTS);
    if (count * width > file->allowance)
        return fail("%s: tensor '%s': the constants would take many times the size of the file",
                    file->path, what);
    out->data = calloc(count ? count : 1, width);
    if (!out->data)
        return fail("no memory for tensor '%s'", what);
    file->allowance -= count * width;
    for (int i = 0; i < rank; i++)
        out->dim[i] = dims[i];
    out->type = type;
    out->rank = rank;
    out->count = count;
    return 0;
}

/* The elements as they stand in the file, little-endian, wherever that is. */
typedef struct stored {
    const uint8_t *bytes; /* raw, or NULL ... */
    void *owned;          /* ... where they came from another file */
    const Onnx__TensorProto *tensor;
} stored;

static uint64_t read_le(const uint8_t *bytes, size_t width) {
    uint64_t value = 0;

    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static float float_of_bits(uint32_t bits) {
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static double double_of_bits(uint64_t bits) {
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static float stored_float(const stored *from, size_t i) {
    const Onnx__TensorProto *tensor = from->tensor;

    switch (tensor->data_type) {
    case ONNX_FLOAT16:
        return ptq_f16_to_f32((uint16_t)(from->bytes ? read_le(from->bytes + 2 * i, 2)
                                                     : (uint64_t)tensor->int32_data[i]));
    case ONNX_DOUBLE:
        return (float)(from->bytes ? double_of_bits(read_le(from->bytes + 8 * i, 8))
                                   : tensor->double_data[i]);
    default:
        return from->bytes ? float_of_bits((uint32_t)read_le(from->bytes + 4 * i, 4))
                           : tensor->float_data[i];
    }
}

static int64_t stored_integer(const stored *from, size_t i) {
    const Onnx__TensorProto *tensor = from->tensor;
    size_t width = onnx_width(tensor->data_type);

    if (from->bytes)
        return (int64_t)read_le(from->bytes + width * i, width);
    return tensor->data_type == ONNX_INT64 ? tensor->int64_data[i] : tensor->int32_data[i];
}

/* How many elements the field for this type holds; the field depends on the type. */
static size_t count_listed(const Onnx__TensorProto *tensor) {
    switch (tensor->data_type) {
    case ONNX_FLOAT:
        return tensor->n_float_data;
    case ONNX_DOUBLE:
        return tensor->n_double_data;
    case ONNX_INT64:
        return tensor->n_int64_data;
    default:
        return tensor->n_int32_data;
    }
}

static const char *external_setting(const Onnx__TensorProto *tensor, const char *key) {
    for (size_t i = 0; i < tensor->n_external_data; i++)
        if (tensor->external_data[i]->key && strcmp(tensor->external_data[i]->key, key) == 0)
            return tensor->external_data[i]->value;
    return NULL;
}

/* A location is relative to the model's folder and must stay inside it. */
static int external_path(const char *model_path, const char *location, char path[PATH_SIZE]) {
    const char *slash = strrchr(model_path, '/');
    int folder = slash ? (int)(slash - model_path) + 1 : 0;

    if (!location || !*location || *location == '/' || strstr(location, ".."))
        return 0;
    return snprintf(path, PATH_SIZE, "%.*s%s", folder, model_path, location) < PATH_SIZE;
}

static int read_external(onnx_file *file, const Onnx__TensorProto *tensor, const char *what,
                         size_t need, stored *out) {
    const char *offset_text = external_setting(tensor, "offset");
    const char *length_text = external_setting(tensor, "length");
    long long offset = offset_text ? strtoll(offset_text, NULL, 10) : 0;
    char path[PATH_SIZE];
    FILE *data;
    int good;

    if (!external_path(file->path, external_setting(tensor, "location"), path))
        return fail("%s: tensor '%s' lies outside the model's folder, or nowhere", file->path,
                    what);
    if (offset < 0 || (length_text && strtoull(length_text, NULL, 10) != need))
        return fail("%s: tensor '%s': offset and length of its external data do not fit its shape",
                    file->path, what);
    data = fopen(path, "rb");
    if (!data)
        return fail("%s: tensor '%s' lies in %s, which cannot be opened; keep the files together",
                    file->path, what, path);
    /* The shape may name more than the file has: nothing is allocated for that. */
    good = file_size(path) >= need && (out->owned = malloc(need + 1)) != NULL &&
           fseek(data, (long)offset, SEEK_SET) == 0 && fread(out->owned, 1, need, data) == need;
    fclose(data);
    file->allowance += good ? need : 0;
    out->bytes = out->owned;
    return good ? 0 : fail("%s: tensor '%s': %s is too short", file->path, what, path);
}

static int find_elements(onnx_file *file, const Onnx__TensorProto *tensor, const char *what,
                         size_t count, stored *out) {
    size_t need = count * onnx_width(tensor->data_type);

    memset(out, 0, sizeof *out);
    out->tensor = tensor;
    if (tensor->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
        return read_external(file, tensor, what, need, out);
    if (tensor->has_raw_data && tensor->raw_data.len)
        out->bytes = tensor->raw_data.data;
    if (out->bytes ? tensor->raw_data.len != need : count_listed(tensor) != count)
        return fail("%s: tensor '%s' does not hold as many elements as its shape says", file->path,
                    what);
    return 0;
}

static void copy_elements(const stored *from, onnx_constant *to) {
    for (size_t i = 0; i < to->count; i++) {
        if (to->type == ONNX_FLOAT)
            ((float *)to->data)[i] = stored_float(from, i);
        else if (to->type == ONNX_INT64)
            ((int64_t *)to->data)[i] = stored_integer(from, i);
        else if (to->type == ONNX_INT32)
            ((int32_t *)to->data)[i] = (int32_t)stored_integer(from, i);
        else
            ((uint8_t *)to->data)[i] = (uint8_t)stored_integer(from, i);
    }
}

int onnx_load(onnx_file *file, const Onnx__TensorProto *tensor, const char *what,
              onnx_constant *out) {
    int type = tensor->data_type;
    size_t count = count_elements(tensor->n_dims, tensor->dims);
    stored from;

    if (!onnx_width(type))
        return fail("%s: tensor '%s' is of type %s; FLOAT, FLOAT16, DOUBLE, UINT8, INT8, INT32, "
                    "INT64 and BOOL are supported; cast it to one of these",
                    file->path, what, onnx_type_name(type));
    if (tensor->n_dims > ONNX_MOST_RANK || count == SIZE_MAX)
        return fail("%s: tensor '%s' has more than %d dimensions or %d elements", file->path, what,
                    ONNX_MOST_RANK, PTQ_MAX_ELEMENTS);
    if (find_elements(file, tensor, what, count, &from))
        return free(from.owned), 1;
    if (type == ONNX_FLOAT16 || type == ONNX_DOUBLE)
        type = ONNX_FLOAT;
    if (type == ONNX_BOOL)
        type = ONNX_INT64;
    if (onnx_create(file, type, (int)tensor->n_dims, tensor->dims, what, out))
        return free(from.owned), 1;
    copy_elements(&from, out);
    free(from.owned);
    return 0;
}

#endif
