# make run    a working chat page on http://127.0.0.1:7860, from nothing
# make test   all tests, from nothing
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
BENCH := $(or $(CITEWELL_BENCH),../shared/bench)

.PHONY: run install test check bench format clean
.DEFAULT_GOAL := run

run: .venv/installed
	@$(BIN)/citewell fetch || echo "Going on without a language model: the documents' own sentences will answer."
	@$(BIN)/citewell serve

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Citewell needs Python 3.11 or newer, with venv. Install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing exact versions into .venv (once) ..."
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv || \
	  { rm -rf .venv; echo "Python's venv module is missing: install it (on Debian: apt install python3-venv) and run make again."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

test: .venv/installed-dev
	$(BIN)/python -m pytest -m "not model and not browser"
	@$(BIN)/citewell fetch --model embedded || echo "Going on without the embedded model: the tests that need it will be skipped."
	$(BIN)/python -m pytest -m "model or browser"

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_house.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev
	@$(BIN)/citewell fetch --model embedded
	CITEWELL_BENCH=$(BENCH) $(BIN)/python tests/bench.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
