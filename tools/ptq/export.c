/* ptq export: a model in the form of other programs, or as C code. */
#include "c_header.h"

static const char *model_option, *header_option, *name_option;
static int standalone;

static const option_spec specs[] = {
    {"model", 'm', "MODEL", "model file (.safetensors)", &model_option, NULL, NULL, 0},
    {"c-header", 0, "OUT.h", "write the model as C code", &header_option, NULL, NULL, 0},
    {"standalone", 0, NULL, "code that does without ptq.h; integer models only", NULL, NULL,
     &standalone, 0},
    {"name", 0, "PREFIX", "what its functions begin with (default: from OUT.h)", &name_option, NULL,
     NULL, 0},
    {0}};

static const command_help help = {
    "export [--model MODEL] --c-header OUT.h [--standalone] [--name PREFIX]",
    "Writes a model as one C header: its weights as constants, all memory static, one function\n"
    "from pixels to logits. The header is used together with ptq.h; or, with --standalone, alone:\n"
    "it then holds the operators that the network needs, in integers, for microcontrollers.\n"
    "Either gives the logits of 'ptq run', to the last bit where the model runs on integers.",
    "ptq export --model int8.safetensors --c-header net.h --standalone"};

int command_export(int argc, char **argv)
{
    int parsed = parse_options(argc, argv, specs, &help, NULL, 0);
    char path[PATH_SIZE];

    if (parsed)
        return parsed == OPTIONS_BAD;
    if (!header_option)
        return fail("--c-header OUT.h is needed; see 'ptq export --help'");
    if (find_model(model_option, path) || check_output(header_option, path))
        return 1;
    return export_c_header(path, header_option, name_option, standalone);
}
