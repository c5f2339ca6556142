"""What this build and this machine can do."""

from __future__ import annotations

from typing import Any, Optional

from . import _options, _qkv


def info() -> dict[str, Any]:
    """Version, CPU, threads, tiers and kernels, as `qkv info` prints them.

    >>> import qkv
    >>> sorted(qkv.info())
    ['cpu', 'kernels', 'threads', 'tiers', 'version']
    >>> qkv.info()["tiers"][0]
    {'name': 'scalar', 'available': True, 'reason': ''}
    """
    version, cpu, threads, tiers, kernels = _qkv.info()
    words = ("name", "for", "tier", "compute", "k", "v", "available")
    return {
        "version": version,
        "cpu": cpu,
        "threads": threads,
        "tiers": [
            {"name": name, "available": bool(available), "reason": reason}
            for name, _, available, reason in tiers
        ],
        "kernels": [dict(zip(words, (*kernel[:6], bool(kernel[6])))) for kernel in kernels],
    }


def set_cpu_tier(name: Optional[str]) -> None:
    """Keep calls of this process to a tier and those below it; None allows all again.

    For tests and for finding out whether a tier is at fault.  Plans keep the tier they were made
    with.

    >>> import qkv
    >>> qkv.set_cpu_tier("scalar")
    >>> qkv.set_cpu_tier(None)
    >>> qkv.set_cpu_tier("abacus")
    Traceback (most recent call last):
    ValueError: name is 'abacus'; one of 'scalar', ... is accepted
    """
    mask = 0
    tiers = _qkv.info()[3]
    for tier, flag, available, reason in tiers:
        mask |= flag
        if tier == name and not available:
            raise ValueError(f"name is {name!r}; this machine does not have it: {reason}")
        if tier == name:
            _options.cpu_mask = mask
            return
    if name is not None:
        words = ", ".join(repr(tier[0]) for tier in tiers)
        raise ValueError(f"name is {name!r}; one of {words} is accepted")
    _options.cpu_mask = 0x7FFFFFFF
