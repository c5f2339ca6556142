"""Errors of formats as tables of a document and as a picture."""

from __future__ import annotations

import re
from pathlib import Path

from codecs_of_caches import FORMATS
from errors import Errors

Results = dict[str, dict[str, Errors]]
BEGIN, END = "<!-- formats:begin -->\n", "<!-- formats:end -->\n"
# What the picture shows, in Okabe and Ito's colours.
DRAWN = {
    "bf16": "#000000", "int8": "#0072B2", "int8, K a channel": "#56B4E9", "e4m3": "#CC79A7",
    "int4": "#D55E00", "int4, groups of 32": "#E69F00", "q4_0 (ggml)": "#009E73",
}  # fmt: skip


def table(results: Results, mean: str, worst: str) -> str:
    lines = ["| format | bits | " + " | ".join(results) + " |"]
    lines.append("|---" * (len(results) + 2) + "|")
    for form in FORMATS:
        cells = [results[source][form.name] for source in results]
        numbers = [f"{getattr(e, mean):.1e} ({getattr(e, worst):.0e})" for e in cells]
        lines.append(f"| {form.name} | {form.bits:g} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def tables(results: Results) -> str:
    return (
        "KL divergence of the attention weights in nats, mean of all heads (the worst head):\n\n"
        + table(results, "kl", "worst_kl")
        + "\nRelative error of the output, mean of all heads (the worst head):\n\n"
        + table(results, "output", "worst_output")
    )


def parse(text: str) -> dict[str, dict[str, dict[str, float]]]:
    """The numbers between the marks: {"kl" or "output": {source: {format: mean}}}."""
    inside = text.split(BEGIN)[1].split(END)[0]
    found = {}
    rows = [[c.strip() for c in r.split("|")[1:-1]] for r in inside.splitlines() if r[:1] == "|"]
    heads = [i for i, row in enumerate(rows) if row[0] == "format"]
    for kind, at, to in zip(("kl", "output"), heads, [*heads[1:], len(rows)]):
        found[kind] = {
            source: {row[0]: float(row[n].split()[0]) for row in rows[at + 2 : to]}
            for n, source in enumerate(rows[at]) if n >= 2
        }  # fmt: skip
    return found


def rewrite(path: Path, between: str) -> None:
    """Replaces what stands between the marks."""
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{path} must have {BEGIN.strip()} and {END.strip()} once")
    before, rest = text.split(BEGIN)
    path.write_text(before + BEGIN + between + END + rest.split(END)[1])
    print(f"wrote {path}")


def size_of(source: str) -> int:
    return int(re.search(r"\d+$", source)[0])  # type: ignore[index]


def draw(results: Results, path: Path) -> None:
    """KL against the head size: lines for normal numbers, marks for the two models."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams |= {"svg.hashsalt": "qkv", "svg.fonttype": "none", "font.size": 8}
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    normal = [s for s in results if s.startswith("N(")]
    for form, colour in DRAWN.items():
        heights = [results[s][form].kl for s in normal]
        axes.plot([size_of(s) for s in normal], heights, "-", color=colour, label=form)
        for source, mark in (("MiniLM", "s"), ("SmolLM2", "D")):
            for s in results:
                if s.startswith(source):
                    axes.plot(size_of(s), results[s][form].kl, mark, color=colour, markersize=4)
    for mark, name in (("s", "MiniLM"), ("D", "SmolLM2")):
        axes.plot([], [], mark, color="#444444", markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel="head size D",
             ylabel="KL divergence of the weights, nats")  # fmt: skip
    axes.set_xticks([32, 64, 128, 256], ["32", "64", "128", "256"])
    axes.minorticks_off()
    axes.grid(True, linewidth=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    print(f"wrote {path}")
