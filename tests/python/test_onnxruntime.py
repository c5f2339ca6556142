"""ONNX Runtime's GroupQueryAttention as an outside opinion on caches, on random cases.

Floats go through KVCache: what was cached, then what is new.  ONNX Runtime's int8 and int4 caches
have scales that are given beforehand, so they are read in place, by qkv.attention over its codes.
"""

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

import qkv
from gqa import group_query_attention, tokens_first

BUILD = Path(os.environ.get("QKV_BUILD", Path(__file__).parents[2] / "build/release"))

# Both sides compute in float32.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


class Problem:
    """Sizes, tensors and attributes of one call.

    prompt: rows of unequal lengths, padded on the right, nothing cached.  chunk: one sequence, a few
    new tokens behind cached ones.  decode: one new token a sequence.
    """

    def __init__(self, seed):
        rng = self.rng = np.random.default_rng(seed)
        self.kind = ("prompt", "chunk", "decode")[seed % 3]
        self.B = 1 if self.kind == "chunk" else int(rng.integers(1, 5))
        self.Hkv, self.D = int(rng.integers(1, 4)), int(rng.choice([8, 32, 64, 128]))
        self.Hq = self.Hkv * int(rng.integers(1, 5))
        self.S = 1 if self.kind == "decode" else int(rng.integers(2, 40))
        self.past = np.zeros(self.B, int)
        self.new = np.full(self.B, self.S)
        if self.kind == "prompt":
            self.new = rng.integers(1, self.S + 1, self.B)
            self.new[rng.integers(self.B)] = self.S
        else:
            self.past = rng.integers(1, 200, self.B)
        self.total = self.past + self.new
        self.capacity = int(self.total.max()) + int(rng.integers(0, 9))
        self.q, self.k, self.v = (
            rng.standard_normal((self.B, h, self.S, self.D), dtype=np.float32)
            for h in (self.Hq, self.Hkv, self.Hkv)
        )
        self.choose()

    def choose(self):
        """Attributes of the node, and the same in the words of qkv."""
        rng = self.rng
        self.attributes, self.options, self.sinks = {}, {}, None
        if rng.random() < 0.5:
            self.attributes["local_window_size"] = n = int(rng.integers(1, 50))
            self.options["window"] = n - 1  # theirs counts the query's own token
        if rng.random() < 0.4:
            self.attributes["softcap"] = self.options["softcap"] = float(rng.integers(1, 20))
        if rng.random() < 0.3:
            self.attributes["scale"] = self.options["scale"] = float(rng.uniform(0.05, 1.5))
        if rng.random() < 0.3:
            self.attributes["smooth_softmax"] = 1
            self.options["sinks"] = np.zeros(self.Hq, np.float32)
        elif rng.random() < 0.4:
            self.sinks = self.options["sinks"] = rng.standard_normal(self.Hq, dtype=np.float32)

    def bias(self):
        """One in three cases; by position of query within the call, and of key."""
        if self.kind == "prompt" or self.rng.random() < 2 / 3:
            return None
        shape = (self.B, self.Hq, self.S, int(self.total.max()))
        return self.rng.standard_normal(shape, dtype=np.float32)

    def arrays(self, past_k, past_v, **more):
        arrays = {
            "query": tokens_first(self.q), "key": tokens_first(self.k),
            "value": tokens_first(self.v), "seqlens_k": (self.total - 1).astype(np.int32),
            "total_sequence_length": np.array(self.total.max(), np.int32), **more,
        }  # fmt: skip
        if past_k is not None:
            arrays |= {"past_key": past_k, "past_value": past_v}
        if self.sinks is not None:
            arrays["head_sink"] = self.sinks
        return arrays

    def run(self, arrays, **attributes):
        return group_query_attention(
            arrays, self.Hq, self.Hkv, **self.attributes, **attributes
        )

    def check(self, ours, theirs):
        for b, n in enumerate(self.new):
            np.testing.assert_allclose(ours[b, :, :n], theirs[b, :, :n], **CLOSE)


