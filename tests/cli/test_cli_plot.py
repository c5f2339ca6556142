"""bench/plot.py draws what qkv bench writes."""

import json
import pathlib
import subprocess
import sys

import pytest

PLOT = pathlib.Path(__file__).parents[2] / "bench" / "plot.py"


@pytest.fixture
def plot(tmp_path):
    def run(*arguments, code=0):
        done = subprocess.run([sys.executable, PLOT, *arguments], cwd=tmp_path, capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def roofline(qkv, tmp_path):
    qkv("bench", "--shape", "call", "--repeat", "1", "--memory", "16", "--json", "roof.json")
    return json.loads((tmp_path / "roof.json").read_text())


def check_pictures(tmp_path, stem):
    assert (tmp_path / f"{stem}.png").read_bytes().startswith(b"\x89PNG\r\n")
    svg = (tmp_path / f"{stem}.svg").read_text()
    assert "<svg" in svg and "</svg>" in svg
    return svg


def test_roofline(plot, roofline, tmp_path):
    assert plot("roof.json", "a").stdout == "wrote a.png\nwrote a.svg\n"
    svg = check_pictures(tmp_path, "a")
    environment = roofline["environment"]
    for words in environment["cpu"], "call-16-keys", "fma_f32_128", "GB/s", "1 thread,":
        assert words in svg
    plot("roof.json", "b")
    assert (tmp_path / "b.svg").read_text() == svg


def test_roofline_of_many_cases(plot, roofline, tmp_path):
    """Every family and type, both kinds of memory."""
    row = roofline["rows"][0]
    roofline["rows"] = [
        {**row, "name": f"case-{i}", "family": f"family {i % 9}", "type": type_, "cold": i % 2 == 0,
         "operations_per_byte": 2.0**i}
        for i, type_ in enumerate(["f32", "bf16", "f16", "f64"] * 5)
    ]  # fmt: skip
    (tmp_path / "roof.json").write_text(json.dumps(roofline))
    plot("roof.json", "a")
    svg = check_pictures(tmp_path, "a")
    assert all(f"case-{i}" in svg for i in range(20)) and "family 8" in svg


def scaling(qkv, *options):
    qkv("bench", "--scaling", "--repeat", "1", *options, "--json", "s.json")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_scaling(qkv, plot, tmp_path, threads):
    scaling(qkv, "--threads", threads, "--shape", "-d32-t256-")
    plot("s.json", "s")
    svg = check_pictures(tmp_path, "s")
    assert "prefill, D 32" in svg and "decode, D 32" in svg and "workspace" in svg


def test_scaling_with_a_failed_point(qkv, plot, tmp_path):
    scaling(qkv, "--threads", "1", "--shape", "prefill-f32-d32-t1")
    report = json.loads((tmp_path / "s.json").read_text())
    assert len(report["points"]) > 1
    point = report["points"][0]
    kept = "name", "family", "type", "D", "T", "Hq", "Hkv", "threads"
    report["points"][0] = {"error": "the process was ended", **{key: point[key] for key in kept}}
    (tmp_path / "s.json").write_text(json.dumps(report))
    plot("s.json", "s")
    assert "decode" not in check_pictures(tmp_path, "s")


@pytest.mark.parametrize("change, words", [
    ({"schema": "other"}, "schema 'other'"),
    ({"schema": "qkv-machine"}, "accepted are qkv-bench and qkv-bench-scaling"),
    ({"schema_version": 99}, "schema_version 99; accepted is 1"),
    ({"rows": []}, "holds no measurements"),
    ({"rows": [{"name": "append-bf16", "operations": 0}]}, "no case that computes anything"),
])
def test_other_files(plot, tmp_path, change, words):
    report = {"schema": "qkv-bench", "schema_version": 1, "rows": [{}], **change}
    (tmp_path / "r.json").write_text(json.dumps(report))
    done = plot("r.json", "r", code=2)
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert [f.name for f in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize("text, words", [
    ("{", "is not JSON"), ("[]", "schema None"), (None, "cannot be read"),
])
def test_broken_files(plot, tmp_path, text, words):
    if text is not None:
        (tmp_path / "r.json").write_text(text)
    assert words in plot("r.json", "r", code=2).stderr


def test_nowhere_to_write(plot, roofline):
    assert "missing/r.png cannot be written" in plot("roof.json", "missing/r", code=2).stderr
