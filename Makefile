# Every target sets up first if needed. `make help` lists them.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# The tests are the only thing that loads transformers, and never from the network.
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
# tests/site lets torchvision, which only tests and the benchmark meet, be imported where its compiled part does not load.
export PYTHONPATH := $(CURDIR):$(CURDIR)/tests/site
# Jobs and Ray's workers find the environment's own python and ray first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint bench train clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## create .venv and install the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Deixis needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); try: make setup PYTHON=python3.11" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@echo "compiling the engine's loops for this CPU"
	@$(PY) -c "from model.engine import NativeEngine as E; E('model/checkpoints/default', kv_budget_bytes=10**7).close()"
	@touch $(STAMP)

demo: $(STAMP)  ## answer the bundled catalog
	@$(PY) jobs/catalog_qa.py

lint: $(STAMP)  ## ruff and mypy
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary

test: lint  ## lint, types and the quick tests
	@$(PY) -m pytest

test-all: lint  ## everything, with real clusters
	@$(PY) -m pytest -m "slow or not slow"

bench: $(STAMP)  ## speed of the job, the engine and its peers; one JSON line last
	@$(PY) jobs/speed.py

train: $(STAMP)  ## train a checkpoint on all suites from nothing (days on a CPU)
	@$(PY) jobs/train.py

clean:  ## remove the environment and the caches; results and runs stay
	@rm -rf $(VENV) .cache .ruff_cache build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
