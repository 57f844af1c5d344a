/* safetensors files of other programs, such as a PyTorch state_dict, for ptq import.

   Such a file holds tensors by name and nothing else. The network comes from the caller, as a graph
   text, or is ResNet8; names that differ are translated by rules. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "import/torch.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/output.h"

#define MOST_TEXT_BYTES ((size_t)16 << 20)
#define MOST_NAME 255 /* longer names fit no rule */
#define MOST_STARS 8
#define RESNET8_SIDE 32

/* ---- Rules: "theirs = ours" ---- */

typedef struct rule {
    const char *theirs, *ours; /* in the text of the file */
    int line, used;
} rule;

typedef struct rules {
    const char *path;
    char *text;
    rule *item;
    int count;
} rules;

/* What the stars of a pattern stand for. */
typedef struct captures {
    const char *begin[MOST_STARS];
    int length[MOST_STARS];
    int count;
} captures;

static int count_stars(const char *pattern) {
    int n = 0;

    for (; *pattern; pattern++)
        n += *pattern == '*';
    return n;
}

/* Every star takes as little as it can; only the last one reached is ever lengthened, so that no
   name takes long. */
static int match(const char *pattern, const char *name, captures *found) {
    const char *star = NULL;

    found->count = 0;
    while (*name || *pattern) {
        if (*pattern == '*') {
            found->begin[found->count] = name;
            found->length[found->count++] = 0;
            star = ++pattern;
        } else if (*pattern && *pattern == *name) {
            pattern++;
            name++;
        } else if (star && *name) {
            captures *f = found;
            int last = f->count - 1;

            pattern = star;
            name = f->begin[last] + ++f->length[last];
            if (name[-1] == 0)
                return 0;
        } else {
            return 0;
        }
    }
    return 1;
}

/* `ours` with each star replaced by what that of `theirs` stands for; NULL without memory. */
static char *translate(const char *ours, const captures *found) {
    size_t size = strlen(ours) + 1;
    char *made, *to;
    int star = 0;

    for (int i = 0; i < found->count; i++)
        size += (size_t)found->length[i];
    made = to = malloc(size);
    for (; made && *ours; ours++) {
        if (*ours != '*') {
            *to++ = *ours;
            continue;
        }
        memcpy(to, found->begin[star], (size_t)found->length[star]);
        to += found->length[star++];
    }
    if (made)
        *to = 0;
    return made;
}

/* Names end up in messages of one line. */
static int is_printable(const char *text) {
    for (; *text; text++)
        if (iscntrl((unsigned char)*text))
            return 0;
    return 1;
}

static char *trim(char *text) {
    char *end;

    while (isspace((unsigned char)*text))
        text++;
    end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = 0;
    return text;
}

/* One line, which loses its comment; nothing where it is empty. */
static int read_rule(rules *all, char *line, int number) {
    char *comment = strchr(line, '#'), *equals;
    rule *made = &all->item[all->count];

    if (comment)
        *comment = 0;
    line = trim(line);
    if (!*line)
        return 0;
    if (!is_printable(line))
        return fail("%s, line %d: is not text", all->path, number);
    equals = strchr(line, '=');
    if (!equals || strchr(equals + 1, '='))
        return fail("%s, line %d: a rule is 'theirs = ours', a comment begins with #", all->path,
                    number);
    *equals = 0;
    made->theirs = trim(line);
    made->ours = trim(equals + 1);
    made->line = number;
    made->used = 0;
    if (!*made->theirs || !*made->ours)
        return fail("%s, line %d: a name is missing; '-' at the right leaves a tensor out",
                    all->path, number);
    if (count_stars(made->theirs) > MOST_STARS ||
        count_stars(made->ours) > count_stars(made->theirs))
        return fail("%s, line %d: at most %d stars at the left, and no more at the right",
                    all->path, number, MOST_STARS);
    all->count++;
    return 0;
}

/* A text file, terminated. NULL after an error. */
static char *read_text(const char *path, size_t *length) {
    void *bytes = NULL;
    char *text;
    ptq_error err;

    if (ptq_file_read(path, MOST_TEXT_BYTES, NULL, &bytes, length, &err)) {
        fail("%s", err.text);
        return NULL;
    }
    text = malloc(*length + 1);
    if (text) {
        memcpy(text, bytes, *length);
        text[*length] = 0;
    } else {
        fail("no memory for %s", path);
    }
    ptq_bytes_free(bytes, NULL);
    return text;
}

static int read_rules(const char *path, rules *all) {
    size_t length, lines = 1;
    int number = 1;
    char *line, *next;

    all->path = path;
    all->text = read_text(path, &length);
    if (!all->text)
        return 1;
    if (strlen(all->text) != length)
        return fail("%s: is not a text file", path);
    for (line = all->text; *line; line++)
        lines += *line == '\n';
    all->item = calloc(lines, sizeof *all->item);
    if (!all->item)
        return fail("no memory for %zu rules", lines);
    for (line = all->text; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        if (read_rule(all, line, number))
            return 1;
    }
    return 0;
}

