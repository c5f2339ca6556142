"""Tables: what is ahead, what is behind, what is missing, and the block in README.md."""

import pytest
from bench_paths import ROOT
from peers import readme, report
from peers.cases import Case

CASE = Case("some case", "prefill", "f32", 1, 1, 64, 64, 8, 8)


def line(rate, ratio, rms=1e-7):
    return {"how": "a call", "rate": rate, "ratio": ratio, "spread": 0.04, "seconds": 1 / rate,
            "rms": rms, "worst": None if rms is None else 10 * rms}  # fmt: skip


@pytest.fixture
def results():
    """Two peers that compute, one that is behind qkv, one ahead; one that refuses, one missing."""
    lines = {
        "qkv": line(100.0, [1.0, 1.0, 1.0]),
        "a": line(50.0, [2.0, 1.9, 2.1]),
        "b": line(125.0, [0.8, 0.75, 0.85]),
        "c": {"refused": "takes no f32"},
        "d": {"refused": "No module named 'd'"},
    }
    known = {k: {"name": k.upper(), "version": "1", "settings": "", "missing": ""} for k in "abc"}
    known = {"qkv": {"name": "qkv", "version": "0", "settings": "", "missing": ""}, **known}
    known["d"] = {"missing": "No module named 'd'"}
    return {
        "command": "make bench-peers", "date": "2026-01-02", "revision": "abc", "name": "Test",
        "cpu": "Test CPU", "processors": 2, "system": "Linux", "environment": "X=1",
        "threads": [1], "rounds": 3, "libraries": known,
        "results": [{"threads": 1, "case": CASE.to_json(), "unit": "GFLOP/s", "lines": lines}],
    }  # fmt: skip


def test_columns_are_those_who_computed_something(results):
    assert report.columns(results) == ["qkv", "a", "b"]
    result = results["results"][0]
    assert report.best_peer(result)[0] == "b"
    result["lines"]["a"]["rate"] = 130.0  # the ratios of rounds count
    assert report.best_peer(result)[0] == "b"


def test_what_is_behind_is_shown(results):
    text = report.markdown(results)
    assert "**0.80 behind**" in text
    assert "- some case, 1 thread: B takes 0.80 of qkv's time (0.75 to 0.85)" in text
    assert "None in this run." not in text
    assert "| 100 ±2 % | 50.0 ±2 % (2.00) | 125 ±2 % (0.80) |" in text


def test_what_is_ahead_and_even(results):
    result = results["results"][0]
    result["lines"]["b"]["ratio"] = [1.02, 0.99, 1.05]
    assert report.verdict(result) == "1.02 even"
    result["lines"]["b"]["ratio"] = [0.995, 0.993, 0.998]
    assert report.verdict(result).endswith("even")
    del result["lines"]["b"]
    assert report.verdict(result) == "2.00 ahead"
    assert "None in this run." in report.markdown(results)
    del result["lines"]["a"]
    assert report.verdict(result) == "" and report.best_peer(result) is None


def test_reasons_are_named_once(results):
    text = report.markdown(results)
    assert "- C: takes no f32: some case" in text
    assert "- d: not in this run: No module named 'd'" in text
    assert text.count("No module named 'd'") == 1


def test_a_wrong_result_is_shown(results):
    results["results"][0]["lines"]["a"]["rms"] = None
    assert "**not finite**" in report.markdown(results)
    assert "1.0e-07 / 1.0e-06" in report.markdown(results)


def test_numbers_have_three_figures():
    assert [report.number(x) for x in (123.4, 12.34, 1.234, 0.1)] == ["123", "12.3", "1.23", "0.10"]


# ---- README.md ---------------------------------------------------------------------------------


def test_block(results):
    text = readme.block(results, "bench/results/peers-test.md")
    assert "Test, revision abc, 2026-01-02 (`bench/results/peers-test.md`):" in text
    assert "| case | qkv, 1 thread | best other | ratio |" in text
    assert "| some case | 100 GFLOP/s | B 125 | **0.80 behind** |" in text


def test_block_with_holes(results):
    """A case that was measured with one number of threads only, and by nobody else."""
    results["threads"] = [1, 2]
    results["results"][0]["lines"] = {"qkv": {"refused": "no"}}
    assert "| some case |  |  |  |  |  |  |" in readme.block(results, "x")


def test_replacing_is_idempotent():
    text = f"a\n\n{readme.BEGIN}\nold\nlines\n{readme.END}\n\nb\n"
    once = readme.replace(text, "new")
    assert once == f"a\n\n{readme.BEGIN}\nnew\n{readme.END}\n\nb\n"
    assert readme.replace(once, "new\n") == once


@pytest.mark.parametrize(
    "text",
    [
        "nothing", readme.BEGIN, readme.END, f"{readme.END}\n{readme.BEGIN}",
        f"{readme.BEGIN}{readme.END}{readme.BEGIN}", f"{readme.BEGIN}{readme.BEGIN}{readme.END}",
    ],
)  # fmt: skip
def test_a_document_without_markers_is_refused(text):
    with pytest.raises(ValueError, match="must have one line <!-- peers:begin -->"):
        readme.replace(text, "new")


def test_the_readme_has_the_block():
    text = (ROOT / "README.md").read_text()
    assert "new" in readme.replace(text, "new")
