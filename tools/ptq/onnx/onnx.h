/* ONNX files: what reading (onnx_file.c), importing (onnx_import.c) and exporting (onnx_export.c)
   share. The format: https://github.com/onnx/onnx/blob/main/docs/IR.md. */
#ifndef PTQ_TOOL_ONNX_H
#define PTQ_TOOL_ONNX_H

#include "shared/common.h"

/* A model from an ONNX file, and back; 0, or 1 after an error on standard error. `form`: "qdq",
   "qoperator", or NULL for qdq. */
int import_onnx(const char *path, ptq_model **out);
int export_onnx(const char *model_path, const char *out_path, const char *form);

/* What both answer in a build without protobuf-c, its compiler or onnx.proto. */
#define ONNX_MISSING                                                                               \
    ".onnx files need protobuf-c, protoc-c and onnx.proto (Debian: libprotobuf-c-dev, "            \
    "protobuf-c-compiler, libonnx-dev); install them and build again"

#ifdef PTQ_HAVE_onnx

#include "onnx/onnx.pb-c.h"

enum { ONNX_MOST_RANK = 8 };

/* Element types of TensorProto under shorter names. */
enum {
    ONNX_FLOAT = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
    ONNX_FLOAT16 = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16,
    ONNX_DOUBLE = ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE,
    ONNX_UINT8 = ONNX__TENSOR_PROTO__DATA_TYPE__UINT8,
    ONNX_INT8 = ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
    ONNX_INT32 = ONNX__TENSOR_PROTO__DATA_TYPE__INT32,
    ONNX_INT64 = ONNX__TENSOR_PROTO__DATA_TYPE__INT64
};

/* A constant tensor, copied out of the file. Half and double precision become single. */
typedef struct onnx_constant {
    int type; /* ONNX_FLOAT, _UINT8, _INT8, _INT32 or _INT64 */
    int rank; /* 0: a scalar */
    int64_t dim[ONNX_MOST_RANK];
    size_t count; /* elements */
    void *data;
} onnx_constant;

/* A file unpacked. `allowance` is what constants may still take: a small file that names a large
   tensor again and again would otherwise take any amount of memory. */
typedef struct onnx_file {
    const char *path;
    Onnx__ModelProto *model;
    size_t allowance;
} onnx_file;

int onnx_open(const char *path, onnx_file *out);
void onnx_close(onnx_file *file);

/* Copies a tensor out of the file, or out of the file beside it that it names. `what` names it in
   errors. */
int onnx_load(onnx_file *file, const Onnx__TensorProto *tensor, const char *what,
              onnx_constant *out);

/* A constant of the given shape with zeroed data, against the allowance. */
int onnx_create(onnx_file *file, int type, int rank, const int64_t *dims, const char *what,
                onnx_constant *out);

/* Bytes of one element of a constant. */
size_t onnx_width(int type);

/* "FLOAT"; "type 99" for what onnx.proto does not know. Static memory, overwritten. */
const char *onnx_type_name(int type);

#endif
#endif
