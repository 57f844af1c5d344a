/* What import and export answer to .onnx in a build without protobuf-c, its compiler or
   onnx.proto. */
#include "onnx/onnx.h"

#ifndef PTQ_HAVE_onnx

static int onnx_missing(void) {
    return fail(".onnx files need protobuf-c, protoc-c and onnx.proto (Debian: libprotobuf-c-dev, "
                "protobuf-c-compiler, libonnx-dev); install them and build again");
}

int import_onnx(const char *path, ptq_model **out) {
    (void)path, (void)out;
    return onnx_missing();
}

int export_onnx(const char *model_path, const char *out_path, const char *form) {
    (void)model_path, (void)out_path, (void)form;
    return onnx_missing();
}

#endif
