/* Fuzz target: the bytes are a seed for a random network and random pixels; one of the instruction
   sets that are here, in turn, must give what the scalar kernels give. */
#include "fuzz.h"

#include "../shared/probes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t seed = seed_of(data, size);
    ptq_isa here[PTQ_ISA_COUNT];
    unsigned count = 0;
    int isa;

    for (isa = PTQ_ISA_SCALAR + 1; isa < PTQ_ISA_COUNT; isa++)
        if (ptq_isa_support((ptq_isa)isa) == PTQ_SUPPORT_AVAILABLE)
            here[count++] = (ptq_isa)isa;
    if (count)
        expect(!probe_once(here[seed / 5 % count], seed, seed % 5 != 0, &err));
    return 0;
}
