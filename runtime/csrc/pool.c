/* A job is published as a ticket: its generation in the high half, the next task in the low half. A thread takes tasks by
 * advancing the ticket with compare-and-swap, so one that comes late, or that the system has not scheduled at all, fails
 * on the generation and is never waited for. */
#include "pool.h"

#ifndef EDGEC_BARE_METAL

#include <stdatomic.h>

enum { SPIN_NS = 50000 }; /* before sleeping: longer than the serial calls between two parallel ones, short for a busy host */

struct pool {
    _Alignas(EDGEC_ALIGNMENT) _Atomic uint64_t ticket;
    _Alignas(EDGEC_ALIGNMENT) _Atomic int32_t done; /* tasks of this generation */
    _Alignas(EDGEC_ALIGNMENT) const void *_Atomic job;
    _Atomic int32_t tasks;
    _Atomic int32_t chunk; /* tasks taken at once */
    _Atomic uint32_t sleepers;
    _Atomic int closing;
    platform_bell bell;
    pool_body body;
    void *context;
    uint32_t workers;
    uint64_t process; /* that has the threads; a fork has this memory without them */
    platform_thread threads[];
};

size_t pool_bytes(uint32_t workers) { return sizeof(pool) + workers * sizeof(platform_thread); }

static uint32_t generation_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* some ten cycles; `yield` does nothing on most cores */
#endif
}

/* The job's fields belong to the ticket's generation if the swap succeeds: they change only after all tasks are done and
 * the ticket is closed. Whoever sees the next job's number of tasks also finds the ticket closed. */
static void work(pool *p, uint32_t generation) {
    uint64_t ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
    while (generation_of(ticket) == generation) {
        const void *job = atomic_load_explicit(&p->job, memory_order_relaxed);
        int32_t tasks = atomic_load_explicit(&p->tasks, memory_order_acquire);
        int32_t chunk = atomic_load_explicit(&p->chunk, memory_order_relaxed);
        int32_t lo = (int32_t)(uint32_t)ticket;
        if (lo >= tasks) return;
        int32_t hi = tasks - lo > chunk ? lo + chunk : tasks;
        if (!atomic_compare_exchange_weak_explicit(&p->ticket, &ticket, ticket + (uint32_t)(hi - lo),
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        p->body(p->context, job, lo, hi);
        atomic_fetch_add_explicit(&p->done, hi - lo, memory_order_release);
        ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
    }
}

static int changed(pool *p, uint32_t generation) {
    return generation_of(atomic_load(&p->ticket)) != generation || atomic_load(&p->closing);
}

/* Spins for a while, then sleeps, until there is another generation or the pool closes. */
static void await_change(pool *p, uint32_t generation) {
    uint64_t limit = platform_nanoseconds() + SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            if (changed(p, generation)) return;
            pause_briefly();
        }
    } while (platform_nanoseconds() < limit);
    platform_bell_lock(&p->bell);
    /* Sequentially consistent, as the publisher's side: it sees the sleeper, or the sleeper sees the change. */
    atomic_fetch_add(&p->sleepers, 1);
    while (!changed(p, generation)) platform_bell_wait(&p->bell);
    atomic_fetch_sub(&p->sleepers, 1);
    platform_bell_unlock(&p->bell);
}

static void *worker(void *argument) {
    pool *p = argument;
    uint32_t generation = 0;
    for (;;) {
        await_change(p, generation);
        if (atomic_load(&p->closing)) return NULL;
        generation = generation_of(atomic_load(&p->ticket));
        work(p, generation);
    }
}

/* A fork may have been made while a thread held the bell's lock: it must neither ring nor wait. */
static int is_fork(const pool *p) { return platform_process() != p->process; }

static void stop(pool *p, uint32_t started) {
    if (is_fork(p)) return;
    atomic_store(&p->closing, 1);
    platform_bell_ring(&p->bell);
    for (uint32_t i = 0; i < started; i++) platform_thread_join(&p->threads[i]);
    platform_bell_destroy(&p->bell);
}

edgec_status pool_open(pool *p, uint32_t workers, pool_body body, void *context) {
    atomic_init(&p->ticket, 0);
    atomic_init(&p->done, 0);
    atomic_init(&p->job, NULL);
    atomic_init(&p->tasks, 0);
    atomic_init(&p->chunk, 1);
    atomic_init(&p->sleepers, 0);
    atomic_init(&p->closing, 0);
    p->body = body;
    p->context = context;
    p->workers = workers;
    p->process = platform_process();
    edgec_status status = platform_bell_init(&p->bell);
    for (uint32_t i = 0; i < workers && status == EDGEC_OK; i++) {
        status = platform_thread_start(&p->threads[i], worker, p);
        if (status != EDGEC_OK) stop(p, i);
    }
    return status;
}

void pool_close(pool *p) { stop(p, p->workers); }

void pool_run(pool *p, const void *job, int32_t tasks) {
    uint32_t generation = generation_of(atomic_load_explicit(&p->ticket, memory_order_relaxed)) + 1;
    int32_t threads = (int32_t)p->workers + 1;
    /* Closed first: a thread late for the last job would find its ticket not used up when it sees more tasks here. */
    atomic_store_explicit(&p->ticket, (uint64_t)(generation - 1) << 32 | INT32_MAX, memory_order_relaxed);
    atomic_store_explicit(&p->tasks, tasks, memory_order_release);
    atomic_store_explicit(&p->job, job, memory_order_relaxed);
    /* Several takes a thread, so that a slow core or a busy one gets less; not too many, since each costs a swap. */
    atomic_store_explicit(&p->chunk, tasks / (threads * 4) + 1, memory_order_relaxed);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->ticket, (uint64_t)generation << 32);
    if (atomic_load(&p->sleepers) > 0 && !is_fork(p)) platform_bell_ring(&p->bell);
    work(p, generation);
    for (int spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) != tasks; spins++) {
        pause_briefly();
        if (spins >= 1000) platform_yield(); /* somebody was interrupted inside a range */
    }
}

#endif
