/* ptq info: what a model file holds and what running it takes. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "data/find.h"
#include "measure/cpu.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/options.h"
#include "shared/output.h"

typedef struct info_options {
    const char *model, *json, *show;
    int fuse, graph_alone, cpu;
} info_options;

static const command_help help = {
    "info [MODEL | --cpu] [OPTIONS]",
    "Shows the graph with shapes and costs, every scale and zero point of a quantized model,\n"
    "whether it really runs on integers, metadata and memory.",
    "ptq info resnet8_int8.safetensors"};

static int parse(int argc, char **argv, info_options *o, char **named) {
    const option_spec specs[] = {
        {"model", 'm', "MODEL", "model file, the same as naming it alone", .text = &o->model,
         .file = READ_FILE},
        {"fuse", 0, NULL, "fuse first, and tell what was fused", .flag = &o->fuse},
        {"graph", 0, NULL, "print the graph's text alone, as 'ptq import --graph' reads it",
         .flag = &o->graph_alone},
        OPTION_SHOW(o->show, "total, fusion"),
        {"cpu", 0, NULL, "show the instruction sets instead, and test their kernels",
         .flag = &o->cpu},
        {"json", 0, "FILE", "write it as JSON (-: standard output)", .text = &o->json,
         .file = WRITTEN_FILE},
        {0}};

    return parse_options(argc, argv, specs, &help, named, 1);
}

static const char *const fusion_names[] = {"batch_norm", "activation", "residual", "not_fused",
                                           "convolution"};

/* Everything that is shown. */
typedef struct model_info {
    const info_options *given;
    char path[PATH_SIZE];
    ptq_model *model;
    ptq_fuse_report report;
    ptq_cost total;
    const char *isa;
    size_t arena, session, session_keep;
    int quantized;
    char precision[32], runs[512]; /* a sentence about what runs on integers */
    ptq_status self_test;
    ptq_error self_error;
} model_info;

static void free_info(model_info *info) {
    ptq_release(&info->report.memory);
    ptq_model_free(info->model);
}

static void add_costs(model_info *info) {
    for (int i = 0; i < info->model->nodes; i++) {
        ptq_cost cost = ptq_node_cost(info->model, i);

        info->total.parameters += cost.parameters;
        info->total.param_bytes += cost.param_bytes;
        info->total.macs += cost.macs;
    }
}

static int measure_memory(model_info *info) {
    ptq_session_options keep = {0};
    engine ready;

    keep.keep = 1;
    if (engine_open(info->path, info->given->fuse, NULL, &ready))
        return 1;
    info->isa = ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(ready.plan)->isa);
    info->arena = ptq_plan_get_info(ready.plan)->arena_bytes;
    info->session = ptq_session_bytes(ready.plan, NULL);
    info->session_keep = ptq_session_bytes(ready.plan, &keep);
    info->self_test = ptq_self_test_check(ready.plan, &info->self_error);
    engine_close(&ready);
    return 0;
}

/* Whether a node counts where it is asked what runs on integers: what computes, up to the
   logits. */
static int is_asked(const ptq_model *model, int i) {
    ptq_op op = model->node[i].op;

    return i > 0 && i <= ptq_model_logits(model) && op != PTQ_OP_QUANTIZE &&
           op != PTQ_OP_DEQUANTIZE;
}

/* Appends to the sentence; what does not fit is cut off. */
PRINTF_LIKE(2, 3) static void add_words(model_info *info, const char *format, ...) {
    size_t used = strlen(info->runs);
    va_list args;

    va_start(args, format);
    vsnprintf(info->runs + used, sizeof info->runs - used, format, args);
    va_end(args);
}

static void list_others(model_info *info) {
    const ptq_model *model = info->model;
    int others = 0;

    for (int i = 0; i < model->nodes; i++) {
        ptq_mode mode = ptq_node_mode(model, i);

        if (is_asked(model, i) && mode != PTQ_MODE_INTEGER)
            add_words(info, "%s%s (%s)", others++ ? ", " : "; not: ", model->node[i].name,
                      ptq_name(PTQ_NAMES_MODE, mode));
    }
}

