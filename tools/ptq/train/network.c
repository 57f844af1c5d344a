/* The network to train: from a model, a graph, or a pair of them for fake quantization; and its
   preprocessing. */
#include "ptq.h"
#include "shared/kind.h"
#include "shared/output.h"
#include "shared/pixels.h"
#include "train/run.h"

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
    if (!o->model && !scales_pixels(*out))
        train_images_measure(set, *out);
    return (o->mean && read_channels("mean", o->mean, channels, -1e6f, (*out)->mean)) ||
           (o->std && read_channels("std", o->std, channels, 1e-6f, (*out)->std));
}
