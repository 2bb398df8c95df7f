# `make` lists the targets. All of them set up what they need by themselves.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
# Each worker may hold tvm and torch, a gigabyte; a file's tests share what its fixtures compile.
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup lib demo test test-long check format bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv and install everything, Debian packages too where this is root

$(READY): pyproject.toml tools/install/setup.sh tools/install/debian-packages.txt
	tools/install/setup.sh $(VENV)
	@touch $@

lib: $(READY) ## rebuild the runtime's shared library after a change in C
	$(PYTHON) -m pip install --quiet --no-build-isolation --no-deps --editable .

demo: $(READY) ## compile a model, train it on this machine, show what that took
	$(PYTHON) -m edgec.tools.demo

test: $(READY) ## run the tests
	$(PYTHON) -m pytest -m "not long" $(WORKERS)

test-long: $(READY) ## run the long tail: wheel, fuzzers, whole models
	$(PYTHON) -m pytest -m long

check: $(READY) ## lint, and check the formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(READY) ## format the sources
	$(PYTHON) -m ruff check --fix-only --quiet .
	$(PYTHON) -m ruff format .

bench: $(READY) ## measure, against peers where they are installed
	$(PYTHON) -m pip install --quiet --no-build-isolation --editable '.[bench]'
	@mkdir -p build
	$(PYTHON) -m edgec.tools.bench --picture build/bench.svg

clean: ## delete what builds leave in the tree; .venv stays
	rm -rf build dist *.egg-info runtime/_edgec*.so .pytest_cache .ruff_cache .hypothesis
