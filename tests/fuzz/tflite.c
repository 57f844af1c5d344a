/* Fuzz target: any bytes as a TensorFlow Lite file. */
#include "imported.h"
#include "import/tflite.h" /* the tool's */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const tflite_options options = {NULL, 0};
    ptq_model *model = NULL;
    int status = import_tflite(put_into_file(data, size), &options, &model);

    return check_imported(status, model);
}
