/* Files: whether they are there, how large, whether they can be written; safetensors files. */
#ifndef PTQ_TOOL_FILES_H
#define PTQ_TOOL_FILES_H

#include <stddef.h>

#include "ptq.h"

#define PATH_SIZE 4096

/* The directory part of a path: "." where there is none. */
void directory_of(const char *path, char directory[PATH_SIZE]);

size_t file_size(const char *path); /* 0 where there is no file */

/* A safetensors file as it is. 0, or 1 after an error. */
int read_archive(const char *path, ptq_archive **out);
int save_archive(const ptq_archive *archive, const char *path);

/* Before long work: whether a file can be written there. */
int check_output(const char *path);

/* No command overwrites what it reads, under whatever name. A command's outputs are added before
   its inputs are checked; an input is a file, or a directory whose files are read. An output that
   is also read on purpose, to go on from it, is added alone. 0, or 1 after an error. */
void forget_outputs(void);
int add_output(const char *path);
int check_input(const char *path);

#endif
