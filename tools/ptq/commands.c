/* The subcommands, and which of them an argument vector asks for. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "ptq.h"
#include "shared/output.h"

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} command;

static const command commands[] = {
    {"info", command_info, "show what a model file holds"},
    {"import", command_import, "turn an .onnx, Keras or .safetensors file into a model file"},
    {"export", command_export, "write a model for other programs, as ONNX or C code"},
    {"calibrate", command_calibrate, "observe a float model's tensors on training images"},
    {"quantize", command_quantize, "turn a float model into one that runs on integers"},
    {"sensitivity", command_sensitivity, "rank layers by what quantizing them costs, and advise"},
    {"sweep", command_sweep, "quantize in many ways and tabulate what each loses"},
    {"eval", command_eval, "measure a model's accuracy on CIFAR-10, beside its float origin"},
    {"run", command_run, "write a model's logits for a file of images, or explain one"},
    {"train", command_train, "train a float network on CIFAR-10"},
    {"bench", command_bench, "measure a model's speed"},
    {"report", command_report, "write a page about quantized models beside the float one"},
    {"mistake", command_mistake, "commit a classic mistake on purpose, and measure it"},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *to) {
    fputs("usage: ptq SUBCOMMAND [OPTIONS]\n\n"
          "Post-training quantization of convolutional networks, version " PTQ_VERSION ".\n\n",
          to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].about);
    fputs("\n'ptq SUBCOMMAND --help' tells more. Environment: PTQ_MODEL and CIFAR10_DIR are looked "
          "at\nwhere --model and --data are not given; PTQ_ISA forces an instruction set.\n\n"
          "Example:\n  ptq eval --model resnet8.safetensors --data data/cifar-10-batches-bin\n",
          to);
}

static int is_one_of(const char *word, const char *a, const char *b) {
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2)
        return fail("no subcommand; see 'ptq --help'");
    if (is_one_of(argv[1], "--help", "help")) {
        print_usage(stdout);
        return 0;
    }
    if (is_one_of(argv[1], "--version", "version")) {
        printf("ptq %s\n", ptq_version());
        return 0;
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            output_begin(commands[i].name);
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return fail("unknown subcommand '%s'; see 'ptq --help'", argv[1]);
}

int ptq_tool(int argc, char **argv) {
    int status;

    output_begin("");
    status = dispatch(argc, argv);

    /* A full disk shows itself only now. */
    if (fflush(stdout) != 0 || ferror(stdout))
        return fail("cannot write to standard output");
    return status;
}
