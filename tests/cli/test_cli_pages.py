"""Help, man page, version, info and check."""

import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

MAN = pathlib.Path(__file__).parents[2] / "cli" / "qkv.1"
OPTION = re.compile(r"--[a-z][a-z-]*")


def test_pages_have_two_ways_in(qkv):
    assert qkv("help").stdout == qkv("--help").stdout == qkv("-h").stdout
    for page in "attend", "check", "info", "bench", "cache", "layer", "size", "help":
        text = qkv("help", page).stdout
        assert text == qkv(page, "--help").stdout
        assert text.startswith(f"qkv {page} - ") and "Usage" in text
        assert max(map(len, text.splitlines())) <= 100


def test_attend_page_has_shapes_and_examples(qkv):
    text = qkv("attend", "--help").stdout
    for words in "[B,H,T,D]", "[H,T,D]", "[T,D]", "Examples", "Exit status", "softmax":
        assert words in text


def options_in_source(command):
    """The names in the option table, which is what the command takes."""
    table = re.findall(r'\{"([a-z-]+)", [01], [^}]*?, (\w+)\}', (MAN.parent / "options.c").read_text())
    return {"--" + name for name, who in table if who in ("BOTH", command)}


def bench_options_in_source():
    source = (MAN.parent / "bench" / "bench_options.c").read_text()
    return {"--" + name for name in re.findall(r'\{"([a-z-]+)", [a-z]+_argument, ', source)}


def bench_layer_options_in_source():
    source = (MAN.parent / "bench" / "layer_options.c").read_text()
    return {"--" + name for name in re.findall(r'\{"([a-z-]+)", [a-z]+_argument, ', source)}


def layer_options_in_source():
    source = "".join((MAN.parent / name).read_text() for name in ("layer.c", "layer_run.c"))
    return {"--" + name for name in re.findall(r'\{"([a-z-]+)", [a-z]+_argument, ', source)}


def convert_options_in_source():
    source = (MAN.parent / "convert.c").read_text()
    return {"--" + name for name in re.findall(r'\{"([a-z-]+)", [a-z]+_argument, ', source)}


def size_options_in_source():
    source = (MAN.parent / "size_options.c").read_text()
    return {"--" + name for name in re.findall(r'\{"([a-z-]+)", [a-z]+_argument, ', source)}


def test_every_option_is_on_its_pages(qkv):
    man = set(OPTION.findall(MAN.read_text().replace("\\-", "-")))
    for command, who in ("attend", "ATTEND"), ("check", "CHECK"):
        known = options_in_source(who)
        assert len(known) > 25
        page = set(OPTION.findall(qkv("help", command).stdout)) - {"--version"}
        assert page - {"--help"} == known - {"--help"}
        assert known <= man
    bench = bench_options_in_source()
    assert len(bench) == 10
    assert set(OPTION.findall(qkv("help", "bench").stdout)) - {"--help"} == bench - {"--help"}
    bench_layer = bench_layer_options_in_source()
    assert len(bench_layer) == 19
    assert set(OPTION.findall(qkv("bench", "layer", "--help").stdout)) == bench_layer - {"--help"}
    cache = {"--header", "--json", "--help"}
    assert set(OPTION.findall(qkv("help", "cache").stdout)) == cache - {"--help"}
    layer = layer_options_in_source()
    assert len(layer) >= 4
    assert set(OPTION.findall(qkv("help", "layer").stdout)) - {"--help"} == layer - {"--help"}
    size = size_options_in_source()
    assert len(size) == 40
    assert set(OPTION.findall(qkv("help", "size").stdout)) - {"--help", "--calibrate"} == size - {"--help"}
    convert = convert_options_in_source()
    assert len(convert) >= 4
    assert set(OPTION.findall(qkv("help", "convert").stdout)) - {"--help"} == convert - {"--help"}
    known = options_in_source("ATTEND") | options_in_source("CHECK")
    known |= bench | bench_layer | cache | layer | convert | size
    assert man - {"--version"} == known


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_man_page_is_clean():
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", MAN], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_version(qkv):
    assert re.fullmatch(r"qkv \d+\.\d+\.\d+\n", qkv("--version").stdout)


