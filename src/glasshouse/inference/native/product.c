/* Products of rows with packed matrices; product.h says how both lie in memory.
 *
 * A tile is some rows by one or two panels of 32 outputs, kept in registers over all inputs. Reading the
 * weights once for several rows is what makes a batch fast; for one row they come from memory, and
 * two panels are read as two streams. Few-bit weights meet activations in int8: each group of 64 is an exact
 * sum of integers, scaled and added in float32.
 */
#include "product.h"

/* Rows and panels of a tile: 24 sums, of 32 registers; with AVX2 12 halves of them, of 16. */
#ifdef __AVX512F__
#define ROWS 6
#define STREAMS 2
#else
#define ROWS 3
#define STREAMS 1
#endif
#define AHEAD 4096 /* bytes by which weights are fetched early for a single tile */

/* Weights to ask for while a tile computes: `pace` bytes of each stream for every two vectors that it reads.
 * They are those a little ahead; but where several tiles read the same few-bit panel, which is small, the first two
 * fetch the next panel, half each. */
typedef struct {
    const char *from[2];
    int64_t pace;
} Fetch;

int64_t operand_bytes(int64_t rows, int64_t width) {
    int64_t w = round_up(width, GROUP);
    return round_up(rows * w * sizeof(real), 64) + round_up(rows * w, 64) +
           2 * round_up(rows * w / GROUP * 4, 64);
}

Operand operand_at(void *memory, int64_t rows, int64_t width) {
    int64_t w = round_up(width, GROUP);
    Operand x = {.width = w};
    char *at = memory;
    x.words = (word *)at, at += round_up(rows * w * sizeof(real), 64);
    x.codes = (int8_t *)at, at += round_up(rows * w, 64);
    x.scales = (float *)at, at += round_up(rows * w / GROUP * 4, 64);
    x.starts = (int32_t *)at;
    return x;
}

static void write_codes(Operand *x, int64_t row, const float *values, int64_t n) {
    int64_t groups = x->width / GROUP;
    for (int64_t g = 0; g < groups; g++) {
        vec v[GROUP / LANES], most = {};
        for (int i = 0; i < GROUP / LANES; i++) {
            int64_t c = g * GROUP + i * LANES;
            v[i] = c < n ? loadf(values + c) : (vec){};
            most = max(most, max(v[i], -v[i]));
        }
        float top = largest(most), inverse = top > 0 ? 127.0f / top : 0.0f;
        ivec total = {};
        for (int i = 0; i < GROUP / LANES; i++) {
            ivec code = (ivec)(v[i] * inverse + 12582912.0f) - 0x4b400000; /* 1.5 * 2^23: rounds to integers */
            total += code;
            *(bvec *)(x->codes + row * x->width + g * GROUP + i * LANES) = __builtin_convertvector(code, bvec);
        }
        int32_t s = 0;
        for (int i = 0; i < LANES; i++) s += total[i];
        x->scales[row * groups + g] = top / 127.0f;
        x->starts[row * groups + g] = -128 * s;
    }
}

void write_row(Operand *x, int64_t row, const float *values, int64_t n, int64_t kind, int both) {
    if (kind != REAL) write_codes(x, row, values, n);
    if (kind == REAL || both) {
        real *to = (real *)x->words + row * x->width;
        store_reals(to, values, n);
        memset(to + n, 0, (x->width - n) * sizeof(real));
    }
}

static inline void write_sums(vec low, vec high, const Matrix *m, int64_t panel, int64_t row, Target y) {
    vec v[2] = {low, high};
    for (int half = 0; half < 2; half++) {
        int64_t c = panel * PANEL + half * LANES;
        float *to = y.out + row * y.stride + c;
        if (m->bias) v[half] += loadf(m->bias + c); /* biases are padded like outputs */
        if (c + LANES <= m->outputs) {
            if (y.add) v[half] += loadf(to);
            storef(to, v[half]);
        } else
            for (int64_t i = 0; c + i < m->outputs; i++) to[i] = y.add ? to[i] + v[half][i] : v[half][i];
    }
}

/* ---- words ----------------------------------------------------------------------------------- */

INLINE void tile_words(const int rows, const int panels, const Matrix *m, const Operand *x, int64_t row,
                       Target y, const int64_t *panel, Fetch fetch) {
    const int64_t steps = (m->inputs + UNIT - 1) / UNIT, stride = x->width / UNIT;
    const word *w[2], *in = x->words + row * stride;
    vec sum[ROWS][4];
    for (int p = 0; p < panels; p++) w[p] = (const word *)m->panels + panel[p] * steps * PANEL;
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int i = 0; i < 2 * panels; i++) sum[r][i] = (vec){};
    for (int64_t k = 0; k < steps; k++) {
        uvec a[4];
        UNROLL for (int p = 0; p < panels; p++) {
            UNROLL for (int i = 0; i < 2; i++) {
                a[2 * p + i] = loadw(w[p] + k * PANEL + i * LANES);
                __builtin_prefetch(fetch.from[p] + i * 64);
            }
            fetch.from[p] += fetch.pace;
        }
        UNROLL for (int r = 0; r < rows; r++) {
            uvec b = spread(in[r * stride + k]);
            UNROLL for (int i = 0; i < 2 * panels; i++) sum[r][i] = multiply_add(sum[r][i], a[i], b);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int p = 0; p < panels; p++)
        write_sums(sum[r][2 * p], sum[r][2 * p + 1], m, panel[p], row + r, y);
}

