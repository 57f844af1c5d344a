/* Training of a float model: forward in training mode, backward, sums of gradients. */
#ifndef PTQ_TRAINER_H
#define PTQ_TRAINER_H

#include <stddef.h>
#include <stdint.h>

#include "ptq.h"

/* A batch is cut into so many parts, whatever the threads; their gradients are summed in order. So
   a seed gives the same weights with any number of threads. */
#define TRAINER_SHARDS 16

/* Logarithms of step sizes, in quantization-aware training: of the weights; of ptq_node.mid; of
   ptq_node.q. Logarithms (Jain et al. 2020, https://arxiv.org/abs/1903.08066) because a step then
   stays positive and one learning rate suits small and large ones. Then the zero points of the two
   results, in codes, rounded in use. */
enum {
    TRAINER_WEIGHT_STEP = PTQ_PARAM_COUNT,
    TRAINER_MID_STEP,
    TRAINER_STEP,
    TRAINER_MID_ZERO,
    TRAINER_ZERO,
    TRAINER_PARAM_COUNT
};

/* A part of the state vector: one parameter of one node, in the order of the model file. */
typedef struct trainer_param {
    int node, param; /* of the model: PTQ_PARAM_WEIGHT, _BIAS, _MEAN, _VARIANCE, or above */
    size_t offset, count;
    int trained; /* has a gradient; not so statistics, nor a bias that batch norm takes away */
    int decayed; /* weights of convolution and dense layers; not biases, gamma and beta */
    float rate;  /* the learning rate counts times this; from codes: how far one step goes */
} trainer_param;

typedef struct trainer trainer;

typedef struct trainer_options {
    int batch;       /* most images in a step, at least 1 */
    int threads;     /* at least 1 */
    const char *isa; /* NULL: the best; see kernels_find */
    float momentum;  /* of the running statistics: share of the new batch */
    int frozen_norm; /* batch norm uses the running statistics and leaves them alone */
    int from_codes;  /* a quantized model learns on from its own codes, without a source */
    int fixed_zeros; /* then: zero points stay as they are */
} trainer_options;

/* An engine for the model, with a copy of its parameters. The model must outlive it.
   PTQ_UNSUPPORTED names a node that cannot be trained.

   A quantized model is trained with fake quantization under its own scheme: weights and results are
   rounded as its integers would be, and the step sizes are learned (LSQ, Esser et al. 2020), from
   the model's scales on. `source` is the fused float model that it was made from, where the real
   weights come from; NULL for a float model. Batch norm is folded beforehand and not trained, as
   Nagel et al. 2021 (https://arxiv.org/abs/2106.08295, 4.2) advise: what is trained is exactly what
   will run.

   From its own codes, a weight of the state counts in codes, at first the code itself: the middle
   of all that rounds to it, so that none flips by a small step. The zero points of results without
   a ReLU are learned as well (Bhalgat et al. 2020, https://arxiv.org/abs/2004.09576). Layers in
   float are left alone. */
ptq_status trainer_create(const ptq_model *model, const ptq_model *source,
                          const trainer_options *options, trainer **out, ptq_error *err);
void trainer_free(trainer *t);

/* All parameters, one behind the other; and their gradients after a step. */
size_t trainer_size(const trainer *t);
float *trainer_state(trainer *t);
const float *trainer_gradient(const trainer *t);
const trainer_param *trainer_params(const trainer *t, int *count);
int trainer_classes(const trainer *t);

/* Writes image `slot` of the batch, preprocessed, H x W x C, and its label; from any thread. */
typedef struct trainer_source {
    void (*fill)(void *user, int slot, float *image, int *label);
    void *user;
} trainer_source;

typedef struct trainer_result {
    double loss; /* mean over the images */
    int correct;
} trainer_result;

/* One batch: cross entropy of softmax against labels smoothed by `smoothing` (Szegedy et al. 2016,
   https://arxiv.org/abs/1512.00567, 7), and the gradient of its mean. Running statistics move. */
void trainer_step(trainer *t, trainer_source source, int images, float smoothing,
                  trainer_result *out);

/* The same with another loss: Kullback and Leibler's divergence of softmax(logits / temperature) of
   this model from that of a teacher, whose logits are given (images x classes), times the square of
   the temperature (Hinton et al. 2015, https://arxiv.org/abs/1503.02531). Labels count for
   `correct` alone. */
void trainer_step_towards(trainer *t, trainer_source source, int images, const float *logits,
                          float temperature, trainer_result *out);

/* Forward only: the logits, images x classes. */
void trainer_logits(trainer *t, trainer_source source, int images, float *out);

/* PTQ_BAD_NUMBER names the node of a parameter that is not finite, or of a step size that is no
   normal number; and, for a loss that is not finite, the first node whose results are not. A loss
   alone would not show it: ReLU makes zeros of NaN. */
ptq_status trainer_check(const trainer *t, double loss, ptq_error *err);

/* Forward only: the classes that the current state gives to a batch; its labels come back too. */
void trainer_classify(trainer *t, trainer_source source, int images, int *classes, int *labels);

/* He et al. 2015 (https://arxiv.org/abs/1502.01852): normal with variance 2 / fan-in for weights
   before a ReLU; everything else as the builder leaves it. */
void trainer_init(trainer *t, uint64_t seed);

/* Puts a state vector into a model of the same graph: codes and scales where that is quantized. */
ptq_status trainer_export(const trainer *t, const float *state, ptq_model *model, ptq_error *err);

#endif
