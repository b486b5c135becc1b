/* A crew of threads that waits for work; see team.h. */
#include "team.h"
#include <stdlib.h>

#define MOST 255 /* threads: how many work at a call stands in the low byte of its number */

struct Crew {
    Signal call; /* number of the call * 256 + threads that work at it, in one word */
    Signal done; /* number of the last call that all have finished */
    _Alignas(64) atomic_int left;
    Work work;
    void *job;
    pthread_t threads[MOST];
    int size, stopping;
};

typedef struct {
    Crew *crew;
    int me;
} Member;

static void prepare_signal(Signal *signal) {
    atomic_init(&signal->value, 0);
    atomic_init(&signal->asleep, 0);
    pthread_mutex_init(&signal->lock, NULL);
    pthread_cond_init(&signal->bell, NULL);
}

int await_change(Signal *signal, int old, int spins) {
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(&signal->value, memory_order_acquire) != old) return 0;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&signal->lock);
    atomic_fetch_add(&signal->asleep, 1);
    while (atomic_load(&signal->value) == old) pthread_cond_wait(&signal->bell, &signal->lock);
    atomic_fetch_sub(&signal->asleep, 1);
    pthread_mutex_unlock(&signal->lock);
    return 1;
}

void announce(Signal *signal, int value) {
    atomic_store(&signal->value, value);
    if (atomic_load(&signal->asleep) == 0) return; /* who falls asleep looks at the number once more */
    pthread_mutex_lock(&signal->lock);
    pthread_cond_broadcast(&signal->bell);
    pthread_mutex_unlock(&signal->lock);
}

static void *serve(void *argument) {
    Member member = *(Member *)argument;
    Crew *crew = member.crew;
    free(argument);
    for (int seen = 0;;) {
        await_change(&crew->call, seen, IDLE_SPINS);
        seen = atomic_load(&crew->call.value);
        if (crew->stopping) return NULL;
        if (member.me >= (seen & MOST)) continue; /* not wanted; only who is wanted may look at the job */
        crew->work(crew->job, member.me);
        if (atomic_fetch_sub(&crew->left, 1) == 1) announce(&crew->done, seen);
    }
}

Crew *crew_new(int64_t size) {
    Crew *crew = aligned_alloc(64, (sizeof(Crew) + 63) / 64 * 64);
    if (!crew) return NULL;
    prepare_signal(&crew->call);
    prepare_signal(&crew->done);
    crew->stopping = 0;
    for (crew->size = 1; crew->size < size && crew->size < MOST; crew->size++) {
        Member *member = malloc(sizeof *member);
        if (!member) break;
        *member = (Member){crew, crew->size};
        if (pthread_create(&crew->threads[crew->size], NULL, serve, member)) {
            free(member);
            break; /* the system gives no more: fewer do the work */
        }
    }
    return crew;
}

void crew_free(Crew *crew) {
    crew->stopping = 1;
    announce(&crew->call, atomic_load(&crew->call.value) + MOST + 1);
    for (int i = 1; i < crew->size; i++) pthread_join(crew->threads[i], NULL);
    free(crew);
}

void crew_run(Crew *crew, int64_t n, Work work, void *job, Team *team) {
    n = n < crew->size ? n : crew->size;
    atomic_init(&team->next, 0);
    atomic_init(&team->arrived, 0);
    atomic_init(&team->dozes, 0);
    prepare_signal(&team->turn);
    team->size = n;
    int before = atomic_load(&crew->done.value);
    if (n > 1) {
        crew->work = work, crew->job = job;
        atomic_store(&crew->left, n - 1);
        unsigned call = ((unsigned)atomic_load(&crew->call.value) | MOST) + 1 + n;
        announce(&crew->call, (int)call);
    }
    work(job, 0);
    if (n > 1) await_change(&crew->done, before, SPINS);
}
