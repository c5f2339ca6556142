"""KVCache and LatentCache: each thing they do, by itself.  Random lives are in test_cache_model.py."""

import gc
import re
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
import torch

import qkv
from cache_model import FORMATS
from formula import close, formula

H, D = 2, 32


def filled(rng, lengths, n_layers=1, commit=True, **config):
    """(cache, ids) with random tokens."""
    config = {"n_pages": 60, "max_seqs": 2 * len(lengths), "page_tokens": 16} | config
    cache = qkv.KVCache(n_layers, H, D, **config)
    ids = [cache.add() for _ in lengths]
    for layer in range(n_layers):
        for seq, n in zip(ids, lengths):
            k, v = rng.standard_normal((2, 1, H, n, D), dtype=np.float32)
            cache.append(layer, k, v, seq)
    if commit:
        cache.commit()
    return cache, ids


def rows(cache, ids, layer=0):
    """Keys, values padded to one length, and the lengths, for the formula."""
    lens = [cache.length(seq) for seq in ids]
    k, v = np.zeros((2, len(ids), H, max(lens), D), np.float32)
    for b, seq in enumerate(ids):
        k[b, :, : lens[b]], v[b, :, : lens[b]] = cache.read(layer, seq)
    return k, v, lens


def queries(rng, B, T=1, heads=4):
    return rng.standard_normal((B, heads, T, D), dtype=np.float32)


# ---- attention over what is cached -----------------------------------------------------------


@pytest.mark.parametrize("v_format", FORMATS)
@pytest.mark.parametrize("k_format", [*FORMATS, "int8_channel"])
def test_every_pair_of_formats(rng, k_format, v_format):
    cache, ids = filled(rng, [70, 33], k_format=k_format, v_format=v_format)
    k, v, lens = rows(cache, ids)
    for T in (1, 12):
        q = queries(rng, 2, T)
        o, lse = cache.attend(0, q, return_lse=True)
        want = formula(q, k, v, causal=True, kv_lens=lens)
        close(o, want["o"])
        close(lse, want["lse"])


@pytest.mark.parametrize("form", ["e4m3", "e5m2"])
def test_scales_of_heads(rng, form):
    """Given, or found at the first tokens; later tokens saturate."""
    top = {"e4m3": 448, "e5m2": 57344}[form]
    options = {"k_format": form, "v_format": form, "k_scale": "head", "v_scale": "head"}
    cache, ids = filled(rng, [40], **options)
    q = queries(rng, 1)
    k, v, _ = rows(cache, ids)
    close(cache.attend(0, q), formula(q, k, v)["o"])
    cache.set_scales(0, [0.5, 1.0], np.array([2.0, 1.0], np.float32))
    seq = cache.add()
    x = np.full((1, H, 3, D), 1e6, np.float32)
    cache.append(0, x, x, seq)
    k, v = cache.read(0, seq)
    assert k[:, 0, 0].tolist() == [top / 2, top] and v[:, 0, 0].tolist() == [2 * top, top]


def test_layouts_do_not_matter(rng):
    """Pages of any size and contiguous memory give the same bits, alone and in a batch."""
    k, v = rng.standard_normal((2, 3, H, 100, D), dtype=np.float32)
    q = queries(rng, 3)
    seen = []
    for config in ({"page_tokens": 16}, {"page_tokens": 64}, {"page_tokens": 256},
                   {"page_tokens": 130, "contiguous": True}):  # fmt: skip
        cache = qkv.KVCache(1, H, D, n_pages=None if "contiguous" in config else 30, max_seqs=3, **config)
        ids = [cache.add() for _ in range(3)]
        cache.append(0, k, v, lens=[100, 7, 64])
        seen.append(cache.attend(0, q))
        seen.append(np.concatenate([cache.attend(0, q[b : b + 1], ids[b]) for b in range(3)]))
    for other in seen[1:]:
        np.testing.assert_array_equal(seen[0], other)


def test_prefill_in_chunks_is_prefill_at_once(rng):
    k, v = rng.standard_normal((2, 1, H, 90, D), dtype=np.float32)
    q = queries(rng, 1, 90)
    cache = qkv.KVCache(1, H, D, k_format="f32", v_format="f32", n_pages=9, page_tokens=16)
    cache.add()
    parts = []
    for a, b in ((0, 40), (40, 41), (41, 90)):
        cache.append(0, k[:, :, a:b], v[:, :, a:b])
        parts.append(cache.attend(0, q[:, :, a:b]))
        cache.commit()
    close(np.concatenate(parts, 2), formula(q, k, v, causal=True)["o"])