/* ---- Tensors under our names ---- */

typedef struct tensors {
    const ptq_archive *archive;
    char **ours; /* one for each entry; NULL: left out */
} tensors;

/* PyTorch counts batches beside its batch norms. */
static int is_counter(const char *name) {
    static const char tail[] = ".num_batches_tracked";
    size_t n = strlen(name), k = sizeof tail - 1;

    return n >= k && strcmp(name + n - k, tail) == 0;
}

/* The first rule that fits decides; without one the name stays. */
static int name_tensor(tensors *all, rules *map, int index) {
    const char *theirs = all->archive->entry[index].name, *ours = theirs;
    captures found = {{NULL}, {0}, 0};

    if (!is_printable(theirs))
        return fail("tensor %d has a name that is not text; write the file anew", index);
    if (is_counter(theirs))
        return 0;
    for (int i = 0; i < map->count && strlen(theirs) <= MOST_NAME; i++) {
        if (!match(map->item[i].theirs, theirs, &found))
            continue;
        map->item[i].used = 1;
        ours = map->item[i].ours;
        break;
    }
    if (ours == theirs)
        all->ours[index] = strdup(theirs);
    else if (strcmp(ours, "-") != 0)
        all->ours[index] = translate(ours, &found);
    else
        return 0;
    return all->ours[index] ? 0 : fail("no memory for a name");
}

static int find_tensor(const tensors *all, const char *name) {
    for (int i = 0; i < all->archive->entries; i++)
        if (all->ours[i] && strcmp(all->ours[i], name) == 0)
            return i;
    return -1;
}

static int name_tensors(tensors *all, rules *map) {
    for (int i = 0; i < all->archive->entries; i++)
        if (name_tensor(all, map, i))
            return 1;
    for (int i = 0; i < all->archive->entries; i++) {
        int first = all->ours[i] ? find_tensor(all, all->ours[i]) : i;

        if (first != i)
            return fail("%.200s and %.200s would both be called %.200s; change the rules",
                        all->archive->entry[first].name, all->archive->entry[i].name, all->ours[i]);
    }
    for (int i = 0; i < map->count; i++)
        if (!map->item[i].used && strcmp(map->item[i].ours, "-") != 0)
            return fail("%s, line %d: no tensor is called %.200s, or an earlier rule takes it",
                        map->path, map->item[i].line, map->item[i].theirs);
    return 0;
}

static const ptq_tensor *tensor_called(const tensors *all, const char *name) {
    int index = find_tensor(all, name);

    return index < 0 ? NULL : &all->archive->entry[index].tensor;
}

/* ---- The network ---- */

static int read_graph(const char *path, ptq_model **out) {
    size_t length;
    char *text = read_text(path, &length);
    ptq_status status;
    ptq_error err;

    if (!text)
        return 1;
    status = ptq_graph_parse(text, length, NULL, out, &err);
    free(text);
    return status ? fail("%s: %s", path, err.text) : 0;
}

static const char *meta_of(const tensors *all, const char *key) {
    for (int i = 0; i < all->archive->metas; i++)
        if (strcmp(all->archive->meta[i].key, key) == 0)
            return all->archive->meta[i].value;
    return NULL;
}

/* What in a file is PyTorch's, in words; NULL: nothing. PyTorch counts batches beside its batch
   norms, the writer of its tensors names the format "pt", and who builds a ResNet there leaves out
   the biases that batch norms take away again, where Keras has them by default. */
static const char *mark_of_pytorch(const tensors *all) {
    const char *format = meta_of(all, "format");

    for (int i = 0; i < all->archive->entries; i++)
        if (is_counter(all->archive->entry[i].name))
            return "PyTorch's, for the file has num_batches_tracked";
    if (format && strcmp(format, "pt") == 0)
        return "PyTorch's, for the file's format is pt";
    return tensor_called(all, "conv1.bias") ? NULL : "PyTorch's, for conv1 has no bias in the file";
}

/* The file tells neither how strided convolutions pad nor what was added to variances: PyTorch's
   come as PyTorch makes them by default, all others as Keras does. */
static int assume(assumed *open, const tensors *all, ptq_model *model) {
    const char *pytorch = mark_of_pytorch(all);
    const char *from = pytorch ? pytorch : "Keras's, for nothing in the file is PyTorch's";

    return assume_padding(open, pytorch ? "pytorch" : "tensorflow", from, model) ||
           assume_epsilon(open, meta_of(all, "epsilon"), pytorch ? 1e-5f : 1e-3f, from, model);
}

