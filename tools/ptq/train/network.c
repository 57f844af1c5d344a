/* The network to train: from a model, a graph, or a pair of them for fake quantization; and its
   preprocessing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "data/names.h"
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

/* The graph's text with one value of a line replaced, as a new model. */
static int rebuild(const ptq_model *model, const char *node, const char *key, const char *value,
                   ptq_model **out) {
    size_t length = ptq_graph_write(model, NULL, 0), more = strlen(value) + 1;
    char *text = malloc(length + 1), *made = malloc(length + more + 1), *line, *at = NULL;
    ptq_status status = PTQ_OUT_OF_MEMORY;
    ptq_error err = {PTQ_OUT_OF_MEMORY, "no memory for the network"};

    if (text && made) {
        ptq_graph_write(model, text, length + 1);
        for (line = text; line && !at; line = line ? line + 1 : NULL) {
            size_t n = strlen(node);

            if (!strncmp(line, node, n) && line[n] == ' ')
                at = strstr(line, key);
            line = strchr(line, '\n');
        }
        if (at) {
            at += strlen(key);
            snprintf(made, length + more + 1, "%.*s%s%s", (int)(at - text), text, value,
                     at + strcspn(at, " \n"));
            status = ptq_graph_parse(made, strlen(made), NULL, out, &err);
        }
    }
    free(made);
    free(text);
    return status ? fail("%s", err.text) : 0;
}

/* ResNet8 for any size, number of channels and kind of input. */
static int build_resnet8(const train_images *set, ptq_model **out) {
    const ptq_dataset *base = &set->base;
    ptq_model *usual = NULL;
    char shape[96];
    ptq_error err;
    int status;

    if (ptq_resnet8(base->height < 4 ? 4 : base->height, 16, base->classes, NULL, &usual, &err))
        return fail("%s", err.text);
    if (base->type == PTQ_TYPE_U8 && base->height == base->width && base->channels == 3) {
        *out = usual;
        return 0;
    }
    snprintf(shape, sizeof shape, "%dx%dx%d%s", base->height, base->width, base->channels,
             base->type == PTQ_TYPE_F32 ? " type=f32" : "");
    status = rebuild(usual, usual->node[0].name, "shape=", shape, out);
    ptq_model_free(usual);
    return status;
}

/* The dense layer whose results are the logits; NULL if something else makes them. */
static const ptq_node *find_head(const ptq_model *model) {
    const ptq_node *head = &model->node[ptq_model_logits(model)];

    return head->op == PTQ_OP_DENSE ? head : NULL;
}

/* The model with another number of classes: all parameters but the last layer's, which begins with
   zeros. */
static int change_head(ptq_model **model, int classes) {
    const ptq_node *head = find_head(*model);
    ptq_model *made = NULL;
    char text[16];
    ptq_error err;

    if (!head)
        return fail("the logits do not come from a dense layer: no new one can be made for %d "
                    "classes",
                    classes);
    snprintf(text, sizeof text, "%d", classes);
    if (rebuild(*model, head->name, "channels=", text, &made))
        return 1;
    memcpy(made->mean, (*model)->mean, sizeof made->mean);
    memcpy(made->std, (*model)->std, sizeof made->std);
    for (int i = 0; i < made->nodes; i++)
        for (int p = 0; p < PTQ_PARAM_COUNT; p++) {
            const ptq_tensor *from = &(*model)->node[i].param[p];
            ptq_tensor *to = &made->node[i].param[p];

            if (from->size == to->size && from->size && strcmp(made->node[i].name, head->name))
                memcpy(to->data, from->data, from->size);
        }
    if (ptq_model_get_meta(*model, "resize") &&
        ptq_model_set_meta(made, "resize", ptq_model_get_meta(*model, "resize"), &err)) {
        ptq_model_free(made);
        return fail("%s", err.text);
    }
    ptq_model_free(*model);
    *model = made;
    return 0;
}

static int logits_of(const ptq_model *model) {
    const int *shape = model->node[ptq_model_logits(model)].shape;

    return shape[0] * shape[1] * shape[2];
}

static int load_network(const train_options *o, const train_images *set, ptq_model **out,
                        ptq_model **origin) {
    ptq_error err;

    if (o->model && o->graph)
        return fail("--model brings its own graph; leave out --graph");
    if ((o->new_head || o->freeze) && (!o->model || o->qat))
        return fail("--new-head and --freeze change how a float --model is trained on; give one, "
                    "without --qat");
    if ((o->model && refuse_foreign(o->model)) || (o->qat && refuse_foreign(o->qat)))
        return 1;
    if (o->qat)
        return load_pair(o, out, origin);
    if (o->graph)
        return load_graph(o->graph, out);
    if (!o->model)
        return build_resnet8(set, out);
    return ptq_model_load(o->model, NULL, out, &err) ? fail("%s", err.text) : 0;
}

int network_open(const train_options *o, train_images *set, ptq_model **out, ptq_model **origin) {
    int channels, fits, known, data = set->base.classes;
    ptq_error err;

    if (load_network(o, set, out, origin))
        return 1;
    known = data_knows_classes(set->file);
    fits = known ? data == logits_of(*out) : data <= logits_of(*out);
    if (o->model && !o->qat && (o->new_head || !fits)) {
        say("new head  %d classes in place of %d\n", data, logits_of(*out));
        if (change_head(out, data))
            return 1;
    }
    if (o->resize && strcmp(o->resize, "crop") && strcmp(o->resize, "stretch"))
        return fail("--resize is crop or stretch, not '%s'", o->resize);
    if (o->resize && ptq_model_set_meta(*out, "resize", o->resize, &err))
        return fail("%s", err.text);
    channels = (*out)->node[0].shape[2];
    if (known && data != logits_of(*out))
        return fail("the network has %d classes, the data %d", logits_of(*out), data);
    if (train_images_fit(set, *out, logits_of(*out)) || data_keep_names(set->file, *out))
        return 1;
    if (!o->model && channels <= PTQ_MAX_PIXEL_CHANNELS && !scales_pixels(*out) &&
        (set->base.type == PTQ_TYPE_U8 || model_takes_real(*out)) &&
        train_images_measure(set, *out))
        return 1;
    if (channels > PTQ_MAX_PIXEL_CHANNELS && (o->mean || o->std))
        return fail("--mean and --std are for at most %d channels", PTQ_MAX_PIXEL_CHANNELS);
    return (o->mean && read_channels("mean", o->mean, channels, -1e6f, (*out)->mean)) ||
           (o->std && read_channels("std", o->std, channels, 1e-6f, (*out)->std));
}
