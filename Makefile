# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
BENCH := $(VENV)/.bench
# Tests that run at once: two cores and about 4 GB each way.
WORKERS ?= 2
# These start federations, which would choose the same free ports at once: one after the other.
FEDERATIONS := tests/journeys tests/deploy/test_exposure.py
# The one of them that is among the tests: a campaign of two sites, from the start to a verdict.
SHORTEST := tests/journeys/test_local_federation.py
# One failure is a failure. Only where AGAIN is set (continuous integration, on machines shared with others) what failed
# beside other tests runs once more by itself; what passes only then is named in the log: it is a test to mend.
REPEAT := { echo "== AGAIN, alone: what failed above"; $(BIN)/python -m pytest -rA --last-failed --last-failed-no-failures none; }
ALONE := $(if $(AGAIN),$(REPEAT),false)
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test journeys attacks soak fuzz load check bench format clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(SETUP): pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "Wardround needs Python 3.11 to 3.13"'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25" "setuptools>=80"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

$(BENCH): $(SETUP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	@touch $@

setup: $(SETUP) ## make the environment in .venv and install everything

demo: $(SETUP) ## a whole federation on this machine, on synthetic images
	$(BIN)/wardround demo

test: $(SETUP) ## the tests (PostgreSQL and Chromium ones skip, and say so, where those are absent)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(FEDERATIONS:%=--ignore=%) || $(ALONE)
	$(BIN)/python -m pytest $(SHORTEST) || $(ALONE)

journeys: $(SETUP) ## whole federations of real processes, killed, starved and looked at in a browser: 20 minutes
	$(BIN)/python -m pytest $(FEDERATIONS) --ignore=$(SHORTEST) || $(ALONE)

attacks: $(SETUP) ## attack every guarantee, print what happened; fails if one attack was not stopped
	$(BIN)/python -m tests.attacks

soak: $(SETUP) ## processes killed with -9: 20 in a campaign of 4 sites, then a site's service 100 times; prints the seeds
	$(BIN)/python -m tests.soak $(SEED)
	$(BIN)/python -m tests.soak.site $(if $(SEED),--seed $(SEED))

fuzz: $(SETUP) ## 5,000 requests made from a site's OpenAPI document; fails on one answer that is not as it says
	$(BIN)/python -m tests.fuzz

load: $(BENCH) ## three minutes of load on a site, with a swap and a rollback; then twice too much
	$(BIN)/python -m tests.load

check: $(SETUP) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(SETUP) ## format and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH) ## measured ratios against peers, one run each
	$(BIN)/python -m tests.bench.dp_step
	$(BIN)/python -m tests.bench.round_time
	$(BIN)/python -m tests.bench.round_overhead
	$(BIN)/python -m tests.bench.aggregation_memory
	$(BIN)/python -m tests.bench.robustness
	$(BIN)/python -m tests.bench.compression
	$(BIN)/python -m tests.bench.evaluation
	$(BIN)/python -m tests.bench.inference

clean: ## remove the environment and what runs left behind
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
