/* pools.c - pools of other engines, described: every element must be where their shapes say. */
#include <string.h>

#include "cache_test.h"
#include "qkv/cache_view.h"

enum { PAGES = 3, TOKENS = 16, HEADS = 2 };

/* Index of an element of [pages][(2)][tokens][heads][d] or [pages][(2)][heads][tokens][d]. */
static int64_t index_of(int order, int joined, int value, int page, int head, int token, int c,
                        int d)
{
    const int64_t lead = joined ? (int64_t)page * 2 + value : page;
    const int64_t inner =
        order == QKV_POOL_PTHD ? (int64_t)token * HEADS + head : (int64_t)head * TOKENS + token;
    return (lead * TOKENS * HEADS + inner) * d + c;
}

static void check(int order, int joined, int d, int dv)
{
    qkv_desc desc;

    qkv_desc_init(&desc);
    desc.n_kv_heads = HEADS;
    desc.head_dim = d;
    desc.head_dim_v = dv;
    const int64_t ahead = qkv_desc_pool(&desc, QKV_F16, QKV_F16, order, joined, TOKENS, PAGES, 9);
    t_check(desc.page_tokens == TOKENS && desc.n_pages == PAGES &&
                desc.block_table_stride[0] == 9 && desc.block_table_stride[1] == 0 &&
                desc.k.type == QKV_F16 && desc.v.type == QKV_F16,
            "fields");
    t_check(ahead == (joined ? (int64_t)TOKENS * HEADS * d : 0), "values begin %d after",
            (int)ahead);
    for (int page = 0; page < PAGES; page++)
        for (int h = 0; h < HEADS; h++)
            for (int t = 0; t < TOKENS; t++) {
                const int64_t k =
                    page * desc.k.stride[0] + h * desc.k.stride[1] + t * desc.k.stride[2];
                const int64_t v =
                    page * desc.v.stride[0] + h * desc.v.stride[1] + t * desc.v.stride[2];
                t_check(k + desc.k.stride[3] == index_of(order, joined, 0, page, h, t, 1, d), "k");
                t_check(ahead + v + desc.v.stride[3] ==
                            index_of(order, joined, 1, page, h, t, 1, dv),
                        "v");
            }
}

static void csr(void)
{
    const int32_t indptr[] = {0, 3, 3, 4}, indices[] = {7, 2, 9, 4}, last[] = {5, 0, 16};
    int32_t table[12], lens[3];
    static const int32_t want[] = {7, 2, 9, 0, 0, 0, 0, 0, 4, 0, 0, 0};

    expect(qkv_block_table_of_csr(3, indptr, indices, last, 16, table, 4, lens, TEXT), QKV_OK);
    t_check(memcmp(table, want, sizeof want) == 0 && lens[0] == 37 && lens[1] == 0 && lens[2] == 16,
            "lengths %d %d %d", lens[0], lens[1], lens[2]);
    expect(qkv_block_table_of_csr(3, indptr, indices, last, 16, table, 2, lens, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_block_table_of_csr(3, indptr, indices, last, 15, table, 4, lens, TEXT),
           QKV_ERR_ARGUMENT);
    const int32_t descends[] = {3, 0, 3, 4}, empty_last[] = {0, 0, 16}, full_last[] = {5, 1, 16};
    expect(qkv_block_table_of_csr(3, descends, indices, last, 16, table, 4, lens, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_block_table_of_csr(3, indptr, indices, empty_last, 16, table, 4, lens, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_block_table_of_csr(3, indptr, indices, full_last, 16, table, 4, lens, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_block_table_of_csr(3, NULL, indices, last, 16, table, 4, lens, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_block_table_of_csr(-1, indptr, indices, last, 16, table, 4, lens, TEXT),
           QKV_ERR_ARGUMENT);
    expect(qkv_block_table_of_csr(0, NULL, NULL, NULL, 16, NULL, 0, NULL, TEXT), QKV_OK);
}

void test_pools(void)
{
    for (int order = QKV_POOL_PTHD; order <= QKV_POOL_PHTD; order++) {
        if (t_case("order %d apart", order))
            check(order, 0, 8, 12);
        if (t_case("order %d joined", order))
            check(order, 1, 8, 8);
    }
    if (t_case("csr"))
        csr();
}
