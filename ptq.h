/* ptq.h - post-training quantization of convolutional networks in one C file - version 0.1.0

   WHAT IT IS
     A trained float network goes in; a network that computes on 8-bit integers (or fewer) comes
     out, together with the evidence of what that did to its accuracy. ptq.h holds a tensor type, a
     small CNN graph with ResNet8 built in, batch-norm and residual fusion, calibration, conversion,
     integer kernels that return the same bytes on every processor, and a CIFAR-10 reader.
     It needs libc and libm, nothing else. C99, and C++11 as well.

   HOW TO USE IT
     Put this file into your project. In exactly one C or C++ file write

         #define PTQ_IMPLEMENTATION
         #include "ptq.h"

     and everywhere else only the #include. Link with -lm.

   A PROGRAM
         #include <stdio.h>
         #define PTQ_IMPLEMENTATION
         #include "ptq.h"

         int main(int argc, char **argv)
         {
             ptq_error err;
             ptq_model *model = NULL, *fused = NULL;
             ptq_plan *plan = NULL;
             ptq_cifar10 *data = NULL;
             ptq_evaluation result = {0};

             if (argc == 3 && !ptq_model_load(argv[1], NULL, &model, &err) &&
                 !ptq_fuse(model, &fused, NULL, &err) &&
                 !ptq_plan_create(fused, NULL, &plan, &err) &&
                 !ptq_cifar10_open(argv[2], PTQ_TEST_SET, NULL, &data, &err) &&
                 !ptq_evaluate(plan, ptq_cifar10_dataset(data), NULL, &result, &err))
                 printf("%d of %d right\n", (int)result.correct, (int)result.total);
             else
                 printf("%s\n", argc == 3 ? err.text : "give a model and a data set");
             return 0;
         }

     prints, with MLPerf Tiny's ResNet8 and 5,000 of CIFAR-10's test images:

         4371 of 5000 right

   THE EQUATION
     Everything rests on one: a real number is stored as an integer code q, and

         real = scale * (q - zero_point)        q = clamp(round(real / scale) + zero_point)

     A convolution over codes is then a sum of integer products; a single multiplication by
     (scale_in * scale_weight) / scale_out brings the sum to the codes of the output.

   CONVENTIONS
     - Activations are NHWC (channels innermost), weights O,I,H,W as in PyTorch. A shape is written
       H x W x C and always speaks of one image; batches are a count beside it.
     - Functions that can fail return a ptq_status, PTQ_OK being 0, and take a ptq_error * last; it
       may be NULL. On failure it holds one sentence that names the thing and says what to do.
     - Results come back through out parameters, written on success only.
     - Objects from ptq_xxx_create/open/load belong to the caller, who frees each with its own
       ptq_xxx_free (NULL is fine). Nothing is global; nothing prints; nothing exits.
     - Option structs may be all zeros, or NULL: every zero means the sensible default.
     - A model does not change while plans use it, and outlives them; a plan outlives its sessions.
       One plan may serve many threads; a session belongs to one thread at a time.

   CONTENTS (search for the tag)
     [CONFIG]   macros                          [PLAN]     models made ready to run
     [STATUS]   errors, memory                  [SESSION]  running
     [TENSOR]   arrays of numbers or codes      [DATA]     data sets, CIFAR-10, sampling
     [GRAPH]    nodes, builder, ResNet8         [METRICS]  evaluation
     [FILE]     safetensors, model files
     [FUSE]     folding batch norm and others   [IMPLEMENTATION] follows in the same order

   LIMITS
     One input, one chain of results per graph; 4096 nodes; 2^28 elements in a tensor; square or
     rectangular kernels up to 255; no dilation. Bytes are little-endian in files, on any machine.

   LICENSE: MIT, at the end of this file.
*/
#ifndef PTQ_H
#define PTQ_H

#include <stddef.h>
#include <stdint.h>

#define PTQ_VERSION_MAJOR 0
#define PTQ_VERSION_MINOR 1
#define PTQ_VERSION_PATCH 0
#define PTQ_VERSION "0.1.0"

/* ---------------------------------------------------------------------------------------------
   [CONFIG] Macros to define before the #include, in the file that has PTQ_IMPLEMENTATION
   (PTQ_STATIC and PTQ_NO_STDIO wherever the header is included). None of them changes a result.

     PTQ_IMPLEMENTATION   compile the implementation here
     PTQ_STATIC           make every function static: a private copy for one C file
     PTQ_NO_STDIO         leave out everything that opens a file; models load from memory
     PTQ_NO_SIMD          leave out the vector kernels
     PTQ_THREADS          let ptq_evaluate use POSIX threads (link with -pthread)
     PTQ_MALLOC(size)     default allocator; define both of these or neither
     PTQ_FREE(pointer)
     PTQ_ASSERT(cond)     checks of the library's own reasoning; default assert()
*/
#ifdef PTQ_STATIC
#if defined(__GNUC__) || defined(__clang__)
#define PTQ_API static __attribute__((unused))
#else
#define PTQ_API static
#endif
#elif defined(__cplusplus)
#define PTQ_API extern "C"
#else
#define PTQ_API extern
#endif

/* ---------------------------------------------------------------------------------------------
   [STATUS] Errors and memory */

/* One list makes the codes and their texts. */
#define PTQ_STATUS_LIST(X)                                                                         \
    X(PTQ_OK, "success")                                                                           \
    X(PTQ_INVALID_ARGUMENT, "an argument is outside its legal range")                              \
    X(PTQ_OUT_OF_MEMORY, "the allocator returned no memory, or the caller's memory is too small")  \
    X(PTQ_IO_ERROR, "a file could not be opened, read or written")                                 \
    X(PTQ_BAD_FILE, "a file is damaged or not of the expected format")                             \
    X(PTQ_BAD_GRAPH, "a graph, shape or node attribute does not fit")                              \
    X(PTQ_BAD_NUMBER, "a value is NaN, infinite or outside what can be represented")               \
    X(PTQ_BAD_DATA, "a data set is empty, incomplete or unsuitable")                               \
    X(PTQ_NOT_READY, "a step that must come first was left out")                                   \
    X(PTQ_UNSUPPORTED, "this build or this processor cannot do it")                                \
    X(PTQ_CANCELLED, "the progress callback asked to stop")

typedef enum ptq_status {
#define PTQ_X(name, text) name,
    PTQ_STATUS_LIST(PTQ_X)
#undef PTQ_X
} ptq_status;

#define PTQ_ERROR_SIZE 320

/* What went wrong, filled on failure; `text` is one sentence without a newline, always
   terminated. Left alone on success. */
typedef struct ptq_error {
    ptq_status status;
    char text[PTQ_ERROR_SIZE];
} ptq_error;

/* "PTQ_BAD_FILE" for PTQ_BAD_FILE, and its general meaning. Static strings, never NULL. */
PTQ_API const char *ptq_status_name(ptq_status status);
PTQ_API const char *ptq_status_text(ptq_status status);

/* "0.1.0" of the compiled implementation, to compare with PTQ_VERSION. Static string. */
PTQ_API const char *ptq_version(void);

/* Where memory comes from. All zeros: PTQ_MALLOC and PTQ_FREE. Set both functions or neither.
   `allocate` returns memory aligned for any type, or NULL; `release` is never given NULL. The
   struct is copied into the objects made with it; `user` must outlive them. */
typedef struct ptq_allocator {
    void *(*allocate)(void *user, size_t size);
    void (*release)(void *user, void *pointer);
    void *user;
} ptq_allocator;

/* Called during long work with `done` of `total` units; non-zero stops the work, which then
   returns PTQ_CANCELLED. Always called on the thread that called the library. */
typedef int (*ptq_progress)(void *user, size_t done, size_t total);

/* ---------------------------------------------------------------------------------------------
   [TENSOR] Arrays of up to four dimensions */

typedef enum ptq_type {
    PTQ_F32,      /* IEEE single */
    PTQ_F16,      /* IEEE half, storage only */
    PTQ_U8,       /* unsigned codes, one a byte */
    PTQ_S8,       /* signed codes, one a byte */
    PTQ_S32,      /* biases and accumulators */
    PTQ_PACKED_U, /* unsigned codes of 2..7 bits, least significant bits first; each slice along */
    PTQ_PACKED_S  /* dim[0] (an output channel) starts on a byte. _S: two's complement */
} ptq_type;

#define PTQ_MAX_RANK 4
#define PTQ_MAX_ELEMENTS (1 << 28)

typedef struct ptq_tensor {
    ptq_type type;
    int bits;              /* width of one code or number: 32, 16, 8 or 2..7 */
    int rank;              /* 1..4; 0 in an empty tensor */
    int dim[PTQ_MAX_RANK]; /* outermost first; 1 beyond the rank */
    void *data;            /* elements in row-major order, host byte order */
    size_t size;           /* bytes at data */
    int owned;             /* data goes with the tensor */
    float *scale;          /* quantization: 1 or dim[0] scales, always owned; NULL if none */
    int scales;            /* how many; 0 if none */
    int32_t zero_point;    /* one for all channels; 0 when symmetric */
} ptq_tensor;

/* Allocates a zeroed tensor. `bits` matters to packed types only (2..7). `dims` has `rank` entries,
   each at least 1, together at most PTQ_MAX_ELEMENTS. Errors: PTQ_INVALID_ARGUMENT,
   PTQ_OUT_OF_MEMORY. */
PTQ_API ptq_status ptq_tensor_create(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                     const int *dims, const ptq_allocator *allocator,
                                     ptq_error *err);

/* The same over memory that stays the caller's: at least ptq_tensor_bytes of it, aligned for the
   type, and valid as long as the tensor is used. */
PTQ_API ptq_status ptq_tensor_borrow(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                     const int *dims, void *data, size_t size, ptq_error *err);

/* Releases what the tensor owns and empties it. The allocator is that of its creation. */
PTQ_API void ptq_tensor_free(ptq_tensor *tensor, const ptq_allocator *allocator);

/* Gives the tensor `count` scales (1, or dim[0] for one per channel), copied, and a zero point. */
PTQ_API ptq_status ptq_tensor_set_scale(ptq_tensor *tensor, const float *scale, int count,
                                        int32_t zero_point, const ptq_allocator *allocator,
                                        ptq_error *err);

/* Number of elements, 0 when empty. */
PTQ_API size_t ptq_tensor_elements(const ptq_tensor *tensor);

/* Bytes that such a tensor needs, packing included; 0 if the shape is not legal. */
PTQ_API size_t ptq_tensor_bytes(ptq_type type, int bits, int rank, const int *dims);

/* Element `index` in row-major order: the stored number or code, and the real value that it stands
   for, scale * (code - zero_point) where there are scales. `index` must be in range. */
PTQ_API float ptq_tensor_number(const ptq_tensor *tensor, size_t index);
PTQ_API float ptq_tensor_real(const ptq_tensor *tensor, size_t index);

/* Stores a code in an integer tensor; it must fit the tensor's bits. */
PTQ_API void ptq_tensor_set_code(ptq_tensor *tensor, size_t index, int32_t code);

/* "F32", "F16", "U8", "S8", "S32", "PACKED_U", "PACKED_S". Static strings. */
PTQ_API const char *ptq_type_name(ptq_type type);

/* IEEE half precision: round to nearest even, and back (exact). */
PTQ_API uint16_t ptq_f32_to_f16(float value);
PTQ_API float ptq_f16_to_f32(uint16_t half);

/* ---------------------------------------------------------------------------------------------
   [GRAPH] Nodes, the builder, ResNet8 */

#define PTQ_NAME_SIZE 64       /* names: 1..63 of A-Z a-z 0-9 _ . */
#define PTQ_MAX_NODES 4096
#define PTQ_MAX_PIXEL_CHANNELS 16
#define PTQ_MAX_KERNEL 255

/* One list makes the operators and their names in the graph text. */
#define PTQ_OP_LIST(X)                                                                             \
    X(PTQ_INPUT, "input")                     /* the image                                      */ \
    X(PTQ_CONV2D, "conv2d")                   /* y[o] = b[o] + sum over i,u,v of w[o,i,u,v] x   */ \
    X(PTQ_BATCH_NORM, "batch_norm")           /* gamma (x - mean) / sqrt(var + epsilon) + beta  */ \
    X(PTQ_RELU, "relu")                       /* max(x, 0)                                      */ \
    X(PTQ_RELU6, "relu6")                     /* min(max(x, 0), 6)                              */ \
    X(PTQ_ADD, "add")                         /* a + b, equal shapes                            */ \
    X(PTQ_MAX_POOL, "max_pool")               /* padding is ignored                             */ \
    X(PTQ_AVG_POOL, "avg_pool")               /* padding counts only with include_pad           */ \
    X(PTQ_GLOBAL_AVG_POOL, "global_avg_pool") /* H x W x C -> 1 x 1 x C                         */ \
    X(PTQ_DENSE, "dense")                     /* y[o] = b[o] + sum over i of w[o,i] x[i]        */ \
    X(PTQ_SOFTMAX, "softmax")                 /* exp(x - max) / sum                             */

typedef enum ptq_op {
#define PTQ_X(name, text) name,
    PTQ_OP_LIST(PTQ_X)
#undef PTQ_X
    PTQ_OP_COUNT
} ptq_op;

typedef enum ptq_padding {
    PTQ_SAME,    /* TensorFlow's: output = ceil(input / stride); an odd row goes to the bottom, an
                    odd column to the right. At stride 2 and even size a 3x3 kernel pads bottom and
                    right only */
    PTQ_VALID,   /* none */
    PTQ_EXPLICIT /* pad[] as given */
} ptq_padding;

typedef enum ptq_activation { PTQ_ACT_NONE, PTQ_ACT_RELU, PTQ_ACT_RELU6 } ptq_activation;

/* Which operand of a fused residual addition is the residual. The order matters to the last bit of
   a quantized addition. */
typedef enum ptq_residual { PTQ_RES_NONE, PTQ_RES_FIRST, PTQ_RES_SECOND } ptq_residual;

/* The parameters of a node, as index into ptq_node.param. */
enum { PTQ_WEIGHT, PTQ_BIAS, PTQ_MEAN, PTQ_VARIANCE, PTQ_PARAM_COUNT };

/* One operator and the tensor that it produces. Set by the builder, the loader and the passes;
   read it freely. */
typedef struct ptq_node {
    char name[PTQ_NAME_SIZE]; /* "block1.conv2" */
    char out[PTQ_NAME_SIZE];  /* name of the result: the last tensor fused into it, or `name` */
    ptq_op op;
    int input[2];             /* node indices; -1 where there is none. input[1]: second operand of
                                 an addition, or the residual fused into a convolution */
    int shape[3];             /* H, W, C of the result */
    int kernel[2];            /* convolution and pools: height, width */
    int stride[2];
    int pad[4];               /* top, left, bottom, right; filled in for SAME and VALID too */
    ptq_padding padding;
    int groups;               /* input and output channels are split alike; C = depthwise */
    int no_bias;              /* convolution and dense */
    int include_pad;          /* average pool: divide by the kernel area, not by the taps inside */
    float epsilon;            /* batch norm */
    ptq_activation act;       /* fused behind convolution, dense or addition */
    ptq_residual residual;    /* convolution: input[1] is added after `act` ... */
    ptq_activation add_act;   /* ... and this comes last */
    ptq_tensor param[PTQ_PARAM_COUNT]; /* rank 0 where there is none. Convolution: weight O,I/g,H,W
                                 and bias O; dense: O,I and O; batch norm: weight = gamma,
                                 bias = beta, mean, variance, all of C */
} ptq_node;

typedef struct ptq_meta {
    char *key, *value;
} ptq_meta;

/* A graph with its weights, in topological order; node 0 is the input, the last node the result.
   Built by ptq_add_xxx or loaded from a file; immutable from then on. */
typedef struct ptq_model {
    ptq_node *node;
    int nodes, capacity;
    float mean[PTQ_MAX_PIXEL_CHANNELS]; /* preprocessing: x = (pixel - mean[c]) / std[c] ... */
    float std[PTQ_MAX_PIXEL_CHANNELS];  /* ... for up to 16 channels; 0 and 1 by default */
    ptq_meta *meta;                     /* free metadata of the model file */
    int metas;
    int bare; /* the builder makes no parameters. For loaders: they bring their own, and
                 allocating by the shapes that a hostile graph names would be a trap */
    ptq_allocator allocator;
    ptq_error error; /* first failure of the builder */
} ptq_model;

/* An empty model. `allocator` may be NULL. */
PTQ_API ptq_status ptq_model_create(const ptq_allocator *allocator, ptq_model **out,
                                    ptq_error *err);
PTQ_API void ptq_model_free(ptq_model *model);

/* The builder. Every function adds one node and returns its index, to be used as input of later
   ones, or -1. A failure is remembered in the model, later calls do nothing, and
   ptq_model_check reports it: so a network can be written down without a test per line. Parameters
   start at zero (batch norm: gamma and variance 1); fill them through ptq_model_param. */

typedef struct ptq_conv_options {
    int channels;                 /* output channels, at least 1 */
    int kernel_h, kernel_w;       /* 1..255; kernel_w 0: as kernel_h */
    int stride_h, stride_w;       /* 0: 1; stride_w 0: as stride_h */
    ptq_padding padding;          /* 0: SAME */
    int pad[4];                   /* top, left, bottom, right, for PTQ_EXPLICIT */
    int groups;                   /* 0: 1 */
    int no_bias;                  /* 1: without a bias */
} ptq_conv_options;

typedef struct ptq_pool_options {
    int kernel_h, kernel_w;       /* as above */
    int stride_h, stride_w;       /* 0: as the kernel */
    ptq_padding padding;
    int pad[4];
    int include_pad;              /* average pool */
} ptq_pool_options;

PTQ_API int ptq_add_input(ptq_model *model, const char *name, int height, int width, int channels);
PTQ_API int ptq_add_conv2d(ptq_model *model, const char *name, int input,
                           const ptq_conv_options *options);
PTQ_API int ptq_add_batch_norm(ptq_model *model, const char *name, int input, float epsilon);
PTQ_API int ptq_add_relu(ptq_model *model, const char *name, int input);
PTQ_API int ptq_add_relu6(ptq_model *model, const char *name, int input);
PTQ_API int ptq_add_add(ptq_model *model, const char *name, int first, int second);
PTQ_API int ptq_add_max_pool(ptq_model *model, const char *name, int input,
                             const ptq_pool_options *options);
PTQ_API int ptq_add_avg_pool(ptq_model *model, const char *name, int input,
                             const ptq_pool_options *options);
PTQ_API int ptq_add_global_avg_pool(ptq_model *model, const char *name, int input);
PTQ_API int ptq_add_dense(ptq_model *model, const char *name, int input, int channels);
PTQ_API int ptq_add_softmax(ptq_model *model, const char *name, int input);

/* ResNet8 of MLPerf Tiny (Banbury et al. 2021, https://github.com/mlcommons/tiny): a 3x3
   convolution, three residual blocks of `width`, 2 and 4 times `width` channels, a global average
   pool, a dense layer, softmax. Tensor names as in PyTorch: "block2.conv1.weight". MLPerf's:
   size 32, width 16, classes 10. Needs size >= 4, width >= 1, classes >= 2. Weights are zero. */
PTQ_API ptq_status ptq_resnet8(int size, int width, int classes, const ptq_allocator *allocator,
                               ptq_model **out, ptq_error *err);

/* Checks all that later steps rely on: order, shapes, names, parameters present, of the right shape
   and finite, every node used. Call it after building; loading and conversion call it
   themselves. PTQ_BAD_GRAPH or PTQ_BAD_NUMBER, with the node's name. */
PTQ_API ptq_status ptq_model_check(const ptq_model *model, ptq_error *err);

/* Index of the node with that name, or that produces a tensor of that name; -1 if there is none. */
PTQ_API int ptq_model_find(const ptq_model *model, const char *name);

/* Index of the node whose result is the logits: the last one, or the one before a final softmax. */
PTQ_API int ptq_model_logits(const ptq_model *model);

/* A parameter by its name in the file ("bn1.running_mean"); NULL if there is none. To be filled
   before the model is used; owned by the model. */
PTQ_API ptq_tensor *ptq_model_param(ptq_model *model, const char *name);

/* Metadata: get returns NULL where the key is missing; set copies both, and removes the key when
   `value` is NULL. "format", "format_version" and "graph" belong to the file format. */
PTQ_API const char *ptq_model_get_meta(const ptq_model *model, const char *key);
PTQ_API ptq_status ptq_model_set_meta(ptq_model *model, const char *key, const char *value,
                                      ptq_error *err);

/* Deep copy, with the allocator given (NULL: default). */
PTQ_API ptq_status ptq_model_copy(const ptq_model *model, const ptq_allocator *allocator,
                                  ptq_model **out, ptq_error *err);

/* What a node costs for one image. Fused operators count with the node that took them in. */
typedef struct ptq_cost {
    uint64_t parameters;   /* numbers, batch-norm statistics included */
    uint64_t param_bytes;  /* as stored */
    uint64_t macs;         /* multiply-accumulates of convolution and dense, padding included */
    uint64_t output_bytes; /* of the result */
} ptq_cost;
PTQ_API ptq_cost ptq_node_cost(const ptq_model *model, int node);

/* Texts, in the manner of snprintf: at most `size` bytes with the terminating 0 are written; the
   return value is the length of the whole text. ptq_model_describe: a table for people: name,
   operator, shape, parameters, MACs, bytes. ptq_graph_write: the graph as the model file holds it,
       ptq-graph 1
       input input shape=32x32x3
       conv1 conv2d in=input channels=16 kernel=3x3
   The padding that ptq_padding calls SAME, stride 1, one group, and a bias are not written. */
PTQ_API size_t ptq_model_describe(const ptq_model *model, char *text, size_t size);
PTQ_API size_t ptq_graph_write(const ptq_model *model, char *text, size_t size);

/* The reverse: a model with zero parameters from a graph text of `length` bytes, which may come
   from an enemy. Errors name the line. */
PTQ_API ptq_status ptq_graph_parse(const char *text, size_t length, const ptq_allocator *allocator,
                                   ptq_model **out, ptq_error *err);

/* Name of an operator in the graph text. Static string. */
PTQ_API const char *ptq_op_name(ptq_op op);

/* ---------------------------------------------------------------------------------------------
   [FILE] safetensors (https://huggingface.co/docs/safetensors): 8 bytes with the length of a JSON
   header, the header, the tensors. Any such file is read as an archive; models are archives whose
   tensors have the names of a graph. */

typedef struct ptq_archive_entry {
    char *name;
    ptq_tensor tensor; /* F32, F16, U8, I8 (S8), I32 (S32); a scalar gets rank 1. Rank 0: another
                          type, no elements, or more than four dimensions; bytes not kept */
} ptq_archive_entry;

typedef struct ptq_archive {
    ptq_archive_entry *entry;
    int entries;
    ptq_meta *meta; /* the file's __metadata__ */
    int metas;
    ptq_allocator allocator;
} ptq_archive;

typedef struct ptq_load_options {
    ptq_allocator allocator;
    int borrow; /* tensors point into the caller's bytes where alignment and byte order allow; the
                   bytes must outlive the model. From memory only */
} ptq_load_options;

/* Reads an archive from `size` bytes. The bytes are treated as hostile: every length, offset, shape
   and name is checked, overlaps and holes are refused. PTQ_BAD_FILE names the tensor. */
PTQ_API ptq_status ptq_archive_parse(const void *bytes, size_t size,
                                     const ptq_load_options *options, ptq_archive **out,
                                     ptq_error *err);
PTQ_API void ptq_archive_free(ptq_archive *archive);
PTQ_API const ptq_tensor *ptq_archive_find(const ptq_archive *archive, const char *name);

/* An archive to write: entries refer to tensors that stay the caller's until it is written. */
PTQ_API ptq_status ptq_archive_create(const ptq_allocator *allocator, ptq_archive **out,
                                      ptq_error *err);
PTQ_API ptq_status ptq_archive_add(ptq_archive *archive, const char *name, const ptq_tensor *tensor,
                                   ptq_error *err);
PTQ_API ptq_status ptq_archive_set_meta(ptq_archive *archive, const char *key, const char *value,
                                        ptq_error *err);

/* The file as bytes; `*bytes` is freed with ptq_bytes_free and the same allocator. Entries in the
   order of adding, header padded to 8 bytes: the same archive always gives the same bytes. */
PTQ_API ptq_status ptq_archive_write(const ptq_archive *archive, void **bytes, size_t *size,
                                     ptq_error *err);
PTQ_API void ptq_bytes_free(void *bytes, const ptq_allocator *allocator);

/* A model from an archive's bytes, and back. A file without a graph but with the tensor names of
   ResNet8 is taken for one, its width and classes read off the shapes; batch-norm epsilon 1e-3 as
   in Keras, unless the metadata has "epsilon". */
PTQ_API ptq_status ptq_model_parse(const void *bytes, size_t size, const ptq_load_options *options,
                                   ptq_model **out, ptq_error *err);
PTQ_API ptq_status ptq_model_write(const ptq_model *model, void **bytes, size_t *size,
                                   ptq_error *err);

#ifndef PTQ_NO_STDIO
/* The same with files. Saving writes a temporary file beside `path` and renames it, so that `path`
   holds either the old bytes or the new. */
PTQ_API ptq_status ptq_archive_load(const char *path, const ptq_load_options *options,
                                    ptq_archive **out, ptq_error *err);
PTQ_API ptq_status ptq_archive_save(const ptq_archive *archive, const char *path, ptq_error *err);
PTQ_API ptq_status ptq_model_load(const char *path, const ptq_load_options *options,
                                  ptq_model **out, ptq_error *err);
PTQ_API ptq_status ptq_model_save(const ptq_model *model, const char *path, ptq_error *err);

/* Whole files; `limit` is the largest size accepted, 0 for none. Used by the functions above, and
   by tools that keep files of their own. */
PTQ_API ptq_status ptq_file_read(const char *path, size_t limit, const ptq_allocator *allocator,
                                 void **bytes, size_t *size, ptq_error *err);
PTQ_API ptq_status ptq_file_write(const char *path, const void *bytes, size_t size, ptq_error *err);
#endif

/* ---------------------------------------------------------------------------------------------
   [FUSE] Fewer nodes, the same function */

typedef enum ptq_fusion_kind {
    PTQ_FUSED_BATCH_NORM, /* w' = w g, b' = (b - mean) g + beta, g = gamma / sqrt(var + eps) */
    PTQ_FUSED_ACTIVATION, /* clamps the result before it is stored */
    PTQ_FUSED_RESIDUAL,   /* adds to what lies at the destination */
    PTQ_NOT_FUSED         /* stays a node of its own and still runs; `reason` says why */
} ptq_fusion_kind;

