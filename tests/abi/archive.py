"""The names in libqkv.a: archive.py ARCHIVE SOURCE_ROOT TIER ...

Every global name begins with qkv_.  A tier's object defines the kernels that kernels.inc lists for it
and nothing else that the linker could see: a helper that is merged with that of another tier
might end up as code that the CPU at hand does not have.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tally import Tally

archive, root, tiers = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
tally = Tally("archive")


def globals_of(path):
    """Names by object.  Small letters are local; but v, w and u, weak and unique, are not."""
    out = subprocess.run(["nm", "-A", "--defined-only", path], check=True, capture_output=True, text=True)
    names = defaultdict(set)
    for line in out.stdout.splitlines():
        place, kind, name = line.rsplit(" ", 2)
        member = place.rsplit(":", 1)[0].split(":")[-1].split("/")[-1]
        if kind.isupper() or kind in "vwu":
            names[member].add(name)
    return names


def listed_kernels():
    """Tier and name of each line of the registry."""
    text = re.sub(r"/\*.*?\*/", " ", (root / "src/kernels/kernels.inc").read_text(), flags=re.S)
    for line in re.findall(r"QKV_KERNEL\w*\(([^)]*)\)", text):
        words = [word.strip() for word in line.split(",")]
        name = next((word for word in words if "__" in word), None)
        tally.check(name is not None, f"kernels.inc has no name in the line {line}")
        if name:
            yield name.split("__")[1], words, name


def tier_of(member):
    """The tier that kernels_TIER.c or kernels_TIER_TYPE.c is compiled for."""
    found = re.search(r".*kernels_(\w+)\.c", member)
    stem = found[1] if found else ""
    return max((t for t in tiers if stem == t or stem.startswith(t + "_")), key=len, default=None)


names = globals_of(archive)
tally.check(len(names) > 10, f"only {len(names)} objects in {archive}")
for member, found in sorted(names.items()):
    for name in sorted(found):
        tally.check(name.startswith("qkv_"), f"{member} defines {name}, which has no prefix")

wanted = defaultdict(set)
for tier, words, name in listed_kernels():
    tally.check(tier in words, f"{name} is listed for another tier than its name says")
    wanted[tier].add("qkv_" + name)
for tier in tiers:
    found = set().union(*(n for m, n in names.items() if tier_of(m) == tier))
    tally.check(tier in wanted, f"kernels.inc lists nothing for the {tier} tier")
    for name in sorted(found | wanted[tier]):
        tally.check(name in found, f"the objects of {tier} do not define {name}")
        tally.check(name in wanted[tier], f"the objects of {tier} define {name}, which kernels.inc lacks")
tally.finish()
