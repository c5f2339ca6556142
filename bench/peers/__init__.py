"""qkv beside other attention libraries for CPUs, in turns on the same inputs: `make bench-peers`.

    cases.py        what is computed
    tensors.py      inputs, the same for everybody; the exact result of sampled rows
    adapters/       one file for each library: how it is called
    worker.py       one library in a process of its own, run on command
    process.py      the driver's handle of such a process
    interleave.py   A B C, B C A: rounds in which everybody takes a turn
    contest.py      one case, measured with everybody who can compute it
    samples.py      medians, spreads, ratios
    machine.py      what it was measured on
    report.py       JSON and tables;  readme.py  the block in README.md
    __main__.py     the command
"""
