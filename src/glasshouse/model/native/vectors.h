/* Vectors of 16 numbers in GCC's vector extensions, which clang reads too: they become AVX-512, AVX2 or
 * NEON instructions as the processor has them.
 *
 * Tensors are stored as float32, or as bfloat16 when compiled with -DBF16; arithmetic is float32.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

#ifdef BF16
typedef uint16_t real;
static inline vec load(const real *p) { return (vec)(__builtin_convertvector(*(const hvec *)p, uvec) << 16); }
static inline void store(real *p, vec x) {
    uvec u = (uvec)x;
    u += 0x7fff + ((u >> 16) & 1); /* round to nearest, ties to even */
    *(hvec *)p = __builtin_convertvector(u >> 16, hvec);
}
static inline float load1(const real *p) {
    uint32_t u = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static inline void store1(real *p, float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    *p = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
}
#else
typedef float real;
static inline vec load(const real *p) { return *(const vec *)p; }
static inline void store(real *p, vec x) { *(vec *)p = x; }
static inline float load1(const real *p) { return *p; }
static inline void store1(real *p, float x) { *p = x; }
#endif

static inline vec loadf(const float *p) { return *(const vec *)p; }
static inline void storef(float *p, vec x) { *(vec *)p = x; }

static inline vec only(vec x, ivec lanes) { return (vec)((ivec)x & lanes); } /* 0 in the other lanes */
static inline vec either(ivec lanes, vec a, vec b) { return (vec)(((ivec)a & lanes) | ((ivec)b & ~lanes)); }
static inline vec max(vec a, vec b) { return either(a > b, a, b); }

/* Sum and maximum over the lanes, by halves. */
#ifdef __clang__
#define SHUFFLE(x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define SHUFFLE(x, ...) __builtin_shuffle(x, (ivec){__VA_ARGS__})
#endif
#define BY_HALVES(op, x)                                                          \
    x = op(x, SHUFFLE(x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
    x = op(x, SHUFFLE(x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
    x = op(x, SHUFFLE(x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)); \
    x = op(x, SHUFFLE(x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));

static inline vec plus(vec a, vec b) { return a + b; }
static inline float sum(vec x) {
    BY_HALVES(plus, x)
    return x[0];
}
static inline float largest(vec x) {
    BY_HALVES(max, x)
    return x[0];
}

/* e^x for x <= 88, and 0 below -87: 2^(whole part) by exponent bits, e^rest by a polynomial (Cephes
 * expf), relative error 1e-7. */
static inline vec expv(vec x) {
    vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer */
    vec whole = shifted - 12582912.0f;
    vec r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec exponent = (__builtin_convertvector(whole, ivec) + 127) << 23;
    return only(p * (vec)exponent, ~(x < -87.0f)); /* so written, NaN stays NaN */
}

/* 1 / (1 + e^-x), by e^-|x| so that nothing overflows. */
static inline vec sigmoid(vec x) {
    vec small = expv(either(x > 0.0f, (vec){} - x, x));
    return either(x > 0.0f, (vec){} + 1.0f, small) / (small + 1.0f);
}
