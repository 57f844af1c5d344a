/* What a file is, by its content. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/files.h"
#include "shared/kind.h"
#include "shared/output.h"

#define HEAD 16
#define MOST_TAIL (1 << 20)    /* of a ZIP archive: where its list of names lies */
#define MOST_HEADER (16 << 20) /* of a safetensors file */

#define IMPORT "convert it with 'ptq import %s -o MODEL.safetensors'"

/* What it is, and what to do; the path may be named once more. */
typedef struct kind_text {
    const char *what, *remedy;
} kind_text;

static const kind_text texts[] = {
    [KIND_OTHER] = {"a file of an unknown kind", "write it as one of these"},
    [KIND_ONNX] = {"an ONNX file", IMPORT},
    [KIND_HDF5] = {"an HDF5 file, as Keras writes it (.h5)", IMPORT},
    [KIND_STATE_DICT] = {"a PyTorch state dict, tensors without a network", IMPORT},
    [KIND_KERAS] = {"a Keras archive (.keras)", IMPORT},
    [KIND_TORCH] = {"a PyTorch file (.pth)",
                    "in Python, write the network with torch.onnx.export, or its state_dict() with "
                    "safetensors.torch.save_file, and give that file to 'ptq import'"},
    [KIND_TFLITE] = {"a TensorFlow Lite file (.tflite)", IMPORT},
    [KIND_SAVED_MODEL] = {"a TensorFlow SavedModel",
                          "write it as ONNX with 'python -m tf2onnx.convert --saved-model %s "
                          "--output MODEL.onnx', and give that file to 'ptq import'"},
    [KIND_NPZ] = {"an archive of numpy arrays (.npz)",
                  "if they are weights, write them with safetensors.numpy.save_file and give that "
                  "file to 'ptq import', with --graph and --map"},
    [KIND_NPY] = {"a numpy array (.npy)", "give a model file (.safetensors)"},
    [KIND_PICTURE] = {"a picture", "give a model file (.safetensors)"},
    [KIND_ZIP] = {"a ZIP archive", "unpack it and give the model in it"},
    [KIND_GZIP] = {"a compressed file (gzip)", "unpack it and give the model in it"},
    [KIND_JSON] = {"a text in JSON, such as a calibration", "give a model file (.safetensors)"},
    [KIND_GRAPH] = {"the text of a network, without weights",
                    "train it with 'ptq train --graph %s --data DIR -o MODEL.safetensors'"},
    [KIND_DIRECTORY] = {"a directory", "name the model file in it"},
    [KIND_EMPTY] = {"an empty file", "write it anew"},
};

/* ---- By the first bytes ---- */

typedef struct magic {
    file_kind kind;
    int at, length;
    const char *bytes;
} magic;

static const magic magics[] = {
    {KIND_HDF5, 0, 8, "\x89HDF\r\n\x1a\n"},
    {KIND_TFLITE, 4, 4, "TFL3"},
    {KIND_ZIP, 0, 4, "PK\3\4"},
    {KIND_NPY, 0, 6, "\x93NUMPY"},
    {KIND_PICTURE, 0, 8, "\x89PNG\r\n\x1a\n"},
    {KIND_PICTURE, 0, 3, "\xff\xd8\xff"},
    {KIND_PICTURE, 0, 4, "GIF8"},
    {KIND_GRAPH, 0, 10, "ptq-graph "},
    {KIND_GZIP, 0, 2, "\x1f\x8b"},
    /* Python's pickles, in which PyTorch kept models before version 1.6. */
    {KIND_TORCH, 0, 2, "\x80\2"},
    {KIND_TORCH, 0, 2, "\x80\3"},
    {KIND_TORCH, 0, 2, "\x80\4"},
    {KIND_TORCH, 0, 2, "\x80\5"},
};

/* ---- ZIP archives, by the names in them ---- */

static int ends_with(const char *name, size_t length, const char *ending) {
    size_t n = strlen(ending);

    return length >= n && memcmp(name + length - n, ending, n) == 0;
}

static file_kind kind_of_member(const char *name, size_t length) {
    if (ends_with(name, length, "model.weights.h5"))
        return KIND_KERAS;
    if (ends_with(name, length, "data.pkl"))
        return KIND_TORCH;
    return ends_with(name, length, ".npy") ? KIND_NPZ : KIND_ZIP;
}

/* The list of names is at the end: 46 bytes for each, that begin PK 1 2 and have the name's length
   at 28, then the name. */
static file_kind kind_of_zip(FILE *file, long size) {
    long length = size < MOST_TAIL ? size : MOST_TAIL;
    file_kind kind = KIND_ZIP;
    unsigned char *tail = malloc((size_t)length);

    if (tail && fseek(file, -length, SEEK_END) == 0 &&
        fread(tail, 1, (size_t)length, file) == (size_t)length)
        for (long i = 0; i + 46 <= length && kind == KIND_ZIP; i++) {
            long name = tail[i + 28] | tail[i + 29] << 8;

            if (memcmp(tail + i, "PK\1\2", 4) == 0 && i + 46 + name <= length)
                kind = kind_of_member((const char *)tail + i + 46, (size_t)name);
        }
    free(tail);
    return kind;
}

