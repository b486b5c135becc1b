/* Mixture of experts: rows sorted by expert, so that each weight is read once for all rows that need it. */
#include "context.h"

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

void mix_experts(Context *c, const Layer *layer) {
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
