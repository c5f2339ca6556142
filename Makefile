# Two commands for a newcomer: `make demo` and `make test`.  Both install what is missing.
# The build itself is described in meson.build; this file only calls it.

VENV := build/venv
PY := $(VENV)/bin/python
MESON := $(VENV)/bin/meson
NINJA := $(VENV)/bin/ninja

.PHONY: all demo test bench build setup setup-test setup-demo install clean

all: build

setup:
	@tools/setup.sh base
setup-test:
	@tools/setup.sh test
setup-demo:
	@tools/setup.sh demo

build: setup
	@tools/build.sh release -Dwerror=true

# The real sentence encoder all-MiniLM-L6-v2 with every attention computed by qkv.
demo: setup-demo build
	@tools/demo.sh

# Every test there is; ends with a line `N passed, N failed`.
test: setup-test
	@tools/test.sh

# This machine's ceilings, and what qkv reaches of them; keeps the tables in bench/results.
bench: setup
	@tools/bench.sh

install: build
	@DESTDIR=$(DESTDIR) $(MESON) install -C build/release --no-rebuild

clean:
	rm -rf build