static int make_resnet8(assumed *open, const tensors *all, ptq_model **out) {
    const ptq_tensor *first = tensor_called(all, "conv1.weight");
    const ptq_tensor *last = tensor_called(all, "fc.weight");
    ptq_error err;

    if (!first || !last || first->rank != 4 || last->rank != 2)
        return fail("its tensors (%.200s and others) are not called as ResNet8's; name them with "
                    "--map, or give the network with --graph",
                    /* NOLINTNEXTLINE: where there are entries there is an array of them */
                    all->archive->entries ? all->archive->entry[0].name : "none");
    if (ptq_resnet8(RESNET8_SIDE, first->dim[0], last->dim[0], NULL, out, &err))
        return fail("%s", err.text);
    return assume(open, all, *out);
}

/* PyTorch leaves out biases that a batch norm would take away again. */
static void leave_out_biases(const tensors *all, ptq_model *model) {
    for (int i = 0; i < model->nodes; i++) {
        ptq_node *node = &model->node[i];
        char name[PTQ_NAME_SIZE + 8];

        snprintf(name, sizeof name, "%s.bias", node->name);
        if (node->op != PTQ_OP_CONV2D || tensor_called(all, name))
            continue;
        node->no_bias = 1;
        ptq_tensor_free(&node->param[PTQ_PARAM_BIAS], NULL);
    }
}

/* ---- Parameters ---- */

/* Sentences about all that is wrong, which end up in one line. */
typedef struct complaints {
    FILE *to;
    int missing, extra, shape;
} complaints;

static void complain(complaints *all, int *count, const char *heading, const char *name) {
    if (*count)
        heading = ", ";
    else if (all->missing || all->extra || all->shape)
        fputs("; ", all->to);
    fprintf(all->to, "%s%.200s", heading, name);
    ++*count;
}

static void put_shape(FILE *to, const ptq_tensor *tensor) {
    fputc('[', to);
    for (int i = 0; i < tensor->rank; i++)
        fprintf(to, "%s%d", i ? "," : "", tensor->dim[i]);
    fputc(']', to);
}

static int same_shape(const ptq_tensor *a, const ptq_tensor *b) {
    return a->rank == b->rank && memcmp(a->dim, b->dim, sizeof a->dim) == 0;
}

static int is_real(const ptq_tensor *tensor) {
    return tensor->rank && (tensor->type == PTQ_TYPE_F32 || tensor->type == PTQ_TYPE_F16);
}

static void check_present(const tensors *all, const ptq_model *model, complaints *wrong) {
    static const char *const params[] = {"weight", "bias", "running_mean", "running_var"};

    for (int i = 0; i < model->nodes; i++)
        for (int k = 0; k < PTQ_PARAM_COUNT; k++) {
            char name[PTQ_NAME_SIZE + 16];

            snprintf(name, sizeof name, "%s.%s", model->node[i].name, params[k]);
            if (model->node[i].param[k].rank && !tensor_called(all, name))
                complain(wrong, &wrong->missing, "missing: ", name);
        }
}

static void check_extra(const tensors *all, ptq_model *model, complaints *wrong) {
    for (int i = 0; i < all->archive->entries; i++)
        if (all->ours[i] && !ptq_model_param(model, all->ours[i]))
            complain(wrong, &wrong->extra, "not of the network: ", all->ours[i]);
}

static void check_shapes(const tensors *all, ptq_model *model, complaints *wrong) {
    for (int i = 0; i < all->archive->entries; i++) {
        const ptq_tensor *from = &all->archive->entry[i].tensor;
        const ptq_tensor *to = all->ours[i] ? ptq_model_param(model, all->ours[i]) : NULL;

        if (!to || (is_real(from) && same_shape(from, to)))
            continue;
        complain(wrong, &wrong->shape, "of another shape or type: ", all->ours[i]);
        if (!is_real(from)) {
            fputs(" (real numbers are needed)", wrong->to);
            continue;
        }
        fputc(' ', wrong->to);
        put_shape(wrong->to, from);
        fputs(" where the network has ", wrong->to);
        put_shape(wrong->to, to);
    }
}

static int check_tensors(const char *path, const tensors *all, ptq_model *model) {
    complaints wrong = {NULL, 0, 0, 0};
    char *text = NULL;
    size_t size;
    int status = 0;

    wrong.to = open_memstream(&text, &size);
    if (!wrong.to)
        return fail("no memory for messages");
    check_present(all, model, &wrong);
    check_extra(all, model, &wrong);
    check_shapes(all, model, &wrong);
    if (fclose(wrong.to))
        status = fail("no memory for messages");
    else if (wrong.missing || wrong.extra || wrong.shape)
        status =
            fail("%s: %s; name tensors with --map, or give the network with --graph", path, text);
    free(text);
    return status;
}

