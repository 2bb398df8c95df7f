/* Start-up of any Cortex-M, and Arm semihosting ("Semihosting for AArch32 and AArch64", Arm 2022) for words and exit.
 * Nothing of an operating system, and of newlib only what the application itself calls. */
#include <stdio.h>

#include "board.h"

enum { SYS_WRITE0 = 0x04, SYS_EXIT = 0x18, APPLICATION_EXIT = 0x20026, RUN_TIME_ERROR = 0x20023 };
enum { STACK_PAINT = 0x5AA55AA5 };

extern uint32_t image_stack_limit[], image_stack[], image_data_load[], image_data[], image_data_end[], image_bss[],
    image_bss_end[]; /* of the linker script */
int main(void);

/* Of newlib's stdio, where it is linked. */
__attribute__((weak)) void initialise_monitor_handles(void);
__attribute__((weak)) int fflush(FILE *);

static uint32_t semihosting(uint32_t operation, const void *parameter) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = parameter;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_write(const char *text) { semihosting(SYS_WRITE0, text); }

_Noreturn void board_exit(int failed) {
    semihosting(SYS_EXIT, (const void *)(uintptr_t)(failed ? RUN_TIME_ERROR : APPLICATION_EXIT));
    for (;;) continue;
}

/* SysTick is the one clock that all of them have; 24 bits, counted further in its interrupt. */
static volatile uint32_t *const SYSTICK = (volatile uint32_t *)0xE000E010u; /* control, reload, value */
static volatile uint32_t wraps;

static void count_wrap(void) { wraps++; }

uint64_t board_ticks(void) {
    uint32_t before, value;
    do {
        before = wraps;
        value = SYSTICK[2];
    } while (before != wraps);
    return ((uint64_t)before << 24) + (0xFFFFFFu - value);
}

size_t board_stack_bytes(void) {
    const uint32_t *untouched = image_stack_limit;
    while (untouched < image_stack && *untouched == STACK_PAINT) untouched++;
    return (size_t)((const char *)image_stack - (const char *)untouched);
}

static void fault(void) {
    board_write("fault\n");
    board_exit(1);
}

__attribute__((noinline)) static void start(void) {
    uint32_t *below = __builtin_frame_address(0);
    for (uint32_t *p = image_stack_limit; p < below - 64; p++) *(volatile uint32_t *)p = STACK_PAINT;
    for (uint32_t *to = image_data, *from = image_data_load; to < image_data_end;) *to++ = *from++;
    for (uint32_t *p = image_bss; p < image_bss_end;) *p++ = 0;
    SYSTICK[1] = 0xFFFFFFu;
    SYSTICK[2] = 0;
    SYSTICK[0] = 7; /* on, with interrupts, by the processor's clock */
    if (initialise_monitor_handles) initialise_monitor_handles();
    int failed = main();
    if (fflush) fflush(NULL);
    board_exit(failed);
}

/* The floating-point unit is off after reset (Armv7-M Architecture Reference Manual, CPACR). */
static void reset(void) {
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm__ volatile("dsb\n isb");
    start();
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[16] = {
    (uintptr_t)image_stack, (uintptr_t)reset, (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault, (uintptr_t)fault,
    (uintptr_t)fault,       (uintptr_t)fault, 0, 0, 0, (uintptr_t)fault, 0, 0, (uintptr_t)fault, (uintptr_t)count_wrap,
};
