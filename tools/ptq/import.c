/* ptq import: a model file from what other programs wrote. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "import/facts.h"
#include "import/keras.h"
#include "import/torch.h"
#include "onnx/onnx.h"
#include "ptq.h"
#include "shared/options.h"
#include "shared/output.h"

typedef struct import_options {
    const char *output, *mean, *std;
    torch_options torch;
    facts known;
} import_options;

static const command_help help = {
    "import FILE.h5|FILE.onnx|FILE.safetensors -o MODEL.safetensors",
    "Reads a Keras ResNet8 (.h5), a convolutional network (.onnx; float, or quantized in QDQ or\n"
    "QOperator form), or the tensors of a safetensors file such as a PyTorch state_dict, and "
    "writes a\n"
    "model file with its graph. Weights keep every bit, codes too; 16-bit and 64-bit reals become\n"
    "single precision. Networks take pixels of 0..255 unless the file itself scales them, or "
    "--mean\n"
    "and --std say how the network was trained.\n\n"
    "A safetensors file tells no network: it is taken for ResNet8 as Keras makes it (strided\n"
    "convolutions pad at the bottom and the right, pixels are 0..255), unless --graph gives the\n"
    "text of another; 'ptq info --graph' prints such a text. In a --map file a * at the left\n"
    "stands for any characters, and for the same ones at the right; - at the right leaves a\n"
    "tensor out; the first rule that fits counts; a # begins a comment:\n\n"
    "    module.layer1.0.* = block1.*",
    "ptq import pretrainedResnet.h5 -o resnet8.safetensors\n"
    "  ptq import state_dict.safetensors --map names.txt -o resnet8.safetensors"};

static int parse(int argc, char **argv, import_options *o, char **path) {
    const option_spec specs[] = {
        {"output", 'o', "MODEL", "where to write the model file", .text = &o->output,
         .file = WRITTEN_FILE},
        {"map", 0, "FILE", "names of tensors (.safetensors): lines 'theirs = ours'",
         .text = &o->torch.map, .file = READ_FILE},
        {"graph", 0, "FILE", "the network (.safetensors; default: ResNet8)",
         .text = &o->torch.graph, .file = READ_FILE},
        {"epsilon", 0, "E", "of ResNet8's batch norms (default: 1e-5 for PyTorch's, else 1e-3)",
         .text = &o->torch.epsilon},
        {"mean", 0, "M,M,M", "subtracted from pixels of 0..255, one number for each channel",
         .text = &o->mean},
        {"std", 0, "S,S,S", "then divides them; torchvision's numbers times 255", .text = &o->std},
        {"input", 0, "TYPE", "what the network takes: u8, pixels (default), or f32, real numbers",
         .text = &o->known.input},
        {"classes", 0, "A,B,C", "names of the classes, or a file with one a line",
         .text = &o->known.classes},
        {"resize", 0, "RULE",
         "how pictures get to its size: crop (shorter side, middle) or stretch",
         .text = &o->known.resize},
        {0}};

    return parse_options(argc, argv, specs, &help, path, 1);
}

static int has_suffix(const char *text, const char *suffix) {
    size_t length = strlen(text), n = strlen(suffix);

    return length >= n && strcmp(text + length - n, suffix) == 0;
}

static int import_file(const import_options *o, const char *path, ptq_model **out) {
    if (!has_suffix(path, ".safetensors") && (o->torch.map || o->torch.graph || o->torch.epsilon))
        return fail("--map, --graph and --epsilon go with .safetensors files");
    if (has_suffix(path, ".h5") || has_suffix(path, ".hdf5"))
        return read_keras(path, out);
    if (has_suffix(path, ".onnx"))
        return import_onnx(path, out);
    if (!has_suffix(path, ".safetensors"))
        return fail("%s: the name must end in .h5, .onnx or .safetensors", path);
    return read_torch(path, &o->torch, out);
}

/* "1.5,2,3": one number for each channel. */
static int read_numbers(const char *option, const char *text, float *out, int count) {
    char *end = NULL;

    for (int i = 0; i < count; i++, text = end + 1) {
        out[i] = strtof(text, &end);
        if (end == text || *end != (i + 1 < count ? ',' : 0))
            return fail("--%s needs %d numbers with commas between them", option, count);
    }
    return 0;
}

static int has_preprocessing(const ptq_model *model, int channels) {
    for (int c = 0; c < channels; c++)
        if (model->mean[c] < 0 || model->mean[c] > 0 || model->std[c] < 1 || model->std[c] > 1)
            return 1;
    return 0;
}

static int set_preprocessing(const import_options *o, ptq_model *model) {
    int channels = model->node[0].shape[2];

    if (!o->mean && !o->std)
        return 0;
    if (channels > PTQ_MAX_PIXEL_CHANNELS)
        return fail("--mean and --std are for up to %d channels", PTQ_MAX_PIXEL_CHANNELS);
    if (has_preprocessing(model, channels))
        return fail("the file scales its pixels itself; leave out --mean and --std");
    return (o->mean && read_numbers("mean", o->mean, model->mean, channels)) ||
           (o->std && read_numbers("std", o->std, model->std, channels));
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
        return fail("a file to import and -o MODEL are needed; see 'ptq import --help'");
    status =
        import_file(&o, path, &model) || set_preprocessing(&o, model) || set_facts(&o.known, model);
    if (!status && ptq_model_save(model, o.output, &err))
        status = fail("%s", err.text);
    if (!status)
        say("%s: %d nodes in %s\n", path, model->nodes, o.output);
    ptq_model_free(model);
    return status;
}
