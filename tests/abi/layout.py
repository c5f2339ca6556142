"""Structs and constants keep their places: layout.py PROGRAM LIST

PROGRAM is print_layout.  Fields must follow one another without a gap unless the list has the gap, so
a field that print_layout.c forgets is noticed too.  On a machine with other pointers than the list's
(64 bits) there is nothing to compare with.
"""

import subprocess
import sys
from pathlib import Path

from tally import Tally

tally = Tally("layout")
printed = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True).stdout.splitlines()
listed = [line for line in Path(sys.argv[2]).read_text().splitlines() if line and line[0] != "#"]
if "struct qkv_allocator 24" not in printed:
    print("layout: skipped, pointers do not have 64 bits here")
    print("layout: 0 passed, 0 failed")
    sys.exit(77)

now = {" ".join(line.split()[: 1 if "." in line.split()[0] else 2]): line for line in printed}
for line in listed:
    words = line.split()
    name = " ".join(words[: 1 if "." in words[0] else 2])
    tally.check(line in printed, f"listed is {line!r}, but it is {now.get(name, 'gone')!r}")
for line in printed:
    tally.check(line in listed, f"{line!r} is new: add it to {sys.argv[2]} if it may be")
tally.check(
    [line for line in printed if line in listed] == [line for line in listed if line in printed],
    "the lines have another order than in the list",
)

# A gap is padding, which must be named `reserved` instead, or a field that is missing here.
sizes = {w[1]: int(w[2]) for w in map(str.split, printed) if w[0] == "struct"}
ends = dict.fromkeys(sizes, 0)
for words in map(str.split, printed):
    if "." in words[0]:
        struct, offset, size = words[0].split(".")[0], int(words[1]), int(words[2])
        known = f"# gap before {words[0]}" in Path(sys.argv[2]).read_text().splitlines()
        tally.check(offset == ends[struct] or known, f"{offset - ends[struct]} bytes of nothing before {words[0]}")
        ends[struct] = offset + size
for struct, size in sizes.items():
    known = f"# gap at the end of {struct}" in Path(sys.argv[2]).read_text().splitlines()
    tally.check(ends[struct] == size or known, f"{size - ends[struct]} bytes of nothing at the end of {struct}")
tally.finish()
