/* As test_kernels.c, also for instruction sets that this processor lacks: see emulation.h. */
#define PTQ__EMULATE
#include "emulation.h"
#define GROUP_TEARDOWN tiles_are_released

#include "test_kernels.c"
