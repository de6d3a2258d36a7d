# make demo    set up, then migrate one machine under every threading model and compare them
# make test    set up, then run the tests and beside them linters and type checker; TESTERS=1: one test after the other
#              RERUNS=1, here and with the other tests: what failed runs once more, and is told; the closing line counts it
# make soak    a thousand migrations in a row, in a few pairs of processes, and two hundred while strangers flood the port
# make lab     decide the claims, an hour and a quarter: one with a real QEMU, five over links if root runs it; lab-quick: a look, ten minutes
# make bench   set up, build the C program to compare with, and measure
# make qemu    install QEMU 10, busybox-static and cpio (Debian's packages; as root), build a tiny guest, migrate it;
#              then the same with the newest QEMU of Debian, in a chroot, which also attaches a device of `vfio serve`;
#              PAIRS=60: sixty pairs are explained instead of four
# make qemu-matrix  does QEMU what `migpool vmsd diff` says? Three releases, 292 pairs; WRITE=--write puts it in the docs
# make bench-compare BEFORE=commit  what became slower since, measured in turns; NOW=commit instead of the tree as it stands
# make docs    build the site of what stands in docs/ in build/site, and check it; what it shows needs no network
# make browser install Chromium and its driver (Debian's packages; as root), and look at the report and the site with it
# make cluster sweeps and comparisons on Dask workers of this host, whose scheduler, workers and clients are killed
# make cpython install CPython's own tests (Debian's libpython3.N-testsuite; as root), run them on WorkerPool
# make kernel  install QEMU and a compiler, unpack Linux 6.12, boot it, migrate devices of its driver mtty (as root)
# make nested  the same guest with QEMU 10 in it: QEMUs migrate mtty to each other, through migpool, and to and from it
#              (as root); NESTED=--every-way: in 32 ways instead of eight; NESTED="--rounds=7 --state=8388608": loading measured
# make iommufd build a small Linux 6.12 that has iommufd, which Debian's has not (some minutes, then kept);
#              the same tests there, without groups (as root)
# make model   search the model of the hand-over for two machines, with Spin (Debian's packages; as root)
# make fuzz    a minute each (FUZZ_SECONDS=60) of coverage-guided fuzzing of everything that reads a peer's or a file's bytes
# make matrix  core, pool, wire and migrations on Python 3.11 to 3.15, those that are missing by Debian's packages (as root);
#              make matrix PYTHONS=3.11 DEPENDENCIES=oldest: with the oldest dependencies that pyproject.toml allows
# make freethreaded  the same tests on a Python without the global interpreter lock, built from Debian's source (as root)
# make release build wheel and source archive in build/dist, twice, and try each on Python 3.11 to 3.15 with nothing else
# make container  install buildah (Debian's package; as root), build the image of Containerfile with it, and run its demo
# make lock    lock the newest version of every dependency that is allowed, with hashes; LOCKED=1 make test installs those
# make audit   ask the package index's advisory database about every locked dependency
# make clean   remove what these made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two more than there are processors: many tests wait for something.
TESTERS ?= $(shell echo $$(($$(nproc) + 2)))
READY  := $(VENV)/.ready
# No more than three: what fails at random in many places is broken. With 0 the plug-in is not even there: each worker would
# ask, at each test, how often it has failed, which takes longer than most of them.
ONCE_MORE = $(if $(filter-out 0,$(RERUNS)),--reruns $(RERUNS) --max-suite-reruns 3 --rerun-show-tracebacks,-p no:rerunfailures)
TESTS   = $(BIN)/pytest $(ONCE_MORE)
# Where each test waits for a machine or a browser of its own, which takes a processor.
TWO_AT_ONCE = $(TESTS) -n 2 -p no:benchmark

# What runs on every Python.
SUITE        := tests/core tests/flow tests/schedulers tests/transport tests/workers tests/wire tests/migration \
                tests/ram tests/conformance tests/vcpu/test_vcpu_interruptions.py
PYTHONS      ?= 3.11 3.12 3.13 3.14 3.15
DEPENDENCIES ?= newest
FUZZ_SECONDS ?= 60
NESTED       ?=
PAIRS        ?=
RERUNS       ?= 0

# Hundreds of processes are started here: what one of them has compiled, the others are to find.
unexport PYTHONDONTWRITEBYTECODE
export PAIRS

