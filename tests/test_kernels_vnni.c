/* As test_kernels.c, for the kernels that need VNNI: its one instruction is replaced by others that
   compute exactly the same, so that everything around it is tested on any processor with AVX2 (and
   AVX-512). */
#define PTQ__EMULATE_VNNI
#include "test_kernels.c"
