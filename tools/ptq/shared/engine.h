/* A model made ready to run. */
#ifndef PTQ_TOOL_ENGINE_H
#define PTQ_TOOL_ENGINE_H

#include <stddef.h>

#include "ptq.h"

/* The instruction set of that name (NULL: $PTQ_ISA, else PTQ_ISA_AUTO). 0, or 1 after an error. */
int choose_isa(const char *name, ptq_isa *out);

typedef struct engine {
    ptq_model *model;
    ptq_plan *plan;
} engine;

/* A model file, fused on request, and its plan for `isa` (NULL: $PTQ_ISA, else the best). */
int engine_open(const char *path, int fuse, const char *isa, engine *out);

/* Whether its integers are ONNX Runtime's, as those of a model are that does not say otherwise. */
int has_onnx_arithmetic(const ptq_model *model);

/* Fused for an arithmetic that it is to be quantized for; NULL: its own. */
int engine_open_fused(const char *path, const char *arithmetic, const char *isa, engine *out);
void engine_close(engine *ready);

/* A model that is in memory already, which then belongs to the engine. */
int engine_adopt(ptq_model *model, const char *isa, engine *out);

/* Checks the self-test vector, where the model has one. */
int engine_self_test(const engine *ready);

/* "float32", "float16", "dynamic int8", "int8", or "w4a8" where not all codes have 8 bits; "mixed"
   where some nodes compute otherwise than others. */
void describe_precision(const ptq_model *model, char *text, size_t size);

#endif
