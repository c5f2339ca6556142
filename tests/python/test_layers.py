"""qkv.layers from plain arrays: forms that agree, arrays of any kind, refusals."""

import doctest
import subprocess
import sys

import numpy as np
import pytest

import qkv
from qkv import layers

D_MODEL, HQ, HKV, D = 20, 6, 2, 8


def weights(rng, *shapes):
    return [rng.standard_normal(s).astype(np.float32) / s[-1] ** 0.5 for s in shapes]


def gqa(rng, n_kv_heads=HKV, **more):
    q, k, v, o = weights(
        rng, (HQ * D, D_MODEL), (n_kv_heads * D, D_MODEL), (n_kv_heads * D, D_MODEL),
        (D_MODEL, HQ * D),
    )  # fmt: skip
    return layers.GQA(q, k, v, o, HQ, n_kv_heads, **more)


def mla(rng, **more):
    kv_a, kv_b, o, q_a, q_b = weights(
        rng, (13, D_MODEL), (HQ * 11, 9), (D_MODEL, HQ * 5), (7, D_MODEL), (HQ * 10, 7)
    )
    return layers.MLA(
        kv_a, kv_b, o, HQ, rope_dim=4, q_a=q_a, q_b=q_b, q_a_norm=np.ones(7, np.float32),
        kv_a_norm=np.ones(9, np.float32), rope={"pairing": "interleaved"}, **more,
    )  # fmt: skip


MADE = {
    "gqa": lambda rng: gqa(rng, rope={}),
    "window": lambda rng: gqa(rng, rope={"theta": 500.0}, window_left=3, softcap=2.0),
    "alibi": lambda rng: gqa(rng, alibi="plain", sinks=rng.standard_normal(HQ).astype(np.float32)),
    "mla": mla,
}


def test_the_examples():
    assert doctest.testmod(layers).failed == 0


def test_importing_qkv_does_not_load_blas():
    code = "import sys, qkv; sys.exit('qkv._layers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_variants(rng):
    q, o = weights(rng, (HQ * D, D_MODEL), (D_MODEL, HQ * D))
    one = weights(rng, (D, D_MODEL))[0]
    assert layers.MHA(q, q, q, o, HQ).variant == "MHA"
    assert layers.MQA(q, one, one, o, HQ).variant == "MQA"
    assert gqa(rng).variant == "GQA-2"
    assert mla(rng).variant == "MLA"
    desc = mla(rng).desc
    assert (desc["kv_lora_rank"], desc["q_lora_rank"], desc["head_dim_v"]) == (9, 7, 5)
    assert desc["rope"]["pairing"] == "interleaved" and desc["latent_norm"] == "rms"


