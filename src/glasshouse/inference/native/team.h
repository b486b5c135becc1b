/* Threads that walk through a step together. */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define SPINS 4000 /* looks at the flag before a waiting thread lets others have the processor */

typedef struct {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int turn;
    _Alignas(64) atomic_llong next; /* piece of work that nobody has taken yet */
    _Alignas(64) int size;
} Team;

static inline void meet(Team *team) {
    if (team->size == 1) {
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        return;
    }
    int turn = atomic_load_explicit(&team->turn, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->size - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        atomic_store_explicit(&team->turn, turn + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->turn, memory_order_acquire) == turn; spins++)
        if (spins > SPINS) sched_yield();
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#endif
}

/* The next piece of work of the current part; parts end with meet(). */
static inline int64_t take(Team *team) {
    return atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed);
}

/* This thread's share [from, to) of n equal pieces. */
static inline void share(const Team *team, int me, int64_t n, int64_t *from, int64_t *to) {
    *from = n * me / team->size;
    *to = n * (me + 1) / team->size;
}
