/* small.h - caches of one layer, and attention over them in a few lines. */
#ifndef SMALL_H
#define SMALL_H

#include "cache_test.h"
#include "qkv/cache_view.h"

enum { SEQS = 4, HQ = 6, HKV = 2, D = 32, P = 16 };

/* One layer, HKV heads of D channels, pages of P tokens. */
qkv_cache_config small_heads(int32_t format);

/* N(0, 1), of the running case. */
float *small_numbers(t_rng *rng, int n);

/* `count` more committed tokens of random numbers. */
void small_append(qkv_cache *cache, t_rng *rng, int32_t id, int32_t count);

/* A view in memory of the case, beside a guard page. */
const qkv_cache_view *small_view(qkv_cache *cache, const qkv_cache_select *s);

/* Plans and runs a problem; the workspace lies beside a guard page and is full of NaN. */
void small_run(const qkv_desc *d, qkv_args *a);

#endif
