"""qkv attend against NumPy: every option, every type, every shape."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
from cli_reference import attention, packed
from safetensors.numpy import load_file, save_file

ROOM = {"float64": 1e-12, "float32": 3e-5, "float16": 5e-3, "bfloat16": 4e-2}


def near(got, want, dtype="float32"):
    got = np.asarray(got).astype(np.float64)
    assert got.shape == np.shape(want)
    np.testing.assert_allclose(got, want, rtol=ROOM[dtype], atol=ROOM[dtype])


@pytest.fixture
def three(rng):
    """B 2, Hq 4, Hkv 2, Tq 7, Tk 9, D 8, Dv 5."""
    make = lambda *shape: rng.normal(size=shape).astype("f4")
    return {"q": make(2, 4, 7, 8), "k": make(2, 2, 9, 8), "v": make(2, 2, 9, 5)}


def run(qkv, tmp_path, options, *, stage=None):
    arguments = ["attend", *options, "-o", "o.npy", "--lse", "lse.npy"]
    if stage:
        arguments += ["--weights", "w.npy", "--stage", stage]
    qkv(*arguments)
    return [np.load(tmp_path / f"{n}.npy") for n in (["o", "lse", "w"] if stage else ["o", "lse"])]


# name: (options of the command, arrays saved as files, options of the reference)
OPTIONS = {
    "plain": ([], {}, {}),
    "causal": (["--causal"], {}, {"causal": "inclusive"}),
    "causal_strict": (["--causal-strict"], {}, {"causal": "strict"}),
    "top_left": (["--causal", "--align", "top-left"], {}, {"causal": "inclusive", "align": "top-left"}),
    "bottom_right": (["--causal", "--align", "bottom-right"], {}, {"causal": "inclusive"}),
    "window": (["--window", "2,1"], {}, {"window": (2, 1)}),
    "window_left": (["--window", "3,-1"], {}, {"window": (3, -1)}),
    "window_right": (["--window=-1,0"], {}, {"window": (-1, 0)}),
    "scale": (["--scale", "-0.7"], {}, {"scale": -0.7}),
    "softcap": (["--softcap", "1.5", "--scale", "3"], {}, {"softcap": 1.5, "scale": 3}),
    "kv_lens": (["--kv-lens", "3,9"], {}, {"kv_lens": [3, 9]}),
    "kv_lens_file": ([], {"kv_lens": np.array([4, 0])}, {"kv_lens": [4, 0]}),
    "kv_lens_i32": ([], {"kv_lens": np.array([4, 8], "i4")}, {"kv_lens": [4, 8]}),
    "kv_lens_one": (["--kv-lens", "5", "--causal"], {}, {"kv_lens": [5, 5], "causal": "inclusive"}),
    "kv_starts": (["--kv-starts", "2,0"], {}, {"kv_starts": [2, 0]}),
    "q_lens": (["--q-lens", "7,2", "--causal"], {}, {"q_lens": [7, 2], "causal": "inclusive"}),
    "q_offset": (["--q-offset", "-2", "--causal"], {}, {"q_offset": [-2, -2], "causal": "inclusive"}),
    "q_offsets": (["--q-offset", "3,-1", "--causal"], {}, {"q_offset": [3, -1], "causal": "inclusive"}),
    "q_offset_file": (["--causal"], {"q_offset": np.array([0, 5])}, {"q_offset": [0, 5], "causal": "inclusive"}),
    "threads": (["--threads", "3"], {}, {}),
    "precision": (["--precision", "highest"], {}, {}),
    "cpu": (["--cpu", "scalar"], {}, {}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_option(qkv, tmp_path, save, three, name):
    options, files, meant = OPTIONS[name]
    o, lse = run(qkv, tmp_path, [*save(**three, **files), *options])
    want_o, want_lse, _ = attention(*three.values(), **meant)
    near(o, want_o)
    near(lse, want_lse)


BROADCAST = [(), (9,), (7, 1), (7, 9), (4, 1, 9), (2, 1, 1, 9), (2, 4, 7, 9), (1, 4, 7, 9)]


@pytest.mark.parametrize("shape", BROADCAST)
def test_mask_and_bias_broadcast(qkv, tmp_path, save, three, rng, shape):
    mask = rng.random(shape) < 0.7
    bias = np.where(rng.random(shape) < 0.1, -np.inf, rng.normal(size=shape)).astype("f4")
    o, lse = run(qkv, tmp_path, save(**three, mask=mask, bias=bias))
    want_o, want_lse, _ = attention(*three.values(), mask=mask, bias=bias)
    near(o, want_o)
    near(lse, want_lse)
    o, _ = run(qkv, tmp_path, save(**three, mask=mask.astype("u1") * 255))
    near(o, attention(*three.values(), mask=mask)[0])


@pytest.mark.parametrize("shape", [(), (4,), (2, 1), (2, 4)])
def test_sinks_and_alibi(qkv, tmp_path, save, three, rng, shape):
    numbers = {"sinks": rng.normal(size=shape).astype("f4"),
               "alibi": rng.random(size=shape).astype("f2")}
    o, lse = run(qkv, tmp_path, [*save(**three, **numbers), "--causal"])
    want_o, want_lse, _ = attention(*three.values(), causal="inclusive", **numbers)
    near(o, want_o)
    near(lse, want_lse)


@pytest.mark.parametrize("shape", [(3, 2), (4, 3, 2), (2, 1, 3, 2), (2, 4, 1, 2), (2, 4, 3, 1)])
def test_block_mask(qkv, tmp_path, save, three, rng, shape):
    blocks = rng.random(shape) < 0.6
    options = [*save(**three, block_mask=blocks), "--block-size", "3,5"]
    o, lse = run(qkv, tmp_path, options)
    want_o, want_lse, _ = attention(*three.values(), block_mask=blocks, block_size=(3, 5))
    near(o, want_o)
    near(lse, want_lse)


@pytest.mark.parametrize("stage", ["scores", "capped", "biased", "weights"])
def test_stages(qkv, tmp_path, save, three, stage):
    bias = np.linspace(-1, 1, 9).astype("f4")
    options = [*save(**three, bias=bias), "--causal", "--softcap", "2"]
    _, _, w = run(qkv, tmp_path, options, stage=stage)
    _, _, stages = attention(*three.values(), bias=bias, causal="inclusive", softcap=2)
    near(w, stages[stage])


def test_many_options_together(qkv, tmp_path, save, three, rng):
    mask = rng.random((2, 1, 7, 9)) < 0.8
    sinks = np.array([0.5, -1, 0, 2], "f4")
    options = [*save(**three, mask=mask, sinks=sinks), "--causal", "--window", "4,-1", "--kv-lens", "9,6",
               "--kv-starts", "1,0", "--q-lens", "5,7", "--softcap", "4", "--threads", "2"]
    o, lse, w = run(qkv, tmp_path, options, stage="weights")
    want_o, want_lse, stages = attention(
        *three.values(), mask=mask, sinks=sinks, causal="inclusive", window=(4, -1), kv_lens=[9, 6],
        kv_starts=[1, 0], q_lens=[5, 7], softcap=4)
    near(o, want_o)
    near(lse, want_lse)
    near(w, stages["weights"])


@pytest.mark.parametrize("drop", [1, 2])
def test_lower_ranks(qkv, tmp_path, save, rng, drop):
    shapes = {"q": (1, 3, 5, 4), "k": (1, 3, 6, 4), "v": (1, 3, 6, 2)}
    if drop == 2:
        shapes = {n: (1, 1, *s[2:]) for n, s in shapes.items()}
    full = {n: rng.normal(size=s).astype("f4") for n, s in shapes.items()}
    o, lse, w = run(qkv, tmp_path, save(**{n: a.reshape(a.shape[drop:]) for n, a in full.items()}),
                    stage="weights")
    want_o, want_lse, stages = attention(*full.values())
    near(o, want_o.reshape(want_o.shape[drop:]))
    near(lse, want_lse.reshape(want_lse.shape[drop:]))
    near(w, stages["weights"].reshape(want_o.shape[drop:-1] + (6,)))


def test_packed(qkv, tmp_path, save, rng):
    q, k, v = (rng.normal(size=s).astype("f4") for s in [(10, 4, 8), (14, 2, 8), (14, 2, 6)])
    cu_q, cu_k = [0, 3, 3, 10], [0, 6, 7, 14]
    options = [*save(q=q, k=k, v=v), "--causal", "--cu-seqlens-q", "0,3,3,10", "--cu-seqlens-k", "0,6,7,14"]
    o, lse = run(qkv, tmp_path, options)
    want_o, want_lse = packed(q, k, v, cu_q, cu_k, causal="inclusive")
    near(o, want_o)
    near(lse, want_lse)
    options = save(q=q, k=k, v=v, cu_seqlens_q=np.array(cu_q), cu_seqlens_k=np.array(cu_k, "i4"))
    near(run(qkv, tmp_path, [*options, "--causal"])[0], want_o)


def test_packed_queries_only(qkv, tmp_path, save, rng):
    q, k, v = (rng.normal(size=s).astype("f4") for s in [(5, 2, 8), (2, 2, 6, 8), (2, 2, 6, 8)])
    options = [*save(q=q, k=k, v=v), "--cu-seqlens-q", "0,4,5", "--kv-lens", "6,2"]
    o, _ = run(qkv, tmp_path, options)
    for b, (rows, n) in enumerate([(slice(0, 4), 6), (slice(4, 5), 2)]):
        want = attention(q[rows].transpose(1, 0, 2)[None], k[b:b + 1], v[b:b + 1], kv_lens=[n])[0]
        near(o[rows], want[0].transpose(1, 0, 2))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_types_and_files(qkv, tmp_path, rng, dtype, ending):
    """In and out with every type through both kinds of file."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    arrays = {n: rng.normal(size=s).astype(kind) for n, s in
              {"q": (2, 4, 6), "k": (2, 5, 6), "v": (2, 5, 3)}.items()}
    if ending == "npy":
        for n, a in arrays.items():
            np.save(tmp_path / f"{n}.npy", a)
        source = ["--q", "q.npy", "--k", "k.npy", "--v", "v.npy"]
    else:
        save_file(arrays, tmp_path / "in.safetensors")
        source = ["--in", "in.safetensors"]
    qkv("attend", *source, "-o", f"o.{ending}", "--lse", f"lse.{ending}")
    want_o, want_lse, _ = attention(*(a[None] for a in arrays.values()))
    if ending == "npy":
        o, lse = np.load(tmp_path / "o.npy"), np.load(tmp_path / "lse.npy")
        if dtype == "bfloat16":
            assert o.dtype == np.dtype("V2")
            o = o.view(kind)
    else:
        o = load_file(tmp_path / "o.safetensors")["o"]
        lse = load_file(tmp_path / "lse.safetensors")["lse"]
    assert o.dtype == kind
    assert lse.dtype == ("f8" if dtype == "float64" else "f4")
    near(o, want_o[0], dtype)
    near(lse, want_lse[0], dtype)


