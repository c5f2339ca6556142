"""Includes point in one direction only: layering.py SOURCE_ROOT

Each folder may include its own headers, the public ones and those of the folders listed for it.
"""

import re
import sys
from pathlib import Path

from tally import Tally

root = Path(sys.argv[1]).resolve()
PUBLIC = ("include/qkv/",)
CORE_SEES = ("include/qkv/base.h",)  # the core lies below everything, also below what is public
SRC = {  # folder of src: what it may include besides itself and the public headers
    "core": (),
    "kernels/simd": ("core/convert.h",),
    "kernels/tmpl": ("kernels/simd/", "kernels/kernel.h", "core/convert.h"),
    "kernels/scalar": ("kernels/simd/", "kernels/tmpl/", "kernels/kernel.h"),
    "kernels/x86": ("kernels/simd/", "kernels/tmpl/", "kernels/kernel.h"),
    "kernels/arm": ("kernels/simd/", "kernels/tmpl/", "kernels/kernel.h"),
    "kernels/wasm": ("kernels/simd/", "kernels/tmpl/", "kernels/kernel.h"),
    "kernels": (),
    "attention": ("kernels/kernel.h", "kernels/kernels.inc", "core/"),
    "ref": (),
    "rope": ("core/",),
    "cache": ("core/", "rope/turn.h"),
    "model": ("core/say.h",),
    "io": ("core/say.h",),
    "sizing": ("core/say.h",),
    "layers": ("core/",),
}
CLIENTS = (
    "cli", "python", "lab", "mpi", "bench", "examples", "web", "tests/harness", "tests/api", "tests/cache",
    "tests/props", "tests/rope",
)  # fmt: skip
CLIENTS_SEE = {client: ("tests/harness/",) for client in ("tests/api", "tests/cache", "tests/props", "tests/rope")}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)

tally = Tally("layering")


def folder_of(path):
    return max((f for f in SRC if path.startswith(f + "/")), key=len, default=None)


def includes_of(file):
    """The files of ours that it includes, from the root; how they are written does not matter."""
    for name in INCLUDE.findall(file.read_text()):
        for base in (file.parent, root / "include", root / "src"):
            path = (base / name).resolve()
            if path.is_file():
                yield path.relative_to(root).as_posix()
                break


for file in sorted((root / "src").rglob("*.[ch]")):
    path = file.relative_to(root / "src").as_posix()
    folder = folder_of(path)
    tally.check(folder is not None, f"src/{path} is in a folder that layering.py does not know")
    public = CORE_SEES if folder == "core" else PUBLIC
    for name in includes_of(file):
        inner = name.removeprefix("src/")
        own = folder is not None and folder_of(inner) == folder
        ok = own or name.startswith(public) or inner.startswith(SRC.get(folder, ()))
        tally.check(ok, f"src/{path} includes {name}")
for client in CLIENTS:
    for file in sorted(f for f in (root / client).rglob("*") if f.suffix in (".c", ".h", ".cpp")):
        for name in includes_of(file):
            ok = name.startswith((*PUBLIC, client + "/", *CLIENTS_SEE.get(client, ())))
            tally.check(ok, f"{file.relative_to(root)} includes {name}")
tally.finish()
