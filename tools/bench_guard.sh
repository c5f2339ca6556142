#!/usr/bin/env bash
# Is this tree slower than an earlier revision?  Builds libqkv of both and runs them in turns in one
# process (bench/guard).  Exit status 1 only if a case is slower by more than the tolerance with its
# whole confidence interval, and so again when it is measured a second time.
#
#   tools/bench_guard.sh [REVISION] [--tolerance 0.05] [options of bench/guard/guard.c]
#
# REVISION defaults to the last tag; without any, to where this branch left origin/main, and
# where that is this commit, to the commit before it (this commit if files were changed since).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/build/venv/bin:$PATH"
base=
tolerance=0.05
options=()
case ${1:-} in
'' | -*) ;;
*)
    base=$1
    shift
    ;;
esac
while [ $# -gt 0 ]; do
    if [ "$1" = --tolerance ] && [ $# -gt 1 ]; then
        tolerance=$2
        shift
    else
        options+=("$1")
    fi
    shift
done

# The revision to compare with, if none was given.
choose() {
    git describe --tags --abbrev=0 2>/dev/null && return
    echo "there is no tag to compare with" >&2
    local head fork
    head=$(git rev-parse HEAD)
    fork=$(git merge-base HEAD origin/main 2>/dev/null || echo "$head")
    if [ "$fork" = "$head" ] && git diff --quiet HEAD -- src include meson.build; then
        fork=$(git rev-parse --verify -q HEAD~1 || echo "$head")
    fi
    echo "$fork"
}

[ -n "$base" ] || base=$(choose)
sha=$(git rev-parse --verify -q "$base^{commit}") || { echo "no such revision: $base" >&2; exit 2; }
short=${sha:0:12}
dir=build/guard-$short
common=(-Dtests=false -Dcli=false -Dmodel=false -Dpython=false -Ddefault_library=shared)

if [ ! -e "$dir/src/libqkv.so" ]; then
    rm -rf "$dir" "$dir-source"
    mkdir -p "$dir-source"
    git archive "$sha" | tar -x -C "$dir-source"
    {
        meson setup "$dir" "$dir-source" "${common[@]}" && ninja -C "$dir"
    } >"$dir.log" 2>&1 || {
        tail -n 40 "$dir.log" >&2
        echo "revision $base does not build" >&2
        exit 2
    }
fi
tools/build.sh guard-new "${common[@]}"

# The base's headers: a later library serves programs that were compiled with them.
cc -std=gnu11 -O2 -Wall -Wextra -Werror -I "$dir-source/include" bench/guard/*.c \
    -o build/guard-new/guard -ldl

changed=
git diff --quiet HEAD -- src include meson.build || changed=' with changes'
echo "base $base ($short), new $(git rev-parse --short=12 HEAD)$changed"
threads=1
[ "$(nproc)" = 1 ] || threads="1 2"
new=build/guard-new

measure() { # arguments of guard
    $new/guard "$dir/src/libqkv.so" $new/src/libqkv.so "$@"
}
judge() { # NAME: reads NAME.jsonl, writes NAME.json
    python3 bench/guard/judge.py --tolerance "$tolerance" --json "$new/$1.json" \
        --slower $new/slower.txt <"$new/$1.jsonl"
}

for n in $threads; do
    measure --threads "$n" "${options[@]}"
done >$new/first.jsonl
status=0
judge first || status=$?
[ $status = 1 ] || exit $status

# Load from outside comes in bursts that can outlast a case and fall on one library's turns.
# What is really slower is slower again.
echo
echo "once more, with more rounds:"
while read -r n name; do
    measure --rounds 61 "${options[@]}" --threads "$n" --case "$name"
done <$new/slower.txt >$new/second.jsonl
judge second
