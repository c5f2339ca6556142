"""C programs shown in the documents compile without warnings and run; what is a piece of an example
says so in a comment before it, and is that piece to the letter."""

import re
from pathlib import Path

import pytest
from installed import ROOT, Installed, run

FENCE = re.compile(r"^```c\n(.*?)^```$", re.M | re.S)
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUOTE = re.compile(r"^<!-- (examples/\S+) -->\n```(?:c|python)\n(.*?)^```$", re.M | re.S)
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{n}")
    for path in DOCUMENTS
    for n, block in enumerate(FENCE.findall(QUOTE.sub("", path.read_text())))
]
QUOTES = [quote for path in DOCUMENTS for quote in QUOTE.findall(path.read_text())]


def test_the_readme_shows_a_program() -> None:
    assert FENCE.search((ROOT / "README.md").read_text())


@pytest.mark.parametrize("example, piece", QUOTES, ids=[name for name, _ in QUOTES])
def test_quote(example: str, piece: str) -> None:
    """The examples themselves are run by test_examples.py."""
    assert piece in (ROOT / example).read_text()


def test_decoding_with_a_cache_is_short() -> None:
    """The readme's loops: ten lines or so, braces and empty lines not counted."""
    for name, piece in QUOTES:
        loop = piece[piece.index("for "):].splitlines()
        assert len([line for line in loop if line.strip(" }")]) <= 14, name
    assert {name for name, _ in QUOTES} == {"examples/decode_cache.c", "examples/decode_cache.py"}


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
