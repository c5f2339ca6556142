"""qkv.Rope and qkv.rotary_embedding: arrays, configurations, gradients, refusals."""

import ml_dtypes
import numpy as np
import pytest
import torch

import qkv

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def rotated(rope, x, positions, seq_len=0, inverse=False):
    """The formula in float64; x (B, H, T, D), positions (B, T)."""
    f, a = rope.frequencies(seq_len)
    angle = np.asarray(positions, np.float64)[:, None, :, None] * f * (-1 if inverse else 1)
    c, s, y = a * np.cos(angle), a * np.sin(angle), np.array(x, np.float64)
    first = rope.rotary_offset + np.arange(len(f)) * (2 if rope.interleaved else 1)
    apart = len(f)
    if rope.type == "proportional":
        apart = (rope.head_dim - rope.rotary_offset) // 2
    second = first + (1 if rope.interleaved else apart)
    x1, x2 = np.array(y[..., first]), np.array(y[..., second])
    y[..., first], y[..., second] = c * x1 - s * x2, s * x1 + c * x2
    return y


ROPES = {
    "plain": qkv.Rope(32),
    "interleaved": qkv.Rope(32, interleaved=True),
    "partial": qkv.Rope(48, rotary_dim=20, type="linear", factor=2),
    "offset": qkv.Rope(48, rotary_offset=16, interleaved=True, type="yarn", factor=4, original_max_positions=100),
    "proportional": qkv.Rope(32, type="proportional", rotary_dim=8),
    "scaled": qkv.Rope(32, attention_factor=1.5),
    "ntk": qkv.Rope(32, type="ntk", factor=3),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("name", ROPES)
def test_formula(rng, name, dtype):
    rope = ROPES[name]
    x = rng.standard_normal((2, 3, 7, rope.head_dim)).astype(dtype)
    positions = rng.integers(-5, 900, (2, 7))
    for inverse in (False, True):
        got = rope.apply(x, positions, inverse=inverse)
        want = rotated(rope, x, positions, inverse=inverse)
        assert got.dtype == x.dtype and got.shape == x.shape
        tolerance = {8: 1e-12, 4: 1e-6, 2: 2e-3 if dtype == np.float16 else 2e-2}[x.itemsize]
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=tolerance, atol=tolerance)
        if x.itemsize == 2:  # rounded once from float32
            wide = rope.apply(x.astype(np.float32), positions, inverse=inverse)
            np.testing.assert_array_equal(got, wide.astype(dtype))
    still = np.ones(rope.head_dim, bool)
    still[np.flatnonzero((rotated(rope, np.ones((1, 1, 1, rope.head_dim)), [[0.7]]) != 1)[0, 0, 0])] = False
    np.testing.assert_array_equal(rope.apply(x, positions)[..., still], x[..., still])


# ---- arrays ----------------------------------------------------------------------------------


def test_positions_are_what_they_say(rng):
    """Left padding, gaps, several sequences: each token as if it were alone."""
    rope = qkv.Rope(16, type="llama3", factor=8, original_max_positions=64)
    x = rng.standard_normal((3, 2, 5, 16), dtype=np.float32)
    positions = np.array([[0, 0, 0, 1, 2], [7, 8, 9, 500, 501], [3, 3, 3, 3, 3]])
    got = rope.apply(x, positions)
    for b in range(3):
        for t in range(5):
            alone = rope.apply(x[b : b + 1, :, t : t + 1], [positions[b, t]])
            np.testing.assert_array_equal(got[b, :, t], alone[0, :, 0])


def test_positions_of_any_kind(rng):
    rope, x = qkv.Rope(8), rng.standard_normal((2, 1, 4, 8), dtype=np.float32)
    want = rope.apply(x, np.arange(4))
    kinds = (range(4), [0, 1, 2, 3], np.arange(4, dtype=np.uint8), torch.arange(4), np.arange(8)[::2] // 2,
             [[0, 1, 2, 3]] * 2, np.arange(4, dtype=np.int32)[None], np.asfortranarray([[0, 1, 2, 3]] * 2))  # fmt: skip
    for positions in kinds:
        np.testing.assert_array_equal(rope.apply(x, positions), want)


