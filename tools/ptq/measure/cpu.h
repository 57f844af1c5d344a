/* ptq info --cpu: the instruction sets of this build and this machine. */
#ifndef PTQ_TOOL_CPU_H
#define PTQ_TOOL_CPU_H

/* Shows them and tests their kernels; `json`: writes that as well. 1 if one fails. */
int show_cpu(int json);

#endif
