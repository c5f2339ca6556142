"""ONNX's external caches through caches and views: TensorScatter, and Attention with
nonpad_kv_seqlen, as the pinned onnx package makes the cases in memory."""

import importlib

import numpy as np
import onnx
import pytest
from onnx.backend.test.case import node as onnx_cases

import qkv
from onnx_adapter import full_mask

importlib.import_module("onnx.backend.test.case.node.attention")
importlib.import_module("onnx.backend.test.case.node.tensorscatter")

SCATTER = {c.name: c for c in onnx_cases._NodeTestCases if c.name.startswith("test_tensorscatter")
           and "_expanded" not in c.name}  # fmt: skip
EXTERNAL = {
    c.name: c
    for c in onnx_cases._NodeTestCases
    if c.name.startswith("test_attention_") and "_expanded" not in c.name
    and "nonpad_kv_seqlen" in c.model.graph.node[0].input
}  # fmt: skip
FORMAT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def test_every_case_is_here():
    assert onnx.__version__ == "1.23.2"
    assert len(SCATTER) == 3 and len(EXTERNAL) == 13


def parts(case):
    """(past, update, indices, present, attributes), the arrays with an axis of heads."""
    ((inputs, (present,)),) = case.data_sets
    past, update, indices = inputs
    a = {x.name: onnx.helper.get_attribute_value(x) for x in case.model.graph.node[0].attribute}
    if past.ndim == 3:
        past, update, present = past[:, None], update[:, None], present[:, None]
    return past, update, indices, present, a


