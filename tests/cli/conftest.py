"""Fixtures of the tests of the qkv command.  QKV_COMMAND is the path of the binary."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # whatever import mode pytest is run with

from cli_command import COMMAND  # noqa: E402


@pytest.fixture
def qkv(tmp_path):
    """Runs the command in an empty folder and demands its exit code.

    A call that was wrong says one sentence on standard error and nothing on standard output.
    """

    def run(*arguments, code=0, **options):
        done = subprocess.run([COMMAND, *map(str, arguments)], cwd=tmp_path, capture_output=True,
                              text=True, timeout=300, **options)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        if code == 2:
            assert done.stdout == ""
            assert done.stderr.startswith("qkv"), done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
        return done

    return run


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def save(tmp_path):
    """save(q=array, ...) writes q.npy, ...; returns the options that name them."""

    def write(**arrays):
        options = []
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
            options += ["--" + name.replace("_", "-"), f"{name}.npy"]
        return options

    return write
