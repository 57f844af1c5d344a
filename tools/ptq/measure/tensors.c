/* ptq run --tensors: every intermediate tensor of a model, for comparing with other programs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "measure/tensors.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/output.h"

/* One tensor of all images, one behind the other: N x H x W x C. */
typedef struct stack {
    char name[PTQ_NAME_SIZE];
    ptq_tensor tensor;
    size_t bytes; /* of one image */
} stack;

typedef struct stacks {
    stack *item;
    int count;
} stacks;

static int add_stack(stacks *all, const ptq_session *session, const char *name, size_t images) {
    stack *made = &all->item[all->count];
    ptq_tensor view;
    int dims[PTQ_MAX_RANK] = {(int)images};
    ptq_error err;

    if (ptq_session_tensor(session, name, &view, &err))
        return fail("%s", err.text);
    memcpy(dims + 1, view.dim, 3 * sizeof(int));
    if (ptq_tensor_create(&made->tensor, view.type, view.bits, 4, dims, NULL, &err))
        return fail("tensor %s of %zu images: %s; give fewer", name, images, err.text);
    snprintf(made->name, sizeof made->name, "%s", name);
    made->bytes = view.size;
    all->count++;
    return 0;
}

/* A convolution with a fused addition has two results, and two names. */
static int add_stacks(stacks *all, const ptq_session *session, const ptq_model *model,
                      size_t images) {
    all->item = calloc(2 * (size_t)model->nodes, sizeof *all->item);
    if (!all->item)
        return fail("no memory for the tensors");
    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];

        if ((node->residual && add_stack(all, session, node->name, images)) ||
            add_stack(all, session, node->out, images))
            return 1;
    }
    return 0;
}

static int copy_tensors(stacks *all, const ptq_session *session, size_t image) {
    ptq_tensor view;
    ptq_error err;

    for (int i = 0; i < all->count; i++) {
        stack *to = &all->item[i];

        if (ptq_session_tensor(session, to->name, &view, &err))
            return fail("%s", err.text);
        memcpy((char *)to->tensor.data + image * to->bytes, view.data, to->bytes);
    }
    return 0;
}

static int run_kept(const engine *ready, const ptq_dataset *data, ptq_session *session, void *item,
                    stacks *all) {
    int label, status = 0;
    ptq_error err;

    for (size_t i = 0; i < data->count && !status; i++) {
        if (data->get(data->user, i, item, &label, &err) ||
            data_run(session, data, item, NULL, &err))
            return fail("%s", err.text);
        if (i == 0)
            status = add_stacks(all, session, ready->model, data->count);
        if (!status)
            status = copy_tensors(all, session, i);
    }
    return status;
}

static int save_stacks(const stacks *all, const char *path) {
    ptq_archive *archive = NULL;
    ptq_error err;
    int failed = ptq_archive_create(NULL, &archive, &err) != PTQ_OK;

    for (int i = 0; i < all->count && !failed; i++)
        failed = ptq_archive_add(archive, all->item[i].name, &all->item[i].tensor, &err) != PTQ_OK;
    failed = failed ? fail("%s", err.text) : save_archive(archive, path);
    ptq_archive_free(archive);
    return failed;
}

static void free_stacks(stacks *all) {
    for (int i = 0; i < all->count; i++)
        ptq_tensor_free(&all->item[i].tensor, NULL);
    free(all->item);
}

int write_tensors(const engine *ready, const ptq_dataset *data, const char *path) {
    void *item = malloc(data_item_bytes(data));
    ptq_session_options keep = {0};
    ptq_session *session = NULL;
    stacks all = {NULL, 0};
    ptq_error err;
    int status = 0;

    keep.keep = 1;
    if (!item)
        status = fail("no memory for an image");
    else if (ptq_session_create(ready->plan, &keep, &session, &err))
        status = fail("%s", err.text);
    if (!status)
        status = run_kept(ready, data, session, item, &all) || save_stacks(&all, path);
    if (!status)
        say_written(path, "%d tensors of %zu images", all.count, data->count);
    free_stacks(&all);
    ptq_session_free(session);
    free(item);
    return status;
}
