/* pool_driver WORKERS RUNS: jobs of 1 to 61 tasks one after another; every task of each must be done exactly once.
 *
 * pool_driver WORKERS RUNS stall: a worker's range takes 5 ms, as if its core were busy; prints how many jobs had to wait
 * for one. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <time.h>

#include "pool.h"

enum { MOST = 61 };
static _Atomic int done[MOST];

static void body(void *context, const void *job, int32_t lo, int32_t hi) {
    (void)context, (void)job;
    for (int32_t i = lo; i < hi; i++) atomic_fetch_add(&done[i], 1);
}

static pthread_t caller;
static _Atomic int stalls;

static void stalling_body(void *context, const void *job, int32_t lo, int32_t hi) {
    body(context, job, lo, hi);
    if (pthread_equal(pthread_self(), caller)) return;
    atomic_fetch_add(&stalls, 1);
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int stall = argc > 3 && strcmp(argv[3], "stall") == 0;
    caller = pthread_self();
    uint32_t workers = (uint32_t)atoi(argv[1]);
    size_t bytes = (pool_bytes(workers) + EDGEC_ALIGNMENT - 1) / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT;
    pool *p = aligned_alloc(EDGEC_ALIGNMENT, bytes);
    if (p == NULL || pool_open(p, workers, stall ? stalling_body : body, NULL) != EDGEC_OK) return 2;
    for (long run = 0; run < atol(argv[2]); run++) {
        int32_t tasks = 1 + (int32_t)(run * 7 % MOST);
        pool_run(p, NULL, tasks);
        for (int32_t i = 0; i < MOST; i++) {
            if (done[i] != (i < tasks)) {
                fprintf(stderr, "run %ld: task %d of %d was done %d times\n", run, i, tasks, done[i]);
                return 1;
            }
            done[i] = 0;
        }
    }
    pool_close(p);
    free(p);
    printf("%d\n", stalls);
    return 0;
}
