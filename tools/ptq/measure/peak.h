/* What a core can do. */
#ifndef PTQ_TOOL_PEAK_H
#define PTQ_TOOL_PEAK_H

#include "ptq.h"

/* The multiply-add that the kernels of an instruction set rest on. */
typedef struct peak_unit {
    const char *isa, *name;
    int integer;
    double macs; /* of one turn of the loop */
    void (*loop)(long turns);
} peak_unit;

/* NULL where none is known, or it is not available here. */
const peak_unit *peak_find(ptq_isa isa, int integer);

/* Multiply-adds per nanosecond (GMAC/s) in about `seconds`. */
double peak_measure(const peak_unit *unit, double seconds);

#endif
