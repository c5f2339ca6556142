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

static void print_rope(void)
{
#define F(field) FIELD(qkv_rope, field)
    STRUCT(qkv_rope)
    F(struct_size) F(type) F(pairing) F(precision) F(head_dim) F(rotary_offset) F(rotary_dim)
    F(truncate) F(theta) F(factor) F(max_positions) F(original_max_positions) F(attention_factor)
    F(beta_fast) F(beta_slow) F(mscale) F(mscale_all_dim) F(low_freq_factor) F(high_freq_factor)
    F(short_factor) F(long_factor) F(n_factors) F(reserved)
#undef F
#define F(field) FIELD(qkv_rope_args, field)
    STRUCT(qkv_rope_args)
    F(struct_size) F(inverse) F(n_seqs) F(n_heads) F(n_tokens) F(x_layout) F(y_layout) F(x) F(y)
    F(positions) F(position_stride) F(seq_len) F(cos) F(sin) F(table_type) F(reserved)
    F(table_stride) F(table_rows)
#undef F
    VALUE(QKV_ROPE_NONE) VALUE(QKV_ROPE_DEFAULT) VALUE(QKV_ROPE_LINEAR) VALUE(QKV_ROPE_NTK)
    VALUE(QKV_ROPE_DYNAMIC) VALUE(QKV_ROPE_YARN) VALUE(QKV_ROPE_LONGROPE) VALUE(QKV_ROPE_LLAMA3)
    VALUE(QKV_ROPE_PROPORTIONAL)
    VALUE(QKV_ROPE_HALF_SPLIT) VALUE(QKV_ROPE_INTERLEAVED)
    VALUE(QKV_ROPE_EXACT) VALUE(QKV_ROPE_F32) VALUE(QKV_ROPE_AUTO)
    VALUE(QKV_ROPE_DENSE)
}

static void print_model(void)
{
#define F(field) FIELD(qkv_layer_desc, field)
    STRUCT(qkv_layer_desc)
    F(struct_size) F(kind) F(d_model) F(d_memory) F(n_q_heads) F(n_kv_heads) F(head_dim)
    F(head_dim_v) F(q_lora_rank) F(kv_lora_rank) F(rope_dim) F(q_bias) F(k_bias) F(v_bias)
    F(o_bias) F(qk_norm) F(latent_norm) F(o_gate) F(norm_eps) F(scale) F(softcap) F(sinks)
    F(causal) F(cross) F(v_from_k) F(window_left) F(window_right) F(chunk_tokens)
    F(alibi_max_bias) F(alibi) F(relative_buckets) F(relative_max_distance)
    F(relative_bidirectional) F(rope) F(state_elements) F(state_parameters) F(state_type)
    F(weights) F(reserved)
#undef F
#define F(field) FIELD(qkv_model, field)
    STRUCT(qkv_model)
    F(struct_size) F(n_layers) F(encoder_layers) F(d_model) F(model_type) F(family) F(vocab_size)
    F(max_positions) F(position_embeddings) F(tied_embeddings) F(weight_type) F(sizing_only)
    F(scale_by_layer) F(nested) F(token_types) F(d_ff) F(ffn_gated) F(ffn_bias) F(n_experts)
    F(n_experts_used) F(n_experts_shared) F(d_ff_expert) F(d_ff_shared) F(first_dense_layers)
    F(expert_every) F(norms_a_layer) F(norms_an_encoder_layer) F(norms_besides) F(n_kinds)
    F(kinds) F(kind_of) F(cache_of) F(rope_factors) F(unpriced)
#undef F
#define F(field) FIELD(qkv_weight, field)
    STRUCT(qkv_weight)
    F(struct_size) F(role) F(n_names) F(has_bias) F(transposed) F(heads) F(width) F(group_heads)
    F(rows) F(columns) F(first) F(group_stride) F(head_stride) F(names) F(biases)
#undef F
    VALUE(QKV_LAYER_ATTENTION) VALUE(QKV_LAYER_MLA) VALUE(QKV_LAYER_STATE)
    VALUE(QKV_PART_DECODER) VALUE(QKV_PART_ENCODER) VALUE(QKV_PART_CROSS)
    VALUE(QKV_NORM_NONE) VALUE(QKV_NORM_RMS) VALUE(QKV_NORM_RMS_PLUS_ONE) VALUE(QKV_NORM_LAYER)
    VALUE(QKV_ALIBI_NONE) VALUE(QKV_ALIBI_PLAIN) VALUE(QKV_ALIBI_SCALED)
    VALUE(QKV_ROLE_Q) VALUE(QKV_ROLE_K) VALUE(QKV_ROLE_V) VALUE(QKV_ROLE_O) VALUE(QKV_ROLE_Q_NORM)
    VALUE(QKV_ROLE_K_NORM) VALUE(QKV_ROLE_SINKS) VALUE(QKV_ROLE_Q_A) VALUE(QKV_ROLE_Q_A_NORM)
    VALUE(QKV_ROLE_Q_B) VALUE(QKV_ROLE_KV_A) VALUE(QKV_ROLE_KV_A_NORM) VALUE(QKV_ROLE_KV_B)
    VALUE(QKV_ROLE_RELATIVE_BIAS)
}

