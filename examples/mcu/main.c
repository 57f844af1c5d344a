/* An exported network on a microcontroller without an operating system. Images come from the file
   images.bin (CIFAR-10 records) of the computer that the debugger or emulator runs on, logits go
   into its logits.f32, by semihosting: see README.md. */
#include <stdint.h>

#define NET_IMPLEMENTATION
#include "net.h"

/* Arm's semihosting interface, https://github.com/ARM-software/abi-aa/tree/main/semihosting */
enum { OPEN = 1, CLOSE, WRITE = 5, READ, SEEK = 10, EXIT_EXTENDED = 32 };
enum { MODE_READ = 1, MODE_WRITE = 5 }; /* "rb", "wb" */

#ifdef __riscv
/* The same interface, asked for by three instructions that mean nothing together:
   https://github.com/riscv-non-isa/riscv-semihosting */
__asm__(".pushsection .text.host, \"ax\"\n\t.balign 16\nhost:\n\t.option push\n\t.option norvc\n\t"
        "slli x0, x0, 0x1f\n\tebreak\n\tsrai x0, x0, 7\n\t.option pop\n\tret\n\t.popsection");
int32_t host(int32_t operation, const void *arguments);
#else
static int32_t host(int32_t operation, const void *arguments) {
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
#endif

static int32_t host_open(const char *name, uint32_t length, uint32_t mode) {
    const uintptr_t arguments[3] = {(uintptr_t)name, mode, length};
    return host(OPEN, arguments);
}

static void host_close(int32_t file) {
    const int32_t arguments[1] = {file};
    host(CLOSE, arguments);
}

/* Bytes that were not read. */
static int32_t host_read(int32_t file, void *to, uint32_t size) {
    const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)to, size};
    return host(READ, arguments);
}

/* Bytes that were not written. */
static int32_t host_write(int32_t file, const void *from, uint32_t size) {
    const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)from, size};
    return host(WRITE, arguments);
}

static void print(const char *text) { host(4, text); }

static void print_number(const char *label, uint32_t number) {
    char digits[12];
    char *at = digits + sizeof digits;
    *--at = 0;
    *--at = '\n';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    print(label);
    print(at);
}

/* ---- Stack: painted by startup.c, so that its deepest point can be told ---- */

extern uint32_t stack_bottom[], stack_top[];

static uint32_t stack_used(void) {
    const uint32_t *at = stack_bottom;
    while (at < stack_top && *at == 0x5ac05ac0u)
        at++;
    return (uint32_t)(stack_top - at) * 4;
}

/* ---- Images ---- */

static uint8_t pixels[NET_PIXELS];

#ifdef RAW_IMAGES
/* They lie as the network takes them. */
static int read_image(int32_t file) { return host_read(file, pixels, sizeof pixels) == 0; }
#else
enum { PLANE = NET_HEIGHT * NET_WIDTH };

/* A record is a label, then a plane for each channel; the network wants channels together. */
static int read_image(int32_t file) {
    uint8_t some[64];
    int c, i, k;
    if (host_read(file, some, 1))
        return 0;
    for (c = 0; c < NET_CHANNELS; c++)
        for (i = 0; i < PLANE; i += (int)sizeof some) {
            if (host_read(file, some, sizeof some))
                return 0;
            for (k = 0; k < (int)sizeof some; k++)
                pixels[(i + k) * NET_CHANNELS + c] = some[k];
        }
    return 1;
}
#endif

/* The arithmetic `fixed` gives codes, of one byte each, and has no real number anywhere. */
#ifdef NET_RESULT_ZERO_POINT
typedef uint8_t result;
#else
typedef float result;
#endif

int main(void) {
    int32_t images = host_open("images.bin", 10, MODE_READ);
    int32_t results = host_open("logits.f32", 10, MODE_WRITE);
    result logits[NET_CLASSES];
    uint32_t count = 0;
    if (images < 0 || results < 0) {
        print("images.bin cannot be read, or logits.f32 not written\n");
        return 1;
    }
    while (read_image(images)) {
        net_run(pixels, (void *)logits);
        if (host_write(results, logits, sizeof logits))
            return 1;
        count++;
    }
    host_close(results);
    print_number("images: ", count);
    print_number("stack, bytes used: ", stack_used());
    return count == 0;
}

void leave(int status) {
    const uint32_t arguments[2] = {0x20026, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */
    host(EXIT_EXTENDED, arguments);
    for (;;)
        ;
}
