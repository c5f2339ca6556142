"""Decoding t tokens: O(t^2) pairs of query and key for each without a cache, O(t) with one.

Counted, not timed: without a cache each new token computes attention of all t tokens again.
"""

import numpy as np

import qkv

T, D = 48, 32
rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, 2, T, D), dtype=np.float32)
cache = qkv.KVCache(n_layers=1, n_kv_heads=2, head_dim=D, n_pages=2, k_format="f32", v_format="f32")
cache.add()

with_cache = without = 0
for t in range(1, T + 1):
    cache.append(0, k[:, :, t - 1 : t], v[:, :, t - 1 : t])
    new = cache.attend(0, q[:, :, t - 1 : t])
    cache.commit()
    again = qkv.attention(q[:, :, :t], k[:, :, :t], v[:, :, :t], causal=True)
    assert abs(again[:, :, -1:] - new).max() < 1e-5
    with_cache += t
    without += t * (t + 1) // 2

print(f"pairs of {T} tokens: {with_cache} with a cache, {without} without: {without / with_cache:.1f} times")
assert with_cache == T * (T + 1) // 2 and without == T * (T + 1) * (T + 2) // 6
