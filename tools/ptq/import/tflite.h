/* TensorFlow Lite files (.tflite). */
#ifndef PTQ_TOOL_TFLITE_H
#define PTQ_TOOL_TFLITE_H

#include "ptq.h"

/* The model of such a file: float, or with 8-bit integers, whose codes, scales and zero points are
   kept as they are. `arithmetic`: which one integers follow, NULL for TensorFlow Lite's usual one.
   0, or 1 after an error on standard error. */
int import_tflite(const char *path, const char *arithmetic, ptq_model **out);

#endif
