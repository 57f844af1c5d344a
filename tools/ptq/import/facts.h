/* What a network's file does not tell, and its user knows: whether it takes pixels, what its classes
   are called, how pictures are brought to its size. */
#ifndef PTQ_TOOL_FACTS_H
#define PTQ_TOOL_FACTS_H

#include "ptq.h"

/* The values of --input, --classes and --resize; NULL where they are not given. */
typedef struct facts {
    const char *input, *classes, *resize;
} facts;

/* 0, or 1 after an error on standard error. */
int set_facts(const facts *known, ptq_model *model);

#endif
