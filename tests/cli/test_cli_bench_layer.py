"""qkv bench layer: its counts are exact and its numbers hang together."""

import json
import re
import resource

import pytest
from test_cli_bench import check_ceilings, check_environment

# d_model, heads, kv heads, D, c, r, n, Dv
WIDTHS = {"d-model": 96, "heads": 6, "kv-heads": 2, "head-dim": 16, "latent-dim": 32, "rope-dim": 8,
          "nope-dim": 12, "value-dim": 20}  # fmt: skip
SMALL = [word for name, value in WIDTHS.items() for word in (f"--{name}", value)]
D_MODEL, HQ, HKV, D, C, R, N, V = WIDTHS.values()
PREFILL, DECODE = 70, 300
PROJECTIONS = D_MODEL * (HQ + 2 * HKV) * D + HQ * D * D_MODEL
MLA_PROJECTIONS = D_MODEL * (HQ * (N + R) + C + R) + HQ * V * D_MODEL
NAMES = [f"prefill-{PREFILL}", f"decode-{DECODE}", f"mla-absorbed-{DECODE}", f"mla-expanded-{DECODE}"]


@pytest.fixture
def bench(qkv, tmp_path):
    def run(*options, code=0):
        arguments = ["bench", "layer", "--memory", 16, "--repeat", 2, *SMALL, "--prefill", PREFILL,
                     "--decode", DECODE, *options, "--json", "out.json"]  # fmt: skip
        done = qkv(*arguments, code=code)
        if code:
            return done
        report = json.loads((tmp_path / "out.json").read_text())
        assert report["schema_version"] == 1 and report["repeats"] == 2
        assert {name.replace("_", "-"): value for name, value in report["shape"].items()
                if name.replace("_", "-") in WIDTHS} == WIDTHS  # fmt: skip
        check_environment(report["environment"], " ".join(map(str, arguments)))
        check_ceilings(report["ceilings"])
        return report, {row.get("name", row.get("past")): row for row in report["rows"]}, done.stdout

    return run


def check_row(row):
    whole, attention, projections, rest = (row[n] for n in ("layer", "attention", "projections", "rest"))
    for part in whole, attention, projections:
        assert 0 < part["best_seconds"] <= part["median_seconds"] and part["calls"] >= 1
        share = part["roof_seconds"] / part["median_seconds"]
        assert part["fraction_of_roof"] == pytest.approx(share, rel=1e-4)
    left = whole["median_seconds"] - attention["median_seconds"] - projections["median_seconds"]
    assert rest["median_seconds"] == pytest.approx(left, abs=1e-7)
    assert whole["roof_seconds"] == pytest.approx(
        sum(part["roof_seconds"] for part in (attention, projections, rest)), rel=1e-4)  # fmt: skip
    reading = projections["bytes"] / row["read_gbytes_per_second"] / 1e9
    assert projections["roof_seconds"] >= reading * 0.999
    assert (projections["bound_by"] == "read") == (projections["roof_seconds"] <= reading * 1.001)
    assert 0 <= row["attention_error_over_budget"] <= 1
    assert row["layers"] * row["layer_bytes"] >= 16 << 20
    assert (row["layers"] - 1) * row["layer_bytes"] < 16 << 20


def test_counts(bench):
    report, rows, table = bench()
    assert report["schema"] == "qkv-bench-layer" and list(rows) == NAMES
    assert report["shape"]["cache"] == "f32"
    for name, row in rows.items():
        check_row(row)
        for part in "layer", "attention", "projections", "rest":
            assert re.search(rf"^{name} +{part} +-?[\d.]+ ms", table, re.M)
    prefill, decode, absorbed, expanded = (rows[name] for name in NAMES)
    assert (prefill["tokens"], prefill["past"]) == (PREFILL, 0)
    assert (decode["tokens"], decode["past"]) == (1, DECODE)

    pairs, keys = PREFILL * (PREFILL + 1) // 2, DECODE + 1
    assert prefill["attention"]["operations"] == 2 * pairs * HQ * 2 * D
    assert prefill["layer"]["operations"] == 2 * (PREFILL * PROJECTIONS + pairs * HQ * 2 * D)
    assert prefill["projections"]["operations"] == 2 * PREFILL * (PROJECTIONS + HQ * 2 * D)
    assert prefill["attention"]["bytes"] == 0 and prefill["layer_bytes"] >= 4 * PROJECTIONS
    assert decode["layer"]["operations"] == 2 * (PROJECTIONS + keys * HQ * 2 * D)
    assert decode["attention"]["operations"] == 2 * keys * HQ * 2 * D
    assert decode["attention"]["bytes"] == keys * HKV * 2 * D * 4

    inner = keys * HQ * (2 * C + R)
    assert absorbed["layer"]["operations"] == 2 * (MLA_PROJECTIONS + inner + HQ * C * (N + V))
    assert absorbed["attention"]["operations"] == 2 * inner
    assert absorbed["attention"]["bytes"] == keys * (C + R) * 4
    assert expanded["layer"]["operations"] == 2 * (
        MLA_PROJECTIONS + keys * HQ * (N + R + V) + keys * C * HQ * (N + V))  # fmt: skip
    assert expanded["rest"]["operations"] > 0 and decode["rest"]["operations"] == 0
    ratio = expanded["layer"]["median_seconds"] / absorbed["layer"]["median_seconds"]
    assert absorbed["times_faster"] == pytest.approx(ratio, rel=1e-4)
    assert 0 < absorbed["difference"] < 1e-5
    assert "times_faster" not in expanded and "difference" not in decode


