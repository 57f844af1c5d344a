/* ptq import: a model file from what other programs wrote. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "commands.h"
#include "import/assume.h"
#include "import/facts.h"
#include "import/keras.h"
#include "import/tflite.h"
#include "import/torch.h"
#include "onnx/onnx.h"
#include "ptq.h"
#include "shared/kind.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/pixels.h"

typedef struct import_options {
    const char *output, *mean, *std;
    tflite_options lite;
    torch_options torch;
    assumed open;
    file_kind kind; /* of the file to import */
    facts known;
} import_options;

static const command_help help = {
    "import FILE -o MODEL.safetensors [OPTIONS]",
    "Reads a convolutional network of Keras (.keras, .h5) or in ONNX (.onnx; float, or quantized\n"
    "in QDQ or QOperator form), of TensorFlow Lite (.tflite; float or int8), or the tensors of a\n"
    "safetensors file such as a PyTorch state_dict, and writes a model file with its graph. "
    "Weights keep every bit, codes too;\n"
    "16-bit and 64-bit reals become single precision. Networks take pixels of 0..255 unless the\n"
    "file itself scales them, or --mean and --std say how the network was trained.\n\n"
    "A safetensors file does not describe a network: it is taken to be ResNet8, unless --graph\n"
    "gives the text of another; 'ptq info --graph' prints such a text. Nor does it say how "
    "strided\n"
    "convolutions pad: at all sides if the file looks like PyTorch's, else at the bottom and the\n"
    "right as Keras's do; --padding chooses. What was assumed is told in one line. In a --map "
    "file\n"
    "a * on the left stands for any characters, and on the right for the same ones; a - on the\n"
    "right leaves a tensor out; the first rule that matches counts; a # begins a comment:\n\n"
    "    module.layer1.0.* = block1.*",
    "ptq import net.keras -o net.safetensors\n"
    "  ptq import state_dict.safetensors --map names.txt -o resnet8.safetensors"};

static int parse(int argc, char **argv, import_options *o, char **path) {
    const option_spec specs[] = {
        {"output", 'o', "MODEL", "where to write the model file", .text = &o->output,
         .file = WRITTEN_FILE},
        {"map", 0, "FILE", "names of tensors (.safetensors): lines 'theirs = ours'",
         .text = &o->torch.map, .file = READ_FILE},
        {"graph", 0, "FILE", "the network (.safetensors; default: ResNet8)",
         .text = &o->torch.graph, .file = READ_FILE},
        {"padding", 0, "WHOSE",
         "of ResNet8's strided convolutions: tensorflow or pytorch (default: the file's origin)",
         .text = &o->open.padding},
        {"epsilon", 0, "E",
         "of ResNet8's batch norms (default: the file's; else PyTorch's 1e-5, Keras's 1e-3)",
         .text = &o->open.epsilon},
        {"mean", 0, "M,M,M", "subtracted from pixels of 0..255, one number, or one a channel",
         .text = &o->mean},
        {"std", 0, "S,S,S", "then divides them; torchvision's numbers times 255", .text = &o->std},
        {"input", 0, "TYPE", "what the network takes: u8, pixels (default), or f32, real numbers",
         .text = &o->known.input},
        {"arithmetic", 0, "NAME",
         "of integers (.tflite): xnnpack (default), as TensorFlow Lite computes; fixed, as on "
         "microcontrollers; onnx",
         .text = &o->lite.arithmetic},
        {"real-weights", 0, NULL,
         "turn weight codes of hybrid layers (.tflite) into real numbers, to quantize them again",
         .flag = &o->lite.real_weights},
        {"classes", 0, "A,B,C", "names of the classes, or a file with one a line",
         .text = &o->known.classes},
        {"resize", 0, "RULE",
         "how pictures are brought to its size: crop (shorter side, middle) or stretch",
         .text = &o->known.resize},
        {0}};

    return parse_options(argc, argv, specs, &help, path, 1);
}

static int has_suffix(const char *text, const char *suffix) {
    size_t length = strlen(text), n = strlen(suffix);

    return length >= n && strcasecmp(text + length - n, suffix) == 0;
}

/* By content; endings tell what files that are damaged were meant to be. */
static file_kind kind_to_import(const char *path) {
    file_kind kind = kind_of_file(path);

    if (has_suffix(path, ".keras") && (kind == KIND_OTHER || kind == KIND_ZIP))
        return KIND_KERAS;
    if (kind != KIND_OTHER)
        return kind;
    if (has_suffix(path, ".h5") || has_suffix(path, ".hdf5"))
        return KIND_HDF5;
    if (has_suffix(path, ".onnx"))
        return KIND_ONNX;
    if (has_suffix(path, ".tflite"))
        return KIND_TFLITE;
    return has_suffix(path, ".safetensors") ? KIND_STATE_DICT : KIND_OTHER;
}

static int import_file(import_options *o, const char *path, ptq_model **out) {
    if (o->kind != KIND_STATE_DICT && (o->torch.map || o->torch.graph))
        return misuse("--map and --graph go with .safetensors files");
    if (o->kind == KIND_ONNX && (o->open.epsilon || o->open.padding))
        return fail("%s says itself how it pads and which epsilon it has; leave out --padding and "
                    "--epsilon",
                    path);
    if (o->kind != KIND_TFLITE && (o->lite.arithmetic || o->lite.real_weights))
        return fail("--arithmetic and --real-weights go with .tflite files");
    if (o->kind == KIND_TFLITE && (o->open.epsilon || o->open.padding))
        return fail("%s says itself how it pads; leave out --padding and --epsilon", path);
    switch (o->kind) {
    case KIND_TFLITE:
        return import_tflite(path, &o->lite, out);
    case KIND_HDF5:
    case KIND_KERAS:
        return read_keras(path, &o->open, out);
    case KIND_ONNX:
        return import_onnx(path, out);
    case KIND_STATE_DICT:
        return read_torch(path, &o->torch, &o->open, out);
    case KIND_OTHER:
        return fail("%s: the name must end in .h5, .keras, .onnx, .tflite or .safetensors", path);
    default:
        return refuse_kind(path, o->kind, "a .h5, .keras, .onnx, .tflite or .safetensors file");
    }
}

