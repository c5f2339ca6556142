#!/usr/bin/env python3
"""Measure what each format of a cache does to attention on real keys and values.

    python bench/formats [--sources NAME;...] [--out FOLDER]

Rewrites the tables in docs/cache-formats.md, between its marks, and draws docs/cache-formats.svg.
With --sources only those columns are measured, and printed instead.  Needs what
`tools/setup.sh formats` installs, the Python package, and libqkv of the build QKV_BUILD.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import errors
import report
import sources
from codecs_of_caches import FORMATS


def smollm2() -> list[sources.Layer]:
    import decoder

    model = decoder.Decoder(decoder.path())
    ids = model.tokenizer().encode(sources.text()).ids[:512]
    return model.run(ids)[1]


SOURCES = {
    "N(0, 1), D = 32": lambda: sources.normal(32),
    "N(0, 1), D = 64": lambda: sources.normal(64),
    "N(0, 1), D = 128": lambda: sources.normal(128),
    "N(0, 1), D = 256": lambda: sources.normal(256),
    "MiniLM, D = 32": sources.minilm,
    "SmolLM2, D = 64": smollm2,
}


def measure(names: list[str]) -> report.Results:
    """{source: {format: Errors}}"""
    results = {}
    for name in names:
        layers = SOURCES[name]()
        found = errors.of_layers(layers, [f.store for f in FORMATS])
        results[name] = dict(zip([f.name for f in FORMATS], found))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sources", help="beginnings of names, such as 'N(0, 1);MiniLM'")
    parser.add_argument("--out", type=Path, default=sources.ROOT / "docs")
    options = parser.parse_args()
    if options.sources is not None:
        wanted = tuple(options.sources.split(";"))
        names = [name for name in SOURCES if name.startswith(wanted)]
        if not names:
            print(f"--sources is {options.sources}; there are {list(SOURCES)}", file=sys.stderr)
            return 2
        print(report.tables(measure(names)))
        return 0
    results = measure(list(SOURCES))
    report.rewrite(options.out / "cache-formats.md", report.tables(results))
    report.draw(results, options.out / "cache-formats.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
