"""attention and attention_varlen."""

from __future__ import annotations

from typing import Any, Optional, Union

from numpy import ndarray

from . import _qkv
from ._arrays import Array, own
from ._options import Lengths, Window, pack


def attention(
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
    out: Optional[Array] = None,
    precision: str = "highest",
    threads: Optional[int] = None,
) -> Any:
    """softmax(scale q k^T, masked and biased) v, without ever writing the Tq x Tk matrix.

    Parameters
    ----------
    q : (B, Hq, Tq, D)
    k : (B, Hkv, Tk, D)
    v : (B, Hkv, Tk, Dv)
        Any strides.  Query head h reads key/value head h // (Hq // Hkv).
    mask : bool, broadcast to (B, Hq, Tq, Tk)
        True where a query sees a key.  Other dtypes are refused: numbers are a bias.
    bias : float, broadcast to (B, Hq, Tq, Tk)
        Added to the scaled scores; -inf hides.
    causal, strict
        Query i stands at position p = q_offset + i and sees keys j <= p, or j < p if strict.
    align : "bottom_right" or "top_left"
        Where queries stand unless q_offset says so: the last query at the last key
        (q_offset = kv_len - q_len), or the first at the first (q_offset = 0).
    window : int or (left, right)
        p - left <= j <= p + right; -1 or None is unbounded; n means (n, n).
    scale : default 1/sqrt(D)
    softcap : c > 0 replaces each scaled score s by c tanh(s/c), before bias and masks
    sinks : (Hq,)
        One more logit a row, with no value; neither scaled nor capped.
    alibi_slopes : (Hq,) or (B, Hq)
        Adds -slope |p - j|.
    q_offset : int or (B,)
        Position of query 0; may be negative.
    q_lens, kv_lens, kv_starts : (B,)
        Lengths inside the padded tensors.  Key j exists if kv_start <= j < kv_len; output rows
        past q_len are 0, with lse -inf.
    block_mask : bool (nq, nk), (Hq, nq, nk) or (B, Hq, nq, nk)
        True where a block of block_size = (queries, keys) tokens is visible; nq = ceil(Tq/queries)
        and nk = ceil(Tk/keys).  Hidden blocks cost nothing.
    block_table : integers (B, n) or (B, Hkv, n)
        k and v are a pool of pages, read in place: key j of a sequence is token j % t of the page
        whose number stands at j // t of its row (of its row for that head).  Tk is n t; give
        kv_lens.  Entries of pages that no query sees may be anything.
    page_layout : "phtd" or "pthd"
        Of the pool: (pages, Hkv, t, D) or (pages, t, Hkv, D).  Any strides, so pool[:, 0] and
        pool[:, 1] of a joined (pages, 2, t, Hkv, D) are k and v as well.
    k_format, v_format : "int8", "int4", "e4m3" or "e5m2"
        k or v hold codes, which are read in place: code * scale, or min + code * scale for int4.
        Needed for uint8 only: int8 and the float8 dtypes say it themselves.  int4 has two codes a
        byte, the even channel in the low nibble, so its last axis is half as long.
    k_scale, v_scale, k_min, v_min : float32 or float16
        Broadcast to the shape of k with groups of channels for channels, such as (B, Hkv, Tk, 1)
        or (pages, Hkv, 1, D); one number is for everything.  Mins are for int4.
    k_group, v_group : int
        Channels that share a scale.  Default: as many as fit the last axis of the scale evenly.
    k_rope : (B, Hkv, Tk, r), or a pool of pages
        The last r channels of the keys, which k then lacks: the rotary part of a latent cache.
    return_lse
        Also return log sum exp of the scores of each row, (B, Hq, Tq), natural log.
    return_weights : True ("weights"), "scores", "capped" or "biased"
        Also return that stage of the score matrix, (B, Hq, Tq, Tk).  This one costs Tq x Tk.
    out : (B, Hq, Tq, Dv)
        Written in place and returned.  Its last axis is contiguous; it may not overlap inputs.
    precision : "highest", "high" or "medium"
        How far float32 inputs may be rounded before products, in PyTorch's words.
    threads : default all processors this process may use
        Does not change a bit of the result.

    Returns
    -------
    out, or a tuple (out, lse, weights) of what was asked for, in this order.  out is a
    (B, Hq, Tq, Dv) array of the kind and dtype of q; lse and weights are float32 (float64 with
    float64).  A query that sees no key gives 0 and lse -inf (the sink's logit if there is one).

    Raises
    ------
    TypeError
        For a dtype or an object that is not accepted.
    ValueError
        For a shape, a length or an option that is not; the sentence names it.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> q = k = np.zeros((1, 1, 3, 4), np.float32)
    >>> v = np.arange(3, dtype=np.float32).reshape(1, 1, 3, 1)
    >>> qkv.attention(q, k, v).ravel()
    array([1., 1., 1.], dtype=float32)
    >>> qkv.attention(q, k, v, causal=True).ravel()
    array([0. , 0.5, 1. ], dtype=float32)
    >>> o, lse = qkv.attention(q, k, v, causal=True, strict=True, return_lse=True)
    >>> o.ravel(), lse.ravel()
    (array([0. , 0. , 0.5], dtype=float32), array([     -inf, 0.       , 0.6931472], dtype=float32))
    >>> qkv.attention(q, k, v, mask=np.array([True, False, True])).ravel()
    array([1., 1., 1.], dtype=float32)
    >>> pool = v.repeat(4, -1)[0].reshape(3, 1, 1, 4)      # three pages of one token
    >>> qkv.attention(q, 0 * pool, pool, block_table=[[2, 0]])[0, 0, 0]
    array([1., 1., 1., 1.], dtype=float32)
    >>> qkv.attention(q, k[:, :, :2], v)
    Traceback (most recent call last):
    ValueError: v has shape (1, 1, 3, 1); with this k it must be (1, 1, 2, 1)
    """
    result = _qkv.attention(
        *pack(
            q, k, v, out, mask, bias, causal, strict, align, window, scale, softcap, sinks,
            alibi_slopes, q_offset, q_lens, kv_lens, kv_starts, block_mask, block_size, return_lse,
            return_weights, precision, threads, None, None, block_table, page_layout, k_format,
            k_scale, k_min, k_group, v_format, v_scale, v_min, v_group, k_rope,
        )  # fmt: skip
    )
    return result if type(q) is ndarray else own(result, q)