def test_in_place_and_out(rng):
    rope = qkv.Rope(16, rotary_dim=8)
    x = rng.standard_normal((2, 3, 4, 16), dtype=np.float32)
    want = rope.apply(x, range(4))
    out = np.full((2, 4, 3, 16), 7, np.float32).transpose(0, 2, 1, 3)
    assert rope.apply(x, range(4), out=out) is out
    np.testing.assert_array_equal(out, want)
    half = np.empty(x.shape, np.float16)
    np.testing.assert_array_equal(rope.apply(x, range(4), out=half), want.astype(np.float16))
    whole = rng.standard_normal((2, 4, 3, 3, 16), dtype=np.float32)  # q, k, v side by side
    q, kept = whole[:, :, 0].transpose(0, 2, 1, 3), whole.copy()
    assert rope.apply(q, range(4), out=q) is q
    np.testing.assert_array_equal(q, rope.apply(kept[:, :, 0].transpose(0, 2, 1, 3), range(4)))
    np.testing.assert_array_equal(whole[:, :, 1:], kept[:, :, 1:])
    k = whole[:, :, 1].transpose(0, 2, 1, 3)
    rope.apply(q, range(4), out=k)  # another slot of the same memory
    with pytest.raises(ValueError, match="y overlaps x"):
        rope.apply(q[:, :, :3], range(3), out=q[:, :, 1:])
    with pytest.raises(ValueError, match=r"out has shape \(2, 3, 3, 16\); it must be that of x"):
        rope.apply(q, range(4), out=q[:, :, 1:])
    frozen = x.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        rope.apply(frozen, range(4), out=frozen)


