"""The demo runs with the installed package, ends well, and draws what it says it draws."""

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from installed import ROOT, run


def test_demo(tmp_path: Path) -> None:
    said = run([sys.executable, ROOT / "examples/minilm/demo.py", "--out", tmp_path]).stdout
    assert "FAILED" not in said
    pictures = re.findall(r": (\S+\.svg)$", said, re.M)
    assert len(pictures) == 3, said
    for picture in pictures:
        texts = " ".join(ET.parse(picture).getroot().itertext())
        assert "inflation" in texts and "[SEP]" in texts

    assert said.index("Try next") > said.index(pictures[-1])
    # A command is indented by two; a backslash at the end of its line continues it.
    lines = said[said.index("Try next") :]
    commands = re.findall(r"^  (\S*qkv [^\\\n]*(?:\\\n[^\\\n]*)*)$", lines, re.M)
    assert len(commands) == 3, commands
    for command in commands:
        if " check" not in command:  # runs for longer; tests of its own call it
            run(["sh", "-c", command])
    assert (tmp_path / "causal.svg").exists()
