/* Names of nodes, from names of other programs. */
#ifndef PTQ_TOOL_NAMES_H
#define PTQ_TOOL_NAMES_H

#include "ptq.h"

/* `from` and a suffix such as ".relu", or "", as a legal name that the model does not have yet:
   other characters become _, a number behind it tells it from others. */
void unique_name(const ptq_model *model, const char *from, const char *suffix,
                 char name[PTQ_NAME_SIZE]);

#endif