typedef struct ptq_fusion {
    char node[PTQ_NAME_SIZE]; /* what was looked at */
    char into[PTQ_NAME_SIZE]; /* the convolution (or other node) that took it in */
    ptq_fusion_kind kind;
    const char *reason;       /* static string; NULL if fused */
} ptq_fusion;

typedef struct ptq_fuse_report {
    ptq_fusion *item; /* one for each batch norm, activation and addition of the model */
    int items;
    ptq_allocator allocator;
} ptq_fuse_report;

/* A new model in which batch norm is folded into the convolution before it, ReLU and ReLU6 into the
   convolution, dense layer or addition before them, a residual addition with its activation into
   the later of the two convolutions that feed it. The input model is untouched; `report` may be
   NULL. A node is fused only if nothing else reads what would disappear. Folding is computed in
   double precision and rounded once (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, 3.2). */
PTQ_API ptq_status ptq_fuse(const ptq_model *model, ptq_model **out, ptq_fuse_report *report,
                            ptq_error *err);
PTQ_API void ptq_fuse_report_free(ptq_fuse_report *report);

/* ---------------------------------------------------------------------------------------------
   [PLAN] A model made ready for one instruction set */

/* One list makes the instruction sets and the names by which they are forced. */
#define PTQ_ISA_LIST(X)                                                                            \
    X(PTQ_ISA_AUTO, "auto") /* the best that this processor has */                                 \
    X(PTQ_ISA_SCALAR, "scalar")

typedef enum ptq_isa {
#define PTQ_X(name, text) name,
    PTQ_ISA_LIST(PTQ_X)
#undef PTQ_X
    PTQ_ISA_COUNT
} ptq_isa;

PTQ_API const char *ptq_isa_name(ptq_isa isa);

/* PTQ_ISA_COUNT if there is no such name. */
PTQ_API ptq_isa ptq_isa_find(const char *name);

/* 1 if this build has kernels for it and this processor can run them. */
PTQ_API int ptq_isa_available(ptq_isa isa);

typedef struct ptq_plan ptq_plan;

typedef struct ptq_plan_options {
    ptq_isa isa; /* PTQ_UNSUPPORTED if it is not available here */
    ptq_allocator allocator;
} ptq_plan_options;

/* Checks the model, chooses kernels, lays out the arena. The scalar plan uses the model's weights
   where they lie. */
PTQ_API ptq_status ptq_plan_create(const ptq_model *model, const ptq_plan_options *options,
                                   ptq_plan **out, ptq_error *err);
PTQ_API void ptq_plan_free(ptq_plan *plan);

/* What the plan was made from, the instruction set it uses, the number of logits, the bytes of one
   image (H * W * C) and of the activations while one image runs. */
PTQ_API const ptq_model *ptq_plan_model(const ptq_plan *plan);
PTQ_API ptq_isa ptq_plan_isa(const ptq_plan *plan);
PTQ_API int ptq_plan_classes(const ptq_plan *plan);
PTQ_API size_t ptq_plan_pixels(const ptq_plan *plan);
PTQ_API size_t ptq_plan_arena_bytes(const ptq_plan *plan);

/* ---------------------------------------------------------------------------------------------
   [SESSION] Running */

typedef struct ptq_session ptq_session;

typedef struct ptq_session_options {
    int keep;           /* keep every intermediate tensor of the last image readable by name, in a
                           larger arena */
    void *memory;       /* NULL: from the allocator; else the caller's, any alignment ... */
    size_t memory_size; /* ... at least ptq_session_bytes */
    ptq_allocator allocator;
} ptq_session_options;

/* Memory that a session with these options needs. */
PTQ_API size_t ptq_session_bytes(const ptq_plan *plan, const ptq_session_options *options);
PTQ_API ptq_status ptq_session_create(const ptq_plan *plan, const ptq_session_options *options,
                                      ptq_session **out, ptq_error *err);

/* Frees memory from the allocator; the caller's stays the caller's. */
PTQ_API void ptq_session_free(ptq_session *session);

/* Runs `count` images of H x W x C bytes one behind the other, and writes count x classes logits
   and, if not NULL, softmax probabilities; either may be NULL. The result for an image does not
   depend on its neighbours. Allocates nothing. */
PTQ_API ptq_status ptq_run(ptq_session *session, const uint8_t *pixels, size_t count, float *logits,
                           float *probabilities, ptq_error *err);

/* The same from preprocessed floats, H x W x C each: (pixel - mean) / std already applied. */
PTQ_API ptq_status ptq_run_f32(ptq_session *session, const float *input, size_t count,
                               float *logits, float *probabilities, ptq_error *err);

/* A view of an intermediate tensor of the last image, H x W x C, valid until the next run. Needs
   `keep`. A convolution with a fused residual has two: `name` before the addition, `out` after. */
PTQ_API ptq_status ptq_session_tensor(const ptq_session *session, const char *name,
                                      ptq_tensor *view, ptq_error *err);

/* The preprocessing itself, for one image: the function that evaluation and calibration share.
   (pixel - mean[c]) / std[c] in single precision. */
PTQ_API void ptq_preprocess(const ptq_model *model, const uint8_t *pixels, float *out);

/* Index of the largest of n values; the first of equals. */
PTQ_API int ptq_argmax(const float *values, int n);

/* ---------------------------------------------------------------------------------------------
   [DATA] Data sets, CIFAR-10, sampling */

/* Images and labels from anywhere. `get` writes H x W x C bytes (channels innermost) and a label of
   0..classes-1; it must be able to serve several threads at once and give the same answer for the
   same index every time. Failures go through ptq_error, see ptq_error_set. */
typedef struct ptq_dataset {
    size_t count;
    int height, width, channels, classes;
    ptq_status (*get)(void *user, size_t index, uint8_t *pixels, int *label, ptq_error *err);
    void *user;
    const char *const *class_name; /* `classes` names, or NULL */
} ptq_dataset;

/* For callbacks: fills `err` (which may be NULL) and returns `status`. Understands %s %d %u
   (unsigned) %z (size_t) %g (double) %%; no widths. */
PTQ_API ptq_status ptq_error_set(ptq_error *err, ptq_status status, const char *format, ...);

#define PTQ_CIFAR10_RECORD 3073 /* label, then 32x32 bytes of red, of green, of blue */

typedef struct ptq_cifar10 ptq_cifar10;

typedef enum ptq_split {
    PTQ_TRAIN_SET, /* data_batch_1.bin and on, in numeric order, as many as there are */
    PTQ_TEST_SET   /* test_batch.bin */
} ptq_split;

/* Any number of records from memory, copied. PTQ_BAD_DATA for none, for a truncated last record
   and for labels over 9, with the record's number. */
PTQ_API ptq_status ptq_cifar10_parse(const void *bytes, size_t size, const ptq_allocator *allocator,
                                     ptq_cifar10 **out, ptq_error *err);
#ifndef PTQ_NO_STDIO
/* From the directory of the binary version (https://www.cs.toronto.edu/~kriz/cifar.html), or from
   one .bin file, whatever the split. Says what it found where that is something else: the Python or
   Matlab version, an archive not unpacked, nothing. */
PTQ_API ptq_status ptq_cifar10_open(const char *path, ptq_split split,
                                    const ptq_allocator *allocator, ptq_cifar10 **out,
                                    ptq_error *err);
#endif
PTQ_API void ptq_cifar10_free(ptq_cifar10 *data);

/* A view, valid as long as `data` is; `count` 0 if data is NULL. */
PTQ_API ptq_dataset ptq_cifar10_dataset(const ptq_cifar10 *data);

/* The ten names, airplane to truck. */
PTQ_API const char *const *ptq_cifar10_class_names(void);

/* PCG32 (O'Neill 2014, https://www.pcg-random.org): the same numbers everywhere. */
typedef struct ptq_rng {
    uint64_t state, increment;
} ptq_rng;
PTQ_API void ptq_rng_seed(ptq_rng *rng, uint64_t seed, uint64_t stream);
PTQ_API uint32_t ptq_rng_next(ptq_rng *rng);
PTQ_API uint32_t ptq_rng_below(ptq_rng *rng, uint32_t bound); /* unbiased; bound >= 1 */
PTQ_API float ptq_rng_float(ptq_rng *rng);                    /* [0, 1), 24 bits */

/* Chooses `count` images, as many of every class as possible (the first classes get the remainder):
   per class a Fisher-Yates shuffle by PCG32(seed, class), then all in ascending order of index. The
   same data and seed give the same indices everywhere. PTQ_BAD_DATA if a class has too few. */
PTQ_API ptq_status ptq_sample(const ptq_dataset *data, size_t count, uint64_t seed, size_t *indices,
                              const ptq_allocator *allocator, ptq_error *err);

/* The part of a data set that `indices` names. The struct and the indices stay the caller's. */
typedef struct ptq_subset {
    ptq_dataset base;
    const size_t *indices;
} ptq_subset;
PTQ_API ptq_dataset ptq_subset_dataset(const ptq_subset *subset, size_t count);

/* ---------------------------------------------------------------------------------------------
   [METRICS] Evaluation */

typedef struct ptq_evaluate_options {
    size_t limit;   /* the first so many images; 0: all */
    int threads;    /* 0: 1. More than one needs PTQ_THREADS */
    ptq_progress progress;
    void *user;
    ptq_allocator allocator;
} ptq_evaluate_options;

typedef struct ptq_evaluation {
    size_t total, correct;
    int classes;
    size_t *class_total;   /* classes */
    size_t *class_correct; /* classes */
    size_t *confusion;     /* classes x classes: [label][prediction] */
    int *label;            /* total */
    int *prediction;       /* total */
    float *logits;         /* total x classes */
    ptq_allocator allocator;
} ptq_evaluation;

/* Runs the plan over a data set. PTQ_BAD_DATA if there are no images, if their size or the number
   of classes is not the model's, or if a label is out of range. The result is the same whatever the
   number of threads. */
PTQ_API ptq_status ptq_evaluate(const ptq_plan *plan, ptq_dataset data,
                                const ptq_evaluate_options *options, ptq_evaluation *out,
                                ptq_error *err);
PTQ_API void ptq_evaluation_free(ptq_evaluation *evaluation);

#endif /* PTQ_H */

/* =============================================================================================

     If you came for the interface, you can stop reading here.

   ============================================================================================= */

#ifdef PTQ_IMPLEMENTATION
#ifndef PTQ_IMPLEMENTATION_DONE
#define PTQ_IMPLEMENTATION_DONE

/* [IMPLEMENTATION] */

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#ifndef PTQ_NO_STDIO
#include <stdio.h>
#endif

#if defined(PTQ_MALLOC) != defined(PTQ_FREE)
#error "ptq.h: define both PTQ_MALLOC and PTQ_FREE, or neither"
#endif
#ifndef PTQ_MALLOC
#include <stdlib.h>
#define PTQ_MALLOC(size) malloc(size)
#define PTQ_FREE(pointer) free(pointer)
#endif
#ifndef PTQ_ASSERT
#include <assert.h>
#define PTQ_ASSERT(cond) assert(cond)
#endif
#ifdef PTQ_THREADS
#include <pthread.h>
#endif

/* Runs an expression that returns a ptq_status and leaves the function if it failed. Only where
   nothing has to be released; elsewhere functions keep `status` and fall through to their end. */
#define PTQ__TRY(expression)                                                                       \
    do {                                                                                           \
        ptq_status ptq__try = (expression);                                                        \
        if (ptq__try != PTQ_OK)                                                                    \
            return ptq__try;                                                                       \
    } while (0)

/* ---- [STATUS] ---------------------------------------------------------------------------- */

PTQ_API const char *ptq_status_name(ptq_status status)
{
    static const char *const name[] = {
#define PTQ_X(name, text) #name,
        PTQ_STATUS_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)status < sizeof name / sizeof name[0] ? name[status] : "?";
}

PTQ_API const char *ptq_status_text(ptq_status status)
{
    static const char *const text[] = {
#define PTQ_X(name, text) text,
        PTQ_STATUS_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)status < sizeof text / sizeof text[0] ? text[status] : "unknown status";
}

PTQ_API const char *ptq_version(void)
{
    return PTQ_VERSION;
}

/* Text goes into a buffer of fixed size while its full length is counted, as snprintf does. Own
   formatting because printf's depends on the locale, and because PTQ_NO_STDIO has no printf. */
typedef struct ptq__text {
    char *data;
    size_t size;  /* of the buffer, 0 allowed */
    size_t length;
    size_t line;  /* where the current line began, for columns */
} ptq__text;

static ptq__text ptq__text_over(char *data, size_t size)
{
    ptq__text text;
    text.data = data;
    text.size = size;
    text.length = 0;
    text.line = 0;
    if (size)
        data[0] = 0;
    return text;
}

static void ptq__put_char(ptq__text *text, char c)
{
    if (text->length + 1 < text->size) {
        text->data[text->length] = c;
        text->data[text->length + 1] = 0;
    }
    text->length++;
    if (c == '\n')
        text->line = text->length;
}

static void ptq__put_string(ptq__text *text, const char *s)
{
    while (*s)
        ptq__put_char(text, *s++);
}

static void ptq__put_unsigned(ptq__text *text, uint64_t value)
{
    char digit[20];
    int n = 0;
    do {
        digit[n++] = (char)('0' + (int)(value % 10));
        value /= 10;
    } while (value);
    while (n)
        ptq__put_char(text, digit[--n]);
}

static void ptq__put_signed(ptq__text *text, int64_t value)
{
    if (value < 0)
        ptq__put_char(text, '-');
    ptq__put_unsigned(text, value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value);
}

/* Spaces up to a column of the line, at least one unless the line is empty. */
static void ptq__put_column(ptq__text *text, size_t column)
{
    if (text->length > text->line)
        ptq__put_char(text, ' ');
    while (text->length - text->line < column)
        ptq__put_char(text, ' ');
}

/* 10^n in double precision; n within the range of double. */
static double ptq__pow10(int n)
{
    double result = 1, base = 10;
    int k = n < 0 ? -n : n;
    for (; k; k >>= 1, base *= base)
        if (k & 1)
            result *= base;
    return n < 0 ? 1 / result : result;
}

/* Digits and exponent of the shortest decimal (at most nine digits, always enough for a single)
   that reads back as the same float: value = digits * 10^exponent. */
static uint64_t ptq__shortest(float value, int *exponent)
{
    double v = (double)value;
    int e = 0, n;
    uint64_t digits = 0;
    while (v < ptq__pow10(e))
        e--;
    while (v >= ptq__pow10(e + 1))
        e++;
    for (n = 1; n <= 9; n++) {
        *exponent = e - n + 1;
        digits = (uint64_t)(v * ptq__pow10(-*exponent) + 0.5);
        if ((float)((double)digits * ptq__pow10(*exponent)) == value)
            break;
    }
    return digits;
}

static void ptq__put_float(ptq__text *text, float value)
{
    char digit[24];
    int exponent, point, n = 0, k;
    uint64_t digits;
    if (value != value || value - value != 0) {
        ptq__put_string(text, value != value ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    if (value < 0)
        ptq__put_char(text, '-');
    if (value == 0) {
        ptq__put_char(text, '0');
        return;
    }
    for (digits = ptq__shortest(value < 0 ? -value : value, &exponent); digits; digits /= 10)
        digit[n++] = (char)('0' + (int)(digits % 10));
    point = n + exponent; /* digits before the decimal point */
    if (point > 10 || point < -4) {
        ptq__put_char(text, digit[n - 1]);
        if (n > 1)
            ptq__put_char(text, '.');
        for (k = n - 2; k >= 0; k--)
            ptq__put_char(text, digit[k]);
        ptq__put_char(text, 'e');
        ptq__put_signed(text, point - 1);
        return;
    }
    if (point <= 0)
        ptq__put_string(text, "0.");
    for (k = point; k < 0; k++)
        ptq__put_char(text, '0');
    for (k = n - 1; k >= 0; k--) {
        if (n - 1 - k == point && point > 0)
            ptq__put_char(text, '.');
        ptq__put_char(text, digit[k]);
    }
    for (k = exponent; k > 0; k--)
        ptq__put_char(text, '0');
}

/* %s, %d int, %u unsigned, %z size_t, %L uint64_t, %g double (printed as a float), %% */
static void ptq__vput(ptq__text *text, const char *format, va_list args)
{
    for (; *format; format++) {
        if (*format != '%') {
            ptq__put_char(text, *format);
            continue;
        }
        switch (*++format) {
        case 's':
            ptq__put_string(text, va_arg(args, const char *));
            break;
        case 'd':
            ptq__put_signed(text, va_arg(args, int));
            break;
        case 'u':
            ptq__put_unsigned(text, va_arg(args, unsigned));
            break;
        case 'z':
            ptq__put_unsigned(text, va_arg(args, size_t));
            break;
        case 'L':
            ptq__put_unsigned(text, va_arg(args, uint64_t));
            break;
        case 'g':
            ptq__put_float(text, (float)va_arg(args, double));
            break;
        default:
            ptq__put_char(text, *format);
        }
    }
}

static void ptq__put(ptq__text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    ptq__vput(text, format, args);
    va_end(args);
}

PTQ_API ptq_status ptq_error_set(ptq_error *err, ptq_status status, const char *format, ...)
{
    va_list args;
    if (err) {
        ptq__text text = ptq__text_over(err->text, sizeof err->text);
        err->status = status;
        va_start(args, format);
        ptq__vput(&text, format, args);
        va_end(args);
    }
    return status;
}

/* A function that may change the allocator: all zeros means the default. */
static ptq_allocator ptq__allocator(const ptq_allocator *allocator)
{
    ptq_allocator result;
    memset(&result, 0, sizeof result);
    if (allocator)
        result = *allocator;
    return result;
}

/* Zeroed memory for count elements, never NULL on success, even for count 0. */
static ptq_status ptq__alloc(const ptq_allocator *allocator, size_t count, size_t size,
                             const char *what, void **out, ptq_error *err)
{
    size_t bytes;
    void *memory;
    if (count > (SIZE_MAX - 1) / size)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "%s: %z elements of %z bytes are too many",
                             what, count, size);
    bytes = count ? count * size : 1;
    memory = allocator && allocator->allocate ? allocator->allocate(allocator->user, bytes)
                                              : PTQ_MALLOC(bytes);
    if (!memory)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "%s: no memory for %z bytes", what, bytes);
    memset(memory, 0, bytes);
    *out = memory;
    return PTQ_OK;
}

static void ptq__free(const ptq_allocator *allocator, void *memory)
{
    if (!memory)
        return;
    if (allocator && allocator->release)
        allocator->release(allocator->user, memory);
    else
        PTQ_FREE(memory);
}

static ptq_status ptq__strdup(const ptq_allocator *allocator, const char *text, size_t length,
                              char **out, ptq_error *err)
{
    void *copy = NULL;
    PTQ__TRY(ptq__alloc(allocator, length + 1, 1, "a string", &copy, err));
    memcpy(copy, text, length);
    *out = (char *)copy;
    return PTQ_OK;
}

/* Makes room for one more element in a growing array. */
static ptq_status ptq__grow(const ptq_allocator *allocator, void **array, int count, int *capacity,
                            size_t size, const char *what, ptq_error *err)
{
    void *larger = NULL;
    int n = *capacity ? *capacity * 2 : 16;
    if (count < *capacity)
        return PTQ_OK;
    PTQ__TRY(ptq__alloc(allocator, (size_t)n, size, what, &larger, err));
    if (count)
        memcpy(larger, *array, (size_t)count * size);
    ptq__free(allocator, *array);
    *array = larger;
    *capacity = n;
    return PTQ_OK;
}

/* A NaN or an infinity. Comparisons, not isfinite(), which -ffast-math removes: the exponent bits
   themselves say it. */
static int ptq__is_finite(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* ---- [TENSOR] ---------------------------------------------------------------------------- */

PTQ_API const char *ptq_type_name(ptq_type type)
{
    static const char *const name[] = {"F32", "F16", "U8", "S8", "S32", "PACKED_U", "PACKED_S"};
    return (unsigned)type < sizeof name / sizeof name[0] ? name[type] : "?";
}

static int ptq__is_packed(ptq_type type)
{
    return type == PTQ_PACKED_U || type == PTQ_PACKED_S;
}

/* Bits of one element; 0 if type and bits do not go together. */
static int ptq__type_bits(ptq_type type, int bits)
{
    switch (type) {
    case PTQ_F32:
    case PTQ_S32:
        return 32;
    case PTQ_F16:
        return 16;
    case PTQ_U8:
    case PTQ_S8:
        return 8;
    case PTQ_PACKED_U:
    case PTQ_PACKED_S:
        return bits >= 2 && bits <= 7 ? bits : 0;
    }
    return 0;
}

/* Elements of a shape, or 0 if it is not legal. */
static size_t ptq__shape_elements(int rank, const int *dims)
{
    size_t n = 1;
    int i;
    if (rank < 1 || rank > PTQ_MAX_RANK)
        return 0;
    for (i = 0; i < rank; i++) {
        if (dims[i] < 1 || n > (size_t)PTQ_MAX_ELEMENTS / (size_t)dims[i])
            return 0;
        n *= (size_t)dims[i];
    }
    return n;
}

/* Bytes of one slice along dim[0]. */
static size_t ptq__slice_bytes(size_t elements, int rows, int bits)
{
    return (elements / (size_t)rows * (size_t)bits + 7) / 8;
}

PTQ_API size_t ptq_tensor_bytes(ptq_type type, int bits, int rank, const int *dims)
{
    size_t n = ptq__shape_elements(rank, dims);
    int width = ptq__type_bits(type, bits);
    if (!n || !width)
        return 0;
    return ptq__slice_bytes(n, dims[0], width) * (size_t)dims[0];
}

PTQ_API size_t ptq_tensor_elements(const ptq_tensor *tensor)
{
    return tensor->rank ? ptq__shape_elements(tensor->rank, tensor->dim) : 0;
}

/* The common start of create and borrow. */
static ptq_status ptq__tensor_init(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                   const int *dims, ptq_error *err)
{
    size_t size = ptq_tensor_bytes(type, bits, rank, dims);
    int i;
    if (!size)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "tensor of type %s: needs 1 to 4 dimensions of at least 1, at most "
                             "%d elements, and 2 to 7 bits if packed",
                             ptq_type_name(type), PTQ_MAX_ELEMENTS);
    memset(tensor, 0, sizeof *tensor);
    tensor->type = type;
    tensor->bits = ptq__type_bits(type, bits);
    tensor->rank = rank;
    for (i = 0; i < PTQ_MAX_RANK; i++)
        tensor->dim[i] = i < rank ? dims[i] : 1;
    tensor->size = size;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_tensor_create(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                     const int *dims, const ptq_allocator *allocator,
                                     ptq_error *err)
{
    ptq_tensor made;
    PTQ__TRY(ptq__tensor_init(&made, type, bits, rank, dims, err));
    PTQ__TRY(ptq__alloc(allocator, made.size, 1, "tensor", &made.data, err));
    made.owned = 1;
    *tensor = made;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_tensor_borrow(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                     const int *dims, void *data, size_t size, ptq_error *err)
{
    ptq_tensor made;
    PTQ__TRY(ptq__tensor_init(&made, type, bits, rank, dims, err));
    if (!data || size < made.size)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "tensor needs %z bytes, given are %z",
                             made.size, data ? size : (size_t)0);
    made.data = data;
    *tensor = made;
    return PTQ_OK;
}

PTQ_API void ptq_tensor_free(ptq_tensor *tensor, const ptq_allocator *allocator)
{
    if (!tensor)
        return;
    if (tensor->owned)
        ptq__free(allocator, tensor->data);
    ptq__free(allocator, tensor->scale);
    memset(tensor, 0, sizeof *tensor);
}

PTQ_API ptq_status ptq_tensor_set_scale(ptq_tensor *tensor, const float *scale, int count,
                                        int32_t zero_point, const ptq_allocator *allocator,
                                        ptq_error *err)
{
    void *copy = NULL;
    if (!tensor->rank || (count != 1 && count != tensor->dim[0]))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "a tensor has one scale, or one for each of its %d channels, not %d",
                             tensor->dim[0], count);
    PTQ__TRY(ptq__alloc(allocator, (size_t)count, sizeof(float), "scales", &copy, err));
    memcpy(copy, scale, (size_t)count * sizeof(float));
    ptq__free(allocator, tensor->scale);
    tensor->scale = (float *)copy;
    tensor->scales = count;
    tensor->zero_point = zero_point;
    return PTQ_OK;
}

/* Copies a tensor with everything it owns. */
static ptq_status ptq__tensor_copy(ptq_tensor *to, const ptq_tensor *from,
                                   const ptq_allocator *allocator, ptq_error *err)
{
    ptq_tensor made;
    ptq_status status;
    memset(&made, 0, sizeof made);
    if (from->rank) {
        PTQ__TRY(ptq_tensor_create(&made, from->type, from->bits, from->rank, from->dim, allocator,
                                   err));
        memcpy(made.data, from->data, from->size);
        if (from->scales) {
            status = ptq_tensor_set_scale(&made, from->scale, from->scales, from->zero_point,
                                          allocator, err);
            if (status) {
                ptq_tensor_free(&made, allocator);
                return status;
            }
        }
    }
    *to = made;
    return PTQ_OK;
}

/* Where the code of a packed tensor starts, in bits from the beginning of the data. */
static size_t ptq__packed_position(const ptq_tensor *tensor, size_t index)
{
    size_t per_row = ptq_tensor_elements(tensor) / (size_t)tensor->dim[0];
    size_t row_bytes = tensor->size / (size_t)tensor->dim[0];
    return (index / per_row) * row_bytes * 8 + (index % per_row) * (size_t)tensor->bits;
}

static int32_t ptq__packed_get(const ptq_tensor *tensor, size_t index)
{
    const uint8_t *data = (const uint8_t *)tensor->data;
    size_t position = ptq__packed_position(tensor, index);
    int bits = tensor->bits, shift = (int)(position % 8);
    unsigned word = data[position / 8];
    if (shift + bits > 8)
        word |= (unsigned)data[position / 8 + 1] << 8;
    word = (word >> shift) & ((1u << bits) - 1);
    if (tensor->type == PTQ_PACKED_S && (word >> (bits - 1)))
        return (int32_t)word - (1 << bits);
    return (int32_t)word;
}