@pytest.mark.parametrize("k_format", ["bf16", "int8_channel"])
@pytest.mark.parametrize("window, sink_tokens", [(None, 0), (20, 0), (20, 5), (None, 5)])
def test_positions_masks_and_biases(rng, k_format, window, sink_tokens):
    """By position, whatever was evicted and however the keys fall into parts."""
    cache, ids = filled(rng, [75, 50], k_format=k_format, window=window, sink_tokens=sink_tokens)
    for seq, n in zip(ids, (5, 9)):
        k, v = rng.standard_normal((2, 1, H, n, D), dtype=np.float32)
        cache.append(0, k, v, seq)
    lens, q = [80, 59], queries(rng, 2, 3)
    k, v = np.zeros((2, 2, H, 80, D), np.float32)
    for b, seq in enumerate(ids):
        kept, n = cache.info(seq)["kept_from"], lens[b]
        for a, e in ((0, min(kept, sink_tokens)), (kept, n)):
            k[b, :, a:e], v[b, :, a:e] = cache.read(0, seq, a, e)
    p, j = np.array(lens)[:, None] - 3 + np.arange(3), np.arange(80)
    keep = j <= p[..., None]
    if window is not None:
        keep &= (j >= p[..., None] - window) | (j < sink_tokens)
    keep = keep[:, None]
    mask, bias = rng.random((2, 4, 3, 80)) < 0.8, rng.standard_normal((4, 3, 80), dtype=np.float32)
    for options in ({"mask": mask}, {"bias": bias}, {"mask": mask[:, :1, :1], "bias": bias[None]},
                    {"mask": np.ones((3, 1), bool)}, {"mask": mask[:, ::-1, :, ::-1], "softcap": 2.0}):  # fmt: skip
        seen = np.broadcast_to(options.get("mask", True), (2, 4, 3, 80)) & keep
        want = formula(q, k, v, **options | {"mask": seen})
        o, lse = cache.attend(0, q, return_lse=True, **options)
        close(o, want["o"])
        close(lse, want["lse"])
    slopes = [0.5, 0.25, 0.1, 0.0]
    want = formula(q, k, v, mask=keep, alibi_slopes=slopes, q_offset=np.array(lens) - 3)["o"]
    close(cache.attend(0, q, alibi_slopes=slopes), want)


def test_queries_anywhere(rng):
    """q_offset says where; causal=False needs no positions."""
    cache, ids = filled(rng, [50, 20])
    k, v, lens = rows(cache, ids)
    q = queries(rng, 2, 4)
    for offset in (10, [3, 30], [-2, 16]):
        want = formula(q, k, v, causal=True, kv_lens=lens, q_offset=np.array(offset))["o"]
        close(cache.attend(0, q, q_offset=offset), want)
    long = queries(rng, 2, 70)
    close(cache.attend(0, long, causal=False), formula(long, k, v, kv_lens=lens)["o"])
    close(cache.attend(0, q, window=6), formula(q, k, v, causal=True, kv_lens=lens, window=(6, None))["o"])


def test_window_of_a_call_and_of_the_cache(rng):
    cache, ids = filled(rng, [50], window=30, commit=False)
    k, v, _ = rows(cache, ids)
    q = queries(rng, 1)
    for asked, window in ((None, 30), (10, 10), (40, 30), (0, 0)):
        close(cache.attend(0, q, window=asked), formula(q, k, v, causal=True, window=(window, None))["o"])
    cache.commit()
    append_one(rng, cache, 1)
    assert cache.info(1)["kept_from"] == 16
    for offset, good in ((50, True), (46, True), (45, False)):
        if good:
            cache.attend(0, q, q_offset=offset)
        else:
            with pytest.raises(ValueError, match="a window of 30 before it needs tokens below 16"):
                cache.attend(0, q, q_offset=offset)


def append_one(rng, cache, B, seqs=None):
    for layer in range(cache.config["n_layers"]):
        k, v = rng.standard_normal((2, B, H, 1, D), dtype=np.float32)
        cache.append(layer, k, v, seqs)


@pytest.mark.parametrize("k_format", ["f32", "int8_channel"])
def test_tree_of_speculative_tokens(rng, k_format):
    """Each path through the tree sees what it would see as a plain sequence."""
    parents = [-1, 0, 0, 1, 2, 2]
    n = len(parents)
    tree = np.zeros((n, n), bool)
    for i, parent in enumerate(parents):
        tree[i, i] = True
        if parent >= 0:
            tree[i] |= tree[parent]
    cache, ids = filled(rng, [40, 21], k_format=k_format, v_format="f32")
    k, v = rng.standard_normal((2, 2, H, n, D), dtype=np.float32)
    cache.append(0, k, v, lens=[n, 4])
    q = queries(rng, 2, n)
    got = cache.attend(0, q, q_lens=[n, 4], tree_mask=tree)
    all_k, all_v, lens = rows(cache, ids)
    for b, count in enumerate((n, 4)):
        old = lens[b] - count
        for i in range(count):
            path = list(range(old)) + [old + int(j) for j in np.flatnonzero(tree[i])]
            want = formula(q[b : b + 1, :, i : i + 1], all_k[b : b + 1][:, :, path], all_v[b : b + 1][:, :, path])
            close(got[b : b + 1, :, i : i + 1], want["o"])
    each = np.stack([tree, tree])
    np.testing.assert_array_equal(cache.attend(0, q, q_lens=[n, 4], tree_mask=each), got)
    # The path 0, 2, 4 is taken: what it needs is appended again as plain tokens.
    cache.truncate(ids[0], 40)
    cache.append(0, k[:1, :, [0, 2, 4]], v[:1, :, [0, 2, 4]], ids[0])
    cache.commit(ids[0])
    assert cache.length(ids[0]) == 43


