"""An installed copy of the library in a temporary place, for the examples to be built against."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Installed:
    """What a program needs to find and load the installed library."""

    def __init__(self, destdir: Path) -> None:
        found = list(destdir.rglob("qkv.pc"))
        assert len(found) == 1, f"one qkv.pc is installed, not {found}"
        self.destdir = destdir
        self.libdir = found[0].parent.parent
        self.env = dict(
            os.environ,
            PKG_CONFIG_PATH=str(found[0].parent),
            PKG_CONFIG_SYSROOT_DIR=str(destdir),
            LD_LIBRARY_PATH=str(self.libdir),
        )


def run(command: list[object], **options: object) -> subprocess.CompletedProcess:
    """Runs a command and shows all it said if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **options,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done
