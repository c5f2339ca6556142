/*
 * print_layout.c - sizes, offsets and values that programs are compiled with, one a line.
 *
 * layout.py compares them with layout.txt.
 */
#include <stddef.h>
#include <stdio.h>

#include "qkv/qkv.h"

#define STRUCT(type) printf("struct %s %zu\n", #type, sizeof(type));
#define FIELD(type, field)                                                                         \
    printf("%s.%s %zu %zu\n", #type, #field, offsetof(type, field), sizeof(((type *)0)->field));
#define VALUE(name) printf("value %s %lld\n", #name, (long long)(name));

static void print_desc(void)
{
#define F(field) FIELD(qkv_desc, field)
    STRUCT(qkv_desc)
    F(struct_size) F(cpu_mask)
    F(n_seqs) F(n_q_heads) F(n_kv_heads) F(head_dim) F(head_dim_v) F(precision) F(q_len) F(kv_len)
    F(q) F(k) F(v) F(o)
    F(q_lens) F(kv_lens) F(kv_starts) F(q_offsets)
    F(cu_seqlens_q) F(cu_seqlens_k) F(cu_seqlens_type)
    F(causal) F(align) F(stage) F(window_left) F(window_right) F(scale) F(softcap)
    F(mask) F(bias) F(sinks) F(slopes) F(lse) F(weights)
    F(block_bits) F(block_stride) F(block_q) F(block_k)
    F(page_tokens) F(n_pages) F(block_table_stride)
    F(k_scale) F(k_min) F(v_scale) F(v_min) F(k_group) F(v_group) F(k_rope) F(rope_dim) F(reserved)
#undef F
#define F(field) FIELD(qkv_layout, field)
    STRUCT(qkv_layout)
    F(type) F(reserved) F(stride)
#undef F
}

static void print_args(void)
{
#define F(field) FIELD(qkv_args, field)
    STRUCT(qkv_args)
    F(struct_size) F(reserved) F(q) F(k) F(v) F(o) F(mask) F(bias) F(sinks) F(slopes) F(lse)
    F(weights) F(workspace) F(workspace_bytes)
    F(block_table) F(k_scale) F(k_min) F(v_scale) F(v_min) F(k_rope)
#undef F
#define F(field) FIELD(qkv_merge_args, field)
    STRUCT(qkv_merge_args)
    F(struct_size) F(type) F(n_parts) F(n_seqs) F(n_heads) F(head_dim_v) F(n_tokens)
    F(o_parts) F(lse_parts) F(o_part_stride) F(lse_part_stride)
    F(o) F(o_stride) F(lse) F(lse_stride) F(sinks)
#undef F
}

static void print_others(void)
{
    STRUCT(qkv_allocator)
    FIELD(qkv_allocator, alloc) FIELD(qkv_allocator, free) FIELD(qkv_allocator, ctx)
    STRUCT(qkv_parallel)
    FIELD(qkv_parallel, n_workers) FIELD(qkv_parallel, parallel_for) FIELD(qkv_parallel, ctx)
    STRUCT(qkv_tier)
    FIELD(qkv_tier, name) FIELD(qkv_tier, flag) FIELD(qkv_tier, available) FIELD(qkv_tier, reason)
#define F(field) FIELD(qkv_kernel_info, field)
    STRUCT(qkv_kernel_info)
    F(name) F(op) F(tier) F(compute_type) F(k_type) F(v_type) F(cpu) F(available) F(precision)
#undef F
#define F(field) FIELD(qkv_ref_out, field)
    STRUCT(qkv_ref_out)
    F(o) F(lse) F(weights) F(o_budget) F(lse_budget)
#undef F
    STRUCT(qkv_tensor)
    FIELD(qkv_tensor, type) FIELD(qkv_tensor, rank) FIELD(qkv_tensor, shape) FIELD(qkv_tensor, data)
#define F(field) FIELD(qkv_safetensors_entry, field)
    STRUCT(qkv_safetensors_entry)
    F(name) F(dtype) F(type) F(rank) F(shape) F(data) F(bytes)
#undef F
}

static void print_cache(void)
{
#define F(field) FIELD(qkv_cache_config, field)
    STRUCT(qkv_cache_config)
    F(struct_size) F(flags) F(n_layers) F(n_kv_heads) F(head_dim) F(head_dim_v) F(k_format)
    F(v_format) F(k_group) F(v_group) F(k_scale) F(v_scale) F(float_type) F(page_tokens) F(n_pages)
    F(n_open_pages) F(max_seqs) F(sink_tokens) F(max_tokens) F(window_left)
#undef F
    STRUCT(qkv_cache_bytes)
    FIELD(qkv_cache_bytes, allocated) FIELD(qkv_cache_bytes, page)
    FIELD(qkv_cache_bytes, open_page) FIELD(qkv_cache_bytes, token)
#define F(field) FIELD(qkv_cache_seq_info, field)
    STRUCT(qkv_cache_seq_info)
    F(length) F(committed) F(kept_from) F(n_pages) F(n_shared)
#undef F
#define F(field) FIELD(qkv_cache_rows, field)
    STRUCT(qkv_cache_rows)
    F(struct_size) F(type) F(n_seqs) F(reserved) F(seqs) F(starts) F(counts) F(first_rows) F(k) F(v)
    F(k_stride) F(v_stride) F(k_rope) F(k_rope_stride)
#undef F
#define F(field) FIELD(qkv_cache_stats, field)
    STRUCT(qkv_cache_stats)
    F(n_seqs) F(pages) F(used_pages) F(shared_pages) F(open_pages) F(used_open_pages) F(tokens)
    F(stored_tokens) F(allocated) F(payload) F(copied) F(closed) F(opened) F(evicted)
#undef F
    STRUCT(qkv_cache_writer)
    FIELD(qkv_cache_writer, write) FIELD(qkv_cache_writer, ctx)
    STRUCT(qkv_cache_reader)
    FIELD(qkv_cache_reader, read) FIELD(qkv_cache_reader, ctx)
#define F(field) FIELD(qkv_cache_file_info, field)
    STRUCT(qkv_cache_file_info)
    F(config) F(version) F(n_seqs) F(n_pages) F(n_open_pages) F(tokens) F(bytes)
#undef F
#define F(field) FIELD(qkv_cache_select, field)
    STRUCT(qkv_cache_select)
    F(struct_size) F(n_seqs) F(seqs) F(q_lens) F(from) F(to) F(causal) F(reserved)
#undef F
#define F(field) FIELD(qkv_cache_pick, field)
    STRUCT(qkv_cache_pick)
    F(struct_size) F(n_seqs) F(seqs) F(n_q_heads) F(q_type) F(q) F(q_stride) F(n_pages) F(reserved)
    F(table) F(logical) F(bounds) F(kv_lens)
#undef F
}

static void print_cache_values(void)
{
    VALUE(QKV_FORMAT_F32) VALUE(QKV_FORMAT_F16) VALUE(QKV_FORMAT_BF16) VALUE(QKV_FORMAT_INT8)
    VALUE(QKV_FORMAT_INT8_CHANNEL) VALUE(QKV_FORMAT_INT4) VALUE(QKV_FORMAT_E4M3)
    VALUE(QKV_FORMAT_E5M2)
    VALUE(QKV_SCALE_TOKEN) VALUE(QKV_SCALE_HEAD)
    VALUE(QKV_CACHE_LATENT) VALUE(QKV_CACHE_CONTIGUOUS) VALUE(QKV_CACHE_KEY_BOUNDS)
    VALUE(QKV_CACHE_POISON) VALUE(QKV_CACHE_AUTO)
    VALUE(QKV_FP8_E4M3) VALUE(QKV_FP8_E5M2)
    VALUE(QKV_GGML_BLOCK) VALUE(QKV_Q8_0_BYTES) VALUE(QKV_Q4_0_BYTES)
    VALUE(QKV_NIBBLES_EVEN_LOW) VALUE(QKV_NIBBLES_EVEN_HIGH)
    VALUE(QKV_INT4_BIASED) VALUE(QKV_INT4_TWOS_COMPLEMENT)
    VALUE(QKV_POOL_PTHD) VALUE(QKV_POOL_PHTD)
}

static void print_values(void)
{
    VALUE(QKV_OK) VALUE(QKV_ERR_ARGUMENT) VALUE(QKV_ERR_UNSUPPORTED) VALUE(QKV_ERR_BUFFER)
    VALUE(QKV_ERR_MEMORY) VALUE(QKV_ERR_SYSTEM) VALUE(QKV_ERR_FORMAT) VALUE(QKV_ERR_FULL)
    VALUE(QKV_NONE) VALUE(QKV_F64) VALUE(QKV_F32) VALUE(QKV_F16) VALUE(QKV_BF16) VALUE(QKV_BOOL)
    VALUE(QKV_I32) VALUE(QKV_I64) VALUE(QKV_I8) VALUE(QKV_U4) VALUE(QKV_E4M3) VALUE(QKV_E5M2)
    VALUE(QKV_CPU_AVX2) VALUE(QKV_CPU_AVX512) VALUE(QKV_CPU_AVX512_BF16) VALUE(QKV_CPU_AMX)
    VALUE(QKV_CPU_NEON) VALUE(QKV_CPU_NEON_BF16)
    VALUE(QKV_CPU_ALL)
    VALUE(QKV_CAUSAL_NONE) VALUE(QKV_CAUSAL_INCLUSIVE) VALUE(QKV_CAUSAL_STRICT)
    VALUE(QKV_ALIGN_BOTTOM_RIGHT) VALUE(QKV_ALIGN_TOP_LEFT)
    VALUE(QKV_PRECISION_HIGHEST) VALUE(QKV_PRECISION_HIGH) VALUE(QKV_PRECISION_MEDIUM)
    VALUE(QKV_STAGE_SCORES) VALUE(QKV_STAGE_CAPPED) VALUE(QKV_STAGE_BIASED)
    VALUE(QKV_STAGE_WEIGHTS)
    VALUE(QKV_BHTD) VALUE(QKV_BTHD) VALUE(QKV_UNBOUNDED) VALUE(QKV_MAX_RANK)
}

int main(void)
{
    print_desc();
    print_args();
    print_others();
    print_values();
    print_cache();
    print_cache_values();
    return 0;
}
