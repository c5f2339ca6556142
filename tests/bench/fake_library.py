"""A library for tests: the formula in NumPy, with a temper.  fake_library.py TEMPER FOLDER

good: computes; slow: takes 20 ms longer; wrong: gives NaN; choosy: refuses every case; broken:
raises in its first run; mortal: kills itself in its fifth run and in no later process; hanging:
never answers; absent: cannot be imported; chatty: prints on standard output.
"""

import os
import pathlib
import signal
import sys
import time

import numpy as np
from peers.adapters.base import Peer, Refused
from peers.tensors import exact_rows
from peers.worker import serve

TEMPER, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])


class Fake(Peer):
    name = TEMPER.capitalize()
    version = "1.0"
    settings = "made up"

    def __init__(self):
        self.runs = 0
        if TEMPER == "absent":
            raise ModuleNotFoundError("No module named 'absent'")

    def prepare(self, case, sets):
        if TEMPER == "choosy":
            raise Refused("wants something else")
        if TEMPER == "hanging":
            time.sleep(60)
        self.state = case, sets
        return "by the formula"

    def run(self, number):
        case, sets = self.state
        self.runs += 1
        if TEMPER == "broken":
            raise RuntimeError("\nno kernel for this\nand more lines")
        if TEMPER == "mortal" and self.runs == 5 and not (FOLDER / "died").exists():
            (FOLDER / "died").touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        if TEMPER == "chatty":
            os.write(1, b"a library says something\n")
            print("and Python too", flush=True)
        if TEMPER == "slow":
            time.sleep(0.02)
        return sets[number]

    def rows(self, output, rows):
        found = exact_rows(self.state[0], output, rows)
        if TEMPER == "wrong":
            found[0, 0] = np.nan
        return found


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
serve(sys.stdin, answers, Fake)
