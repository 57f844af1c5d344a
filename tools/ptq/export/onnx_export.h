/* ptq models to ONNX graphs, for ptq export: what the files onnx_*.c of this folder share.

   onnx_graph.c goes through a model's nodes; onnx_nodes.c has a function for each operator, by a
   table, which appends to the graph. Tensors and nodes keep the model's names. A tensor T that is
   coded is "T.codes" beside "T.scale" and "T.zero_point"; "T" itself is what it was before it was
   quantized. Layout is NCHW.

   Nodes and constants stand in the file in the order in which they are added. So no two calls that
   add something are arguments of one call: C leaves open which of them comes first. */
#ifndef PTQ_TOOL_ONNX_EXPORT_H
#define PTQ_TOOL_ONNX_EXPORT_H

#include "onnx/onnx.h"

#ifdef PTQ_HAVE_onnx

#define MICROSOFT "com.microsoft"

/* Memory that lives as long as the export. */
typedef struct block {
    struct block *next;
    uint64_t data[]; /* aligned for all that is kept here */
} block;

/* A coded tensor: the names of its codes, scale and zero point. */
typedef struct coded {
    const char *codes, *scale, *zero_point;
} coded;

/* What stands for a node's result. */
typedef struct result {
    const char *real; /* NULL: codes only */
    coded q;          /* codes NULL: real numbers only */
    int rank;         /* 4, or 2 behind a dense layer */
} result;

typedef struct exporter {
    const ptq_model *model;
    int integer; /* QOperator form */
    int microsoft;
    block *blocks;
    result *results;
    Onnx__GraphProto graph;
    size_t nodes, constants; /* room in the graph's arrays */
} exporter;

/* ---- Building blocks (onnx_write.c) ---- */

/* Zeroed memory. There is nothing sensible to do without: the program ends. */
void *grab(exporter *ex, size_t size);
char *make_text(exporter *ex, const char *format, ...) PRINTF_LIKE(2, 3);
char *writable(const char *constant);
void free_blocks(exporter *ex);

/* Ends the inputs of a node; NULL by itself need not be a pointer. */
#define NO_MORE ((const char *)NULL)

/* Appends a node with one result and returns the result's name. Inputs end with NO_MORE; an empty
   one is left out. */
const char *add_node(exporter *ex, Onnx__NodeProto **out, const char *op, const char *name,
                     const char *made, ...);

/* All inputs of a node, where they are many. */
void set_inputs(exporter *ex, Onnx__NodeProto *node, const char **inputs, size_t count);

/* For the operators that ONNX Runtime adds to the standard. */
void set_microsoft(exporter *ex, Onnx__NodeProto *node);

void add_int(exporter *ex, Onnx__NodeProto *node, const char *name, int64_t number);
void add_float(exporter *ex, Onnx__NodeProto *node, const char *name, float number);
void add_window(exporter *ex, Onnx__NodeProto *to, const ptq_node *node);

/* Constants, little-endian whatever this machine is; each returns its name. The bytes of
   add_constant stay where they are. */
void put_le(uint8_t *to, uint64_t bits, int bytes);
const char *add_constant(exporter *ex, const char *name, int type, int rank, const int *dims,
                         const void *data);
const char *add_floats(exporter *ex, const char *name, int rank, const int *dims, const float *from,
                       size_t count);
const char *add_int32s(exporter *ex, const char *name, const int32_t *from, int count);
const char *add_code(exporter *ex, const char *name, ptq_type type, int32_t code);

/* ---- Codes and operands (onnx_codes.c) ---- */

int is_coded(const ptq_node *node);
int is_integer_weight(const ptq_tensor *weight); /* onnx_layers.c */

/* Codes in the making: a node makes `raw`, which are the codes `to` but for the clamp that
   end_codes adds where one is needed. */
typedef struct codes_made {
    coded to;
    const char *raw;
    const ptq_qparams *q;
    ptq_activation act;
} codes_made;
codes_made begin_codes(exporter *ex, const char *name, const ptq_qparams *q, ptq_activation act);
coded end_codes(exporter *ex, const codes_made *made, const char *clip);

/* Constants for the scale and zero point of tensor `name`, whose codes are still to be made. */
coded add_codes(exporter *ex, const char *name, const ptq_qparams *q);

/* Real numbers to the codes of tensor `name`, and back. */
coded quantize_tensor(exporter *ex, const char *real, const char *name, const ptq_node *node,
                      const ptq_qparams *q);
const char *dequantize_tensor(exporter *ex, const char *codes, const coded *q);

/* Operand `node` of the model in codes, or in real numbers; rank 2 or 4. */
const char *codes_of(exporter *ex, int node, int rank);
const char *real_of(exporter *ex, int node, int rank);

/* ---- Nodes: (*to).rank is that of the first operand beforehand ---- */

void export_layer(exporter *ex, const ptq_node *node, result *to); /* onnx_layers.c */
void export_add(exporter *ex, const ptq_node *node, result *to);

/* A chain of concats is one Concat, where its end is: the links before write nothing. */
int is_link(const exporter *ex, int index); /* onnx_concat.c */
void export_concat(exporter *ex, const ptq_node *node, result *to);

/* ReLU or ReLU6 behind `from`. */
const char *add_act(exporter *ex, ptq_activation act, const char *name, const char *from);

/* Any node of the model, by its number (onnx_nodes.c): 0, or 1 after an error has been told. */
int export_node(exporter *ex, int index);

#endif
#endif
