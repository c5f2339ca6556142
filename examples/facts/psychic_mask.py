"""A mask that is off by one makes a model psychic.

Tokens are random, so the next one cannot be predicted.  Each query is set to look for the token that
comes next.  With a causal mask it finds nothing there; with a mask that is one key too wide it
reads the answer, and the loss during training would look wonderful.
"""

import numpy as np

import qkv

T, D = 64, 32
rng = np.random.default_rng(0)
embedding = np.eye(D, dtype=np.float32)
tokens = rng.integers(0, D, T)
where = rng.standard_normal((T + 1, D), dtype=np.float32) * 3  # one random key a position
k, v = where[:T][None, None], embedding[tokens][None, None]
q = where[1 : T + 1][None, None]  # position i asks for position i + 1


def right_guesses(mask: np.ndarray) -> float:
    out = qkv.attention(q, k, v, mask=mask[None, None])[0, 0]
    return float((out[:-1].argmax(-1) == tokens[1:]).mean())


causal = right_guesses(np.tri(T, dtype=bool))
psychic = right_guesses(np.tri(T, k=1, dtype=bool))
print(f"next tokens guessed: {causal:.0%} with a causal mask, {psychic:.0%} with one that is one key too wide")
assert causal < 0.3 and psychic > 0.95
same = qkv.attention(q, k, v, mask=np.tri(T, dtype=bool)[None, None])
assert np.array_equal(same, qkv.attention(q, k, v, causal=True))