static void ptq__packed_set(ptq_tensor *tensor, size_t index, int32_t code)
{
    uint8_t *data = (uint8_t *)tensor->data;
    size_t position = ptq__packed_position(tensor, index);
    int shift = (int)(position % 8);
    unsigned mask = ((1u << tensor->bits) - 1) << shift;
    unsigned word = ((unsigned)code << shift) & mask;
    data[position / 8] = (uint8_t)((data[position / 8] & ~mask) | word);
    if (mask >> 8)
        data[position / 8 + 1] = (uint8_t)((data[position / 8 + 1] & ~(mask >> 8)) | (word >> 8));
}

/* The code of an integer tensor. */
static int32_t ptq__code(const ptq_tensor *tensor, size_t index)
{
    switch (tensor->type) {
    case PTQ_U8:
        return ((const uint8_t *)tensor->data)[index];
    case PTQ_S8:
        return ((const int8_t *)tensor->data)[index];
    case PTQ_S32:
        return ((const int32_t *)tensor->data)[index];
    default:
        return ptq__packed_get(tensor, index);
    }
}

PTQ_API float ptq_tensor_number(const ptq_tensor *tensor, size_t index)
{
    if (tensor->type == PTQ_F32)
        return ((const float *)tensor->data)[index];
    if (tensor->type == PTQ_F16)
        return ptq_f16_to_f32(((const uint16_t *)tensor->data)[index]);
    return (float)ptq__code(tensor, index);
}

PTQ_API float ptq_tensor_real(const ptq_tensor *tensor, size_t index)
{
    size_t per_row;
    if (!tensor->scales || tensor->type == PTQ_F32 || tensor->type == PTQ_F16)
        return ptq_tensor_number(tensor, index);
    per_row = ptq_tensor_elements(tensor) / (size_t)tensor->dim[0];
    return tensor->scale[tensor->scales > 1 ? index / per_row : 0] *
           (float)(ptq__code(tensor, index) - tensor->zero_point);
}

PTQ_API void ptq_tensor_set_code(ptq_tensor *tensor, size_t index, int32_t code)
{
    switch (tensor->type) {
    case PTQ_U8:
        ((uint8_t *)tensor->data)[index] = (uint8_t)code;
        break;
    case PTQ_S8:
        ((int8_t *)tensor->data)[index] = (int8_t)code;
        break;
    case PTQ_S32:
        ((int32_t *)tensor->data)[index] = code;
        break;
    case PTQ_PACKED_U:
    case PTQ_PACKED_S:
        ptq__packed_set(tensor, index, code);
        break;
    default:
        PTQ_ASSERT(!"codes go into integer tensors");
    }
}

PTQ_API uint16_t ptq_f32_to_f16(float value)
{
    uint32_t bits, sign, mantissa, half, rest;
    int exponent, shift;
    memcpy(&bits, &value, sizeof bits);
    sign = (bits >> 16) & 0x8000u;
    exponent = (int)((bits >> 23) & 255) - 127 + 15;
    mantissa = bits & 0x7fffffu;
    if (exponent >= 31) /* overflow, infinity, NaN */
        return (uint16_t)(sign | (exponent == 143 && mantissa ? 0x7e00u : 0x7c00u));
    if (exponent < -10)
        return (uint16_t)sign;
    if (exponent > 0) {
        shift = 13;
        half = ((uint32_t)exponent << 10) | (mantissa >> 13);
    } else { /* subnormal: the hidden bit becomes visible and moves right */
        mantissa |= 0x800000u;
        shift = 14 - exponent;
        half = mantissa >> shift;
    }
    rest = mantissa & ((1u << shift) - 1);
    if (rest > (1u << (shift - 1)) || (rest == (1u << (shift - 1)) && (half & 1)))
        half++; /* may carry into the exponent: then it is the right one, infinity included */
    return (uint16_t)(sign | half);
}

PTQ_API float ptq_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, mantissa = half & 0x3ffu, bits;
    int exponent = (half >> 10) & 31;
    float value;
    if (exponent == 0) {
        value = (float)mantissa * (1.0f / 16777216.0f);
        return sign ? -value : value;
    }
    bits = exponent == 31 ? 0x7f800000u : (uint32_t)(exponent + 112) << 23;
    bits |= sign | (mantissa << 13);
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- [GRAPH] ----------------------------------------------------------------------------- */

PTQ_API const char *ptq_op_name(ptq_op op)
{
    static const char *const name[] = {
#define PTQ_X(name, text) text,
        PTQ_OP_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)op < PTQ_OP_COUNT ? name[op] : "?";
}

static const char *ptq__act_name(ptq_activation act)
{
    return act == PTQ_ACT_RELU ? "relu" : act == PTQ_ACT_RELU6 ? "relu6" : "none";
}

static int ptq__is_name(const char *name, size_t length)
{
    size_t i;
    if (length < 1 || length >= PTQ_NAME_SIZE)
        return 0;
    for (i = 0; i < length; i++) {
        char c = name[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '.'))
            return 0;
    }
    return 1;
}

static int ptq__has_weight(ptq_op op)
{
    return op == PTQ_CONV2D || op == PTQ_DENSE;
}

static int ptq__has_window(ptq_op op)
{
    return op == PTQ_CONV2D || op == PTQ_MAX_POOL || op == PTQ_AVG_POOL;
}

PTQ_API ptq_status ptq_model_create(const ptq_allocator *allocator, ptq_model **out,
                                    ptq_error *err)
{
    void *memory = NULL;
    ptq_model *model;
    int c;
    PTQ__TRY(ptq__alloc(allocator, 1, sizeof *model, "model", &memory, err));
    model = (ptq_model *)memory;
    model->allocator = ptq__allocator(allocator);
    for (c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        model->std[c] = 1;
    *out = model;
    return PTQ_OK;
}

static void ptq__free_metas(ptq_meta *meta, int metas, const ptq_allocator *allocator)
{
    int i;
    for (i = 0; i < metas; i++) {
        ptq__free(allocator, meta[i].key);
        ptq__free(allocator, meta[i].value);
    }
    ptq__free(allocator, meta);
}

PTQ_API void ptq_model_free(ptq_model *model)
{
    ptq_allocator allocator;
    int i, p;
    if (!model)
        return;
    allocator = model->allocator;
    for (i = 0; i < model->nodes; i++)
        for (p = 0; p < PTQ_PARAM_COUNT; p++)
            ptq_tensor_free(&model->node[i].param[p], &allocator);
    ptq__free(&allocator, model->node);
    ptq__free_metas(model->meta, model->metas, &allocator);
    ptq__free(&allocator, model);
}

static int ptq__find(const ptq_model *model, const char *name, size_t length)
{
    int i;
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        if ((strlen(node->name) == length && !memcmp(node->name, name, length)) ||
            (strlen(node->out) == length && !memcmp(node->out, name, length)))
            return i;
    }
    return -1;
}

PTQ_API int ptq_model_find(const ptq_model *model, const char *name)
{
    return ptq__find(model, name, strlen(name));
}

PTQ_API int ptq_model_logits(const ptq_model *model)
{
    int last = model->nodes - 1;
    return last > 0 && model->node[last].op == PTQ_SOFTMAX ? model->node[last].input[0] : last;
}

/* Output size along one axis, and the padding before and after; 0 if no window fits. */
static int ptq__window(int size, int kernel, int stride, ptq_padding padding, int *before,
                       int *after)
{
    int out, total;
    if (padding == PTQ_SAME) {
        out = (size + stride - 1) / stride;
        total = (out - 1) * stride + kernel - size;
        if (total < 0)
            total = 0;
        *before = total / 2;
        *after = total - total / 2;
        return out;
    }
    if (padding == PTQ_VALID)
        *before = *after = 0;
    total = size + *before + *after - kernel;
    return total < 0 ? 0 : total / stride + 1;
}

/* Shape of the result of a node with a window, from that of its input. */
static ptq_status ptq__infer_window(ptq_node *node, const int *in, ptq_error *err)
{
    int axis;
    for (axis = 0; axis < 2; axis++) {
        int *before = &node->pad[axis], *after = &node->pad[axis + 2];
        if (node->kernel[axis] < 1 || node->kernel[axis] > PTQ_MAX_KERNEL ||
            node->stride[axis] < 1 || node->stride[axis] > PTQ_MAX_KERNEL)
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: kernel %dx%d with stride %dx%d; both must be 1 to %d",
                                 node->name, node->kernel[0], node->kernel[1], node->stride[0],
                                 node->stride[1], PTQ_MAX_KERNEL);
        if (node->padding == PTQ_EXPLICIT &&
            (*before < 0 || *after < 0 || *before >= node->kernel[axis] ||
             *after >= node->kernel[axis]))
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: padding %d,%d,%d,%d must be at least 0 and less than the"
                                 " kernel %dx%d",
                                 node->name, node->pad[0], node->pad[1], node->pad[2],
                                 node->pad[3], node->kernel[0], node->kernel[1]);
        node->shape[axis] = ptq__window(in[axis], node->kernel[axis], node->stride[axis],
                                        node->padding, before, after);
        if (node->shape[axis] < 1)
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: a kernel of %dx%d does not fit into its input of %dx%d",
                                 node->name, node->kernel[0], node->kernel[1], in[0], in[1]);
    }
    return PTQ_OK;
}

static ptq_status ptq__infer_conv(ptq_node *node, const int *in, const int *residual,
                                  ptq_error *err)
{
    if (node->groups < 1 || in[2] % node->groups || node->shape[2] % node->groups)
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: %d groups must divide %d input and %d output channels",
                             node->name, node->groups, in[2], node->shape[2]);
    PTQ__TRY(ptq__infer_window(node, in, err));
    if ((node->residual != PTQ_RES_NONE) != (residual != NULL))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: a fused addition goes with a second input", node->name);
    if (residual && memcmp(residual, node->shape, sizeof node->shape))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: adds a residual of %dx%dx%d to a result of %dx%dx%d",
                             node->name, residual[0], residual[1], residual[2], node->shape[0],
                             node->shape[1], node->shape[2]);
    return PTQ_OK;
}

/* Fills shape and padding of a node whose attributes and inputs are set. The number of channels of
   convolution and dense is in shape[2] already, the shape of the input whole. */
static ptq_status ptq__infer(const ptq_model *model, ptq_node *node, ptq_error *err)
{
    static const int none[3] = {0, 0, 0};
    const int *in = node->input[0] >= 0 ? model->node[node->input[0]].shape : none;
    const int *second = node->input[1] >= 0 ? model->node[node->input[1]].shape : NULL;
    switch (node->op) {
    case PTQ_INPUT:
        break;
    case PTQ_CONV2D:
        PTQ__TRY(ptq__infer_conv(node, in, second, err));
        break;
    case PTQ_MAX_POOL:
    case PTQ_AVG_POOL:
        node->shape[2] = in[2];
        PTQ__TRY(ptq__infer_window(node, in, err));
        break;
    case PTQ_DENSE:
        node->shape[0] = node->shape[1] = 1;
        break;
    case PTQ_GLOBAL_AVG_POOL:
        node->shape[0] = node->shape[1] = 1;
        node->shape[2] = in[2];
        break;
    case PTQ_ADD:
        if (!second || memcmp(in, second, sizeof node->shape))
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: adds %dx%dx%d and %dx%dx%d; shapes must be equal",
                                 node->name, in[0], in[1], in[2], second ? second[0] : 0,
                                 second ? second[1] : 0, second ? second[2] : 0);
        memcpy(node->shape, in, sizeof node->shape);
        break;
    case PTQ_SOFTMAX:
        if (in[0] != 1 || in[1] != 1)
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: softmax works on 1x1xC, its input is %dx%dx%d",
                                 node->name, in[0], in[1], in[2]);
        memcpy(node->shape, in, sizeof node->shape);
        break;
    default:
        memcpy(node->shape, in, sizeof node->shape);
    }
    if (!ptq__shape_elements(3, node->shape))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: shape %dx%dx%d is empty or has more than %d elements",
                             node->name, node->shape[0], node->shape[1], node->shape[2],
                             PTQ_MAX_ELEMENTS);
    return PTQ_OK;
}

/* Rank and dimensions that a parameter must have; rank 0 if the operator has no such parameter. */
static int ptq__param_shape(const ptq_model *model, const ptq_node *node, int param, int *dims)
{
    const int *in = node->input[0] >= 0 ? model->node[node->input[0]].shape : NULL;
    dims[0] = node->shape[2];
    dims[1] = dims[2] = dims[3] = 1;
    if (node->op == PTQ_BATCH_NORM)
        return 1;
    if (!ptq__has_weight(node->op) || param > PTQ_BIAS || (param == PTQ_BIAS && node->no_bias))
        return 0;
    if (param == PTQ_BIAS)
        return 1;
    if (node->op == PTQ_DENSE) {
        dims[1] = (int)ptq__shape_elements(3, in);
        return 2;
    }
    dims[1] = in[2] / node->groups;
    dims[2] = node->kernel[0];
    dims[3] = node->kernel[1];
    return 4;
}

/* "weight" of "conv1.weight". Batch norm has PyTorch's names. */
static const char *ptq__param_name(int param)
{
    static const char *const name[] = {"weight", "bias", "running_mean", "running_var"};
    return name[param];
}

static ptq_status ptq__create_params(const ptq_model *model, ptq_node *node, ptq_error *err)
{
    int param, dims[PTQ_MAX_RANK], rank, c;
    for (param = 0; param < PTQ_PARAM_COUNT; param++) {
        rank = ptq__param_shape(model, node, param, dims);
        if (!rank)
            continue;
        if (!ptq_tensor_bytes(PTQ_F32, 32, rank, dims))
            return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: its %s would have more than %d"
                                 " elements", node->name, ptq__param_name(param),
                                 PTQ_MAX_ELEMENTS);
        PTQ__TRY(ptq_tensor_create(&node->param[param], PTQ_F32, 32, rank, dims,
                                   &model->allocator, err));
    }
    if (node->op == PTQ_BATCH_NORM)
        for (c = 0; c < node->shape[2]; c++)
            ((float *)node->param[PTQ_WEIGHT].data)[c] =
                ((float *)node->param[PTQ_VARIANCE].data)[c] = 1;
    return PTQ_OK;
}

static ptq_status ptq__check_new_name(const ptq_model *model, const char *name, ptq_error *err)
{
    if (!ptq__is_name(name, strlen(name)))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "'%s' is no node name: 1 to %d of A-Z a-z 0-9 _ .", name,
                             PTQ_NAME_SIZE - 1);
    if (ptq_model_find(model, name) >= 0)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "there are two nodes or tensors named %s", name);
    return PTQ_OK;
}

/* How many inputs an operator takes, a fused residual aside. */
static int ptq__arity(ptq_op op)
{
    return op == PTQ_INPUT ? 0 : op == PTQ_ADD ? 2 : 1;
}

static ptq_status ptq__check_inputs(const ptq_model *model, const ptq_node *node, int index,
                                    ptq_error *err)
{
    int k, need = ptq__arity(node->op) + (node->residual != PTQ_RES_NONE);
    (void)model;
    if ((index == 0) != (node->op == PTQ_INPUT))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: the first node, and no other, must be the input",
                             node->name);
    for (k = 0; k < 2; k++)
        if (k < need ? node->input[k] < 0 || node->input[k] >= index : node->input[k] != -1)
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: needs %d inputs, each an earlier node", node->name,
                                 need);
    for (k = 0; k < need; k++)
        if (model->node[node->input[k]].op == PTQ_SOFTMAX)
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: softmax can only be the last node", node->name);
    return PTQ_OK;
}

/* Appends a node whose attributes are set; `out` may be empty. */
static ptq_status ptq__append(ptq_model *model, const ptq_node *prototype, ptq_error *err)
{
    ptq_node node = *prototype;
    void *array = model->node;
    ptq_status status;
    int p;
    if (model->nodes >= PTQ_MAX_NODES)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: more than %d nodes", node.name,
                             PTQ_MAX_NODES);
    PTQ__TRY(ptq__check_new_name(model, node.name, err));
    if (!node.out[0])
        memcpy(node.out, node.name, sizeof node.out);
    else if (strcmp(node.out, node.name))
        PTQ__TRY(ptq__check_new_name(model, node.out, err));
    PTQ__TRY(ptq__check_inputs(model, &node, model->nodes, err));
    PTQ__TRY(ptq__infer(model, &node, err));
    PTQ__TRY(ptq__grow(&model->allocator, &array, model->nodes, &model->capacity, sizeof node,
                       "nodes", err));
    model->node = (ptq_node *)array;
    status = model->bare ? PTQ_OK : ptq__create_params(model, &node, err);
    if (status) {
        for (p = 0; p < PTQ_PARAM_COUNT; p++)
            ptq_tensor_free(&node.param[p], &model->allocator);
        return status;
    }
    model->node[model->nodes++] = node;
    return PTQ_OK;
}

/* A node without attributes, ready to be filled. */
static ptq_node ptq__blank(ptq_op op, int first, int second)
{
    ptq_node node;
    memset(&node, 0, sizeof node);
    node.op = op;
    node.input[0] = first;
    node.input[1] = second;
    node.kernel[0] = node.kernel[1] = node.stride[0] = node.stride[1] = node.groups = 1;
    return node;
}

/* The builder's end of ptq__append: sticky error, index as result. */
static int ptq__build(ptq_model *model, ptq_node *node, const char *name)
{
    size_t length = name ? strlen(name) : 0;
    if (model->error.status)
        return -1;
    if (!ptq__is_name(name, length)) {
        ptq_error_set(&model->error, PTQ_BAD_GRAPH,
                      "'%s' is no node name: 1 to %d of A-Z a-z 0-9 _ .", name ? name : "",
                      PTQ_NAME_SIZE - 1);
        return -1;
    }
    memcpy(node->name, name, length);
    if (ptq__append(model, node, &model->error))
        return -1;
    return model->nodes - 1;
}

PTQ_API int ptq_add_input(ptq_model *model, const char *name, int height, int width, int channels)
{
    ptq_node node = ptq__blank(PTQ_INPUT, -1, -1);
    node.shape[0] = height;
    node.shape[1] = width;
    node.shape[2] = channels;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_conv2d(ptq_model *model, const char *name, int input,
                           const ptq_conv_options *options)
{
    ptq_node node = ptq__blank(PTQ_CONV2D, input, -1);
    node.shape[2] = options->channels;
    node.kernel[0] = options->kernel_h;
    node.kernel[1] = options->kernel_w ? options->kernel_w : options->kernel_h;
    node.stride[0] = options->stride_h ? options->stride_h : 1;
    node.stride[1] = options->stride_w ? options->stride_w : node.stride[0];
    node.padding = options->padding;
    memcpy(node.pad, options->pad, sizeof node.pad);
    node.groups = options->groups ? options->groups : 1;
    node.no_bias = options->no_bias != 0;
    return ptq__build(model, &node, name);
}

static int ptq__add_pool(ptq_model *model, ptq_op op, const char *name, int input,
                         const ptq_pool_options *options)
{
    ptq_node node = ptq__blank(op, input, -1);
    node.kernel[0] = options->kernel_h;
    node.kernel[1] = options->kernel_w ? options->kernel_w : options->kernel_h;
    node.stride[0] = options->stride_h ? options->stride_h : node.kernel[0];
    node.stride[1] = options->stride_w   ? options->stride_w
                     : options->stride_h ? options->stride_h
                                         : node.kernel[1];
    node.padding = options->padding;
    memcpy(node.pad, options->pad, sizeof node.pad);
    node.include_pad = op == PTQ_AVG_POOL && options->include_pad;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_max_pool(ptq_model *model, const char *name, int input,
                             const ptq_pool_options *options)
{
    return ptq__add_pool(model, PTQ_MAX_POOL, name, input, options);
}

PTQ_API int ptq_add_avg_pool(ptq_model *model, const char *name, int input,
                             const ptq_pool_options *options)
{
    return ptq__add_pool(model, PTQ_AVG_POOL, name, input, options);
}

PTQ_API int ptq_add_batch_norm(ptq_model *model, const char *name, int input, float epsilon)
{
    ptq_node node = ptq__blank(PTQ_BATCH_NORM, input, -1);
    node.epsilon = epsilon;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_relu(ptq_model *model, const char *name, int input)
{
    ptq_node node = ptq__blank(PTQ_RELU, input, -1);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_relu6(ptq_model *model, const char *name, int input)
{
    ptq_node node = ptq__blank(PTQ_RELU6, input, -1);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_add(ptq_model *model, const char *name, int first, int second)
{
    ptq_node node = ptq__blank(PTQ_ADD, first, second);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_global_avg_pool(ptq_model *model, const char *name, int input)
{
    ptq_node node = ptq__blank(PTQ_GLOBAL_AVG_POOL, input, -1);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_dense(ptq_model *model, const char *name, int input, int channels)
{
    ptq_node node = ptq__blank(PTQ_DENSE, input, -1);
    node.shape[2] = channels;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_softmax(ptq_model *model, const char *name, int input)
{
    ptq_node node = ptq__blank(PTQ_SOFTMAX, input, -1);
    return ptq__build(model, &node, name);
}

/* ResNet8 from small pieces. Names are built with the block's number. */

typedef struct ptq__resnet {
    ptq_model *model;
    char name[PTQ_NAME_SIZE];
} ptq__resnet;

static const char *ptq__block_name(ptq__resnet *net, int block, const char *part)
{
    ptq__text text = ptq__text_over(net->name, sizeof net->name);
    ptq__put(&text, "block%d.%s", block, part);
    return net->name;
}

static int ptq__resnet_conv(ptq_model *model, const char *name, int input, int channels, int kernel,
                            int stride)
{
    ptq_conv_options options;
    memset(&options, 0, sizeof options);
    options.channels = channels;
    options.kernel_h = kernel;
    options.stride_h = stride;
    return ptq_add_conv2d(model, name, input, &options);
}

/* x -> conv-bn-relu -> conv-bn -> + shortcut(x) -> relu, the sum with the shortcut first as in
   Keras. Where the block changes the shape, the shortcut is a 1x1 convolution. */
static int ptq__resnet_block(ptq__resnet *net, int block, int input, int channels, int stride)
{
    const float epsilon = 1e-3f; /* Keras' default, the one that the model was trained with */
    ptq_model *m = net->model;
    int x, shortcut = input;
    x = ptq__resnet_conv(m, ptq__block_name(net, block, "conv1"), input, channels, 3, stride);
    x = ptq_add_batch_norm(m, ptq__block_name(net, block, "bn1"), x, epsilon);
    x = ptq_add_relu(m, ptq__block_name(net, block, "conv1.relu"), x);
    if (stride != 1)
        shortcut = ptq__resnet_conv(m, ptq__block_name(net, block, "shortcut"), input, channels, 1,
                                    stride);
    x = ptq__resnet_conv(m, ptq__block_name(net, block, "conv2"), x, channels, 3, 1);
    x = ptq_add_batch_norm(m, ptq__block_name(net, block, "bn2"), x, epsilon);
    x = ptq_add_add(m, ptq__block_name(net, block, "add"), shortcut, x);
    return ptq_add_relu(m, ptq__block_name(net, block, "add.relu"), x);
}

static ptq_status ptq__build_resnet8(int size, int width, int classes, int bare,
                                     const ptq_allocator *allocator, ptq_model **out,
                                     ptq_error *err)
{
    ptq__resnet net;
    int x;
    if (size < 4 || size > 4096 || width < 1 || width > 4096 || classes < 2 || classes > 65536)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "resnet8: size %d (4 to 4096), width %d (1 to 4096), classes %d (2 to"
                             " 65536)", size, width, classes);
    PTQ__TRY(ptq_model_create(allocator, &net.model, err));
    net.model->bare = bare;
    x = ptq_add_input(net.model, "input", size, size, 3);
    x = ptq__resnet_conv(net.model, "conv1", x, width, 3, 1);
    x = ptq_add_batch_norm(net.model, "bn1", x, 1e-3f);
    x = ptq_add_relu(net.model, "conv1.relu", x);
    x = ptq__resnet_block(&net, 1, x, width, 1);
    x = ptq__resnet_block(&net, 2, x, width * 2, 2);
    x = ptq__resnet_block(&net, 3, x, width * 4, 2);
    x = ptq_add_global_avg_pool(net.model, "pool", x);
    x = ptq_add_dense(net.model, "fc", x, classes);
    ptq_add_softmax(net.model, "softmax", x);
    *out = net.model;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_resnet8(int size, int width, int classes, const ptq_allocator *allocator,
                               ptq_model **out, ptq_error *err)
{
    ptq_model *model = NULL;
    ptq_status status;
    PTQ__TRY(ptq__build_resnet8(size, width, classes, 0, allocator, &model, err));
    status = ptq_model_check(model, err);
    if (status)
        ptq_model_free(model);
    else
        *out = model;
    return status;
}

/* Parameters present, of the right shape and type, finite. */
static ptq_status ptq__check_param(const ptq_model *model, const ptq_node *node, int param,
                                   ptq_error *err)
{
    const ptq_tensor *tensor = &node->param[param];
    const char *what = ptq__param_name(param);
    int dims[PTQ_MAX_RANK], rank = ptq__param_shape(model, node, param, dims);
    size_t i, n = ptq_tensor_elements(tensor);
    if (!tensor->rank && !rank)
        return PTQ_OK;
    if (tensor->rank != rank || memcmp(tensor->dim, dims, sizeof dims))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: %s has shape [%d,%d,%d,%d], needed is [%d,%d,%d,%d]",
                             node->name, what, tensor->dim[0], tensor->dim[1], tensor->dim[2],
                             tensor->dim[3], dims[0], dims[1], dims[2], dims[3]);
    if (tensor->type != PTQ_F32)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: %s is of type %s, needed is F32",
                             node->name, what, ptq_type_name(tensor->type));
    for (i = 0; i < n; i++) {
        float value = ptq_tensor_number(tensor, i);
        if (!ptq__is_finite(value))
            return ptq_error_set(err, PTQ_BAD_NUMBER, "node %s: %s[%z] is %g", node->name, what, i,
                                 (double)value);
        if (param == PTQ_VARIANCE && (value < 0 || value + node->epsilon <= 0))
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "node %s: variance[%z] is %g with epsilon %g; must be positive",
                                 node->name, i, (double)value, (double)node->epsilon);
    }
    return PTQ_OK;
}

/* The attributes that passes and files set, against each other. */
static ptq_status ptq__check_attributes(const ptq_node *node, ptq_error *err)
{
    int may_act = ptq__has_weight(node->op) || node->op == PTQ_ADD;
    if (node->act != PTQ_ACT_NONE && !may_act)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: a %s has no fused activation",
                             node->name, ptq_op_name(node->op));
    if (node->residual != PTQ_RES_NONE && node->op != PTQ_CONV2D)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: a %s has no fused addition", node->name,
                             ptq_op_name(node->op));
    if (node->add_act != PTQ_ACT_NONE && node->residual == PTQ_RES_NONE)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: add_act without a fused addition",
                             node->name);
    if (node->op == PTQ_BATCH_NORM && !(node->epsilon >= 0 && node->epsilon <= 1))
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: epsilon %g is not in 0 to 1",
                             node->name, (double)node->epsilon);
    return PTQ_OK;
}

static ptq_status ptq__check_node(const ptq_model *model, int index, ptq_error *err)
{
    const ptq_node *node = &model->node[index];
    ptq_node again = *node;
    int param;
    PTQ__TRY(ptq__check_inputs(model, node, index, err));
    PTQ__TRY(ptq__check_attributes(node, err));
    PTQ__TRY(ptq__infer(model, &again, err));
    if (memcmp(again.shape, node->shape, sizeof again.shape) ||
        memcmp(again.pad, node->pad, sizeof again.pad))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: its shape %dx%dx%d does not follow from its input",
                             node->name, node->shape[0], node->shape[1], node->shape[2]);
    for (param = 0; param < PTQ_PARAM_COUNT; param++)
        PTQ__TRY(ptq__check_param(model, node, param, err));
    return PTQ_OK;
}

