/* The start-up of probe.c on a Cortex-M4F: vectors, the FPU, main, and an exit that a debugger
 * or an emulator hears. Memory is as QEMU's mps2-an386 has it, zeroed. */

#include <stddef.h>
#include <stdint.h>

extern int main(void);
extern uint32_t stack_end[];
void start(void);

__attribute__((section(".vectors"), used)) static void (*const vectors[2])(void) = {
    (void (*)(void))(uintptr_t)stack_end,
    start,
};

void start(void) {
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: CP10 and CP11 */
    __asm volatile("dsb\n isb");
    /* SYS_EXIT_EXTENDED with ADP_Stopped_ApplicationExit and a code. */
    volatile uint32_t report[2] = {0x20026, (uint32_t)main()};
    register uint32_t r0 __asm("r0") = 0x20;
    register volatile uint32_t *r1 __asm("r1") = report;
    __asm volatile("bkpt 0xab" : : "r"(r0), "r"(r1) : "memory");
    for (;;) {
    }
}

/* What the compiler calls for probe.c itself. */
void *memcpy(void *to, const void *from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ((volatile char *)to)[i] = ((const char *)from)[i];
    }
    return to;
}

void *memset(void *to, int byte, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ((volatile char *)to)[i] = (char)byte;
    }
    return to;
}
