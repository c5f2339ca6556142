"""Size and form of the source files: files.py SOURCE_ROOT

No tabs, no blanks at the end of a line, a newline at the end of a file.  A file of code has up to
800 lines, better 400; a C function up to 80.
"""

import re
import sys
from pathlib import Path

from tally import Tally

FOLDERS = (".ci", "bench", "cli", "docs", "examples", "include", "lab", "mpi", "python", "src", "tests", "tools", "web")
CODE = {".c", ".h", ".cpp", ".py", ".pyi", ".sh"}
TEXT = CODE | {".inc", ".md", ".toml", ".txt", ".1"}
TABLES = {"exp_poly.h"}
SOFT, HARD, FUNCTION = 400, 800, 80

root = Path(sys.argv[1])
tally = Tally("files")


def our_files():
    places = [root / folder for folder in FOLDERS]
    found = [f for place in places if place.is_dir() for f in place.rglob("*")] + list(root.iterdir())
    for file in sorted(found):
        generated = any(part == "__pycache__" or part.endswith(".egg-info") for part in file.parts)
        named = file.name in ("meson.build", "meson_options.txt") or file.suffix in TEXT
        if file.is_file() and named and not generated:
            yield file


def check_form(path, text):
    tally.check("\r" not in text, f"{path} has carriage returns")
    tally.check(text == "" or text.endswith("\n"), f"{path} does not end with a newline")
    for what, found in (("a tab", re.compile(r"\t")), ("a blank at its end", re.compile(r"[ \t]+$"))):
        lines = [n for n, line in enumerate(text.split("\n"), 1) if found.search(line)]
        tally.check(not lines, f"{path}: {what} in line {', '.join(map(str, lines[:5]))}")


def check_size(path, text):
    lines = text.count("\n")
    tally.check(lines <= HARD, f"{path} has {lines} lines; {HARD} is the most")
    if lines > SOFT:
        print(f"files: note: {path} has {lines} lines; {SOFT} would be better")


def check_functions(path, text):
    """A function's brace stands alone at the left margin, as clang-format puts it."""
    begin = None
    for n, line in enumerate(text.split("\n"), 1):
        if line == "{":
            begin = n
        elif line == "}" and begin:
            length = n - begin + 1
            tally.check(length <= FUNCTION, f"{path}:{begin}: a function of {length} lines; {FUNCTION} is the most")
            begin = None


for file in our_files():
    path, text = file.relative_to(root).as_posix(), file.read_bytes().decode("utf-8", "replace")
    check_form(path, text)
    if file.suffix in CODE and file.name not in TABLES:
        check_size(path, text)
    if file.suffix in (".c", ".h"):
        check_functions(path, text)
tally.check(tally.passed > 100, f"only {tally.passed} checks: is {root} the root of the sources?")
tally.finish()