/* Index of the last node that reads the result of node `index`; itself if none does. */
static int ptq__last_use(const ptq_model *model, int index)
{
    int i, last = index;
    for (i = index + 1; i < model->nodes; i++)
        if (model->node[i].input[0] == index || model->node[i].input[1] == index)
            last = i;
    return last;
}

/* How many nodes read the result of node `index`. */
static int ptq__uses(const ptq_model *model, int index)
{
    int i, uses = 0;
    for (i = index + 1; i < model->nodes; i++)
        uses += (model->node[i].input[0] == index) + (model->node[i].input[1] == index);
    return uses;
}

static ptq_status ptq__check_names(const ptq_model *model, ptq_error *err)
{
    int i;
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        if (!memchr(node->name, 0, PTQ_NAME_SIZE) || !memchr(node->out, 0, PTQ_NAME_SIZE) ||
            !ptq__is_name(node->name, strlen(node->name)) ||
            !ptq__is_name(node->out, strlen(node->out)))
            return ptq_error_set(err, PTQ_BAD_GRAPH, "node %d has no legal name", i);
        if (ptq_model_find(model, node->name) != i || ptq_model_find(model, node->out) != i)
            return ptq_error_set(err, PTQ_BAD_GRAPH, "there are two nodes or tensors named %s",
                                 ptq_model_find(model, node->name) != i ? node->name : node->out);
    }
    return PTQ_OK;
}

static ptq_status ptq__check_pixels(const ptq_model *model, ptq_error *err)
{
    int c;
    for (c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        if (!ptq__is_finite(model->mean[c]) || !ptq__is_finite(model->std[c]) ||
            !(model->std[c] > 0))
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "preprocessing of channel %d: mean %g, std %g; std must be"
                                 " positive", c, (double)model->mean[c], (double)model->std[c]);
    return PTQ_OK;
}

PTQ_API ptq_status ptq_model_check(const ptq_model *model, ptq_error *err)
{
    int i;
    if (model->error.status)
        return ptq_error_set(err, model->error.status, "%s", model->error.text);
    if (model->nodes < 2)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "the graph needs an input and one more node");
    PTQ__TRY(ptq__check_names(model, err));
    PTQ__TRY(ptq__check_pixels(model, err));
    for (i = 0; i < model->nodes; i++)
        PTQ__TRY(ptq__check_node(model, i, err));
    for (i = 0; i + 1 < model->nodes; i++)
        if (!ptq__uses(model, i))
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: nothing uses its result, and it is not the last node",
                                 model->node[i].name);
    return PTQ_OK;
}

PTQ_API ptq_tensor *ptq_model_param(ptq_model *model, const char *name)
{
    const char *dot = strrchr(name, '.');
    int i = dot ? ptq__find(model, name, (size_t)(dot - name)) : -1, param;
    for (param = 0; i >= 0 && param < PTQ_PARAM_COUNT; param++)
        if (!strcmp(dot + 1, ptq__param_name(param)) && model->node[i].param[param].rank)
            return &model->node[i].param[param];
    return NULL;
}

/* Metadata, shared by models and archives. */

static int ptq__find_meta(const ptq_meta *meta, int metas, const char *key)
{
    int i;
    for (i = 0; i < metas; i++)
        if (!strcmp(meta[i].key, key))
            return i;
    return -1;
}

static ptq_status ptq__append_meta(ptq_meta **meta, int *metas, const char *key, const char *value,
                                   const ptq_allocator *allocator, ptq_error *err)
{
    void *larger = NULL;
    ptq_meta made;
    ptq_status status;
    PTQ__TRY(ptq__alloc(allocator, (size_t)*metas + 1, sizeof made, "metadata", &larger, err));
    status = ptq__strdup(allocator, key, strlen(key), &made.key, err);
    if (!status) {
        status = ptq__strdup(allocator, value, strlen(value), &made.value, err);
        if (status)
            ptq__free(allocator, made.key);
    }
    if (status) {
        ptq__free(allocator, larger);
        return status;
    }
    if (*metas)
        memcpy(larger, *meta, (size_t)*metas * sizeof made);
    ptq__free(allocator, *meta);
    *meta = (ptq_meta *)larger;
    (*meta)[(*metas)++] = made;
    return PTQ_OK;
}

static ptq_status ptq__set_meta(ptq_meta **meta, int *metas, const char *key, const char *value,
                                const ptq_allocator *allocator, ptq_error *err)
{
    int i = ptq__find_meta(*meta, *metas, key);
    char *copy = NULL;
    if (i < 0)
        return value ? ptq__append_meta(meta, metas, key, value, allocator, err) : PTQ_OK;
    if (value)
        PTQ__TRY(ptq__strdup(allocator, value, strlen(value), &copy, err));
    ptq__free(allocator, (*meta)[i].value);
    (*meta)[i].value = copy;
    if (!value) {
        ptq__free(allocator, (*meta)[i].key);
        memmove(&(*meta)[i], &(*meta)[i + 1], (size_t)(*metas - i - 1) * sizeof(ptq_meta));
        (*metas)--;
    }
    return PTQ_OK;
}

PTQ_API const char *ptq_model_get_meta(const ptq_model *model, const char *key)
{
    int i = ptq__find_meta(model->meta, model->metas, key);
    return i < 0 ? NULL : model->meta[i].value;
}

PTQ_API ptq_status ptq_model_set_meta(ptq_model *model, const char *key, const char *value,
                                      ptq_error *err)
{
    return ptq__set_meta(&model->meta, &model->metas, key, value, &model->allocator, err);
}

/* Copies preprocessing and metadata, all that is not nodes. */
static ptq_status ptq__copy_head(ptq_model *to, const ptq_model *from, ptq_error *err)
{
    int i;
    memcpy(to->mean, from->mean, sizeof to->mean);
    memcpy(to->std, from->std, sizeof to->std);
    for (i = 0; i < from->metas; i++)
        PTQ__TRY(ptq_model_set_meta(to, from->meta[i].key, from->meta[i].value, err));
    return PTQ_OK;
}

/* Appends a copy of a node with its parameters. Input indices are taken as they are. */
static ptq_status ptq__copy_node(ptq_model *to, const ptq_node *from, ptq_error *err)
{
    ptq_node node = *from;
    void *array = to->node;
    ptq_status status = PTQ_OK;
    int p;
    PTQ__TRY(ptq__grow(&to->allocator, &array, to->nodes, &to->capacity, sizeof node, "nodes",
                       err));
    to->node = (ptq_node *)array;
    memset(node.param, 0, sizeof node.param);
    for (p = 0; p < PTQ_PARAM_COUNT && !status; p++)
        status = ptq__tensor_copy(&node.param[p], &from->param[p], &to->allocator, err);
    to->node[to->nodes++] = node; /* even after a failure: freed with the model */
    return status;
}

PTQ_API ptq_status ptq_model_copy(const ptq_model *model, const ptq_allocator *allocator,
                                  ptq_model **out, ptq_error *err)
{
    ptq_model *copy = NULL;
    ptq_status status;
    int i;
    PTQ__TRY(ptq_model_create(allocator, &copy, err));
    copy->error = model->error;
    status = ptq__copy_head(copy, model, err);
    for (i = 0; i < model->nodes && !status; i++)
        status = ptq__copy_node(copy, &model->node[i], err);
    if (status)
        ptq_model_free(copy);
    else
        *out = copy;
    return status;
}

PTQ_API ptq_cost ptq_node_cost(const ptq_model *model, int index)
{
    const ptq_node *node = &model->node[index];
    ptq_cost cost;
    uint64_t outputs = (uint64_t)ptq__shape_elements(3, node->shape);
    int p, dims[PTQ_MAX_RANK];
    memset(&cost, 0, sizeof cost);
    for (p = 0; p < PTQ_PARAM_COUNT; p++) {
        cost.parameters += ptq_tensor_elements(&node->param[p]);
        cost.param_bytes += node->param[p].size;
    }
    if (ptq__has_weight(node->op)) {
        int rank = ptq__param_shape(model, node, PTQ_WEIGHT, dims);
        cost.macs = outputs * (uint64_t)(ptq__shape_elements(rank, dims) / (size_t)dims[0]);
    }
    cost.output_bytes = outputs * sizeof(float);
    return cost;
}

/* "conv2d 3x3/2 +add +relu" */
static void ptq__put_operator(ptq__text *text, const ptq_node *node)
{
    ptq__put_string(text, ptq_op_name(node->op));
    if (ptq__has_window(node->op)) {
        ptq__put(text, " %dx%d", node->kernel[0], node->kernel[1]);
        if (node->stride[0] != node->stride[1])
            ptq__put(text, "/%dx%d", node->stride[0], node->stride[1]);
        else if (node->stride[0] != 1)
            ptq__put(text, "/%d", node->stride[0]);
    }
    if (node->groups > 1)
        ptq__put(text, " g%d", node->groups);
    if (node->act)
        ptq__put(text, " +%s", ptq__act_name(node->act));
    if (node->residual)
        ptq__put(text, " +%s", ptq__arity(PTQ_ADD) ? ptq_op_name(PTQ_ADD) : "");
    if (node->add_act)
        ptq__put(text, " +%s", ptq__act_name(node->add_act));
}

PTQ_API size_t ptq_model_describe(const ptq_model *model, char *buffer, size_t size)
{
    static const size_t column[] = {20, 46, 58, 70, 82};
    ptq__text text = ptq__text_over(buffer, size);
    ptq_cost sum;
    int i;
    memset(&sum, 0, sizeof sum);
    ptq__put_string(&text, "node");
    for (i = 0; i < 5; i++) {
        static const char *const title[] = {"operator", "shape", "parameters", "bytes", "MACs"};
        ptq__put_column(&text, column[i]);
        ptq__put_string(&text, title[i]);
    }
    ptq__put_char(&text, '\n');
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        ptq_cost cost = ptq_node_cost(model, i);
        ptq__put_string(&text, node->name);
        ptq__put_column(&text, column[0]);
        ptq__put_operator(&text, node);
        ptq__put_column(&text, column[1]);
        ptq__put(&text, "%dx%dx%d", node->shape[0], node->shape[1], node->shape[2]);
        ptq__put_column(&text, column[2]);
        ptq__put(&text, "%L", cost.parameters);
        ptq__put_column(&text, column[3]);
        ptq__put(&text, "%L", cost.param_bytes);
        ptq__put_column(&text, column[4]);
        ptq__put(&text, "%L\n", cost.macs);
        sum.parameters += cost.parameters;
        sum.param_bytes += cost.param_bytes;
        sum.macs += cost.macs;
    }
    ptq__put_string(&text, "total");
    ptq__put_column(&text, column[2]);
    ptq__put(&text, "%L", sum.parameters);
    ptq__put_column(&text, column[3]);
    ptq__put(&text, "%L", sum.param_bytes);
    ptq__put_column(&text, column[4]);
    ptq__put(&text, "%L\n", sum.macs);
    return text.length;
}

/* The graph text. Each key has one line in the writer and one in the reader. */

static void ptq__put_pair(ptq__text *text, const char *key, const int *pair)
{
    ptq__put(text, " %s=%dx%d", key, pair[0], pair[1]);
}

static void ptq__put_list(ptq__text *text, const char *key, const float *values, int n)
{
    int i;
    ptq__put(text, " %s=", key);
    for (i = 0; i < n; i++)
        ptq__put(text, i ? ",%g" : "%g", (double)values[i]);
}

static int ptq__has_preprocessing(const ptq_model *model)
{
    int c;
    for (c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        if (model->mean[c] != 0 || model->std[c] != 1)
            return 1;
    return 0;
}

static void ptq__put_input(ptq__text *text, const ptq_model *model, const ptq_node *node)
{
    int channels = node->shape[2];
    ptq__put(text, " shape=%dx%dx%d", node->shape[0], node->shape[1], channels);
    if (ptq__has_preprocessing(model) && channels <= PTQ_MAX_PIXEL_CHANNELS) {
        ptq__put_list(text, "mean", model->mean, channels);
        ptq__put_list(text, "std", model->std, channels);
    }
}

static void ptq__put_window(ptq__text *text, const ptq_node *node)
{
    ptq__put_pair(text, "kernel", node->kernel);
    if (node->stride[0] != 1 || node->stride[1] != 1)
        ptq__put_pair(text, "stride", node->stride);
    if (node->padding == PTQ_VALID)
        ptq__put_string(text, " pad=valid");
    if (node->padding == PTQ_EXPLICIT)
        ptq__put(text, " pad=%d,%d,%d,%d", node->pad[0], node->pad[1], node->pad[2], node->pad[3]);
    if (node->include_pad)
        ptq__put_string(text, " include_pad=1");
}

static void ptq__put_node(ptq__text *text, const ptq_model *model, const ptq_node *node)
{
    ptq__put(text, "%s %s", node->name, ptq_op_name(node->op));
    if (node->input[0] >= 0)
        ptq__put(text, " in=%s", model->node[node->input[0]].name);
    if (node->input[1] >= 0)
        ptq__put(text, ",%s", model->node[node->input[1]].name);
    if (node->op == PTQ_INPUT)
        ptq__put_input(text, model, node);
    if (ptq__has_weight(node->op))
        ptq__put(text, " channels=%d", node->shape[2]);
    if (ptq__has_window(node->op))
        ptq__put_window(text, node);
    if (node->groups > 1)
        ptq__put(text, " groups=%d", node->groups);
    if (node->no_bias)
        ptq__put_string(text, " bias=0");
    if (node->op == PTQ_BATCH_NORM)
        ptq__put(text, " epsilon=%g", (double)node->epsilon);
    if (node->act)
        ptq__put(text, " act=%s", ptq__act_name(node->act));
    if (node->residual)
        ptq__put(text, " add=%s", node->residual == PTQ_RES_FIRST ? "first" : "second");
    if (node->add_act)
        ptq__put(text, " add_act=%s", ptq__act_name(node->add_act));
    if (strcmp(node->out, node->name))
        ptq__put(text, " out=%s", node->out);
    ptq__put_char(text, '\n');
}

PTQ_API size_t ptq_graph_write(const ptq_model *model, char *buffer, size_t size)
{
    ptq__text text = ptq__text_over(buffer, size);
    int i;
    ptq__put_string(&text, "ptq-graph 1\n");
    for (i = 0; i < model->nodes; i++)
        ptq__put_node(&text, model, &model->node[i]);
    return text.length;
}

/* A piece of text that is read, not terminated. */
typedef struct ptq__span {
    const char *p;
    size_t n;
} ptq__span;

static ptq__span ptq__span_of(const char *text)
{
    ptq__span span;
    span.p = text;
    span.n = strlen(text);
    return span;
}

static int ptq__span_is(ptq__span span, const char *text)
{
    return span.n == strlen(text) && !memcmp(span.p, text, span.n);
}

/* Cuts off and returns what stands before the first `separator`, or everything. */
static ptq__span ptq__cut(ptq__span *rest, char separator)
{
    ptq__span head = *rest;
    const char *at = rest->n ? (const char *)memchr(rest->p, separator, rest->n) : NULL;
    if (at) {
        head.n = (size_t)(at - rest->p);
        rest->p += head.n + 1;
        rest->n -= head.n + 1;
    } else {
        rest->p += rest->n;
        rest->n = 0;
    }
    return head;
}

/* A copy that fits into an error message. Anything that is not printable becomes '?'. */
typedef struct ptq__quote {
    char text[PTQ_NAME_SIZE];
} ptq__quote;

static ptq__quote ptq__quoted(ptq__span span)
{
    ptq__quote quote;
    size_t i, n = span.n < sizeof quote.text - 1 ? span.n : sizeof quote.text - 1;
    for (i = 0; i < n; i++)
        quote.text[i] = span.p[i] >= 32 && span.p[i] < 127 ? span.p[i] : '?';
    quote.text[n] = 0;
    return quote;
}

/* Digits alone, within limits: 1 on success. */
static int ptq__read_int(ptq__span span, int64_t low, int64_t high, int64_t *out)
{
    int64_t value = 0;
    size_t i = 0;
    int negative = span.n && span.p[0] == '-';
    for (i = (size_t)negative; i < span.n; i++) {
        if (span.p[i] < '0' || span.p[i] > '9' || i - (size_t)negative >= 18)
            return 0;
        value = value * 10 + (span.p[i] - '0');
    }
    if (negative)
        value = -value;
    if (span.n == (size_t)negative || value < low || value > high)
        return 0;
    *out = value;
    return 1;
}

/* A decimal number, independent of the locale; nothing but finite values: 1 on success. Exact
   enough for every float written with nine digits to come back the same. */
static int ptq__read_double(ptq__span span, double *out)
{
    uint64_t digits = 0;
    int64_t power = 0;
    int exponent = 0, seen = 0, point = 0;
    size_t i = span.n && (span.p[0] == '-' || span.p[0] == '+') ? 1 : 0;
    for (; i < span.n && span.p[i] != 'e' && span.p[i] != 'E'; i++) {
        if (span.p[i] == '.' && !point) {
            point = 1;
            continue;
        }
        if (span.p[i] < '0' || span.p[i] > '9' || i > 400)
            return 0;
        seen = 1;
        if (digits < 100000000000000000u) {
            digits = digits * 10 + (uint64_t)(span.p[i] - '0');
            exponent -= point;
        } else {
            exponent += !point;
        }
    }
    if (!seen)
        return 0;
    if (i < span.n) {
        ptq__span rest;
        rest.p = span.p + i + 1;
        rest.n = span.n - i - 1;
        if (rest.n && rest.p[0] == '+') {
            rest.p++;
            rest.n--;
            if (rest.n && rest.p[0] == '-')
                return 0;
        }
        if (!ptq__read_int(rest, -400, 400, &power))
            return 0;
    }
    exponent += (int)power;
    if (exponent > 300 || !digits)
        *out = 0;
    else if (exponent < -300)
        *out = (double)digits * ptq__pow10(-300) * ptq__pow10(exponent + 300);
    else
        *out = exponent < 0 ? (double)digits / ptq__pow10(-exponent)
                            : (double)digits * ptq__pow10(exponent);
    if (exponent > 300 && digits)
        return 0;
    if (span.p[0] == '-')
        *out = -*out;
    return 1;
}

static int ptq__read_float(ptq__span span, float *out)
{
    double value;
    if (!ptq__read_double(span, &value) || value > (double)FLT_MAX || value < -(double)FLT_MAX)
        return 0;
    *out = (float)value;
    return 1;
}

/* n integers between separators, within limits: 1 on success. */
static int ptq__read_ints(ptq__span span, char separator, int n, int low, int high, int *out)
{
    int64_t value;
    int i;
    for (i = 0; i < n; i++) {
        ptq__span item = i + 1 < n ? ptq__cut(&span, separator) : span;
        if (!ptq__read_int(item, low, high, &value))
            return 0;
        out[i] = (int)value;
    }
    return 1;
}

static int ptq__read_name(ptq__span span, char *name)
{
    if (!ptq__is_name(span.p, span.n))
        return 0;
    memcpy(name, span.p, span.n);
    name[span.n] = 0;
    return 1;
}

static int ptq__read_act(ptq__span span, ptq_activation *out)
{
    *out = ptq__span_is(span, "relu")    ? PTQ_ACT_RELU
           : ptq__span_is(span, "relu6") ? PTQ_ACT_RELU6
                                         : PTQ_ACT_NONE;
    return *out != PTQ_ACT_NONE;
}

static int ptq__read_padding(ptq__span span, ptq_node *node)
{
    if (ptq__span_is(span, "same") || ptq__span_is(span, "valid")) {
        node->padding = span.p[0] == 's' ? PTQ_SAME : PTQ_VALID;
        return 1;
    }
    node->padding = PTQ_EXPLICIT;
    return ptq__read_ints(span, ',', 4, 0, PTQ_MAX_KERNEL, node->pad);
}

static int ptq__read_inputs(ptq__span span, const ptq_model *model, ptq_node *node)
{
    int k;
    for (k = 0; k < 2 && span.n; k++) {
        ptq__span name = ptq__cut(&span, ',');
        node->input[k] = ptq__find(model, name.p, name.n);
        if (node->input[k] < 0)
            return 0;
    }
    return k > 0 && !span.n;
}

/* mean= and std= of the input, one number for each channel. */
static int ptq__read_pixels(ptq__span span, float *out)
{
    int n;
    for (n = 0; n < PTQ_MAX_PIXEL_CHANNELS && span.n; n++)
        if (!ptq__read_float(ptq__cut(&span, ','), &out[n]))
            return 0;
    return n > 0 && !span.n;
}

#define PTQ__BIT(op) (1u << (op))
#define PTQ__ALL_OPS (PTQ__BIT(PTQ_OP_COUNT) - 1)
#define PTQ__WINDOW_OPS (PTQ__BIT(PTQ_CONV2D) | PTQ__BIT(PTQ_MAX_POOL) | PTQ__BIT(PTQ_AVG_POOL))
#define PTQ__WEIGHT_OPS (PTQ__BIT(PTQ_CONV2D) | PTQ__BIT(PTQ_DENSE))

/* The keys and the operators that may have them. */
enum {
    PTQ__KEY_IN,
    PTQ__KEY_OUT,
    PTQ__KEY_SHAPE,
    PTQ__KEY_MEAN,
    PTQ__KEY_STD,
    PTQ__KEY_CHANNELS,
    PTQ__KEY_KERNEL,
    PTQ__KEY_STRIDE,
    PTQ__KEY_PAD,
    PTQ__KEY_INCLUDE_PAD,
    PTQ__KEY_GROUPS,
    PTQ__KEY_BIAS,
    PTQ__KEY_EPSILON,
    PTQ__KEY_ACT,
    PTQ__KEY_ADD,
    PTQ__KEY_ADD_ACT,
    PTQ__KEY_COUNT
};

typedef struct ptq__key {
    const char *name;
    unsigned ops;
} ptq__key;

static const ptq__key ptq__keys[PTQ__KEY_COUNT] = {
    {"in", PTQ__ALL_OPS & ~PTQ__BIT(PTQ_INPUT)},
    {"out", PTQ__ALL_OPS & ~PTQ__BIT(PTQ_INPUT)},
    {"shape", PTQ__BIT(PTQ_INPUT)},
    {"mean", PTQ__BIT(PTQ_INPUT)},
    {"std", PTQ__BIT(PTQ_INPUT)},
    {"channels", PTQ__WEIGHT_OPS},
    {"kernel", PTQ__WINDOW_OPS},
    {"stride", PTQ__WINDOW_OPS},
    {"pad", PTQ__WINDOW_OPS},
    {"include_pad", PTQ__BIT(PTQ_AVG_POOL)},
    {"groups", PTQ__BIT(PTQ_CONV2D)},
    {"bias", PTQ__WEIGHT_OPS},
    {"epsilon", PTQ__BIT(PTQ_BATCH_NORM)},
    {"act", PTQ__WEIGHT_OPS | PTQ__BIT(PTQ_ADD)},
    {"add", PTQ__BIT(PTQ_CONV2D)},
    {"add_act", PTQ__BIT(PTQ_CONV2D)},
};

/* A line of the graph text while it is read. */
typedef struct ptq__line {
    ptq_model *model;
    ptq_node node;
    unsigned seen; /* keys */
} ptq__line;

static int ptq__read_flag(ptq__span value, int *out)
{
    return ptq__read_ints(value, ',', 1, 0, 1, out);
}

/* bias=0 is all that is ever written. */
static int ptq__read_bias(ptq__span value, int *no_bias)
{
    *no_bias = ptq__span_is(value, "0");
    return *no_bias || ptq__span_is(value, "1");
}

/* Reads one value into the node: 1 on success. */
static int ptq__read_key(ptq__line *line, int key, ptq__span value)
{
    ptq_node *node = &line->node;
    switch (key) {
    case PTQ__KEY_IN:
        return ptq__read_inputs(value, line->model, node);
    case PTQ__KEY_OUT:
        return ptq__read_name(value, node->out);
    case PTQ__KEY_SHAPE:
        return ptq__read_ints(value, 'x', 3, 1, PTQ_MAX_ELEMENTS, node->shape);
    case PTQ__KEY_MEAN:
        return ptq__read_pixels(value, line->model->mean);
    case PTQ__KEY_STD:
        return ptq__read_pixels(value, line->model->std);
    case PTQ__KEY_CHANNELS:
        return ptq__read_ints(value, 'x', 1, 1, PTQ_MAX_ELEMENTS, &node->shape[2]);
    case PTQ__KEY_KERNEL:
        return ptq__read_ints(value, 'x', 2, 1, PTQ_MAX_KERNEL, node->kernel);
    case PTQ__KEY_STRIDE:
        return ptq__read_ints(value, 'x', 2, 1, PTQ_MAX_KERNEL, node->stride);
    case PTQ__KEY_PAD:
        return ptq__read_padding(value, node);
    case PTQ__KEY_INCLUDE_PAD:
        return ptq__read_flag(value, &node->include_pad);
    case PTQ__KEY_GROUPS:
        return ptq__read_ints(value, 'x', 1, 1, PTQ_MAX_ELEMENTS, &node->groups);
    case PTQ__KEY_BIAS:
        return ptq__read_bias(value, &node->no_bias);
    case PTQ__KEY_EPSILON:
        return ptq__read_float(value, &node->epsilon);
    case PTQ__KEY_ACT:
        return ptq__read_act(value, &node->act);
    case PTQ__KEY_ADD:
        node->residual = ptq__span_is(value, "first") ? PTQ_RES_FIRST : PTQ_RES_SECOND;
        return ptq__span_is(value, "first") || ptq__span_is(value, "second");
    case PTQ__KEY_ADD_ACT:
        return ptq__read_act(value, &node->add_act);
    default:
        return 0;
    }
}

static int ptq__find_op(ptq__span name)
{
    int op;
    for (op = 0; op < PTQ_OP_COUNT; op++)
        if (ptq__span_is(name, ptq_op_name((ptq_op)op)))
            return op;
    return -1;
}

static ptq_status ptq__read_pair(ptq__line *line, ptq__span pair, int number, ptq_error *err)
{
    ptq__span value = pair, name = ptq__cut(&value, '=');
    int key = 0;
    while (key < PTQ__KEY_COUNT && !ptq__span_is(name, ptq__keys[key].name))
        key++;
    if (key == PTQ__KEY_COUNT || !(ptq__keys[key].ops & PTQ__BIT(line->node.op)) ||
        (line->seen & PTQ__BIT(key)))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "graph line %d, node %s: a %s does not take '%s' here", number,
                             line->node.name, ptq_op_name(line->node.op), ptq__quoted(name).text);
    line->seen |= PTQ__BIT(key);
    if (!ptq__read_key(line, key, value))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "graph line %d, node %s: cannot use '%s' as %s%s", number,
                             line->node.name, ptq__quoted(value).text, ptq__keys[key].name,
                             key == PTQ__KEY_IN ? ": inputs are earlier nodes" : "");
    return PTQ_OK;
}

