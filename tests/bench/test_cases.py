"""Cases, their inputs, and the exact result they are held against."""

import numpy as np
import pytest
from peers import cases, tensors
from peers.cases import CASES, Case


def test_every_row_of_the_comparison_is_there():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    for dtype, d in (("f32", 64), ("f32", 128), ("bf16", 64), ("bf16", 128)):
        for word in ("full", "causal"):
            assert f"{dtype} D={d} T=4096 {word}" in names
    assert {"f32 D=64 T=512 causal", "f16 D=128 T=4096 full", "latent bf16"} < set(names)
    decode = [c for c in CASES if c.kind == "decode"]
    assert [c.dtype for c in decode] == ["f32", "bf16", "f16"]
    assert all((c.q_heads, c.kv_heads, c.head_dim, c.kv_len) == (32, 8, 128, 16384) for c in decode)
    (latent,) = [c for c in CASES if c.latent]
    assert (latent.q_heads, latent.kv_heads, latent.kv_len) == (128, 1, 4096)
    assert (latent.head_dim, latent.head_dim_v) == (576, 512)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_cases_are_sound(case):
    assert case.q_heads % case.kv_heads == 0
    assert case.head_dim_v <= case.head_dim and case.latent == (case.head_dim_v < case.head_dim)
    assert case.causal <= (case.q_len > 1)
    assert Case.from_json(case.to_json()) == case


def test_work_is_what_is_visible(small):
    seen = [[j <= i + 9 - 5 for j in range(9)] for i in range(5)]
    assert small.visible_pairs == 4 * np.sum(seen)
    assert small.flops == 2 * 16 * small.visible_pairs
    assert small.kv_bytes == 2 * 9 * (8 + 8) * 2
    more_queries = Case("x", "prefill", "f32", 1, 1, 4, 2, 8, 8, True)
    assert more_queries.visible_pairs == 0 + 0 + 1 + 2
    (latent,) = cases.select(["latent"])
    assert latent.kv_bytes == 4096 * 576 * 2  # V is inside
    (decode,) = cases.select(["decode f32"])
    assert decode.unit == "GB/s" and decode.rate(0.5) == pytest.approx(decode.kv_bytes / 5e8)
    assert small.unit == "GFLOP/s" and small.rate(2) == pytest.approx(small.flops / 2e9)


def test_selection():
    assert cases.select([]) == list(CASES)
    assert [c.name for c in cases.select(["latent", "decode f32"])] == ["decode f32", "latent bf16"]
    assert [c.name for c in cases.select(["f16"])] == ["f16 D=128 T=4096 full", "decode f16"]
    with pytest.raises(ValueError, match="'int4'.*'latent bf16' is accepted"):
        cases.select(["latent", "int4"])


def test_storage_rounds_as_others_do(rng):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    special = [0.0, -0.0, np.inf, -np.inf, 1.00390625, 1.01171875, 3.4e38, 1e-45]
    x = np.concatenate([x[~np.isnan(x)], np.array(special, np.float32)])
    with np.errstate(over="ignore"):
        for dtype, theirs in (("bf16", ml_dtypes.bfloat16), ("f16", np.float16)):
            stored = tensors.to_storage(x, dtype)
            assert (stored.view(np.uint16) == x.astype(theirs).view(np.uint16)).all()
            np.testing.assert_array_equal(tensors.to_float(stored), x.astype(theirs).astype("f4"))
    nans = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    assert np.isnan(tensors.to_float(tensors.to_storage(nans, "bf16"))).all()
    assert tensors.to_storage(x, "f32").dtype == np.float32


def test_inputs_are_numbers(small):
    t = tensors.generate(small)
    assert (t.q.shape, t.k.shape, t.v.shape) == ((4, 5, 8), (2, 9, 8), (2, 9, 8))
    for x in (t.q, t.k, t.v):
        values = tensors.to_float(x)
        assert np.isfinite(values).all() and 0.5 < values.std() < 1.5
    assert (tensors.generate(small).k == t.k).all()


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_copies_for_cold_caches(dtype, tmp_path):
    case = Case("x", "decode", dtype, 4, 2, 1, 50, 16, 16)
    made = tensors.generate(case)
    tensors.save(made, case, tmp_path)
    sets = tensors.load(case, tmp_path, 3)
    rows = tensors.sample_rows(case)
    exact = tensors.exact_rows(case, made, rows)
    for n, one in enumerate(sets):
        assert all(x.ctypes.data % 64 == 0 and x.dtype == made.k.dtype for x in (one.k, one.v))
        assert (one.k == np.roll(made.k, n, axis=1)).all()
        np.testing.assert_allclose(tensors.exact_rows(case, one, rows), exact, rtol=1e-12)
    assert not np.shares_memory(sets[0].k, sets[1].k)


def test_latent_values_lie_inside_the_keys(tmp_path):
    case = Case("x", "latent", "bf16", 4, 1, 1, 30, 24, 16)
    made = tensors.generate(case)
    tensors.save(made, case, tmp_path)
    (one,) = tensors.load(case, tmp_path)
    assert np.shares_memory(one.v, one.k) and one.v.shape == (1, 30, 16)
    assert (one.v == made.k[..., :16]).all() and not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize("causal", [False, True])
def test_exact_rows(small, causal):
    case = Case.from_json(small.to_json() | {"causal": causal, "dtype": "f32"})
    t = tensors.generate(case)
    rows = tensors.sample_rows(case)
    assert len(rows) == 4 * 5 and (0, 0) in rows and (3, 4) in rows
    found = tensors.exact_rows(case, t, rows)
    for row, (h, i) in zip(found, rows):
        s = (t.k[h // 2].astype(float) @ t.q[h, i].astype(float)) / np.sqrt(8)
        if causal:
            s[i + 9 - 5 + 1 :] = -np.inf
        w = np.exp(s)
        np.testing.assert_allclose(row, w @ t.v[h // 2].astype(float) / w.sum(), rtol=1e-12)


def test_errors_are_shares_of_the_result():
    exact = np.full((2, 3), 2.0)
    off = exact.copy()
    off[1, 2] += 0.5
    found = tensors.errors(off, exact)
    assert found == {"rms": pytest.approx(0.5 / np.sqrt(6) / 2), "worst": pytest.approx(0.25)}
    for bad in (np.nan, np.inf):
        off[0, 0] = bad
        assert tensors.errors(off, exact) == {"rms": None, "worst": None}


@pytest.fixture
def rng():
    return np.random.default_rng(5)
