/* Models as C headers (c_header.c). */
#ifndef PTQ_TOOL_C_HEADER_H
#define PTQ_TOOL_C_HEADER_H

/* Writes the model file at `model_path` as a header; `name` is what its functions begin with, NULL:
   made from the name of `out_path`. 0, or 1 after an error on standard error. */
int export_c_header(const char *model_path, const char *out_path, const char *name, int standalone);

#endif