def test_mixed_types(qkv, tmp_path, rng):
    q = rng.normal(size=(3, 4)).astype("f4")
    k = rng.normal(size=(5, 4)).astype(ml_dtypes.bfloat16)
    v = rng.normal(size=(5, 4)).astype("f2")
    save_file({"k": k, "other": k}, tmp_path / "k.safetensors")
    save_file({"anything": v}, tmp_path / "v.safetensors")
    np.save(tmp_path / "q.npy", q)
    want, _, _ = attention(*(a[None, None] for a in (q, k, v)))
    for key in "k.safetensors", "k.safetensors:other":
        qkv("attend", "--q", "q.npy", "--k", key, "--v", "v.safetensors", "-o", "o.npy")
        near(np.load(tmp_path / "o.npy"), want[0, 0])


def test_all_inputs_in_one_file(qkv, tmp_path, three, rng):
    more = {"mask": rng.random((7, 9)) < 0.8, "bias": rng.normal(size=(4, 1, 9)).astype("f4"),
            "sinks": rng.normal(size=4).astype("f4"), "alibi": rng.random(4).astype("f4"),
            "kv_lens": np.array([9, 7], "i4"), "kv_starts": np.array([1, 0]), "q_lens": np.array([7, 6]),
            "q_offset": np.array([1, 2]), "block_mask": rng.random((1, 1)) < 2}
    save_file({**three, **more}, tmp_path / "in.safetensors")
    qkv("attend", "--in", "in.safetensors", "--causal", "-o", "o.npy")
    want, _, _ = attention(*three.values(), causal="inclusive", **more)
    near(np.load(tmp_path / "o.npy"), want)
    qkv("attend", "--in", "in.safetensors", "--causal", "--kv-lens", "8,8", "-o", "o.npy")
    want, _, _ = attention(*three.values(), causal="inclusive", **{**more, "kv_lens": [8, 8]})
    near(np.load(tmp_path / "o.npy"), want)


