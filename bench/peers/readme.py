"""The block of figures in README.md."""

from __future__ import annotations

from typing import Any

from peers.report import BASE, best_peer, name_of, number, verdict

BEGIN = "<!-- peers:begin -->"
END = "<!-- peers:end -->"
Results = dict[str, Any]


def block(results: Results, source: str) -> str:
    """A short table: each case, qkv, the best other library, the ratio.  `source` is the file that
    has everything."""
    threads = results["threads"]
    names = [f"{n} thread{'s'[: n != 1]}" for n in threads]
    titles = ["case"]
    for name in names:
        titles += [f"qkv, {name}", "best other", "ratio"]
    lines = [
        f"{results['name']}, revision {results['revision']}, {results['date']} (`{source}`):",
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "---|" * len(titles),
    ]
    for case in dict.fromkeys(r["case"]["name"] for r in results["results"]):
        cells = [case]
        for n in threads:
            cells += _cells(results, case, n)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(results: Results, case: str, threads: int) -> list[str]:
    """qkv's rate, the best other library with its own, and the ratio."""
    for r in results["results"]:
        if r["case"]["name"] == case and r["threads"] == threads:
            ours, best = r["lines"].get(BASE, {}), best_peer(r)
            return [
                f"{number(ours['rate'])} {r['unit']}" if "rate" in ours else "",
                f"{name_of(results, best[0])} {number(best[1]['rate'])}" if best else "",
                verdict(r),
            ]
    return ["", "", ""]


def replace(text: str, new: str) -> str:
    """`text` with what stands between the markers replaced.

    ValueError if the markers are not there exactly once, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"the document must have one line {BEGIN} and, after it, one line {END}; it has "
            f"{text.count(BEGIN)} and {text.count(END)}"
        )
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{new.strip()}\n{END}{rest.split(END)[1]}"