def test_shared_prefix(rng):
    """Read once for all sequences; padded and packed queries; sinks enter once."""
    cache, (first,) = filled(rng, [100], max_seqs=6)
    ids = [first] + [cache.fork(first) for _ in range(5)]
    for i, seq in enumerate(ids):
        k, v = rng.standard_normal((2, 1, H, 1 + i, D), dtype=np.float32)
        cache.append(0, k, v, seq)
    q, sinks = queries(rng, 6), rng.standard_normal(4).astype(np.float32)
    for options in ({}, {"sinks": sinks}, {"softcap": 3.0, "scale": 0.3}):
        plain, lse = cache.attend(0, q, return_lse=True, **options)
        o, got_lse = cache.attend(0, q, shared_prefix=True, return_lse=True, **options)
        close(o, plain)
        close(got_lse, lse)
    half = q.astype(np.float16)
    close(cache.attend(0, half, shared_prefix=True), cache.attend(0, half), "float16")
    packed = rng.standard_normal((21, 4, D), dtype=np.float32)
    cu = np.cumsum([0, 1, 2, 3, 4, 5, 6])
    plain = cache.attend(0, packed, cu_seqlens_q=cu)
    close(cache.attend(0, packed, cu_seqlens_q=cu, shared_prefix=True), plain)
    np.testing.assert_array_equal(cache.attend(0, q[:1], first, shared_prefix=True), cache.attend(0, q[:1], first))


def test_packed_queries_and_tokens(rng):
    cache = qkv.KVCache(1, H, D, n_pages=20, max_seqs=3, page_tokens=16, k_format="f16", v_format="f16")
    ids = [cache.add() for _ in range(3)]
    cu = [0, 20, 20, 27]
    k, v = rng.standard_normal((2, 27, H, D)).astype(np.float16)
    cache.append(0, k, v, cu_seqlens=cu)
    q = rng.standard_normal((27, 4, D), dtype=np.float32)
    o, lse = cache.attend(0, q, cu_seqlens_q=cu, return_lse=True)
    want = qkv.attention_varlen(q, k, v, cu, cu, causal=True)
    close(o, want)
    assert lse.shape == (4, 27) and [cache.length(seq) for seq in ids] == [20, 0, 7]


def test_what_arrays_may_be(rng):
    """torch tensors in and out, views, other types, results in place."""
    cache = qkv.KVCache(1, H, D, n_pages=4)
    cache.add()
    k, v = (torch.randn(1, 9, H, D).transpose(1, 2).to(torch.bfloat16) for _ in "kv")
    cache.append(0, k, v)
    q = torch.randn(1, 4, 3, D).to(torch.bfloat16)
    o, lse = cache.attend(0, q, return_lse=True)
    assert o.dtype == torch.bfloat16 and lse.dtype == torch.float32
    want = qkv.attention(q.float(), k.float(), v.float(), causal=True)
    close(o.float(), want, "bfloat16")
    out = torch.zeros(1, 3, 4, D).transpose(1, 2)
    assert cache.attend(0, q, out=out) is out
    close(out, want, "bfloat16")  # kernels for bf16 may round the weights
    x = q.float().numpy()
    for turned in (x[:, :, ::-1].copy()[:, :, ::-1], x.swapaxes(0, 1).copy().swapaxes(0, 1)):
        np.testing.assert_array_equal(cache.attend(0, turned), cache.attend(0, turned.copy()))
    half = q.float().numpy().astype(ml_dtypes.bfloat16)
    assert cache.attend(0, half).dtype == half.dtype


