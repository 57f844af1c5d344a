/* What runs before main: the first instruction or the two words that the processor reads first, then
   copies and zeros as the linker script lays them out. */
#include <stdint.h>

extern uint32_t data_source[], data_begin[], data_end[], bss_begin[], bss_end[];
extern uint32_t stack_bottom[], stack_top[];

int main(void);
void leave(int status);
void reset(void);

/* On the way up from the bottom of the stack to this function's own frame. */
static void paint_stack(void) {
    uint32_t *at = stack_bottom, *here = (uint32_t *)__builtin_frame_address(0);
    while (at < here - 16)
        *at++ = 0x5ac05ac0u;
}

static void prepare_memory(void) {
    volatile uint32_t *to, *from = data_source;
    for (to = data_begin; to < data_end;)
        *to++ = *from++;
    for (to = bss_begin; to < bss_end;)
        *to++ = 0;
    paint_stack();
}

#ifdef __riscv
void start(void);
__attribute__((used)) void start(void) {
    prepare_memory();
    leave(main());
}

__asm__(".section .vectors, \"ax\"\n.globl reset\nreset:\n\tla sp, stack_top\n\tj start\n.text");
#else
#ifdef __ARM_FP
static void turn_on_vectors(void) {
    *(volatile uint32_t *)0xe000ed88u |= 0xf00000u; /* CPACR: floating point and Helium */
    __asm__ volatile("dsb\n\tisb");
}
#else
static void turn_on_vectors(void) {}
#endif

__attribute__((noreturn)) void reset(void) {
    turn_on_vectors();
    prepare_memory();
    leave(main());
    for (;;)
        ;
}

static void fault(void) { leave(2); }

/* Initial stack pointer, reset, NMI and the faults; interrupts are never turned on. */
__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)stack_top, (uintptr_t)reset, (uintptr_t)fault, (uintptr_t)fault,
    (uintptr_t)fault,     (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault,
};
#endif
