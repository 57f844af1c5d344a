/* safetensors files of other programs (torch.c). */
#ifndef PTQ_TOOL_TORCH_H
#define PTQ_TOOL_TORCH_H

#include "ptq.h"

typedef struct torch_options {
    const char *map;     /* file of rules that translate names; NULL: none */
    const char *graph;   /* file with the network's graph; NULL: ResNet8 */
    const char *epsilon; /* of ResNet8's batch norms; NULL: from the file, or its makers' default */
} torch_options;

/* The model of a safetensors file, ours or others'; 0, or 1 after an error on standard error, where
   *out may hold a model that is to be freed all the same. */
int read_torch(const char *path, const torch_options *options, ptq_model **out);

#endif
