"""Medians, spreads and ratios of samples taken in turns."""

from __future__ import annotations

from statistics import median, quantiles
from typing import Optional

Samples = list[Optional[float]]


def taken(samples: Samples) -> list[float]:
    return [s for s in samples if s is not None]


def spread(values: list[float]) -> float:
    """The middle half of the values, as a share of their median; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / median(values)


def ratio(other: Samples, ours: Samples) -> Optional[list[float]]:
    """How many times longer `other` takes than `ours`: [median, lower quartile, upper quartile]
    of the ratios of single rounds.  Above 1 ours is faster.  None without a common round."""
    pairs = [a / b for a, b in zip(other, ours) if a is not None and b is not None]
    if not pairs:
        return None
    if len(pairs) == 1:
        return pairs * 3
    low, middle, high = quantiles(pairs, n=4, method="inclusive")
    return [middle, low, high]


def summary(samples: dict[str, Samples], base: str) -> dict[str, dict[str, object]]:
    """For each name that was measured: seconds (median), best, spread, rounds, ratio to base."""
    made: dict[str, dict[str, object]] = {}
    for name, values in samples.items():
        times = taken(values)
        if times:
            made[name] = {
                "seconds": median(times),
                "best": min(times),
                "spread": spread(times),
                "rounds": len(times),
                "ratio": ratio(values, samples.get(base, [])),
            }
    return made