.PHONY: lab lab-quick demo test lint soak bench bench-quick bench-compare docs qemu qemu-matrix cpython kernel nested iommufd browser model fuzz matrix freethreaded cluster release container lock audit clean help
help:
	@sed -n 's/^# //p' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "migpool needs Python 3.11 or later: run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/dependencies/lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation ./tests/example-plugin
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[unicorn,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps ./tests/example-plugin
endif
	@touch $@

demo: $(READY)
	$(BIN)/migpool compare default
	@echo "Open $(CURDIR)/migpool-report.html in a browser: it needs no network"

# All at once; what each says is printed when it has ended.
AT_ONCE := $(MAKE) --no-print-directory --keep-going --jobs=5 --output-sync=target
LINTERS := lint-types lint-rooms lint-rules lint-format

lint: $(READY)
	@$(AT_ONCE) $(LINTERS)

lint-types: $(READY)
	$(BIN)/mypy

lint-rooms: $(READY)
	$(BIN)/lint-imports --no-logo

lint-rules: $(READY)
	$(BIN)/ruff check .

lint-format: $(READY)
	$(BIN)/ruff format --check .

# The type checker keeps one processor busy for half a minute, so it does not come first.
test: $(READY)
	@$(AT_ONCE) run-tests $(LINTERS)

# With "+" it is shown how far they are.
run-tests: $(READY)
	+env --unset=MAKEFLAGS $(TESTS) -n $(TESTERS) -p no:benchmark

soak: $(READY)
	$(TESTS) -m soak

lab: $(READY)
	$(BIN)/migpool lab run all --results build/results

lab-quick: $(READY)
	$(BIN)/migpool lab run all --quick --results build/results-quick

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/pytest -q -s --ignore=benchmarks/test_datapath.py benchmarks
	$(BIN)/python -m benchmarks.datapath
	command -v qemu-system-x86_64 >/dev/null && $(BIN)/python -m benchmarks.ram || echo "no QEMU to compare memory with: make qemu"

bench-compare: $(READY)
	$(BIN)/python -m benchmarks.between $(BEFORE) $(NOW)

bench-quick: $(READY)
	$(BIN)/pytest -q -s benchmarks/test_workerpool.py benchmarks/test_reassembly.py
	$(BIN)/python -m benchmarks.datapath --quick

qemu: $(READY)
	tests/qemu/setup
	$(TWO_AT_ONCE) -m qemu tests/qemu
	tests/debian/chroot sid qemu-system-x86
	QEMU='build/debian/in-sid qemu-system-x86_64' $(TWO_AT_ONCE) -m qemu --basetemp build/tmp tests/qemu
	$(TESTS) -m qemu tests/vfio

qemu-matrix: $(READY)
	tests/qemu/matrix/setup
	$(BIN)/python -m tests.qemu.matrix $(WRITE)

# A warning is an error: a link that leads nowhere, a heading that is not there. All is read anew: a new page changes others.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs,cluster]'
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --write-all --conf-dir docs/site --doctree-dir build/doctrees \
		--builder html . build/site
	@echo "Open $(CURDIR)/build/site/index.html in a browser. Now it is tested:"
	$(TESTS) -q -m site tests/site

cluster: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cluster]'
	$(TESTS) -q -m cluster tests/sweeps tests/lab

browser: $(READY) docs
	tests/browser/setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	$(TWO_AT_ONCE) -m browser tests/browser

# The tests come with the distribution's own Python, so it is that one which runs them.
cpython:
	/usr/bin/python3 -c 'import venv, ensurepip, test.test_concurrent_futures' 2>/dev/null || \
		{ apt-get update -q && apt-get install -y -q --no-install-recommends python3 python3-venv && \
		  apt-get install -y -q --no-install-recommends \
			"libpython$$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite"; }
	/usr/bin/python3 -m venv build/cpython
	build/cpython/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	build/cpython/bin/pytest tests/workers/test_workerpool_cpython.py

kernel: $(READY)
	tests/kernel/setup
	$(TESTS) -q tests/vfio/test_vfio_kernel_abi.py
	$(BIN)/python -m tests.kernel kernel $(ONCE_MORE)

nested: $(READY)
	tests/qemu/setup
	tests/kernel/setup
	$(BIN)/python -m tests.kernel nested $(ONCE_MORE) $(NESTED)

iommufd: $(READY)
	tests/kernel/setup-iommufd
	MIGPOOL_KERNEL=iommufd $(BIN)/python -m tests.kernel kernel $(ONCE_MORE)

model: $(READY)
	command -v spin >/dev/null && command -v gcc >/dev/null || \
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends spin gcc libc6-dev; }
	$(BIN)/python -m tests.model

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz all --seconds $(FUZZ_SECONDS)

matrix:
	tests/pythons/matrix "$(PYTHONS)" $(DEPENDENCIES) $(SUITE)

freethreaded:
	tests/pythons/matrix freethreaded $(DEPENDENCIES) $(SUITE)

# uv resolves for every Python and system at once, so there is one lock; pip takes it as it is.
lock: $(READY)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(PYTHON) tests/dependencies/builders.py | build/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --all-extras --output-file tests/dependencies/lock.txt pyproject.toml -

audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/python tests/dependencies/audit.py

release:
	tests/release/check "$(PYTHONS)"

container:
	tests/release/container

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks build *.egg-info migpool-report.html
