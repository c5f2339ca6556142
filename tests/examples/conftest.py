"""The fixture `installed`: the library in a temporary place, by `meson install --destdir`.

QKV_BUILD names the configured and compiled Meson build directory to install from
(build/release if it is not set).
"""

import os
import sys
from pathlib import Path

import pytest
from installed import ROOT, Installed, run


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    build = Path(os.environ.get("QKV_BUILD", ROOT / "build" / "release")).resolve()
    assert (build / "build.ninja").exists(), f"{build} is no configured build directory"
    destdir = tmp_path_factory.mktemp("installed")
    meson = ROOT / "build" / "venv" / "bin" / "meson"
    program = [meson] if meson.exists() else [sys.executable, "-m", "mesonbuild.mesonmain"]
    env = dict(os.environ, PATH=f"{meson.parent}:{os.environ['PATH']}")
    run([*program, "install", "-C", build, "--no-rebuild", "--destdir", destdir], env=env)
    return Installed(destdir)
