"""The roofline of one report, and beside it each case's fraction of its own roof."""

import math

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999",
           "#B8A000"]
MARKERS = {"f32": "o", "bf16": "s", "f16": "^", "f64": "D"}
EDGE = 0.6


def title_of(report):
    e = report["environment"]
    threads = report["threads"]
    words = f"{threads} thread{'s' if threads > 1 else ''}, tier {report.get('tier', 'highest')}"
    when = f"{e['compiler']}, {e['date'][:10]}"
    return f"qkv {e['qkv_version']} on {e['cpu']}, {words} ({when})"


def rates(report):
    """The ceilings of the start: name, unit and median, for the report's number of threads."""
    for name, ceiling in report["ceilings"].items():
        yield name, ceiling["unit"], ceiling["all_threads"]["median"]


def families(rows):
    return list(dict.fromkeys(row["family"] for row in rows))


def limits(values, room):
    return min(values) / room, max(values) * room


def merged(tops):
    """Ceilings within 5 % of one another share a line and a label: [(rate, "a, b"), ...]."""
    groups = []
    for rate, name in sorted(tops):
        if groups and rate < 1.05 * groups[-1][0]:
            groups[-1] = (rate, f"{groups[-1][1]}, {name}")
        else:
            groups.append((rate, name))
    return groups


def draw_ceilings(axes, report, low, high):
    """Horizontal lines for arithmetic, a diagonal for memory, each as far as it bounds."""
    read = report["ceilings"]["read"]["all_threads"]["median"]
    tops = merged((rate, name) for name, unit, rate in rates(report) if unit == "GFLOP/s")
    for rate, name in tops:
        begin = max(low, rate / read)
        axes.plot([begin, high], [rate, rate], color="#444444", linewidth=0.9)
        axes.annotate(f"{name} {rate:.0f}", (high, rate), ha="right", va="bottom", fontsize=7)
    end = min(high, tops[-1][0] / read)
    axes.plot([low, end], [low * read, end * read], color="#444444", linewidth=0.9)
    axes.text(low * 1.3, low * 1.3 * read, f"read {read:.1f} GB/s", va="bottom", ha="left",
              fontsize=7, rotation=math.degrees(math.atan(read)), rotation_mode="anchor",
              transform_rotates_text=True)


def draw_points(axes, rows, colours):
    for row in rows:
        colour = colours[row["family"]]
        axes.plot(row["operations_per_byte"], row["gflops"], MARKERS[row["type"]], color=colour,
                  markersize=5, markeredgewidth=EDGE, markeredgecolor=colour,
                  markerfacecolor=colour if row["cold"] else "none")


def legend(axes, rows, colours):
    def sample(marker, colour, face, label):
        return Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor=face,
                      markeredgewidth=EDGE, label=label)

    handles = [sample("o", c, c, family) for family, c in colours.items()]
    types = list(dict.fromkeys(row["type"] for row in rows))
    handles += [sample(MARKERS[t], "#444444", "none", t) for t in types]
    handles.append(sample("o", "#444444", "#444444", "keys in no cache"))
    handles.append(sample("o", "#444444", "none", "keys in caches"))
    axes.legend(handles=handles, fontsize=7, ncols=2, loc="lower right")


def draw_roof(axes, report, rows, colours):
    low, high = limits([row["operations_per_byte"] for row in rows], 3)
    draw_ceilings(axes, report, low, high)
    draw_points(axes, rows, colours)
    axes.set(xscale="log", yscale="log", xlim=(low, high), title="roofline",
             xlabel="useful operations per byte of keys and values", ylabel="useful GFLOP/s")
    legend(axes, rows, colours)
    axes.grid(True, which="major", linewidth=0.3)


def draw_fractions(axes, rows, colours):
    names = [f"{row['name']}  ({row['bound_by']})" for row in rows]
    fractions = [100 * row["fraction_of_roof"] for row in rows]
    places = range(len(rows))
    axes.barh(places, fractions, color=[colours[row["family"]] for row in rows], height=0.7)
    for place, fraction in zip(places, fractions):
        axes.annotate(f"{fraction:.0f}", (fraction, place), va="center", fontsize=6,
                      xytext=(2, 0), textcoords="offset points")
    axes.set(yticks=places, xlim=(0, max(105, *fractions)))
    axes.set_title("percent of the roof beside each case")
    axes.set_yticklabels(names, fontsize=6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(100, color="#444444", linewidth=0.9)
    axes.grid(True, axis="x", linewidth=0.3)


def draw(report):
    rows = [row for row in report["rows"] if row["operations"] > 0]  # appending computes nothing
    colours = {f: COLOURS[i % len(COLOURS)] for i, f in enumerate(families(rows))}
    figure = Figure(figsize=(13, max(5, 1.2 + 0.155 * len(rows))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    draw_roof(left, report, rows, colours)
    draw_fractions(right, rows, colours)
    figure.suptitle(title_of(report), fontsize=9)
    return figure
