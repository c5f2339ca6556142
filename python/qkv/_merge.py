"""merge: partial results over disjoint sets of keys, made one."""

from __future__ import annotations

from typing import Any, Iterable, Optional

import numpy as np

from . import _qkv
from ._arrays import Array, own, to_numpy


def merge(parts: Iterable[tuple[Array, Array]], *, sinks: Optional[Array] = None) -> Any:
    """Attention over all keys from attention over parts of them.

    Parameters
    ----------
    parts : one or more tuples (o, lse)
        As attention(..., return_lse=True) gives for each part of the keys: o (B, Hq, T, Dv) and
        lse (B, Hq, T), or packed o (T, Hq, Dv) and lse (Hq, T); all float32 or all float64.  A part
        whose lse is -inf is empty and its o is not looked at.
    sinks : (Hq,)
        They enter here, once: make the parts without them.

    Returns
    -------
    (o, lse) of the kind of the first o.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 6, 8), dtype=np.float32)
    >>> left = qkv.attention(q, k[:, :, :2], v[:, :, :2], return_lse=True)
    >>> right = qkv.attention(q, k[:, :, 2:], v[:, :, 2:], return_lse=True)
    >>> o, lse = qkv.merge([left, right])
    >>> bool(np.allclose(o, qkv.attention(q, k, v), atol=1e-6))
    True
    """
    pairs = list(parts)
    if not pairs:
        raise ValueError("parts is empty; merging needs at least one part, to know the shape")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"parts[{i}] is no tuple (o, lse)")
    os = [to_numpy(o, f"parts[{i}][0]") for i, (o, _) in enumerate(pairs)]
    lses = [to_numpy(lse, f"parts[{i}][1]") for i, (_, lse) in enumerate(pairs)]
    shape, dtype = os[0].shape, os[0].dtype
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"parts[0][0] has dtype {dtype}; float32 and float64 are accepted")
    if len(shape) not in (3, 4):
        raise ValueError(f"parts[0][0] has shape {shape}; (B, H, T, D) or (T, H, D) is expected")
    packed = len(shape) == 3
    rows = (shape[1], shape[0]) if packed else shape[:3]
    for i, (o, lse) in enumerate(zip(os, lses)):
        for array, wanted, part in ((o, shape, 0), (lse, rows, 1)):
            if array.dtype != dtype:
                raise TypeError(f"parts[{i}][{part}] has dtype {array.dtype}; {dtype} is expected")
            if array.shape != wanted:
                raise ValueError(
                    f"parts[{i}][{part}] has shape {array.shape}; {wanted} is expected"
                )
    if sinks is not None:
        if not isinstance(sinks, (list, tuple)):
            sinks = to_numpy(sinks, "sinks")
        sinks = np.array(sinks, dtype)
        if sinks.shape != (shape[1],):
            raise ValueError(f"sinks has shape {sinks.shape}; {(shape[1],)} is expected")
    o, lse = np.empty(shape, dtype), np.empty(rows, dtype)
    n_seqs, n_tokens = (1, shape[0]) if packed else (shape[0], shape[2])
    _qkv.merge(
        tuple(zip(os, lses)),
        sinks,
        (o, lse),
        (dtype == np.float64, packed, n_seqs, shape[1], n_tokens, shape[-1]),
    )
    return own((o, lse), pairs[0][0])
