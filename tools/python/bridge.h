/* What Python needs in C beside ptq.h: data sets in numpy's memory, and a struct's lists as text. */
#include <string.h>

#include "ptq.h"

#include "measure/arithmetic.h"
#include "measure/explain.h"

/* Items one behind the other, and their labels. */
typedef struct array_items {
    const char *item;
    const int32_t *label; /* NULL: there are none */
    size_t size;          /* of an item, in bytes */
} array_items;

static ptq_status array_get(void *user, size_t index, void *item, int *label, ptq_error *err) {
    const array_items *items = user;

    (void)err;
    memcpy(item, items->item + index * items->size, items->size);
    *label = items->label ? (int)items->label[index] : -1;
    return PTQ_OK;
}

/* `data` has its shape and type already. */
static void array_dataset(ptq_dataset *data, array_items *items) {
    data->get = array_get;
    data->user = items;
}

/* The other way round: all items of a data set into numpy's memory. */
static ptq_status read_dataset(const ptq_dataset *data, size_t size, char *item, int32_t *label,
                               ptq_error *err) {
    ptq_status status = PTQ_OK;

    for (size_t i = 0; i < data->count && !status; i++) {
        int found = -1;

        status = data->get(data->user, i, item + i * size, &found, err);
        label[i] = (int32_t)found;
    }
    return status;
}