def test_some_cases(bench):
    assert list(bench("--shape", "mla-exp")[1]) == [NAMES[3]]
    assert list(bench("--shape", "e")[1]) == NAMES
    assert list(bench("--shape", "decode", "--threads", 2)[1]) == [NAMES[1]]
    report, rows, _ = bench("--shape", "prefill", "--tier", "scalar")
    assert list(rows) == [NAMES[0]] and report["tier"] == "scalar"
    assert rows[NAMES[0]]["kernel"].endswith("__scalar")


@pytest.mark.parametrize("form, bytes_", [
    ("bf16", 2 * D), ("f16", 2 * D), ("int8", D + 4), ("int4", D / 2 + 4), ("e4m3", D + 4)])  # fmt: skip
def test_formats(bench, form, bytes_):
    report, rows, _ = bench("--shape", "decode", "--cache", form)
    assert report["shape"]["cache"] == form
    check_row(rows[NAMES[1]])
    assert rows[NAMES[1]]["attention"]["bytes"] == (DECODE + 1) * HKV * 2 * bytes_
    _, rows, _ = bench("--shape", "mla", "--cache", form)
    # Both read the same rounded latents.
    assert rows[NAMES[2]]["difference"] < 1e-5


def test_one_token(bench):
    _, rows, _ = bench("--prefill", 1, "--decode", 1)
    assert rows["prefill-1"]["attention"]["operations"] == 2 * HQ * 2 * D
    assert rows["decode-1"]["attention"]["operations"] == 2 * 2 * HQ * 2 * D


@pytest.mark.parametrize("decode, lengths", [(300, [64, 128, 256, 300]), (128, [64, 128]), (5, [5])])
def test_no_cache(bench, decode, lengths):
    """The work of both ways, and the same token out of both."""
    report, rows, table = bench("--no-cache", "--decode", decode)
    assert report["schema"] == "qkv-bench-layer-no-cache" and list(rows) == lengths
    for t, row in rows.items():
        keys = t + 1
        assert row["cache_multiply_adds"] == PROJECTIONS + keys * HQ * 2 * D
        again = keys * PROJECTIONS + keys * (keys + 1) // 2 * HQ * 2 * D
        assert row["no_cache_multiply_adds"] == again
        assert row["times_less"] == pytest.approx(again / row["cache_multiply_adds"], rel=1e-4)
        ratio = row["no_cache_seconds"] / row["cache_seconds"]
        assert row["times_faster"] == pytest.approx(ratio, rel=1e-4) and ratio > 0
        assert 0 < row["difference"] < 1e-5
        assert re.search(rf"^ +{t} +[\d.]+ ms +[\d.]+ ms", table, re.M)
    _, rows, _ = bench("--no-cache", "--decode", decode, "--cache", "int8", "--threads", 2)
    assert 1e-5 < rows[lengths[0]]["difference"] < 0.1  # what the format rounds


def test_page(qkv):
    page = qkv("bench", "layer", "--help").stdout
    assert page.startswith("qkv bench layer - ") and "Exit status" in page
    assert max(map(len, page.splitlines())) <= 100
    assert "qkv bench layer" in qkv("help", "bench").stdout


@pytest.mark.parametrize("options, words", [
    (["--frobnicate"], "--frobnicate is not an option of qkv bench layer"),
    (["extra"], "extra is not expected"),
    (["--no-cache", "--shape", "decode"], "--shape has no use with --no-cache"),
    (["--heads", "0"], "--heads is 0; accepted are whole numbers from 1 to 65536"),
    (["--kv-heads", "5"], "--kv-heads is 5; it must divide --heads, 6"),
    (["--head-dim", "15"], "--head-dim is 15 and --rope-dim 8; both must be even"),
    (["--head-dim", "2000"], "--head-dim is 2000"),
    (["--rope-dim", "0", "--nope-dim", "0"], "a head has 1 to 1024 channels"),
    (["--latent-dim", "1020"], "a latent row at most 1024"),
    (["--prefill", "0"], "--prefill is 0"),
    (["--decode", "-1"], "--decode is -1"),
    (["--cache", "f64"], "--cache is f64; f32, f16,"),
    (["--cache", "int8_channel"], "--cache is int8_channel; f32, f16,"),
    (["--shape", "nothing"], "--shape is nothing, which is in no case's name; they are prefill"),
    (["--tier", "pentium"], "--tier is pentium"),
    (["--threads", "0"], "--threads is 0"),
    (["--memory", "15"], "--memory is 15"),
])  # fmt: skip
def test_refusals(bench, tmp_path, options, words):
    done = bench(*options, code=2)
    assert words in done.stderr and done.stderr.startswith("qkv bench layer: ")
    assert list(tmp_path.iterdir()) == []


def test_where_json_cannot_go(qkv, tmp_path):
    done = qkv("bench", "layer", "--json", "missing/out.json", code=2)
    assert "--json is missing/out.json, whose folder" in done.stderr


def test_no_memory(qkv):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))

    done = qkv("bench", "layer", "--memory", "1024", code=2, preexec_fn=limit)
    assert "not enough memory" in done.stderr


def test_a_word_is_missing(qkv):
    assert "--heads needs a value" in qkv("bench", "layer", "--heads", code=2).stderr
