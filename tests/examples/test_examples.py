"""The examples build against the installed library without warnings, run, and check themselves."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from installed import ROOT, Installed, run

EXAMPLES = ROOT / "examples"
PROGRAMS = ["minimal_c", "minimal_cpp", "decode_threads", "decode_cache"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]


def flags(installed: Installed, *what: str) -> list[str]:
    return run(["pkg-config", *what, "qkv"], env=installed.env).stdout.split()


def compile_c(installed: Installed, source: Path, program: Path) -> None:
    run(
        ["cc", "-std=c11", "-O1", *WARNINGS, source, "-o", program]
        + flags(installed, "--cflags", "--libs") + ["-lm", "-pthread"],
        env=installed.env,
    )  # fmt: skip


def test_pkg_config_makefile(installed: Installed, tmp_path: Path) -> None:
    done = run(
        ["make", "-C", EXAMPLES / "pkgconfig", "check", f"BUILD={tmp_path}",
         "CFLAGS=-O2 -Werror", "CXXFLAGS=-O2 -Werror"],
        env=installed.env,
    )  # fmt: skip
    assert len(re.findall(r"^(?:attend|decode)_\w+: ", done.stdout, re.M)) == len(PROGRAMS), done.stdout


def test_pkg_config_makefile_without_qkv(tmp_path: Path) -> None:
    env = dict(os.environ, PKG_CONFIG_LIBDIR=str(tmp_path), PKG_CONFIG_PATH="")
    done = subprocess.run(
        ["make", "-C", EXAMPLES / "pkgconfig", f"BUILD={tmp_path}"],
        env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "pkg-config does not find qkv" in done.stderr


def test_cmake_project(installed: Installed, tmp_path: Path) -> None:
    run(
        ["cmake", "-S", EXAMPLES / "cmake", "-B", tmp_path,
         "-DCMAKE_C_FLAGS=-Werror", "-DCMAKE_CXX_FLAGS=-Werror"],
        env=installed.env,
    )  # fmt: skip
    run(["cmake", "--build", tmp_path], env=installed.env)
    for program in PROGRAMS:
        assert re.search("(attend|decode)_", run([tmp_path / program], env=installed.env).stdout)


@pytest.mark.parametrize("source", ["minimal.c", "decode_threads.c", "decode_cache.c"])
def test_strict_warnings(installed: Installed, tmp_path: Path, source: str) -> None:
    compile_c(installed, EXAMPLES / source, tmp_path / "program")
    run([tmp_path / "program"], env=installed.env)


@pytest.mark.parametrize(
    "source, right, wrong",
    [
        ("minimal.c", "j <= i;", "j < i || j == 0;"),
        ("decode_threads.c", "j < kv_lens[b];", "j < kv_lens[b] - (b == 2);"),
        ("decode_cache.c", "j < length;", "j < length - 1;"),
    ],
)
def test_examples_notice_a_wrong_answer(
    installed: Installed, tmp_path: Path, source: str, right: str, wrong: str
) -> None:
    """With the formula off by one key, the example must say so: its check is a real one."""
    text = (EXAMPLES / source).read_text()
    assert right in text
    spoiled = tmp_path / source
    spoiled.write_text(text.replace(right, wrong))
    compile_c(installed, spoiled, tmp_path / "program")
    done = subprocess.run([tmp_path / "program"], env=installed.env, capture_output=True)
    assert done.returncode == 1


def test_static_library(installed: Installed, tmp_path: Path) -> None:
    run(
        ["cc", "-std=c11", "-O1", EXAMPLES / "minimal.c", "-o", tmp_path / "program"]
        + flags(installed, "--cflags") + [installed.libdir / "libqkv.a", "-lm", "-pthread"]
    )  # fmt: skip
    run([tmp_path / "program"])


def test_minimal_is_short() -> None:
    assert len((EXAMPLES / "minimal.c").read_text().splitlines()) < 60
