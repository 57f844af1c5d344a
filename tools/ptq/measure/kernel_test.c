/* Vector kernels beside the scalar ones, on random networks: what ptq info --cpu runs, and what the
   tests build on, with networks of their own. */
#include <math.h>
#include <string.h>

#include "kernel_test.h"

/* Networks with every kind of layer that has vector kernels: on codes of either kind, with weights
   that do and do not fit bytes, and on real numbers; of sizes that fill vectors and tiles and leave
   parts of them. */
static const char *const networks[] = {
    "ptq-graph 1\ninput input shape=9x21x3 q=u8:8:1:3\n"
    "a conv2d in=input channels=40 kernel=3x3 w=s8 act=relu q=u8:8:2:0\n"
    "b conv2d in=a channels=40 kernel=3x3 stride=2x1 pad=1,1,1,1 w=s8 q=s8:8:1:-9\n"
    "c conv2d in=b channels=40 kernel=3x3 bias=0 w=s8 q=s8:8:1:5\n"
    "d conv2d in=c,b channels=40 kernel=1x1 w=s7 mid=s8:8:1:5 q=u8:8:1:90 add=first out=sum\n"
    "e conv2d in=sum channels=40 groups=40 kernel=3x3 stride=2x2 w=s8 q=u8:8:1:7\n"
    "f max_pool in=e kernel=2x3 q=u8:8:1:7\ng dense in=f channels=11 w=s8\n",
    "ptq-graph 1\ninput input shape=6x17x15 q=s8:8:1:-3\n"
    "a conv2d in=input channels=21 groups=3 kernel=2x3 w=u8 q=s8:8:2:-50 act=relu6\n"
    "b conv2d in=a channels=21 kernel=1x4 stride=1x2 pad=valid w=u5 q=u8:8:2:100\n"
    "c conv2d in=a channels=21 kernel=1x4 stride=1x2 pad=valid w=s2 q=u8:8:2:80\n"
    "e add in=c,b act=relu q=u8:6:8:20\nf avg_pool in=e kernel=3x2 q=u8:7:4:9\n"
    "g conv2d in=f channels=21 groups=21 kernel=2x5 w=u8 q=s8:8:3:1\n"
    "h global_avg_pool in=g q=s8:8:1:7\ni dense in=h channels=33 w=s8 q=u8:8:1:128\n",
    "ptq-graph 1\ninput input shape=7x18x5\n"
    "a conv2d in=input channels=24 kernel=3x3 act=relu w=f16\n"
    "b conv2d in=a channels=24 groups=24 kernel=5x3 stride=1x2 act=relu6\n"
    "c conv2d in=b channels=24 kernel=3x3\nd conv2d in=c,b channels=24 kernel=1x1 add=second "
    "out=s\n"
    "e add in=c,s act=relu\nf max_pool in=e kernel=3x3 stride=2x2\ng avg_pool in=f kernel=2x2\n"
    "h global_avg_pool in=g\ni dense in=h channels=19\n"};

static int is_integer(const ptq_tensor *t) {
    return t->type != PTQ_TYPE_F32 && t->type != PTQ_TYPE_F16;
}

/* Biases, and integer weights anywhere in their range or at its ends only. */
static void fill_codes(ptq_tensor *w, ptq_tensor *b, int32_t low, int32_t high, ptq_rng *rng) {
    int rails = !ptq_rng_below(rng, 4);
    for (size_t i = 0; i < ptq_tensor_elements(b); i++)
        ((int32_t *)b->data)[i] = (int32_t)ptq_rng_below(rng, 10001) - 5000;
    for (size_t i = 0; i < ptq_tensor_elements(w); i++) {
        int32_t code = low + (int32_t)ptq_rng_below(rng, (uint32_t)(high - low + 1));
        ptq_tensor_set_code(w, i, !rails ? code : code > (low + high) / 2 ? high : low);
    }
}

/* The same as real numbers, of which a result's sum stays near 1. */
static void fill_reals(ptq_tensor *w, ptq_tensor *b, float reach, ptq_rng *rng) {
    for (size_t i = 0; i < ptq_tensor_elements(b); i++)
        ((float *)b->data)[i] = ptq_rng_float(rng) - 0.5f;
    for (size_t i = 0; i < ptq_tensor_elements(w); i++) {
        float real = (ptq_rng_float(rng) - 0.5f) * reach;
        if (w->type == PTQ_TYPE_F16)
            ((uint16_t *)w->data)[i] = ptq_f32_to_f16(real);
        else
            ((float *)w->data)[i] = real;
    }
}