static void describe_runs(model_info *info) {
    const ptq_model *model = info->model;
    int asked = 0, integer = 0, conversions = 0;

    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];

        conversions += node->op == PTQ_OP_QUANTIZE || node->op == PTQ_OP_DEQUANTIZE;
        info->quantized |= ptq_node_mode(model, i) != PTQ_MODE_FLOAT;
        asked += is_asked(model, i);
        integer += is_asked(model, i) && ptq_node_mode(model, i) == PTQ_MODE_INTEGER;
    }
    if (integer == asked)
        add_words(info, "all %d nodes from the pixels to the logits really run on integers", asked);
    else if (integer == 0)
        add_words(info, "none of the %d nodes runs on integers alone", asked);
    else
        add_words(info, "%d of %d nodes run on integers", integer, asked);
    if (integer > 0)
        list_others(info);
    if (conversions > 0)
        add_words(info, "; %d conversion%s between codes and real numbers", conversions,
                  conversions > 1 ? "s" : "");
    describe_precision(model, info->precision, sizeof info->precision);
}

static int gather(model_info *info) {
    ptq_model *fused;
    ptq_error err;

    if (ptq_model_load(info->path, NULL, &info->model, &err))
        return fail("%s", err.text);
    if (info->given->fuse) {
        if (ptq_fuse(info->model, &fused, &info->report, &err))
            return fail("%s", err.text);
        ptq_model_free(info->model);
        info->model = fused;
    }
    add_costs(info);
    describe_runs(info);
    return measure_memory(info);
}

/* ---- Text ---- */

static const char *activation_name(ptq_activation act) {
    return act == PTQ_ACTIVATION_RELU ? "+relu" : act == PTQ_ACTIVATION_RELU6 ? "+relu6" : "";
}

/* "conv2d 3x3/2 g4+relu+add+relu": what stands after a plus is fused. */
static void describe_operator(const ptq_node *node, char *text, size_t size) {
    char kernel[32] = "", stride[32] = "", groups[32] = "", dilation[32] = "";

    if (node->op == PTQ_OP_CONV2D || node->op == PTQ_OP_MAX_POOL || node->op == PTQ_OP_AVG_POOL)
        snprintf(kernel, sizeof kernel, " %dx%d", node->kernel[0], node->kernel[1]);
    if (node->stride[0] != node->stride[1])
        snprintf(stride, sizeof stride, "/%dx%d", node->stride[0], node->stride[1]);
    else if (node->stride[0] != 1)
        snprintf(stride, sizeof stride, "/%d", node->stride[0]);
    if (node->dilation[0] != 1 || node->dilation[1] != 1)
        snprintf(dilation, sizeof dilation, " d%dx%d", node->dilation[0], node->dilation[1]);
    if (node->groups > 1)
        snprintf(groups, sizeof groups, " g%d", node->groups);
    snprintf(text, size, "%s%s%s%s%s%s%s%s", ptq_name(PTQ_NAMES_OP, node->op), kernel, stride,
             dilation, groups, activation_name(node->act), node->residual ? "+add" : "",
             activation_name(node->add_act));
}

/* Names that are too long for their column take room from the next one, while it has some. */
static void print_row(const char *name, const char *what, const char *shape, const ptq_cost *cost) {
    char parameters[COUNT_SIZE], bytes[COUNT_SIZE], macs[COUNT_SIZE];
    int first = (int)strlen(name) > 15 ? (int)strlen(name) : 15, second = 40 - first - 1;

    say("%-*s %-*s %-8s %9s %9s %10s\n", first, name, second > 0 ? second : 0, what, shape,
        count_text(cost->parameters, parameters), count_text(cost->param_bytes, bytes),
        count_text(cost->macs, macs));
}

