/* Names of nodes, from names of other programs. */
#include <stdio.h>
#include <string.h>

#include "shared/names.h"

static int is_legal(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.';
}

void unique_name(const ptq_model *model, const char *from, const char *suffix,
                 char name[PTQ_NAME_SIZE]) {
    char tail[32] = "";
    size_t length = 0;

    for (int i = 1;; i++) {
        size_t room = PTQ_NAME_SIZE - 1 - strlen(suffix) - strlen(tail);

        for (length = 0; length < room && from[length]; length++)
            name[length] = is_legal(from[length]) ? from[length] : '_';
        snprintf(name + length, PTQ_NAME_SIZE - length, "%s%s%s", length ? "" : "x", suffix, tail);
        if (ptq_model_find(model, name) < 0)
            return;
        /* hostile names, all of which become the same, shall not be counted through again */
        snprintf(tail, sizeof tail, ".%d", i < 9 ? i + 1 : model->nodes + i);
    }
}
