#!/usr/bin/env bash
# Installs the Python package qkv and the command into build/venv, if its sources changed since.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=build/venv/.qkv.installed
sum=$(find include src cli python meson.build meson_options.txt pyproject.toml -type f \
    ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then
    exit 0
fi
echo "building and installing the Python package qkv into build/venv"
rm -f "$stamp"
if ! build/venv/bin/python -m pip install -q --disable-pip-version-check \
    --force-reinstall --no-deps . >build/install_python.log 2>&1; then
    cat build/install_python.log >&2
    exit 1
fi
build/venv/bin/python -c 'import numpy' 2>/dev/null ||
    build/venv/bin/python -m pip install -q --disable-pip-version-check numpy
echo "$sum" >"$stamp"
