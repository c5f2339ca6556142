"""qkv.attention_varlen against qkv's own sequences one by one, and against the formula."""

import numpy as np
import pytest

import qkv
from formula import close, formula

LENGTHS_Q, LENGTHS_K = [5, 0, 33, 1], [9, 4, 70, 0]


@pytest.fixture
def packed(rng):
    q = rng.standard_normal((sum(LENGTHS_Q), 4, 16), dtype=np.float32)
    k = rng.standard_normal((sum(LENGTHS_K), 2, 16), dtype=np.float32)
    v = rng.standard_normal((sum(LENGTHS_K), 2, 24), dtype=np.float32)
    return q, k, v, np.cumsum([0] + LENGTHS_Q), np.cumsum([0] + LENGTHS_K)


def one_by_one(q, k, v, cu_q, cu_k):
    for b in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        yield b, rows, [x.transpose(1, 0, 2)[None] for x in (q[rows], k[keys], v[keys])]


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (3, 1), "softcap": 2.0}])
def test_sequences(packed, options, tier):
    o, lse = qkv.attention_varlen(*packed, return_lse=True, **options)
    assert o.shape == (39, 4, 24) and lse.shape == (4, 39)
    for _, rows, alone in one_by_one(*packed):
        want = formula(*alone, **options)
        close(o[rows].transpose(1, 0, 2)[None], want["o"])
        close(lse[:, rows][None], want["lse"])
        again = qkv.attention(*alone, **options)
        np.testing.assert_array_equal(o[rows].transpose(1, 0, 2)[None], again)


def test_offsets_masks_sinks_and_weights(packed, rng):
    mask = rng.random((4, 1, 33, 70)) < 0.7
    sinks, offsets = [0.125, 0.25, -1, 3], [2, 0, 30, 5]
    kv_lens, starts = [7, 4, 60, 0], [1, 0, 2, 0]
    o, lse, w = qkv.attention_varlen(
        *packed, mask=mask, sinks=sinks, q_offset=offsets, kv_lens=kv_lens, kv_starts=starts,
        causal=True, return_lse=True, return_weights=True,
    )
    assert w.shape == (4, 4, 33, 70)
    for b, rows, alone in one_by_one(*packed):
        nq, nk = alone[0].shape[2], alone[1].shape[2]
        want = formula(
            *alone, mask=mask[b : b + 1, :, :nq, :nk], sinks=sinks, q_offset=offsets[b],
            kv_lens=kv_lens[b : b + 1], kv_starts=starts[b : b + 1], causal=True,
        )
        close(o[rows].transpose(1, 0, 2)[None], want["o"])
        close(lse[:, rows][None], want["lse"])
        close(w[b : b + 1, :, :nq, :nk], want["weights"])
        assert not w[b, :, nq:].any() and not w[b, :, :, nk:].any()


def test_rows_behind_the_last_key_are_not_read(packed):
    q, k, v, cu_q, cu_k = packed
    k2, v2 = (np.concatenate([x, np.full((3, *x.shape[1:]), np.nan, np.float32)]) for x in (k, v))
    np.testing.assert_array_equal(
        qkv.attention_varlen(q, k, v, cu_q, cu_k), qkv.attention_varlen(q, k2, v2, cu_q, cu_k)
    )


def test_plan_and_int64_and_out(packed):
    q, k, v, cu_q, cu_k = packed
    want = qkv.attention_varlen(q, k, v, cu_q.astype(np.int32), list(map(int, cu_k)), causal=True)
    plan = qkv.Plan(q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, causal=True)
    out = np.empty_like(want)
    assert plan(q, k, v, out=out) is out
    np.testing.assert_array_equal(out, want)
    with pytest.raises(ValueError, match="k has shape|k is f32 of shape"):
        plan(q, k[:-1], v[:-1])


@pytest.mark.parametrize(
    "cu_q, cu_k, sentence",
    [
        ([0, 5], [0, 5, 9], "cu_seqlens_q ends at 5; the tensor has 39 rows"),
        ([0, 39], [0, 90], "cu_seqlens_k ends at 90; the tensor has 83 rows"),
        ([0, 39], [0, 40, 83], "cu_seqlens_q has 2 values and cu_seqlens_k 3"),
        ([1, 39], [0, 83], "cu_seqlens_q must start at 0 and ascend"),
        ([0, 40, 39], [0, 1, 83], "cu_seqlens_q must start at 0 and ascend"),
        ([[0, 39]], [0, 83], r"cu_seqlens_q has shape \(1, 2\)"),
    ],
)
def test_refusals(packed, cu_q, cu_k, sentence):
    with pytest.raises(ValueError, match=sentence):
        qkv.attention_varlen(*packed[:3], cu_q, cu_k)
    with pytest.raises(TypeError, match="integers are accepted"):
        qkv.attention_varlen(*packed[:3], [0.0, 39.0], [0, 83])
    with pytest.raises(ValueError, match=r"q has shape .*\(T, H, D\) is expected"):
        qkv.attention_varlen(packed[0][None], *packed[1:3], [0, 39], [0, 83])
