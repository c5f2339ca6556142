"""Complete attention layers: hidden states in, hidden states out.

>>> import numpy as np, qkv
>>> from qkv import layers
>>> rng = np.random.default_rng(0)
>>> q, o = rng.standard_normal((2, 64, 64), dtype=np.float32) / 8     # (out, in), as torch.nn.Linear
>>> k, v = rng.standard_normal((2, 16, 64), dtype=np.float32) / 8
>>> layer = layers.GQA(q, k, v, o, n_heads=8, n_kv_heads=2, rope={"theta": 10000})
>>> layer.variant, layer.desc["head_dim"]
('GQA-2', 8)
>>> x = rng.standard_normal((1, 5, 64), dtype=np.float32)             # (B, T, d_model)
>>> y = layer(x)                                                      # all tokens at once
>>> cache = layer.new_cache(max_tokens=100)
>>> seq = cache.add()
>>> steps = [layer(x[:, t : t + 1], cache=cache) for t in range(5)]   # or one by one
>>> bool(np.abs(np.concatenate(steps, 1) - y).max() < 1e-5)
True

x is what enters the projections of queries, keys and values, and the result what leaves the output
projection; norms and residuals of a block are its own business.  Computed in float32, unless the
matrices are kept as weights="bf16" or "int8" (Layer).

This module links BLAS (OpenBLAS); `import qkv` alone does not load it.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional

from ._arrays import Array
from ._layer import Layer, Weight, load

__all__ = ["GQA", "MHA", "MLA", "MQA", "Layer", "load"]


def _shape(name: str, weight: Weight) -> tuple[int, int]:
    matrix = weight[0] if isinstance(weight, tuple) else weight
    shape = tuple(getattr(matrix, "shape", ()))
    if len(shape) != 2:
        raise ValueError(f"{name} has shape {shape}; (out, in) is expected")
    return int(shape[0]), int(shape[1])


def _width(name: str, rows: int, heads: int) -> int:
    if heads < 1 or rows % heads:
        raise ValueError(f"{name} has {rows} rows; they must be a multiple of {heads} heads")
    return rows // heads


def _biases(pairs: Mapping[str, Weight]) -> dict[str, int]:
    return {
        f"{role}_bias": int(isinstance(weight, tuple) and weight[1] is not None)
        for role, weight in pairs.items()
    }


def GQA(
    q: Weight, k: Weight, v: Weight, o: Weight, n_heads: int, n_kv_heads: int, *,
    sinks: Optional[Array] = None, q_norm: Optional[Array] = None, k_norm: Optional[Array] = None,
    relative_bias: Optional[Array] = None, **fields: Any,
) -> Layer:  # fmt: skip
    """Grouped-query attention: n_heads query heads share n_kv_heads key and value heads.

    q, k, v, o are matrices (out, in) or pairs with a bias.  Query head i reads key/value head
    i // (n_heads // n_kv_heads).  With cross=True keys and values are projected from a memory.
    Other fields as in Layer: rope, causal, window_left, softcap, scale, alibi, weights ...
    """
    pairs = {"q": q, "k": k, "v": v, "o": o}
    (rows, d_model), (_, d_memory) = _shape("q", q), _shape("k", k)
    values = _shape("v", v)[0]
    if fields.get("cross"):
        fields.setdefault("causal", False)
        fields.setdefault("d_memory", d_memory)
    if q_norm is not None:
        fields.setdefault("qk_norm", "rms")
    if relative_bias is not None:
        fields.setdefault("relative_buckets", int(relative_bias.shape[0]))
    return Layer(
        {**pairs, "sinks": sinks, "q_norm": q_norm, "k_norm": k_norm,
         "relative_bias": relative_bias},
        d_model=d_model, n_q_heads=n_heads, n_kv_heads=n_kv_heads,
        head_dim=_width("q", rows, n_heads), head_dim_v=_width("v", values, n_kv_heads),
        sinks=int(sinks is not None), **_biases(pairs), **fields,
    )  # fmt: skip


def MHA(q: Weight, k: Weight, v: Weight, o: Weight, n_heads: int, **fields: Any) -> Layer:
    """Multi-head attention: GQA in which every query head has its own key and value head."""
    return GQA(q, k, v, o, n_heads, n_heads, **fields)


def MQA(q: Weight, k: Weight, v: Weight, o: Weight, n_heads: int, **fields: Any) -> Layer:
    """Multi-query attention: GQA with one key and value head."""
    return GQA(q, k, v, o, n_heads, 1, **fields)


def MLA(
    kv_a: Weight, kv_b: Array, o: Weight, n_heads: int, *, rope_dim: int,
    q: Optional[Array] = None, q_a: Weight = None, q_b: Optional[Array] = None,
    q_a_norm: Optional[Array] = None, kv_a_norm: Optional[Array] = None, **fields: Any,
) -> Layer:  # fmt: skip
    """Multi-head latent attention (DeepSeek-V2).

    Parameters
    ----------
    kv_a : (c + r, d_model)
        The latent, then the rotary key that all heads share.  With q_a a pair with a bias, or not.
    kv_b : (Hq (n + Dv), c)
        Of each head n rows of keys, then Dv of values.
    o : (d_model, Hq Dv)
    rope_dim
        r.  The rotary channels are the last of a head; rope: as in Layer, of r channels.
    q : (Hq (n + r), d_model), or q_a : (latent, d_model) and q_b : (Hq (n + r), latent)
    q_a_norm, kv_a_norm
        RMS norms of the latents; none if absent.
    """
    rows, d_model = _shape("kv_a", kv_a)
    queries, latent = _shape("q", q) if q_b is None else _shape("q_b", q_b)
    head_dim = _width("q", queries, n_heads)
    up = _width("kv_b", _shape("kv_b", kv_b)[0], n_heads)
    fields.setdefault("latent_norm", "none" if kv_a_norm is None else "rms")
    biases = _biases({"q": q_a if q is None else kv_a, "o": o})
    return Layer(
        {"q": q, "q_a": q_a, "q_b": q_b, "q_a_norm": q_a_norm, "kv_a": kv_a,
         "kv_a_norm": kv_a_norm, "kv_b": kv_b, "o": o},
        kind="mla", d_model=d_model, n_q_heads=n_heads, n_kv_heads=n_heads, head_dim=head_dim,
        head_dim_v=up - (head_dim - rope_dim), q_lora_rank=0 if q_b is None else latent,
        kv_lora_rank=rows - rope_dim, rope_dim=rope_dim, **biases, **fields,
    )  # fmt: skip
