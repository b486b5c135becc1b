/* What one thread knows while it walks through a step, and the parts of which layers are made. */
#pragma once
#include "attend.h"
#include "product.h"
#include "team.h"

/* What stands behind a row of an operand. */
typedef struct {
    enum { AS_IS, NORMED, ACTED } kind;
    const float *from;
    int64_t stride, width;
    const Norm *norm;
    const int32_t *rows; /* which row of `from` becomes row i, or NULL: row i */
} Source;

typedef struct {
    const Model *m;
    const Step *s;
    Step *end; /* the same step with only the wanted rows, for the last layer */
    Team *team;
    int me;
    float *x, *qkv, *mixed, *up, *scratch, *low, *parts, *weights;
    int32_t *kept;                    /* of each piece: first wanted row, and how many */
    int32_t *order, *places, *starts; /* of experts: row of each assignment, its place, first place of each */
    real *q;
    Operand shared, own, low_shared[MAPS];
} Context;

/* Lays out the step's memory; returns its end. */
char *lay_out(Context *c, char *at, const Model *m, int64_t rows, int64_t threads);
void normalise(const Model *m, const Norm *norm, const float *x, float *y);
/* The rows of a source as an operand for a matrix of `kind`. Ends with everybody's rows written. */
Operand prepare(Context *c, Source from, int64_t rows, int64_t kind, int both);
/* This thread's part of a product. */
void product(Context *c, const Matrix *m, const Operand *x, int64_t first, int64_t rows, Target y);
/* A layer's product with what the pieces' adapters add; ends with all of it written. */
void map(Context *c, int64_t layer, int site, const Operand *x, Target y);
/* x += the mixture of experts of normed x. */
void mix_experts(Context *c, const Layer *layer);
static inline int64_t choices(const Model *m) { return m->top_k > 1 ? m->top_k : 1; }
