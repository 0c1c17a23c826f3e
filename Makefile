# `make help` prints the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-current demo test test-current lint format compile bench bench-large soak clean

help:  ## Print the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.done  ## Make .venv with the pinned set of constraints.txt

$(VENV)/.done: pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh $(PYTHON) $(VENV)

setup-current: .venv-current/.done  ## Make .venv-current with the set of constraints-current.txt

.venv-current/.done: pyproject.toml constraints-current.txt scripts/setup-current.sh
	@bash scripts/setup-current.sh $(PYTHON) .venv-current

demo: setup  ## Run the whole loop on the embedded control plane: ingest to predict
	@$(BIN)/kubeloop demo

test: setup setup-current lint  ## Lint, type check, then run the tests on both sets of packages
	@bash scripts/test.sh

lint: setup  ## ruff, mypy and the import layers
	@bash scripts/lint.sh $(BIN)

format: setup  ## Format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

compile: setup  ## Compile the pipelines into pipelines/compiled/
	@$(BIN)/python -m kubeloop.pipelines.compiling

soak: setup  ## Run the tests that kill at random moments, for many minutes
	@$(BIN)/python -m pytest -m soak --timeout 1800

bench: setup  ## Print measured ratios against named peers
	@$(BIN)/python tests/bench/run.py

bench-large: setup  ## Measure ingestion at 10 GB: speed and peak of memory (takes 25 GB of disk)
	@$(BIN)/python tests/bench/bench_datasets.py --large

clean:  ## Remove what the targets made
	@rm -rf $(VENV) .venv-current build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
