#!/usr/bin/env python3
"""Say whether the new library is slower, from what guard.c printed.

    guard BASE.so NEW.so | judge.py [--tolerance 0.05] [--json FILE] [--slower FILE]

The ratio is the median time of the new library over that of the base.  Its interval comes from the
rounds themselves: they are drawn again with replacement, both libraries' times of a round together,
and the middle 99 % of the ratios of such draws are kept.  A case fails only if all of
that interval is beyond 1 + tolerance.  With 11 cases and two thread counts, a narrower interval
would cry wolf every few runs.  Load from outside comes in bursts of many rounds, which no drawing
knows about, so who calls this measures what is slower once more before believing it.

Exit status 0: nothing is slower; 1: something is; 2: nothing was measured or the input is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from statistics import median
from typing import Any, Iterable

DRAWS = 4000
KEPT = 0.99
ENOUGH = 7  # rounds; of fewer, chance makes all point one way more than once in a hundred times


def interval(base: list[float], new: list[float], seed: int = 1) -> tuple[float, float, float]:
    """(ratio, low, high) of new over base; rounds are paired."""
    if not base or len(base) != len(new):
        raise ValueError(f"base has {len(base)} rounds and new has {len(new)}")
    if min(base + new) <= 0:
        raise ValueError("a time is not above 0")
    rng = random.Random(seed)
    pairs = list(zip(base, new))
    ratios = []
    for _ in range(DRAWS):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(median(n for _, n in drawn) / median(b for b, _ in drawn))
    ratios.sort()
    cut = round((1 - KEPT) / 2 * DRAWS)
    return median(new) / median(base), ratios[cut], ratios[-1 - cut]


def judge(measured: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """The case with ratio, low, high and verdict.

    slower, faster: the whole interval lies beyond the tolerance; unclear: a part of it lies on the
    slow side of that, as on a busy machine, or there are too few rounds to tell; same: none does;
    refused: one library does not compute the case.
    """
    if "refused" in measured:
        return measured | {"verdict": "refused"}
    ratio, low, high = interval(measured["base"], measured["new"])
    least, most = 1 / (1 + tolerance), 1 + tolerance
    verdict = "same" if high <= most else "unclear"
    if low > most:
        verdict = "slower" if len(measured["new"]) >= ENOUGH else "unclear"
    elif high < least:
        verdict = "faster"
    return measured | {"ratio": ratio, "low": low, "high": high, "verdict": verdict}


def line(case: dict[str, Any]) -> str:
    """A row of the table."""
    head = f"{case['case']:26} {case['threads']:7}"
    if case["verdict"] == "refused":
        return f"{head} not compared: {case['refused']}"
    base, new = (median(case[side]) * 1e3 for side in ("base", "new"))
    kernels = case["new_kernel"]
    if case["base_kernel"] != kernels:
        kernels = f"{case['base_kernel']} -> {kernels}"
    return (
        f"{head} {base:9.3f} {new:9.3f} {case['ratio']:7.3f}  "
        f"[{case['low']:.3f}, {case['high']:.3f}]  {case['verdict']:7} {kernels}"
    )


def read(lines: Iterable[str]) -> list[dict[str, Any]]:
    """What guard printed; ValueError if a line is something else."""
    cases = []
    for text in lines:
        case = json.loads(text)
        if not isinstance(case, dict) or "case" not in case:
            raise ValueError(f"not a line of guard: {text.strip()[:80]}")
        cases.append(case)
    return cases


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(prog="judge.py", description="is the new library slower?")
    p.add_argument("--tolerance", type=float, default=0.05, help="default 0.05, five percent")
    p.add_argument("--json", type=Path, help="also write everything to this file")
    p.add_argument("--slower", type=Path, help="write `threads case` of each slower one here")
    options = p.parse_args(argv)
    if not 0 <= options.tolerance < 10:
        p.error(f"tolerance is {options.tolerance:g}; 0 to 10 is accepted")
    try:
        cases = [judge(case, options.tolerance) for case in read(sys.stdin)]
    except (ValueError, KeyError) as error:
        print(f"judge.py: {error}", file=sys.stderr)
        return 2
    print(f"{'case':26} threads   base ms    new ms   ratio  99 % interval   verdict kernel")
    for case in cases:
        print(line(case))
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")
    compared = [c for c in cases if c["verdict"] != "refused"]
    slow = [c for c in compared if c["verdict"] == "slower"]
    slower = [c["case"] for c in slow]
    if options.slower:
        options.slower.write_text("".join(f"{c['threads']} {c['case']}\n" for c in slow))
    if not compared:
        print("judge.py: nothing was compared", file=sys.stderr)
        return 2
    unclear = [c["case"] for c in compared if c["verdict"] == "unclear"]
    if unclear:
        print(f"too noisy to tell (more rounds or a quieter machine would): {', '.join(unclear)}")
    print(f"slower by more than {options.tolerance:.0%}: {', '.join(slower) or 'none'}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
