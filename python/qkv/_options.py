"""From keyword arguments to what the C module takes: numbers, int32 arrays, bits."""

from __future__ import annotations

import operator
from typing import Any, Optional, Sequence, Union

import numpy as np

from . import _qkv
from ._arrays import Array
from ._keys import NO_CODES, codes, kv_tokens, numbers, table

Window = Union[None, int, tuple[Optional[int], Optional[int]]]
Lengths = Union[Sequence[int], Array]

_ALIGN = {"bottom_right": 0, "top_left": 1}
_PRECISION = {"highest": 0, "high": 1, "medium": 2}
_STAGE = {False: -1, None: -1, True: 3, "scores": 0, "capped": 1, "biased": 2, "weights": 3}
_POOLS = {"phtd": "(pages, H, tokens, D)", "pthd": "(pages, tokens, H, D)"}
_INT64_MAX = 2**63 - 1

cpu_mask: int = 0x7FFFFFFF  # QKV_CPU_ALL; set_cpu_tier changes it


def _choice(name: str, value: Any, table: dict[Any, int]) -> int:
    try:
        return table[value]
    except (KeyError, TypeError):
        words = ", ".join(repr(key) for key in table if key is not None)
        raise ValueError(f"{name} is {value!r}; one of {words} is accepted") from None


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; an integer is accepted") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}; {low} to {high} is accepted")
    return number


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; a number is accepted") from None


def _window(window: Window) -> tuple[int, int]:
    if window is None:
        return -1, -1
    if isinstance(window, (tuple, list)):
        if len(window) != 2:
            raise ValueError(f"window is {window!r}; an integer or (left, right) is accepted")
        left, right = (-1 if side is None else side for side in window)
    else:
        left = right = window
    return _integer("window", left, -1, _INT64_MAX), _integer("window", right, -1, _INT64_MAX)


def _causal(causal: bool, strict: bool) -> int:
    if strict and not causal:
        raise ValueError("strict is True but causal is False; strict is a kind of causal")
    return 2 if strict else 1 if causal else 0


def shape_of(name: str, array: Array, rank: int, pool: str = "") -> tuple[int, ...]:
    """The shape of a main tensor, where more than the C module has to know it."""
    shape = getattr(array, "shape", None)
    if shape is None:
        raise TypeError(
            f"{name} is a {type(array).__name__}; "
            "a NumPy array or an object with __dlpack__ is accepted"
        )
    if len(shape) != rank:
        wanted = _POOLS.get(pool) or ("(B, H, T, D)" if rank == 4 else "(T, H, D)")
        raise ValueError(f"{name} has shape {tuple(shape)}; {wanted} is expected")
    return tuple(shape)


def lengths(name: str, value: Optional[Lengths], n: Optional[int] = None) -> Any:
    """int32 array of a list, an array, or (with n) one number for all n sequences."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim == 0 and n is not None:
        array = np.broadcast_to(array, (n,))
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} has dtype {array.dtype}; integers are accepted")
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise ValueError(f"{name} holds a value that does not fit 32 bits")
    return np.ascontiguousarray(array, dtype=np.int32)


def cu_seqlens(name: str, value: Lengths, rows: int, whole: bool) -> Any:
    """int32 or int64 array of row numbers, inside an array with that many rows."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; integers are accepted")
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} has shape {array.shape}; (B + 1,) is expected")
    array = np.ascontiguousarray(array, dtype=np.int64)
    if array[0] != 0 or (np.diff(array) < 0).any():
        raise ValueError(f"{name} must start at 0 and ascend")
    if array[-1] > rows or (whole and array[-1] != rows):
        raise ValueError(f"{name} ends at {array[-1]}; the tensor has {rows} rows")
    return array


def logits(value: Any, q: Array) -> Any:
    """Sinks and slopes may be plain lists of numbers."""
    if isinstance(value, (list, tuple)):
        wide = str(getattr(q, "dtype", "")).endswith("float64")
        return np.array(value, np.float64 if wide else np.float32)
    return value


