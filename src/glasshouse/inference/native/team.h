/* Threads that walk through a step together. */
#pragma once
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#define SPINS 2000 /* looks at the flag before a thread stops waiting awake: some tens of microseconds */

typedef struct {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int turn;
    atomic_int asleep;
    _Alignas(64) atomic_llong next; /* piece of work that nobody has taken yet */
    _Alignas(64) int size;
} Team;

/* A thread that is late has mostly lost its processor to some other program. Who sleeps leaves it his own. */
static inline void doze(Team *team, int turn) {
#ifdef __linux__
    atomic_fetch_add(&team->asleep, 1);
    if (atomic_load(&team->turn) == turn) syscall(SYS_futex, &team->turn, FUTEX_WAIT_PRIVATE, turn, NULL, NULL, 0);
    atomic_fetch_sub(&team->asleep, 1);
#else
    sched_yield();
#endif
}

static inline void meet(Team *team) {
    if (team->size == 1) {
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        return;
    }
    int turn = atomic_load_explicit(&team->turn, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->size - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        atomic_store(&team->turn, turn + 1);
#ifdef __linux__
        if (atomic_load(&team->asleep))
            syscall(SYS_futex, &team->turn, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#endif
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->turn, memory_order_acquire) == turn; spins++) {
        if (spins > SPINS) doze(team, turn);
#if defined(__x86_64__)
        else __builtin_ia32_pause();
#endif
    }
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
