"""Attention sees a set: permuting the tokens permutes the outputs, and nothing else.

That ends as soon as something depends on where a token is, here the causal mask.
"""

import numpy as np

import qkv

rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, 8, 50, 64), dtype=np.float32)
order = rng.permutation(50)


def change(**options: bool) -> float:
    outputs = qkv.attention(q, k, v, **options)
    permuted = qkv.attention(q[:, :, order], k[:, :, order], v[:, :, order], **options)
    return float(abs(permuted - outputs[:, :, order]).max())


free, causal = change(), change(causal=True)
print(f"largest difference after permuting: {free:.1e} without a mask, {causal:.1e} with a causal one")
assert free < 1e-5 < 0.1 < causal
