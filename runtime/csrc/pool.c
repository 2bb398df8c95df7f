/* A job is published as tickets: its generation in the high half, the next task in the low half. Each thread has a ticket
 * for an equal share of the tasks, the same share in every job, so that it finds in its cache what it wrote in the last;
 * then it helps with the shares of others. Tasks are taken by advancing a ticket with compare-and-swap, so a thread that
 * comes late, or that the system has not scheduled at all, fails on the generation and is never waited for.
 *
 * One that the system interrupts inside a range has to be waited for, and if another process wants its core, that lasts
 * a time slice: several milliseconds, many times what the job takes. After such a stall the caller does all tasks alone
 * for a while, twice as long after each further one, so that threads on a busy machine cost little more than none. */
#include "pool.h"

#ifndef EDGEC_BARE_METAL

#include <stdatomic.h>

enum { SPIN_NS = 50000 }; /* before sleeping: longer than the serial calls between two parallel ones, short for a busy host */

/* Waiting longer than this, and than half of what the job took before, is a stall: on a core at half the speed of the
 * caller's an ordinary range ends earlier. */
#ifndef EDGEC_POOL_PATIENCE_NS
#define EDGEC_POOL_PATIENCE_NS 100000
#endif
/* How long the caller goes on alone: at first so many times the stall, then twice as long each time, at most the last. Each
 * shared job without a stall takes one part in so many off. */
enum { ALONE_FACTOR = 16, ALONE_DECAY = 256, ALONE_MOST_NS = 250000000 };

typedef struct {
    _Alignas(EDGEC_ALIGNMENT) _Atomic uint64_t ticket; /* in a line of its own */
} share;

struct pool {
    _Alignas(EDGEC_ALIGNMENT) _Atomic int32_t done; /* tasks of this generation */
    _Alignas(EDGEC_ALIGNMENT) const void *_Atomic job;
    _Atomic int32_t tasks;
    _Atomic uint32_t started; /* workers that know which they are */
    _Atomic uint32_t sleepers;
    _Atomic int closing;
    platform_bell bell;
    pool_body body;
    void *context;
    uint32_t workers;
    uint64_t alone_ns;    /* after the next stall; this and the next belong to the caller of pool_run */
    uint64_t alone_until; /* platform_nanoseconds; until then nothing is published */
    uint64_t process; /* that has the threads; a fork has this memory without them */
    platform_thread *threads;
    share shares[]; /* the caller's, then those of workers; the caller's is published last */
};

static size_t shares_end(uint32_t workers) { return sizeof(pool) + (workers + 1) * sizeof(share); }

size_t pool_bytes(uint32_t workers) { return shares_end(workers) + workers * sizeof(platform_thread); }

static uint32_t generation_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* some ten cycles; `yield` does nothing on most cores */
#endif
}

/* The first task of share `index` of `count`. */
static int32_t share_start(int32_t tasks, uint32_t index, uint32_t count) {
    return (int32_t)((int64_t)tasks * index / count);
}

/* The job's fields belong to the ticket's generation if the swap succeeds: they change only after all tasks are done and
 * the tickets are closed. Whoever sees the next job's number of tasks also finds them closed. */
