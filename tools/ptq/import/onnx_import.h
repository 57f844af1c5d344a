/* ONNX graphs to ptq models, for ptq import: what the files onnx_*.c of this folder share.

   onnx_graph.c walks over the nodes and calls, by a table, the function of each operator, which
   appends to the model. Every ONNX tensor is either a constant, or the result of one of the model's
   nodes in a certain view. Views let layouts fold away: the model is NHWC throughout, and
   Transpose, Flatten, Reshape and Squeeze change only how the same numbers are to be read. A
   tensor's state says what it has to do with codes: QuantizeLinear and DequantizeLinear become
   attributes of the nodes between them wherever the model has integer arithmetic for these.

   Functions return 0, or 1 after an error has been told; those that return a node or a value: -1 or
   NULL. */
#ifndef PTQ_TOOL_ONNX_IMPORT_H
#define PTQ_TOOL_ONNX_IMPORT_H

#include "onnx/onnx.h"

#ifdef PTQ_HAVE_onnx

typedef Onnx__NodeProto onnx_node;

typedef enum view {
    VIEW_NCHW,
    VIEW_NHWC,
    VIEW_NCL, /* N x C x L, where L = H * W in one */
    VIEW_NLC,
    VIEW_FLAT_CHW, /* N x K, flattened from NCHW */
    VIEW_FLAT_HWC  /* N x K, flattened from NHWC */
} view;

typedef enum state {
    STATE_UNKNOWN, /* no node has made it yet */
    STATE_REFUSED, /* its node cannot come in, or reads what cannot */
    STATE_CONSTANT,
    STATE_REAL,
    STATE_CODES,       /* the codes of its node */
    STATE_DEQUANTIZED, /* real numbers that stand for the codes of its node */
    STATE_PENDING      /* real result of integer arithmetic, on its way to QuantizeLinear */
} state;

/* Constant numbers: real ones, or codes with what they stand for. */
typedef struct constant_numbers {
    const onnx_constant *numbers;
    const onnx_constant *scale;      /* NULL: real numbers */
    const onnx_constant *zero_point; /* NULL: 0 */
    int axis;                        /* that the scales are for, where there are several */
} constant_numbers;

typedef struct value {
    const char *name;
    state state;
    int uses;
    int coded;    /* of the uses, those that make codes of it ... */
    int dropped;  /* ... and those as an output of the graph that is not kept */
    int fixed;    /* no image changes it */
    int output;   /* of the graph */
    int needed;   /* the result that is kept depends on it */
    size_t maker; /* number of the node that makes it, counted from 1 */
    /* constants: */
    const Onnx__TensorProto *proto; /* where it still lies in the file */
    onnx_constant constant;         /* data NULL: not loaded yet */
    constant_numbers codes;         /* what it is dequantized from; numbers NULL: it is not */
    /* tensors: */
    int node;
    view view;
    int pad[4];             /* by Pad nodes: top, left, bottom, right ... */
    int lowest;             /* ... with the lowest number that there is, not with zeros */
    int selected;           /* its node takes every so many pixels: onnx_select.c */
    int groups, shuffled;   /* 5 dimensions, N x groups x C / groups x H x W, or the middle two
                               swapped: half-way through a channel shuffle; 0: it is not so */
    const char *dequantize; /* name of the DequantizeLinear node */
} value;

typedef struct importer importer;
typedef struct chain chain;

/* What cannot come in: a reason with the first of the nodes that have it. */
enum { MOST_REFUSALS = 16, REASON_SIZE = PTQ_ERROR_SIZE + 256 };
typedef struct refusal {
    const onnx_node *at;
    int nodes;
    char reason[REASON_SIZE];
} refusal;
typedef struct refusals {
    refusal list[MOST_REFUSALS];
    int count;
    int total;     /* nodes */
    int unlisted;  /* nodes with reasons that the list has no room for */
    int unchecked; /* nodes that read the result of one that cannot come in */
} refusals;

/* A row of the table of operators. An operator of the QOperator form reads codes, each with scale
   and zero point behind it, and says what its result is in further inputs: `result` is the scale's,
   before the zero point's; `bias` that of a layer. Both are 0 in all other operators. */
typedef struct operation {
    const char *name;
    int (*import)(importer *im);
    int result, bias;
} operation;

