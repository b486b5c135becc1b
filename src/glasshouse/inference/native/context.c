/* Memory, operands and products of a step; see context.h. */
#include "context.h"

#define ALONE 4   /* rows up to which each thread makes the operand itself: cheaper than meeting for it */
#define STATIC 16 /* rows up to which panels are shared out beforehand: threads then read long streams */

static int64_t widest(const Model *m) {
    int64_t width = m->hidden, mixed = m->heads * m->head_dim;
    int64_t inner = m->inner > m->expert_inner ? m->inner : m->expert_inner;
    width = width > mixed ? width : mixed;
    return width > inner ? width : inner;
}

static void *cut(char **at, int64_t bytes) {
    void *piece = *at;
    *at += round_up(bytes, 64);
    return piece;
}

char *lay_out(Context *c, char *at, const Model *m, int64_t rows, int64_t threads) {
    const int64_t qkv = (m->heads + 2 * m->kv_heads) * m->head_dim, wide = widest(m), all = rows * choices(m);
    const int64_t inner = m->inner > m->expert_inner ? m->inner : m->expert_inner;
    at = (char *)round_up((int64_t)at, 64);
    c->x = cut(&at, rows * m->hidden * 4);
    c->qkv = cut(&at, rows * qkv * 4);
    c->mixed = cut(&at, rows * m->heads * m->head_dim * 4);
    c->up = cut(&at, all * (m->gated ? 2 : 1) * inner * 4);
    c->q = cut(&at, rows * m->heads * m->head_dim * sizeof(real));
    c->kept = cut(&at, 2 * rows * 4);
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

void normalise(const Model *m, const Norm *norm, const float *x, float *y) {
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

Operand prepare(Context *c, Source from, int64_t rows, int64_t kind, int both) {
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

void product(Context *c, const Matrix *m, const Operand *x, int64_t first, int64_t rows, Target y) {
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
            if (s->adapter[p] < 0 || s->count[p] == 0) continue;
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

void map(Context *c, int64_t layer, int site, const Operand *x, Target y) {
    const Matrix *m = &c->m->layers[layer].maps[site];
    product(c, m, x, 0, c->s->rows, y);
    if (c->m->adapted) adapt(c, layer, site, x, y);
    meet(c->team);
}
