"""Each program of examples/facts holds, and the page there lists them all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from installed import ROOT

FACTS = sorted((ROOT / "examples" / "facts").glob("*.py"))


def test_there_are_facts_and_a_page_of_them() -> None:
    listed = re.findall(r"^\| `(\w+\.py)` \|", (ROOT / "examples" / "facts" / "README.md").read_text(), re.M)
    assert len(FACTS) >= 7 and sorted(listed) == [path.name for path in FACTS]


@pytest.mark.parametrize("path", FACTS, ids=lambda path: path.stem)
def test_fact(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
