"""reference_attention: the oracle of libqkv."""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np

from . import _qkv
from ._arrays import Array
from ._keys import kv_tokens
from ._options import Lengths, Window, pack, shape_of


def reference_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Optional[Array] = None,
    bias: Optional[Array] = None,
    causal: bool = False,
    strict: bool = False,
    align: str = "bottom_right",
    window: Window = None,
    scale: Optional[float] = None,
    softcap: float = 0.0,
    sinks: Optional[Array] = None,
    alibi_slopes: Optional[Array] = None,
    q_offset: Union[None, int, Lengths] = None,
    q_lens: Optional[Lengths] = None,
    kv_lens: Optional[Lengths] = None,
    kv_starts: Optional[Lengths] = None,
    block_mask: Optional[Array] = None,
    block_size: tuple[int, int] = (64, 64),
    block_table: Optional[Array] = None,
    page_layout: str = "phtd",
    k_format: Optional[str] = None,
    k_scale: Union[None, float, Array] = None,
    k_min: Union[None, float, Array] = None,
    k_group: Optional[int] = None,
    v_format: Optional[str] = None,
    v_scale: Union[None, float, Array] = None,
    v_min: Union[None, float, Array] = None,
    v_group: Optional[int] = None,
    k_rope: Optional[Array] = None,
    return_lse: bool = False,
    return_weights: Union[bool, str] = False,
    return_budget: bool = False,
    precision: str = "highest",
) -> Any:
    """attention() by the formula, in plain float64 with a two-pass softmax: slow and simple.

    Arguments are those of attention().  With return_budget two more arrays are returned, of the
    shapes of out and lse: how far from them attention() on these very inputs may be by rounding
    alone.

    Returns
    -------
    float64 NumPy arrays: out (B, Hq, Tq, Dv), or a tuple (out, lse, weights, out_budget,
    lse_budget) of what was asked for.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = rng.standard_normal((3, 1, 2, 5, 8), dtype=np.float32)
    >>> exact, room, lse_room = qkv.reference_attention(q, k, v, causal=True, return_budget=True)
    >>> bool((abs(qkv.attention(q, k, v, causal=True) - exact) <= room).all())
    True
    """
    arguments = pack(
        q, k, v, None, mask, bias, causal, strict, align, window, scale, softcap, sinks,
        alibi_slopes, q_offset, q_lens, kv_lens, kv_starts, block_mask, block_size, True,
        return_weights, precision, 1, None, None, block_table, page_layout, k_format, k_scale,
        k_min, k_group, v_format, v_scale, v_min, v_group, k_rope,
    )  # fmt: skip
    rows = shape_of("q", q, 4)[:3]
    shape_of("k", k, 4, "" if block_table is None else page_layout)
    packed_codes = str(getattr(v, "dtype", "")).endswith("uint8") and v_format == "int4"
    o_shape = (*rows, shape_of("v", v, 4)[3] * (2 if packed_codes else 1))
    weights_shape = (*rows, kv_tokens(k, arguments[8], page_layout))
    wanted = return_weights is not None and return_weights is not False
    o, o_budget = np.zeros(o_shape), np.zeros(o_shape)
    lse, lse_budget = np.zeros(rows), np.zeros(rows)
    weights = np.zeros(weights_shape) if wanted else None
    _qkv.reference(*arguments, o, lse, weights, o_budget, lse_budget)
    result: list[Any] = [o]
    if return_lse:
        result.append(lse)
    if wanted:
        result.append(weights)
    if return_budget:
        result += [o_budget, lse_budget]
    return tuple(result) if len(result) > 1 else o
