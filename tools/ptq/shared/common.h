/* All of it, for files that are still to name what they use. */
#ifndef PTQ_TOOL_COMMON_H
#define PTQ_TOOL_COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "commands.h"
#include "data/find.h"
#include "measure/accuracy.h"
#include "ptq.h"
#include "shared/engine.h"
#include "shared/files.h"
#include "shared/machine.h"
#include "shared/options.h"
#include "shared/output.h"
#include "shared/progress.h"

#endif