/* One line: NAME OP key=value ... */
static ptq_status ptq__read_node(ptq_model *model, ptq__span text, int number, ptq_error *err)
{
    ptq__span name = ptq__cut(&text, ' '), op_name = ptq__cut(&text, ' ');
    ptq__line line;
    ptq_error inner;
    ptq_status status;
    int op = ptq__find_op(op_name);
    memset(&line, 0, sizeof line);
    line.model = model;
    if (op < 0)
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "graph line %d: expected a name and an operator, found '%s %s'",
                             number, ptq__quoted(name).text, ptq__quoted(op_name).text);
    line.node = ptq__blank((ptq_op)op, -1, -1);
    if (!ptq__read_name(name, line.node.name))
        return ptq_error_set(err, PTQ_BAD_GRAPH, "graph line %d: '%s' is no node name", number,
                             ptq__quoted(name).text);
    while (text.n)
        PTQ__TRY(ptq__read_pair(&line, ptq__cut(&text, ' '), number, err));
    status = ptq__append(model, &line.node, &inner);
    return status ? ptq_error_set(err, status, "graph line %d: %s", number, inner.text) : PTQ_OK;
}

/* Reads the graph without checking it as a whole: parameters may still be missing. */
static ptq_status ptq__read_graph(const char *text, size_t length, int bare,
                                  const ptq_allocator *allocator, ptq_model **out, ptq_error *err)
{
    ptq__span rest, line;
    ptq_model *model = NULL;
    ptq_status status = PTQ_OK;
    int number = 1;
    rest.p = text;
    rest.n = length;
    line = ptq__cut(&rest, '\n');
    if (!ptq__span_is(line, "ptq-graph 1"))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "the graph text begins with '%s', expected is 'ptq-graph 1'",
                             ptq__quoted(line).text);
    PTQ__TRY(ptq_model_create(allocator, &model, err));
    model->bare = bare;
    while (rest.n && !status) {
        line = ptq__cut(&rest, '\n');
        number++;
        if (line.n)
            status = ptq__read_node(model, line, number, err);
    }
    if (status)
        ptq_model_free(model);
    else
        *out = model;
    return status;
}

PTQ_API ptq_status ptq_graph_parse(const char *text, size_t length, const ptq_allocator *allocator,
                                   ptq_model **out, ptq_error *err)
{
    ptq_model *model = NULL;
    ptq_status status;
    PTQ__TRY(ptq__read_graph(text, length, 0, allocator, &model, err));
    status = ptq_model_check(model, err);
    if (status)
        ptq_model_free(model);
    else
        *out = model;
    return status;
}

/* ---- [FILE] ------------------------------------------------------------------------------ */

/* A reader for JSON that keeps no tree: it stands at a place in the text and is asked for what
   should come next. Every function returns 1 on success; on failure `wrong` says what was expected,
   and `at` where. */
typedef struct ptq__json {
    const char *start, *at, *end;
    const char *wrong;
    const ptq_allocator *allocator;
} ptq__json;

static ptq__json ptq__json_over(const char *text, size_t size, const ptq_allocator *allocator)
{
    ptq__json json;
    json.start = json.at = text;
    json.end = text + size;
    json.wrong = NULL;
    json.allocator = allocator;
    return json;
}

static int ptq__json_wrong(ptq__json *json, const char *what)
{
    if (!json->wrong)
        json->wrong = what;
    return 0;
}

/* The next character that is not white space; 0 at the end. */
static char ptq__json_peek(ptq__json *json)
{
    while (json->at < json->end &&
           (*json->at == ' ' || *json->at == '\n' || *json->at == '\t' || *json->at == '\r'))
        json->at++;
    return json->at < json->end ? *json->at : (char)0;
}

static int ptq__json_take(ptq__json *json, char c, const char *what)
{
    if (ptq__json_peek(json) != c || json->at == json->end)
        return ptq__json_wrong(json, what);
    json->at++;
    return 1;
}

/* For the elements of a list: 1 while there is another one. `first` starts as 1. */
static int ptq__json_next(ptq__json *json, char close, int *first)
{
    if (json->wrong)
        return 0;
    if (ptq__json_peek(json) == close && json->at < json->end) {
        json->at++;
        return 0;
    }
    if (!*first && !ptq__json_take(json, ',', "a comma"))
        return 0;
    *first = 0;
    return 1;
}

static int ptq__json_hex(ptq__json *json, uint32_t *out)
{
    int i;
    *out = 0;
    if (json->end - json->at < 4)
        return 0;
    for (i = 0; i < 4; i++) {
        char c = *json->at++;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return 0;
        *out = *out * 16 + (uint32_t)digit;
    }
    return 1;
}

static char *ptq__put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | (code >> 6));
        *to++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | (code >> 12));
        *to++ = (char)(0x80 | ((code >> 6) & 63));
        *to++ = (char)(0x80 | (code & 63));
    } else {
        *to++ = (char)(0xf0 | (code >> 18));
        *to++ = (char)(0x80 | ((code >> 12) & 63));
        *to++ = (char)(0x80 | ((code >> 6) & 63));
        *to++ = (char)(0x80 | (code & 63));
    }
    return to;
}

/* Behind "\u": one code point, perhaps from a pair of surrogates. NUL is refused, since strings end
   with it. */
static int ptq__json_unicode(ptq__json *json, char **to)
{
    uint32_t code, low;
    if (!ptq__json_hex(json, &code) || code == 0 || (code >= 0xdc00 && code < 0xe000))
        return 0;
    if (code >= 0xd800 && code < 0xdc00) {
        if (json->end - json->at < 6 || json->at[0] != '\\' || json->at[1] != 'u')
            return 0;
        json->at += 2;
        if (!ptq__json_hex(json, &low) || low < 0xdc00 || low >= 0xe000)
            return 0;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    *to = ptq__put_utf8(*to, code);
    return 1;
}

static int ptq__json_escape(ptq__json *json, char **to)
{
    static const char from[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
    const char *found;
    char c = json->at < json->end ? *json->at++ : (char)0;
    if (c == 'u')
        return ptq__json_unicode(json, to);
    found = c ? strchr(from, c) : NULL;
    if (!found)
        return 0;
    *(*to)++ = plain[found - from];
    return 1;
}

/* A string, decoded into memory of its own. Escapes only ever shrink. */
static ptq_status ptq__json_string(ptq__json *json, char **out, ptq_error *err)
{
    const char *close;
    void *memory = NULL;
    char *to;
    if (!ptq__json_take(json, '"', "a string"))
        return PTQ_OK;
    for (close = json->at; close < json->end && *close != '"'; close++)
        if (*close == '\\')
            close++;
    if (close >= json->end) {
        ptq__json_wrong(json, "the end of a string");
        return PTQ_OK;
    }
    PTQ__TRY(ptq__alloc(json->allocator, (size_t)(close - json->at) + 1, 1, "a string", &memory,
                        err));
    to = (char *)memory;
    while (json->at < close) {
        char c = *json->at++;
        if ((unsigned char)c < 32 || (c == '\\' && !ptq__json_escape(json, &to))) {
            ptq__json_wrong(json, "a legal character in a string");
            ptq__free(json->allocator, memory);
            return PTQ_OK;
        }
        if (c != '\\')
            *to++ = c;
    }
    json->at = close + 1;
    *to = 0;
    *out = (char *)memory;
    return PTQ_OK;
}

/* The characters of a number. */
static int ptq__json_number(ptq__json *json, ptq__span *out)
{
    ptq__json_peek(json);
    out->p = json->at;
    while (json->at < json->end && (strchr("+-.eE", *json->at) || (*json->at >= '0' &&
                                                                   *json->at <= '9')) &&
           *json->at)
        json->at++;
    out->n = (size_t)(json->at - out->p);
    return out->n ? 1 : ptq__json_wrong(json, "a number");
}

static int ptq__json_integer(ptq__json *json, int64_t low, int64_t high, int64_t *out)
{
    ptq__span span;
    if (!ptq__json_number(json, &span))
        return 0;
    return ptq__read_int(span, low, high, out) ? 1 : ptq__json_wrong(json, "an integer in range");
}

/* Nothing but white space may follow. */
static int ptq__json_end(ptq__json *json)
{
    ptq__json_peek(json);
    return json->at == json->end ? !json->wrong : ptq__json_wrong(json, "the end");
}

/* A key and its colon. */
static ptq_status ptq__json_key(ptq__json *json, char **out, ptq_error *err)
{
    ptq_status status = ptq__json_string(json, out, err);
    if (!status && *out && !ptq__json_take(json, ':', "a colon")) {
        ptq__free(json->allocator, *out);
        *out = NULL;
    }
    return status;
}

/* JSON text for a string. */
static void ptq__put_json(ptq__text *text, const char *s)
{
    static const char hex[] = "0123456789abcdef";
    ptq__put_char(text, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '\n') {
            ptq__put_string(text, "\\n");
        } else if (c < 32) {
            ptq__put_string(text, "\\u00");
            ptq__put_char(text, hex[c >> 4]);
            ptq__put_char(text, hex[c & 15]);
        } else {
            if (c == '"' || c == '\\')
                ptq__put_char(text, '\\');
            ptq__put_char(text, (char)c);
        }
    }
    ptq__put_char(text, '"');
}

/* safetensors' names of types, with the bytes of an element. Those with `type` below 0 are known to
   the format and skipped here. */
typedef struct ptq__dtype {
    const char *name;
    int type;
    int bytes;
} ptq__dtype;

static const ptq__dtype ptq__dtypes[] = {
    {"F32", PTQ_F32, 4}, {"F16", PTQ_F16, 2}, {"U8", PTQ_U8, 1}, {"I8", PTQ_S8, 1},
    {"I32", PTQ_S32, 4}, {"F64", -1, 8},      {"I64", -1, 8},    {"U64", -1, 8},
    {"U32", -1, 4},      {"BF16", -1, 2},     {"I16", -1, 2},    {"U16", -1, 2},
    {"BOOL", -1, 1},     {"F8_E4M3", -1, 1},  {"F8_E5M2", -1, 1},
};

enum { PTQ__DTYPES = sizeof ptq__dtypes / sizeof ptq__dtypes[0] };

static int ptq__find_dtype(const char *name)
{
    int i;
    for (i = 0; i < PTQ__DTYPES; i++)
        if (!strcmp(ptq__dtypes[i].name, name))
            return i;
    return -1;
}

/* Copies n elements of `bytes` bytes between the file's little-endian order and the host's. */
static void ptq__copy_le(void *to, const void *from, size_t n, int bytes)
{
    const uint16_t probe = 1;
    uint8_t *d = (uint8_t *)to;
    const uint8_t *s = (const uint8_t *)from;
    size_t i;
    int b;
    if (bytes == 1 || *(const uint8_t *)&probe == 1) {
        memcpy(to, from, n * (size_t)bytes);
        return;
    }
    for (i = 0; i < n; i++)
        for (b = 0; b < bytes; b++)
            d[i * (size_t)bytes + (size_t)b] = s[i * (size_t)bytes + (size_t)(bytes - 1 - b)];
}

static int ptq__host_is_le(void)
{
    const uint16_t probe = 1;
    return *(const uint8_t *)&probe == 1;
}

/* What the header says of one tensor. */
typedef struct ptq__record {
    char *name;
    int dtype, rank;
    int64_t dim[PTQ_MAX_RANK];
    uint64_t elements;
    int64_t begin, end;
} ptq__record;

/* An archive while it is read. */
typedef struct ptq__header {
    ptq__json json;
    ptq__record *record;
    int records, capacity;
    ptq_archive *archive;
} ptq__header;

static ptq_status ptq__header_error(ptq__header *header, const char *name, const char *what,
                                    ptq_error *err)
{
    if (name)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: %s",
                             ptq__quoted(ptq__span_of(name)).text, what);
    return ptq_error_set(err, PTQ_BAD_FILE, "file header: expected %s at byte %z",
                         header->json.wrong ? header->json.wrong : what,
                         (size_t)(header->json.at - header->json.start) + 8);
}

/* "shape":[...] */
static void ptq__header_shape(ptq__header *header, ptq__record *record)
{
    ptq__json *json = &header->json;
    int first = 1;
    record->rank = 0;
    record->elements = 1;
    ptq__json_take(json, '[', "a shape");
    while (ptq__json_next(json, ']', &first)) {
        int64_t d = 0;
        if (!ptq__json_integer(json, 0, (int64_t)1 << 40, &d))
            return;
        if (d && record->elements > ((uint64_t)1 << 48) / (uint64_t)d) {
            ptq__json_wrong(json, "a shape of fewer than 2^48 elements");
            return;
        }
        record->elements *= (uint64_t)d;
        if (record->rank < PTQ_MAX_RANK)
            record->dim[record->rank] = d;
        record->rank++;
        if (record->rank > 64) {
            ptq__json_wrong(json, "at most 64 dimensions");
            return;
        }
    }
}

static ptq_status ptq__header_dtype(ptq__header *header, ptq__record *record, ptq_error *err)
{
    char *text = NULL;
    PTQ__TRY(ptq__json_string(&header->json, &text, err));
    if (text) {
        record->dtype = ptq__find_dtype(text);
        if (record->dtype < 0)
            ptq__json_wrong(&header->json, "a known dtype");
        ptq__free(header->json.allocator, text);
    }
    return PTQ_OK;
}

static void ptq__header_offsets(ptq__header *header, ptq__record *record)
{
    ptq__json *json = &header->json;
    const int64_t most = (int64_t)1 << 56;
    if (ptq__json_take(json, '[', "two offsets") &&
        ptq__json_integer(json, 0, most, &record->begin) && ptq__json_take(json, ',', "a comma") &&
        ptq__json_integer(json, 0, most, &record->end))
        ptq__json_take(json, ']', "the end of two offsets");
}

/* {"dtype":..., "shape":..., "data_offsets":...} in any order, each exactly once. */
static ptq_status ptq__header_tensor(ptq__header *header, ptq__record *record, ptq_error *err)
{
    ptq__json *json = &header->json;
    int first = 1, seen = 0, bit;
    ptq_status status = PTQ_OK;
    ptq__json_take(json, '{', "an object");
    while (!status && ptq__json_next(json, '}', &first)) {
        char *key = NULL;
        status = ptq__json_key(json, &key, err);
        if (status || !key)
            break;
        bit = !strcmp(key, "dtype") ? 1 : !strcmp(key, "shape") ? 2
              : !strcmp(key, "data_offsets")                    ? 4
                                                                : 0;
        ptq__free(json->allocator, key);
        if (!bit || (seen & bit))
            ptq__json_wrong(json, "dtype, shape and data_offsets, each once");
        seen |= bit;
        if (bit == 1)
            status = ptq__header_dtype(header, record, err);
        else if (bit == 2)
            ptq__header_shape(header, record);
        else if (bit == 4)
            ptq__header_offsets(header, record);
    }
    if (status)
        return status;
    if (json->wrong || seen != 7)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: expected %s in its header entry",
                             ptq__quoted(ptq__span_of(record->name)).text,
                             json->wrong ? json->wrong : "dtype, shape and data_offsets");
    return PTQ_OK;
}

/* "__metadata__": strings by name. */
static ptq_status ptq__header_meta(ptq__header *header, ptq_error *err)
{
    ptq__json *json = &header->json;
    ptq_archive *archive = header->archive;
    ptq_status status = PTQ_OK;
    int first = 1;
    ptq__json_take(json, '{', "the metadata object");
    while (!status && ptq__json_next(json, '}', &first)) {
        char *key = NULL, *value = NULL;
        status = ptq__json_key(json, &key, err);
        if (!status && key)
            status = ptq__json_string(json, &value, err);
        if (!status && key && value && ptq__find_meta(archive->meta, archive->metas, key) >= 0)
            ptq__json_wrong(json, "every metadata key once");
        else if (!status && value)
            status = ptq__append_meta(&archive->meta, &archive->metas, key, value,
                                      &archive->allocator, err);
        ptq__free(json->allocator, key);
        ptq__free(json->allocator, value);
        if (archive->metas > PTQ_MAX_NODES)
            ptq__json_wrong(json, "at most 4096 metadata entries");
    }
    return status;
}

static ptq_status ptq__header_entry(ptq__header *header, char *key, ptq_error *err)
{
    void *array = header->record;
    PTQ__TRY(ptq__grow(header->json.allocator, &array, header->records, &header->capacity,
                       sizeof(ptq__record), "tensors", err));
    header->record = (ptq__record *)array;
    memset(&header->record[header->records], 0, sizeof(ptq__record));
    header->record[header->records].name = key;
    header->records++;
    if (!key[0])
        return ptq_error_set(err, PTQ_BAD_FILE, "file header: a tensor has an empty name");
    return ptq__header_tensor(header, &header->record[header->records - 1], err);
}

static ptq_status ptq__read_header(ptq__header *header, ptq_error *err)
{
    ptq__json *json = &header->json;
    ptq_status status = PTQ_OK;
    int first = 1, metas = 0;
    ptq__json_take(json, '{', "a JSON object");
    while (!status && ptq__json_next(json, '}', &first)) {
        char *key = NULL;
        status = ptq__json_key(json, &key, err);
        if (status || !key)
            break;
        if (!strcmp(key, "__metadata__")) {
            ptq__free(json->allocator, key);
            if (metas++)
                ptq__json_wrong(json, "__metadata__ once");
            status = ptq__header_meta(header, err);
        } else {
            int before = header->records;
            status = ptq__header_entry(header, key, err);
            if (header->records == before)
                ptq__free(json->allocator, key);
        }
    }
    if (!status && (json->wrong || !ptq__json_end(json)))
        return ptq__header_error(header, NULL, "JSON", err);
    return status;
}

static int ptq__record_before(const ptq__record *a, const ptq__record *b, int by_name)
{
    if (by_name)
        return strcmp(a->name, b->name) < 0;
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
}

/* Heap sort of indices: no recursion, and no bad case for an enemy to find. */
static void ptq__sort_records(const ptq__record *record, int *order, int n, int by_name)
{
    int start, end, root, child, swap;
    for (start = 0; start < n; start++)
        order[start] = start;
    start = n / 2;
    end = n;
    while (end > 1) {
        if (start > 0) {
            start--;
        } else {
            end--;
            swap = order[end];
            order[end] = order[0];
            order[0] = swap;
        }
        for (root = start; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end &&
                ptq__record_before(&record[order[child]], &record[order[child + 1]], by_name))
                child++;
            if (!ptq__record_before(&record[order[root]], &record[order[child]], by_name))
                break;
            swap = order[root];
            order[root] = order[child];
            order[child] = swap;
        }
    }
}

/* Names unique; the data covered exactly, without overlap or hole, as the format demands. */
static ptq_status ptq__check_layout(ptq__header *header, int *order, uint64_t data_size,
                                    ptq_error *err)
{
    const ptq__record *record = header->record;
    int64_t at = 0;
    int i;
    ptq__sort_records(record, order, header->records, 1);
    for (i = 1; i < header->records; i++)
        if (!strcmp(record[order[i]].name, record[order[i - 1]].name))
            return ptq__header_error(header, record[order[i]].name, "occurs twice", err);
    ptq__sort_records(record, order, header->records, 0);
    for (i = 0; i < header->records; i++) {
        const ptq__record *r = &record[order[i]];
        uint64_t bytes = r->elements * (uint64_t)ptq__dtypes[r->dtype].bytes;
        if (r->end < r->begin || (uint64_t)(r->end - r->begin) != bytes)
            return ptq__header_error(header, r->name, "its offsets do not agree with its shape and"
                                     " dtype", err);
        if (r->begin != at)
            return ptq__header_error(header, r->name, r->begin < at ? "overlaps another tensor"
                                     : "a hole lies before its data", err);
        if ((uint64_t)r->end > data_size)
            return ptq__header_error(header, r->name, "its data end behind the end of the file; is"
                                     " the file truncated?", err);
        at = r->end;
    }
    if ((uint64_t)at != data_size)
        return ptq_error_set(err, PTQ_BAD_FILE, "%z bytes behind the last tensor belong to none",
                             (size_t)(data_size - (uint64_t)at));
    return PTQ_OK;
}

/* The tensor of a record, copied or borrowed. */
static ptq_status ptq__read_tensor(const ptq__record *record, const uint8_t *data, int borrow,
                                   const ptq_allocator *allocator, ptq_tensor *out, ptq_error *err)
{
    const ptq__dtype *dtype = &ptq__dtypes[record->dtype];
    const uint8_t *from = data + record->begin;
    int dims[PTQ_MAX_RANK] = {1, 1, 1, 1}, i, rank = record->rank ? record->rank : 1;
    memset(out, 0, sizeof *out);
    if (dtype->type < 0 || rank > PTQ_MAX_RANK || record->elements == 0)
        return PTQ_OK;
    if (record->elements > PTQ_MAX_ELEMENTS)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: more than %d elements",
                             ptq__quoted(ptq__span_of(record->name)).text, PTQ_MAX_ELEMENTS);
    for (i = 0; i < record->rank; i++)
        dims[i] = (int)record->dim[i];
    if (borrow && (dtype->bytes == 1 || ptq__host_is_le()) &&
        (uintptr_t)from % (uintptr_t)dtype->bytes == 0)
        return ptq_tensor_borrow(out, (ptq_type)dtype->type, 0, rank, dims, (void *)(uintptr_t)from,
                                 (size_t)(record->end - record->begin), err);
    PTQ__TRY(ptq_tensor_create(out, (ptq_type)dtype->type, 0, rank, dims, allocator, err));
    ptq__copy_le(out->data, from, (size_t)record->elements, dtype->bytes);
    return PTQ_OK;
}

