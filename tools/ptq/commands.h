/* The subcommands of ptq, each in the file of its name. */
#ifndef PTQ_TOOL_COMMANDS_H
#define PTQ_TOOL_COMMANDS_H

/* The whole tool: what main does with its arguments. Nothing is left over from an earlier call. The
   result is the exit status. */
int ptq_tool(int argc, char **argv);

/* The argument vector begins with the subcommand's name; the result is the exit status. */
int command_bench(int argc, char **argv);
int command_calibrate(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_export(int argc, char **argv);
int command_import(int argc, char **argv);
int command_info(int argc, char **argv);
int command_mistake(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_report(int argc, char **argv);
int command_run(int argc, char **argv);
int command_sensitivity(int argc, char **argv);
int command_sweep(int argc, char **argv);
int command_train(int argc, char **argv);

#endif
