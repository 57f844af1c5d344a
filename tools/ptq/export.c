/* ptq export: a model in the form of other programs, or as C code. */
#include "export/c_header.h"
#include "shared/common.h"
#include "onnx/onnx.h"

static const char *model_option, *header_option, *name_option, *onnx_option, *form_option;
static int standalone;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "model file (.safetensors)", &model_option, NULL, NULL, 0},
    {"onnx", 0, "OUT.onnx", "write an ONNX file", &onnx_option, NULL, NULL, 0},
    {"form", 0, "FORM", "of a quantized model: qdq (default) or qoperator", &form_option, NULL,
     NULL, 0},
    {"c-header", 0, "OUT.h", "write the model as C code", &header_option, NULL, NULL, 0},
    {"standalone", 0, NULL, "code that does without ptq.h; integer models only", NULL, NULL,
     &standalone, 0},
    {"name", 0, "PREFIX", "what its functions begin with (default: from OUT.h)", &name_option, NULL,
     NULL, 0},
    {0}};

static const command_help help = {
    "export [--model MODEL] --onnx OUT.onnx [--form qdq|qoperator]\n"
    "       ptq export [--model MODEL] --c-header OUT.h [--standalone] [--name PREFIX]",
    "ONNX: float models and quantized ones; qdq puts QuantizeLinear and DequantizeLinear around\n"
    "float operators, qoperator uses integer operators throughout.\n\n"
    "C: one header with the weights as constants, all memory static, one function from pixels to\n"
    "logits. It is used together with ptq.h; or, with --standalone, alone: it then holds the\n"
    "operators that the network needs, in integers, for microcontrollers. Either gives the same\n"
    "logits as 'ptq run', to the last bit where the model runs on integers.",
    "ptq export --model resnet8-int8.safetensors --onnx resnet8-int8.onnx\n"
    "  ptq export --model resnet8-int8.safetensors --c-header net.h --standalone"};

static int check_options(void) {
    if (!onnx_option == !header_option)
        return fail("say what to write: --onnx OUT.onnx or --c-header OUT.h");
    if (onnx_option && (standalone || name_option))
        return fail("--standalone and --name go with --c-header");
    if (header_option && form_option)
        return fail("--form goes with --onnx");
    return 0;
}

int command_export(int argc, char **argv) {
    char path[PATH_SIZE];
    int parsed = parse_options(argc, argv, specs, &help, NULL, 0);

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (check_options() || find_model(model_option, path) ||
        check_output(onnx_option ? onnx_option : header_option, path))
        return 1;
    if (header_option)
        return export_c_header(path, header_option, name_option, standalone);
    if (export_onnx(path, onnx_option, form_option))
        return 1;
    say("%s: ONNX in %s\n", path, onnx_option);
    return 0;
}