/* Numbers of pixels 0..1, which a file may bring, are wrong for ours, and give way. */
static int set_preprocessing(const import_options *o, ptq_model *model) {
    int channels = model->node[0].shape[2];

    if (!o->mean && !o->std)
        return 0;
    if (channels > PTQ_MAX_PIXEL_CHANNELS)
        return misuse("--mean and --std are for up to %d channels", PTQ_MAX_PIXEL_CHANNELS);
    if (scales_pixels(model) && !scales_unit_pixels(model))
        return fail("%s scales its pixels itself; leave out --mean and --std",
                    o->torch.graph ? o->torch.graph : "the file");
    return (o->mean && read_channels("mean", o->mean, channels, -1e6f, model->mean)) ||
           (o->std && read_channels("std", o->std, channels, 1e-6f, model->std));
}

/* ---- What is assumed ---- */

/* What is said in one line. */
typedef struct assumption {
    char text[1024];
} assumption;

PRINTF_LIKE(2, 3) static void add(assumption *to, const char *format, ...) {
    size_t used = strlen(to->text);
    va_list args;

    va_start(args, format);
    vsnprintf(to->text + used, sizeof to->text - used, format, args);
    va_end(args);
}

static void add_pixels(const import_options *o, const ptq_model *model, assumption *to) {
    char mean[256], std[256];

    list_channels(model, model->mean, 1, mean, sizeof mean);
    list_channels(model, model->std, 1, std, sizeof std);
    add(to, "%s, mean %s, std %s (%s), ", model->node[0].real ? "real numbers" : "pixels 0..255",
        mean, std,
        o->mean || o->std       ? "as said"
        : !scales_pixels(model) ? "default"
        : o->torch.graph        ? "by the graph"
                                : "by the file");
}

/* Where convolutions with a stride pad: the one thing that others do otherwise. */
static const char *padding_word(const ptq_model *model) {
    const char *found = "the same everywhere";

    for (int i = 0; i < model->nodes; i++) {
        const ptq_node *node = &model->node[i];

        if (node->op == PTQ_OP_CONV2D && node->stride[0] > 1 && node->kernel[0] > 1)
            found = node->padding == PTQ_PADDING_SAME ? "tensorflow" : "pytorch";
    }
    return found;
}

static float first_epsilon(const ptq_model *model) {
    for (int i = 0; i < model->nodes; i++)
        if (model->node[i].op == PTQ_OP_BATCH_NORM)
            return model->node[i].epsilon;
    return 0;
}

static void add_network(const import_options *o, const ptq_model *model, assumption *to) {
    const assumed *open = &o->open;
    double epsilon = (double)first_epsilon(model);

    if (!open->padding_from)
        add(to, "padding and epsilon by the %s, ",
            o->torch.graph || o->torch.whole ? "graph" : "file");
    else if (strcmp(open->padding_from, open->epsilon_from) == 0)
        add(to, "padding %s, epsilon %g (both %s), ", padding_word(model), epsilon,
            open->padding_from);
    else
        add(to, "padding %s (%s), epsilon %g (%s), ", padding_word(model), open->padding_from,
            epsilon, open->epsilon_from);
}

static void add_layout(const import_options *o, const ptq_model *model, assumption *to) {
    const char *input = o->kind == KIND_ONNX ? ptq_model_get_meta(model, ONNX_INPUT_META) : 0;

    if (input)
        add(to, "input %s, ", input);
    else if (o->kind == KIND_STATE_DICT && !o->torch.whole)
        add(to, "weights O x I x H x W, ");
    else
        add(to, "layout by the file, ");
}

/* One line of all that the file may have meant otherwise. */
static void say_assumed(const import_options *o, const char *path, const ptq_model *model) {
    const int *shape = model->node[ptq_model_logits(model)].shape;

    assumption all = {""};

    add_network(o, model, &all);
    add_pixels(o, model, &all);
    add_layout(o, model, &all);
    say_line(2, "%s: assumed: %s%d classes by %s", path, all.text, shape[0] * shape[1] * shape[2],
             ptq_model_get_meta(model, "class_names") ? "name" : "number");
}

int command_import(int argc, char **argv) {
    import_options o = {0};
    char *path = NULL;
    int parsed = parse(argc, argv, &o, &path);
    ptq_model *model = NULL;
    ptq_error err;
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!path || !o.output)
        return misuse("a file to import and -o MODEL are needed; see 'ptq import --help'");
    o.kind = kind_to_import(path);
    status =
        import_file(&o, path, &model) || set_preprocessing(&o, model) || set_facts(&o.known, model);
    if (!status && ptq_model_save(model, o.output, &err))
        status = fail("%s", err.text);
    if (!status) {
        say_assumed(&o, path, model);
        warn_of_pixels(path, model, "import it");
        say_written(o.output, "%d nodes", model->nodes);
    }
    ptq_model_free(model);
    return status;
}
