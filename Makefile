# Two commands do everything: `make demo` and `make test`. `make help` names the others.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8642
# More for pytest: make test OPTIONS="--fuzz 20000"
OPTIONS ?=

.PHONY: help demo test test-floor coverage lint types check bench clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/installed ## run the proxy against the built-in fake SalesLoft, until Ctrl-C
	@$(BIN)/python proxy.py serve --sandbox --port $(PORT)

test: $(VENV)/tested ## run all tests, on as many workers as pay
	$(BIN)/python -m pytest -n auto $(OPTIONS)

test-floor: $(VENV)-floor/tested ## run what depends on versions with the oldest that pyproject.toml admits
	$(VENV)-floor/bin/python -m pytest -n auto -m "not heavy" $(OPTIONS)

coverage: $(VENV)/tested ## run all tests, and show which lines and branches none of them reaches
	$(BIN)/python -m pytest -n auto --cov $(OPTIONS)

lint: $(VENV)/linted ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/linted ## check types
	$(BIN)/mypy --strict

check: test lint types ## what CI does

bench: $(VENV)/linted ## measure requests per second beside a bare passthrough and Envoy
	$(BIN)/python -m benchmarks.throughput

clean: ## remove what the other commands made
	rm -rf $(VENV) $(VENV)-floor tests/support/node/node_modules .coverage*

# What a command needs is installed once, and again when pyproject.toml changes.
$(VENV)/installed: pyproject.toml
	@echo "Installing into $(VENV) (once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "slproxy needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/tested: $(VENV)/installed
	@$(BIN)/pip install --quiet --disable-pip-version-check $$($(BIN)/python tests/requirements.py otel redis test witness)
	@touch $@

$(VENV)/linted: $(VENV)/tested
	@$(BIN)/pip install --quiet --disable-pip-version-check $$($(BIN)/python tests/requirements.py lint)
	@touch $@

$(VENV)-floor/tested: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-floor
	@$(VENV)-floor/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(VENV)-floor/bin/pip install --quiet --disable-pip-version-check \
	  $$($(VENV)-floor/bin/python tests/requirements.py --lowest slproxy otel redis uvloop test)
	@touch $@
