/* ptq: the command-line program. One subcommand a file. */
#include "commands.h"

int main(int argc, char **argv) { return ptq_tool(argc, argv); }
