"""How time and memory grow: one row of panels for prefill, one for decoding.

From the left: time over T, rate over T, speed-up over threads, memory over T.
"""

from matplotlib.figure import Figure
from plot_roofline import COLOURS, title_of

DASHES = {"f32": "-", "bf16": "--"}
MIDDLE_D, SWEEP_T = 128, 8192  # where threads are swept: cli/bench/scaling.c


def points_of(report, **fields):
    """The points with these values, by T; those that failed have no time and are left out."""
    found = [p for p in report["points"] if "median_seconds" in p]
    found = [p for p in found if all(p[key] == value for key, value in fields.items())]
    return sorted(found, key=lambda p: (p["T"], p["threads"]))


def values_of(report, key):
    return sorted({p[key] for p in report["points"]})


def types_of(report):
    return [t for t in DASHES if t in values_of(report, "type")]


def middle(report, key, wanted):
    """The wanted value if it was measured, or else the largest that was."""
    values = values_of(report, key)
    return wanted if wanted in values else values[-1]


def curve(axes, points, value, **style):
    if points:
        axes.plot([p["T"] for p in points], [value(p) for p in points], marker=".", markersize=4,
                  linewidth=1, **style)


def over_t(axes, title, label):
    axes.set(xscale="log", yscale="log", title=title, xlabel="T (keys)", ylabel=label)
    axes.set_xscale("log", base=2)
    axes.grid(True, which="major", linewidth=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6)


def draw_time(axes, report, family):
    threads, d = values_of(report, "threads"), middle(report, "D", MIDDLE_D)
    for t in types_of(report):
        for colour, n in zip(COLOURS, (threads[0], threads[-1])):
            curve(axes, points_of(report, family=family, type=t, D=d, threads=n),
                  lambda p: p["median_seconds"] * 1e3, color=colour, linestyle=DASHES[t],
                  label=f"{t}, {n} thread{'s' if n > 1 else ''}")
            if threads[0] == threads[-1]:
                break
    over_t(axes, f"{family}, D {d}", "ms a call")


def draw_rate(axes, report, family):
    key, unit = ("gflops", "GFLOP/s") if family == "prefill" else ("gbytes_per_second", "GB/s")
    n = values_of(report, "threads")[0]
    for t in types_of(report):
        for colour, d in zip(COLOURS, values_of(report, "D")):
            curve(axes, points_of(report, family=family, type=t, D=d, threads=n),
                  lambda p: p[key], color=colour, linestyle=DASHES[t], label=f"{t}, D {d}")
    over_t(axes, f"{family}, {n} thread{'s' if n > 1 else ''}", f"useful {unit}")
    axes.set(yscale="linear")
    axes.set_ylim(bottom=0)


def draw_threads(axes, report, family):
    d, keys = middle(report, "D", MIDDLE_D), middle(report, "T", SWEEP_T)
    for colour, t in zip(COLOURS, types_of(report)):
        points = points_of(report, family=family, type=t, D=d, T=keys)
        if not points:
            continue
        alone = points[0]["median_seconds"] * points[0]["threads"]
        axes.plot([p["threads"] for p in points], [alone / p["median_seconds"] for p in points],
                  marker=".", linewidth=1, color=colour, label=t)
    most = values_of(report, "threads")[-1]
    axes.plot([1, most], [1, most], color="#999999", linewidth=0.7, linestyle=":", label="linear")
    axes.set_xticks(values_of(report, "threads"))
    axes.set(title=f"{family}, D {d}, T {keys}", xlabel="threads", ylabel="times as fast as one")
    axes.grid(True, linewidth=0.3)
    axes.legend(fontsize=6)


def draw_memory(axes, report, family):
    threads, d = values_of(report, "threads"), middle(report, "D", MIDDLE_D)
    n, mib = threads[-1], 2.0**20
    points = points_of(report, family=family, type=types_of(report)[0], D=d, threads=n)
    for colour, key, label in ((COLOURS[0], "peak_resident_bytes", "peak resident"),
                               (COLOURS[2], "tensor_bytes", "tensors"),
                               (COLOURS[1], "workspace_bytes", "workspace")):
        curve(axes, points, lambda p: p[key] / mib, color=colour, label=label)
    if family == "prefill":
        curve(axes, points, lambda p: p["Hq"] * p["T"] ** 2 * 4 / mib, color="#999999",
              linestyle=":", label="a T x T matrix, if there were one")
    over_t(axes, f"{family}, {types_of(report)[0]}, D {d}, threads {n}", "MiB")


def draw(report):
    families = [f for f in ("prefill", "decode") if points_of(report, family=f)]
    figure = Figure(figsize=(14, 0.5 + 3.2 * len(families)), layout="constrained")
    grid = figure.subplots(len(families), 4, squeeze=False)
    for row, family in zip(grid, families):
        draw_time(row[0], report, family)
        draw_rate(row[1], report, family)
        draw_threads(row[2], report, family)
        draw_memory(row[3], report, family)
    figure.suptitle(title_of(report), fontsize=9)
    return figure
