#!/usr/bin/env bash
# Installs the Python package qkv and the command into a virtual environment, if its sources changed
# since.
#
#   tools/install_python.sh [VENV]        VENV defaults to build/venv
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-build/venv}
stamp=$venv/.qkv.installed
sum=$(find include src cli python meson.build meson_options.txt pyproject.toml -type f \
    ! -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then
    exit 0
fi
echo "building and installing the Python package qkv into $venv"
rm -f "$stamp"
if ! "$venv/bin/python" -m pip install -q --disable-pip-version-check \
    --force-reinstall --no-deps . >build/install_python.log 2>&1; then
    cat build/install_python.log >&2
    exit 1
fi
"$venv/bin/python" -c 'import numpy' 2>/dev/null ||
    "$venv/bin/python" -m pip install -q --disable-pip-version-check numpy
echo "$sum" >"$stamp"
