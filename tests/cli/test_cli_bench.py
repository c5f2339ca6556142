"""qkv bench: what it measures hangs together.  How fast anything is, is not a matter for tests."""

import json
import pathlib
import re
import resource

import pytest

QUICK = ["--repeat", "1", "--memory", "16"]
ONE, ALL = "one_thread", "all_threads"


def check_ceilings(ceilings):
    assert {"fma_f32_128", "read", "read_plain"} <= set(ceilings)
    for name, ceiling in ceilings.items():
        wanted = "GB/s" if name.startswith("read") else "GOP/s" if "int8" in name else "GFLOP/s"
        assert ceiling["unit"] == wanted
        for rate in ceiling[ONE], ceiling[ALL]:
            assert 0 < rate["median"] <= rate["best"]


def check_environment(environment, command):
    assert environment["command"] == "qkv " + command
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", environment["date"])
    for key in "qkv_version", "cpu", "system", "compiler", "flags", "governor", "huge_pages":
        assert environment[key] != ""
    assert environment["vector_bits"] in (128, 256, 512) and environment["processors"] >= 1
    assert environment["tiers"][0] == "scalar"


def check_row(row):
    seconds, work = row["median_seconds"], row["operations"]
    assert row["best_seconds"] <= seconds and row["spread"] >= 0 and row["calls"] >= 1
    assert row["gflops"] == pytest.approx(work / seconds / 1e9, rel=1e-4)
    assert row["gbytes_per_second"] == pytest.approx(row["bytes"] / seconds / 1e9, rel=1e-4)
    computing = work / row["ceiling_gflops"] / 1e9
    reading = row["bytes"] / row["read_gbytes_per_second"] / 1e9 if row["cold"] else 0
    assert row["fraction_of_roof"] == pytest.approx(max(computing, reading) / seconds, rel=1e-4)
    assert row["bound_by"] == (row["ceiling"] if computing >= reading else "read")
    assert 0 <= row["error_over_budget"] <= 1
    if row["family"] == "append":
        assert row["operations"] == row["reads"] == 0
    else:
        assert row["largest_error"] > 0 and row["reads"] > 0


@pytest.fixture
def bench(qkv, tmp_path):
    """Runs and returns the JSON and the rows by name, after checking what every report has."""

    def run(*options):
        arguments = ["bench", *QUICK, *options, "--json", "out.json"]
        table = qkv(*arguments).stdout
        report = json.loads((tmp_path / "out.json").read_text())
        assert report["schema"] == "qkv-bench" and report["schema_version"] == 1
        assert report["repeats"] == 1 and report["memory_bytes"] == 16 << 20
        check_environment(report["environment"], " ".join(map(str, arguments)))
        check_ceilings(report["ceilings"])
        for row in report["rows"]:
            check_row(row)
            assert re.search(rf"^{row['name']} +{row['type']} +[\d.]+ [mun]s ", table, re.M)
            assert (row["name"], row["type"]) in listed(qkv)
        return report, {row["name"]: row for row in report["rows"]}

    return run


def listed(qkv):
    lines = qkv("bench", "--list").stdout.splitlines()
    return [(line.split()[0], line.split()[2]) for line in lines]


def test_a_case(qkv, bench):
    report, rows = bench("--shape", "call-16")
    row = rows["call-16-keys"]
    assert (row["family"], row["Tq"], row["Tk"], row["D"], row["Hq"]) == ("call", 1, 16, 64, 1)
    assert row["operations"] == 2 * 16 * 128 and row["bytes"] == 2 * 16 * 64 * 4
    assert row["calls"] > 10  # of less than a microsecond each, so many are timed together
    assert report["threads"] == 1 and report["tier"] == "highest"
    assert row["kernel"] in {k["name"] for k in json.loads(qkv("info", "--json").stdout)["kernels"]}


def test_tier(bench):
    report, rows = bench("--shape", "call-16", "--tier", "scalar")
    assert report["tier"] == "scalar"
    assert rows["call-16-keys"]["kernel"].endswith("__scalar")
    assert rows["call-16-keys"]["ceiling"] == "fma_f32_128"


def test_masks_and_threads(bench):
    """Everything that can stand beside q, k and v; and cases that name another."""
    report, rows = bench("--shape", "d64-f32", "--threads", "2")
    assert report["threads"] == 2
    plain = rows["prefill-d64-f32"]
    assert plain["extras"] == [] and "versus" not in plain
    for extra in "mask", "bias", "alibi", "softcap", "sinks":
        row = rows[f"{extra}-d64-f32"]
        assert row["extras"] == [extra] and row["versus"] == "prefill-d64-f32"
        ratio = row["fraction_of_roof"] / plain["fraction_of_roof"]
        assert row["fraction_over_versus"] == pytest.approx(ratio, rel=1e-4)
        assert row["operations"] == plain["operations"]  # pairs the ranges leave


def test_windows_and_blocks(bench):
    _, rows = bench("--shape", "tenth-")
    for row in rows.values():
        assert row["extras"] == ["blocks"]
        share = row["operations"] / (2 * 2 * 128 * 4096**2)
        assert 0.09 < share < 0.14  # a tenth, and the diagonal
    _, rows = bench("--shape", "window-256-f32")
    pairs = 256 * 4096 - 256 * 255 // 2
    assert rows["window-256-f32"]["operations"] == 2 * 2 * 128 * pairs