struct importer {
    onnx_file file;
    const Onnx__GraphProto *graph;
    int opset;
    value *values;
    size_t count, capacity; /* capacity: power of two, more than twice the count */
    ptq_model *model;
    int real[PTQ_MAX_NODES];     /* dequantize node behind each coded node; 0: none yet */
    int byte_input;              /* the input is UINT8 and gets its scale from who reads it */
    const onnx_node *real_layer; /* the first that reads codes and computes in real numbers */
    const onnx_node *half; /* the first that rounds to half precision, which the model does not */
    int64_t batch;         /* the input's; 1 where it is open, as what is traced with one image */
    int open;              /* the batch is any number */
    refusals *refused;
    const Onnx__ValueInfoProto *input;
    value *kept;   /* the graph's output that the model computes */
    chain *chains; /* functions of several nodes */
    const onnx_node *at;
    const operation *operation; /* of the node at hand */
};

/* ---- Errors, values by name, inputs, attributes, results (onnx_values.c) ---- */

const char *text_or(const char *text, const char *otherwise);
const char *node_label(const onnx_node *node);

/* Every refusal names the file, the node, the operator, the reason and, behind a semicolon, the
   nearest way out. refuse_damaged: no program should write such a file; refuse_operator: the
   operator of the node at hand is not supported. They are kept, so that a graph is looked through
   whole, and told in the end by tell_refusals (onnx_unsupported.c). */
int refuse(const importer *im, const char *format, ...) PRINTF_LIKE(2, 3);
int refuse_damaged(const importer *im, const char *reason);
int refuse_operator(const importer *im);
void tell_refusals(const importer *im);

/* Behind a refusal: what can be looked at further is its operand where the shape is the same, else
   nothing. */
void pass_refused(importer *im);

/* What the library had to say, of the node at hand where there is one. */
int refuse_as(const importer *im, const char *text);

/* Values by name; add_value makes one that is not there. make_values has made room for all. */
int make_values(importer *im);
value *find_value(const importer *im, const char *name);
value *add_value(importer *im, const char *name);

/* Input i of the node at hand; NULL where there is none. */
int has_input(const onnx_node *node, size_t i);
value *input_of(const importer *im, size_t i);

/* Tensor input i, not a constant; padded_input: padding may be left to do. */
value *tensor_input(importer *im, size_t i);
value *padded_input(importer *im, size_t i);

/* Attributes of the node at hand, or what holds without. ints_attribute wants `count` numbers of 0
   to `most`. */
const Onnx__AttributeProto *find_attribute(const importer *im, const char *name);
int64_t int_attribute(const importer *im, const char *name, int64_t otherwise);
float float_attribute(const importer *im, const char *name, float otherwise);
int is_text_attribute(const importer *im, const char *name, const char *text);
int ints_attribute(const importer *im, const char *name, size_t count, int64_t otherwise, int most,
                   int *out);

/* A legal name that the model does not have yet: from one that ONNX allows; for the node at hand;
   for a layer, by its weight if that is called "NAME.weight" as in PyTorch, which generates the
   names of nodes. */
void make_name(const importer *im, const char *from, char name[PTQ_NAME_SIZE]);
void node_name(const importer *im, char name[PTQ_NAME_SIZE]);
void layer_name(const importer *im, const value *weight, char name[PTQ_NAME_SIZE]);

/* Appends a node without parameters, called as the node at hand; -1 as the builder returns it. */
int append_op(importer *im, ptq_op op, int input);

/* The result of the node at hand: node `index` of the model, or an error of the builder; the same
   tensor as another one. */
value *output_of(importer *im, size_t i);
int set_result(importer *im, int index, view shown, state how);
int set_alias(importer *im, const value *from, view shown);

/* Of a tensor: H, W, C; whether that is 1 x 1 x C; whether padding is left to do. */
const int *shape_of(const importer *im, const value *from);
int is_pixel(const importer *im, const value *from);
int is_padded(const value *from);
int needs_nchw(const importer *im, const value *from);
int is_permuted(const importer *im, const value *from); /* C,H,W is not the order H,W,C */
int view_rank(view shown);
int channel_axis(view shown); /* of N x K that is pixels: of K */
view flat_view(view shown);
view line_view(view shown); /* of a view with two dimensions of space, that with one */

