/* ptq.h - post-training quantization of convolutional networks in one C file - version 0.2.0

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

   TWO PROGRAMS (each begins with these two lines and #include <stdio.h>)
     Quantize, and see what it did:

         int main(void) {
             ptq_error e = {PTQ_OK, ""};
             ptq_comparison c;
             if (ptq_quantize_files("resnet8.safetensors", "cifar-10-batches-bin",
                                    "int8.safetensors", NULL, &e) ||
                 ptq_measure_files("int8.safetensors", "resnet8.safetensors",
                                   "cifar-10-batches-bin", &c, &e))
                 return fprintf(stderr, "%s\n", e.text), 1;
             printf("float %zu, integers %zu of %zu right\n", c.before, c.after, c.total);
             return 0;
         }

     prints after seconds, with MLPerf Tiny's ResNet8, 1,000 of CIFAR-10's training images to
     calibrate on and 5,000 of its test images:

         float 4371, integers 4366 of 5000 right

     Classify one image of 32 x 32 x 3 bytes:

         int classify(const uint8_t *pixels) {
             ptq_net *net;
             int best = -1;
             if (ptq_net_open("int8.safetensors", &net, NULL) == PTQ_OK) {
                 ptq_net_classify(net, pixels, &best, NULL);
                 ptq_net_free(net);
             }
             return best;
         }

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
       ptq_xxx_free (NULL is fine); reports and other structs that own memory are released by
       ptq_release. Nothing is global; nothing prints; nothing exits.
     - Option structs may be all zeros, or NULL: every zero means the sensible default. A scheme of
       zeros is the preset "best", which learns from images; "minmax8" is the plain one.
     - A model does not change while plans use it, and is there as long as they run; a plan as long
       as its sessions run. They may be freed in any order. One plan may serve many threads; a
       session belongs to one thread at a time.

   CONTENTS (search for the tag)
     The interface                                The implementation
     [CONFIG]    macros                           One: From floats to integers. Scalar code, the
     [NET]       the whole in a few calls           whole way of one image: [STATUS] [TENSOR]
     [STATUS]    errors, memory                     [QUANTIZE] [OPERATORS] [GRAPH] [CHECK] [FUSE]
     [TENSOR]    arrays of numbers or codes         [PLAN] [SESSION] [CHANCE] [WORK] [OBSERVE]
     [QUANTIZE]  from real numbers to codes         [CALIBRATE] [SCHEME] [CONVERT] [DATA] [METRICS]
     [GRAPH]     nodes, builder, ResNet8            [NET]
     [FILE]      safetensors, model files         Two: Files. [METADATA] [WORDS] [GRAPH TEXT]
     [FUSE]      folding batch norm and others      [FILE] [CALIBRATION FILE] [IMAGE FILES]
     [PLAN]      models made ready to run           [TEST VECTOR]
     [SESSION]   running                          Three: Speed. [CPU] [VECTOR] [THREADS]
     [DATA]      data sets, CIFAR-10, sampling    Four: Search. [EQUALIZE] [LEARN] [SEARCH]
     [OBSERVE]   ranges from data                   [CONFIRM]
     [CALIBRATE] statistics of every tensor       Part one is the book; what it takes from the other
     [SCHEME]    what to quantize how, presets    parts is declared at its beginning. To add an
     [CONVERT]   float model to quantized model   operator, read the end of [OPERATORS]: one row of
     [METRICS]   evaluation, comparison           a table and its functions beside it; and, to make
                                                  it fast, one entry of a table in [VECTOR].

   LIMITS
     One input per graph; 4096 nodes; 2^28 elements in a tensor; kernels up to 255x255, dilation
     included. Numbers are little-endian in files, on any machine.

   LICENSE: MIT, at the end of this file.
*/
#ifndef PTQ_H
#define PTQ_H

#include <stddef.h>
#include <stdint.h>

#define PTQ_VERSION_MAJOR 0
#define PTQ_VERSION_MINOR 2
#define PTQ_VERSION_PATCH 0
#define PTQ_VERSION "0.2.0"

/* ---------------------------------------------------------------------------------------------
   [CONFIG] Macros to define before the #include, in the file that has PTQ_IMPLEMENTATION
   (PTQ_STATIC, PTQ_NO_STDIO and PTQ_RUN_ONLY wherever the header is included). None of them changes
   a result. A function that one of them left out returns PTQ_UNSUPPORTED and names the macro; those
   that return something else are then not declared.

     PTQ_IMPLEMENTATION   compile the implementation here
     PTQ_STATIC           make every function static: a private copy for one C file
     PTQ_NO_STDIO         leave out everything that opens a file; models load from memory
     PTQ_NO_SIMD          leave out part three, the vector kernels
     PTQ_NO_SEARCH        leave out part four: schemes that learn or search are refused
     PTQ_RUN_ONLY         leave out all that loading and running a saved model does not need; float
                          models are fused before they are saved
     PTQ_MINGW_SIMD       GCC for Windows: do not leave them out, as is done there because GCC takes
                          the stack for more aligned than it is (its bug 54412). For a GCC that is
                          mended, as Debian's, or together with -Wa,-muse-unaligned-vector-move
     PTQ_THREADS          let work over many images use POSIX threads (link with -pthread)
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

/* Lets compilers check the arguments of formats, C's own and not those of Windows' C library. */
#if defined(__clang__)
#define PTQ_FORMAT(at, first) __attribute__((format(printf, at, first)))
#elif defined(__GNUC__)
#define PTQ_FORMAT(at, first) __attribute__((format(gnu_printf, at, first)))
#else
#define PTQ_FORMAT(at, first)
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

/* ---------------------------------------------------------------------------------------------
   [NET] What most programs need: a model file that classifies images; the float model that becomes
   a quantized one; what that did to its accuracy. The rest of the interface is what these functions
   are made of, and may be used beside them on the same objects. */

typedef struct ptq_model ptq_model;
typedef struct ptq_plan ptq_plan;
typedef struct ptq_session ptq_session;
typedef struct ptq_comparison ptq_comparison;

/* A model, float or quantized, fused and ready to run on the processor's best instruction set. One
   thread at a time uses a net; threads that share its plan need sessions of their own. */
typedef struct ptq_net {
    ptq_model *model; /* see ptq_net_open: batch norm and others are fused */
    ptq_plan *plan;   /* ptq_plan_get_info tells its shapes and number of classes */
    ptq_session *session;
} ptq_net;

/* From the bytes of a model file, which need not outlive the call. Errors: those of
   ptq_model_parse, and PTQ_OUT_OF_MEMORY. */
PTQ_API ptq_status ptq_net_open_memory(const void *bytes, size_t size, ptq_net **out,
                                       ptq_error *err);
PTQ_API void ptq_net_free(ptq_net *net);

/* One image of H x W x C bytes, as the model's preprocessing takes them, channels innermost: its
   logits, one for each class, or the class with the largest, counted from 0. Allocates nothing. For
   a model that takes real numbers, ptq_run_f32 with the net's session. */
PTQ_API ptq_status ptq_net_run(ptq_net *net, const uint8_t *pixels, float *logits, ptq_error *err);
PTQ_API ptq_status ptq_net_classify(ptq_net *net, const uint8_t *pixels, int *best, ptq_error *err);

#ifndef PTQ_NO_STDIO
/* The same from a file. Errors: those of ptq_model_load as well. */
PTQ_API ptq_status ptq_net_open(const char *path, ptq_net **out, ptq_error *err);

/* Quantizes the float model in one file into another, which gets a self-test vector. Calibration
   images are CIFAR-10's training images, see ptq_cifar10_open for what `data_path` may be: all of
   them if there are up to 1,000, else 1,000 with as many of each class, drawn with the seed 42.
   `scheme` names a preset, see ptq_preset; NULL: "best". Takes minutes where the scheme learns.
   PTQ_INVALID_ARGUMENT if the output is the model itself. */
PTQ_API ptq_status ptq_quantize_files(const char *model_path, const char *data_path,
                                      const char *out_path, const char *scheme, ptq_error *err);

/* Runs both models on CIFAR-10's test images and compares: how much accuracy the first one has lost
   against the second, the baseline. */
PTQ_API ptq_status ptq_measure_files(const char *model_path, const char *baseline_path,
                                     const char *data_path, ptq_comparison *out, ptq_error *err);
#endif

/* ---------------------------------------------------------------------------------------------
   [STATUS], continued: names, memory, work that takes its time */

/* The lists of names that the library has. A TEXT says in half a sentence what a value means. */
typedef enum ptq_names {
    PTQ_NAMES_STATUS,      /* ptq_status: "PTQ_BAD_FILE" */
    PTQ_NAMES_STATUS_TEXT, /* "a file is damaged or not of the expected format" */
    PTQ_NAMES_TYPE,        /* ptq_type: "F32", "PACKED_S" */
    PTQ_NAMES_OP,          /* ptq_op, as in the graph text: "conv2d" */
    PTQ_NAMES_ISA,         /* ptq_isa: "avx2" */
    PTQ_NAMES_METHOD,      /* ptq_method: "minmax" */
    PTQ_NAMES_MODE,        /* ptq_mode: "integer", "dynamic", "half", "float" */
    PTQ_NAMES_FUNCTION,    /* ptq_function: "silu" */
    PTQ_NAMES_PRESET,      /* what ptq_preset takes: "best". Empty under PTQ_RUN_ONLY, as is ... */
    PTQ_NAMES_PRESET_TEXT  /* ... this one */
} ptq_names;

/* The name of a value, a static string; NULL behind the last one, so that lists can be walked from
   0. And the value of a name; -1 if the list has no such name. */
PTQ_API const char *ptq_name(ptq_names list, unsigned value);
PTQ_API int ptq_find_name(ptq_names list, const char *name);

/* "0.2.0" of the compiled implementation, to compare with PTQ_VERSION. Static string. */
PTQ_API const char *ptq_version(void);

/* Where memory comes from. All zeros: PTQ_MALLOC and PTQ_FREE. Set both functions or neither.
   `allocate` returns memory aligned for any type, or NULL; `release` is never given NULL. The
   struct is copied into the objects made with it; `user` must outlive them. */
typedef struct ptq_allocator {
    void *(*allocate)(void *user, size_t size);
    void (*release)(void *user, void *pointer);
    void *user;
} ptq_allocator;

/* What a report owns: the first member of every struct that the library fills with lists. Releasing
   it ends them; NULL, zeros and a second time are fine. */
typedef struct ptq_memory {
    void *block[3];
    ptq_allocator allocator;
} ptq_memory;
PTQ_API void ptq_release(ptq_memory *memory);

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
   each at least 1, with a product of at most PTQ_MAX_ELEMENTS; else PTQ_INVALID_ARGUMENT. */
PTQ_API ptq_status ptq_tensor_create(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                     const int *dims, const ptq_allocator *allocator,
                                     ptq_error *err);

/* The same over memory that stays the caller's: enough of it for the shape, aligned for the
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

/* Element `index` in row-major order: the stored number or code, and the real value that it stands
   for, scale * (code - zero_point) where there are scales. `index` must be in range. */
PTQ_API float ptq_tensor_number(const ptq_tensor *tensor, size_t index);
PTQ_API float ptq_tensor_real(const ptq_tensor *tensor, size_t index);

/* Stores a code in an integer tensor; it must fit the tensor's bits. */
PTQ_API void ptq_tensor_set_code(ptq_tensor *tensor, size_t index, int32_t code);

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
   low..high, each operation in IEEE single precision, in all kernels (as ONNX's QLinearConv). */
PTQ_API int32_t ptq_requantize(int32_t acc, float multiplier, int32_t zero_point, int32_t low,
                               int32_t high);

/* ---------------------------------------------------------------------------------------------
   [GRAPH] Nodes, the builder, ResNet8 */

#define PTQ_NAME_SIZE 64       /* names: 1..63 of A-Z a-z 0-9 _ . */
#define PTQ_CLASS_NAME_SIZE 64 /* names of classes: 1..63 bytes without control characters */
#define PTQ_MAX_NODES 4096
#define PTQ_MAX_PIXEL_CHANNELS 16
#define PTQ_MAX_KERNEL 255

/* One list makes the operators and their names in the graph text. */
#define PTQ_OP_LIST(X)                                                                             \
    X(PTQ_OP_INPUT, "input")                   /* the image */                                     \
    X(PTQ_OP_CONV2D, "conv2d")                 /* y[o] = b[o] + sum over i,u,v of w[o,i,u,v] x */  \
    X(PTQ_OP_BATCH_NORM, "batch_norm")         /* gamma (x - mean) / sqrt(var + epsilon) + beta */ \
    X(PTQ_OP_RELU, "relu")                     /* max(x, 0) */                                     \
    X(PTQ_OP_RELU6, "relu6")                   /* min(max(x, 0), 6) */                             \
    X(PTQ_OP_ADD, "add")                       /* a + b, equal shapes */                           \
    X(PTQ_OP_MAX_POOL, "max_pool")             /* padding is ignored */                            \
    X(PTQ_OP_AVG_POOL, "avg_pool")             /* padding counts only with include_pad */          \
    X(PTQ_OP_GLOBAL_AVG_POOL, "global_avg_pool") /* H x W x C to 1 x 1 x C */                      \
    X(PTQ_OP_DENSE, "dense")                   /* y[o] = b[o] + sum over i of w[o,i] x[i] */       \
    X(PTQ_OP_SOFTMAX, "softmax")               /* exp(x - max) / sum */                            \
    X(PTQ_OP_QUANTIZE, "quantize")             /* real numbers to codes */                         \
    X(PTQ_OP_DEQUANTIZE, "dequantize")         /* codes to real numbers */                         \
    X(PTQ_OP_CONCAT, "concat")                 /* the channels of a, then those of b */            \
    X(PTQ_OP_GLOBAL_MAX_POOL, "global_max_pool") /* H x W x C to 1 x 1 x C */                      \
    X(PTQ_OP_LOG_SOFTMAX, "log_softmax")       /* x - max - log(sum of exp(x - max)) */            \
    X(PTQ_OP_FUNCTION, "function")             /* f(x), element by element: see ptq_function */    \
    X(PTQ_OP_MUL, "mul")                       /* a b, equal shapes, or b of 1 x 1 x C */

typedef enum ptq_op {
#define PTQ_X(name, text) name,
    PTQ_OP_LIST(PTQ_X)
#undef PTQ_X
    PTQ_OP_COUNT
} ptq_op;

/* What PTQ_OP_FUNCTION computes, and how it is called in the graph text. a and b are the node's
   alpha and beta; where a formula has none, they are 0. sigmoid(x) = 1 / (1 + exp(-x)). */
#define PTQ_FUNCTION_LIST(X)                                                                       \
    X(PTQ_FUNCTION_LEAKY_RELU, "leaky_relu")     /* x, below 0: a x */                             \
    X(PTQ_FUNCTION_PRELU, "prelu")               /* the same; a is the channel's weight */         \
    X(PTQ_FUNCTION_CLIP, "clip")                 /* min(max(x, a), b), a <= b */                   \
    X(PTQ_FUNCTION_SIGMOID, "sigmoid")                                                             \
    X(PTQ_FUNCTION_TANH, "tanh")                                                                   \
    X(PTQ_FUNCTION_SILU, "silu")                 /* x sigmoid(x) */                                \
    X(PTQ_FUNCTION_HARD_SIGMOID, "hard_sigmoid") /* min(max(a x + b, 0), 1) */                     \
    X(PTQ_FUNCTION_HARD_SWISH, "hard_swish")     /* x min(max(x / 6 + 1 / 2, 0), 1) */             \
    X(PTQ_FUNCTION_ELU, "elu")                   /* x, below 0: a (exp(x) - 1) */                  \
    X(PTQ_FUNCTION_GELU, "gelu")                 /* x (1 + erf(x / sqrt(2))) / 2 */                \
    X(PTQ_FUNCTION_GELU_TANH, "gelu_tanh")       /* x sigmoid(1.5957691 (x + 0.044715 x^3)) */

typedef enum ptq_function {
#define PTQ_X(name, text) name,
    PTQ_FUNCTION_LIST(PTQ_X)
#undef PTQ_X
    PTQ_FUNCTION_COUNT
} ptq_function;

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

/* Which operand of a fused addition is the residual: on codes the order matters to the last bit. */
typedef enum ptq_residual {
    PTQ_RESIDUAL_NONE,
    PTQ_RESIDUAL_FIRST,
    PTQ_RESIDUAL_SECOND
} ptq_residual;

enum { PTQ_DYNAMIC_SYMMETRIC = 2 }; /* ptq_node.dynamic */

/* The parameters of a node, as index into ptq_node.param. */
enum { PTQ_PARAM_WEIGHT, PTQ_PARAM_BIAS, PTQ_PARAM_MEAN, PTQ_PARAM_VARIANCE, PTQ_PARAM_COUNT };

/* One operator and its result. Set by the builder, the loader and the passes; read it freely. */
typedef struct ptq_node {
    char name[PTQ_NAME_SIZE]; /* "block1.conv2" */
    char out[PTQ_NAME_SIZE];  /* name of the result: the last tensor fused into it, or `name` */
    ptq_op op;
    int input[2];             /* node indices; -1 where there is none. input[1]: second operand of
                                 an addition or product, or the residual fused into a
                                 convolution */
    int shape[3];             /* H, W, C of the result */
    int kernel[2];            /* convolution and pools: height, width */
    int stride[2];
    int dilation[2];          /* convolution: rows and columns from one tap to the next, 1: none */
    int ceil_mode;            /* pools: the last window may reach beyond image and padding */
    int pad[4];               /* top, left, bottom, right; filled in for SAME and VALID too */
    ptq_padding padding;
    int channels;             /* convolution and dense: of the result */
    int groups;               /* input and output channels are split alike; C = depthwise */
    int no_bias;              /* convolution and dense */
    int include_pad;          /* average pool: divide by the kernel area, not by the taps inside */
    int real;                 /* input: 1 if it takes real numbers, 0 if pixels */
    int output;               /* of a model with several results: which one this is, from 1 on;
                                 else 0 */
    float epsilon;            /* batch norm */
    ptq_function function;    /* function: which one, and ... */
    float alpha, beta;        /* ... its numbers */
    ptq_activation act;       /* fused behind convolution, dense or addition */
    ptq_residual residual;    /* convolution: input[1] is added after `act` ... */
    ptq_activation add_act;   /* ... and this comes last */
    ptq_qparams q;            /* how the result is coded; type PTQ_TYPE_F32: real numbers */
    ptq_qparams mid;          /* the result before a fused addition, likewise */
    int dynamic;              /* 1: integer weights on real inputs, whose range is found per image;
                                 PTQ_DYNAMIC_SYMMETRIC: the input's codes are symmetric */
    ptq_tensor param[PTQ_PARAM_COUNT]; /* rank 0 where there is none. Convolution: weight O,I/g,H,W
                                 and bias O; dense: O,I and O; batch norm: weight = gamma,
                                 bias = beta, mean, variance, all of C; prelu: weight, of C.
                                 Integer weights carry their scales, and go with an S32 bias of
                                 scale s_in * s_w */
} ptq_node;

typedef struct ptq_meta {
    char *key, *value;
} ptq_meta;

/* A graph with its weights, in topological order; node 0 is the input, the last node the result.
   Built by ptq_add_xxx or loaded from a file; immutable from then on. */
struct ptq_model {
    ptq_node *node;
    int nodes, capacity;
    float mean[PTQ_MAX_PIXEL_CHANNELS]; /* preprocessing: x = (pixel - mean[c]) / std[c], ... */
    float std[PTQ_MAX_PIXEL_CHANNELS];  /* ... also of real inputs, for up to 16 channels; 0 and 1
                                           by default */
    ptq_meta *meta;                     /* metadata of the model file, see ptq_model_get_meta */
    int metas;
    int bare; /* the builder makes no parameters. For loaders: they bring their own, and
                 allocating by the shapes that a hostile graph names would be a trap */
    ptq_allocator allocator;
    ptq_error error; /* first failure of the builder */
};

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
    int pad[4];                   /* top, left, bottom, right, for PTQ_PADDING_EXPLICIT; 0..255 */
    int groups;                   /* 0: 1 */
    int no_bias;                  /* 1: without a bias */
    int dilation_h, dilation_w;   /* 0: 1; dilation_w 0: as dilation_h. With it a kernel covers
                                     (kernel - 1) * dilation + 1 rows or columns, at most 255 */
} ptq_conv_options;

typedef struct ptq_pool_options {
    int kernel_h, kernel_w;       /* as above */
    int stride_h, stride_w;       /* 0: as the kernel */
    ptq_padding padding;
    int pad[4];                   /* as above, each less than the kernel */
    int include_pad;              /* average pool: as in ptq_node */
    int ceil_mode;                /* 1: sizes are rounded up, not down, as far as the last window
                                     begins in the image or the padding before it; what lies beyond
                                     image and padding counts in no average. Not with SAME */
} ptq_pool_options;

PTQ_API int ptq_add_input(ptq_model *model, const char *name, int height, int width, int channels);

/* An input that is no picture: real numbers, as features of sound, are what the model takes. */
PTQ_API int ptq_add_real_input(ptq_model *model, const char *name, int height, int width,
                               int channels);
PTQ_API int ptq_add_conv2d(ptq_model *model, const char *name, int input,
                           const ptq_conv_options *options);
PTQ_API int ptq_add_dense(ptq_model *model, const char *name, int input, int channels);
PTQ_API int ptq_add_batch_norm(ptq_model *model, const char *name, int input, float epsilon);
PTQ_API int ptq_add_add(ptq_model *model, const char *name, int first, int second);

/* H x W x C and H x W x C' -> H x W x (C + C'): the channels of the first, then those of the
   second. Of more tensors it is a chain, concat(concat(a, b), c); a link that only the next one
   reads is converted to the codes of the last, so that each operand is coded anew once. */
PTQ_API int ptq_add_concat(ptq_model *model, const char *name, int first, int second);

/* The product of two results, of one shape, or H x W x C and 1 x 1 x C in this order. */
PTQ_API int ptq_add_mul(ptq_model *model, const char *name, int first, int second);

/* A function of each element; alpha and beta as ptq_function names them, else 0. The weights of
   prelu begin as 1. */
PTQ_API int ptq_add_function(ptq_model *model, ptq_function function, const char *name, int input,
                             float alpha, float beta);

/* PTQ_OP_MAX_POOL or PTQ_OP_AVG_POOL. */
PTQ_API int ptq_add_pool(ptq_model *model, ptq_op op, const char *name, int input,
                         const ptq_pool_options *options);

/* An operator with one input and no parameters: relu, relu6, global_avg_pool, global_max_pool, and
   as the last node softmax or log_softmax; and where a quantized model is built node by node,
   quantize and dequantize, the borders between real numbers and codes, with how a result is coded
   in the node's `q`. (ptq_convert sets both itself.) */
PTQ_API int ptq_add_op(ptq_model *model, ptq_op op, const char *name, int input);

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

/* Index of the node whose result is the logits: the last one, or the one before a final softmax or
   log_softmax. */
PTQ_API int ptq_model_logits(const ptq_model *model);

/* Index of the node whose result is result `number`, of those that are numbered with `output`; the
   first is the classes'. -1 if there is none. */
PTQ_API int ptq_model_output(const ptq_model *model, int number);

/* A parameter by its name in the file ("bn1.running_mean"); NULL if there is none. To be filled
   before the model is used; owned by the model. */
PTQ_API ptq_tensor *ptq_model_param(ptq_model *model, const char *name);

/* Metadata: get returns NULL where the key is missing; set copies both, and removes the key when
   `value` is NULL. "format", "format_version" and "graph" belong to the file format: refused, as
   is what is not UTF-8. Three others mean something: "class_names", a JSON array with a string for
   each class, and "resize", how pictures are brought to the model's size: "crop" (the shorter side
   first, then the middle) or "stretch". A third, "arithmetic", says how integers are brought from
   one scale to another: "onnx", the default, "xnnpack" or "fixed", as TensorFlow Lite does on large
   processors and on microcontrollers; see [OPERATORS]. ptq_model_check refuses other values. */
PTQ_API const char *ptq_model_get_meta(const ptq_model *model, const char *key);
PTQ_API ptq_status ptq_model_set_meta(ptq_model *model, const char *key, const char *value,
                                      ptq_error *err);

/* The name of a class, from "class_names", in the manner of snprintf; PTQ_CLASS_NAME_SIZE bytes are
   enough. 0 and an empty text where the model has no names, or no such class. */
PTQ_API size_t ptq_class_name(const ptq_model *model, int index, char *text, size_t size);

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

/* The graph as the model file holds it, in the manner of snprintf: at most `size` bytes with the
   terminating 0 are written; the return value is the length of the whole text.
       ptq-graph 1
       input input shape=32x32x3
       conv1 conv2d in=input channels=16 kernel=3x3
   The padding that ptq_padding calls SAME, stride 1, one group, and a bias are not written. An
   input of real numbers says type=f32. */
#ifndef PTQ_RUN_ONLY
PTQ_API size_t ptq_graph_write(const ptq_model *model, char *text, size_t size);
#endif

/* The reverse: a model with zero parameters from a graph text of `length` bytes, which may come
   from an enemy. Errors name the line. */
PTQ_API ptq_status ptq_graph_parse(const char *text, size_t length, const ptq_allocator *allocator,
                                   ptq_model **out, ptq_error *err);

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
    PTQ_FUSION_NONE,       /* stays a node of its own and still runs; `reason` says why */
    PTQ_FUSION_CONVOLUTION /* a batch norm that nothing could take in: a 1x1 convolution itself */
} ptq_fusion_kind;

typedef struct ptq_fusion {
    char node[PTQ_NAME_SIZE]; /* what was looked at */
    char into[PTQ_NAME_SIZE]; /* the convolution (or other node) that took it in */
    ptq_fusion_kind kind;
    const char *reason;       /* static string; NULL if fused */
} ptq_fusion;

typedef struct ptq_fuse_report {
    ptq_memory memory;
    ptq_fusion *item; /* one for each batch norm, activation and addition of the model */
    int items;
} ptq_fuse_report;

/* A new model in which batch norm is folded into the convolution or dense layer before it, or else
   behind it, if that pads nothing, and elsewhere becomes a convolution of 1 x 1 with a group for
   each channel; ReLU and ReLU6 are folded into the convolution, dense layer or addition before
   them, a residual addition with its activation into the later of the two convolutions that feed
   it. The input model is untouched; `report` may be NULL. A node is fused only if nothing else
   reads what would disappear. Folding is computed in double precision and rounded once (Jacob et
   al. 2018, https://arxiv.org/abs/1712.05877, 3.2). Of a quantized model only additions of codes
   are fused: the codes stay the same. */
PTQ_API ptq_status ptq_fuse(const ptq_model *model, ptq_model **out, ptq_fuse_report *report,
                            ptq_error *err);

/* ---------------------------------------------------------------------------------------------
   [PLAN] A model made ready for one instruction set */

/* One list makes the instruction sets and the names by which they are forced. */
#define PTQ_ISA_LIST(X)                                                                            \
    X(PTQ_ISA_AUTO, "auto") /* the best that this processor has */                                 \
    X(PTQ_ISA_SCALAR, "scalar")                                                                    \
    X(PTQ_ISA_SSE2, "sse2") /* every x86-64 */                                                     \
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

/* What there is for an instruction set, each more than the one before. */
typedef enum ptq_support {
    PTQ_SUPPORT_NONE,     /* no kernels in this build: it was made with PTQ_NO_SIMD, for another
                             kind of processor, or by a compiler too old for them */
    PTQ_SUPPORT_COMPILED, /* kernels, but this processor cannot run them */
    PTQ_SUPPORT_AVAILABLE
} ptq_support;

/* Linux lets a process use AMX only after it has asked for permission, which happens here (and in
   ptq_plan_create). PTQ_SUPPORT_NONE if there is no such instruction set. */
PTQ_API ptq_support ptq_isa_support(ptq_isa isa);

typedef struct ptq_plan_options {
    ptq_isa isa; /* PTQ_UNSUPPORTED if it is not available here */
    ptq_allocator allocator;
} ptq_plan_options;

/* Checks the model, chooses kernels, lays out the arena. Scalar plans use the weights in place. */
PTQ_API ptq_status ptq_plan_create(const ptq_model *model, const ptq_plan_options *options,
                                   ptq_plan **out, ptq_error *err);
PTQ_API void ptq_plan_free(ptq_plan *plan);

/* What a plan is. It stays where it is as long as the plan does. */
typedef struct ptq_plan_info {
    const ptq_model *model; /* that it was made from */
    ptq_isa isa;            /* the instruction set it uses, never PTQ_ISA_AUTO */
    int logits;             /* index of the node whose result is the logits */
    int classes;            /* how many logits there are */
    ptq_type type;          /* of an input's elements: PTQ_TYPE_U8 pixels, PTQ_TYPE_F32 numbers */
    size_t pixels;          /* elements of one input: H * W * C */
    size_t arena_bytes;     /* of the activations while one image runs */
} ptq_plan_info;
PTQ_API const ptq_plan_info *ptq_plan_get_info(const ptq_plan *plan);

/* The constants that the integer kernels of one node work from, activations applied: for programs
   that write a plan down in another form, such as code for a microcontroller. Codes of operands go
   into an addition as they are, in the order of the graph:
       y = clamp(rne(fma(a, ratio[0], fma(b, ratio[1], shift))))
   TensorFlow Lite's arithmetics have `factor` instead, of integers: multiplier 2^(shift - 31), or,
   of an addition in "xnnpack", multiplier 2^-shift. */
typedef struct ptq_factor {
    int32_t multiplier;
    int shift;
} ptq_factor;

typedef struct ptq_step_info {
    size_t offset;             /* of the result in the arena */
    const float *multiplier;   /* convolution, dense: one for each channel, the plan's; else NULL */
    int32_t low, high;         /* clamp of the result, that before a fused addition */
    float ratio[2], shift;     /* addition, fused or not; else 0 */
    float average; /* global average pool: multiplier of its sum of (code - zero point); product:
                      of (a - its zero point) (b - its zero point) */
    const uint8_t *table; /* function: the code of each byte, the plan's; of prelu 256 for each
                             channel; else NULL */
    int32_t sum_low, sum_high; /* clamp of the sum */
    const uint8_t *recode;     /* concat: for each byte of the first operand, then of the second,
                                  its byte in the result, 2 x 256, the plan's; else NULL */
    const ptq_factor *factor;  /* "fixed": as multiplier; global average pool: one; addition: of
                                  both operands and, "fixed", of the sum; else NULL */
    const uint32_t *power;     /* softmax of codes: 2^31 exp(-scale d) for d = 0..255; else NULL */
} ptq_step_info;

/* `node` 1 and on. What does not belong to the node, or to integers, is 0. */
PTQ_API void ptq_plan_step(const ptq_plan *plan, int node, ptq_step_info *out);

/* ---------------------------------------------------------------------------------------------
   [SESSION] Running */

typedef struct ptq_session_options {
    int keep;           /* every tensor of the last image stays readable by name, in more memory */
    void *memory;       /* NULL: from the allocator; else the caller's, any alignment ... */
    size_t memory_size; /* ... at least ptq_session_bytes */
    /* For timing layers; may be NULL. Called while the session runs, for every image first with
       node 0 when the input's tensor is ready, then with each node that ran, in order, when its
       result is there. It must not use the session. */
    void (*after_node)(void *user, int node);
    void *user; /* for `after_node` */
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

/* The same from floats, H x W x C each, finite: what a model of real numbers takes, or, where it
   takes pixels, these preprocessed, (pixel - mean) / std. */
PTQ_API ptq_status ptq_run_f32(ptq_session *session, const float *input, size_t count,
                               float *logits, float *probabilities, ptq_error *err);

/* What can be had of a run, a row for each item; NULL: not wanted. */
typedef struct ptq_results {
    float *logits, *probabilities; /* `classes` of each */
    int32_t *codes;                /* the logits as codes, for a model whose last layer has coded
                                      results (ptq_scheme.code_logits) */
    int *classes;                  /* the best class alone */
} ptq_results;

/* All of them at once, from items of PTQ_TYPE_U8 or PTQ_TYPE_F32. PTQ_INVALID_ARGUMENT for bytes
   where the model takes real numbers, PTQ_UNSUPPORTED for codes where the logits are none. */
PTQ_API ptq_status ptq_run_items(ptq_session *session, ptq_type type, const void *items,
                                 size_t count, const ptq_results *out, ptq_error *err);

/* All numbered results of a model, as real numbers: of result k a row out[k - 1], H x W x C, for
   each item; NULL: not wanted. */
PTQ_API ptq_status ptq_run_outputs(ptq_session *session, ptq_type type, const void *items,
                                   size_t count, float *const *out, ptq_error *err);

/* A view of an intermediate tensor of the last image, H x W x C, valid until the next run. Needs
   `keep`. A convolution with a fused residual has two: `name` before the addition, `out` after. */
PTQ_API ptq_status ptq_session_tensor(const ptq_session *session, const char *name,
                                      ptq_tensor *view, ptq_error *err);

/* The best class of each image alone. */
PTQ_API ptq_status ptq_classify(ptq_session *session, const uint8_t *pixels, size_t count,
                                int *classes, ptq_error *err);

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
                      them, or PTQ_TYPE_F32 (which is 0), real numbers as for ptq_run_f32 */
    ptq_status (*get)(void *user, size_t index, void *item, int *label, ptq_error *err);
    void *user;
    const char *const *class_name; /* `classes` names, or NULL */
} ptq_dataset;

/* For callbacks: fills `err` (which may be NULL) and returns `status`. Of printf's formats it knows
   %s %d %u %zu %llu %g %%, without widths; a float is printed with as many digits as it needs. */
PTQ_API ptq_status ptq_error_set(ptq_error *err, ptq_status status, const char *format, ...)
    PTQ_FORMAT(3, 4);

#define PTQ_CIFAR10_RECORD 3073 /* label, then 32x32 bytes of red, of green, of blue */

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
/* PCG32 (O'Neill 2014, https://www.pcg-random.org): the same numbers everywhere. */
typedef struct ptq_rng {
    uint64_t state, increment;
} ptq_rng;

#ifndef PTQ_RUN_ONLY
PTQ_API void ptq_cifar10_free(ptq_cifar10 *data);

/* The images as a data set, which lives as long as `data` does. The classes have the names that
   were found beside the data, else CIFAR-10's. NULL: CIFAR-10 without images, for its names. */
PTQ_API const ptq_dataset *ptq_cifar10_dataset(const ptq_cifar10 *data);

PTQ_API void ptq_rng_seed(ptq_rng *rng, uint64_t seed, uint64_t stream);
PTQ_API uint32_t ptq_rng_next(ptq_rng *rng);
PTQ_API uint32_t ptq_rng_below(ptq_rng *rng, uint32_t bound); /* unbiased; bound >= 1 */
PTQ_API float ptq_rng_float(ptq_rng *rng);                    /* [0, 1), 24 bits */
#endif

/* Chooses `count` items, as many of every class as possible (the first classes get the remainder):
   per class a Fisher-Yates shuffle by PCG32(seed, class) from the front (i swaps with i plus a
   number below what is left), then all in ascending order of index. Items without labels are one
   class. A class that has too few gives all it has, the others more. The same data and seed give
   the same indices everywhere. PTQ_BAD_DATA for too few items, and if only some have labels. */
PTQ_API ptq_status ptq_sample(const ptq_dataset *data, size_t count, uint64_t seed, size_t *indices,
                              const ptq_allocator *allocator, ptq_error *err);

/* A part of a data set: the items that `indices` names, in that order. Base and indices stay the
   caller's, and live as long as the subset, which must not be moved. PTQ_INVALID_ARGUMENT for an
   index beyond the base. */
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
    X(PTQ_METHOD_HISTOGRAM, "histogram")    /* least squared error among cuts of the tails */      \
    X(PTQ_METHOD_PERCENTILE, "percentile")  /* cuts off a share of the values at either end */     \
    X(PTQ_METHOD_ENTROPY, "entropy")        /* least divergence (Migacz 2017) */                   \
    X(PTQ_METHOD_MSE, "mse")                /* least expected squared error */                     \
    X(PTQ_METHOD_HISTOGRAM_PYTORCH, "histogram-pytorch") /* for "fbgemm": what PyTorch's observer  \
                                                            finds, at times worse than minmax */

typedef enum ptq_method {
#define PTQ_X(name, text) name,
    PTQ_METHOD_LIST(PTQ_X)
#undef PTQ_X
    PTQ_METHOD_COUNT
} ptq_method;

#define PTQ_BINS 4096

/* A sum of floats without rounding: fixed point over the whole range of a float, so that the result
   does not depend on the order. Good for 2^31 terms. */
typedef struct ptq_exact_sum {
    int64_t limb[10]; /* base 2^32, least first; unit 2^-149 */
} ptq_exact_sum;

/* What is kept of a tensor's values on all images: a function of their multiset alone. Bin b counts
   the values in [(b - 2048) w, (b - 2047) w) with w = 2^exponent, exact zeros aside; w is the
   smallest width at which everything fits. */
typedef struct ptq_observer {
    uint64_t count, zeros, images;
    float min, max;                 /* 0, 0 while count is 0 */
    ptq_exact_sum min_sum, max_sum; /* of each image's smallest and largest */
    int exponent;
    uint64_t *bin; /* PTQ_BINS */
    ptq_allocator allocator;
} ptq_observer;

PTQ_API ptq_status ptq_observer_create(ptq_observer *observer, const ptq_allocator *allocator,
                                       ptq_error *err);

/* Looks at one image's tensor of n values. PTQ_BAD_NUMBER, and no change, for NaN and infinity. */
PTQ_API ptq_status ptq_observe(ptq_observer *observer, const float *values, size_t n,
                               ptq_error *err);

/* The range that a rule chooses for codes of this type. `percentile` (50 < p <= 100, 0: 99.99) is
   the share in percent kept at either end, for PTQ_METHOD_PERCENTILE. The range includes 0.
   PTQ_NOT_READY if nothing was observed. */
PTQ_API ptq_status ptq_observer_range(const ptq_observer *observer, ptq_method method,
                                      float percentile, ptq_type type, int bits, int symmetric,
                                      float *low, float *high, ptq_error *err);

#ifndef PTQ_RUN_ONLY
PTQ_API void ptq_observer_free(ptq_observer *observer);

/* Share of the observed values that lie outside low..high: what coding them would clip. */
PTQ_API double ptq_observer_clipped(const ptq_observer *observer, float low, float high);
#endif

/* ---------------------------------------------------------------------------------------------
   [CALIBRATE] Statistics of every tensor of a model */

typedef struct ptq_calibrated {
    char name[PTQ_NAME_SIZE]; /* tensor */
    ptq_observer observer;
} ptq_calibrated;

typedef struct ptq_calibration {
    uint64_t model;            /* ptq_model_hash of the model that ran */
    size_t images;
    uint64_t *hash;            /* FNV-1a of the bytes of each image, ascending */
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
   tells what ranges real images cause. PTQ_BAD_NUMBER names the node that made a NaN. */
PTQ_API ptq_status ptq_calibrate(const ptq_plan *plan, const ptq_dataset *data,
                                 const ptq_calibrate_options *options, ptq_calibration **out,
                                 ptq_error *err);

/* Adds what another calibration of the same model saw. */
PTQ_API ptq_status ptq_calibration_merge(ptq_calibration *calibration,
                                         const ptq_calibration *other, ptq_error *err);

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

#ifndef PTQ_RUN_ONLY
PTQ_API void ptq_calibration_free(ptq_calibration *calibration);

/* Index of a tensor by name; -1 if it was not observed. */
PTQ_API int ptq_calibration_find(const ptq_calibration *calibration, const char *name);

/* What a user should know before relying on it, one sentence with its remedy a line, empty if there
   is nothing: fewer than 100 images, classes missing or uneven, the same image twice, a pixel range
   that is not 0..255. In the manner of snprintf. */
PTQ_API size_t ptq_calibration_warnings(const ptq_calibration *calibration, char *text,
                                        size_t size);

/* FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv), of a model's graph, preprocessing
   and parameters: by it a calibration knows its model. */
PTQ_API uint64_t ptq_model_hash(const ptq_model *model);
#endif

/* ---------------------------------------------------------------------------------------------
   [SCHEME] What to quantize how */

typedef enum ptq_mode {
    PTQ_MODE_INTEGER,  /* integers throughout, ranges fixed by calibration */
    PTQ_MODE_DYNAMIC, /* integer weights; the range of each activation is found per image */
    PTQ_MODE_HALF,    /* half-precision weights, computed in float */
    PTQ_MODE_FLOAT    /* left as it is */
} ptq_mode;

/* How weights become codes once the scales are chosen: each for itself; or all weights of a channel
   together, so that the error of the layer's result is least on calibration images. That is the
   problem which AdaRound states (Nagel et al. 2020, https://arxiv.org/abs/2004.10568), solved by
   coordinate descent on the second moments of the layer's input codes. The bias takes up what error
   remains on average. Learns from images: ptq_convert_options.images. */
typedef enum ptq_rounding { PTQ_ROUNDING_NEAREST, PTQ_ROUNDING_LEARNED } ptq_rounding;

/* Whether weights are fitted anew before they are rounded (with PTQ_ROUNDING_LEARNED only). The
   codes that reach a layer already carry the errors of the layers before it; refitting chooses the
   weights with which those codes give, in least squares over calibration images, what the float
   model computes from its real inputs. So a layer makes up for what quantization cost before it,
   the residual of a fused addition included; the bias ends the mean error. The target is AdaQuant's
   (Hubara et al. 2020, https://arxiv.org/abs/2006.10518), in closed form from second moments as
   GPTQ's (Frantar et al. 2022, https://arxiv.org/abs/2210.17323). */
typedef enum ptq_refit {
    PTQ_REFIT_NEVER,
    PTQ_REFIT_BELOW_8, /* where weights or activations have fewer than 8 bits: at 8 it gains nothing
                          that was measurable */
    PTQ_REFIT_ALWAYS
} ptq_refit;

/* What rounding each weight for itself adds to a layer's results on average, E((w' - w) x), can be
   taken off its bias (Nagel et al. 2019, 4.2, https://arxiv.org/abs/1906.04721). Empirical means
   measured: the bias makes the mean of the layer's results over calibration images what the float
   model's is, layer after layer, so that it also ends the mean error of what lies before. Needs
   images. Learned rounding does this by itself. */
typedef enum ptq_bias_correction {
    PTQ_BIAS_CORRECTION_NONE,
    PTQ_BIAS_CORRECTION_EMPIRICAL
} ptq_bias_correction;

/* All zeros stand for the preset "best", in options that are NULL too. Otherwise every member
   counts as it is: begin with a preset, then change members. equalize, fit_ranges and confirm need
   images, and count in the scheme of the whole model: what comes of it holds for overrides too. */
typedef struct ptq_scheme {
    ptq_mode mode;
    int weight_bits;           /* 2..8; 0: 8 */
    int weight_per_tensor;     /* one scale for the tensor, not one per output channel */
    int weight_affine;         /* u8 codes with a zero point; needs weight_per_tensor */
    int weight_full_range;     /* symmetric: use -2^(bits-1) too */
    ptq_method weight_method;  /* PTQ_METHOD_MINMAX or PTQ_METHOD_MSE */
    int activation_bits;       /* 2..8; 0: 8. The input is always 8 bits */
    int activation_signed;     /* s8, not u8 */
    int activation_symmetric;
    ptq_method activation_method;
    float percentile;          /* for PTQ_METHOD_PERCENTILE; 0: 99.99 */
    int code_logits;           /* the logits become codes too, not floats from the accumulators */
    ptq_rounding rounding;     /* of static weights */
    ptq_refit refit;           /* of weights whose rounding is learned */
    int equalize;              /* 1: where activations have fewer than 8 bits, the model is first
                                  equalized (ptq_equalize_like) and calibrated anew */
    ptq_bias_correction bias;  /* of integer layers */
    int fit_ranges;            /* 1: where activations have fewer than 8 bits, the range of one
                                  tensor after the other becomes the one of several around it with
                                  which the logits have the least squared error against float's, on
                                  up to 256 calibration images */
    int confirm;               /* 1: learned rounding, refitting, equalization, range fitting: each
                                  stays only if, on a quarter of the images, not learned from, the
                                  model without it diverges more from float (ptq_comparison.kl). The
                                  metadata "confirmed" tell. With fewer than 200 images all stay */
} ptq_scheme;

#define PTQ_PRESET_LIST(X)                                                                         \
    X("best", "highest measured accuracy: learned rounding, ranges of least error")                \
    X("ort-u8", "ONNX Runtime static: u8 activations, u8 affine weights per tensor, MinMax")       \
    X("ort-s8", "ONNX Runtime static: s8 activations, s8 weights per tensor, MinMax")              \
    X("fbgemm", "PyTorch x86: 7-bit u8 activations by histogram-pytorch, s8 weights by channel")   \
    X("tflite", "TensorFlow Lite: s8 affine activations, s8 weights per channel, MinMax")          \
    X("dynamic", "s8 weights; activation ranges found per image")                                  \
    X("fp16", "half-precision weights, float arithmetic")                                          \
    X("w4a8", "4-bit weights per channel, otherwise as best")                                      \
    X("minmax8", "plain: 8 bits, one weight scale per channel, MinMax; learns from no images")

/* A preset by name: PTQ_INVALID_ARGUMENT lists the names, as does PTQ_NAMES_PRESET. */
PTQ_API ptq_status ptq_preset(const char *name, ptq_scheme *out, ptq_error *err);

#ifndef PTQ_RUN_ONLY
/* A scheme as one line, "w8 per-channel mse, a8 u8 mse", in the manner of snprintf. */
PTQ_API size_t ptq_scheme_write(const ptq_scheme *scheme, char *text, size_t size);
#endif

/* PTQ_INVALID_ARGUMENT for bits outside 2..8 and choices that exclude each other. */
PTQ_API ptq_status ptq_scheme_check(const ptq_scheme *scheme, ptq_error *err);

/* A scheme for the nodes whose name matches: `*` stands for any characters, `?` for one. */
typedef struct ptq_override {
    const char *pattern;
    ptq_scheme scheme;
} ptq_override;

/* ---------------------------------------------------------------------------------------------
   [CONVERT] A float model and a calibration give a quantized model */

/* The equalized model (ptq_scheme.equalize; Nagel et al. 2019, https://arxiv.org/abs/1906.04721)
   that `quantized` was made of, from the fused float model: with the factors that `quantized` keeps
   in its metadata "equalization", without images. Its float weights are those that the scales
   belong to. A plain copy where it was not equalized. PTQ_BAD_FILE for factors that do not fit. */
PTQ_API ptq_status ptq_equalize_like(const ptq_model *model, const ptq_model *quantized,
                                     ptq_model **out, ptq_error *err);

typedef struct ptq_convert_options {
    ptq_scheme scheme;
    const ptq_override *override; /* of several that match, the last counts */
    int overrides;
    const ptq_dataset *images;    /* the calibration images again, for what learns from them: each
                                     must be one that was calibrated on. NULL: none */
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
    ptq_memory memory;
    ptq_conversion *item;
    int items;
    size_t bytes_before, bytes_after;
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

/* How a node computes: PTQ_MODE_INTEGER means that it really runs on integers alone. */
PTQ_API ptq_mode ptq_node_mode(const ptq_model *model, int node);

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
    size_t limit;   /* the first so many images; 0: all */
    int unlabelled; /* 1: images need no labels, for those who want the logits alone */
} ptq_evaluate_options;

typedef struct ptq_evaluation {
    ptq_memory memory;
    size_t total, correct;
    int classes;
    size_t *class_total;   /* classes */
    size_t *class_correct; /* classes */
    size_t *confusion;     /* classes x classes: [label][prediction] */
    int *label;            /* total */
    int *prediction;       /* total */
    float *logits;         /* total x classes */
} ptq_evaluation;

/* Runs the plan over a data set. PTQ_BAD_DATA if there are no images, if their size or the number
   of classes is not the model's, or if a label is out of range. The result is the same whatever the
   number of threads. Labels are needed, see `unlabelled`. */
PTQ_API ptq_status ptq_evaluate(const ptq_plan *plan, const ptq_dataset *data,
                                const ptq_evaluate_options *options, ptq_evaluation *out,
                                ptq_error *err);

/* Two evaluations of the same images: a quantized model against the float model it came from. */
struct ptq_comparison {
    size_t total, agree;         /* same prediction */
    size_t before, after;        /* right answers of the baseline, and of the other */
    size_t lost, won;            /* right to wrong, wrong to right */
    double delta_pp;             /* accuracy difference in percentage points */
    double low_pp, high_pp;      /* 95 % interval of it, see ptq_paired_interval */
    double p_value;              /* McNemar's exact test, two-sided */
    double sqnr_db;              /* of the logits: 10 log10(sum x^2 / sum (x - x')^2), infinite if
                                    they are equal; 0 if an evaluation has none */
    double kl;                   /* mean Kullback-Leibler divergence of the quantized model's
                                    softmax from the float model's, in nats; 0 without logits */
};

/* PTQ_INVALID_ARGUMENT unless both saw the same number of images with the same labels, and have the
   same number of classes. Sums are exact: the order of the images does not matter. The test is
   McNemar's (1947, Psychometrika 12) in its exact, binomial form. */
PTQ_API ptq_status ptq_compare(const ptq_evaluation *baseline, const ptq_evaluation *quantized,
                               ptq_comparison *out, ptq_error *err);

#ifndef PTQ_RUN_ONLY
/* 95 % interval of the difference of two accuracies on the same `total` images, in percentage
   points: of these, the second model has `lost` and `won` some against the first. Score interval
   for paired proportions (Tango 1998, Statistics in Medicine 17, 891-908): unlike intervals that
   look only at the images that changed, it does not shrink to nothing where few or none did. The
   counts may be fractions, to ask what another number of images would show at the rates seen.
   lost + won <= total, total > 0. */
PTQ_API void ptq_paired_interval(double lost, double won, double total, double *low_pp,
                                 double *high_pp);

/* 95 % interval of a share, such as an accuracy or an agreement, of which `k` of `n` were seen,
   from 0 to 1: Wilson's score interval (1927, J. of the American Statistical Association 22). */
PTQ_API void ptq_share_interval(size_t k, size_t n, double *low, double *high);
#endif

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

/* The next thing to do as long as nothing has failed, in functions that release something. */
#define PTQ__THEN(status, expression) (status) = (status) ? (status) : (expression)

/* What must not be, and the message if it is, in `err`. Leaves the function. */
#define PTQ__FAIL_IF(condition, status, ...)                                                       \
    do {                                                                                           \
        if (condition)                                                                             \
            return ptq_error_set(err, status, __VA_ARGS__);                                        \
    } while (0)

/* The end of a function that makes something: the caller gets all of it, or it is undone. */
#define PTQ__FINISH(status, undo, made, out)                                                       \
    do {                                                                                           \
        if (status)                                                                                \
            undo;                                                                                  \
        else                                                                                       \
            *(out) = (made);                                                                       \
        return status;                                                                             \
    } while (0)

/* =============================================================================================
   PART ONE: FROM FLOATS TO INTEGERS
   Read straight through, it shows all that happens to one image: scalar code only, complete. The
   other three parts load files, make it run fast, and lose less accuracy; none changes what stands
   here.
   ============================================================================================= */

/* What the other parts give to this one. */
typedef struct ptq__text ptq__text;
typedef struct ptq__span ptq__span;
typedef struct ptq__step ptq__step;
typedef struct ptq__converter ptq__converter;
static void ptq__free_metas(ptq_meta *meta, int metas, const ptq_allocator *allocator);
static ptq_status ptq__check_metas(const ptq_model *model, ptq_error *err);
static void ptq__copy_le(void *to, const void *from, size_t n, int bytes);
static void ptq__put_float(ptq__text *text, float value);
typedef int ptq__before(const void *a, const void *b, const void *context); /* 1 if a comes first */
static void ptq__sort(void *base, size_t n, size_t size, ptq__before *before, const void *context);
static ptq_isa ptq__best_isa(void);
static ptq_status ptq__vectorize(ptq_plan *plan, ptq__step *step, ptq_error *err);
static void ptq__preprocess(const ptq_plan *plan, const uint8_t *pixels, float *out);
static void ptq__flip(const uint8_t *pixel, size_t n, uint8_t flip, uint8_t *code);
#ifndef PTQ_RUN_ONLY
static void ptq__put_node(ptq__text *text, const ptq_model *model, const ptq_node *node);
typedef struct ptq__job ptq__job;
static void ptq__job_spread(ptq__job *job);
static ptq_status ptq__describe_scheme(ptq__converter *cv, ptq_error *err);
static ptq_status ptq__convert_searched(ptq__converter *cv, ptq_error *err);
#endif

/* ---- [STATUS] -----------------------------------------------------------------------------------
   What everything below stands on: names, text, errors, memory. None of it is about networks; skip
   it, and come back where a name is not plain. The library formats numbers itself, and reads them,
   since printf and strtod obey the locale of the program, in which 0.5 may be written "0,5", and
   since a build without stdio has neither. How real numbers are written and read, and how files are
   sorted, stands in part two. */

/* The lists of ptq_names one after another: each name ends with a 0, each list with an empty name.
   One string instead of pointers to many, because every pointer takes an entry of 24 bytes in a
   program that may be loaded anywhere. The X lists above the divider give the same entries to the
   enumerators, so that the two agree. PTQ_RUN_ONLY knows no presets, and lists none. */
/* clang-format off */
static const char ptq__names[] =
#define PTQ_X(id, text) #id "\0"
    PTQ_STATUS_LIST(PTQ_X) "\0"
#undef PTQ_X
#define PTQ_X(id, text) text "\0"
    PTQ_STATUS_LIST(PTQ_X) "\0"
    "F32\0" "F16\0" "U8\0" "S8\0" "S32\0" "PACKED_U\0" "PACKED_S\0" "\0"
    PTQ_OP_LIST(PTQ_X) "\0"
    PTQ_ISA_LIST(PTQ_X) "\0"
    PTQ_METHOD_LIST(PTQ_X) "\0"
    "integer\0" "dynamic\0" "half\0" "float\0" "\0"
    PTQ_FUNCTION_LIST(PTQ_X) "\0"
#undef PTQ_X
#ifndef PTQ_RUN_ONLY
#define PTQ_X(name, text) name "\0"
    PTQ_PRESET_LIST(PTQ_X) "\0"
#undef PTQ_X
#define PTQ_X(name, text) text "\0"
    PTQ_PRESET_LIST(PTQ_X)
#undef PTQ_X
#endif
    "\0";
/* clang-format on */

/* Steps over the lists before, then over the names before: few of them, and asked for
   only where people read or files are read. */
PTQ_API const char *ptq_name(ptq_names list, unsigned value) {
    const char *name = ptq__names;
    unsigned before = (unsigned)list; /* lists to step over */
    if (before > (unsigned)PTQ_NAMES_PRESET_TEXT)
        return NULL;
    for (; before > 0; name += strlen(name) + 1)
        before -= !*name;
    for (; *name && value > 0; name += strlen(name) + 1)
        value--;
    return *name ? name : NULL;
}

/* From the first on: lists are short, and no name stands twice in one. */
PTQ_API int ptq_find_name(ptq_names list, const char *name) {
    for (unsigned value = 0; ptq_name(list, value); value++)
        if (!strcmp(name, ptq_name(list, value)))
            return (int)value;
    return -1;
}

PTQ_API const char *ptq_version(void) { return PTQ_VERSION; }

/* Text.

   It goes into a buffer of fixed size, which is always terminated, while its full length is
   counted, as snprintf does. So one function writes a text and measures it: called with no buffer
   at all it only counts, and the caller then allocates what the second call needs. */
struct ptq__text {
    char *data;
    size_t size;   /* of the buffer; may be 0 */
    size_t length; /* of the text, whether it fits or not */
};

/* An empty text over a buffer, which may be NULL where `size` is 0. */
static ptq__text ptq__text_over(char *data, size_t size) {
    ptq__text text = {data, size, 0};
    if (size)
        data[0] = 0;
    return text;
}

/* All text passes through here, a character at a time: a megabyte of it takes milliseconds, and
   nothing else has to know where the buffer ends. */
static void ptq__put_char(ptq__text *text, char c) {
    if (text->length + 1 < text->size) {
        text->data[text->length] = c;
        text->data[text->length + 1] = 0;
    }
    text->length++;
}

static void ptq__put_string(ptq__text *text, const char *s) {
    while (*s)
        ptq__put_char(text, *s++);
}

/* The last digit behind all others; 2^64 has 20 of them. */
static void ptq__put_unsigned(ptq__text *text, uint64_t value) {
    if (value > 9)
        ptq__put_unsigned(text, value / 10);
    ptq__put_char(text, (char)('0' + (int)(value % 10)));
}

/* The least integer, -2^63, has no positive counterpart but as an unsigned one. */
static void ptq__put_signed(ptq__text *text, int64_t value) {
    if (value < 0)
        ptq__put_char(text, '-');
    ptq__put_unsigned(text, value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value);
}

/* The bits of a float's exponent: 0 in zeros and denormals, which processors may treat as 0; 255 in
   infinities and NaN. Such questions are asked of the bits, since -ffast-math lets the compiler
   assume that all numbers are finite, and drop isfinite(). */
static uint32_t ptq__exponent_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> 23) & 255;
}

/* Neither an infinity nor a NaN. */
static int ptq__is_finite(float value) { return ptq__exponent_bits(value) != 255; }

/* Nor 0 or a denormal: what a scale or a multiplier must be. */
static int ptq__is_normal(float value) {
    return ptq__exponent_bits(value) != 0 && ptq__exponent_bits(value) != 255;
}

/* Those of printf's formats that the library needs, %s %d %u %zu %llu %g %%, without widths. A name
   that is NULL is seen as "?". */
static void ptq__vput(ptq__text *text, const char *format, va_list args) {
    for (; *format; format++) {
        const char *s;
        if (*format != '%') {
            ptq__put_char(text, *format);
            continue;
        }
        /* clang-format off */
        switch (*++format) {
        case 's': s = va_arg(args, const char *); ptq__put_string(text, s ? s : "?"); break;
        case 'd': ptq__put_signed(text, va_arg(args, int)); break;
        case 'u': ptq__put_unsigned(text, va_arg(args, unsigned)); break;
        case 'g': ptq__put_float(text, (float)va_arg(args, double)); break;
        case 'z': ptq__put_unsigned(text, va_arg(args, size_t)); format += 1; break;
        case 'l': ptq__put_unsigned(text, va_arg(args, unsigned long long)); format += 2; break;
        default: ptq__put_char(text, *format);
        }
        /* clang-format on */
    }
}

PTQ_FORMAT(2, 3)
static void ptq__put(ptq__text *text, const char *format, ...) {
    va_list args;
    va_start(args, format);
    ptq__vput(text, format, args);
    va_end(args);
}

/* Returns `status`, so that a function can fail in one line. Without `err` nobody is told. */
PTQ_API ptq_status ptq_error_set(ptq_error *err, ptq_status status, const char *format, ...) {
    ptq__text text = ptq__text_over(err ? err->text : NULL, err ? sizeof err->text : 0);
    va_list args;
    va_start(args, format);
    ptq__vput(&text, format, args);
    va_end(args);
    if (err)
        err->status = status;
    return status;
}

/* All messages about a node begin with its name. */
static ptq_status ptq__about_node(ptq_error *err, ptq_status status, const ptq_node *node) {
    ptq_error plain = {PTQ_OK, ""};
    if (err)
        plain = *err;
    return ptq_error_set(err, status, "node %s: %s", node->name, plain.text);
}

/* Memory.

   Every allocation goes through ptq__alloc, which names what it is for and checks the size, and
   every function that fails has released what it took: the tests let each allocation in turn fail,
   and count. An object is allocated zeroed and filled from top to bottom, and its ptq_xxx_free
   releases what there is; so a function that fails half way frees the object as it stands. Nothing
   allocates while images run.

   What an object keeps of the allocator that it is made with; all zeros mean the default. */
static ptq_allocator ptq__allocator(const ptq_allocator *allocator) {
    static const ptq_allocator standard = {NULL, NULL, NULL};
    return allocator ? *allocator : standard;
}

/* Zeroed memory for `count` elements, never NULL on success, even for none. `out` is the address of
   a pointer of any type. It is written as bytes, and so no caller needs a void * and a cast, which
   C++ asks for. */
static ptq_status ptq__alloc(const ptq_allocator *allocator, size_t count, size_t size,
                             const char *what, void *out, ptq_error *err) {
    PTQ__FAIL_IF(count > (SIZE_MAX - 1) / size, PTQ_OUT_OF_MEMORY,
                 "%s: %zu elements of %zu bytes are too many", what, count, size);
    size_t bytes = count ? count * size : 1;
    void *memory = allocator && allocator->allocate ? allocator->allocate(allocator->user, bytes)
                                                    : PTQ_MALLOC(bytes);
    PTQ__FAIL_IF(!memory, PTQ_OUT_OF_MEMORY, "%s: no memory for %zu bytes", what, bytes);
    memset(memory, 0, bytes);
    memcpy(out, &memory, sizeof memory);
    return PTQ_OK;
}

/* The same for a pointer of any type, which gives the size of an element. `pointer` is its address:

       float *scale = NULL;
       PTQ__TRY(PTQ__NEW(allocator, &scale, channels, "scales", err)); */
#define PTQ__NEW(allocator, pointer, count, what, err)                                             \
    ptq__alloc(allocator, count, sizeof **(pointer), what, pointer, err)

/* The allocator may lie in the memory itself: it is not looked at any more once that is gone. */
static void ptq__free(const ptq_allocator *allocator, void *memory) {
    if (memory && allocator && allocator->release)
        allocator->release(allocator->user, memory);
    else if (memory)
        PTQ_FREE(memory);
}

#ifndef PTQ_RUN_ONLY
/* Memory that goes with others in one ptq_release: of a report, or of a function that needs several
   arrays for a while. */
static ptq_status ptq__keep(ptq_memory *memory, size_t count, size_t size, const char *what,
                            void *out, ptq_error *err) {
    void **block = memory->block;
    while (*block)
        block++;
    PTQ__TRY(ptq__alloc(&memory->allocator, count, size, what, block, err));
    memcpy(out, block, sizeof *block);
    return PTQ_OK;
}

#define PTQ__KEEP(memory, pointer, count, what, err)                                               \
    ptq__keep(memory, count, sizeof **(pointer), what, pointer, err)
#endif

/* What is gone is NULL: a second time does nothing. */
PTQ_API void ptq_release(ptq_memory *memory) {
    for (int i = 0; memory && i < 3; i++) {
        ptq__free(&memory->allocator, memory->block[i]);
        memory->block[i] = NULL;
    }
}

/* Makes room for one more element in an array that doubles when it is full. Its pointer may be of
   any type, as above. */
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

/* A piece of a text: n bytes, not terminated. What is read may come from anywhere, and so nothing
   relies on a terminating 0. Readers stand where files are, in part two. */
struct ptq__span {
    const char *p;
    size_t n;
};

static ptq__span ptq__span_of(const char *text) {
    ptq__span span = {text, strlen(text)};
    return span;
}

/* A copy that fits into an error message: files may hold anything, so what is not printable becomes
   '?', and what is too long is cut. */
typedef struct ptq__quote {
    char text[PTQ_NAME_SIZE];
} ptq__quote;

static ptq__quote ptq__quoted(ptq__span span) {
    ptq__quote quote;
    size_t n = span.n < sizeof quote.text - 1 ? span.n : sizeof quote.text - 1;
    for (size_t i = 0; i < n; i++)
        quote.text[i] = span.p[i] >= 32 && span.p[i] < 127 ? span.p[i] : '?';
    quote.text[n] = 0;
    return quote;
}

/* ---- [TENSOR] -----------------------------------------------------------------------------------
   Weights and activations, as real numbers or as codes. The last dimension runs fastest: images and
   activations are H x W x C, a convolution's weights O x I x KH x KW, a dense layer's O x I, with O
   the channels of the result. So dim[0] of weights is what a scale may belong to; element i of n is
   in channel i / (n / O), and stands for scale[channel] (code - zero_point).

   Weights of 2 to 7 bits lie packed: codes follow one another as a stream of bits, the least
   significant bit first, across bytes. Each slice along dim[0] begins on a byte of its own, so that
   channels can be read apart. Five codes of three bits, a b c d e:

       byte 0: c1 c0 b2 b1 b0 a2 a1 a0      byte 1: - e2 e1 e0 d2 d1 d0 c2 */

static int ptq__is_packed(ptq_type type) {
    return type == PTQ_TYPE_PACKED_U || type == PTQ_TYPE_PACKED_S;
}

/* Bits of one element; 0 if type and bits do not go together. */
static int ptq__type_bits(ptq_type type, int bits) {
    static const int width[] = {32, 16, 8, 8, 32}; /* F32 F16 U8 S8 S32 */
    if ((unsigned)type < sizeof width / sizeof width[0])
        return width[type];
    return ptq__is_packed(type) && bits >= 2 && bits <= 7 ? bits : 0;
}

/* Elements of a shape of `rank` dimensions; 0 if it is not legal. Files name shapes, hence the
   division: the product is compared before it is made, and cannot overflow. */
static size_t ptq__shape_elements(int rank, const int *dims) {
    size_t n = rank >= 1 && rank <= PTQ_MAX_RANK;
    for (int i = 0; i < rank && n; i++) {
        if (dims[i] < 1 || n > (size_t)PTQ_MAX_ELEMENTS / (size_t)dims[i])
            return 0;
        n *= (size_t)dims[i];
    }
    return n;
}

/* Bytes of a tensor, slices rounded up to bytes; 0 if shape, type and bits are not legal. 10 x 3
   codes of 5 bits take 20: each of the 10 slices has 15 bits, in two bytes. */
static size_t ptq__tensor_bytes(ptq_type type, int bits, int rank, const int *dims) {
    size_t n = ptq__shape_elements(rank, dims), width = (size_t)ptq__type_bits(type, bits);
    return n && width ? (n / (size_t)dims[0] * width + 7) / 8 * (size_t)dims[0] : 0;
}

PTQ_API size_t ptq_tensor_elements(const ptq_tensor *tensor) {
    return tensor->rank ? ptq__shape_elements(tensor->rank, tensor->dim) : 0;
}

/* A tensor without data: what create and borrow begin with. It is made apart, and copied to the
   caller's when nothing can fail any more: here as everywhere, results are written on success. */
static ptq_status ptq__tensor_init(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                   const int *dims, ptq_error *err) {
    memset(tensor, 0, sizeof *tensor);
    tensor->size = ptq__tensor_bytes(type, bits, rank, dims);
    PTQ__FAIL_IF(!tensor->size, PTQ_INVALID_ARGUMENT,
                 "tensor of type %s: needs 1 to 4 dimensions of at least 1, at most "
                 "%d elements, and 2 to 7 bits if packed",
                 ptq_name(PTQ_NAMES_TYPE, type), PTQ_MAX_ELEMENTS);
    tensor->type = type;
    tensor->bits = ptq__type_bits(type, bits);
    tensor->rank = rank;
    for (int i = 0; i < PTQ_MAX_RANK; i++)
        tensor->dim[i] = i < rank ? dims[i] : 1;
    return PTQ_OK;
}

/* Zeroed: a tensor that nobody fills has codes 0 and numbers 0, not what lay there before. Scales,
   if it is to have any, come with ptq_tensor_set_scale. */
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

/* Over memory of the caller: activations in an arena, or a file that was read whole. Nothing is
   copied, and nothing is freed with the tensor. */
PTQ_API ptq_status ptq_tensor_borrow(ptq_tensor *tensor, ptq_type type, int bits, int rank,
                                     const int *dims, void *data, size_t size, ptq_error *err) {
    ptq_tensor made;
    PTQ__TRY(ptq__tensor_init(&made, type, bits, rank, dims, err));
    PTQ__FAIL_IF(!data || size < made.size, PTQ_INVALID_ARGUMENT,
                 "tensor needs %zu bytes, given are %zu", made.size, data ? size : (size_t)0);
    made.data = data;
    *tensor = made;
    return PTQ_OK;
}

/* Of one that was freed already, or never made, nothing is owned: a second time does nothing. */
PTQ_API void ptq_tensor_free(ptq_tensor *tensor, const ptq_allocator *allocator) {
    if (!tensor)
        return;
    if (tensor->owned & 1)
        ptq__free(allocator, tensor->data);
    if (tensor->owned & 2)
        ptq__free(allocator, tensor->scale);
    memset(tensor, 0, sizeof *tensor);
}

/* The old scales go when the new ones are there: these may be the same. */
PTQ_API ptq_status ptq_tensor_set_scale(ptq_tensor *tensor, const float *scale, int count,
                                        int32_t zero_point, const ptq_allocator *allocator,
                                        ptq_error *err) {
    float *copy = NULL;
    PTQ__FAIL_IF(!tensor->rank || (count != 1 && count != tensor->dim[0]), PTQ_INVALID_ARGUMENT,
                 "a tensor has one scale, or one for each of its %d channels, not %d",
                 tensor->dim[0], count);
    PTQ__TRY(PTQ__NEW(allocator, &copy, (size_t)count, "scales", err));
    memcpy(copy, scale, (size_t)count * sizeof *copy);
    if (tensor->owned & 2)
        ptq__free(allocator, tensor->scale);
    tensor->owned |= 2;
    tensor->scale = copy;
    tensor->scales = count;
    tensor->zero_point = zero_point;
    return PTQ_OK;
}

/* A copy that owns data and scales, whoever owned the first's: a borrowed tensor, as of a file that
   is still in memory, becomes one that can outlive it. */
static ptq_status ptq__tensor_copy(ptq_tensor *to, const ptq_tensor *from,
                                   const ptq_allocator *allocator, ptq_error *err) {
    ptq_tensor made;
    ptq_status status = PTQ_OK;
    memset(&made, 0, sizeof made);
    if (from->rank) {
        PTQ__TRY(ptq_tensor_create(&made, from->type, from->bits, from->rank, from->dim, allocator,
                                   err));
        memcpy(made.data, from->data, from->size);
        if (from->scales)
            status = ptq_tensor_set_scale(&made, from->scale, from->scales, from->zero_point,
                                          allocator, err);
    }
    PTQ__FINISH(status, ptq_tensor_free(&made, allocator), made, to);
}

/* A packed code: at most 7 bits, and so in one byte or in two. Where `set` is not NULL, *set is
   stored first. Bits 8 and up of mask and word belong to the second byte: of the codes above, c
   begins at bit 6 with mask 111 000000, of which one bit lies in byte 1. A signed code whose
   highest bit is set is negative: 7 of three bits is -1. */
static int32_t ptq__packed_code(const ptq_tensor *tensor, size_t index, const int32_t *set) {
    size_t rows = (size_t)tensor->dim[0], per_row = ptq_tensor_elements(tensor) / rows;
    size_t row = index / per_row, column = index % per_row; /* NOLINT: no row is empty */
    size_t bit = row * (tensor->size / rows) * 8 + column * (size_t)tensor->bits;
    uint8_t *byte = (uint8_t *)tensor->data + bit / 8;
    unsigned shift = bit % 8, mask = ((1u << tensor->bits) - 1) << shift;
    unsigned word = byte[0] | (mask >> 8 ? (unsigned)byte[1] << 8 : 0);
    int32_t code, sign = tensor->type == PTQ_TYPE_PACKED_S ? 1 << (tensor->bits - 1) : 0;
    if (set) {
        word = (word & ~mask) | (((unsigned)*set << shift) & mask);
        byte[0] = (uint8_t)word;
        if (mask >> 8)
            byte[1] = (uint8_t)(word >> 8);
    }
    code = (int32_t)((word & mask) >> shift);
    return code & sign ? code - 2 * sign : code;
}

/* The code at `index` of an integer tensor, whatever its width. */
static int32_t ptq__code(const ptq_tensor *tensor, size_t index) {
    if (tensor->type == PTQ_TYPE_U8)
        return ((const uint8_t *)tensor->data)[index];
    if (tensor->type == PTQ_TYPE_S8)
        return ((const int8_t *)tensor->data)[index];
    if (tensor->type == PTQ_TYPE_S32)
        return ((const int32_t *)tensor->data)[index];
    return ptq__packed_code(tensor, index, NULL);
}

/* The scale of a channel: its own, or the one that all share. */
static float ptq__scale_of(const ptq_tensor *tensor, size_t channel) {
    return tensor->scale[tensor->scales > 1 ? channel : 0];
}

/* The stored number as it is, without its scale: exact for all codes, and for sums up to 2^24. */
PTQ_API float ptq_tensor_number(const ptq_tensor *tensor, size_t index) {
    if (tensor->type == PTQ_TYPE_F32)
        return ((const float *)tensor->data)[index];
    if (tensor->type == PTQ_TYPE_F16)
        return ptq_f16_to_f32(((const uint16_t *)tensor->data)[index]);
    return (float)ptq__code(tensor, index);
}

/* real = scale (code - zero_point), with the scale of the element's channel where each has one. */
PTQ_API float ptq_tensor_real(const ptq_tensor *tensor, size_t index) {
    if (!tensor->scales || tensor->type == PTQ_TYPE_F32 || tensor->type == PTQ_TYPE_F16)
        return ptq_tensor_number(tensor, index);
    size_t per_row = ptq_tensor_elements(tensor) / (size_t)tensor->dim[0];
    return ptq__scale_of(tensor, index / per_row) *
           (float)(ptq__code(tensor, index) - tensor->zero_point);
}

/* Only codes: real numbers are stored through `data`, where they lie as C has them. */
PTQ_API void ptq_tensor_set_code(ptq_tensor *tensor, size_t index, int32_t code) {
    PTQ_ASSERT(tensor->type != PTQ_TYPE_F32 && tensor->type != PTQ_TYPE_F16);
    if (tensor->type == PTQ_TYPE_S32)
        ((int32_t *)tensor->data)[index] = code;
    else if (ptq__is_packed(tensor->type))
        (void)ptq__packed_code(tensor, index, &code);
    else
        ((uint8_t *)tensor->data)[index] = (uint8_t)code; /* of either sign: two's complement */
}

/* ---- [QUANTIZE] ---------------------------------------------------------------------------------
   A real number x and its code q, of a tensor with scale s and zero point z:

       q = clamp(round(x / s) + z)        x' = s (q - z)        |x - x'| <= s / 2 within the range

   and the integer network's own step, from an accumulator (a sum of products of codes) to a code of
   the result, clamp(round(acc m) + z), with m = s_in s_weight / s_out (Jacob et al. 2018, 2.2).

   Integers are the same on every machine, and what is real here is IEEE single precision, one
   operation at a time, rounded to nearest even. That is why every processor gives the same codes.
   Where a compiler may compute in more bits (x87) or rearrange (-ffast-math), each result goes
   through memory, which rounds it and ends the rearranging. To round to double-extended first and
   then to single gives the same as to round once, for + - * / (Figueroa 1995). */

#if defined(__FAST_MATH__) || !defined(FLT_EVAL_METHOD) || FLT_EVAL_METHOD != 0
typedef volatile float ptq__float;
typedef volatile double ptq__double;
#else
typedef float ptq__float;
typedef double ptq__double;
#endif

/* One rounding each: no compiler may fuse what follows into the product. */
static float ptq__mul(float a, float b) {
    ptq__float x = a, y = b, result = x * y;
    return result;
}

static float ptq__div(float a, float b) {
    ptq__float x = a, y = b, result = x / y;
    return result;
}

/* a b + c, rounded once. */
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

/* Rounds half to even, |x| < 2^22: floats from 2^23 to 2^24 are the integers there, so that adding
   1.5 * 2^23 = 0x4b400000 rounds x as all additions round, and leaves it in the low bits. */
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

/* An accumulator of up to 31 bits loses its low bits when it becomes a float, which has 24; that is
   part of the definition (ONNX Runtime does the same), and far below half a code. */
PTQ_API int32_t ptq_requantize(int32_t acc, float multiplier, int32_t zero_point, int32_t low,
                               int32_t high) {
    return ptq__to_code(ptq__mul((float)acc, multiplier), zero_point, low, high);
}

/* 0..2^b - 1, or two's complement, -2^(b - 1)..2^(b - 1) - 1. */
PTQ_API void ptq_code_range(ptq_type type, int bits, int32_t *low, int32_t *high) {
    int is_signed = type == PTQ_TYPE_S8 || type == PTQ_TYPE_PACKED_S;
    *low = is_signed ? -(1 << (bits - 1)) : 0;
    *high = *low + (1 << bits) - 1;
}

/* A division, not a product with 1 / s: the two differ where x / s is close to a half. */
PTQ_API int32_t ptq_quantize(float x, const ptq_qparams *q) {
    int32_t low, high;
    ptq_code_range(q->type, q->bits, &low, &high);
    return ptq__to_code(ptq__div(x, q->scale), q->zero_point, low, high);
}

/* code - z takes at most 9 bits, and is exact: one rounding, that of the product. */
PTQ_API float ptq_dequantize(int32_t code, const ptq_qparams *q) {
    return ptq__mul(q->scale, (float)(code - q->zero_point));
}

/* Affine: the range lo..hi takes all codes least..most, s = (hi - lo) / (most - least), and 0 gets
   the code nearest to least - lo / s. Symmetric: the zero point is given, 0 or the middle, and the
   farther end decides, s = max(-lo, hi) / (most - z). The range holds 0: zeros are everywhere, as
   padding and behind ReLU, and their code must stand for exactly 0. For -1 to 3 and u8 of 8 bits
   s = 4 / 255, and 1 / s = 63.75 makes the zero point 64: what codes reach is -64 s to 191 s, which
   is -1.004 to 2.996, a quarter of a step to one side of what was asked for. */
PTQ_API ptq_status ptq_choose_qparams(float low, float high, ptq_type type, int bits, int symmetric,
                                      ptq_qparams *out, ptq_error *err) {
    double lo = low < 0 ? (double)low : 0, hi = high > 0 ? (double)high : 0, scale, reach;
    int32_t least, most;
    ptq_qparams q;
    PTQ__FAIL_IF((type != PTQ_TYPE_U8 && type != PTQ_TYPE_S8) || bits < 2 || bits > 8,
                 PTQ_INVALID_ARGUMENT, "codes are u8 or s8 of 2 to 8 bits, not %s of %d",
                 ptq_name(PTQ_NAMES_TYPE, type), bits);
    PTQ__FAIL_IF(!ptq__is_finite(low) || !ptq__is_finite(high), PTQ_BAD_NUMBER,
                 "a range of %g to %g cannot be quantized", (double)low, (double)high);
    ptq_code_range(type, bits, &least, &most);
    q.type = type;
    q.bits = bits;
    q.zero_point = !symmetric ? least : type == PTQ_TYPE_S8 || lo == 0 ? 0 : 1 << (bits - 1);
    reach = -lo > hi ? -lo : hi;
    scale = symmetric ? reach / (most - q.zero_point) : (hi - lo) / (most - least);
    q.scale = hi - lo > 0 ? (float)scale : 1;
    PTQ__FAIL_IF(!ptq__is_normal(q.scale), PTQ_BAD_NUMBER,
                 "a range of %g to %g gives no normal scale", (double)low, (double)high);
    if (!symmetric)
        q.zero_point = ptq__to_code((float)(-lo / (double)q.scale), least, least, most);
    *out = q;
    return PTQ_OK;
}

/* ---- [OPERATORS] ----------------------------------------------------------------------------- */

/* What a network is made of. Each operator stands here whole: its formula, the shape of its result,
   its parameters, its kernel on real numbers and its kernel on codes, side by side, since the
   second differs from the first by quantization alone. A table at the end of the section collects
   them, and the rest of this file knows an operator by its row only.

   These kernels are the truth. They are written to be read, in one fixed order of additions; the
   vector kernels of part three must give the same codes to the byte. Activations are H x W x C of
   one image, channels innermost; weights O x I x KH x KW. */

/* Results before and after ptq__add_codes, and of requantization, are clamped: to the codes there
   are, and by a fused activation to the codes of 0 and 6. */
typedef struct ptq__clamp {
    int32_t zero_point, low, high; /* low <= zero_point <= high */
} ptq__clamp;

/* How integers are brought from one scale to another: a property of the model, which its metadata
   tell. The formulas stand with each operator. */
typedef enum ptq__arithmetic {
    PTQ__ONNX,    /* in single precision: ONNX Runtime's */
    PTQ__XNNPACK, /* sums alike; additions, averages and softmax as TensorFlow Lite's kernels */
    PTQ__FIXED    /* sums in integers too: TensorFlow Lite's reference, CMSIS-NN */
} ptq__arithmetic;

/* The constants of an addition of codes: see ptq__add_codes. */
typedef struct ptq__adder {
    float ratio_a, ratio_b, offset;
    ptq_factor factor[3];   /* of a, of b, of the sum: PTQ__FIXED, PTQ__XNNPACK */
    int32_t zero_a, zero_b; /* both */
    ptq__arithmetic arithmetic;
    ptq__clamp clamp;
} ptq__adder;

/* Where a step reads and writes while one image runs. What a kernel may take for granted, since
   [CHECK] and the session have looked: tensors have the shapes of their nodes, one element behind
   the other. Codes take a byte each, of either sign as the node's `q` says, and lie between the
   lowest and the highest of their bits. Real numbers are floats, finite unless the network itself
   overflows. */
typedef struct ptq__frame {
    const void *in[2]; /* the operands, H x W x C each; in[1] NULL where there is none */
    void *out;         /* the result, H x W x C; may be an operand's memory, see PTQ__IN_PLACE */
    void *mid;         /* the result before a fused addition; NULL unless the session keeps it */
    void *scratch;     /* ptq__step.scratch bytes, of no meaning between steps */
    int *no_code;      /* to be set where a real number that is to be coded is not finite */
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
    int dilation[2], window[2];       /* window: rows and columns that the kernel covers */
    int groups, deep;                 /* deep: input channels of a group, C / groups */
    int taps;                         /* inputs that one result depends on: deep * KH * KW */
    ptq_activation act;               /* fused, or what the operator itself is */
    ptq__arithmetic arithmetic;
    ptq__clamp clamp; /* coded results: of the operator's own ... */
    ptq__adder adder; /* ... and of an addition, own or fused */
    float average;    /* multiplier of the sum over the whole image, or of a product of two codes */
    ptq__kernel run;
    const void *weight; /* the model's, or the plan's own where it had to be changed */
    void *owned;        /* what the plan made for this step: weights in another form; on codes the
                           tables of a function, 256 each, or those of a concat, for each byte of
                           the first operand, then of the second, its code in the result */
    float *multiplier;  /* integer convolution and dense: one for each channel; else NULL ... */
    ptq_factor *fixed;  /* ... and the same for PTQ__FIXED, one for an average; else NULL */
    void *packed;       /* what the vector kernel works from; NULL: a scalar kernel runs */
    size_t scratch;     /* bytes that the kernels need for themselves */
};

/* Rules are lists of these: what must not be, and the message if it is. Each leaves the function,
   and works on its `node` and `err`. */
#define PTQ__REFUSE_IF(condition, status, ...)                                                     \
    do {                                                                                           \
        if (condition)                                                                             \
            return ptq__about_node(err, ptq_error_set(err, status, __VA_ARGS__), node);            \
    } while (0)

static int ptq__is_coded(const ptq_node *node) { return node->q.type != PTQ_TYPE_F32; }

/* A parameter of real numbers; NULL where there is none. */
static float *ptq__numbers(const ptq_node *node, int param) {
    return (float *)node->param[param].data;
}

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

/* An operator that only chooses among codes, max pool or ReLU, stores them under the scale of its
   result: were that another than its input's, all numbers would silently change. Scales are
   compared as numbers, without ==, which compilers warn of. */
static int ptq__same_qparams(const ptq_qparams *a, const ptq_qparams *b) {
    return a->type == b->type && a->bits == b->bits && a->zero_point == b->zero_point &&
           !(a->scale < b->scale) && !(a->scale > b->scale);
}

/* ReLU and ReLU6. y = max(x, 0), y = min(max(x, 0), 6). Codes keep their scale, so that no code is
   computed anew: they are clamped to those of 0 and 6. */

/* One number, -inf to inf. A NaN passes: calibration must see it. */
static float ptq__activate(float x, ptq_activation act) {
    if (act != PTQ_ACTIVATION_NONE && x < 0)
        return 0;
    return act == PTQ_ACTIVATION_RELU6 && x > 6 ? 6 : x;
}

/* The codes that a result may have, of a scale in which 0 is always exact, and 6 as near as can be.
   */
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

/* H x W x C -> H x W x C, in place or not. */
static void ptq__relu_f32(const ptq__step *step, const ptq__frame *frame) {
    const float *x = (const float *)frame->in[0]; /* H x W x C */
    float *y = (float *)frame->out;               /* H x W x C, perhaps x itself */
    for (int i = 0; i < step->elements; i++)
        y[i] = ptq__activate(x[i], step->act);
}

/* Of a code before it is stored, which may be any integer. */
static int32_t ptq__clamp_code(int32_t code, const ptq__clamp *clamp) {
    code = code < clamp->low ? clamp->low : code;
    return code > clamp->high ? clamp->high : code;
}

/* H x W x C codes, compared as numbers: their order is that of what they stand for. */
static void ptq__relu_int(const ptq__step *step, const ptq__frame *frame) {
    ptq_type type = step->node->q.type;
    for (int i = 0; i < step->elements; i++)
        ptq__store(frame->out, i, ptq__clamp_code(ptq__load(frame->in[0], i, type), &step->clamp));
}

/* Without a word in the metadata: PTQ__ONNX. ptq_model_check refuses words of other arithmetics. */
static ptq__arithmetic ptq__arithmetic_of(const ptq_model *model) {
    const char *name = ptq_model_get_meta(model, "arithmetic");
    if (name && !strcmp(name, "xnnpack"))
        return PTQ__XNNPACK;
    return name && !strcmp(name, "fixed") ? PTQ__FIXED : PTQ__ONNX;
}

/* TensorFlow Lite's way to multiply an integer by a real factor M, which it keeps as an integer:
   M = m 2^(e - 31) with m = round(2^31 f), M = f 2^e, 1/2 <= f < 1. Then
       x M = round(round_up(x m / 2^31) / 2^-e),
   the first rounded half up, the second half away from zero: Jacob et al. 2018, 2.2. So M = 0.1,
   which is 0.8 * 2^-3, becomes m = 1717986918 with e = -3. */
static ptq_factor ptq__fixed_of(double factor) {
    ptq_factor fixed = {0, 0}; /* shifts of -31 to 30, or 0 */
    int64_t m = (int64_t)floor(frexp(factor, &fixed.shift) * 2147483648.0 + 0.5);
    if (m == INT64_C(1) << 31) {
        m /= 2;
        fixed.shift++;
    }
    if (fixed.shift < -31) /* nothing is left of any integer */
        m = fixed.shift = 0;
    if (fixed.shift > 30) {
        fixed.shift = 30;
        m = INT32_MAX;
    }
    fixed.multiplier = (int32_t)m;
    return fixed;
}

/* Shifting up may wrap, as it does there; no scale of a layer needs it. */
static int32_t ptq__fixed_multiply(int32_t x, ptq_factor by) {
    int up = by.shift > 0 ? by.shift : 0, down = up - by.shift;
    int64_t product = (int64_t)(int32_t)((uint32_t)x << up) * by.multiplier;
    int64_t high = (product + (product >= 0 ? INT64_C(1) << 30 : 1 - (INT64_C(1) << 30))) /
                   (INT64_C(1) << 31); /* rounds towards zero */
    int64_t unit = INT64_C(1) << down, rest = high & (unit - 1);
    return (int32_t)((high - rest) / unit + (rest > (unit - 1) / 2 + (high < 0)));
}

/* What a sum stands for as a code: clamp(rne(sum m) + zy); in fixed arithmetic by factor k instead
   of m, M(sum) + zy. */
static int32_t ptq__sum_code(const ptq__step *step, int32_t sum, float m, int k) {
    const ptq__clamp *to = &step->clamp;
    if (!step->fixed)
        return ptq_requantize(sum, m, to->zero_point, to->low, to->high);
    int64_t code = (int64_t)ptq__fixed_multiply(sum, step->fixed[k]) + to->zero_point;
    return (int32_t)(code < to->low ? to->low : code > to->high ? to->high : code);
}

/* Addition. y = act(a + b), all of one shape. Codes a and b of different scales, as ONNX Runtime's
   QLinearAdd:
       y = rne(fma(a, sa/sy, fma(b, sb/sy, zy - fma(sa/sy, za, (sb/sy) zb))))
   b's product is rounded first, then everything once: so the order of the operands matters, and is
   the graph's. As XNNPACK's, with 2^k >= 2^20 / max(sa/sy, sb/sy) > 2^(k-1) and halves up:
       y = round(((a - za) rne(2^k sa/sy) + (b - zb) rne(2^k sb/sy)) / 2^k) + zy
   As TensorFlow Lite's own, with s = 2 max(sa, sb) and all products fixed:
       y = ((a - za) 2^20 (sa/s) + (b - zb) 2^20 (sb/s)) (s / (2^20 sy)) + zy */

/* What does not depend on the image: two ratios, and what the three zero points come to. */
static ptq__adder ptq__adder_of(const ptq_qparams *a, const ptq_qparams *b, const ptq_qparams *y,
                                ptq_activation act, ptq__arithmetic arithmetic) {
    ptq__adder adder;
    int shift;
    double twice = 2.0 * (double)(a->scale > b->scale ? a->scale : b->scale);
    adder.ratio_a = ptq__div(a->scale, y->scale);
    adder.ratio_b = ptq__div(b->scale, y->scale);
    float zero_b = ptq__mul(adder.ratio_b, (float)b->zero_point);
    adder.offset = (float)y->zero_point - ptq__fma(adder.ratio_a, (float)a->zero_point, zero_b);
    for (int k = 0; k < 2 && arithmetic == PTQ__XNNPACK; k++) {
        frexp((double)(adder.ratio_a > adder.ratio_b ? adder.ratio_a : adder.ratio_b), &shift);
        adder.factor[k].shift = 21 - shift;
        adder.factor[k].multiplier =
            (int32_t)rint(ldexp((double)(k ? adder.ratio_b : adder.ratio_a), 21 - shift));
    }
    for (int k = 0; k < 3 && arithmetic == PTQ__FIXED; k++)
        adder.factor[k] = ptq__fixed_of(k == 2 ? twice / (1048576.0 * (double)y->scale)
                                               : (double)(k ? b : a)->scale / twice);
    adder.zero_a = a->zero_point;
    adder.zero_b = b->zero_point;
    adder.arithmetic = arithmetic;
    adder.clamp = ptq__clamp_of(y, act);
    return adder;
}

/* In integers, by one of the other two formulas. */
static int32_t ptq__add_integers(const ptq__adder *adder, int32_t a, int32_t b) {
    const ptq_factor *factor = adder->factor;
    int64_t sum;
    a -= adder->zero_a;
    b -= adder->zero_b;
    if (adder->arithmetic == PTQ__FIXED) {
        int32_t x = ptq__fixed_multiply(a * (1 << 20), factor[0]);
        int32_t y = ptq__fixed_multiply(b * (1 << 20), factor[1]);
        sum = ptq__fixed_multiply(x + y, factor[2]);
    } else {
        int64_t unit = INT64_C(1) << factor[0].shift;
        sum = (int64_t)a * factor[0].multiplier + (int64_t)b * factor[1].multiplier + unit / 2;
        sum = (sum - (int64_t)((uint64_t)sum & (uint64_t)(unit - 1))) / unit; /* rounds down */
    }
    return ptq__clamp_code((int32_t)sum + adder->clamp.zero_point, &adder->clamp);
}

/* a and b: codes as they lie in memory, the zero point not taken off. */
static int32_t ptq__add_codes(const ptq__adder *adder, int32_t a, int32_t b) {
    if (adder->arithmetic != PTQ__ONNX)
        return ptq__add_integers(adder, a, b);
    float sum = ptq__fma((float)b, adder->ratio_b, adder->offset);
    sum = ptq__fma((float)a, adder->ratio_a, sum);
    return ptq__to_code(sum, 0, adder->clamp.low, adder->clamp.high);
}

/* H x W x C, H x W x C -> H x W x C: kernels walk both operands with one index. */
static ptq_status ptq__add_shape(ptq_node *node, const int *a, const int *b, ptq_error *err) {
    PTQ__REFUSE_IF(memcmp(a, b, sizeof node->shape), PTQ_BAD_GRAPH,
                   "adds %dx%dx%d and %dx%dx%d; shapes must be equal", a[0], a[1], a[2], b[0], b[1],
                   b[2]);
    return PTQ_OK;
}

/* H x W x C, H x W x C -> H x W x C, which may lie over the first operand. */
static void ptq__add_f32(const ptq__step *step, const ptq__frame *frame) {
    const float *a = (const float *)frame->in[0], *b = (const float *)frame->in[1]; /* H x W x C */
    float *y = (float *)frame->out; /* H x W x C, perhaps a */
    for (int i = 0; i < step->elements; i++)
        y[i] = ptq__activate(a[i] + b[i], step->act);
}

/* H x W x C codes each; the result may lie over the first operand, whose code is read before. */
static void ptq__add_int(const ptq__step *step, const ptq__frame *frame) {
    ptq_type a = step->from[0]->q.type, b = step->from[1]->q.type;
    for (int i = 0; i < step->elements; i++)
        ptq__store(frame->out, i,
                   ptq__add_codes(&step->adder, ptq__load(frame->in[0], i, a),
                                  ptq__load(frame->in[1], i, b)));
}

/* Codes of another scale: of x, or, where it is negative, of `slope` x. As ONNX Runtime computes
   it, y = clamp(rne(sx (x - zx) / sy) + zy); TensorFlow Lite's reference, M(x - zx, sx / sy) + zy;
   and XNNPACK, where the factor has 8 bits of fraction that tell something, with these, halves up.
   */
static int32_t ptq__recode(int32_t x, const ptq_qparams *from, const ptq_qparams *to, float slope,
                           ptq__arithmetic arithmetic) {
    ptq__clamp clamp = ptq__clamp_of(to, PTQ_ACTIVATION_NONE);
    float ratio = ptq__div(from->scale, to->scale), factor;
    int32_t y;
    x -= from->zero_point;
    slope = x < 0 ? slope : 1;
    factor = ptq__mul(ratio, slope);
    if (arithmetic == PTQ__ONNX)
        return ptq_quantize(ptq__mul(slope, ptq__mul(from->scale, (float)x)), to);
    if (arithmetic == PTQ__XNNPACK && ratio >= 0.00390625f && ratio <= 128 && factor <= 128 &&
        factor >= -127.99609375f)
        y = (int32_t)floor((x * rint(256 * (double)factor) + 128) / 256);
    else
        y = ptq__fixed_multiply(
            x, ptq__fixed_of((double)from->scale * (double)slope / (double)to->scale));
    return ptq__clamp_code(y + to->zero_point, &clamp);
}

/* Concatenation. y = the channels of a, then those of b, at every position. Codes of other scales
   are coded anew, a function of one byte, and so a table. */

/* H x W x C, H x W x C' -> H x W x (C + C'). */
static ptq_status ptq__concat_shape(ptq_node *node, const int *a, const int *b, ptq_error *err) {
    PTQ__REFUSE_IF(a[0] != b[0] || a[1] != b[1], PTQ_BAD_GRAPH,
                   "joins %dx%dx%d and %dx%dx%d; heights and widths must be equal", a[0], a[1],
                   a[2], b[0], b[1], b[2]);
    PTQ__REFUSE_IF(a[2] > PTQ_MAX_ELEMENTS - b[2], PTQ_BAD_GRAPH, "has more than %d channels",
                   PTQ_MAX_ELEMENTS);
    node->shape[2] = a[2] + b[2];
    return PTQ_OK;
}

/* As bytes, H x W x C and H x W x C' -> H x W x (C + C'). Copied are real numbers, and codes that
   are the result's already, as those of all operands of a chain but one are. */
static void ptq__concat(const ptq__step *step, const ptq__frame *frame) {
    size_t size = ptq__is_coded(step->node) ? 1 : sizeof(float), n[2]; /* n: bytes at a position */
    const uint8_t *x[2], *table = (const uint8_t *)step->owned;        /* table: 2 x 256 */
    uint8_t *y = (uint8_t *)frame->out, *end = y + (size_t)step->elements * size;
    int same[2];
    for (int k = 0; k < 2; k++) {
        x[k] = (const uint8_t *)frame->in[k];
        n[k] = (size_t)step->from[k]->shape[2] * size;
        same[k] = ptq__same_qparams(&step->from[k]->q, &step->node->q);
    }
    while (y < end)
        for (int k = 0; k < 2; y += n[k], x[k] += n[k], k++) {
            if (same[k])
                memcpy(y, x[k], n[k]);
            for (size_t i = 0; i < n[k] && !same[k]; i++)
                y[i] = table[256 * k + x[k][i]];
        }
}

/* The scales of a sum's or an average's operands over that of the result: so far apart that float
   arithmetic would lose one, they are a mistake. Of a fused addition the first operand is the
   convolution's own result. */
static ptq_status ptq__check_ratios(const ptq_model *model, const ptq_node *node, ptq_error *err) {
    for (int k = 0; k < 2 && node->input[k] >= 0; k++) {
        const ptq_qparams *q = &model->node[node->input[k]].q;
        float in = node->residual && k == 0 ? node->mid.scale : q->scale;
        float ratio = ptq__div(in, node->q.scale);
        PTQ__REFUSE_IF(!ptq__is_normal(ratio) || ratio > 1e6f || ratio < 1e-12f, PTQ_BAD_NUMBER,
                       "an operand's scale %g does not go with the result's %g", (double)in,
                       (double)node->q.scale);
    }
    return PTQ_OK;
}

/* Windows: what convolutions and pools share. Along each axis
       out = (before + in + after - window) / stride + 1, rounded down,
   where window = (kernel - 1) dilation + 1. With ceil_mode it is rounded up, but no window begins
   behind the image. */

/* Size of the result along one axis, and the padding; 0 if no window fits. With SAME 32 rows, a
   kernel of 3 and a stride of 2 give 16 results, which cover 15 * 2 + 3 = 33 rows: one row of
   padding, which is odd, and goes behind. */
static int ptq__window(int size, int kernel, int stride, ptq_padding padding, int ceil_mode,
                       int *before, int *after) {
    int out = (size + stride - 1) / stride, total; /* of SAME: one result for each stride begun */
    if (padding == PTQ_PADDING_SAME) {
        total = (out - 1) * stride + kernel - size;
        *before = total < 0 ? 0 : total / 2; /* an odd row goes behind, as in TensorFlow */
        *after = total < 0 ? 0 : total - total / 2;
        return out;
    }
    if (padding == PTQ_PADDING_VALID)
        *before = *after = 0;
    total = size + *before + *after - kernel;
    out = total < 0 ? 0 : total / stride + 1;
    return out + (ceil_mode && total > -stride && total % stride && out * stride < size + *before);
}

/* H x W x C -> H' x W' x C. Also fills in the padding that SAME and VALID stand for. */
static ptq_status ptq__window_shape(ptq_node *node, const int *in, const int *second,
                                    ptq_error *err) {
    const int *kernel = node->kernel, *stride = node->stride, *dilation = node->dilation;
    for (int axis = 0; axis < 2; axis++) {
        int *before = &node->pad[axis], *after = &node->pad[axis + 2], window;
        PTQ__REFUSE_IF(kernel[axis] < 1 || kernel[axis] > PTQ_MAX_KERNEL || stride[axis] < 1 ||
                           stride[axis] > PTQ_MAX_KERNEL,
                       PTQ_BAD_GRAPH, "kernel %dx%d with stride %dx%d; both must be 1 to %d",
                       kernel[0], kernel[1], stride[0], stride[1], PTQ_MAX_KERNEL);
        PTQ__REFUSE_IF(dilation[axis] < 1 || dilation[axis] > PTQ_MAX_KERNEL ||
                           (kernel[axis] - 1) * dilation[axis] >= PTQ_MAX_KERNEL,
                       PTQ_BAD_GRAPH, "dilation %dx%d; a kernel may cover at most %d rows",
                       dilation[0], dilation[1], PTQ_MAX_KERNEL);
        PTQ__REFUSE_IF(
            node->padding == PTQ_PADDING_EXPLICIT &&
                (*before < 0 || *after < 0 || *before > PTQ_MAX_KERNEL || *after > PTQ_MAX_KERNEL),
            PTQ_BAD_GRAPH, "padding %d,%d,%d,%d must be 0 to %d", node->pad[0], node->pad[1],
            node->pad[2], node->pad[3], PTQ_MAX_KERNEL);
        window = (kernel[axis] - 1) * dilation[axis] + 1;
        node->shape[axis] = ptq__window(in[axis], window, stride[axis], node->padding,
                                        node->ceil_mode, before, after);
        PTQ__REFUSE_IF(node->shape[axis] < 1, PTQ_BAD_GRAPH,
                       "a kernel of %dx%d does not fit into its input of %dx%d", kernel[0],
                       kernel[1], in[0], in[1]);
    }
    (void)second;
    return PTQ_OK;
}

/* Padding less than the kernel leaves every window at least one input: an average divides by their
   number, and a maximum needs one. */
static ptq_status ptq__pool_shape(ptq_node *node, const int *in, const int *second,
                                  ptq_error *err) {
    const int *pad = node->pad;
    for (int i = 0; i < 4 && node->padding == PTQ_PADDING_EXPLICIT; i++)
        PTQ__REFUSE_IF(pad[i] < 0 || pad[i] >= node->kernel[i % 2], PTQ_BAD_GRAPH,
                       "padding %d,%d,%d,%d must be at least 0 and less than the kernel %dx%d",
                       pad[0], pad[1], pad[2], pad[3], node->kernel[0], node->kernel[1]);
    PTQ__REFUSE_IF(node->dilation[0] != 1 || node->dilation[1] != 1 ||
                       (node->ceil_mode && node->padding == PTQ_PADDING_SAME),
                   PTQ_BAD_GRAPH, "a pool takes no dilation, and ceil_mode not with padding same");
    return ptq__window_shape(node, in, second, err);
}

/* Convolution and dense layer.
       y[o] = act(b[o] + sum over i, u, v of w[o][i][u][v] x[i][u][v]),
   i over the input channels of o's group, u and v over the window; a fused addition makes of it
       add_act(y[o] + residual[o]), or residual[o] + y[o] on codes.
   On codes, with the zero point taken off the inputs, so that padding adds 0:
       acc = b[o] + sum of (w - zw) (x - zx),     y = clamp(rne(acc * m[o]) + zy),
   b in units of sx * sw[o], and m[o] = sx * sw[o] / sy. No accumulator leaves 32 bits.

   One tap as an example: x = 1.5 and w = -0.25, of scales 0.5 and 0.01 and zero points 10 and 0,
   are the codes 13 and -25. acc = (13 - 10) * -25 = -75 stands for -75 * 0.5 * 0.01 = -0.375, the
   very product. For a result of scale 0.1 and zero point 128 it becomes, with m = 0.05,
       y = rne(-75 * 0.05) + 128 = 124,     which stands for 0.1 (124 - 128) = -0.4. */

/* H x W x C -> H' x W' x channels. A residual is added element by element, in place. */
static ptq_status ptq__conv_shape(ptq_node *node, const int *in, const int *residual,
                                  ptq_error *err) {
    const int *out = node->shape;
    PTQ__REFUSE_IF(node->groups < 1 || in[2] % node->groups || node->channels % node->groups,
                   PTQ_BAD_GRAPH, "%d groups must divide %d input and %d output channels",
                   node->groups, in[2], node->channels);
    PTQ__TRY(ptq__window_shape(node, in, NULL, err));
    PTQ__REFUSE_IF((node->residual != PTQ_RESIDUAL_NONE) != (residual != NULL), PTQ_BAD_GRAPH,
                   "a fused addition goes with a second input");
    PTQ__REFUSE_IF(residual && memcmp(residual, out, sizeof node->shape), PTQ_BAD_GRAPH,
                   "adds a residual of %dx%dx%d to a result of %dx%dx%d", residual[0], residual[1],
                   residual[2], out[0], out[1], out[2]);
    return PTQ_OK;
}

/* s_a * s_b / s_out in the order that the arithmetic prescribes, s_b that of a weight or a second
   operand; s_out 1 for real results. 0 where it is refused. */
static float ptq__multiplier(float a, float b, const ptq_qparams *out) {
    float product = ptq__mul(a, b);
    if (!ptq__is_normal(product))
        return 0;
    return out->type == PTQ_TYPE_F32 ? product : ptq__div(product, out->scale);
}

/* How the sums of a layer are coded: as its result, or, where an addition is fused behind it, as
   the addition's operand. */
static const ptq_qparams *ptq__sum_qparams(const ptq_node *node) {
    return node->residual ? &node->mid : &node->q;
}

/* Sum of |w - z| of one output channel. */
static uint64_t ptq__weight_mass(const ptq_tensor *weight, int channel) {
    size_t n = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t w = ptq__code(weight, (size_t)channel * n + i) - weight->zero_point;
        sum += (uint64_t)(w < 0 ? -w : w);
    }
    return sum;
}

/* No input whatever may make an accumulator leave int32, and no multiplier may be 0, infinite or
   denormal: proved here from the weights, so that kernels need not look. With codes of 8 bits a 3 x
   3 kernel over 64 channels reaches at most 576 * 127 * 255 = 18,653,760: only layers of more than
   66,000 taps could leave 31 bits, and in them only those with large weights. */
static ptq_status ptq__check_sums(const ptq_model *model, const ptq_node *node, ptq_error *err) {
    const ptq_qparams *in = &model->node[node->input[0]].q, *out = ptq__sum_qparams(node);
    const ptq_tensor *w = &node->param[PTQ_PARAM_WEIGHT], *b = &node->param[PTQ_PARAM_BIAS];
    uint64_t reach = node->dynamic ? 255 : ptq__code_reach(in); /* dynamic: any zero point */
    for (int c = 0; c < node->channels; c++) {
        uint64_t most = ptq__weight_mass(w, c) * reach;
        int64_t bias = b->rank && !node->dynamic ? ((const int32_t *)b->data)[c] : 0;
        float scale = ptq__scale_of(w, (size_t)c);
        most += (uint64_t)(bias < 0 ? -bias : bias);
        PTQ__REFUSE_IF(most > INT32_MAX, PTQ_BAD_NUMBER,
                       "the accumulator of channel %d could reach %llu and overflow 32 bits", c,
                       (unsigned long long)most);
        /* One that rounds to 0 would silence the channel; processors differ on denormals. */
        PTQ__REFUSE_IF(!node->dynamic && !ptq__is_normal(ptq__multiplier(in->scale, scale, out)),
                       PTQ_BAD_NUMBER,
                       "scales %g (input), %g (weight %d) and %g (result) give no normal"
                       " multiplier",
                       (double)in->scale, (double)scale, c, (double)out->scale);
    }
    return node->residual && ptq__is_coded(node) ? ptq__check_ratios(model, node, err) : PTQ_OK;
}

/* A window of 1 x 1 without padding: the channels of a pixel lie side by side, in the order of the
   weights, and need no gathering. */
static int ptq__is_direct(const ptq__step *step) {
    const int *pad = step->node->pad;
    return step->kernel[0] * step->kernel[1] == 1 && !(pad[0] | pad[1] | pad[2] | pad[3]);
}

/* Where the input under tap (u, v) of the window at position p = y * W' + x of the result begins,
   at channel 0; -1 in the padding. */
static ptrdiff_t ptq__under(const ptq__step *step, int p, int u, int v) {
    int y = p / step->node->shape[1] * step->stride[0] - step->pad[0] + u * step->dilation[0];
    int x = p % step->node->shape[1] * step->stride[1] - step->pad[1] + v * step->dilation[1];
    if (y < 0 || y >= step->in[0] || x < 0 || x >= step->in[1])
        return -1;
    return ((ptrdiff_t)y * step->in[1] + x) * step->in[2];
}

/* The inputs under the window at position p, of n channels from `first` on, put into the order of
   the weights, n x KH x KW. Of all channels, group g has its `taps` numbers from g * taps on; so a
   result is the product of two plain vectors. Padding is 0. */
#define PTQ__PATCH(NAME, FROM, TO, NUMBER)                                                         \
    static void NAME(const ptq__step *step, const FROM *x, const ptq_qparams *q, int p, int first, \
                     int n, TO *patch) {                                                           \
        int area = step->kernel[0] * step->kernel[1], tap, c;                                      \
        int flip = q->type == PTQ_TYPE_S8 ? 128 : 0, zero = q->zero_point + flip;                  \
        for (tap = 0; tap < area; tap++) {                                                         \
            ptrdiff_t at = ptq__under(step, p, tap / step->kernel[1], tap % step->kernel[1]);      \
            for (c = 0; c < n && at < 0; c++)                                                      \
                patch[c * area + tap] = 0;                                                         \
            for (c = 0; c < n && at >= 0; c++)                                                     \
                patch[c * area + tap] = NUMBER;                                                    \
        }                                                                                          \
        (void)flip, (void)zero;                                                                    \
    }

/* Real numbers; and codes less their zero point, s8 + 128 taken for u8: -255 to 255 need nine bits,
   and so sixteen. Why take off the zero point here? Then padding is 0 for both, and the product of
   a tap needs no correction; the inputs of a window are gathered once for all channels. */
PTQ__PATCH(ptq__gather_f32, float, float, x[at + first + c])
PTQ__PATCH(ptq__gather_codes, uint8_t, int16_t, (int16_t)((x[at + first + c] ^ flip) - zero))

/* sum of a[i] b[i], n numbers each. Eight partial sums: the order of additions is fixed, and a
   compiler may still use vectors. */
static float ptq__dot_f32(const float *a, const float *b, int n) {
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int i;
    for (i = 0; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += a[i + j] * b[i + j];
    for (int j = 0; i + j < n; j++)
        sum[j] += a[i + j] * b[i + j];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* The same of codes: x, less its zero point, -255 to 255, n of 16 bits; w, n codes as they are,
   -128 to 127 or 0 to 255. A block of 16 products stays below 2^21; their sum may wrap at 32 bits,
   see ptq__mass. Blocks of 16 become vector code; a plain loop stays scalar at -O2. */
#define PTQ__DOT(NAME, TYPE)                                                                       \
    static uint32_t NAME(const int16_t *x, const TYPE *w, int n) {                                 \
        uint32_t sum = 0;                                                                          \
        int i, j;                                                                                  \
        for (i = 0; i + 16 <= n; i += 16) {                                                        \
            int32_t part = 0;                                                                      \
            for (j = 0; j < 16; j++)                                                               \
                part += x[i + j] * w[i + j];                                                       \
            sum += (uint32_t)part;                                                                 \
        }                                                                                          \
        for (; i < n; i++)                                                                         \
            sum += (uint32_t)(x[i] * w[i]);                                                        \
        return sum;                                                                                \
    }
PTQ__DOT(ptq__dot_s8, int8_t)
PTQ__DOT(ptq__dot_u8, uint8_t)

/* sum of (w - zw)(x - zx) = sum w (x - zx) - zw sum (x - zx). The second sum is the same for all
   channels of a group: ptq__mass. Both may wrap where their difference, which ptq__check_sums
   bounds, does not. */
static uint32_t ptq__mass(const ptq__step *step, const int16_t *patch) {
    uint32_t sum = 0;
    for (int i = 0; i < step->taps && step->node->param[PTQ_PARAM_WEIGHT].zero_point; i++) {
        int32_t x = patch[i];
        sum += (uint32_t)x;
    }
    return sum;
}

/* Sum of (w - zw) (x - zx) for one channel of the result: the plain product of the gathered inputs,
   x - zx, and the weights as they are stored, less what the weights' zero point adds to it. */
static int32_t ptq__dot(const ptq__step *step, const int16_t *patch, uint32_t mass, int channel) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    const uint8_t *w = (const uint8_t *)step->weight + (ptrdiff_t)channel * step->taps;
    uint32_t sum = weight->type == PTQ_TYPE_S8 || weight->type == PTQ_TYPE_PACKED_S
                       ? ptq__dot_s8(patch, (const int8_t *)w, step->taps)
                       : ptq__dot_u8(patch, w, step->taps);
    return (int32_t)(sum - (uint32_t)weight->zero_point * mass);
}

/* What becomes of a sum that stands for element `at` of the result. The residual may lie where the
   result is written: each element is read before. */
static inline void ptq__finish_real(const ptq__step *step, const ptq__frame *frame, int at,
                                    float sum) {
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
                             int channel) {
    float m = step->multiplier[channel];
    int32_t code, other;
    if (!ptq__is_coded(step->node)) {
        ptq__finish_real(step, frame, at, ptq__mul((float)acc, m));
        return;
    }
    code = ptq__sum_code(step, acc, m, channel);
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

/* Position by position: the inputs under the window are gathered once, for all channels. The kernel
   on codes below is the same but for the words "codes", "accumulator" and "requantize". */
static void ptq__conv_f32(const ptq__step *step, const ptq__frame *frame) {
    const ptq_qparams *q = &step->from[0]->q;
    const float *x = (const float *)frame->in[0], *patch;         /* H x W x C; C x KH x KW */
    const float *weight = (const float *)step->weight;            /* O x taps */
    const float *bias = ptq__numbers(step->node, PTQ_PARAM_BIAS); /* O, or NULL */
    int taps = step->taps, each = step->node->shape[2] / step->groups, g, o, at = 0;
    for (int p = 0; at < step->elements; p++) { /* p = y * W' + x */
        patch = ptq__is_direct(step) ? x + ptq__under(step, p, 0, 0) : (float *)frame->scratch;
        if (!ptq__is_direct(step))
            ptq__gather_f32(step, x, q, p, 0, step->in[2], (float *)frame->scratch);
        for (g = 0, o = 0; g < step->groups; g++, patch += taps)
            for (; o < (g + 1) * each; o++, at++) {
                float sum = ptq__dot_f32(patch, weight + (ptrdiff_t)o * taps, taps);
                ptq__finish_real(step, frame, at, sum + (bias ? bias[o] : 0));
            }
    }
}

/* Codes x of scale and zero point q. With multipliers accumulators become codes; without them, in
   dynamic quantization, real numbers at once: y = act(acc * (sx * sw[o]) + b[o]). */
static void ptq__conv_codes(const ptq__step *step, const ptq__frame *frame, const uint8_t *x,
                            const ptq_qparams *q) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT]; /* O x taps */
    const void *bias = step->node->param[PTQ_PARAM_BIAS].data;       /* O, sums or real, or NULL */
    int each = step->node->shape[2] / step->groups, g, o, at = 0;
    for (int p = 0; at < step->elements; p++) {
        const int16_t *patch = (const int16_t *)frame->scratch; /* C x KH x KW */
        ptq__gather_codes(step, x, q, p, 0, step->in[2], (int16_t *)frame->scratch);
        for (g = 0, o = 0; g < step->groups; g++, patch += step->taps) {
            uint32_t mass = ptq__mass(step, patch);
            for (; o < (g + 1) * each; o++, at++) {
                int32_t acc = ptq__dot(step, patch, mass, o);
                if (step->multiplier) {
                    acc += bias ? ((const int32_t *)bias)[o] : 0;
                    ptq__finish_code(step, frame, at, acc, o);
                } else {
                    float scale = ptq__mul(q->scale, ptq__scale_of(weight, (size_t)o));
                    float sum = ptq__mul((float)acc, scale);
                    ptq__finish_real(step, frame, at, sum + (bias ? ((const float *)bias)[o] : 0));
                }
            }
        }
    }
}

static void ptq__conv_int(const ptq__step *step, const ptq__frame *frame) {
    ptq__conv_codes(step, frame, (const uint8_t *)frame->in[0], &step->from[0]->q);
}

/* Dynamic quantization: integer weights on real inputs, whose codes are found anew for each image,
   under the range of that image: affine; or symmetric as in TensorFlow Lite's hybrid layers, where
   127 is the code of the largest |x|, q = round(x * (127 / largest)), halves away from zero. */
static void ptq__conv_dynamic(const ptq__step *step, const ptq__frame *frame) {
    const float *x = (const float *)frame->in[0]; /* H x W x C */
    uint8_t *codes = (uint8_t *)((int16_t *)frame->scratch + step->taps * step->groups);
    int n = step->in[0] * step->in[1] * step->in[2];
    int symmetric = step->node->dynamic == PTQ_DYNAMIC_SYMMETRIC;
    float low = 0, high = 0, inverse; /* 0 is always in the range */
    ptq_qparams q;
    for (int i = 0; i < n; i++) {
        *frame->no_code |= !ptq__is_finite(x[i]);
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    if (*frame->no_code)
        return;
    high = symmetric && -low > high ? -low : high;
    inverse = high > 0 ? 127 / high : 0;
    if (symmetric) {
        q.type = PTQ_TYPE_S8, q.bits = 8, q.zero_point = 0;
        q.scale = high > 0 ? high / 127 : 1;
    } else if (ptq_choose_qparams(low, high, PTQ_TYPE_U8, 8, 0, &q, NULL) != PTQ_OK) {
        ptq_choose_qparams(0, 0, PTQ_TYPE_U8, 8, 0, &q, NULL); /* too small to matter: all 0 */
    }
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(symmetric ? (int32_t)roundf(ptq__mul(x[i], inverse))
                                       : ptq_quantize(x[i], &q));
    ptq__conv_codes(step, frame, codes, &q);
}

/* Batch norm. y = gamma (x - mean) / sqrt(variance + epsilon) + beta, each parameter of C numbers.
   On real numbers only: [FUSE] folds it into the convolution before it. */

/* A negative epsilon could make the root's argument negative; one above 1 is surely a mistake. */
static ptq_status ptq__norm_shape(ptq_node *node, const int *in, const int *second,
                                  ptq_error *err) {
    PTQ__REFUSE_IF(!(node->epsilon >= 0 && node->epsilon <= 1), PTQ_BAD_GRAPH,
                   "epsilon %g is not in 0 to 1", (double)node->epsilon);
    (void)in, (void)second;
    return PTQ_OK;
}

/* g is computed once for each channel, and each number then costs a product and a sum. */
static void ptq__norm_f32(const ptq__step *step, const ptq__frame *frame) {
    const ptq_node *node = step->node;
    const float *x = (const float *)frame->in[0]; /* H x W x C */
    float *y = (float *)frame->out;               /* H x W x C, perhaps x itself */
    for (int c = 0; c < step->in[2]; c++) {
        float mean = ptq__numbers(node, PTQ_PARAM_MEAN)[c];
        float beta = ptq__numbers(node, PTQ_PARAM_BIAS)[c];
        float root = sqrtf(ptq__numbers(node, PTQ_PARAM_VARIANCE)[c] + node->epsilon);
        float g = ptq__numbers(node, PTQ_PARAM_WEIGHT)[c] / root;
        for (int i = c; i < step->elements; i += step->in[2])
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
    int taps; /* how many numbers an average is taken over: those inside, or with include_pad those
                 in the padding too; what ceil_mode lets a window cover behind that never counts */
} ptq__clip;

/* That of position p = y * W' + x of the result. */
static ptq__clip ptq__clip_window(const ptq__step *step, int p) {
    int at[2] = {p / step->node->shape[1], p % step->node->shape[1]};
    ptq__clip clip = {{0, 0}, {0, 0}, 1};
    for (int axis = 0; axis < 2; axis++) {
        int first = at[axis] * step->stride[axis] - step->pad[axis], in = step->in[axis];
        int last = first + step->kernel[axis], padded = in + step->node->pad[axis + 2];
        clip.begin[axis] = first < 0 ? 0 : first;
        clip.end[axis] = last > in ? in : last;
        padded = (last < padded ? last : padded) - first;
        clip.taps *= step->node->include_pad ? padded : clip.end[axis] - clip.begin[axis];
    }
    return clip;
}

/* Every pool is this loop: over the positions of the result, its channels, and the inputs under the
   window, of which the result is the largest or the average. `first`: where the first of them is,
   with which the search for the largest begins. Inline, so that the question which of both it is
   leaves the loop. */
static inline void ptq__pool_f32(const ptq__step *step, const ptq__frame *frame, int largest) {
    const float *x = (const float *)frame->in[0]; /* H x W x C */
    float *y = (float *)frame->out;               /* H' x W' x C */
    int width = step->in[1], channels = step->in[2];
    for (int i = 0; i < step->elements; i += channels) {
        ptq__clip clip = ptq__clip_window(step, i / channels);
        int first = (clip.begin[0] * width + clip.begin[1]) * channels;
        for (int c = 0; c < channels; c++) {
            float sum = largest ? x[first + c] : 0;
            for (int u = clip.begin[0]; u < clip.end[0]; u++)
                for (int v = clip.begin[1]; v < clip.end[1]; v++) {
                    float value = x[(u * width + v) * channels + c];
                    if (!largest)
                        sum += value;
                    else if (value > sum)
                        sum = value;
                }
            y[i + c] = largest ? sum : sum / (float)clip.taps;
        }
    }
}

/* The same of codes x. The average of a window is what ONNX Runtime's QLinearAveragePool gives,

       S = sum over the window, row by row, of sx (x - zx)        q = clamp(rne(S / n / sy + zy))

   each operation rounded; its global pool below is another formula. TensorFlow Lite divides the sum
   of the codes, and rounds halves away from zero. What sx (x - zx) is for each byte stands in a
   table, which no compiler can fuse with the sum. Both scales lose the exponent of sx, which
   changes no bit of a quotient, so that no sum of real numbers leaves their range.

   H x W x C -> H' x W' x C; `code` begins as the first one under the window. */
static inline void ptq__pool_int(const ptq__step *step, const ptq__frame *frame, int largest) {
    const ptq_qparams *q = &step->from[0]->q, *to = &step->node->q;
    const void *x = frame->in[0];
    int width = step->in[1], channels = step->in[2], exponent;
    float in_scale = (float)frexp((double)q->scale, &exponent), real[256];
    float scale = (float)((double)to->scale * ((double)in_scale / (double)q->scale));
    for (int i = 0; i < 256 && !largest; i++)
        real[i] = ptq__mul(
            in_scale, (float)((q->type == PTQ_TYPE_S8 && i > 127 ? i - 256 : i) - q->zero_point));
    for (int i = 0; i < step->elements; i += channels) {
        ptq__clip clip = ptq__clip_window(step, i / channels);
        int first = (clip.begin[0] * width + clip.begin[1]) * channels;
        for (int c = 0; c < channels; c++) {
            int32_t code = ptq__load(x, first + c, q->type), total = 0;
            ptq__float sum = 0, average;
            for (int u = clip.begin[0]; u < clip.end[0]; u++)
                for (int v = clip.begin[1]; v < clip.end[1]; v++) {
                    int at = (u * width + v) * channels + c;
                    int32_t one = ptq__load(x, at, q->type);
                    total += one - q->zero_point;
                    if (!largest)
                        sum = sum + real[ptq__load(x, at, PTQ_TYPE_U8)];
                    else if (one > code)
                        code = one;
                }
            if (!largest && step->arithmetic != PTQ__ONNX) {
                total += clip.taps * q->zero_point; /* padding that counts is 0 */
                code = (total > 0 ? total + clip.taps / 2 : total - clip.taps / 2) / clip.taps;
                code = ptq__clamp_code(code, &step->clamp);
            } else if (!largest) {
                average = ptq__div(ptq__div(sum, (float)clip.taps), scale) + (float)to->zero_point;
                code = ptq__to_code(average, 0, step->clamp.low, step->clamp.high);
            }
            ptq__store(frame->out, i + c, code);
        }
    }
}

/* The average of the whole image, H x W x C -> 1 x 1 x C, n codes for each channel:

       q = clamp(rne(m sum (x - zx)) + zy),    m = sx / (sy n)

   as ONNX Runtime's QLinearGlobalAveragePool and XNNPACK; in fixed arithmetic m is an integer. */
static void ptq__global_pool_int(const ptq__step *step, const ptq__frame *frame) {
    const ptq_qparams *q = &step->from[0]->q;
    int channels = step->in[2], n = step->in[0] * step->in[1];
    for (int c = 0; c < channels; c++) {
        int32_t sum = -n * q->zero_point;
        for (int i = 0; i < n; i++)
            sum += ptq__load(frame->in[0], i * channels + c, q->type);
        ptq__store(frame->out, c, ptq__sum_code(step, sum, step->average, 0));
    }
}

/* clang-format off */
static void ptq__max_pool_f32(const ptq__step *s, const ptq__frame *f) { ptq__pool_f32(s, f, 1); }
static void ptq__max_pool_int(const ptq__step *s, const ptq__frame *f) { ptq__pool_int(s, f, 1); }
static void ptq__avg_pool_f32(const ptq__step *s, const ptq__frame *f) { ptq__pool_f32(s, f, 0); }
static void ptq__avg_pool_int(const ptq__step *s, const ptq__frame *f) { ptq__pool_int(s, f, 0); }
/* clang-format on */

/* No sum of an average over the whole image may leave 32 bits: it would wrap into a wrong code, and
   say nothing. Codes of 8 bits reach at most 255 from their zero point, so that every image of up
   to 2900 x 2900 pixels passes. */
static ptq_status ptq__check_average(const ptq_model *model, const ptq_node *node, ptq_error *err) {
    const ptq_node *in = &model->node[node->input[0]];
    uint64_t most = (uint64_t)in->shape[0] * (uint64_t)in->shape[1] * ptq__code_reach(&in->q);
    PTQ__REFUSE_IF(most > INT32_MAX, PTQ_BAD_NUMBER,
                   "the sum of %dx%d codes could reach %llu and overflow 32 bits", in->shape[0],
                   in->shape[1], (unsigned long long)most);
    return ptq__check_ratios(model, node, err);
}

/* Softmax. y[c] = exp(x[c] - max) / sum of all: the largest term is 1, so nothing overflows.
   Log-softmax is its logarithm, x[c] - max - log(sum). On codes x of scale s, as TensorFlow Lite:
   y = rne(256 exp(s (x[c] - max)) / sum) - 128, which stands for (y + 128) / 256. In integers, from
   a table of 2^31 exp(-s d): its rounding, and that of any C library's exponential, is too small to
   change a code but at a tie. */

/* 1 x 1 x C -> 1 x 1 x C. With more positions it would be unclear which numbers sum to 1. */
static ptq_status ptq__softmax_shape(ptq_node *node, const int *in, const int *second,
                                     ptq_error *err) {
    PTQ__REFUSE_IF(in[0] != 1 || in[1] != 1, PTQ_BAD_GRAPH,
                   "softmax works on 1x1xC, its input is %dx%dx%d", in[0], in[1], in[2]);
    (void)second;
    return PTQ_OK;
}

/* x and y: n numbers each, perhaps the same ones: what is read of x at a place is read before y is
   written there. Exponentials are computed twice, which for some tens of classes is no time. */
static void ptq__softmax(const float *x, float *y, int n, int logarithm) {
    float max = x[ptq_argmax(x, n)], sum = 0;
    for (int i = 0; i < n; i++)
        sum += expf(x[i] - max);
    for (int i = 0; i < n; i++)
        y[i] = logarithm ? x[i] - max - logf(sum) : expf(x[i] - max) / sum;
}

/* 1 x 1 x C -> 1 x 1 x C, behind the logits. */
static void ptq__softmax_f32(const ptq__step *step, const ptq__frame *frame) {
    ptq__softmax((const float *)frame->in[0], (float *)frame->out, step->elements,
                 step->node->op == PTQ_OP_LOG_SOFTMAX);
}

/* 1 x 1 x C codes -> as many, s8 of scale 1/256 and zero point -128. Codes are at most 255 apart,
   and so are places in the table; the largest power, 2^31, fits 64 bits when it is shifted by 9. */
static void ptq__softmax_int(const ptq__step *step, const ptq__frame *frame) {
    const uint32_t *power = (const uint32_t *)step->owned;
    ptq_type type = step->from[0]->q.type;
    int32_t max = -128, x;
    uint64_t sum = 0;
    for (int i = 0; i < step->elements; i++)
        max = (x = ptq__load(frame->in[0], i, type)) > max ? x : max;
    for (int i = 0; i < step->elements; i++)
        sum += power[max - ptq__load(frame->in[0], i, type)];
    for (int i = 0; i < step->elements; i++) {
        uint64_t part = (uint64_t)power[max - ptq__load(frame->in[0], i, type)] << 9;
        uint64_t code = (part / sum + 1) / 2; /* halves up, and then to even */
        code -= part % (2 * sum) == sum && code % 2;
        ptq__store(frame->out, i, (int32_t)code > 255 ? 127 : (int32_t)code - 128);
    }
}

/* Functions of one number, see ptq_function. On codes each is a table of 256: whatever the
   function, a result is one look-up. The tables must be the same on every machine, and C libraries
   differ in exp and tanh; so nothing here calls them: products and sums of single precision,
   rounded as ptq__fma and its like do everywhere. On real numbers, where `exact` is 0, the compiler
   may choose how it rounds. */

/* c[0] x^(n - 1) + ... + c[n - 1]. */
static inline float ptq__horner(const float *c, int n, float x, int exact) {
    float sum = c[0];
    for (int k = 1; k < n; k++)
        sum = exact ? ptq__fma(x, sum, c[k]) : x * sum + c[k];
    return sum;
}

/* sigmoid(x) - 1/2 = tanh(x / 2) / 2, as x p(x^2) / q(x^2), within 1e-7: the rational function of
   Eigen's and ONNX Runtime's, which gives the latter's codes. */
static inline float ptq__half_sigmoid(float x, int exact) {
    static const float p[] = {4.37031012579801e-11f, 1.15627324459942e-07f, 6.08574864600143e-05f,
                              8.51377133304701e-03f, 2.48287947061529e-01f};
    static const float q[] = {6.10247389755681e-13f, 5.76102136993427e-09f, 6.29106785017040e-06f,
                              1.70198817374094e-03f, 1.16817656904453e-01f, 9.93151921023180e-01f};
    x = x < -18 ? -18 : x > 18 ? 18 : x;
    float square = ptq__mul(x, x);
    return ptq__div(ptq__mul(x, ptq__horner(p, 5, square, exact)),
                    ptq__horner(q, 6, square, exact));
}

/* x (1 + erf(x / sqrt(2))) / 2 by erf(z) = 1 - p(z)^-16 for z > 0, within 3e-7 (Abramowitz and
   Stegun 1964, 7.1.28). */
static inline float ptq__gelu(float x, int exact) {
    static const float p[] = {
        4.30638e-5f, 2.765672e-4f, 1.520143e-4f, 9.2705272e-3f, 4.22820123e-2f, 7.05230784e-2f, 1};
    float rest = ptq__horner(p, 7, ptq__mul(x < 0 ? -x : x, 0.70710678f), exact);
    for (int k = 0; k < 4; k++)
        rest = ptq__mul(rest, rest);
    rest = ptq__div(0.5f, rest);
    return ptq__mul(x, x < 0 ? rest : 1 - rest);
}

/* f(x); `slope`: that of leaky_relu and prelu. No NaN becomes a number. */
static inline float ptq__function(const ptq_node *node, float slope, float x, int exact) {
    const float line[] = {node->alpha, node->beta}, sixth[] = {1.0f / 6, 0.5f};
    const float cube[] = {0.044715f, 0, 1, 0};
    float y;
    switch (node->function) {
    case PTQ_FUNCTION_LEAKY_RELU:
    case PTQ_FUNCTION_PRELU:
        return x < 0 ? ptq__mul(slope, x) : x;
    case PTQ_FUNCTION_CLIP:
        return x < node->alpha ? node->alpha : x > node->beta ? node->beta : x;
    case PTQ_FUNCTION_SIGMOID:
        return ptq__half_sigmoid(x, exact) + 0.5f;
    case PTQ_FUNCTION_TANH:
        return 2 * ptq__half_sigmoid(2 * x, exact);
    case PTQ_FUNCTION_SILU:
        return ptq__mul(x, ptq__half_sigmoid(x, exact) + 0.5f);
    case PTQ_FUNCTION_HARD_SIGMOID:
    case PTQ_FUNCTION_HARD_SWISH:
        y = ptq__horner(node->function == PTQ_FUNCTION_HARD_SWISH ? sixth : line, 2, x, exact);
        y = y < 0 ? 0 : y > 1 ? 1 : y;
        return node->function == PTQ_FUNCTION_HARD_SWISH ? ptq__mul(x, y) : y;
    case PTQ_FUNCTION_ELU: /* with t = tanh(x / 2) is exp(x) - 1 = 2 t / (1 - t) */
        y = 2 * ptq__half_sigmoid(x, exact);
        return x < 0 ? ptq__mul(node->alpha, ptq__div(2 * y, 1 - y)) : x;
    case PTQ_FUNCTION_GELU:
        return ptq__gelu(x, exact);
    default: /* gelu_tanh */
        y = ptq__mul(1.5957691f, ptq__horner(cube, 4, x, exact));
        return ptq__mul(x, ptq__half_sigmoid(y, exact) + 0.5f);
    }
}

/* Two numbers where the formula has two, and so on: others would say what nobody computes. */
static int ptq__function_numbers(ptq_function function) {
    return function == PTQ_FUNCTION_CLIP || function == PTQ_FUNCTION_HARD_SIGMOID ? 2
           : function == PTQ_FUNCTION_LEAKY_RELU || function == PTQ_FUNCTION_ELU  ? 1
                                                                                  : 0;
}

/* A result for each number: the shape stays. Numbers that a formula has not must be 0. */
static ptq_status ptq__function_shape(ptq_node *node, const int *in, const int *second,
                                      ptq_error *err) {
    int known = (unsigned)node->function < PTQ_FUNCTION_COUNT;
    int numbers = known ? ptq__function_numbers(node->function) : 0;
    PTQ__REFUSE_IF(!known, PTQ_BAD_GRAPH, "an attribute is none of its kind");
    PTQ__REFUSE_IF(!ptq__is_finite(node->alpha) || !ptq__is_finite(node->beta) ||
                       (numbers < 1 && node->alpha != 0) || (numbers < 2 && node->beta != 0) ||
                       (node->function == PTQ_FUNCTION_CLIP && node->alpha > node->beta),
                   PTQ_BAD_GRAPH, "%s cannot have the numbers %g and %g",
                   ptq_name(PTQ_NAMES_FUNCTION, node->function), (double)node->alpha,
                   (double)node->beta);
    (void)in, (void)second;
    return PTQ_OK;
}

/* The slope below 0: of prelu each channel has its own, a weight; of leaky_relu it is alpha. */
static float ptq__slope(const ptq_node *node, int channel) {
    const float *slope = ptq__numbers(node, PTQ_PARAM_WEIGHT);
    return slope ? slope[channel] : node->alpha;
}

/* H x W x C -> H x W x C, in place or not. */
static void ptq__function_f32(const ptq__step *step, const ptq__frame *frame) {
    const float *x = (const float *)frame->in[0]; /* H x W x C */
    float *y = (float *)frame->out;               /* H x W x C, perhaps x itself */
    for (int i = 0; i < step->elements; i += step->in[2])
        for (int c = 0; c < step->in[2]; c++)
            y[i + c] = ptq__function(step->node, ptq__slope(step->node, c), x[i + c], 0);
}

/* One of the tables that kernels on codes look into, 256 places: table k of a function is that of
   channel k, quantize(f(dequantize(code))) for each code that can come in; table k of a concat has
   the codes of operand k in the result. Leaky ReLU, too, only changes scales. */
static void ptq__fill_table(const ptq__step *step, int k, uint8_t *table) {
    const ptq_node *node = step->node;
    int function = node->op == PTQ_OP_FUNCTION;
    int scales = !function || node->function == PTQ_FUNCTION_LEAKY_RELU;
    const ptq_qparams *in = &step->from[function ? 0 : k]->q;
    float slope = function ? ptq__slope(node, k) : 1;
    int32_t low, high;
    ptq_code_range(in->type, function ? in->bits : 8, &low, &high);
    for (int32_t code = low; code <= high; code++) {
        float y = scales ? 0 : ptq__function(node, slope, ptq_dequantize(code, in), 1);
        table[code & 255] =
            (uint8_t)(scales ? ptq__recode(code, in, &node->q, slope, step->arithmetic)
                             : ptq_quantize(y, &node->q));
    }
}

/* H x W x C codes -> as many. */
static void ptq__function_int(const ptq__step *step, const ptq__frame *frame) {
    const uint8_t *table = (const uint8_t *)step->owned, *x = (const uint8_t *)frame->in[0];
    uint8_t *y = (uint8_t *)frame->out; /* perhaps x itself */
    int n = step->elements, channels = step->in[2];
    int own = step->node->param[PTQ_PARAM_WEIGHT].rank != 0;
    for (int i = 0; i < n && !own; i++)
        y[i] = table[x[i]];
    for (int i = 0; i < n && own; i += channels)
        for (int c = 0; c < channels; c++)
            y[i + c] = table[c * 256 + x[i + c]];
}

/* Multiplication. y = a b, both H x W x C, or b of 1 x 1 x C, which stands for all pixels. On
   codes, as ONNX Runtime's QLinearMul, with the zero point added before rounding:
       y = clamp(rne((a - za) (b - zb) * m + zy)),     m = sa * sb / sy.
   TensorFlow Lite adds it behind, as in all that it does. */

/* H x W x C, H x W x C or 1 x 1 x C -> H x W x C. */
static ptq_status ptq__mul_shape(ptq_node *node, const int *a, const int *b, ptq_error *err) {
    PTQ__REFUSE_IF(a[2] != b[2] || (memcmp(a, b, sizeof node->shape) && b[0] * b[1] != 1),
                   PTQ_BAD_GRAPH,
                   "multiplies %dx%dx%d by %dx%dx%d; shapes must be equal, or the second 1x1x%d",
                   a[0], a[1], a[2], b[0], b[1], b[2], a[2]);
    return PTQ_OK;
}

/* The kernel multiplies by m and looks at nothing: m must be a normal number. */
static ptq_status ptq__check_product(const ptq_model *model, const ptq_node *node, ptq_error *err) {
    const ptq_qparams *a = &model->node[node->input[0]].q, *b = &model->node[node->input[1]].q;
    PTQ__REFUSE_IF(!ptq__is_normal(ptq__multiplier(a->scale, b->scale, &node->q)), PTQ_BAD_NUMBER,
                   "scales %g, %g and %g (result) give no normal multiplier", (double)a->scale,
                   (double)b->scale, (double)node->q.scale);
    return PTQ_OK;
}

/* How far the second operand reaches before it begins anew: as far as the first one, or, where it
   is 1 x 1 x C, to the end of a pixel. */
static int ptq__period(const ptq__step *step) {
    return (int)ptq__shape_elements(3, step->from[1]->shape);
}

/* H x W x C times H x W x C, or times 1 x 1 x C, which begins anew at every pixel. */
static void ptq__mul_f32(const ptq__step *step, const ptq__frame *frame) {
    const float *a = (const float *)frame->in[0], *b = (const float *)frame->in[1];
    float *y = (float *)frame->out; /* H x W x C, perhaps a */
    int period = ptq__period(step);
    for (int i = 0; i < step->elements; i += period)
        for (int c = 0; c < period; c++)
            y[i + c] = a[i + c] * b[c];
}

/* The same of codes. (a - za) (b - zb) lies within 255^2 = 65025, and is exact as a float. */
static void ptq__mul_int(const ptq__step *step, const ptq__frame *frame) {
    const ptq_qparams *a = &step->from[0]->q, *b = &step->from[1]->q;
    const ptq__clamp *to = &step->clamp;
    int period = ptq__period(step);
    for (int i = 0; i < step->elements; i += period)
        for (int c = 0; c < period; c++) {
            int32_t x = ptq__load(frame->in[0], i + c, a->type) - a->zero_point;
            x *= ptq__load(frame->in[1], c, b->type) - b->zero_point;
            volatile float product = (float)x * step->average; /* no compiler fuses the sum */
            x = step->arithmetic == PTQ__ONNX
                    ? ptq__to_code(product + (float)to->zero_point, 0, to->low, to->high)
                    : ptq__sum_code(step, x, step->average, 0);
            ptq__store(frame->out, i + c, x);
        }
}

/* The borders between real numbers and codes: q = clamp(rne(x / s) + z), x = s (q - z). */

/* H x W x C real numbers -> as many codes. A number that is not finite has none: the session says
   so, and at which node, instead of going on with whatever code it got. */
static void ptq__quantize_all(const ptq__step *step, const ptq__frame *frame) {
    const float *x = (const float *)frame->in[0];
    for (int i = 0; i < step->elements; i++) {
        *frame->no_code |= !ptq__is_finite(x[i]);
        ptq__store(frame->out, i, ptq_quantize(x[i], &step->node->q));
    }
}

/* H x W x C codes -> as many real numbers. */
static void ptq__dequantize_all(const ptq__step *step, const ptq__frame *frame) {
    const ptq_qparams *q = &step->from[0]->q;
    for (int i = 0; i < step->elements; i++)
        ((float *)frame->out)[i] = ptq_dequantize(ptq__load(frame->in[0], i, q->type), q);
}

/* The keys of the graph text, as bits. A row of the table says which of them a node may have, and
   with that what it has: weights, a window, a fused activation. */
/* clang-format off */
enum {
    PTQ__KEY_IN = 1 << 0, PTQ__KEY_OUT = 1 << 1, PTQ__KEY_Q = 1 << 2, PTQ__KEY_SHAPE = 1 << 3,
    PTQ__KEY_MEAN = 1 << 4, PTQ__KEY_STD = 1 << 5, PTQ__KEY_CHANNELS = 1 << 6,
    PTQ__KEY_BIAS = 1 << 7, PTQ__KEY_W = 1 << 8, PTQ__KEY_DYNAMIC = 1 << 9,
    PTQ__KEY_ACT = 1 << 10, PTQ__KEY_KERNEL = 1 << 11, PTQ__KEY_STRIDE = 1 << 12,
    PTQ__KEY_PAD = 1 << 13, PTQ__KEY_INCLUDE_PAD = 1 << 14, PTQ__KEY_GROUPS = 1 << 15,
    PTQ__KEY_ADD = 1 << 16, PTQ__KEY_ADD_ACT = 1 << 17, PTQ__KEY_MID = 1 << 18,
    PTQ__KEY_EPSILON = 1 << 19, PTQ__KEY_TYPE = 1 << 20, PTQ__KEY_DILATION = 1 << 21,
    PTQ__KEY_CEIL_MODE = 1 << 22, PTQ__KEY_FUNCTION = 1 << 23, PTQ__KEY_OUTPUT = 1 << 24,
    PTQ__INPUT_KEYS = PTQ__KEY_Q | PTQ__KEY_SHAPE | PTQ__KEY_MEAN | PTQ__KEY_STD | PTQ__KEY_TYPE,
    PTQ__PLAIN_KEYS = PTQ__KEY_IN | PTQ__KEY_OUT | PTQ__KEY_Q | PTQ__KEY_OUTPUT, /* of all with
                                                                                    operands */
    PTQ__WINDOW_KEYS = PTQ__PLAIN_KEYS | PTQ__KEY_KERNEL | PTQ__KEY_STRIDE | PTQ__KEY_PAD,
    PTQ__DENSE_KEYS = PTQ__PLAIN_KEYS | PTQ__KEY_CHANNELS | PTQ__KEY_BIAS | PTQ__KEY_W |
                      PTQ__KEY_DYNAMIC | PTQ__KEY_ACT,
    PTQ__POOL_KEYS = PTQ__WINDOW_KEYS | PTQ__KEY_CEIL_MODE,
    PTQ__CONV_KEYS = PTQ__DENSE_KEYS | PTQ__WINDOW_KEYS | PTQ__KEY_GROUPS | PTQ__KEY_ADD |
                     PTQ__KEY_ADD_ACT | PTQ__KEY_MID | PTQ__KEY_DILATION
};
/* clang-format on */

/* How an operator is converted: what its integer form does with codes. */
typedef enum ptq__codes {
    PTQ__NO_CODES,     /* there is none: real numbers on both sides */
    PTQ__SHARE_CODES,  /* likewise; but where a file brings codes of 1/256 on its own they stay */
    PTQ__SAME_CODES,   /* the input's codes are chosen among, so its scale stays */
    PTQ__OWN_CODES,    /* the result has a scale of its own */
    PTQ__JOINED_CODES, /* likewise; a chain, of which only the next link reads each, has one */
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
    PTQ__WHOLE = 4,      /* one window, the whole image: H x W x C -> 1 x 1 x C' */
    PTQ__LAST = 8        /* only as the last node, behind the logits */
};

/* A row of the table. Functions may be NULL. */
typedef struct ptq__operator {
    ptq_op op;
    int operands; /* a fused residual aside */
    unsigned keys, properties;
    ptq__codes codes;
    ptq_fusion_kind fusion; /* how [FUSE] moves it into the node before it */
    ptq_activation act;     /* which one the operator itself is */
    /* Checks the attributes, and changes node->shape where it is not what it comes in as: the first
       operand's H x W x C, C' for operators with channels of their own, 1 x 1 where the window is
       the whole image. `second` is NULL where there is no such operand. */
    ptq_status (*shape)(ptq_node *node, const int *in, const int *second, ptq_error *err);
    /* What the integer kernel relies on. */
    ptq_status (*check)(const ptq_model *model, const ptq_node *node, ptq_error *err);
    /* Scalar kernels: on real numbers, on codes, on real numbers with integer weights (dynamic
       quantization). NULL where the operator has no such form. */
    ptq__kernel real, integer, dynamic;
} ptq__operator;

/* The table. To add an operator:
     1. ptq_op gets an enumerator, with the formula beside it.
     2. Above, a block with its formula and shapes, its shape rule if the result is not as its
        operand, and both scalar kernels: for every element of the result, the real number, and the
        code. What the code depends on is checked by a function beside them.
     3. Here, in the order of ptq_op, a row: the kernels, how many operands, the keys of the graph
        text that it takes, how it is converted, and whether it fuses.
     4. If it has parameters, ptq__param_shape behind the table says which. What its integer kernel
        needs computed once, and not for every image, is set in ptq__set_constants, or, if it takes
        memory, in ptq__make_tables.
     5. If it has attributes of its own, ptq_node gets a member, and [GRAPH TEXT] a key. If it is to
        be fast, part three gets an entry; until then the scalar kernel runs on every processor.
   The builder, files, checks, cost, fusion, layout and plain conversion go by the row. What does
   not is written for one operator because it is about that one: the tools' exports to other
   formats, and in part four the searches that know what a convolution is. A step has two operands
   and one fused addition; an operator that needs more has to widen the step first. */
/* clang-format off */
static const ptq__operator ptq__operators[PTQ_OP_COUNT] = {
    {PTQ_OP_INPUT, 0, PTQ__INPUT_KEYS, 0, PTQ__INPUT_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        NULL, NULL, NULL, NULL, NULL},
    {PTQ_OP_CONV2D, 1, PTQ__CONV_KEYS, PTQ__TAKES_NORM, PTQ__WEIGHT_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, ptq__conv_shape, ptq__check_sums,
        ptq__conv_f32, ptq__conv_int, ptq__conv_dynamic},
    {PTQ_OP_BATCH_NORM, 1, PTQ__PLAIN_KEYS | PTQ__KEY_EPSILON, PTQ__IN_PLACE, PTQ__NO_CODES,
        PTQ_FUSION_BATCH_NORM, PTQ_ACTIVATION_NONE, ptq__norm_shape, NULL,
        ptq__norm_f32, NULL, NULL},
    {PTQ_OP_RELU, 1, PTQ__PLAIN_KEYS, PTQ__IN_PLACE, PTQ__SAME_CODES, PTQ_FUSION_ACTIVATION,
        PTQ_ACTIVATION_RELU, NULL, NULL, ptq__relu_f32, ptq__relu_int, NULL},
    {PTQ_OP_RELU6, 1, PTQ__PLAIN_KEYS, PTQ__IN_PLACE, PTQ__SAME_CODES, PTQ_FUSION_ACTIVATION,
        PTQ_ACTIVATION_RELU6, NULL, NULL, ptq__relu_f32, ptq__relu_int, NULL},
    {PTQ_OP_ADD, 2, PTQ__PLAIN_KEYS | PTQ__KEY_ACT, PTQ__IN_PLACE, PTQ__OWN_CODES,
        PTQ_FUSION_RESIDUAL, PTQ_ACTIVATION_NONE, ptq__add_shape, ptq__check_ratios,
        ptq__add_f32, ptq__add_int, NULL},
    {PTQ_OP_MAX_POOL, 1, PTQ__POOL_KEYS, 0, PTQ__SAME_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        ptq__pool_shape, NULL, ptq__max_pool_f32, ptq__max_pool_int, NULL},
    {PTQ_OP_AVG_POOL, 1, PTQ__POOL_KEYS | PTQ__KEY_INCLUDE_PAD, 0, PTQ__OWN_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, ptq__pool_shape, ptq__check_ratios,
        ptq__avg_pool_f32, ptq__avg_pool_int, NULL},
    {PTQ_OP_GLOBAL_AVG_POOL, 1, PTQ__PLAIN_KEYS, PTQ__WHOLE, PTQ__OWN_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, NULL, ptq__check_average,
        ptq__avg_pool_f32, ptq__global_pool_int, NULL},
    {PTQ_OP_DENSE, 1, PTQ__DENSE_KEYS, PTQ__WHOLE | PTQ__TAKES_NORM, PTQ__LOGIT_CODES,
        PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE, NULL, ptq__check_sums,
        ptq__conv_f32, ptq__conv_int, ptq__conv_dynamic},
    {PTQ_OP_SOFTMAX, 1, PTQ__PLAIN_KEYS, PTQ__LAST, PTQ__SHARE_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, ptq__softmax_shape, NULL, ptq__softmax_f32, ptq__softmax_int, NULL},
    {PTQ_OP_QUANTIZE, 1, PTQ__PLAIN_KEYS, 0, PTQ__TO_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        NULL, NULL, NULL, ptq__quantize_all, NULL},
    {PTQ_OP_DEQUANTIZE, 1, PTQ__PLAIN_KEYS, 0, PTQ__FROM_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, NULL, NULL, ptq__dequantize_all, NULL, NULL},
    {PTQ_OP_CONCAT, 2, PTQ__PLAIN_KEYS, 0, PTQ__JOINED_CODES, PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE,
        ptq__concat_shape, NULL, ptq__concat, ptq__concat, NULL},
    {PTQ_OP_GLOBAL_MAX_POOL, 1, PTQ__PLAIN_KEYS, PTQ__WHOLE, PTQ__SAME_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, NULL, NULL, ptq__max_pool_f32, ptq__max_pool_int, NULL},
    {PTQ_OP_LOG_SOFTMAX, 1, PTQ__PLAIN_KEYS, PTQ__LAST, PTQ__NO_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, ptq__softmax_shape, NULL, ptq__softmax_f32, NULL, NULL},
    {PTQ_OP_FUNCTION, 1, PTQ__PLAIN_KEYS | PTQ__KEY_FUNCTION, PTQ__IN_PLACE, PTQ__OWN_CODES,
        PTQ_FUSION_NONE, PTQ_ACTIVATION_NONE, ptq__function_shape, NULL,
        ptq__function_f32, ptq__function_int, NULL},
    {PTQ_OP_MUL, 2, PTQ__PLAIN_KEYS, PTQ__IN_PLACE, PTQ__OWN_CODES, PTQ_FUSION_NONE,
        PTQ_ACTIVATION_NONE, ptq__mul_shape, ptq__check_product, ptq__mul_f32, ptq__mul_int, NULL},
};
/* clang-format on */

/* The row of a node. The checks refuse numbers that are none of an operator before anyone asks. */
static const ptq__operator *ptq__operator_of(const ptq_node *node) {
    return &ptq__operators[node->op];
}

/* Whether a node may have what stands under the key in the graph text. */
static int ptq__has_key(const ptq_node *node, unsigned key) {
    return (ptq__operators[node->op].keys & key) != 0;
}

/* Weights that can be quantized. */
static int ptq__has_weight(ptq_op op) { return (ptq__operators[op].keys & PTQ__KEY_W) != 0; }

/* Rank of a parameter, and its dimensions; 0 if the node has no such parameter. Builder, loader and
   check all ask this one function, and so agree. The cost follows from it: each result takes as
   many multiplications as there are weights for one channel.

       convolution    weight O x C / groups x KH x KW     bias O
       dense          weight O x (H * W * C), in the order in which the input lies in memory, bias O
       batch norm     gamma, beta, mean, variance, C each
       prelu          weight C, the slopes */
static int ptq__param_shape(const ptq_model *model, const ptq_node *node, int param, int *dims) {
    int weight = param == PTQ_PARAM_WEIGHT;
    dims[0] = node->shape[2];
    dims[1] = dims[2] = dims[3] = 1;
    if (!ptq__has_weight(node->op))
        return ptq__has_key(node, PTQ__KEY_EPSILON) ||
               (weight && node->op == PTQ_OP_FUNCTION && node->function == PTQ_FUNCTION_PRELU);
    if (!weight)
        return param == PTQ_PARAM_BIAS && !node->no_bias;
    const int *in = model->node[node->input[0]].shape;
    if (ptq__operator_of(node)->properties & PTQ__WHOLE) {
        dims[1] = (int)ptq__shape_elements(3, in);
        return 2;
    }
    dims[1] = in[2] / node->groups;
    memcpy(&dims[2], node->kernel, sizeof node->kernel);
    return 4;
}

/* Whether codes keep their scale: where the operator chooses among them; and averages of windows,
   which have a scale of their own in ONNX Runtime's arithmetic only. */
static int ptq__keeps_scale(const ptq_model *model, const ptq_node *node) {
    const ptq__operator *op = ptq__operator_of(node);
    int average = op->codes == PTQ__OWN_CODES && op->keys & PTQ__KEY_KERNEL;
    return op->codes == PTQ__SAME_CODES || (average && ptq__arithmetic_of(model) != PTQ__ONNX);
}

/* How a result is clamped: what is fused behind the operator, or the operator itself. */
static ptq_activation ptq__act_of(const ptq_node *node) {
    ptq_activation own = ptq__operators[node->op].act;
    return own ? own : node->act;
}

/* The geometry of a step, of which node, operands and index are set. One description serves all
   operators: a dense layer is a convolution whose image is one pixel, with all numbers of the input
   for channels; a global pool has a window as large as the image. */
static void ptq__describe_step(ptq__step *step) {
    const ptq_node *node = step->node, *a = step->from[0];
    int whole = (ptq__operator_of(node)->properties & PTQ__WHOLE) != 0;
    step->elements = (int)ptq__shape_elements(3, node->shape);
    memcpy(step->in, a ? a->shape : node->shape, sizeof step->in);
    if (ptq__has_weight(node->op) && whole) { /* a dense layer: one pixel of many channels */
        step->in[2] *= step->in[0] * step->in[1];
        step->in[0] = step->in[1] = 1;
    }
    for (int axis = 0; axis < 2; axis++) {
        step->kernel[axis] = whole ? step->in[axis] : node->kernel[axis];
        step->stride[axis] = node->stride[axis];
        step->pad[axis] = node->pad[axis];
        step->dilation[axis] = node->dilation[axis];
        step->window[axis] = (step->kernel[axis] - 1) * node->dilation[axis] + 1;
    }
    step->groups = node->groups;
    step->deep = step->in[2] / step->groups;
    if (ptq__has_weight(node->op))
        step->taps = step->deep * step->kernel[0] * step->kernel[1];
    step->act = ptq__act_of(node);
}

/* The constants of a coded result that need no memory. A fused addition works on the convolution's
   own codes, `mid`, and on the residual, in the order of the graph. */
static void ptq__set_constants(ptq__step *step) {
    const ptq_node *node = step->node;
    const ptq_qparams *a = &step->from[0]->q, *b = step->from[1] ? &step->from[1]->q : NULL;
    ptq_activation act = node->residual ? node->add_act : node->act;
    int whole = (ptq__operator_of(node)->properties & PTQ__WHOLE) != 0;
    step->clamp = ptq__clamp_of(ptq__sum_qparams(node), step->act);
    if (whole && !ptq__has_weight(node->op))
        step->average =
            ptq__div(a->scale, ptq__mul(node->q.scale, (float)(step->in[0] * step->in[1])));
    if (node->op == PTQ_OP_MUL)
        step->average = ptq__multiplier(a->scale, b->scale, &node->q);
    if (node->op == PTQ_OP_ADD)
        step->adder = ptq__adder_of(a, b, &node->q, act, step->arithmetic);
    else if (node->residual == PTQ_RESIDUAL_FIRST)
        step->adder = ptq__adder_of(b, &node->mid, &node->q, act, step->arithmetic);
    else if (node->residual)
        step->adder = ptq__adder_of(&node->mid, b, &node->q, act, step->arithmetic);
}

/* Constants of an integer kernel that need memory. Tables: of a function; the codes of a concat;
   the powers of a softmax, 2^31 exp(-s d). The multipliers of sums, m[o] = sx sw[o] / sy in single
   precision; in fixed arithmetic the factors of sums, products and an average of the whole image,
   each rounded once. */
static ptq_status ptq__make_tables(ptq__step *step, const ptq_allocator *allocator,
                                   ptq_error *err) {
    const ptq_node *node = step->node;
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const ptq_qparams *in = &step->from[0]->q, *out = ptq__sum_qparams(node);
    int weights = ptq__has_weight(node->op), slopes = weight->rank ? weight->dim[0] : 1;
    int tables = node->op == PTQ_OP_FUNCTION ? slopes : node->op == PTQ_OP_CONCAT ? 2 : 0;
    size_t bytes = node->op == PTQ_OP_SOFTMAX ? sizeof(uint32_t) : (size_t)tables;
    size_t factors = weights ? (size_t)node->channels : step->average > 0;
    if (bytes)
        PTQ__TRY(ptq__alloc(allocator, bytes, 256, "tables", &step->owned, err));
    for (int k = 0; k < tables; k++)
        ptq__fill_table(step, k, (uint8_t *)step->owned + 256 * k);
    for (int d = 0; d < 256 && node->op == PTQ_OP_SOFTMAX; d++)
        ((uint32_t *)step->owned)[d] = (uint32_t)rint(2147483648.0 * exp(-(double)in->scale * d));
    if (weights)
        PTQ__TRY(PTQ__NEW(allocator, &step->multiplier, factors, "multipliers", err));
    if (factors && step->arithmetic == PTQ__FIXED && ptq__is_coded(node))
        PTQ__TRY(PTQ__NEW(allocator, &step->fixed, factors, "multipliers", err));
    for (size_t c = 0; c < factors; c++) {
        double s = (double)in->scale, sy = (double)out->scale;
        float second = weights         ? ptq__scale_of(weight, c)
                       : step->from[1] ? step->from[1]->q.scale
                                       : 0;
        if (weights)
            step->multiplier[c] = ptq__multiplier(in->scale, second, out);
        if (step->fixed)
            step->fixed[c] = ptq__fixed_of(second > 0 ? s * (double)second / sy
                                                      : s / (step->in[0] * step->in[1] * sy));
    }
    return PTQ_OK;
}

/* The scalar kernel of a step, and the memory that it needs for itself: the taps of one position,
   of all groups, gathered; and the codes of a dynamic input. Codes are gathered in 16 bits. Real
   numbers under a window of 1 x 1 lie side by side already. */
static void ptq__choose_kernel(ptq__step *step, ptq_mode mode) {
    const ptq__operator *op = ptq__operator_of(step->node);
    size_t taps = (size_t)step->taps * (size_t)step->groups; /* 0 without weights */
    if (mode == PTQ_MODE_INTEGER) {
        step->run = op->integer;
        step->scratch = taps * sizeof(int16_t);
    } else if (mode == PTQ_MODE_DYNAMIC) {
        step->run = op->dynamic;
        step->scratch = taps * sizeof(int16_t) + (size_t)(step->in[0] * step->in[1] * step->in[2]);
    } else {
        step->run = op->real;
        step->scratch = ptq__is_direct(step) ? 0 : taps * sizeof(float);
    }
}

/* ---- [GRAPH] --------------------------------------------------------------------------------- */

/* A model is an array of nodes in topological order, each with its parameters. It comes from the
   builder, from a file's graph text, or from a pass that copies another model; all three end in
   ptq__append or ptq__copy_node. What later sections rely on is proved once, in ptq_model_check
   ([CHECK]): shapes, parameters, codes that go together, sums that fit. No kernel looks again.

   Operands are indices of earlier nodes, so the order of the array is an order in which the network
   can run, and no pass has to search for one. Each node makes one tensor, which bears the node's
   name, or the name `out` where other nodes were fused into it. The beginning of ResNet8, with the
   operands behind the arrows:

       0 input    1 conv1 <- 0    2 bn1 <- 1    3 conv1.relu <- 2    4 block1.conv1 <- 3
       5 block1.bn1 <- 4    ...   9 block1.add <- 3, 8    10 block1.add.relu <- 9

   First come questions about a model, then its memory and copies, then the builder, and ResNet8 as
   what the builder is for. */

/* "weight" of "conv1.weight". Batch norm has PyTorch's names: gamma is its weight, beta its bias,
   and the statistics are called running, since training keeps them as running means. */
static const char *ptq__param_name(int param) {
    static const char name[][13] = {"weight", "bias", "running_mean", "running_var"};
    return name[param];
}

/* What a node computes with: its weights say it where there are some, else its result does. */
PTQ_API ptq_mode ptq_node_mode(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index];
    ptq_type weight = node->param[PTQ_PARAM_WEIGHT].type;
    if (!ptq__has_weight(node->op))
        return ptq__is_coded(node) ? PTQ_MODE_INTEGER : PTQ_MODE_FLOAT;
    if (ptq__is_integer_type(weight))
        return node->dynamic ? PTQ_MODE_DYNAMIC : PTQ_MODE_INTEGER;
    return weight == PTQ_TYPE_F16 ? PTQ_MODE_HALF : PTQ_MODE_FLOAT;
}

/* Scales count as parameters' bytes: they are stored. Each result of a layer with weights needs the
   weights of one channel. */
PTQ_API ptq_cost ptq_node_cost(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    uint64_t outputs = (uint64_t)ptq__shape_elements(3, node->shape);
    ptq_cost cost = {0, 0, 0, 0};
    for (int p = 0; p < PTQ_PARAM_COUNT; p++) {
        cost.parameters += ptq_tensor_elements(&node->param[p]);
        cost.param_bytes += node->param[p].size + sizeof(float) * (size_t)node->param[p].scales;
    }
    if (ptq__has_weight(node->op) && weight->rank)
        cost.macs = outputs * (uint64_t)(ptq_tensor_elements(weight) / (size_t)weight->dim[0]);
    cost.output_bytes = outputs * (ptq__is_coded(node) ? 1 : sizeof(float));
    return cost;
}

#ifndef PTQ_RUN_ONLY
/* 1 if any node has left float: such a model is calibrated and converted no second time. */
static int ptq__is_quantized(const ptq_model *model) {
    for (int i = 0; i < model->nodes; i++)
        if (ptq_node_mode(model, i) != PTQ_MODE_FLOAT)
            return 1;
    return 0;
}
#endif

/* By the name of a node or of its result, of `length` bytes; -1 if there is none. */
static int ptq__find(const ptq_model *model, const char *name, size_t length) {
    for (int i = 0; i < model->nodes && length < PTQ_NAME_SIZE; i++) {
        const ptq_node *node = &model->node[i];
        if ((!node->name[length] && !memcmp(node->name, name, length)) ||
            (!node->out[length] && !memcmp(node->out, name, length)))
            return i;
    }
    return -1;
}

/* Names are few, and looked up while models are built, not while they run: from the first on. */
PTQ_API int ptq_model_find(const ptq_model *model, const char *name) {
    return ptq__find(model, name, strlen(name));
}

/* From the last one on; ptq_model_check has no number stand twice. */
PTQ_API int ptq_model_output(const ptq_model *model, int number) {
    int found = model->nodes - 1;
    while (found >= 0 && model->node[found].output != number)
        found--;
    return found;
}

/* Classes are compared by their logits: a softmax behind them changes no order. */
PTQ_API int ptq_model_logits(const ptq_model *model) {
    int first = ptq_model_output(model, 1), last = first < 0 ? model->nodes - 1 : first;
    if (last > 0 && ptq__operator_of(&model->node[last])->properties & PTQ__LAST)
        return model->node[last].input[0];
    return last;
}

/* "conv1.weight": what stands behind the last dot is the parameter, what stands before it the node,
   or the tensor that it produces. */
PTQ_API ptq_tensor *ptq_model_param(ptq_model *model, const char *name) {
    const char *dot = strrchr(name, '.');
    int i = dot ? ptq__find(model, name, (size_t)(dot - name)) : -1;
    for (int param = 0; i >= 0 && param < PTQ_PARAM_COUNT; param++)
        if (!strcmp(dot + 1, ptq__param_name(param)) && model->node[i].param[param].rank)
            return &model->node[i].param[param];
    return NULL;
}

/* How many operands are the result of node `index`; x + x counts twice, and a result of the model
   is read by the caller. Fusion may hide a tensor that has one reader, and a tensor without any,
   unless it is the last, is a mistake in the graph. */
static int ptq__uses(const ptq_model *model, int index) {
    int uses = model->node[index].output != 0;
    for (int i = index + 1; i < model->nodes; i++)
        uses += (model->node[i].input[0] == index) + (model->node[i].input[1] == index);
    return uses;
}

/* A model owns its nodes, their parameters and its metadata; all come from its allocator, of which
   it keeps a copy. Preprocessing of an empty model is none: (pixel - 0) / 1. */

/* No node yet: the first one that is added is the input. */
PTQ_API ptq_status ptq_model_create(const ptq_allocator *allocator, ptq_model **out,
                                    ptq_error *err) {
    ptq_model *model = NULL;
    PTQ__TRY(PTQ__NEW(allocator, &model, 1, "model", err));
    model->allocator = ptq__allocator(allocator);
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        model->std[c] = 1;
    *out = model;
    return PTQ_OK;
}

/* Bytes of parameters that are borrowed stay: a tensor knows what it owns. */
static void ptq__free_params(ptq_node *node, const ptq_allocator *allocator) {
    for (int param = 0; param < PTQ_PARAM_COUNT; param++)
        ptq_tensor_free(&node->param[param], allocator);
}

/* Whatever state it is in: half built, half loaded, refused. */
PTQ_API void ptq_model_free(ptq_model *model) {
    if (!model)
        return;
    for (int i = 0; i < model->nodes; i++)
        ptq__free_params(&model->node[i], &model->allocator);
    ptq__free(&model->allocator, model->node);
    ptq__free_metas(model->meta, model->metas, &model->allocator);
    ptq__free(&model->allocator, model);
}

/* Copies. Every pass (fusion, equalization, conversion) leaves its input alone and builds a new
   model: so a failure half-way loses nothing. */

/* Preprocessing and metadata, all that is not nodes: what a pass carries over before it adds nodes
   of its own. */
static ptq_status ptq__copy_head(ptq_model *to, const ptq_model *from, ptq_error *err) {
    memcpy(to->mean, from->mean, sizeof to->mean);
    memcpy(to->std, from->std, sizeof to->std);
    for (int i = 0; i < from->metas; i++)
        PTQ__TRY(ptq_model_set_meta(to, from->meta[i].key, from->meta[i].value, err));
    return PTQ_OK;
}

/* Appends a copy of a node with its parameters. The array may move when it grows, so that no pass
   keeps a pointer into it over a call. Input indices are taken as they are: a pass that
   drops nodes puts them right itself. */
static ptq_status ptq__copy_node(ptq_model *to, const ptq_node *from, ptq_error *err) {
    ptq_node node = *from;
    ptq_status status = PTQ_OK;
    PTQ__TRY(PTQ__GROW(&to->allocator, &to->node, to->nodes, &to->capacity, "nodes", err));
    memset(node.param, 0, sizeof node.param);
    for (int p = 0; p < PTQ_PARAM_COUNT && !status; p++)
        status = ptq__tensor_copy(&node.param[p], &from->param[p], &to->allocator, err);
    to->node[to->nodes++] = node; /* even after a failure: freed with the model */
    return status;
}

/* Borrowed parameters are copied too: a copy needs nothing of the first but itself. */
PTQ_API ptq_status ptq_model_copy(const ptq_model *model, const ptq_allocator *allocator,
                                  ptq_model **out, ptq_error *err) {
    ptq_model *copy = NULL;
    PTQ__TRY(ptq_model_create(allocator, &copy, err));
    copy->error = model->error;
    ptq_status status = ptq__copy_head(copy, model, err);
    for (int i = 0; i < model->nodes && !status; i++)
        status = ptq__copy_node(copy, &model->node[i], err);
    PTQ__FINISH(status, ptq_model_free(copy), copy, out);
}

/* The builder. A node is checked against those before it, gets its shape, and then its parameters.
   So each line of a network that someone writes down is judged at once, where the mistake is, and
   the message names the node. */

/* Names go into files, ONNX, C identifiers and shells' patterns: letters, digits, _ and . only. Not
   by isalnum, which asks the locale. */
static int ptq__is_name(const char *name, size_t length) {
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '.'))
            return 0;
    }
    return length > 0 && length < PTQ_NAME_SIZE;
}

/* Names are terminated, legal, and name one tensor each, so that files and messages mean one thing.
   A node may bear the name of its own result. */
static ptq_status ptq__check_names(const ptq_model *model, const ptq_node *node, int index,
                                   ptq_error *err) {
    for (int k = 0; k < 2 && !(k && !memcmp(node->name, node->out, sizeof node->out)); k++) {
        ptq__span name = {k ? node->out : node->name, 0};
        while (name.n < PTQ_NAME_SIZE && name.p[name.n])
            name.n++;
        int found = ptq__find(model, name.p, name.n);
        PTQ__FAIL_IF(!ptq__is_name(name.p, name.n), PTQ_BAD_GRAPH,
                     "'%s' is no name of a node: 1 to %d of A-Z a-z 0-9 _ .",
                     ptq__quoted(name).text, PTQ_NAME_SIZE - 1);
        PTQ__FAIL_IF(found >= 0 && found != index, PTQ_BAD_GRAPH,
                     "there are two nodes or tensors named %s", name.p);
    }
    return PTQ_OK;
}

/* The attributes that passes and files set, against each other and against the operator's row. A
   kernel would not look at one that is not its own, and the file would say what nobody computes.
   What belongs to one operator alone is checked by its shape rule. */
static ptq_status ptq__check_attributes(const ptq_node *node, ptq_error *err) {
    PTQ__REFUSE_IF((unsigned)node->op >= PTQ_OP_COUNT ||
                       (unsigned)node->padding > PTQ_PADDING_EXPLICIT ||
                       (unsigned)node->act > PTQ_ACTIVATION_RELU6 ||
                       (unsigned)node->add_act > PTQ_ACTIVATION_RELU6 ||
                       (unsigned)node->residual > PTQ_RESIDUAL_SECOND,
                   PTQ_BAD_GRAPH, "an attribute is none of its kind");
    PTQ__REFUSE_IF((node->act && !ptq__has_key(node, PTQ__KEY_ACT)) ||
                       (node->residual && !ptq__has_key(node, PTQ__KEY_ADD)) ||
                       (node->add_act && !node->residual),
                   PTQ_BAD_GRAPH, "a %s cannot have this fused activation or addition",
                   ptq_name(PTQ_NAMES_OP, node->op));
    return PTQ_OK;
}

/* Operands come before their node: the order of the array is an order in which the graph can run.
   A step has two operands at most. */
static ptq_status ptq__check_inputs(const ptq_model *model, const ptq_node *node, int index,
                                    ptq_error *err) {
    int operands = ptq__operator_of(node)->operands, need = operands + (node->residual != 0);
    PTQ__REFUSE_IF((index == 0) != (operands == 0), PTQ_BAD_GRAPH,
                   "the first node, and no other, must be the input");
    for (int k = 0; k < 2; k++) {
        int in = node->input[k];
        PTQ__REFUSE_IF(k < need ? in < 0 || in >= index : in != -1, PTQ_BAD_GRAPH,
                       "needs %d inputs, each an earlier node", need);
        PTQ__REFUSE_IF(k < need && ptq__operator_of(&model->node[in])->properties & PTQ__LAST,
                       PTQ_BAD_GRAPH, "its input %s can only be the last node",
                       model->node[in].name);
    }
    return PTQ_OK;
}

/* Checks a node against those before it, and fills in its shape and padding. `index` is where it
   stands, or is to stand, in the model. The shape is that of the first operand; 1 x 1 high and wide
   where the window is the whole image; with the node's own channels, if it has any; and whatever
   the operator's rule then makes of it. Elements are bounded, so that int indices are enough
   everywhere. The builder asks this of new nodes, ptq_model_check of a copy of each. */
static ptq_status ptq__infer(const ptq_model *model, ptq_node *node, int index, ptq_error *err) {
    const int *in[2] = {NULL, NULL}; /* H, W, C of each operand */
    PTQ__TRY(ptq__check_names(model, node, index, err));
    PTQ__TRY(ptq__check_attributes(node, err));
    PTQ__TRY(ptq__check_inputs(model, node, index, err));
    const ptq__operator *op = ptq__operator_of(node);
    for (int k = 0; k < 2; k++)
        if (node->input[k] >= 0)
            in[k] = model->node[node->input[k]].shape;
    if (in[0])
        memcpy(node->shape, in[0], sizeof node->shape);
    if (op->properties & PTQ__WHOLE)
        node->shape[0] = node->shape[1] = 1;
    if (ptq__has_key(node, PTQ__KEY_CHANNELS))
        node->shape[2] = node->channels;
    if (op->shape)
        PTQ__TRY(op->shape(node, in[0], in[1], err));
    PTQ__REFUSE_IF(!ptq__shape_elements(3, node->shape), PTQ_BAD_GRAPH,
                   "shape %dx%dx%d is empty or has more than %d elements", node->shape[0],
                   node->shape[1], node->shape[2], PTQ_MAX_ELEMENTS);
    return PTQ_OK;
}

/* Weights may be of any type but S32. Biases go with them: sums of integer products on integer
   inputs, else real numbers. All else is real. */
static ptq_type ptq__param_type(const ptq_node *node, int param) {
    ptq_type weight = node->param[PTQ_PARAM_WEIGHT].type;
    if (!ptq__has_weight(node->op))
        return PTQ_TYPE_F32;
    if (param == PTQ_PARAM_WEIGHT)
        return weight == PTQ_TYPE_S32 ? PTQ_TYPE_F32 : weight;
    return ptq__is_integer_type(weight) && !node->dynamic ? PTQ_TYPE_S32 : PTQ_TYPE_F32;
}

/* Parameters of a new node: zeros, and ones where they multiply channels (gamma and variance of
   a batch norm, which then changes nothing but by epsilon). Convolution O x C/groups x KH x KW,
   dense O x (H * W * C), all others of one number for each channel. Of a bare model they have
   type and shape, but no memory. */
static ptq_status ptq__create_param(const ptq_model *model, ptq_node *node, int param,
                                    ptq_type type, int bits, ptq_error *err) {
    ptq_tensor *tensor = &node->param[param];
    const float one = 1;
    int dims[PTQ_MAX_RANK], rank = ptq__param_shape(model, node, param, dims);
    if (!rank)
        return PTQ_OK;
    PTQ__REFUSE_IF(!ptq__shape_elements(rank, dims), PTQ_BAD_GRAPH,
                   "its %s would have more than %d elements", ptq__param_name(param),
                   PTQ_MAX_ELEMENTS);
    if (model->bare)
        return ptq__tensor_init(tensor, type, bits, rank, dims, err);
    PTQ__TRY(ptq_tensor_create(tensor, type, bits, rank, dims, &model->allocator, err));
    if (ptq__is_integer_type(type))
        return ptq_tensor_set_scale(tensor, &one, 1, 0, &model->allocator, err);
    if (rank == 1 && (param == PTQ_PARAM_WEIGHT || param == PTQ_PARAM_VARIANCE))
        for (int c = 0; c < dims[0]; c++)
            ((float *)tensor->data)[c] = 1;
    return PTQ_OK;
}

/* Appends a copy of `prototype`, of which name, attributes and inputs are set, with weights of a
   type; `out` may be empty. Nothing is appended unless all of it can be: the node is checked, room
   is made, its parameters are, and only then it counts. */
static ptq_status ptq__append(ptq_model *model, const ptq_node *prototype, ptq_type type, int bits,
                              ptq_error *err) {
    ptq_node copy = *prototype, *node = &copy;
    ptq_status status = PTQ_OK;
    PTQ__REFUSE_IF(model->nodes >= PTQ_MAX_NODES, PTQ_BAD_GRAPH, "more than %d nodes",
                   PTQ_MAX_NODES);
    if (!node->out[0])
        memcpy(node->out, node->name, sizeof node->out);
    PTQ__TRY(ptq__infer(model, node, model->nodes, err));
    PTQ__TRY(
        PTQ__GROW(&model->allocator, &model->node, model->nodes, &model->capacity, "nodes", err));
    for (int p = 0; p < PTQ_PARAM_COUNT && !status; p++)
        status = ptq__create_param(model, node, p, p ? ptq__param_type(node, p) : type, bits, err);
    if (status)
        ptq__free_params(node, &model->allocator);
    else
        model->node[model->nodes++] = *node;
    return status;
}

/* A node without attributes, ready to be filled. A window of 1 x 1 and one group are what operators
   without a window have. */
static ptq_node ptq__blank(ptq_op op, int first, int second) {
    ptq_node node;
    memset(&node, 0, sizeof node);
    node.op = op;
    node.input[0] = first;
    node.input[1] = second;
    node.kernel[0] = node.kernel[1] = node.stride[0] = node.stride[1] = node.groups = 1;
    node.dilation[0] = node.dilation[1] = 1;
    return node;
}

/* The builder's end of ptq__append: the index as result, -1 after a failure. The first failure
   stays in the model and makes all later calls fail, so that a network can be written down without
   a check behind every line; ptq_model_check reports it. A name that is too long is copied without
   its terminator, and refused like all other wrong ones. `wrong`: NULL, or what is to be said of an
   operator that the calling function does not make. */
static int ptq__build(ptq_model *model, ptq_node node, const char *name, const char *wrong) {
    size_t length = name ? strlen(name) : 0;
    if (model->error.status)
        return -1;
    memcpy(node.name, name ? name : "", length < PTQ_NAME_SIZE ? length : PTQ_NAME_SIZE);
    if (wrong)
        ptq_error_set(&model->error, PTQ_INVALID_ARGUMENT, "node %s: %s",
                      ptq__quoted(ptq__span_of(name ? name : "")).text, wrong);
    else if (ptq__append(model, &node, PTQ_TYPE_F32, 32, &model->error) == PTQ_OK)
        return model->nodes - 1;
    return -1;
}

/* -> H x W x C, each at least 1: the image, or other numbers. Every model has one input, its first
   node. */
PTQ_API int ptq_add_input(ptq_model *model, const char *name, int height, int width, int channels) {
    ptq_node node = ptq__blank(PTQ_OP_INPUT, -1, -1);
    node.shape[0] = height;
    node.shape[1] = width;
    node.shape[2] = channels;
    return ptq__build(model, node, name, NULL);
}

/* Nothing but a mark: real inputs have no codes until a quantize node makes them. */
PTQ_API int ptq_add_real_input(ptq_model *model, const char *name, int height, int width,
                               int channels) {
    int index = ptq_add_input(model, name, height, width, channels);
    if (index >= 0)
        model->node[index].real = 1;
    return index;
}

/* H x W x C -> H' x W' x C' by the operator's rule. */
PTQ_API int ptq_add_op(ptq_model *model, ptq_op op, const char *name, int input) {
    ptq_node node = ptq__blank(op, input, -1);
    int fits = (unsigned)op < PTQ_OP_COUNT && ptq__operators[op].keys == PTQ__PLAIN_KEYS &&
               ptq__operators[op].operands == 1;
    return ptq__build(model, node, name,
                      fits ? NULL
                           : "ptq_add_op makes operators with one input and without parameters");
}

/* Height and width of kernel or stride, where 0 stands for the height, and for a default, if there
   is one, where that is 0 too. */
static void ptq__set_pair(int *pair, int height, int width, const int *standard) {
    pair[0] = height || !standard ? height : standard[0];
    pair[1] = width ? width : height || !standard ? height : standard[1];
}

/* H x W x C -> H' x W' x channels; strides and groups are 1 unless given. A kernel of 0 is refused
   by the shape rule. */
PTQ_API int ptq_add_conv2d(ptq_model *model, const char *name, int input,
                           const ptq_conv_options *options) {
    ptq_node node = ptq__blank(PTQ_OP_CONV2D, input, -1);
    node.channels = options->channels;
    ptq__set_pair(node.kernel, options->kernel_h, options->kernel_w, NULL);
    ptq__set_pair(node.stride, options->stride_h, options->stride_w, node.stride);
    node.padding = options->padding;
    memcpy(node.pad, options->pad, sizeof node.pad);
    ptq__set_pair(node.dilation, options->dilation_h, options->dilation_w, node.dilation);
    node.groups = options->groups ? options->groups : 1;
    node.no_bias = options->no_bias != 0;
    return ptq__build(model, node, name, NULL);
}

/* H x W x C -> H' x W' x C. Windows do not overlap by default: the stride is the kernel. */
PTQ_API int ptq_add_pool(ptq_model *model, ptq_op op, const char *name, int input,
                         const ptq_pool_options *options) {
    ptq_node node = ptq__blank(op, input, -1);
    unsigned keys = (unsigned)op < PTQ_OP_COUNT ? ptq__operators[op].keys : 0;
    int fits = (keys & ~(unsigned)PTQ__KEY_INCLUDE_PAD) == PTQ__POOL_KEYS;
    ptq__set_pair(node.kernel, options->kernel_h, options->kernel_w, NULL);
    ptq__set_pair(node.stride, options->stride_h, options->stride_w, node.kernel);
    node.padding = options->padding;
    memcpy(node.pad, options->pad, sizeof node.pad);
    node.include_pad = (keys & PTQ__KEY_INCLUDE_PAD) && options->include_pad;
    node.ceil_mode = options->ceil_mode != 0;
    return ptq__build(model, node, name, fits ? NULL : "ptq_add_pool makes max_pool and avg_pool");
}

/* H x W x C -> H x W x C; gamma and variance begin as 1, beta and mean as 0. */
PTQ_API int ptq_add_batch_norm(ptq_model *model, const char *name, int input, float epsilon) {
    ptq_node node = ptq__blank(PTQ_OP_BATCH_NORM, input, -1);
    node.epsilon = epsilon;
    return ptq__build(model, node, name, NULL);
}

/* Two of H x W x C -> H x W x C. On codes their order matters to the last bit. */
PTQ_API int ptq_add_add(ptq_model *model, const char *name, int first, int second) {
    return ptq__build(model, ptq__blank(PTQ_OP_ADD, first, second), name, NULL);
}

/* H x W x C, H x W x C' -> H x W x (C + C'). */
PTQ_API int ptq_add_concat(ptq_model *model, const char *name, int first, int second) {
    return ptq__build(model, ptq__blank(PTQ_OP_CONCAT, first, second), name, NULL);
}

/* H x W x C, H x W x C or 1 x 1 x C -> H x W x C: an attention weighs channels so. */
PTQ_API int ptq_add_mul(ptq_model *model, const char *name, int first, int second) {
    return ptq__build(model, ptq__blank(PTQ_OP_MUL, first, second), name, NULL);
}

/* H x W x C -> H x W x C. Of prelu each channel gets a slope, which begins as 1. */
PTQ_API int ptq_add_function(ptq_model *model, ptq_function function, const char *name, int input,
                             float alpha, float beta) {
    ptq_node node = ptq__blank(PTQ_OP_FUNCTION, input, -1);
    node.function = function;
    node.alpha = alpha;
    node.beta = beta;
    return ptq__build(model, node, name, NULL);
}

/* H x W x C -> 1 x 1 x channels: every input goes into every result. */
PTQ_API int ptq_add_dense(ptq_model *model, const char *name, int input, int channels) {
    ptq_node node = ptq__blank(PTQ_OP_DENSE, input, -1);
    node.channels = channels;
    return ptq__build(model, node, name, NULL);
}

/* ResNet8, the network of MLPerf Tiny, of which the examples tell: a first convolution, three
   residual blocks, an average over the whole image, a dense layer. For CIFAR-10 78,666 parameters
   and 12.5 million multiplications. The smallest network in which everything occurs that makes
   quantization hard: batch norms to fold, sums of tensors of different scales, logits. */

/* Appends a node of a block, named "block2.conv1"; of none, block 0, just "conv1". */
static int ptq__resnet_node(ptq_model *m, int block, const char *part, ptq_node node) {
    char name[PTQ_NAME_SIZE];
    ptq__text text = ptq__text_over(name, sizeof name);
    if (block)
        ptq__put(&text, "block%d.", block);
    ptq__put_string(&text, part);
    return ptq__build(m, node, name, NULL);
}

/* H x W x C -> H/s x W/s x channels: a convolution and, if it has a name, the batch norm behind it,
   with Keras's epsilon, with which the model was trained. */
static int ptq__resnet_conv(ptq_model *m, int block, const char *part, const char *norm, int input,
                            int channels, int kernel, int stride) {
    ptq_node node = ptq__blank(PTQ_OP_CONV2D, input, -1);
    node.channels = channels;
    node.kernel[0] = node.kernel[1] = kernel;
    node.stride[0] = node.stride[1] = stride;
    int x = ptq__resnet_node(m, block, part, node);
    node = ptq__blank(PTQ_OP_BATCH_NORM, x, -1);
    node.epsilon = 1e-3f;
    return norm ? ptq__resnet_node(m, block, norm, node) : x;
}

/* x -> conv-bn-relu -> conv-bn -> + shortcut(x) -> relu, the sum with the shortcut first as in
   Keras, H x W x C -> H/s x W/s x channels. Where the block changes the shape, the shortcut is a
   1 x 1 convolution. */
static int ptq__resnet_block(ptq_model *m, int block, int input, int channels, int stride) {
    int x, shortcut = input;
    x = ptq__resnet_conv(m, block, "conv1", "bn1", input, channels, 3, stride);
    x = ptq__resnet_node(m, block, "conv1.relu", ptq__blank(PTQ_OP_RELU, x, -1));
    if (stride != 1)
        shortcut = ptq__resnet_conv(m, block, "shortcut", NULL, input, channels, 1, stride);
    x = ptq__resnet_conv(m, block, "conv2", "bn2", x, channels, 3, 1);
    x = ptq__resnet_node(m, block, "add", ptq__blank(PTQ_OP_ADD, shortcut, x));
    return ptq__resnet_node(m, block, "add.relu", ptq__blank(PTQ_OP_RELU, x, -1));
}

/* A bare model has shapes but no parameters: a file brings them. */
static ptq_status ptq__build_resnet8(int size, int width, int classes, int bare,
                                     const ptq_allocator *allocator, ptq_model **out,
                                     ptq_error *err) {
    ptq_model *m = NULL;
    if (size < 4 || size > 4096 || width < 1 || width > 4096 || classes < 2 || classes > 65536)
        return ptq_error_set(
            err, PTQ_INVALID_ARGUMENT,
            "resnet8: size %d (4 to 4096), width %d (1 to 4096), classes %d (2 to 65536)", size,
            width, classes);
    PTQ__TRY(ptq_model_create(allocator, &m, err));
    m->bare = bare;
    int x = ptq_add_input(m, "input", size, size, 3); /* shapes for MLPerf's: 32 x 32 x 3 */
    x = ptq__resnet_conv(m, 0, "conv1", "bn1", x, width, 3, 1); /* 32 x 32 x 16 */
    x = ptq_add_op(m, PTQ_OP_RELU, "conv1.relu", x);
    x = ptq__resnet_block(m, 1, x, width, 1);             /* 32 x 32 x 16 */
    x = ptq__resnet_block(m, 2, x, width * 2, 2);         /* 16 x 16 x 32 */
    x = ptq__resnet_block(m, 3, x, width * 4, 2);         /* 8 x 8 x 64 */
    x = ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "pool", x); /* 1 x 1 x 64 */
    x = ptq_add_dense(m, "fc", x, classes);               /* 1 x 1 x 10 */
    ptq_add_op(m, PTQ_OP_SOFTMAX, "softmax", x);
    *out = m;
    return PTQ_OK;
}

/* With zeros for weights: they are to be filled in, by name, through ptq_model_param. */
PTQ_API ptq_status ptq_resnet8(int size, int width, int classes, const ptq_allocator *allocator,
                               ptq_model **out, ptq_error *err) {
    ptq_model *model = NULL;
    PTQ__TRY(ptq__build_resnet8(size, width, classes, 0, allocator, &model, err));
    ptq_status status = ptq_model_check(model, err);
    PTQ__FINISH(status, ptq_model_free(model), model, out);
}

/* ---- [CHECK] ------------------------------------------------------------------------------------
   The proof that a model can run, whoever made it. Files come from strangers, and nodes are open to
   everyone between building and use: so nothing that the builder has checked is taken for granted.
   Kernels trust what stands here and look at nothing again; each rule says what they would do
   without it. */

/* Integer weights: one scale, or one for each output channel, which is what kernels index; positive
   and normal, since processors differ on denormals. A zero point only with one scale: sums take off
   the same number for all channels. */
static ptq_status ptq__check_scales(const ptq_node *node, const ptq_tensor *weight,
                                    ptq_error *err) {
    int32_t low, high, zero = weight->zero_point;
    ptq_code_range(weight->type, weight->bits, &low, &high);
    PTQ__REFUSE_IF(weight->scales != 1 && weight->scales != weight->dim[0], PTQ_BAD_GRAPH,
                   "its weights have %d scales", weight->scales);
    for (int i = 0; i < weight->scales; i++)
        PTQ__REFUSE_IF(!ptq__is_normal(weight->scale[i]) || weight->scale[i] < 0, PTQ_BAD_NUMBER,
                       "weight_scale[%d] is %g; must be positive, finite and not denormal", i,
                       (double)weight->scale[i]);
    PTQ__REFUSE_IF(
        zero < low || zero > high || (zero && weight->scales != 1), PTQ_BAD_NUMBER,
        "weight_zero_point %d; must be a code, and 0 where every channel has its own scale",
        (int)zero);
    return PTQ_OK;
}

/* Parameters are there, with the dimensions that the kernel walks and the type that it reads: one
   number too few, and it would read beyond them. They are finite: a NaN among the weights would
   reach every code, and calibration would blame the images. A batch norm divides by
   sqrt(variance + epsilon). Of integers any code is legal. */
static ptq_status ptq__check_param(const ptq_model *model, const ptq_node *node, int param,
                                   ptq_error *err) {
    const ptq_tensor *t = &node->param[param];
    const char *what = ptq__param_name(param);
    int dims[PTQ_MAX_RANK], rank = ptq__param_shape(model, node, param, dims);
    ptq_type type = ptq__param_type(node, param);
    size_t n = type == PTQ_TYPE_S32 ? 0 : ptq_tensor_elements(t);
    if (!t->rank && !rank)
        return PTQ_OK;
    PTQ__REFUSE_IF(t->rank != rank || memcmp(t->dim, dims, sizeof dims), PTQ_BAD_GRAPH,
                   "%s has shape [%d,%d,%d,%d], needed is [%d,%d,%d,%d]", what, t->dim[0],
                   t->dim[1], t->dim[2], t->dim[3], dims[0], dims[1], dims[2], dims[3]);
    PTQ__REFUSE_IF(t->type != type, PTQ_BAD_GRAPH, "%s is of type %s, needed is %s", what,
                   ptq_name(PTQ_NAMES_TYPE, t->type), ptq_name(PTQ_NAMES_TYPE, type));
    if (ptq__is_integer_type(type))
        return ptq__check_scales(node, t, err);
    for (size_t i = 0; i < n; i++) {
        float value = ptq_tensor_number(t, i);
        PTQ__REFUSE_IF(!ptq__is_finite(value), PTQ_BAD_NUMBER, "%s[%zu] is %g", what, i,
                       (double)value);
        PTQ__REFUSE_IF(param == PTQ_PARAM_VARIANCE && (value < 0 || value + node->epsilon <= 0),
                       PTQ_BAD_NUMBER, "variance[%zu] is %g with epsilon %g; must be positive", i,
                       (double)value, (double)node->epsilon);
    }
    return PTQ_OK;
}

/* How a result is coded: one byte for each code, a scale to divide by, and a code for 0, which is
   what padding and ReLU stand on. */
static ptq_status ptq__check_qparams(const ptq_node *node, const ptq_qparams *q, ptq_error *err) {
    int32_t low, high;
    if (q->type == PTQ_TYPE_F32)
        return PTQ_OK;
    PTQ__REFUSE_IF((q->type != PTQ_TYPE_U8 && q->type != PTQ_TYPE_S8) || q->bits < 2 || q->bits > 8,
                   PTQ_BAD_GRAPH, "its result cannot be coded as %s of %d bits",
                   ptq_name(PTQ_NAMES_TYPE, q->type), q->bits);
    ptq_code_range(q->type, q->bits, &low, &high);
    PTQ__REFUSE_IF(
        !ptq__is_normal(q->scale) || q->scale < 0 || q->zero_point < low || q->zero_point > high,
        PTQ_BAD_NUMBER,
        "scale %g and zero point %d; the scale must be positive, finite and not denormal,"
        " the zero point a code",
        (double)q->scale, (int)q->zero_point);
    return PTQ_OK;
}

/* 1 if operands and result of a node may be codes, or real numbers, as they are: a kernel reads
   bytes or floats, and does not ask. Two operands are always of one kind; a fused addition also
   rounds in between, to the codes of `mid`.

       operands     result
       real         real         all but quantize and dequantize
       codes        the same     ReLU, pools of the largest: codes are chosen among
       codes        codes        additions, averages, products, functions: a scale of their own
       codes        codes        convolutions and dense layers, if their weights are integers
       codes        real         a dense layer's sums, where they are the logits
       codes        codes        softmax: of 1/256, where a file brings them */
static int ptq__codes_fit(const ptq_model *model, int index) {
    const ptq_node *node = &model->node[index], *a = &model->node[node->input[0]];
    const ptq_node *b = node->input[1] < 0 ? a : &model->node[node->input[1]];
    int coded = ptq__is_coded(node), from = ptq__is_coded(a);
    int integer = ptq_node_mode(model, index) == PTQ_MODE_INTEGER;
    const ptq_qparams share = {PTQ_TYPE_S8, 8, 1.0f / 256, -128};
    if (from != ptq__is_coded(b) || (node->residual && coded) != (node->mid.type != PTQ_TYPE_F32))
        return 0;
    switch (ptq__operator_of(node)->codes) {
    case PTQ__NO_CODES: /* real numbers in, real numbers out */
        return !coded && !from;
    case PTQ__SHARE_CODES:
        return coded == from && (!coded || ptq__same_qparams(&node->q, &share));
    case PTQ__SAME_CODES: /* whatever comes in, with its very scale */
        return ptq__same_qparams(&node->q, &a->q);
    case PTQ__OWN_CODES:
        return coded == from &&
               (!coded || !ptq__keeps_scale(model, node) || ptq__same_qparams(&node->q, &a->q));
    case PTQ__WEIGHT_CODES: /* codes in and out with integer weights, else neither */
        return from == integer && coded == integer;
    case PTQ__LOGIT_CODES: /* the same, but a sum may also leave as a real number */
        return from == integer && coded <= integer;
    case PTQ__TO_CODES:
        return coded && !from;
    case PTQ__FROM_CODES:
        return !coded && from;
    default: /* codes in, codes out */
        return coded == from;
    }
}

/* Codes of one node: how the result is coded, whether that goes with what comes in, and what its
   integer kernel relies on, which the operator's row knows: for a convolution that no sum
       |b| + sum |w - zw| max |x - zx|
   exceeds 2^31 - 1 and that every multiplier is a normal number; for additions and averages that
   the ratios of scales are. */
static ptq_status ptq__check_codes(const ptq_model *model, int index, ptq_error *err) {
    const ptq_node *node = &model->node[index];
    const ptq__operator *op = ptq__operator_of(node);
    int integer = ptq__is_integer_type(node->param[PTQ_PARAM_WEIGHT].type);
    PTQ__TRY(ptq__check_qparams(node, &node->q, err));
    PTQ__TRY(ptq__check_qparams(node, &node->mid, err));
    PTQ__REFUSE_IF(node->real && ptq__is_coded(node), PTQ_BAD_GRAPH,
                   "real numbers come in as they are; codes are made by a quantize node behind it");
    PTQ__REFUSE_IF(op->operands && !ptq__codes_fit(model, index), PTQ_BAD_GRAPH,
                   "its inputs, weights and result do not agree on being codes or real numbers");
    PTQ__REFUSE_IF(node->dynamic && !(integer && ptq__has_weight(node->op)), PTQ_BAD_GRAPH,
                   "dynamic needs integer weights");
    if (op->check && (integer || ptq__is_coded(node)))
        return op->check(model, node, err);
    return PTQ_OK;
}

/* A node as the builder would have made it: attributes, operands, shape and padding inferred once
   more, since memory is planned by them; then parameters, then codes. */
static ptq_status ptq__check_node(const ptq_model *model, int index, ptq_error *err) {
    const ptq_node *node = &model->node[index];
    ptq_node again = *node;
    PTQ__TRY(ptq__infer(model, &again, index, err));
    PTQ__REFUSE_IF(memcmp(again.shape, node->shape, sizeof again.shape) ||
                       memcmp(again.pad, node->pad, sizeof again.pad),
                   PTQ_BAD_GRAPH, "its shape %dx%dx%d does not follow from its input",
                   node->shape[0], node->shape[1], node->shape[2]);
    for (int param = 0; param < PTQ_PARAM_COUNT; param++)
        PTQ__TRY(ptq__check_param(model, node, param, err));
    return ptq__check_codes(model, index, err);
}

/* Images are preprocessed by (pixel - mean) / std: finite for every pixel, 0 to 255, and with a
   positive divisor, since a negative one would turn the image's brightness round. Channels that the
   image has not are looked at as well. */
static ptq_status ptq__check_pixels(const ptq_model *model, ptq_error *err) {
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++) {
        float mean = model->mean[c], std = model->std[c];
        PTQ__FAIL_IF(!ptq__is_finite(mean) || !ptq__is_finite(std) || !(std > 0), PTQ_BAD_NUMBER,
                     "preprocessing of channel %d: mean %g, std %g; std must be positive", c,
                     (double)mean, (double)std);
    }
    return PTQ_OK;
}

/* Names first, since all other messages use them; readers, and how many classes there are, last,
   since they need legal operands. */
PTQ_API ptq_status ptq_model_check(const ptq_model *model, ptq_error *err) {
    if (model->error.status)
        return ptq_error_set(err, model->error.status, "%s", model->error.text);
    PTQ__FAIL_IF(model->nodes < 2, PTQ_BAD_GRAPH, "the graph needs an input and one more node");
    PTQ__TRY(ptq__check_pixels(model, err));
    for (int i = 0; i < model->nodes; i++)
        PTQ__TRY(ptq__check_node(model, i, err));
    for (int i = 0; i + 1 < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        PTQ__REFUSE_IF(!ptq__uses(model, i), PTQ_BAD_GRAPH,
                       "nothing uses its result, and it is not the last node");
    }
    /* Of several results each has a number of its own, and none is left out in between. */
    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        PTQ__REFUSE_IF(
            node->output && (ptq_model_output(model, node->output) != i ||
                             (node->output > 1 && ptq_model_output(model, node->output - 1) < 0)),
            PTQ_BAD_GRAPH, "result %d: results are numbered from 1 on, each once", node->output);
    }
    return ptq__check_metas(model, err);
}

/* ---- [FUSE] ---------------------------------------------------------------------------------- */

#ifndef PTQ_RUN_ONLY

/* Batch norm, activations and residual additions cost little to compute and much to store and load:
   they move into the node before them, which does them on its way to memory. One pass over the old
   graph builds the new one; a node either joins its host, which then ends in the node's result
   and bears its name as `out`, or is copied with its operands' new numbers. A residual block
       x -> conv1 -> bn1 -> relu -> conv2 -> bn2 -> add(x, .) -> relu
   becomes two nodes, with other weights and biases,
       x -> conv1, act = relu -> conv2, residual = x, add_act = relu
   each of which reads its operands once and writes once; and calibration sees only tensors that
   still exist, which have one rounding each. The report says of every node
   where it went, or why it could not. On codes it matters which tensors are rounded: a model
   that is quantized already only gets its additions fused, which round where they did before. */

typedef struct ptq__fuser {
    const ptq_model *old;
    ptq_model *model;        /* the new one */
    int *to;                 /* the node of the new model that computes what node i of the old one
                                computed */
    ptq_fuse_report *report; /* with room for a line on each node; NULL: not wanted */
} ptq__fuser;

/* One line of the report: what became of a node, and `into` which other; or why it stays. */
static void ptq__fuse_note(ptq__fuser *fuser, const ptq_node *node, ptq_fusion_kind kind,
                           const ptq_node *into, const char *reason) {
    if (!fuser->report)
        return;
    ptq_fusion *item = &fuser->report->item[fuser->report->items++];
    memcpy(item->node, node->name, sizeof item->node);
    if (into)
        memcpy(item->into, into->name, sizeof item->into);
    item->kind = kind;
    item->reason = reason;
}

/* Folding. A batch norm is a line for each channel, g (x - mean) + beta, with the slope

       g = gamma / sqrt(variance + epsilon),

   where the root is of a positive number: ptq__check_param. A line in front of a linear layer or
   behind it makes a linear layer again (Jacob et al. 2018, 3.2), whose weights and biases are
   computed in double precision, and rounded once. */
static double ptq__norm_slope(const ptq_node *norm, int channel) {
    double variance = (double)ptq__numbers(norm, PTQ_PARAM_VARIANCE)[channel];
    return (double)ptq__numbers(norm, PTQ_PARAM_WEIGHT)[channel] /
           sqrt(variance + (double)norm->epsilon);
}

/* A layer without a bias gets one, of zeros, which takes in beta and mean. */
static ptq_status ptq__give_bias(ptq_model *model, ptq_node *layer, ptq_error *err) {
    if (layer->no_bias)
        PTQ__TRY(ptq_tensor_create(&layer->param[PTQ_PARAM_BIAS], PTQ_TYPE_F32, 32, 1,
                                   &layer->channels, &model->allocator, err));
    layer->no_bias = 0;
    return PTQ_OK;
}

/* The norm behind a layer: each output channel o has one slope.
       g (sum w x + b - mean) + beta = sum (w g) x + (b - mean) g + beta
   Padding changes nothing: the norm comes after the sum, in which a padded tap is 0. */
static void ptq__fold_behind(ptq_node *layer, const ptq_node *norm) {
    const float *beta = ptq__numbers(norm, PTQ_PARAM_BIAS); /* O */
    const float *mean = ptq__numbers(norm, PTQ_PARAM_MEAN); /* O */
    float *weight = ptq__numbers(layer, PTQ_PARAM_WEIGHT);  /* O x taps */
    float *bias = ptq__numbers(layer, PTQ_PARAM_BIAS);      /* O */
    size_t taps = ptq_tensor_elements(&layer->param[PTQ_PARAM_WEIGHT]) / (size_t)layer->channels;
    for (int o = 0; o < layer->channels; o++) {
        double g = ptq__norm_slope(norm, o);
        for (size_t k = 0; k < taps; k++, weight++)
            *weight = (float)((double)*weight * g);
        bias[o] = (float)(((double)bias[o] - (double)mean[o]) * g + (double)beta[o]);
    }
}

/* The norm in front of a layer: the input channel c under each tap has a slope of its own.
       sum w (g[c] (x - mean[c]) + beta[c]) + b
           = sum (w g[c]) x + b + sum w (beta[c] - g[c] mean[c])
   Padding would count: it would have to be mean - beta / g, not 0. */
static void ptq__fold_in_front(ptq_node *layer, const ptq_node *norm) {
    const float *beta = ptq__numbers(norm, PTQ_PARAM_BIAS); /* C */
    const float *mean = ptq__numbers(norm, PTQ_PARAM_MEAN); /* C */
    float *weight = ptq__numbers(layer, PTQ_PARAM_WEIGHT);  /* O x C / groups x KH x KW */
    float *bias = ptq__numbers(layer, PTQ_PARAM_BIAS);      /* O */
    const int *dim = layer->param[PTQ_PARAM_WEIGHT].dim;
    for (int o = 0; o < layer->channels; o++) {
        int first = o / (layer->channels / layer->groups) * dim[1]; /* input channel of o's group */
        double sum = (double)bias[o];
        for (int k = 0; k < dim[1] * dim[2] * dim[3]; k++, weight++) {
            int c = (first + k / (dim[2] * dim[3])) % norm->shape[2];
            double g = ptq__norm_slope(norm, c);
            sum += (double)*weight * ((double)beta[c] - g * (double)mean[c]);
            *weight = (float)((double)*weight * g);
        }
        bias[o] = (float)sum;
    }
}

/* 1 if the node that computes tensor `from` of the old model ends in it, and nothing else reads it:
   then what follows may join that node, and the tensor disappear. */
static int ptq__may_vanish(const ptq__fuser *fuser, int from) {
    const ptq_node *host = &fuser->model->node[fuser->to[from]];
    return !strcmp(host->out, fuser->old->node[from].out) && ptq__uses(fuser->old, from) == 1;
}

/* Why a batch norm or an activation cannot move into the node before it; NULL if it can. Folding
   needs a linear node: with max(x, 0) in between, g max(x, 0) is max(g x, 0) only for g > 0. Of two
   activations in a row a node could remember one only. */
static const char *ptq__cannot_follow(const ptq__fuser *fuser, const ptq_node *node, int norm) {
    int from = node->input[0];
    const ptq_node *host = &fuser->model->node[fuser->to[from]];
    if (norm ? !(ptq__operator_of(host)->properties & PTQ__TAKES_NORM)
             : !ptq__has_key(host, PTQ__KEY_ACT))
        return "the node before it is of a kind that cannot take it in";
    if (!ptq__may_vanish(fuser, from))
        return ptq__uses(fuser->old, from) == 1 ? "another node has taken in what lies before it"
                                                : "its input is used elsewhere too";
    if (norm && (host->act || host->residual))
        return "an activation or an addition lies between it and the convolution";
    if (!norm && (host->residual ? host->add_act : host->act))
        return "the node before it ends in an activation already";
    return NULL;
}

/* The operand of an addition whose convolution can take the addition in: the later one, so that the
   other operand exists before it. Where a block of ResNet8 changes the shape, both are
   convolutions: conv2 takes the sum in, and the shortcut's result becomes its residual. -1 if
   neither can. x + x has one operand only, which cannot be the convolution's result and its
   residual at once. */
static int ptq__residual_host(const ptq__fuser *fuser, const ptq_node *add) {
    for (int k = 0; k < 2; k++) {
        int from = add->input[k], other = add->input[1 - k];
        const ptq_node *host = &fuser->model->node[fuser->to[from]];
        if (ptq__has_key(host, PTQ__KEY_ADD) && !host->residual && from != other &&
            ptq__may_vanish(fuser, from) && fuser->to[from] > fuser->to[other])
            return k;
    }
    return -1;
}

/* Makes a node the end of its host, the node of the new model that computes its operand k. */
static ptq_status ptq__move_in(ptq__fuser *fuser, const ptq_node *node, int k, ptq_node *host,
                               ptq_error *err) {
    ptq_fusion_kind kind = ptq__operator_of(node)->fusion;
    memcpy(host->out, node->out, sizeof host->out);
    host->output = node->output;
    if (kind == PTQ_FUSION_BATCH_NORM) {
        PTQ__TRY(ptq__give_bias(fuser->model, host, err));
        ptq__fold_behind(host, node);
        return PTQ_OK;
    }
    if (kind == PTQ_FUSION_ACTIVATION) {
        *(host->residual ? &host->add_act : &host->act) = ptq__act_of(node);
        return PTQ_OK;
    }
    /* Which operand came first is kept: on codes the second one's product is rounded first. And the
       convolution rounds to its own codes before the addition, as it did. */
    host->residual = k == 1 ? PTQ_RESIDUAL_FIRST : PTQ_RESIDUAL_SECOND;
    host->input[1] = fuser->to[node->input[1 - k]];
    host->add_act = node->act;
    host->mid = host->q;
    host->q = node->q;
    return PTQ_OK;
}

/* A batch norm that no node before it takes in. If its only reader is a layer that pads nothing, it
   is left out, and that layer takes it in when its turn comes; else it becomes a convolution, which
   multiplies each channel by a number. */
static ptq_status ptq__place_norm(ptq__fuser *fuser, int index, ptq_error *err) {
    static const int none[4] = {0, 0, 0, 0};
    const ptq_node *norm = &fuser->old->node[index], *reader = norm + 1;
    ptq_node conv = ptq__blank(PTQ_OP_CONV2D, fuser->to[norm->input[0]], -1);
    for (; reader < fuser->old->node + fuser->old->nodes; reader++)
        if (reader->input[0] == index && ptq__has_weight(reader->op) &&
            !memcmp(reader->pad, none, sizeof none) && ptq__uses(fuser->old, index) == 1) {
            fuser->to[index] = conv.input[0];
            ptq__fuse_note(fuser, norm, PTQ_FUSION_BATCH_NORM, reader, NULL);
            return PTQ_OK;
        }
    memcpy(conv.name, norm->name, sizeof conv.name);
    memcpy(conv.out, norm->out, sizeof conv.out);
    conv.channels = conv.groups = norm->shape[2];
    conv.output = norm->output;
    PTQ__TRY(ptq__append(fuser->model, &conv, PTQ_TYPE_F32, 32, err));
    fuser->to[index] = fuser->model->nodes - 1;
    ptq__fuse_note(fuser, norm, PTQ_FUSION_CONVOLUTION, norm, NULL);
    ptq_node *made = &fuser->model->node[fuser->to[index]];
    for (int c = 0; c < conv.channels; c++)
        ptq__numbers(made, PTQ_PARAM_WEIGHT)[c] = 1;
    ptq__fold_behind(made, norm);
    return PTQ_OK;
}

/* Appends a copy of a node, with its operands' new numbers. A batch norm before it whose tensor is
   not there was left out, and folds into it. */
static ptq_status ptq__carry_over(ptq__fuser *fuser, int index, ptq_error *err) {
    const ptq_node *node = &fuser->old->node[index];
    const ptq_node *before = &fuser->old->node[index ? node->input[0] : 0];
    fuser->to[index] = fuser->model->nodes;
    PTQ__TRY(ptq__copy_node(fuser->model, node, err));
    ptq_node *copy = &fuser->model->node[fuser->to[index]];
    for (int k = 0; k < 2; k++)
        copy->input[k] = node->input[k] < 0 ? -1 : fuser->to[node->input[k]];
    if (ptq__operator_of(before)->fusion == PTQ_FUSION_BATCH_NORM &&
        strcmp(fuser->model->node[copy->input[0]].out, before->out)) {
        PTQ__TRY(ptq__give_bias(fuser->model, copy, err));
        ptq__fold_in_front(copy, before);
    }
    return PTQ_OK;
}

/* A node joins its host if there is one, or is carried over. Whatever may be fused gets a line in
   the report. */
static ptq_status ptq__fuse_node(ptq__fuser *fuser, int index, int quantized, ptq_error *err) {
    const ptq_node *node = &fuser->old->node[index];
    ptq_fusion_kind kind = ptq__operator_of(node)->fusion;
    const char *reason = NULL;
    int k = 0;
    if (kind == PTQ_FUSION_NONE ||
        (quantized && (kind != PTQ_FUSION_RESIDUAL || !ptq__is_coded(node))))
        k = -1;
    else if (kind == PTQ_FUSION_RESIDUAL && ptq__arithmetic_of(fuser->old) != PTQ__ONNX)
        reason = "the model's arithmetic adds apart from the convolution";
    else if (kind != PTQ_FUSION_RESIDUAL)
        reason = ptq__cannot_follow(fuser, node, kind == PTQ_FUSION_BATCH_NORM);
    else if ((k = ptq__residual_host(fuser, node)) < 0)
        reason = "neither operand is a convolution, used once, behind the other operand";
    if (k >= 0 && !reason) {
        fuser->to[index] = fuser->to[node->input[k]];
        ptq_node *host = &fuser->model->node[fuser->to[index]];
        ptq__fuse_note(fuser, node, kind, host, NULL);
        return ptq__move_in(fuser, node, k, host, err);
    }
    if (reason && kind == PTQ_FUSION_BATCH_NORM)
        return ptq__place_norm(fuser, index, err);
    if (reason)
        ptq__fuse_note(fuser, node, PTQ_FUSION_NONE, NULL, reason);
    return ptq__carry_over(fuser, index, err);
}

/* In the order of the nodes: of a chain conv -> norm -> relu each finds its host as the ones before
   it have left it. */
PTQ_API ptq_status ptq_fuse(const ptq_model *model, ptq_model **out, ptq_fuse_report *report,
                            ptq_error *err) {
    ptq__fuser fuser;
    memset(&fuser, 0, sizeof fuser);
    fuser.old = model;
    fuser.report = report;
    if (report) {
        memset(report, 0, sizeof *report);
        report->memory.allocator = model->allocator;
    }
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__TRY(ptq_model_create(&model->allocator, &fuser.model, err));
    int quantized = ptq__is_quantized(model);
    ptq_status status = PTQ__NEW(&model->allocator, &fuser.to, (size_t)model->nodes, "fusion", err);
    if (report)
        PTQ__THEN(status, PTQ__KEEP(&report->memory, &report->item, (size_t)model->nodes,
                                    "fusion report", err));
    PTQ__THEN(status, ptq__copy_head(fuser.model, model, err));
    for (int i = 0; i < model->nodes && !status; i++)
        status = ptq__fuse_node(&fuser, i, quantized, err);
    PTQ__THEN(status, ptq_model_check(fuser.model, err));
    ptq__free(&model->allocator, fuser.to);
    if (status && report) {
        ptq_release(&report->memory);
        memset(report, 0, sizeof *report);
    }
    PTQ__FINISH(status, ptq_model_free(fuser.model), fuser.model, out);
}

#endif /* PTQ_RUN_ONLY */

/* ---- [PLAN] -------------------------------------------------------------------------------------
   A plan is a model made ready to run on one instruction set: for each node a step, which knows its
   kernel, its weights as that kernel reads them and its constants; and for each tensor a place in
   one piece of memory, the arena. A plan does not change once it is made, so that threads share it.
   What changes, the arena, belongs to a session.

   The arena is laid out twice: once so that tensors take over each other's memory, and once, for
   sessions that keep their intermediates, so that every tensor has a place of its own. */
enum { PTQ__LAYOUT_REUSE, PTQ__LAYOUT_KEEP, PTQ__LAYOUTS }; /* ptq_session_options.keep: 0, 1 */

typedef struct ptq__layout {
    size_t *offset; /* of each node's result. In the layout that keeps, behind a result lies what
                       it was before a fused addition */
    size_t scratch; /* offset of the memory that each step has for itself */
    size_t size;    /* of the arena */
} ptq__layout;

/* What a session needs to know of a model, and nothing that an image changes. It points into the
   model for weights that could be used as they are. */
struct ptq_plan {
    ptq_plan_info info;
    ptq__step *step; /* one for each node; step 0 is never run */
    int steps;
    uint8_t *table; /* C x 256: the code of each pixel; NULL where it is pixel ^ flip, or where the
                        input is real numbers */
    uint8_t flip;
    ptq__layout layout[PTQ__LAYOUTS];
    ptq_allocator allocator;
};

enum { PTQ__ALIGN = 64 }; /* of tensors in the arena: a cache line, and the widest vector */

static size_t ptq__align(size_t size) { return (size + PTQ__ALIGN - 1) / PTQ__ALIGN * PTQ__ALIGN; }

/* Bytes of a result in the arena: one for each code whatever its bits, since kernels read single
   elements; four for each real number. */
static size_t ptq__node_bytes(const ptq_node *node) {
    return ptq__align(ptq__shape_elements(3, node->shape) *
                      (ptq__is_coded(node) ? 1 : sizeof(float)));
}

/* Laying out the arena. Tensors that share memory, a result written over an operand, make one
   block, which lives from the step that first writes any of them to the last that reads any. In a
   residual block x -> conv a -> conv b, to which x is added,

       step      1   2   3    address
       x         #   #   #    0           read by conv a, and again by the addition
       a             #   #    behind x    made while x must stay
       b + x             #    0           written over x, which nobody reads after it

   two places are enough for three tensors, and the arena is as large as the most that lives at one
   time, not as all tensors together.

   ResNet8 is a row of such blocks, and never needs a third place. Where the shape changes, the
   shortcut is a convolution of its own: x -> a, x -> s, a -> b + s. While s is made, x, a and s
   live, but a and s have half of x's elements each: H/2 x W/2 x 2 C. So with codes of one byte
   32 x 32 x 16 twice, 32,768 bytes, hold all activations of the network; the image, of three
   channels, is read where the caller has it or lies in one of the places until conv1 is done.

   Why not free and allocate while running? An allocator takes an unknown time and may fail; here
   the size is known before the first image, and every run uses the same addresses. */
typedef struct ptq__block ptq__block;
struct ptq__block {
    int root;        /* the first tensor of the block, which describes all of it */
    int first, last; /* steps between which the block lives */
    size_t size, at; /* bytes, a multiple of PTQ__ALIGN; offset in the arena */
    int placed;
    ptq__block *next; /* of those placed, in the order of addresses */
};

/* The operand that a result is written over, or -1: the residual of a convolution, or the first
   operand of what works element by element. It must not be read again later, nor be the image,
   which may be the caller's; and a convolution reads its input all the while. */
static int ptq__overwrites(const ptq_model *model, const ptq__block *block, int index) {
    const ptq_node *node = &model->node[index];
    int in_place = (ptq__operator_of(node)->properties & PTQ__IN_PLACE) != 0;
    int over = node->residual ? node->input[1] : in_place ? node->input[0] : -1;
    if (over <= 0 || block[over].last != index || block[over].size != block[index].size ||
        (node->residual && block[node->input[0]].root == block[over].root))
        return -1;
    return over;
}

/* block: one for each node, all zeros. First every tensor lives for itself, from the step that
   makes it to its last reader; then those that are written over an operand join the operand's
   block, which lives on as long as they do. Results are looked at in order, so that a chain of
   several, conv -> add -> relu, ends in one block. */
static void ptq__make_blocks(const ptq_model *model, ptq__block *block) {
    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        block[i].first = block[i].last = i;
        block[i].size = ptq__node_bytes(node);
        for (int k = 0; k < 2; k++)
            if (node->input[k] >= 0)
                block[node->input[k]].last = i;
    }
    for (int i = 0; i < model->nodes; i++)
        if (i == ptq_model_logits(model) || model->node[i].output)
            block[i].last = model->nodes; /* the caller reads them in the end */
    for (int i = 0; i < model->nodes; i++) {
        int over = ptq__overwrites(model, block, i), root = over < 0 ? i : block[over].root;
        block[i].root = root;
        if (block[i].last > block[root].last)
            block[root].last = block[i].last;
    }
}

/* The lowest place at which nothing lies that lives at the same time. `placed` lists the blocks
   that have theirs by address: one pass, up to the first that lies behind, is enough. */
static void ptq__place(ptq__block *block, ptq__block **placed) {
    const ptq__block *other = *placed;
    for (; other && other->at < block->at + block->size; other = other->next)
        if (other->first <= block->last && block->first <= other->last &&
            block->at < other->at + other->size)
            block->at = other->at + other->size;
    while (*placed && (*placed)->at < block->at)
        placed = &(*placed)->next;
    block->next = *placed;
    block->placed = 1;
    *placed = block;
}

/* The largest block is placed first, of equals the one that lives first: small ones then fill the
   gaps that large ones leave, while a large one finds no gap among many small ones. The best layout
   is hard to find (it is a case of bin packing); this order is the usual approximation. */
static void ptq__lay_reusing(ptq__block *block, int n, ptq__layout *layout) {
    ptq__block *placed = NULL, *largest;
    do {
        largest = NULL;
        for (int i = 0; i < n; i++)
            if (block[i].root == i && !block[i].placed &&
                (!largest || block[i].size > largest->size))
                largest = &block[i];
        if (largest)
            ptq__place(largest, &placed);
    } while (largest);
    for (int i = 0; i < n; i++) {
        size_t at = block[block[i].root].at;
        layout->offset[i] = at;
        layout->size = at + block[i].size > layout->size ? at + block[i].size : layout->size;
    }
}

/* Both layouts, and behind the tensors of each the scratch memory, as large as the step needs that
   needs most: steps run one after the other. The sum is made in 64 bits before anything is laid
   out, so that no offset can overflow where size_t has 32. */
static ptq_status ptq__lay_out(ptq_plan *plan, ptq_error *err) {
    const ptq_model *model = plan->info.model;
    ptq__layout *keep = &plan->layout[PTQ__LAYOUT_KEEP];
    size_t n = (size_t)plan->steps, scratch = 0;
    ptq__block *block = NULL;
    uint64_t sum = 0;
    for (int i = 0; i < plan->steps; i++) {
        sum += 2 * (uint64_t)ptq__node_bytes(&model->node[i]);
        scratch = plan->step[i].scratch > scratch ? plan->step[i].scratch : scratch;
    }
    if (sum + scratch > SIZE_MAX / 4)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "the activations do not fit into memory");
    for (int k = 0; k < PTQ__LAYOUTS; k++)
        PTQ__TRY(PTQ__NEW(&plan->allocator, &plan->layout[k].offset, n, "layout", err));
    PTQ__TRY(PTQ__NEW(&plan->allocator, &block, n, "layout", err));
    ptq__make_blocks(model, block);
    ptq__lay_reusing(block, plan->steps, &plan->layout[PTQ__LAYOUT_REUSE]);
    ptq__free(&plan->allocator, block);
    for (int i = 0; i < plan->steps; i++) {
        keep->offset[i] = keep->size;
        keep->size += ptq__node_bytes(&model->node[i]) * (model->node[i].residual ? 2 : 1);
    }
    for (int k = 0; k < PTQ__LAYOUTS; k++) {
        plan->layout[k].scratch = plan->layout[k].size;
        plan->layout[k].size += ptq__align(scratch);
    }
    return PTQ_OK;
}

/* Weights in a form that kernels read: packed codes one a byte, half precision as single. All
   others are used where they lie in the model, which may be flash memory. */
static ptq_status ptq__unpack_weight(ptq_plan *plan, ptq__step *step, ptq_error *err) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    size_t n = ptq_tensor_elements(weight);
    int half = weight->type == PTQ_TYPE_F16;
    step->weight = weight->data;
    if (!half && !ptq__is_packed(weight->type))
        return PTQ_OK;
    PTQ__TRY(
        ptq__alloc(&plan->allocator, n, half ? sizeof(float) : 1, "weights", &step->owned, err));
    step->weight = step->owned;
    for (size_t i = 0; i < n; i++)
        if (half)
            ((float *)step->owned)[i] = ptq_tensor_number(weight, i);
        else
            ((uint8_t *)step->owned)[i] = (uint8_t)ptq__code(weight, i);
    return PTQ_OK;
}

/* One step: what does not depend on the image is computed here, once. First it gets the scalar
   kernel, which part three may replace by a faster one. Steps point into the model, and so the
   model must not move. */
static ptq_status ptq__make_step(ptq_plan *plan, int index, ptq_error *err) {
    const ptq_model *model = plan->info.model;
    const ptq_node *node = &model->node[index];
    ptq_mode mode = ptq_node_mode(model, index);
    ptq__step *step = &plan->step[index];
    step->node = node;
    step->index = index;
    for (int k = 0; k < 2; k++)
        step->from[k] = node->input[k] >= 0 ? &model->node[node->input[k]] : NULL;
    step->arithmetic = ptq__arithmetic_of(model);
    ptq__describe_step(step);
    ptq__choose_kernel(step, mode);
    if (ptq__has_weight(node->op))
        PTQ__TRY(ptq__unpack_weight(plan, step, err));
    if (index > 0 && ptq__is_coded(node))
        ptq__set_constants(step);
    if (index > 0 && mode == PTQ_MODE_INTEGER)
        PTQ__TRY(ptq__make_tables(step, &plan->allocator, err));
    return ptq__vectorize(plan, step, err);
}

/* The preprocessing of one pixel, or real number. */
static float ptq__pixel(const ptq_model *model, int channel, float pixel) {
    if (channel >= PTQ_MAX_PIXEL_CHANNELS)
        return pixel;
    return ptq__div(pixel - model->mean[channel], model->std[channel]);
}

/* 1 if it changes nothing: mean 0, std 1. */
static int ptq__is_plain(const ptq_model *model) {
    int plain = 1;
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        plain &= model->mean[c] == 0 && model->std[c] == 1;
    return plain;
}

/* Preprocessing and coding of pixels, code = quantize((pixel - mean[c]) / std[c]), in one table of
   C x 256 codes: a pixel has 256 values only, and no image pays for the two divisions, 6,144 of
   them for 32 x 32 x 3; the table has 768 bytes. None where
   each pixel is its own code, as with mean 0, std 1, scale 1: the image is then used as it is; nor
   where codes are signed and pixels only have their highest bit flipped, p - 128. */
static ptq_status ptq__make_table(ptq_plan *plan, ptq_error *err) {
    const ptq_model *model = plan->info.model;
    const ptq_node *input = &model->node[0];
    int same = 1;
    if (!ptq__is_coded(input))
        return PTQ_OK;
    PTQ__TRY(PTQ__NEW(&plan->allocator, &plan->table, (size_t)input->shape[2] * 256, "pixel table",
                      err));
    for (int c = 0; c < input->shape[2]; c++)
        for (int p = 0; p < 256; p++) {
            int32_t code = ptq_quantize(ptq__pixel(model, c, (float)p), &input->q);
            plan->table[c * 256 + p] = (uint8_t)code;
            same = same && (uint8_t)code == (p ^ plan->table[0]);
        }
    if (same) {
        plan->flip = plan->table[0];
        ptq__free(&plan->allocator, plan->table);
        plan->table = NULL;
    }
    return PTQ_OK;
}

/* The arena comes last, since it has room for what the kernels that were chosen need. */
static ptq_status ptq__fill_plan(ptq_plan *plan, ptq_error *err) {
    const ptq_model *model = plan->info.model;
    ptq_plan_info *info = &plan->info;
    PTQ__TRY(PTQ__NEW(&plan->allocator, &plan->step, (size_t)model->nodes, "plan", err));
    while (plan->steps < model->nodes) /* counted before it is made: freed even if that fails */
        PTQ__TRY(ptq__make_step(plan, plan->steps++, err));
    PTQ__TRY(ptq__make_table(plan, err));
    PTQ__TRY(ptq__lay_out(plan, err));
    info->logits = ptq_model_logits(model);
    info->classes = (int)ptq__shape_elements(3, model->node[info->logits].shape);
    info->type = model->node[0].real ? PTQ_TYPE_F32 : PTQ_TYPE_U8;
    info->pixels = ptq__shape_elements(3, model->node[0].shape);
    info->arena_bytes = plan->layout[PTQ__LAYOUT_REUSE].size;
    return PTQ_OK;
}

/* All that can fail fails here: a session that was made for the plan only needs memory. */
PTQ_API ptq_status ptq_plan_create(const ptq_model *model, const ptq_plan_options *options,
                                   ptq_plan **out, ptq_error *err) {
    const ptq_allocator *allocator = options ? &options->allocator : NULL;
    ptq_isa isa = options ? options->isa : PTQ_ISA_AUTO;
    ptq_plan *plan = NULL;
    if (ptq_isa_support(isa) != PTQ_SUPPORT_AVAILABLE)
        return ptq_error_set(err, PTQ_UNSUPPORTED, "instruction set '%s' is not available here",
                             ptq_name(PTQ_NAMES_ISA, (unsigned)isa));
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__TRY(PTQ__NEW(allocator, &plan, 1, "plan", err));
    plan->allocator = ptq__allocator(allocator);
    plan->info.model = model;
    plan->info.isa = isa == PTQ_ISA_AUTO ? ptq__best_isa() : isa;
    ptq_status status = ptq__fill_plan(plan, err);
    PTQ__FINISH(status, ptq_plan_free(plan), plan, out);
}

/* Also of one that is half made, whose steps so far are counted. The model stays. */
PTQ_API void ptq_plan_free(ptq_plan *plan) {
    if (!plan)
        return;
    const ptq_allocator *allocator = &plan->allocator;
    for (int k = 0; k < PTQ__LAYOUTS; k++)
        ptq__free(allocator, plan->layout[k].offset);
    for (int k = 0; k < plan->steps; k++) {
        ptq__free(allocator, plan->step[k].owned);
        ptq__free(allocator, plan->step[k].multiplier);
        ptq__free(allocator, plan->step[k].fixed);
        ptq__free(allocator, plan->step[k].packed);
    }
    ptq__free(allocator, plan->table);
    ptq__free(allocator, plan->step);
    ptq__free(allocator, plan);
}

PTQ_API const ptq_plan_info *ptq_plan_get_info(const ptq_plan *plan) { return &plan->info; }

/* A copy of the constants, whose tables stay the plan's. Members of other operators are 0. */
PTQ_API void ptq_plan_step(const ptq_plan *plan, int node, ptq_step_info *out) {
    const ptq__step *step = &plan->step[node];
    memset(out, 0, sizeof *out);
    out->offset = plan->layout[PTQ__LAYOUT_REUSE].offset[node];
    out->multiplier = step->multiplier;
    out->low = step->clamp.low;
    out->high = step->clamp.high;
    out->ratio[0] = step->adder.ratio_a;
    out->ratio[1] = step->adder.ratio_b;
    out->shift = step->adder.offset;
    out->average = step->average;
    out->table = step->node->op == PTQ_OP_FUNCTION ? (const uint8_t *)step->owned : NULL;
    out->recode = step->node->op == PTQ_OP_CONCAT ? (const uint8_t *)step->owned : NULL;
    out->sum_low = step->adder.clamp.low;
    out->sum_high = step->adder.clamp.high;
    out->factor = step->node->op == PTQ_OP_ADD ? step->adder.factor : step->fixed;
    out->power = step->node->op == PTQ_OP_SOFTMAX ? (const uint32_t *)step->owned : NULL;
}

/* ---- [SESSION] ----------------------------------------------------------------------------------
   A session runs a plan on one image after the other. The image becomes the tensor of node 0; then
   each step works from the tensors before it to its own; what was asked for is read off the last.

   All that changes on the way is the session's arena, whose size the plan knows. So running
   allocates nothing and cannot fail for want of memory; the time for an image does not depend on an
   allocator; and a device without one hands over a static array. Nothing of an image is left that
   could reach the next: every step writes all of its result before anyone reads it.

   One image through ResNet8 on integers. Each element of a result is a sum over its taps, brought
   to a code by one multiplication; every second convolution of a block then adds the residual.

       input     32 x 32 x 3                   the caller's bytes, or their codes by table
       conv1     32 x 32 x 16      27 taps     codes, not below that of 0: ReLU
       block 1   32 x 32 x 16     144, 144
       block 2   16 x 16 x 32     144, 288     and a shortcut of 16
       block 3    8 x  8 x 64     288, 576     and a shortcut of 32
       pool       1 x  1 x 64      64 pixels
       fc         1 x  1 x 10      64 taps     real numbers, the logits; or codes */
struct ptq_session {
    const ptq_plan *plan;
    const ptq__layout *layout;
    ptq_session_options options;
    const void *input; /* node 0's tensor, perhaps the caller's; NULL before the first run */
    char *arena;
    void *owned; /* memory from the allocator; NULL where it is the caller's */
};

/* The session and its arena, and room to align both. How large the arena is, and why no larger, is
   told where it is laid out, in [PLAN]. */
PTQ_API size_t ptq_session_bytes(const ptq_plan *plan, const ptq_session_options *options) {
    const ptq__layout *layout = &plan->layout[options && options->keep];
    return ptq__align(sizeof(ptq_session)) + layout->size + PTQ__ALIGN;
}

/* The session lies at the beginning of its own memory, the arena behind it, both on cache lines:
   the caller's memory may begin anywhere, and a device without an allocator hands over a static
   array. The arena needs no clearing, since every step writes before another reads. */
PTQ_API ptq_status ptq_session_create(const ptq_plan *plan, const ptq_session_options *options,
                                      ptq_session **out, ptq_error *err) {
    size_t size = ptq_session_bytes(plan, options);
    ptq_session_options given;
    memset(&given, 0, sizeof given);
    if (options)
        given = *options;
    void *memory = given.memory;
    PTQ__FAIL_IF(memory && given.memory_size < size, PTQ_OUT_OF_MEMORY,
                 "the session needs %zu bytes, given are %zu", size, given.memory_size);
    if (!memory)
        PTQ__TRY(ptq__alloc(&given.allocator, size, 1, "session", &memory, err));
    size_t before = (PTQ__ALIGN - (uintptr_t)memory % PTQ__ALIGN) % PTQ__ALIGN;
    ptq_session *session = (ptq_session *)(void *)((char *)memory + before);
    memset(session, 0, sizeof *session);
    session->plan = plan;
    session->layout = &plan->layout[given.keep != 0];
    session->options = given;
    session->arena = (char *)session + ptq__align(sizeof *session);
    session->owned = given.memory ? NULL : memory;
    *out = session;
    return PTQ_OK;
}

/* The plan stays: other sessions may use it. */
PTQ_API void ptq_session_free(ptq_session *session) {
    if (session)
        ptq__free(&session->options.allocator, session->owned);
}

/* One for the library's own use, which may keep every tensor. */
static ptq_status ptq__session_of(const ptq_plan *plan, const ptq_allocator *allocator, int keep,
                                  ptq_session **out, ptq_error *err) {
    ptq_session_options options;
    memset(&options, 0, sizeof options);
    options.allocator = *allocator;
    options.keep = keep;
    return ptq_session_create(plan, &options, out, err);
}

/* H x W x C bytes -> H x W x C real numbers, (pixel - mean[c]) / std[c]. */
PTQ_API void ptq_preprocess(const ptq_model *model, const uint8_t *pixels, float *out) {
    const int *shape = model->node[0].shape;
    int n = shape[0] * shape[1], channels = shape[2];
    for (int i = 0; i < n; i++)
        for (int c = 0; c < channels; c++)
            *out++ = ptq__pixel(model, c, *pixels++);
}

/* The first of equals, so that every caller breaks ties alike. n is at least 1. */
PTQ_API int ptq_argmax(const float *values, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* Node 0's tensor for one item, H x W x C, of the caller's type:

       PTQ_TYPE_U8      real model      (pixel - mean[c]) / std[c]
                        codes           by table; as they are, but for a flip, where there is none
       PTQ_TYPE_F32     real input      (x - mean[c]) / std[c], if that changes anything
                        real model      as they are: preprocessed already
                        codes           quantized, each

   What need not change is used where it lies, and only copied where the caller may look at it
   later. */
static const void *ptq__load_item(const ptq_session *session, ptq_type type, const void *item) {
    const ptq_plan *plan = session->plan;
    const ptq_node *input = &plan->info.model->node[0];
    const uint8_t *pixel = (const uint8_t *)item;
    const float *real = (const float *)item;
    void *buffer = session->arena + session->layout->offset[0];
    uint8_t *code = (uint8_t *)buffer, *table;
    size_t i, c, n = plan->info.pixels, channels = (size_t)input->shape[2];
    int coded = ptq__is_coded(input), raw = input->real && !ptq__is_plain(plan->info.model);
    int flipped = coded && !plan->table;
    int as_is = type == PTQ_TYPE_F32 ? !coded && !raw : flipped && !plan->flip;
    if (as_is && !session->options.keep)
        return item;
    if (as_is)
        memcpy(buffer, item, n * (coded ? 1 : sizeof(float)));
    else if (raw)
        for (i = 0; i < n; i++)
            ((float *)buffer)[i] = ptq__pixel(plan->info.model, (int)(i % channels), real[i]);
    else if (!coded)
        ptq__preprocess(plan, pixel, (float *)buffer);
    else if (type == PTQ_TYPE_F32)
        for (i = 0; i < n; i++)
            code[i] = (uint8_t)ptq_quantize(real[i], &input->q);
    else if (flipped)
        ptq__flip(pixel, n, plan->flip, code);
    else
        for (c = 0; c < channels; c++) /* one table, one channel at a time */
            for (table = plan->table + c * 256, i = c; i < n; i += channels)
                code[i] = table[pixel[i]];
    return buffer;
}

/* The result of a node, as the last run left it; later nodes may have been written over it, unless
   the session keeps all. */
static const void *ptq__result(const ptq_session *session, int node) {
    return node == 0 ? session->input : session->arena + session->layout->offset[node];
}

/* Where a step works in the session's memory. in: the results of the nodes before it. out: its own
   place, which is in[1] where a convolution is written over its residual, and in[0] where an
   element-wise result is. mid: behind out, and only where intermediates are kept: elsewhere the sum
   before a fused addition is never stored, which is what the fusion saves. Scratch is shared by all
   steps, and its contents are of no meaning to the next. */
static ptq__frame ptq__frame_of(const ptq_session *session, int index) {
    const ptq_node *node = session->plan->step[index].node;
    ptq__frame frame;
    char *out = session->arena + session->layout->offset[index];
    for (int k = 0; k < 2; k++)
        frame.in[k] = node->input[k] < 0 ? NULL : ptq__result(session, node->input[k]);
    frame.out = out;
    frame.mid = session->options.keep && node->residual ? out + ptq__node_bytes(node) : NULL;
    frame.scratch = session->arena + session->layout->scratch;
    frame.no_code = NULL;
    return frame;
}

/* One item, PTQ_TYPE_U8 pixels or PTQ_TYPE_F32 real numbers, H x W x C, through the nodes before
   `end`. This loop is all that happens to an image: the order of the nodes is the order in which
   they run, and the kernel was chosen with the plan. One thing can still fail: real numbers that
   become codes in the middle of a network may have left the range of floats. */
static ptq_status ptq__run_until(ptq_session *session, ptq_type type, const void *item, int end,
                                 ptq_error *err) {
    const ptq_session_options *options = &session->options;
    const ptq__step *step = session->plan->step;
    int no_code = 0;
    session->input = ptq__load_item(session, type, item);
    for (int i = 0; i < end; i++) {
        ptq__frame frame = ptq__frame_of(session, i);
        frame.no_code = &no_code;
        if (i > 0)
            step[i].run(&step[i], &frame);
        PTQ__FAIL_IF(no_code, PTQ_BAD_NUMBER,
                     "node %s: its input has an infinity or a NaN, for which there is no code;"
                     " the network overflows on this image",
                     step[i].node->name);
        if (options->after_node)
            options->after_node(options->user, i);
    }
    return PTQ_OK;
}

/* The node whose result is the logits as codes: the last one, or the one before that makes them
   real numbers. -1 if they never were codes. */
static int ptq__coded_logits(const ptq_plan_info *info) {
    const ptq_node *node = &info->model->node[info->logits];
    int real = ptq__operator_of(node)->codes == PTQ__FROM_CODES;
    int index = real ? node->input[0] : info->logits;
    return ptq__is_coded(&info->model->node[index]) ? index : -1;
}

/* Element i of a node's result as a real number: scale (code - zero_point), or the number
   itself. */
static float ptq__real(const ptq_node *node, const void *data, int i) {
    return ptq__is_coded(node) ? ptq_dequantize(ptq__load(data, i, node->q.type), &node->q)
                               : ((const float *)data)[i];
}

/* What is wanted of the last image, into row `item` of `out`: logits, as real numbers and as codes;
   the shares that softmax makes of them; the class with the largest, of equals the first. */
static void ptq__read_result(const ptq_session *session, size_t item, const ptq_results *out) {
    const ptq_plan_info *info = &session->plan->info;
    const ptq_node *node = &info->model->node[info->logits];
    const void *result = ptq__result(session, info->logits);
    int coded = ptq__coded_logits(info), n = info->classes, best = 0;
    float *share = out->probabilities ? out->probabilities + item * (size_t)n : NULL;
    for (int c = 0; c < n; c++) {
        size_t at = item * (size_t)n + (size_t)c;
        float value = ptq__real(node, result, c);
        if (out->logits)
            out->logits[at] = value;
        if (share)
            share[c] = value;
        if (out->codes)
            out->codes[at] =
                ptq__load(ptq__result(session, coded), c, info->model->node[coded].q.type);
        best = value > ptq__real(node, result, best) ? c : best;
    }
    if (share)
        ptq__softmax(share, share, n, 0);
    if (out->classes)
        out->classes[item] = best;
}

/* Real numbers are looked at first: no code stands for a NaN. */
static ptq_status ptq__check_reals(const void *item, size_t n, size_t index, ptq_error *err) {
    const float *x = (const float *)item;
    for (size_t i = 0; i < n; i++)
        PTQ__FAIL_IF(!ptq__is_finite(x[i]), PTQ_BAD_NUMBER, "input %zu of item %zu is %g", i, index,
                     (double)x[i]);
    return PTQ_OK;
}

/* One item after the other, each with the whole arena to itself. Steps behind the logits (a
   softmax) run only where their results are kept or asked for. Codes exist where the last layer was
   converted with code_logits, even if a dequantize makes real numbers of them again. An item that
   fails ends the run; rows before it are written, and right. */
PTQ_API ptq_status ptq_run_items(ptq_session *session, ptq_type type, const void *items,
                                 size_t count, const ptq_results *out, ptq_error *err) {
    const ptq_plan_info *info = &session->plan->info;
    int end = session->options.keep || ptq_model_output(info->model, 2) >= 0 ? info->model->nodes
                                                                             : info->logits + 1;
    int real = type == PTQ_TYPE_F32;
    PTQ__FAIL_IF(!items && count, PTQ_INVALID_ARGUMENT, "no %s given",
                 real ? "input is" : "pixels are");
    PTQ__FAIL_IF(!real && type != info->type, PTQ_INVALID_ARGUMENT,
                 "the model takes %s items, these are %s", ptq_name(PTQ_NAMES_TYPE, info->type),
                 ptq_name(PTQ_NAMES_TYPE, (unsigned)type));
    PTQ__FAIL_IF(out->codes && ptq__coded_logits(info) < 0, PTQ_UNSUPPORTED,
                 "the logits of this model are real numbers; convert it with code_logits");
    for (size_t i = 0; i < count; i++) {
        const void *item = (const char *)items + i * info->pixels * (real ? sizeof(float) : 1);
        if (real)
            PTQ__TRY(ptq__check_reals(item, info->pixels, i, err));
        PTQ__TRY(ptq__run_until(session, type, item, end, err));
        ptq__read_result(session, i, out);
    }
    return PTQ_OK;
}

/* One item after the other: the arena holds the results of the last one alone. Results of codes are
   read as what they stand for. */
PTQ_API ptq_status ptq_run_outputs(ptq_session *session, ptq_type type, const void *items,
                                   size_t count, float *const *out, ptq_error *err) {
    const ptq_plan_info *info = &session->plan->info;
    size_t bytes = info->pixels * (type == PTQ_TYPE_F32 ? sizeof(float) : 1);
    ptq_results none = {NULL, NULL, NULL, NULL};
    for (size_t i = 0; i < count; i++) {
        const char *item = items ? (const char *)items + i * bytes : NULL;
        PTQ__TRY(ptq_run_items(session, type, item, 1, &none, err));
        for (int k = 0, node; (node = ptq_model_output(info->model, k + 1)) >= 0; k++) {
            int n = (int)ptq__shape_elements(3, info->model->node[node].shape);
            for (int e = 0; e < n && out[k]; e++)
                out[k][i * (size_t)n + (size_t)e] =
                    ptq__real(&info->model->node[node], ptq__result(session, node), e);
        }
    }
    return PTQ_OK;
}

/* Three short forms, for bytes, for real numbers, and for the answer alone. */
PTQ_API ptq_status ptq_run(ptq_session *session, const uint8_t *pixels, size_t count, float *logits,
                           float *probabilities, ptq_error *err) {
    ptq_results out = {logits, probabilities, NULL, NULL};
    return ptq_run_items(session, PTQ_TYPE_U8, pixels, count, &out, err);
}

PTQ_API ptq_status ptq_run_f32(ptq_session *session, const float *input, size_t count,
                               float *logits, float *probabilities, ptq_error *err) {
    ptq_results out = {logits, probabilities, NULL, NULL};
    return ptq_run_items(session, PTQ_TYPE_F32, input, count, &out, err);
}

PTQ_API ptq_status ptq_classify(ptq_session *session, const uint8_t *pixels, size_t count,
                                int *classes, ptq_error *err) {
    ptq_results out = {NULL, NULL, NULL, classes};
    return ptq_run_items(session, PTQ_TYPE_U8, pixels, count, &out, err);
}

/* `name` of a node with a fused addition means what it was before the addition, `out` what it is
   after it; of all others both are the same tensor. The view points into the arena. */
PTQ_API ptq_status ptq_session_tensor(const ptq_session *session, const char *name,
                                      ptq_tensor *view, ptq_error *err) {
    const ptq_model *model = session->plan->info.model;
    int index = ptq_model_find(model, name), middle;
    const ptq_node *node = &model->node[index < 0 ? 0 : index];
    PTQ__FAIL_IF(!session->options.keep || !session->input, PTQ_NOT_READY,
                 "tensor %s: the session must be made with `keep`, and have run", name);
    PTQ__FAIL_IF(index < 0, PTQ_INVALID_ARGUMENT, "there is no tensor named %s",
                 ptq__quoted(ptq__span_of(name)).text);
    middle = node->residual && strcmp(name, node->out);
    const ptq_qparams *q = middle ? &node->mid : &node->q;
    ptq__frame frame = ptq__frame_of(session, index);
    PTQ__TRY(ptq_tensor_borrow(view, q->type, 0, 3, node->shape, middle ? frame.mid : frame.out,
                               ptq__node_bytes(node), err));
    if (q->type != PTQ_TYPE_F32) { /* the model's own scale: the view owns nothing */
        view->scale = (float *)(uintptr_t)&q->scale;
        view->scales = 1;
        view->zero_point = q->zero_point;
        view->bits = 8;
    }
    return PTQ_OK;
}

/* ---- [CHANCE] -----------------------------------------------------------------------------------
   Random numbers, and hashes. Own code, since rand() is another one with every C library, while the
   same images must be drawn everywhere for the same model to come out. PCG32 (O'Neill 2014) keeps
   64 bits of state, a linear congruential generator, and returns 32 of them, shifted and rotated by
   the highest ones, which are the most random. */
PTQ_API uint32_t ptq_rng_next(ptq_rng *rng) {
    uint64_t old = rng->state;
    uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27), rotation = (uint32_t)(old >> 59);
    rng->state = old * 6364136223846793005u + rng->increment;
    return (shifted >> rotation) | (shifted << ((32 - rotation) & 31));
}

/* The increment must be odd, and names the stream: streams of one seed have nothing in common. */
PTQ_API void ptq_rng_seed(ptq_rng *rng, uint64_t seed, uint64_t stream) {
    rng->state = 0;
    rng->increment = stream << 1 | 1;
    ptq_rng_next(rng);
    rng->state += seed;
    ptq_rng_next(rng);
}

/* A number under 2^32 mod bound is drawn again: those that are left divide evenly, and no remainder
   comes more often than another. */
PTQ_API uint32_t ptq_rng_below(ptq_rng *rng, uint32_t bound) {
    uint32_t threshold = ((uint32_t)0 - bound) % bound, value;
    do
        value = ptq_rng_next(rng);
    while (value < threshold);
    return value % bound;
}

/* The upper 24 bits, as many as a float's mantissa has, over 2^24: every result is exact, and 1 is
   none of them. */
PTQ_API float ptq_rng_float(ptq_rng *rng) {
    return (float)(ptq_rng_next(rng) >> 8) * (1.0f / 16777216.0f);
}

/* FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv), byte by byte: exclusive or, then a
   multiplication that carries each bit upwards. Good against accidents, not against an enemy: who
   wants two images of one hash can make them. */
static const uint64_t ptq__fnv_start = 14695981039346656037u;

/* Goes on from `hash`, ptq__fnv_start or what an earlier call returned. */
static uint64_t ptq__fnv(uint64_t hash, const void *bytes, size_t size) {
    const uint8_t *p = (const uint8_t *)bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ p[i]) * 1099511628211u;
    return hash;
}

#ifndef PTQ_RUN_ONLY
/* ---- [WORK] -------------------------------------------------------------------------------------
   Calibration, evaluation and learning all do the same: they run a plan over a data set and note
   something about every item. A job says what:

       begin    once for each worker: makes what that one notes down on its own
       one      for each item: runs it, and notes
       end      once for each worker: adds its notes to those of all, and releases them

   With PTQ_THREADS several workers take the items one by one, so that none waits long for the last
   to finish; each has a session and room for an item of its own. Who gets which items is left to
   chance, so what a job notes must not depend on it: counts, exact sums (see [OBSERVE]), or a place
   of its own for every item. Then the result has the same bytes with any number of threads. */

/* One thread's share of a job. */
typedef struct ptq__worker {
    ptq_session *session;
    void *item;    /* the one at hand: H x W x C bytes or floats, see ptq_dataset.type */
    void *own;     /* what `begin` made */
    int is_caller; /* it runs on the thread that called the library */
} ptq__worker;

/* What is to be done with a data set, by whom, and how far it is. Callers fill in what stands above
   `next`; the rest is the workers'. */
struct ptq__job {
    const ptq_plan *plan;
    const ptq_dataset *data;
    ptq_work work;
    size_t total; /* the first so many items */
    int keep;     /* sessions keep intermediates */
    int labelled; /* an item without a label is an error */
    ptq_status (*begin)(ptq__job *job, ptq__worker *worker, ptq_error *err); /* may be NULL */
    ptq_status (*one)(ptq__job *job, ptq__worker *worker, size_t index, int label, ptq_error *err);
    ptq_status (*end)(ptq__job *job, ptq__worker *worker, ptq_error *err); /* locked; may be NULL */
    void *context;     /* of all workers together: what `one` and `end` write to */
    size_t next, done; /* items handed out, items finished */
    ptq_status status; /* the first failure stops all */
    ptq_error error;
#ifdef PTQ_THREADS
    pthread_mutex_t lock; /* of the members from `next` on */
#endif
};

/* Elements of an item, H W C of them, and its bytes: one for each, or four of a real number. */
static size_t ptq__item_elements(const ptq_dataset *data) {
    return (size_t)data->height * (size_t)data->width * (size_t)data->channels;
}

static size_t ptq__item_size(const ptq_dataset *data) {
    return ptq__item_elements(data) * (data->type == PTQ_TYPE_F32 ? sizeof(float) : 1);
}

/* Data sets come from callers, who fill the struct by hand: what they left out is said before it is
   divided by, or called. */
static ptq_status ptq__check_dataset(const ptq_dataset *data, ptq_error *err) {
    PTQ__FAIL_IF(!data || !data->count, PTQ_BAD_DATA, "the data set has no images");
    PTQ__FAIL_IF(!data->get || data->height < 1 || data->width < 1 || data->channels < 1 ||
                     data->classes < 1 || (data->type != PTQ_TYPE_U8 && data->type != PTQ_TYPE_F32),
                 PTQ_INVALID_ARGUMENT,
                 "the data set is incomplete: items of %dx%dx%d %s (PTQ_TYPE_U8 or PTQ_TYPE_F32), "
                 "%d classes",
                 data->height, data->width, data->channels,
                 ptq_name(PTQ_NAMES_TYPE, (unsigned)data->type), data->classes);
    return PTQ_OK;
}

/* Whether these are images that the plan can take, with the classes that it knows. Images of
   another size are not brought to the model's here: how, by cropping or stretching, is a choice
   that belongs to training, and a wrong one costs accuracy that nobody would look for there. */
static ptq_status ptq__check_fits(const ptq_plan *plan, const ptq_dataset *data, ptq_error *err) {
    const int *shape = plan->info.model->node[0].shape;
    PTQ__TRY(ptq__check_dataset(data, err));
    PTQ__FAIL_IF(data->height != shape[0] || data->width != shape[1] || data->channels != shape[2],
                 PTQ_BAD_DATA, "the images are %dx%dx%d, the model takes %dx%dx%d", data->height,
                 data->width, data->channels, shape[0], shape[1], shape[2]);
    PTQ__FAIL_IF(plan->info.type == PTQ_TYPE_F32 && data->type != PTQ_TYPE_F32, PTQ_BAD_DATA,
                 "the data are bytes (U8), the model takes real numbers (F32), its input says"
                 " type=f32");
    PTQ__FAIL_IF(data->classes != plan->info.classes, PTQ_BAD_DATA,
                 "the data have %d classes, the model has %d", data->classes, plan->info.classes);
    return PTQ_OK;
}

/* One item of a data set, and its label, -1 where there is none. Labels are checked whenever they
   come, since they are used as indices; real numbers, since only here their item has its number. */
static ptq_status ptq__get_item(const ptq_dataset *data, size_t index, void *item, int *label,
                                ptq_error *err) {
    PTQ__TRY(data->get(data->user, index, item, label, err));
    PTQ__FAIL_IF(*label < -1 || *label >= data->classes, PTQ_BAD_DATA,
                 "image %zu has label %d of %d classes", index, *label, data->classes);
    return data->type == PTQ_TYPE_F32 ? ptq__check_reals(item, ptq__item_elements(data), index, err)
                                      : PTQ_OK;
}

/* One item through a session, as bytes or as real numbers. `logits`, one for each class, may be
   NULL: where intermediates are what counts. */
static ptq_status ptq__run_item(ptq_session *session, const ptq_dataset *data, const void *item,
                                float *logits, ptq_error *err) {
    ptq_results out = {logits, NULL, NULL, NULL};
    return ptq_run_items(session, data->type, item, 1, &out, err);
}

/* A job over all items, to which the caller adds what is to be done. `work` may be NULL. A struct
   by value, since jobs live no longer than the function that runs them. */
static ptq__job ptq__job_over(const ptq_plan *plan, const ptq_dataset *data, const ptq_work *work) {
    ptq__job job;
    memset(&job, 0, sizeof job);
    job.plan = plan;
    job.data = data;
    job.total = data->count;
    if (work)
        job.work = *work;
    return job;
}

/* What workers share is little, and changes once an item; so one lock is enough. */
#ifdef PTQ_THREADS
static void ptq__lock(ptq__job *job) { pthread_mutex_lock(&job->lock); }
static void ptq__unlock(ptq__job *job) { pthread_mutex_unlock(&job->lock); }
#else
static void ptq__lock(ptq__job *job) { (void)job; }
static void ptq__unlock(ptq__job *job) { (void)job; }
#endif

/* Takes the next item; 0 when there is none, or the work has stopped. Under the lock, so that no
   item is run twice, and none is left out. */
static int ptq__job_take(ptq__job *job, size_t *index) {
    ptq__lock(job);
    int some = !job->status && job->next < job->total;
    *index = job->next;
    job->next += (size_t)some;
    ptq__unlock(job);
    return some;
}

/* Tells the caller how far the work is, and hears whether it is to stop. Only the thread that
   called the library does so: callbacks need not be made for threads. */
static ptq_status ptq__job_tell(const ptq__job *job, size_t done, ptq_error *err) {
    PTQ__FAIL_IF(job->work.progress && job->work.progress(job->work.user, done, job->total),
                 PTQ_CANCELLED, "cancelled after %zu of %zu images", done, job->total);
    return PTQ_OK;
}

/* All that one worker does between `begin` and `end`. A failure returns at once; others hear of it
   when they ask for their next item. */
static ptq_status ptq__job_loop(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    size_t i, done;
    while (ptq__job_take(job, &i)) {
        int label = -1;
        PTQ__TRY(ptq__get_item(job->data, i, worker->item, &label, err));
        PTQ__FAIL_IF(job->labelled && label < 0, PTQ_BAD_DATA,
                     "image %zu has no label to compare the answer with", i);
        PTQ__TRY(job->one(job, worker, i, label, err));
        ptq__lock(job);
        done = ++job->done;
        ptq__unlock(job);
        if (worker->is_caller)
            PTQ__TRY(ptq__job_tell(job, done, err));
    }
    return PTQ_OK;
}

/* The first failure is the one that is reported: others are often only its consequences. Under the
   lock, too: two workers may fail at once. */
static void ptq__job_fail(ptq__job *job, ptq_status status, const ptq_error *error) {
    if (!status || job->status)
        return;
    job->status = status;
    job->error = *error;
}

/* What each thread does, with a session and room for an item of its own. `end` is called even after
   a failure: it releases what `begin` made. */
static void ptq__job_work(ptq__job *job, int is_caller) {
    const ptq_allocator *allocator = &job->work.allocator;
    ptq__worker worker;
    ptq_error error = {PTQ_OK, ""}, *err = &error;
    memset(&worker, 0, sizeof worker);
    worker.is_caller = is_caller;
    ptq_status status = ptq__session_of(job->plan, allocator, job->keep, &worker.session, err);
    PTQ__THEN(status,
              ptq__alloc(allocator, ptq__item_size(job->data), 1, "an image", &worker.item, err));
    if (job->begin)
        PTQ__THEN(status, job->begin(job, &worker, err));
    PTQ__THEN(status, ptq__job_loop(job, &worker, err));
    ptq__lock(job);
    ptq__job_fail(job, status, &error);
    if (job->end)
        ptq__job_fail(job, job->end(job, &worker, &error), &error);
    ptq__unlock(job);
    ptq__free(allocator, worker.item);
    ptq_session_free(worker.session);
}

/* ptq__job_spread lets the caller work, and as many threads as were asked for: see part three. The
   caller may have finished before the last of them: it is told once more, that all is done. */
static ptq_status ptq__job_run(ptq__job *job, ptq_error *err) {
    ptq__job_spread(job);
    PTQ__FAIL_IF(job->status, job->status, "%s", job->error.text);
    return job->work.threads > 1 ? ptq__job_tell(job, job->done, err) : PTQ_OK;
}

/* ---- [OBSERVE] ----------------------------------------------------------------------------------
   Before a tensor can be coded, the range of its values must be known. An observer looks at the
   tensor on every calibration image and keeps the smallest and the largest value, the sums over
   images of each image's extremes, and a histogram. From these seven rules then read a range. What
   is best is a matter of the data. Read on: Wu et al., "Integer Quantization for Deep Learning
   Inference: Principles and Empirical Evaluation", 2020, https://arxiv.org/abs/2004.09602;
   Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference: A whitepaper",
   2018, https://arxiv.org/abs/1806.08342.

   What is kept depends on the multiset of images alone: neither their order nor the number of
   threads among which they were shared shows in a single bit. Hence exact sums instead of floating
   ones, and bins whose width is a power of two that the largest magnitude decides. */

/* Exact sums. Floats round at every addition, and so their sum depends on its order; integers do
   not. A float is an integer m of 24 bits times 2^(shift - 149), with 0 <= shift <= 253: in units
   of 2^-149, the smallest float there is, it is an integer, and ten limbs of 32 bits hold any sum.
   Its bits fall into two neighbouring limbs, above which 31 bits are left for carries that wait. */
static void ptq__exact_add(ptq_exact_sum *sum, float value) {
    uint32_t bits;
    int exponent, shift;
    memcpy(&bits, &value, sizeof bits);
    exponent = (int)(bits >> 23 & 255);
    shift = exponent ? exponent - 1 : 0; /* numbers below the normal ones have the same unit */
    uint64_t wide = (uint64_t)((bits & 0x7fffffu) | (exponent ? 0x800000u : 0)) << shift % 32;
    int64_t sign = bits >> 31 ? -1 : 1;
    sum->limb[shift / 32] += sign * (int64_t)(wide & 0xffffffffu);
    sum->limb[shift / 32 + 1] += sign * (int64_t)(wide >> 32);
}

/* Adds, and carries so that equal sums have equal limbs: all but the last in 0..2^32 - 1. */
static void ptq__exact_merge(ptq_exact_sum *sum, const ptq_exact_sum *other) {
    int64_t carry = 0, low;
    for (int i = 0; i < 10; i++) {
        sum->limb[i] += other->limb[i] + carry;
        low = i < 9 ? sum->limb[i] & (int64_t)0xffffffff : sum->limb[i];
        carry = (sum->limb[i] - low) / ((int64_t)1 << 32);
        sum->limb[i] = low;
    }
}

/* The sum in double precision, from the largest limb down: the only rounding there is. */
static double ptq__exact_value(const ptq_exact_sum *sum) {
    double value = 0;
    for (int i = 9; i >= 0; i--)
        value += ldexp((double)sum->limb[i], 32 * i - 149);
    return value;
}

/* Bins begin as narrow as a bin can be, 2^-149, and widen as values ask for it. */
PTQ_API ptq_status ptq_observer_create(ptq_observer *observer, const ptq_allocator *allocator,
                                       ptq_error *err) {
    uint64_t *bin = NULL;
    PTQ__TRY(PTQ__NEW(allocator, &bin, PTQ_BINS, "observer", err));
    memset(observer, 0, sizeof *observer);
    observer->bin = bin;
    observer->exponent = -149;
    observer->allocator = ptq__allocator(allocator);
    return PTQ_OK;
}

/* A second time does nothing; what was counted in the struct itself stays readable. */
PTQ_API void ptq_observer_free(ptq_observer *observer) {
    if (!observer)
        return;
    ptq__free(&observer->allocator, observer->bin);
    observer->bin = NULL;
}

/* Bins. Bin b counts values in [(b - 2048) w, (b - 2047) w), w = 2^exponent: half of the bins are
   for values below 0, as many for those above. Zeros are counted on their own, since behind a ReLU
   they are the majority, and since they are coded without error whatever the range. When a value
   does not fit, w doubles and neighbours fall together; their edges stay multiples of w, and so the
   bins come out the same whether the large value is seen first or last. */
enum { PTQ__HALF_BINS = PTQ_BINS / 2 };

/* The smallest exponent e at which the value falls into a bin: -2^11 2^e <= value < 2^11 2^e. For
   1 it is -10, with bins of 1/1024 up to 2. No smaller one than -149 is needed, where each bin
   holds a single float. */
static int ptq__fitting_exponent(float value) {
    int e;
    double m = frexp((double)value, &e); /* value = m 2^e, 0.5 <= |m| < 1: 2^11 bins up to 2^e */
    if (m < 0 && !(m < -0.5))
        e--; /* -2^k lies in the lowest bin of the smaller range */
    return e - 11 < -149 || !(m < 0 || m > 0) ? -149 : e - 11;
}

/* The bin of a value that fits: floor(value / 2^exponent), counted from the middle. */
static int ptq__bin_of(float value, int exponent) {
    return (int)floor(ldexp((double)value, -exponent)) + PTQ__HALF_BINS;
}

/* The value at a place on the axis of bins: b is where bin b begins, b + 0.5 its middle, which
   stands for all that it counts. */
static double ptq__bin_value(const ptq_observer *s, double place) {
    return ldexp(place - (double)PTQ__HALF_BINS, s->exponent);
}

/* What bin b counts, the zeros included: they belong to the bin that begins at 0. */
static double ptq__bin_count(const ptq_observer *s, int b) {
    return (double)s->bin[b] + (b == PTQ__HALF_BINS ? (double)s->zeros : 0);
}

/* Where a bin lies once the bins are 2^shift times as wide: counted from the middle, bins 0 and 1
   become bin 0, and bins -1 and -2 become bin -1. */
static int ptq__wider_bin(int bin, int shift) {
    int from_zero = bin - PTQ__HALF_BINS;
    shift = shift > 12 ? 12 : shift; /* more moves nothing any further */
    if (from_zero < 0)               /* floor, without shifting a negative number */
        return PTQ__HALF_BINS - 1 - ((-1 - from_zero) >> shift);
    return PTQ__HALF_BINS + (from_zero >> shift);
}

/* Widens the bins to 2^exponent, from the middle outwards: what is moved into has moved before. The
   counts are then those of bins that had been so wide from the start. */
static void ptq__widen(ptq_observer *s, int exponent) {
    int shift = exponent - s->exponent;
    if (shift <= 0)
        return;
    s->exponent = exponent;
    for (int i = 0; i < PTQ_BINS; i++) {
        int b = i < PTQ__HALF_BINS ? PTQ__HALF_BINS + i : PTQ_BINS - 1 - i;
        uint64_t count = s->bin[b];
        s->bin[b] = 0;
        s->bin[ptq__wider_bin(b, shift)] += count;
    }
}

/* All that two observations have in common but the bins, which are then wide enough for both. */
static void ptq__add_seen(ptq_observer *s, const ptq_observer *seen) {
    ptq__widen(s, seen->exponent);
    s->min = !s->count || seen->min < s->min ? seen->min : s->min;
    s->max = !s->count || seen->max > s->max ? seen->max : s->max;
    s->count += seen->count;
    s->zeros += seen->zeros;
    s->images += seen->images;
    ptq__exact_merge(&s->min_sum, &seen->min_sum);
    ptq__exact_merge(&s->max_sum, &seen->max_sum);
}

/* values: n of one image's tensor, whatever its shape. A failure must change nothing, hence all are
   looked at first. Then come their extremes, which decide how wide the bins must be, and each value
   is counted in bin floor(x / 2^exponent). The division is a multiplication, exact since it is by a
   power of two, and floor is spelled out: both for speed, as calibration counts each activation. */
PTQ_API ptq_status ptq_observe(ptq_observer *observer, const float *values, size_t n,
                               ptq_error *err) {
    ptq_observer seen;
    PTQ__FAIL_IF(!n, PTQ_INVALID_ARGUMENT, "an observer was shown 0 values");
    memset(&seen, 0, sizeof seen);
    seen.count = n;
    seen.images = 1;
    seen.min = seen.max = values[0];
    for (size_t i = 0; i < n; i++) {
        PTQ__FAIL_IF(!ptq__is_finite(values[i]), PTQ_BAD_NUMBER, "value %zu is %g", i,
                     (double)values[i]);
        seen.min = values[i] < seen.min ? values[i] : seen.min;
        seen.max = values[i] > seen.max ? values[i] : seen.max;
    }
    ptq__exact_add(&seen.min_sum, seen.min);
    ptq__exact_add(&seen.max_sum, seen.max);
    int e_low = ptq__fitting_exponent(seen.min), e_high = ptq__fitting_exponent(seen.max);
    seen.exponent = e_low > e_high ? e_low : e_high;
    ptq__add_seen(observer, &seen);
    double bins_per_unit = ldexp(1, -observer->exponent);
    for (size_t i = 0; i < n; i++) {
        double x = (double)values[i] * bins_per_unit;
        int bin = (int)x;
        bin -= x < (double)bin; /* floor */
        if (x < 0 || x > 0)
            observer->bin[bin + PTQ__HALF_BINS]++;
        else
            observer->zeros++;
    }
    return PTQ_OK;
}

/* Adds what another observer saw, as if one had seen both: threads observe apart, and their parts
   come together in any order. Bins have only to be as wide as the wider ones of the two. */
static void ptq__observer_merge(ptq_observer *s, const ptq_observer *other) {
    if (!other->count)
        return;
    ptq__add_seen(s, other);
    for (int i = 0; i < PTQ_BINS; i++)
        s->bin[ptq__wider_bin(i, s->exponent - other->exponent)] += other->bin[i];
}

/* The share of values whose bin lies with its middle outside low..high. Zeros lie inside any range,
   which always holds 0. */
PTQ_API double ptq_observer_clipped(const ptq_observer *s, float low, float high) {
    uint64_t outside = 0;
    for (int b = 0; b < PTQ_BINS; b++)
        if (ptq__bin_value(s, b + 0.5) < (double)low || ptq__bin_value(s, b + 0.5) > (double)high)
            outside += s->bin[b];
    return s->count ? (double)outside / (double)s->count : 0;
}

/* Rules. Each starts from the whole range and may draw its ends in: values beyond are clipped, to
   an error that may be large, and all others are coded more finely. With b bits over low..high the
   step is

       s = (high - low) / (2^b - 1)

   and the squared error of a value about s^2 / 12 inside, (x - high)^2 beyond the upper end. What
   to give for what is the question to which each rule has an answer of its own. */
typedef struct ptq__range {
    const ptq_observer *s;
    ptq_type type; /* of the codes, with their bits */
    int bits, symmetric;
    double low, high; /* low <= 0 <= high */
    int from, to;     /* the whole range in bins; of a side without values only the 0 is left */
} ptq__range;

/* Draws the range in to the bins first..last; an end that lost no bin stays as it is. */
static void ptq__keep_bins(ptq__range *r, int first, int last) {
    if (first > r->from)
        r->low = ptq__bin_value(r->s, first);
    if (last < r->to)
        r->high = ptq__bin_value(r->s, last + 1);
}

/* PTQ_METHOD_MINMAX is the whole range itself: nothing is clipped. The largest error is the
   smallest that can be, but one outlier makes all other codes coarse (Wu et al. 2020).
   PTQ_METHOD_MOVING_AVERAGE: the mean over images of each one's extremes. Of the running average
   over batches (Jacob et al. 2018, 3.1; Krishnamoorthi 2018) it keeps the purpose, that one odd
   image does not decide the range, and not the dependence on the order of images.

   Squared error of all values in the whole range, in bin widths, when `levels` codes of width w
   each, in bins, cover the axis of bins from `first` on. A bin's values are taken to lie evenly in
   it: one that reaches from `begin` to `end`, measured from a code's centre, has the error
   count / 3 * (end^3 - begin^3). A bin that reaches over several codes is cut between them, each
   whole one giving 2/3 (w/2)^3; what is clipped belongs to the outermost code. b and e: the codes
   of a bin's two ends. zeros: whether they count with their bin. Stops where it passes `limit`. */
static double ptq__bins_error(const ptq__range *r, double first, double w, int levels, int zeros,
                              double limit) {
    double h = w / 2, sum = 0;
    for (int bin = r->from; (bin <= r->to || bin == PTQ__HALF_BINS) && !(sum > limit); bin++) {
        double count = zeros ? ptq__bin_count(r->s, bin) : (double)r->s->bin[bin];
        double begin = bin - first, end = begin + 1, b, e;
        if (!(count > 0))
            continue;
        b = floor(begin / w);
        e = floor(end / w);
        b = b < 0 ? 0 : b > levels - 1 ? levels - 1 : b;
        e = e < 0 ? 0 : e > levels - 1 ? levels - 1 : e;
        begin -= b * w + h;
        end -= e * w + h;
        if (b >= e)
            sum += count / 3 * (end * end * end - begin * begin * begin);
        else
            sum += count / 3 *
                   ((h * h * h - begin * begin * begin) + (e - b - 1) * 2 * h * h * h +
                    (end * end * end + h * h * h));
    }
    return sum;
}

/* The same for the codes that a range gets, around which each takes in half a step on either side.
   Exact zeros cost nothing, since 0 is always a code. */
static double ptq__codes_error(const ptq__range *r, double limit) {
    ptq_qparams q;
    int32_t low, high;
    if (ptq_choose_qparams((float)r->low, (float)r->high, r->type, r->bits, r->symmetric, &q, NULL))
        return HUGE_VAL;
    ptq_code_range(q.type, q.bits, &low, &high);
    double step = ldexp((double)q.scale, -r->s->exponent);
    return ptq__bins_error(r, PTQ_BINS / 2.0 + (low - q.zero_point - 0.5) * step, step,
                           high - low + 1, 0, limit);
}

/* Cuts 0.001 % of the values after the other off whichever end gives up more bins for them, up to
   half of all. Index 0 stands for the lower end, 1 for the upper.

   PTQ_METHOD_HISTOGRAM keeps the range of least squared error on that way, the whole range among
   them, and so can never be worse than that.

   PTQ_METHOD_HISTOGRAM_PYTORCH does what PyTorch's HistogramObserver does, and is there to compare
   with it: its error counts zeros as if they were rounded, and 2^bits codes that meet the range's
   ends with their edges; it stops as soon as that error grows, so that it may be caught in a
   hollow; and it takes the first cut whatever that costs: of 999 normal values and a 12 it clips
   the 12, for 12 dB where the whole range has 36. */
static void ptq__cut_tails(ptq__range *r, int pytorch) {
    const ptq_observer *s = r->s;
    double allowed[2] = {0, 0}, gone[2] = {0, 0}, sum[2]; /* how many values may go, have gone */
    double cut, error, best, share = 1e-5 * (double)s->count;
    int end[2], next[2], kept[2], side;
    end[0] = kept[0] = r->from;
    end[1] = kept[1] = r->high > 0 ? r->to : PTQ__HALF_BINS; /* the bin that zeros count with */
    best = pytorch ? HUGE_VAL : ptq__codes_error(r, HUGE_VAL);
    for (cut = 0; cut < 0.5 * (double)s->count; cut += share) {
        ptq__range now = *r;
        for (side = 0; side < 2; side++) {
            next[side] = end[side];
            for (sum[side] = gone[side];
                 next[side] != end[!side] &&
                 sum[side] + (double)s->bin[next[side]] < allowed[side] + share;
                 next[side] += side ? -1 : 1)
                sum[side] += (double)s->bin[next[side]];
        }
        side = next[0] - end[0] <= end[1] - next[1];
        allowed[side] += share;
        gone[side] = sum[side];
        if (next[side] == end[side])
            continue;
        end[side] = next[side];
        ptq__keep_bins(&now, end[0], end[1]);
        error = pytorch ? ptq__bins_error(r, end[0], (double)(end[1] - end[0] + 1) / (1 << r->bits),
                                          1 << r->bits, 1, HUGE_VAL)
                        : ptq__codes_error(&now, best);
        if (error > best && pytorch)
            break;
        if (error > best)
            continue;
        best = error;
        kept[0] = end[0];
        kept[1] = end[1];
    }
    ptq__keep_bins(r, kept[0], kept[1]);
}

/* The value below which a share of the values lies, to one bin; zeros included.

   PTQ_METHOD_PERCENTILE: a fixed share of the values is clipped at either end, whatever that does
   to the error (Wu et al. 2020). */
static double ptq__quantile(const ptq_observer *s, double share) {
    double want = share * (double)s->count, seen = 0;
    for (int b = 0; b < PTQ_BINS; b++) {
        seen += ptq__bin_count(s, b);
        if (seen >= want && seen > 0)
            return ptq__bin_value(s, b + 0.5);
    }
    return (double)s->max;
}

/* Kullback-Leibler divergence of the coded distribution q from the true one p,

       sum over bins of p log(p / q),

   for a range of whole bins first..last: how much is lost about which value it was (Migacz, "8-bit
   Inference with TensorRT", GTC 2017). What is clipped counts at the ends of p and is missing from
   q, which spreads each code's share evenly over those of its bins that had values. Exact zeros are
   no part of either, being coded without loss. A bin that p has and q has not would make the sum
   infinite; 1e-9 makes it large. */
static double ptq__divergence(const ptq_observer *s, int first, int last, int levels) {
    double p_sum, q_sum = 0, result = 0, below = 0, above = 0;
    int n = last - first + 1;
    for (int b = 0; b < PTQ_BINS; b++)
        *(b < first ? &below : b > last ? &above : &q_sum) += (double)s->bin[b];
    p_sum = below + q_sum + above;
    if (q_sum <= 0)
        return HUGE_VAL;
    for (int k = 0; k < levels; k++) {
        int from = first + (int)((int64_t)n * k / levels);
        int to = first + (int)((int64_t)n * (k + 1) / levels), filled = 0;
        double mass = 0;
        for (int b = from; b < to; b++) {
            mass += (double)s->bin[b];
            filled += s->bin[b] != 0;
        }
        for (int b = from; b < to; b++) {
            double p = (double)s->bin[b] + (b == first ? below : 0) + (b == last ? above : 0);
            double q = s->bin[b] ? mass / filled : 0;
            if (p > 0)
                result += p / p_sum * log(p / p_sum / (q > 0 ? q / q_sum : 1e-9));
        }
    }
    return result;
}

/* PTQ_METHOD_ENTROPY, the range of least divergence: first the upper end is drawn in, by
   hundredths, then the lower, as long as a bin is left for every code. Of equals the first wins. */
static void ptq__range_entropy(ptq__range *r) {
    int best_first = r->from, best_last = r->to, levels = 1 << r->bits;
    double error, best = ptq__divergence(r->s, r->from, r->to, levels);
    for (int side = 0; side < 2; side++)
        for (int k = 1; k < 100; k++) {
            int first = side ? r->from + (PTQ__HALF_BINS - r->from) * k / 100 : r->from;
            int last = side ? best_last : r->to - (r->to + 1 - PTQ__HALF_BINS) * k / 100;
            error = last - first + 1 < levels ? best : ptq__divergence(r->s, first, last, levels);
            if (error < best) {
                best = error;
                best_first = first;
                best_last = last;
            }
        }
    ptq__keep_bins(r, best_first, best_last);
}

/* Expected squared error of coding the values under a range,
       sum over bins of count * (x - dequantize(quantize(x)))^2, x the middle of the bin,
   which stops where it passes `limit`. Exact zeros cost nothing, since 0 is always a code. */
static double ptq__range_error(const ptq__range *r, double low, double high, double limit) {
    const double width = ldexp(1, r->s->exponent);
    ptq_qparams q;
    double sum = 0;
    if (high - low <= 0 ||
        ptq_choose_qparams((float)low, (float)high, r->type, r->bits, r->symmetric, &q, NULL))
        return HUGE_VAL;
    for (int b = 0; b < PTQ_BINS && sum < limit; b++) {
        double x, error;
        if (!r->s->bin[b])
            continue;
        x = ((double)(b - PTQ__HALF_BINS) + 0.5) * width; /* ptq__bin_value, without its cost */
        error = x - (double)ptq_dequantize(ptq_quantize((float)x, &q), &q);
        sum += (double)r->s->bin[b] * error * error;
    }
    return sum;
}

/* PTQ_METHOD_MSE: unlike HISTOGRAM it moves both ends at once. A grid over both, as shares of the
   whole range, then a finer one around the best point, twice: 21 x 21 points with steps of 1/20,
   1/160 and 1/1280. An end that is 0 stays so. */
static void ptq__range_mse(ptq__range *r) {
    const int steps = 20;
    double corner_low = 0, corner_high = 0, width = 1, best = HUGE_VAL, best_low = 1, best_high = 1;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i <= (r->low < 0 ? steps : 0); i++)
            for (int j = 0; j <= (r->high > 0 ? steps : 0); j++) {
                double l = fmin(corner_low + width * i / steps, 1);
                double h = fmin(corner_high + width * j / steps, 1), error = HUGE_VAL;
                if (l >= 0 && h >= 0)
                    error = ptq__range_error(r, r->low * l, r->high * h, best);
                if (error < best) {
                    best = error;
                    best_low = l;
                    best_high = h;
                }
            }
        width /= 8;
        corner_low = best_low - width / 2;
        corner_high = best_high - width / 2;
    }
    r->low *= best_low;
    r->high *= best_high;
}

/* Sets out from the whole range, which always includes 0, and leaves the rest to the rule. */
PTQ_API ptq_status ptq_observer_range(const ptq_observer *observer, ptq_method method,
                                      float percentile, ptq_type type, int bits, int symmetric,
                                      float *low, float *high, ptq_error *err) {
    ptq__range r;
    double percent = percentile > 0 ? (double)percentile : 99.99, share = percent / 100;
    PTQ__FAIL_IF(percent <= 50 || percent > 100 || (unsigned)method >= PTQ_METHOD_COUNT,
                 PTQ_INVALID_ARGUMENT, "method %d, percentile %g (over 50, at most 100)",
                 (int)method, percent);
    PTQ__FAIL_IF(!observer->count, PTQ_NOT_READY, "nothing was observed");
    r.s = observer;
    r.type = type;
    r.bits = bits;
    r.symmetric = symmetric;
    r.low = fmin((double)r.s->min, 0);
    r.high = fmax((double)r.s->max, 0);
    r.from = ptq__bin_of((float)r.low, r.s->exponent);
    r.to = r.high > 0 ? ptq__bin_of((float)r.high, r.s->exponent) : PTQ__HALF_BINS - 1;
    if (method == PTQ_METHOD_MOVING_AVERAGE) {
        r.low = ptq__exact_value(&r.s->min_sum) / (double)r.s->images;
        r.high = ptq__exact_value(&r.s->max_sum) / (double)r.s->images;
    } else if (method == PTQ_METHOD_PERCENTILE) {
        r.low = fmax(r.low, ptq__quantile(r.s, 1 - share));
        r.high = fmin(r.high, ptq__quantile(r.s, share));
    } else if (method == PTQ_METHOD_ENTROPY) {
        ptq__range_entropy(&r);
    } else if (method == PTQ_METHOD_MSE) {
        ptq__range_mse(&r);
    } else if (method != PTQ_METHOD_MINMAX) {
        ptq__cut_tails(&r, method == PTQ_METHOD_HISTOGRAM_PYTORCH);
    }
    *low = r.low < 0 ? (float)r.low : 0;
    *high = r.high > 0 ? (float)r.high : 0;
    return PTQ_OK;
}

/* ---- [CALIBRATE] --------------------------------------------------------------------------------
   Calibration runs the float model over images and observes every tensor that conversion may ask
   for. It also notes what tells whether the images were any good: how many there were of each
   class, how often each pixel value occurred, how much neighbouring pixels differ; and a hash of
   each image, so that evaluation can say whether it is measured on what was learned from.

       image -> float model -> each tensor -> its observer      range of the tensor
                            -> pixels, label, hash              whether to trust it

   A calibration is a sum: parts that saw different images are merged into what one would be that
   saw all. So workers need no lock while they observe, and users can calibrate in several runs.

   Hashes tell models and images apart. Numbers of `width` bytes enter byte by byte from the least,
   the same on every machine. */
static uint64_t ptq__fnv_numbers(uint64_t hash, const void *numbers, size_t count, size_t width) {
    uint8_t little[8];
    for (size_t i = 0; i < count; i++) {
        ptq__copy_le(little, (const uint8_t *)numbers + i * width, 1, (int)width);
        hash = ptq__fnv(hash, little, width);
    }
    return hash;
}

/* By which an item of a data set is known again. */
static uint64_t ptq__item_hash(const ptq_dataset *data, const void *item) {
    return ptq__fnv_numbers(ptq__fnv_start, item, ptq__item_elements(data),
                            data->type == PTQ_TYPE_F32 ? sizeof(float) : 1);
}

/* All that decides what a model computes: each node as its line in the graph text, then its
   parameters as numbers. Metadata are left out, for they do not change a range. By this a
   calibration knows its model: ranges of another one would fit no tensor, and nobody would see. */
PTQ_API uint64_t ptq_model_hash(const ptq_model *model) {
    uint64_t hash = ptq__fnv_start;
    char line[1024];
    for (int i = 0; i < model->nodes; i++) {
        ptq__text text = ptq__text_over(line, sizeof line);
        ptq__put_node(&text, model, &model->node[i]);
        hash = ptq__fnv(hash, line, strlen(line));
        for (int p = 0; p < PTQ_PARAM_COUNT; p++) {
            const ptq_tensor *param = &model->node[i].param[p];
            size_t width = param->bits >= 8 ? (size_t)param->bits / 8 : 1;
            if (param->rank)
                hash = ptq__fnv_numbers(hash, param->data, param->size / width, width);
        }
    }
    return hash;
}

/* An empty calibration; room for its tensors and hashes is made where their number is known. Of an
   observer the bins count most, 32 KB for each tensor, however many images there are. */
static ptq_status ptq__calibration_create(const ptq_allocator *allocator, int classes,
                                          ptq_calibration **out, ptq_error *err) {
    ptq_calibration *calibration = NULL;
    PTQ__TRY(PTQ__NEW(allocator, &calibration, 1, "calibration", err));
    calibration->allocator = ptq__allocator(allocator);
    calibration->classes = classes;
    ptq_status status =
        PTQ__NEW(allocator, &calibration->class_count, (size_t)classes, "calibration", err);
    PTQ__FINISH(status, ptq_calibration_free(calibration), calibration, out);
}

/* Of one that is half made, too: what is not there yet is NULL. */
PTQ_API void ptq_calibration_free(ptq_calibration *calibration) {
    if (!calibration)
        return;
    ptq_allocator allocator = calibration->allocator;
    for (int i = 0; i < calibration->tensors; i++)
        ptq_observer_free(&calibration->tensor[i].observer);
    ptq__free(&allocator, calibration->tensor);
    ptq__free(&allocator, calibration->hash);
    ptq__free(&allocator, calibration->class_count);
    ptq__free(&allocator, calibration);
}

/* By name and not by index: fusing and inserting nodes moves indices, names stay. */
PTQ_API int ptq_calibration_find(const ptq_calibration *calibration, const char *name) {
    for (int i = 0; i < calibration->tensors; i++)
        if (!strcmp(calibration->tensor[i].name, name))
            return i;
    return -1;
}

/* Adds a tensor that was observed or will be; there must be room. It is observed as a whole:
   activations are coded with one scale for the tensor, since a scale for each input channel could
   not be taken out of the sum over channels that a convolution is. */
static ptq_status ptq__calibration_add_tensor(ptq_calibration *calibration, const char *name,
                                              ptq_error *err) {
    ptq_calibrated *tensor = &calibration->tensor[calibration->tensors];
    PTQ__TRY(ptq_observer_create(&tensor->observer, &calibration->allocator, err));
    memcpy(tensor->name, name, strlen(name) + 1);
    calibration->tensors++;
    return PTQ_OK;
}

/* Every tensor that conversion may ask for: results, and results before a fused addition. Not an
   input of pixels, whose range is known, nor a softmax, which stays real. */
static ptq_status ptq__calibration_tensors(ptq_calibration *calibration, const ptq_model *model,
                                           ptq_error *err) {
    const ptq_node *node;
    PTQ__TRY(PTQ__NEW(&calibration->allocator, &calibration->tensor, 2 * (size_t)model->nodes,
                      "calibration", err));
    for (node = model->node + !model->node->real; node < model->node + model->nodes; node++) {
        if (node->residual)
            PTQ__TRY(ptq__calibration_add_tensor(calibration, node->name, err));
        if (!(ptq__operator_of(node)->properties & PTQ__LAST))
            PTQ__TRY(ptq__calibration_add_tensor(calibration, node->out, err));
    }
    return PTQ_OK;
}

/* pixels: H x W x C, shape: these three. How often each value occurs, and how far pixels are from
   those of the same channel to their left; the first column has none there. */
static void ptq__count_pixels(ptq_calibration *calibration, const uint8_t *pixels,
                              const int *shape) {
    int width = shape[1] * shape[2], n = shape[0] * width;
    for (int i = 0; i < n; i++) {
        calibration->pixel[pixels[i]]++;
        if (i % width >= shape[2]) {
            int difference = pixels[i] - pixels[i - shape[2]];
            calibration->neighbour_sum += (uint64_t)(difference < 0 ? -difference : difference);
            calibration->neighbours++;
        }
    }
}

/* Hashes are kept in ascending order: the order of images must not show, and they are searched. */
static int ptq__smaller_hash(const void *a, const void *b, const void *context) {
    (void)context;
    return *(const uint64_t *)a < *(const uint64_t *)b;
}

static void ptq__sort_hashes(uint64_t *hash, size_t n) {
    ptq__sort(hash, n, sizeof *hash, ptq__smaller_hash, NULL);
}

/* Each worker keeps a calibration of its own, which is merged in the end: counting
   under a lock would have the threads wait for each other. */
static ptq_status ptq__calibrate_begin(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq_calibration *part = NULL;
    PTQ__TRY(ptq__calibration_create(&job->work.allocator, job->data->classes, &part, err));
    worker->own = part;
    part->model = ((const ptq_calibration *)job->context)->model;
    PTQ__TRY(PTQ__NEW(&part->allocator, &part->hash, job->total, "image hashes", err));
    return ptq__calibration_tensors(part, job->plan->info.model, err);
}

/* Runs one image, of which the session keeps all tensors, and shows each to its observer. A value
   that is not finite says that the network itself is broken: which node is the first to make one is
   what a user must know. */
static ptq_status ptq__calibrate_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                     ptq_error *err) {
    ptq_calibration *part = (ptq_calibration *)worker->own;
    ptq_error inner;
    PTQ__TRY(ptq__run_item(worker->session, job->data, worker->item, NULL, err));
    for (int i = 0; i < part->tensors; i++) {
        ptq_tensor view;
        PTQ__TRY(ptq_session_tensor(worker->session, part->tensor[i].name, &view, err));
        ptq_status status = ptq_observe(&part->tensor[i].observer, (const float *)view.data,
                                        ptq_tensor_elements(&view), &inner);
        PTQ__FAIL_IF(status, status, "node %s: %s, on image %zu; check its weights",
                     part->tensor[i].name, inner.text, index);
    }
    part->hash[part->images++] = ptq__item_hash(job->data, worker->item);
    if (label >= 0)
        part->class_count[label]++;
    if (job->data->type == PTQ_TYPE_U8)
        ptq__count_pixels(part, (const uint8_t *)worker->item,
                          job->plan->info.model->node[0].shape);
    return PTQ_OK;
}

/* After a failure anywhere there is nothing to merge, only to free. */
static ptq_status ptq__calibrate_end(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq_calibration *part = (ptq_calibration *)worker->own;
    ptq_status status = PTQ_OK;
    if (part && !job->status)
        status = ptq_calibration_merge((ptq_calibration *)job->context, part, err);
    ptq_calibration_free(part);
    return status;
}

/* Adds up every count, and hashes into new memory of the first. What could fail comes before what
   changes anything. Since all that is kept is a sum, a smallest or a largest value, or a list that
   is sorted, the result is the same in whatever order parts are merged. */
PTQ_API ptq_status ptq_calibration_merge(ptq_calibration *calibration, const ptq_calibration *other,
                                         ptq_error *err) {
    size_t n = calibration->images, more = other->images;
    uint64_t *hash = NULL;
    int same = calibration->model == other->model && calibration->classes == other->classes &&
               calibration->tensors == other->tensors;
    for (int i = 0; same && i < calibration->tensors; i++)
        same = !strcmp(calibration->tensor[i].name, other->tensor[i].name);
    PTQ__FAIL_IF(!same, PTQ_INVALID_ARGUMENT,
                 "these calibrations are of different models; merge those of one");
    PTQ__TRY(PTQ__NEW(&calibration->allocator, &hash, n + more, "image hashes", err));
    if (n)
        memcpy(hash, calibration->hash, n * sizeof *hash);
    if (more)
        memcpy(hash + n, other->hash, more * sizeof *hash);
    ptq__free(&calibration->allocator, calibration->hash);
    calibration->hash = hash;
    calibration->images = n + more;
    ptq__sort_hashes(hash, n + more);
    for (int i = 0; i < calibration->tensors; i++)
        ptq__observer_merge(&calibration->tensor[i].observer, &other->tensor[i].observer);
    for (int i = 0; i < calibration->classes; i++)
        calibration->class_count[i] += other->class_count[i];
    for (int i = 0; i < 256; i++)
        calibration->pixel[i] += other->pixel[i];
    calibration->neighbours += other->neighbours;
    calibration->neighbour_sum += other->neighbour_sum;
    return PTQ_OK;
}

/* Roughness: how far horizontal neighbours differ, as a share of what independent draws from the
   same pixels would differ by. It is about 0.2 for photographs, 1 for noise, 0 for constant
   pictures, whatever their contrast. With F(v) the share of pixels up to v, two draws differ by

       2 * sum over v of F(v) (1 - F(v))

   on average: they lie on different sides of each v that is between them. */
static double ptq__roughness(const ptq_calibration *calibration) {
    double total = 0, below = 0, spread = 0, seen;
    for (int v = 0; v < 256; v++)
        total += (double)calibration->pixel[v];
    for (int v = 0; v < 255; v++) {
        below += (double)calibration->pixel[v] / total;
        spread += 2 * below * (1 - below);
    }
    seen = calibration->neighbours
               ? (double)calibration->neighbour_sum / (double)calibration->neighbours
               : spread * 0.5;
    return spread > 0 ? seen / spread : 0;
}

/* Noise and constant pictures are what people calibrate on who have no images at hand. Ranges found
   on them are wrong by factors, and nothing in the quantized model tells so: hence an error. The
   limits are far from all photographs. */
static ptq_status ptq__check_calibration(const ptq_calibration *calibration, ptq_error *err) {
    double roughness = ptq__roughness(calibration);
    PTQ__FAIL_IF(roughness > 0.75 || roughness < 0.001, PTQ_BAD_DATA,
                 "the calibration images %s; calibrate on real images",
                 roughness < 0.001
                     ? "are constant"
                     : "look random (neighbouring pixels differ like independent ones)");
    return PTQ_OK;
}

/* A job ([WORK]) over all images, with sessions that keep every tensor; the workers' parts are
   merged into the calibration, and then it is asked whether the images were any. Only a float model
   has ranges to find, and only pixels have a roughness: real numbers, from which any offset may
   have been taken, are accepted as they are. */
PTQ_API ptq_status ptq_calibrate(const ptq_plan *plan, const ptq_dataset *data,
                                 const ptq_calibrate_options *options, ptq_calibration **out,
                                 ptq_error *err) {
    const ptq_model *model = plan->info.model;
    ptq_calibration *calibration = NULL;
    PTQ__TRY(ptq__check_fits(plan, data, err));
    PTQ__FAIL_IF(ptq__is_quantized(model), PTQ_INVALID_ARGUMENT,
                 "this model is quantized already; calibrate the float model");
    ptq__job job = ptq__job_over(plan, data, options ? &options->work : NULL);
    job.keep = 1;
    job.begin = ptq__calibrate_begin;
    job.one = ptq__calibrate_one;
    job.end = ptq__calibrate_end;
    PTQ__TRY(ptq__calibration_create(&job.work.allocator, data->classes, &calibration, err));
    job.context = calibration;
    calibration->model = ptq_model_hash(model);
    ptq_status status = ptq__calibration_tensors(calibration, model, err);
    PTQ__THEN(status, ptq__job_run(&job, err));
    if (data->type == PTQ_TYPE_U8 && !(options && options->accept_any))
        PTQ__THEN(status, ptq__check_calibration(calibration, err));
    PTQ__FINISH(status, ptq_calibration_free(calibration), calibration, out);
}

/* Binary search: the first place from which on no hash is smaller lies in low..low + n, which is
   halved until nothing is left of it. */
static int ptq__has_hash(const ptq_calibration *calibration, uint64_t hash) {
    size_t low = 0, n = calibration->images;
    while (n > 0) {
        size_t half = n / 2, smaller = calibration->hash[low + half] < hash;
        low += smaller ? half + 1 : 0;
        n = smaller ? n - half - 1 : half;
    }
    return low < calibration->images && calibration->hash[low] == hash;
}

/* By content and not by index: the same image may stand in two data sets. Accuracy on images that
   were calibrated on says too much, since ranges, and with learned rounding weights, were fitted to
   them; who reports it should find 0 here. */
PTQ_API ptq_status ptq_calibration_overlap(const ptq_calibration *calibration,
                                           const ptq_dataset *data, size_t *overlap,
                                           ptq_error *err) {
    size_t found = 0;
    uint8_t *item = NULL;
    int label;
    PTQ__TRY(ptq__check_dataset(data, err));
    ptq_status status =
        PTQ__NEW(&calibration->allocator, &item, ptq__item_size(data), "an image", err);
    for (size_t i = 0; i < data->count && !status; i++) {
        status = ptq__get_item(data, i, item, &label, err);
        found += !status && ptq__has_hash(calibration, ptq__item_hash(data, item));
    }
    ptq__free(&calibration->allocator, item);
    PTQ__TRY(status);
    *overlap = found;
    return PTQ_OK;
}

/* ---- [SCHEME] -----------------------------------------------------------------------------------
   A scheme says how each tensor becomes codes: how many, of which type, over which range, and how
   much work goes into choosing them. Its choices do not depend on a model: which nodes it is for is
   said by overrides, and what it makes of a tensor by [CONVERT].

   Presets are schemes with a name. Most imitate what another system does by default, so that one
   program compares them on equal terms; "best" and "w4a8" are our own, "minmax8" is what all of
   them have in common. Here they stand by column; what is 0 is as in the plain scheme. Names are
   those of PTQ_PRESET_LIST, in its order. */
enum {
    PTQ__PER_TENSOR = 1,    /* one weight scale for the tensor */
    PTQ__AFFINE = 2,        /* weights with a zero point */
    PTQ__FULL_RANGE = 4,    /* the lowest weight code too */
    PTQ__SIGNED_CODES = 8,  /* activations s8, not u8 */
    PTQ__CODED_LOGITS = 16, /* the last layer gives codes */
    PTQ__LEARNED = 32,      /* ranges of least error, learned rounding, refitting below 8 bits */
    PTQ__SEARCHED = 64      /* equalization, fitted ranges, each step confirmed */
};

/* clang-format off */
static const struct {
    ptq_mode mode;
    int weight_bits, activation_bits;
    ptq_method activation_method;
    int flags;
} ptq__presets[] = {
    /* best */
    {PTQ_MODE_INTEGER, 0, 0, PTQ_METHOD_MSE, PTQ__LEARNED | PTQ__SEARCHED},
    /* ort-u8, ort-s8 */
    {PTQ_MODE_INTEGER, 0, 0, PTQ_METHOD_MINMAX, PTQ__PER_TENSOR | PTQ__AFFINE | PTQ__CODED_LOGITS},
    {PTQ_MODE_INTEGER, 0, 0, PTQ_METHOD_MINMAX,
        PTQ__PER_TENSOR | PTQ__SIGNED_CODES | PTQ__CODED_LOGITS},
    /* fbgemm: with more than 7 bits its pairs of products would saturate at 16 bits on AVX2 */
    {PTQ_MODE_INTEGER, 0, 7, PTQ_METHOD_HISTOGRAM_PYTORCH, PTQ__FULL_RANGE | PTQ__CODED_LOGITS},
    /* tflite, dynamic, fp16, w4a8 */
    {PTQ_MODE_INTEGER, 0, 0, PTQ_METHOD_MINMAX, PTQ__SIGNED_CODES | PTQ__CODED_LOGITS},
    {PTQ_MODE_DYNAMIC, 0, 0, PTQ_METHOD_MINMAX, 0},
    {PTQ_MODE_HALF, 0, 0, PTQ_METHOD_MINMAX, 0},
    {PTQ_MODE_INTEGER, 4, 0, PTQ_METHOD_MSE, PTQ__LEARNED},
    /* minmax8: its bits are said, since all zeros would be "best" */
    {PTQ_MODE_INTEGER, 8, 8, PTQ_METHOD_MINMAX, 0},
};
/* clang-format on */

/* The row of the table, with its flags as the members that they stand for. A name that there is
   none of gets a list of those that there are. */
PTQ_API ptq_status ptq_preset(const char *name, ptq_scheme *out, ptq_error *err) {
    int k = ptq_find_name(PTQ_NAMES_PRESET, name), flags;
    ptq_scheme s;
    if (k < 0) {
        char names[160];
        ptq__text text = ptq__text_over(names, sizeof names);
        for (unsigned i = 0; ptq_name(PTQ_NAMES_PRESET, i); i++)
            ptq__put(&text, i ? ", %s" : "%s", ptq_name(PTQ_NAMES_PRESET, i));
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "there is no preset '%s'; there are: %s",
                             ptq__quoted(ptq__span_of(name)).text, names);
    }
    memset(&s, 0, sizeof s);
    flags = ptq__presets[k].flags;
    s.mode = ptq__presets[k].mode;
    s.weight_bits = ptq__presets[k].weight_bits;
    s.activation_bits = ptq__presets[k].activation_bits;
    s.activation_method = ptq__presets[k].activation_method;
    s.weight_per_tensor = (flags & PTQ__PER_TENSOR) != 0;
    s.weight_affine = (flags & PTQ__AFFINE) != 0;
    s.weight_full_range = (flags & PTQ__FULL_RANGE) != 0;
    s.activation_signed = (flags & PTQ__SIGNED_CODES) != 0;
    s.code_logits = (flags & PTQ__CODED_LOGITS) != 0;
    s.weight_method = flags & PTQ__LEARNED ? PTQ_METHOD_MSE : PTQ_METHOD_MINMAX;
    s.rounding = flags & PTQ__LEARNED ? PTQ_ROUNDING_LEARNED : PTQ_ROUNDING_NEAREST;
    s.refit = flags & PTQ__LEARNED ? PTQ_REFIT_BELOW_8 : PTQ_REFIT_NEVER;
    s.equalize = s.fit_ranges = s.confirm = (flags & PTQ__SEARCHED) != 0;
    *out = s;
    return PTQ_OK;
}

/* All zeros stand for "best". Field by field, for a comparison of bytes would see the padding, and
   members that say 0 by default. Returns 1 if something changed. */
static int ptq__default_scheme(ptq_scheme *s) {
    int chosen = s->mode || s->weight_bits || s->weight_per_tensor || s->weight_affine ||
                 s->weight_full_range || s->weight_method || s->activation_bits ||
                 s->activation_signed || s->activation_symmetric || s->activation_method ||
                 s->percentile != 0 || s->code_logits || s->rounding || s->refit || s->equalize ||
                 s->bias || s->fit_ranges || s->confirm;
    return !chosen && ptq_preset("best", s, NULL) == PTQ_OK;
}

/* Eight bits where none are said: what processors multiply fastest, and what costs the least
   accuracy of all that is smaller than a float. */
static int ptq__weight_bits(const ptq_scheme *s) { return s->weight_bits ? s->weight_bits : 8; }

/* The input of pixels aside, which always has 8. */
static int ptq__activation_bits(const ptq_scheme *s) {
    return s->activation_bits ? s->activation_bits : 8;
}

/* Equalization and fitted ranges are for few activation bits alone; at 8 they gain nothing
   that was measurable, and take minutes. */
static int ptq__below_8(const ptq_scheme *s, int on) {
    return on && s->mode == PTQ_MODE_INTEGER && ptq__activation_bits(s) < 8;
}

/* Whether layers of this scheme are fitted anew to the codes that reach them: part of learning, and
   by default only where codes are few. */
static int ptq__refits(const ptq_scheme *s) {
    int few = ptq__weight_bits(s) < 8 || ptq__activation_bits(s) < 8;
    return s->rounding == PTQ_ROUNDING_LEARNED &&
           (s->refit == PTQ_REFIT_ALWAYS || (s->refit == PTQ_REFIT_BELOW_8 && few));
}

/* Whether part four has anything to do for this scheme. Where it has not, conversion looks at no
   image: it needs the ranges alone. */
static int ptq__searches(const ptq_scheme *s) {
    return s->mode == PTQ_MODE_INTEGER && (s->rounding == PTQ_ROUNDING_LEARNED || s->bias ||
                                           s->equalize || s->fit_ranges || s->confirm);
}

/* What lies outside its list or range, and what excludes each other. Affine weights have one scale
   for the tensor since its zero point is one for all channels; a range of least error is searched
   for around 0, which affine ranges do not lie around. */
PTQ_API ptq_status ptq_scheme_check(const ptq_scheme *s, ptq_error *err) {
    int wb = ptq__weight_bits(s), ab = ptq__activation_bits(s);
    PTQ__FAIL_IF(wb < 2 || wb > 8 || ab < 2 || ab > 8, PTQ_INVALID_ARGUMENT,
                 "%d weight bits and %d activation bits; each must be 2 to 8", wb, ab);
    PTQ__FAIL_IF(
        (unsigned)s->mode > PTQ_MODE_FLOAT || (unsigned)s->activation_method >= PTQ_METHOD_COUNT ||
            (unsigned)s->rounding > PTQ_ROUNDING_LEARNED || (unsigned)s->refit > PTQ_REFIT_ALWAYS ||
            (unsigned)s->bias > PTQ_BIAS_CORRECTION_EMPIRICAL,
        PTQ_INVALID_ARGUMENT,
        "the scheme has an unknown mode, range, rounding, refit or bias correction");
    PTQ__FAIL_IF(s->weight_affine &&
                     (!s->weight_per_tensor || s->weight_method != PTQ_METHOD_MINMAX),
                 PTQ_INVALID_ARGUMENT, "affine weights have one scale for the tensor, from minmax");
    PTQ__FAIL_IF(s->weight_method != PTQ_METHOD_MINMAX && s->weight_method != PTQ_METHOD_MSE,
                 PTQ_INVALID_ARGUMENT, "weight ranges are minmax or mse, not %s",
                 ptq_name(PTQ_NAMES_METHOD, s->weight_method));
    PTQ__FAIL_IF(s->percentile < 0 || s->percentile > 100 ||
                     (s->percentile > 0 && s->percentile <= 50),
                 PTQ_INVALID_ARGUMENT, "percentile %g; must be over 50 and at most 100",
                 (double)s->percentile);
    return PTQ_OK;
}

/* Patterns of overrides: `*` stands for any characters, `?` for one; "block?.conv*" matches
   "block1.conv2", and "*conv2" does too. After a mismatch the last star takes in one character
   more: no recursion, and no name for which that takes long. */
static int ptq__matches(const char *pattern, const char *name) {
    const char *star = NULL, *from = NULL; /* behind the last star; what it has not taken in yet */
    while (*name || *pattern == '*') {
        if (*pattern == '*') {
            star = ++pattern;
            from = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star;
            name = ++from;
        } else {
            return 0;
        }
    }
    return !*pattern;
}

/* A copy of options in which `change` was applied to every scheme, the overrides' too. These are
   new then, and to be freed by the caller. So searches try other schemes without touching what the
   caller gave. */
static ptq_status ptq__change_schemes(const ptq_convert_options *from, int (*change)(ptq_scheme *),
                                      ptq_convert_options *out, ptq_error *err) {
    ptq_override *override = NULL;
    *out = *from;
    out->override = NULL;
    change(&out->scheme);
    if (!from->overrides)
        return PTQ_OK;
    PTQ__TRY(PTQ__NEW(&from->work.allocator, &override, (size_t)from->overrides, "overrides", err));
    memcpy(override, from->override, (size_t)from->overrides * sizeof *override);
    for (int i = 0; i < from->overrides; i++)
        change(&override[i].scheme);
    out->override = override;
    return PTQ_OK;
}

/* ---- [CONVERT] ----------------------------------------------------------------------------------
   A fused float model and the ranges of its tensors become a model of codes (Jacob et al. 2018,
   https://arxiv.org/abs/1712.05877, section 2). The work has three levels, in this order below:

       one      the tensor    gets scales and codes            ptq__convert_weight, ..._bias
       two      the node      gets coded operands, weights     ptq__convert_node
                              and a coded result
       three    the model     is its nodes, one after the      ptq__convert_model
                              other

   Read upwards it is one conversion: ptq_convert checks what it was given, and makes a new model;
   each node of the old one is appended to it in its new form; each parameter of a node is coded.
   What part four can do better, it does to the outcome, or to what goes in; nothing here depends on
   it.

   Level one: the tensor
   ---------------------
   Weights are coded once and for all,

       q = clamp(round(w / s) + z)        w' = s (q - z)

   with one scale for each output channel or one for the tensor. A scale for each channel costs
   nothing at run time, as the sum of a channel is multiplied anyway, and gains most where the
   ranges of channels differ (Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342). Symmetric
   weights, z = 0, spare the kernels a correction by the sum of the input's codes; an affine range
   is worth its cost only where a tensor has one scale and lies to one side of 0.

   w: n weights of one channel, or of all; their codes, low..high, go to `codes`, which may be NULL,
   from element `at` on. Returns the squared error, sum (w - w')^2. */
static double ptq__code_weights(const float *w, size_t n, float scale, int32_t zero_point,
                                int32_t low, int32_t high, ptq_tensor *codes, size_t at) {
    double error = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t code = ptq__to_code(ptq__div(w[i], scale), zero_point, low, high);
        double d = (double)w[i] - (double)scale * (double)(code - zero_point);
        error += d * d;
        if (codes)
            ptq_tensor_set_code(codes, at + i, code);
    }
    return error;
}

/* The scale that fits the codes it gives best: for given q the sum of (w - s q)^2 is least at

       s = sum(w q) / sum(q q),

   where its derivative is 0. The new scale may give other codes, and so may be fitted again. */
static float ptq__fitted_scale(const float *w, size_t n, float scale, int32_t low, int32_t high) {
    double wq = 0, qq = 0;
    for (size_t i = 0; i < n; i++) {
        double q = (double)ptq__to_code(ptq__div(w[i], scale), 0, low, high);
        wq += (double)w[i] * q;
        qq += q * q;
    }
    return qq > 0 && wq > 0 ? (float)(wq / qq) : scale;
}

/* The scale of least squared error. Clipping a few large weights lets all others have finer steps:
   of 160 scales between a fifth of the MinMax scale `full` and all of it the best is taken, then
   fitted to its own codes, four times: where that no longer helps, `best` stays, and so do the
   fitted scale and its error. */
static float ptq__search_scale(const float *w, size_t n, float full, int32_t low, int32_t high) {
    float best = full;
    double least = ptq__code_weights(w, n, full, 0, low, high, NULL, 0);
    for (int k = 199; k >= 36; k--) {
        float scale = k >= 40 ? full * ((float)k / 200) : ptq__fitted_scale(w, n, best, low, high);
        double error =
            ptq__is_normal(scale) ? ptq__code_weights(w, n, scale, 0, low, high, NULL, 0) : least;
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}

/* Type of the codes of weights, and their limits: -(2^(b - 1) - 1)..2^(b - 1) - 1 for symmetric
   weights of b bits, which leave out the lowest code, as it has no positive twin, unless the scheme
   wants the full range; 0..2^b - 1 for affine ones. */
static ptq_type ptq__weight_type(const ptq_scheme *scheme) {
    int packed = ptq__weight_bits(scheme) < 8;
    if (scheme->weight_affine)
        return packed ? PTQ_TYPE_PACKED_U : PTQ_TYPE_U8;
    return packed ? PTQ_TYPE_PACKED_S : PTQ_TYPE_S8;
}

/* The codes that may be used, low..high: of 4 bits -7..7, -8..7 or 0..15. */
static void ptq__weight_limits(const ptq_scheme *scheme, int32_t *low, int32_t *high) {
    ptq_code_range(ptq__weight_type(scheme), ptq__weight_bits(scheme), low, high);
    if (!scheme->weight_affine && !scheme->weight_full_range)
        *low = -*high;
}

/* The largest |w|; 0 if all n are zero. Weights were found finite before. */
static float ptq__reach(const float *w, size_t n) {
    float reach = 0;
    for (size_t i = 0; i < n; i++)
        reach = fabsf(w[i]) > reach ? fabsf(w[i]) : reach;
    return reach;
}

/* Symmetric scale for n weights: the largest |w| gets the highest code,

       s = max|w| / high        or, with the full range, max|w| / ((high - low) / 2)

   1 for weights that are all zero, or too small to tell from it. */
static float ptq__weight_scale(const float *w, size_t n, const ptq_scheme *scheme, int32_t low,
                               int32_t high) {
    double codes = scheme->weight_full_range ? ((double)high - low) / 2 : high;
    float full = (float)((double)ptq__reach(w, n) / codes);
    if (!ptq__is_normal(full))
        return 1;
    return scheme->weight_method == PTQ_METHOD_MSE ? ptq__search_scale(w, n, full, low, high)
                                                   : full;
}

/* Fills the scales of `codes`, 1 or one for each output channel, and its zero point, which only
   affine weights have. weight: O x ... of F32. */
static ptq_status ptq__choose_scales(const ptq_tensor *weight, const ptq_scheme *scheme,
                                     ptq_tensor *codes, ptq_error *err) {
    const float *w = (const float *)weight->data;
    size_t n = ptq_tensor_elements(weight) / (size_t)codes->scales;
    float least = 0, most = 0;
    int32_t low, high;
    ptq_qparams q;
    ptq__weight_limits(scheme, &low, &high);
    for (int c = 0; c < codes->scales && !scheme->weight_affine; c++)
        codes->scale[c] = ptq__weight_scale(w + (size_t)c * n, n, scheme, low, high);
    if (!scheme->weight_affine)
        return PTQ_OK;
    for (size_t i = 0; i < n; i++) {
        least = w[i] < least ? w[i] : least;
        most = w[i] > most ? w[i] : most;
    }
    PTQ__TRY(ptq_choose_qparams(least, most, PTQ_TYPE_U8, ptq__weight_bits(scheme), 0, &q, err));
    codes->scale[0] = q.scale;
    codes->zero_point = q.zero_point;
    return PTQ_OK;
}

/* The largest bias code: 2^30 leaves the other half of int32 to the products. */
static const double ptq__most_bias = 1073741824.0;

/* The smallest unit s_in s_w of an accumulator: multipliers must stay normal, and at 2^-100 of the
   result's scale no sum is any code of it. */
static double ptq__least_unit(const ptq_node *to) {
    const ptq_qparams *out = to->residual ? &to->mid : &to->q;
    return out->type == PTQ_TYPE_F32 ? 1e-35 : fmax(ldexp((double)out->scale, -100), 1e-35);
}

/* The bias is coded with the scale s_in s_w of the accumulator it is added to, and so

       |b| / (s_in s_w) <= 2^30        asks for        s_w >= |b| / (2^30 s_in)

   A weight scale so small that the bias would not fit is enlarged, by a few units in the last place
   more, for the rounding to come, and one below the least unit likewise; a channel without weights,
   which has no scale of its own, gets one at which its bias keeps 24 bits. */
static float ptq__scale_for_bias(float scale, int no_weights, float bias, float in_scale,
                                 double least_unit) {
    double b = fabs((double)bias), fine = no_weights && b > 0 ? 16777216.0 : ptq__most_bias;
    double least = fmax(fmax(b / fine, least_unit) / (double)in_scale, (double)FLT_MIN);
    if (no_weights && b > 0)
        return (float)least;
    return (double)scale < least ? (float)(least * 1.0000002) : scale;
}

/* Whether the weights of a channel are all zero, or too small for codes up to `high`. */
static int ptq__no_weights(const float *w, size_t n, int32_t high) {
    return !ptq__is_normal(ptq__reach(w, n) / (float)high);
}

/* Codes of a weight tensor (O x ..., F32) under a scheme. to: the node they are for, with the codes
   of its result; `bias`, O of them or NULL: what must fit beside the codes, on inputs of scale
   in_scale; to NULL: for any. First all scales, then all codes: biases may enlarge a scale that all
   channels share. */
static ptq_status ptq__convert_weight(const ptq_tensor *weight, const ptq_scheme *scheme,
                                      const ptq_node *to, const float *bias, float in_scale,
                                      const ptq_allocator *allocator, ptq_tensor *out,
                                      ptq_error *err) {
    int channels = weight->dim[0], several = !scheme->weight_per_tensor && channels > 1;
    size_t n = ptq_tensor_elements(weight) / (size_t)channels; /* of a channel */
    const float *w = (const float *)weight->data;
    int32_t low, high;
    ptq_tensor made;
    ptq__weight_limits(scheme, &low, &high);
    PTQ__TRY(ptq_tensor_create(&made, ptq__weight_type(scheme), ptq__weight_bits(scheme),
                               weight->rank, weight->dim, allocator, err));
    made.scales = several ? channels : 1;
    made.owned |= 2;
    ptq_status status = PTQ__NEW(allocator, &made.scale, (size_t)made.scales, "scales", err);
    PTQ__THEN(status, ptq__choose_scales(weight, scheme, &made, err));
    for (int c = 0; c < channels && to && !status; c++) {
        float *scale = &made.scale[several ? c : 0];
        int none = several && ptq__no_weights(w + (size_t)c * n, n, high);
        *scale =
            ptq__scale_for_bias(*scale, none, bias ? bias[c] : 0, in_scale, ptq__least_unit(to));
    }
    for (int c = 0; c < channels && !status; c++)
        ptq__code_weights(w + (size_t)c * n, n, made.scale[several ? c : 0], made.zero_point, low,
                          high, &made, (size_t)c * n);
    PTQ__FINISH(status, ptq_tensor_free(&made, allocator), made, out);
}

/* A range that was found for a tensor; 0, 0: none yet. */
typedef struct ptq__interval {
    float low, high;
} ptq__interval;

/* One conversion. A tensor of the old model may exist in the new one as real numbers, as codes, or
   both: `real` and `coded` have the node of the new model that makes it, or -1. */
struct ptq__converter {
    const ptq_model *old;
    const ptq_calibration *calibration;
    const ptq_convert_options *options;
    ptq__interval *range; /* of each calibrated tensor, used and filled; NULL: as the scheme says */
    ptq_model *model;     /* that is being made */
    int *real, *coded;
};

/* The scheme of a node: the last override that matches its name, or the name of its result. The
   last and not the first, so that rules go from the general to the particular. */
static const ptq_scheme *ptq__scheme_of(const ptq__converter *cv, const ptq_node *node) {
    for (int i = cv->options->overrides - 1; i >= 0; i--)
        if (ptq__matches(cv->options->override[i].pattern, node->name) ||
            ptq__matches(cv->options->override[i].pattern, node->out))
            return &cv->options->override[i].scheme;
    return &cv->options->scheme;
}

/* How the activation tensor `name` is coded: its observed range, cut by the scheme's method, gives
   scale and zero point (see ptq_choose_qparams in [QUANTIZE]). Part four may have found a better
   range: then that one counts. */
static ptq_status ptq__tensor_qparams(const ptq__converter *cv, const char *name,
                                      const ptq_scheme *s, ptq_qparams *out, ptq_error *err) {
    ptq_type type = s->activation_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    int bits = ptq__activation_bits(s), i;
    ptq__interval range = {0, 0};
    ptq_error inner;
    ptq_status status = PTQ_OK;
    PTQ__FAIL_IF(!cv->calibration, PTQ_NOT_READY,
                 "the model was never calibrated; run ptq_calibrate first");
    i = ptq_calibration_find(cv->calibration, name);
    PTQ__FAIL_IF(i < 0, PTQ_NOT_READY, "tensor %s was never observed; calibrate this very model",
                 name);
    if (cv->range)
        range = cv->range[i];
    if (!(range.high > range.low))
        status = ptq_observer_range(&cv->calibration->tensor[i].observer, s->activation_method,
                                    s->percentile, type, bits, s->activation_symmetric, &range.low,
                                    &range.high, &inner);
    if (!status && cv->range)
        cv->range[i] = range;
    PTQ__THEN(status, ptq_choose_qparams(range.low, range.high, type, bits, s->activation_symmetric,
                                         out, &inner));
    PTQ__FAIL_IF(status, status, "tensor %s: %s", name, inner.text);
    return PTQ_OK;
}

/* The codes of pixels follow from what a pixel can be, 0 to 255 in every channel, not from data:
   with preprocessing that keeps pixels as they are, s = 1, z = 0, and codes are the pixels. They
   always have 8 bits, for pixels are there already, and cost no more than fewer would. */
static ptq_status ptq__input_qparams(const ptq_model *model, const ptq_scheme *scheme,
                                     ptq_qparams *out, ptq_error *err) {
    float low = 0, high = 0;
    for (int c = 0; c < model->node[0].shape[2]; c++) {
        float dark = ptq__pixel(model, c, 0), bright = ptq__pixel(model, c, 255);
        low = dark < low ? dark : low;
        high = bright > high ? bright : high;
    }
    return ptq_choose_qparams(low, high, scheme->activation_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8, 8,
                              scheme->activation_symmetric && scheme->activation_signed, out, err);
}

/* Level two: the node
   -------------------
   A node runs on integers if its scheme says so and there is an integer kernel: then its operands
   are codes, its weights too, and so is its result. Where integer and float nodes meet, a quantize
   or dequantize node stands between them.

       float   x ---- conv2d (F32 weights) ---------------------------- y
       integer q_x -- conv2d (s8 weights, s32 bias, scale of y) ------- q_y

   Appends a quantize or dequantize node behind node `from` of the new model, under the name of the
   tensor it reads and its own: "conv1.quantize". */
static ptq_status ptq__insert(ptq__converter *cv, ptq_op op, int from, const ptq_qparams *q,
                              int *out, ptq_error *err) {
    ptq_node node = ptq__blank(op, from, -1);
    ptq__text text = ptq__text_over(node.name, sizeof node.name);
    ptq__put(&text, "%s.%s", cv->model->node[from].out, ptq_name(PTQ_NAMES_OP, op));
    PTQ__FAIL_IF(text.length >= sizeof node.name, PTQ_BAD_GRAPH,
                 "node %s: its name is too long to insert a %s", cv->model->node[from].name,
                 ptq_name(PTQ_NAMES_OP, op));
    if (q)
        node.q = *q;
    PTQ__TRY(ptq__append(cv->model, &node, PTQ_TYPE_F32, 32, err));
    *out = cv->model->nodes - 1;
    return PTQ_OK;
}

/* The node of the new model that has old tensor i as codes (or as real numbers). Where integer and
   float nodes meet, it is inserted: once for each tensor, however many nodes read it. If conv2 is
   to stay in float between integer ones,

       q -> conv1 -> q -> conv1.dequantize -> x -> conv2 -> x -> conv2.quantize -> q -> conv3

   The codes are then those of the scheme of the first reader. */
static ptq_status ptq__operand_node(ptq__converter *cv, int i, int coded, const ptq_scheme *scheme,
                                    int *out, ptq_error *err) {
    int *have = &(coded ? cv->coded : cv->real)[i];
    ptq_scheme own = *scheme;
    ptq_qparams q;
    if (i == 0)
        own.activation_bits = 8; /* real inputs, as pixels: their error is in all that follows */
    if (*have < 0 && coded) {
        PTQ__TRY(ptq__tensor_qparams(cv, cv->old->node[i].out, &own, &q, err));
        PTQ__TRY(ptq__insert(cv, PTQ_OP_QUANTIZE, cv->real[i], &q, have, err));
    } else if (*have < 0) {
        PTQ__TRY(ptq__insert(cv, PTQ_OP_DEQUANTIZE, cv->coded[i], NULL, have, err));
    }
    *out = *have;
    return PTQ_OK;
}

/* Whether a node of the old model is to run on integers: its operator says whether it can, its
   scheme whether it should. */
static int ptq__goes_integer(const ptq__converter *cv, int index) {
    const ptq_node *node = &cv->old->node[index];
    ptq__codes codes = ptq__operator_of(node)->codes;
    return codes != PTQ__INPUT_CODES && codes != PTQ__NO_CODES && codes != PTQ__SHARE_CODES &&
           ptq__scheme_of(cv, node)->mode == PTQ_MODE_INTEGER;
}

/* The node at the end of a chain of concats, of which only the next link reads each: they all have
   its codes. Of any other node, that node itself. */
static const ptq_node *ptq__last_link(const ptq_model *model, int index) {
    int i = index;
    while (ptq__operator_of(&model->node[index])->codes == PTQ__JOINED_CODES &&
           ++i < model->nodes) {
        const ptq_node *node = &model->node[i];
        if (node->input[0] != index && node->input[1] != index)
            continue;
        if (ptq__uses(model, index) != 1 || node->op != model->node[index].op)
            break;
        index = i;
    }
    return &model->node[index];
}

/* How the result of an integer node is coded. Operators that keep the scale of their input keep its
   codes; the logits stay real numbers, straight from the accumulators, unless asked for. */
static ptq_status ptq__result_qparams(ptq__converter *cv, int index, ptq_node *to, ptq_error *err) {
    const ptq_node *from = &cv->old->node[index];
    const ptq_scheme *scheme = ptq__scheme_of(cv, from);
    int bounded;
    if (ptq__keeps_scale(cv->model, from)) {
        to->q = cv->model->node[to->input[0]].q;
        return PTQ_OK;
    }
    if (index == ptq_model_logits(cv->old) && from->op == PTQ_OP_DENSE && !scheme->code_logits)
        return PTQ_OK;
    from = ptq__last_link(cv->old, index);
    scheme = ptq__scheme_of(cv, from);
    if (from->residual)
        PTQ__TRY(ptq__tensor_qparams(cv, from->name, scheme, &to->mid, err));
    PTQ__TRY(ptq__tensor_qparams(cv, from->out, scheme, &to->q, err));
    bounded = from->op == PTQ_OP_FUNCTION &&
              (from->function == PTQ_FUNCTION_SIGMOID || from->function == PTQ_FUNCTION_TANH);
    if (bounded && to->q.type == PTQ_TYPE_S8 && to->q.bits == 8 &&
        ptq__arithmetic_of(cv->model) != PTQ__ONNX) { /* TensorFlow Lite takes no others */
        to->q.scale = from->function == PTQ_FUNCTION_TANH ? 1.0f / 128 : 1.0f / 256;
        to->q.zero_point = from->function == PTQ_FUNCTION_TANH ? 0 : -128;
    }
    return PTQ_OK;
}

/* q_b = round(b / (s_in s_w)), 32 bits, one for each output channel: the scale of the sum of
   products that it is added to, so that the addition is one of integers (Jacob et al. 2018, 2.4).
   Its zero point is 0. A bias of 8 bits would save nothing that counts, and its error would fall on
   every element of the channel alike. */
static ptq_status ptq__convert_bias(ptq__converter *cv, const ptq_node *from, float in_scale,
                                    ptq_node *to, ptq_error *err) {
    const ptq_tensor *weight = &to->param[PTQ_PARAM_WEIGHT];
    const float *bias = (const float *)from->param[PTQ_PARAM_BIAS].data;
    if (!bias)
        return PTQ_OK;
    PTQ__TRY(ptq_tensor_create(&to->param[PTQ_PARAM_BIAS], PTQ_TYPE_S32, 32, 1,
                               from->param[PTQ_PARAM_BIAS].dim, &cv->model->allocator, err));
    for (int c = 0; c < weight->dim[0]; c++) {
        double unit = (double)in_scale * (double)weight->scale[weight->scales > 1 ? c : 0];
        double code = floor((double)bias[c] / unit + 0.5);
        PTQ__FAIL_IF(!(code >= -ptq__most_bias && code <= ptq__most_bias), PTQ_BAD_NUMBER,
                     "node %s: bias[%d] = %g does not fit 32 bits; use a scale per channel",
                     from->name, c, (double)bias[c]);
        ((int32_t *)to->param[PTQ_PARAM_BIAS].data)[c] = (int32_t)code;
    }
    return PTQ_OK;
}

/* Weights in half precision: 11 bits of mantissa and no scale; what is over 65504 does not fit. A
   file of half the size, but kernels multiply floats as before: plans bring the weights back. */
static ptq_status ptq__half_weight(ptq__converter *cv, const ptq_node *from, ptq_node *to,
                                   ptq_error *err) {
    const ptq_tensor *weight = &from->param[PTQ_PARAM_WEIGHT];
    size_t n = ptq_tensor_elements(weight);
    PTQ__TRY(ptq_tensor_create(&to->param[PTQ_PARAM_WEIGHT], PTQ_TYPE_F16, 16, weight->rank,
                               weight->dim, &cv->model->allocator, err));
    for (size_t i = 0; i < n; i++) {
        uint16_t half = ptq_f32_to_f16(((const float *)weight->data)[i]);
        PTQ__FAIL_IF((half & 0x7c00) == 0x7c00, PTQ_BAD_NUMBER,
                     "node %s: weight[%zu] = %g does not fit half precision", from->name, i,
                     (double)((const float *)weight->data)[i]);
        ((uint16_t *)to->param[PTQ_PARAM_WEIGHT].data)[i] = half;
    }
    return PTQ_OK;
}

/* Weights and biases in their new form:

       integer      weights and bias as codes, on coded inputs
       dynamic      weights as codes; inputs get theirs while it runs, and the bias stays real
       half         weights in half precision, the bias as it is
       float        copies

   `to` owns what was made even after a failure. */
static ptq_status ptq__convert_params(ptq__converter *cv, const ptq_node *from, ptq_node *to,
                                      int integer, ptq_error *err) {
    const ptq_allocator *allocator = &cv->model->allocator;
    const ptq_scheme *given = ptq__scheme_of(cv, from);
    const ptq_tensor *weight = &from->param[PTQ_PARAM_WEIGHT];
    ptq_scheme own = *given, *scheme = &own;
    int p = 0, changes = ptq__has_weight(from->op);
    if (from->op == PTQ_OP_DENSE && ptq__arithmetic_of(cv->model) != PTQ__ONNX)
        own.weight_per_tensor = 1; /* as FULLY_CONNECTED has it */
    if (changes && integer) {
        float in_scale = cv->model->node[to->input[0]].q.scale;
        PTQ__TRY(ptq__convert_weight(weight, scheme, to, (float *)from->param[PTQ_PARAM_BIAS].data,
                                     in_scale, allocator, &to->param[PTQ_PARAM_WEIGHT], err));
        return ptq__convert_bias(cv, from, in_scale, to, err);
    }
    if (changes && scheme->mode == PTQ_MODE_DYNAMIC) {
        PTQ__TRY(ptq__convert_weight(weight, scheme, NULL, NULL, 0, allocator,
                                     &to->param[PTQ_PARAM_WEIGHT], err));
        to->dynamic = 1;
        p = 1;
    } else if (changes && scheme->mode == PTQ_MODE_HALF) {
        PTQ__TRY(ptq__half_weight(cv, from, to, err));
        p = 1;
    }
    for (; p < PTQ_PARAM_COUNT; p++)
        PTQ__TRY(ptq__tensor_copy(&to->param[p], &from->param[p], allocator, err));
    return PTQ_OK;
}

/* Appends the new form of node `index`: operands first, which may insert a node before it; then the
   codes of its result; then its parameters, for which the codes of its input must be known. Failing
   half-way leaves what was made in the model, which is freed as a whole. */
static ptq_status ptq__convert_node(ptq__converter *cv, int index, ptq_error *err) {
    const ptq_node *from = &cv->old->node[index];
    const ptq_scheme *scheme = ptq__scheme_of(cv, from);
    int integer = ptq__goes_integer(cv, index);
    ptq_node to = *from;
    memset(to.param, 0, sizeof to.param);
    for (int k = 0; k < 2; k++)
        if (from->input[k] >= 0)
            PTQ__TRY(ptq__operand_node(cv, from->input[k], integer, scheme, &to.input[k], err));
    if (integer)
        PTQ__TRY(ptq__result_qparams(cv, index, &to, err));
    PTQ__TRY(PTQ__GROW(&cv->model->allocator, &cv->model->node, cv->model->nodes,
                       &cv->model->capacity, "nodes", err));
    ptq_status status = ptq__convert_params(cv, from, &to, integer, err);
    cv->model->node[cv->model->nodes++] = to;
    PTQ__TRY(status);
    (ptq__is_coded(&to) ? cv->coded : cv->real)[index] = cv->model->nodes - 1;
    return PTQ_OK;
}

/* Level three: the model
   ----------------------
   The input, then the nodes in their order, which is that in which they run: when a node's turn has
   come, what it reads is there.

   Pixels are codes where any node that reads them runs on integers: they are bytes already, and a
   quantize node behind them would be a pass over the image for nothing. Real inputs get one. */
static ptq_status ptq__convert_input(ptq__converter *cv, ptq_error *err) {
    int coded = 0;
    PTQ__TRY(ptq__copy_node(cv->model, &cv->old->node[0], err));
    for (int i = 1; i < cv->old->nodes && !cv->old->node[0].real; i++)
        coded = coded || ((cv->old->node[i].input[0] == 0 || cv->old->node[i].input[1] == 0) &&
                          ptq__goes_integer(cv, i));
    if (coded)
        PTQ__TRY(ptq__input_qparams(cv->old, &cv->options->scheme, &cv->model->node[0].q, err));
    (coded ? cv->coded : cv->real)[0] = 0;
    return PTQ_OK;
}

/* Makes cv->model, the plain conversion; NULL after a failure. */
static ptq_status ptq__convert_model(ptq__converter *cv, ptq_error *err) {
    const ptq_allocator *allocator = &cv->options->work.allocator;
    int n = cv->old->nodes;
    cv->model = NULL;
    PTQ__TRY(PTQ__NEW(allocator, &cv->real, 2 * (size_t)n, "conversion", err));
    cv->coded = cv->real + n;
    for (int i = 0; i < 2 * n; i++)
        cv->real[i] = -1; /* and `coded`, which lies behind */
    ptq_status status = ptq_model_create(allocator, &cv->model, err);
    PTQ__THEN(status, ptq__copy_head(cv->model, cv->old, err));
    PTQ__THEN(status, ptq__convert_input(cv, err));
    for (int i = 1; i < n && !status; i++)
        status = ptq__convert_node(cv, i, err);
    PTQ__THEN(status, ptq__describe_scheme(cv, err));
    PTQ__THEN(status, ptq_model_check(cv->model, err));
    ptq__free(allocator, cv->real);
    if (status) {
        ptq_model_free(cv->model);
        cv->model = NULL;
    }
    return status;
}

/* Refuses what conversion cannot start from. A model is fused if fusing it again would change
   nothing; one that is not would get codes between a convolution and its batch norm, where no
   integer kernel reads them. A calibration of another model has other ranges. */
static ptq_status ptq__check_convertible(const ptq_model *model, const ptq_calibration *calibration,
                                         const ptq_convert_options *options, ptq_error *err) {
    ptq_fuse_report report;
    ptq_model *fused = NULL;
    char node[PTQ_NAME_SIZE] = "";
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__FAIL_IF(ptq__is_quantized(model), PTQ_INVALID_ARGUMENT,
                 "this model is quantized already; convert the float model");
    PTQ__TRY(ptq_fuse(model, &fused, &report, err));
    for (int i = report.items - 1; i >= 0; i--)
        if (report.item[i].kind != PTQ_FUSION_NONE)
            memcpy(node, report.item[i].node, sizeof node);
    ptq_release(&report.memory);
    ptq_model_free(fused);
    PTQ__FAIL_IF(node[0], PTQ_NOT_READY,
                 "the model is not fused (node %s could be); call ptq_fuse, and calibrate its"
                 " result",
                 node);
    PTQ__FAIL_IF(calibration && calibration->model != ptq_model_hash(model), PTQ_NOT_READY,
                 "the calibration is of another model; calibrate this one");
    PTQ__TRY(ptq_scheme_check(&options->scheme, err));
    for (int i = 0; i < options->overrides; i++)
        PTQ__TRY(ptq_scheme_check(&options->override[i].scheme, err));
    return PTQ_OK;
}

/* What became of each node, read off the new model, where it bears the same name; a node that the
   old one has not was inserted. "8-bit weights per channel, U8 to U8". */
static ptq_status ptq__report_conversion(const ptq_model *old, const ptq_model *model,
                                         ptq_convert_report *report, ptq_error *err) {
    PTQ__TRY(
        PTQ__KEEP(&report->memory, &report->item, (size_t)model->nodes, "conversion report", err));
    for (int i = 1; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i], *input = &model->node[node->input[0]];
        const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
        ptq_conversion *item = &report->item[report->items++];
        ptq__text text = ptq__text_over(item->what, sizeof item->what);
        int from = ptq_model_find(old, node->name);
        memcpy(item->node, node->name, sizeof item->node);
        item->bytes_before = from < 0 ? 0 : (size_t)ptq_node_cost(old, from).param_bytes;
        item->bytes_after = (size_t)ptq_node_cost(model, i).param_bytes;
        report->bytes_before += item->bytes_before;
        report->bytes_after += item->bytes_after;
        if (weight->scales)
            ptq__put(&text, "%d-bit weights %s, ", weight->bits,
                     weight->scales > 1 ? "per channel" : "per tensor");
        if (from >= 0 && ptq__is_coded(input))
            ptq__put(&text, "%s to %s", ptq_name(PTQ_NAMES_TYPE, input->q.type),
                     ptq_name(PTQ_NAMES_TYPE, node->q.type));
        else
            ptq__put_string(&text, from < 0                       ? "inserted"
                                   : node->dynamic                ? "dynamic"
                                   : weight->type == PTQ_TYPE_F16 ? "half-precision weights"
                                                                  : "float");
    }
    return PTQ_OK;
}

/* Options of zeros get the scheme "best" here, before anything looks at them. Then comes the plain
   conversion, or, if any scheme asks for one, that of part four around it. Without `out` it is a
   dry run: the model is made for the report, and freed; plainly, since what is searched for changes
   numbers, not what becomes of a node. */
PTQ_API ptq_status ptq_convert(const ptq_model *model, const ptq_calibration *calibration,
                               const ptq_convert_options *options, ptq_model **out,
                               ptq_convert_report *report, ptq_error *err) {
    ptq_convert_options given, resolved;
    ptq__converter cv;
    memset(&cv, 0, sizeof cv);
    memset(&given, 0, sizeof given);
    if (options)
        given = *options;
    cv.old = model;
    cv.calibration = calibration;
    cv.options = &resolved;
    if (report) {
        memset(report, 0, sizeof *report);
        report->memory.allocator = given.work.allocator;
    }
    PTQ__FAIL_IF(ptq__default_scheme(&given.scheme) && out &&
                     !(given.images && given.images->count),
                 PTQ_NOT_READY,
                 "no scheme is given, and the preset 'best' learns from the calibration images:"
                 " give these in the options, or choose the preset 'minmax8'");
    PTQ__TRY(ptq__change_schemes(&given, ptq__default_scheme, &resolved, err));
    int searches = out && ptq__searches(&resolved.scheme);
    for (int i = 0; i < resolved.overrides; i++)
        searches = searches || (out && ptq__searches(&resolved.override[i].scheme));
    ptq_status status = ptq__check_convertible(model, calibration, &resolved, err);
    PTQ__THEN(status, searches ? ptq__convert_searched(&cv, err) : ptq__convert_model(&cv, err));
    ptq__free(&resolved.work.allocator, (void *)(uintptr_t)resolved.override);
    if (report)
        PTQ__THEN(status, ptq__report_conversion(model, cv.model, report, err));
    if (status || !out)
        ptq_model_free(cv.model);
    else
        *out = cv.model;
    return status;
}

/* ---- [DATA] -------------------------------------------------------------------------------------
   Where images come from. To the library a data set is a function that writes one image and its
   label; what stands behind it is the caller's affair. One such function is here: the binary
   version of CIFAR-10 (Krizhevsky 2009), files of records without any header,

       byte 0: label      1..1024: red, 32 x 32      1025..2048: green      2049..3072: blue

   which stay in memory as they are, and become H x W x C when they are asked for. Nothing in such
   a file says what it is; what can be checked is its size and its labels. Folders of such files are
   looked through in part two. Behind it come samples and subsets, by which one data set becomes
   another. */

enum { PTQ__CIFAR_PIXELS = 32 * 32, PTQ__CIFAR_CLASSES = 10 };

struct ptq_cifar10 {
    ptq_dataset dataset;                      /* its class_name: CIFAR-10's, or own_name */
    uint8_t *records;                         /* dataset.count x PTQ_CIFAR10_RECORD */
    const char *own_name[PTQ__CIFAR_CLASSES]; /* of the first dataset.classes: into `name` */
    char name[PTQ__CIFAR_CLASSES][PTQ_CLASS_NAME_SIZE];
    ptq_allocator allocator;
};

/* Image `index` of the data set `user`: planes, 3 x 32 x 32, become pixels, 32 x 32 x 3, in `item`.
   Done anew for each image that is asked for: it costs far less than running a model on it, and the
   records are kept only once. Nothing is written but the result, so any thread may ask. */
static ptq_status ptq__cifar_get(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const ptq_cifar10 *data = (const ptq_cifar10 *)user;
    size_t count = data ? data->dataset.count : 0;
    uint8_t *pixels = (uint8_t *)item;
    PTQ__FAIL_IF(index >= count, PTQ_INVALID_ARGUMENT, "image %zu of %zu", index, count);
    const uint8_t *record = data->records + index * PTQ_CIFAR10_RECORD;
    *label = *record++;
    for (int i = 0; i < PTQ__CIFAR_PIXELS; i++)
        for (int c = 0; c < 3; c++)
            *pixels++ = record[c * PTQ__CIFAR_PIXELS + i];
    return PTQ_OK;
}

/* Without images it still tells their size and the names of the classes: what every data set here
   begins with, and what a program needs that has a model but no data. */
PTQ_API const ptq_dataset *ptq_cifar10_dataset(const ptq_cifar10 *data) {
    static const char *const names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                        "dog",      "frog",       "horse", "ship", "truck"};
    static const ptq_dataset none = {0, 32, 32, 3, 10, PTQ_TYPE_U8, ptq__cifar_get, NULL, names};
    return data ? &data->dataset : &none;
}

/* An empty data set, which then gets the names of its classes and its records. */
static ptq_status ptq__cifar_create(const ptq_allocator *allocator, ptq_cifar10 **out,
                                    ptq_error *err) {
    PTQ__TRY(PTQ__NEW(allocator, out, 1, "data set", err));
    (*out)->allocator = ptq__allocator(allocator);
    (*out)->dataset = *ptq_cifar10_dataset(NULL);
    (*out)->dataset.user = *out;
    return PTQ_OK;
}

/* NULL is a data set too, the empty one. */
PTQ_API void ptq_cifar10_free(ptq_cifar10 *data) {
    ptq_allocator allocator = ptq__allocator(data ? &data->allocator : NULL);
    if (data)
        ptq__free(&allocator, data->records);
    ptq__free(&allocator, data);
}

/* Checks `size` bytes of records, and puts a copy behind those that are there. `where` names them
   in errors. CIFAR-10 comes in six files, so growing by one file at a time is no waste. A file of
   another kind is found out by its size, which 3073 would have to divide, or by its first byte that
   is no label: of random bytes one in 25 would pass. */
static ptq_status ptq__cifar_append(ptq_cifar10 *data, const void *bytes, size_t size,
                                    const char *where, ptq_error *err) {
    size_t count = size / PTQ_CIFAR10_RECORD, before = data->dataset.count;
    const uint8_t *record = (const uint8_t *)bytes;
    uint8_t *larger = NULL;
    int classes = data->dataset.classes;
    PTQ__FAIL_IF(!size || size % PTQ_CIFAR10_RECORD, PTQ_BAD_DATA,
                 "%s: %zu bytes are not one or more records of %d; empty, truncated, or not "
                 "CIFAR-10's binary version",
                 where, size, PTQ_CIFAR10_RECORD);
    for (size_t i = 0; i < count; i++, record += PTQ_CIFAR10_RECORD)
        PTQ__FAIL_IF(
            *record >= classes, PTQ_BAD_DATA,
            "%s: record %zu has label %d, labels are 0 to %d; not CIFAR-10's binary version?",
            where, i, *record, classes - 1);
    PTQ__TRY(
        ptq__alloc(&data->allocator, before + count, PTQ_CIFAR10_RECORD, "images", &larger, err));
    if (before)
        memcpy(larger, data->records, before * PTQ_CIFAR10_RECORD);
    memcpy(larger + before * PTQ_CIFAR10_RECORD, bytes, size);
    ptq__free(&data->allocator, data->records);
    data->records = larger;
    data->dataset.count += count;
    return PTQ_OK;
}

/* From memory, for programs that have no files, and for data embedded in them. */
PTQ_API ptq_status ptq_cifar10_parse(const void *bytes, size_t size, const ptq_allocator *allocator,
                                     ptq_cifar10 **out, ptq_error *err) {
    ptq_cifar10 *data = NULL;
    ptq_status status = ptq__cifar_create(allocator, &data, err);
    PTQ__THEN(status, ptq__cifar_append(data, bytes, size, "CIFAR-10 data", err));
    PTQ__FINISH(status, ptq_cifar10_free(data), data, out);
}

/* Samples. A class that is rare in the data must not be missing from what calibration sees, hence
   as many of each class: count / classes, and of the first classes one more where that leaves a
   remainder. A class that has fewer gives all, and the others give more. Each is drawn from alone.

   All labels; item: room for one. Without labels there is one class, whose label is -1: a data set
   that has some of each is more likely damaged than meant so. */
static ptq_status ptq__read_labels(const ptq_dataset *data, void *item, int *label,
                                   ptq_error *err) {
    for (size_t i = 0; i < data->count; i++) {
        PTQ__TRY(ptq__get_item(data, i, item, &label[i], err));
        PTQ__FAIL_IF((label[i] < 0) != (label[0] < 0), PTQ_BAD_DATA,
                     "image %zu has %s label, unlike image 0; label all or none", i,
                     label[i] < 0 ? "no" : "a");
    }
    return PTQ_OK;
}

/* How many of each class, in place of how many there are: up to `level`, the highest at which that
   is not more than `count`, and the rest from the first classes that have more than that. Of 5, 1
   and 9 images 10 are 5, 1 and 4: with level 4 nine of them, and one more of the first class. */
static void ptq__share_out(size_t *of_class, size_t classes, size_t count) {
    size_t level = count + 1, sum = count + 1, c;
    while (sum > count)
        for (level--, c = 0, sum = 0; c < classes; c++)
            sum += of_class[c] < level ? of_class[c] : level;
    for (c = 0; c < classes; c++) {
        size_t more = sum < count && of_class[c] > level;
        of_class[c] = (of_class[c] < level ? of_class[c] : level) + more;
        sum += more;
    }
}

enum { PTQ__DRAWN = -2 }; /* in place of an image's label */

/* Of each class, the first steps of a Fisher-Yates shuffle (Durstenfeld 1964): image i of the class
   changes places with one of those from i on. Every class has a stream of chance of its own, so
   that what is drawn of it does not depend on the other classes. label: those of all images, of
   which the drawn ones are marked; pool: room for as many, and behind it a number for each class.
   The marked ones then go to `indices`, `count` of them, in ascending order. */
static void ptq__draw(const ptq_dataset *data, size_t count, uint64_t seed, int *label,
                      size_t *pool, size_t *indices) {
    int first = label[0] < 0 ? -1 : 0;
    size_t i, n, classes = first ? 1 : (size_t)data->classes, *want = pool + data->count;
    ptq_rng rng;
    for (i = 0; i < data->count; i++)
        want[label[i] - first]++;
    ptq__share_out(want, classes, count);
    for (size_t c = 0; c < classes; c++) {
        for (i = 0, n = 0; i < data->count; i++)
            if (label[i] == first + (int)c)
                pool[n++] = i;
        ptq_rng_seed(&rng, seed, c);
        for (i = 0; i < want[c]; i++) {
            size_t k = i + ptq_rng_below(&rng, (uint32_t)(n - i));
            label[pool[k]] = PTQ__DRAWN;
            pool[k] = pool[i];
        }
    }
    for (i = 0; i < data->count; i++)
        if (label[i] == PTQ__DRAWN)
            *indices++ = i;
}

/* The same images everywhere for the same data and seed: what chooses is integers alone, and the
   order in which a folder lists its files does not enter. */
PTQ_API ptq_status ptq_sample(const ptq_dataset *data, size_t count, uint64_t seed, size_t *indices,
                              const ptq_allocator *allocator, ptq_error *err) {
    ptq_memory memory = {{NULL, NULL, NULL}, ptq__allocator(allocator)};
    size_t *pool = NULL; /* data->count: numbers of images */
    int *label = NULL;   /* data->count */
    void *item = NULL;
    PTQ__TRY(ptq__check_dataset(data, err));
    PTQ__FAIL_IF(!count || count > data->count || data->count > UINT32_MAX, PTQ_BAD_DATA,
                 "cannot sample %zu of %zu images", count, data->count);
    ptq_status status =
        PTQ__KEEP(&memory, &pool, data->count + (size_t)data->classes, "sampling", err);
    PTQ__THEN(status, PTQ__KEEP(&memory, &label, data->count, "labels", err));
    PTQ__THEN(status, ptq__keep(&memory, ptq__item_size(data), 1, "an image", &item, err));
    PTQ__THEN(status, ptq__read_labels(data, item, label, err));
    if (!status)
        ptq__draw(data, count, seed, label, pool, indices);
    ptq_release(&memory);
    return status;
}

/* Subsets. A part of a data set is a data set itself: it has the size of images and the classes of
   its base, and a `get` that looks up where the base has the item. So whatever takes a data set
   takes a sample as well, without a copy of any image. */
static ptq_status ptq__subset_get(void *user, size_t index, void *item, int *label,
                                  ptq_error *err) {
    const ptq_subset *subset = (const ptq_subset *)user;
    PTQ__FAIL_IF(index >= subset->dataset.count, PTQ_INVALID_ARGUMENT, "image %zu of %zu", index,
                 subset->dataset.count);
    return subset->base->get(subset->base->user, subset->indices[index], item, label, err);
}

/* Indices are checked here once, and not whenever an item is asked for. They may name an item
   twice, and in any order. */
PTQ_API ptq_status ptq_subset_open(ptq_subset *subset, const ptq_dataset *base,
                                   const size_t *indices, size_t count, ptq_error *err) {
    for (size_t i = 0; i < count; i++)
        PTQ__FAIL_IF(indices[i] >= base->count, PTQ_INVALID_ARGUMENT,
                     "index %zu of a subset is %zu; the data set has %zu items", i, indices[i],
                     base->count);
    subset->dataset = *base;
    subset->dataset.count = count;
    subset->dataset.get = ptq__subset_get;
    subset->dataset.user = subset;
    subset->base = base;
    subset->indices = indices;
    return PTQ_OK;
}

/* ---- [METRICS] ----------------------------------------------------------------------------------
   What quantization did. First a model alone: its answers beside the labels. Then two models on the
   same images, the float one and the quantized one: how often they answer alike, whether the one is
   better than chance explains, and how far the logits drift apart. Nothing depends on the number of
   threads or on the order in which images finish. */

/* One image, on some thread: it writes to places of its own, and needs no lock. The answer is the
   class of the largest logit, the first one if several are. */
static ptq_status ptq__evaluate_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                    ptq_error *err) {
    ptq_evaluation *e = (ptq_evaluation *)job->context;
    float *logits = e->logits + index * (size_t)e->classes;
    PTQ__TRY(ptq__run_item(worker->session, job->data, worker->item, logits, err));
    e->label[index] = label;
    e->prediction[index] = ptq_argmax(logits, e->classes);
    return PTQ_OK;
}

/* Room for the answers, in three blocks, as many as a ptq_memory holds: counts of classes, labels
   and predictions, logits. Every image has a place of its own in the last two. */
static ptq_status ptq__evaluation_create(ptq_evaluation *e, ptq_error *err) {
    const char *what = "an evaluation";
    size_t n = (size_t)e->classes, square = (n + 2) * sizeof(size_t);
    PTQ__TRY(ptq__keep(&e->memory, n, square, what, &e->class_total, err));
    PTQ__TRY(ptq__keep(&e->memory, e->total, 2 * sizeof(int), what, &e->label, err));
    PTQ__TRY(ptq__keep(&e->memory, e->total, n * sizeof(float), what, &e->logits, err));
    e->class_correct = e->class_total + n;
    e->confusion = e->class_correct + n;
    e->prediction = e->label + e->total;
    return PTQ_OK;
}

/* Images are counted when all have run: threads finish them in any order. confusion[l n + p] is how
   many images of class l were taken for class p; those of its diagonal are right. */
static void ptq__evaluation_count(ptq_evaluation *e) {
    size_t n = (size_t)e->classes;
    for (size_t i = 0; i < e->total; i++) {
        size_t label = (size_t)e->label[i], prediction = (size_t)e->prediction[i];
        if (e->label[i] < 0)
            continue;
        e->class_total[label]++;
        e->class_correct[label] += label == prediction;
        e->correct += label == prediction;
        e->confusion[label * n + prediction]++;
    }
}

/* People want to know how many answers are right, and so there must be labels; searches compare
   logits with logits. All of these are kept, four bytes for each class of each image, since what
   they are compared with is run later. */
PTQ_API ptq_status ptq_evaluate(const ptq_plan *plan, const ptq_dataset *data,
                                const ptq_evaluate_options *options, ptq_evaluation *out,
                                ptq_error *err) {
    ptq_evaluation result;
    PTQ__TRY(ptq__check_fits(plan, data, err));
    memset(&result, 0, sizeof result);
    ptq__job job = ptq__job_over(plan, data, options ? &options->work : NULL);
    if (options && options->limit && options->limit < job.total)
        job.total = options->limit;
    job.labelled = !(options && options->unlabelled);
    job.one = ptq__evaluate_one;
    job.context = &result;
    result.memory.allocator = job.work.allocator;
    result.total = job.total;
    result.classes = data->classes;
    ptq_status status = ptq__evaluation_create(&result, err);
    PTQ__THEN(status, ptq__job_run(&job, err));
    if (!status)
        ptq__evaluation_count(&result);
    PTQ__FINISH(status, ptq_release(&result.memory), result, out);
}

/* Intervals. Both hold the values that the data do not contradict: those at which what was seen
   lies less than z = 1.96 standard deviations away from what they make one expect, and in 95 of 100
   cases it does. The deviation is the one that the supposed value itself causes. (With that of the
   value seen, which is the textbook's short cut, one would take for certain what happened once: 50
   images without a change do not show that there is none.)

   z of 95 %, two-sided. */
#define PTQ__SCORE 1.959963984540054

/* |k - n p| = z sqrt(n p (1 - p)), solved for p. For 87 of 100 it is 0.790 to 0.922. */
PTQ_API void ptq_share_interval(size_t k, size_t n, double *low, double *high) {
    double z2 = PTQ__SCORE * PTQ__SCORE, all = (double)n, hits = (double)k;
    double middle = (hits + z2 / 2) / (all + z2);
    double half = n ? sqrt(z2 * (hits * (all - hits) / all + z2 / 4)) / (all + z2) : 0.5;
    *low = k > 0 ? middle - half : 0;
    *high = k < n ? middle + half : 1;
}

/* How far what was seen lies from a supposed difference d of the shares won and lost:

       (won - lost - n d) / sqrt(n (2 q + d (1 - d)))

   where q is the share of lost images that makes the data likeliest if d is true, so that q + d is
   that of the won ones: the larger root of 2 n q^2 + (d (2 n + lost - won) - lost - won) q -
   lost d (1 - d) = 0. */
static double ptq__paired_score(double lost, double won, double n, double d) {
    double b = d * (2 * n + lost - won) - lost - won, c = -lost * d * (1 - d);
    double q = (sqrt(b * b - 8 * n * c > 0 ? b * b - 8 * n * c : 0) - b) / (4 * n);
    double variance = n * (2 * q + d * (1 - d)), distance = won - lost - n * d;
    return variance > 0 ? distance / sqrt(variance) : distance > 0 ? HUGE_VAL : -HUGE_VAL;
}

/* The score falls as d grows: both ends by bisection, from the difference seen outwards. */
PTQ_API void ptq_paired_interval(double lost, double won, double total, double *low_pp,
                                 double *high_pp) {
    double seen = (won - lost) / total;
    for (int upper = 0; upper < 2; upper++) {
        double inside = seen, outside = upper ? 1 : -1;
        for (int i = 0; i < 60; i++) {
            double d = (inside + outside) / 2, score = ptq__paired_score(lost, won, total, d);
            if (score > -PTQ__SCORE && score < PTQ__SCORE)
                inside = d;
            else
                outside = d;
        }
        *(upper ? high_pp : low_pp) = 100 * inside;
    }
}

/* Of the images that changed between right and wrong, a model that is as good would win half. How
   likely is it then that so few, or fewer, were won or lost (McNemar 1947)? Images that both models
   get right, or both wrong, tell nothing about which is better.

       p = 2 P(X <= fewer) = 2 sum over i <= fewer of n! / (i! (n - i)!) / 2^n,   n images changed

   Of 3 won and 7 lost p = 2 (1 + 10 + 45 + 120) / 1024 = 0.34: chance alone does so every third
   time. By logarithms, since the factors leave the range of double; lgamma(n + 1) is ln n!. */
static double ptq__mcnemar(size_t lost, size_t won) {
    double n = (double)(lost + won), sum = 0;
    size_t fewer = lost < won ? lost : won;
    for (size_t i = 0; i <= fewer; i++)
        sum += exp(lgamma(n + 1) - lgamma((double)i + 1) - lgamma(n - (double)i + 1) - n * log(2));
    return sum < 0.5 ? 2 * sum : 1;
}

/* For exact sums, which take floats: what is too large counts as the largest. */
static float ptq__finite_float(double value) {
    return value < (double)FLT_MAX ? (float)value : FLT_MAX;
}

/* How far logits drift apart: sums over images, which are exact, and so the same in any order. From
   them come the mean divergence, and the ratio of signal to quantization noise,

       10 log10(sum x^2 / sum (x - x')^2) dB:

   one bit more in the codes of everything is worth about 6 of it, as it halves every error, and
   20 log10(2) = 6.02. Infinite where there is no noise. */
typedef struct ptq__drift {
    ptq_exact_sum kl, signal, noise;
} ptq__drift;

/* One image's logits x, and those of the quantized model, y, `classes` of each. Kullback and
   Leibler's divergence of their softmax distributions P and Q is, in nats,

       sum over c of P(c) (ln P(c) - ln Q(c)),    ln P(c) = x(c) - max x - ln sum exp(x - max x),

   and never negative but by rounding. */
static void ptq__drift_add(ptq__drift *drift, const float *x, const float *y, int classes) {
    double most_x = (double)x[ptq_argmax(x, classes)], most_y = (double)y[ptq_argmax(y, classes)];
    double sum_x = 0, sum_y = 0, signal = 0, noise = 0, kl = 0;
    for (int c = 0; c < classes; c++) {
        double d = (double)x[c] - (double)y[c];
        signal += (double)x[c] * (double)x[c];
        noise += d * d;
        sum_x += exp((double)x[c] - most_x);
        sum_y += exp((double)y[c] - most_y);
    }
    for (int c = 0; c < classes; c++) {
        double log_x = (double)x[c] - most_x - log(sum_x);
        kl += exp(log_x) * (log_x - ((double)y[c] - most_y - log(sum_y)));
    }
    ptq__exact_add(&drift->kl, ptq__finite_float(kl > 0 ? kl : 0));
    ptq__exact_add(&drift->signal, ptq__finite_float(signal));
    ptq__exact_add(&drift->noise, ptq__finite_float(noise));
}

/* Image by image, and not total by total: two models that are right equally often may be so on
   different images, and only those on which they differ tell which is better. */
PTQ_API ptq_status ptq_compare(const ptq_evaluation *baseline, const ptq_evaluation *quantized,
                               ptq_comparison *out, ptq_error *err) {
    int classes = baseline->classes, logits = baseline->logits && quantized->logits;
    size_t total = baseline->total;
    ptq_comparison result;
    ptq__drift drift;
    PTQ__FAIL_IF(total != quantized->total || !total ||
                     memcmp(baseline->label, quantized->label, total * sizeof(int)),
                 PTQ_INVALID_ARGUMENT,
                 "the evaluations saw different images (%zu and %zu); run both on the same data "
                 "set in one program",
                 total, quantized->total);
    PTQ__FAIL_IF(classes != quantized->classes, PTQ_INVALID_ARGUMENT,
                 "the models have %d and %d classes", classes, quantized->classes);
    memset(&result, 0, sizeof result);
    memset(&drift, 0, sizeof drift);
    result.total = total;
    for (size_t i = 0; i < total; i++) {
        int label = baseline->label[i], a = baseline->prediction[i], b = quantized->prediction[i];
        size_t at = i * (size_t)classes;
        result.agree += a == b;
        result.before += a == label;
        result.after += b == label;
        result.lost += a == label && b != label;
        result.won += a != label && b == label;
        if (logits)
            ptq__drift_add(&drift, baseline->logits + at, quantized->logits + at, classes);
    }
    result.delta_pp = 100 * ((double)result.won - (double)result.lost) / (double)total;
    ptq_paired_interval((double)result.lost, (double)result.won, (double)total, &result.low_pp,
                        &result.high_pp);
    result.p_value = ptq__mcnemar(result.lost, result.won);
    if (logits) {
        double signal = ptq__exact_value(&drift.signal), noise = ptq__exact_value(&drift.noise);
        result.kl = ptq__exact_value(&drift.kl) / (double)total;
        result.sqnr_db = noise > 0 ? 10 * log10(signal / noise) : HUGE_VAL;
    }
    *out = result;
    return PTQ_OK;
}

#endif /* PTQ_RUN_ONLY */

/* ---- [NET] --------------------------------------------------------------------------------------
   The first screen of the interface, in terms of all that stands above, and so also a summary of
   it: a file becomes a model, the model is fused, planned, given a session, and runs; or it is
   calibrated, converted and saved. Whoever wants another allocator, instruction set, scheme or data
   set writes these functions anew for it: each is what a program that uses the full interface looks
   like. */

/* The fused model. Where nothing fuses, that is the one given, which leaves its place: only batch
   norms change numbers when they are fused, and are in no model that was. */
#ifndef PTQ_RUN_ONLY
static ptq_status ptq__net_model(ptq_model **model, ptq_model **out, ptq_error *err) {
    return ptq_fuse(*model, out, NULL, err);
}
#else
static ptq_status ptq__net_model(ptq_model **model, ptq_model **out, ptq_error *err) {
    for (int i = 0; i < (*model)->nodes; i++)
        PTQ__FAIL_IF(
            (*model)->node[i].op == PTQ_OP_BATCH_NORM, PTQ_UNSUPPORTED,
            "node %s: ptq_fuse was left out by the macro PTQ_RUN_ONLY; save the model fused",
            (*model)->node[i].name);
    *out = *model;
    *model = NULL;
    return PTQ_OK;
}
#endif

/* The model, fused and ready to run, each step with its defaults: the best instruction set of this
   processor, a session with an arena of its own. What is left of the model is freed. */
static ptq_status ptq__net_of(ptq_model *model, ptq_net **out, ptq_error *err) {
    ptq_net *net = NULL;
    ptq_status status = PTQ__NEW(NULL, &net, 1, "net", err);
    PTQ__THEN(status, ptq__net_model(&model, &net->model, err));
    PTQ__THEN(status, ptq_plan_create(net->model, NULL, &net->plan, err));
    PTQ__THEN(status, ptq_session_create(net->plan, NULL, &net->session, err));
    ptq_model_free(model);
    PTQ__FINISH(status, ptq_net_free(net), net, out);
}

/* Files are checked as they are parsed, and so nothing here has to be. */
PTQ_API ptq_status ptq_net_open_memory(const void *bytes, size_t size, ptq_net **out,
                                       ptq_error *err) {
    ptq_model *model = NULL;
    PTQ__TRY(ptq_model_parse(bytes, size, NULL, &model, err));
    return ptq__net_of(model, out, err);
}

/* Backwards: a session belongs to a plan, a plan to a model. What a failure left out is NULL. */
PTQ_API void ptq_net_free(ptq_net *net) {
    if (!net)
        return;
    ptq_session_free(net->session);
    ptq_plan_free(net->plan);
    ptq_model_free(net->model);
    ptq__free(NULL, net);
}

/* Pixels in, logits out: preprocessing and quantization of the input are part of the plan. */
PTQ_API ptq_status ptq_net_run(ptq_net *net, const uint8_t *pixels, float *logits, ptq_error *err) {
    return ptq_run(net->session, pixels, 1, logits, NULL, err);
}

/* The answer alone, without its logits. */
PTQ_API ptq_status ptq_net_classify(ptq_net *net, const uint8_t *pixels, int *best,
                                    ptq_error *err) {
    return ptq_classify(net->session, pixels, 1, best, err);
}

#ifndef PTQ_NO_STDIO
/* As from memory: the file is read whole, and closed, before it is parsed. */
PTQ_API ptq_status ptq_net_open(const char *path, ptq_net **out, ptq_error *err) {
    ptq_model *model = NULL;
    PTQ__TRY(ptq_model_load(path, NULL, &model, err));
    return ptq__net_of(model, out, err);
}

#ifndef PTQ_RUN_ONLY
enum { PTQ__NET_SAMPLES = 1000 };

/* Calibrates the plan of the float model, and converts that; images that are learned from must be
   those calibrated on. At most a sample is looked at: more would hardly change the ranges. */
static ptq_status ptq__net_quantize(const ptq_net *net, const ptq_dataset *data,
                                    ptq_convert_options *options, ptq_model **out, ptq_error *err) {
    ptq_calibration *calibration = NULL;
    size_t n = data->count < PTQ__NET_SAMPLES ? data->count : (size_t)PTQ__NET_SAMPLES;
    size_t *index = NULL;
    ptq_subset subset;
    ptq_status status = PTQ__NEW(NULL, &index, n, "a sample", err);
    PTQ__THEN(status, ptq_sample(data, n, 42, index, NULL, err));
    PTQ__THEN(status, ptq_subset_open(&subset, data, index, n, err));
    PTQ__THEN(status, ptq_calibrate(net->plan, &subset.dataset, NULL, &calibration, err));
    options->images = &subset.dataset;
    PTQ__THEN(status, ptq_convert(net->model, calibration, options, out, NULL, err));
    ptq_calibration_free(calibration);
    ptq__free(NULL, index);
    return status;
}

/* From files to a file: load, fuse, plan; sample, calibrate, convert; a vector for the self-test;
   save. What was made is released in reverse, whatever failed. */
PTQ_API ptq_status ptq_quantize_files(const char *model_path, const char *data_path,
                                      const char *out_path, const char *scheme, ptq_error *err) {
    ptq_convert_options options;
    ptq_model *quantized = NULL;
    ptq_cifar10 *data = NULL;
    ptq_net *net = NULL;
    memset(&options, 0, sizeof options);
    PTQ__TRY(ptq_preset(scheme ? scheme : "best", &options.scheme, err));
    PTQ__FAIL_IF(!strcmp(model_path, out_path), PTQ_INVALID_ARGUMENT,
                 "%s would be overwritten; give the quantized model another name", out_path);
    ptq_status status = ptq_net_open(model_path, &net, err);
    PTQ__THEN(status, ptq_cifar10_open(data_path, PTQ_SPLIT_TRAIN, NULL, &data, err));
    PTQ__THEN(status, ptq__net_quantize(net, ptq_cifar10_dataset(data), &options, &quantized, err));
    PTQ__THEN(status, ptq_self_test_add(quantized, err));
    PTQ__THEN(status, ptq_model_save(quantized, out_path, err));
    ptq_model_free(quantized);
    ptq_cifar10_free(data);
    ptq_net_free(net);
    return status;
}

/* Each model runs by itself, and only the answers stay: labels, predictions and logits of every
   image. Images and labels are the same for both, so that the answers can be compared image by
   image. */
PTQ_API ptq_status ptq_measure_files(const char *model_path, const char *baseline_path,
                                     const char *data_path, ptq_comparison *out, ptq_error *err) {
    const char *path[2] = {baseline_path, model_path};
    ptq_evaluation seen[2]; /* by the baseline, by the model */
    ptq_cifar10 *data = NULL;
    ptq_status status = ptq_cifar10_open(data_path, PTQ_SPLIT_TEST, NULL, &data, err);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < 2 && !status; i++) {
        ptq_net *net = NULL;
        status = ptq_net_open(path[i], &net, err);
        PTQ__THEN(status, ptq_evaluate(net->plan, ptq_cifar10_dataset(data), NULL, &seen[i], err));
        ptq_net_free(net);
    }
    PTQ__THEN(status, ptq_compare(&seen[0], &seen[1], out, err));
    for (int i = 0; i < 2; i++)
        ptq_release(&seen[i].memory);
    ptq_cifar10_free(data);
    return status;
}
#endif /* PTQ_RUN_ONLY */
#endif /* PTQ_NO_STDIO */

/* =============================================================================================
   PART TWO: FILES
   Models, graphs, calibrations and images as bytes, read as if an enemy had written them; and what
   is put into words for people.
   ============================================================================================= */

/* ---- [METADATA] ---------------------------------------------------------------------------------
   Pairs of strings that travel with a model, in the order in which they were set, few enough to be
   searched. Models and archives, which are files in memory, share these functions. */

/* Readers walk over a text by cutting pieces off its front; nothing is copied, so that the text
   must stay as long as its pieces are used. Whether a piece is a certain word: */
static int ptq__span_is(ptq__span span, const char *text) {
    return span.n == strlen(text) && !memcmp(span.p, text, span.n);
}

/* Cuts off and returns what stands before the first `separator`; everything where there is none. */
static ptq__span ptq__cut(ptq__span *rest, char separator) {
    ptq__span head = *rest;
    if (!head.n)
        return head;
    const char *at = (const char *)memchr(rest->p, separator, rest->n);
    size_t taken = at ? (size_t)(at - rest->p) + 1 : rest->n;
    head.n = at ? taken - 1 : taken;
    rest->p += taken;
    rest->n -= taken;
    return head;
}

/* Bytes of the UTF-8 sequence that starts at p and ends before `end`; 0 if there is none: cut
   short, overlong, a surrogate, beyond U+10FFFF (RFC 3629). The bits of all bytes, less the marks,
   are the character; each length has a smallest one. */
static int ptq__utf8_length(const char *p, const char *end) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c = (unsigned char)*p;
    int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (n < 2 || end - p < n)
        return n < 2 ? n : 0;
    c &= 0xffu >> (n + 1);
    for (int i = 1; i < n; i++) {
        if (((unsigned char)p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | ((unsigned char)p[i] & 0x3f);
    }
    return c < least[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff ? 0 : n;
}

/* Files hold their texts in UTF-8: what is not would be written, and refused when it is read. */
static ptq_status ptq__check_utf8(const char *text, const char *what, ptq_error *err) {
    const char *end = text + strlen(text);
    while (text < end) {
        int n = ptq__utf8_length(text, end);
        PTQ__FAIL_IF(!n, PTQ_INVALID_ARGUMENT, "%s is not text in UTF-8", what);
        text += n;
    }
    return PTQ_OK;
}

static void ptq__free_metas(ptq_meta *meta, int metas, const ptq_allocator *allocator) {
    for (int i = 0; i < metas; i++)
        ptq__free(allocator, meta[i].key);
    ptq__free(allocator, meta);
}

static int ptq__find_meta(const ptq_meta *meta, int metas, const char *key) {
    int i = metas - 1;
    while (i >= 0 && strcmp(meta[i].key, key))
        i--;
    return i;
}

/* One more pair, whose strings lie behind each other in one piece of memory, "key\0value\0". That
   is the list's from now on; after a failure it is gone. */
static ptq_status ptq__add_meta(ptq_meta **meta, int *metas, char *pair,
                                const ptq_allocator *allocator, ptq_error *err) {
    size_t n = (size_t)*metas;
    ptq_meta *larger = NULL;
    ptq_status status = PTQ__NEW(allocator, &larger, n + 1, "metadata", err);
    if (status) {
        ptq__free(allocator, pair);
        return status;
    }
    if (n)
        memcpy(larger, *meta, n * sizeof *larger);
    larger[n].key = pair;
    larger[n].value = pair + strlen(pair) + 1;
    ptq__free(allocator, *meta);
    *meta = larger;
    ++*metas;
    return PTQ_OK;
}

static void ptq__drop_meta(ptq_meta *meta, int *metas, const char *key,
                           const ptq_allocator *allocator) {
    int i = ptq__find_meta(meta, *metas, key);
    if (i < 0)
        return;
    ptq__free(allocator, meta[i].key);
    memmove(&meta[i], &meta[i + 1], (size_t)(--*metas - i) * sizeof *meta);
}

/* Sets a key to a copy of `value`, in its place if it has one; NULL removes it. */
static ptq_status ptq__set_meta(ptq_meta **meta, int *metas, const char *key, const char *value,
                                const ptq_allocator *allocator, ptq_error *err) {
    int i = ptq__find_meta(*meta, *metas, key);
    size_t length = strlen(key) + 1;
    char *pair = NULL;
    if (!value) {
        ptq__drop_meta(*meta, metas, key, allocator);
        return PTQ_OK;
    }
    PTQ__TRY(ptq__check_utf8(key, "a key of metadata", err));
    PTQ__TRY(ptq__check_utf8(value, key, err));
    PTQ__TRY(PTQ__NEW(allocator, &pair, length + strlen(value) + 1, "metadata", err));
    memcpy(pair, key, length);
    memcpy(pair + length, value, strlen(value));
    if (i < 0)
        return ptq__add_meta(meta, metas, pair, allocator, err);
    ptq__free(allocator, (*meta)[i].key);
    (*meta)[i].key = pair;
    (*meta)[i].value = pair + length;
    return PTQ_OK;
}

PTQ_API const char *ptq_model_get_meta(const ptq_model *model, const char *key) {
    int i = ptq__find_meta(model->meta, model->metas, key);
    return i < 0 ? NULL : model->meta[i].value;
}

/* Keys that only the file format writes. */
static const char ptq__own_metas[][15] = {"format", "format_version", "graph"};

PTQ_API ptq_status ptq_model_set_meta(ptq_model *model, const char *key, const char *value,
                                      ptq_error *err) {
    for (int i = 0; i < 3; i++)
        PTQ__FAIL_IF(!strcmp(key, ptq__own_metas[i]), PTQ_INVALID_ARGUMENT,
                     "metadata '%s' is written by the file format itself", key);
    return ptq__set_meta(&model->meta, &model->metas, key, value, &model->allocator, err);
}

#ifndef PTQ_RUN_ONLY
/* ---- [WORDS] ------------------------------------------------------------------------------------
   Schemes and calibrations in words, for people and for the metadata. */

/* "w4 per-channel mse refitted, a6 u8 mse fitted, equalized": first the weights, then the
   activations, then the model as a whole. What does not count in a mode is not said. */
PTQ_API size_t ptq_scheme_write(const ptq_scheme *scheme, char *buffer, size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    ptq_scheme copy = *scheme;
    const ptq_scheme *s = &copy;
    ptq__default_scheme(&copy);
    if (s->mode == PTQ_MODE_FLOAT || s->mode == PTQ_MODE_HALF) {
        ptq__put_string(&text, ptq_name(PTQ_NAMES_MODE, s->mode));
        return text.length;
    }
    ptq__put(&text, "w%d %s%s%s %s%s", ptq__weight_bits(s),
             s->weight_per_tensor ? "per-tensor" : "per-channel", s->weight_affine ? " affine" : "",
             s->weight_full_range ? " full" : "", ptq_name(PTQ_NAMES_METHOD, s->weight_method),
             ptq__refits(s)                        ? " refitted"
             : s->rounding == PTQ_ROUNDING_LEARNED ? " learned"
                                                   : "");
    if (s->bias && s->rounding == PTQ_ROUNDING_NEAREST && s->mode == PTQ_MODE_INTEGER)
        ptq__put_string(&text, " bias-empirical");
    if (s->mode == PTQ_MODE_DYNAMIC) {
        ptq__put_string(&text, ", dynamic");
        return text.length;
    }
    ptq__put(&text, ", a%d %s%s %s", ptq__activation_bits(s), s->activation_signed ? "s8" : "u8",
             s->activation_symmetric ? " symmetric" : "",
             ptq_name(PTQ_NAMES_METHOD, s->activation_method));
    if (s->activation_method == PTQ_METHOD_PERCENTILE && s->percentile > 0)
        ptq__put(&text, " %g", (double)s->percentile);
    ptq__put(&text, "%s%s%s", ptq__below_8(s, s->fit_ranges) ? " fitted" : "",
             ptq__below_8(s, s->equalize) ? ", equalized" : "",
             s->code_logits ? ", logits coded" : "");
    return text.length;
}

/* Scheme and overrides into the metadata, for people: nothing reads them back. Likewise how many
   images the ranges come from, without which nobody could judge them. */
static ptq_status ptq__describe_scheme(ptq__converter *cv, ptq_error *err) {
    char line[1024], scheme[160];
    ptq__text text = ptq__text_over(line, sizeof line);
    ptq_scheme_write(&cv->options->scheme, scheme, sizeof scheme);
    ptq__put_string(&text, scheme);
    for (int i = 0; i < cv->options->overrides; i++) {
        ptq_scheme_write(&cv->options->override[i].scheme, scheme, sizeof scheme);
        ptq__put(&text, "; %s: %s", cv->options->override[i].pattern, scheme);
    }
    PTQ__TRY(ptq_model_set_meta(cv->model, "scheme", line, err));
    if (!cv->calibration)
        return PTQ_OK;
    text = ptq__text_over(line, sizeof line);
    ptq__put(&text, "%zu images of %d classes", cv->calibration->images, cv->calibration->classes);
    return ptq_model_set_meta(cv->model, "calibration", line, err);
}
/* What is odd but may be meant, one sentence a line. A count of classes says enough when some have
   no image; only otherwise is it asked whether they are about as many. Hashes are sorted, so that
   an image that occurs twice lies beside itself. */
PTQ_API size_t ptq_calibration_warnings(const ptq_calibration *calibration, char *buffer,
                                        size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    uint64_t least = UINT64_MAX, most = 0;
    size_t twice = 0;
    int missing = 0, top = 255;
    for (int c = 0; c < calibration->classes; c++) {
        uint64_t n = calibration->class_count[c];
        least = n < least ? n : least;
        most = n > most ? n : most;
        missing += n == 0;
    }
    for (size_t i = 1; i < calibration->images; i++)
        twice += calibration->hash[i] == calibration->hash[i - 1];
    while (top >= 0 && !calibration->pixel[top])
        top--;
    if (calibration->images < 100)
        ptq__put(&text, "Only %zu images: ranges will be uncertain; use at least 100.\n",
                 calibration->images);
    if (missing && most)
        ptq__put(&text, "%d of %d classes have no image: take some of every class.\n", missing,
                 calibration->classes);
    else if (most > 2 * least)
        ptq__put(&text, "Classes have from %llu to %llu images: take about as many of each.\n",
                 (unsigned long long)least, (unsigned long long)most);
    if (twice)
        ptq__put(&text, "%zu images occur more than once: take different ones.\n", twice);
    if (top >= 0 && top < 128)
        ptq__put(&text,
                 "No pixel is over %d where 0 to 255 is expected: pass raw pixels, not scaled"
                 " ones.\n",
                 top);
    return text.length;
}
#endif

/* ---- [GRAPH TEXT] --------------------------------------------------------------------------- */

/* A graph as text is for people: a node a line, with the keys that its operator takes.

       conv1 conv2d in=input channels=16 kernel=3x3 act=relu w=s8 q=u8:8:0.0235294:0

   One list has the keys, ptq__line_keys. Writing goes through it once, so that its order is that of
   every line; reading goes through it for each key that is found, in any order. Each has one
   expression for its value, which puts and reads it alike: so whatever is written can be read. A
   value that goes without saying puts nothing, and its key is left out. */

/* Numbers, here and in all other files. Read, they are refused unless the whole of a piece of text
   is one. */

/* An integer from low to high: at most 18 digits, and a '-'. 1 on success. */
static int ptq__read_int(ptq__span span, int64_t low, int64_t high, int64_t *out) {
    int64_t value = 0;
    size_t sign = span.n && span.p[0] == '-';
    for (size_t i = sign; i < span.n; i++) {
        if (span.p[i] < '0' || span.p[i] > '9' || i - sign >= 18)
            return 0;
        value = value * 10 + (span.p[i] - '0');
    }
    value = sign ? -value : value;
    if (span.n == sign || value < low || value > high)
        return 0;
    *out = value;
    return 1;
}

/* 10^n in double precision, by squaring; n within the range of double. */
static double ptq__pow10(int n) {
    double result = 1, base = 10;
    int k = n < 0 ? -n : n;
    for (; k; k >>= 1, base *= base)
        if (k & 1)
            result *= base;
    return n < 0 ? 1 / result : result;
}

/* The shortest decimal, digits * 10^exponent, that reads back as the same float, which is positive.
   Nine digits are enough for any float; fewer are tried first, so that 0.1f is 1 * 10^-1 and not
   100000001 * 10^-9. What files hold is written so: people can read it, and nothing is lost. First
   comes e with 10^e <= value < 10^(e + 1), then n digits, the first of which stands for 10^e. */
static uint64_t ptq__shortest(float value, int *exponent) {
    double v = (double)value;
    int e = 0;
    uint64_t digits = 0;
    while (v < ptq__pow10(e))
        e--;
    while (v >= ptq__pow10(e + 1))
        e++;
    for (int n = 1; n <= 9; n++) {
        *exponent = e - n + 1;
        digits = (uint64_t)(v * ptq__pow10(-*exponent) + 0.5);
        if ((float)((double)digits * ptq__pow10(*exponent)) == value)
            break;
    }
    return digits;
}

/* A float as people write it, "0.05", "1200", or "1.2e-7" where that would take many zeros. Digit p
   stands before the decimal point if p < whole; beyond the digits that there are, on either side,
   stand zeros. */
static void ptq__put_float(ptq__text *text, float value) {
    char digit[24];
    ptq__text digits = ptq__text_over(digit, sizeof digit);
    float size = value < 0 ? -value : value;
    int n, point, whole, exponent = 0;
    ptq__put_string(text, value < 0 ? "-" : "");
    if (!ptq__is_finite(size)) {
        ptq__put_string(text, size > 0 ? "inf" : "nan");
        return;
    }
    ptq__put_unsigned(&digits, size > 0 ? ptq__shortest(size, &exponent) : 0);
    n = (int)digits.length;
    point = n + exponent; /* digits before the decimal point; below 0: zeros behind it */
    whole = point > 10 || point < -4 ? 1 : point;
    for (int p = whole > 0 ? 0 : whole - 1; p < n || p < whole; p++) {
        if (p == whole)
            ptq__put_char(text, '.');
        ptq__put_char(text, p >= 0 && p < n ? digit[p] : '0');
    }
    if (whole != point) {
        ptq__put_char(text, 'e');
        ptq__put_signed(text, point - 1);
    }
}

static void ptq__skip(ptq__span *rest, size_t n) {
    rest->p += n;
    rest->n -= n;
}

/* A decimal number, "-12.5e-3", as a float: 1 on success, 0 if it is none or rounds to infinity.
   The first 17 or 18 digits make an integer, `digits`, which a power of ten then scales in double
   precision:

       value = digits * 10^exponent

   That is exact enough for every float that was written with nine digits to come back the same. */
static int ptq__read_float(ptq__span span, float *out) {
    const double most = 3.4028235677973366e38; /* halfway from FLT_MAX to 2^128 */
    double value = 0;
    uint64_t digits = 0;
    int64_t power = 0;
    int exponent = 0, seen = 0, point = 0;
    size_t i = span.n && (span.p[0] == '-' || span.p[0] == '+');
    for (; i < span.n && span.p[i] != 'e' && span.p[i] != 'E'; i++) {
        int digit = span.p[i] - '0', more = digits < 100000000000000000u;
        if (span.p[i] == '.' && !point) {
            point = 1;
            continue;
        }
        if (digit < 0 || digit > 9 || i > 400)
            return 0;
        seen = 1;
        digits = more ? digits * 10 + (uint64_t)digit : digits;
        exponent += !more - point; /* a digit more than counts: ten times as much */
    }
    if (i < span.n) { /* behind the e */
        ptq__span rest = {span.p + i + 1, span.n - i - 1};
        if (rest.n > 1 && rest.p[0] == '+' && rest.p[1] != '-')
            ptq__skip(&rest, 1);
        seen = seen && ptq__read_int(rest, -400, 400, &power);
    }
    exponent += (int)power;
    if (!seen || (digits && exponent > 300))
        return 0;
    if (digits && exponent >= -300) /* below is nothing that a float could hold */
        value = exponent < 0 ? (double)digits / ptq__pow10(-exponent)
                             : (double)digits * ptq__pow10(exponent);
    if (value >= most)
        return 0;
    *out = (float)(span.p[0] == '-' ? -value : value);
    return 1;
}

/* A line while it is written or read. */
typedef struct ptq__line {
    ptq_model *model; /* which holds the nodes of the lines before */
    ptq_node node;
    ptq_type weight_type; /* of its weights, which the file holds */
    int weight_bits;
    ptq__text *out;        /* to put it into; NULL: reading */
    size_t before, behind; /* writing: where the key at hand begins and ends */
    ptq__span key, value;  /* reading: the key at hand, and what is left to be read of its value */
    unsigned seen;         /* keys that were read, as bits */
    int known, good;       /* the key is one of this node's; its value could be used */
} ptq__line;

/* Where a line, and JSON below, is written to; NULL: it is read. What only reads is compiled
   without the half that writes. */
#ifdef PTQ_RUN_ONLY
#define PTQ__OUT(line) ((void)(line), (ptq__text *)NULL)
#else
#define PTQ__OUT(line) ((line)->out)
#endif

/* Whether the turn of a key has come that the node takes. Writing puts it, and takes the one before
   back if that got no value; reading, it is the one that was found, for the first time. */
static int ptq__line_key(ptq__line *line, const char *name, unsigned bit) {
    ptq__text *out = PTQ__OUT(line);
    int takes = ptq__has_key(&line->node, bit);
    if (!out) {
        takes = takes && !(line->seen & bit) && ptq__span_is(line->key, name);
        line->seen |= takes ? bit : 0;
        return takes ? (line->known = 1) : 0;
    }
    if (out->length == line->behind) {
        out->length = line->before;
        if (out->length < out->size)
            out->data[out->length] = 0;
    }
    line->before = out->length;
    if (takes)
        ptq__put(out, " %s=", name);
    line->behind = takes ? out->length : 0;
    return takes;
}

/* Steps over a piece of text, if it comes next. */
static int ptq__skip_text(ptq__span *rest, const char *piece) {
    size_t n = strlen(piece);
    if (rest->n < n || memcmp(rest->p, piece, n))
        return 0;
    ptq__skip(rest, n);
    return 1;
}

/* Cuts off the characters of a number, of which the functions that read it know more. */
static ptq__span ptq__cut_number(ptq__span *rest) {
    ptq__span number = *rest;
    while (rest->n && rest->p[0] && strchr("+-.eE0123456789", rest->p[0]))
        ptq__skip(rest, 1);
    number.n -= rest->n;
    return number;
}

/* A fixed piece of text. Written if `given`; 1 if it is given, or what comes next. */
static int ptq__line_text(ptq__line *line, const char *piece, int given) {
    if (!PTQ__OUT(line))
        return ptq__skip_text(&line->value, piece);
    ptq__put_string(PTQ__OUT(line), given ? piece : "");
    return given;
}

/* n integers from `low` to `high`. */
static int ptq__line_integers(ptq__line *line, const char *between, int n, int low, int high,
                              int *value) {
    for (int i = 0; i < n; i++) {
        int64_t number = value[i];
        if (i > 0 && !ptq__line_text(line, between, 1))
            return 0;
        if (PTQ__OUT(line))
            ptq__put_signed(PTQ__OUT(line), number);
        else if (!ptq__read_int(ptq__cut_number(&line->value), low, high, &number))
            return 0;
        value[i] = (int)number;
    }
    return 1;
}

static int ptq__line_float(ptq__line *line, float *value) {
    if (!PTQ__OUT(line))
        return ptq__read_float(ptq__cut_number(&line->value), value);
    ptq__put_float(PTQ__OUT(line), *value);
    return 1;
}

/* "3x3": n whole numbers from 1, or from 0 where the largest is 1: a flag. Where all are `usual`
   nothing is written. */
static int ptq__value_numbers(ptq__line *line, int *number, int n, int most, int usual) {
    int is_usual = PTQ__OUT(line) != NULL;
    for (int i = 0; i < n; i++)
        is_usual &= number[i] == usual;
    return is_usual || ptq__line_integers(line, "x", n, most > 1, most, number);
}

/* "conv1" or "conv1,block1.add.relu": nodes, or tensors fused into them, of earlier lines. */
static int ptq__value_inputs(ptq__line *line) {
    int *input = line->node.input;
    for (int k = 0; k < 2 && (PTQ__OUT(line) ? input[k] >= 0 : k == 0 || line->value.n); k++)
        if (PTQ__OUT(line)) {
            ptq__put(PTQ__OUT(line), k ? ",%s" : "%s", line->model->node[input[k]].name);
        } else {
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
    if (!PTQ__OUT(line))
        return ptq__read_name(ptq__cut(&line->value, ' '), node->out);
    ptq__put_string(PTQ__OUT(line), strcmp(node->out, node->name) ? node->out : "");
    return 1;
}

/* "127.5,127.5,127.5": mean or standard deviation, a number for each channel of the image, whose
   shape stands before. Both are written when one of them is not the usual one. */
static int ptq__value_pixels(ptq__line *line, float *number) {
    int usual = PTQ__OUT(line) && ptq__is_plain(line->model), channels = line->node.shape[2];
    if (usual || channels > PTQ_MAX_PIXEL_CHANNELS)
        return usual;
    for (int c = 0; c < channels; c++)
        if ((c > 0 && !ptq__line_text(line, ",", 1)) || !ptq__line_float(line, &number[c]))
            return 0;
    return 1;
}

/* "same", which is not written, "valid", or "0,1,1,0": top, left, bottom, right. */
static int ptq__value_padding(ptq__line *line) {
    ptq_padding *padding = &line->node.padding;
    if (ptq__line_text(line, "valid", *padding == PTQ_PADDING_VALID))
        *padding = PTQ_PADDING_VALID;
    else if (PTQ__OUT(line) ? *padding == PTQ_PADDING_EXPLICIT : !ptq__line_text(line, "same", 0)) {
        *padding = PTQ_PADDING_EXPLICIT;
        return ptq__line_integers(line, ",", 4, 0, PTQ_MAX_KERNEL, line->node.pad);
    }
    return 1;
}

/* One of two, of which `usual`, 0, is not written. */
static int ptq__value_either(ptq__line *line, int *value, const char *usual, const char *other) {
    *value = ptq__line_text(line, other, *value);
    return *value || ptq__line_text(line, usual, 0);
}

/* Two words, 1 and 2, of which the first may be how the second begins. Returns which one is given,
   or comes next; 0: none, which is not written. */
static int ptq__value_word(ptq__line *line, int given, const char *first, const char *second) {
    if (ptq__line_text(line, second, given == 2))
        return 2;
    return ptq__line_text(line, first, given == 1);
}

/* "silu", "leaky_relu:0.01", "clip:-1:1": a function and its numbers. */
static int ptq__value_function(ptq__line *line) {
    ptq_node *node = &line->node;
    ptq__span rest = line->value, name = ptq__cut(&rest, ':');
    int found = PTQ__OUT(line) ? (int)node->function
                               : ptq_find_name(PTQ_NAMES_FUNCTION, ptq__quoted(name).text);
    const char *word = found < 0 ? NULL : ptq_name(PTQ_NAMES_FUNCTION, (unsigned)found);
    if (!word || !ptq__line_text(line, word, 1))
        return 0;
    node->function = (ptq_function)found;
    for (int k = 0; k < ptq__function_numbers(node->function); k++)
        if (!ptq__line_text(line, ":", 1) || !ptq__line_float(line, k ? &node->beta : &node->alpha))
            return 0;
    return 1;
}

static int ptq__value_act(ptq__line *line, ptq_activation *act) {
    *act = (ptq_activation)ptq__value_word(line, (int)*act, "relu", "relu6");
    return *act != PTQ_ACTIVATION_NONE;
}

/* Which operand of a fused addition the residual is. */
static int ptq__value_residual(ptq__line *line, ptq_residual *residual) {
    *residual = (ptq_residual)ptq__value_word(line, (int)*residual, "first", "second");
    return *residual != PTQ_RESIDUAL_NONE;
}

/* "s8", "u4", "f16": the type of the weights, which the file holds; float is not mentioned. */
static int ptq__value_weight(ptq__line *line) {
    ptq_type *type = &line->weight_type;
    int is_signed = *type == PTQ_TYPE_S8 || *type == PTQ_TYPE_PACKED_S;
    if (PTQ__OUT(line) && *type == PTQ_TYPE_F32)
        return 1;
    if (ptq__line_text(line, "f16", *type == PTQ_TYPE_F16)) {
        *type = PTQ_TYPE_F16;
        return 1;
    }
    is_signed = ptq__line_text(line, "s", is_signed);
    if (!(is_signed || ptq__line_text(line, "u", 1)) || (!PTQ__OUT(line) && line->value.n != 1) ||
        !ptq__line_integers(line, "", 1, 2, 8, &line->weight_bits))
        return 0;
    if (line->weight_bits == 8)
        *type = is_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    else
        *type = is_signed ? PTQ_TYPE_PACKED_S : PTQ_TYPE_PACKED_U;
    return 1;
}

/* "u8:8:0.0235294:0": how a result is coded, by type, bits, scale and zero point. */
static int ptq__value_qparams(ptq__line *line, ptq_qparams *q) {
    int is_signed, zero_point = q->zero_point;
    if (PTQ__OUT(line) && q->type == PTQ_TYPE_F32)
        return 1;
    is_signed = ptq__line_text(line, "s8:", q->type == PTQ_TYPE_S8);
    if (!(is_signed || ptq__line_text(line, "u8:", 1)) ||
        !ptq__line_integers(line, "", 1, 2, 8, &q->bits) || !ptq__line_text(line, ":", 1) ||
        !ptq__line_float(line, &q->scale) || !ptq__line_text(line, ":", 1) ||
        !ptq__line_integers(line, "", 1, -128, 255, &zero_point))
        return 0;
    q->type = is_signed ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    q->zero_point = zero_point;
    return 1;
}

/* clang-format off */
#define PTQ__KEY(name, bit, value) \
    if (ptq__line_key(line, name, PTQ__KEY_##bit)) line->good = (value)

static void ptq__line_keys(ptq__line *line) {
    ptq_node *n = &line->node;
    PTQ__KEY("in", IN, ptq__value_inputs(line));
    PTQ__KEY("shape", SHAPE, ptq__value_numbers(line, n->shape, 3, PTQ_MAX_ELEMENTS, 0));
    PTQ__KEY("type", TYPE, ptq__value_either(line, &n->real, "u8", "f32")); /* pixels or reals */
    PTQ__KEY("mean", MEAN, ptq__value_pixels(line, line->model->mean));
    PTQ__KEY("std", STD, ptq__value_pixels(line, line->model->std));
    PTQ__KEY("channels", CHANNELS, ptq__value_numbers(line, &n->channels, 1, PTQ_MAX_ELEMENTS, 0));
    PTQ__KEY("kernel", KERNEL, ptq__value_numbers(line, n->kernel, 2, PTQ_MAX_KERNEL, 0));
    PTQ__KEY("stride", STRIDE, ptq__value_numbers(line, n->stride, 2, PTQ_MAX_KERNEL, 1));
    PTQ__KEY("dilation", DILATION, ptq__value_numbers(line, n->dilation, 2, PTQ_MAX_KERNEL, 1));
    PTQ__KEY("pad", PAD, ptq__value_padding(line));
    PTQ__KEY("ceil_mode", CEIL_MODE, ptq__value_numbers(line, &n->ceil_mode, 1, 1, 0));
    PTQ__KEY("include_pad", INCLUDE_PAD, ptq__value_numbers(line, &n->include_pad, 1, 1, 0));
    PTQ__KEY("groups", GROUPS, ptq__value_numbers(line, &n->groups, 1, PTQ_MAX_ELEMENTS, 1));
    PTQ__KEY("bias", BIAS, ptq__value_either(line, &n->no_bias, "1", "0"));
    PTQ__KEY("epsilon", EPSILON, ptq__line_float(line, &n->epsilon));
    PTQ__KEY("f", FUNCTION, ptq__value_function(line));
    PTQ__KEY("act", ACT, ptq__value_act(line, &n->act));
    PTQ__KEY("add", ADD, ptq__value_residual(line, &n->residual));
    PTQ__KEY("add_act", ADD_ACT, ptq__value_act(line, &n->add_act));
    PTQ__KEY("w", W, ptq__value_weight(line));
    PTQ__KEY("dynamic", DYNAMIC, ptq__value_numbers(line, &n->dynamic, 1, 2, 0));
    PTQ__KEY("mid", MID, ptq__value_qparams(line, &n->mid));
    PTQ__KEY("q", Q, ptq__value_qparams(line, &n->q));
    PTQ__KEY("out", OUT, ptq__value_out(line));
    PTQ__KEY("output", OUTPUT, ptq__value_numbers(line, &n->output, 1, PTQ_MAX_NODES, 0));
    (void)ptq__line_key(line, "", 0);
}
/* clang-format on */

#ifndef PTQ_RUN_ONLY
static void ptq__put_node(ptq__text *text, const ptq_model *model, const ptq_node *node) {
    ptq__line line;
    memset(&line, 0, sizeof line);
    line.model = (ptq_model *)(uintptr_t)model; /* only read, here */
    line.node = *node;
    line.weight_type = node->param[PTQ_PARAM_WEIGHT].type;
    line.weight_bits = node->param[PTQ_PARAM_WEIGHT].bits;
    line.out = text;
    ptq__put(text, "%s %s", node->name, ptq_name(PTQ_NAMES_OP, node->op));
    ptq__line_keys(&line);
    ptq__put_char(text, '\n');
}

static void ptq__put_graph(ptq__text *text, const void *what) {
    const ptq_model *model = (const ptq_model *)what;
    ptq__put_string(text, "ptq-graph 1\n");
    for (int i = 0; i < model->nodes; i++)
        ptq__put_node(text, model, &model->node[i]);
}

PTQ_API size_t ptq_graph_write(const ptq_model *model, char *buffer, size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    ptq__put_graph(&text, model);
    return text.length;
}
#endif /* PTQ_RUN_ONLY */

/* NAME OP key=value ... The line is taken for itself here; ptq__append, which the builder uses too,
   checks it against the nodes before it and infers its shape. */
static ptq_status ptq__read_node(ptq_model *model, ptq__span text, int number, ptq_error *err) {
    ptq__span name = ptq__cut(&text, ' '), op_name = ptq__cut(&text, ' ');
    int op = ptq_find_name(PTQ_NAMES_OP, ptq__quoted(op_name).text);
    ptq__line line;
    ptq_node *node = &line.node;
    ptq_error inner;
    memset(&line, 0, sizeof line);
    line.model = model;
    PTQ__FAIL_IF(op < 0, PTQ_BAD_GRAPH,
                 "graph line %d: expected a name and an operator, found '%s %s'", number,
                 ptq__quoted(name).text, ptq__quoted(op_name).text);
    *node = ptq__blank((ptq_op)op, -1, -1);
    PTQ__FAIL_IF(!ptq__read_name(name, node->name), PTQ_BAD_GRAPH,
                 "graph line %d: '%s' is no node name", number, ptq__quoted(name).text);
    while (text.n) {
        ptq__span value = ptq__cut(&text, ' ');
        line.key = ptq__cut(&value, '=');
        line.value = value;
        line.known = 0;
        ptq__line_keys(&line);
        PTQ__FAIL_IF(!line.known, PTQ_BAD_GRAPH,
                     "graph line %d, node %s: a %s does not take '%s' here", number, node->name,
                     ptq_name(PTQ_NAMES_OP, node->op), ptq__quoted(line.key).text);
        PTQ__FAIL_IF(!line.good || line.value.n, PTQ_BAD_GRAPH,
                     "graph line %d, node %s: cannot use '%s' as %s%s", number, node->name,
                     ptq__quoted(value).text, ptq__quoted(line.key).text,
                     ptq__span_is(line.key, "in") ? ": inputs are earlier nodes" : "");
    }
    ptq_status status = ptq__append(model, node, line.weight_type, line.weight_bits, &inner);
    PTQ__FAIL_IF(status, status, "graph line %d: %s", number, inner.text);
    return PTQ_OK;
}

/* Nodes get parameters of zeros unless the model is to stay `bare`: a file brings its own, which
   are not allocated by shapes that only the text claims, and the whole is checked once they are
   there. Memory for the nodes is taken once: so many as there are lines. */
static ptq_status ptq__read_graph(ptq__span text, int bare, const ptq_allocator *allocator,
                                  ptq_model **out, ptq_error *err) {
    ptq__span line = ptq__cut(&text, '\n'), lines = text;
    ptq_model *model = NULL;
    PTQ__FAIL_IF(!ptq__span_is(line, "ptq-graph 1"), PTQ_BAD_GRAPH,
                 "the graph text begins with '%s', expected is 'ptq-graph 1'",
                 ptq__quoted(line).text);
    PTQ__TRY(ptq_model_create(allocator, &model, err));
    while (ptq__cut(&lines, '\n').n && model->capacity < PTQ_MAX_NODES)
        model->capacity++;
    model->bare = bare;
    ptq_status status =
        PTQ__NEW(&model->allocator, &model->node, (size_t)model->capacity, "nodes", err);
    for (int number = 2; text.n && !status; number++) {
        line = ptq__cut(&text, '\n');
        status = line.n ? ptq__read_node(model, line, number, err) : PTQ_OK;
    }
    if (!bare)
        PTQ__THEN(status, ptq_model_check(model, err));
    PTQ__FINISH(status, ptq_model_free(model), model, out);
}

PTQ_API ptq_status ptq_graph_parse(const char *text, size_t length, const ptq_allocator *allocator,
                                   ptq_model **out, ptq_error *err) {
    ptq__span span = {text, length};
    return ptq__read_graph(span, 0, allocator, out, err);
}

/* ---- [FILE] ------------------------------------------------------------------------------ */

/* A model file is a safetensors file:

       8 bytes  how long the header is, little-endian
       header   {"__metadata__":{"format":"ptq","format_version":"1","graph":"ptq-graph 1\n..."},
                 "conv1.bias":{"dtype":"I32","shape":[16],"data_offsets":[0,64]},
                 "conv1.weight":{"dtype":"I8","shape":[16,3,3,3],"data_offsets":[64,496]},...}
       data     the tensors, little-endian, at offsets that count from the end of the header

   It holds numbers and names, nothing that could be run, and Python reads it without a line of
   ours. Three layers read it here: JSON, in which calibrations are written too; the archive, which
   is any such file; and the model, an archive with the tensors that its graph asks for. Nothing
   that a file says is believed before it is checked, and memory is taken for what is there, never
   for what a number promises. */

/* A reader for JSON (RFC 8259) that keeps no tree and copies nothing: it stands at a place in the
   text and is asked for what should come next. The first failure stays: from then on nothing is
   read, loops over elements and members end, functions return 0. So whoever reads asks once, at the
   end. */
typedef struct ptq__json {
    const char *what, *start; /* the text, as messages call it, and where it starts */
    ptq__span rest;
    const char *wrong;           /* what was expected there; NULL while all is well */
    char key[PTQ_NAME_SIZE + 1]; /* of the member at hand; a longer one is cut, and no legal name */
    int known;                   /* 1: the member was read */
    ptq__text *out;              /* calibrations: to write it into; NULL: reading */
} ptq__json;

static ptq__json ptq__json_over(const char *what, const void *text, size_t size) {
    const char *start = (const char *)text;
    ptq__json json = {what, start, {start, size}, NULL, "", 0, NULL};
    return json;
}

/* Remembers what was expected, unless something went wrong before. Returns 0, a failure. */
static int ptq__json_wrong(ptq__json *json, const char *what) {
    json->wrong = json->wrong ? json->wrong : what;
    return 0;
}

static ptq_status ptq__json_status(const ptq__json *json, ptq_error *err) {
    PTQ__FAIL_IF(json->wrong, PTQ_BAD_FILE, "%s: expected %s at byte %zu", json->what, json->wrong,
                 (size_t)(json->rest.p - json->start));
    return PTQ_OK;
}

/* The next character that is not white space; 0 at the end. */
static char ptq__json_peek(ptq__json *json) {
    ptq__span *rest = &json->rest;
    while (rest->n && (*rest->p == ' ' || *rest->p == '\n' || *rest->p == '\t' || *rest->p == '\r'))
        ptq__skip(rest, 1);
    return (char)(rest->n ? *rest->p : 0);
}

static int ptq__json_take(ptq__json *json, char c, const char *what) {
    if (json->wrong || ptq__json_peek(json) != c)
        return ptq__json_wrong(json, what);
    ptq__skip(&json->rest, 1);
    return 1;
}

/* Goes on to the next element between brackets, "[]" or "{}": 1 if there is one. n counts them; at
   0, where it starts, the opening bracket is taken too. */
static int ptq__json_next(ptq__json *json, const char *brackets, const char *what, int *n) {
    if (*n == 0 && !ptq__json_take(json, brackets[0], what))
        return 0;
    if (!json->wrong && ptq__json_peek(json) == brackets[1]) {
        ptq__skip(&json->rest, 1);
        return 0;
    }
    if (json->wrong || (*n > 0 && !ptq__json_take(json, ',', "a comma")))
        return 0;
    ++*n;
    return 1;
}

static const char ptq__hex[] = "0123456789abcdef";

/* Cuts off exactly so many hexadecimal digits, at most 16. 1 on success. */
static int ptq__cut_hex(ptq__span *rest, int digits, uint64_t *out) {
    for (*out = 0; digits > 0; digits--) {
        char c = (char)(rest->n ? *rest->p : 0);
        const char *digit = strchr(ptq__hex, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
        if (!c || !digit)
            return 0;
        *out = *out << 4 | (uint64_t)(digit - ptq__hex);
        ptq__skip(rest, 1);
    }
    return 1;
}

/* Behind "\u": one code point, perhaps from a pair of surrogates, as UTF-8 (RFC 3629): a lead byte
   that tells how many follow, with six bits each. NUL is refused, since strings end with it. */
static int ptq__json_unicode(ptq__span *rest, ptq__text *out) {
    static const uint32_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    uint64_t code, low;
    if (!ptq__cut_hex(rest, 4, &code) || code == 0 || (code >= 0xdc00 && code < 0xe000))
        return 0;
    if (code >= 0xd800 && code < 0xdc00) {
        if (!ptq__skip_text(rest, "\\u") || !ptq__cut_hex(rest, 4, &low) || low < 0xdc00 ||
            low >= 0xe000)
            return 0;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    ptq__put_char(out, (char)(lead[more] | code >> (6 * more)));
    while (more-- > 0)
        ptq__put_char(out, (char)(0x80 | (code >> (6 * more) & 63)));
    return 1;
}

/* One character or escape of a string; 0 where it is not legal. */
static int ptq__json_char(ptq__span *rest, ptq__text *out) {
    static const char from[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
    const char *escape;
    if (ptq__skip_text(rest, "\\u"))
        return ptq__json_unicode(rest, out);
    if (ptq__skip_text(rest, "\\")) {
        escape = rest->n && *rest->p ? strchr(from, *rest->p) : NULL;
        if (!escape)
            return 0;
        ptq__put_char(out, plain[escape - from]);
        ptq__skip(rest, 1);
        return 1;
    }
    int n =
        rest->n && (unsigned char)*rest->p >= 32 ? ptq__utf8_length(rest->p, rest->p + rest->n) : 0;
    for (int i = 0; i < n; i++, ptq__skip(rest, 1))
        ptq__put_char(out, *rest->p);
    return n;
}

/* A string, decoded into a text. */
static int ptq__json_string(ptq__json *json, ptq__text *out) {
    ptq__span *rest = &json->rest;
    if (!ptq__json_take(json, '"', "a string"))
        return 0;
    while (!rest->n || *rest->p != '"')
        if (!ptq__json_char(rest, out))
            return ptq__json_wrong(json, rest->n ? "a legal character in a string"
                                                 : "the end of a string");
    ptq__skip(rest, 1);
    return 1;
}

/* "key":"value", as "key\0value" if a `pair` is wanted, or a string alone. */
static int ptq__json_strings(ptq__json *json, int pair, ptq__text *out) {
    if (!ptq__json_string(json, out) || !pair)
        return !json->wrong;
    ptq__put_char(out, 0);
    return ptq__json_take(json, ':', "a colon") && ptq__json_string(json, out);
}

/* The same in memory of its own: decoded twice, to count it and to keep it. */
static ptq_status ptq__json_strdup(ptq__json *json, int pair, const ptq_allocator *allocator,
                                   char **out, ptq_error *err) {
    ptq__text text = ptq__text_over(NULL, 0);
    ptq__span rest = json->rest;
    if (!ptq__json_strings(json, pair, &text))
        return ptq__json_status(json, err);
    PTQ__TRY(PTQ__NEW(allocator, out, text.length + 1, "a string", err));
    text = ptq__text_over(*out, text.length + 1);
    json->rest = rest;
    ptq__json_strings(json, pair, &text);
    return PTQ_OK;
}

/* The key of a member, and its colon. */
static int ptq__json_name(ptq__json *json) {
    ptq__text key = ptq__text_over(json->key, sizeof json->key);
    json->known = 0;
    return ptq__json_string(json, &key) && ptq__json_take(json, ':', "a colon");
}

/* The next member of an object: 1 if there is one. */
static int ptq__json_key(ptq__json *json, const char *what, int *n) {
    return ptq__json_next(json, "{}", what, n) && ptq__json_name(json);
}

/* Whether the turn of a member has come. Writing puts its key, and what stands before. */
static int ptq__member(ptq__json *json, const char *before, const char *key) {
    if (PTQ__OUT(json))
        ptq__put(PTQ__OUT(json), "%s\"%s\": ", before, key);
    else if (json->known || json->wrong || strcmp(json->key, key))
        return 0;
    return json->known = 1;
}

static int ptq__json_number(ptq__json *json, ptq__span *out) {
    ptq__json_peek(json);
    *out = ptq__cut_number(&json->rest);
    return out->n && !json->wrong ? 1 : ptq__json_wrong(json, "a number");
}

/* An integer as JSON has it: "-0" is one, "007" and "1e3" are not. */
static int ptq__json_integer(ptq__json *json, int64_t low, int64_t high, int64_t *value) {
    ptq__span span;
    if (PTQ__OUT(json)) {
        ptq__put_signed(PTQ__OUT(json), *value);
        return 1;
    }
    if (!ptq__json_number(json, &span))
        return 0;
    size_t sign = span.p[0] == '-';
    if ((span.n > sign + 1 && span.p[sign] == '0') || !ptq__read_int(span, low, high, value))
        return ptq__json_wrong(json, "an integer in range");
    return 1;
}

/* The elements of a list or an object: 1 as long as there is one more. Writing puts what stands
   between the `count` elements, `before` each and `after` the last. */
static int ptq__json_each(ptq__json *json, const char *brackets, const char *before,
                          const char *after, size_t count, int *n) {
    int more = (size_t)*n < count;
    if (!PTQ__OUT(json))
        return ptq__json_next(json, brackets, *brackets == '[' ? "a list" : "an object", n);
    if (*n == 0 || more)
        ptq__put_char(PTQ__OUT(json), *n ? ',' : brackets[0]);
    ptq__put_string(PTQ__OUT(json), more ? before : after);
    if (!more)
        ptq__put_char(PTQ__OUT(json), brackets[1]);
    *n += more;
    return more;
}

/* A list of n integers; reading, of so many at most. Returns how many there are. */
static int ptq__json_integers(ptq__json *json, int64_t low, int64_t high, void *values, int n) {
    int i = 0;
    while (ptq__json_each(json, "[]", "", "", (size_t)n, &i))
        if (i > n)
            ptq__json_wrong(json, "a shorter list");
        else
            ptq__json_integer(json, low, high, (int64_t *)values + i - 1);
    return i;
}

/* Nothing but white space may follow. */
static ptq_status ptq__json_end(ptq__json *json, ptq_error *err) {
    if (!json->wrong && (ptq__json_peek(json) || json->rest.n))
        ptq__json_wrong(json, "the end");
    return ptq__json_status(json, err);
}

/* Names of classes are shown to people and go into reports, hence no control characters, which a
   terminal would obey. */
static int ptq__is_class_name(const char *name, size_t length) {
    for (size_t i = 0; i < length && i < PTQ_CLASS_NAME_SIZE; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return 0;
    return length > 0 && length < PTQ_CLASS_NAME_SIZE;
}

/* The metadata that mean something. First ["cat", "dog"], names of classes: `count` gets how many
   there are, `wanted` the one at `index`, if there is. */
static ptq_status ptq__class_names(const ptq_model *model, int index, ptq__text *wanted, int *count,
                                   ptq_error *err) {
    const char *list = ptq_model_get_meta(model, "class_names");
    ptq__json json = ptq__json_over("metadata class_names", list, list ? strlen(list) : 0);
    char name[PTQ_CLASS_NAME_SIZE];
    for (*count = 0; list && ptq__json_next(&json, "[]", "a list", count);) {
        ptq__text text = ptq__text_over(name, sizeof name);
        if (ptq__json_string(&json, &text) && !ptq__is_class_name(name, text.length))
            ptq__json_wrong(&json, "names of 1 to 63 bytes without control characters");
        if (!json.wrong && *count - 1 == index)
            ptq__put_string(wanted, name);
    }
    return list ? ptq__json_end(&json, err) : PTQ_OK;
}

PTQ_API size_t ptq_class_name(const ptq_model *model, int index, char *buffer, size_t size) {
    ptq__text text = ptq__text_over(buffer, size);
    int count;
    (void)ptq__class_names(model, index < 0 ? INT_MAX : index, &text, &count, NULL);
    return text.length;
}

/* A name for each class, and one of two rules for pictures. */
static ptq_status ptq__check_metas(const ptq_model *model, ptq_error *err) {
    const char *resize = ptq_model_get_meta(model, "resize");
    const char *arithmetic = ptq_model_get_meta(model, "arithmetic");
    const int *shape = model->node[ptq_model_logits(model)].shape;
    int count, classes = (int)ptq__shape_elements(3, shape);
    PTQ__TRY(ptq__class_names(model, INT_MAX, NULL, &count, err));
    PTQ__FAIL_IF(ptq_model_get_meta(model, "class_names") && count != classes, PTQ_BAD_FILE,
                 "metadata class_names has %d names, the model has %d classes", count, classes);
    PTQ__FAIL_IF(arithmetic && ptq__arithmetic_of(model) == PTQ__ONNX && strcmp(arithmetic, "onnx"),
                 PTQ_BAD_FILE, "metadata arithmetic is '%s'; it must be onnx, xnnpack or fixed",
                 ptq__quoted(ptq__span_of(arithmetic)).text);
    PTQ__FAIL_IF(resize && strcmp(resize, "crop") && strcmp(resize, "stretch"), PTQ_BAD_FILE,
                 "metadata resize is '%s'; it must be crop or stretch",
                 ptq__quoted(ptq__span_of(resize)).text);
    return PTQ_OK;
}

/* safetensors' names of types, with the bytes of an element in the file. Where several become one
   type, the one to write comes first. Those with `type` below 0 the format knows, and this library
   skips. */
typedef struct ptq__dtype {
    char name[8];
    signed char type;
    unsigned char bytes;
} ptq__dtype;

static const ptq__dtype ptq__dtypes[] = {
    {"F32", PTQ_TYPE_F32, 4}, {"F16", PTQ_TYPE_F16, 2}, {"U8", PTQ_TYPE_U8, 1},
    {"I8", PTQ_TYPE_S8, 1},   {"I32", PTQ_TYPE_S32, 4}, {"BF16", PTQ_TYPE_F32, 2},
    {"F64", PTQ_TYPE_F32, 8}, {"I64", -1, 8},           {"U64", -1, 8},
    {"U32", -1, 4},           {"I16", -1, 2},           {"U16", -1, 2},
    {"BOOL", -1, 1},          {"F8_E4M3", -1, 1},       {"F8_E5M2", -1, 1},
};

enum { PTQ__DTYPES = sizeof ptq__dtypes / sizeof ptq__dtypes[0] };

/* Asked at run time: no standard macro tells it, and compilers fold it to a constant. */
static int ptq__host_is_le(void) {
    const uint16_t probe = 1;
    return *(const uint8_t *)&probe == 1;
}

/* Copies n elements of `bytes` bytes between the file's little-endian order and the host's. */
static void ptq__copy_le(void *to, const void *from, size_t n, int bytes) {
    uint8_t *d = (uint8_t *)to;
    const uint8_t *s = (const uint8_t *)from;
    size_t width = (size_t)bytes;
    if (width == 1 || ptq__host_is_le())
        memcpy(to, from, n * width);
    else
        for (size_t i = 0; i < n * width; i++)
            d[i] = s[i / width * width + (width - 1 - i % width)];
}

/* Half precision, and single:

       s eeeee mmmmmmmmmm                    value = (-1)^s 1.m 2^(e - 15)
       s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm    value = (-1)^s 1.m 2^(e - 127)

   Shifting by 13 bits rounds the mantissa; half of the last bit less one is added first, and one
   more where the result would be odd, so that ties go to even. A carry runs into the exponent,
   which is then the right one, infinity included. Below 2^-14 half precision has one exponent for
   all numbers: there the leading 1, which is not stored elsewhere, becomes visible and moves to the
   right. */
PTQ_API uint16_t ptq_f32_to_f16(float value) {
    uint32_t bits, sign, shift = 13;
    memcpy(&bits, &value, sizeof bits);
    sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits >= 0x47800000u) /* from 2^16: infinity, or NaN */
        return (uint16_t)(sign | (bits > 0x7f800000u ? 0x7e00u : 0x7c00u));
    if (bits < 0x33000000u) /* below 2^-25, half of the smallest number */
        return (uint16_t)sign;
    if (bits < 0x38800000u) { /* below 2^-14 */
        shift = 126 - (bits >> 23);
        bits = (bits & 0x7fffffu) | 0x800000u;
    } else {
        bits -= 112u << 23; /* the exponents' biases are 127 and 15 */
    }
    bits += (1u << (shift - 1)) - 1 + ((bits >> shift) & 1);
    return (uint16_t)(sign | (bits >> shift));
}

/* Exact: every half is a single. An exponent of 0 means mantissa * 2^-24, one of 31 means infinity
   or NaN. */
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

/* n numbers of BF16 (2 bytes each) or F64 (8) as single precision. BF16 is the upper half of a
   single. An F64 beyond the range of a single becomes infinite, and the check of the model refuses
   it; C leaves open what a cast makes of such a number. */
static void ptq__convert_le(float *to, const uint8_t *from, size_t n, int bytes) {
    for (size_t i = 0; i < n; i++, from += bytes) {
        uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 24;
        double wide = 0;
        if (bytes == 8) {
            ptq__copy_le(&wide, from, 1, bytes);
            bits = wide > 0 ? 0x7f800000 : 0xff800000;
        }
        if (bytes == 8 && !(wide > (double)FLT_MAX) && !(wide < -(double)FLT_MAX))
            to[i] = (float)wide;
        else
            memcpy(&to[i], &bits, sizeof bits);
    }
}

/* Its allocator lies in the archive itself, and so is copied before that goes. */
PTQ_API void ptq_archive_free(ptq_archive *archive) {
    ptq_allocator allocator;
    if (!archive)
        return;
    allocator = archive->allocator;
    for (int i = 0; i < archive->entries; i++) {
        ptq__free(&allocator, archive->entry[i].name);
        ptq_tensor_free(&archive->entry[i].tensor, &allocator);
    }
    ptq__free(&allocator, archive->entry);
    ptq__free_metas(archive->meta, archive->metas, &allocator);
    ptq__free(&allocator, archive);
}

/* The tensor of that name; NULL if there is none. */
static ptq_archive_entry *ptq__archive_entry(const ptq_archive *archive, const char *name) {
    for (int i = 0; i < archive->entries; i++)
        if (!strcmp(archive->entry[i].name, name))
            return &archive->entry[i];
    return NULL;
}

PTQ_API const ptq_tensor *ptq_archive_find(const ptq_archive *archive, const char *name) {
    const ptq_archive_entry *entry = ptq__archive_entry(archive, name);
    return entry ? &entry->tensor : NULL;
}

static const char *ptq__archive_meta(const ptq_archive *archive, const char *key) {
    int i = ptq__find_meta(archive->meta, archive->metas, key);
    return i < 0 ? NULL : archive->meta[i].value;
}

/* An entry more, with neither name nor tensor yet. */
static ptq_status ptq__archive_append(ptq_archive *archive, ptq_archive_entry **out,
                                      ptq_error *err) {
    PTQ__TRY(PTQ__GROW(&archive->allocator, &archive->entry, archive->entries, &archive->capacity,
                       "tensors", err));
    *out = &archive->entry[archive->entries++];
    memset(*out, 0, sizeof **out);
    return PTQ_OK;
}

/* Reading goes in three steps: the header is read into the names of the archive and a record for
   each; then all records are checked against each other and the size of the file; only then is any
   data touched. */

/* What the header says of a tensor, besides its name. */
typedef struct ptq__record {
    int entry; /* of the archive, which has the name */
    int dtype, rank;
    int64_t dim[PTQ_MAX_RANK]; /* the first four */
    int64_t offset[2];         /* where its bytes begin and end, from the end of the header on */
} ptq__record;

typedef struct ptq__header {
    ptq__json json;
    ptq_archive *archive;
    ptq__record *record; /* as many as archive->entries */
    int capacity;
} ptq__header;

static ptq_status ptq__tensor_error(const char *name, const char *what, ptq_error *err) {
    return ptq_error_set(err, PTQ_BAD_FILE, "tensor %s: %s", ptq__quoted(ptq__span_of(name)).text,
                         what);
}

/* "conv1.weight":{"dtype":"F32","shape":[16,3,3,3],"data_offsets":[0,1728]}, in any order; the name
   was read. A rank of more than four is counted only: such a tensor belongs to no model, but the
   file may have it. The bounds keep every product of sizes from overflowing. */
static ptq_status ptq__read_record(ptq__json *json, const char *name, ptq__record *record,
                                   ptq_error *err) {
    const char *all = "dtype, shape and data_offsets, each once", *wrong;
    char dtype[16];
    ptq__text text = ptq__text_over(dtype, sizeof dtype);
    int64_t dim[64];
    uint64_t elements = 1;
    int n = 0, rank = -1, offsets = -1, type = 0;
    while (ptq__json_key(json, "an object", &n)) {
        if (ptq__member(json, "", "dtype"))
            ptq__json_string(json, &text);
        if (ptq__member(json, "", "shape"))
            rank = ptq__json_integers(json, 0, (int64_t)1 << 40, dim, 64);
        if (ptq__member(json, "", "data_offsets"))
            offsets = ptq__json_integers(json, 0, (int64_t)1 << 56, record->offset, 2);
        if (!json->known)
            ptq__json_wrong(json, all);
    }
    while (type < PTQ__DTYPES && strcmp(ptq__dtypes[type].name, dtype))
        type++;
    wrong = json->wrong                                         ? json->wrong
            : n != 3 || !text.length || rank < 0 || offsets < 0 ? all
            : type == PTQ__DTYPES                               ? "a known dtype"
            : offsets != 2                                      ? "two offsets"
                                                                : NULL;
    for (int i = 0; i < rank && !wrong; i++) {
        if (dim[i] && elements > ((uint64_t)1 << 48) / (uint64_t)dim[i])
            wrong = "a shape of fewer than 2^48 elements";
        elements *= (uint64_t)dim[i];
        if (i < PTQ_MAX_RANK)
            record->dim[i] = dim[i];
    }
    PTQ__FAIL_IF(!name[0], PTQ_BAD_FILE, "file header: a tensor has an empty name");
    PTQ__FAIL_IF(wrong, PTQ_BAD_FILE, "tensor %s: expected %s in its header entry",
                 ptq__quoted(ptq__span_of(name)).text, wrong);
    record->dtype = type;
    record->rank = rank;
    if (record->offset[1] - record->offset[0] != (int64_t)elements * ptq__dtypes[type].bytes)
        return ptq__tensor_error(name, "its offsets do not agree with its shape and dtype", err);
    return PTQ_OK;
}

/* "__metadata__": strings by name. */
static ptq_status ptq__header_meta(ptq__json *json, ptq_archive *archive, ptq_error *err) {
    const ptq_allocator *allocator = &archive->allocator;
    int n = 0;
    while (ptq__json_next(json, "{}", "the metadata object", &n)) {
        char *pair = NULL;
        if (n > PTQ_MAX_NODES)
            ptq__json_wrong(json, "at most 4096 metadata entries");
        PTQ__TRY(ptq__json_strdup(json, 1, allocator, &pair, err));
        if (ptq__archive_meta(archive, pair))
            ptq__json_wrong(json, "every metadata key once");
        PTQ__TRY(ptq__add_meta(&archive->meta, &archive->metas, pair, allocator, err));
    }
    return PTQ_OK;
}

/* Entry k of the archive has record k. A name goes into an entry before it is known what it names;
   if that is the metadata, the entry is given back. */
static ptq_status ptq__read_header(ptq__header *header, ptq_error *err) {
    ptq__json *json = &header->json;
    ptq_archive *archive = header->archive;
    int n = 0, metas = 0;
    if (*json->rest.p != '{') /* the format allows no space before it */
        ptq__json_wrong(json, "a JSON object");
    while (ptq__json_next(json, "{}", "a JSON object", &n)) {
        ptq_archive_entry *entry;
        int k = archive->entries;
        PTQ__TRY(
            PTQ__GROW(&archive->allocator, &header->record, k, &header->capacity, "tensors", err));
        PTQ__TRY(ptq__archive_append(archive, &entry, err));
        PTQ__TRY(ptq__json_strdup(json, 0, &archive->allocator, &entry->name, err));
        ptq__json_take(json, ':', "a colon");
        if (strcmp(entry->name, "__metadata__")) {
            header->record[k].entry = k;
            PTQ__TRY(ptq__read_record(json, entry->name, &header->record[k], err));
            continue;
        }
        ptq__free(&archive->allocator, entry->name);
        archive->entries--;
        if (metas++)
            ptq__json_wrong(json, "__metadata__ once");
        PTQ__TRY(ptq__header_meta(json, archive, err));
    }
    return ptq__json_end(json, err);
}

/* Byte by byte: elements may be of any size and alignment. */
static void ptq__swap(uint8_t *a, uint8_t *b, size_t size) {
    for (; size > 0; size--, a++, b++) {
        uint8_t kept = *a;
        *a = *b;
        *b = kept;
    }
}

/* Heap sort (Williams 1964) of n elements of `size` bytes. The library sorts what files bring: heap
   sort needs no recursion and no memory, and has no bad case for an enemy to find; qsort promises
   none of these. Equal elements come in any order, so `before` decides ties where they matter.

   In a heap no element comes before its children: of element k these are 2k + 1 and 2k + 2. First
   the heap is built, from the middle, behind which there are no parents, down to element 0. Then
   the top, which is the last in order, goes behind the heap, again and again. Either way one
   element, `root`, may be out of place, and sinks until none of its children comes after it. */
static void ptq__sort(void *base, size_t n, size_t size, ptq__before *before, const void *context) {
    uint8_t *item = (uint8_t *)base;
    size_t start = n / 2, end = n, child;
    while (end > 1) {
        if (start > 0)
            start--;
        else
            ptq__swap(item, item + --end * size, size);
        for (size_t root = start; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && before(item + child * size, item + (child + 1) * size, context))
                child++;
            if (!before(item + root * size, item + child * size, context))
                break;
            ptq__swap(item + root * size, item + child * size, size);
        }
    }
}

static int ptq__name_before(const void *a, const void *b, const void *archive) {
    const ptq_archive_entry *entry = ((const ptq_archive *)archive)->entry;
    return strcmp(entry[((const ptq__record *)a)->entry].name,
                  entry[((const ptq__record *)b)->entry].name) < 0;
}

static int ptq__data_before(const void *a, const void *b, const void *context) {
    const ptq__record *r = (const ptq__record *)a, *s = (const ptq__record *)b;
    (void)context;
    return r->offset[0] != s->offset[0] ? r->offset[0] < s->offset[0] : r->offset[1] < s->offset[1];
}

/* Names unique; the data covered exactly, without overlap or hole, as the format demands: so no
   byte of a file is unaccounted for. Records are sorted; entries keep their order. */
static ptq_status ptq__check_layout(const ptq__header *header, uint64_t data_size, ptq_error *err) {
    const ptq_archive_entry *entry = header->archive->entry;
    ptq__record *record = header->record, *r;
    size_t n = (size_t)header->archive->entries;
    int64_t at = 0;
    ptq__sort(record, n, sizeof *record, ptq__name_before, header->archive);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(entry[record[i].entry].name, entry[record[i - 1].entry].name))
            return ptq__tensor_error(entry[record[i].entry].name, "occurs twice", err);
    ptq__sort(record, n, sizeof *record, ptq__data_before, NULL);
    for (r = record; n > 0; n--, r++) {
        const char *what = NULL;
        if (r->offset[0] != at)
            what = r->offset[0] < at ? "overlaps another tensor" : "a hole lies before its data";
        else if ((uint64_t)r->offset[1] > data_size)
            what = "its data end behind the end of the file; is the file truncated?";
        if (what)
            return ptq__tensor_error(entry[r->entry].name, what, err);
        at = r->offset[1];
    }
    PTQ__FAIL_IF((uint64_t)at != data_size, PTQ_BAD_FILE,
                 "%zu bytes behind the last tensor belong to none",
                 (size_t)(data_size - (uint64_t)at));
    return PTQ_OK;
}

/* The tensor of a record: borrowed where the caller allows it and its bytes lie as the host would
   have them, else copied. What this library has no type for, or no rank, keeps rank 0. */
static ptq_status ptq__read_tensor(const ptq__record *record, const uint8_t *data, int borrow,
                                   const ptq_allocator *allocator, ptq_archive_entry *out,
                                   ptq_error *err) {
    const ptq__dtype *dtype = &ptq__dtypes[record->dtype];
    const uint8_t *from = data + record->offset[0];
    size_t bytes = (size_t)(record->offset[1] - record->offset[0]), n = bytes / dtype->bytes;
    int dims[PTQ_MAX_RANK] = {1, 1, 1, 1}, rank = record->rank ? record->rank : 1;
    int other = dtype->type == PTQ_TYPE_F32 && dtype->bytes != 4;
    if (dtype->type < 0 || rank > PTQ_MAX_RANK || n == 0)
        return PTQ_OK;
    PTQ__FAIL_IF(n > PTQ_MAX_ELEMENTS, PTQ_BAD_FILE, "tensor %s: more than %d elements",
                 ptq__quoted(ptq__span_of(out->name)).text, PTQ_MAX_ELEMENTS);
    for (int i = 0; i < record->rank; i++)
        dims[i] = (int)record->dim[i];
    if (borrow && !other && (dtype->bytes == 1 || ptq__host_is_le()) &&
        (uintptr_t)from % dtype->bytes == 0)
        return ptq_tensor_borrow(&out->tensor, (ptq_type)dtype->type, 0, rank, dims,
                                 (void *)(uintptr_t)from, bytes, err);
    PTQ__TRY(ptq_tensor_create(&out->tensor, (ptq_type)dtype->type, 0, rank, dims, allocator, err));
    if (other)
        ptq__convert_le((float *)out->tensor.data, from, n, dtype->bytes);
    else
        ptq__copy_le(out->tensor.data, from, n, dtype->bytes);
    return PTQ_OK;
}

PTQ_API ptq_status ptq_archive_create(const ptq_allocator *allocator, ptq_archive **out,
                                      ptq_error *err) {
    ptq_archive *archive = NULL;
    PTQ__TRY(PTQ__NEW(allocator, &archive, 1, "archive", err));
    archive->allocator = ptq__allocator(allocator);
    *out = archive;
    return PTQ_OK;
}

/* The length of the header is the one number that is used before it is known whether this is such a
   file at all; so it is held against the size of the file first. */
PTQ_API ptq_status ptq_archive_parse(const void *bytes, size_t size,
                                     const ptq_load_options *options, ptq_archive **out,
                                     ptq_error *err) {
    const uint8_t *file = (const uint8_t *)bytes;
    const uint64_t most = 100000000; /* the format's own limit */
    uint64_t length = 0;
    ptq_archive *archive = NULL;
    ptq__header header;
    if (size >= 8)
        ptq__copy_le(&length, file, 1, 8);
    PTQ__FAIL_IF(size < 8 || length > size - 8 || length > most || length < 2, PTQ_BAD_FILE,
                 "not a safetensors file, or truncated: %zu bytes, the header should have %llu",
                 size, (unsigned long long)length);
    PTQ__TRY(ptq_archive_create(options ? &options->allocator : NULL, &archive, err));
    memset(&header, 0, sizeof header);
    header.json = ptq__json_over("file header", file, 8 + (size_t)length);
    ptq__skip(&header.json.rest, 8);
    header.archive = archive;
    file += 8 + length;
    ptq_status status = ptq__read_header(&header, err);
    PTQ__THEN(status, ptq__check_layout(&header, size - 8 - length, err));
    for (int i = 0; i < archive->entries && !status; i++)
        status =
            ptq__read_tensor(&header.record[i], file, options && options->borrow,
                             &archive->allocator, &archive->entry[header.record[i].entry], err);
    ptq__free(&archive->allocator, header.record);
    PTQ__FINISH(status, ptq_archive_free(archive), archive, out);
}

PTQ_API void ptq_bytes_free(void *bytes, const ptq_allocator *allocator) {
    ptq__free(allocator, bytes);
}

/* Models in archives. A node's tensors are named after it, as PyTorch does: conv1.weight,
   conv1.bias, bn1.running_mean; integer weights have conv1.weight_scale beside them. */
typedef struct ptq__param_text {
    char text[PTQ_NAME_SIZE + 32];
} ptq__param_text;

static ptq__param_text ptq__full_name(const ptq_node *node, const char *param) {
    ptq__param_text name;
    ptq__text text = ptq__text_over(name.text, sizeof name.text);
    ptq__put(&text, "%s.%s", node->name, param);
    return name;
}

/* How a tensor lies in a file: codes of fewer than 8 bits, which the format has no type for, as
   bytes, O rows of as many as an output channel takes. */
static ptq_tensor ptq__as_stored(const ptq_tensor *tensor) {
    ptq_tensor stored = *tensor;
    if (ptq__is_packed(tensor->type)) {
        stored.type = PTQ_TYPE_U8;
        stored.rank = 2;
        stored.dim[1] = (int)(tensor->size / (size_t)tensor->dim[0]);
        stored.dim[2] = stored.dim[3] = 1;
    }
    return stored;
}

#ifdef PTQ_RUN_ONLY
static ptq_status ptq__guess_graph(const ptq_archive *archive, ptq_model **out, ptq_error *err) {
    (void)archive;
    (void)out;
    return ptq_error_set(err, PTQ_UNSUPPORTED,
                         "the file has no graph in its metadata; guessing that of ResNet8 was left"
                         " out by the macro PTQ_RUN_ONLY");
}
#else
/* A graph for a file that has none: ResNet8, if the shapes of its first and last layer say so. */
static ptq_status ptq__guess_graph(const ptq_archive *archive, ptq_model **out, ptq_error *err) {
    const ptq_tensor *first = ptq_archive_find(archive, "conv1.weight");
    const ptq_tensor *last = ptq_archive_find(archive, "fc.weight");
    const char *meta = ptq__archive_meta(archive, "epsilon");
    float epsilon = 1e-3f;
    ptq_node *node;
    PTQ__FAIL_IF(!first || !last || first->rank != 4 || last->rank != 2 ||
                     last->dim[1] != 4 * first->dim[0],
                 PTQ_BAD_FILE,
                 "the file has no graph in its metadata, and its tensors are not those of ResNet8"
                 " (conv1.weight to fc.bias)");
    PTQ__FAIL_IF(meta && !ptq__read_float(ptq__span_of(meta), &epsilon), PTQ_BAD_FILE,
                 "metadata 'epsilon' is not a number: %s", ptq__quoted(ptq__span_of(meta)).text);
    PTQ__TRY(ptq__build_resnet8(32, first->dim[0], last->dim[0], 1, &archive->allocator, out, err));
    for (int i = 0; i < (*out)->nodes; i++) {
        node = &(*out)->node[i];
        if (node->op == PTQ_OP_BATCH_NORM)
            node->epsilon = epsilon;
        /* It may be without biases, as layers before a batch norm are. */
        if (ptq__has_weight(node->op) &&
            !ptq_archive_find(archive, ptq__full_name(node, "bias").text)) {
            node->no_bias = 1;
            memset(&node->param[PTQ_PARAM_BIAS], 0, sizeof(ptq_tensor));
        }
    }
    return PTQ_OK;
}

#endif

/* "2" where a model uses what version 1 did not know, so that older readers refuse it instead of
   computing something else; "1" for all others. */
static const char *ptq__format_version(const ptq_model *model) {
    if (ptq__arithmetic_of(model) != PTQ__ONNX)
        return "2";
    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        if (node->real || node->op > PTQ_OP_DEQUANTIZE || node->ceil_mode || node->output ||
            node->dynamic == PTQ_DYNAMIC_SYMMETRIC || node->dilation[0] != 1 ||
            node->dilation[1] != 1 ||
            (node->padding == PTQ_PADDING_EXPLICIT &&
             (node->pad[0] >= node->kernel[0] || node->pad[1] >= node->kernel[1] ||
              node->pad[2] >= node->kernel[0] || node->pad[3] >= node->kernel[1])))
            return "2";
    }
    return "1";
}

/* The graph of the file, without parameters. */
static ptq_status ptq__archive_graph(const ptq_archive *archive, ptq_model **out, ptq_error *err) {
    const char *format = ptq__archive_meta(archive, "format");
    const char *version = ptq__archive_meta(archive, "format_version");
    const char *graph = ptq__archive_meta(archive, "graph");
    if (!graph)
        return ptq__guess_graph(archive, out, err);
    PTQ__FAIL_IF(!format || strcmp(format, "ptq") || !version ||
                     (strcmp(version, "1") && strcmp(version, "2")),
                 PTQ_BAD_FILE,
                 "the metadata should say format ptq, format_version 1 or 2; a newer version of the"
                 " library may have written this file");
    PTQ__TRY(ptq__read_graph(ptq__span_of(graph), 1, &archive->allocator, out, err));
    PTQ__FAIL_IF(*version < *ptq__format_version(*out), PTQ_BAD_FILE,
                 "the metadata say format_version %s, the graph needs %s", version,
                 ptq__format_version(*out));
    return PTQ_OK;
}

/* Gives `to`, which has type and shape but no memory, the data of a tensor of the file, with the
   memory that it owns; it must be what the graph says. */
static ptq_status ptq__take(ptq_archive *archive, const ptq_node *node, const char *param,
                            ptq_tensor *to, ptq_error *err) {
    ptq__param_text name = ptq__full_name(node, param);
    ptq_archive_entry *entry = ptq__archive_entry(archive, name.text);
    ptq_tensor want = ptq__as_stored(to), *found = entry ? &entry->tensor : NULL;
    PTQ__FAIL_IF(!found, PTQ_BAD_FILE, "tensor %s is missing", name.text);
    PTQ__FAIL_IF(found->type != want.type || found->rank != want.rank ||
                     memcmp(found->dim, want.dim, sizeof want.dim),
                 PTQ_BAD_FILE,
                 "tensor %s: %s [%d,%d,%d,%d] of rank %d, expected %s [%d,%d,%d,%d] of rank %d"
                 " (rank 0: of a type that is not supported)",
                 name.text, ptq_name(PTQ_NAMES_TYPE, found->type), found->dim[0], found->dim[1],
                 found->dim[2], found->dim[3], found->rank, ptq_name(PTQ_NAMES_TYPE, want.type),
                 want.dim[0], want.dim[1], want.dim[2], want.dim[3], want.rank);
    to->data = found->data;
    to->owned = found->owned;
    memset(found, 0, sizeof *found);
    entry->taken = 1;
    return PTQ_OK;
}

static const char *const ptq__scale_names[] = {"weight_scale", "weight_zero_point"};

/* NODE.weight_scale, one or one for each channel, and, where weights are affine,
   NODE.weight_zero_point. Weights keep the memory of their scales. */
static ptq_status ptq__take_scales(ptq_archive *archive, const ptq_node *node, ptq_tensor *weight,
                                   ptq_error *err) {
    const char *const *name = ptq__scale_names;
    const ptq_tensor *found = ptq_archive_find(archive, ptq__full_name(node, name[0]).text);
    int count = found && found->dim[0] != 1 ? weight->dim[0] : 1, one = 1;
    ptq_tensor scale, zero;
    PTQ__TRY(ptq__tensor_init(&scale, PTQ_TYPE_F32, 0, 1, &count, err));
    PTQ__TRY(ptq__take(archive, node, name[0], &scale, err));
    weight->scale = (float *)scale.data;
    weight->scales = count;
    weight->owned |= scale.owned << 1;
    if (!ptq_archive_find(archive, ptq__full_name(node, name[1]).text))
        return PTQ_OK;
    PTQ__TRY(ptq__tensor_init(&zero, PTQ_TYPE_S32, 0, 1, &one, err));
    PTQ__TRY(ptq__take(archive, node, name[1], &zero, err));
    weight->zero_point = *(const int32_t *)zero.data;
    ptq_tensor_free(&zero, &archive->allocator);
    return PTQ_OK;
}

/* What the archive has for a model that has its graph: parameters, each of which must be there, and
   nothing else but what PyTorch counts beside its batch norms, and metadata. Then the check of the
   whole. */
static ptq_status ptq__fill_model(ptq_archive *archive, ptq_model *model, ptq_error *err) {
    static const char ignored[] = ".num_batches_tracked";
    const size_t tail = sizeof ignored - 1;
    for (int i = 0; i < model->nodes; i++)
        for (int k = 0; k < PTQ_PARAM_COUNT; k++) {
            ptq_node *node = &model->node[i];
            if (node->param[k].rank)
                PTQ__TRY(ptq__take(archive, node, ptq__param_name(k), &node->param[k], err));
            if (node->param[k].rank && ptq__is_integer_type(node->param[k].type))
                PTQ__TRY(ptq__take_scales(archive, node, &node->param[k], err));
        }
    for (int i = 0; i < archive->entries; i++) {
        const char *name = archive->entry[i].name;
        size_t n = strlen(name);
        if (!archive->entry[i].taken && (n < tail || strcmp(name + n - tail, ignored)))
            return ptq__tensor_error(name, "belongs to no node of the graph", err);
    }
    for (int i = 0; i < 3; i++)
        ptq__drop_meta(archive->meta, &archive->metas, ptq__own_metas[i], &archive->allocator);
    model->meta = archive->meta;
    model->metas = archive->metas;
    archive->meta = NULL;
    archive->metas = 0;
    model->bare = 0;
    return ptq_model_check(model, err);
}

/* The archive is a stage on the way: tensors and metadata move over to the model. */
PTQ_API ptq_status ptq_model_parse(const void *bytes, size_t size, const ptq_load_options *options,
                                   ptq_model **out, ptq_error *err) {
    ptq_archive *archive = NULL;
    ptq_model *model = NULL;
    PTQ__TRY(ptq_archive_parse(bytes, size, options, &archive, err));
    ptq_status status = ptq__archive_graph(archive, &model, err);
    PTQ__THEN(status, ptq__fill_model(archive, model, err));
    ptq_archive_free(archive);
    PTQ__FINISH(status, ptq_model_free(model), model, out);
}

#ifndef PTQ_RUN_ONLY
/* A text in memory of its own: put once to measure it, then again to keep it. */
static ptq_status ptq__make_text(const ptq_allocator *allocator,
                                 void (*put)(ptq__text *text, const void *what), const void *what,
                                 const char *name, void **out, size_t *length, ptq_error *err) {
    ptq__text text = ptq__text_over(NULL, 0);
    char *made = NULL;
    put(&text, what);
    PTQ__TRY(PTQ__NEW(allocator, &made, text.length + 1, name, err));
    text = ptq__text_over(made, text.length + 1);
    put(&text, what);
    *out = made;
    *length = text.length;
    return PTQ_OK;
}

static void ptq__put_hex(ptq__text *text, uint64_t value, int digits) {
    while (digits-- > 0)
        ptq__put_char(text, ptq__hex[value >> (4 * digits) & 15]);
}

/* JSON text for a string, which is UTF-8. Only what must be escaped is. */
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

PTQ_API ptq_status ptq_archive_set_meta(ptq_archive *archive, const char *key, const char *value,
                                        ptq_error *err) {
    return ptq__set_meta(&archive->meta, &archive->metas, key, value, &archive->allocator, err);
}

/* The entry is a view: data and scales stay the caller's. Scales are no part of it, since in a file
   they are a tensor of their own. */
PTQ_API ptq_status ptq_archive_add(ptq_archive *archive, const char *name, const ptq_tensor *tensor,
                                   ptq_error *err) {
    ptq_archive_entry *entry;
    PTQ__FAIL_IF(!name[0] || !strcmp(name, "__metadata__") || ptq_archive_find(archive, name) ||
                     !tensor->rank,
                 PTQ_INVALID_ARGUMENT, "archive: '%s' is empty, reserved or there already", name);
    PTQ__TRY(ptq__check_utf8(name, "archive: the name of a tensor", err));
    PTQ__TRY(ptq__archive_append(archive, &entry, err));
    ptq_status status = PTQ__NEW(&archive->allocator, &entry->name, strlen(name) + 1, "name", err);
    if (status)
        archive->entries--;
    else
        memcpy(entry->name, name, strlen(name));
    entry->tensor = *tensor;
    entry->tensor.owned = 0;
    entry->tensor.scale = NULL;
    entry->tensor.scales = 0;
    return status;
}

/* The header: "conv1.weight":{"dtype":"I8","shape":[16,3,3,3],"data_offsets":[64,496]}, tensor for
   tensor in the order of the entries, as they lie one behind the other. Spaces fill it up to a
   multiple of 8, for the data behind it to be aligned. */
static void ptq__put_header(ptq__text *text, const ptq_archive *archive) {
    size_t begin = 0;
    ptq__put_char(text, '{');
    for (int i = 0; i < archive->metas; i++) {
        ptq__put_string(text, i ? "," : "\"__metadata__\":{");
        ptq__put_json(text, archive->meta[i].key);
        ptq__put_char(text, ':');
        ptq__put_json(text, archive->meta[i].value);
    }
    ptq__put_string(text, archive->metas ? "}" : "");
    for (int i = 0; i < archive->entries; i++) {
        const ptq_tensor stored = ptq__as_stored(&archive->entry[i].tensor);
        const ptq__dtype *dtype = ptq__dtypes;
        while (dtype->type != (int)stored.type)
            dtype++;
        ptq__put_string(text, i || archive->metas ? "," : "");
        ptq__put_json(text, archive->entry[i].name);
        ptq__put(text, ":{\"dtype\":\"%s\",\"shape\":[", dtype->name);
        for (int k = 0; k < stored.rank; k++)
            ptq__put(text, k ? ",%d" : "%d", stored.dim[k]);
        ptq__put(text, "],\"data_offsets\":[%zu,%zu]}", begin, begin + stored.size);
        begin += stored.size;
    }
    ptq__put_char(text, '}');
    while (text->length % 8)
        ptq__put_char(text, ' ');
}

/* n elements of `bytes` bytes as the file has them. */
static void ptq__put_le(ptq__text *text, const void *from, size_t n, int bytes) {
    if (text->length + n * (size_t)bytes < text->size)
        ptq__copy_le(text->data + text->length, from, n, bytes);
    text->length += n * (size_t)bytes;
}

/* The whole file, whose first number is how long the header is. */
static void ptq__put_archive(ptq__text *text, const void *what) {
    const ptq_archive *archive = (const ptq_archive *)what;
    ptq__text header = ptq__text_over(NULL, 0);
    ptq__put_header(&header, archive);
    uint64_t length = header.length;
    ptq__put_le(text, &length, 1, 8);
    ptq__put_header(text, archive);
    for (int i = 0; i < archive->entries; i++) {
        const ptq_tensor *tensor = &archive->entry[i].tensor;
        int width = tensor->bits >= 8 ? tensor->bits / 8 : 1;
        ptq__put_le(text, tensor->data, tensor->size / (size_t)width, width);
    }
}

/* The sum of the sizes is checked although all tensors are in memory: several entries may be views
   of the same one. */
PTQ_API ptq_status ptq_archive_write(const ptq_archive *archive, void **bytes, size_t *size,
                                     ptq_error *err) {
    size_t room = SIZE_MAX / 2;
    for (int i = 0; i < archive->entries; i++) {
        PTQ__FAIL_IF(archive->entry[i].tensor.size > room, PTQ_OUT_OF_MEMORY,
                     "archive: larger than memory can be");
        room -= archive->entry[i].tensor.size;
    }
    return ptq__make_text(&archive->allocator, ptq__put_archive, archive, "file", bytes, size, err);
}

/* The tensors of a node. Those of 4 bytes an element come first in a file, then the narrower ones:
   so each lies aligned and can be used where it is. Scales, and the zero point that affine weights
   have, become tensors of their own, over the model's memory. */
static ptq_status ptq__put_params(ptq_archive *archive, const ptq_node *node, int wide,
                                  ptq_error *err) {
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    int count[] = {weight->scales, weight->scales && weight->zero_point};
    const void *const data[] = {weight->scale, &weight->zero_point};
    for (int k = 0; k < PTQ_PARAM_COUNT; k++)
        if (node->param[k].rank && (node->param[k].bits == 32) == wide)
            PTQ__TRY(ptq_archive_add(archive, ptq__full_name(node, ptq__param_name(k)).text,
                                     &node->param[k], err));
    for (int k = 0; k < 2; k++) {
        ptq_tensor tensor;
        if (!wide || !count[k])
            continue;
        PTQ__TRY(ptq_tensor_borrow(&tensor, k ? PTQ_TYPE_S32 : PTQ_TYPE_F32, 0, 1, &count[k],
                                   (void *)(uintptr_t)data[k], (size_t)count[k] * 4, err));
        PTQ__TRY(
            ptq_archive_add(archive, ptq__full_name(node, ptq__scale_names[k]).text, &tensor, err));
    }
    return PTQ_OK;
}

/* The file's own metadata come first, so that whoever opens it sees at once what it is. */
static ptq_status ptq__fill_archive(ptq_archive *archive, const ptq_model *model, ptq_error *err) {
    void *graph = NULL;
    size_t length;
    PTQ__TRY(ptq_archive_set_meta(archive, "format", "ptq", err));
    PTQ__TRY(ptq_archive_set_meta(archive, "format_version", ptq__format_version(model), err));
    PTQ__TRY(ptq__make_text(&archive->allocator, ptq__put_graph, model, "graph text", &graph,
                            &length, err));
    ptq_status status = ptq_archive_set_meta(archive, "graph", (const char *)graph, err);
    ptq__free(&archive->allocator, graph);
    for (int i = 0; i < model->metas; i++)
        PTQ__THEN(status,
                  ptq_archive_set_meta(archive, model->meta[i].key, model->meta[i].value, err));
    for (int i = 0; i < 2 * model->nodes; i++)
        PTQ__THEN(status,
                  ptq__put_params(archive, &model->node[i % model->nodes], i < model->nodes, err));
    return status;
}

/* A model that no reader would take is not written either. */
PTQ_API ptq_status ptq_model_write(const ptq_model *model, void **bytes, size_t *size,
                                   ptq_error *err) {
    ptq_archive *archive = NULL;
    PTQ__TRY(ptq_model_check(model, err));
    PTQ__TRY(ptq_archive_create(&model->allocator, &archive, err));
    ptq_status status = ptq__fill_archive(archive, model, err);
    PTQ__THEN(status, ptq_archive_write(archive, bytes, size, err));
    ptq_archive_free(archive);
    return status;
}
#endif /* PTQ_RUN_ONLY */

#ifndef PTQ_NO_STDIO

/* What differs between systems. Windows takes names in UTF-16, and its rename replaces nothing. */
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

typedef struct ptq__wide {
    wchar_t text[1024];
} ptq__wide;

/* UTF-8 to UTF-16; 0 if that is not what `path` is, or it is too long. */
static int ptq__utf16(const char *path, ptq__wide *wide) {
    enum { UTF_8 = 65001, INVALID_IS_AN_ERROR = 8, SIZE = sizeof wide->text / sizeof(wchar_t) };
    return MultiByteToWideChar(UTF_8, INVALID_IS_AN_ERROR, path, -1, wide->text, SIZE) > 0;
}

static FILE *ptq__open(const char *path, int writing) {
    ptq__wide wide;
    return ptq__utf16(path, &wide) ? _wfopen(wide.text, writing ? L"wb" : L"rb") : NULL;
}
#else
static FILE *ptq__open(const char *path, int writing) { return fopen(path, writing ? "wb" : "rb"); }
#endif

/* Reads to the end in growing pieces, so that pipes work as well as files. Where the size can be
   known, the first piece is a little more, and does. It is only a hint: a directory claims to be
   endless, a pipe says nothing. */
static ptq_status ptq__read_all(FILE *file, const char *path, size_t limit,
                                const ptq_allocator *allocator, char **bytes, size_t *size,
                                ptq_error *err) {
    long hint = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    int likely = hint >= 0 && hint <= 1L << 28 && (!limit || (size_t)hint <= limit);
    size_t capacity = likely ? (size_t)hint + 1 : 65536, got;
    char *larger = NULL;
    (void)fseek(file, 0, SEEK_SET);
    PTQ__TRY(PTQ__NEW(allocator, bytes, capacity, path, err));
    while ((got = fread(*bytes + *size, 1, capacity - *size, file)) > 0) {
        *size += got;
        PTQ__FAIL_IF(limit && *size > limit, PTQ_BAD_FILE, "%s: larger than %zu bytes", path,
                     limit);
        if (*size < capacity)
            continue;
        PTQ__TRY(ptq__alloc(allocator, capacity, 2, path, &larger, err));
        memcpy(larger, *bytes, *size);
        ptq__free(allocator, *bytes);
        *bytes = larger;
        capacity *= 2;
    }
    PTQ__FAIL_IF(ferror(file), PTQ_IO_ERROR, "%s: cannot be read; is it a directory?", path);
    return PTQ_OK;
}

PTQ_API ptq_status ptq_file_read(const char *path, size_t limit, const ptq_allocator *allocator,
                                 void **bytes, size_t *size, ptq_error *err) {
    FILE *file = ptq__open(path, 0);
    char *memory = NULL;
    size_t length = 0;
    PTQ__FAIL_IF(!file, PTQ_IO_ERROR, "%s: cannot be opened; does it exist, and may you read it?",
                 path);
    ptq_status status = ptq__read_all(file, path, limit, allocator, &memory, &length, err);
    fclose(file);
    if (status) {
        ptq__free(allocator, memory);
        return status;
    }
    *bytes = memory;
    *size = length;
    return PTQ_OK;
}

/* The end of loading: something was made of the bytes of a file, or not. They are freed, and the
   error, which comes from them, gets the path in front. */
static ptq_status ptq__loaded(const char *path, void *bytes, const ptq_allocator *allocator,
                              ptq_status status, const ptq_error *inner, ptq_error *err) {
    ptq__free(allocator, bytes);
    PTQ__FAIL_IF(status, status, "%s: %s", path, inner->text);
    return PTQ_OK;
}

/* Nothing is borrowed from bytes that do not stay. */
PTQ_API ptq_status ptq_model_load(const char *path, const ptq_load_options *options,
                                  ptq_model **out, ptq_error *err) {
    ptq_load_options copying = {ptq__allocator(options ? &options->allocator : NULL), 0};
    ptq_error inner;
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_file_read(path, 0, &copying.allocator, &bytes, &size, err));
    ptq_status status = ptq_model_parse(bytes, size, &copying, out, &inner);
    return ptq__loaded(path, bytes, &copying.allocator, status, &inner, err);
}

#ifndef PTQ_RUN_ONLY
#ifdef _WIN32
/* In one step, over a file that may exist. `to` NULL: removes the file. 1 on success. */
static int ptq__move(const char *from, const char *to) {
    enum { REPLACE_EXISTING = 1 };
    ptq__wide source, target;
    if (!ptq__utf16(from, &source) || (to && !ptq__utf16(to, &target)))
        return 0;
    return to ? MoveFileExW(source.text, target.text, REPLACE_EXISTING) : !_wremove(source.text);
}

static int ptq__is_separator(char c) { return c == '/' || c == '\\'; }
#else
static int ptq__move(const char *from, const char *to) {
    return (to ? rename(from, to) : remove(from)) == 0;
}

static int ptq__is_separator(char c) { return c == '/'; }
#endif

/* A device, a pipe: written to as it is, for a file in its place would be the end of it. */
static int ptq__is_special(const char *path) {
#ifdef PTQ__HAS_STAT
    struct stat status;
    return stat(path, &status) == 0 && !S_ISREG(status.st_mode);
#else
    (void)path;
    return 0;
#endif
}

/* Writes to the path with a suffix, then puts that file in the place of the old one: whatever
   happens on the way, `path` holds either the old bytes or the new. A full disk may show only when
   the file is closed. */
static ptq_status ptq__save(const char *path, const void *bytes, size_t size,
                            const ptq_allocator *allocator, ptq_error *err) {
    static const char suffix[] = ".ptq-tmp";
    int good, special = ptq__is_special(path);
    size_t length = strlen(path);
    char *name = NULL;
    FILE *file;
    PTQ__TRY(PTQ__NEW(allocator, &name, length + sizeof suffix, "file name", err));
    memcpy(name, path, length);
    memcpy(name + length, suffix, sizeof suffix);
    file = ptq__open(special ? path : name, 1);
    good = file && fwrite(bytes, 1, size, file) == size;
    good = file && fclose(file) == 0 && good && (special || ptq__move(name, path));
    if (!good && !special)
        (void)ptq__move(name, NULL);
    ptq__free(allocator, name);
    PTQ__FAIL_IF(!good, PTQ_IO_ERROR,
                 "%s: cannot be written; is the folder there and writable, and the disk not full?",
                 path);
    return PTQ_OK;
}

PTQ_API ptq_status ptq_file_write(const char *path, const void *bytes, size_t size,
                                  ptq_error *err) {
    return ptq__save(path, bytes, size, NULL, err);
}

PTQ_API ptq_status ptq_model_save(const ptq_model *model, const char *path, ptq_error *err) {
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_model_write(model, &bytes, &size, err));
    ptq_status status = ptq__save(path, bytes, size, &model->allocator, err);
    ptq__free(&model->allocator, bytes);
    return status;
}
#endif /* PTQ_RUN_ONLY */

#endif /* PTQ_NO_STDIO */

#ifndef PTQ_RUN_ONLY
/* ---- [CALIBRATION FILE] --------------------------------------------------------------------- */

/* Statistics as JSON, which people can read, and of which every number comes back as it was.

       {"format": "ptq-calibration", "format_version": 1,
        "model": "d04c7ee3c5b02a1f",                hash of the float model that ran
        "class_count": [100,...],                   images of each class
        "pixel": [12,...],                          how often each of the 256 values occurred
        "neighbours": 2976000, "neighbour_sum": 36201530,   how far neighbouring pixels differ
        "images": ["00a1...", ...],                 hashes, ascending
        "tensors": {"conv1": {"count": 16384000, "zeros": 5, "images": 1000, "min": 0, "max": 6.5,
            "min_sum": [...], "max_sum": [...],     of the images' extremes: ten limbs, see
                                                    ptq_exact_sum
            "exponent": -8, "first": 2048, "bins": [...]}, ...}}

   Members come in any order, but "first" before "bins". What is missing stays 0 and fails the check
   of the whole, as do numbers that no images could have caused.

   Two functions list the members, of a tensor's statistics and of the whole; each both writes and
   reads. Writing, it runs once, and all members go into the text; reading, it runs for every key
   that is found. So whatever is written can be read. */

/* Counts end where a double stops holding every integer: readers elsewhere may know no others. */
static const int64_t ptq__most_count = (int64_t)1 << 53;

static void ptq__member_integer(ptq__json *json, const char *before, const char *key, int64_t low,
                                int64_t high, void *value) {
    if (ptq__member(json, before, key))
        ptq__json_integer(json, low, high, (int64_t *)value);
}

/* The members of an object: writing, all in one turn, between `open` and `close`; reading, in one
   for each key, which a member must know. */
static int ptq__json_turn(ptq__json *json, const char *open, const char *close, int *n) {
    if (json->out) {
        ptq__put_string(json->out, *n ? close : open);
        return !(*n)++;
    }
    if (*n && !json->known)
        ptq__json_wrong(json, "a known key");
    return ptq__json_key(json, "an object", n);
}

static void ptq__member_float(ptq__json *json, const char *before, const char *key, float *value) {
    ptq__span span;
    if (!ptq__member(json, before, key))
        return;
    if (json->out)
        ptq__put_float(json->out, *value);
    else if (ptq__json_number(json, &span) && !ptq__read_float(span, value))
        ptq__json_wrong(json, "a finite number");
}

/* Digits are the lower-case ones only, so that a hash has one spelling. */
static void ptq__json_hash(ptq__json *json, uint64_t *hash) {
    char digits[18];
    ptq__text text = ptq__text_over(digits, sizeof digits);
    ptq__span span = {digits, 16};
    if (json->out) {
        ptq__put_hex(&text, *hash, 16);
        ptq__put_json(json->out, digits);
    } else if (ptq__json_string(json, &text) &&
               (text.length != 16 || strspn(digits, ptq__hex) != 16 ||
                !ptq__cut_hex(&span, 16, hash))) {
        ptq__json_wrong(json, "a hash of 16 hexadecimal digits");
    }
}

/* A list of `n` counts, or signed limbs of a sum. Reading, of at most so many, and of exactly so
   many where `exact` tells what else is expected. Returns how many there are. */
static int ptq__member_list(ptq__json *json, const char *before, const char *key, int64_t low,
                            int64_t high, void *values, int n, const char *exact) {
    if (!ptq__member(json, before, key))
        return n;
    int i = ptq__json_integers(json, low, high, values, n);
    if (exact && i != n)
        ptq__json_wrong(json, exact);
    return i;
}

/* Bins go from the first that is not empty to before `end`. */
static void ptq__statistics_members(ptq__json *json, ptq_observer *s, int64_t *first, int end) {
    const int64_t limb = (int64_t)1 << 52, most = ptq__most_count;
    int64_t exponent = s->exponent;
    ptq__member_integer(json, "", "count", 0, most, &s->count);
    ptq__member_integer(json, ", ", "zeros", 0, most, &s->zeros);
    ptq__member_integer(json, ", ", "images", 0, most, &s->images);
    ptq__member_float(json, ", ", "min", &s->min);
    ptq__member_float(json, ", ", "max", &s->max);
    ptq__member_list(json, ",\n      ", "min_sum", -limb, limb, s->min_sum.limb, 10,
                     "ten integers");
    ptq__member_list(json, ", ", "max_sum", -limb, limb, s->max_sum.limb, 10, "ten integers");
    ptq__member_integer(json, ", \n      ", "exponent", -149, 117, &exponent);
    ptq__member_integer(json, ", ", "first", 0, PTQ_BINS - 1, first);
    ptq__member_list(json, ", ", "bins", 0, most, s->bin + *first, end - (int)*first, NULL);
    s->exponent = (int)exponent;
}

/* The bin of an extreme value, which must be the first or last that counts anything; zeros have
   none of their own. */
static int ptq__extreme_agrees(const ptq_observer *s, float value, int bin) {
    if (value < 0 || value > 0)
        return bin >= 0 && bin < PTQ_BINS && ptq__fitting_exponent(value) <= s->exponent &&
               ptq__bin_of(value, s->exponent) == bin;
    return s->zeros > 0;
}

/* The first bin that is not empty, and the one behind the last; none: PTQ_BINS and 0. */
static void ptq__used_bins(const ptq_observer *s, int *first, int *end) {
    for (*first = 0; *first < PTQ_BINS && !s->bin[*first]; ++*first)
        ;
    for (*end = PTQ_BINS; *end > 0 && !s->bin[*end - 1]; --*end)
        ;
}

/* Whether numbers of a file could have come from observing: searches rely on it. */
static int ptq__statistics_agree(const ptq_observer *s) {
    uint64_t sum = s->zeros;
    int first, end;
    ptq__used_bins(s, &first, &end);
    for (int b = 0; b < PTQ_BINS; b++)
        sum += s->bin[b];
    return s->count > 0 && s->images > 0 && sum == s->count && s->min <= s->max &&
           ptq__extreme_agrees(s, s->min, first) && ptq__extreme_agrees(s, s->max, end - 1) &&
           (s->min < 0 || first >= PTQ__HALF_BINS) && (s->max > 0 || end <= PTQ__HALF_BINS);
}

/* {"count": ...}. Only bins that count something are written, from the first to the last; an empty
   list begins at 0. */
static void ptq__json_statistics(ptq__json *json, ptq_observer *s) {
    int used = 0, end = PTQ_BINS, n = 0;
    if (json->out)
        ptq__used_bins(s, &used, &end);
    int64_t first = end ? used : 0;
    while (ptq__json_turn(json, "{\n      ", "}", &n))
        ptq__statistics_members(json, s, &first, end);
    if (!json->out && !json->wrong && !ptq__statistics_agree(s))
        ptq__json_wrong(json, "counts that agree with each other");
}

/* {"conv1": {...}, ...} */
static ptq_status ptq__json_tensors(ptq__json *json, ptq_calibration *c, ptq_error *err) {
    int n = 0;
    while (ptq__json_each(json, "{}", "\n    ", "\n  ", (size_t)c->tensors, &n)) {
        if (json->out) {
            ptq__put_json(json->out, c->tensor[n - 1].name);
            ptq__put_string(json->out, ": ");
        } else {
            if (!ptq__json_name(json) || !ptq__is_name(json->key, strlen(json->key)) ||
                ptq_calibration_find(c, json->key) >= 0 || n > 2 * PTQ_MAX_NODES) {
                ptq__json_wrong(json, "tensor names, each once");
                break;
            }
            PTQ__TRY(ptq__calibration_add_tensor(c, json->key, err));
        }
        ptq__json_statistics(json, &c->tensor[n - 1].observer);
    }
    json->known = 1; /* the list itself: nested keys came after its own */
    return PTQ_OK;
}

/* ["00a1...", ...]. A file that is not sorted is sorted here: others search the hashes. */
static ptq_status ptq__json_images(ptq__json *json, ptq_calibration *c, ptq_error *err) {
    int n = 0, capacity = 0;
    if (!json->out && c->images)
        ptq__json_wrong(json, "the images once");
    while (n < INT32_MAX / 2 &&
           ptq__json_each(json, "[]", n % 5 ? " " : "\n    ", "\n  ", c->images, &n)) {
        if (!json->out) {
            PTQ__TRY(PTQ__GROW(&c->allocator, &c->hash, n - 1, &capacity, "image hashes", err));
            c->images = (size_t)n;
        }
        ptq__json_hash(json, &c->hash[n - 1]);
    }
    if (!json->out)
        ptq__sort_hashes(c->hash, c->images);
    return PTQ_OK;
}

static void ptq__json_format(ptq__json *json) {
    static const char format[] = "ptq-calibration";
    char found[sizeof format + 1];
    ptq__text text = ptq__text_over(found, sizeof found);
    if (json->out)
        ptq__put_json(json->out, format);
    else if (ptq__json_string(json, &text) && strcmp(found, format))
        ptq__json_wrong(json, "the format ptq-calibration");
}

static ptq_status ptq__json_calibration(ptq__json *json, ptq_calibration *c, ptq_error *err) {
    const int64_t most = ptq__most_count;
    int n = 0;
    while (ptq__json_turn(json, "{\n  ", "\n}\n", &n)) {
        int64_t version = 1;
        if (ptq__member(json, "", "format"))
            ptq__json_format(json);
        ptq__member_integer(json, ",\n  ", "format_version", 0, most, &version);
        if (version != 1)
            ptq__json_wrong(json, "format_version 1 (a newer library wrote this file?)");
        if (ptq__member(json, ",\n  ", "model"))
            ptq__json_hash(json, &c->model);
        c->classes = ptq__member_list(json, ",\n  ", "class_count", 0, most, c->class_count,
                                      c->classes, NULL);
        ptq__member_list(json, ",\n  ", "pixel", 0, most, c->pixel, 256, "256 pixel counts");
        ptq__member_integer(json, ",\n  ", "neighbours", 0, most, &c->neighbours);
        ptq__member_integer(json, ",\n  ", "neighbour_sum", 0, most, &c->neighbour_sum);
        if (ptq__member(json, ",\n  ", "images"))
            PTQ__TRY(ptq__json_images(json, c, err));
        if (ptq__member(json, ",\n  ", "tensors"))
            PTQ__TRY(ptq__json_tensors(json, c, err));
    }
    return PTQ_OK;
}

static void ptq__put_calibration(ptq__text *text, const void *calibration) {
    ptq__json json = ptq__json_over("", NULL, 0);
    json.out = text;
    (void)ptq__json_calibration(&json, (ptq_calibration *)(uintptr_t)calibration, NULL);
}

PTQ_API ptq_status ptq_calibration_write(const ptq_calibration *calibration, void **bytes,
                                         size_t *size, ptq_error *err) {
    return ptq__make_text(&calibration->allocator, ptq__put_calibration, calibration, "calibration",
                          bytes, size, err);
}

/* Every image was seen by every tensor, and has one class or none. */
static int ptq__calibration_agrees(const ptq_calibration *c) {
    uint64_t sum = 0;
    for (int i = 0; i < c->classes; i++)
        sum += c->class_count[i];
    for (int i = 0; i < c->tensors; i++)
        if (c->tensor[i].observer.images != c->images)
            return 0;
    return c->images > 0 && c->tensors > 0 && sum <= c->images;
}

/* A small file gets a small share of what the largest could need: a count takes two bytes of it, a
   tensor ("a":{}) at least six. */
PTQ_API ptq_status ptq_calibration_parse(const void *bytes, size_t size,
                                         const ptq_allocator *allocator, ptq_calibration **out,
                                         ptq_error *err) {
    const size_t most_classes = 46340, most_tensors = (size_t)2 * PTQ_MAX_NODES;
    size_t classes = size / 2 < most_classes ? size / 2 + 1 : most_classes;
    size_t tensors = size / 6 < most_tensors ? size / 6 + 1 : most_tensors;
    ptq__json json = ptq__json_over("calibration file", bytes, size);
    ptq_calibration *c = NULL;
    PTQ__TRY(ptq__calibration_create(allocator, (int)classes, &c, err));
    ptq_status status = PTQ__NEW(&c->allocator, &c->tensor, tensors, "calibration", err);
    PTQ__THEN(status, ptq__json_calibration(&json, c, err));
    PTQ__THEN(status, ptq__json_end(&json, err));
    if (!status && !ptq__calibration_agrees(c))
        status = ptq_error_set(err, PTQ_BAD_FILE,
                               "calibration file: it has no images or tensors, or their counts"
                               " disagree");
    PTQ__FINISH(status, ptq_calibration_free(c), c, out);
}

#ifndef PTQ_NO_STDIO

PTQ_API ptq_status ptq_calibration_load(const char *path, const ptq_allocator *allocator,
                                        ptq_calibration **out, ptq_error *err) {
    ptq_error inner;
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_file_read(path, 0, allocator, &bytes, &size, err));
    ptq_status status = ptq_calibration_parse(bytes, size, allocator, out, &inner);
    return ptq__loaded(path, bytes, allocator, status, &inner, err);
}

PTQ_API ptq_status ptq_calibration_save(const ptq_calibration *calibration, const char *path,
                                        ptq_error *err) {
    void *bytes = NULL;
    size_t size = 0;
    PTQ__TRY(ptq_calibration_write(calibration, &bytes, &size, err));
    ptq_status status = ptq__save(path, bytes, size, &calibration->allocator, err);
    ptq__free(&calibration->allocator, bytes);
    return status;
}

#endif /* PTQ_NO_STDIO */

#endif /* PTQ_RUN_ONLY */

#if !defined(PTQ_RUN_ONLY) && !defined(PTQ_NO_STDIO)
/* ---- [IMAGE FILES] ------------------------------------------------------------------------------
   CIFAR-10's binary version in a folder, with what people have in its place told from it. The
   records themselves are checked where they stand in memory, in [DATA]. */

enum { PTQ__PATH_SIZE = 1024 };

/* Writes the path of `part` in a folder, the first `length` bytes of `folder` (0: where the program
   runs), to `path`; 1 if such a file opens. ISO C cannot list a directory: files are looked for by
   their names. */
static int ptq__find_in(const char *folder, size_t length, const char *part,
                        char path[PTQ__PATH_SIZE]) {
    ptq__text text = ptq__text_over(path, PTQ__PATH_SIZE);
    FILE *file;
    for (size_t i = 0; i < length; i++)
        ptq__put_char(&text, folder[i]);
    ptq__put(&text, "%s%s", length && !ptq__is_separator(folder[length - 1]) ? "/" : "", part);
    file = text.length < PTQ__PATH_SIZE ? ptq__open(path, 0) : NULL;
    if (file)
        fclose(file);
    return file != NULL;
}

/* Nothing of the binary version was found: says what is there instead. `asked` and `other` are the
   first files of the two splits, without their ".bin". */
static ptq_status ptq__cifar_wrong(const char *path, const char *asked, const char *other,
                                   ptq_error *err) {
    const char *const sign[][4] = {
        {"", asked, "", "the Python version of CIFAR-10; get the binary version"},
        {"", asked, ".mat", "the Matlab version of CIFAR-10; get the binary version"},
        {"", other, ".bin", "CIFAR-10, but not the file asked for"},
        {"cifar-10-batches-bin/", asked, ".bin", "the folder above; add /cifar-10-batches-bin"},
        {"cifar-10-", "binary", ".tar.gz", "an archive not unpacked yet; run tar -xzf on it"},
        {"cifar-10-", "python", ".tar.gz", "the Python version; get the binary version"},
        {"cifar-10-", "matlab", ".tar.gz", "the Matlab version; get the binary version"},
    };
    char part[64], found[PTQ__PATH_SIZE];
    for (size_t i = 0; i < sizeof sign / sizeof sign[0]; i++) {
        ptq__text text = ptq__text_over(part, sizeof part);
        ptq__put(&text, "%s%s%s", sign[i][0], sign[i][1], sign[i][2]);
        PTQ__FAIL_IF(ptq__find_in(path, strlen(path), part, found), PTQ_BAD_DATA,
                     "%s: no %s.bin there, but %s: this is %s", path, asked, part, sign[i][3]);
    }
    return ptq_error_set(err, PTQ_IO_ERROR,
                         "%s: no %s.bin there, and nothing else of CIFAR-10; name the folder"
                         " cifar-10-batches-bin of the binary version",
                         path, asked);
}

/* The files of a directory, in numeric order, and not in that of their names, where 10 comes before
   2. Gaps are allowed: a part of CIFAR-10 is enough. */
static ptq_status ptq__cifar_directory(ptq_cifar10 *data, const char *path, ptq_split split,
                                       ptq_error *err) {
    static const char *const first[] = {"data_batch_1", "test_batch"}; /* by ptq_split */
    char part[32] = "test_batch.bin", found[PTQ__PATH_SIZE];
    int train = split == PTQ_SPLIT_TRAIN;
    ptq_status status = PTQ_OK;
    for (int i = 1; i <= (train ? 99 : 1) && !status; i++) {
        ptq__text text = ptq__text_over(part, train ? sizeof part : 0);
        void *bytes = NULL;
        size_t size = 0;
        ptq__put(&text, "data_batch_%d.bin", i);
        if (!ptq__find_in(path, strlen(path), part, found))
            continue;
        status = ptq_file_read(found, 0, &data->allocator, &bytes, &size, err);
        PTQ__THEN(status, ptq__cifar_append(data, bytes, size, found, err));
        ptq__free(&data->allocator, bytes);
    }
    if (!status && !data->dataset.count)
        status = ptq__cifar_wrong(path, first[!train], first[train], err);
    return status;
}

/* One more class, whose name must tell it apart from the others. */
static ptq_status ptq__cifar_add_class(ptq_cifar10 *data, ptq__span name, const char *where,
                                       ptq_error *err) {
    int n = data->dataset.classes;
    PTQ__FAIL_IF(n == PTQ__CIFAR_CLASSES, PTQ_BAD_DATA, "%s: more than %d classes", where, n);
    PTQ__FAIL_IF(!ptq__is_class_name(name.p, name.n), PTQ_BAD_DATA,
                 "%s: the name of class %d has over %d bytes or a control character; it must be "
                 "text with one name a line",
                 where, n, PTQ_CLASS_NAME_SIZE - 1);
    for (int c = 0; c < n; c++)
        PTQ__FAIL_IF(ptq__span_is(name, data->name[c]), PTQ_BAD_DATA,
                     "%s: two classes are named %s", where, data->name[c]);
    memcpy(data->name[n], name.p, name.n); /* zeros follow */
    data->own_name[n] = data->name[n];
    data->dataset.classes++;
    return PTQ_OK;
}

/* batches.meta.txt of the folder: names of classes, one a line, of which empty ones do not count:
   CIFAR-10's own file ends with one. Without the file the names stay CIFAR-10's. */
static ptq_status ptq__cifar_classes(ptq_cifar10 *data, const char *folder, size_t length,
                                     ptq_error *err) {
    char found[PTQ__PATH_SIZE];
    void *bytes = NULL;
    ptq__span text = {NULL, 0};
    ptq_status status = PTQ_OK;
    if (!ptq__find_in(folder, length, "batches.meta.txt", found))
        return PTQ_OK;
    PTQ__TRY(ptq_file_read(found, 4096, &data->allocator, &bytes, &text.n, err));
    text.p = (const char *)bytes;
    data->dataset.classes = 0;
    data->dataset.class_name = data->own_name;
    while (text.n && !status) {
        ptq__span name = ptq__cut(&text, '\n');
        name.n -= name.n && name.p[name.n - 1] == '\r';
        status = name.n ? ptq__cifar_add_class(data, name, found, err) : PTQ_OK;
    }
    if (!status && !data->dataset.classes)
        status = ptq_error_set(err, PTQ_BAD_DATA, "%s: no names of classes", found);
    ptq__free(&data->allocator, bytes);
    return status;
}

/* What cannot be read as a file is taken for a directory, unless it is called .bin: ISO C cannot
   ask. The names of the classes come first, since they say how many labels are legal; for a file
   they lie beside it, in what is left of the path without the file's name. */
PTQ_API ptq_status ptq_cifar10_open(const char *path, ptq_split split,
                                    const ptq_allocator *allocator, ptq_cifar10 **out,
                                    ptq_error *err) {
    size_t size = 0, length = strlen(path), folder = length;
    int is_bin = length > 4 && !strcmp(path + length - 4, ".bin"), is_file;
    ptq_cifar10 *data = NULL;
    ptq_error unread;
    void *bytes = NULL;
    ptq_status status = ptq_file_read(path, 0, allocator, &bytes, &size, &unread);
    is_file = status == PTQ_OK;
    PTQ__FAIL_IF(status && (status != PTQ_IO_ERROR || is_bin), status, "%s", unread.text);
    while (is_file && folder && !ptq__is_separator(path[folder - 1]))
        folder--;
    status = ptq__cifar_create(allocator, &data, err);
    PTQ__THEN(status, ptq__cifar_classes(data, path, folder, err));
    PTQ__THEN(status, is_file ? ptq__cifar_append(data, bytes, size, path, err)
                              : ptq__cifar_directory(data, path, split, err));
    ptq__free(allocator, bytes);
    PTQ__FINISH(status, ptq_cifar10_free(data), data, out);
}
#endif /* PTQ_RUN_ONLY, PTQ_NO_STDIO */

/* ---- [TEST VECTOR] ------------------------------------------------------------------------------
   A model file can carry what it computes from one picture, the logits of scalar kernels, so that
   whoever loads it finds out whether file, build and processor still agree. The picture itself is
   not in the file: it is drawn anew each time from a fixed seed, which takes a few lines instead of
   kilobytes. Its hash is, so that a fault in the drawing is told from one in the network. */

/* pixels: H x W x C, shape: these three. Slopes of another steepness in each channel, and a little
   noise on them, so that it looks like data: neither flat, which would leave most of a network's
   codes unused, nor noise alone, on which many networks give the same logits. */
static void ptq__test_picture(const int *shape, uint8_t *pixels) {
    ptq_rng rng;
    ptq_rng_seed(&rng, 8, 8);
    for (int y = 0; y < shape[0]; y++)
        for (int x = 0; x < shape[1]; x++)
            for (int c = 0; c < shape[2]; c++) {
                int slope = y * (c + 3) + x * (5 - c % 5);
                *pixels++ = (uint8_t)((slope * 4 + (int)ptq_rng_below(&rng, 24)) & 255);
            }
}

/* The same picture as real numbers, n of them, behind it: what its pixels stand for as codes, where
   a quantize node makes these of the input; else -4 to 4, in units that preprocessing undoes. */
static void ptq__test_numbers(const ptq_model *model, const uint8_t *pixels, size_t n, float *out) {
    ptq_qparams q = {PTQ_TYPE_U8, 8, 1.0f / 32, 128};
    size_t channels = (size_t)model->node[0].shape[2], i, c;
    int32_t low, high;
    for (int k = model->nodes - 1; k > 0; k--)
        if (model->node[k].op == PTQ_OP_QUANTIZE && model->node[k].input[0] == 0)
            q = model->node[k].q;
    ptq_code_range(q.type, q.bits, &low, &high);
    for (i = 0, c = 0; i < n; i++, c = (c + 1) % channels) {
        out[i] = ptq_dequantize(low + (pixels[i] >> (8 - q.bits)), &q);
        if (c < PTQ_MAX_PIXEL_CHANNELS)
            out[i] = ptq__mul(out[i], model->std[c]) + model->mean[c];
    }
}

enum { PTQ__TEST_LOGITS = 64 }; /* more are left out */

/* Runs the plan on the picture. `logits` gets the first PTQ__TEST_LOGITS at most, *count of them;
   `hash` the picture's, in decimal: 2^64 has 20 digits. */
static ptq_status ptq__run_picture(const ptq_plan *plan, float *logits, int *count, char hash[24],
                                   ptq_error *err) {
    const ptq_plan_info *info = &plan->info;
    size_t classes = (size_t)info->classes, n = info->pixels;
    size_t reals = info->type == PTQ_TYPE_F32 ? n : 0;
    ptq__text text = ptq__text_over(hash, 24);
    ptq_session *session = NULL;
    float *all = NULL; /* a logit for each class, numbers and pixels of the picture, H x W x C */
    ptq_status status;
    PTQ__TRY(ptq__session_of(plan, &plan->allocator, 0, &session, err));
    status =
        ptq__alloc(&plan->allocator, (classes + reals) * sizeof *all + n, 1, "an image", &all, err);
    if (!status) {
        float *numbers = all + classes;
        uint8_t *pixels = (uint8_t *)(numbers + reals);
        ptq_results out = {all, NULL, NULL, NULL};
        ptq__test_picture(info->model->node[0].shape, pixels);
        ptq__put(&text, "%llu", (unsigned long long)ptq__fnv(ptq__fnv_start, pixels, n));
        ptq__test_numbers(info->model, pixels, reals, numbers);
        status = ptq_run_items(session, info->type, reals ? (void *)numbers : pixels, 1, &out, err);
        *count = classes < PTQ__TEST_LOGITS ? info->classes : (int)PTQ__TEST_LOGITS;
        memcpy(logits, all, (size_t)*count * sizeof *logits);
    }
    ptq_session_free(session);
    ptq__free(&plan->allocator, all);
    return status;
}

/* 1 if the result cannot depend on the instruction set: every layer with weights on integers, whose
   sums are the same in any order. Vector kernels add real numbers in an order of their own. */
static int ptq__is_exact(const ptq_model *model) {
    for (int i = 0; i < model->nodes; i++)
        if (ptq__operator_of(&model->node[i])->fusion == PTQ_FUSION_BATCH_NORM ||
            (ptq__has_weight(model->node[i].op) && ptq_node_mode(model, i) != PTQ_MODE_INTEGER))
            return 0;
    return 1;
}

/* The hash is compared first: another picture cannot give these logits, whatever the network. Then
   each logit, y beside the file's y': equal, or, where real numbers are added up,

       |y' - y| <= 1e-3 (1 + |y'|)

   Written as "not at most", the comparison also catches NaN. */
PTQ_API ptq_status ptq_self_test_check(const ptq_plan *plan, ptq_error *err) {
    const char *line = ptq_model_get_meta(plan->info.model, "self_test");
    float logits[PTQ__TEST_LOGITS], allowed = ptq__is_exact(plan->info.model) ? 0 : 1e-3f;
    ptq__span rest = ptq__span_of(line ? line : "");
    char hash[24];
    int n = 0;
    PTQ__FAIL_IF(!line, PTQ_NOT_READY, "the model has no self-test vector");
    PTQ__TRY(ptq__run_picture(plan, logits, &n, hash, err));
    PTQ__FAIL_IF(!ptq__span_is(ptq__cut(&rest, ' '), hash), PTQ_BAD_NUMBER,
                 "the self-test is of another picture");
    for (int i = 0; i < n; i++) {
        float want = 0;
        int read = ptq__read_float(ptq__cut(&rest, ' '), &want);
        PTQ__FAIL_IF(
            !read || !(fabsf(want - logits[i]) <= allowed * (1 + fabsf(want))), PTQ_BAD_NUMBER,
            "self-test: logit %d is %g, the file says %g; the file or the build is damaged", i,
            (double)logits[i], (double)want);
    }
    return PTQ_OK;
}

#ifndef PTQ_RUN_ONLY
/* Scalar kernels make the vector, since they are the ones that all others are checked against. The
   line in the metadata is "HASH LOGIT LOGIT ...", floats written so that they read back the same;
   2048 bytes hold 64 of them, of at most 16 characters. */
PTQ_API ptq_status ptq_self_test_add(ptq_model *model, ptq_error *err) {
    char line[2048], hash[24];
    ptq__text text = ptq__text_over(line, sizeof line);
    float logits[PTQ__TEST_LOGITS];
    ptq_plan_options scalar;
    ptq_plan *plan = NULL;
    int n = 0;
    memset(&scalar, 0, sizeof scalar);
    scalar.isa = PTQ_ISA_SCALAR;
    scalar.allocator = model->allocator;
    PTQ__TRY(ptq_plan_create(model, &scalar, &plan, err));
    ptq_status status = ptq__run_picture(plan, logits, &n, hash, err);
    ptq_plan_free(plan);
    PTQ__TRY(status);
    ptq__put_string(&text, hash);
    for (int i = 0; i < n; i++)
        ptq__put(&text, " %g", (double)logits[i]);
    return ptq_model_set_meta(model, "self_test", line, err);
}
#endif /* PTQ_RUN_ONLY */

/* =============================================================================================
   PART THREE: SPEED
   Vector kernels. Skip it freely: part one computes the same bytes.
   ============================================================================================= */

/* ---- [CPU] ----------------------------------------------------------------------------------- */

/* Which instruction sets were compiled, and which of them this processor has. Vector kernels carry
   theirs as an attribute of the function: so no compiler flag is needed, and a compiler that lacks
   one of them only lacks its kernels. They are written with the vector types of gcc and clang; with
   any other compiler PTQ__VECTOR stays undefined, and the scalar kernels do everything. */
#if !defined(PTQ_NO_SIMD) && !defined(__TINYC__) && defined(__x86_64__) &&                         \
    (!defined(__MINGW32__) || defined(__clang__) || defined(PTQ_MINGW_SIMD)) &&                    \
    (defined(__clang__) ? __clang_major__ >= 7 : defined(__GNUC__) && __GNUC__ >= 8)
#define PTQ__X86
#define PTQ__VECTOR
#define PTQ__128
#define PTQ__REGISTER "x" /* what a vector's place is called in assembly */
#define PTQ__CLAMPED 0    /* whether only clamped numbers can be rounded */
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
#ifdef PTQ__EMULATE /* for tests, which bring functions in place of all that AVX2 lacks */
#define PTQ__AVX512 PTQ__AVX2
#define PTQ__AVXVNNI PTQ__AVX2
#define PTQ__AVX512VNNI PTQ__AVX2
#define PTQ__AMX PTQ__AVX2
#define PTQ__HAS_AVXVNNI 1
#define PTQ__HAS_AMX 1
#else
#define PTQ__AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define PTQ__AVXVNNI __attribute__((target("avx2,fma,avxvnni")))
#define PTQ__AVX512VNNI                                                                            \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define PTQ__HAS_AVXVNNI 1
#else
#define PTQ__HAS_AVXVNNI 0
#endif
/* Only Linux lets us ask for AMX; the other names of its ABI have other numbers of system calls. */
#if defined(__linux__) && defined(__LP64__) &&                                                   \
    (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define PTQ__AMX                                                                                   \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-int8")))
#define PTQ__HAS_AMX 1
#else
#define PTQ__HAS_AMX 0
#endif
#endif
#define PTQ__BUILT_ISAS                                                                            \
    (1u << PTQ_ISA_SSE2 | 1u << PTQ_ISA_AVX2 | (unsigned)PTQ__HAS_AVXVNNI << PTQ_ISA_AVXVNNI |     \
     1u << PTQ_ISA_AVX512 | 1u << PTQ_ISA_AVX512VNNI | (unsigned)PTQ__HAS_AMX << PTQ_ISA_AMX)
#endif

/* NEON is part of every 64-bit ARM, and a matter of compiler flags on 32-bit ones. Its dot product
   came with Armv8.2; clang 16 is the first whose arm_neon.h goes by the target of the function. */
#if !defined(PTQ_NO_SIMD) && !defined(__TINYC__) && defined(__ARM_NEON) &&                         \
    !defined(__ARM_BIG_ENDIAN) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 8))
#define PTQ__NEON
#define PTQ__VECTOR
#define PTQ__128
#define PTQ__REGISTER "w"
#define PTQ__CLAMPED 1
#include <arm_neon.h>
#if defined(__ARM_FEATURE_DOTPROD)
#define PTQ__DOTPROD
#define ptq__has_dotprod() 1 /* the compiler was told so */
#elif defined(__aarch64__) && defined(__linux__) && (!defined(__clang__) || __clang_major__ >= 16)
#include <sys/auxv.h>
#ifdef __clang__
#define PTQ__DOTPROD __attribute__((target("dotprod")))
#else
#define PTQ__DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define ptq__has_dotprod() (getauxval(AT_HWCAP) >> 20 & 1) /* HWCAP_ASIMDDP: newer than headers */
#endif
#ifdef __aarch64__
#define PTQ__BY_LANE
#endif
#ifdef PTQ__DOTPROD
#define PTQ__BUILT_ISAS (1u << PTQ_ISA_NEON | 1u << PTQ_ISA_NEONDOT)
#else
#define PTQ__BUILT_ISAS (1u << PTQ_ISA_NEON)
#define ptq__has_dotprod() 0
#endif
#endif

#if !defined(PTQ_NO_SIMD) && defined(__wasm_simd128__)
#define PTQ__WASM
#define PTQ__VECTOR
#define PTQ__128
#define PTQ__REGISTER "r"
#define PTQ__CLAMPED 1
#include <wasm_simd128.h>
#define PTQ__BUILT_ISAS (1u << PTQ_ISA_WASM)
#endif

#ifndef PTQ__BUILT_ISAS /* the vector kernels that were compiled, as a set of 1 << isa */
#define PTQ__BUILT_ISAS 0u
#endif

#ifdef PTQ__X86
#if !PTQ__HAS_AMX || defined(PTQ__EMULATE)
#define ptq__may_use_amx(features, saved) PTQ__HAS_AMX
#else
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
#endif

/* What processor and operating system have in common, as a set of 1 << isa. Of registers the system
   saves, bits 1, 2: up to 256 bits wide; 5, 6, 7: 512; 17, 18: tiles and their configuration. */
static unsigned ptq__cpu_isas(void) {
    unsigned a, b, c, d, b7, c7, d7, a71, saved, isas = 1u << PTQ_ISA_SSE2;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) ||
        (c & 0x18001000) != 0x18001000) /* AVX, xgetbv, FMA */
        return isas;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
    if ((saved & 6) != 6 || !(b7 >> 5 & 1))
        return isas;
    isas |= 1u << PTQ_ISA_AVX2;
#ifdef PTQ__EMULATE
    return PTQ__BUILT_ISAS;
#endif
    if (__get_cpuid_count(7, 1, &a71, &b, &c, &d) && a71 >> 4 & 1)
        isas |= 1u << PTQ_ISA_AVXVNNI;
    if ((saved & 0xe6) == 0xe6 && (b7 & 0xc0030000) == 0xc0030000) { /* F, DQ, BW, VL */
        isas |= 1u << PTQ_ISA_AVX512;
        if (c7 >> 11 & 1)
            isas |= 1u << PTQ_ISA_AVX512VNNI;
    }
    if (isas >> PTQ_ISA_AVX512 & 1 && ptq__may_use_amx(d7, saved))
        isas |= 1u << PTQ_ISA_AMX;
    return isas & PTQ__BUILT_ISAS;
}
#elif defined(PTQ__NEON)
static unsigned ptq__cpu_isas(void) {
    return 1u << PTQ_ISA_NEON | (ptq__has_dotprod() ? 1u << PTQ_ISA_NEONDOT : 0u);
}
#else /* a runtime without WebAssembly's vectors would not have loaded the module */
static unsigned ptq__cpu_isas(void) { return PTQ__BUILT_ISAS; }
#endif

PTQ_API ptq_support ptq_isa_support(ptq_isa isa) {
    if (isa == PTQ_ISA_AUTO || isa == PTQ_ISA_SCALAR)
        return PTQ_SUPPORT_AVAILABLE;
    if ((unsigned)isa >= PTQ_ISA_COUNT || !(PTQ__BUILT_ISAS >> isa & 1))
        return PTQ_SUPPORT_NONE;
    return ptq__cpu_isas() >> isa & 1 ? PTQ_SUPPORT_AVAILABLE : PTQ_SUPPORT_COMPILED;
}

static ptq_isa ptq__best_isa(void) {
    int isa = PTQ_ISA_COUNT - 1;
    while (ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
        isa--;
    return (ptq_isa)isa;
}

/* ---- [VECTOR] -------------------------------------------------------------------------------- */

/* Convolution and dense layers with vector instructions. There is one design for all of them:

   - The plan packs the weights once, in the order in which they are read.
   - Rows of the input are *staged* before their first use, unless they lie so already: copied into
     a buffer, in the form that the multiplication wants, with their padding, pixel by pixel. A row
     of the kernel then covers one run of words, whatever the number of channels, and no tap is ever
     tested for being outside. As many rows are staged at once as a cache holds.
   - The inner loop, a *tile*, takes a word of 32 bits (one float, two 16-bit or four 8-bit codes)
     of several pixels and multiplies each with the weights of one or two vectors of output
     channels. Its sums stay in registers. One call goes through all pixels of the staged rows.
   - A row of tiles leaves its sums in a buffer, and another loop finishes them: requantization,
     activation and residual, four vectors of codes at a time, before the only store to the arena.
   - Depthwise convolutions are the same loops: what is staged are vectors of channels, as real
     numbers, so that a word is a vector and nothing is spread.
   - Where multiplications are dear, most 3 x 3 kernels take fewer of them: ptq__winograd_rows.

   The section goes from there to here: what a layer is made ready into; the loops as macros over a
   vector type; the widths and instruction sets that fill these in; the layer's own loop; packing,
   and which step gets which kernel.

   Macros are given a vector type V, of reals (F) or of integers (I), 32 bits each, and paste the
   names of its operations together. The compiler knows + - * / & ^ on such types. What is left:

     V_load(p)  V_store(p, v)     a whole vector, anywhere in memory
     V_all(value)  V_spread(p)    one number, or the one at p, in all lanes
     V_get(x, at, n, is_signed)   elements `at` to `at` + n of a tensor, of 4 bytes (F) or 1 (I);
     V_put(y, at, n, v)           nothing beyond them is read or written
     F_clamp(v, least, most)  F_fma(sum, x, w)    lane by lane; sum + x w, rounded once
     I_real(v)  I_round(f)        to F, and back: half to even
     I_bytes(four, zero, low, high)   four vectors, `zero` added, clamped, as bytes of one

   An instruction set is these operations, one multiplication for each form of staged codes, and a
   choice of tile sizes. To make another operator fast, enter its kernel in PTQ__OPERATORS. */
#ifdef PTQ__VECTOR
#define PTQ__INLINE static inline __attribute__((always_inline))

enum {
    PTQ__UNIT = 64,          /* bytes that staging writes at once */
    PTQ__WORD = 4,           /* bytes of what is multiplied at once */
    PTQ__PLACES = 16,        /* see ptq__winograd_rows */
    PTQ__AT_ONCE = 32 * 1024 /* bytes to be staged, unless the rows of one output row are more */
};

/* What becomes of the sums. */
typedef struct ptq__finish {
    float least, most;         /* clamp of the convolution's own result ... */
    float add_least, add_most; /* ... and of the sum with the residual */
    int32_t zero_point;        /* codes: added after rounding */
    int real;                  /* integers become real numbers: the logits */
    int residual_first;        /* the residual is operand a of ptq__adder, else b */
    int residual_signed;
    int flip, low, high; /* codes: 128 where they are signed, and their range with it added */
    int fours;           /* whether all real results fit 32 bits: see I_finish_fours */
    float ratio_a, ratio_b, offset;
    float sure;           /* a plain sum this near to its code has the same code as the exact one */
    const void *residual; /* H x W x C; NULL: none */
    void *y, *mid;        /* H x W x C; mid: before the addition; NULL: not kept */
    int channels;         /* C */
} ptq__finish;

/* Sums of some pixels of a row by one or two vectors of channels, which wait to be finished. */
typedef struct ptq__sums {
    char *at; /* pixel by pixel, vector by vector */
    int pixels, channels, vectors;
    ptrdiff_t out;           /* index of the first result */
    const float *multiplier; /* integers: one for each channel */
    const char *later;       /* real sums of codes: the biases, still to be added; else NULL */
} ptq__sums;

/* Up to two vectors of channels of a group. */
typedef struct ptq__panel {
    int group, first, channels; /* of the result */
    int lane;                   /* where its padded channels begin */
    int vectors;                /* 1 or 2 */
} ptq__panel;

/* What one call computes: rows of pixels by the channels of a panel. */
typedef struct ptq__area {
    const char *from;               /* the staged input of the first pixel */
    ptrdiff_t row, advance;         /* bytes from there to the next output row; to the next pixel */
    ptrdiff_t run;                  /* and to the next row of the kernel, */
    int runs, words;                /* of which there are `runs`, of so many words */
    int rows;                       /* sums.pixels each */
    const char *weight, *bias;      /* runs x words x vectors; vectors */
    ptrdiff_t weight_row, sums_row; /* bytes from those of a row to those of the next */
    ptrdiff_t out_row;              /* results from a row to the next */
    ptq__sums sums;                 /* of the first row */
    const ptq__finish *finish;      /* of each row, before the next one; NULL: sums stay */
} ptq__area;

typedef struct ptq__packed ptq__packed;

/* The transforms of ptq__winograd_rows. */
typedef struct ptq__winograd {
    int bytes; /* of a vector of what is staged */
    /* A row of tiles from four staged rows: 16 planes, one for each place in a tile. */
    void (*scatter)(const ptq__packed *k, const char *const *row, char *planes);
    /* One row of outputs or two, of `row` and behind it, from 16 planes of sums. */
    void (*gather)(const ptq__packed *k, const ptq__panel *panel, const char *planes, ptq__sums row,
                   int rows, const ptq__finish *finish);
} ptq__winograd;

/* The forms of staged words and of their weights. */
enum {
    PTQ__PLANAR = 1,    /* weights: the first code of the word for all lanes, then the next one */
    PTQ__SIGNED = 2,    /* bytes are staged as signed codes, else as unsigned ones */
    PTQ__SATURATES = 4, /* only for weights of which ptq__pairs_fit */
    PTQ__MATRICES = 8,  /* multiplies tiles of up to 16 pixels by 16 words: see ptq__amx_area */
    PTQ__DEPTHWISE = 16 /* every channel by itself: a word is a vector of channels, as reals */
};

/* One way to compute. */
typedef struct ptq__engine {
    int lanes, codes; /* sums in a vector; elements in a word: 1 (floats), 2 or 4 */
    unsigned form;
    int most; /* pixels of the largest tile: so many at most are computed besides those of a row */
    /* Puts pixels into a staged row, whatever is behind them in memory: see PTQ__COPY. */
    void (*copy)(const ptq__packed *k, const char *from, ptrdiff_t left, char *to, ptrdiff_t bytes);
    const ptq__winograd *winograd;             /* NULL: none */
    void (*compute[2])(const ptq__area *area); /* one vector of channels, two */
} ptq__engine;

/* A convolution made ready: in the memory of ptq__step.packed, together with all it points to. */
struct ptq__packed {
    const ptq__engine *engine;
    const int *in, *out, *kernel, *stride, *pad; /* as in the step: H, W, C; rows, columns */
    int groups, deep, each; /* input, output channels of a group; depthwise: of a vector instead */
    int coded; /* integers: the input is codes */
    /* The staged input. */
    int direct;          /* whether it is read where it is instead */
    int skip;            /* of so many rows only the first is staged */
    int count;           /* staged pixels of a row, besides the padding */
    int parts;           /* in which they are copied: 1, or one for each of them */
    ptrdiff_t pitch;     /* bytes of a staged pixel */
    ptrdiff_t advance;   /* bytes from the input of an output pixel to that of the next */
    ptrdiff_t row_bytes; /* of a row */
    int block;           /* output rows of which the input is staged at once */
    int flip, zero;      /* codes: what is flipped in a staged one; the zero point after that */
    int blank;           /* byte that stands for 0 in a staged row */
    /* The weights. */
    int runs, words; /* rows of the kernel; words of what such a row covers */
    int tiles;       /* ptq__winograd_rows: in a row, 0: not used; and so many rows of them */
    int batch;       /* are multiplied at once */
    ptrdiff_t before, wide;    /* bytes before the first column of a row, and of all columns */
    ptrdiff_t plane, products; /* bytes of a plane of inputs, of products; and from the planes of */
    ptrdiff_t apart;           /* the former to those of the latter, which may be over them */
    int lanes;       /* channels, padded */
    int panels;
    ptq__panel *panel; /* panels */
    char *bias;        /* lanes words */
    float *multiplier; /* lanes; integers only */
    ptrdiff_t lane_bytes;
    char *weight; /* lanes x lane_bytes, panel by panel; of a panel run by run, word by word */
    ptq__finish finish;
};

/* Rows to be staged for so many output rows (tiles of reals: of zeros); and bytes of all. */
static int ptq__staged_rows(const ptq__packed *k, int rows) {
    if (k->tiles)
        return k->coded ? rows + rows % 2 + 2 : 1;
    return k->direct ? 0 : (rows - 1) * k->stride[0] / k->skip + k->runs;
}

static size_t ptq__staged_bytes(const ptq__packed *k) {
    ptrdiff_t bytes = ptq__staged_rows(k, k->block) * k->row_bytes + PTQ__UNIT;
    bytes += k->engine->most * k->advance + k->kernel[1] * k->pitch;
    return ptq__align((size_t)(bytes + k->words * PTQ__WORD));
}

/* Bytes of the sums of a row, or of two that come from tiles. */
static size_t ptq__sums_bytes(const ptq__packed *k) {
    int pixels = k->tiles ? 4 * k->tiles : k->out[1] + k->engine->most;
    return ptq__align((size_t)pixels * 2 * (size_t)k->engine->lanes * PTQ__WORD);
}

/* The inner loop. */

#if defined(__clang__)
#define PTQ__UNROLL _Pragma("clang loop unroll(full)")
#else
#define PTQ__UNROLL _Pragma("GCC unroll 16")
#endif

/* Where the word at hand of a pixel lies. Every fourth one has a pointer: the distance from there
   to the next three is in registers, which x86 adds while it loads. */
#define PTQ__PIXEL(p) (at[(p) / 4] + (p) % 4 * b.advance)

/* One word of PIXELS pixels times the weights of VECTORS vectors of channels. */
#define PTQ__STEP(V, PIXELS, VECTORS, DOT, WEIGHT)                                                 \
    do {                                                                                           \
        PTQ__UNROLL for (v = 0; v < VECTORS; v++) w[v] = V##_load((WEIGHT) + v * SIZE);            \
        PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                                 \
            x = V##_spread(PTQ__PIXEL(p));                                                         \
            PTQ__UNROLL for (v = 0; v < VECTORS; v++) sum[p][v] = DOT(sum[p][v], x, w[v]);         \
        }                                                                                          \
    } while (0)

#define PTQ__NEXT(PIXELS, BYTES) PTQ__UNROLL for (p = 0; p < (PIXELS + 3) / 4; p++) at[p] += BYTES

/* All words of a run. Where a multiplication can name a lane of its operand, as on 64-bit ARM,
   four words of a pixel are loaded at once: to spread a word costs more than to load it. For
   WebAssembly eight are written out, and left after the last one: the compilers of its runtimes see
   no further than from jump to jump, and would first load all words, for which there are no
   registers. They fold constants into the addresses of weights, but not of words to be spread: so
   `at` moves on, which the empty statement hides from the compiler, and the distances of pixels
   stay the same for all words, and in registers. */
#if defined(PTQ__BY_LANE)
#define PTQ__LANE(V, PIXELS, VECTORS, DOT, LANE)                                                   \
    do {                                                                                           \
        PTQ__UNROLL for (v = 0; v < VECTORS; v++) w[v] = V##_load(weight + v * SIZE);              \
        PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                                 \
            PTQ__UNROLL for (v = 0; v < VECTORS; v++) sum[p][v] =                                  \
                DOT##_lane(sum[p][v], four[p], w[v], LANE);                                        \
        }                                                                                          \
        weight += VECTORS * SIZE;                                                                  \
    } while (0)
#define PTQ__WORDS(V, PIXELS, VECTORS, DOT)                                                        \
    do {                                                                                           \
        for (; word >= 4; word -= 4) {                                                             \
            V four[PIXELS];                                                                        \
            PTQ__UNROLL for (p = 0; p < PIXELS; p++) four[p] = V##_load(PTQ__PIXEL(p));            \
            PTQ__LANE(V, PIXELS, VECTORS, DOT, 0);                                                 \
            PTQ__LANE(V, PIXELS, VECTORS, DOT, 1);                                                 \
            PTQ__LANE(V, PIXELS, VECTORS, DOT, 2);                                                 \
            PTQ__LANE(V, PIXELS, VECTORS, DOT, 3);                                                 \
            PTQ__NEXT(PIXELS, 4 * PTQ__WORD);                                                      \
        }                                                                                          \
        for (; word > 0; word--, weight += VECTORS * SIZE) {                                       \
            PTQ__STEP(V, PIXELS, VECTORS, DOT, weight);                                            \
            PTQ__NEXT(PIXELS, PTQ__WORD);                                                          \
        }                                                                                          \
    } while (0)
#elif defined(PTQ__WASM)
#define PTQ__WORDS(V, PIXELS, VECTORS, DOT)                                                        \
    for (; word > 0; weight += (word < 8 ? word : 8) * VECTORS * SIZE, word -= 8) {                \
        int nth;                                                                                   \
        PTQ__UNROLL for (nth = 0; nth < 8; nth++) {                                                \
            PTQ__STEP(V, PIXELS, VECTORS, DOT, weight + nth * VECTORS * SIZE);                     \
            PTQ__NEXT(PIXELS, PTQ__WORD);                                                          \
            if (nth + 1 == word)                                                                   \
                break;                                                                             \
            PTQ__UNROLL for (p = 0; p < (PIXELS + 3) / 4; p++) __asm__("" : "+r"(at[p]));          \
        }                                                                                          \
    }
#else
#define PTQ__WORDS(V, PIXELS, VECTORS, DOT)                                                        \
    for (; word > 0; word--, weight += VECTORS * SIZE) {                                           \
        PTQ__STEP(V, PIXELS, VECTORS, DOT, weight);                                                \
        PTQ__NEXT(PIXELS, PTQ__WORD);                                                              \
    }
#endif

/* The same of a depthwise convolution, whose lanes meet lanes: nothing is spread. */
#define PTQ__TAPS(V, PIXELS, VECTORS, DOT)                                                         \
    for (; word > 0; word--, weight += SIZE) {                                                     \
        w[0] = V##_load(weight);                                                                   \
        PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                                 \
            x = V##_load(PTQ__PIXEL(p));                                                           \
            sum[p][0] = DOT(sum[p][0], x, w[0]);                                                   \
        }                                                                                          \
        PTQ__NEXT(PIXELS, SIZE);                                                                   \
    }

/* The next PIXELS pixels of a row, of which `left` are to come. Their sums begin with the bias, in
   PIXELS x VECTORS registers, and each vector of weights is read once. */
#define PTQ__TILE(V, PIXELS, VECTORS, DOT, WORDS)                                                  \
    do {                                                                                           \
        enum { SIZE = sizeof(V) };                                                                 \
        V sum[PIXELS][VECTORS], w[VECTORS], x;                                                     \
        const char *at[(PIXELS + 3) / 4], *weight = first;                                         \
        int p, v, run, word;                                                                       \
        PTQ__UNROLL for (v = 0; v < VECTORS; v++) {                                                \
            w[v] = V##_load(b.bias + v * SIZE);                                                    \
            PTQ__UNROLL for (p = 0; p < PIXELS; p++) sum[p][v] = w[v];                             \
        }                                                                                          \
        for (run = 0; run < b.runs; run++) {                                                       \
            at[0] = from + run * b.run;                                                            \
            PTQ__UNROLL for (p = 1; p < (PIXELS + 3) / 4; p++) at[p] = at[p - 1] + 4 * b.advance;  \
            word = b.words;                                                                        \
            WORDS(V, PIXELS, VECTORS, DOT);                                                        \
        }                                                                                          \
        PTQ__UNROLL for (p = 0; p < PIXELS; p++) {                                                 \
            PTQ__UNROLL for (v = 0; v < VECTORS; v++)                                              \
                V##_store(to + (p * VECTORS + v) * SIZE, sum[p][v]);                               \
        }                                                                                          \
        from += PIXELS * b.advance;                                                                \
        to += PIXELS * VECTORS * SIZE;                                                             \
        left -= PIXELS;                                                                            \
    } while (0)

/* A block, in large tiles as far as they fit, or in tiles of seven where eight would leave the last
   ones in part empty, as at 7 and 14 pixels. What a tile computes beyond the row's end is
   overwritten or forgotten. */
#define PTQ__COMPUTE(NAME, TARGET, V, SMALL, LARGE, VECTORS, DOT, WORDS, FINISH)                   \
    TARGET static void NAME(const ptq__area *area) {                                               \
        const ptq__area b = *area;                                                                 \
        ptq__sums sums = b.sums;                                                                   \
        int y, sevens = sums.pixels % 7 == 0 && sums.pixels % 4 != 0;                              \
        for (y = 0; y < b.rows; y++, sums.at += b.sums_row, sums.out += b.out_row) {               \
            const char *from = b.from + y * b.row, *first = b.weight + y * b.weight_row;           \
            char *to = sums.at;                                                                    \
            int left = sums.pixels;                                                                \
            while (left > 0)                                                                       \
                if (LARGE == 8 && sevens)                                                          \
                    PTQ__TILE(V, 7, VECTORS, DOT, WORDS);                                          \
                else if (left > LARGE ? left >= LARGE + SMALL : left > SMALL)                      \
                    PTQ__TILE(V, LARGE, VECTORS, DOT, WORDS);                                      \
                else                                                                               \
                    PTQ__TILE(V, SMALL, VECTORS, DOT, WORDS);                                      \
            if (b.finish)                                                                          \
                FINISH(&sums, b.finish);                                                           \
        }                                                                                          \
    }

/* An engine with its tiles: A and B pixels by one vector of channels, C and D by two. */
#define PTQ__ENGINE(NAME, TARGET, V, DOT, CODES, FORM, STAGE, WINOGRAD, A, B, C, D)                \
    PTQ__COMPUTE(NAME##_one, TARGET, V, A, B, 1, DOT, PTQ__WORDS, V##_finish_row)                  \
    PTQ__COMPUTE(NAME##_two, TARGET, V, C, D, 2, DOT, PTQ__WORDS, V##_finish_row)                  \
    static const ptq__engine NAME = {sizeof(V) / PTQ__WORD,   CODES, FORM, B, STAGE, WINOGRAD,     \
                                     {NAME##_one, NAME##_two}};

/* Finishing. */

static float ptq__act_least(ptq_activation act) { return act ? 0 : (float)-HUGE_VAL; }

static float ptq__act_most(ptq_activation act) {
    return act == PTQ_ACTIVATION_RELU6 ? 6 : (float)HUGE_VAL;
}

static void ptq__describe_adder(ptq__finish *f, const ptq__step *step) {
    const ptq__adder *adder = &step->adder;
    f->ratio_a = adder->ratio_a;
    f->ratio_b = adder->ratio_b;
    f->offset = adder->offset;
    /* A plain sum is rounded four times, ptq__add_codes twice: each by 2^-24 of what follows at
       most, of which eight are on the safe side. */
    f->sure = 0.5f - ldexpf(256 * (fabsf(f->ratio_a) + fabsf(f->ratio_b)) + fabsf(f->offset), -21);
    f->add_least = (float)adder->clamp.low;
    f->add_most = (float)adder->clamp.high;
}

/* What becomes of n real sums: y = clamp(clamp(sum) + residual). */
#define PTQ__FINISH_REAL(F, TARGET)                                                                \
    TARGET PTQ__INLINE void F##_finish(const ptq__finish *f, const float *multiplier,              \
                                       ptrdiff_t at, int n, F sum) {                               \
        (void)multiplier;                                                                          \
        sum = F##_clamp(sum, f->least, f->most);                                                   \
        if (f->mid)                                                                                \
            F##_put(f->mid, at, n, sum);                                                           \
        if (f->residual)                                                                           \
            sum = F##_clamp(sum + F##_get(f->residual, at, n, 0), f->add_least, f->add_most);      \
        F##_put(f->y, at, n, sum);                                                                 \
    }

/* ptq__add_codes, of which the residual is operand a or b. */
#define PTQ__SUM_CODES(NAME, F, I, TARGET)                                                         \
    TARGET PTQ__INLINE I NAME(const ptq__finish *f, F own, F residual, int clamp) {                \
        F a = f->residual_first ? residual : own, b = f->residual_first ? own : residual;          \
        F sum = F##_fma(F##_all(f->offset), b, F##_all(f->ratio_b));                               \
        sum = F##_fma(sum, a, F##_all(f->ratio_a));                                                \
        return I##_round(clamp ? F##_clamp(sum, f->add_least, f->add_most) : sum);                 \
    }

/* What becomes of n integer sums: ptq__to_code, then the addition. */
#define PTQ__FINISH_CODES(F, I, TARGET)                                                            \
    TARGET PTQ__INLINE void I##_finish(const ptq__finish *f, const float *multiplier,              \
                                       ptrdiff_t at, int n, I sum) {                               \
        F real = F##_clamp(I##_real(sum) * F##_load(multiplier), f->least, f->most);               \
        I code;                                                                                    \
        if (f->real) {                                                                             \
            F##_put(f->y, at, n, real);                                                            \
            return;                                                                                \
        }                                                                                          \
        code = I##_round(real) + (uint32_t)f->zero_point;                                          \
        if (f->mid)                                                                                \
            I##_put(f->mid, at, n, code);                                                          \
        if (f->residual)                                                                           \
            code = I##_sum(f, I##_real(code),                                                      \
                           I##_real(I##_get(f->residual, at, n, f->residual_signed)), 1);          \
        I##_put(f->y, at, n, code);                                                                \
    }

/* Finishes all sums. */
#define PTQ__FINISH_ALL(NAME, V, TARGET)                                                           \
    TARGET static void NAME(const ptq__sums *sums, const ptq__finish *finish) {                    \
        enum { SIZE = sizeof(V), LANES = SIZE / PTQ__WORD };                                       \
        const ptq__sums s = *sums; /* no store below can change them */                            \
        const ptq__finish f = *finish;                                                             \
        int p, v;                                                                                  \
        for (v = 0; v < s.vectors; v++) {                                                          \
            const float *multiplier = s.multiplier + v * LANES;                                    \
            const char *from = s.at + v * SIZE;                                                    \
            ptrdiff_t out = s.out + v * LANES;                                                     \
            int n = s.channels - v * LANES;                                                        \
            if (n >= LANES && !f.mid) /* the usual case, without the questions of others */        \
                for (p = 0; p < s.pixels; p++, out += f.channels, from += s.vectors * SIZE)        \
                    V##_finish(&f, multiplier, out, LANES, V##_load(from));                        \
            else                                                                                   \
                for (p = 0; p < s.pixels; p++, out += f.channels, from += s.vectors * SIZE)        \
                    V##_finish(&f, multiplier, out, n, V##_load(from));                            \
        }                                                                                          \
    }

/* Codes: four vectors at once, which I_bytes makes into one: it adds the zero point and clamps,
   with saturation, when numbers are short. So nothing must be clamped before, if what is rounded
   fits 32 bits, as it does with multipliers below 1. `vectors`, and whether something is `added`,
   the residual, are constants. */
#define PTQ__FINISH_FOURS(F, I, TARGET)                                                            \
    TARGET PTQ__INLINE void I##_finish_fours(ptq__sums *s, const ptq__finish *f, int vectors,      \
                                             int added) {                                          \
        enum { SIZE = sizeof(I), LANES = SIZE / PTQ__WORD };                                       \
        int v, zero = (added ? 0 : f->zero_point) + f->flip, channels = f->channels;               \
        int dense = channels == vectors * LANES;                                                   \
        F multiplier[2];                                                                           \
        multiplier[0] = F##_load(s->multiplier);                                                   \
        multiplier[1] = vectors == 2 ? F##_load(s->multiplier + LANES) : multiplier[0];            \
        for (; s->pixels >= 4 / vectors; s->pixels -= 4 / vectors, s->at += 4 * SIZE) {            \
            char *y = (char *)f->y + s->out;                                                       \
            const char *from = (const char *)f->residual + (added ? s->out : 0);                   \
            I four[4];                                                                             \
            PTQ__UNROLL for (v = 0; v < 4; v++) {                                                  \
                F real = I##_real(I##_load(s->at + v * SIZE)) * multiplier[v % vectors];           \
                if (added || PTQ__CLAMPED)                                                         \
                    real = F##_clamp(real, f->least, f->most);                                     \
                four[v] = I##_round(real);                                                         \
                if (added)                                                                         \
                    four[v] = I##_sum(                                                             \
                        f, I##_real(four[v] + (uint32_t)f->zero_point),                            \
                        I##_real(I##_get(from, v / vectors * channels + v % vectors * LANES,       \
                                         LANES, f->residual_signed)),                              \
                        PTQ__CLAMPED);                                                             \
            }                                                                                      \
            four[0] = I##_bytes(four, zero, f->low, f->high) ^ (uint32_t)f->flip * 0x01010101u;    \
            if (dense)                                                                             \
                I##_store(y, four[0]);                                                             \
            else                                                                                   \
                PTQ__UNROLL for (v = 0; v < 4; v++) if (v < 4 / vectors)                           \
                    memcpy(y + v * channels, (const char *)four + v * vectors * LANES,             \
                           (size_t)(vectors * LANES));                                             \
            s->out += 4 / vectors * channels;                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void I##_finish_row(const ptq__sums *sums, const ptq__finish *finish) {          \
        ptq__sums s = *sums; /* no store below can change them */                                  \
        const ptq__finish f = *finish;                                                             \
        int fours = f.fours && !f.mid && s.channels >= s.vectors * (int)(sizeof(I) / PTQ__WORD);   \
        if (fours && s.vectors == 2)                                                               \
            f.residual ? I##_finish_fours(&s, &f, 2, 1) : I##_finish_fours(&s, &f, 2, 0);          \
        else if (fours)                                                                            \
            f.residual ? I##_finish_fours(&s, &f, 1, 1) : I##_finish_fours(&s, &f, 1, 0);          \
        I##_finish_rest(&s, &f);                                                                   \
    }

#define PTQ__FINISHES(F, I, TARGET)                                                                \
    PTQ__FINISH_REAL(F, TARGET)                                                                    \
    PTQ__FINISH_CODES(F, I, TARGET)                                                                \
    PTQ__FINISH_ALL(F##_finish_row, F, TARGET)                                                     \
    PTQ__FINISH_ALL(I##_finish_rest, I, TARGET)                                                    \
    PTQ__FINISH_FOURS(F, I, TARGET)

/* The transforms of ptq__winograd_rows. H: a vector of staged numbers, of 32 bits or of 16. First
   X, where two columns of B X are shared with the next tile. A row of B X comes from the sum or the
   difference of two rows of X; a tile's part of B X B' is a place in four planes. */
#define PTQ__SCATTER(NAME, TARGET, H)                                                              \
    enum { NAME##_bytes = sizeof(H) };                                                             \
    TARGET PTQ__INLINE H NAME##_column(const ptq__packed *k, const char *one, const char *two,     \
                                       ptrdiff_t at, int sum) {                                    \
        H none = {0};                                                                              \
        if (at < 0 || at >= k->wide)                                                               \
            return none;                                                                           \
        return sum ? H##_load(one + at) + H##_load(two + at)                                       \
                   : H##_load(one + at) - H##_load(two + at);                                      \
    }                                                                                              \
                                                                                                   \
    TARGET PTQ__INLINE void NAME##_row(const ptq__packed *k, const char *one, const char *two,     \
                                       int sum, char *to) {                                        \
        ptrdiff_t pitch = k->pitch, plane = k->plane, c, i;                                        \
        for (c = 0; c < pitch; c += (int)sizeof(H)) {                                              \
            ptrdiff_t at = c - k->before;                                                          \
            char *place = to + c;                                                                  \
            H x[4];                                                                                \
            x[0] = NAME##_column(k, one, two, at, sum);                                            \
            x[1] = NAME##_column(k, one, two, at + pitch, sum);                                    \
            for (i = 0; i < k->tiles; i++, place += pitch) {                                       \
                at += 2 * pitch;                                                                   \
                x[2] = NAME##_column(k, one, two, at, sum);                                        \
                x[3] = NAME##_column(k, one, two, at + pitch, sum);                                \
                H##_store(place, x[0] - x[2]);                                                     \
                H##_store(place + plane, x[1] + x[2]);                                             \
                H##_store(place + 2 * plane, x[2] - x[1]);                                         \
                H##_store(place + 3 * plane, x[1] - x[3]);                                         \
                x[0] = x[2];                                                                       \
                x[1] = x[3];                                                                       \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void NAME##_scatter(const ptq__packed *k, const char *const *row,                \
                                      char *planes) {                                              \
        NAME##_row(k, row[0], row[2], 0, planes);                                                  \
        NAME##_row(k, row[1], row[2], 1, planes + 4 * k->plane);                                   \
        NAME##_row(k, row[2], row[1], 0, planes + 8 * k->plane);                                   \
        NAME##_row(k, row[1], row[3], 0, planes + 12 * k->plane);                                  \
    }

/* Then the sums M. S: numbers as in V, but with a sign, of which QUARTER makes a fourth. */
#define PTQ__GATHER(NAME, TARGET, V, S, QUARTER)                                                   \
    /* Two outputs from one row of A M. */                                                         \
    TARGET PTQ__INLINE void NAME##_pair(const V *m, V bias, char *left, char *right) {             \
        S one = (S)(m[0] + m[1] + m[2]) QUARTER, two = (S)(m[1] - m[2] - m[3]) QUARTER;            \
        V##_store(left, (V)one + bias);                                                            \
        V##_store(right, (V)two + bias);                                                           \
    }                                                                                              \
                                                                                                   \
    TARGET static void NAME##_gather(const ptq__packed *k, const ptq__panel *panel,                \
                                     const char *planes, ptq__sums row, int rows,                  \
                                     const ptq__finish *finish) {                                  \
        enum { SIZE = sizeof(V) };                                                                 \
        int v, tile, j;                                                                            \
        ptrdiff_t plane = k->products, pixel = row.vectors * SIZE;                                 \
        ptrdiff_t below = 2 * k->tiles * pixel;                                                    \
        for (v = 0; v < row.vectors; v++) {                                                        \
            const char *from = planes + v * SIZE;                                                  \
            char *to = row.at + v * SIZE;                                                          \
            V bias = V##_load(k->bias + panel->lane * PTQ__WORD + v * SIZE);                       \
            for (tile = 0; tile < k->tiles; tile++, from += pixel, to += 2 * pixel) {              \
                V top[4], bottom[4];                                                               \
                PTQ__UNROLL for (j = 0; j < 4; j++) {                                              \
                    V second = V##_load(from + (4 + j) * plane);                                   \
                    V third = V##_load(from + (8 + j) * plane);                                    \
                    top[j] = V##_load(from + j * plane) + second + third;                          \
                    bottom[j] = second - third - V##_load(from + (12 + j) * plane);                \
                }                                                                                  \
                NAME##_pair(top, bias, to, to + pixel);                                            \
                NAME##_pair(bottom, bias, to + below, to + below + pixel);                         \
            }                                                                                      \
        }                                                                                          \
        for (; rows > 0; rows--, row.at += below, row.out += k->out[1] * k->out[2])                \
            V##_finish_row(&row, finish);                                                          \
    }                                                                                              \
                                                                                                   \
    static const ptq__winograd NAME = {NAME##_bytes, NAME##_scatter, NAME##_gather};

/* What staging copies: `bytes` of what the multiplication wants, in whole units, each from COUNT
   bytes of the tensor, of which `left` are left; MOVE(to, from, flip, zero) writes half a unit. */
#define PTQ__COPY(NAME, TARGET, COUNT, MOVE)                                                       \
    TARGET static void NAME(const ptq__packed *k, const char *from, ptrdiff_t left, char *to,      \
                            ptrdiff_t bytes) {                                                     \
        int flip = k->flip, zero = k->zero;                                                        \
        char last[COUNT] = {0};                                                                    \
        for (; bytes > 0; bytes -= PTQ__UNIT, to += PTQ__UNIT, from += COUNT, left -= COUNT) {     \
            if (left < COUNT) {                                                                    \
                memcpy(last, from, (size_t)left);                                                  \
                from = last;                                                                       \
            }                                                                                      \
            MOVE(to, from, flip, zero);                                                            \
            MOVE(to + PTQ__UNIT / 2, from + COUNT / 2, flip, zero);                                \
        }                                                                                          \
    }

/* B: a vector of bytes. Floats are copied as bytes are, with nothing to flip. */
#define PTQ__COPIES(B, TARGET)                                                                     \
    TARGET PTQ__INLINE void B##_move_bytes(char *to, const char *from, int flip, int zero) {       \
        int i;                                                                                     \
        (void)zero; /* that is in the bias */                                                      \
        PTQ__UNROLL for (i = 0; i < PTQ__UNIT / 2; i += (int)sizeof(B))                            \
            B##_store(to + i, B##_load(from + i) ^ (uint8_t)flip);                                 \
    }                                                                                              \
    PTQ__COPY(B##_copy_bytes, TARGET, PTQ__UNIT, B##_move_bytes)                                   \
    PTQ__COPY(B##_copy_pairs, TARGET, PTQ__UNIT / 2, B##_move_pairs)

/* The other operators: a vector of channels, or of elements, at a time. */

/* The largest under each window, of reals or of bytes. Up to the end of the tensors whole vectors
   are read and written, also beyond a pixel: what is wrong is overwritten by what comes next. */
#define PTQ__LARGEST(V, TARGET, FLIPPED)                                                           \
    TARGET static void V##_largest(const ptq__step *step, const ptq__frame *frame) {               \
        const void *x = frame->in[0];                                                              \
        int lanes = V##_lanes;                                                                     \
        uint8_t flip = step->from[0]->q.type == PTQ_TYPE_S8 ? 128 : 0;                             \
        int width = step->in[1], channels = step->in[2], n = step->elements, i, c, u, v, at;       \
        int inside = step->in[0] * width * channels;                                               \
        (void)flip;                                                                                \
        for (i = 0; i < n; i += channels) {                                                        \
            ptq__clip clip = ptq__clip_window(step, i / channels);                                 \
            for (c = 0; c < channels; c += lanes) {                                                \
                V most;                                                                            \
                at = (clip.begin[0] * width + clip.begin[1]) * channels + c;                       \
                most = V##_get(x, at, inside - at, 0) FLIPPED;                                     \
                for (u = clip.begin[0]; u < clip.end[0]; u++)                                      \
                    for (v = clip.begin[1]; v < clip.end[1]; v++) {                                \
                        at = (u * width + v) * channels + c;                                       \
                        most = V##_larger(V##_get(x, at, inside - at, 0) FLIPPED, most);           \
                    }                                                                              \
                V##_put(frame->out, i + c, n - i - c, most FLIPPED);                               \
            }                                                                                      \
        }                                                                                          \
    }

/* Averages of windows, and of the whole image: ptq__pool_f32, ptq__pool_int and
   ptq__global_pool_int. V_hold keeps compilers from changing the order of what they round. */
#define PTQ__AVERAGE(F, I, TARGET)                                                                 \
    TARGET PTQ__INLINE F F##_hold(F x) {                                                           \
        __asm__ volatile("" : "+" PTQ__REGISTER(x));                                               \
        return x;                                                                                  \
    }                                                                                              \
                                                                                                   \
    TARGET static void F##_average(const ptq__step *step, const ptq__frame *frame) {               \
        const ptq_qparams *q = &step->from[0]->q, *to = &step->node->q;                            \
        const void *all = frame->in[0];                                                            \
        int width = step->in[1], channels = step->in[2], exponent, i, c, u, v;                     \
        int is_signed = q->type == PTQ_TYPE_S8, coded = ptq__is_coded(step->node);                 \
        float in_scale = (float)frexp((double)q->scale, &exponent);                                \
        float scale = (float)ldexp((double)to->scale, -exponent);                                  \
        for (i = 0; i < step->elements; i += channels) {                                           \
            ptq__clip clip = ptq__clip_window(step, i / channels);                                 \
            float taps = (float)clip.taps;                                                         \
            for (c = 0; c < channels; c += (int)(sizeof(F) / PTQ__WORD)) {                         \
                F sum = F##_all(0), x;                                                             \
                for (u = clip.begin[0]; u < clip.end[0]; u++)                                      \
                    for (v = clip.begin[1]; v < clip.end[1]; v++) {                                \
                        ptrdiff_t at = ((ptrdiff_t)u * width + v) * channels + c;                  \
                        if (coded)                                                                 \
                            x = F##_hold(I##_real(I##_get(all, at, channels - c, is_signed) -      \
                                                  (uint32_t)q->zero_point) *                       \
                                         in_scale);                                                \
                        else                                                                       \
                            x = F##_get(all, at, channels - c, 0);                                 \
                        sum = coded ? F##_hold(sum + x) : sum + x;                                 \
                    }                                                                              \
                sum = F##_over(sum, F##_all(taps));                                                \
                if (coded)                                                                         \
                    I##_put(                                                                       \
                        frame->out, i + c, channels - c,                                           \
                        I##_round(F##_clamp(F##_over(sum, F##_all(scale)) + (float)to->zero_point, \
                                            (float)step->clamp.low, (float)step->clamp.high)));    \
                else                                                                               \
                    F##_put(frame->out, i + c, channels - c, sum);                                 \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void I##_average_all(const ptq__step *step, const ptq__frame *frame) {           \
        const ptq_qparams *in = &step->from[0]->q;                                                 \
        const ptq__clamp *to = &step->clamp;                                                       \
        int pixels = step->in[0] * step->in[1], channels = step->in[2], i, c;                      \
        float multiplier = step->average;                                                          \
        for (c = 0; c < channels; c += (int)(sizeof(I) / PTQ__WORD)) {                             \
            I sum = I##_all((uint32_t)(-pixels * in->zero_point));                                 \
            for (i = 0; i < pixels; i++)                                                           \
                sum += I##_get(frame->in[0], (ptrdiff_t)i * channels + c, channels - c,            \
                               in->type == PTQ_TYPE_S8);                                           \
            sum =                                                                                  \
                I##_round(F##_clamp(I##_real(sum) * multiplier, (float)(to->low - to->zero_point), \
                                    (float)(to->high - to->zero_point)));                          \
            I##_put(frame->out, c, channels - c, sum + (uint32_t)to->zero_point);                  \
        }                                                                                          \
    }

/* Unfused addition. The result may lie over an operand: each element is read before. */
#define PTQ__ADD(F, I, TARGET)                                                                     \
    TARGET static void F##_add(const ptq__step *step, const ptq__frame *frame) {                   \
        const void *a = frame->in[0], *b = frame->in[1];                                           \
        float least = ptq__act_least(step->act), most = ptq__act_most(step->act);                  \
        int i, n = step->elements;                                                                 \
        for (i = 0; i < n; i += (int)(sizeof(F) / PTQ__WORD)) {                                    \
            F sum = F##_get(a, i, n - i, 0) + F##_get(b, i, n - i, 0);                             \
            F##_put(frame->out, i, n - i, F##_clamp(sum, least, most));                            \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void I##_add(const ptq__step *step, const ptq__frame *frame) {                   \
        const void *a = frame->in[0], *b = frame->in[1];                                           \
        int signed_a = step->from[0]->q.type == PTQ_TYPE_S8;                                       \
        int signed_b = step->from[1]->q.type == PTQ_TYPE_S8;                                       \
        int i, n = step->elements;                                                                 \
        ptq__finish f;                                                                             \
        memset(&f, 0, sizeof f);                                                                   \
        ptq__describe_adder(&f, step);                                                             \
        for (i = 0; i < n; i += (int)(sizeof(I) / PTQ__WORD))                                      \
            I##_put(frame->out, i, n - i,                                                          \
                    I##_sum(&f, I##_real(I##_get(a, i, n - i, signed_a)),                          \
                            I##_real(I##_get(b, i, n - i, signed_b)), 1));                         \
    }

/* Multiplication: the second operand begins anew after each period. */
#define PTQ__MUL(F, I, TARGET)                                                                     \
    TARGET static void F##_mul(const ptq__step *step, const ptq__frame *frame) {                   \
        const void *a = frame->in[0], *b = frame->in[1];                                           \
        int i, c, period = ptq__period(step);                                                      \
        for (i = 0; i < step->elements; i += period)                                               \
            for (c = 0; c < period; c += (int)(sizeof(F) / PTQ__WORD))                             \
                F##_put(frame->out, i + c, period - c,                                             \
                        F##_get(a, i + c, period - c, 0) * F##_get(b, c, period - c, 0));          \
    }                                                                                              \
                                                                                                   \
    TARGET static void I##_mul(const ptq__step *step, const ptq__frame *frame) {                   \
        const ptq_qparams *a = &step->from[0]->q, *b = &step->from[1]->q;                          \
        const ptq__clamp *to = &step->clamp;                                                       \
        int i, c, period = ptq__period(step);                                                      \
        for (i = 0; i < step->elements; i += period)                                               \
            for (c = 0; c < period; c += (int)(sizeof(I) / PTQ__WORD)) {                           \
                I x = I##_get(frame->in[0], i + c, period - c, a->type == PTQ_TYPE_S8) -           \
                      (uint32_t)a->zero_point;                                                     \
                I y = I##_get(frame->in[1], c, period - c, b->type == PTQ_TYPE_S8) -               \
                      (uint32_t)b->zero_point;                                                     \
                F sum = F##_hold(I##_real(x * y) * step->average) + (float)to->zero_point;         \
                sum = F##_clamp(sum, (float)to->low, (float)to->high);                             \
                I##_put(frame->out, i + c, period - c, I##_round(sum));                            \
            }                                                                                      \
    }

/* Depthwise convolution: each channel for itself, so the lanes are channels, and what is staged is
   vectors of them, as real numbers less their zero point. Sums of so few products are exact: see
   ptq__vectorize_weights. So they become integers again before they are finished. */
#define PTQ__CHANNELS(NAME, TARGET, F, I, SMALL, LARGE)                                            \
    TARGET static void NAME##_copy(const ptq__packed *k, const char *from, ptrdiff_t left,         \
                                   char *to, ptrdiff_t bytes) {                                    \
        int size = k->coded ? 1 : PTQ__WORD, step = k->in[2] * size;                               \
        int is_signed = k->flip != 0;                                                              \
        uint32_t zero = (uint32_t)(k->zero - k->flip);                                             \
        for (; bytes > 0; bytes -= (int)sizeof(F), to += sizeof(F), from += step, left -= step) {  \
            int n = left < PTQ__UNIT ? (int)left / size : PTQ__UNIT;                               \
            F##_store(to, k->coded ? I##_real(I##_get(from, 0, n, is_signed) - zero)               \
                                   : F##_get(from, 0, n, 0));                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    TARGET static void NAME##_finish(const ptq__sums *s, const ptq__finish *finish) {              \
        char *at = s->at, *end = at + s->pixels * (int)sizeof(F);                                  \
        for (; s->later && at < end; at += sizeof(F))                                              \
            I##_store(at, I##_round(F##_load(at)) + I##_load(s->later));                           \
        if (s->later)                                                                              \
            I##_finish_row(s, finish);                                                             \
        else                                                                                       \
            F##_finish_row(s, finish);                                                             \
    }                                                                                              \
                                                                                                   \
    PTQ__COMPUTE(NAME##_one, TARGET, F, SMALL, LARGE, 1, F##_mac, PTQ__TAPS, NAME##_finish)        \
    static const ptq__engine NAME = {sizeof(F) / PTQ__WORD, 1,    PTQ__DEPTHWISE,          LARGE,  \
                                     NAME##_copy,           NULL, {NAME##_one, NAME##_one}};

/* Both write whole units: what is too much is overwritten by what follows, or not read. */
static void ptq__fill(const ptq__packed *k, char *to, const char *end) {
    for (; to < end; to += PTQ__UNIT)
        memset(to, k->blank, PTQ__UNIT);
}

/* Rows of a group's channels of x from y on, which may be outside. */
static void ptq__stage(const ptq__packed *k, const char *x, int group, int y, int rows, char *to) {
    ptrdiff_t pixel = k->in[2] * (k->coded ? 1 : PTQ__WORD), row = k->in[1] * pixel;
    ptrdiff_t part = k->count / k->parts * k->pitch;
    const char *end = x + k->in[0] * row;
    x += group * (pixel / k->in[2]) * k->deep;
    for (; rows > 0; rows--, y++, to += k->row_bytes) {
        char *next = to + k->pad[1] * k->pitch, *last = to + k->row_bytes;
        const char *from = x + y * k->skip * row;
        if (y < 0 || y * k->skip >= k->in[0]) {
            ptq__fill(k, to, last);
            continue;
        }
        ptq__fill(k, to, next);
        for (int i = 0; i < k->parts; i++, next += part, from += pixel)
            k->engine->copy(k, from, end - from, next, part);
        ptq__fill(k, next, last);
    }
}

/* What becomes of the sums in this run. */
static ptq__finish ptq__finish_of(const ptq__step *step, const ptq__frame *frame) {
    ptq__finish f = ((const ptq__packed *)step->packed)->finish;
    f.residual = frame->in[1];
    f.y = frame->out;
    f.mid = frame->mid;
    return f;
}

/* ptq_preprocess. Means and deviations repeat after a vector for every channel. */
#define PTQ__PREPROCESS(F, I, TARGET)                                                              \
    TARGET static void F##_preprocess(const ptq_model *model, const uint8_t *pixels, float *out,   \
                                      int n) {                                                     \
        enum { LANES = sizeof(F) / PTQ__WORD };                                                    \
        float mean[LANES * PTQ_MAX_PIXEL_CHANNELS], std[LANES * PTQ_MAX_PIXEL_CHANNELS];           \
        int i, at = 0, channels = model->node[0].shape[2];                                         \
        for (i = 0; i < LANES * channels; i++) {                                                   \
            mean[i] = model->mean[i % channels];                                                   \
            std[i] = model->std[i % channels];                                                     \
        }                                                                                          \
        for (i = 0; i < n; i += LANES) {                                                           \
            F x = I##_real(I##_get(pixels, i, n - i, 0)) - F##_load(mean + at);                    \
            F##_put(out, i, n - i, x / F##_load(std + at));                                        \
            at = at + LANES == LANES * channels ? 0 : at + LANES;                                  \
        }                                                                                          \
    }

/* The vector kernels of an operator, on real numbers and on codes. */
typedef struct ptq__vector_kernel {
    ptq_op op;
    ptq__kernel real, codes;
} ptq__vector_kernel;

/* The table of them, for one width. Convolutions run ptq__conv_vector. */
#define PTQ__OPERATORS(F, I, B, TARGET)                                                            \
    PTQ__LARGEST(F, TARGET, )                                                                      \
    PTQ__LARGEST(B, TARGET, ^flip)                                                                 \
    PTQ__AVERAGE(F, I, TARGET)                                                                     \
    PTQ__ADD(F, I, TARGET)                                                                         \
    PTQ__MUL(F, I, TARGET)                                                                         \
    PTQ__PREPROCESS(F, I, TARGET)                                                                  \
    static const ptq__vector_kernel F##_operators[] = {                                            \
        {PTQ_OP_MAX_POOL, F##_largest, B##_largest},                                               \
        {PTQ_OP_AVG_POOL, F##_average, F##_average},                                               \
        {PTQ_OP_GLOBAL_AVG_POOL, F##_average, I##_average_all},                                    \
        {PTQ_OP_GLOBAL_MAX_POOL, F##_largest, B##_largest},                                        \
        {PTQ_OP_ADD, F##_add, I##_add},                                                            \
        {PTQ_OP_MUL, F##_mul, I##_mul},                                                            \
        {PTQ_OP_INPUT, NULL, NULL}, /* the end */                                                  \
    };

/* The kernels of an instruction set. */
typedef struct ptq__family {
    ptq_isa isa;
    const ptq__engine *real;
    const ptq__engine *pairs; /* any codes, as 16 bits */
    const ptq__engine *bytes; /* weights that fit s8; NULL: none */
    const ptq__engine *depthwise;
    const ptq__vector_kernel *operators;
    void (*preprocess)(const ptq_model *model, const uint8_t *pixels, float *out, int n);
} ptq__family;

/* A vector type V of BYTES bytes, and what all of them can. */
#define PTQ__VECTOR_TYPE(V, SCALAR, BYTES, TARGET)                                                 \
    typedef SCALAR V __attribute__((vector_size(BYTES)));                                          \
    typedef SCALAR V##_anywhere __attribute__((vector_size(BYTES), aligned(1), may_alias));        \
    TARGET PTQ__INLINE V V##_load(const void *p) { return *(const V##_anywhere *)p; }              \
    TARGET PTQ__INLINE void V##_store(void *p, V v) { *(V##_anywhere *)p = v; }

/* Those of 32 bits. `value` less nothing is `value`, also where that is -0. */
#define PTQ__WORD_TYPE(V, SCALAR, BYTES, TARGET)                                                   \
    PTQ__VECTOR_TYPE(V, SCALAR, BYTES, TARGET)                                                     \
    TARGET PTQ__INLINE V V##_all(SCALAR value) {                                                   \
        V nothing = {0};                                                                           \
        return value - nothing;                                                                    \
    }                                                                                              \
    TARGET PTQ__INLINE V V##_spread(const void *p) {                                               \
        SCALAR value;                                                                              \
        memcpy(&value, p, sizeof value);                                                           \
        return V##_all(value);                                                                     \
    }

/* V_get and V_put of elements of SIZE bytes, from V_widen(from, is_signed) and V_narrow(to, v). */
#define PTQ__ELEMENTS(V, LANES, SIZE, TARGET)                                                      \
    enum { V##_lanes = LANES };                                                                    \
    TARGET PTQ__INLINE V V##_get(const void *x, ptrdiff_t at, int n, int is_signed) {              \
        const char *from = (const char *)x + at * SIZE;                                            \
        if (n < LANES) {                                                                           \
            char copy[LANES * SIZE] = {0};                                                         \
            memcpy(copy, from, (size_t)n *SIZE);                                                   \
            return V##_widen(copy, is_signed);                                                     \
        }                                                                                          \
        return V##_widen(from, is_signed);                                                         \
    }                                                                                              \
                                                                                                   \
    TARGET PTQ__INLINE void V##_put(void *y, ptrdiff_t at, int n, V v) {                           \
        char *to = (char *)y + at * SIZE;                                                          \
        if (n < LANES) {                                                                           \
            char copy[LANES * SIZE];                                                               \
            V##_narrow(copy, v);                                                                   \
            memcpy(to, copy, (size_t)n *SIZE);                                                     \
        } else {                                                                                   \
            V##_narrow(to, v);                                                                     \
        }                                                                                          \
    }

/* Where an element is as wide in memory as in a vector. */
#define PTQ__AS_THEY_ARE(V, LANES, SIZE, TARGET)                                                   \
    TARGET PTQ__INLINE V V##_widen(const void *from, int is_signed) {                              \
        (void)is_signed;                                                                           \
        return V##_load(from);                                                                     \
    }                                                                                              \
    TARGET PTQ__INLINE void V##_narrow(void *to, V v) { V##_store(to, v); }                        \
    PTQ__ELEMENTS(V, LANES, SIZE, TARGET)

/* Codes, of which only the low byte counts. */
#define PTQ__CODES(I, LANES, TARGET)                                                               \
    TARGET PTQ__INLINE void I##_narrow(void *to, I v) {                                            \
        I four[4] = {v & 255};                                                                     \
        four[0] = I##_bytes(four, 0, 0, 255);                                                      \
        memcpy(to, four, LANES);                                                                   \
    }                                                                                              \
    PTQ__ELEMENTS(I, LANES, 1, TARGET)

#ifdef PTQ__X86

/* What SSE2, AVX2 and AVX-512 have under names that differ by the width W and the type M alone. */
#define PTQ__X86_WIDTH(F, I, BYTES, W, M, TARGET, ORDER)                                           \
    PTQ__WORD_TYPE(F, float, BYTES, TARGET)                                                        \
    PTQ__WORD_TYPE(I, uint32_t, BYTES, TARGET)                                                     \
    TARGET PTQ__INLINE I I##_order(I x) { return ORDER; }                                          \
    TARGET PTQ__INLINE F F##_clamp(F x, float least, float most) {                                 \
        return _mm##W##_min_ps(F##_all(most), _mm##W##_max_ps(F##_all(least), x));                 \
    }                                                                                              \
    TARGET PTQ__INLINE F I##_real(I x) { return _mm##W##_cvtepi32_ps((M)x); }                      \
    TARGET PTQ__INLINE I I##_round(F x) { return (I)_mm##W##_cvtps_epi32(x); }                     \
    TARGET PTQ__INLINE I I##_bytes(const I *four, int zero, int low, int high) {                   \
        M z = _mm##W##_set1_epi16((short)zero), a, b;                                              \
        a = _mm##W##_packs_epi32((M)four[0], (M)four[1]);                                          \
        b = _mm##W##_packs_epi32((M)four[2], (M)four[3]);                                          \
        if (zero == 0 && low == 0 && high == 255) /* as after most activations */                  \
            return I##_order((I)_mm##W##_packus_epi16(a, b));                                      \
        a = _mm##W##_packus_epi16(_mm##W##_adds_epi16(a, z), _mm##W##_adds_epi16(b, z));           \
        a = _mm##W##_max_epu8(a, _mm##W##_set1_epi8((char)low));                                   \
        return I##_order((I)_mm##W##_min_epu8(a, _mm##W##_set1_epi8((char)high)));                 \
    }

/* What pools need. Under -ffast-math compilers would multiply by an estimate of 1 / y. */
#define PTQ__X86_POOLS(F, W, TARGET, DIVIDE)                                                       \
    TARGET PTQ__INLINE F F##_larger(F x, F most) { return _mm##W##_max_ps(x, most); }              \
    TARGET PTQ__INLINE F F##_over(F x, F y) {                                                      \
        __asm__(DIVIDE : "+x"(x) : "x"(y));                                                        \
        return x;                                                                                  \
    }

#ifndef PTQ__EMULATE
/* Written out since GCC otherwise collects the products of several steps before it adds them, for
   which there are no registers. */
#define PTQ__ADD_WORDS(sum, products) __asm__("vpaddd %1, %0, %0" : "+v"(sum) : "v"(products))
#endif

/* And what SSE2 lacks. Exact are both products:

   I_dot2: of two codes of 16 bits; nothing saturates.
   I_dot4: of four unsigned codes and signed weights. Pairs of them are summed in 16 bits, which
   would saturate: only for weights of which ptq__pairs_fit. It takes 3 instructions, I_dot2 4. */
#define PTQ__X86_FUSED(F, I, W, TARGET)                                                            \
    TARGET PTQ__INLINE F F##_fma(F sum, F x, F w) { return _mm##W##_fmadd_ps(x, w, sum); }         \
    TARGET PTQ__INLINE F F##_mac(F sum, F x, F w) { return F##_fma(sum, x, w); }                   \
    TARGET PTQ__INLINE I I##_dot2(I sum, I x, I w) {                                               \
        I products = (I)_mm##W##_madd_epi16((__m##W##i)x, (__m##W##i)w);                           \
        PTQ__ADD_WORDS(sum, products);                                                             \
        return sum;                                                                                \
    }                                                                                              \
    TARGET PTQ__INLINE I I##_dot4(I sum, I x, I w) {                                               \
        I two = (I)_mm##W##_maddubs_epi16((__m##W##i)x, (__m##W##i)w);                             \
        return I##_dot2(sum, two, I##_all(0x00010001));                                            \
    }

/* AVX2: 16 registers, for 12 sums and what goes with them. */
PTQ__X86_WIDTH(ptq__f256, ptq__i256, 32, 256, __m256i, PTQ__AVX2,
               (ptq__i256)_mm256_permutevar8x32_epi32((__m256i)x,
                                                      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)))
PTQ__X86_FUSED(ptq__f256, ptq__i256, 256, PTQ__AVX2)
PTQ__X86_POOLS(ptq__f256, 256, PTQ__AVX2, "vdivps %1, %0, %0")
PTQ__VECTOR_TYPE(ptq__b256, uint8_t, 32, PTQ__AVX2)
PTQ__VECTOR_TYPE(ptq__s256, uint16_t, 32, PTQ__AVX2)
typedef int32_t ptq__z256 __attribute__((vector_size(32)));

/* Sixteen codes less their zero point, 16 bits each: an input outside the image is 0. */
PTQ__AVX2 PTQ__INLINE void ptq__b256_move_pairs(char *to, const char *from, int flip, int zero) {
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)from);
    codes = _mm_xor_si128(codes, _mm_set1_epi8((char)flip));
    ptq__s256_store(to, (ptq__s256)_mm256_cvtepu8_epi16(codes) - (uint16_t)zero);
}

#define ptq__b256_larger(x, most) (ptq__b256) _mm256_max_epu8((__m256i)(x), (__m256i)(most))

PTQ__AVX2 PTQ__INLINE ptq__i256 ptq__i256_widen(const void *from, int is_signed) {
    __m128i codes = _mm_loadl_epi64((const __m128i *)from);
    return (ptq__i256)(is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes));
}

PTQ__AS_THEY_ARE(ptq__f256, 8, 4, PTQ__AVX2)
PTQ__AS_THEY_ARE(ptq__b256, 32, 1, PTQ__AVX2)
PTQ__CODES(ptq__i256, 8, PTQ__AVX2)
PTQ__COPIES(ptq__b256, PTQ__AVX2)
PTQ__SUM_CODES(ptq__i256_sum, ptq__f256, ptq__i256, PTQ__AVX2)
PTQ__FINISHES(ptq__f256, ptq__i256, PTQ__AVX2)
PTQ__SCATTER(ptq__winograd256, PTQ__AVX2, ptq__s256)
PTQ__GATHER(ptq__winograd256, PTQ__AVX2, ptq__i256, ptq__z256, >> 2)
PTQ__SCATTER(ptq__filter256, PTQ__AVX2, ptq__f256)
PTQ__GATHER(ptq__filter256, PTQ__AVX2, ptq__f256, ptq__f256, *0.25f)
PTQ__OPERATORS(ptq__f256, ptq__i256, ptq__b256, PTQ__AVX2)
PTQ__ENGINE(ptq__real256, PTQ__AVX2, ptq__f256, ptq__f256_mac, 1, 0, ptq__b256_copy_bytes,
            &ptq__filter256, 4, 8, 4, 6)
PTQ__ENGINE(ptq__pairs256, PTQ__AVX2, ptq__i256, ptq__i256_dot2, 2, 0, ptq__b256_copy_pairs,
            &ptq__winograd256, 4, 8, 4, 6)
PTQ__ENGINE(ptq__bytes256, PTQ__AVX2, ptq__i256, ptq__i256_dot4, 4, PTQ__SATURATES,
            ptq__b256_copy_bytes, NULL, 4, 8, 4, 6)
PTQ__CHANNELS(ptq__channels256, PTQ__AVX2, ptq__f256, ptq__i256, 4, 8)
#if PTQ__HAS_AVXVNNI
/* VNNI: four products, summed exactly, by one instruction. */
#define ptq__i256_vnni(sum, x, w)                                                                  \
    (ptq__i256) _mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(x), (__m256i)(w))
PTQ__ENGINE(ptq__vnni256, PTQ__AVXVNNI, ptq__i256, ptq__i256_vnni, 4, 0, ptq__b256_copy_bytes, NULL,
            4, 8, 4, 6)
#endif

/* AVX-512: 32 registers, and masks for some lanes of a vector. */
PTQ__X86_WIDTH(ptq__f512, ptq__i512, 64, 512, __m512i, PTQ__AVX512,
               (ptq__i512)_mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6,
                                                                     10, 14, 3, 7, 11, 15),
                                                   (__m512i)x))
PTQ__X86_FUSED(ptq__f512, ptq__i512, 512, PTQ__AVX512)
typedef int32_t ptq__z512 __attribute__((vector_size(64)));

PTQ__AVX512 PTQ__INLINE __mmask16 ptq__first512(int n) {
    return (__mmask16)(n >= 16 ? 0xffff : (1 << n) - 1);
}

PTQ__AVX512 PTQ__INLINE ptq__f512 ptq__f512_get(const void *x, ptrdiff_t at, int n, int is_signed) {
    (void)is_signed;
    return _mm512_maskz_loadu_ps(ptq__first512(n), (const float *)x + at);
}

PTQ__AVX512 PTQ__INLINE void ptq__f512_put(void *y, ptrdiff_t at, int n, ptq__f512 v) {
    _mm512_mask_storeu_ps((float *)y + at, ptq__first512(n), v);
}

PTQ__AVX512 PTQ__INLINE ptq__i512 ptq__i512_get(const void *x, ptrdiff_t at, int n, int is_signed) {
    __m128i codes = _mm_maskz_loadu_epi8(ptq__first512(n), (const uint8_t *)x + at);
    return (ptq__i512)(is_signed ? _mm512_cvtepi8_epi32(codes) : _mm512_cvtepu8_epi32(codes));
}

PTQ__AVX512 PTQ__INLINE void ptq__i512_put(void *y, ptrdiff_t at, int n, ptq__i512 v) {
    __m128i codes = _mm512_cvtepi32_epi8((__m512i)v);
    if (n >= 16)
        _mm_storeu_si128((__m128i *)(void *)((char *)y + at), codes);
    else
        _mm_mask_storeu_epi8((char *)y + at, ptq__first512(n), codes);
}

#define ptq__i512_vnni(sum, x, w)                                                                  \
    (ptq__i512) _mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(x), (__m512i)(w))
PTQ__SUM_CODES(ptq__i512_sum, ptq__f512, ptq__i512, PTQ__AVX512)
PTQ__FINISHES(ptq__f512, ptq__i512, PTQ__AVX512)
PTQ__SCATTER(ptq__winograd512, PTQ__AVX512, ptq__s256)
PTQ__GATHER(ptq__winograd512, PTQ__AVX512, ptq__i512, ptq__z512, >> 2)
PTQ__SCATTER(ptq__filter512, PTQ__AVX512, ptq__f512)
PTQ__GATHER(ptq__filter512, PTQ__AVX512, ptq__f512, ptq__f512, *0.25f)
PTQ__ENGINE(ptq__real512, PTQ__AVX512, ptq__f512, ptq__f512_mac, 1, 0, ptq__b256_copy_bytes,
            &ptq__filter512, 8, 16, 4, 8)
PTQ__ENGINE(ptq__pairs512, PTQ__AVX512, ptq__i512, ptq__i512_dot2, 2, 0, ptq__b256_copy_pairs,
            &ptq__winograd512, 8, 16, 4, 8)
PTQ__ENGINE(ptq__bytes512, PTQ__AVX512, ptq__i512, ptq__i512_dot4, 4, PTQ__SATURATES,
            ptq__b256_copy_bytes, NULL, 8, 16, 4, 8)
PTQ__ENGINE(ptq__vnni512, PTQ__AVX512VNNI, ptq__i512, ptq__i512_vnni, 4, 0, ptq__b256_copy_bytes,
            NULL, 8, 16, 4, 8)
PTQ__CHANNELS(ptq__channels512, PTQ__AVX512, ptq__f512, ptq__i512, 4, 8)

#if PTQ__HAS_AMX
/* AMX. A tile register holds up to 16 rows of 64 bytes. A tile of inputs has a row for each output
   pixel: the bytes under one row of the kernel, or a piece of them; its rows are as far apart as
   the pixels are, so the load itself does what im2col does. A tile of weights has a row for each
   word and a column for each output channel, which is the order in which all kernels pack them. One
   instruction multiplies both and adds to a tile of sums, exactly: unsigned codes times signed
   weights in 32 bits. */

#ifndef PTQ__EMULATE
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
PTQ__AMX static void ptq__amx_configure(int tall, int words) {
    union {
        uint8_t byte[64]; /* 0: palette; 16 to 31: bytes of a row, 16 bits; 48 to 55: rows */
        ptq__i512 all;    /* for its alignment */
    } config;
    memset(&config, 0, sizeof config);
    config.byte[0] = 1;
    for (int i = 0; i < 8; i++) {
        config.byte[16 + 2 * i] = (uint8_t)(i == 4 || i == 5 ? words * PTQ__WORD : 64);
        config.byte[48 + i] = (uint8_t)(i >= 6 ? words : tall);
    }
    ptq__tile_fence(&config);
    ptq__tile_config(&config);
}

/* The sums of one tile of pixels, or of two that are `next` bytes apart, by one vector of channels
   or two. All begin with the same bias. A run is cut into pieces of `words`. */
PTQ__AMX static void ptq__amx_sums(const ptq__area *b, const char *from, int words,
                                   ptrdiff_t next) {
    const char *weight = b->weight;
    int wide = 64 * b->sums.vectors, both = b->sums.vectors == 2;
    ptq__tile_load(0, b->bias, 0);
    ptq__tile_load(2, b->bias, 0);
    if (both) {
        ptq__tile_load(1, b->bias + 64, 0);
        ptq__tile_load(3, b->bias + 64, 0);
    }
    for (int run = 0; run < b->runs; run++, from += b->run)
        for (int word = 0; word < b->words; word += words, weight += words * wide) {
            const char *input = from + word * PTQ__WORD;
            ptq__tile_load(4, input, b->advance);
            ptq__tile_load(6, weight, wide);
            ptq__tile_dot(0, 4, 6);
            if (next) {
                ptq__tile_load(5, input + next, b->advance);
                ptq__tile_dot(2, 5, 6);
            }
            if (both) {
                ptq__tile_load(7, weight + 64, wide);
                ptq__tile_dot(1, 4, 7);
            }
            if (both && next)
                ptq__tile_dot(3, 5, 7);
        }
}

/* Tiles of equal size. The vector units finish the sums before while the matrix unit, which has a
   queue of its own, works on these: so the store, which must wait for it, comes last. */
PTQ__AMX static void ptq__amx_area(const ptq__area *area) {
    const ptq__area b = *area;
    ptq__sums s = b.sums, waiting = b.sums;
    int tiles = (s.pixels + 15) / 16, tall = (s.pixels + tiles - 1) / tiles;
    int words = b.words / ((b.words + 15) / 16), wide = 64 * s.vectors;
    waiting.pixels = 0;
    ptq__amx_configure(tall, words);
    ptq__tile_fence(area);
    for (int y = 0; y < b.rows; y++)
        for (int x = 0; x < b.sums.pixels; x += s.pixels) {
            int left = b.sums.pixels - x, two = left > tall;
            s.pixels = left < 2 * tall ? left : 2 * tall;
            s.out = b.sums.out + y * b.out_row + (ptrdiff_t)x * b.finish->channels;
            ptq__amx_sums(&b, b.from + y * b.row + x * b.advance, words,
                          two ? tall * b.advance : 0);
            ptq__i512_finish_row(&waiting, b.finish);
            ptq__tile_store(0, s.at, wide);
            if (s.vectors == 2)
                ptq__tile_store(1, s.at + 64, wide);
            if (two)
                ptq__tile_store(2, s.at + tall * wide, wide);
            if (two && s.vectors == 2)
                ptq__tile_store(3, s.at + tall * wide + 64, wide);
            ptq__tile_fence(s.at);
            waiting = s;
        }
    ptq__i512_finish_row(&waiting, b.finish);
    ptq__tile_release();
}

static const ptq__engine ptq__amx = {
    16, 4, PTQ__MATRICES, 16, ptq__b256_copy_bytes, NULL, {ptq__amx_area, ptq__amx_area}};
#endif

#endif /* PTQ__X86 */

#ifdef PTQ__128

/* 128 bits: SSE2, NEON and WebAssembly. No attribute: the whole program has these instructions.
   64-bit ARM has 32 registers, which hold four words of each pixel besides; others have 16. The
   runtimes of WebAssembly need some for themselves. */
#define PTQ__BASE
#if defined(PTQ__BY_LANE)
#define PTQ__WIDE 8
#elif !defined(PTQ__WASM)
#define PTQ__WIDE 6
#else
#define PTQ__WIDE 4
#endif
#ifdef PTQ__X86
PTQ__X86_WIDTH(ptq__f128, ptq__i128, 16, , __m128i, PTQ__BASE, x)
PTQ__X86_POOLS(ptq__f128, , PTQ__BASE, "divps %1, %0")
#else
PTQ__WORD_TYPE(ptq__f128, float, 16, PTQ__BASE)
PTQ__WORD_TYPE(ptq__i128, uint32_t, 16, PTQ__BASE)
#endif
PTQ__VECTOR_TYPE(ptq__b128, uint8_t, 16, PTQ__BASE)
typedef int32_t ptq__z128 __attribute__((vector_size(16)));

#ifdef PTQ__X86
#define ptq__i128_near ptq__i128_round
#else
PTQ__INLINE ptq__f128 ptq__f128_over(ptq__f128 x, ptq__f128 y) {
    __asm__ volatile("" : "+" PTQ__REGISTER(y));
    return x / y;
}

/* As ptq__rne: what is rounded has been clamped. */
PTQ__INLINE ptq__i128 ptq__i128_near(ptq__f128 x) {
    return (ptq__i128)(x + 12582912.0f) - 0x4b400000;
}
#ifndef __aarch64__
#define ptq__i128_round ptq__i128_near
#endif
#endif
#endif /* PTQ__128 */

#ifdef PTQ__X86 /* SSE2 */
PTQ__VECTOR_TYPE(ptq__s128, uint16_t, 16, PTQ__BASE)
#define ptq__any128(condition) _mm_movemask_ps((__m128)(condition))
#define ptq__b128_larger(x, most) (ptq__b128) _mm_max_epu8((__m128i)(x), (__m128i)(most))

PTQ__INLINE void ptq__b128_move_pairs(char *to, const char *from, int flip, int zero) {
    __m128i codes = (__m128i)(ptq__b128_load(from) ^ (uint8_t)flip), none = _mm_setzero_si128();
    ptq__s128_store(to, (ptq__s128)_mm_unpacklo_epi8(codes, none) - (uint16_t)zero);
    ptq__s128_store(to + 16, (ptq__s128)_mm_unpackhi_epi8(codes, none) - (uint16_t)zero);
}

PTQ__INLINE ptq__i128 ptq__i128_widen(const void *from, int is_signed) {
    int32_t bytes;
    __m128i codes;
    memcpy(&bytes, from, sizeof bytes);
    codes = _mm_cvtsi32_si128(bytes);
    codes = _mm_unpacklo_epi8(codes, codes); /* each code in all bytes of its lane */
    codes = _mm_unpacklo_epi16(codes, codes);
    return (ptq__i128)(is_signed ? _mm_srai_epi32(codes, 24) : _mm_srli_epi32(codes, 24));
}

PTQ__INLINE ptq__i128 ptq__i128_dot2(ptq__i128 sum, ptq__i128 x, ptq__i128 w) {
    return sum + (ptq__i128)_mm_madd_epi16((__m128i)x, (__m128i)w);
}
#endif /* PTQ__X86 */

#ifdef PTQ__NEON
#define ptq__f128_larger(x, most) vmaxq_f32(x, most)
#define ptq__b128_larger(x, most) vmaxq_u8(x, most)

/* Sixteen codes less their zero point, 16 bits each: an input outside the image is 0. */
PTQ__INLINE void ptq__b128_move_pairs(char *to, const char *from, int flip, int zero) {
    uint8x16_t codes = ptq__b128_load(from) ^ (uint8_t)flip;
    uint8x8_t less = vdup_n_u8((uint8_t)zero);
    ptq__b128_store(to, (ptq__b128)vsubl_u8(vget_low_u8(codes), less));
    ptq__b128_store(to + 16, (ptq__b128)vsubl_u8(vget_high_u8(codes), less));
}

PTQ__INLINE ptq__f128 ptq__f128_clamp(ptq__f128 x, float least, float most) {
    return vminq_f32(vmaxq_f32(x, vdupq_n_f32(least)), vdupq_n_f32(most));
}

PTQ__INLINE ptq__i128 ptq__i128_widen(const void *from, int is_signed) {
    uint32_t bytes;
    uint8x8_t codes;
    memcpy(&bytes, from, sizeof bytes);
    codes = vreinterpret_u8_u32(vdup_n_u32(bytes));
    if (is_signed)
        return (ptq__i128)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(codes))));
    return vmovl_u16(vget_low_u16(vmovl_u8(codes)));
}

PTQ__INLINE ptq__i128 ptq__i128_bytes(const ptq__i128 *four, int zero, int low, int high) {
    int16x8_t z = vdupq_n_s16((int16_t)zero), a, b;
    uint8x16_t bytes;
    a = vcombine_s16(vqmovn_s32((int32x4_t)four[0]), vqmovn_s32((int32x4_t)four[1]));
    b = vcombine_s16(vqmovn_s32((int32x4_t)four[2]), vqmovn_s32((int32x4_t)four[3]));
    bytes = vcombine_u8(vqmovun_s16(vqaddq_s16(a, z)), vqmovun_s16(vqaddq_s16(b, z)));
    bytes = vmaxq_u8(bytes, vdupq_n_u8((uint8_t)low));
    return (ptq__i128)vminq_u8(bytes, vdupq_n_u8((uint8_t)high));
}

PTQ__INLINE ptq__f128 ptq__i128_real(ptq__i128 x) { return vcvtq_f32_s32((int32x4_t)x); }

/* Two 16-bit codes, and the weights of the first for four channels before those of the second. */
PTQ__INLINE ptq__i128 ptq__i128_dot2(ptq__i128 sum, ptq__i128 x, ptq__i128 w) {
    int16x4_t code = vget_low_s16((int16x8_t)x);
    int32x4_t first = vmlal_lane_s16((int32x4_t)sum, vget_low_s16((int16x8_t)w), code, 0);
    return (ptq__i128)vmlal_lane_s16(first, vget_high_s16((int16x8_t)w), code, 1);
}

#ifdef __aarch64__
PTQ__INLINE ptq__f128 ptq__f128_mac(ptq__f128 sum, ptq__f128 x, ptq__f128 w) {
    return vfmaq_f32(sum, x, w);
}

PTQ__INLINE ptq__i128 ptq__i128_round(ptq__f128 x) { return (ptq__i128)vcvtnq_s32_f32(x); }

#define ptq__f128_fma ptq__f128_mac
#define ptq__f128_mac_lane(sum, x, w, lane) vfmaq_laneq_f32(sum, w, x, lane)
#define ptq__i128_dot2_lane(sum, x, w, lane)                                                       \
    (ptq__i128)                                                                                    \
        vmlal_high_laneq_s16(vmlal_laneq_s16((int32x4_t)(sum), vget_low_s16((int16x8_t)(w)),       \
                                             (int16x8_t)(x), 2 * (lane)),                          \
                             (int16x8_t)(w), (int16x8_t)(x), 2 * (lane) + 1)
#else
/* 32-bit ARM. Its vectors take denormal numbers for 0. To codes that makes no difference: sums are
   integers and multipliers normal, so that no product is denormal unless it is 0, and the fused
   multiply-add is the scalar one. In real results it is far below their rounding. */
PTQ__INLINE ptq__f128 ptq__f128_mac(ptq__f128 sum, ptq__f128 x, ptq__f128 w) {
    return vmlaq_f32(sum, x, w);
}
#endif

#endif /* PTQ__NEON */

#ifdef PTQ__WASM
PTQ__VECTOR_TYPE(ptq__s128, uint16_t, 16, PTQ__BASE)
#define ptq__any128(condition) wasm_v128_any_true((v128_t)(condition))
#define ptq__b128_larger(x, most) (ptq__b128) wasm_u8x16_max((v128_t)(x), (v128_t)(most))
#define ptq__f128_larger(x, most) (ptq__f128) wasm_f32x4_pmax((v128_t)(most), (v128_t)(x))

PTQ__INLINE void ptq__b128_move_pairs(char *to, const char *from, int flip, int zero) {
    v128_t codes = (v128_t)(ptq__b128_load(from) ^ (uint8_t)flip);
    ptq__s128_store(to, (ptq__s128)wasm_u16x8_extend_low_u8x16(codes) - (uint16_t)zero);
    ptq__s128_store(to + 16, (ptq__s128)wasm_u16x8_extend_high_u8x16(codes) - (uint16_t)zero);
}

/* pmax(a, b) is a < b ? b : a: one instruction where max, which minds the sign of 0, is several. A
   NaN passes. */
PTQ__INLINE ptq__f128 ptq__f128_clamp(ptq__f128 x, float least, float most) {
    v128_t y = wasm_f32x4_pmax((v128_t)x, wasm_f32x4_splat(least));
    return (ptq__f128)wasm_f32x4_pmin(y, wasm_f32x4_splat(most));
}

PTQ__INLINE ptq__i128 ptq__i128_widen(const void *from, int is_signed) {
    v128_t codes = wasm_v128_load32_splat(from);
    if (is_signed)
        return (ptq__i128)wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(codes));
    return (ptq__i128)wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(codes));
}

PTQ__INLINE ptq__i128 ptq__i128_bytes(const ptq__i128 *four, int zero, int low, int high) {
    v128_t z = wasm_i16x8_splat((int16_t)zero), a, b;
    a = wasm_i16x8_narrow_i32x4((v128_t)four[0], (v128_t)four[1]);
    b = wasm_i16x8_narrow_i32x4((v128_t)four[2], (v128_t)four[3]);
    a = wasm_u8x16_narrow_i16x8(wasm_i16x8_add_sat(a, z), wasm_i16x8_add_sat(b, z));
    a = wasm_u8x16_max(a, wasm_u8x16_splat((uint8_t)low));
    return (ptq__i128)wasm_u8x16_min(a, wasm_u8x16_splat((uint8_t)high));
}

PTQ__INLINE ptq__f128 ptq__i128_real(ptq__i128 x) {
    return (ptq__f128)wasm_f32x4_convert_i32x4((v128_t)x);
}

/* Two products of 16 bits are summed exactly. */
PTQ__INLINE ptq__i128 ptq__i128_dot2(ptq__i128 sum, ptq__i128 x, ptq__i128 w) {
    return sum + (ptq__i128)wasm_i32x4_dot_i16x8((v128_t)x, (v128_t)w);
}

#endif /* PTQ__WASM */

#ifdef PTQ__128
#ifndef __aarch64__ /* there is no such instruction */
PTQ__INLINE ptq__f128 ptq__f128_fma(ptq__f128 sum, ptq__f128 x, ptq__f128 w) {
    for (int i = 0; i < 4; i++)
        sum[i] = ptq__fma(x[i], w[i], sum[i]);
    return sum;
}
#endif

#ifdef PTQ__NEON
PTQ__SUM_CODES(ptq__i128_sum, ptq__f128, ptq__i128, PTQ__BASE)
#define PTQ__PAIRS_FORM PTQ__PLANAR
#define PTQ__WINOGRAD128 NULL
#else
PTQ__INLINE ptq__f128 ptq__f128_mac(ptq__f128 sum, ptq__f128 x, ptq__f128 w) { return sum + x * w; }
#define PTQ__PAIRS_FORM 0
#define PTQ__WINOGRAD128 &ptq__winograd128
PTQ__SUM_CODES(ptq__exact_sum, ptq__f128, ptq__i128, PTQ__BASE)

/* A plain sum that is not near a half rounds to the same code. */
PTQ__INLINE ptq__i128 ptq__i128_sum(const ptq__finish *f, ptq__f128 own, ptq__f128 residual,
                                    int clamp) {
    float ratio = f->residual_first ? f->ratio_b : f->ratio_a;
    float other = f->residual_first ? f->ratio_a : f->ratio_b;
    ptq__f128 sum = f->offset + own * ratio + residual * other, rest;
    ptq__i128 code;
    sum = ptq__f128_clamp(sum, f->add_least, f->add_most);
    code = ptq__i128_near(sum);
    rest = sum - ptq__i128_real(code);
    if (ptq__any128((rest > f->sure) | (rest < -f->sure)))
        return ptq__exact_sum(f, own, residual, clamp);
    return code;
}
#endif

PTQ__AS_THEY_ARE(ptq__f128, 4, 4, PTQ__BASE)
PTQ__AS_THEY_ARE(ptq__b128, 16, 1, PTQ__BASE)
PTQ__CODES(ptq__i128, 4, PTQ__BASE)
PTQ__COPIES(ptq__b128, PTQ__BASE)
PTQ__FINISHES(ptq__f128, ptq__i128, PTQ__BASE)
#ifndef PTQ__NEON
PTQ__SCATTER(ptq__winograd128, PTQ__BASE, ptq__s128)
PTQ__GATHER(ptq__winograd128, PTQ__BASE, ptq__i128, ptq__z128, >> 2)
#endif
PTQ__SCATTER(ptq__filter128, PTQ__BASE, ptq__f128)
PTQ__GATHER(ptq__filter128, PTQ__BASE, ptq__f128, ptq__f128, *0.25f)
PTQ__OPERATORS(ptq__f128, ptq__i128, ptq__b128, PTQ__BASE)
PTQ__ENGINE(ptq__real128, PTQ__BASE, ptq__f128, ptq__f128_mac, 1, 0, ptq__b128_copy_bytes,
            &ptq__filter128, 4, 8, 4, PTQ__WIDE)
PTQ__ENGINE(ptq__pairs128, PTQ__BASE, ptq__i128, ptq__i128_dot2, 2, PTQ__PAIRS_FORM,
            ptq__b128_copy_pairs, PTQ__WINOGRAD128, 4, 8, 4, PTQ__WIDE)

#ifdef PTQ__DOTPROD
/* Four products of signed codes and signed weights, summed exactly. */
PTQ__DOTPROD PTQ__INLINE ptq__i128 ptq__i128_sdot(ptq__i128 sum, ptq__i128 x, ptq__i128 w) {
    return (ptq__i128)vdotq_s32((int32x4_t)sum, (int8x16_t)x, (int8x16_t)w);
}

#define ptq__i128_sdot_lane(sum, x, w, lane)                                                       \
    (ptq__i128) vdotq_laneq_s32((int32x4_t)(sum), (int8x16_t)(w), (int8x16_t)(x), lane)
PTQ__ENGINE(ptq__sdot128, PTQ__DOTPROD, ptq__i128, ptq__i128_sdot, 4, PTQ__SIGNED,
            ptq__b128_copy_bytes, NULL, 4, 8, 4, PTQ__WIDE)
#endif

PTQ__CHANNELS(ptq__channels128, PTQ__BASE, ptq__f128, ptq__i128, 4, 8)

#endif /* PTQ__128 */

#define PTQ__ON128 &ptq__channels128, ptq__f128_operators, ptq__f128_preprocess
#define PTQ__ON256 &ptq__channels256, ptq__f256_operators, ptq__f256_preprocess
#define PTQ__ON512 &ptq__channels512, ptq__f256_operators, ptq__f256_preprocess
static const ptq__family ptq__families[] = {
#if defined(PTQ__X86)
    {PTQ_ISA_SSE2, &ptq__real128, &ptq__pairs128, NULL, PTQ__ON128},
    {PTQ_ISA_AVX2, &ptq__real256, &ptq__pairs256, &ptq__bytes256, PTQ__ON256},
    {PTQ_ISA_AVX512, &ptq__real512, &ptq__pairs512, &ptq__bytes512, PTQ__ON512},
    {PTQ_ISA_AVX512VNNI, &ptq__real512, &ptq__pairs512, &ptq__vnni512, PTQ__ON512},
#if PTQ__HAS_AVXVNNI
    {PTQ_ISA_AVXVNNI, &ptq__real256, &ptq__pairs256, &ptq__vnni256, PTQ__ON256},
#endif
#if PTQ__HAS_AMX
    {PTQ_ISA_AMX, &ptq__real512, &ptq__pairs512, &ptq__amx, PTQ__ON512},
#endif
#elif defined(PTQ__NEON)
#ifdef PTQ__DOTPROD
    {PTQ_ISA_NEONDOT, &ptq__real128, &ptq__pairs128, &ptq__sdot128, PTQ__ON128},
#endif
    {PTQ_ISA_NEON, &ptq__real128, &ptq__pairs128, NULL, PTQ__ON128},
#else
    {PTQ_ISA_WASM, &ptq__real128, &ptq__pairs128, NULL, PTQ__ON128},
#endif
};

/* NULL where scalar kernels do everything. */
static const ptq__family *ptq__family_of(ptq_isa isa) {
    for (size_t i = 0; i < sizeof ptq__families / sizeof *ptq__families; i++)
        if (ptq__families[i].isa == isa)
            return &ptq__families[i];
    return NULL;
}

/* A layer. */

static const int32_t ptq__nothing[2 * 16] = {0}; /* for two vectors of up to 512 bits */

/* The panel's part of the output rows of which the staged input begins at `from`, from oy on. */
static ptq__area ptq__area_of(const ptq__packed *k, const ptq__panel *panel, const char *from,
                              char *sums, int oy, int rows, const ptq__finish *finish) {
    int wait = k->coded && k->engine->form & PTQ__DEPTHWISE;
    ptq__area b;
    b.run = k->row_bytes;
    b.row = b.run * k->stride[0] / k->skip;
    b.from = from;
    b.advance = k->advance;
    b.runs = k->runs;
    b.words = k->words;
    b.rows = rows;
    b.weight = k->weight + panel->lane * k->lane_bytes;
    b.bias = wait ? (const char *)ptq__nothing : k->bias + panel->lane * PTQ__WORD;
    b.sums.later = wait ? k->bias + panel->lane * PTQ__WORD : NULL;
    b.weight_row = b.sums_row = 0;
    b.out_row = (ptrdiff_t)k->out[1] * k->out[2];
    b.sums.at = sums;
    b.sums.pixels = k->out[1];
    b.sums.channels = panel->channels;
    b.sums.vectors = panel->vectors;
    b.sums.out = oy * b.out_row + panel->first;
    b.sums.multiplier = k->multiplier + panel->lane;
    b.finish = finish;
    return b;
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
   is a multiple of 4: see ptq__can_winograd. Real numbers are rounded no worse than in other
   orders; a fourth of one is exact. */

/* Output rows from oy on. Codes are staged, real numbers read where they are. */
static void ptq__winograd_rows(const ptq__packed *k, const char *x, const char *staged,
                               char *planes, char *sums, int oy, int rows,
                               const ptq__finish *finish) {
    ptrdiff_t tiles = k->tiles, row_bytes = tiles * k->engine->lanes * PTQ__WORD;
    for (int y = 0; y < rows; y += 2) {
        const char *row[4];
        for (int i = 0; i < 4; i++) {
            int at = oy + y + i - k->pad[0];
            row[i] = k->coded                   ? staged + (y + i) * k->row_bytes
                     : at < 0 || at >= k->in[0] ? staged
                                                : x + at * k->wide;
        }
        k->engine->winograd->scatter(k, row, planes + y / 2 * tiles * k->pitch);
    }
    for (int i = 0; i < k->panels; i++) {
        const ptq__panel *panel = &k->panel[i];
        ptq__area b = ptq__area_of(k, panel, planes, planes + k->apart, oy, PTQ__PLACES, NULL);
        const char *products = b.sums.at;
        b.row = k->plane;
        b.bias = (const char *)ptq__nothing;
        b.weight_row = (ptrdiff_t)k->words * panel->vectors * k->engine->lanes * PTQ__WORD;
        b.sums_row = k->products;
        b.sums.pixels = (rows + 1) / 2 * k->tiles;
        k->engine->compute[panel->vectors - 1](&b);
        b.sums.at = sums;
        b.sums.pixels = k->out[1];
        for (int y = 0; y < rows; y += 2, b.sums.out += 2 * b.out_row)
            k->engine->winograd->gather(k, panel, products + y / 2 * panel->vectors * row_bytes,
                                        b.sums, rows - y < 2 ? 1 : 2, finish);
    }
}

/* Scratch memory: the staged rows, the sums of a row or two, the planes. */
static void ptq__conv_vector(const ptq__step *step, const ptq__frame *frame) {
    const ptq__packed *k = (const ptq__packed *)step->packed;
    const ptq__finish finish = ptq__finish_of(step, frame);
    char *staged = (char *)frame->scratch, *sums = staged + ptq__staged_bytes(k);
    char *planes = sums + ptq__sums_bytes(k);
    int i, rows;
    if (k->tiles && !k->coded)
        memset(staged, 0, (size_t)k->wide); /* what is outside */
    for (int oy = 0; oy < k->out[0]; oy += rows) {
        const char *x = (const char *)frame->in[0];
        const char *from = k->direct ? x + oy * k->stride[0] * k->row_bytes : staged;
        rows = k->out[0] - oy < k->block ? k->out[0] - oy : k->block;
        for (int group = i = 0; group < k->groups; group++) {
            if (k->tiles ? k->coded : !k->direct)
                ptq__stage(k, x, group, oy * k->stride[0] / k->skip - k->pad[0],
                           ptq__staged_rows(k, rows), staged);
            for (int at = 0, n = 2 * k->batch; at < rows && k->tiles; at += n)
                ptq__winograd_rows(k, x, staged + (k->coded ? at * k->row_bytes : 0), planes, sums,
                                   oy + at, rows - at < n ? rows - at : n, &finish);
            for (; !k->tiles && i < k->panels && k->panel[i].group == group; i++) {
                ptq__area b = ptq__area_of(k, &k->panel[i], from, sums, oy, rows, &finish);
                k->engine->compute[k->panel[i].vectors - 1](&b);
            }
        }
    }
}

/* Packing, once per plan. First, what a layer's numbers allow. */

/* An integer weight less its zero point. */
static int ptq__weight_code(const ptq__step *step, size_t from) {
    const ptq_tensor *weight = &step->node->param[PTQ_PARAM_WEIGHT];
    if (weight->type == PTQ_TYPE_S8 || weight->type == PTQ_TYPE_PACKED_S)
        return ((const int8_t *)step->weight)[from];
    return ((const uint8_t *)step->weight)[from] - weight->zero_point;
}

/* Whether weights less their zero point fit into signed bytes. */
static int ptq__fits_s8(const ptq__step *step) {
    size_t n = ptq_tensor_elements(&step->node->param[PTQ_PARAM_WEIGHT]);
    for (size_t i = 0; i < n; i++)
        if (ptq__weight_code(step, i) > 127 || ptq__weight_code(step, i) < -128)
            return 0;
    return 1;
}

/* Whether x0 w0 + x1 w1 fits 16 bits for any two weights that share 16 bits in a row of the kernel,
   and any codes 0 <= x <= 255, or fewer where the input has fewer bits: they always do for 7 bits
   of codes, or of symmetric weights. Products of different signs do not help, as one of the codes
   may be 0. */
static int ptq__pairs_fit(const ptq__step *step) {
    const ptq_qparams *in = &step->from[0]->q;
    int rows = step->kernel[0], run = step->taps / rows, taps = rows * step->kernel[1];
    int32_t low, high;
    ptq_code_range(in->type, in->bits, &low, &high);
    if (in->type == PTQ_TYPE_S8)
        high += 128; /* as they are staged */
    for (int row = 0; row < step->node->shape[2] * rows; row++)
        for (int i = 0; i < run; i += 2) {
            int32_t most = 0, least = 0;
            for (int k = i; k < i + 2 && k < run; k++) {
                int w = ptq__weight_code(step, (size_t)(row / rows) * (size_t)step->taps +
                                                   (size_t)(k % step->deep * taps +
                                                            row % rows * step->kernel[1] +
                                                            k / step->deep));
                *(w > 0 ? &most : &least) += w * high;
            }
            if (most > INT16_MAX || least < INT16_MIN)
                return 0;
        }
    return 1;
}

/* Whether no sum without bias reaches `limit`. */
static int ptq__sums_below(const ptq__step *step, int64_t limit) {
    for (int c = 0; c < step->node->shape[2]; c++) {
        int64_t sum = 0;
        for (int i = 0; i < step->taps; i++)
            sum += 255 * abs(ptq__weight_code(step, (size_t)c * (size_t)step->taps + (size_t)i));
        if (sum >= limit)
            return 0;
    }
    return 1;
}

/* Whether all of them, times 4, fit 32 bits; and whether it pays: with few channels the transforms
   take longer than what they save. */
static int ptq__can_winograd(const ptq__step *step) {
    const int *out = step->node->shape;
    int geometry = step->kernel[0] == 3 && step->kernel[1] == 3 && step->stride[0] == 1 &&
                   step->stride[1] == 1 && step->groups == 1 && step->window[0] == 3 &&
                   step->window[1] == 3;
    return geometry && step->in[2] >= 8 && out[0] > 1 && out[1] > 1 &&
           (!step->multiplier || ptq__sums_below(step, 1 << 29));
}

/* Then the layer's shape, in the engine's terms. */

/* How rows are staged, and how many. Of a kernel that is one pixel wide or high, what it steps over
   is left out. The words of matrices are divided into pieces of equal size that fit a tile. For
   ptq__winograd_rows a pixel is whole vectors: its transforms know nothing of channels. */
static void ptq__describe_input(ptq__packed *k, int winograd) {
    int one = (k->engine->form & PTQ__DEPTHWISE) != 0, size = PTQ__WORD / k->engine->codes;
    int deep = k->deep, columns, pieces, fit;
    ptrdiff_t run;
    k->skip = k->kernel[0] == 1 && !k->pad[0] && !k->direct ? k->stride[0] : 1;
    k->pitch = deep * size;
    k->runs = k->kernel[0];
    columns = (k->out[1] - 1) * k->stride[1] + k->kernel[1];
    run = k->kernel[1] * k->pitch;
    k->advance = k->out[1] > 1 ? k->stride[1] * k->pitch : 0;
    if (winograd) {
        k->tiles = (k->out[1] + 1) / 2;
        k->runs = 1;
        run = k->pitch;
        pieces = k->engine->winograd->bytes; /* whole vectors */
        k->advance = k->pitch = (k->pitch + pieces - 1) / pieces * pieces;
    }
    k->words = one ? k->kernel[1] : (int)((run + PTQ__WORD - 1) / PTQ__WORD);
    if (k->engine->form & PTQ__MATRICES) {
        pieces = (k->words + 15) / 16;
        k->words = (k->words + pieces - 1) / pieces * pieces;
    }
    k->count = k->in[1] < columns - k->pad[1] ? k->in[1] : columns - k->pad[1];
    k->parts = !one && (k->groups > 1 || k->pitch > deep * size) ? k->count : 1;
    k->row_bytes = (k->direct ? k->in[1] : columns) * k->pitch;
    fit = (int)((one && k->coded ? 2 : 1) * PTQ__AT_ONCE / k->row_bytes) - k->kernel[0];
    fit = (fit < 0 ? 0 : fit) * k->skip / k->stride[0] + 1;
    k->block = k->tiles ? fit + fit % 2 : fit;
    if (k->block > k->out[0] || (k->tiles && !k->coded))
        k->block = k->out[0];
}

/* Planes are as wide as the largest tile of the inner loop asks for, if the block has rows for it:
   few tiles would leave multiplications waiting for one another, and weights be read more often.
   One panel's products may lie over the inputs that they come from: less goes through the cache. */
static void ptq__describe_planes(ptq__packed *k) {
    int lanes = k->engine->lanes, most = k->engine->most, pixels;
    ptrdiff_t wide = (k->out[2] > lanes ? 2 : 1) * lanes * PTQ__WORD;
    k->batch = (16 + k->tiles - 1) / k->tiles;
    if (k->batch > (k->block + 1) / 2)
        k->batch = (k->block + 1) / 2;
    pixels = (k->batch * k->tiles + most - 1) / most * most;
    k->before = k->coded ? 0 : k->pad[1] * k->pitch;
    k->wide = k->coded ? k->row_bytes : k->in[1] * k->pitch;
    k->plane = k->products = pixels * k->pitch;
    if (k->out[2] > 2 * lanes || wide > k->pitch) {
        k->products = pixels * wide;
        k->apart = PTQ__PLACES * k->plane;
    }
}

/* Whether a layer may read its input where it is: as it would be staged, and within the session's
   memory, where so much follows that more may be read. */
static int ptq__reads_directly(const ptq__packed *k, const ptq__step *step) {
    int same = k->groups == 1 && !(k->engine->form & PTQ__DEPTHWISE) && k->engine->codes != 2;
    for (int i = 0; i < 2; i++)
        same = same && !k->pad[i] && (k->out[i] - 1) * k->stride[i] + k->kernel[i] <= k->in[i];
    return same && !k->flip && step->from[0]->op != PTQ_OP_INPUT;
}

/* What becomes of the sums of a step, but for the tensors of a run. */
static void ptq__describe_finish(ptq__finish *f, const ptq__step *step) {
    const ptq_node *node = step->node;
    int c;
    f->channels = node->shape[2];
    f->least = ptq__act_least(node->act);
    f->most = ptq__act_most(node->act);
    f->add_least = ptq__act_least(node->add_act);
    f->add_most = ptq__act_most(node->add_act);
    f->real = step->multiplier && !ptq__is_coded(node);
    if (ptq__is_coded(node)) {
        f->zero_point = step->clamp.zero_point;
        f->least = (float)(step->clamp.low - step->clamp.zero_point);
        f->most = (float)(step->clamp.high - step->clamp.zero_point);
        f->flip = node->q.type == PTQ_TYPE_S8 ? 128 : 0;
        f->low = (node->residual ? &step->adder.clamp : &step->clamp)->low + f->flip;
        f->high = (node->residual ? &step->adder.clamp : &step->clamp)->high + f->flip;
        for (f->fours = 1, c = 0; c < node->shape[2]; c++)
            f->fours = f->fours && step->multiplier[c] < 1;
    }
    if (ptq__is_coded(node) && node->residual) {
        ptq__describe_adder(f, step);
        f->residual_first = node->residual == PTQ_RESIDUAL_FIRST;
        f->residual_signed = step->from[1]->q.type == PTQ_TYPE_S8;
    }
}

static ptq__packed ptq__describe(const ptq__step *step, const ptq__engine *engine) {
    const ptq_qparams *in = &step->from[0]->q;
    int is_signed = (engine->form & PTQ__SIGNED) != 0;
    ptq__packed k;
    memset(&k, 0, sizeof k);
    k.engine = engine;
    k.in = step->in;
    k.out = step->node->shape;
    k.kernel = step->window;
    k.stride = step->stride;
    k.pad = step->pad;
    k.groups = step->groups;
    k.deep = k.in[2] / k.groups;
    k.each = k.out[2] / k.groups;
    if (engine->form & PTQ__DEPTHWISE) {
        k.deep = k.each = engine->lanes;
        k.groups = (k.out[2] + k.each - 1) / k.each;
    }
    k.coded = step->multiplier != NULL;
    if (k.coded) {
        k.flip = (in->type == PTQ_TYPE_S8) != is_signed ? 128 : 0;
        k.zero = in->zero_point + (is_signed ? -k.flip : k.flip);
        k.blank = engine->codes == 4 ? k.zero : 0;
    }
    ptq__describe_finish(&k.finish, step);
    return k;
}

/* Two vectors of channels each, and one where it is enough for the rest of a group. Counts them and
   their lanes, and writes them if there is a place. */
static void ptq__make_panels(ptq__packed *k) {
    int wide = k->engine->lanes;
    ptq__panel p = {0, 0, 0, 0, 0};
    k->panels = 0;
    while (p.first < k->out[2]) {
        int end = (p.group + 1) * k->each, left = (end < k->out[2] ? end : k->out[2]) - p.first;
        p.channels = left < 2 * wide ? left : 2 * wide;
        p.vectors = left > wide ? 2 : 1;
        if (k->panel)
            k->panel[k->panels] = p;
        k->panels++;
        p.first += p.channels;
        p.lane += p.vectors * wide;
        p.group += p.channels == left;
    }
    k->lanes = p.lane;
}

/* Then the weights. */

/* One weight, codes less their zero point; and as it is packed: float, or integer of 8, 16 bits. */
static float ptq__weight_number(const ptq__step *step, size_t from) {
    return step->multiplier ? (float)ptq__weight_code(step, from)
                            : ((const float *)step->weight)[from];
}

static void ptq__put_weight(float weight, int codes, char *to) {
    int16_t half = codes == 2 ? (int16_t)weight : 0;
    if (codes == 1)
        memcpy(to, &weight, sizeof weight);
    else if (codes == 2)
        memcpy(to, &half, sizeof half);
    else
        *to = (char)(int)weight; /* char may have no sign */
}

/* G W G', of which `from` is the first weight: a number for each place, `plane` bytes apart. */
static void ptq__put_places(const ptq__step *step, size_t from, int codes, char *to,
                            ptrdiff_t plane) {
    static const int g[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 2}};
    for (int i = 0; i < PTQ__PLACES; i++, to += plane) {
        double sum = 0;
        for (int j = 0; j < 9; j++)
            sum += g[i / 4][j / 3] * g[i % 4][j % 3] *
                   (double)ptq__weight_number(step, from + (size_t)j);
        ptq__put_weight((float)sum, codes, to);
    }
}

/* Where code i of a run for one lane lies, from the start of the run. */
static ptrdiff_t ptq__weight_offset(const ptq__engine *engine, int wide, int i, int lane) {
    int codes = engine->codes, size = PTQ__WORD / codes, word = i / codes * wide + lane;
    if (engine->form & PTQ__PLANAR)
        return (word - lane % engine->lanes) * PTQ__WORD +
               (i % codes * engine->lanes + lane % engine->lanes) * size;
    return word * PTQ__WORD + i % codes * size;
}

/* The zero point of staged bytes is taken off the bias: sum (x - zx) w = sum x w - zx sum w. */
static void ptq__pack_channel(const ptq__packed *k, const ptq__step *step, int channel, int lane) {
    const ptq_tensor *bias = &step->node->param[PTQ_PARAM_BIAS];
    size_t first = (size_t)channel * (size_t)step->taps;
    char *to = k->bias + lane * PTQ__WORD;
    uint32_t sum = 0, bits;
    if (bias->rank) /* 32 bits of either kind */
        memcpy(to, (const char *)bias->data + channel * PTQ__WORD, PTQ__WORD);
    if (!k->coded)
        return;
    for (size_t i = 0; i < (size_t)step->taps && k->engine->codes == 4; i++)
        sum += (uint32_t)k->zero * (uint32_t)ptq__weight_code(step, first + i);
    memcpy(&bits, to, sizeof bits);
    bits -= sum;
    memcpy(to, &bits, sizeof bits);
    k->multiplier[lane] = step->multiplier[channel];
}

/* What a panel needs. Weights: run by run of taps, word by word, lane by lane. Memory is zeroed. */
static void ptq__pack_panel(const ptq__packed *k, const ptq__step *step, const ptq__panel *panel) {
    int width = step->kernel[1], taps = step->kernel[0] * width, deep = step->taps / taps, tap;
    int wide = k->engine->lanes * panel->vectors, codes = k->engine->codes, lane;
    ptrdiff_t bytes = (ptrdiff_t)k->words * wide * PTQ__WORD;
    for (int i = 0; i < deep * (k->tiles ? 1 : taps); i++)
        for (tap = i / deep, lane = 0; lane < panel->channels; lane++) {
            int code = tap % width * step->dilation[1] * deep + i % deep;
            char *to = k->weight + panel->lane * k->lane_bytes +
                       tap / width * step->dilation[0] * bytes +
                       ptq__weight_offset(k->engine, wide, code, lane);
            size_t from = (size_t)(panel->first + lane) * (size_t)deep + (size_t)(i % deep);
            if (k->tiles)
                ptq__put_places(step, from * (size_t)taps, codes, to, bytes);
            else
                ptq__put_weight(ptq__weight_number(step, from * (size_t)taps + (size_t)tap), codes,
                                to);
        }
    for (lane = 0; lane < panel->channels; lane++)
        ptq__pack_channel(k, step, panel->first + lane, panel->lane + lane);
}

/* Moves what was described into memory of the plan, with room for what is packed. */
static ptq_status ptq__keep_packed(ptq_plan *plan, ptq__step *step, const ptq__packed *shape,
                                   ptq__packed **out, ptq_error *err) {
    size_t lanes = (size_t)shape->lanes, words = ptq__align(lanes * PTQ__WORD);
    size_t panels = ptq__align((size_t)shape->panels * sizeof *shape->panel);
    size_t size = panels + 2 * words + lanes * (size_t)shape->lane_bytes;
    char *memory;
    PTQ__TRY(ptq__alloc(&plan->allocator, sizeof *shape + PTQ__ALIGN + size, 1, "packed weights",
                        &step->packed, err));
    memory = (char *)step->packed + sizeof *shape;
    memory += (PTQ__ALIGN - (uintptr_t)memory % PTQ__ALIGN) % PTQ__ALIGN;
    *out = (ptq__packed *)step->packed;
    **out = *shape;
    (*out)->panel = (ptq__panel *)memory;
    (*out)->bias = memory + panels;
    (*out)->multiplier = (float *)(memory + panels + words);
    (*out)->weight = memory + panels + 2 * words;
    return PTQ_OK;
}

static ptq_status ptq__vectorize_conv(ptq_plan *plan, ptq__step *step, const ptq__engine *engine,
                                      ptq_error *err) {
    ptq__packed shape = ptq__describe(step, engine), *k;
    shape.direct = ptq__reads_directly(&shape, step);
    ptq__describe_input(&shape, engine->winograd && ptq__can_winograd(step) &&
                                    (shape.coded || step->in[2] % engine->lanes == 0));
    if (shape.tiles)
        ptq__describe_planes(&shape);
    shape.lane_bytes =
        (ptrdiff_t)(shape.tiles ? PTQ__PLACES : shape.runs) * shape.words * PTQ__WORD;
    ptq__make_panels(&shape);
    PTQ__TRY(ptq__keep_packed(plan, step, &shape, &k, err));
    ptq__make_panels(k);
    for (int i = 0; i < k->panels; i++)
        ptq__pack_panel(k, step, &k->panel[i]);
    step->run = ptq__conv_vector;
    size_t planes = (size_t)(PTQ__PLACES * (k->plane + (k->apart ? k->products : 0)));
    size_t scratch = ptq__staged_bytes(k) + ptq__sums_bytes(k) + planes; /* of ptq__conv_vector */
    step->scratch = scratch > step->scratch ? scratch : step->scratch;
    return PTQ_OK;
}

/* Bytes are fastest, unless 16 bits take fewer multiplications, or bytes would saturate. */
static const ptq__engine *ptq__choose_engine(const ptq__family *family, const ptq__step *step) {
    if (!step->multiplier)
        return family->real;
    if (!family->bytes || !ptq__fits_s8(step) ||
        (family->bytes->form & PTQ__SATURATES &&
         (ptq__can_winograd(step) || step->dilation[1] > 1 || !ptq__pairs_fit(step))))
        return family->pairs;
    return family->bytes;
}

/* A layer with weights. The scalar kernel stays where codes and floats are mixed, where no window
   reaches the image, for groups of few channels, which would leave most lanes idle, and for
   depthwise windows so large that real numbers might not hold the sums. */
static ptq_status ptq__vectorize_weights(ptq_plan *plan, const ptq__family *family, ptq__step *step,
                                         ptq_error *err) {
    ptq_mode mode = ptq_node_mode(plan->info.model, step->index);
    int groups = step->groups, each = step->node->shape[2] / groups;
    int reach = (step->node->shape[1] - 1) * step->stride[1] + step->window[1];
    const ptq__engine *engine = ptq__choose_engine(family, step);
    if (groups > 1 && groups == step->in[2] && each == 1)
        engine = step->multiplier && !ptq__sums_below(step, 1 << 22) ? NULL : family->depthwise;
    else if (groups > 1 && each < 4)
        engine = NULL;
    if (!engine || mode == PTQ_MODE_DYNAMIC || reach <= step->pad[1] ||
        (mode != PTQ_MODE_INTEGER && ptq__is_coded(step->node)))
        return PTQ_OK;
    return ptq__vectorize_conv(plan, step, engine, err);
}

/* Gives a step its vector kernel, if there is one for it. */
static ptq_status ptq__vectorize(ptq_plan *plan, ptq__step *step, ptq_error *err) {
    const ptq__family *family = ptq__family_of(plan->info.isa);
    const ptq__vector_kernel *kernel = family ? family->operators : NULL;
    int coded = ptq__is_coded(step->node) || step->multiplier;
    /* In other arithmetics than ONNX Runtime's, sums without an addition are alike, and maxima. */
    int known = !coded || step->arithmetic == PTQ__ONNX ||
                (step->arithmetic == PTQ__XNNPACK && step->multiplier && !step->from[1]) ||
                step->node->op == PTQ_OP_MAX_POOL;
    if (!family || !known)
        return PTQ_OK;
    if (ptq__has_weight(step->node->op))
        return ptq__vectorize_weights(plan, family, step, err);
    while (kernel->real && kernel->op != step->node->op)
        kernel++;
    if (kernel->real)
        step->run = coded ? kernel->codes : kernel->real;
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

/* Pixels whose highest bit alone changes, eight at once: everywhere. */
static void ptq__flip(const uint8_t *pixel, size_t n, uint8_t flip, uint8_t *code) {
    uint64_t mask = flip * (UINT64_MAX / 255), word;
    size_t i;
    for (i = 0; i + sizeof word <= n; i += sizeof word) {
        memcpy(&word, pixel + i, sizeof word);
        word ^= mask;
        memcpy(code + i, &word, sizeof word);
    }
    for (; i < n; i++)
        code[i] = pixel[i] ^ flip;
}

#ifndef PTQ_RUN_ONLY
/* ---- [THREADS] ----------------------------------------------------------------------------------
   A job ([WORK]) on several threads. */

#ifdef PTQ_THREADS
static void *ptq__job_thread(void *job) {
    ptq__job_work((ptq__job *)job, 0);
    return NULL;
}

/* The calling thread works too. A thread that cannot be started leaves its work to the others. */
static void ptq__job_spread(ptq__job *job) {
    enum { MOST = 64 };
    pthread_t thread[MOST];
    int started = 0, wanted = job->work.threads < MOST ? job->work.threads : MOST;
    pthread_mutex_init(&job->lock, NULL);
    while (started < wanted - 1 &&
           pthread_create(&thread[started], NULL, ptq__job_thread, job) == 0)
        started++;
    ptq__job_work(job, 1);
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_mutex_destroy(&job->lock);
}
#else
static void ptq__job_spread(ptq__job *job) { ptq__job_work(job, 1); }
#endif
#endif /* PTQ_RUN_ONLY */

/* =============================================================================================
   PART FOUR: SEARCH
   What lowers the loss of accuracy: built on part one, from outside. For readers who know part one
   and ask what else can be done to a model; programs that only run models leave it out.

   Everything here is one of three things. Some of it changes what a conversion starts from: the
   float model ([EQUALIZE]) and the ranges of its tensors ([SEARCH]). Some changes what came out:
   codes and biases ([LEARN]). The rest asks whether a choice was good, and always in the
   same way: convert, run the result on images, and see how far its logits are from the float
   model's ([SEARCH], [CONFIRM]).
   ============================================================================================= */

#if !defined(PTQ_NO_SEARCH) && !defined(PTQ_RUN_ONLY)

/* What all of them do with what they were given: a plan of a model, and work within their own, of
   which nobody is told. */
static ptq_status ptq__plan_model(const ptq_model *model, const ptq_allocator *allocator,
                                  ptq_plan **out, ptq_error *err) {
    ptq_plan_options options;
    memset(&options, 0, sizeof options);
    options.allocator = *allocator;
    return ptq_plan_create(model, &options, out, err);
}

static ptq_work ptq__quiet(const ptq_work *work) {
    ptq_work quiet = *work;
    quiet.progress = NULL;
    return quiet;
}

/* Whatever learns or searches asks this first. Every image must be one that was calibrated on:
   learning on others would be worth as much, but then nobody could tell which images a model has
   seen. */
static ptq_status ptq__check_images(const ptq__converter *cv, ptq_error *err) {
    const ptq_dataset *images = cv->options->images;
    size_t known = 0;
    PTQ__FAIL_IF(!cv->calibration, PTQ_NOT_READY,
                 "the model was never calibrated; run ptq_calibrate first");
    PTQ__FAIL_IF(
        !images || !images->count, PTQ_NOT_READY,
        "equalization needs the calibration images, fitting ranges, confirming, learned"
        " rounding and empirical bias correction need them too; give them in the options, or"
        " do without");
    PTQ__TRY(ptq_calibration_overlap(cv->calibration, images, &known, err));
    PTQ__FAIL_IF(known < images->count, PTQ_BAD_DATA,
                 "%zu of %zu images given were not calibrated on; give the calibration images",
                 images->count - known, images->count);
    return PTQ_OK;
}

/* ---- [EQUALIZE] ---------------------------------------------------------------------------------
   Cross-layer equalization (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.1). One
   scale has to suit all channels of a tensor, so channels of like ranges lose least. A channel may
   be divided by a factor f > 0 if those who read it multiply by it, since ReLU lets factors
   through, and so do pools and additions:

       relu(x / f) = relu(x) / f        w[o][i] -> w[o][i] f[i] / f[o]        b[o] -> b[o] / f[o]

   The logits stay as they were, to rounding. Tensors that must share their factors, as the operands
   of an addition must, form a group. The image stays as it is, and with it whatever is in the group
   of node 0. */
typedef struct ptq__equalizer {
    ptq_model *model; /* a copy, to be equalized */
    int *group;       /* nodes: the first node of the group that a node's result belongs to */
    int *first;       /* nodes: where the channels of its result begin in what follows */
    float *reach;     /* channels of all nodes: the largest |x| on the images */
    float *factor;    /* channels of all nodes: what x is divided by */
    ptq_memory memory;
} ptq__equalizer;

/* Groups. Whatever computes without weights shares the factors of what it reads, and node 0 stands
   for all that keep their units: softmax and batch norm do not let factors through, nor does ReLU6,
   whose 6 is one of real units; a concat has other channels than its operands; the logits are for
   others. When two groups become one, the smaller number wins: so 0 keeps whatever joins it. */
static void ptq__join_groups(const ptq__equalizer *eq, int i) {
    const ptq_model *model = eq->model;
    const ptq_node *node = &model->node[i];
    int units = ptq__operator_of(node)->codes == PTQ__NO_CODES || node->op == PTQ_OP_CONCAT ||
                ptq__act_of(node) == PTQ_ACTIVATION_RELU6 ||
                node->add_act == PTQ_ACTIVATION_RELU6 || node->output ||
                i == ptq_model_logits(model);
    int with[3] = {ptq__has_weight(node->op) ? -1 : node->input[0], node->input[1], units ? 0 : -1};
    for (int k = 0; k < 3; k++) {
        int a = eq->group[i], b = with[k] < 0 ? a : eq->group[with[k]];
        for (int n = 0; n < model->nodes; n++)
            if (eq->group[n] == (a > b ? a : b))
                eq->group[n] = a > b ? b : a;
    }
}

static ptq_status ptq__equalizer_open(ptq__equalizer *eq, const ptq_model *model,
                                      const ptq_allocator *allocator, ptq_error *err) {
    int n = model->nodes, channels = 0;
    memset(eq, 0, sizeof *eq);
    eq->memory.allocator = *allocator;
    PTQ__FAIL_IF(ptq__is_quantized(model), PTQ_INVALID_ARGUMENT,
                 "this model is quantized already; equalize the float model");
    PTQ__TRY(ptq_model_copy(model, allocator, &eq->model, err));
    PTQ__TRY(PTQ__KEEP(&eq->memory, &eq->group, 2 * (size_t)n, "equalization", err));
    eq->first = eq->group + n;
    for (int i = 0; i < n; i++) {
        eq->group[i] = i;
        eq->first[i] = channels;
        channels += model->node[i].shape[2];
    }
    for (int i = 1; i < n; i++)
        ptq__join_groups(eq, i);
    PTQ__TRY(PTQ__KEEP(&eq->memory, &eq->reach, 2 * (size_t)channels, "channel ranges", err));
    eq->factor = eq->reach + channels;
    for (int i = 0; i < channels; i++)
        eq->factor[i] = 1;
    return PTQ_OK;
}

/* reach[c] becomes the largest |x| of channel c; x: n values, channels innermost. */
static void ptq__reach_channels(float *reach, const float *x, size_t n, int channels) {
    const float *end = x + n;
    for (; x < end; x += channels)
        for (int c = 0; c < channels; c++) {
            float a = x[c] < 0 ? -x[c] : x[c];
            reach[c] = a > reach[c] ? a : reach[c];
        }
}

/* What one image adds. Largest values come out the same whoever brings them first, so that all
   threads write to one array; to look at a tensor takes far less time than to compute it. Of a node
   with a fused addition both results count, that before it and that behind it. */
static ptq_status ptq__equalize_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                    ptq_error *err) {
    const ptq__equalizer *eq = (const ptq__equalizer *)job->context;
    (void)index;
    (void)label;
    PTQ__TRY(ptq__run_item(worker->session, job->data, worker->item, NULL, err));
    for (int i = 1; i < eq->model->nodes; i++) {
        const ptq_node *node = &eq->model->node[i];
        for (int middle = node->residual ? 1 : 0; middle >= 0; middle--) {
            ptq_tensor view;
            PTQ__TRY(
                ptq_session_tensor(worker->session, middle ? node->name : node->out, &view, err));
            ptq__lock(job);
            ptq__reach_channels(eq->reach + eq->first[i], (const float *)view.data,
                                ptq_tensor_elements(&view), node->shape[2]);
            ptq__unlock(job);
        }
    }
    return PTQ_OK;
}

/* f[c] = sqrt(reach[c] / largest reach of the group): half of the way to equal ranges, since what
   the activation gains, the weights that read it lose. A channel twenty times smaller than the
   largest is noise, which need not be magnified further. */
static void ptq__choose_factors(ptq__equalizer *eq, int group) {
    int channels = eq->model->node[group].shape[2];
    float *reach = eq->reach + eq->first[group], most = 0;
    for (int i = group + 1; i < eq->model->nodes; i++)
        if (eq->group[i] == group)
            ptq__reach_channels(reach, eq->reach + eq->first[i], (size_t)channels, channels);
    for (int c = 0; c < channels; c++)
        most = reach[c] > most ? reach[c] : most;
    for (int i = group; i < eq->model->nodes && most > 0; i++)
        for (int c = 0; c < channels && eq->group[i] == group; c++) {
            float share = reach[c] / most;
            eq->factor[eq->first[i] + c] = (float)sqrt((double)(share > 0.05f ? share : 0.05f));
        }
}

/* w: O x taps. Weight k of output channel o belongs to the input channel that its group begins with
   or one behind it. A factor for whoever reads is 1 if its input has none. */
static void ptq__scale_weights(const ptq__equalizer *eq, int index) {
    ptq_node *node = &eq->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const float *in = eq->factor + eq->first[node->input[0]], *out = eq->factor + eq->first[index];
    float *w = (float *)weight->data, *b = (float *)node->param[PTQ_PARAM_BIAS].data;
    int channels = eq->model->node[node->input[0]].shape[2], each = node->shape[2] / node->groups;
    int taps = (int)(ptq_tensor_elements(weight) / (size_t)weight->dim[0]);
    int area = node->kernel[0] * node->kernel[1];
    for (int o = 0; o < weight->dim[0]; o++) {
        int first = o / each * (channels / node->groups);
        for (int k = 0; k < taps; k++, w++)
            *w = *w * in[(first + k / area) % channels] / out[o];
        if (b)
            b[o] /= out[o];
    }
}

/* "conv1 1 0.5;block1.conv1 0.7 1": what the channels of each tensor were divided by. Into the
   metadata, so that the model can be compared with float, tensor by tensor. */
static void ptq__put_factors(ptq__text *text, const void *what) {
    const ptq__equalizer *eq = (const ptq__equalizer *)what;
    for (int i = 1; i < eq->model->nodes; i++) {
        if (eq->group[i])
            ptq__put(text, text->length ? ";%s" : "%s", eq->model->node[i].out);
        for (int c = 0; c < eq->model->node[i].shape[2] && eq->group[i]; c++)
            ptq__put(text, " %g", (double)eq->factor[eq->first[i] + c]);
    }
}

/* The reverse: factors from the metadata of a model that was made of this one. */
static ptq_status ptq__read_factors(ptq__equalizer *eq, const char *kept, ptq_error *err) {
    ptq__span rest = ptq__span_of(kept);
    while (rest.n) {
        ptq__span text = ptq__cut(&rest, ';'), name = ptq__cut(&text, ' ');
        int i = ptq__find(eq->model, name.p, name.n);
        float *factor = i < 0 ? NULL : eq->factor + eq->first[i];
        for (int c = 0; i >= 0 && eq->group[i] && c < eq->model->node[i].shape[2]; c++)
            PTQ__FAIL_IF(!ptq__read_float(ptq__cut(&text, ' '), &factor[c]) || !(factor[c] > 0),
                         PTQ_BAD_FILE,
                         "metadata equalization: no factor for channel %d of %s; give the model"
                         " that the quantized one was made from",
                         c, eq->model->node[i].out);
    }
    return PTQ_OK;
}

/* Weights and metadata of the model, once the factors are known. */
static ptq_status ptq__apply_factors(ptq__equalizer *eq, ptq_error *err) {
    const ptq_allocator *allocator = &eq->memory.allocator;
    void *kept = NULL;
    size_t length;
    for (int i = 1; i < eq->model->nodes; i++)
        if (ptq__has_weight(eq->model->node[i].op))
            ptq__scale_weights(eq, i);
    PTQ__TRY(ptq__make_text(allocator, ptq__put_factors, eq, "factors", &kept, &length, err));
    ptq_status status = ptq_model_set_meta(eq->model, "equalization", (const char *)kept, err);
    ptq__free(allocator, kept);
    PTQ__THEN(status, ptq_model_check(eq->model, err));
    return status;
}

/* A copy of a fused float model that computes the same logits from channels of like ranges. */
static ptq_status ptq__equalize(const ptq_plan *plan, const ptq_dataset *data, const ptq_work *work,
                                ptq_model **out, ptq_error *err) {
    ptq__equalizer eq;
    ptq__job job;
    PTQ__TRY(ptq__check_fits(plan, data, err));
    job = ptq__job_over(plan, data, work);
    job.keep = 1;
    job.one = ptq__equalize_one;
    job.context = &eq;
    ptq_status status =
        ptq__equalizer_open(&eq, ptq_plan_get_info(plan)->model, &work->allocator, err);
    PTQ__THEN(status, ptq__job_run(&job, err));
    for (int i = 1; !status && i < eq.model->nodes; i++)
        if (eq.group[i] == i)
            ptq__choose_factors(&eq, i);
    PTQ__THEN(status, ptq__apply_factors(&eq, err));
    ptq_release(&eq.memory);
    PTQ__FINISH(status, ptq_model_free(eq.model), eq.model, out);
}

PTQ_API ptq_status ptq_equalize_like(const ptq_model *model, const ptq_model *quantized,
                                     ptq_model **out, ptq_error *err) {
    const char *kept = ptq_model_get_meta(quantized, "equalization");
    ptq__equalizer eq;
    ptq_status status = ptq__equalizer_open(&eq, model, &model->allocator, err);
    if (kept) {
        PTQ__THEN(status, ptq__read_factors(&eq, kept, err));
        PTQ__THEN(status, ptq__apply_factors(&eq, err));
    }
    ptq_release(&eq.memory);
    PTQ__FINISH(status, ptq_model_free(eq.model), eq.model, out);
}

/* ---- [LEARN] ------------------------------------------------------------------------------------
   Learned rounding: codes chosen for what a layer makes of its inputs, not for themselves.

   One channel of a layer computes y = w x + b, with x the inputs under the kernel ("taps") at one
   position of one image. Codes q with the scale s put w off by d = w - s q, and y by d x. Rounding
   to nearest keeps every d small; what matters is how much d x varies from input to input,

       E (d x - E d x)^2 = d C d',    C = E (x - E x)(x - E x)', the covariance of the inputs,

   and where inputs go together, a weight rounded the wrong way can make up for others (AdaRound:
   Nagel et al. 2020, https://arxiv.org/abs/2004.10568, section 3). Trying all roundings is not
   feasible, so the error descends: from the nearest codes, the one step of one code that lowers
   d C d' most is taken, again and again, until there is none. The mean E d x needs no weights: the
   bias takes it (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2).

   Refitting (ptq_scheme.refit): with few bits, the layers before have changed x, and w is no longer
   the best thing to round. It is replaced by the w' that, with some b', minimizes

       E (y - w' x - b')^2 + r |w' - w|^2,

   y being what the float model has in this place for the same image, and r small: ridge regression
   (Hoerl and Kennard 1970). Where the derivative is zero, (C + r I)(w' - w) = cov(x, y) - C w,
   which Cholesky's method solves. Each layer then learns from what those before it have become, in
   a pass over the images of its own; without refitting, one pass serves all layers.

   All that a layer needs to know of the images are sums of products. x are codes, y is rounded to a
   fixed point, and sums of integers are exact: neither the order of the images nor the number of
   threads can change a bit of the result. A tap number 0 that is always 1 makes one kind of sum of
   three: of 1 (how many), of x and of x x', and likewise of y and of y x'.

   Memory: n (n + 1) / 2 sums of 8 bytes for each group of n taps and each thread, 85 MB for 512
   channels of 3x3, and two n x n matrices of doubles while a group is solved. Time: n^2 / 2
   multiplications for each position looked at, n^3 / 6 to solve, 2 n for each step of a code. */

enum {
    PTQ__MOST_TAPS = 4608, /* of a layer that learns: 512 channels of 3x3 */
    PTQ__PATCHES = 64      /* positions looked at in an image */
};

/* A group of a layer that learns, all of the layer where it has one group: groups share neither
   inputs nor channels. x are codes less their zero point, so |x| < 2^8, and |y| < 2^28: no sum over
   fewer than 2^27 positions can overflow. */
typedef struct ptq__lesson {
    int index, old;       /* its node in the model that is being made, and in the float model */
    ptq_node *to;         /* the node of the new model: its codes and biases are replaced */
    const ptq_node *from; /* the node of the float model: its weights are wanted */
    const ptq_scheme *scheme;
    int group, first; /* its number, and its first channel */
    int taps, each;   /* inputs under its kernel, and channels */
    int rounds;       /* codes are learned; 0: the bias alone */
    int targets;      /* the float model's y is looked at; 0: w x + b stands for it */
    int terms;        /* taps that products are summed with: taps + 1, or tap 0 alone */
    double unit;      /* of y in the sums */
    double in_scale;  /* of x: in_scale x is the real input */
    size_t xx;        /* where its sums begin among those of all lessons. Row i = 0..taps: of
                         x[i] x[j], j = 0..i, j < terms */
    size_t yx;        /* each x terms: y x[j]. None without targets */
} ptq__lesson;

/* The largest absolute value of a tensor of the float model on the calibration images; of pixels,
   on any image. */
static double ptq__peak(const ptq__converter *cv, int node) {
    int t = ptq_calibration_find(cv->calibration, cv->old->node[node].out);
    double most = 0;
    if (t >= 0) {
        const ptq_observer *s = &cv->calibration->tensor[t].observer;
        most = fmax(fabs((double)s->min), fabs((double)s->max));
    }
    for (int c = 0; c < cv->old->node[0].shape[2] && node == 0 && t < 0; c++)
        most = fmax(most, fmax(fabs((double)ptq__pixel(cv->old, c, 0)),
                               fabs((double)ptq__pixel(cv->old, c, 255))));
    return most;
}

/* The unit of y: a power of two, so small that y keeps 26 bits, and so large that no y reaches 2^28
   with the correction of a residual in it. |y[o]| <= |b[o]| + sum over i of |w[o][i]| max |x|. */
static double ptq__target_unit(const ptq__converter *cv, const ptq__lesson *lesson) {
    const float *w = (const float *)lesson->from->param[PTQ_PARAM_WEIGHT].data;
    const float *b = (const float *)lesson->from->param[PTQ_PARAM_BIAS].data;
    double most = 0, reach = ptq__peak(cv, lesson->from->input[0]);
    int exponent;
    for (int o = 0; o < lesson->from->shape[2]; o++) {
        double sum = b ? fabs((double)b[o]) : 0;
        for (int i = 0; i < lesson->taps; i++)
            sum += fabs((double)*w++) * reach;
        most = sum > most ? sum : most;
    }
    if (lesson->from->residual)
        most += 2 * ptq__peak(cv, lesson->from->input[1]);
    frexp(most, &exponent);
    return ldexp(1, exponent - 26);
}

/* Describes the groups of a node, if it learns; returns how many. */
static int ptq__find_lessons(const ptq__converter *cv, int index, ptq__lesson *lesson) {
    ptq_node *node = &cv->model->node[index];
    const ptq_tensor *weight = &node->param[PTQ_PARAM_WEIGHT];
    const ptq_scheme *scheme = ptq__scheme_of(cv, node);
    if (!ptq__has_weight(node->op) || ptq_node_mode(cv->model, index) != PTQ_MODE_INTEGER ||
        (scheme->rounding != PTQ_ROUNDING_LEARNED && scheme->bias != PTQ_BIAS_CORRECTION_EMPIRICAL))
        return 0;
    size_t n = ptq_tensor_elements(weight) / (size_t)weight->dim[0];
    if (n > PTQ__MOST_TAPS)
        return 0;
    lesson->index = index;
    lesson->old = ptq_model_find(cv->old, node->name);
    lesson->to = node;
    lesson->from = &cv->old->node[lesson->old];
    lesson->scheme = scheme;
    lesson->taps = (int)n;
    lesson->each = node->shape[2] / node->groups;
    lesson->rounds = scheme->rounding == PTQ_ROUNDING_LEARNED;
    lesson->targets = !lesson->rounds || ptq__refits(scheme);
    lesson->unit = lesson->targets ? ptq__target_unit(cv, lesson) : 1;
    lesson->in_scale = (double)cv->model->node[node->input[0]].q.scale;
    for (int g = 1; g < node->groups; g++) {
        lesson[g] = lesson[0];
        lesson[g].group = g;
        lesson[g].first = g * lesson->each;
    }
    return node->groups;
}

/* A pass over the images. Each thread has one of these; in the end their sums are added up. */
typedef struct ptq__learner {
    const ptq__converter *cv;
    const ptq_plan *real;      /* of the float model; NULL if no lesson has targets */
    const ptq__lesson *lesson; /* in the order of the model's nodes */
    int lessons;
    size_t size, taps, each; /* all sums together; the largest of any lesson */
    int64_t *sums;
    ptq_session *session; /* of `real` */
    int16_t *x;           /* (taps + 1) x PTQ__PATCHES: of a lesson, at all positions looked at */
    int32_t *y;           /* each x PTQ__PATCHES: targets there, in `unit` */
    void *patch;          /* taps: inputs under a kernel, int16_t codes or float; behind y */
    ptq_memory memory;
} ptq__learner;

/* What fails half-way is released by ptq__learn_end. */
static ptq_status ptq__learn_begin(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq__learner *part = NULL;
    ptq_memory *memory;
    PTQ__TRY(PTQ__NEW(&job->work.allocator, &part, 1, "moments", err));
    worker->own = part;
    *part = *(const ptq__learner *)job->context;
    memory = &part->memory;
    PTQ__TRY(PTQ__KEEP(memory, &part->sums, part->size, "moments", err));
    PTQ__TRY(PTQ__KEEP(memory, &part->x, (part->taps + 1) * PTQ__PATCHES, "moments", err));
    PTQ__TRY(PTQ__KEEP(memory, &part->y, part->each * PTQ__PATCHES + part->taps, "moments", err));
    part->patch = part->y + part->each * PTQ__PATCHES;
    return part->real ? ptq__session_of(part->real, &job->work.allocator, 1, &part->session, err)
                      : PTQ_OK;
}

/* Lays out the sums of a lesson behind those before it; SIZE_MAX if memory cannot hold them. */
static void ptq__place_sums(ptq__learner *all, ptq__lesson *lesson) {
    size_t taps = (size_t)lesson->taps, each = (size_t)lesson->each, before = all->size;
    lesson->terms = lesson->rounds ? lesson->taps + 1 : 1;
    lesson->xx = before;
    lesson->yx = before + (lesson->rounds ? (taps + 1) * (taps + 2) / 2 : taps + 1);
    all->size = lesson->yx + (lesson->targets ? each : 0) * (size_t)lesson->terms;
    all->size = all->size < before ? SIZE_MAX : all->size;
    all->taps = taps > all->taps ? taps : all->taps;
    all->each = each > all->each ? each : all->each;
}

/* The inputs of a group that one position (row * W + column) of a convolution's or dense layer's
   result depends on, in the order of its weights: int16_t codes less their zero point for a node on
   integers, float for one on real numbers. */
static void ptq__gather(const ptq_session *session, int index, int group, int position,
                        void *patch) {
    const ptq__step *step = &session->plan->step[index];
    const ptq_qparams *q = &step->from[0]->q;
    const void *x = ptq__frame_of(session, index).in[0];
    int first = group * step->deep, n = step->deep;
    if (q->type != PTQ_TYPE_F32)
        ptq__gather_codes(step, (const uint8_t *)x, q, position, first, n, (int16_t *)patch);
    else
        ptq__gather_f32(step, (const float *)x, q, position, first, n, (float *)patch);
}

/* Column n of y: what the channels should become at position `at`. That is the float model's result
   before its activation, and where a residual is added right to it, also what the new model's
   residual lacks. */
static void ptq__take_targets(ptq__learner *part, const ptq__lesson *lesson,
                              const ptq_session *session, int at, int n) {
    const ptq_node *from = lesson->from, *nodes = part->cv->model->node;
    const float *w = (const float *)from->param[PTQ_PARAM_WEIGHT].data;
    const float *b = (const float *)from->param[PTQ_PARAM_BIAS].data;
    const float *want = (const float *)ptq__frame_of(part->session, lesson->old).in[1];
    const void *have = ptq__frame_of(session, lesson->index).in[1];
    int taps = lesson->taps;
    ptq__gather(part->session, lesson->old, lesson->group, at, part->patch);
    for (int k = 0, o = lesson->first; k < lesson->each; k++, o++) {
        const float *x = (const float *)part->patch;
        double y = (double)ptq__dot_f32(w + (ptrdiff_t)o * taps, x, taps) + (b ? (double)b[o] : 0);
        int i = at * from->shape[2] + o;
        if (want && from->act == PTQ_ACTIVATION_NONE)
            y += (double)want[i] - (double)ptq__real(&nodes[lesson->to->input[1]], have, i);
        part->y[k * PTQ__PATCHES + n] = (int32_t)floor(y / lesson->unit + 0.5);
    }
}

/* Adds products of all columns to the sums. Columns that no position fills are zeros, in tap 0 too,
   so that the compiler knows their number; a sum of 64 products under 2^16 fits 32 bits. */
static void ptq__add_patches(const ptq__learner *part, const ptq__lesson *lesson) {
    int64_t *xx = part->sums + lesson->xx, *yx = part->sums + lesson->yx;
    for (int i = 0; i <= lesson->taps; i++)
        for (int j = 0; j <= i && j < lesson->terms; j++) {
            const int16_t *a = part->x + i * PTQ__PATCHES, *b = part->x + j * PTQ__PATCHES;
            int32_t sum = 0;
            for (int p = 0; p < PTQ__PATCHES; p++)
                sum += a[p] * b[p];
            *xx++ += sum;
        }
    for (int o = 0; o < lesson->each && lesson->targets; o++)
        for (int j = 0; j < lesson->terms; j++, yx++)
            for (int p = 0; p < PTQ__PATCHES; p++)
                *yx += (int64_t)part->y[o * PTQ__PATCHES + p] * part->x[j * PTQ__PATCHES + p];
}

/* One lesson on the image that has just run. Of an image with more than 64 positions one in every
   `stride` is looked at, which ones depending on the image's hash: different ones from image to
   image, and yet the same wherever the image stands in the data set. */
static void ptq__learn_image(ptq__learner *part, const ptq__lesson *lesson,
                             const ptq_session *session, uint64_t hash) {
    int positions = lesson->to->shape[0] * lesson->to->shape[1];
    int stride = (positions + PTQ__PATCHES - 1) / PTQ__PATCHES;
    memset(part->x, 0, (size_t)(lesson->taps + 1) * PTQ__PATCHES * sizeof *part->x);
    for (int n = 0; n < PTQ__PATCHES; n++) {
        int at = n * stride + (int)((hash + (uint64_t)n * 5) % (uint64_t)stride);
        if (at >= positions)
            break;
        ptq__gather(session, lesson->index, lesson->group, at, part->patch);
        part->x[n] = 1;
        for (int i = 0; i < lesson->taps; i++)
            part->x[(i + 1) * PTQ__PATCHES + n] = ((const int16_t *)part->patch)[i];
        if (lesson->targets)
            ptq__take_targets(part, lesson, session, at, n);
    }
    ptq__add_patches(part, lesson);
}

/* Both models run up to the last layer that learns: what follows is not needed. */
static ptq_status ptq__learn_one(ptq__job *job, ptq__worker *worker, size_t index, int label,
                                 ptq_error *err) {
    ptq__learner *part = (ptq__learner *)worker->own;
    const ptq__lesson *last = &part->lesson[part->lessons - 1];
    uint64_t hash = ptq__item_hash(job->data, worker->item);
    (void)index;
    (void)label;
    PTQ__TRY(ptq__run_until(worker->session, job->data->type, worker->item, last->index, err));
    if (part->real)
        PTQ__TRY(ptq__run_until(part->session, job->data->type, worker->item, last->old, err));
    for (int i = 0; i < part->lessons; i++)
        ptq__learn_image(part, &part->lesson[i], worker->session, hash);
    return PTQ_OK;
}

/* Only one thread at a time is in here. What it gathered is added to what others have. */
static ptq_status ptq__learn_end(ptq__job *job, ptq__worker *worker, ptq_error *err) {
    ptq__learner *all = (ptq__learner *)job->context, *part = (ptq__learner *)worker->own;
    (void)err;
    if (!part)
        return PTQ_OK;
    for (size_t k = 0; k < all->size && !job->status; k++)
        all->sums[k] += part->sums[k];
    ptq_session_free(part->session);
    ptq_release(&part->memory);
    ptq__free(&job->work.allocator, part);
    return PTQ_OK;
}

/* r as a share of the average variance of the inputs. Chosen on training images that were not
   calibrated on. */
static const double ptq__ridge = 0.01;

/* What a lesson is solved with, n = taps, channel after channel. */
typedef struct ptq__bench {
    const ptq__lesson *lesson;
    const int64_t *sums; /* of all lessons */
    double count;        /* of positions in them */
    ptq_tensor *codes;   /* of the layer */
    int32_t low, high;   /* that they may have */
    double *mean;        /* n: E x */
    double *c, r;        /* n x n: C + r I, where codes are learned */
    double *factor;      /* n x n: the lower triangle l of l l' = C + r I */
    int refits;          /* there are targets, and `factor` */
    double *d, *g;       /* n: scratch, the error of each weight and the gradient C d */
    float *fitted;       /* n */
    int channel;         /* the one at hand */
    size_t yx;           /* where the sums of its y begin */
    const float *w;      /* n: to be coded; of the float model, or `fitted` */
    float bias;          /* of the float model */
    float *scale;        /* of the codes */
} ptq__bench;

/* Cholesky's factor of c, n x n, row after row:

       l[i][j] = (c[i][j] - sum over k < j of l[i][k] l[j][k]) / l[j][j],    l[i][i] = sqrt(...)

   0 if c is not positive definite (Golub and Van Loan, Matrix Computations, section 4.2). */
static int ptq__factorize(const double *c, size_t n, double *l) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = c[i * n + j];
            for (size_t k = 0; k < j; k++)
                sum -= l[i * n + k] * l[j * n + k];
            if (i == j && !(sum > 0))
                return 0;
            l[i * n + j] = i == j ? sqrt(sum) : sum / l[j * n + j];
        }
    return 1;
}

/* Replaces x by the solution z of l l' z = x: forwards through l, back through l'. */
static void ptq__solve(const double *l, size_t n, double *x) {
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++)
            x[i] -= l[i * n + k] * x[k];
        x[i] /= l[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++)
            x[i] -= l[k * n + i] * x[k];
        x[i] /= l[i * n + i];
    }
}

/* From sums to mean and covariance, C[i][j] = E x[i] x[j] - E x[i] E x[j]; the sums stand in order,
   each row beginning with tap 0. r serves rounding too: errors that only inputs of very little
   variance show are not worth a large change of codes. */
static void ptq__find_covariance(ptq__bench *b) {
    const int64_t *sum = b->sums + b->lesson->xx;
    size_t n = (size_t)b->lesson->taps;
    double trace = 0;
    b->count = (double)*sum++;
    for (size_t i = 0; i < n; i++) {
        b->mean[i] = (double)*sum++ / b->count;
        for (size_t j = 0; j <= i && b->lesson->rounds; j++)
            b->c[i * n + j] = b->c[j * n + i] = (double)*sum++ / b->count - b->mean[i] * b->mean[j];
    }
    if (!b->lesson->rounds)
        return;
    for (size_t i = 0; i < n; i++)
        trace += b->c[i * n + i];
    b->r = ptq__ridge * trace / (double)n;
    for (size_t i = 0; i < n; i++)
        b->c[i * n + i] += b->r;
    b->refits = b->lesson->targets && ptq__factorize(b->c, n, b->factor);
}

/* The channel's weights fitted anew: w + (C + r I)^-1 (cov(x, y) - C w). x counts codes, y counts
   units; C w is (C + r I) w - r w. */
static void ptq__refit(ptq__bench *b) {
    const ptq__lesson *lesson = b->lesson;
    size_t n = (size_t)lesson->taps;
    const int64_t *yx = b->sums + b->yx;
    double y = (double)yx[0] / b->count;
    for (size_t i = 0; i < n; i++) {
        double side = (double)yx[i + 1] / b->count - y * b->mean[i];
        side = side * lesson->unit / lesson->in_scale;
        for (size_t j = 0; j < n; j++)
            side -= b->c[i * n + j] * (double)b->w[j];
        b->d[i] = side + b->r * (double)b->w[i];
    }
    ptq__solve(b->factor, n, b->d);
    for (size_t i = 0; i < n; i++)
        b->fitted[i] = (float)((double)b->w[i] + b->d[i]);
    b->w = b->fitted;
}

/* The channel's codes under a scale: the nearest, then descent, unless they have a zero point
   (affine). Returns d C d'. With g = C d, a step of code i changes it by s^2 C[i][i] - 2 s |g[i]|
   at best, up where g[i] > 0. Every move lowers it: 20 moves a weight are a limit only because sums
   of doubles are rounded. */
static double ptq__round_channel(const ptq__bench *b, float scale) {
    size_t n = (size_t)b->lesson->taps, at = (size_t)b->channel * n, i, j, k;
    double *d = b->d, *g = b->g, s = (double)scale, error = 0;
    const double *c = b->c;
    ptq__code_weights(b->w, n, scale, b->codes->zero_point, b->low, b->high, b->codes, at);
    if (b->codes->zero_point)
        return 0;
    for (i = 0; i < n; i++)
        d[i] = (double)b->w[i] - s * (double)ptq__code(b->codes, at + i);
    for (i = 0; i < n; i++) {
        for (g[i] = 0, j = 0; j < n; j++)
            g[i] += c[i * n + j] * d[j];
        error += d[i] * g[i];
    }
    for (size_t moves = 0; moves < 20 * n; moves++) {
        double gain = 0;
        for (k = n, i = 0; i < n; i++) {
            double change = s * (s * c[i * n + i] - 2 * fabs(g[i]));
            int32_t code = ptq__code(b->codes, at + i) + (g[i] > 0 ? 1 : -1);
            if (change < gain && code >= b->low && code <= b->high) {
                gain = change;
                k = i;
            }
        }
        if (k == n)
            break;
        error += gain;
        int32_t step = g[k] > 0 ? 1 : -1;
        ptq_tensor_set_code(b->codes, at + k, ptq__code(b->codes, at + k) + step);
        for (i = 0; i < n; i++)
            g[i] -= s * step * c[k * n + i];
    }
    return error;
}

/* Fitted weights need a scale of their own: of nine within 20 % of the one with the least squared
   error of the weights, the one with the least error of the result. */
static void ptq__rescale_channel(ptq__bench *b) {
    size_t n = (size_t)b->lesson->taps;
    float base = ptq__weight_scale(b->w, n, b->lesson->scheme, b->low, b->high);
    double least = HUGE_VAL;
    if (ptq__no_weights(b->w, n, b->high))
        return; /* nothing but a bias, whose scale was chosen for it */
    for (int k = -4; k <= 4; k++) {
        float scale = ptq__scale_for_bias(base * (1 + 0.05f * (float)k), 0, b->bias,
                                          (float)b->lesson->in_scale,
                                          ptq__least_unit(b->lesson->to));
        double error = ptq__round_channel(b, scale);
        if (error < least) {
            least = error;
            *b->scale = scale;
        }
    }
}

/* The bias, per unit of the input's scale, that ends the mean error: E y - s q E x, and where no y
   was looked at, b + w E x for E y. */
static double ptq__mean_bias(const ptq__bench *b) {
    const ptq__lesson *lesson = b->lesson;
    size_t n = (size_t)lesson->taps, at = (size_t)b->channel * n;
    double bias =
        lesson->targets ? (double)b->sums[b->yx] / b->count * lesson->unit : (double)b->bias;
    bias /= lesson->in_scale;
    for (size_t i = 0; i < n; i++) {
        int32_t q = ptq__code(b->codes, at + i) - b->codes->zero_point;
        double w = lesson->targets ? 0 : (double)b->w[i];
        bias += (w - (double)*b->scale * (double)q) * b->mean[i];
    }
    return bias;
}

/* The bias of channel o, learned, per unit of its input's scale. It makes up for errors of the
   layers before, the residual's included, and so may be far larger than the float model's: beside
   the smallest weights, or none, it would leave 32 bits. Then the channel's scale grows until it
   fits; the weights, which count for next to nothing there, are coded anew, and change the bias
   once more. If it never fits, the float model's stays, whose code was made to fit. */
static void ptq__learn_bias(ptq__bench *b, int o) {
    size_t n = (size_t)b->lesson->taps;
    double in_scale = b->lesson->in_scale, bias = ptq__mean_bias(b);
    for (int tries = 0; tries < 3 && b->codes->scales > 1; tries++) {
        if (fabs(bias) <= ptq__most_bias * (double)*b->scale)
            break;
        *b->scale = ptq__scale_for_bias(*b->scale, 0, 2 * (float)bias * (float)in_scale,
                                        (float)in_scale, 0);
        ptq__code_weights(b->w, n, *b->scale, 0, b->low, b->high, b->codes, (size_t)o * n);
        bias = ptq__mean_bias(b);
    }
    if (fabs(bias) > ptq__most_bias * (double)*b->scale)
        bias = (double)b->bias / in_scale;
    ((int32_t *)b->lesson->to->param[PTQ_PARAM_BIAS].data)[o] =
        (int32_t)floor(bias / (double)*b->scale + 0.5);
}

/* Channel k of the lesson. One without weights is its bias, and stays so. */
static void ptq__learn_channel(ptq__bench *b, int k) {
    const ptq__lesson *lesson = b->lesson;
    const ptq_node *from = lesson->from;
    int biased = lesson->to->param[PTQ_PARAM_BIAS].rank != 0, o = lesson->first + k;
    b->channel = o;
    b->yx = lesson->yx + (size_t)k * (size_t)lesson->terms;
    b->w = (const float *)from->param[PTQ_PARAM_WEIGHT].data + (ptrdiff_t)o * lesson->taps;
    b->bias = biased ? ((const float *)from->param[PTQ_PARAM_BIAS].data)[o] : 0;
    b->scale = &b->codes->scale[b->codes->scales > 1 ? o : 0];
    if (ptq__no_weights(b->w, (size_t)lesson->taps, b->high))
        return;
    if (b->refits)
        ptq__refit(b);
    if (b->refits && b->codes->scales > 1)
        ptq__rescale_channel(b);
    if (lesson->rounds)
        ptq__round_channel(b, *b->scale);
    if (biased)
        ptq__learn_bias(b, o);
}

static ptq_status ptq__solve_lesson(const ptq__lesson *lesson, const int64_t *sums,
                                    const ptq_allocator *allocator, ptq_error *err) {
    size_t n = (size_t)lesson->taps, square = lesson->rounds ? n * n : 0;
    ptq__bench b;
    memset(&b, 0, sizeof b);
    b.lesson = lesson;
    b.sums = sums;
    b.codes = &lesson->to->param[PTQ_PARAM_WEIGHT];
    ptq__weight_limits(lesson->scheme, &b.low, &b.high);
    PTQ__TRY(PTQ__NEW(allocator, &b.mean, 4 * n + (lesson->targets ? 2 : 1) * square, "covariance",
                      err));
    b.d = b.mean + n;
    b.g = b.d + n;
    b.fitted = (float *)(b.g + n);
    b.c = b.g + 2 * n;
    b.factor = b.c + square;
    ptq__find_covariance(&b);
    for (int k = 0; k < lesson->each; k++)
        ptq__learn_channel(&b, k);
    ptq__free(allocator, b.mean);
    return PTQ_OK;
}

/* One pass: sums over the images, then lesson after lesson. The plan is of the model as it has
   become so far. */
static ptq_status ptq__learn_pass(ptq__converter *cv, const ptq_plan *real, ptq__lesson *lesson,
                                  int lessons, ptq_error *err) {
    const ptq_work *work = &cv->options->work;
    ptq__learner learner;
    ptq_plan *plan = NULL;
    PTQ__TRY(ptq__plan_model(cv->model, &work->allocator, &plan, err));
    ptq__job job = ptq__job_over(plan, cv->options->images, work);
    memset(&learner, 0, sizeof learner);
    learner.cv = cv;
    learner.real = real;
    learner.lesson = lesson;
    learner.lessons = lessons;
    learner.memory.allocator = work->allocator;
    for (int i = 0; i < lessons; i++)
        ptq__place_sums(&learner, &lesson[i]);
    job.keep = 1;
    job.begin = ptq__learn_begin;
    job.one = ptq__learn_one;
    job.end = ptq__learn_end;
    job.context = &learner;
    ptq_status status = ptq__check_fits(plan, job.data, err);
    PTQ__THEN(status, PTQ__NEW(&work->allocator, &learner.sums, learner.size, "moments", err));
    PTQ__THEN(status, ptq__job_run(&job, err));
    for (int i = 0; i < lessons; i++)
        PTQ__THEN(status, ptq__solve_lesson(&lesson[i], learner.sums, &work->allocator, err));
    ptq__free(&work->allocator, learner.sums);
    ptq_plan_free(plan);
    return status;
}

/* Replaces codes, scales and biases of cv->model wherever a scheme learns. As soon as one layer has
   targets, each has a pass of its own: it learns from what those before it have become. */
static ptq_status ptq__learn(ptq__converter *cv, ptq_error *err) {
    const ptq_allocator *allocator = &cv->options->work.allocator;
    ptq__lesson *lesson = NULL;
    ptq_plan *real = NULL;
    ptq_status status = PTQ_OK;
    size_t groups = 0;
    int k, n = 0, targets = 0;
    for (int i = 0; i < cv->model->nodes; i++)
        groups += ptq__has_weight(cv->model->node[i].op) ? (size_t)cv->model->node[i].groups : 0;
    PTQ__TRY(PTQ__NEW(allocator, &lesson, groups, "lessons", err));
    for (int i = 0; i < cv->model->nodes; i++)
        n += ptq__find_lessons(cv, i, &lesson[n]);
    for (int i = 0; i < n; i++)
        targets = targets || lesson[i].targets;
    if (n)
        status = ptq__check_images(cv, err);
    if (targets)
        PTQ__THEN(status, ptq__plan_model(cv->old, allocator, &real, err));
    for (int i = 0; i < n && !status; i += k) {
        k = targets ? lesson[i].to->groups : n;
        status = ptq__learn_pass(cv, real, &lesson[i], k, err);
    }
    ptq_plan_free(real);
    ptq__free(allocator, lesson);
    return status;
}

/* ---- [SEARCH] -----------------------------------------------------------------------------------
   All searches ask the same question, of model after model: how far are its logits from those of
   the float model, on images that it did not learn from? Float is run once; a model is converted,
   run on the first `measure` images of those given, and compared. The measure is Kullback and
   Leibler's divergence, which sees what happens to an answer long before one changes, and so needs
   few images; where codes alone are compared, the ratio of signal to noise.

   A search stays where it is made: its data sets point into it. */
typedef struct ptq__search {
    const ptq__converter *cv;     /* of the float model */
    size_t done, total;           /* conversions; 0: nobody is told */
    ptq_subset measured, learned; /* the images, in the order of the search */
    ptq_evaluation real;          /* of the float model */
    ptq_memory memory;            /* of the images' indices and hashes */
} ptq__search;

static ptq_status ptq__search_evaluate(const ptq__search *search, const ptq_model *model,
                                       ptq_evaluation *out, ptq_error *err) {
    ptq_evaluate_options options = {ptq__quiet(&search->cv->options->work), 0, 1};
    ptq_plan *plan = NULL;
    PTQ__TRY(ptq__plan_model(model, &options.work.allocator, &plan, err));
    ptq_status status = ptq_evaluate(plan, &search->measured.dataset, &options, out, err);
    ptq_plan_free(plan);
    return status;
}

/* Converts as `options` say, but with the images of the search, and sets the logits beside float's,
   on the same images. `range`: see ptq__converter. */
static ptq_status ptq__search_try(ptq__search *search, const ptq_convert_options *options,
                                  ptq_status (*convert)(ptq__converter *cv, ptq_error *err),
                                  ptq__interval *range, ptq_comparison *out, ptq_error *err) {
    const ptq_work *work = &search->cv->options->work;
    ptq_convert_options own = *options;
    ptq__converter trial = *search->cv;
    ptq_evaluation measured;
    PTQ__FAIL_IF(search->total && work->progress &&
                     work->progress(work->user, search->done, search->total),
                 PTQ_CANCELLED, "cancelled after %zu of %zu models", search->done, search->total);
    search->done++;
    own.images = &search->learned.dataset;
    own.work = ptq__quiet(work);
    trial.options = &own;
    trial.range = range;
    PTQ__TRY(convert(&trial, err));
    ptq_status status = ptq__search_evaluate(search, trial.model, &measured, err);
    ptq_model_free(trial.model);
    PTQ__TRY(status);
    status = ptq_compare(&search->real, &measured, out, err);
    ptq_release(&measured.memory);
    return status;
}

static void ptq__search_close(ptq__search *search) {
    ptq_release(&search->real.memory);
    ptq_release(&search->memory);
}

/* Indices of images, whose hashes are the context. */
static int ptq__hash_before(const void *a, const void *b, const void *context) {
    const uint64_t *hash = (const uint64_t *)context;
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return hash[x] != hash[y] ? hash[x] < hash[y] : x < y;
}

/* Begins by measuring the float model. The images are taken in the order of their hashes: whoever
   takes the first of them takes the same ones, whatever the order they came in, and they are as
   good as drawn. The first `measure` are measured on, `learn` more learned from. To be closed after
   a failure too. */
static ptq_status ptq__search_open(ptq__search *search, const ptq__converter *cv, size_t measure,
                                   size_t learn, ptq_error *err) {
    const ptq_dataset *images = cv->options->images;
    size_t *indices = NULL;
    uint64_t *hash = NULL;
    void *item = NULL;
    int label;
    memset(search, 0, sizeof *search);
    search->cv = cv;
    search->memory.allocator = cv->options->work.allocator;
    PTQ__TRY(PTQ__KEEP(&search->memory, &indices, images->count, "indices", err));
    PTQ__TRY(PTQ__KEEP(&search->memory, &hash, images->count, "hashes", err));
    PTQ__TRY(ptq__keep(&search->memory, ptq__item_size(images), 1, "an image", &item, err));
    for (size_t i = 0; i < images->count; i++) {
        PTQ__TRY(images->get(images->user, i, item, &label, err));
        hash[i] = ptq__item_hash(images, item);
        indices[i] = i;
    }
    ptq__sort(indices, images->count, sizeof *indices, ptq__hash_before, hash);
    PTQ__TRY(ptq_subset_open(&search->measured, images, indices, measure, err));
    PTQ__TRY(ptq_subset_open(&search->learned, images, indices + measure, learn, err));
    return ptq__search_evaluate(search, cv->old, &search->real, err);
}

/* Fitting ranges. The range of one tensor after the other is made smaller or larger as long as the
   logits come closer to float's: a smaller one clips more and rounds less, and which of the two
   hurts depends on all that comes behind, which no rule for one tensor can know. */

enum { PTQ__FIT_IMAGES = 256 };

/* The range of tensor t: 15 % smaller, up to three times, as long as that is better than `most`,
   the SQNR of the logits so far in dB; where it never was, larger. */
static ptq_status ptq__fit_tensor(ptq__search *search, const ptq_convert_options *options,
                                  ptq__interval *range, int t, double *most, ptq_error *err) {
    static const float factor[] = {0.85f, 1.15f};
    ptq_comparison tried;
    double before = *most;
    for (int way = 0; way < 2 && !(*most > before); way++)
        for (int k = 0; k < 3; k++) {
            ptq__interval kept = range[t];
            range[t].low *= factor[way];
            range[t].high *= factor[way];
            PTQ__TRY(ptq__search_try(search, options, ptq__convert_model, range, &tried, err));
            if (!(tried.sqnr_db > *most)) {
                range[t] = kept;
                break;
            }
            *most = tried.sqnr_db;
        }
    return PTQ_OK;
}

/* The scheme without what learns, fast to convert with: weights are plain and of 8 bits, so that it
   is the activations that decide. */
static int ptq__to_fit_with(ptq_scheme *scheme) {
    scheme->rounding = PTQ_ROUNDING_NEAREST;
    scheme->refit = PTQ_REFIT_NEVER;
    scheme->equalize = scheme->fit_ranges = scheme->confirm = 0;
    scheme->bias = PTQ_BIAS_CORRECTION_NONE;
    scheme->weight_bits = 8;
    scheme->weight_method = PTQ_METHOD_MINMAX;
    return 1;
}

/* Fills cv->range, which is to be freed, after a failure too. The first model tried fills in the
   scheme's ranges. */
static ptq_status ptq__fit_ranges(ptq__converter *cv, ptq_error *err) {
    size_t count = cv->options->images->count, tensors = (size_t)cv->calibration->tensors;
    size_t measure = count < PTQ__FIT_IMAGES ? count : (size_t)PTQ__FIT_IMAGES;
    ptq_convert_options options;
    ptq_comparison first;
    ptq__search search;
    PTQ__TRY(PTQ__NEW(&cv->options->work.allocator, &cv->range, tensors, "ranges", err));
    PTQ__TRY(ptq__change_schemes(cv->options, ptq__to_fit_with, &options, err));
    ptq_status status = ptq__search_open(&search, cv, measure, 0, err);
    PTQ__THEN(status,
              ptq__search_try(&search, &options, ptq__convert_model, cv->range, &first, err));
    for (int t = 0; t < cv->calibration->tensors && !status; t++)
        if (cv->range[t].high > cv->range[t].low)
            status = ptq__fit_tensor(&search, &options, cv->range, t, &first.sqnr_db, err);
    ptq__search_close(&search);
    ptq__free(&options.work.allocator, (void *)(uintptr_t)options.override);
    return status;
}

/* Puts the equalized model in the place of cv->old, and of its calibration its own, since ranges
   are others now. Both are to be freed. The images were accepted before. */
static ptq_status ptq__equalize_first(ptq__converter *cv, ptq_model **equalized,
                                      ptq_calibration **calibration, ptq_error *err) {
    const ptq_dataset *images = cv->options->images;
    ptq_calibrate_options options = {ptq__quiet(&cv->options->work), 1};
    ptq_plan *plan = NULL;
    PTQ__TRY(ptq__plan_model(cv->old, &options.work.allocator, &plan, err));
    ptq_status status = ptq__equalize(plan, images, &options.work, equalized, err);
    ptq_plan_free(plan);
    PTQ__TRY(status);
    PTQ__TRY(ptq__plan_model(*equalized, &options.work.allocator, &plan, err));
    status = ptq_calibrate(plan, images, &options, calibration, err);
    ptq_plan_free(plan);
    cv->old = *equalized;
    cv->calibration = *calibration;
    return status;
}

/* Converts as decided: equalizes, fits ranges, converts what has become of the float model, and
   learns on what has become of that. */
static ptq_status ptq__convert_decided(ptq__converter *cv, ptq_error *err) {
    const ptq_scheme *scheme = &cv->options->scheme;
    int equalizes = ptq__below_8(scheme, scheme->equalize);
    int fits = ptq__below_8(scheme, scheme->fit_ranges);
    ptq__converter now = *cv;
    ptq_model *equalized = NULL;
    ptq_calibration *calibration = NULL;
    ptq_status status = equalizes || fits ? ptq__check_images(cv, err) : PTQ_OK;
    now.range = NULL;
    now.model = NULL;
    if (equalizes)
        PTQ__THEN(status, ptq__equalize_first(&now, &equalized, &calibration, err));
    if (fits)
        PTQ__THEN(status, ptq__fit_ranges(&now, err));
    PTQ__THEN(status, ptq__convert_model(&now, err));
    PTQ__THEN(status, ptq__learn(&now, err));
    PTQ__THEN(status, ptq_model_check(now.model, err)); /* accumulators of the final codes */
    ptq__free(&cv->options->work.allocator, now.range);
    ptq_calibration_free(calibration);
    ptq_model_free(equalized);
    PTQ__FINISH(status, ptq_model_free(now.model), now.model, &cv->model);
}

/* ---- [CONFIRM] ----------------------------------------------------------------------------------
   What usually helps does not always. Each choice of a scheme is left out in turn, and stays out if
   the model is then no farther from float on a quarter of the images, which nothing was learned
   from. One after the other, since 2^4 models would be tried otherwise; first those that the others
   build on least, so that what is decided later is decided for what is left.

   A choice has a name, and a function that leaves it out of a scheme and returns 0 if that changes
   nothing. */

static int ptq__without_fitted_ranges(ptq_scheme *s) {
    int changes = ptq__below_8(s, s->fit_ranges);
    s->fit_ranges = 0;
    return changes;
}

static int ptq__without_equalization(ptq_scheme *s) {
    int changes = ptq__below_8(s, s->equalize);
    s->equalize = 0;
    return changes;
}

static int ptq__without_refit(ptq_scheme *s) {
    int changes = s->mode == PTQ_MODE_INTEGER && ptq__refits(s);
    s->refit = PTQ_REFIT_NEVER;
    return changes;
}

static int ptq__without_learning(ptq_scheme *s) {
    int changes = s->mode == PTQ_MODE_INTEGER && s->rounding == PTQ_ROUNDING_LEARNED;
    s->rounding = PTQ_ROUNDING_NEAREST;
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
    int open = ptq__choices[k].leave_out(&scheme);
    for (int i = 0; i < options->overrides; i++) {
        scheme = options->override[i].scheme;
        open = ptq__choices[k].leave_out(&scheme) || open;
    }
    return open;
}

/* Five decimals are enough for people. */
static double ptq__rounded(double value) { return (double)(float)(floor(value * 1e5 + 0.5) / 1e5); }

/* Leaves out of `decided` what does not help, and says so, in the manner of "refitted weights: KL
   0.0513, without 0.1021"; "no ..." for what was left out. */
static ptq_status ptq__decide(ptq__search *search, ptq_convert_options *decided, ptq__text *said,
                              ptq_error *err) {
    ptq_comparison least, cost;
    search->total = 1;
    for (int k = 0; k < PTQ__CHOICES; k++)
        search->total += (size_t)ptq__is_open(decided, k);
    ptq_status status = ptq__search_try(search, decided, ptq__convert_decided, NULL, &least, err);
    for (int k = 0; k < PTQ__CHOICES && !status; k++) {
        ptq_convert_options without, worse;
        if (!ptq__is_open(decided, k))
            continue;
        PTQ__TRY(ptq__change_schemes(decided, ptq__choices[k].leave_out, &without, err));
        status = ptq__search_try(search, &without, ptq__convert_decided, NULL, &cost, err);
        int stays = status || cost.kl > least.kl;
        worse = stays ? without : *decided;
        if (!status)
            ptq__put(said, "%s%s%s: KL %g, without %g", said->length ? "; " : "",
                     stays ? "" : "no ", ptq__choices[k].name, ptq__rounded(least.kl),
                     ptq__rounded(cost.kl));
        if (!stays) {
            *decided = without;
            least = cost;
        }
        ptq__free(&worse.work.allocator, (void *)(uintptr_t)worse.override);
    }
    return status;
}

/* No choice may end in a scheme of zeros, which would be "best". */
static int ptq__mark_decided(ptq_scheme *scheme) {
    scheme->confirm = 0;
    scheme->weight_bits = ptq__weight_bits(scheme);
    return 1;
}

/* Decides on a quarter of the images, then converts with all of them. The decisions go into the
   metadata. */
static ptq_status ptq__convert_confirmed(ptq__converter *cv, ptq_error *err) {
    size_t slice = cv->options->images->count / 4, rest = cv->options->images->count - slice;
    char outcome[240];
    ptq__text said = ptq__text_over(outcome, sizeof outcome);
    ptq_convert_options decided;
    ptq__search search;
    ptq__converter confirmed = *cv;
    rest = rest < PTQ__CONFIRM_LEARN ? rest : (size_t)PTQ__CONFIRM_LEARN;
    PTQ__TRY(ptq__check_images(cv, err));
    PTQ__TRY(ptq__change_schemes(cv->options, ptq__mark_decided, &decided, err));
    ptq_status status = ptq__search_open(&search, cv, slice, rest, err);
    PTQ__THEN(status, ptq__decide(&search, &decided, &said, err));
    ptq__search_close(&search);
    confirmed.options = &decided;
    PTQ__THEN(status, ptq__convert_decided(&confirmed, err));
    if (said.length)
        PTQ__THEN(status, ptq_model_set_meta(confirmed.model, "confirmed", outcome, err));
    ptq__free(&decided.work.allocator, (void *)(uintptr_t)decided.override);
    PTQ__FINISH(status, ptq_model_free(confirmed.model), confirmed.model, &cv->model);
}

/* The entry from part one: a search decides first whether it has what it needs. */
static ptq_status ptq__convert_searched(ptq__converter *cv, ptq_error *err) {
    const ptq_convert_options *options = cv->options;
    int confirms = options->scheme.confirm && options->scheme.mode == PTQ_MODE_INTEGER;
    return confirms && cv->calibration && options->images &&
                   options->images->count >= PTQ__CONFIRM_LEAST
               ? ptq__convert_confirmed(cv, err)
               : ptq__convert_decided(cv, err);
}

#endif /* PTQ_NO_SEARCH, PTQ_RUN_ONLY */

/* ---- [LEFT OUT] ---------------------------------------------------------------------------------
   What a macro left out says so, and by which macro, where it has a status to say it with; other
   functions are then not declared. All of these end in an error, so the list gives what comes
   before it, with a letter for a name. */
#if defined(PTQ_NO_SEARCH) || defined(PTQ_RUN_ONLY)
#ifdef PTQ_RUN_ONLY
#define PTQ__OUT_BY "PTQ_RUN_ONLY"
#else
#define PTQ__OUT_BY "PTQ_NO_SEARCH"
#endif
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif
#define PTQ__LEFT_OUT(name, ...)                                                                   \
    PTQ_API ptq_status name(__VA_ARGS__, ptq_error *err) {                                         \
        return ptq_error_set(err, PTQ_UNSUPPORTED, "%s was left out by the macro %s", #name,       \
                             PTQ__OUT_BY);                                                         \
    }
/* clang-format off */
PTQ__LEFT_OUT(ptq_equalize_like, const ptq_model *m, const ptq_model *q, ptq_model **o)
#ifdef PTQ_RUN_ONLY
PTQ__LEFT_OUT(ptq_fuse, const ptq_model *m, ptq_model **o, ptq_fuse_report *r)
PTQ__LEFT_OUT(ptq_observer_create, ptq_observer *o, const ptq_allocator *a)
PTQ__LEFT_OUT(ptq_observe, ptq_observer *o, const float *v, size_t n)
PTQ__LEFT_OUT(ptq_observer_range, const ptq_observer *o, ptq_method m, float p, ptq_type t, int b,
              int s, float *l, float *h)
PTQ__LEFT_OUT(ptq_calibration_merge, ptq_calibration *c, const ptq_calibration *o)
PTQ__LEFT_OUT(ptq_calibrate, const ptq_plan *p, const ptq_dataset *d,
              const ptq_calibrate_options *o, ptq_calibration **out)
PTQ__LEFT_OUT(ptq_calibration_overlap, const ptq_calibration *c, const ptq_dataset *d, size_t *o)
PTQ__LEFT_OUT(ptq_preset, const char *n, ptq_scheme *o)
PTQ__LEFT_OUT(ptq_scheme_check, const ptq_scheme *s)
PTQ__LEFT_OUT(ptq_convert, const ptq_model *m, const ptq_calibration *c,
              const ptq_convert_options *o, ptq_model **out, ptq_convert_report *r)
PTQ__LEFT_OUT(ptq_self_test_add, ptq_model *m)
PTQ__LEFT_OUT(ptq_cifar10_parse, const void *b, size_t s, const ptq_allocator *a, ptq_cifar10 **o)
PTQ__LEFT_OUT(ptq_sample, const ptq_dataset *d, size_t c, uint64_t s, size_t *i,
              const ptq_allocator *a)
PTQ__LEFT_OUT(ptq_subset_open, ptq_subset *s, const ptq_dataset *b, const size_t *i, size_t c)
PTQ__LEFT_OUT(ptq_evaluate, const ptq_plan *p, const ptq_dataset *d, const ptq_evaluate_options *o,
              ptq_evaluation *out)
PTQ__LEFT_OUT(ptq_compare, const ptq_evaluation *b, const ptq_evaluation *q, ptq_comparison *o)
PTQ__LEFT_OUT(ptq_archive_add, ptq_archive *a, const char *n, const ptq_tensor *t)
PTQ__LEFT_OUT(ptq_archive_set_meta, ptq_archive *a, const char *k, const char *v)
PTQ__LEFT_OUT(ptq_archive_write, const ptq_archive *a, void **b, size_t *s)
PTQ__LEFT_OUT(ptq_model_write, const ptq_model *m, void **b, size_t *s)
PTQ__LEFT_OUT(ptq_calibration_write, const ptq_calibration *c, void **b, size_t *s)
PTQ__LEFT_OUT(ptq_calibration_parse, const void *b, size_t s, const ptq_allocator *a,
              ptq_calibration **o)
#ifndef PTQ_NO_STDIO
PTQ__LEFT_OUT(ptq_quantize_files, const char *m, const char *d, const char *o, const char *s)
PTQ__LEFT_OUT(ptq_measure_files, const char *m, const char *b, const char *d, ptq_comparison *o)
PTQ__LEFT_OUT(ptq_cifar10_open, const char *p, ptq_split s, const ptq_allocator *a, ptq_cifar10 **o)
PTQ__LEFT_OUT(ptq_model_save, const ptq_model *m, const char *p)
PTQ__LEFT_OUT(ptq_file_write, const char *p, const void *b, size_t s)
PTQ__LEFT_OUT(ptq_calibration_save, const ptq_calibration *c, const char *p)
PTQ__LEFT_OUT(ptq_calibration_load, const char *p, const ptq_allocator *a, ptq_calibration **o)
#endif
/* clang-format on */
#else
static ptq_status ptq__convert_searched(ptq__converter *cv, ptq_error *err) {
    return ptq_error_set(err, PTQ_UNSUPPORTED,
                         "this scheme (%s) learns or searches, which was left out by the macro"
                         " PTQ_NO_SEARCH; the preset minmax8 does neither",
                         cv->options->scheme.confirm ? "best" : "learned");
}
#endif
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

#endif /* PTQ_IMPLEMENTATION_DONE */
#endif /* PTQ_IMPLEMENTATION */

/*
   HISTORY
     0.2.0  four parts; operators in a table; [NET]; enumerators that carry their type, one struct
            for threads and progress, data sets of bytes or real numbers; "best" by default.
            docs/changes.md of the project has old and new names
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
