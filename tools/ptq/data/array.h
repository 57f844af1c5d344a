/* Arrays of numbers in files: NumPy's .npy, and IDX, the format of MNIST. Elements are read where
   they lie, in the order of rows. */
#ifndef PTQ_TOOL_ARRAY_H
#define PTQ_TOOL_ARRAY_H

#include <stddef.h>
#include <stdint.h>

#include "shared/bytes.h"

enum { ARRAY_RANK = 8 };

typedef struct data_array {
    data_bytes bytes; /* the caller's, or its own where array_close is told so */
    char name[160];   /* for messages */
    uint64_t start;   /* of the first element */
    uint64_t dim[ARRAY_RANK];
    int rank;
    char kind;      /* as NumPy has it: 'u' unsigned, 'i' signed, 'f' real, 'b' truth value */
    int width, big; /* bytes of an element; most significant first */
} data_array;

/* What the bytes begin with. The array keeps them; they are closed with it. */
ptq_status npy_open(const data_bytes *bytes, const char *name, data_array *out, ptq_error *err);
ptq_status idx_open(const data_bytes *bytes, const char *name, data_array *out, ptq_error *err);
void array_close(data_array *array);

/* Whether the bytes begin like such a file. */
int looks_like_npy(const data_bytes *bytes);
int looks_like_idx(const data_bytes *bytes);

/* Checks what a header said; the size of the whole must be there. */
ptq_status array_check(const data_array *array, ptq_error *err);

size_t array_items(const data_array *array);         /* the first dimension */
size_t array_item_elements(const data_array *array); /* the product of the others */

/* Item `index`, as bytes or as real numbers. PTQ_BAD_NUMBER names the item where a number is not
   finite, or is no byte. */
ptq_status array_bytes(const data_array *array, size_t index, uint8_t *out, ptq_error *err);
ptq_status array_reals(const data_array *array, size_t index, float *out, ptq_error *err);

/* An array of whole numbers from -1 to 65535, one an item. */
ptq_status array_labels(const data_array *array, int *out, ptq_error *err);

/* The beginning of a .npy file of rows x columns little-endian words of four bytes, kind 'f' or
   'i'; `text` has room for NPY_HEADER bytes, which is the length that comes back. */
enum { NPY_HEADER = 128 };
size_t npy_header(char kind, size_t rows, size_t columns, char *text);

#endif
