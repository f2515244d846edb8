/* Start-up code of a Cortex-M4F, and a console and exit by three semihosting calls. Needs no C
 * library. */

#include "board.h"

#include <stddef.h>
#include <stdint.h>

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_EXIT_EXTENDED = 0x20 };
enum { OPEN_TO_WRITE = 4, APPLICATION_EXIT = 0x20026 };

/* Symbols of board.ld. */
extern uint32_t stack_end[], data_in_flash[], data_begin[], data_end[], bss_begin[], bss_end[];

int main(void);
void reset(void);

static uintptr_t semihosting(uintptr_t operation, const void *arguments) {
    register uintptr_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_print(const char *text) {
    static uintptr_t console; /* 0: not open, as no file has the handle 0 */
    size_t length = 0;
    while (text[length] != 0) {
        length++;
    }
    if (console == 0) {
        console = semihosting(SYS_OPEN, (const uintptr_t[]){(uintptr_t) ":tt", OPEN_TO_WRITE, 3});
    }
    semihosting(SYS_WRITE, (const uintptr_t[]){console, (uintptr_t)text, length});
}

static _Noreturn void leave(uintptr_t status) {
    semihosting(SYS_EXIT_EXTENDED, (const uintptr_t[]){APPLICATION_EXIT, status});
    for (;;) {
    }
}

void reset(void) {
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the FPU, CP10 and CP11 */
    __asm volatile("dsb\n isb");
    for (size_t i = 0; data_begin + i < data_end; i++) {
        data_begin[i] = data_in_flash[i];
    }
    for (uint32_t *word = bss_begin; word < bss_end; word++) {
        *word = 0;
    }
    leave((uintptr_t)main());
}

static void fault(void) {
    board_print("FAILED: a fault\n");
    leave(102);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {
    (void (*)(void))(uintptr_t)stack_end, reset, fault /* NMI */, fault /* hard */,
};

/* The compiler calls these for listener.c and this file. */

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ((char *)to)[i] = ((const char *)from)[i];
    }
    return to;
}

void *memset(void *to, int byte, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ((char *)to)[i] = (char)byte;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    for (size_t i = 0; i < n; i++) { /* volatile: or the compiler calls memmove for this loop */
        const size_t at = to <= from ? i : n - 1 - i;
        ((volatile char *)to)[at] = ((const volatile char *)from)[at];
    }
    return to;
}
