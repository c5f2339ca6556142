#!/usr/bin/env bash
# Installs what is missing for a part of the work: base (build), test, demo, bench, formats,
# web, peers or peers-vllm.
# System packages come from Debian with apt-get (sudo if not root), Python packages from PyPI
# into build/venv, peers into build/PART-venv.  Safe to run again: what is there is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:-base}

need=()
have() { command -v "$1" >/dev/null 2>&1 || need+=("$2"); }
have gcc gcc
have g++ g++
have pkg-config pkg-config
have python3 python3
have git git
pkg-config --exists jansson 2>/dev/null || need+=(libjansson-dev)
pkg-config --exists openblas 2>/dev/null || need+=(libopenblas-dev)
python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
python3 - <<'PY' 2>/dev/null || need+=(python3-dev)
import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))
PY
if [ "$part" = web ] || [ "$part" = test ]; then
    have node nodejs
    have npm npm
fi
# Optional: layers with weights in bf16 and int8.
case $part in test | demo | bench)
    echo '#include <oneapi/dnnl/dnnl.h>' | gcc -E -x c - >/dev/null 2>&1 || need+=(libdnnl-dev) ;;
esac
if [ "$part" = test ]; then
    have chromium chromium
    have cmake cmake
    have valgrind valgrind
    have qemu-x86_64 qemu-user
fi

if [ "$part" = peers-vllm ]; then
    find /lib /usr/lib -name 'libnuma.so.1' 2>/dev/null | grep -q . || need+=(libnuma1)
fi

if [ ${#need[@]} -gt 0 ]; then
    echo "installing: ${need[*]}"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "these packages are missing and apt-get is not here to install them: ${need[*]}" >&2
        exit 2
    fi
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || { echo "not root and no sudo; install: ${need[*]}" >&2; exit 2; }
        sudo=sudo
    fi
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

venv=build/venv
case $part in peers*) venv=build/$part-venv ;; esac
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
# requirements-PART-nodeps.txt names packages whose dependencies are not wanted.  The tests run the
# demo, the plots and the fast part of the formats too.
lists=(base "$part" "$part-nodeps")
if [ "$part" = test ] || [ "$part" = formats ]; then
    lists+=(demo demo-nodeps bench)
fi
for list in "${lists[@]}"; do
    stamp=$venv/.$list.installed
    wanted=tools/requirements-$list.txt
    if [ -f "$wanted" ] && ! cmp -s "$wanted" "$stamp"; then
        echo "installing Python packages of $wanted into $venv"
        flags=()
        case $list in *-nodeps) flags=(--no-deps) ;; esac
        "$venv/bin/python" -m pip install -q --disable-pip-version-check "${flags[@]}" -r "$wanted"
        cp "$wanted" "$stamp"
    fi
done
