/* bench_layers [SECONDS [ISA]]: layers of ImageNet networks, one image on one thread: microseconds,
   multiply-adds per nanosecond, and the share of what the processor's multiply-add instruction can
   do, measured beside it. Medians and least values; weights and images are random numbers.

   Each layer stands in a network of its own, behind a convolution that makes its input and before a
   pool, so that it finds its input in the session as layers of whole networks do; only the layer is
   timed. The instruction set is the best one, or ISA. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layers.h"
#include "measure/kernel_test.h"
#include "measure/peak.h"
#include "measure/team.h"
#include "ptq.h"
#include "shared/machine.h"

enum { MOST_RUNS = 2000, WARM_UP = 3, LAYER = 2 /* its node */ };

typedef struct layer {
    const char *name;
    int size, in, out, kernel, stride, groups;
} layer;

static const layer layers[] = {
#define X(...) {__VA_ARGS__},
    BENCH_LAYERS(X)
#undef X
};

static double stamp[LAYER + 1];

static void stamp_node(void *user, int node) {
    (void)user;
    if (node <= LAYER)
        stamp[node] = seconds_now();
}

static void describe(const layer *l, int integer, char *text, size_t size) {
    const char *w = integer ? " w=s8" : "", *q = integer ? " q=u8:8:0.02:0" : "";
    snprintf(text, size,
             "ptq-graph 1\ninput input shape=%dx%dx3%s\n"
             "a conv2d in=input channels=%d kernel=1x1 act=relu%s%s\n"
             "b conv2d in=a channels=%d kernel=%dx%d stride=%dx%d groups=%d act=relu%s%s\n"
             "c global_avg_pool in=b%s\nd dense in=c channels=2%s\n",
             l->size, l->size, integer ? " q=u8:8:1:0" : "", l->in, w, q, l->out, l->kernel,
             l->kernel, l->stride, l->stride, l->groups, w, q, q, w);
}

/* Median and least microseconds of the layer. */
static ptq_status time_layer(const layer *l, int integer, ptq_isa isa, double seconds,
                             double took[2], ptq_error *err) {
    static uint8_t pixels[224 * 224 * 3];
    static double run[MOST_RUNS];
    ptq_plan_options options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_session_options watch;
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    ptq_status status;
    ptq_rng rng;
    char text[600];
    float logits[2];
    int n = 0;

    memset(&watch, 0, sizeof watch);
    watch.after_node = stamp_node;
    options.isa = isa;
    ptq_rng_seed(&rng, 42, 0);
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(ptq_rng_next(&rng) >> 24);
    describe(l, integer, text, sizeof text);
    status = random_model(text, &rng, &model, err);
    if (!status)
        status = ptq_plan_create(model, &options, &plan, err);
    if (!status)
        status = ptq_session_create(plan, &watch, &session, err);
    for (double begin = 0; !status && n < MOST_RUNS + WARM_UP; n++) {
        if (n == WARM_UP)
            begin = seconds_now();
        if (n > WARM_UP && seconds_now() - begin > seconds)
            break;
        status = ptq_run(session, pixels, 1, logits, NULL, err);
        if (n >= WARM_UP)
            run[n - WARM_UP] = (stamp[LAYER] - stamp[LAYER - 1]) * 1e6;
    }
    n -= WARM_UP;
    if (!status && n > 0) {
        took[0] = median_of(run, (size_t)n); /* sorts them */
        took[1] = run[0];
    }
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_model_free(model);
    return status;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1, took[2] = {0, 0}, peak[2];
    int isa = argc > 2 ? ptq_find_name(PTQ_NAMES_ISA, argv[2]) : PTQ_ISA_COUNT - 1;
    ptq_error err;

    while (argc < 3 && ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
        isa--;
    if (argc > 3 || !(seconds > 0) || isa < 0 ||
        ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE) {
        fprintf(stderr,
                "usage: bench_layers [SECONDS [ISA]], an instruction set of this machine\n");
        return 2;
    }
    for (int integer = 0; integer < 2; integer++) {
        const peak_unit *unit = peak_find((ptq_isa)isa, integer);
        peak[integer] = unit ? peak_measure(unit, 0.2) : 0;
    }
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (int integer = 0; integer < 2; integer++) {
            const layer *l = &layers[i];
            int side = (l->size + l->stride - 1) / l->stride;
            double macs = (double)side * side * l->out * l->kernel * l->kernel * l->in / l->groups;
            if (time_layer(l, integer, (ptq_isa)isa, seconds, took, &err)) {
                fprintf(stderr, "bench_layers: %s\n", err.text);
                return 1;
            }
            printf("LAYER ptq %s %.2f %.2f %.1f %.1f %s\n", integer ? "int8" : "float", took[0],
                   took[1], macs / took[0] * 1e-3,
                   peak[integer] > 0 ? 100 * macs / took[0] * 1e-3 / peak[integer] : 0, l->name);
            fflush(stdout);
        }
    return 0;
}
