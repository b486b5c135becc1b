/* Paged attention. */
#pragma once
#include "model.h"
#include "team.h"

/* Queries, keys and values of a row: norms, RoPE; queries to q (rows, heads, head_dim), the rest into pages. */
void place(const Model *m, const Layer *layer, const Step *s, int64_t index, const float *qkv, int64_t stride,
           real *q, const Team *team, int me);
/* mixed (rows, heads * head_dim): what each head reads from the pages. Work is taken from the team. */
void attend(const Model *m, const Layer *layer, const Step *s, int64_t index, const real *q, float *mixed,
            Team *team);
