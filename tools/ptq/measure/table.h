/* ptq bench --table: both models under every instruction set that this machine can run. */
#ifndef PTQ_TOOL_TABLE_H
#define PTQ_TOOL_TABLE_H

#include "data/dataset.h"

typedef struct table_options {
    const char *model, *quantized;
    const data_options *data;
    int batch, seconds;
    int json;
} table_options;

int bench_table(const table_options *options);

#endif
