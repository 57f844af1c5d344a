/* ptq run --tensors: every intermediate tensor of a model. */
#ifndef PTQ_TOOL_TENSORS_H
#define PTQ_TOOL_TENSORS_H

#include "ptq.h"
#include "shared/engine.h"

/* Of all images of `data`, as a .safetensors file. */
int write_tensors(const engine *ready, const ptq_dataset *data, const char *path);

#endif
