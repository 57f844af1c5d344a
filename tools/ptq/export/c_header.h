/* Models as C headers: what c_header.c and c_standalone.c share. */
#ifndef PTQ_TOOL_C_HEADER_H
#define PTQ_TOOL_C_HEADER_H

#include <stdint.h>
#include <stdio.h>

#include "ptq.h"

/* Writes the model file at `model_path` as a header; `name` is what its functions begin with, NULL:
   made from the name of `out_path`. 0, or 1 after an error on standard error. */
typedef struct header_form {
    int standalone; /* without ptq.h */
    int small;      /* that: as little code and memory as can be */
    int test;       /* that: with a test vector */
    int flash, ram; /* that: bytes that it may take at most; 0: any */
} header_form;

int export_c_header(const char *model_path, const char *out_path, const char *name,
                    const header_form *form);

/* Bytes of flash that the standalone header of a model takes: constants, and code, about, without
   --small and with it. 0, or 1 after an error on standard error. */
typedef struct header_flash {
    size_t constants, code, small;
} header_flash;

int measure_flash(const ptq_model *model, const ptq_plan *plan, header_flash *flash);

#define NAME_LIMIT 40

/* How a convolution is cut up in strips: see strips/opening.h. */
typedef struct strip {
    int in[3], out[3]; /* height, width, channels, as the kernels take them */
    int height, width, row, step, shift;
} strip;

/* Elements of the buffers that all of them share. */
typedef struct strip_buffers {
    int count, sums_used, no_sums_used;
    size_t rows, mve, dsp, plain, depth, unpacked, sums;
} strip_buffers;

/* Of the model, by its metadata. */
typedef enum arithmetic { ONNX, XNNPACK, FIXED } arithmetic;

typedef struct header {
    FILE *to;
    const ptq_model *model;
    const ptq_plan *plan;
    char name[NAME_LIMIT + 1], upper[NAME_LIMIT + 1];
    uint64_t sections;     /* a bit for each that is needed */
    int logits;            /* node */
    arithmetic arithmetic; /* standalone */
    int small;             /* standalone: the least code and memory, not the fewest instructions */
    int test;              /* standalone: with a test vector */
    int pixels_in_place;   /* standalone: the caller's input is the first node's codes */
    size_t *flash;         /* standalone: bytes of tables, for each node */
    strip_buffers strips;
    int start;        /* standalone: the node whose codes are brought; 0: pixels are */
    size_t arena;     /* bytes of codes */
    size_t patch;     /* inputs of one result, at most */
    size_t constants; /* bytes of tables written so far */
    int column;       /* of the table being written */
} header;

/* Lines with the network's name where an identifier begins with net_ or NET_; the list ends with
   NULL. */
void put_lines(const header *h, const char *const *lines);

/* The same of lines that say what a program passes: pixels, or real numbers. */
void put_use(const header *h, const char *const *lines);

/* Of lines that markers divide into sections, those of the sections whose bit is set. */
void put_sections(const header *h, const char *const *lines, unsigned wanted);

/* One section, by its name; 0 if there is none. */
int put_section(const header *h, const char *const *lines, const char *name);

/* The items of a table, as many as fit into a line; h->column is 0 before the first. */
void put_item(header *h, const char *item);
void put_number(header *h, long number);

/* A real number as bits, since not every compiler reads decimal fractions right to the last one. */
void put_real(header *h, float value);
unsigned long real_word(float value);

/* A table of node `node`, and its end; its bytes are counted. */
void begin_table(header *h, const char *type, int node, const char *what, size_t count,
                 size_t bytes);
void end_table(header *h);

/* What depends on the arithmetic, c_arithmetic.c: a section of the kernels; tables and initializers
   of node `index`; the node whose result is given, and how a program names it. */
arithmetic arithmetic_of(const ptq_model *model);
void put_kernel(const header *h, const char *section);
void put_multipliers(header *h, int index);
void put_adder(const header *h, int index);
void put_pool_scales(const header *h, int index);
void put_product_factor(const header *h, int index);
void put_powers(header *h, int index);
int result_of(const header *h);
const char *result_type(const header *h);
const char *result_name(const header *h);

/* The parts of a header, in their order. `arena` 0: the sizes do not tell it. */
void put_head(const header *h, const char *title);
void put_guard(const header *h, const char *include);
void put_sizes(const header *h, size_t arena);
void put_middle(const header *h);
void put_end(const header *h);

/* Of a shape of three dimensions. */
size_t elements(const int *shape);

/* A node's result is codes; its operand k; where its result lies in the arena. */
int has_codes(const ptq_node *node);
const ptq_node *operand_of(const header *h, const ptq_node *node, int k);
size_t offset_of(const header *h, int index);

/* Whether operand k of a concat has the result's codes already; how many tables a function has; the
   initializer {flip, zero_point}. */
int keeps_codes(const uint8_t *recode, int k);
int tables_of(const ptq_node *node);
void put_code_kind(const header *h, const ptq_qparams *q);

/* The function itself, c_run.c. `table_step` is that of the table of pixels, see c_standalone.c. */
const char *input_name(const header *h);
void put_run(const header *h, int table_step);

/* Convolutions in strips, c_strips.c. The plan of one, 1 if there is one; the buffers of all, and
   their bytes at most; what is written before the network, with a node, and to call it, up to its
   operands. */
int strip_plan(const header *h, int index, strip *s);
void strips_measure(header *h);
size_t strips_bytes(const header *h);
void put_strip_kernels(const header *h);
void put_strip(const header *h, int index, const strip *s);
void put_strip_call(const header *h, int index);

/* What a standalone header takes of flash and RAM, c_budget.c: of code, about; all of it, told on
   standard output; and 1 after an error where it is more than `form` allows, else 0. */
size_t budget_code(const header *h, int small);
void budget_tell(const header *h);
int budget_check(const header *h, const header_form *form);

/* The test vector of a standalone header, c_test.c: its declaration, where there is one, and the
   whole, 0 or 1 after an error. */
void put_test_api(const header *h);
int put_test(header *h);

/* The whole of a standalone header; 0, or 1 after an error on standard error. */
int write_standalone(header *h, const header_form *form, FILE *to);

#endif
