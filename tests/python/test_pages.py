"""Keys and values in pages and as codes, read in place: against copies in NumPy, gathered and decoded."""

import re

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qkv
from formula import close, formula

FLOATS = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
FLOAT8 = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
FORMATS = [*FLOATS, "int8", "int4", *FLOAT8]


def unpack(codes, D):
    """int4: the even channel is in the low nibble."""
    both = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)
    return both[..., :D]


def spread(scale, D, group):
    """One scale a channel, of one a group."""
    return np.repeat(scale, group or D, axis=-1)[..., :D].astype(np.float32)


def make(rng, shape, form, group, wide):
    """(array, options, its numbers in f32) of one side, [.., D]."""
    D = shape[-1]
    if form in FLOATS:
        x = rng.standard_normal(shape).astype(FLOATS[form])
        return x, {}, x.astype(np.float32)
    groups = -(-D // group) if group else 1
    scale = (0.01 + 0.02 * rng.random((*shape[:-1], groups))).astype(wide)
    options = {"scale": scale, "group": group or None}
    factor = spread(scale, D, group)
    if form == "int8":
        x = rng.integers(-127, 128, shape, dtype=np.int8)
        return x, options, x * factor
    if form == "int4":
        x = rng.integers(0, 256, (*shape[:-1], (D + 1) // 2), dtype=np.uint8)
        low = rng.standard_normal(scale.shape).astype(wide)
        options |= {"min": low, "format": "int4"}
        return x, options, spread(low, D, group) + unpack(x, D) * factor
    x = rng.standard_normal(shape).astype(FLOAT8[form])
    numbers = x.astype(np.float32) * factor
    if rng.random() < 0.5:
        return x.view(np.uint8), {**options, "format": form}, numbers
    return x, options, numbers


def named(side, options):
    return {f"{side}_{name}": value for name, value in options.items()}


def gather(pool, table, n):
    """[B][H][n][D] of a pool [P][H][t][D] and a table [B][H][pages]."""
    B, H, _ = table.shape
    rows = [[np.concatenate(pool[table[b, h], h])[:n] for h in range(H)] for b in range(B)]
    return np.stack([np.stack(r) for r in rows])


def tokens_first(x):
    """The same pool in memory as [P][t][H][D]."""
    return None if x is None else np.ascontiguousarray(x.swapaxes(1, 2))


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    B, Hkv, G = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    D, Dv = draw(st.integers(1, 70)), 2 * draw(st.integers(1, 35))
    t, n = draw(st.sampled_from([1, 7, 16, 64, 130])), draw(st.integers(1, 5))
    P, Tq = n * B * Hkv + 3, draw(st.integers(1, 20))
    sides = {}
    for side, width in (("k", D), ("v", Dv)):
        group = draw(st.sampled_from([0, 2, 6, 32]))
        sides[side] = make(rng, (P, Hkv, t, width), draw(st.sampled_from(FORMATS)),
                           group if group <= width else 0, draw(st.sampled_from([np.float32, np.float16])))  # fmt: skip
    per_head = draw(st.booleans())
    table = rng.permutation(P)[: n * B * Hkv].reshape(B, Hkv, n)
    kv_lens = rng.integers(0, n * t + 1, B)
    shown = table if per_head else table[:, 0]
    options = {"block_table": shown.astype(np.int32), "kv_lens": kv_lens, "causal": draw(st.booleans())}
    if draw(st.booleans()):
        options["window"] = (draw(st.sampled_from([0, 5, 100])), -1)
    if draw(st.booleans()):
        options["softcap"] = 3.0
    q = rng.standard_normal((B, Hkv * G, Tq, D)).astype(FLOATS[draw(st.sampled_from(list(FLOATS)))])
    table = table if per_head else np.repeat(table[:, :1], Hkv, axis=1)
    return q, sides, table, options, n * t, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_random_pools(problem):
    q, sides, table, options, tokens, pthd, poison = problem
    (k, k_options, k_numbers), (v, v_options, v_numbers) = sides["k"], sides["v"]
    codes = named("k", k_options) | named("v", v_options)
    want_on = [gather(x, table, tokens) for x in (k_numbers, v_numbers)]
    dense = {n: x for n, x in options.items() if n != "block_table"}
    want = formula(q, *want_on, **dense)
    if pthd:
        k, v = tokens_first(k), tokens_first(v)
        codes = {n: tokens_first(x) if isinstance(x, np.ndarray) else x for n, x in codes.items()}
        options["page_layout"] = "pthd"
    exact, room, _ = qkv.reference_attention(q, k, v, return_budget=True, **codes, **options)
    np.testing.assert_allclose(exact, want["o"], rtol=1e-6, atol=1e-6)
    o, lse = qkv.attention(q, k, v, return_lse=True, **codes, **options)
    assert (abs(o.astype(np.float64) - exact) <= room).all()
    close(lse, want["lse"])
    if poison and not pthd:
        # What no query sees may be anything: numbers in other pages, entries past the lengths.
        seen = np.unique(np.concatenate([
            table[b, :, : -(-options["kv_lens"][b] // k.shape[2])].ravel() for b in range(len(q))]))  # fmt: skip
        hidden = np.setdiff1d(np.arange(len(k)), seen)
        for x in [k, v, *(y for y in codes.values() if isinstance(y, np.ndarray))]:
            x[hidden] = np.nan if x.dtype.kind not in "iu" else 255 if x.dtype == np.uint8 else -1
        shown = options["block_table"].copy()
        for b in range(len(q)):
            shown[b, ..., -(-options["kv_lens"][b] // k.shape[2]) :] = -77
        again = qkv.attention(q, k, v, **codes, **options | {"block_table": shown})
        np.testing.assert_array_equal(again, o)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("D", [8, 64, 80])
def test_dense_codes(rng, form, D):
    """Codes without pages, scales by token, by channel, by head and one for all."""
    q = rng.standard_normal((2, 4, 3, D), dtype=np.float32)
    k, options, numbers = make(rng, (2, 2, 90, D), form, 0, np.float32)
    want = formula(q, numbers, numbers, causal=True)["o"]
    close(qkv.attention(q, k, k, causal=True, **named("k", options), **named("v", options)), want)
    if form in ("int8", *FLOAT8):
        plain = k.view(FLOAT8[form]) if form in FLOAT8 else k
        base = plain.astype(np.float32)
        for shape in [(2, 2, 1, D), (1, 2, 1, 1), (1, 1, 1, 1), ()]:
            scale = (0.01 * (0.5 + rng.random(shape))).astype(np.float32)
            want = formula(q, base * scale, base / 128, causal=True)["o"]
            given = float(scale) if shape == () else scale
            close(qkv.attention(q, plain, plain, causal=True, k_scale=given, v_scale=1 / 128), want)


def test_paged_bits_are_those_of_dense(rng):
    """Pages and their size change no bit."""
    q = rng.standard_normal((2, 4, 1, 64), dtype=np.float32)
    k, v = (rng.standard_normal((2, 2, 512, 64)).astype(ml_dtypes.bfloat16) for _ in "kv")
    want = qkv.attention(q, k, v, causal=True, kv_lens=[500, 77])
    for t in (1, 16, 64, 100, 512):
        n = -(-512 // t)
        full = np.zeros((2, 2, 2, n * t, 64), k.dtype)
        full[:, :, :, :512] = np.stack([k, v])
        pools = full.reshape(2, 2, 2, n, t, 64).swapaxes(2, 3).reshape(2, 2 * n, 2, t, 64)
        order = rng.permutation(2 * n)
        place = np.argsort(order).reshape(2, n)
        got = qkv.attention(q, *(x[order] for x in pools), causal=True, kv_lens=[500, 77], block_table=place)
        np.testing.assert_array_equal(got, want)


def test_joined_pool_in_place(rng):
    """The layouts of vLLM and FlashInfer, as views of one array."""
    B, Hkv, D, t, P = 2, 2, 32, 16, 9
    q = rng.standard_normal((B, 4, 1, D), dtype=np.float32)
    table, lens = np.array([[3, 1, 7], [0, 8, 2]]), [40, 17]
    nhd = rng.standard_normal((P, 2, t, Hkv, D)).astype(np.float16)
    hnd = np.ascontiguousarray(nhd.swapaxes(2, 3))
    apart = np.ascontiguousarray(nhd.swapaxes(0, 1))
    options = {"block_table": table, "kv_lens": lens, "causal": True}
    want = qkv.attention(q, nhd[:, 0], nhd[:, 1], page_layout="pthd", **options)
    close(want, formula(q, *(gather(hnd[:, i], np.repeat(table[:, None], 2, 1), 48) for i in (0, 1)),
                        causal=True, kv_lens=lens)["o"])  # fmt: skip
    np.testing.assert_array_equal(qkv.attention(q, hnd[:, 0], hnd[:, 1], **options), want)
    np.testing.assert_array_equal(qkv.attention(q, *apart, page_layout="pthd", **options), want)
    nhd[3, 1, 0] = 100  # seen through the view at once: nothing was copied before
    assert (qkv.attention(q, nhd[:, 0], nhd[:, 1], page_layout="pthd", **options) != want).any()


def test_packed_queries(rng):
    """attention_varlen over pages: new tokens of unequal numbers against a pool."""
    Hkv, D, t, P = 2, 16, 8, 12
    k, v = rng.standard_normal((2, P, Hkv, t, D), dtype=np.float32)
    table, lens, cu = np.array([[4, 2, 9], [11, 0, 5], [3, 1, 6]]), [20, 3, 24], [0, 5, 6, 13]
    q = rng.standard_normal((13, 4, D), dtype=np.float32)
    o, lse = qkv.attention_varlen(q, k, v, cu, block_table=table, kv_lens=lens, causal=True, return_lse=True)
    for b in range(3):
        rows = slice(cu[b], cu[b + 1])
        one = q[rows].swapaxes(0, 1)[None]
        keys = [gather(x, np.repeat(table[b : b + 1, None], 2, 1), 24) for x in (k, v)]
        want = formula(one, *keys, kv_lens=[lens[b]], causal=True)
        close(o[rows].swapaxes(0, 1)[None], want["o"])
        close(lse[None, :, rows], want["lse"])
    plan = qkv.Plan(q, k, v, cu_seqlens_q=cu, block_table=table, kv_lens=lens, causal=True)
    np.testing.assert_array_equal(plan(q, k, v), o)


@pytest.mark.parametrize("form", ["bf16", "int8", "e4m3"])
def test_latent_rows(rng, form):
    """Absorbed MLA: values are the keys' first channels, the rotary part lies apart."""
    c, r, t, P, H = 64, 16, 16, 10, 8
    latent, options, numbers = make(rng, (P, 1, t, c), form, 32 if form != "bf16" else 0, np.float32)
    rope = rng.standard_normal((P, 1, t, r)).astype(ml_dtypes.bfloat16)
    q = rng.standard_normal((2, H, 1, c + r), dtype=np.float32)
    table, lens = np.array([[5, 2, 0], [9, 1, 7]]), [33, 48]
    rows = [gather(x, table[:, None], 48) for x in (numbers, rope.astype(np.float32))]
    want = formula(q, np.concatenate(rows, -1), rows[0], kv_lens=lens, causal=True, scale=0.1)["o"]
    got = qkv.attention(q, latent, latent, k_rope=rope, block_table=table, kv_lens=lens, causal=True, scale=0.1,
                        **named("k", options), **named("v", options))  # fmt: skip
    close(got, want)


def test_torch_pools(rng):
    g = torch.Generator().manual_seed(3)
    q = torch.randn(2, 4, 1, 32, generator=g)
    k, v = (torch.randn(6, 16, 2, 32, generator=g) for _ in "kv")
    table = torch.tensor([[1, 4], [0, 5]])
    options = {"block_table": table, "kv_lens": torch.tensor([20, 32]), "page_layout": "pthd"}
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        k8, v8 = k.to(dtype), v.to(dtype)
        got = qkv.attention(q, k8, v8, k_scale=2.0, v_scale=torch.tensor(0.5), **options)
        assert isinstance(got, torch.Tensor)
        close(got, qkv.attention(q, k8.float() * 2, v8.float() / 2, **options))
    ints = torch.randint(-127, 128, (6, 16, 2, 32), dtype=torch.int8, generator=g)
    scale = torch.rand(6, 16, 2, 1, generator=g) / 100
    close(qkv.attention(q, ints, v, k_scale=scale, **options), qkv.attention(q, ints * scale, v, **options))


def test_plan_takes_new_pages_and_scales(rng):
    q = rng.standard_normal((1, 2, 1, 16), dtype=np.float32)
    k, o, numbers = make(rng, (4, 1, 8, 16), "int8", 0, np.float32)
    v = rng.standard_normal((4, 1, 8, 16), dtype=np.float32)
    plan = qkv.Plan(q, k, v, block_table=[[0, 1]], k_scale=o["scale"], kv_lens=[13], causal=True)
    assert plan.visible_pairs == 26
    for table, factor in (([[0, 1]], 1), ([[3, 2]], 1), ([[2, 0]], 2)):
        got = plan(q, k, v, block_table=table, k_scale=o["scale"] * np.float32(factor))
        rows = [gather(x, np.array([table]), 16) for x in (numbers * factor, v)]
        close(got, formula(q, *rows, kv_lens=[13])["o"])
    with pytest.raises(ValueError, match=re.escape("block_table is i32 of shape (1, 3)")):
        plan(q, k, v, block_table=[[0, 1, 2]])


Q = np.zeros((2, 4, 3, 8), np.float32)
POOL = np.zeros((5, 2, 16, 8), np.float32)
INT = POOL.astype(np.int8)
BYTES = POOL.astype(np.uint8)
TABLE = [[0, 1], [2, 3]]


@pytest.mark.parametrize("k, v, options, kind, sentence", [
    (POOL, POOL, {"block_table": [0, 1]}, ValueError, "block_table has shape (2,); (B, pages) or (B, Hkv, pages)"),
    (POOL, POOL, {"block_table": [[0, 1]]}, ValueError, "block_table has shape (1, 2)"),
    (POOL, POOL, {"block_table": [[0.5], [1]]}, TypeError, "block_table has dtype float64; integers"),
    (POOL, POOL, {"block_table": [[2**31], [1]]}, ValueError, "does not fit 32 bits"),
    (POOL, POOL, {"block_table": [[0, 5], [2, 3]]}, ValueError, "block_table has page 5 as entry 1 of sequence 0"),
    (POOL, POOL, {"block_table": [[0, -1], [2, 3]]}, ValueError, "block_table has page -1"),
    (POOL, POOL, {"block_table": TABLE, "kv_lens": [33, 1]}, ValueError, "kv_lens[0] is 33; it must be 0 .. 32"),
    (POOL, POOL[:4], {"block_table": TABLE}, ValueError, "v has shape (4, 2, 16, 8); with this k it must be (5, 2, 16, 8)"),
    (POOL[0], POOL, {"block_table": TABLE}, ValueError, "k has shape (2, 16, 8); (pages, H, tokens, D) is expected"),
    (POOL[0], POOL, {"block_table": TABLE, "page_layout": "pthd"}, ValueError, "k has shape (2, 16, 8); (pages, tokens, H, D)"),
    (POOL, POOL[:, :, :9], {"block_table": TABLE, "page_layout": "pthd"}, ValueError, "v has shape (5, 2, 9, 8); with this k it must be (5, 2, 16, 8)"),
    (POOL, POOL, {"page_layout": "pthd"}, ValueError, "there is no block_table"),
    (POOL, POOL, {"block_table": TABLE, "page_layout": "thd"}, ValueError, "page_layout is 'thd'; one of 'phtd', 'pthd'"),
    (POOL[:0], POOL[:0], {"block_table": TABLE}, ValueError, "a pool needs pages"),
    (BYTES, POOL, {"block_table": TABLE, "k_scale": 1.0}, ValueError, "k is uint8; with k_format it is said"),
    (POOL, BYTES, {"block_table": TABLE, "v_scale": 1.0}, ValueError, "v is uint8; with v_format it is said"),
    (INT, POOL, {"block_table": TABLE, "k_scale": 1.0, "k_format": "e4m3"}, ValueError, "k_format is e4m3, but k is an array of i8"),
    (INT, POOL, {"block_table": TABLE, "k_scale": 1.0, "k_format": "int3"}, ValueError, "k_format is 'int3'; one of 'int8', 'int4'"),
    (INT, POOL, {"block_table": TABLE}, ValueError, "k_scale.type is none; codes of type i8 need scales"),
    (INT, POOL, {"block_table": TABLE, "k_scale": np.ones((5, 2, 16, 3), "f4")}, ValueError, "k_scale has 3 scales for 8 channels; give k_group"),
    (INT, POOL, {"block_table": TABLE, "k_scale": np.ones((5, 2, 15, 1), "f4")}, ValueError, "k_scale has shape (5, 2, 15, 1)"),
    (INT, POOL, {"block_table": TABLE, "k_scale": np.ones((5, 2, 16, 2), "f4"), "k_group": 3}, ValueError, "k_scale has shape (5, 2, 16, 2)"),
    (INT, POOL, {"block_table": TABLE, "k_scale": 1.0, "k_group": 0}, ValueError, "k_group is 0; 1 to 1024"),
    (INT, POOL, {"block_table": TABLE, "k_scale": 1.0, "k_group": 2.0}, TypeError, "k_group is 2.0; an integer"),
    (INT, POOL, {"block_table": TABLE, "k_scale": np.ones(1, ml_dtypes.bfloat16)}, ValueError, "k_scale.type is bf16"),
    (POOL, POOL, {"block_table": TABLE, "k_scale": 1.0}, ValueError, "only codes have scales"),
    (BYTES, POOL, {"block_table": TABLE, "k_scale": 1.0, "k_format": "int4"}, ValueError, "k has shape (5, 2, 16, 8); with this q it must be (5, 2, 16, 4)"),
    (BYTES[..., :4], POOL, {"block_table": TABLE, "k_scale": 1.0, "k_format": "int4"}, ValueError, "k_min.type is none"),
    (POOL, POOL, {"block_table": TABLE, "k_rope": POOL}, ValueError, "k_rope has shape (5, 2, 16, 8); its channels are the last ones"),
    (POOL, POOL, {"block_table": TABLE, "k_rope": POOL[:, :, :3, :2]}, ValueError, "k_rope has shape (5, 2, 3, 2); with this k"),
    (POOL, POOL, {"block_table": TABLE, "k_rope": POOL[..., :2]}, ValueError, "k has shape (5, 2, 16, 8); with this q it must be (5, 2, 16, 6)"),
    (POOL.astype(np.int16), POOL, {"block_table": TABLE}, TypeError, "k has dtype int16; float64, float32, float16 and bfloat16, in native byte order, are accepted; codes are int8"),
])  # fmt: skip
def test_refusals(k, v, options, kind, sentence):
    for call in (qkv.attention, qkv.reference_attention):
        with pytest.raises(kind, match=re.escape(sentence)):
            call(Q, k, v, **options)


@pytest.mark.parametrize("stage", ["scores", "capped", "biased", "weights"])
def test_looking_at_scores_of_pages(rng, stage):
    """Stages that show hidden keys need a page for each key that exists; the others do not."""
    q = rng.standard_normal((2, 4, 3, 8), dtype=np.float32)
    pool = rng.standard_normal((5, 2, 16, 8), dtype=np.float32)
    options = {"causal": True, "q_offset": [0, 0], "kv_lens": [20, 9], "return_weights": stage}
    _, w = qkv.reference_attention(q, pool, pool, block_table=[[1, 3], [4, 77]], **options)
    dense = gather(pool, np.repeat(np.array([[1, 3], [4, 0]])[:, None], 2, 1), 32)
    _, want = qkv.reference_attention(q, dense, dense, **options)
    for b, n in enumerate((20, 9)):
        np.testing.assert_allclose(w[b, ..., :n], want[b, ..., :n], rtol=1e-12)
    for call in (qkv.attention, qkv.reference_attention):
        run = lambda: call(q, pool, pool, block_table=[[1, -3], [4, 77]], **options)  # noqa: B023, E731
        if stage in ("scores", "capped"):
            with pytest.raises(ValueError, match="block_table has page -3"):
                run()
        else:
            run()


def test_varlen_refusals():
    rows = np.zeros((4, 4, 8), np.float32)
    with pytest.raises(ValueError, match="cu_seqlens_k is given together with block_table"):
        qkv.attention_varlen(rows, POOL, POOL, [0, 4], [0, 4], block_table=[[0]])
    with pytest.raises(ValueError, match="cu_seqlens_k is None; without a block_table it is needed"):
        qkv.attention_varlen(rows, rows, rows, [0, 4])
