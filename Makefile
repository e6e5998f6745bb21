# Needs make and Python >= 3.11. The first target that needs it makes $(VENV) and installs into it.
#
#   make demo                        the whole way on scikit-learn's digits: build, serve, detect, report
#   make test | coverage | check | bench
#   make lock                        choose the packages' versions anew
#   make test PYTHON=python3.12      with another Python (used when $(VENV) is made)

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOCK := requirements.lock
# mypy does not follow an editable install whose folders have other names than its packages: it gets links
ROOMS := $(VENV)/rooms
# two tests at a time, each file's on one worker because they share what they build; torch would take all cores for each
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
LEAST_COVERAGE := 95

IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
# lazily: looked for only when the environment is made
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python $(IS_NEW_ENOUGH) 2>/dev/null && { echo $$python; break; }; done)

# every script of benchmarks/ whose name does not begin with an underscore; the tables are made of what the others left
MEASURING = $(filter-out benchmarks/_% benchmarks/tables.py,$(wildcard benchmarks/*.py))
BENCHMARKS = $(patsubst benchmarks/%.py,benchmarks.%,$(MEASURING)) benchmarks.tables

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test coverage check types format hooks lock bench clean

help: ## these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-9s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## make the environment, if that has not been done

demo: $(INSTALLED) ## build a detector on digits, serve it, ask it, write a report
	$(BIN)/modeguard demo

test: $(INSTALLED) ## the tests; no network, nothing outside the repository
	$(PYTEST) $(PYTEST_FLAGS)

coverage: $(INSTALLED) ## the tests, and what they reach; fails below 95 %
	@$(MAKE) --no-print-directory test PYTEST_FLAGS="--cov --cov-report="
	$(BIN)/coverage report --fail-under=$(LEAST_COVERAGE)

check: $(INSTALLED) ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

types: $(INSTALLED) ## mypy, with the files' places in the repository in its messages
	@status=0; MYPYPATH=$(ROOMS) $(BIN)/mypy >$(VENV)/types.txt || status=$$?; \
	sed -e 's|^$(ROOMS)/modeguard/\([a-z_]*/\)|\1|' -e 's|^$(ROOMS)/||' $(VENV)/types.txt; exit $$status

format: $(INSTALLED) ## mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(INSTALLED) ## check what is committed before git commits it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(LOCK) --group hooks
	$(BIN)/pre-commit install

lock: | $(BIN)/python ## choose the newest versions that pyproject.toml allows, for every system and Python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-annotate --no-emit-index-url --all-extras --group dev --group hooks --group lock --output-file $(LOCK) pyproject.toml

bench: $(INSTALLED) ## the benchmarks, one after the other; JSON under benchmarks/results
	@test -d "$$MODEGUARD_DATA" -a -d "$$MODEGUARD_WEIGHTS" || { \
		echo "the benchmarks need CIFAR-10 and weights: set MODEGUARD_DATA and MODEGUARD_WEIGHTS to their directories, see docs/recipes.md" >&2; \
		exit 1; }
	@set -e; for module in $(BENCHMARKS); do echo "== $$module"; $(BIN)/python -m $$module; done

clean: ## remove the environment and caches; artefacts, which may be hours of work, stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
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

$(INSTALLED): pyproject.toml setup.py $(LOCK) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --constraint $(LOCK) --editable '.[build]' --group dev
	@mkdir -p $(ROOMS)/modeguard
	@for room in detector templates_store offline service; do ln -sfn $(CURDIR)/$$room $(ROOMS)/modeguard/$$room; done
	@for file in modeguard/*; do ln -sfn $(CURDIR)/$$file $(ROOMS)/$$file; done
	@touch $@
