/* For targets whose reader makes a model of the file of another program: what can be imported is a
   model that a file can hold. */
#include "into_file.h"

/* What the reader gave back, and the model where that was 0. */
static int check_imported(int status, ptq_model *model) {
    ptq_model *again = NULL;
    void *bytes = NULL;
    size_t length = 0;

    if (status)
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
