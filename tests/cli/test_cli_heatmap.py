"""The picture: valid XML that shows the right numbers of the right head under the right words."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from cli_reference import attention

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def three(rng):
    make = lambda *shape: rng.normal(size=shape).astype("f4")
    return {"q": make(2, 4, 6, 8), "k": make(2, 2, 6, 8), "v": make(2, 2, 6, 8)}


@pytest.fixture
def draw(qkv, tmp_path):
    def run(*options):
        qkv("attend", *options, "--heatmap", "h.svg")
        return ET.parse(tmp_path / "h.svg").getroot()
    return run


def panels(svg):
    """{head: [(from, to, weight, class)]} of pictures with a rectangle a cell."""
    found = {}
    for group in svg.iter(SVG + "g"):
        titles = [(r.find(SVG + "title").text, r.get("class")) for r in group.findall(SVG + "rect")
                  if r.find(SVG + "title") is not None]
        if titles:
            head = next(t.text for t in group.findall(SVG + "text") if (t.text or "").startswith("head "))
            found[int(head[5:])] = [(*re.fullmatch(r"(.*) → (.*): (\S+)", t).groups(), c) for t, c in titles]
    return found


def check_numbers(cells, weights):
    assert len(cells) == weights.size
    for (_, _, text, kind), want in zip(cells, weights.ravel()):
        assert float(text) == pytest.approx(want, rel=1e-3, abs=1e-6)
        assert (kind == "zero") == (want == 0)


@pytest.mark.parametrize("heads", ["0", "1,3", "all"])
@pytest.mark.parametrize("sequence", [0, 1])
def test_heads_and_sequences(draw, save, three, heads, sequence):
    mask = np.random.default_rng(1).random((2, 4, 6, 6)) < 0.7
    sinks = np.linspace(-1, 1, 8).reshape(2, 4).astype("f4")
    svg = draw(*save(**three, mask=mask, sinks=sinks), "--causal", "--heatmap-head", heads,
               "--heatmap-seq", sequence)
    weights = attention(*three.values(), causal="inclusive", mask=mask, sinks=sinks)[2]["weights"]
    found = panels(svg)
    assert list(found) == (list(range(4)) if heads == "all" else [int(h) for h in heads.split(",")])
    for head, cells in found.items():
        check_numbers(cells, weights[sequence, head])


def test_block_mask(draw, save, three):
    blocks = np.random.default_rng(2).random((2, 4, 3, 2)) < 0.6
    svg = draw(*save(**three, block_mask=blocks), "--block-size", "2,3", "--heatmap-head", "3",
               "--heatmap-seq", "1")
    weights = attention(*three.values(), block_mask=blocks, block_size=(2, 3))[2]["weights"]
    check_numbers(panels(svg)[3], weights[1, 3])


def test_lengths_cut_the_picture(draw, save, three):
    svg = draw(*save(**three), "--kv-lens", "6,4", "--q-lens", "5,2", "--heatmap-seq", "1")
    weights = attention(*three.values(), kv_lens=[6, 4], q_lens=[5, 2])[2]["weights"]
    check_numbers(panels(svg)[0], weights[1, 0, :2, :4])


def test_packed(draw, save, rng):
    q, k, v = (rng.normal(size=(9, h, 8)).astype("f4") for h in (4, 2, 2))
    svg = draw(*save(q=q, k=k, v=v), "--cu-seqlens-q", "0,5,9", "--cu-seqlens-k", "0,5,9",
               "--heatmap-seq", "1", "--heatmap-head", "2")
    one = [x[5:].transpose(1, 0, 2)[None] for x in (q, k, v)]
    check_numbers(panels(svg)[2], attention(*one)[2]["weights"][0, 2])


def test_words(draw, save, tmp_path, three):
    words = ["<s>", "A&B", "naïve", '"quoted"', "b\x01d", "dog"]
    (tmp_path / "words.txt").write_text("\n".join(words) + "\n")
    svg = draw(*save(**three), "--labels", "words.txt")
    shown = [w.replace("\x01", "\ufffd") for w in words]
    cells = panels(svg)[0]
    assert [c[1] for c in cells[:6]] == shown
    assert [c[0] for c in cells[::6]] == shown
    texts = [t.text for t in svg.iter(SVG + "text")]
    assert all(texts.count(w) == 2 for w in shown)


def test_words_by_position(draw, save, tmp_path, rng):
    """The last two tokens of five ask: their words are the last two."""
    (tmp_path / "words.txt").write_text("a\nb\nc\nd\ne\n")
    q, k, v = (rng.normal(size=(n, 4)).astype("f4") for n in (2, 5, 5))
    cells = panels(draw(*save(q=q, k=k, v=v), "--labels", "words.txt"))[0]
    assert [c[0] for c in cells[::5]] == ["d", "e"]
    (tmp_path / "other.txt").write_text("x\ny\n")
    cells = panels(draw(*save(q=q, k=k, v=v), "--labels", "words.txt", "--labels-q", "other.txt"))[0]
    assert [c[0] for c in cells[::5]] == ["x", "y"]
    assert [c[1] for c in cells[:5]] == list("abcde")


def test_words_that_are_no_utf8_and_long(draw, save, tmp_path, three):
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\nlong" + b"g" * 40 + b"\n\xed\xa0\x80\nx\ny\nz\n")
    texts = [t.text or "" for t in draw(*save(**three), "--labels", "words.txt").iter(SVG + "text")]
    assert "\ufffd\ufffd" in texts
    assert max(map(len, texts)) < 40


def test_too_few_words(qkv, save, tmp_path, three):
    (tmp_path / "words.txt").write_text("a\nb\n")
    done = qkv("attend", *save(**three), "--heatmap", "h.svg", "--labels", "words.txt", code=2)
    assert "words.txt holds 2 words" in done.stderr and not (tmp_path / "h.svg").exists()


@pytest.mark.parametrize("n", [4, 16, 64])
def test_readable_sizes(draw, save, n):
    """Cells are at least as high as a line of text, and all words stand inside the picture."""
    x = np.random.default_rng(n).normal(size=(n, 8)).astype("f4")
    svg = draw(*save(q=x, k=x, v=x))
    cell = next(r for r in svg.iter(SVG + "rect") if r.find(SVG + "title") is not None)
    assert float(cell.get("height")) >= 12
    assert float(svg.get("width")) <= 1200
    assert sum(1 for t in svg.iter(SVG + "text") if re.fullmatch(r"\d+", t.text)) >= 2 * n


@pytest.mark.parametrize("n, side", [(200, 200), (600, 200)])
def test_large_pictures_are_coarser(draw, save, tmp_path, n, side):
    """A path a colour, each run of cells inside the picture; hidden tokens are background."""
    x = np.random.default_rng(n).normal(size=(n, 8)).astype("f4")
    svg = draw(*save(q=x, k=x, v=x), "--causal")
    assert (tmp_path / "h.svg").stat().st_size < 1_000_000
    area = 0
    for path in svg.iter(SVG + "path"):
        for run in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path.get("d")):
            column, row, width, back = map(int, run)
            assert width == back and row < side and column + width <= row + 1
            area += width
    assert area == side * (side + 1) // 2
    assert ("largest weight of 3 × 3 tokens" in "".join(svg.itertext())) == (n == 600)


def test_nan_is_red(draw, save, three):
    three["k"][0, 0, 2] = np.nan
    cells = panels(draw(*save(**three)))[0]
    assert all(kind == "nan" for *_, kind in cells)


def test_legend(draw, save, three):
    texts = [t.text for t in draw(*save(**three)).iter(SVG + "text")]
    assert {"weight", "exactly 0", "queries", "keys", "head 0"} <= set(texts)
