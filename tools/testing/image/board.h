/* What a test image needs of the machine it runs on: board_arm.c under qemu, board_host.c on this one. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void board_write(const char *text);
_Noreturn void board_exit(int failed);

uint64_t board_ticks(void); /* since the start; 0 on a machine that does not count */
size_t board_stack_bytes(void); /* the most that was in use; 0 where nobody knows */

#endif
