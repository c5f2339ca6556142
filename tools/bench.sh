#!/usr/bin/env bash
# Measures this machine's ceilings and every shape of bench/shapes.inc against them, with one thread and
# with all, and one thread of each lower vector tier.  Prints tables and keeps them, with
# what made them, in bench/results/NAME.txt and NAME-*.json.
#
#   tools/bench.sh [NAME]        NAME defaults to the CPU's own name
set -euo pipefail
cd "$(dirname "$0")/.."
tools/build.sh bench -Dbench=true -Dtests=false -Dwerror=true
bench=build/bench/bench/bench
all=$(nproc)
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
[ -n "$cpu" ] || cpu=$(uname -m)
slug=$(printf '%s' "${1:-$cpu}" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-' | sed 's/^-*//; s/-*$//')
out=bench/results/$slug
mkdir -p bench/results

revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- . ':!bench/results' 2>/dev/null || revision="$revision, with changes"

run() { # NAME arguments...
    local name=$1
    shift
    echo
    echo "\$ bench $*"
    "$bench" "$@" --json "$out-$name.json"
}

{
    echo "command    make bench"
    echo "date       $(date -u +%Y-%m-%d)"
    echo "revision   $revision"
    echo "cpu        $cpu, $all processors"
    echo "compiler   $(cc --version | head -n 1)"
    echo "flags      kernels -O3 -ffp-contract=off with each tier's own (src/meson.build)"
    echo "system     $(uname -sr)"
    run one-thread --threads 1
    if [ "$all" -gt 1 ]; then
        run all-threads --threads "$all"
    fi
    if build/bench/cli/qkv info | grep -q 'avx512 *yes'; then
        run avx2 --threads 1 --tier avx2
    fi
} | tee "$out.txt"