/* Whether all that reads a tensor makes codes of it; whether the node at hand, which could compute on
   codes, then does so: if not, it is counted, and goes on in real numbers. */
int ends_coded(const value *made);
int computes_codes(importer *im);

/* The model's node that has the tensor in real numbers; -1 after an error. */
int real_node(importer *im, const value *from);

/* The nodes of two operands: with codes where both are coded and the result is to be, else with real
   numbers. The first; -1 after an error. */
int nodes_of_pair(importer *im, const value *a, const value *b, int *second, state *made);

/* ---- Inputs and outputs of the graph (onnx_interface.c) ---- */

/* The one output that the model will compute, the last that is made: im->kept. */
int find_kept(importer *im);

/* What the model has of the graph's outputs: refuses what it would give in another order than the
   file, numbers them where there are several, and tells and records what it drops or changes. */
int check_outputs(importer *im);
void number_outputs(importer *im);
int describe_interface(importer *im);

/* ---- Constants (onnx_constants.c) ---- */

/* Element i. Real numbers are no int64_t: of codes, axes and shapes only. */
float constant_float(const onnx_constant *from, size_t i);
int64_t constant_int(const onnx_constant *from, size_t i);

/* Zero point i of those given; NULL: 0. */
int32_t constant_zero(const onnx_constant *zero_point, size_t i);

/* The type of codes, which their zero point tells where there is one. */
ptq_type constant_codes(const onnx_constant *zero_point, ptq_type otherwise);

/* Brings a constant into memory: from the file, or by dequantizing another one. */
int load_constant(importer *im, value *from);

/* Constant input i: NULL in *out where it is missing and may be. integer_input: of whole numbers. */
int constant_input(importer *im, size_t i, int needed, const onnx_constant **out);
int integer_input(importer *im, size_t i, int needed, const onnx_constant **out);

/* Whether scales and zero points fit the numbers and their axis, which is made positive; and which
   of them is for element i. */
int check_scales(const importer *im, constant_numbers *of);
size_t scale_index(const constant_numbers *of, size_t i);

/* How many elements lie between two steps along an axis. */
size_t inner_elements(const onnx_constant *tensor, int axis);

/* A constant as the result of the node at hand: to be filled; the same in another shape. */
int fold_constant(importer *im, int type, int rank, const int64_t *dims, onnx_constant **out);
int fold_copy(importer *im, const onnx_constant *from, int rank, const int64_t *dims);

/* ---- Operators on constants and shapes (onnx_fold.c) ---- */

/* What stands for an open number of images in the shapes that are made from it. */
#define ONNX_BATCH (-2147483641)
int is_batch(const onnx_constant *from, size_t i);

/* Computes the node at hand if all that it reads is constant, and it is one of these operators. */
int fold_node(importer *im); /* -1: it is not so */

/* Of every dimension the first element, the step and how many there are, by a Slice of the size. */
typedef struct slice {
    int64_t first[ONNX_MOST_RANK], step[ONNX_MOST_RANK], count[ONNX_MOST_RANK];
} slice;
int read_slice(importer *im, int rank, const int64_t *size, slice *out);

int is_folded(const char *op); /* whether it is one of these */

/* ---- Codes (onnx_codes.c) ---- */

/* Codes with the scale and zero point that inputs `first` and the next give. */
int read_qparams(importer *im, size_t first, ptq_type type, ptq_qparams *out);

/* Codes that an operator of the QOperator form reads as input `first`. */
value *coded_input(importer *im, size_t first);

/* Ends any operator that has both forms: set_result, with the codes that the QOperator form names.
 */
int finish_node(importer *im, int index, view shown, state how);

/* ---- Shapes, axes (onnx_shapes.c), windows (onnx_pools.c) ---- */

/* What ONNX takes the tensor's dimensions for in a view, with padding that is left to do. */
void view_dims(const importer *im, const value *from, view shown, int64_t dims[4]);

/* Axes as an attribute or, since the opset that says so, as input 2, as bits; 0: none are given.
   `rank` is that of what is read, without the axes where the node adds them. */
int read_axes(importer *im, int rank, int added, unsigned *axes);

/* perm, or the reverse order that it stands for when missing. */
int read_perm(importer *im, int rank, int *perm);

/* The window of a convolution or pool: kernel, stride, padding. Without the kernel, which the caller
   knows. */
