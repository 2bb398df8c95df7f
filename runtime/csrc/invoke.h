#ifndef EDGEC_INVOKE_H
#define EDGEC_INVOKE_H

#include <stdint.h>

/* Calls a kernel with `count` pointers (1..EDGEC_MAX_ARGUMENTS) and a range of tasks. */
void invoke_kernel(void (*kernel)(void), void *const *p, uint32_t count, int32_t lo, int32_t hi);

#endif
