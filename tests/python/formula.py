"""The formula of attention in NumPy float64, written for the tests alone.

It shares nothing with libqkv or its oracle: dense matrices, one line a step.
"""

import numpy as np


def positions(B, Tq, Tk, *, align="bottom_right", q_offset=None, q_lens=None, kv_lens=None):
    """p of every query, (B, Tq)."""
    q_lens = np.full(B, Tq) if q_lens is None else np.asarray(q_lens)
    kv_lens = np.full(B, Tk) if kv_lens is None else np.asarray(kv_lens)
    if q_offset is None:
        q_offset = 0 if align == "top_left" else kv_lens - q_lens
    return np.broadcast_to(np.asarray(q_offset), (B,))[:, None] + np.arange(Tq)


def visible(shape, *, causal=False, strict=False, window=None, kv_lens=None, kv_starts=None,
            mask=None, bias=None, block_mask=None, block_size=(64, 64), **where):
    """bool (B, Hq, Tq, Tk)."""
    B, Hq, Tq, Tk = shape
    p = positions(B, Tq, Tk, kv_lens=kv_lens, **where)[:, None, :, None]
    j = np.arange(Tk)
    keep = np.ones(shape, bool)
    if causal:
        keep &= j < p if strict else j <= p
    if window is not None:
        left, right = (window, window) if np.isscalar(window) else window
        if left is not None and left >= 0:
            keep &= j >= p - left
        if right is not None and right >= 0:
            keep &= j <= p + right
    if kv_lens is not None:
        keep &= j < np.asarray(kv_lens)[:, None, None, None]
    if kv_starts is not None:
        keep &= j >= np.asarray(kv_starts)[:, None, None, None]
    if mask is not None:
        keep &= mask
    if bias is not None:
        keep &= np.asarray(bias, np.float64) != -np.inf
    if block_mask is not None:
        rows, columns = block_size
        whole = np.repeat(np.repeat(block_mask, rows, axis=-2), columns, axis=-1)
        keep &= whole[..., :Tq, :Tk]
    return keep


def formula(q, k, v, *, scale=None, softcap=0.0, alibi_slopes=None, bias=None, sinks=None,
            q_lens=None, **rest):
    """A dict of o, lse, scores, capped, biased, weights in float64."""
    q, k, v = (np.asarray(x).astype(np.float64) for x in (q, k, v))
    B, Hq, Tq, D = q.shape
    group, Tk = Hq // k.shape[1], k.shape[2]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    keep = visible((B, Hq, Tq, Tk), bias=bias, q_lens=q_lens, **rest)
    row_exists = np.ones((B, 1, Tq, 1), bool)
    if q_lens is not None:
        row_exists = (np.arange(Tq) < np.asarray(q_lens)[:, None])[:, None, :, None]
    keep &= row_exists
    with np.errstate(invalid="ignore", over="ignore"):
        scores = (D**-0.5 if scale is None else scale) * np.einsum("bhid,bhjd->bhij", q, k)
    capped = softcap * np.tanh(scores / softcap) if softcap else scores
    biased = capped
    if alibi_slopes is not None:
        where = {n: rest[n] for n in ("align", "q_offset", "kv_lens") if n in rest}
        p = positions(B, Tq, Tk, q_lens=q_lens, **where)[:, None, :, None]
        slopes = np.asarray(alibi_slopes, np.float64)
        biased = biased - np.broadcast_to(slopes, (B, Hq))[:, :, None, None] * abs(p - np.arange(Tk))
    if bias is not None:
        biased = biased + np.where(np.isneginf(np.asarray(bias, np.float64)), 0, bias)
    biased = np.where(keep, biased, -np.inf)
    sink = np.full((B, Hq, 1), -np.inf)
    if sinks is not None:
        sink = np.broadcast_to(np.asarray(sinks, np.float64), (B, Hq))[:, :, None]
    m = np.maximum(biased.max(-1, initial=-np.inf), sink)
    m = np.where(np.isneginf(m), 0, m)
    with np.errstate(divide="ignore"):
        e = np.where(keep, np.exp(biased - m[..., None]), 0)
        l = e.sum(-1) + np.exp(sink - m)
        lse = m + np.log(l)
    weights = e / np.where(l == 0, 1, l)[..., None]
    o = np.einsum("bhij,bhjd->bhid", weights, np.nan_to_num(v) if not keep.all() else v)
    lse = np.where(row_exists[..., 0], lse, -np.inf)
    o = np.where(row_exists, o, 0)
    return {"o": o, "lse": lse, "scores": scores, "capped": capped, "biased": biased, "weights": weights}


# Room for each dtype: unit roundoff with what sums of a few hundred terms make of it.
ROOM = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def close(got, want, dtype="float32"):
    """|got - want| within the room of a dtype; infinities and NaN in the same places."""
    got, want = np.asarray(got).astype(np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    room = ROOM[str(np.dtype(dtype))] if not isinstance(dtype, str) else ROOM[dtype]
    np.testing.assert_allclose(got, want, rtol=room, atol=room)