/* ---- few bits -------------------------------------------------------------------------------- */

/* sum + the four products of codes (unsigned) and activations (signed) in each word. */
INLINE ivec dot(ivec sum, uvec codes, uvec x) {
#if defined(__AVX512VNNI__)
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)x);
#elif defined(__AVX2__)
    typedef union {
        uvec u;
        ivec i;
        __m256i half[2];
    } both;
    both c = {codes}, v = {x}, s = {.i = sum};
#ifdef __AVXVNNI__
    for (int h = 0; h < 2; h++) s.half[h] = _mm256_dpbusd_avx_epi32(s.half[h], c.half[h], v.half[h]);
#else
    for (int h = 0; h < 2; h++) { /* bytes 0 and 2 of each word, then 1 and 3, as pairs of 16 bits */
        __m256i even = _mm256_and_si256(c.half[h], _mm256_set1_epi32(0x00ff00ff));
        __m256i odd = _mm256_srli_epi16(c.half[h], 8);
        __m256i x_even = _mm256_srai_epi16(_mm256_slli_epi16(v.half[h], 8), 8);
        __m256i x_odd = _mm256_srai_epi16(v.half[h], 8);
        s.half[h] = _mm256_add_epi32(s.half[h], _mm256_madd_epi16(even, x_even));
        s.half[h] = _mm256_add_epi32(s.half[h], _mm256_madd_epi16(odd, x_odd));
    }
#endif
    return s.i;
#else
    for (int byte = 0; byte < 4; byte++)
        sum += (ivec)((codes >> 8 * byte) & 255) * ((ivec)(x << (24 - 8 * byte)) >> 24);
    return sum;
#endif
}

typedef uint8_t codes64 __attribute__((vector_size(64), aligned(1), may_alias));

/* The 64 bytes that 64 codes below 16 stand for; table: the 16 levels, four times. */
INLINE uvec look_up(codes64 table, codes64 codes) {
#if defined(__AVX512BW__)
    return (uvec)_mm512_shuffle_epi8((__m512i)table, (__m512i)codes);
#elif defined(__AVX2__)
    typedef union {
        codes64 c;
        __m256i half[2];
    } both;
    both t = {table}, c = {codes};
    for (int h = 0; h < 2; h++) c.half[h] = _mm256_shuffle_epi8(t.half[h], c.half[h]);
    return (uvec)c.c;
#else
    codes64 found;
    for (int i = 0; i < 64; i++) found[i] = table[codes[i]];
    return (uvec)found;
#endif
}

INLINE void tile_codes(const int rows, const int panels, const int bits, const Matrix *m, const Operand *x,
                       int64_t row, Target y, const int64_t *panel, Fetch fetch) {
    const int64_t groups = x->width / GROUP, bytes = PANEL * GROUP * bits / 8 + PANEL * 2;
    const uint8_t *w[2];
    codes64 table = {};
    if (bits == 4)
        for (int i = 0; i < 64; i++) table[i] = m->levels[i & 15];
    vec sum[ROWS][4];
    for (int p = 0; p < panels; p++) w[p] = (const uint8_t *)m->panels + panel[p] * groups * bytes;
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int i = 0; i < 2 * panels; i++) sum[r][i] = (vec){};
    for (int64_t g = 0; g < groups; g++) {
        const word *in = (const word *)(x->codes + row * x->width + g * GROUP);
        ivec part[ROWS][4];
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int i = 0; i < 2 * panels; i++)
            part[r][i] = (ivec)spread((word)x->starts[(row + r) * groups + g]);
        for (int q = 0; q < GROUP / 4; q += bits == 4 ? 2 : 1) {
            uvec a[4], later[4];
            UNROLL for (int p = 0; p < panels; p++) {
                UNROLL for (int i = 0; i < 2; i++) {
                    a[2 * p + i] = loadw(w[p] + q * PANEL * bits / 2 + i * 64);
                    __builtin_prefetch(fetch.from[p] + i * 64);
                }
                fetch.from[p] += fetch.pace;
            }
            if (bits == 4) UNROLL for (int i = 0; i < 2 * panels; i++) {
                later[i] = look_up(table, (codes64)((a[i] >> 4) & 0x0f0f0f0fu));
                a[i] = look_up(table, (codes64)(a[i] & 0x0f0f0f0fu));
            }
            UNROLL for (int r = 0; r < rows; r++) {
                uvec b = spread(in[r * x->width / 4 + q]);
                UNROLL for (int i = 0; i < 2 * panels; i++) part[r][i] = dot(part[r][i], a[i], b);
            }
            if (bits == 4) UNROLL for (int r = 0; r < rows; r++) {
                uvec b = spread(in[r * x->width / 4 + q + 1]);
                UNROLL for (int i = 0; i < 2 * panels; i++) part[r][i] = dot(part[r][i], later[i], b);
            }
        }
        UNROLL for (int p = 0; p < panels; p++) {
            const hvec *scales = (const hvec *)(w[p] + bytes - PANEL * 2);
            UNROLL for (int i = 0; i < 2; i++) {
                vec s = (vec)(__builtin_convertvector(scales[i], uvec) << 16);
                UNROLL for (int r = 0; r < rows; r++) {
                    vec exact = __builtin_convertvector(part[r][2 * p + i], vec);
                    uvec both = (uvec)(s * (x->scales[(row + r) * groups + g] * m->unit));
#ifdef __AVX512F__
                    sum[r][2 * p + i] = (vec)_mm512_fmadd_ps((__m512)exact, (__m512)both, (__m512)sum[r][2 * p + i]);
#else
                    sum[r][2 * p + i] += exact * (vec)both;
#endif
                }
            }
            w[p] += bytes;
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int p = 0; p < panels; p++)
        write_sums(sum[r][2 * p], sum[r][2 * p + 1], m, panel[p], row + r, y);
}

