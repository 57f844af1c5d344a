/* The one object that the tools link: they use the public API alone. */
#define PTQ_IMPLEMENTATION
#define PTQ_THREADS
#include "ptq.h"
