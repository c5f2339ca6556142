"""What the objects of libqkv.a call: undefined.py ARCHIVE

The core must not print, end the process, read the environment or allocate.  The pool is the one
object that allocates and starts threads, and say.c the one that formats, into the caller's buffer.
"""

import subprocess
import sys
from collections import defaultdict

from tally import Tally

FORBIDDEN = {
    "printf", "fprintf", "puts", "putchar", "fputs", "fwrite", "perror", "vprintf", "vfprintf",
    "sprintf", "vsprintf", "__printf_chk", "__fprintf_chk", "abort", "exit", "_exit", "__assert_fail",
    "getenv", "secure_getenv", "malloc", "calloc", "realloc", "free", "posix_memalign", "aligned_alloc",
    "mmap", "brk", "sbrk", "setenv", "fesetround", "fesetenv", "feenableexcept", "strdup", "asprintf",
    "vsnprintf", "__vsnprintf_chk", "snprintf", "__snprintf_chk", "pthread_create", "setlocale", "system",
    "fopen", "open", "open64", "signal", "sigaction",
}  # fmt: skip
ALLOWED = {
    "core_pool.c": {"malloc", "free", "pthread_create"},
    "core_allocator.c": {"malloc", "free"},
    "core_say.c": {"vsnprintf", "__vsnprintf_chk"},
}

tally = Tally("undefined")
out = subprocess.run(["nm", "--undefined-only", sys.argv[1]], check=True, capture_output=True, text=True)
calls, member = defaultdict(set), None
for line in out.stdout.splitlines():
    if line.endswith(".o:"):
        member = line[:-1].split("/")[-1].split("(")[-1]
    elif line.split():
        calls[member].add(line.split()[-1])
tally.check(len(calls) > 10, f"only {len(calls)} objects in {sys.argv[1]}")
for member, names in sorted(calls.items()):
    allowed = next((a for key, a in ALLOWED.items() if key in (member or "")), set())
    bad = sorted((names & FORBIDDEN) - allowed)
    tally.check(not bad, f"{member} calls {', '.join(bad)}")
tally.finish()