/* Moves names and tensors of a checked header into the archive. */
static ptq_status ptq__fill_archive(ptq__header *header, const uint8_t *data, int borrow,
                                    ptq_error *err)
{
    ptq_archive *archive = header->archive;
    void *memory = NULL;
    int i;
    PTQ__TRY(ptq__alloc(&archive->allocator, (size_t)header->records, sizeof(ptq_archive_entry),
                        "tensors", &memory, err));
    archive->entry = (ptq_archive_entry *)memory;
    for (i = 0; i < header->records; i++) {
        ptq_archive_entry *entry = &archive->entry[archive->entries++];
        PTQ__TRY(ptq__read_tensor(&header->record[i], data, borrow, &archive->allocator,
                                  &entry->tensor, err));
        entry->name = header->record[i].name;
        header->record[i].name = NULL;
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_archive_create(const ptq_allocator *allocator, ptq_archive **out,
                                      ptq_error *err)
{
    void *memory = NULL;
    PTQ__TRY(ptq__alloc(allocator, 1, sizeof(ptq_archive), "archive", &memory, err));
    *out = (ptq_archive *)memory;
    (*out)->allocator = ptq__allocator(allocator);
    return PTQ_OK;
}

PTQ_API void ptq_archive_free(ptq_archive *archive)
{
    ptq_allocator allocator;
    int i;
    if (!archive)
        return;
    allocator = archive->allocator;
    for (i = 0; i < archive->entries; i++) {
        ptq__free(&allocator, archive->entry[i].name);
        ptq_tensor_free(&archive->entry[i].tensor, &allocator);
    }
    ptq__free(&allocator, archive->entry);
    ptq__free_metas(archive->meta, archive->metas, &allocator);
    ptq__free(&allocator, archive);
}

/* The part of parsing that needs the header's records, which the caller releases. */
static ptq_status ptq__parse_records(ptq__header *header, const uint8_t *data, size_t data_size,
                                     int borrow, ptq_error *err)
{
    const ptq_allocator *allocator = header->json.allocator;
    void *order = NULL;
    ptq_status status;
    PTQ__TRY(ptq__read_header(header, err));
    PTQ__TRY(ptq__alloc(allocator, (size_t)header->records, sizeof(int), "tensor order", &order,
                        err));
    status = ptq__check_layout(header, (int *)order, data_size, err);
    ptq__free(allocator, order);
    return status ? status : ptq__fill_archive(header, data, borrow, err);
}

PTQ_API ptq_status ptq_archive_parse(const void *bytes, size_t size,
                                     const ptq_load_options *options, ptq_archive **out,
                                     ptq_error *err)
{
    const uint8_t *file = (const uint8_t *)bytes;
    const uint64_t most = 100000000; /* the format's own limit */
    uint64_t length = 0;
    ptq__header header;
    ptq_status status;
    int i;
    for (i = 7; i >= 0 && size >= 8; i--)
        length = length << 8 | file[i];
    if (size < 8 || length > size - 8 || length > most || length < 2)
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "not a safetensors file, or truncated: %z bytes, the header should"
                             " have %L", size, length);
    memset(&header, 0, sizeof header);
    PTQ__TRY(ptq_archive_create(options ? &options->allocator : NULL, &header.archive, err));
    header.json = ptq__json_over((const char *)file + 8, (size_t)length,
                                 &header.archive->allocator);
    status = ptq__parse_records(&header, file + 8 + length, size - 8 - (size_t)length,
                                options && options->borrow, err);
    for (i = 0; i < header.records; i++)
        ptq__free(&header.archive->allocator, header.record[i].name);
    ptq__free(&header.archive->allocator, header.record);
    if (status)
        ptq_archive_free(header.archive);
    else
        *out = header.archive;
    return status;
}

static int ptq__archive_index(const ptq_archive *archive, const char *name)
{
    int i;
    for (i = 0; i < archive->entries; i++)
        if (!strcmp(archive->entry[i].name, name))
            return i;
    return -1;
}

PTQ_API const ptq_tensor *ptq_archive_find(const ptq_archive *archive, const char *name)
{
    int i = ptq__archive_index(archive, name);
    return i < 0 ? NULL : &archive->entry[i].tensor;
}

PTQ_API ptq_status ptq_archive_add(ptq_archive *archive, const char *name, const ptq_tensor *tensor,
                                   ptq_error *err)
{
    ptq_archive_entry entry;
    void *larger = NULL;
    ptq_status status;
    if (!name[0] || !strcmp(name, "__metadata__") || ptq_archive_find(archive, name) ||
        !tensor->rank)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "archive: '%s' is empty, reserved or there already", name);
    PTQ__TRY(ptq__strdup(&archive->allocator, name, strlen(name), &entry.name, err));
    entry.tensor = *tensor;
    entry.tensor.owned = 0;
    entry.tensor.scale = NULL;
    entry.tensor.scales = 0;
    status = ptq__alloc(&archive->allocator, (size_t)archive->entries + 1, sizeof entry, "tensors",
                        &larger, err);
    if (status) {
        ptq__free(&archive->allocator, entry.name);
        return status;
    }
    if (archive->entries)
        memcpy(larger, archive->entry, (size_t)archive->entries * sizeof entry);
    ptq__free(&archive->allocator, archive->entry);
    archive->entry = (ptq_archive_entry *)larger;
    archive->entry[archive->entries++] = entry;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_archive_set_meta(ptq_archive *archive, const char *key, const char *value,
                                        ptq_error *err)
{
    return ptq__set_meta(&archive->meta, &archive->metas, key, value, &archive->allocator, err);
}

/* Packed codes go into the file as bytes, one row for each channel. */
static void ptq__put_record(ptq__text *text, const ptq_archive_entry *entry, size_t begin)
{
    const ptq_tensor *tensor = &entry->tensor;
    int i, packed = ptq__is_packed(tensor->type);
    ptq_type type = packed ? PTQ_U8 : tensor->type;
    ptq__put_json(text, entry->name);
    for (i = 0; i < PTQ__DTYPES; i++)
        if (ptq__dtypes[i].type == (int)type)
            ptq__put(text, ":{\"dtype\":\"%s\",\"shape\":[", ptq__dtypes[i].name);
    if (packed)
        ptq__put(text, "%d,%z", tensor->dim[0], tensor->size / (size_t)tensor->dim[0]);
    for (i = 0; i < tensor->rank && !packed; i++)
        ptq__put(text, i ? ",%d" : "%d", tensor->dim[i]);
    ptq__put(text, "],\"data_offsets\":[%z,%z]}", begin, begin + tensor->size);
}

/* The header alone: as long as text.size is, and counted beyond it. */
static size_t ptq__put_header(const ptq_archive *archive, char *buffer, size_t size)
{
    ptq__text text = ptq__text_over(buffer, size);
    size_t begin = 0;
    int i;
    ptq__put_char(&text, '{');
    for (i = 0; i < archive->metas; i++) {
        ptq__put_string(&text, i ? "," : "\"__metadata__\":{");
        ptq__put_json(&text, archive->meta[i].key);
        ptq__put_char(&text, ':');
        ptq__put_json(&text, archive->meta[i].value);
    }
    if (archive->metas)
        ptq__put_char(&text, '}');
    for (i = 0; i < archive->entries; i++) {
        if (i || archive->metas)
            ptq__put_char(&text, ',');
        ptq__put_record(&text, &archive->entry[i], begin);
        begin += archive->entry[i].tensor.size;
    }
    ptq__put_char(&text, '}');
    while (text.length % 8)
        ptq__put_char(&text, ' ');
    return text.length;
}

PTQ_API ptq_status ptq_archive_write(const ptq_archive *archive, void **bytes, size_t *size,
                                     ptq_error *err)
{
    size_t header = ptq__put_header(archive, NULL, 0), total = 8 + header, at = total;
    void *memory = NULL;
    uint8_t *file;
    int i;
    for (i = 0; i < archive->entries; i++) {
        if (total > SIZE_MAX / 2 - archive->entry[i].tensor.size)
            return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "archive: larger than memory can be");
        total += archive->entry[i].tensor.size;
    }
    PTQ__TRY(ptq__alloc(&archive->allocator, total + 1, 1, "file", &memory, err));
    file = (uint8_t *)memory;
    for (i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)header >> (8 * i));
    ptq__put_header(archive, (char *)file + 8, header + 1);
    for (i = 0; i < archive->entries; i++) {
        const ptq_tensor *tensor = &archive->entry[i].tensor;
        int width = tensor->bits >= 8 ? tensor->bits / 8 : 1;
        ptq__copy_le(file + at, tensor->data, tensor->size / (size_t)width, width);
        at += tensor->size;
    }
    *bytes = memory;
    *size = total;
    return PTQ_OK;
}

PTQ_API void ptq_bytes_free(void *bytes, const ptq_allocator *allocator)
{
    ptq__free(allocator, bytes);
}

/* Models in archives. */

/* "conv1.weight" */
typedef struct ptq__param_text {
    char text[PTQ_NAME_SIZE + 32];
} ptq__param_text;

static ptq__param_text ptq__full_name(const ptq_node *node, const char *param)
{
    ptq__param_text name;
    ptq__text text = ptq__text_over(name.text, sizeof name.text);
    ptq__put(&text, "%s.%s", node->name, param);
    return name;
}

/* A graph for a file that has none: ResNet8, if the shapes of its first and last layer say so. */
static ptq_status ptq__guess_graph(const ptq_archive *archive, ptq_model **out, ptq_error *err)
{
    const ptq_tensor *first = ptq_archive_find(archive, "conv1.weight");
    const ptq_tensor *last = ptq_archive_find(archive, "fc.weight");
    int meta = ptq__find_meta(archive->meta, archive->metas, "epsilon"), i;
    float epsilon = 1e-3f;
    if (!first || !last || first->rank != 4 || last->rank != 2 ||
        last->dim[1] != 4 * first->dim[0])
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "the file has no graph in its metadata, and its tensors are not"
                             " those of ResNet8 (conv1.weight to fc.bias)");
    if (meta >= 0 && !ptq__read_float(ptq__span_of(archive->meta[meta].value), &epsilon))
        return ptq_error_set(err, PTQ_BAD_FILE, "metadata 'epsilon' is not a number: %s",
                             ptq__quoted(ptq__span_of(archive->meta[meta].value)).text);
    PTQ__TRY(ptq__build_resnet8(32, first->dim[0], last->dim[0], 1, &archive->allocator, out,
                                err));
    for (i = 0; i < (*out)->nodes; i++)
        if ((*out)->node[i].op == PTQ_BATCH_NORM)
            (*out)->node[i].epsilon = epsilon;
    return PTQ_OK;
}

/* The graph of the file, without parameters. */
static ptq_status ptq__archive_graph(const ptq_archive *archive, ptq_model **out, ptq_error *err)
{
    int format = ptq__find_meta(archive->meta, archive->metas, "format");
    int version = ptq__find_meta(archive->meta, archive->metas, "format_version");
    int graph = ptq__find_meta(archive->meta, archive->metas, "graph");
    if (graph < 0)
        return ptq__guess_graph(archive, out, err);
    if (format < 0 || strcmp(archive->meta[format].value, "ptq") || version < 0 ||
        strcmp(archive->meta[version].value, "1"))
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "the metadata should say format ptq, format_version 1; a newer"
                             " version of the library may have written this file");
    return ptq__read_graph(archive->meta[graph].value, strlen(archive->meta[graph].value), 1,
                           &archive->allocator, out, err);
}

/* Moves a parameter from the archive into its node. */
static ptq_status ptq__take_param(ptq_archive *archive, ptq_model *model, ptq_node *node, int param,
                                  ptq_error *err)
{
    int dims[PTQ_MAX_RANK], rank = ptq__param_shape(model, node, param, dims);
    ptq__param_text name = ptq__full_name(node, ptq__param_name(param));
    int i = ptq__archive_index(archive, name.text);
    ptq_tensor *tensor = i < 0 ? NULL : &archive->entry[i].tensor;
    if (!rank)
        return PTQ_OK;
    if (!tensor)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s is missing", name.text);
    if (tensor->rank != rank || memcmp(tensor->dim, dims, sizeof dims))
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "tensor %s: shape [%d,%d,%d,%d] of rank %d, expected [%d,%d,%d,%d] of"
                             " rank %d (rank 0: of a type that is not supported)", name.text,
                             tensor->dim[0], tensor->dim[1], tensor->dim[2], tensor->dim[3],
                             tensor->rank, dims[0], dims[1], dims[2], dims[3], rank);
    node->param[param] = *tensor;
    memset(tensor, 0, sizeof *tensor);
    archive->entry[i].name[0] = 0; /* taken */
    return PTQ_OK;
}

/* Tensors that no node took. PyTorch counts batches beside its batch norms; no parameter, that. */
static ptq_status ptq__check_leftover(const ptq_archive *archive, ptq_error *err)
{
    static const char ignored[] = ".num_batches_tracked";
    int i;
    for (i = 0; i < archive->entries; i++) {
        const char *name = archive->entry[i].name;
        size_t n = strlen(name), tail = sizeof ignored - 1;
        if (n && (n < tail || strcmp(name + n - tail, ignored)))
            return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s belongs to no node of the graph",
                                 ptq__quoted(ptq__span_of(name)).text);
    }
    return PTQ_OK;
}

static int ptq__is_own_meta(const char *key)
{
    return !strcmp(key, "format") || !strcmp(key, "format_version") || !strcmp(key, "graph");
}

/* Everything but the graph itself, which stands in `model`. */
static ptq_status ptq__fill_model(ptq_archive *archive, ptq_model *model, ptq_error *err)
{
    int i, param;
    for (i = 0; i < model->nodes; i++) {
        ptq_node *node = &model->node[i];
        /* A file without a graph may leave biases out, as PyTorch does before a batch norm. */
        if (ptq__find_meta(archive->meta, archive->metas, "graph") < 0 &&
            ptq__has_weight(node->op) &&
            !ptq_archive_find(archive, ptq__full_name(node, "bias").text))
            node->no_bias = 1;
        for (param = 0; param < PTQ_PARAM_COUNT; param++)
            PTQ__TRY(ptq__take_param(archive, model, node, param, err));
    }
    PTQ__TRY(ptq__check_leftover(archive, err));
    for (i = 0; i < archive->metas; i++)
        if (!ptq__is_own_meta(archive->meta[i].key))
            PTQ__TRY(ptq_model_set_meta(model, archive->meta[i].key, archive->meta[i].value, err));
    model->bare = 0;
    return ptq_model_check(model, err);
}

PTQ_API ptq_status ptq_model_parse(const void *bytes, size_t size, const ptq_load_options *options,
                                   ptq_model **out, ptq_error *err)
{
    ptq_archive *archive = NULL;
    ptq_model *model = NULL;
    ptq_status status;
    PTQ__TRY(ptq_archive_parse(bytes, size, options, &archive, err));
    status = ptq__archive_graph(archive, &model, err);
    if (!status)
        status = ptq__fill_model(archive, model, err);
    ptq_archive_free(archive);
    if (status)
        ptq_model_free(model);
    else
        *out = model;
    return status;
}

/* Parameters of one width after the other, wide ones first: so each lies aligned in the file and
   can be used where it is. */
static ptq_status ptq__put_params(ptq_archive *archive, const ptq_model *model, int wide,
                                  ptq_error *err)
{
    int i, param;
    for (i = 0; i < model->nodes; i++)
        for (param = 0; param < PTQ_PARAM_COUNT; param++) {
            const ptq_node *node = &model->node[i];
            const ptq_tensor *tensor = &node->param[param];
            if (tensor->rank && (tensor->bits == 32) == wide)
                PTQ__TRY(ptq_archive_add(
                    archive, ptq__full_name(node, ptq__param_name(param)).text, tensor, err));
        }
    return PTQ_OK;
}

static ptq_status ptq__put_graph(ptq_archive *archive, const ptq_model *model, ptq_error *err)
{
    size_t length = ptq_graph_write(model, NULL, 0);
    void *memory = NULL;
    ptq_status status;
    PTQ__TRY(ptq__alloc(&archive->allocator, length + 1, 1, "graph text", &memory, err));
    ptq_graph_write(model, (char *)memory, length + 1);
    status = ptq_archive_set_meta(archive, "graph", (const char *)memory, err);
    ptq__free(&archive->allocator, memory);
    return status;
}

static ptq_status ptq__fill_archive_from(ptq_archive *archive, const ptq_model *model,
                                         ptq_error *err)
{
    int i;
    PTQ__TRY(ptq_archive_set_meta(archive, "format", "ptq", err));
    PTQ__TRY(ptq_archive_set_meta(archive, "format_version", "1", err));
    PTQ__TRY(ptq__put_graph(archive, model, err));
    for (i = 0; i < model->metas; i++)
        if (!ptq__is_own_meta(model->meta[i].key))
            PTQ__TRY(ptq_archive_set_meta(archive, model->meta[i].key, model->meta[i].value, err));
    PTQ__TRY(ptq__put_params(archive, model, 1, err));
    return ptq__put_params(archive, model, 0, err);
}

PTQ_API ptq_status ptq_model_write(const ptq_model *model, void **bytes, size_t *size,
                                   ptq_error *err)
{
    ptq_archive *archive = NULL;
    ptq_status status;
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__TRY(ptq_archive_create(&model->allocator, &archive, err));
    status = ptq__fill_archive_from(archive, model, err);
    if (!status)
        status = ptq_archive_write(archive, bytes, size, err);
    ptq_archive_free(archive);
    return status;
}

#ifndef PTQ_NO_STDIO

/* Reads to the end in growing pieces, so that pipes work as well as files. */
static ptq_status ptq__read_all(FILE *file, const char *path, size_t limit,
                                const ptq_allocator *allocator, void **bytes, size_t *size,
                                ptq_error *err)
{
    size_t capacity = 65536, length = 0, got = 0;
    void *memory = NULL;
    ptq_status status = ptq__alloc(allocator, capacity, 1, path, &memory, err);
    while (!status && (got = fread((char *)memory + length, 1, capacity - length, file)) > 0) {
        void *larger = NULL;
        length += got;
        if (limit && length > limit)
            status = ptq_error_set(err, PTQ_BAD_FILE, "%s: larger than %z bytes", path, limit);
        if (status || length < capacity)
            continue;
        status = ptq__alloc(allocator, capacity, 2, path, &larger, err);
        if (!status) {
            memcpy(larger, memory, length);
            ptq__free(allocator, memory);
            memory = larger;
            capacity *= 2;
        }
    }
    if (!status && ferror(file))
        status = ptq_error_set(err, PTQ_IO_ERROR, "%s: cannot be read; is it a directory?", path);
    if (status) {
        ptq__free(allocator, memory);
        return status;
    }
    *bytes = memory;
    *size = length;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_file_read(const char *path, size_t limit, const ptq_allocator *allocator,
                                 void **bytes, size_t *size, ptq_error *err)
{
    FILE *file = fopen(path, "rb");
    ptq_status status;
    if (!file)
        return ptq_error_set(err, PTQ_IO_ERROR,
                             "%s: cannot be opened; does it exist, and may you read it?", path);
    status = ptq__read_all(file, path, limit, allocator, bytes, size, err);
    fclose(file);
    return status;
}

PTQ_API ptq_status ptq_file_write(const char *path, const void *bytes, size_t size, ptq_error *err)
{
    static const char suffix[] = ".ptq-tmp";
    size_t length = strlen(path);
    void *name = NULL;
    FILE *file;
    int good;
    PTQ__TRY(ptq__alloc(NULL, length + sizeof suffix, 1, "file name", &name, err));
    memcpy(name, path, length);
    memcpy((char *)name + length, suffix, sizeof suffix);
    file = fopen((const char *)name, "wb");
    good = file != NULL;
    if (file) {
        good = fwrite(bytes, 1, size, file) == size;
        good = fclose(file) == 0 && good;
#ifdef _WIN32
        if (good) /* rename does not replace there */
            remove(path);
#endif
        good = good && rename((const char *)name, path) == 0;
        if (!good)
            remove((const char *)name);
    }
    ptq__free(NULL, name);
    if (!good)
        return ptq_error_set(err, PTQ_IO_ERROR, "%s: cannot be written; is the folder there and"
                             " writable, and the disk not full?", path);
    return PTQ_OK;
}

/* Puts the path in front of an error that came from its bytes. */
static ptq_status ptq__error_in(const char *path, ptq_status status, ptq_error *err)
{
    ptq_error inner;
    if (status && err) {
        inner = *err;
        ptq_error_set(err, status, "%s: %s", path, inner.text);
    }
    return status;
}

PTQ_API ptq_status ptq_archive_load(const char *path, const ptq_load_options *options,
                                    ptq_archive **out, ptq_error *err)
{
    ptq_load_options copying;
    void *bytes = NULL;
    size_t size = 0;
    ptq_status status;
    memset(&copying, 0, sizeof copying);
    if (options)
        copying.allocator = options->allocator;
    PTQ__TRY(ptq_file_read(path, 0, &copying.allocator, &bytes, &size, err));
    status = ptq_archive_parse(bytes, size, &copying, out, err);
    ptq__free(&copying.allocator, bytes);
    return ptq__error_in(path, status, err);
}

PTQ_API ptq_status ptq_model_load(const char *path, const ptq_load_options *options,
                                  ptq_model **out, ptq_error *err)
{
    ptq_load_options copying;
    void *bytes = NULL;
    size_t size = 0;
    ptq_status status;
    memset(&copying, 0, sizeof copying);
    if (options)
        copying.allocator = options->allocator;
    PTQ__TRY(ptq_file_read(path, 0, &copying.allocator, &bytes, &size, err));
    status = ptq_model_parse(bytes, size, &copying, out, err);
    ptq__free(&copying.allocator, bytes);
    return ptq__error_in(path, status, err);
}

/* Writes bytes that came with a status, and frees them. */
static ptq_status ptq__save_bytes(const char *path, void *bytes, size_t size,
                                  const ptq_allocator *allocator, ptq_error *err)
{
    ptq_status status = ptq_file_write(path, bytes, size, err);
    ptq__free(allocator, bytes);
    return status;
}

PTQ_API ptq_status ptq_archive_save(const ptq_archive *archive, const char *path, ptq_error *err)
{
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_archive_write(archive, &bytes, &size, err));
    return ptq__save_bytes(path, bytes, size, &archive->allocator, err);
}

PTQ_API ptq_status ptq_model_save(const ptq_model *model, const char *path, ptq_error *err)
{
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_model_write(model, &bytes, &size, err));
    return ptq__save_bytes(path, bytes, size, &model->allocator, err);
}

#endif /* PTQ_NO_STDIO */

/* ---- [FUSE] ------------------------------------------------------------------------------ */

/* One pass over the graph. `to[i]` is the node of the new model that computes what node i of the
   old one computed. */
typedef struct ptq__fuser {
    const ptq_model *old;
    ptq_model *model;
    ptq_fuse_report *report;
    int *to;
    int capacity; /* of the report */
} ptq__fuser;

static ptq_status ptq__fuse_note(ptq__fuser *fuser, const ptq_node *node, const ptq_node *into,
                                 ptq_fusion_kind kind, const char *reason, ptq_error *err)
{
    ptq_fuse_report *report = fuser->report;
    ptq_fusion *item;
    void *array;
    if (!report)
        return PTQ_OK;
    array = report->item;
    PTQ__TRY(ptq__grow(&report->allocator, &array, report->items, &fuser->capacity,
                       sizeof *item, "fusion report", err));
    report->item = (ptq_fusion *)array;
    item = &report->item[report->items++];
    memset(item, 0, sizeof *item);
    memcpy(item->node, node->name, sizeof item->node);
    if (into)
        memcpy(item->into, into->name, sizeof item->into);
    item->kind = kind;
    item->reason = reason;
    return PTQ_OK;
}

/* w' = w g and b' = (b - mean) g + beta with g = gamma / sqrt(variance + epsilon), in double
   precision, rounded once. */
static ptq_status ptq__fold_batch_norm(ptq_model *model, ptq_node *conv, const ptq_node *norm,
                                       ptq_error *err)
{
    const float *gamma = (const float *)norm->param[PTQ_WEIGHT].data;
    const float *beta = (const float *)norm->param[PTQ_BIAS].data;
    const float *mean = (const float *)norm->param[PTQ_MEAN].data;
    const float *variance = (const float *)norm->param[PTQ_VARIANCE].data;
    float *weight = (float *)conv->param[PTQ_WEIGHT].data, *bias;
    int o, channels = conv->shape[2];
    size_t k, taps = ptq_tensor_elements(&conv->param[PTQ_WEIGHT]) / (size_t)channels;
    if (conv->no_bias)
        PTQ__TRY(ptq_tensor_create(&conv->param[PTQ_BIAS], PTQ_F32, 32, 1, &channels,
                                   &model->allocator, err));
    conv->no_bias = 0;
    bias = (float *)conv->param[PTQ_BIAS].data;
    for (o = 0; o < channels; o++) {
        double g = (double)gamma[o] / sqrt((double)variance[o] + (double)norm->epsilon);
        for (k = 0; k < taps; k++)
            weight[(size_t)o * taps + k] = (float)((double)weight[(size_t)o * taps + k] * g);
        bias[o] = (float)(((double)bias[o] - (double)mean[o]) * g + (double)beta[o]);
    }
    return PTQ_OK;
}

/* Why a node cannot move into the one before it; NULL if it can. */
static const char *ptq__cannot_follow(const ptq__fuser *fuser, int index, unsigned ops)
{
    int from = fuser->old->node[index].input[0];
    const ptq_node *host = &fuser->model->node[fuser->to[from]];
    if (!(ops & PTQ__BIT(host->op)))
        return "the node before it is of a kind that cannot take it in";
    if (strcmp(host->out, fuser->old->node[from].out))
        return "another node has taken in what lies before it";
    if (ptq__uses(fuser->old, from) != 1)
        return "its input is used elsewhere too";
    return NULL;
}

static ptq_status ptq__fuse_norm(ptq__fuser *fuser, int index, const char **reason, ptq_error *err)
{
    const ptq_node *norm = &fuser->old->node[index];
    ptq_node *host = &fuser->model->node[fuser->to[norm->input[0]]];
    *reason = ptq__cannot_follow(fuser, index, PTQ__BIT(PTQ_CONV2D));
    if (!*reason && (host->act || host->residual))
        *reason = "an activation or an addition lies between it and the convolution";
    if (*reason)
        return PTQ_OK;
    PTQ__TRY(ptq__fold_batch_norm(fuser->model, host, norm, err));
    memcpy(host->out, norm->out, sizeof host->out);
    fuser->to[index] = fuser->to[norm->input[0]];
    return ptq__fuse_note(fuser, norm, host, PTQ_FUSED_BATCH_NORM, NULL, err);
}

static ptq_status ptq__fuse_act(ptq__fuser *fuser, int index, const char **reason, ptq_error *err)
{
    const ptq_node *act = &fuser->old->node[index];
    ptq_node *host = &fuser->model->node[fuser->to[act->input[0]]];
    ptq_activation *place = host->residual ? &host->add_act : &host->act;
    *reason = ptq__cannot_follow(fuser, index, PTQ__WEIGHT_OPS | PTQ__BIT(PTQ_ADD));
    if (!*reason && *place != PTQ_ACT_NONE)
        *reason = "the node before it ends in an activation already";
    if (*reason)
        return PTQ_OK;
    *place = act->op == PTQ_RELU ? PTQ_ACT_RELU : PTQ_ACT_RELU6;
    memcpy(host->out, act->out, sizeof host->out);
    fuser->to[index] = fuser->to[act->input[0]];
    return ptq__fuse_note(fuser, act, host, PTQ_FUSED_ACTIVATION, NULL, err);
}

/* The operand of an addition whose convolution can take the addition in: the last node of the new
   graph, so that the other operand exists before it. -1 if neither can. */
static int ptq__residual_host(const ptq__fuser *fuser, const ptq_node *add)
{
    int k;
    for (k = 0; k < 2; k++) {
        int from = add->input[k], other = add->input[1 - k];
        const ptq_node *host = &fuser->model->node[fuser->to[from]];
        if (host->op == PTQ_CONV2D && !host->residual && from != other &&
            !strcmp(host->out, fuser->old->node[from].out) && ptq__uses(fuser->old, from) == 1 &&
            fuser->to[from] > fuser->to[other])
            return k;
    }
    return -1;
}

static ptq_status ptq__fuse_add(ptq__fuser *fuser, int index, const char **reason, ptq_error *err)
{
    const ptq_node *add = &fuser->old->node[index];
    int k = ptq__residual_host(fuser, add);
    ptq_node *host;
    if (k < 0) {
        *reason = "neither operand is a convolution, used once, behind the other operand";
        return PTQ_OK;
    }
    host = &fuser->model->node[fuser->to[add->input[k]]];
    host->residual = k == 1 ? PTQ_RES_FIRST : PTQ_RES_SECOND;
    host->input[1] = fuser->to[add->input[1 - k]];
    host->add_act = add->act;
    memcpy(host->out, add->out, sizeof host->out);
    fuser->to[index] = fuser->to[add->input[k]];
    return ptq__fuse_note(fuser, add, host, PTQ_FUSED_RESIDUAL, NULL, err);
}

static ptq_status ptq__fuse_node(ptq__fuser *fuser, int index, ptq_error *err)
{
    const ptq_node *node = &fuser->old->node[index];
    const char *reason = NULL;
    ptq_node *copy;
    int k;
    fuser->to[index] = -1;
    if (node->op == PTQ_BATCH_NORM)
        PTQ__TRY(ptq__fuse_norm(fuser, index, &reason, err));
    else if (node->op == PTQ_RELU || node->op == PTQ_RELU6)
        PTQ__TRY(ptq__fuse_act(fuser, index, &reason, err));
    else if (node->op == PTQ_ADD)
        PTQ__TRY(ptq__fuse_add(fuser, index, &reason, err));
    if (fuser->to[index] >= 0)
        return PTQ_OK;
    if (reason)
        PTQ__TRY(ptq__fuse_note(fuser, node, NULL, PTQ_NOT_FUSED, reason, err));
    fuser->to[index] = fuser->model->nodes;
    PTQ__TRY(ptq__copy_node(fuser->model, node, err));
    copy = &fuser->model->node[fuser->model->nodes - 1];
    for (k = 0; k < 2; k++)
        if (node->input[k] >= 0)
            copy->input[k] = fuser->to[node->input[k]];
    return PTQ_OK;
}

