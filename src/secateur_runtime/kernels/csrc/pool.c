/* A pool of threads for work of microseconds: they spin until the next call comes, and sleep when none does.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "kernels.h"

enum { SPIN_NANOSECONDS = 50000, SPINS_BETWEEN_CLOCKS = 64, IDLE = 0 };

struct sec_pool {
    int threads;
    pthread_t *others;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic uint64_t call;     /* counts calls: a thread that sees it move has work */
    _Atomic int64_t next;      /* next part to hand out */
    _Atomic int busy, asleep;  /* threads still in this call; threads that must be woken */
    _Atomic int stop;
    sec_part fn;
    void *arg;
    int64_t parts;
};

static inline void pause_core(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void work(sec_pool *pool) {
    int64_t part;
    while ((part = atomic_fetch_add(&pool->next, 1)) < pool->parts) pool->fn(pool->arg, part);
}

static void sleep_until(sec_pool *pool, uint64_t seen) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->asleep, 1);
    while (atomic_load(&pool->call) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->asleep, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_for_call(sec_pool *pool, uint64_t seen) {
    int64_t until = now() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < SPINS_BETWEEN_CLOCKS; i++) {
            if (atomic_load_explicit(&pool->call, memory_order_acquire) != seen) return;
            pause_core();
        }
    } while (now() < until);
    sleep_until(pool, seen);
}

static void *live(void *arg) {
    sec_pool *pool = arg;
    for (uint64_t seen = 0;; seen++) {
        wait_for_call(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        work(pool);
        atomic_fetch_sub(&pool->busy, 1);
    }
}

static void call_all(sec_pool *pool) {
    atomic_fetch_add(&pool->call, 1);
    if (!atomic_load(&pool->asleep)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static int cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

sec_pool *sec_pool_new(int threads) {
    int most = cores();
    threads = threads < 1 ? 1 : threads > most ? most : threads;
    sec_pool *pool = calloc(1, sizeof *pool);
    pthread_t *others = calloc((size_t)threads, sizeof *others);
    if (!pool || !others || pthread_mutex_init(&pool->lock, NULL) || pthread_cond_init(&pool->wake, NULL)) {
        free(others);
        free(pool);
        return NULL;
    }
    pool->others = others;
    for (pool->threads = 1; pool->threads < threads; pool->threads++)
        if (pthread_create(&others[pool->threads - 1], NULL, live, pool)) break;
    return pool;
}

int sec_pool_threads(const sec_pool *pool) { return pool->threads; }

void sec_pool_run(sec_pool *pool, sec_part fn, void *arg, int64_t parts) {
    if (pool->threads == 1 || parts == 1) {
        for (int64_t part = 0; part < parts; part++) fn(arg, part);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->parts = parts;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->busy, pool->threads - 1);
    call_all(pool);
    work(pool);
    for (int spins = 0; atomic_load_explicit(&pool->busy, memory_order_acquire) != IDLE; spins++) {
        pause_core();
        /* Where threads outnumber the cores that are really free, the last one needs this core to end. */
        if (spins > 1000) sched_yield();
    }
}

void sec_pool_free(sec_pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, 1);
    call_all(pool);
    for (int i = 0; i < pool->threads - 1; i++) pthread_join(pool->others[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->others);
    free(pool);
}
