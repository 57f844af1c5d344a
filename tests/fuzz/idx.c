/* Fuzz target: any bytes as an IDX file. */
#include "arrays.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    data_bytes bytes = bytes_over(data, size);
    data_array array;

    if (idx_open(&bytes, "input", &array, &err))
        expect(err.text[0]);
    else
        read_array(&array);
    return 0;
}
