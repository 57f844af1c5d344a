#include "import/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/output.h"

/* One name into the list, as JSON has it. The library looks at what is in it. */
static void put_name(FILE *to, const char *name, size_t length, int first) {
    fputs(first ? "[\"" : ",\"", to);
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '"' || name[i] == '\\')
            fputc('\\', to);
        fputc(name[i], to);
    }
    fputc('"', to);
}

/* Names between commas or, of a file, one a line, of which empty ones do not count. Returns how
   many there are; the list is to be freed. */
static int list_names(const char *text, const char *separators, char **list) {
    size_t size, length;
    int count = 0;
    FILE *to = open_memstream(list, &size);

    for (; to && *text; text += length + (text[length] != 0)) {
        length = strcspn(text, separators);
        if (length || separators[0] == ',')
            put_name(to, text, length, !count++);
    }
    if (!to)
        return 0;
    fputs(count ? "]" : "[]", to);
    fclose(to);
    return count;
}

/* `classes` is a file where there is one of that name, else the names themselves. */
static int set_classes(const char *classes, ptq_model *model) {
    const ptq_node *logits = &model->node[ptq_model_logits(model)];
    int wanted = logits->shape[0] * logits->shape[1] * logits->shape[2], count;
    char *list = NULL, *copy;
    void *bytes = NULL;
    size_t size = 0;
    int is_file = ptq_file_read(classes, 1 << 20, NULL, &bytes, &size, NULL) == PTQ_OK;
    ptq_status status;
    ptq_error err;

    copy = calloc(1, size + 1);
    if (!copy)
        return fail("no memory for names of classes");
    if (is_file)
        memcpy(copy, bytes, size);
    ptq_bytes_free(bytes, NULL);
    count = list_names(is_file ? copy : classes, is_file ? "\r\n" : ",", &list);
    free(copy);
    if (count != wanted) {
        free(list);
        return fail("--classes gives %d names, the model has %d classes%s", count, wanted,
                    is_file || strchr(classes, ',') ? "" : "; is it the name of a file?");
    }
    status = ptq_model_set_meta(model, "class_names", list, &err);
    free(list);
    return status ? fail("%s", err.text) : 0;
}

static int set_input(const char *input, ptq_model *model) {
    if (strcmp(input, "u8") != 0 && strcmp(input, "f32") != 0)
        return misuse("--input is u8 (pixels) or f32 (real numbers), not '%.60s'", input);
    if (strcmp(input, "f32") == 0 && model->node[0].q.type != PTQ_TYPE_F32)
        return fail("the file's input is codes of pixels; leave out --input f32");
    model->node[0].real = strcmp(input, "f32") == 0;
    return 0;
}

int set_facts(const facts *known, ptq_model *model) {
    ptq_error err;

    if (known->resize && strcmp(known->resize, "crop") != 0 &&
        strcmp(known->resize, "stretch") != 0)
        return misuse("--resize is crop or stretch, not '%.60s'", known->resize);
    if (known->resize && ptq_model_set_meta(model, "resize", known->resize, &err))
        return fail("%s", err.text);
    return (known->input && set_input(known->input, model)) ||
           (known->classes && set_classes(known->classes, model));
}
