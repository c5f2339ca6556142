"""The comparison with other libraries, on libraries made up for it: turns, processes, contests."""

import json
import os
import subprocess
import sys

import pytest
from bench_paths import ROOT
from peers import interleave, machine, samples
from peers.contest import contest, sets_for
from peers.cases import Case, select
from peers.interleave import FEW, Turn, play, turn_for
from peers.process import Gone, environment

# ---- turns -------------------------------------------------------------------------------------


class Player:
    """Writes down when it was called; leaves at call number `leaves`."""

    def __init__(self, name, diary, seconds=1.0, leaves=None):
        self.name, self.diary, self.seconds, self.leaves = name, diary, seconds, leaves
        self.calls = 0

    def turn(self, warm, repeat):
        self.calls += 1
        self.diary.append(self.name)
        if self.calls == self.leaves:
            raise Gone("left")
        return [self.seconds * self.calls] * max(1, repeat - 1) + [99.0] * (repeat > 2)


def test_everybody_plays_once_a_round_and_nobody_is_always_first():
    diary = []
    players = {n: (Player(n, diary), 0.5) for n in "abc"}
    played = play(players, 4)
    assert "".join(diary) == "abc" "bca" "cab" "abc"
    assert played.gone == {} and all(len(s) == 4 for s in played.samples.values())


def test_a_sample_is_the_median_of_a_turn():
    player = Player("a", [], 0.02)
    (found,) = play({"a": (player, 0.02)}, 1).samples["a"]
    assert turn_for(0.02, 1).repeat == 5 and found == 0.02


def test_turns_have_a_least_length_and_slow_ones_are_few():
    assert turn_for(0.2, 9) == Turn(0, 1, 9)
    assert turn_for(0.01, 9) == Turn(1, 10, 9)
    assert turn_for(1e-6, 9) == Turn(1, interleave.MOST, 9)
    assert turn_for(0.0, 9).repeat == interleave.MOST
    assert turn_for(3.0, 9) == Turn(0, 1, FEW)
    assert turn_for(3.0, 2).rounds == 2
    slow = Player("slow", [])
    samples_of = play({"slow": (slow, 3.0), "quick": (Player("q", []), 0.2)}, 5).samples
    assert slow.calls == FEW and [s is None for s in samples_of["slow"]] == [False] * 3 + [True] * 2


def test_who_leaves_does_not_stop_the_others():
    diary = []
    players = {"a": (Player("a", diary, leaves=2), 0.5), "b": (Player("b", diary), 0.5)}
    played = play(players, 4)
    assert played.gone == {"a": "left"}
    assert played.samples["a"] == [1.0, None, None, None] and diary.count("a") == 2
    assert None not in played.samples["b"]


def test_nobody_plays():
    assert play({}, 3).samples == {}


# ---- numbers -----------------------------------------------------------------------------------


def test_summary():
    found = samples.summary({"qkv": [1.0, 2.0, 4.0], "x": [3.0, None, 4.0], "gone": [None] * 3},
                            "qkv")  # fmt: skip
    assert set(found) == {"qkv", "x"}
    assert found["qkv"]["seconds"] == 2.0 and found["qkv"]["best"] == 1.0
    assert found["qkv"]["spread"] == pytest.approx((3.0 - 1.5) / 2.0)
    assert found["qkv"]["ratio"] == [1.0, 1.0, 1.0]
    assert found["x"]["rounds"] == 2 and found["x"]["seconds"] == 3.5
    assert found["x"]["ratio"] == [2.0, 1.5, 2.5]  # 3/1 and 4/4: of rounds that both played


def test_ratio_is_of_rounds_and_not_of_medians():
    drifting = [1.0, 10.0, 100.0]
    assert samples.ratio([1.5 * t for t in drifting], drifting) == [1.5] * 3
    assert samples.ratio([3.0, None], [2.0, 1.0]) == [1.5] * 3
    assert samples.ratio([None, 1.0], [1.0, None]) is None
    assert samples.ratio([1.0], []) is None
    assert samples.spread([7.0]) == 0.0


# ---- the machine -------------------------------------------------------------------------------