/* ---- Protocol buffers: ONNX has no first bytes of its own ---- */

/* 0 at the end of the file, or of what a number may have. */
static int read_varint(FILE *file, uint64_t *out) {
    int byte;

    *out = 0;
    for (int shift = 0; shift < 64 && (byte = fgetc(file)) != EOF; shift += 7) {
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return 1;
    }
    return 0;
}

/* The fields of onnx.ModelProto up to the end of the file, the version of the format (1) and a graph
   (7) among them: numbers, or bytes with their length. */
static int is_onnx(FILE *file, long size) {
    int seen = 0;
    uint64_t key, value;

    rewind(file);
    while (ftell(file) < size) {
        if (!read_varint(file, &key) || !read_varint(file, &value) || key >> 3 == 0 ||
            key >> 3 > 30 || ((key & 7) != 0 && (key & 7) != 2))
            return 0;
        if ((key & 7) == 2 &&
            (value > (uint64_t)(size - ftell(file)) || fseek(file, (long)value, SEEK_CUR) != 0))
            return 0;
        seen |= key == (1 << 3 | 0) ? 1 : key == (7 << 3 | 2) ? 2 : 0;
    }
    return seen == 3;
}

/* ---- safetensors ---- */

/* The length of a header in JSON, 8 bytes, then the header. The length may be anything that others
   begin with: 0x0280, too, of Python's pickles. */
static int is_safetensors(const unsigned char head[HEAD]) {
    return head[8] == '{' && !head[5] && !head[6] && !head[7];
}

static int holds(const char *text, size_t length, const char *word) {
    size_t n = strlen(word);

    for (size_t i = 0; i + n <= length; i++)
        if (memcmp(text + i, word, n) == 0)
            return 1;
    return 0;
}

/* PyTorch counts the batches that its batch norms have seen; a model file has no such tensor. */
static int is_state_dict(FILE *file, const unsigned char head[HEAD], long size) {
    uint64_t length = 0;
    char *text;
    int found;

    for (int i = 7; i >= 0; i--)
        length = length << 8 | head[i];
    if (length > MOST_HEADER || length > (uint64_t)size - 8)
        return 0;
    text = malloc((size_t)length);
    found = text && fseek(file, 8, SEEK_SET) == 0 &&
            fread(text, 1, (size_t)length, file) == (size_t)length &&
            holds(text, (size_t)length, ".num_batches_tracked\"") &&
            !holds(text, (size_t)length, "\"ptq-graph ");
    free(text);
    return found;
}

/* ---- All of it ---- */

static file_kind kind_of_content(FILE *file, long size) {
    unsigned char head[HEAD] = {0};
    size_t length = fread(head, 1, sizeof head, file);

    if (!length)
        return KIND_EMPTY;
    if (is_safetensors(head))
        return is_state_dict(file, head, size) ? KIND_STATE_DICT : KIND_OTHER;
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const magic *m = &magics[i];

        if (memcmp(head + m->at, m->bytes, (size_t)m->length) == 0)
            return m->kind == KIND_ZIP ? kind_of_zip(file, size) : m->kind;
    }
    if (is_onnx(file, size))
        return KIND_ONNX;
    return head[0] == '{' && head[7] >= ' ' ? KIND_JSON : KIND_OTHER;
}

file_kind kind_of_file(const char *path) {
    char inside[PATH_SIZE];
    file_kind kind;
    struct stat status;
    FILE *file;

    if (stat(path, &status) != 0)
        return KIND_OTHER;
    if (S_ISDIR(status.st_mode)) {
        int length = snprintf(inside, sizeof inside, "%s/saved_model.pb", path);

        return length < PATH_SIZE && file_size(inside) ? KIND_SAVED_MODEL : KIND_DIRECTORY;
    }
    file = S_ISREG(status.st_mode) ? fopen(path, "rb") : NULL;
    if (!file)
        return KIND_OTHER;
    kind = kind_of_content(file, (long)status.st_size);
    fclose(file);
    return kind;
}

int refuse_kind(const char *path, file_kind kind, const char *wanted) {
    char remedy[PATH_SIZE + 256];
    const char *format = texts[kind].remedy, *place = strstr(format, "%s");

    snprintf(remedy, sizeof remedy, "%.*s%s%s", place ? (int)(place - format) : (int)strlen(format),
             format, place ? path : "", place ? place + 2 : "");
    return fail("%s is %s, not %s; %s", path, texts[kind].what, wanted, remedy);
}

int refuse_foreign(const char *path) {
    file_kind kind = kind_of_file(path);

    return kind == KIND_OTHER ? 0 : refuse_kind(path, kind, "a model file");
}
