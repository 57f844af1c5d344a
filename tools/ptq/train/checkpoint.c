/* The checkpoint: everything that the rest of a run depends on. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/run.h"

static int add_vector(ptq_archive *to, const char *name, float *values, size_t n, ptq_error *err) {
    int dim = (int)n;
    ptq_tensor vector;

    return ptq_tensor_borrow(&vector, PTQ_TYPE_F32, 32, 1, &dim, values, n * sizeof *values, err) ||
           ptq_archive_add(to, name, &vector, err);
}

static int fill_checkpoint(run *r, ptq_archive *to, ptq_error *err) {
    char position[256];
    size_t n = r->descent.size;

    /* %a: all bits of the sum */
    snprintf(position, sizeof position, "%llu %llu %llu %llu %a", (unsigned long long)r->epoch,
             (unsigned long long)r->step, (unsigned long long)r->descent.steps,
             (unsigned long long)r->correct, r->loss);
    return add_vector(to, "state", trainer_state(r->engine), n, err) ||
           add_vector(to, "first", r->descent.first, n, err) ||
           add_vector(to, "second", r->descent.second, n, err) ||
           add_vector(to, "average", r->descent.average, n, err) ||
           ptq_archive_set_meta(to, "settings", r->text, err) ||
           ptq_archive_set_meta(to, "position", position, err) ||
           ptq_archive_set_meta(to, "history", r->history, err);
}

int checkpoint_save(run *r) {
    ptq_archive *archive = NULL;
    ptq_error err;
    int failed;

    if (!r->options.checkpoint)
        return 0;
    failed = ptq_archive_create(NULL, &archive, &err) || fill_checkpoint(r, archive, &err)
                 ? fail("%s", err.text)
                 : save_archive(archive, r->options.checkpoint);
    ptq_archive_free(archive);
    return failed;
}

static const char *checkpoint_meta(const ptq_archive *archive, const char *key) {
    for (int i = 0; i < archive->metas; i++)
        if (strcmp(archive->meta[i].key, key) == 0)
            return archive->meta[i].value;
    return "";
}

static int restore_vector(const run *r, const ptq_archive *archive, const char *name, float *to,
                          size_t n) {
    const ptq_tensor *from = ptq_archive_find(archive, name);

    if (!from || from->type != PTQ_TYPE_F32 || ptq_tensor_elements(from) != n)
        return fail("%s: no vector '%s' of %zu numbers; it is not a checkpoint of this network",
                    r->options.checkpoint, name, n);
    memcpy(to, from->data, n * sizeof *to);
    return 0;
}

static int restore_position(run *r, const char *text) {
    unsigned long long epoch, step, steps, correct;
    double loss;

    if (sscanf(text, "%llu %llu %llu %llu %la", &epoch, &step, &steps, &correct, &loss) != 5 ||
        epoch > (unsigned long long)r->set.epochs || step >= r->steps ||
        steps != epoch * r->steps + step || correct > r->data.count)
        return fail("%s: damaged position '%.80s'; begin anew without --resume",
                    r->options.checkpoint, text);
    r->epoch = epoch;
    r->step = step;
    r->descent.steps = steps;
    r->correct = correct;
    r->loss = loss;
    return 0;
}

static int restore(run *r, const ptq_archive *archive) {
    size_t n = r->descent.size;
    const char *text = checkpoint_meta(archive, "settings");
    char *history;

    if (strcmp(text, r->text) != 0)
        return fail("%s is of a run with other settings: %.400s", r->options.checkpoint, text);
    history = strdup(checkpoint_meta(archive, "history"));
    if (!history)
        return fail("no memory");
    free(r->history);
    r->history = history;
    return restore_vector(r, archive, "state", trainer_state(r->engine), n) ||
           restore_vector(r, archive, "first", r->descent.first, n) ||
           restore_vector(r, archive, "second", r->descent.second, n) ||
           restore_vector(r, archive, "average", r->descent.average, n) ||
           restore_position(r, checkpoint_meta(archive, "position"));
}

int checkpoint_load(run *r) {
    ptq_archive *archive;
    int status;

    if (!r->options.resume)
        return 0;
    if (!r->options.checkpoint)
        return fail("--resume needs --checkpoint FILE");
    if (access(r->options.checkpoint, F_OK) != 0)
        return 0;
    if (read_archive(r->options.checkpoint, &archive))
        return 1;
    status = restore(r, archive);
    ptq_archive_free(archive);
    return status;
}