@pytest.mark.parametrize("form, group", [("f32", 0), ("bf16", 0), ("int8", 32), ("int8", None), ("e4m3", None), ("int4", 32), ("int8_channel", None)])
def test_latent_cache(rng, form, group):
    c, r = 64, 16
    cache = qkv.LatentCache(2, c, r, format=form, group=group, n_pages=12, max_seqs=2, page_tokens=16)
    a, b = cache.add(), cache.add()
    for layer in range(2):
        x = rng.standard_normal((2, 40, c + r), dtype=np.float32)
        if layer == 0:
            cache.append(layer, x, lens=[40, 23])
        else:
            cache.append(layer, x[:, :, :c], x[:, :, c:], lens=[40, 23])
        q = rng.standard_normal((2, 8, 2, c + r), dtype=np.float32)
        rows = [cache.read(layer, seq) for seq in (a, b)]
        error = abs(rows[0] - x[0])
        assert error.max() < {"f32": 1e-9, "bf16": 0.02, "int8": 0.03, "e4m3": 0.3, "int4": 0.3, "int8_channel": 0.02}[form]
        assert (error[:, c:] <= abs(x[0, :, c:]) * 2**-8).all()  # the rotary part stays wide
        wide = np.zeros((2, 1, 40, c + r), np.float32)
        for n, row in enumerate(rows):
            wide[n, 0, : len(row)] = row
        want = formula(q, wide, wide[..., :c], causal=True, kv_lens=[40, 23], scale=0.1)
        o, lse = cache.attend(layer, q, scale=0.1, return_lse=True)
        close(o, want["o"])
        close(lse, want["lse"])
    cache.commit()
    packed = rng.standard_normal((3, c + r), dtype=np.float32)
    cache.append(0, packed, cu_seqlens=[0, 1, 3])
    assert (cache.length(a), cache.length(b)) == (41, 25)
    with pytest.raises(TypeError, match="scale"):
        cache.attend(0, q)
    with pytest.raises(ValueError, match=re.escape("latent has shape (2, 1, 1, 80); (B, T, c + r)")):
        cache.append(1, np.zeros((2, 1, 1, c + r), np.float32))
    with pytest.raises(ValueError, match=re.escape("latent has shape (2, 1, 79); (B, T, D) is expected")):
        cache.append(1, np.zeros((2, 1, c + r - 1), np.float32))


def test_latent_channels(rng, tmp_path):
    """Pages of a latent cache close: scales by channel, and the rotary part stays as it was."""
    c, r, page = 48, 16, 16
    scale = np.ones(c + r, np.float32)
    scale[5] = 100  # a channel that would set the step of all others
    cache = qkv.LatentCache(1, c, r, format="int8_channel", n_pages=8, page_tokens=page)
    seq = cache.add()
    x = rng.standard_normal((1, 40, c + r), dtype=np.float32) * scale
    cache.append(0, x)
    before = cache.read(0, seq)
    cache.commit()
    assert cache.stats()["closed"] == 2
    rows = cache.read(0, seq)
    np.testing.assert_array_equal(rows[:, c:], before[:, c:])
    np.testing.assert_array_equal(rows[2 * page :], before[2 * page :])
    for at in (0, page):
        codes = slice(at, at + page), slice(0, c)
        step = abs(before[codes]).max(axis=0) / 127
        error = abs(rows[codes] - before[codes])
        assert (error <= 0.501 * step).all() and error.any()
    q = rng.standard_normal((1, 4, 1, c + r), dtype=np.float32)
    o, lse = cache.attend(0, q, scale=0.02, return_lse=True)
    wide = rows[None, None]
    want = formula(q, wide, wide[..., :c], causal=True, scale=0.02)
    np.testing.assert_allclose(o, want["o"], atol=2e-4)
    close(lse, want["lse"])
    cache.save(tmp_path / "latent.qkv")
    again = qkv.LatentCache.from_file(tmp_path / "latent.qkv")
    np.testing.assert_array_equal(again.attend(0, q, scale=0.02), o[:1])


# ---- sequences -------------------------------------------------------------------------------


def test_a_step_has_one_plan(rng):
    """Layers of a step share a view; a new token, another length, other options make another."""
    cache, ids = filled(rng, [30, 12], n_layers=3)
    q = queries(rng, 2)
    for step in range(2):
        append_one(rng, cache, 2)
        before = [kept[1] for kept in cache._views.values()]
        for layer in range(3):
            cache.attend(layer, q)
        (view,) = [kept[1] for kept in cache._views.values()]
        assert view not in before
        cache.commit()
    cache.attend(0, q, softcap=1.0)
    assert len(cache._views) == 2
    turned = np.zeros((4, 2, 1, D), np.float32).transpose(1, 0, 2, 3)  # lies otherwise: planned anew
    turned[...] = q
    np.testing.assert_array_equal(cache.attend(0, turned), cache.attend(0, q))
    for n in range(20):
        cache.attend(0, q, scale=float(n))
    assert len(cache._views) <= 8


