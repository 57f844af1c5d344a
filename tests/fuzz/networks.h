/* Small networks and images for those programs that make inputs: seeds.c and arguments.c. */
#include <string.h>

#include "fuzz.h"

/* Images that differ, of the size that a model takes; the data set is its own `user`. */
static inline ptq_status get_image(void *user, size_t index, void *item, int *label, ptq_error *e) {
    uint8_t *pixels = (uint8_t *)item;
    const ptq_dataset *data = (const ptq_dataset *)user;
    size_t i, n = (size_t)(data->height * data->width * data->channels);

    (void)e;
    for (i = 0; i < n; i++)
        pixels[i] = (uint8_t)(200 + i % 3 + index * 9); /* few bins of a histogram */
    *label = (int)index % data->classes;
    return PTQ_OK;
}

static inline const ptq_dataset *images_for(const ptq_model *model, ptq_dataset *data) {
    memset(data, 0, sizeof *data);
    data->count = 2;
    data->height = model->node[0].shape[0];
    data->width = model->node[0].shape[1];
    data->channels = model->node[0].shape[2];
    data->classes = model->node[ptq_model_logits(model)].shape[2];
    data->type = PTQ_TYPE_U8;
    data->get = get_image;
    data->user = data;
    return data;
}

static inline void fill(ptq_model *model) {
    ptq_rng rng;
    size_t k;
    int i;

    ptq_rng_seed(&rng, 1, 0);
    for (i = 0; i < model->nodes; i++)
        for (k = 0; k < ptq_tensor_elements(&model->node[i].param[PTQ_PARAM_WEIGHT]); k++)
            ((float *)model->node[i].param[PTQ_PARAM_WEIGHT].data)[k] = ptq_rng_float(&rng) - 0.4f;
}

/* A network of that graph with random weights. */
static inline ptq_model *make_network(const char *text) {
    ptq_model *model = NULL;

    expect(!ptq_graph_parse(text, strlen(text), NULL, &model, &err));
    fill(model);
    return model;
}

static inline ptq_calibration *calibrate(const ptq_model *fused, const ptq_dataset *images) {
    ptq_calibrate_options any;
    ptq_calibration *seen = NULL;
    ptq_plan *plan = NULL;

    memset(&any, 0, sizeof any);
    any.accept_any = 1;
    expect(!ptq_plan_create(fused, NULL, &plan, &err));
    expect(!ptq_calibrate(plan, images, &any, &seen, &err));
    ptq_plan_free(plan);
    return seen;
}

/* A file of the model's tensors alone, without the graph. */
static inline void *model_bytes(const ptq_model *model, size_t *size) {
    ptq_archive *all = NULL, *bare = NULL;
    void *bytes = NULL;
    int i;

    expect(!ptq_model_write(model, &bytes, size, &err));
    expect(!ptq_archive_parse(bytes, *size, NULL, &all, &err));
    ptq_bytes_free(bytes, NULL);
    expect(!ptq_archive_create(NULL, &bare, &err));
    for (i = 0; i < all->entries; i++)
        expect(!ptq_archive_add(bare, all->entry[i].name, &all->entry[i].tensor, &err));
    expect(!ptq_archive_write(bare, &bytes, size, &err));
    ptq_archive_free(bare);
    ptq_archive_free(all);
    return bytes;
}

/* Records of CIFAR-10: pictures of all classes in turn. */
static inline void draw_records(uint8_t *records, size_t count) {
    size_t i, k;

    for (i = 0; i < count; i++, records += PTQ_CIFAR10_RECORD) {
        records[0] = (uint8_t)(i % 10);
        for (k = 1; k < PTQ_CIFAR10_RECORD; k++)
            records[k] = (uint8_t)(k * (k + i) >> 7);
    }
}