def test_cold_and_latent(bench):
    _, rows = bench("--shape", "decode-bf16")
    assert rows["decode-bf16"]["cold"] and rows["decode-bf16"]["calls"] >= 1
    row = rows["latent-decode-bf16"]
    assert row["latent"] and row["bytes"] == 4096 * 576 * 2


def test_caches(bench):
    """Bytes are those of the format; ratios of times are of calls that took turns."""
    _, rows = bench("--shape", "cache-pages-64")
    (row,) = rows.values()
    assert row["bytes"] == 16384 * 8 * 2 * 256 and row["reads"] == 1
    assert row["cache"] == {"format": "bf16", "page_tokens": 64, "use": "attend"}
    assert row["against"] == "cache-contiguous-bf16"
    ratio = row["against_median_seconds"] / row["median_seconds"]
    assert row["times_faster"] == pytest.approx(ratio, rel=1e-4)
    _, rows = bench("--shape", "cache-int", "--threads", "2")
    assert rows["cache-int8"]["bytes"] == 16384 * 8 * 2 * (128 + 4)
    assert rows["cache-int4"]["bytes"] == 16384 * 8 * 2 * (64 + 4)


def test_prefixes_are_read_once(bench):
    _, rows = bench("--shape", "cache-shared")
    shared = rows["cache-shared-bf16"]
    stored = 8192 + 32 * 256
    assert shared["bytes"] == stored * 8 * 2 * 256
    assert shared["reads"] == pytest.approx(32 * 8448 / stored)
    _, rows = bench("--shape", "cache-cascade")
    cascade = rows["cache-cascade-bf16"]
    assert cascade["bytes"] == shared["bytes"] and cascade["operations"] == shared["operations"]
    # 128 rows of queries are one tile of the bf16 tier, and at most four of vectors of one.
    assert 1 <= cascade["reads"] <= (1.1 if "avx512_bf16" in cascade["kernel"] else 4)


def test_ragged_and_latent_caches(bench):
    _, rows = bench("--shape", "ragged")
    (row,) = rows.values()
    lengths = [round(100 * (16384 / 100) ** (i / 15)) for i in range(16)]
    assert row["bytes"] == sum(lengths) * 8 * 2 * 256 and row["reads"] == 1
    assert row["operations"] == 2 * 32 * 256 * sum(lengths)
    _, rows = bench("--shape", "cache-latent")
    assert rows["cache-latent-bf16"]["bytes"] == 4096 * 576 * 2
    assert rows["cache-latent-int8"]["bytes"] == 4096 * (512 + 4 * 4 + 64 * 2)


def test_appending(bench):
    _, rows = bench("--shape", "append-")
    stored = {"bf16": 256, "bf16-from-f32": 256, "int8": 132, "int4": 68, "e4m3": 132}
    assert {f"append-{name}" for name in stored} == set(rows)
    for name, bytes_ in stored.items():
        row = rows[f"append-{name}"]
        assert row["kernel"] == "append" and row["calls"] > 10
        assert row["bytes"] == 16 * (bytes_ + 128 * (4 if row["type"] == "f32" else 2))


def test_list(qkv):
    names = [name for name, _ in listed(qkv)]
    assert len(names) > 40 and len(set(names)) == len(names)


def test_names_of_other_cases(qkv):
    """A case is compared with one that is measured before it."""
    source = (pathlib.Path(__file__).parents[2] / "cli/bench/shapes.inc").read_text()
    names = [name for name, _ in listed(qkv)]
    pairs = re.findall(r'\.name = "([^"]+)"[^}]*?\.(?:versus|against) = "([^"]+)"', source)
    assert len(pairs) > 30
    for name, versus in pairs:
        assert names.index(versus) < names.index(name)


# ---- calibrate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [["--calibrate", "m.json"], ["--calibrate=m.json"]])
def test_calibrate_to_a_file(qkv, tmp_path, form):
    (tmp_path / "m.json").write_text("old")
    done = qkv("bench", *form, "--memory", "16", "--threads", "2")
    profile = json.loads((tmp_path / "m.json").read_text())
    assert profile["schema"] == "qkv-machine" and profile["schema_version"] == 1
    assert profile["threads"] == 2 and profile["memory_bytes"] == 16 << 20
    check_environment(profile["environment"], f"bench {' '.join(form)} --memory 16 --threads 2")
    check_ceilings(profile["ceilings"])
    assert "wrote m.json\n" in done.stdout
    for name in profile["ceilings"]:
        assert re.search(rf"^  {name} ", done.stdout, re.M)
    assert [f.name for f in tmp_path.iterdir()] == ["m.json"]


