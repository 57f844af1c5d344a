/* No malloc: the model lies in a static buffer, all that the library makes of it comes out of a
   second one, the activations are in a third, and the library opens no file.

       build/10_no_malloc [MODEL.safetensors]
*/
#include <stdio.h>
#include <string.h>

/* Without PTQ_MALLOC of one's own the library would ask malloc where it is given no allocator. Here
   such a request fails; so this program shows that there is none. */
#define PTQ_MALLOC(size) NULL
#define PTQ_FREE(pointer) ((void)(pointer))
#define PTQ_NO_STDIO
#define PTQ_IMPLEMENTATION
#include "../ptq.h"

enum { FILE_BYTES = 512 << 10, POOL_BYTES = 512 << 10, ARENA_BYTES = 256 << 10, CLASSES = 10 };

/* Aligned for any type. */
static union {
    long double alignment; /* cppcheck-suppress unusedStructMember */
    unsigned char byte[FILE_BYTES];
} file;
static union {
    long double alignment; /* cppcheck-suppress unusedStructMember */
    unsigned char byte[POOL_BYTES];
} pool_block;
static unsigned char arena[ARENA_BYTES];

/* Hands out a block piece by piece. The piece that was handed out last can be taken back; others
   stay taken until the whole is given up. */
typedef struct pool {
    unsigned char *block;
    size_t size, used, most;
    int requests;
} pool;

/* Behind each piece stands where it began. */
static void *pool_allocate(void *user, size_t size) {
    pool *p = user;
    size_t whole = (size + 15) / 16 * 16 + 16, start = p->used;

    if (whole < size || whole > p->size - p->used)
        return NULL;
    p->used += whole;
    memcpy(p->block + p->used - sizeof start, &start, sizeof start);
    p->most = p->used > p->most ? p->used : p->most;
    p->requests++;
    return p->block + start;
}

static void pool_release(void *user, void *pointer) {
    pool *p = user;
    size_t start;

    memcpy(&start, p->block + p->used - sizeof start, sizeof start);
    if (p->block + start == (unsigned char *)pointer)
        p->used = start;
}

/* A disc, brighter than its ground. */
static void draw(uint8_t *pixels) {
    int i, c;

    for (i = 0; i < 32 * 32; i++) {
        int x = i % 32 - 16, y = i / 32 - 15;

        for (c = 0; c < 3; c++)
            pixels[3 * i + c] =
                (uint8_t)(x * x + y * y < 110 ? 230 - 40 * c : 60 + i / 64 + 20 * c);
    }
}

/* One classification, everything anew; prints a row. */
static ptq_status run(size_t bytes, ptq_isa isa, float *logits, ptq_error *err) {
    pool memory = {pool_block.byte, sizeof pool_block.byte, 0, 0, 0};
    ptq_allocator allocator = {pool_allocate, pool_release, &memory};
    ptq_load_options load = {allocator, 1}; /* 1: weights stay where the file lies */
    ptq_plan_options how = {isa, allocator};
    ptq_session_options where = {0, arena, sizeof arena, NULL, NULL, allocator};
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    uint8_t pixels[32 * 32 * 3];

    draw(pixels);
    if (!ptq_model_parse(file.byte, bytes, &load, &model, err) &&
        !ptq_plan_create(model, &how, &plan, err)) {
        if (ptq_plan_get_info(plan)->classes != CLASSES ||
            ptq_plan_get_info(plan)->pixels != sizeof pixels)
            ptq_error_set(err, PTQ_UNSUPPORTED, "not a model from 32x32x3 pixels to 10 classes");
        else if (!ptq_session_create(plan, &where, &session, err) &&
                 !ptq_run(session, pixels, 1, logits, NULL, err))
            printf("%-10s %8zu %10zu %9zu %9d %8d\n",
                   ptq_name(PTQ_NAMES_ISA, ptq_plan_get_info(plan)->isa), bytes, memory.most,
                   ptq_session_bytes(plan, &where), memory.requests, ptq_argmax(logits, CLASSES));
    }
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_model_free(model);
    return err->status;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "build/models/resnet8-shapes10-int8.safetensors";
    FILE *from = fopen(path, "rb"); /* on a microcontroller: a constant array, see README.md */
    float scalar[CLASSES] = {0}, fast[CLASSES] = {0};
    int i, differ = 0;
    ptq_error err = {PTQ_OK, ""};
    size_t bytes = from ? fread(file.byte, 1, sizeof file.byte, from) : 0;

    if (from)
        fclose(from);
    if (!bytes || bytes == sizeof file.byte)
        return fprintf(stderr, "%s: cannot be read, or is too large\n", path), 1;
    printf("kernels        file       pool  activations  requests  class\n");
    if (run(bytes, PTQ_ISA_SCALAR, scalar, &err) || run(bytes, PTQ_ISA_AUTO, fast, &err))
        return fprintf(stderr, "%s\n", err.text), 1;
    for (i = 0; i < CLASSES; i++)
        differ |= !(scalar[i] == fast[i]);
    printf("The two logits are %s.\n",
           differ ? "not equal: this model computes with real numbers" : "equal to the last bit");
    return 0;
}
