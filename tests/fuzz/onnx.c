/* Fuzz target: any bytes as an ONNX file. What can be imported is a model that a file can hold. */
#include "into_file.h"

/* The tool's; tools/ptq/onnx/onnx.h, without the libraries that it needs. */
int import_onnx(const char *path, ptq_model **out);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ptq_model *model = NULL, *again = NULL;
    void *bytes = NULL;
    size_t length = 0;

    if (import_onnx(put_into_file(data, size), &model))
        return 0;
    expect(!ptq_model_check(model, &err));
    expect(!ptq_model_write(model, &bytes, &length, &err));
    expect(!ptq_model_parse(bytes, length, NULL, &again, &err));
    expect(ptq_model_hash(model) == ptq_model_hash(again));
    ptq_bytes_free(bytes, NULL);
    ptq_model_free(again);
    ptq_model_free(model);
    return 0;
}