def cache_of(past, **options):
    B, H, T, D = past.shape
    return qkv.KVCache(
        1, H, D, k_format="f32", v_format="f32", n_pages=8 * B, max_seqs=B, page_tokens=16,
        poison=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", [n for n in sorted(SCATTER) if "circular" not in n])
def test_scatter_linear(name):
    """Writing at an index is rolling back to it and appending; what lay behind is appended again."""
    past, update, indices, present, a = parts(SCATTER[name])
    assert a.get("mode", b"linear") == b"linear"
    n = update.shape[2]
    cache = cache_of(past)
    for b, at in enumerate(indices):
        seq = cache.add()
        cache.append(0, past[b : b + 1], past[b : b + 1], seq)
        cache.commit()
        cache.truncate(seq, int(at))
        cache.append(0, update[b : b + 1], update[b : b + 1], seq)
        rest = past[b : b + 1, :, at + n :]
        cache.append(0, rest, rest, seq)
        for x in cache.read(0, seq):
            np.testing.assert_array_equal(x, present[b])


def test_scatter_circular(rng):
    """A ring of M rows is a window of M tokens: token p lies in row p mod M.  The past holds M tokens, of
    which the one in row `index` is the oldest and the next to be overwritten."""
    past, update, indices, present, a = parts(SCATTER["test_tensorscatter_circular"])
    assert a["mode"] == b"circular"
    (B, H, M, D), n = past.shape, update.shape[2]
    assert (indices + n).max() > M  # one case goes around the end
    cache = cache_of(past, window=M - 1)
    seqs = [cache.add() for _ in range(B)]
    q = rng.standard_normal((B, 2 * H, n, D), dtype=np.float32)
    for b, at in enumerate(indices):
        oldest_first = np.roll(past[b : b + 1], -at, axis=2)
        cache.append(0, oldest_first, oldest_first, seqs[b])
    cache.commit()
    cache.append(0, update, update)
    ours = cache.attend(0, q)[:, :, -1:]  # the newest query, which sees exactly the ring
    for b, at in enumerate(indices):
        k, _ = cache.read(0, seqs[b], n)
        np.testing.assert_array_equal(np.roll(k, at + n, axis=1), present[b])
    want = qkv.attention(q[:, :, -1:], present, present)
    np.testing.assert_allclose(ours, want, rtol=1e-5, atol=1e-6)


def test_scatter_circular_in_place(rng):
    """The ring itself as a pool of pages of one token, whose table goes around: the view of an
    engine that keeps its window so."""
    past, update, indices, present, _ = parts(SCATTER["test_tensorscatter_circular"])
    (B, H, M, D), n = past.shape, update.shape[2]
    ring = past.copy()
    for b, at in enumerate(indices):
        for t in range(n):
            ring[b, :, (at + t) % M] = update[b, :, t]
    np.testing.assert_array_equal(ring, present)
    pool = ring.transpose(0, 2, 1, 3).reshape(B * M, 1, H, D)  # (pages, 1 token, heads, D)
    newest_last = (indices[:, None] + n + np.arange(M)) % M + M * np.arange(B)[:, None]
    q = rng.standard_normal((B, H, n, D), dtype=np.float32)
    ours = qkv.attention(
        q, pool, pool, block_table=newest_last, page_layout="pthd", causal=True, kv_lens=[M] * B
    )
    in_order = np.stack([np.roll(x, -(at + n), axis=1) for x, at in zip(present, indices)])
    np.testing.assert_array_equal(ours, qkv.attention(q, in_order, in_order, causal=True))


class External:
    """A case of Attention with nonpad_kv_seqlen."""

    def __init__(self, case):
        (node,) = case.model.graph.node
        ((inputs, outputs),) = case.data_sets
        given = dict(zip([n for n in node.input if n], inputs))
        self.q, self.k, self.v = given["Q"], given["K"], given["V"]
        self.lens, self.want = given["nonpad_kv_seqlen"], outputs[0]
        a = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
        self.options = {"causal": bool(a.get("is_causal", 0))}
        self.tolerance = {"rtol": case.rtol, "atol": case.atol}
        if self.q.dtype.name == "bfloat16":  # see test_onnx.py
            self.tolerance = {"rtol": 3 * 2.0**-8, "atol": 3 * 2.0**-8}
        if "left_window_size" in a:
            self.options["window"] = a["left_window_size"]
        if self.options["causal"]:
            self.options["q_offset"] = self.lens - self.q.shape[2]
        self.mask = given.get("attn_mask")

    def masks(self, Tk):
        if self.mask is None:
            return {}
        mask = full_mask(self.mask, Tk)
        mask = mask[..., :Tk] if mask.shape[-1] > 1 else mask
        return {"mask" if mask.dtype == np.bool_ else "bias": mask}

    def check(self, o):
        assert o.dtype == self.want.dtype and o.shape == self.want.shape
        np.testing.assert_allclose(
            o.astype(np.float64), self.want.astype(np.float64), **self.tolerance
        )


def attend_alone(x, cache, seqs):
    """More queries than tokens: those that stand before token 0 see nothing, and a cache, whose
    queries are those of its tokens, refuses them."""
    o = np.zeros_like(x.want)
    for b, (seq, n) in enumerate(zip(seqs, x.lens.tolist())):
        rows = max(x.q.shape[2] - n, 0)
        if rows > 0:
            with pytest.raises(ValueError, match=f"sequence {seq} has {n} tokens"):
                cache.attend(0, x.q[b : b + 1], seq)
        masks = {name: m[b : b + 1, :, rows:, :n] for name, m in x.masks(n).items()}
        o[b, :, rows:] = cache.attend(0, x.q[b : b + 1, :, rows:], seq, **masks)[0]
    return o


@pytest.mark.parametrize("layout", ["pages", "contiguous"])
@pytest.mark.parametrize("name", sorted(EXTERNAL))
def test_external_cache_as_ours(name, layout):
    x = External(EXTERNAL[name])
    B, H, T, D = x.k.shape
    form = FORMAT[x.k.dtype.name]
    contiguous = layout == "contiguous"
    cache = qkv.KVCache(
        1, H, D, x.v.shape[3], k_format=form, v_format=form, page_tokens=T if contiguous else 16,
        n_pages=B, max_seqs=B, contiguous=contiguous, poison=True,
    )  # fmt: skip
    seqs = [cache.add() for _ in range(B)]
    cache.append(0, x.k, x.v, lens=x.lens)
    if x.options["causal"] and (x.lens < x.q.shape[2]).any():
        x.check(attend_alone(x, cache, seqs))
    else:
        x.check(cache.attend(0, x.q, **x.options, **x.masks(int(x.lens.max()))))


@pytest.mark.parametrize("page_tokens", [1, 2])
@pytest.mark.parametrize("name", sorted(EXTERNAL))
def test_external_cache_in_place(name, page_tokens):
    """The rows in pages that stand in another order, with NaN in what is not there."""
    x = External(EXTERNAL[name])
    B, H, T, D = x.k.shape
    n = T // page_tokens
    numbers = np.random.default_rng(3).permutation(B * n)

    def pool(rows):
        pages = np.full((B * n, H, page_tokens, rows.shape[3]), np.nan, rows.dtype)
        for b in range(B):
            for t in range(x.lens[b]):
                page = numbers[b * n + t // page_tokens]
                pages[page, :, t % page_tokens] = rows[b, :, t]
        return pages

    options = dict(x.options)
    options["window"] = (options.get("window", -1), -1)
    x.check(qkv.attention(
        x.q, pool(x.k), pool(x.v), block_table=numbers.reshape(B, n), kv_lens=x.lens,
        **options, **x.masks(T),
    ))  # fmt: skip
