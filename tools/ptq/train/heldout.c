/* The held-out images: the accuracy after an epoch; the integers against the fake quantization that
   was trained. */
#include <stdlib.h>
#include <string.h>

#include "measure/accuracy.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/output.h"
#include "train/run.h"

const float *best_state(const run *r) {
    return r->set.optimizer.average > 0 ? r->descent.average : trainer_state(r->engine);
}

/* The held-out images on a model, which belongs to this call. */
static int evaluate_held_out(const run *r, ptq_model *model, ptq_evaluation *out) {
    engine ready;
    int status;

    if (engine_adopt(model, NULL, &ready))
        return 1;
    status =
        evaluate_plan(ready.plan, &r->data.subset.dataset, "held-out", r->options.threads, out);
    engine_close(&ready);
    return status;
}

int heldout_validate(run *r, double *percent) {
    ptq_model *fused = NULL;
    ptq_evaluation result;
    ptq_error err;

    *percent = -1;
    if (!r->set.holdout)
        return 0;
    if (trainer_export(r->engine, best_state(r), r->result, &err) ||
        ptq_fuse(r->result, &fused, NULL, &err))
        return fail("%s", err.text);
    if (evaluate_held_out(r, fused, &result))
        return 1;
    *percent = 100 * fraction(result.correct, result.total);
    ptq_release(&result.memory);
    return 0;
}

static int compare_classes(run *r, const ptq_evaluation *integers) {
    image_batch from = {&r->data, &r->set, 0, 0};
    trainer_source source = {fill_held_out, &from};
    size_t same = 0, right = 0, batch = (size_t)r->set.batch;
    int *class = calloc(2 * batch, sizeof *class), *label = class ? class + batch : NULL;

    if (!class)
        return fail("no memory");
    for (size_t done = 0; done < integers->total; done += batch) {
        size_t n = integers->total - done < batch ? integers->total - done : batch;

        from.first = done;
        trainer_classify(r->engine, source, (int)n, class, label);
        for (size_t i = 0; i < n; i++) {
            same += class[i] == integers->prediction[done + i];
            right += class[i] == label[i];
        }
    }
    free(class);
    say("fake quantization %.2f %%, integers %.2f %%; %zu of %zu held-out answers are the same\n",
        100 * fraction(right, integers->total), 100 * fraction(integers->correct, integers->total),
        same, integers->total);
    return 0;
}

int heldout_compare(run *r) {
    ptq_model *copy = NULL;
    ptq_evaluation result;
    ptq_error err;
    int status;

    if (!r->set.quantized || !r->set.holdout)
        return 0;
    memcpy(trainer_state(r->engine), best_state(r), trainer_size(r->engine) * sizeof(float));
    if (ptq_model_copy(r->result, NULL, &copy, &err))
        return fail("%s", err.text);
    if (evaluate_held_out(r, copy, &result))
        return 1;
    status = compare_classes(r, &result);
    ptq_release(&result.memory);
    return status;
}
