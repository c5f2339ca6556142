"""qkv.attention against the formula, feature by feature, on every tier."""

import ml_dtypes
import numpy as np
import pytest

import qkv
from formula import close, formula

B, HQ, HKV, TQ, TK, D, DV = 2, 6, 2, 37, 75, 24, 40


@pytest.fixture
def qkv_arrays(rng):
    shapes = ((B, HQ, TQ, D), (B, HKV, TK, D), (B, HKV, TK, DV))
    return [rng.standard_normal(s, dtype=np.float32) for s in shapes]


def every_option(rng):
    random_mask = rng.random((B, 1, TQ, TK)) < 0.5
    bias = rng.standard_normal((HQ, 1, TK)).astype(np.float32)
    bias[rng.random(bias.shape) < 0.2] = -np.inf
    block = rng.random((B, HQ, -(-TQ // 16), -(-TK // 8))) < 0.6
    return {
        "plain": {},
        "causal": {"causal": True},
        "strict": {"causal": True, "strict": True},
        "top left": {"causal": True, "align": "top_left"},
        "window": {"window": (9, 4)},
        "window of an int": {"window": 5},
        "window of None": {"window": (None, 3), "causal": False},
        "window of itself": {"window": 0},
        "causal window": {"causal": True, "window": (16, -1)},
        "scale": {"scale": 0.37},
        "scale 0": {"scale": 0.0},
        "scale below 0": {"scale": -0.2},
        "softcap": {"softcap": 1.5},
        "mask": {"mask": random_mask},
        "mask by key": {"mask": np.arange(TK) % 3 != 0},
        "bias": {"bias": bias},
        "bias f64 row": {"bias": rng.standard_normal(TK).astype(np.float16)},
        "sinks": {"sinks": rng.standard_normal(HQ).astype(np.float32)},
        "sinks as a list": {"sinks": [0.5, -1, 2, 3, -np.inf, 0]},
        "alibi": {"alibi_slopes": rng.random(HQ).astype(np.float32)},
        "alibi of each sequence": {"alibi_slopes": rng.random((B, HQ)).astype(np.float32)},
        "offset": {"causal": True, "q_offset": 11},
        "offset below 0": {"causal": True, "q_offset": [-5, 60]},
        "lengths": {"q_lens": [37, 20], "kv_lens": [50, 75], "causal": True},
        "starts": {"kv_starts": [3, 70], "causal": True},
        "empty sequence": {"q_lens": [0, 37], "kv_lens": [10, 0]},
        "blocks": {"block_mask": block, "block_size": (16, 8)},
        "blocks shared": {"block_mask": block[0, 0], "block_size": (16, 8)},
        "blocks of each head": {"block_mask": block[0], "block_size": (16, 8), "causal": True},
        "all at once": {
            "mask": random_mask, "bias": bias, "causal": True, "window": (40, 10), "softcap": 2.0,
            "sinks": [0.125] * HQ, "alibi_slopes": [0.0625] * HQ, "kv_lens": [70, 33],
            "q_lens": [37, 30], "kv_starts": [2, 0], "block_mask": block, "block_size": (16, 8),
        },
    }  # fmt: skip


OPTIONS = every_option(np.random.default_rng(3))


@pytest.mark.parametrize("name", OPTIONS)
def test_option(qkv_arrays, name, tier):
    options = OPTIONS[name]
    want = formula(*qkv_arrays, **options)
    o, lse, w = qkv.attention(*qkv_arrays, return_lse=True, return_weights=True, **options)
    close(o, want["o"])
    close(lse, want["lse"])
    close(w, want["weights"])


@pytest.mark.parametrize("name", OPTIONS)
def test_option_of_the_oracle(qkv_arrays, name):
    options = OPTIONS[name]
    want = formula(*qkv_arrays, **options)
    o, lse, w = qkv.reference_attention(*qkv_arrays, return_lse=True, return_weights=True, **options)
    for got, part in ((o, "o"), (lse, "lse"), (w, "weights")):
        close(got, want[part], "float64")


@pytest.mark.parametrize("name", ["plain", "softcap", "all at once"])
@pytest.mark.parametrize("stage", ["scores", "capped", "biased", "weights"])
def test_stage(qkv_arrays, name, stage, tier):
    options = OPTIONS[name]
    o, got = qkv.attention(*qkv_arrays, return_weights=stage, **options)
    want = formula(*qkv_arrays, **options)
    close(o, want["o"])
    # What raw scores of keys and rows that do not exist are, nobody promises.
    exists = np.ones(got.shape, bool)
    if stage in ("scores", "capped"):
        for b in range(B):
            exists[b, :, options.get("q_lens", [TQ] * B)[b]:] = False
            exists[b, :, :, options.get("kv_lens", [TK] * B)[b]:] = False
            exists[b, :, :, :options.get("kv_starts", [0] * B)[b]] = False
    close(np.where(exists, got, 0), np.where(exists, want[stage], 0))


TYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16,
         "bfloat16": ml_dtypes.bfloat16}
SMALL = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize("dtypes", [("float64",) * 3] + [(a, b, c) for a in SMALL for b in SMALL for c in SMALL])
def test_dtypes(qkv_arrays, dtypes, tier):
    q, k, v = (x.astype(TYPES[t]) for x, t in zip(qkv_arrays, dtypes))
    o, lse = qkv.attention(q, k, v, causal=True, return_lse=True)
    exact, exact_lse, o_budget, lse_budget = qkv.reference_attention(
        q, k, v, causal=True, return_lse=True, return_budget=True
    )
    close(exact, formula(q, k, v, causal=True)["o"], "float64")
    assert o.dtype == q.dtype
    assert lse.dtype == (np.float64 if dtypes[0] == "float64" else np.float32)
    assert (abs(o.astype(np.float64) - exact) <= o_budget).all()
    finite = np.isfinite(exact_lse)
    assert (abs(lse - exact_lse)[finite] <= lse_budget[finite]).all()


@pytest.mark.parametrize("heads", [(1, 1), (4, 4), (8, 1), (9, 3)])
def test_query_head_h_reads_head_h_over_g(rng, heads):
    hq, hkv = heads
    q = rng.standard_normal((1, hq, 3, 8), dtype=np.float32)
    k, v = rng.standard_normal((2, 1, hkv, 10, 8), dtype=np.float32)
    o = qkv.attention(q, k, v)
    for h in range(hq):
        g = h // (hq // hkv)
        alone = qkv.attention(q[:, h : h + 1], k[:, g : g + 1], v[:, g : g + 1])
        # Close, not equal: a group of heads may take another kernel than a head alone.
        np.testing.assert_allclose(o[:, h : h + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 2, 0, 4), (1, 1, 1, 1)])
def test_small_and_empty(shape):
    q = np.ones(shape, np.float32)
    o, lse = qkv.attention(q, q, q, return_lse=True)
    assert o.shape == shape and lse.shape == shape[:3]
    close(o, formula(q, q, q)["o"])


def test_no_keys_at_all():
    q, k = np.ones((1, 2, 3, 4), np.float32), np.ones((1, 2, 0, 4), np.float32)
    o, lse = qkv.attention(q, k, k, return_lse=True)
    assert (o == 0).all() and np.isneginf(lse).all()
    o, lse = qkv.attention(q, k, k, sinks=[1.0, 2.0], return_lse=True)
    assert (o == 0).all()
    close(lse, np.broadcast_to([[[1.0], [2.0]]], lse.shape))


def test_hidden_nan_does_not_show(qkv_arrays, tier):
    q, k, v = qkv_arrays
    clean, mask = qkv.attention(q, k, v, kv_lens=[40, 60], kv_starts=[2, 0], causal=True), None
    k2, v2 = k.copy(), v.copy()
    for x in (k2, v2):
        x[0, :, 40:], x[1, :, 60:], x[0, :, :2] = np.nan, np.inf, -np.inf
    poisoned = qkv.attention(q, k2, v2, kv_lens=[40, 60], kv_starts=[2, 0], causal=True)
    np.testing.assert_array_equal(clean, poisoned)
    mask = np.arange(TK) % 5 != 1
    k2, v2 = k.copy(), v.copy()
    k2[:, :, ~mask], v2[:, :, ~mask] = np.nan, np.inf
    np.testing.assert_array_equal(qkv.attention(q, k, v, mask=mask), qkv.attention(q, k2, v2, mask=mask))
    assert np.isnan(qkv.attention(q, k2, v2)).all()


def test_same_bits_for_any_threads_and_alone_in_any_batch(rng, tier):
    q = rng.standard_normal((3, 4, 70, 32), dtype=np.float32)
    k, v = rng.standard_normal((2, 3, 2, 700, 32), dtype=np.float32)
    o, lse = qkv.attention(q, k, v, causal=True, return_lse=True, threads=1)
    for threads in (2, 3, 7, None):
        again = qkv.attention(q, k, v, causal=True, return_lse=True, threads=threads)
        np.testing.assert_array_equal(o, again[0])
        np.testing.assert_array_equal(lse, again[1])
    for b in range(3):
        alone = qkv.attention(q[b : b + 1], k[b : b + 1], v[b : b + 1], causal=True)
        np.testing.assert_array_equal(o[b : b + 1], alone)


def test_precision_words(qkv_arrays):
    exact = formula(*qkv_arrays)["o"]
    for precision, room in (("highest", 2e-5), ("high", 1e-4), ("medium", 3e-2)):
        np.testing.assert_allclose(qkv.attention(*qkv_arrays, precision=precision), exact, atol=room, rtol=room)


@pytest.mark.parametrize("sinks", [None, [0.25, -1.0, 0, 0, 2, 5]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_merge(qkv_arrays, sinks, dtype):
    q, k, v = (x.astype(dtype) for x in qkv_arrays)
    cuts = (0, 10, 10, 31, TK)
    parts = [
        qkv.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in zip(cuts, cuts[1:])
    ]
    parts[1][0][:] = np.nan  # the part without keys: nobody looks at its o
    o, lse = qkv.merge(parts, sinks=sinks)
    want = formula(q, k, v, sinks=sinks)
    assert o.dtype == lse.dtype == np.dtype(dtype)
    close(o, want["o"], dtype)
    close(lse, want["lse"], dtype)


def test_merge_of_nothing_visible():
    o, lse = qkv.merge([(np.full((1, 1, 2, 3), np.nan), np.full((1, 1, 2), -np.inf))])
    assert (o == 0).all() and np.isneginf(lse).all()


def test_plan_repeats_attention(qkv_arrays, rng, tier):
    q, k, v = qkv_arrays
    options = {"causal": True, "window": (50, -1), "return_lse": True, "kv_lens": [75, 60]}
    plan = qkv.Plan(q, k, v, sinks=[0.0] * HQ, bias=np.zeros((TQ, TK), np.float32), **options)
    names = [t["name"] for t in qkv.info()["tiers"]]
    of_f32 = {k["tier"] for k in qkv.info()["kernels"] if k["name"].startswith("attend_f32_f32_")}
    best = [name for name in names[: names.index(tier) + 1] if name in of_f32][-1]
    assert plan.kernel.endswith("__" + best)
    size = plan.workspace_bytes
    for _ in range(3):
        q, k, v = (rng.standard_normal(x.shape, dtype=np.float32) for x in (q, k, v))
        sinks = rng.standard_normal(HQ, dtype=np.float32)
        bias = rng.standard_normal((TQ, TK), dtype=np.float32)
        got = plan(q, k, v, sinks=sinks, bias=bias)
        want = qkv.attention(q, k, v, sinks=sinks, bias=bias, **options)
        for a, b in zip(got, want):
            np.testing.assert_array_equal(a, b)
    out = np.empty((B, HQ, TQ, DV), np.float32)
    assert plan(q, k, v, sinks=sinks, bias=bias, out=out)[0] is out
    np.testing.assert_array_equal(out, want[0])
    assert plan.workspace_bytes == size and plan.threads >= 1


def test_plan_counts_visible_pairs():
    q = np.zeros((2, 3, 100, 8), np.float32)
    k = np.zeros((2, 1, 130, 8), np.float32)
    assert qkv.Plan(q, k, k).visible_pairs == 2 * 3 * 100 * 130
    assert qkv.Plan(q, k, k, causal=True).visible_pairs == 6 * sum(range(31, 131))
    assert qkv.Plan(q, k, k, window=(0, 0)).visible_pairs == 6 * 100


def test_workspace_does_not_grow_with_the_sequence():
    def size(n):
        q = np.zeros((1, 1, n, 64), np.float32)
        return qkv.Plan(q, q, q, threads=2).workspace_bytes

    assert size(65536) == size(16384)


def test_info_names_what_runs():
    info = qkv.info()
    assert info["version"] == qkv.__version__ and info["threads"] >= 1
    assert info["kernels"] and {k["tier"] for k in info["kernels"]} <= {t["name"] for t in info["tiers"]}