def attention_varlen(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens_q: Lengths,
    cu_seqlens_k: Optional[Lengths] = None,
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
    out: Optional[Array] = None,
    precision: str = "highest",
    threads: Optional[int] = None,
) -> Any:
    """attention() on sequences of unequal lengths, packed one behind the other.

    Parameters
    ----------
    q : (Tq, Hq, D)
    k : (Tk, Hkv, D)
    v : (Tk, Hkv, Dv)
    cu_seqlens_q, cu_seqlens_k : (B + 1,) integers, ascending from 0
        Sequence b owns rows cu[b] to cu[b + 1] - 1.  cu_seqlens_q ends at Tq; k and v may have
        rows behind the last sequence, which are not read.  With a block_table k and v are a pool
        of pages as in attention(), kv_lens says the lengths, and cu_seqlens_k is None.

    Tokens, positions and lengths count within a sequence.  mask and bias broadcast to
    (B, Hq, longest Tq, longest Tk); all else is as in attention().

    Returns
    -------
    out (Tq, Hq, Dv), or a tuple of out, lse (Hq, Tq) and weights (B, Hq, longest Tq, longest Tk;
    0 past a sequence's own lengths) as asked for.

    Examples
    --------
    >>> import numpy as np, qkv
    >>> q = k = np.zeros((5, 1, 4), np.float32)
    >>> v = np.arange(5, dtype=np.float32).reshape(5, 1, 1)
    >>> qkv.attention_varlen(q, k, v, [0, 2, 5], [0, 2, 5]).ravel()
    array([0.5, 0.5, 3. , 3. , 3. ], dtype=float32)
    """
    result = _qkv.attention(
        *pack(
            q, k, v, out, mask, bias, causal, strict, align, window, scale, softcap, sinks,
            alibi_slopes, q_offset, q_lens, kv_lens, kv_starts, block_mask, block_size, return_lse,
            return_weights, precision, threads, cu_seqlens_q, cu_seqlens_k, block_table,
            page_layout, k_format, k_scale, k_min, k_group, v_format, v_scale, v_min, v_group,
            k_rope,
        )  # fmt: skip
    )
    return result if type(q) is ndarray else own(result, q)
