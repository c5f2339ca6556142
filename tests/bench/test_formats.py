"""docs/cache-formats.md: its tables are what bench/formats measures, as far as that is quick."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "bench" / "formats"


@pytest.fixture(scope="module")
def modules():
    """errors, report, sources and codecs_of_caches, which are scripts beside one another."""
    sys.path.insert(0, str(FOLDER))
    yield {n: importlib.import_module(n) for n in ("errors", "report", "sources")}
    sys.path.remove(str(FOLDER))


def run(*options):
    """With one thread for NumPy's products: they are small, and other tests may run beside."""
    environment = {"QKV_BUILD": f"{ROOT}/build/release"} | os.environ
    environment["OPENBLAS_NUM_THREADS"] = "1"
    return subprocess.run([sys.executable, str(FOLDER), *options], env=environment, text=True,
                          capture_output=True)  # fmt: skip


@pytest.mark.parametrize("source", ["MiniLM, D = 32", "N(0, 1), D = 64"])
def test_tables_are_what_is_measured(modules, source):
    """Within a tenth: sums of the encoder's products depend on the BLAS."""
    report = modules["report"]
    done = run("--sources", source)
    assert done.returncode == 0, done.stderr
    measured = report.parse(report.BEGIN + done.stdout + report.END)
    written = report.parse((ROOT / "docs/cache-formats.md").read_text())
    for kind in "kl", "output":
        assert len(written[kind]) == 6 and len(written[kind][source]) == 12
        assert list(measured[kind][source]) == list(written[kind][source])
        for name, x in measured[kind][source].items():
            assert x == pytest.approx(written[kind][source][name], rel=0.1), (kind, name)


def test_errors_of_a_head(modules):
    """Two keys whose weights are known: 1/2 and 1/2, stored as 1/4 and 3/4."""
    errors, sources = modules["errors"], modules["sources"]
    q, k, v = np.ones((1, 1, 1)), np.zeros((1, 2, 1)), np.array([[[1.0], [-3.0]]])
    layers = [sources.Layer(q, k, v, False)]
    worse = np.array([[[0.0], [np.log(3)]]])
    e, same = errors.of_layers(layers, [lambda k, v: (worse, v), lambda k, v: (k, v)])
    assert e.kl == e.worst_kl == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert e.output == pytest.approx(abs((0.25 - 9 / 4) - -1) / 1)
    assert same == (0, 0, 0, 0)


def test_causal_heads(modules):
    """A hidden key enters neither weights nor output."""
    errors, sources = modules["errors"], modules["sources"]
    q = k = v = np.random.default_rng(0).standard_normal((2, 5, 4))
    spoilt = k.copy()
    spoilt[:, 4] = 100
    layers = [sources.Layer(q[:, :4], k, v, True)]
    assert errors.of_layers(layers, [lambda k, v: (spoilt, spoilt)]) == [(0, 0, 0, 0)]


def test_document_without_marks(modules, tmp_path):
    (tmp_path / "x.md").write_text("nothing")
    with pytest.raises(ValueError, match="formats:begin"):
        modules["report"].rewrite(tmp_path / "x.md", "")


def test_refusals():
    done = run("--sources", "GPT")
    assert done.returncode == 2 and "--sources is GPT" in done.stderr


def test_picture(modules, tmp_path):
    report = modules["report"]
    Errors = modules["errors"].Errors
    results = {
        s: {f.name: Errors(1e-3 * (i + 1), 1, 1, 1) for i, f in enumerate(report.FORMATS)}
        for s in ("N(0, 1), D = 32", "N(0, 1), D = 64", "MiniLM, D = 32", "SmolLM2, D = 64")
    }
    report.draw(results, tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    assert all(f">{name}<" in svg for name in report.DRAWN) and "nats" in svg
    (tmp_path / "t.md").write_text(f"before {report.BEGIN}old{report.END} behind")
    report.rewrite(tmp_path / "t.md", report.tables(results))
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("before ") and text.endswith(" behind") and "old" not in text
    assert report.parse(text)["kl"]["MiniLM, D = 32"]["bf16"] == pytest.approx(2e-3)
