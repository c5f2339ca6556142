"""Each refusal names what was given and what is accepted."""

import re

import numpy as np
import pytest

import qkv

Q = np.zeros((2, 4, 5, 8), np.float32)
K = np.zeros((2, 2, 7, 8), np.float32)


def f(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def i(*shape):
    return np.zeros(shape, np.int32)


VALUE = [
    ((Q[0], K, K), {}, "q has shape (4, 5, 8); (B, H, T, D) is expected"),
    ((Q, K[0], K), {}, "k has shape (2, 7, 8); (B, H, T, D) is expected"),
    ((Q, f(1, 2, 7, 8), K), {}, "k has shape (1, 2, 7, 8); with this q it must be (2, 2, 7, 8)"),
    ((Q, f(2, 2, 7, 9), K), {}, "k has shape (2, 2, 7, 9); with this q it must be (2, 2, 7, 8)"),
    ((Q, K, f(2, 2, 6, 8)), {}, "v has shape (2, 2, 6, 8); with this k it must be (2, 2, 7, 8)"),
    ((Q, f(2, 3, 7, 8), f(2, 3, 7, 8)), {}, "n_kv_heads is 3"),
    ((f(1, 1, 1, 1025), f(1, 1, 1, 1025), f(1, 1, 1, 8)), {}, "head_dim is 1025"),
    ((f(1, 1, 1, 0), f(1, 1, 1, 0), f(1, 1, 1, 8)), {}, "head_dim is 0"),
    ((f(1, 0, 1, 8), f(1, 1, 1, 8), f(1, 1, 1, 8)), {}, "n_q_heads is 0"),
    ((f(*[1] * 9), K, K), {}, "q has 9 axes"),
    ((Q, K, K), {"mask": np.ones((3, 7), bool)}, "mask has shape (3, 7); it must broadcast to (B, Hq, Tq, Tk) = (2, 4, 5, 7)"),
    ((Q, K, K), {"mask": np.ones((1, 1, 1, 1, 7), bool)}, "mask has shape (1, 1, 1, 1, 7)"),
    ((Q, K, K), {"bias": f(2, 5, 7)}, "bias has shape (2, 5, 7); it must broadcast"),
    ((Q.astype(np.float64), K, K), {}, "k.type is f32 but q.type is f64; f64 goes only with f64"),
    ((Q, K, K), {"out": np.zeros(Q.shape)}, "o.type is f64 but q.type is f32; f64 goes only with f64"),
    ((Q, K, K), {"sinks": f(5)}, "sinks has shape (5,); it must broadcast to (B, Hq) = (2, 4)"),
    ((Q, K, K), {"alibi_slopes": f(4, 2)}, "alibi_slopes has shape (4, 2)"),
    ((Q, K, K), {"strict": True}, "strict is True but causal is False"),
    ((Q, K, K), {"align": "left"}, "align is 'left'; one of 'bottom_right', 'top_left' is accepted"),
    ((Q, K, K), {"precision": "exact"}, "precision is 'exact'"),
    ((Q, K, K), {"return_weights": "probs"}, "return_weights is 'probs'"),
    ((Q, K, K), {"window": (1, 2, 3)}, "window is (1, 2, 3)"),
    ((Q, K, K), {"window": -2}, "window is -2; -1 to"),
    ((Q, K, K), {"window": 2**63}, "window is 9223372036854775808"),
    ((Q, K, K), {"threads": 0}, "threads is 0; 1 to 1024 is accepted"),
    ((Q, K, K), {"threads": 2000}, "threads is 2000"),
    ((Q, K, K), {"scale": float("inf")}, "scale is inf"),
    ((Q, K, K), {"scale": float("nan")}, "scale is nan"),
    ((Q, K, K), {"softcap": -1.0}, "softcap is -1"),
    ((Q, K, K), {"softcap": float("nan")}, "softcap is nan"),
    ((Q, K, K), {"q_lens": [1, 2, 3]}, "q_lens has shape (3,); one value for each sequence is expected: (2,)"),
    ((Q, K, K), {"q_lens": 3}, "q_lens has shape (1,)"),
    ((Q, K, K), {"q_lens": [1, 6]}, "q_lens[1] is 6"),
    ((Q, K, K), {"kv_lens": [-1, 6]}, "kv_lens[0] is -1"),
    ((Q, K, K), {"kv_lens": [1, 8]}, "kv_lens[1] is 8"),
    ((Q, K, K), {"kv_starts": [0, 9]}, "kv_starts[1] is 9"),
    ((Q, K, K), {"kv_lens": [0, 2**40]}, "kv_lens holds a value that does not fit 32 bits"),
    ((Q, K, K), {"q_offset": [0, 1, 2]}, "q_offset has shape (3,)"),
    ((Q, K, K), {"block_mask": np.ones((2, 2), bool)}, "block_mask has shape (2, 2); (1, 1)"),
    ((Q, K, K), {"block_mask": np.ones((1, 1), bool), "block_size": (0, 64)}, "block_size[0] is 0"),
    ((Q, K, K), {"out": f(2, 4, 5, 7)}, "out has shape (2, 4, 5, 7); it must be (2, 4, 5, 8)"),
    ((Q, K, K), {"out": f(2, 4, 5, 16)[..., ::2]}, "out cannot be written in place"),
    ((Q, K, K), {"out": np.broadcast_to(f(5, 8), Q.shape)}, "out is read-only"),
    ((Q, K, K), {"out": np.lib.stride_tricks.as_strided(f(8), Q.shape, (0, 0, 0, 4))}, "o"),
]

TYPE = [
    (([[1.0]], K, K), {}, "q is a list; a NumPy array or an object with __dlpack__ is accepted"),
    ((None, K, K), {}, "q is a NoneType; a NumPy array"),
    ((Q.astype(np.int32), K, K), {}, "q has dtype int32; float64, float32, float16 and bfloat16"),
    ((Q.astype(np.complex64), K, K), {}, "q has dtype complex64"),
    ((Q.astype(">f4"), K, K), {}, "q has dtype >f4; "),
    ((Q, K.astype("datetime64[s]"), K), {}, "k has dtype datetime64[s]"),
    ((Q, K, np.array([["a"]], object)), {}, "v has dtype object"),
    ((Q, K, K), {"out": np.zeros(Q.shape, np.int8)}, "out has dtype int8"),
    ((Q, K, K), {"mask": f(5, 7)}, "mask has dtype float32; it must be bool, True where visible; numbers to be added go to bias"),
    ((Q, K, K), {"mask": np.ones((5, 7), np.uint8)}, "mask has dtype uint8"),
    ((Q, K, K), {"bias": np.ones((5, 7), bool)}, "bias has dtype bool; it is added to the scores; True where visible goes to mask"),
    ((Q, K, K), {"bias": i(5, 7)}, "bias has dtype int32"),
    ((Q, K, K), {"window": 1.5}, "window is 1.5; an integer is accepted"),
    ((Q, K, K), {"threads": "2"}, "threads is '2'"),
    ((Q, K, K), {"scale": "small"}, "scale is 'small'; a number is accepted"),
    ((Q, K, K), {"q_lens": [1.0, 2.0]}, "q_lens has dtype float64; integers are accepted"),
    ((Q, K, K), {"block_mask": i(1, 1)}, "block_mask has dtype int32; it must be bool"),
    ((Q, K, K), {"colour": 1}, "colour"),
]  # fmt: skip


@pytest.mark.parametrize("arrays, options, sentence", VALUE)
def test_value(arrays, options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        qkv.attention(*arrays, **options)


@pytest.mark.parametrize("arrays, options, sentence", TYPE)
def test_type(arrays, options, sentence):
    with pytest.raises(TypeError, match=re.escape(sentence)):
        qkv.attention(*arrays, **options)


def test_the_oracle_refuses_the_same():
    with pytest.raises(ValueError, match="n_kv_heads is 3"):
        qkv.reference_attention(Q, f(2, 3, 7, 8), f(2, 3, 7, 8))
    with pytest.raises(ValueError, match="v has shape"):
        qkv.reference_attention(Q, K, f(2, 2, 6, 8))
    with pytest.raises(TypeError, match="q is a list"):
        qkv.reference_attention([1.0], K, K)


def test_plan():
    plan = qkv.Plan(Q, K, K, mask=np.ones((5, 7), bool))
    turned = np.zeros((2, 4, 8, 5), np.float32).swapaxes(2, 3)
    plan(turned, K, K)  # copied, so it lies as the example does
    for arrays, options, sentence in [
        ((Q.astype(np.float16), K, K), {}, "q is f16 of shape (2, 4, 5, 8)"),
        ((Q.transpose(1, 0, 2, 3).copy().transpose(1, 0, 2, 3), K, K), {}, "q is f32 of shape"),
        ((Q[:, :2], K, K), {}, "q is f32 of shape (2, 2, 5, 8)"),
        ((Q, K, K), {"mask": np.ones((1, 7), bool)}, "mask is bool of shape (1, 7)"),
        ((Q, K, K), {"bias": f(5, 7)}, "bias is f32 of shape (5, 7)"),
        ((Q, K, K), {"out": f(4, 2, 5, 8).transpose(1, 0, 2, 3)}, "out is f32"),
    ]:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            plan(*arrays, **options)
    with pytest.raises(TypeError, match="no option 'colour'"):
        qkv.Plan(Q, K, K, colour=1)
    with pytest.raises(ValueError, match="together"):
        qkv.Plan(Q[0], K[0], K[0], cu_seqlens_q=[0, 4])


@pytest.mark.parametrize(
    "parts, sinks, kind, sentence",
    [
        ([], None, ValueError, "parts is empty"),
        ([f(1, 1, 1, 1)], None, TypeError, "parts[0] is no tuple (o, lse)"),
        ([(f(2, 2), f(2))], None, ValueError, "parts[0][0] has shape (2, 2)"),
        ([(f(1, 2, 3, 4), f(1, 2, 4))], None, ValueError, "parts[0][1] has shape (1, 2, 4); (1, 2, 3)"),
        ([(f(1, 2, 3, 4), f(1, 2, 3)), (f(1, 2, 3, 5), f(1, 2, 3))], None, ValueError, "parts[1][0] has shape"),
        ([(f(1, 2, 3, 4, dtype="f2"), f(1, 2, 3))], None, TypeError, "parts[0][0] has dtype float16"),
        ([(f(1, 2, 3, 4), f(1, 2, 3, dtype="f8"))], None, TypeError, "parts[0][1] has dtype float64"),
        ([(f(1, 2, 3, 4), f(1, 2, 3))], f(3), ValueError, "sinks has shape (3,); (2,) is expected"),
    ],
)
def test_merge(parts, sinks, kind, sentence):
    with pytest.raises(kind, match=re.escape(sentence)):
        qkv.merge(parts, sinks=sinks)
