/* What the fuzz targets of arrays share: an array that a header describes can be read. */
#include "data/array.h"
#include "fuzz.h"

static data_bytes bytes_over(const uint8_t *data, size_t size) {
    data_bytes bytes = {0};

    bytes.where = "input";
    bytes.memory = data;
    bytes.size = size;
    return bytes;
}

/* The first and the last item in every form. All of the elements lie in the input, so what is read
   is never large. */
static void read_array(const data_array *array) {
    size_t n = array_item_elements(array), items = array_items(array);
    uint8_t *pixels = malloc(n);
    float *reals = malloc(n * sizeof *reals);
    int *labels = malloc(items * sizeof *labels);

    expect(n && items && pixels && reals && labels);
    for (size_t i = 0; i<items; i += items> 1 ? items - 1 : 1) {
        array_bytes(array, i, pixels, &err);
        if (!array_reals(array, i, reals, &err))
            for (size_t k = 0; k < n; k++)
                expect(reals[k] - reals[k] == 0); /* finite */
    }
    if (!array_labels(array, labels, &err))
        for (size_t i = 0; i < items; i++)
            expect(labels[i] >= -1);
    free(pixels);
    free(reals);
    free(labels);
}
