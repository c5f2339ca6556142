#!/usr/bin/env bash
# Configures (once) and compiles one build directory: build/NAME.
#   tools/build.sh release                     optimised, everything
#   tools/build.sh asan -Db_sanitize=...       any name with any Meson options
#   TARGETS="cli/qkv" tools/build.sh release   only these and what they need
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
shift
export PATH="$PWD/build/venv/bin:$PATH"
if [ ! -f "build/$name/build.ninja" ]; then
    meson setup "build/$name" "$@" >"build/$name.setup.log" 2>&1 || { cat "build/$name.setup.log" >&2; exit 1; }
fi
# shellcheck disable=SC2086
ninja -C "build/$name" ${TARGETS:-} >"build/$name.log" 2>&1 || { cat "build/$name.log" >&2; exit 1; }
