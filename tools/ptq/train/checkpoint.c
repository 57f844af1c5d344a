/* The checkpoint: everything that the rest of a run depends on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ptq.h"
#include "shared/files.h"
#include "shared/output.h"
#include "train/checkpoint.h"
#include "train/run.h"

static int add_vector(ptq_archive *to, const checkpoint_vector *v, ptq_error *err) {
    int dim = (int)v->count;
    ptq_tensor vector;

    return ptq_tensor_borrow(&vector, PTQ_TYPE_F32, 32, 1, &dim, v->values,
                             v->count * sizeof *v->values, err) ||
           ptq_archive_add(to, v->name, &vector, err);
}

static int fill(ptq_archive *to, const checkpoint_vector *vector, int vectors,
                const checkpoint_texts *texts, ptq_error *err) {
    for (int i = 0; i < vectors; i++)
        if (add_vector(to, &vector[i], err))
            return 1;
    return ptq_archive_set_meta(to, "settings", texts->settings, err) ||
           ptq_archive_set_meta(to, "position", texts->position, err) ||
           (texts->history && ptq_archive_set_meta(to, "history", texts->history, err));
}

int checkpoint_write(const char *path, const checkpoint_vector *vector, int vectors,
                     const checkpoint_texts *texts) {
    ptq_archive *archive = NULL;
    ptq_error err;
    int failed;

    failed = ptq_archive_create(NULL, &archive, &err) || fill(archive, vector, vectors, texts, &err)
                 ? fail("%s", err.text)
                 : save_archive(archive, path);
    ptq_archive_free(archive);
    return failed;
}

static const char *find_text(const ptq_archive *archive, const char *key) {
    for (int i = 0; i < archive->metas; i++)
        if (strcmp(archive->meta[i].key, key) == 0)
            return archive->meta[i].value;
    return "";
}

static int restore_vector(const char *path, const ptq_archive *archive,
                          const checkpoint_vector *to) {
    const ptq_tensor *from = ptq_archive_find(archive, to->name);

    if (!from || from->type != PTQ_TYPE_F32 || ptq_tensor_elements(from) != to->count)
        return fail("%s: no vector '%s' of %zu numbers; it is not a checkpoint of this network",
                    path, to->name, to->count);
    memcpy(to->values, from->data, to->count * sizeof *to->values);
    return 0;
}

int checkpoint_read(const char *path, const char *wanted, const checkpoint_vector *vector,
                    int vectors, checkpoint_texts *texts, ptq_archive **archive) {
    *archive = NULL;
    if (access(path, F_OK) != 0)
        return 0;
    if (read_archive(path, archive))
        return 1;
    texts->settings = find_text(*archive, "settings");
    texts->position = find_text(*archive, "position");
    texts->history = find_text(*archive, "history");
    if (strcmp(texts->settings, wanted) != 0)
        return fail("%s is of a run with other settings: %.400s", path, texts->settings);
    for (int i = 0; i < vectors; i++)
        if (restore_vector(path, *archive, &vector[i]))
            return 1;
    return 0;
}

int checkpoint_refuse_resume(int resume, const char *path) {
    return resume && !path ? fail("--resume needs --checkpoint FILE") : 0;
}

/* ---- Of a run of ptq train ---- */

enum { RUN_VECTORS = 4 };

static void run_vectors(run *r, checkpoint_vector vector[RUN_VECTORS]) {
    size_t n = r->descent.size;

    vector[0] = (checkpoint_vector){"state", trainer_state(r->engine), n};
    vector[1] = (checkpoint_vector){"first", r->descent.first, n};
    vector[2] = (checkpoint_vector){"second", r->descent.second, n};
    vector[3] = (checkpoint_vector){"average", r->descent.average, n};
}

int checkpoint_save(run *r) {
    checkpoint_vector vector[RUN_VECTORS];
    char position[256];
    const checkpoint_texts texts = {r->text, position, r->history};

    if (!r->options.checkpoint)
        return 0;
    run_vectors(r, vector);
    /* %a: all bits of the sum */
    snprintf(position, sizeof position, "%llu %llu %llu %llu %a", (unsigned long long)r->epoch,
             (unsigned long long)r->step, (unsigned long long)r->descent.steps,
             (unsigned long long)r->correct, r->loss);
    return checkpoint_write(r->options.checkpoint, vector, RUN_VECTORS, &texts);
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

static int restore_history(run *r, const char *text) {
    char *history = strdup(text);

    if (!history)
        return fail("no memory");
    free(r->history);
    r->history = history;
    return 0;
}

int checkpoint_load(run *r) {
    checkpoint_vector vector[RUN_VECTORS];
    checkpoint_texts texts;
    ptq_archive *archive;
    int status;

    if (!r->options.resume || !r->options.checkpoint)
        return checkpoint_refuse_resume(r->options.resume, r->options.checkpoint);
    run_vectors(r, vector);
    status =
        checkpoint_read(r->options.checkpoint, r->text, vector, RUN_VECTORS, &texts, &archive) ||
        (archive && (restore_history(r, texts.history) || restore_position(r, texts.position)));
    ptq_archive_free(archive);
    return status;
}
