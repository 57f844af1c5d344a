/* The subcommands, and which of them an argument vector asks for. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "ptq.h"
#include "shared/output.h"
#include "shared/suggest.h"

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
    {"eval", command_eval, "measure a model's accuracy, beside its float origin"},
    {"run", command_run, "write logits for images, name their classes, or explain one"},
    {"train", command_train, "train a float network"},
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
    fputs(
        "\n'ptq help SUBCOMMAND' tells more. Environment: PTQ_MODEL and CIFAR10_DIR are\n"
        "looked at where --model and --data are not given; PTQ_ISA forces an instruction\nset.\n\n"
        "Example:\n  ptq eval --model resnet8.safetensors --data data/cifar-10-batches-bin\n",
        to);
}

static const command *find_command(const char *name) {
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

static int run_command(const char *name, int argc, char **argv) {
    const command *found = find_command(name);
    suggestion near = {name, NULL, 0};
    char text[SUGGESTION_SIZE];

    if (found) {
        output_begin(found->name);
        return found->run(argc, argv);
    }
    for (size_t i = 0; i < COMMANDS; i++)
        suggest(&near, commands[i].name);
    if (!near.nearest)
        return misuse("unknown subcommand '%s'; see 'ptq --help'", name);
    return misuse("unknown subcommand '%s'%s? 'ptq --help' lists them all", name,
                  suggestion_text(&near, "", text));
}

/* "ptq help NAME" is "ptq NAME --help". */
static int show_help(char *name) {
    char option[] = "--help";
    char *argv[] = {name, option, NULL};

    return run_command(name, 2, argv);
}

static int is_one_of(const char *word, const char *const *list) {
    while (*list && strcmp(word, *list) != 0)
        list++;
    return *list != NULL;
}

static int dispatch(int argc, char **argv) {
    static const char *const help[] = {"--help", "-h", "help", NULL};
    static const char *const version[] = {"--version", "version", NULL};

    if (argc > 2 && strcmp(argv[1], "help") == 0 && !is_one_of(argv[2], help))
        return show_help(argv[2]);
    if (argc < 2 || is_one_of(argv[1], help)) {
        print_usage(stdout);
        return 0;
    }
    if (is_one_of(argv[1], version)) {
        printf("ptq %s\n", ptq_version());
        return 0;
    }
    return run_command(argv[1], argc - 1, argv + 1);
}

int ptq_tool(int argc, char **argv) {
    int status;

    output_begin("");
    status = dispatch(argc, argv);

    /* A full disk shows itself only now. */
    if (fflush(stdout) != 0 || ferror(stdout))
        return fail("cannot write to standard output: %s", strerror(errno));
    return status && was_misused() ? 2 : status;
}
