/* Fuzz target: any bytes as an ONNX file. */
#include "imported.h"

/* The tool's; tools/ptq/onnx/onnx.h, without the libraries that it needs. */
int import_onnx(const char *path, ptq_model **out);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ptq_model *model = NULL;

    int status = import_onnx(put_into_file(data, size), &model);

    return check_imported(status, model);
}
