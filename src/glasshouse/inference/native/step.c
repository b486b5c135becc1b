/* One step of the model: all layers over the rows of all pieces, by one team of threads. */
#include "attend.h"
#include "product.h"
#include "team.h"

#define ALONE 4   /* rows up to which each thread makes the operand itself: cheaper than meeting for it */
#define STATIC 16 /* rows up to which panels are shared out beforehand: threads then read long streams */

/* What stands behind a row of an operand. */
typedef struct {
    enum { AS_IS, NORMED, ACTED } kind;
    const float *from;
    int64_t stride, width;
    const Norm *norm;
    const int32_t *rows; /* which row of `from` becomes row i, or NULL: row i */
} Source;

typedef struct {
    const Model *m;
    const Step *s;
    Team *team;
    int me;
    float *x, *qkv, *mixed, *up, *scratch, *low, *parts, *weights;
    int32_t *order, *places, *starts; /* of experts: row of each assignment, its place, first place of each */
    real *q;
    Operand shared, own, low_shared[MAPS];
} Context;

static int64_t widest(const Model *m) {
    int64_t width = m->hidden, mixed = m->heads * m->head_dim;
    int64_t inner = m->inner > m->expert_inner ? m->inner : m->expert_inner;
    width = width > mixed ? width : mixed;
    return width > inner ? width : inner;
}

static int64_t choices(const Model *m) { return m->top_k > 1 ? m->top_k : 1; }

static void *cut(char **at, int64_t bytes) {
    void *piece = *at;
    *at += round_up(bytes, 64);
    return piece;
}

/* Lays out the step's memory; returns its end. */
static char *lay_out(Context *c, char *at, const Model *m, int64_t rows, int64_t threads) {
    const int64_t qkv = (m->heads + 2 * m->kv_heads) * m->head_dim, wide = widest(m), all = rows * choices(m);
    const int64_t inner = m->inner > m->expert_inner ? m->inner : m->expert_inner;
    at = (char *)round_up((int64_t)at, 64);
    c->x = cut(&at, rows * m->hidden * 4);
    c->qkv = cut(&at, rows * qkv * 4);
    c->mixed = cut(&at, rows * m->heads * m->head_dim * 4);
    c->up = cut(&at, all * (m->gated ? 2 : 1) * inner * 4);
    c->q = cut(&at, rows * m->heads * m->head_dim * sizeof(real));
    c->shared = operand_at(cut(&at, operand_bytes(all, wide)), all, wide);
    if (m->adapted) {
        c->low = cut(&at, rows * MAPS * m->adapted * 4);
        for (int i = 0; i < MAPS; i++)
            c->low_shared[i] = operand_at(cut(&at, operand_bytes(rows, m->adapted)), rows, m->adapted);
    }
    if (m->n_experts) {
        c->parts = cut(&at, (all * m->hidden + rows * m->n_experts) * 4);
        c->weights = cut(&at, all * 4);
        c->order = cut(&at, all * 4);
        c->places = cut(&at, all * 4);
        c->starts = cut(&at, (m->n_experts + 1) * 4);
    }
    char *scratch = cut(&at, threads * round_up(wide * 4, 64));
    int64_t own = round_up(operand_bytes(ALONE * choices(m), wide), 64);
    char *owns = cut(&at, threads * own);
    c->scratch = (float *)(scratch + c->me * round_up(wide * 4, 64));
    c->own = operand_at(owns + c->me * own, ALONE * choices(m), wide);
    return at;
}

int64_t step_memory(const Model *m, int64_t rows, int64_t threads) {
    Context c = {0};
    return (int64_t)lay_out(&c, NULL, m, rows, threads) + 64;
}

static void normalise(const Model *m, const Norm *norm, const float *x, float *y) {
    const int64_t n = m->hidden;
    float mean = 0;
    vec total = {}, squares = {};
    if (norm->bias) {
        for (int64_t c = 0; c < n; c += LANES) total += loadf(x + c);
        mean = sum(total) / n;
    }
    for (int64_t c = 0; c < n; c += LANES) {
        vec v = loadf(x + c) - mean;
        squares += v * v;
    }
    float scale = 1.0f / sqrtf(sum(squares) / n + m->eps);
    for (int64_t c = 0; c < n; c += LANES) {
        vec v = (loadf(x + c) - mean) * scale * loadf(norm->gain + c);
        if (norm->bias) v += loadf(norm->bias + c);
        storef(y + c, v);
    }
}

static inline vec activate(int64_t kind, vec x) {
    switch (kind) {
    case SILU: return x * sigmoid(x);
    case RELU: return max(x, (vec){});
    case GELU_TANH: return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)); /* 2 sqrt(2 / pi) */
    default:
        for (int i = 0; i < LANES; i++) x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.7071067812f));
        return x;
    }
}

