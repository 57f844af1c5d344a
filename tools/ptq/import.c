/* ptq import: a model file from what other programs wrote. */
#include <string.h>

#include "onnx.h"

static const char *output_option;

static const option_spec specs[] = {
    {"output", 'o', "MODEL", "where to write the model file", &output_option, NULL, NULL, 0}, {0}};

static const command_help help = {
    "import FILE.h5|FILE.onnx|FILE.safetensors -o MODEL.safetensors",
    "Reads a Keras ResNet8 (.h5), a convolutional network (.onnx; float, or quantized in QDQ or\n"
    "QOperator form), or a safetensors file with ResNet8's tensor names, and writes a model file\n"
    "with its graph. Weights keep every bit, codes too.",
    "ptq import pretrainedResnet.h5 -o resnet8.safetensors"};

static int has_suffix(const char *text, const char *suffix)
{
    size_t length = strlen(text), n = strlen(suffix);

    return length >= n && strcmp(text + length - n, suffix) == 0;
}

static int import_file(const char *path, ptq_model **out)
{
    ptq_error err;

    if (has_suffix(path, ".h5") || has_suffix(path, ".hdf5"))
        return read_keras(path, out);
    if (has_suffix(path, ".onnx"))
        return import_onnx(path, out);
    if (!has_suffix(path, ".safetensors"))
        return fail("%s: the name must end in .h5, .onnx or .safetensors", path);
    return ptq_model_load(path, NULL, out, &err) ? fail("%s", err.text) : 0;
}

int command_import(int argc, char **argv)
{
    char *path = NULL;
    int parsed = parse_options(argc, argv, specs, &help, &path, 1);
    ptq_model *model = NULL;
    ptq_error err;
    int status;

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!path || !output_option)
        return fail("a file to import and -o MODEL are needed; see 'ptq import --help'");
    status = import_file(path, &model);
    if (!status && ptq_model_save(model, output_option, &err))
        status = fail("%s", err.text);
    if (!status)
        say("%s: %d nodes in %s\n", path, model->nodes, output_option);
    ptq_model_free(model);
    return status;
}
