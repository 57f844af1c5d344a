/* What headers that "ptq export --c-header" writes for use with ptq.h do with their model: the tool
   copies the section below, with the network's name in place of `net`, and runs it to learn how
   much memory it takes. */
#ifndef PTQ_LIBRARY_RUNNER_H
#define PTQ_LIBRARY_RUNNER_H

#include "ptq.h"

/* [section library] */
/* Memory for the library's objects: blocks one behind the other, the first that fits is taken. */
typedef struct net_heap {
    unsigned char *memory; /* aligned to 16 */
    size_t size, used;
} net_heap;

/* In front of every block; 16 bytes, so that blocks stay aligned. */
typedef union net_block {
    struct {
        size_t size; /* of the block behind, a multiple of 16 */
        int taken;
    } is;
    unsigned char bytes[16];
} net_block;

static net_block *net_block_at(const net_heap *heap, size_t at)
{
    return (net_block *)(void *)(heap->memory + at);
}

/* Makes one block of all free ones from `at` on. */
static void net_merge(net_heap *heap, size_t at)
{
    net_block *block = net_block_at(heap, at);
    size_t next = at + sizeof *block + block->is.size;
    while (next < heap->used && !net_block_at(heap, next)->is.taken) {
        block->is.size += sizeof *block + net_block_at(heap, next)->is.size;
        next = at + sizeof *block + block->is.size;
    }
}

static void *net_allocate(void *user, size_t size)
{
    net_heap *heap = (net_heap *)user;
    net_block *block;
    size_t at;
    if (size > heap->size)
        return NULL;
    size = (size + 15) / 16 * 16;
    for (at = 0; at < heap->used; at += sizeof *block + block->is.size) {
        block = net_block_at(heap, at);
        if (!block->is.taken)
            net_merge(heap, at);
        if (!block->is.taken && block->is.size >= size) {
            block->is.taken = 1;
            return block + 1;
        }
    }
    if (heap->size - heap->used < sizeof *block || heap->size - heap->used - sizeof *block < size)
        return NULL;
    block = net_block_at(heap, heap->used);
    heap->used += sizeof *block + size;
    block->is.size = size;
    block->is.taken = 1;
    return block + 1;
}

static void net_release(void *user, void *pointer)
{
    (void)user;
    ((net_block *)pointer - 1)->is.taken = 0;
}

/* The model, its plan and a session, all of them in the heap. The weights stay where they are. */
static ptq_status net_open(net_heap *heap, ptq_isa isa, const void *file, size_t size,
                           ptq_session **out, ptq_error *err)
{
    ptq_load_options load = {{net_allocate, net_release, NULL}, 1};
    ptq_plan_options plan_options = {PTQ_ISA_AUTO, {NULL, NULL, NULL}};
    ptq_session_options session_options = {0, NULL, 0, NULL, NULL, {NULL, NULL, NULL}};
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_status status;
    load.allocator.user = heap;
    plan_options.allocator = session_options.allocator = load.allocator;
    plan_options.isa = isa;
    status = ptq_model_parse(file, size, &load, &model, err);
    if (!status)
        status = ptq_plan_create(model, &plan_options, &plan, err);
    return status ? status : ptq_session_create(plan, &session_options, out, err);
}

/* [section end] */
#endif
