/* Numbers in words of 32 bits: one float32, or with -DBF16 a pair of bfloat16 (the earlier in the low half).
 *
 * A product takes one word of a row of activations at a time and multiplies it with the same word of 16
 * outputs. Whatever the number of rows, an output's words are added in order, from the first to the last.
 */
#pragma once
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#include "vectors.h"

#ifdef BF16
#define UNIT 2 /* numbers in a word */
#else
#define UNIT 1
#endif
#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default"))) /* all other names stay inside the library */
#define UNROLL _Pragma("GCC unroll 16")

typedef uint32_t word;
typedef int8_t bvec __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef union {
    float f;
    word w;
} number;

INLINE uvec loadw(const void *p) { return *(const uvec *)p; }
INLINE uvec spread(word w) {
#ifdef __AVX512F__
    return (uvec)_mm512_set1_epi32((int)w); /* GCC builds {} + w for AVX-512 through a register more */
#else
    return (uvec){} + w;
#endif
}

/* sum + the products of the numbers in a's words with those in b's. */
INLINE vec multiply_add(vec sum, uvec a, uvec b) {
#ifndef BF16
#ifdef __AVX512F__
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#else
    return sum + (vec)a * (vec)b;
#endif
#elif defined(__AVX512BF16__)
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    sum += (vec)(a << 16) * (vec)(b << 16);
    return sum + (vec)(a & 0xffff0000u) * (vec)(b & 0xffff0000u);
#endif
}

/* Floats to reals: n a multiple of 16. */
INLINE void store_reals(real *to, const float *from, int64_t n) {
    for (int64_t c = 0; c < n; c += LANES) store(to + c, loadf(from + c));
}
