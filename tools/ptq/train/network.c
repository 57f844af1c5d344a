/* The network to train: from a model, a graph, or a pair of them for fake quantization; and its
   preprocessing. */
#include <stdlib.h>

#include "ptq.h"
#include "shared/kind.h"
#include "shared/output.h"
#include "train/run.h"

/* "A,B,C", or one number for all channels. */
static int read_channels(const char *name, const char *text, int channels, float least,
                         float *out) {
    for (int c = 0; c < channels; c++) {
        char *end;
        double value = strtod(text, &end);

        if (end == text || !(value >= (double)least && value < 1e6) ||
            (*end != (c + 1 < channels ? ',' : 0) && !(c == 0 && !*end)))
            return fail("--%s must be one number, or one for each of %d channels with commas", name,
                        channels);
        out[c] = (float)value;
        for (int k = 1; c == 0 && !*end && k < channels; k++)
            out[k] = (float)value;
        if (!*end)
            break;
        text = end + 1;
    }
    return 0;
}

static int load_graph(const char *path, ptq_model **out) {
    void *text;
    size_t size;
    ptq_error err;
    ptq_status status;

    if (ptq_file_read(path, 1 << 20, NULL, &text, &size, &err))
        return fail("%s", err.text);
    status = ptq_graph_parse(text, size, NULL, out, &err);
    ptq_bytes_free(text, NULL);
    return status ? fail("%s: %s", path, err.text) : 0;
}

/* The quantized model to train, and the fused float model with its real weights, equalized as they
   were for it: its scales fit no others. */
static int load_pair(const train_options *o, ptq_model **out, ptq_model **origin) {
    ptq_model *real = NULL, *fused = NULL;
    ptq_error err;
    ptq_status status;

    if (!o->model)
        return fail("--qat needs --model: the float model that %s was made from", o->qat);
    if (o->mean || o->std)
        return fail("--mean and --std belong to the float model; leave them out with --qat");
    if (ptq_model_load(o->qat, NULL, out, &err) || ptq_model_load(o->model, NULL, &real, &err))
        return fail("%s", err.text);
    status = ptq_fuse(real, &fused, NULL, &err);
    ptq_model_free(real);
    if (!status)
        status = ptq_equalize_like(fused, *out, origin, &err);
    ptq_model_free(fused);
    return status ? fail("%s", err.text) : 0;
}

/* Whether a graph's text brings a preprocessing of its own: without one it says 0 and 1. */
static int has_channels(const ptq_model *model) {
    int own = 0;

    for (int c = 0; c < model->node[0].shape[2]; c++)
        own |= model->mean[c] != 0 || model->std[c] != 1;
    return own;
}

int network_open(const train_options *o, const train_images *set, ptq_model **out,
                 ptq_model **origin) {
    int channels = set->base.channels, status = 0;
    const int *shape;
    ptq_error err;

    if (o->model && o->graph)
        return fail("--model brings its own graph; leave out --graph");
    if ((o->model && refuse_foreign(o->model)) || (o->qat && refuse_foreign(o->qat)))
        return 1;
    if (o->qat)
        status = load_pair(o, out, origin);
    else if (o->graph)
        status = load_graph(o->graph, out);
    else if (o->model ? ptq_model_load(o->model, NULL, out, &err)
                      : ptq_resnet8(set->base.height, 16, set->base.classes, NULL, out, &err))
        status = fail("%s", err.text);
    if (status)
        return status;
    shape = (*out)->node[0].shape;
    if (shape[0] != set->base.height || shape[1] != set->base.width || shape[2] != channels)
        return fail("the network takes images of %dx%dx%d, the data has %dx%dx%d", shape[0],
                    shape[1], shape[2], set->base.height, set->base.width, channels);
    if (!o->model && !has_channels(*out))
        train_images_measure(set, *out);
    return (o->mean && read_channels("mean", o->mean, channels, -1e6f, (*out)->mean)) ||
           (o->std && read_channels("std", o->std, channels, 1e-6f, (*out)->std));
}
