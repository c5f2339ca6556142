"""The sentence encoder all-MiniLM-L6-v2 in NumPy: a BERT encoder with mean pooling.

The attention of every layer is a function given by the caller, so that the same encoder runs on
qkv and on the plain formula.  Letters: B sentences, T tokens (padded to the longest), H heads,
D channels a head.
"""

import json
import math
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

# attend(q, k, v, lengths): q, k, v (B, H, T, D); lengths (B,) tokens that are not padding.
Attend = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# watch(layer, q, k, v, o): called once a layer with what its attention got and gave.
Watch = Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


class Batch(NamedTuple):
    """Sentences as token numbers, padded on the right."""

    ids: np.ndarray  # (B, T) int64
    lengths: np.ndarray  # (B,) int32
    words: list[list[str]]  # the tokens as text, without padding


def plain_attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, lengths: Optional[np.ndarray] = None
) -> np.ndarray:
    """softmax(q k^T / sqrt(D)) v as the textbook writes it, with the (B, H, T, T) matrix."""
    s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if lengths is not None:
        hidden = np.arange(k.shape[2]) >= lengths[:, None]
        s = np.where(hidden[:, None, None, :], -np.inf, s)
    w = np.exp(s - s.max(axis=-1, keepdims=True))
    return (w / w.sum(axis=-1, keepdims=True)) @ v


# erf by cubic interpolation between exact values and slopes 1/512 apart: error below 1e-12.
_STEP = 1 / 512
_NODES = np.arange(-6, 6 + _STEP, _STEP)
_ERF = np.array([math.erf(x) for x in _NODES])
_SLOPE = _STEP * 2 / math.sqrt(math.pi) * np.exp(-(_NODES**2))


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, which NumPy does not have."""
    at = (np.clip(x, -5.99, 5.99) + 6) / _STEP
    i = at.astype(np.int64)
    t = at - i
    y0, y1, m0, m1 = _ERF[i], _ERF[i + 1], _SLOPE[i], _SLOPE[i + 1]
    rise = y1 - y0
    return y0 + t * (m0 + t * ((3 * rise - 2 * m0 - m1) + t * (m0 + m1 - 2 * rise)))


class Encoder:
    """The network, with its numbers in float32 or float64."""

    def __init__(self, folder: Path, dtype: type = np.float32) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.n_layers: int = config["num_hidden_layers"]
        self.n_heads: int = config["num_attention_heads"]
        self.eps: float = config["layer_norm_eps"]
        self.dtype = dtype
        self.weights: dict[str, np.ndarray] = {
            name: array.astype(dtype)
            for name, array in load_file(folder / "model.safetensors").items()
            if array.dtype == np.float32
        }
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.tokenizer.enable_truncation(limit)

    def tokenize(self, sentences: list[str]) -> Batch:
        coded = [self.tokenizer.encode(sentence) for sentence in sentences]
        lengths = np.array([len(c.ids) for c in coded], dtype=np.int32)
        ids = np.zeros((len(coded), int(lengths.max())), dtype=np.int64)
        for row, c in zip(ids, coded):
            row[: len(c.ids)] = c.ids
        return Batch(ids, lengths, [c.tokens for c in coded])

    def encode(self, batch: Batch, attend: Attend, watch: Optional[Watch] = None) -> np.ndarray:
        """Embeddings (B, 384) of unit length."""
        x = self._embed(batch.ids)
        for layer in range(self.n_layers):
            name = f"encoder.layer.{layer}."
            x = self._norm(
                x + self._attention(x, batch.lengths, layer, attend, watch),
                name + "attention.output.LayerNorm",
            )
            h = self._linear(x, name + "intermediate.dense")
            h = (0.5 * h * (1 + erf(h / math.sqrt(2)))).astype(self.dtype)  # GELU
            x = self._norm(x + self._linear(h, name + "output.dense"), name + "output.LayerNorm")
        return self._pool(x, batch.lengths)

    def _embed(self, ids: np.ndarray) -> np.ndarray:
        w = self.weights
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        return self._norm(x, "embeddings.LayerNorm")

    def _attention(
        self,
        x: np.ndarray,
        lengths: np.ndarray,
        layer: int,
        attend: Attend,
        watch: Optional[Watch],
    ) -> np.ndarray:
        name = f"encoder.layer.{layer}.attention."
        q, k, v = (self._heads(x, f"{name}self.{part}") for part in ("query", "key", "value"))
        o = attend(q, k, v, lengths)
        if watch is not None:
            watch(layer, q, k, v, o)
        joined = o.transpose(0, 2, 1, 3).reshape(x.shape)
        return self._linear(joined, name + "output.dense")

    def _heads(self, x: np.ndarray, name: str) -> np.ndarray:
        """A projection seen as (B, H, T, D): a view with other strides, not a copy."""
        b, t, width = x.shape
        y = self._linear(x, name).reshape(b, t, self.n_heads, width // self.n_heads)
        return y.transpose(0, 2, 1, 3)

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.eps)
        return centred / spread * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def _pool(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The mean over the tokens that are not padding, then unit length."""
        real = np.arange(x.shape[1]) < lengths[:, None]
        mean = np.where(real[:, :, None], x, 0).sum(axis=1) / lengths[:, None].astype(self.dtype)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)
