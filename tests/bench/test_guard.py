"""The guard against getting slower: its judgement, and that it finds a slow library."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from bench_paths import ROOT
from guard import judge

BUILD = Path(os.environ.get("QKV_BUILD", ROOT / "build/release"))
LIBRARY = BUILD / "src/libqkv.so"


def times(median, noise, n=31, seed=1):
    rng = random.Random(seed)
    return [median * (1 + noise * rng.random()) for _ in range(n)]


def case(base, new, **more):
    return {"case": "x", "threads": 1, "base_kernel": "k", "new_kernel": "k",
            "base": base, "new": new, **more}  # fmt: skip


def test_interval_holds_the_ratio():
    ratio, low, high = judge.interval(times(1, 0.1), times(2, 0.1, seed=2))
    assert low <= ratio <= high and 1.9 < low and high < 2.1
    assert judge.interval([2.0] * 5, [3.0] * 5) == (1.5, 1.5, 1.5)


def test_interval_pairs_rounds():
    """Both slow down together: the medians of a draw move together, so the ratio stays."""
    drift = [1.0 + n for n in range(30)]
    ratio, low, high = judge.interval(drift, [1.1 * t for t in drift])
    assert low == pytest.approx(1.1) and high == pytest.approx(1.1)
    assert ratio == pytest.approx(1.1)


@pytest.mark.parametrize(
    "base, new, verdict",
    [
        (times(1, 0.02), times(1, 0.02, seed=2), "same"),
        (times(1, 0.02), times(1.04, 0.02, seed=2), "same"),  # within the tolerance
        (times(1, 0.02), times(1.2, 0.02, seed=2), "slower"),
        (times(1, 0.02), times(0.8, 0.02, seed=2), "faster"),
        (times(1, 0.02), times(0.97, 0.01, seed=2), "same"),
        (times(1, 1.5, 9), times(1.2, 1.5, 9, seed=2), "unclear"),  # slower, or only noise?
    ],
)
def test_verdicts(base, new, verdict):
    assert judge.judge(case(base, new), 0.05)["verdict"] == verdict


def test_few_rounds_say_nothing():
    assert judge.judge(case([1.0] * 6, [1.2] * 6), 0.05)["verdict"] == "unclear"
    assert judge.judge(case([1.0] * 7, [1.2] * 7), 0.05)["verdict"] == "slower"


@pytest.mark.parametrize("base, new", [([], []), ([1.0], [1.0, 2.0]), ([1.0, 0.0], [1.0, 1.0])])
def test_times_that_are_none(base, new):
    with pytest.raises(ValueError):
        judge.interval(base, new)


def run_judge(text, *arguments):
    return subprocess.run([sys.executable, ROOT / "bench/guard/judge.py", *arguments], input=text,
                          capture_output=True, text=True, timeout=60)  # fmt: skip


def test_exit_status(tmp_path):
    same, slow = case([1.0] * 7, [1.0] * 7), case([1.0] * 7, [1.2] * 7)
    refused = {"case": "y", "threads": 1, "refused": "base: head_dim is 2000"}
    good = run_judge(json.dumps(same) + "\n" + json.dumps(refused), "--json", tmp_path / "j")
    assert good.returncode == 0 and "not compared: base: head_dim" in good.stdout
    assert [c["verdict"] for c in json.loads((tmp_path / "j").read_text())] == ["same", "refused"]
    bad = run_judge(json.dumps(slow))
    assert bad.returncode == 1 and bad.stdout.endswith("slower by more than 5%: x\n")
    run_judge(json.dumps(slow) + "\n" + json.dumps(same), "--slower", tmp_path / "slower")
    assert (tmp_path / "slower").read_text() == "1 x\n"
    assert run_judge(json.dumps(slow), "--tolerance", "0.25").returncode == 0
    for nothing in ("", json.dumps(refused), "words", "[]", '{"case": "x"}'):
        assert run_judge(nothing).returncode == 2, nothing
    assert run_judge(json.dumps(same), "--tolerance", "-1").returncode == 2


# ---- the program -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """The compiled program, on the library of the release build."""
    if not LIBRARY.exists():
        pytest.skip(f"{LIBRARY} is not built")
    program = tmp_path_factory.mktemp("guard") / "guard"
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include",
         *sorted((ROOT / "bench/guard").glob("*.c")), "-o", program, "-ldl"],
        check=True,
    )  # fmt: skip

    def run(*arguments):
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)

    return run


def test_a_slowed_library_is_found(guard):
    """The same library twice, once kept to its scalar tier."""
    done = guard(LIBRARY, LIBRARY, "--case", "short", "--rounds", "9", "--new-cpu-mask", "0")
    assert done.returncode == 0, done.stderr
    (found,) = judge.read(done.stdout.splitlines())
    assert found["new_kernel"].endswith("__scalar") and len(found["base"]) == 9
    if found["base_kernel"] == found["new_kernel"]:
        pytest.skip("this machine has the scalar tier only")
    assert run_judge(done.stdout).returncode == 1


def test_the_same_library_is_not_slower(guard):
    done = guard(LIBRARY, LIBRARY, "--case", "short", "--rounds", "15", "--threads", "2")
    assert run_judge(done.stdout, "--tolerance", "1").returncode == 0, done.stdout


def test_every_case_is_computed(guard):
    done = guard(LIBRARY, LIBRARY, "--rounds", "1")
    cases = judge.read(done.stdout.splitlines())
    assert done.returncode == 0 and len(cases) >= 10
    assert not [c for c in cases if "refused" in c]
    assert {"decode-f32", "latent-decode-bf16", "prefill-f32-d128"} <= {c["case"] for c in cases}


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "usage: guard"),
        ([LIBRARY], "usage: guard"),
        ([LIBRARY, LIBRARY, "--rounds", "0"], "usage: guard"),
        ([LIBRARY, LIBRARY, "--rounds", "5x"], "usage: guard"),
        ([LIBRARY, LIBRARY, "--speed"], "usage: guard"),
        ([LIBRARY, LIBRARY, "--case", "abacus"], "no case has 'abacus' in its name"),
        ([LIBRARY, "/nowhere/libqkv.so"], "/nowhere/libqkv.so"),
        ([LIBRARY, "libm.so.6"], "has no qkv_version"),
    ],
)
def test_refusals(guard, arguments, sentence):
    done = guard(*arguments)
    assert done.returncode == 2 and done.stdout == "" and sentence in done.stderr
