/* ptq export: a model in the form of other programs, or as C code. */
#include "commands.h"
#include "data/find.h"
#include "export/c_header.h"
#include "export/tflite.h"
#include "onnx/onnx.h"
#include "shared/files.h"
#include "shared/options.h"
#include "shared/output.h"

typedef struct export_options {
    const char *model, *c_header, *name, *onnx, *form, *tflite;
    header_form header;
} export_options;

static const command_help help = {
    "export [--model MODEL] --onnx OUT.onnx [--form qdq|qoperator]\n"
    "       ptq export [--model MODEL] --tflite OUT.tflite\n"
    "       ptq export [--model MODEL] --c-header OUT.h [--standalone]",
    "ONNX: float models and quantized ones; qdq puts QuantizeLinear and DequantizeLinear around\n"
    "float operators, qoperator uses integer operators throughout.\n\n"
    "TensorFlow Lite: float models, and int8 ones of its arithmetic, which it runs to the same "
    "codes\n"
    "('ptq quantize --preset tflite --arithmetic xnnpack --code-logits').\n\n"
    "C: one header with the weights as constants, all memory static, one function from pixels to\n"
    "logits. It is used together with ptq.h; or, with --standalone, alone: it then holds the\n"
    "operators that the network needs, in integers, for microcontrollers. Either gives the same\n"
    "logits as 'ptq run', to the last bit where the model runs on integers. What a standalone\n"
    "header needs is told node by node: flash for its constants, RAM while it runs.",
    "ptq export --model resnet8-int8.safetensors --onnx resnet8-int8.onnx\n"
    "  ptq export --model resnet8-int8.safetensors --c-header net.h --standalone"};

static int parse(int argc, char **argv, export_options *o) {
    const option_spec specs[] = {
        {"model", 'm', "MODEL", "model file (.safetensors)", .text = &o->model, .file = READ_FILE},
        {"onnx", 0, "OUT.onnx", "write an ONNX file", .text = &o->onnx, .file = WRITTEN_FILE},
        {"tflite", 0, "OUT.tflite", "write a TensorFlow Lite file", .text = &o->tflite,
         .file = WRITTEN_FILE},
        {"form", 0, "FORM", "of a quantized model: qdq (default) or qoperator", .text = &o->form},
        {"c-header", 0, "OUT.h", "write the model as C code", .text = &o->c_header,
         .file = WRITTEN_FILE},
        {"standalone", 0, NULL, "code that does without ptq.h; integer models only",
         .flag = &o->header.standalone},
        {"small", 0, NULL, "with --standalone: least code and memory, about half as fast",
         .flag = &o->header.small},
        {"test-vector", 0, NULL, "with --standalone: an image and its logits, to check firmware by",
         .flag = &o->header.test},
        {"flash", 0, "BYTES", "with --standalone: refuse a header that needs more",
         .number = &o->header.flash, .least = 1},
        {"ram", 0, "BYTES", "the same of RAM", .number = &o->header.ram, .least = 1},
        {"name", 0, "PREFIX", "what its functions begin with (default: from OUT.h)",
         .text = &o->name},
        {0}};

    return parse_options(argc, argv, specs, &help, NULL, 0);
}

static int check_options(const export_options *o) {
    if (!!o->onnx + !!o->c_header + !!o->tflite != 1)
        return misuse(
            "say what to write: --onnx OUT.onnx, --tflite OUT.tflite or --c-header OUT.h");
    if (!o->c_header && (o->header.standalone || o->name))
        return misuse("--standalone and --name go with --c-header");
    if ((o->header.small || o->header.test || o->header.flash || o->header.ram) &&
        !o->header.standalone)
        return misuse("--small, --test-vector, --flash and --ram go with --standalone");
    if (!o->onnx && o->form)
        return misuse("--form goes with --onnx");
    return 0;
}

int command_export(int argc, char **argv) {
    export_options o = {0};
    char path[PATH_SIZE];
    int parsed = parse(argc, argv, &o);

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (check_options(&o) || find_model(o.model, path) ||
        check_output(o.onnx     ? o.onnx
                     : o.tflite ? o.tflite
                                : o.c_header))
        return 1;
    if (o.c_header)
        return export_c_header(path, o.c_header, o.name, &o.header);
    if (o.onnx ? export_onnx(path, o.onnx, o.form) : export_tflite(path, o.tflite))
        return 1;
    say_written(o.onnx ? o.onnx : o.tflite, "%s as %s", path, o.onnx ? "ONNX" : "TensorFlow Lite");
    return 0;
}
