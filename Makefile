# Two commands for a newcomer: `make demo` and `make test`.  Both install what is missing.
# The build itself is described in meson.build; this file only calls it.

VENV := build/venv
PY := $(VENV)/bin/python
MESON := $(VENV)/bin/meson
NINJA := $(VENV)/bin/ninja

.PHONY: all demo test bench bench-peers bench-guard build setup setup-test setup-demo setup-bench install clean

all: build

setup:
	@tools/setup.sh base
setup-test:
	@tools/setup.sh test
setup-demo:
	@tools/setup.sh demo
setup-bench:
	@tools/setup.sh bench

build: setup
	@tools/build.sh release -Dwerror=true

# The real sentence encoder all-MiniLM-L6-v2 with every attention computed by qkv.
demo: setup-demo build
	@tools/demo.sh

# Every test there is; ends with a line `N passed, N failed`.
test: setup-test
	@tools/test.sh

# This machine's ceilings, and what qkv reaches of them; keeps tables and plots in bench/results.
bench: setup-bench
	@tools/bench.sh

# qkv beside PyTorch, ONNX Runtime, OpenVINO, vLLM and SGLang, in turns; rewrites README's figures.
bench-peers: setup
	@tools/bench_peers.sh

# This tree against the last tag (or BASE=revision), in turns within one process.
bench-guard: setup
	@tools/bench_guard.sh $(BASE)

install: build
	@DESTDIR=$(DESTDIR) $(MESON) install -C build/release --no-rebuild

clean:
	rm -rf build
