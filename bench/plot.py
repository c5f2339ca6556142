#!/usr/bin/env python3
"""Draw what `qkv bench` measured: plot.py IN.json OUT

Writes OUT.png and OUT.svg: the roofline of `qkv bench --json IN.json`, or the curves of
`qkv bench --scaling --json IN.json`.  Needs matplotlib (tools/setup.sh bench).
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

# By schema: its version, where its measurements are, and the module that draws them.
KINDS = {
    "qkv-bench": (1, "rows", "plot_roofline"),
    "qkv-bench-scaling": (1, "points", "plot_scaling"),
}


class Refused(Exception):
    """The file is not one of ours; the text is a sentence for people."""


def load(path):
    try:
        report = json.loads(Path(path).read_text())
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from error
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema not in KINDS:
        raise Refused(f"{path} has schema {schema!r}; accepted are {' and '.join(KINDS)}")
    version, measurements, _ = KINDS[schema]
    if report.get("schema_version") != version:
        found = report.get("schema_version")
        raise Refused(f"{path} has schema_version {found}; accepted is {version}")
    if not report.get(measurements):
        raise Refused(f"{path} holds no measurements")
    if schema == "qkv-bench" and not any(row.get("operations") for row in report["rows"]):
        raise Refused(f"{path} holds no case that computes anything, so there is no roof to draw")
    return report


def draw(report):
    """A figure.  matplotlib is loaded here: it takes a second, which a refusal need not."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "qkv"  # the same input gives the same files
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["font.size"] = 8
    return importlib.import_module(KINDS[report["schema"]][2]).draw(report)


def save(figure, stem):
    for ending, options in (("png", {"dpi": 110}), ("svg", {"metadata": {"Date": None}})):
        figure.savefig(f"{stem}.{ending}", **options)
        print(f"wrote {stem}.{ending}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("report", help="what qkv bench --json wrote")
    parser.add_argument("out", help="the pictures' path without .png and .svg")
    options = parser.parse_args(arguments)
    try:
        save(draw(load(options.report)), options.out)
    except OSError as error:
        print(f"plot.py: {error.filename} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    except Refused as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
