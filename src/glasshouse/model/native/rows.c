/* Norm, SwiGLU and cross entropy, each in one pass over memory; kernels.py calls them.
 *
 * n rows of d channels, d a multiple of 16. Work is cut into pieces that do not depend on the number
 * of threads, and partial sums are kept apart for each piece: any number of threads gives the same bits.
 */
#include "vectors.h"

#define SMALL 16384 /* numbers that one thread handles before another would have woken up */

/* ---- RMSNorm: y = x / rms(x) * weight ------------------------------------------------------- */

/* scale[n] receives 1 / rms. */
void norm_forward(const real *x, const float *weight, real *y, float *scale, int64_t n, int64_t d,
                  float eps, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (n * d > SMALL)
    for (int64_t i = 0; i < n; i++) {
        const real *row = x + i * d;
        vec squares = {};
        for (int64_t c = 0; c < d; c += LANES) squares += load(row + c) * load(row + c);
        float s = scale[i] = 1.0f / sqrtf(sum(squares) / d + eps);
        for (int64_t c = 0; c < d; c += LANES) store(y + i * d + c, load(row + c) * s * loadf(weight + c));
    }
}

/* by_weight[pieces][d] receives one partial sum for each piece of the rows. */
void norm_backward(const real *grad, const real *x, const float *weight, const float *scale, real *by_x,
                   float *by_weight, int64_t n, int64_t d, int64_t pieces, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t piece = 0; piece < pieces; piece++) {
        float *partial = by_weight + piece * d;
        memset(partial, 0, d * sizeof(float));
        for (int64_t i = n * piece / pieces; i < n * (piece + 1) / pieces; i++) {
            const real *g = grad + i * d, *row = x + i * d;
            float s = scale[i];
            vec along = {};
            for (int64_t c = 0; c < d; c += LANES) {
                vec gx = load(g + c) * load(row + c);
                along += gx * loadf(weight + c);
                storef(partial + c, loadf(partial + c) + gx * s);
            }
            float shrink = sum(along) * s * s * s / d;
            for (int64_t c = 0; c < d; c += LANES)
                store(by_x + i * d + c, load(g + c) * loadf(weight + c) * s - load(row + c) * shrink);
        }
    }
}

/* ---- SwiGLU: out = silu(gate) * up; a row of `both` is [gate, up], each d wide ----------------- */

void swiglu_forward(const real *both, real *out, int64_t n, int64_t d, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c += LANES) {
            vec gate = load(both + 2 * i * d + c), up = load(both + (2 * i + 1) * d + c);
            store(out + i * d + c, gate * sigmoid(gate) * up);
        }
}

void swiglu_backward(const real *grad, const real *both, real *by_both, int64_t n, int64_t d, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c += LANES) {
            vec g = load(grad + i * d + c);
            vec gate = load(both + 2 * i * d + c), up = load(both + (2 * i + 1) * d + c);
            vec s = sigmoid(gate);
            store(by_both + 2 * i * d + c, g * up * s * (1.0f + gate * (1.0f - s)));
            store(by_both + (2 * i + 1) * d + c, g * gate * s);
        }
}

/* ---- Cross entropy: loss[n] = -log softmax(logits)[target]; logits become its gradient ---------- */

void cross_entropy(real *logits, const int64_t *targets, float *loss, int64_t n, int64_t vocab, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        real *row = logits + i * vocab;
        vec most = (vec){} - INFINITY;
        for (int64_t c = 0; c < vocab; c += LANES) most = max(most, load(row + c));
        float top = largest(most), wanted = load1(row + targets[i]);
        vec total = {};
        for (int64_t c = 0; c < vocab; c += LANES) total += expv(load(row + c) - top);
        float z = sum(total);
        loss[i] = logf(z) + top - wanted;
        for (int64_t c = 0; c < vocab; c += LANES) store(row + c, expv(load(row + c) - top) * (1.0f / z));
        store1(row + targets[i], expf(wanted - top) / z - 1.0f);
    }
}
