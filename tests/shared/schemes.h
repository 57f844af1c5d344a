/* schemes.h - what several tests quantize by, besides the presets. */
#ifndef SCHEMES_H
#define SCHEMES_H

#include <string.h>

/* 2..7 bits for weights and one more for activations; the other choices differ from one number of
   bits to the next. */
static inline ptq_scheme few_bits(int bits) {
    ptq_scheme scheme;

    memset(&scheme, 0, sizeof scheme);
    scheme.weight_bits = bits;
    scheme.activation_bits = bits + 1;
    scheme.weight_affine = scheme.weight_per_tensor = bits % 2;
    scheme.activation_signed = bits > 4;
    scheme.activation_symmetric = bits == 6;
    scheme.code_logits = bits < 4;
    return scheme;
}

#endif
