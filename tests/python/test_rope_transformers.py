"""Every type of rope against transformers' own functions, and rotations against its models'."""

import logging

import numpy as np
import pytest
import torch
from transformers import GPTJConfig, GPTNeoXConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import apply_rotary_pos_emb_interleave
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj_rotary
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

import qkv

logging.getLogger("transformers").setLevel(logging.ERROR)

D = 64
random = np.random.default_rng(5)
SHORT = (1 + random.random(D // 2)).tolist()
LONG = (1 + 20 * random.random(D // 2)).tolist()

# Name: parameters, max_position_embeddings.
ROPES = {
    "default": ({"rope_type": "default"}, 4096),
    "linear": ({"rope_type": "linear", "factor": 3.0}, 4096),
    "dynamic": ({"rope_type": "dynamic", "factor": 2.5}, 1000),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
    "yarn of gpt-oss": (
        {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
         "original_max_position_embeddings": 4096, "rope_theta": 150000.0}, 131072),
    "yarn of deepseek": (
        {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0,
         "original_max_position_embeddings": 4096}, 163840),
    "yarn with two mscales": (
        {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.2, "beta_fast": 20.0,
         "original_max_position_embeddings": 4096}, 163840),
    "yarn with a given factor": (
        {"rope_type": "yarn", "factor": 8.0, "attention_factor": 0.9,
         "original_max_position_embeddings": 512}, 4096),
    "longrope": (
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 32.0,
         "original_max_position_embeddings": 512}, 4096),
    "longrope by lengths": (
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG,
         "original_max_position_embeddings": 512}, 16384),
    "llama3": (
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192, "rope_theta": 500000.0}, 131072),
    "proportional": ({"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}, 4096),
    "proportional with a factor": (
        {"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 8.0}, 4096),
}  # fmt: skip


def config_of(name):
    parameters, longest = ROPES[name]
    parameters = {"rope_theta": 10000.0, **parameters}
    return LlamaConfig(
        hidden_size=4 * D, num_attention_heads=4, head_dim=D, max_position_embeddings=longest,
        rope_parameters=parameters,
    )  # fmt: skip


def theirs(config, seq_len):
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        f, a = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        f, a = ROPE_INIT_FUNCTIONS[kind](config, seq_len=seq_len)
    return f.numpy(), a


def test_no_type_is_forgotten():
    named = {parameters["rope_type"] for parameters, _ in ROPES.values()}
    assert named == set(ROPE_INIT_FUNCTIONS) | {"default"}


@pytest.mark.parametrize("seq_len", [None, 1, 600, 20000])
@pytest.mark.parametrize("name", ROPES)
def test_frequencies(name, seq_len):
    """f32: equal but for the last bit of a power.  Exact: what f32 is an approximation of."""
    config = config_of(name)
    want, factor = theirs(config, seq_len)
    for precision in ("f32", "exact"):
        f, a = qkv.Rope.from_config(config.to_dict(), precision=precision).frequencies(seq_len or 0)
        f = np.pad(f, (0, len(want) - len(f)))  # transformers has zeros where nothing turns
        assert a == pytest.approx(factor, rel=1e-15)
        assert (f[want == 0] == 0).all()
        if precision == "f32":
            assert (f == f.astype(np.float32)).all()
            ulps = np.abs(f.astype(np.float32).view(np.int32) - want.view(np.int32))
            assert ulps.max() <= 1 and (ulps > 0).mean() <= 0.1
        else:
            np.testing.assert_allclose(f, want, rtol=1e-6)


def test_ntk_is_dynamic_at_its_length():
    """transformers has no rope that is grown once; its dynamic one gives (factor L / m) - (factor - 1)."""
    config = config_of("dynamic")
    want, _ = theirs(config, 5000)
    f, _ = qkv.Rope(D, type="ntk", factor=2.5 * 5 - 1.5).frequencies()
    np.testing.assert_allclose(f, want, rtol=1e-6)


# The longest positions, so that dynamic and longrope are met before and after they change.
POSITIONS = {
    "short": [[0, 1, 2, 3, 4, 5, 6, 7]],
    "a step": [[511]],
    "left padding": [[1, 1, 1, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7]],
    "gaps": [[0, 5, 17, 300, 301, 302, 3999, 4000]],
    "far": [[99990, 99991, 99992, 99993, 99994, 99995, 99996, 99997]],
}


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("name", ROPES)
def test_rotation(name, positions):
    """
    Bound of f32 mode.  A cosine differs by a unit of its last place, 1.2e-7 a, where torch's cosine is
    not the nearest number.  For the few pairs whose frequency f differs in its last bit, by 2^-23 f,
    the angle p f and its rounding differ too, by at most 2 p f 2^-23.  The rotation itself is the
    same operations.
    """
    config = config_of(name)
    ids = torch.tensor(POSITIONS[positions])
    x = torch.tensor(np.random.default_rng(1).standard_normal((len(ids), 3, ids.shape[1], D)), dtype=torch.float32)
    model = LlamaRotaryEmbedding(config)
    cos, sin = model(x, ids)
    want, _ = apply_rotary_pos_emb(x, x, cos, sin)
    seq_len = int(ids.max()) + 1  # of the whole batch, as transformers has it
    rope = qkv.Rope.from_config(config.to_dict(), precision="f32")
    mine = rope.frequencies(seq_len)[0].astype(np.float32)
    their = model.inv_freq.numpy()[: len(mine)]
    off = float((mine != their) @ (seq_len * mine)) * 2 * 2.0**-23
    c, s = rope.table(ids, seq_len=seq_len)
    factor = rope.frequencies(seq_len)[1]
    for ours, full in ((c, cos), (s, sin)):
        assert (ours - full[..., : ours.shape[-1]]).abs().max() <= factor * (1.3e-7 + off)
    got = rope.apply(x, ids, seq_len=seq_len)
    assert got.dtype == torch.float32 and got.shape == x.shape
    assert (got - want).abs().max() <= x.abs().max() * factor * 2 * (1.3e-7 + off)
    same = (c == cos[..., : c.shape[-1]]).float().mean()
    assert same > 0.85
    if positions != "far" and not off:
        exact = qkv.Rope.from_config(config.to_dict()).apply(x, ids, seq_len=seq_len)
        assert (exact - want).abs().max() <= x.abs().max() * factor * (1e-6 + seq_len * 4e-7)


def test_bits_are_those_of_torch_where_the_table_is():
    """With transformers' own cosines and sines the rotation is the same in every bit."""
    config, ids = config_of("yarn"), torch.arange(40)[None]
    x = torch.tensor(np.random.default_rng(1).standard_normal((2, 3, 40, D)), dtype=torch.float32)
    cos, sin = LlamaRotaryEmbedding(config)(x, ids)
    want, _ = apply_rotary_pos_emb(x, x, cos, sin)
    got = qkv.rotary_embedding(x, cos[0, :, : D // 2].contiguous(), sin[0, :, : D // 2].contiguous(), ids)
    assert torch.equal(got, want)


def test_gptj_turns_neighbours():
    """Interleaved pairs of the first 16 of 64 channels."""
    config = GPTJConfig(n_embd=4 * D, n_head=4, rotary_dim=16).to_dict()
    x = torch.tensor(np.random.default_rng(2).standard_normal((1, 9, 4, D)), dtype=torch.float32)
    sin, cos = create_sinusoidal_positions(32, 16)[:9].chunk(2, dim=-1)
    want = torch.cat([gptj_rotary(x[..., :16], sin[None], cos[None]), x[..., 16:]], -1).transpose(1, 2)
    rope = qkv.Rope.from_config(config, precision="f32")
    assert rope.interleaved and rope.rotary_dim == 16
    torch.testing.assert_close(rope.apply(x.transpose(1, 2), range(9)), want, atol=1e-6, rtol=0)


def test_gpt_neox_turns_a_quarter():
    config = GPTNeoXConfig(hidden_size=4 * D, num_attention_heads=4, rotary_pct=0.25, rotary_emb_base=25000)
    x = torch.tensor(np.random.default_rng(2).standard_normal((1, 4, 9, D)), dtype=torch.float32)
    cos, sin = GPTNeoXRotaryEmbedding(config)(x, torch.arange(9)[None])
    turned, _ = apply_rotary_pos_emb(x[..., :16], x[..., :16], cos, sin)
    rope = qkv.Rope.from_config(config.to_dict(), precision="f32")
    assert rope.rotary_dim == 16 and not rope.interleaved
    want = torch.cat([turned, x[..., 16:]], -1)
    torch.testing.assert_close(rope.apply(x, range(9)), want, atol=1e-6, rtol=0)


def test_deepseek_pairs_neighbours_and_sorts_them():
    """transformers leaves the two halves apart; the scores are the same."""
    x = torch.tensor(np.random.default_rng(2).standard_normal((1, 2, 9, 16)), dtype=torch.float32)
    ids = torch.arange(9)[None]
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=16)
    cos, sin = LlamaRotaryEmbedding(config)(x, ids)
    want, _ = apply_rotary_pos_emb_interleave(x, x, cos, sin)
    got = qkv.Rope(16, interleaved=True, precision="f32").apply(x, ids)
    got = torch.cat([got[..., 0::2], got[..., 1::2]], -1)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
