#!/usr/bin/env bash
# The demo on real input: all-MiniLM-L6-v2 with every attention computed by qkv.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install_python.sh
exec build/venv/bin/python examples/minilm/demo.py --out build/demo "$@"