def test_layouts(rng):
    """Packed, several heads in one axis, and channels that lie backwards."""
    rope = qkv.Rope(16)
    x = rng.standard_normal((2, 3, 5, 16), dtype=np.float32)
    want = rope.apply(x, range(5))
    packed = x.transpose(0, 2, 1, 3).reshape(10, 3, 16)
    got = rope.apply(packed, [*range(5)] * 2)
    np.testing.assert_array_equal(got.reshape(2, 5, 3, 16).transpose(0, 2, 1, 3), want)
    joined = x.transpose(0, 2, 1, 3).reshape(2, 5, 48)
    cos, sin = rope.table(range(5))
    got = qkv.rotary_embedding(joined, cos, sin, range(5), num_heads=3)
    assert got.shape == (2, 5, 48)
    np.testing.assert_array_equal(got.reshape(2, 5, 3, 16).transpose(0, 2, 1, 3), want)
    one = qkv.Rope(2, theta=3)
    cos, sin = one.table(range(5))
    got = qkv.rotary_embedding(x[..., :2], cos[::-1], sin[::-1], [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(got, one.apply(x[..., :2], range(5)))
    backwards = x[..., ::-1].copy()[..., ::-1]
    np.testing.assert_array_equal(rope.apply(backwards, range(5)), want)
    np.testing.assert_array_equal(rope.apply(np.broadcast_to(x[:1], x.shape), range(5))[1], want[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_torch(dtype):
    rope, x = qkv.Rope(16), torch.randn(2, 3, 5, 16, dtype=dtype)
    got = rope.apply(x, torch.arange(5))
    assert isinstance(got, torch.Tensor) and got.dtype == dtype
    cos, sin = rope.table(torch.arange(5))
    assert isinstance(cos, torch.Tensor) and cos.shape == (5, 8)
    same = x.clone()
    assert rope.apply(same, torch.arange(5), out=same) is same
    assert torch.equal(same, got)
    if dtype != torch.float64:
        assert torch.equal(qkv.rotary_embedding(x, cos, sin, torch.arange(5)), got)


def test_nothing_at_all():
    rope = qkv.Rope(16, type="dynamic", factor=2, max_positions=10)
    for shape in ((0, 3, 5, 16), (2, 0, 5, 16), (2, 3, 0, 16)):
        assert rope.apply(np.zeros(shape, np.float32), np.zeros((shape[0], shape[2]), int)).shape == shape
    assert rope.apply(np.zeros((1, 1, 0, 16), np.float32), []).shape == (1, 1, 0, 16)
    assert rope.table([])[0].shape == (0, 8)


def test_threads_change_no_bit(rng):
    x = rng.standard_normal((2, 8, 700, 64), dtype=np.float32)
    positions = rng.integers(0, 5000, (2, 700))
    for rope in (qkv.Rope(64), qkv.Rope(64, type="dynamic", factor=2, max_positions=1000)):
        one = rope.apply(x, positions, threads=1)
        np.testing.assert_array_equal(rope.apply(x, positions, threads=3), one)
        np.testing.assert_array_equal(rope.apply(x, positions), one)


def test_neighbours_do_not_matter(rng):
    """dynamic goes by a sequence's own length unless told otherwise."""
    rope = qkv.Rope(16, type="dynamic", factor=4, max_positions=100)
    x = rng.standard_normal((2, 1, 2, 16), dtype=np.float32)
    got = rope.apply(x, [[98, 99], [900, 901]])
    np.testing.assert_array_equal(got[:1], rope.apply(x[:1], [[98, 99]]))
    np.testing.assert_array_equal(got[1:], rope.apply(x[1:], [[900, 901]]))
    both = rope.apply(x, [[98, 99], [900, 901]], seq_len=902)
    assert (both[0] != got[0]).any() and (both[1] == got[1]).all()


# ---- mathematics -----------------------------------------------------------------------------


def test_pairings_are_one_up_to_order(rng):
    x = rng.standard_normal((1, 2, 9, 32), dtype=np.float32)
    order = np.arange(32).reshape(2, 16).T.ravel()  # interleaved channel 2i is half-split channel i
    half = qkv.Rope(32).apply(x, range(9))
    np.testing.assert_array_equal(qkv.Rope(32, interleaved=True).apply(x[..., order], range(9)), half[..., order])


@pytest.mark.parametrize("name", ROPES)
def test_scores_depend_on_distances(rng, name):
    rope = ROPES[name]
    q, k = rng.standard_normal((2, 1, 1, 1, rope.head_dim))
    scores = [float(np.sum(rope.apply(q, [p + 5]) * rope.apply(k, [p]))) for p in (0, 1, 77, 4000)]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ROPES)
def test_gradient(rng, name):
    """Against torch's autograd through the formula, and against finite differences."""
    rope = ROPES[name]
    x, dy = rng.standard_normal((2, 2, 3, 5, rope.head_dim))
    positions = rng.integers(0, 300, (2, 5))
    dx = rope.apply(dy, positions, inverse=True)
    f, a = rope.frequencies()
    angle = torch.tensor(positions)[:, None, :, None] * torch.tensor(f)
    t = torch.tensor(x, requires_grad=True)
    y = t.clone()
    basis = rotated(rope, np.eye(rope.head_dim)[None, None], np.full((1, rope.head_dim), 1))[0, 0] != 0
    first = [i for i in range(rope.head_dim) if basis[i, i + 1 :].any()]
    second = [int(np.flatnonzero(basis[i, i + 1 :])[0]) + i + 1 for i in first]
    assert len(first) == len(f)
    y[..., first] = a * (angle.cos() * t[..., first] - angle.sin() * t[..., second])
    y[..., second] = a * (angle.sin() * t[..., first] + angle.cos() * t[..., second])
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(dx, t.grad.numpy(), rtol=1e-12, atol=1e-12)
    step = rng.standard_normal(x.shape) * 1e-4
    slope = np.sum(dy * (rope.apply(x + step, positions) - rope.apply(x - step, positions))) / 2
    np.testing.assert_allclose(np.sum(dx * step), slope, rtol=1e-9, atol=1e-12)


def test_float32_is_off_far_out():
    """At position 100,000 the float32 product is wrong by up to 8e-3, and the exact mode is not."""
    where = np.arange(99_900, 100_000)
    exact, f32 = qkv.Rope(128), qkv.Rope(128, precision="f32")
    f, _ = exact.frequencies()
    want = np.cos(where[:, None] * f)
    cos, _ = exact.table(where)
    assert np.abs(cos - want).max() <= 2.0**-24
    off = np.abs(f32.table(where)[0] - want).max()
    assert 3e-3 < off < 8e-3
    near = np.abs(f32.table(range(100))[0] - np.cos(np.arange(100)[:, None] * f)).max()
    assert near < 1e-5


def test_far_positions_are_reduced_exactly():
    (cos,), (sin,) = qkv.Rope(2).table([2**53], dtype="float64")
    assert (cos[0], sin[0]) == (np.cos(2.0**53), np.sin(2.0**53))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tables(dtype):
    rope = qkv.Rope(16, attention_factor=1.25)
    cos, sin = rope.table([[0, 5], [-3, 70000]], dtype=dtype)
    f, a = rope.frequencies()
    angle = np.array([[0, 5], [-3, 70000]])[..., None] * f
    assert cos.shape == sin.shape == (2, 2, 8) and cos.dtype.name == dtype
    for got, want in ((cos, a * np.cos(angle)), (sin, a * np.sin(angle))):
        rounded = want.astype(BFLOAT16 if dtype == "bfloat16" else dtype)
        np.testing.assert_array_equal(got, rounded)


# ---- configurations --------------------------------------------------------------------------

BASE = {"hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 2048}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}


def same(a, b):
    """Both turn the same channels by the same angles."""
    assert (a.head_dim, a.rotary_dim, a.rotary_offset, a.interleaved) == (
        b.head_dim, b.rotary_dim, b.rotary_offset, b.interleaved)  # fmt: skip
    for seq_len in (0, 600, 5000):
        np.testing.assert_array_equal(a.frequencies(seq_len)[0], b.frequencies(seq_len)[0])
        assert a.frequencies(seq_len)[1] == b.frequencies(seq_len)[1]


FORMS = {
    "nothing": ({}, qkv.Rope(64)),
    "v4": ({"rope_theta": 5e5, "rope_scaling": None}, qkv.Rope(64, theta=5e5)),
    "v4 legacy": ({"rope_scaling": {"type": "linear", "factor": 2.0}}, qkv.Rope(64, type="linear", factor=2)),
    "v4 rope_type": (
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        qkv.Rope(64, type="llama3", theta=5e5, factor=8, original_max_positions=512)),
    "v4 both words": (
        {"rope_scaling": {"rope_type": "dynamic", "type": "dynamic", "factor": 3}},
        qkv.Rope(64, type="dynamic", factor=3, max_positions=2048)),
    "v5": (
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
        qkv.Rope(64, type="llama3", theta=5e5, factor=8, original_max_positions=512)),
    "v5 partial": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        qkv.Rope(64, rotary_dim=32)),
    "v4 partial": ({"partial_rotary_factor": 0.25}, qkv.Rope(64, rotary_dim=16)),
    "v5 proportional": (
        {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}},
        qkv.Rope(64, type="proportional", theta=1e6, rotary_dim=16)),
    "head_dim": ({"head_dim": 128}, qkv.Rope(128)),
    "gpt-neox": ({"rotary_pct": 0.25, "rotary_emb_base": 500}, qkv.Rope(64, rotary_dim=16, theta=500)),
    "gptj": (
        {"model_type": "gptj", "n_embd": 512, "n_head": 8, "rotary_dim": 32},
        qkv.Rope(64, rotary_dim=32, interleaved=True)),
    "mla": (
        {"qk_rope_head_dim": 32, "rope_interleave": True, "model_type": "deepseek_v3",
         "rope_scaling": {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32,
                          "beta_slow": 1, "original_max_position_embeddings": 512}},
        qkv.Rope(32, interleaved=True, type="yarn", factor=40, mscale=1, mscale_all_dim=1,
                 original_max_positions=512)),
    "phi3": (
        {"rope_scaling": {"type": "su", "short_factor": [1.0] * 32, "long_factor": [2.0] * 32},
         "original_max_position_embeddings": 512},
        qkv.Rope(64, type="longrope", short_factor=[1.0] * 32, long_factor=[2.0] * 32, max_positions=2048,
                 original_max_positions=512)),
    "mrope": ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 8, 8]}}, qkv.Rope(64)),
    "yarn, null factor": (
        {"rope_parameters": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 512}},
        qkv.Rope(64, type="yarn", factor=4, original_max_positions=512)),
    "nested text": ({"text_config": {**BASE, "rope_theta": 7.0}, "hidden_size": None}, qkv.Rope(64, theta=7)),
    "nothing turns": ({"partial_rotary_factor": 0.0}, qkv.Rope(64, type="none")),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_from_config(name):
    fields, want = FORMS[name]
    same(qkv.Rope.from_config({**BASE, **fields}), want)


