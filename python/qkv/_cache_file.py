"""What a saved cache says about itself."""

from __future__ import annotations

import os
from typing import Any, Union

from . import _qkv
from ._cache_config import name_config

Path = Union[str, os.PathLike[str]]
_INSPECTED = ("version", "sequences", "pages", "open_pages", "tokens", "bytes")


def inspect(path: Path) -> dict[str, Any]:
    with open(path, "rb"):  # FileNotFoundError and the like, with Python's own sentences
        pass
    config, *rest = _qkv.cache_inspect(os.fsencode(path))
    return {"config": name_config(config), **dict(zip(_INSPECTED, rest))}


def open_pages_for(config: dict[str, Any]) -> int:
    """For a cache made from a file: as many as it stores, or as many as a new one would have."""
    usual = 2 * config["max_seqs"] + -(-2048 // config["page_tokens"])
    return int(max(config["n_open_pages"], usual))
