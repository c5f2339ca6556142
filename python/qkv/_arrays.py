"""Arrays of other libraries, and what the C module asks Python to do for it.

The C module opens NumPy's float arrays by itself; it calls these functions for everything that
is rarer: a result to be made, an export through DLPack, a copy, a sentence about a dtype.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import numpy as np
from numpy import ndarray

# A NumPy array or any object with __dlpack__ and a shape.  No type can say so: what torch and
# others declare for __dlpack__ differs from release to release.
Array = Any

# By the values of qkv_type in qkv/base.h.
_NAMES = {1: "float64", 2: "float32", 3: "float16", 4: "bfloat16"}
_BITS = {"bfloat16": (np.uint16, 4), "float8_e4m3fn": (np.uint8, 10), "float8_e5m2": (np.uint8, 11)}
_DTYPES = {1: np.dtype(np.float64), 2: np.dtype(np.float32), 3: np.dtype(np.float16)}


class CacheFull(MemoryError):
    """A cache has no place left for what was asked, and is as it was before.

    >>> import qkv
    >>> cache = qkv.KVCache(1, 1, 8, n_pages=1)
    >>> seq = cache.add()
    >>> cache.add()
    Traceback (most recent call last):
    qkv.CacheFull: full: there are 1 sequences, max_seqs
    """

    __module__ = "qkv"


def empty(like: Array, code: int, shape: tuple[int, ...]) -> Array:
    """A new array for a result: like's own kind if that can be written, otherwise NumPy's."""
    if not isinstance(like, ndarray) and hasattr(like, "new_empty"):  # torch
        return like.new_empty(shape, dtype=getattr(sys.modules["torch"], _NAMES[code]))
    if code in _DTYPES:
        return np.empty(shape, _DTYPES[code])
    if isinstance(like, ndarray):
        return np.empty(shape, like.dtype)
    import ml_dtypes

    return np.empty(shape, ml_dtypes.bfloat16)


def own(result: Any, like: Array) -> Any:
    """NumPy results as arrays of like's library (JAX and others whose arrays cannot be written)."""
    if isinstance(result, tuple):
        return tuple(own(part, like) for part in result)
    if isinstance(like, ndarray) or not hasattr(like, "__dlpack__"):
        return result
    if not isinstance(result, ndarray):
        return result
    if hasattr(like, "__array_namespace__"):
        return like.__array_namespace__().asarray(result)
    library = sys.modules[type(like).__module__.partition(".")[0]]
    return library.asarray(result) if hasattr(library, "asarray") else result


def capsule(array: Array, name: str) -> object:
    """The DLPack capsule of an array."""
    if not hasattr(array, "__dlpack__"):
        raise TypeError(
            f"{name} is a {type(array).__name__}; "
            "a NumPy array or an object with __dlpack__ is accepted"
        )
    try:
        try:
            return array.__dlpack__(max_version=(1, 0))
        except TypeError:  # a producer older than DLPack 1.0
            return array.__dlpack__()
    except Exception as error:
        raise TypeError(f"{name} cannot be exported through DLPack: {error}") from error


def bits(array: Array, name: str, kind: int) -> tuple[Array, int]:
    """An array of ml_dtypes, which NumPy itself does not export, as integers, and its qkv_type."""
    dtype = str(getattr(array, "dtype", ""))
    if dtype not in _BITS:
        refuse_dtype(array, name, kind)
    integer, code = _BITS[dtype]
    return array.view(integer), code


def copy(array: Array, dense: bool) -> Array:
    """A copy with contiguous last axis.  Broadcast axes stay so unless all is to be dense."""
    if not isinstance(array, ndarray) and hasattr(array, "new_empty"):  # torch
        return array.new_empty(array.shape).copy_(array)
    a = to_numpy(array, "the array") if hasattr(array, "__dlpack__") else np.asarray(array)
    whole = slice(None)
    one = [whole if dense or s or i == a.ndim - 1 else slice(0, 1) for i, s in enumerate(a.strides)]
    return np.broadcast_to(np.array(a[tuple(one)], order="C", copy=True), a.shape)


def refuse_dtype(array: Array, name: str, kind: int) -> NoReturn:
    """kind: 0 floats, 1 booleans, 2 integers, 3 keys or values, as in binding.h."""
    dtype = getattr(array, "dtype", None) or f"format {memoryview(array).format!r}"
    accepted = "float64, float32, float16 and bfloat16, in native byte order, are accepted"
    if kind == 1:
        accepted = "it must be bool, True where visible; numbers to be added go to bias"
    elif kind == 2:
        accepted = "int32 is accepted"
    elif kind == 3:
        accepted += "; codes are int8, uint8, float8_e4m3fn or float8_e5m2"
    elif str(dtype).endswith("bool") and name == "bias":
        accepted = "it is added to the scores; True where visible goes to mask"
    raise TypeError(f"{name} has dtype {dtype}; {accepted}")


def to_numpy(array: Array, name: str) -> ndarray[Any, Any]:
    """The array as NumPy's, without copying."""
    if isinstance(array, ndarray):
        return array
    if not hasattr(array, "__dlpack__"):
        capsule(array, name)
    try:
        return np.from_dlpack(array)
    except Exception as error:
        raise TypeError(f"{name} cannot be read through DLPack: {error}") from error
