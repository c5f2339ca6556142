"""Random descriptors, every feature with every other, against the formula in NumPy float64.

The room for each result is the oracle's own budget for the problem, and the oracle itself is held
against the formula.  A failure prints the problem; hypothesis makes it as small as it can.
"""

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qkv
from formula import formula

DTYPES = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
TIERS = [t["name"] for t in qkv.info()["tiers"] if t["available"]]


@st.composite
def problems(draw):
    """(arrays, options, tier): all sizes and options drawn, the numbers seeded."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    maybe = lambda: draw(st.booleans()) and draw(st.booleans())  # noqa: E731
    B, Hkv, G = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    Tq, Tk = draw(st.integers(1, 70)), draw(st.integers(1, 300))
    D, Dv = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    Hq = Hkv * G
    names = ["f64"] * 3 if draw(st.integers(0, 4)) == 0 else [draw(st.sampled_from(["f32", "f16", "bf16"])) for _ in "qkv"]
    spread = draw(st.sampled_from([0.01, 1.0, 4.0]))
    shapes = ((B, Hq, Tq, D), (B, Hkv, Tk, D), (B, Hkv, Tk, Dv))
    arrays = [(spread * rng.standard_normal(s)).astype(DTYPES[n]) for s, n in zip(shapes, names)]
    if draw(st.booleans()):
        arrays = [x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3) for x in arrays]
    extra = np.float64 if names[0] == "f64" else np.float32
    o = {}
    o["causal"] = draw(st.booleans())
    o["strict"] = o["causal"] and maybe()
    o["align"] = draw(st.sampled_from(["bottom_right", "top_left"]))
    if draw(st.booleans()):
        o["window"] = tuple(draw(st.sampled_from([-1, 0, 1, 7, 64, 200])) for _ in "lr")
    if maybe():
        o["scale"] = draw(st.sampled_from([0.0, -0.3, 0.05, 1.0]))
    if maybe():
        o["softcap"] = draw(st.sampled_from([0.5, 5.0, 50.0]))
    if draw(st.booleans()):
        shape = tuple(n if draw(st.booleans()) else 1 for n in (B, Hq, Tq, Tk))
        o["mask"] = rng.random(shape) < draw(st.sampled_from([0.05, 0.5, 0.95]))
    if draw(st.booleans()):
        shape = tuple(n if draw(st.booleans()) else 1 for n in (B, Hq, Tq, Tk))
        o["bias"] = rng.standard_normal(shape).astype(extra)
        o["bias"][rng.random(shape) < 0.2] = -np.inf
    if maybe():
        o["sinks"] = rng.standard_normal(Hq).astype(extra)
    if maybe():
        o["alibi_slopes"] = rng.random((B, Hq)).astype(extra)
    if maybe():
        o["q_offset"] = rng.integers(-Tq, Tk + 5, B)
    if maybe():
        o["q_lens"] = rng.integers(0, Tq + 1, B)
    if maybe():
        o["kv_lens"] = rng.integers(0, Tk + 1, B)
    if maybe():
        o["kv_starts"] = rng.integers(0, Tk + 1, B)
    if maybe():
        size = draw(st.sampled_from([(1, 1), (16, 16), (64, 64), (7, 33)]))
        counts = (-(-Tq // size[0]), -(-Tk // size[1]))
        head = draw(st.sampled_from([(), (Hq,), (B, Hq)]))
        o["block_mask"], o["block_size"] = rng.random((*head, *counts)) < 0.6, size
    return arrays, o, draw(st.sampled_from(TIERS))


def within(got, want, budget, what):
    got = np.asarray(got).astype(np.float64)
    infinite = np.isinf(want) | np.isinf(budget)
    assert (np.isneginf(got) == np.isneginf(want))[~np.isinf(budget)].all(), what
    error, room = abs(got - np.where(infinite, 0, want))[~infinite], budget[~infinite]
    assert (error <= room).all(), f"{what}: worst {np.max(error / np.maximum(room, 1e-300))} of budget"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(problems())
def test_random_problem(problem):
    arrays, options, tier = problem
    want = formula(*arrays, **options)
    exact, exact_lse, exact_w, room, room_lse = qkv.reference_attention(
        *arrays, return_lse=True, return_weights=True, return_budget=True, **options
    )
    for got, part in ((exact, "o"), (exact_lse, "lse"), (exact_w, "weights")):
        np.testing.assert_allclose(got, want[part], rtol=1e-11, atol=1e-12, err_msg=part)
    qkv.set_cpu_tier(tier)
    try:
        o, lse = qkv.attention(*arrays, return_lse=True, **options)
        again, w = qkv.attention(*arrays, return_weights=True, threads=1, **options)
    finally:
        qkv.set_cpu_tier(None)
    np.testing.assert_array_equal(o, again)
    within(o, want["o"], room, "o")
    within(lse, want["lse"], room_lse, "lse")
    tolerance = 1e-11 if arrays[0].dtype == np.float64 else 1e-4
    np.testing.assert_allclose(w, want["weights"], atol=tolerance, rtol=10 * tolerance)


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 2**32 - 1))
def test_hidden_things_do_not_matter(problem, seed):
    """NaN and infinity in keys and values that nobody sees, and in another sequence, change no bit."""
    arrays, options, tier = problem
    q, k, v = arrays
    qkv.set_cpu_tier(tier)
    try:
        clean = qkv.attention(q, k, v, **options)
        keep = formula(q, k, v, **options)["biased"] != -np.inf
        seen = keep.reshape(len(q), k.shape[1], -1, k.shape[2]).any(2)
        k, v = k.copy(), v.copy()
        k[~seen], v[~seen] = np.nan, 1000
        np.testing.assert_array_equal(clean, qkv.attention(q, k, v, **options))
        v[~seen] = np.inf
        np.testing.assert_array_equal(clean, qkv.attention(q, k, v, **options))
    finally:
        qkv.set_cpu_tier(None)
