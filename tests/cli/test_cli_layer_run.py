"""qkv layer run: every option against the formula in NumPy, and refusals by name."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

D_MODEL, HQ, HKV, D, T, B = 24, 4, 2, 6, 11, 3
LLAMA = {
    "model_type": "llama", "hidden_size": D_MODEL, "num_attention_heads": HQ,
    "num_key_value_heads": HKV, "head_dim": D, "num_hidden_layers": 2, "vocab_size": 50,
    "intermediate_size": 40, "max_position_embeddings": 100, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}  # fmt: skip


@pytest.fixture
def model(tmp_path, rng):
    """A folder with a llama of two layers; the weights of layer 1."""

    def write(dtype=np.float32, **more):
        weights, w = {}, {}
        rows = {"q": HQ * D, "k": HKV * D, "v": HKV * D, "o": D_MODEL}
        for layer in range(2):
            for name, out in rows.items():
                wide = HQ * D if name == "o" else D_MODEL
                w[name] = (rng.standard_normal((out, wide)) / wide**0.5).astype(dtype)
                weights[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = w[name]
        save_file(weights, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | more))
        return {name: array.astype(np.float64) for name, array in w.items()}

    return write


def rotate(x, positions):
    """Half-split RoPE of (T, H, D)."""
    angles = positions[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def formula(w, x, positions=None):
    """One sequence, token by token."""
    n = len(x)
    positions = np.arange(n) if positions is None else positions
    q = rotate((x @ w["q"].T).reshape(n, HQ, D), positions)
    k = rotate((x @ w["k"].T).reshape(n, HKV, D), positions)
    v = (x @ w["v"].T).reshape(n, HKV, D)
    out = np.zeros((n, HQ, D))
    for t in range(n):
        for h in range(HQ):
            g = h // (HQ // HKV)
            p = np.exp(k[: t + 1, g] @ q[t, h] / D**0.5)
            out[t, h] = p / p.sum() @ v[: t + 1, g]
    return out.reshape(n, -1) @ w["o"].T


@pytest.fixture
def hidden(tmp_path, rng):
    x = rng.standard_normal((B, T, D_MODEL)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return x


RUN = ("layer", "run", ".", "--layer", 1, "--in", "x.npy", "-o", "out.npy")


def close(a, b, limit=1e-5):
    assert np.abs(a - b).max() <= limit * np.abs(b).max()


HOW = [
    (),
    ("--threads", 1),
    ("--prefill-then-decode", 1),
    ("--prefill-then-decode", 4),
    ("--prefill-then-decode", T),
    ("--cache", "f32"),
]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_run(qkv, tmp_path, model, hidden, how):
    w = model()
    qkv(*RUN, *how)
    out = np.load(tmp_path / "out.npy")
    assert out.shape == hidden.shape and out.dtype == np.float32
    for b in range(B):
        close(out[b], formula(w, hidden[b].astype(np.float64)))


@pytest.mark.parametrize("how", HOW, ids=str)
def test_lengths_and_positions(qkv, tmp_path, model, hidden, how):
    w = model()
    starts, ends = [0, 3, 2], [T, 9, 5]
    positions = np.arange(T)[None] * 3 + np.array([[0], [5], [17]])
    np.save(tmp_path / "p.npy", positions)
    np.save(tmp_path / "ends.npy", np.array(ends, np.int32))
    qkv(*RUN, *how, "--positions", "p.npy", "--kv-lens", "ends.npy", "--kv-starts", "0,3,2")
    out = np.load(tmp_path / "out.npy")
    for b, (s, e) in enumerate(zip(starts, ends)):
        close(out[b, s:e], formula(w, hidden[b, s:e].astype(np.float64), positions[b, s:e]))
        assert not out[b, :s].any() and not out[b, e:].any()


@pytest.mark.parametrize(
    ("cache", "limit"), [("f16", 2e-3), ("bf16", 2e-2), ("int8", 2e-2), ("int8_channel", 3e-2),
                         ("int4", 0.3), ("e4m3", 0.1), ("e5m2", 0.2)],
)  # fmt: skip
def test_caches(qkv, tmp_path, model, hidden, cache, limit):
    w = model()
    qkv(*RUN, "--prefill-then-decode", 3, "--cache", cache)
    out = np.load(tmp_path / "out.npy")
    wanted = np.stack([formula(w, x.astype(np.float64)) for x in hidden])
    close(out, wanted, limit)
    assert np.abs(out - wanted).max() > 1e-6, "the cache was not used"


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_types(qkv, tmp_path, model, hidden, dtype):
    w = model(np.float16)
    np.save(tmp_path / "x.npy", hidden[0].astype(dtype))
    qkv(*RUN)
    out = np.load(tmp_path / "out.npy")
    assert out.dtype == dtype and out.shape == (T, D_MODEL)
    wanted = formula(w, hidden[0].astype(dtype).astype(np.float64))
    close(out, wanted, 1e-5 if dtype is np.float64 else 2e-3)


def test_a_window(qkv, tmp_path, model, hidden):
    """That of mistral: the plain run, and one by one from a cache that evicts."""
    model(model_type="mistral", sliding_window=4)
    qkv(*RUN)
    plain = np.load(tmp_path / "out.npy")
    qkv(*RUN, "--prefill-then-decode", 6)
    close(np.load(tmp_path / "out.npy"), plain)
    qkv(*RUN, "--as", "llama")
    assert np.abs(np.load(tmp_path / "out.npy") - plain)[:, 4:].max() > 1e-3


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (["--layer", "2"], ["layer", "2"]),
        (["--layer", "x"], ["--layer", "x"]),
        (["--in", "none.npy"], ["none.npy"]),
        (["--in", "narrow.npy"], ["--in", "[1,2,23]", "24"]),
        (["--in", "whole.npy"], ["i64"]),
        (["-o", "out.txt"], ["-o", "out.txt"]),
        (["--part", "cross"], ["."]),
        (["--part", "middle"], ["--part", "middle", "encoder"]),
        (["--memory", "x.npy"], ["."]),
        (["--prefill-then-decode", "0"], ["--prefill-then-decode", "0"]),
        (["--prefill-then-decode", "12"], ["--prefill-then-decode is 12", "11"]),
        (["--cache", "int3"], ["--cache is int3", "int8_channel"]),
        (["--kv-lens", "4,5"], ["--kv-lens", "2", "3 sequences"]),
        (["--kv-lens", "12"], ["--kv-lens", "12", "11"]),
        (["--kv-starts", "-1"], ["--kv-starts", "-1"]),
        (["--positions", "x.npy"], ["--positions", "f32"]),
        (["--mla", "both"], ["--mla", "both", "absorbed"]),
        (["--threads", "0"], ["--threads", "0"]),
        (["--as", "lama"], ["lama", "llama"]),
        (["--frobnicate"], ["--frobnicate"]),
        (["more"], ["MODEL_DIR", "2"]),
    ],
    ids=lambda v: " ".join(v),
)
def test_refusals(qkv, tmp_path, model, hidden, how, words):
    model()
    np.save(tmp_path / "narrow.npy", np.zeros((1, 2, 23), np.float32))
    np.save(tmp_path / "whole.npy", np.zeros((1, 2, 24), np.int64))
    error = qkv(*RUN, *how, code=2).stderr
    for word in words:
        assert word in error, error
    assert not (tmp_path / "out.npy").exists()


def test_models_that_are_refused(qkv, tmp_path, model, hidden):
    model(model_type="frobnicator")
    error = qkv(*RUN, code=2).stderr
    assert "frobnicator" in error and "llama" in error and "deepseek_v3" in error
    model(hidden_size=25)
    assert qkv(*RUN, code=2).stderr
    model()
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 40)
    assert "model.safetensors" in qkv(*RUN, code=2).stderr
    (tmp_path / "model.safetensors").unlink()
    assert qkv(*RUN, code=2).stderr
    for gone in ("--layer", "--in", "-o"):
        at = RUN.index(gone)
        error = qkv(*RUN[:at], *RUN[at + 2 :], code=2).stderr
        assert gone in error and "not given" in error


@pytest.mark.parametrize(("weights", "limit"), [("f32", 1e-5), ("bf16", 3e-2), ("int8", 3e-2), ("f32_packed", 1e-5)])
def test_weights(qkv, tmp_path, model, hidden, weights, limit):
    w = model()
    wanted = np.stack([formula(w, x.astype(np.float64)) for x in hidden])
    try:
        qkv(*RUN, "--weights", weights)
    except AssertionError as error:
        if weights == "f32" or "oneDNN" not in str(error):
            raise
        qkv(*RUN, "--weights", weights, code=2)  # one sentence, and nothing else
        pytest.skip("no oneDNN in this build, or not for this CPU")
    out = np.load(tmp_path / "out.npy")
    close(out, wanted, limit)
    if limit > 1e-5:
        assert np.abs(out - wanted).max() > 1e-4, "the weights were not rounded"
    qkv(*RUN, "--weights", weights, "--threads", 2, "--prefill-then-decode", 4)
    close(np.load(tmp_path / "out.npy"), wanted, limit)


def test_weights_are_named(qkv, model, hidden):
    model()
    done = qkv(*RUN, "--weights", "int4", code=2)
    assert "--weights is int4; accepted are f32, bf16, int8 and f32_packed" in done.stderr
