/* Keras files, .h5 and .keras. */
#ifndef PTQ_TOOL_KERAS_H
#define PTQ_TOOL_KERAS_H

#include "import/assume.h"
#include "ptq.h"

/* The model of such a file; ResNet8 with the names that it has here, and for it alone `open`. 0, or
   1 after an error on standard error. */
int read_keras(const char *path, assumed *open, ptq_model **out);

#endif
