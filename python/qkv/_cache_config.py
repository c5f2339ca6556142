"""The numbers that a cache is made from, and what it says about itself, as words."""

from __future__ import annotations

from typing import Any, Optional

from ._options import _choice, _integer

# By the values of QKV_FORMAT_, QKV_SCALE_, qkv_type and QKV_CACHE_.
FORMATS = {
    "f32": 1, "f16": 2, "bf16": 3, "int8": 4, "int8_channel": 5, "int4": 6, "e4m3": 7, "e5m2": 8,
}  # fmt: skip
SCALES = {"token": 0, "head": 1}
FLOATS = {"f32": 2, "f16": 3, "bf16": 4}
LATENT, CONTIGUOUS, KEY_BOUNDS, POISON = 1, 2, 4, 8
AUTO = UNBOUNDED = -1
_INT32_MAX = 2**31 - 1
_FIELDS = (
    "flags", "n_layers", "n_kv_heads", "head_dim", "head_dim_v", "k_format", "v_format", "k_group",
    "v_group", "k_scale", "v_scale", "float_type", "page_tokens", "n_pages", "n_open_pages",
    "max_seqs", "max_tokens", "window", "sink_tokens",
)  # fmt: skip
_STATS = (
    "sequences", "pages", "used_pages", "shared_pages", "open_pages", "used_open_pages", "tokens",
    "stored_tokens", "allocated", "payload", "copied", "closed", "opened", "evicted",
)  # fmt: skip
_INFO = ("length", "committed", "kept_from", "pages", "shared_pages")


def _word(table: dict[str, int], value: int) -> str:
    return next(word for word, code in table.items() if code == value)


def _count(name: str, value: Any) -> int:
    return _integer(name, value, -_INT32_MAX, _INT32_MAX)


def _optional(name: str, value: Any) -> int:
    """None is -1, which is how the library says auto and unbounded."""
    return -1 if value is None else _integer(name, value, 0, 2**63 - 1)


def pack_config(
    *, latent: bool, n_layers: int, n_kv_heads: int, head_dim: int, head_dim_v: int, k_format: str,
    v_format: str, k_group: int, v_group: int, k_scale: str, v_scale: str, float_type: str,
    page_tokens: int, n_pages: Optional[int], n_open_pages: Optional[int], max_seqs: int,
    max_tokens: Optional[int], window: Optional[int], sink_tokens: int, contiguous: bool,
    key_bounds: bool, poison: bool,
) -> tuple[int, ...]:  # fmt: skip
    """What the type Cache of the C module takes."""
    if n_pages is None and not contiguous:
        raise ValueError("n_pages is None; a cache has as many pages as it is given")
    flags = LATENT * latent | CONTIGUOUS * bool(contiguous)
    flags |= KEY_BOUNDS * bool(key_bounds) | POISON * bool(poison)
    return (
        flags,
        _count("n_layers", n_layers),
        _count("n_kv_heads", n_kv_heads),
        _count("head_dim", head_dim),
        _count("head_dim_v", head_dim_v),
        _choice("k_format", k_format, FORMATS),
        _choice("v_format", v_format, FORMATS),
        _count("k_group", k_group),
        _count("v_group", v_group),
        _choice("k_scale", k_scale, SCALES),
        _choice("v_scale", v_scale, SCALES),
        _choice("float_type", float_type, FLOATS),
        _count("page_tokens", page_tokens),
        _count("max_seqs", max_seqs) if n_pages is None else _count("n_pages", n_pages),
        AUTO if n_open_pages is None else _count("n_open_pages", n_open_pages),
        _count("max_seqs", max_seqs),
        _optional("max_tokens", max_tokens),
        _optional("window", window),
        _count("sink_tokens", sink_tokens),
    )


def name_config(numbers: tuple[int, ...]) -> dict[str, Any]:
    """The same in words."""
    config: dict[str, Any] = dict(zip(_FIELDS, numbers))
    flags = config.pop("flags")
    for name in ("k_format", "v_format"):
        config[name] = _word(FORMATS, config[name])
    for name in ("k_scale", "v_scale"):
        config[name] = _word(SCALES, config[name])
    config["float_type"] = _word(FLOATS, config["float_type"])
    if config["window"] == UNBOUNDED:
        config["window"] = None
    bits = {"latent": LATENT, "contiguous": CONTIGUOUS, "key_bounds": KEY_BOUNDS, "poison": POISON}
    return config | {name: bool(flags & bit) for name, bit in bits.items()}


def name_stats(numbers: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(_STATS, numbers))


def name_info(numbers: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(_INFO, numbers))
