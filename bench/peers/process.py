"""The driver's handle of a worker process: questions and answers, time limits, deaths."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent


class Gone(Exception):
    """The process ended or did not answer in time; the text says which."""


def environment(threads: int, spin: bool) -> dict[str, str]:
    """Variables of a worker.  Unless `spin`, threads that wait sleep: those of a library whose
    turn is over would otherwise take processors from the next one."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    values = dict.fromkeys(names, count) | {"OMP_DYNAMIC": "false"}
    return values if spin else values | {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}


class Process:
    """One running worker.  Use as a context manager, or call stop()."""

    def __init__(
        self, command: list[str], variables: dict[str, str], log: Path, limit: float = 600.0
    ) -> None:
        """`limit` is the longest that an answer may take, in seconds."""
        self.log, self.limit = log, limit
        path = os.pathsep.join(p for p in (str(PACKAGE.parent), os.environ.get("PYTHONPATH")) if p)
        env = os.environ | variables | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        with log.open("ab") as errors:
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env
            )
        self.buffer = b""

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.  Raises Gone."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self.child.stdin.flush()
        except OSError:
            raise Gone(self._last_words()) from None
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> bytes:
        assert self.child.stdout is not None
        end = time.monotonic() + self.limit
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.stop()
                    raise Gone(f"no answer within {self.limit:g} s")
                piece = os.read(self.child.stdout.fileno(), 1 << 16)
                if not piece:
                    raise Gone(self._last_words())
                self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def _last_words(self) -> str:
        """How the process ended, and the last line it wrote to its log."""
        try:
            code = self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.stop()
            return "it stopped answering"
        how = f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"the process ended, {how}" + (f": {last[:200]}" if last and code >= 0 else "")

    def stop(self) -> None:
        """End the process, kindly first."""
        assert self.child.stdin is not None and self.child.stdout is not None
        try:
            self.child.stdin.close()
        except OSError:
            pass
        if self.child.poll() is None:
            try:
                self.child.wait(0.5)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
