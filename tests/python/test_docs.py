"""What the docstrings and the documents show is run."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qkv

ROOT = Path(__file__).resolve().parents[2]
MODULES = ["qkv"] + [f"qkv.{m.name}" for m in pkgutil.iter_modules(qkv.__path__) if m.name not in ("_qkv", "_layers")]
DOCUMENTS = [p for p in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if p.exists()]
PUBLIC = [getattr(qkv, name) for name in qkv.__all__]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags).failed == 0


def test_every_public_name_has_an_example():
    for thing in PUBLIC:
        assert ">>> " in thing.__doc__, thing


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_python_blocks_of_documents(path, tmp_path, monkeypatch):
    """The blocks of one document are one program: later ones see the names of earlier ones."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "document", "np": np, "qkv": qkv}
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, path.name, str(path), 0)
            assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
        else:
            exec(compile(block, str(path), "exec"), names)


def test_the_example_with_a_cache():
    """It holds its result against attention without a cache, and notices a wrong one."""
    source = (ROOT / "examples" / "decode_cache.py").read_text()
    right = "cache.attend(layer, heads[:, :8])"
    assert right in source
    spoiled = source.replace(right, "cache.attend(layer, heads[:, :8], window=8)")
    for text, code in ((source, 0), (spoiled, 1)):
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "tokens cached in 45056 bytes" in done.stdout
