/* ptq models as TensorFlow Lite files: what the files tflite*.c of this folder share.
   import/tflite_import.h says where the format is described. A file is a model with lists of
   operators' kinds, buffers, and one graph with tensors and operators. tflite.c collects tensors
   and operators, node by node; tflite_write.c writes them. */
#ifndef PTQ_TOOL_TFLITE_EXPORT_H
#define PTQ_TOOL_TFLITE_EXPORT_H

#include "export/flat_writer.h"
#include "ptq.h"

/* Operators, with rows in tflite_write.c. */
enum {
    ADD,
    AVERAGE_POOL,
    CONV,
    DEPTHWISE,
    DEQUANTIZE,
    DENSE,
    MAX_POOL,
    RELU,
    RELU6,
    RESHAPE,
    SOFTMAX,
    PAD,
    QUANTIZE,
    MEAN,
    CONCATENATION,
    ELU,
    GELU,
    HARD_SWISH,
    LEAKY_RELU,
    LOGISTIC,
    LOG_SOFTMAX,
    MUL,
    PRELU,
    REDUCE_MAX,
    RELU_N1_TO_1,
    TANH,
    KINDS
};

enum { FLOAT32 = 0, INT32 = 2, INT8 = 9 }; /* TensorType */
enum { SAME = 0, VALID = 1 };

typedef struct tensor {
    char name[2 * PTQ_NAME_SIZE];
    int type, rank, dim[4];
    const ptq_node *from;      /* of a weight: permuted; else NULL */
    const ptq_tensor *numbers; /* constants; NULL: computed, or `integers` */
    int depthwise;
    int integers[8], count; /* a small constant of whole numbers */
    ptq_qparams q;          /* of what is computed */
} tensor;

typedef struct operation {
    int kind, in[3], inputs, out;
    int padding, stride[2], dilation[2], window[2], act, multiplier;
    int integer; /* axis of a concatenation; GELU by tanh */
    float real;  /* slope */
} operation;

typedef struct writer {
    const ptq_model *model;
    flat_writer to;
    tensor *tensor;
    operation *operation;
    int tensors, operations, coded;
    int of[PTQ_MAX_NODES]; /* the tensor of each node's result */
    size_t buffer;         /* vector */
} writer;

/* ---- Tensors and operators (tflite.c) ---- */

/* A tensor that is computed, N x H x W x C, or N x C where it is flat; a constant of real numbers.
   Their numbers. */
int new_result(writer *w, const char *name, const ptq_node *node, const ptq_qparams *q, int flat);
int new_constant(writer *w, const char *name, const char *suffix, const ptq_tensor *numbers);
operation *new_operation(writer *w, int what, int in, int out);

/* Tensor `from`, the result of node `before`, as 1 x C (flat), or as 1 x H x W x C. */
int with_shape(writer *w, const char *name, const ptq_node *before, int from, int flat);

/* Nodes with functions, products, concatenations (tflite_functions.c); 0, or 1 after an error. */
int write_function(writer *w, const ptq_node *node, int from, int out);
int write_product(writer *w, const ptq_node *node, int from, int out);
int write_concat(writer *w, const ptq_node *node, int from, int out);

/* Writes what was collected; 0, or 1 after an error. */
int write_tflite(writer *w, const char *path);

#endif
