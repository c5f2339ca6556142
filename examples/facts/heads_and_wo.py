"""Heads do not hear each other: only W_O, behind the attention, mixes them.

What head 0 reads is changed.  Before W_O only its own channels differ; behind it all do.
"""

import numpy as np

from qkv import layers

D_MODEL, HEADS = 64, 4
rng = np.random.default_rng(0)
q, k, v, o = rng.standard_normal((4, D_MODEL, D_MODEL), dtype=np.float32) / 8
x = rng.standard_normal((1, 10, D_MODEL), dtype=np.float32)
changed = v.copy()
changed[: D_MODEL // HEADS] += 1  # W_V of head 0


def channels_that_differ(w_o: np.ndarray) -> int:
    before, after = (layers.MHA(q, k, w_v, w_o, HEADS)(x) for w_v in (v, changed))
    return int((abs(before - after).max((0, 1)) > 1e-4).sum())


apart, mixed = channels_that_differ(np.eye(D_MODEL, dtype=np.float32)), channels_that_differ(o)
print(f"of {D_MODEL} channels differ: {apart} if W_O is the identity, {mixed} if it is a full matrix")
assert apart == D_MODEL // HEADS and mixed == D_MODEL
