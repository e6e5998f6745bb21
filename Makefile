# Needs make and Python >= 3.11. The first target that needs it makes $(VENV) and installs into it.
#
#   make demo                        the whole way on scikit-learn's digits: build, serve, detect, report
#   make test | check | bench
#   make test PYTHON=python3.12      with another Python (used when $(VENV) is made)

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# mypy does not follow an editable install whose folders have other names than its packages: it gets links
ROOMS := $(VENV)/rooms

IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
# lazily: looked for only when the environment is made
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python $(IS_NEW_ENOUGH) 2>/dev/null && { echo $$python; break; }; done)

# every script of benchmarks/ whose name does not begin with an underscore; the tables are made of what the others left
MEASURING = $(filter-out benchmarks/_% benchmarks/tables.py,$(wildcard benchmarks/*.py))
BENCHMARKS = $(patsubst benchmarks/%.py,benchmarks.%,$(MEASURING)) benchmarks.tables

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test check format bench clean

help: ## these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-9s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## make the environment, if that has not been done

demo: $(INSTALLED) ## build a detector on digits, serve it, ask it, write a report
	$(BIN)/modeguard demo

test: $(INSTALLED) ## the tests; no network, nothing outside the repository
	$(BIN)/python -m pytest

check: $(INSTALLED) ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(ROOMS) $(BIN)/mypy

format: $(INSTALLED) ## mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## the benchmarks, one after the other; JSON under benchmarks/results
	@test -d "$$MODEGUARD_DATA" -a -d "$$MODEGUARD_WEIGHTS" || { \
		echo "the benchmarks need CIFAR-10 and weights: set MODEGUARD_DATA and MODEGUARD_WEIGHTS to their directories, see docs/recipes.md" >&2; \
		exit 1; }
	@set -e; for module in $(BENCHMARKS); do echo "== $$module"; $(BIN)/python -m $$module; done

clean: ## remove the environment and caches; artefacts, which may be hours of work, stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml setup.py
	@test -n "$(PYTHON)" || { \
		echo "modeguard needs Python 3.11 or newer, and none was found; install one, or name it: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) --version >/dev/null 2>&1 || { \
		echo "modeguard needs Python 3.11 or newer, but $(PYTHON) does not run; name another: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) $(IS_NEW_ENOUGH) || { \
		echo "modeguard needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1); name another: make PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --disable-pip-version-check --editable . --group dev
	@mkdir -p $(ROOMS)/modeguard
	@for room in detector templates_store offline service; do ln -sfn $(CURDIR)/$$room $(ROOMS)/modeguard/$$room; done
	@for file in modeguard/*; do ln -sfn $(CURDIR)/$$file $(ROOMS)/$$file; done
	@touch $@
