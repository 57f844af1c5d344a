/* Random networks for comparing kernels: a convolution of any kind, one more, a third with a fused
   addition, an addition of its own, pools and a depthwise convolution, a dense layer. Needs ptq.h
   with its internals, and nothing else, so that kernels_main.c runs wherever a compiler is. */
#ifndef PROBES_H
#define PROBES_H

#include "../../tools/ptq/measure/kernel_test.h"

typedef struct probe {
    ptq_rng rng;
    ptq__text text; /* of the graph */
    int integer, channels;
    int size[2];   /* of the last tensor's image ... */
    ptq_qparams q; /* ... and its codes */
} probe;

static int probe_pick(probe *p, int low, int high) {
    return low + (int)ptq_rng_below(&p->rng, (uint32_t)(high - low + 1));
}

/* Codes of a tensor, unless it is real. They reach `spread` times as far as those of the last one:
   some values are clamped, most are not. */
static void probe_codes(probe *p, const char *key, float spread) {
    ptq_qparams *q = &p->q;
    int32_t low, high;

    if (!p->integer)
        return;
    spread *= q->scale * (float)(1 << q->bits);
    q->type = probe_pick(p, 0, 1) ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    q->bits = probe_pick(p, 0, 2) ? 8 : probe_pick(p, 2, 8);
    q->scale = spread * (0.5f + ptq_rng_float(&p->rng)) / (float)(1 << q->bits);
    ptq_code_range(q->type, q->bits, &low, &high);
    q->zero_point = probe_pick(p, 0, 3) ? probe_pick(p, low, high) : low;
    ptq__put(&p->text, " %s=%s:%d:%g:%d", key, q->type == PTQ_TYPE_S8 ? "s8" : "u8", q->bits,
             (double)q->scale, (int)q->zero_point);
}

/* The window of a convolution or a pool, of up to `most` a side: kernel, stride, padding. */
static void probe_window(probe *p, int most) {
    int kernel[2], stride[2], pad[4] = {0, 0, 0, 0}, i, kind = probe_pick(p, 0, 2);

    for (i = 0; i < 2; i++) {
        kernel[i] = probe_pick(p, 1, p->size[i] < most ? p->size[i] : most);
        stride[i] = probe_pick(p, 0, 1) ? 1 : probe_pick(p, 1, 3);
        pad[i] = probe_pick(p, 0, kernel[i] - 1);
        pad[i + 2] = probe_pick(p, 0, kernel[i] - 1);
    }
    ptq__put(&p->text, " kernel=%dx%d stride=%dx%d", kernel[0], kernel[1], stride[0], stride[1]);
    if (kind == 1)
        ptq__put_string(&p->text, " pad=valid");
    if (kind == 2)
        ptq__put(&p->text, " pad=%d,%d,%d,%d", pad[0], pad[1], pad[2], pad[3]);
    for (i = 0; i < 2; i++)
        p->size[i] = ptq__window(p->size[i], kernel[i], stride[i],
                                 kind == 0   ? PTQ_PADDING_SAME
                                 : kind == 1 ? PTQ_PADDING_VALID
                                             : PTQ_PADDING_EXPLICIT,
                                 0, &pad[i], &pad[i + 2]);
}

/* How weights and results are coded; weights get a scale of 0.01 when they are filled. */
static void probe_coding(probe *p, int residual, int logits) {
    int bits = probe_pick(p, 0, 2) ? 8 : probe_pick(p, 2, 8);
    float spread = (float)(1 << probe_pick(p, 0, 2)) / 4;

    if (p->integer)
        ptq__put(&p->text, " w=%s%d", probe_pick(p, 0, 2) ? "s" : "u", bits);
    else if (!probe_pick(p, 0, 3))
        ptq__put_string(&p->text, " w=f16");
    if (residual)
        probe_codes(p, "mid", spread);
    if (!logits || probe_pick(p, 0, 1))
        probe_codes(p, "q", residual ? 1 : spread);
}

static void probe_act(probe *p, const char *key) {
    int act = probe_pick(p, 0, 2);

    if (act)
        ptq__put(&p->text, act == PTQ_ACTIVATION_RELU ? " %s=relu" : " %s=relu6", key);
}

/* What works on each channel by itself: a pool, a depthwise convolution, another pool; each at
   times left out, which a pool of one place stands for. */
static void probe_channelwise(probe *p) {
    int largest = probe_pick(p, 0, 1);

    ptq__put(&p->text, "\nf %s in=e", largest ? "max_pool" : "avg_pool");
    probe_window(p, probe_pick(p, 1, 4));
    if (!largest)
        ptq__put(&p->text, " include_pad=%d", probe_pick(p, 0, 1));
    if (largest && p->integer)
        ptq__put(&p->text, " q=%s:%d:%g:%d", p->q.type == PTQ_TYPE_S8 ? "s8" : "u8", p->q.bits,
                 (double)p->q.scale, (int)p->q.zero_point);
    else
        probe_codes(p, "q", 1);
    ptq__put(&p->text, "\ng conv2d in=f channels=%d groups=%d bias=%d", p->channels, p->channels,
             probe_pick(p, 0, 1));
    probe_window(p, 5);
    probe_act(p, "act");
    probe_coding(p, 0, 0);
    ptq__put_string(&p->text, "\nh avg_pool in=g");
    probe_window(p, 2);
    probe_codes(p, "q", 1);
}