static ptq_status ptq__fuse_all(ptq__fuser *fuser, ptq_error *err)
{
    int i;
    PTQ__TRY(ptq__copy_head(fuser->model, fuser->old, err));
    for (i = 0; i < fuser->old->nodes; i++)
        PTQ__TRY(ptq__fuse_node(fuser, i, err));
    return ptq_model_check(fuser->model, err);
}

PTQ_API ptq_status ptq_fuse(const ptq_model *model, ptq_model **out, ptq_fuse_report *report,
                            ptq_error *err)
{
    ptq__fuser fuser;
    void *to = NULL;
    ptq_status status;
    memset(&fuser, 0, sizeof fuser);
    fuser.old = model;
    fuser.report = report;
    if (report) {
        memset(report, 0, sizeof *report);
        report->allocator = model->allocator;
    }
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__TRY(ptq_model_create(&model->allocator, &fuser.model, err));
    status = ptq__alloc(&model->allocator, (size_t)model->nodes, sizeof(int), "fusion", &to, err);
    fuser.to = (int *)to;
    if (!status)
        status = ptq__fuse_all(&fuser, err);
    ptq__free(&model->allocator, to);
    if (status) {
        ptq_model_free(fuser.model);
        ptq_fuse_report_free(report);
    } else {
        *out = fuser.model;
    }
    return status;
}

PTQ_API void ptq_fuse_report_free(ptq_fuse_report *report)
{
    if (!report)
        return;
    ptq__free(&report->allocator, report->item);
    report->item = NULL;
    report->items = 0;
}

/* ---- [PLAN] ------------------------------------------------------------------------------ */

PTQ_API const char *ptq_isa_name(ptq_isa isa)
{
    static const char *const name[] = {
#define PTQ_X(id, text) text,
        PTQ_ISA_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)isa < PTQ_ISA_COUNT ? name[isa] : "?";
}

PTQ_API ptq_isa ptq_isa_find(const char *name)
{
    int isa = 0;
    while (isa < PTQ_ISA_COUNT && strcmp(name, ptq_isa_name((ptq_isa)isa)))
        isa++;
    return (ptq_isa)isa;
}

PTQ_API int ptq_isa_available(ptq_isa isa)
{
    return isa == PTQ_ISA_AUTO || isa == PTQ_ISA_SCALAR;
}

/* Where tensors lie in the arena. Two layouts are made: one that reuses memory, one that keeps
   everything. */
typedef struct ptq__layout {
    size_t *offset; /* nodes: the result */
    size_t *mid;    /* nodes: the result before a fused addition; only in the keeping layout */
    size_t scratch; /* memory for one step's own use */
    size_t size;
} ptq__layout;

enum { PTQ__REUSE, PTQ__KEEP, PTQ__LAYOUTS };

typedef struct ptq__step ptq__step;
typedef struct ptq__frame ptq__frame;

/* One node made ready: what to call. */
struct ptq__step {
    const ptq_node *node;
    const int *in; /* shape of the input */
    int index;
    void (*run)(const ptq__step *step, const ptq__frame *frame);
};

/* What a run of one image works on. */
struct ptq__frame {
    const ptq__layout *layout;
    const void *input; /* node 0's tensor, which may be the caller's memory */
    char *arena;
    int keep;
};

struct ptq_plan {
    const ptq_model *model;
    ptq_isa isa;
    ptq__step *step; /* one for each node; step 0 is never run */
    int logits;      /* node */
    ptq__layout layout[PTQ__LAYOUTS];
    ptq_allocator allocator;
};

enum { PTQ__ALIGN = 64 }; /* of tensors in the arena: a cache line, and the widest vector */

static size_t ptq__align(size_t size)
{
    return (size + PTQ__ALIGN - 1) / PTQ__ALIGN * PTQ__ALIGN;
}

static size_t ptq__node_bytes(const ptq_node *node)
{
    return ptq__align(ptq__shape_elements(3, node->shape) * sizeof(float));
}

static const void *ptq__in(const ptq__step *step, const ptq__frame *frame, int k)
{
    int from = step->node->input[k];
    if (from < 0)
        return NULL;
    return from == 0 ? frame->input : frame->arena + frame->layout->offset[from];
}

static void *ptq__out(const ptq__step *step, const ptq__frame *frame)
{
    return frame->arena + frame->layout->offset[step->index];
}

/* Where a convolution with a fused addition leaves its own result; NULL unless it is kept. */
static void *ptq__mid(const ptq__step *step, const ptq__frame *frame)
{
    return frame->keep && step->node->residual ? frame->arena + frame->layout->mid[step->index]
                                               : NULL;
}

static void *ptq__scratch(const ptq__frame *frame)
{
    return frame->arena + frame->layout->scratch;
}

/* Scalar kernels in float: clear first. */

static float ptq__activate(float x, ptq_activation act)
{
    if (act != PTQ_ACT_NONE && !(x > 0))
        return 0;
    return act == PTQ_ACT_RELU6 && x > 6 ? 6 : x;
}

/* Eight partial sums: the order of additions is fixed, and a compiler may still use vectors. */
static float ptq__dot_f32(const float *a, const float *b, int n)
{
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int i, j;
    for (i = 0; i + 8 <= n; i += 8)
        for (j = 0; j < 8; j++)
            sum[j] += a[i + j] * b[i + j];
    for (j = 0; i + j < n; j++)
        sum[j] += a[i + j] * b[i + j];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* The inputs under the kernel at one output position, for `channels` channels from `first`, in the
   order of the weights: channel, row, column. Taps outside the image are `padding`. */
static void ptq__gather_f32(const ptq__step *step, const float *x, int oy, int ox, int first,
                            int channels, float *patch)
{
    const ptq_node *node = step->node;
    int height = step->in[0], width = step->in[1], depth = step->in[2];
    int kh = node->kernel[0], kw = node->kernel[1], taps = kh * kw, u, v, c;
    for (u = 0; u < kh; u++)
        for (v = 0; v < kw; v++) {
            int y = oy * node->stride[0] - node->pad[0] + u;
            int z = ox * node->stride[1] - node->pad[1] + v;
            float *to = patch + u * kw + v;
            if (y < 0 || y >= height || z < 0 || z >= width) {
                for (c = 0; c < channels; c++)
                    to[c * taps] = 0;
            } else {
                const float *from = x + (y * width + z) * depth + first;
                for (c = 0; c < channels; c++)
                    to[c * taps] = from[c];
            }
        }
}

/* y[o] = act(b[o] + sum of w[o] x); then, fused, y[o] = add_act(y[o] + residual[o]). The residual
   may lie where y is written: each element is read before. */
static void ptq__conv2d_f32(const ptq__step *step, const ptq__frame *frame)
{
    const ptq_node *node = step->node;
    const float *x = (const float *)ptq__in(step, frame, 0);
    const float *residual = (const float *)ptq__in(step, frame, 1);
    const float *weight = (const float *)node->param[PTQ_WEIGHT].data;
    const float *bias = (const float *)node->param[PTQ_BIAS].data;
    float *y = (float *)ptq__out(step, frame), *mid = (float *)ptq__mid(step, frame);
    float *patch = (float *)ptq__scratch(frame);
    int channels = node->shape[2], each = channels / node->groups;
    int deep = step->in[2] / node->groups, oy, ox, g, o;
    int taps = deep * node->kernel[0] * node->kernel[1];
    for (oy = 0; oy < node->shape[0]; oy++)
        for (ox = 0; ox < node->shape[1]; ox++)
            for (g = 0; g < node->groups; g++) {
                ptq__gather_f32(step, x, oy, ox, g * deep, deep, patch);
                for (o = g * each; o < (g + 1) * each; o++) {
                    int at = (oy * node->shape[1] + ox) * channels + o;
                    float sum = ptq__dot_f32(patch, weight + (ptrdiff_t)o * taps, taps);
                    sum = ptq__activate(sum + (bias ? bias[o] : 0), node->act);
                    if (mid)
                        mid[at] = sum;
                    y[at] = residual ? ptq__activate(sum + residual[at], node->add_act) : sum;
                }
            }
}

static void ptq__dense_f32(const ptq__step *step, const ptq__frame *frame)
{
    const ptq_node *node = step->node;
    const float *x = (const float *)ptq__in(step, frame, 0);
    const float *weight = (const float *)node->param[PTQ_WEIGHT].data;
    const float *bias = (const float *)node->param[PTQ_BIAS].data;
    float *y = (float *)ptq__out(step, frame);
    int o, n = node->param[PTQ_WEIGHT].dim[1];
    for (o = 0; o < node->shape[2]; o++)
        y[o] = ptq__activate(ptq__dot_f32(x, weight + (ptrdiff_t)o * n, n) + (bias ? bias[o] : 0),
                             node->act);
}

static void ptq__batch_norm_f32(const ptq__step *step, const ptq__frame *frame)
{
    const ptq_node *node = step->node;
    const float *x = (const float *)ptq__in(step, frame, 0);
    const float *gamma = (const float *)node->param[PTQ_WEIGHT].data;
    const float *beta = (const float *)node->param[PTQ_BIAS].data;
    const float *mean = (const float *)node->param[PTQ_MEAN].data;
    const float *variance = (const float *)node->param[PTQ_VARIANCE].data;
    float *y = (float *)ptq__out(step, frame);
    int channels = node->shape[2], pixels = node->shape[0] * node->shape[1], i, c;
    for (c = 0; c < channels; c++) {
        float g = gamma[c] / sqrtf(variance[c] + node->epsilon);
        for (i = c; i < pixels * channels; i += channels)
            y[i] = (x[i] - mean[c]) * g + beta[c];
    }
}

static void ptq__relu_f32(const ptq__step *step, const ptq__frame *frame)
{
    const ptq_node *node = step->node;
    const float *x = (const float *)ptq__in(step, frame, 0);
    float *y = (float *)ptq__out(step, frame);
    int i, n = (int)ptq__shape_elements(3, node->shape);
    ptq_activation act = node->op == PTQ_RELU ? PTQ_ACT_RELU : PTQ_ACT_RELU6;
    for (i = 0; i < n; i++)
        y[i] = ptq__activate(x[i], act);
}

static void ptq__add_f32(const ptq__step *step, const ptq__frame *frame)
{
    const float *a = (const float *)ptq__in(step, frame, 0);
    const float *b = (const float *)ptq__in(step, frame, 1);
    float *y = (float *)ptq__out(step, frame);
    int i, n = (int)ptq__shape_elements(3, step->node->shape);
    for (i = 0; i < n; i++)
        y[i] = ptq__activate(a[i] + b[i], step->node->act);
}

/* The part of a window that lies inside the image: rows u of begin[0] <= u < end[0], columns
   likewise. Never empty, since padding is less than the kernel. */
typedef struct ptq__clip {
    int begin[2], end[2];
} ptq__clip;

static ptq__clip ptq__clip_window(const ptq__step *step, int oy, int ox)
{
    const ptq_node *node = step->node;
    ptq__clip clip;
    int axis;
    for (axis = 0; axis < 2; axis++) {
        int first = (axis ? ox : oy) * node->stride[axis] - node->pad[axis];
        int last = first + node->kernel[axis];
        clip.begin[axis] = first < 0 ? 0 : first;
        clip.end[axis] = last > step->in[axis] ? step->in[axis] : last;
    }
    return clip;
}

/* How many taps an average is taken over. */
static int ptq__pool_taps(const ptq_node *node, const ptq__clip *clip)
{
    if (node->include_pad)
        return node->kernel[0] * node->kernel[1];
    return (clip->end[0] - clip->begin[0]) * (clip->end[1] - clip->begin[1]);
}

static float ptq__pool_one_f32(const ptq__step *step, const float *x, const ptq__clip *clip)
{
    int max = step->node->op == PTQ_MAX_POOL, u, v, depth = step->in[2];
    float result = max ? x[(clip->begin[0] * step->in[1] + clip->begin[1]) * depth] : 0;
    for (u = clip->begin[0]; u < clip->end[0]; u++)
        for (v = clip->begin[1]; v < clip->end[1]; v++) {
            float value = x[(u * step->in[1] + v) * depth];
            if (!max)
                result += value;
            else if (value > result)
                result = value;
        }
    return max ? result : result / (float)ptq__pool_taps(step->node, clip);
}

static void ptq__pool_f32(const ptq__step *step, const ptq__frame *frame)
{
    const ptq_node *node = step->node;
    const float *x = (const float *)ptq__in(step, frame, 0);
    float *y = (float *)ptq__out(step, frame);
    int oy, ox, c;
    for (oy = 0; oy < node->shape[0]; oy++)
        for (ox = 0; ox < node->shape[1]; ox++) {
            ptq__clip clip = ptq__clip_window(step, oy, ox);
            for (c = 0; c < node->shape[2]; c++)
                *y++ = ptq__pool_one_f32(step, x + c, &clip);
        }
}

static void ptq__global_avg_pool_f32(const ptq__step *step, const ptq__frame *frame)
{
    const float *x = (const float *)ptq__in(step, frame, 0);
    float *y = (float *)ptq__out(step, frame);
    int pixels = step->in[0] * step->in[1], channels = step->in[2], i, c;
    for (c = 0; c < channels; c++) {
        float sum = 0;
        for (i = 0; i < pixels; i++)
            sum += x[i * channels + c];
        y[c] = sum / (float)pixels;
    }
}

/* exp(x - max): the largest term is 1, so nothing overflows. */
static void ptq__softmax(const float *x, float *y, int n)
{
    float max = x[ptq_argmax(x, n)], sum = 0;
    int i;
    for (i = 0; i < n; i++)
        sum += y[i] = expf(x[i] - max);
    for (i = 0; i < n; i++)
        y[i] /= sum;
}

static void ptq__softmax_f32(const ptq__step *step, const ptq__frame *frame)
{
    ptq__softmax((const float *)ptq__in(step, frame, 0), (float *)ptq__out(step, frame),
                 step->node->shape[2]);
}

/* Memory that one step needs for itself. */
static size_t ptq__step_scratch(const ptq__step *step)
{
    const ptq_node *node = step->node;
    if (node->op != PTQ_CONV2D)
        return 0;
    return sizeof(float) * (size_t)(step->in[2] / node->groups) *
           (size_t)(node->kernel[0] * node->kernel[1]);
}

static void ptq__choose_kernel(ptq__step *step)
{
    switch (step->node->op) {
    case PTQ_CONV2D:
        step->run = ptq__conv2d_f32;
        break;
    case PTQ_DENSE:
        step->run = ptq__dense_f32;
        break;
    case PTQ_BATCH_NORM:
        step->run = ptq__batch_norm_f32;
        break;
    case PTQ_RELU:
    case PTQ_RELU6:
        step->run = ptq__relu_f32;
        break;
    case PTQ_ADD:
        step->run = ptq__add_f32;
        break;
    case PTQ_MAX_POOL:
    case PTQ_AVG_POOL:
        step->run = ptq__pool_f32;
        break;
    case PTQ_GLOBAL_AVG_POOL:
        step->run = ptq__global_avg_pool_f32;
        break;
    case PTQ_SOFTMAX:
        step->run = ptq__softmax_f32;
        break;
    default:
        step->run = NULL;
    }
}

/* Laying out the arena. Tensors that share memory (a result written over an operand) are one block,
   named by its first tensor; a block lives from the first write to the last read of any of its
   tensors. The largest block is placed first, each at the lowest address where nothing that lives
   at the same time lies. */
typedef struct ptq__block {
    int root;        /* the tensor that names the block of this one */
    int first, last; /* steps, of the whole block (in its root) */
    size_t size;
    int placed;
} ptq__block;

/* The operand that the result may be written over: the residual of a convolution, the first operand
   of an elementwise operator. -1 if none: it must not be read again later, nor be the input, which
   may be the caller's. */
static int ptq__overwrites(const ptq_model *model, const ptq__block *block, int index)
{
    const ptq_node *node = &model->node[index];
    int conv = node->op == PTQ_CONV2D && node->residual;
    int elementwise = node->op == PTQ_BATCH_NORM || node->op == PTQ_RELU || node->op == PTQ_RELU6 ||
                      node->op == PTQ_ADD;
    int over = node->input[conv ? 1 : 0];
    if ((!conv && !elementwise) || over <= 0 || ptq__last_use(model, over) != index)
        return -1;
    if (conv && (node->input[0] == over ||
                 (node->input[0] > 0 && block[node->input[0]].root == block[over].root)))
        return -1;
    return block[over].size == ptq__node_bytes(node) ? over : -1;
}

static void ptq__make_blocks(const ptq_model *model, ptq__block *block)
{
    int i, over, last;
    for (i = 0; i < model->nodes; i++) {
        last = i == ptq_model_logits(model) ? model->nodes : ptq__last_use(model, i);
        block[i].size = ptq__node_bytes(&model->node[i]);
        over = ptq__overwrites(model, block, i);
        block[i].root = over < 0 ? i : block[over].root;
        if (over < 0)
            block[i].first = i;
        if (over < 0 || last > block[block[i].root].last)
            block[block[i].root].last = last;
    }
}

/* Lowest offset for a block among those placed already. */
static size_t ptq__place(const ptq__block *block, const size_t *offset, int nodes, int index)
{
    size_t at = 0;
    int i, moved = 1;
    while (moved) {
        moved = 0;
        for (i = 0; i < nodes; i++)
            if (block[i].placed && block[i].root == i && block[i].first <= block[index].last &&
                block[index].first <= block[i].last && at < offset[i] + block[i].size &&
                offset[i] < at + block[index].size) {
                at = offset[i] + block[i].size;
                moved = 1;
            }
    }
    return at;
}

static void ptq__lay_reusing(const ptq_model *model, ptq__block *block, ptq__layout *layout)
{
    int i, largest;
    ptq__make_blocks(model, block);
    for (;;) {
        largest = -1;
        for (i = 0; i < model->nodes; i++)
            if (block[i].root == i && !block[i].placed &&
                (largest < 0 || block[i].size > block[largest].size))
                largest = i;
        if (largest < 0)
            break;
        layout->offset[largest] = ptq__place(block, layout->offset, model->nodes, largest);
        block[largest].placed = 1;
        if (layout->offset[largest] + block[largest].size > layout->size)
            layout->size = layout->offset[largest] + block[largest].size;
    }
    for (i = 0; i < model->nodes; i++)
        layout->offset[i] = layout->offset[block[i].root];
}

static void ptq__lay_keeping(const ptq_model *model, ptq__layout *layout)
{
    int i;
    for (i = 0; i < model->nodes; i++) {
        size_t bytes = ptq__node_bytes(&model->node[i]);
        layout->offset[i] = layout->size;
        layout->mid[i] = layout->size + bytes;
        layout->size += model->node[i].residual ? 2 * bytes : bytes;
    }
}

static ptq_status ptq__lay_out(ptq_plan *plan, ptq_error *err)
{
    const ptq_model *model = plan->model;
    size_t n = (size_t)model->nodes, scratch = 0, bytes;
    void *memory = NULL;
    uint64_t sum = 0;
    int i, k;
    for (i = 0; i < model->nodes; i++) {
        sum += 2 * (uint64_t)ptq__node_bytes(&model->node[i]);
        bytes = ptq__step_scratch(&plan->step[i]);
        scratch = bytes > scratch ? bytes : scratch;
    }
    if (sum + scratch > SIZE_MAX / 4)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "the activations do not fit into memory");
    for (k = 0; k < PTQ__LAYOUTS; k++) {
        PTQ__TRY(ptq__alloc(&plan->allocator, 2 * n, sizeof(size_t), "layout", &memory, err));
        plan->layout[k].offset = (size_t *)memory;
        plan->layout[k].mid = plan->layout[k].offset + n;
    }
    PTQ__TRY(ptq__alloc(&plan->allocator, n, sizeof(ptq__block), "layout", &memory, err));
    ptq__lay_reusing(model, (ptq__block *)memory, &plan->layout[PTQ__REUSE]);
    ptq__free(&plan->allocator, memory);
    ptq__lay_keeping(model, &plan->layout[PTQ__KEEP]);
    for (k = 0; k < PTQ__LAYOUTS; k++) {
        plan->layout[k].scratch = plan->layout[k].size;
        plan->layout[k].size += ptq__align(scratch);
    }
    return PTQ_OK;
}

static ptq_status ptq__make_steps(ptq_plan *plan, ptq_error *err)
{
    const ptq_model *model = plan->model;
    void *memory = NULL;
    int i;
    PTQ__TRY(ptq__alloc(&plan->allocator, (size_t)model->nodes, sizeof(ptq__step), "plan", &memory,
                        err));
    plan->step = (ptq__step *)memory;
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        plan->step[i].node = node;
        plan->step[i].index = i;
        plan->step[i].in = node->input[0] >= 0 ? model->node[node->input[0]].shape : node->shape;
        ptq__choose_kernel(&plan->step[i]);
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_plan_create(const ptq_model *model, const ptq_plan_options *options,
                                   ptq_plan **out, ptq_error *err)
{
    void *memory = NULL;
    ptq_plan *plan;
    ptq_isa isa = options ? options->isa : PTQ_ISA_AUTO;
    ptq_status status;
    if (!ptq_isa_available(isa))
        return ptq_error_set(err, PTQ_UNSUPPORTED, "instruction set '%s' is not available here",
                             ptq_isa_name(isa));
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__TRY(ptq__alloc(options ? &options->allocator : NULL, 1, sizeof(ptq_plan), "plan", &memory,
                        err));
    plan = (ptq_plan *)memory;
    plan->allocator = ptq__allocator(options ? &options->allocator : NULL);
    plan->model = model;
    plan->isa = isa == PTQ_ISA_AUTO ? PTQ_ISA_SCALAR : isa;
    plan->logits = ptq_model_logits(model);
    status = ptq__make_steps(plan, err);
    if (!status)
        status = ptq__lay_out(plan, err);
    if (status)
        ptq_plan_free(plan);
    else
        *out = plan;
    return status;
}

PTQ_API void ptq_plan_free(ptq_plan *plan)
{
    ptq_allocator allocator;
    int k;
    if (!plan)
        return;
    allocator = plan->allocator;
    for (k = 0; k < PTQ__LAYOUTS; k++)
        ptq__free(&allocator, plan->layout[k].offset);
    ptq__free(&allocator, plan->step);
    ptq__free(&allocator, plan);
}

PTQ_API const ptq_model *ptq_plan_model(const ptq_plan *plan)
{
    return plan->model;
}

PTQ_API ptq_isa ptq_plan_isa(const ptq_plan *plan)
{
    return plan->isa;
}

PTQ_API int ptq_plan_classes(const ptq_plan *plan)
{
    return (int)ptq__shape_elements(3, plan->model->node[plan->logits].shape);
}

PTQ_API size_t ptq_plan_pixels(const ptq_plan *plan)
{
    return ptq__shape_elements(3, plan->model->node[0].shape);
}

PTQ_API size_t ptq_plan_arena_bytes(const ptq_plan *plan)
{
    return plan->layout[PTQ__REUSE].size;
}

/* ---- [SESSION] --------------------------------------------------------------------------- */

struct ptq_session {
    const ptq_plan *plan;
    char *arena;
    void *owned; /* memory from the allocator */
    int keep;
    int has_run;
    ptq_allocator allocator;
};

static const ptq__layout *ptq__session_layout(const ptq_plan *plan, int keep)
{
    return &plan->layout[keep ? PTQ__KEEP : PTQ__REUSE];
}

/* The session and its arena, and room to align both. */
PTQ_API size_t ptq_session_bytes(const ptq_plan *plan, const ptq_session_options *options)
{
    return ptq__align(sizeof(ptq_session)) +
           ptq__session_layout(plan, options && options->keep)->size + PTQ__ALIGN;
}

PTQ_API ptq_status ptq_session_create(const ptq_plan *plan, const ptq_session_options *options,
                                      ptq_session **out, ptq_error *err)
{
    size_t size = ptq_session_bytes(plan, options);
    void *memory = options ? options->memory : NULL, *owned = NULL;
    ptq_session *session;
    if (memory && options->memory_size < size)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "the session needs %z bytes, given are %z",
                             size, options->memory_size);
    if (!memory) {
        PTQ__TRY(ptq__alloc(options ? &options->allocator : NULL, size, 1, "session", &owned, err));
        memory = owned;
    }
    memory = (char *)memory + (PTQ__ALIGN - (uintptr_t)memory % PTQ__ALIGN) % PTQ__ALIGN;
    session = (ptq_session *)memory;
    memset(session, 0, sizeof *session);
    session->plan = plan;
    session->arena = (char *)memory + ptq__align(sizeof *session);
    session->owned = owned;
    session->keep = options && options->keep;
    session->allocator = ptq__allocator(options ? &options->allocator : NULL);
    *out = session;
    return PTQ_OK;
}

PTQ_API void ptq_session_free(ptq_session *session)
{
    ptq_allocator allocator;
    if (!session)
        return;
    allocator = session->allocator;
    ptq__free(&allocator, session->owned);
}

PTQ_API void ptq_preprocess(const ptq_model *model, const uint8_t *pixels, float *out)
{
    const int *shape = model->node[0].shape;
    int i, c, n = shape[0] * shape[1], channels = shape[2];
    for (i = 0; i < n; i++)
        for (c = 0; c < channels; c++)
            *out++ = c < PTQ_MAX_PIXEL_CHANNELS
                         ? ((float)*pixels++ - model->mean[c]) / model->std[c]
                         : (float)*pixels++;
}

