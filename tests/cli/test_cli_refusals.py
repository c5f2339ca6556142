"""Wrong calls: exit code 2 and one sentence that names what is wrong.  Nothing is written."""

import subprocess

import ml_dtypes
import numpy as np
import pytest
from cli_command import COMMAND
from safetensors.numpy import save_file

ONE = np.ones((1, 2, 3, 4), "f4")


@pytest.fixture
def files(save):
    return save(q=ONE, k=ONE, v=ONE)


@pytest.mark.parametrize("options, words", [
    (["--frobnicate"], "--frobnicate"),
    (["-x"], "-x"),
    (["extra"], "extra"),
    (["--scale"], "--scale needs a value"),
    (["--scale", "big"], "--scale is big"),
    (["--scale", "nan"], "--scale is nan"),
    (["--scale", "inf"], "--scale is inf"),
    (["--softcap", "-1"], "--softcap is -1"),
    (["--window", "3"], "--window is 3"),
    (["--window", "-2,0"], "--window is -2,0"),
    (["--window", "1,2,3"], "--window is 1,2,3"),
    (["--block-size", "0,64"], "--block-size is 0,64"),
    (["--align", "middle"], "accepted are bottom-right and top-left"),
    (["--precision", "exact"], "accepted are highest, high and medium"),
    (["--stage", "raw"], "accepted are scores, capped, biased and weights"),
    (["--threads", "0"], "--threads is 0"),
    (["--threads", "99999999999999999999"], "--threads"),
    (["--cpu", "pentium"], "--cpu is pentium; accepted are scalar"),
    (["--causal", "--causal-strict"], "exclude each other"),
    (["--kv-lens", "5,"], "--kv-lens is 5,"),
    (["--kv-lens", "1,2"], "kv_lens has shape [2]"),
    (["--kv-lens", "4"], "kv_lens"),
    (["--kv-lens", "-1"], "kv_lens"),
    (["--q-lens", "9"], "q_lens"),
    (["--kv-starts", "4"], "kv_starts"),
    (["--q-offset", "99999999999"], "q_offset"),
    (["--kv-lens", "lens.txt"], "--kv-lens is lens.txt"),
    (["--mask", "missing.npy"], "missing.npy"),
    (["--mask", "mask.bin"], "accepted are files ending in .npy or .safetensors"),
    (["--in", "x.npy"], "--in is x.npy"),
    (["--seed", "3"], "--seed"),
    (["--labels", "w.txt"], "need --heatmap"),
    (["--heatmap", "h.svg", "--heatmap-head", "2"], "--heatmap-head is 2"),
    (["--heatmap", "h.svg", "--heatmap-head", "0,x"], "--heatmap-head is 0,x"),
    (["--heatmap", "h.svg", "--heatmap-seq", "1"], "--heatmap-seq is 1"),
    (["--heatmap", "h.svg", "--labels", "missing.txt"], "missing.txt"),
    (["--lse", "lse.txt"], "--lse is lse.txt"),
    (["--lse", "o.npy"], "a .npy file holds one tensor"),
])
def test_option(qkv, files, tmp_path, options, words):
    done = qkv("attend", *files, "-o", "o.npy", *options, code=2)
    assert done.stderr.startswith("qkv attend: ") and words in done.stderr, done.stderr
    if "--heatmap" not in options:
        assert not (tmp_path / "o.npy").exists()


