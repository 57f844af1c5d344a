"""What of ptq.h Python calls: cffi compares this with the header when it compiles.

Structs show the members that are used; the compiler knows the others ("..."). Every call of a
function releases Python's lock, so that other threads go on.
"""

import os

from cffi import FFI

HERE = os.path.dirname(os.path.abspath(__file__))
# A ptq.h that is compiled already, with PTQ_THREADS, as position-independent code: for tests.
OBJECT = os.environ.get("PTQ_OBJECT")

ffi = FFI()
ffi.cdef(
    """
typedef int... ptq_status;
typedef struct { ptq_status status; char text[...]; ...; } ptq_error;
typedef int... ptq_type;
typedef int... ptq_op;
typedef int... ptq_names;
#define PTQ_NAMES_STATUS ...
#define PTQ_NAMES_PRESET ...
#define PTQ_NAMES_PRESET_TEXT ...
#define PTQ_NAMES_ISA ...
#define PTQ_TYPE_F32 ...
#define PTQ_TYPE_U8 ...
#define PTQ_MODE_FLOAT ...
#define PTQ_NAME_SIZE ...
#define PTQ_CLASS_NAME_SIZE ...
#define PTQ_SPLIT_TRAIN ...
#define PTQ_SPLIT_TEST ...
const char *ptq_name(ptq_names list, unsigned value);
const char *ptq_version(void);

typedef struct { void *block[3]; ...; } ptq_memory;
void ptq_release(ptq_memory *memory);
typedef int (*ptq_progress)(void *user, size_t done, size_t total);
typedef struct { int threads; ptq_progress progress; void *user; ...; } ptq_work;
extern "Python" int show_progress(void *user, size_t done, size_t total);

typedef struct {
    ptq_type type; int rank; int dim[4]; void *data; size_t size; int32_t zero_point; ...;
} ptq_tensor;
size_t ptq_tensor_elements(const ptq_tensor *tensor);
float ptq_tensor_real(const ptq_tensor *tensor, size_t index);

typedef struct { ptq_type type; ...; } ptq_qparams;
typedef struct {
    char name[...]; char out[...]; ptq_op op; int shape[3]; int real; ptq_qparams q; ...;
} ptq_node;
typedef struct { char *key, *value; } ptq_meta;
typedef struct {
    ptq_node *node; int nodes; float mean[...], std[...]; ptq_meta *meta; int metas; ...;
} ptq_model;
typedef struct { uint64_t param_bytes, macs; ...; } ptq_cost;
ptq_status ptq_model_load(const char *path, const void *options, ptq_model **out, ptq_error *err);
ptq_status ptq_model_save(const ptq_model *model, const char *path, ptq_error *err);
ptq_status ptq_model_parse(const void *bytes, size_t size, const void *options, ptq_model **out,
                           ptq_error *err);
ptq_status ptq_model_write(const ptq_model *model, void **bytes, size_t *size, ptq_error *err);
void ptq_bytes_free(void *bytes, const void *allocator);
void ptq_model_free(ptq_model *model);
ptq_status ptq_model_copy(const ptq_model *model, const void *allocator, ptq_model **out,
                          ptq_error *err);
ptq_status ptq_fuse(const ptq_model *model, ptq_model **out, void *report, ptq_error *err);
ptq_cost ptq_node_cost(const ptq_model *model, int node);
size_t ptq_graph_write(const ptq_model *model, char *text, size_t size);
size_t ptq_class_name(const ptq_model *model, int index, char *text, size_t size);
int ptq_model_find(const ptq_model *model, const char *name);

typedef ... ptq_plan;
typedef ... ptq_session;
typedef struct {
    int isa; int classes; ptq_type type; size_t pixels, arena_bytes; ...;
} ptq_plan_info;
typedef struct { int keep; ...; } ptq_session_options;
typedef struct { float *logits, *probabilities; int32_t *codes; int *classes; } ptq_results;
ptq_status ptq_plan_create(const ptq_model *model, const void *options, ptq_plan **out,
                           ptq_error *err);
void ptq_plan_free(ptq_plan *plan);
const ptq_plan_info *ptq_plan_get_info(const ptq_plan *plan);
ptq_status ptq_session_create(const ptq_plan *plan, const ptq_session_options *options,
                              ptq_session **out, ptq_error *err);
void ptq_session_free(ptq_session *session);
ptq_status ptq_run_items(ptq_session *session, ptq_type type, const void *items, size_t count,
                         const ptq_results *out, ptq_error *err);
ptq_status ptq_session_tensor(const ptq_session *session, const char *name, ptq_tensor *view,
                              ptq_error *err);

typedef struct {
    size_t count; int height, width, channels, classes; ptq_type type;
    const char *const *class_name; ...;
} ptq_dataset;
typedef struct { const char *item; const int32_t *label; size_t size; } array_items;
void array_dataset(ptq_dataset *data, array_items *items);
ptq_status read_dataset(const ptq_dataset *data, size_t size, char *item, int32_t *label,
                        ptq_error *err);
ptq_status ptq_sample(const ptq_dataset *data, size_t count, uint64_t seed, size_t *indices,
                      const void *allocator, ptq_error *err);
typedef ... ptq_cifar10;
typedef int... ptq_split;
ptq_status ptq_cifar10_open(const char *path, ptq_split split, const void *allocator,
                            ptq_cifar10 **out, ptq_error *err);
void ptq_cifar10_free(ptq_cifar10 *data);
const ptq_dataset *ptq_cifar10_dataset(const ptq_cifar10 *data);

typedef struct { ptq_work work; int accept_any; } ptq_calibrate_options;
typedef struct { size_t images; ...; } ptq_calibration;
ptq_status ptq_calibrate(const ptq_plan *plan, const ptq_dataset *data,
                         const ptq_calibrate_options *options, ptq_calibration **out,
                         ptq_error *err);
void ptq_calibration_free(ptq_calibration *calibration);
size_t ptq_calibration_warnings(const ptq_calibration *calibration, char *text, size_t size);
ptq_status ptq_calibration_overlap(const ptq_calibration *calibration, const ptq_dataset *data,
                                   size_t *overlap, ptq_error *err);

typedef struct { int mode; int weight_bits, activation_bits; ...; } ptq_scheme;
typedef struct { const char *pattern; ptq_scheme scheme; } ptq_override;
typedef struct {
    ptq_scheme scheme; const ptq_override *override; int overrides; const ptq_dataset *images;
    ptq_work work; ...;
} ptq_convert_options;
ptq_status ptq_preset(const char *name, ptq_scheme *out, ptq_error *err);
ptq_status ptq_convert(const ptq_model *model, const ptq_calibration *calibration,
                       const ptq_convert_options *options, ptq_model **out, void *report,
                       ptq_error *err);
ptq_status ptq_self_test_add(ptq_model *model, ptq_error *err);

typedef struct { ptq_work work; size_t limit; ...; } ptq_evaluate_options;
typedef struct {
    ptq_memory memory; size_t total, correct; int classes; size_t *confusion; int *prediction;
    float *logits; ...;
} ptq_evaluation;
typedef struct {
    size_t total, agree, before, after, lost, won;
    double delta_pp, low_pp, high_pp, p_value, sqnr_db, kl;
} ptq_comparison;
ptq_status ptq_evaluate(const ptq_plan *plan, const ptq_dataset *data,
                        const ptq_evaluate_options *options, ptq_evaluation *out, ptq_error *err);
ptq_status ptq_compare(const ptq_evaluation *baseline, const ptq_evaluation *quantized,
                       ptq_comparison *out, ptq_error *err);
void ptq_share_interval(size_t k, size_t n, double *low, double *high);

typedef struct {
    int y, x, c; int window[3]; int taps, top, left, channel; int *input, *weight;
    int input_zero_point; float input_scale, weight_scale; int bias, sum;
    float multiplier, scaled; int coded; float scale; int zero_point, low, high, code; float value;
    int adds, own_first, residual; float residual_value; float ratio[2]; float shift;
    int added_low, added_high, added_code; float added_value; ...;
} arithmetic;
ptq_status arithmetic_open(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, arithmetic *out, ptq_error *err);
void arithmetic_close(arithmetic *a);
ptq_status explain_element(const ptq_plan *plan, const ptq_session *session, const char *node,
                           int y, int x, int c, char **text, ptq_error *err);
void free(void *pointer);
"""
)
ffi.set_source(
    "ptq._native",
    ("" if OBJECT else "#define PTQ_THREADS\n#define PTQ_IMPLEMENTATION\n")
    + '#include <stdlib.h>\n#include "bridge.h"\n',
    sources=["ptq/c/measure/arithmetic.c", "ptq/c/measure/explain.c"],
    include_dirs=[HERE, os.path.join(HERE, "ptq", "c")],
    extra_compile_args=["-O2", "-ffp-contract=off", "-pthread", "-fvisibility=hidden"],
    extra_link_args=["-pthread"],
    extra_objects=[OBJECT] if OBJECT else [],
    libraries=["m"],
    py_limited_api=True,
)
