"""One case, measured with everybody who can compute it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from peers import interleave, machine, samples, tensors
from peers.cases import Case
from peers.process import Gone, Process

COLD = 1 << 30  # bytes of K and V that decoding rotates over, so that no cache holds them
BASE = "qkv"
Start = Callable[[str], Process]
Line = dict[str, Any]


@dataclass
class Library:
    """A library and its process.  `start` makes a new process; `missing` says why there is none."""

    key: str
    start: Start
    missing: str = ""
    process: Optional[Process] = None
    facts: Line = field(default_factory=dict)

    def ready(self) -> bool:
        """Whether it can be asked.  One that died is started again, for it may do better in
        another case; one that could not be imported is not."""
        if self.missing or self.process is not None:
            return not self.missing
        self.process = self.start(self.key)
        try:
            answer = self.process.ask("hello")
        except Gone as reason:
            answer = {"ok": False, "reason": str(reason)}
        if not answer.pop("ok"):
            self.missing = answer["reason"]
            self.stop()
            return False
        self.facts = answer
        return True

    def ask(self, do: str, **fields: Any) -> Line:
        assert self.process is not None
        try:
            return self.process.ask(do, **fields)
        except Gone:
            self.stop()
            raise

    def turn(self, warm: int, repeat: int) -> list[float]:
        answer = self.ask("run", warm=warm, repeat=repeat)
        if not answer["ok"]:
            raise Gone(answer["reason"])
        return [float(s) for s in answer["seconds"]]

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None


def sets_for(case: Case, libraries: int, cold: int, memory: int) -> int:
    """How many copies of K and V decoding rotates over.  `cold` bytes of them in each process, less
    if `memory` bytes (0: unknown) do not hold that for all libraries and one more, which
    is packing its own."""
    if case.kind != "decode":
        return 1
    if memory:
        cold = min(cold, int(memory * 0.7 / (libraries + 1)))
    return max(1, -(-cold // case.kv_bytes))


def _prepare(library: Library, case: Case, folder: str, sets: int) -> Line:
    if not library.ready():
        return {"refused": library.missing}
    try:
        answer = library.ask("prepare", case=case.to_json(), folder=folder, sets=sets)
    except Gone as reason:
        return {"refused": str(reason)}
    if not answer["ok"]:
        return {"refused": answer["reason"]}
    return {"how": answer["how"], "first": answer["seconds"]}


def _error(library: Library, rows: list[tensors.Row], exact: tensors.Array) -> Line:
    answer = library.ask("rows", rows=rows)
    if not answer["ok"]:
        raise Gone(answer["reason"])
    return tensors.errors(np.array(answer["rows"]), exact)


def contest(
    case: Case, libraries: list[Library], rounds: int, cold: int = COLD, pause: float = 0.0
) -> Line:
    """Measure a case.  The answer has a line for every library: how, seconds, best, spread, rate,
    ratio (to qkv), rounds and errors (rms, worst); or `refused` with a reason."""
    present = [library for library in libraries if library.ready()]
    sets = sets_for(case, len(present), cold, machine.memory_available())
    inputs = tensors.generate(case)
    rows = tensors.sample_rows(case)
    exact = tensors.exact_rows(case, inputs, rows)
    with tempfile.TemporaryDirectory(prefix="qkv-peers-") as folder:
        tensors.save(inputs, case, Path(folder))
        del inputs
        lines = {x.key: _prepare(x, case, folder, sets) for x in libraries}
    able = {x.key: x for x in present if "refused" not in lines[x.key]}
    for key, library in able.items():
        try:
            lines[key] |= _error(library, rows, exact)
        except Gone as reason:
            lines[key] = {"refused": str(reason)}
    players = {k: (x, lines[k]["first"]) for k, x in able.items() if "refused" not in lines[k]}
    played = interleave.play(players, rounds, pause)
    for key, found in samples.summary(played.samples, BASE).items():
        lines[key] |= found | {"rate": case.rate(float(str(found["seconds"])))}
    lines |= {key: {"refused": reason} for key, reason in played.gone.items()}
    for library in able.values():
        if library.process is not None:
            library.ask("drop")
    return {"case": case.to_json(), "unit": case.unit, "sets": sets, "lines": lines}