def test_outputs_share_a_file(qkv, tmp_path, save, three):
    qkv("attend", *save(**three), "-o", "all.safetensors", "--lse", "all.safetensors", "--weights",
        "all.safetensors")
    got = load_file(tmp_path / "all.safetensors")
    want_o, want_lse, stages = attention(*three.values())
    assert set(got) == {"o", "lse", "weights"}
    near(got["o"], want_o)
    near(got["lse"], want_lse)
    near(got["weights"], stages["weights"])


@pytest.mark.parametrize("order", [">f4", "<f4", ">f8", ">f2"])
@pytest.mark.parametrize("fortran", [False, True])
def test_byte_and_axis_order(qkv, tmp_path, save, three, order, fortran):
    stored = {n: np.asarray(a.astype(order), order="F" if fortran else "C") for n, a in three.items()}
    o, _ = run(qkv, tmp_path, save(**stored))
    near(o, attention(*(a.astype(order) for a in three.values()))[0],
         "float16" if order == ">f2" else "float32")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(qkv, tmp_path, save, three, version):
    options = save(**three)
    with open(tmp_path / "q.npy", "wb") as file:
        np.lib.format.write_array(file, three["q"], version=version)
    near(run(qkv, tmp_path, options)[0], attention(*three.values())[0])


@pytest.mark.parametrize("name, size", [("Tq", 0), ("Tk", 0), ("B", 0)])
def test_nothing(qkv, tmp_path, save, name, size):
    n = {"B": 2, "Tq": 3, "Tk": 4, name: size}
    shapes = {"q": (n["B"], 2, n["Tq"], 4), "k": (n["B"], 1, n["Tk"], 4), "v": (n["B"], 1, n["Tk"], 6)}
    o, lse, w = run(qkv, tmp_path, save(**{x: np.ones(s, "f4") for x, s in shapes.items()}),
                    stage="weights")
    assert o.shape == (n["B"], 2, n["Tq"], 6) and not o.any()
    assert lse.shape == o.shape[:3] and (lse == -np.inf).all() | (lse.size == 0)
    assert w.shape == (*lse.shape, n["Tk"])


