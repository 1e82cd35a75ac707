# `make demo` and `make test` do all the set-up that they need. PYTHON=... names another interpreter (3.11-3.13).
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
DEV := .venv/installed-dev
PEERS := .venv/installed-bench
RUN ?= runs/digits-demo
BENCH ?=
# processes of `make test`; a file's tests share one, as they share Ray clusters and compiled networks
WORKERS ?= 2
# aarch64 tests need qemu-user, which pip cannot bring; CI installs it with apt
MARKS := $(if $(shell command -v qemu-aarch64 || command -v qemu-aarch64-static),not slow,not slow and not qemu)

.PHONY: install demo demo-phones verify test test-slow lint format bench clean
install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "npas needs Python 3.11, 3.12 or 3.13; found $$(python3 --version 2>&1). Set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	$(BIN)/python -m device_farm.compiler.warm_up
	touch $@

$(DEV): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/npas search examples/demo.yaml --resume
	$(BIN)/npas verify $(RUN)

# the same on eight emulated phones, through adb
demo-phones: $(INSTALLED)
	$(BIN)/npas devices emulate 8 --model emu-x86-fast --model emu-x86-slow --adb 5137 \
		--run $(BIN)/npas search examples/phones.yaml --resume

test: $(DEV)
	@case "$(MARKS)" in *qemu*) echo "note: no qemu-aarch64 here, the aarch64 tests are left out (apt-get install qemu-user)";; esac
	$(BIN)/python -m pytest -m "$(MARKS)" -n $(WORKERS) --dist loadfile

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(PEERS): $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

# every benchmark and docs/performance.md, hours; BENCH=--quick is a look that overwrites nothing
bench: $(PEERS)
	$(BIN)/python -m benchmarks.all $(BENCH)

clean:
	rm -rf .venv build *.egg-info
