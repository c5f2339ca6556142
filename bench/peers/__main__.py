"""python -m peers: measure, and write the tables.  `tools/bench_peers.sh` installs what it needs
and calls it; --help says the options."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from peers import adapters, cases, machine, readme, report
from peers.contest import COLD, Library, contest
from peers.process import Process, environment

# Which environment each library is installed in.
HOMES = {"vllm": "vllm", "sglang": "vllm", "ggml": "ggml"}
SETTLE = 0.05  # seconds after a turn in which threads that spin fall asleep, with --spin


def pairs(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def arguments(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="peers", description="qkv beside other libraries, in turns")
    add = p.add_argument
    add("--case", action="append", default=[], help="only cases whose name contains this")
    add("--library", action="append", default=[], choices=list(adapters.LIBRARIES),
        help="only these, and qkv")  # fmt: skip
    add("--threads", type=int, action="append", help="default 1, and all processors up to 2")
    add("--rounds", type=int, default=9, help="turns of each library; default 9")
    add("--cold-mib", type=int, default=COLD >> 20, help="K and V that decoding rotates over")
    add("--spin", action="store_true", help="let threads spin as their libraries like to")
    add("--python", type=pairs, action="append", default=[], metavar="HOME=PATH",
        help="interpreter of an environment: peers, vllm, ggml; default this one")  # fmt: skip
    add("--missing", type=pairs, action="append", default=[], metavar="HOME=WHY",
        help="an environment that could not be made")  # fmt: skip
    add("--results", type=Path, required=True, metavar="FOLDER",
        help="peers-NAME.md and .json are written there")  # fmt: skip
    add("--name", help="what to call this machine; default the processor's own name")
    add("--log", type=Path, required=True, help="what the libraries print")
    add("--readme", type=Path, help="rewrite the marked block of this file")
    add("--revision", default="unknown", help="of qkv")
    add("--command", default="python -m peers", help="what to say it was made with")
    options = p.parse_args(argv)
    options.python, options.missing = dict(options.python), dict(options.missing)
    options.threads = options.threads or sorted({1, min(2, len(os.sched_getaffinity(0)))})
    if options.rounds < 1 or min(options.threads) < 1:
        p.error("rounds and threads are at least 1")
    try:
        options.cases = cases.select(options.case)
    except ValueError as error:
        p.error(str(error))
    return options


def libraries(options: argparse.Namespace, threads: int, log: Path) -> list[Library]:
    """Everybody who is wanted, not started yet."""
    processors = ",".join(map(str, machine.processors(threads)))
    variables = environment(threads, options.spin)

    def start(key: str) -> Process:
        python = options.python.get(HOMES.get(key, "peers"), sys.executable)
        command = ["taskset", "-c", processors, python, "-m", "peers.worker", key, str(threads)]
        return Process(command, variables, log)

    wanted = [k for k in adapters.LIBRARIES if k == "qkv" or k in (options.library or [k])]
    return [Library(k, start, options.missing.get(HOMES.get(k, "peers"), "")) for k in wanted]


def measure(options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """All cases with all numbers of threads; none if qkv itself is not there."""
    known: dict[str, Any] = {}
    found = []
    for threads in options.threads:
        everybody = libraries(options, threads, log)
        try:
            for case in options.cases if everybody[0].ready() else ():
                pause = SETTLE if options.spin else 0.0
                result = contest(case, everybody, options.rounds, options.cold_mib << 20, pause)
                found.append({"threads": threads, **result})
                print(f"{threads} x {case.name}: {report.verdict(result) or 'nobody else'}")
                sys.stdout.flush()
        finally:
            for library in everybody:
                library.stop()
                facts = library.facts or known.get(library.key, {})
                known[library.key] = {**facts, "missing": library.missing}
    return {"libraries": known, "results": found}


def document(options: argparse.Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    """What is stored as JSON: what was measured, on what, and how to do it again."""
    variables = environment(1, options.spin)
    variables = {k: "the number of threads" if v == "1" else v for k, v in variables.items()}
    cpu = machine.cpu_name()
    return {
        "schema": 1,
        "command": options.command,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "revision": options.revision,
        "name": options.name or cpu,
        "cpu": cpu,
        "processors": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "environment": ", ".join(f"{k}={shlex.quote(v)}" for k, v in variables.items()),
        "threads": options.threads,
        "rounds": options.rounds,
        **measured,
    }


def write(path: Path, text: str) -> None:
    """All of the file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.write_bytes(b"")
    results = document(options, measure(options, options.log))
    missing = results["libraries"]["qkv"]["missing"]
    if missing:
        print(f"peers: qkv itself could not be measured: {missing}", file=sys.stderr)
        return 1
    out = options.results / f"peers-{machine.slug(results['name'])}"
    write(out.with_name(out.name + ".json"), json.dumps(results, indent=1) + "\n")
    write(out.with_name(out.name + ".md"), report.markdown(results))
    print(f"written: {out}.md and .json")
    if options.readme:
        block = readme.block(results, f"{out}.md")
        text = readme.replace(options.readme.read_text(), block)
        write(options.readme, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
