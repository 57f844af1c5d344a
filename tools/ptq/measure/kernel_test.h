/* Vector kernels beside the scalar ones. Nothing but ptq.h is needed, so that tests can take this
   to machines that have no more. Functions return PTQ_BAD_NUMBER with the tensor that differs. */
#ifndef PTQ_TOOL_KERNEL_TEST_H
#define PTQ_TOOL_KERNEL_TEST_H

#include "ptq.h"

enum { MOST_TEST_PIXELS = 6 * 40 * 120 }; /* of a network's input */

/* A model from its graph text, with random weights and biases of the types that it names. */
ptq_status random_model(const char *text, ptq_rng *rng, ptq_model **out, ptq_error *err);

/* One tensor, which two sessions have kept: equal where `exact` is set, else within 1e-4 of its
   largest number. */
ptq_status compare_kept(const ptq_session *scalar, const ptq_session *other, const char *name,
                        int exact, ptq_error *err);

/* All tensors of a run on random pixels, from 0 to 255 or only these two. What a network of
   integers computes must be equal. */
ptq_status compare_kernels(ptq_isa isa, const ptq_model *model, ptq_rng *rng, ptq_error *err);

/* Nine random networks, always the same, in a tenth of a second. */
ptq_status test_kernels(ptq_isa isa, ptq_error *err);

#endif
