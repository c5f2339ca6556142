"""One library in a process of its own, run on command.

    python -m peers.worker LIBRARY THREADS

Reads one JSON object a line from standard input and answers each with one on what was standard
output when it started; everything that libraries print goes to standard error.

    {"do": "hello"}                                  name, version, settings
    {"do": "prepare", "case", "folder", "sets"}      how it is computed, seconds of the first run
    {"do": "run", "warm": n, "repeat": m}            seconds of each of m runs, after n untimed ones
    {"do": "rows", "rows": [[head, token], ...]}     those rows of the last output
    {"do": "drop"}                                   memory of the case is given back

An answer has "ok": true, or false with a "reason".
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from peers import adapters
from peers.cases import Case
from peers.tensors import load

Answer = dict[str, Any]


class Worker:
    """The state between two commands."""

    def __init__(self, peer: adapters.Peer) -> None:
        self.peer = peer
        self.sets = 1
        self.turn = 0
        self.output: Any = None

    def hello(self, _: Answer) -> Answer:
        return {k: getattr(self.peer, k) for k in ("name", "version", "settings")}

    def prepare(self, request: Answer) -> Answer:
        self.drop({})
        case = Case.from_json(request["case"])
        self.sets = request["sets"]
        how = self.peer.prepare(case, load(case, Path(request["folder"]), self.sets))
        for _ in range(self.sets):  # the first run of all: page faults, lazy compilation
            self._run()
        return {"how": how, "seconds": self._run()}

    def _run(self) -> float:
        self.turn += 1
        begin = time.perf_counter()
        self.output = self.peer.run(self.turn % self.sets)
        return time.perf_counter() - begin

    def run(self, request: Answer) -> Answer:
        for _ in range(request["warm"]):
            self._run()
        return {"seconds": [self._run() for _ in range(request["repeat"])]}

    def rows(self, request: Answer) -> Answer:
        rows = self.peer.rows(self.output, [(h, t) for h, t in request["rows"]])
        return {"rows": rows.astype(float).tolist()}

    def drop(self, _: Answer) -> Answer:
        self.output = None
        self.peer.drop()
        gc.collect()
        return {}


def reason_of(error: BaseException) -> str:
    """The first line that says something, with the kind of error if it is not our own refusal."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return text if isinstance(error, adapters.Refused) else f"{type(error).__name__}: {text}"


def serve(requests: TextIO, answers: TextIO, make: Callable[[], adapters.Peer]) -> None:
    """Answer requests until they end.  Errors are answers, and so is a library that is missing."""
    worker: Worker | None = None
    for line in requests:
        request = json.loads(line)
        try:
            worker = worker or Worker(make())
            answer = {"ok": True, **getattr(worker, request["do"])(request)}
        except Exception as error:
            answer = {"ok": False, "reason": reason_of(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    library, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers, lambda: adapters.make(library, threads))


if __name__ == "__main__":
    main()
