# Two commands do everything: `make demo` and `make test`. `make help` names the others.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8642
# More for pytest: make test OPTIONS="--fuzz 20000"
OPTIONS ?=
# The first with native sidecars, and the newest that there are schemas for.
KUBERNETES  := 1.29 1.37
IMAGE_TESTS := tests/clients/test_image.py tests/clients/test_podman.py tests/clients/test_kustomize.py

.PHONY: help demo test test-floor coverage lint manifests pins image dist data docs types check bench clean

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

lint: $(VENV)/linted manifests ## check style, and the files of containers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/zizmor --offline --quiet .github

manifests: $(VENV)-deploy/installed ## check the Dockerfile and the manifests, for the first and the last Kubernetes that is claimed
	$(VENV)-deploy/bin/hadolint Dockerfile
	@$(VENV)-deploy/bin/kubectl kustomize deploy/kustomize/example >$(VENV)-deploy/example.yaml
	@for version in $(KUBERNETES); do $(VENV)-deploy/bin/kubernetes-validate --strict --quiet -k $$version \
	  deploy/kubernetes-sidecar.yaml $(VENV)-deploy/example.yaml || exit 1; done

pins: $(VENV)-deploy/installed ## pin what the image installs to the newest versions, with their hashes
	@for pinned in "requirements slproxy otel redis uvloop" "requirements-build build"; do set -- $$pinned; file=$$1; shift; \
	  $(VENV)-deploy/bin/python tests/requirements.py "$$@" | tr ' ' '\n' | $(VENV)-deploy/bin/pip-compile --quiet --upgrade \
	  --generate-hashes --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file deploy/$$file.txt - || exit 1; done

image: $(VENV)/tested $(VENV)-deploy/installed ## build the image with podman, and run it (as root of Debian or Ubuntu)
	.ci/image .images
	PATH="$(CURDIR)/$(VENV)-deploy/bin:$$PATH" $(BIN)/python -m pytest --podman .images/podman $(IMAGE_TESTS)

dist: $(VENV)/linted ## build the packages, the same each time, and install them by pip, pipx and uv without a network
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python -m pytest --packages tests/clients/test_packages.py

data: $(VENV)/tested $(VENV)-data/installed ## load by dlt and Singer, as docs/data.md has it
	$(BIN)/python -m pytest --data $(VENV)-data tests/clients/test_data.py

docs: $(VENV)/linted ## build the pages as a site, in site/, and check its links (python3 -m http.server -d site shows it)
	$(BIN)/python -m tests.site_files .site
	rm -rf site && $(BIN)/zensical build --strict
	$(BIN)/python -m pytest --site site tests/test_site.py
	@echo "To read it: python3 -m http.server -d site"

types: $(VENV)/linted ## check types
	$(BIN)/mypy --strict

check: test lint types ## what CI does

bench: $(VENV)/linted ## measure requests per second beside a bare passthrough and Envoy
	$(BIN)/python -m benchmarks.throughput

clean: ## remove what the other commands made
	rm -rf $(VENV) $(VENV)-floor $(VENV)-deploy $(VENV)-data .images .site .cache site tests/support/node/node_modules .coverage*

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
	@$(BIN)/pip install --quiet --disable-pip-version-check $$($(BIN)/python tests/requirements.py lint installers docs)
	@touch $@

$(VENV)-floor/tested: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-floor
	@$(VENV)-floor/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(VENV)-floor/bin/pip install --quiet --disable-pip-version-check \
	  $$($(VENV)-floor/bin/python tests/requirements.py --lowest slproxy otel redis uvloop test)
	@touch $@

$(VENV)-deploy/installed: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-deploy
	@$(VENV)-deploy/bin/pip install --quiet --disable-pip-version-check $$($(VENV)-deploy/bin/python tests/requirements.py deploy)
	@touch $@

$(VENV)-data/installed: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-data
	@$(VENV)-data/bin/pip install --quiet --disable-pip-version-check --no-compile $$($(VENV)-data/bin/python tests/requirements.py data)
	@touch $@
