"""From keyword arguments about pages and codes to what the C module takes."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from ._arrays import Array

# By the values of qkv_type.
_FORMATS = {"int8": 8, "int4": 9, "e4m3": 10, "e5m2": 11}
_LAYOUTS = {"phtd": False, "pthd": True}

# (page_layout, formats of k and v, groups of k and v), as nothing was said.
NO_CODES = (False, 0, 0, -1, -1)


def _format(name: str, value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, str) or value not in _FORMATS:
        words = ", ".join(map(repr, _FORMATS))
        raise ValueError(f"{name} is {value!r}; one of {words} or None is accepted")
    return _FORMATS[value]


def _group(name: str, value: Any) -> int:
    if value is None:
        return -1
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; an integer is accepted")
    if not 1 <= value <= 1024:
        raise ValueError(f"{name} is {value}; 1 to 1024 is accepted")
    return value


def numbers(value: Any) -> Any:
    """One scale for everything may be a plain number."""
    return np.float32(value).reshape(()) if isinstance(value, (int, float)) else value


def table(value: Any) -> Any:
    """A block table as an int32 array."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype == np.int32 and array.flags.c_contiguous:
        return array
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"block_table has dtype {array.dtype}; integers are accepted")
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise ValueError("block_table holds a value that does not fit 32 bits")
    return np.ascontiguousarray(array, dtype=np.int32)


def kv_tokens(k: Array, block_table: Any, page_layout: Any) -> int:
    """Tk: what the pages of a row of the table hold, or the tokens of k."""
    if block_table is None:
        return int(k.shape[2])
    return int(block_table.shape[-1] * k.shape[1 if page_layout == "pthd" else 2])


def codes(
    page_layout: Any, k_format: Any, v_format: Any, k_group: Any, v_group: Any
) -> tuple[bool, int, int, int, int]:
    """The last five options of the C functions."""
    if not isinstance(page_layout, str) or page_layout not in _LAYOUTS:
        raise ValueError(f"page_layout is {page_layout!r}; one of 'phtd', 'pthd' is accepted")
    return (
        _LAYOUTS[page_layout],
        _format("k_format", k_format),
        _format("v_format", v_format),
        _group("k_group", k_group),
        _group("v_group", v_group),
    )
