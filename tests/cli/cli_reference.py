"""Attention in NumPy float64, one query at a time, straight from the formula."""

import math

import numpy as np


def attention(q, k, v, *, scale=None, softcap=0.0, causal=None, align="bottom-right", window=(-1, -1),
              q_lens=None, kv_lens=None, kv_starts=None, q_offset=None, mask=None, bias=None,
              sinks=None, alibi=None, block_mask=None, block_size=(64, 64)):
    """(B,H,T,D) arrays; returns o, lse, and a dict of the score stages."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    B, Hq, Tq, D = q.shape
    Hkv, Tk, Dv = k.shape[1], k.shape[2], v.shape[3]
    scale = 1 / math.sqrt(D) if scale is None else scale
    shape = (B, Hq, Tq, Tk)
    mask = np.broadcast_to(True if mask is None else mask, shape)
    bias = np.broadcast_to(0.0 if bias is None else np.asarray(bias, np.float64), shape)
    sinks = np.broadcast_to(-np.inf if sinks is None else np.asarray(sinks, np.float64), (B, Hq))
    alibi = np.broadcast_to(0.0 if alibi is None else np.asarray(alibi, np.float64), (B, Hq))
    if block_mask is not None:
        m, n = block_size
        blocks = np.broadcast_to(block_mask, (B, Hq, -(-Tq // m), -(-Tk // n)))
        mask = mask & blocks[:, :, np.arange(Tq)[:, None] // m, np.arange(Tk)[None] // n]

    o = np.zeros((B, Hq, Tq, Dv))
    lse = np.full((B, Hq, Tq), -np.inf)
    stages = {"scores": np.zeros(shape), "capped": np.zeros(shape),
              "biased": np.full(shape, -np.inf), "weights": np.zeros(shape)}
    j = np.arange(Tk)
    for b in range(B):
        n_q = Tq if q_lens is None else q_lens[b]
        end = Tk if kv_lens is None else kv_lens[b]
        start = 0 if kv_starts is None else kv_starts[b]
        offset = q_offset[b] if q_offset is not None else 0 if align == "top-left" else end - n_q
        for h in range(Hq):
            g = h // (Hq // Hkv)
            for i in range(n_q):
                p = offset + i
                s = scale * (k[b, g] @ q[b, h, i])
                stages["scores"][b, h, i] = s
                s = softcap * np.tanh(s / softcap) if softcap else s
                stages["capped"][b, h, i] = s
                see = (j >= start) & (j < end) & mask[b, h, i] & (bias[b, h, i] != -np.inf)
                if causal == "inclusive":
                    see &= j <= p
                if causal == "strict":
                    see &= j < p
                if window[0] >= 0:
                    see &= j >= p - window[0]
                if window[1] >= 0:
                    see &= j <= p + window[1]
                logits = (s - alibi[b, h] * np.abs(p - j) + bias[b, h, i])[see]
                stages["biased"][b, h, i, see] = logits
                both = np.append(logits, sinks[b, h])
                top = both.max()
                if top == -np.inf:
                    continue
                lse[b, h, i] = top + np.log(np.exp(both - top).sum())
                w = np.exp(logits - lse[b, h, i])
                stages["weights"][b, h, i, see] = w
                o[b, h, i] = w @ v[b, g, see]
    return o, lse, stages


def packed(q, k, v, cu_q, cu_k, **options):
    """[T,H,D] arrays; returns o [T,Hq,Dv] and lse [Hq,T]."""
    o = np.zeros((q.shape[0], q.shape[1], v.shape[2]))
    lse = np.zeros((q.shape[1], q.shape[0]))
    for b in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        one = [x.transpose(1, 0, 2)[None] for x in (q[rows], k[keys], v[keys])]
        part, part_lse, _ = attention(*one, **options)
        o[rows] = part[0].transpose(1, 0, 2)
        lse[:, rows] = part_lse[0]
    return o, lse