def test_mha_is_the_formula(rng):
    q, k, v, o = weights(rng, *[(HQ * D, D_MODEL)] * 3, (D_MODEL, HQ * D))
    bias = rng.standard_normal((4, HQ * D)).astype(np.float32)
    x = rng.standard_normal((2, 9, D_MODEL)).astype(np.float32)
    layer = layers.MHA((q, bias[0]), (k, bias[1]), (v, bias[2]), (o, bias[3, :D_MODEL]), HQ,
                       causal=False)  # fmt: skip
    heads = [(x @ w.T + b).reshape(2, 9, HQ, D).swapaxes(1, 2) for w, b in zip((q, k, v), bias)]
    wanted = qkv.attention(*heads).swapaxes(1, 2).reshape(2, 9, -1) @ o.T + bias[3, :D_MODEL]
    np.testing.assert_allclose(layer(x), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", MADE)
def test_forms_agree(rng, name):
    layer = MADE[name](rng)
    x = rng.standard_normal((2, 12, D_MODEL)).astype(np.float32)
    y = layer(x, threads=1)
    assert np.array_equal(y, layer(x, threads=2))
    packed = layer(x.reshape(24, -1), cu_seqlens=[0, 12, 24]).reshape(x.shape)
    np.testing.assert_allclose(packed, y, rtol=0, atol=2e-6)
    right = layer(x, q_lens=[12, 5], kv_lens=[12, 5])
    np.testing.assert_allclose(right[1, :5], y[1, :5], rtol=0, atol=2e-6)
    assert not right[1, 5:].any()
    cache = layer.new_cache(20, max_seqs=2)
    cache.add(), cache.add()
    parts = []
    for begin, end in ((0, 5), (5, 9), (9, 10), (10, 11), (11, 12)):
        parts.append(layer(x[:, begin:end], cache=cache))
        cache.commit()
    np.testing.assert_allclose(np.concatenate(parts, 1), y, rtol=0, atol=2e-6)


def test_several_layers_of_one_cache(rng):
    stack = [gqa(rng, rope={}) for _ in range(3)]
    x = rng.standard_normal((1, 6, D_MODEL)).astype(np.float32)
    cache = stack[0].new_cache(10, n_layers=3)
    cache.add()
    for begin, end in ((0, 4), (4, 5), (5, 6)):
        for i, layer in enumerate(stack):
            got = layer(x[:, begin:end], cache=cache, layer=i)
            np.testing.assert_allclose(got, layer(x)[:, begin:end], rtol=0, atol=2e-6)
        cache.commit()


def test_cross(rng):
    q, k, v, o = weights(rng, (HQ * D, D_MODEL), (HQ * D, 14), (HQ * D, 14), (D_MODEL, HQ * D))
    layer = layers.MHA(q, k, v, o, HQ, cross=True)
    x = rng.standard_normal((2, 5, D_MODEL)).astype(np.float32)
    memory = rng.standard_normal((2, 7, 14)).astype(np.float32)
    y = layer(x, memory=memory, kv_lens=[7, 3])
    cache = layer.new_cache(10, max_seqs=2)
    cache.add(), cache.add()
    layer.project_memory(memory, cache, lens=[7, 3])
    cache.commit()
    for t in range(5):
        got = layer(x[:, t : t + 1], cache=cache)
        np.testing.assert_allclose(got, y[:, t : t + 1], rtol=0, atol=2e-6)
    assert [cache.length(s) for s in cache.sequences] == [7, 3]


def test_strides_and_types(rng):
    """Transposed, narrow and foreign weights; hidden states of torch."""
    torch = pytest.importorskip("torch")
    q, k, v, o = weights(rng, (HQ * D, D_MODEL), *[(HKV * D, D_MODEL)] * 2, (D_MODEL, HQ * D))
    x = rng.standard_normal((1, 4, D_MODEL)).astype(np.float32)
    y = layers.GQA(q, k, v, o, HQ, HKV)(x)
    turned = np.asfortranarray(q), k[::-1].copy()[::-1], torch.from_numpy(v), o.astype(np.float64)
    layer = layers.GQA(*turned, HQ, HKV)
    assert np.array_equal(layer(x), y)
    back = layer(torch.from_numpy(x).to(torch.bfloat16))
    assert isinstance(back, torch.Tensor) and back.dtype == torch.bfloat16
    np.testing.assert_allclose(back.float().numpy(), y, rtol=0, atol=0.05)
    assert layer(x.astype(np.float64)).dtype == np.float64
    narrow = layers.GQA(*(w.astype(np.float16) for w in (q, k, v, o)), HQ, HKV)
    np.testing.assert_allclose(narrow(x), y, rtol=0, atol=5e-3)


def test_a_failed_step_leaves_the_cache_as_it_was(rng):
    layer = gqa(rng)
    cache = layer.new_cache(64)
    seq = cache.add()
    x = rng.standard_normal((1, 3, D_MODEL)).astype(np.float32)
    layer(x, cache=cache)
    cache.commit()
    with pytest.raises(ValueError, match="mla"):
        layer(x, cache=cache, mla="sideways")
    with pytest.raises(ValueError, match="rope_len|positions"):
        layer(x, cache=cache, positions=[[0, 1]])
    with pytest.raises(qkv.CacheFull):
        layer(np.zeros((1, 200, D_MODEL), np.float32), cache=cache)
    assert cache.length(seq) == 3 and cache.info(seq)["length"] == 3


def test_conversions(rng):
    x = rng.standard_normal((1, 9, D_MODEL)).astype(np.float32)
    full = gqa(rng, n_kv_heads=HQ)
    y = full(x)
    assert full.pool_heads(2).variant == "GQA-2" and full.pool_heads(1).variant == "MQA"
    k = full.weights()["k"][0].reshape(2, 3, D, D_MODEL).mean(1)
    pooled = full.pool_heads(2).weights()["k"][0].reshape(k.shape)
    np.testing.assert_allclose(pooled, k, rtol=0, atol=1e-6)
    errors = [np.abs(full.factorise(n)(x) - y).max() for n in (20, 14, 8)]
    assert errors[0] < 1e-5 < errors[1] < errors[2]
    cache = full.factorise(20).new_cache(30)
    cache.add()
    np.testing.assert_allclose(full.factorise(20)(x, cache=cache), y, rtol=0, atol=1e-5)
    turning = gqa(rng, rope={})
    np.testing.assert_allclose(turning.paired("interleaved")(x), turning(x), rtol=0, atol=2e-6)
    again = layers.Layer(full.weights(), **{n: v for n, v in full.desc.items() if n != "rope"})
    assert np.array_equal(again(x), y)
    for call, words in (
        (lambda: full.pool_heads(4), "n_kv_heads is 4"),
        (lambda: full.factorise(21), "rank is 21"),
        (lambda: turning.factorise(4), "rope"),
        (lambda: full.paired("interleaved"), "rope.type"),
        (lambda: full.paired("upside_down"), "upside_down"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_refusals(rng):
    q, k, v, o = weights(rng, (HQ * D, D_MODEL), *[(HKV * D, D_MODEL)] * 2, (D_MODEL, HQ * D))
    layer = layers.GQA(q, k, v, o, HQ, HKV)
    x = np.zeros((1, 3, D_MODEL), np.float32)
    for call, words in (
        (lambda: layers.GQA(q, k, v, o, HQ, 5), "k has|v has|n_kv_heads"),
        (lambda: layers.GQA(q, k, v, o[:, :-1], HQ, HKV), r"o has shape \(20, 47\)"),
        (lambda: layers.GQA(q, (k, q[0]), v, o, HQ, HKV), "bias of k"),
        (lambda: layers.GQA(q, k, v, o, HQ, HKV, alibi="round"), "alibi"),
        (lambda: layers.GQA(q, k, v, o, HQ, HKV, rope={"type": "square"}), "square"),
        (lambda: layers.GQA(q, k, v, o, HQ, HKV, rope={"theta": -1.0}), "theta"),
        (lambda: layers.Layer({"z": q}), "z is no weight"),
        (lambda: layer(x[0]), r"x has shape \(3, 20\)"),
        (lambda: layer(x, q_lens=[1, 2]), "q_lens has 2 values"),
        (lambda: layer(x, q_lens=[4]), r"q_lens\[0\] is 4"),
        (lambda: layer(x, cu_seqlens=[0, 3]), "x has shape"),
        (lambda: layer(x[0], cu_seqlens=[0, 9]), "cu_seqlens ends with 9"),
        (lambda: layer(x, memory=x), "memory_len"),
        (lambda: layer(x, seqs=[1]), "seqs"),
        (lambda: layer(x, cache=layers.GQA(q, k, v, o, HQ, HKV).new_cache(9), seqs=[7]), "7"),
        (lambda: layer(x, cache=qkv.KVCache(1, 2, 4, n_pages=1), seqs=[]), "sequences in x"),
        (lambda: layers.load("/nowhere", 0), "nowhere"),
    ):
        with pytest.raises((ValueError, OSError), match=words):
            call()
    with pytest.raises(TypeError, match="frobnicate"):
        layers.GQA(q, k, v, o, HQ, HKV, frobnicate=1)
    with pytest.raises(TypeError, match="int"):
        layer(x.astype(np.int32))


@pytest.mark.parametrize("starts", [[0, 4, 12], [5, 1, 0], [10, 11, 12]])
def test_chunks_with_padding_in_front(rng, starts):
    """Padding moves no chunk: as Transformers' mask has it, as without padding, and as from a cache."""
    masks = pytest.importorskip("transformers.masking_utils")
    import torch

    chunk, T = 5, 13
    layer = gqa(rng, rope={}, chunk_tokens=chunk)
    x = rng.standard_normal((3, T, D_MODEL)).astype(np.float32)
    positions = np.maximum(np.arange(T) - np.array(starts)[:, None], 0)
    out = layer(x, kv_starts=starts, positions=positions)
    for b, start in enumerate(starts):
        alone = x[b : b + 1, start:]
        np.testing.assert_allclose(out[b, start:], layer(alone)[0], rtol=0, atol=1e-6)
        cache = layer.new_cache(16)
        cache.add()
        for token in range(T - start):
            got = layer(alone[:, token : token + 1], cache=cache)
            cache.commit()
            np.testing.assert_allclose(got[0, 0], out[b, start + token], rtol=0, atol=1e-6)
    function = masks.chunked_causal_mask_function(chunk, torch.tensor(starts))
    b, i, j = (torch.arange(n) for n in (3, T, T))
    seen = function(b[:, None, None], 0, i[None, :, None], j[None, None]).numpy()
    seen = seen & (np.arange(T) >= np.array(starts)[:, None, None])
    for j in range(T):
        moved = x.copy()
        moved[:, j] += 1
        other = layer(moved, kv_starts=starts, positions=positions)
        reached = (other != out).any(-1)
        for b, start in enumerate(starts):
            np.testing.assert_array_equal(reached[b, start:], seen[b, start:, j])


# ---- weights in 16 and 8 bits --------------------------------------------------------------------


def kept(made, weights):
    """made(weights=...), or a skip where the build or the CPU has no oneDNN for it."""
    try:
        return made(weights=weights)
    except ValueError as error:
        assert "oneDNN" in str(error) and "f32" in str(error)
        pytest.skip(str(error))


@pytest.mark.parametrize(("weights", "limit"), [("bf16", 3e-2), ("int8", 3e-2), ("f32_packed", 5e-6)])
@pytest.mark.parametrize("make", [gqa, mla], ids=["gqa", "mla"])
def test_narrow_weights(make, weights, limit):
    plain = make(np.random.default_rng(5))
    narrow = kept(lambda **more: make(np.random.default_rng(5), **more), weights)
    assert narrow.desc["weights"] == weights and plain.desc["weights"] == "f32"
    x = np.random.default_rng(6).standard_normal((2, 9, D_MODEL)).astype(np.float32)
    wanted = plain(x)
    got = narrow(x)
    off = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert off < limit and (off > 1e-4) == (limit > 1e-4)
    cache = narrow.new_cache(20, max_seqs=2)
    cache.add(), cache.add()
    steps = [narrow(x[:, :5], cache=cache), narrow(x[:, 5:], cache=cache)]
    assert np.abs(np.concatenate(steps, 1) - got).max() < limit * np.abs(wanted).max()
    with pytest.raises(ValueError, match="that keep f32"):
        narrow.weights()


def test_narrow_weights_beside_torch(rng):
    """torch brings an OpenMP and a oneDNN of its own."""
    torch = pytest.importorskip("torch")
    big = weights(rng, (640, 320), (640, 320), (640, 320), (320, 640))
    layer = kept(lambda **more: layers.MHA(*big, 10, **more), "bf16")
    x = torch.randn(1, 300, 320)
    before = layer(x)
    a = torch.randn(300, 300)
    for _ in range(3):
        a = torch.nn.functional.normalize(a @ a)
        assert torch.equal(layer(x, threads=2), before)
        assert torch.equal(layer(x, threads=1), before)


def test_a_format_that_there_is_not(rng):
    with pytest.raises(ValueError, match="weights"):
        gqa(rng, weights="int4")