def blocks(mask: Array, size: tuple[int, int], shape: tuple[int, ...]) -> Any:
    """(bits, strides in bits) of a block mask for (B, Hq, Tq, Tk)."""
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"block_mask has dtype {array.dtype}; it must be bool, True where visible")
    n_blocks = tuple(-(-tokens // block) for tokens, block in zip(shape[2:], size))
    wanted = shape[:2] + n_blocks
    rank = array.ndim
    if not 2 <= rank <= 4 or array.shape[-2:] != n_blocks or any(
        have not in (1, want) for have, want in zip(array.shape[::-1], wanted[::-1])
    ):
        raise ValueError(
            f"block_mask has shape {array.shape}; {n_blocks}, or (Hq, ...) or (B, Hq, ...) before "
            f"it, is expected for block_size {size}"
        )
    bits = np.packbits(array, axis=-1, bitorder="little")
    row = 8 * bits.shape[-1]
    head = row * bits.shape[-2]
    heads = bits.shape[-3] if rank > 2 else 1
    seq = head * heads if rank == 4 and bits.shape[0] > 1 else 0
    return bits.tobytes(), (seq, head if heads > 1 else 0, row)


def pack(
    q: Array, k: Array, v: Array, out: Any, mask: Any, bias: Any, causal: bool, strict: bool,
    align: str, window: Window, scale: Optional[float], softcap: float, sinks: Any,
    alibi_slopes: Any, q_offset: Any, q_lens: Any, kv_lens: Any, kv_starts: Any, block_mask: Any,
    block_size: tuple[int, int], return_lse: bool, return_weights: Union[bool, str],
    precision: str, threads: Optional[int], cu_q: Any = None, cu_k: Any = None,
    block_table: Any = None, page_layout: str = "phtd", k_format: Optional[str] = None,
    k_scale: Any = None, k_min: Any = None, k_group: Optional[int] = None,
    v_format: Optional[str] = None, v_scale: Any = None, v_min: Any = None,
    v_group: Optional[int] = None, k_rope: Any = None,
) -> tuple[Any, ...]:
    """The arguments of the C functions: 21 tensors, then the options."""
    n_threads = 0 if threads is None else _integer("threads", threads, 1, 1024)
    left, right = _window(window)
    max_q = max_k = 0
    n_seqs = None
    if block_table is not None:
        if cu_k is not None:
            raise ValueError("cu_seqlens_k is given together with block_table; give kv_lens")
        block_table = table(block_table)
    elif page_layout != "phtd":
        raise ValueError(f"page_layout is {page_layout!r}, but there is no block_table")
    if cu_q is not None:
        cu_q = cu_seqlens("cu_seqlens_q", cu_q, shape_of("q", q, 3)[0], True)
        n_seqs = len(cu_q) - 1
        max_q = int(np.diff(cu_q).max(initial=0))
        if block_table is None:
            if cu_k is None:
                raise ValueError("cu_seqlens_k is None; without a block_table it is needed")
            rows_k = min(shape_of("k", k, 3)[0], shape_of("v", v, 3)[0])
            cu_k = cu_seqlens("cu_seqlens_k", cu_k, rows_k, False)
            if len(cu_q) != len(cu_k):
                raise ValueError(
                    f"cu_seqlens_q has {len(cu_q)} values and cu_seqlens_k {len(cu_k)}"
                )
            max_k = int(np.diff(cu_k).max(initial=0))
    if q_offset is not None:
        n = shape_of("q", q, 4)[0] if n_seqs is None else n_seqs
        q_offset = lengths("q_offset", q_offset, n)
    if q_lens is not None:
        q_lens = lengths("q_lens", q_lens)
    if kv_lens is not None:
        kv_lens = lengths("kv_lens", kv_lens)
    if kv_starts is not None:
        kv_starts = lengths("kv_starts", kv_starts)
    block_q, block_k = block_size
    bits, strides = None, (0, 0, 0)
    if block_mask is not None:
        block_q = _integer("block_size[0]", block_q, 1, 2**31 - 1)
        block_k = _integer("block_size[1]", block_k, 1, 2**31 - 1)
        if n_seqs is None:
            shape_of("k", k, 4, "" if block_table is None else page_layout)
            sizes = (*shape_of("q", q, 4)[:3], kv_tokens(k, block_table, page_layout))
        else:
            tokens = max_k if block_table is None else kv_tokens(k, block_table, page_layout)
            sizes = (n_seqs, q.shape[1], max_q, tokens)
        bits, strides = blocks(block_mask, (block_q, block_k), sizes)
    about_keys = NO_CODES
    if (page_layout, k_format, v_format, k_group, v_group) != ("phtd", None, None, None, None):
        about_keys = codes(page_layout, k_format, v_format, k_group, v_group)
    options = (
        1 if causal is True and not strict else _causal(causal, strict),
        _choice("align", align, _ALIGN),
        _choice("return_weights", return_weights, _STAGE),
        return_lse,
        _choice("precision", precision, _PRECISION),
        cpu_mask,
        n_threads,
        left,
        right,
        _qkv.SCALE_DEFAULT if scale is None else _number("scale", scale),
        _number("softcap", softcap),
        block_q,
        block_k,
        *strides,
        max_q,
        max_k,
        *about_keys,
    )
    return (
        q, k, v, out, mask, bias, logits(sinks, q), logits(alibi_slopes, q), block_table,
        numbers(k_scale), numbers(k_min), numbers(v_scale), numbers(v_min), k_rope, q_lens,
        kv_lens, kv_starts, q_offset, cu_q, cu_k, bits, options,
    )  # fmt: skip