def test_layers_in_any_order_and_what_is_not_written(rng):
    cache = qkv.KVCache(3, H, D, n_pages=4)
    seq = cache.add()
    k, v = rng.standard_normal((2, 1, H, 5, D), dtype=np.float32)
    cache.append(2, k, v)
    assert cache.length(seq) == 5
    sentence = "sequence 1 has 5 tokens, of which layer 0 has 0"
    for call in (lambda: cache.attend(0, queries(rng, 1)), lambda: cache.fork(seq), lambda: cache.save("x")):
        with pytest.raises(ValueError, match=sentence):
            call()
    with pytest.raises(ValueError, match="5 tokens of sequence 1 cannot be committed: layer 0 has 0"):
        cache.commit()
    with pytest.raises(ValueError, match="tokens 0 .. 0 are asked for; layer 0 of sequence 1 has 0"):
        cache.read(0, seq, 0, 1)
    cache.append(0, k[:, :, :2], v[:, :, :2])
    cache.append(1, k, v)
    cache.append(0, k[:, :, 2:], v[:, :, 2:])
    cache.commit()
    for layer in range(3):
        close(cache.read(layer, seq)[0], k[0], "bfloat16")


def test_fork_truncate_reorder(rng):
    cache, (a,) = filled(rng, [20], max_seqs=3)
    b = cache.fork(a)
    c = cache.fork(a)
    assert cache.stats()["used_pages"] == 2 and cache.info(a)["shared_pages"] == 2
    for seq, value in ((b, 1.0), (c, 2.0)):
        x = np.full((1, H, 1, D), value, np.float32)
        cache.append(0, x, x, seq)
    assert cache.stats()["used_pages"] == 4 and cache.stats()["copied"] == 2
    assert cache.read(0, b)[0][0, 20, 0] == 1 and cache.read(0, c)[0][0, 20, 0] == 2
    cache.reorder([1, 0, 1], [a, b, c])
    assert [cache.length(seq) for seq in (a, b, c)] == [21, 20, 21]
    assert cache.read(0, a)[0][0, 20, 0] == cache.read(0, c)[0][0, 20, 0] == 1
    cache.truncate(a, 3)
    cache.reset(b)
    assert [cache.length(seq) for seq in (a, b, c)] == [3, 0, 21]
    cache.release(c)
    assert cache.sequences == [a, b]
    with pytest.raises(ValueError, match=f"seq is {c}; it is no sequence of this cache"):
        cache.length(c)


def test_full_leaves_all_as_it_was(rng):
    cache, ids = filled(rng, [30, 30], n_pages=5)
    before = cache.stats()
    k, v = rng.standard_normal((2, 2, H, 20, D), dtype=np.float32)
    with pytest.raises(qkv.CacheFull, match="full: 4 pages needed, 1 free"):
        cache.append(0, k, v)
    with pytest.raises(MemoryError):
        cache.append(0, k, v)
    with pytest.raises(ValueError, match="k has shape"):
        cache.append(0, k[..., :5], v)
    with pytest.raises(TypeError, match="k has dtype int64"):
        cache.append(0, k.astype(int), v)
    with pytest.raises(ValueError, match="type is 1"):  # refused after pages were taken
        cache.append(0, k[:1, :, :2].astype(float), v[:1, :, :2].astype(float), ids[0])
    assert cache.stats() == before and cache.length(ids[0]) == 30
    cache.append(0, k[:, :, :2], v[:, :, :2])
    short = qkv.KVCache(1, H, D, n_pages=5, max_tokens=40, page_tokens=16)
    short.add()
    with pytest.raises(qkv.CacheFull, match="it would hold 41 tokens, max_tokens is 40"):
        short.append(0, *np.zeros((2, 1, H, 41, D), np.float32))


def test_no_sequence_sees_another(rng):
    """What a sequence left behind is not what the next one reads."""
    for poison in (False, True):
        cache, ids = filled(rng, [40, 40], n_pages=6, poison=poison, v_format="f32", k_format="f32")
        cache.release(ids[0])
        fresh = cache.add()
        x = np.ones((1, H, 1, D), np.float32)
        cache.append(0, x, x, fresh)
        np.testing.assert_allclose(cache.attend(0, queries(rng, 1), fresh), 1, rtol=1e-6)
        cache.reset(ids[1])
        cache.append(0, 2 * x, 2 * x, ids[1])
        np.testing.assert_allclose(cache.attend(0, queries(rng, 1), ids[1]), 2, rtol=1e-6)


def test_rolling_window_stays_small(rng):
    cache = qkv.KVCache(1, H, D, n_pages=6, page_tokens=16, window=40, sink_tokens=4, poison=True)
    seq = cache.add()
    for _ in range(300):
        append_one(rng, cache, 1)
        assert np.isfinite(cache.attend(0, queries(rng, 1))).all()
        cache.commit()
    info, stats = cache.info(seq), cache.stats()
    assert info["length"] == 300 and info["kept_from"] == 256 and info["pages"] <= 5
    assert stats["evicted"] > 10 and stats["used_pages"] == info["pages"]
    cache.evict(seq, 290)
    assert cache.info(seq)["kept_from"] == 290


