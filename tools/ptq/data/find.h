/* Where models and data are: as given, as the environment says, or in the usual places. */
#ifndef PTQ_TOOL_FIND_H
#define PTQ_TOOL_FIND_H

#include "shared/files.h"

/* Where to look: `given`, else the environment, the project's own directories, PTQ_SHARED. 0, or 1
   after an error on standard error. find_data returns a directory or a file. find_model_for takes
   none of the project's models but one that knows the classes of `data`. */
int find_model(const char *given, char path[PATH_SIZE]);
int find_model_for(const char *given, const char *data, char path[PATH_SIZE]);
int find_data(const char *given, char path[PATH_SIZE]);

/* The same, but silent: 1 if there is none. */
int look_for_model(const char *given, char path[PATH_SIZE]);
int look_for_data(const char *given, char path[PATH_SIZE]);

#endif
