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

         int main(void)
         {
             ptq_error e = {PTQ_OK, ""};
             ptq_model *model, *fused, *q;
             ptq_plan *plan, *qplan;
             ptq_cifar10 *train, *test;
             ptq_calibration *calibration;
             static ptq_convert_options options; // zeros: 8 bits, per channel, MinMax
             ptq_evaluation before, after;
             static size_t index[1000];
             ptq_subset images;

             if (ptq_model_load("resnet8.safetensors", NULL, &model, &e) ||
                 ptq_fuse(model, &fused, NULL, &e) || ptq_plan_create(fused, NULL, &plan, &e) ||
                 ptq_cifar10_open("cifar-10-batches-bin", PTQ_SPLIT_TRAIN, NULL, &train, &e) ||
                 ptq_cifar10_open("cifar-10-batches-bin", PTQ_SPLIT_TEST, NULL, &test, &e))
                 return fprintf(stderr, "%s\n", e.text), 1;
             if (ptq_sample(ptq_cifar10_dataset(train), 1000, 42, index, NULL, &e) ||
                 ptq_subset_open(&images, ptq_cifar10_dataset(train), index, 1000, &e) ||
                 ptq_calibrate(plan, &images.dataset, NULL, &calibration, &e) ||
                 ptq_convert(fused, calibration, &options, &q, NULL, &e) ||
                 ptq_plan_create(q, NULL, &qplan, &e) ||
                 ptq_evaluate(plan, ptq_cifar10_dataset(test), NULL, &before, &e) ||
                 ptq_evaluate(qplan, ptq_cifar10_dataset(test), NULL, &after, &e))
                 return fprintf(stderr, "%s\n", e.text), 1;
             printf("float %d, 8-bit integers %d of %d right\n", (int)before.correct,
                    (int)after.correct, (int)after.total);
             return 0;
         }

     prints, with MLPerf Tiny's ResNet8 and 5,000 of CIFAR-10's test images:

         float 4371, 8-bit integers 4363 of 5000 right

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
     - Option structs may be all zeros, or NULL: every zero means the sensible default. (The program
       above uses those; the preset "best" does better, see [SCHEME].)
     - A model does not change while plans use it, and outlives them; a plan outlives its sessions.
       One plan may serve many threads; a session belongs to one thread at a time.

   CONTENTS (search for the tag)
     [CONFIG]    macros                         [SESSION]   running
     [STATUS]    errors, memory                 [DATA]      data sets, CIFAR-10, sampling
     [TENSOR]    arrays of numbers or codes     [OBSERVE]   ranges from data
     [QUANTIZE]  from real numbers to codes     [CALIBRATE] statistics of every tensor
     [GRAPH]     nodes, builder, ResNet8        [SCHEME]    what to quantize how, presets
     [FILE]      safetensors, model files       [CONVERT]   float model to quantized model
     [FUSE]      folding batch norm and others  [METRICS]   evaluation, comparison
     [PLAN]      models made ready to run       [IMPLEMENTATION] follows in the same order

   LIMITS
     One input and one result per graph; 4096 nodes; 2^28 elements in a tensor; kernels up to
     255x255; no dilation. Numbers are little-endian in files, on any machine.

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
     PTQ_MINGW_SIMD       GCC for Windows: do not leave them out, as is done there because GCC takes
                          the stack for more aligned than it is (its bug 54412). For a GCC that is
                          mended, as Debian's, or together with -Wa,-muse-unaligned-vector-move
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

/* How long work is done, the same for every function that takes its time. All zeros are fine. */
typedef struct ptq_work {
    int threads;           /* 0: 1. No result depends on it. More need PTQ_THREADS, else 1 is used;
                              the allocator is then called from all of them */
    ptq_progress progress; /* NULL: nobody watches */
    void *user;            /* for `progress` */
    ptq_allocator allocator;
} ptq_work;

/* ---------------------------------------------------------------------------------------------
   [TENSOR] Arrays of up to four dimensions */

typedef enum ptq_type {
    PTQ_TYPE_F32,      /* IEEE single */
    PTQ_TYPE_F16,      /* IEEE half, storage only */
    PTQ_TYPE_U8,       /* unsigned codes, one a byte */
    PTQ_TYPE_S8,       /* signed codes, one a byte */
    PTQ_TYPE_S32,      /* biases and accumulators */
    PTQ_TYPE_PACKED_U, /* unsigned codes of 2..7 bits, least significant bits first; each slice */
    PTQ_TYPE_PACKED_S  /* along dim[0] (an output channel) starts on a byte. _S: two's complement */
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
    int owned;             /* bit 0: data goes with the tensor; bit 1: scale does */
    float *scale;          /* quantization: 1 or dim[0] scales; NULL if none */
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
   [QUANTIZE] From real numbers to codes */

/* How a tensor of activations is coded. type PTQ_TYPE_F32: not at all, the other fields 0. */
typedef struct ptq_qparams {
    ptq_type type;      /* PTQ_TYPE_U8 or PTQ_TYPE_S8; PTQ_TYPE_F32: real numbers */
    int bits;           /* 2..8: u8 codes are 0..2^bits - 1, s8 codes -2^(bits-1)..2^(bits-1) - 1 */
    float scale;        /* positive, finite, not denormal */
    int32_t zero_point; /* the code of 0, among the codes */
} ptq_qparams;

/* Lowest and highest code. */
PTQ_API void ptq_code_range(ptq_type type, int bits, int32_t *low, int32_t *high);

/* Scale and zero point for values from `low` to `high`, widened to include 0 (Jacob et al. 2018,
   2.1). Symmetric: the zero point is 0 (u8 with negative values: the middle code). An empty range,
   as of a tensor of zeros, gets the scale 1. PTQ_BAD_NUMBER if the range is not finite, or too
   small or too large for a normal scale. */
PTQ_API ptq_status ptq_choose_qparams(float low, float high, ptq_type type, int bits, int symmetric,
                                      ptq_qparams *out, ptq_error *err);

/* clamp(rne(x / scale) + zero_point), rounding half to even; and scale * (code - zero_point). */
PTQ_API int32_t ptq_quantize(float x, const ptq_qparams *q);
PTQ_API float ptq_dequantize(int32_t code, const ptq_qparams *q);

/* The step from an accumulator to a code: clamp(rne((float)acc * multiplier) + zero_point) to
   low..high, every operation in IEEE single precision (ONNX Runtime's QLinearConv). All kernels
   return exactly this. */
PTQ_API int32_t ptq_requantize(int32_t acc, float multiplier, int32_t zero_point, int32_t low,
                               int32_t high);

/* ---------------------------------------------------------------------------------------------
   [GRAPH] Nodes, the builder, ResNet8 */

#define PTQ_NAME_SIZE 64       /* names: 1..63 of A-Z a-z 0-9 _ . */
#define PTQ_MAX_NODES 4096
#define PTQ_MAX_PIXEL_CHANNELS 16
#define PTQ_MAX_KERNEL 255

/* One list makes the operators and their names in the graph text. */
#define PTQ_OP_LIST(X)                                                                             \
    X(PTQ_OP_INPUT, "input")           /* the image                                      */        \
    X(PTQ_OP_CONV2D, "conv2d")         /* y[o] = b[o] + sum over i,u,v of w[o,i,u,v] x   */        \
    X(PTQ_OP_BATCH_NORM, "batch_norm") /* gamma (x - mean) / sqrt(var + epsilon) + beta  */        \
    X(PTQ_OP_RELU, "relu")             /* max(x, 0)                                      */        \
    X(PTQ_OP_RELU6, "relu6")           /* min(max(x, 0), 6)                              */        \
    X(PTQ_OP_ADD, "add")               /* a + b, equal shapes                            */        \
    X(PTQ_OP_MAX_POOL, "max_pool")     /* padding is ignored                             */        \
    X(PTQ_OP_AVG_POOL, "avg_pool")     /* padding counts only with include_pad           */        \
    X(PTQ_OP_GLOBAL_AVG_POOL, "global_avg_pool") /* H x W x C -> 1 x 1 x C               */        \
    X(PTQ_OP_DENSE, "dense")           /* y[o] = b[o] + sum over i of w[o,i] x[i]        */        \
    X(PTQ_OP_SOFTMAX, "softmax")       /* exp(x - max) / sum                             */        \
    X(PTQ_OP_QUANTIZE, "quantize")     /* real numbers to codes                          */        \
    X(PTQ_OP_DEQUANTIZE, "dequantize") /* codes to real numbers                          */

typedef enum ptq_op {
#define PTQ_X(name, text) name,
    PTQ_OP_LIST(PTQ_X)
#undef PTQ_X
    PTQ_OP_COUNT
} ptq_op;

typedef enum ptq_padding {
    PTQ_PADDING_SAME,    /* TensorFlow's: output = ceil(input / stride); an odd row goes to the
                            bottom, an odd column to the right. At stride 2 and even size a 3x3
                            kernel pads bottom and right only */
    PTQ_PADDING_VALID,   /* none */
    PTQ_PADDING_EXPLICIT /* pad[] as given */
} ptq_padding;

typedef enum ptq_activation {
    PTQ_ACTIVATION_NONE,
    PTQ_ACTIVATION_RELU,
    PTQ_ACTIVATION_RELU6
} ptq_activation;

/* Which operand of a fused residual addition is the residual. The order matters to the last bit of
   a quantized addition. */
typedef enum ptq_residual {
    PTQ_RESIDUAL_NONE,
    PTQ_RESIDUAL_FIRST,
    PTQ_RESIDUAL_SECOND
} ptq_residual;

/* The parameters of a node, as index into ptq_node.param. */
enum { PTQ_PARAM_WEIGHT, PTQ_PARAM_BIAS, PTQ_PARAM_MEAN, PTQ_PARAM_VARIANCE, PTQ_PARAM_COUNT };

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
    int channels;             /* convolution and dense: of the result */
    int groups;               /* input and output channels are split alike; C = depthwise */
    int no_bias;              /* convolution and dense */
    int include_pad;          /* average pool: divide by the kernel area, not by the taps inside */
    float epsilon;            /* batch norm */
    ptq_activation act;       /* fused behind convolution, dense or addition */
    ptq_residual residual;    /* convolution: input[1] is added after `act` ... */
    ptq_activation add_act;   /* ... and this comes last */
    ptq_qparams q;            /* how the result is coded; type PTQ_TYPE_F32: real numbers */
    ptq_qparams mid;          /* the result before a fused addition, likewise */
    int dynamic;              /* integer weights on real inputs, whose range is found per image */
    ptq_tensor param[PTQ_PARAM_COUNT]; /* rank 0 where there is none. Convolution: weight O,I/g,H,W
                                 and bias O; dense: O,I and O; batch norm: weight = gamma,
                                 bias = beta, mean, variance, all of C. Integer weights carry
                                 their scales, and go with an S32 bias of scale s_in * s_w */
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
    int pad[4];                   /* top, left, bottom, right, for PTQ_PADDING_EXPLICIT */
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

/* The borders between real numbers and codes, for those who build quantized models node by node;
   ptq_convert sets them itself. The codes of other nodes are set in ptq_node.q. */
PTQ_API int ptq_add_quantize(ptq_model *model, const char *name, int input, const ptq_qparams *q);
PTQ_API int ptq_add_dequantize(ptq_model *model, const char *name, int input);

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
   `value` is NULL. "format", "format_version" and "graph" belong to the file format: refused, as
   is what is not UTF-8. */
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
    int taken;         /* 1: a model took the tensor out */
    ptq_tensor tensor; /* F32, F16, U8, I8 (S8), I32 (S32); BF16 and F64 come as F32, F64 rounded. A
                          scalar gets rank 1. Rank 0: another type, no elements, or more than four
                          dimensions; bytes not kept */
} ptq_archive_entry;

typedef struct ptq_archive {
    ptq_archive_entry *entry;
    int entries, capacity;
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

/* An archive to write: entries refer to tensors that stay the caller's until it is written. Texts
   are UTF-8, else PTQ_INVALID_ARGUMENT. */
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
   ResNet8 is taken for one of input size 32, its width and classes read off the shapes; batch-norm
   epsilon 1e-3 as in Keras, unless the metadata has "epsilon". */
PTQ_API ptq_status ptq_model_parse(const void *bytes, size_t size, const ptq_load_options *options,
                                   ptq_model **out, ptq_error *err);
PTQ_API ptq_status ptq_model_write(const ptq_model *model, void **bytes, size_t *size,
                                   ptq_error *err);

#ifndef PTQ_NO_STDIO
/* Models in files. Saving writes a temporary file, `path` with ".ptq-tmp" behind it, and
   renames it, so that `path` holds either the old bytes or the new. What is no ordinary file, such
   as /dev/stdout, is written to as it is. Paths are UTF-8 on Windows, of at most 1023 units in
   UTF-16; elsewhere they are what fopen takes. */
PTQ_API ptq_status ptq_model_load(const char *path, const ptq_load_options *options,
                                  ptq_model **out, ptq_error *err);
PTQ_API ptq_status ptq_model_save(const ptq_model *model, const char *path, ptq_error *err);

/* Whole files, for archives, which are parsed and written as bytes, and for any other format.
   `limit` is the largest size accepted, 0 for none; the bytes are freed with ptq_bytes_free. */
PTQ_API ptq_status ptq_file_read(const char *path, size_t limit, const ptq_allocator *allocator,
                                 void **bytes, size_t *size, ptq_error *err);
PTQ_API ptq_status ptq_file_write(const char *path, const void *bytes, size_t size, ptq_error *err);
#endif

/* ---------------------------------------------------------------------------------------------
   [FUSE] Fewer nodes, the same function */

typedef enum ptq_fusion_kind {
    PTQ_FUSION_BATCH_NORM, /* w' = w g, b' = (b - mean) g + beta, g = gamma / sqrt(var + eps) */
    PTQ_FUSION_ACTIVATION, /* clamps the result before it is stored */
    PTQ_FUSION_RESIDUAL,   /* adds to what lies at the destination */
    PTQ_FUSION_NONE         /* stays a node of its own and still runs; `reason` says why */
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
   double precision and rounded once (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, 3.2).
   Of a model that is quantized already only additions of codes are fused: the codes stay the
   same. */
PTQ_API ptq_status ptq_fuse(const ptq_model *model, ptq_model **out, ptq_fuse_report *report,
                            ptq_error *err);
PTQ_API void ptq_fuse_report_free(ptq_fuse_report *report);

/* ---------------------------------------------------------------------------------------------
   [PLAN] A model made ready for one instruction set */

/* One list makes the instruction sets and the names by which they are forced. */
#define PTQ_ISA_LIST(X)                                                                            \
    X(PTQ_ISA_AUTO, "auto") /* the best that this processor has */                                 \
    X(PTQ_ISA_SCALAR, "scalar")                                                                    \
    X(PTQ_ISA_AVX2, "avx2") /* with FMA */                                                         \
    X(PTQ_ISA_AVXVNNI, "avxvnni")                                                                  \
    X(PTQ_ISA_AVX512, "avx512") /* F, BW, DQ, VL */                                                \
    X(PTQ_ISA_AVX512VNNI, "avx512vnni")                                                            \
    X(PTQ_ISA_AMX, "amx") /* INT8 tiles, and what avx512 needs */                                  \
    X(PTQ_ISA_NEON, "neon")                                                                        \
    X(PTQ_ISA_NEONDOT, "neondot") /* with the dot product of Armv8.2 */                            \
    X(PTQ_ISA_WASM, "wasm")       /* WebAssembly's 128 bits */

typedef enum ptq_isa {
#define PTQ_X(name, text) name,
    PTQ_ISA_LIST(PTQ_X)
#undef PTQ_X
    PTQ_ISA_COUNT
} ptq_isa;

PTQ_API const char *ptq_isa_name(ptq_isa isa);

/* PTQ_ISA_COUNT if there is no such name. */
PTQ_API ptq_isa ptq_isa_find(const char *name);

/* 1 if this build has kernels for it and this processor can run them. Linux lets a process use AMX
   only after it has asked for permission, which happens here (and in ptq_plan_create). */
PTQ_API int ptq_isa_available(ptq_isa isa);

/* 1 if this build has kernels for it, whatever the processor. They are left out by PTQ_NO_SIMD, for
   another kind of processor, and where the compiler is too old for them. */
PTQ_API int ptq_isa_compiled(ptq_isa isa);

/* Compares the kernels of an instruction set with the scalar ones on random networks, the same ones
   every time, in under a tenth of a second: codes must be equal, real numbers close. PTQ_BAD_NUMBER
   names the tensor that differs. */
PTQ_API ptq_status ptq_kernel_self_test(ptq_isa isa, ptq_error *err);

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

/* What a plan is. It stays where it is as long as the plan does. */
typedef struct ptq_plan_info {
    const ptq_model *model; /* that it was made from */
    ptq_isa isa;            /* the instruction set it uses, never PTQ_ISA_AUTO */
    int logits;             /* index of the node whose result is the logits */
    int classes;            /* how many logits there are */
    size_t pixels;          /* elements of one input: H * W * C */
    size_t arena_bytes;     /* of the activations while one image runs */
} ptq_plan_info;
PTQ_API const ptq_plan_info *ptq_plan_get_info(const ptq_plan *plan);

/* The constants that the integer kernels of one node work from, activations applied: for programs
   that write a plan down in another form, such as code for a microcontroller. Codes of operands go
   into an addition as they are, in the order of the graph:
       y = clamp(rne(fma(a, ratio[0], fma(b, ratio[1], shift)))) */
typedef struct ptq_step_info {
    size_t offset;             /* of the result in the arena */
    const float *multiplier;   /* convolution, dense: one for each channel, the plan's; else NULL */
    int32_t low, high;         /* clamp of the result, that before a fused addition */
    float ratio[2], shift;     /* addition, fused or not; else 0 */
    int32_t sum_low, sum_high; /* clamp of the sum */
} ptq_step_info;

/* `node` 1 and on. What does not belong to the node, or to integers, is 0. */
PTQ_API void ptq_plan_step(const ptq_plan *plan, int node, ptq_step_info *out);

/* The multiplier of an integer average pool's sum of (code - zero point) over `taps` elements. */
PTQ_API float ptq_plan_average(const ptq_plan *plan, int node, int taps);

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

/* For timing layers: from now on `after_node` is called while the session runs, for every image
   first with node 0 when the input's tensor is ready, then with each node that ran, in order, when
   its result is there. It must not use the session. NULL ends it. */
PTQ_API void ptq_session_watch(ptq_session *session, void (*after_node)(void *user, int node),
                               void *user);

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

/* The logits as codes, for a model whose last layer has coded results (ptq_scheme.code_logits);
   PTQ_UNSUPPORTED otherwise. And the best class alone. */
PTQ_API ptq_status ptq_run_codes(ptq_session *session, const uint8_t *pixels, size_t count,
                                 int32_t *codes, ptq_error *err);
PTQ_API ptq_status ptq_classify(ptq_session *session, const uint8_t *pixels, size_t count,
                                int *classes, ptq_error *err);

/* For teaching: how one element (y, x, c) of an integer convolution's or dense layer's result came
   about in the last run, which needs `keep`: each product, the accumulator, the multiplier, the
   rounding, the clamp. In the manner of snprintf; the length comes back in `length`. */
PTQ_API ptq_status ptq_explain(const ptq_session *session, const char *node, int y, int x, int c,
                               char *text, size_t size, size_t *length, ptq_error *err);

/* The preprocessing itself, for one image: the function that evaluation and calibration share.
   (pixel - mean[c]) / std[c] in single precision. */
PTQ_API void ptq_preprocess(const ptq_model *model, const uint8_t *pixels, float *out);

/* Index of the largest of n values; the first of equals. */
PTQ_API int ptq_argmax(const float *values, int n);

/* ---------------------------------------------------------------------------------------------
   [DATA] Data sets, CIFAR-10, sampling */

/* Items and labels from anywhere. `get` writes one item, H x W x C with the channels innermost, and
   a label of 0..classes-1, or -1 where there is none; it must be able to serve several threads at
   once and give the same answer for the same index every time. Failures go through ptq_error, see
   ptq_error_set. The struct stays the caller's: it must live as long as it is used. */
typedef struct ptq_dataset {
    size_t count;
    int height, width, channels, classes;
    ptq_type type; /* of an item's elements: PTQ_TYPE_U8, bytes as the model's preprocessing takes
                      them, or PTQ_TYPE_F32 (which is 0), preprocessed real numbers, as for
                      ptq_run_f32 */
    ptq_status (*get)(void *user, size_t index, void *item, int *label, ptq_error *err);
    void *user;
    const char *const *class_name; /* `classes` names, or NULL */
} ptq_dataset;

/* For callbacks: fills `err` (which may be NULL) and returns `status`. Understands %s %d %u
   (unsigned) %z (size_t) %g (double) %%; no widths. */
PTQ_API ptq_status ptq_error_set(ptq_error *err, ptq_status status, const char *format, ...);

#define PTQ_CIFAR10_RECORD 3073 /* label, then 32x32 bytes of red, of green, of blue */
#define PTQ_CLASS_NAME_SIZE 32  /* names of classes: 1..31 bytes without control characters */

typedef struct ptq_cifar10 ptq_cifar10;

typedef enum ptq_split {
    PTQ_SPLIT_TRAIN, /* data_batch_1.bin and on, in numeric order, as many as there are */
    PTQ_SPLIT_TEST   /* test_batch.bin */
} ptq_split;

/* Any number of records from memory, copied. PTQ_BAD_DATA for none, for a truncated last record
   and for labels over 9, with the record's number. */
PTQ_API ptq_status ptq_cifar10_parse(const void *bytes, size_t size, const ptq_allocator *allocator,
                                     ptq_cifar10 **out, ptq_error *err);
#ifndef PTQ_NO_STDIO
/* From the directory of the binary version (https://www.cs.toronto.edu/~kriz/cifar.html), or from
   one .bin file, whatever the split. Says what it found where that is something else: the Python or
   Matlab version, an archive not unpacked, nothing.

   Other data in the same form have a batches.meta.txt beside their .bin files with the names of
   their 1 to 10 classes, one a line, as CIFAR-10 itself has: their number is the number of classes.
   PTQ_BAD_DATA if it holds anything else, or if a label has no name. */
PTQ_API ptq_status ptq_cifar10_open(const char *path, ptq_split split,
                                    const ptq_allocator *allocator, ptq_cifar10 **out,
                                    ptq_error *err);
#endif
PTQ_API void ptq_cifar10_free(ptq_cifar10 *data);

/* The images as a data set, which lives as long as `data` does. The classes have the names that
   were found beside the data, else CIFAR-10's. NULL: CIFAR-10 without images, for its names. */
PTQ_API const ptq_dataset *ptq_cifar10_dataset(const ptq_cifar10 *data);

/* PCG32 (O'Neill 2014, https://www.pcg-random.org): the same numbers everywhere. */
typedef struct ptq_rng {
    uint64_t state, increment;
} ptq_rng;
PTQ_API void ptq_rng_seed(ptq_rng *rng, uint64_t seed, uint64_t stream);
PTQ_API uint32_t ptq_rng_next(ptq_rng *rng);
PTQ_API uint32_t ptq_rng_below(ptq_rng *rng, uint32_t bound); /* unbiased; bound >= 1 */
PTQ_API float ptq_rng_float(ptq_rng *rng);                    /* [0, 1), 24 bits */

/* Chooses `count` items, as many of every class as possible (the first classes get the remainder):
   per class a Fisher-Yates shuffle by PCG32(seed, class) from the front (i swaps with i plus a
   number below what is left), then all in ascending order of index. Items without labels are one
   class. The same data and seed give the same indices everywhere. PTQ_BAD_DATA if a class has too
   few, or if some items have labels and others none. */
PTQ_API ptq_status ptq_sample(const ptq_dataset *data, size_t count, uint64_t seed, size_t *indices,
                              const ptq_allocator *allocator, ptq_error *err);

/* A part of a data set: the items that `indices` names, in that order. Base and indices stay the
   caller's, and must live as long as the subset does, which must not be moved. PTQ_INVALID_ARGUMENT
   for an index beyond the base. */
typedef struct ptq_subset {
    ptq_dataset dataset; /* to be passed on as &subset.dataset */
    const ptq_dataset *base;
    const size_t *indices;
} ptq_subset;
PTQ_API ptq_status ptq_subset_open(ptq_subset *subset, const ptq_dataset *base,
                                   const size_t *indices, size_t count, ptq_error *err);

/* ---------------------------------------------------------------------------------------------
   [OBSERVE] Ranges from data */

#define PTQ_METHOD_LIST(X)                                                                         \
    X(PTQ_METHOD_MINMAX, "minmax")          /* smallest and largest value */                       \
    X(PTQ_METHOD_MOVING_AVERAGE, "average") /* mean over images of each one's extremes */          \
    X(PTQ_METHOD_HISTOGRAM, "histogram")    /* least squared error, by PyTorch's search */         \
    X(PTQ_METHOD_PERCENTILE, "percentile")  /* cuts off a share of the values at either end */     \
    X(PTQ_METHOD_ENTROPY, "entropy")        /* least divergence (Migacz 2017) */                   \
    X(PTQ_METHOD_MSE, "mse")                /* least expected squared error */

typedef enum ptq_method {
#define PTQ_X(name, text) name,
    PTQ_METHOD_LIST(PTQ_X)
#undef PTQ_X
    PTQ_METHOD_COUNT
} ptq_method;

PTQ_API const char *ptq_method_name(ptq_method range);
PTQ_API ptq_method ptq_method_find(const char *name); /* PTQ_METHOD_COUNT if there is none */

#define PTQ_BINS 4096

/* A sum of floats without rounding: fixed point over the whole range of a float, so that the result
   does not depend on the order. Good for 2^31 terms. */
typedef struct ptq_exact_sum {
    int64_t limb[10]; /* base 2^32, least first; unit 2^-149 */
} ptq_exact_sum;

/* All that is kept of a stream of values: a function of the multiset of images alone. Bin b counts
   the values in [(b - 2048) w, (b - 2047) w) with w = 2^exponent, exact zeros aside; w is the
   smallest width at which everything fits. */
typedef struct ptq_statistics {
    uint64_t count, zeros, images;
    float min, max;                /* 0, 0 while count is 0 */
    ptq_exact_sum min_sum, max_sum; /* of each image's smallest and largest */
    int exponent;
    uint64_t *bin;                 /* PTQ_BINS */
} ptq_statistics;

/* One statistics for the whole tensor, or one for each channel. */
typedef struct ptq_observer {
    int channels; /* 1: the whole tensor */
    ptq_statistics *channel;
    ptq_allocator allocator;
} ptq_observer;

PTQ_API ptq_status ptq_observer_create(ptq_observer *observer, int channels,
                                       const ptq_allocator *allocator, ptq_error *err);
PTQ_API void ptq_observer_free(ptq_observer *observer);

/* Looks at one image's tensor of n values; value i belongs to channel i % channels. PTQ_BAD_NUMBER,
   and nothing changed, if one is NaN or infinite. */
PTQ_API ptq_status ptq_observe(ptq_observer *observer, const float *values, size_t n,
                               ptq_error *err);

/* The range that a rule chooses for codes of this type. `percentile` (50 < p <= 100, 0: 99.99) is
   the share in percent kept at either end, for PTQ_METHOD_PERCENTILE. The range includes 0.
   PTQ_NOT_READY if nothing was observed. */
PTQ_API ptq_status ptq_observer_range(const ptq_observer *observer, int channel, ptq_method method,
                                      float percentile, ptq_type type, int bits, int symmetric,
                                      float *low, float *high, ptq_error *err);

/* Share of the observed values that lie outside low..high: what coding them would clip. */
PTQ_API double ptq_observer_clipped(const ptq_observer *observer, int channel, float low,
                                    float high);

/* ---------------------------------------------------------------------------------------------
   [CALIBRATE] Statistics of every tensor of a model */

typedef struct ptq_calibrated {
    char name[PTQ_NAME_SIZE]; /* tensor */
    ptq_observer observer;
} ptq_calibrated;

typedef struct ptq_calibration {
    uint64_t model;            /* ptq_model_hash of the model that ran */
    size_t images;
    uint64_t *hash;            /* one for each image, ascending: ptq_image_hash */
    int classes;
    uint64_t *class_count;     /* of the images that have a label */
    uint64_t pixel[256];       /* how often each pixel value occurred; of real numbers none ... */
    uint64_t neighbours, neighbour_sum; /* ... and how far horizontal neighbours differ */
    ptq_calibrated *tensor;
    int tensors;
    ptq_allocator allocator;
} ptq_calibration;

typedef struct ptq_calibrate_options {
    ptq_work work;
    int accept_any; /* 1: also images that look random or constant */
} ptq_calibrate_options;

/* Runs the plan of a fused float model over a data set and observes every tensor. The result
   depends on the multiset of images only, not on their order or on threads. PTQ_BAD_DATA for no
   images, for wrong shapes, and for images that look random or constant (see accept_any): neither
   says anything about the ranges that real images cause. PTQ_BAD_NUMBER names the node that made
   a NaN. */
PTQ_API ptq_status ptq_calibrate(const ptq_plan *plan, const ptq_dataset *data,
                                 const ptq_calibrate_options *options, ptq_calibration **out,
                                 ptq_error *err);
PTQ_API void ptq_calibration_free(ptq_calibration *calibration);

/* Adds what another calibration of the same model saw. */
PTQ_API ptq_status ptq_calibration_merge(ptq_calibration *calibration,
                                         const ptq_calibration *other, ptq_error *err);

/* Index of a tensor by name; -1 if it was not observed. */
PTQ_API int ptq_calibration_find(const ptq_calibration *calibration, const char *name);

/* What a user should know before relying on it, one sentence with its remedy a line, empty if there
   is nothing: fewer than 100 images, classes missing or uneven, the same image twice, a pixel range
   that is not 0..255. In the manner of snprintf. */
PTQ_API size_t ptq_calibration_warnings(const ptq_calibration *calibration, char *text,
                                        size_t size);

/* How many of the images were calibrated on: must be 0 for images that are reported on. */
PTQ_API ptq_status ptq_calibration_overlap(const ptq_calibration *calibration,
                                           const ptq_dataset *data, size_t *overlap,
                                           ptq_error *err);

/* As JSON: readable, integers and exact decimals only; the same calibration always gives the same
   bytes. Reading treats the text as hostile. */
PTQ_API ptq_status ptq_calibration_write(const ptq_calibration *calibration, void **bytes,
                                         size_t *size, ptq_error *err);
PTQ_API ptq_status ptq_calibration_parse(const void *bytes, size_t size,
                                         const ptq_allocator *allocator, ptq_calibration **out,
                                         ptq_error *err);
#ifndef PTQ_NO_STDIO
PTQ_API ptq_status ptq_calibration_save(const ptq_calibration *calibration, const char *path,
                                        ptq_error *err);
PTQ_API ptq_status ptq_calibration_load(const char *path, const ptq_allocator *allocator,
                                        ptq_calibration **out, ptq_error *err);
#endif

/* FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv), of an image's pixels, and of a
   model's graph, preprocessing and parameters. */
PTQ_API uint64_t ptq_image_hash(const uint8_t *pixels, size_t size);
PTQ_API uint64_t ptq_model_hash(const ptq_model *model);

/* ---------------------------------------------------------------------------------------------
   [SCHEME] What to quantize how */

typedef enum ptq_mode {
    PTQ_MODE_INTEGER,  /* integers throughout, ranges fixed by calibration */
    PTQ_MODE_DYNAMIC, /* integer weights; the range of each activation is found per image */
    PTQ_MODE_HALF,    /* half-precision weights, computed in float */
    PTQ_MODE_FLOAT    /* left as it is */
} ptq_mode;

/* How weights become codes once the scales are chosen. */
typedef enum ptq_rounding {
    PTQ_ROUNDING_NEAREST, /* each weight for itself */
    PTQ_ROUNDING_LEARNED  /* all weights of a channel together, so that the error of the layer's
                             result is least on calibration images: the problem that AdaRound states
                             (Nagel et al. 2020, https://arxiv.org/abs/2004.10568), solved by
                             coordinate descent on the second moments of the layer's input codes.
                             The bias takes up what error remains on average. Learns from images:
                             ptq_convert_options.images */
} ptq_rounding;

/* Whether weights are fitted anew before they are rounded (with PTQ_ROUNDING_LEARNED only). The
   codes that reach a layer already carry the errors of the layers before it; refitting chooses the
   weights with which those codes give, in least squares over calibration images, what the float
   model computes from its real inputs. So a layer makes up for what quantization cost before it,
   the residual of a fused addition included; the bias ends the mean error. The target is AdaQuant's
   (Hubara et al. 2020, https://arxiv.org/abs/2006.10518), in closed form from second moments as
   GPTQ's (Frantar et al. 2022, https://arxiv.org/abs/2210.17323). */
typedef enum ptq_refit {
    PTQ_REFIT_NEVER,
    PTQ_REFIT_BELOW_8, /* where weights or activations have fewer than 8 bits; at 8 it gains nothing
                          that was measurable */
    PTQ_REFIT_ALWAYS
} ptq_refit;

/* What rounding each weight for itself adds to a layer's results on average, E((w' - w) x), can be
   taken off its bias (Nagel et al. 2019, 4.2, https://arxiv.org/abs/1906.04721). */
typedef enum ptq_bias_correction {
    PTQ_BIAS_CORRECTION_NONE,
    PTQ_BIAS_CORRECTION_EMPIRICAL, /* measured: the bias makes the mean of the layer's results over
                           calibration images what the float model's is, layer after layer, so that
                           it also ends the mean error of what lies before. Needs images. Learned
                           rounding does this by itself */
    PTQ_BIAS_CORRECTION_ANALYTIC /* computed, without images: the mean of x is that of a normal
                           distribution that the activation clips, with the mean and variance that
                           batch norm gives it, beta and gamma^2. Folding hides these:
                           ptq_convert_options.unfused has them. Where there is no batch norm, or no
                           such model, mean and variance follow from those of the layer's input, as
                           if its values were independent, and in the end from those of the pixels
                           in the calibration. Residual additions add both. With
                           PTQ_ROUNDING_NEAREST only */
} ptq_bias_correction;

/* All zeros: 8 bits, one weight scale per channel, u8 affine activations, MinMax. */
typedef struct ptq_scheme {
    ptq_mode mode;
    int weight_bits;           /* 2..8; 0: 8 */
    int weight_per_tensor;     /* one scale for the tensor, not one per output channel */
    int weight_affine;         /* u8 codes with a zero point; needs weight_per_tensor */
    int weight_full_range;     /* symmetric: use -2^(bits-1) too */
    ptq_method weight_method;    /* PTQ_METHOD_MINMAX or PTQ_METHOD_MSE */
    int activation_bits;       /* 2..8; 0: 8. The input is always 8 bits */
    int activation_signed;     /* s8, not u8 */
    int activation_symmetric;
    ptq_method activation_method;
    float percentile;          /* for PTQ_METHOD_PERCENTILE; 0: 99.99 */
    int code_logits;           /* the logits become codes too, not floats from the accumulators */
    ptq_rounding rounding;     /* of static weights */
    ptq_refit refit;           /* of weights whose rounding is learned */
    int equalize;              /* 1: where activations have fewer than 8 bits, the model is first
                                  equalized (ptq_equalize) and calibrated anew. Counts in the scheme
                                  of the whole model, not in overrides. Needs images */
    ptq_bias_correction bias;  /* of integer layers */
    int fit_ranges;            /* 1: where activations have fewer than 8 bits, the range of one
                                  tensor after the other becomes the one of several around it with
                                  which the model's logits have the least squared error against
                                  float's, on up to 256 calibration images. Needs these */
    int confirm;               /* 1: learned rounding, refitting, equalization, range fitting: each
                                  stays only if, on a quarter of the images, not learned from, the
                                  model without it diverges more from float (ptq_divergence.kl). The
                                  metadata "confirmed" tell the outcome. With fewer than 200 images
                                  all stay. Like equalize and fit_ranges this counts in the scheme
                                  of the whole model; what is decided holds for overrides too */
} ptq_scheme;

#define PTQ_PRESET_LIST(X)                                                                         \
    X("best", "highest measured accuracy: learned rounding, ranges of least error")                \
    X("ort-u8", "ONNX Runtime static: u8 activations, u8 affine weights per tensor, MinMax")       \
    X("ort-s8", "ONNX Runtime static: s8 activations, s8 weights per tensor, MinMax")              \
    X("fbgemm", "PyTorch x86: 7-bit u8 activations by histogram, s8 weights per channel")          \
    X("tflite", "TensorFlow Lite: s8 affine activations, s8 weights per channel, MinMax")          \
    X("dynamic", "s8 weights; activation ranges found per image")                                  \
    X("fp16", "half-precision weights, float arithmetic")                                          \
    X("w4a8", "4-bit weights per channel, otherwise as best")

/* A preset by name: PTQ_INVALID_ARGUMENT lists the names. And the names with a line about each, by
   number from 0; NULL behind the last. */
PTQ_API ptq_status ptq_preset(const char *name, ptq_scheme *out, ptq_error *err);
PTQ_API const char *ptq_preset_name(int number);
PTQ_API const char *ptq_preset_text(int number);

/* A scheme as one line, "w8 per-channel mse, a8 u8 mse", in the manner of snprintf. */
PTQ_API size_t ptq_scheme_write(const ptq_scheme *scheme, char *text, size_t size);

/* PTQ_INVALID_ARGUMENT for bits outside 2..8 and choices that exclude each other. */
PTQ_API ptq_status ptq_scheme_check(const ptq_scheme *scheme, ptq_error *err);

/* A scheme for the nodes whose name matches: `*` stands for any characters, `?` for one. */
typedef struct ptq_override {
    const char *pattern;
    ptq_scheme scheme;
} ptq_override;

/* ---------------------------------------------------------------------------------------------
   [CONVERT] A float model and a calibration give a quantized model */

/* Cross-layer equalization (Nagel et al. 2019, https://arxiv.org/abs/1906.04721): a copy of a fused
   float model that computes the same logits, to rounding, from channels of like ranges, so that one
   scale suits them all. A channel is divided by the square root of its largest value relative to
   the tensor's largest, and its consumers' weights multiplied. ReLU lets a positive factor through,
   and so do pools; the tensors of a residual addition share their factors. Inputs and results of
   ReLU6, batch norm and softmax, the image and the logits stay as they are. Only integer layers
   gain, and only where activations have few bits. Largest values are those on `data`; of `options`,
   which may be NULL, `work` counts. The metadata "equalization" keeps the
   factors. */
PTQ_API ptq_status ptq_equalize(const ptq_plan *plan, const ptq_dataset *data,
                                const ptq_calibrate_options *options, ptq_model **out,
                                ptq_error *err);

/* The same with the factors that `quantized` keeps in its metadata, without images: from the fused
   float model that it was made of, the float weights that its scales belong to. A plain copy where
   it was not equalized. PTQ_BAD_FILE where the factors are damaged or of another network. */
PTQ_API ptq_status ptq_equalize_like(const ptq_model *model, const ptq_model *quantized,
                                     ptq_model **out, ptq_error *err);

typedef struct ptq_convert_options {
    ptq_scheme scheme;
    const ptq_override *override; /* of several that match, the last counts */
    int overrides;
    const ptq_dataset *images;    /* the calibration images again, for what learns from them: each
                                     must be one that was calibrated on. NULL: none */
    const ptq_model *unfused;     /* the model before ptq_fuse, or NULL: for
                                     PTQ_BIAS_CORRECTION_ANALYTIC */
    ptq_work work;                /* progress: of learning */
} ptq_convert_options;

/* What becomes of a node. */
typedef struct ptq_conversion {
    char node[PTQ_NAME_SIZE];
    char what[96];       /* "s8 per channel, u8 -> u8", "float", "inserted" */
    size_t bytes_before; /* of its parameters */
    size_t bytes_after;
} ptq_conversion;

typedef struct ptq_convert_report {
    ptq_conversion *item;
    int items;
    size_t bytes_before, bytes_after;
    ptq_allocator allocator;
} ptq_convert_report;

/* A new model; the float one stays as it is. `calibration` may be NULL if no node is
   PTQ_MODE_INTEGER.
   `out` NULL: a dry run that only fills the report, which may be NULL otherwise. Between float and
   integer nodes, nodes `quantize` and `dequantize` are inserted. PTQ_NOT_READY if the model is not
   fused, not calibrated, or calibrated for another model, if a tensor was never observed, or if a
   scheme learns and there are no images. The result does not depend on the order of the images. */
PTQ_API ptq_status ptq_convert(const ptq_model *model, const ptq_calibration *calibration,
                               const ptq_convert_options *options, ptq_model **out,
                               ptq_convert_report *report, ptq_error *err);
PTQ_API void ptq_convert_report_free(ptq_convert_report *report);

/* Codes for one weight tensor (dim[0]: output channels) under a scheme: the part of conversion that
   needs nothing else. A channel of zeros gets codes 0 and the scale 1. */
PTQ_API ptq_status ptq_quantize_weight(const ptq_tensor *weight, const ptq_scheme *scheme,
                                       const ptq_allocator *allocator, ptq_tensor *out,
                                       ptq_error *err);

/* How a node computes: PTQ_MODE_INTEGER means that it really runs on integers alone. */
PTQ_API ptq_mode ptq_node_mode(const ptq_model *model, int node);
PTQ_API const char *ptq_mode_name(ptq_mode mode); /* "integer", "dynamic", "half", "float" */

/* A vector to test a loaded model with: the logits of a picture that is drawn from a fixed seed.
   `add` computes them on scalar kernels and puts them into the metadata ("self_test"); `check` runs
   the plan on the same picture and compares every bit. PTQ_NOT_READY without a vector,
   PTQ_BAD_NUMBER if they differ. Models with real numbers in them are compared within 1e-3. */
PTQ_API ptq_status ptq_self_test_add(ptq_model *model, ptq_error *err);
PTQ_API ptq_status ptq_self_test_check(const ptq_plan *plan, ptq_error *err);

/* ---------------------------------------------------------------------------------------------
   [METRICS] Evaluation */

typedef struct ptq_evaluate_options {
    ptq_work work;
    size_t limit; /* the first so many images; 0: all */
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
   number of threads. Labels are needed. */
PTQ_API ptq_status ptq_evaluate(const ptq_plan *plan, const ptq_dataset *data,
                                const ptq_evaluate_options *options, ptq_evaluation *out,
                                ptq_error *err);
PTQ_API void ptq_evaluation_free(ptq_evaluation *evaluation);

/* Two evaluations of the same images: a quantized model against the float model it came from. */
typedef struct ptq_comparison {
    size_t total, agree;         /* same prediction */
    size_t lost, won;            /* right to wrong, wrong to right */
    double delta_pp;             /* accuracy difference in percentage points */
    double low_pp, high_pp;      /* exact 95 % interval of it, given the images that changed */
    double p_value;              /* McNemar's exact test, two-sided */
} ptq_comparison;

/* PTQ_INVALID_ARGUMENT unless both saw the same number of images with the same labels. The interval
   is Clopper and Pearson's (1934) for the share of `won` among the images that changed between
   right and wrong; the test is McNemar's (1947) in its exact, binomial form. */
PTQ_API ptq_status ptq_compare(const ptq_evaluation *baseline, const ptq_evaluation *quantized,
                               ptq_comparison *out, ptq_error *err);

/* Clopper and Pearson's exact interval for a share: `k` of `n`, at confidence 0 < level < 1. */
PTQ_API void ptq_exact_interval(size_t k, size_t n, double level, double *low, double *high);

/* One tensor of the quantized model beside the same tensor of the float model. */
typedef struct ptq_layer_error {
    char name[PTQ_NAME_SIZE]; /* tensor */
    double sqnr_db;           /* 10 log10(sum x^2 / sum (x - x')^2); infinite if equal */
    float largest;            /* largest |x - x'| */
    double clipped;           /* share of elements at the lowest or highest code while the real
                                 value lies beyond */
} ptq_layer_error;

typedef struct ptq_layer_report {
    ptq_layer_error *item;
    int items;
    ptq_allocator allocator;
} ptq_layer_report;

/* Runs both plans on the first `count` images (0: all) and compares every tensor that both have, in
   the order of the quantized model; tensors of a model that was equalized, in its own units. */
PTQ_API ptq_status ptq_compare_layers(const ptq_plan *baseline, const ptq_plan *quantized,
                                      const ptq_dataset *data, size_t count, ptq_layer_report *out,
                                      ptq_error *err);
PTQ_API void ptq_layer_report_free(ptq_layer_report *report);

/* How far a model's logits are from the float model's, over the images of two evaluations. */
typedef struct ptq_divergence {
    double sqnr_db;   /* of the logits: 10 log10(sum x^2 / sum (x - x')^2); infinite if equal */
    double kl;        /* mean Kullback-Leibler divergence of the softmax from float's, in nats */
    double agreement; /* share of images with the same prediction, 0 to 1 */
    double delta_pp;  /* accuracy difference in percentage points */
} ptq_divergence;

/* Sums are exact: the order of the images does not matter. Errors as ptq_compare, and
   PTQ_INVALID_ARGUMENT if the number of classes differs. */
PTQ_API ptq_status ptq_compare_logits(const ptq_evaluation *baseline,
                                      const ptq_evaluation *quantized, ptq_divergence *out,
                                      ptq_error *err);

/* ---- Which layer is to blame, and how many bits each deserves ---- */

typedef struct ptq_search_options {
    ptq_scheme scheme;     /* what is looked at or searched for; mode PTQ_MODE_INTEGER */
    const ptq_dataset *images; /* of calibration: to learn from and to measure on. Never those that
                              are reported on */
    size_t measure;        /* the first so many of them are measured on, and the others learned
                              from, so that learning is judged by images that it did not see; 0, or
                              as many as there are: all serve for both */
    ptq_work work;         /* progress: counts conversions */
} ptq_search_options;

/* One node alone under the scheme, all others in float. */
typedef struct ptq_sensitivity {
    char node[PTQ_NAME_SIZE];
    size_t bytes;          /* of its parameters under the scheme */
    ptq_divergence cost;   /* of the whole model, against float */
} ptq_sensitivity;

/* What could be changed, and what the change is worth: agreement of the whole model with float
   after it, less that before it, measured on the images. */
typedef struct ptq_advice {
    char node[PTQ_NAME_SIZE]; /* what the change is limited to; empty: the whole model */
    char text[200];           /* "block3.conv2 costs 1.9 points of agreement; per-channel weights
                                 would win back 1.6" */
    double gain_pp;           /* percentage points of agreement */
} ptq_advice;

typedef struct ptq_sensitivity_report {
    ptq_sensitivity *item; /* largest divergence first */
    int items;
    ptq_divergence whole;  /* of the model with every node under the scheme */
    ptq_advice *advice;    /* largest gain first, only gains; may be empty */
    int advices;
    size_t images;
    ptq_allocator allocator;
} ptq_sensitivity_report;

/* Measures every node that can run on integers alone, ranks them, and tries remedies: on the whole
   model and on the three costliest nodes, with more bits, a scale per channel, ranges of least
   error, learned and refitted weights, float. Needs about 20 conversions and evaluations; nodes and
   remedies for single nodes are measured with rounding to nearest, for speed. Errors as those of
   ptq_convert and ptq_evaluate. */
PTQ_API ptq_status ptq_measure_sensitivity(const ptq_model *model,
                                           const ptq_calibration *calibration,
                                           const ptq_search_options *options,
                                           ptq_sensitivity_report *out, ptq_error *err);
PTQ_API void ptq_sensitivity_report_free(ptq_sensitivity_report *report);

/* What a mixed model must keep to; of the fields that are not zero, all. */
typedef struct ptq_goal {
    size_t bytes;        /* most bytes of parameters, as ptq_convert_report counts them */
    double average_bits; /* most bits of a weight, averaged over all weights of such layers */
    double drop_pp;      /* most points of accuracy lost against float, on the images */
} ptq_goal;

/* One model of the frontier. */
typedef struct ptq_mix {
    size_t bytes;
    double average_bits;
    double predicted;    /* sum of the nodes' single divergences */
    int measured;        /* 1: converted under the full scheme, and `cost` measured */
    ptq_divergence cost;
} ptq_mix;

typedef struct ptq_mix_report {
    char (*node)[PTQ_NAME_SIZE]; /* layers with weights that can run on integers */
    int nodes;
    ptq_mix *item;     /* the frontier, largest model first */
    uint8_t *bits;     /* items x nodes: 32 (float), 8, 6, 5, 4, 3 or 2 */
    int items;
    int chosen;        /* the model returned */
    int met;           /* 1: it keeps to the goal */
    size_t images;
    ptq_allocator allocator;
} ptq_mix_report;

/* Chooses the bits of each layer's weights. The divergence that each layer causes alone is measured
   at each number of bits; from 8 bits everywhere (float for what is best left so), the step that
   costs least divergence for the bytes it saves is taken again and again (in the manner of HAWQ-V2,
   Dong et al. 2020, https://arxiv.org/abs/1911.03852, with measured divergences), which gives the
   frontier. Four models spread along it and those that a search for the goal visits are
   converted under the full scheme and measured. Returned in `out` (which may be NULL) is the
   best that meets the goal: the smallest under `drop_pp`, otherwise the largest under the sizes;
   where none does, the closest, with `met` 0. */
PTQ_API ptq_status ptq_convert_mixed(const ptq_model *model, const ptq_calibration *calibration,
                                     const ptq_search_options *options, const ptq_goal *goal,
                                     ptq_model **out, ptq_mix_report *report, ptq_error *err);
PTQ_API void ptq_mix_report_free(ptq_mix_report *report);

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
#if defined(__unix__) || defined(__APPLE__)
#include <sys/stat.h>
#define PTQ__HAS_STAT
#endif
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

/* =============================================================================================
   PART ONE: FROM FLOATS TO INTEGERS
   Read straight through, it shows all that happens to one image: scalar code only, complete. The
   other three parts load files, make it run fast, and lose less accuracy; none changes what stands
   here.
   ============================================================================================= */

/* What the other parts give to this one. */
typedef struct ptq__text ptq__text;
typedef struct ptq__step ptq__step;
typedef struct ptq__converter ptq__converter;
static void ptq__put_node(ptq__text *text, const ptq_model *model, const ptq_node *node);
static void ptq__copy_le(void *to, const void *from, size_t n, int bytes);
static ptq_isa ptq__best_isa(void);
static ptq_status ptq__vectorize(ptq_plan *plan, ptq__step *step, ptq_error *err);
static void ptq__preprocess(const ptq_plan *plan, const uint8_t *pixels, float *out);
static ptq_status ptq__convert_confirmed(ptq__converter *cv, ptq_model **out, ptq_error *err);
static ptq_status ptq__correct_analytically(ptq__converter *cv, ptq_error *err);
static ptq_status ptq__learn(ptq__converter *cv, ptq_error *err);
#ifndef PTQ_NO_STDIO
static FILE *ptq__open(const char *path, int writing);
static int ptq__is_separator(char c);
#endif

/* ---- [STATUS] ---------------------------------------------------------------------------- */

PTQ_API const char *ptq_status_name(ptq_status status) {
    static const char *const name[] = {
#define PTQ_X(name, text) #name,
        PTQ_STATUS_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)status < sizeof name / sizeof name[0] ? name[status] : "?";
}

PTQ_API const char *ptq_status_text(ptq_status status) {
    static const char *const text[] = {
#define PTQ_X(name, text) text,
        PTQ_STATUS_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)status < sizeof text / sizeof text[0] ? text[status] : "unknown status";
}

PTQ_API const char *ptq_version(void) { return PTQ_VERSION; }

/* Text goes into a buffer of fixed size while its full length is counted, as snprintf does. Own
   formatting because printf's depends on the locale, and because PTQ_NO_STDIO has no printf. */
struct ptq__text {
    char *data;
    size_t size; /* of the buffer, 0 allowed */
    size_t length;
    size_t line; /* where the current line began, for columns */
};

static ptq__text ptq__text_over(char *data, size_t size) {
    ptq__text text;
    text.data = data;
    text.size = size;
    text.length = 0;
    text.line = 0;
    if (size)
        data[0] = 0;
    return text;
}

static void ptq__put_char(ptq__text *text, char c) {
    if (text->length + 1 < text->size) {
        text->data[text->length] = c;
        text->data[text->length + 1] = 0;
    }
    text->length++;
    if (c == '\n')
        text->line = text->length;
}

static void ptq__put_string(ptq__text *text, const char *s) {
    while (*s)
        ptq__put_char(text, *s++);
}

static void ptq__put_unsigned(ptq__text *text, uint64_t value) {
    char digit[20];
    int n = 0;
    do {
        digit[n++] = (char)('0' + (int)(value % 10));
        value /= 10;
    } while (value);
    while (n)
        ptq__put_char(text, digit[--n]);
}

static void ptq__put_signed(ptq__text *text, int64_t value) {
    if (value < 0)
        ptq__put_char(text, '-');
    ptq__put_unsigned(text, value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value);
}

/* Spaces up to a column of the line, at least one unless the line is empty. */
static void ptq__put_column(ptq__text *text, size_t column) {
    if (text->length > text->line)
        ptq__put_char(text, ' ');
    while (text->length - text->line < column)
        ptq__put_char(text, ' ');
}

/* 10^n in double precision; n within the range of double. */
static double ptq__pow10(int n) {
    double result = 1, base = 10;
    int k = n < 0 ? -n : n;
    for (; k; k >>= 1, base *= base)
        if (k & 1)
            result *= base;
    return n < 0 ? 1 / result : result;
}

/* Digits and exponent of the shortest decimal (at most nine digits, always enough for a single)
   that reads back as the same float: value = digits * 10^exponent. */
static uint64_t ptq__shortest(float value, int *exponent) {
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

static void ptq__put_float(ptq__text *text, float value) {
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
        ptq__put_char(text, digit[n - 1]); /* NOLINT: what is not 0 has a digit */
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
static void ptq__vput(ptq__text *text, const char *format, va_list args) {
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

static void ptq__put(ptq__text *text, const char *format, ...) {
    va_list args;
    va_start(args, format);
    ptq__vput(text, format, args);
    va_end(args);
}

PTQ_API ptq_status ptq_error_set(ptq_error *err, ptq_status status, const char *format, ...) {
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
static ptq_allocator ptq__allocator(const ptq_allocator *allocator) {
    ptq_allocator result;
    memset(&result, 0, sizeof result);
    if (allocator)
        result = *allocator;
    return result;
}

/* Zeroed memory for count elements, never NULL on success, even for count 0. `out` is the address
   of a pointer of any type, which is written as bytes: so no caller needs a void * and a cast. */
static ptq_status ptq__alloc(const ptq_allocator *allocator, size_t count, size_t size,
                             const char *what, void *out, ptq_error *err) {
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
    memcpy(out, &memory, sizeof memory);
    return PTQ_OK;
}

/* The same for *pointer, of which it takes the size of the elements. */
#define PTQ__NEW(allocator, pointer, count, what, err)                                             \
    ptq__alloc(allocator, count, sizeof **(pointer), what, pointer, err)

static void ptq__free(const ptq_allocator *allocator, void *memory) {
    if (!memory)
        return;
    if (allocator && allocator->release)
        allocator->release(allocator->user, memory);
    else
        PTQ_FREE(memory);
}

static ptq_status ptq__strdup(const ptq_allocator *allocator, const char *text, size_t length,
                              char **out, ptq_error *err) {
    void *copy = NULL;
    PTQ__TRY(ptq__alloc(allocator, length + 1, 1, "a string", &copy, err));
    memcpy(copy, text, length);
    *out = (char *)copy;
    return PTQ_OK;
}

/* Makes room for one more element in a growing array, whose pointer may be of any type as above. */
static ptq_status ptq__grow(const ptq_allocator *allocator, void *array, int count, int *capacity,
                            size_t size, const char *what, ptq_error *err) {
    void *larger = NULL, *smaller;
    int n = *capacity ? *capacity * 2 : 16;
    if (count < *capacity)
        return PTQ_OK;
    PTQ__TRY(ptq__alloc(allocator, (size_t)n, size, what, &larger, err));
    memcpy(&smaller, array, sizeof smaller);
    if (count)
        memcpy(larger, smaller, (size_t)count * size); /* NOLINT: only NULL is without elements */
    ptq__free(allocator, smaller);
    memcpy(array, &larger, sizeof larger);
    *capacity = n;
    return PTQ_OK;
}

#define PTQ__GROW(allocator, pointer, count, capacity, what, err)                                  \
    ptq__grow(allocator, pointer, count, capacity, sizeof **(pointer), what, err)

static void ptq__swap(uint8_t *a, uint8_t *b, size_t size) {
    for (; size > 0; size--, a++, b++) {
        uint8_t kept = *a;
        *a = *b;
        *b = kept;
    }
}

/* 1 if element `a` comes before element `b`. */
typedef int ptq__before(const void *a, const void *b, const void *context);

/* Heap sort (Williams 1964) of n elements of `size` bytes. The library sorts what files bring: heap
   sort needs no recursion and no memory, and has no bad case for an enemy to find. Equal elements
   come in any order, so `before` decides ties where they matter. First the heap is built, from the
   middle down to element 0; then the largest goes behind the heap again and again. */
static void ptq__sort(void *base, size_t n, size_t size, ptq__before *before, const void *context) {
    uint8_t *item = (uint8_t *)base;
    size_t start = n / 2, end = n, root, child;
    while (end > 1) {
        if (start > 0)
            start--;
        else
            ptq__swap(item, item + --end * size, size);
        for (root = start; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && before(item + child * size, item + (child + 1) * size, context))
                child++;
            if (!before(item + root * size, item + child * size, context))
                break;
            ptq__swap(item + root * size, item + child * size, size);
        }
    }
}

/* A NaN or an infinity. Comparisons, not isfinite(), which -ffast-math removes: the exponent bits
   themselves say it. */
static int ptq__is_finite(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

/* A piece of text that is read, not terminated. */
typedef struct ptq__span {
    const char *p;
    size_t n;
} ptq__span;

static ptq__span ptq__span_of(const char *text) {
    ptq__span span;
    span.p = text;
    span.n = strlen(text);
    return span;
}

static int ptq__span_is(ptq__span span, const char *text) {
    return span.n == strlen(text) && !memcmp(span.p, text, span.n);
}

/* Cuts off and returns what stands before the first `separator`, or everything. */
static ptq__span ptq__cut(ptq__span *rest, char separator) {
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

static ptq__quote ptq__quoted(ptq__span span) {
    ptq__quote quote;
    size_t i, n = span.n < sizeof quote.text - 1 ? span.n : sizeof quote.text - 1;
    for (i = 0; i < n; i++)
        quote.text[i] = span.p[i] >= 32 && span.p[i] < 127 ? span.p[i] : '?';
    quote.text[n] = 0;
    return quote;
}

/* Digits alone, within limits: 1 on success. */
static int ptq__read_int(ptq__span span, int64_t low, int64_t high, int64_t *out) {
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
static int ptq__read_double(ptq__span span, double *out) {
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

static int ptq__read_float(ptq__span span, float *out) {
    double value;
    const double most = 3.4028235677973366e38; /* halfway from FLT_MAX to 2^128 */
    if (!ptq__read_double(span, &value) || value >= most || value <= -most)
        return 0;
    *out = (float)value;
    return 1;
}

/* ---- [TENSOR] ---------------------------------------------------------------------------- */

PTQ_API const char *ptq_type_name(ptq_type type) {
    static const char *const name[] = {"F32", "F16", "U8", "S8", "S32", "PACKED_U", "PACKED_S"};
    return (unsigned)type < sizeof name / sizeof name[0] ? name[type] : "?";
}

static int ptq__is_packed(ptq_type type) {
    return type == PTQ_TYPE_PACKED_U || type == PTQ_TYPE_PACKED_S;
}

/* Bits of one element; 0 if type and bits do not go together. */
static int ptq__type_bits(ptq_type type, int bits) {
    switch (type) {
    case PTQ_TYPE_F32:
    case PTQ_TYPE_S32:
        return 32;
    case PTQ_TYPE_F16:
        return 16;
    case PTQ_TYPE_U8:
    case PTQ_TYPE_S8:
        return 8;
    case PTQ_TYPE_PACKED_U:
    case PTQ_TYPE_PACKED_S:
        return bits >= 2 && bits <= 7 ? bits : 0;
    }
    return 0;
}

/* Elements of a shape, or 0 if it is not legal. */
static size_t ptq__shape_elements(int rank, const int *dims) {
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
static size_t ptq__slice_bytes(size_t elements, int rows, int bits) {
    return (elements / (size_t)rows * (size_t)bits + 7) / 8;
}

PTQ_API size_t ptq_tensor_bytes(ptq_type type, int bits, int rank, const int *dims) {
    size_t n = ptq__shape_elements(rank, dims);
    int width = ptq__type_bits(type, bits);
    if (!n || !width)
        return 0;
    return ptq__slice_bytes(n, dims[0], width) * (size_t)dims[0];
}

PTQ_API size_t ptq_tensor_elements(const ptq_tensor *tensor) {
    return tensor->rank ? ptq__shape_elements(tensor->rank, tensor->dim) : 0;
}

/* The common start of create and borrow. */
static ptq_status ptq__tensor_init(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                   const int *dims, ptq_error *err) {
    size_t size = ptq_tensor_bytes(type, bits, rank, dims);
    int i;
    memset(tensor, 0, sizeof *tensor);
    if (!size)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "tensor of type %s: needs 1 to 4 dimensions of at least 1, at most "
                             "%d elements, and 2 to 7 bits if packed",
                             ptq_type_name(type), PTQ_MAX_ELEMENTS);
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
                                     ptq_error *err) {
    ptq_tensor made;
    PTQ__TRY(ptq__tensor_init(&made, type, bits, rank, dims, err));
    PTQ__TRY(ptq__alloc(allocator, made.size, 1, "tensor", &made.data, err));
    made.owned = 1;
    *tensor = made;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_tensor_borrow(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                     const int *dims, void *data, size_t size, ptq_error *err) {
    ptq_tensor made;
    PTQ__TRY(ptq__tensor_init(&made, type, bits, rank, dims, err));
    if (!data || size < made.size)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "tensor needs %z bytes, given are %z",
                             made.size, data ? size : (size_t)0);
    made.data = data;
    *tensor = made;
    return PTQ_OK;
}

PTQ_API void ptq_tensor_free(ptq_tensor *tensor, const ptq_allocator *allocator) {
    if (!tensor)
        return;
    if (tensor->owned & 1)
        ptq__free(allocator, tensor->data);
    if (tensor->owned & 2)
        ptq__free(allocator, tensor->scale);
    memset(tensor, 0, sizeof *tensor);
}

PTQ_API ptq_status ptq_tensor_set_scale(ptq_tensor *tensor, const float *scale, int count,
                                        int32_t zero_point, const ptq_allocator *allocator,
                                        ptq_error *err) {
    void *copy = NULL;
    if (!tensor->rank || (count != 1 && count != tensor->dim[0]))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "a tensor has one scale, or one for each of its %d channels, not %d",
                             tensor->dim[0], count);
    PTQ__TRY(ptq__alloc(allocator, (size_t)count, sizeof(float), "scales", &copy, err));
    memcpy(copy, scale, (size_t)count * sizeof(float));
    if (tensor->owned & 2)
        ptq__free(allocator, tensor->scale);
    tensor->owned |= 2;
    tensor->scale = (float *)copy;
    tensor->scales = count;
    tensor->zero_point = zero_point;
    return PTQ_OK;
}

/* Copies a tensor with everything it owns. */
static ptq_status ptq__tensor_copy(ptq_tensor *to, const ptq_tensor *from,
                                   const ptq_allocator *allocator, ptq_error *err) {
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
static size_t ptq__packed_position(const ptq_tensor *tensor, size_t index) {
    size_t per_row = ptq_tensor_elements(tensor) / (size_t)tensor->dim[0];
    size_t row_bytes = tensor->size / (size_t)tensor->dim[0];
    /* NOLINTNEXTLINE: there is an element `index`, so that no row is empty */
    return (index / per_row) * row_bytes * 8 + (index % per_row) * (size_t)tensor->bits;
}

static int32_t ptq__packed_get(const ptq_tensor *tensor, size_t index) {
    const uint8_t *data = (const uint8_t *)tensor->data;
    size_t position = ptq__packed_position(tensor, index);
    int bits = tensor->bits, shift = (int)(position % 8);
    unsigned word = data[position / 8];
    if (shift + bits > 8)
        word |= (unsigned)data[position / 8 + 1] << 8;
    word = (word >> shift) & ((1u << bits) - 1);
    if (tensor->type == PTQ_TYPE_PACKED_S && (word >> (bits - 1)))
        return (int32_t)word - (1 << bits);
    return (int32_t)word;
}

static void ptq__packed_set(ptq_tensor *tensor, size_t index, int32_t code) {
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
static int32_t ptq__code(const ptq_tensor *tensor, size_t index) {
    switch (tensor->type) {
    case PTQ_TYPE_U8:
        return ((const uint8_t *)tensor->data)[index];
    case PTQ_TYPE_S8:
        return ((const int8_t *)tensor->data)[index];
    case PTQ_TYPE_S32:
        return ((const int32_t *)tensor->data)[index];
    default:
        return ptq__packed_get(tensor, index);
    }
}

PTQ_API float ptq_tensor_number(const ptq_tensor *tensor, size_t index) {
    if (tensor->type == PTQ_TYPE_F32)
        return ((const float *)tensor->data)[index];
    if (tensor->type == PTQ_TYPE_F16)
        return ptq_f16_to_f32(((const uint16_t *)tensor->data)[index]);
    return (float)ptq__code(tensor, index);
}

PTQ_API float ptq_tensor_real(const ptq_tensor *tensor, size_t index) {
    size_t per_row;
    if (!tensor->scales || tensor->type == PTQ_TYPE_F32 || tensor->type == PTQ_TYPE_F16)
        return ptq_tensor_number(tensor, index);
    per_row = ptq_tensor_elements(tensor) / (size_t)tensor->dim[0];
    return tensor->scale[tensor->scales > 1 ? index / per_row : 0] *
           (float)(ptq__code(tensor, index) - tensor->zero_point);
}

PTQ_API void ptq_tensor_set_code(ptq_tensor *tensor, size_t index, int32_t code) {
    switch (tensor->type) {
    case PTQ_TYPE_U8:
        ((uint8_t *)tensor->data)[index] = (uint8_t)code;
        break;
    case PTQ_TYPE_S8:
        ((int8_t *)tensor->data)[index] = (int8_t)code;
        break;
    case PTQ_TYPE_S32:
        ((int32_t *)tensor->data)[index] = code;
        break;
    case PTQ_TYPE_PACKED_U:
    case PTQ_TYPE_PACKED_S:
        ptq__packed_set(tensor, index, code);
        break;
    default:
        PTQ_ASSERT(0 && "codes go into integer tensors");
    }
}

PTQ_API uint16_t ptq_f32_to_f16(float value) {
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

PTQ_API float ptq_f16_to_f32(uint16_t half) {
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

/* ---- [QUANTIZE] -------------------------------------------------------------------------- */

/* The arithmetic below is IEEE single precision, one operation at a time. Where the compiler may
   compute in more (x87) or rearrange (-ffast-math), each result goes through memory, which rounds
   it and ends the rearranging. Rounding to double-extended first and to single then gives the same
   as rounding once, for + - * / (Figueroa 1995). */
#if defined(__FAST_MATH__) || !defined(FLT_EVAL_METHOD) || FLT_EVAL_METHOD != 0
typedef volatile float ptq__float;
typedef volatile double ptq__double;
#else
typedef float ptq__float;
typedef double ptq__double;
#endif

static float ptq__mul(float a, float b) {
    ptq__float x = a, y = b, result = x * y;
    return result;
}

static float ptq__div(float a, float b) {
    ptq__float x = a, y = b, result = x / y;
    return result;
}

/* a * b + c, rounded once. */
#ifdef FP_FAST_FMAF
static float ptq__fma(float a, float b, float c) { return fmaf(a, b, c); }
#else
/* Without the instruction: the product is exact in double; the sum is rounded to odd (the last bit
   set if anything was lost), so that rounding once more, to single, is right (Boldo and Melquiond
   2008). Own code, since some C libraries round twice. */
static float ptq__fma(float a, float b, float c) {
    ptq__double p = (double)a * (double)b, z = (double)c, s = p + z, t = s - p;
    ptq__double lost = (p - (s - t)) + (z - t);
    double sum = s;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if (lost != 0 && !(bits & 1)) {
        bits += (lost > 0) == (sum > 0) ? (uint64_t)1 : ~(uint64_t)0;
        memcpy(&sum, &bits, sizeof sum);
    }
    return (float)sum;
}
#endif

/* Rounds half to even, for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits. */
static int32_t ptq__rne(float x) {
    ptq__float shifted = x + 12582912.0f;
    float value = shifted;
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits - 0x4b400000;
}

/* The one place where a real number becomes a code: clamped first, since processors differ on what
   an overflowing conversion gives; the zero point added last, as an integer, so that no compiler
   can fuse it with the product that f came from. */
static int32_t ptq__to_code(float f, int32_t zero_point, int32_t low, int32_t high) {
    float least = (float)(low - zero_point), most = (float)(high - zero_point);
    f = f > least ? f : least; /* written so that a NaN becomes the lowest code */
    f = f < most ? f : most;
    return ptq__rne(f) + zero_point;
}

PTQ_API int32_t ptq_requantize(int32_t acc, float multiplier, int32_t zero_point, int32_t low,
                               int32_t high) {
    return ptq__to_code(ptq__mul((float)acc, multiplier), zero_point, low, high);
}

PTQ_API void ptq_code_range(ptq_type type, int bits, int32_t *low, int32_t *high) {
    int is_signed = type == PTQ_TYPE_S8 || type == PTQ_TYPE_PACKED_S;
    *low = is_signed ? -(1 << (bits - 1)) : 0;
    *high = is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
}

PTQ_API int32_t ptq_quantize(float x, const ptq_qparams *q) {
    int32_t low, high;
    ptq_code_range(q->type, q->bits, &low, &high);
    return ptq__to_code(ptq__div(x, q->scale), q->zero_point, low, high);
}

PTQ_API float ptq_dequantize(int32_t code, const ptq_qparams *q) {
    return ptq__mul(q->scale, (float)(code - q->zero_point));
}

/* Finite and not denormal: processors may treat denormals as 0. Judged by the bits, which
   -ffast-math leaves alone. */
static int ptq__is_normal(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits >> 23) & 255;
    return bits != 0 && bits != 255;
}

PTQ_API ptq_status ptq_choose_qparams(float low, float high, ptq_type type, int bits, int symmetric,
                                      ptq_qparams *out, ptq_error *err) {
    double lo = low < 0 ? (double)low : 0, hi = high > 0 ? (double)high : 0, scale, reach;
    int32_t least, most;
    ptq_qparams q;
    if ((type != PTQ_TYPE_U8 && type != PTQ_TYPE_S8) || bits < 2 || bits > 8)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "codes are u8 or s8 of 2 to 8 bits, not %s of %d", ptq_type_name(type),
                             bits);
    if (!ptq__is_finite(low) || !ptq__is_finite(high))
        return ptq_error_set(err, PTQ_BAD_NUMBER, "a range of %g to %g cannot be quantized",
                             (double)low, (double)high);
    ptq_code_range(type, bits, &least, &most);
    q.type = type;
    q.bits = bits;
    q.zero_point =
        type == PTQ_TYPE_S8 || !symmetric || lo == 0 ? (symmetric ? 0 : least) : 1 << (bits - 1);
    reach = -lo > hi ? -lo : hi;
    scale = symmetric ? reach / (most - q.zero_point) : (hi - lo) / (most - least);
    q.scale = hi - lo > 0 ? (float)scale : 1;
    if (!ptq__is_normal(q.scale))
        return ptq_error_set(err, PTQ_BAD_NUMBER, "a range of %g to %g gives no normal scale",
                             (double)low, (double)high);
    if (!symmetric)
        q.zero_point = ptq__to_code((float)(-lo / (double)q.scale), least, least, most);
    *out = q;
    return PTQ_OK;
}

/* ---- [OPERATORS] ----------------------------------------------------------------------------- */

/* What a network is made of. Each operator stands here whole: its formula, the shape of its result,
   its parameters, its kernel on real numbers and its kernel on codes, side by side, since the second
   differs from the first by quantization alone. A table at the end of the section collects them, and
   the rest of this file knows an operator by its row only.

   These kernels are the truth. They are written to be read, in one fixed order of additions; the
   vector kernels of part three must give the same codes to the byte. Activations are H x W x C of
   one image, channels innermost; weights O x I x KH x KW. */

/* Results before and after ptq__add_codes, and of requantization, are clamped: to the codes there
   are, and by a fused activation to the codes of 0 and 6. */
typedef struct ptq__clamp {
    int32_t zero_point, low, high; /* low <= zero_point <= high */
} ptq__clamp;

/* The constants of an addition of codes: see ptq__add_codes. */
typedef struct ptq__adder {
    float ratio_a, ratio_b, offset;
    ptq__clamp clamp;
} ptq__adder;

/* Where a step reads and writes while one image runs. */
typedef struct ptq__frame {
    const void *in[2]; /* the operands, H x W x C each; in[1] NULL where there is none */
    void *out;         /* the result, H x W x C; may be an operand's memory, see PTQ__IN_PLACE */
    void *mid;         /* the result before a fused addition; NULL unless the session keeps it */
    void *scratch;     /* ptq__step.scratch bytes, of no meaning between steps */
} ptq__frame;

typedef void (*ptq__kernel)(const ptq__step *step, const ptq__frame *frame);

/* One node made ready to run: a plan has one for each. Only the geometry tells a dense layer from a
   convolution, an average of the whole image from one of windows. */
struct ptq__step {
    const ptq_node *node;
    const ptq_node *from[2]; /* the nodes that made the operands; NULL where there is none */
    int index;               /* of the node */
    int elements;            /* of the result: H * W * C */
    /* Geometry. A dense layer reads its input as 1 x 1 x (H * W * C), with a window of 1 x 1. */
    int in[3];                        /* H, W, C of the first operand */
    int kernel[2], stride[2], pad[2]; /* of the window; pad: rows above, columns to the left */
    int groups;
    int taps;           /* inputs that one result depends on: C / groups * KH * KW */
    ptq_activation act; /* fused, or what the operator itself is */
    ptq__clamp clamp;   /* coded results: of the operator's own ... */
    ptq__adder adder;   /* ... and of an addition, own or fused */
    ptq__kernel run;
    const void *weight; /* the model's, or the plan's own where it had to be changed */
    void *owned;        /* what the plan made for this step */
    float *multiplier;  /* integer convolution and dense: one for each channel; else NULL */
    void *packed;       /* what the vector kernel works from; NULL: a scalar kernel runs */
    size_t scratch;     /* bytes that the kernels need for themselves */
};

/* All messages about a node begin with its name. */
static ptq_status ptq__bad_node(ptq_error *err, ptq_status status, const ptq_node *node,
                                const char *format, ...) {
    va_list args;
    if (err) {
        ptq__text text = ptq__text_over(err->text, sizeof err->text);
        err->status = status;
        ptq__put(&text, "node %s: ", node->name);
        va_start(args, format);
        ptq__vput(&text, format, args);
        va_end(args);
    }
    return status;
}

static int ptq__is_coded(const ptq_node *node) { return node->q.type != PTQ_TYPE_F32; }

/* Weights that are integers of any width. */
static int ptq__is_integer_type(ptq_type type) {
    return type == PTQ_TYPE_U8 || type == PTQ_TYPE_S8 || ptq__is_packed(type);
}

/* Code i of a tensor whose codes take one byte each. */
static int32_t ptq__load(const void *codes, int i, ptq_type type) {
    return type == PTQ_TYPE_S8 ? ((const int8_t *)codes)[i] : ((const uint8_t *)codes)[i];
}

/* Both kinds of codes are stored alike: two's complement in eight bits. */
static void ptq__store(void *codes, int i, int32_t code) { ((uint8_t *)codes)[i] = (uint8_t)code; }

/* The distance of the code farthest from the zero point: 128 to 255 for 8 bits. */
static uint64_t ptq__code_reach(const ptq_qparams *q) {
    int32_t low, high;
    ptq_code_range(q->type, q->bits, &low, &high);
    return (uint64_t)(high - q->zero_point > q->zero_point - low ? high - q->zero_point
                                                                 : q->zero_point - low);
}

/* ReLU and ReLU6. y = max(x, 0), y = min(max(x, 0), 6). Codes keep their scale, so that no code is
   computed anew: they are clamped to those of 0 and 6. */

static float ptq__activate(float x, ptq_activation act) {
    if (act != PTQ_ACTIVATION_NONE && x < 0)
        return 0; /* a NaN passes: calibration must see it */
    return act == PTQ_ACTIVATION_RELU6 && x > 6 ? 6 : x;
}

static ptq__clamp ptq__clamp_of(const ptq_qparams *q, ptq_activation act) {
    ptq__clamp clamp;
    int32_t six = ptq_quantize(6, q);
    ptq_code_range(q->type, q->bits, &clamp.low, &clamp.high);
    clamp.zero_point = q->zero_point;
    if (act != PTQ_ACTIVATION_NONE)
        clamp.low = q->zero_point;
    if (act == PTQ_ACTIVATION_RELU6 && six < clamp.high)
        clamp.high = six;
    return clamp;
}

static void ptq__relu_f32(const ptq__step *step, const ptq__frame *frame) {
    const float *x = (const float *)frame->in[0];
    float *y = (float *)frame->out;
    int i;
    for (i = 0; i < step->elements; i++)
        y[i] = ptq__activate(x[i], step->act);
}

static void ptq__relu_int(const ptq__step *step, const ptq__frame *frame) {
    int i;
    for (i = 0; i < step->elements; i++) {
        int32_t code = ptq__load(frame->in[0], i, step->node->q.type);
        code = code < step->clamp.low ? step->clamp.low : code;
        ptq__store(frame->out, i, code > step->clamp.high ? step->clamp.high : code);
    }
}

/* Addition. y = act(a + b), all of one shape. Codes a and b of different scales, as ONNX Runtime's
   QLinearAdd:
       y = rne(fma(a, sa/sy, fma(b, sb/sy, zy - fma(sa/sy, za, (sb/sy) zb))))
   b's product is rounded first, then everything once: so the order of the operands matters, and is
   the graph's. */

static ptq__adder ptq__adder_of(const ptq_qparams *a, const ptq_qparams *b, const ptq_qparams *y,
                                ptq_activation act) {
    ptq__adder adder;
    float zero_b;
    adder.ratio_a = ptq__div(a->scale, y->scale);
    adder.ratio_b = ptq__div(b->scale, y->scale);
    zero_b = ptq__mul(adder.ratio_b, (float)b->zero_point);
    adder.offset = (float)y->zero_point - ptq__fma(adder.ratio_a, (float)a->zero_point, zero_b);
    adder.clamp = ptq__clamp_of(y, act);
    return adder;
}

static int32_t ptq__add_codes(const ptq__adder *adder, int32_t a, int32_t b) {
    float sum = ptq__fma((float)b, adder->ratio_b, adder->offset);
    sum = ptq__fma((float)a, adder->ratio_a, sum);
    return ptq__to_code(sum, 0, adder->clamp.low, adder->clamp.high);
}

static ptq_status ptq__add_shape(ptq_node *node, const int *a, const int *b, ptq_error *err) {
    if (memcmp(a, b, sizeof node->shape))
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node,
                             "adds %dx%dx%d and %dx%dx%d; shapes must be equal", a[0], a[1], a[2],
                             b[0], b[1], b[2]);
    memcpy(node->shape, a, sizeof node->shape);
    return PTQ_OK;
}

static void ptq__add_f32(const ptq__step *step, const ptq__frame *frame) {
    const float *a = (const float *)frame->in[0], *b = (const float *)frame->in[1];
    float *y = (float *)frame->out;
    int i;
    for (i = 0; i < step->elements; i++)
        y[i] = ptq__activate(a[i] + b[i], step->act);
}

static void ptq__add_int(const ptq__step *step, const ptq__frame *frame) {
    ptq_type a = step->from[0]->q.type, b = step->from[1]->q.type;
    int i;
    for (i = 0; i < step->elements; i++)
        ptq__store(frame->out, i,
                   ptq__add_codes(&step->adder, ptq__load(frame->in[0], i, a),
                                  ptq__load(frame->in[1], i, b)));
}

/* The scales of a sum's or an average's operands over that of the result: so far apart that float
   arithmetic would lose one, they are a mistake. Of a fused addition the first operand is the
   convolution's own result. */
static ptq_status ptq__check_ratios(const ptq_model *model, const ptq_node *node, ptq_error *err) {
    int k;
    for (k = 0; k < 2 && node->input[k] >= 0; k++) {
        const ptq_qparams *q = &model->node[node->input[k]].q;
        float in = node->residual && k == 0 ? node->mid.scale : q->scale;
        float ratio = ptq__div(in, node->q.scale);
        if (!ptq__is_normal(ratio) || ratio > 1e6f || ratio < 1e-12f)
            return ptq__bad_node(err, PTQ_BAD_NUMBER, node,
                                 "an operand's scale %g does not go with the result's %g",
                                 (double)in, (double)node->q.scale);
    }
    return PTQ_OK;
}

/* Windows: what convolutions and pools share. Along each axis
       out = (before + in + after - kernel) / stride + 1, rounded down. */

/* Size of the result along one axis, and the padding; 0 if no window fits. */
static int ptq__window(int size, int kernel, int stride, ptq_padding padding, int *before,
                       int *after) {
    int out = (size + stride - 1) / stride, total;
    if (padding == PTQ_PADDING_SAME) {
        total = (out - 1) * stride + kernel - size;
        *before = total < 0 ? 0 : total / 2;
        *after = total < 0 ? 0 : total - total / 2;
        return out;
    }
    if (padding == PTQ_PADDING_VALID)
        *before = *after = 0;
    total = size + *before + *after - kernel;
    return total < 0 ? 0 : total / stride + 1;
}

/* H x W x C -> H' x W' x C. Also fills in the padding that SAME and VALID stand for. */
static ptq_status ptq__window_shape(ptq_node *node, const int *in, const int *second,
                                    ptq_error *err) {
    const int *kernel = node->kernel, *stride = node->stride, *pad = node->pad;
    int axis;
    (void)second;
    for (axis = 0; axis < 2; axis++) {
        int *before = &node->pad[axis], *after = &node->pad[axis + 2];
        if (kernel[axis] < 1 || kernel[axis] > PTQ_MAX_KERNEL || stride[axis] < 1 ||
            stride[axis] > PTQ_MAX_KERNEL)
            return ptq__bad_node(err, PTQ_BAD_GRAPH, node,
                                 "kernel %dx%d with stride %dx%d; both must be 1 to %d", kernel[0],
                                 kernel[1], stride[0], stride[1], PTQ_MAX_KERNEL);
        if (node->padding == PTQ_PADDING_EXPLICIT &&
            (*before < 0 || *after < 0 || *before >= kernel[axis] || *after >= kernel[axis]))
            return ptq__bad_node(
                err, PTQ_BAD_GRAPH, node,
                "padding %d,%d,%d,%d must be at least 0 and less than the kernel %dx%d", pad[0],
                pad[1], pad[2], pad[3], kernel[0], kernel[1]);
        node->shape[axis] =
            ptq__window(in[axis], kernel[axis], stride[axis], node->padding, before, after);
        if (node->shape[axis] < 1)
            return ptq__bad_node(err, PTQ_BAD_GRAPH, node,
                                 "a kernel of %dx%d does not fit into its input of %dx%d",
                                 kernel[0], kernel[1], in[0], in[1]);
    }
    node->shape[2] = in[2];
    return PTQ_OK;
}

/* Convolution and dense layer.
       y[o] = act(b[o] + sum over i, u, v of w[o][i][u][v] x[i][u][v]),
   i over the input channels of o's group, u and v over the window; a fused addition makes of it
       add_act(y[o] + residual[o]), or residual[o] + y[o] on codes.
   On codes, with the zero point taken off the inputs, so that padding adds 0:
       acc = b[o] + sum of (w - zw) (x - zx),     y = clamp(rne(acc * m[o]) + zy),
   b in units of sx * sw[o], and m[o] = sx * sw[o] / sy. No accumulator leaves 32 bits. */

/* H x W x C -> H' x W' x channels */
static ptq_status ptq__conv_shape(ptq_node *node, const int *in, const int *residual,
                                  ptq_error *err) {
    const int *out = node->shape;
    if (node->groups < 1 || in[2] % node->groups || node->channels % node->groups)
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node,
                             "%d groups must divide %d input and %d output channels", node->groups,
                             in[2], node->channels);
    PTQ__TRY(ptq__window_shape(node, in, NULL, err));
    node->shape[2] = node->channels;
    if ((node->residual != PTQ_RESIDUAL_NONE) != (residual != NULL))
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node, "a fused addition goes with a second input");
    if (residual && memcmp(residual, out, sizeof node->shape))
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node,
                             "adds a residual of %dx%dx%d to a result of %dx%dx%d", residual[0],
                             residual[1], residual[2], out[0], out[1], out[2]);
    return PTQ_OK;
}

/* H x W x C -> 1 x 1 x channels */
static ptq_status ptq__dense_shape(ptq_node *node, const int *in, const int *second,
                                   ptq_error *err) {
    (void)in, (void)second, (void)err;
    node->shape[0] = node->shape[1] = 1;
    node->shape[2] = node->channels;
    return PTQ_OK;
}

/* Weight O x C / groups x KH x KW, bias O. */
static int ptq__conv_param(const ptq_node *node, const int *in, int param, int *dims) {
    if (param == PTQ_PARAM_BIAS)
        return !node->no_bias;
    dims[1] = in[2] / node->groups;
    dims[2] = node->kernel[0];
    dims[3] = node->kernel[1];
    return param == PTQ_PARAM_WEIGHT ? 4 : 0;
}

/* Weight O x (H * W * C), in the order in which the input lies in memory; bias O. */
static int ptq__dense_param(const ptq_node *node, const int *in, int param, int *dims) {
    if (param != PTQ_PARAM_WEIGHT)
        return param == PTQ_PARAM_BIAS && !node->no_bias;
    dims[1] = (int)ptq__shape_elements(3, in);
    return 2;
}

/* s_in * s_w / s_out in the order that the arithmetic prescribes; s_out 1 for real results. */
static float ptq__multiplier(const ptq_model *model, const ptq_node *node, int channel) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const ptq_qparams *out = node->residual ? &node->mid : &node->q;
    float product = ptq__mul(model->node[node->input[0]].q.scale,
                             weight->scale[weight->scales > 1 ? channel : 0]);
    if (!ptq__is_normal(product))
        return 0;
    return out->type == PTQ_TYPE_F32 ? product : ptq__div(product, out->scale);
}

/* Sum of |w - z| of one output channel. */
static uint64_t ptq__weight_mass(const ptq_tensor *weight, int channel) {
    size_t n = ptq_tensor_elements(weight) / (size_t)weight->dim[0], i;
    const int8_t *s8 = (const int8_t *)weight->data + (size_t)channel * n;
    uint64_t sum = 0;
    int32_t part = 0;
    if (weight->type == PTQ_TYPE_S8 && weight->zero_point == 0 && n < 1 << 23) {
        for (i = 0; i < n; i++) /* the usual case, in a loop that compilers make fast */
            part += s8[i] < 0 ? -s8[i] : s8[i];
        return (uint64_t)part;
    }
    for (i = 0; i < n; i++) {
        int32_t w = ptq__code(weight, (size_t)channel * n + i) - weight->zero_point;
        sum += (uint64_t)(w < 0 ? -w : w);
    }
    return sum;
}

/* No input whatever may make an accumulator leave int32, and no multiplier may be 0, infinite or
   denormal: proved here from the weights, so that kernels need not look. */
static ptq_status ptq__check_sums(const ptq_model *model, const ptq_node *node, ptq_error *err) {
    const ptq_qparams *in = &model->node[node->input[0]].q;
    const ptq_tensor *w = &node->param[PTQ_PARAM_WEIGHT], *b = &node->param[PTQ_PARAM_BIAS];
    uint64_t reach = node->dynamic ? 255 : ptq__code_reach(in); /* dynamic: any zero point */
    int c;
    for (c = 0; c < node->channels; c++) {
        uint64_t most = ptq__weight_mass(w, c) * reach;
        int64_t bias = b->rank && !node->dynamic ? ((const int32_t *)b->data)[c] : 0;
        most += (uint64_t)(bias < 0 ? -bias : bias);
        if (most > INT32_MAX)
            return ptq__bad_node(
                err, PTQ_BAD_NUMBER, node,
                "the accumulator of channel %d could reach %L and overflow 32 bits", c, most);
        if (!node->dynamic && !ptq__is_normal(ptq__multiplier(model, node, c)))
            return ptq__bad_node(err, PTQ_BAD_NUMBER, node,
                                 "scales %g (input), %g (weight %d) and %g (result) give no normal"
                                 " multiplier",
                                 (double)in->scale, (double)w->scale[w->scales > 1 ? c : 0], c,
                                 (double)(node->residual ? node->mid.scale : node->q.scale));
    }
    return node->residual && ptq__is_coded(node) ? ptq__check_ratios(model, node, err) : PTQ_OK;
}

/* Where the input under one tap begins, at channel 0; -1 in the padding. */
static int ptq__under(const ptq__step *step, int y, int x) {
    if (y < 0 || y >= step->in[0] || x < 0 || x >= step->in[1])
        return -1;
    return (y * step->in[1] + x) * step->in[2];
}

/* A window of 1 x 1 over all channels, without padding. */
static int ptq__is_direct(const ptq__step *step) {
    return step->kernel[0] * step->kernel[1] == 1 && step->groups == 1 && step->pad[0] == 0 &&
           step->pad[1] == 0;
}

/* The inputs of group g under the window at position p = y * W' + x of the result, in the order of
   the weights: I x KH x KW. So a result is the product of two plain vectors of `taps` numbers. What
   lies in that order already is not copied. */
static const float *ptq__gather_f32(const ptq__step *step, const float *x, int p, int g,
                                    float *patch) {
    int top = p / step->node->shape[1] * step->stride[0] - step->pad[0];
    int left = p % step->node->shape[1] * step->stride[1] - step->pad[1];
    int deep = step->in[2] / step->groups, area = step->kernel[0] * step->kernel[1], u, v, c;
    if (ptq__is_direct(step))
        return x + ptq__under(step, top, left);
    for (u = 0; u < step->kernel[0]; u++)
        for (v = 0; v < step->kernel[1]; v++) {
            int at = ptq__under(step, top + u, left + v);
            float *to = patch + u * step->kernel[1] + v;
            for (c = 0; c < deep; c++)
                to[c * area] = at < 0 ? 0 : x[at + g * deep + c];
        }
    return patch;
}

/* The same of codes less their zero point, so that padding, which stands for it, is 0. */
static void ptq__gather_codes(const ptq__step *step, const uint8_t *x, const ptq_qparams *q, int p,
                              int g, int16_t *patch) {
    int top = p / step->node->shape[1] * step->stride[0] - step->pad[0];
    int left = p % step->node->shape[1] * step->stride[1] - step->pad[1];
    int deep = step->in[2] / step->groups, area = step->kernel[0] * step->kernel[1], u, v, c;
    int flip = q->type == PTQ_TYPE_S8 ? 128 : 0, zero = q->zero_point + flip; /* s8 + 128 as u8 */
    for (u = 0; u < step->kernel[0]; u++)
        for (v = 0; v < step->kernel[1]; v++) {
            int at = ptq__under(step, top + u, left + v);
            int16_t *to = patch + u * step->kernel[1] + v;
            for (c = 0; c < deep; c++)
                to[c * area] = (int16_t)(at < 0 ? 0 : (x[at + g * deep + c] ^ flip) - zero);
        }
}

/* Eight partial sums: the order of additions is fixed, and a compiler may still use vectors. */
static float ptq__dot_f32(const float *a, const float *b, int n) {
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int i, j;
    for (i = 0; i + 8 <= n; i += 8)
        for (j = 0; j < 8; j++)
            sum[j] += a[i + j] * b[i + j];
    for (j = 0; i + j < n; j++)
        sum[j] += a[i + j] * b[i + j];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* The same of codes, exact. Blocks of 32: compilers turn them into vector code, where a plain loop
   stays scalar at -O2. */
static int32_t ptq__dot_s8(const int16_t *x, const int8_t *w, int n) {
    int32_t sum = 0;
    int i, j;
    for (i = 0; i + 32 <= n; i += 32) {
        int32_t part = 0;
        for (j = 0; j < 32; j++)
            part += x[i + j] * w[i + j];
        sum += part;
    }
    for (; i < n; i++)
        sum += x[i] * w[i];
    return sum;
}

/* sum x (w - zw) = sum x w - zw sum x. The two sums may wrap where their difference fits. */
static int32_t ptq__dot_u8(const int16_t *x, const uint8_t *w, int zero_point, int n) {
    uint32_t sum = 0, sum_x = 0;
    int i, j;
    for (i = 0; i + 32 <= n; i += 32) {
        int32_t part = 0, part_x = 0;
        for (j = 0; j < 32; j++)
            part += x[i + j] * w[i + j];
        for (j = 0; j < 32; j++)
            part_x += x[i + j];
        sum += (uint32_t)part;
        sum_x += (uint32_t)part_x;
    }
    for (; i < n; i++) {
        int32_t value = x[i];
        sum += (uint32_t)(value * w[i]);
        sum_x += (uint32_t)value;
    }
    return (int32_t)(sum - (uint32_t)zero_point * sum_x);
}

/* sum of (x - zx)(w - zw) for one channel: `taps` inputs with zx taken off already. */
static int32_t ptq__dot(const ptq__step *step, const int16_t *x, int channel) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    const int8_t *w = (const int8_t *)step->weight + (ptrdiff_t)channel * step->taps;
    return weight->type == PTQ_TYPE_S8 || weight->type == PTQ_TYPE_PACKED_S
               ? ptq__dot_s8(x, w, step->taps)
               : ptq__dot_u8(x, (const uint8_t *)w, weight->zero_point, step->taps);
}

/* What becomes of a sum that stands for element `at` of the result. The residual may lie where the
   result is written: each element is read before. */
static void ptq__finish_real(const ptq__step *step, const ptq__frame *frame, int at, float sum) {
    const float *residual = (const float *)frame->in[1];
    sum = ptq__activate(sum, step->act);
    if (frame->mid)
        ((float *)frame->mid)[at] = sum;
    if (residual)
        sum = ptq__activate(sum + residual[at], step->node->add_act);
    ((float *)frame->out)[at] = sum;
}

/* The same of an accumulator; the logits may stay real numbers. */
static void ptq__finish_code(const ptq__step *step, const ptq__frame *frame, int at, int32_t acc,
                             float multiplier) {
    const ptq__clamp *clamp = &step->clamp;
    int32_t code, other;
    if (!ptq__is_coded(step->node)) {
        ptq__finish_real(step, frame, at, ptq__mul((float)acc, multiplier));
        return;
    }
    code = ptq_requantize(acc, multiplier, clamp->zero_point, clamp->low, clamp->high);
    if (frame->mid)
        ptq__store(frame->mid, at, code);
    if (frame->in[1]) {
        other = ptq__load(frame->in[1], at, step->from[1]->q.type);
        code = step->node->residual == PTQ_RESIDUAL_FIRST
                   ? ptq__add_codes(&step->adder, other, code)
                   : ptq__add_codes(&step->adder, code, other);
    }
    ptq__store(frame->out, at, code);
}

static void ptq__conv_f32(const ptq__step *step, const ptq__frame *frame) {
    const float *weight = (const float *)step->weight, *patch;
    const float *bias = (const float *)step->node->param[PTQ_PARAM_BIAS].data;
    int channels = step->node->shape[2], each = channels / step->groups, p, g, o;
    for (p = 0; p < step->elements / channels; p++)
        for (g = 0; g < step->groups; g++) {
            patch =
                ptq__gather_f32(step, (const float *)frame->in[0], p, g, (float *)frame->scratch);
            for (o = g * each; o < (g + 1) * each; o++) {
                float sum = ptq__dot_f32(patch, weight + (ptrdiff_t)o * step->taps, step->taps);
                ptq__finish_real(step, frame, p * channels + o, sum + (bias ? bias[o] : 0));
            }
        }
}

static void ptq__conv_int(const ptq__step *step, const ptq__frame *frame) {
    const int32_t *bias = (const int32_t *)step->node->param[PTQ_PARAM_BIAS].data;
    int16_t *patch = (int16_t *)frame->scratch;
    int channels = step->node->shape[2], each = channels / step->groups, p, g, o;
    for (p = 0; p < step->elements / channels; p++)
        for (g = 0; g < step->groups; g++) {
            ptq__gather_codes(step, (const uint8_t *)frame->in[0], &step->from[0]->q, p, g, patch);
            for (o = g * each; o < (g + 1) * each; o++)
                ptq__finish_code(step, frame, p * channels + o,
                                 ptq__dot(step, patch, o) + (bias ? bias[o] : 0),
                                 step->multiplier[o]);
        }
}

/* Dynamic quantization: integer weights on real inputs. Codes of a real tensor under its own
   range. */
static ptq_qparams ptq__quantize_input(const float *x, int n, uint8_t *codes) {
    ptq_qparams q;
    float low = 0, high = 0;
    int i;
    for (i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    if (ptq_choose_qparams(low, high, PTQ_TYPE_U8, 8, 0, &q, NULL) != PTQ_OK)
        ptq_choose_qparams(0, 0, PTQ_TYPE_U8, 8, 0, &q, NULL); /* too small to matter: all 0 */
    for (i = 0; i < n; i++)
        codes[i] = (uint8_t)ptq_quantize(x[i], &q);
    return q;
}

/* The range of this image's input gives its codes; sums of integer products become real numbers at
   once: y = act(acc * (sx * sw[o]) + b[o]). */
static void ptq__conv_dynamic(const ptq__step *step, const ptq__frame *frame) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    const float *bias = (const float *)step->node->param[PTQ_PARAM_BIAS].data;
    int16_t *patch = (int16_t *)frame->scratch;
    uint8_t *codes = (uint8_t *)(patch + step->taps);
    ptq_qparams q = ptq__quantize_input((const float *)frame->in[0],
                                        step->in[0] * step->in[1] * step->in[2], codes);
    int channels = step->node->shape[2], each = channels / step->groups, p, g, o;
    for (p = 0; p < step->elements / channels; p++)
        for (g = 0; g < step->groups; g++) {
            ptq__gather_codes(step, codes, &q, p, g, patch);
            for (o = g * each; o < (g + 1) * each; o++) {
                float scale = ptq__mul(q.scale, weight->scale[weight->scales > 1 ? o : 0]);
                float sum = ptq__mul((float)ptq__dot(step, patch, o), scale);
                ptq__finish_real(step, frame, p * channels + o, sum + (bias ? bias[o] : 0));
            }
        }
}

/* Batch norm. y = gamma (x - mean) / sqrt(variance + epsilon) + beta, each parameter of C numbers.
   On real numbers only: [FUSE] folds it into the convolution before it. */

static ptq_status ptq__norm_shape(ptq_node *node, const int *in, const int *second,
                                  ptq_error *err) {
    (void)second;
    if (!(node->epsilon >= 0 && node->epsilon <= 1))
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node, "epsilon %g is not in 0 to 1",
                             (double)node->epsilon);
    memcpy(node->shape, in, sizeof node->shape);
    return PTQ_OK;
}

static int ptq__norm_param(const ptq_node *node, const int *in, int param, int *dims) {
    (void)node, (void)in, (void)param, (void)dims;
    return 1;
}

static void ptq__norm_f32(const ptq__step *step, const ptq__frame *frame) {
    const ptq_tensor *param = step->node->param;
    const float *x = (const float *)frame->in[0];
    float *y = (float *)frame->out;
    int channels = step->in[2], i, c;
    for (c = 0; c < channels; c++) {
        float mean = ((const float *)param[PTQ_PARAM_MEAN].data)[c];
        float variance = ((const float *)param[PTQ_PARAM_VARIANCE].data)[c];
        float beta = ((const float *)param[PTQ_PARAM_BIAS].data)[c];
        float g = ((const float *)param[PTQ_PARAM_WEIGHT].data)[c] /
                  sqrtf(variance + step->node->epsilon);
        for (i = c; i < step->elements; i += channels)
            y[i] = (x[i] - mean) * g + beta;
    }
}

/* Pools: the largest number under each window, or the average; the global one has a single window,
   the whole image. Padding is ignored, unless an average has include_pad: then it counts as zeros.
   The largest code is the code of the largest number, whatever the scale. */

/* The part of a window that lies inside the image: rows u of begin[0] <= u < end[0], columns
   likewise. Never empty, since padding is less than the kernel. */
typedef struct ptq__clip {
    int begin[2], end[2];
} ptq__clip;

static ptq__clip ptq__clip_window(const ptq__step *step, int p) {
    ptq__clip clip;
    int axis, at[2];
    at[0] = p / step->node->shape[1];
    at[1] = p % step->node->shape[1];
    for (axis = 0; axis < 2; axis++) {
        int first = at[axis] * step->stride[axis] - step->pad[axis];
        int last = first + step->kernel[axis];
        clip.begin[axis] = first < 0 ? 0 : first;
        clip.end[axis] = last > step->in[axis] ? step->in[axis] : last;
    }
    return clip;
}

/* How many numbers an average is taken over. */
static int ptq__pool_taps(const ptq__step *step, const ptq__clip *clip) {
    if (step->node->include_pad)
        return step->kernel[0] * step->kernel[1];
    return (clip->end[0] - clip->begin[0]) * (clip->end[1] - clip->begin[1]);
}

/* One number of a pool's result; x: the input from this channel on. */
typedef float (*ptq__pool_real)(const ptq__step *step, const float *x, const ptq__clip *clip);
typedef int32_t (*ptq__pool_code)(const ptq__step *step, const uint8_t *x, const ptq__clip *clip);

static void ptq__pool_f32(const ptq__step *step, const ptq__frame *frame, ptq__pool_real one) {
    float *y = (float *)frame->out;
    int channels = step->in[2], p, c;
    for (p = 0; p < step->elements / channels; p++) {
        ptq__clip clip = ptq__clip_window(step, p);
        for (c = 0; c < channels; c++)
            *y++ = one(step, (const float *)frame->in[0] + c, &clip);
    }
}

static void ptq__pool_int(const ptq__step *step, const ptq__frame *frame, ptq__pool_code one) {
    int channels = step->in[2], i = 0, p, c;
    for (p = 0; p < step->elements / channels; p++) {
        ptq__clip clip = ptq__clip_window(step, p);
        for (c = 0; c < channels; c++)
            ptq__store(frame->out, i++, one(step, (const uint8_t *)frame->in[0] + c, &clip));
    }
}

static float ptq__largest(const ptq__step *step, const float *x, const ptq__clip *clip) {
    int u, v, width = step->in[1], deep = step->in[2];
    float most = x[(clip->begin[0] * width + clip->begin[1]) * deep];
    for (u = clip->begin[0]; u < clip->end[0]; u++)
        for (v = clip->begin[1]; v < clip->end[1]; v++)
            if (x[(u * width + v) * deep] > most)
                most = x[(u * width + v) * deep];
    return most;
}

static int32_t ptq__largest_code(const ptq__step *step, const uint8_t *x, const ptq__clip *clip) {
    int u, v, width = step->in[1], deep = step->in[2];
    int32_t most = INT32_MIN;
    for (u = clip->begin[0]; u < clip->end[0]; u++)
        for (v = clip->begin[1]; v < clip->end[1]; v++) {
            int32_t code = ptq__load(x, (u * width + v) * deep, step->node->q.type);
            most = code > most ? code : most;
        }
    return most;
}

static float ptq__average(const ptq__step *step, const float *x, const ptq__clip *clip) {
    int u, v, width = step->in[1], deep = step->in[2];
    float sum = 0;
    for (u = clip->begin[0]; u < clip->end[0]; u++)
        for (v = clip->begin[1]; v < clip->end[1]; v++)
            sum += x[(u * width + v) * deep];
    return sum / (float)ptq__pool_taps(step, clip);
}

/* m = sx / (sy * n), as ONNX Runtime's QLinearGlobalAveragePool. */
static float ptq__average_multiplier(const ptq_qparams *x, const ptq_qparams *y, int n) {
    return ptq__div(x->scale, ptq__mul(y->scale, (float)n));
}

/* clamp(rne(sum * m) + zy), `sum` of n codes less their zero point. */
static int32_t ptq__average_code(const ptq_qparams *x, const ptq_qparams *y, int32_t sum, int n) {
    int32_t low, high;
    ptq_code_range(y->type, y->bits, &low, &high);
    return ptq_requantize(sum, ptq__average_multiplier(x, y, n), y->zero_point, low, high);
}

static int32_t ptq__average_codes(const ptq__step *step, const uint8_t *x, const ptq__clip *clip) {
    const ptq_qparams *q = &step->from[0]->q;
    int u, v, width = step->in[1], deep = step->in[2];
    int32_t sum = 0;
    for (u = clip->begin[0]; u < clip->end[0]; u++)
        for (v = clip->begin[1]; v < clip->end[1]; v++)
            sum += ptq__load(x, (u * width + v) * deep, q->type) - q->zero_point;
    return ptq__average_code(q, &step->node->q, sum, ptq__pool_taps(step, clip));
}

static void ptq__max_pool_f32(const ptq__step *step, const ptq__frame *frame) {
    ptq__pool_f32(step, frame, ptq__largest);
}

static void ptq__max_pool_int(const ptq__step *step, const ptq__frame *frame) {
    ptq__pool_int(step, frame, ptq__largest_code);
}

static void ptq__avg_pool_f32(const ptq__step *step, const ptq__frame *frame) {
    ptq__pool_f32(step, frame, ptq__average);
}

static void ptq__avg_pool_int(const ptq__step *step, const ptq__frame *frame) {
    ptq__pool_int(step, frame, ptq__average_codes);
}

/* H x W x C -> 1 x 1 x C */
static ptq_status ptq__global_shape(ptq_node *node, const int *in, const int *second,
                                    ptq_error *err) {
    (void)second, (void)err;
    node->shape[0] = node->shape[1] = 1;
    node->shape[2] = in[2];
    return PTQ_OK;
}

/* No sum of an average over the whole image may leave 32 bits. Windows are small enough. */
static ptq_status ptq__check_average(const ptq_model *model, const ptq_node *node, ptq_error *err) {
    const ptq_node *in = &model->node[node->input[0]];
    uint64_t most = (uint64_t)in->shape[0] * (uint64_t)in->shape[1] * ptq__code_reach(&in->q);
    if (most > INT32_MAX)
        return ptq__bad_node(err, PTQ_BAD_NUMBER, node,
                             "the sum of %dx%d codes could reach %L and overflow 32 bits",
                             in->shape[0], in->shape[1], most);
    return ptq__check_ratios(model, node, err);
}

/* Softmax. y[c] = exp(x[c] - max) / sum of all: the largest term is 1, so nothing overflows. */

static ptq_status ptq__softmax_shape(ptq_node *node, const int *in, const int *second,
                                     ptq_error *err) {
    (void)second;
    if (in[0] != 1 || in[1] != 1)
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node,
                             "softmax works on 1x1xC, its input is %dx%dx%d", in[0], in[1], in[2]);
    memcpy(node->shape, in, sizeof node->shape);
    return PTQ_OK;
}

/* x and y: n numbers each, perhaps the same ones. */
static void ptq__softmax(const float *x, float *y, int n) {
    float max = x[ptq_argmax(x, n)], sum = 0;
    int i;
    for (i = 0; i < n; i++)
        sum += y[i] = expf(x[i] - max);
    for (i = 0; i < n; i++)
        y[i] /= sum;
}

static void ptq__softmax_f32(const ptq__step *step, const ptq__frame *frame) {
    ptq__softmax((const float *)frame->in[0], (float *)frame->out, step->elements);
}

/* The borders between real numbers and codes: q = clamp(rne(x / s) + z), x = s (q - z). */

static void ptq__quantize_all(const ptq__step *step, const ptq__frame *frame) {
    int i;
    for (i = 0; i < step->elements; i++)
        ptq__store(frame->out, i, ptq_quantize(((const float *)frame->in[0])[i], &step->node->q));
}

static void ptq__dequantize_all(const ptq__step *step, const ptq__frame *frame) {
    const ptq_qparams *q = &step->from[0]->q;
    int i;
    for (i = 0; i < step->elements; i++)
        ((float *)frame->out)[i] = ptq_dequantize(ptq__load(frame->in[0], i, q->type), q);
}

/* The keys of the graph text, as bits. A row of the table says which of them a node may have, and
   with that what it has: weights, a window, a fused activation. */
enum {
    PTQ__KEY_IN = 1 << 0,
    PTQ__KEY_OUT = 1 << 1,
    PTQ__KEY_Q = 1 << 2,
    PTQ__KEY_SHAPE = 1 << 3,
    PTQ__KEY_MEAN = 1 << 4,
    PTQ__KEY_STD = 1 << 5,
    PTQ__KEY_CHANNELS = 1 << 6,
    PTQ__KEY_BIAS = 1 << 7,
    PTQ__KEY_W = 1 << 8,
    PTQ__KEY_DYNAMIC = 1 << 9,
    PTQ__KEY_ACT = 1 << 10,
    PTQ__KEY_KERNEL = 1 << 11,
    PTQ__KEY_STRIDE = 1 << 12,
    PTQ__KEY_PAD = 1 << 13,
    PTQ__KEY_INCLUDE_PAD = 1 << 14,
    PTQ__KEY_GROUPS = 1 << 15,
    PTQ__KEY_ADD = 1 << 16,
    PTQ__KEY_ADD_ACT = 1 << 17,
    PTQ__KEY_MID = 1 << 18,
    PTQ__KEY_EPSILON = 1 << 19,
    PTQ__INPUT_KEYS = PTQ__KEY_Q | PTQ__KEY_SHAPE | PTQ__KEY_MEAN | PTQ__KEY_STD,
    PTQ__PLAIN_KEYS = PTQ__KEY_IN | PTQ__KEY_OUT | PTQ__KEY_Q, /* of all with operands */
    PTQ__WINDOW_KEYS = PTQ__PLAIN_KEYS | PTQ__KEY_KERNEL | PTQ__KEY_STRIDE | PTQ__KEY_PAD,
    PTQ__DENSE_KEYS = PTQ__PLAIN_KEYS | PTQ__KEY_CHANNELS | PTQ__KEY_BIAS | PTQ__KEY_W |
                      PTQ__KEY_DYNAMIC | PTQ__KEY_ACT,
    PTQ__CONV_KEYS = PTQ__DENSE_KEYS | PTQ__WINDOW_KEYS | PTQ__KEY_GROUPS | PTQ__KEY_ADD |
                     PTQ__KEY_ADD_ACT | PTQ__KEY_MID
};

/* How an operator is converted: what its integer form does with codes. */
typedef enum ptq__codes {
    PTQ__NO_CODES,     /* there is none: real numbers on both sides */
    PTQ__SAME_CODES,   /* the input's codes are chosen among, so its scale stays */
    PTQ__OWN_CODES,    /* the result has a scale of its own */
    PTQ__WEIGHT_CODES, /* likewise, where the weights are integers too */
    PTQ__LOGIT_CODES,  /* likewise; or real numbers, straight from the accumulators */
    PTQ__TO_CODES,     /* real numbers to codes */
    PTQ__FROM_CODES,   /* and back */
    PTQ__INPUT_CODES   /* the image: whichever its readers need */
} ptq__codes;

/* Other properties, as bits. */
enum {
    PTQ__IN_PLACE = 1,   /* element by element: the result may lie over the first operand */
    PTQ__TAKES_NORM = 2, /* a batch norm behind it folds into its weights */
    PTQ__WHOLE = 4,      /* the window is the whole image */
    PTQ__LAST = 8        /* only as the last node, behind the logits */
};

/* What [GRAPH] asks about a node. Any may be NULL. */
typedef struct ptq__rules {
    /* Fills node->shape from the operands' shapes and checks its attributes; NULL: as the first
       operand. `second` is NULL where there is no such operand. */
    ptq_status (*shape)(ptq_node *node, const int *in, const int *second, ptq_error *err);
    /* Rank of a parameter, 0 if there is none; dims come in as {C', 1, 1, 1}. */
    int (*param)(const ptq_node *node, const int *in, int param, int *dims);
    /* What the integer kernel relies on. */
    ptq_status (*check)(const ptq_model *model, const ptq_node *node, ptq_error *err);
} ptq__rules;

/* Scalar kernels: on real numbers, on codes, on real numbers with integer weights. */
typedef struct ptq__kernels {
    ptq__kernel real, integer, dynamic;
} ptq__kernels;

typedef struct ptq__operator {
    const char *name; /* in the graph text */
    int operands;     /* a fused residual aside */
    unsigned keys, properties;
    ptq__codes codes;
    ptq_fusion_kind fusion; /* how [FUSE] moves it into the node before it */
    ptq_activation act;     /* which one the operator itself is */
    ptq__rules rules;
    ptq__kernels kernels;
} ptq__operator;

/* The table. To add an operator:
     1. ptq_op gets an enumerator, with the formula beside it.
     2. Above, a block with its formula and shapes, its shape rule if the result is not as its
        operand, its parameters, and both scalar kernels: for every element of the result, the real
        number, and the code. What the code depends on is checked by a function beside them.
     3. Here, in the order of ptq_op, a row: the kernels, how many operands, the keys of the graph
        text that it takes, how it is converted, and whether it fuses.
     4. If it has attributes of its own, ptq_node gets a member, [GRAPH TEXT] a key. If it is to be
        fast, part three gets an entry; until then the scalar kernel runs on every processor.
   Nothing else asks which operator a node is: the builder, files, checks, cost, fusion, layout and
   conversion go by the row. The tests find a new row by themselves where they go through all. */
/* clang-format off */
static const ptq__operator ptq__operators[PTQ_OP_COUNT] = {
    {"input", 0, PTQ__INPUT_KEYS, 0, PTQ__INPUT_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        {NULL, NULL, NULL}, {NULL, NULL, NULL}},
    {"conv2d", 1, PTQ__CONV_KEYS, PTQ__TAKES_NORM, PTQ__WEIGHT_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, {ptq__conv_shape, ptq__conv_param, ptq__check_sums},
        {ptq__conv_f32, ptq__conv_int, ptq__conv_dynamic}},
    {"batch_norm", 1, PTQ__PLAIN_KEYS | PTQ__KEY_EPSILON, PTQ__IN_PLACE, PTQ__NO_CODES,
        PTQ_FUSION_BATCH_NORM, PTQ_ACTIVATION_NONE, {ptq__norm_shape, ptq__norm_param, NULL},
        {ptq__norm_f32, NULL, NULL}},
    {"relu", 1, PTQ__PLAIN_KEYS, PTQ__IN_PLACE, PTQ__SAME_CODES, PTQ_FUSION_ACTIVATION,
        PTQ_ACTIVATION_RELU, {NULL, NULL, NULL}, {ptq__relu_f32, ptq__relu_int, NULL}},
    {"relu6", 1, PTQ__PLAIN_KEYS, PTQ__IN_PLACE, PTQ__SAME_CODES, PTQ_FUSION_ACTIVATION,
        PTQ_ACTIVATION_RELU6, {NULL, NULL, NULL}, {ptq__relu_f32, ptq__relu_int, NULL}},
    {"add", 2, PTQ__PLAIN_KEYS | PTQ__KEY_ACT, PTQ__IN_PLACE, PTQ__OWN_CODES, PTQ_FUSION_RESIDUAL,
        PTQ_ACTIVATION_NONE, {ptq__add_shape, NULL, ptq__check_ratios},
        {ptq__add_f32, ptq__add_int, NULL}},
    {"max_pool", 1, PTQ__WINDOW_KEYS, 0, PTQ__SAME_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        {ptq__window_shape, NULL, NULL}, {ptq__max_pool_f32, ptq__max_pool_int, NULL}},
    {"avg_pool", 1, PTQ__WINDOW_KEYS | PTQ__KEY_INCLUDE_PAD, 0, PTQ__OWN_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, {ptq__window_shape, NULL, ptq__check_ratios},
        {ptq__avg_pool_f32, ptq__avg_pool_int, NULL}},
    {"global_avg_pool", 1, PTQ__PLAIN_KEYS, PTQ__WHOLE, PTQ__OWN_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, {ptq__global_shape, NULL, ptq__check_average},
        {ptq__avg_pool_f32, ptq__avg_pool_int, NULL}},
    {"dense", 1, PTQ__DENSE_KEYS, 0, PTQ__LOGIT_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        {ptq__dense_shape, ptq__dense_param, ptq__check_sums},
        {ptq__conv_f32, ptq__conv_int, ptq__conv_dynamic}},
    {"softmax", 1, PTQ__PLAIN_KEYS, PTQ__LAST, PTQ__NO_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        {ptq__softmax_shape, NULL, NULL}, {ptq__softmax_f32, NULL, NULL}},
    {"quantize", 1, PTQ__PLAIN_KEYS, 0, PTQ__TO_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        {NULL, NULL, NULL}, {NULL, ptq__quantize_all, NULL}},
    {"dequantize", 1, PTQ__PLAIN_KEYS, 0, PTQ__FROM_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        {NULL, NULL, NULL}, {ptq__dequantize_all, NULL, NULL}},
};
/* clang-format on */

static const ptq__operator *ptq__operator_of(const ptq_node *node) {
    return &ptq__operators[node->op];
}

static int ptq__has_key(const ptq_node *node, unsigned key) {
    return (ptq__operators[node->op].keys & key) != 0;
}

/* Weights that can be quantized. */
static int ptq__has_weight(ptq_op op) { return (ptq__operators[op].keys & PTQ__KEY_W) != 0; }

/* How a result is clamped: what is fused behind the operator, or the operator itself. */
static ptq_activation ptq__act_of(const ptq_node *node) {
    ptq_activation own = ptq__operators[node->op].act;
    return own ? own : node->act;
}

/* The geometry of a step, of which node, operands and index are set, and the constants of its
   integer kernel. */
static void ptq__describe_step(ptq__step *step) {
    const ptq_node *node = step->node, *a = step->from[0], *b = step->from[1];
    const ptq_qparams *first = a ? &a->q : NULL, *second = b ? &b->q : NULL;
    unsigned properties = ptq__operator_of(node)->properties;
    int axis, window = ptq__has_key(node, PTQ__KEY_KERNEL);
    step->elements = (int)ptq__shape_elements(3, node->shape);
    memcpy(step->in, a ? a->shape : node->shape, sizeof step->in);
    if (ptq__has_weight(node->op) && !window) {
        step->in[2] *= step->in[0] * step->in[1];
        step->in[0] = step->in[1] = 1;
    }
    for (axis = 0; axis < 2; axis++) {
        step->kernel[axis] = properties & PTQ__WHOLE ? step->in[axis] : node->kernel[axis];
        step->stride[axis] = node->stride[axis];
        step->pad[axis] = node->pad[axis];
    }
    step->groups = node->groups;
    if (ptq__has_weight(node->op))
        step->taps = step->in[2] / step->groups * step->kernel[0] * step->kernel[1];
    step->act = ptq__act_of(node);
    if (!ptq__is_coded(node))
        return;
    step->clamp = ptq__clamp_of(node->residual ? &node->mid : &node->q, step->act);
    if (node->residual == PTQ_RESIDUAL_FIRST)
        step->adder = ptq__adder_of(second, &node->mid, &node->q, node->add_act);
    else if (node->residual)
        step->adder = ptq__adder_of(&node->mid, second, &node->q, node->add_act);
    else if (second)
        step->adder = ptq__adder_of(first, second, &node->q, node->act);
}

/* The scalar kernel of a step, and the memory that it needs for itself: the taps of one result, and
   the codes of a dynamic input. */
static void ptq__choose_kernel(ptq__step *step, ptq_mode mode) {
    const ptq__kernels *kernels = &ptq__operator_of(step->node)->kernels;
    size_t taps = (size_t)step->taps;
    step->run = mode == PTQ_MODE_INTEGER   ? kernels->integer
                : mode == PTQ_MODE_DYNAMIC ? kernels->dynamic
                                           : kernels->real;
    if (!ptq__has_weight(step->node->op))
        return;
    if (mode == PTQ_MODE_INTEGER || mode == PTQ_MODE_DYNAMIC)
        step->scratch = taps * sizeof(int16_t);
    else
        step->scratch = ptq__is_direct(step) ? 0 : taps * sizeof(float);
    if (mode == PTQ_MODE_DYNAMIC)
        step->scratch += (size_t)(step->in[0] * step->in[1] * step->in[2]);
}

/* ---- [GRAPH] ----------------------------------------------------------------------------- */

PTQ_API const char *ptq_op_name(ptq_op op) {
    static const char *const name[] = {
#define PTQ_X(name, text) text,
        PTQ_OP_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)op < PTQ_OP_COUNT ? name[op] : "?";
}

static const char *ptq__act_name(ptq_activation act) {
    return act == PTQ_ACTIVATION_RELU ? "relu" : act == PTQ_ACTIVATION_RELU6 ? "relu6" : "none";
}

static int ptq__is_name(const char *name, size_t length) {
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

PTQ_API const char *ptq_mode_name(ptq_mode mode) {
    static const char *const name[] = {"integer", "dynamic", "half", "float"};
    return (unsigned)mode < sizeof name / sizeof name[0] ? name[mode] : "?";
}

PTQ_API ptq_mode ptq_node_mode(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    if (ptq__has_weight(node->op)) {
        if (!ptq__is_integer_type(weight->type))
            return weight->type == PTQ_TYPE_F16 ? PTQ_MODE_HALF : PTQ_MODE_FLOAT;
        return node->dynamic ? PTQ_MODE_DYNAMIC : PTQ_MODE_INTEGER;
    }
    return ptq__is_coded(node) ? PTQ_MODE_INTEGER : PTQ_MODE_FLOAT;
}

PTQ_API ptq_status ptq_model_create(const ptq_allocator *allocator, ptq_model **out,
                                    ptq_error *err) {
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

static void ptq__free_metas(ptq_meta *meta, int metas, const ptq_allocator *allocator) {
    int i;
    for (i = 0; i < metas; i++) {
        ptq__free(allocator, meta[i].key);
        ptq__free(allocator, meta[i].value);
    }
    ptq__free(allocator, meta);
}

PTQ_API void ptq_model_free(ptq_model *model) {
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

static int ptq__find(const ptq_model *model, const char *name, size_t length) {
    int i;
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        if ((strlen(node->name) == length && !memcmp(node->name, name, length)) ||
            (strlen(node->out) == length && !memcmp(node->out, name, length)))
            return i;
    }
    return -1;
}

PTQ_API int ptq_model_find(const ptq_model *model, const char *name) {
    return ptq__find(model, name, strlen(name));
}

PTQ_API int ptq_model_logits(const ptq_model *model) {
    int last = model->nodes - 1;
    return last > 0 && model->node[last].op == PTQ_OP_SOFTMAX ? model->node[last].input[0] : last;
}

/* Fills shape and padding of a node whose attributes and inputs are set. */
static ptq_status ptq__infer(const ptq_model *model, ptq_node *node, ptq_error *err) {
    const ptq__rules *rules = &ptq__operator_of(node)->rules;
    const int *in = node->input[0] >= 0 ? model->node[node->input[0]].shape : NULL;
    const int *second = node->input[1] >= 0 ? model->node[node->input[1]].shape : NULL;
    if (rules->shape)
        PTQ__TRY(rules->shape(node, in, second, err));
    else if (in)
        memcpy(node->shape, in, sizeof node->shape);
    if (!ptq__shape_elements(3, node->shape))
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node,
                             "shape %dx%dx%d is empty or has more than %d elements", node->shape[0],
                             node->shape[1], node->shape[2], PTQ_MAX_ELEMENTS);
    return PTQ_OK;
}

/* Rank and dimensions that a parameter must have; rank 0 if the operator has no such parameter. */
static int ptq__param_shape(const ptq_model *model, const ptq_node *node, int param, int *dims) {
    const ptq__rules *rules = &ptq__operator_of(node)->rules;
    dims[0] = node->shape[2];
    dims[1] = dims[2] = dims[3] = 1;
    return rules->param ? rules->param(node, model->node[node->input[0]].shape, param, dims) : 0;
}

/* "weight" of "conv1.weight". Batch norm has PyTorch's names. */
static const char *ptq__param_name(int param) {
    static const char *const name[] = {"weight", "bias", "running_mean", "running_var"};
    return name[param];
}

/* Weights keep the type that they have, or are announced with. Biases go with them: sums of integer
   products on integer inputs, else real numbers. */
static ptq_type ptq__param_type(const ptq_node *node, int param) {
    ptq_type type = node->param[PTQ_PARAM_WEIGHT].type;
    if (!ptq__has_weight(node->op))
        return PTQ_TYPE_F32;
    if (param == PTQ_PARAM_WEIGHT)
        return type;
    return ptq__is_integer_type(type) && !node->dynamic ? PTQ_TYPE_S32 : PTQ_TYPE_F32;
}

static ptq_status ptq__create_params(const ptq_model *model, ptq_node *node, ptq_error *err) {
    const float one = 1;
    int param, dims[PTQ_MAX_RANK], rank, c;
    for (param = 0; param < PTQ_PARAM_COUNT; param++) {
        rank = ptq__param_shape(model, node, param, dims);
        if (!rank)
            continue;
        if (!ptq__shape_elements(rank, dims))
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: its %s would have more than %d"
                                 " elements",
                                 node->name, ptq__param_name(param), PTQ_MAX_ELEMENTS);
        PTQ__TRY(ptq_tensor_create(&node->param[param], ptq__param_type(node, param),
                                   node->param[param].bits, rank, dims, &model->allocator, err));
        if (ptq__is_integer_type(node->param[param].type))
            PTQ__TRY(ptq_tensor_set_scale(&node->param[param], &one, 1, 0, &model->allocator, err));
    }
    if (node->op == PTQ_OP_BATCH_NORM)
        for (c = 0; c < node->shape[2]; c++)
            ((float *)node->param[PTQ_PARAM_WEIGHT].data)[c] =
                ((float *)node->param[PTQ_PARAM_VARIANCE].data)[c] = 1;
    return PTQ_OK;
}

static ptq_status ptq__check_new_name(const ptq_model *model, const char *name, ptq_error *err) {
    if (!ptq__is_name(name, strlen(name)))
        return ptq_error_set(err, PTQ_BAD_GRAPH, "'%s' is no node name: 1 to %d of A-Z a-z 0-9 _ .",
                             ptq__quoted(ptq__span_of(name)).text, PTQ_NAME_SIZE - 1);
    if (ptq_model_find(model, name) >= 0)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "there are two nodes or tensors named %s", name);
    return PTQ_OK;
}

static ptq_status ptq__check_inputs(const ptq_model *model, const ptq_node *node, int index,
                                    ptq_error *err) {
    int k, need = ptq__operator_of(node)->operands + (node->residual != PTQ_RESIDUAL_NONE);
    (void)model;
    if ((index == 0) != (node->op == PTQ_OP_INPUT))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: the first node, and no other, must be the input",
                             node->name);
    for (k = 0; k < 2; k++)
        if (k < need ? node->input[k] < 0 || node->input[k] >= index : node->input[k] != -1)
            return ptq_error_set(err, PTQ_BAD_GRAPH,
                                 "node %s: needs %d inputs, each an earlier node", node->name,
                                 need);
    for (k = 0; k < need; k++)
        if (model->node[node->input[k]].op == PTQ_OP_SOFTMAX)
            return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: softmax can only be the last node",
                                 node->name);
    return PTQ_OK;
}

/* The attributes that passes and files set, against each other. */
static ptq_status ptq__check_attributes(const ptq_node *node, ptq_error *err) {
    if ((unsigned)node->op >= PTQ_OP_COUNT || (unsigned)node->padding > PTQ_PADDING_EXPLICIT ||
        (unsigned)node->act > PTQ_ACTIVATION_RELU6 ||
        (unsigned)node->add_act > PTQ_ACTIVATION_RELU6 ||
        (unsigned)node->residual > PTQ_RESIDUAL_SECOND)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: an attribute is none of its kind",
                             node->name);
    if (node->act != PTQ_ACTIVATION_NONE && !ptq__has_key(node, PTQ__KEY_ACT))
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: a %s has no fused activation",
                             node->name, ptq_op_name(node->op));
    if (node->residual != PTQ_RESIDUAL_NONE && !ptq__has_key(node, PTQ__KEY_ADD))
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: a %s has no fused addition", node->name,
                             ptq_op_name(node->op));
    if (node->add_act != PTQ_ACTIVATION_NONE && node->residual == PTQ_RESIDUAL_NONE)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: add_act without a fused addition",
                             node->name);
    return PTQ_OK;
}

/* Appends a node whose attributes are set; `out` may be empty. */
static ptq_status ptq__append(ptq_model *model, const ptq_node *prototype, ptq_error *err) {
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
    PTQ__TRY(ptq__check_attributes(&node, err));
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
static ptq_node ptq__blank(ptq_op op, int first, int second) {
    ptq_node node;
    memset(&node, 0, sizeof node);
    node.op = op;
    node.input[0] = first;
    node.input[1] = second;
    node.kernel[0] = node.kernel[1] = node.stride[0] = node.stride[1] = node.groups = 1;
    return node;
}

/* The builder's end of ptq__append: sticky error, index as result. */
static int ptq__build(ptq_model *model, ptq_node *node, const char *name) {
    size_t length = name ? strlen(name) : 0;
    if (model->error.status)
        return -1;
    if (!ptq__is_name(name, length)) {
        ptq_error_set(&model->error, PTQ_BAD_GRAPH,
                      "'%s' is no node name: 1 to %d of A-Z a-z 0-9 _ .",
                      ptq__quoted(ptq__span_of(name ? name : "")).text, PTQ_NAME_SIZE - 1);
        return -1;
    }
    memcpy(node->name, name, length);
    if (ptq__append(model, node, &model->error))
        return -1;
    return model->nodes - 1;
}

PTQ_API int ptq_add_input(ptq_model *model, const char *name, int height, int width, int channels) {
    ptq_node node = ptq__blank(PTQ_OP_INPUT, -1, -1);
    node.shape[0] = height;
    node.shape[1] = width;
    node.shape[2] = channels;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_conv2d(ptq_model *model, const char *name, int input,
                           const ptq_conv_options *options) {
    ptq_node node = ptq__blank(PTQ_OP_CONV2D, input, -1);
    node.channels = options->channels;
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
                         const ptq_pool_options *options) {
    ptq_node node = ptq__blank(op, input, -1);
    node.kernel[0] = options->kernel_h;
    node.kernel[1] = options->kernel_w ? options->kernel_w : options->kernel_h;
    node.stride[0] = options->stride_h ? options->stride_h : node.kernel[0];
    node.stride[1] = options->stride_w   ? options->stride_w
                     : options->stride_h ? options->stride_h
                                         : node.kernel[1];
    node.padding = options->padding;
    memcpy(node.pad, options->pad, sizeof node.pad);
    node.include_pad = op == PTQ_OP_AVG_POOL && options->include_pad;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_max_pool(ptq_model *model, const char *name, int input,
                             const ptq_pool_options *options) {
    return ptq__add_pool(model, PTQ_OP_MAX_POOL, name, input, options);
}

PTQ_API int ptq_add_avg_pool(ptq_model *model, const char *name, int input,
                             const ptq_pool_options *options) {
    return ptq__add_pool(model, PTQ_OP_AVG_POOL, name, input, options);
}

PTQ_API int ptq_add_batch_norm(ptq_model *model, const char *name, int input, float epsilon) {
    ptq_node node = ptq__blank(PTQ_OP_BATCH_NORM, input, -1);
    node.epsilon = epsilon;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_relu(ptq_model *model, const char *name, int input) {
    ptq_node node = ptq__blank(PTQ_OP_RELU, input, -1);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_relu6(ptq_model *model, const char *name, int input) {
    ptq_node node = ptq__blank(PTQ_OP_RELU6, input, -1);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_add(ptq_model *model, const char *name, int first, int second) {
    ptq_node node = ptq__blank(PTQ_OP_ADD, first, second);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_global_avg_pool(ptq_model *model, const char *name, int input) {
    ptq_node node = ptq__blank(PTQ_OP_GLOBAL_AVG_POOL, input, -1);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_dense(ptq_model *model, const char *name, int input, int channels) {
    ptq_node node = ptq__blank(PTQ_OP_DENSE, input, -1);
    node.channels = channels;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_softmax(ptq_model *model, const char *name, int input) {
    ptq_node node = ptq__blank(PTQ_OP_SOFTMAX, input, -1);
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_quantize(ptq_model *model, const char *name, int input, const ptq_qparams *q) {
    ptq_node node = ptq__blank(PTQ_OP_QUANTIZE, input, -1);
    node.q = *q;
    return ptq__build(model, &node, name);
}

PTQ_API int ptq_add_dequantize(ptq_model *model, const char *name, int input) {
    ptq_node node = ptq__blank(PTQ_OP_DEQUANTIZE, input, -1);
    return ptq__build(model, &node, name);
}

/* ResNet8 from small pieces. Names are built with the block's number. */

typedef struct ptq__resnet {
    ptq_model *model;
    char name[PTQ_NAME_SIZE];
} ptq__resnet;

static const char *ptq__block_name(ptq__resnet *net, int block, const char *part) {
    ptq__text text = ptq__text_over(net->name, sizeof net->name);
    ptq__put(&text, "block%d.%s", block, part);
    return net->name;
}

static int ptq__resnet_conv(ptq_model *model, const char *name, int input, int channels, int kernel,
                            int stride) {
    ptq_conv_options options;
    memset(&options, 0, sizeof options);
    options.channels = channels;
    options.kernel_h = kernel;
    options.stride_h = stride;
    return ptq_add_conv2d(model, name, input, &options);
}

/* x -> conv-bn-relu -> conv-bn -> + shortcut(x) -> relu, the sum with the shortcut first as in
   Keras. Where the block changes the shape, the shortcut is a 1x1 convolution. */
static int ptq__resnet_block(ptq__resnet *net, int block, int input, int channels, int stride) {
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
                                     ptq_error *err) {
    ptq__resnet net;
    int x;
    if (size < 4 || size > 4096 || width < 1 || width > 4096 || classes < 2 || classes > 65536)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "resnet8: size %d (4 to 4096), width %d (1 to 4096), classes %d (2 to"
                             " 65536)",
                             size, width, classes);
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
                               ptq_model **out, ptq_error *err) {
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

/* Scales of integer weights, and their zero point. */
static ptq_status ptq__check_scales(const ptq_node *node, const ptq_tensor *weight,
                                    ptq_error *err) {
    int32_t low, high;
    int i;
    ptq_code_range(weight->type, weight->bits, &low, &high);
    if (weight->scales != 1 && weight->scales != weight->dim[0])
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: its weights have %d scales", node->name,
                             weight->scales);
    for (i = 0; i < weight->scales; i++)
        if (!ptq__is_normal(weight->scale[i]) || weight->scale[i] < 0)
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "node %s: weight_scale[%d] is %g; must be"
                                 " positive, finite and not denormal",
                                 node->name, i, (double)weight->scale[i]);
    if (weight->zero_point < low || weight->zero_point > high ||
        (weight->zero_point && weight->scales != 1))
        return ptq_error_set(err, PTQ_BAD_NUMBER,
                             "node %s: weight_zero_point %d; must be a code, and 0 where every"
                             " channel has its own scale",
                             node->name, (int)weight->zero_point);
    return PTQ_OK;
}

/* Parameters present, of the right shape and type, finite. */
static ptq_status ptq__check_param(const ptq_model *model, const ptq_node *node, int param,
                                   ptq_error *err) {
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
    if (tensor->type != ptq__param_type(node, param) || (!param && tensor->type == PTQ_TYPE_S32))
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: %s is of type %s, needed is %s",
                             node->name, what, ptq_type_name(tensor->type),
                             ptq_type_name(param ? ptq__param_type(node, param) : PTQ_TYPE_F32));
    if (ptq__is_integer_type(tensor->type))
        return ptq__check_scales(node, tensor, err);
    for (i = 0; i < n && tensor->type != PTQ_TYPE_S32; i++) {
        float value = ptq_tensor_number(tensor, i);
        if (!ptq__is_finite(value))
            return ptq_error_set(err, PTQ_BAD_NUMBER, "node %s: %s[%z] is %g", node->name, what, i,
                                 (double)value);
        if (param == PTQ_PARAM_VARIANCE && (value < 0 || value + node->epsilon <= 0))
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "node %s: variance[%z] is %g with epsilon %g; must be positive",
                                 node->name, i, (double)value, (double)node->epsilon);
    }
    return PTQ_OK;
}

static ptq_status ptq__check_qparams(const ptq_node *node, const ptq_qparams *q, ptq_error *err) {
    int32_t low, high;
    if (q->type == PTQ_TYPE_F32)
        return PTQ_OK;
    if ((q->type != PTQ_TYPE_U8 && q->type != PTQ_TYPE_S8) || q->bits < 2 || q->bits > 8)
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: its result cannot be coded as %s of %d"
                             " bits",
                             node->name, ptq_type_name(q->type), q->bits);
    ptq_code_range(q->type, q->bits, &low, &high);
    if (!ptq__is_normal(q->scale) || q->scale < 0 || q->zero_point < low || q->zero_point > high)
        return ptq_error_set(err, PTQ_BAD_NUMBER,
                             "node %s: scale %g and zero point %d; the scale must be positive,"
                             " finite and not denormal, the zero point a code",
                             node->name, (double)q->scale, (int)q->zero_point);
    return PTQ_OK;
}

static int ptq__same_qparams(const ptq_qparams *a, const ptq_qparams *b) {
    return a->type == b->type && a->bits == b->bits && a->zero_point == b->zero_point &&
           !(a->scale < b->scale) && !(a->scale > b->scale);
}

/* 1 if operands and result of a node may be codes, or real numbers, as they are. */
static int ptq__codes_fit(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index], *a = &model->node[node->input[0]];
    const ptq_node *b = node->input[1] < 0 ? a : &model->node[node->input[1]];
    int coded = ptq__is_coded(node), from = ptq__is_coded(a);
    int integer = ptq_node_mode(model, index) == PTQ_MODE_INTEGER;
    if (from != ptq__is_coded(b) || (node->residual && coded) != (node->mid.type != PTQ_TYPE_F32))
        return 0;
    switch (ptq__operator_of(node)->codes) {
    case PTQ__NO_CODES:
        return !coded && !from;
    case PTQ__SAME_CODES:
        return ptq__same_qparams(&node->q, &a->q);
    case PTQ__WEIGHT_CODES:
        return from == integer && coded == integer;
    case PTQ__LOGIT_CODES:
        return from == integer && coded <= integer;
    case PTQ__TO_CODES:
        return coded && !from;
    case PTQ__FROM_CODES:
        return !coded && from;
    default:
        return coded == from;
    }
}

static ptq_status ptq__check_codes(const ptq_model *model, int index, ptq_error *err) {
    const ptq_node *node = &model->node[index];
    const ptq__operator *op = ptq__operator_of(node);
    int integer = ptq__is_integer_type(node->param[PTQ_PARAM_WEIGHT].type);
    PTQ__TRY(ptq__check_qparams(node, &node->q, err));
    PTQ__TRY(ptq__check_qparams(node, &node->mid, err));
    if (op->operands && !ptq__codes_fit(model, index))
        return ptq__bad_node(
            err, PTQ_BAD_GRAPH, node,
            "its inputs, weights and result do not agree on being codes or real numbers");
    if (node->dynamic && !(integer && ptq__has_weight(node->op)))
        return ptq__bad_node(err, PTQ_BAD_GRAPH, node, "dynamic needs integer weights");
    if (op->rules.check && (integer || ptq__is_coded(node)))
        return op->rules.check(model, node, err);
    return PTQ_OK;
}

static ptq_status ptq__check_node(const ptq_model *model, int index, ptq_error *err) {
    const ptq_node *node = &model->node[index];
    ptq_node again = *node;
    int param;
    PTQ__TRY(ptq__check_attributes(node, err));
    PTQ__TRY(ptq__check_inputs(model, node, index, err));
    PTQ__TRY(ptq__infer(model, &again, err));
    if (memcmp(again.shape, node->shape, sizeof again.shape) ||
        memcmp(again.pad, node->pad, sizeof again.pad))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "node %s: its shape %dx%dx%d does not follow from its input",
                             node->name, node->shape[0], node->shape[1], node->shape[2]);
    for (param = 0; param < PTQ_PARAM_COUNT; param++)
        PTQ__TRY(ptq__check_param(model, node, param, err));
    return ptq__check_codes(model, index, err);
}

/* Index of the last node that reads the result of node `index`; itself if none does. */
static int ptq__last_use(const ptq_model *model, int index) {
    int i, last = index;
    for (i = index + 1; i < model->nodes; i++)
        if (model->node[i].input[0] == index || model->node[i].input[1] == index)
            last = i;
    return last;
}

/* How many nodes read the result of node `index`. */
static int ptq__uses(const ptq_model *model, int index) {
    int i, uses = 0;
    for (i = index + 1; i < model->nodes; i++)
        uses += (model->node[i].input[0] == index) + (model->node[i].input[1] == index);
    return uses;
}

static ptq_status ptq__check_names(const ptq_model *model, ptq_error *err) {
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

static ptq_status ptq__check_pixels(const ptq_model *model, ptq_error *err) {
    int c;
    for (c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        if (!ptq__is_finite(model->mean[c]) || !ptq__is_finite(model->std[c]) ||
            !(model->std[c] > 0))
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "preprocessing of channel %d: mean %g, std %g; std must be"
                                 " positive",
                                 c, (double)model->mean[c], (double)model->std[c]);
    return PTQ_OK;
}

PTQ_API ptq_status ptq_model_check(const ptq_model *model, ptq_error *err) {
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

PTQ_API ptq_tensor *ptq_model_param(ptq_model *model, const char *name) {
    const char *dot = strrchr(name, '.');
    int i = dot ? ptq__find(model, name, (size_t)(dot - name)) : -1, param;
    for (param = 0; i >= 0 && param < PTQ_PARAM_COUNT; param++)
        if (!strcmp(dot + 1, ptq__param_name(param)) && model->node[i].param[param].rank)
            return &model->node[i].param[param];
    return NULL;
}

/* Metadata, shared by models and archives. */

static int ptq__find_meta(const ptq_meta *meta, int metas, const char *key) {
    int i;
    for (i = 0; i < metas; i++)
        if (!strcmp(meta[i].key, key))
            return i;
    return -1;
}

static ptq_status ptq__append_meta(ptq_meta **meta, int *metas, const char *key, const char *value,
                                   const ptq_allocator *allocator, ptq_error *err) {
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

/* Bytes of the UTF-8 sequence that starts at p and ends before `end`; 0 if there is none: cut
   short, overlong, a surrogate, beyond U+10FFFF (RFC 3629). */
static int ptq__utf8_length(const char *p, const char *end) {
    unsigned char c = (unsigned char)*p, second;
    int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0, i;
    if (n < 2)
        return n;
    if (end - p < n)
        return 0;
    second = (unsigned char)p[1];
    if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second >= 0xa0) ||
        (c == 0xf0 && second < 0x90) || (c == 0xf4 && second >= 0x90))
        return 0;
    for (i = 1; i < n; i++)
        if (((unsigned char)p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* Files hold their texts in UTF-8: what is not would be written, and refused when it is read. */
static ptq_status ptq__check_utf8(const char *text, const char *what, ptq_error *err) {
    const char *end = text + strlen(text), *at = text;
    int n = 1;
    for (; at < end && n; at += n)
        n = ptq__utf8_length(at, end);
    return n ? PTQ_OK : ptq_error_set(err, PTQ_INVALID_ARGUMENT, "%s is not text in UTF-8", what);
}

static ptq_status ptq__set_meta(ptq_meta **meta, int *metas, const char *key, const char *value,
                                const ptq_allocator *allocator, ptq_error *err) {
    int i = ptq__find_meta(*meta, *metas, key);
    char *copy = NULL;
    PTQ__TRY(ptq__check_utf8(key, "a key of metadata", err));
    if (value)
        PTQ__TRY(ptq__check_utf8(value, key, err));
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

PTQ_API const char *ptq_model_get_meta(const ptq_model *model, const char *key) {
    int i = ptq__find_meta(model->meta, model->metas, key);
    return i < 0 ? NULL : model->meta[i].value;
}

static int ptq__is_own_meta(const char *key) {
    return !strcmp(key, "format") || !strcmp(key, "format_version") || !strcmp(key, "graph");
}

PTQ_API ptq_status ptq_model_set_meta(ptq_model *model, const char *key, const char *value,
                                      ptq_error *err) {
    if (ptq__is_own_meta(key))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "metadata '%s' is written by the file format itself", key);
    return ptq__set_meta(&model->meta, &model->metas, key, value, &model->allocator, err);
}

/* Copies preprocessing and metadata, all that is not nodes. */
static ptq_status ptq__copy_head(ptq_model *to, const ptq_model *from, ptq_error *err) {
    int i;
    memcpy(to->mean, from->mean, sizeof to->mean);
    memcpy(to->std, from->std, sizeof to->std);
    for (i = 0; i < from->metas; i++)
        PTQ__TRY(ptq_model_set_meta(to, from->meta[i].key, from->meta[i].value, err));
    return PTQ_OK;
}

/* Appends a copy of a node with its parameters. Input indices are taken as they are. */
static ptq_status ptq__copy_node(ptq_model *to, const ptq_node *from, ptq_error *err) {
    ptq_node node = *from;
    void *array = to->node;
    ptq_status status = PTQ_OK;
    int p;
    PTQ__TRY(
        ptq__grow(&to->allocator, &array, to->nodes, &to->capacity, sizeof node, "nodes", err));
    to->node = (ptq_node *)array;
    memset(node.param, 0, sizeof node.param);
    for (p = 0; p < PTQ_PARAM_COUNT && !status; p++)
        status = ptq__tensor_copy(&node.param[p], &from->param[p], &to->allocator, err);
    to->node[to->nodes++] = node; /* even after a failure: freed with the model */
    return status;
}

PTQ_API ptq_status ptq_model_copy(const ptq_model *model, const ptq_allocator *allocator,
                                  ptq_model **out, ptq_error *err) {
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

PTQ_API ptq_cost ptq_node_cost(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index];
    ptq_cost cost;
    uint64_t outputs = (uint64_t)ptq__shape_elements(3, node->shape);
    int p, dims[PTQ_MAX_RANK];
    memset(&cost, 0, sizeof cost);
    for (p = 0; p < PTQ_PARAM_COUNT; p++) {
        cost.parameters += ptq_tensor_elements(&node->param[p]);
        cost.param_bytes += node->param[p].size + sizeof(float) * (size_t)node->param[p].scales;
    }
    if (ptq__has_weight(node->op)) {
        int rank = ptq__param_shape(model, node, PTQ_PARAM_WEIGHT, dims);
        cost.macs = outputs * (uint64_t)(ptq__shape_elements(rank, dims) / (size_t)dims[0]);
    }
    cost.output_bytes = outputs * (ptq__is_coded(node) ? 1 : sizeof(float));
    return cost;
}

/* "conv2d 3x3/2 +add +relu" */
static void ptq__put_operator(ptq__text *text, const ptq_node *node) {
    ptq__put_string(text, ptq_op_name(node->op));
    if (ptq__has_key(node, PTQ__KEY_KERNEL)) {
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
        ptq__put(text, " +%s", ptq_op_name(PTQ_OP_ADD));
    if (node->add_act)
        ptq__put(text, " +%s", ptq__act_name(node->add_act));
}

PTQ_API size_t ptq_model_describe(const ptq_model *model, char *buffer, size_t size) {
    static const size_t column[] = {22, 48, 57, 67, 79, 89};
    ptq__text text = ptq__text_over(buffer, size);
    ptq_cost sum;
    int i;
    memset(&sum, 0, sizeof sum);
    ptq__put_string(&text, "node");
    for (i = 0; i < 6; i++) {
        static const char *const title[] = {"operator",   "computes", "shape",
                                            "parameters", "bytes",    "MACs"};
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
        ptq__put_string(&text, ptq_mode_name(ptq_node_mode(model, i)));
        ptq__put_column(&text, column[2]);
        ptq__put(&text, "%dx%dx%d", node->shape[0], node->shape[1], node->shape[2]);
        ptq__put_column(&text, column[3]);
        ptq__put(&text, "%L", cost.parameters);
        ptq__put_column(&text, column[4]);
        ptq__put(&text, "%L", cost.param_bytes);
        ptq__put_column(&text, column[5]);
        ptq__put(&text, "%L\n", cost.macs);
        sum.parameters += cost.parameters;
        sum.param_bytes += cost.param_bytes;
        sum.macs += cost.macs;
    }
    ptq__put_string(&text, "total");
    ptq__put_column(&text, column[3]);
    ptq__put(&text, "%L", sum.parameters);
    ptq__put_column(&text, column[4]);
    ptq__put(&text, "%L", sum.param_bytes);
    ptq__put_column(&text, column[5]);
    ptq__put(&text, "%L\n", sum.macs);
    return text.length;
}

/* ---- [FUSE] ------------------------------------------------------------------------------ */

/* One pass over the graph. `to[i]` is the node of the new model that computes what node i of the
   old one computed. */
typedef struct ptq__fuser {
    const ptq_model *old;
    ptq_model *model;
    ptq_fuse_report *report;
    int *to;
    int capacity;  /* of the report */
    int quantized; /* the old model: only additions of codes are fused */
} ptq__fuser;

static ptq_status ptq__fuse_note(ptq__fuser *fuser, const ptq_node *node, const ptq_node *into,
                                 ptq_fusion_kind kind, const char *reason, ptq_error *err) {
    ptq_fuse_report *report = fuser->report;
    ptq_fusion *item;
    void *array;
    if (!report)
        return PTQ_OK;
    array = report->item;
    PTQ__TRY(ptq__grow(&report->allocator, &array, report->items, &fuser->capacity, sizeof *item,
                       "fusion report", err));
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
                                       ptq_error *err) {
    const float *gamma = (const float *)norm->param[PTQ_PARAM_WEIGHT].data;
    const float *beta = (const float *)norm->param[PTQ_PARAM_BIAS].data;
    const float *mean = (const float *)norm->param[PTQ_PARAM_MEAN].data;
    const float *variance = (const float *)norm->param[PTQ_PARAM_VARIANCE].data;
    float *weight = (float *)conv->param[PTQ_PARAM_WEIGHT].data, *bias;
    int o, channels = conv->shape[2];
    size_t k, taps = ptq_tensor_elements(&conv->param[PTQ_PARAM_WEIGHT]) / (size_t)channels;
    if (conv->no_bias)
        PTQ__TRY(ptq_tensor_create(&conv->param[PTQ_PARAM_BIAS], PTQ_TYPE_F32, 32, 1, &channels,
                                   &model->allocator, err));
    conv->no_bias = 0;
    bias = (float *)conv->param[PTQ_PARAM_BIAS].data;
    for (o = 0; o < channels; o++) {
        double g = (double)gamma[o] / sqrt((double)variance[o] + (double)norm->epsilon);
        for (k = 0; k < taps; k++)
            weight[(size_t)o * taps + k] = (float)((double)weight[(size_t)o * taps + k] * g);
        bias[o] = (float)(((double)bias[o] - (double)mean[o]) * g + (double)beta[o]);
    }
    return PTQ_OK;
}

/* Why a node cannot move into the one before it; NULL if it can. */
static const char *ptq__cannot_follow(const ptq__fuser *fuser, int index, int can) {
    int from = fuser->old->node[index].input[0];
    const ptq_node *host = &fuser->model->node[fuser->to[from]];
    if (!can)
        return "the node before it is of a kind that cannot take it in";
    if (strcmp(host->out, fuser->old->node[from].out))
        return "another node has taken in what lies before it";
    if (ptq__uses(fuser->old, from) != 1)
        return "its input is used elsewhere too";
    return NULL;
}

static ptq_status ptq__fuse_norm(ptq__fuser *fuser, int index, const char **reason,
                                 ptq_error *err) {
    const ptq_node *norm = &fuser->old->node[index];
    ptq_node *host = &fuser->model->node[fuser->to[norm->input[0]]];
    *reason =
        ptq__cannot_follow(fuser, index, ptq__operator_of(host)->properties & PTQ__TAKES_NORM);
    if (!*reason && (host->act || host->residual))
        *reason = "an activation or an addition lies between it and the convolution";
    if (*reason)
        return PTQ_OK;
    PTQ__TRY(ptq__fold_batch_norm(fuser->model, host, norm, err));
    memcpy(host->out, norm->out, sizeof host->out);
    fuser->to[index] = fuser->to[norm->input[0]];
    return ptq__fuse_note(fuser, norm, host, PTQ_FUSION_BATCH_NORM, NULL, err);
}

static ptq_status ptq__fuse_act(ptq__fuser *fuser, int index, const char **reason, ptq_error *err) {
    const ptq_node *act = &fuser->old->node[index];
    ptq_node *host = &fuser->model->node[fuser->to[act->input[0]]];
    ptq_activation *place = host->residual ? &host->add_act : &host->act;
    *reason = ptq__cannot_follow(fuser, index, ptq__has_key(host, PTQ__KEY_ACT));
    if (!*reason && *place != PTQ_ACTIVATION_NONE)
        *reason = "the node before it ends in an activation already";
    if (*reason)
        return PTQ_OK;
    *place = act->op == PTQ_OP_RELU ? PTQ_ACTIVATION_RELU : PTQ_ACTIVATION_RELU6;
    memcpy(host->out, act->out, sizeof host->out);
    fuser->to[index] = fuser->to[act->input[0]];
    return ptq__fuse_note(fuser, act, host, PTQ_FUSION_ACTIVATION, NULL, err);
}

/* The operand of an addition whose convolution can take the addition in: the last node of the new
   graph, so that the other operand exists before it. -1 if neither can. */
static int ptq__residual_host(const ptq__fuser *fuser, const ptq_node *add) {
    int k;
    for (k = 0; k < 2; k++) {
        int from = add->input[k], other = add->input[1 - k];
        const ptq_node *host = &fuser->model->node[fuser->to[from]];
        if (host->op == PTQ_OP_CONV2D && !host->residual && from != other &&
            !strcmp(host->out, fuser->old->node[from].out) && ptq__uses(fuser->old, from) == 1 &&
            fuser->to[from] > fuser->to[other])
            return k;
    }
    return -1;
}

static ptq_status ptq__fuse_add(ptq__fuser *fuser, int index, const char **reason, ptq_error *err) {
    const ptq_node *add = &fuser->old->node[index];
    int k = ptq__residual_host(fuser, add);
    ptq_node *host;
    if (k < 0) {
        *reason = "neither operand is a convolution, used once, behind the other operand";
        return PTQ_OK;
    }
    host = &fuser->model->node[fuser->to[add->input[k]]];
    host->residual = k == 1 ? PTQ_RESIDUAL_FIRST : PTQ_RESIDUAL_SECOND;
    host->input[1] = fuser->to[add->input[1 - k]];
    host->add_act = add->act;
    host->mid = host->q;
    host->q = add->q;
    memcpy(host->out, add->out, sizeof host->out);
    fuser->to[index] = fuser->to[add->input[k]];
    return ptq__fuse_note(fuser, add, host, PTQ_FUSION_RESIDUAL, NULL, err);
}

static ptq_status ptq__fuse_node(ptq__fuser *fuser, int index, ptq_error *err) {
    const ptq_node *node = &fuser->old->node[index];
    const char *reason = NULL;
    ptq_node *copy;
    int k;
    fuser->to[index] = -1;
    if (node->op == PTQ_OP_BATCH_NORM && !fuser->quantized)
        PTQ__TRY(ptq__fuse_norm(fuser, index, &reason, err));
    else if ((node->op == PTQ_OP_RELU || node->op == PTQ_OP_RELU6) && !fuser->quantized)
        PTQ__TRY(ptq__fuse_act(fuser, index, &reason, err));
    else if (node->op == PTQ_OP_ADD && (!fuser->quantized || ptq__is_coded(node)))
        PTQ__TRY(ptq__fuse_add(fuser, index, &reason, err));
    if (fuser->to[index] >= 0)
        return PTQ_OK;
    if (reason)
        PTQ__TRY(ptq__fuse_note(fuser, node, NULL, PTQ_FUSION_NONE, reason, err));
    fuser->to[index] = fuser->model->nodes;
    PTQ__TRY(ptq__copy_node(fuser->model, node, err));
    copy = &fuser->model->node[fuser->model->nodes - 1];
    for (k = 0; k < 2; k++)
        if (node->input[k] >= 0)
            copy->input[k] = fuser->to[node->input[k]];
    return PTQ_OK;
}

static ptq_status ptq__fuse_all(ptq__fuser *fuser, ptq_error *err) {
    int i;
    PTQ__TRY(ptq__copy_head(fuser->model, fuser->old, err));
    for (i = 0; i < fuser->old->nodes; i++)
        PTQ__TRY(ptq__fuse_node(fuser, i, err));
    return ptq_model_check(fuser->model, err);
}

/* 1 if any node has left float. */
static int ptq__is_quantized(const ptq_model *model) {
    int i;
    for (i = 0; i < model->nodes; i++)
        if (ptq_node_mode(model, i) != PTQ_MODE_FLOAT)
            return 1;
    return 0;
}

PTQ_API ptq_status ptq_fuse(const ptq_model *model, ptq_model **out, ptq_fuse_report *report,
                            ptq_error *err) {
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
    fuser.quantized = ptq__is_quantized(model);
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

PTQ_API void ptq_fuse_report_free(ptq_fuse_report *report) {
    if (!report)
        return;
    ptq__free(&report->allocator, report->item);
    report->item = NULL;
    report->items = 0;
}

/* ---- [PLAN] ------------------------------------------------------------------------------ */

/* Where tensors lie in the arena. Two layouts are made: one that reuses memory, one that keeps
   everything. */
typedef struct ptq__layout {
    size_t *offset; /* nodes: the result */
    size_t *mid;    /* nodes: the result before a fused addition; only in the keeping layout */
    size_t scratch; /* memory for one step's own use */
    size_t size;
} ptq__layout;

enum { PTQ__REUSE, PTQ__KEEP, PTQ__LAYOUTS };

/* What a session's steps work on. */
typedef struct ptq__memory {
    const ptq__layout *layout;
    const void *input; /* node 0's tensor, which may be the caller's memory */
    char *arena;
    int keep;
} ptq__memory;

struct ptq_plan {
    ptq_plan_info info;
    ptq__step *step; /* one for each node; step 0 is never run */
    int steps;
    uint8_t *table; /* pixel to code, 256 for each channel; NULL: codes are the pixels themselves,
                        or the input is not coded */
    ptq__layout layout[PTQ__LAYOUTS];
    ptq_allocator allocator;
};

enum { PTQ__ALIGN = 64 }; /* of tensors in the arena: a cache line, and the widest vector */

static size_t ptq__align(size_t size) { return (size + PTQ__ALIGN - 1) / PTQ__ALIGN * PTQ__ALIGN; }

static size_t ptq__node_bytes(const ptq_node *node) {
    return ptq__align(ptq__shape_elements(3, node->shape) *
                      (ptq__is_coded(node) ? 1 : sizeof(float)));
}

/* The preprocessing of one pixel. */
static float ptq__pixel(const ptq_model *model, int channel, int pixel) {
    if (channel >= PTQ_MAX_PIXEL_CHANNELS)
        return (float)pixel;
    return ptq__div((float)pixel - model->mean[channel], model->std[channel]);
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
static int ptq__overwrites(const ptq_model *model, const ptq__block *block, int index) {
    const ptq_node *node = &model->node[index];
    int conv = node->residual != PTQ_RESIDUAL_NONE;
    int elementwise = (ptq__operator_of(node)->properties & PTQ__IN_PLACE) != 0;
    int over = node->input[conv ? 1 : 0];
    if ((!conv && !elementwise) || over <= 0 || ptq__last_use(model, over) != index)
        return -1;
    if (conv && (node->input[0] == over ||
                 (node->input[0] > 0 && block[node->input[0]].root == block[over].root)))
        return -1;
    return block[over].size == ptq__node_bytes(node) ? over : -1;
}

static void ptq__make_blocks(const ptq_model *model, ptq__block *block) {
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
static size_t ptq__place(const ptq__block *block, const size_t *offset, int nodes, int index) {
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

static void ptq__lay_reusing(const ptq_model *model, ptq__block *block, ptq__layout *layout) {
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

static void ptq__lay_keeping(const ptq_model *model, ptq__layout *layout) {
    int i;
    for (i = 0; i < model->nodes; i++) {
        size_t bytes = ptq__node_bytes(&model->node[i]);
        layout->offset[i] = layout->size;
        layout->mid[i] = layout->size + bytes;
        layout->size += model->node[i].residual ? 2 * bytes : bytes;
    }
}

static ptq_status ptq__lay_out(ptq_plan *plan, ptq_error *err) {
    const ptq_model *model = plan->info.model;
    size_t n = (size_t)model->nodes, scratch = 0;
    void *memory = NULL;
    uint64_t sum = 0;
    int i, k;
    for (i = 0; i < model->nodes; i++) {
        sum += 2 * (uint64_t)ptq__node_bytes(&model->node[i]);
        scratch = plan->step[i].scratch > scratch ? plan->step[i].scratch : scratch;
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

/* Weights in a form that kernels read: packed codes one a byte, half precision as single. */
static ptq_status ptq__unpack_weight(ptq_plan *plan, ptq__step *step, ptq_error *err) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    size_t i, n = ptq_tensor_elements(weight);
    int half = weight->type == PTQ_TYPE_F16;
    step->weight = weight->data;
    if (!half && !ptq__is_packed(weight->type))
        return PTQ_OK;
    PTQ__TRY(
        ptq__alloc(&plan->allocator, n, half ? sizeof(float) : 1, "weights", &step->owned, err));
    step->weight = step->owned;
    for (i = 0; i < n; i++)
        if (half)
            ((float *)step->owned)[i] = ptq_tensor_number(weight, i);
        else
            ((uint8_t *)step->owned)[i] = (uint8_t)ptq__packed_get(weight, i);
    return PTQ_OK;
}

static ptq_status ptq__prepare_step(ptq_plan *plan, ptq__step *step, ptq_error *err) {
    const ptq_node *node = step->node;
    void *memory = NULL;
    int c;
    if (!ptq__has_weight(node->op))
        return PTQ_OK;
    PTQ__TRY(ptq__unpack_weight(plan, step, err));
    if (ptq_node_mode(plan->info.model, step->index) != PTQ_MODE_INTEGER)
        return PTQ_OK;
    PTQ__TRY(ptq__alloc(&plan->allocator, (size_t)node->shape[2], sizeof(float), "multipliers",
                        &memory, err));
    step->multiplier = (float *)memory;
    for (c = 0; c < node->shape[2]; c++)
        step->multiplier[c] = ptq__multiplier(plan->info.model, node, c);
    return PTQ_OK;
}

/* The preprocessing and the coding of pixels in one table; none where a pixel is its own code. */
static ptq_status ptq__make_table(ptq_plan *plan, ptq_error *err) {
    const ptq_model *model = plan->info.model;
    const ptq_node *input = &model->node[0];
    void *memory = NULL;
    int c, p, same = input->q.type == PTQ_TYPE_U8;
    if (!ptq__is_coded(input))
        return PTQ_OK;
    PTQ__TRY(
        ptq__alloc(&plan->allocator, (size_t)input->shape[2], 256, "pixel table", &memory, err));
    plan->table = (uint8_t *)memory;
    for (c = 0; c < input->shape[2]; c++)
        for (p = 0; p < 256; p++) {
            int32_t code = ptq_quantize(ptq__pixel(model, c, p), &input->q);
            plan->table[c * 256 + p] = (uint8_t)code;
            same = same && code == p;
        }
    if (same) {
        ptq__free(&plan->allocator, plan->table);
        plan->table = NULL;
    }
    return PTQ_OK;
}

static ptq_status ptq__make_steps(ptq_plan *plan, ptq_error *err) {
    const ptq_model *model = plan->info.model;
    void *memory = NULL;
    int i, k;
    PTQ__TRY(ptq__alloc(&plan->allocator, (size_t)model->nodes, sizeof(ptq__step), "plan", &memory,
                        err));
    plan->step = (ptq__step *)memory;
    plan->steps = model->nodes;
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        plan->step[i].node = node;
        plan->step[i].index = i;
        for (k = 0; k < 2; k++)
            plan->step[i].from[k] = node->input[k] >= 0 ? &model->node[node->input[k]] : NULL;
        ptq__describe_step(&plan->step[i]);
        ptq__choose_kernel(&plan->step[i], ptq_node_mode(model, i));
        PTQ__TRY(ptq__prepare_step(plan, &plan->step[i], err));
        PTQ__TRY(ptq__vectorize(plan, &plan->step[i], err));
    }
    return ptq__make_table(plan, err);
}

PTQ_API ptq_status ptq_plan_create(const ptq_model *model, const ptq_plan_options *options,
                                   ptq_plan **out, ptq_error *err) {
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
    plan->info.model = model;
    plan->info.isa = isa == PTQ_ISA_AUTO ? ptq__best_isa() : isa;
    plan->info.logits = ptq_model_logits(model);
    plan->info.classes = (int)ptq__shape_elements(3, model->node[plan->info.logits].shape);
    plan->info.pixels = ptq__shape_elements(3, model->node[0].shape);
    status = ptq__make_steps(plan, err);
    if (!status)
        status = ptq__lay_out(plan, err);
    plan->info.arena_bytes = plan->layout[PTQ__REUSE].size;
    if (status)
        ptq_plan_free(plan);
    else
        *out = plan;
    return status;
}

PTQ_API void ptq_plan_free(ptq_plan *plan) {
    ptq_allocator allocator;
    int k;
    if (!plan)
        return;
    allocator = plan->allocator;
    for (k = 0; k < PTQ__LAYOUTS; k++)
        ptq__free(&allocator, plan->layout[k].offset);
    for (k = 0; k < plan->steps; k++) {
        ptq__free(&allocator, plan->step[k].owned);
        ptq__free(&allocator, plan->step[k].multiplier);
        ptq__free(&allocator, plan->step[k].packed);
    }
    ptq__free(&allocator, plan->table);
    ptq__free(&allocator, plan->step);
    ptq__free(&allocator, plan);
}

PTQ_API const ptq_plan_info *ptq_plan_get_info(const ptq_plan *plan) { return &plan->info; }

PTQ_API void ptq_plan_step(const ptq_plan *plan, int node, ptq_step_info *out) {
    const ptq__step *step = &plan->step[node];
    memset(out, 0, sizeof *out);
    out->offset = plan->layout[PTQ__REUSE].offset[node];
    out->multiplier = step->multiplier;
    out->low = step->clamp.low;
    out->high = step->clamp.high;
    out->ratio[0] = step->adder.ratio_a;
    out->ratio[1] = step->adder.ratio_b;
    out->shift = step->adder.offset;
    out->sum_low = step->adder.clamp.low;
    out->sum_high = step->adder.clamp.high;
}

PTQ_API float ptq_plan_average(const ptq_plan *plan, int node, int taps) {
    const ptq__step *step = &plan->step[node];
    return ptq__average_multiplier(&step->from[0]->q, &step->node->q, taps);
}

/* ---- [SESSION] --------------------------------------------------------------------------- */

struct ptq_session {
    const ptq_plan *plan;
    ptq__memory frame; /* what steps see; its `input` is that of the last run, NULL before */
    void *owned;      /* memory from the allocator */
    void (*after_node)(void *user, int node); /* NULL: nobody watches */
    void *watcher;
    ptq_allocator allocator;
};

static const ptq__layout *ptq__session_layout(const ptq_plan *plan, int keep) {
    return &plan->layout[keep ? PTQ__KEEP : PTQ__REUSE];
}

/* The session and its arena, and room to align both. */
PTQ_API size_t ptq_session_bytes(const ptq_plan *plan, const ptq_session_options *options) {
    return ptq__align(sizeof(ptq_session)) +
           ptq__session_layout(plan, options && options->keep)->size + PTQ__ALIGN;
}

PTQ_API ptq_status ptq_session_create(const ptq_plan *plan, const ptq_session_options *options,
                                      ptq_session **out, ptq_error *err) {
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
    session->frame.keep = options && options->keep;
    session->frame.layout = ptq__session_layout(plan, session->frame.keep);
    session->frame.arena = (char *)memory + ptq__align(sizeof *session);
    session->owned = owned;
    session->allocator = ptq__allocator(options ? &options->allocator : NULL);
    *out = session;
    return PTQ_OK;
}

PTQ_API void ptq_session_free(ptq_session *session) {
    ptq_allocator allocator;
    if (!session)
        return;
    allocator = session->allocator;
    ptq__free(&allocator, session->owned);
}

PTQ_API void ptq_session_watch(ptq_session *session, void (*after_node)(void *user, int node),
                               void *user) {
    session->after_node = after_node;
    session->watcher = user;
}

PTQ_API void ptq_preprocess(const ptq_model *model, const uint8_t *pixels, float *out) {
    const int *shape = model->node[0].shape;
    int i, c, n = shape[0] * shape[1], channels = shape[2];
    for (i = 0; i < n; i++)
        for (c = 0; c < channels; c++)
            *out++ = ptq__pixel(model, c, *pixels++);
}

PTQ_API int ptq_argmax(const float *values, int n) {
    int i, best = 0;
    for (i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* A tensor of one image as real numbers. */
static void ptq__read_reals(const ptq_node *node, const void *data, int n, float *out) {
    int i;
    if (!ptq__is_coded(node)) {
        memcpy(out, data, (size_t)n * sizeof(float));
        return;
    }
    for (i = 0; i < n; i++)
        out[i] = ptq_dequantize(ptq__load(data, i, node->q.type), &node->q);
}

/* Where a step works in a session's memory. */
static ptq__frame ptq__frame_of(const ptq_session *session, const ptq__step *step) {
    const ptq__memory *memory = &session->frame;
    ptq__frame frame;
    int k;
    for (k = 0; k < 2; k++) {
        int from = step->node->input[k];
        frame.in[k] = from < 0 ? NULL
                      : from   ? memory->arena + memory->layout->offset[from]
                               : memory->input;
    }
    frame.out = memory->arena + memory->layout->offset[step->index];
    frame.mid = memory->keep && step->node->residual
                    ? memory->arena + memory->layout->mid[step->index]
                    : NULL;
    frame.scratch = memory->arena + memory->layout->scratch;
    return frame;
}

/* The tensor of operand k of a node, as the last run left it; NULL if there is no such operand. */
static const void *ptq__operand(const ptq_session *session, int node, int k) {
    return ptq__frame_of(session, &session->plan->step[node]).in[k];
}

/* The inputs under the kernel of a group at one position of a convolution's result (row * W +
   column), in the order of its weights: int16_t codes less their zero point for a node on integers,
   float for one on real numbers. Of a dense layer, all of its inputs. Returns how many. */
static int ptq__gather(const ptq_session *session, int index, int group, int position,
                       void *patch) {
    const ptq__step *step = &session->plan->step[index];
    const ptq_qparams *q = &step->from[0]->q;
    const void *x = ptq__operand(session, index, 0), *from;
    if (q->type != PTQ_TYPE_F32) {
        ptq__gather_codes(step, (const uint8_t *)x, q, position, group, (int16_t *)patch);
        return step->taps;
    }
    from = ptq__gather_f32(step, (const float *)x, position, group, (float *)patch);
    if (from != patch)
        memcpy(patch, from, (size_t)step->taps * sizeof(float));
    return step->taps;
}

/* One image, from the tensor of node 0, through the nodes up to `last`. */
static void ptq__run_steps(ptq_session *session, const void *input, int last) {
    const ptq__step *step = session->plan->step;
    int i;
    session->frame.input = input;
    for (i = 0; i <= last; i++) {
        if (i > 0) {
            ptq__frame frame = ptq__frame_of(session, &step[i]);
            step[i].run(&step[i], &frame);
        }
        if (session->after_node)
            session->after_node(session->watcher, i);
    }
}

/* All of it. Steps behind the logits (a softmax) run only where they are kept. Returns the logits'
   tensor. */
static const void *ptq__run_image(ptq_session *session, const void *input) {
    const ptq_plan_info *info = &session->plan->info;
    ptq__run_steps(session, input, session->frame.keep ? info->model->nodes - 1 : info->logits);
    return info->logits ? ptq__frame_of(session, &session->plan->step[info->logits]).out : input;
}

/* Logits and probabilities of one image; either may be NULL. `row` is their row of the result. */
static void ptq__write_result(const ptq_plan *plan, const void *result, float *logits,
                              float *probabilities) {
    const ptq_node *node = &plan->info.model->node[plan->info.logits];
    int classes = plan->info.classes;
    if (logits)
        ptq__read_reals(node, result, classes, logits);
    if (probabilities) {
        ptq__read_reals(node, result, classes, probabilities);
        ptq__softmax(probabilities, probabilities, classes);
    }
}

static void *ptq__input_buffer(const ptq_session *session) {
    return session->frame.arena + session->frame.layout->offset[0];
}

/* Node 0's tensor for an image: preprocessed floats, codes by table, or the pixels themselves. */
static const void *ptq__load_pixels(const ptq_session *session, const uint8_t *pixels) {
    const ptq_plan *plan = session->plan;
    const ptq_node *input = &plan->info.model->node[0];
    void *buffer = ptq__input_buffer(session);
    size_t i, c, n = plan->info.pixels, channels = (size_t)input->shape[2];
    if (!ptq__is_coded(input)) {
        ptq__preprocess(plan, pixels, (float *)buffer);
    } else if (plan->table) {
        for (i = 0; i < n; i += channels)
            for (c = 0; c < channels; c++)
                ((uint8_t *)buffer)[i + c] = plan->table[c * 256 + pixels[i + c]];
    } else {
        if (!session->frame.keep)
            return pixels;
        memcpy(buffer, pixels, n);
    }
    return buffer;
}

/* The same for preprocessed floats. */
static const void *ptq__load_reals(const ptq_session *session, const float *reals) {
    const ptq_node *input = &session->plan->info.model->node[0];
    void *buffer = ptq__input_buffer(session);
    size_t i, n = ptq_plan_get_info(session->plan)->pixels;
    if (ptq__is_coded(input)) {
        for (i = 0; i < n; i++)
            ((uint8_t *)buffer)[i] = (uint8_t)ptq_quantize(reals[i], &input->q);
        return buffer;
    }
    if (!session->frame.keep)
        return reals;
    memcpy(buffer, reals, n * sizeof(float));
    return buffer;
}

/* Runs the nodes before `node` on one item of a data set of that type: then its operands are ready,
   and it can be looked at what it would compute from. */
static void ptq__run_until(ptq_session *session, ptq_type type, const void *item, int node) {
    const void *input = type == PTQ_TYPE_F32 ? ptq__load_reals(session, (const float *)item)
                                             : ptq__load_pixels(session, (const uint8_t *)item);
    ptq__run_steps(session, input, node - 1);
}

PTQ_API ptq_status ptq_run(ptq_session *session, const uint8_t *pixels, size_t count, float *logits,
                           float *probabilities, ptq_error *err) {
    size_t i, n = ptq_plan_get_info(session->plan)->pixels;
    size_t classes = (size_t)ptq_plan_get_info(session->plan)->classes;
    if (!pixels && count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "no pixels are given");
    for (i = 0; i < count; i++) {
        const void *result = ptq__run_image(session, ptq__load_pixels(session, pixels + i * n));
        ptq__write_result(session->plan, result, logits ? logits + i * classes : NULL,
                          probabilities ? probabilities + i * classes : NULL);
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_run_f32(ptq_session *session, const float *input, size_t count,
                               float *logits, float *probabilities, ptq_error *err) {
    size_t i, k, n = ptq_plan_get_info(session->plan)->pixels;
    size_t classes = (size_t)ptq_plan_get_info(session->plan)->classes;
    if (!input && count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "no input is given");
    for (i = 0; i < count; i++) {
        const void *result;
        for (k = 0; k < n; k++)
            if (!ptq__is_finite(input[i * n + k]))
                return ptq_error_set(err, PTQ_BAD_NUMBER, "input %z of image %z is %g", k, i,
                                     (double)input[i * n + k]);
        result = ptq__run_image(session, ptq__load_reals(session, input + i * n));
        ptq__write_result(session->plan, result, logits ? logits + i * classes : NULL,
                          probabilities ? probabilities + i * classes : NULL);
    }
    return PTQ_OK;
}

/* The last node whose result is codes, where the logits are those codes made real; NULL if they
   never were codes. */
static const ptq__step *ptq__coded_logits(const ptq_plan *plan) {
    const ptq__step *step = &plan->step[plan->info.logits];
    if (step->node->op == PTQ_OP_DEQUANTIZE)
        step = &plan->step[step->node->input[0]];
    return ptq__is_coded(step->node) ? step : NULL;
}

PTQ_API ptq_status ptq_run_codes(ptq_session *session, const uint8_t *pixels, size_t count,
                                 int32_t *codes, ptq_error *err) {
    const ptq_plan *plan = session->plan;
    const ptq__step *step = ptq__coded_logits(plan);
    int c, classes = plan->info.classes;
    size_t i, n = plan->info.pixels;
    if (!step)
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "the logits of this model are real numbers;"
                             " convert it with code_logits");
    if (!pixels && count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "no pixels are given");
    for (i = 0; i < count; i++) {
        const char *result;
        ptq__run_image(session, ptq__load_pixels(session, pixels + i * n));
        result = session->frame.arena + session->frame.layout->offset[step->index];
        for (c = 0; c < classes; c++)
            *codes++ = ptq__load(result, c, step->node->q.type);
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_classify(ptq_session *session, const uint8_t *pixels, size_t count,
                                int *classes, ptq_error *err) {
    const ptq_plan *plan = session->plan;
    const ptq_node *node = &plan->info.model->node[plan->info.logits];
    int c, n = plan->info.classes;
    size_t i;
    if (!pixels && count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "no pixels are given");
    for (i = 0; i < count; i++) {
        const void *input = ptq__load_pixels(session, pixels + i * plan->info.pixels);
        const void *result = ptq__run_image(session, input);
        int best = 0;
        for (c = 1; c < n && ptq__is_coded(node); c++)
            if (ptq__load(result, c, node->q.type) > ptq__load(result, best, node->q.type))
                best = c;
        classes[i] = ptq__is_coded(node) ? best : ptq_argmax((const float *)result, n);
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_session_tensor(const ptq_session *session, const char *name,
                                      ptq_tensor *view, ptq_error *err) {
    const ptq_plan *plan = session->plan;
    const ptq__layout *layout = session->frame.layout;
    int i = ptq_model_find(plan->info.model, name), middle;
    const ptq_node *node = i < 0 ? NULL : &plan->info.model->node[i];
    const ptq_qparams *q;
    if (!session->frame.keep || !session->frame.input)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "tensor %s: the session must be made with `keep`, and have run", name);
    if (!node)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "there is no tensor named %s",
                             ptq__quoted(ptq__span_of(name)).text);
    middle = node->residual && strcmp(name, node->out);
    q = middle ? &node->mid : &node->q;
    PTQ__TRY(ptq_tensor_borrow(view, q->type, 0, 3, node->shape,
                               session->frame.arena + (middle ? layout->mid[i] : layout->offset[i]),
                               ptq__node_bytes(node), err));
    if (q->type != PTQ_TYPE_F32) { /* the model's own scale: the view owns nothing */
        view->scale = (float *)(uintptr_t)&q->scale;
        view->scales = 1;
        view->zero_point = q->zero_point;
        view->bits = 8;
    }
    return PTQ_OK;
}

/* One element explained: taps in the order of the weights. */
static void ptq__explain_taps(ptq__text *text, const ptq__step *step, const int16_t *patch, int c,
                              int taps) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    int32_t sum = 0;
    int k;
    for (k = 0; k < taps; k++) {
        int w = ptq__code(weight, (size_t)c * (size_t)taps + (size_t)k) - weight->zero_point;
        sum += patch[k] * w;
        ptq__put(text, "  (x - zx) %d * (w - zw) %d = %d, sum %d\n", patch[k], w, patch[k] * w,
                 (int)sum);
    }
}

/* What follows the sum of products. */
static void ptq__explain_end(ptq__text *text, const ptq__step *step, int32_t sum, int c) {
    const ptq_node *node = step->node;
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const ptq_qparams *q = node->residual ? &node->mid : &node->q;
    const int32_t *bias = (const int32_t *)node->param[PTQ_PARAM_BIAS].data;
    int32_t acc = sum + (bias ? bias[c] : 0);
    float m = step->multiplier[c], f = ptq__mul((float)acc, m);
    ptq__clamp clamp;
    ptq__put(text, "bias %d: accumulator %d\n", bias ? (int)bias[c] : 0, (int)acc);
    ptq__put(text, "multiplier %g = input scale %g * weight scale %g", (double)m,
             (double)step->from[0]->q.scale, (double)weight->scale[weight->scales > 1 ? c : 0]);
    if (q->type == PTQ_TYPE_F32) {
        ptq__put(text, "\nresult %d * %g = %g, a real number\n", (int)acc, (double)m, (double)f);
        return;
    }
    clamp = ptq__clamp_of(q, node->act);
    ptq__put(text, " / output scale %g\n", (double)q->scale);
    ptq__put(text,
             "%d * %g = %g; clamped to %d..%d, rounded half to even, plus zero point %d:"
             " code %d\n",
             (int)acc, (double)m, (double)f, (int)(clamp.low - clamp.zero_point),
             (int)(clamp.high - clamp.zero_point), (int)clamp.zero_point,
             (int)ptq_requantize(acc, m, clamp.zero_point, clamp.low, clamp.high));
    ptq__put(
        text, "code stands for %g\n",
        (double)ptq_dequantize(ptq_requantize(acc, m, clamp.zero_point, clamp.low, clamp.high), q));
}

static void ptq__explain_residual(ptq__text *text, const ptq__step *step, const ptq__frame *frame,
                                  int at) {
    const ptq_node *node = step->node;
    const ptq_qparams *other = &step->from[1]->q;
    int32_t own = ptq__load(frame->mid, at, node->mid.type);
    int32_t residual = ptq__load(frame->in[1], at, other->type);
    int32_t y = ptq__load(frame->out, at, node->q.type);
    int first = node->residual == PTQ_RESIDUAL_FIRST;
    const ptq__adder adder = step->adder;
    ptq__put(text, "residual code %d stands for %g\n", (int)residual,
             (double)ptq_dequantize(residual, other));
    ptq__put(text,
             "sum %d * %g + (%d * %g + %g); clamped to %d..%d, rounded half to even: code"
             " %d, stands for %g\n",
             (int)(first ? residual : own), (double)adder.ratio_a, (int)(first ? own : residual),
             (double)adder.ratio_b, (double)adder.offset, (int)adder.clamp.low,
             (int)adder.clamp.high, (int)y, (double)ptq_dequantize(y, &node->q));
}

PTQ_API ptq_status ptq_explain(const ptq_session *session, const char *name, int y, int x, int c,
                               char *buffer, size_t size, size_t *length, ptq_error *err) {
    const ptq_plan *plan = session->plan;
    int i = ptq_model_find(plan->info.model, name), each;
    const ptq__step *step = i < 0 ? NULL : &plan->step[i];
    ptq__text text = ptq__text_over(buffer, size);
    ptq__frame frame;
    int16_t *patch;
    if (!session->frame.keep || !session->frame.input)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "explain: the session must be made with `keep`, and have run");
    if (!step || !ptq__has_weight(step->node->op) ||
        ptq_node_mode(plan->info.model, i) != PTQ_MODE_INTEGER || y < 0 ||
        y >= step->node->shape[0] || x < 0 || x >= step->node->shape[1] || c < 0 ||
        c >= step->node->shape[2])
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "explain: '%s' is no integer convolution or dense layer with an"
                             " element (%d, %d, %d)",
                             ptq__quoted(ptq__span_of(name)).text, y, x, c);
    frame = ptq__frame_of(session, step);
    patch = (int16_t *)frame.scratch;
    each = step->node->shape[2] / step->groups;
    ptq__gather(session, i, c / each, y * step->node->shape[1] + x, patch);
    ptq__put(&text, "%s at row %d, column %d, channel %d\n", step->node->name, y, x, c);
    ptq__explain_taps(&text, step, patch, c, step->taps);
    ptq__explain_end(&text, step, ptq__dot(step, patch, c), c);
    if (step->node->residual)
        ptq__explain_residual(&text, step, &frame,
                              (y * step->node->shape[1] + x) * step->node->shape[2] + c);
    *length = text.length;
    return PTQ_OK;
}

/* ---- [WORK] --------------------------------------------------------------------------------- */

/* Image size and label range of a data set, before it is relied upon. */
static ptq_status ptq__check_dataset(const ptq_dataset *data, ptq_error *err) {
    if (!data || !data->count)
        return ptq_error_set(err, PTQ_BAD_DATA, "the data set has no images");
    if (!data->get || data->height < 1 || data->width < 1 || data->channels < 1 ||
        data->classes < 1)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "the data set is incomplete: images of %dx%dx%d, %d classes",
                             data->height, data->width, data->channels, data->classes);
    if (data->type != PTQ_TYPE_U8 && data->type != PTQ_TYPE_F32)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "items of a data set are PTQ_TYPE_U8 or PTQ_TYPE_F32, not %s",
                             ptq_type_name(data->type));
    return PTQ_OK;
}

/* Elements of an item, and its bytes. */
static size_t ptq__item_elements(const ptq_dataset *data) {
    return (size_t)data->height * (size_t)data->width * (size_t)data->channels;
}

static size_t ptq__item_size(const ptq_dataset *data) {
    return ptq__item_elements(data) * (data->type == PTQ_TYPE_F32 ? sizeof(float) : 1);
}

/* One item through a session. `logits` may be NULL. */
static ptq_status ptq__run_item(ptq_session *session, const ptq_dataset *data, const void *item,
                                float *logits, ptq_error *err) {
    return data->type == PTQ_TYPE_F32
               ? ptq_run_f32(session, (const float *)item, 1, logits, NULL, err)
               : ptq_run(session, (const uint8_t *)item, 1, logits, NULL, err);
}

/* Work over the images of a data set, shared by evaluation and calibration. Images are handed out
   in small runs, so that no thread waits long; every worker has a session of its own. */
typedef struct ptq__job ptq__job;

typedef struct ptq__worker {
    ptq_session *session;
    void *item;    /* the current one */
    void *own;     /* what `begin` made */
    int is_caller; /* runs on the thread that called the library */
} ptq__worker;

struct ptq__job {
    const ptq_plan *plan;
    const ptq_dataset *data;
    int keep; /* sessions keep intermediates */
    ptq_status (*begin)(ptq__job *job, ptq__worker *worker, ptq_error *err); /* may be NULL */
    ptq_status (*one)(ptq__job *job, ptq__worker *worker, size_t index, int label, ptq_error *err);
    ptq_status (*end)(ptq__job *job, ptq__worker *worker, ptq_error *err); /* locked; may be NULL */
    void *context;
    ptq_progress progress;
    void *user;
    ptq_allocator allocator;
    size_t total, next, done;
    ptq_status status; /* the first failure stops all */
    ptq_error error;
#ifdef PTQ_THREADS
    pthread_mutex_t lock;
#endif
};

#ifdef PTQ_THREADS
static void ptq__lock_create(ptq__job *job) { pthread_mutex_init(&job->lock, NULL); }
static void ptq__lock_destroy(ptq__job *job) { pthread_mutex_destroy(&job->lock); }
static void ptq__lock(ptq__job *job) { pthread_mutex_lock(&job->lock); }
static void ptq__unlock(ptq__job *job) { pthread_mutex_unlock(&job->lock); }
#else
static void ptq__lock_create(ptq__job *job) { (void)job; }
static void ptq__lock_destroy(ptq__job *job) { (void)job; }
static void ptq__lock(ptq__job *job) { (void)job; }
static void ptq__unlock(ptq__job *job) { (void)job; }
#endif

/* Takes the next images; 0 when there are none or the work has stopped. */
static size_t ptq__job_take(ptq__job *job, size_t *first) {
    const size_t run = 16;
    size_t left, n;
    ptq__lock(job);
    left = job->status ? 0 : job->total - job->next;
    n = left < run ? left : run;
    *first = job->next;
    job->next += n;
    ptq__unlock(job);
    return n;
}

/* Counts finished images and tells the caller how far the work is; only on the calling thread. */
static ptq_status ptq__job_report(ptq__job *job, size_t finished, int is_caller, ptq_error *err) {
    size_t done;
    ptq__lock(job);
    done = job->done += finished;
    ptq__unlock(job);
    if (is_caller && job->progress && job->progress(job->user, done, job->total))
        return ptq_error_set(err, PTQ_CANCELLED, "cancelled after %z of %z images", done,
                             job->total);
    return PTQ_OK;
}

static ptq_status ptq__job_image(ptq__job *job, ptq__worker *worker, size_t index, ptq_error *err) {
    int label = 0;
    PTQ__TRY(job->data->get(job->data->user, index, worker->item, &label, err));
    if (label < -1 || label >= job->data->classes)
        return ptq_error_set(err, PTQ_BAD_DATA, "image %z has label %d of %d classes", index, label,
                             job->data->classes);
    return job->one(job, worker, index, label, err);
}

static ptq_status ptq__job_loop(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    size_t i, first, n;
    while ((n = ptq__job_take(job, &first)) > 0) {
        for (i = 0; i < n; i++)
            PTQ__TRY(ptq__job_image(job, worker, first + i, err));
        PTQ__TRY(ptq__job_report(job, n, worker->is_caller, err));
    }
    return PTQ_OK;
}

static ptq_status ptq__worker_open(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq_session_options options;
    memset(&options, 0, sizeof options);
    options.allocator = job->allocator;
    options.keep = job->keep;
    PTQ__TRY(ptq_session_create(job->plan, &options, &worker->session, err));
    PTQ__TRY(
        ptq__alloc(&job->allocator, ptq__item_size(job->data), 1, "an image", &worker->item, err));
    return job->begin ? job->begin(job, worker, err) : PTQ_OK;
}

/* What each thread does. */
static void ptq__job_work(ptq__job *job, int is_caller) {
    ptq__worker worker;
    ptq_error error;
    ptq_status status, ended = PTQ_OK;
    memset(&worker, 0, sizeof worker);
    worker.is_caller = is_caller;
    status = ptq__worker_open(job, &worker, &error);
    if (!status)
        status = ptq__job_loop(job, &worker, &error);
    ptq__lock(job);
    if (status && !job->status) {
        job->status = status;
        job->error = error;
    }
    if (job->end)
        ended = job->end(job, &worker, &error);
    if (ended && !job->status) {
        job->status = ended;
        job->error = error;
    }
    ptq__unlock(job);
    ptq__free(&job->allocator, worker.item);
    ptq_session_free(worker.session);
}

#ifdef PTQ_THREADS

static void *ptq__job_thread(void *job) {
    ptq__job_work((ptq__job *)job, 0);
    return NULL;
}

/* The calling thread works too. A thread that cannot be started leaves its work to the others. */
static void ptq__job_spread(ptq__job *job, int threads) {
    pthread_t thread[64];
    int i, started = 0;
    if (threads > 64)
        threads = 64;
    while (started < threads - 1 &&
           pthread_create(&thread[started], NULL, ptq__job_thread, job) == 0)
        started++;
    ptq__job_work(job, 1);
    for (i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
}

#else

static void ptq__job_spread(ptq__job *job, int threads) {
    (void)threads;
    ptq__job_work(job, 1);
}

#endif

static ptq_status ptq__job_run(ptq__job *job, int threads, ptq_error *err) {
    ptq_status status = PTQ_OK;
    ptq__lock_create(job);
    ptq__job_spread(job, threads);
    if (job->status)
        status = ptq_error_set(err, job->status, "%s", job->error.text);
    else if (threads > 1) /* the caller may have finished before the last thread */
        status = ptq__job_report(job, 0, 1, err);
    ptq__lock_destroy(job);
    return status;
}

/* Images that a plan can take, and classes that it knows. */
static ptq_status ptq__check_fits(const ptq_plan *plan, const ptq_dataset *data, ptq_error *err) {
    const int *shape = plan->info.model->node[0].shape;
    PTQ__TRY(ptq__check_dataset(data, err));
    if (data->height != shape[0] || data->width != shape[1] || data->channels != shape[2])
        return ptq_error_set(err, PTQ_BAD_DATA, "the images are %dx%dx%d, the model takes %dx%dx%d",
                             data->height, data->width, data->channels, shape[0], shape[1],
                             shape[2]);
    if (data->classes != plan->info.classes)
        return ptq_error_set(err, PTQ_BAD_DATA, "the data have %d classes, the model has %d",
                             data->classes, plan->info.classes);
    return PTQ_OK;
}

/* ---- [OBSERVE] ------------------------------------------------------------------------------ */

/* Before a tensor can be coded, the range of its values must be known. An observer looks at the
   tensor on every calibration image and keeps, of the whole tensor or of each channel: the smallest
   and the largest value, the mean over images of each image's extremes, and a histogram. From these
   six rules then read a range.

   What is kept depends on the multiset of images alone: neither their order nor the number of
   threads among which they were shared shows in a single bit. Hence exact sums instead of floating
   ones, and bins whose width is a power of two that the largest magnitude decides. */

PTQ_API const char *ptq_method_name(ptq_method range) {
    static const char *const name[] = {
#define PTQ_X(id, text) text,
        PTQ_METHOD_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)range < PTQ_METHOD_COUNT ? name[range] : "?";
}

PTQ_API ptq_method ptq_method_find(const char *name) {
    int range = 0;
    while (range < PTQ_METHOD_COUNT && strcmp(name, ptq_method_name((ptq_method)range)))
        range++;
    return (ptq_method)range;
}

/* sum += value. A float is mantissa * 2^(shift - 149) with a mantissa of 24 bits, which fall into
   two neighbouring limbs. 31 bits are left above each for carries that wait. */
static void ptq__exact_add(ptq_exact_sum *sum, float value) {
    uint32_t bits;
    uint64_t wide;
    int64_t sign;
    int exponent, shift;
    memcpy(&bits, &value, sizeof bits);
    exponent = (int)(bits >> 23 & 255);
    shift = exponent ? exponent - 1 : 0; /* numbers below the normal ones have the same unit */
    wide = (uint64_t)((bits & 0x7fffffu) | (exponent ? 0x800000u : 0)) << shift % 32;
    sign = bits >> 31 ? -1 : 1;
    sum->limb[shift / 32] += sign * (int64_t)(wide & 0xffffffffu);
    sum->limb[shift / 32 + 1] += sign * (int64_t)(wide >> 32);
}

/* Carries, so that equal sums have equal limbs: all but the last in 0..2^32 - 1. */
static void ptq__exact_normalize(ptq_exact_sum *sum) {
    int i;
    for (i = 0; i < 9; i++) {
        int64_t low = sum->limb[i] & (int64_t)0xffffffff;
        sum->limb[i + 1] += (sum->limb[i] - low) / ((int64_t)1 << 32);
        sum->limb[i] = low;
    }
}

static void ptq__exact_merge(ptq_exact_sum *sum, const ptq_exact_sum *other) {
    int i;
    for (i = 0; i < 10; i++)
        sum->limb[i] += other->limb[i];
    ptq__exact_normalize(sum);
}

static double ptq__exact_value(const ptq_exact_sum *sum) {
    double value = 0;
    int i;
    for (i = 9; i >= 0; i--)
        value += ldexp((double)sum->limb[i], 32 * i - 149);
    return value;
}

PTQ_API ptq_status ptq_observer_create(ptq_observer *observer, int channels,
                                       const ptq_allocator *allocator, ptq_error *err) {
    void *memory = NULL;
    int c;
    if (channels < 1 || channels > PTQ_MAX_ELEMENTS / PTQ_BINS)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "an observer of %d channels", channels);
    /* The bins of all channels lie behind the statistics. */
    PTQ__TRY(ptq__alloc(allocator, (size_t)channels,
                        sizeof(ptq_statistics) + PTQ_BINS * sizeof(uint64_t), "observer", &memory,
                        err));
    observer->channel = (ptq_statistics *)memory;
    observer->channels = channels;
    observer->allocator = ptq__allocator(allocator);
    for (c = 0; c < channels; c++) {
        observer->channel[c].bin = (uint64_t *)(observer->channel + channels) + c * PTQ_BINS;
        observer->channel[c].exponent = -149;
    }
    return PTQ_OK;
}

PTQ_API void ptq_observer_free(ptq_observer *observer) {
    if (!observer)
        return;
    ptq__free(&observer->allocator, observer->channel);
    observer->channel = NULL;
    observer->channels = 0;
}

enum { PTQ__HALF_BINS = PTQ_BINS / 2 }; /* for values below 0, and as many for those above */

/* The smallest exponent at which a value falls into a bin. */
static int ptq__fitting_exponent(float value) {
    int e;
    double m = frexp((double)value, &e); /* value = m 2^e, 0.5 <= |m| < 1: 2^11 bins up to 2^e */
    if (m < 0 && !(m < -0.5))
        e--; /* -2^k lies in the lowest bin of the smaller range */
    return e - 11 < -149 ? -149 : e - 11;
}

static int ptq__bin_of(float value, int exponent) {
    return (int)floor(ldexp((double)value, -exponent)) + PTQ__HALF_BINS;
}

/* The value where a bin begins, and the one that stands for it: its middle. */
static double ptq__bin_edge(const ptq_statistics *s, int bin) {
    return ldexp((double)(bin - PTQ__HALF_BINS), s->exponent);
}
static double ptq__bin_value(const ptq_statistics *s, int bin) {
    return ldexp((double)(bin - PTQ__HALF_BINS) + 0.5, s->exponent);
}

/* Where a bin lies once the bins are 2^shift times as wide: edges stay multiples of the width. */
static int ptq__wider_bin(int bin, int shift) {
    int from_zero = bin - PTQ__HALF_BINS;
    shift = shift > 12 ? 12 : shift; /* more moves nothing any further */
    if (from_zero < 0)               /* floor, without shifting a negative number */
        return PTQ__HALF_BINS - 1 - ((-1 - from_zero) >> shift);
    return PTQ__HALF_BINS + (from_zero >> shift);
}

/* Widens the bins to 2^exponent, from the middle outwards: what is moved into has moved before. */
static void ptq__widen(ptq_statistics *s, int exponent) {
    int shift = exponent - s->exponent, i, b;
    if (shift <= 0)
        return;
    s->exponent = exponent;
    for (i = 0; i < PTQ_BINS; i++) {
        uint64_t count;
        b = i < PTQ__HALF_BINS ? PTQ__HALF_BINS + i : PTQ_BINS - 1 - i;
        count = s->bin[b];
        s->bin[b] = 0;
        s->bin[ptq__wider_bin(b, shift)] += count;
    }
}

/* Counts values of one channel, which fit the bins already: n floats, `step` apart. */
static void ptq__count_values(ptq_statistics *s, const float *values, size_t n, size_t step) {
    double bins_per_unit = ldexp(1, -s->exponent);
    size_t i;
    for (i = 0; i < n; i += step) {
        double x = (double)values[i] * bins_per_unit;
        int bin = (int)x;
        bin -= x < (double)bin; /* floor */
        if (x < 0 || x > 0)
            s->bin[bin + PTQ__HALF_BINS]++;
        else
            s->zeros++;
    }
}

/* Smallest and largest of one channel of an image; also finds what cannot be observed. */
static ptq_status ptq__image_range(const float *values, size_t n, size_t step, float *low,
                                   float *high, ptq_error *err) {
    size_t i;
    *low = *high = values[0];
    for (i = 0; i < n; i += step) {
        if (!ptq__is_finite(values[i]))
            return ptq_error_set(err, PTQ_BAD_NUMBER, "value %z is %g", i, (double)values[i]);
        *low = values[i] < *low ? values[i] : *low;
        *high = values[i] > *high ? values[i] : *high;
    }
    return PTQ_OK;
}

PTQ_API ptq_status ptq_observe(ptq_observer *observer, const float *values, size_t n,
                               ptq_error *err) {
    size_t channels = (size_t)observer->channels, c;
    float low, high;
    if (!n || n % channels)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "%z values for %z channels", n, channels);
    for (c = 0; c < channels; c++) /* first all of them: a failure must change nothing */
        PTQ__TRY(ptq__image_range(values + c, n - c, channels, &low, &high, err));
    for (c = 0; c < channels; c++) {
        ptq_statistics *s = &observer->channel[c];
        ptq__image_range(values + c, n - c, channels, &low, &high, NULL);
        ptq__widen(s, low < 0 ? ptq__fitting_exponent(low) : -149);
        ptq__widen(s, high > 0 ? ptq__fitting_exponent(high) : -149);
        ptq__count_values(s, values + c, n - c, channels);
        s->min = !s->count || low < s->min ? low : s->min;
        s->max = !s->count || high > s->max ? high : s->max;
        s->count += n / channels;
        s->images++;
        ptq__exact_add(&s->min_sum, low);
        ptq__exact_add(&s->max_sum, high);
        ptq__exact_normalize(&s->min_sum);
        ptq__exact_normalize(&s->max_sum);
    }
    return PTQ_OK;
}

/* Adds what another observer saw, as if one had seen both. */
static ptq_status ptq__observer_merge(ptq_observer *observer, const ptq_observer *other,
                                      ptq_error *err) {
    int c, i;
    if (observer->channels != other->channels)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "observers of %d and %d channels",
                             observer->channels, other->channels);
    for (c = 0; c < observer->channels; c++) {
        ptq_statistics *a = &observer->channel[c];
        const ptq_statistics *b = &other->channel[c];
        if (!b->count)
            continue;
        ptq__widen(a, b->exponent);
        for (i = 0; i < PTQ_BINS; i++)
            a->bin[ptq__wider_bin(i, a->exponent - b->exponent)] += b->bin[i];
        a->min = !a->count || b->min < a->min ? b->min : a->min;
        a->max = !a->count || b->max > a->max ? b->max : a->max;
        a->count += b->count;
        a->zeros += b->zeros;
        a->images += b->images;
        ptq__exact_merge(&a->min_sum, &b->min_sum);
        ptq__exact_merge(&a->max_sum, &b->max_sum);
    }
    return PTQ_OK;
}

PTQ_API double ptq_observer_clipped(const ptq_observer *observer, int channel, float low,
                                    float high) {
    const ptq_statistics *s = &observer->channel[channel];
    uint64_t outside = 0;
    int b;
    for (b = 0; b < PTQ_BINS; b++)
        if (ptq__bin_value(s, b) < (double)low || ptq__bin_value(s, b) > (double)high)
            outside += s->bin[b];
    return s->count ? (double)outside / (double)s->count : 0;
}

/* Now the rules. Each starts from the whole range and may draw its ends in: values beyond are
   clipped, and all others coded more finely. */
typedef struct ptq__range {
    const ptq_statistics *s;
    ptq_type type; /* of the codes, with their bits */
    int bits, symmetric;
    double percentile;
    double low, high; /* low <= 0 <= high */
} ptq__range;

/* The best range that a search has seen so far, in whatever units it counts. */
typedef struct ptq__best {
    double error, low, high;
} ptq__best;

/* Of equals, the first wins. */
static void ptq__offer(ptq__best *best, double error, double low, double high) {
    ptq__best offered = {error, low, high};
    if (error < best->error)
        *best = offered;
}

/* The whole range in bins. Of a side that has no values, nothing but the 0 is left. */
static void ptq__whole_bins(const ptq__range *r, int *first, int *last) {
    *first = r->low < 0 ? ptq__bin_of((float)r->low, r->s->exponent) : PTQ__HALF_BINS;
    *last = r->high > 0 ? ptq__bin_of((float)r->high, r->s->exponent) : PTQ__HALF_BINS - 1;
}

/* Draws the range in to the bins first..last; an end that lost no bin stays as it is. */
static void ptq__keep_bins(ptq__range *r, int first, int last) {
    int lowest, highest;
    ptq__whole_bins(r, &lowest, &highest);
    if (first > lowest)
        r->low = ptq__bin_edge(r->s, first);
    if (last < highest)
        r->high = ptq__bin_edge(r->s, last + 1);
}

/* PTQ_METHOD_MINMAX: nothing is clipped. */
static void ptq__range_minmax(ptq__range *r) { (void)r; }

/* PTQ_METHOD_MOVING_AVERAGE: the mean over images of each one's extremes. */
static void ptq__range_average(ptq__range *r) {
    r->low = ptq__exact_value(&r->s->min_sum) / (double)r->s->images;
    r->high = ptq__exact_value(&r->s->max_sum) / (double)r->s->images;
}

/* Squared error of spreading a bin's density over codes of width `w`, integrated in closed form as
   PyTorch's HistogramObserver does: a bin that lies between two codes' centres is cut there. */
static double ptq__spread_error(double begin, double end, double w, int levels, double density) {
    double b = floor(begin / w), e = floor(end / w), from, to, h = w / 2;
    b = b < 0 ? 0 : b > levels - 1 ? levels - 1 : b;
    e = e < 0 ? 0 : e > levels - 1 ? levels - 1 : e;
    from = begin - (b * w + h);
    to = end - (e * w + h);
    if (b >= e)
        return density / 3 * (to * to * to - from * from * from);
    return density / 3 *
           ((h * h * h - from * from * from) + (e - b - 1) * 2 * h * h * h +
            (to * to * to + h * h * h));
}

/* The same of all bins lowest..highest, when the codes cover first..last. */
static double ptq__bins_error(const ptq_statistics *s, int lowest, int highest, int first, int last,
                              int levels) {
    double w = (double)(last - first + 1) / levels, sum = 0;
    int b;
    for (b = lowest; b <= highest; b++) {
        double count = (double)s->bin[b] + (b == PTQ__HALF_BINS ? (double)s->zeros : 0);
        if (count > 0)
            sum += ptq__spread_error(b - first, b - first + 1, w, levels, count);
    }
    return sum;
}

/* PTQ_METHOD_HISTOGRAM, PyTorch's search: cut 0.001 % of the values off whichever end gives up more
   bins for them, as long as the error falls. Index 0 stands for the lower end, 1 for the upper. */
static void ptq__range_histogram(ptq__range *r) {
    const ptq_statistics *s = r->s;
    int whole[2], end[2], next[2], trial[2], side;
    double allowed[2] = {0, 0}, gone[2] = {0, 0}, sum[2]; /* how many values may go, have gone */
    double cut = 0, error, best = HUGE_VAL, share = 1e-5 * (double)s->count;
    ptq__whole_bins(r, &whole[0], &whole[1]);
    whole[1] = r->high > 0 ? whole[1] : PTQ__HALF_BINS;
    memcpy(end, whole, sizeof end);
    while (cut < 0.5 * (double)s->count) {
        cut += share;
        for (side = 0; side < 2; side++) {
            sum[side] = gone[side];
            for (next[side] = end[side]; next[side] != end[!side]; next[side] += side ? -1 : 1) {
                if (!(sum[side] + (double)s->bin[next[side]] < allowed[side] + share))
                    break;
                sum[side] += (double)s->bin[next[side]];
            }
        }
        side = next[0] - end[0] > end[1] - next[1] ? 0 : 1;
        allowed[side] += share;
        gone[side] = sum[side];
        if (next[side] == end[side])
            continue;
        memcpy(trial, end, sizeof trial);
        trial[side] = next[side];
        error = ptq__bins_error(s, whole[0], whole[1], trial[0], trial[1], 1 << r->bits);
        if (error > best)
            break;
        best = error;
        end[side] = next[side];
    }
    ptq__keep_bins(r, end[0], end[1]);
}

/* The value below which a share of the values lies, to one bin; zeros included. */
static double ptq__quantile(const ptq_statistics *s, double share) {
    double want = share * (double)s->count, seen = 0;
    int b;
    for (b = 0; b < PTQ_BINS; b++) {
        if (b == PTQ__HALF_BINS)
            seen += (double)s->zeros;
        seen += (double)s->bin[b];
        if (seen >= want && seen > 0)
            return ptq__bin_value(s, b);
    }
    return (double)s->max;
}

/* PTQ_METHOD_PERCENTILE: a fixed share of the values is clipped at either end. */
static void ptq__range_percentile(ptq__range *r) {
    double low = ptq__quantile(r->s, 1 - r->percentile / 100);
    double high = ptq__quantile(r->s, r->percentile / 100);
    r->low = low > r->low ? low : r->low;
    r->high = high < r->high ? high : r->high;
}

/* Divergence of the coded distribution from the true one, sum of p log(p / q), for a range of whole
   bins first..last. What is clipped counts at the ends of p; q spreads each code's share evenly
   over those of its bins that had values (Migacz, GTC 2017). */
static double ptq__divergence(const ptq_statistics *s, int first, int last, int levels) {
    double p_sum = 0, q_sum = 0, result = 0, below = 0, above = 0;
    int b, k, n = last - first + 1;
    for (b = 0; b < PTQ_BINS; b++) {
        below += b < first ? (double)s->bin[b] : 0;
        above += b > last ? (double)s->bin[b] : 0;
        p_sum += (double)s->bin[b];
        q_sum += b >= first && b <= last ? (double)s->bin[b] : 0;
    }
    if (q_sum <= 0)
        return HUGE_VAL;
    for (k = 0; k < levels; k++) {
        int from = first + (int)((int64_t)n * k / levels);
        int to = first + (int)((int64_t)n * (k + 1) / levels), filled = 0;
        double mass = 0;
        for (b = from; b < to; b++) {
            mass += (double)s->bin[b];
            filled += s->bin[b] != 0;
        }
        for (b = from; b < to; b++) {
            double p = (double)s->bin[b] + (b == first ? below : 0) + (b == last ? above : 0);
            double q = s->bin[b] ? mass / filled : 0;
            if (p > 0)
                result += p / p_sum * log(p / p_sum / (q > 0 ? q / q_sum : 1e-9));
        }
    }
    return result;
}

/* PTQ_METHOD_ENTROPY: first the upper end is drawn in, by hundredths, then the lower, as long as a
   bin is left for every code. */
static void ptq__range_entropy(ptq__range *r) {
    int lowest, highest, first, last, side, k, levels = 1 << r->bits;
    ptq__best best;
    ptq__whole_bins(r, &lowest, &highest);
    best.error = ptq__divergence(r->s, lowest, highest, levels);
    best.low = lowest;
    best.high = highest;
    for (side = 0; side < 2; side++)
        for (k = 1; k < 100; k++) {
            first = side ? lowest + (PTQ__HALF_BINS - lowest) * k / 100 : lowest;
            last = side ? (int)best.high : highest - (highest + 1 - PTQ__HALF_BINS) * k / 100;
            if (last - first + 1 >= levels)
                ptq__offer(&best, ptq__divergence(r->s, first, last, levels), first, last);
        }
    ptq__keep_bins(r, (int)best.low, (int)best.high);
}

/* Expected squared error of coding the values under a range: the sum over bins of
   count * (x - dequantize(quantize(x)))^2, which stops where it passes `limit`. Exact zeros cost
   nothing, since 0 is always a code. */
static double ptq__range_error(const ptq__range *r, double low, double high, double limit) {
    const double width = ldexp(1, r->s->exponent);
    ptq_qparams q;
    double sum = 0;
    int b;
    if (high - low <= 0 ||
        ptq_choose_qparams((float)low, (float)high, r->type, r->bits, r->symmetric, &q, NULL))
        return HUGE_VAL;
    for (b = 0; b < PTQ_BINS && sum < limit; b++) {
        double x, error;
        if (!r->s->bin[b])
            continue;
        x = ((double)(b - PTQ__HALF_BINS) + 0.5) * width; /* ptq__bin_value, without its cost */
        error = x - (double)ptq_dequantize(ptq_quantize((float)x, &q), &q);
        sum += (double)r->s->bin[b] * error * error;
    }
    return sum;
}

/* PTQ_METHOD_MSE: a grid over both ends, as shares of the whole range, then a finer one around the
   best point, twice. An end that is 0 stays so. */
static void ptq__range_mse(ptq__range *r) {
    const int steps = 20;
    double corner_low = 0, corner_high = 0, width = 1;
    ptq__best best = {HUGE_VAL, 1, 1};
    int round, i, j;
    for (round = 0; round < 3; round++) {
        for (i = 0; i <= (r->low < 0 ? steps : 0); i++)
            for (j = 0; j <= (r->high > 0 ? steps : 0); j++) {
                double l = corner_low + width * i / steps, h = corner_high + width * j / steps;
                l = l > 1 ? 1 : l;
                h = h > 1 ? 1 : h;
                if (l >= 0 && h >= 0)
                    ptq__offer(&best, ptq__range_error(r, r->low * l, r->high * h, best.error), l,
                               h);
            }
        width /= 8;
        corner_low = best.low - width / 2;
        corner_high = best.high - width / 2;
    }
    r->low *= best.low;
    r->high *= best.high;
}

/* In the order of ptq_method. */
static void (*const ptq__range_rules[PTQ_METHOD_COUNT])(ptq__range *r) = {
    ptq__range_minmax,     ptq__range_average, ptq__range_histogram,
    ptq__range_percentile, ptq__range_entropy, ptq__range_mse};

PTQ_API ptq_status ptq_observer_range(const ptq_observer *observer, int channel, ptq_method method,
                                      float percentile, ptq_type type, int bits, int symmetric,
                                      float *low, float *high, ptq_error *err) {
    ptq__range r;
    r.percentile = percentile > 0 ? (double)percentile : 99.99;
    if (channel < 0 || channel >= observer->channels || r.percentile <= 50 || r.percentile > 100 ||
        (unsigned)method >= PTQ_METHOD_COUNT)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "channel %d of %d, method %d, percentile %g (over 50, at most 100)",
                             channel, observer->channels, (int)method, r.percentile);
    r.s = &observer->channel[channel];
    if (!r.s->count)
        return ptq_error_set(err, PTQ_NOT_READY, "nothing was observed");
    r.type = type;
    r.bits = bits;
    r.symmetric = symmetric;
    r.low = r.s->min < 0 ? (double)r.s->min : 0;
    r.high = r.s->max > 0 ? (double)r.s->max : 0;
    ptq__range_rules[method](&r);
    *low = r.low < 0 ? (float)r.low : 0;
    *high = r.high > 0 ? (float)r.high : 0;
    return PTQ_OK;
}

/* ---- [CALIBRATE] ------------------------------------------------------------------------- */

static uint64_t ptq__fnv(uint64_t hash, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    size_t i;
    for (i = 0; i < size; i++)
        hash = (hash ^ p[i]) * 1099511628211u;
    return hash;
}

static const uint64_t ptq__fnv_start = 14695981039346656037u;

PTQ_API uint64_t ptq_image_hash(const uint8_t *pixels, size_t size) {
    return ptq__fnv(ptq__fnv_start, pixels, size);
}

/* Numbers of `width` bytes enter byte by byte from the least, the same on every machine. */
static uint64_t ptq__fnv_numbers(uint64_t hash, const void *numbers, size_t count, size_t width) {
    uint8_t little[8];
    size_t i;
    for (i = 0; i < count; i++) {
        ptq__copy_le(little, (const uint8_t *)numbers + i * width, 1, (int)width);
        hash = ptq__fnv(hash, little, width);
    }
    return hash;
}

static uint64_t ptq__fnv_tensor(uint64_t hash, const ptq_tensor *tensor) {
    size_t width = tensor->bits >= 8 ? (size_t)tensor->bits / 8 : 1;
    return ptq__fnv_numbers(hash, tensor->data, tensor->size / width, width);
}

/* By which an item of a data set is known again: of its bytes, real numbers being little-endian. */
static uint64_t ptq__item_hash(const ptq_dataset *data, const void *item) {
    size_t n = ptq__item_elements(data);
    return data->type == PTQ_TYPE_F32 ? ptq__fnv_numbers(ptq__fnv_start, item, n, sizeof(float))
                                      : ptq_image_hash((const uint8_t *)item, n);
}

PTQ_API uint64_t ptq_model_hash(const ptq_model *model) {
    uint64_t hash = ptq__fnv_start;
    char line[1024];
    int i, p;
    for (i = 0; i < model->nodes; i++) {
        ptq__text text = ptq__text_over(line, sizeof line);
        ptq__put_node(&text, model, &model->node[i]);
        hash = ptq__fnv(hash, line, strlen(line));
        for (p = 0; p < PTQ_PARAM_COUNT; p++)
            if (model->node[i].param[p].rank)
                hash = ptq__fnv_tensor(hash, &model->node[i].param[p]);
    }
    return hash;
}

static ptq_status ptq__calibration_create(const ptq_allocator *allocator, int classes,
                                          ptq_calibration **out, ptq_error *err) {
    void *memory = NULL, *counts = NULL;
    ptq_calibration *calibration;
    ptq_status status;
    PTQ__TRY(ptq__alloc(allocator, 1, sizeof *calibration, "calibration", &memory, err));
    status = ptq__alloc(allocator, (size_t)classes, sizeof(uint64_t), "calibration", &counts, err);
    if (status) {
        ptq__free(allocator, memory);
        return status;
    }
    calibration = (ptq_calibration *)memory;
    calibration->allocator = ptq__allocator(allocator);
    calibration->classes = classes;
    calibration->class_count = (uint64_t *)counts;
    *out = calibration;
    return PTQ_OK;
}

PTQ_API void ptq_calibration_free(ptq_calibration *calibration) {
    ptq_allocator allocator;
    int i;
    if (!calibration)
        return;
    allocator = calibration->allocator;
    for (i = 0; i < calibration->tensors; i++)
        ptq_observer_free(&calibration->tensor[i].observer);
    ptq__free(&allocator, calibration->tensor);
    ptq__free(&allocator, calibration->hash);
    ptq__free(&allocator, calibration->class_count);
    ptq__free(&allocator, calibration);
}

PTQ_API int ptq_calibration_find(const ptq_calibration *calibration, const char *name) {
    int i;
    for (i = 0; i < calibration->tensors; i++)
        if (!strcmp(calibration->tensor[i].name, name))
            return i;
    return -1;
}

/* Room for `count` tensors. */
static ptq_status ptq__calibration_reserve(ptq_calibration *calibration, size_t count,
                                           ptq_error *err) {
    void *memory = NULL;
    PTQ__TRY(ptq__alloc(&calibration->allocator, count, sizeof(ptq_calibrated), "calibration",
                        &memory, err));
    calibration->tensor = (ptq_calibrated *)memory;
    return PTQ_OK;
}

static ptq_status ptq__calibration_add_tensor(ptq_calibration *calibration, const char *name,
                                              ptq_error *err) {
    ptq_calibrated *tensor = &calibration->tensor[calibration->tensors];
    PTQ__TRY(ptq_observer_create(&tensor->observer, 1, &calibration->allocator, err));
    memcpy(tensor->name, name, strlen(name) + 1);
    calibration->tensors++;
    return PTQ_OK;
}

/* Every tensor that conversion may ask for: results, and results before a fused addition. */
static ptq_status ptq__calibration_tensors(ptq_calibration *calibration, const ptq_model *model,
                                           ptq_error *err) {
    int i, middle;
    PTQ__TRY(ptq__calibration_reserve(calibration, 2 * (size_t)model->nodes, err));
    for (i = 1; i < model->nodes; i++)
        for (middle = model->node[i].residual ? 1 : 0; middle >= 0; middle--)
            if (model->node[i].op != PTQ_OP_SOFTMAX)
                PTQ__TRY(ptq__calibration_add_tensor(
                    calibration, middle ? model->node[i].name : model->node[i].out, err));
    return PTQ_OK;
}

static void ptq__count_pixels(ptq_calibration *calibration, const uint8_t *pixels,
                              const int *shape) {
    int width = shape[1] * shape[2], n = shape[0] * width, i;
    for (i = 0; i < n; i++) {
        calibration->pixel[pixels[i]]++;
        if (i % width >= shape[2]) {
            int difference = pixels[i] - pixels[i - shape[2]];
            calibration->neighbour_sum += (uint64_t)(difference < 0 ? -difference : difference);
            calibration->neighbours++;
        }
    }
}

static void ptq__sort_hashes(uint64_t *hash, size_t n) {
    size_t gap, i, k;
    for (gap = n / 2; gap > 0; gap /= 2) /* Shell sort: small, and n is */
        for (i = gap; i < n; i++) {
            uint64_t value = hash[i];
            for (k = i; k >= gap && hash[k - gap] > value; k -= gap)
                hash[k] = hash[k - gap];
            hash[k] = value;
        }
}

static ptq_status ptq__calibrate_begin(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    const ptq_model *model = ptq_plan_get_info(job->plan)->model;
    ptq_calibration *part = NULL;
    void *memory = NULL;
    PTQ__TRY(ptq__calibration_create(&job->allocator, job->data->classes, &part, err));
    worker->own = part;
    part->model = ((const ptq_calibration *)job->context)->model;
    PTQ__TRY(
        ptq__alloc(&job->allocator, job->total, sizeof(uint64_t), "image hashes", &memory, err));
    part->hash = (uint64_t *)memory;
    return ptq__calibration_tensors(part, model, err);
}

static ptq_status ptq__calibrate_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                     ptq_error *err) {
    ptq_calibration *part = (ptq_calibration *)worker->own;
    ptq_error inner;
    int i;
    PTQ__TRY(ptq__run_item(worker->session, job->data, worker->item, NULL, err));
    for (i = 0; i < part->tensors; i++) {
        ptq_tensor view;
        ptq_status status;
        PTQ__TRY(ptq_session_tensor(worker->session, part->tensor[i].name, &view, err));
        status = ptq_observe(&part->tensor[i].observer, (const float *)view.data,
                             ptq_tensor_elements(&view), &inner);
        if (status)
            return ptq_error_set(err, status, "node %s: %s, on image %z; check its weights",
                                 part->tensor[i].name, inner.text, index);
    }
    part->hash[part->images++] = ptq__item_hash(job->data, worker->item);
    if (label >= 0)
        part->class_count[label]++;
    if (job->data->type == PTQ_TYPE_U8)
        ptq__count_pixels(part, (const uint8_t *)worker->item,
                          ptq_plan_get_info(job->plan)->model->node[0].shape);
    return PTQ_OK;
}

static ptq_status ptq__calibrate_end(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq_calibration *part = (ptq_calibration *)worker->own;
    ptq_status status = PTQ_OK;
    if (part && !job->status)
        status = ptq_calibration_merge((ptq_calibration *)job->context, part, err);
    ptq_calibration_free(part);
    return status;
}

/* Hashes of both, in order, into memory of the first. */
static ptq_status ptq__merge_hashes(ptq_calibration *a, const ptq_calibration *b, ptq_error *err) {
    void *memory = NULL;
    if (!b->images)
        return PTQ_OK;
    PTQ__TRY(ptq__alloc(&a->allocator, a->images + b->images, sizeof(uint64_t), "image hashes",
                        &memory, err));
    if (a->images)
        memcpy(memory, a->hash, a->images * sizeof(uint64_t));
    memcpy((uint64_t *)memory + a->images, b->hash, b->images * sizeof(uint64_t));
    ptq__free(&a->allocator, a->hash);
    a->hash = (uint64_t *)memory;
    a->images += b->images;
    ptq__sort_hashes(a->hash, a->images);
    return PTQ_OK;
}

PTQ_API ptq_status ptq_calibration_merge(ptq_calibration *calibration, const ptq_calibration *other,
                                         ptq_error *err) {
    int i;
    if (calibration->model != other->model || calibration->classes != other->classes ||
        calibration->tensors != other->tensors)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "these calibrations are of different models; merge those of one");
    for (i = 0; i < calibration->tensors; i++)
        if (strcmp(calibration->tensor[i].name, other->tensor[i].name))
            return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                                 "the calibrations have tensors %s and"
                                 " %s",
                                 calibration->tensor[i].name, other->tensor[i].name);
    PTQ__TRY(ptq__merge_hashes(calibration, other, err));
    for (i = 0; i < calibration->tensors; i++)
        PTQ__TRY(
            ptq__observer_merge(&calibration->tensor[i].observer, &other->tensor[i].observer, err));
    for (i = 0; i < calibration->classes; i++)
        calibration->class_count[i] += other->class_count[i];
    for (i = 0; i < 256; i++)
        calibration->pixel[i] += other->pixel[i];
    calibration->neighbours += other->neighbours;
    calibration->neighbour_sum += other->neighbour_sum;
    return PTQ_OK;
}

/* How far horizontal neighbours differ, as a share of what independent draws from the same pixels
   would differ by: about 0.2 for photographs, 1 for noise, 0 for constant pictures. */
static double ptq__roughness(const ptq_calibration *calibration) {
    double total = 0, below = 0, spread = 0, seen;
    int v;
    for (v = 0; v < 256; v++)
        total += (double)calibration->pixel[v];
    if (!(total > 0))
        return 0.5; /* real numbers: nothing is known, and nothing to be said */
    /* E|a - b| = 2 * sum over v of F(v) (1 - F(v)), F the share of pixels up to v. */
    for (v = 0; v < 255; v++) {
        below += (double)calibration->pixel[v] / total;
        spread += 2 * below * (1 - below);
    }
    seen = calibration->neighbours
               ? (double)calibration->neighbour_sum / (double)calibration->neighbours
               : spread * 0.5;
    return spread > 0 ? seen / spread : 0;
}

static ptq_status ptq__check_calibration(const ptq_calibration *calibration, ptq_error *err) {
    double roughness = ptq__roughness(calibration);
    if (roughness > 0.75)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "the calibration images look random (neighbouring pixels differ like"
                             " independent ones); calibrate on real images");
    if (roughness < 0.001)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "the calibration images are constant; calibrate on real images");
    return PTQ_OK;
}

PTQ_API ptq_status ptq_calibrate(const ptq_plan *plan, const ptq_dataset *data,
                                 const ptq_calibrate_options *options, ptq_calibration **out,
                                 ptq_error *err) {
    ptq_calibration *calibration = NULL;
    ptq__job job;
    ptq_status status;
    PTQ__TRY(ptq__check_fits(plan, data, err));
    if (ptq__is_quantized(plan->info.model))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "this model is quantized already; calibrate the float model");
    memset(&job, 0, sizeof job);
    job.plan = plan;
    job.data = data;
    job.total = data->count;
    job.keep = 1;
    job.begin = ptq__calibrate_begin;
    job.one = ptq__calibrate_one;
    job.end = ptq__calibrate_end;
    if (options) {
        job.allocator = options->work.allocator;
        job.progress = options->work.progress;
        job.user = options->work.user;
    }
    PTQ__TRY(ptq__calibration_create(&job.allocator, data->classes, &calibration, err));
    calibration->model = ptq_model_hash(plan->info.model);
    job.context = calibration;
    status = ptq__calibration_tensors(calibration, plan->info.model, err);
    if (!status)
        status = ptq__job_run(&job, options ? options->work.threads : 1, err);
    if (!status && !(options && options->accept_any))
        status = ptq__check_calibration(calibration, err);
    if (status)
        ptq_calibration_free(calibration);
    else
        *out = calibration;
    return status;
}

PTQ_API size_t ptq_calibration_warnings(const ptq_calibration *calibration, char *buffer,
                                        size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    uint64_t least = UINT64_MAX, most = 0;
    size_t i, twice = 0;
    int c, missing = 0, top = 255;
    uint64_t labelled = 0;
    for (c = 0; c < calibration->classes; c++) {
        uint64_t n = calibration->class_count[c];
        labelled += n;
        least = n < least ? n : least;
        most = n > most ? n : most;
        missing += n == 0;
    }
    for (i = 1; i < calibration->images; i++)
        twice += calibration->hash[i] == calibration->hash[i - 1];
    while (top >= 0 && !calibration->pixel[top])
        top--;
    if (calibration->images < 100)
        ptq__put(&text, "Only %z images: ranges will be uncertain; use at least 100.\n",
                 calibration->images);
    if (missing && labelled)
        ptq__put(&text, "%d of %d classes have no image: take some of every class.\n", missing,
                 calibration->classes);
    else if (labelled && most > 2 * least)
        ptq__put(&text, "Classes have from %L to %L images: take about as many of each.\n", least,
                 most);
    if (twice)
        ptq__put(&text, "%z images occur more than once: take different ones.\n", twice);
    if (top >= 0 && top < 128) /* of real numbers there are no pixels */
        ptq__put(&text,
                 "No pixel is over %d where 0 to 255 is expected: pass raw pixels, not"
                 " scaled ones.\n",
                 top);
    return text.length;
}

static int ptq__has_hash(const ptq_calibration *calibration, uint64_t hash) {
    size_t low = 0, high = calibration->images;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (calibration->hash[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < calibration->images && calibration->hash[low] == hash;
}

PTQ_API ptq_status ptq_calibration_overlap(const ptq_calibration *calibration,
                                           const ptq_dataset *data, size_t *overlap,
                                           ptq_error *err) {
    size_t i, found = 0;
    void *item = NULL;
    ptq_status status = PTQ_OK;
    int label;
    PTQ__TRY(ptq__check_dataset(data, err));
    PTQ__TRY(ptq__alloc(&calibration->allocator, ptq__item_size(data), 1, "an image", &item, err));
    for (i = 0; i < data->count && !status; i++) {
        status = data->get(data->user, i, item, &label, err);
        if (!status)
            found += (size_t)ptq__has_hash(calibration, ptq__item_hash(data, item));
    }
    ptq__free(&calibration->allocator, item);
    if (!status)
        *overlap = found;
    return status;
}

/* ---- [SCHEME] ---------------------------------------------------------------------------- */

static const char *const ptq__presets[][2] = {
#define PTQ_X(name, text) {name, text},
    PTQ_PRESET_LIST(PTQ_X)
#undef PTQ_X
};

enum { PTQ__PRESETS = sizeof ptq__presets / sizeof ptq__presets[0] };

PTQ_API const char *ptq_preset_name(int number) {
    return number >= 0 && number < PTQ__PRESETS ? ptq__presets[number][0] : NULL;
}

PTQ_API const char *ptq_preset_text(int number) {
    return number >= 0 && number < PTQ__PRESETS ? ptq__presets[number][1] : NULL;
}

PTQ_API ptq_status ptq_preset(const char *name, ptq_scheme *out, ptq_error *err) {
    ptq_scheme s;
    memset(&s, 0, sizeof s);
    if (!strcmp(name, "best")) {
        s.weight_method = PTQ_METHOD_MSE;
        s.activation_method = PTQ_METHOD_MSE;
        s.rounding = PTQ_ROUNDING_LEARNED;
        s.refit = PTQ_REFIT_BELOW_8;
        s.equalize = s.fit_ranges = s.confirm = 1;
    } else if (!strcmp(name, "ort-u8")) {
        s.weight_per_tensor = s.weight_affine = s.code_logits = 1;
    } else if (!strcmp(name, "ort-s8")) {
        s.weight_per_tensor = s.activation_signed = s.code_logits = 1;
    } else if (!strcmp(name, "fbgemm")) {
        s.weight_full_range = s.code_logits = 1;
        s.activation_bits = 7;
        s.activation_method = PTQ_METHOD_HISTOGRAM;
    } else if (!strcmp(name, "tflite")) {
        s.activation_signed = s.code_logits = 1;
    } else if (!strcmp(name, "dynamic")) {
        s.mode = PTQ_MODE_DYNAMIC;
    } else if (!strcmp(name, "fp16")) {
        s.mode = PTQ_MODE_HALF;
    } else if (!strcmp(name, "w4a8")) {
        s.weight_bits = 4;
        s.weight_method = PTQ_METHOD_MSE;
        s.activation_method = PTQ_METHOD_MSE;
        s.rounding = PTQ_ROUNDING_LEARNED;
        s.refit = PTQ_REFIT_BELOW_8;
    } else {
        char names[160];
        ptq__text text = ptq__text_over(names, sizeof names);
        int i;
        for (i = 0; i < PTQ__PRESETS; i++)
            ptq__put(&text, i ? ", %s" : "%s", ptq__presets[i][0]);
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "there is no preset '%s'; there are: %s",
                             ptq__quoted(ptq__span_of(name)).text, names);
    }
    *out = s;
    return PTQ_OK;
}

static int ptq__weight_bits(const ptq_scheme *scheme) {
    return scheme->weight_bits ? scheme->weight_bits : 8;
}

static int ptq__activation_bits(const ptq_scheme *scheme) {
    return scheme->activation_bits ? scheme->activation_bits : 8;
}

/* Whether a switch that is for few activation bits alone takes effect. */
static int ptq__below_8(const ptq_scheme *scheme, int on) {
    return on && scheme->mode == PTQ_MODE_INTEGER && ptq__activation_bits(scheme) < 8;
}

/* Whether layers of this scheme are fitted anew. */
static int ptq__refits(const ptq_scheme *s) {
    return s->rounding == PTQ_ROUNDING_LEARNED &&
           (s->refit == PTQ_REFIT_ALWAYS ||
            (s->refit == PTQ_REFIT_BELOW_8 &&
             (ptq__weight_bits(s) < 8 || ptq__activation_bits(s) < 8)));
}

PTQ_API size_t ptq_scheme_write(const ptq_scheme *s, char *buffer, size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    if (s->mode == PTQ_MODE_FLOAT || s->mode == PTQ_MODE_HALF) {
        ptq__put_string(&text, ptq_mode_name(s->mode));
        return text.length;
    }
    ptq__put(&text, "w%d %s%s%s %s%s", ptq__weight_bits(s),
             s->weight_per_tensor ? "per-tensor" : "per-channel", s->weight_affine ? " affine" : "",
             s->weight_full_range ? " full" : "", ptq_method_name(s->weight_method),
             ptq__refits(s)                        ? " refitted"
             : s->rounding == PTQ_ROUNDING_LEARNED ? " learned"
                                                   : "");
    if (s->bias && s->rounding == PTQ_ROUNDING_NEAREST && s->mode == PTQ_MODE_INTEGER)
        ptq__put(&text, " bias-%s",
                 s->bias == PTQ_BIAS_CORRECTION_ANALYTIC ? "analytic" : "empirical");
    if (s->mode == PTQ_MODE_DYNAMIC) {
        ptq__put_string(&text, ", dynamic");
        return text.length;
    }
    ptq__put(&text, ", a%d %s%s %s", ptq__activation_bits(s), s->activation_signed ? "s8" : "u8",
             s->activation_symmetric ? " symmetric" : "", ptq_method_name(s->activation_method));
    if (s->activation_method == PTQ_METHOD_PERCENTILE && s->percentile > 0)
        ptq__put(&text, " %g", (double)s->percentile);
    if (ptq__below_8(s, s->fit_ranges))
        ptq__put_string(&text, " fitted");
    if (ptq__below_8(s, s->equalize))
        ptq__put_string(&text, ", equalized");
    if (s->code_logits)
        ptq__put_string(&text, ", logits coded");
    return text.length;
}

PTQ_API ptq_status ptq_scheme_check(const ptq_scheme *s, ptq_error *err) {
    int wb = ptq__weight_bits(s), ab = ptq__activation_bits(s);
    if (wb < 2 || wb > 8 || ab < 2 || ab > 8)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "%d weight bits and %d activation bits; each must be 2 to 8", wb, ab);
    if ((unsigned)s->mode > PTQ_MODE_FLOAT || (unsigned)s->activation_method >= PTQ_METHOD_COUNT)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "the scheme has an unknown mode or range");
    if ((unsigned)s->rounding > PTQ_ROUNDING_LEARNED || (unsigned)s->refit > PTQ_REFIT_ALWAYS ||
        (unsigned)s->bias > PTQ_BIAS_CORRECTION_ANALYTIC)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "the scheme has an unknown rounding, refit or bias correction");
    if (s->bias == PTQ_BIAS_CORRECTION_ANALYTIC && s->rounding == PTQ_ROUNDING_LEARNED)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "learned rounding corrects biases on images; analytic bias correction"
                             " goes with rounding to nearest");
    if (s->weight_method != PTQ_METHOD_MINMAX && s->weight_method != PTQ_METHOD_MSE)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "weight ranges are minmax or mse, not %s",
                             ptq_method_name(s->weight_method));
    if (s->weight_affine && (!s->weight_per_tensor || s->weight_method != PTQ_METHOD_MINMAX))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "affine weights have one scale for the tensor, from minmax");
    if (s->percentile < 0 || s->percentile > 100 || (s->percentile > 0 && s->percentile <= 50))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "percentile %g; must be over 50 and at most 100",
                             (double)s->percentile);
    return PTQ_OK;
}

/* `*` any characters, `?` one. */
static int ptq__matches(const char *pattern, const char *name) {
    const char *star = NULL, *from = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++from;
        } else {
            return 0;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

/* ---- [CONVERT] --------------------------------------------------------------------------- */

/* Codes of n weights under a scale; returns the squared error. `codes` may be NULL. */
static double ptq__code_weights(const float *w, size_t n, float scale, int32_t zero_point,
                                int32_t low, int32_t high, ptq_tensor *codes, size_t at) {
    double error = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        int32_t code = ptq__to_code(ptq__div(w[i], scale), zero_point, low, high);
        double d = (double)w[i] - (double)scale * (double)(code - zero_point);
        error += d * d;
        if (codes)
            ptq_tensor_set_code(codes, at + i, code);
    }
    return error;
}

/* The scale that fits given codes best: sum(w q) / sum(q q). */
static float ptq__fitted_scale(const float *w, size_t n, float scale, int32_t low, int32_t high) {
    double wq = 0, qq = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        double q = (double)ptq__to_code(ptq__div(w[i], scale), 0, low, high);
        wq += (double)w[i] * q;
        qq += q * q;
    }
    return qq > 0 && wq > 0 ? (float)(wq / qq) : scale;
}

/* The scale of least squared error: between a fifth of the MinMax scale and all of it, then fitted
   to its own codes. */
static float ptq__search_scale(const float *w, size_t n, float full, int32_t low, int32_t high) {
    float best = full, scale;
    double least = ptq__code_weights(w, n, full, 0, low, high, NULL, 0), error;
    int k;
    for (k = 199; k >= 40; k--) {
        scale = full * ((float)k / 200);
        error =
            ptq__is_normal(scale) ? ptq__code_weights(w, n, scale, 0, low, high, NULL, 0) : least;
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    for (k = 0; k < 4; k++) {
        scale = ptq__fitted_scale(w, n, best, low, high);
        error = ptq__code_weights(w, n, scale, 0, low, high, NULL, 0);
        if (!ptq__is_normal(scale) || error >= least)
            break;
        least = error;
        best = scale;
    }
    return best;
}

/* Symmetric scale for n weights; 1 for weights that are all zero. */
static float ptq__weight_scale(const float *w, size_t n, const ptq_scheme *scheme, int32_t low,
                               int32_t high) {
    float reach = 0, full;
    size_t i;
    for (i = 0; i < n; i++) {
        float a = w[i] < 0 ? -w[i] : w[i];
        reach = a > reach ? a : reach;
    }
    full = (float)((double)reach / (scheme->weight_full_range ? ((double)high - low) / 2 : high));
    if (!ptq__is_normal(full)) /* all zero, or too small to tell from it */
        return 1;
    return scheme->weight_method == PTQ_METHOD_MSE ? ptq__search_scale(w, n, full, low, high)
                                                   : full;
}

/* u8 codes with a zero point, for the whole tensor. */
static ptq_status ptq__affine_weight(const float *w, size_t n, int bits, float *scale,
                                     int32_t *zero_point, ptq_error *err) {
    ptq_qparams q;
    float low = 0, high = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    PTQ__TRY(ptq_choose_qparams(low, high, PTQ_TYPE_U8, bits, 0, &q, err));
    *scale = q.scale;
    *zero_point = q.zero_point;
    return PTQ_OK;
}

/* Type and lowest code of weights under a scheme. */
static ptq_type ptq__weight_type(const ptq_scheme *scheme) {
    int packed = ptq__weight_bits(scheme) < 8;
    if (scheme->weight_affine)
        return packed ? PTQ_TYPE_PACKED_U : PTQ_TYPE_U8;
    return packed ? PTQ_TYPE_PACKED_S : PTQ_TYPE_S8;
}

/* Codes with scales that are given: one, or one for each channel. */
static ptq_status ptq__weights_from_scales(const ptq_tensor *weight, const ptq_scheme *scheme,
                                           const float *scales, int count, int32_t zero_point,
                                           const ptq_allocator *allocator, ptq_tensor *out,
                                           ptq_error *err) {
    const float *w = (const float *)weight->data;
    size_t n = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    int32_t low, high;
    ptq_tensor made;
    ptq_status status;
    int c;
    PTQ__TRY(ptq_tensor_create(&made, ptq__weight_type(scheme), ptq__weight_bits(scheme),
                               weight->rank, weight->dim, allocator, err));
    status = ptq_tensor_set_scale(&made, scales, count, zero_point, allocator, err);
    if (status) {
        ptq_tensor_free(&made, allocator);
        return status;
    }
    ptq_code_range(made.type, made.bits, &low, &high);
    if (!scheme->weight_affine && !scheme->weight_full_range)
        low = -high;
    for (c = 0; c < weight->dim[0]; c++)
        ptq__code_weights(w + (size_t)c * n, n, scales[count > 1 ? c : 0], zero_point, low, high,
                          &made, (size_t)c * n);
    *out = made;
    return PTQ_OK;
}

/* The scales that a scheme chooses, `count` of them, and the zero point. */
static ptq_status ptq__choose_scales(const ptq_tensor *weight, const ptq_scheme *scheme,
                                     float *scales, int count, int32_t *zero_point,
                                     ptq_error *err) {
    const float *w = (const float *)weight->data;
    size_t n = ptq_tensor_elements(weight) / (size_t)count;
    int32_t low, high;
    int c;
    *zero_point = 0;
    if (scheme->weight_affine)
        return ptq__affine_weight(w, n, ptq__weight_bits(scheme), scales, zero_point, err);
    ptq_code_range(PTQ_TYPE_S8, ptq__weight_bits(scheme), &low, &high);
    if (!scheme->weight_full_range)
        low = -high; /* the lowest code has no positive twin: left out, for symmetry */
    for (c = 0; c < count; c++)
        scales[c] = ptq__weight_scale(w + (size_t)c * n, n, scheme, low, high);
    return PTQ_OK;
}

PTQ_API ptq_status ptq_quantize_weight(const ptq_tensor *weight, const ptq_scheme *scheme,
                                       const ptq_allocator *allocator, ptq_tensor *out,
                                       ptq_error *err) {
    int count = scheme->weight_per_tensor ? 1 : weight->dim[0];
    int32_t zero_point = 0;
    void *scales = NULL;
    size_t i, n = ptq_tensor_elements(weight);
    ptq_status status;
    PTQ__TRY(ptq_scheme_check(scheme, err));
    if (weight->type != PTQ_TYPE_F32 || !n)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "weights to quantize must be F32");
    for (i = 0; i < n; i++)
        if (!ptq__is_finite(((const float *)weight->data)[i]))
            return ptq_error_set(err, PTQ_BAD_NUMBER, "weight %z is %g", i,
                                 (double)((const float *)weight->data)[i]);
    PTQ__TRY(ptq__alloc(allocator, (size_t)count, sizeof(float), "scales", &scales, err));
    status = ptq__choose_scales(weight, scheme, (float *)scales, count, &zero_point, err);
    if (!status)
        status = ptq__weights_from_scales(weight, scheme, (float *)scales, count, zero_point,
                                          allocator, out, err);
    ptq__free(allocator, scales);
    return status;
}

typedef struct ptq__interval {
    float low, high; /* 0, 0: not known yet */
} ptq__interval;

/* One pass over the fused float model. A tensor of the old model may exist in the new one as real
   numbers, as codes, or both; -1 where it does not. */
struct ptq__converter {
    const ptq_model *old;
    const ptq_calibration *calibration;
    const ptq_convert_options *options;
    ptq_model *model;
    ptq_convert_report *report;
    int *real, *coded;
    int capacity;         /* of the report */
    ptq__interval *range; /* of each calibrated tensor; NULL: as the scheme says */
};

/* The scheme of a node: the last override that matches its name, or the name of its result. */
static const ptq_scheme *ptq__scheme_of(const ptq__converter *cv, const ptq_node *node) {
    int i;
    for (i = cv->options->overrides - 1; i >= 0; i--)
        if (ptq__matches(cv->options->override[i].pattern, node->name) ||
            ptq__matches(cv->options->override[i].pattern, node->out))
            return &cv->options->override[i].scheme;
    return &cv->options->scheme;
}

/* Whether a node of the old model is to run on integers. */
static int ptq__goes_integer(const ptq__converter *cv, int index) {
    const ptq_node *node = &cv->old->node[index];
    ptq__codes codes = ptq__operator_of(node)->codes;
    if (codes == PTQ__INPUT_CODES || codes == PTQ__NO_CODES)
        return 0;
    return ptq__scheme_of(cv, node)->mode == PTQ_MODE_INTEGER;
}

static ptq_status ptq__note(ptq__converter *cv, const char *node, const char *what, size_t before,
                            size_t after, ptq_error *err) {
    ptq_convert_report *report = cv->report;
    void *array;
    ptq_conversion *item;
    ptq__text text;
    if (!report)
        return PTQ_OK;
    array = report->item;
    PTQ__TRY(ptq__grow(&report->allocator, &array, report->items, &cv->capacity, sizeof *item,
                       "conversion report", err));
    report->item = (ptq_conversion *)array;
    item = &report->item[report->items++];
    text = ptq__text_over(item->node, sizeof item->node);
    ptq__put_string(&text, node);
    text = ptq__text_over(item->what, sizeof item->what);
    ptq__put_string(&text, what);
    item->bytes_before = before;
    item->bytes_after = after;
    report->bytes_before += before;
    report->bytes_after += after;
    return PTQ_OK;
}

/* What calibration and scheme make of the tensor `name`. */
static ptq_status ptq__tensor_qparams(const ptq__converter *cv, const char *name,
                                      const ptq_scheme *scheme, ptq_qparams *out, ptq_error *err) {
    ptq_type type = scheme->activation_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    int bits = ptq__activation_bits(scheme), i;
    float low, high;
    ptq_error inner;
    ptq_status status = PTQ_OK;
    if (!cv->calibration)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "the model was never calibrated; run ptq_calibrate first");
    i = ptq_calibration_find(cv->calibration, name);
    if (i < 0)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "tensor %s was never observed; calibrate this very model", name);
    if (cv->range && cv->range[i].high > cv->range[i].low) {
        low = cv->range[i].low;
        high = cv->range[i].high;
    } else {
        status = ptq_observer_range(&cv->calibration->tensor[i].observer, 0,
                                    scheme->activation_method, scheme->percentile, type, bits,
                                    scheme->activation_symmetric, &low, &high, &inner);
    }
    if (!status && cv->range) {
        cv->range[i].low = low;
        cv->range[i].high = high;
    }
    if (!status)
        status =
            ptq_choose_qparams(low, high, type, bits, scheme->activation_symmetric, out, &inner);
    return status ? ptq_error_set(err, status, "tensor %s: %s", name, inner.text) : PTQ_OK;
}

/* The input's codes follow from what a pixel can be, 0 to 255 in every channel, not from data. */
static ptq_status ptq__input_qparams(const ptq_model *model, const ptq_scheme *scheme,
                                     ptq_qparams *out, ptq_error *err) {
    float low = 0, high = 0;
    int c;
    for (c = 0; c < model->node[0].shape[2]; c++) {
        float dark = ptq__pixel(model, c, 0), bright = ptq__pixel(model, c, 255);
        low = dark < low ? dark : low;
        high = bright > high ? bright : high;
    }
    return ptq_choose_qparams(low, high, scheme->activation_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8, 8,
                              scheme->activation_symmetric && scheme->activation_signed, out, err);
}

/* Appends a quantize or dequantize node behind node `from` of the new model. */
static ptq_status ptq__insert(ptq__converter *cv, ptq_op op, int from, const ptq_qparams *q,
                              int *out, ptq_error *err) {
    ptq_node node = ptq__blank(op, from, -1);
    ptq__text text = ptq__text_over(node.name, sizeof node.name);
    ptq__put(&text, "%s.%s", cv->model->node[from].out, ptq_op_name(op));
    if (text.length >= sizeof node.name)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "node %s: its name is too long to insert a %s",
                             cv->model->node[from].name, ptq_op_name(op));
    if (q)
        node.q = *q;
    PTQ__TRY(ptq__append(cv->model, &node, err));
    *out = cv->model->nodes - 1;
    return ptq__note(cv, node.name, "inserted", 0, 0, err);
}

/* Node of the new model with the codes of old tensor i, made if need be. */
static ptq_status ptq__get_coded(ptq__converter *cv, int i, const ptq_scheme *scheme, int *out,
                                 ptq_error *err) {
    ptq_qparams q;
    if (cv->coded[i] < 0) {
        PTQ__TRY(ptq__tensor_qparams(cv, cv->old->node[i].out, scheme, &q, err));
        PTQ__TRY(ptq__insert(cv, PTQ_OP_QUANTIZE, cv->real[i], &q, &cv->coded[i], err));
    }
    *out = cv->coded[i];
    return PTQ_OK;
}

static ptq_status ptq__get_real(ptq__converter *cv, int i, int *out, ptq_error *err) {
    if (cv->real[i] < 0)
        PTQ__TRY(ptq__insert(cv, PTQ_OP_DEQUANTIZE, cv->coded[i], NULL, &cv->real[i], err));
    *out = cv->real[i];
    return PTQ_OK;
}

/* The largest bias code: 2^30 leaves the other half of int32 to the products. */
static const double ptq__most_bias = 1073741824.0;

/* A weight scale at which the bias fits; a channel without weights gets one at which its bias keeps
   24 bits. */
static float ptq__scale_for_bias(float scale, int all_zero, float bias, float in_scale) {
    double b = bias < 0 ? -(double)bias : (double)bias;
    double least = b / (ptq__most_bias * (double)in_scale);
    if (all_zero && b > 0)
        return (float)(b / (16777216.0 * (double)in_scale));
    return (double)scale < least ? (float)(least * 1.0000002) : scale;
}

static int ptq__all_zero(const float *w, size_t n) {
    size_t i;
    for (i = 0; i < n; i++)
        if (w[i] < 0 || w[i] > 0)
            return 0;
    return 1;
}

/* Scales chosen for the weights alone are enlarged where the bias needs it; then codes. */
static ptq_status ptq__convert_weight(ptq__converter *cv, const ptq_node *from, float in_scale,
                                      const ptq_scheme *scheme, ptq_tensor *out, ptq_error *err) {
    const ptq_tensor *weight = &from->param[PTQ_PARAM_WEIGHT];
    const float *bias = (const float *)from->param[PTQ_PARAM_BIAS].data;
    const ptq_allocator *allocator = &cv->model->allocator;
    int count = scheme->weight_per_tensor ? 1 : weight->dim[0], c;
    size_t n = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    int32_t zero_point;
    void *memory = NULL;
    ptq_status status;
    PTQ__TRY(ptq__alloc(allocator, (size_t)count, sizeof(float), "scales", &memory, err));
    status = ptq__choose_scales(weight, scheme, (float *)memory, count, &zero_point, err);
    for (c = 0; c < weight->dim[0] && bias && !status; c++) {
        float *scale = (float *)memory + (count > 1 ? c : 0);
        const float *w = (const float *)weight->data + (size_t)c * n;
        *scale = ptq__scale_for_bias(*scale, count > 1 && ptq__all_zero(w, n), bias[c], in_scale);
    }
    if (!status)
        status = ptq__weights_from_scales(weight, scheme, (float *)memory, count, zero_point,
                                          allocator, out, err);
    ptq__free(allocator, memory);
    return status;
}

/* round(b / (s_in * s_w)) */
static ptq_status ptq__convert_bias(ptq__converter *cv, const ptq_node *from, float in_scale,
                                    ptq_node *to, ptq_error *err) {
    const ptq_tensor *weight = &to->param[PTQ_PARAM_WEIGHT];
    const float *bias = (const float *)from->param[PTQ_PARAM_BIAS].data;
    int c;
    if (!bias)
        return PTQ_OK;
    PTQ__TRY(ptq_tensor_create(&to->param[PTQ_PARAM_BIAS], PTQ_TYPE_S32, 32, 1,
                               from->param[PTQ_PARAM_BIAS].dim, &cv->model->allocator, err));
    for (c = 0; c < weight->dim[0]; c++) {
        double unit = (double)in_scale * (double)weight->scale[weight->scales > 1 ? c : 0];
        double code = floor((double)bias[c] / unit + 0.5);
        if (!(code >= -ptq__most_bias && code <= ptq__most_bias))
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "node %s: bias[%d] = %g does not fit 32 bits; use a scale per"
                                 " channel",
                                 from->name, c, (double)bias[c]);
        ((int32_t *)to->param[PTQ_PARAM_BIAS].data)[c] = (int32_t)code;
    }
    return PTQ_OK;
}

static ptq_status ptq__half_weight(ptq__converter *cv, const ptq_node *from, ptq_node *to,
                                   ptq_error *err) {
    const ptq_tensor *weight = &from->param[PTQ_PARAM_WEIGHT];
    size_t i, n = ptq_tensor_elements(weight);
    PTQ__TRY(ptq_tensor_create(&to->param[PTQ_PARAM_WEIGHT], PTQ_TYPE_F16, 16, weight->rank,
                               weight->dim, &cv->model->allocator, err));
    for (i = 0; i < n; i++) {
        uint16_t half = ptq_f32_to_f16(((const float *)weight->data)[i]);
        if ((half & 0x7c00) == 0x7c00)
            return ptq_error_set(err, PTQ_BAD_NUMBER,
                                 "node %s: weight[%z] = %g does not fit half precision", from->name,
                                 i, (double)((const float *)weight->data)[i]);
        ((uint16_t *)to->param[PTQ_PARAM_WEIGHT].data)[i] = half;
    }
    return PTQ_OK;
}

/* Weights and biases of a node in its new form; `to` owns what was made even after a failure. */
static ptq_status ptq__convert_params(ptq__converter *cv, const ptq_node *from, ptq_node *to,
                                      int integer, ptq_error *err) {
    const ptq_allocator *allocator = &cv->model->allocator;
    const ptq_scheme *scheme = ptq__scheme_of(cv, from);
    int p, first = 0;
    memset(to->param, 0, sizeof to->param);
    if (integer && ptq__has_weight(from->op)) {
        float in_scale = cv->model->node[to->input[0]].q.scale;
        PTQ__TRY(
            ptq__convert_weight(cv, from, in_scale, scheme, &to->param[PTQ_PARAM_WEIGHT], err));
        return ptq__convert_bias(cv, from, in_scale, to, err);
    }
    if (ptq__has_weight(from->op) && scheme->mode == PTQ_MODE_DYNAMIC) {
        PTQ__TRY(ptq_quantize_weight(&from->param[PTQ_PARAM_WEIGHT], scheme, allocator,
                                     &to->param[PTQ_PARAM_WEIGHT], err));
        to->dynamic = 1;
        first = 1;
    } else if (ptq__has_weight(from->op) && scheme->mode == PTQ_MODE_HALF) {
        PTQ__TRY(ptq__half_weight(cv, from, to, err));
        first = 1;
    }
    for (p = first; p < PTQ_PARAM_COUNT; p++)
        PTQ__TRY(ptq__tensor_copy(&to->param[p], &from->param[p], allocator, err));
    return PTQ_OK;
}

/* How the result of an integer node is coded. */
static ptq_status ptq__result_qparams(ptq__converter *cv, int index, ptq_node *to, ptq_error *err) {
    const ptq_node *from = &cv->old->node[index];
    const ptq_scheme *scheme = ptq__scheme_of(cv, from);
    if (ptq__operator_of(from)->codes == PTQ__SAME_CODES) {
        to->q = cv->model->node[to->input[0]].q;
        return PTQ_OK;
    }
    if (index == ptq_model_logits(cv->old) && from->op == PTQ_OP_DENSE && !scheme->code_logits)
        return PTQ_OK; /* real numbers, straight from the accumulators */
    if (from->residual)
        PTQ__TRY(ptq__tensor_qparams(cv, from->name, scheme, &to->mid, err));
    return ptq__tensor_qparams(cv, from->out, scheme, &to->q, err);
}

/* "s8 per channel, u8 -> u8" */
static ptq_status ptq__note_node(ptq__converter *cv, const ptq_node *from, const ptq_node *to,
                                 int integer, ptq_error *err) {
    char what[96];
    ptq__text text = ptq__text_over(what, sizeof what);
    const ptq_tensor *weight = &to->param[PTQ_PARAM_WEIGHT];
    size_t before = 0, after = 0;
    int p;
    for (p = 0; p < PTQ_PARAM_COUNT; p++) {
        before += from->param[p].size;
        after += to->param[p].size + (size_t)to->param[p].scales * sizeof(float);
    }
    if (weight->scales)
        ptq__put(&text, "%d-bit weights %s, ", weight->bits,
                 weight->scales > 1 ? "per channel" : "per tensor");
    if (integer)
        ptq__put(&text, "%s to %s",
                 to->input[0] >= 0 ? ptq_type_name(cv->model->node[to->input[0]].q.type) : "pixels",
                 ptq_type_name(to->q.type));
    else
        ptq__put_string(&text, to->dynamic                    ? "dynamic"
                               : weight->type == PTQ_TYPE_F16 ? "half-precision weights"
                                                              : "float");
    return ptq__note(cv, from->name, what, before, after, err);
}

/* Appends the new form of node `index`. Failing half-way leaves what was made in the model, which
   is freed as a whole. */
static ptq_status ptq__convert_node(ptq__converter *cv, int index, ptq_error *err) {
    const ptq_node *from = &cv->old->node[index];
    const ptq_scheme *scheme = ptq__scheme_of(cv, from);
    int integer = ptq__goes_integer(cv, index), k;
    ptq_node to = *from;
    void *array;
    ptq_status status;
    for (k = 0; k < 2; k++)
        if (from->input[k] >= 0)
            PTQ__TRY(integer ? ptq__get_coded(cv, from->input[k], scheme, &to.input[k], err)
                             : ptq__get_real(cv, from->input[k], &to.input[k], err));
    memset(to.param, 0, sizeof to.param);
    if (integer)
        PTQ__TRY(ptq__result_qparams(cv, index, &to, err));
    array = cv->model->node;
    PTQ__TRY(ptq__grow(&cv->model->allocator, &array, cv->model->nodes, &cv->model->capacity,
                       sizeof to, "nodes", err));
    cv->model->node = (ptq_node *)array;
    status = ptq__convert_params(cv, from, &to, integer, err);
    cv->model->node[cv->model->nodes++] = to;
    PTQ__TRY(status);
    (to.q.type == PTQ_TYPE_F32 ? cv->real : cv->coded)[index] = cv->model->nodes - 1;
    return ptq__note_node(cv, from, &to, integer, err);
}

/* The input is codes where any node that reads it runs on integers. */
static ptq_status ptq__convert_input(ptq__converter *cv, ptq_error *err) {
    ptq_node *input;
    int i, coded = 0;
    PTQ__TRY(ptq__copy_node(cv->model, &cv->old->node[0], err));
    input = &cv->model->node[0];
    for (i = 1; i < cv->old->nodes; i++)
        coded = coded || ((cv->old->node[i].input[0] == 0 || cv->old->node[i].input[1] == 0) &&
                          ptq__goes_integer(cv, i));
    if (coded)
        PTQ__TRY(ptq__input_qparams(cv->old, &cv->options->scheme, &input->q, err));
    (coded ? cv->coded : cv->real)[0] = 0;
    return PTQ_OK;
}

/* Scheme and overrides into the metadata, for people. */
static ptq_status ptq__describe_scheme(ptq__converter *cv, ptq_error *err) {
    char line[1024];
    ptq__text text = ptq__text_over(line, sizeof line);
    char scheme[160];
    int i;
    ptq_scheme_write(&cv->options->scheme, scheme, sizeof scheme);
    ptq__put_string(&text, scheme);
    for (i = 0; i < cv->options->overrides; i++) {
        ptq_scheme_write(&cv->options->override[i].scheme, scheme, sizeof scheme);
        ptq__put(&text, "; %s: %s", cv->options->override[i].pattern, scheme);
    }
    PTQ__TRY(ptq_model_set_meta(cv->model, "scheme", line, err));
    if (!cv->calibration)
        return PTQ_OK;
    text = ptq__text_over(line, sizeof line);
    ptq__put(&text, "%z images of %d classes", cv->calibration->images, cv->calibration->classes);
    return ptq_model_set_meta(cv->model, "calibration", line, err);
}

static ptq_status ptq__convert_all(ptq__converter *cv, ptq_error *err) {
    int i;
    PTQ__TRY(ptq__copy_head(cv->model, cv->old, err));
    PTQ__TRY(ptq__convert_input(cv, err));
    for (i = 1; i < cv->old->nodes; i++)
        PTQ__TRY(ptq__convert_node(cv, i, err));
    PTQ__TRY(ptq__describe_scheme(cv, err));
    return ptq_model_check(cv->model, err);
}

/* Refuses what conversion cannot start from. */
static ptq_status ptq__check_convertible(const ptq_model *model, const ptq_calibration *calibration,
                                         const ptq_convert_options *options, ptq_error *err) {
    ptq_fuse_report report;
    ptq_model *fused = NULL;
    int i, left = 0;
    char node[PTQ_NAME_SIZE] = "";
    PTQ__TRY(ptq_model_check(model, err));
    if (ptq__is_quantized(model))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "this model is quantized already; convert"
                             " the float model");
    PTQ__TRY(ptq_fuse(model, &fused, &report, err));
    for (i = 0; i < report.items; i++)
        if (report.item[i].kind != PTQ_FUSION_NONE && !left++)
            memcpy(node, report.item[i].node, sizeof node);
    ptq_fuse_report_free(&report);
    ptq_model_free(fused);
    if (left)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "the model is not fused (node %s could be); call ptq_fuse, and"
                             " calibrate its result",
                             node);
    if (calibration && calibration->model != ptq_model_hash(model))
        return ptq_error_set(err, PTQ_NOT_READY,
                             "the calibration is of another model; calibrate"
                             " this one");
    PTQ__TRY(ptq_scheme_check(&options->scheme, err));
    for (i = 0; i < options->overrides; i++)
        PTQ__TRY(ptq_scheme_check(&options->override[i].scheme, err));
    return PTQ_OK;
}

/* Whether a scheme of the model asks for a bias correction. */
static int ptq__uses_bias(const ptq__converter *cv, ptq_bias_correction bias) {
    int i, uses = cv->options->scheme.bias == bias;
    for (i = 0; i < cv->options->overrides; i++)
        uses = uses || cv->options->override[i].scheme.bias == bias;
    return uses && cv->calibration;
}

static ptq_status ptq__convert_run(ptq__converter *cv, int dry, ptq_error *err) {
    size_t n = (size_t)cv->old->nodes, i;
    void *memory = NULL;
    ptq_status status;
    PTQ__TRY(ptq__alloc(&cv->model->allocator, 2 * n, sizeof(int), "conversion", &memory, err));
    cv->real = (int *)memory;
    cv->coded = cv->real + n;
    for (i = 0; i < 2 * n; i++)
        cv->real[i] = -1;
    status = ptq__convert_all(cv, err);
    if (!status && !dry && ptq__uses_bias(cv, PTQ_BIAS_CORRECTION_ANALYTIC))
        status = ptq__correct_analytically(cv, err);
    if (!status && !dry)
        status = ptq__learn(cv, err);
    if (!status)
        status = ptq_model_check(cv->model, err); /* accumulators of the final codes */
    ptq__free(&cv->model->allocator, memory);
    return status;
}

static ptq_status ptq__convert_plainly(ptq__converter *cv, ptq_model **out, ptq_error *err) {
    ptq_status status;
    PTQ__TRY(ptq_model_create(&cv->options->work.allocator, &cv->model, err));
    status = ptq__convert_run(cv, out == NULL, err);
    if (status || !out)
        ptq_model_free(cv->model);
    else
        *out = cv->model;
    return status;
}

PTQ_API ptq_status ptq_convert(const ptq_model *model, const ptq_calibration *calibration,
                               const ptq_convert_options *options, ptq_model **out,
                               ptq_convert_report *report, ptq_error *err) {
    ptq_convert_options plain;
    ptq__converter cv;
    ptq_status status;
    memset(&cv, 0, sizeof cv);
    cv.old = model;
    cv.calibration = calibration;
    memset(&plain, 0, sizeof plain);
    cv.options = options ? options : &plain;
    cv.report = report;
    if (report) {
        memset(report, 0, sizeof *report);
        report->allocator = cv.options->work.allocator;
    }
    PTQ__TRY(ptq__check_convertible(model, calibration, cv.options, err));
    status = ptq__convert_confirmed(&cv, out, err);
    if (status)
        ptq_convert_report_free(report);
    return status;
}

PTQ_API void ptq_convert_report_free(ptq_convert_report *report) {
    if (!report)
        return;
    ptq__free(&report->allocator, report->item);
    report->item = NULL;
    report->items = 0;
}

/* The self-test: a picture of smooth colours from a fixed seed, so that it looks like data. */

static void ptq__test_picture(const int *shape, uint8_t *pixels) {
    ptq_rng rng;
    int y, x, c;
    ptq_rng_seed(&rng, 8, 8);
    for (y = 0; y < shape[0]; y++)
        for (x = 0; x < shape[1]; x++)
            for (c = 0; c < shape[2]; c++)
                *pixels++ =
                    (uint8_t)(((y * (c + 3) + x * (5 - c % 5)) * 4 + (int)ptq_rng_below(&rng, 24)) &
                              255);
}

/* Logits of the picture. */
static ptq_status ptq__self_test_run(const ptq_plan *plan, float *logits, uint64_t *hash,
                                     ptq_error *err) {
    size_t n = plan->info.pixels;
    ptq_session *session = NULL;
    ptq_session_options options;
    void *pixels = NULL;
    ptq_status status;
    memset(&options, 0, sizeof options);
    options.allocator = plan->allocator;
    PTQ__TRY(ptq__alloc(&plan->allocator, n, 1, "an image", &pixels, err));
    ptq__test_picture(plan->info.model->node[0].shape, (uint8_t *)pixels);
    *hash = ptq_image_hash((uint8_t *)pixels, n);
    status = ptq_session_create(plan, &options, &session, err);
    if (!status)
        status = ptq_run(session, (uint8_t *)pixels, 1, logits, NULL, err);
    ptq_session_free(session);
    ptq__free(&plan->allocator, pixels);
    return status;
}

enum { PTQ__SELF_TEST_CLASSES = 64 }; /* more logits than this are left out */

static ptq_status ptq__self_test_of(const ptq_model *model, float *logits, int *n, uint64_t *hash,
                                    ptq_error *err) {
    ptq_plan_options options;
    ptq_plan *plan = NULL;
    void *all = NULL;
    ptq_status status;
    int classes;
    memset(&options, 0, sizeof options);
    options.isa = PTQ_ISA_SCALAR;
    options.allocator = model->allocator;
    PTQ__TRY(ptq_plan_create(model, &options, &plan, err));
    classes = plan->info.classes;
    status = ptq__alloc(&model->allocator, (size_t)classes, sizeof(float), "logits", &all, err);
    if (!status)
        status = ptq__self_test_run(plan, (float *)all, hash, err);
    *n = classes < PTQ__SELF_TEST_CLASSES ? classes : PTQ__SELF_TEST_CLASSES;
    if (!status)
        memcpy(logits, all, (size_t)*n * sizeof(float));
    ptq__free(&model->allocator, all);
    ptq_plan_free(plan);
    return status;
}

PTQ_API ptq_status ptq_self_test_add(ptq_model *model, ptq_error *err) {
    char line[2048];
    ptq__text text = ptq__text_over(line, sizeof line);
    float logits[PTQ__SELF_TEST_CLASSES];
    uint64_t hash = 0;
    int i, n = 0;
    PTQ__TRY(ptq__self_test_of(model, logits, &n, &hash, err));
    ptq__put(&text, "%L", hash);
    for (i = 0; i < n; i++)
        ptq__put(&text, " %g", (double)logits[i]);
    return ptq_model_set_meta(model, "self_test", line, err);
}

/* 1 if the result cannot depend on the instruction set: every layer with weights on integers. */
static int ptq__is_exact(const ptq_model *model) {
    int i;
    for (i = 0; i < model->nodes; i++)
        if (model->node[i].op == PTQ_OP_BATCH_NORM ||
            (ptq__has_weight(model->node[i].op) && ptq_node_mode(model, i) != PTQ_MODE_INTEGER))
            return 0;
    return 1;
}

PTQ_API ptq_status ptq_self_test_check(const ptq_plan *plan, ptq_error *err) {
    const char *line = ptq_model_get_meta(plan->info.model, "self_test");
    int i, classes = plan->info.classes, exact = ptq__is_exact(plan->info.model);
    uint64_t hash = 0, expected = 0;
    ptq__span rest, item;
    void *logits = NULL;
    ptq_status status;
    if (!line)
        return ptq_error_set(err, PTQ_NOT_READY, "the model has no self-test vector");
    rest = ptq__span_of(line);
    for (item = ptq__cut(&rest, ' '), i = 0; (size_t)i < item.n; i++)
        expected = expected * 10 + (uint64_t)(item.p[i] - '0');
    PTQ__TRY(ptq__alloc(&plan->allocator, (size_t)classes, sizeof(float), "logits", &logits, err));
    status = ptq__self_test_run(plan, (float *)logits, &hash, err);
    if (!status && hash != expected)
        status = ptq_error_set(err, PTQ_BAD_NUMBER, "the self-test is of another picture");
    for (i = 0; i < classes && i < PTQ__SELF_TEST_CLASSES && !status; i++) {
        float want = 0, got = ((float *)logits)[i], difference;
        int read = ptq__read_float(ptq__cut(&rest, ' '), &want);
        difference = want > got ? want - got : got - want;
        if (!read || !(difference <= (exact ? 0 : 1e-3f * (1 + (want < 0 ? -want : want)))))
            status = ptq_error_set(err, PTQ_BAD_NUMBER,
                                   "self-test: logit %d is %g, the file says %g; the file or the"
                                   " build is damaged",
                                   i, (double)got, (double)want);
    }
    ptq__free(&plan->allocator, logits);
    return status;
}

/* ---- [DATA] ------------------------------------------------------------------------------ */

enum { PTQ__CIFAR_SIDE = 32, PTQ__CIFAR_PIXELS = 1024, PTQ__CIFAR_CLASSES = 10 };

struct ptq_cifar10 {
    ptq_dataset dataset; /* its class_name: CIFAR-10's, or `own_name` */
    uint8_t *records;
    const char *own_name[PTQ__CIFAR_CLASSES];
    char name[PTQ__CIFAR_CLASSES][PTQ_CLASS_NAME_SIZE];
    ptq_allocator allocator;
};

static const char *const ptq__cifar_names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                               "dog",      "frog",       "horse", "ship", "truck"};

static ptq_status ptq__cifar_get(void *user, size_t index, void *item, int *label, ptq_error *err);

/* Whether bytes are records. `where` names them in errors. */
static ptq_status ptq__cifar_check(const ptq_cifar10 *data, const void *bytes, size_t size,
                                   const char *where, ptq_error *err) {
    const uint8_t *records = (const uint8_t *)bytes;
    size_t count = size / PTQ_CIFAR10_RECORD, i;
    if (!size)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: empty; a record has %d bytes", where,
                             PTQ_CIFAR10_RECORD);
    if (size % PTQ_CIFAR10_RECORD)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: %z bytes are no whole number of records of %d; truncated, or not"
                             " CIFAR-10's binary version",
                             where, size, PTQ_CIFAR10_RECORD);
    for (i = 0; i < count; i++)
        if (records[i * PTQ_CIFAR10_RECORD] >= data->dataset.classes)
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "%s: record %z has label %d, labels are 0 to %d; not CIFAR-10's"
                                 " binary version?",
                                 where, i, records[i * PTQ_CIFAR10_RECORD],
                                 data->dataset.classes - 1);
    return PTQ_OK;
}

/* Appends records that were checked. */
static ptq_status ptq__cifar_append(ptq_cifar10 *data, const void *bytes, size_t size,
                                    ptq_error *err) {
    size_t count = size / PTQ_CIFAR10_RECORD;
    void *larger = NULL;
    PTQ__TRY(ptq__alloc(&data->allocator, data->dataset.count + count, PTQ_CIFAR10_RECORD, "images",
                        &larger, err));
    if (data->dataset.count)
        memcpy(larger, data->records, data->dataset.count * PTQ_CIFAR10_RECORD);
    memcpy((uint8_t *)larger + data->dataset.count * PTQ_CIFAR10_RECORD, bytes, size);
    ptq__free(&data->allocator, data->records);
    data->records = (uint8_t *)larger;
    data->dataset.count += count;
    return PTQ_OK;
}

static ptq_status ptq__cifar_create(const ptq_allocator *allocator, ptq_cifar10 **out,
                                    ptq_error *err) {
    void *memory = NULL;
    PTQ__TRY(ptq__alloc(allocator, 1, sizeof(ptq_cifar10), "data set", &memory, err));
    *out = (ptq_cifar10 *)memory;
    (*out)->allocator = ptq__allocator(allocator);
    (*out)->dataset = *ptq_cifar10_dataset(NULL);
    (*out)->dataset.user = *out;
    return PTQ_OK;
}

PTQ_API void ptq_cifar10_free(ptq_cifar10 *data) {
    ptq_allocator allocator;
    if (!data)
        return;
    allocator = data->allocator;
    ptq__free(&allocator, data->records);
    ptq__free(&allocator, data);
}

PTQ_API ptq_status ptq_cifar10_parse(const void *bytes, size_t size, const ptq_allocator *allocator,
                                     ptq_cifar10 **out, ptq_error *err) {
    ptq_cifar10 *data = NULL;
    ptq_status status;
    PTQ__TRY(ptq__cifar_create(allocator, &data, err));
    status = ptq__cifar_check(data, bytes, size, "CIFAR-10 data", err);
    if (!status)
        status = ptq__cifar_append(data, bytes, size, err);
    if (status)
        ptq_cifar10_free(data);
    else
        *out = data;
    return status;
}

#ifndef PTQ_NO_STDIO

enum { PTQ__PATH_SIZE = 1024 };

/* Opens `directory/part`, or returns NULL. */
static FILE *ptq__open_in(const char *directory, const char *part, char *path) {
    ptq__text text = ptq__text_over(path, PTQ__PATH_SIZE);
    ptq__put(&text, "%s/%s", directory, part);
    return text.length < PTQ__PATH_SIZE ? ptq__open(path, 0) : NULL;
}

static int ptq__exists_in(const char *directory, const char *part) {
    char path[PTQ__PATH_SIZE];
    FILE *file = ptq__open_in(directory, part, path);
    if (file)
        fclose(file);
    return file != NULL;
}

/* Nothing of the binary version was found: says what is there instead. */
static ptq_status ptq__cifar_wrong(const char *path, const char *wanted, ptq_error *err) {
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
            return ptq_error_set(err, PTQ_BAD_DATA, "%s: no %s there, but %s: this is %s", path,
                                 wanted, sign[i][0], sign[i][1]);
    return ptq_error_set(err, PTQ_IO_ERROR,
                         "%s: no %s there, and nothing else of CIFAR-10; name the folder"
                         " cifar-10-batches-bin of the binary version",
                         path, wanted);
}

static ptq_status ptq__cifar_load(ptq_cifar10 *data, const char *path, ptq_error *err) {
    void *bytes = NULL;
    size_t size = 0;
    ptq_status status;
    PTQ__TRY(ptq_file_read(path, 0, &data->allocator, &bytes, &size, err));
    status = ptq__cifar_check(data, bytes, size, path, err);
    if (!status && !data->dataset.count) { /* the first file's bytes stay where they are */
        data->records = (uint8_t *)bytes;
        data->dataset.count = size / PTQ_CIFAR10_RECORD;
        return PTQ_OK;
    }
    if (!status)
        status = ptq__cifar_append(data, bytes, size, err);
    ptq__free(&data->allocator, bytes);
    return status;
}

/* One more name of a class: `length` bytes that are no string yet. */
static ptq_status ptq__cifar_add_name(ptq_cifar10 *data, const char *name, size_t length,
                                      const char *where, ptq_error *err) {
    char *own;
    size_t i;
    int c;
    if (data->dataset.classes == PTQ__CIFAR_CLASSES)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: more than %d classes", where,
                             (int)PTQ__CIFAR_CLASSES);
    own = data->name[data->dataset.classes];
    if (length >= PTQ_CLASS_NAME_SIZE)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: the name of class %d has over %d bytes", where,
                             data->dataset.classes, PTQ_CLASS_NAME_SIZE - 1);
    for (i = 0; i < length; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return ptq_error_set(err, PTQ_BAD_DATA,
                                 "%s: the name of class %d has a control character; it must be"
                                 " text with one name a line",
                                 where, data->dataset.classes);
    memcpy(own, name, length);
    own[length] = 0;
    for (c = 0; c < data->dataset.classes; c++)
        if (!strcmp(own, data->name[c]))
            return ptq_error_set(err, PTQ_BAD_DATA, "%s: two classes are named %s", where, own);
    data->own_name[data->dataset.classes++] = own;
    return PTQ_OK;
}

/* Names of classes, one a line; empty lines, with which CIFAR-10's file ends, do not count. */
static ptq_status ptq__cifar_read_names(ptq_cifar10 *data, const char *text, size_t size,
                                        const char *where, ptq_error *err) {
    size_t start, end;
    data->dataset.classes = 0;
    data->dataset.class_name = data->own_name;
    for (start = 0; start < size; start = end + 1) {
        size_t length;
        for (end = start; end < size && text[end] != '\n'; end++)
            ;
        length = end - start;
        if (length && text[end - 1] == '\r')
            length--;
        if (length)
            PTQ__TRY(ptq__cifar_add_name(data, text + start, length, where, err));
    }
    return data->dataset.classes
               ? PTQ_OK
               : ptq_error_set(err, PTQ_BAD_DATA, "%s: no names of classes", where);
}

/* Reads batches.meta.txt in a directory of `length` bytes; without it the names stay CIFAR-10's. */
static ptq_status ptq__cifar_load_names(ptq_cifar10 *data, const char *directory, size_t length,
                                        ptq_error *err) {
    char path[PTQ__PATH_SIZE], name[PTQ__PATH_SIZE];
    void *bytes = NULL;
    size_t size = 0;
    FILE *file;
    ptq_status status;
    if (length >= sizeof name)
        return PTQ_OK; /* too long to open: what reads the records says so */
    memcpy(name, directory, length);
    name[length] = 0;
    file = ptq__open_in(length ? name : ".", "batches.meta.txt", path);
    if (!file)
        return PTQ_OK;
    fclose(file);
    PTQ__TRY(ptq_file_read(path, 4096, &data->allocator, &bytes, &size, err));
    status = ptq__cifar_read_names(data, (const char *)bytes, size, path, err);
    ptq__free(&data->allocator, bytes);
    return status;
}

/* Length of the directory part of a path; 0 where there is none. */
static size_t ptq__directory_length(const char *path) {
    size_t length = strlen(path);
    while (length && !ptq__is_separator(path[length - 1]))
        length--;
    return length > 1 ? length - 1 : length; /* without the separator, unless it is the root */
}

/* The files of a directory, in numeric order. */
static ptq_status ptq__cifar_directory(ptq_cifar10 *data, const char *path, ptq_split split,
                                       ptq_error *err) {
    char part[32], full[PTQ__PATH_SIZE];
    int i, files = 0, last = split == PTQ_SPLIT_TRAIN ? 99 : 1;
    for (i = 1; i <= last; i++) {
        ptq__text text = ptq__text_over(part, sizeof part);
        FILE *file;
        if (split == PTQ_SPLIT_TRAIN)
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
            path, split == PTQ_SPLIT_TRAIN ? "data_batch_1.bin" : "test_batch.bin", err);
    return PTQ_OK;
}

/* A regular file, as far as the C library can tell: a directory opens but does not read. */
static int ptq__is_file(const char *path) {
    size_t n = strlen(path);
    FILE *file = ptq__open(path, 0);
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
                                    ptq_error *err) {
    ptq_cifar10 *data = NULL;
    ptq_status status;
    int is_file = ptq__is_file(path);
    PTQ__TRY(ptq__cifar_create(allocator, &data, err));
    status = ptq__cifar_load_names(data, path, is_file ? ptq__directory_length(path) : strlen(path),
                                   err);
    if (!status)
        status = is_file ? ptq__cifar_load(data, path, err)
                         : ptq__cifar_directory(data, path, split, err);
    if (status)
        ptq_cifar10_free(data);
    else
        *out = data;
    return status;
}

#endif /* PTQ_NO_STDIO */

/* Planes to interleaved channels. */
static ptq_status ptq__cifar_get(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const ptq_cifar10 *data = (const ptq_cifar10 *)user;
    const uint8_t *record;
    uint8_t *pixels = (uint8_t *)item;
    int i, c;
    if (!data || index >= data->dataset.count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "image %z of %z", index,
                             data ? data->dataset.count : (size_t)0);
    record = data->records + index * PTQ_CIFAR10_RECORD;
    *label = record[0];
    for (i = 0; i < PTQ__CIFAR_PIXELS; i++)
        for (c = 0; c < 3; c++)
            pixels[i * 3 + c] = record[1 + c * PTQ__CIFAR_PIXELS + i];
    return PTQ_OK;
}

PTQ_API const ptq_dataset *ptq_cifar10_dataset(const ptq_cifar10 *data) {
    static const ptq_dataset none = {
        0,    PTQ__CIFAR_SIDE, PTQ__CIFAR_SIDE, 3, PTQ__CIFAR_CLASSES, PTQ_TYPE_U8, ptq__cifar_get,
        NULL, ptq__cifar_names};
    return data ? &data->dataset : &none;
}

PTQ_API uint32_t ptq_rng_next(ptq_rng *rng) {
    uint64_t old = rng->state;
    uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27), rotation = (uint32_t)(old >> 59);
    rng->state = old * 6364136223846793005u + rng->increment;
    return (shifted >> rotation) | (shifted << ((32 - rotation) & 31));
}

PTQ_API void ptq_rng_seed(ptq_rng *rng, uint64_t seed, uint64_t stream) {
    rng->state = 0;
    rng->increment = stream << 1 | 1;
    ptq_rng_next(rng);
    rng->state += seed;
    ptq_rng_next(rng);
}

/* Numbers under 2^32 mod bound are drawn again: the rest divide evenly. */
PTQ_API uint32_t ptq_rng_below(ptq_rng *rng, uint32_t bound) {
    uint32_t threshold = ((uint32_t)0 - bound) % bound, value;
    do
        value = ptq_rng_next(rng);
    while (value < threshold);
    return value % bound;
}

PTQ_API float ptq_rng_float(ptq_rng *rng) {
    return (float)(ptq_rng_next(rng) >> 8) * (1.0f / 16777216.0f);
}

/* All labels, checked. */
static ptq_status ptq__read_labels(const ptq_dataset *data, int *labels,
                                   const ptq_allocator *allocator, ptq_error *err) {
    size_t i;
    void *item = NULL;
    ptq_status status;
    PTQ__TRY(ptq__alloc(allocator, ptq__item_size(data), 1, "an image", &item, err));
    status = PTQ_OK;
    for (i = 0; i < data->count && !status; i++) {
        status = data->get(data->user, i, item, &labels[i], err);
        if (!status && (labels[i] < -1 || labels[i] >= data->classes))
            status = ptq_error_set(err, PTQ_BAD_DATA, "image %z has label %d of %d classes", i,
                                   labels[i], data->classes);
        else if (!status && (labels[i] < 0) != (labels[0] < 0))
            status = ptq_error_set(err, PTQ_BAD_DATA,
                                   "image %z has %s label, unlike image 0; label all or none", i,
                                   labels[i] < 0 ? "no" : "a");
    }
    ptq__free(allocator, item);
    return status;
}

/* Marks `want` images of one class in `chosen`. `pool` has room for all images. */
static ptq_status ptq__sample_class(const ptq_dataset *data, const int *labels, int label,
                                    size_t want, uint64_t seed, size_t *pool, uint8_t *chosen,
                                    ptq_error *err) {
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
    ptq_rng_seed(&rng, seed, label < 0 ? 0 : (uint64_t)label);
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
                                  ptq__sampler *s, const ptq_allocator *allocator, ptq_error *err) {
    int c, first = 0, classes = data->classes;
    PTQ__TRY(ptq__alloc(allocator, data->count, sizeof(int), "labels", &s->labels, err));
    PTQ__TRY(ptq__alloc(allocator, data->count, sizeof(size_t), "sampling", &s->pool, err));
    PTQ__TRY(ptq__alloc(allocator, data->count, 1, "sampling", &s->chosen, err));
    PTQ__TRY(ptq__read_labels(data, (int *)s->labels, allocator, err));
    if (*(int *)s->labels < 0) { /* none has a label: one class */
        first = -1;
        classes = 1;
    }
    for (c = 0; c < classes; c++)
        PTQ__TRY(ptq__sample_class(data, (int *)s->labels, first + c,
                                   count / (size_t)classes + ((size_t)c < count % (size_t)classes),
                                   seed, (size_t *)s->pool, (uint8_t *)s->chosen, err));
    return PTQ_OK;
}

PTQ_API ptq_status ptq_sample(const ptq_dataset *data, size_t count, uint64_t seed, size_t *indices,
                              const ptq_allocator *allocator, ptq_error *err) {
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

static ptq_status ptq__subset_get(void *user, size_t index, void *item, int *label,
                                  ptq_error *err) {
    const ptq_subset *subset = (const ptq_subset *)user;
    if (index >= subset->dataset.count)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "image %z of %z", index,
                             subset->dataset.count);
    return subset->base->get(subset->base->user, subset->indices[index], item, label, err);
}

PTQ_API ptq_status ptq_subset_open(ptq_subset *subset, const ptq_dataset *base,
                                   const size_t *indices, size_t count, ptq_error *err) {
    size_t i;
    for (i = 0; i < count; i++)
        if (indices[i] >= base->count)
            return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                                 "index %z of a subset is %z; the data set has %z items", i,
                                 indices[i], base->count);
    subset->dataset = *base;
    subset->dataset.count = count;
    subset->dataset.get = ptq__subset_get;
    subset->dataset.user = subset;
    subset->base = base;
    subset->indices = indices;
    return PTQ_OK;
}

/* ---- [METRICS] --------------------------------------------------------------------------- */

static ptq_status ptq__evaluation_create(ptq_evaluation *result, size_t total, int classes,
                                         ptq_error *err) {
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

static void ptq__evaluation_count(ptq_evaluation *result) {
    size_t i;
    for (i = 0; i < result->total; i++) {
        int label = result->label[i], prediction = result->prediction[i];
        if (label < 0)
            continue;
        result->class_total[label]++;
        result->class_correct[label] += label == prediction;
        result->correct += label == prediction;
        result->confusion[label * result->classes + prediction]++;
    }
}

static ptq_status ptq__evaluate_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                    ptq_error *err) {
    ptq_evaluation *result = (ptq_evaluation *)job->context;
    float *logits = result->logits + index * (size_t)result->classes;
    PTQ__TRY(ptq__run_item(worker->session, job->data, worker->item, logits, err));
    result->label[index] = label;
    result->prediction[index] = ptq_argmax(logits, result->classes);
    return PTQ_OK;
}

static ptq_status ptq__evaluate_labelled(ptq__job *job, ptq__worker *worker, size_t index,
                                         int label, ptq_error *err) {
    if (label < 0)
        return ptq_error_set(err, PTQ_BAD_DATA, "image %z has no label to compare the answer with",
                             index);
    return ptq__evaluate_one(job, worker, index, label, err);
}

/* The searches of part four compare logits with logits and need no labels. */
static ptq_status ptq__evaluate(const ptq_plan *plan, const ptq_dataset *data,
                                const ptq_evaluate_options *options, int labelled,
                                ptq_evaluation *out, ptq_error *err) {
    ptq_evaluation result;
    ptq__job job;
    ptq_status status;
    PTQ__TRY(ptq__check_fits(plan, data, err));
    memset(&result, 0, sizeof result);
    memset(&job, 0, sizeof job);
    job.plan = plan;
    job.data = data;
    job.total = data->count;
    job.one = labelled ? ptq__evaluate_labelled : ptq__evaluate_one;
    job.context = &result;
    if (options) {
        job.total = options->limit && options->limit < job.total ? options->limit : job.total;
        result.allocator = job.allocator = options->work.allocator;
        job.progress = options->work.progress;
        job.user = options->work.user;
    }
    status = ptq__evaluation_create(&result, job.total, data->classes, err);
    if (!status)
        status = ptq__job_run(&job, options ? options->work.threads : 1, err);
    if (status) {
        ptq_evaluation_free(&result);
        return status;
    }
    ptq__evaluation_count(&result);
    *out = result;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_evaluate(const ptq_plan *plan, const ptq_dataset *data,
                                const ptq_evaluate_options *options, ptq_evaluation *out,
                                ptq_error *err) {
    return ptq__evaluate(plan, data, options, 1, out, err);
}

PTQ_API void ptq_evaluation_free(ptq_evaluation *evaluation) {
    ptq_allocator allocator;
    if (!evaluation)
        return;
    allocator = evaluation->allocator;
    ptq__free(&allocator, evaluation->class_total);
    ptq__free(&allocator, evaluation->label);
    ptq__free(&allocator, evaluation->logits);
    memset(evaluation, 0, sizeof *evaluation);
}

/* ln of the binomial coefficient. */
static double ptq__log_choose(double n, double k) {
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1);
}

/* P(X <= k) for X binomial with n trials of probability p. */
static double ptq__binomial_cdf(size_t k, size_t n, double p) {
    double sum = 0;
    size_t i;
    if (p <= 0 || k >= n)
        return 1;
    if (p >= 1)
        return 0;
    for (i = 0; i <= k; i++)
        sum += exp(ptq__log_choose((double)n, (double)i) + (double)i * log(p) +
                   (double)(n - i) * log1p(-p));
    return sum < 1 ? sum : 1;
}

PTQ_API void ptq_exact_interval(size_t k, size_t n, double level, double *low, double *high) {
    double tail = (1 - level) / 2, a, b;
    int i;
    *low = 0;
    *high = 1;
    /* Bisection: P(X >= k | p) grows with p, P(X <= k | p) falls. */
    for (i = 0, a = 0, b = 1; i < 60 && n && k > 0; i++) {
        *low = (a + b) / 2;
        if (1 - ptq__binomial_cdf(k - 1, n, *low) < tail)
            a = *low;
        else
            b = *low;
    }
    for (i = 0, a = 0, b = 1; i < 60 && n && k < n; i++) {
        *high = (a + b) / 2;
        if (ptq__binomial_cdf(k, n, *high) > tail)
            a = *high;
        else
            b = *high;
    }
}

PTQ_API ptq_status ptq_compare(const ptq_evaluation *baseline, const ptq_evaluation *quantized,
                               ptq_comparison *out, ptq_error *err) {
    ptq_comparison result;
    size_t i, changed, fewer;
    double low, high, share;
    if (baseline->total != quantized->total || !baseline->total ||
        memcmp(baseline->label, quantized->label, baseline->total * sizeof(int)))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "the evaluations saw different images (%z and %z); run both on the"
                             " same data set in one program",
                             baseline->total, quantized->total);
    memset(&result, 0, sizeof result);
    result.total = baseline->total;
    for (i = 0; i < result.total; i++) {
        int label = baseline->label[i], a = baseline->prediction[i], b = quantized->prediction[i];
        result.agree += a == b;
        result.lost += a == label && b != label;
        result.won += a != label && b == label;
    }
    changed = result.lost + result.won;
    fewer = result.lost < result.won ? result.lost : result.won;
    share = 100 * (double)changed / (double)result.total;
    result.delta_pp = 100 * ((double)result.won - (double)result.lost) / (double)result.total;
    ptq_exact_interval(result.won, changed, 0.95, &low, &high);
    result.low_pp = share > 0 ? (2 * low - 1) * share : 0;
    result.high_pp = share > 0 ? (2 * high - 1) * share : 0;
    result.p_value = changed ? 2 * ptq__binomial_cdf(fewer, changed, 0.5) : 1;
    result.p_value = result.p_value > 1 ? 1 : result.p_value;
    *out = result;
    return PTQ_OK;
}

/* The factors that the metadata keep for a node's result, as text; 0: none. */
static int ptq__find_factors(const ptq_model *model, const ptq_node *node, ptq__span *factors) {
    const char *kept = ptq_model_get_meta(model, "equalization");
    ptq__span rest = ptq__span_of(kept ? kept : ""), name;
    while (rest.n) {
        *factors = ptq__cut(&rest, ';');
        name = ptq__cut(factors, ' ');
        if (name.n == strlen(node->out) && memcmp(name.p, node->out, name.n) == 0)
            return 1;
    }
    return 0;
}

/* A float tensor in the units of an equalized model: its channels divided by the factors in the
   metadata. They lie in the session, which writes them anew with every run. */
static void ptq__in_units_of(const ptq_model *model, const ptq_node *node, ptq_tensor *real) {
    size_t i, k, n = ptq_tensor_elements(real), channels = (size_t)node->shape[2];
    float *x = (float *)real->data, factor;
    ptq__span factors;
    if (real->type != PTQ_TYPE_F32 || !ptq__find_factors(model, node, &factors))
        return;
    for (i = 0; i < channels; i++) {
        if (!ptq__read_float(ptq__cut(&factors, ' '), &factor) || !(factor > 0))
            return; /* damaged: for people to see */
        for (k = i; k < n; k += channels)
            x[k] /= factor;
    }
}

/* Sums over images for one tensor. */
typedef struct ptq__layer_sum {
    double signal, noise;
    uint64_t clipped, elements;
} ptq__layer_sum;

static void ptq__layer_add(ptq__layer_sum *sum, ptq_layer_error *item, const ptq_tensor *real,
                           const ptq_tensor *coded, const ptq_qparams *q) {
    size_t i, n = ptq_tensor_elements(real);
    int32_t low = 0, high = 0;
    if (q->type != PTQ_TYPE_F32)
        ptq_code_range(q->type, q->bits, &low, &high);
    for (i = 0; i < n; i++) {
        float x = ptq_tensor_real(real, i), y = ptq_tensor_real(coded, i), d = x - y;
        sum->signal += (double)x * (double)x;
        sum->noise += (double)d * (double)d;
        d = d < 0 ? -d : d;
        item->largest = d > item->largest ? d : item->largest;
        if (q->type != PTQ_TYPE_F32) {
            int32_t code = ptq__load(coded->data, (int)i, q->type);
            sum->clipped +=
                (code == low && x < y - q->scale / 2) || (code == high && x > y + q->scale / 2);
        }
    }
    sum->elements += n;
}

/* The tensors that a node of the quantized model makes: before a fused addition, and the result. */
static const ptq_qparams *ptq__layer_tensor(const ptq_node *node, int middle, const char **name) {
    if (middle && !node->residual)
        return NULL;
    *name = middle ? node->name : node->out;
    return middle ? &node->mid : &node->q;
}

typedef struct ptq__layers {
    ptq_session *a, *b;
    void *item;
    ptq__layer_sum *sum;
    ptq_layer_report *report;
} ptq__layers;

/* One image: both sessions have run. */
static ptq_status ptq__compare_image(const ptq__layers *layers, const ptq_model *model,
                                     ptq_error *err) {
    const ptq_model *baseline = ptq_plan_get_info(layers->a->plan)->model;
    int i, middle, item = 0;
    for (i = 1; i < model->nodes; i++)
        for (middle = 1; middle >= 0; middle--) {
            const char *name;
            const ptq_qparams *q = ptq__layer_tensor(&model->node[i], middle, &name);
            ptq_tensor real, coded;
            if (!q || ptq_model_find(baseline, name) < 0)
                continue;
            PTQ__TRY(ptq_session_tensor(layers->a, name, &real, err));
            PTQ__TRY(ptq_session_tensor(layers->b, name, &coded, err));
            memcpy(layers->report->item[item].name, name, strlen(name) + 1);
            ptq__in_units_of(model, &model->node[i], &real);
            if (ptq_tensor_elements(&real) == ptq_tensor_elements(&coded))
                ptq__layer_add(&layers->sum[item], &layers->report->item[item], &real, &coded, q);
            item++;
        }
    layers->report->items = item;
    return PTQ_OK;
}

static ptq_status ptq__compare_images(ptq__layers *layers, const ptq_dataset *data, size_t count,
                                      ptq_error *err) {
    const ptq_model *model = ptq_plan_get_info(layers->b->plan)->model;
    size_t i;
    int k, label;
    for (i = 0; i < count; i++) {
        PTQ__TRY(data->get(data->user, i, layers->item, &label, err));
        PTQ__TRY(ptq__run_item(layers->a, data, layers->item, NULL, err));
        PTQ__TRY(ptq__run_item(layers->b, data, layers->item, NULL, err));
        PTQ__TRY(ptq__compare_image(layers, model, err));
    }
    for (k = 0; k < layers->report->items; k++) {
        const ptq__layer_sum *sum = &layers->sum[k];
        layers->report->item[k].sqnr_db =
            sum->noise > 0 ? 10 * log10(sum->signal / sum->noise) : HUGE_VAL;
        layers->report->item[k].clipped =
            sum->elements ? (double)sum->clipped / (double)sum->elements : 0;
    }
    return PTQ_OK;
}

static ptq_status ptq__layers_open(ptq__layers *layers, const ptq_plan *a, const ptq_plan *b,
                                   const ptq_dataset *data, ptq_error *err) {
    const ptq_allocator *allocator = &b->allocator;
    size_t most = 2 * (size_t)ptq_plan_get_info(b)->model->nodes;
    ptq_session_options keep;
    void *memory = NULL;
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    keep.allocator = *allocator;
    PTQ__TRY(ptq_session_create(a, &keep, &layers->a, err));
    PTQ__TRY(ptq_session_create(b, &keep, &layers->b, err));
    PTQ__TRY(ptq__alloc(allocator, ptq__item_size(data), 1, "an image", &layers->item, err));
    PTQ__TRY(ptq__alloc(allocator, most, sizeof(ptq__layer_sum), "layer report", &memory, err));
    layers->sum = (ptq__layer_sum *)memory;
    PTQ__TRY(ptq__alloc(allocator, most, sizeof(ptq_layer_error), "layer report", &memory, err));
    layers->report->item = (ptq_layer_error *)memory;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_compare_layers(const ptq_plan *baseline, const ptq_plan *quantized,
                                      const ptq_dataset *data, size_t count, ptq_layer_report *out,
                                      ptq_error *err) {
    ptq_layer_report report;
    ptq__layers layers;
    ptq_status status;
    PTQ__TRY(ptq__check_fits(baseline, data, err));
    PTQ__TRY(ptq__check_fits(quantized, data, err));
    memset(&report, 0, sizeof report);
    memset(&layers, 0, sizeof layers);
    report.allocator = quantized->allocator;
    layers.report = &report;
    status = ptq__layers_open(&layers, baseline, quantized, data, err);
    if (!status)
        status = ptq__compare_images(&layers, data,
                                     count && count < data->count ? count : data->count, err);
    ptq_session_free(layers.a);
    ptq_session_free(layers.b);
    ptq__free(&report.allocator, layers.item);
    ptq__free(&report.allocator, layers.sum);
    if (status)
        ptq_layer_report_free(&report);
    else
        *out = report;
    return status;
}

PTQ_API void ptq_layer_report_free(ptq_layer_report *report) {
    if (!report)
        return;
    ptq__free(&report->allocator, report->item);
    report->item = NULL;
    report->items = 0;
}

/* Divergence of logits. */

static double ptq__kl(const float *x, const float *y, int classes) {
    double most_x = (double)x[ptq_argmax(x, classes)], most_y = (double)y[ptq_argmax(y, classes)];
    double sum_x = 0, sum_y = 0, kl = 0;
    int c;
    for (c = 0; c < classes; c++) {
        sum_x += exp((double)x[c] - most_x);
        sum_y += exp((double)y[c] - most_y);
    }
    for (c = 0; c < classes; c++) {
        double log_x = (double)x[c] - most_x - log(sum_x);
        kl += exp(log_x) * (log_x - ((double)y[c] - most_y - log(sum_y)));
    }
    return kl > 0 ? kl : 0;
}

static float ptq__finite_float(double value) {
    return value < (double)FLT_MAX ? (float)value : FLT_MAX;
}

PTQ_API ptq_status ptq_compare_logits(const ptq_evaluation *baseline,
                                      const ptq_evaluation *quantized, ptq_divergence *out,
                                      ptq_error *err) {
    ptq_comparison compared;
    ptq_exact_sum kl, signal, noise;
    double n = (double)baseline->total;
    size_t i;
    int c, classes = baseline->classes;
    memset(&kl, 0, sizeof kl);
    signal = noise = kl;
    PTQ__TRY(ptq_compare(baseline, quantized, &compared, err));
    if (classes != quantized->classes)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "the models have %d and %d classes",
                             classes, quantized->classes);
    for (i = 0; i < baseline->total; i++) {
        const float *x = baseline->logits + i * (size_t)classes;
        const float *y = quantized->logits + i * (size_t)classes;
        double xx = 0, dd = 0;
        for (c = 0; c < classes; c++) {
            double d = (double)x[c] - (double)y[c];
            xx += (double)x[c] * (double)x[c];
            dd += d * d;
        }
        ptq__exact_add(&kl, ptq__finite_float(ptq__kl(x, y, classes)));
        ptq__exact_add(&signal, ptq__finite_float(xx));
        ptq__exact_add(&noise, ptq__finite_float(dd));
    }
    out->kl = ptq__exact_value(&kl) / n;
    out->sqnr_db = ptq__exact_value(&noise) > 0
                       ? 10 * log10(ptq__exact_value(&signal) / ptq__exact_value(&noise))
                       : HUGE_VAL;
    out->agreement = (double)compared.agree / (double)compared.total;
    out->delta_pp = compared.delta_pp;
    return PTQ_OK;
}

/* =============================================================================================
   PART TWO: FILES
   Models, graphs and calibrations as bytes, read as if an enemy had written them.
   ============================================================================================= */

/* ---- [GRAPH TEXT] --------------------------------------------------------------------------- */

/* A graph as text is for people: a node a line, with the keys that its operator takes.

       conv1 conv2d in=input channels=16 kernel=3x3 act=relu w=s8 q=u8:8:0.0235294:0

   One table lists the keys. The writer goes through it from top to bottom, so that its order is
   that of every line; the reader looks up in it what it finds, in any order. Each row has one
   function for its value, which puts and reads it alike: so whatever is written can be read. A
   function that puts nothing means that the value goes without saying, and the key is left out. */

/* A line while it is written or read. */
typedef struct ptq__line {
    ptq_model *model; /* which holds the nodes of the lines before */
    ptq_node node;
    unsigned seen;              /* keys that were read, as bits */
    const struct ptq__key *key; /* whose value is at hand */
    ptq__text *text;            /* to put it into; NULL: reading */
    ptq__span value;            /* what is left to be read of it */
} ptq__line;

typedef struct ptq__key {
    const char *name;
    unsigned bit;                  /* PTQ__KEY_..., for the rows of the operators that take it */
    int (*value)(ptq__line *line); /* puts it, or reads it: then 0 if that fails */
    size_t at;                     /* where it stands in the node (preprocessing: in the model) */
    int n, most, usual; /* whole numbers: how many, the largest, the one that is not written */
} ptq__key;

static void *ptq__value_at(const ptq__line *line, void *holder) {
    return (char *)holder + line->key->at;
}

/* A fixed piece of text. Written if `given`; 1 if it is given, or what comes next. */
static int ptq__literal(ptq__line *line, const char *piece, int given) {
    size_t n = strlen(piece);
    if (line->text) {
        ptq__put_string(line->text, given ? piece : "");
        return given;
    }
    if (line->value.n < n || memcmp(line->value.p, piece, n))
        return 0;
    line->value.p += n;
    line->value.n -= n;
    return 1;
}

/* Cuts off the characters of a number. */
static ptq__span ptq__digits(ptq__line *line) {
    ptq__span number = line->value;
    for (; line->value.n && line->value.p[0] && strchr("+-.eE0123456789", line->value.p[0]);
         line->value.n--)
        line->value.p++;
    number.n -= line->value.n;
    return number;
}

/* n integers from `low` to `high`. */
static int ptq__integers(ptq__line *line, const char *between, int n, int low, int high,
                         int *value) {
    int i;
    for (i = 0; i < n; i++) {
        int64_t number = value[i];
        if (i > 0 && !ptq__literal(line, between, 1))
            return 0;
        if (line->text)
            ptq__put_signed(line->text, number);
        else if (!ptq__read_int(ptq__digits(line), low, high, &number))
            return 0;
        value[i] = (int)number;
    }
    return 1;
}

static int ptq__real(ptq__line *line, float *value) {
    if (line->text)
        ptq__put_float(line->text, *value);
    return line->text || ptq__read_float(ptq__digits(line), value);
}

/* "3x3": whole numbers from 1, or from 0 where the largest is 1: a flag. */
static int ptq__value_numbers(ptq__line *line) {
    const ptq__key *key = line->key;
    int *number = (int *)ptq__value_at(line, &line->node), i, usual = line->text != NULL;
    for (i = 0; i < key->n; i++)
        usual &= number[i] == key->usual;
    return usual || ptq__integers(line, "x", key->n, key->most > 1, key->most, number);
}

/* "conv1" or "conv1,block1.add.relu": nodes, or tensors fused into them, of earlier lines. */
static int ptq__value_inputs(ptq__line *line) {
    int k, *input = line->node.input;
    for (k = 0; line->text && k < 2 && input[k] >= 0; k++)
        ptq__put(line->text, k ? ",%s" : "%s", line->model->node[input[k]].name);
    for (k = 0; !line->text && k < 2 && (k == 0 || line->value.n); k++) {
        ptq__span name = ptq__cut(&line->value, ',');
        input[k] = ptq__find(line->model, name.p, name.n);
        if (input[k] < 0)
            return 0;
    }
    return 1;
}

static int ptq__read_name(ptq__span span, char *name) {
    if (!ptq__is_name(span.p, span.n))
        return 0;
    memcpy(name, span.p, span.n);
    name[span.n] = 0;
    return 1;
}

/* "block1.add.relu": the last tensor that was fused into the node, where there is one. */
static int ptq__value_out(ptq__line *line) {
    ptq_node *node = &line->node;
    if (line->text)
        ptq__put_string(line->text, strcmp(node->out, node->name) ? node->out : "");
    return line->text || ptq__read_name(ptq__cut(&line->value, ' '), node->out);
}

/* "127.5,127.5,127.5": mean or standard deviation, a number for each channel of the image, whose
   shape stands before. Both are written when one of them is not the usual one. */
static int ptq__value_pixels(ptq__line *line) {
    const ptq_model *model = line->model;
    float *number = (float *)ptq__value_at(line, line->model);
    int c, usual = line->text != NULL, channels = line->node.shape[2];
    for (c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        usual &= model->mean[c] == 0 && model->std[c] == 1;
    if (usual || channels > PTQ_MAX_PIXEL_CHANNELS)
        return usual;
    for (c = 0; c < channels; c++)
        if ((c > 0 && !ptq__literal(line, ",", 1)) || !ptq__real(line, &number[c]))
            return 0;
    return 1;
}

/* "same", which is not written, "valid", or "0,1,1,0": top, left, bottom, right. */
static int ptq__value_padding(ptq__line *line) {
    ptq_padding *padding = &line->node.padding;
    if (ptq__literal(line, "valid", *padding == PTQ_PADDING_VALID))
        *padding = PTQ_PADDING_VALID;
    else if (line->text ? *padding == PTQ_PADDING_EXPLICIT : !ptq__literal(line, "same", 0)) {
        *padding = PTQ_PADDING_EXPLICIT;
        return ptq__integers(line, ",", 4, 0, PTQ_MAX_KERNEL, line->node.pad);
    }
    return 1;
}

/* "0": without a bias. */
static int ptq__value_bias(ptq__line *line) {
    line->node.no_bias = ptq__literal(line, "0", line->node.no_bias);
    return line->node.no_bias || ptq__literal(line, "1", 0);
}

static int ptq__value_epsilon(ptq__line *line) { return ptq__real(line, &line->node.epsilon); }

/* "relu6" or "relu" */
static int ptq__value_act(ptq__line *line) {
    ptq_activation *place = (ptq_activation *)ptq__value_at(line, &line->node);
    int act = PTQ_ACTIVATION_RELU6;
    while (act && !ptq__literal(line, ptq__act_name((ptq_activation)act), (int)*place == act))
        act--;
    *place = (ptq_activation)act;
    return act != PTQ_ACTIVATION_NONE;
}

/* "first" or "second": which operand of a fused addition the residual is. */
static int ptq__value_residual(ptq__line *line) {
    ptq_residual *residual = &line->node.residual;
    if (ptq__literal(line, "first", *residual == PTQ_RESIDUAL_FIRST))
        *residual = PTQ_RESIDUAL_FIRST;
    else if (ptq__literal(line, "second", *residual == PTQ_RESIDUAL_SECOND))
        *residual = PTQ_RESIDUAL_SECOND;
    return *residual != PTQ_RESIDUAL_NONE;
}

/* "s8", "u4", "f16": the type of the weights, which the file holds; float is not mentioned. */
static int ptq__value_weight(ptq__line *line) {
    ptq_tensor *weight = &line->node.param[PTQ_PARAM_WEIGHT];
    int is_signed = weight->type == PTQ_TYPE_S8 || weight->type == PTQ_TYPE_PACKED_S;
    if (line->text && weight->type == PTQ_TYPE_F32)
        return 1;
    if (ptq__literal(line, "f16", weight->type == PTQ_TYPE_F16)) {
        weight->type = PTQ_TYPE_F16;
        weight->bits = 16;
        return 1;
    }
    is_signed = ptq__literal(line, "s", is_signed);
    if (!(is_signed || ptq__literal(line, "u", 1)) ||
        !ptq__integers(line, "", 1, 2, 8, &weight->bits))
        return 0;
    if (weight->bits == 8)
        weight->type = is_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    else
        weight->type = is_signed ? PTQ_TYPE_PACKED_S : PTQ_TYPE_PACKED_U;
    return 1;
}

/* "u8:8:0.0235294:0": how a result is coded, by type, bits, scale and zero point. */
static int ptq__value_qparams(ptq__line *line) {
    ptq_qparams *q = (ptq_qparams *)ptq__value_at(line, &line->node);
    int is_signed, zero_point = q->zero_point;
    if (line->text && q->type == PTQ_TYPE_F32)
        return 1;
    is_signed = ptq__literal(line, "s8:", q->type == PTQ_TYPE_S8);
    if (!(is_signed || ptq__literal(line, "u8:", 1)) ||
        !ptq__integers(line, "", 1, 2, 8, &q->bits) || !ptq__literal(line, ":", 1) ||
        !ptq__real(line, &q->scale) || !ptq__literal(line, ":", 1) ||
        !ptq__integers(line, "", 1, -128, 255, &zero_point))
        return 0;
    q->type = is_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    q->zero_point = zero_point;
    return 1;
}

/* clang-format off */
#define PTQ__NODE(member) offsetof(ptq_node, member)

static const ptq__key ptq__keys[] = {
    {"in", PTQ__KEY_IN, ptq__value_inputs, 0, 0, 0, 0},
    {"shape", PTQ__KEY_SHAPE, ptq__value_numbers, PTQ__NODE(shape), 3, PTQ_MAX_ELEMENTS, 0},
    {"mean", PTQ__KEY_MEAN, ptq__value_pixels, offsetof(ptq_model, mean), 0, 0, 0},
    {"std", PTQ__KEY_STD, ptq__value_pixels, offsetof(ptq_model, std), 0, 0, 0},
    {"channels", PTQ__KEY_CHANNELS, ptq__value_numbers, PTQ__NODE(channels), 1, PTQ_MAX_ELEMENTS, 0},
    {"kernel", PTQ__KEY_KERNEL, ptq__value_numbers, PTQ__NODE(kernel), 2, PTQ_MAX_KERNEL, 0},
    {"stride", PTQ__KEY_STRIDE, ptq__value_numbers, PTQ__NODE(stride), 2, PTQ_MAX_KERNEL, 1},
    {"pad", PTQ__KEY_PAD, ptq__value_padding, 0, 0, 0, 0},
    {"include_pad", PTQ__KEY_INCLUDE_PAD, ptq__value_numbers, PTQ__NODE(include_pad), 1, 1, 0},
    {"groups", PTQ__KEY_GROUPS, ptq__value_numbers, PTQ__NODE(groups), 1, PTQ_MAX_ELEMENTS, 1},
    {"bias", PTQ__KEY_BIAS, ptq__value_bias, 0, 0, 0, 0},
    {"epsilon", PTQ__KEY_EPSILON, ptq__value_epsilon, 0, 0, 0, 0},
    {"act", PTQ__KEY_ACT, ptq__value_act, PTQ__NODE(act), 0, 0, 0},
    {"add", PTQ__KEY_ADD, ptq__value_residual, 0, 0, 0, 0},
    {"add_act", PTQ__KEY_ADD_ACT, ptq__value_act, PTQ__NODE(add_act), 0, 0, 0},
    {"w", PTQ__KEY_W, ptq__value_weight, 0, 0, 0, 0},
    {"dynamic", PTQ__KEY_DYNAMIC, ptq__value_numbers, PTQ__NODE(dynamic), 1, 1, 0},
    {"mid", PTQ__KEY_MID, ptq__value_qparams, PTQ__NODE(mid), 0, 0, 0},
    {"q", PTQ__KEY_Q, ptq__value_qparams, PTQ__NODE(q), 0, 0, 0},
    {"out", PTQ__KEY_OUT, ptq__value_out, 0, 0, 0, 0},
};
/* clang-format on */

enum { PTQ__KEYS = sizeof ptq__keys / sizeof ptq__keys[0] };

/* One line. A key whose value turned out empty is taken back. */
static void ptq__put_node(ptq__text *text, const ptq_model *model, const ptq_node *node) {
    ptq__line line;
    int k;
    memset(&line, 0, sizeof line);
    line.model = (ptq_model *)(uintptr_t)model; /* only read, here */
    line.node = *node;
    line.text = text;
    ptq__put(text, "%s %s", node->name, ptq_op_name(node->op));
    for (k = 0; k < PTQ__KEYS; k++) {
        size_t before = text->length, length;
        line.key = &ptq__keys[k];
        if (!ptq__has_key(node, line.key->bit))
            continue;
        ptq__put(text, " %s=", line.key->name);
        length = text->length;
        line.key->value(&line);
        if (text->length == length) {
            text->length = before;
            if (before < text->size)
                text->data[before] = 0;
        }
    }
    ptq__put_char(text, '\n');
}

PTQ_API size_t ptq_graph_write(const ptq_model *model, char *buffer, size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    int i;
    ptq__put_string(&text, "ptq-graph 1\n");
    for (i = 0; i < model->nodes; i++)
        ptq__put_node(&text, model, &model->node[i]);
    return text.length;
}

static int ptq__find_op(ptq__span name) {
    int op;
    for (op = 0; op < PTQ_OP_COUNT; op++)
        if (ptq__span_is(name, ptq_op_name((ptq_op)op)))
            return op;
    return -1;
}

static ptq_status ptq__read_pair(ptq__line *line, ptq__span pair, int number, ptq_error *err) {
    ptq__span value = pair, name = ptq__cut(&value, '=');
    const ptq__key *key = ptq__keys, *end = key + PTQ__KEYS;
    while (key < end && !ptq__span_is(name, key->name))
        key++;
    if (key == end || !ptq__has_key(&line->node, key->bit) || (line->seen & key->bit))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "graph line %d, node %s: a %s does not take '%s' here", number,
                             line->node.name, ptq_op_name(line->node.op), ptq__quoted(name).text);
    line->seen |= key->bit;
    line->key = key;
    line->value = value;
    if (!key->value(line) || line->value.n)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "graph line %d, node %s: cannot use '%s' as %s%s",
                             number, line->node.name, ptq__quoted(value).text, key->name,
                             key->bit == PTQ__KEY_IN ? ": inputs are earlier nodes" : "");
    return PTQ_OK;
}

static ptq_status ptq__read_node(ptq_model *model, ptq__span text, int number, ptq_error *err) {
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

/* `bare`: without parameters, which a file brings; the whole is checked once they are there. */
static ptq_status ptq__read_graph(ptq__span text, int bare, const ptq_allocator *allocator,
                                  ptq_model **out, ptq_error *err) {
    ptq__span line = ptq__cut(&text, '\n');
    ptq_model *model = NULL;
    ptq_status status = PTQ_OK;
    int number;
    if (!ptq__span_is(line, "ptq-graph 1"))
        return ptq_error_set(err, PTQ_BAD_GRAPH,
                             "the graph text begins with '%s', expected is 'ptq-graph 1'",
                             ptq__quoted(line).text);
    PTQ__TRY(ptq_model_create(allocator, &model, err));
    model->bare = bare;
    for (number = 2; text.n && !status; number++) {
        line = ptq__cut(&text, '\n');
        if (line.n)
            status = ptq__read_node(model, line, number, err);
    }
    if (!status && !bare)
        status = ptq_model_check(model, err);
    if (status)
        ptq_model_free(model);
    else
        *out = model;
    return status;
}

PTQ_API ptq_status ptq_graph_parse(const char *text, size_t length, const ptq_allocator *allocator,
                                   ptq_model **out, ptq_error *err) {
    ptq__span span;
    span.p = text;
    span.n = length;
    return ptq__read_graph(span, 0, allocator, out, err);
}

/* ---- [FILE] ------------------------------------------------------------------------------ */

/* Three layers: JSON, in which the header of a safetensors file and a calibration are written; the
   archive, which is such a file with its tensors; and the model, an archive whose tensors have the
   names that its graph asks for. Nothing that a file says is believed before it was checked, and
   memory is taken for what is there, never for what a number promises. */

/* A reader for JSON (RFC 8259) that keeps no tree: it stands at a place in the text and is asked
   for what should come next. The first failure stays: from then on nothing is read, loops over
   elements and members end, functions return 0. So whoever reads asks once, at the end. It works on
   a copy of the text with a 0 behind it, where strings are decoded in place. */
typedef struct ptq__json {
    char *start, *at, *end;
    const char *wrong; /* what was expected at `at`; NULL while all is well */
} ptq__json;

/* The copy, `start`, is the caller's to free. */
static ptq_status ptq__json_open(ptq__json *json, const void *text, size_t size,
                                 const ptq_allocator *allocator, ptq_error *err) {
    PTQ__TRY(PTQ__NEW(allocator, &json->start, size + 1, "a copy of the text", err));
    memcpy(json->start, text, size);
    json->at = json->start;
    json->end = json->start + size;
    json->wrong = NULL;
    return PTQ_OK;
}

static int ptq__json_wrong(ptq__json *json, const char *what) {
    json->wrong = json->wrong ? json->wrong : what;
    return 0;
}

/* The next character that is not white space; 0 at the end. */
static char ptq__json_peek(ptq__json *json) {
    while (*json->at && strchr(" \n\t\r", *json->at))
        json->at++;
    return *json->at;
}

static int ptq__json_take(ptq__json *json, char c, const char *what) {
    if (json->wrong || ptq__json_peek(json) != c)
        return ptq__json_wrong(json, what);
    json->at++;
    return 1;
}

/* Goes on to the next element between brackets, "[]" or "{}": 1 if there is one. n counts them; at
   0, where it starts, the opening bracket is taken too. */
static int ptq__json_next(ptq__json *json, const char *brackets, const char *what, int *n) {
    if (*n == 0 && !ptq__json_take(json, brackets[0], what))
        return 0;
    if (!json->wrong && ptq__json_peek(json) == brackets[1]) {
        json->at++;
        return 0;
    }
    if (json->wrong || (*n > 0 && !ptq__json_take(json, ',', "a comma")))
        return 0;
    ++*n;
    return 1;
}

static const char ptq__hex[] = "0123456789abcdef";

static int ptq__read_hex(const char *p, int digits, uint64_t *out) {
    for (*out = 0; digits > 0; digits--, p++) {
        const char *digit = strchr(ptq__hex, *p >= 'A' && *p <= 'F' ? *p - 'A' + 'a' : *p);
        if (!*p || !digit)
            return 0;
        *out = *out << 4 | (uint64_t)(digit - ptq__hex);
    }
    return 1;
}

static void ptq__put_hex(ptq__text *text, uint64_t value, int digits) {
    while (digits-- > 0)
        ptq__put_char(text, ptq__hex[value >> (4 * digits) & 15]);
}

/* UTF-8 (RFC 3629): a lead byte that tells how many follow, with six bits each. */
static void ptq__put_utf8(char **to, uint32_t code) {
    static const uint32_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *(*to)++ = (char)(lead[more] | code >> (6 * more));
    while (more-- > 0)
        *(*to)++ = (char)(0x80 | (code >> (6 * more) & 63));
}

/* Behind "\u": one code point, perhaps from a pair of surrogates. NUL is refused, since strings end
   with it. */
static int ptq__json_unicode(ptq__json *json, char **to) {
    uint64_t code, low;
    if (!ptq__read_hex(json->at, 4, &code) || code == 0 || (code >= 0xdc00 && code < 0xe000))
        return 0;
    json->at += 4;
    if (code >= 0xd800 && code < 0xdc00) {
        if (json->at[0] != '\\' || json->at[1] != 'u' || !ptq__read_hex(json->at + 2, 4, &low) ||
            low < 0xdc00 || low >= 0xe000)
            return 0;
        json->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    ptq__put_utf8(to, (uint32_t)code);
    return 1;
}

/* One character or escape, decoded to `to`, which never overtakes: escapes only shrink. 0 where it
   is not legal. */
static int ptq__json_char(ptq__json *json, char **to) {
    static const char from[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
    const char *escape;
    int i, n = (unsigned char)*json->at < 32 ? 0 : ptq__utf8_length(json->at, json->end);
    if (*json->at != '\\') {
        for (i = 0; i < n; i++)
            *(*to)++ = *json->at++;
        return n;
    }
    if (*++json->at == 'u') {
        json->at++;
        return ptq__json_unicode(json, to);
    }
    escape = *json->at ? strchr(from, *json->at) : NULL;
    if (!escape)
        return 0;
    *(*to)++ = plain[escape - from];
    json->at++;
    return 1;
}

/* A string, decoded and ended by 0; NULL on failure. */
static char *ptq__json_string(ptq__json *json) {
    char *text = NULL, *to;
    if (!ptq__json_take(json, '"', "a string"))
        return NULL;
    for (text = to = json->at; *json->at != '"';)
        if (!ptq__json_char(json, &to)) {
            ptq__json_wrong(json, json->at == json->end ? "the end of a string"
                                                        : "a legal character in a string");
            return NULL;
        }
    json->at++;
    *to = 0;
    return text;
}

/* The next key of an object, and its colon; NULL if there is none. */
static char *ptq__json_key(ptq__json *json, const char *what, int *n) {
    char *key = ptq__json_next(json, "{}", what, n) ? ptq__json_string(json) : NULL;
    return key && ptq__json_take(json, ':', "a colon") ? key : NULL;
}

/* The characters of a number. */
static int ptq__json_number(ptq__json *json, ptq__span *out) {
    ptq__json_peek(json);
    out->p = json->at;
    out->n = strspn(json->at, "+-.eE0123456789");
    json->at += out->n;
    return out->n && !json->wrong ? 1 : ptq__json_wrong(json, "a number");
}

static int ptq__json_integer(ptq__json *json, int64_t low, int64_t high, int64_t *out) {
    ptq__span span;
    size_t sign;
    if (!ptq__json_number(json, &span))
        return 0;
    sign = span.p[0] == '-';
    if ((span.n > sign + 1 && span.p[sign] == '0') || !ptq__read_int(span, low, high, out))
        return ptq__json_wrong(json, "an integer in range");
    return 1;
}

/* Nothing but white space may follow in what the message calls `what`. */
static ptq_status ptq__json_end(ptq__json *json, const char *what, ptq_error *err) {
    if (!json->wrong && (ptq__json_peek(json) || json->at < json->end))
        ptq__json_wrong(json, "the end");
    return json->wrong ? ptq_error_set(err, PTQ_BAD_FILE, "%s: expected %s at byte %z", what,
                                       json->wrong, (size_t)(json->at - json->start))
                       : PTQ_OK;
}

/* JSON text for a string. */
static void ptq__put_json(ptq__text *text, const char *s) {
    ptq__put_char(text, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            ptq__put_char(text, '\\');
        if ((unsigned char)*s >= 32) {
            ptq__put_char(text, *s);
        } else {
            ptq__put_string(text, *s == '\n' ? "\\n" : "\\u");
            ptq__put_hex(text, (uint64_t)*s, *s == '\n' ? 0 : 4);
        }
    }
    ptq__put_char(text, '"');
}

/* safetensors' names of types, with the bytes of an element in the file. Where several become one
   type, the one to write comes first. Those with `type` below 0 the format knows, and this library
   skips. */
typedef struct ptq__dtype {
    const char *name;
    int type;
    int bytes;
} ptq__dtype;

static const ptq__dtype ptq__dtypes[] = {
    {"F32", PTQ_TYPE_F32, 4}, {"F16", PTQ_TYPE_F16, 2}, {"U8", PTQ_TYPE_U8, 1},
    {"I8", PTQ_TYPE_S8, 1},   {"I32", PTQ_TYPE_S32, 4}, {"BF16", PTQ_TYPE_F32, 2},
    {"F64", PTQ_TYPE_F32, 8}, {"I64", -1, 8},           {"U64", -1, 8},
    {"U32", -1, 4},           {"I16", -1, 2},           {"U16", -1, 2},
    {"BOOL", -1, 1},          {"F8_E4M3", -1, 1},       {"F8_E5M2", -1, 1},
};

enum { PTQ__DTYPES = sizeof ptq__dtypes / sizeof ptq__dtypes[0] };

static int ptq__host_is_le(void) {
    const uint16_t probe = 1;
    return *(const uint8_t *)&probe == 1;
}

/* Copies n elements of `bytes` bytes between the file's little-endian order and the host's. */
static void ptq__copy_le(void *to, const void *from, size_t n, int bytes) {
    uint8_t *d = (uint8_t *)to;
    const uint8_t *s = (const uint8_t *)from;
    size_t i, width = (size_t)bytes;
    if (width == 1 || ptq__host_is_le())
        memcpy(to, from, n * width);
    else
        for (i = 0; i < n * width; i++)
            d[i] = s[i / width * width + (width - 1 - i % width)];
}

/* n numbers of BF16 (2 bytes) or F64 (8) as single precision. BF16 is a
   single without its lower half. */
static void ptq__convert_le(float *to, const uint8_t *from, size_t n, int bytes) {
    size_t i;
    for (i = 0; i < n; i++, from += bytes) {
        uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 24;
        double wide = 0;
        if (bytes == 8) {
            ptq__copy_le(&wide, from, 1, bytes);
            bits = wide > 0 ? 0x7f800000 : 0xff800000; /* infinite, as a cast need not be */
        }
        if (bytes == 8 && !(wide > (double)FLT_MAX) && !(wide < -(double)FLT_MAX))
            to[i] = (float)wide;
        else
            memcpy(&to[i], &bits, sizeof bits);
    }
}

PTQ_API ptq_status ptq_archive_create(const ptq_allocator *allocator, ptq_archive **out,
                                      ptq_error *err) {
    PTQ__TRY(PTQ__NEW(allocator, out, 1, "archive", err));
    (*out)->allocator = ptq__allocator(allocator);
    return PTQ_OK;
}

PTQ_API void ptq_archive_free(ptq_archive *archive) {
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

static int ptq__archive_index(const ptq_archive *archive, const char *name) {
    int i = archive->entries - 1;
    while (i >= 0 && strcmp(archive->entry[i].name, name))
        i--;
    return i;
}

PTQ_API const ptq_tensor *ptq_archive_find(const ptq_archive *archive, const char *name) {
    int i = ptq__archive_index(archive, name);
    return i < 0 ? NULL : &archive->entry[i].tensor;
}

static const char *ptq__archive_meta(const ptq_archive *archive, const char *key) {
    int i = ptq__find_meta(archive->meta, archive->metas, key);
    return i < 0 ? NULL : archive->meta[i].value;
}

PTQ_API ptq_status ptq_archive_set_meta(ptq_archive *archive, const char *key, const char *value,
                                        ptq_error *err) {
    return ptq__set_meta(&archive->meta, &archive->metas, key, value, &archive->allocator, err);
}

/* An entry more, with a copy of the name and no tensor yet. */
static ptq_status ptq__archive_append(ptq_archive *archive, const char *name, ptq_error *err) {
    ptq_archive_entry entry;
    memset(&entry, 0, sizeof entry);
    PTQ__TRY(PTQ__GROW(&archive->allocator, &archive->entry, archive->entries, &archive->capacity,
                       "tensors", err));
    PTQ__TRY(ptq__strdup(&archive->allocator, name, strlen(name), &entry.name, err));
    archive->entry[archive->entries++] = entry;
    return PTQ_OK;
}

PTQ_API ptq_status ptq_archive_add(ptq_archive *archive, const char *name, const ptq_tensor *tensor,
                                   ptq_error *err) {
    ptq_tensor *entry;
    if (!name[0] || !strcmp(name, "__metadata__") || ptq_archive_find(archive, name) ||
        !tensor->rank)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "archive: '%s' is empty, reserved or there already", name);
    PTQ__TRY(ptq__check_utf8(name, "archive: the name of a tensor", err));
    PTQ__TRY(ptq__archive_append(archive, name, err));
    entry = &archive->entry[archive->entries - 1].tensor;
    *entry = *tensor;
    entry->owned = 0; /* of neither data nor scale */
    entry->scale = NULL;
    entry->scales = 0;
    return PTQ_OK;
}

/* Reading. What the header says of each entry of the archive, beside its name. */
typedef struct ptq__record {
    int dtype, rank;
    int64_t dim[PTQ_MAX_RANK]; /* the first four */
    uint64_t elements;
    int64_t begin, end; /* of its bytes, counted from the end of the header */
} ptq__record;

typedef struct ptq__header {
    ptq__json json;
    ptq_archive *archive;
    ptq__record *record; /* as many as archive->entries */
    int capacity;
    int *order; /* of the records, by name or by place */
} ptq__header;

static ptq_status ptq__tensor_error(const char *name, const char *what, ptq_error *err) {
    return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: %s", ptq__quoted(ptq__span_of(name)).text,
                         what);
}

static void ptq__read_dtype(ptq__json *json, ptq__record *record) {
    const char *name = ptq__json_string(json);
    int i = 0;
    while (name && i < PTQ__DTYPES && strcmp(ptq__dtypes[i].name, name))
        i++;
    record->dtype = i;
    if (i == PTQ__DTYPES)
        ptq__json_wrong(json, "a known dtype");
}

static void ptq__read_shape(ptq__json *json, ptq__record *record) {
    int64_t d = 0;
    record->elements = 1;
    while (ptq__json_next(json, "[]", "a shape", &record->rank)) {
        if (!ptq__json_integer(json, 0, (int64_t)1 << 40, &d))
            return;
        if (d && record->elements > ((uint64_t)1 << 48) / (uint64_t)d)
            ptq__json_wrong(json, "a shape of fewer than 2^48 elements");
        else if (record->rank > 64)
            ptq__json_wrong(json, "at most 64 dimensions");
        record->elements *= (uint64_t)d;
        if (record->rank <= PTQ_MAX_RANK)
            record->dim[record->rank - 1] = d;
    }
}

static void ptq__read_offsets(ptq__json *json, ptq__record *record) {
    const int64_t most = (int64_t)1 << 56;
    if (ptq__json_take(json, '[', "two offsets") &&
        ptq__json_integer(json, 0, most, &record->begin) && ptq__json_take(json, ',', "a comma") &&
        ptq__json_integer(json, 0, most, &record->end))
        ptq__json_take(json, ']', "the end of two offsets");
}

/* "conv1.weight":{"dtype":"F32","shape":[16,3,3,3],"data_offsets":[0,1728]}, in any order. */
static ptq_status ptq__header_entry(ptq__header *header, const char *name, ptq_error *err) {
    static const char all[] = "dtype, shape and data_offsets, each once";
    static const char *const key[] = {"dtype", "shape", "data_offsets"};
    static void (*const read[])(ptq__json *, ptq__record *) = {ptq__read_dtype, ptq__read_shape,
                                                               ptq__read_offsets};
    ptq__json *json = &header->json;
    int i = header->archive->entries, k, n = 0, seen = 0;
    const char *found;
    PTQ__TRY(PTQ__GROW(&header->archive->allocator, &header->record, i, &header->capacity,
                       "tensors", err));
    memset(&header->record[i], 0, sizeof header->record[i]);
    PTQ__TRY(ptq__archive_append(header->archive, name, err));
    if (!name[0])
        return ptq_error_set(err, PTQ_BAD_FILE, "file header: a tensor has an empty name");
    while ((found = ptq__json_key(json, "an object", &n)) != NULL) {
        for (k = 0; k < 3 && (strcmp(found, key[k]) || (seen >> k & 1));)
            k++;
        if (k < 3)
            read[k](json, &header->record[i]);
        else
            ptq__json_wrong(json, all);
        seen |= 1 << k;
    }
    if (json->wrong || seen != 7)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: expected %s in its header entry",
                             ptq__quoted(ptq__span_of(name)).text, json->wrong ? json->wrong : all);
    return PTQ_OK;
}

/* "__metadata__": strings by name. */
static ptq_status ptq__header_meta(ptq__json *json, ptq_archive *archive, ptq_error *err) {
    const char *key, *value;
    int n = 0;
    while ((key = ptq__json_key(json, "the metadata object", &n)) != NULL) {
        value = ptq__json_string(json);
        if (n > PTQ_MAX_NODES)
            ptq__json_wrong(json, "at most 4096 metadata entries");
        else if (value && ptq__archive_meta(archive, key))
            ptq__json_wrong(json, "every metadata key once");
        else if (value)
            PTQ__TRY(ptq__append_meta(&archive->meta, &archive->metas, key, value,
                                      &archive->allocator, err));
    }
    return PTQ_OK;
}

static ptq_status ptq__read_header(ptq__header *header, ptq_error *err) {
    ptq__json *json = &header->json;
    const char *key;
    int n = 0, metas = 0;
    if (*json->at != '{') /* the format allows no space before it */
        ptq__json_wrong(json, "a JSON object");
    while ((key = ptq__json_key(json, "a JSON object", &n)) != NULL)
        if (strcmp(key, "__metadata__"))
            PTQ__TRY(ptq__header_entry(header, key, err));
        else if (metas++)
            ptq__json_wrong(json, "__metadata__ once");
        else
            PTQ__TRY(ptq__header_meta(json, header->archive, err));
    return ptq__json_end(json, "file header", err);
}

static int ptq__name_before(const void *a, const void *b, const void *archive) {
    const ptq_archive_entry *entry = ((const ptq_archive *)archive)->entry;
    return strcmp(entry[*(const int *)a].name, entry[*(const int *)b].name) < 0;
}

static int ptq__data_before(const void *a, const void *b, const void *record) {
    const ptq__record *r = (const ptq__record *)record + *(const int *)a;
    const ptq__record *s = (const ptq__record *)record + *(const int *)b;
    return r->begin != s->begin ? r->begin < s->begin : r->end < s->end;
}

/* Names unique; the data covered exactly, without overlap or hole, as the format demands. */
static ptq_status ptq__check_layout(const ptq__header *header, uint64_t data_size, ptq_error *err) {
    const ptq_archive_entry *entry = header->archive->entry;
    int i, n = header->archive->entries, *order = header->order;
    int64_t at = 0;
    for (i = 0; i < n; i++)
        order[i] = i;
    ptq__sort(order, (size_t)n, sizeof *order, ptq__name_before, header->archive);
    for (i = 1; i < n; i++)
        if (!strcmp(entry[order[i]].name, entry[order[i - 1]].name))
            return ptq__tensor_error(entry[order[i]].name, "occurs twice", err);
    ptq__sort(order, (size_t)n, sizeof *order, ptq__data_before, header->record);
    for (i = 0; i < n; i++) {
        const ptq__record *r = &header->record[order[i]];
        const char *what = NULL;
        if (r->end < r->begin ||
            (uint64_t)(r->end - r->begin) != r->elements * (uint64_t)ptq__dtypes[r->dtype].bytes)
            what = "its offsets do not agree with its shape and dtype";
        else if (r->begin != at)
            what = r->begin < at ? "overlaps another tensor" : "a hole lies before its data";
        else if ((uint64_t)r->end > data_size)
            what = "its data end behind the end of the file; is the file truncated?";
        if (what)
            return ptq__tensor_error(entry[order[i]].name, what, err);
        at = r->end;
    }
    if ((uint64_t)at != data_size)
        return ptq_error_set(err, PTQ_BAD_FILE, "%z bytes behind the last tensor belong to none",
                             (size_t)(data_size - (uint64_t)at));
    return PTQ_OK;
}

/* The tensor of a record, copied or borrowed. What cannot be one keeps rank 0. */
static ptq_status ptq__read_tensor(const ptq__record *record, const uint8_t *data, int borrow,
                                   const ptq_allocator *allocator, ptq_archive_entry *out,
                                   ptq_error *err) {
    const ptq__dtype *dtype = &ptq__dtypes[record->dtype];
    const uint8_t *from = data + record->begin;
    int dims[PTQ_MAX_RANK] = {1, 1, 1, 1}, i, rank = record->rank ? record->rank : 1;
    int other = dtype->type == PTQ_TYPE_F32 && dtype->bytes != 4;
    if (dtype->type < 0 || rank > PTQ_MAX_RANK || record->elements == 0)
        return PTQ_OK;
    if (record->elements > PTQ_MAX_ELEMENTS)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: more than %d elements",
                             ptq__quoted(ptq__span_of(out->name)).text, PTQ_MAX_ELEMENTS);
    for (i = 0; i < record->rank; i++)
        dims[i] = (int)record->dim[i];
    if (borrow && !other && (dtype->bytes == 1 || ptq__host_is_le()) &&
        (uintptr_t)from % (uintptr_t)dtype->bytes == 0)
        return ptq_tensor_borrow(&out->tensor, (ptq_type)dtype->type, 0, rank, dims,
                                 (void *)(uintptr_t)from, (size_t)(record->end - record->begin),
                                 err);
    PTQ__TRY(ptq_tensor_create(&out->tensor, (ptq_type)dtype->type, 0, rank, dims, allocator, err));
    if (other)
        ptq__convert_le((float *)out->tensor.data, from, (size_t)record->elements, dtype->bytes);
    else
        ptq__copy_le(out->tensor.data, from, (size_t)record->elements, dtype->bytes);
    return PTQ_OK;
}

/* `length`: of the header and the 8 bytes before it. What it allocates, the caller frees. */
static ptq_status ptq__parse_archive(ptq__header *header, const uint8_t *file, size_t length,
                                     size_t size, int borrow, ptq_error *err) {
    ptq_archive *archive = header->archive;
    const ptq_allocator *allocator = &archive->allocator;
    int i;
    PTQ__TRY(ptq__json_open(&header->json, file, length, allocator, err));
    header->json.at += 8;
    PTQ__TRY(ptq__read_header(header, err));
    PTQ__TRY(PTQ__NEW(allocator, &header->order, (size_t)archive->entries, "tensor order", err));
    PTQ__TRY(ptq__check_layout(header, size - length, err));
    for (i = 0; i < archive->entries; i++)
        PTQ__TRY(ptq__read_tensor(&header->record[i], file + length, borrow, allocator,
                                  &archive->entry[i], err));
    return PTQ_OK;
}

PTQ_API ptq_status ptq_archive_parse(const void *bytes, size_t size,
                                     const ptq_load_options *options, ptq_archive **out,
                                     ptq_error *err) {
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
                             " have %L",
                             size, length);
    memset(&header, 0, sizeof header);
    PTQ__TRY(ptq_archive_create(options ? &options->allocator : NULL, &header.archive, err));
    status = ptq__parse_archive(&header, file, 8 + (size_t)length, size, options && options->borrow,
                                err);
    ptq__free(&header.archive->allocator, header.json.start);
    ptq__free(&header.archive->allocator, header.record);
    ptq__free(&header.archive->allocator, header.order);
    if (status)
        ptq_archive_free(header.archive);
    else
        *out = header.archive;
    return status;
}

/* Writing. Packed codes go into the file as bytes, one row for each channel. */
static void ptq__put_record(ptq__text *text, const ptq_archive_entry *entry, size_t begin) {
    const ptq_tensor *tensor = &entry->tensor;
    int i = 0, packed = ptq__is_packed(tensor->type);
    ptq_type type = packed ? PTQ_TYPE_U8 : tensor->type;
    ptq__put_json(text, entry->name);
    while (ptq__dtypes[i].type != (int)type)
        i++;
    ptq__put(text, ":{\"dtype\":\"%s\",\"shape\":[", ptq__dtypes[i].name);
    if (packed)
        ptq__put(text, "%d,%z", tensor->dim[0], tensor->size / (size_t)tensor->dim[0]);
    for (i = 0; i < tensor->rank && !packed; i++)
        ptq__put(text, i ? ",%d" : "%d", tensor->dim[i]);
    ptq__put(text, "],\"data_offsets\":[%z,%z]}", begin, begin + tensor->size);
}

/* The header alone: as much as fits into `size`, and counted beyond it. */
static size_t ptq__put_header(const ptq_archive *archive, char *buffer, size_t size) {
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
                                     ptq_error *err) {
    size_t header = ptq__put_header(archive, NULL, 0), total = 8 + header;
    uint8_t *file = NULL;
    int i;
    for (i = 0; i < archive->entries; i++) {
        if (total > SIZE_MAX / 2 - archive->entry[i].tensor.size)
            return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "archive: larger than memory can be");
        total += archive->entry[i].tensor.size;
    }
    PTQ__TRY(PTQ__NEW(&archive->allocator, &file, total + 1, "file", err));
    *bytes = file;
    *size = total;
    for (i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)header >> (8 * i));
    ptq__put_header(archive, (char *)file + 8, header + 1);
    file += 8 + header;
    for (i = 0; i < archive->entries; i++) {
        const ptq_tensor *tensor = &archive->entry[i].tensor;
        int width = tensor->bits >= 8 ? tensor->bits / 8 : 1;
        ptq__copy_le(file, tensor->data, tensor->size / (size_t)width, width);
        file += tensor->size;
    }
    return PTQ_OK;
}

PTQ_API void ptq_bytes_free(void *bytes, const ptq_allocator *allocator) {
    ptq__free(allocator, bytes);
}

/* Models in archives. "conv1.weight": */
typedef struct ptq__param_text {
    char text[PTQ_NAME_SIZE + 32];
} ptq__param_text;

static ptq__param_text ptq__full_name(const ptq_node *node, const char *param) {
    ptq__param_text name;
    ptq__text text = ptq__text_over(name.text, sizeof name.text);
    ptq__put(&text, "%s.%s", node->name, param);
    return name;
}

/* A graph for a file that has none: ResNet8, if the shapes of its first and last layer say so. */
static ptq_status ptq__guess_graph(const ptq_archive *archive, ptq_model **out, ptq_error *err) {
    const ptq_tensor *first = ptq_archive_find(archive, "conv1.weight");
    const ptq_tensor *last = ptq_archive_find(archive, "fc.weight");
    const char *meta = ptq__archive_meta(archive, "epsilon");
    float epsilon = 1e-3f;
    int i;
    if (!first || !last || first->rank != 4 || last->rank != 2 || last->dim[1] != 4 * first->dim[0])
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "the file has no graph in its metadata, and its tensors are not"
                             " those of ResNet8 (conv1.weight to fc.bias)");
    if (meta && !ptq__read_float(ptq__span_of(meta), &epsilon))
        return ptq_error_set(err, PTQ_BAD_FILE, "metadata 'epsilon' is not a number: %s",
                             ptq__quoted(ptq__span_of(meta)).text);
    PTQ__TRY(ptq__build_resnet8(32, first->dim[0], last->dim[0], 1, &archive->allocator, out, err));
    for (i = 0; i < (*out)->nodes; i++)
        if ((*out)->node[i].op == PTQ_OP_BATCH_NORM)
            (*out)->node[i].epsilon = epsilon;
    return PTQ_OK;
}

/* The graph of the file, without parameters. */
static ptq_status ptq__archive_graph(const ptq_archive *archive, ptq_model **out, ptq_error *err) {
    const char *format = ptq__archive_meta(archive, "format");
    const char *version = ptq__archive_meta(archive, "format_version");
    const char *graph = ptq__archive_meta(archive, "graph");
    if (!graph)
        return ptq__guess_graph(archive, out, err);
    if (!format || strcmp(format, "ptq") || !version || strcmp(version, "1"))
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "the metadata should say format ptq, format_version 1; a newer"
                             " version of the library may have written this file");
    return ptq__read_graph(ptq__span_of(graph), 1, &archive->allocator, out, err);
}

static const ptq_tensor *ptq__find_param(const ptq_archive *archive, const ptq_node *node,
                                         const char *param) {
    return ptq_archive_find(archive, ptq__full_name(node, param).text);
}

/* Finds a tensor of the type, rank and dimensions that it must have, for the node to take. */
static ptq_status ptq__take(ptq_archive *archive, const ptq_node *node, const char *param,
                            ptq_type type, int rank, const int *dims, ptq_tensor **out,
                            ptq_error *err) {
    ptq__param_text name = ptq__full_name(node, param);
    int i = ptq__archive_index(archive, name.text);
    ptq_tensor *tensor = i < 0 ? NULL : &archive->entry[i].tensor;
    if (!tensor || archive->entry[i].taken)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s is missing", name.text);
    if (tensor->rank != rank || memcmp(tensor->dim, dims, sizeof tensor->dim))
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "tensor %s: shape [%d,%d,%d,%d] of rank %d, expected [%d,%d,%d,%d] of"
                             " rank %d (rank 0: of a type that is not supported)",
                             name.text, tensor->dim[0], tensor->dim[1], tensor->dim[2],
                             tensor->dim[3], tensor->rank, dims[0], dims[1], dims[2], dims[3],
                             rank);
    if (tensor->type != type)
        return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: of type %s, expected is %s", name.text,
                             ptq_type_name(tensor->type), ptq_type_name(type));
    archive->entry[i].taken = 1;
    *out = tensor;
    return PTQ_OK;
}

/* NODE.weight_scale, one or one for each channel, and, where weights are affine,
   NODE.weight_zero_point. */
static ptq_status ptq__take_scales(ptq_archive *archive, ptq_model *model, ptq_node *node,
                                   ptq_error *err) {
    ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT], *scale = NULL, *zero = NULL;
    const ptq_tensor *found = ptq__find_param(archive, node, "weight_scale");
    int dims[PTQ_MAX_RANK] = {1, 1, 1, 1};
    if (ptq__find_param(archive, node, "weight_zero_point"))
        PTQ__TRY(ptq__take(archive, node, "weight_zero_point", PTQ_TYPE_S32, 1, dims, &zero, err));
    if (found && found->dim[0] != 1)
        dims[0] = weight->dim[0];
    PTQ__TRY(ptq__take(archive, node, "weight_scale", PTQ_TYPE_F32, 1, dims, &scale, err));
    return ptq_tensor_set_scale(weight, (const float *)scale->data, dims[0],
                                zero ? *(const int32_t *)zero->data : 0, &model->allocator, err);
}

/* Moves a parameter from the archive into its node, with the memory that it owns. Packed codes are
   rows of bytes in the file; they get their own type and shape back. */
static ptq_status ptq__take_param(ptq_archive *archive, ptq_model *model, ptq_node *node, int param,
                                  ptq_error *err) {
    int dims[PTQ_MAX_RANK], rank = ptq__param_shape(model, node, param, dims);
    int rows[PTQ_MAX_RANK] = {1, 1, 1, 1}, bits = node->param[param].bits;
    ptq_type type = ptq__param_type(node, param);
    int packed = ptq__is_packed(type);
    ptq_tensor *taken;
    if (!rank)
        return PTQ_OK;
    if (packed) {
        rows[0] = dims[0];
        rows[1] = (int)(ptq_tensor_bytes(type, bits, rank, dims) / (size_t)dims[0]);
    }
    PTQ__TRY(ptq__take(archive, node, ptq__param_name(param), packed ? PTQ_TYPE_U8 : type,
                       packed ? 2 : rank, packed ? rows : dims, &taken, err));
    node->param[param] = *taken;
    memset(taken, 0, sizeof *taken);
    node->param[param].type = type;
    node->param[param].rank = rank;
    node->param[param].bits = packed ? bits : node->param[param].bits;
    memcpy(node->param[param].dim, dims, sizeof dims);
    return ptq__is_integer_type(type) ? ptq__take_scales(archive, model, node, err) : PTQ_OK;
}

/* Tensors that no node took. PyTorch counts batches beside its batch norms, which is not one of
   their parameters. */
static ptq_status ptq__check_leftover(const ptq_archive *archive, ptq_error *err) {
    static const char ignored[] = ".num_batches_tracked";
    int i;
    for (i = 0; i < archive->entries; i++) {
        const char *name = archive->entry[i].name;
        size_t n = strlen(name), tail = sizeof ignored - 1;
        if (!archive->entry[i].taken && (n < tail || strcmp(name + n - tail, ignored)))
            return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s belongs to no node of the graph",
                                 ptq__quoted(ptq__span_of(name)).text);
    }
    return PTQ_OK;
}

/* Everything but the graph itself, which stands in `model`. */
static ptq_status ptq__fill_model(ptq_archive *archive, ptq_model *model, ptq_error *err) {
    int i, param;
    for (i = 0; i < model->nodes; i++) {
        ptq_node *node = &model->node[i];
        /* A file without a graph may leave biases out, as PyTorch does before a batch norm. */
        if (!ptq__archive_meta(archive, "graph") && ptq__has_weight(node->op) &&
            !ptq__find_param(archive, node, "bias"))
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
                                   ptq_model **out, ptq_error *err) {
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

/* The scales of integer weights, as tensors of their own over the model's memory. */
static ptq_status ptq__put_scales(ptq_archive *archive, const ptq_node *node, ptq_error *err) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const int one = 1;
    ptq_tensor tensor;
    PTQ__TRY(ptq_tensor_borrow(&tensor, PTQ_TYPE_F32, 32, 1, &weight->scales, weight->scale,
                               (size_t)weight->scales * sizeof(float), err));
    PTQ__TRY(ptq_archive_add(archive, ptq__full_name(node, "weight_scale").text, &tensor, err));
    if (!weight->zero_point)
        return PTQ_OK;
    PTQ__TRY(ptq_tensor_borrow(&tensor, PTQ_TYPE_S32, 32, 1, &one,
                               (void *)(uintptr_t)&weight->zero_point, sizeof(int32_t), err));
    return ptq_archive_add(archive, ptq__full_name(node, "weight_zero_point").text, &tensor, err);
}

/* Parameters of one width after the other, wide ones first: so each lies aligned in the file and
   can be used where it is. */
static ptq_status ptq__put_params(ptq_archive *archive, const ptq_model *model, int wide,
                                  ptq_error *err) {
    int i, param;
    for (i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        for (param = 0; param < PTQ_PARAM_COUNT; param++)
            if (node->param[param].rank && (node->param[param].bits == 32) == wide)
                PTQ__TRY(ptq_archive_add(archive, ptq__full_name(node, ptq__param_name(param)).text,
                                         &node->param[param], err));
        if (wide && node->param[PTQ_PARAM_WEIGHT].scales)
            PTQ__TRY(ptq__put_scales(archive, node, err));
    }
    return PTQ_OK;
}

static ptq_status ptq__put_graph(ptq_archive *archive, const ptq_model *model, ptq_error *err) {
    size_t length = ptq_graph_write(model, NULL, 0);
    char *text = NULL;
    ptq_status status;
    PTQ__TRY(PTQ__NEW(&archive->allocator, &text, length + 1, "graph text", err));
    ptq_graph_write(model, text, length + 1);
    status = ptq_archive_set_meta(archive, "graph", text, err);
    ptq__free(&archive->allocator, text);
    return status;
}

static ptq_status ptq__fill_archive(ptq_archive *archive, const ptq_model *model, ptq_error *err) {
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
                                   ptq_error *err) {
    ptq_archive *archive = NULL;
    ptq_status status;
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__TRY(ptq_archive_create(&model->allocator, &archive, err));
    status = ptq__fill_archive(archive, model, err);
    if (!status)
        status = ptq_archive_write(archive, bytes, size, err);
    ptq_archive_free(archive);
    return status;
}

#ifndef PTQ_NO_STDIO

/* Opening, renaming over a file that exists, and removing. Windows takes names in UTF-16, and its
   rename replaces nothing. */
#ifdef _WIN32
#ifdef __cplusplus
#define PTQ__WIN32 extern "C" __declspec(dllimport)
#else
#define PTQ__WIN32 extern __declspec(dllimport)
#endif
/* As <windows.h> declares them, whose hundreds of macros would stay behind here. */
PTQ__WIN32 int __stdcall MultiByteToWideChar(unsigned int page, unsigned long flags,
                                             const char *text, int bytes, wchar_t *wide, int size);
PTQ__WIN32 int __stdcall MoveFileExW(const wchar_t *from, const wchar_t *to, unsigned long flags);
#undef PTQ__WIN32

enum { PTQ__WIDE_SIZE = 1024 };

/* UTF-8 to UTF-16; 0 if that is not what `path` is, or it is too long. */
static int ptq__wide(const char *path, wchar_t *wide) {
    enum { UTF_8 = 65001, INVALID_IS_AN_ERROR = 8 };
    return MultiByteToWideChar(UTF_8, INVALID_IS_AN_ERROR, path, -1, wide, PTQ__WIDE_SIZE) > 0;
}

static FILE *ptq__open(const char *path, int writing) {
    wchar_t wide[PTQ__WIDE_SIZE];
    return ptq__wide(path, wide) ? _wfopen(wide, writing ? L"wb" : L"rb") : NULL;
}

static int ptq__replace(const char *from, const char *to) {
    enum { REPLACE_EXISTING = 1 };
    wchar_t wide_from[PTQ__WIDE_SIZE], wide_to[PTQ__WIDE_SIZE];
    return ptq__wide(from, wide_from) && ptq__wide(to, wide_to) &&
           MoveFileExW(wide_from, wide_to, REPLACE_EXISTING);
}

static void ptq__remove(const char *path) {
    wchar_t wide[PTQ__WIDE_SIZE];
    if (ptq__wide(path, wide))
        (void)_wremove(wide);
}

static int ptq__is_separator(char c) { return c == '/' || c == '\\'; }
#else
static FILE *ptq__open(const char *path, int writing) { return fopen(path, writing ? "wb" : "rb"); }

static int ptq__replace(const char *from, const char *to) { return rename(from, to) == 0; }

static void ptq__remove(const char *path) { (void)remove(path); }

static int ptq__is_separator(char c) { return c == '/'; }
#endif

/* A little more than the file's size, where that can be known: then one piece does. Only a hint; a
   directory claims to be endless, a pipe says nothing. */
static size_t ptq__likely_size(FILE *file, size_t limit) {
    long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    rewind(file);
    if (size < 0 || size > (1L << 28) || (limit && (size_t)size > limit))
        size = 65535;
    return (size_t)size + 1;
}

/* Reads to the end in growing pieces, so that pipes work as well as files. */
static ptq_status ptq__read_all(FILE *file, const char *path, size_t limit,
                                const ptq_allocator *allocator, char **bytes, size_t *size,
                                ptq_error *err) {
    size_t capacity = ptq__likely_size(file, limit), got;
    char *larger = NULL;
    PTQ__TRY(PTQ__NEW(allocator, bytes, capacity, path, err));
    while ((got = fread(*bytes + *size, 1, capacity - *size, file)) > 0) {
        *size += got;
        if (limit && *size > limit)
            return ptq_error_set(err, PTQ_BAD_FILE, "%s: larger than %z bytes", path, limit);
        if (*size < capacity)
            continue;
        PTQ__TRY(ptq__alloc(allocator, capacity, 2, path, &larger, err));
        memcpy(larger, *bytes, *size);
        ptq__free(allocator, *bytes);
        *bytes = larger;
        capacity *= 2;
    }
    return ferror(file)
               ? ptq_error_set(err, PTQ_IO_ERROR, "%s: cannot be read; is it a directory?", path)
               : PTQ_OK;
}

PTQ_API ptq_status ptq_file_read(const char *path, size_t limit, const ptq_allocator *allocator,
                                 void **bytes, size_t *size, ptq_error *err) {
    FILE *file = ptq__open(path, 0);
    char *memory = NULL;
    size_t length = 0;
    ptq_status status;
    if (!file)
        return ptq_error_set(err, PTQ_IO_ERROR,
                             "%s: cannot be opened; does it exist, and may you read it?", path);
    status = ptq__read_all(file, path, limit, allocator, &memory, &length, err);
    fclose(file);
    if (status) {
        ptq__free(allocator, memory);
        return status;
    }
    *bytes = memory;
    *size = length;
    return PTQ_OK;
}

static int ptq__write_bytes(const char *path, const void *bytes, size_t size) {
    FILE *file = ptq__open(path, 1);
    int good = file && fwrite(bytes, 1, size, file) == size;
    return file && fclose(file) == 0 && good;
}

/* A device, a pipe: written to as it is, for a file in its place would be the end of it. */
#ifdef PTQ__HAS_STAT
static int ptq__is_special(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && !S_ISREG(status.st_mode);
}
#else
static int ptq__is_special(const char *path) {
    (void)path;
    return 0;
}
#endif

/* Writes to the path with a suffix, then puts that file in the place of the old one. */
static ptq_status ptq__write_file(const char *path, const void *bytes, size_t size,
                                  const ptq_allocator *allocator, ptq_error *err) {
    static const char suffix[] = ".ptq-tmp";
    size_t length = strlen(path);
    char *name = NULL;
    int good;
    PTQ__TRY(PTQ__NEW(allocator, &name, length + sizeof suffix, "file name", err));
    memcpy(name, path, length);
    memcpy(name + length, suffix, sizeof suffix);
    if (ptq__is_special(path)) {
        good = ptq__write_bytes(path, bytes, size);
    } else {
        good = ptq__write_bytes(name, bytes, size) && ptq__replace(name, path);
        if (!good)
            ptq__remove(name);
    }
    ptq__free(allocator, name);
    return good ? PTQ_OK
                : ptq_error_set(err, PTQ_IO_ERROR,
                                "%s: cannot be written; is the folder there and"
                                " writable, and the disk not full?",
                                path);
}

PTQ_API ptq_status ptq_file_write(const char *path, const void *bytes, size_t size,
                                  ptq_error *err) {
    return ptq__write_file(path, bytes, size, NULL, err);
}

/* What makes an object from bytes; `out` is the address of a pointer to it. */
typedef ptq_status ptq__parser(const void *bytes, size_t size, const ptq_allocator *allocator,
                               void *out, ptq_error *err);

/* An object from a file; errors that come from its bytes get the path in front. */
static ptq_status ptq__load_object(const char *path, const ptq_allocator *allocator,
                                   ptq__parser *parse, void *out, ptq_error *err) {
    ptq_error inner;
    void *bytes = NULL;
    size_t size = 0;
    ptq_status status;
    PTQ__TRY(ptq_file_read(path, 0, allocator, &bytes, &size, err));
    status = parse(bytes, size, allocator, out, &inner);
    ptq__free(allocator, bytes);
    return status ? ptq_error_set(err, status, "%s: %s", path, inner.text) : PTQ_OK;
}

/* Writes bytes that were made for it, and frees them. */
static ptq_status ptq__save_bytes(const char *path, void *bytes, size_t size,
                                  const ptq_allocator *allocator, ptq_error *err) {
    ptq_status status = ptq__write_file(path, bytes, size, allocator, err);
    ptq__free(allocator, bytes);
    return status;
}

/* Nothing is borrowed from bytes that do not stay. */
static ptq_status ptq__parse_model(const void *bytes, size_t size, const ptq_allocator *allocator,
                                   void *out, ptq_error *err) {
    ptq_load_options copying;
    memset(&copying, 0, sizeof copying);
    copying.allocator = ptq__allocator(allocator);
    return ptq_model_parse(bytes, size, &copying, (ptq_model **)out, err);
}

PTQ_API ptq_status ptq_model_load(const char *path, const ptq_load_options *options,
                                  ptq_model **out, ptq_error *err) {
    return ptq__load_object(path, options ? &options->allocator : NULL, ptq__parse_model, out, err);
}

PTQ_API ptq_status ptq_model_save(const ptq_model *model, const char *path, ptq_error *err) {
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_model_write(model, &bytes, &size, err));
    return ptq__save_bytes(path, bytes, size, &model->allocator, err);
}

#endif /* PTQ_NO_STDIO */

/* ---- [CALIBRATION FILE] --------------------------------------------------------------------- */

/* Statistics as JSON: people can read them, and every number comes back as it was. Members may come
   in any order, but "first" before "bins"; what is missing keeps its zero and fails the check of
   the whole, which also keeps out numbers that no images could have caused. */

static void ptq__put_hash(ptq__text *text, uint64_t hash) {
    ptq__put_char(text, '"');
    ptq__put_hex(text, hash, 16);
    ptq__put_char(text, '"');
}

/* Counts, or the signed limbs of a sum: all below 2^63. */
static void ptq__put_integers(ptq__text *text, const char *key, const void *values, int n) {
    int i;
    ptq__put(text, "\"%s\": [", key);
    for (i = 0; i < n; i++) {
        ptq__put_string(text, i ? "," : "");
        ptq__put_signed(text, ((const int64_t *)values)[i]);
    }
    ptq__put_char(text, ']');
}

/* Bins from the first to the last that is not empty. */
static void ptq__put_statistics(ptq__text *text, const ptq_statistics *s) {
    int first = 0, end = PTQ_BINS;
    while (end > 0 && !s->bin[end - 1])
        end--;
    while (first < end && !s->bin[first])
        first++;
    ptq__put(text,
             "\"count\": %L, \"zeros\": %L, \"images\": %L, \"min\": %g, \"max\": %g,\n      ",
             s->count, s->zeros, s->images, (double)s->min, (double)s->max);
    ptq__put_integers(text, "min_sum", s->min_sum.limb, 10);
    ptq__put_string(text, ", ");
    ptq__put_integers(text, "max_sum", s->max_sum.limb, 10);
    ptq__put(text, ", \n      \"exponent\": %d, \"first\": %d, ", s->exponent, first);
    ptq__put_integers(text, "bins", s->bin + first, end - first);
}

static size_t ptq__put_calibration(const ptq_calibration *c, char *buffer, size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    size_t i;
    int t;
    ptq__put_string(&text, "{\n  \"format\": \"ptq-calibration\",\n  \"format_version\": 1,\n"
                           "  \"model\": ");
    ptq__put_hash(&text, c->model);
    ptq__put_string(&text, ",\n  ");
    ptq__put_integers(&text, "class_count", c->class_count, c->classes);
    ptq__put_string(&text, ",\n  ");
    ptq__put_integers(&text, "pixel", c->pixel, 256);
    ptq__put(&text, ",\n  \"neighbours\": %L,\n  \"neighbour_sum\": %L,\n  \"images\": [",
             c->neighbours, c->neighbour_sum);
    for (i = 0; i < c->images; i++) {
        ptq__put_string(&text, i ? (i % 5 ? ", " : ",\n    ") : "\n    ");
        ptq__put_hash(&text, c->hash[i]);
    }
    ptq__put_string(&text, "\n  ],\n  \"tensors\": {");
    for (t = 0; t < c->tensors; t++) {
        ptq__put_string(&text, t ? ",\n    " : "\n    ");
        ptq__put_json(&text, c->tensor[t].name);
        ptq__put_string(&text, ": {\n      ");
        ptq__put_statistics(&text, c->tensor[t].observer.channel);
        ptq__put_char(&text, '}');
    }
    ptq__put_string(&text, "\n  }\n}\n");
    return text.length;
}

PTQ_API ptq_status ptq_calibration_write(const ptq_calibration *calibration, void **bytes,
                                         size_t *size, ptq_error *err) {
    size_t length = ptq__put_calibration(calibration, NULL, 0);
    char *text = NULL;
    PTQ__TRY(PTQ__NEW(&calibration->allocator, &text, length + 1, "calibration", err));
    ptq__put_calibration(calibration, text, length + 1);
    *bytes = text;
    *size = length;
    return PTQ_OK;
}

/* Counts end where a double stops holding every integer: readers elsewhere may know no others. */
static const int64_t ptq__most_count = (int64_t)1 << 53;

static void ptq__json_count(ptq__json *json, uint64_t *out) {
    ptq__json_integer(json, 0, ptq__most_count, (int64_t *)out);
}

static void ptq__json_float(ptq__json *json, float *out) {
    ptq__span span;
    if (ptq__json_number(json, &span) && !ptq__read_float(span, out))
        ptq__json_wrong(json, "a finite number");
}

/* A list of at most `most` integers; returns how many. */
static int ptq__json_integers(ptq__json *json, int64_t low, int64_t high, void *out, int most) {
    int n = 0;
    while (ptq__json_next(json, "[]", "a list", &n))
        if (n > most)
            ptq__json_wrong(json, "a shorter list");
        else
            ptq__json_integer(json, low, high, (int64_t *)out + n - 1);
    return n;
}

static void ptq__json_sum(ptq__json *json, ptq_exact_sum *sum) {
    const int64_t most = (int64_t)1 << 52;
    if (ptq__json_integers(json, -most, most, sum->limb, 10) != 10)
        ptq__json_wrong(json, "ten integers");
}

static void ptq__json_hash(ptq__json *json, uint64_t *out) {
    const char *text = ptq__json_string(json);
    if (text &&
        (strlen(text) != 16 || strspn(text, ptq__hex) != 16 || !ptq__read_hex(text, 16, out)))
        ptq__json_wrong(json, "a hash of 16 hexadecimal digits");
}

/* The bin of an extreme value, which must be the first or last that counts anything; zeros have
   none of their own. */
static int ptq__extreme_agrees(const ptq_statistics *s, float value, int bin) {
    if (value < 0 || value > 0)
        return bin >= 0 && bin < PTQ_BINS && ptq__fitting_exponent(value) <= s->exponent &&
               ptq__bin_of(value, s->exponent) == bin;
    return s->zeros > 0;
}

/* Whether numbers of a file could have come from observing: searches rely on it. */
static int ptq__statistics_agree(const ptq_statistics *s) {
    uint64_t sum = s->zeros;
    int b, first = PTQ_BINS, last = -1;
    for (b = 0; b < PTQ_BINS; b++) {
        sum += s->bin[b];
        first = s->bin[b] && b < first ? b : first;
        last = s->bin[b] ? b : last;
    }
    return s->count > 0 && s->images > 0 && sum == s->count && s->min <= s->max &&
           ptq__extreme_agrees(s, s->min, first) && ptq__extreme_agrees(s, s->max, last) &&
           (s->min < 0 || first >= PTQ__HALF_BINS) && (s->max > 0 || last < PTQ__HALF_BINS);
}

static void ptq__json_statistics(ptq__json *json, ptq_statistics *s) {
    int64_t exponent = s->exponent, first = 0;
    const char *key;
    int n = 0;
    while ((key = ptq__json_key(json, "an object", &n)) != NULL)
        if (!strcmp(key, "count"))
            ptq__json_count(json, &s->count);
        else if (!strcmp(key, "zeros"))
            ptq__json_count(json, &s->zeros);
        else if (!strcmp(key, "images"))
            ptq__json_count(json, &s->images);
        else if (!strcmp(key, "min"))
            ptq__json_float(json, &s->min);
        else if (!strcmp(key, "max"))
            ptq__json_float(json, &s->max);
        else if (!strcmp(key, "min_sum"))
            ptq__json_sum(json, &s->min_sum);
        else if (!strcmp(key, "max_sum"))
            ptq__json_sum(json, &s->max_sum);
        else if (!strcmp(key, "exponent"))
            ptq__json_integer(json, -149, 117, &exponent);
        else if (!strcmp(key, "first"))
            ptq__json_integer(json, 0, PTQ_BINS - 1, &first);
        else if (!strcmp(key, "bins"))
            ptq__json_integers(json, 0, ptq__most_count, s->bin + first, PTQ_BINS - (int)first);
        else
            ptq__json_wrong(json, "a known key");
    s->exponent = (int)exponent;
    if (!json->wrong && !ptq__statistics_agree(s))
        ptq__json_wrong(json, "counts that agree with each other");
}

static ptq_status ptq__json_tensors(ptq__json *json, ptq_calibration *c, ptq_error *err) {
    const char *name;
    int n = 0;
    while ((name = ptq__json_key(json, "an object", &n)) != NULL) {
        if (!ptq__is_name(name, strlen(name)) || ptq_calibration_find(c, name) >= 0 ||
            c->tensors == 2 * PTQ_MAX_NODES) {
            ptq__json_wrong(json, "tensor names, each once");
            break;
        }
        PTQ__TRY(ptq__calibration_add_tensor(c, name, err));
        ptq__json_statistics(json, c->tensor[c->tensors - 1].observer.channel);
    }
    return PTQ_OK;
}

static ptq_status ptq__json_images(ptq__json *json, ptq_calibration *c, ptq_error *err) {
    int n = 0, capacity = 0;
    while (n < INT32_MAX / 2 && ptq__json_next(json, "[]", "a list", &n)) {
        PTQ__TRY(PTQ__GROW(&c->allocator, &c->hash, n - 1, &capacity, "image hashes", err));
        ptq__json_hash(json, &c->hash[n - 1]);
    }
    c->images = (size_t)n;
    ptq__sort_hashes(c->hash, c->images);
    return PTQ_OK;
}

/* Every image was seen by every tensor, and has one class or none. */
static int ptq__calibration_agrees(const ptq_calibration *c) {
    uint64_t sum = 0;
    int i;
    for (i = 0; i < c->classes; i++)
        sum += c->class_count[i];
    for (i = 0; i < c->tensors; i++)
        if (c->tensor[i].observer.channel[0].images != c->images)
            return 0;
    return c->images > 0 && c->tensors > 0 && sum <= c->images;
}

static ptq_status ptq__read_calibration(ptq__json *json, ptq_calibration *c, ptq_error *err) {
    const char *key, *format;
    int64_t version = 1;
    int n = 0;
    while ((key = ptq__json_key(json, "an object", &n)) != NULL)
        if (!strcmp(key, "format")) {
            format = ptq__json_string(json);
            if (format && strcmp(format, "ptq-calibration"))
                ptq__json_wrong(json, "the format ptq-calibration");
        } else if (!strcmp(key, "format_version")) {
            if (ptq__json_integer(json, 0, ptq__most_count, &version) && version != 1)
                ptq__json_wrong(json, "format_version 1 (a newer library wrote this file?)");
        } else if (!strcmp(key, "model")) {
            ptq__json_hash(json, &c->model);
        } else if (!strcmp(key, "class_count")) {
            c->classes = ptq__json_integers(json, 0, ptq__most_count, c->class_count, c->classes);
        } else if (!strcmp(key, "pixel")) {
            if (ptq__json_integers(json, 0, ptq__most_count, c->pixel, 256) != 256)
                ptq__json_wrong(json, "256 pixel counts");
        } else if (!strcmp(key, "neighbours")) {
            ptq__json_count(json, &c->neighbours);
        } else if (!strcmp(key, "neighbour_sum")) {
            ptq__json_count(json, &c->neighbour_sum);
        } else if (!strcmp(key, "images") && !c->images) {
            PTQ__TRY(ptq__json_images(json, c, err));
        } else if (!strcmp(key, "tensors")) {
            PTQ__TRY(ptq__json_tensors(json, c, err));
        } else {
            ptq__json_wrong(json, "a known key");
        }
    PTQ__TRY(ptq__json_end(json, "calibration file", err));
    if (!ptq__calibration_agrees(c))
        return ptq_error_set(err, PTQ_BAD_FILE,
                             "calibration file: it has no images or tensors, or their counts"
                             " disagree");
    return PTQ_OK;
}

/* A small file gets a small share of what the largest could need: a count takes two bytes of it, a
   tensor ("a":{}) at least six. */
static int ptq__at_most(int most, size_t room) {
    return room + 1 < (size_t)most ? (int)room + 1 : most;
}

PTQ_API ptq_status ptq_calibration_parse(const void *bytes, size_t size,
                                         const ptq_allocator *allocator, ptq_calibration **out,
                                         ptq_error *err) {
    enum { MOST_CLASSES = 46340 };
    ptq__json json;
    ptq_calibration *c = NULL;
    ptq_status status;
    PTQ__TRY(ptq__calibration_create(allocator, ptq__at_most(MOST_CLASSES, size / 2), &c, err));
    memset(&json, 0, sizeof json);
    status = ptq__calibration_reserve(c, (size_t)ptq__at_most(2 * PTQ_MAX_NODES, size / 6), err);
    if (!status)
        status = ptq__json_open(&json, bytes, size, allocator, err);
    if (!status)
        status = ptq__read_calibration(&json, c, err);
    ptq__free(allocator, json.start);
    if (status)
        ptq_calibration_free(c);
    else
        *out = c;
    return status;
}

#ifndef PTQ_NO_STDIO

static ptq_status ptq__parse_calibration(const void *bytes, size_t size,
                                         const ptq_allocator *allocator, void *out,
                                         ptq_error *err) {
    return ptq_calibration_parse(bytes, size, allocator, (ptq_calibration **)out, err);
}

PTQ_API ptq_status ptq_calibration_load(const char *path, const ptq_allocator *allocator,
                                        ptq_calibration **out, ptq_error *err) {
    return ptq__load_object(path, allocator, ptq__parse_calibration, out, err);
}

PTQ_API ptq_status ptq_calibration_save(const ptq_calibration *calibration, const char *path,
                                        ptq_error *err) {
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_calibration_write(calibration, &bytes, &size, err));
    return ptq__save_bytes(path, bytes, size, &calibration->allocator, err);
}

#endif /* PTQ_NO_STDIO */

/* =============================================================================================
   PART THREE: SPEED
   Vector kernels. Skip it freely: part one computes the same bytes.
   ============================================================================================= */

/* ---- [CPU] ------------------------------------------------------------------------------- */

/* Vector kernels carry their instruction set as an attribute of the function, so that no compiler
   flag is needed and a compiler that lacks one of them only lacks its kernels. */
#if !defined(PTQ_NO_SIMD) && !defined(__TINYC__) && defined(__x86_64__) &&                         \
    (!defined(__MINGW32__) || defined(__clang__) || defined(PTQ_MINGW_SIMD)) &&                    \
    (defined(__clang__) ? __clang_major__ >= 7 : defined(__GNUC__) && __GNUC__ >= 8)
#define PTQ__X86
#define PTQ__VECTOR
#include <cpuid.h>
#if !defined(__clang__)
/* GCC takes the undefined operands in its own AVX-512 header for mistakes (its bug 105593). */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#define PTQ__AVX2 __attribute__((target("avx2,fma")))
#define PTQ__AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#ifdef PTQ__EMULATE_VNNI /* for tests on processors without it: see ptq__dot_vnni256 */
#define PTQ__AVXVNNI PTQ__AVX2
#define PTQ__AVX512VNNI PTQ__AVX512
#define PTQ__HAS_AVXVNNI 1
#else
#define PTQ__AVXVNNI __attribute__((target("avx2,fma,avxvnni")))
#define PTQ__AVX512VNNI                                                                            \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define PTQ__HAS_AVXVNNI 1
#else
#define PTQ__HAS_AVXVNNI 0
#endif
#endif
#ifdef PTQ__EMULATE_AMX /* for tests, which bring functions in place of its five instructions */
#define PTQ__AMX PTQ__AVX512
#define PTQ__HAS_AMX 1
/* Only Linux lets us ask for AMX; the other names of its ABI have other numbers of system calls. */
#elif defined(__linux__) && defined(__LP64__) &&                                                   \
    (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define PTQ__AMX                                                                                   \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-int8")))
#define PTQ__HAS_AMX 1
#else
#define PTQ__HAS_AMX 0
#endif
#define PTQ__BUILT_ISAS                                                                            \
    (1u << PTQ_ISA_AVX2 | (unsigned)PTQ__HAS_AVXVNNI << PTQ_ISA_AVXVNNI | 1u << PTQ_ISA_AVX512 |   \
     1u << PTQ_ISA_AVX512VNNI | (unsigned)PTQ__HAS_AMX << PTQ_ISA_AMX)
#endif

/* NEON is part of every 64-bit ARM, and a matter of compiler flags on 32-bit ones. */
#if !defined(PTQ_NO_SIMD) && !defined(__TINYC__) && defined(__ARM_NEON) &&                         \
    !defined(__ARM_BIG_ENDIAN) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 8))
#define PTQ__NEON
#define PTQ__VECTOR
#define PTQ__128
#include <arm_neon.h>
/* clang 16 is the first whose arm_neon.h goes by the target of the function. */
#if defined(__ARM_FEATURE_DOTPROD)
#define PTQ__DOTPROD
#define PTQ__HAS_DOTPROD 1
#elif defined(__aarch64__) && defined(__linux__) && defined(__clang__) && __clang_major__ >= 16
#define PTQ__DOTPROD __attribute__((target("dotprod")))
#define PTQ__HAS_DOTPROD 1
#elif defined(__aarch64__) && defined(__linux__) && !defined(__clang__)
#define PTQ__DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define PTQ__HAS_DOTPROD 1
#else
#define PTQ__HAS_DOTPROD 0
#endif
#if PTQ__HAS_DOTPROD && !defined(__ARM_FEATURE_DOTPROD)
#include <sys/auxv.h>
#endif
#ifdef __aarch64__
#define PTQ__BY_LANE
#endif
#endif

#if !defined(PTQ_NO_SIMD) && defined(__wasm_simd128__)
#define PTQ__WASM
#define PTQ__VECTOR
#define PTQ__128
#include <wasm_simd128.h>
#endif

#ifdef PTQ__VECTOR
#define PTQ__INLINE static inline __attribute__((always_inline))
#ifdef PTQ__WASM
enum { PTQ__FUSED = 0 };
#else
enum { PTQ__FUSED = 1 }; /* whether there is a multiply-add that is rounded once */
#endif
#endif

#ifdef PTQ__X86
/* The registers that the operating system saves: bits 1, 2: up to 256 bits wide; 5, 6, 7: 512;
   17, 18: tiles and their configuration. */
static unsigned ptq__saved_registers(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

#if defined(PTQ__EMULATE_AMX)
static int ptq__may_use_amx(unsigned features, unsigned saved) {
    (void)features, (void)saved;
    return 1;
}
#elif PTQ__HAS_AMX
/* Tiles are 8 KB more to be saved for each thread, so Linux wants to be asked, once per process; to
   ask again does nothing. A kernel without AMX says no. arch_prctl(ARCH_REQ_XCOMP_PERM, tiles) is
   called directly, as not every libc has a name for it. */
static int ptq__may_use_amx(unsigned features, unsigned saved) {
    enum { ARCH_PRCTL = 158, ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    long result = ARCH_PRCTL;
    if ((features >> 24 & 3) != 3 || (saved >> 17 & 3) != 3) /* AMX-TILE, AMX-INT8 */
        return 0;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"((long)ARCH_REQ_XCOMP_PERM), "S"((long)TILE_DATA)
                     : "rcx", "r11", "memory");
    return result == 0;
}
#else
static int ptq__may_use_amx(unsigned features, unsigned saved) {
    (void)features, (void)saved;
    return 0;
}
#endif

/* What processor and operating system have in common, as a set of 1 << isa. */
static unsigned ptq__cpu_isas(void) {
    unsigned a, b, c, d, b7, c7, d7, a71, saved, isas = 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (!(c >> 27 & 1) || !(c >> 28 & 1) || !(c >> 12 & 1)) /* xgetbv, AVX, FMA */
        return 0;
    saved = ptq__saved_registers();
    if ((saved & 6) != 6 || !(b7 >> 5 & 1))
        return 0;
    isas = 1u << PTQ_ISA_AVX2;
    if (!__get_cpuid_count(7, 1, &a71, &b, &c, &d))
        a71 = 0;
    if (PTQ__HAS_AVXVNNI && a71 >> 4 & 1)
        isas |= 1u << PTQ_ISA_AVXVNNI;
    if ((saved & 0xe6) == 0xe6 && (b7 & 0xc0030000) == 0xc0030000) { /* F, DQ, BW, VL */
        isas |= 1u << PTQ_ISA_AVX512;
        if (c7 >> 11 & 1)
            isas |= 1u << PTQ_ISA_AVX512VNNI;
    }
#ifdef PTQ__EMULATE_VNNI
    isas |= isas << 1;
#endif
    if (isas >> PTQ_ISA_AVX512 & 1 && ptq__may_use_amx(d7, saved))
        isas |= 1u << PTQ_ISA_AMX;
    return isas;
}
#elif defined(PTQ__NEON)
#if !PTQ__HAS_DOTPROD
static int ptq__has_dotprod(void) { return 0; }
#elif defined(__ARM_FEATURE_DOTPROD)
static int ptq__has_dotprod(void) { return 1; /* the compiler was told so */ }
#else
static int ptq__has_dotprod(void) {
    return getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP, which older headers lack */
}
#endif

static unsigned ptq__cpu_isas(void) {
    return 1u << PTQ_ISA_NEON | (ptq__has_dotprod() ? 1u << PTQ_ISA_NEONDOT : 0u);
}
#elif defined(PTQ__WASM)
static unsigned ptq__cpu_isas(void) {
    return 1u << PTQ_ISA_WASM; /* a runtime without it would not have loaded the module */
}
#else
static unsigned ptq__cpu_isas(void) { return 0; }
#endif

#ifndef PTQ__BUILT_ISAS /* the vector kernels that were compiled, as a set of 1 << isa */
#define PTQ__BUILT_ISAS 0u
#endif

PTQ_API const char *ptq_isa_name(ptq_isa isa) {
    static const char *const name[] = {
#define PTQ_X(id, text) text,
        PTQ_ISA_LIST(PTQ_X)
#undef PTQ_X
    };
    return (unsigned)isa < PTQ_ISA_COUNT ? name[isa] : "?";
}

PTQ_API ptq_isa ptq_isa_find(const char *name) {
    int isa = 0;
    while (isa < PTQ_ISA_COUNT && strcmp(name, ptq_isa_name((ptq_isa)isa)))
        isa++;
    return (ptq_isa)isa;
}

PTQ_API int ptq_isa_available(ptq_isa isa) {
    return isa == PTQ_ISA_AUTO || isa == PTQ_ISA_SCALAR ||
           ((unsigned)isa < PTQ_ISA_COUNT && (ptq__cpu_isas() >> isa & 1));
}

PTQ_API int ptq_isa_compiled(ptq_isa isa) {
    return isa == PTQ_ISA_AUTO || isa == PTQ_ISA_SCALAR ||
           ((unsigned)isa < PTQ_ISA_COUNT && (PTQ__BUILT_ISAS >> isa & 1));
}

static ptq_isa ptq__best_isa(void) {
    int isa = PTQ_ISA_COUNT - 1;
    while (!ptq_isa_available((ptq_isa)isa))
        isa--;
    return (ptq_isa)isa;
}

/* ---- [VECTOR] ---------------------------------------------------------------------------- */

/* Convolution and dense layers with vector instructions. There is one design for all of them:

   - The plan packs the weights once, in the order in which they are read.
   - A row of the input is *staged* before its first use: copied into a small buffer, in the form
     that the multiplication wants, with room for the padding. A row above or below the image is
     one blank row. So no tap is ever tested for being outside.
   - A staged pixel is cut into slabs of 32 bytes, and the pixels of one slab lie side by side (at
     stride 2 the even ones, then the odd ones): neighbouring outputs then read their inputs at a
     distance which the compiler knows, and the addresses in the inner loop are constants.
   - The inner loop takes a word of 32 bits (one float, two 16-bit or four 8-bit codes) of several
     pixels and multiplies each with the weights of one or two vectors of output channels. All sums
     stay in registers.
   - Requantization, activation and residual are applied vector by vector before the only store to
     the arena, where tensors have the layout of the scalar kernels: by the tile itself, or by a
     loop over a row of tiles where that leaves the tile more registers.
   - Where multiplications are dear, most 3 x 3 kernels take fewer of them: ptq__winograd_rows.

   Everything is written once, as macros over a handful of small operations on a vector of real
   numbers (F) or of integers (I), one number in 32 bits; n says how many lanes count, and nothing
   beyond them is read or written:

     F_all(value)  F_load(at)  F_spread(at)      the same in all lanes; a vector; one word in all
     F_get(x, i, n)  F_put(y, i, n, v)           elements i to i + n of a tensor
     F_add  F_sub  F_mul  F_div  F_clamp         lane by lane
     F_fma(sum, x, w)                            sum + x w, rounded once
     I_all  I_load  I_spread                     as for F
     I_add  I_sub  I_mul  I_quarter              likewise; a quarter, of multiples of 4
     I_get(x, i, n, is_signed)  I_put            elements of one byte; stored is the lowest one
     I_real(v)  I_round(f)                       to F, and back: half to even

   An instruction set is these operations, one multiplication for each form of staged codes, and a
   choice of tile sizes. */
#ifdef PTQ__VECTOR

enum { PTQ__SLAB = 32, PTQ__WORD = 4, PTQ__SLAB_WORDS = PTQ__SLAB / PTQ__WORD };

/* What becomes of the sums. */
typedef struct ptq__finish {
    float least, most;         /* clamp of the convolution's own result ... */
    float add_least, add_most; /* ... and of the sum with the residual */
    int32_t zero_point;        /* codes: added after rounding */
    int real;                  /* integers become real numbers: the logits */
    int residual_first;        /* the residual is operand a of ptq__adder, else b */
    int residual_signed;
    float ratio_a, ratio_b, offset;
    float sure;           /* how far from its code a plain sum has surely the same code */
    const void *residual; /* NULL: none */
    void *y, *mid;        /* mid: before the addition; NULL: not kept */
    int channels;         /* of the result: the distance of its pixels */
} ptq__finish;

/* A piece of the kernel: the words of one tap that lie in one slab. */
typedef struct ptq__piece {
    const char *from; /* for the first pixel of the row at hand */
    int offset;       /* in bytes, in the staged row */
    int words;
} ptq__piece;

typedef struct ptq__packed ptq__packed;
typedef struct ptq__panel ptq__panel;

/* Sums that are not finished yet: of a row of tiles, or of one while the next is at work. */
typedef struct ptq__later {
    char *sums; /* pixel by pixel, vector by vector */
    int pixels, channels, vectors;
    ptrdiff_t out;
    const float *multiplier;
} ptq__later;

/* Some pixels of one row by some channels: the inner loop. */
typedef struct ptq__tile {
    const ptq__packed *conv;
    const ptq__piece *piece;
    int pieces;
    ptrdiff_t at; /* bytes from the start of the row to the first pixel */
    const char *weight, *bias;
    const float *multiplier;
    int pixels, channels; /* to be stored: the tile may be larger */
    ptrdiff_t out;        /* index of the first result */
    const ptq__finish *finish;
    char *sums; /* where they go, if the tile does not finish them */
    int planes; /* see ptq__winograd_rows; bytes of one, of input and of sums */
    ptrdiff_t plane, sums_plane;
    ptq__later *later;
} ptq__tile;

/* What is copied into a staged row: `count` pixels of one slab and one phase. */
typedef struct ptq__strip {
    ptrdiff_t from, to; /* bytes in the row of the tensor, in the staged row */
    int count;
} ptq__strip;

/* The transforms of ptq__winograd_rows. */
typedef struct ptq__winograd {
    /* A row of tiles from four staged rows: 16 planes, one for each place in a tile. */
    void (*scatter)(const ptq__packed *k, const ptq__piece *row, char *planes);
    /* Two rows of sums from 16 planes of them, which lie behind. */
    void (*gather)(const ptq__packed *k, const ptq__panel *panel, const char *planes, char *sums);
} ptq__winograd;

/* One way to compute. */
typedef struct ptq__engine {
    void (*stage)(const ptq__packed *k, const char *from, const char *end, char *to, int count);
    int size;                               /* bytes of an element in the arena */
    int codes;                              /* elements in a word */
    int lanes;                              /* sums in a vector */
    int pixels[2][2];                       /* of tiles with one and two vectors of channels: */
    void (*tile[2][2])(const ptq__tile *t); /* a small one, a large one */
    int planar;    /* weights: the first code of the word for all lanes of a vector, the next ... */
    int is_signed; /* bytes are staged as signed codes, else as unsigned ones */
    int matrix;    /* rows are staged whole: see ptq__describe_matrix */
    void (*begin)(const ptq__packed *k); /* before the first tile of a layer; NULL: nothing */
    void (*end)(const ptq__tile *t);     /* after the last */
    void (*finish)(const ptq__tile *t);  /* after each row of tiles; NULL: they do it */
    const ptq__winograd *winograd;       /* NULL: none */
} ptq__engine;

/* Up to two vectors of channels. */
struct ptq__panel {
    const char *weight;
    int first, channels; /* of the result */
    int lane;            /* where its padded channels begin */
    int group;
    int two; /* vectors, less one */
};

/* A convolution made ready: in the memory of ptq__step.packed, together with all it points to. */
struct ptq__packed {
    const ptq__engine *engine;
    int in[3], out[3], kernel[2], stride[2], pad[2], groups;
    int pixels[2][2];      /* as in the engine */
    int slabs;             /* of one group of input channels */
    int apart;             /* distance of the columns that become neighbours in a staged row */
    int phases, positions; /* columns of a staged row: x % apart, x / apart */
    ptrdiff_t pitch;       /* bytes of a staged pixel */
    ptrdiff_t advance;     /* bytes from the input of an output pixel to that of the next */
    ptrdiff_t slab_bytes, row_bytes;
    int run;       /* taps whose weights lie one after the other, without a gap: */
    int run_words; /* words of these, the gap behind them included */
    int blank;     /* byte that stands for 0 in a staged row */
    int strips, pieces, panels;
    int piece_words; /* matrices: of each piece */
    int taps;        /* of the packed weights */
    int rows;        /* staged ones that are kept, besides the blank one */
    int tiles;       /* ptq__winograd_rows: in a row; 0: not used */
    int room;        /* for these, in whole tiles of the kernels */
    ptq__strip *strip;
    ptq__piece *piece;
    ptq__panel *panel;
    char *bias;
    float *multiplier; /* integers only */
    ptq__finish finish;
    ptrdiff_t step; /* bytes from a pixel to the next of the same phase */
    int flip, zero; /* codes: what is flipped in a staged one; the zero point after that */
};

enum { PTQ__PLACES = 16 }; /* see ptq__winograd_rows */

/* Bytes of a plane of inputs. */
static ptrdiff_t ptq__input_plane(const ptq__packed *k) {
    return (ptrdiff_t)k->slabs * k->room * PTQ__SLAB;
}

/* Bytes of a plane of sums. */
static ptrdiff_t ptq__sums_plane(const ptq__packed *k, int vectors) {
    return (ptrdiff_t)k->room * vectors * k->engine->lanes * PTQ__WORD;
}

#if defined(__clang__)
#define PTQ__UNROLL _Pragma("clang loop unroll(full)")
#else
#define PTQ__UNROLL _Pragma("GCC unroll 16")
#endif

/* One word of PIXELS pixels times the weights of VECTORS vectors of channels. */
#define PTQ__STEP(PIXELS, VECTORS, OP, DOT, WEIGHT, FROM)                                          \
    do {                                                                                           \
        PTQ__UNROLL for (v = 0; v < VECTORS; v++) w[v] = OP##_load((WEIGHT) + v * (int)sizeof x);  \
        PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                                 \
            x = OP##_spread((FROM) + p * PTQ__SLAB);                                               \
            PTQ__UNROLL for (v = 0; v < VECTORS; v++) sum[p][v] = DOT(sum[p][v], x, w[v]);         \
        }                                                                                          \
    } while (0)

/* The next word of a slab. */
#define PTQ__NEXT(PIXELS, VECTORS, OP, DOT)                                                        \
    do {                                                                                           \
        PTQ__STEP(PIXELS, VECTORS, OP, DOT, weight, from);                                         \
        weight += VECTORS * sizeof x;                                                              \
        from += PTQ__WORD;                                                                         \
    } while (0)

#if defined(PTQ__BY_LANE)
/* Where a multiplication can name a lane of its operand, four words of a pixel are loaded at once:
   to spread a word costs more than to load it. */
#define PTQ__LANE(PIXELS, VECTORS, OP, DOT, LANE)                                                  \
    do {                                                                                           \
        PTQ__UNROLL for (v = 0; v < VECTORS; v++) w[v] = OP##_load(weight + v * (int)sizeof x);    \
        PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                                 \
            PTQ__UNROLL for (v = 0; v < VECTORS; v++) sum[p][v] =                                  \
                DOT##_lane(sum[p][v], four[p], w[v], LANE);                                        \
        }                                                                                          \
        weight += VECTORS * sizeof x;                                                              \
    } while (0)
#define PTQ__WORDS(PIXELS, VECTORS, OP, DOT)                                                       \
    do {                                                                                           \
        for (; word >= 4; word -= 4, from += 4 * PTQ__WORD) {                                      \
            __typeof__(x) four[PIXELS];                                                            \
            PTQ__UNROLL for (p = 0; p < PIXELS; p++) four[p] = OP##_load(from + p * PTQ__SLAB);    \
            PTQ__LANE(PIXELS, VECTORS, OP, DOT, 0);                                                \
            PTQ__LANE(PIXELS, VECTORS, OP, DOT, 1);                                                \
            PTQ__LANE(PIXELS, VECTORS, OP, DOT, 2);                                                \
            PTQ__LANE(PIXELS, VECTORS, OP, DOT, 3);                                                \
        }                                                                                          \
        for (; word > 0; word--)                                                                   \
            PTQ__NEXT(PIXELS, VECTORS, OP, DOT);                                                   \
    } while (0)
#elif defined(PTQ__WASM)
/* Written out, and left after the last word. The compilers of the runtimes see no further than from
   jump to jump: without these they would first load all words, for which there are no registers.
   They fold constants into the addresses of weights, but not of words to be spread: so `from` moves
   on, which the empty statement hides from the compiler, and the distances of pixels stay the same
   for all words, and in registers. */
#define PTQ__WORDS(PIXELS, VECTORS, OP, DOT)                                                       \
    do {                                                                                           \
        int nth;                                                                                   \
        PTQ__UNROLL for (nth = 0; nth < PTQ__SLAB_WORDS; nth++) {                                  \
            PTQ__STEP(PIXELS, VECTORS, OP, DOT, weight + nth * VECTORS * (int)sizeof x, from);     \
            if (nth + 1 == word)                                                                   \
                break;                                                                             \
            from += PTQ__WORD;                                                                     \
            __asm__("" : "+r"(from));                                                              \
        }                                                                                          \
        weight += word * VECTORS * (int)sizeof x;                                                  \
    } while (0)
#else
/* A whole slab is written out, so that it has no loop to be mispredicted. */
#define PTQ__WORDS(PIXELS, VECTORS, OP, DOT)                                                       \
    do {                                                                                           \
        if (word == PTQ__SLAB_WORDS) {                                                             \
            PTQ__UNROLL for (word = 0; word < PTQ__SLAB_WORDS; word++)                             \
                PTQ__NEXT(PIXELS, VECTORS, OP, DOT);                                               \
            break;                                                                                 \
        }                                                                                          \
        for (; word > 0; word--)                                                                   \
            PTQ__NEXT(PIXELS, VECTORS, OP, DOT);                                                   \
    } while (0)
#endif

/* The sums of a tile, in PIXELS x VECTORS registers: they begin with the bias, and each vector of
   weights is read once. */
#define PTQ__SUMS(PIXELS, VECTORS, OP, DOT, AT)                                                    \
    do {                                                                                           \
        const char *from;                                                                          \
        int i, word;                                                                               \
        PTQ__UNROLL for (v = 0; v < VECTORS; v++) {                                                \
            w[v] = OP##_load(t->bias + v * (int)sizeof x);                                         \
            PTQ__UNROLL for (p = 0; p < PIXELS; p++) sum[p][v] = w[v];                             \
        }                                                                                          \
        for (i = 0; i < t->pieces; i++) {                                                          \
            from = t->piece[i].from + (AT);                                                        \
            word = t->piece[i].words;                                                              \
            PTQ__WORDS(PIXELS, VECTORS, OP, DOT);                                                  \
        }                                                                                          \
    } while (0)

/* A tile that finishes its sums. That is a loop, not written out, since it is long: hence the copy
   of the sums. */
#define PTQ__TILE(NAME, TARGET, VEC, PIXELS, VECTORS, OP, DOT)                                     \
    TARGET static void NAME(const ptq__tile *t) {                                                  \
        VEC sum[PIXELS][VECTORS], done[PIXELS][VECTORS], w[VECTORS], x;                            \
        const ptq__finish f = *t->finish; /* no store below can change it */                       \
        const char *weight = t->weight;                                                            \
        const float *multiplier = t->multiplier;                                                   \
        int p, v, pixels = t->pixels, channels = t->channels, lanes = sizeof x / 4;                \
        ptrdiff_t out = t->out;                                                                    \
        PTQ__SUMS(PIXELS, VECTORS, OP, DOT, t->at);                                                \
        PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                                 \
            PTQ__UNROLL for (v = 0; v < VECTORS; v++) done[p][v] = sum[p][v];                      \
        }                                                                                          \
        for (p = 0; p < pixels; p++, out += f.channels) {                                          \
            PTQ__UNROLL for (v = 0; v < VECTORS; v++) OP##_finish(                                 \
                &f, multiplier + v * lanes, out + v * lanes, channels - v * lanes, done[p][v]);    \
        }                                                                                          \
    }

/* Tiles side by side, which leave their sums to be finished row by row; and planes of such, whose
   weights lie one after the other. */
#define PTQ__TILES(NAME, TARGET, VEC, PIXELS, VECTORS, OP, DOT)                                    \
    TARGET static void NAME(const ptq__tile *t) {                                                  \
        VEC sum[PIXELS][VECTORS], w[VECTORS], x;                                                   \
        const char *weight = t->weight, *first;                                                    \
        char *to;                                                                                  \
        ptrdiff_t at;                                                                              \
        int p, v, left, plane;                                                                     \
        for (plane = 0; plane < t->planes; plane++) {                                              \
            at = t->at + plane * t->plane;                                                         \
            to = t->sums + plane * t->sums_plane;                                                  \
            first = weight;                                                                        \
            for (left = t->pixels; left > 0; left -= PIXELS, at += PIXELS * PTQ__SLAB) {           \
                weight = first;                                                                    \
                PTQ__SUMS(PIXELS, VECTORS, OP, DOT, at);                                           \
                PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                         \
                    PTQ__UNROLL for (v = 0; v < VECTORS; v++)                                      \
                        memcpy(to + (p * VECTORS + v) * (int)sizeof x, &sum[p][v], sizeof x);      \
                }                                                                                  \
                to += PIXELS * VECTORS * (int)sizeof x;                                            \
            }                                                                                      \
        }                                                                                          \
    }

static float ptq__act_least(ptq_activation act) { return act ? 0 : (float)-HUGE_VAL; }

static float ptq__act_most(ptq_activation act) {
    return act == PTQ_ACTIVATION_RELU6 ? 6 : (float)HUGE_VAL;
}

static void ptq__describe_adder(ptq__finish *f, const ptq__adder *adder) {
    f->ratio_a = adder->ratio_a;
    f->ratio_b = adder->ratio_b;
    f->offset = adder->offset;
    /* A plain sum is rounded four times, ptq__add_codes twice: each by 2^-24 of what follows at
       most, of which eight are on the safe side. */
    f->sure = 0.5f - ldexpf(256 * (fabsf(f->ratio_a) + fabsf(f->ratio_b)) + fabsf(f->offset), -21);
    f->add_least = (float)adder->clamp.low;
    f->add_most = (float)adder->clamp.high;
}

/* What becomes of real sums. */
#define PTQ__FINISH_REAL(NAME, TARGET, REAL, F)                                                    \
    TARGET PTQ__INLINE void NAME(const ptq__finish *f, const float *multiplier, ptrdiff_t at,      \
                                 int n, REAL sum) {                                                \
        (void)multiplier;                                                                          \
        sum = F##_clamp(sum, f->least, f->most);                                                   \
        if (f->mid)                                                                                \
            F##_put(f->mid, at, n, sum);                                                           \
        if (f->residual) {                                                                         \
            sum = F##_add(sum, F##_get(f->residual, at, n));                                       \
            sum = F##_clamp(sum, f->add_least, f->add_most);                                       \
        }                                                                                          \
        F##_put(f->y, at, n, sum);                                                                 \
    }

/* ptq__add_codes, of which the residual is operand a or b. */
#define PTQ__SUM_CODES(NAME, TARGET, REAL, WHOLE, F, I)                                            \
    TARGET PTQ__INLINE WHOLE NAME##_of(const ptq__finish *f, REAL a, REAL b) {                     \
        REAL sum = F##_fma(F##_all(f->offset), b, F##_all(f->ratio_b));                            \
        sum = F##_fma(sum, a, F##_all(f->ratio_a));                                                \
        return I##_round(F##_clamp(sum, f->add_least, f->add_most));                               \
    }                                                                                              \
                                                                                                   \
    TARGET PTQ__INLINE WHOLE NAME(const ptq__finish *f, REAL own, REAL residual) {                 \
        return f->residual_first ? NAME##_of(f, residual, own) : NAME##_of(f, own, residual);      \
    }

/* What becomes of integer sums: ptq__to_code, then the addition. */
#define PTQ__FINISH_CODES(NAME, TARGET, REAL, WHOLE, F, I)                                         \
    TARGET PTQ__INLINE void NAME(const ptq__finish *f, const float *multiplier, ptrdiff_t at,      \
                                 int n, WHOLE sum) {                                               \
        REAL real = F##_mul(I##_real(sum), F##_load((const char *)(const void *)multiplier));      \
        WHOLE code;                                                                                \
        real = F##_clamp(real, f->least, f->most);                                                 \
        if (f->real) {                                                                             \
            F##_put(f->y, at, n, real);                                                            \
            return;                                                                                \
        }                                                                                          \
        code = I##_add(I##_round(real), I##_all(f->zero_point));                                   \
        if (f->mid)                                                                                \
            I##_put(f->mid, at, n, code);                                                          \
        if (f->residual) {                                                                         \
            WHOLE residual = I##_get(f->residual, at, n, f->residual_signed);                      \
            code = I##_sum(f, I##_real(code), I##_real(residual));                                 \
        }                                                                                          \
        I##_put(f->y, at, n, code);                                                                \
    }

/* What tiles have left. The loop of the usual cases is written once more, without its questions: it
   knows whether there is a residual, and that all lanes are stored. */
#define PTQ__FINISH_LATER(NAME, TARGET, OP)                                                        \
    TARGET PTQ__INLINE void NAME##_all(const ptq__later *l, const ptq__finish *f, int lanes,       \
                                       int whole) {                                                \
        ptrdiff_t size = lanes * PTQ__WORD;                                                        \
        int p, v;                                                                                  \
        for (v = 0; v < l->vectors; v++) {                                                         \
            const float *multiplier = l->multiplier + v * lanes;                                   \
            const char *sums = l->sums + v * size;                                                 \
            ptrdiff_t out = l->out + v * lanes;                                                    \
            for (p = 0; p < l->pixels; p++, out += f->channels, sums += l->vectors * size)         \
                OP##_finish(f, multiplier, out, whole ? lanes : l->channels - v * lanes,           \
                            OP##_load(sums));                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void NAME(const ptq__tile *t) {                                                  \
        const ptq__later l = *t->later; /* no store below can change them */                       \
        ptq__finish f = *t->finish;                                                                \
        enum { LANES = sizeof(OP##_load(NULL)) / PTQ__WORD };                                      \
        if (f.real || f.mid || l.channels < l.vectors * LANES) {                                   \
            NAME##_all(&l, &f, LANES, 0);                                                          \
            return;                                                                                \
        }                                                                                          \
        f.real = 0;                                                                                \
        f.mid = NULL;                                                                              \
        if (f.residual) {                                                                          \
            NAME##_all(&l, &f, LANES, 1);                                                          \
            return;                                                                                \
        }                                                                                          \
        f.residual = NULL;                                                                         \
        NAME##_all(&l, &f, LANES, 1);                                                              \
    }

/* The transforms of ptq__winograd_rows. H: twice as many numbers as I, of 16 bits each. */
#define PTQ__WINOGRAD(NAME, TARGET, HALF, H, WHOLE, I)                                             \
    /* A vector of channels in one column of B X: the sum or the difference of two rows of X. */   \
    TARGET PTQ__INLINE HALF NAME##_column(const char *a, const char *b, int sum) {                 \
        HALF x, y;                                                                                 \
        memcpy(&x, a, sizeof x);                                                                   \
        memcpy(&y, b, sizeof y);                                                                   \
        return sum ? H##_add(x, y) : H##_sub(x, y);                                                \
    }                                                                                              \
                                                                                                   \
    /* A tile's part of a row of B X B': a place in four planes. */                                \
    TARGET PTQ__INLINE void NAME##_places(const HALF *x, char *to, ptrdiff_t plane) {              \
        HALF place[4];                                                                             \
        int i;                                                                                     \
        place[0] = H##_sub(x[0], x[2]);                                                            \
        place[1] = H##_add(x[1], x[2]);                                                            \
        place[2] = H##_sub(x[2], x[1]);                                                            \
        place[3] = H##_sub(x[1], x[3]);                                                            \
        PTQ__UNROLL for (i = 0; i < 4; i++) memcpy(to + i * plane, &place[i], sizeof *place);      \
    }                                                                                              \
                                                                                                   \
    /* That row for all tiles. Two columns of B X are shared with the next tile. */                \
    TARGET PTQ__INLINE void NAME##_row(const ptq__packed *k, const char *a, const char *b,         \
                                       int sum, char *to) {                                        \
        enum { SIZE = sizeof(HALF), PARTS = PTQ__SLAB / SIZE };                                    \
        ptrdiff_t plane = ptq__input_plane(k), at;                                                 \
        HALF x[4];                                                                                 \
        int i, tile;                                                                               \
        for (i = 0; i < PARTS * k->slabs; i++) {                                                   \
            char *place = to + i / PARTS * k->room * PTQ__SLAB + i % PARTS * SIZE;                 \
            at = i / PARTS * k->slab_bytes + i % PARTS * SIZE;                                     \
            x[0] = NAME##_column(a + at, b + at, sum);                                             \
            x[1] = NAME##_column(a + at + PTQ__SLAB, b + at + PTQ__SLAB, sum);                     \
            for (tile = 0; tile < k->tiles; tile++, place += PTQ__SLAB) {                          \
                at += 2 * PTQ__SLAB;                                                               \
                x[2] = NAME##_column(a + at, b + at, sum);                                         \
                x[3] = NAME##_column(a + at + PTQ__SLAB, b + at + PTQ__SLAB, sum);                 \
                NAME##_places(x, place, plane);                                                    \
                x[0] = x[2];                                                                       \
                x[1] = x[3];                                                                       \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void NAME##_scatter(const ptq__packed *k, const ptq__piece *row, char *planes) { \
        ptrdiff_t four = 4 * ptq__input_plane(k);                                                  \
        NAME##_row(k, row[0].from, row[2].from, 0, planes);                                        \
        NAME##_row(k, row[1].from, row[2].from, 1, planes + four);                                 \
        NAME##_row(k, row[2].from, row[1].from, 0, planes + 2 * four);                             \
        NAME##_row(k, row[1].from, row[3].from, 0, planes + 3 * four);                             \
    }                                                                                              \
                                                                                                   \
    /* Two outputs from one row of A M, where M are the sums. */                                   \
    TARGET PTQ__INLINE void NAME##_pair(const WHOLE *m, WHOLE bias, char *left, char *right) {     \
        WHOLE one = I##_add(I##_add(m[0], m[1]), m[2]);                                            \
        WHOLE two = I##_sub(I##_sub(m[1], m[2]), m[3]);                                            \
        one = I##_add(I##_quarter(one), bias);                                                     \
        two = I##_add(I##_quarter(two), bias);                                                     \
        memcpy(left, &one, sizeof one);                                                            \
        memcpy(right, &two, sizeof two);                                                           \
    }                                                                                              \
                                                                                                   \
    TARGET static void NAME##_gather(const ptq__packed *k, const ptq__panel *panel,                \
                                     const char *planes, char *sums) {                             \
        enum { SIZE = sizeof(WHOLE) };                                                             \
        int v, tile, j, vectors = panel->two + 1;                                                  \
        ptrdiff_t plane = ptq__sums_plane(k, vectors), pixel = vectors * SIZE;                     \
        ptrdiff_t row = 2 * k->tiles * pixel;                                                      \
        for (v = 0; v < vectors; v++) {                                                            \
            const char *from = planes + v * SIZE;                                                  \
            char *to = sums + v * SIZE;                                                            \
            WHOLE bias = I##_load(k->bias + panel->lane * PTQ__WORD + v * SIZE);                   \
            for (tile = 0; tile < k->tiles; tile++, from += pixel, to += 2 * pixel) {              \
                WHOLE top[4], bottom[4];                                                           \
                PTQ__UNROLL for (j = 0; j < 4; j++) {                                              \
                    WHOLE first = I##_load(from + j * plane);                                      \
                    WHOLE second = I##_load(from + (4 + j) * plane);                               \
                    WHOLE third = I##_load(from + (8 + j) * plane);                                \
                    WHOLE fourth = I##_load(from + (12 + j) * plane);                              \
                    top[j] = I##_add(I##_add(first, second), third);                               \
                    bottom[j] = I##_sub(I##_sub(second, third), fourth);                           \
                }                                                                                  \
                NAME##_pair(top, bias, to, to + pixel);                                            \
                NAME##_pair(bottom, bias, to + row, to + row + pixel);                             \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static const ptq__winograd NAME = {NAME##_scatter, NAME##_gather};

/* Staging: `count` pixels of one slab. What lies behind the channels of a pixel does not matter, as
   its weights are 0, so all copy a whole slab; but nothing from `end` on, the end of the tensor,
   may be read. */

static const char *ptq__guard(const char *from, const char *end, int size, char *copy) {
    if (end - from >= size)
        return from;
    memset(copy, 0, (size_t)size);
    memcpy(copy, from, (size_t)(end - from));
    return copy;
}

/* MOVE(to, from, flip, zero) writes a slab from BYTES bytes of the tensor. */
#define PTQ__STAGE(NAME, TARGET, BYTES, MOVE)                                                      \
    TARGET static void NAME(const ptq__packed *k, const char *from, const char *end, char *to,     \
                            int count) {                                                           \
        ptrdiff_t step = k->step;                                                                  \
        int flip = k->flip, zero = k->zero;                                                        \
        char copy[PTQ__SLAB];                                                                      \
        for (; count > 0; count--, from += step, to += PTQ__SLAB)                                  \
            MOVE(to, ptq__guard(from, end, BYTES, copy), flip, zero);                              \
    }

/* Global average pool: a vector of channels at a time. */
#define PTQ__AVERAGE_REAL(NAME, TARGET, REAL, F)                                                   \
    TARGET static void NAME(const ptq__step *step, const ptq__frame *frame) {                      \
        const float *x = (const float *)frame->in[0];                                              \
        int pixels = step->in[0] * step->in[1], channels = step->in[2], i, c;                      \
        for (c = 0; c < channels; c += (int)(sizeof(REAL) / sizeof(float))) {                      \
            REAL sum = F##_all(0);                                                                 \
            for (i = 0; i < pixels; i++)                                                           \
                sum = F##_add(sum, F##_get(x, (ptrdiff_t)i * channels + c, channels - c));         \
            F##_put(frame->out, c, channels - c, F##_div(sum, F##_all((float)pixels)));            \
        }                                                                                          \
    }

#define PTQ__AVERAGE_CODES(NAME, TARGET, WHOLE, I)                                                 \
    TARGET static void NAME(const ptq__step *step, const ptq__frame *frame) {                      \
        const ptq_qparams *in = &step->from[0]->q;                                                 \
        const void *x = frame->in[0];                                                              \
        int32_t sums[sizeof(WHOLE) / sizeof(int32_t)];                                             \
        int pixels = step->in[0] * step->in[1], channels = step->in[2], i, c;                      \
        int lanes = (int)(sizeof sums / sizeof *sums), is_signed = in->type == PTQ_TYPE_S8;        \
        for (c = 0; c < channels; c += lanes) {                                                    \
            WHOLE sum = I##_all(-pixels * in->zero_point);                                         \
            for (i = 0; i < pixels; i++)                                                           \
                sum = I##_add(sum,                                                                 \
                              I##_get(x, (ptrdiff_t)i * channels + c, channels - c, is_signed));   \
            memcpy(sums, &sum, sizeof sums);                                                       \
            for (i = 0; i < lanes && c + i < channels; i++)                                        \
                ptq__store(frame->out, c + i,                                                      \
                           ptq__average_code(in, &step->node->q, sums[i], pixels));                \
        }                                                                                          \
    }

/* Unfused addition. The result may lie over an operand: each element is read before. */
#define PTQ__ADD_REAL(NAME, TARGET, REAL, F)                                                       \
    TARGET static void NAME(const ptq__step *step, const ptq__frame *frame) {                      \
        const void *a = frame->in[0], *b = frame->in[1];                                           \
        float least = ptq__act_least(step->node->act), most = ptq__act_most(step->node->act);      \
        int i, n = (int)ptq__shape_elements(3, step->node->shape);                                 \
        for (i = 0; i < n; i += (int)(sizeof(REAL) / sizeof(float))) {                             \
            REAL sum = F##_add(F##_get(a, i, n - i), F##_get(b, i, n - i));                        \
            F##_put(frame->out, i, n - i, F##_clamp(sum, least, most));                            \
        }                                                                                          \
    }

#define PTQ__ADD_CODES(NAME, TARGET, WHOLE, I)                                                     \
    TARGET static void NAME(const ptq__step *step, const ptq__frame *frame) {                      \
        const void *a = frame->in[0], *b = frame->in[1];                                           \
        int signed_a = step->from[0]->q.type == PTQ_TYPE_S8;                                       \
        int signed_b = step->from[1]->q.type == PTQ_TYPE_S8;                                       \
        int i, n = (int)ptq__shape_elements(3, step->node->shape);                                 \
        ptq__finish f;                                                                             \
        memset(&f, 0, sizeof f);                                                                   \
        ptq__describe_adder(&f, &step->adder);                                                     \
        for (i = 0; i < n; i += (int)(sizeof(WHOLE) / sizeof(int32_t)))                            \
            I##_put(frame->out, i, n - i,                                                          \
                    I##_sum(&f, I##_real(I##_get(a, i, n - i, signed_a)),                          \
                            I##_real(I##_get(b, i, n - i, signed_b))));                            \
    }

/* Depthwise convolution: each channel for itself, so the lanes are channels. A tap outside the
   image adds nothing. OP_term adds a tap; MAC is sum + x w. */
#define PTQ__DEPTHWISE_REAL(NAME, TARGET, REAL, F, MAC)                                            \
    TARGET PTQ__INLINE REAL F##_term(const ptq__packed *k, REAL sum, const void *x, ptrdiff_t at,  \
                                     int n, const char *weight) {                                  \
        (void)k;                                                                                   \
        return MAC(sum, F##_get(x, at, n), F##_load(weight));                                      \
    }                                                                                              \
    PTQ__DEPTHWISE(NAME, TARGET, REAL, F)

#define PTQ__DEPTHWISE_CODES(NAME, TARGET, WHOLE, I)                                               \
    TARGET PTQ__INLINE WHOLE I##_term(const ptq__packed *k, WHOLE sum, const void *x,              \
                                      ptrdiff_t at, int n, const char *weight) {                   \
        WHOLE code = I##_add(I##_get(x, at, n, k->flip != 0), I##_all(k->flip - k->zero));         \
        return I##_add(sum, I##_mul(code, I##_load(weight)));                                      \
    }                                                                                              \
    PTQ__DEPTHWISE(NAME, TARGET, WHOLE, I)

#define PTQ__DEPTHWISE(NAME, TARGET, VEC, OP)                                                      \
    TARGET static void NAME(const ptq__step *step, const ptq__frame *frame) {                      \
        const ptq__packed *k = (const ptq__packed *)step->packed;                                  \
        const void *x = frame->in[0];                                                              \
        ptq__finish f = k->finish;                                                                 \
        int channels = k->out[2], i, c, u, v, y, left, width = k->in[1];                           \
        f.residual = frame->in[1];                                                                 \
        f.y = frame->out;                                                                          \
        f.mid = frame->mid;                                                                        \
        for (i = 0; i < k->out[0] * k->out[1]; i++) {                                              \
            y = i / k->out[1] * k->stride[0] - k->pad[0];                                          \
            left = i % k->out[1] * k->stride[1] - k->pad[1];                                       \
            for (c = 0; c < channels; c += (int)(sizeof(VEC) / PTQ__WORD)) {                       \
                const char *weight = k->bias + (2 * ptq__deep_lanes(channels) + c) * PTQ__WORD;    \
                VEC sum = OP##_load(k->bias + c * PTQ__WORD);                                      \
                for (u = 0; u < k->kernel[0]; u++)                                                 \
                    for (v = 0; v < k->kernel[1]; v++) {                                           \
                        if (y + u >= 0 && y + u < k->in[0] && left + v >= 0 && left + v < width)   \
                            sum = OP##_term(                                                       \
                                k, sum, x, ((ptrdiff_t)(y + u) * width + left + v) * channels + c, \
                                channels - c, weight);                                             \
                        weight += ptq__deep_lanes(channels) * PTQ__WORD;                           \
                    }                                                                              \
                OP##_finish(&f, k->multiplier + c, (ptrdiff_t)i * channels + c, channels - c,      \
                            sum);                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

/* Channels of a depthwise convolution, rounded up to the widest vector. */
static int ptq__deep_lanes(int channels) { return (channels + 15) / 16 * 16; }

/* ptq_preprocess. Means and deviations repeat after a vector for every channel. */
#define PTQ__PREPROCESS(NAME, TARGET, REAL, F, I)                                                  \
    TARGET static void NAME(const ptq_model *model, const uint8_t *pixels, float *out, int n) {    \
        enum { LANES = sizeof(REAL) / sizeof(float) };                                             \
        float mean[LANES * PTQ_MAX_PIXEL_CHANNELS], std[LANES * PTQ_MAX_PIXEL_CHANNELS];           \
        int i, at = 0, channels = model->node[0].shape[2];                                         \
        for (i = 0; i < LANES * channels; i++) {                                                   \
            mean[i] = model->mean[i % channels];                                                   \
            std[i] = model->std[i % channels];                                                     \
        }                                                                                          \
        for (i = 0; i < n; i += LANES) {                                                           \
            REAL x = I##_real(I##_get(pixels, i, n - i, 0));                                       \
            x = F##_sub(x, F##_load((const char *)(const void *)(mean + at)));                     \
            x = F##_div(x, F##_load((const char *)(const void *)(std + at)));                      \
            F##_put(out, i, n - i, x);                                                             \
            at = at + LANES == LANES * channels ? 0 : at + LANES;                                  \
        }                                                                                          \
    }

/* The kernels of an instruction set. */
typedef struct ptq__family {
    const ptq__engine *real;
    const ptq__engine *exact;  /* any codes, as 16 bits */
    const ptq__engine *bytes;  /* weights that fit s8; NULL: none */
    const ptq__engine *pairs;  /* those of which ptq__pairs_fit; NULL: none */
    const ptq__engine *places; /* layers that ptq__can_winograd; NULL: none */
    void (*average_real)(const ptq__step *step, const ptq__frame *frame);
    void (*average_codes)(const ptq__step *step, const ptq__frame *frame);
    void (*add_real)(const ptq__step *step, const ptq__frame *frame);
    void (*add_codes)(const ptq__step *step, const ptq__frame *frame);
    void (*depthwise_real)(const ptq__step *step, const ptq__frame *frame);
    void (*depthwise_codes)(const ptq__step *step, const ptq__frame *frame);
    void (*preprocess)(const ptq_model *model, const uint8_t *pixels, float *out, int n);
} ptq__family;

#ifdef PTQ__X86

/* AVX2. */

PTQ__AVX2 PTQ__INLINE void ptq__move_f32(char *to, const char *from, int flip, int zero) {
    (void)flip, (void)zero;
    _mm256_storeu_ps((float *)(void *)to, _mm256_loadu_ps((const float *)(const void *)from));
}

/* Sixteen codes less their zero point, 16 bits each: an input outside the image is 0. */
PTQ__AVX2 PTQ__INLINE void ptq__move_s16(char *to, const char *from, int flip, int zero) {
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)from);
    __m256i x = _mm256_cvtepu8_epi16(_mm_xor_si128(codes, _mm_set1_epi8((char)flip)));
    x = _mm256_sub_epi16(x, _mm256_set1_epi16((short)zero));
    _mm256_storeu_si256((__m256i *)(void *)to, x);
}

/* 32 codes as unsigned bytes; their zero point is in the bias. */
PTQ__AVX2 PTQ__INLINE void ptq__move_u8(char *to, const char *from, int flip, int zero) {
    __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)from);
    (void)zero;
    _mm256_storeu_si256((__m256i *)(void *)to,
                        _mm256_xor_si256(codes, _mm256_set1_epi8((char)flip)));
}

PTQ__STAGE(ptq__stage_f32, PTQ__AVX2, PTQ__SLAB, ptq__move_f32)
PTQ__STAGE(ptq__stage_s16, PTQ__AVX2, PTQ__SLAB / 2, ptq__move_s16)
PTQ__STAGE(ptq__stage_u8, PTQ__AVX2, PTQ__SLAB, ptq__move_u8)

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_all(float value) { return _mm256_set1_ps(value); }

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_load(const char *p) {
    return _mm256_loadu_ps((const float *)(const void *)p);
}

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_spread(const char *p) {
    return _mm256_broadcast_ss((const float *)(const void *)p);
}

/* The first n lanes. */
PTQ__AVX2 PTQ__INLINE __m256i ptq__mask256(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_get(const void *x, ptrdiff_t at, int n) {
    const float *from = (const float *)x + at;
    return n >= 8 ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, ptq__mask256(n));
}

PTQ__AVX2 PTQ__INLINE void ptq__f256_put(void *y, ptrdiff_t at, int n, __m256 value) {
    if (n >= 8)
        _mm256_storeu_ps((float *)y + at, value);
    else
        _mm256_maskstore_ps((float *)y + at, ptq__mask256(n), value);
}

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_sub(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_div(__m256 a, __m256 b) { return _mm256_div_ps(a, b); }

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_clamp(__m256 x, float least, float most) {
    return _mm256_min_ps(_mm256_set1_ps(most), _mm256_max_ps(_mm256_set1_ps(least), x));
}

PTQ__AVX2 PTQ__INLINE __m256 ptq__f256_fma(__m256 sum, __m256 x, __m256 w) {
    return _mm256_fmadd_ps(x, w, sum);
}

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_all(int32_t value) { return _mm256_set1_epi32(value); }

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_load(const char *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_spread(const char *p) {
    return _mm256_set1_epi32(*(const int32_t *)(const void *)p);
}

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_sub(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_quarter(__m256i x) { return _mm256_srai_epi32(x, 2); }

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_mul(__m256i a, __m256i b) {
    return _mm256_mullo_epi32(a, b);
}

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_get(const void *x, ptrdiff_t at, int n, int is_signed) {
    const uint8_t *from = (const uint8_t *)x + at;
    uint8_t copy[8] = {0};
    __m128i codes;
    if (n < 8) {
        memcpy(copy, from, (size_t)n);
        from = copy;
    }
    codes = _mm_loadl_epi64((const __m128i *)(const void *)from);
    return is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes);
}

PTQ__AVX2 PTQ__INLINE void ptq__i256_put(void *y, ptrdiff_t at, int n, __m256i codes) {
    __m256i low = _mm256_and_si256(codes, _mm256_set1_epi32(255));
    __m128i pack = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    pack = _mm_packus_epi16(pack, pack);
    if (n >= 8) {
        _mm_storel_epi64((__m128i *)(void *)((uint8_t *)y + at), pack);
    } else {
        uint8_t copy[16];
        _mm_storeu_si128((__m128i *)(void *)copy, pack);
        memcpy((uint8_t *)y + at, copy, (size_t)n);
    }
}

PTQ__AVX2 PTQ__INLINE __m256 ptq__i256_real(__m256i x) { return _mm256_cvtepi32_ps(x); }

PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_round(__m256 x) { return _mm256_cvtps_epi32(x); }

/* Two products of 16 bits are summed exactly: nothing saturates. The addition is written out since
   GCC otherwise collects the products of several steps before it adds them, for which there are no
   registers. */
PTQ__AVX2 PTQ__INLINE __m256i ptq__i256_dot(__m256i sum, __m256i x, __m256i w) {
    __m256i products = _mm256_madd_epi16(x, w);
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

/* Four products of unsigned codes and signed weights. Pairs of them are summed in 16 bits, which
   would saturate: only for weights of which ptq__pairs_fit. Then it is exact, and takes three
   instructions where ptq__i256_dot takes four. */
PTQ__AVX2 PTQ__INLINE __m256i ptq__pairs256_dot(__m256i sum, __m256i x, __m256i w) {
    __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1));
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

/* AVX-VNNI: four products of unsigned codes and signed weights, summed exactly. */
#ifdef PTQ__EMULATE_VNNI
PTQ__AVXVNNI PTQ__INLINE __m256i ptq__dot_vnni256(__m256i sum, __m256i x, __m256i w) {
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(255)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#elif PTQ__HAS_AVXVNNI
PTQ__AVXVNNI PTQ__INLINE __m256i ptq__dot_vnni256(__m256i sum, __m256i x, __m256i w) {
    return _mm256_dpbusd_avx_epi32(sum, x, w);
}
#endif

PTQ__AVX2 PTQ__INLINE __m256i ptq__s256_add(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }

PTQ__AVX2 PTQ__INLINE __m256i ptq__s256_sub(__m256i a, __m256i b) { return _mm256_sub_epi16(a, b); }

PTQ__FINISH_REAL(ptq__f256_finish, PTQ__AVX2, __m256, ptq__f256)
PTQ__SUM_CODES(ptq__i256_sum, PTQ__AVX2, __m256, __m256i, ptq__f256, ptq__i256)
PTQ__FINISH_CODES(ptq__i256_finish, PTQ__AVX2, __m256, __m256i, ptq__f256, ptq__i256)
PTQ__FINISH_LATER(ptq__i256_later, PTQ__AVX2, ptq__i256)
PTQ__WINOGRAD(ptq__winograd256, PTQ__AVX2, __m256i, ptq__s256, __m256i, ptq__i256)
PTQ__AVERAGE_REAL(ptq__average_f256, PTQ__AVX2, __m256, ptq__f256)
PTQ__AVERAGE_CODES(ptq__average_i256, PTQ__AVX2, __m256i, ptq__i256)
PTQ__ADD_REAL(ptq__add_f256, PTQ__AVX2, __m256, ptq__f256)
PTQ__ADD_CODES(ptq__add_i256, PTQ__AVX2, __m256i, ptq__i256)
PTQ__DEPTHWISE_REAL(ptq__depthwise_f256, PTQ__AVX2, __m256, ptq__f256, ptq__f256_fma)
PTQ__DEPTHWISE_CODES(ptq__depthwise_i256, PTQ__AVX2, __m256i, ptq__i256)
PTQ__PREPROCESS(ptq__preprocess_256, PTQ__AVX2, __m256, ptq__f256, ptq__i256)

/* AVX-512. */

PTQ__AVX512 PTQ__INLINE __mmask16 ptq__mask512(int n) {
    return (__mmask16)(n >= 16 ? 0xffff : (1 << n) - 1);
}

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_all(float value) { return _mm512_set1_ps(value); }

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_load(const char *p) { return _mm512_loadu_ps(p); }

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_spread(const char *p) {
    return _mm512_set1_ps(*(const float *)(const void *)p);
}

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_get(const void *x, ptrdiff_t at, int n) {
    return _mm512_maskz_loadu_ps(ptq__mask512(n), (const float *)x + at);
}

PTQ__AVX512 PTQ__INLINE void ptq__f512_put(void *y, ptrdiff_t at, int n, __m512 value) {
    _mm512_mask_storeu_ps((float *)y + at, ptq__mask512(n), value);
}

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_clamp(__m512 x, float least, float most) {
    return _mm512_min_ps(_mm512_set1_ps(most), _mm512_max_ps(_mm512_set1_ps(least), x));
}

PTQ__AVX512 PTQ__INLINE __m512 ptq__f512_fma(__m512 sum, __m512 x, __m512 w) {
    return _mm512_fmadd_ps(x, w, sum);
}

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_all(int32_t value) { return _mm512_set1_epi32(value); }

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_load(const char *p) { return _mm512_loadu_si512(p); }

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_spread(const char *p) {
    return _mm512_set1_epi32(*(const int32_t *)(const void *)p);
}

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_add(__m512i a, __m512i b) {
    return _mm512_add_epi32(a, b);
}

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_sub(__m512i a, __m512i b) {
    return _mm512_sub_epi32(a, b);
}

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_quarter(__m512i x) { return _mm512_srai_epi32(x, 2); }

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_get(const void *x, ptrdiff_t at, int n, int is_signed) {
    __m128i codes = _mm_maskz_loadu_epi8(ptq__mask512(n), (const uint8_t *)x + at);
    return is_signed ? _mm512_cvtepi8_epi32(codes) : _mm512_cvtepu8_epi32(codes);
}

PTQ__AVX512 PTQ__INLINE void ptq__i512_put(void *y, ptrdiff_t at, int n, __m512i codes) {
    _mm512_mask_cvtepi32_storeu_epi8((uint8_t *)y + at, ptq__mask512(n), codes);
}

PTQ__AVX512 PTQ__INLINE __m512 ptq__i512_real(__m512i x) { return _mm512_cvtepi32_ps(x); }

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_round(__m512 x) { return _mm512_cvtps_epi32(x); }

PTQ__AVX512 PTQ__INLINE __m512i ptq__i512_dot(__m512i sum, __m512i x, __m512i w) {
    __m512i products = _mm512_madd_epi16(x, w);
    __asm__("vpaddd %1, %0, %0" : "+v"(sum) : "v"(products));
    return sum;
}

PTQ__AVX512 PTQ__INLINE __m512i ptq__pairs512_dot(__m512i sum, __m512i x, __m512i w) {
    __m512i products = _mm512_madd_epi16(_mm512_maddubs_epi16(x, w), _mm512_set1_epi16(1));
    __asm__("vpaddd %1, %0, %0" : "+v"(sum) : "v"(products));
    return sum;
}

#ifdef PTQ__EMULATE_VNNI
PTQ__AVX512VNNI PTQ__INLINE __m512i ptq__dot_vnni512(__m512i sum, __m512i x, __m512i w) {
    __m512i even = _mm512_madd_epi16(_mm512_and_si512(x, _mm512_set1_epi16(255)),
                                     _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8));
    __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(x, 8), _mm512_srai_epi16(w, 8));
    return _mm512_add_epi32(sum, _mm512_add_epi32(even, odd));
}
#else
PTQ__AVX512VNNI PTQ__INLINE __m512i ptq__dot_vnni512(__m512i sum, __m512i x, __m512i w) {
    return _mm512_dpbusd_epi32(sum, x, w);
}
#endif

PTQ__FINISH_REAL(ptq__f512_finish, PTQ__AVX512, __m512, ptq__f512)
PTQ__SUM_CODES(ptq__i512_sum, PTQ__AVX512, __m512, __m512i, ptq__f512, ptq__i512)
PTQ__FINISH_CODES(ptq__i512_finish, PTQ__AVX512, __m512, __m512i, ptq__f512, ptq__i512)
PTQ__FINISH_LATER(ptq__i512_later, PTQ__AVX512, ptq__i512)
PTQ__WINOGRAD(ptq__winograd512, PTQ__AVX512, __m256i, ptq__s256, __m512i, ptq__i512)

/* 16 registers: 12 sums and what goes with them. */
PTQ__TILE(ptq__f256_4x1, PTQ__AVX2, __m256, 4, 1, ptq__f256, ptq__f256_fma)
PTQ__TILE(ptq__f256_8x1, PTQ__AVX2, __m256, 8, 1, ptq__f256, ptq__f256_fma)
PTQ__TILE(ptq__f256_4x2, PTQ__AVX2, __m256, 4, 2, ptq__f256, ptq__f256_fma)
PTQ__TILE(ptq__f256_6x2, PTQ__AVX2, __m256, 6, 2, ptq__f256, ptq__f256_fma)
PTQ__TILE(ptq__i256_4x1, PTQ__AVX2, __m256i, 4, 1, ptq__i256, ptq__i256_dot)
PTQ__TILE(ptq__i256_8x1, PTQ__AVX2, __m256i, 8, 1, ptq__i256, ptq__i256_dot)
PTQ__TILE(ptq__i256_4x2, PTQ__AVX2, __m256i, 4, 2, ptq__i256, ptq__i256_dot)
PTQ__TILE(ptq__i256_6x2, PTQ__AVX2, __m256i, 6, 2, ptq__i256, ptq__i256_dot)
PTQ__TILE(ptq__pairs256_4x1, PTQ__AVX2, __m256i, 4, 1, ptq__i256, ptq__pairs256_dot)
PTQ__TILE(ptq__pairs256_8x1, PTQ__AVX2, __m256i, 8, 1, ptq__i256, ptq__pairs256_dot)
PTQ__TILE(ptq__pairs256_4x2, PTQ__AVX2, __m256i, 4, 2, ptq__i256, ptq__pairs256_dot)
PTQ__TILE(ptq__pairs256_6x2, PTQ__AVX2, __m256i, 6, 2, ptq__i256, ptq__pairs256_dot)
PTQ__TILES(ptq__places256_4x1, PTQ__AVX2, __m256i, 4, 1, ptq__i256, ptq__i256_dot)
PTQ__TILES(ptq__places256_8x1, PTQ__AVX2, __m256i, 8, 1, ptq__i256, ptq__i256_dot)
PTQ__TILES(ptq__places256_4x2, PTQ__AVX2, __m256i, 4, 2, ptq__i256, ptq__i256_dot)
#if PTQ__HAS_AVXVNNI
PTQ__TILE(ptq__vnni256_4x1, PTQ__AVXVNNI, __m256i, 4, 1, ptq__i256, ptq__dot_vnni256)
PTQ__TILE(ptq__vnni256_8x1, PTQ__AVXVNNI, __m256i, 8, 1, ptq__i256, ptq__dot_vnni256)
PTQ__TILE(ptq__vnni256_4x2, PTQ__AVXVNNI, __m256i, 4, 2, ptq__i256, ptq__dot_vnni256)
PTQ__TILE(ptq__vnni256_6x2, PTQ__AVXVNNI, __m256i, 6, 2, ptq__i256, ptq__dot_vnni256)
#endif
/* 32 registers. */
PTQ__TILE(ptq__f512_8x1, PTQ__AVX512, __m512, 8, 1, ptq__f512, ptq__f512_fma)
PTQ__TILE(ptq__f512_16x1, PTQ__AVX512, __m512, 16, 1, ptq__f512, ptq__f512_fma)
PTQ__TILE(ptq__f512_4x2, PTQ__AVX512, __m512, 4, 2, ptq__f512, ptq__f512_fma)
PTQ__TILE(ptq__f512_8x2, PTQ__AVX512, __m512, 8, 2, ptq__f512, ptq__f512_fma)
PTQ__TILE(ptq__i512_8x1, PTQ__AVX512, __m512i, 8, 1, ptq__i512, ptq__i512_dot)
PTQ__TILE(ptq__i512_16x1, PTQ__AVX512, __m512i, 16, 1, ptq__i512, ptq__i512_dot)
PTQ__TILE(ptq__i512_4x2, PTQ__AVX512, __m512i, 4, 2, ptq__i512, ptq__i512_dot)
PTQ__TILE(ptq__i512_8x2, PTQ__AVX512, __m512i, 8, 2, ptq__i512, ptq__i512_dot)
PTQ__TILE(ptq__pairs512_8x1, PTQ__AVX512, __m512i, 8, 1, ptq__i512, ptq__pairs512_dot)
PTQ__TILE(ptq__pairs512_16x1, PTQ__AVX512, __m512i, 16, 1, ptq__i512, ptq__pairs512_dot)
PTQ__TILE(ptq__pairs512_4x2, PTQ__AVX512, __m512i, 4, 2, ptq__i512, ptq__pairs512_dot)
PTQ__TILE(ptq__pairs512_8x2, PTQ__AVX512, __m512i, 8, 2, ptq__i512, ptq__pairs512_dot)
PTQ__TILES(ptq__places512_8x1, PTQ__AVX512, __m512i, 8, 1, ptq__i512, ptq__i512_dot)
PTQ__TILES(ptq__places512_16x1, PTQ__AVX512, __m512i, 16, 1, ptq__i512, ptq__i512_dot)
PTQ__TILES(ptq__places512_4x2, PTQ__AVX512, __m512i, 4, 2, ptq__i512, ptq__i512_dot)
PTQ__TILES(ptq__places512_8x2, PTQ__AVX512, __m512i, 8, 2, ptq__i512, ptq__i512_dot)
PTQ__TILE(ptq__vnni512_8x1, PTQ__AVX512VNNI, __m512i, 8, 1, ptq__i512, ptq__dot_vnni512)
PTQ__TILE(ptq__vnni512_16x1, PTQ__AVX512VNNI, __m512i, 16, 1, ptq__i512, ptq__dot_vnni512)
PTQ__TILE(ptq__vnni512_4x2, PTQ__AVX512VNNI, __m512i, 4, 2, ptq__i512, ptq__dot_vnni512)
PTQ__TILE(ptq__vnni512_8x2, PTQ__AVX512VNNI, __m512i, 8, 2, ptq__i512, ptq__dot_vnni512)

#if PTQ__HAS_AMX
/* AMX. A tile register holds up to 16 rows of 64 bytes. A tile of inputs has a row for each output
   pixel: the bytes under one row of the kernel, or a piece of them; its rows are as far apart as
   the pixels are, so the load itself does what im2col does. A tile of weights has a row for each
   word and a column for each output channel, which is the order in which all kernels pack them. One
   instruction multiplies both and adds to a tile of sums, exactly: unsigned codes times signed
   weights in 32 bits. */

#ifndef PTQ__EMULATE_AMX
/* GCC's intrinsics do not say what memory they read and write: nothing may move across a fence, and
   what it points to must have been written. */
#define ptq__tile_fence(memory) __asm__ volatile("" : : "r"(memory) : "memory")
#define ptq__tile_load(tile, from, step) _tile_loadd(tile, from, step)
#define ptq__tile_store(tile, to, step) _tile_stored(tile, to, step)
#define ptq__tile_dot(sum, input, weight) _tile_dpbusd(sum, input, weight)
#define ptq__tile_config(config) _tile_loadconfig(config)
#define ptq__tile_release() _tile_release()
#endif

/* Rows and bytes of a row of all tiles, as the processor wants them: sums 0 to 3 (0, 1: first
   pixels; 2, 3: next ones), inputs 4 and 5, weights 6 and 7. */
PTQ__AMX static void ptq__amx_begin(const ptq__packed *k) {
    union {
        uint8_t byte[64]; /* 0: palette; 16 to 31: bytes of a row, 16 bits; 48 to 55: rows */
        __m512i all;      /* for its alignment */
    } config;
    int i;
    memset(&config, 0, sizeof config);
    config.byte[0] = 1;
    for (i = 0; i < 8; i++) {
        config.byte[16 + 2 * i] = (uint8_t)(i == 4 || i == 5 ? k->piece_words * PTQ__WORD : 64);
        config.byte[48 + i] = (uint8_t)(i >= 6 ? k->piece_words : k->pixels[0][0]);
    }
    ptq__tile_fence(&config);
    ptq__tile_config(&config);
}

PTQ__AMX static void ptq__amx_end(const ptq__tile *t) {
    ptq__i512_later(t);
    ptq__tile_release();
}

/* PIXELS (1 or 2) tiles of pixels by VECTORS (1 or 2) of channels. Each row of sums begins with the
   same bias. The vector units finish the tile before while the matrix unit, which has a queue of
   its own, works on this one: so the store, which must wait for it, comes last. */
#define PTQ__AMX_TILE(NAME, PIXELS, VECTORS)                                                       \
    PTQ__AMX static void NAME(const ptq__tile *t) {                                                \
        enum { WIDE = 64 * VECTORS };                                                              \
        ptrdiff_t advance = t->conv->advance, next = t->conv->pixels[0][0];                        \
        const char *weight = t->weight, *from;                                                     \
        int i, words = t->conv->piece_words;                                                       \
        ptq__later *later = t->later;                                                              \
        ptq__tile_fence(t);                                                                        \
        ptq__tile_load(0, t->bias, 0);                                                             \
        if (VECTORS == 2)                                                                          \
            ptq__tile_load(1, t->bias + 64, 0);                                                    \
        if (PIXELS == 2)                                                                           \
            ptq__tile_load(2, t->bias, 0);                                                         \
        if (PIXELS == 2 && VECTORS == 2)                                                           \
            ptq__tile_load(3, t->bias + 64, 0);                                                    \
        for (i = 0; i < t->pieces; i++, weight += words * WIDE) {                                  \
            from = t->piece[i].from + t->at;                                                       \
            ptq__tile_load(4, from, advance);                                                      \
            ptq__tile_load(6, weight, WIDE);                                                       \
            ptq__tile_dot(0, 4, 6);                                                                \
            if (PIXELS == 2) {                                                                     \
                ptq__tile_load(5, from + next * advance, advance);                                 \
                ptq__tile_dot(2, 5, 6);                                                            \
            }                                                                                      \
            if (VECTORS == 2) {                                                                    \
                ptq__tile_load(7, weight + 64, WIDE);                                              \
                ptq__tile_dot(1, 4, 7);                                                            \
            }                                                                                      \
            if (PIXELS == 2 && VECTORS == 2)                                                       \
                ptq__tile_dot(3, 5, 7);                                                            \
        }                                                                                          \
        ptq__i512_later(t); /* of the tile before, if there is one */                              \
        ptq__tile_store(0, later->sums, WIDE);                                                     \
        if (VECTORS == 2)                                                                          \
            ptq__tile_store(1, later->sums + 64, WIDE);                                            \
        if (PIXELS == 2)                                                                           \
            ptq__tile_store(2, later->sums + next * WIDE, WIDE);                                   \
        if (PIXELS == 2 && VECTORS == 2)                                                           \
            ptq__tile_store(3, later->sums + next * WIDE + 64, WIDE);                              \
        ptq__tile_fence(later);                                                                    \
        later->pixels = t->pixels;                                                                 \
        later->channels = t->channels;                                                             \
        later->vectors = VECTORS;                                                                  \
        later->out = t->out;                                                                       \
        later->multiplier = t->multiplier;                                                         \
    }

PTQ__AMX_TILE(ptq__amx_1x1, 1, 1)
PTQ__AMX_TILE(ptq__amx_2x1, 2, 1)
PTQ__AMX_TILE(ptq__amx_1x2, 1, 2)
PTQ__AMX_TILE(ptq__amx_2x2, 2, 2)

/* Pixels without the channels of other groups, and without gaps. */
PTQ__AMX static void ptq__stage_matrix(const ptq__packed *k, const char *from, const char *end,
                                       char *to, int count) {
    int run = k->in[2] / k->groups, i;
    __m512i flip = _mm512_set1_epi8((char)k->flip);
    (void)end;
    if (k->groups == 1) {
        run *= count;
        count = 1;
    }
    for (; count > 0; count--, from += k->in[2], to += run)
        for (i = 0; i < run; i += 64) {
            __mmask64 lanes = run - i < 64 ? ((__mmask64)1 << (run - i)) - 1 : ~(__mmask64)0;
            __m512i codes = _mm512_maskz_loadu_epi8(lanes, from + i);
            _mm512_mask_storeu_epi8(to + i, lanes, _mm512_xor_si512(codes, flip));
        }
}
#endif

#define PTQ__AS_IT_IS 0, 0, 0, NULL, NULL, NULL, NULL /* neither planar nor signed nor a matrix */
static const ptq__engine ptq__engine_f256 = {
    ptq__stage_f32,
    4,
    1,
    8,
    {{4, 8}, {4, 6}},
    {{ptq__f256_4x1, ptq__f256_8x1}, {ptq__f256_4x2, ptq__f256_6x2}},
    PTQ__AS_IT_IS};
static const ptq__engine ptq__engine_i256 = {
    ptq__stage_s16,
    1,
    2,
    8,
    {{4, 8}, {4, 6}},
    {{ptq__i256_4x1, ptq__i256_8x1}, {ptq__i256_4x2, ptq__i256_6x2}},
    PTQ__AS_IT_IS};
static const ptq__engine ptq__engine_places256 = {
    ptq__stage_s16,
    1,
    2,
    8,
    {{4, 8}, {4, 4}},
    {{ptq__places256_4x1, ptq__places256_8x1}, {ptq__places256_4x2, ptq__places256_4x2}},
    0,
    0,
    0,
    NULL,
    NULL,
    ptq__i256_later,
    &ptq__winograd256};
static const ptq__engine ptq__engine_pairs256 = {
    ptq__stage_u8,
    1,
    4,
    8,
    {{4, 8}, {4, 6}},
    {{ptq__pairs256_4x1, ptq__pairs256_8x1}, {ptq__pairs256_4x2, ptq__pairs256_6x2}},
    PTQ__AS_IT_IS};
static const ptq__engine ptq__engine_f512 = {
    ptq__stage_f32,
    4,
    1,
    16,
    {{8, 16}, {4, 8}},
    {{ptq__f512_8x1, ptq__f512_16x1}, {ptq__f512_4x2, ptq__f512_8x2}},
    PTQ__AS_IT_IS};
static const ptq__engine ptq__engine_i512 = {
    ptq__stage_s16,
    1,
    2,
    16,
    {{8, 16}, {4, 8}},
    {{ptq__i512_8x1, ptq__i512_16x1}, {ptq__i512_4x2, ptq__i512_8x2}},
    PTQ__AS_IT_IS};
static const ptq__engine ptq__engine_places512 = {
    ptq__stage_s16,
    1,
    2,
    16,
    {{8, 16}, {4, 8}},
    {{ptq__places512_8x1, ptq__places512_16x1}, {ptq__places512_4x2, ptq__places512_8x2}},
    0,
    0,
    0,
    NULL,
    NULL,
    ptq__i512_later,
    &ptq__winograd512};
static const ptq__engine ptq__engine_pairs512 = {
    ptq__stage_u8,
    1,
    4,
    16,
    {{8, 16}, {4, 8}},
    {{ptq__pairs512_8x1, ptq__pairs512_16x1}, {ptq__pairs512_4x2, ptq__pairs512_8x2}},
    PTQ__AS_IT_IS};
static const ptq__engine ptq__engine_vnni512 = {
    ptq__stage_u8,
    1,
    4,
    16,
    {{8, 16}, {4, 8}},
    {{ptq__vnni512_8x1, ptq__vnni512_16x1}, {ptq__vnni512_4x2, ptq__vnni512_8x2}},
    PTQ__AS_IT_IS};

#define PTQ__WITH_AVX2                                                                             \
    ptq__average_f256, ptq__average_i256, ptq__add_f256, ptq__add_i256, ptq__depthwise_f256,       \
        ptq__depthwise_i256, ptq__preprocess_256
static const ptq__family ptq__avx2 = {
    &ptq__engine_f256,     &ptq__engine_i256,      NULL,
    &ptq__engine_pairs256, &ptq__engine_places256, PTQ__WITH_AVX2};
static const ptq__family ptq__avx512 = {
    &ptq__engine_f512,     &ptq__engine_i512,      NULL,
    &ptq__engine_pairs512, &ptq__engine_places512, PTQ__WITH_AVX2};
static const ptq__family ptq__avx512vnni = {&ptq__engine_f512,      &ptq__engine_i512,
                                            &ptq__engine_vnni512,   NULL,
                                            &ptq__engine_places512, PTQ__WITH_AVX2};
#if PTQ__HAS_AVXVNNI
static const ptq__engine ptq__engine_vnni256 = {
    ptq__stage_u8,
    1,
    4,
    8,
    {{4, 8}, {4, 6}},
    {{ptq__vnni256_4x1, ptq__vnni256_8x1}, {ptq__vnni256_4x2, ptq__vnni256_6x2}},
    PTQ__AS_IT_IS};
static const ptq__family ptq__avxvnni = {&ptq__engine_f256,      &ptq__engine_i256,
                                         &ptq__engine_vnni256,   NULL,
                                         &ptq__engine_places256, PTQ__WITH_AVX2};
#else
#define ptq__avxvnni ptq__avx2 /* never chosen */
#endif
#if PTQ__HAS_AMX
static const ptq__engine ptq__engine_amx = {
    ptq__stage_matrix,
    1,
    4,
    16,
    {{16, 32}, {16, 32}},
    {{ptq__amx_1x1, ptq__amx_2x1}, {ptq__amx_1x2, ptq__amx_2x2}},
    0,
    0,
    1,
    ptq__amx_begin,
    ptq__amx_end,
    NULL,
    NULL};
static const ptq__family ptq__amx = {&ptq__engine_f512,      &ptq__engine_i512,
                                     &ptq__engine_amx,       NULL,
                                     &ptq__engine_places512, PTQ__WITH_AVX2};
#else
#define ptq__amx ptq__avx512 /* never chosen */
#endif

/* Only for what ptq_isa_available. */
static const ptq__family *ptq__family_of(ptq_isa isa) {
    switch (isa) {
    case PTQ_ISA_AVX2:
        return &ptq__avx2;
    case PTQ_ISA_AVXVNNI:
        return &ptq__avxvnni;
    case PTQ_ISA_AVX512:
        return &ptq__avx512;
    case PTQ_ISA_AVX512VNNI:
        return &ptq__avx512vnni;
    case PTQ_ISA_AMX:
        return &ptq__amx;
    default:
        return NULL;
    }
}
#endif /* PTQ__X86 */

#ifdef PTQ__128

/* 128 bits: NEON and WebAssembly. The vectors of both are vectors of the compiler, on which + - * /
   work lane by lane; only what follows PTQ__NEON and PTQ__WASM below differs. */
#ifdef PTQ__NEON
typedef float32x4_t ptq__f128;
typedef int32x4_t ptq__i128;

/* GCC would copy memory through other registers. */
PTQ__INLINE ptq__f128 ptq__f128_load(const char *p) {
    return vld1q_f32((const float *)(const void *)p);
}

PTQ__INLINE ptq__i128 ptq__i128_load(const char *p) {
    return vld1q_s32((const int32_t *)(const void *)p);
}
#else
typedef float ptq__f128 __attribute__((vector_size(16)));
typedef int32_t ptq__i128 __attribute__((vector_size(16)));

PTQ__INLINE ptq__f128 ptq__f128_load(const char *p) {
    ptq__f128 x;
    memcpy(&x, p, sizeof x);
    return x;
}

PTQ__INLINE ptq__i128 ptq__i128_load(const char *p) {
    ptq__i128 x;
    memcpy(&x, p, sizeof x);
    return x;
}
#endif
#define PTQ__BASE /* no attribute: the whole program has these instructions */

PTQ__INLINE ptq__f128 ptq__f128_all(float value) {
    ptq__f128 x = {value, value, value, value};
    return x;
}

PTQ__INLINE ptq__f128 ptq__f128_spread(const char *p) {
    float value;
    memcpy(&value, p, sizeof value);
    return ptq__f128_all(value);
}

PTQ__INLINE ptq__f128 ptq__f128_get(const void *x, ptrdiff_t at, int n) {
    const float *from = (const float *)x + at;
    float copy[4] = {0, 0, 0, 0};
    if (n >= 4)
        return ptq__f128_load((const char *)(const void *)from);
    memcpy(copy, from, (size_t)n * sizeof *copy);
    return ptq__f128_load((const char *)copy);
}

PTQ__INLINE void ptq__f128_put(void *y, ptrdiff_t at, int n, ptq__f128 value) {
    float copy[4];
    if (n >= 4) {
        memcpy((float *)y + at, &value, sizeof value);
    } else {
        memcpy(copy, &value, sizeof copy);
        memcpy((float *)y + at, copy, (size_t)n * sizeof *copy);
    }
}

PTQ__INLINE ptq__f128 ptq__f128_add(ptq__f128 a, ptq__f128 b) { return a + b; }

PTQ__INLINE ptq__f128 ptq__f128_sub(ptq__f128 a, ptq__f128 b) { return a - b; }

PTQ__INLINE ptq__f128 ptq__f128_mul(ptq__f128 a, ptq__f128 b) { return a * b; }

PTQ__INLINE ptq__f128 ptq__f128_div(ptq__f128 a, ptq__f128 b) { return a / b; }

PTQ__INLINE ptq__i128 ptq__i128_all(int32_t value) {
    ptq__i128 x = {value, value, value, value};
    return x;
}

PTQ__INLINE ptq__i128 ptq__i128_spread(const char *p) {
    int32_t value;
    memcpy(&value, p, sizeof value);
    return ptq__i128_all(value);
}

PTQ__INLINE ptq__i128 ptq__i128_add(ptq__i128 a, ptq__i128 b) { return a + b; }

PTQ__INLINE ptq__i128 ptq__i128_sub(ptq__i128 a, ptq__i128 b) { return a - b; }

PTQ__INLINE ptq__i128 ptq__i128_quarter(ptq__i128 x) { return x >> 2; }

PTQ__INLINE ptq__i128 ptq__i128_mul(ptq__i128 a, ptq__i128 b) { return a * b; }

/* Four bytes in the lowest lane; ptq__i128_get and ptq__i128_put widen and narrow. */
PTQ__INLINE uint32_t ptq__get_bytes(const void *x, ptrdiff_t at, int n) {
    uint32_t bytes, some = 0;
    if (n >= 4) {
        memcpy(&bytes, (const uint8_t *)x + at, sizeof bytes);
        return bytes;
    }
    memcpy(&some, (const uint8_t *)x + at, (size_t)n);
    return some;
}

PTQ__INLINE void ptq__put_bytes(void *y, ptrdiff_t at, int n, uint32_t bytes) {
    uint32_t some = bytes; /* its own, so that `bytes` may stay in a register */
    if (n >= 4)
        memcpy((uint8_t *)y + at, &bytes, sizeof bytes);
    else
        memcpy((uint8_t *)y + at, &some, (size_t)n);
}

PTQ__INLINE void ptq__move_f32(char *to, const char *from, int flip, int zero) {
    (void)flip, (void)zero;
    memcpy(to, from, PTQ__SLAB);
}

#ifdef PTQ__NEON

/* Sixteen codes less their zero point, 16 bits each: an input outside the image is 0. */
PTQ__INLINE void ptq__move_s16(char *to, const char *from, int flip, int zero) {
    uint8x16_t codes = vld1q_u8((const uint8_t *)from);
    uint8x8_t less = vdup_n_u8((uint8_t)zero);
    codes = veorq_u8(codes, vdupq_n_u8((uint8_t)flip));
    vst1q_u8((uint8_t *)to, vreinterpretq_u8_u16(vsubl_u8(vget_low_u8(codes), less)));
    vst1q_u8((uint8_t *)to + 16, vreinterpretq_u8_u16(vsubl_u8(vget_high_u8(codes), less)));
}

PTQ__INLINE ptq__f128 ptq__f128_clamp(ptq__f128 x, float least, float most) {
    return vminq_f32(vmaxq_f32(x, vdupq_n_f32(least)), vdupq_n_f32(most));
}

PTQ__INLINE ptq__i128 ptq__i128_get(const void *x, ptrdiff_t at, int n, int is_signed) {
    uint8x8_t codes = vreinterpret_u8_u32(vdup_n_u32(ptq__get_bytes(x, at, n)));
    if (is_signed)
        return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(codes))));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(codes))));
}

PTQ__INLINE void ptq__i128_put(void *y, ptrdiff_t at, int n, ptq__i128 codes) {
    int16x4_t half = vmovn_s32(codes);
    int8x8_t bytes = vmovn_s16(vcombine_s16(half, half));
    ptq__put_bytes(y, at, n, vget_lane_u32(vreinterpret_u32_s8(bytes), 0));
}

PTQ__INLINE ptq__f128 ptq__i128_real(ptq__i128 x) { return vcvtq_f32_s32(x); }

/* Two 16-bit codes, and the weights of the first for four channels before those of the second. */
PTQ__INLINE ptq__i128 ptq__i128_dot(ptq__i128 sum, ptq__i128 x, ptq__i128 w) {
    int16x4_t code = vget_low_s16(vreinterpretq_s16_s32(x));
    int16x8_t weight = vreinterpretq_s16_s32(w);
    sum = vmlal_lane_s16(sum, vget_low_s16(weight), code, 0);
    return vmlal_lane_s16(sum, vget_high_s16(weight), code, 1);
}

#ifdef __aarch64__
PTQ__INLINE ptq__f128 ptq__f128_mac(ptq__f128 sum, ptq__f128 x, ptq__f128 w) {
    return vfmaq_f32(sum, x, w);
}

PTQ__INLINE ptq__i128 ptq__i128_round(ptq__f128 x) { return vcvtnq_s32_f32(x); }

#define ptq__f128_fma ptq__f128_mac
#define ptq__f128_mac_lane(sum, x, w, lane) vfmaq_laneq_f32(sum, w, x, lane)
#define ptq__i128_dot_lane(sum, x, w, lane)                                                        \
    vmlal_high_laneq_s16(vmlal_laneq_s16(sum, vget_low_s16(vreinterpretq_s16_s32(w)),              \
                                         vreinterpretq_s16_s32(x), 2 * (lane)),                    \
                         vreinterpretq_s16_s32(w), vreinterpretq_s16_s32(x), 2 * (lane) + 1)
#else
/* 32-bit ARM. Its vectors take denormal numbers for 0. To codes that makes no difference: sums are
   integers and multipliers normal, so that no product is denormal unless it is 0, and the fused
   multiply-add is the scalar one. In real results it is far below their rounding. */
PTQ__INLINE ptq__f128 ptq__f128_fma(ptq__f128 sum, ptq__f128 x, ptq__f128 w) {
    int i;
    for (i = 0; i < 4; i++)
        sum[i] = ptq__fma(x[i], w[i], sum[i]);
    return sum;
}

/* As ptq__rne: what is rounded has been clamped. */
PTQ__INLINE ptq__i128 ptq__i128_round(ptq__f128 x) {
    ptq__f128 shifted = vaddq_f32(x, vdupq_n_f32(12582912.0f));
    return vsubq_s32(vreinterpretq_s32_f32(shifted), vdupq_n_s32(0x4b400000));
}

PTQ__INLINE ptq__f128 ptq__f128_mac(ptq__f128 sum, ptq__f128 x, ptq__f128 w) {
    return vmlaq_f32(sum, x, w);
}
#endif

#if PTQ__HAS_DOTPROD
/* Four products of signed codes and signed weights, summed exactly. */
PTQ__DOTPROD PTQ__INLINE ptq__i128 ptq__i128_sdot(ptq__i128 sum, ptq__i128 x, ptq__i128 w) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w));
}

#define ptq__i128_sdot_lane(sum, x, w, lane)                                                       \
    vdotq_laneq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x), lane)

/* 32 codes as signed bytes; their zero point is in the bias. */
PTQ__INLINE void ptq__move_s8(char *to, const char *from, int flip, int zero) {
    uint8x16_t change = vdupq_n_u8((uint8_t)flip);
    (void)zero;
    vst1q_u8((uint8_t *)to, veorq_u8(vld1q_u8((const uint8_t *)from), change));
    vst1q_u8((uint8_t *)to + 16, veorq_u8(vld1q_u8((const uint8_t *)from + 16), change));
}

PTQ__STAGE(ptq__stage_s8, PTQ__BASE, PTQ__SLAB, ptq__move_s8)
#endif
#endif /* PTQ__NEON */

#ifdef PTQ__WASM

PTQ__INLINE void ptq__move_s16(char *to, const char *from, int flip, int zero) {
    v128_t codes = wasm_v128_xor(wasm_v128_load(from), wasm_i8x16_splat((int8_t)flip));
    v128_t less = wasm_i16x8_splat((int16_t)zero);
    wasm_v128_store(to, wasm_i16x8_sub(wasm_u16x8_extend_low_u8x16(codes), less));
    wasm_v128_store(to + 16, wasm_i16x8_sub(wasm_u16x8_extend_high_u8x16(codes), less));
}

/* pmax(a, b) is a < b ? b : a: one instruction where max, which minds the sign of 0, is several. A
   NaN passes. */
PTQ__INLINE ptq__f128 ptq__f128_clamp(ptq__f128 x, float least, float most) {
    v128_t y = wasm_f32x4_pmax((v128_t)x, wasm_f32x4_splat(least));
    return (ptq__f128)wasm_f32x4_pmin(y, wasm_f32x4_splat(most));
}

PTQ__INLINE ptq__i128 ptq__i128_get(const void *x, ptrdiff_t at, int n, int is_signed) {
    v128_t codes = (v128_t)ptq__i128_all((int32_t)ptq__get_bytes(x, at, n));
    if (is_signed)
        return (ptq__i128)wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(codes));
    return (ptq__i128)wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(codes));
}

PTQ__INLINE void ptq__i128_put(void *y, ptrdiff_t at, int n, ptq__i128 codes) {
    v128_t pack = wasm_v128_and((v128_t)codes, wasm_i32x4_splat(255));
    pack = wasm_u16x8_narrow_i32x4(pack, pack);
    pack = wasm_u8x16_narrow_i16x8(pack, pack);
    ptq__put_bytes(y, at, n, (uint32_t)wasm_i32x4_extract_lane(pack, 0));
}

PTQ__INLINE ptq__f128 ptq__i128_real(ptq__i128 x) {
    return (ptq__f128)wasm_f32x4_convert_i32x4((v128_t)x);
}

/* As ptq__rne: what is rounded has been clamped. */
PTQ__INLINE ptq__i128 ptq__i128_round(ptq__f128 x) {
    v128_t shifted = wasm_f32x4_add((v128_t)x, wasm_f32x4_splat(12582912.0f));
    return (ptq__i128)wasm_i32x4_sub(shifted, wasm_i32x4_splat(0x4b400000));
}

PTQ__INLINE v128_t ptq__fma_low(v128_t sum, v128_t x, v128_t w) {
    v128_t product =
        wasm_f64x2_mul(wasm_f64x2_promote_low_f32x4(x), wasm_f64x2_promote_low_f32x4(w));
    v128_t rounded =
        wasm_f32x4_demote_f64x2_zero(wasm_f64x2_add(product, wasm_f64x2_promote_low_f32x4(sum)));
    __asm__("" : "+r"(rounded)); /* else clang converts number by number */
    return rounded;
}

PTQ__INLINE v128_t ptq__high_half(v128_t x) { return wasm_i32x4_shuffle(x, x, 2, 3, 2, 3); }

/* There is no such instruction. Double precision holds the product, and the sum by
   ptq__adds_in_double, so that only the conversion to single rounds. */
PTQ__INLINE ptq__f128 ptq__f128_fma(ptq__f128 sum, ptq__f128 x, ptq__f128 w) {
    v128_t low = ptq__fma_low((v128_t)sum, (v128_t)x, (v128_t)w);
    v128_t high = ptq__fma_low(ptq__high_half((v128_t)sum), ptq__high_half((v128_t)x),
                               ptq__high_half((v128_t)w));
    return (ptq__f128)wasm_i32x4_shuffle(low, high, 0, 1, 4, 5);
}

PTQ__INLINE ptq__f128 ptq__f128_mac(ptq__f128 sum, ptq__f128 x, ptq__f128 w) { return sum + x * w; }

/* Two products of 16 bits are summed exactly. */
PTQ__INLINE ptq__i128 ptq__i128_dot(ptq__i128 sum, ptq__i128 x, ptq__i128 w) {
    v128_t products = wasm_i32x4_dot_i16x8((v128_t)x, (v128_t)w);
    return (ptq__i128)wasm_i32x4_add((v128_t)sum, products);
}

PTQ__SUM_CODES(ptq__exact_sum, PTQ__BASE, ptq__f128, ptq__i128, ptq__f128, ptq__i128)

/* Double precision takes its time. A plain sum that is not near a half rounds to the same code. */
PTQ__INLINE ptq__i128 ptq__i128_sum(const ptq__finish *f, ptq__f128 own, ptq__f128 residual) {
    float ratio = f->residual_first ? f->ratio_b : f->ratio_a;
    float other = f->residual_first ? f->ratio_a : f->ratio_b;
    ptq__f128 sum = f->offset + own * ratio + residual * other, rest;
    ptq__i128 code;
    sum = ptq__f128_clamp(sum, f->add_least, f->add_most);
    code = ptq__i128_round(sum);
    rest = (ptq__f128)wasm_f32x4_abs((v128_t)(sum - ptq__i128_real(code)));
    if (wasm_v128_any_true((v128_t)(rest > f->sure)))
        return ptq__exact_sum(f, own, residual);
    return code;
}
#else
PTQ__SUM_CODES(ptq__i128_sum, PTQ__BASE, ptq__f128, ptq__i128, ptq__f128, ptq__i128)
#endif /* PTQ__WASM */

PTQ__STAGE(ptq__stage_f32, PTQ__BASE, PTQ__SLAB, ptq__move_f32)
PTQ__STAGE(ptq__stage_s16, PTQ__BASE, PTQ__SLAB / 2, ptq__move_s16)
PTQ__FINISH_REAL(ptq__f128_finish, PTQ__BASE, ptq__f128, ptq__f128)
PTQ__FINISH_CODES(ptq__i128_finish, PTQ__BASE, ptq__f128, ptq__i128, ptq__f128, ptq__i128)
PTQ__AVERAGE_REAL(ptq__average_f128, PTQ__BASE, ptq__f128, ptq__f128)
PTQ__AVERAGE_CODES(ptq__average_i128, PTQ__BASE, ptq__i128, ptq__i128)
PTQ__ADD_REAL(ptq__add_f128, PTQ__BASE, ptq__f128, ptq__f128)
PTQ__ADD_CODES(ptq__add_i128, PTQ__BASE, ptq__i128, ptq__i128)
PTQ__DEPTHWISE_REAL(ptq__depthwise_f128, PTQ__BASE, ptq__f128, ptq__f128, ptq__f128_mac)
PTQ__DEPTHWISE_CODES(ptq__depthwise_i128, PTQ__BASE, ptq__i128, ptq__i128)
PTQ__PREPROCESS(ptq__preprocess_128, PTQ__BASE, ptq__f128, ptq__f128, ptq__i128)

/* 64-bit ARM has 32 registers, which hold four words of each pixel besides; 32-bit ARM and what
   WebAssembly runs on have 16 or more. The runtimes of WebAssembly need some for themselves. */
#if defined(PTQ__BY_LANE)
#define PTQ__WIDE 8
#elif defined(PTQ__NEON)
#define PTQ__WIDE 6
#else
#define PTQ__WIDE 4
#endif
#ifdef PTQ__WASM
PTQ__INLINE v128_t ptq__s128_add(v128_t a, v128_t b) { return wasm_i16x8_add(a, b); }

PTQ__INLINE v128_t ptq__s128_sub(v128_t a, v128_t b) { return wasm_i16x8_sub(a, b); }

PTQ__WINOGRAD(ptq__winograd128, PTQ__BASE, v128_t, ptq__s128, ptq__i128, ptq__i128)
#define PTQ__TILE128 PTQ__TILES
#define PTQ__FINISH128(finish) finish
PTQ__FINISH_LATER(ptq__f128_later, PTQ__BASE, ptq__f128)
PTQ__FINISH_LATER(ptq__i128_later, PTQ__BASE, ptq__i128)
#else
#define PTQ__TILE128 PTQ__TILE
#define PTQ__FINISH128(finish) NULL
#endif
PTQ__TILE128(ptq__f128_4x1, PTQ__BASE, ptq__f128, 4, 1, ptq__f128, ptq__f128_mac)
PTQ__TILE128(ptq__f128_8x1, PTQ__BASE, ptq__f128, 8, 1, ptq__f128, ptq__f128_mac)
PTQ__TILE128(ptq__f128_4x2, PTQ__BASE, ptq__f128, 4, 2, ptq__f128, ptq__f128_mac)
PTQ__TILE128(ptq__f128_wide, PTQ__BASE, ptq__f128, PTQ__WIDE, 2, ptq__f128, ptq__f128_mac)
PTQ__TILE128(ptq__i128_4x1, PTQ__BASE, ptq__i128, 4, 1, ptq__i128, ptq__i128_dot)
PTQ__TILE128(ptq__i128_8x1, PTQ__BASE, ptq__i128, 8, 1, ptq__i128, ptq__i128_dot)
PTQ__TILE128(ptq__i128_4x2, PTQ__BASE, ptq__i128, 4, 2, ptq__i128, ptq__i128_dot)
PTQ__TILE128(ptq__i128_wide, PTQ__BASE, ptq__i128, PTQ__WIDE, 2, ptq__i128, ptq__i128_dot)

static const ptq__engine ptq__engine_f128 = {
    ptq__stage_f32,
    4,
    1,
    4,
    {{4, 8}, {4, PTQ__WIDE}},
    {{ptq__f128_4x1, ptq__f128_8x1}, {ptq__f128_4x2, ptq__f128_wide}},
    0,
    0,
    0,
    NULL,
    NULL,
    PTQ__FINISH128(ptq__f128_later),
    NULL};
#ifdef PTQ__NEON
#define PTQ__PLANAR 1
#else
#define PTQ__PLANAR 0
#endif
static const ptq__engine ptq__engine_i128 = {
    ptq__stage_s16,
    1,
    2,
    4,
    {{4, 8}, {4, PTQ__WIDE}},
    {{ptq__i128_4x1, ptq__i128_8x1}, {ptq__i128_4x2, ptq__i128_wide}},
    PTQ__PLANAR,
    0,
    0,
    NULL,
    NULL,
    PTQ__FINISH128(ptq__i128_later),
    NULL};
#ifdef PTQ__WASM
static const ptq__engine ptq__engine_places128 = {
    ptq__stage_s16,
    1,
    2,
    4,
    {{4, 8}, {4, PTQ__WIDE}},
    {{ptq__i128_4x1, ptq__i128_8x1}, {ptq__i128_4x2, ptq__i128_wide}},
    0,
    0,
    0,
    NULL,
    NULL,
    ptq__i128_later,
    &ptq__winograd128};
#define PTQ__PLACES128 &ptq__engine_places128
#else
#define PTQ__PLACES128 NULL
#endif

#define PTQ__WITH_128                                                                              \
    ptq__average_f128, ptq__average_i128, ptq__add_f128, ptq__add_i128, ptq__depthwise_f128,       \
        ptq__depthwise_i128, ptq__preprocess_128
static const ptq__family ptq__plain128 = {&ptq__engine_f128, &ptq__engine_i128, NULL, NULL,
                                          PTQ__PLACES128,    PTQ__WITH_128};
#if defined(PTQ__NEON) && PTQ__HAS_DOTPROD
PTQ__TILE(ptq__sdot_4x1, PTQ__DOTPROD, ptq__i128, 4, 1, ptq__i128, ptq__i128_sdot)
PTQ__TILE(ptq__sdot_8x1, PTQ__DOTPROD, ptq__i128, 8, 1, ptq__i128, ptq__i128_sdot)
PTQ__TILE(ptq__sdot_4x2, PTQ__DOTPROD, ptq__i128, 4, 2, ptq__i128, ptq__i128_sdot)
PTQ__TILE(ptq__sdot_wide, PTQ__DOTPROD, ptq__i128, PTQ__WIDE, 2, ptq__i128, ptq__i128_sdot)
static const ptq__engine ptq__engine_sdot = {
    ptq__stage_s8,
    1,
    4,
    4,
    {{4, 8}, {4, PTQ__WIDE}},
    {{ptq__sdot_4x1, ptq__sdot_8x1}, {ptq__sdot_4x2, ptq__sdot_wide}},
    0,
    1,
    0,
    NULL,
    NULL,
    NULL,
    NULL};
static const ptq__family ptq__neondot = {
    &ptq__engine_f128, &ptq__engine_i128, &ptq__engine_sdot, NULL, PTQ__PLACES128, PTQ__WITH_128};
#else
#define ptq__neondot ptq__plain128 /* never chosen */
#endif

/* Only for what ptq_isa_available. */
static const ptq__family *ptq__family_of(ptq_isa isa) {
    switch (isa) {
    case PTQ_ISA_NEON:
    case PTQ_ISA_WASM:
        return &ptq__plain128;
    case PTQ_ISA_NEONDOT:
        return &ptq__neondot;
    default:
        return NULL;
    }
}
#endif /* PTQ__128 */

/* Row y of the input, of which `row` holds the blank margins. */
static void ptq__stage_row(const ptq__packed *k, const char *x, int y, char *row) {
    ptrdiff_t bytes = (ptrdiff_t)k->in[1] * k->in[2] * k->engine->size;
    int i;
    for (i = 0; i < k->strips; i++)
        k->engine->stage(k, x + y * bytes + k->strip[i].from, x + k->in[0] * bytes,
                         row + k->strip[i].to, k->strip[i].count);
}

/* Points the pieces to the input of output row oy; `next` is the first row not staged yet. The
   buffers are used in turn, as a row is needed no more when the kernel has passed it; the last is
   blank. */
static void ptq__stage_rows(const ptq__packed *k, const char *x, int oy, int *next, char *buffer,
                            ptq__piece *piece) {
    int u, i, y, rows = k->rows, each = k->tiles ? 1 : k->pieces / rows;
    for (u = 0; u < rows; u++) {
        char *row = buffer + rows * k->row_bytes;
        y = oy * k->stride[0] - k->pad[0] + u;
        if (y >= 0 && y < k->in[0])
            row = buffer + y % rows * k->row_bytes;
        if (y >= *next && y < k->in[0]) {
            ptq__stage_row(k, x, y, row);
            *next = y + 1;
        }
        for (i = u * each; i < (u + 1) * each; i++)
            piece[i].from = row + piece[i].offset;
    }
}

static void ptq__finish_row(const ptq__packed *k, const ptq__panel *panel, const ptq__tile *t,
                            int oy) {
    t->later->pixels = k->out[1];
    t->later->channels = panel->channels;
    t->later->vectors = panel->two + 1;
    t->later->out = (ptrdiff_t)oy * k->out[1] * k->out[2] + panel->first;
    t->later->multiplier = k->multiplier + panel->lane;
    k->engine->finish(t);
}

/* One output row of a panel, in large tiles as far as they fit. */
static void ptq__run_panel(const ptq__packed *k, const ptq__panel *panel, ptq__tile *t, int oy) {
    int small = k->pixels[panel->two][0], large = k->pixels[panel->two][1];
    int ox, left;
    t->weight = panel->weight;
    t->bias = k->bias + panel->lane * PTQ__WORD;
    t->multiplier = k->multiplier + panel->lane;
    t->channels = panel->channels;
    for (ox = 0; ox < k->out[1]; ox += t->pixels) {
        left = k->out[1] - ox;
        t->sums = t->later->sums + ((ptrdiff_t)ox * k->engine->lanes << panel->two) * PTQ__WORD;
        t->at = panel->group * k->slabs * k->slab_bytes + ox * k->advance;
        t->out = ((ptrdiff_t)oy * k->out[1] + ox) * k->out[2] + panel->first;
        if (left == large || left >= large + small) {
            t->pixels = k->engine->finish ? left / large * large : large;
            k->engine->tile[panel->two][1](t);
        } else {
            t->pixels = left < small ? left : small;
            k->engine->tile[panel->two][0](t);
        }
    }
    if (k->engine->finish)
        ptq__finish_row(k, panel, t, oy);
}

/* 3 x 3 kernels that move by one pixel: minimal filtering, as S. Winograd's (A. Lavin and S. Gray,
   Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308). A tile of 2 x 2 outputs
   takes 16 multiplications for each input channel where it took 36:

       Y = A ((G W G') * (B X B')) A' / 4          X: 4 x 4 inputs; * place by place

           1  0 -1  0            2  0  0
       B = 0  1  1  0        G = 1  1  1        A = 1  1  1  0
           0 -1  1  0            1 -1  1            0  1 -1 -1
           0  1  0 -1            0  0  2

   Products are summed over the input channels before A: so each of the 16 places is a 1 x 1
   convolution of its own, of the tiles as pixels. In integers all this is exact. Inputs become at
   most 4 * 255, weights 9 * 255, which fit 16 bits; sums may wrap, but their last one does not, and
   is a multiple of 4: see ptq__can_winograd. */

static void ptq__winograd_panel(const ptq__packed *k, const ptq__panel *panel, ptq__tile *t,
                                int oy) {
    static const int32_t none[2 * 16] = {0}; /* for two vectors of up to 512 bits */
    int i, vectors = panel->two + 1, large = k->tiles % k->pixels[panel->two][1] == 0;
    ptrdiff_t plane = ptq__sums_plane(k, vectors);
    char *sums = t->later->sums, *gathered = sums + PTQ__PLACES * plane;
    t->weight = panel->weight;
    t->bias = (const char *)none;
    t->pixels = k->tiles;
    t->sums = sums;
    t->sums_plane = plane;
    k->engine->tile[panel->two][large](t);
    k->engine->winograd->gather(k, panel, sums, gathered);
    for (i = 0; i < 2 && oy + i < k->out[0]; i++) {
        t->later->sums = gathered + i * 2 * k->tiles * vectors * k->engine->lanes * PTQ__WORD;
        ptq__finish_row(k, panel, t, oy + i);
    }
    t->later->sums = sums;
}

/* Output rows oy and oy + 1. The first pieces are the four staged rows of their input, those behind
   are the tile's. */
static void ptq__winograd_rows(const ptq__packed *k, const ptq__piece *row, char *planes,
                               ptq__piece *piece, ptq__tile *t, int oy) {
    int i;
    k->engine->winograd->scatter(k, row, planes);
    for (i = 0; i < k->slabs; i++)
        piece[i].from = planes + i * k->room * PTQ__SLAB;
    t->piece = piece;
    t->pieces = k->slabs;
    t->planes = PTQ__PLACES;
    t->plane = ptq__input_plane(k);
    for (i = 0; i < k->panels; i++)
        ptq__winograd_panel(k, &k->panel[i], t, oy);
}

static void ptq__conv_vector(const ptq__step *step, const ptq__frame *frame) {
    const ptq__packed *k = (const ptq__packed *)step->packed;
    const char *x = (const char *)frame->in[0];
    ptq__piece *piece = (ptq__piece *)frame->scratch;
    char *buffer = (char *)piece + ptq__align((size_t)k->pieces * sizeof *piece);
    char *planes = buffer + (k->rows + 1) * k->row_bytes;
    ptq__finish finish = k->finish;
    ptq__later later;
    ptq__tile tile;
    int oy, i, next = 0;
    memcpy(piece, k->piece, (size_t)k->pieces * sizeof *piece);
    memset(buffer, k->blank, (size_t)(k->rows + 1) * (size_t)k->row_bytes);
    finish.residual = frame->in[1];
    finish.y = frame->out;
    finish.mid = frame->mid;
    memset(&later, 0, sizeof later);
    memset(&tile, 0, sizeof tile);
    later.sums = planes + PTQ__PLACES * ptq__input_plane(k);
    tile.conv = k;
    tile.later = &later;
    tile.piece = piece;
    tile.pieces = k->pieces;
    tile.planes = 1;
    tile.finish = &finish;
    if (k->engine->begin)
        k->engine->begin(k);
    for (oy = 0; oy < k->out[0]; oy += k->tiles ? 2 : 1) {
        ptq__stage_rows(k, x, oy, &next, buffer, piece);
        if (k->tiles)
            ptq__winograd_rows(k, piece, planes, piece + k->rows, &tile, oy);
        for (i = 0; i < k->panels && !k->tiles; i++)
            ptq__run_panel(k, &k->panel[i], &tile, oy);
    }
    if (k->engine->end)
        k->engine->end(&tile);
}

/* Packing, once per plan. */

/* An integer weight less its zero point. */
static int ptq__weight_code(const ptq__step *step, size_t from) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    if (weight->type == PTQ_TYPE_S8 || weight->type == PTQ_TYPE_PACKED_S)
        return ((const int8_t *)step->weight)[from];
    return ((const uint8_t *)step->weight)[from] - weight->zero_point;
}

/* Whether weights less their zero point fit into signed bytes. */
static int ptq__fits_s8(const ptq_tensor *weight, const uint8_t *codes) {
    size_t i, n = ptq_tensor_elements(weight);
    if (weight->type == PTQ_TYPE_S8 || weight->type == PTQ_TYPE_PACKED_S)
        return 1;
    for (i = 0; i < n; i++)
        if (codes[i] - weight->zero_point > 127 || codes[i] - weight->zero_point < -128)
            return 0;
    return 1;
}

/* Whether all sums of ptq__add_codes are exact in double precision: whether every term is a
   multiple of one power of two of which the sum of all is less than 2^53. The codes are below 256.
   The first sum is rounded to single between the two, but is a multiple of that power even then. */
static int ptq__adds_in_double(float ratio_a, float ratio_b, float offset) {
    float term[3];
    double total = 0;
    int i, e, least = INT_MAX;
    term[0] = ratio_a;
    term[1] = ratio_b;
    term[2] = offset;
    for (i = 0; i < 3; i++) {
        frexp((double)term[i], &e); /* 24 bits below 2^e */
        if (term[i] != 0 && e - 24 < least)
            least = e - 24;
        total += fabs((double)term[i]) * (i < 2 ? 256 : 1);
    }
    return total < ldexp(1, least + 53);
}

/* Whether the vector kernels can do the addition of a step on codes. */
static int ptq__can_add(const ptq__step *step) {
    const ptq__adder *adder = &step->adder;
    return PTQ__FUSED || !step->from[1] ||
           ptq__adds_in_double(adder->ratio_a, adder->ratio_b, adder->offset);
}

/* Whether x0 w0 + x1 w1 fits 16 bits for any two neighbouring weights of one tap and any codes
   0 <= x <= 255, or fewer where the input has fewer bits: they always do for 7 bits of codes, or of
   symmetric weights. Products of different signs do not help, as one of the codes may be 0. */
static int ptq__pairs_fit(const ptq__step *step, const ptq_qparams *in) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    size_t taps = weight->rank == 4 ? (size_t)weight->dim[2] * (size_t)weight->dim[3] : 1;
    size_t deep = (size_t)weight->dim[1], n = (size_t)weight->dim[0] * deep * taps, i, j;
    int32_t low, high, code, most, least;
    ptq_code_range(in->type, in->bits, &low, &high);
    if (in->type == PTQ_TYPE_S8)
        high += 128; /* as they are staged */
    for (i = 0; i < n; i++) {
        if (i / taps % deep % 2)
            continue;
        for (j = i, most = least = 0; j <= i + taps && (j == i || i / taps % deep + 1 < deep);
             j += taps) {
            code = ptq__weight_code(step, j);
            most += code > 0 ? code : 0;
            least += code < 0 ? code : 0;
        }
        if (most * high > INT16_MAX || least * high < INT16_MIN)
            return 0;
    }
    return 1;
}

/* Whether all sums without bias, times 4, fit 32 bits; and whether it pays: with few channels the
   transforms take longer than what they save. */
static int ptq__can_winograd(const ptq__step *step) {
    const ptq_node *node = step->node;
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t channel, i, taps = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    int64_t sum;
    if (node->op != PTQ_OP_CONV2D || node->kernel[0] != 3 || node->kernel[1] != 3 ||
        node->stride[0] != 1 || node->stride[1] != 1 || node->groups > 1 || step->in[2] < 8 ||
        node->shape[0] < 2 || node->shape[1] < 2)
        return 0;
    for (channel = 0; channel < (size_t)node->shape[2]; channel++) {
        for (sum = 0, i = channel * taps; i < (channel + 1) * taps; i++)
            sum += 255 * abs(ptq__weight_code(step, i));
        if (sum >= 1 << 29)
            return 0;
    }
    return 1;
}

/* The engine for a step; NULL where the scalar kernel stays. Groups of few channels would leave
   most lanes idle. */
static const ptq__engine *ptq__choose_engine(const ptq_plan *plan, const ptq__family *family,
                                             const ptq__step *step) {
    const ptq_node *node = step->node;
    ptq_mode mode = ptq_node_mode(plan->info.model, step->index);
    if (!ptq__has_weight(node->op) || mode == PTQ_MODE_DYNAMIC ||
        (node->groups > 1 && node->shape[2] / node->groups < 4))
        return NULL;
    if (mode != PTQ_MODE_INTEGER)
        return ptq__is_coded(node) ? NULL : family->real;
    if (!ptq__can_add(step))
        return NULL;
    if (family->bytes &&
        ptq__fits_s8(&node->param[PTQ_PARAM_WEIGHT], (const uint8_t *)step->weight))
        return family->bytes;
    if (family->places && ptq__can_winograd(step))
        return family->places;
    if (family->pairs &&
        ptq__fits_s8(&node->param[PTQ_PARAM_WEIGHT], (const uint8_t *)step->weight) &&
        ptq__pairs_fit(step, &step->from[0]->q))
        return family->pairs;
    return family->exact;
}

/* How rows are staged in slabs. */
static void ptq__describe_slabs(ptq__packed *k) {
    int deep = k->in[2] / k->groups, codes = k->engine->codes;
    memcpy(k->pixels, k->engine->pixels, sizeof k->pixels);
    k->pitch = k->advance = PTQ__SLAB;
    k->slabs = (deep + PTQ__SLAB_WORDS * codes - 1) / (PTQ__SLAB_WORDS * codes);
    k->apart = k->stride[1];
    k->phases = k->stride[1] < k->kernel[1] ? k->stride[1] : k->kernel[1];
    k->positions = k->out[1] + (k->kernel[1] - 1) / k->stride[1] + k->pixels[0][0] - 1;
    k->slab_bytes = (ptrdiff_t)k->phases * k->positions * PTQ__SLAB;
    k->step = (ptrdiff_t)k->stride[1] * k->in[2] * k->engine->size;
    k->pieces = k->kernel[0] * k->kernel[1] * k->slabs;
    k->run = 1;
    k->run_words = (deep + codes - 1) / codes;
}

/* How they are staged for matrices: column after column, so that what lies under one row of the
   kernel is one run of bytes, cut into pieces of equal size that fit a tile. The words behind the
   run have weights 0. Pixels are divided into tiles of equal size, too. */
static void ptq__describe_matrix(ptq__packed *k) {
    enum { ROWS = 16, WORDS = 16 };
    int words, each, tiles = (k->out[1] + ROWS - 1) / ROWS, i;
    for (i = 0; i < 2; i++) {
        k->pixels[i][0] = (k->out[1] + tiles - 1) / tiles;
        k->pixels[i][1] = 2 * k->pixels[i][0];
    }
    k->run = k->kernel[1];
    k->pitch = k->in[2] / k->groups;
    k->advance = k->stride[1] * k->pitch;
    words = (int)((k->run * k->pitch + PTQ__WORD - 1) / PTQ__WORD);
    each = (words + WORDS - 1) / WORDS;
    k->piece_words = (words + each - 1) / each;
    k->run_words = each * k->piece_words;
    k->pieces = k->kernel[0] * each;
    k->slabs = k->apart = k->phases = 1;
    k->positions = (tiles * k->pixels[0][0] - 1) * k->stride[1] + k->kernel[1];
    k->slab_bytes = k->positions * k->pitch + (int)WORDS * PTQ__WORD;
}

static void ptq__describe_winograd(ptq__packed *k) {
    k->tiles = (k->out[1] + 1) / 2;
    k->room = (k->tiles + k->pixels[0][0] - 1) / k->pixels[0][0] * k->pixels[0][0];
    k->rows = 4;
    k->taps = PTQ__PLACES;
    k->pieces = k->rows + k->slabs;
}

static void ptq__describe_conv(ptq__packed *k, const ptq__step *step) {
    const ptq_node *node = step->node;
    int conv = node->op == PTQ_OP_CONV2D, i;
    for (i = 0; i < 3; i++) {
        k->in[i] = conv ? step->in[i] : 1;
        k->out[i] = node->shape[i];
    }
    for (i = 0; i < 2; i++) {
        k->kernel[i] = conv ? node->kernel[i] : 1;
        k->stride[i] = conv ? node->stride[i] : 1;
        k->pad[i] = conv ? node->pad[i] : 0;
    }
    k->groups = conv ? node->groups : 1;
    if (!conv)
        k->in[2] = node->param[PTQ_PARAM_WEIGHT].dim[1];
    if (k->engine->matrix)
        ptq__describe_matrix(k);
    else
        ptq__describe_slabs(k);
    k->taps = k->kernel[0] * k->kernel[1];
    k->rows = k->kernel[0];
    if (k->engine->winograd)
        ptq__describe_winograd(k);
    k->row_bytes = (ptrdiff_t)ptq__align((size_t)(k->slab_bytes * k->slabs * k->groups));
    k->strips = k->phases * k->slabs * k->groups;
}

static void ptq__describe_codes(ptq__packed *k, const ptq__step *step) {
    const ptq_node *node = step->node;
    const ptq_qparams *in = &step->from[0]->q, *first = node->residual ? &node->mid : &node->q;
    ptq__finish *f = &k->finish;
    k->flip = (in->type == PTQ_TYPE_S8) != k->engine->is_signed ? 128 : 0;
    k->zero = in->zero_point + (k->engine->is_signed ? -k->flip : k->flip);
    k->blank = k->engine->codes == 4 ? k->zero : 0;
    f->real = !ptq__is_coded(node);
    if (!f->real) {
        ptq__clamp clamp = ptq__clamp_of(first, node->act);
        f->zero_point = clamp.zero_point;
        f->least = (float)(clamp.low - clamp.zero_point);
        f->most = (float)(clamp.high - clamp.zero_point);
    }
    if (node->residual) {
        const ptq_qparams *r = &step->from[1]->q;
        ptq__describe_adder(f, &step->adder);
        f->residual_first = node->residual == PTQ_RESIDUAL_FIRST;
        f->residual_signed = r->type == PTQ_TYPE_S8;
    }
}

static void ptq__describe_finish(ptq__packed *k, const ptq__step *step) {
    const ptq_node *node = step->node;
    k->finish.channels = node->shape[2];
    k->finish.least = ptq__act_least(node->act);
    k->finish.most = ptq__act_most(node->act);
    k->finish.add_least = ptq__act_least(node->add_act);
    k->finish.add_most = ptq__act_most(node->add_act);
    if (step->multiplier)
        ptq__describe_codes(k, step);
}

/* Panels of two vectors, and one vector where it is enough for the rest. Counts them, and writes
   them if there is a place. */
static int ptq__make_panels(const ptq__packed *k, ptq__panel *panel, int *lanes) {
    int each = k->out[2] / k->groups, wide = k->engine->lanes, n = 0, group, first, left;
    *lanes = 0;
    for (group = 0; group < k->groups; group++)
        for (first = 0; first < each; first += 2 * wide) {
            left = each - first;
            if (panel) {
                panel[n].first = group * each + first;
                panel[n].channels = left < 2 * wide ? left : 2 * wide;
                panel[n].lane = *lanes;
                panel[n].group = group;
                panel[n].two = left > wide;
            }
            *lanes += left > wide ? 2 * wide : wide;
            n++;
        }
    return n;
}

static void ptq__make_strips(ptq__packed *k) {
    int apart = k->apart, deep = k->in[2] / k->groups, size = k->engine->size, i;
    for (i = 0; i < k->strips; i++) {
        int slab = i / k->phases, phase = i % k->phases;
        int column = (phase + apart * k->pad[1] - k->pad[1]) % apart; /* the first of its phase */
        int place = (column + k->pad[1]) / apart, room = k->positions - place;
        int count = (k->in[1] - column + apart - 1) / apart;
        int first = slab / k->slabs * deep + slab % k->slabs * PTQ__SLAB_WORDS * k->engine->codes;
        k->strip[i].from = ((ptrdiff_t)column * k->in[2] + first) * size;
        k->strip[i].to = slab * k->slab_bytes + (phase * k->positions + place) * k->pitch;
        k->strip[i].count = count < room ? count : room;
    }
}

static void ptq__make_pieces(ptq__packed *k) {
    int words = (k->in[2] / k->groups + k->engine->codes - 1) / k->engine->codes, i;
    int rows = k->tiles ? k->rows : 0; /* as they are: see ptq__winograd_rows */
    for (i = 0; i < k->pieces && k->engine->matrix; i++)
        k->piece[i].offset = i % (k->run_words / k->piece_words) * k->piece_words * PTQ__WORD;
    for (i = 0; i < k->pieces - rows && !k->engine->matrix; i++) {
        ptq__piece *piece = &k->piece[i + rows];
        int slab = i % k->slabs, v = i / k->slabs % k->kernel[1];
        int left = words - slab * PTQ__SLAB_WORDS;
        piece->offset = (int)(slab * k->slab_bytes) +
                        (v % k->stride[1] * k->positions + v / k->stride[1]) * PTQ__SLAB;
        piece->words = left < PTQ__SLAB_WORDS ? left : PTQ__SLAB_WORDS;
    }
}

/* One weight, as float, or as integer less its zero point. */
static void ptq__copy_weight(const ptq__packed *k, const ptq__step *step, size_t from, char *to) {
    int16_t both;
    if (k->engine->codes == 1) {
        memcpy(to, (const float *)step->weight + from, sizeof(float));
        return;
    }
    both = (int16_t)ptq__weight_code(step, from);
    if (k->engine->codes == 2)
        memcpy(to, &both, sizeof both);
    else
        *to = (char)both;
}

/* G x, of three numbers that lie `from` apart, to four that lie `to` apart: ptq__winograd_rows. */
static void ptq__four_of_three(const int *x, int from, int *y, int to) {
    y[0] = 2 * x[0];
    y[to] = x[0] + x[from] + x[2 * from];
    y[2 * to] = x[0] - x[from] + x[2 * from];
    y[3 * to] = 2 * x[2 * from];
}

/* G W G', of which `from` is the first weight: a number for each place, `plane` bytes apart. */
static void ptq__copy_places(const ptq__step *step, size_t from, char *to, ptrdiff_t plane) {
    int w[9], columns[4 * 3], place[PTQ__PLACES], i;
    for (i = 0; i < 9; i++)
        w[i] = ptq__weight_code(step, from + (size_t)i);
    for (i = 0; i < 3; i++)
        ptq__four_of_three(w + i, 3, columns + i, 3);
    for (i = 0; i < 4; i++)
        ptq__four_of_three(columns + 3 * i, 1, place + 4 * i, 1);
    for (i = 0; i < PTQ__PLACES; i++) {
        int16_t code = (int16_t)place[i];
        memcpy(to + i * plane, &code, sizeof code);
    }
}

/* Where code i of a run for one lane lies, from the start of the run. */
static ptrdiff_t ptq__weight_offset(const ptq__engine *engine, int wide, int i, int lane) {
    int codes = engine->codes, size = PTQ__WORD / codes, word = i / codes * wide + lane;
    if (engine->planar)
        return (word - lane % engine->lanes) * PTQ__WORD +
               (i % codes * engine->lanes + lane % engine->lanes) * size;
    return word * PTQ__WORD + i % codes * size;
}

/* The weights of one run of taps for one panel: word by word, lane by lane. Memory is zeroed. Of
   places, all runs at once. */
static char *ptq__pack_run(const ptq__packed *k, const ptq__step *step, const ptq__panel *panel,
                           int tap, char *to) {
    int deep = k->in[2] / k->groups, taps = k->kernel[0] * k->kernel[1];
    int wide = k->engine->lanes << panel->two, i, lane;
    ptrdiff_t bytes = (ptrdiff_t)k->run_words * wide * PTQ__WORD;
    for (i = 0; i < k->run * deep; i++)
        for (lane = 0; lane < panel->channels; lane++) {
            size_t from = (size_t)(panel->first + lane) * (size_t)deep + (size_t)(i % deep);
            char *at = to + ptq__weight_offset(k->engine, wide, i, lane);
            if (k->tiles)
                ptq__copy_places(step, from * (size_t)taps, at, bytes);
            else
                ptq__copy_weight(k, step, from * (size_t)taps + (size_t)(tap + i / deep), at);
        }
    return to + (k->tiles ? PTQ__PLACES : 1) * bytes;
}

/* The zero point of staged bytes is taken off the bias: sum (x - zx) w = sum x w - zx sum w. */
static uint32_t ptq__folded_bias(const ptq__packed *k, const ptq__step *step, int channel) {
    const ptq_node *node = step->node;
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT], *bias = &node->param[PTQ_PARAM_BIAS];
    size_t i, taps = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    uint32_t sum = 0;
    for (i = 0; i < taps && k->engine->codes == 4; i++)
        sum += (uint32_t)(ptq__code(weight, (size_t)channel * taps + i) - weight->zero_point);
    return (bias->rank ? (uint32_t)((const int32_t *)bias->data)[channel] : 0) -
           (uint32_t)k->zero * sum;
}

static void ptq__pack_channel(const ptq__packed *k, const ptq__step *step, int channel, int lane) {
    const ptq_tensor *bias = &step->node->param[PTQ_PARAM_BIAS];
    uint32_t folded;
    if (step->multiplier) {
        folded = ptq__folded_bias(k, step, channel);
        memcpy(k->bias + lane * PTQ__WORD, &folded, sizeof folded);
        k->multiplier[lane] = step->multiplier[channel];
    } else if (bias->rank) {
        memcpy(k->bias + lane * PTQ__WORD, (const float *)bias->data + channel, sizeof(float));
    }
}

static void ptq__pack(ptq__packed *k, const ptq__step *step, char *weight) {
    int i, c, tap;
    for (i = 0; i < k->panels; i++) {
        k->panel[i].weight = weight;
        for (tap = 0; tap < k->taps; tap += k->tiles ? PTQ__PLACES : k->run)
            weight = ptq__pack_run(k, step, &k->panel[i], tap, weight);
        for (c = 0; c < k->panel[i].channels; c++)
            ptq__pack_channel(k, step, k->panel[i].first + c, k->panel[i].lane + c);
    }
}

/* Pixels whose sums are not finished at once: of a tile, or of a row, which may end with a part of
   a tile. */
static size_t ptq__later_pixels(const ptq__packed *k) {
    size_t tile = (size_t)k->pixels[0][1]; /* the largest */
    if (k->tiles)
        return (size_t)(PTQ__PLACES * k->room + 4 * k->tiles);
    if (k->engine->finish)
        return (size_t)k->out[1] + tile;
    return k->engine->matrix ? tile : 0;
}

static int ptq__is_depthwise(const ptq_plan *plan, const ptq__step *step) {
    const ptq_node *node = step->node;
    ptq_mode mode = ptq_node_mode(plan->info.model, step->index);
    return node->op == PTQ_OP_CONV2D && node->groups > 1 && node->groups == step->in[2] &&
           node->groups == node->shape[2] && mode != PTQ_MODE_DYNAMIC &&
           (mode == PTQ_MODE_INTEGER ? ptq__can_add(step) : !ptq__is_coded(node));
}

/* Weights tap by tap, one word each. */
static void ptq__pack_depthwise(const ptq__packed *k, const ptq__step *step) {
    int taps = k->kernel[0] * k->kernel[1], lanes = ptq__deep_lanes(k->out[2]), c, tap;
    char *weight = k->bias + 2 * lanes * PTQ__WORD;
    for (c = 0; c < k->out[2]; c++) {
        ptq__pack_channel(k, step, c, c);
        for (tap = 0; tap < taps; tap++) {
            char *to = weight + (tap * lanes + c) * PTQ__WORD;
            size_t from = (size_t)c * (size_t)taps + (size_t)tap;
            int16_t code[2] = {0, 0};
            int32_t word;
            if (!step->multiplier) {
                ptq__copy_weight(k, step, from, to);
                continue;
            }
            ptq__copy_weight(k, step, from, (char *)code);
            word = code[0];
            memcpy(to, &word, sizeof word);
        }
    }
}

static ptq_status ptq__vectorize_depthwise(ptq_plan *plan, const ptq__family *family,
                                           ptq__step *step, ptq_error *err) {
    size_t taps = (size_t)(step->node->kernel[0] * step->node->kernel[1]);
    size_t lanes = (size_t)ptq__deep_lanes(step->node->shape[2]);
    ptq__packed *k;
    size_t size = sizeof *k + (taps + 2) * lanes * PTQ__WORD + PTQ__ALIGN;
    PTQ__TRY(ptq__alloc(&plan->allocator, size, 1, "packed weights", &step->packed, err));
    k = (ptq__packed *)step->packed;
    k->engine = step->multiplier ? family->exact : family->real; /* forms of weights and codes */
    k->bias = (char *)(k + 1);
    k->bias += (PTQ__ALIGN - (uintptr_t)k->bias % PTQ__ALIGN) % PTQ__ALIGN;
    k->multiplier = (float *)(void *)(k->bias + lanes * PTQ__WORD);
    ptq__describe_conv(k, step);
    ptq__describe_finish(k, step);
    ptq__pack_depthwise(k, step);
    step->run = step->multiplier ? family->depthwise_codes : family->depthwise_real;
    return PTQ_OK;
}

/* Gives a step its vector kernel, if there is one for it. */
static ptq_status ptq__vectorize(ptq_plan *plan, ptq__step *step, ptq_error *err) {
    const ptq__family *family = ptq__family_of(plan->info.isa);
    ptq__packed shape, *k;
    size_t words, size, at;
    int lanes, panels;
    char *memory;
    memset(&shape, 0, sizeof shape);
    if (!family)
        return PTQ_OK;
    if (step->node->op == PTQ_OP_GLOBAL_AVG_POOL)
        step->run = ptq__is_coded(step->node) ? family->average_codes : family->average_real;
    if (step->node->op == PTQ_OP_ADD && !ptq__is_coded(step->node))
        step->run = family->add_real;
    if (step->node->op == PTQ_OP_ADD && ptq__is_coded(step->node) && ptq__can_add(step))
        step->run = family->add_codes;
    if (ptq__is_depthwise(plan, step))
        return ptq__vectorize_depthwise(plan, family, step, err);
    shape.engine = ptq__choose_engine(plan, family, step);
    if (!shape.engine)
        return PTQ_OK;
    ptq__describe_conv(&shape, step);
    ptq__describe_finish(&shape, step);
    panels = ptq__make_panels(&shape, NULL, &lanes);
    words = (size_t)shape.run_words * (size_t)(shape.taps / shape.run);
    at = ptq__align(sizeof shape) + ptq__align((size_t)shape.pieces * sizeof *shape.piece) +
         ptq__align((size_t)shape.strips * sizeof *shape.strip) +
         ptq__align((size_t)panels * sizeof *shape.panel);
    size = at + ((size_t)lanes * 2 + words * (size_t)lanes) * PTQ__WORD + PTQ__ALIGN;
    PTQ__TRY(ptq__alloc(&plan->allocator, size, 1, "packed weights", &step->packed, err));
    memory = (char *)step->packed;
    k = (ptq__packed *)step->packed;
    *k = shape;
    k->panels = panels;
    k->piece = (ptq__piece *)(void *)(memory + ptq__align(sizeof shape));
    k->panel =
        (ptq__panel *)(void *)((char *)k->piece + ptq__align((size_t)k->pieces * sizeof *k->piece));
    k->strip =
        (ptq__strip *)(void *)((char *)k->panel + ptq__align((size_t)panels * sizeof *k->panel));
    k->bias = memory + at + (PTQ__ALIGN - (uintptr_t)(memory + at) % PTQ__ALIGN) % PTQ__ALIGN;
    k->multiplier = (float *)(void *)(k->bias + lanes * PTQ__WORD);
    ptq__make_panels(k, k->panel, &lanes);
    ptq__make_strips(k);
    ptq__make_pieces(k);
    ptq__pack(k, step, k->bias + 2 * lanes * PTQ__WORD);
    step->run = ptq__conv_vector;
    size = ptq__align((size_t)k->pieces * sizeof *k->piece) +
           (size_t)(k->rows + 1) * (size_t)k->row_bytes +
           PTQ__PLACES * (size_t)ptq__input_plane(k) +
           ptq__later_pixels(k) * 2 * (size_t)k->engine->lanes * PTQ__WORD;
    step->scratch = size > step->scratch ? size : step->scratch;
    return PTQ_OK;
}

static void ptq__preprocess(const ptq_plan *plan, const uint8_t *pixels, float *out) {
    const ptq__family *family = ptq__family_of(plan->info.isa);
    if (!family || plan->info.model->node[0].shape[2] > PTQ_MAX_PIXEL_CHANNELS)
        ptq_preprocess(plan->info.model, pixels, out);
    else
        family->preprocess(plan->info.model, pixels, out, (int)plan->info.pixels);
}
#else
static ptq_status ptq__vectorize(ptq_plan *plan, ptq__step *step, ptq_error *err) {
    (void)plan, (void)step, (void)err;
    return PTQ_OK;
}

static void ptq__preprocess(const ptq_plan *plan, const uint8_t *pixels, float *out) {
    ptq_preprocess(plan->info.model, pixels, out);
}
#endif /* PTQ__VECTOR */

/* ---- [SELF-TEST] ------------------------------------------------------------------------- */

/* Random networks: a convolution of any kind, one more, a third with a fused addition, an addition
   of its own, a pool, a dense layer. */
typedef struct ptq__probe {
    ptq_rng rng;
    ptq__text text;
    int integer;
    int height, width, channels; /* of the last tensor */
    ptq_qparams q;               /* its codes */
} ptq__probe;

static int ptq__pick(ptq__probe *probe, int low, int high) {
    return low + (int)ptq_rng_below(&probe->rng, (uint32_t)(high - low + 1));
}

/* Codes of a tensor whose values reach about +-spread: some are clamped, most are not. */
static void ptq__probe_codes(ptq__probe *probe, const char *key, float spread) {
    ptq_qparams *q = &probe->q;
    int32_t low, high;
    q->type = ptq__pick(probe, 0, 1) ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    q->bits = ptq__pick(probe, 0, 2) ? 8 : ptq__pick(probe, 2, 8);
    q->scale = spread * (1 + ptq_rng_float(&probe->rng)) / (float)(1 << q->bits);
    ptq_code_range(q->type, q->bits, &low, &high);
    q->zero_point = ptq__pick(probe, 0, 3) ? ptq__pick(probe, low, high) : low;
    ptq__put(&probe->text, " %s=%s:%d:%g:%d", key, q->type == PTQ_TYPE_S8 ? "s8" : "u8", q->bits,
             (double)q->scale, (int)q->zero_point);
}

/* The window of a convolution: kernel, stride, padding. */
static void ptq__probe_window(ptq__probe *probe) {
    int kernel[2], stride[2], pad[4] = {0, 0, 0, 0}, size[2], i, kind = ptq__pick(probe, 0, 2);
    size[0] = probe->height;
    size[1] = probe->width;
    for (i = 0; i < 2; i++) {
        kernel[i] = ptq__pick(probe, 1, size[i] < 4 ? size[i] : 4);
        stride[i] = ptq__pick(probe, 0, 1) ? 1 : ptq__pick(probe, 1, 3);
        if (kind == 2) {
            pad[i] = ptq__pick(probe, 0, kernel[i] - 1);
            pad[i + 2] = ptq__pick(probe, 0, kernel[i] - 1);
        }
        size[i] += kind ? pad[i] + pad[i + 2] - kernel[i] : 0;
        size[i] = kind ? size[i] / stride[i] + 1 : (size[i] + stride[i] - 1) / stride[i];
    }
    ptq__put(&probe->text, " kernel=%dx%d stride=%dx%d", kernel[0], kernel[1], stride[0],
             stride[1]);
    if (kind == 1)
        ptq__put_string(&probe->text, " pad=valid");
    if (kind == 2)
        ptq__put(&probe->text, " pad=%d,%d,%d,%d", pad[0], pad[1], pad[2], pad[3]);
    probe->height = size[0];
    probe->width = size[1];
}

/* How weights and results are coded; weights get a scale of 0.01 when they are filled. */
static void ptq__probe_coding(ptq__probe *probe, int residual, int logits) {
    float spread = probe->q.scale * (float)(1 << probe->q.bits) * 10;
    int bits = ptq__pick(probe, 0, 2) ? 8 : ptq__pick(probe, 2, 8);
    if (!probe->integer) {
        if (!ptq__pick(probe, 0, 3))
            ptq__put_string(&probe->text, " w=f16");
        return;
    }
    ptq__put(&probe->text, " w=%s%d", ptq__pick(probe, 0, 2) ? "s" : "u", bits);
    if (residual)
        ptq__probe_codes(probe, "mid", spread);
    if (!logits || ptq__pick(probe, 0, 1))
        ptq__probe_codes(probe, "q", spread);
}

static void ptq__probe_act(ptq__probe *probe, const char *key) {
    int act = ptq__pick(probe, 0, 2);
    if (act)
        ptq__put(&probe->text, " %s=%s", key, ptq__act_name((ptq_activation)act));
}

static void ptq__probe_graph(ptq__probe *probe) {
    ptq__text *text = &probe->text;
    int groups = ptq__pick(probe, 0, 3) ? 1 : ptq__pick(probe, 2, 3), size = ptq__pick(probe, 1, 3);
    int depthwise = !ptq__pick(probe, 0, 5);
    if (depthwise)
        groups = ptq__pick(probe, 2, 40);
    probe->height = ptq__pick(probe, 1, 6);
    probe->width = ptq__pick(probe, 1, ptq__pick(probe, 0, 3) ? 10 : 40);
    probe->channels = groups;
    if (!depthwise)
        probe->channels *= ptq__pick(probe, 1, ptq__pick(probe, 0, 2) ? 8 : 40);
    ptq__put(text, "ptq-graph 1\ninput input shape=%dx%dx%d", probe->height, probe->width,
             probe->channels);
    if (probe->integer)
        ptq__probe_codes(probe, "q", 300);
    if (!depthwise)
        probe->channels = groups * ptq__pick(probe, 1, ptq__pick(probe, 0, 2) ? 20 : 40);
    ptq__put(text, "\na conv2d in=input channels=%d groups=%d", probe->channels, groups);
    ptq__probe_window(probe);
    ptq__probe_act(probe, "act");
    ptq__probe_coding(probe, 0, 0);
    ptq__put(text, "\nb conv2d in=a channels=%d kernel=%dx%d bias=%d", probe->channels, size, size,
             ptq__pick(probe, 0, 1));
    ptq__probe_coding(probe, 0, 0);
    ptq__put(text, "\nc conv2d in=b,a channels=%d kernel=%dx%d add=%s", probe->channels, size, 1,
             ptq__pick(probe, 0, 1) ? "first" : "second");
    ptq__probe_act(probe, "act");
    ptq__probe_act(probe, "add_act");
    ptq__probe_coding(probe, 1, 0);
    ptq__put(text, " out=sum\ne add in=%s", ptq__pick(probe, 0, 1) ? "b,c" : "c,b");
    ptq__probe_act(probe, "act");
    if (probe->integer)
        ptq__probe_codes(probe, "q", 2 * probe->q.scale * (float)(1 << probe->q.bits));
    ptq__put_string(text, "\npool global_avg_pool in=e");
    if (probe->integer)
        ptq__probe_codes(probe, "q", probe->q.scale * (float)(1 << probe->q.bits));
    ptq__put(text, "\nd dense in=pool channels=%d", ptq__pick(probe, 1, 40));
    ptq__probe_coding(probe, 0, 1);
    ptq__put_char(text, '\n');
}

/* Weights anywhere in their range, or at its ends only. */
static ptq_status ptq__probe_fill(ptq__probe *probe, ptq_model *model, ptq_node *node,
                                  ptq_error *err) {
    ptq_tensor *w = &node->param[PTQ_PARAM_WEIGHT], *b = &node->param[PTQ_PARAM_BIAS];
    int is_signed = w->type == PTQ_TYPE_S8 || w->type == PTQ_TYPE_PACKED_S,
        rails = !ptq__pick(probe, 0, 3);
    size_t i, n = ptq_tensor_elements(w);
    float scale = 1.28f / (float)(1 << w->bits % 16);
    int32_t low, high;
    for (i = 0; i < ptq_tensor_elements(b); i++)
        if (probe->integer)
            ((int32_t *)b->data)[i] = ptq__pick(probe, -5000, 5000);
        else
            ((float *)b->data)[i] = ptq_rng_float(&probe->rng) - 0.5f;
    for (i = 0; i < n && !probe->integer; i++) {
        float value = (ptq_rng_float(&probe->rng) - 0.5f) / sqrtf((float)(n / (size_t)w->dim[0]));
        if (w->type == PTQ_TYPE_F16)
            ((uint16_t *)w->data)[i] = ptq_f32_to_f16(value);
        else
            ((float *)w->data)[i] = value;
    }
    if (!probe->integer)
        return PTQ_OK;
    ptq_code_range(is_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8, w->bits, &low, &high);
    for (i = 0; i < n; i++)
        ptq_tensor_set_code(w, i,
                            !rails                   ? ptq__pick(probe, low, high)
                            : ptq__pick(probe, 0, 1) ? low
                                                     : high);
    scale /= sqrtf((float)(n / (size_t)w->dim[0]));
    return ptq_tensor_set_scale(w, &scale, 1, is_signed ? 0 : ptq__pick(probe, low, high),
                                &model->allocator, err);
}

static ptq_status ptq__probe_model(uint64_t seed, int integer, ptq_model **out, ptq_error *err) {
    char text[2048];
    ptq__probe probe;
    ptq_model *model = NULL;
    ptq_status status;
    int i;
    memset(&probe, 0, sizeof probe);
    ptq_rng_seed(&probe.rng, seed, (uint64_t)integer);
    probe.text = ptq__text_over(text, sizeof text);
    probe.integer = integer;
    ptq__probe_graph(&probe);
    PTQ__TRY(ptq_graph_parse(text, probe.text.length, NULL, &model, err));
    for (i = 1, status = PTQ_OK; i < model->nodes && !status; i++)
        if (ptq__has_weight(model->node[i].op))
            status = ptq__probe_fill(&probe, model, &model->node[i], err);
    if (status)
        ptq_model_free(model);
    else
        *out = model;
    return status;
}

/* Codes must be equal; real numbers within 1e-4 of the tensor's
   largest. */
static ptq_status ptq__probe_compare(const ptq_session *a, const ptq_session *b, const char *name,
                                     ptq_error *err) {
    ptq_tensor x, y;
    float largest = 0, distance = 0;
    size_t i, n;
    PTQ__TRY(ptq_session_tensor(a, name, &x, err));
    PTQ__TRY(ptq_session_tensor(b, name, &y, err));
    n = ptq_tensor_elements(&x);
    for (i = 0; i < n; i++) {
        float u = ptq_tensor_number(&x, i), v = ptq_tensor_number(&y, i);
        largest = fabsf(u) > largest ? fabsf(u) : largest;
        distance = fabsf(u - v) > distance ? fabsf(u - v) : distance;
    }
    if (distance > (ptq__is_coded(&a->plan->info.model->node[1]) ? 0 : 1e-5f + 1e-4f * largest))
        return ptq_error_set(err, PTQ_BAD_NUMBER,
                             "the %s kernels differ from scalar ones by %g in"
                             " tensor %s",
                             ptq_isa_name(b->plan->info.isa), (double)distance, name);
    return PTQ_OK;
}

/* All tensors of a run under both, and the logits of a run that reuses memory. */
static ptq_status ptq__probe_sessions(ptq_session *const *s, ptq__probe *probe, ptq_error *err) {
    static const char *const name[] = {"a", "b", "c", "sum", "e", "pool", "d"};
    uint8_t pixels[6 * 40 * 120];
    float logits[2][40];
    size_t i;
    int rails = !ptq__pick(probe, 0, 3);
    for (i = 0; i < ptq_plan_get_info(s[0]->plan)->pixels; i++)
        pixels[i] = (uint8_t)(rails ? 255 * ptq__pick(probe, 0, 1) : ptq__pick(probe, 0, 255));
    PTQ__TRY(ptq_run(s[0], pixels, 1, NULL, NULL, err));
    PTQ__TRY(ptq_run(s[1], pixels, 1, logits[0], NULL, err));
    PTQ__TRY(ptq_run(s[2], pixels, 1, logits[1], NULL, err));
    for (i = 0; i < sizeof name / sizeof name[0]; i++)
        PTQ__TRY(ptq__probe_compare(s[0], s[1], name[i], err));
    if (memcmp(logits[0], logits[1],
               (size_t)ptq_plan_get_info(s[0]->plan)->classes * sizeof(float)))
        return ptq_error_set(err, PTQ_BAD_NUMBER, "the %s kernels depend on where tensors lie",
                             ptq_isa_name(s[1]->plan->info.isa));
    return PTQ_OK;
}

/* One random network under the scalar kernels and under those of `isa`. */
static ptq_status ptq__probe_once(ptq_isa isa, uint64_t seed, int integer, ptq_error *err) {
    ptq_model *model = NULL;
    ptq_plan *plan[2] = {NULL, NULL};
    ptq_session *session[3] = {NULL, NULL, NULL};
    ptq_plan_options options;
    ptq_session_options keep;
    ptq__probe probe;
    ptq_status status;
    int i;
    memset(&probe, 0, sizeof probe);
    memset(&options, 0, sizeof options);
    memset(&keep, 0, sizeof keep);
    keep.keep = 1;
    ptq_rng_seed(&probe.rng, seed, 7);
    status = ptq__probe_model(seed, integer, &model, err);
    for (i = 0; i < 2 && !status; i++) {
        options.isa = i ? isa : PTQ_ISA_SCALAR;
        status = ptq_plan_create(model, &options, &plan[i], err);
    }
    for (i = 0; i < 3 && !status; i++)
        status = ptq_session_create(plan[i > 0], i < 2 ? &keep : NULL, &session[i], err);
    if (!status)
        status = ptq__probe_sessions(session, &probe, err);
    for (i = 0; i < 3; i++)
        ptq_session_free(session[i]);
    for (i = 0; i < 2; i++)
        ptq_plan_free(plan[i]);
    ptq_model_free(model);
    return status;
}

PTQ_API ptq_status ptq_kernel_self_test(ptq_isa isa, ptq_error *err) {
    int i;
    for (i = 0; i < 16; i++)
        PTQ__TRY(ptq__probe_once(isa, (uint64_t)i, i % 4 != 0, err));
    return PTQ_OK;
}

/* =============================================================================================
   PART FOUR: SEARCH
   What lowers the loss of accuracy: built on part one, from outside.
   ============================================================================================= */

/* ---- [EQUALIZE] ----------------------------------------------------------------------------- */

/* Equalization. `group` joins tensors that must share factors, as a forest of node indices; 0, the
   image, is the root of all that must stay as they are. */

typedef struct ptq__equalizer {
    ptq_model *model;
    int *group;
    int *first;   /* where the channels of a node's result begin in `reach` */
    float *reach; /* largest absolute value of each channel, later its factor */
    int channels; /* of all results together */
} ptq__equalizer;

static int ptq__group_of(const ptq__equalizer *eq, int i) {
    while (eq->group[i] != i)
        i = eq->group[i];
    return i;
}

/* The smaller root wins: so 0 keeps whatever joins it. */
static void ptq__join(ptq__equalizer *eq, int a, int b) {
    a = ptq__group_of(eq, a);
    b = ptq__group_of(eq, b);
    eq->group[a > b ? a : b] = a > b ? b : a;
}

static void ptq__join_tensors(ptq__equalizer *eq) {
    int i;
    for (i = 0; i < eq->model->nodes; i++)
        eq->group[i] = i;
    for (i = 1; i < eq->model->nodes; i++) {
        const ptq_node *node = &eq->model->node[i];
        if (!ptq__has_weight(node->op))
            ptq__join(eq, i, node->input[0]);
        if (node->input[1] >= 0)
            ptq__join(eq, i, node->input[1]);
        if (node->op == PTQ_OP_SOFTMAX || node->op == PTQ_OP_BATCH_NORM ||
            node->op == PTQ_OP_RELU6 || node->act == PTQ_ACTIVATION_RELU6 ||
            node->add_act == PTQ_ACTIVATION_RELU6 || i == ptq_model_logits(eq->model))
            ptq__join(eq, i, 0);
    }
}

/* What an image says about the channels of a tensor. */
static void ptq__reach_channels(float *reach, const float *x, size_t n, int channels) {
    size_t i;
    for (i = 0; i < n; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        float *to = &reach[i % (size_t)channels];
        *to = a > *to ? a : *to;
    }
}

static ptq_status ptq__equalize_begin(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    const ptq__equalizer *eq = (const ptq__equalizer *)job->context;
    return ptq__alloc(&job->allocator, (size_t)eq->channels, sizeof(float), "channel ranges",
                      &worker->own, err);
}

static ptq_status ptq__equalize_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                    ptq_error *err) {
    const ptq__equalizer *eq = (const ptq__equalizer *)job->context;
    int i, middle;
    (void)index;
    (void)label;
    PTQ__TRY(ptq__run_item(worker->session, job->data, worker->item, NULL, err));
    for (i = 1; i < eq->model->nodes; i++) {
        const ptq_node *node = &eq->model->node[i];
        for (middle = node->residual ? 1 : 0; middle >= 0; middle--) {
            ptq_tensor view;
            PTQ__TRY(
                ptq_session_tensor(worker->session, middle ? node->name : node->out, &view, err));
            ptq__reach_channels((float *)worker->own + eq->first[i], (const float *)view.data,
                                ptq_tensor_elements(&view), node->shape[2]);
        }
    }
    return PTQ_OK;
}

static ptq_status ptq__equalize_end(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq__equalizer *eq = (ptq__equalizer *)job->context;
    (void)err;
    if (worker->own)
        ptq__reach_channels(eq->reach, (const float *)worker->own, (size_t)eq->channels,
                            eq->channels);
    ptq__free(&job->allocator, worker->own);
    return PTQ_OK;
}

/* Ranges of a group's tensors become factors, the same for all of them. A channel twenty times
   smaller than the largest is noise, which need not be magnified further. */
static void ptq__choose_factors(ptq__equalizer *eq, int root) {
    int i, c, channels = eq->model->node[root].shape[2];
    float *to = eq->reach + eq->first[root], most = 0;
    for (i = root + 1; i < eq->model->nodes; i++)
        if (ptq__group_of(eq, i) == root)
            ptq__reach_channels(to, eq->reach + eq->first[i], (size_t)channels, channels);
    for (c = 0; c < channels; c++)
        most = to[c] > most ? to[c] : most;
    for (c = 0; c < channels; c++) {
        float share = most > 0 ? to[c] / most : 1;
        to[c] = root == 0 ? 1 : (float)sqrt((double)(share > 0.05f ? share : 0.05f));
    }
}

/* The input channel that weight k of output channel o belongs to. */
static int ptq__tap_channel(const ptq_model *model, const ptq_node *node, int o, size_t k) {
    int channels = model->node[node->input[0]].shape[2];
    int area = node->op == PTQ_OP_CONV2D ? node->kernel[0] * node->kernel[1] : 1;
    int first = o / (node->shape[2] / node->groups) * (channels / node->groups);
    return (first + (int)k / area) % channels;
}

/* w[o][i] * factor of i / factor of o; b[o] / factor of o. */
static void ptq__apply_factors(const ptq__equalizer *eq, int index) {
    ptq_node *node = &eq->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    int in = ptq__group_of(eq, node->input[0]), out = ptq__group_of(eq, index);
    const float *from = eq->reach + eq->first[in], *to = eq->reach + eq->first[out];
    float *w = (float *)weight->data, *b = (float *)node->param[PTQ_PARAM_BIAS].data;
    size_t k, taps = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    int o;
    for (o = 0; o < weight->dim[0]; o++) {
        float own = out ? to[o] : 1;
        for (k = 0; k < taps; k++) {
            float *at = &w[(size_t)o * taps + k];
            *at = *at * (in ? from[ptq__tap_channel(eq->model, node, o, k)] : 1) / own;
        }
        if (b)
            b[o] /= own;
    }
}

/* "conv1 1 0.5;block1.conv1 0.7 1": what the channels of each tensor were divided by. */
static void ptq__put_factors(ptq__text *text, const ptq__equalizer *eq) {
    int i, c;
    for (i = 1; i < eq->model->nodes; i++) {
        int root = ptq__group_of(eq, i);
        if (!root)
            continue;
        ptq__put(text, text->length ? ";%s" : "%s", eq->model->node[i].out);
        for (c = 0; c < eq->model->node[i].shape[2]; c++)
            ptq__put(text, " %g", (double)eq->reach[eq->first[root] + c]);
    }
}

/* Into the metadata, for ptq_compare_layers. */
static ptq_status ptq__keep_factors(const ptq__equalizer *eq, ptq_error *err) {
    ptq__text text = ptq__text_over(NULL, 0);
    void *memory = NULL;
    size_t size;
    ptq_status status;
    ptq__put_factors(&text, eq);
    size = text.length + 1;
    PTQ__TRY(ptq__alloc(&eq->model->allocator, size, 1, "factors", &memory, err));
    text = ptq__text_over((char *)memory, size);
    ptq__put_factors(&text, eq);
    status = ptq_model_set_meta(eq->model, "equalization", (char *)memory, err);
    ptq__free(&eq->model->allocator, memory);
    return status;
}

/* All tensors of a group keep the same. */
static ptq_status ptq__read_factors(ptq__equalizer *eq, const ptq_model *quantized,
                                    ptq_error *err) {
    int i, c;
    for (i = 0; i < eq->channels; i++)
        eq->reach[i] = 1;
    for (i = 1; i < eq->model->nodes; i++) {
        const ptq_node *node = &eq->model->node[i];
        int root = ptq__group_of(eq, i);
        float *to = eq->reach + eq->first[root];
        ptq__span factors;
        if (!root || !ptq__find_factors(quantized, node, &factors))
            continue;
        for (c = 0; c < node->shape[2]; c++)
            if (!ptq__read_float(ptq__cut(&factors, ' '), &to[c]) || !(to[c] > 0))
                return ptq_error_set(err, PTQ_BAD_FILE,
                                     "metadata equalization: no factor for channel %d of %s; give"
                                     " the model that the quantized one was made from",
                                     c, node->out);
    }
    return PTQ_OK;
}

static ptq_status ptq__equalizer_open(ptq__equalizer *eq, const ptq_allocator *allocator,
                                      ptq_error *err) {
    size_t n = (size_t)eq->model->nodes, i;
    void *memory = NULL;
    PTQ__TRY(ptq__alloc(allocator, 2 * n, sizeof(int), "equalization", &memory, err));
    eq->group = (int *)memory;
    eq->first = eq->group + n;
    for (i = 0; i < n; i++) {
        eq->first[i] = eq->channels;
        eq->channels += eq->model->node[i].shape[2];
    }
    PTQ__TRY(
        ptq__alloc(allocator, (size_t)eq->channels, sizeof(float), "channel ranges", &memory, err));
    eq->reach = (float *)memory;
    ptq__join_tensors(eq);
    return PTQ_OK;
}

static ptq_status ptq__apply_all_factors(ptq__equalizer *eq, ptq_error *err) {
    int i;
    for (i = 1; i < eq->model->nodes; i++)
        if (ptq__has_weight(eq->model->node[i].op))
            ptq__apply_factors(eq, i);
    PTQ__TRY(ptq__keep_factors(eq, err));
    return ptq_model_check(eq->model, err);
}

static ptq_status ptq__equalize_with(ptq__equalizer *eq, const ptq_plan *plan,
                                     const ptq_dataset *data, const ptq_calibrate_options *options,
                                     ptq_error *err) {
    ptq__job job;
    int i;
    memset(&job, 0, sizeof job);
    job.plan = plan;
    job.data = data;
    job.total = data->count;
    job.keep = 1;
    job.begin = ptq__equalize_begin;
    job.one = ptq__equalize_one;
    job.end = ptq__equalize_end;
    job.context = eq;
    job.progress = options->work.progress;
    job.user = options->work.user;
    job.allocator = options->work.allocator;
    PTQ__TRY(ptq__equalizer_open(eq, &job.allocator, err));
    PTQ__TRY(ptq__job_run(&job, options->work.threads, err));
    for (i = 0; i < eq->model->nodes; i++)
        if (ptq__group_of(eq, i) == i)
            ptq__choose_factors(eq, i);
    return ptq__apply_all_factors(eq, err);
}

/* Hands the model over, or frees it. */
static ptq_status ptq__equalizer_close(ptq__equalizer *eq, const ptq_allocator *allocator,
                                       ptq_status status, ptq_model **out) {
    ptq__free(allocator, eq->group);
    ptq__free(allocator, eq->reach);
    if (status)
        ptq_model_free(eq->model);
    else
        *out = eq->model;
    return status;
}

PTQ_API ptq_status ptq_equalize(const ptq_plan *plan, const ptq_dataset *data,
                                const ptq_calibrate_options *options, ptq_model **out,
                                ptq_error *err) {
    ptq_calibrate_options plain;
    ptq__equalizer eq;
    ptq_status status;
    memset(&plain, 0, sizeof plain);
    memset(&eq, 0, sizeof eq);
    options = options ? options : &plain;
    PTQ__TRY(ptq__check_fits(plan, data, err));
    if (ptq__is_quantized(plan->info.model))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "this model is quantized already; equalize the float model");
    PTQ__TRY(ptq_model_copy(plan->info.model, &options->work.allocator, &eq.model, err));
    status = ptq__equalize_with(&eq, plan, data, options, err);
    return ptq__equalizer_close(&eq, &options->work.allocator, status, out);
}

PTQ_API ptq_status ptq_equalize_like(const ptq_model *model, const ptq_model *quantized,
                                     ptq_model **out, ptq_error *err) {
    const ptq_allocator *allocator = &model->allocator;
    ptq__equalizer eq;
    ptq_status status;
    memset(&eq, 0, sizeof eq);
    if (ptq__is_quantized(model))
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "this model is quantized already; equalize the float model");
    PTQ__TRY(ptq_model_copy(model, allocator, &eq.model, err));
    status = ptq__equalizer_open(&eq, allocator, err);
    if (!status)
        status = ptq__read_factors(&eq, quantized, err);
    if (!status && ptq_model_get_meta(quantized, "equalization"))
        status = ptq__apply_all_factors(&eq, err);
    return ptq__equalizer_close(&eq, allocator, status, out);
}

/* ---- [LEARN] -------------------------------------------------------------------------------- */

/* Learned rounding. For one channel with weights w, scale s and codes q, the error of the result is
   d x with d = w - s q, x the input; its variance over images is d C d with C the covariance of x.
   Starting from the nearest codes, the one step of a code by 1 that lowers d C d most is taken, as
   long as there is one. The mean of the error goes into the bias. C comes from the integer codes of
   the layer's input as the quantized model computes them: exact sums, so that neither the order of
   images nor threads matter.

   Refitting (ptq_scheme.refit) first replaces w by the weights that make of the codes x what the
   float model makes of its real inputs: the minimum of E(y - w x - b)^2, y the float model's result
   before its activation. Layers are then learned one after the other, each on what the layers
   before it became. */

typedef struct ptq__moments {
    int taps;         /* of one group; 0: this node does not learn */
    uint64_t count;   /* input vectors seen */
    int64_t *sum;     /* groups x taps: of x */
    int64_t *product; /* groups x taps x taps, lower triangle: of x[i] x[j]. NULL: only the bias is
                          learned */
    int64_t *target;  /* channels: of y, in units of `unit`. NULL: all nodes learn in one pass */
    int64_t *cross;   /* channels x taps: of y x[i]. NULL: no refitting */
    double unit;
} ptq__moments;

enum {
    PTQ__MOMENT_PATCHES = 64, /* output positions looked at per image */
    PTQ__MOST_LEARNED = 4608  /* taps: 512 channels of 3x3. More would need gigabytes */
};

typedef struct ptq__learner {
    const ptq__converter *cv;
    const ptq_plan *plan;  /* of the model that is being made */
    const ptq_plan *real;  /* of the float model, where there are targets */
    int only;              /* the node to learn; -1: all */
    int last;              /* the last node that must run */
    ptq__moments *moments; /* one for each node of the new model */
    int16_t *patch;        /* PTQ__MOMENT_PATCHES vectors, as gathered and transposed */
    int16_t *column;
    float *reals;         /* one vector of real inputs */
    int32_t *target;      /* channels x PTQ__MOMENT_PATCHES */
    ptq_session *session; /* of `real` */
} ptq__learner;

/* Taps of a node that learns; 0 otherwise. */
static int ptq__learned_taps(const ptq__converter *cv, int index) {
    const ptq_node *node = &cv->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const ptq_scheme *scheme = ptq__scheme_of(cv, node);
    size_t taps;
    if (!ptq__has_weight(node->op) || ptq_node_mode(cv->model, index) != PTQ_MODE_INTEGER ||
        (scheme->rounding != PTQ_ROUNDING_LEARNED && scheme->bias != PTQ_BIAS_CORRECTION_EMPIRICAL))
        return 0;
    taps = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    return taps <= PTQ__MOST_LEARNED ? (int)taps : 0;
}

static void ptq__learner_free(ptq__learner *learner) {
    const ptq_allocator *allocator = &learner->cv->model->allocator;
    int i;
    for (i = 0; i < learner->cv->model->nodes && learner->moments; i++) {
        ptq__free(allocator, learner->moments[i].sum);
        ptq__free(allocator, learner->moments[i].product);
        ptq__free(allocator, learner->moments[i].target);
        ptq__free(allocator, learner->moments[i].cross);
    }
    ptq__free(allocator, learner->moments);
    ptq__free(allocator, learner->patch);
    ptq__free(allocator, learner->column);
    ptq__free(allocator, learner->reals);
    ptq__free(allocator, learner->target);
    ptq_session_free(learner->session);
}

static ptq_status ptq__new_sums(const ptq_allocator *allocator, size_t n, int64_t **out,
                                ptq_error *err) {
    void *memory = NULL;
    PTQ__TRY(ptq__alloc(allocator, n, sizeof(int64_t), "moments", &memory, err));
    *out = (int64_t *)memory;
    return PTQ_OK;
}

/* The largest absolute value of a tensor of the float model on calibration images; of the input, on
   any. */
static double ptq__reach(const ptq__converter *cv, int index) {
    const ptq_statistics *s;
    double low = 0, high = 0;
    int c, t = ptq_calibration_find(cv->calibration, cv->old->node[index].out);
    if (t >= 0) {
        s = &cv->calibration->tensor[t].observer.channel[0];
        low = (double)s->min;
        high = (double)s->max;
    }
    for (c = 0; c < cv->old->node[0].shape[2] && index == 0; c++) {
        low = (double)ptq__pixel(cv->old, c, 0) < low ? (double)ptq__pixel(cv->old, c, 0) : low;
        high =
            (double)ptq__pixel(cv->old, c, 255) > high ? (double)ptq__pixel(cv->old, c, 255) : high;
    }
    return high > -low ? high : -low;
}

/* A power of two, so small that real results of a node keep 26 bits, and so large that no target
   passes 2^27. */
static double ptq__target_unit(const ptq__converter *cv, const ptq_node *from, size_t taps) {
    const float *w = (const float *)from->param[PTQ_PARAM_WEIGHT].data;
    const float *b = (const float *)from->param[PTQ_PARAM_BIAS].data;
    double most = 0, reach = ptq__reach(cv, from->input[0]);
    size_t o, i, n = (size_t)from->shape[2];
    int exponent;
    for (o = 0; o < n; o++) {
        double sum = b ? fabs((double)b[o]) : 0;
        for (i = 0; i < taps; i++)
            sum += fabs((double)w[o * taps + i]) * reach;
        most = sum > most ? sum : most;
    }
    if (from->residual)
        most += 2 * ptq__reach(cv, from->input[1]);
    frexp(most, &exponent);
    return ldexp(1, exponent - 26);
}

static const ptq_node *ptq__old_node(const ptq__converter *cv, int index) {
    return &cv->old->node[ptq_model_find(cv->old, cv->model->node[index].name)];
}

/* Whether a layer is compared with the float model's: it then learns after those before it. */
static int ptq__takes_targets(const ptq_scheme *scheme) {
    return ptq__refits(scheme) || scheme->rounding == PTQ_ROUNDING_NEAREST;
}

static ptq_status ptq__moments_open(const ptq__learner *learner, int index, ptq_error *err) {
    const ptq_model *model = learner->cv->model;
    const ptq_node *node = &model->node[index];
    ptq__moments *m = &learner->moments[index];
    const ptq_scheme *scheme = ptq__scheme_of(learner->cv, node);
    size_t taps, groups = (size_t)node->groups, channels = (size_t)node->shape[2];
    if (learner->only < 0 || learner->only == index)
        m->taps = ptq__learned_taps(learner->cv, index);
    taps = (size_t)m->taps;
    if (!taps)
        return PTQ_OK;
    PTQ__TRY(ptq__new_sums(&model->allocator, groups * taps, &m->sum, err));
    if (scheme->rounding == PTQ_ROUNDING_LEARNED)
        PTQ__TRY(ptq__new_sums(&model->allocator, groups * taps * taps, &m->product, err));
    if (learner->only < 0 || !ptq__takes_targets(scheme))
        return PTQ_OK;
    m->unit = ptq__target_unit(learner->cv, ptq__old_node(learner->cv, index), taps);
    PTQ__TRY(ptq__new_sums(&model->allocator, channels, &m->target, err));
    if (!m->product)
        return PTQ_OK;
    return ptq__new_sums(&model->allocator, channels * taps, &m->cross, err);
}

/* What fails half-way is released by ptq__learner_free. */
static ptq_status ptq__learner_open(ptq__learner *learner, ptq_error *err) {
    const ptq_model *model = learner->cv->model;
    const ptq_allocator *allocator = &model->allocator;
    size_t most = 1, channels = 1;
    void *memory = NULL;
    int i;
    PTQ__TRY(
        ptq__alloc(allocator, (size_t)model->nodes, sizeof(ptq__moments), "moments", &memory, err));
    learner->moments = (ptq__moments *)memory;
    for (i = 0; i < model->nodes; i++) {
        PTQ__TRY(ptq__moments_open(learner, i, err));
        if ((size_t)learner->moments[i].taps > most)
            most = (size_t)learner->moments[i].taps;
        if (learner->moments[i].target && (size_t)model->node[i].shape[2] > channels)
            channels = (size_t)model->node[i].shape[2];
    }
    PTQ__TRY(ptq__alloc(allocator, most * PTQ__MOMENT_PATCHES, sizeof(int16_t), "moments", &memory,
                        err));
    learner->patch = (int16_t *)memory;
    PTQ__TRY(ptq__alloc(allocator, most * PTQ__MOMENT_PATCHES, sizeof(int16_t), "moments", &memory,
                        err));
    learner->column = (int16_t *)memory;
    PTQ__TRY(ptq__alloc(allocator, most, sizeof(float), "moments", &memory, err));
    learner->reals = (float *)memory;
    PTQ__TRY(ptq__alloc(allocator, channels * PTQ__MOMENT_PATCHES, sizeof(int32_t), "moments",
                        &memory, err));
    learner->target = (int32_t *)memory;
    return PTQ_OK;
}

/* Sum of products over the patches of one image: fits int32, since codes less the zero point are
   under 2^8. */
static int32_t ptq__dot_patches(const int16_t *a, const int16_t *b) {
    int32_t sum = 0;
    int i;
    for (i = 0; i < PTQ__MOMENT_PATCHES; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Adds the gathered vectors, `n` of them, to the moments of one group. */
static void ptq__add_moments(ptq__learner *learner, const ptq__moments *m, int group, int n) {
    int taps = m->taps, i, j, p;
    int64_t *sum = m->sum + (size_t)group * (size_t)taps;
    int64_t *product = m->product ? m->product + (size_t)group * (size_t)taps * (size_t)taps : NULL;
    for (i = 0; i < taps; i++)
        for (p = 0; p < PTQ__MOMENT_PATCHES; p++)
            learner->column[i * PTQ__MOMENT_PATCHES + p] =
                p < n ? learner->patch[p * taps + i] : (int16_t)0;
    for (i = 0; i < taps; i++) {
        const int16_t *a = learner->column + i * PTQ__MOMENT_PATCHES;
        for (p = 0; p < n; p++)
            sum[i] += a[p];
        for (j = 0; j <= i && m->product; j++)
            product[(size_t)i * (size_t)taps + (size_t)j] +=
                ptq__dot_patches(a, learner->column + j * PTQ__MOMENT_PATCHES);
    }
}

/* The same for the products with the targets of the group's channels. */
static void ptq__add_targets(ptq__learner *learner, const ptq__moments *m, int first, int each,
                             int n) {
    int o, i, p;
    for (o = first; o < first + each; o++) {
        const int32_t *y = learner->target + (o - first) * PTQ__MOMENT_PATCHES;
        int64_t *cross = m->cross ? m->cross + (size_t)o * (size_t)m->taps : NULL;
        for (p = 0; p < n; p++)
            m->target[o] += y[p];
        for (i = 0; i < m->taps && cross; i++) {
            const int16_t *x = learner->column + i * PTQ__MOMENT_PATCHES;
            int64_t sum = 0;
            for (p = 0; p < n; p++)
                sum += (int64_t)y[p] * x[p];
            cross[i] += sum;
        }
    }
}

/* What the channels of a group should become at position `at`: the float model's result before its
   activation; where a residual is added, also what the residual lacks. */
static void ptq__gather_targets(ptq__learner *learner, const ptq_session *session, int index,
                                int group, int at, int n) {
    const ptq__moments *m = &learner->moments[index];
    const ptq_node *node = &learner->cv->model->node[index];
    int real = ptq_model_find(learner->cv->old, node->name), each = node->shape[2] / node->groups;
    const ptq_node *from = &learner->cv->old->node[real];
    const float *w = (const float *)from->param[PTQ_PARAM_WEIGHT].data;
    const float *b = (const float *)from->param[PTQ_PARAM_BIAS].data;
    const float *r = (const float *)ptq__operand(learner->session, real, 1);
    int o;
    ptq__gather(learner->session, real, group, at, learner->reals);
    for (o = group * each; o < (group + 1) * each; o++) {
        double y = (double)ptq__dot_f32(w + (size_t)o * (size_t)m->taps, learner->reals, m->taps) +
                   (b ? (double)b[o] : 0);
        if (r && node->act == PTQ_ACTIVATION_NONE) {
            int k = at * node->shape[2] + o;
            const ptq_qparams *q = &learner->cv->model->node[node->input[1]].q;
            y += (double)r[k] -
                 (double)ptq_dequantize(ptq__load(ptq__operand(session, index, 1), k, q->type), q);
        }
        learner->target[(o - group * each) * PTQ__MOMENT_PATCHES + n] =
            (int32_t)floor(y / m->unit + 0.5);
    }
}

/* One layer on the image that has just run. Of a large image some positions are looked at, others
   from image to image; which ones depends on the image alone. */
static void ptq__learn_layer(ptq__learner *learner, const ptq_session *session, int index,
                             uint64_t hash) {
    const ptq_node *node = &learner->cv->model->node[index];
    ptq__moments *m = &learner->moments[index];
    int pixels = node->shape[0] * node->shape[1], g, p, n = 0;
    int stride = (pixels + PTQ__MOMENT_PATCHES - 1) / PTQ__MOMENT_PATCHES;
    int each = node->shape[2] / node->groups;
    for (g = 0; g < node->groups; g++) {
        for (n = 0, p = 0; n < PTQ__MOMENT_PATCHES; n++, p += stride) {
            int at = p + (int)((hash + (uint64_t)n * 5) % (uint64_t)stride);
            if (at >= pixels)
                break;
            ptq__gather(session, index, g, at, learner->patch + n * m->taps);
            if (m->target)
                ptq__gather_targets(learner, session, index, g, at, n);
        }
        ptq__add_moments(learner, m, g, n);
        if (m->target)
            ptq__add_targets(learner, m, g * each, each, n);
    }
    m->count += (uint64_t)n;
}

static ptq_status ptq__learn_begin(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    const ptq__learner *all = (const ptq__learner *)job->context;
    ptq_session_options options;
    void *memory = NULL;
    ptq__learner *part;
    PTQ__TRY(ptq__alloc(&job->allocator, 1, sizeof(ptq__learner), "moments", &memory, err));
    part = (ptq__learner *)memory;
    part->cv = all->cv;
    part->plan = all->plan;
    part->real = all->real;
    part->only = all->only;
    part->last = all->last;
    worker->own = part;
    PTQ__TRY(ptq__learner_open(part, err));
    if (!part->real)
        return PTQ_OK;
    memset(&options, 0, sizeof options);
    options.keep = 1;
    options.allocator = job->allocator;
    return ptq_session_create(part->real, &options, &part->session, err);
}

static ptq_status ptq__learn_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                 ptq_error *err) {
    ptq__learner *part = (ptq__learner *)worker->own;
    uint64_t hash = ptq__item_hash(job->data, worker->item);
    int i;
    (void)label;
    if (!ptq__has_hash(part->cv->calibration, hash))
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "image %z to learn from was not calibrated on; give the calibration"
                             " images",
                             index);
    ptq__run_until(worker->session, job->data->type, worker->item, part->last);
    if (part->real)
        ptq__run_until(part->session, job->data->type, worker->item,
                       ptq_model_find(part->cv->old, part->cv->model->node[part->last].name));
    for (i = 0; i <= part->last; i++)
        if (part->moments[i].taps)
            ptq__learn_layer(part, worker->session, i, hash);
    return PTQ_OK;
}

/* `to` may be NULL. */
static void ptq__add_sums(int64_t *to, const int64_t *from, size_t n) {
    size_t k;
    for (k = 0; k < n && to; k++)
        to[k] += from[k];
}

static ptq_status ptq__learn_end(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq__learner *all = (ptq__learner *)job->context, *part = (ptq__learner *)worker->own;
    int i;
    (void)err;
    for (i = 0; i < job->plan->info.model->nodes && part && !job->status; i++) {
        const ptq_node *node = &job->plan->info.model->node[i];
        ptq__moments *to = &all->moments[i], *from = &part->moments[i];
        size_t taps = (size_t)to->taps, n = taps * (size_t)node->groups;
        ptq__add_sums(to->sum, from->sum, n);
        ptq__add_sums(to->product, from->product, n * taps);
        ptq__add_sums(to->target, from->target, (size_t)node->shape[2]);
        ptq__add_sums(to->cross, from->cross, (size_t)node->shape[2] * taps);
        to->count += from->count;
    }
    if (part) {
        ptq__learner_free(part);
        ptq__free(&job->allocator, part);
    }
    return PTQ_OK;
}

/* Chosen on training images that were not calibrated on. */
static const double ptq__ridge = 0.01;

/* The covariance of a group's inputs, with a little added to its diagonal: what 1 % of the average
   variance does not show is not worth a large change of weights. */
static void ptq__covariance(const ptq__moments *m, int group, double *c) {
    const int64_t *sum = m->sum + (size_t)group * (size_t)m->taps;
    const int64_t *product = m->product + (size_t)group * (size_t)m->taps * (size_t)m->taps;
    size_t n = (size_t)m->taps, i, j;
    double count = (double)m->count, trace = 0;
    for (i = 0; i < n; i++)
        for (j = 0; j <= i; j++) {
            double value = (double)product[i * n + j] / count -
                           (double)sum[i] / count * ((double)sum[j] / count);
            c[i * n + j] = c[j * n + i] = value;
            trace += i == j ? value : 0;
        }
    for (i = 0; i < n; i++)
        c[i * n + i] += ptq__ridge * trace / (double)n;
}

/* Cholesky's factor l of c, lower triangle, l l' = c. 0 if c is not positive definite. */
static int ptq__factorize(const double *c, size_t n, double *l) {
    size_t i, j, k;
    for (i = 0; i < n; i++)
        for (j = 0; j <= i; j++) {
            double sum = c[i * n + j];
            for (k = 0; k < j; k++)
                sum -= l[i * n + k] * l[j * n + k];
            if (i == j && !(sum > 0))
                return 0;
            l[i * n + j] = i == j ? sqrt(sum) : sum / l[j * n + j];
        }
    return 1;
}

/* x: the solution of l l' x = x. */
static void ptq__solve(const double *l, size_t n, double *x) {
    size_t i, k;
    for (i = 0; i < n; i++) {
        for (k = 0; k < i; k++)
            x[i] -= l[i * n + k] * x[k];
        x[i] /= l[i * n + i];
    }
    for (i = n; i-- > 0;) {
        for (k = i + 1; k < n; k++)
            x[i] -= l[k * n + i] * x[k];
        x[i] /= l[i * n + i];
    }
}

/* One channel: the weights, their codes in `codes` from `at` on. `d` and `g` are scratch of n.
   Returns d C d. */
static double ptq__descend(const float *w, size_t n, float scale, int32_t low, int32_t high,
                           const double *c, ptq_tensor *codes, size_t at, double *d, double *g) {
    double s = (double)scale, gain, error = 0;
    size_t i, j, k, moves;
    for (i = 0; i < n; i++)
        d[i] = (double)w[i] - s * (double)ptq__code(codes, at + i);
    for (i = 0; i < n; i++) {
        for (g[i] = 0, j = 0; j < n; j++)
            g[i] += c[i * n + j] * d[j];
        error += d[i] * g[i];
    }
    for (moves = 0; moves < 20 * n; moves++) {
        int32_t step, code;
        for (gain = 0, k = n, i = 0; i < n; i++) { /* d C d changes by s^2 C[i][i] - 2 s |g[i]| */
            double change = s * (s * c[i * n + i] - 2 * (g[i] < 0 ? -g[i] : g[i]));
            code = ptq__code(codes, at + i) + (g[i] > 0 ? 1 : -1);
            if (change < gain && code >= low && code <= high) {
                gain = change;
                k = i;
            }
        }
        if (k == n)
            break;
        error += gain;
        step = g[k] > 0 ? 1 : -1;
        ptq_tensor_set_code(codes, at + k, ptq__code(codes, at + k) + step);
        for (i = 0; i < n; i++)
            g[i] -= s * step * c[k * n + i];
    }
    return error;
}

/* Scratch for learning one node. */
typedef struct ptq__workbench {
    double *c, *l;     /* taps x taps */
    double *d, *g, *x; /* taps */
    float *w;
    int factorized;
} ptq__workbench;

/* The weights of channel o fitted anew, into bench->w. */
static void ptq__refit_weights(const ptq__moments *m, int group, int o, const float *w,
                               double in_scale, ptq__workbench *bench) {
    const int64_t *sum = m->sum + (size_t)group * (size_t)m->taps;
    const int64_t *cross = m->cross + (size_t)o * (size_t)m->taps;
    size_t n = (size_t)m->taps, i, j;
    double count = (double)m->count, y = (double)m->target[o] / count, trace = 0;
    for (i = 0; i < n; i++)
        trace += bench->c[i * n + i];
    trace *= ptq__ridge / (1 + ptq__ridge);
    for (i = 0; i < n; i++) {
        bench->x[i] = ((double)cross[i] / count - y * ((double)sum[i] / count));
        bench->x[i] = bench->x[i] * m->unit / in_scale;
        for (j = 0; j < n; j++)
            bench->x[i] -= bench->c[i * n + j] * (double)w[j];
        bench->x[i] += trace / (double)n * (double)w[i]; /* the diagonal's share */
    }
    ptq__solve(bench->l, n, bench->x);
    for (i = 0; i < n; i++)
        bench->w[i] = (float)((double)w[i] + bench->x[i]);
}

/* What learning a channel works on. */
typedef struct ptq__channel {
    const ptq__moments *m;
    int index, group; /* of the channel */
    const float *w;   /* target weights */
    float bias;       /* of the float model */
    double in_scale;
    int32_t low, high;
    ptq_tensor *codes;
    float *scale;
} ptq__channel;

/* Nearest codes under a scale, then descent. Returns d C d. */
static double ptq__round_channel(const ptq__channel *ch, float scale, ptq__workbench *bench) {
    size_t n = (size_t)ch->m->taps, at = (size_t)ch->index * n;
    ptq__code_weights(ch->w, n, scale, ch->codes->zero_point, ch->low, ch->high, ch->codes, at);
    if (ch->codes->zero_point)
        return 0;
    return ptq__descend(ch->w, n, scale, ch->low, ch->high, bench->c, ch->codes, at, bench->d,
                        bench->g);
}

/* A refitted channel needs a scale of its own: of several around the one of least squared error of
   weights, that with the least error of the result. */
static void ptq__rescale_channel(const ptq__channel *ch, const ptq_scheme *scheme,
                                 ptq__workbench *bench) {
    float base = ptq__weight_scale(ch->w, (size_t)ch->m->taps, scheme, ch->low, ch->high);
    double least = HUGE_VAL;
    int i = 0, k;
    while (i < ch->m->taps && fabsf(ch->w[i]) < FLT_MIN)
        i++;
    if (i == ch->m->taps)
        return; /* nothing but a bias, whose scale was chosen for it */
    for (k = -4; k <= 4; k++) {
        float scale =
            ptq__scale_for_bias(base * (1 + 0.05f * (float)k), 0, ch->bias, (float)ch->in_scale);
        double error = ptq__round_channel(ch, scale, bench);
        if (error < least) {
            least = error;
            *ch->scale = scale;
        }
    }
}

/* The bias, per unit of the input's scale, that ends the mean error: E y - E(s q x); without
   targets, that of the float model and what rounding takes from it. */
static double ptq__mean_bias(const ptq__channel *ch) {
    const ptq__moments *m = ch->m;
    const int64_t *sum = m->sum + (size_t)ch->group * (size_t)m->taps;
    size_t n = (size_t)m->taps, at = (size_t)ch->index * n, i;
    double count = (double)m->count, bias;
    bias = m->target ? (double)m->target[ch->index] / count * m->unit / ch->in_scale
                     : (double)ch->bias / ch->in_scale;
    for (i = 0; i < n; i++) {
        double w =
            (double)*ch->scale * (double)(ptq__code(ch->codes, at + i) - ch->codes->zero_point);
        bias += ((m->target ? 0 : (double)ch->w[i]) - w) * ((double)sum[i] / count);
    }
    return bias;
}

/* Gives channel o of an integer node a bias, per unit of its input's scale. */
static ptq_status ptq__set_bias(ptq_node *node, int o, double bias, ptq_error *err) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    double code = floor(bias / (double)weight->scale[weight->scales > 1 ? o : 0] + 0.5);
    if (!(code >= -ptq__most_bias && code <= ptq__most_bias))
        return ptq_error_set(err, PTQ_BAD_NUMBER, "node %s: corrected bias %d does not fit 32 bits",
                             node->name, o);
    ((int32_t *)node->param[PTQ_PARAM_BIAS].data)[o] = (int32_t)code;
    return PTQ_OK;
}

static ptq_status ptq__learn_channel(const ptq__learner *learner, int index, int o,
                                     ptq__workbench *bench, ptq_error *err) {
    const ptq__converter *cv = learner->cv;
    ptq_node *node = &cv->model->node[index];
    const ptq_node *from = ptq__old_node(cv, index);
    const ptq_scheme *scheme = ptq__scheme_of(cv, from);
    ptq_tensor *bias = &node->param[PTQ_PARAM_BIAS];
    ptq__channel ch;
    ch.m = &learner->moments[index];
    ch.index = o;
    ch.group = o / (node->shape[2] / node->groups);
    ch.w = (const float *)from->param[PTQ_PARAM_WEIGHT].data + (size_t)o * (size_t)ch.m->taps;
    ch.bias = bias->rank ? ((const float *)from->param[PTQ_PARAM_BIAS].data)[o] : 0;
    ch.in_scale = (double)cv->model->node[node->input[0]].q.scale;
    ch.codes = &node->param[PTQ_PARAM_WEIGHT];
    ch.scale = &ch.codes->scale[ch.codes->scales > 1 ? o : 0];
    ptq_code_range(ch.codes->type, ch.codes->bits, &ch.low, &ch.high);
    if (!scheme->weight_affine && !scheme->weight_full_range)
        ch.low = -ch.high;
    if (bench->factorized) {
        ptq__refit_weights(ch.m, ch.group, o, ch.w, ch.in_scale, bench);
        ch.w = bench->w;
        if (ch.codes->scales > 1)
            ptq__rescale_channel(&ch, scheme, bench);
    }
    if (ch.m->product)
        ptq__round_channel(&ch, *ch.scale, bench);
    return bias->rank ? ptq__set_bias(node, o, ptq__mean_bias(&ch), err) : PTQ_OK;
}

static ptq_status ptq__learn_node(const ptq__learner *learner, int index, ptq_error *err) {
    const ptq_allocator *allocator = &learner->cv->options->work.allocator;
    const ptq__moments *m = &learner->moments[index];
    const ptq_node *node = &learner->cv->model->node[index];
    size_t n = (size_t)m->taps, square = m->product ? n * n : 0;
    ptq__workbench bench;
    void *memory = NULL;
    ptq_status status = PTQ_OK;
    int o, each = node->shape[2] / node->groups;
    PTQ__TRY(ptq__alloc(allocator, (m->cross ? 2 : 1) * square + 4 * n, sizeof(double),
                        "covariance", &memory, err));
    bench.d = (double *)memory;
    bench.g = bench.d + n;
    bench.x = bench.g + n;
    bench.w = (float *)(bench.x + n);
    bench.c = bench.x + 2 * n;
    bench.l = bench.c + square; /* not touched unless refitting */
    bench.factorized = 0;
    for (o = 0; o < node->shape[2] && !status; o++) {
        if (o % each == 0 && m->product) {
            ptq__covariance(m, o / each, bench.c);
            bench.factorized = m->cross && ptq__factorize(bench.c, n, bench.l);
        }
        status = ptq__learn_channel(learner, index, o, &bench, err);
    }
    ptq__free(allocator, memory);
    return status;
}

/* Moments in one pass over the images, then layer after layer. */
static ptq_status ptq__learn_with(ptq__learner *learner, ptq_error *err) {
    const ptq_convert_options *options = learner->cv->options;
    ptq__job job;
    int i;
    memset(&job, 0, sizeof job);
    job.plan = learner->plan;
    job.data = options->images;
    job.total = options->images->count;
    job.keep = 1;
    job.begin = ptq__learn_begin;
    job.one = ptq__learn_one;
    job.end = ptq__learn_end;
    job.context = learner;
    job.progress = options->work.progress;
    job.user = options->work.user;
    job.allocator = options->work.allocator;
    PTQ__TRY(ptq__check_fits(learner->plan, job.data, err));
    PTQ__TRY(ptq__learner_open(learner, err));
    PTQ__TRY(ptq__job_run(&job, options->work.threads, err));
    for (i = 0; i < learner->plan->info.model->nodes; i++)
        if (learner->moments[i].taps)
            PTQ__TRY(ptq__learn_node(learner, i, err));
    return PTQ_OK;
}

/* Learns node `only`, or all (-1), from one pass over the images. */
static ptq_status ptq__learn_stage(ptq__converter *cv, int only, int last, const ptq_plan *real,
                                   ptq_error *err) {
    ptq_plan_options options;
    ptq__learner learner;
    ptq_plan *plan = NULL;
    ptq_status status;
    memset(&options, 0, sizeof options);
    options.allocator = cv->options->work.allocator;
    PTQ__TRY(ptq_plan_create(cv->model, &options, &plan, err));
    memset(&learner, 0, sizeof learner);
    learner.cv = cv;
    learner.plan = plan;
    learner.real = real;
    learner.only = only;
    learner.last = last;
    status = ptq__learn_with(&learner, err);
    ptq__learner_free(&learner);
    ptq_plan_free(plan);
    return status;
}

static ptq_status ptq__learn(ptq__converter *cv, ptq_error *err) {
    ptq_plan_options options;
    ptq_plan *real = NULL;
    ptq_status status = PTQ_OK;
    int i, last = -1, targets = 0;
    for (i = 0; i < cv->model->nodes; i++)
        if (ptq__learned_taps(cv, i)) {
            last = i;
            targets = targets || ptq__takes_targets(ptq__scheme_of(cv, &cv->model->node[i]));
        }
    if (last < 0)
        return PTQ_OK;
    if (!cv->options->images || !cv->options->images->count)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "learned rounding and empirical bias correction need the calibration"
                             " images; give them in the options, or do without");
    if (!targets)
        return ptq__learn_stage(cv, -1, last, NULL, err);
    memset(&options, 0, sizeof options);
    options.allocator = cv->options->work.allocator;
    PTQ__TRY(ptq_plan_create(cv->old, &options, &real, err));
    for (i = 0; i <= last && !status; i++)
        if (ptq__learned_taps(cv, i))
            status = ptq__learn_stage(cv, i, i, real, err);
    ptq_plan_free(real);
    return status;
}

/* ---- [EXPECT] ------------------------------------------------------------------------------- */

/* Analytic bias correction. Of each channel of each float tensor, the mean and standard deviation
   that it is expected to have, without looking at images. */

typedef struct ptq__expected {
    const ptq__converter *cv;
    int *first; /* where the channels of a node's result begin */
    float *mean, *deviation;
} ptq__expected;

/* Those of a normal x become those of max(0, x), or of min(6, max(0, x)): the moments of a clipped
   normal distribution (Nagel et al. 2019, appendix C). */
static void ptq__clip_normal(ptq_activation act, float *mean, float *deviation) {
    const double root = sqrt(2.0), peak = 1 / sqrt(8 * atan(1.0));
    double m = (double)*mean, s = (double)*deviation, a, b = 0, at_a, at_b = 0, above = 0, inside;
    double first, second;
    if (act == PTQ_ACTIVATION_NONE)
        return;
    s = s > 1e-30 ? s : 1e-30;
    a = -m / s;
    at_a = peak * exp(-a * a / 2);
    if (act == PTQ_ACTIVATION_RELU6) {
        b = (6 - m) / s;
        at_b = peak * exp(-b * b / 2);
        above = erfc(b / root) / 2;
    }
    inside = 1 - erfc(-a / root) / 2 - above;
    first = m * inside + s * (at_a - at_b) + 6 * above;
    second = (m * m + s * s) * inside + 2 * m * s * (at_a - at_b) + s * s * (a * at_a - b * at_b) +
             36 * above;
    *mean = (float)first;
    *deviation = second > first * first ? (float)sqrt(second - first * first) : 0;
}

/* From the pixels of the calibration, all channels alike. */
static ptq_status ptq__expect_pixels(ptq__expected *ex, ptq_error *err) {
    const ptq_model *model = ex->cv->old;
    int c, v;
    for (c = 0; c < model->node[0].shape[2]; c++) {
        double n = 0, sum = 0, square = 0;
        for (v = 0; v < 256; v++) {
            double count = (double)ex->cv->calibration->pixel[v];
            double x = (double)ptq__pixel(model, c, v);
            n += count;
            sum += count * x;
            square += count * x * x;
        }
        if (!(n > 0))
            return ptq_error_set(err, PTQ_NOT_READY,
                                 "analytic bias correction needs a calibration on pixels; this one"
                                 " saw real numbers");
        square = square / n - sum / n * (sum / n);
        ex->mean[c] = (float)(sum / n);
        ex->deviation[c] = square > 0 ? (float)sqrt(square) : 0;
    }
    return PTQ_OK;
}

/* Sum of independent inputs times weights. */
static void ptq__expect_weighted(ptq__expected *ex, int index) {
    const ptq_node *node = &ex->cv->old->node[index];
    const float *w = (const float *)node->param[PTQ_PARAM_WEIGHT].data;
    const float *b = (const float *)node->param[PTQ_PARAM_BIAS].data;
    size_t k, taps = ptq_tensor_elements(&node->param[PTQ_PARAM_WEIGHT]) / (size_t)node->shape[2];
    int o;
    for (o = 0; o < node->shape[2]; o++, w += taps) {
        double mean = b ? (double)b[o] : 0, variance = 0;
        for (k = 0; k < taps; k++) {
            int from = ex->first[node->input[0]] + ptq__tap_channel(ex->cv->old, node, o, k);
            double deviation = (double)w[k] * (double)ex->deviation[from];
            mean += (double)w[k] * (double)ex->mean[from];
            variance += deviation * deviation;
        }
        ex->mean[ex->first[index] + o] = (float)mean;
        ex->deviation[ex->first[index] + o] = (float)sqrt(variance);
    }
}

/* The batch norm that was folded into a node; NULL if none can be seen. */
static const ptq_node *ptq__folded_norm(const ptq_model *unfused, const ptq_node *node) {
    int conv = unfused ? ptq_model_find(unfused, node->name) : -1, i;
    for (i = conv + 1; conv >= 0 && i < unfused->nodes; i++)
        if (unfused->node[i].op == PTQ_OP_BATCH_NORM && unfused->node[i].input[0] == conv &&
            unfused->node[i].shape[2] == node->shape[2])
            return &unfused->node[i];
    return NULL;
}

/* Batch norm makes the mean beta and the deviation gamma, in units of an equalized model too. */
static ptq_status ptq__expect_norm(ptq__expected *ex, int index, const ptq_node *norm,
                                   ptq_error *err) {
    const ptq_node *node = &ex->cv->old->node[index];
    float *mean = ex->mean + ex->first[index], *deviation = ex->deviation + ex->first[index];
    size_t bytes = (size_t)node->shape[2] * sizeof(float);
    ptq_tensor view;
    int c;
    for (c = 0; c < node->shape[2]; c++) {
        mean[c] = ((const float *)norm->param[PTQ_PARAM_BIAS].data)[c];
        deviation[c] = fabsf(((const float *)norm->param[PTQ_PARAM_WEIGHT].data)[c]);
    }
    PTQ__TRY(ptq_tensor_borrow(&view, PTQ_TYPE_F32, 32, 1, &node->shape[2], mean, bytes, err));
    ptq__in_units_of(ex->cv->old, node, &view);
    PTQ__TRY(ptq_tensor_borrow(&view, PTQ_TYPE_F32, 32, 1, &node->shape[2], deviation, bytes, err));
    ptq__in_units_of(ex->cv->old, node, &view);
    return PTQ_OK;
}

/* Activation, residual addition, and its activation. */
static void ptq__expect_result(ptq__expected *ex, int index) {
    const ptq_node *node = &ex->cv->old->node[index];
    int c, adds = node->op == PTQ_OP_ADD;
    ptq_activation after = adds                       ? node->act
                           : node->op == PTQ_OP_RELU  ? PTQ_ACTIVATION_RELU
                           : node->op == PTQ_OP_RELU6 ? PTQ_ACTIVATION_RELU6
                                                      : node->add_act;
    for (c = 0; c < node->shape[2]; c++) {
        float *mean = &ex->mean[ex->first[index] + c], *d = &ex->deviation[ex->first[index] + c];
        ptq__clip_normal(adds ? PTQ_ACTIVATION_NONE : node->act, mean, d);
        if (node->input[1] >= 0) {
            float other = ex->deviation[ex->first[node->input[1]] + c];
            *mean += ex->mean[ex->first[node->input[1]] + c];
            *d = sqrtf(*d * *d + other * other);
        }
        ptq__clip_normal(after, mean, d);
    }
}

static ptq_status ptq__expect_node(ptq__expected *ex, int index, ptq_error *err) {
    const ptq_node *node = &ex->cv->old->node[index];
    const ptq_node *norm =
        node->op == PTQ_OP_BATCH_NORM ? node : ptq__folded_norm(ex->cv->options->unfused, node);
    size_t bytes = (size_t)node->shape[2] * sizeof(float);
    if (norm) {
        PTQ__TRY(ptq__expect_norm(ex, index, norm, err));
    } else if (ptq__has_weight(node->op)) {
        ptq__expect_weighted(ex, index);
    } else { /* pools keep the mean, and at most the deviation */
        memcpy(ex->mean + ex->first[index], ex->mean + ex->first[node->input[0]], bytes);
        memcpy(ex->deviation + ex->first[index], ex->deviation + ex->first[node->input[0]], bytes);
    }
    ptq__expect_result(ex, index);
    return PTQ_OK;
}

/* b + sum over inputs of (w - w') E x */
static ptq_status ptq__correct_bias(const ptq__expected *ex, int index, ptq_error *err) {
    const ptq_model *old = ex->cv->old;
    const ptq_node *from = ptq__old_node(ex->cv, index);
    ptq_node *node = &ex->cv->model->node[index];
    const ptq_tensor *codes = &node->param[PTQ_PARAM_WEIGHT];
    const float *w = (const float *)from->param[PTQ_PARAM_WEIGHT].data;
    const float *b = (const float *)from->param[PTQ_PARAM_BIAS].data;
    size_t k, taps = ptq_tensor_elements(codes) / (size_t)node->shape[2];
    int o;
    for (o = 0; o < node->shape[2] && b; o++) {
        double bias = (double)b[o];
        for (k = 0; k < taps; k++) {
            size_t at = (size_t)o * taps + k;
            bias += ((double)w[at] - (double)ptq_tensor_real(codes, at)) *
                    (double)ex->mean[ex->first[from->input[0]] + ptq__tap_channel(old, from, o, k)];
        }
        PTQ__TRY(ptq__set_bias(node, o, bias / (double)ex->cv->model->node[node->input[0]].q.scale,
                               err));
    }
    return PTQ_OK;
}

static ptq_status ptq__correct_with(ptq__expected *ex, ptq_error *err) {
    const ptq__converter *cv = ex->cv;
    int i;
    PTQ__TRY(ptq__expect_pixels(ex, err));
    for (i = 1; i < cv->old->nodes; i++)
        PTQ__TRY(ptq__expect_node(ex, i, err));
    for (i = 1; i < cv->model->nodes; i++) {
        const ptq_node *node = &cv->model->node[i];
        if (ptq__has_weight(node->op) && ptq_node_mode(cv->model, i) == PTQ_MODE_INTEGER &&
            ptq__scheme_of(cv, node)->bias == PTQ_BIAS_CORRECTION_ANALYTIC)
            PTQ__TRY(ptq__correct_bias(ex, i, err));
    }
    return PTQ_OK;
}

static ptq_status ptq__correct_analytically(ptq__converter *cv, ptq_error *err) {
    const ptq_allocator *allocator = &cv->model->allocator;
    size_t n = (size_t)cv->old->nodes, channels = 0, i;
    ptq__expected ex;
    void *memory = NULL;
    ptq_status status;
    ex.cv = cv;
    PTQ__TRY(ptq__alloc(allocator, n, sizeof(int), "channels", &memory, err));
    ex.first = (int *)memory;
    for (i = 0; i < n; i++) {
        ex.first[i] = (int)channels;
        channels += (size_t)cv->old->node[i].shape[2];
    }
    status = ptq__alloc(allocator, 2 * channels, sizeof(float), "expected values", &memory, err);
    if (!status) {
        ex.mean = (float *)memory;
        ex.deviation = ex.mean + channels;
        status = ptq__correct_with(&ex, err);
        ptq__free(allocator, ex.mean);
    }
    ptq__free(allocator, ex.first);
    return status;
}

/* ---- [SEARCH] ------------------------------------------------------------------------------- */

/* Searches convert again and again, and measure against the float model. */
typedef struct ptq__search {
    const ptq_model *model;
    const ptq_calibration *calibration;
    const ptq_search_options *options;
    ptq_evaluation real; /* of the float model */
    size_t done, total;  /* conversions */
    ptq_override *override;
    int overrides;
} ptq__search;

/* The images behind those that are measured on, as a data set; `user` is the options. */
static ptq_status ptq__get_learned(void *user, size_t index, void *item, int *label,
                                   ptq_error *err) {
    const ptq_search_options *options = (const ptq_search_options *)user;
    return options->images->get(options->images->user, index + options->measure, item, label, err);
}

static ptq_dataset ptq__learned_images(const ptq_search_options *options) {
    ptq_dataset data = *options->images;
    if (options->measure && options->measure < data.count) {
        data.count -= options->measure;
        data.get = ptq__get_learned;
        data.user = (void *)(uintptr_t)options;
    }
    return data;
}

static ptq_status ptq__search_evaluate(const ptq__search *search, const ptq_model *model,
                                       ptq_evaluation *out, ptq_error *err) {
    ptq_evaluate_options options;
    ptq_plan_options plan_options;
    ptq_plan *plan = NULL;
    ptq_status status;
    memset(&options, 0, sizeof options);
    options.limit = search->options->measure;
    options.work.threads = search->options->work.threads;
    options.work.allocator = search->options->work.allocator;
    memset(&plan_options, 0, sizeof plan_options);
    plan_options.allocator = search->options->work.allocator;
    PTQ__TRY(ptq_plan_create(model, &plan_options, &plan, err));
    status = ptq__evaluate(plan, search->options->images, &options, 0, out, err);
    ptq_plan_free(plan);
    return status;
}

/* Converts with the overrides of the search, and measures. `bytes` and `made` may be NULL; only a
   model that is kept is worth confirming. */
static ptq_status ptq__search_try(ptq__search *search, const ptq_scheme *scheme,
                                  ptq_divergence *cost, size_t *bytes, ptq_model **made,
                                  ptq_error *err) {
    ptq_dataset learned;
    ptq_convert_options options;
    ptq_convert_report report;
    ptq_evaluation measured;
    ptq_model *model = NULL;
    ptq_status status;
    if (search->options->work.progress &&
        search->options->work.progress(search->options->work.user, search->done, search->total))
        return ptq_error_set(err, PTQ_CANCELLED, "cancelled after %z of %z models", search->done,
                             search->total);
    search->done++;
    memset(&options, 0, sizeof options);
    options.scheme = *scheme;
    options.scheme.confirm = scheme->confirm && made;
    options.override = search->override;
    options.overrides = search->overrides;
    learned = ptq__learned_images(search->options);
    options.images = &learned;
    options.work.threads = search->options->work.threads;
    options.work.allocator = search->options->work.allocator;
    PTQ__TRY(ptq_convert(search->model, search->calibration, &options, &model, &report, err));
    if (bytes)
        *bytes = report.bytes_after;
    ptq_convert_report_free(&report);
    status = ptq__search_evaluate(search, model, &measured, err);
    if (!status) {
        status = ptq_compare_logits(&search->real, &measured, cost, err);
        ptq_evaluation_free(&measured);
    }
    if (status || !made)
        ptq_model_free(model);
    else
        *made = model;
    return status;
}

static ptq_status ptq__search_open(ptq__search *search, int overrides, ptq_error *err) {
    ptq_convert_options plain;
    void *memory = NULL;
    if (search->options->scheme.mode != PTQ_MODE_INTEGER)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT,
                             "the scheme must be one of integers, not %s",
                             ptq_mode_name(search->options->scheme.mode));
    memset(&plain, 0, sizeof plain);
    plain.scheme = search->options->scheme;
    PTQ__TRY(ptq__check_convertible(search->model, search->calibration, &plain, err));
    PTQ__TRY(ptq__alloc(&search->options->work.allocator, (size_t)overrides, sizeof(ptq_override),
                        "overrides", &memory, err));
    search->override = (ptq_override *)memory;
    return ptq__search_evaluate(search, search->model, &search->real, err);
}

static void ptq__search_close(ptq__search *search) {
    ptq_evaluation_free(&search->real);
    ptq__free(&search->options->work.allocator, search->override);
}

/* The scheme without what learns: fast to convert with. */
static ptq_scheme ptq__plain_scheme(const ptq_scheme *scheme) {
    ptq_scheme plain = *scheme;
    plain.rounding = PTQ_ROUNDING_NEAREST;
    plain.refit = PTQ_REFIT_NEVER;
    plain.equalize = plain.fit_ranges = plain.confirm = 0;
    plain.bias = PTQ_BIAS_CORRECTION_NONE;
    return plain;
}

/* A copy of options with every scheme changed. Its overrides are to be freed. */
static ptq_status ptq__change_schemes(const ptq_convert_options *from, int (*change)(ptq_scheme *),
                                      ptq_convert_options *out, ptq_error *err) {
    ptq_override *override;
    void *memory = NULL;
    int i;
    *out = *from;
    out->override = NULL;
    change(&out->scheme);
    if (!from->overrides)
        return PTQ_OK;
    PTQ__TRY(ptq__alloc(&from->work.allocator, (size_t)from->overrides, sizeof(ptq_override),
                        "overrides", &memory, err));
    override = (ptq_override *)memory;
    memcpy(override, from->override, (size_t)from->overrides * sizeof(ptq_override));
    for (i = 0; i < from->overrides; i++)
        change(&override[i].scheme);
    out->override = override;
    return PTQ_OK;
}

/* Images in an order of their own, by hash, so that those who take the first of them take the same
   whatever the order that they came in. */
typedef struct ptq__by_hash {
    uint64_t hash;
    size_t index;
} ptq__by_hash;

static void ptq__sort_by_hash(ptq__by_hash *item, size_t n) {
    size_t gap, i, k;
    for (gap = n / 2; gap; gap = gap == 2 ? 1 : gap * 5 / 11) /* Shell 1959 */
        for (i = gap; i < n; i++) {
            ptq__by_hash moved = item[i];
            for (k = i; k >= gap && item[k - gap].hash > moved.hash; k -= gap)
                item[k] = item[k - gap];
            item[k] = moved;
        }
}

static ptq_status ptq__hash_images(const ptq_dataset *data, ptq__by_hash *item, void *pixels,
                                   ptq_error *err) {
    size_t i;
    int label;
    for (i = 0; i < data->count; i++) {
        PTQ__TRY(data->get(data->user, i, pixels, &label, err));
        item[i].hash = ptq__item_hash(data, pixels);
        item[i].index = i;
    }
    return PTQ_OK;
}

/* `indices` is to be freed. */
static ptq_status ptq__order_by_hash(const ptq_dataset *data, const ptq_allocator *allocator,
                                     size_t **indices, ptq_error *err) {
    void *item = NULL, *pixels = NULL, *memory = NULL;
    size_t i;
    ptq_status status =
        ptq__alloc(allocator, data->count, sizeof(ptq__by_hash), "hashes", &item, err);
    if (!status)
        status = ptq__alloc(allocator, ptq__item_size(data), 1, "an image", &pixels, err);
    if (!status)
        status = ptq__alloc(allocator, data->count, sizeof(size_t), "indices", &memory, err);
    if (!status)
        status = ptq__hash_images(data, (ptq__by_hash *)item, pixels, err);
    if (!status)
        ptq__sort_by_hash((ptq__by_hash *)item, data->count);
    for (i = 0; i < data->count && !status; i++)
        ((size_t *)memory)[i] = ((ptq__by_hash *)item)[i].index;
    ptq__free(allocator, item);
    ptq__free(allocator, pixels);
    if (status)
        ptq__free(allocator, memory);
    else
        *indices = (size_t *)memory;
    return status;
}

/* Range fitting. Weights are plain and of 8 bits meanwhile, so that it is the activations that
   decide, and a model is made quickly. */

enum { PTQ__FIT_IMAGES = 256 };

typedef struct ptq__fitter {
    ptq__converter *cv;
    ptq_convert_options options; /* of the models tried */
    ptq_search_options measure;
    ptq__search search;
    double most; /* SQNR of the logits so far */
} ptq__fitter;

static ptq_status ptq__fit_measure(ptq__fitter *fit, double *sqnr_db, ptq_error *err) {
    ptq__converter trial = *fit->cv;
    ptq_evaluation measured;
    ptq_divergence d;
    ptq_model *model = NULL;
    ptq_status status;
    trial.options = &fit->options;
    trial.report = NULL;
    PTQ__TRY(ptq__convert_plainly(&trial, &model, err));
    status = ptq__search_evaluate(&fit->search, model, &measured, err);
    ptq_model_free(model);
    PTQ__TRY(status);
    status = ptq_compare_logits(&fit->search.real, &measured, &d, err);
    ptq_evaluation_free(&measured);
    *sqnr_db = d.sqnr_db;
    return status;
}

/* Multiplies the range of a tensor by `factor` as long as that is better. */
static ptq_status ptq__fit_towards(ptq__fitter *fit, ptq__interval *range, float factor,
                                   ptq_error *err) {
    int k;
    for (k = 0; k < 3; k++) {
        ptq__interval before = *range;
        double sqnr_db;
        range->low *= factor;
        range->high *= factor;
        PTQ__TRY(ptq__fit_measure(fit, &sqnr_db, err));
        if (!(sqnr_db > fit->most)) {
            *range = before;
            break;
        }
        fit->most = sqnr_db;
    }
    return PTQ_OK;
}

static ptq_status ptq__fit_tensors(ptq__fitter *fit, ptq_error *err) {
    static const float factor[] = {0.85f, 1.15f};
    ptq__interval *range = fit->cv->range;
    int t, k;
    PTQ__TRY(ptq__search_evaluate(&fit->search, fit->cv->old, &fit->search.real, err));
    PTQ__TRY(ptq__fit_measure(fit, &fit->most, err));
    for (t = 0; t < fit->cv->calibration->tensors; t++) {
        double before = fit->most;
        for (k = 0; k < 2 && range[t].high > range[t].low && !(fit->most > before); k++)
            PTQ__TRY(ptq__fit_towards(fit, &range[t], factor[k], err));
    }
    return PTQ_OK;
}

static int ptq__to_fit_with(ptq_scheme *scheme) {
    *scheme = ptq__plain_scheme(scheme);
    scheme->weight_bits = 8;
    scheme->weight_method = PTQ_METHOD_MINMAX;
    return 1;
}

/* Fills cv->range. */
static ptq_status ptq__fit_ranges(ptq__converter *cv, ptq_error *err) {
    const ptq_allocator *allocator = &cv->options->work.allocator;
    ptq__fitter fit;
    ptq_subset subset;
    size_t *indices = NULL;
    ptq_status status;
    memset(&fit, 0, sizeof fit);
    fit.cv = cv;
    PTQ__TRY(ptq__order_by_hash(cv->options->images, allocator, &indices, err));
    status = ptq__change_schemes(cv->options, ptq__to_fit_with, &fit.options, err);
    fit.measure.images = &subset.dataset;
    fit.measure.measure = PTQ__FIT_IMAGES;
    fit.measure.work.threads = cv->options->work.threads;
    fit.measure.work.allocator = *allocator;
    fit.search.options = &fit.measure;
    if (!status)
        status =
            ptq_subset_open(&subset, cv->options->images, indices, cv->options->images->count, err);
    if (!status)
        status = ptq__fit_tensors(&fit, err);
    ptq_evaluation_free(&fit.search.real);
    ptq__free(allocator, (void *)(uintptr_t)fit.options.override);
    ptq__free(allocator, indices);
    return status;
}

/* Converts once model and calibration are what they should be. */
static ptq_status ptq__convert_from(ptq__converter *cv, ptq_model **out, ptq_error *err) {
    const ptq_allocator *allocator = &cv->options->work.allocator;
    void *memory = NULL;
    ptq_status status;
    if (!out || !ptq__below_8(&cv->options->scheme, cv->options->scheme.fit_ranges))
        return ptq__convert_plainly(cv, out, err);
    PTQ__TRY(ptq__alloc(allocator, (size_t)cv->calibration->tensors, sizeof(ptq__interval),
                        "ranges", &memory, err));
    cv->range = (ptq__interval *)memory;
    status = ptq__fit_ranges(cv, err);
    if (!status)
        status = ptq__convert_plainly(cv, out, err);
    ptq__free(allocator, cv->range);
    return status;
}

/* Every image must be one that was calibrated on. */
static ptq_status ptq__check_images(const ptq__converter *cv, ptq_error *err) {
    const ptq_dataset *images = cv->options->images;
    size_t known = 0;
    if (!cv->calibration)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "the model was never calibrated; run ptq_calibrate first");
    if (!images || !images->count)
        return ptq_error_set(err, PTQ_NOT_READY,
                             "equalization needs the calibration images, and so do fitting ranges"
                             " and confirming; give them in the options, or do without");
    PTQ__TRY(ptq_calibration_overlap(cv->calibration, images, &known, err));
    if (known < images->count)
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%z of %z images given were not calibrated on; give the calibration"
                             " images",
                             images->count - known, images->count);
    return PTQ_OK;
}

/* Equalizes, calibrates anew, converts that. */
static ptq_status ptq__convert_equalized(ptq__converter *cv, ptq_model **out, ptq_error *err) {
    const ptq_convert_options *options = cv->options;
    ptq_calibrate_options calibrate;
    ptq_plan_options plan_options;
    ptq_model *equalized = NULL;
    ptq_calibration *calibration = NULL;
    ptq_plan *plan = NULL, *before = NULL;
    ptq_status status;
    memset(&calibrate, 0, sizeof calibrate);
    calibrate.work.threads = options->work.threads;
    calibrate.accept_any = 1; /* they were accepted before */
    calibrate.work.allocator = options->work.allocator;
    memset(&plan_options, 0, sizeof plan_options);
    plan_options.allocator = options->work.allocator;
    PTQ__TRY(ptq_plan_create(cv->old, &plan_options, &before, err));
    status = ptq_equalize(before, options->images, &calibrate, &equalized, err);
    ptq_plan_free(before);
    if (!status)
        status = ptq_plan_create(equalized, &plan_options, &plan, err);
    if (!status)
        status = ptq_calibrate(plan, options->images, &calibrate, &calibration, err);
    if (!status) {
        cv->old = equalized;
        cv->calibration = calibration;
        status = ptq__convert_from(cv, out, err);
    }
    ptq_calibration_free(calibration);
    ptq_plan_free(plan);
    ptq_model_free(equalized);
    return status;
}

/* Converts as decided. A dry run shows the same without equalization and fitted ranges. */
static ptq_status ptq__convert_decided(ptq__converter *cv, ptq_model **out, ptq_error *err) {
    const ptq_scheme *scheme = &cv->options->scheme;
    int equalizes = out && ptq__below_8(scheme, scheme->equalize);
    if (equalizes || (out && ptq__below_8(scheme, scheme->fit_ranges)))
        PTQ__TRY(ptq__check_images(cv, err));
    return equalizes ? ptq__convert_equalized(cv, out, err) : ptq__convert_from(cv, out, err);
}

/* ---- [CONFIRM] ------------------------------------------------------------------------------ */

/* Confirmation. What there is to decide: the name of each choice, and what leaves it out of a
   scheme; 0 if that changes nothing. */

static int ptq__without_learning(ptq_scheme *s) {
    int changes = s->mode == PTQ_MODE_INTEGER && s->rounding == PTQ_ROUNDING_LEARNED;
    s->rounding = PTQ_ROUNDING_NEAREST;
    return changes;
}

static int ptq__without_refit(ptq_scheme *s) {
    int changes = s->mode == PTQ_MODE_INTEGER && ptq__refits(s);
    s->refit = PTQ_REFIT_NEVER;
    return changes;
}

static int ptq__without_equalization(ptq_scheme *s) {
    int changes = ptq__below_8(s, s->equalize);
    s->equalize = 0;
    return changes;
}

static int ptq__without_fitted_ranges(ptq_scheme *s) {
    int changes = ptq__below_8(s, s->fit_ranges);
    s->fit_ranges = 0;
    return changes;
}

static const struct {
    const char *name;
    int (*leave_out)(ptq_scheme *scheme);
} ptq__choices[] = {
    {"fitted ranges", ptq__without_fitted_ranges},
    {"equalization", ptq__without_equalization},
    {"refitted weights", ptq__without_refit},
    {"learned rounding", ptq__without_learning},
};

enum {
    PTQ__CHOICES = sizeof ptq__choices / sizeof ptq__choices[0],
    PTQ__CONFIRM_LEAST = 200, /* images. A quarter of fewer says too little */
    PTQ__CONFIRM_LEARN = 250  /* images learned from, at most, while deciding */
};

/* Whether leaving out choice k would change any scheme. */
static int ptq__is_open(const ptq_convert_options *options, int k) {
    ptq_scheme scheme = options->scheme;
    int i, open = ptq__choices[k].leave_out(&scheme);
    for (i = 0; i < options->overrides; i++) {
        scheme = options->override[i].scheme;
        open = ptq__choices[k].leave_out(&scheme) || open;
    }
    return open;
}

typedef struct ptq__decider {
    ptq__search search;
    ptq_search_options options;
    ptq_convert_options decided; /* so far */
    ptq_divergence least;
    char outcome[240];
    ptq__text text; /* over it */
} ptq__decider;

static ptq_status ptq__measure_decided(ptq__decider *decider, const ptq_convert_options *options,
                                       ptq_divergence *cost, ptq_error *err) {
    decider->search.override = (ptq_override *)(uintptr_t)options->override;
    decider->search.overrides = options->overrides;
    return ptq__search_try(&decider->search, &options->scheme, cost, NULL, NULL, err);
}

/* "refitted weights: KL 0.0513, without 0.1021"; "no ..." for what was left out. */
static void ptq__put_decision(ptq__decider *decider, int k, double with, double without) {
    ptq__put(&decider->text, "%s%s%s: KL %g, without %g", decider->text.length ? "; " : "",
             without > with ? "" : "no ", ptq__choices[k].name,
             (double)(float)(floor(with * 1e5 + 0.5) / 1e5),
             (double)(float)(floor(without * 1e5 + 0.5) / 1e5));
}

/* Leaves choice k out where the model is then no farther from float's. */
static ptq_status ptq__decide(ptq__decider *decider, int k, ptq_error *err) {
    ptq_convert_options without;
    ptq_divergence cost;
    ptq_status status;
    PTQ__TRY(ptq__change_schemes(&decider->decided, ptq__choices[k].leave_out, &without, err));
    status = ptq__measure_decided(decider, &without, &cost, err);
    if (!status) {
        ptq__put_decision(decider, k, decider->least.kl, cost.kl);
        if (!(cost.kl > decider->least.kl)) {
            ptq_convert_options before = decider->decided;
            decider->decided = without;
            without = before;
            decider->least = cost;
        }
    }
    ptq__free(&without.work.allocator, (void *)(uintptr_t)without.override);
    return status;
}

static ptq_status ptq__decide_all(ptq__decider *decider, ptq_error *err) {
    int k;
    for (k = 0, decider->search.total = 1; k < PTQ__CHOICES; k++)
        decider->search.total += (size_t)ptq__is_open(&decider->decided, k);
    PTQ__TRY(
        ptq__search_evaluate(&decider->search, decider->search.model, &decider->search.real, err));
    PTQ__TRY(ptq__measure_decided(decider, &decider->decided, &decider->least, err));
    for (k = 0; k < PTQ__CHOICES; k++)
        if (ptq__is_open(&decider->decided, k))
            PTQ__TRY(ptq__decide(decider, k, err));
    return PTQ_OK;
}

static int ptq__mark_decided(ptq_scheme *scheme) {
    scheme->confirm = 0;
    return 1;
}

/* Fills decider->decided, whose overrides are to be freed, after a failure too. */
static ptq_status ptq__confirm(const ptq__converter *cv, ptq__decider *decider, ptq_error *err) {
    const ptq_convert_options *options = cv->options;
    size_t *indices = NULL, slice = options->images->count / 4,
           rest = options->images->count - slice;
    ptq_subset subset;
    ptq_status status;
    PTQ__TRY(ptq__check_images(cv, err));
    PTQ__TRY(ptq__order_by_hash(options->images, &options->work.allocator, &indices, err));
    rest = rest < PTQ__CONFIRM_LEARN ? rest : (size_t)PTQ__CONFIRM_LEARN;
    decider->options.images = &subset.dataset;
    decider->options.measure = slice;
    decider->options.work.threads = options->work.threads;
    decider->options.work.progress = options->work.progress;
    decider->options.work.user = options->work.user;
    decider->options.work.allocator = options->work.allocator;
    decider->search.model = cv->old;
    decider->search.calibration = cv->calibration;
    decider->search.options = &decider->options;
    status = ptq__change_schemes(options, ptq__mark_decided, &decider->decided, err);
    if (!status)
        status = ptq_subset_open(&subset, options->images, indices, slice + rest, err);
    if (!status)
        status = ptq__decide_all(decider, err);
    ptq_evaluation_free(&decider->search.real);
    ptq__free(&options->work.allocator, indices);
    return status;
}

/* Decides what there is to decide, and converts. */
static ptq_status ptq__convert_confirmed(ptq__converter *cv, ptq_model **out, ptq_error *err) {
    const ptq_scheme *scheme = &cv->options->scheme;
    ptq__converter confirmed = *cv;
    ptq__decider decider;
    ptq_model *made = NULL;
    ptq_status status;
    if (!out || !scheme->confirm || scheme->mode != PTQ_MODE_INTEGER || !cv->calibration ||
        !cv->options->images || cv->options->images->count < PTQ__CONFIRM_LEAST)
        return ptq__convert_decided(cv, out, err);
    memset(&decider, 0, sizeof decider);
    decider.text = ptq__text_over(decider.outcome, sizeof decider.outcome);
    status = ptq__confirm(cv, &decider, err);
    confirmed.options = &decider.decided;
    if (!status)
        status = ptq__convert_decided(&confirmed, &made, err);
    if (!status && decider.text.length)
        status = ptq_model_set_meta(made, "confirmed", decider.outcome, err);
    ptq__free(&decider.decided.work.allocator, (void *)(uintptr_t)decider.decided.override);
    if (status)
        ptq_model_free(made);
    else
        *out = made;
    return status;
}

/* ---- [SENSITIVITY] -------------------------------------------------------------------------- */

static ptq_scheme ptq__float_scheme(void) {
    ptq_scheme scheme;
    memset(&scheme, 0, sizeof scheme);
    scheme.mode = PTQ_MODE_FLOAT;
    return scheme;
}

/* Bytes of a node's parameters under a scheme. */
static size_t ptq__layer_bytes(const ptq_node *node, const ptq_scheme *scheme) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    size_t scales = scheme->weight_per_tensor ? 1 : (size_t)weight->dim[0];
    if (!ptq__has_weight(node->op))
        return 0;
    if (scheme->mode == PTQ_MODE_FLOAT)
        return weight->size + node->param[PTQ_PARAM_BIAS].size;
    return ptq_tensor_bytes(ptq__weight_type(scheme), ptq__weight_bits(scheme), weight->rank,
                            weight->dim) +
           node->param[PTQ_PARAM_BIAS].size + scales * sizeof(float);
}

/* ---- Sensitivity ---- */

static int ptq__measurable(const ptq_node *node) {
    return ptq__has_weight(node->op) || ptq__operator_of(node)->codes == PTQ__OWN_CODES;
}

static ptq_status ptq__measure_node(ptq__search *search, const ptq_node *node,
                                    ptq_sensitivity *item, ptq_error *err) {
    ptq_scheme others = ptq__float_scheme(), plain = ptq__plain_scheme(&search->options->scheme);
    memcpy(item->node, node->name, sizeof item->node);
    search->override[0].pattern = item->node;
    search->override[0].scheme = plain;
    search->overrides = 1;
    item->bytes = ptq__layer_bytes(node, &plain);
    return ptq__search_try(search, &others, &item->cost, NULL, NULL, err);
}

/* Largest divergence first; of equals the earlier node. */
static void ptq__rank_nodes(ptq_sensitivity_report *report) {
    int i, k;
    for (i = 1; i < report->items; i++) {
        ptq_sensitivity item = report->item[i];
        for (k = i; k > 0 && report->item[k - 1].cost.kl < item.cost.kl; k--)
            report->item[k] = report->item[k - 1];
        report->item[k] = item;
    }
}

/* Remedies: what they are called, and what they make of a scheme. 0 if they change nothing. */

static int ptq__remedy_channels(ptq_scheme *s) {
    int changes = s->weight_per_tensor;
    s->weight_per_tensor = s->weight_affine = 0;
    return changes;
}

static int ptq__remedy_ranges(ptq_scheme *s) {
    int changes = s->activation_method != PTQ_METHOD_MSE || s->weight_method != PTQ_METHOD_MSE;
    s->activation_method = PTQ_METHOD_MSE;
    s->weight_method = s->weight_affine ? PTQ_METHOD_MINMAX : PTQ_METHOD_MSE;
    return changes;
}

static int ptq__remedy_weights(ptq_scheme *s) {
    int changes = ptq__weight_bits(s) < 8;
    s->weight_bits = 8;
    return changes;
}

static int ptq__remedy_activations(ptq_scheme *s) {
    int changes = ptq__activation_bits(s) < 8;
    s->activation_bits = 8;
    return changes;
}

static int ptq__remedy_float(ptq_scheme *s) {
    *s = ptq__float_scheme();
    return 1;
}

/* For the whole model only: it learns. */
static int ptq__remedy_best(ptq_scheme *s) {
    int weight_bits = s->weight_bits, activation_bits = s->activation_bits;
    int changes =
        s->rounding != PTQ_ROUNDING_LEARNED || s->refit == PTQ_REFIT_NEVER || !s->equalize;
    ptq_preset("best", s, NULL);
    s->weight_bits = weight_bits;
    s->activation_bits = activation_bits;
    return changes;
}

typedef struct ptq__remedy {
    const char *text;
    int (*apply)(ptq_scheme *scheme);
    int whole, single; /* is tried on the whole model, on single nodes */
} ptq__remedy;

static const ptq__remedy ptq__remedies[] = {
    {"per-channel weights", ptq__remedy_channels, 1, 1},
    {"ranges of least squared error", ptq__remedy_ranges, 1, 1},
    {"8-bit weights", ptq__remedy_weights, 1, 1},
    {"8-bit activations", ptq__remedy_activations, 1, 1},
    {"preset best at the same bits", ptq__remedy_best, 1, 0},
    {"float", ptq__remedy_float, 0, 1},
};

enum {
    PTQ__REMEDIES = sizeof ptq__remedies / sizeof ptq__remedies[0],
    PTQ__COSTLIEST = 3, /* nodes that remedies are tried on */
    PTQ__MOST_ADVICE = PTQ__REMEDIES * (1 + PTQ__COSTLIEST)
};

/* "1.93" for 1.934, never negative. */
static void ptq__put_hundredths(ptq__text *text, double value) {
    int n = value > 0 ? (int)(value * 100 + 0.5) : 0;
    ptq__put(text, "%d.%d%d", n / 100, n / 10 % 10, n % 10);
}

/* Kept if it gains, in the order of gains. */
static void ptq__add_advice(ptq_sensitivity_report *report, const char *node, double cost_pp,
                            const char *remedy, double gain_pp) {
    ptq_advice item;
    ptq__text text = ptq__text_over(item.text, sizeof item.text);
    int k;
    if (!(gain_pp > 0))
        return;
    memset(item.node, 0, sizeof item.node);
    memcpy(item.node, node, strlen(node));
    ptq__put(&text, "%s costs ", *node ? node : "the whole model");
    ptq__put_hundredths(&text, cost_pp);
    ptq__put(&text, " points of agreement; %s would win back ", remedy);
    ptq__put_hundredths(&text, gain_pp);
    item.gain_pp = gain_pp;
    for (k = report->advices++; k > 0 && report->advice[k - 1].gain_pp < gain_pp; k--)
        report->advice[k] = report->advice[k - 1];
    report->advice[k] = item;
}

/* One remedy, on one node or (item NULL) on all. `before`: the whole model as it is, without what
   learns where single nodes are looked at. */
static ptq_status ptq__try_remedy(ptq__search *search, const ptq__remedy *remedy,
                                  const ptq_sensitivity *item, const ptq_divergence *before,
                                  ptq_sensitivity_report *report, ptq_error *err) {
    ptq_scheme scheme = search->options->scheme, changed;
    ptq_divergence after;
    if (item)
        scheme = ptq__plain_scheme(&scheme);
    changed = scheme;
    if (!remedy->apply(&changed))
        return PTQ_OK;
    search->overrides = item != NULL;
    if (item) {
        search->override[0].pattern = item->node;
        search->override[0].scheme = changed;
    }
    PTQ__TRY(ptq__search_try(search, item ? &scheme : &changed, &after, NULL, NULL, err));
    ptq__add_advice(report, item ? item->node : "",
                    100 * (1 - (item ? item->cost.agreement : before->agreement)), remedy->text,
                    100 * (after.agreement - before->agreement));
    return PTQ_OK;
}

static ptq_status ptq__advise(ptq__search *search, ptq_sensitivity_report *report, ptq_error *err) {
    ptq_scheme plain = ptq__plain_scheme(&search->options->scheme);
    ptq_divergence before;
    int i, k;
    search->overrides = 0;
    PTQ__TRY(ptq__search_try(search, &search->options->scheme, &report->whole, NULL, NULL, err));
    PTQ__TRY(ptq__search_try(search, &plain, &before, NULL, NULL, err));
    for (k = 0; k < PTQ__REMEDIES; k++) {
        if (ptq__remedies[k].whole)
            PTQ__TRY(ptq__try_remedy(search, &ptq__remedies[k], NULL, &report->whole, report, err));
        for (i = 0; i < PTQ__COSTLIEST && i < report->items && ptq__remedies[k].single; i++)
            PTQ__TRY(
                ptq__try_remedy(search, &ptq__remedies[k], &report->item[i], &before, report, err));
    }
    return PTQ_OK;
}

static ptq_status ptq__sensitivity_run(ptq__search *search, ptq_sensitivity_report *report,
                                       ptq_error *err) {
    const ptq_model *model = search->model;
    void *memory = NULL;
    int i;
    PTQ__TRY(ptq__alloc(&report->allocator, (size_t)model->nodes, sizeof(ptq_sensitivity),
                        "sensitivities", &memory, err));
    report->item = (ptq_sensitivity *)memory;
    PTQ__TRY(ptq__alloc(&report->allocator, PTQ__MOST_ADVICE, sizeof(ptq_advice), "advice", &memory,
                        err));
    report->advice = (ptq_advice *)memory;
    search->total = 2 + PTQ__MOST_ADVICE;
    for (i = 0; i < model->nodes; i++)
        search->total += (size_t)ptq__measurable(&model->node[i]);
    PTQ__TRY(ptq__search_open(search, 1, err));
    report->images = search->real.total;
    for (i = 0; i < model->nodes; i++)
        if (ptq__measurable(&model->node[i]))
            PTQ__TRY(
                ptq__measure_node(search, &model->node[i], &report->item[report->items++], err));
    ptq__rank_nodes(report);
    return ptq__advise(search, report, err);
}

PTQ_API ptq_status ptq_measure_sensitivity(const ptq_model *model,
                                           const ptq_calibration *calibration,
                                           const ptq_search_options *options,
                                           ptq_sensitivity_report *out, ptq_error *err) {
    ptq_sensitivity_report report;
    ptq__search search;
    ptq_status status;
    memset(&search, 0, sizeof search);
    memset(&report, 0, sizeof report);
    search.model = model;
    search.calibration = calibration;
    search.options = options;
    report.allocator = options->work.allocator;
    status = ptq__sensitivity_run(&search, &report, err);
    ptq__search_close(&search);
    if (status)
        ptq_sensitivity_report_free(&report);
    else
        *out = report;
    return status;
}

PTQ_API void ptq_sensitivity_report_free(ptq_sensitivity_report *report) {
    if (!report)
        return;
    ptq__free(&report->allocator, report->item);
    ptq__free(&report->allocator, report->advice);
    report->item = NULL;
    report->advice = NULL;
    report->items = report->advices = 0;
}

/* ---- [MIX] ---------------------------------------------------------------------------------- */

/* ---- Mixed precision ---- */

static const int ptq__mix_bits[] = {32, 8, 6, 5, 4, 3, 2};
enum {
    PTQ__WIDTHS = sizeof ptq__mix_bits / sizeof ptq__mix_bits[0],
    PTQ__SPREAD = 4 /* models along the frontier that are measured */
};

typedef struct ptq__mixer {
    ptq__search search;
    const ptq_goal *goal;
    ptq_mix_report *report;
    int *index;    /* nodes: of the model */
    double *alone; /* nodes x PTQ__WIDTHS: divergence, relative to 8 bits everywhere */
    ptq_model *best;
} ptq__mixer;

/* The scheme of a layer at a number of bits. */
static ptq_scheme ptq__mix_scheme(const ptq_scheme *scheme, int bits) {
    ptq_scheme made = *scheme;
    if (bits > 8)
        return ptq__float_scheme();
    made.weight_bits = bits;
    return made;
}

/* Parameters of a layer at a number of bits. */
static size_t ptq__mix_bytes(const ptq__mixer *mixer, int k, int bits) {
    ptq_scheme scheme = ptq__mix_scheme(&mixer->search.options->scheme, bits);
    return ptq__layer_bytes(&mixer->search.model->node[mixer->index[k]], &scheme);
}

/* Divergence of each layer at each width, the others at 8 bits, without learning. */
static ptq_status ptq__mix_measure_alone(ptq__mixer *mixer, ptq_error *err) {
    ptq_scheme plain = ptq__plain_scheme(&mixer->search.options->scheme);
    ptq_divergence cost;
    double floor_kl;
    int k, b;
    plain.weight_bits = 8;
    mixer->search.overrides = 0;
    PTQ__TRY(ptq__search_try(&mixer->search, &plain, &cost, NULL, NULL, err));
    floor_kl = cost.kl;
    for (k = 0; k < mixer->report->nodes; k++)
        for (b = 0; b < PTQ__WIDTHS; b++) {
            double *to = &mixer->alone[k * PTQ__WIDTHS + b];
            if (ptq__mix_bits[b] == 8)
                continue;
            mixer->search.override[0].pattern = mixer->report->node[k];
            mixer->search.override[0].scheme = ptq__mix_scheme(&plain, ptq__mix_bits[b]);
            mixer->search.overrides = 1;
            PTQ__TRY(ptq__search_try(&mixer->search, &plain, &cost, NULL, NULL, err));
            *to = cost.kl - floor_kl;
        }
    return PTQ_OK;
}

/* The next model of the frontier: of all layers and lower widths the step that costs least
   divergence for each byte. 0 if nothing is left. */
static int ptq__mix_step(const ptq__mixer *mixer, uint8_t *bits) {
    double least = HUGE_VAL;
    int k, b, from, best = -1, best_bits = 0;
    for (k = 0; k < mixer->report->nodes; k++) {
        for (from = 0; ptq__mix_bits[from] != bits[k];)
            from++;
        for (b = from + 1; b < PTQ__WIDTHS; b++) {
            double saved = (double)ptq__mix_bytes(mixer, k, bits[k]) -
                           (double)ptq__mix_bytes(mixer, k, ptq__mix_bits[b]);
            double cost = mixer->alone[k * PTQ__WIDTHS + b] - mixer->alone[k * PTQ__WIDTHS + from];
            double rate = cost > 0 ? cost / saved : cost * saved;
            if (saved > 0 && rate < least) {
                least = rate;
                best = k;
                best_bits = ptq__mix_bits[b];
            }
        }
    }
    if (best >= 0)
        bits[best] = (uint8_t)best_bits;
    return best >= 0;
}

/* Size and prediction of the model that item `at` stands for. */
static void ptq__mix_describe(const ptq__mixer *mixer, int at) {
    ptq_mix *item = &mixer->report->item[at];
    const uint8_t *bits = mixer->report->bits + at * mixer->report->nodes;
    double weights = 0, sum = 0;
    int k, b;
    item->bytes = 0;
    item->predicted = 0;
    for (k = 0; k < mixer->report->nodes; k++) {
        const ptq_node *node = &mixer->search.model->node[mixer->index[k]];
        double n = (double)ptq_tensor_elements(&node->param[PTQ_PARAM_WEIGHT]);
        for (b = 0; ptq__mix_bits[b] != bits[k];)
            b++;
        item->bytes += ptq__mix_bytes(mixer, k, bits[k]);
        item->predicted += mixer->alone[k * PTQ__WIDTHS + b];
        weights += n;
        sum += n * bits[k];
    }
    item->average_bits = sum / weights;
}

/* From float everywhere down to 2 bits everywhere. */
static void ptq__mix_frontier(ptq__mixer *mixer) {
    ptq_mix_report *report = mixer->report;
    size_t n = (size_t)report->nodes;
    memset(report->bits, 32, n);
    do {
        ptq__mix_describe(mixer, report->items);
        memcpy(report->bits + (size_t)(report->items + 1) * n,
               report->bits + (size_t)report->items * n, n);
        report->items++;
    } while (ptq__mix_step(mixer, report->bits + (size_t)report->items * n));
}

/* Converts item `at` under the full scheme and measures it; keeps the model if `keep`. */
static ptq_status ptq__mix_measure(ptq__mixer *mixer, int at, int keep, ptq_error *err) {
    const ptq_mix_report *report = mixer->report;
    ptq_mix *item = &report->item[at];
    ptq_model *made = NULL;
    int k;
    if (item->measured && !keep)
        return PTQ_OK;
    for (k = 0; k < report->nodes; k++) {
        mixer->search.override[k].pattern = report->node[k];
        mixer->search.override[k].scheme =
            ptq__mix_scheme(&mixer->search.options->scheme, report->bits[at * report->nodes + k]);
    }
    mixer->search.overrides = report->nodes;
    PTQ__TRY(ptq__search_try(&mixer->search, &mixer->search.options->scheme, &item->cost, NULL,
                             keep ? &made : NULL, err));
    item->measured = 1;
    if (keep)
        mixer->best = made;
    return PTQ_OK;
}

static int ptq__mix_small_enough(const ptq__mixer *mixer, int at) {
    const ptq_mix *item = &mixer->report->item[at];
    const ptq_goal *goal = mixer->goal;
    return (!goal->bytes || item->bytes <= goal->bytes) &&
           (!(goal->average_bits > 0) || item->average_bits <= goal->average_bits);
}

static int ptq__mix_good_enough(const ptq__mixer *mixer, int at) {
    return !(mixer->goal->drop_pp > 0) ||
           -mixer->report->item[at].cost.delta_pp <= mixer->goal->drop_pp;
}

/* Sizes fall along the frontier, so the first that is small enough is the best under a size; the
   last that is good enough is found by bisection, as if accuracy fell as well. */
static ptq_status ptq__mix_choose(ptq__mixer *mixer, ptq_error *err) {
    ptq_mix_report *report = mixer->report;
    int first = 0, low, high;
    while (first < report->items - 1 && !ptq__mix_small_enough(mixer, first))
        first++;
    low = first;
    high = report->items;
    if (mixer->goal->drop_pp > 0)
        PTQ__TRY(ptq__mix_measure(mixer, first, 0, err));
    if (!ptq__mix_good_enough(mixer, first))
        high = first + 1; /* none that is smaller will do */
    while (mixer->goal->drop_pp > 0 && high - low > 1) {
        int middle = low + (high - low) / 2;
        PTQ__TRY(ptq__mix_measure(mixer, middle, 0, err));
        if (ptq__mix_good_enough(mixer, middle))
            low = middle;
        else
            high = middle;
    }
    report->chosen = low;
    report->met = ptq__mix_small_enough(mixer, low) && ptq__mix_good_enough(mixer, low);
    return PTQ_OK;
}

static ptq_status ptq__mix_open(ptq__mixer *mixer, ptq_error *err) {
    const ptq_model *model = mixer->search.model;
    ptq_mix_report *report = mixer->report;
    const ptq_allocator *allocator = &report->allocator;
    size_t n = 0, most;
    void *memory = NULL;
    int i;
    for (i = 0; i < model->nodes; i++)
        n += ptq__has_weight(model->node[i].op) != 0;
    if (!n)
        return ptq_error_set(err, PTQ_BAD_GRAPH, "the model has no layers with weights");
    most = n * PTQ__WIDTHS + 1;
    PTQ__TRY(ptq__alloc(allocator, n, PTQ_NAME_SIZE, "names", &memory, err));
    report->node = (char(*)[PTQ_NAME_SIZE])memory;
    PTQ__TRY(ptq__alloc(allocator, most, sizeof(ptq_mix), "frontier", &memory, err));
    report->item = (ptq_mix *)memory;
    PTQ__TRY(ptq__alloc(allocator, (most + 1) * n, 1, "frontier", &memory, err));
    report->bits = (uint8_t *)memory;
    PTQ__TRY(ptq__alloc(allocator, n, sizeof(int), "layers", &memory, err));
    mixer->index = (int *)memory;
    PTQ__TRY(ptq__alloc(allocator, n * PTQ__WIDTHS, sizeof(double), "divergences", &memory, err));
    mixer->alone = (double *)memory;
    for (i = 0; i < model->nodes; i++)
        if (ptq__has_weight(model->node[i].op)) {
            memcpy(report->node[report->nodes], model->node[i].name, PTQ_NAME_SIZE);
            mixer->index[report->nodes++] = i;
        }
    mixer->search.total = 1 + n * (PTQ__WIDTHS - 1) + PTQ__SPREAD + 9;
    return ptq__search_open(&mixer->search, report->nodes, err);
}

static ptq_status ptq__mix_run(ptq__mixer *mixer, int makes, ptq_error *err) {
    ptq_mix_report *report = mixer->report;
    int i;
    PTQ__TRY(ptq__mix_open(mixer, err));
    report->images = mixer->search.real.total;
    PTQ__TRY(ptq__mix_measure_alone(mixer, err));
    ptq__mix_frontier(mixer);
    for (i = 0; i < PTQ__SPREAD; i++)
        PTQ__TRY(ptq__mix_measure(mixer, (report->items - 1) * i / (PTQ__SPREAD - 1), 0, err));
    PTQ__TRY(ptq__mix_choose(mixer, err));
    return ptq__mix_measure(mixer, report->chosen, makes, err);
}

PTQ_API ptq_status ptq_convert_mixed(const ptq_model *model, const ptq_calibration *calibration,
                                     const ptq_search_options *options, const ptq_goal *goal,
                                     ptq_model **out, ptq_mix_report *report, ptq_error *err) {
    ptq_mix_report made;
    ptq__mixer mixer;
    ptq_status status;
    memset(&mixer, 0, sizeof mixer);
    memset(&made, 0, sizeof made);
    made.allocator = options->work.allocator;
    mixer.search.model = model;
    mixer.search.calibration = calibration;
    mixer.search.options = options;
    mixer.goal = goal;
    mixer.report = &made;
    status = ptq__mix_run(&mixer, out != NULL, err);
    ptq__search_close(&mixer.search);
    ptq__free(&options->work.allocator, mixer.index);
    ptq__free(&options->work.allocator, mixer.alone);
    if (status) {
        ptq_model_free(mixer.best);
        ptq_mix_report_free(&made);
        return status;
    }
    if (out)
        *out = mixer.best;
    if (report)
        *report = made;
    else
        ptq_mix_report_free(&made);
    return PTQ_OK;
}

PTQ_API void ptq_mix_report_free(ptq_mix_report *report) {
    if (!report)
        return;
    ptq__free(&report->allocator, report->node);
    ptq__free(&report->allocator, report->item);
    ptq__free(&report->allocator, report->bits);
    report->node = NULL;
    report->item = NULL;
    report->bits = NULL;
    report->nodes = report->items = 0;
}

#endif /* PTQ_IMPLEMENTATION_DONE */
#endif /* PTQ_IMPLEMENTATION */

/*
   HISTORY
     0.1.0  first version

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