/* The rows of a source as an operand for a matrix of `kind`. Ends with everybody's rows written. */
static Operand prepare(Context *c, Source from, int64_t rows, int64_t kind, int both) {
    const Model *m = c->m;
    int alone = rows <= ALONE * choices(m);
    Operand x = alone ? c->own : c->shared;
    x.width = round_up(from.width, GROUP);
    int64_t first = 0, end = rows;
    if (!alone) share(c->team, c->me, rows, &first, &end);
    for (int64_t i = first; i < end; i++) {
        const float *row = from.from + (from.rows ? from.rows[i] : i) * from.stride;
        if (from.kind == NORMED) normalise(m, from.norm, row, c->scratch);
        if (from.kind == ACTED)
            for (int64_t j = 0; j < from.width; j += LANES) {
                vec y = activate(m->act, loadf(row + j));
                if (m->gated) y *= loadf(row + from.width + j);
                storef(c->scratch + j, y);
            }
        write_row(&x, i, from.kind == AS_IS ? row : c->scratch, from.width, kind, both);
    }
    if (!alone) meet(c->team);
    return x;
}

static void product(Context *c, const Matrix *m, const Operand *x, int64_t first, int64_t rows, Target y) {
    int64_t panels = panels_of(m), from, to;
    if (rows <= STATIC) {
        share(c->team, c->me, panels, &from, &to);
        multiply(m, x, first, rows, y, from, to);
        return;
    }
    while ((from = 2 * take(c->team)) < panels)
        multiply(m, x, first, rows, y, from, from + 2 < panels ? from + 2 : panels);
}

/* Adds what the pieces' adapters make of the operand. */
static void adapt(Context *c, int64_t layer, int site, const Operand *x, Target y) {
    const Model *m = c->m;
    const Step *s = c->s;
    int any = 0;
    for (int64_t p = 0; p < s->n_pieces; p++) any |= s->adapter[p] >= 0;
    if (!any) return;
    for (int turn = 0; turn < 2; turn++) { /* A x, then B of it */
        meet(c->team);
        for (int64_t p = 0, job = 0; p < s->n_pieces; p++) {
            if (s->adapter[p] < 0) continue;
            const Adapter *a = m->adapters + ((s->adapter[p] * m->n_layers + layer) * MAP_SITES + site) * MAPS;
            for (int i = 0; i < MAPS; i++) {
                if (!a[i].a.panels) continue;
                int64_t first = s->first[p], end = first + s->count[p], from, to, rank = a[i].a.outputs;
                Operand low = c->low_shared[i];
                low.width = round_up(rank, GROUP);
                if (turn == 0 && job++ % c->team->size == c->me) {
                    Target t = {c->low + i * m->adapted, MAPS * m->adapted, 0};
                    multiply(&a[i].a, x, first, end - first, t, 0, panels_of(&a[i].a));
                    /* operands of all ranks lie in rows as wide as the widest */
                    for (int64_t row = first; row < end; row++) {
                        Operand one = low;
                        one.words += row * round_up(m->adapted, GROUP) / UNIT;
                        write_row(&one, 0, t.out + row * t.stride, rank, REAL, 0);
                    }
                }
                if (turn == 1) {
                    Operand piece = low;
                    piece.words += first * round_up(m->adapted, GROUP) / UNIT;
                    piece.width = round_up(m->adapted, GROUP);
                    Target t = {y.out + first * y.stride + a[i].column, y.stride, 1};
                    share(c->team, c->me, panels_of(&a[i].b), &from, &to);
                    multiply(&a[i].b, &piece, 0, end - first, t, from, to);
                }
            }
        }
    }
}

static void map(Context *c, int64_t layer, int site, const Operand *x, Target y) {
    const Matrix *m = &c->m->layers[layer].maps[site];
    product(c, m, x, 0, c->s->rows, y);
    if (c->m->adapted) adapt(c, layer, site, x, y);
    meet(c->team);
}