def test_stats_and_config():
    cache = qkv.KVCache(3, 2, 64, 32, k_format="int8", v_format="bf16", n_pages=10, page_tokens=32, max_seqs=2)
    assert cache.config["n_layers"] == 3 and cache.config["k_format"] == "int8" and cache.config["window"] is None
    assert cache.config["max_tokens"] == 320 and not cache.config["latent"]
    stats = cache.stats()
    assert stats["token_bytes"] == 3 * 2 * (64 + 4 + 2 * 32)
    assert stats["page_bytes"] >= 32 * stats["token_bytes"] and stats["allocated"] >= 10 * stats["page_bytes"]
    assert stats["pages"] == 10 and stats["payload"] == stats["tokens"] == 0
    seq = cache.add()
    x = np.zeros((1, 2, 5, 64), np.float32)
    for layer in range(3):
        cache.append(layer, x, x[..., :32])
    assert cache.stats()["payload"] == 5 * stats["token_bytes"]
    assert cache.info(seq) == {"length": 5, "committed": 0, "kept_from": 0, "pages": 1, "shared_pages": 0}


# ---- threads ---------------------------------------------------------------------------------


def test_threads_with_sequences_of_their_own(rng):
    """Four threads append, attend, commit and roll back, and each gets what it gets alone."""

    def live(cache, seq, seed, results):
        own = np.random.default_rng(seed)
        for step in range(25):
            n = int(own.integers(1, 4))
            outputs = []
            for layer in range(2):
                k, v = own.standard_normal((2, 1, H, n, D), dtype=np.float32)
                cache.append(layer, k, v, seq)
                outputs.append(cache.attend(layer, own.standard_normal((1, 4, n, D), dtype=np.float32), seq))
            cache.commit(seq)
            if step % 5 == 4:
                cache.truncate(seq, cache.length(seq) - 3)
            results.append(np.concatenate(outputs).tobytes())

    def run(cache, together):
        results = [[] for _ in range(4)]
        ids = [cache.add() for _ in range(4)]
        threads = [threading.Thread(target=live, args=(cache, ids[i], i, results[i])) for i in range(4)]
        for thread in threads:
            thread.start()
            if not together:
                thread.join()
        for thread in threads:
            thread.join()
        return results

    caches = [qkv.KVCache(2, H, D, n_pages=40, page_tokens=16, max_seqs=4) for _ in range(2)]
    alone, together = run(caches[0], False), run(caches[1], True)
    assert all(len(one) == 25 for one in alone) and alone == together


