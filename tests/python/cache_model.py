"""A cache as plain lists of tokens, and attention over it by the oracle."""

import ml_dtypes
import numpy as np

import qkv

EXACT = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
FORMATS = [*EXACT, "int8", "int4", "e4m3", "e5m2"]


class Sequence:
    """Rows (H, D) of keys and (H, Dv) of values of each token, for each layer."""

    def __init__(self, n_layers):
        self.k = [[] for _ in range(n_layers)]
        self.v = [[] for _ in range(n_layers)]
        self.committed = self.start = 0

    def __len__(self):
        return len(self.k[0])

    def copy(self):
        other = Sequence(0)
        other.k, other.v = [list(x) for x in self.k], [list(x) for x in self.v]
        other.committed, other.start = self.committed, self.start
        return other

    def cut(self, length):
        self.k, self.v = [x[:length] for x in self.k], [x[:length] for x in self.v]
        self.committed = min(self.committed, length)


def allowed_error(form, x, group):
    """How far a stored number may be from x, (..., D), by the rules of qkv/formats.h."""
    x = np.asarray(x, np.float32)
    if form in EXACT:
        return np.zeros_like(x)
    D = x.shape[-1]
    width = group or D
    parts = [x[..., at : at + width] for at in range(0, D, width)]
    tops = [np.abs(p).max(-1, keepdims=True) for p in parts]
    if form == "int8":
        room = [t / 127 / 2 * 1.001 for t in tops]
    elif form == "int4":
        spans = [p.max(-1, keepdims=True) - p.min(-1, keepdims=True) for p in parts]
        # min and step are f16: their own rounding widens the span.
        room = [(s / 15 + t * 2e-3) / 2 + t * 1e-3 + 1e-6 for s, t in zip(spans, tops)]
    else:
        bits = 3 if form == "e4m3" else 2
        room = [np.abs(p) * 2.0 ** -(bits + 1) + t * (2.0**-16) for p, t in zip(parts, tops)]
    return np.concatenate([np.broadcast_to(r, p.shape) for r, p in zip(room, parts)], -1)


def visible(seq, positions, config):
    """bool (Tq, length)."""
    j, p = np.arange(len(seq)), np.asarray(positions)[:, None]
    keep = j <= p
    if config["window"] is not None:
        keep = keep & ((j >= p - config["window"]) | (j < config["sink_tokens"]))
    return keep & ((j >= seq.start) | (j < config["sink_tokens"]))


def check_attend(cache, layer, q, ids, q_lens, models, stored, **options):
    """attend() against the oracle on what read() gives, row by row."""
    got, lse = cache.attend(layer, q, ids, q_lens=q_lens, return_lse=True, **options)
    for b, (seq, n) in enumerate(zip(ids, q_lens)):
        assert (got[b, :, n:].astype(np.float32) == 0).all()
        assert (np.isneginf(lse[b, :, n:])).all()
        if n == 0:
            continue
        model, (k, v) = models[seq], stored[seq]
        mask = visible(model, np.arange(len(model) - n, len(model)), cache.config)
        want, want_lse, room, room_lse = qkv.reference_attention(
            q[b : b + 1, :, :n], k[None], v[None], mask=mask, return_lse=True, return_budget=True,
            **{name: x for name, x in options.items() if name in ("scale", "softcap", "sinks")},
        )  # fmt: skip
        # Merging parts rounds a few times more, and the cache's formats may be computed on as they are.
        slack = 4 * room + 1e-5
        error = abs(got[b : b + 1, :, :n].astype(np.float64) - want)
        assert (error <= slack).all(), (error.max(), seq, n)
        finite = np.isfinite(want_lse)
        assert (np.isneginf(lse[b : b + 1, :, :n]) == ~finite).all()
        assert (abs(lse[b : b + 1, :, :n][finite] - want_lse[finite]) <= 4 * room_lse[finite] + 1e-5).all()