@pytest.mark.parametrize("config, place", [
    (None, "home/.config/qkv/machine.json"),
    ("relative", "home/.config/qkv/machine.json"),  # which the standard says to ignore
    ("config/deep", "config/deep/qkv/machine.json"),
])
def test_calibrate_at_home(qkv, tmp_path, config, place):
    environment = {"HOME": str(tmp_path / "home")}
    if config is not None:
        environment["XDG_CONFIG_HOME"] = config if config == "relative" else str(tmp_path / config)
    done = qkv("bench", "--calibrate", "--memory", "16", "--threads", "1", env=environment)
    assert f"wrote {tmp_path / place}\n" in done.stdout
    assert json.loads((tmp_path / place).read_text())["schema"] == "qkv-machine"
    assert not (tmp_path / "relative").exists()


def test_calibrate_nowhere(qkv, tmp_path):
    quick = ["bench", "--calibrate", "--memory", "16"]
    assert "HOME" in qkv(*quick, code=2, env={}).stderr
    (tmp_path / "file").write_text("")
    done = qkv(*quick, code=2, env={"HOME": str(tmp_path / "file")})
    assert "cannot be made" in done.stderr


# ---- scaling ------------------------------------------------------------------------------------


def test_scaling(qkv, tmp_path):
    options = ["bench", "--scaling", "--threads", "2", "--repeat", "1", "--shape", "d32-t1024-"]
    table = qkv(*options, "--json", "s.json").stdout
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["schema"] == "qkv-bench-scaling" and report["schema_version"] == 1
    points = {(p["family"], p["type"], p["threads"]): p for p in report["points"]}
    families, types = ("prefill", "decode"), ("f32", "bf16")
    assert set(points) == {(f, t, n) for f in families for t in types for n in (1, 2)}
    for (family, type_, threads), p in points.items():
        assert p["name"] in table and p["D"] == 32 and p["T"] == 1024 and p["runs"] == 1
        size, heads, kv_heads, rows = 2 if type_ == "bf16" else 4, p["Hq"], p["Hkv"], 1024
        if family == "decode":
            rows = 1
        tensors = size * 32 * 2 * (heads * rows + kv_heads * 1024)
        assert tensors <= p["tensor_bytes"] <= tensors + 4096
        assert p["idle_resident_bytes"] > 0
        assert p["workspace_bytes"] > 0 and p["plan_bytes"] > 0 and p["median_seconds"] > 0
        assert points[family, type_, 1]["workspace_bytes"] <= p["workspace_bytes"]


def test_scaling_counts_memory(qkv, tmp_path):
    """64 MiB of keys and values, and no more than a few MiB beside them."""
    options = ["--threads", "1", "--repeat", "1", "--shape", "decode-bf16-d128-t16384-"]
    qkv("bench", "--scaling", *options, "--json", "s.json")
    (point,) = json.loads((tmp_path / "s.json").read_text())["points"]
    assert 64 << 20 <= point["tensor_bytes"] <= 65 << 20
    grown = point["peak_resident_bytes"] - point["idle_resident_bytes"]
    assert 62 << 20 <= grown <= 74 << 20


def test_scaling_without_memory(qkv):
    """The point's process says why, and the command ends."""
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))

    done = qkv("bench", "--scaling", "--threads", "1", "--shape", "decode-f32-d256-t65536-", code=2,
               preexec_fn=limit)
    assert "not enough memory for decode-f32-d256-t65536-threads1" in done.stderr


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options, words", [
    (["--frobnicate"], "--frobnicate is not an option of qkv bench"),
    (["extra"], "extra is not expected"),
    (["--threads"], "--threads needs a value"),
    (["--threads", "0"], "--threads is 0"),
    (["--threads", "1025"], "--threads is 1025"),
    (["--threads", "two"], "--threads is two; accepted are whole numbers from 1 to 1024"),
    (["--repeat", "0"], "--repeat is 0"),
    (["--repeat", "1e3"], "--repeat is 1e3"),
    (["--memory", "15"], "--memory is 15; accepted are whole numbers from 16 to 1048576"),
    (["--memory", "99999999999999999999"], "--memory"),
    (["--tier", "pentium"], "--tier is pentium; accepted are scalar"),
    (["--shape", "nothing-like-it"], "--shape is nothing-like-it"),
    (["--scaling", "--shape", "nothing-like-it"], "--shape is nothing-like-it"),
    (["--json", "missing/out.json"], "--json is missing/out.json, whose folder"),
    (["--json", "."], "--json is ., which is a folder"),
    (["--calibrate", "missing/m.json"], "--calibrate is missing/m.json, whose folder"),
    (["--calibrate", "m.json", "--scaling"], "exclude each other"),
    (["--list", "--scaling"], "exclude each other"),
    (["--calibrate", "--json", "o.json"], "--json has no use with --calibrate"),
    (["--calibrate", "--shape", "decode"], "--shape has no use with --calibrate"),
    (["--scaling", "--memory", "64"], "--memory has no use with --scaling"),
    (["--list", "--threads", "2"], "--threads has no use with --list"),
])
def test_refusals(qkv, tmp_path, options, words):
    assert words in qkv("bench", *options, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_no_memory(qkv):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))

    done = qkv("bench", "--shape", "call", "--memory", "1024", code=2, preexec_fn=limit)
    assert "not enough memory" in done.stderr and "1073741824" in done.stderr
