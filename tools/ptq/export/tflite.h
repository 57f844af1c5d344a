/* TensorFlow Lite files (.tflite). */
#ifndef PTQ_TOOL_EXPORT_TFLITE_H
#define PTQ_TOOL_EXPORT_TFLITE_H

/* Writes the model file at `model_path` for TensorFlow Lite: real numbers, or int8 as it runs them.
   0, or 1 after an error on standard error. */
int export_tflite(const char *model_path, const char *out_path);

#endif
