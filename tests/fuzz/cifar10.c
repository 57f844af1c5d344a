/* Fuzz target: any bytes as CIFAR-10 records. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t pixels[32 * 32 * 3];
    ptq_cifar10 *set = NULL;
    ptq_dataset view;
    size_t indices[10];
    int label;

    if (ptq_cifar10_parse(data, size, NULL, &set, &err)) {
        expect(err.text[0]);
        return 0;
    }
    view = *ptq_cifar10_dataset(set);
    expect(view.count == size / PTQ_CIFAR10_RECORD);
    expect(!view.get(view.user, view.count - 1, pixels, &label, &err));
    expect(label >= 0 && label < view.classes);
    ptq_sample(&view, view.count < 10 ? view.count : 10, 1, indices, NULL, &err);
    ptq_cifar10_free(set);
    return 0;
}
