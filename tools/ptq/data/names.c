/* What a model says of the data that it takes. */
#include "data/names.h"
#include "ptq.h"

int model_takes_real(const ptq_model *model) { return model->node[0].real; }

const char *model_resize(const ptq_model *model) {
    const char *rule = ptq_model_get_meta(model, "resize");

    return rule ? rule : "crop";
}
