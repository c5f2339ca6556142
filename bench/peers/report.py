"""The results as a table for people.  What is stored is JSON: see `document` in __main__.py."""

from __future__ import annotations

from typing import Any, Optional

from peers.cases import Case

BASE = "qkv"
EVEN = 0.01
Results = dict[str, Any]


def number(x: float) -> str:
    """Three figures, as a table wants them."""
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def columns(results: Results) -> list[str]:
    """Libraries that computed anything, in their order; qkv is always there."""
    able = {k for r in results["results"] for k, line in r["lines"].items() if "rate" in line}
    return [k for k in results["libraries"] if k == BASE or k in able]


def name_of(results: Results, key: str) -> str:
    return str(results["libraries"][key].get("name") or key)


def best_peer(result: Results) -> Optional[tuple[str, dict[str, Any]]]:
    """The other library that comes nearest to qkv or is furthest ahead of it, round by round, or
    None if no other one computed the case.  Not the one with the highest rate: of two that are
    close, that is who was luckier with the machine."""
    peers = {k: x for k, x in result["lines"].items() if k != BASE and x.get("ratio")}
    return min(peers.items(), key=lambda item: float(item[1]["ratio"][0])) if peers else None


def verdict(result: Results) -> str:
    """qkv against the best other library, from the ratios of single rounds: the middle half must
    lie on one side of 1, by a hundredth at least, to say more than "even"."""
    best = best_peer(result)
    if best is None:
        return ""
    middle, low, high = best[1]["ratio"]
    word = "behind" if high < 1 - EVEN else "ahead" if low > 1 + EVEN else "even"
    return f"{middle:.2f} {word}" if word != "behind" else f"**{middle:.2f} behind**"


def _cell(line: dict[str, Any], base: bool) -> str:
    if "rate" not in line:
        return ""
    text = f"{number(line['rate'])} ±{50 * line['spread']:.0f} %"
    if base or not line["ratio"]:
        return text
    return f"{text} ({line['ratio'][0]:.2f})"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(titles: list[str]) -> list[str]:
    return [_row(titles), "|" + "---|" * len(titles)]


def _speed(results: Results, threads: int) -> list[str]:
    keys = columns(results)
    titles = ["case", "unit", *(name_of(results, k) for k in keys), "qkv against the best other"]
    lines = _head(titles)
    for r in (r for r in results["results"] if r["threads"] == threads):
        cells = [_cell(r["lines"].get(k, {}), k == BASE) for k in keys]
        lines.append(_row([r["case"]["name"], r["unit"], *cells, verdict(r)]))
    return lines


def _error_cell(line: dict[str, Any]) -> str:
    if "rms" not in line:
        return ""
    if line["rms"] is None:
        return "**not finite**"
    return f"{line['rms']:.1e} / {line['worst']:.1e}"


def _errors(results: Results) -> list[str]:
    keys = columns(results)
    lines = _head(["case", *(name_of(results, k) for k in keys)])
    first = results["threads"][0]
    for r in (r for r in results["results"] if r["threads"] == first):
        cells = [_error_cell(r["lines"].get(k, {})) for k in keys]
        lines.append(_row([r["case"]["name"], *cells]))
    return lines


def _behind(results: Results) -> list[str]:
    found = []
    for r in results["results"]:
        for key, x in r["lines"].items():
            if key != BASE and x.get("ratio") and x["ratio"][0] < 1:
                ratio, low, high = x["ratio"]
                found.append(
                    f"- {r['case']['name']}, {r['threads']} thread{'s'[: r['threads'] != 1]}: "
                    f"{name_of(results, key)} takes {ratio:.2f} of qkv's time "
                    f"({low:.2f} to {high:.2f}{'; even' if high >= 1 - EVEN else ''})"
                )
    return found or ["None in this run."]


def _refusals(results: Results) -> list[str]:
    """Each reason once, with the cases it was given for."""
    given: dict[tuple[str, str], list[str]] = {}
    for r in results["results"]:
        for key, x in r["lines"].items():
            if "refused" in x and not results["libraries"][key].get("missing"):
                name = Case.from_json(r["case"]).name
                cases = given.setdefault((key, x["refused"]), [])
                if name not in cases:
                    cases.append(name)
    lines = [
        f"- {name_of(results, k)}: not in this run: {x['missing']}"
        for k, x in results["libraries"].items() if x.get("missing")
    ]  # fmt: skip
    lines += [f"- {name_of(results, k)}: {why}: {', '.join(c)}" for (k, why), c in given.items()]
    return lines or ["Everybody computed every case."]


def _calls(results: Results) -> list[str]:
    lines = []
    for key in columns(results):
        facts = results["libraries"][key]
        found = (r["lines"].get(key, {}).get("how") for r in results["results"])
        how = "; ".join(dict.fromkeys(h for h in found if h))
        extra = f" {facts['settings']}." if facts.get("settings") else ""
        lines.append(f"- {facts['name']} {facts['version']}: {how}.{extra}")
    return lines


def markdown(results: Results) -> str:
    """The whole report."""
    head = [f"# {results['name']}: qkv beside other libraries", ""]
    for key in ("command", "date", "revision", "cpu", "processors", "system", "environment"):
        head.append(f"- {key}: {results[key]}")
    body = list(head)
    for threads in results["threads"]:
        body += ["", f"## {threads} thread{'s'[: threads != 1]}", "", _RATES, ""]
        body += _speed(results, threads)
    body += ["", "## Errors", "", _ERRORS, "", *_errors(results)]
    body += ["", "## Where qkv is behind", "", *_behind(results)]
    body += ["", "## What did not run", "", *_refusals(results)]
    body += ["", "## How each is called", "", *_calls(results), "", _METHOD, ""]
    return "\n".join(body)


_RATES = """\
Useful rate: visible pairs only, 2 (D + Dv) operations each; decoding counts each byte of K and V
once.  Median over rounds ± half the middle half; in brackets the time divided by qkv's, above 1
where qkv is faster."""

_ERRORS = """\
Typical (root mean square) and largest error of sampled rows against double precision on the same
rounded inputs, as shares of the exact values' root mean square."""

_METHOD = """\
Every library runs in a process of its own, on the same processors, with the same inputs (standard
normal numbers), and they take turns: A B C, B C A, and so on, so that a ratio compares moments a
fraction of a second apart.  Decoding rotates over copies of K and V (`sets` in the JSON) that no
cache holds.  Made by `make bench-peers`."""
