"""Inputs, the same for everybody, and the exact result of sampled rows.

bf16 is kept as its bits in uint16: NumPy has no such type, and not every environment has the
package that adds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peers.cases import Case

Array = np.ndarray[Any, Any]
Row = tuple[int, int]  # head, token


def to_storage(x: Array, dtype: str) -> Array:
    """Float32 numbers rounded to nearest even into how `dtype` is kept."""
    x = np.ascontiguousarray(x, np.float32)
    if dtype == "f32":
        return x
    if dtype == "f16":
        return x.astype(np.float16)
    bits = x.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    quiet_nan = ((bits >> 16) | 0x40).astype(np.uint16)
    return np.where(np.isnan(x), quiet_nan, rounded)


def to_float(x: Array) -> Array:
    """Stored numbers as float32 (exact)."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(x.astype(np.float32, copy=False))


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """New memory at a multiple of 64 bytes, which some libraries take for granted: vLLM's latent
    kernel ends the process on any other.  It is NumPy's, which asks the system for large pages."""
    bytes_needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(bytes_needed + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    found: Array = raw[begin : begin + bytes_needed].view(dtype).reshape(shape)
    return found


def contiguous(x: Array) -> Array:
    """A copy in row-major order, in memory of empty()."""
    made = empty(x.shape, x.dtype)
    made[...] = x
    return made


@dataclass
class Tensors:
    """q [Hq][Tq][D], k [Hkv][Tk][D], v [Hkv][Tk][Dv] as stored; v is a view of k if latent."""

    q: Array
    k: Array
    v: Array


def generate(case: Case, seed: int = 1) -> Tensors:
    """Standard normal numbers: never zeros, which nobody computes."""
    rng = np.random.default_rng(seed)

    def normal(heads: int, tokens: int, channels: int) -> Array:
        x = rng.standard_normal((heads, tokens, channels), dtype=np.float32)
        return to_storage(x, case.dtype)

    q = normal(case.q_heads, case.q_len, case.head_dim)
    k = normal(case.kv_heads, case.kv_len, case.head_dim)
    v = k if case.latent else normal(case.kv_heads, case.kv_len, case.head_dim_v)
    return Tensors(q, k, v[..., : case.head_dim_v])


def save(tensors: Tensors, case: Case, folder: Path) -> None:
    """Into files that load() reads in another process."""
    np.save(folder / "q.npy", tensors.q)
    np.save(folder / "k.npy", tensors.k)
    if not case.latent:
        np.save(folder / "v.npy", tensors.v)


def load(case: Case, folder: Path, sets: int = 1) -> list[Tensors]:
    """`sets` problems in memory of their own, for reading caches that no processor cache holds.

    Set n has the tokens of K and V moved on by n places: other bytes at other addresses, and, where
    no query is causal, the same result.
    """
    assert sets == 1 or not case.causal
    q, k = contiguous(np.load(folder / "q.npy")), np.load(folder / "k.npy")
    v = None if case.latent else np.load(folder / "v.npy")
    made = []
    for n in range(sets):
        k_n = contiguous(np.roll(k, n, axis=1))
        v_n = k_n[..., : case.head_dim_v] if v is None else contiguous(np.roll(v, n, axis=1))
        made.append(Tensors(q, k_n, v_n))
    return made


def sample_rows(case: Case, count: int = 48, seed: int = 2) -> list[Row]:
    """Rows to look at: the first and last of the first head and the last, and random ones."""
    rng = np.random.default_rng(seed)
    rows = {(h, t) for h in (0, case.q_heads - 1) for t in (0, case.q_len - 1)}
    while len(rows) < min(count, case.q_heads * case.q_len):
        rows.add((int(rng.integers(case.q_heads)), int(rng.integers(case.q_len))))
    return sorted(rows)


def exact_rows(case: Case, tensors: Tensors, rows: list[Row]) -> Array:
    """The formula in double precision, on the rounded inputs: [row][Dv]."""
    out = np.empty((len(rows), case.head_dim_v))
    wide: dict[int, tuple[Array, Array]] = {}
    for n, (h, t) in enumerate(rows):
        group = h // (case.q_heads // case.kv_heads)
        if group not in wide:
            wide = {group: tuple(to_float(x[group]).astype(np.float64)
                                 for x in (tensors.k, tensors.v))}  # type: ignore[dict-item]
        k, v = wide[group]
        seen = case.kv_len - case.q_len + t + 1 if case.causal else case.kv_len
        q = to_float(tensors.q[h, t]).astype(np.float64)
        s = k[:seen] @ q / np.sqrt(case.head_dim)
        w = np.exp(s - s.max())
        out[n] = (w @ v[:seen]) / w.sum()
    return out


def errors(rows: Array, exact: Array) -> dict[str, float | None]:
    """How far rows are from exact ones, as shares of the exact rows' root mean square.

    `rms` is the typical error, `worst` the largest; both None if a number is not finite.
    """
    scale = float(np.sqrt(np.mean(exact**2)))
    wrong = np.abs(rows.astype(np.float64) - exact)
    if not np.isfinite(wrong).all():
        return {"rms": None, "worst": None}
    return {"rms": float(np.sqrt(np.mean(wrong**2))) / scale, "worst": float(wrong.max()) / scale}