static void probe_graph(probe *p) {
    ptq__text *text = &p->text;
    int depthwise = !probe_pick(p, 0, 5), square = probe_pick(p, 1, 3);
    int groups = depthwise ? probe_pick(p, 2, 40) : (probe_pick(p, 0, 3) ? 1 : probe_pick(p, 2, 3));
    int in = depthwise ? 1 : probe_pick(p, 1, probe_pick(p, 0, 2) ? 8 : 40);
    int out = depthwise ? 1 : probe_pick(p, 1, probe_pick(p, 0, 2) ? 20 : 40);

    p->size[0] = probe_pick(p, 1, 6);
    p->size[1] = probe_pick(p, 1, probe_pick(p, 0, 3) ? 10 : 40);
    p->q.scale = 300; /* of a tensor of one code */
    p->channels = groups * out;
    ptq__put(text, "ptq-graph 1\ninput input shape=%dx%dx%d", p->size[0], p->size[1], groups * in);
    probe_codes(p, "q", 1);
    ptq__put(text, "\na conv2d in=input channels=%d groups=%d", p->channels, groups);
    probe_window(p, 4);
    probe_act(p, "act");
    probe_coding(p, 0, 0);
    ptq__put(text, "\nb conv2d in=a channels=%d kernel=%dx%d bias=%d", p->channels, square, square,
             probe_pick(p, 0, 1));
    probe_coding(p, 0, 0);
    ptq__put(text, "\nc conv2d in=b,a channels=%d kernel=%dx1 add=%s", p->channels, square,
             probe_pick(p, 0, 1) ? "first" : "second");
    probe_act(p, "act");
    probe_act(p, "add_act");
    probe_coding(p, 1, 0);
    ptq__put(text, " out=sum\ne add in=%s", probe_pick(p, 0, 1) ? "b,c" : "c,b");
    probe_act(p, "act");
    probe_codes(p, "q", 1);
    probe_channelwise(p);
    ptq__put_string(text, "\npool global_avg_pool in=h");
    probe_codes(p, "q", 1);
    ptq__put(text, "\nd dense in=pool channels=%d", probe_pick(p, 1, 40));
    probe_coding(p, 0, 1);
    ptq__put_char(text, '\n');
}

static ptq_status probe_model(uint64_t seed, int integer, ptq_model **out, ptq_error *error) {
    char text[2048];
    probe p;

    memset(&p, 0, sizeof p);
    ptq_rng_seed(&p.rng, seed, (uint64_t)integer);
    p.text = ptq__text_over(text, sizeof text);
    p.integer = integer;
    probe_graph(&p);
    return random_model(text, &p.rng, out, error);
}

/* The logits of a run that reuses memory are those of one that keeps all tensors. */
static ptq_status probe_reuse(ptq_isa isa, const ptq_model *model, ptq_error *error) {
    static uint8_t pixels[6 * 40 * 120];
    float logits[2][40];
    ptq_plan *plan = NULL;
    ptq_plan_options options;
    ptq_status status;
    int k;

    memset(&options, 0, sizeof options);
    options.isa = isa;
    for (k = 0; k < (int)sizeof pixels; k++)
        pixels[k] = (uint8_t)(k * 37 + k / 11);
    status = ptq_plan_create(model, &options, &plan, error);
    for (k = 0; k < 2 && !status; k++) {
        ptq_session_options keep;
        ptq_session *session = NULL;

        memset(&keep, 0, sizeof keep);
        keep.keep = k;
        status = ptq_session_create(plan, &keep, &session, error);
        if (!status)
            status = ptq_run(session, pixels, 1, logits[k], NULL, error);
        ptq_session_free(session);
    }
    if (!status &&
        memcmp(logits[0], logits[1], (size_t)ptq_plan_get_info(plan)->classes * sizeof(float)))
        status = ptq_error_set(error, PTQ_BAD_NUMBER, "the %s kernels depend on where tensors lie",
                               ptq_name(PTQ_NAMES_ISA, isa));
    ptq_plan_free(plan);
    return status;
}

/* One random network under the scalar kernels and under those of `isa`. */
static ptq_status probe_once(ptq_isa isa, uint64_t seed, int integer, ptq_error *error) {
    ptq_model *model = NULL;
    ptq_rng rng;
    ptq_status status = probe_model(seed, integer, &model, error);

    ptq_rng_seed(&rng, seed, 7);
    if (!status)
        status = compare_kernels(isa, model, &rng, error);
    if (!status)
        status = probe_reuse(isa, model, error);
    ptq_model_free(model);
    return status;
}

#endif
