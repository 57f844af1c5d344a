/* TensorFlow Lite models to ptq models, for ptq import: what the files tflite*.c of this folder
   share.

   The schema is TensorFlow's tensorflow/compiler/mlir/lite/schema/schema.fbs; fields have the
   numbers in which they stand there. tflite_tensors.c reads the tensors of the first subgraph,
   tflite_graph.c goes through its operators, which stand in an order in which they can run, and
   calls for each, by the table in tflite_operators.c, the function that appends nodes to the
   model. Activations are N x H x W x C, as ours. What cannot be imported is collected, and told at
   once. */
#ifndef PTQ_TOOL_TFLITE_IMPORT_H
#define PTQ_TOOL_TFLITE_IMPORT_H

#include "import/flatbuffer.h"
#include "import/tflite.h"
#include "shared/output.h"

enum { TFLITE_MOST_TENSORS = 1 << 16, TFLITE_MOST_RANK = 4, TFLITE_NAME_SIZE = 512 };

/* TensorType */
typedef enum tflite_type {
    TFLITE_FLOAT32 = 0,
    TFLITE_FLOAT16 = 1,
    TFLITE_INT32 = 2,
    TFLITE_UINT8 = 3,
    TFLITE_INT64 = 4,
    TFLITE_INT16 = 7,
    TFLITE_INT8 = 9
} tflite_type;

typedef struct tflite_tensor {
    tflite_type type;
    int rank, dim[TFLITE_MOST_RANK]; /* rank -1: more than that */
    flat_vector data;                /* its bytes, of a constant; count 0: something computes it */
    flat_vector scale, zero_point;   /* counts 0: not quantized */
    int axis;                        /* that several scales are for */
    int sparse;
    /* Of what is computed: the node with its numbers; -1: not known, or refused. */
    int node;
    int uses;
    int constant;       /* tensor of which this is the same in real numbers; -1: none */
    int pad[4];         /* zeros that are to be added yet: top, left, bottom, right */
} tflite_tensor;

/* What cannot be imported: a reason with the operator that it was found at. */
enum { TFLITE_MOST_PROBLEMS = 16 };
typedef struct tflite_problem {
    char text[PTQ_ERROR_SIZE];
    int same; /* further operators with the same reason */
} tflite_problem;

typedef struct tflite_importer {
    const char *path;
    const tflite_options *given;
    flat_file file;
    flat_vector buffers, tensor_tables;
    tflite_tensor *tensor;
    int tensors;
    ptq_model *model;
    tflite_problem problem[TFLITE_MOST_PROBLEMS];
    int problems, unlisted;
    int input, output; /* tensors: what the model takes and gives */
    int coded;         /* it computes with integers somewhere */
    /* The operator at hand: */
    const struct tflite_operator *operator;
    flat_table options;      /* its builtin options */
    flat_vector reads, makes; /* numbers of tensors, -1 for one that is left out */
    char name[PTQ_NAME_SIZE]; /* that its node gets */
    int refused;
} tflite_importer;

/* A row of the table of operators: BuiltinOperator; the word by which its part of the names of
   tensors is known; the function that appends its nodes, or NULL and in `why` the way out. */
typedef struct tflite_operator {
    int code;
    const char *name, *word;
    void (*import)(tflite_importer *im);
    const char *why;
} tflite_operator;

/* ---- Tensors (tflite_tensors.c) ---- */

/* All of a subgraph. 0, or 1 after an error. */
int tflite_read_tensors(tflite_importer *im, flat_table model, flat_table subgraph);

size_t tflite_width(tflite_type type); /* bytes of an element; 0: of a type that is not known here */
size_t tflite_elements(const tflite_tensor *tensor);

/* Element i of a constant: as it is stored, or the real number that it stands for. */
int64_t tflite_code(tflite_importer *im, const tflite_tensor *tensor, size_t i);
float tflite_number(tflite_importer *im, const tflite_tensor *tensor, size_t i);

/* How activations are coded: s8 with one scale. 0 if the tensor is not. */
int tflite_qparams(tflite_importer *im, const tflite_tensor *tensor, ptq_qparams *out);

void tflite_tensor_name(tflite_importer *im, int tensor, char *out, size_t size);

/* ---- Operands, results, refusals (tflite_graph.c) ---- */

/* Records why the operator at hand cannot be imported. Its result is unknown from then on. */
void tflite_refuse(tflite_importer *im, const char *format, ...) PRINTF_LIKE(2, 3);

/* Tensor that the operator at hand reads as operand i; NULL where it is left out. */
tflite_tensor *tflite_operand(tflite_importer *im, size_t i);
tflite_tensor *tflite_result(tflite_importer *im);

/* The node that computes operand i, or -1 after a refusal; with padding that is yet to do only
   where `pad` is not NULL. */
int tflite_node(tflite_importer *im, size_t i, int *pad);

/* A constant operand, or NULL after a refusal. */
tflite_tensor *tflite_constant(tflite_importer *im, size_t i, const char *what);

/* The result of the operator at hand is node `index` of the model, followed by an activation that
   was fused into it; -1: the builder refused. Codes are those that the file says. */
void tflite_finish(tflite_importer *im, int index, int64_t activation);

/* The result is the same tensor as one that there is. */
void tflite_same(tflite_importer *im, const tflite_tensor *from);

/* The input's codes are given: where it is pixels, they become the pixels themselves. The node that
   has them. */
int tflite_code_input(tflite_importer *im, const ptq_qparams *q);

/* ---- Operators ---- */

const tflite_operator *tflite_find_operator(int code); /* NULL: not in the table */

void tflite_conv(tflite_importer *im); /* tflite_layers.c */
void tflite_depthwise(tflite_importer *im);
void tflite_dense(tflite_importer *im);
void tflite_sigmoid(tflite_importer *im); /* tflite_functions.c */
void tflite_tanh(tflite_importer *im);
void tflite_hard_swish(tflite_importer *im);
void tflite_elu(tflite_importer *im);
void tflite_gelu(tflite_importer *im);
void tflite_clip_one(tflite_importer *im);
void tflite_leaky_relu(tflite_importer *im);
void tflite_prelu(tflite_importer *im);
void tflite_mul(tflite_importer *im);
void tflite_concat(tflite_importer *im);

#endif