def test_processors_are_cores_first():
    pairs = {0: "0,2", 2: "0,2", 1: "1,3", 3: "1,3"}
    assert machine.pick_processors([0, 1, 2, 3], pairs, 2) == [0, 1]
    assert machine.pick_processors([0, 2, 3], pairs, 2) == [0, 3]
    assert machine.pick_processors([0, 1, 2, 3], pairs, 3) == [0, 1, 2]
    assert machine.pick_processors([4, 5], {}, 2) == [4, 5]
    assert machine.pick_processors([7], {}, 2) == [7]
    assert set(machine.processors(1)) <= os.sched_getaffinity(0)


def test_slug():
    assert machine.slug("AMD EPYC 9R14 (Zen 4) ") == "amd-epyc-9r14-zen-4"
    assert machine.slug("--") == "unknown"
    assert machine.cpu_name()


def test_cold_copies_fit_in_memory():
    (decode,) = select(["decode bf16"])
    assert decode.kv_bytes == 64 << 20
    assert sets_for(decode, 6, 1 << 30, 0) == 16
    assert sets_for(decode, 6, 1 << 30, 100 << 30) == 16
    assert sets_for(decode, 6, 1 << 30, 1 << 30) == 2
    assert sets_for(decode, 6, 1, 0) == 1
    assert sets_for(select(["latent"])[0], 6, 1 << 30, 0) == 1


# ---- processes ---------------------------------------------------------------------------------


def test_threads_that_wait_sleep():
    assert environment(3, False)["OMP_WAIT_POLICY"] == "passive"
    assert environment(3, False)["KMP_BLOCKTIME"] == "0"
    assert environment(3, False)["OMP_NUM_THREADS"] == "3"
    assert "OMP_WAIT_POLICY" not in environment(3, True)


def ready(library, case, tmp_path):
    from peers import tensors

    tensors.save(tensors.generate(case), case, tmp_path)
    assert library.ready()
    return library.ask("prepare", case=case.to_json(), folder=str(tmp_path), sets=1)


def test_a_death_is_reported_with_its_signal(fake, small, tmp_path):
    mortal = fake("mortal")
    assert ready(mortal, small, tmp_path)["ok"]
    with pytest.raises(Gone, match="signal SIGSEGV"):
        mortal.turn(0, 9)
    assert mortal.process is None
    assert ready(mortal, small, tmp_path)["ok"]  # started again
    assert len(mortal.turn(0, 9)) == 9


def test_silence_has_a_limit(fake, small, tmp_path):
    hanging = fake("hanging")
    assert hanging.ready()
    hanging.process.limit = 1.0
    with pytest.raises(Gone, match="no answer within 1 s"):
        ready(hanging, small, tmp_path)


def test_what_a_library_prints_is_no_answer(fake, small, tmp_path):
    chatty = fake("chatty")
    assert ready(chatty, small, tmp_path)["how"] == "by the formula"
    assert len(chatty.turn(1, 2)) == 2
    assert "a library says something" in (tmp_path / "chatty.log").read_text()


def test_a_command_that_is_none(tmp_path):
    from peers.process import Process

    with Process([sys.executable, "-c", "import sys; sys.exit('sorry, no')"], {},
                 tmp_path / "log") as process:  # fmt: skip
        with pytest.raises(Gone, match="exit status 1: sorry, no"):
            process.ask("hello")


# ---- contests ----------------------------------------------------------------------------------


def test_contest(fake, small):
    tempers = ["good", "slow", "wrong", "choosy", "broken", "mortal", "absent"]
    libraries = {t: fake(t) for t in tempers}
    libraries["good"].key = "qkv"
    found = contest(small, list(libraries.values()), 3)
    lines = found["lines"]
    assert json.loads(json.dumps(found)) == found and found["unit"] == "GFLOP/s"
    assert lines["qkv"]["rms"] < 1e-12 and lines["qkv"]["rounds"] == 3
    assert lines["slow"]["ratio"][0] > 2 and lines["slow"]["seconds"] > 0.02
    assert lines["slow"]["rate"] == pytest.approx(small.flops / lines["slow"]["seconds"] / 1e9)
    assert lines["wrong"]["rms"] is None and lines["wrong"]["rate"] > 0
    assert lines["choosy"] == {"refused": "wants something else"}
    assert lines["broken"] == {"refused": "RuntimeError: no kernel for this"}
    assert lines["mortal"] == {"refused": "the process ended, signal SIGSEGV"}
    assert lines["absent"]["refused"] == "ModuleNotFoundError: No module named 'absent'"
    assert libraries["absent"].missing and not libraries["mortal"].missing
    again = contest(small, list(libraries.values()), 1)
    assert "rate" in again["lines"]["mortal"]  # it may do better in another case


