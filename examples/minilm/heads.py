"""Chooses heads by what they do on a sentence and has the qkv command draw them."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import qkv
from encoder import Batch, Encoder


class Head(NamedTuple):
    layer: int
    head: int
    what: str  # what it does, for people
    measure: str  # the figure it was chosen by
    q: np.ndarray  # (H, T, D) of its layer
    k: np.ndarray
    v: np.ndarray


def choose_heads(encoder: Encoder, batch: Batch) -> list[Head]:
    """Of all layers and heads: the one that looks most at the token before, the one that looks
    most at the token after, and the one that spreads its weight the most evenly."""
    tensors: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    weights: list[np.ndarray] = []

    def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        o, w = qkv.attention(q, k, v, kv_lens=lengths, return_weights=True)
        tensors.append((q[0], k[0], v[0]))
        weights.append(w[0])
        return o

    encoder.encode(batch, attend)
    w = np.stack(weights).astype(np.float64)  # (layers, H, T, T)
    before = np.diagonal(w, -1, 2, 3).mean(axis=-1)
    after = np.diagonal(w, 1, 2, 3).mean(axis=-1)
    entropy = -(w * np.log(np.maximum(w, 1e-300))).sum(axis=-1).mean(axis=-1)
    tokens = w.shape[-1]

    def head(score: np.ndarray, what: str, measure: str) -> Head:
        layer, number = np.unravel_index(int(score.argmax()), score.shape)
        q, k, v = tensors[layer]
        figure = float(score[layer, number])
        return Head(int(layer), int(number), what, measure.format(figure, np.exp(figure)), q, k, v)

    return [
        head(before, "looks at the token before", "{:.0%} of its weight on average"),
        head(after, "looks at the token after", "{:.0%} of its weight on average"),
        head(entropy, "spreads its weight", "as over {1:.1f} of " + f"{tokens} tokens evenly"),
    ]


def draw(command: Path, head: Head, words: list[str], folder: Path) -> Path:
    """Draws one head with `qkv attend --heatmap`; its inputs stay beside the picture."""
    stem = folder / f"layer{head.layer}-head{head.head}"
    files = {}
    for name in ("q", "k", "v"):
        files[name] = f"{stem}-{name}.npy"
        np.save(files[name], np.ascontiguousarray(getattr(head, name)))
    labels = stem.with_suffix(".txt")
    labels.write_text("\n".join(words) + "\n")
    picture = stem.with_suffix(".svg")
    done = subprocess.run(
        [
            str(command), "attend",
            "--q", files["q"], "--k", files["k"], "--v", files["v"],
            "-o", f"{stem}-o.npy",
            "--heatmap", str(picture), "--heatmap-head", str(head.head), "--labels", str(labels),
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return picture