def test_info(qkv):
    info = json.loads(qkv("info", "--json").stdout)
    text = qkv("info").stdout
    assert info["version"] in text and info["cpu"] in text and info["processors"] >= 1
    tiers = {t["name"]: t for t in info["tiers"]}
    assert tiers["scalar"]["available"]
    for tier in tiers.values():
        assert bool(tier["reason"]) != tier["available"]
        assert tier["name"] in text and tier["reason"] in text
    for kernel in info["kernels"]:
        assert kernel["available"] == tiers[kernel["tier"]]["available"]
        assert kernel["name"].endswith("__" + kernel["tier"])
        assert kernel["name"].split("__")[0] == "{for}_{compute}_{k}_{v}".format(**kernel)
    for types in {(k["for"], k["k"], k["v"], k["compute"]) for k in info["kernels"]}:
        assert re.search(r"^ *{} +{} +{} ".format(*types), text, re.M)


def test_check(qkv):
    done = qkv("check", "--seed", "5", "--cases", "40")
    assert "40 cases from seed 5" in done.stdout and " 0 beyond budget" in done.stdout
    report = json.loads(qkv("check", "--seed", "5", "--cases", "40", "--json").stdout)
    assert report["passed"] and report["seed"] == 5 and report["cases"] == 40
    info = json.loads(qkv("info", "--json").stdout)
    available = {t["name"] for t in info["tiers"] if t["available"]}
    assert {k["tier"] for k in report["kernels"]} == available
    # A tier without kernels for all types of its own has the cases that it is for.
    whole = {k["tier"] for k in info["kernels"] if k["k"] == "f64"}
    for tier in available:
        cases = sum(k["cases"] for k in report["kernels"] if k["tier"] == tier)
        assert cases == 40 if tier in whole else 0 < cases < 40, tier
    for kernel in report["kernels"]:
        assert 0 <= kernel["worst_ratio"] <= 1 and kernel["failures"] == 0
    # The seed named for the worst case brings it back.
    worst = max(report["kernels"], key=lambda k: k["worst_ratio"])
    again = json.loads(qkv("check", "--seed", worst["worst_seed"], "--cases", "1", "--json").stdout)
    assert worst["worst_ratio"] in [k["worst_ratio"] for k in again["kernels"]]


def test_check_prints_a_seed_of_its_own(qkv):
    report = json.loads(qkv("check", "--cases", "1", "--json").stdout)
    assert isinstance(report["seed"], int)


def test_check_verbose(qkv):
    lines = qkv("check", "--seed", "1", "--cases", "3", "--cpu", "scalar", "--verbose").stderr.splitlines()
    assert len(lines) == 3
    for n, line in enumerate(lines):
        assert re.match(rf"ok   seed {n + 1} B\d+ Hq\d+ .*__scalar: error .* ratio ", line)


def test_check_files(qkv, save, tmp_path, rng):
    arrays = {n: rng.normal(size=(2, 2, 20, 16)).astype("f4") for n in "qkv"}
    done = qkv("check", *save(**arrays), "--causal", "--kv-lens", "20,7")
    assert " 0 beyond budget" in done.stdout and "__scalar" in done.stdout
    save_file(arrays, tmp_path / "in.safetensors")
    report = json.loads(qkv("check", "--in", "in.safetensors", "--json", "--cpu", "scalar").stdout)
    assert report["passed"] and [k["tier"] for k in report["kernels"]] == ["scalar"]
    assert "seed" not in report


def test_check_of_huge_numbers(qkv, save):
    """Scores that overflow f32 leave the oracle nothing to ask; the call still ends well."""
    q = np.full((1, 1, 4, 8), 1e30, "f4")
    qkv("check", *save(q=q, k=q, v=np.ones((1, 1, 4, 8), "f4")))
