/* Threads that walk through a step together.
 *
 * They meet some hundred times a step, so waiting is done awake at first. But a thread that is late has mostly
 * lost its processor to another program: who has waited for long sleeps, and leaves it his own. (OpenMP's
 * threads wait awake for milliseconds after each region, which on a busy machine costs several times the work.)
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define SPINS 2000      /* looks at a number before a thread sleeps: some tens of microseconds */
#define IDLE_SPINS 8000 /* the same between two steps */

/* A number that others wait on. */
typedef struct {
    _Alignas(64) atomic_int value;
    atomic_int asleep;
    pthread_mutex_t lock;
    pthread_cond_t bell;
} Signal;

typedef struct {
    _Alignas(64) atomic_llong next; /* piece of work that nobody has taken yet */
    _Alignas(64) atomic_int arrived;
    atomic_int dozes; /* how often a thread of the team fell asleep */
    Signal turn;
    int size;
} Team;

typedef struct Crew Crew;
typedef void (*Work)(void *job, int me);

__attribute__((visibility("default"))) Crew *crew_new(int64_t size);
__attribute__((visibility("default"))) void crew_free(Crew *crew);
/* Calls work(job, 0 .. n - 1) at once, 0 here, and returns when all have; n is cut to the crew's size. */
void crew_run(Crew *crew, int64_t n, Work work, void *job, Team *team);
/* Waits until the number is not `old`; returns whether it slept. */
int await_change(Signal *signal, int old, int spins);
void announce(Signal *signal, int value);

/* Everybody waits for everybody. */
static inline void meet(Team *team) {
    int turn = atomic_load_explicit(&team->turn.value, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->size - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        announce(&team->turn, turn + 1);
    } else if (await_change(&team->turn, turn, SPINS))
        atomic_fetch_add_explicit(&team->dozes, 1, memory_order_relaxed);
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
