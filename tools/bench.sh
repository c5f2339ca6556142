#!/usr/bin/env bash
# Measures this machine's ceilings and every case of `qkv bench` against them, with one thread and
# with all, and one thread of the next lower vector tier; then how time and memory grow.  Prints
# tables and keeps them, with what made them, in bench/results: NAME.txt, NAME-*.json and the plots.
#
#   tools/bench.sh [--trial] [NAME]
#
# NAME defaults to the CPU's own name.  --trial writes to build/bench-trial.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=bench/results
if [ "${1:-}" = --trial ]; then
    folder=build/bench-trial
    shift
fi
tools/build.sh release -Dwerror=true
qkv=build/release/cli/qkv
all=$(nproc)
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
[ -n "$cpu" ] || cpu=$(uname -m)
slug=$(printf '%s' "${1:-$cpu}" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-' |
    sed 's/^-*//; s/-*$//')
out=$folder/$slug
mkdir -p "$folder"

revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
[ "$revision" = unknown ] || git diff --quiet HEAD -- . ':!bench/results' ||
    revision="$revision, with changes"

run() { # arguments of qkv bench...
    echo
    echo "\$ qkv bench $*"
    "$qkv" bench "$@"
}

{
    echo "command    make bench"
    echo "date       $(date -u +%Y-%m-%d)"
    echo "revision   $revision"
    echo "cpu        $cpu, $all processors"
    echo "compiler   $(cc --version | head -n 1)"
    echo "flags      kernels -O3 -ffp-contract=off with each tier's own (src/meson.build)"
    echo "system     $(uname -sr)"
    run --calibrate "$out-machine.json"
    run --threads 1 --json "$out-one-thread.json"
    if [ "$all" -gt 1 ]; then
        run --threads "$all" --json "$out-all-threads.json"
    fi
    if "$qkv" info | grep -q '^ *avx512 *yes'; then
        run --threads 1 --tier avx2 --repeat 3 --json "$out-avx2.json"
    fi
    run --scaling --json "$out-scaling.json"
} | tee "$out.txt"

for report in one-thread all-threads avx2; do
    if [ -f "$out-$report.json" ]; then
        build/venv/bin/python bench/plot.py "$out-$report.json" "$out-$report"
    fi
done
build/venv/bin/python bench/plot.py "$out-scaling.json" "$out-scaling"