/* A line a node, and one of sums. */
static void print_table(const model_info *info) {
    say("%-15s %-24s %-8s %9s %9s %10s\n", "node", "operator", "shape", "numbers", "bytes", "MACs");
    for (int i = 0; i < info->model->nodes; i++) {
        const ptq_node *node = &info->model->node[i];
        ptq_cost cost = ptq_node_cost(info->model, i);
        char what[192], shape[64];

        describe_operator(node, what, sizeof what);
        snprintf(shape, sizeof shape, "%dx%dx%d", node->shape[0], node->shape[1], node->shape[2]);
        print_row(node->name, what, shape, &cost);
    }
    print_row("total", "", "", &info->total);
}

static void print_metadata(const ptq_model *model) {
    if (model->metas)
        say("\nmetadata:\n");
    for (int i = 0; i < model->metas; i++)
        say_line(4, "  %s: %s", model->meta[i].key, model->meta[i].value);
}

static void print_fusions(const ptq_fuse_report *report) {
    say("fusion:\n");
    for (int i = 0; i < report->items; i++) {
        const ptq_fusion *item = &report->item[i];

        if (item->kind == PTQ_FUSION_NONE)
            say_wrapped(23, "  %-20s stays: %s", item->node, item->reason);
        else
            say("  %-20s %-10s into %s\n", item->node, fusion_names[item->kind], item->into);
    }
}

/* "s8" and so on, with the bits where there are fewer than 8. */
static void name_codes(ptq_type type, int bits, char *text, size_t size) {
    int is_signed = type == PTQ_TYPE_S8 || type == PTQ_TYPE_PACKED_S;

    if (type == PTQ_TYPE_F32 || type == PTQ_TYPE_F16)
        snprintf(text, size, "%s", type == PTQ_TYPE_F32 ? "f32" : "f16");
    else
        snprintf(text, size, "%c%d", is_signed ? 's' : 'u', bits);
}

static void print_weight(const char *name, const char *computes, const ptq_tensor *weight) {
    char codes[16] = "", range[64] = "";

    if (weight->rank)
        name_codes(weight->type, weight->bits, codes, sizeof codes);
    if (weight->scales) {
        float low = weight->scale[0], high = low;

        for (int i = 1; i < weight->scales; i++) {
            low = weight->scale[i] < low ? weight->scale[i] : low;
            high = weight->scale[i] > high ? weight->scale[i] : high;
        }
        if (weight->scales == 1)
            snprintf(range, sizeof range, "%.6g", (double)low);
        else
            snprintf(range, sizeof range, "%.6g .. %.6g", (double)low, (double)high);
        say("%-24s %-8s %-5s %6d  %-26s %4d\n", name, computes, codes, weight->scales, range,
            (int)weight->zero_point);
    } else {
        say("%-24s %-8s %s\n", name, computes, codes);
    }
}

static void print_result(const char *name, const ptq_qparams *q) {
    char codes[16];

    name_codes(q->type, q->bits, codes, sizeof codes);
    if (q->type == PTQ_TYPE_F32)
        say("%-24s %s\n", name, codes);
    else
        say("%-24s %-5s %13.8g %5d\n", name, codes, (double)q->scale, (int)q->zero_point);
}

/* Every scale and zero point. A convolution with a fused addition has two results. */
static void print_codes(const model_info *info) {
    say("\n%-24s %-8s %-5s %6s  %-26s %4s\n", "node", "computes", "codes", "scales",
        "of its weights", "zero");
    for (int i = 0; i < info->model->nodes; i++)
        print_weight(info->model->node[i].name,
                     ptq_name(PTQ_NAMES_MODE, ptq_node_mode(info->model, i)),
                     &info->model->node[i].param[PTQ_PARAM_WEIGHT]);
    say("\n%-24s %-5s %13s %5s\n", "result", "codes", "scale", "zero");
    for (int i = 0; i < info->model->nodes; i++) {
        const ptq_node *node = &info->model->node[i];

        if (node->residual)
            print_result(node->name, &node->mid);
        print_result(node->out, &node->q);
    }
}

