"""append(..., rope=): the bits of turning first and appending then."""

import re

import ml_dtypes
import numpy as np
import pytest
import torch

import qkv

H, D, R = 2, 32, 16

ROPES = {
    "half-split": qkv.Rope(D),
    "interleaved": qkv.Rope(D, interleaved=True, type="linear", factor=4),
    "partial": qkv.Rope(D, rotary_dim=12, precision="f32"),
    "offset": qkv.Rope(D, rotary_offset=8, rotary_dim=20, type="llama3", factor=8, original_max_positions=64),
    "proportional": qkv.Rope(D, type="proportional", rotary_dim=10),
    "yarn": qkv.Rope(D, type="yarn", factor=4, original_max_positions=32),
    "dynamic": qkv.Rope(D, type="dynamic", factor=2, max_positions=16),
    "longrope": qkv.Rope(
        D, type="longrope", factor=2, original_max_positions=16,
        short_factor=[1 + 0.1 * i for i in range(D // 2)], long_factor=[2 + 0.3 * i for i in range(D // 2)]),
    "none": qkv.Rope(D, type="none"),
}  # fmt: skip
TYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


def pair(n_seqs=2, **config):
    """Two caches of the same kind, with as many sequences."""
    config = {"n_pages": 40, "max_seqs": n_seqs, "page_tokens": 16} | config
    both = [qkv.KVCache(1, H, D, **config) for _ in range(2)]
    for cache in both:
        for _ in range(n_seqs):
            cache.add()
    return both


def same(a, b):
    """All tokens of all sequences, bit for bit."""
    assert a.sequences == b.sequences
    for seq in a.sequences:
        assert a.length(seq) == b.length(seq)
        for x, y in zip(a.read(0, seq), b.read(0, seq)):
            np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


def some(rng, dtype, *shape):
    return rng.standard_normal((2, *shape), dtype=np.float32).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", ROPES)
def test_bits_of_turning_first(rng, name, dtype):
    """A prompt with other lengths, then single tokens: without positions they are the cache's."""
    rope = ROPES[name]
    fused, apart = pair(k_format="f32", v_format="f32")
    lens, T = [20, 7], 20
    k, v = some(rng, dtype, 2, H, T, D)
    kept = k.copy()
    fused.append(0, k, v, lens=lens, rope=rope)
    assert (k == kept).all()
    # Each by itself: what lies behind its tokens must not lengthen a sequence.
    for b, seq in enumerate(apart.sequences):
        rows = slice(b, b + 1), slice(None), slice(lens[b])
        apart.append(0, rope.apply(k[rows], range(lens[b])), v[rows], seq)
    same(fused, apart)
    for step in range(3):
        k, v = some(rng, dtype, 2, H, 1, D)
        where = [[fused.length(seq)] for seq in fused.sequences]
        fused.append(0, k, v, rope=rope)
        apart.append(0, rope.apply(k, where), v)
    same(fused, apart)
    if name != "none":
        plain, _ = pair(k_format="f32", v_format="f32")
        plain.append(0, k, v)
        seq = fused.sequences[0]
        assert (plain.read(0, plain.sequences[0])[0][:, 0] != fused.read(0, seq)[0][:, -1]).any()


@pytest.mark.parametrize("k_format", ["f16", "bf16", "int8", "int8_channel", "int4", "e4m3"])
def test_formats(rng, k_format):
    """Scales are found from the turned keys, in pages that close too."""
    rope = ROPES["yarn"]
    fused, apart = pair(k_format=k_format, v_format="bf16")
    for T in (40, 1, 9):
        k, v = some(rng, np.float32, 2, H, T, D)
        where = fused.length(fused.sequences[0]) + np.arange(T)
        fused.append(0, k, v, rope=rope)
        apart.append(0, rope.apply(k, where), v)
        fused.commit(), apart.commit()
    same(fused, apart)


@pytest.mark.parametrize("name", ["half-split", "dynamic"])
def test_positions_and_tables(rng, name):
    """Positions of one's own, of any kind and stride; tables of them, of any dtype."""
    rope = ROPES[name]
    k, v = some(rng, np.float32, 2, H, 6, D)
    where = rng.integers(-50, 900, (2, 12))[:, ::2]
    for positions in (where, where[:1], where[0], where.astype(np.int32), torch.tensor(where.copy())):
        fused, apart = pair(k_format="f32", v_format="f32")
        fused.append(0, k, v, rope=rope, positions=positions)
        apart.append(0, rope.apply(k, positions if np.ndim(positions) == 1 or len(positions) > 1 else positions[0]), v)
        same(fused, apart)
        fused, apart = pair(k_format="f32", v_format="f32")
        fused.append(0, k[:, :, :1], v[:, :, :1], rope=rope, positions=positions[..., :1])
        apart.append(0, rope.apply(k[:, :, :1], np.broadcast_to(positions, (2, 6))[:, :1]), v[:, :, :1])
        same(fused, apart)
    for dtype in ("float64", "float32", "bfloat16"):
        cos, sin = rope.table(where, dtype=dtype)
        fused, apart = pair(k_format="f32", v_format="f32")
        fused.append(0, k, v, rope=rope, table=(cos, sin))
        apart.append(0, qkv.rotary_embedding(k, cos, sin), v)
        same(fused, apart)
    cos, sin = rope.table(where[0])
    fused, apart = pair(k_format="f32", v_format="f32")
    fused.append(0, k, v, rope=rope, table=(cos, sin))
    apart.append(0, qkv.rotary_embedding(k, cos, sin, range(6)), v)
    same(fused, apart)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_given_length(rng, name):
    rope = ROPES[name]
    k, v = some(rng, np.float32, 2, H, 5, D)
    for T in (5, 1):
        fused, apart = pair(k_format="f32", v_format="f32")
        fused.append(0, k[:, :, :T], v[:, :, :T], rope=rope, seq_len=300)
        apart.append(0, rope.apply(k[:, :, :T], range(T), seq_len=300), v[:, :, :T])
        same(fused, apart)
        other, _ = pair(k_format="f32", v_format="f32")
        other.append(0, k[:, :, :T], v[:, :, :T], rope=rope, seq_len=301)
        if name == "dynamic" and T > 1:
            assert (other.read(0, 1)[0] != fused.read(0, 1)[0]).any()


@pytest.mark.parametrize("name", ["interleaved", "dynamic"])
def test_packed(rng, name):
    rope = ROPES[name]
    fused, apart = pair(3, k_format="f32", v_format="f32")
    for lens in ([5, 0, 19], [1, 2, 0], [1, 1, 1], [0, 0, 0]):
        cu = np.concatenate([[0], np.cumsum(lens)])
        k, v = some(rng, np.float32, cu[-1], H, D)
        begins = [fused.length(seq) for seq in fused.sequences]
        fused.append(0, k, v, cu_seqlens=cu, rope=rope)
        for seq, first, end, begin in zip(apart.sequences, cu, cu[1:], begins):
            rows = rope.apply(k[first:end], begin + np.arange(end - first))
            apart.append(0, rows, v[first:end], seq, cu_seqlens=[0, end - first])
    same(fused, apart)
    where = np.array([9, 8, 7, 40, 41])
    k, v = some(rng, np.float32, 5, H, D)
    fused.append(0, k, v, cu_seqlens=[0, 3, 3, 5], rope=rope, positions=where)
    apart.append(0, rope.apply(k[:3], where[:3]), v[:3], 1, cu_seqlens=[0, 3])
    apart.append(0, rope.apply(k[3:], where[3:]), v[3:], 3, cu_seqlens=[0, 2])
    same(fused, apart)
    table = rope.table(where, seq_len=50)
    fused.append(0, k, v, cu_seqlens=[0, 3, 3, 5], rope=rope, table=table)
    turned = rope.apply(k, where, seq_len=50)
    apart.append(0, turned, v, cu_seqlens=[0, 3, 3, 5])
    same(fused, apart)


def test_torch_and_strides(rng):
    rope = ROPES["half-split"]
    k, v = torch.randn(2, 2, 9, H, D, dtype=torch.bfloat16).transpose(2, 3)
    fused, apart = pair()
    fused.append(0, k, v, rope=rope)
    apart.append(0, rope.apply(k, range(9)), v)
    same(fused, apart)


def test_not_finite(rng):
    """A NaN turns into NaN pairs, an infinity into infinities or NaN; neighbours stay what they are."""
    rope = ROPES["half-split"]
    k, v = some(rng, np.float32, 1, H, 4, D)
    k[0, 0, 1, 3], k[0, 1, 2, 5] = np.nan, np.inf
    fused, apart = pair(1)
    fused.append(0, k, v, rope=rope)
    apart.append(0, rope.apply(k, range(4)), v)
    got, want = fused.read(0, 1)[0], apart.read(0, 1)[0]
    np.testing.assert_array_equal(got, want)
    assert np.isnan(got[0, 1]).sum() == 2


@pytest.mark.parametrize("form", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("apart", [False, True])
def test_latent_rows(rng, form, apart):
    """Only the rotary channels turn, also where they come by themselves."""
    c = 48
    rope = qkv.Rope(c + R, rotary_offset=c, interleaved=True)
    one, two = (qkv.LatentCache(1, c, R, format=form, n_pages=9, max_seqs=2) for _ in range(2))
    for cache in (one, two):
        cache.add(), cache.add()
    for T in (10, 1):
        x = rng.standard_normal((2, T, c + R), dtype=np.float32)
        where = one.length(1) + np.arange(T)
        turned = rope.apply(x[:, None], where)[:, 0]
        if apart:
            one.append(0, x[..., :c], x[..., c:], rotate=rope)
        else:
            one.append(0, x, rotate=rope)
        two.append(0, turned)
    for seq in (1, 2):
        np.testing.assert_array_equal(one.read(0, seq), two.read(0, seq))
    x = rng.standard_normal((5, c + R), dtype=np.float32)
    one.append(0, x, cu_seqlens=[0, 2, 5], rotate=rope, positions=[3, 1, 4, 1, 5])
    two.append(0, rope.apply(x[:, None], [3, 1, 4, 1, 5])[:, 0], cu_seqlens=[0, 2, 5])
    np.testing.assert_array_equal(one.read(0, 2), two.read(0, 2))


K = np.zeros((2, H, 3, D), np.float32)
ROPE = qkv.Rope(D)
TABLE = ROPE.table(range(3))


@pytest.mark.parametrize("words, kind, sentence", [
    ({"rope": "default"}, TypeError, "rope is a str; a Rope is expected"),
    ({"rope": qkv.Rope(16)}, ValueError, "rope.head_dim is 16; it must be that of the cache, 32"),
    ({"positions": [0, 1, 2]}, ValueError, "positions is given without rope"),
    ({"table": TABLE}, ValueError, "table is given without rope"),
    ({"seq_len": 3}, ValueError, "seq_len is given without rope"),
    ({"rope": ROPE, "positions": [0, 1, 2], "table": TABLE}, ValueError, "positions is given together with table"),
    ({"rope": ROPE, "positions": [0, 1]}, ValueError, "positions has shape (2,); (3,) or (2, 3) is expected"),
    ({"rope": ROPE, "positions": [[0, 1, 2]] * 3}, ValueError, "positions has shape (3, 3); (3,) or (2, 3)"),
    ({"rope": ROPE, "positions": [0.0, 1.0, 2.0]}, TypeError, "positions has dtype float64; integers"),
    ({"rope": ROPE, "positions": [0, 1, 2**54]}, ValueError, "18014398509481984"),
    ({"rope": ROPE, "seq_len": -1}, ValueError, "seq_len is -1"),
    ({"rope": ROPE, "table": TABLE[0]}, TypeError, "table must be (cos, sin)"),
    ({"rope": ROPE, "table": (TABLE[0][:2], TABLE[1])}, ValueError, "cos has shape (2, 16)"),
    ({"rope": ROPE, "table": (TABLE[0], TABLE[1][:, :8])}, ValueError, "sin has shape (3, 8)"),
    ({"rope": ROPE, "table": (TABLE[0], TABLE[1].astype(np.float64))}, ValueError, "one dtype, shape and strides"),
    ({"rope": ROPE, "table": (None, None)}, TypeError, "table must be (cos, sin)"),
])  # fmt: skip
def test_refusals_leave_all_as_it_was(rng, words, kind, sentence):
    cache, _ = pair()
    k, v = some(rng, np.float32, 2, H, 4, D)
    cache.append(0, k, v)
    before = cache.stats(), [cache.info(seq) for seq in cache.sequences], cache.read(0, 1)[0].tobytes()
    with pytest.raises(kind, match=re.escape(sentence)):
        cache.append(0, K, K, **words)
    assert before == (cache.stats(), [cache.info(seq) for seq in cache.sequences], cache.read(0, 1)[0].tobytes())


def test_latent_refusals():
    cache = qkv.LatentCache(1, 48, R, n_pages=2)
    cache.add()
    x = np.zeros((1, 2, 48 + R), np.float32)
    for rope, sentence in (
        (qkv.Rope(48 + R), "rope.rotary_offset is 0; in a latent cache channels from head_dim_v on may turn, 48"),
        (qkv.Rope(R), "rope.head_dim is 16; it must be that of the cache, 64"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            cache.append(0, x, rotate=rope)
    with pytest.raises(ValueError, match="positions is given without rotate"):
        cache.append(0, x, positions=[0, 1])
    assert cache.length(1) == 0
