/* Fuzz target: any bytes as a calibration file. What parses is written, parsed and merged. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ptq_calibration *seen = NULL, *again = NULL;
    void *bytes = NULL;
    size_t length = 0;
    char text[512];
    float low, high;
    int i, rule;

    if (ptq_calibration_parse(data, size, NULL, &seen, &err)) {
        expect(err.text[0]);
        return 0;
    }
    for (i = 0; i < seen->tensors; i++)
        for (rule = 0; rule < PTQ_RANGE_COUNT; rule++)
            if (!ptq_observer_range(&seen->tensor[i].observer, 0, (ptq_range)rule, 0, PTQ_U8, 8, 0,
                                    &low, &high, &err))
                expect(low <= 0 && high >= 0);
    ptq_calibration_warnings(seen, text, sizeof text);
    expect(!ptq_calibration_write(seen, &bytes, &length, &err));
    expect(!ptq_calibration_parse(bytes, length, NULL, &again, &err));
    ptq_calibration_merge(seen, again, &err);
    ptq_bytes_free(bytes, NULL);
    ptq_calibration_free(again);
    ptq_calibration_free(seen);
    return 0;
}
