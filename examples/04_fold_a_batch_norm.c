/* Folds a batch norm into the convolution before it, by hand and by ptq_fuse, and compares.

       build/04_fold_a_batch_norm
*/
#include <math.h>
#include <stdio.h>

#define PTQ_IMPLEMENTATION
#include "../ptq.h"

enum { SIZE = 6, CHANNELS = 4, TAPS = 3 * 3 * 3 };

/* conv, batch norm, ReLU on a small picture. The epsilon is Keras's; a wrong one is a classic way
   to lose accuracy without noticing. */
static ptq_status build(ptq_model **out, ptq_error *err) {
    ptq_conv_options conv = {0};
    int at;

    if (ptq_model_create(NULL, out, err))
        return err->status;
    conv.channels = CHANNELS;
    conv.kernel_h = 3;
    at = ptq_add_input(*out, "input", SIZE, SIZE, 3);
    at = ptq_add_conv2d(*out, "conv", at, &conv);
    at = ptq_add_batch_norm(*out, "bn", at, 1e-3f);
    ptq_add_op(*out, PTQ_OP_RELU, "relu", at);
    return ptq_model_check(*out, err);
}

/* Numbers from low to low + width: nothing was trained here. */
static void fill(ptq_model *model, const char *name, ptq_rng *rng, float low, float width) {
    ptq_tensor *t = ptq_model_param(model, name);
    size_t i;

    for (i = 0; i < ptq_tensor_elements(t); i++)
        ((float *)t->data)[i] = low + width * ptq_rng_float(rng);
}

static void fill_all(ptq_model *model) {
    ptq_rng rng;

    ptq_rng_seed(&rng, 1, 0);
    fill(model, "conv.weight", &rng, -0.3f, 0.6f);
    fill(model, "conv.bias", &rng, -0.1f, 0.2f);
    fill(model, "bn.weight", &rng, 0.5f, 1.0f);
    fill(model, "bn.bias", &rng, -1.0f, 2.0f);
    fill(model, "bn.running_mean", &rng, -20.0f, 40.0f);
    fill(model, "bn.running_var", &rng, 50.0f, 900.0f);
}

static float value(ptq_model *model, const char *name, int i) {
    return ptq_tensor_real(ptq_model_param(model, name), (size_t)i);
}

/* y = gamma (w x + b - mean) / sqrt(var + eps) + beta is again a convolution, of w g and
   (b - mean) g + beta, with g = gamma / sqrt(var + eps). */
static float fold_by_hand(ptq_model *model, ptq_model *fused) {
    float worst = 0;
    int c, i;

    printf("channel       g      bias before  after\n");
    for (c = 0; c < CHANNELS; c++) {
        double g = (double)value(model, "bn.weight", c) /
                   sqrt((double)value(model, "bn.running_var", c) + 1e-3);
        double b = (double)(value(model, "conv.bias", c) - value(model, "bn.running_mean", c)) * g +
                   (double)value(model, "bn.bias", c);

        printf("%7d  %7.4f  %10.4f  %9.4f\n", c, g, (double)value(model, "conv.bias", c), b);
        worst = fmaxf(worst, fabsf((float)b - value(fused, "conv.bias", c)));
        for (i = c * TAPS; i < (c + 1) * TAPS; i++)
            worst = fmaxf(worst, fabsf((float)((double)value(model, "conv.weight", i) * g) -
                                       value(fused, "conv.weight", i)));
    }
    return worst;
}

static ptq_status run(const ptq_model *model, const uint8_t *pixels, float *result,
                      ptq_error *err) {
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;

    if (!ptq_plan_create(model, NULL, &plan, err) && !ptq_session_create(plan, NULL, &session, err))
        ptq_run(session, pixels, 1, result, NULL, err);
    ptq_session_free(session);
    ptq_plan_free(plan);
    return err->status;
}

int main(void) {
    static float before[SIZE * SIZE * CHANNELS], after[SIZE * SIZE * CHANNELS];
    uint8_t pixels[SIZE * SIZE * 3];
    ptq_model *model = NULL, *fused = NULL;
    ptq_error err = {0};
    float worst = 0, largest = 0;
    int i;

    for (i = 0; i < SIZE * SIZE * 3; i++)
        pixels[i] = (uint8_t)(37 * i);
    if (!build(&model, &err)) {
        fill_all(model);
        if (!ptq_fuse(model, &fused, NULL, &err) && !run(model, pixels, before, &err))
            run(fused, pixels, after, &err);
    }
    if (err.status)
        return fprintf(stderr, "%s\n", err.text), 1;
    printf("nodes: %d before, %d after\n", model->nodes, fused->nodes);
    if (fold_by_hand(model, fused) < 1e-6f)
        printf("By hand and by ptq_fuse all parameters are the same to within 1e-6.\n");
    for (i = 0; i < SIZE * SIZE * CHANNELS; i++) {
        worst = fmaxf(worst, fabsf(before[i] - after[i]));
        largest = fmaxf(largest, before[i]);
    }
    if (worst < 1e-4f)
        printf("Results up to %.2f are the same to within 1e-4: rounding, nothing else.\n",
               (double)largest);
    ptq_model_free(fused);
    ptq_model_free(model);
    return worst > 1e-4f * largest;
}
