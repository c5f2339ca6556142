"""A shared library exports exactly the listed names, all public: symbols.py LIBRARY LIST"""

import re
import subprocess
import sys
from pathlib import Path

from tally import Tally

library, listed = sys.argv[1], Path(sys.argv[2]).resolve()
headers = listed.parents[2] / "include" / "qkv"
tally = Tally("symbols_" + Path(library).name.split(".")[0])


def symbols_of(option):
    out = subprocess.run(["nm", "-D", option, library], check=True, capture_output=True, text=True)
    return {line.split()[-1].split("@")[0] for line in out.stdout.splitlines() if line.strip()}


def declared_names():
    """Functions that a public header declares with QKV_API."""
    names = set()
    for header in headers.glob("*.h"):
        text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
        names |= set(re.findall(r"\bQKV_API\b[^;{]*?\b(qkv_\w+)\s*\(", text))
    return names


exported = symbols_of("--defined-only") - {"_init", "_fini", "__bss_start", "_edata", "_end"}
wanted = set(listed.read_text().split())
declared = declared_names()
for name in sorted(exported | wanted):
    tally.check(name in exported, f"{name} is listed in {listed.name} but not exported")
    tally.check(name in wanted, f"{name} is exported but not listed in {listed.name}")
    tally.check(name in declared, f"{name} is exported but no public header declares it")

everywhere = set().union(*(set(f.read_text().split()) for f in listed.parent.glob("symbols*.txt")))
for name in sorted(declared):
    tally.check(name in everywhere, f"a public header declares {name}, but no library exports it")

# What no library may do behind its caller's back; undefined.py looks at the objects of the core.
rude = {"printf", "puts", "putchar", "fprintf", "vprintf", "vfprintf", "perror", "__printf_chk",
        "__fprintf_chk", "abort", "exit", "_exit", "__assert_fail", "getenv", "secure_getenv", "setenv",
        "setlocale", "signal", "sigaction", "system", "fesetround", "fesetenv"}  # fmt: skip
calls = symbols_of("--undefined-only")
tally.check(not calls & rude, f"the library calls {', '.join(sorted(calls & rude))}")
tally.finish()