static void work_on(pool *p, uint32_t index, uint32_t generation) {
    uint32_t count = p->workers + 1;
    _Atomic uint64_t *shared = &p->shares[index].ticket;
    uint64_t ticket = atomic_load_explicit(shared, memory_order_acquire);
    while (generation_of(ticket) == generation) {
        const void *job = atomic_load_explicit(&p->job, memory_order_relaxed);
        int32_t end = share_start(atomic_load_explicit(&p->tasks, memory_order_acquire), index + 1, count);
        int32_t lo = (int32_t)(uint32_t)ticket;
        if (lo >= end) return;
        int32_t hi = lo + (end - lo + 3) / 4; /* less and less: few swaps, and threads end together */
        if (!atomic_compare_exchange_weak_explicit(shared, &ticket, ticket + (uint32_t)(hi - lo), memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        p->body(p->context, job, lo, hi);
        atomic_fetch_add_explicit(&p->done, hi - lo, memory_order_release);
        ticket = atomic_load_explicit(shared, memory_order_acquire);
    }
}

static void work(pool *p, uint32_t me, uint32_t generation) {
    uint32_t count = p->workers + 1;
    for (uint32_t i = 0; i < count; i++) work_on(p, (me + i) % count, generation);
}

static int changed(pool *p, uint32_t generation) {
    return generation_of(atomic_load(&p->shares[0].ticket)) != generation || atomic_load(&p->closing);
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
    uint32_t me = atomic_fetch_add(&p->started, 1) + 1, generation = 0;
    for (;;) {
        await_change(p, generation);
        if (atomic_load(&p->closing)) return NULL;
        generation = generation_of(atomic_load(&p->shares[0].ticket));
        work(p, me, generation);
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
    for (uint32_t i = 0; i <= workers; i++) atomic_init(&p->shares[i].ticket, 0);
    p->threads = (platform_thread *)(void *)((char *)p + shares_end(workers));
    atomic_init(&p->done, 0);
    atomic_init(&p->job, NULL);
    atomic_init(&p->tasks, 0);
    atomic_init(&p->started, 0);
    atomic_init(&p->sleepers, 0);
    atomic_init(&p->closing, 0);
    p->body = body;
    p->context = context;
    p->workers = workers;
    p->alone_ns = p->alone_until = 0;
    p->process = platform_process();
    edgec_status status = platform_bell_init(&p->bell);
    for (uint32_t i = 0; i < workers && status == EDGEC_OK; i++) {
        status = platform_thread_start(&p->threads[i], worker, p);
        if (status != EDGEC_OK) stop(p, i);
    }
    return status;
}

void pool_close(pool *p) { stop(p, p->workers); }

static void publish(pool *p, const void *job, int32_t tasks, uint32_t generation) {
    /* Closed first: a thread late for the last job would find its tickets not used up when it sees more tasks here. */
    uint64_t closed = (uint64_t)(generation - 1) << 32 | INT32_MAX, open = (uint64_t)generation << 32;
    uint32_t count = p->workers + 1;
    for (uint32_t i = 0; i < count; i++) atomic_store_explicit(&p->shares[i].ticket, closed, memory_order_relaxed);
    atomic_store_explicit(&p->tasks, tasks, memory_order_release);
    atomic_store_explicit(&p->job, job, memory_order_relaxed);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    for (uint32_t i = count; i-- > 0;)
        atomic_store(&p->shares[i].ticket, open | (uint32_t)share_start(tasks, i, count));
    if (atomic_load(&p->sleepers) > 0 && !is_fork(p)) platform_bell_ring(&p->bell);
}

static int all_done(pool *p, int32_t tasks) { return atomic_load_explicit(&p->done, memory_order_acquire) == tasks; }

/* Waits for the ranges of others; returns for how long, in nanoseconds. */
static uint64_t await_others(pool *p, int32_t tasks, uint64_t now) {
    for (int spins = 0; !all_done(p, tasks); spins++) {
        pause_briefly();
        if (spins >= 1000) platform_yield(); /* somebody was interrupted inside a range */
    }
    return platform_nanoseconds() - now;
}

static void judge(pool *p, uint64_t worked, uint64_t waited) {
    if (waited <= worked / 2 + EDGEC_POOL_PATIENCE_NS) {
        p->alone_ns -= p->alone_ns / ALONE_DECAY;
        return;
    }
    p->alone_ns = 2 * p->alone_ns > ALONE_FACTOR * waited ? 2 * p->alone_ns : ALONE_FACTOR * waited;
    if (p->alone_ns > ALONE_MOST_NS) p->alone_ns = ALONE_MOST_NS;
    p->alone_until = platform_nanoseconds() + p->alone_ns;
}

void pool_run(pool *p, const void *job, int32_t tasks) {
    uint64_t start = platform_nanoseconds();
    if (start < p->alone_until) {
        p->body(p->context, job, 0, tasks);
        return;
    }
    uint32_t generation = generation_of(atomic_load_explicit(&p->shares[0].ticket, memory_order_relaxed)) + 1;
    publish(p, job, tasks, generation);
    work(p, 0, generation);
    if (all_done(p, tasks)) {
        judge(p, 0, 0);
        return;
    }
    uint64_t now = platform_nanoseconds();
    judge(p, now - start, await_others(p, tasks, now));
}

#endif
