"""What is compared: shapes and types, and the work each of them is.

One sequence (B = 1).  Tensors are q [Hq][Tq][D], k [Hkv][Tk][D], v [Hkv][Tk][Dv]; in latent cases
v is the first Dv channels of k.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

BYTES = {"f32": 4, "bf16": 2, "f16": 2}


@dataclass(frozen=True)
class Case:
    """A problem.  All fields are plain values, so that it travels as JSON."""

    name: str
    kind: str  # "prefill" (many queries), "decode" (one query a head), "latent" (decode, V in K)
    dtype: str  # of q, k, v and the output: "f32", "bf16", "f16"
    q_heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    head_dim_v: int
    causal: bool = False

    @property
    def latent(self) -> bool:
        """V lies inside K."""
        return self.kind == "latent"

    @property
    def visible_pairs(self) -> int:
        """Query-key pairs over all heads; causal stands at the bottom right."""
        tq, tk = self.q_len, self.kv_len
        pairs = tq * tk
        if self.causal:
            pairs = sum(max(0, tk - tq + i + 1) for i in range(tq))
        return self.q_heads * pairs

    @property
    def flops(self) -> int:
        """Useful work only: 2 (D + Dv) operations a visible pair."""
        return 2 * (self.head_dim + self.head_dim_v) * self.visible_pairs

    @property
    def kv_bytes(self) -> int:
        """K and V, each byte counted once however often it is read."""
        width = self.head_dim if self.latent else self.head_dim + self.head_dim_v
        return self.kv_heads * self.kv_len * width * BYTES[self.dtype]

    @property
    def unit(self) -> str:
        """What a time is turned into: decoding with few heads a group moves bytes, the rest
        computes."""
        return "GB/s" if self.kind == "decode" else "GFLOP/s"

    def rate(self, seconds: float) -> float:
        """Useful work over time, in `unit`."""
        return (self.kv_bytes if self.unit == "GB/s" else self.flops) / seconds / 1e9

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Case:
        return Case(**fields)


def _prefill(dtype: str, d: int, t: int, causal: bool, heads: int) -> Case:
    name = f"{dtype} D={d} T={t} {'causal' if causal else 'full'}"
    return Case(name, "prefill", dtype, heads, heads, t, t, d, d, causal)


def _decode(dtype: str) -> Case:
    return Case(f"decode {dtype}", "decode", dtype, 32, 8, 1, 16384, 128, 128)


CASES = (
    _prefill("f32", 64, 4096, False, 4),
    _prefill("f32", 64, 4096, True, 4),
    _prefill("f32", 128, 4096, False, 4),
    _prefill("f32", 128, 4096, True, 4),
    _prefill("f32", 64, 512, True, 8),
    _prefill("bf16", 64, 4096, False, 4),
    _prefill("bf16", 64, 4096, True, 4),
    _prefill("bf16", 128, 4096, False, 4),
    _prefill("bf16", 128, 4096, True, 4),
    _prefill("f16", 128, 4096, False, 4),
    _decode("f32"),
    _decode("bf16"),
    _decode("f16"),
    Case("latent bf16", "latent", "bf16", 128, 1, 1, 4096, 576, 512),
)


def select(words: list[str]) -> list[Case]:
    """The cases whose names contain one of the texts, from the beginning of a word ("f16" is not in
    "bf16 D=64 ..."); all for no texts.

    ValueError for a text that no case contains.
    """

    def fits(word: str, case: Case) -> bool:
        return f" {word}" in f" {case.name}"

    for word in words:
        if not any(fits(word, case) for case in CASES):
            names = ", ".join(repr(case.name) for case in CASES)
            raise ValueError(f"case is {word!r}; a part of one of {names} is accepted")
    return [c for c in CASES if not words or any(fits(word, c) for word in words)]