static ptq_status fill_node(ptq_model *model, ptq_node *node, ptq_rng *rng, ptq_error *err) {
    ptq_tensor *w = &node->param[PTQ_PARAM_WEIGHT], *b = &node->param[PTQ_PARAM_BIAS];
    int is_signed = w->type == PTQ_TYPE_S8 || w->type == PTQ_TYPE_PACKED_S;
    float reach = w->rank ? 1 / sqrtf((float)(ptq_tensor_elements(w) / (size_t)w->dim[0])) : 0;
    float scale = 1.28f * reach / (float)(1 << w->bits % 16);
    int32_t low, high;
    if (!w->rank)
        return PTQ_OK;
    if (!is_integer(w)) {
        fill_reals(w, b, reach, rng);
        return PTQ_OK;
    }
    ptq_code_range(w->type, w->bits, &low, &high);
    fill_codes(w, b, low, high, rng);
    return ptq_tensor_set_scale(w, &scale, 1,
                                is_signed ? 0 : low + (int32_t)ptq_rng_below(rng, 1u << w->bits),
                                &model->allocator, err);
}

ptq_status random_model(const char *text, ptq_rng *rng, ptq_model **out, ptq_error *err) {
    ptq_model *model = NULL;
    ptq_status status = ptq_graph_parse(text, strlen(text), NULL, &model, err);
    for (int i = 1; !status && i < model->nodes; i++)
        status = fill_node(model, &model->node[i], rng, err);
    if (status)
        ptq_model_free(model);
    else
        *out = model;
    return status;
}

ptq_status compare_kept(const ptq_session *scalar, const ptq_session *other, const char *name,
                        int exact, ptq_error *err) {
    ptq_tensor x, y;
    float largest = 0, distance = 0;
    ptq_status status = ptq_session_tensor(scalar, name, &x, err);
    if (!status)
        status = ptq_session_tensor(other, name, &y, err);
    if (status)
        return status;
    for (size_t i = 0; i < ptq_tensor_elements(&x); i++) {
        float u = ptq_tensor_number(&x, i), v = ptq_tensor_number(&y, i);
        largest = fabsf(u) > largest ? fabsf(u) : largest;
        distance = fabsf(u - v) > distance ? fabsf(u - v) : distance;
    }
    if (distance <= (exact ? 0 : 1e-5f + 1e-4f * largest))
        return PTQ_OK;
    return ptq_error_set(err, PTQ_BAD_NUMBER,
                         "kernels differ from the scalar ones by %g in tensor %s", (double)distance,
                         name);
}

/* A run of the model on `pixels` that keeps all tensors; to be closed after a failure too. */
typedef struct kept_run {
    ptq_plan *plan;
    ptq_session *session;
} kept_run;

static ptq_status open_run(kept_run *run, ptq_isa isa, const ptq_model *model,
                           const uint8_t *pixels, ptq_error *err) {
    ptq_plan_options options;
    ptq_session_options keep;
    memset(run, 0, sizeof *run);
    memset(&options, 0, sizeof options);
    memset(&keep, 0, sizeof keep);
    options.isa = isa;
    keep.keep = 1;
    ptq_status status = ptq_plan_create(model, &options, &run->plan, err);
    if (!status)
        status = ptq_session_create(run->plan, &keep, &run->session, err);
    return status ? status : ptq_run(run->session, pixels, 1, NULL, NULL, err);
}

static void close_run(kept_run *run) {
    ptq_session_free(run->session);
    ptq_plan_free(run->plan);
}

ptq_status compare_kernels(ptq_isa isa, const ptq_model *model, ptq_rng *rng, ptq_error *err) {
    static uint8_t pixels[MOST_TEST_PIXELS];
    const int *shape = model->node[0].shape;
    kept_run scalar, other;
    int n = shape[0] * shape[1] * shape[2], exact = model->node[1].q.type != PTQ_TYPE_F32;
    int rails = !ptq_rng_below(rng, 4);
    if (n > MOST_TEST_PIXELS)
        return ptq_error_set(err, PTQ_INVALID_ARGUMENT, "an image of %d numbers is too large", n);
    for (int i = 0; i < n; i++)
        pixels[i] = (uint8_t)(rails ? 255 * ptq_rng_below(rng, 2) : ptq_rng_below(rng, 256));
    ptq_status status = open_run(&scalar, PTQ_ISA_SCALAR, model, pixels, err);
    memset(&other, 0, sizeof other);
    if (!status)
        status = open_run(&other, isa, model, pixels, err);
    for (int k = 1; k < model->nodes && !status; k++) {
        const ptq_node *node = &model->node[k];
        status = compare_kept(scalar.session, other.session, node->name, exact, err);
        if (!status)
            status = compare_kept(scalar.session, other.session, node->out, exact, err);
    }
    close_run(&other);
    close_run(&scalar);
    return status;
}

ptq_status test_kernels(ptq_isa isa, ptq_error *err) {
    ptq_status status = PTQ_OK;
    ptq_rng rng;
    ptq_rng_seed(&rng, 1, 7);
    for (int i = 0; i < 9 && !status; i++) {
        ptq_model *model = NULL;
        status = random_model(networks[i % 3], &rng, &model, err);
        if (!status)
            status = compare_kernels(isa, model, &rng, err);
        ptq_model_free(model);
    }
    return status;
}
