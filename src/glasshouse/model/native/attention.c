/* Attention inside documents, with QK-norm and RoPE; kernels.py calls it.
 *
 * A row of `qkv` is one token: `heads` queries, then `kv_heads` keys, then as many values, each `hd`
 * wide (a multiple of 32). cos and sin are (tokens, hd / 2); weights are null where nothing is normed.
 * Stretches of tokens are given as first[] and length[], and those of document d are bounds[d] up to
 * bounds[d + 1]: the first one stands alone, each other one is read after the first trunk[d] tokens of the
 * first. Documents come longest first, so that no thread is left with a long one at the end.
 *
 * One piece of work is one document and one kv head: its keys and values are normed, rotated and kept
 * in float32, then its queries pass by in blocks of ROWS. A stretch after the first writes its keys over
 * those behind the trunk: to the loops inside, trunk and stretch are one document. The backward pass computes all this again
 * from q, k, v and the saved log of the softmax's denominator, as FlashAttention-2 does
 * (arXiv:2307.08691), with whole rows of scores because a document is short. Pieces share nothing, so
 * any number of threads gives the same bits.
 */
#include "vectors.h"

#define ROWS 8
#define WIDE 32 /* channels summed at a time: two vectors a row of the block */
#define AHEAD 8 /* tokens fetched ahead: the rows of one head lie too far apart for the processor to guess */

/* out = rope(norm(x)) * factor; returns 1 / rms. Without a weight nothing is normed. */
static inline float turn(const real *x, const float *weight, const float *cos, const float *sin, int64_t hd,
                         float eps, float factor, float *out) {
    float scale = 1.0f;
    if (weight) {
        vec squares = {};
        for (int64_t c = 0; c < hd; c += LANES) squares += load(x + c) * load(x + c);
        scale = 1.0f / sqrtf(sum(squares) / hd + eps);
    }
    float s = scale * factor;
    for (int64_t c = 0, half = hd / 2; c < half; c += LANES) {
        vec a = load(x + c) * s, b = load(x + half + c) * s;
        if (weight) a *= loadf(weight + c), b *= loadf(weight + half + c);
        storef(out + c, a * loadf(cos + c) - b * loadf(sin + c));
        storef(out + half + c, b * loadf(cos + c) + a * loadf(sin + c));
    }
    return scale;
}

/* The gradient of turn: by x, and added to by_weight. grad is overwritten. */
static inline void turn_backward(float *grad, const real *x, const float *weight, const float *cos,
                                 const float *sin, int64_t hd, float scale, float factor, real *by_x,
                                 float *by_weight) {
    vec along = {};
    for (int64_t c = 0, half = hd / 2; c < half; c += LANES) {
        vec a = loadf(grad + c) * factor, b = loadf(grad + half + c) * factor;
        vec back_a = a * loadf(cos + c) + b * loadf(sin + c), back_b = b * loadf(cos + c) - a * loadf(sin + c);
        if (!weight) {
            store(by_x + c, back_a), store(by_x + half + c, back_b);
            continue;
        }
        vec xa = load(x + c), xb = load(x + half + c);
        storef(by_weight + c, loadf(by_weight + c) + back_a * xa * scale);
        storef(by_weight + half + c, loadf(by_weight + half + c) + back_b * xb * scale);
        back_a *= loadf(weight + c), back_b *= loadf(weight + half + c);
        storef(grad + c, back_a), storef(grad + half + c, back_b);
        along += back_a * xa + back_b * xb;
    }
    if (!weight) return;
    float shrink = sum(along) * scale * scale * scale / hd;
    for (int64_t c = 0; c < hd; c += LANES) store(by_x + c, loadf(grad + c) * scale - load(x + c) * shrink);
}

/* scores[r][j] = rows[r] . columns[:, j] for j < upto; columns are (hd, padded). */
static inline void products(const float *rows, const float *columns, int64_t hd, int64_t padded, int64_t upto,
                            float *scores) {
    for (int64_t j = 0; j < upto; j += LANES) {
        vec acc[ROWS] = {};
        for (int64_t c = 0; c < hd; c++) {
            vec column = loadf(columns + c * padded + j);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) acc[r] += rows[r * hd + c] * column;
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) storef(scores + r * padded + j, acc[r]);
    }
}

