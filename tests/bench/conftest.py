"""Fixtures of the tests of what stands under bench/ and is written in Python."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # whatever import mode pytest is run with

from bench_paths import HERE, ROOT  # noqa: E402

sys.path.insert(0, str(ROOT / "bench"))

from peers.cases import Case  # noqa: E402
from peers.contest import Library  # noqa: E402
from peers.process import Process, environment  # noqa: E402

FAKE = HERE / "fake_library.py"


@pytest.fixture
def small():
    """A case that takes no time."""
    return Case("small", "prefill", "bf16", 4, 2, 5, 9, 8, 8, True)


@pytest.fixture
def fake(tmp_path):
    """A library of a given temper (see fake_library.py), in a process of its own."""
    made = []

    def make(temper):
        command = [sys.executable, str(FAKE), temper, str(tmp_path)]
        log = tmp_path / f"{temper}.log"
        made.append(Library(temper, lambda _: Process(command, environment(1, False), log)))
        return made[-1]

    yield make
    for library in made:
        library.stop()


@pytest.fixture
def real(tmp_path):
    """A library that is installed here, as bench-peers runs it."""
    made = []

    def make(key, threads=1):
        command = [sys.executable, "-m", "peers.worker", key, str(threads)]
        variables = environment(threads, False)
        made.append(Library(key, lambda _: Process(command, variables, tmp_path / "real.log")))
        return made[-1]

    yield make
    for library in made:
        library.stop()
