/* Products of rows with packed matrices. */
#pragma once
#include "model.h"

/* Rows made ready for products: as words, and for few-bit matrices as int8 with a scale for each 64. */
typedef struct {
    word *words;
    int8_t *codes;
    float *scales;   /* (rows, groups) */
    int32_t *starts; /* (rows, groups): -128 times the sum of a group's codes */
    int64_t width;   /* numbers of a row, rounded up to whole groups */
} Operand;

/* y = W x + bias, or with `add` y += W x + bias. */
typedef struct {
    float *out;
    int64_t stride; /* between rows */
    int64_t add;
} Target;

int64_t operand_bytes(int64_t rows, int64_t width);
Operand operand_at(void *memory, int64_t rows, int64_t width);
/* Writes one row; `kind` is that of the matrices to come, `both` asks for words in any case. n: a multiple of 16. */
void write_row(Operand *x, int64_t row, const float *values, int64_t n, int64_t kind, int both);
/* Panels [from, to) of the product of rows [first, first + rows) of x, written to the same rows of the target. */
void multiply(const Matrix *m, const Operand *x, int64_t first, int64_t rows, Target y, int64_t from,
              int64_t to);

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline int64_t panel_bytes(const Matrix *m) {
    if (m->kind == REAL) return round_up(m->inputs, UNIT) / UNIT * PANEL * 4;
    return round_up(m->inputs, GROUP) / GROUP * (PANEL * GROUP / (m->kind == INT8 ? 1 : 2) + PANEL * 2);
}
static inline int64_t panels_of(const Matrix *m) { return (m->outputs + PANEL - 1) / PANEL; }
