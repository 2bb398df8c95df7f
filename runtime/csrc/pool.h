/* Threads that share the tasks of one call after another. */
#ifndef EDGEC_POOL_H
#define EDGEC_POOL_H

#include "platform.h"

/* Does tasks lo..hi-1 of a job, on any thread. */
typedef void (*pool_body)(void *context, const void *job, int32_t lo, int32_t hi);

typedef struct pool pool;

#ifdef EDGEC_BARE_METAL

static inline size_t pool_bytes(uint32_t workers) { return (void)workers, (size_t)0; }

static inline edgec_status pool_open(pool *p, uint32_t workers, pool_body body, void *context) {
    return (void)p, (void)workers, (void)body, (void)context, EDGEC_NO_THREADS;
}

static inline void pool_close(pool *p) { (void)p; }
static inline void pool_run(pool *p, const void *job, int32_t tasks) { (void)p, (void)job, (void)tasks; }

#else

/* Memory that pool_open is given, aligned to EDGEC_ALIGNMENT; `workers` (1 or more) does not count the caller of pool_run. */
size_t pool_bytes(uint32_t workers);

edgec_status pool_open(pool *p, uint32_t workers, pool_body body, void *context);
void pool_close(pool *p);

/* Returns when all tasks are done; the calling thread does its share. One call at a time. */
void pool_run(pool *p, const void *job, int32_t tasks);

#endif
#endif