static void print_config(void)
{
#define F(field) FIELD(qkv_config_value, field)
    STRUCT(qkv_config_value)
    F(kind) F(reserved) F(integer) F(real) F(count) F(text)
#undef F
#define F(field) FIELD(qkv_config, field)
    STRUCT(qkv_config)
    F(get) F(key) F(ctx)
#undef F
    VALUE(QKV_CONFIG_MISSING) VALUE(QKV_CONFIG_NULL) VALUE(QKV_CONFIG_BOOL)
    VALUE(QKV_CONFIG_INTEGER) VALUE(QKV_CONFIG_REAL) VALUE(QKV_CONFIG_TEXT) VALUE(QKV_CONFIG_LIST)
    VALUE(QKV_CONFIG_TABLE)
}

static void print_layers(void)
{
#define F(field) FIELD(qkv_layer_weight, field)
    STRUCT(qkv_layer_weight)
    F(data) F(bias) F(type) F(bias_type) F(row_stride) F(col_stride) F(first) F(group_stride)
    F(head_stride) F(group_heads) F(reserved)
#undef F
#define F(field) FIELD(qkv_layer_step, field)
    STRUCT(qkv_layer_step)
    F(struct_size) F(form) F(n_seqs) F(mla) F(q_len) F(q_lens) F(cu_seqlens) F(memory_len)
    F(kv_lens) F(kv_starts) F(positions) F(rope_len) F(cache) F(seqs) F(cpu_mask) F(precision)
#undef F
#define F(field) FIELD(qkv_layer_work, field)
    STRUCT(qkv_layer_work)
    F(rows) F(pairs) F(projections) F(expanded) F(absorbed) F(mla) F(reserved)
#undef F
#define F(field) FIELD(qkv_layer_args, field)
    STRUCT(qkv_layer_args)
    F(struct_size) F(cache_layer) F(x) F(memory) F(out) F(workspace) F(workspace_bytes)
#undef F
    VALUE(QKV_FORM_WHOLE) VALUE(QKV_FORM_CACHED) VALUE(QKV_FORM_MEMORY)
    VALUE(QKV_MLA_AUTO) VALUE(QKV_MLA_EXPANDED) VALUE(QKV_MLA_ABSORBED)
}

static void print_sizing(void)
{
#define F(field) FIELD(qkv_size_setup, field)
    STRUCT(qkv_size_setup)
    F(struct_size) F(k_format) F(v_format) F(k_group) F(v_group) F(k_scale) F(v_scale)
    F(float_type) F(page_tokens) F(weight_bits) F(compute) F(pairs) F(absorbed) F(ranks) F(split)
    F(cache_only) F(context) F(batch) F(chunk) F(memory_tokens) F(reserve)
#undef F
#define F(field) FIELD(qkv_size_group, field)
    STRUCT(qkv_size_group)
    F(kind) F(cross) F(n_layers) F(n_sharing) F(n_kv_heads) F(head_dim) F(head_dim_v) F(reserved)
    F(window) F(elements) F(tokens) F(pages) F(page_bytes) F(token_bytes) F(payload) F(allocated)
#undef F
#define F(field) FIELD(qkv_size_cache, field)
    STRUCT(qkv_size_cache)
    F(n_groups) F(not_cached) F(context) F(batch) F(group) F(elements) F(token_bytes) F(state)
    F(payload) F(allocated)
#undef F
#define F(field) FIELD(qkv_size_parameters, field)
    STRUCT(qkv_size_parameters)
    F(attention) F(matrices) F(states) F(mlp) F(experts) F(norms) F(embeddings) F(head) F(total)
    F(active) F(layer) F(missing) F(reserved)
#undef F
#define F(field) FIELD(qkv_size_step, field)
    STRUCT(qkv_size_step)
    F(n_seqs) F(n_new) F(past) F(chunk)
#undef F
#define F(field) FIELD(qkv_size_stage, field)
    STRUCT(qkv_size_stage)
    F(multiply_adds) F(exponentials) F(bytes) F(bytes_least)
#undef F
#define F(field) FIELD(qkv_size_work, field)
    STRUCT(qkv_size_work)
    F(stage) F(all) F(pairs) F(cache_read) F(cache_written) F(weights_read) F(absorbed) F(reserved)
#undef F
#define F(field) FIELD(qkv_size_crossover, field)
    STRUCT(qkv_size_crossover)
    F(square) F(visible) F(rule) F(mla_new)
#undef F
#define F(field) FIELD(qkv_machine, field)
    STRUCT(qkv_machine)
    F(name) F(source) F(measured) F(reserved) F(flops_f32) F(flops_16) F(bytes) F(memory)
#undef F
#define F(field) FIELD(qkv_size_seconds, field)
    STRUCT(qkv_size_seconds)
    F(best) F(worst) F(intensity) F(bound) F(reserved)
#undef F
#define F(field) FIELD(qkv_size_time, field)
    STRUCT(qkv_size_time)
    F(stage) F(attention) F(all) F(ridge)
#undef F
#define F(field) FIELD(qkv_size_rank, field)
    STRUCT(qkv_size_rank)
    F(payload) F(allocated) F(sent_step) F(sent_prefill) F(copies) F(kv_heads)
#undef F
#define F(field) FIELD(qkv_size_budget, field)
    STRUCT(qkv_size_budget)
    F(memory) F(latency) F(machine)
#undef F
#define F(field) FIELD(qkv_size_fit, field)
    STRUCT(qkv_size_fit)
    F(fits) F(fits_memory) F(fits_latency) F(reserved) F(weights) F(cache) F(needed) F(latency)
#undef F
#define F(field) FIELD(qkv_size_answer, field)
    STRUCT(qkv_size_answer)
    F(found) F(limited) F(value) F(fit)
#undef F
#define F(field) FIELD(qkv_size_variant_of, field)
    STRUCT(qkv_size_variant_of)
    F(variant) F(n_kv_heads) F(kv_lora_rank) F(rope_dim) F(q_lora_rank) F(reserved)
#undef F
}