static void print_quantized(const model_info *info) {
    print_codes(info);
    say("\n");
    say_line(2, "precision: %s; %s", info->precision, info->runs);
}

static void print_self_test(const model_info *info) {
    if (info->self_test == PTQ_NOT_READY)
        say("self-test: the file has no test vector\n");
    else
        say("self-test: %s\n", info->self_test ? info->self_error.text : "passed");
}

static void print_info(const model_info *info) {
    char arena[COUNT_SIZE], session[COUNT_SIZE], kept[COUNT_SIZE];

    print_table(info);
    if (info->quantized)
        print_quantized(info);
    print_self_test(info);
    say("\n");
    say_wrapped(2,
                "memory: %s bytes of activations; a session takes %s, or %s where it keeps every "
                "tensor (%s)",
                count_text(info->arena, arena), count_text(info->session, session),
                count_text(info->session_keep, kept), info->isa);
    print_metadata(info->model);
    if (!info->given->fuse)
        return;
    say("\n");
    print_fusions(&info->report);
}

/* --show: of the sums a sentence, of the fusions the list. */
static void print_parts(const model_info *info) {
    char parameters[COUNT_SIZE], bytes[COUNT_SIZE], macs[COUNT_SIZE];

    if (!info->given->show)
        print_info(info);
    else if (shows_part(info->given->show, "total"))
        say("%s numbers in %s bytes, %s multiplications for an image\n",
            count_text(info->total.parameters, parameters),
            count_text(info->total.param_bytes, bytes), count_text(info->total.macs, macs));
    else
        print_fusions(&info->report);
}

/* ---- JSON ---- */

#ifdef PTQ_HAVE_jansson

static void set_cost(json_t *object, ptq_cost cost) {
    json_set_count(object, "parameters", cost.parameters);
    json_set_count(object, "param_bytes", cost.param_bytes);
    json_set_count(object, "macs", cost.macs);
}

static void set_qparams(json_t *object, const char *key, const ptq_qparams *q) {
    json_t *made = json_object();
    char codes[16];

    name_codes(q->type, q->bits, codes, sizeof codes);
    json_object_set_new(made, "type", json_string(codes));
    if (q->type != PTQ_TYPE_F32) {
        json_object_set_new(made, "bits", json_integer(q->bits));
        json_object_set_new(made, "scale", json_real((double)q->scale));
        json_object_set_new(made, "zero_point", json_integer(q->zero_point));
    }
    json_object_set_new(object, key, made);
}

static json_t *weight_json(const ptq_tensor *weight) {
    json_t *made = json_object(), *scales = json_array();
    char codes[16];

    name_codes(weight->type, weight->bits, codes, sizeof codes);
    json_object_set_new(made, "type", json_string(codes));
    json_object_set_new(made, "bits", json_integer(weight->bits));
    for (int i = 0; i < weight->scales; i++)
        json_array_append_new(scales, json_real((double)weight->scale[i]));
    json_object_set_new(made, "scale", scales);
    json_object_set_new(made, "zero_point", json_integer(weight->zero_point));
    return made;
}

static json_t *nodes_json(const ptq_model *model) {
    json_t *list = json_array();

    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];
        ptq_cost cost = ptq_node_cost(model, i);
        json_t *made = json_object();

        json_object_set_new(made, "name", json_string(node->name));
        json_object_set_new(made, "op", json_string(ptq_name(PTQ_NAMES_OP, node->op)));
        json_object_set_new(made, "out", json_string(node->out));
        json_object_set_new(made, "shape",
                            json_pack("[i,i,i]", node->shape[0], node->shape[1], node->shape[2]));
        set_cost(made, cost);
        json_set_count(made, "output_bytes", cost.output_bytes);
        json_object_set_new(made, "computes",
                            json_string(ptq_name(PTQ_NAMES_MODE, ptq_node_mode(model, i))));
        if (node->param[PTQ_PARAM_WEIGHT].rank)
            json_object_set_new(made, "weight", weight_json(&node->param[PTQ_PARAM_WEIGHT]));
        if (node->residual)
            set_qparams(made, "before_addition", &node->mid);
        set_qparams(made, "result", &node->q);
        json_array_append_new(list, made);
    }
    return list;
}

