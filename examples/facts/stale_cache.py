"""A request sees its own keys only: not those of the one before, nor those of its neighbour.

Two requests are computed in a cache where another one has been, whose keys and values were NaN, and
in a fresh one.  The outputs have the same bits.
"""

import numpy as np

import qkv

rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, 4, 40, 64), dtype=np.float32)


def outputs(cache: qkv.KVCache, seq: int) -> np.ndarray:
    cache.append(0, k, v, seqs=[seq])
    out = np.asarray(cache.attend(0, q, seqs=[seq])).copy()
    cache.commit(seqs=[seq])
    return out


def new_cache() -> qkv.KVCache:
    return qkv.KVCache(n_layers=1, n_kv_heads=4, head_dim=64, n_pages=4, max_seqs=2, page_tokens=64)


fresh = new_cache()
expected = outputs(fresh, fresh.add())

used = new_cache()
seq, neighbour = used.add(), used.add()
for one in (seq, neighbour):
    used.append(0, k * np.float32(np.nan), v * np.float32(np.nan), seqs=[one])
    used.commit(seqs=[one])
used.reset(seq)
again = outputs(used, seq)
print(f"after a reset, beside a neighbour full of NaN: {(again != expected).sum()} of {again.size} numbers differ")
assert np.array_equal(again, expected) and np.isfinite(again).all()