/* out[r] = sum over j < upto of weights[r][j] * values[j]; values are (padded, hd). */
static inline void mixtures(const float *weights, const float *values, int64_t hd, int64_t padded, int64_t upto,
                            float *out) {
    for (int64_t c = 0; c < hd; c += WIDE) {
        vec low[ROWS] = {}, high[ROWS] = {};
        for (int64_t j = 0; j < upto; j++) {
            vec a = loadf(values + j * hd + c), b = loadf(values + j * hd + c + LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                low[r] += weights[r * padded + j] * a;
                high[r] += weights[r * padded + j] * b;
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            storef(out + r * hd + c, low[r]);
            storef(out + r * hd + c + LANES, high[r]);
        }
    }
}

/* values[j] += sum over r of weights[r][j] * rows[r], for j < upto. */
static inline void spread(const float *weights, const float *rows, int64_t hd, int64_t padded, int64_t upto,
                          float *values) {
    for (int64_t c = 0; c < hd; c += WIDE) {
        vec low[ROWS], high[ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) low[r] = loadf(rows + r * hd + c), high[r] = loadf(rows + r * hd + c + LANES);
        for (int64_t j = 0; j < upto; j++) {
            vec a = loadf(values + j * hd + c), b = loadf(values + j * hd + c + LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                a += weights[r * padded + j] * low[r];
                b += weights[r * padded + j] * high[r];
            }
            storef(values + j * hd + c, a);
            storef(values + j * hd + c + LANES, b);
        }
    }
}

/* True lanes: keys j..j+15 that query i may see, the last `window` up to its own. */
static inline ivec seen(int64_t j, int64_t i, int64_t window) {
    ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (lane <= (int32_t)(i - j)) & (lane > (int32_t)(i - j - window));
}

void attention_forward(const real *qkv, const float *q_weight, const float *k_weight, const float *cos,
                       const float *sin, const int64_t *first, const int64_t *length, const int64_t *bounds,
                       const int64_t *trunk, int64_t documents, int64_t longest, int64_t heads, int64_t kv_heads,
                       int64_t hd, int64_t window, float eps, real *out, float *log_sum, int threads) {
    int64_t stride = (heads + 2 * kv_heads) * hd, groups = heads / kv_heads;
    int64_t padded = (longest + LANES - 1) / LANES * LANES;
    float factor = 1.0f / sqrtf(hd);
#pragma omp parallel num_threads(threads)
    {
        float *keys = aligned_alloc(64, sizeof(float) * (2 * hd * padded + ROWS * padded + 2 * ROWS * hd + hd));
        float *values = keys + hd * padded, *scores = values + hd * padded;
        float *queries = scores + ROWS * padded, *mixed = queries + ROWS * hd, *key = mixed + ROWS * hd;
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < documents * kv_heads; piece++) {
            int64_t d = piece / kv_heads, kv = piece % kv_heads;
            for (int64_t s = bounds[d]; s < bounds[d + 1]; s++) {
                int64_t begin = s == bounds[d] ? 0 : trunk[d], n = begin + length[s], start = first[s] - begin;
                for (int64_t j = begin; j < n; j++) { /* the trunk's are there already */
                    int64_t token = start + j;
                    const real *x = qkv + token * stride + (heads + kv) * hd;
                    __builtin_prefetch(x + AHEAD * stride);
                    __builtin_prefetch(x + AHEAD * stride + kv_heads * hd);
                    turn(x, k_weight, cos + token * hd / 2, sin + token * hd / 2, hd, eps, 1.0f, key);
                    for (int64_t c = 0; c < hd; c++) keys[c * padded + j] = key[c];
                    for (int64_t c = 0; c < hd; c += LANES) storef(values + j * hd + c, load(x + kv_heads * hd + c));
                }
                for (int64_t c = 0; c < hd; c++) /* what lies beyond the document is computed, then masked */
                    for (int64_t j = n; j % LANES; j++) keys[c * padded + j] = 0;
                for (int64_t head = kv * groups; head < (kv + 1) * groups; head++)
                    for (int64_t i = begin; i < n; i += ROWS) {
                        int64_t rows = n - i < ROWS ? n - i : ROWS, upto = (i + rows + LANES - 1) / LANES * LANES;
                        memset(queries, 0, sizeof(float) * ROWS * hd);
                        for (int64_t r = 0; r < rows; r++) {
                            int64_t token = start + i + r;
                            __builtin_prefetch(qkv + (token + AHEAD) * stride + head * hd);
                            turn(qkv + token * stride + head * hd, q_weight, cos + token * hd / 2,
                                 sin + token * hd / 2, hd, eps, factor, queries + r * hd);
                        }
                        products(queries, keys, hd, padded, upto, scores);
                        float total[ROWS], top[ROWS];
                        for (int64_t r = 0; r < ROWS; r++) {
                            float *row = scores + r * padded;
                            vec most = (vec){} - INFINITY, all = {};
                            for (int64_t j = 0; j < upto; j += LANES) {
                                ivec lanes = seen(j, i + r, window);
                                most = max(most, either(lanes, loadf(row + j), most));
                            }
                            top[r] = largest(most);
                            for (int64_t j = 0; j < upto; j += LANES) {
                                vec p = only(expv(loadf(row + j) - top[r]), seen(j, i + r, window));
                                storef(row + j, p);
                                all += p;
                            }
                            total[r] = sum(all);
                        }
                        mixtures(scores, values, hd, padded, i + rows, mixed);
                        for (int64_t r = 0; r < rows; r++) {
                            int64_t token = start + i + r;
                            log_sum[token * heads + head] = top[r] + logf(total[r]);
                            for (int64_t c = 0; c < hd; c += LANES)
                                store(out + (token * heads + head) * hd + c, loadf(mixed + r * hd + c) * (1.0f / total[r]));
                        }
                    }
            }
        }
        free(keys);
    }
}

