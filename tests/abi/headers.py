"""Every public header alone, as C11 and C++17: headers.py INCLUDE_DIR [COMPILER ...]

Compiles with the compilers given and with gcc, g++, clang and clang++, as far as they are there; one
with ++ in its name compiles C++.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tally import Tally

include = Path(sys.argv[1])
warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wundef", "-Werror", "-fsyntax-only"]
tally = Tally("headers")
compilers = {}
for compiler in [*sys.argv[2:], "gcc", "g++", "clang", "clang++"]:
    path = shutil.which(compiler)
    if path is None:
        print(f"headers: no {compiler} here, not tried")
    else:
        compilers[str(Path(path).resolve())] = compiler
headers = sorted((include / "qkv").glob("*.h"))
for compiler in compilers.values():
    language, standard = ("c++", "c++17") if "++" in Path(compiler).name else ("c", "c11")
    for header in headers:
        source = f'#include "qkv/{header.name}"\n#include "qkv/{header.name}"\n'
        command = [compiler, "-x", language, f"-std={standard}", *warnings, f"-I{include}", "-"]
        run = subprocess.run(command, input=source, capture_output=True, text=True)
        tally.check(run.returncode == 0, f"{header.name} as {standard} with {compiler}:\n{run.stderr}")

installed = set(re.findall(r"'([^']+\.h)'", (include / "qkv" / "meson.build").read_text()))
everything = (include / "qkv" / "qkv.h").read_text()
for header in headers:
    tally.check(header.name in installed, f"{header.name} is not installed by include/qkv/meson.build")
    tally.check(
        header.name == "qkv.h" or f'#include "qkv/{header.name}"' in everything,
        f"qkv.h does not include {header.name}",
    )
tally.finish()