/* ---- tiles of every height ------------------------------------------------------------------- */

#define TILES(name, ...)                                                                                   \
    static void name(int rows, const Matrix *m, const Operand *x, int64_t row, Target y, const int64_t *panel, \
                     Fetch fetch) {                                                                          \
        switch (rows) { __VA_ARGS__ }                                                                        \
    }
#define LOW(TILE) case 1: TILE(1); break; case 2: TILE(2); break;
#if ROWS == 6
#define HIGH(TILE) case 3: TILE(3); break; case 4: TILE(4); break; case 5: TILE(5); break; case 6: TILE(6); break;
#else
#define HIGH(TILE) case 3: TILE(3); break;
#endif

#define WORDS_1(rows) tile_words(rows, 1, m, x, row, y, panel, fetch)
#define WORDS_2(rows) tile_words(rows, 2, m, x, row, y, panel, fetch)
#define INT8_1(rows) tile_codes(rows, 1, 8, m, x, row, y, panel, fetch)
#define INT8_2(rows) tile_codes(rows, 2, 8, m, x, row, y, panel, fetch)
#define BITS4_1(rows) tile_codes(rows, 1, 4, m, x, row, y, panel, fetch)
#define BITS4_2(rows) tile_codes(rows, 2, 4, m, x, row, y, panel, fetch)
TILES(words_1, LOW(WORDS_1) HIGH(WORDS_1))
TILES(int8_1, LOW(INT8_1) HIGH(INT8_1))
TILES(bits4_1, LOW(BITS4_1) HIGH(BITS4_1))
#if STREAMS == 2
TILES(words_2, LOW(WORDS_2) HIGH(WORDS_2))
TILES(int8_2, LOW(INT8_2)) /* sums of integers need registers of their own */
TILES(bits4_2, LOW(BITS4_2))
#else
#define words_2 words_1
#define int8_2 int8_1
#define bits4_2 bits4_1
#endif

typedef void (*Tile)(int, const Matrix *, const Operand *, int64_t, Target, const int64_t *, Fetch);

void multiply(const Matrix *m, const Operand *x, int64_t first, int64_t rows, Target y, int64_t from,
              int64_t to) {
    static const Tile tiles[3][2] = {{words_1, words_2}, {int8_1, int8_2}, {bits4_1, bits4_2}};
    const int64_t heights = (rows + ROWS - 1) / ROWS; /* rows are spread evenly over tiles */
    const int64_t half = (to - from) / 2;             /* two streams, of the first and the second half */
    const int64_t bytes = panel_bytes(m);
    int single = STREAMS == 1 || (m->kind != REAL && rows > 2);
    for (int64_t i = 0; i < (single ? to - from : to - from - half); i++) {
        int64_t panel[2] = {from + i, from + i};
        int two = !single && i < half;
        if (two) panel[1] = to - half + i;
        for (int64_t t = 0; t < heights; t++) {
            int64_t row = rows * t / heights, end = rows * (t + 1) / heights;
            int next = m->kind != REAL && heights > 1 && t < 2;
            Fetch fetch = {.pace = next ? 64 : 128};
            int64_t ahead = next ? bytes + bytes * t / 2 : t == 0 ? AHEAD : 0;
            for (int p = 0; p <= two; p++)
                fetch.from[p] = (const char *)m->panels + panel[p] * bytes + ahead;
            tiles[m->kind][two](end - row, m, x, first + row, y, panel, fetch);
        }
    }
}
