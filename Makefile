# Two commands for a newcomer: `make demo` and `make test`.  Both install what is missing.
# The build itself is described in meson.build; this file only calls it.

VENV := build/venv
PY := $(VENV)/bin/python
MESON := $(VENV)/bin/meson
NINJA := $(VENV)/bin/ninja

.PHONY: all demo page test bench bench-peers bench-guard formats build setup setup-test setup-demo setup-bench setup-web setup-formats install clean

all: build

setup:
	@tools/setup.sh base
setup-test:
	@tools/setup.sh test
setup-demo:
	@tools/setup.sh demo
setup-bench:
	@tools/setup.sh bench
setup-web:
	@tools/setup.sh web
setup-formats:
	@tools/setup.sh formats

build: setup
	@tools/build.sh release -Dwerror=true

# The real sentence encoder all-MiniLM-L6-v2 with every attention computed by qkv.
demo: setup-demo build
	@tools/demo.sh

# Every test there is; ends with a line `N passed, N failed`.
test: setup-test
	@tools/test.sh

# The interactive page (sizes and a playground) in build/web, served on this machine's own address.
page: setup-web
	@tools/web.sh serve

# This machine's ceilings, and what qkv reaches of them; keeps tables and plots in bench/results.
bench: setup-bench
	@tools/bench.sh

# qkv beside PyTorch, ONNX Runtime, OpenVINO, vLLM and SGLang, in turns; rewrites README's figures.
bench-peers: setup
	@tools/bench_peers.sh

# This tree against the last tag (or BASE=revision), in turns within one process.
bench-guard: setup
	@tools/bench_guard.sh $(BASE)

# What each format of a cache does to attention over real keys and values; rewrites docs/cache-formats.
formats: setup-formats build
	@tools/install_python.sh
	@$(PY) bench/formats

install: build
	@DESTDIR=$(DESTDIR) $(MESON) install -C build/release --no-rebuild

clean:
	rm -rf build
