# make demo    set up, then migrate one machine under every threading model and compare them
# make test    set up, then run the linters, the type checker and the tests
# make soak    a thousand migrations in a row, in one pair of processes
# make bench   set up, build the C program to compare with, and measure
# make qemu    install QEMU 10, busybox-static and cpio (Debian's packages; as root), build a tiny guest, migrate it
# make fuzz    a minute of coverage-guided fuzzing of everything that reads a peer's or a file's bytes
# make clean   remove what these made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test lint soak bench bench-quick qemu fuzz clean help
help:
	@sed -n 's/^# //p' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "migpool needs Python 3.11 or later: run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[unicorn,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps ./tests/example-plugin
	@touch $@

demo: $(READY)
	$(BIN)/migpool compare default

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

soak: $(READY)
	$(BIN)/pytest -m soak

bench: $(READY)
	$(BIN)/pytest -q -s benchmarks/test_workerpool.py
	$(BIN)/python -m benchmarks.datapath
	command -v qemu-system-x86_64 >/dev/null && $(BIN)/python -m benchmarks.ram || echo "no QEMU to compare memory with: make qemu"

bench-quick: $(READY)
	$(BIN)/pytest -q -s benchmarks/test_workerpool.py
	$(BIN)/python -m benchmarks.datapath --quick

qemu: $(READY)
	tests/qemu/setup
	$(BIN)/pytest -m qemu tests/qemu

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python tests/fuzz all --seconds 60

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks build *.egg-info
