"""C programs shown in the documents compile without warnings and run."""

import re
from pathlib import Path

import pytest
from installed import ROOT, Installed, run

FENCE = re.compile(r"^```c\n(.*?)^```$", re.M | re.S)
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{n}")
    for path in DOCUMENTS
    for n, block in enumerate(FENCE.findall(path.read_text()))
]


def test_the_readme_shows_a_program() -> None:
    assert FENCE.search((ROOT / "README.md").read_text())


@pytest.mark.parametrize("program", BLOCKS)
def test_block(installed: Installed, tmp_path: Path, program: str) -> None:
    (tmp_path / "block.c").write_text(program)
    flags = run(["pkg-config", "--cflags", "--libs", "qkv"], env=installed.env).stdout.split()
    run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", tmp_path / "block.c",
         "-o", tmp_path / "block", *flags],
        env=installed.env,
    )  # fmt: skip
    run([tmp_path / "block"], env=installed.env)
