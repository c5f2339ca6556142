"""Why scores are divided by sqrt(d).

q.k of independent N(0, 1) vectors is a sum of d products of variance 1: its standard deviation is
sqrt(d), 8 at d = 64 and 32 at d = 1024.  Exponentials of such scores leave one weight near 1.  The
gradient of the softmax is p_i (delta_ij - p_j), whose trace is 1 - sum p^2: it vanishes with it.
"""

import numpy as np

import qkv

KEYS = 256
rng = np.random.default_rng(0)

print("    d   std of q.k   /sqrt(d)   largest weight: unscaled, scaled   1 - sum p^2: unscaled, scaled")
for d in (16, 64, 256, 1024):
    q, k = rng.standard_normal((2, 1, 1, KEYS, d), dtype=np.float32)
    scores = qkv.attention(q, k, k, scale=1.0, return_weights="scores")[1]
    one_hot = qkv.attention(q, k, k, scale=1.0, return_weights=True)[1]
    scaled = qkv.attention(q, k, k, return_weights=True)[1]
    std = scores.std()
    largest = [w.max(-1).mean() for w in (one_hot, scaled)]
    gradient = [(1 - (w * w).sum(-1)).mean() for w in (one_hot, scaled)]
    print(f"{d:5d}   {std:10.2f}   {std / d**0.5:8.3f}   {largest[0]:23.3f}, {largest[1]:6.3f}"
          f"   {gradient[0]:21.3f}, {gradient[1]:6.3f}")  # fmt: skip
    assert abs(std / d**0.5 - 1) < 0.05
    assert gradient[1] > 0.95 and largest[1] < 0.1
# At d = 1024 a row without the scale has all but lost its gradient.
assert largest[0] > 0.9 and gradient[0] < 0.15
