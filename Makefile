# The two commands of the README are `make demo` and `make test`; `make check` is the quick half.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A broken or half-made install is never taken for a whole one: the stamp is written last.
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test

# Test processes: each takes one core and up to 3 GiB.
TEST_WORKERS ?= 2
# Bytecode is kept even where the environment says otherwise: the annotations of the whole package are
# compiled into it, by every process of the tests.
PYTEST := NO_ALBUMENTATIONS_UPDATE=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
	-n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
# More for pytest, such as `-W default`: warnings of old versions of other libraries are no errors.
PYTEST_OPTIONS ?=

# The quick half: rooms whose tests train next to nothing.
QUICK := tests/config tests/files tests/shards tests/report tests/test_plan.py tests/test_package.py \
	tests/test_moved.py tests/test_docstrings.py tests/generator/test_density.py \
	tests/models/test_likelihoods.py tests/models/test_bounds.py

.PHONY: demo test check lint torture bench docs clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(STAMP)
	$(BIN)/vaeaug augment digits --config pipelines/demo.yaml --out runs/demo

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(PYTEST) $(PYTEST_OPTIONS)

check: lint
	$(PYTEST) -q $(PYTEST_OPTIONS) $(QUICK)

# Two hundred commands killed at random points; their bytes are compared. About an hour. As root,
# TORTURE_OPTIONS="--full-disks 40" adds disks that are full.
torture: $(TEST_STAMP)
	$(BIN)/python -m benchmarks.torture --trials 200 $(TORTURE_OPTIONS) --out runs/torture

# Speed beside limits that are measured in the same run; nothing else may be running.
bench: $(STAMP)
	PYTHON=$(BIN)/python bash benchmarks/bench.sh

docs: $(TEST_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) runs site
