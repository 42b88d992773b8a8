# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine with Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?= ../shared/data
export COMPASS_DATA ?= $(abspath $(DATA))

.PHONY: demo test test-slow test-release test-data test-faults lint docs bench clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,track,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/compass-ray demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not release and not data and not faults and not gpu"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not release and not data and not faults and not gpu"

test-release: $(STAMP)
	$(BIN)/python -m pytest -m "release and not gpu" -o faulthandler_timeout=1800

test-data: $(STAMP)
	$(BIN)/python -m pytest -m "data and not release and not gpu"

# Every kill; CI=1 leaves out those marked `release`, about two thirds of the matrix.
test-faults: $(STAMP)
	$(BIN)/python -m pytest -m "faults and not gpu$(if $(CI), and not release)"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python docs/generate.py

bench: $(STAMP)
	$(BIN)/python benchmarks/sib200_selection.py --data $(COMPASS_DATA)
	$(BIN)/python benchmarks/encoder.py --data $(COMPASS_DATA)
	$(BIN)/python benchmarks/adapt.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/selection.py --data $(COMPASS_DATA)
	$(BIN)/python benchmarks/practitioner.py --data $(COMPASS_DATA)
	$(BIN)/python benchmarks/ingest.py --data $(COMPASS_DATA) --ray
	$(BIN)/python benchmarks/detection.py --data $(COMPASS_DATA)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt datasketch
	$(BIN)/python benchmarks/near_duplicates.py --data $(COMPASS_DATA)
	$(BIN)/python benchmarks/million.py --data $(COMPASS_DATA)
	$(BIN)/python benchmarks/preflight.py --data $(COMPASS_DATA)

clean:
	rm -rf $(VENV) compass-demo
