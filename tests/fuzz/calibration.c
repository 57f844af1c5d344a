/* Fuzz target: any bytes as a calibration file. What parses is written, parsed, written again and
   merged. */
#include <string.h>

#include "fuzz.h"

/* One rule and one width a time: searching for all ranges would take most of the fuzzer's time. */
static void choose_range(const ptq_observer *observer, size_t turn) {
    float low, high;

    if (ptq_observer_range(observer, (ptq_method)(turn % PTQ_METHOD_COUNT), 0, PTQ_TYPE_U8,
                           2 + (int)(turn / PTQ_METHOD_COUNT % 7), 0, &low, &high, &err))
        expect(err.text[0]);
    else
        expect(low <= 0 && high >= 0);
}

static void write_again(ptq_calibration *seen) {
    ptq_calibration *again = NULL;
    void *bytes = NULL, *twice = NULL;
    size_t length = 0, second = 0;

    expect(!ptq_calibration_write(seen, &bytes, &length, &err));
    expect(!ptq_calibration_parse(bytes, length, NULL, &again, &err));
    expect(!ptq_calibration_write(again, &twice, &second, &err));
    expect(second == length && !memcmp(bytes, twice, length));
    ptq_calibration_merge(seen, again, &err);
    ptq_bytes_free(bytes, NULL);
    ptq_bytes_free(twice, NULL);
    ptq_calibration_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ptq_calibration *seen = NULL;
    char text[512];

    if (ptq_calibration_parse(data, size, NULL, &seen, &err)) {
        expect(err.text[0]);
        return 0;
    }
    choose_range(&seen->tensor[0].observer, size);
    ptq_calibration_warnings(seen, text, sizeof text);
    write_again(seen);
    ptq_calibration_free(seen);
    return 0;
}