/* PyTorch flattens a map by channel, row, column; here it lies by row, column, channel. */
static size_t flattened_index(const int *map, size_t index) {
    size_t channels = (size_t)map[2], pixels = (size_t)map[0] * (size_t)map[1];
    size_t row = index / (channels * pixels), at = index % (channels * pixels);

    return row * channels * pixels + at % channels * pixels + at / channels;
}

static void fill_param(const ptq_model *model, const ptq_node *node, const ptq_tensor *from,
                       ptq_tensor *to) {
    int flattens = node->op == PTQ_OP_DENSE && to == &node->param[PTQ_PARAM_WEIGHT];

    for (size_t i = 0; i < ptq_tensor_elements(to); i++)
        ((float *)to->data)[i] = ptq_tensor_number(
            from, flattens ? flattened_index(model->node[node->input[0]].shape, i) : i);
}

static void fill_params(const tensors *all, ptq_model *model) {
    for (int i = 0; i < all->archive->entries; i++) {
        const ptq_tensor *from = &all->archive->entry[i].tensor;
        ptq_tensor *to = all->ours[i] ? ptq_model_param(model, all->ours[i]) : NULL;

        for (int n = 0; n < model->nodes && to; n++)
            if (to >= model->node[n].param && to < model->node[n].param + PTQ_PARAM_COUNT)
                fill_param(model, &model->node[n], from, to);
    }
}

/* What others wrote for people. The keys of our own format say something else there. */
static int copy_meta(const ptq_archive *archive, ptq_model *model) {
    ptq_error err;

    for (int i = 0; i < archive->metas; i++) {
        const char *key = archive->meta[i].key;

        if (strcmp(key, "format") == 0 || strcmp(key, "format_version") == 0 ||
            strcmp(key, "self_test") == 0)
            continue;
        if (ptq_model_set_meta(model, key, archive->meta[i].value, &err))
            return fail("%s", err.text);
    }
    return 0;
}

/* ---- All of it ---- */

static int build_model(const char *path, const torch_options *options, assumed *open,
                       const tensors *all, ptq_model **out) {
    ptq_error err;

    if (options->graph ? read_graph(options->graph, out) : make_resnet8(open, all, out))
        return 1;
    if (!options->graph)
        leave_out_biases(all, *out);
    for (int i = 0; i < (*out)->nodes; i++)
        for (int k = 0; k < PTQ_PARAM_COUNT; k++)
            if ((*out)->node[i].param[k].rank && (*out)->node[i].param[k].type != PTQ_TYPE_F32)
                return fail("%s: node %s has quantized weights; give the graph of a float network",
                            options->graph, (*out)->node[i].name);
    if (check_tensors(path, all, *out))
        return 1;
    fill_params(all, *out);
    if (copy_meta(all->archive, *out))
        return 1;
    return ptq_model_check(*out, &err) ? fail("%s: %s", path, err.text) : 0;
}

static int import_archive(const char *path, const torch_options *options, assumed *open,
                          const ptq_archive *archive, ptq_model **out) {
    rules map = {NULL, NULL, NULL, 0};
    tensors all = {archive, NULL};
    int status;

    all.ours = calloc((size_t)archive->entries + 1, sizeof *all.ours);
    status = all.ours ? 0 : fail("no memory for %d names", archive->entries);
    if (!status && options->map)
        status = read_rules(options->map, &map);
    if (!status)
        status = name_tensors(&all, &map) || build_model(path, options, open, &all, out);
    for (int i = 0; i < archive->entries && all.ours; i++)
        free(all.ours[i]);
    free(all.ours);
    free(map.item);
    free(map.text);
    return status;
}

static int has_graph(const ptq_archive *archive) {
    for (int i = 0; i < archive->metas; i++)
        if (strcmp(archive->meta[i].key, "graph") == 0)
            return 1;
    return 0;
}

/* What says how the network is made leaves nothing to assume. */
static int refuse_choices(const char *graph, const assumed *open) {
    if (open->padding || open->epsilon)
        return fail("%s says itself how the network pads and which epsilon it has; leave out "
                    "--padding and --epsilon",
                    graph);
    return 0;
}

int read_torch(const char *path, torch_options *options, assumed *open, ptq_model **out) {
    ptq_archive *archive = NULL;
    ptq_error err;
    int status;

    if ((options->graph && refuse_choices(options->graph, open)) || read_archive(path, &archive))
        return 1;
    options->whole = has_graph(archive);
    if (!options->whole)
        status = import_archive(path, options, open, archive, out);
    else if (options->map || options->graph || open->padding || open->epsilon)
        status = fail("%s has a graph of its own: --map, --graph, --padding and --epsilon are for "
                      "files without",
                      path);
    else
        status = ptq_model_load(path, NULL, out, &err) ? fail("%s", err.text) : 0;
    ptq_archive_free(archive);
    return status;
}