@pytest.mark.parametrize("seed", range(60))
def test_floats(seed):
    p = Problem(seed)
    past = None if p.kind == "prompt" else p.rng.standard_normal(
        (2, p.B, p.Hkv, p.capacity, p.D), dtype=np.float32
    )  # fmt: skip
    bias = p.bias()
    more = {} if bias is None else {"attention_bias": bias}
    o, present_k, present_v = p.run(p.arrays(*(past if past is not None else (None, None)), **more))

    cache = qkv.KVCache(
        1, p.Hkv, p.D, k_format="f32", v_format="f32", page_tokens=16, max_seqs=p.B,
        n_pages=p.B * (p.capacity // 16 + 2), poison=True,
    )  # fmt: skip
    seqs = [cache.add() for _ in range(p.B)]
    if past is not None:
        cache.append(0, *(x[:, :, : p.past.max()] for x in past), lens=p.past)
        cache.commit()
    cache.append(0, p.k, p.v, lens=p.new)
    ours = cache.attend(0, p.q, q_lens=p.new, bias=bias, **p.options)
    p.check(ours, o)
    for b, seq in enumerate(seqs):
        k, v = cache.read(0, seq)
        np.testing.assert_array_equal(k, present_k[b, :, : p.total[b]])
        np.testing.assert_array_equal(v, present_v[b, :, : p.total[b]])


def encode(x, scale, bits):
    """Codes as ONNX Runtime stores them, from its documentation."""
    scale = np.where(scale == 0, np.float32(1), scale)
    if bits == 8:
        return np.clip(np.rint(x / scale), -128, 127).astype(np.int8)
    biased = (np.clip(np.rint(x / scale), -8, 7) + 8).astype(np.uint8)
    return biased[..., 0::2] | biased[..., 1::2] << 4


def encode_in_c(x, scale, bits):
    """The same by qkv_ort_int8_encode or qkv_ort_int4_encode, for one head's rows."""
    library = ctypes.CDLL(str(BUILD / "src/libqkv.so"))
    x, scale = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(scale, np.float32)
    rows, dim = (ctypes.c_int64(n) for n in x.shape)
    codes = np.empty(x.shape if bits == 8 else (len(x), x.shape[1] // 2), np.uint8)
    at = [ctypes.c_void_p(a.ctypes.data) for a in (x, scale, codes)]
    given = (at[0], rows, dim, at[1], ctypes.c_int64(scale.size))
    if bits == 8:
        status = library.qkv_ort_int8_encode(*given, at[2])
    else:
        status = library.qkv_ort_int4_encode(*given, 0, 0, at[2])  # even low, biased
    assert status == 0
    return codes.view(np.int8) if bits == 8 else codes


def attend_codes(p, k, v, k_scale, v_scale, bits, per_channel):
    """qkv over the present codes.

    A code of 4 bits stands for (code - 8) scale, which is a minimum of -8 scales.  Those of
    channels do not fit qkv's groups of 4 bits (an even number of channels): they are linear, so the
    keys' go into the queries and the values' into the output.
    """
    q, options = p.q, dict(p.options)
    window = options.pop("window", -1)
    options |= {
        "causal": True, "kv_lens": p.total, "q_lens": p.new, "q_offset": p.past,
        "window": (window, -1), "scale": options.get("scale", p.D**-0.5),
    }  # fmt: skip
    after = np.float32(1)
    if bits == 8:
        options |= {"k_scale": k_scale, "v_scale": v_scale}
    else:
        if per_channel:
            q = q * k_scale.repeat(p.Hq // p.Hkv, axis=1)
            after = v_scale.repeat(p.Hq // p.Hkv, axis=1)
            k_scale = v_scale = np.ones(1, np.float32)
        options |= {
            "k_format": "int4", "v_format": "int4", "k_scale": float(k_scale[0]),
            "v_scale": float(v_scale[0]), "k_min": float(-8 * k_scale[0]),
            "v_min": float(-8 * v_scale[0]),
        }  # fmt: skip
    return qkv.attention(q, k, v, **options) * after


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("seed", range(100, 112))
def test_codes(seed, bits, per_channel):
    p = Problem(seed)
    shape = (1, p.Hkv, 1, p.D) if per_channel else (1,)
    largest = 127 if bits == 8 else 7
    scales = [(p.rng.uniform(2, 3, shape) / largest).astype(np.float32) for _ in "kv"]
    numbers = p.rng.standard_normal((2, p.B, p.Hkv, p.capacity, p.D), dtype=np.float32)
    past = [encode(x, s, bits) for x, s in zip(numbers, scales)]
    kind = "PER_CHANNEL" if per_channel else "PER_TENSOR"
    o, *present = p.run(
        p.arrays(*past, k_scale=scales[0], v_scale=scales[1]), k_quant_type=kind,
        v_quant_type=kind, kv_cache_bit_width=bits,
    )  # fmt: skip
    for b, (start, n) in enumerate(zip(p.past, p.new)):
        for mine, theirs, x, s in zip(past, present, (p.k, p.v), scales):
            np.testing.assert_array_equal(theirs[b, :, :start], mine[b, :, :start])
            new = theirs[b, :, start : start + n]
            np.testing.assert_array_equal(
                new, encode(x[b, :, :n], s[0] if per_channel else s, bits)
            )
            for h in range(p.Hkv):
                scale = s[0, h, 0] if per_channel else s
                np.testing.assert_array_equal(new[h], encode_in_c(x[b, h, :n], scale, bits))
    p.check(attend_codes(p, *present, *scales, bits, per_channel), o)
