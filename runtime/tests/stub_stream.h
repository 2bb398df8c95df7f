/* Between stub_cuda.c and the stubs of libraries: work that a library puts on a stream, which may be recorded. */
#ifndef STUB_STREAM_H
#define STUB_STREAM_H

#include <stdint.h>

enum { STUB_WORDS = 24 };

typedef struct stub_work {
    void (*perform)(const uint64_t *words);
    uint64_t words[STUB_WORDS];
} stub_work;

/* 0, or what the driver says: in stub_cuda.c. `loads`: something of it is done for the first time. */
int stub_submit(const stub_work *work, int loads, void *stream);

#endif