static json_t *fusions_json(const ptq_fuse_report *report) {
    json_t *list = json_array();

    for (int i = 0; i < report->items; i++) {
        const ptq_fusion *item = &report->item[i];
        json_t *made = json_object();

        json_object_set_new(made, "node", json_string(item->node));
        json_object_set_new(made, "kind", json_string(fusion_names[item->kind]));
        if (item->kind == PTQ_FUSION_NONE)
            json_object_set_new(made, "reason", json_string(item->reason));
        else
            json_object_set_new(made, "into", json_string(item->into));
        json_array_append_new(list, made);
    }
    return list;
}

static int write_json(const model_info *info) {
    json_t *root = json_object(), *total = json_object(), *meta = json_object();

    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "model_path", json_string(info->path));
    json_object_set_new(root, "nodes", nodes_json(info->model));
    set_cost(total, info->total);
    json_object_set_new(root, "total", total);
    json_set_count(root, "file_bytes", file_size(info->path));
    json_object_set_new(root, "precision", json_string(info->precision));
    json_object_set_new(root, "runs", json_string(info->runs));
    json_object_set_new(root, "self_test",
                        json_string(info->self_test == PTQ_NOT_READY ? "none"
                                    : info->self_test                ? "failed"
                                                                     : "passed"));
    json_object_set_new(root, "isa", json_string(info->isa));
    json_set_count(root, "arena_bytes", info->arena);
    json_set_count(root, "session_bytes", info->session);
    json_set_count(root, "session_bytes_keep", info->session_keep);
    for (int i = 0; i < info->model->metas; i++)
        json_object_set_new(meta, info->model->meta[i].key,
                            json_string(info->model->meta[i].value));
    json_object_set_new(root, "metadata", meta);
    if (info->given->fuse)
        json_object_set_new(root, "fusion", fusions_json(&info->report));
    return json_finish(root);
}

#else

static int write_json(const model_info *info) {
    (void)info;
    return 1;
}

#endif

static int print_graph(const char *path) {
    ptq_model *model = NULL;
    ptq_error err;
    size_t size;
    char *text;

    if (ptq_model_load(path, NULL, &model, &err))
        return fail("%s", err.text);
    size = ptq_graph_write(model, NULL, 0) + 1;
    text = malloc(size);
    if (text) {
        ptq_graph_write(model, text, size);
        say("%s", text);
    }
    ptq_model_free(model);
    free(text);
    return text ? 0 : fail("no memory for the graph");
}

int command_info(int argc, char **argv) {
    static const char *const parts[] = {"total", "fusion", NULL};
    info_options o = {0};
    char *named = NULL;
    int parsed = parse(argc, argv, &o, &named);
    model_info info = {.given = &o};
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    o.fuse |= o.show && strcmp(o.show, "fusion") == 0;
    if (o.cpu && (named || o.model || o.fuse))
        return misuse("--cpu is about this machine, not a model; leave out the model and --fuse");
    if (check_part(o.show, parts) || json_setup(o.json))
        return 1;
    if (o.cpu)
        return show_cpu(o.json != NULL);
    if (find_model(named ? named : o.model, info.path))
        return 1;
    if (o.graph_alone)
        return print_graph(info.path);
    status = gather(&info);
    if (!status)
        print_parts(&info);
    if (!status && o.json)
        status = write_json(&info);
    if (!status && info.self_test && info.self_test != PTQ_NOT_READY)
        status = fail("%s", info.self_error.text);
    free_info(&info);
    return status;
}
