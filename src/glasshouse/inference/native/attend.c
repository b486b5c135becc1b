/* Paged attention.
 *
 * A page holds 32 positions. Keys lie with positions side by side, (head_dim words, 32), values with channels
 * side by side, (32 positions in words, head_dim): both products run along the vectors. A query goes
 * through the pages from the first that it sees to its own, one online softmax step (arXiv:2205.14135) a page,
 * with everything that it does not see at weight 0. So its sums do not depend on who shares its pages, its
 * tile or its step.
 */
#include "attend.h"
#include "product.h"

#define QUERIES 32 /* of one piece of work: rows by heads that share keys */
#ifdef __AVX512F__
#define TILE 8 /* of these in registers at once */
#else
#define TILE 3
#endif
#define WORDS (PAGE / UNIT)

/* Asks for n bytes before they are needed: pages lie far apart, so the processor does not foresee them. */
INLINE void fetch(const void *p, int64_t n) {
    for (int64_t i = 0; i < n; i += 64) __builtin_prefetch((const char *)p + i);
}

static real *page_of(const Model *m, const Step *s, int64_t layer, int64_t page, int64_t kv_head) {
    return s->cache + ((layer * s->n_pages + page) * m->kv_heads + kv_head) * 2 * PAGE * m->head_dim;
}

/* One head's vector: normed if there is a gain, turned if there are angles. */
static void turn(const Model *m, const Step *s, int64_t position, const float *from, const float *gain,
                 float *to) {
    int64_t width = m->head_dim, half = width / 2;
    memcpy(to, from, width * sizeof(float));
    if (gain) {
        vec squares = {};
        for (int64_t c = 0; c < width; c += LANES) squares += loadf(to + c) * loadf(to + c);
        float scale = 1.0f / sqrtf(sum(squares) / width + m->eps);
        for (int64_t c = 0; c < width; c += LANES) storef(to + c, loadf(to + c) * scale * loadf(gain + c));
    }
    if (s->cos) {
        const float *cos = s->cos + position * half, *sin = s->sin + position * half;
        for (int64_t c = 0; c < half; c++) {
            float first = to[c], second = to[c + half];
            to[c] = first * cos[c] - second * sin[c];
            to[c + half] = second * cos[c] + first * sin[c];
        }
    }
}

void place(const Model *m, const Layer *layer, const Step *s, int64_t index, const float *qkv, int64_t stride,
           real *q, const Team *team, int me) {
    const int64_t width = m->head_dim, units = m->heads + 2 * m->kv_heads;
    const float scale = 1.0f / sqrtf(width);
    float turned[width];
    real packed[width];
    int64_t from, to;
    share(team, me, s->rows * units, &from, &to);
    for (int64_t i = from; i < to; i++) { /* a position's keys lie in as many lines as there are words */
        int64_t row = i / units, head = i % units - m->heads, position = s->positions[row];
        if (head < 0 || head >= m->kv_heads) continue;
        real *keys = page_of(m, s, index, s->pages[s->pages_at[s->pieces[row]] + position / PAGE], head);
        for (int64_t c = 0; c < width; c += UNIT) __builtin_prefetch(keys + c * PAGE + position % PAGE * UNIT, 1);
    }
    for (int64_t i = from; i < to; i++) {
        int64_t row = i / units, head = i % units, position = s->positions[row];
        const float *x = qkv + row * stride + head * width;
        if (head < m->heads) {
            turn(m, s, position, x, layer->q_gain, turned);
            for (int64_t c = 0; c < width; c++) turned[c] *= scale;
            store_reals(q + (row * m->heads + head) * width, turned, width);
            continue;
        }
        int64_t piece = s->pieces[row], at = position % PAGE, kv = head - m->heads;
        int64_t page = s->pages[s->pages_at[piece] + position / PAGE];
        if (kv < m->kv_heads) {
            real *keys = page_of(m, s, index, page, kv);
            turn(m, s, position, x, layer->k_gain, turned);
            store_reals(packed, turned, width);
            for (int64_t c = 0; c < width; c++) keys[(c / UNIT * PAGE + at) * UNIT + c % UNIT] = packed[c];
        } else {
            real *values = page_of(m, s, index, page, kv - m->kv_heads) + PAGE * width;
            store_reals(packed, x, width);
            for (int64_t c = 0; c < width; c++)
                values[(at / UNIT * width + c) * UNIT + at % UNIT] = packed[c];
        }
    }
}

