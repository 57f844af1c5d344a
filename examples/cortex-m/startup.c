/* What runs before main on a Cortex-M: the two words that the processor reads first, and copies and
   zeros as the linker script lays them out. */
#include <stdint.h>

extern uint32_t data_source[], data_begin[], data_end[], bss_begin[], bss_end[];
extern uint32_t stack_bottom[], stack_top[];

int main(void);
void leave(int status);

/* On the way up from the bottom of the stack to this function's own frame. */
static void paint_stack(void) {
    uint32_t *at = stack_bottom, *here = (uint32_t *)__builtin_frame_address(0);
    while (at < here - 16)
        *at++ = 0x5ac05ac0u;
}

__attribute__((noreturn)) void reset(void) {
    volatile uint32_t *to, *from = data_source;
    for (to = data_begin; to < data_end;)
        *to++ = *from++;
    for (to = bss_begin; to < bss_end;)
        *to++ = 0;
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88u |= 0xf00000u; /* CPACR: floating point and vectors on */
    __asm__ volatile("dsb\n\tisb");
#endif
    paint_stack();
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