PTQ_API int ptq_argmax(const float *values, int n)
{
    int i, best = 0;
    for (i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* One image, from the tensor of node 0. Steps behind the logits (a softmax) run only where they are
   kept. */
static void ptq__run_image(ptq_session *session, const void *input, float *logits,
                           float *probabilities)
{
    const ptq_plan *plan = session->plan;
    ptq__frame frame;
    int i, last = session->keep ? plan->model->nodes - 1 : plan->logits;
    int classes = ptq_plan_classes(plan);
    const float *result;
    frame.layout = ptq__session_layout(plan, session->keep);
    frame.input = input;
    frame.arena = session->arena;
    frame.keep = session->keep;
    for (i = 1; i <= last; i++)
        plan->step[i].run(&plan->step[i], &frame);
    result = (const float *)ptq__out(&plan->step[plan->logits], &frame);
    if (logits)
        memcpy(logits, result, (size_t)classes * sizeof(float));
    if (probabilities)
        ptq__softmax(result, probabilities, classes);
    session->has_run = 1;
}

static float *ptq__input_buffer(const ptq_session *session)
{
    return (float *)(void *)(session->arena +
                             ptq__session_layout(session->plan, session->keep)->offset[0]);
}

PTQ_API ptq_status ptq_run(ptq_session *session, const uint8_t *pixels, size_t count, float *logits,
                           float *probabilities, ptq_error *err)
{
    size_t i, n = ptq_plan_pixels(session->plan);
    size_t classes = (size_t)ptq_plan_classes(session->plan);
    float *input = ptq__input_buffer(session);
    if (!pixels && count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "no pixels are given");
    for (i = 0; i < count; i++) {
        ptq_preprocess(session->plan->model, pixels + i * n, input);
        ptq__run_image(session, input, logits ? logits + i * classes : NULL,
                       probabilities ? probabilities + i * classes : NULL);
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_run_f32(ptq_session *session, const float *input, size_t count,
                               float *logits, float *probabilities, ptq_error *err)
{
    size_t i, n = ptq_plan_pixels(session->plan);
    size_t classes = (size_t)ptq_plan_classes(session->plan);
    float *buffer = ptq__input_buffer(session);
    if (!input && count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "no input is given");
    for (i = 0; i < count; i++) {
        if (session->keep)
            memcpy(buffer, input + i * n, n * sizeof(float));
        ptq__run_image(session, session->keep ? buffer : input + i * n,
                       logits ? logits + i * classes : NULL,
                       probabilities ? probabilities + i * classes : NULL);
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_session_tensor(const ptq_session *session, const char *name,
                                      ptq_tensor *view, ptq_error *err)
{
    const ptq_plan *plan = session->plan;
    const ptq__layout *layout = ptq__session_layout(plan, session->keep);
    int i = ptq_model_find(plan->model, name);
    const ptq_node *node = i < 0 ? NULL : &plan->model->node[i];
    size_t offset;
    if (!session->keep || !session->has_run)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "tensor %s: the session must be made with `keep`, and have run", name);
    if (!node)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "there is no tensor named %s",
                             ptq__quoted(ptq__span_of(name)).text);
    offset = node->residual && strcmp(name, node->out) ? layout->mid[i] : layout->offset[i];
    return ptq_tensor_borrow(view, PTQ_F32, 32, 3, node->shape, session->arena + offset,
                             ptq__node_bytes(node), err);
}

/* ---- [DATA] ------------------------------------------------------------------------------ */

struct ptq_cifar10 {
    uint8_t *records;
    size_t count;
    ptq_allocator allocator;
};

enum { PTQ__CIFAR_SIDE = 32, PTQ__CIFAR_PIXELS = 1024 };

PTQ_API const char *const *ptq_cifar10_class_names(void)
{
    static const char *const names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                        "dog",      "frog",       "horse", "ship", "truck"};
    return names;
}

/* Appends the records of one file, checked. `where` names it in errors. */
static ptq_status ptq__cifar_append(ptq_cifar10 *data, const void *bytes, size_t size,
                                    const char *where, ptq_error *err)
{
    const uint8_t *records = (const uint8_t *)bytes;
    size_t count = size / PTQ_CIFAR10_RECORD, i;
    void *larger = NULL;
    if (!size)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: empty; a record has %d bytes", where,
                             PTQ_CIFAR10_RECORD);
    if (size % PTQ_CIFAR10_RECORD)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: %z bytes are no whole number of records of %d; truncated, or not"
                             " CIFAR-10's binary version", where, size, PTQ_CIFAR10_RECORD);
    for (i = 0; i < count; i++)
        if (records[i * PTQ_CIFAR10_RECORD] > 9)
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "%s: record %z has label %d, labels are 0 to 9; not CIFAR-10's"
                                 " binary version?", where, i, records[i * PTQ_CIFAR10_RECORD]);
    PTQ__TRY(ptq__alloc(&data->allocator, data->count + count, PTQ_CIFAR10_RECORD, where, &larger,
                        err));
    if (data->count)
        memcpy(larger, data->records, data->count * PTQ_CIFAR10_RECORD);
    memcpy((uint8_t *)larger + data->count * PTQ_CIFAR10_RECORD, bytes, size);
    ptq__free(&data->allocator, data->records);
    data->records = (uint8_t *)larger;
    data->count += count;
    return PTQ_OK;
}

static ptq_status ptq__cifar_create(const ptq_allocator *allocator, ptq_cifar10 **out,
                                    ptq_error *err)
{
    void *memory = NULL;
    PTQ__TRY(ptq__alloc(allocator, 1, sizeof(ptq_cifar10), "data set", &memory, err));
    *out = (ptq_cifar10 *)memory;
    (*out)->allocator = ptq__allocator(allocator);
    return PTQ_OK;
}

PTQ_API void ptq_cifar10_free(ptq_cifar10 *data)
{
    ptq_allocator allocator;
    if (!data)
        return;
    allocator = data->allocator;
    ptq__free(&allocator, data->records);
    ptq__free(&allocator, data);
}

PTQ_API ptq_status ptq_cifar10_parse(const void *bytes, size_t size, const ptq_allocator *allocator,
                                     ptq_cifar10 **out, ptq_error *err)
{
    ptq_cifar10 *data = NULL;
    ptq_status status;
    PTQ__TRY(ptq__cifar_create(allocator, &data, err));
    status = ptq__cifar_append(data, bytes, size, "CIFAR-10 data", err);
    if (status)
        ptq_cifar10_free(data);
    else
        *out = data;
    return status;
}

#ifndef PTQ_NO_STDIO

enum { PTQ__PATH_SIZE = 1024 };

/* Opens `directory/part`, or returns NULL. */
static FILE *ptq__open_in(const char *directory, const char *part, char *path)
{
    ptq__text text = ptq__text_over(path, PTQ__PATH_SIZE);
    ptq__put(&text, "%s/%s", directory, part);
    return text.length < PTQ__PATH_SIZE ? fopen(path, "rb") : NULL;
}

static int ptq__exists_in(const char *directory, const char *part)
{
    char path[PTQ__PATH_SIZE];
    FILE *file = ptq__open_in(directory, part, path);
    if (file)
        fclose(file);
    return file != NULL;
}

/* Nothing of the binary version was found: says what is there instead. */
static ptq_status ptq__cifar_wrong(const char *path, const char *wanted, ptq_error *err)
{
    static const char *const sign[][2] = {
        {"data_batch_1", "the Python version of CIFAR-10; get the binary version"},
        {"test_batch", "the Python version of CIFAR-10; get the binary version"},
        {"data_batch_1.mat", "the Matlab version of CIFAR-10; get the binary version"},
        {"test_batch.mat", "the Matlab version of CIFAR-10; get the binary version"},
        {"cifar-10-batches-bin/test_batch.bin", "the folder above; add /cifar-10-batches-bin"},
        {"cifar-10-batches-bin/data_batch_1.bin", "the folder above; add /cifar-10-batches-bin"},
        {"cifar-10-binary.tar.gz", "an archive not unpacked yet; run tar -xzf on it"},
        {"cifar-10-python.tar.gz", "the Python version's archive; get the binary version"},
        {"cifar-10-matlab.tar.gz", "the Matlab version's archive; get the binary version"},
        {"data_batch_1.bin", "CIFAR-10's training files but not the file asked for"},
        {"test_batch.bin", "CIFAR-10's test file but not the file asked for"},
    };
    size_t i;
    for (i = 0; i < sizeof sign / sizeof sign[0]; i++)
        if (ptq__exists_in(path, sign[i][0]))
            return ptq_error_set(err, PTQ_BAD_DATA, "%s: no %s there; this is %s", path, wanted,
                                 sign[i][1]);
    return ptq_error_set(err, PTQ_IO_ERROR,
                         "%s: no %s there, and nothing else of CIFAR-10; name the folder"
                         " cifar-10-batches-bin of the binary version", path, wanted);
}

static ptq_status ptq__cifar_load(ptq_cifar10 *data, const char *path, ptq_error *err)
{
    void *bytes = NULL;
    size_t size = 0;
    ptq_status status;
    PTQ__TRY(ptq_file_read(path, 0, &data->allocator, &bytes, &size, err));
    status = ptq__cifar_append(data, bytes, size, path, err);
    ptq__free(&data->allocator, bytes);
    return status;
}

/* The files of a directory, in numeric order. */
static ptq_status ptq__cifar_directory(ptq_cifar10 *data, const char *path, ptq_split split,
                                       ptq_error *err)
{
    char part[32], full[PTQ__PATH_SIZE];
    int i, files = 0, last = split == PTQ_TRAIN_SET ? 99 : 1;
    for (i = 1; i <= last; i++) {
        ptq__text text = ptq__text_over(part, sizeof part);
        FILE *file;
        if (split == PTQ_TRAIN_SET)
            ptq__put(&text, "data_batch_%d.bin", i);
        else
            ptq__put_string(&text, "test_batch.bin");
        file = ptq__open_in(path, part, full);
        if (!file)
            continue;
        fclose(file);
        files++;
        PTQ__TRY(ptq__cifar_load(data, full, err));
    }
    if (!files)
        return ptq__cifar_wrong(
            path, split == PTQ_TRAIN_SET ? "data_batch_1.bin" : "test_batch.bin", err);
    return PTQ_OK;
}

/* A regular file, as far as the C library can tell: a directory opens but does not read. */
static int ptq__is_file(const char *path)
{
    size_t n = strlen(path);
    FILE *file = fopen(path, "rb");
    int readable = 0;
    if (file) {
        (void)fgetc(file);
        readable = !ferror(file);
        fclose(file);
    }
    return readable || (n > 4 && !strcmp(path + n - 4, ".bin"));
}

PTQ_API ptq_status ptq_cifar10_open(const char *path, ptq_split split,
                                    const ptq_allocator *allocator, ptq_cifar10 **out,
                                    ptq_error *err)
{
    ptq_cifar10 *data = NULL;
    ptq_status status;
    PTQ__TRY(ptq__cifar_create(allocator, &data, err));
    status = ptq__is_file(path) ? ptq__cifar_load(data, path, err)
                                : ptq__cifar_directory(data, path, split, err);
    if (status)
        ptq_cifar10_free(data);
    else
        *out = data;
    return status;
}

#endif /* PTQ_NO_STDIO */

/* Planes to interleaved channels. */
static ptq_status ptq__cifar_get(void *user, size_t index, uint8_t *pixels, int *label,
                                 ptq_error *err)
{
    const ptq_cifar10 *data = (const ptq_cifar10 *)user;
    const uint8_t *record;
    int i, c;
    if (index >= data->count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "image %z of %z", index, data->count);
    record = data->records + index * PTQ_CIFAR10_RECORD;
    *label = record[0];
    for (i = 0; i < PTQ__CIFAR_PIXELS; i++)
        for (c = 0; c < 3; c++)
            pixels[i * 3 + c] = record[1 + c * PTQ__CIFAR_PIXELS + i];
    return PTQ_OK;
}

PTQ_API ptq_dataset ptq_cifar10_dataset(const ptq_cifar10 *data)
{
    ptq_dataset set;
    memset(&set, 0, sizeof set);
    set.count = data ? data->count : 0;
    set.height = set.width = PTQ__CIFAR_SIDE;
    set.channels = 3;
    set.classes = 10;
    set.get = ptq__cifar_get;
    set.user = (void *)(uintptr_t)data; /* only ever read */
    set.class_name = ptq_cifar10_class_names();
    return set;
}

PTQ_API uint32_t ptq_rng_next(ptq_rng *rng)
{
    uint64_t old = rng->state;
    uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27), rotation = (uint32_t)(old >> 59);
    rng->state = old * 6364136223846793005u + rng->increment;
    return (shifted >> rotation) | (shifted << ((32 - rotation) & 31));
}

PTQ_API void ptq_rng_seed(ptq_rng *rng, uint64_t seed, uint64_t stream)
{
    rng->state = 0;
    rng->increment = stream << 1 | 1;
    ptq_rng_next(rng);
    rng->state += seed;
    ptq_rng_next(rng);
}

/* Numbers under 2^32 mod bound are drawn again: the rest divide evenly. */
PTQ_API uint32_t ptq_rng_below(ptq_rng *rng, uint32_t bound)
{
    uint32_t threshold = ((uint32_t)0 - bound) % bound, value;
    do
        value = ptq_rng_next(rng);
    while (value < threshold);
    return value % bound;
}

PTQ_API float ptq_rng_float(ptq_rng *rng)
{
    return (float)(ptq_rng_next(rng) >> 8) * (1.0f / 16777216.0f);
}

/* Image size and label range of a data set, before it is relied upon. */
static ptq_status ptq__check_dataset(const ptq_dataset *data, ptq_error *err)
{
    if (!data->count)
        return ptq_error_set(err, PTQ_BAD_DATA, "the data set has no images");
    if (!data->get || data->height < 1 || data->width < 1 || data->channels < 1 ||
        data->classes < 1)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "the data set is incomplete: images of %dx%dx%d, %d classes",
                             data->height, data->width, data->channels, data->classes);
    return PTQ_OK;
}

/* All labels, checked. */
static ptq_status ptq__read_labels(const ptq_dataset *data, int *labels,
                                   const ptq_allocator *allocator, ptq_error *err)
{
    size_t i, bytes = (size_t)data->height * (size_t)data->width * (size_t)data->channels;
    void *pixels = NULL;
    ptq_status status;
    PTQ__TRY(ptq__alloc(allocator, bytes, 1, "an image", &pixels, err));
    status = PTQ_OK;
    for (i = 0; i < data->count && !status; i++) {
        status = data->get(data->user, i, (uint8_t *)pixels, &labels[i], err);
        if (!status && (labels[i] < 0 || labels[i] >= data->classes))
            status = ptq_error_set(err, PTQ_BAD_DATA, "image %z has label %d of %d classes", i,
                                   labels[i], data->classes);
    }
    ptq__free(allocator, pixels);
    return status;
}

/* Marks `want` images of one class in `chosen`. `pool` has room for all images. */
static ptq_status ptq__sample_class(const ptq_dataset *data, const int *labels, int label,
                                    size_t want, uint64_t seed, size_t *pool, uint8_t *chosen,
                                    ptq_error *err)
{
    ptq_rng rng;
    size_t i, n = 0;
    for (i = 0; i < data->count; i++)
        if (labels[i] == label)
            pool[n++] = i;
    if (n < want) {
        if (data->class_name)
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "class %s has %z images, %z are needed; ask for fewer",
                                 data->class_name[label], n, want);
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "class %d has %z images, %z are needed; ask for fewer", label, n,
                             want);
    }
    ptq_rng_seed(&rng, seed, (uint64_t)label);
    for (i = 0; i < want; i++) {
        size_t k = i + ptq_rng_below(&rng, (uint32_t)(n - i)), swap = pool[i];
        pool[i] = pool[k];
        pool[k] = swap;
        chosen[pool[i]] = 1;
    }
    return PTQ_OK;
}

/* Memory of ptq_sample: labels, a pool of indices, marks. */
typedef struct ptq__sampler {
    void *labels, *pool, *chosen;
} ptq__sampler;

static ptq_status ptq__sample_all(const ptq_dataset *data, size_t count, uint64_t seed,
                                  ptq__sampler *s, const ptq_allocator *allocator, ptq_error *err)
{
    size_t each = count / (size_t)data->classes, rest = count % (size_t)data->classes;
    int c;
    PTQ__TRY(ptq__alloc(allocator, data->count, sizeof(int), "labels", &s->labels, err));
    PTQ__TRY(ptq__alloc(allocator, data->count, sizeof(size_t), "sampling", &s->pool, err));
    PTQ__TRY(ptq__alloc(allocator, data->count, 1, "sampling", &s->chosen, err));
    PTQ__TRY(ptq__read_labels(data, (int *)s->labels, allocator, err));
    for (c = 0; c < data->classes; c++)
        PTQ__TRY(ptq__sample_class(data, (int *)s->labels, c, each + ((size_t)c < rest), seed,
                                   (size_t *)s->pool, (uint8_t *)s->chosen, err));
    return PTQ_OK;
}

PTQ_API ptq_status ptq_sample(const ptq_dataset *data, size_t count, uint64_t seed, size_t *indices,
                              const ptq_allocator *allocator, ptq_error *err)
{
    ptq__sampler s = {NULL, NULL, NULL};
    ptq_status status;
    size_t i;
    PTQ__TRY(ptq__check_dataset(data, err));
    if (!count || count > data->count || data->count > UINT32_MAX)
        return ptq_error_set(err, PTQ_BAD_DATA, "cannot sample %z of %z images", count,
                             data->count);
    status = ptq__sample_all(data, count, seed, &s, allocator, err);
    for (i = 0; i < data->count && !status; i++)
        if (((uint8_t *)s.chosen)[i])
            *indices++ = i;
    ptq__free(allocator, s.labels);
    ptq__free(allocator, s.pool);
    ptq__free(allocator, s.chosen);
    return status;
}

static ptq_status ptq__subset_get(void *user, size_t index, uint8_t *pixels, int *label,
                                  ptq_error *err)
{
    const ptq_subset *subset = (const ptq_subset *)user;
    return subset->base.get(subset->base.user, subset->indices[index], pixels, label, err);
}

PTQ_API ptq_dataset ptq_subset_dataset(const ptq_subset *subset, size_t count)
{
    ptq_dataset set = subset->base;
    set.count = count;
    set.get = ptq__subset_get;
    set.user = (void *)(uintptr_t)subset; /* only ever read */
    return set;
}

/* ---- [METRICS] --------------------------------------------------------------------------- */

/* Work that threads share: images are handed out in small runs, so that no thread waits long. */
typedef struct ptq__job {
    const ptq_plan *plan;
    const ptq_dataset *data;
    ptq_evaluation *result;
    ptq_progress progress;
    void *user;
    size_t next, done;
    ptq_status status; /* the first failure stops all */
    ptq_error error;
#ifdef PTQ_THREADS
    pthread_mutex_t lock;
#endif
} ptq__job;

#ifdef PTQ_THREADS
static void ptq__lock(ptq__job *job)
{
    pthread_mutex_lock(&job->lock);
}
static void ptq__unlock(ptq__job *job)
{
    pthread_mutex_unlock(&job->lock);
}
#else
static void ptq__lock(ptq__job *job)
{
    (void)job;
}
static void ptq__unlock(ptq__job *job)
{
    (void)job;
}
#endif

/* Takes the next images; 0 when there are none or the work has stopped. */
static size_t ptq__job_take(ptq__job *job, size_t finished, size_t *first)
{
    const size_t run = 16;
    size_t left, n;
    ptq__lock(job);
    job->done += finished;
    left = job->status ? 0 : job->result->total - job->next;
    n = left < run ? left : run;
    *first = job->next;
    job->next += n;
    ptq__unlock(job);
    return n;
}

static void ptq__job_fail(ptq__job *job, ptq_status status, const ptq_error *error)
{
    ptq__lock(job);
    if (!job->status) {
        job->status = status;
        job->error = *error;
    }
    ptq__unlock(job);
}

static ptq_status ptq__evaluate_one(ptq__job *job, ptq_session *session, uint8_t *pixels,
                                    size_t index, ptq_error *err)
{
    ptq_evaluation *result = job->result;
    float *logits = result->logits + index * (size_t)result->classes;
    PTQ__TRY(job->data->get(job->data->user, index, pixels, &result->label[index], err));
    if (result->label[index] < 0 || result->label[index] >= result->classes)
        return ptq_error_set(err, PTQ_BAD_DATA, "image %z has label %d of %d classes", index,
                             result->label[index], result->classes);
    PTQ__TRY(ptq_run(session, pixels, 1, logits, NULL, err));
    result->prediction[index] = ptq_argmax(logits, result->classes);
    return PTQ_OK;
}

/* Tells the caller how far the work is; only on the calling thread. */
static ptq_status ptq__job_report(ptq__job *job, int is_caller, ptq_error *err)
{
    size_t done;
    if (!is_caller || !job->progress)
        return PTQ_OK;
    ptq__lock(job);
    done = job->done;
    ptq__unlock(job);
    if (job->progress(job->user, done, job->result->total))
        return ptq_error_set(err, PTQ_CANCELLED, "cancelled after %z of %z images", done,
                             job->result->total);
    return PTQ_OK;
}

static ptq_status ptq__job_loop(ptq__job *job, ptq_session *session, uint8_t *pixels, int is_caller,
                                ptq_error *err)
{
    size_t i, first, n = 0;
    while ((n = ptq__job_take(job, n, &first)) > 0) {
        for (i = 0; i < n; i++)
            PTQ__TRY(ptq__evaluate_one(job, session, pixels, first + i, err));
        PTQ__TRY(ptq__job_report(job, is_caller, err));
    }
    return PTQ_OK;
}

/* What each thread does, with a session of its own. */
static void ptq__job_work(ptq__job *job, int is_caller)
{
    const ptq_allocator *allocator = &job->result->allocator;
    ptq_session_options options;
    ptq_session *session = NULL;
    void *pixels = NULL;
    ptq_error error;
    ptq_status status;
    memset(&options, 0, sizeof options);
    options.allocator = *allocator;
    status = ptq_session_create(job->plan, &options, &session, &error);
    if (!status)
        status = ptq__alloc(allocator, ptq_plan_pixels(job->plan), 1, "an image", &pixels, &error);
    if (!status)
        status = ptq__job_loop(job, session, (uint8_t *)pixels, is_caller, &error);
    if (status)
        ptq__job_fail(job, status, &error);
    ptq__free(allocator, pixels);
    ptq_session_free(session);
}

#ifdef PTQ_THREADS

static void *ptq__job_thread(void *job)
{
    ptq__job_work((ptq__job *)job, 0);
    return NULL;
}

/* The calling thread works too. A thread that cannot be started leaves its work to the others. */
static void ptq__job_run(ptq__job *job, int threads)
{
    pthread_t thread[64];
    int i, started = 0;
    if (threads > 64)
        threads = 64;
    pthread_mutex_init(&job->lock, NULL);
    while (started < threads - 1 &&
           pthread_create(&thread[started], NULL, ptq__job_thread, job) == 0)
        started++;
    ptq__job_work(job, 1);
    for (i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_mutex_destroy(&job->lock);
}

#else

static void ptq__job_run(ptq__job *job, int threads)
{
    (void)threads;
    ptq__job_work(job, 1);
}

#endif

static ptq_status ptq__evaluation_create(ptq_evaluation *result, size_t total, int classes,
                                         ptq_error *err)
{
    const ptq_allocator *allocator = &result->allocator;
    size_t n = (size_t)classes;
    void *memory = NULL;
    result->total = total;
    result->classes = classes;
    if (n > 46340 || total > SIZE_MAX / sizeof(float) / n)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "%z images of %d classes are too many", total,
                             classes);
    PTQ__TRY(ptq__alloc(allocator, 2 * n + n * n, sizeof(size_t), "counts", &memory, err));
    result->class_total = (size_t *)memory;
    result->class_correct = result->class_total + n;
    result->confusion = result->class_correct + n;
    PTQ__TRY(ptq__alloc(allocator, total, 2 * sizeof(int), "predictions", &memory, err));
    result->label = (int *)memory;
    result->prediction = result->label + total;
    PTQ__TRY(ptq__alloc(allocator, total * n, sizeof(float), "logits", &memory, err));
    result->logits = (float *)memory;
    return PTQ_OK;
}

static void ptq__evaluation_count(ptq_evaluation *result)
{
    size_t i;
    for (i = 0; i < result->total; i++) {
        int label = result->label[i], prediction = result->prediction[i];
        result->class_total[label]++;
        result->class_correct[label] += label == prediction;
        result->correct += label == prediction;
        result->confusion[label * result->classes + prediction]++;
    }
}

static ptq_status ptq__check_evaluation(const ptq_plan *plan, const ptq_dataset *data,
                                        ptq_error *err)
{
    const int *shape = ptq_plan_model(plan)->node[0].shape;
    PTQ__TRY(ptq__check_dataset(data, err));
    if (data->height != shape[0] || data->width != shape[1] || data->channels != shape[2])
        return ptq_error_set(err, PTQ_BAD_DATA, "the images are %dx%dx%d, the model takes %dx%dx%d",
                             data->height, data->width, data->channels, shape[0], shape[1],
                             shape[2]);
    if (data->classes != ptq_plan_classes(plan))
        return ptq_error_set(err, PTQ_BAD_DATA, "the data have %d classes, the model has %d",
                             data->classes, ptq_plan_classes(plan));
    return PTQ_OK;
}

PTQ_API ptq_status ptq_evaluate(const ptq_plan *plan, ptq_dataset data,
                                const ptq_evaluate_options *options, ptq_evaluation *out,
                                ptq_error *err)
{
    ptq_evaluation result;
    ptq__job job;
    ptq_status status;
    size_t total = data.count;
    PTQ__TRY(ptq__check_evaluation(plan, &data, err));
    memset(&result, 0, sizeof result);
    memset(&job, 0, sizeof job);
    if (options) {
        total = options->limit && options->limit < total ? options->limit : total;
        result.allocator = options->allocator;
        job.progress = options->progress;
        job.user = options->user;
    }
    status = ptq__evaluation_create(&result, total, data.classes, err);
    if (!status) {
        job.plan = plan;
        job.data = &data;
        job.result = &result;
        ptq__job_run(&job, options && options->threads > 1 ? options->threads : 1);
        status = job.status;
        if (status)
            ptq_error_set(err, status, "%s", job.error.text);
    }
    if (status) {
        ptq_evaluation_free(&result);
        return status;
    }
    ptq__evaluation_count(&result);
    *out = result;
    return PTQ_OK;
}

PTQ_API void ptq_evaluation_free(ptq_evaluation *evaluation)
{
    ptq_allocator allocator;
    if (!evaluation)
        return;
    allocator = evaluation->allocator;
    ptq__free(&allocator, evaluation->class_total);
    ptq__free(&allocator, evaluation->label);
    ptq__free(&allocator, evaluation->logits);
    memset(evaluation, 0, sizeof *evaluation);
}

#endif /* PTQ_IMPLEMENTATION_DONE */
#endif /* PTQ_IMPLEMENTATION */

/*
   HISTORY
     0.1.0  first version: float models

   MIT License

   Copyright (c) 2026 the ptq.h authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute,
   sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
   furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