def test_contest_rotates_only_decoding(fake):
    good = fake("good")
    good.key = "qkv"
    case = Case("x", "decode", "f32", 2, 1, 1, 64, 8, 8)
    found = contest(case, [good], 1, cold=10 * case.kv_bytes)
    assert found["sets"] == 10 and found["lines"]["qkv"]["rms"] < 1e-12


def test_qkv_and_pytorch_agree(real):
    """The real adapters of what is installed here: many queries, one a head, and latent."""
    pytest.importorskip("torch")
    libraries = [real(key) for key in ("qkv", "pytorch", "byhand")]
    for dtype, bound in (("f32", 1e-5), ("f16", 5e-3), ("bf16", 5e-2)):
        for case in (
            Case("a", "prefill", dtype, 2, 2, 33, 33, 16, 16, True),
            Case("b", "decode", dtype, 4, 2, 1, 100, 16, 16),
            Case("c", "latent", dtype, 4, 1, 1, 64, 24, 16),
        ):
            lines = contest(case, libraries, 1, cold=2 * case.kv_bytes)["lines"]
            assert lines["qkv"]["how"] and lines["qkv"]["worst"] < bound
            assert lines["pytorch"]["worst"] < bound
            refused = "refused" in lines["byhand"]
            assert refused if case.q_len > 1 else lines["byhand"]["worst"] < bound


# ---- the command -------------------------------------------------------------------------------


def command(tmp_path, *arguments):
    env = os.environ | {"PYTHONPATH": str(ROOT / "bench")}
    base = [sys.executable, "-m", "peers", "--results", tmp_path, "--log", tmp_path / "log"]
    return subprocess.run([*base, *arguments], env=env, capture_output=True, text=True, timeout=300)


def test_command(tmp_path):
    pytest.importorskip("torch")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- peers:begin -->\nold\n<!-- peers:end -->\nafter\n")
    done = command(
        tmp_path, "--case", "T=512", "--library", "pytorch", "--library", "vllm", "--threads", "1",
        "--rounds", "1", "--name", "Test 1", "--readme", readme, "--missing", "vllm=not wanted",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "peers-test-1.json").read_text())
    (result,) = results["results"]
    assert results["name"] == "Test 1" and result["threads"] == 1
    assert {"rate", "rms", "ratio"} < set(result["lines"]["pytorch"])
    assert results["libraries"]["vllm"]["missing"] == "not wanted"
    text = (tmp_path / "peers-test-1.md").read_text()
    assert "| f32 D=64 T=512 causal | GFLOP/s |" in text and "vllm: not in this run" in text
    assert readme.read_text().startswith("before\n<!-- peers:begin -->\nTest 1, revision")
    assert "old" not in readme.read_text() and readme.read_text().endswith("-->\nafter\n")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--case", "int4"], "case is 'int4'"),
        (["--rounds", "0"], "rounds and threads are at least 1"),
        (["--python", "peers"], "'peers' is not NAME=VALUE"),
        (["--library", "abacus"], "abacus"),
    ],
)
def test_command_refuses(tmp_path, arguments, sentence):
    done = command(tmp_path, *arguments)
    assert done.returncode == 2 and sentence in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_command_fails_without_qkv(tmp_path):
    done = command(tmp_path, "--case", "T=512", "--library", "qkv", "--threads", "1",
                   "--missing", "peers=nothing here")  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "peers: qkv itself could not be measured: nothing here\n"
    assert [f.name for f in tmp_path.iterdir()] == ["log"]  # and no table without it
