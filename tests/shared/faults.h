/* faults.h - memory that is not to be had, at each allocation of a long chain of calls.

   To start the chain anew for every allocation takes time with the square of their number. Here it
   runs once: at each allocation a process is forked off in which that one fails, and which ends
   when the chain has come back. The chain must not start threads, nor allocate while it reads a
   file, whose position both processes share. */
#ifndef FAULTS_H
#define FAULTS_H

#include "test.h"

#include <sys/wait.h>

/* What a sanitizer holds back after it was freed is copied with every fork: less of it halves the
   time. */
#if TEST_SANITIZED
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "quarantine_size_mb=1:thread_local_quarantine_size_kb=64";
}
#endif

#ifdef TEST_COVERAGE
void __gcov_dump(void); /* a child counts too */
#endif

typedef struct forking_heap {
    long live, calls;
    int all_after; /* 1: those after the failing one fail too */
    int is_child;
    int wrong; /* a child found something */
} forking_heap;

/* Returns 1 in the child. The parent waits, and stops at the first that is not well. */
static inline int fork_at_allocation(forking_heap *heap) {
    int status = 0;
    pid_t child = fork();

    if (!child)
        return heap->is_child = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status) {
        heap->wrong = 1;
        fprintf(stderr, "allocation %ld fails: wait status %#x\n", heap->calls, (unsigned)status);
    }
    heap->calls++;
    return 0;
}

static inline void *forking_allocate(void *user, size_t size) {
    forking_heap *heap = (forking_heap *)user;
    void *pointer;

    if (heap->is_child ? heap->all_after : !heap->wrong && fork_at_allocation(heap))
        return NULL;
    pointer = malloc(size ? size : 1);
    if (!pointer)
        abort(); /* no failure of ours */
    memset(pointer, 0xA5, size);
    heap->live++;
    return pointer;
}

static inline void forking_release(void *user, void *pointer) {
    ((forking_heap *)user)->live--;
    free(pointer);
}

/* What a child has to show. No assertions: they would go on with the next test. */
static inline int failed_well(const forking_heap *heap, ptq_status status, int intact) {
    if (status == PTQ_OUT_OF_MEMORY && err.status == status && err.text[0] && !heap->live && intact)
        return 1;
    fprintf(stderr, "allocation %ld fails: %s, \"%s\", %ld blocks leak%s\n", heap->calls,
            ptq_name(PTQ_NAMES_STATUS, status), err.text, heap->live,
            intact ? "" : ", old objects differ");
    return 0;
}

/* A chain of calls, which frees all that it made, and a look at what was there before: 1 if it is
   as it was. */
typedef ptq_status (*forked_chain)(void *user, ptq_allocator allocator);
typedef int (*forked_check)(void *user);

/* Returns how many allocations there were. */
static inline long fail_each_forked(forked_chain run, forked_check is_intact, void *user,
                                    int all_after) {
    forking_heap heap;
    ptq_allocator allocator;
    ptq_status s;

    memset(&heap, 0, sizeof heap);
    heap.all_after = all_after;
    allocator.allocate = forking_allocate;
    allocator.release = forking_release;
    allocator.user = &heap;
    memset(&err, 0, sizeof err);
    s = run(user, allocator);
    if (heap.is_child) {
        int well = failed_well(&heap, s, !is_intact || is_intact(user));
#ifdef TEST_COVERAGE
        __gcov_dump();
#endif
        _exit(!well);
    }
    assert_false(heap.wrong);
    assert_ok(s);
    assert_int_equal(heap.live, 0);
    return heap.calls;
}

#endif
