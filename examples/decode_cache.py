"""A small model writes text with a cache: a prompt first, then one token a step.

Four layers of grouped-query attention, 8 query heads on 2 key/value heads, with weights out of thin
air.  What the loop computed is held against the same model without a cache, which computes
attention over all tokens at once.
"""

import numpy as np

import qkv

rng = np.random.default_rng(0)
embedding = rng.standard_normal((1000, 512), dtype=np.float32)
layers = rng.standard_normal((4, 512, 768), dtype=np.float32) / 512**0.5

cache = qkv.KVCache(n_layers=4, n_kv_heads=2, head_dim=64, n_pages=10)
cache.add()
tokens = new = [17, 4, 256]
for _ in range(20):
    x = embedding[new]
    for layer, weights in enumerate(layers):
        heads = (x @ weights).reshape(1, -1, 12, 64).swapaxes(1, 2)
        cache.append(layer, heads[:, 8:10], heads[:, 10:])
        x = x + cache.attend(layer, heads[:, :8]).swapaxes(1, 2).reshape(-1, 512)
    cache.commit()
    new = [int(np.argmax(embedding @ x[-1]))]
    tokens = tokens + new

# The same without a cache: all tokens but the last, whose keys nobody needs, at once.
whole = embedding[tokens[:-1]]
for weights in layers:
    heads = (whole @ weights).reshape(1, -1, 12, 64).swapaxes(1, 2)
    seen = qkv.attention(heads[:, :8], heads[:, 8:10], heads[:, 10:], causal=True)
    whole = whole + seen.swapaxes(1, 2).reshape(-1, 512)
logits = whole[2:] @ embedding.T
chosen = logits[np.arange(20), tokens[3:]]
stats = cache.stats()
print(f"{cache.length(1)} tokens cached in {stats['payload']} bytes; "
      f"the last hidden row differs by {abs(whole[-1] - x[-1]).max():.1e} from that without a cache")  # fmt: skip
assert (chosen >= logits.max(1) - 0.5).all() and abs(whole[-1] - x[-1]).max() < 0.15
