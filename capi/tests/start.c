/* Start-up code of probe.c and pointers.c on a Cortex-M: vectors, the FPU if there is one, main, and a
 * semihosting exit. The memory map is that of QEMU's mps2 boards, whose RAM is zeroed. */

#include <stddef.h>
#include <stdint.h>

extern int main(void);
extern uint32_t stack_end[];
void start(void);

/* SYS_EXIT_EXTENDED with ADP_Stopped_ApplicationExit and a code. */
static void leave(uint32_t code) {
    static volatile uint32_t report[2];
    register uint32_t r0 __asm("r0") = 0x20;
    register volatile uint32_t *r1 __asm("r1") = report;
    report[0] = 0x20026;
    report[1] = code;
    __asm volatile("bkpt 0xab" : : "r"(r0), "r"(r1) : "memory");
    for (;;) {
    }
}

static void fault(void) { leave(102); }

__attribute__((section(".vectors"), used)) static void (*const vectors[4])(void) = {
    (void (*)(void))(uintptr_t)stack_end, start, fault /* NMI */, fault /* hard */,
};

void start(void) {
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: CP10 and CP11 */
    __asm volatile("dsb\n isb");
#endif
    leave((uint32_t)main());
}

/* The compiler calls these for the tests themselves. */
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
