/* Fuzz target: the bytes are a seed for a random network and random pixels; every instruction set
   that is here must give what the scalar kernels give. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t seed = ptq_image_hash(data, size);
    int isa;

    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT; isa++)
        if (ptq_isa_available((ptq_isa)isa))
            expect(!ptq__probe_once((ptq_isa)isa, seed, seed % 5 != 0, &err));
    return 0;
}
