/* small.c - see small.h. */
#include "small.h"

qkv_cache_config small_heads(int32_t format)
{
    qkv_cache_config c;

    qkv_cache_config_init(&c);
    c.flags = QKV_CACHE_POISON | QKV_CACHE_KEY_BOUNDS;
    c.n_kv_heads = HKV;
    c.head_dim = c.head_dim_v = D;
    c.k_format = c.v_format = format;
    c.page_tokens = P;
    c.n_pages = 60;
    c.max_seqs = SEQS + 1;
    return c;
}

float *small_numbers(t_rng *rng, int n)
{
    float *x = t_scratch((size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = (float)t_normal(rng);
    return x;
}

void small_append(qkv_cache *cache, t_rng *rng, int32_t id, int32_t count)
{
    qkv_cache_rows r;

    expect(qkv_cache_reserve(cache, 1, &id, &count, TEXT), QKV_OK);
    qkv_cache_rows_init(&r);
    r.seqs = &id;
    r.k = small_numbers(rng, count * HKV * D);
    r.v = small_numbers(rng, count * HKV * D);
    r.k_stride[1] = r.v_stride[1] = D;
    r.k_stride[2] = r.v_stride[2] = HKV * D;
    expect(qkv_cache_write(cache, 0, &r, TEXT), QKV_OK);
    expect(qkv_cache_commit(cache, 1, &id, NULL, TEXT), QKV_OK);
}

void small_run(const qkv_desc *d, qkv_args *a)
{
    const size_t bytes = qkv_plan_size(d);
    const qkv_plan *plan = NULL;
    char text[256] = "";

    t_check(qkv_explain(d, text, sizeof text) == QKV_OK, "%s", text);
    if (bytes == 0 || qkv_plan_init(t_scratch(bytes), bytes, d, &plan) != QKV_OK)
        return;
    a->workspace_bytes = qkv_workspace_size(plan, 1);
    a->workspace = t_alloc(a->workspace_bytes, 64, T_END, 0xff);
    expect(qkv_args_check(plan, a, 1, TEXT), QKV_OK);
    qkv_run(plan, a);
}

const qkv_cache_view *small_view(qkv_cache *cache, const qkv_cache_select *s)
{
    const qkv_cache_view *view = NULL;
    const size_t bytes = qkv_cache_view_size(cache, s);
    expect(qkv_cache_view_init(t_alloc(bytes, 8, T_END, 0x77), bytes, cache, s, &view, TEXT),
           QKV_OK);
    return view;
}
