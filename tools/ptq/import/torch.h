/* safetensors files of other programs (torch.c). */
#ifndef PTQ_TOOL_TORCH_H
#define PTQ_TOOL_TORCH_H

#include "import/assume.h"
#include "ptq.h"

typedef struct torch_options {
    const char *map;   /* file of rules that translate names; NULL: none */
    const char *graph; /* file with the network's graph; NULL: ResNet8 */
    int whole;         /* set: the file brought a graph of its own */
} torch_options;

/* The model of a safetensors file, ours or others'; 0, or 1 after an error on standard error, where
   *out may hold a model that is to be freed all the same. `open`: for ResNet8 alone. */
int read_torch(const char *path, torch_options *options, assumed *open, ptq_model **out);

#endif