INLINE void score_tile(const int n, const word *keys, const word *const *q, int64_t words, float *scores) {
    vec sums[TILE][2];
    UNROLL for (int i = 0; i < n; i++) sums[i][0] = sums[i][1] = (vec){};
    for (int64_t k = 0; k < words; k++) {
        uvec low = loadw(keys + k * PAGE), high = loadw(keys + k * PAGE + LANES);
        UNROLL for (int i = 0; i < n; i++) {
            uvec b = spread(q[i][k]);
            sums[i][0] = multiply_add(sums[i][0], low, b);
            sums[i][1] = multiply_add(sums[i][1], high, b);
        }
    }
    UNROLL for (int i = 0; i < n; i++) {
        storef(scores + i * PAGE, sums[i][0]);
        storef(scores + i * PAGE + LANES, sums[i][1]);
    }
}

/* out = out * shrink + weights * values, for `wide` vectors of channels; `last` keeps of the last word what is
 * written. */
INLINE void mix_tile(const int n, const int wide, const word *values, int64_t width, const real *weights,
                     int64_t words, uvec last, const float *shrink, float *out) {
    vec sums[TILE][2];
    UNROLL for (int i = 0; i < n; i++) UNROLL for (int v = 0; v < wide; v++)
        sums[i][v] = loadf(out + i * width + v * LANES) * shrink[i];
    for (int64_t k = 0; k < words; k++) {
        uvec a[2];
        UNROLL for (int v = 0; v < wide; v++) {
            a[v] = loadw(values + k * width + v * LANES);
            if (k == words - 1) a[v] &= last;
        }
        UNROLL for (int i = 0; i < n; i++) {
            uvec b = spread(((const word *)weights)[i * WORDS + k]);
            UNROLL for (int v = 0; v < wide; v++) sums[i][v] = multiply_add(sums[i][v], a[v], b);
        }
    }
    UNROLL for (int i = 0; i < n; i++) UNROLL for (int v = 0; v < wide; v++)
        storef(out + i * width + v * LANES, sums[i][v]);
}

#if TILE == 8
#define BY_COUNT(n, CALL)                                                                                \
    switch (n) {                                                                                         \
    case 1: CALL(1); break; case 2: CALL(2); break; case 3: CALL(3); break; case 4: CALL(4); break;      \
    case 5: CALL(5); break; case 6: CALL(6); break; case 7: CALL(7); break; default: CALL(8);            \
    }
#else
#define BY_COUNT(n, CALL)                                                                                \
    switch (n) {                                                                                         \
    case 1: CALL(1); break; case 2: CALL(2); break; default: CALL(3);                                    \
    }
#endif

static void score(int n, const word *keys, const word *const *q, int64_t words, float *scores) {
#define CALL(n) score_tile(n, keys, q, words, scores)
    BY_COUNT(n, CALL)
#undef CALL
}

static void mix(int n, const word *values, int64_t width, const real *weights, int64_t words, uvec last,
                const float *shrink, float *out) {
    int64_t c = 0;
#define CALL(n) mix_tile(n, 2, values + c, width, weights, words, last, shrink, out + c)
    for (; c + 2 * LANES <= width; c += 2 * LANES) BY_COUNT(n, CALL)
#undef CALL
#define CALL(n) mix_tile(n, 1, values + c, width, weights, words, last, shrink, out + c)
    if (c < width) BY_COUNT(n, CALL)
#undef CALL
}

/* Softmax of one page's scores, of which those at [low, high] are seen; returns by how much older sums shrink. */
static float soften(float *scores, int64_t low, int64_t high, float *most, float *total, real *weights) {
    ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, seen[2];
    vec v[2], none = (vec){} - INFINITY;
    for (int half = 0; half < 2; half++) {
        ivec at = lane + half * LANES;
        seen[half] = (at >= (int)low) & (at <= (int)high);
        v[half] = either(seen[half], loadf(scores + half * LANES), none);
    }
    float before = *most, top = largest(max(v[0], v[1]));
    if (low > high) { /* this query sees nothing of the page */
        store(weights, (vec){});
        store(weights + LANES, (vec){});
        return 1.0f;
    }
    top = top > before ? top : before;
    vec sums = {};
    for (int half = 0; half < 2; half++) {
        vec p = only(expv(v[half] - top), seen[half]);
        store(weights + half * LANES, p);
        sums += p;
    }
    float shrink = expv((vec){} + (before - top))[0];
    *most = top;
    *total = *total * shrink + sum(sums);
    return shrink;
}

