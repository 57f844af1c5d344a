/* Fuzz target: any bytes as a graph text. What parses is written, parsed and written again. */
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ptq_model *model = NULL, *again = NULL;
    size_t length;
    char *text, *twice;

    if (ptq_graph_parse((const char *)data, size, &little, &model, &err)) {
        expect(err.text[0]);
        return 0;
    }
    length = ptq_graph_write(model, NULL, 0);
    text = (char *)malloc(length + 1);
    twice = (char *)malloc(length + 1);
    expect(text && twice);
    expect(ptq_graph_write(model, text, length + 1) == length);
    expect(!ptq_graph_parse(text, length, &little, &again, &err));
    expect(ptq_graph_write(again, twice, length + 1) == length);
    expect(!memcmp(text, twice, length + 1));
    free(text);
    free(twice);
    ptq_model_free(again);
    ptq_model_free(model);
    return 0;
}
