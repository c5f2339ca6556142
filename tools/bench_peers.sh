#!/usr/bin/env bash
# Measures qkv beside other attention libraries for CPUs, in turns (bench/peers), and writes
# bench/results/peers-CPU.md and .json, and the block of figures in README.md.
#
#   tools/bench_peers.sh [--trial] [--with-ggml] [options of bench/peers, see --help]
#
# --trial writes to build/peers-trial and leaves README.md alone.  --with-ggml also compiles ggml
# (as llama-cpp-python), which takes minutes the first time.  --name NAME is used where the
# processor's own name says too little.  Each library's version is pinned in
# tools/requirements-peers*.txt; what cannot be installed here is named in the report with the
# reason.
set -euo pipefail
cd "$(dirname "$0")/.."
command="make bench-peers"
[ $# = 0 ] || command="tools/bench_peers.sh $*"
target=(--results bench/results --readme README.md)
ggml=
options=()
for option; do
    case $option in
    --trial) target=(--results build/peers-trial) ;;
    --with-ggml) ggml=1 ;;
    *) options+=("$option") ;;
    esac
done

# install PART: the environment build/PART-venv.  If the whole list cannot be had, whatever can: a
# library that is not there says so itself when it is asked.
install() {
    local part=$1 list requirement flags log=build/$1.log
    tools/setup.sh "$part" >"$log" 2>&1 && return
    echo "not everything of $part could be installed ($log); one by one"
    [ -x "build/$part-venv/bin/python" ] || return 0
    for list in "tools/requirements-$part.txt" "tools/requirements-$part-nodeps.txt"; do
        flags=()
        case $list in *-nodeps.txt) flags=(--no-deps) ;; esac
        while read -r requirement; do
            case $requirement in '' | '#'*) continue ;; esac
            "build/$part-venv/bin/python" -m pip install -q --disable-pip-version-check \
                "${flags[@]}" "$requirement" >>"$log" 2>&1 || echo "    $requirement: no"
        done <"$list"
    done
}

mkdir -p build
echo "installing the libraries to compare with (the first time takes minutes)"
install peers
install peers-vllm
if [ -n "$ggml" ]; then
    CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" install peers-ggml
fi
tools/install_python.sh build/peers-venv

environments=()
for part in peers peers-vllm peers-ggml; do
    home=${part#peers-}
    if [ "$home" = ggml ] && [ -z "$ggml" ]; then
        environments+=(--missing "ggml=it is compiled only with --with-ggml")
    elif [ -x "build/$part-venv/bin/python" ]; then
        environments+=(--python "$home=$PWD/build/$part-venv/bin/python")
    else
        environments+=(--missing "$home=its environment could not be made")
    fi
done

revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- . ':!bench/results' ':!README.md' 2>/dev/null ||
    revision="$revision, with changes"

PYTHONPATH=bench PYTHONDONTWRITEBYTECODE=1 build/peers-venv/bin/python -m peers \
    "${environments[@]}" "${target[@]}" --log build/peers.log --revision "$revision" \
    --command "$command" "${options[@]}"
