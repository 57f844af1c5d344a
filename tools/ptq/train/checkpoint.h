/* Checkpoints: files of vectors and texts, from which work that was interrupted goes on. */
#ifndef PTQ_TOOL_TRAIN_CHECKPOINT_H
#define PTQ_TOOL_TRAIN_CHECKPOINT_H

#include <stddef.h>

#include "ptq.h"

typedef struct checkpoint_vector {
    const char *name;
    float *values;
    size_t count;
} checkpoint_vector;

/* `settings`: what decides the result; `position`: how far the work is; `history`: what else was
   seen on the way, or NULL. */
typedef struct checkpoint_texts {
    const char *settings, *position, *history;
} checkpoint_texts;

int checkpoint_write(const char *path, const checkpoint_vector *vector, int vectors,
                     const checkpoint_texts *texts);

/* Vectors and texts from the file, whose settings must be those wanted; the texts live in *archive,
   which is to be freed (ptq_archive_free), after an error too. *archive stays NULL where there is
   no such file yet. */
int checkpoint_read(const char *path, const char *wanted, const checkpoint_vector *vector,
                    int vectors, checkpoint_texts *texts, ptq_archive **archive);

/* What a --resume says without a checkpoint. */
int checkpoint_refuse_resume(int resume, const char *path);

#endif
