/* threads_main    Many threads under one model and one plan for each instruction set that is here,
                   each thread with sessions of its own; and the library's own threads. Every result
                   must be the one of a single thread. Built with -fsanitize=thread by
                   check_threads.sh, which also sees what raced and did no harm. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define PTQ_IMPLEMENTATION
#define PTQ_THREADS
#include "ptq.h"

enum { SIDE = 8, CLASSES = 4, IMAGES = 40, THREADS = 6, ROUNDS = 3 };

static ptq_error err;

#define expect(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #condition, err.text); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static uint8_t pixels[IMAGES][SIDE * SIDE * 3];

static ptq_status get_image(void *user, size_t index, void *out, int *label, ptq_error *e) {
    (void)user, (void)e;
    memcpy(out, pixels[index], sizeof pixels[index]);
    *label = (int)index % CLASSES;
    return PTQ_OK;
}

static ptq_dataset draw_images(void) {
    ptq_dataset data;
    ptq_rng rng;
    size_t i, k;

    memset(&data, 0, sizeof data);
    ptq_rng_seed(&rng, 4, 0);
    for (i = 0; i < IMAGES; i++)
        for (k = 0; k < sizeof pixels[i]; k++)
            pixels[i][k] = (uint8_t)(k * (i + 3) + ptq_rng_below(&rng, 60));
    data.count = IMAGES;
    data.height = data.width = SIDE;
    data.channels = 3;
    data.classes = CLASSES;
    data.type = PTQ_TYPE_U8;
    data.get = get_image;
    return data;
}

static ptq_model *make_network(void) {
    ptq_model *model = NULL, *fused = NULL;
    ptq_rng rng;
    size_t k;
    int i;

    expect(!ptq_resnet8(SIDE, 4, CLASSES, NULL, &model, &err));
    ptq_rng_seed(&rng, 1, 0);
    for (i = 0; i < model->nodes; i++)
        for (k = 0; k < ptq_tensor_elements(&model->node[i].param[PTQ_PARAM_WEIGHT]); k++)
            ((float *)model->node[i].param[PTQ_PARAM_WEIGHT].data)[k] = ptq_rng_float(&rng) - 0.45f;
    expect(!ptq_fuse(model, &fused, NULL, &err));
    ptq_model_free(model);
    return fused;
}

/* ---- Sessions of many threads ---- */

typedef struct shared {
    const ptq_model *model;
    ptq_plan *plan[PTQ_ISA_COUNT]; /* NULL where there is none */
    float logits[PTQ_ISA_COUNT][IMAGES * CLASSES];
} shared;