typedef struct window {
    int kernel[2], stride[2], dilation[2], pad[4];
    ptq_padding padding;
} window;
int read_window(const importer *im, const value *from, window *w);
int refuse_lowest(const importer *im, const value *from);

/* ---- Layers (onnx_layers.c) ---- */

/* Copies a constant of a number for each channel, or one for all, into a parameter; real numbers or
   codes into the bias of a node with integer weights. */
int set_vector(importer *im, int index, int param, const onnx_constant *from);
int set_integer_bias(importer *im, int index, value *bias);

/* ---- One number and another for each channel (onnx_affine.c) ---- */

/* Number i of a constant that is one number, or one for each channel in the tensor's view. */
int channel_number(const importer *im, const value *from, const onnx_constant *numbers, int channel,
                   float *out);

/* Makes a float layer that has no other reader compute scale * y + shift; 0 if it cannot. */
int fold_into_layer(importer *im, const value *from, const float *scale, const float *shift);

/* x op numbers, or (`first`) numbers op x; a tensor and a constant of the node at hand. */
int import_affine(importer *im, char op);

/* ---- Functions of one number (onnx_functions.c, onnx_chains.c) ---- */

/* Appends a function as the node at hand, on codes where those are to be had. */
int append_function(importer *im, const value *from, ptq_function function, float alpha,
                    float beta);

/* min(max(x, low), high): an activation where there is one, or a function, or nothing
   (onnx_elementwise.c). */
int clip_between(importer *im, value *from, float low, float high);

/* The names that nodes get which stand for a chain of nodes; no operator of ONNX is called so. Until
   restore_chains puts the originals back, the graph has them. */
#define CHAIN_SILU "x * Sigmoid(x)"
#define CHAIN_HARD_SIGMOID "Clip(x / 6 + 1 / 2, 0, 1)"
#define CHAIN_HARD_SWISH "x * HardSigmoid(x)"
#define CHAIN_GELU "x * Erf(x)"
#define CHAIN_GELU_TANH "x * Tanh(x)"
int find_chains(importer *im);
void restore_chains(importer *im);

/* ---- Operators, by file ---- */

int import_constant(importer *im); /* onnx_constants.c */
int import_identity(importer *im);
int import_dropout(importer *im);
int import_cast(importer *im);
int import_shape(importer *im); /* onnx_fold.c */

int import_conv(importer *im); /* onnx_layers.c */
int import_gemm(importer *im);
int import_matmul(importer *im);
int import_batch_norm(importer *im);

int import_relu(importer *im); /* onnx_elementwise.c */
int import_clip(importer *im);
int import_softmax(importer *im);
int import_sub(importer *im);
int import_mul(importer *im);
int import_div(importer *im);
int import_add(importer *im);
int import_sum(importer *im);
int import_coded_add(importer *im);

int import_concat(importer *im); /* onnx_concat.c */
int import_coded_concat(importer *im);

/* Codes of a pending node; where that ends a chain of concats, of its links too. */
void set_chain_codes(importer *im, int index, const ptq_qparams *q);
int import_function(importer *im); /* onnx_functions.c */
int import_bound(importer *im);
int import_product(importer *im);
int import_coded_mul(importer *im);

int import_max_pool(importer *im); /* onnx_pools.c */
int import_global_max_pool(importer *im);
int import_average_pool(importer *im);
int import_global_pool(importer *im);
int import_coded_global_pool(importer *im);
int import_reduce_mean(importer *im);

/* Channels of a tensor in another order: those of `groups` groups, one of each in turn. */
int shuffle_channels(importer *im, const value *from, int groups); /* onnx_select.c */
int import_split(importer *im);

/* Does the padding that is left to do; puts the numbers in the order C, H, W. By a convolution. */
int pad_pixels(importer *im, value *from);
int flatten_pixels(importer *im, value *from);

int import_reshape(importer *im); /* onnx_shapes.c */
int import_flatten(importer *im);
int import_squeeze(importer *im);
int import_unsqueeze(importer *im);
int import_transpose(importer *im);
int import_pad(importer *im);
int import_slice(importer *im); /* onnx_select.c */
int pad_channels(importer *im, const value *from, int64_t before, int64_t after);

int import_quantize(importer *im); /* onnx_codes.c */
int import_dequantize(importer *im);

#endif
#endif
