"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def cpu_name() -> str:
    """The processor's own name, or the architecture's where the system does not say."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.machine()


def slug(name: str) -> str:
    """A name for files: small letters, digits, single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def pick_processors(allowed: list[int], siblings: dict[int, str], count: int) -> list[int]:
    """`count` of the allowed processors, one of each core first; fewer if there are not enough.

    siblings[n] names the core of processor n (the processors that share it)."""
    cores: dict[str, list[int]] = {}
    for n in sorted(allowed):
        cores.setdefault(siblings.get(n, str(n)), []).append(n)
    firsts = [core[0] for core in cores.values()]
    others = [n for core in cores.values() for n in core[1:]]
    return sorted((firsts + others)[:count])


def processors(count: int) -> list[int]:
    """Processors for `count` threads, as this process may use them."""
    allowed = sorted(os.sched_getaffinity(0))
    siblings = {}
    for n in allowed:
        try:
            siblings[n] = (CPUS / f"cpu{n}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            pass
    return pick_processors(allowed, siblings, count)


def memory_available() -> int:
    """Bytes that can be taken without swapping; 0 where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        found = None
    return int(found.group(1)) * 1024 if found else 0