def test_threads_that_attend_the_same(rng):
    cache, ids = filled(rng, [200, 100], n_layers=4)
    q = queries(rng, 2)
    want = [cache.attend(layer, q) for layer in range(4)]
    got, threads = {}, []

    def attend(layer):
        got[layer] = [cache.attend(layer, q) for _ in range(30)]

    for layer in range(4):
        threads.append(threading.Thread(target=attend, args=(layer,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    for layer in range(4):
        for one in got[layer]:
            np.testing.assert_array_equal(one, want[layer])


def test_nothing_leaks(rng):
    cache, ids = filled(rng, [30])
    k, v = rng.standard_normal((2, 1, H, 2, D), dtype=np.float32)
    q, mask = queries(rng, 1, 2), np.ones((2, 32), bool)
    counts = [sys.getrefcount(x) for x in (k, v, q, mask)]
    for _ in range(50):
        cache.append(0, k, v)
        cache.attend(0, q, mask=mask, return_lse=True)
        for call in (lambda: cache.append(0, k[..., :3], v), lambda: cache.attend(0, q, mask=mask[:1, :3])):
            with pytest.raises(ValueError):
                call()
        cache.truncate(ids[0], 30)
    gc.collect()
    assert [sys.getrefcount(x) for x in (k, v, q, mask)] == counts


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("options, kind, sentence", [
    ({"n_pages": None}, ValueError, "n_pages is None; a cache has as many pages as it is given"),
    ({"n_pages": 0}, ValueError, "n_pages is 0; it must be 1 .. 2147483647"),
    ({"page_tokens": 20}, ValueError, "page_tokens is 20; it must be a multiple of 16"),
    ({"page_tokens": 16.0}, TypeError, "page_tokens is 16.0; an integer is accepted"),
    ({"k_format": "int3"}, ValueError, "k_format is 'int3'; one of 'f32', 'f16', 'bf16', 'int8'"),
    ({"v_format": "int8_channel"}, ValueError, "v_format is int8_channel; that is for keys"),
    ({"k_group": 16}, ValueError, "k_group is 16; it must be 0, 32, 64 or 128"),
    ({"k_scale": "page"}, ValueError, "k_scale is 'page'; one of 'token', 'head'"),
    ({"k_scale": "head"}, ValueError, "only e4m3 and e5m2 have it"),
    ({"head_dim": 2000}, ValueError, "head_dim is 2000; it must be 1 .. 1024"),
    ({"window": -1}, ValueError, "window is -1"),
    ({"float_type": "f64"}, ValueError, "float_type is 'f64'"),
    ({"contiguous": True, "window": 5}, ValueError, "only pages can be evicted"),
    ({"n_pages": 2**31 - 1, "n_layers": 65536, "n_kv_heads": 65536, "head_dim": 1024}, ValueError, "more than 2^60 bytes"),
])  # fmt: skip
def test_config_refusals(options, kind, sentence):
    with pytest.raises(kind, match=re.escape(sentence)):
        qkv.KVCache(**{"n_layers": 1, "n_kv_heads": 1, "head_dim": 32, "n_pages": 2} | options)


Q2 = np.zeros((2, 4, 1, D), np.float32)
X2 = np.zeros((2, H, 3, D), np.float32)


@pytest.mark.parametrize("call, kind, sentence", [
    (lambda c: c.append(1, X2, X2), ValueError, "layer is 1; it must be 0 .. 0"),
    (lambda c: c.append(0, X2[:1], X2), ValueError, "k has rows for 1 sequences; 2 are appended to"),
    (lambda c: c.append(0, X2, X2[:, :, :2]), ValueError, "v has shape (2, 2, 2, 32); (B, H, T, D) is expected, with B = 2, H = 2, D = 32"),
    (lambda c: c.append(0, X2, X2[:, :1]), ValueError, "v has shape (2, 1, 3, 32)"),
    (lambda c: c.append(0, X2[0], X2), ValueError, "k has shape (2, 3, 32); (B, H, T, D) is expected"),
    (lambda c: c.append(0, X2, X2.astype(np.float16)), ValueError, "k is f32 and v f16; both must have one type"),
    (lambda c: c.append(0, X2, X2, lens=[3, 4]), ValueError, "lens holds [3, 4]; 0 to 3 is accepted"),
    (lambda c: c.append(0, X2, X2, lens=[3]), ValueError, "k has rows for 1 sequences; 2"),
    (lambda c: c.append(0, X2, X2, [1, 1]), ValueError, "no sequence may be there twice"),
    (lambda c: c.append(0, X2, X2, [1, 77]), ValueError, "seq is 77; it is no sequence of this cache"),
    (lambda c: c.append(0, X2[0], X2[0], cu_seqlens=[0, 1, 3]), ValueError, "cu_seqlens ends at 3; the tensor has 2 rows"),
    (lambda c: c.append(0, X2, X2, lens=[1, 1], cu_seqlens=[0, 1, 3]), ValueError, "k has shape (2, 2, 3, 32); (T, H, D)"),
    (lambda c: c.append(0, "abc", X2), TypeError, "k is a str"),
    (lambda c: c.attend(0, Q2[:1]), ValueError, "q has shape (1, 4, 1, 32); (B, H, T, D) is expected, with B = 2, D = 32"),
    (lambda c: c.attend(0, Q2[..., :8]), ValueError, "q has shape (2, 4, 1, 8)"),
    (lambda c: c.attend(0, Q2[:, :3]), ValueError, "n_kv_heads is 2; it must divide n_q_heads, which is 3"),
    (lambda c: c.attend(0, Q2.astype(float)), ValueError, "f64 goes only with f64"),
    (lambda c: c.attend(0, np.repeat(Q2, 60, 2)), ValueError, "q_lens[0] is 60; sequence 1 has 30 tokens"),
    (lambda c: c.attend(0, Q2, q_lens=[2, 0]), ValueError, "q_lens[0] is 2; it must be 0 .. 1"),
    (lambda c: c.attend(0, Q2, q_lens=[1]), ValueError, "q_lens has 1 values for 2 sequences"),
    (lambda c: c.attend(9, Q2), ValueError, "layer is 9; it must be 0 .. 0"),
    (lambda c: c.attend(0, Q2[:, :, 0], cu_seqlens_q=[0, 1, 3]), ValueError, "cu_seqlens_q ends at 3; the tensor has 2 rows"),
    (lambda c: c.attend(0, Q2, causal=False, window=3), ValueError, "window is given; it is not there without causal"),
    (lambda c: c.attend(0, Q2, causal=False, alibi_slopes=[1.0] * 4), ValueError, "alibi_slopes is given"),
    (lambda c: c.attend(0, Q2, mask=np.ones((1, 29), bool)), ValueError, "mask has shape (1, 29); it must broadcast to (B, Hq, Tq, Tk) = (2, 4, 1, 30)"),
    (lambda c: c.attend(0, Q2, tree_mask=np.ones((2, 2), bool)), ValueError, "tree_mask has shape (2, 2, 2); (2, 1, 1) is expected"),
    (lambda c: c.attend(0, Q2, tree_mask=np.ones((1, 1))), TypeError, "tree_mask has dtype float64; it must be bool"),
    (lambda c: c.attend(0, Q2, shared_prefix=True, bias=np.zeros(1, "f4")), ValueError, "bias is given; it is not there together with shared_prefix"),
    (lambda c: c.attend(0, np.repeat(Q2, 2, 2), shared_prefix=True), ValueError, "shared_prefix takes one query a sequence"),
    (lambda c: c.attend(0, Q2, threads=0), ValueError, "threads is 0"),
    (lambda c: c.attend(0, Q2, precision="exact"), ValueError, "precision is 'exact'"),
    (lambda c: c.commit([1], [31]), ValueError, "lengths[0] is 31; sequence 1 has 30 tokens"),
    (lambda c: c.commit([1], [1, 2]), ValueError, "lengths has 2 values for 1 sequences"),
    (lambda c: c.truncate(1, 31), ValueError, "length is 31; sequence 1 has 30 tokens"),
    (lambda c: c.evict(1, 31), ValueError, "before is 31; sequence 1 has 30 committed tokens"),
    (lambda c: c.reorder([0, 2]), ValueError, "parents[1] is 2; it must be 0 .. 1"),
    (lambda c: c.reorder([0]), ValueError, "parents has 1 values for 2 sequences"),
    (lambda c: c.fork(3), ValueError, "seq is 3; it is no sequence"),
    (lambda c: c.release([3]), ValueError, "seq is 3; it is no sequence"),
    (lambda c: c.read(0, 1, 5, 31), ValueError, "tokens 5 .. 30 are asked for; layer 0 of sequence 1 has 30"),
    (lambda c: c.set_scales(0, [1.0, 1.0]), ValueError, "k_scales is given; it needs k_scale QKV_SCALE_HEAD"),
    (lambda c: c.set_scales(0, [1.0]), ValueError, "k_scales has shape (1,)"),
])  # fmt: skip
def test_refusals(rng, call, kind, sentence):
    cache, ids = filled(rng, [30, 20])
    assert ids == [1, 2]
    before = cache.stats(), [cache.info(seq) for seq in ids]
    with pytest.raises(kind, match=re.escape(sentence)):
        call(cache)
    assert (cache.stats(), [cache.info(seq) for seq in ids]) == before


# ---- picked pages ----------------------------------------------------------------------------


@pytest.mark.parametrize("k_format", ["f32", "int8", "e4m3"])
def test_picked_pages(rng, k_format):
    """The newest page and those with the loudest keys; all pages are attention itself."""
    cache, ids = filled(rng, [90, 40], k_format=k_format, v_format="f32", key_bounds=True, commit=False)
    # Key head 0 of sequence 0 matters in page 2, head 1 in page 4; of sequence 1 in pages 0 and 1.
    loud = {(0, 0): 2, (0, 1): 4, (1, 0): 0, (1, 1): 1}
    cache.reset()
    for b, n in enumerate((90, 40)):
        k, v = rng.standard_normal((2, 1, H, n, D), dtype=np.float32)
        for h in range(H):
            at = 16 * loud[b, h]
            k[0, h, at : at + 16] *= 5
        cache.append(0, k, v, ids[b])
    q = queries(rng, 2)
    k, v, lens = rows(cache, ids)
    keep = np.zeros((2, 4, 1, 90), bool)
    for b in range(2):
        for h in range(4):
            for page in (loud[b, h // 2], (lens[b] - 1) // 16):
                keep[b, h, 0, 16 * page : 16 * page + 16] = True
    want = formula(q, k, v, mask=keep, kv_lens=lens)
    o, lse = cache.attend(0, q, pages=2, return_lse=True)
    close(o, want["o"])
    close(lse, want["lse"])
    for many in (6, 1000):
        close(cache.attend(0, q, pages=many), formula(q, k, v, kv_lens=lens)["o"])
    half = q.astype(np.float16)
    close(cache.attend(0, half, pages=2), want["o"], "float16")
    for options in ({"causal": False}, {"shared_prefix": True}, {"window": 3}, {"mask": np.ones((1, 1), bool)}):
        with pytest.raises(ValueError, match="is given; it is not there together with pages|without causal"):
            cache.attend(0, q, pages=2, **options)
    with pytest.raises(ValueError, match="pages are picked for one query a sequence"):
        cache.attend(0, queries(rng, 2, 2), pages=2)
    with pytest.raises(ValueError, match="pages is 0"):
        cache.attend(0, q, pages=0)
    plain, _ = filled(rng, [20])
    with pytest.raises(ValueError, match="made without QKV_CACHE_KEY_BOUNDS"):
        plain.attend(0, q[:1], pages=2)
