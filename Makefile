# make run    a working chat page on http://127.0.0.1:7860, from nothing
# make test   all tests, from nothing
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
BENCH := $(or $(CITEWELL_BENCH),../shared/bench)

# Twice quiet: an older pip warns of an extra of lxml's that is there under another spelling; errors show. On a terminal, dots tell that it goes on.
pip = shell=$$$$; test -t 1 && while sleep 2 && kill -0 $$shell 2>/dev/null; do printf .; done & \
  $(BIN)/python -m pip install -qq --disable-pip-version-check $(1); status=$$?; test ! -t 1 || echo; exit $$status

.PHONY: run install test airgap check bench load format clean
.DEFAULT_GOAL := run

run: .venv/installed
	@$(BIN)/citewell fetch || echo "Going on without a language model: the documents' own sentences will answer."
	@$(BIN)/citewell serve

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Citewell needs Python 3.11 or newer, with venv. Install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing exact versions into .venv (once; some minutes, nearly all of it downloads) ..."
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv || \
	  { rm -rf .venv; echo "Python's venv module is missing: install it (on Debian: apt install python3-venv) and run make again."; exit 1; }
	@$(call pip,-r requirements.lock)
	@$(call pip,--no-deps --editable .)
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	@echo "Installing what tests need (once) ..."
	@$(call pip,-r requirements-dev.lock)
	@touch $@

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -m "not model"
	@$(BIN)/citewell fetch --model embedded || echo "Going on without the embedded model: the tests that need it will be skipped."
	$(BIN)/python -m pytest -m model

# All of it again with no network but loopback; the kernel counts what is asked of the outside, by children too (Linux).
airgap: .venv/installed-dev
	@$(BIN)/citewell fetch --model embedded || echo "Going on without the embedded model: the tests that need it will be skipped."
	$(BIN)/python tests/airgap.py $(MAKE) --no-print-directory test

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_house.py tests/test_supply_chain.py
	$(BIN)/python tests/supply_chain.py
	@mkdir -p build
	$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --output-file build/citewell.cdx.json requirements.lock

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev
	@$(BIN)/citewell fetch --model embedded
	CITEWELL_BENCH=$(BENCH) $(BIN)/python tests/bench.py

# Many users at once, for ten minutes; the figures are only worth something where nothing else runs.
load: .venv/installed-dev .venv-load/installed
	$(BIN)/python tests/load.py --locust .venv-load/bin/locust

.venv-load/installed: requirements-load.lock
	@$(PYTHON) -m venv --clear .venv-load
	@.venv-load/bin/python -m pip install -qq --disable-pip-version-check -r requirements-load.lock
	@touch $@

clean:
	rm -rf .venv .venv-load build .pytest_cache .ruff_cache .mypy_cache