def test_from_config_by_layer_type():
    kinds = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "other": None,
    }
    config = {**BASE, "rope_parameters": kinds}
    same(qkv.Rope.from_config(config, "full_attention"), qkv.Rope(64, type="linear", factor=8, theta=1e6))
    same(qkv.Rope.from_config(config, "sliding_attention"), qkv.Rope(64))
    assert qkv.Rope.from_config(config, "other").type == "none"
    for wrong in (None, "global"):
        with pytest.raises(ValueError, match=r"layer_type is .*'full_attention', 'sliding_attention', 'other'"):
            qkv.Rope.from_config(config, wrong)
    gemma3 = {**BASE, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
              "rope_scaling": {"rope_type": "linear", "factor": 8.0}}  # fmt: skip
    same(qkv.Rope.from_config(gemma3, "full_attention"), qkv.Rope(64, type="linear", factor=8, theta=1e6))
    same(qkv.Rope.from_config(gemma3, "sliding_attention"), qkv.Rope(64))


def test_from_config_with_words_of_ones_own():
    rope = qkv.Rope.from_config(BASE, interleaved=True, precision="f32", head_dim=192, rotary_offset=128)
    same(rope, qkv.Rope(192, interleaved=True, precision="f32", rotary_offset=128))


def test_what_from_config_refuses():
    for fields, sentence in (
        ({"rope_scaling": {"type": "magic"}}, "type is 'magic'; one of 'none', 'default'"),
        ({"rope_scaling": {"type": "linear"}}, "factor is not given; rope type linear needs it"),
        ({"rope_scaling": {"type": "linear", "factor": 2, "long_mscale": 1.2}}, "have long_mscale; not known"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}, "n_factors is 1"),
        ({"hidden_size": None, "num_attention_heads": None}, "no head_dim"),
        ({"partial_rotary_factor": 0.4}, "rotary_dim is 25; it must be an even number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            qkv.Rope.from_config({**BASE, **fields})
    with pytest.raises(TypeError, match="rope parameters are 3; a dict is accepted"):
        qkv.Rope.from_config({**BASE, "rope_scaling": 3})


# ---- refusals --------------------------------------------------------------------------------


def test_what_rope_refuses():
    for words, sentence in (
        ({"head_dim": 0}, "head_dim is 0; 1 to 1024"),
        ({"head_dim": 7}, "leaves 7 channels"),
        ({"rotary_dim": 18}, "rotary_dim is 18"),
        ({"rotary_dim": 0}, "rotary_dim is 0"),
        ({"rotary_offset": 16}, "rotary_offset is 16; it must be 0 .. 15"),
        ({"type": "su"}, "type is 'su'; one of"),
        ({"precision": "f16"}, "precision is 'f16'; one of 'exact', 'f32'"),
        ({"theta": 0}, "theta is 0; it must be"),
        ({"factor": 0.5}, "factor is 0.5; it must be 1"),
        ({"type": "longrope", "short_factor": [1.0] * 8, "original_max_positions": 8, "factor": 2}, "has 8 numbers"),
        ({"short_factor": [1.0] * 600, "long_factor": [1.0]}, "at most 512"),
    ):
        with pytest.raises(ValueError, match=sentence):
            qkv.Rope(**{"head_dim": 16, **words})
    for words in ({"head_dim": 1.5}, {"theta": "x"}, {"short_factor": ["a"], "long_factor": ["b"]}):
        with pytest.raises(TypeError):
            qkv.Rope(**{"head_dim": 16, **words})


def test_what_apply_refuses():
    rope, x = qkv.Rope(16), np.zeros((2, 3, 4, 16), np.float32)
    for array, positions, sentence in (
        (x, range(3), r"positions has shape \(3,\); one a token is expected: \(T,\) or \(2, 4\)"),
        (x, np.zeros((3, 4), int), "positions has shape"),
        (x, [[[0, 1, 2, 3]]], "positions has shape"),
        (x[..., :8], range(4), r"x has shape \(2, 3, 4, 8\); the last axis must have \(16,\)"),
        (x[0, 0], range(4), r"x has shape \(4, 16\); \(B, H, T, D\) or"),
        (x, [0, 1, 2, 2**60], "is 1152921504606846976; it must be"),
        (x, np.full(4, 2**63, np.uint64), "at most 2"),
    ):
        with pytest.raises(ValueError, match=sentence):
            rope.apply(array, positions)
    for array, positions in ((x, [0.0, 1.0, 2.0, 3.0]), (x, [True] * 4), (x.astype(int), range(4)), ("x", range(4))):
        with pytest.raises(TypeError):
            rope.apply(array, positions)
    with pytest.raises(TypeError, match="requires_grad|require gradient|detach"):
        rope.apply(torch.zeros(1, 1, 4, 16, requires_grad=True), range(4))
    for words in ({"seq_len": -1}, {"threads": 0}):
        with pytest.raises(ValueError):
            rope.apply(x, range(4), **words)
