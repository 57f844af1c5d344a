/* ptq info: what a model file holds and what running it takes. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char *model_option, *json_option;
static int fuse;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "model file, the same as naming it alone", &model_option, NULL, NULL,
     0},
    {"fuse", 0, NULL, "fuse first, and tell what was fused", NULL, NULL, &fuse, 0},
    {"json", 0, "FILE", "write it as JSON (-: standard output)", &json_option, NULL, NULL, 0},
    {0}};

static const command_help help = {"info [MODEL] [OPTIONS]",
                                  "Shows the graph with shapes and costs, metadata and memory.",
                                  "ptq info resnet8.safetensors --fuse"};

static const char *const fusion_names[] = {"batch_norm", "activation", "residual", "not_fused"};

/* Everything that is shown. */
typedef struct model_info {
    char path[PATH_SIZE];
    ptq_model *model;
    ptq_fuse_report report;
    ptq_cost total;
    const char *isa;
    size_t arena, session, session_keep;
} model_info;

static void free_info(model_info *info)
{
    ptq_fuse_report_free(&info->report);
    ptq_model_free(info->model);
}

static void add_costs(model_info *info)
{
    for (int i = 0; i < info->model->nodes; i++) {
        ptq_cost cost = ptq_node_cost(info->model, i);

        info->total.parameters += cost.parameters;
        info->total.param_bytes += cost.param_bytes;
        info->total.macs += cost.macs;
    }
}

static int measure_memory(model_info *info)
{
    ptq_session_options keep = {0};
    engine ready;

    keep.keep = 1;
    if (engine_open(info->path, fuse, NULL, &ready))
        return 1;
    info->isa = ptq_isa_name(ptq_plan_isa(ready.plan));
    info->arena = ptq_plan_arena_bytes(ready.plan);
    info->session = ptq_session_bytes(ready.plan, NULL);
    info->session_keep = ptq_session_bytes(ready.plan, &keep);
    engine_close(&ready);
    return 0;
}

static int gather(model_info *info)
{
    ptq_model *fused;
    ptq_error err;

    if (ptq_model_load(info->path, NULL, &info->model, &err))
        return fail("%s", err.text);
    if (fuse) {
        if (ptq_fuse(info->model, &fused, &info->report, &err))
            return fail("%s", err.text);
        ptq_model_free(info->model);
        info->model = fused;
    }
    add_costs(info);
    return measure_memory(info);
}

/* ---- Text ---- */

static int print_table(const ptq_model *model)
{
    size_t length = ptq_model_describe(model, NULL, 0);
    char *text = malloc(length + 1);

    if (!text)
        return fail("no memory for the table");
    ptq_model_describe(model, text, length + 1);
    say("%s", text);
    free(text);
    return 0;
}

static void print_metadata(const ptq_model *model)
{
    if (model->metas)
        say("\nmetadata:\n");
    for (int i = 0; i < model->metas; i++)
        say("  %s: %s\n", model->meta[i].key, model->meta[i].value);
}

static void print_fusions(const ptq_fuse_report *report)
{
    say("\nfusion:\n");
    for (int i = 0; i < report->items; i++) {
        const ptq_fusion *item = &report->item[i];

        if (item->kind == PTQ_NOT_FUSED)
            say("  %-20s stays: %s\n", item->node, item->reason);
        else
            say("  %-20s %-10s into %s\n", item->node, fusion_names[item->kind], item->into);
    }
}

static int print_info(const model_info *info)
{
    if (print_table(info->model))
        return 1;
    say("\nmemory: %zu bytes of activations; a session takes %zu, or %zu where it keeps every "
        "tensor (%s)\n",
        info->arena, info->session, info->session_keep, info->isa);
    print_metadata(info->model);
    if (fuse)
        print_fusions(&info->report);
    return 0;
}

/* ---- JSON ---- */

#ifdef PTQ_HAVE_jansson

static void set_count(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void set_cost(json_t *object, ptq_cost cost)
{
    set_count(object, "parameters", cost.parameters);
    set_count(object, "param_bytes", cost.param_bytes);
    set_count(object, "macs", cost.macs);
}

static json_t *nodes_json(const ptq_model *model)
{
    json_t *list = json_array();

    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        ptq_cost cost = ptq_node_cost(model, i);
        json_t *made = json_object();

        json_object_set_new(made, "name", json_string(node->name));
        json_object_set_new(made, "op", json_string(ptq_op_name(node->op)));
        json_object_set_new(made, "out", json_string(node->out));
        json_object_set_new(made, "shape",
                            json_pack("[i,i,i]", node->shape[0], node->shape[1], node->shape[2]));
        set_cost(made, cost);
        set_count(made, "output_bytes", cost.output_bytes);
        json_array_append_new(list, made);
    }
    return list;
}

static json_t *fusions_json(const ptq_fuse_report *report)
{
    json_t *list = json_array();

    for (int i = 0; i < report->items; i++) {
        const ptq_fusion *item = &report->item[i];
        json_t *made = json_object();

        json_object_set_new(made, "node", json_string(item->node));
        json_object_set_new(made, "kind", json_string(fusion_names[item->kind]));
        if (item->kind == PTQ_NOT_FUSED)
            json_object_set_new(made, "reason", json_string(item->reason));
        else
            json_object_set_new(made, "into", json_string(item->into));
        json_array_append_new(list, made);
    }
    return list;
}

static int write_json(const model_info *info)
{
    json_t *root = json_object(), *total = json_object(), *meta = json_object();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "model_path", json_string(info->path));
    json_object_set_new(root, "nodes", nodes_json(info->model));
    set_cost(total, info->total);
    json_object_set_new(root, "total", total);
    json_object_set_new(root, "isa", json_string(info->isa));
    set_count(root, "arena_bytes", info->arena);
    set_count(root, "session_bytes", info->session);
    set_count(root, "session_bytes_keep", info->session_keep);
    for (int i = 0; i < info->model->metas; i++)
        json_object_set_new(meta, info->model->meta[i].key,
                            json_string(info->model->meta[i].value));
    json_object_set_new(root, "metadata", meta);
    if (fuse)
        json_object_set_new(root, "fusion", fusions_json(&info->report));
    return json_finish(root);
}

#else

static int write_json(const model_info *info)
{
    (void)info;
    return 1;
}

#endif

int command_info(int argc, char **argv)
{
    char *named = NULL;
    int parsed = parse_options(argc, argv, specs, &help, &named, 1);
    model_info info = {0};
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (json_setup(json_option) || find_model(named ? named : model_option, info.path))
        return 1;
    status = gather(&info) || print_info(&info);
    if (!status && json_option)
        status = write_json(&info);
    free_info(&info);
    return status;
}
