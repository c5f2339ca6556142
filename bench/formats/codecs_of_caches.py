"""Keys and values as each format of a cache gives them back.

The formats of qkv.KVCache go through a cache.  ggml's blocks and ONNX Runtime's codes, which are no
formats of a cache, go through the functions of qkv/formats.h in the shared library of a build.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

import qkv

Array = np.ndarray
Store = Callable[[Array, Array], tuple[Array, Array]]
ROOT = Path(__file__).resolve().parents[2]
PAGE = 64


def library() -> ctypes.CDLL:
    """libqkv of the build directory QKV_BUILD, by default build/release."""
    build = Path(os.environ.get("QKV_BUILD", ROOT / "build/release"))
    return ctypes.CDLL(str(build / "src/libqkv.so"))


def pointer(x: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)


def check(name: str, status: int) -> None:
    if status != 0:
        raise RuntimeError(f"{name} returned {status}")


def ggml(name: str, block_bytes: int) -> Store:
    """q8_0 or q4_0: blocks of 32 channels with a scale in f16."""

    def one(x: Array) -> Array:
        lib, x = library(), np.ascontiguousarray(x, np.float32)
        blocks, back = np.empty(x.size // 32 * block_bytes, np.uint8), np.empty_like(x)
        n = ctypes.c_int64(x.size)
        for way, given, made in (("encode", x, blocks), ("decode", blocks, back)):
            function = getattr(lib, f"qkv_{name}_{way}")
            check(function.__name__, function(pointer(given), n, pointer(made)))
        return back

    return lambda k, v: (one(k), one(v))


def cache(**formats: object) -> Store:
    """(H, T, D) keys and values through a cache of the library, all tokens committed."""

    def both(k: Array, v: Array) -> tuple[Array, Array]:
        H, T, D = k.shape
        made = qkv.KVCache(1, H, D, v.shape[2], page_tokens=PAGE, n_pages=-(-T // PAGE) + 1,
                           float_type="f32", **formats)  # type: ignore[arg-type]  # fmt: skip
        seq = made.add()
        made.append(0, k[None], v[None])
        made.commit()
        return made.read(0, seq)

    return both


def same(form: str, group: int = 0, **more: object) -> Store:
    """One format for keys and values."""
    return cache(k_format=form, v_format=form, k_group=group, v_group=group, **more)


class Format(NamedTuple):
    name: str
    bits: float  # a number, with its share of the scales, at D = 64
    store: Store


FORMATS = [
    Format("f16", 16, same("f16")),
    Format("bf16", 16, same("bf16")),
    Format("int8", 8 + 32 / 64, same("int8")),
    Format("int8, groups of 32", 8 + 32 / 32, same("int8", 32)),
    Format(
        "int8, K a channel", 8 + (32 / PAGE + 32 / 64) / 2,
        cache(k_format="int8_channel", v_format="int8"),
    ),
    Format("q8_0 (ggml)", 8 + 16 / 32, ggml("q8_0", 34)),
    Format("e4m3", 8 + 32 / 64, same("e4m3")),
    Format("e4m3, a scale a head", 8, same("e4m3", k_scale="head", v_scale="head")),
    Format("e5m2", 8 + 32 / 64, same("e5m2")),
    Format("int4", 4 + 32 / 64, same("int4")),
    Format("int4, groups of 32", 4 + 32 / 32, same("int4", 32)),
    Format("q4_0 (ggml)", 4 + 16 / 32, ggml("q4_0", 18)),
]  # fmt: skip
