/* ONNX files: what reading (onnx/file.c), importing (import/onnx_*.c) and exporting (export/onnx_*.c)
   share; onnx/missing.c stands in where a build has none of that. The format: https://github.com/onnx/onnx/blob/main/docs/IR.md. */
#ifndef PTQ_TOOL_ONNX_H
#define PTQ_TOOL_ONNX_H

#include <stddef.h>
#include <stdint.h>

#include "ptq.h"
#include "shared/files.h"
#include "shared/output.h"

/* A model from an ONNX file, and back; 0, or 1 after an error on standard error. `form`: "qdq",
   "qoperator", or NULL for qdq. */
int import_onnx(const char *path, ptq_model **out);
int export_onnx(const char *model_path, const char *out_path, const char *form);

/* Metadata of an imported model: what its file had, in the words of describe_interface here and of
   the exporter, which leaves both out. */
#define ONNX_INPUT_META "onnx_input"
#define ONNX_OUTPUTS_META "onnx_outputs"
#define ONNX_ROWS_META "onnx_rows" /* of several outputs those that are N x K */

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
    ONNX_INT64 = ONNX__TENSOR_PROTO__DATA_TYPE__INT64,
    ONNX_BOOL = ONNX__TENSOR_PROTO__DATA_TYPE__BOOL
};

/* A constant tensor, copied out of the file. Half and double precision become single,
   truth values INT64. */
typedef struct onnx_constant {
    int type; /* ONNX_FLOAT, _UINT8, _INT8, _INT32 or _INT64 */
    int rank; /* 0: a scalar */
    int64_t dim[ONNX_MOST_RANK];
    int open;     /* it may hold a number that is not known yet: see is_batch of the importer */
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

/* An interface in words. The input: "'x', FLOAT, NCHW, N x 3 x 32 x 32". Names of outputs, appended to
   a text that begins empty: "'y', 'z'"; what does not fit ends it with "...". Bytes that are no ASCII
   become '?'. */
enum { ONNX_WORDS_SIZE = 1024 };
void onnx_input_words(char words[ONNX_WORDS_SIZE], const char *name, int type, int nhwc,
                      const int dim[3]);
void onnx_add_words(char words[ONNX_WORDS_SIZE], const char *name);

/* Bytes of one element of a constant. */
size_t onnx_width(int type);

/* The element type of 8-bit codes. */
int onnx_code_type(ptq_type type);

/* "FLOAT"; "type 99" for what onnx.proto does not know. Static memory, overwritten. */
const char *onnx_type_name(int type);

#endif
#endif