/* Queries of `rows` rows from `row` on, by heads [head, head + heads), which share a kv head. */
static void attend_queries(const Model *m, const Layer *layer, const Step *s, int64_t index, int64_t piece,
                           int64_t row, int64_t rows, int64_t head, int64_t heads, const real *q, float *mixed) {
    const int64_t width = m->head_dim, n = rows * heads, kv = head / (m->heads / m->kv_heads);
    const int32_t *pages = s->pages + s->pages_at[piece];
    float out[QUERIES * width], most[QUERIES], total[QUERIES], shrink[TILE];
    _Alignas(64) float scores[TILE * PAGE];
    _Alignas(64) real weights[TILE * PAGE];
    const word *queries[QUERIES];
    int64_t own[QUERIES];
    for (int64_t i = 0; i < n; i++) {
        own[i] = s->positions[row + i / heads];
        queries[i] = (const word *)(q + ((row + i / heads) * m->heads + head + i % heads) * width);
        most[i] = -INFINITY, total[i] = 0;
    }
    memset(out, 0, n * width * sizeof(float));
    int64_t start = layer->window && own[0] >= layer->window ? own[0] - layer->window + 1 : 0;
    for (int64_t page = start / PAGE; page <= own[n - 1] / PAGE; page++) {
        const real *keys = page_of(m, s, index, pages[page], kv), *values = keys + PAGE * width;
        int64_t base = page * PAGE, end = own[n - 1] - base + 1; /* positions written so far */
        end = end < PAGE ? end : PAGE;
        uvec last = spread(end % UNIT ? 0xffffu : 0xffffffffu);
        if (base + PAGE <= own[n - 1])
            fetch(page_of(m, s, index, pages[page + 1], kv), 2 * PAGE * width * sizeof(real));
        for (int64_t i = 0; i < n; i += TILE) {
            int some = n - i < TILE ? n - i : TILE;
            score(some, (const word *)keys, queries + i, width / UNIT, scores);
            for (int j = 0; j < some; j++) {
                int64_t low = layer->window ? own[i + j] - layer->window + 1 - base : 0, high = own[i + j] - base;
                shrink[j] = soften(scores + j * PAGE, low, high < PAGE ? high : PAGE - 1, most + i + j,
                                   total + i + j, weights + j * PAGE);
            }
            mix(some, (const word *)values, width, weights, (end + UNIT - 1) / UNIT, last, shrink,
                out + i * width);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        float *to = mixed + ((row + i / heads) * m->heads + head + i % heads) * width;
        for (int64_t c = 0; c < width; c += LANES)
            storef(to + c, loadf(out + i * width + c) * (1.0f / total[i]));
    }
}

void attend(const Model *m, const Layer *layer, const Step *s, int64_t index, const real *q, float *mixed,
            Team *team) {
    const int64_t group = m->heads / m->kv_heads;
    /* Heads of a group read their keys together; with too little work for all threads each goes alone. */
    int64_t heads = s->rows * m->kv_heads < 4 * team->size ? 1 : group;
    while (heads > QUERIES || group % heads) heads--;
    const int64_t per_row = m->heads / heads, tall = QUERIES / heads;
    int64_t piece = 0, passed = 0; /* pieces before this one have so many parts */
    for (int64_t part; piece < s->n_pieces && (part = take(team), 1);) {
        int64_t parts;
        while (piece < s->n_pieces &&
               part >= passed + (parts = (s->count[piece] + tall - 1) / tall * per_row)) {
            passed += parts;
            piece++;
        }
        if (piece == s->n_pieces) break;
        int64_t row = (part - passed) / per_row * tall, left = s->count[piece] - row;
        attend_queries(m, layer, s, index, piece, s->first[piece] + row, left < tall ? left : tall,
                       (part - passed) % per_row * heads, heads, q, mixed);
    }
}