/* by_weight[documents * kv_heads][2][hd] receives each piece's share of the q and k norm's gradient. */
void attention_backward(const real *grad, const real *qkv, const float *q_weight, const float *k_weight,
                        const float *cos, const float *sin, const int64_t *first, const int64_t *length,
                        const int64_t *bounds, const int64_t *trunk, int64_t documents, int64_t longest,
                        int64_t heads, int64_t kv_heads, int64_t hd, int64_t window, float eps, const float *log_sum,
                        real *by_qkv, float *by_weight, int threads) {
    int64_t stride = (heads + 2 * kv_heads) * hd, groups = heads / kv_heads;
    int64_t padded = (longest + LANES - 1) / LANES * LANES;
    float factor = 1.0f / sqrtf(hd);
#pragma omp parallel num_threads(threads)
    {
        int64_t table = hd * padded, block = ROWS * hd;
        float *keys_t = aligned_alloc(64, sizeof(float) * (5 * table + 2 * ROWS * padded + 3 * block + padded));
        float *values_t = keys_t + table, *keys = values_t + table, *by_keys = keys + table;
        float *by_values = by_keys + table, *weights = by_values + table, *slopes = weights + ROWS * padded;
        float *queries = slopes + ROWS * padded, *by_out = queries + block, *by_queries = by_out + block;
        float *key_scale = by_queries + block;
#pragma omp for schedule(dynamic, 1)
        for (int64_t piece = 0; piece < documents * kv_heads; piece++) {
            int64_t d = piece / kv_heads, kv = piece % kv_heads;
            float *by_q_weight = by_weight + 2 * piece * hd, *by_k_weight = by_q_weight + hd;
            memset(by_q_weight, 0, sizeof(float) * 2 * hd);
            memset(by_keys, 0, sizeof(float) * trunk[d] * hd);
            memset(by_values, 0, sizeof(float) * trunk[d] * hd);
            /* The first stretch comes last: by then the others have added to the trunk's keys and values. */
            for (int64_t s = bounds[d + 1] - 1; s >= bounds[d]; s--) {
                int64_t begin = s == bounds[d] ? 0 : trunk[d], n = begin + length[s], start = first[s] - begin;
                memset(by_keys + trunk[d] * hd, 0, sizeof(float) * (n - trunk[d]) * hd);
                memset(by_values + trunk[d] * hd, 0, sizeof(float) * (n - trunk[d]) * hd);
                for (int64_t j = s + 1 == bounds[d + 1] ? 0 : begin; j < n; j++) {
                    int64_t token = j < begin ? first[bounds[d]] + j : start + j;
                    const real *x = qkv + token * stride + (heads + kv) * hd, *value = x + kv_heads * hd;
                    __builtin_prefetch(x + AHEAD * stride);
                    __builtin_prefetch(value + AHEAD * stride);
                    key_scale[j] = turn(x, k_weight, cos + token * hd / 2, sin + token * hd / 2, hd, eps, 1.0f,
                                        keys + j * hd);
                    for (int64_t c = 0; c < hd; c++) {
                        keys_t[c * padded + j] = keys[j * hd + c];
                        values_t[c * padded + j] = load1(value + c);
                    }
                }
                for (int64_t c = 0; c < hd; c++)
                    for (int64_t j = n; j % LANES; j++) keys_t[c * padded + j] = values_t[c * padded + j] = 0;
                for (int64_t head = kv * groups; head < (kv + 1) * groups; head++)
                    for (int64_t i = begin; i < n; i += ROWS) {
                        int64_t rows = n - i < ROWS ? n - i : ROWS, upto = (i + rows + LANES - 1) / LANES * LANES;
                        float query_scale[ROWS];
                        memset(queries, 0, sizeof(float) * block);
                        memset(by_out, 0, sizeof(float) * block);
                        for (int64_t r = 0; r < rows; r++) {
                            int64_t token = start + i + r;
                            __builtin_prefetch(qkv + (token + AHEAD) * stride + head * hd);
                            __builtin_prefetch(grad + ((token + AHEAD) * heads + head) * hd);
                            query_scale[r] = turn(qkv + token * stride + head * hd, q_weight, cos + token * hd / 2,
                                                  sin + token * hd / 2, hd, eps, factor, queries + r * hd);
                            for (int64_t c = 0; c < hd; c += LANES)
                                storef(by_out + r * hd + c, load(grad + (token * heads + head) * hd + c));
                        }
                        products(queries, keys_t, hd, padded, upto, weights);
                        products(by_out, values_t, hd, padded, upto, slopes);
                        for (int64_t r = 0; r < ROWS; r++) {
                            float *p = weights + r * padded, *s = slopes + r * padded;
                            float log_total = r < rows ? log_sum[(start + i + r) * heads + head] : 0;
                            int64_t last = r < rows ? i + r : -1; /* rows beyond the document see nothing */
                            vec mean = {};
                            for (int64_t j = 0; j < upto; j += LANES) {
                                vec weight = only(expv(loadf(p + j) - log_total), seen(j, last, window));
                                storef(p + j, weight);
                                mean += weight * loadf(s + j);
                            }
                            float m = sum(mean);
                            for (int64_t j = 0; j < upto; j += LANES) storef(s + j, loadf(p + j) * (loadf(s + j) - m));
                        }
                        mixtures(slopes, keys, hd, padded, i + rows, by_queries);
                        spread(slopes, queries, hd, padded, i + rows, by_keys);
                        spread(weights, by_out, hd, padded, i + rows, by_values);
                        for (int64_t r = 0; r < rows; r++) {
                            int64_t token = start + i + r, at = token * stride + head * hd;
                            turn_backward(by_queries + r * hd, qkv + at, q_weight, cos + token * hd / 2,
                                          sin + token * hd / 2, hd, query_scale[r], factor, by_qkv + at, by_q_weight);
                        }
                    }
                for (int64_t j = begin; j < n; j++) {
                    int64_t token = start + j, at = token * stride + (heads + kv) * hd;
                    turn_backward(by_keys + j * hd, qkv + at, k_weight, cos + token * hd / 2, sin + token * hd / 2, hd,
                                  key_scale[j], 1.0f, by_qkv + at, by_k_weight);
                    for (int64_t c = 0; c < hd; c += LANES)
                        store(by_qkv + at + kv_heads * hd + c, loadf(by_values + j * hd + c));
                }
            }
        }
        free(keys_t);
    }
}
