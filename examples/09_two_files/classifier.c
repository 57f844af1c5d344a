/* The one file that holds the implementation: it alone is slow to compile, and only once. */
#include <stdio.h>
#include <stdlib.h>

#define PTQ_IMPLEMENTATION
#include "../../ptq.h"

#include "classifier.h"

struct classifier {
    ptq_model *model, *fused;
    ptq_plan *plan;
    ptq_session *session;
};

classifier *classifier_open(const char *model, char *reason, size_t size) {
    classifier *c = calloc(1, sizeof *c);
    ptq_error err = {PTQ_OUT_OF_MEMORY, "no memory"};

    if (c && !ptq_model_load(model, NULL, &c->model, &err) &&
        !ptq_fuse(c->model, &c->fused, NULL, &err) &&
        !ptq_plan_create(c->fused, NULL, &c->plan, &err) &&
        !ptq_session_create(c->plan, NULL, &c->session, &err))
        return c;
    snprintf(reason, size, "%s", err.text);
    classifier_close(c);
    return NULL;
}

void classifier_close(classifier *c) {
    if (!c)
        return;
    ptq_session_free(c->session);
    ptq_plan_free(c->plan);
    ptq_model_free(c->fused);
    ptq_model_free(c->model);
    free(c);
}

int classifier_run(classifier *c, const unsigned char *pixels) {
    int best;

    return ptq_classify(c->session, pixels, 1, &best, NULL) ? -1 : best;
}
