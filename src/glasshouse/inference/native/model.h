/* What Python hands over (inference/native_weights.py holds the same structures), and a step's own memory. */
#pragma once
#include "words.h"

#define PANEL 32      /* outputs of a matrix that lie together */
#define GROUP 64      /* inputs of a few-bit matrix that share a scale */
#define PAGE 32       /* positions of a page */
#define MAP_SITES 4   /* of a layer: qkv, output, up, down */
#define MAPS 3        /* maps joined at one site: q, k, v, or gate and up */

enum { REAL, INT8, BITS4 };                        /* Matrix.kind */
enum { SILU, GELU, GELU_TANH, RELU };              /* Model.act */
enum { QKV, OUTPUT, UP, DOWN };                    /* sites of a layer */

/* A map of `inputs` numbers to `outputs`. Panels of 32 outputs follow each other:
 *   REAL   for each word of inputs 32 words, one an output
 *   INT8   for each group of 64 inputs 16 times 32 words of four codes (w + 128), then 32 scales, bfloat16
 *   BITS4  the same with 8 times 32 words: four codes in the low halves of the bytes, the next four above
 * Inputs and outputs that fill up words, groups and panels are zeros. */
typedef struct {
    const void *panels;
    const float *bias;   /* or NULL */
    const uint8_t *levels; /* BITS4: what the 16 codes stand for, + 128 */
    int64_t outputs, inputs, kind;
    float unit; /* what a level of 1 stands for, in scales */
} Matrix;

typedef struct {
    const float *gain, *bias; /* bias NULL: RMSNorm, else LayerNorm */
} Norm;

typedef struct {
    Norm before_attention, before_mlp;
    const float *q_gain, *k_gain; /* or NULL */
    Matrix maps[MAP_SITES];       /* up: the gate's outputs first, where there is one */
    Matrix router;                /* with experts; `experts` times up and down */
    const Matrix *experts;        /* NULL: dense */
    int64_t window;               /* positions that a token sees, itself among them; 0: all before it */
} Layer;

/* y[column ..] += B (A x) */
typedef struct {
    Matrix a, b; /* the scale is in B; a.panels NULL: no adapter here */
    int64_t column;
} Adapter;

typedef struct {
    const Layer *layers;
    const Adapter *adapters; /* (adapters, layers, MAP_SITES, MAPS) */
    Norm last;
    Matrix head;
    const real *embedding;  /* (vocab, hidden), or NULL: the head's matrix */
    const float *positions; /* added to embeddings: (context, hidden), or NULL */
    int64_t n_layers, hidden, heads, kv_heads, head_dim, inner, vocab;
    int64_t act, gated, n_experts, top_k, expert_inner, normed_top_k, adapted;
    float eps;
} Model;

typedef struct {
    const int32_t *ids, *positions, *pieces; /* (rows,): token, its position, its piece */
    const int32_t *first, *count, *adapter;  /* (pieces,): first row, rows, adapter or -1 */
    const int32_t *pages, *pages_at;         /* page numbers of all pieces; where each piece's begin */
    const int32_t *wanted;                   /* (n_wanted,) rows whose hidden state is asked for */
    const float *cos, *sin;                  /* (positions, head_dim / 2), or NULL: no RoPE */
    real *cache;                             /* (layers, n_pages, kv_heads, keys and values, PAGE * head_dim) */
    float *out;                              /* (n_wanted, hidden) */
    void *memory;                            /* step_memory() bytes */
    int64_t rows, n_pieces, n_wanted, n_pages, threads;
} Step;