static void print_sizing_values(void)
{
    VALUE(QKV_SIZE_Q8_0) VALUE(QKV_SIZE_Q4_0) VALUE(QKV_SPLIT_HEADS) VALUE(QKV_SPLIT_CONTEXT)
    VALUE(QKV_COUNT_VISIBLE) VALUE(QKV_COUNT_SQUARE) VALUE(QKV_SIZE_NO_MLP)
    VALUE(QKV_SIZE_NO_VOCAB) VALUE(QKV_SIZE_PARTS) VALUE(QKV_SIZE_PROJECT) VALUE(QKV_SIZE_EXPAND)
    VALUE(QKV_SIZE_SCORES) VALUE(QKV_SIZE_SOFTMAX) VALUE(QKV_SIZE_VALUES) VALUE(QKV_SIZE_OUTPUT)
    VALUE(QKV_SIZE_STATE) VALUE(QKV_SIZE_MLP) VALUE(QKV_SIZE_HEAD) VALUE(QKV_SIZE_STAGES)
    VALUE(QKV_STEP_PREFILL) VALUE(QKV_STEP_CHUNKED) VALUE(QKV_STEP_DECODE)
    VALUE(QKV_STEP_RECOMPUTE) VALUE(QKV_BOUND_COMPUTE) VALUE(QKV_BOUND_BANDWIDTH)
    VALUE(QKV_SOLVE_CONTEXT) VALUE(QKV_SOLVE_USERS) VALUE(QKV_SOLVE_GROUPS) VALUE(QKV_SOLVE_FORMAT)
    VALUE(QKV_VARIANT_HEADS) VALUE(QKV_VARIANT_MLA) VALUE(QKV_SIZE_MAX_GROUPS) VALUE(QKV_SIZE_LINE)
    VALUE(QKV_SIZE_AUTO)
}

static void print_values(void)
{
    VALUE(QKV_OK) VALUE(QKV_ERR_ARGUMENT) VALUE(QKV_ERR_UNSUPPORTED) VALUE(QKV_ERR_BUFFER)
    VALUE(QKV_ERR_MEMORY) VALUE(QKV_ERR_SYSTEM) VALUE(QKV_ERR_FORMAT) VALUE(QKV_ERR_FULL)
    VALUE(QKV_NONE) VALUE(QKV_F64) VALUE(QKV_F32) VALUE(QKV_F16) VALUE(QKV_BF16) VALUE(QKV_BOOL)
    VALUE(QKV_I32) VALUE(QKV_I64) VALUE(QKV_I8) VALUE(QKV_U4) VALUE(QKV_E4M3) VALUE(QKV_E5M2)
    VALUE(QKV_CPU_AVX2) VALUE(QKV_CPU_AVX512) VALUE(QKV_CPU_AVX512_BF16) VALUE(QKV_CPU_AMX)
    VALUE(QKV_CPU_NEON) VALUE(QKV_CPU_NEON_BF16) VALUE(QKV_CPU_WASM128)
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
    print_rope();
    print_layers();
    print_model();
    print_config();
    print_sizing();
    print_sizing_values();
    return 0;
}
