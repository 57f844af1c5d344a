/* Interrupts (SIGINT, SIGTERM) that long work notices and ends itself for. */
#ifndef PTQ_TOOL_INTERRUPT_H
#define PTQ_TOOL_INTERRUPT_H

/* From now on an interrupt does not end the program, but is told. */
void interrupts_watch(void);
int interrupts_came(void);

/* They end the program again. */
void interrupts_unwatch(void);

#endif
