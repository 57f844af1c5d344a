/* What a model says of the data that it takes. */
#include <string.h>

#include "data/names.h"
#include "ptq.h"

int model_takes_real(const ptq_model *model) {
    (void)model;
    return 0;
}

size_t model_class_name(const ptq_model *model, int index, char *text, size_t size) {
    (void)model;
    (void)index;
    if (size)
        *text = 0;
    return 0;
}

const char *model_resize(const ptq_model *model) {
    const char *rule = ptq_model_get_meta(model, "resize");

    return rule ? rule : "crop";
}
