/* ptq export: a model file for other programs. */
#include "onnx.h"

static const char *model_option, *onnx_option, *form_option;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "the model file to export", &model_option, NULL, NULL, 0},
    {"onnx", 0, "OUT.onnx", "write an ONNX file", &onnx_option, NULL, NULL, 0},
    {"form", 0, "FORM", "of a quantized model: qdq (default) or qoperator", &form_option, NULL,
     NULL, 0},
    {0}};

static const command_help help = {
    "export --model MODEL --onnx OUT.onnx [--form qdq|qoperator]",
    "Writes a float or quantized model as ONNX. Quantized models: qdq puts QuantizeLinear and\n"
    "DequantizeLinear around float operators, qoperator uses integer operators throughout.",
    "ptq export --model resnet8-int8.safetensors --onnx resnet8-int8.onnx"};

int command_export(int argc, char **argv)
{
    int parsed = parse_options(argc, argv, specs, &help, NULL, 0);
    char path[PATH_SIZE];

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!onnx_option)
        return fail("--onnx OUT.onnx is needed; see 'ptq export --help'");
    if (find_model(model_option, path) || check_output(onnx_option, path))
        return 1;
    if (export_onnx(path, onnx_option, form_option))
        return 1;
    say("%s: ONNX in %s\n", path, onnx_option);
    return 0;
}
