"""qkv: exact scaled dot-product attention for CPUs.

>>> import numpy as np, qkv
>>> rng = np.random.default_rng(0)
>>> q = rng.standard_normal((1, 8, 5, 64), dtype=np.float32)   # (B, Hq, Tq, D)
>>> k = rng.standard_normal((1, 2, 9, 64), dtype=np.float32)   # (B, Hkv, Tk, D)
>>> v = rng.standard_normal((1, 2, 9, 64), dtype=np.float32)   # (B, Hkv, Tk, Dv)
>>> qkv.attention(q, k, v, causal=True).shape
(1, 8, 5, 64)

Arrays are NumPy arrays (bfloat16 through the package ml_dtypes) or anything on the CPU that
speaks DLPack, such as a torch tensor; results are of the kind of q.  float32, float16 and bfloat16
may be mixed; float64 goes with float64.  Letters in shapes: B sequences, Hq query heads, Hkv
key/value heads (Hq is a multiple), Tq and Tk tokens, D channels of q and k, Dv channels of v.
"""

from ._arrays import CacheFull
from ._attention import attention, attention_varlen
from ._info import info, set_cpu_tier
from ._kv_cache import KVCache
from ._latent_cache import LatentCache
from ._merge import merge
from ._plan import Plan
from ._reference import reference_attention
from ._rope import Rope, rotary_embedding

__version__: str = info()["version"]

__all__ = [
    "CacheFull",
    "KVCache",
    "LatentCache",
    "Plan",
    "Rope",
    "attention",
    "attention_varlen",
    "info",
    "merge",
    "reference_attention",
    "rotary_embedding",
    "set_cpu_tier",
]
