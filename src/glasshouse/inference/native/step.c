/* One step of the model: all layers over the rows of all pieces, by one team of threads. */
#include "context.h"

EXPORT int64_t step_memory(const Model *m, int64_t rows, int64_t threads) {
    Context c = {0};
    return (int64_t)lay_out(&c, NULL, m, rows, threads) + 64;
}

static void embed(Context *c) {
    const Model *m = c->m;
    const int64_t hidden = m->hidden, steps = (hidden + UNIT - 1) / UNIT;
    int64_t from, to;
    share(c->team, c->me, c->s->rows, &from, &to);
    for (int64_t i = from; i < to; i++) {
        float *x = c->x + i * hidden;
        int64_t id = c->s->ids[i];
        const word *panel = (const word *)m->head.panels + id / PANEL * steps * PANEL + id % PANEL;
        for (int64_t d = 0; d < hidden; d++)
            x[d] = load1(m->embedding ? m->embedding + id * hidden + d
                                      : (const real *)(panel + d / UNIT * PANEL) + d % UNIT);
        if (m->positions)
            for (int64_t d = 0; d < hidden; d++) x[d] += m->positions[c->s->positions[i] * hidden + d];
    }
}

/* Moves the wanted rows together: nobody asks for what the last layer makes of the others. By one thread. */
static void keep_wanted(Context *c) {
    const Step *s = c->s;
    const int64_t hidden = c->m->hidden, mixed = c->m->heads * c->m->head_dim;
    int32_t *first = c->kept, *count = c->kept + s->n_pieces;
    memset(count, 0, s->n_pieces * sizeof(int32_t));
    for (int64_t i = 0; i < s->n_wanted; i++) {
        int64_t row = s->wanted[i]; /* never before i */
        memmove(c->x + i * hidden, c->x + row * hidden, hidden * sizeof(float));
        memmove(c->mixed + i * mixed, c->mixed + row * mixed, mixed * sizeof(float));
        if (!count[s->pieces[row]]++) first[s->pieces[row]] = i;
    }
    *c->end = *s;
    c->end->rows = s->n_wanted;
    c->end->first = first, c->end->count = count;
}

static void walk(Context *c) {
    const Model *m = c->m;
    const Step *s = c->s;
    const int64_t hidden = m->hidden, mixed = m->heads * m->head_dim;
    const int64_t qkv = mixed + 2 * m->kv_heads * m->head_dim, up = (m->gated ? 2 : 1) * m->inner;
    const int both = m->adapted > 0;
    embed(c);
    meet(c->team);
    for (int64_t i = 0; i < m->n_layers; i++) {
        const Layer *layer = m->layers + i;
        Source from = {NORMED, c->x, hidden, hidden, &layer->before_attention, NULL};
        Operand x = prepare(c, from, s->rows, layer->maps[QKV].kind, both);
        map(c, i, QKV, &x, (Target){c->qkv, qkv, 0});
        place(m, layer, s, i, c->qkv, qkv, c->q, c->team, c->me);
        meet(c->team);
        attend(m, layer, s, i, c->q, c->mixed, c->team);
        meet(c->team);
        if (i == m->n_layers - 1 && s->n_wanted < s->rows) {
            if (s->n_wanted == 0) return;
            if (c->me == 0) keep_wanted(c);
            meet(c->team);
            s = c->s = c->end;
        }
        x = prepare(c, (Source){AS_IS, c->mixed, mixed, mixed, NULL, NULL}, s->rows, layer->maps[OUTPUT].kind, both);
        map(c, i, OUTPUT, &x, (Target){c->x, hidden, 1});
        if (layer->experts) {
            mix_experts(c, layer);
            continue;
        }
        from.norm = &layer->before_mlp;
        x = prepare(c, from, s->rows, layer->maps[UP].kind, both);
        map(c, i, UP, &x, (Target){c->up, up, 0});
        x = prepare(c, (Source){ACTED, c->up, up, m->inner, NULL, NULL}, s->rows, layer->maps[DOWN].kind, both);
        map(c, i, DOWN, &x, (Target){c->x, hidden, 1});
    }
    int64_t from, to;
    share(c->team, c->me, s->n_wanted, &from, &to);
    for (int64_t i = from; i < to; i++)
        normalise(m, &m->last, c->x + i * hidden, s->out + i * hidden);
}

typedef struct {
    const Model *m;
    const Step *s;
    Step end;
    Team team;
} Walk;

static void walk_along(void *job, int me) {
    Walk *w = job;
    Context c = {.m = w->m, .s = w->s, .end = &w->end, .team = &w->team, .me = me};
    lay_out(&c, w->s->memory, w->m, w->s->rows, w->team.size);
    walk(&c);
}

/* Returns how often a thread waited so long for the others that it fell asleep. */
EXPORT int64_t step(const Model *m, const Step *s, Crew *crew) {
    Walk w = {.m = m, .s = s};
    crew_run(crew, s->threads, walk_along, &w, &w.team);
    return w.team.dozes;
}

EXPORT int64_t head_memory(const Model *m, int64_t rows) { return operand_bytes(rows, m->hidden) + 64; }

typedef struct {
    const Model *m;
    Operand x;
    Target y;
    int64_t rows;
    Team team;
} Head;

static void head_along(void *job, int me) {
    Head *h = job;
    Context c = {.m = h->m, .team = &h->team, .me = me};
    product(&c, &h->m->head, &h->x, 0, h->rows, h->y);
}

/* logits (rows, vocab) of hidden (rows, hidden) */
EXPORT void head(const Model *m, const float *hidden, float *logits, int64_t rows, int64_t threads, void *memory,
          Crew *crew) {
    Head h = {.m = m, .y = {logits, m->vocab, 0}, .rows = rows};
    h.x = operand_at((void *)round_up((int64_t)memory, 64), rows, m->hidden);
    for (int64_t i = 0; i < rows; i++) write_row(&h.x, i, hidden + i * m->hidden, m->hidden, m->head.kind, 0);
    crew_run(crew, threads, head_along, &h, &h.team);
}
