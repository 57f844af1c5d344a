/* Keras .h5 files (keras.c). */
#ifndef PTQ_TOOL_KERAS_H
#define PTQ_TOOL_KERAS_H

#include "import/assume.h"
#include "ptq.h"

/* ResNet8 from a Keras .h5 file; 0, or 1 after an error on standard error. */
int read_keras(const char *path, assumed *open, ptq_model **out);

#endif
