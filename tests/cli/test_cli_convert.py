"""qkv convert: the report, and the weights it writes, run again in Python."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from qkv import layers

D_MODEL, H, D, T = 24, 4, 6, 10
GPT2 = {
    "model_type": "gpt2", "n_embd": D_MODEL, "n_head": H, "n_layer": 2, "n_positions": 64,
    "vocab_size": 50,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": D_MODEL, "num_attention_heads": H,
    "num_key_value_heads": H, "num_hidden_layers": 1, "vocab_size": 50, "intermediate_size": 40,
    "max_position_embeddings": 100, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
CONVERT = ("convert", ".", "--layer", 0, "--in", "x.npy", "--json")


@pytest.fixture
def x(tmp_path, rng):
    x = rng.standard_normal((2, T, D_MODEL)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return x


@pytest.fixture
def gpt2(tmp_path, rng):
    w = {}
    for i in range(2):
        w[f"h.{i}.attn.c_attn.weight"] = rng.standard_normal((D_MODEL, 3 * D_MODEL)) / 5
        w[f"h.{i}.attn.c_attn.bias"] = rng.standard_normal(3 * D_MODEL)
        w[f"h.{i}.attn.c_proj.weight"] = rng.standard_normal((D_MODEL, D_MODEL)) / 5
        w[f"h.{i}.attn.c_proj.bias"] = rng.standard_normal(D_MODEL)
    save_file({n: a.astype(np.float32) for n, a in w.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    return layers.load(tmp_path, 0)


@pytest.fixture
def llama(tmp_path, rng):
    w = {f"model.layers.0.self_attn.{n}_proj.weight":
         rng.standard_normal((D_MODEL, D_MODEL)).astype(np.float32) / 5 for n in "qkvo"}  # fmt: skip
    save_file(w, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return layers.load(tmp_path, 0)


def change(after, before):
    off = np.abs(after - before).max() / np.abs(before).max()
    return off, np.sqrt(((after - before) ** 2).sum() / (before**2).sum())


def weights(path):
    w = load_file(path)
    return {n: (w[n], w.get(f"{n}.bias")) for n in w if not n.endswith(".bias")}


@pytest.mark.parametrize(("to", "heads"), [("gqa:2", 2), ("mqa", 1), ("gqa:4", 4)])
def test_fewer_heads(qkv, tmp_path, gpt2, x, to, heads):
    report = json.loads(qkv(*CONVERT, "--to", to, "-o", "new.safetensors").stdout)
    w = weights(tmp_path / "new.safetensors")
    made = layers.GQA(*(w[n] for n in "qkvo"), H, heads)
    off, rms = change(made(x), gpt2(x))
    assert report["largest_change"] == pytest.approx(off, rel=1e-3, abs=1e-9)
    assert report["rms_change"] == pytest.approx(rms, rel=1e-3, abs=1e-9)
    assert (report["cache_elements"], report["cache_elements_before"]) == (2 * heads * D, 2 * H * D)
    assert report["parameters_before"] - report["parameters"] == 2 * (H - heads) * D * (D_MODEL + 1)
    assert off > 1e-2 if heads < H else off == 0
    k, bias = w["k"]
    old = np.stack([m.reshape(heads, H // heads, D, -1).mean(1) for m in [load_k(tmp_path)]])[0]
    np.testing.assert_allclose(k.reshape(heads, D, -1), old, rtol=0, atol=1e-6)


def load_k(folder):
    joined = load_file(folder / "model.safetensors")["h.0.attn.c_attn.weight"]
    return joined[:, D_MODEL : 2 * D_MODEL].T


def test_latents(qkv, tmp_path, gpt2, x):
    """Exact where the rank is full, worse with each that is taken away."""
    last = 0.0
    for rank in (24, 20, 12, 4):
        out = qkv(*CONVERT, "--to", f"mla:{rank}", "-o", "new.safetensors").stdout
        report, w = json.loads(out), weights(tmp_path / "new.safetensors")
        assert report["to"] == "MLA"
        assert report["cache_elements"] == rank + 1  # and one that is always 1, for the biases
        made = layers.MLA(
            w["kv_a"], w["kv_b"][0], w["o"], H, rope_dim=0, q_a=w["q_a"], q_b=w["q_b"][0]
        )
        off, rms = change(made(x), gpt2(x))
        assert report["rms_change"] == pytest.approx(rms, rel=1e-2, abs=1e-6)
        assert off < 1e-5 if rank == 24 else rms > last
        last = rms


def test_pairing(qkv, tmp_path, llama, x):
    report = json.loads(qkv(*CONVERT, "--to", "interleaved", "-o", "new.safetensors").stdout)
    assert report["largest_change"] < 1e-6
    w = weights(tmp_path / "new.safetensors")
    old = load_file(tmp_path / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    split = old.reshape(H, 2, D // 2, D_MODEL).swapaxes(1, 2).reshape(D_MODEL, D_MODEL)
    assert np.array_equal(w["q"][0], split)
    made = layers.MHA(*(w[n] for n in "qkvo"), H, rope={"pairing": "interleaved"})
    np.testing.assert_allclose(made(x), llama(x), rtol=0, atol=1e-5)


def test_text(qkv, gpt2, x):
    text = qkv(*CONVERT[:-1], "--to", "mqa").stdout
    assert "MHA to MQA" in text and "12 elements a token, before 48" in text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (["--to", "gqa:3"], ["gqa:3", "n_kv_heads is 3", "4"]),
        (["--to", "gqa:0"], ["0"]),
        (["--to", "gqa:"], ["gqa"]),
        (["--to", "mla:25"], ["rank is 25", "24"]),
        (["--to", "moe"], ["--to is moe", "half-split"]),
        (["--to", "interleaved"], ["rope.type is none"]),
        (["--to", "mqa", "-o", "new.npy"], ["-o", "new.npy"]),
        (["--to", "mqa", "--layer", "2"], ["2"]),
        ([], ["--to is not given"]),
        (["--to", "mqa", "--memory", "x.npy"], ["not an option"]),
    ],
    ids=str,
)
def test_refusals(qkv, tmp_path, gpt2, x, how, words):
    error = qkv(*CONVERT, *how, code=2).stderr
    for word in words:
        assert word in error, error
    assert not list(tmp_path.glob("new*"))


def test_layers_that_turn_have_no_latents(qkv, llama, x):
    error = qkv(*CONVERT, "--to", "mla:8", code=2).stderr
    assert "rope" in error