@pytest.mark.parametrize("arrays, words", [
    ({"k": np.ones((1, 2, 3, 5), "f4")}, "channels"),
    ({"k": np.ones((1, 2, 4, 4), "f4")}, "tokens"),
    ({"v": np.ones((1, 1, 3, 4), "f4")}, "heads"),
    ({"k": np.ones((1, 3, 3, 4), "f4"), "v": np.ones((1, 3, 3, 4), "f4")}, "n_kv_heads is 3"),
    ({"q": np.ones((2, 2, 3, 4), "f4")}, "sequences"),
    ({"q": np.ones(4, "f4")}, "q has shape [4]"),
    ({"q": np.ones((1, 1, 2, 3, 4), "f4")}, "q has shape [1,1,2,3,4]"),
    ({"q": np.ones((1, 2, 3, 0), "f4"), "k": np.ones((1, 2, 3, 0), "f4")}, "head_dim is 0"),
    ({"q": ONE.astype("i4")}, "type"),
    ({"q": ONE.astype("f8")}, "f64"),
    ({"q": ONE.astype("c8")}, "'<c8'"),
    ({"q": ONE.astype("i2")}, "'<i2'"),
    ({"q": ONE.astype("U3")}, "'<U3'"),
    ({"q": np.ones(3, [("a", "f4"), ("b", "f4")])}, "structure"),
    ({"mask": np.ones((3, 3), "f4")}, "mask has type f32"),
    ({"mask": np.ones((2, 3), "?")}, "mask has shape [2,3]"),
    ({"bias": np.ones((1, 1, 1, 1, 3), "f4")}, "bias has shape"),
    ({"bias": np.ones((3, 3), "i4")}, "bias"),
    ({"bias": np.ones((3, 3), "f8")}, "bias"),
    ({"sinks": np.ones(3, "f4")}, "sinks has shape [3]"),
    ({"alibi": np.ones((2, 2), "f4")}, "alibi has shape [2,2]"),
    ({"block_mask": np.ones((2, 1), "?")}, "block_mask has shape [2,1]"),
    ({"block_mask": np.ones((1, 1), "f4")}, "block_mask has type"),
    ({"kv_lens": np.ones(1, "f4")}, "kv_lens has type f32"),
    ({"cu_seqlens_q": np.array([0, 3])}, "[T,H,D]"),
])
def test_shapes_and_types(qkv, save, tmp_path, arrays, words):
    done = qkv("attend", *save(**{"q": ONE, "k": ONE, "v": ONE, **arrays}), "-o", "o.npy", code=2)
    assert words in done.stderr, done.stderr
    assert not (tmp_path / "o.npy").exists()


@pytest.mark.parametrize("cu, words", [
    ("0,4,2", "cu_seqlens_q[2] is 2"),
    ("0,4,7", "cu_seqlens_q[2] is 7"),
    ("-1,4,6", "cu_seqlens_q[0] is -1"),
    ("0,2,4,6", "3 sequences"),
    ("6", "cu_seqlens_q has shape []"),
])
def test_packed(qkv, save, cu, words):
    files = save(**{n: np.ones((6, 2, 4), "f4") for n in "qkv"})
    done = qkv("attend", *files, "--cu-seqlens-k", "0,4,6", "--cu-seqlens-q", cu, "-o", "o.npy", code=2)
    assert words in done.stderr, done.stderr


def test_missing_inputs_and_outputs(qkv, files):
    assert "there is no v" in qkv("attend", *files[:4], "-o", "o.npy", code=2).stderr
    assert "nothing to write" in qkv("attend", *files, code=2).stderr


def test_names_in_safetensors(qkv, tmp_path):
    save_file({"q": ONE, "keys": ONE, "w": ONE}, tmp_path / "t.safetensors")
    assert "there is no k" in qkv("attend", "--in", "t.safetensors", "-o", "o.npy", code=2).stderr
    done = qkv("attend", "--in", "t.safetensors", "--k", "t.safetensors", "-o", "o.npy", code=2)
    assert 'no tensor is named "k"' in done.stderr and "keys" in done.stderr
    save_file({"q": ONE.astype(ml_dtypes.float8_e4m3fn)}, tmp_path / "t.safetensors")
    done = qkv("attend", "--q", "t.safetensors", "-o", "o.npy", code=2)
    assert "F8_E4M3" in done.stderr


@pytest.mark.parametrize("arguments", [
    [], ["frobnicate"], ["--frobnicate"], ["help", "frobnicate"], ["help", "attend", "check"],
    ["info", "--frobnicate"], ["info", "extra"], ["--version", "extra"], ["check", "--cases", "0"],
    ["check", "--seed", "-1"], ["check", "-o", "o.npy"], ["check", "--cpu", "pentium"],
    ["check", "--q", "missing.npy"],
])
def test_other_commands(qkv, arguments):
    qkv(*arguments, code=2)


def test_standard_output_full(qkv):
    with open("/dev/full", "w") as full:
        for arguments in ["info"], ["info", "--json"], ["help"], ["check", "--cases", "1"]:
            done = subprocess.run([COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
            assert done.returncode == 2 and "standard output" in done.stderr