def test_hidden_nan_stays_hidden(qkv, tmp_path, save, three):
    three["k"][0, :, 5:] = np.nan
    three["v"][0, :, 5:] = np.nan
    o, _ = run(qkv, tmp_path, [*save(**three), "--kv-lens", "5,9"])
    assert np.isfinite(o).all()
    o, _ = run(qkv, tmp_path, save(**three))
    assert np.isnan(o[0]).all() and np.isfinite(o[1]).all()


def test_threads_and_batch_do_not_change_bits(qkv, tmp_path, save, rng):
    q, k, v = (rng.normal(size=(3, 2, n, 32)).astype("f4") for n in (70, 900, 900))
    many, _ = run(qkv, tmp_path, [*save(q=q, k=k, v=v), "--threads", "4", "--causal"])
    one, _ = run(qkv, tmp_path, [*save(q=q, k=k, v=v), "--threads", "1", "--causal"])
    alone, _ = run(qkv, tmp_path, [*save(q=q[1:2], k=k[1:2], v=v[1:2]), "--causal"])
    assert many.tobytes() == one.tobytes()
    assert many[1:2].tobytes() == alone.tobytes()


def test_report(qkv, save, three):
    done = qkv("attend", *save(**three), "-o", "o.npy", "--lse", "l.npy", "--threads", "2", "--json")
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert report["inputs"]["q"] == {"type": "f32", "shape": [2, 4, 7, 8]}
    assert [x["name"] for x in report["outputs"]] == ["o", "lse"]
    assert report["outputs"][0]["shape"] == [2, 4, 7, 5]
    assert report["visible_pairs"] == 2 * 4 * 7 * 9
    assert report["useful_flops"] == 2 * report["visible_pairs"] * (8 + 5)
    assert re.fullmatch(r"(attend|decode)_f32_f32_f32__\w+", report["kernel"])
    assert report["threads"] == 2 and report["seconds"] > 0 and report["workspace_bytes"] > 0
    done = qkv("attend", *save(**three), "-o", "o.npy", "--cpu", "scalar")
    assert done.stdout == ""
    assert re.search(r"(attend|decode)_f32_f32_f32__scalar", done.stderr) and "o.npy" in done.stderr