static void run_images(const ptq_plan *plan, float *logits) {
    ptq_session *session = NULL;
    ptq_error e;

    if (ptq_session_create(plan, NULL, &session, &e) ||
        ptq_run(session, pixels[0], IMAGES, logits, NULL, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    ptq_session_free(session);
}

static void run_and_compare(const shared *all, const ptq_plan *plan, int isa) {
    float logits[IMAGES * CLASSES];

    run_images(plan, logits);
    if (memcmp(logits, all->logits[isa], sizeof logits)) {
        fprintf(stderr, "%s: other logits than from one thread\n",
                ptq_name(PTQ_NAMES_ISA, (unsigned)isa));
        exit(1);
    }
}

/* Shared plans, and one of the thread's own from the shared model. */
static void *work(void *user) {
    const shared *all = (const shared *)user;
    int round, isa;

    for (round = 0; round < ROUNDS; round++)
        for (isa = 0; isa < PTQ_ISA_COUNT; isa++) {
            ptq_plan_options options;
            ptq_plan *own = NULL;

            if (!all->plan[isa])
                continue;
            run_and_compare(all, all->plan[isa], isa);
            memset(&options, 0, sizeof options);
            options.isa = (ptq_isa)isa;
            if (ptq_plan_create(all->model, &options, &own, NULL))
                exit(1);
            run_and_compare(all, own, isa);
            ptq_plan_free(own);
        }
    return NULL;
}

static int share(const ptq_model *model) {
    static shared all;
    pthread_t thread[THREADS];
    int isa, i, sets = 0;

    memset(&all, 0, sizeof all);
    all.model = model;
    for (isa = PTQ_ISA_SCALAR; isa < PTQ_ISA_COUNT; isa++) {
        ptq_plan_options options;

        if (ptq_isa_support((ptq_isa)isa) != PTQ_SUPPORT_AVAILABLE)
            continue;
        memset(&options, 0, sizeof options);
        options.isa = (ptq_isa)isa;
        expect(!ptq_plan_create(model, &options, &all.plan[isa], &err));
        run_images(all.plan[isa], all.logits[isa]);
        sets++;
    }
    for (i = 0; i < THREADS; i++)
        expect(!pthread_create(&thread[i], NULL, work, &all));
    for (i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (isa = 0; isa < PTQ_ISA_COUNT; isa++)
        ptq_plan_free(all.plan[isa]);
    return sets;
}

/* ---- The library's own threads: whatever their number, the same bytes ---- */

static void *calibrated(const ptq_plan *plan, const ptq_dataset *data, int threads,
                        ptq_calibration **out, size_t *size) {
    ptq_calibrate_options options;
    void *bytes = NULL;

    memset(&options, 0, sizeof options);
    options.accept_any = 1;
    options.work.threads = threads;
    expect(!ptq_calibrate(plan, data, &options, out, &err));
    expect(!ptq_calibration_write(*out, &bytes, size, &err));
    return bytes;
}

static ptq_model *converted(const ptq_model *fused, const ptq_calibration *seen,
                            const ptq_dataset *data, int threads) {
    ptq_convert_options options;
    ptq_model *made = NULL;

    memset(&options, 0, sizeof options);
    expect(!ptq_preset("w4a8", &options.scheme, &err));
    options.scheme.activation_bits = 5;
    options.scheme.equalize = 1;
    options.scheme.refit = PTQ_REFIT_ALWAYS;
    options.images = data;
    options.work.threads = threads;
    expect(!ptq_convert(fused, seen, &options, &made, NULL, &err));
    return made;
}

static void evaluate_both(const ptq_model *model, const ptq_dataset *data) {
    ptq_evaluate_options options;
    ptq_evaluation one, many;
    ptq_plan *plan = NULL;

    memset(&options, 0, sizeof options);
    expect(!ptq_plan_create(model, NULL, &plan, &err));
    expect(!ptq_evaluate(plan, data, &options, &one, &err));
    options.work.threads = THREADS;
    expect(!ptq_evaluate(plan, data, &options, &many, &err));
    expect(!memcmp(one.logits, many.logits, IMAGES * CLASSES * sizeof(float)));
    expect(one.correct == many.correct);
    ptq_release(&one.memory);
    ptq_release(&many.memory);
    ptq_plan_free(plan);
}

static ptq_model *spread(const ptq_model *fused, const ptq_dataset *data) {
    ptq_calibration *seen[2] = {NULL, NULL};
    ptq_model *made[2];
    ptq_plan *plan = NULL;
    void *bytes[2];
    size_t size[2];
    int i;

    expect(!ptq_plan_create(fused, NULL, &plan, &err));
    for (i = 0; i < 2; i++) {
        bytes[i] = calibrated(plan, data, i ? THREADS : 1, &seen[i], &size[i]);
        made[i] = converted(fused, seen[i], data, i ? THREADS : 1);
    }
    expect(size[0] == size[1] && !memcmp(bytes[0], bytes[1], size[0]));
    expect(ptq_model_hash(made[0]) == ptq_model_hash(made[1]));
    for (i = 0; i < 2; i++) {
        ptq_bytes_free(bytes[i], NULL);
        ptq_calibration_free(seen[i]);
    }
    ptq_model_free(made[0]);
    ptq_plan_free(plan);
    evaluate_both(fused, data);
    evaluate_both(made[1], data);
    return made[1];
}

int main(void) {
    ptq_dataset data = draw_images();
    ptq_model *fused = make_network(), *integer = spread(fused, &data);
    int sets = share(fused);

    share(integer);
    printf("%d threads on %d instruction sets, and %d of the library's: as with one\n", THREADS,
           sets, THREADS);
    ptq_model_free(integer);
    ptq_model_free(fused);
    return 0;
}