/* The router's choice for each row: weights, and assignments sorted by expert. By one thread. */
static void route(Context *c, const float *logits) {
    const Model *m = c->m;
    const int64_t n = m->n_experts, k = m->top_k, rows = c->s->rows;
    int32_t chosen[rows * k];
    memset(c->starts, 0, (n + 1) * sizeof(int32_t));
    for (int64_t i = 0; i < rows; i++) {
        const float *row = logits + i * n;
        float top = row[0], total = 0, kept = 0, *weights = c->weights + i * k;
        for (int64_t e = 1; e < n; e++) top = row[e] > top ? row[e] : top;
        for (int64_t e = 0; e < n; e++) total += expf(row[e] - top);
        for (int64_t j = 0; j < k; j++) {
            int64_t best = -1;
            for (int64_t e = 0; e < n; e++) {
                int taken = 0;
                for (int64_t l = 0; l < j; l++) taken |= chosen[i * k + l] == e;
                if (!taken && (best < 0 || row[e] > row[best])) best = e;
            }
            chosen[i * k + j] = best;
            kept += weights[j] = expf(row[best] - top) / total;
            c->starts[best + 1]++;
        }
        if (m->normed_top_k)
            for (int64_t j = 0; j < k; j++) weights[j] /= kept;
    }
    for (int64_t e = 0; e < n; e++) c->starts[e + 1] += c->starts[e];
    int32_t next[n];
    memcpy(next, c->starts, sizeof next);
    for (int64_t i = 0; i < rows * k; i++) {
        c->places[i] = next[chosen[i]]++;
        c->order[c->places[i]] = i / k;
    }
}

/* One product for every expert that has rows; they are written apart, so nobody waits between them. */
static void expert_products(Context *c, const Layer *layer, int down, const Operand *x, Target y) {
    int64_t experts = c->m->n_experts, chunks = (panels_of(layer->experts + down) + 1) / 2, job;
    while ((job = take(c->team)) < experts * chunks) {
        int64_t e = job / chunks, from = job % chunks * 2, rows = c->starts[e + 1] - c->starts[e];
        const Matrix *m = layer->experts + 2 * e + down;
        int64_t to = from + 2 < panels_of(m) ? from + 2 : panels_of(m);
        if (rows) multiply(m, x, c->starts[e], rows, y, from, to);
    }
    meet(c->team);
}

static void mix_experts(Context *c, const Layer *layer) {
    const Model *m = c->m;
    const int64_t rows = c->s->rows, k = m->top_k, all = rows * k, hidden = m->hidden;
    float *logits = c->parts + all * hidden;
    Source normed = {NORMED, c->x, hidden, hidden, &layer->before_mlp, NULL};
    Operand x = prepare(c, normed, rows, REAL, 0);
    product(c, &layer->router, &x, 0, rows, (Target){logits, m->n_experts, 0});
    meet(c->team);
    if (c->me == 0) route(c, logits);
    meet(c->team);
    normed.rows = c->order;
    x = prepare(c, normed, all, layer->experts->kind, 0);
    const int64_t inner = m->expert_inner, up = (m->gated ? 2 : 1) * inner;
    expert_products(c, layer, 0, &x, (Target){c->up, up, 0});
    x = prepare(c, (Source){ACTED, c->up, up, inner, NULL, NULL}, all, layer->experts[1].kind, 0);
    expert_products(c, layer, 1, &x, (Target){c->parts, hidden, 0});
    int64_t from, to;
    share(c->team, c->me, rows, &from, &to);
    for (int64_t i = from; i < to; i++)
        for (int64_t j = 0; j < k; j++) {
            const float *part = c->parts + c->places[i * k + j] * hidden;
            for (int64_t d = 0; d < hidden; d += LANES)
                storef(c->x + i * hidden + d,
                       loadf(c->x + i * hidden + d) + loadf(part + d) * c->weights[i * k + j]);
        }
    meet(c->team);
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
        normalise(m, &m->last, c->x + s->wanted[i] * hidden, s->out + i * hidden);
}

void step(const Model *m, const Step *s) {
    Team team = {.size = 1};
#ifdef _OPENMP
#pragma omp parallel num_threads(s->threads)
#endif
    {
        Context c = {.m = m, .s = s, .team = &team};
#ifdef _OPENMP
        c.me = omp_get_thread_num();
#pragma omp single
        team.size = omp_get_num_threads();
#endif
        lay_out(&c, s->memory, m, s->rows, team.size);
        walk(&c);
    }
}

int64_t head_memory(const Model *m, int64_t rows) { return operand_bytes(rows, m->hidden) + 64; }

/* logits (rows, vocab) of hidden (rows, hidden) */
void head(const Model *m, const float *hidden, float *logits, int64_t rows, int64_t threads, void *memory) {
    Team team = {.size = 1};
    Operand x = operand_at((void *)round_up((int64_t)memory, 64), rows, m->hidden);
    for (int64_t i = 0; i < rows; i++) write_row(&x, i, hidden + i * m->hidden, m->hidden, m->head.kind, 0);
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
#endif
    {
        Context c = {.m = m, .team = &team};
#ifdef _OPENMP
        c.me = omp_get_thread_num();
#pragma omp single
        team.size = omp_get_num_threads();
#endif
        product(&c, &m->head, &x, 0, rows, (Target){logits, m->vocab, 0});
    }
}
