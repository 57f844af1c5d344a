/* Keras files, .h5 and .keras. */
#ifndef PTQ_TOOL_KERAS_H
#define PTQ_TOOL_KERAS_H

#include "ptq.h"

/* The model of such a file, ResNet8 with the names that it has here; 0, or 1 after an error on
   standard error. */
int read_keras(const char *path, ptq_model **out);

/* Whether that is a directory with TensorFlow's other format, of functions without layers. */
int is_saved_model(const char *path);

#endif
