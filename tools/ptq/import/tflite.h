/* TensorFlow Lite files (.tflite). */
#ifndef PTQ_TOOL_TFLITE_H
#define PTQ_TOOL_TFLITE_H

#include "ptq.h"

typedef struct tflite_options {
    const char *arithmetic; /* which one integers follow; NULL: TensorFlow Lite's usual one */
    int real_weights;       /* codes of weights on real inputs become real numbers */
} tflite_options;

/* The model of such a file: float, or with 8-bit integers, whose codes, scales and zero points are
   kept as they are. 0, or 1 after an error on standard error. */
int import_tflite(const char *path, const tflite_options *options, ptq_model **out);

#endif
